"""A landing in BigQuery: rows are loaded into a table of their own, and one transaction of several statements commits them.

    annotations             rows of complete and accepted windows: what people read
    annotations__rejected   rows outside their thresholds            annotations__early   rows before a window is complete
    annotations__commits    one row per place, window and part: the manifest
    annotations__load_<id>  rows on their way, of one try of one commit; gone after it, or by itself

BigQuery has no locks: a transaction says what it believes of the window, and does nothing where that is not so any more.
"""

# ruff: noqa: S608 - names are checked by ``table_of`` or are our own, and values go by parameters only

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, BinaryIO, NamedTuple, Self
from uuid import uuid4

import msgspec

from airflow_provider_geminibatch.core.bigquery import Column, TableName
from airflow_provider_geminibatch.core.errors import ResultsBroken, StoreUnreadable, StoreUnwritable, Unusable
from airflow_provider_geminibatch.core.landing import (
    Acceptance,
    CommitManifest,
    refuse_mixture,
    refuse_replacement,
    same_commit,
)
from airflow_provider_geminibatch.core.model import ServiceIdentity
from airflow_provider_geminibatch.core.names import short
from airflow_provider_geminibatch.gemini.bigquery import QueryFailed, Tables
from airflow_provider_geminibatch.jobs.wait import pause_until, utc_now
from airflow_provider_geminibatch.storage.landing_store import Notes, Rows, as_accepted, readable_view
from airflow_provider_geminibatch.storage.sql_tables import ACCEPTED, EARLY, REJECTED, Landed, place_of
from airflow_provider_geminibatch.storage.sql_words import WORDS as _WORDS
from airflow_provider_geminibatch.storage.sql_words import decoders, encoders, json_text, kind_of, sql_names

WORDS = _WORDS[""]._replace(
    types={
        "name": "STRING", "string": "STRING", "json": "JSON", "int64": "INTEGER", "decimal": "BIGNUMERIC",
        "float64": "FLOAT", "bool": "BOOLEAN", "timestamp": "TIMESTAMP",
    }
)  # fmt: skip
KEEP_LOAD = timedelta(days=1)
_LOOKS = 3
"""How often a commit begins anew when another one of the landing got in between."""

_SUFFIXES = {ACCEPTED: "", REJECTED: "__rejected", EARLY: "__early"}
_OWN = (Column("landed_window", "STRING"), Column("landed_part", "STRING"), Column("landed_row", "INTEGER"))
_COMMITS = tuple(
    Column(name, "INTEGER" if name == "row_count" else "STRING")
    for name in (
        "place", "landed_window", "landed_part", "commit_id", "verdict", "row_count", "committed_at", "owner", "columns",
        "manifest",
    )
)  # fmt: skip
_HERE = "landed_window = @window AND landed_part = @part"
_encode = msgspec.json.Encoder(decimal_format="string").encode

Door = Callable[[], AbstractContextManager[tuple[Tables, ServiceIdentity]]]


class Entry(NamedTuple):
    """A row of the table of commits."""

    place: str
    part: str
    columns: tuple[Landed, ...]
    manifest: CommitManifest
    text: str


@dataclass(frozen=True)
class BigQueryLanding:
    """A landing in tables of BigQuery. ``pause`` waits so many seconds; ``token`` tells one try from another."""

    uri: str
    name: TableName
    door: Door
    now: Callable[[], datetime]
    pause: Callable[[float], object]
    token: Callable[[], str]

    def table(self, suffix: str) -> TableName:
        """The table of rows, or one that belongs to it."""
        return self.name._replace(name=f"{self.name.name}{suffix}")

    @property
    def commits_table(self) -> TableName:
        """The table of commits."""
        return self.table("__commits")

    def manifest(
        self, window: str, *, part: str = "", rejected: bool = False, early: bool = False
    ) -> CommitManifest | None:
        with self._at() as at:
            return _of(at.entries(window), EARLY if early else REJECTED if rejected else ACCEPTED, part)

    def commit(self, draft: CommitManifest, rows: Callable[[], Rows], notes: Notes) -> CommitManifest:
        """Load the rows, then one transaction: what is believed, the old rows away, the new ones in, the manifest."""
        with self._at() as at:
            standing = _allowed(at.entries(draft.window), draft)
            if standing is not None and same_commit(standing, draft):
                return standing
            if notes.written() is None:
                notes.write(draft)
            load = self.table(f"__load_{short(draft.window, draft.part, draft.commit, self.token(), length=20)}")
            columns = at.loaded(load, draft, rows())
            at.make_tables(columns)
            for look in range(_LOOKS):
                entries = at.entries(draft.window)
                standing = _allowed(entries, draft)
                if standing is not None and same_commit(standing, draft):
                    break
                if at.replaced(load, draft, columns, entries, look):
                    standing = draft
                    break
            else:
                raise StoreUnwritable(
                    self.uri, f"other commits of window {draft.window} got in between, {_LOOKS} times"
                )
            at.tables.delete(load)
            assert standing is not None
            return standing

    def attach(self, manifest: CommitManifest, report: bytes) -> None:
        """A table has no place for it; it is in the ledger."""

    def report(self, manifest: CommitManifest) -> bytes | None:
        return None

    def drop_early(self, final: CommitManifest, *, sweep: bool = False) -> None:
        """Delete the rows that were committed early, unless another task did."""
        with self._at() as at:
            entries = at.entries(final.window)
            early = _of(entries, EARLY, final.part)
            if early is None or early.owner != final.owner:
                return
            statements = (
                f"DELETE FROM {self.table('__early').sql} WHERE {_HERE};\n"
                f"DELETE FROM {self.commits_table.sql} WHERE place = '{EARLY}' AND {_HERE};"
            )
            at.transaction(statements, final, entries, f"drop early {early.commit}")

    def open_media(self, window: str, path: str, *, parts: Sequence[str] = ()) -> BinaryIO:
        """Tables have no files."""
        raise Unusable(
            f"path={path!r}", f"{self.uri} is a table", "Decode data: in tables it stays in extra.inlineData."
        )

    def windows(self) -> list[str]:
        with self._at() as at:
            return sorted({entry.manifest.window for entry in at.entries() if entry.place == ACCEPTED})

    def commits(self) -> Iterator[CommitManifest]:
        with self._at() as at:
            yield from (entry.manifest for entry in at.entries())

    def accept(self, window: str, *, reason: str, who: str, now: datetime, part: str = "") -> CommitManifest:
        """Take a rejected commit after all, in one transaction. Raises Unusable and NotOwner, as for files."""
        with self._at() as at:
            entries = at.entries(window)
            rejected, standing = _of(entries, REJECTED, part), _of(entries, ACCEPTED, part)
            accepted = as_accepted(self.uri, window, rejected, standing, Acceptance(who, reason, now))
            _allowed(entries, accepted)
            columns = next(one.columns for one in entries if (one.place, one.part) == (REJECTED, part))
            names, source = _listed(columns), self.table("__rejected").sql
            statements = (
                f"DELETE FROM {self.name.sql} WHERE {_HERE};\n"
                f"INSERT INTO {self.name.sql} ({names}) SELECT {names} FROM {source} WHERE {_HERE};\n"
                f"DELETE FROM {source} WHERE {_HERE};\n"
                f"DELETE FROM {self.commits_table.sql} WHERE place IN ('{ACCEPTED}', '{REJECTED}') AND {_HERE};\n"
                f"{at.put()}"
            )
            if not at.transaction(statements, accepted, entries, f"accept {accepted.commit} {now}", columns):
                raise StoreUnwritable(self.uri, f"another commit of window {window} got in between; do it again")
            return accepted

    def rows(self, window: str, *, parts: Sequence[str] = (), any_verdict: bool = False) -> Iterator[dict[str, Any]]:
        """The rows of a window, part after part, each whole. Raises WindowNotLanded, StoreUnreadable."""
        for manifest in readable_view(self, window, parts, any_verdict).found:
            with self._at() as at:
                yield from at.rows(manifest)

    def _at(self) -> _Opened:
        return _Opened(self)


def landing_at(uri: str, table: TableName, door: Door) -> BigQueryLanding:
    """The landing in a table, with the clock of this process."""

    def pause(seconds: float) -> None:
        pause_until(utc_now() + timedelta(seconds=seconds))

    return BigQueryLanding(uri, table, door, utc_now, pause, lambda: uuid4().hex)


class _Opened:
    """The landing with its door open."""

    def __init__(self, landing: BigQueryLanding) -> None:
        self._landing, self._stack = landing, ExitStack()

    def __enter__(self) -> Self:
        self.tables, service = self._stack.enter_context(self._landing.door())
        place = self.tables.location(self._landing.name.within)
        if place is None:
            self._stack.close()
            raise StoreUnreadable(self._landing.uri, f"the data set {self._landing.name.within} is not there")
        self._project, self._place = service.project, place
        return self

    def __exit__(self, *details: object) -> None:
        self._stack.close()

    def _run(self, sql: str, once: str, what: str, **values: str | int | None) -> Iterator[tuple[str | None, ...]]:
        return self.tables.rows(self.tables.run(self._project, self._place, sql, once=once, what=what, values=values))

    def entries(self, window: str | None = None) -> list[Entry]:
        """The commits of a window, or of all; none where there is no table yet."""
        commits = self._landing.commits_table
        if self.tables.table(commits) is None:
            return []
        here = " WHERE landed_window = @window" if window is not None else ""
        sql = f"SELECT place, landed_part, columns, manifest FROM {commits.sql}{here} ORDER BY landed_window, landed_part, place"
        values = {} if window is None else {"window": window}
        found = self._run(sql, f"{sql} {self._fresh()}", f"commits of {self._landing.name}", **values)
        try:
            return [
                Entry(
                    str(place), part or "", msgspec.json.decode(columns or "", type=tuple[Landed, ...]),
                    msgspec.json.decode(manifest or "", type=CommitManifest), manifest or "",
                )
                for place, part, columns, manifest in found
            ]  # fmt: skip
        except msgspec.MsgspecError as error:
            raise StoreUnreadable(self._landing.uri, f"one of its manifests is not one ({error})") from None

    def _fresh(self) -> str:
        # What is read must be what is there now: a job of the same name would give its old result.
        return f"{self._landing.token()} {self._landing.now().isoformat()} {id(self)}"

    def loaded(self, load: TableName, draft: CommitManifest, rows: Rows) -> tuple[Landed, ...]:
        """The rows of a commit in a table of their own; how their columns are kept."""
        plain = [one._replace(name=_plain(one.name)) for one in rows.columns]
        names = sql_names(plain, [column.name for column in _OWN])
        columns = tuple(
            Landed(one.name, name, kind_of(WORDS, one.kind)) for one, name in zip(rows.columns, names, strict=True)
        )
        encode = encoders(WORDS, ["string" if one.kind == "json" else one.kind for one in columns])
        # A type of BigQuery's own takes JSON as it is, not as text.
        encode = [_as_it_is if one.kind == "json" else each for one, each in zip(columns, encode, strict=True)]
        keys = set[bytes]()
        with tempfile.TemporaryFile() as spool:
            count = 0
            for count, row in enumerate(rows, 1):
                line = {"landed_window": draft.window, "landed_part": draft.part, "landed_row": count - 1}
                cells = zip(columns, encode, row, strict=True)
                line |= {one.sql: cell if cell is None else to_sql(cell) for one, to_sql, cell in cells}
                keys.add(hashlib.blake2b(str(row[0]).encode(), digest_size=12).digest())
                spool.write(_encode(line) + b"\n")
            if count != draft.rows:
                raise ResultsBroken(f"the rows of window {draft.label}", f"{count} came, {draft.rows} are sealed")
            if len(keys) != count:
                raise Unusable(
                    f"the rows of {draft.landing} window {draft.label}",
                    "two of them have the same key, and a table holds one row per key. The answers are paid and kept",
                    "Land the batches as parts of their own, or give them keys that differ.",
                )
            size = spool.tell()
            self.tables.load(
                self._project, self._place, load, _typed(columns), spool, size, once=load.uri, what=f"rows of {draft.label}",
                pause=self._landing.pause,
            )  # fmt: skip
        self.tables.expire(load, self._landing.now() + KEEP_LOAD)
        return columns

    def make_tables(self, columns: Sequence[Landed]) -> None:
        """Make the tables and columns that are not there."""
        self._make(self._landing.commits_table, _COMMITS)
        for suffix in _SUFFIXES.values():
            self._make(self._landing.table(suffix), _typed(columns))

    def _make(self, name: TableName, columns: Sequence[Column]) -> None:
        if self.tables.table(name) is None and self.tables.make(name, columns):
            return
        there = self.tables.table(name)
        known = {column.name.lower() for column in there.columns} if there else set()
        missing = [column for column in columns if column.name.lower() not in known]
        if there and missing:
            self.tables.reshape(name, (*there.columns, *missing))

    def replaced(
        self, load: TableName, draft: CommitManifest, columns: tuple[Landed, ...], entries: Sequence[Entry], look: int
    ) -> bool:
        """Put loaded rows and their manifest into place; False when the window is not what it was believed to be."""
        target, names, place = self._landing.table(_SUFFIXES[place_of(draft)]), _listed(columns), place_of(draft)
        statements = (
            f"DELETE FROM {target.sql} WHERE {_HERE};\n"
            f"INSERT INTO {target.sql} ({names}) SELECT {names} FROM {load.sql};\n"
            f"DELETE FROM {self._landing.commits_table.sql} WHERE place = '{place}' AND {_HERE};\n"
            f"{self.put()}"
        )
        return self.transaction(statements, draft, entries, f"{load.uri} {look}", columns)

    def put(self) -> str:
        """The statement that puts a manifest into the table of commits."""
        names = ", ".join(column.name for column in _COMMITS)
        values = ", ".join(f"@{_VALUE.get(column.name, column.name)}" for column in _COMMITS)
        return f"INSERT INTO {self._landing.commits_table.sql} ({names}) VALUES ({values});"

    def transaction(
        self,
        statements: str,
        mine: CommitManifest,
        entries: Sequence[Entry],
        once: str,
        columns: tuple[Landed, ...] = (),
    ) -> bool:
        """All statements or none, if the window's commits are the ``entries``; whether it was done."""
        believed = (
            f"ASSERT (SELECT CONCAT(CAST(COUNT(*) AS STRING), '-', CAST(IFNULL(BIT_XOR(CAST(CONCAT('0x', "
            f"SUBSTR(TO_HEX(MD5(manifest)), 1, 15)) AS INT64)), 0) AS STRING)) FROM {self._landing.commits_table.sql} "
            f"WHERE landed_window = @window) = @believed AS 'another commit of the window stands by now';"
        )
        script = f"BEGIN TRANSACTION;\n{believed}\n{statements}\nCOMMIT TRANSACTION;"
        values: dict[str, str | int | None] = {
            "window": mine.window, "part": mine.part, "believed": _belief(entries), "place": place_of(mine),
            "commit_id": mine.commit, "verdict": mine.verdict.value, "row_count": mine.rows,
            "committed_at": mine.committed_at.isoformat(), "owner": str(mine.owner), "columns": json_text(columns),
            "manifest": json_text(mine),
        }  # fmt: skip
        used = {name: value for name, value in values.items() if f"@{name}" in script}
        try:
            what = f"commit of {mine.landing} window {mine.label}"
            self.tables.run(
                self._project,
                self._place,
                script,
                once=f"{self._landing.uri} {once} {self._fresh()}",
                what=what,
                values=used,
            )
        except QueryFailed:
            # Whatever went wrong, nothing was done. What another commit did shows in what stands now.
            if _belief(self.entries(mine.window)) == values["believed"]:
                raise
            return False
        return True

    def rows(self, manifest: CommitManifest) -> Iterator[dict[str, Any]]:
        """The rows of this very commit. Raises StoreUnreadable when another one stands by now."""
        place = place_of(manifest)
        entry = next(
            (one for one in self.entries(manifest.window) if (one.place, one.part) == (place, manifest.part)), None
        )
        if entry is None or entry.manifest.commit != manifest.commit:
            raise StoreUnreadable(
                f"{self._landing.uri} window {manifest.label}", "another commit replaced it; read again"
            )
        names = ", ".join(f"r.`{column.sql}`" for column in entry.columns)
        sql = (
            f"SELECT {names} FROM {self._landing.table(_SUFFIXES[place]).sql} AS r JOIN {self._landing.commits_table.sql} AS c "
            "ON c.landed_window = r.landed_window AND c.landed_part = r.landed_part "
            f"WHERE c.place = '{place}' AND c.landed_window = @window AND c.landed_part = @part AND c.commit_id = @commit_id "
            "ORDER BY r.landed_row"
        )
        found = self._run(
            sql, f"{sql} {self._fresh()}", f"rows of {manifest.label}", window=manifest.window, part=manifest.part,
            commit_id=manifest.commit,
        )  # fmt: skip
        decode, count = decoders([column.kind for column in entry.columns]), 0
        for row in found:
            count += 1
            cells = zip(entry.columns, decode, row, strict=True)
            yield {column.name: convert(_cell(cell, column.kind)) for column, convert, cell in cells}
        if count != manifest.rows:
            why = f"its table has {count} rows where its commit counts {manifest.rows}"
            raise StoreUnreadable(f"{self._landing.uri} window {manifest.label}", why)


_VALUE = {"landed_window": "window", "landed_part": "part"}


# Letters, digits and underscores (BigQuery's older rule, which every reader takes), and no prefix that is its own.
_OTHER = re.compile(r"\W", re.ASCII)
_TAKEN = re.compile(r"\d|_TABLE_|_FILE_|_PARTITION|_ROW_TIMESTAMP|__ROOT__|_COLIDENTIFIER", re.IGNORECASE)


def _plain(name: str) -> str:
    """A column's name as BigQuery takes it. What the source calls it stays what readers of the landing see."""
    plain = _OTHER.sub("_", name)
    return f"c_{plain}" if _TAKEN.match(plain) else plain


def _as_it_is(value: Any) -> Any:
    """JSON as a value, without the character 0, which not every reader of a JSON column takes."""
    return msgspec.Raw(json_text(value).encode())


def _cell(value: str | None, kind: str) -> Any:
    """A cell of the wire's text, as the decoders take it."""
    return value == "true" if kind == "bool" and value is not None else value


def _typed(columns: Sequence[Landed]) -> tuple[Column, ...]:
    return (*_OWN, *(Column(one.sql, WORDS.types[one.kind]) for one in columns))


def _listed(columns: Sequence[Landed]) -> str:
    return ", ".join(f"`{name}`" for name in (*(own.name for own in _OWN), *(one.sql for one in columns)))


def _of(entries: Sequence[Entry], place: str, part: str) -> CommitManifest | None:
    return next((one.manifest for one in entries if (one.place, one.part) == (place, part)), None)


def _belief(entries: Sequence[Entry]) -> str:
    """What stands for the commits of a window: how many, and a digest of their manifests."""
    mixed = 0
    for entry in entries:
        mixed ^= int(hashlib.md5(entry.text.encode(), usedforsecurity=False).hexdigest()[:15], 16)
    return f"{len(entries)}-{mixed}"


def _allowed(entries: Sequence[Entry], mine: CommitManifest) -> CommitManifest | None:
    """What stands in the place of ``mine``. Raises NotOwner when ``mine`` may not stand there."""
    accepted = _of(entries, ACCEPTED, mine.part)
    refuse_replacement(accepted, mine)
    if mine.part:
        refuse_mixture(_of(entries, ACCEPTED, ""), (), mine)
    else:
        refuse_mixture(None, [one.part for one in entries if one.place == ACCEPTED and one.part], mine)
    if place_of(mine) == ACCEPTED:
        return accepted
    standing = _of(entries, place_of(mine), mine.part)
    refuse_replacement(standing, mine)
    return standing


__all__ = ["BigQueryLanding", "landing_at"]
