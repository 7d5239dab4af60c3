"""A landing in BigQuery: a reader sees the old window or the new one, whole, whatever goes wrong on the way."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from itertools import count
from typing import Any

import pytest

from airflow_provider_geminibatch.core.bigquery import table_of
from airflow_provider_geminibatch.core.errors import NotOwner, StoreUnreadable, StoreUnwritable, Unusable
from airflow_provider_geminibatch.core.landing import Place
from airflow_provider_geminibatch.core.model import Owner, ServiceIdentity
from airflow_provider_geminibatch.emulator import Emulator, Server, running
from airflow_provider_geminibatch.gemini.bigquery import Tables
from airflow_provider_geminibatch.jobs.bigquery_landing import BigQueryLanding, _plain
from airflow_provider_geminibatch.jobs.rows import LandedRows
from airflow_provider_geminibatch.storage.sinks import Column
from tests.faults import WAYS, Plan
from tests.gemini.test_bigquery import Tokens
from tests.jobs.tables_road import FaultyTables
from tests.jobs.test_collect import WINDOW
from tests.jobs.test_crash_matrix_landings import SCENES, Sunk, through_all_effects

START = datetime(2026, 11, 1, tzinfo=UTC)
SERVICE = ServiceIdentity("vertex", "here", "p-one", "us-central1")
_numbers = count(1)


@cache
def _door(url: str) -> Tables:
    """One for all tests: a client of HTTP takes its time to be made."""
    return Tables(url, Tokens(), 5)


class BigTables:
    """Tables in a data set of their own."""

    def __init__(self, server: Server, part: str = "", typed: bool = False, **answers: Any) -> None:
        self.server, self.part, self.answers = server, part, answers
        self.dataset = f"p-one.d{next(_numbers)}"
        server.emulator.tables.make_dataset(self.dataset, "us-central1")
        uri = f"bigquery://c@/{self.dataset}.notes"
        self.place = Place("notes", uri, "sql", (part,) if part else (), typed=typed)

    def open(self, plan: Plan) -> BigQueryLanding:
        @contextmanager
        def door() -> Iterator[tuple[Any, ServiceIdentity]]:
            yield FaultyTables(_door(self.server.url), plan), SERVICE

        return BigQueryLanding(
            self.place.uri, table_of(f"{self.dataset}.notes"), door, lambda: START, lambda seconds: None,
            lambda: str(next(_numbers)),
        )  # fmt: skip

    def rows(self, suffix: str = "") -> list[dict[str, Any]]:
        uri = f"bq://{self.dataset}.notes{suffix}"
        tables = self.server.emulator.tables
        return tables.read_rows(uri) if tables.exists(uri) else []

    def leftovers(self) -> set[str]:
        """Rows that belong to no commit."""
        committed = {(row["place"], row["landed_window"]) for row in self.rows("__commits")}
        return {
            row["key"]
            for place, suffix in (("accepted", ""), ("rejected", "__rejected"), ("early", "__early"))
            for row in self.rows(suffix)
            if (place, row["landed_window"]) not in committed
        }

    def loads(self) -> list[str]:
        """The tables of rows on their way."""
        return [name for name in self.server.emulator.tables.known if name.startswith(f"{self.dataset}.notes__load")]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running(Emulator(seed=3, start=START, speed=0)) as served:
        with closing(_door(served.url)):
            yield served
        _door.cache_clear()


# The rules are those of the tables in SQL, whose matrix has every scene each way; here is what differs: the transaction.
QUICK = {("replacement", "lost"), ("replacement", "frozen"), ("accepted", "after")}
CASES = [
    pytest.param(scene, way, id=f"{scene}-{way}", marks=() if (scene, way) in QUICK else pytest.mark.slow)
    for scene in SCENES
    for way in WAYS
]


@pytest.mark.parametrize(("scene", "way"), CASES)
def test_whatever_goes_wrong_a_window_is_the_old_one_or_the_new_one(server: Server, scene: str, way: str) -> None:
    assert through_all_effects(lambda: BigTables(server), scene, way) > 4  # type: ignore[arg-type,return-value]


def landed(sink: BigTables, **how: Any) -> Sunk:
    world = Sunk(sink, **how)  # type: ignore[arg-type]
    world.collect()
    return world


def test_rows_land_with_their_types_and_come_back_the_same(server: Server) -> None:
    sink = BigTables(server)
    world = landed(sink)
    types = {column["name"]: column["type"] for column in server.emulator.tables.schema(f"bq://{sink.dataset}.notes")}
    assert (types["key"], types["tokens_total"], types["cost_usd"], types["extra"]) == (
        "STRING", "INTEGER", "BIGNUMERIC", "JSON",
    )  # fmt: skip
    rows = world.landed()
    assert rows is not None
    assert [row["key"] for row in rows] == ["k0", "k1"]
    assert type(rows[0]["tokens_total"]) is int
    assert type(rows[0]["cost_usd"]) is Decimal
    assert sink.loads() == []


def test_the_same_commit_again_loads_nothing(server: Server) -> None:
    sink = BigTables(server)
    world = landed(sink)
    before = server.emulator.log.count("bigquery.jobs.load")
    assert world.collect().manifest.complete
    assert server.emulator.log.count("bigquery.jobs.load") == before


def test_names_that_bigquery_does_not_take_are_made_plain_and_come_back_as_they_were() -> None:
    names = ["a b", "a_b", "x`; DROP TABLE y; --", "1st", "_TABLE_x", "größe"]
    plain = [_plain(name) for name in names]
    assert plain == ["a_b", "a_b", "x___DROP_TABLE_y____", "c_1st", "c__TABLE_x", "gr__e"]
    assert all(re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) for name in plain)


def test_columns_of_any_name_land(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = BigTables(server)
    world = Sunk(sink)  # type: ignore[arg-type]
    usual = LandedRows.__init__
    odd = ["it`s", "it's", "IT_S"]

    def with_odd(self: LandedRows, *given: Any) -> None:
        usual(self, *given)
        self.columns = (*self.columns, *(Column(name, "string") for name in odd))

    monkeypatch.setattr(LandedRows, "__init__", with_odd)
    monkeypatch.setattr(
        LandedRows, "__iter__", lambda self, each=LandedRows.__iter__: ((*row, *odd) for row in each(self))
    )
    world.collect()
    rows = world.landed()
    assert rows is not None
    assert [rows[0][name] for name in odd] == odd


def test_another_owner_is_refused(server: Server) -> None:
    world = landed(BigTables(server))
    with pytest.raises(NotOwner):
        world.collect(owner=Owner("dag", "another"))


def test_parts_of_a_window_lie_beside_each_other(server: Server) -> None:
    world = landed(BigTables(server, part="eu"))
    rows = world.landed()
    assert rows is not None
    assert len(rows) == 2
    assert world.sink.open(Plan()).windows() == [WINDOW]
    assert [manifest.part for manifest in world.sink.open(Plan()).commits()] == ["eu"]


def test_new_columns_are_added_and_old_windows_stay_readable(server: Server) -> None:
    sink = BigTables(server)
    world = landed(sink)
    old = world.landed()
    sink.place = Place("notes", sink.place.uri, "sql", keep=("thoughts",))
    newer = world.another()
    world.collect(newer)
    rows = world.landed()
    assert rows is not None
    assert old is not None
    assert len(rows) == 3
    assert set(rows[0]) > set(old[0])


def test_a_commit_that_another_one_got_before_begins_anew_and_then_gives_up(server: Server) -> None:
    sink = BigTables(server)
    world = landed(sink)
    newer = world.another()
    landing = sink.open(Plan())
    opened = landing._at()
    with opened as at:
        entries = at.entries(WINDOW)
        world.collect(newer)  # meanwhile
        manifest = entries[0].manifest
        assert not at.transaction("DELETE FROM " + landing.name.sql + " WHERE 1 = 1;", manifest, entries, "x")
    rows = world.landed()
    assert rows is not None
    assert len(rows) == 3


def test_a_data_set_that_is_not_there_is_named(server: Server) -> None:
    sink = BigTables(server)
    world = Sunk(sink)  # type: ignore[arg-type]
    sink.dataset = "p-one.none"
    with pytest.raises((StoreUnreadable, StoreUnwritable), match=r"p-one\.none is not there"):
        world.collect()


def test_two_rows_of_one_key_are_refused(server: Server) -> None:
    world = Sunk(BigTables(server))  # type: ignore[arg-type]
    again = world.another(rows=2)  # its keys are k0 and k1 too
    with pytest.raises(Unusable, match="same key"):
        world.collect(world.manifest, again)
    assert world.landed() is None
