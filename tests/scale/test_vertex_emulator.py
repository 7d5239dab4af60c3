"""A job of the emulated Vertex AI at the limits of one: 200,000 rows from most of a gigabyte, shuffled in flat memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.scale

ROWS, CHARACTERS, MIB = 200_000, 4_000, 1 << 20


def test_a_job_of_a_gigabyte_is_read_and_written_in_flat_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = Path(__file__).with_name("vertex_emulator_road.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), str(ROWS), str(CHARACTERS)],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(script.parents[2])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    seen = json.loads(done.stdout)
    with capsys.disabled():
        print(
            f"\n{ROWS:,} rows, {seen['input_bytes'] / MIB:,.0f} MiB in, {seen['output_bytes'] / MIB:,.0f} MiB out: "
            f"{seen['took_s']:.1f} s, peak {seen['peak_bytes'] / MIB:.0f} MiB"
        )
    assert (seen["state"], seen["lines"]) == ("JOB_STATE_SUCCEEDED", ROWS)
    assert seen["input_bytes"] > 750 * MIB
    assert seen["peak_bytes"] < 150 * MIB
