"""The calls to BigQuery, against the emulated one over HTTP: repeated without harm, read in pages, refused in our words."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime

import pytest

from airflow_provider_geminibatch.core import bigquery_sql as sql
from airflow_provider_geminibatch.core.bigquery import Column, Dataset, Layout, table_of
from airflow_provider_geminibatch.core.errors import KeyRefused, ServiceBusy, ServiceError, Unusable
from airflow_provider_geminibatch.emulator import Emulator, Server, running
from airflow_provider_geminibatch.gemini.bigquery import QueryFailed, Tables

START = datetime(2026, 11, 1, tzinfo=UTC)
PLACE = "us-central1"
SOURCE = table_of("p-one.d.asked")
MADE = table_of("p-one.d.gb1_made")


class Tokens:
    """Two tokens, of which the emulator may refuse the first."""

    def __init__(self) -> None:
        self.renewed = 0

    def bearer(self) -> str:
        return "first"

    def renew(self, refused: str) -> str:
        assert refused == "first"
        self.renewed += 1
        return "second"


def asking(text: str) -> str:
    return json.dumps({"contents": [{"role": "user", "parts": [{"text": text}]}]})


@pytest.fixture
def server() -> Iterator[Server]:
    emulator = Emulator(seed=5, start=START, speed=0)
    emulator.tables.make_dataset("p-one.d", PLACE)
    schema = [
        {"name": "id", "type": "INTEGER"},
        {"name": "request", "type": "STRING"},
        {"name": "lang", "type": "STRING"},
    ]
    rows = [{"id": at, "request": asking(f"row {at}"), "lang": "en"} for at in range(7)]
    emulator.tables.write_table(SOURCE.uri, schema, rows)
    with running(emulator) as served:
        yield served


@pytest.fixture
def tables(server: Server) -> Iterator[Tables]:
    with closing(Tables(server.url, Tokens(), 5)) as made:
        yield made


def copied(tables: Tables, once: str = "copy") -> None:
    query = f"SELECT id, request, lang FROM {SOURCE.sql}"
    tables.run("p-one", PLACE, query, once=once, what="copy", into=MADE)


def test_a_query_that_is_asked_again_runs_once(
    server: Server, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        copied(tables)
        copied(tables)
    assert tables.table(MADE).rows == 7
    assert server.emulator.log.count("bigquery.jobs.insert", status=200) == 1
    assert server.emulator.log.count("bigquery.jobs.insert", status=409) == 1
    assert "copy: BigQuery job geminibatch_" in caplog.text
    assert "0 bytes billed" in caplog.text


def test_a_table_that_was_made_and_deleted_is_made_again_under_another_job(server: Server, tables: Tables) -> None:
    copied(tables)
    assert tables.delete(MADE)
    assert not tables.delete(MADE)
    copied(tables)
    assert tables.table(MADE).rows == 7


def test_a_table_that_is_there_already_by_a_forgotten_job_is_taken(server: Server, tables: Tables) -> None:
    copied(tables)
    copied(tables, once="the same under another name")
    assert tables.table(MADE).rows == 7


def test_a_query_that_failed_before_is_sent_anew_once_what_it_failed_for_is_mended(
    server: Server, tables: Tables
) -> None:
    other = table_of("p-one.d.later")
    query = f"SELECT id FROM {other.sql}"
    for _ in range(6):
        with pytest.raises(QueryFailed) as failed:
            tables.run("p-one", PLACE, query, once="later", what="copy", into=MADE)
        assert failed.value.reason == "notFound"
    server.emulator.tables.write_table(other.uri, [{"name": "id", "type": "INTEGER"}], [{"id": 1}])
    tables.run("p-one", PLACE, query, once="later", what="copy", into=MADE)
    assert tables.table(MADE).rows == 1


def test_a_dropped_reply_is_asked_again(server: Server, tables: Tables) -> None:
    server.emulator.scenario("dropped_calls", endpoint="bigquery.jobs.insert", times=2)
    copied(tables)
    server.emulator.scenario("dropped_calls", endpoint="bigquery.tables.get", times=4)
    with pytest.raises(ServiceBusy):
        tables.table(MADE)


def test_rows_come_in_pages(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_geminibatch.gemini.bigquery.PAGE_ROWS", 3)
    ran = tables.run("p-one", PLACE, f"SELECT id FROM {SOURCE.sql} WHERE id > 1 ORDER BY id", once="ids", what="ids")
    columns, rows = tables.result(ran)
    assert ([column.name for column in columns], [row[0] for row in rows]) == (["id"], ["2", "3", "4", "5", "6"])
    assert [row["id"] for row in tables.table_rows(SOURCE, ("id",))] == [str(at) for at in range(7)]
    with pytest.raises(ServiceError, match="not there"):
        list(tables.table_rows(MADE))


def test_columns_are_known_before_anything_runs(server: Server, tables: Tables) -> None:
    columns = tables.columns_of("p-one", PLACE, f"SELECT id, lang FROM {SOURCE.sql}", "my query")
    assert [(column.name, column.type) for column in columns] == [("id", "INTEGER"), ("lang", "STRING")]
    with pytest.raises(Unusable, match=r"BigQuery says: .*no such column"):
        tables.columns_of("p-one", PLACE, f"SELECT nowhere FROM {SOURCE.sql}", "my query")


def test_what_bigquery_says_of_data_is_not_repeated(tables: Tables) -> None:
    with pytest.raises(QueryFailed) as failed:
        tables.run("p-one", PLACE, "SELECT CAST('a secret' AS INT64) AS x", once="x", what="bad cast")
    assert "secret" not in str(failed.value)
    assert failed.value.reason == "invalidQuery"


def test_a_refused_token_is_renewed_once(server: Server, tables: Tables) -> None:
    server.emulator.revoke("first")
    assert tables.location(Dataset("p-one", "d")) == PLACE
    assert tables.location(Dataset("p-one", "none")) is None
    server.emulator.revoke("second")
    with pytest.raises(KeyRefused):
        tables.location(Dataset("p-one", "d"))


def test_missing_rights_are_told_with_the_roles(server: Server, tables: Tables) -> None:
    server.emulator.scenario(
        "refused_calls", endpoint="bigquery.jobs.insert", code=403, status="PERMISSION_DENIED", message="no"
    )
    with pytest.raises(ServiceError, match=r"roles/bigquery\.jobUser"):
        copied(tables)


def test_a_table_is_a_file_of_the_gateway(tables: Tables) -> None:
    shown = tables.file(SOURCE.uri)
    assert shown is not None
    assert (shown.name, shown.seen_at) == (SOURCE.uri, START)
    assert tables.file("bq://p-one.d.none") is None
    tables.expire(SOURCE, START)
    assert tables.delete_file(SOURCE.uri)
    assert not tables.delete_file(SOURCE.uri)


def test_an_output_table_is_lines_of_a_result_file(server: Server, tables: Tables) -> None:
    schema = [{"name": name, "type": "STRING"} for name in ("wire_key", "key", "status", "response", "processed_time")]
    rows = [
        {"wire_key": "t-0000-0000000", "key": "a", "status": "", "response": '{\n "candidates": [1.50, {}]}'},
        {"wire_key": "t-0000-0000001", "key": "b", "status": 'Bad Request: {"error": {}}', "processed_time": "5"},
        {"wire_key": "t-0000-0000002", "key": "c", "status": "", "response": "no JSON"},
    ]
    server.emulator.tables.write_table("bq://p-one.d.out", schema, rows)
    with tables.download("bq://p-one.d.out", 17) as stream:
        data = b"".join(stream.chunks())
    assert stream.offset == 0
    assert data.splitlines() == [
        b'{"key":"t-0000-0000000","status":"","response":{"candidates":[1.50,{}]}}',
        b'{"key":"t-0000-0000001","status":"Bad Request: {\\"error\\": {}}","processed_time":"5"}',
        b'{"key":"t-0000-0000002","status":"","response":"no JSON"}',
    ]


def test_an_empty_table_is_made_once(tables: Tables) -> None:
    columns = (tables.table(SOURCE)).columns
    assert tables.make(MADE, columns, "what it is")
    assert not tables.make(MADE, columns)


def test_lines_are_loaded_into_a_table_once(server: Server, tables: Tables) -> None:
    data = b"".join(b'{"id": %d, "note": "x"}\n' % at for at in range(3))
    columns = (Column("id", "INTEGER"), Column("note", "STRING"))

    def load() -> None:
        tables.load(
            "p-one", PLACE, MADE, columns, io.BytesIO(data), len(data), once="l", what="rows", pause=lambda s: None
        )

    server.emulator.scenario("dropped_calls", endpoint="bigquery.jobs.load", times=1)
    load()
    load()
    assert [row["id"] for row in tables.table_rows(MADE)] == ["0", "1", "2"]
    tables.reshape(MADE, (*columns, Column("more", "JSON")))
    assert [column.name for column in tables.table(MADE).columns] == ["id", "note", "more"]


WRONG = {
    "no-key": (None, asking("x")),
    "same-key": ("twice", asking("x")),
    "no-request": ("a", None),
    "not-json": ("b", "{oops"),
    "not-object": ("c", "[1]"),
    "no-contents": ("d", '{"contents": []}'),
    "contents-list": ("e", '{"contents": "x"}'),
    "no-parts": ("f", '{"contents": [{"parts": "x"}]}'),
    "cached-content": ("g", asking("x")[:-1] + ', "cachedContent": "c"}'),
    "unknown-field": ("h", asking("x")[:-1] + ', "generation": 1}'),
    "empty-object": ("i", asking("x")[:-1] + ', "tools": [{"googleSearch": { }}]}'),
}


@pytest.mark.parametrize("kind", ["STRING", "JSON"])
def test_the_statements_find_every_mistake_and_only_those(server: Server, tables: Tables, kind: str) -> None:
    wrong = {name: row for name, row in WRONG.items() if kind == "STRING" or name != "not-json"}
    rows = [
        *wrong.values(),
        ("twice", asking("y")),
        ("ok", asking('braces in text: {} ":{}')),
        ("j", '{"contents": 5}'),
    ]
    places = [{"gb_shard": 0, "gb_row": at, "key": key, "request": request} for at, (key, request) in enumerate(rows)]
    schema = [
        {"name": "gb_shard", "type": "INTEGER"}, {"name": "gb_row", "type": "INTEGER"}, {"name": "key", "type": "STRING"},
        {"name": "request", "type": kind},
    ]  # fmt: skip
    server.emulator.tables.write_table(MADE.uri, schema, places)

    ran = tables.run("p-one", PLACE, sql.check_sql(MADE, is_json=kind == "JSON"), once="check", what="check")
    problems, total = sql.problems_of(tables.rows(ran))

    assert total == len(rows) - 1
    assert {problem.rule for problem in problems} == set(wrong)
    assert {problem.where for problem in problems if problem.rule == "contents-list"} == {"key 'e'", "key 'j'"}
    assert "key 'ok'" not in {problem.where for problem in problems}


def test_rows_are_numbered_by_key_and_digested_as_python_does(server: Server, tables: Tables) -> None:
    layout = Layout("id", "request", False, ("lang",))
    query = sql.request_table_sql(f"SELECT * FROM {SOURCE.sql}", layout, tag="tag2", rows_per_shard=4)
    tables.run("p-one", PLACE, query, once="base", what="base", into=MADE, shards=2)
    rows = list(tables.table_rows(MADE))
    assert [row["wire_key"] for row in rows] == [f"tag2-{at // 4:04d}-{at % 4:07d}" for at in range(7)]
    assert list(rows[0]) == ["wire_key", "key", "request", "lang", "gb_shard", "gb_row"]

    ran = tables.run("p-one", PLACE, sql.digest_sql(MADE, layout), once="digest", what="digest")
    shards = sql.shard_digests(tables.rows(ran))
    assert [(shard.number, shard.rows) for shard in shards] == [(0, 4), (1, 3)]
    one = other = 0
    keys = tables.run("p-one", PLACE, sql.keys_sql(MADE, 1, layout.extras), once="keys", what="keys")
    for row, key, passed in tables.rows(keys):
        first, second = sql.row_digest(f"{row} {key}{passed}")
        one, other = one ^ first, other ^ second
    assert shards[1].named == f"{one:015x}{other:015x}"
