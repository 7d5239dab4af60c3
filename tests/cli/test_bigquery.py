"""The command line opens landings in BigQuery by a connection of Vertex AI in the environment."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from airflow_provider_geminibatch.cli.landings import open_landing
from airflow_provider_geminibatch.core.errors import BadConnection, Unusable
from airflow_provider_geminibatch.emulator import Emulator, running

URI = "bigquery://vertex@/p-one.d.notes"


def test_a_landing_in_bigquery_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    emulator = Emulator(seed=1, start=datetime(2026, 11, 1, tzinfo=UTC), speed=0)
    emulator.tables.make_dataset("p-one.d", "us-central1")
    with running(emulator) as server:
        vertex = {
            "conn_type": "geminibatch",
            "host": server.url,
            "extra": {"project": "p-one", "location": "us-central1"},
        }
        monkeypatch.setenv("AIRFLOW_CONN_VERTEX", json.dumps(vertex))
        landing = open_landing(URI)
        assert (landing.uri, landing.windows(), landing.manifest("w")) == (URI, [], None)
        with pytest.raises(Unusable, match="no rejected commit"):
            landing.accept("w", reason="r", who="ada", now=datetime(2026, 11, 2, tzinfo=UTC))


def test_a_connection_that_reaches_no_bigquery_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_VERTEX", json.dumps({"conn_type": "geminibatch", "password": "k"}))
    with pytest.raises(BadConnection, match="does not reach BigQuery"):
        open_landing(URI).windows()
