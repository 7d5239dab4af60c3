"""BigQuery in Dags: rows of a query or a table as a source, and requests that a query makes, through the operators."""

from __future__ import annotations

import decimal
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_geminibatch import (
    BigQueryRequests,
    BigQuerySource,
    GeminiBatchLoadOperator,
    GeminiBatchOperator,
    GeminiBatchPrepareOperator,
    GeminiBatchSubmitOperator,
    Landing,
    RequestTemplate,
    Reuse,
    read_window,
)
from airflow_provider_geminibatch.core.canary import Canary
from airflow_provider_geminibatch.core.errors import BadConnection, SourceUnreadable, Unusable
from airflow_provider_geminibatch.emulator import Emulator, Server, running
from airflow_provider_geminibatch.storage.files import PlainFiles
from tests.airflow.faces import connection, context, interval
from tests.jobs.tables_road import PLACE, QUERY, fill

pytestmark = pytest.mark.airflow

MODEL = "gemini-3.8-flash"
WINDOW = interval(datetime(2018, 1, 31, tzinfo=UTC), datetime(2018, 1, 31, 12, tzinfo=UTC))
ASKED = BigQueryRequests(QUERY, dataset="p-one.d", key="id")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    emulator = Emulator(seed=1, start=datetime.now(UTC), speed=0, turnaround=(5, 5))
    fill(emulator)
    with running(emulator) as served:
        vertex = {"conn_type": "geminibatch", "host": served.url, "extra": {"project": "p-one", "location": PLACE}}
        monkeypatch.setenv("AIRFLOW_CONN_GEMINIBATCH_DEFAULT", json.dumps(vertex))
        monkeypatch.setenv("AIRFLOW_CONN_DEVELOPER", connection(served.url))
        yield served


def prepare(workspace: Any, **options: Any) -> GeminiBatchPrepareOperator:
    given = {"requests": ASKED, "model": MODEL, "workspace": str(workspace), "task_id": "prepare"}
    return GeminiBatchPrepareOperator(**{**given, **options})


def rows_of(source: BigQuerySource) -> list[Any]:
    return [row.data for row in source.rows(PlainFiles())]


def test_requests_that_a_query_makes_are_asked_and_land(server: Server, tmp_path: Any) -> None:
    landing = Landing("answers", str(tmp_path / "landing"), format="jsonl")
    manifest = prepare(tmp_path / "ws").execute(context("prepare", **WINDOW))
    assert (manifest["rows"], manifest["shards"]) == (5, 1)
    submitted = GeminiBatchSubmitOperator(task_id="submit", prepared=manifest).execute(context("submit", **WINDOW))
    server.emulator.clock.advance(hours=6)
    load = GeminiBatchLoadOperator(task_id="load", submitted=submitted, to=landing)
    extra = load.execute(context("load", **WINDOW))

    assert extra["counts"] == {"answer": 5}
    rows = list(read_window(landing, extra["window"]))
    assert [(row["key"], row["stars"]) for row in rows] == [(f"k{at}", str(at)) for at in range(5)]
    assert server.emulator.log.count("storage.upload") == 0
    assert not any("files" in name for name in server.emulator.log.counts())


def test_answers_land_in_a_table_of_bigquery(server: Server, tmp_path: Any) -> None:
    landing = Landing("answers", "bigquery://geminibatch_default@/p-one.d.answers")
    assert landing.asset.uri == "bigquery://p-one/d/answers"
    manifest = prepare(tmp_path / "ws").execute(context("prepare", **WINDOW))
    submitted = GeminiBatchSubmitOperator(task_id="submit", prepared=manifest).execute(context("submit", **WINDOW))
    server.emulator.clock.advance(hours=6)
    load = GeminiBatchLoadOperator(task_id="load", submitted=submitted, to=landing)
    extra = load.execute(context("load", **WINDOW))

    assert extra["uri"] == landing.uri
    rows = list(read_window(landing, extra["window"]))
    assert [(row["key"], row["outcome"], row["stars"]) for row in rows] == [
        (f"k{at}", "answer", str(at)) for at in range(5)
    ]
    table = server.emulator.tables.read_rows("bq://p-one.d.answers")
    assert {row["landed_window"] for row in table} == {extra["window"]}


@pytest.mark.parametrize("uri", ["bigquery://c@/answers", "bigquery://c@/p-one.d.a?x=1", "bigquery://"])
def test_a_landing_in_bigquery_names_a_table(uri: str) -> None:
    with pytest.raises(Unusable):
        Landing("answers", uri)


def test_source_is_another_word_for_requests(server: Server, tmp_path: Any) -> None:
    operator = prepare(tmp_path / "ws", requests=None, source=ASKED)
    assert operator.execute(context("prepare", **WINDOW))["rows"] == 5


def test_templates_are_rendered_in_query_and_data_set(server: Server, tmp_path: Any) -> None:
    asked = BigQueryRequests(QUERY + " WHERE stars < {{ most }}", dataset="{{ project }}.d", key="id")
    operator = prepare(tmp_path / "ws", requests=asked)
    given = context("prepare", **WINDOW) | {"most": 2, "project": "p-one", "task": operator}
    operator.render_template_fields(given)
    assert operator.execute(given)["rows"] == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"canary": Canary(rows=2)}, "canary="),
        ({"reuse": Reuse()}, "reuse="),
        ({"max_cost_usd": 5}, "budget='estimate'"),
        ({"cache": True}, "cache="),
    ],
)
def test_what_reads_every_request_is_refused_before_anything_is_sent(
    server: Server, tmp_path: Any, options: dict[str, Any], said: str
) -> None:
    manifest = prepare(tmp_path / "ws").execute(context("prepare", **WINDOW))
    submit = GeminiBatchSubmitOperator(task_id="submit", prepared=manifest, **options)
    with pytest.raises(AirflowFailException, match="stay there") as refusal:
        submit.execute(context("submit", **WINDOW))
    assert said in str(refusal.value)
    assert not server.emulator.jobs


def test_an_estimated_budget_is_charged_by_the_sample(server: Server, tmp_path: Any) -> None:
    manifest = prepare(tmp_path / "ws").execute(context("prepare", **WINDOW))
    submit = GeminiBatchSubmitOperator(task_id="submit", prepared=manifest, max_cost_usd=5, budget="estimate")
    submit.execute(context("submit", **WINDOW))
    assert len(server.emulator.jobs) == 1


def test_the_one_task_operator_says_which_tasks_to_use(server: Server, tmp_path: Any) -> None:
    landing = Landing("a", str(tmp_path / "l"))
    with pytest.raises(Unusable, match="Use GeminiBatchPrepareOperator"):
        GeminiBatchOperator(task_id="all", requests=ASKED, model=MODEL, workspace=str(tmp_path), to=landing)


def test_a_connection_of_the_developer_api_reaches_no_bigquery(server: Server, tmp_path: Any) -> None:
    with pytest.raises(AirflowFailException, match="does not reach BigQuery"):
        prepare(tmp_path / "ws", gemini_conn_id="developer").execute(context("prepare", **WINDOW))
    with pytest.raises(BadConnection):
        rows_of(BigQuerySource(table="p-one.d.reviews", gemini_conn_id="developer"))


def test_a_data_set_elsewhere_is_refused_before_any_query(server: Server, tmp_path: Any) -> None:
    server.emulator.tables.make_dataset("p-one.us", "US")
    asked = BigQueryRequests(QUERY, dataset="p-one.us", key="id")
    with pytest.raises(AirflowFailException, match=r"multi-region|US"):
        prepare(tmp_path / "ws", requests=asked).execute(context("prepare", **WINDOW))
    assert server.emulator.log.count("bigquery.jobs.insert") == 0


def test_rows_of_a_query_and_of_a_table_are_a_source(server: Server, tmp_path: Any) -> None:
    query = BigQuerySource("SELECT id, stars FROM `p-one.d.reviews` WHERE stars > 2 ORDER BY id", location=PLACE)
    assert rows_of(query) == [{"id": "k3", "stars": 3}, {"id": "k4", "stars": 4}]
    table = BigQuerySource(table="p-one.d.reviews", columns=("stars", "id"))
    assert min(rows_of(table), key=lambda row: row["id"]) == {"id": "k0", "stars": 0}

    operator = GeminiBatchPrepareOperator(
        task_id="prepare", source=query, template=RequestTemplate(prompt="Rate $stars", columns=("stars",)), model=MODEL,
        workspace=str(tmp_path / "ws"),
    )  # fmt: skip
    assert operator.execute(context("prepare", **WINDOW))["rows"] == 2


def test_values_come_as_pythons(server: Server) -> None:
    schema = {
        "i": "INTEGER", "f": "FLOAT", "b": "BOOLEAN", "n": "NUMERIC", "j": "JSON", "t": "TIMESTAMP", "d": "DATE",
        "s": "STRING", "e": "STRING",
    }  # fmt: skip
    row = {
        "i": 5,
        "f": 1.5,
        "b": False,
        "n": "1.10",
        "j": {"a": [1]},
        "t": "2026-01-31T12:00:00+00:00",
        "d": "2026-01-31",
    }
    columns = [{"name": name, "type": kind} for name, kind in schema.items()]
    server.emulator.tables.write_table("bq://p-one.d.kinds", columns, [{**row, "e": ""}])
    (found,) = rows_of(BigQuerySource(table="p-one.d.kinds"))
    assert found == {
        "i": 5, "f": 1.5, "b": False, "n": decimal.Decimal("1.10"), "j": {"a": [1]},
        "t": datetime(2026, 1, 31, 12, tzinfo=UTC), "d": date(2026, 1, 31), "s": None, "e": "",
    }  # fmt: skip


def test_what_cannot_be_read_is_named(server: Server) -> None:
    nested = [{"name": "tags", "type": "STRING", "mode": "REPEATED"}]
    server.emulator.tables.write_table("bq://p-one.d.nested", nested, ())
    with pytest.raises(SourceUnreadable, match=r"TO_JSON\(tags\) AS tags"):
        rows_of(BigQuerySource(table="p-one.d.nested"))
    with pytest.raises(SourceUnreadable, match="no such table"):
        rows_of(BigQuerySource(table="p-one.d.gone"))
    with pytest.raises(SourceUnreadable, match="no column nowhere"):
        rows_of(BigQuerySource(table="p-one.d.reviews", columns=("nowhere",)))


@pytest.mark.parametrize(
    "given", [{}, {"query": "SELECT 1", "table": "a.b.c", "location": "US"}, {"query": "SELECT 1"}]
)
def test_a_source_is_a_query_with_its_place_or_a_table(given: dict[str, str]) -> None:
    with pytest.raises(Unusable):
        BigQuerySource(**given)


def test_values_serialize_the_same_in_every_process() -> None:
    one = BigQueryRequests(
        "SELECT 1", "p-one.d", columns=["b", "a"], response_schema={"type": "object", "properties": {}}
    )
    assert json.dumps(one.serialize()) == json.dumps(
        {
            "source": "BigQueryRequests", "query": "SELECT 1", "dataset": "p-one.d", "key": "key", "request": "request",
            "columns": ["b", "a"], "response_schema": one.response_schema,
        }
    )  # fmt: skip
    assert BigQueryRequests("SELECT 1", "p-two.d").name == BigQueryRequests("SELECT 1", "p-one.d").name
    assert BigQueryRequests("SELECT 1", "p-one.d", key="k").name != BigQueryRequests("SELECT 1", "p-one.d").name
