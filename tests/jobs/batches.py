"""A sealed build written by hand, for tests that begin after Prepare."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import msgspec

from airflow_provider_geminibatch.core.manifest import Manifest
from airflow_provider_geminibatch.core.model import BatchId, Build, Shard
from airflow_provider_geminibatch.core.names import generation_path, wire_key
from airflow_provider_geminibatch.storage.store import Store

BATCH = BatchId("dag", "run", "prepare")
MODEL = "gemini-3.8-flash"


def seal(
    store: Store, *, shards: int = 1, rows: int = 2, model: str = MODEL, batch: BatchId = BATCH, **fields: Any
) -> Manifest:
    """A build of ``shards`` shards with ``rows`` rows each, keys ``k0``, ``k1`` … over the whole batch.

    ``fields`` stand in every request besides its contents.
    """
    home, tag = f"{generation_path(batch, 1)}/builds/b1", "aaaabbbbcccc2222"
    made = tuple(_shard(store, home, tag, index, rows, fields) for index in range(shards))
    build = Build(
        id="b1", tag=tag, batch=batch, generation=1, workspace_id="w1", workspace_uri=store.uri, model=model,
        created_at=datetime(2026, 1, 1, tzinfo=UTC), shards=made, rows=shards * rows,
        size_bytes=sum(shard.size_bytes for shard in made),
    )  # fmt: skip
    store.create(f"{home}.json", msgspec.json.encode(build))
    return Manifest(uri=f"{store.uri}/{home}.json", rows=build.rows, shards=shards)


def _shard(store: Store, home: str, tag: str, index: int, rows: int, fields: dict[str, Any]) -> Shard:
    ordinals = range(index * rows, (index + 1) * rows)
    lines = [
        {
            "key": wire_key(tag, index, row),
            "request": {"contents": [{"role": "user", "parts": [{"text": f"row {number}"}]}], **fields},
        }
        for row, number in enumerate(ordinals)
    ]
    data = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
    keys = b"".join(msgspec.json.encode([f"k{number}", {}]) + b"\n" for number in ordinals)
    path, keys_path = f"{home}/shard-{index:04d}.jsonl", f"{home}/keys-{index:04d}.jsonl"
    store.create(path, data)
    store.create(keys_path, keys)
    return Shard(
        home=home, index=index, tag=tag, path=path, keys_path=keys_path, rows=rows, size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(), keys_sha256=hashlib.sha256(keys).hexdigest(), content=f"c{index}",
    )  # fmt: skip
