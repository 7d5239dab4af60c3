"""Windows in tables: the old one or the new one, whole, on SQLite and on a real PostgreSQL by both drivers."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.errors import (
    NotOwner,
    ResultsBroken,
    StoreUnreadable,
    StoreUnwritable,
    Unusable,
    WindowNotLanded,
)
from airflow_provider_geminibatch.core.kinds import VECTOR_COLUMN
from airflow_provider_geminibatch.core.landing import CommitManifest, JobRef, Origin
from airflow_provider_geminibatch.core.model import Owner
from airflow_provider_geminibatch.core.vectors import vector_kind
from airflow_provider_geminibatch.core.verdict import Verdicts
from airflow_provider_geminibatch.storage.sinks import COLUMNS, Column, Row
from airflow_provider_geminibatch.storage.sql_landing import SqlLanding
from airflow_provider_geminibatch.storage.sql_session import Database
from airflow_provider_geminibatch.storage.sql_tables import Tables, table_of
from airflow_provider_geminibatch.storage.sql_words import WORDS, copy_chunks, sql_names
from airflow_provider_geminibatch.storage.stores import MemoryStore
from tests.databases import Base
from tests.storage.test_landings import BATCH, NOW, row, written

PLAIN = len(COLUMNS)


class Given:
    """Rows of a landing as they come from a batch."""

    def __init__(self, rows: Sequence[Row], *users: str) -> None:
        self.columns = (*COLUMNS, *(Column(name, "string") for name in users))
        self._rows = rows

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)


class Noted:
    """A ledger that remembers nothing."""

    def written(self) -> None:
        return None

    def write(self, manifest: CommitManifest) -> None:
        assert manifest.parts == ()


def draft(name: str, *keys: str, **changes: Any) -> CommitManifest:
    made = written(MemoryStore(), name, *keys, **changes)
    return msgspec.structs.replace(made, parts=(), format="sql")


def put(landing: SqlLanding, name: str, *keys: str, **changes: Any) -> CommitManifest:
    return landing.commit(draft(name, *keys, **changes), lambda: Given([row(key) for key in keys]), Noted())


def keys_of(landing: SqlLanding, window: str = "w", **how: Any) -> list[str]:
    return [found["key"] for found in landing.rows(window, **how)]


def origin(generation: int, seal: int = 1) -> Origin:
    return Origin(batch=BATCH, generation=generation, build="b", seal=seal, workspace="/w")


def test_what_is_committed_can_be_read_here_and_by_anybody(base: Base) -> None:
    landing = base.landing()
    made = put(landing, "c1", "a", "b")
    assert keys_of(landing) == base.keys() == ["a", "b"]
    assert landing.windows() == ["w"]
    assert landing.manifest("w") == made


def test_where_there_is_no_table_nothing_was_committed_and_none_is_made_by_looking(base: Base) -> None:
    landing = base.landing()
    assert landing.manifest("w") is None
    assert landing.windows() == []
    with pytest.raises(WindowNotLanded, match="nothing was committed"):
        keys_of(landing)
    with pytest.raises(Unusable, match="no rejected commit"):
        landing.accept("w", reason="r", who="ada", now=NOW)
    landing.drop_early(draft("c1"))
    assert landing.manifest("w") is None


def test_a_commit_replaces_its_own_window_and_no_other(base: Base) -> None:
    landing = base.landing()
    put(landing, "c0", "z", window="v")
    put(landing, "c1", "a", "b")
    put(landing, "c2", "b", "c")
    assert keys_of(landing) == ["b", "c"]
    assert base.keys() == ["z", "b", "c"]
    assert landing.windows() == ["v", "w"]


def test_a_repeated_commit_leaves_everything_as_it_was(base: Base) -> None:
    landing = base.landing()
    first = put(landing, "c1", "a")
    assert put(landing, "c1", "a", committed_at=NOW + timedelta(hours=1)) == first


def test_rejected_and_early_rows_are_in_tables_of_their_own(base: Base) -> None:
    landing = base.landing()
    put(landing, "c1", "a", verdict=Verdicts.REJECTED)
    put(landing, "c2", "b", verdict=Verdicts.PARTIAL_BY_POLICY, complete=False)
    assert base.keys() == []
    assert (base.keys("__rejected"), base.keys("__early")) == (["a"], ["b"])
    assert keys_of(landing, any_verdict=True) == ["a"]
    with pytest.raises(WindowNotLanded, match="it was rejected"):
        keys_of(landing)
    final = put(landing, "c3", "a", "b")
    landing.drop_early(final)
    landing.drop_early(final)
    assert (keys_of(landing), base.keys("__early")) == (["a", "b"], [])
    told = base.query("SELECT place FROM {}notes__commits WHERE verdict IS NOT NULL ORDER BY place")
    assert told == [("accepted",), ("rejected",)]
    assert landing.manifest("w", early=True) is None


def test_early_rows_of_another_task_stay(base: Base) -> None:
    landing = base.landing()
    put(landing, "c1", "a", verdict=Verdicts.PARTIAL_BY_POLICY, complete=False, owner=Owner("dag", "other"))
    landing.drop_early(draft("c2"))
    assert base.keys("__early") == ["a"]


def test_a_person_accepts_a_rejected_window_and_its_rows_move(base: Base) -> None:
    landing = base.landing()
    put(landing, "c1", "a", "b", verdict=Verdicts.REJECTED)
    accepted = landing.accept("w", reason="good enough", who="ada", now=NOW)
    assert accepted.acceptance is not None
    assert (accepted.acceptance.by, accepted.passes) == ("ada", True)
    assert (keys_of(landing), base.keys("__rejected")) == (["a", "b"], [])
    with pytest.raises(Unusable, match="no rejected commit"):
        landing.accept("w", reason="again", who="ada", now=NOW)
    put(landing, "c2", "c", verdict=Verdicts.REJECTED)
    put(landing, "c3", "d", committed_at=NOW + timedelta(hours=1))
    with pytest.raises(Unusable, match="a later commit"):
        landing.accept("w", reason="late", who="ada", now=NOW)
    assert keys_of(landing) == ["d"]


def test_a_commit_is_not_lost_that_comes_while_a_person_accepts_the_one_before(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    landing = base.landing()
    put(landing, "c1", "a", verdict=Verdicts.REJECTED)
    prepare = Tables.prepare

    def prepare_and_accept(tables: Tables, *about: Any) -> None:
        prepare(tables, *about)
        base.landing().accept("w", reason="good enough", who="ada", now=NOW)

    monkeypatch.setattr(Tables, "prepare", prepare_and_accept)
    second = put(landing, "c2", "b", "c", verdict=Verdicts.REJECTED)
    assert landing.manifest("w", rejected=True) == second
    assert (base.keys(), base.keys("__rejected")) == (["a"], ["b", "c"])


def test_a_window_whose_row_to_lock_is_gone_is_not_committed_unlocked(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    landing = base.landing()
    put(landing, "c1", "a")
    prepare = Tables.prepare

    def prepare_and_delete(tables: Tables, *about: Any) -> None:
        prepare(tables, *about)
        base.run(f"DELETE FROM {base.schema + '.' if base.schema else ''}notes__commits")

    with monkeypatch.context() as patched:
        patched.setattr(Tables, "prepare", prepare_and_delete)
        with pytest.raises(StoreUnwritable, match="somebody deleted the row of window w"):
            put(landing, "c2", "b")
    assert base.keys() == ["a"]
    put(landing, "c2", "b")
    assert keys_of(landing) == base.keys() == ["b"]


def test_another_task_and_an_older_generation_are_refused_and_change_nothing(base: Base) -> None:
    landing = base.landing()
    put(landing, "c1", "a", origins=(origin(2),))
    with pytest.raises(NotOwner):
        put(landing, "c2", "b", owner=Owner("dag", "other"))
    with pytest.raises(NotOwner):
        put(landing, "c2", "b", origins=(origin(1),))
    with pytest.raises(NotOwner):
        put(landing, "c2", "b", owner=Owner("dag", "other"), verdict=Verdicts.REJECTED)
    assert keys_of(landing) == base.keys() == ["a"]


def test_parts_of_a_window_come_one_by_one_and_are_read_when_all_are_there(base: Base) -> None:
    landing = base.landing()
    put(landing, "c1", "a", "same", part="eu", owner=Owner("dag", "eu"))
    with pytest.raises(WindowNotLanded, match="part us: nothing was committed"):
        keys_of(landing, parts=("eu", "us"))
    put(landing, "c2", "b", "same", part="us", owner=Owner("dag", "us"))
    assert keys_of(landing, parts=("eu", "us")) == ["a", "same", "b", "same"]
    put(landing, "c3", "c", part="eu", owner=Owner("dag", "eu"))
    assert keys_of(landing, parts=("eu", "us")) == ["c", "b", "same"]
    with pytest.raises(NotOwner):
        put(landing, "c4", "d", part="eu", owner=Owner("dag", "us"))
    with pytest.raises(NotOwner, match="the tasks of its parts"):
        put(landing, "c4", "d")


def test_a_part_is_refused_where_the_window_was_landed_whole(base: Base) -> None:
    landing = base.landing()
    put(landing, "c1", "a")
    with pytest.raises(NotOwner, match="landed it whole"):
        put(landing, "c2", "b", part="eu")
    assert keys_of(landing, parts=("eu", "us")) == ["a"]


VALUE = {"deep": [1, 2.5, None, 'q"\\u0000 \\ \t\n'], "nul": "a\0b", "big": 2**53}
CELLS: dict[str, Any] = {
    "key": "k\\1\t", "outcome": "answer", "text": "line\nof \\N and \\. and % ? 'é\0'\r", "value": VALUE, "extra": [],
    "error": "", "code": -7, "tokens_total": 2**40, "cost_usd": Decimal("0.000000000375"), "round": 0,
}  # fmt: skip


def test_every_value_comes_back_as_it_was_but_for_the_character_0(base: Base) -> None:
    landing = base.landing()
    cells = (*(CELLS.get(column.name) for column in COLUMNS), "µ\\", None)
    landing.commit(draft("c1", "k"), lambda: Given([cells], "region %", 'we"ird'), Noted())
    [found] = landing.rows("w")
    wanted = {column.name: CELLS.get(column.name) for column in COLUMNS} | {"region %": "µ\\", 'we"ird': None}
    wanted["text"] = CELLS["text"].replace("\0", "\ufffd")
    wanted["value"] = VALUE | {"nul": "a\ufffdb"}
    assert found == wanted
    assert list(found) == [*(column.name for column in COLUMNS), "region %", 'we"ird']


def test_a_character_0_in_a_name_keeps_no_window_from_landing(base: Base) -> None:
    landing = base.landing()
    job = JobRef(name="batches/1", shard="s", rows=1, state="FAILED", error="a\0b")
    made = draft("c1", "a", jobs=(job,))
    landing.commit(made, lambda: Given([(*row("a"), "eu")], "re\0gion"), Noted())
    [found] = landing.rows("w")
    assert (found["key"], found["re\ufffdgion"]) == ("a", "eu")


def test_what_the_database_cannot_take_is_told_without_a_word_of_the_row(base: Base) -> None:
    class Typed(Given):
        def __init__(self, kind: str, *rows: Row) -> None:
            self.columns, self._rows = (*COLUMNS, Column("value_score", kind)), rows  # type: ignore[assignment]

    if base.kind == "sqlite":  # which takes any value anywhere, and keys of any length
        return
    landing = base.landing()
    landing.commit(draft("c1", "a"), lambda: Typed("int64", (*row("a"), 1)), Noted())
    with pytest.raises(StoreUnwritable, match="has another type than what lands now") as caught:
        landing.commit(draft("c2", "a"), lambda: Typed("float64", (*row("a"), 0.5)), Noted())
    assert "0.5" not in str(caught.value)
    key = "".join(chr(0x4E00 + at * 7919 % 20_000) for at in range(3_000))
    with pytest.raises(StoreUnwritable, match="longer than the database takes"):
        put(landing, "c3", key)
    assert [found["value_score"] for found in landing.rows("w")] == [1]


def test_typed_columns_keep_their_types_and_what_has_none_lands_as_json(base: Base) -> None:
    class Typed(Given):
        columns = (  # type: ignore[assignment]
            *COLUMNS, Column("score", "float64"), Column("sure", "bool"), Column("at", "timestamp"), Column("tags", "list"),
        )  # fmt: skip

        def __init__(self, rows: Sequence[Row]) -> None:
            self._rows = rows

    landing = base.landing()
    rows = [(*row("a"), 0.1, True, NOW, ["x", {"y": 1}]), (*row("b"), None, False, None, None)]
    landing.commit(draft("c1", "a", "b"), lambda: Typed(rows), Noted())
    found = [[each[name] for name in ("score", "sure", "at", "tags")] for each in landing.rows("w")]
    assert found == [[0.1, True, NOW, ["x", {"y": 1}]], [None, False, None, None]]


def test_a_commit_that_finds_its_tables_asks_for_few_connections(base: Base) -> None:
    asked: list[int] = []

    def connect() -> Any:
        asked.append(1)
        return base.connect()

    put(base.landing(), "c1", "a")
    put(base.landing(connect), "c2", "b")
    assert len(asked) <= 6


def test_a_column_that_comes_later_is_added_and_old_windows_stay_readable(base: Base) -> None:
    landing = base.landing()
    put(landing, "c0", "z", window="v")
    cells = (*row("a"), "eu", "7")
    landing.commit(draft("c1", "a"), lambda: Given([cells], "region", "Text"), Noted())
    [found] = landing.rows("w")
    assert (found["region"], found["Text"], found["text"]) == ("eu", "7", None)
    [old] = landing.rows("v")
    assert "region" not in old
    assert base.query("SELECT key, region FROM {}notes ORDER BY key") == [("a", "eu"), ("z", None)]


def test_rows_are_streamed_in_their_order(base: Base) -> None:
    landing = base.landing()
    names = [f"k{number}" for number in range(5_000, 0, -1)]
    put(landing, "c1", *names)
    assert keys_of(landing) == names


def test_a_row_that_somebody_deleted_is_an_error_and_never_fewer_rows(base: Base) -> None:
    landing = base.landing()
    put(landing, "c1", "a", "b")
    base.run(f"DELETE FROM {base.schema + '.' if base.schema else ''}notes WHERE key = 'b'")
    with pytest.raises(StoreUnreadable, match="has 1 rows where its commit counts 2"):
        keys_of(landing)


def test_fewer_rows_than_are_sealed_are_no_commit(base: Base) -> None:
    landing = base.landing()
    with pytest.raises(ResultsBroken):
        landing.commit(draft("c1", "a", "b"), lambda: Given([row("a")]), Noted())
    assert (landing.manifest("w"), base.keys()) == (None, [])


def test_two_rows_of_one_key_are_told_and_the_old_window_stays(base: Base) -> None:
    landing = base.landing()
    put(landing, "c1", "a")
    with pytest.raises(Unusable, match="the same key") as caught:
        put(landing, "c2", "secret-key", "secret-key")
    assert "secret-key" not in str(caught.value)
    assert keys_of(landing) == ["a"]


def test_what_fails_while_rows_come_leaves_the_old_window_and_is_the_error_it_was(base: Base) -> None:
    class Torn(Given):
        def __iter__(self) -> Iterator[Row]:
            yield row("x")
            raise StoreUnreadable("/w/keys", "the network is down")

    landing = base.landing()
    put(landing, "c1", "a")
    with pytest.raises(StoreUnreadable, match="the network is down"):
        landing.commit(draft("c2", "x", "y"), lambda: Torn([]), Noted())
    assert keys_of(landing) == base.keys() == ["a"]


def test_an_error_of_the_database_quotes_no_row(base: Base) -> None:
    landing = base.landing()
    put(landing, "c1", "a")
    bad = list(row("b"))
    bad[[column.name for column in COLUMNS].index("code")] = "an answer that is no number"
    if base.kind == "sqlite":  # which takes any value anywhere; a list it does not
        bad[2] = ["an answer that is no text"]
        with pytest.raises(AttributeError):
            landing.commit(draft("c2", "b"), lambda: Given([tuple(bad)]), Noted())
        return
    with pytest.raises(StoreUnwritable) as caught:
        landing.commit(draft("c2", "b"), lambda: Given([tuple(bad)]), Noted())
    assert "22P02" in str(caught.value)
    assert "an answer" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert keys_of(landing) == ["a"]


def test_a_database_that_is_away_is_unreadable_and_never_empty(base: Base) -> None:
    def away() -> Any:
        raise psycopg_error("no route to db-host as user blaise")

    landing = base.landing(away)
    with pytest.raises(StoreUnreadable, match="OperationalError") as caught:
        landing.manifest("w")
    assert "blaise" not in str(caught.value)


def psycopg_error(text: str) -> Exception:
    import psycopg

    return psycopg.OperationalError(text)


def test_a_table_that_may_not_be_read_is_not_taken_for_an_absent_one(base: Base) -> None:
    if base.kind == "sqlite":  # which has no users
        base.run("CREATE TABLE notes__commits (other TEXT)")
    else:
        put(base.landing(), "c1", "a")
        base.run(f"DROP ROLE IF EXISTS stranger_{base.schema}")
        base.run(f"CREATE ROLE stranger_{base.schema}")
        base.run(f"GRANT USAGE ON SCHEMA {base.schema} TO stranger_{base.schema}")

    def stranger() -> Any:
        connection = base.connect()
        if base.kind != "sqlite":
            connection.cursor().execute(f"SET ROLE stranger_{base.schema}")
        return connection

    with pytest.raises(StoreUnreadable):
        base.landing(stranger).manifest("w")


def test_tables_that_were_made_by_others_need_no_right_to_make_any(base: Base) -> None:
    if base.kind == "sqlite":
        put(base.landing(), "c0", "z", window="v")
        landing = base.landing()
    else:
        put(base.landing(), "c0", "z", window="v")
        role = f"writer_{base.schema}"
        base.run(f"CREATE ROLE {role}")
        base.run(f"GRANT USAGE ON SCHEMA {base.schema} TO {role}")
        base.run(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {base.schema} TO {role}")

        def writer() -> Any:
            connection = base.connect()
            connection.cursor().execute(f"SET ROLE {role}")
            return connection

        landing = base.landing(writer)
    put(landing, "c1", "a")
    assert keys_of(landing) == ["a"]


def test_a_commit_waits_for_the_one_at_work_and_says_so_when_that_takes_too_long(base: Base) -> None:
    landing = base.landing()
    put(landing, "c1", "a")
    with landing.tables.database.writing() as session:
        landing.tables.lock(session, "w", "")
        with pytest.raises(StoreUnwritable, match="another commit"):
            put(landing, "c2", "b")
    put(landing, "c3", "c")
    assert keys_of(landing) == ["c"]


@pytest.mark.parametrize("first", [0, 1])
def test_of_two_commits_of_one_window_at_the_same_time_one_stands_whole(base: Base, first: int) -> None:
    """Each holds its rows back until both have begun; both must end, and no mixture may be seen at any time."""
    drafts = [draft("c1", "a1", "a2", "a3", origins=(origin(1),)), draft("c2", "b1", "b2", origins=(origin(2),))]
    names = [["a1", "a2", "a3"], ["b1", "b2"]]
    begun = [threading.Event(), threading.Event()]
    ended: dict[int, BaseException | CommitManifest] = {}
    put(base.landing(lock_seconds=30), "c0", "old", origins=(origin(0),))

    def commit(which: int) -> None:
        class Slow(Given):
            def __iter__(self) -> Iterator[Row]:
                begun[which].set()
                begun[1 - which].wait(0.3)
                yield from self._rows

        landing = base.landing(lock_seconds=30)
        for _ in range(100):
            try:
                ended[which] = landing.commit(drafts[which], lambda: Slow([row(key) for key in names[which]]), Noted())
                return
            except StoreUnwritable:  # SQLite waits 0.2 s for its one lock; Airflow would retry
                continue
            except NotOwner as error:
                ended[which] = error
                return

    threads = [threading.Thread(target=commit, args=(which,)) for which in (first, 1 - first)]
    for thread in threads:
        thread.start()
    seen = set()
    while any(thread.is_alive() for thread in threads):
        seen.add(tuple(base.keys()))
    for thread in threads:
        thread.join()
    assert seen <= {("old",), ("a1", "a2", "a3"), ("b1", "b2")}
    # The newer generation wins whoever comes first; the older one had its turn before it, or was refused.
    assert base.keys() == ["b1", "b2"]
    assert isinstance(ended[1], CommitManifest)
    assert isinstance(ended[0], CommitManifest | NotOwner)


def test_two_parts_are_committed_at_the_same_time_without_waiting_for_each_other(postgres_base: Base) -> None:
    landing = postgres_base.landing()
    put(landing, "c0", "x", part="us")
    with landing.tables.database.writing() as session:
        landing.tables.lock(session, "w", "us")
        put(landing, "c1", "a", part="eu")
        put(landing, "c2", "b", window="v")
    assert keys_of(landing, parts=("eu", "us")) == ["a", "x"]


def test_tables_may_be_made_by_several_tasks_at_the_same_moment(base: Base) -> None:
    errors: list[BaseException] = []

    def commit(number: int) -> None:
        landing = base.landing(lock_seconds=30)
        for _ in range(100):
            try:
                put(landing, f"c{number}", f"k{number}", window=f"w{number}")
                return
            except StoreUnwritable as error:
                if base.kind != "sqlite":
                    errors.append(error)
                    return

    threads = [threading.Thread(target=commit, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert base.landing().windows() == [f"w{number}" for number in range(6)]


@pytest.mark.parametrize(
    "uri",
    [
        "sql://@/t",
        "sql://c/t",
        "sql://c@/",
        "sql://c@/a.b.c",
        "sql://c@/t;drop",
        'sql://c@/"t"',
        "sql://c:pw@/t",
        "sql://c@/t?x=1",
    ],
)
def test_a_uri_that_names_no_table_is_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(Unusable) as caught:
        table_of(uri)
    assert "pw" not in str(caught.value)


def test_a_uri_names_a_connection_a_schema_and_a_table() -> None:
    assert table_of("sql://warehouse@/analytics.annotations") == ("warehouse", "analytics", "annotations")
    assert table_of("sql://warehouse@db-1.eu/annotations") == ("warehouse", "", "annotations")


@given(st.lists(st.text(min_size=1, max_size=90), max_size=6, unique=True))
def test_no_two_columns_of_a_table_have_names_that_a_database_takes_for_one(users: list[str]) -> None:
    columns = [*COLUMNS, *(Column(name, "string") for name in users if name not in {own.name for own in COLUMNS})]
    names = sql_names(columns, ["landed_window"])
    assert len({name.casefold() for name in names} | {"landed_window"}) == len(names) + 1
    assert names[:PLAIN] == [column.name for column in COLUMNS]
    assert all(0 < len(name.encode()) <= 63 and "\0" not in name for name in names)


@given(st.lists(st.tuples(st.none() | st.text(st.characters(exclude_categories=["Cs"]))), min_size=1))
def test_copied_text_has_one_line_per_row_whatever_it_holds(rows: list[tuple[str | None]]) -> None:
    lines = b"".join(copy_chunks(rows)).decode().split("\n")
    assert len(lines) == len(rows) + 1
    unescaped = {"\\\\": "\\", "\\t": "\t", "\\n": "\n", "\\r": "\r"}

    def back(line: str) -> str | None:
        if line == "\\N":
            return None
        out, at = "", 0
        while at < len(line):
            two = line[at : at + 2]
            out, at = (out + unescaped[two], at + 2) if two in unescaped else (out + line[at], at + 1)
        return out

    assert [back(line) for line in lines[:-1]] == [cell for (cell,) in rows]


def test_a_database_that_is_neither_gets_ansi_types_and_plain_inserts(sqlite_base: Base) -> None:
    # SQLite stands for it: it takes any name of a type.
    inner = sqlite_base.landing().tables
    plain = Database(inner.database.uri, inner.database.connect, WORDS[""], "?")
    landing = SqlLanding(Tables(plain, inner.name))
    put(landing, "c1", "a", "b")
    put(landing, "c2", "b")
    assert keys_of(landing) == ["b"]


def test_vectors_come_back_as_lists_of_numbers(base: Base) -> None:
    landing = base.landing()
    rows = Given([(*row("a"), [0.5, -0.25]), (*row("b"), None)])
    rows.columns = (*COLUMNS, Column(VECTOR_COLUMN, vector_kind(2)))

    landing.commit(draft("c1", "a", "b"), lambda: rows, Noted())

    assert [found["embedding"] for found in landing.rows("w")] == [[0.5, -0.25], None]
