"""Landings in tables and in parts, as Dags use them."""

from __future__ import annotations

import json
import sqlite3
from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowException, AirflowFailException, BaseHook, Connection
from airflow.providers.common.sql.hooks.sql import DbApiHook
from airflow.providers.postgres.hooks import postgres as postgres_hooks

from airflow_provider_geminibatch import GeminiBatchLoadOperator, GeminiBatchOperator, Landing, read_window
from airflow_provider_geminibatch.core.errors import StoreUnreadable, Unusable, WindowNotLanded
from airflow_provider_geminibatch.decorators.gemini_batch import gemini_batch
from airflow_provider_geminibatch.hooks.landing import open_landing
from tests.airflow.faces import context
from tests.airflow.test_batch_operator import deferred, to_the_end
from tests.airflow.test_operators import QUESTION, WINDOW, prepare, rows, submit

pytestmark = pytest.mark.airflow

KEY = "20180131T000000Z"


@pytest.fixture
def answered(service, workspace):
    """Two rows, submitted and answered."""
    submitted = submit(prepare(rows("rain", "snow"), template=QUESTION))
    service.emulator.clock.advance(hours=6)
    return submitted


def load(submitted, landing, task_id="load", **more):
    run = context(task_id, **WINDOW)
    operator = GeminiBatchLoadOperator(task_id=task_id, submitted=submitted, to=landing, **more)
    return operator.execute(run), run["outlet_events"]


class SqliteHook(DbApiHook):
    """Any database: Airflow's own class of hooks, over SQLite."""

    conn_name_attr = "sqlite_conn_id"
    supports_autocommit = False
    _placeholder = "?"
    path = ""

    def get_conn(self):
        return sqlite3.connect(self.path)

    def get_uri(self):
        return "sqlite:////tmp/none"


@pytest.fixture(params=["psycopg", "psycopg2", "sqlite"])
def table(request, database, monkeypatch, tmp_path):
    """A landing in an empty table of each database, by Airflow's hooks."""
    if request.param == "sqlite":
        monkeypatch.setattr(SqliteHook, "path", str(tmp_path / "rows.db"))
        monkeypatch.setattr(
            BaseHook,
            "get_hook",
            lambda conn_id, **_: SqliteHook(connection=Connection(conn_id=conn_id, conn_type="sqlite")),
        )
        return Landing("answers", "sql://rows_db@/answers")
    monkeypatch.setattr(postgres_hooks, "USE_PSYCOPG3", request.param == "psycopg")
    return Landing("answers", f"sql://rows_db@warehouse/public.answers_{request.param}")


def test_answers_land_in_a_table_beside_the_users_columns(answered, table):
    landed, events = load(answered, table)
    assert (landed["rows"], landed["verdict"]) == (2, "accepted")
    assert events[table.asset].extra == landed
    found = list(read_window(table, KEY))
    assert {row["key"]: row["row_text"] for row in found} == {"k0": "rain", "k1": "snow"}
    assert all("rain" in row["text"] or "snow" in row["text"] for row in found)
    assert load(answered, table)[0]["commit"] == landed["commit"]
    assert list(read_window(table, KEY)) == found
    assert open_landing(table.uri).windows() == [KEY]


def test_a_table_has_an_asset_that_names_no_connection():
    assert Landing("a", "sql://rows_db@warehouse/x.answers").asset.uri == "sql://warehouse/x.answers"
    assert Landing("a", "sql://rows_db@/x.answers").asset.uri == "sql://database/x.answers"


def test_what_no_landing_can_be_is_refused_while_the_dag_is_parsed():
    with pytest.raises(Unusable, match="format='jsonl'"):
        Landing("a", "sql://db@/answers", format="jsonl")
    with pytest.raises(Unusable, match="connection and a table"):
        Landing("a", "sql://db:secret@/answers")
    with pytest.raises(Unusable, match="format='sql'"):
        Landing("a", "/data/answers", format="sql")
    for parts in ("eu", ("eu", "eu"), ("eu", ""), (1,)):
        with pytest.raises(Unusable, match="parts="):
            Landing("a", "/data/answers", parts=parts)


@pytest.mark.parametrize("operator", [GeminiBatchLoadOperator, GeminiBatchOperator])
@pytest.mark.parametrize(
    ("parts", "part", "told"),
    [((), "eu", "landed whole"), (("eu",), None, "names none"), (("eu",), "us", "declares eu")],
)
def test_a_part_that_was_not_declared_is_refused_while_the_dag_is_parsed(operator, parts, part, told):
    more = {"submitted": "x"} if operator is GeminiBatchLoadOperator else {"model": "m", "requests": "x"}
    with pytest.raises(Unusable, match=told):
        operator(task_id="t", to=Landing("a", "/data/a", parts=parts), part=part, **more)
    operator(task_id="t", to=Landing("a", "/data/a", parts=parts), part="{{ params.part }}", **more)


def test_a_part_that_a_template_gives_is_checked_when_it_is_known(answered, tmp_path):
    landing = Landing("answers", str(tmp_path / "l"), parts=("eu",))
    operator = GeminiBatchLoadOperator(task_id="load", submitted=answered, to=landing, part="{{ 1 }}")
    operator.part = "asia"
    with pytest.raises(AirflowFailException, match="declares eu"):
        operator.execute(context("load", **WINDOW))


def halves(uri):
    return Landing("answers", uri, parts=("eu", "us"))


@pytest.fixture(params=["files", "table"])
def parted(request, tmp_path, database):
    return halves(
        str(tmp_path / "l") if request.param == "files" else f"sql://{database}@/parts_{tmp_path.name[-30:-1]}"
    )


def test_the_last_part_updates_the_asset_and_the_first_one_does_not(answered, parted):
    landed, events = load(answered, parted, "load_eu", part="eu")
    assert (landed["part"], landed["complete"]) == ("eu", True)
    assert events.named == {}
    with pytest.raises(WindowNotLanded, match="part us"):
        list(read_window(parted, KEY))

    _, events = load(answered, parted, "load_us", part="us")
    [(asset, extra)] = events[parted.outlet].added
    assert asset == parted.asset
    assert (extra["rows"], extra["window"], set(extra["parts"])) == (4, KEY, {"eu", "us"})
    assert [row["key"] for row in read_window(parted, KEY)] == ["k0", "k1", "k0", "k1"]

    # A part that is landed again finds the window whole, and says so again: after a crash nobody else would.
    _, events = load(answered, parted, "load_eu", part="eu")
    assert events[parted.outlet].added[0][1]["commit"] == extra["commit"]


def test_a_part_has_one_owner_as_a_window_has(answered, parted):
    load(answered, parted, "load_eu", part="eu")
    with pytest.raises(AirflowException, match=r"part eu belongs to dag\.load_eu"):
        load(answered, parted, "load_us", part="eu")


def test_a_rejected_part_is_named_with_the_command_that_accepts_it(answered, tmp_path):
    landing = halves(str(tmp_path / "l"))
    load(answered, landing, "load_us", part="us")
    with pytest.raises(AirflowFailException, match=r"part eu: 2 of 2.*--part eu --reason"):
        load(answered, landing, "load_eu", part="eu", min_answers=3)
    with pytest.raises(WindowNotLanded, match="part eu: it was rejected"):
        list(read_window(landing, KEY))
    assert [row["key"] for row in read_window(landing, KEY, any_verdict=True)] == ["k0", "k1", "k0", "k1"]


def test_the_outlet_of_a_landing_in_parts_is_an_alias_also_where_the_asset_was_named():
    landing = halves("/data/answers")
    operator = GeminiBatchLoadOperator(task_id="t", submitted="x", to=landing, part="eu", outlets=[landing.asset])
    assert operator.outlets == [landing.outlet]
    assert "alias" in type(landing.outlet).__name__.lower()
    assert landing.serialize()["parts"] == ["eu", "us"]
    assert Landing("a", "/data/a").outlet == Landing("a", "/data/a").asset


def test_a_connection_that_is_missing_or_no_database_is_named(monkeypatch):
    monkeypatch.delenv("AIRFLOW_CONN_NOWHERE", raising=False)
    with pytest.raises(StoreUnreadable, match="'nowhere'"):
        open_landing("sql://nowhere@/answers")
    monkeypatch.setattr(BaseHook, "get_hook", lambda conn_id, **_: SimpleNamespace())
    with pytest.raises(Unusable, match="no SQL hook"):
        open_landing("sql://files@/answers")


def test_no_secret_of_the_database_is_in_what_travels(answered, database, monkeypatch):
    made = {"conn_type": "postgres", "host": "/nowhere", "login": "ada", "password": "pass-word", "schema": "x"}
    monkeypatch.setenv("AIRFLOW_CONN_ROWS_DB", json.dumps(made))
    with pytest.raises(AirflowException) as caught:
        load(answered, Landing("answers", f"sql://{database}@/answers"))
    assert "OperationalError" in str(caught.value)
    assert "pass-word" not in str(caught.value)
    assert "/nowhere" not in str(caught.value)


def test_one_task_per_part_is_enough_too(service, workspace, parted):
    for part in ("eu", "us"):
        where = context(f"ask_{part}", **WINDOW)

        def make(part=part):
            return GeminiBatchOperator(
                task_id=f"ask_{part}", source=rows(part), template=QUESTION, model="gemini-3.8-flash", to=parted,
                part=part, poll_interval=1, early=0.5,
            )  # fmt: skip

        deferral = deferred(make().execute, where)
        service.emulator.clock.advance(hours=6)
        landed = to_the_end(make, where, begin=deferral)
        assert (landed["part"], landed["rows"]) == (part, 1)
        assert bool(where["outlet_events"].named) == (part == "us")
    assert [row["row_text"] for row in read_window(parted, KEY)] == ["eu", "us"]
    assert open_landing(parted.uri).manifest(KEY, part="eu", early=True) is None


def test_the_decorator_takes_parts_and_gives_its_task_the_alias():
    @gemini_batch(model="m", to=halves("/data/answers"), part="eu")
    def questions():
        return []

    with DAG("parts"):
        task = questions().operator
    assert task.part == "eu"
    assert task.outlets == [halves("/data/answers").outlet]
