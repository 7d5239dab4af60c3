"""The one table of states."""

from __future__ import annotations

from google.genai import types

from airflow_provider_geminibatch.core.model import STATES, JobSnapshot, state_name, state_row

WIRE = ("UNSPECIFIED", "PENDING", "RUNNING", "SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED")


def test_the_table_is_total_over_the_sdk_and_the_wire() -> None:
    sdk = {state_name(state.value) for state in types.JobState}

    assert sdk == set(STATES)
    assert set(WIRE) <= set(STATES)


def test_only_ended_states_can_have_succeeded_or_be_read() -> None:
    for row in STATES.values():
        assert row.ended or not (row.succeeded or row.readable)


def test_a_partly_successful_job_has_ended_although_the_sdk_waits_for_it() -> None:
    assert state_row("PARTIALLY_SUCCEEDED").ended


def test_an_unknown_state_is_waited_for() -> None:
    job = JobSnapshot(name="batches/1", state=state_name("BATCH_STATE_PONDERING"))

    assert (job.state, job.ended, job.readable) == ("PONDERING", False, False)


def test_both_prefixes_name_one_state() -> None:
    assert state_name("BATCH_STATE_RUNNING") == state_name("JOB_STATE_RUNNING") == "RUNNING"
