"""Result lines of one shard joined to its rows, in a process of its own: `keys_road.py ROWS`. Prints one JSON object."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from itertools import islice

from airflow_provider_geminibatch.core.model import Outcomes
from airflow_provider_geminibatch.core.names import wire_key
from airflow_provider_geminibatch.core.outcomes import Outcome
from airflow_provider_geminibatch.core.reconcile import KINDS, Reconciler

TAG, BLOCK, LINE_BYTES = "aaaabbbbcccc2222", 8_192, 1_500
# Every so many rows have no line, come twice, come twice and differ, or are followed by a line of nobody's.
MISSING, TWICE, DIFFERING, STRANGERS = 1_000, 997, 10_007, 5_003
STEP = 7_368_787


def lines(rows: int) -> Iterator[tuple[str | None, int]]:
    """Keys in an order that has nothing to do with that of the rows, each with the number that its answer is told by."""
    for number in range(rows):
        row = number * STEP % rows
        if row % STRANGERS == 0:
            yield (f"stranger-{row}" if row % 2 else None), 0
        if row % MISSING:
            yield wire_key(TAG, 0, row), row
            if row % TWICE == 0 or row % DIFFERING == 0:
                yield wire_key(TAG, 0, row), row if row % DIFFERING else -row


def main(rows: int) -> dict[str, object]:
    from memory import peak_bytes  # which lies beside this script

    answer = KINDS.index(Outcomes.ANSWER)
    said: dict[int, int] = {}
    joining, place, came, took = Reconciler(TAG, 0, rows), 0, lines(rows), 0.0
    while block := list(islice(came, BLOCK)):
        for at, (_, told) in enumerate(block):
            if told % TWICE == 0 or told % DIFFERING == 0:
                said[place + at * LINE_BYTES] = told
        keys, size = [key for key, _ in block], len(block)
        places = range(place, place + size * LINE_BYTES, LINE_BYTES)
        began = time.perf_counter()
        joining.add(keys, [answer] * size, [True] * size, places)
        took += time.perf_counter() - began
        place += size * LINE_BYTES
    began = time.perf_counter()
    found = joining.done(lambda at: Outcome(kind=Outcomes.ANSWER, text=str(said[at])))
    took += time.perf_counter() - began
    return {
        "rows": rows, "took_s": took, "counts": {kind: count for kind, count in found.counts.items() if count},
        "lines": found.lines.lines, "duplicates": found.lines.duplicates, "conflicts": found.lines.conflicts,
        "unknown": found.lines.unknown, "keyless": found.lines.keyless,
        "peak_bytes": peak_bytes(),
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]))))
