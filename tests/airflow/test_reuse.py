"""Answers that are used again, as tasks see it: a run whose rows are all known has no job, waits for nothing and lands."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_geminibatch import (
    GeminiBatchSensor,
    GeminiBatchSubmitOperator,
    Landing,
    Reuse,
    read_window,
)
from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.emulator import Server
from tests.airflow.faces import context, interval
from tests.airflow.test_batch_operator import deferred, resumed, rows, whole
from tests.airflow.test_operators import load, prepare, submit

pytestmark = pytest.mark.airflow


@pytest.fixture
def landing(tmp_path: Any) -> Landing:
    return Landing("answers", str(tmp_path / "landings" / "answers"))


def run_of(day: int, task: str) -> dict[str, Any]:
    begin = datetime(2018, 1, day, tzinfo=UTC)
    return context(task, run_id=f"run {day}", **interval(begin, begin + timedelta(hours=12)))


def through(day: int, source: Any, landing: Landing, service: Server, **more: Any) -> tuple[dict[str, Any], Any]:
    """Prepare, Submit, the sensor and Load of one run; what Submit returned, and what Load did."""
    submitted = submit(prepare(source, run_of(day, "prepare")), run_of(day, "submit"), reuse=True, **more)
    if submitted["jobs"]:
        service.emulator.clock.advance(hours=6)
    passed = GeminiBatchSensor(task_id="wait", submitted=submitted).execute(run_of(day, "wait"))
    return submitted, load(passed, landing, run_of(day, "load"))


def test_the_next_run_pays_only_for_what_is_new(service: Server, workspace: str, landing: Landing) -> None:
    first, _ = through(1, rows("rain", "snow"), landing, service)
    assert (first["jobs"], first["reused_rows"]) == (1, 0)
    second, landed = through(2, rows("rain", "snow", "hail"), landing, service)
    assert (second["jobs"], second["reused_rows"], landed["reused_rows"]) == (1, 2, 2)
    third, again = through(3, rows("rain", "snow", "hail"), landing, service)
    assert (third["jobs"], third["reused_rows"], again["counts"]) == (0, 3, {"answer": 3})
    assert again["cost_usd"] == "0"
    assert service.emulator.log.count("batches.create") == 2
    texts = [[(row["key"], row["text"]) for row in read_window(landing, f"2018010{day}T000000Z")] for day in (2, 3)]
    assert texts[0] == texts[1]
    assert {row["shard"] for row in read_window(landing, "20180103T000000Z")} == {"reused"}


def test_a_retry_of_submit_says_the_same(service: Server, workspace: str, landing: Landing) -> None:
    through(1, rows("rain"), landing, service)
    prepared = prepare(rows("rain"), run_of(2, "prepare"))
    first = submit(prepared, run_of(2, "submit"), reuse=True)
    assert submit(prepared, run_of(2, "submit"), reuse=Reuse(max_age=timedelta(seconds=1))) == first


def test_the_task_that_does_it_all_has_nothing_to_wait_for(service: Server, workspace: str, landing: Landing) -> None:
    given = rows("rain", "snow")
    where = run_of(1, "whole")
    deferral = deferred(whole(landing, given, reuse=True).execute, where)
    service.emulator.clock.advance(hours=6)
    resumed(whole(landing, given, reuse=True), deferral, where)
    landed = whole(landing, given, reuse=True, max_cost_usd=Decimal("0.01")).execute(run_of(2, "whole"))
    assert (landed["reused_rows"], landed["cost_usd"]) == (2, "0")
    assert service.emulator.log.count("batches.create") == 1


def test_a_sensor_that_pokes_has_nothing_to_wait_for_either(service: Server, workspace: str, landing: Landing) -> None:
    through(1, rows("rain"), landing, service)
    submitted = submit(prepare(rows("rain"), run_of(2, "prepare")), run_of(2, "submit"), reuse=True)
    sensor = GeminiBatchSensor(task_id="wait", submitted=submitted, deferrable=False, poke_interval=1)
    assert load(sensor.execute(run_of(2, "wait")), landing, run_of(2, "load"))["reused_rows"] == 1


def test_what_cannot_be_meant_is_said_while_the_dag_is_parsed(landing: Landing) -> None:
    with pytest.raises(Unusable, match="it is neither"):
        GeminiBatchSubmitOperator(task_id="submit", prepared="x", reuse="yes")  # type: ignore[arg-type]
    with pytest.raises(Unusable, match="it is neither"):
        whole(landing, reuse=7)
