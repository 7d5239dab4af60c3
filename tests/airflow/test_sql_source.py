"""Rows of queries: PostgreSQL for real, by both of its drivers, and other databases by Airflow's own hook class."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import logging
import os
import sqlite3
import sys
import types
import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowException, AirflowFailException, BaseHook
from airflow.providers.common.sql.hooks.sql import DbApiHook
from airflow.providers.postgres.hooks import postgres as postgres_hooks

from airflow_provider_geminibatch import (
    GeminiBatchLoadOperator,
    GeminiBatchPrepareOperator,
    GeminiBatchSubmitOperator,
    Landing,
    RequestTemplate,
    SqlSource,
    read_window,
)
from airflow_provider_geminibatch.core.errors import BadConnection, SourceAway, SourceUnreadable, Unusable
from airflow_provider_geminibatch.core.rows import Row
from airflow_provider_geminibatch.hooks.sql import is_ordered
from airflow_provider_geminibatch.storage.files import PlainFiles
from airflow_provider_geminibatch.storage.sources import source_of
from tests.airflow.faces import context

pytestmark = pytest.mark.airflow

ONE_TO_THREE = "SELECT n AS id, 'text ' || n AS text FROM generate_series(1, 3) AS n ORDER BY n"


def read(source: SqlSource) -> list[Row]:
    return list(source.rows(PlainFiles()))


def data(source: SqlSource) -> list[Any]:
    return [row.data for row in read(source)]


@pytest.fixture(params=["psycopg", "psycopg2"])
def driver(request, monkeypatch: pytest.MonkeyPatch) -> str:
    """The driver that Airflow's hook uses."""
    monkeypatch.setattr(postgres_hooks, "USE_PSYCOPG3", request.param == "psycopg")
    return request.param


def sessions(database: str) -> int:
    """How many other sessions the server has."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    return BaseHook.get_hook(database).get_first(query)[0]


def test_rows_of_postgresql_are_numbered_and_named(database, driver):
    assert read(SqlSource(ONE_TO_THREE, database, fetch_rows=2)) == [
        Row("row", number, {"id": number, "text": f"text {number}"}) for number in (1, 2, 3)
    ]
    with closing(BaseHook.get_hook(database).get_conn()) as connection:
        assert type(connection).__module__.partition(".")[0] == driver
    assert read(SqlSource("SELECT 1 AS id WHERE false", database)) == []
    assert data(SqlSource("SELECT 1 AS id;\n", database)) == [{"id": 1}]


def test_types_of_postgresql_come_as_pythons(database, driver):
    query = """
        SELECT 1.10::numeric AS price, DATE '2026-01-31' AS day, TIMESTAMPTZ '2026-01-31 12:00+00' AS at,
               '{"a": [1, null]}'::jsonb AS doc, '\\x0001'::bytea AS raw, ARRAY['a', 'b'] AS tags, NULL::bytea AS none,
               '11111111-2222-3333-4444-555555555555'::uuid AS uid, true AS yes, interval '1 day' AS took
    """
    (row,) = data(SqlSource(query, database))
    assert str(row.pop("uid")) == str(uuid.UUID("11111111-2222-3333-4444-555555555555"))
    assert type(row["raw"]) is bytes
    assert row == {
        "price": decimal.Decimal("1.10"),
        "day": dt.date(2026, 1, 31),
        "at": dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC),
        "doc": {"a": [1, None]},
        "raw": b"\x00\x01",
        "tags": ["a", "b"],
        "none": None,
        "yes": True,
        "took": dt.timedelta(days=1),
    }


def test_a_connection_with_its_own_kind_of_rows_gives_ours(database, driver, monkeypatch):
    made = json.loads(os.environ["AIRFLOW_CONN_ROWS_DB"])
    monkeypatch.setenv("AIRFLOW_CONN_ROWS_DB", json.dumps({**made, "extra": {"cursor": "dictcursor"}}))
    assert data(SqlSource("SELECT 1 AS id, 2 AS n", database)) == [{"id": 1, "n": 2}]


@pytest.mark.parametrize("parameters", [["text"], {"kind": "text"}])
def test_parameters_go_in_by_the_driver(database, driver, parameters):
    mark = "%s" if isinstance(parameters, list) else "%(kind)s"
    query = f"SELECT {mark}::text AS kind, '100 %%' AS share"
    assert data(SqlSource(query, database, parameters=parameters)) == [{"kind": "text", "share": "100 %"}]
    assert data(SqlSource("SELECT '100 %' AS share", database)) == [{"share": "100 %"}]


def test_a_result_stays_with_the_server_and_the_connection_goes_when_nobody_wants_more(database, driver):
    before = sessions(database)
    rows = SqlSource("SELECT generate_series(1, 100000000) AS id, repeat('x', 1000) AS text", database).rows(
        PlainFiles()
    )
    assert [next(rows).number for _ in range(3)] == [1, 2, 3]
    assert sessions(database) == before + 1
    rows.close()
    assert sessions(database) == before
    read(SqlSource(ONE_TO_THREE, database))
    with pytest.raises(SourceUnreadable):
        read(SqlSource("SELECT 1/(n-2) AS id FROM generate_series(1, 3) AS n", database, fetch_rows=1))
    assert sessions(database) == before


def test_a_query_changes_nothing(database, driver):
    BaseHook.get_hook(database).run("CREATE SEQUENCE IF NOT EXISTS steps", autocommit=True)
    with pytest.raises(SourceUnreadable, match="ReadOnlySqlTransaction"):
        read(SqlSource("SELECT nextval('steps') AS id", database))
    with pytest.raises(SourceUnreadable):
        read(SqlSource("DROP SEQUENCE steps", database))
    assert data(SqlSource("SELECT last_value AS id FROM steps", database)) == [{"id": 1}]


def test_what_a_database_refuses_is_said_without_what_its_rows_hold(database, driver):
    with pytest.raises(SourceUnreadable) as caught:
        read(SqlSource("SELECT id FROM no_such_table", database))
    assert 'UndefinedTable (42P01): relation "no_such_table" does not exist' in str(caught.value)
    assert not caught.value.retryable
    with pytest.raises(SourceUnreadable) as caught:
        read(SqlSource("SELECT lower('SECRET')::int AS id", database))
    assert "InvalidTextRepresentation (22P02); the database's own log has the details" in str(caught.value)
    assert "secret" not in repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_two_columns_of_one_name_are_refused(database, driver):
    with pytest.raises(SourceUnreadable, match="two of its columns are called id; name one of them with AS"):
        read(SqlSource("SELECT 1 AS id, 2 AS id", database))


def test_a_database_that_is_down_is_worth_another_try(database, driver, monkeypatch, tmp_path, service, workspace):
    made = {
        "conn_type": "postgres",
        "host": str(tmp_path),
        "login": "postgres",
        "password": "hidden",
        "schema": "postgres",
    }
    monkeypatch.setenv("AIRFLOW_CONN_ROWS_DB", json.dumps(made))
    source = SqlSource(ONE_TO_THREE, database)
    with pytest.raises(SourceAway, match="A retry reads it again") as caught:
        read(source)
    assert "hidden" not in str(caught.value)
    with pytest.raises(AirflowException) as failed:
        prepare(source)
    assert not isinstance(failed.value, AirflowFailException)


def test_a_connection_that_is_not_there_or_has_no_sql_is_named(monkeypatch):
    with pytest.raises(BadConnection, match="it is not defined"):
        read(SqlSource(ONE_TO_THREE, "gone_db"))
    for kind, said in (("geminibatch", "runs no SQL"), ("no_such_type", "there is no hook for it")):
        monkeypatch.setenv("AIRFLOW_CONN_OTHER", json.dumps({"conn_type": kind, "password": "hidden"}))
        with pytest.raises(BadConnection, match=said):
            read(SqlSource(ONE_TO_THREE, "other"))


class Lite(DbApiHook):
    """A hook as providers write them."""

    conn_name_attr = "lite_conn_id"
    path = ""

    def get_conn(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path)
        connection.row_factory = sqlite3.Row
        return connection


@pytest.fixture
def lite(tmp_path, monkeypatch: pytest.MonkeyPatch) -> str:
    path = str(tmp_path / "rows.db")
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE events (id INTEGER, text TEXT, raw BLOB)")
        connection.executemany("INSERT INTO events VALUES (?, ?, ?)", [(at, f"t{at}", b"\x01") for at in range(5)])
    connection.close()
    monkeypatch.setattr(Lite, "path", path)
    monkeypatch.setattr(BaseHook, "get_hook", classmethod(lambda cls, conn_id, hook_params=None: Lite()))
    return "lite"


def test_any_hook_of_airflows_own_class_gives_rows(lite):
    source = SqlSource("SELECT * FROM events WHERE id > ? ORDER BY id", lite, parameters=[2], fetch_rows=1)
    assert data(source) == [{"id": at, "text": f"t{at}", "raw": b"\x01"} for at in (3, 4)]
    with pytest.raises(SourceAway, match="attempt to write a readonly database"):
        read(SqlSource("INSERT INTO events VALUES (9, 'x', NULL)", lite))
    with pytest.raises(SourceUnreadable, match="the statement gives no rows; it has to be a query"):
        read(SqlSource("PRAGMA query_only = ON", lite))
    with pytest.raises(SourceAway, match="no such column: nope"):
        read(SqlSource("SELECT nope FROM events", lite))


class MysqlConnection:
    """What the drivers of MySQL have in common: a plain cursor fetches everything at once, another one streams."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def cursor(self, kind: Any = None) -> Any:
        self.asked.append(kind)
        return sqlite3.connect(":memory:").cursor()

    def close(self) -> None:
        self.asked.append("closed")


@pytest.mark.parametrize("name", ["MySQLdb", "pymysql", "some_driver"])
def test_mysql_streams_and_an_unknown_driver_is_asked_a_few_rows_at_a_time(monkeypatch, name):
    module = types.ModuleType(f"{name}.cursors")
    module.SSCursor = type("SSCursor", (), {})
    monkeypatch.setitem(sys.modules, f"{name}.cursors", module)
    monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    connection = type("Connection", (MysqlConnection,), {"__module__": f"{name}.connections"})()
    hook = types.SimpleNamespace(get_conn=lambda: connection, get_records=None)
    monkeypatch.setattr(BaseHook, "get_hook", classmethod(lambda cls, conn_id, hook_params=None: hook))
    assert data(SqlSource("SELECT 1 AS id", "other_db")) == [{"id": 1}]
    assert connection.asked == [None if name == "some_driver" else module.SSCursor, "closed"]


def prepare(source, run=None, **more):
    arguments = {"model": "gemini-3.8-flash", "template": RequestTemplate("What of $text?", columns="*"), **more}
    operator = GeminiBatchPrepareOperator(task_id="prepare", source=source, **arguments)
    return operator.execute(run or context("prepare"))


def test_a_query_lands_with_its_columns_and_a_clear_with_equal_rows_pays_nothing(
    database, service, workspace, tmp_path
):
    query = "SELECT n AS id, 'text ' || n AS text, n * 1.10 AS price, DATE '2026-01-01' + n AS day FROM generate_series(1, 3) n"
    source = SqlSource(f"{query} ORDER BY n", database)
    prepared = prepare(source)
    assert prepare(source, context("prepare", try_number=2, max_tries=1)) == prepared
    submitted = GeminiBatchSubmitOperator(task_id="submit", prepared=prepared).execute(context("submit"))
    service.emulator.clock.advance(hours=6)
    landing = Landing("answers", str(tmp_path / "landing"))
    GeminiBatchLoadOperator(task_id="load", submitted=submitted, to=landing, window="w").execute(context("load"))
    found = {row["key"]: (row["price"], row["day"], row["outcome"]) for row in read_window(landing, "w")}
    assert found == {str(n): (str(decimal.Decimal("1.10") * n), f"2026-01-0{n + 1}", "answer") for n in (1, 2, 3)}


def test_a_query_without_an_order_is_warned_about_once_per_reading(database, caplog):
    with caplog.at_level(logging.WARNING):
        read(SqlSource("SELECT 1 AS id UNION SELECT 2", database))
        read(SqlSource(ONE_TO_THREE, database))
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.endswith(
        "has no ORDER BY. A clear runs it again, and the same rows in another order are other shards, which are paid for "
        "again: order by something unique."
    )


@pytest.mark.parametrize(
    ("sql", "ordered"),
    [
        ("SELECT 1 ORDER BY 1", True), ("select 1 order\n  by 1", True), ("SELECT f(x) FROM t ORDER BY (x)", True),
        ("SELECT 1", False), ("SELECT 1 -- ORDER BY 1", False), ("SELECT 1 /* ORDER\nBY */", False),
        ("SELECT 'ORDER BY'", False), ("SELECT * FROM (SELECT 1 ORDER BY 1) x", False),
        ("SELECT row_number() OVER (ORDER BY x) FROM t", False), ("SELECT \"ORDER BY\" FROM t", False),
        ("SELECT 'it''s' ORDER BY 1", True), ("SELECT reorder, bypass", False),
    ],
)  # fmt: skip
def test_an_order_counts_where_it_orders_the_result(sql, ordered):
    assert is_ordered(sql) is ordered


def test_the_name_is_the_query_and_its_parameters_and_not_the_connection():
    one = SqlSource("SELECT id\n  FROM events", "a_db")
    assert one.name == SqlSource("SELECT id\n  FROM events", "b_db").name
    assert one.name.endswith("(SELECT id FROM events)")
    others = [
        SqlSource("SELECT id FROM events", "a_db"),
        SqlSource("SELECT id\n  FROM events", "a_db", parameters=[1]),
        SqlSource("SELECT id\n  FROM events", "a_db", parameters={"day": dt.date(2026, 1, 1)}),
    ]
    assert len({one.name, *(other.name for other in others)}) == 4
    assert len(SqlSource(f"SELECT {'x' * 500}", "a_db").name) < 110
    with pytest.raises(Unusable, match="a object is nothing that JSON knows"):
        SqlSource("SELECT 1", "a_db", parameters=[object()]).name  # noqa: B018 - the name is what is refused
    with pytest.raises(Unusable, match="at least one row"):
        SqlSource("SELECT 1", "a_db", fetch_rows=0)
    assert source_of(one) is one


@pytest.fixture
def task(tmp_path) -> Iterator[GeminiBatchPrepareOperator]:
    (tmp_path / "events.sql").write_text("SELECT id FROM events WHERE day = '{{ ds }}' AND kind = %(kind)s")
    with DAG("sql_rows", schedule=None, template_searchpath=str(tmp_path)):
        yield GeminiBatchPrepareOperator(
            task_id="prepare",
            model="m",
            template=RequestTemplate("$text. See report.sql"),
            source=SqlSource("events.sql", "{{ params.db }}", parameters={"kind": "{{ ds_nodash }}"}),
        )


def test_airflow_renders_the_query_its_file_and_its_parameters(task):
    task.render_template_fields(
        {"ds": "2026-01-31", "ds_nodash": "20260131", "params": {"db": "rows_db"}, "task": task}
    )
    assert task.source == SqlSource(
        "SELECT id FROM events WHERE day = '2026-01-31' AND kind = %(kind)s", "rows_db", parameters={"kind": "20260131"}
    )
    assert task.template.prompt == "$text. See report.sql"


def test_a_file_of_a_query_that_is_not_there_is_named(task):
    task.source = SqlSource("gone.sql", "rows_db")
    with pytest.raises(Unusable, match=r"there is no file gone\.sql"):
        task.render_template_fields({"task": task})
    without_dag = types.SimpleNamespace(get_template_env=lambda: types.SimpleNamespace(loader=None))
    with pytest.raises(Unusable, match=r"there is no file gone\.sql"):
        task.source.resolve({"task": without_dag})


def test_a_dag_with_a_query_has_the_same_version_in_every_process(task):
    assert task.source.serialize() == {
        "source": "SqlSource",
        "sql": "events.sql",
        "conn_id": "{{ params.db }}",
        "parameters": {"kind": "{{ ds_nodash }}"},
        "fetch_rows": 2_000,
    }


def test_ready_made_requests_may_come_from_a_query(database, driver, service, workspace):
    query = """
        SELECT 'k' || n AS key, n AS number, json_build_object('contents', json_build_array(json_build_object(
               'role', 'user', 'parts', json_build_array(json_build_object('text', 'about ' || n))))) AS request
        FROM generate_series(1, 3) AS n ORDER BY n
    """
    operator = GeminiBatchPrepareOperator(
        task_id="prepare", model="gemini-3.8-flash", requests=SqlSource(query, database), columns=("number",)
    )
    assert operator.execute(context("prepare"))["rows"] == 3


def test_a_problem_of_a_row_names_the_row_and_the_query(database, service, workspace):
    source = SqlSource(
        "SELECT n AS id, CASE n WHEN 2 THEN ''::bytea END AS text FROM generate_series(1, 3) n ORDER BY 1", database
    )
    with pytest.raises(AirflowFailException) as caught:
        prepare(source)
    assert "row 2: column text: a bytes has no text of its own" in str(caught.value)
    assert source.name in str(caught.value)
