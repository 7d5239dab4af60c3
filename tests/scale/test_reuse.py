"""A million answers that are used again: indexed and looked up in time, memory flat."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.scale

ROWS = 1_000_000
MEBIBYTE = 2**20


def test_a_million_rows_are_looked_up_within_a_minute_in_flat_memory(tmp_path: Path) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "tests.scale.reuse_road", str(tmp_path), str(ROWS)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    reused, seconds, peak = made.stdout.split()[-3:]
    assert int(reused) == ROWS
    assert float(seconds) < 60  # of work; an idle core takes no longer by the clock
    assert int(peak) < 256 * MEBIBYTE
