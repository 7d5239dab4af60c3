"""What a person accepted stays accepted, whoever landed it and wherever it lies."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from airflow_provider_geminibatch.core.batch import BatchPolicy
from airflow_provider_geminibatch.core.errors import Rejected
from airflow_provider_geminibatch.core.landing import Place
from airflow_provider_geminibatch.jobs.collect import Landed
from airflow_provider_geminibatch.storage.landings import FileLanding
from airflow_provider_geminibatch.storage.sql_landing import SqlLanding
from airflow_provider_geminibatch.storage.sql_session import Database
from airflow_provider_geminibatch.storage.sql_tables import TableName, Tables
from airflow_provider_geminibatch.storage.sql_words import WORDS
from tests.jobs import test_collect, test_whole
from tests.jobs.test_collect import BLOCKED, WINDOW, answering


def test_by_the_one_task_operator() -> None:
    world = test_whole.World(rows=4, answer=answering(row_0=BLOCKED))
    policy = BatchPolicy(max_rounds=0)
    with pytest.raises(Rejected):
        world.on(policy)
    FileLanding(world.landing).accept(WINDOW, reason="good enough", who="ada", now=world.clock())
    landed = world.walk(policy, me="cleared")
    assert isinstance(landed, Landed)
    assert landed.manifest.passes
    assert landed.manifest.acceptance is not None
    assert len(world.service.created) == 1
    assert list(world.landing.list("_rejected")) == []


def test_in_a_table(tmp_path: Path) -> None:
    world = test_collect.World(rows=4, answer=answering(row_0=BLOCKED))
    database = Database("sql://db@/notes", lambda: sqlite3.connect(tmp_path / "db"), WORDS["sqlite"], "?")
    landing = SqlLanding(Tables(database, TableName("db", "", "notes")))
    place = Place("notes", "sql://db@/notes", "sql")
    with pytest.raises(Rejected):
        world.load(landing=place, landing_store=landing)
    assert [commit.rejected for commit in landing.commits()] == [True]
    landing.accept(WINDOW, reason="good enough", who="ada", now=world.clock())
    landed = world.load(landing=place, landing_store=landing, me="cleared")
    assert landed.manifest.passes
    assert [commit.acceptance is not None for commit in landing.commits()] == [True]
    assert len(list(landing.rows(WINDOW))) == 4
