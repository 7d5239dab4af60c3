"""Cancelling: the mark first, then the service; any number of times; and what could not be done is said."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_geminibatch.core.ledger import Claim, Sending, Uploaded
from airflow_provider_geminibatch.core.manifest import Manifest
from airflow_provider_geminibatch.core.model import BatchId, ServiceIdentity
from airflow_provider_geminibatch.emulator import Server
from airflow_provider_geminibatch.hooks.gemini_batch import GeminiBatchHook
from airflow_provider_geminibatch.jobs.submit import Submitted, submit
from airflow_provider_geminibatch.jobs.wait import utc_now
from airflow_provider_geminibatch.operators.cancel import GeminiBatchCancelOperator
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.stores import LocalStore
from tests.airflow.faces import context
from tests.airflow.waiting import facts, job_names, log, sealed, submitted

pytestmark = pytest.mark.airflow


def cancelled(manifest: Any, **where: Any) -> dict[str, Any]:
    return GeminiBatchCancelOperator(task_id="stop", submitted=manifest).execute(context("stop", **where))


def test_open_jobs_are_cancelled_with_a_mark_and_ended_ones_are_left_alone(service: Server, workspace: str) -> None:
    service.emulator.scenario("late", hours=30, jobs=(1,))
    manifest = submitted(workspace, shards=2)
    ended, open_ = job_names(workspace, manifest)
    service.emulator.clock.advance(hours=6)

    assert cancelled(manifest) == {"asked": [open_], "ended": {ended: "SUCCEEDED"}}

    assert service.emulator.state(open_) == "BATCH_STATE_CANCELLED"
    left, marked = facts(workspace, manifest)
    assert left.last.cancel is None
    assert marked.last.cancel.why == "stop of dag, scheduled__2018-01-31T00:00:00+00:00"


def test_it_may_run_any_number_of_times(service: Server, workspace: str) -> None:
    manifest = submitted(workspace)
    (name,) = job_names(workspace, manifest)
    cancelled(manifest)
    mark = facts(workspace, manifest)[0].last.cancel
    assert cancelled(manifest, try_number=2) == {"asked": [], "ended": {name: "CANCELLED"}}
    assert facts(workspace, manifest)[0].last.cancel == mark
    assert service.emulator.log.count("batches.cancel") == 1


def test_several_batches_are_cancelled_together(service: Server, workspace: str) -> None:
    one, other = submitted(workspace), submitted(workspace, batch=BatchId("dag", "run", "prepare", 1))
    names = job_names(workspace, one) + job_names(workspace, other)
    assert cancelled([one, other])["asked"] == names


def test_a_retry_ends_what_the_service_was_too_busy_to_end(service: Server, workspace: str) -> None:
    manifest = submitted(workspace, shards=2)
    service.emulator.scenario("burst_503", endpoint="batches.cancel", times=1)
    with pytest.raises(AirflowException, match="busy or out of reach") as caught:
        cancelled(manifest)
    assert not isinstance(caught.value, AirflowFailException)
    assert service.emulator.log.count("batches.cancel") == 2
    assert len(cancelled(manifest, try_number=2)["asked"]) == 1
    assert [service.emulator.state(name) for name in job_names(workspace, manifest)] == ["BATCH_STATE_CANCELLED"] * 2


def test_a_job_that_the_service_does_not_show_is_said_to_be_perhaps_running(service: Server, workspace: str) -> None:
    manifest = submitted(workspace)
    service.emulator.reset()
    with pytest.raises(AirflowException, match="It may still run and be paid"):
        cancelled(manifest)
    assert facts(workspace, manifest)[0].last.cancel is None


def test_after_a_submit_that_said_nothing_the_teardown_says_what_to_pass(
    service: Server, workspace: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert cancelled(None) == {"asked": [], "ended": {}}
    assert "pass what Prepare returned" in caplog.text


def test_a_prepared_batch_without_jobs_has_nothing_to_cancel(service: Server, workspace: str) -> None:
    assert cancelled(sealed(workspace)) == {"asked": [], "ended": {}}


def test_a_create_whose_fate_is_unknown_is_named(
    service: Server, workspace: str, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = sealed(workspace)
    store = LocalStore(workspace)
    place = "batches/dag/run/prepare/map=-1/g0001/s/b1/0000/a01"
    base = {"owner": "me", "at": utc_now()}
    service_identity = ServiceIdentity("developer", service.url)
    fact_store.put(store, f"{place}.claim", Claim(**base, display_name="gb1-x", service=service_identity))
    fact_store.put(store, f"{place}.uploaded", Uploaded(**base, file_name="files/x", file_at=utc_now()))
    fact_store.put(store, f"{place}.sending", Sending(**base))
    assert cancelled(manifest) == {"asked": [], "ended": {}}
    assert "shard 0 may have become a job" in caplog.text


def test_a_second_create_whose_fate_is_unknown_is_named_too(
    service: Server, workspace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The job of the first attempt has ended; a later Submit was sending the shard again when it died."""
    manifest = submitted(workspace)
    cancelled(manifest)
    store, place = LocalStore(workspace), "batches/dag/run/prepare/map=-1/g0001/s/b1/0000/a02"
    base = {"owner": "me", "at": utc_now()}
    service_identity = ServiceIdentity("developer", service.url)
    fact_store.put(store, f"{place}.claim", Claim(**base, display_name="gb1-x", service=service_identity))
    fact_store.put(store, f"{place}.uploaded", Uploaded(**base, file_name="files/x", file_at=utc_now()))
    fact_store.put(store, f"{place}.sending", Sending(**base))
    cancelled(manifest)
    assert "shard 0 may have become a job" in caplog.text


def test_a_later_submit_sends_a_cancelled_shard_again(service: Server, workspace: str) -> None:
    """The mark is what tells our cancelled job from somebody else's."""
    manifest = submitted(workspace)
    (before,) = job_names(workspace, manifest)
    cancelled(manifest)
    gateway = GeminiBatchHook().gateway()
    end = submit(
        Manifest(manifest["uri"]), store=LocalStore(workspace), gateway=gateway, me="again", now=utc_now, log=log
    )
    gateway.close()
    assert isinstance(end, Submitted)
    assert end.job_names != (before,)
    assert service.emulator.log.count("batches.create") == 2
