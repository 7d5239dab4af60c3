"""A gigabyte of requests goes into Cloud Storage and comes back, in flat memory on both sides."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.scale

MIB = 1 << 20
SCRIPT = Path(__file__).with_name("storage_road.py")
SERVE = "from airflow_provider_geminibatch.cli.main import main; main()"


@contextmanager
def _serving(folder: Path) -> Iterator[tuple[str, int]]:
    """An emulator in a process of its own: its address and the id of the process."""
    asked = [sys.executable, "-c", SERVE, "emulator", "--port", "0", "--quiet", "--state-dir", str(folder)]
    with subprocess.Popen(asked, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield (process.stdout.readline().strip() if process.stdout else ""), process.pid
        finally:
            process.terminate()


def _peak_bytes(process: int) -> int:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024


def _there_and_back(size_bytes: int, folder: Path) -> dict[str, Any]:
    (folder / "state").mkdir(parents=True)
    with _serving(folder / "state") as (url, process):
        done = subprocess.run(
            [sys.executable, str(SCRIPT), url, str(size_bytes), str(folder / "came")],
            capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[2])},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        seen["server_peak_bytes"] = _peak_bytes(process)
    (folder / "came" / "results.jsonl").unlink()
    return seen


def test_a_gigabyte_goes_up_and_comes_back_in_flat_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peaks = []
    for size_bytes in (100 * MIB, 1024 * MIB):
        seen = _there_and_back(size_bytes, tmp_path / str(size_bytes))
        assert seen["equal"]
        assert len(set(seen["size_bytes"])) == 1
        assert seen["size_bytes"][0] >= size_bytes
        assert seen["pauses"] == []
        peaks.append((seen["peak_bytes"]["download"], seen["server_peak_bytes"]))
        with capsys.disabled():
            print(
                f"\n{seen['size_bytes'][0] / 1e9:.2f} GB: {seen['took_s']}, peak of the client "
                f"{peaks[-1][0] / MIB:.0f} MiB, of the server {peaks[-1][1] / MIB:.0f} MiB"
            )
    (small, small_server), (large, large_server) = peaks
    assert large < small + 30 * MIB
    assert large_server < small_server + 30 * MIB
    assert large < 200 * MIB
