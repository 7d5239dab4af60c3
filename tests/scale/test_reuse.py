"""A million answers that are used again: indexed and looked up, memory flat."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.scale

ROWS = 1_000_000
MEBIBYTE = 2**20


def test_a_million_rows_are_looked_up_in_flat_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "tests.scale.reuse_road", str(tmp_path), str(ROWS)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    reused, seconds, peak = made.stdout.split()[-3:]
    with capsys.disabled():
        print(f"\n{int(reused):,} rows looked up by {seconds} s of work, peak {int(peak) // MEBIBYTE} MiB", end="")
    assert int(reused) == ROWS
    assert int(peak) < 256 * MEBIBYTE
