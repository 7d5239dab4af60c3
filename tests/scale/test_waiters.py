"""Two hundred real deferred sensors on one triggerer: what the service is asked, before and after the triggerer is killed.

It sleeps, unlike other tests: calls in a stretch of real time, with real processes waiting, are what it measures.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from airflow_provider_geminibatch.cli.demo import options
from airflow_provider_geminibatch.cli.local_airflow import LocalAirflow
from airflow_provider_geminibatch.emulator import Emulator, Limits, running
from tests.scale.test_scale import _jobs

pytestmark = pytest.mark.scale

DAG = Path(__file__).parent / "dags" / "many_waiters.py"
WAITERS = 200
PAGES = WAITERS // 100
INTERVAL_SECONDS = 5
MEASURED_SECONDS = 30.0
LONG_SECONDS = 900


@pytest.mark.airflow
def test_two_hundred_deferred_sensors_cost_one_sweep_per_interval_before_and_after_a_sigkill(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    emulator = Emulator(
        seed=7, start=datetime.now(UTC), speed=0, turnaround=(1, 2), limits=Limits(concurrent_jobs=WAITERS)
    )
    dags = tmp_path / "dags"
    dags.mkdir()
    shutil.copy2(DAG, dags)
    with running(emulator) as server:
        (dags / "names.json").write_text(json.dumps(_jobs(server.url, WAITERS)))
        settings = options(tmp_path, server.url, None) | {
            "AIRFLOW__GEMINIBATCH__POLL_INTERVAL": str(INTERVAL_SECONDS),
            "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "64",
        }
        with LocalAirflow(tmp_path / "airflow", dags, options=settings, parallelism=8) as airflow:
            airflow.migrate()
            airflow.start()
            airflow.wait_healthy()
            airflow.wait_for(lambda: "many_waiters" in airflow.rest.dag_ids(), "the Dag to be read", 120)
            run_id = airflow.rest.trigger("many_waiters")

            def states() -> Counter[str | None]:
                return Counter(row["state"] for row in airflow.rest.task_instances("many_waiters", run_id))

            def measured() -> Counter[str]:
                """The calls in a stretch of time in which nothing happens but waiting."""
                before = Counter(emulator.log.counts())
                time.sleep(MEASURED_SECONDS)
                return Counter(emulator.log.counts()) - before

            began = time.monotonic()
            airflow.wait_for(
                lambda: states()["deferred"] == WAITERS, "200 tasks to wait", LONG_SECONDS, every_seconds=5
            )
            deferred_s = time.monotonic() - began
            time.sleep(2 * INTERVAL_SECONDS)
            first = measured()

            airflow.kill("triggerer")
            time.sleep(1)
            silent = measured()
            asked = sum(emulator.log.counts().values())
            airflow.start("triggerer")
            airflow.wait_healthy()
            airflow.wait_for(lambda: sum(emulator.log.counts().values()) > asked, "the new triggerer to look", 180)
            time.sleep(4 * INTERVAL_SECONDS)
            second = measured()

            emulator.clock.advance(hours=3)
            began = time.monotonic()
            airflow.wait_for(lambda: states()["success"] == WAITERS, "200 tasks to pass", LONG_SECONDS, every_seconds=5)
            passed_s = time.monotonic() - began
            tries = {row["try_number"] for row in airflow.rest.task_instances("many_waiters", run_id)}

    with capsys.disabled():
        print(
            f"\n{WAITERS} deferred after {deferred_s:.0f} s; calls in {MEASURED_SECONDS:.0f} s: {dict(first)}; "
            f"without a triggerer {dict(silent)}; after its SIGKILL {dict(second)}; passed after {passed_s:.0f} s"
        )
    sweeps = MEASURED_SECONDS / INTERVAL_SECONDS + 1
    for calls in (first, second):
        assert 0 < calls["batches.list"] <= sweeps * PAGES
        assert calls["batches.get"] <= sweeps
    assert silent == Counter()
    assert emulator.log.count("batches.create") == WAITERS
    assert emulator.log.count("batches.cancel") == 0
    assert tries == {1}
