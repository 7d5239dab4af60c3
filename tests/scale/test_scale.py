"""Many rows and many waiters: whether memory stays flat and the service is asked little. Times are printed, never asserted."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_geminibatch.core.model import JobSnapshot
from airflow_provider_geminibatch.emulator import Emulator, Limits, running
from airflow_provider_geminibatch.gemini.developer import DeveloperWatcher, Settings
from airflow_provider_geminibatch.gemini.gateway import Watcher
from airflow_provider_geminibatch.jobs.poller import polling

pytestmark = pytest.mark.scale

ROWS = 1_000_000
MIB = 1 << 20


@pytest.fixture
def service(tmp_path: Path) -> Iterator[str]:
    """The emulator in a process of its own, so that its memory is not ours. An hour takes it a second."""
    command = [
        sys.executable,
        "-m",
        "airflow_provider_geminibatch.cli",
        "emulator",
        "--port",
        "0",
        "--quiet",
        "--speed",
        "3600",
    ]
    emulator = subprocess.Popen(
        [*command, "--turnaround", "1:2", "--state-dir", str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert emulator.stdout is not None
    try:
        yield emulator.stdout.readline().strip()
    finally:
        emulator.terminate()
        emulator.wait(10)
        emulator.stdout.close()


def test_a_million_rows_land_with_flat_memory(service: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small, large = (_road(service, tmp_path / str(rows), rows) for rows in (ROWS // 20, ROWS))

    with capsys.disabled():
        print(f"\n{'rows':>9}  {'prepare':>9}  {'submit':>7}  {'load':>8}  {'peak':>7}")
        for seen in (small, large):
            print(
                f"{seen['rows']:>9,}  {seen['prepare_s']:>7.1f} s  {seen['submit_s']:>5.1f} s  "
                f"{seen['load_s']:>6.1f} s  {seen['peak_bytes'] / MIB:>3.0f} MiB"
            )
    assert large["counts"]["answer"] == large["rows"] == ROWS
    # Twenty times the rows, and what grows with them is a byte a row and the keys of one shard.
    assert large["peak_bytes"] < small["peak_bytes"] + 150 * MIB


def _road(service: str, place: Path, rows: int) -> dict[str, Any]:
    """Prepare, submit, wait and load in a fresh process; what it took."""
    script = Path(__file__).with_name("road.py")
    done = subprocess.run(
        [sys.executable, str(script), service, str(place), str(rows)],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(script.parents[2])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


def test_a_thousand_waiters_cost_one_list_sweep_per_look(capsys: pytest.CaptureFixture[str]) -> None:
    """All of them wait on one poller; what is asked grows with the pages of the list, not with the waiters."""
    emulator = Emulator(
        seed=1, start=datetime.now(UTC), speed=0, turnaround=(5, 5), limits=Limits(concurrent_jobs=1000)
    )
    with running(emulator) as server:
        names = _jobs(server.url, 200)
        waiters = [names[number % len(names)] for number in range(1000)]

        async def connect() -> Watcher:
            return DeveloperWatcher(Settings("k", server.url))

        async def one(name: str) -> str:
            async with polling("scale", connect) as poller:
                (job,) = (await poller.look([name], datetime.now(UTC))).sights
                assert isinstance(job, JobSnapshot)
                return job.state

        async def together() -> list[str]:
            return await asyncio.gather(*(one(name) for name in waiters))

        began = time.perf_counter()
        states = asyncio.run(together())
        took = time.perf_counter() - began

    asked = {name: emulator.log.count(name) for name in ("batches.list", "batches.get")}
    with capsys.disabled():
        print(f"\n{len(waiters)} waiters on {len(names)} jobs: {asked} in {took:.2f} s")
    assert len(names) == 200
    assert set(states) <= {"PENDING", "RUNNING"}
    assert sum(asked.values()) <= 4


def _jobs(url: str, count: int) -> list[str]:
    import httpx

    body = {
        "batch": {
            "displayName": "d",
            "inputConfig": {"requests": {"requests": [{"request": {"contents": [{"parts": [{"text": "x"}]}]}}]}},
        }
    }
    with httpx.Client(base_url=url, headers={"x-goog-api-key": "k"}) as http:
        made = []
        for _ in range(count):
            answer = http.post("/v1beta/models/gemini-3.8-flash:batchGenerateContent", json=body)
            made.append(answer.json()["name"])
    return made
