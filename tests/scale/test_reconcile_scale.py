"""Ten million keys of one shard are joined to their rows in a few bytes each, in whatever order their lines come."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.scale.keys_road import DIFFERING, MISSING, STRANGERS, TWICE

pytestmark = pytest.mark.scale

ROWS = 10_000_000
MIB = 1 << 20


def _joined(rows: int) -> dict[str, Any]:
    script = Path(__file__).with_name("keys_road.py")
    done = subprocess.run(
        [sys.executable, str(script), str(rows)],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(script.parents[2])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


def _wanted(rows: int) -> dict[str, int]:
    """What the lines come to, worked out from what is known of them."""
    twice = {row for row in range(0, rows, TWICE) if row % MISSING}
    differing = {row for row in range(0, rows, DIFFERING) if row % MISSING}
    strangers = range(0, rows, STRANGERS)
    missing = len(range(0, rows, MISSING))
    return {
        "answer": rows - missing - len(differing), "failed": len(differing), "missing": missing,
        "duplicates": len(twice - differing), "conflicts": len(differing),
        "unknown": sum(row % 2 for row in strangers), "keyless": sum(1 - row % 2 for row in strangers),
        "lines": rows - missing + len(twice | differing) + len(strangers),
    }  # fmt: skip


def test_ten_million_keys_are_joined_in_bounded_memory(capsys: pytest.CaptureFixture[str]) -> None:
    small, large = (_joined(rows) for rows in (ROWS // 20, ROWS))
    with capsys.disabled():
        for seen in (small, large):
            print(
                f"\n{seen['rows']:>10,} keys  {seen['took_s']:>5.1f} s  {seen['rows'] / seen['took_s']:>9,.0f} a second  "
                f"peak {seen['peak_bytes'] / MIB:.0f} MiB"
            )
    for seen in (small, large):
        told = seen["counts"] | {
            name: seen[name] for name in ("duplicates", "conflicts", "unknown", "keyless", "lines")
        }
        assert told == _wanted(seen["rows"])
    # Nine bytes a row: its outcome, and where its line begins. The rest is for the few rows with two lines.
    assert large["peak_bytes"] - small["peak_bytes"] < 12 * (ROWS - ROWS // 20)
