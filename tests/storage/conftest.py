"""Databases for the landings in tables, and an emulated Cloud Storage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_geminibatch.emulator import Emulator, Server, running
from tests.databases import KINDS, Base, postgres_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    with postgres_server() as host:
        yield host


@pytest.fixture(params=KINDS)
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Base:
    """An empty database of each kind."""
    return Base(request.param, tmp_path, lambda: request.getfixturevalue("postgres"))


@pytest.fixture(params=KINDS[1:])
def postgres_base(request: pytest.FixtureRequest, tmp_path: Path) -> Base:
    """PostgreSQL by each of its drivers, for what SQLite's one lock does not allow."""
    return Base(request.param, tmp_path, lambda: request.getfixturevalue("postgres"))


@pytest.fixture
def sqlite_base(tmp_path: Path) -> Base:
    return Base("sqlite", tmp_path)


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """An emulated Cloud Storage, which ``gs://`` means while it runs."""
    pytest.importorskip("gcsfs")
    with running(Emulator()) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        yield server
