"""The example with BigQuery, run against the emulator."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_geminibatch import Landing, read_window
from airflow_provider_geminibatch.emulator import Emulator, running
from tests.examples.test_dags import EXAMPLES, python

pytestmark = [pytest.mark.airflow, pytest.mark.slow]


def test_requests_of_a_query_are_answered_and_read_back(tmp_path: Path) -> None:
    emulator = Emulator(seed=7, start=datetime.now(UTC), speed=2 * 3600, turnaround=(1, 3))
    emulator.tables.make_dataset("my-project.feedback", "us-central1")
    schema = [
        {"name": "id", "type": "STRING"},
        {"name": "text", "type": "STRING"},
        {"name": "stars", "type": "INTEGER"},
    ]
    rows: list[dict[str, Any]] = [{"id": f"r{at}", "text": f"Review number {at}.", "stars": at % 5} for at in range(20)]
    emulator.tables.write_table("bq://my-project.feedback.reviews", schema, [*rows, {"id": "none", "stars": 1}])
    with running(emulator) as service:
        extra = {"project": "my-project", "location": "us-central1"}
        environment = {
            "AIRFLOW_HOME": str(tmp_path / "airflow"),
            "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(EXAMPLES),
            "AIRFLOW__GEMINIBATCH__WORKSPACE": str(tmp_path / "workspace"),
            "AIRFLOW__GEMINIBATCH__POLL_INTERVAL": "1",
            "AIRFLOW_CONN_GEMINIBATCH_VERTEX": json.dumps(
                {"conn_type": "geminibatch", "host": service.url, "extra": extra}
            ),
            "PYTHONPATH": str(EXAMPLES.parent),
        }
        python("-m", "airflow", "db", "migrate", **environment)
        runner = str(Path(__file__).with_name("run_dags.py"))
        told = python(runner, str(EXAMPLES), "reviews_in_bigquery", **environment)

    (run,) = (json.loads(line) for line in told if line.startswith('{"dag": '))
    assert set(run["tasks"].values()) == {"success"}
    landing = Landing("review_summaries", str(tmp_path / "landings" / "review_summaries"))
    landed = {row["key"]: row for row in read_window(landing, run["run_id"])}
    assert set(landed) == {row["id"] for row in rows}
    assert {row["outcome"] for row in landed.values()} == {"answer"}
    assert all(landed[row["id"]]["stars"] == str(row["stars"]) for row in rows)
    assert emulator.log.count("vertex.create") == 1
