"""A large result file brought into a workspace, in a process of its own: `download_road.py URL FILE FOLDER`. Prints one JSON object."""

from __future__ import annotations

import json
import logging
import sys
import time

from airflow_provider_geminibatch.gemini.developer import DeveloperGateway, Settings
from airflow_provider_geminibatch.jobs.download import fetch
from airflow_provider_geminibatch.storage.stores import LocalStore


def main(url: str, file: str, folder: str) -> dict[str, object]:
    from memory import peak_bytes  # which lies beside this script

    gateway, store, pauses = (
        DeveloperGateway(Settings("key", url, timeout_seconds=60)),
        LocalStore(folder),
        list[float](),
    )
    began = time.perf_counter()
    came = fetch(
        gateway, store, file, "results.jsonl", what=file, log=logging.getLogger("download"), pause=pauses.append
    )
    took = time.perf_counter() - began
    gateway.close()
    return {
        "size_bytes": came.size_bytes, "sha256": came.sha256, "took_s": took, "pauses": pauses,
        "peak_bytes": peak_bytes(),
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
