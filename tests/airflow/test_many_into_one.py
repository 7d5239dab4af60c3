"""Many mapped batches in one window, as Airflow itself runs them."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from airflow_provider_geminibatch import Landing, read_window
from airflow_provider_geminibatch.emulator import Emulator, running
from airflow_provider_geminibatch.hooks.landing import open_landing
from tests.airflow.faces import connection

pytestmark = [pytest.mark.airflow, pytest.mark.slow]

HERE = Path(__file__).parent
WINDOW = "all-of-them"


@pytest.fixture(scope="module")
def ran(tmp_path_factory, postgres):
    """The Dag, run once; its home, the emulator, and what Airflow says of each task."""
    home = tmp_path_factory.mktemp("twenty")
    table = {"conn_type": "postgres", "host": postgres, "login": "postgres", "schema": "postgres"}
    with running(Emulator(seed=7, start=datetime.now(UTC), speed=2 * 3600, turnaround=(1, 3))) as service:
        environment = {
            "AIRFLOW_HOME": str(home / "airflow"),
            "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(HERE / "dags"),
            "AIRFLOW__GEMINIBATCH__WORKSPACE": str(home / "workspace"),
            "AIRFLOW__GEMINIBATCH__POLL_INTERVAL": "1",
            "AIRFLOW_CONN_GEMINIBATCH_DEFAULT": connection(service.url),
            "AIRFLOW_CONN_ROWS_DB": json.dumps(table),
            "LANDINGS_OF_THIS_TEST": str(home / "landings"),
            "PYTHONPATH": str(HERE.parents[1]),
        }
        python("-m", "airflow", "db", "migrate", **environment)
        run_dags = str(HERE.parent / "examples" / "run_dags.py")
        told = python(run_dags, str(HERE / "dags"), "twenty_into_one", **environment)
        [run] = [json.loads(line) for line in told if line.startswith('{"dag": ')]
        return home, service.emulator, run


def python(*arguments, **environment):
    done = subprocess.run(
        [sys.executable, *arguments], env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_twenty_mapped_batches_land_as_one_window_in_files_in_a_table_and_in_parts(ran, database):
    home, emulator, run = ran
    assert set(run["tasks"].values()) == {"success"}
    assert emulator.log.count("batches.create") == 20

    keys = sorted(str(number) for number in range(20))
    files = Landing("twenty", str(home / "landings" / "twenty"), format="jsonl")
    table = Landing("twenty_rows", "sql://rows_db@/twenty_rows")
    halves = Landing("halves", str(home / "landings" / "halves"), parts=("low", "high"))
    in_files, in_table, in_halves = (list(read_window(to, WINDOW)) for to in (files, table, halves))
    assert sorted(row["key"] for row in in_files) == keys
    assert in_files == in_table
    assert sorted(in_files, key=_key) == sorted(in_halves, key=_key)
    # A column of the user's that is named as one of ours, beside its answer.
    assert all(row["row_text"] == f"of batch {row['key']}" and row["text"] for row in in_files)
    manifests = [open_landing(to.uri).manifest(WINDOW) for to in (files, table)]
    assert [len(manifest.origins) for manifest in manifests] == [20, 20]
    assert len(list((home / "landings" / "twenty").glob("window=*/part-*"))) == 1


def _key(row):
    return row["key"]


def test_the_asset_of_a_window_in_parts_is_updated_once_when_the_last_part_has_landed(ran):
    home, _, _ = ran
    with sqlite3.connect(home / "airflow" / "airflow.db") as airflow:
        events = airflow.execute(
            "SELECT asset.name, event.source_task_id, event.extra FROM asset_event AS event "
            "JOIN asset ON asset.id = event.asset_id ORDER BY event.id"
        ).fetchall()
    by_task = {task: (name, json.loads(extra)) for name, task, extra in events}
    assert set(by_task) == {"load_twenty", "load_twenty_rows", "load_high"}
    name, extra = by_task["load_high"]
    assert name == "halves"
    assert (extra["rows"], set(extra["parts"]), extra["complete"]) == (20, {"low", "high"}, True)
