"""Rows to a sealed build in a process of its own, without Airflow: `rows_road.py FOLDER ROWS [SOURCE PROCESSES]`.

Without a source the rows come from a generator. Prints one JSON object: what it took, and the peak of its memory.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from airflow_provider_geminibatch.core.model import BatchId
from airflow_provider_geminibatch.core.template import RequestTemplate
from airflow_provider_geminibatch.jobs.parts import split_of
from airflow_provider_geminibatch.jobs.prepare import Declaration, prepare
from airflow_provider_geminibatch.storage.sources import JsonlSource, PlainFiles
from airflow_provider_geminibatch.storage.stores import LocalStore


def rows(count: int) -> Iterator[dict[str, str]]:
    for number in range(count):
        yield {"id": f"row-{number:08d}", "text": f"Sentence number {number}, to be judged."}


def main(folder: str, count: int, path: str = "", processes: int = 1) -> dict[str, object]:
    from memory import peak_bytes  # which lies beside this script

    files, began = PlainFiles(), time.perf_counter()
    source = JsonlSource(path) if path else None
    made = prepare(
        Declaration(model="gemini-3.8-flash", source_name="rows", template=RequestTemplate("Judge: $text")),
        (lambda: source.rows(files)) if source else (lambda: rows(count)),
        store=LocalStore(folder), workspace_id="w", batch=BatchId("d", "r", "t"), service=None, me="me",
        now=lambda: datetime.now(UTC), log=logging.getLogger("rows"),
        split=lambda: split_of(source, files, processes=processes, door={}) if source else None,
    )  # fmt: skip
    own, theirs = peak_bytes(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return {
        "rows": made.build.rows, "shards": len(made.build.shards), "size_bytes": made.build.size_bytes,
        "took_s": time.perf_counter() - began, "peak_bytes": own, "peak_of_a_worker_bytes": theirs,
        "contents": [[shard.index, shard.content, shard.keys_sha256] for shard in made.build.shards],
    }  # fmt: skip


if __name__ == "__main__":
    given = sys.argv[1:]
    print(json.dumps(main(given[0], int(given[1]), *given[2:3], *(int(each) for each in given[3:4]))))
