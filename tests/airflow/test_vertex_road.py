"""The faces and the commands on a connection of Vertex AI: the same tasks, nothing else to write."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_geminibatch import (
    GeminiBatchCancelOperator,
    GeminiBatchJanitorOperator,
    GeminiBatchLoadOperator,
    GeminiBatchPrepareOperator,
    GeminiBatchSensor,
    GeminiBatchSubmitOperator,
    Landing,
    RequestTemplate,
    read_window,
)
from airflow_provider_geminibatch.cli.main import main
from airflow_provider_geminibatch.core.batch import Rung
from airflow_provider_geminibatch.emulator import Emulator, Server, running
from tests.airflow.faces import context, interval
from tests.airflow.test_batch_operator import deferred, resumed, to_the_end, whole
from tests.routes import BUCKET, VERTEX

pytestmark = pytest.mark.airflow

WINDOW = interval(datetime(2018, 1, 31, tzinfo=UTC), datetime(2018, 1, 31, 12, tzinfo=UTC))
ROWS = [{"id": f"k{number}", "text": f"rain {number}"} for number in range(4)]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Any:
    emulator = Emulator(seed=7, start=datetime.now(UTC), speed=0, turnaround=(5, 5))
    with running(emulator) as server:
        monkeypatch.setenv("AIRFLOW_CONN_GEMINIBATCH_DEFAULT", VERTEX.connection(server.url))
        yield server


@pytest.fixture
def landing(tmp_path: Any) -> Landing:
    return Landing("answers", str(tmp_path / "landings" / "answers"))


def submitted() -> Any:
    template = RequestTemplate("What about $text?", key="$id")
    prepare = GeminiBatchPrepareOperator(task_id="prepare", model="gemini-3.8-flash", source=ROWS, template=template)
    prepared = prepare.execute(context("prepare", **WINDOW))
    submit = GeminiBatchSubmitOperator(task_id="submit", prepared=prepared)
    return submit.execute(context("submit", **WINDOW))


def test_rows_become_a_window_through_buckets(service: Server, workspace: str, landing: Landing, capsys: Any) -> None:
    manifest = submitted()
    service.emulator.clock.advance(hours=6)
    load = GeminiBatchLoadOperator(task_id="load", submitted=manifest, to=landing)
    load.execute(context("load", **WINDOW))

    rows = list(read_window(landing, "20180131T000000Z"))
    assert [(row["key"], row["outcome"]) for row in rows] == [(f"k{number}", "answer") for number in range(4)]
    counts = service.emulator.log.counts()
    assert (counts["vertex.create"], counts.get("batches.create", 0), counts.get("files.start", 0)) == (1, 0, 0)
    names = [stored.name for stored in service.emulator.buckets.list(BUCKET, "batches/")]
    assert [name.rpartition("/")[2] for name in names] == [
        "predictions.jsonl"
    ]  # the input goes when its batch is closed
    [job] = service.emulator.jobs
    assert job.name.startswith("projects/")

    assert main(["status", manifest["uri"]]) == 0
    assert f"{job.name} collected" in capsys.readouterr().out
    assert main(["cost", manifest["uri"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)
    assert main(["janitor", workspace, "--conn-id", "geminibatch_default"]) == 0


def test_a_late_window_is_collected_by_hand(service: Server, workspace: str, landing: Landing, capsys: Any) -> None:
    manifest = submitted()
    service.emulator.clock.advance(hours=6)
    words = ["--to", landing.uri, "--window", "w", "--task", "load", "--conn-id", "geminibatch_default"]
    assert main(["collect", manifest["uri"], *words]) == 0
    assert "accepted" in capsys.readouterr().out


def test_what_is_called_off_ends_and_its_rows_land_as_far_as_they_came(
    service: Server, workspace: str, landing: Landing
) -> None:
    manifest = submitted()
    (job,) = service.emulator.jobs
    halfway = job.starts + (job.ends - job.starts) / 2  # how long it takes is drawn from its name
    service.emulator.clock.advance(halfway - service.emulator.clock.now())
    GeminiBatchCancelOperator(task_id="cancel", submitted=manifest).execute(context("cancel", **WINDOW))
    service.emulator.clock.advance(hours=1)
    assert [service.emulator.state(job.name) for job in service.emulator.jobs] == ["JOB_STATE_CANCELLED"]
    load = GeminiBatchLoadOperator(task_id="load", submitted=manifest, to=landing, max_unresolved=1.0)
    load.execute(context("load", **WINDOW))
    rows = list(read_window(landing, "20180131T000000Z"))
    assert {row["outcome"] for row in rows} == {"answer", "missing"}
    assert all(row["error"].startswith("job CANCELLED") for row in rows if row["outcome"] == "missing")


def test_a_job_that_ended_badly_with_results_is_no_failure_of_the_wait_then_and_later(
    service: Server, workspace: str
) -> None:
    service.emulator.scenario("cut", done=0.5)
    manifest = submitted()
    service.emulator.clock.advance(hours=40)
    for number in (1, 2):  # the second finds the end on record
        wait = GeminiBatchSensor(task_id="wait", submitted=manifest, poll_interval=1, deferrable=False, mode="poke")
        assert wait.poke(context("wait", **(WINDOW | {"try_number": number})))


def test_a_round_asks_only_for_what_the_first_job_did_not_come_to(
    service: Server, workspace: str, landing: Landing
) -> None:
    """What was answered before the job ended badly is in the bill once."""
    service.emulator.scenario("cut", done=0.5, jobs=(0,))
    where = context("whole", **WINDOW)

    first = deferred(whole(landing, ROWS).execute, where)
    service.emulator.clock.advance(hours=30)
    second = deferred(resumed, whole(landing, ROWS), first, where)
    service.emulator.clock.advance(hours=6)
    resumed(whole(landing, ROWS), second, where)

    rows = list(read_window(landing, "20180131T000000Z"))
    assert {row["outcome"] for row in rows} == {"answer"}
    bill = service.emulator.bill()
    assert sum(entry["requests"] for entry in bill["entries"]) == len(ROWS)
    assert len(service.emulator.jobs) == 2


def test_the_ladder_takes_what_is_there_and_asks_the_rest_by_flex(
    service: Server, workspace: str, landing: Landing
) -> None:
    service.emulator.scenario("never_finishes")
    where, soon = context("whole", **WINDOW), timedelta(seconds=0.2)

    def make() -> Any:
        service.emulator.clock.advance(minutes=5)  # a job that is asked to end takes a moment for it
        return whole(landing, ROWS, deadline=soon, on_deadline=[Rung("flex", timedelta(hours=1)), Rung("commit")])

    to_the_end(make, where)
    rows = list(read_window(landing, "20180131T000000Z"))
    assert {row["outcome"] for row in rows} == {"answer"}
    assert {entry["route"] for entry in service.emulator.bill()["entries"]} <= {"flex", "batch"}


def test_the_janitor_finds_nothing_to_do(service: Server, workspace: str) -> None:
    submitted()
    done = GeminiBatchJanitorOperator(task_id="janitor", workspace=workspace).execute(context("janitor", **WINDOW))
    assert done["findings"] == []


def test_the_commands_that_look_ahead_take_the_connection_too(
    service: Server, workspace: str, tmp_path: Any, capsys: Any
) -> None:
    assert main(["models", "--conn-id", "geminibatch_default@us-central1"]) == 0
    assert "gemini-3.8-flash" in capsys.readouterr().out
    file = tmp_path / "requests.jsonl"
    request = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
    file.write_text("".join(json.dumps({"key": f"k{number}", "request": request}) + "\n" for number in range(20)))
    words = [
        "--requests",
        str(file),
        "--model",
        "gemini-3.8-flash",
        "--sample",
        "5",
        "--conn-id",
        "geminibatch_default",
    ]
    assert main(["plan", *words]) == 0
    assert "USD" in capsys.readouterr().out
    assert service.emulator.bill()["total_usd"] == "0"
