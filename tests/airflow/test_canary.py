"""A canary as Airflow runs it, in separate tasks and in one, against the emulator."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pendulum
import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException, TaskDeferred, task

from airflow_provider_geminibatch import (
    Canary,
    GeminiBatchLoadOperator,
    GeminiBatchOperator,
    GeminiBatchPrepareOperator,
    GeminiBatchSensor,
    GeminiBatchSubmitOperator,
    Landing,
    RequestTemplate,
    read_window,
)
from airflow_provider_geminibatch.emulator import Server
from tests.airflow.faces import context, interval

pytestmark = pytest.mark.airflow

WINDOW = interval(datetime(2018, 1, 31, tzinfo=UTC), datetime(2018, 1, 31, 12, tzinfo=UTC))
KEY = "20180131T000000Z"
MODEL = "gemini-3.8-flash"
SOME = Canary(rows=4, max_share=0.5)
ASKED = "models.generate"


def question(cap: int = 0) -> RequestTemplate:
    """Answers are cut off when ``cap`` is small."""
    generation = {"maxOutputTokens": cap} if cap else {}
    return RequestTemplate("What about $text?", columns=("text",), generation=generation)


def rows(count: int = 10) -> list[dict[str, str]]:
    return [{"id": f"k{number}", "text": f"the weather of day {number}"} for number in range(count)]


@pytest.fixture
def landing(tmp_path: Any) -> Landing:
    return Landing("answers", str(tmp_path / "landings" / "answers"))


def prepare(count: int = 10, cap: int = 0, where: Any = None) -> dict[str, Any]:
    operator = GeminiBatchPrepareOperator(task_id="prepare", source=rows(count), model=MODEL, template=question(cap))
    return operator.execute(where or context("prepare", **WINDOW))


def submit(prepared: Any, where: Any = None, **more: Any) -> Any:
    operator = GeminiBatchSubmitOperator(task_id="submit", prepared=prepared, canary=SOME, **more)
    return operator.execute(where or context("submit", **WINDOW))


def load(submitted: Any, landing: Landing) -> dict[str, Any]:
    operator = GeminiBatchLoadOperator(task_id="load", submitted=submitted, to=landing)
    return operator.execute(context("load", **WINDOW))


def whole(landing: Landing, **more: Any) -> GeminiBatchOperator:
    given = {"model": MODEL, "template": question(), "source": rows(), "canary": SOME, **more}
    return GeminiBatchOperator(task_id="whole", to=landing, **given)


def verdicts(workspace: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in Path(workspace).rglob("canary/verdict.json")]


def landed_rows(landing: Landing) -> list[tuple[str, str]]:
    return [(row["key"], row["outcome"]) for row in read_window(landing, KEY)]


ALL = [(f"k{number}", "answer") for number in range(10)]


def test_through_separate_tasks_the_sample_is_asked_once_and_lands_with_the_rest(
    service: Server, workspace: str, landing: Landing
) -> None:
    submitted = submit(prepare())
    assert service.emulator.log.count(ASKED) == 4
    service.emulator.clock.advance(hours=6)
    sensor = GeminiBatchSensor(task_id="wait", submitted=submitted, mode="poke", deferrable=False)
    assert sensor.execute(context("wait", **WINDOW))
    landed = load(submitted, landing)
    assert landed["counts"] == {"answer": 10}
    assert landed_rows(landing) == ALL
    assert {entry["route"]: entry["requests"] for entry in service.emulator.bill()["entries"]} == {
        "batch": 6,
        "flex": 4,
    }
    assert Decimal(landed["cost_usd"]) >= Decimal(service.emulator.bill()["total_usd"]) > 0
    assert service.emulator.log.count(ASKED) == 4


def test_a_retry_of_submit_pays_no_canary_again(service: Server, workspace: str) -> None:
    prepared = prepare()
    first = submit(prepared)
    assert submit(prepared, context("submit", try_number=2, **WINDOW)) == first
    assert submit(prepared, context("submit", try_number=3, max_tries=2, **WINDOW)) == first
    assert service.emulator.log.count(ASKED) == 4
    assert service.emulator.log.count("batches.create") == 1


def test_a_canary_that_fails_fails_the_task_for_good_and_uploads_nothing(service: Server, workspace: str) -> None:
    prepared = prepare(cap=2)
    for number in (1, 2):
        with pytest.raises(AirflowFailException, match="the canary says no") as caught:
            submit(prepared, context("submit", try_number=number, **WINDOW))
        assert "4 truncated (MAX_TOKENS)" in str(caught.value)
        assert "weather" not in str(caught.value)
    assert service.emulator.log.count("batches.create") == 0
    assert service.emulator.log.count("files.start") == 0
    assert service.emulator.log.count(ASKED) == 4
    (verdict,) = verdicts(workspace)
    assert (verdict["verdict"], verdict["report"]["unusable"]) == ("stop", {"truncated": 4})


@pytest.mark.parametrize(
    ("scenario", "told"),
    [
        ("empty", "4 empty (no parts)"),
        ("blocked", "4 blocked (SAFETY"),
        ("prompt_blocked", "4 blocked (prompt blocked: PROHIBITED_CONTENT)"),
        ("thoughts_only", "4 truncated (MAX_TOKENS, nothing but thoughts)"),
        ("broken_json", "4 invalid (not JSON)"),
    ],
)
def test_a_report_names_what_is_wrong_with_the_answers(
    service: Server, workspace: str, scenario: str, told: str
) -> None:
    schema = {"type": "object", "properties": {"sky": {"type": "string"}}, "required": ["sky"]}
    template = RequestTemplate(f"What about $text? [[emulator:{scenario}]]", response_schema=schema)
    operator = GeminiBatchPrepareOperator(task_id="prepare", source=rows(), model=MODEL, template=template)
    with pytest.raises(AirflowFailException) as caught:
        submit(operator.execute(context("prepare", **WINDOW)))
    assert told in str(caught.value)


def test_no_batch_is_sent_before_all_canaries_have_passed(service: Server, workspace: str) -> None:
    good = prepare()
    bad = prepare(cap=2, where=context("prepare", map_index=1, **WINDOW))
    with pytest.raises(AirflowFailException, match=r"prepare\[1\]"):
        submit([good, bad])
    assert service.emulator.log.count("batches.create") == 0
    assert service.emulator.log.count(ASKED) == 8


def test_a_pause_that_the_service_asks_for_is_waited_for_without_a_worker(service: Server, workspace: str) -> None:
    prepared = prepare()
    service.emulator.scenario("burst_429", endpoint=ASKED, times=20, retry_after=120.0)
    where = context("submit", **WINDOW)
    with pytest.raises(TaskDeferred) as caught:
        submit(prepared, where)
    assert caught.value.trigger.serialize()[0].endswith("DateTimeTrigger")
    service.emulator.switch_off("burst_429")
    operator = GeminiBatchSubmitOperator(task_id="submit", prepared=prepared, canary=SOME)
    assert operator.resume_execution(caught.value.method_name, {}, where)["jobs"] == 1


def charges(workspace: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(Path(workspace).rglob("charges/*.json"))]


def test_a_budget_is_charged_for_the_canary_too_and_bears_no_sample_of_what_it_cannot_bear(
    service: Server, workspace: str
) -> None:
    prepared = prepare(cap=1000)
    with pytest.raises(AirflowFailException, match="max_cost_usd"):
        submit(prepared, max_cost_usd="0.00001")
    assert service.emulator.log.count(ASKED) == 0
    submit(prepared, max_cost_usd="1.00")
    spent = [Decimal(charge["usd"]) for charge in charges(workspace) if "usd" in charge]
    flex = [entry for entry in service.emulator.bill()["entries"] if entry["route"] == "flex"]
    assert sum(spent) == Decimal(flex[0]["usd"]) > 0
    assert charges(workspace)[0]["purpose"].startswith("rung 0")


def test_the_canaries_of_several_batches_have_one_budget_together(service: Server, workspace: str) -> None:
    two = [prepare(cap=1000), prepare(cap=1000, where=context("prepare", map_index=1, **WINDOW))]
    with pytest.raises(AirflowFailException, match="a row of its canary may cost up to") as caught:
        submit(two, max_cost_usd="0.0001", budget="estimate")
    assert service.emulator.log.count(ASKED) == 0
    row = Decimal(str(caught.value).partition("may cost up to ")[2].split()[0])

    with pytest.raises(AirflowFailException, match="a row of its canary may cost up to"):
        submit(two, max_cost_usd=row + Decimal("0.000002"), budget="estimate")
    assert service.emulator.log.count(ASKED) == 1


def test_in_one_task(service: Server, workspace: str, landing: Landing) -> None:
    where = context("whole", **WINDOW)
    with pytest.raises(TaskDeferred):
        whole(landing).execute(where)
    assert service.emulator.log.count(ASKED) == 4
    service.emulator.clock.advance(hours=6)
    landed = whole(landing).execute(context("whole", try_number=2, **WINDOW))
    assert landed["counts"] == {"answer": 10}
    assert landed_rows(landing) == ALL
    assert service.emulator.log.count(ASKED) == 4
    assert Decimal(landed["cost_usd"]) >= Decimal(service.emulator.bill()["total_usd"]) > 0


def test_in_one_task_a_bad_canary_stops_all_and_canary_none_lets_go_what_was_answered_kept(
    service: Server, workspace: str, landing: Landing
) -> None:
    strict = Canary(rows=4, max_share=0.5, max_unusable=0.0)
    with pytest.raises(AirflowFailException, match="the canary says no"):
        whole(landing, template=question(cap=2), canary=strict).execute(context("whole", **WINDOW))
    assert service.emulator.log.count("batches.create") == 0
    again = whole(landing, template=question(cap=2), canary=None, rounds=0, max_unresolved=1.0)
    with pytest.raises(TaskDeferred):
        again.execute(context("whole", try_number=2, **WINDOW))
    assert service.emulator.log.count("batches.create") == 1
    assert service.emulator.log.count(ASKED) == 4


def test_corrected_rows_get_a_canary_of_their_own(service: Server, workspace: str, landing: Landing) -> None:
    with pytest.raises(AirflowFailException, match="the canary says no"):
        whole(landing, template=question(cap=2)).execute(context("whole", **WINDOW))
    where = context("whole", try_number=2, max_tries=1, **WINDOW)
    with pytest.raises(TaskDeferred):
        whole(landing).execute(where)
    assert [one["verdict"] for one in sorted(verdicts(workspace), key=lambda one: one["at"])] == ["stop", "pass"]
    assert service.emulator.log.count(ASKED) == 8


def test_a_backfill_asks_by_flex(service: Server, workspace: str) -> None:
    prepared = prepare()
    run = SimpleNamespace(run_type=SimpleNamespace(value="backfill"))
    where = context("submit", **WINDOW, dag_run=run)
    GeminiBatchSubmitOperator(task_id="submit", prepared=prepared, canary=Canary(rows=2, tier="standard")).execute(
        where
    )
    assert {entry["route"] for entry in service.emulator.bill()["entries"] if entry["requests"] == 2} == {"flex"}


def test_a_decorated_function_takes_one_too(service: Server, workspace: str, landing: Landing) -> None:
    with DAG("dag", schedule=None, start_date=pendulum.datetime(2018, 1, 1)):

        @task.gemini_batch(model=MODEL, template=question(), to=landing, canary=SOME)
        def asking() -> Any:
            yield from rows()

        operator = asking().operator
    assert operator.canary == SOME
    with pytest.raises(TaskDeferred):
        operator.execute(context("asking", **WINDOW))
    assert service.emulator.log.count(ASKED) == 4


def test_the_limit_of_a_canary_is_a_time() -> None:
    assert Canary().limit == timedelta(minutes=20)
