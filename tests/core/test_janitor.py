"""What the janitor may touch: a table of what it sees."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.janitor import (
    Act,
    Known,
    Places,
    Standing,
    batch_finding,
    file_finding,
    job_finding,
    note_finding,
    safe_age,
)
from airflow_provider_geminibatch.core.model import STATES, JobSnapshot

NOW = datetime(2026, 11, 10, tzinfo=UTC)
HERE = Places(mark="gb1-w-", route="developer", service_now=NOW)


def job(state: str, hours: float = 1, **more: object) -> JobSnapshot:
    created = NOW - timedelta(hours=hours)
    return JobSnapshot(name="batches/j", state=state, created_at=created, input_file="files/i", **more)  # type: ignore[arg-type]


def known(standing: Standing, *, collected: bool = False) -> Known:
    return Known(label="dag.task", generation="g", place="p", standing=standing, why="cut", collected=collected)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("files/i", True),
        ("gs://b/staging/gb1-w-abc/0001.jsonl", True),
        ("gs://b/gb1-w-abc/mine/0001.jsonl", False),
        ("gs://b/in.jsonl", False),
        ("gs://b/gb1-other-abc/0001.jsonl", False),
        ("bq://p.d.t", False),
        ("", False),
    ],
)
def test_an_input_that_is_none_of_ours_is_never_deleted(name: str, ours: bool) -> None:
    for state in ("SUCCEEDED", "RUNNING"):
        seen = JobSnapshot(name="batches/j", state=state, created_at=NOW - timedelta(hours=200), input_file=name)
        for ledger in (known(Standing.CLOSED), None):
            finding = job_finding(seen, ledger, HERE)
            acts = finding.acts if finding else ()
            assert (Act.DELETE_INPUT in acts) == (ours and seen.ended)
            if name.startswith("gs://"):
                assert bool(acts) == ours


@pytest.mark.parametrize(
    ("seen", "ledger", "acts"),
    [
        (job("RUNNING"), known(Standing.CLOSED), (Act.CANCEL,)),
        (job("SUCCEEDED"), known(Standing.CLOSED), (Act.COLLECT, Act.DELETE_INPUT)),
        (job("SUCCEEDED"), known(Standing.CLOSED, collected=True), None),
        (job("CANCELLED"), known(Standing.CLOSED), None),
        (job("RUNNING"), known(Standing.OPEN), None),
        (job("SUCCEEDED"), known(Standing.OPEN), ()),
        (job("SUCCEEDED"), known(Standing.OPEN, collected=True), None),
        (job("RUNNING", 200), known(Standing.UNREADABLE), ()),
        (job("RUNNING", 71), None, ()),
        (job("SUCCEEDED", 71), None, ()),
        (job("RUNNING", 72), None, (Act.CANCEL,)),
        (job("SUCCEEDED", 72), None, (Act.COLLECT, Act.DELETE_INPUT)),
        (job("EXPIRED", 72), None, None),
    ],
)
def test_what_may_be_done_about_a_job(seen: JobSnapshot, ledger: Known | None, acts: tuple[Act, ...] | None) -> None:
    finding = job_finding(seen, ledger, HERE)
    assert (finding.acts if finding else None) == acts
    if finding:
        assert "batches/j" in str(finding)


@given(
    state=st.sampled_from(sorted(STATES)),
    hours=st.floats(0, 1000),
    standing=st.sampled_from([None, *Standing]),
    collected=st.booleans(),
    unreadable=st.booleans(),
    clock=st.booleans(),
)
def test_nothing_of_unfinished_work_is_ever_touched(
    state: str, hours: float, standing: Standing | None, collected: bool, unreadable: bool, clock: bool
) -> None:
    places = Places(
        mark="gb1-w-", route="developer", service_now=NOW if clock else None, unreadable=("g",) if unreadable else ()
    )
    finding = job_finding(job(state, hours), known(standing, collected=collected) if standing else None, places)
    acts = finding.acts if finding else ()
    if standing in (Standing.OPEN, Standing.UNREADABLE):
        assert acts == ()
    if standing is None and (unreadable or not clock or hours < 72):
        assert acts == ()
    if Act.DELETE_INPUT in acts:
        assert acts.index(Act.COLLECT) < acts.index(Act.DELETE_INPUT)
    if Act.CANCEL in acts:
        assert not job(state).ended


def test_where_a_job_may_queue_for_days_more_time_has_to_pass() -> None:
    assert safe_age("developer") == timedelta(hours=72)
    assert safe_age("vertex") == safe_age("a route of tomorrow") == timedelta(hours=120)


def test_files_notes_and_batches_that_are_not_closed_are_left_alone() -> None:
    assert file_finding("files/i", known(Standing.OPEN)) is None
    closed = file_finding("files/i", known(Standing.CLOSED))
    assert closed is not None
    assert closed.acts == (Act.DELETE_INPUT,)
    note = note_finding("open/x.json", "dag.task", Standing.CLOSED)
    assert note is not None
    assert note.acts == (Act.DELETE_NOTE,)
    assert note_finding("open/x.json", "dag.task", Standing.OPEN) is None
    lost = note_finding("open/x.json", "uri", None)
    assert lost is not None
    assert lost.acts == ()


@pytest.mark.parametrize(
    ("standing", "days", "forgotten", "said"),
    [
        (Standing.OPEN, 6, False, "unfinished for 6 days"),
        (Standing.OPEN, 6, True, None),
        (Standing.OPEN, 1, False, None),
        (Standing.CLOSED, 6, False, None),
        (Standing.UNREADABLE, 0, False, "cannot be read: cut"),
    ],
)
def test_a_batch_that_nobody_finishes_is_named(
    standing: Standing, days: int, forgotten: bool, said: str | None
) -> None:
    finding = batch_finding("g", "dag.task", standing, "cut", timedelta(days=days), forgotten)
    assert (finding is None) if said is None else (finding is not None and said in finding.says and not finding.acts)
