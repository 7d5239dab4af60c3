"""``@task.gemini_batch``: a function that is streamed, called once, and mapped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, TaskDeferred
from airflow.sdk import task

from airflow_provider_geminibatch import Landing, RequestTemplate, gemini_batch, read_window
from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.decorators.gemini_batch import GeminiBatchDecoratedOperator
from airflow_provider_geminibatch.emulator import Server
from tests.airflow.faces import context, interval

pytestmark = pytest.mark.airflow

QUESTION = RequestTemplate("What about $text?", columns=("text",))
WINDOW = interval(datetime(2018, 1, 31, tzinfo=UTC), datetime(2018, 1, 31, 12, tzinfo=UTC))
HERE = {"model": "gemini-3.8-flash", "template": QUESTION}


@pytest.fixture
def landing(tmp_path: Any) -> Landing:
    return Landing("answers", str(tmp_path / "landings" / "answers"))


@pytest.fixture
def dag() -> Iterator[DAG]:
    with DAG("dag", schedule=None) as made:
        yield made


def run(**more: Any) -> dict[str, Any]:
    return context("ask", **(WINDOW | more))


def done(operator: Any, service: Server, where: dict[str, Any]) -> dict[str, Any]:
    with pytest.raises(TaskDeferred) as deferral:
        operator.execute(where)
    service.emulator.clock.advance(hours=6)
    return operator.resume(where, **deferral.value.kwargs)


def test_it_is_there_under_both_names(dag: DAG, landing: Landing) -> None:
    @task.gemini_batch(to=landing, **HERE)
    def by_airflow():
        yield {"id": "a", "text": "rain"}

    @gemini_batch(to=landing, **HERE)
    def by_import():
        yield {"id": "a", "text": "rain"}

    for made in (by_airflow().operator, by_import().operator):
        assert isinstance(made, GeminiBatchDecoratedOperator)
        assert made.outlets == [landing.asset]
    assert by_import().operator.task_id == "by_import__1"


def test_rows_of_a_generator_become_a_window(service: Server, workspace: str, dag: DAG, landing: Landing) -> None:
    @gemini_batch(to=landing, **HERE)
    def ask(first, last="hail", data_interval_start=None):
        """Asks."""
        for number, text in enumerate((first, f"snow of {data_interval_start:%Y}", last)):
            yield {"id": f"k{number}", "text": text}

    operator = ask("rain").operator
    where = run()
    landed = done(operator, service, where)
    assert landed["counts"] == {"answer": 3}
    assert where["outlet_events"][landing.asset].extra == landed
    assert [row["text"] for row in read_window(landing, landed["window"])] != []
    [shard] = Path(workspace).rglob("shard-0000.jsonl")
    asked = [json.loads(line)["request"]["contents"][0]["parts"][0]["text"] for line in shard.read_text().splitlines()]
    assert asked == ["What about rain?", "What about snow of 2018?", "What about hail?"]
    assert operator.doc_md == "Asks."


def test_the_function_runs_once_for_all_retries_and_stints(
    service: Server, workspace: str, dag: DAG, landing: Landing
) -> None:
    called: list[int] = []

    @gemini_batch(to=landing, **HERE)
    def ask():
        called.append(1)
        yield {"id": "a", "text": "rain"}

    operator = ask().operator
    with pytest.raises(TaskDeferred):
        operator.execute(run())
    assert done(operator, service, run(try_number=2))["rows"] == 1
    assert called == [1]
    assert service.emulator.log.count("batches.create") == 1


def test_a_function_that_fails_is_run_again_since_nothing_was_sealed(
    service: Server, workspace: str, dag: DAG, landing: Landing
) -> None:
    called: list[int] = []

    @gemini_batch(to=landing, **HERE)
    def ask():
        called.append(1)
        yield {"id": "a", "text": "rain"}
        if len(called) == 1:
            raise OSError("the database went away")

    operator = ask().operator
    with pytest.raises(OSError, match="went away"):
        operator.execute(run())
    assert done(operator, service, run(try_number=2))["rows"] == 1
    assert called == [1, 1]


def test_the_generator_is_streamed_and_never_held(service: Server, workspace: str, dag: DAG, landing: Landing) -> None:
    alive: list[int] = []
    most: list[int] = []

    class Row(dict[str, str]):
        def __init__(self, **columns: str) -> None:
            super().__init__(columns)
            alive.append(1)

        def __del__(self) -> None:
            alive.pop()

    @gemini_batch(to=landing, max_rows_per_shard=400, **HERE)
    def ask():
        for number in range(1000):
            most.append(len(alive))
            yield Row(id=str(number), text=f"row {number}")

    with pytest.raises(TaskDeferred):
        ask().operator.execute(run())
    assert len(most) == 1000
    assert max(most) < 50


def test_without_a_template_the_rows_are_requests(service: Server, workspace: str, dag: DAG, landing: Landing) -> None:
    @gemini_batch(model="gemini-3.8-flash", to=landing)
    def ask():
        yield {"key": "one", "request": {"contents": [{"parts": [{"text": "rain?"}]}]}}

    assert done(ask().operator, service, run())["rows"] == 1


def test_it_maps(service: Server, workspace: str, dag: DAG, landing: Landing) -> None:
    @gemini_batch(to=landing, window="{{ run_id }}-{{ ti.map_index }}", **HERE)
    def ask(region, plant):
        yield {"id": "a", "text": f"{plant} of {region}"}

    mapped = ask.partial(plant="fennel").expand(region=["Liguria", "Jutland"]).operator
    assert mapped.partial_kwargs["outlets"] == [landing.asset]
    asked = []
    for index, region in enumerate(("Liguria", "Jutland")):
        where = run(map_index=index, expanded_ti_count=2)
        kwargs = {"op_args": [], "op_kwargs": {"region": region, "plant": "fennel"}}
        operator = mapped.unmap({**mapped.partial_kwargs, **kwargs, "task_id": "ask"})
        operator.window = f"w{index}"
        asked.append(done(operator, service, where)["window"])
    assert asked == ["w0", "w1"]
    assert service.emulator.log.count("batches.create") == 2


@pytest.mark.parametrize("given", [{"source": "a.csv"}, {"requests": "a.jsonl"}, {"source_kwargs": {"a": 1}}])
def test_a_second_source_is_refused_while_the_dag_is_parsed(dag: DAG, landing: Landing, given: Any) -> None:
    @gemini_batch(to=landing, **HERE, **given)
    def ask():
        yield {}

    with pytest.raises(Unusable, match="the function is the source"):
        ask()


def test_prompts_of_the_function_are_not_templates(service: Server, workspace: str, dag: DAG, landing: Landing) -> None:
    @gemini_batch(to=landing, **HERE)
    def ask():
        yield {"id": "a", "text": "{{ ds }}"}

    operator = ask().operator
    operator.render_template_fields(run(task=operator))
    with pytest.raises(TaskDeferred):
        operator.execute(run())
    [shard] = Path(workspace).rglob("shard-0000.jsonl")
    assert "{{ ds }}" in shard.read_text()
