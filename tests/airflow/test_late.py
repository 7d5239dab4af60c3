"""What similar jobs took, told while waiting; a batch that is late, named once; a person's word, heeded."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from airflow_provider_geminibatch import GeminiBatchLoadOperator, GeminiBatchSensor, Landing
from airflow_provider_geminibatch.cli.main import main
from airflow_provider_geminibatch.core.ledger import Estimated, LateNamed
from airflow_provider_geminibatch.core.manifest import Manifest
from airflow_provider_geminibatch.core.names import segment
from airflow_provider_geminibatch.emulator import Server
from airflow_provider_geminibatch.hooks import outlook, waiting
from airflow_provider_geminibatch.hooks.gemini_batch import GeminiBatchHook
from airflow_provider_geminibatch.jobs.submit import read_build
from airflow_provider_geminibatch.sensors import batch as sensor_module
from airflow_provider_geminibatch.storage.facts import get
from airflow_provider_geminibatch.storage.stores import LocalStore
from tests.airflow.faces import context
from tests.airflow.test_sensor import deferred, resumed, sensor
from tests.airflow.waiting import facts, job_names, submitted

pytestmark = pytest.mark.airflow

HOUR = timedelta(hours=1)


def history(workspace: str, manifest: dict[str, Any], *seconds: float) -> None:
    """Ended jobs of the same service, model and size, each having taken so long."""
    store = LocalStore(workspace)
    build = read_build(store, Manifest(manifest["uri"]).path)
    ended = datetime.now(UTC) - timedelta(days=1)
    folder = f"history/{segment(str(GeminiBatchHook().identity()))}/{segment(build.model)}/{ended:%Y-%m}"
    for number, took in enumerate(seconds):
        at, job = ended + timedelta(seconds=number), chr(ord("a") + number % 26)
        name = f"{at:%Y%m%dT%H%M%SZ}_{took:.0f}_SUCCEEDED_{build.shards[0].rows}_{job * 8}"
        store.create(f"{folder}/{name}", b"")


def beside(workspace: str, manifest: dict[str, Any], name: str, kind: Any) -> Any:
    return get(LocalStore(workspace), Manifest(manifest["uri"]).path.partition("/builds/")[0] + f"/{name}", kind)


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    counted: list[tuple[str, Any]] = []
    stats = SimpleNamespace(incr=lambda name, tags=None: counted.append((name, tags)))
    monkeypatch.setattr(outlook, "Stats", stats)
    return counted


def ready(service: Server, workspace: str, *took: float, **more: Any) -> dict[str, Any]:
    manifest = submitted(workspace, **more)
    history(workspace, manifest, *took)
    return manifest


def test_the_estimate_is_in_the_log_in_xcom_and_in_the_trigger_as_times_only(
    service: Server, workspace: str, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = ready(service, workspace, *([3600.0] * 10 + [7200.0] * 20))
    where = context("wait")
    with caplog.at_level("INFO"):
        trigger = deferred(sensor(submitted=manifest, deadline=3 * HOUR), where).trigger

    assert "half of 30 similar jobs were done by" in caplog.text
    told = where["ti"].pushed["estimate"]
    assert told["basis"] == "same model and size"
    assert told["p50_at"] < told["deadline"]
    assert told["chance"] > 0.9
    assert told["late"] is False
    assert "the chance to have ended by the deadline" in caplog.text
    _, carried = trigger.serialize()
    assert carried["stretches"] is True
    assert carried["names_late"] is True
    assert set(carried["expected"]) <= {"p50_at", "p90_at", "p95_at", "late_at", "n", "basis", "passed"}
    assert type(trigger)(**carried)._watch().expected.n == 30
    assert beside(workspace, manifest, "estimate.json", Estimated).n == 30


def test_without_a_history_nothing_is_expected_and_nothing_invented(service: Server, workspace: str) -> None:
    manifest, where = submitted(workspace), context("wait")
    trigger = deferred(sensor(submitted=manifest, deadline=HOUR), where).trigger
    assert trigger.serialize()[1]["expected"] is None
    told = where["ti"].pushed["estimate"]
    assert (told["basis"], told["p50_at"], told["chance"]) == ("unknown", None, None)
    assert beside(workspace, manifest, "estimate.json", Estimated) is None


def test_a_chosen_interval_is_not_stretched(service: Server, workspace: str) -> None:
    manifest = ready(service, workspace, *[3600.0] * 20)
    assert deferred(sensor(submitted=manifest, poll_interval=5)).trigger.stretches is False


def test_late_is_named_once_in_log_metric_callback_and_xcom(
    service: Server, workspace: str, metrics: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    manifest = ready(service, workspace, *[1.0] * 30)
    called: list[Any] = []
    task = sensor(submitted=manifest, on_late=called.append, deadline=5 * HOUR)
    deferral = deferred(task, where := context("wait"))
    assert (called, deferral.trigger.names_late) == ([], True)
    with pytest.raises(TaskDeferred) as again:
        resumed(task, deferral, where)
    deferral = again.value

    [late] = [one["late"] for one in called]
    assert late["batch"] == "dag.prepare (run)"
    assert late["why"].startswith("nineteen in twenty similar jobs were done by")
    assert late["open"] == job_names(workspace, manifest)
    assert metrics == [("geminibatch.late", {"dag_id": "dag", "task_id": "wait"})]
    assert caplog.text.count("LATE") == 1
    assert where["ti"].pushed["estimate"]["late"] is True
    assert deferral.trigger.names_late is False
    assert beside(workspace, manifest, "late.json", LateNamed).why == late["why"]
    assert service.emulator.log.count("batches.cancel") == 0

    deferred(task, context("wait", try_number=2))
    assert len(called) == len(metrics) == 1


def test_a_callback_that_fails_harms_nobody(
    service: Server,
    workspace: str,
    metrics: list[Any],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(context: Any) -> None:
        raise RuntimeError("no phone line")

    called: list[Any] = []
    manifest = ready(service, workspace, *[60.0] * 30)
    an_hour_later = datetime.now(UTC) + HOUR
    for module in (waiting, sensor_module):
        monkeypatch.setattr(module, "utc_now", lambda: an_hour_later)
    deferred(sensor(submitted=manifest, on_late=[broken, called.append]))
    assert "on_late of wait failed; the waiting goes on." in caplog.text
    assert len(called) == 1


def test_load_tells_what_was_expected_and_that_it_was_late(service: Server, workspace: str, tmp_path: Any) -> None:
    manifest = ready(service, workspace, *[3600.0] * 30)
    deferred(sensor(submitted=manifest, deadline=3 * HOUR))
    landing = Landing("answers", str(tmp_path / "landing"))
    service.emulator.clock.advance(hours=6)

    def load() -> dict[str, Any]:
        where = context("load")
        task = GeminiBatchLoadOperator(task_id="load", submitted=manifest, to=landing, window="one")
        told = task.execute(where)
        assert where["outlet_events"][landing.asset].extra == told
        return told

    told = load()
    assert told["late"] is False
    assert (told["estimate"]["n"], told["estimate"]["basis"]) == (30, "same model and size")
    assert told["estimate"]["chance"] > 0.9
    assert told["estimate"]["p50_at"] <= told["estimate"]["p90_at"] < told["estimate"]["deadline"]
    assert told["turnaround_s"]["max"] == 18000.0


def test_load_of_a_batch_nobody_expected_anything_of_says_so(service: Server, workspace: str, tmp_path: Any) -> None:
    manifest = submitted(workspace)
    service.emulator.clock.advance(hours=6)
    landing = Landing("answers", str(tmp_path / "landing"))
    told = GeminiBatchLoadOperator(task_id="load", submitted=manifest, to=landing, window="one").execute(
        context("load")
    )
    assert (told["estimate"], told["late"]) == (None, False)


# A person's word -------------------------------------------------------------------------------------------------------


def command(manifest: dict[str, Any], what: str) -> None:
    assert main(["command", manifest["uri"], what, "--reason", "the report is due"]) == 0


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, workspace: str) -> Any:
    """A submitted batch of two shards, of which the second never ends, with the note that its generation is open."""

    def make(service: Server) -> dict[str, Any]:
        service.emulator.scenario("never_finishes", jobs=(1,))
        manifest = submitted(workspace, shards=2)
        opening = {
            "owner": "me", "at": "2026-01-01T00:00:00Z", "generation": 1, "build": "b1", "workspace_id": "w",
            "workspace_uri": workspace, "fingerprint": "1:x",
            "batch": {"dag_id": "dag", "run_id": "run", "task_id": "prepare"},
        }  # fmt: skip
        import json

        generation = Manifest(manifest["uri"]).path.partition("/builds/")[0]
        LocalStore(workspace).create(f"{generation}/batch.json", json.dumps(opening).encode())
        service.emulator.clock.advance(hours=6)
        return manifest

    return make


def test_the_trigger_looks_for_a_word_and_wakes_the_task(service: Server, workspace: str, opened: Any) -> None:
    manifest = opened(service)
    deferral = deferred(sensor(submitted=manifest, poll_interval=1))
    assert deferral.trigger.commands == [manifest["uri"].partition("/builds/")[0] + "/command.json"]
    command(manifest, "commit-now")

    task = sensor(submitted=manifest, poll_interval=1)
    with pytest.raises(TaskDeferred) as again:
        resumed(task, deferral)
    assert again.value.trigger.commands == []
    result = resumed(task, again.value)

    assert result == manifest
    assert [shard.last.end.state for shard in facts(workspace, manifest)] == ["SUCCEEDED", "CANCELLED"]
    mark = facts(workspace, manifest)[1].last.cancel
    assert "asked for commit now: the report is due" in mark.why
    assert service.emulator.log.count("batches.cancel") == 1


def test_a_batch_that_was_called_off_fails_for_good(service: Server, workspace: str, opened: Any) -> None:
    manifest = opened(service)
    command(manifest, "cancel")
    deferral = deferred(task := sensor(submitted=manifest, poll_interval=1))
    with pytest.raises(AirflowFailException, match=r"was cancelled on a person's wish .*the report is due"):
        resumed(task, deferral)


def test_a_word_does_not_count_for_jobs_that_were_submitted_later(
    service: Server, workspace: str, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = opened(service)
    path = Manifest(manifest["uri"]).path.partition("/builds/")[0] + "/command.json"
    LocalStore(workspace).create(path, b'{"owner":"a","at":"2020-01-01T00:00:00Z","command":"cancel","reason":"old"}')
    trigger = deferred(sensor(submitted=manifest)).trigger
    assert trigger.commands == []
    assert service.emulator.log.count("batches.cancel") == 0


def test_a_word_that_cannot_be_read_wakes_nobody(
    service: Server, workspace: str, opened: Any, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = opened(service)
    soon = datetime.now(UTC) + timedelta(seconds=2.5)
    deferral = deferred(task := sensor(submitted=manifest, poll_interval=1, deadline=soon))
    LocalStore(workspace).create(Manifest(manifest["uri"]).path.partition("/builds/")[0] + "/command.json", b"{")
    events = run_trigger(deferral.trigger)
    assert [event["status"] for event in events] == ["timeout"]
    assert caplog.text.count("could not be read") == 1
    assert isinstance(task, GeminiBatchSensor)


def run_trigger(trigger: Any) -> list[dict[str, Any]]:
    import asyncio

    async def run() -> list[dict[str, Any]]:
        return [event.payload async for event in trigger.run()]

    return asyncio.run(run())
