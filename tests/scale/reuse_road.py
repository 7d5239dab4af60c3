"""One process: answers to so many rows are indexed, and a batch of the same rows looks them up.

``python -m tests.scale.reuse_road FOLDER ROWS`` prints rows found, seconds of work of the look-up and peak memory in bytes, in
the last line; before it, what each step took. Work is time of the CPU, which others on the machine do not change.
"""

from __future__ import annotations

import hashlib
import logging
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from airflow_provider_geminibatch.core.landing import JobRef, Origin, ShardResult
from airflow_provider_geminibatch.core.ledger import Claim, Reusing, attempt_path
from airflow_provider_geminibatch.core.limits import SHARD_ROWS
from airflow_provider_geminibatch.core.model import BatchId, Build, Outcomes, ServiceIdentity, Shard
from airflow_provider_geminibatch.core.names import generation_path, wire_key
from airflow_provider_geminibatch.core.reuse import Reuse
from airflow_provider_geminibatch.jobs.results import Desk
from airflow_provider_geminibatch.jobs.reuse import reuse_answers
from airflow_provider_geminibatch.jobs.reuse_index import index_answers
from airflow_provider_geminibatch.storage import facts
from airflow_provider_geminibatch.storage.stores import LocalStore
from airflow_provider_geminibatch.testing import InMemoryGateway, ManualClock
from tests.scale.memory import peak_bytes

TAG = "aaaabbbbcccc2222"
PROMPT, ANSWER = b"x" * 1_000, b"y" * 1_100
REQUEST = b'{"key":"%b","request":{"contents":[{"role":"user","parts":[{"text":"row %d %b"}]}]}}\n'
RESULT = (
    b'{"key":"%b","response":{"candidates":[{"content":{"parts":[{"text":"%b"}],"role":"model"},"finishReason":"STOP"}],'
    b'"usageMetadata":{"promptTokenCount":100,"candidatesTokenCount":200,"totalTokenCount":300},"modelVersion":"m"}}\n'
)


class Answered(NamedTuple):
    """A shard all of whose rows have an answer, as far as an index looks at it."""

    shard: Shard
    result: ShardResult
    job: JobRef
    told: bool = True

    def kind_of(self, row: int) -> tuple[Outcomes, bool]:
        return Outcomes.ANSWER, True


class Batch(NamedTuple):
    """A batch that was answered, as far as an index looks at it."""

    store: LocalStore
    build: Build
    origin: Origin
    shards: tuple[Answered, ...]
    layers: tuple[Any, ...] = ()


def sealed(store: LocalStore, name: str, rows: int, clock: ManualClock) -> Build:
    """A build of so many rows, the same for every name."""
    batch = BatchId("dag", name, "prepare")
    home = f"{generation_path(batch, 1)}/builds/b1"
    shards = tuple(
        shard(store, home, number, first, min(SHARD_ROWS, rows - first))
        for number, first in enumerate(range(0, rows, SHARD_ROWS))
    )
    build = Build(
        id="b1", tag=TAG, batch=batch, generation=1, workspace_id="w", workspace_uri=store.uri, model="gemini-3.8-flash",
        created_at=clock(), shards=shards, rows=rows, size_bytes=sum(one.size_bytes for one in shards),
    )  # fmt: skip
    store.create(f"{home}.json", msgspec.json.encode(build))
    return build


def shard(store: LocalStore, home: str, number: int, first: int, rows: int) -> Shard:
    path, hashed, size = f"{home}/shard-{number:04d}.jsonl", hashlib.sha256(), 0
    with store.writer(path) as out:
        for row in range(rows):
            line = REQUEST % (wire_key(TAG, number, row).encode(), first + row, PROMPT)
            hashed.update(line)
            out.write(line)
            size += len(line)
    return Shard(
        home=home, index=number, tag=TAG, path=path, keys_path="", rows=rows, size_bytes=size,
        sha256=hashed.hexdigest(), keys_sha256="", content=f"c{number}",
    )  # fmt: skip


def answered(store: LocalStore, build: Build, service: ServiceIdentity, clock: ManualClock) -> Batch:
    """The results of all shards, written, and who was asked for them."""
    made = []
    for one in build.shards:
        claim = Claim(owner="me", at=clock(), display_name=f"shard {one.index}", service=service)
        facts.put(store, attempt_path(one.ledger, 1, "claim"), claim)
        path = f"{one.ledger}/a01.results.jsonl"
        with store.writer(path) as out:
            for row in range(one.rows):
                out.write(RESULT % (wire_key(TAG, one.index, row).encode(), ANSWER))
        job = JobRef(name="batches/1", shard=str(one.index), rows=one.rows, state="SUCCEEDED", ended_at=clock())
        made.append(Answered(one, ShardResult(shard=str(one.index), attempt=1, path=path), job))
    origin = Origin(batch=build.batch, generation=1, build=build.id, seal=1, workspace=store.uri)
    return Batch(store, build, origin, tuple(made))


def main(folder: str, rows: int) -> None:
    store, clock = LocalStore(folder), ManualClock()
    desk = Desk(store, InMemoryGateway(clock), "me", clock, logging.getLogger("reuse"))
    took: dict[str, float] = {}

    def timed(what: str, do: Callable[[], Any]) -> Any:
        began, busy = time.perf_counter(), time.process_time()
        made = do()
        took[what] = time.process_time() - busy
        print(f"{what}: {time.perf_counter() - began:.1f} s, of which {took[what]:.1f} s at work", flush=True)
        return made

    first = timed("sealed", lambda: sealed(store, "one", rows, clock))
    batch = timed("answered", lambda: answered(store, first, desk.gateway.identity, clock))
    facts.put(store, f"{generation_path(first.batch, 1)}/reuse.json", Reusing(owner="me", at=clock()))
    assert timed("indexed", lambda: index_answers(desk, batch)) == rows
    second = timed("sealed again", lambda: sealed(store, "two", rows, clock))
    done = timed("looked up", lambda: reuse_answers(desk, second, Reuse()))
    peak = peak_bytes()
    print(done.reused, f"{took['looked up']:.1f}", peak)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
