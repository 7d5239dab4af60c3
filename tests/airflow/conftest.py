"""A service, a connection to it and a workspace, for the tests of the faces."""

from __future__ import annotations

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
