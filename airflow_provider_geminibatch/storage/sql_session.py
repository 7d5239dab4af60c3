"""A database through DB-API: transactions, streams and bulk inserts, and what its errors may be told as.

A driver's message may quote a row, so only its class and its code are passed on.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

from airflow_provider_geminibatch.core.errors import StoreUnreadable, StoreUnwritable
from airflow_provider_geminibatch.storage.sql_words import MARK, Words, bound, copy_chunks, quoted

FETCH_ROWS = 2_000
INSERT_ROWS = 500
"""Rows per ``executemany``: one row may be an answer of megabytes."""

LOCK_SECONDS = 600
"""How long a commit waits for another one of the same window."""

_NO_TABLE = frozenset({"42P01", "3F000", "42S02"})
_DUPLICATE = frozenset({"23505", "SQLITE_CONSTRAINT_PRIMARYKEY", "SQLITE_CONSTRAINT_UNIQUE"})
_TOLD = {
    "55P03": "another commit of this window is at work",
    "SQLITE_BUSY": "another commit is at work",
    "42501": "the user of the connection may not do that",
    "3F000": "the schema is not there",
    "3D000": "the database is not there",
    "28P01": "the password was refused",
    "53100": "the disk is full",
    "54000": "a key, or a whole row, is longer than the database takes: an index on a key holds some 2,700 bytes",
    **dict.fromkeys(
        ("22P02", "22003", "22007", "42804"),
        "a column of the table has another type than what lands now, as after a change of the response schema: alter its type, "
        "or land in another table",
    ),
}


def is_database_error(error: BaseException) -> bool:
    """Whether it comes from a driver: PEP 249 gives them a root named Error, and no class in common."""
    return any(cls.__name__ == "Error" for cls in type(error).__mro__)


def is_duplicate(error: BaseException) -> bool:
    """Whether a key stands in the table already."""
    return _code(error) in _DUPLICATE or type(error).__name__ in ("IntegrityError", "UniqueViolation")


def says_no_table(error: BaseException) -> bool:
    """Whether the table is certainly absent, which is not the same as unreadable."""
    if code := _code(error):
        return code in _NO_TABLE or (code == "SQLITE_ERROR" and "no such table" in str(error))
    return type(error).__name__ == "ProgrammingError"


def _code(error: BaseException) -> str:
    names = ("sqlstate", "pgcode", "sqlite_errorname")
    return next((str(code) for name in names if (code := getattr(error, name, None))), "")


def _why(error: BaseException) -> str:
    code = _code(error)
    told = f"{type(error).__name__}{f' {code}' if code else ''}"
    return f"{_TOLD[code]} ({told})" if code in _TOLD else f"{told}; the log of the database says more"


class Session:
    """One connection at work."""

    def __init__(self, connection: Any, words: Words, placeholder: str) -> None:
        self._connection, self._words, self._placeholder = connection, words, placeholder
        self._cursor = connection.cursor()

    def run(self, sql: str, *values: Any) -> None:
        """One statement, nothing to fetch."""
        self._execute(self._cursor, sql, values)

    def fetch(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """All rows of a small answer."""
        self._execute(self._cursor, sql, values)
        return [_plain(row) for row in self._cursor.fetchall()]

    def fetch_if_there(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """As ``fetch``; nothing where there is no table yet."""
        try:
            return self.fetch(sql, *values)
        except Exception as error:  # drivers' errors have no class in common
            if not says_no_table(error):
                raise
        # PostgreSQL takes nothing more in a transaction in which something has failed.
        self._connection.rollback()
        return []

    def columns(self, table: str) -> list[str]:
        """The names of a table's columns; none when there is no table."""
        self.fetch_if_there(f"SELECT * FROM {table} WHERE 1 = 0")
        return [described[0] for described in self._cursor.description or ()]

    def stream(self, sql: str, *values: Any) -> Iterator[tuple[Any, ...]]:
        """The rows of a big answer, some thousand at a time."""
        # Without a name PostgreSQL's drivers fetch everything at once. Others take no name.
        cursor = self._connection.cursor(name="geminibatch") if self._copies else self._connection.cursor()
        with closing(cursor):
            self._execute(cursor, sql, values)
            while rows := cursor.fetchmany(FETCH_ROWS):
                yield from map(_plain, rows)

    def insert(self, table: str, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """All rows into a table: by COPY where there is one."""
        listed = ", ".join(map(quoted, names))
        if self._copies:
            self._copy(f"COPY {table} ({listed}) FROM STDIN", copy_chunks(rows))
            return
        sql = bound(f"INSERT INTO {table} ({listed}) VALUES ({', '.join([MARK] * len(names))})", self._placeholder)
        some = iter(rows)
        while batch := list(islice(some, INSERT_ROWS)):
            self._cursor.executemany(sql, batch)

    @property
    def _copies(self) -> bool:
        """Whether it is PostgreSQL, by one of the drivers that know COPY and cursors on the server."""
        return self._words.copies and (hasattr(self._cursor, "copy_expert") or hasattr(self._cursor, "copy"))

    def _copy(self, sql: str, chunks: Iterator[bytes]) -> None:
        if not hasattr(self._cursor, "copy_expert"):  # psycopg 3
            with self._cursor.copy(sql) as copy:
                for chunk in chunks:
                    copy.write(chunk)
            return
        source = _Chunks(chunks)
        try:
            self._cursor.copy_expert(sql, source)
        finally:
            # psycopg2 makes an error of its own from what the source raises.
            if source.error is not None:
                raise source.error

    def _execute(self, cursor: Any, sql: str, values: Sequence[Any]) -> None:
        if values:
            cursor.execute(bound(sql, self._placeholder), tuple(values))
        else:
            cursor.execute(sql)


class _Chunks(io.RawIOBase):
    """Chunks as the file that psycopg2 reads from."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest = chunks, b""
        self.error: BaseException | None = None

    def read(self, size: int = -1, /) -> bytes:
        try:
            while not self._rest:
                self._rest = next(self._chunks)
        except StopIteration:
            return b""
        except BaseException as error:  # whatever it is: psycopg2 would tell of it only that reading failed
            self.error = error
            raise
        end = len(self._rest) if size < 0 else size
        part, self._rest = self._rest[:end], self._rest[end:]
        return part


def _plain(row: Any) -> tuple[Any, ...]:
    # A connection may be set up to give rows as dicts.
    return tuple(row.values()) if isinstance(row, dict) else tuple(row)


@dataclass(frozen=True)
class Database:
    """How to come to a database: ``connect`` gives a new DB-API connection, ``placeholder`` stands for a parameter."""

    uri: str
    connect: Callable[[], Any]
    words: Words
    placeholder: str
    lock_seconds: float = LOCK_SECONDS

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that changes nothing. Raises StoreUnreadable."""
        try:
            with closing(self._connected()) as connection:
                yield Session(connection, self.words, self.placeholder)
        except Exception as error:  # drivers' errors have no class in common
            if not is_database_error(error):
                raise
            raise StoreUnreadable(self.uri, _why(error)) from None

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """One transaction: all of it, or nothing at all after an exception. Raises StoreUnwritable."""
        try:
            with closing(self._connected()) as connection:
                session = Session(connection, self.words, self.placeholder)
                for statement in self.words.begin:
                    session.run(statement.format(lock_seconds=self.lock_seconds))
                yield session
                connection.commit()
        except Exception as error:  # drivers' errors have no class in common
            if not is_database_error(error):
                raise
            raise StoreUnwritable(self.uri, _why(error)) from None

    def _connected(self) -> Any:
        connection = self.connect()
        if getattr(connection, "autocommit", None) is True:
            connection.autocommit = False
        return connection


__all__ = ["Database", "Session", "is_database_error", "is_duplicate", "says_no_table"]
