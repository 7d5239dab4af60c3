"""Jobs of the emulated Vertex AI that read a table of BigQuery and write another one."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_geminibatch.emulator import Emulator
from airflow_provider_geminibatch.emulator.wire import Reply, Request

START = datetime(2026, 11, 1, tzinfo=UTC)
JOBS = "/v1beta1/projects/p-one/locations/us-central1/batchPredictionJobs"
INPUT, OUTPUT = "bq://p-one.d.asked", "bq://p-one.d.asked_out"


def call(emulator: Emulator, method: str, path: str, body: Any = None, token: str = "t") -> Reply:
    raw = b"" if body is None else json.dumps(body).encode()
    return emulator.handle(Request(method, path, {}, {"authorization": f"Bearer {token}"}, raw))


def create(emulator: Emulator) -> str:
    body = {
        "displayName": "nightly", "model": "publishers/google/models/gemini-3.8-flash",
        "inputConfig": {"instancesFormat": "bigquery", "bigquerySource": {"inputUri": INPUT}},
        "outputConfig": {"predictionsFormat": "bigquery", "bigqueryDestination": {"outputUri": OUTPUT}},
    }  # fmt: skip
    reply = call(emulator, "POST", JOBS, body)
    assert reply.status == 200, reply.body
    return str(reply.body["name"])


@pytest.fixture
def emulator() -> Emulator:
    emulator = Emulator(seed=5, start=START, speed=0, turnaround=(5, 6))
    emulator.tables.make_dataset("p-one.d", "us-central1")
    schema = [("key", "STRING"), ("request", "JSON"), ("stars", "INTEGER")]
    rows = [
        {"key": f"k{at}", "request": {"contents": [{"role": "user", "parts": [{"text": f"row {at}"}]}]}, "stars": at}
        for at in range(4)
    ]
    emulator.tables.write_table(INPUT, [{"name": name, "type": kind} for name, kind in schema], rows)
    return emulator


def test_the_output_table_has_the_columns_of_the_input_and_three_more(emulator: Emulator) -> None:
    name = create(emulator)
    assert not emulator.tables.exists(OUTPUT)
    emulator.clock.advance(hours=30)

    job = call(emulator, "GET", f"/v1beta1/{name}").body
    assert (job["state"], job["outputInfo"]) == (
        "JOB_STATE_SUCCEEDED",
        {"bigqueryOutputDataset": "bq://p-one.d", "bigqueryOutputTable": "asked_out"},
    )
    rows = {row["key"]: row for row in emulator.tables.read_rows(OUTPUT)}
    assert {key: row["stars"] for key, row in rows.items()} == {f"k{at}": at for at in range(4)}
    assert "candidates" in json.loads(rows["k1"]["response"])
    assert rows["k1"]["status"] == ""
    types = {column["name"]: column["type"] for column in emulator.tables.schema(OUTPUT)}
    assert types["stars"] == "INTEGER"
    assert (types["response"], types["status"], types["processed_time"]) == ("JSON", "STRING", "TIMESTAMP")


@pytest.mark.parametrize("harm", ["input deleted", "output there", "column"])
def test_a_table_that_cannot_be_read_or_written_fails_the_job(emulator: Emulator, harm: str) -> None:
    name = create(emulator)
    tables = emulator.tables
    if harm == "input deleted":
        call(emulator, "DELETE", "/bigquery/v2/projects/p-one/datasets/d/tables/asked")
    elif harm == "output there":
        tables.write_table(OUTPUT, [{"name": "a", "type": "STRING"}], ())
    else:
        call(emulator, "DELETE", "/bigquery/v2/projects/p-one/datasets/d/tables/asked")
        tables.write_table(INPUT, [{"name": "request", "type": "JSON"}, {"name": "at", "type": "DATETIME"}], ())
    emulator.clock.advance(hours=30)

    assert call(emulator, "GET", f"/v1beta1/{name}").body["state"] == "JOB_STATE_FAILED"
    assert emulator.bill()["entries"] == []


def test_bigquery_asks_for_a_token(emulator: Emulator) -> None:
    path = "/bigquery/v2/projects/p-one/datasets/d"
    assert call(emulator, "GET", path).body["location"] == "us-central1"
    assert call(emulator, "GET", path, token="").status == 401
    emulator.revoke("t")
    assert call(emulator, "GET", path).status == 401
    assert emulator.log.count("bigquery.datasets.get", status=401) == 2
