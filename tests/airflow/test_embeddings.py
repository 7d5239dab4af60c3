"""Embeddings through the faces: by operator and by decorator, from a template and from ready-made requests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from airflow.providers.common.compat.sdk import DAG, TaskDeferred
from pyarrow import parquet

from airflow_provider_geminibatch import (
    Canary,
    EmbedTemplate,
    GeminiBatchOperator,
    GeminiBatchPrepareOperator,
    Landing,
    RequestTemplate,
    Rung,
    gemini_batch,
    read_window,
)
from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.emulator import Server
from tests.airflow.faces import context, interval

pytestmark = pytest.mark.airflow

MODEL = "gemini-embedding-2"
TEMPLATE = EmbedTemplate("$text", output_dimensionality=16, columns=("text",))
WINDOW = interval(datetime(2018, 1, 31, tzinfo=UTC), datetime(2018, 1, 31, 12, tzinfo=UTC))
REQUESTS = [
    {"key": name, "request": {"content": {"parts": [{"text": name}]}, "outputDimensionality": 16}}
    for name in ("rain", "hail")
]


@pytest.fixture
def landing(tmp_path: Path) -> Landing:
    return Landing("vectors", str(tmp_path / "landings" / "vectors"))


@pytest.fixture
def dag() -> Iterator[DAG]:
    with DAG("dag", schedule=None) as made:
        yield made


def done(operator: Any, service: Server) -> dict[str, Any]:
    where = context("embed", **WINDOW)
    with pytest.raises(TaskDeferred) as deferral:
        operator.execute(where)
    service.emulator.clock.advance(hours=6)
    return operator.resume(where, **deferral.value.kwargs)


@pytest.mark.parametrize("scenario", ["missing", "short_vector"])
def test_a_round_asks_again_for_the_vectors_that_did_not_come(
    landing: Landing, service: Server, workspace: str, scenario: str
) -> None:
    service.emulator.scenario(scenario, rows=(1,))
    operator = GeminiBatchOperator(task_id="embed", model=MODEL, requests=lambda: REQUESTS, kind="embed", to=landing)
    where = context("embed", **WINDOW)
    with pytest.raises(TaskDeferred) as first:
        operator.execute(where)
    service.emulator.clock.advance(hours=6)
    with pytest.raises(TaskDeferred) as second:
        operator.resume(where, **first.value.kwargs)
    service.emulator.switch_off(scenario)
    service.emulator.clock.advance(hours=6)

    landed = operator.resume(where, **second.value.kwargs)

    rows = list(read_window(landing, landed["window"]))
    assert [(row["key"], row["round"], len(row["embedding"])) for row in rows] == [("rain", 0, 16), ("hail", 1, 16)]
    assert [job.kind for job in service.emulator.jobs] == ["embed", "embed"]


def test_a_function_gives_texts_and_vectors_land(dag: DAG, landing: Landing, service: Server, workspace: str) -> None:
    @gemini_batch(model=MODEL, template=TEMPLATE, to=landing)
    def embed():
        yield {"id": "a", "text": "rain"}
        yield {"id": "b", "text": "hail"}

    landed = done(embed().operator, service)

    rows = list(read_window(landing, landed["window"]))
    assert [(row["key"], row["text"], row["row_text"], len(row["embedding"])) for row in rows] == [
        ("a", None, "rain", 16), ("b", None, "hail", 16),
    ]  # fmt: skip
    (part,) = Path(landing.uri.removeprefix("file://")).rglob("part-*.parquet")
    assert parquet.read_schema(part).field("embedding").type == pa.list_(pa.float32(), 16)


def test_ready_made_requests_say_their_kind(dag: DAG, landing: Landing, service: Server, workspace: str) -> None:
    operator = GeminiBatchOperator(task_id="embed", model=MODEL, requests=lambda: REQUESTS, kind="embed", to=landing)
    landed = done(operator, service)
    assert [len(row["embedding"]) for row in read_window(landing, landed["window"])] == [16, 16]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"kind": "embeddings", "requests": "x.jsonl"}, "Write one of generate, embed"),
        ({"kind": "generate", "template": TEMPLATE, "source": "x.csv"}, "the template is for 'embed'"),
        ({"kind": "embed", "template": RequestTemplate("$text"), "source": "x.csv"}, "the template is for 'generate'"),
    ],
)
def test_a_kind_that_cannot_be_is_said_while_the_dag_is_parsed(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(Unusable, match=said):
        GeminiBatchPrepareOperator(task_id="prepare", model=MODEL, **arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"canary": Canary(rows=5)}, "canary=: a batch of kind 'embed' cannot be asked row by row"),
        ({"on_deadline": (Rung("flex"),)}, r'Rung\("flex"\): a batch of kind'),
    ],
)
def test_what_asks_row_by_row_is_refused_while_the_dag_is_parsed(
    landing: Landing, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(Unusable, match=said):
        GeminiBatchOperator(task_id="embed", model=MODEL, source="x.csv", template=TEMPLATE, to=landing, **arguments)


def test_a_template_is_rendered_and_told_alike() -> None:
    operator = GeminiBatchPrepareOperator(
        task_id="prepare", model=MODEL, source="x.csv", template=EmbedTemplate("{{ ds }}: $text", title="$id")
    )
    operator.render_template_fields({"ds": "2026-01-01", "task": operator, "ti": None})
    assert operator.template == EmbedTemplate("2026-01-01: $text", title="$id")
    assert json.dumps(operator.template.serialize()) == '{"text": "2026-01-01: $text", "title": "$id"}'
