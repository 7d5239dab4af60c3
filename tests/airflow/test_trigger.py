"""The trigger: one event, nothing made and nothing ended by running, and a kill that asks first."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

from airflow_provider_geminibatch.emulator import Server
from airflow_provider_geminibatch.hooks import kill
from airflow_provider_geminibatch.hooks.gemini_batch import GeminiBatchHook
from airflow_provider_geminibatch.jobs import poller
from airflow_provider_geminibatch.triggers.batch import GeminiBatchTrigger
from tests.airflow.conftest import KEY
from tests.airflow.faces import context
from tests.airflow.waiting import facts, job_names, submitted

pytestmark = pytest.mark.airflow

SINCE = "2026-11-01T00:00:00+00:00"
CREATING = ("batches.create", "batches.cancel", "batches.delete", "files.start", "files.delete")


def trigger(names: list[str], **given: Any) -> GeminiBatchTrigger:
    made = {"conn_id": "geminibatch_default", "since": SINCE, "first_event_after": 0.0, "poll_seconds": 1.0}
    return GeminiBatchTrigger(job_names=names, **(made | given))


async def events(of: GeminiBatchTrigger) -> list[dict[str, Any]]:
    return [event.payload async for event in of.run()]


def run(of: GeminiBatchTrigger) -> list[dict[str, Any]]:
    found = asyncio.run(asyncio.wait_for(events(of), 30))
    assert poller._pollers == {}
    return found


def made_or_ended(service: Server) -> int:
    return sum(service.emulator.log.count(endpoint) for endpoint in CREATING)


def test_it_fires_one_event_that_any_database_takes(service: Server, workspace: str) -> None:
    names = job_names(workspace, submitted(workspace, shards=2))
    service.emulator.clock.advance(hours=5)
    (payload,) = run(trigger(names, give_up_at="2026-12-01T00:00:00+00:00"))
    assert json.loads(json.dumps(payload)) == payload == {
        "status": "ended",
        "jobs": dict.fromkeys(names, "SUCCEEDED"),
        "give_up_at": "2026-12-01T00:00:00+00:00",
    }  # fmt: skip


def test_at_the_deadline_it_says_so_and_ends_nothing(service: Server, workspace: str) -> None:
    (name,) = job_names(workspace, submitted(workspace))
    before = made_or_ended(service)
    (payload,) = run(trigger([name], deadline=datetime.now(UTC).isoformat()))
    assert (payload["status"], payload["jobs"]) == ("timeout", {name: "PENDING"})
    assert made_or_ended(service) == before


def test_it_survives_its_serialization(service: Server) -> None:
    one = trigger(["batches/a"], deadline=SINCE, ledgers={"batches/a": "/w/batches/d/r/t/map=-1/g0001/s/b/0000/a01"})
    path, kwargs = one.serialize()
    again = GeminiBatchTrigger(**json.loads(json.dumps(kwargs)))
    assert again.serialize() == (path, kwargs)
    assert KEY not in repr(one)


def test_a_restarted_triggerer_only_looks_again(service: Server, workspace: str) -> None:
    """A triggerer that goes away cancels ``run`` without a word; another one starts it from the beginning."""
    names = job_names(workspace, submitted(workspace, shards=2))
    before = made_or_ended(service)

    async def killed() -> None:
        task = asyncio.create_task(events(trigger(names)))
        for _ in range(500):
            await asyncio.sleep(0.01)
            if service.emulator.log.count("batches.list"):
                break
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(killed())
    assert poller._pollers == {}
    service.emulator.clock.advance(hours=5)
    (payload,) = run(trigger(names))
    assert payload["status"] == "ended"
    assert made_or_ended(service) == before


def test_no_event_comes_right_after_the_deferral(service: Server, workspace: str) -> None:
    (name,) = job_names(workspace, submitted(workspace))
    service.emulator.clock.advance(hours=5)
    slow = trigger([name], first_event_after=0.4)
    slow.trigger_id = 1
    begun = time.monotonic()
    run(slow)
    assert time.monotonic() - begun >= 0.4


def test_inline_there_is_no_executor_to_be_faster_than(service: Server, workspace: str) -> None:
    (name,) = job_names(workspace, submitted(workspace))
    service.emulator.clock.advance(hours=5)
    begun = time.monotonic()
    run(trigger([name], first_event_after=20.0))
    assert time.monotonic() - begun < 10


def test_many_triggers_share_one_list_and_one_client(service: Server, workspace: str) -> None:
    names = job_names(workspace, submitted(workspace, shards=30))
    service.emulator.clock.advance(hours=5)

    async def together() -> list[list[dict[str, Any]]]:
        return await asyncio.gather(*(events(trigger([name])) for name in names))

    found = asyncio.run(together())
    assert [payloads[0]["jobs"] for payloads in found] == [{name: "SUCCEEDED"} for name in names]
    looks = service.emulator.log.count("batches.list") + service.emulator.log.count("batches.get")
    assert looks == 1


def test_trouble_at_the_service_is_waited_out(
    service: Server, workspace: str, caplog: pytest.LogCaptureFixture
) -> None:
    (name,) = job_names(workspace, submitted(workspace))
    service.emulator.clock.advance(hours=5)
    service.emulator.scenario("burst_503", endpoint="*", times=4)
    with caplog.at_level("INFO"):
        (payload,) = run(trigger([name]))
    assert payload["status"] == "ended"
    said = [record.getMessage() for record in caplog.records if record.name.endswith("triggers.batch")]
    assert len(said) == 2
    assert "could not look" in said[0]
    assert "looking works again" in said[1]


def test_a_connection_that_is_missing_is_waited_out_until_the_deadline(
    service: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_GEMINIBATCH_DEFAULT")
    soon = datetime.now(UTC) + timedelta(seconds=0.2)
    with caplog.at_level("INFO"):
        (payload,) = run(trigger(["batches/a"], deadline=soon.isoformat()))
    assert payload == {"status": "timeout", "jobs": {}, "give_up_at": None}
    assert "it does not exist" in caplog.text


def test_an_airflow_that_cannot_be_asked_for_the_connection_is_waited_out(
    service: Server, workspace: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (name,) = job_names(workspace, submitted(workspace))
    service.emulator.clock.advance(hours=5)
    connect, failures = GeminiBatchHook.aconnect, [AirflowException("the API server is away")]

    async def shaky(conn_id: str) -> Any:
        if failures:
            raise failures.pop()
        return await connect(conn_id)

    monkeypatch.setattr(GeminiBatchHook, "aconnect", staticmethod(shaky))
    with caplog.at_level("INFO"):
        (payload,) = run(trigger([name]))
    assert payload["status"] == "ended"
    assert "reading connection 'geminibatch_default'" in caplog.text


# on_kill ---------------------------------------------------------------------------------------------------------------


def killed(service: Server, workspace: str, state: str | None, *, ledgers: bool = True) -> dict[str, Any]:
    """A deferred task is acted on, and Airflow says that it is ``state`` now."""
    manifest = submitted(workspace, shards=2)
    names = job_names(workspace, manifest)
    places = {
        name: f"{workspace}/batches/dag/run/prepare/map=-1/g0001/s/b1/{index:04d}/a01"
        for index, name in enumerate(names)
    }
    one = trigger(names, ledgers=places if ledgers else None)
    one.task_instance = context("wait")["ti"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kill, "task_state", lambda ti: state)
        asyncio.run(one.on_kill())
    return manifest


def test_marked_failed_cancels_the_jobs_and_the_ledger_says_for_whom(service: Server, workspace: str) -> None:
    manifest = killed(service, workspace, "failed")
    names = job_names(workspace, manifest)
    assert [service.emulator.state(name) for name in names] == ["BATCH_STATE_CANCELLED"] * 2
    marks = [shard.last.cancel for shard in facts(workspace, manifest)]
    assert {mark.why for mark in marks} == {"dag.wait of scheduled__2018-01-31T00:00:00+00:00 was marked failed"}


@pytest.mark.parametrize("state", ["success", "skipped", "scheduled", "queued", "running", "up_for_retry", None])
def test_clear_mark_success_and_all_else_cancel_nothing(service: Server, workspace: str, state: str | None) -> None:
    manifest = killed(service, workspace, state)
    assert service.emulator.log.count("batches.cancel") == 0
    assert [shard.last.cancel for shard in facts(workspace, manifest)] == [None, None]


def test_jobs_that_are_not_ours_are_not_cancelled(service: Server, workspace: str) -> None:
    killed(service, workspace, "failed", ledgers=False)
    assert service.emulator.log.count("batches.cancel") == 0


def test_the_mark_is_there_even_if_the_service_cannot_be_asked(
    service: Server, workspace: str, caplog: pytest.LogCaptureFixture
) -> None:
    service.emulator.scenario("burst_503", endpoint="batches.cancel", times=2)
    with caplog.at_level("INFO"):
        manifest = killed(service, workspace, "failed")
    assert all(shard.last.cancel for shard in facts(workspace, manifest))
    assert "could not be asked" in caplog.text


def test_a_workspace_that_cannot_be_read_cancels_nothing_and_raises_nothing(
    service: Server, workspace: str, caplog: pytest.LogCaptureFixture
) -> None:
    names = job_names(workspace, submitted(workspace))
    one = trigger(names, ledgers={names[0]: "nowhere://bucket/batches/d/r/t/map=-1/g0001/s/b/0000/a01"})
    one.task_instance = context("wait")["ti"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kill, "task_state", lambda ti: "failed")
        asyncio.run(one.on_kill())
    assert "The jobs could not be cancelled." in caplog.text
    assert service.emulator.log.count("batches.cancel") == 0


def test_a_trigger_without_a_task_has_nobody_to_ask_about(service: Server) -> None:
    asyncio.run(trigger(["batches/a"], ledgers={"batches/a": "/w/batches/x/a01"}).on_kill())
    assert service.emulator.log.count("batches.get") == 0


# What Airflow says of a task -------------------------------------------------------------------------------------------


def test_the_state_of_a_task_is_asked_by_run_and_map_index(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def states(**given: Any) -> dict[str, Any]:
        asked.append(given)
        return {"r": {"wait": "failed", "wait_3": "success"}}

    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", staticmethod(states))
    assert kill.task_state(context("wait", run_id="r")["ti"]) == "failed"
    assert kill.task_state(context("wait", run_id="r", map_index=3)["ti"]) == "success"
    assert kill.task_state(context("wait", run_id="other")["ti"]) is None
    assert asked[1] == {"dag_id": "dag", "map_index": 3, "task_ids": ["wait"], "run_ids": ["r"]}


def test_without_a_supervisor_the_state_cannot_be_read(caplog: pytest.LogCaptureFixture) -> None:
    assert kill.task_state(context("wait")["ti"]) is None
    assert "The state of wait could not be read" in caplog.text
