"""Result lines of a hundred megabytes: as many as there are, one at a time in memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.scale

MIB = 1 << 20
SCRIPT = """
import json, sys
sys.path.insert(0, sys.argv[3])
from memory import peak_bytes
from airflow_provider_geminibatch.core.reconcile import Reconciler
from airflow_provider_geminibatch.jobs.lines import Lines
from airflow_provider_geminibatch.storage.stores import LocalStore

rows = int(sys.argv[2])
joining = Reconciler("aaaabbbbcccc2222", 0, rows)
with Lines(LocalStore(sys.argv[1]), "results.jsonl", None) as lines:
    for places, raws, block, costs in lines:
        joining.add(block.keys, block.kinds, block.readable, places)
    found = joining.done(lines.outcome_at)
    size = len(lines.outcome_at(found.places[0]).extra["inlineData"][0]["data"])
print(json.dumps({"counts": found.counts, "size": size, "peak": peak_bytes()}))
"""


def read(folder: Path, rows: int, image: bytes) -> dict[str, object]:
    with (folder / "results.jsonl").open("wb") as file:
        for row in reversed(range(rows)):
            file.write(b'{"key":"aaaabbbbcccc2222-0000-%07d","response":{"candidates":[{"content":{"parts":[' % row)
            file.write(b'{"inlineData":{"mimeType":"image/png","data":"%s"}}]},"finishReason":"STOP"}]}}\n' % image)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), str(rows), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, object] = json.loads(done.stdout)
    return said


def test_lines_of_a_hundred_megabytes_are_read_one_at_a_time(tmp_path: Path) -> None:
    image = b"QUJD" * (25 * MIB)
    few, more = read(tmp_path, 2, image), read(tmp_path, 6, image)
    assert more["counts"]["answer"] == 6  # type: ignore[index]
    assert more["size"] == len(image)
    assert more["peak"] < few["peak"] + 150 * MIB  # type: ignore[operator]
