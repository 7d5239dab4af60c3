"""The sensor: looks before it defers, passes when all have ended, never cancels by itself, says what it means."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
)

from airflow_provider_geminibatch.core.model import BatchId
from airflow_provider_geminibatch.core.names import short
from airflow_provider_geminibatch.emulator import Server
from airflow_provider_geminibatch.hooks import kill
from airflow_provider_geminibatch.hooks.gemini_batch import GeminiBatchHook
from airflow_provider_geminibatch.sensors.batch import SLACK, GeminiBatchSensor
from airflow_provider_geminibatch.storage.stores import LocalStore
from tests.airflow.conftest import KEY
from tests.airflow.faces import connection, context
from tests.airflow.waiting import facts, job_names, sealed, submitted

pytestmark = pytest.mark.airflow

HOUR = timedelta(hours=1)


def sensor(**given: Any) -> GeminiBatchSensor:
    return GeminiBatchSensor(task_id="wait", **given)


def deferred(task: GeminiBatchSensor, where: dict[str, Any] | None = None) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as caught:
        task.execute(where or context("wait"))
    return caught.value


def resumed(task: GeminiBatchSensor, deferral: TaskDeferred, where: dict[str, Any] | None = None) -> Any:
    """Run the trigger as the task's next stint sees it: over its serialized form, then the resume method of a new task."""
    _, kwargs = deferral.trigger.serialize()
    trigger = type(deferral.trigger)(**kwargs)

    async def run() -> list[Any]:
        return [event.payload async for event in trigger.run()]

    (payload,) = asyncio.run(run())
    return task.resume_execution(deferral.method_name, {"event": payload}, where or context("wait"))


def cancel(name: str) -> None:
    gateway = GeminiBatchHook().gateway()
    gateway.cancel(name)
    gateway.close()


def test_jobs_that_have_ended_pass_at_once_without_deferring(service: Server, workspace: str) -> None:
    manifest = submitted(workspace, shards=2)
    service.emulator.clock.advance(hours=5)
    where = context("wait")

    result = sensor(submitted=manifest).execute(where)

    assert result == {"v": 1, "uri": manifest["uri"], "rows": None, "shards": None} | manifest
    assert where["ti"].pushed["jobs"] == {
        "jobs": 2, "states": {"SUCCEEDED": 2}, "rows": 4, "succeeded": 4, "failed": 0, "turnaround_s": 18000.0,
    }  # fmt: skip


def test_open_jobs_defer_and_the_resumed_task_puts_their_ends_on_record(service: Server, workspace: str) -> None:
    manifest = submitted(workspace, shards=2)
    deferral = deferred(sensor(submitted=manifest))
    assert [shard.last.end for shard in facts(workspace, manifest)] == [None, None]

    service.emulator.clock.advance(hours=5)
    where = context("wait")
    result = resumed(sensor(submitted=manifest), deferral, where)

    assert result == manifest
    ends = [shard.last.end for shard in facts(workspace, manifest)]
    assert [(end.state, end.counts.succeeded) for end in ends] == [("SUCCEEDED", 2), ("SUCCEEDED", 2)]
    assert {end.owner for end in ends} == {short(str(where["ti"].id), "1")}
    assert service.emulator.log.count("batches.create") == 2
    assert service.emulator.log.count("batches.cancel") == 0


def test_ends_on_record_are_enough_when_the_service_has_forgotten_the_jobs(
    service: Server, workspace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = submitted(workspace)
    service.emulator.clock.advance(hours=5)
    sensor(submitted=manifest).execute(context("wait"))
    monkeypatch.delenv("AIRFLOW_CONN_GEMINIBATCH_DEFAULT")
    assert sensor(submitted=manifest).execute(context("wait", try_number=2)) == manifest


def test_several_manifests_are_waited_for_together(service: Server, workspace: str) -> None:
    one = submitted(workspace)
    other = submitted(workspace, batch=BatchId("dag", "run", "prepare", 1))
    deferral = deferred(sensor(submitted=[one, None, other]))
    assert sorted(deferral.trigger.job_names) == sorted(job_names(workspace, one) + job_names(workspace, other))
    service.emulator.clock.advance(hours=5)
    assert resumed(sensor(submitted=[one, other]), deferral) == [one, other]


def test_the_trigger_carries_ids_and_times_and_no_key(service: Server, workspace: str) -> None:
    manifest = submitted(workspace)
    trigger = deferred(sensor(submitted=manifest, poll_interval=7)).trigger
    path, kwargs = trigger.serialize()
    (name,) = job_names(workspace, manifest)
    assert path == "airflow_provider_geminibatch.triggers.batch.GeminiBatchTrigger"
    assert KEY not in f"{path}{kwargs}{trigger!r}"
    assert "row 0" not in str(kwargs)
    assert kwargs["job_names"] == [name]
    assert kwargs["conn_id"] == "geminibatch_default"
    assert kwargs["poll_seconds"] == 7.0
    assert kwargs["first_event_after"] == 12.0
    assert kwargs["ledgers"][name].startswith(f"{workspace}/batches/dag/run/prepare/map=-1/g0001/s/b1/0000/a01")


def test_only_the_open_jobs_are_waited_for(service: Server, workspace: str) -> None:
    service.emulator.scenario("late", hours=30, jobs=(1,))
    manifest = submitted(workspace, shards=2)
    service.emulator.clock.advance(hours=6)
    trigger = deferred(sensor(submitted=manifest)).trigger
    assert trigger.job_names == job_names(workspace, manifest)[1:]


# Deadlines and timeouts ------------------------------------------------------------------------------------------------


def test_a_timedelta_counts_from_the_first_claim_and_survives_retries(service: Server, workspace: str) -> None:
    manifest = submitted(workspace)
    (shard,) = facts(workspace, manifest)
    expected = (shard.attempts[0].claim.at + HOUR).isoformat()
    first = deferred(sensor(submitted=manifest, deadline=HOUR)).trigger
    second = deferred(sensor(submitted=manifest, deadline=HOUR), context("wait", try_number=2)).trigger
    assert first.deadline == second.deadline == expected


def test_the_deferrals_own_timeout_is_always_later_than_our_deadline(service: Server, workspace: str) -> None:
    manifest = submitted(workspace)
    for given in ({"deadline": HOUR}, {"timeout": 60}, {"timeout": 60, "deadline": HOUR}, {"deadline": 30 * 24 * HOUR}):
        before = datetime.now(UTC)
        deferral = deferred(sensor(submitted=manifest, **given))
        ours = datetime.fromisoformat(deferral.trigger.deadline)
        assert before + deferral.timeout >= ours + SLACK - timedelta(seconds=1)


def test_a_deadline_that_passed_fails_for_good_and_cancels_nothing(service: Server, workspace: str) -> None:
    manifest = submitted(workspace)
    (name,) = job_names(workspace, manifest)
    with pytest.raises(AirflowFailException, match=rf"deadline .* passed with jobs still open \({name} PENDING\)"):
        sensor(submitted=manifest, deadline=timedelta()).execute(context("wait"))
    assert service.emulator.log.count("batches.cancel") == 0


def test_a_deadline_that_passes_while_deferred_is_told_by_the_resumed_task(service: Server, workspace: str) -> None:
    manifest = submitted(workspace)
    soon = timedelta(seconds=1.2)
    task = sensor(submitted=manifest, deadline=datetime.now(UTC) + soon, poll_interval=1)
    deferral = deferred(task)
    with pytest.raises(AirflowFailException, match="The jobs were not cancelled"):
        resumed(task, deferral)
    assert service.emulator.log.count("batches.cancel") == 0


def test_jobs_that_ended_pass_even_after_the_deadline(service: Server, workspace: str) -> None:
    manifest = submitted(workspace)
    service.emulator.clock.advance(hours=5)
    assert sensor(submitted=manifest, deadline=timedelta()).execute(context("wait")) == manifest


def test_a_rendered_text_is_a_deadline_and_an_empty_one_is_none(service: Server, workspace: str) -> None:
    manifest = submitted(workspace)
    trigger = deferred(sensor(submitted=manifest, deadline="2099-01-01T12:00:00+02:00")).trigger
    assert deferred(sensor(submitted=manifest, deadline=" ", timeout=60)).trigger.deadline < "2099"
    # The sensor's timeout of a week comes first.
    assert trigger.deadline == trigger.give_up_at


@pytest.mark.parametrize("deadline", ["tomorrow", "2026-03-01T12:00:00", datetime(2026, 3, 1)])  # noqa: DTZ001
def test_a_deadline_that_is_no_aware_time_is_refused_with_advice(
    service: Server, workspace: str, deadline: Any
) -> None:
    manifest = submitted(workspace)
    with pytest.raises(AirflowFailException, match=r"deadline: .*Give"):
        sensor(submitted=manifest, deadline=deadline).execute(context("wait"))


def test_the_sensors_timeout_keeps_its_meaning_over_deferrals(service: Server, workspace: str) -> None:
    manifest = submitted(workspace)
    task = sensor(submitted=manifest, timeout=1.2, poll_interval=1)
    with pytest.raises(AirflowSensorTimeout, match=r"timeout of 1\.2 s passed with 1 jobs open"):
        resumed(task, deferred(task))


def test_a_timeout_with_soft_fail_skips(service: Server, workspace: str) -> None:
    task = sensor(submitted=submitted(workspace), timeout=1.2, poll_interval=1, soft_fail=True)
    deferral = deferred(task)
    with pytest.raises(AirflowSkipException):
        resumed(task, deferral)


def test_a_failed_batch_with_soft_fail_skips_already_at_the_first_look(service: Server, workspace: str) -> None:
    service.emulator.scenario("job_failed")
    manifest = submitted(workspace)
    service.emulator.clock.advance(hours=5)
    with pytest.raises(AirflowSkipException, match="no job ended with results"):
        sensor(submitted=manifest, soft_fail=True).execute(context("wait"))


# How jobs end ----------------------------------------------------------------------------------------------------------


def test_some_results_pass_with_a_warning_that_names_the_rest(
    service: Server, workspace: str, caplog: pytest.LogCaptureFixture
) -> None:
    service.emulator.scenario("job_failed", jobs=(1,))
    manifest = submitted(workspace, shards=2)
    service.emulator.clock.advance(hours=5)
    assert sensor(submitted=manifest).execute(context("wait")) == manifest
    failed = job_names(workspace, manifest)[1]
    assert f"1 of 2 jobs ended without results: {failed} FAILED code 13: Internal error encountered." in caplog.text


def test_no_results_at_all_fail_for_good_with_the_reasons(service: Server, workspace: str) -> None:
    service.emulator.scenario("job_failed", jobs=(0,))
    service.emulator.scenario("never_finishes", jobs=(1,))
    manifest = submitted(workspace, shards=2)
    failed, expired = job_names(workspace, manifest)
    service.emulator.clock.advance(hours=49)
    with pytest.raises(AirflowFailException) as caught:
        sensor(submitted=manifest).execute(context("wait"))
    assert f"{failed} FAILED code 13: Internal error encountered." in str(caught.value)
    assert f"{expired} EXPIRED: the service gave up on it after 48 h" in str(caught.value)
    assert [shard.last.end.state for shard in facts(workspace, manifest)] == ["FAILED", "EXPIRED"]


def test_a_job_that_somebody_else_cancelled_is_told_from_one_that_we_cancelled(service: Server, workspace: str) -> None:
    manifest = submitted(workspace)
    (name,) = job_names(workspace, manifest)
    cancel(name)
    with pytest.raises(AirflowFailException, match=f"{name} was cancelled at the service, and not by us"):
        sensor(submitted=manifest).execute(context("wait"))

    ours = submitted(workspace, batch=BatchId("dag", "run", "prepare", 1))
    (name,) = job_names(workspace, ours)
    where = context("wait", map_index=1)
    kill_for(where, ours, "failed")
    with pytest.raises(AirflowFailException, match=rf"{name} was cancelled by us at .* \(dag.wait\[1\] .* was marked"):
        sensor(submitted=ours).execute(context("wait"))


def kill_for(where: dict[str, Any], manifest: dict[str, Any], state: str | None) -> None:
    """Stop the task on its worker, with Airflow saying ``state``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kill, "task_state", lambda ti: state)
        patch.setattr(GeminiBatchSensor, "_current_ti", staticmethod(lambda: where["ti"]))
        sensor(submitted=manifest).on_kill()


@pytest.mark.parametrize("state", ["success", "skipped", "queued", "running", None])
def test_a_stopped_worker_cancels_nothing_unless_the_task_was_marked_failed(
    service: Server, workspace: str, state: str | None
) -> None:
    manifest = submitted(workspace)
    kill_for(context("wait"), manifest, state)
    assert service.emulator.log.count("batches.cancel") == 0
    assert facts(workspace, manifest)[0].last.cancel is None


def test_marked_failed_on_a_worker_cancels_and_leaves_the_mark(service: Server, workspace: str) -> None:
    manifest = submitted(workspace, shards=2)
    kill_for(context("wait"), manifest, "failed")
    assert service.emulator.log.count("batches.cancel") == 2
    assert all("dag.wait of scheduled__" in shard.last.cancel.why for shard in facts(workspace, manifest))


def test_a_kill_that_cannot_read_the_ledger_says_so(
    service: Server, workspace: str, caplog: pytest.LogCaptureFixture
) -> None:
    kill_for(context("wait"), sealed(workspace), "failed")
    assert "The jobs could not be cancelled. dag.prepare (run): shard 0 has no job on record" in caplog.text


def test_outside_a_task_on_kill_does_nothing(service: Server, workspace: str) -> None:
    sensor(submitted=submitted(workspace)).on_kill()
    assert service.emulator.log.count("batches.cancel") == 0


# The other modes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["poke", "reschedule"])
def test_one_poke_is_one_look(service: Server, workspace: str, mode: str) -> None:
    manifest = submitted(workspace)
    task = sensor(submitted=manifest, deferrable=False, mode=mode)
    where = context("wait")
    where["ti"].get_first_reschedule_date = lambda context: None
    assert task.poke(where) is False
    service.emulator.clock.advance(hours=5)
    assert task.execute(where) == manifest
    assert facts(workspace, manifest)[0].last.end.state == "SUCCEEDED"


def test_poke_mode_waits_on_the_worker(service: Server, workspace: str) -> None:
    manifest = submitted(workspace)
    service.emulator.clock.run(speed=18_000 * 5)
    assert sensor(submitted=manifest, deferrable=False, poke_interval=0.05).execute(context("wait")) == manifest


def test_pokes_of_one_process_say_only_what_changed(
    service: Server, workspace: str, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = submitted(workspace)
    (name,) = job_names(workspace, manifest)
    task = sensor(submitted=manifest, deferrable=False)
    with caplog.at_level("INFO"):
        for hours in (0, 0, 4, 0, 1):
            service.emulator.clock.advance(hours=hours)
            task.poke(context("wait"))
    said = [record.getMessage() for record in caplog.records if record.name.endswith("sensors.batch")]
    assert [line.partition(",")[0] for line in said[:3]] == [f"{name} {state}" for state in STATES_SEEN]
    assert len(said) == 4


STATES_SEEN = ("PENDING", "RUNNING", "SUCCEEDED")


def test_a_poke_past_the_deadline_fails_for_good(service: Server, workspace: str) -> None:
    task = sensor(submitted=submitted(workspace), deferrable=False, deadline=timedelta())
    with pytest.raises(AirflowFailException, match="The jobs were not cancelled"):
        task.execute(context("wait"))


def test_poke_mode_times_out_as_every_sensor_does(service: Server, workspace: str) -> None:
    task = sensor(submitted=submitted(workspace), deferrable=False, poke_interval=0.01, timeout=0)
    with pytest.raises(AirflowSensorTimeout):
        task.execute(context("wait"))


# Jobs named by hand ----------------------------------------------------------------------------------------------------


def test_jobs_named_by_hand_are_waited_for_and_never_cancelled(service: Server, workspace: str) -> None:
    (name,) = job_names(workspace, submitted(workspace))
    task = sensor(job_names=[name, name])
    deferral = deferred(task)
    assert deferral.trigger.ledgers == {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kill, "task_state", lambda ti: "failed")
        patch.setattr(GeminiBatchSensor, "_current_ti", staticmethod(lambda: context("wait")["ti"]))
        task.on_kill()
    assert service.emulator.log.count("batches.cancel") == 0
    service.emulator.clock.advance(hours=5)
    assert resumed(task, deferral) == {"jobs": {name: "SUCCEEDED"}}


def test_a_deadline_for_jobs_named_by_hand_counts_from_their_creation(service: Server, workspace: str) -> None:
    (name,) = job_names(workspace, submitted(workspace))
    created = service.emulator.jobs[0].created
    trigger = deferred(
        sensor(job_names=name, deadline=timedelta(days=365 * 100), timeout=timedelta(days=366 * 100))
    ).trigger
    assert datetime.fromisoformat(trigger.deadline) == created + timedelta(days=365 * 100)


@pytest.mark.parametrize("given", [[], "", ["jobs/1"], 7, [None]])
def test_what_names_no_job_is_refused_with_advice(service: Server, given: Any) -> None:
    with pytest.raises(AirflowFailException, match="job_names: "):
        sensor(job_names=given).execute(context("wait"))


def test_it_takes_one_kind_of_jobs() -> None:
    with pytest.raises(ValueError, match="submitted= or job_names="):
        sensor()
    with pytest.raises(ValueError, match="submitted= or job_names="):
        sensor(submitted={}, job_names=["batches/a"])


# What goes wrong -------------------------------------------------------------------------------------------------------


def test_a_batch_that_was_not_submitted_is_named(service: Server, workspace: str) -> None:
    with pytest.raises(AirflowFailException, match="shard 0, shard 1 has no job on record"):
        sensor(submitted=sealed(workspace, shards=2)).execute(context("wait"))


def test_a_busy_service_is_waited_out_and_a_refused_key_is_told(service: Server, workspace: str) -> None:
    manifest = submitted(workspace)
    service.emulator.scenario("burst_503", endpoint="batches.get", times=1)
    assert deferred(sensor(submitted=manifest)).trigger.job_names == job_names(workspace, manifest)
    service.emulator.revoke(KEY)
    with pytest.raises(AirflowFailException, match="refused the key"):
        sensor(submitted=manifest).execute(context("wait"))


def test_a_connection_that_points_elsewhere_makes_jobs_unreachable_and_not_gone(
    service: Server, workspace: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = submitted(workspace)
    service.emulator.reset()
    assert deferred(sensor(submitted=manifest)).trigger.job_names
    assert "is unreachable (404: " in caplog.text
    assert "does not mean gone" in caplog.text
    monkeypatch.setenv("AIRFLOW_CONN_GEMINIBATCH_DEFAULT", connection("http://127.0.0.1:1", KEY))
    assert deferred(sensor(submitted=manifest)).trigger.job_names


def test_a_ledger_that_cannot_be_read_is_never_taken_for_one_without_jobs(service: Server, workspace: str) -> None:
    manifest = submitted(workspace)
    store = LocalStore(workspace)
    (claim,) = [path for path in store.list("batches") if path.endswith("a01.claim")]
    store.write(claim, b"{")
    with pytest.raises(AirflowException, match="is not a whole Claim"):
        sensor(submitted=manifest).execute(context("wait"))


def test_what_is_no_manifest_is_refused(service: Server) -> None:
    with pytest.raises(AirflowFailException, match="is not a manifest"):
        sensor(submitted="nonsense").execute(context("wait"))
