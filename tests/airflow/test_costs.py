"""What tasks say of cost: in XCom and on record; what limits refuse; and whose prices count."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from airflow_provider_geminibatch import (
    GeminiBatchLoadOperator,
    GeminiBatchOperator,
    GeminiBatchPrepareOperator,
    GeminiBatchSubmitOperator,
    Landing,
    RequestTemplate,
)
from airflow_provider_geminibatch.core.canary import Canary
from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.emulator import Server
from airflow_provider_geminibatch.storage.stores import LocalStore
from tests.airflow.faces import context, interval

pytestmark = pytest.mark.airflow

QUESTION = RequestTemplate("What about $text?", generation={"max_output_tokens": 1000})
WINDOW = interval(datetime(2018, 1, 31, tzinfo=UTC), datetime(2018, 1, 31, 12, tzinfo=UTC))
ROWS = [{"id": f"k{number}", "text": "rain " * (number % 9)} for number in range(40)]
MODEL = "gemini-3.8-flash"


@pytest.fixture
def landing(tmp_path: Path) -> Landing:
    return Landing("answers", str(tmp_path / "landings" / "answers"))


def prepare(where: dict[str, Any] | None = None, rows: list[dict[str, str]] = ROWS, **more: Any) -> dict[str, Any]:
    operator = GeminiBatchPrepareOperator(task_id="prepare", source=rows, template=QUESTION, model=MODEL, **more)
    return operator.execute(where or context("prepare", **WINDOW))


def submit(prepared: Any, where: dict[str, Any] | None = None, **more: Any) -> Any:
    operator = GeminiBatchSubmitOperator(task_id="submit", prepared=prepared, **more)
    return operator.execute(where or context("submit", **WINDOW))


def load(submitted: Any, landing: Landing) -> dict[str, Any]:
    operator = GeminiBatchLoadOperator(task_id="load", submitted=submitted, to=landing)
    return operator.execute(context("load", **WINDOW))


def test_prepare_and_submit_push_what_is_expected_and_only_submit_puts_it_on_record(
    service: Server, workspace: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = context("prepare", **WINDOW), context("submit", **WINDOW)
    with caplog.at_level(logging.INFO):
        prepared = prepare(first)
    assert "by size, not counted" in caplog.text
    cost = first["ti"].pushed["cost"]
    assert (cost["rows"], cost["counted"], cost["answers_from"]) == (40, False, "bound")
    assert json.dumps(cost)
    assert "rain" not in json.dumps(cost)
    store = LocalStore(workspace)
    assert not [path for path in store.list("") if path.endswith("/cost.json")]
    submit(prepared, second)
    assert second["ti"].pushed["cost"]["batch_usd"] == cost["batch_usd"]
    assert len([path for path in store.list("") if path.endswith("/cost.json")]) == 1
    assert service.emulator.log.count("models.count_tokens") == 0


def test_a_retry_pushes_what_is_on_record(service: Server, workspace: str) -> None:
    first, again = context("submit", **WINDOW), context("submit", try_number=2, **WINDOW)
    prepared = prepare()
    submit(prepared, first)
    submit(prepared, again)
    before, after = first["ti"].pushed["cost"], again["ti"].pushed["cost"]
    assert {name: before[name] for name in after} == after


def test_several_builds_have_several_estimates(service: Server, workspace: str) -> None:
    where = context("submit", **WINDOW)
    submit([prepare(), prepare(context("other", **WINDOW))], where)
    assert [cost["answers_from"] for cost in where["ti"].pushed["cost"]] == ["bound", "bound"]


@pytest.mark.parametrize("budget", ["upper_bound", "estimate"])
def test_a_limit_below_fails_for_good_with_nothing_sent(service: Server, workspace: str, budget: str) -> None:
    prepared = prepare()
    with pytest.raises(AirflowFailException, match=r"max_cost_usd=0.01: its 40 rows .*rows would fit") as error:
        submit(prepared, max_cost_usd=0.01, budget=budget)
    assert "Nothing was sent or paid" in str(error.value)
    assert service.emulator.jobs == ()
    assert service.emulator.log.count("files.start") == 0
    assert service.emulator.bill()["total_usd"] == "0"


def test_within_a_limit_the_charge_is_settled_by_the_load(service: Server, workspace: str, landing: Landing) -> None:
    submitted = submit(prepare(), max_cost_usd="1")
    assert (
        submit(prepare(), context("submit", try_number=2, **WINDOW), max_cost_usd="0.001")["jobs"] == 1
    )  # charged once
    service.emulator.clock.advance(hours=6)
    landed = load(submitted, landing)
    store = LocalStore(workspace)
    (charge,) = [path for path in store.list("batches") if path.endswith("charges/0001.json")]
    spent = json.loads(store.read(charge.replace(".json", ".spent.json")) or b"")
    assert Decimal(spent["usd"]) == Decimal(landed["cost_usd"]) == Decimal(service.emulator.bill()["total_usd"])
    assert json.loads(store.read(charge) or b"")["basis"] == "upper_bound"


def test_by_an_estimate_the_service_counts_once_and_the_next_run_goes_by_the_answers_of_the_first(
    service: Server, workspace: str, landing: Landing
) -> None:
    service.emulator.clock.advance(hours=6)
    submitted = submit(prepare(), max_cost_usd=1, budget="estimate")
    counted = service.emulator.log.count("models.count_tokens")
    assert counted == 40
    submit(prepare(), context("submit", try_number=2, **WINDOW), max_cost_usd=1, budget="estimate")
    assert service.emulator.log.count("models.count_tokens") == counted
    service.emulator.clock.advance(hours=6)
    load(submitted, landing)

    later, where = {**WINDOW, "run_id": "later"}, context("submit", run_id="later", **WINDOW)
    prepared = prepare(context("prepare", **later), rows=ROWS[1:])
    submit(prepared, where, max_cost_usd="0.05", budget="estimate")
    cost = where["ti"].pushed["cost"]
    assert (cost["counted"], cost["answers_from"]) == (True, "history")
    assert float(cost["batch_usd"]["high"]) < 0.05


def test_nothing_is_asked_of_a_canary_whose_batch_could_not_be_sent_after_it(service: Server, workspace: str) -> None:
    with pytest.raises(AirflowFailException, match=r"max_cost_usd=0.01"):
        submit(prepare(), max_cost_usd=0.01, canary=Canary(rows=5))
    assert service.emulator.log.count("models.generate") == 0


def test_an_estimate_after_a_canary_goes_by_what_it_measured(service: Server, workspace: str) -> None:
    where = context("submit", **WINDOW)
    submit(prepare(), where, max_cost_usd="0.2", budget="estimate", canary=Canary(rows=8))
    assert where["ti"].pushed["cost"]["answers_from"] == "canary"
    assert len(service.emulator.jobs) == 1


@pytest.mark.parametrize(
    ("given", "says"),
    [({"max_cost_usd": "much"}, "max_cost_usd"), ({"max_cost_usd": 0}, "max_cost_usd"), ({"budget": "hope"}, "budget")],
)
def test_what_cannot_be_meant_is_told_while_the_dag_is_parsed(landing: Landing, given: Any, says: str) -> None:
    with pytest.raises(Unusable, match=says):
        GeminiBatchSubmitOperator(task_id="submit", prepared="x", **given)
    with pytest.raises(Unusable, match=says):
        GeminiBatchOperator(task_id="whole", source=ROWS, template=QUESTION, model=MODEL, to=landing, **given)


# Prices


@pytest.fixture
def dear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file of prices a hundred times the usual ones, that airflow.cfg names."""
    file = tmp_path / "prices.json"
    file.write_text(json.dumps({"as_of": "2026-11-20", "models": {MODEL: [{"input": "75", "output": "375"}]}}))
    monkeypatch.setenv("AIRFLOW__GEMINIBATCH__PRICES", str(file))
    return str(file)


def test_prices_of_airflow_cfg_count_from_the_estimate_to_the_window(
    service: Server, workspace: str, landing: Landing, dear: str
) -> None:
    where = context("prepare", **WINDOW)
    prepared = prepare(where)
    assert where["ti"].pushed["cost"]["price"] == f"{dear} of 2026-11-20"
    submitted = submit(prepared)
    service.emulator.clock.advance(hours=6)
    landed = load(submitted, landing)
    bill = float(service.emulator.bill()["total_usd"])
    assert float(landed["cost_usd"]) >= 49 * bill  # a hundred times, or fifty from 2027 on
    manifest = json.loads((Path(landed["uri"]) / "_manifest.json").read_text())
    assert manifest["price_sources"] == [f"{dear} of 2026-11-20"]
    assert manifest["estimated_usd"]["expected"] is None


def test_a_batch_goes_on_by_the_prices_that_it_began_with(
    service: Server, workspace: str, landing: Landing, dear: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitted = submit(prepare())
    monkeypatch.delenv("AIRFLOW__GEMINIBATCH__PRICES")
    service.emulator.clock.advance(hours=6)
    assert float(load(submitted, landing)["cost_usd"]) > 10 * float(service.emulator.bill()["total_usd"])


def test_a_file_of_prices_that_holds_none_is_refused_before_anything_is_sent(
    service: Server, workspace: str, dear: str
) -> None:
    Path(dear).write_text('{"models": {"m": [{"in": 1}]}}')
    with pytest.raises(AirflowFailException, match="it is no list of prices"):
        prepare()
    Path(dear).unlink()
    with pytest.raises(AirflowFailException, match="could not be read"):
        prepare()


# All in one task


def whole(landing: Landing, **more: Any) -> GeminiBatchOperator:
    return GeminiBatchOperator(task_id="whole", source=ROWS, template=QUESTION, model=MODEL, to=landing, **more)


def test_the_one_task_estimates_once_and_its_window_says_it(service: Server, workspace: str, landing: Landing) -> None:
    where = context("whole", **WINDOW)
    with pytest.raises(TaskDeferred) as deferral:
        whole(landing, max_cost_usd=1).execute(where)
    assert where["ti"].pushed["cost"]["answers_from"] == "bound"
    service.emulator.clock.advance(hours=6)
    landed = whole(landing, max_cost_usd=1).resume_execution(deferral.value.method_name, deferral.value.kwargs, where)
    manifest = json.loads((Path(landed["uri"]) / "_manifest.json").read_text())
    assert float(manifest["estimated_usd"]["high"]) >= float(landed["cost_usd"]) > 0


def test_the_one_task_goes_by_an_estimate_where_it_is_told_to(
    service: Server, workspace: str, landing: Landing
) -> None:
    where = context("whole", **WINDOW)
    with pytest.raises(TaskDeferred):
        whole(landing, max_cost_usd=1, budget="estimate").execute(where)
    assert service.emulator.log.count("models.count_tokens") == 40
    store = LocalStore(workspace)
    (charge,) = [path for path in store.list("batches") if path.endswith("charges/0001.json")]
    assert json.loads(store.read(charge) or b"")["basis"] == "estimate"


def test_the_one_task_refuses_with_nothing_sent(service: Server, workspace: str, landing: Landing) -> None:
    with pytest.raises(AirflowFailException, match="rows would fit"):
        whole(landing, max_cost_usd=0.01).execute(context("whole", **WINDOW))
    assert service.emulator.jobs == ()
