"""`geminibatch accept` at the command line."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from airflow_provider_geminibatch.cli.main import main
from airflow_provider_geminibatch.core.verdict import Verdicts
from airflow_provider_geminibatch.storage.landings import commit, read_manifest
from airflow_provider_geminibatch.storage.sql_landing import SqlLanding
from airflow_provider_geminibatch.storage.sql_session import Database
from airflow_provider_geminibatch.storage.sql_tables import TableName, Tables
from airflow_provider_geminibatch.storage.sql_words import WORDS
from airflow_provider_geminibatch.storage.stores import LocalStore
from tests.storage.test_landings import keys_of, written
from tests.storage.test_sql_landing import put


def test_a_rejected_window_is_accepted_with_a_name_and_a_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = LocalStore(str(tmp_path))
    commit(store, written(store, "c1", "a", verdict=Verdicts.REJECTED))
    assert main(["accept", str(tmp_path), "w", "--reason", "two rows are enough", "--who", "ada"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{tmp_path}/window=w is accepted by ada: 1 answered.\n")
    manifest = read_manifest(store, "w")
    assert manifest is not None
    assert manifest.acceptance is not None
    assert manifest.acceptance.reason == "two rows are enough"
    assert keys_of(store) == ["a"]


def test_nothing_to_accept_is_one_sentence_and_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["accept", f"file://{tmp_path}", "w", "--reason", "why not"]) == 1
    assert "no rejected commit lies there" in capsys.readouterr().err


def test_a_reason_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["accept", str(tmp_path), "w"])


def test_one_part_of_a_window_is_accepted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = LocalStore(str(tmp_path))
    for part in ("eu", "us"):
        commit(store, written(store, f"c-{part}", "a", verdict=Verdicts.REJECTED, part=part))
    assert main(["accept", str(tmp_path), "w", "--part", "eu", "--reason", "enough", "--who", "ada"]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path}/window=w/part=eu is accepted by ada")
    assert read_manifest(store, "w", part="eu") is not None
    assert read_manifest(store, "w", part="us") is None
    assert read_manifest(store, "w", part="us", rejected=True) is not None


def in_sqlite(path: Path) -> SqlLanding:
    words = WORDS["sqlite"]
    database = Database("sql://db@/notes", lambda: sqlite3.connect(path), words, "?")
    return SqlLanding(Tables(database, TableName("db", "", "notes")))


@pytest.mark.parametrize("form", ["json", "uri"])
def test_a_window_in_a_table_is_accepted_by_the_connection_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows.db"
    put(in_sqlite(path), "c1", "a", verdict=Verdicts.REJECTED)
    said = f"sqlite:///{path}" if form == "uri" else json.dumps({"conn_type": "sqlite", "host": str(path)})
    monkeypatch.setenv("AIRFLOW_CONN_DB", said)
    assert main(["accept", "sql://db@/notes", "w", "--reason", "enough", "--who", "ada"]) == 0
    assert "is accepted by ada" in capsys.readouterr().out
    assert [row["key"] for row in in_sqlite(path).rows("w")] == ["a"]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "Set AIRFLOW_CONN_DB"),
        ("{not json", "neither JSON nor a URI"),
        ('{"conn_type": "mysql", "password": "pw"}', "PostgreSQL and SQLite only"),
        ('{"conn_type": "sqlite", "password": "pw"}', "names no file of SQLite"),
    ],
)
def test_a_connection_that_cannot_be_used_is_named_without_its_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], value: str | None, told: str
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_DB", raising=False)
    if value is not None:
        monkeypatch.setenv("AIRFLOW_CONN_DB", value)
    assert main(["accept", "sql://db@/notes", "w", "--reason", "enough"]) == 1
    error = capsys.readouterr().err
    assert told in error
    assert "pw" not in error


@pytest.mark.parametrize("form", ["json", "uri"])
def test_a_window_in_postgresql_is_found_by_the_connection_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    asked: list[dict[str, object]] = []

    def connect(**arguments: object) -> object:
        asked.append(arguments)
        raise sqlite3.OperationalError("nobody is there")

    monkeypatch.setattr("psycopg.connect", connect)
    fields = {"host": "db", "login": "ada", "password": "p/w", "schema": "main", "port": 5433}
    said = {
        "json": json.dumps({"conn_type": "postgres", **fields, "extra": {"sslmode": "require", "other": "x"}}),
        "uri": "postgres://ada:p%2Fw@db:5433/main?sslmode=require&other=x",
    }
    monkeypatch.setenv("AIRFLOW_CONN_DB", said[form])
    assert main(["accept", "sql://db@/notes", "w", "--reason", "enough"]) == 1
    wanted = {"host": "db", "user": "ada", "password": "p/w", "dbname": "main", "port": 5433, "sslmode": "require"}
    assert asked == [wanted]
