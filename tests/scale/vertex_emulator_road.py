"""A large job of the emulated Vertex AI, without a socket: `vertex_emulator_road.py FOLDER ROWS CHARACTERS`. Prints one JSON object."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from airflow_provider_geminibatch.emulator import Emulator
from airflow_provider_geminibatch.emulator.wire import Request

JOB = {
    "displayName": "large",
    "model": "publishers/google/models/gemini-3.8-flash",
    "inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": ["gs://b/in.jsonl"]}},
    "outputConfig": {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": "gs://b/out"}},
}


def main(folder: str, rows: str, characters: str) -> dict[str, object]:
    from memory import peak_bytes  # which lies beside this script

    emulator = Emulator(seed=1, start=datetime(2026, 11, 1, tzinfo=UTC), speed=0, state_dir=Path(folder))
    blob, padding = emulator.buckets.new_blob(), "x" * int(characters)
    for first in range(0, int(rows), 1000):
        texts = (f"row {number} {padding}" for number in range(first, first + 1000))
        requests = ({"contents": [{"role": "user", "parts": [{"text": text}]}]} for text in texts)
        lines = (json.dumps({"key": f"k{first + at}", "request": each}) for at, each in enumerate(requests))
        blob.append("".join(f"{line}\n" for line in lines).encode())
    emulator.buckets.put("b", "in.jsonl", blob)
    path = "/v1/projects/p/locations/global/batchPredictionJobs"
    emulator.handle(Request("POST", path, {}, {"authorization": "Bearer any"}, json.dumps(JOB).encode()))
    began = time.perf_counter()
    emulator.clock.advance(hours=24)
    (job,) = emulator.jobs
    took = time.perf_counter() - began
    (output,) = emulator.buckets.list("b", "out/")
    return {
        "state": job.state(emulator.clock.now()), "input_bytes": blob.size, "output_bytes": output.size,
        "lines": sum(1 for _ in output.blob.lines()), "took_s": took, "peak_bytes": peak_bytes(),
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
