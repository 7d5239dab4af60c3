"""The whole story in one task on real processes: a window by the deadline, and Airflow's own caps over many of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pytest

from airflow_provider_geminibatch import Landing, read_window
from airflow_provider_geminibatch.cli.demo import options
from airflow_provider_geminibatch.cli.local_airflow import LocalAirflow
from airflow_provider_geminibatch.emulator import Emulator, running

DAGS = Path(__file__).parent / "dags"
# max_active_tis_per_dag of Airflow 3.1 does not count deferred tasks, so there it limits nothing.
CAPS = ("pooled",) if version("apache-airflow").startswith("3.1.") else ("pooled", "limited")
OPEN = ("BATCH_STATE_PENDING", "BATCH_STATE_RUNNING")


@contextmanager
def started(folder: Path, dag_file: str, dag_id: str, emulator: Emulator) -> Iterator[LocalAirflow]:
    dags = folder / "dags"
    dags.mkdir()
    shutil.copy2(DAGS / dag_file, dags)
    with (
        running(emulator) as server,
        LocalAirflow(folder / "airflow", dags, options=options(folder, server.url, None), parallelism=6) as airflow,
    ):
        airflow.migrate()
        airflow.airflow("pools", "set", "two_at_once", "2", "batches", "--include-deferred")
        airflow.start()
        airflow.wait_healthy()
        airflow.wait_for(lambda: dag_id in airflow.rest.dag_ids(), "the Dag to be read", 60)
        yield airflow


def states(airflow: LocalAirflow, dag_id: str, run_id: str) -> list[str]:
    return sorted(str(row["state"]) for row in airflow.rest.task_instances(dag_id, run_id))


@pytest.mark.e2e_more
def test_a_service_that_never_finishes_has_its_window_by_the_deadline_and_the_limit(tmp_path):
    emulator = Emulator(seed=7, speed=0)
    emulator.scenario("never_finishes")
    with started(tmp_path, "in_time.py", "after_it", emulator) as airflow:
        run_id = airflow.rest.trigger("in_time")
        airflow.wait_for(lambda: states(airflow, "in_time", run_id) == ["deferred"], "the task to wait", 90)
        airflow.restart("triggerer")
        airflow.wait_for(lambda: states(airflow, "in_time", run_id) == ["success"], "the window to land", 150)
        airflow.wait_for(
            lambda: [run["state"] for run in airflow.rest.runs("after_it")] == ["success"], "its Dag to run", 60
        )

    rows = list(read_window(Landing("in_time", str(tmp_path / "landings" / "in_time")), "one"))
    assert {row["key"]: row["outcome"] for row in rows} == dict.fromkeys(("quake", "tide", "comet"), "answer")
    counts = emulator.log.counts()
    assert (counts["batches.create"], counts["batches.cancel"], counts["models.generate"]) == (1, 1, 3)
    manifest = next((tmp_path / "landings").rglob("_manifest.json"))
    landed = json.loads(manifest.read_text())
    [rung] = (json.loads(path.read_text()) for path in (tmp_path / "workspace").rglob("rungs/01.json"))
    assert rung["kind"] == "flex"
    assert landed["committed_at"] < rung["limit_at"]


@pytest.mark.e2e_more
@pytest.mark.parametrize("how", CAPS)
def test_airflows_own_caps_are_a_hard_limit_on_open_jobs(tmp_path, how):
    emulator = Emulator(seed=7, speed=0, turnaround=(1, 1))
    most = []

    def at_once() -> int:
        most.append(sum(emulator.state(job.name) in OPEN for job in emulator.jobs))
        return most[-1]

    with started(tmp_path, "capped.py", how, emulator) as airflow:
        run_id = airflow.rest.trigger(how)
        for ended in (0, 2, 4):
            still = min(2, 5 - ended)

            def holds(still: int = still, ended: int = ended) -> bool:
                told = states(airflow, how, run_id)
                return at_once() == still and (told.count("deferred"), told.count("success")) == (still, ended)

            airflow.wait_for(holds, f"{still} batches to run after {ended}", 120)
            emulator.clock.advance(hours=2)
        airflow.wait_for(lambda: at_once() == 0 and states(airflow, how, run_id) == ["success"] * 5, "the end", 120)

    assert max(most) == 2
    assert emulator.log.count("batches.create") == 5
