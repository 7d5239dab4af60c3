"""Ten million rows become sealed shards in less than 200 MiB, and several processes seal what one does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.scale.rows_road import rows

pytestmark = pytest.mark.scale

ROWS = 10_000_000
SPLIT_ROWS = 5_000_000
MIB = 1 << 20


def _prepared(folder: Path, *given: object) -> dict[str, Any]:
    """Prepare in a fresh process; what it took. What it wrote is removed."""
    script = Path(__file__).with_name("rows_road.py")
    done = subprocess.run(
        [sys.executable, str(script), str(folder), *map(str, given)],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(script.parents[2])},
    )  # fmt: skip
    shutil.rmtree(folder, ignore_errors=True)
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


def _say(capsys: pytest.CaptureFixture[str], what: str, seen: dict[str, Any]) -> None:
    with capsys.disabled():
        print(
            f"\n{what:<22} {seen['rows']:>10,} rows  {seen['took_s']:>6.1f} s  {seen['size_bytes'] / 1e9:>4.1f} GB  "
            f"peak {seen['peak_bytes'] / MIB:.0f} MiB, of a worker {seen['peak_of_a_worker_bytes'] / MIB:.0f} MiB"
        )


def test_ten_million_rows_in_less_than_200_mib(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small, large = (_prepared(tmp_path / str(count), count) for count in (ROWS // 20, ROWS))
    _say(capsys, "from a generator", small)
    _say(capsys, "from a generator", large)
    assert (large["rows"], large["shards"]) == (ROWS, ROWS // 50_000)
    assert large["peak_bytes"] < 200 * MIB
    # What grows with the rows is on disk: eight bytes a row, and a line in the seal for every shard.
    assert large["peak_bytes"] < small["peak_bytes"] + 50 * MIB


def test_several_processes_seal_what_one_seals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.jsonl"
    with path.open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows(SPLIT_ROWS))
    assert path.stat().st_size > 256 * MIB
    one, two = (_prepared(tmp_path / f"by-{count}", SPLIT_ROWS, path, count) for count in (1, 2))
    _say(capsys, "a file, one process", one)
    _say(capsys, "a file, two processes", two)
    assert one["contents"] == two["contents"]
    assert two["rows"] == SPLIT_ROWS
    assert max(two["peak_bytes"], two["peak_of_a_worker_bytes"]) < 200 * MIB
