"""The tables of a landing in SQL: their names, how they are made, and every statement over them.

    annotations             rows of complete and accepted windows: what people read
    annotations__rejected   rows outside their thresholds            annotations__early   rows before a window is complete
    annotations__commits    one row per place, window and part: the manifest

Names are checked and quoted here, values go by parameters only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from airflow_provider_geminibatch.core.errors import StoreUnreadable, StoreUnwritable, Unusable
from airflow_provider_geminibatch.core.landing import SQL, CommitManifest
from airflow_provider_geminibatch.storage.sinks import Column
from airflow_provider_geminibatch.storage.sql_session import Database, Session
from airflow_provider_geminibatch.storage.sql_words import MARK, json_text, kind_of, quoted, sql_names

ACCEPTED, REJECTED, EARLY = "accepted", "rejected", "early"
_SUFFIXES = {ACCEPTED: "", REJECTED: "__rejected", EARLY: "__early"}
_LOOKS = 3
"""How often tables are made that another task makes at the same moment."""

# Every table of rows begins with these.
_OWN = (Column("landed_window", "name"), Column("landed_part", "name"), Column("landed_row", "int64"))
_COMMITS = (
    Column("place", "name"), Column("landed_window", "name"), Column("landed_part", "name"),
    Column("commit_id", "string"), Column("verdict", "string"), Column("row_count", "int64"),
    Column("committed_at", "string"), Column("owner", "string"), Column("columns", "json"), Column("manifest", "json"),
    Column("turns", "int64"),
)  # fmt: skip
_LOCK = ("place", "landed_window", "landed_part", "turns")
"""What a row of it has before there is a commit: then it can be locked."""
_HERE = f"landed_window = {MARK} AND landed_part = {MARK}"


class TableName(NamedTuple):
    """What a landing's URI names: a connection, and a table in its database."""

    conn_id: str
    schema: str
    table: str

    def quoted(self, suffix: str = "") -> str:
        """The table, or one that belongs to it, in a statement."""
        name = quoted(f"{self.table}{suffix}")
        return f"{quoted(self.schema)}.{name}" if self.schema else name


_NAME = r"[A-Za-z_][A-Za-z0-9_]{0,49}"
_PATH = re.compile(rf"/(?:(?P<schema>{_NAME})\.)?(?P<table>{_NAME})")
_PLACE = re.compile(r"(?P<conn_id>[\w.\-]+)@[\w.\-]*")


def table_of(uri: str) -> TableName:
    """The parts of ``sql://conn_id@/schema.table``. Raises Unusable."""
    split = urlsplit(uri)
    path, place = _PATH.fullmatch(split.path), _PLACE.fullmatch(split.netloc)
    if split.scheme != SQL or path is None or place is None or split.query or split.fragment:
        # The text may hold a password that does not belong there.
        raise Unusable(
            "the URI of a landing in SQL",
            "it does not name a connection and a table",
            "Write sql://conn_id@/schema.table: letters, digits and underscores, 50 at most in a name.",
        )
    return TableName(place["conn_id"], path["schema"] or "", path["table"])


class Landed(msgspec.Struct, frozen=True):
    """A column as it landed: its name there, its name in the table, its kind."""

    name: str
    sql: str
    kind: str


class Entry(NamedTuple):
    """A row of the table of commits."""

    manifest: CommitManifest
    columns: tuple[Landed, ...]


def place_of(manifest: CommitManifest) -> str:
    """Which table its rows belong to."""
    return REJECTED if manifest.rejected else EARLY if manifest.early else ACCEPTED


@dataclass(frozen=True)
class Tables:
    """The tables of one landing. Whatever takes a session is one statement in its transaction."""

    database: Database
    name: TableName

    def rows(self, place: str) -> str:
        """The table of rows of a place, in a statement."""
        return self.name.quoted(_SUFFIXES[place])

    @property
    def commits(self) -> str:
        """The table of commits, in a statement."""
        return self.name.quoted("__commits")

    def entry(self, session: Session, place: str, window: str, part: str) -> Entry | None:
        """The commit of a place, None when nothing was committed there or there is no table yet."""
        sql = f"SELECT manifest, columns FROM {self.commits} WHERE place = {MARK} AND {_HERE} AND commit_id IS NOT NULL"
        for manifest, columns in session.fetch_if_there(sql, place, window, part):
            try:
                return Entry(_decoded(manifest, CommitManifest), _decoded(columns, tuple[Landed, ...]))
            except msgspec.MsgspecError as error:
                why = f"its manifest is not one ({error})"
                raise StoreUnreadable(f"{self.database.uri} window {window}", why) from None
        return None

    def accepted(self, session: Session, window: str | None = None) -> list[tuple[str, str]]:
        """The windows and parts that have an accepted commit, of one window or of all."""
        sql = f"SELECT landed_window, landed_part FROM {self.commits} WHERE place = {MARK} AND commit_id IS NOT NULL"
        if window is None:
            return [(row[0], row[1]) for row in session.fetch_if_there(sql, ACCEPTED)]
        found = session.fetch_if_there(f"{sql} AND landed_window = {MARK}", ACCEPTED, window)
        return [(row[0], row[1]) for row in found]

    def manifests(self, session: Session) -> list[CommitManifest]:
        """Every commit that stands, of all places."""
        sql = f"SELECT manifest FROM {self.commits} WHERE commit_id IS NOT NULL ORDER BY landed_window, landed_part, place"
        try:
            return [_decoded(row[0], CommitManifest) for row in session.fetch_if_there(sql)]
        except msgspec.MsgspecError as error:
            raise StoreUnreadable(self.database.uri, f"one of its manifests is not one ({error})") from None

    def lock(self, session: Session, window: str, part: str) -> None:
        """Nobody else commits this window, or this part of it, until the transaction ends."""
        # An UPDATE locks the row in every database; not all know SELECT … FOR UPDATE.
        sql = f"UPDATE {self.commits} SET turns = turns + 1 WHERE place = {MARK} AND {_HERE}"
        session.run(sql, ACCEPTED, window, part)
        if not self._has_lock(session, ACCEPTED, window, part):
            raise StoreUnwritable(self.database.uri, f"somebody deleted the row of window {window} in {self.commits}")

    def delete(self, session: Session, place: str, mine: CommitManifest) -> None:
        """The rows of a window, or of a part of it."""
        session.run(f"DELETE FROM {self.rows(place)} WHERE {_HERE}", mine.window, mine.part)

    def insert(self, session: Session, place: str, columns: Sequence[Landed], rows: Iterable[Sequence[Any]]) -> None:
        """Rows that begin with window, part and number."""
        session.insert(self.rows(place), _names(columns), rows)

    def move(self, session: Session, mine: CommitManifest, columns: Sequence[Landed]) -> None:
        """Rejected rows to the accepted ones."""
        listed, source = ", ".join(map(quoted, _names(columns))), self.rows(REJECTED)
        sql = f"INSERT INTO {self.rows(ACCEPTED)} ({listed}) SELECT {listed} FROM {source} WHERE {_HERE}"
        session.run(sql, mine.window, mine.part)
        self.delete(session, REJECTED, mine)

    def put(self, session: Session, mine: CommitManifest, columns: Sequence[Landed]) -> None:
        """The manifest, over whichever stood in its place."""
        values = {
            "commit_id": mine.commit, "verdict": mine.verdict.value, "row_count": mine.rows,
            "committed_at": mine.committed_at.isoformat(), "owner": str(mine.owner),
            "columns": json_text(columns), "manifest": json_text(mine),
        }  # fmt: skip
        assigned = ", ".join(f"{quoted(name)} = {MARK}" for name in values)
        sql = f"UPDATE {self.commits} SET {assigned} WHERE place = {MARK} AND {_HERE}"
        session.run(sql, *values.values(), place_of(mine), mine.window, mine.part)

    def forget(self, session: Session, place: str, mine: CommitManifest) -> None:
        """Take the manifest of a place away. Its row stays: who commits there next may have looked for it already."""
        told = [column.name for column in _COMMITS if column.name not in _LOCK]
        emptied = ", ".join(f"{quoted(name)} = NULL" for name in told)
        sql = f"UPDATE {self.commits} SET {emptied} WHERE place = {MARK} AND {_HERE}"
        session.run(sql, place, mine.window, mine.part)

    def stream(self, session: Session, entry: Entry) -> Iterator[tuple[Any, ...]]:
        """The rows of this very commit, or none when another one stands by now: one statement sees one state."""
        mine, place = entry.manifest, place_of(entry.manifest)
        listed = ", ".join(f"r.{quoted(column.sql)}" for column in entry.columns)
        sql = (
            f"SELECT {listed} FROM {self.rows(place)} r "
            f"JOIN {self.commits} c ON c.landed_window = r.landed_window AND c.landed_part = r.landed_part "
            f"WHERE c.place = {MARK} AND c.landed_window = {MARK} AND c.landed_part = {MARK} AND c.commit_id = {MARK} "
            "ORDER BY r.landed_row"
        )
        return session.stream(sql, place, mine.window, mine.part, mine.commit)

    def columns(self, columns: Sequence[Column]) -> tuple[Landed, ...]:
        """How the columns of a landing are named and kept here."""
        names = sql_names(columns, [column.name for column in _OWN])
        words = self.database.words
        return tuple(
            Landed(column.name, name, kind_of(words, column.kind)) for column, name in zip(columns, names, strict=True)
        )

    def prepare(self, columns: Sequence[Landed], mine: CommitManifest) -> None:
        """Make the tables, columns and lock rows that are not there, each in a transaction of its own: in some databases
        making one ends it. Another task may do the same at the same moment, and the one that is refused looks again."""
        wanted = [*_OWN, *(Column(column.sql, column.kind) for column in columns)]
        tables = [(self.rows(place), wanted, ("landed_window", "landed_part", "key")) for place in _SUFFIXES]
        tables.append((self.commits, list(_COMMITS), ("landed_window", "landed_part", "place")))
        places = dict.fromkeys((ACCEPTED, place_of(mine)))
        with self.database.reading() as session:
            if not any(self._missing(session, table, its) for table, its, _ in tables) and all(
                self._has_lock(session, place, mine.window, mine.part) for place in places
            ):
                return
        for table, its, key in tables:
            _again(partial(self._make, table, its, key))
        for place in places:
            _again(partial(self._make_lock, place, mine))

    def _missing(self, session: Session, table: str, columns: Sequence[Column]) -> list[Column]:
        """The columns that a table lacks: all of them when it is not there."""
        fold: Callable[[str], str] = str.casefold if self.database.words.folds else str
        there = {fold(name) for name in session.columns(table)}
        return [column for column in columns if fold(column.name) not in there]

    def _make(self, table: str, columns: Sequence[Column], key: Sequence[str]) -> None:
        with self.database.reading() as session:
            missing = self._missing(session, table, columns)
        if not missing:
            return
        types = self.database.words.types
        typed = [
            f"{quoted(name)} {types['name'] + ' NOT NULL' if name in key else types[kind]}" for name, kind in missing
        ]
        if len(missing) == len(columns):
            primary = f"PRIMARY KEY ({', '.join(map(quoted, key))})"
            statements = [f"CREATE TABLE IF NOT EXISTS {table} ({', '.join((*typed, primary))})"]
        else:
            statements = [f"ALTER TABLE {table} ADD COLUMN {text}" for text in typed]
        with self.database.writing() as session:
            for statement in statements:
                session.run(statement)

    def _has_lock(self, session: Session, place: str, window: str, part: str) -> bool:
        sql = f"SELECT turns FROM {self.commits} WHERE place = {MARK} AND {_HERE}"
        return bool(session.fetch(sql, place, window, part))

    def _make_lock(self, place: str, mine: CommitManifest) -> None:
        with self.database.reading() as session:
            if self._has_lock(session, place, mine.window, mine.part):
                return
        sql = f"INSERT INTO {self.commits} (place, landed_window, landed_part, turns) VALUES ({', '.join([MARK] * 4)})"
        with self.database.writing() as session:
            session.run(sql, place, mine.window, mine.part, 0)


def _again(make: Callable[[], None]) -> None:
    for _ in range(_LOOKS - 1):
        try:
            return make()
        except StoreUnwritable:
            continue
    return make()


def _names(columns: Sequence[Landed]) -> list[str]:
    return [*(column.name for column in _OWN), *(column.sql for column in columns)]


def _decoded(value: Any, kind: Any) -> Any:
    """JSON as the driver gives it, parsed already or not."""
    text = value if isinstance(value, str | bytes) else msgspec.json.encode(value)
    return msgspec.json.decode(text, type=kind)


__all__ = ["ACCEPTED", "EARLY", "REJECTED", "Entry", "Landed", "TableName", "Tables", "place_of", "table_of"]
