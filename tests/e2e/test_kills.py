"""What a person does to a waiting task, on real processes: only mark-failed ends its jobs."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from airflow_provider_geminibatch.cli.demo import options
from airflow_provider_geminibatch.cli.local_airflow import LocalAirflow
from airflow_provider_geminibatch.core.janitor import Finding
from airflow_provider_geminibatch.core.ledger import JobNamed
from airflow_provider_geminibatch.emulator import Emulator, Server, running
from airflow_provider_geminibatch.gemini.developer import DeveloperGateway, Settings
from airflow_provider_geminibatch.jobs.janitor import clean
from airflow_provider_geminibatch.storage.facts import workspace_id
from airflow_provider_geminibatch.storage.stores import LocalStore

DAG = Path(__file__).parent / "dags" / "kills.py"
KINDS = ("marked_failed", "marked_success", "cleared", "failed_on_a_worker")


@pytest.mark.e2e_more
def test_only_a_task_that_a_person_marked_failed_has_its_jobs_cancelled(tmp_path):
    dags = tmp_path / "dags"
    dags.mkdir()
    shutil.copy2(DAG, dags)
    with running(Emulator(seed=7, speed=0)) as server:
        settings = options(tmp_path, server.url, None)
        with LocalAirflow(tmp_path / "airflow", dags, options=settings, parallelism=6) as airflow:
            airflow.migrate()
            airflow.start()
            airflow.wait_healthy()
            airflow.wait_for(lambda: "kills" in airflow.rest.dag_ids(), "the Dag to be read", 60)
            run_id = airflow.rest.trigger("kills")

            def state(kind: str) -> str | None:
                found = {row["task_id"]: row["state"] for row in airflow.rest.task_instances("kills", run_id)}
                return found.get(f"wait_{kind}")

            def mark(kind: str, new_state: str) -> None:
                path = f"/api/v2/dags/kills/dagRuns/{run_id}/taskInstances/wait_{kind}"
                airflow.rest._ask("PATCH", path, json={"new_state": new_state})

            waiting = dict.fromkeys(KINDS[:3], "deferred") | {"failed_on_a_worker": "running"}
            airflow.wait_for(lambda: {kind: state(kind) for kind in KINDS} == waiting, "four tasks to wait", 120)
            # A trigger that has not started yet is not told (Airflow skips on_kill then).
            airflow.wait_for(lambda: looks(server.emulator) >= 8, "the triggers to look", 60)

            mark("marked_success", "success")
            airflow.rest.clear("kills", run_id, ["wait_cleared"])
            mark("marked_failed", "failed")
            mark("failed_on_a_worker", "failed")

            wanted = {"marked_failed", "failed_on_a_worker"}
            airflow.wait_for(lambda: cancelled(server.emulator, tmp_path) == wanted, "two jobs to be cancelled", 60)
            airflow.wait_for(lambda: state("cleared") == "deferred", "the cleared task to wait again", 60)
            server.emulator.clock.advance(hours=24)
            airflow.wait_for(lambda: state("cleared") == "success", "the cleared task to pass", 60)

            airflow.wait_for(lambda: airflow.rest.runs("kills")[0]["state"] == "failed", "the run to end", 60)

            kept = ledger(tmp_path)
            asked = Counter(server.emulator.log.counts())
            assert airflow.rest._send("DELETE", f"/api/v2/dags/kills/dagRuns/{run_id}").status_code == 204
            airflow.wait_for(lambda: not airflow.rest.runs("kills"), "the run to be gone", 30)
        reported = janitor(server, tmp_path)
        meanwhile = Counter(server.emulator.log.counts()) - asked

    # A deleted run takes nothing along, and what ran on after mark-success stays on record and is named.
    assert ledger(tmp_path) == kept
    assert meanwhile["batches.create"] == meanwhile["batches.cancel"] == meanwhile["files.delete"] == 0
    assert {finding.name for finding in reported} >= jobs_of(tmp_path, "prepare_marked_success")
    assert cancelled(server.emulator, tmp_path) == wanted
    assert server.emulator.log.count("batches.create") == len(KINDS)
    marks = [path for path in LocalStore(str(tmp_path / "workspace")).list("batches") if path.endswith(".cancel")]
    assert sorted(path.split("/")[3] for path in marks) == ["prepare_failed_on_a_worker", "prepare_marked_failed"]


def ledger(folder: Path) -> set[str]:
    return set(LocalStore(str(folder / "workspace")).list("batches"))


def jobs_of(folder: Path, task_id: str) -> set[str]:
    """The jobs on record for a batch."""
    store = LocalStore(str(folder / "workspace"))
    named = [path for path in store.list("batches") if path.endswith(".job") and path.split("/")[3] == task_id]
    assert named
    return {msgspec.json.decode(store.read(path) or b"", type=JobNamed).job_name for path in named}


def janitor(server: Server, folder: Path) -> tuple[Finding, ...]:
    """What the janitor reports, a person having told it nothing."""
    store = LocalStore(str(folder / "workspace"))
    with closing(DeveloperGateway(Settings("k", server.url))) as gateway:
        report = clean(
            store, gateway, workspace_id=workspace_id(store), act=False, me="janitor",
            now=server.emulator.clock.now, log=logging.getLogger("test"),
        )  # fmt: skip
    return report.findings


def looks(emulator: Emulator) -> int:
    return emulator.log.count("batches.get") + emulator.log.count("batches.list")


def cancelled(emulator: Emulator, folder: Path) -> set[str]:
    """For which kinds of task the job was cancelled, by what their requests say."""
    names = {job.name for job in emulator.jobs if emulator.state(job.name) == "BATCH_STATE_CANCELLED"}
    store = LocalStore(str(folder / "workspace"))
    found = set()
    for path in store.list("batches"):
        if path.endswith(".job") and any(name.encode() in (store.read(path) or b"") for name in names):
            found.add(path.split("/")[3].removeprefix("prepare_"))
    return found
