"""The demo as a person meets it: started, interrupted, killed, and run to its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event

import psutil
import pytest

GEMINIBATCH = Path(sys.executable).with_name("geminibatch")


class Running:
    """A demo in a process of its own, writing to a file."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.folder = folder / "demo"
        self._output = folder / f"output-{len(list(folder.iterdir()))}"
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [GEMINIBATCH, "demo", "--dir", self.folder, *words],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    @property
    def output(self) -> str:
        return self._output.read_text()

    def says(self, text: str, seconds: float) -> bool:
        return any(
            text in self.output or self.process.poll() is not None or Event().wait(0.2) for _ in range(int(seconds * 5))
        ) and (text in self.output)

    def ends(self, seconds: float) -> int:
        return self.process.wait(seconds)

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


@pytest.fixture
def demo(tmp_path):
    started = []

    def start(*words: str) -> Running:
        started.append(Running(tmp_path, *words))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.send_signal(signal.SIGTERM)
            one.ends(60)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.e2e
def test_ctrl_c_leaves_nothing_running_and_says_where_the_logs_are(demo):
    running = demo("--windows", "1")
    assert running.says("four processes", 90), running.output
    children = running.children()
    running.process.send_signal(signal.SIGINT)
    assert running.ends(60) == 130, running.output
    assert len(children) >= 4
    assert alive(children) == []
    assert f"Logs: {running.folder}/airflow" in running.output
    assert not (running.folder / "airflow" / "processes.json").exists()


@pytest.mark.e2e_more
def test_what_a_killed_demo_left_behind_is_ended_by_the_next(demo):
    killed = demo("--windows", "1")
    assert killed.says("four processes", 90), killed.output
    left = killed.children()
    killed.process.kill()
    killed.ends(10)
    assert len(alive(left)) >= 4
    rows = json.loads((killed.folder / "airflow" / "processes.json").read_text())
    assert {row["name"] for row in rows} == {"emulator", "api-server", "scheduler", "dag-processor", "triggerer"}

    following = demo("--windows", "1")
    assert following.says("earlier run had left behind", 60), following.output
    assert alive(left) == []
    refused = demo("--windows", "1")
    assert refused.ends(60) == 2
    assert "in use by another run" in refused.output
    following.process.send_signal(signal.SIGTERM)
    assert following.ends(60) == 130


@pytest.mark.e2e_more
@pytest.mark.parametrize("route", ["developer", "vertex"])
def test_the_demo_ends_by_itself_with_a_table_and_files(demo, route):
    running = demo("--windows", "2", "--route", route)
    assert running.ends(300) == 0, running.output
    lines = [line for line in running.output.splitlines() if line.startswith("2018-")]
    assert len(lines) == 4, running.output
    assert len(list((running.folder / "landings").glob("*/window=*/*.parquet"))) == 4
    assert sum("s after it landed" in line for line in lines) == 2
