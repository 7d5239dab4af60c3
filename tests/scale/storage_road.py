"""A large request file through Cloud Storage, in a process of its own: `storage_road.py URL SIZE_BYTES FOLDER`. Prints one JSON object.

It is streamed into a workspace there, uploaded from it as a job's input, copied to where a job's results lie, and brought back.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import time

import httpx

from airflow_provider_geminibatch.gemini.vertex import VertexGateway, VertexSettings
from airflow_provider_geminibatch.jobs.download import fetch
from airflow_provider_geminibatch.storage.stores import LocalStore, open_store

LINE = b'{"key":"%012d","request":{"contents":[{"role":"user","parts":[{"text":"%s"}]}]}}\n'
RESULTS = "gs://staging/out/prediction-model-2026"


def main(url: str, size_bytes: str, folder: str) -> dict[str, object]:
    from memory import peak_bytes  # which lies beside this script

    os.environ["STORAGE_EMULATOR_HOST"] = url
    times, peaks, began = dict[str, float](), dict[str, int](), time.perf_counter()

    def took(step: str) -> None:
        nonlocal began
        times[step], began = round(time.perf_counter() - began, 1), time.perf_counter()
        peaks[step] = peak_bytes()

    workspace, digest, written = open_store("gs://lake/workspace"), hashlib.sha256(), 0
    with workspace.writer("builds/shard-0000.jsonl") as stream:
        while written < int(size_bytes):
            lines = b"".join(LINE % (written + number, b"A" * 1_400) for number in range(700))
            stream.write(lines)
            digest.update(lines)
            written += len(lines)
    took("write")
    gateway = VertexGateway(VertexSettings("project", "us-central1", "gs://staging/in", endpoint=url))
    with workspace.open("builds/shard-0000.jsonl") as source:
        uploaded = gateway.upload(source, size_bytes=written, display_name="shard-0000")
    took("upload")
    _copy(url, uploaded.name, f"{RESULTS}/predictions.jsonl")
    took("copy")
    pauses, log = list[float](), logging.getLogger("download")
    came = fetch(gateway, LocalStore(folder), RESULTS, "results.jsonl", what=RESULTS, log=log, pause=pauses.append)
    took("download")
    gateway.close()
    return {
        "size_bytes": (written, uploaded.size_bytes, came.size_bytes), "equal": came.sha256 == digest.hexdigest(),
        "took_s": times, "pauses": pauses, "peak_bytes": peaks,
    }  # fmt: skip


def _copy(url: str, source: str, target: str) -> None:
    paths = (uri.removeprefix("gs://").partition("/") for uri in (source, target))
    (bucket, _, name), (to_bucket, _, to_name) = (
        (first, slash, rest.replace("/", "%2F")) for first, slash, rest in paths
    )
    reply = httpx.post(f"{url}/storage/v1/b/{bucket}/o/{name}/rewriteTo/b/{to_bucket}/o/{to_name}", timeout=600)
    reply.raise_for_status()


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
