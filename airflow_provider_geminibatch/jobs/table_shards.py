"""What comes out of BigQuery with the answers of a batch: its keys, and the requests of those rows that have no answer.

Both are kept in the workspace, and from there on the build is like any other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import msgspec

from airflow_provider_geminibatch.core.bigquery import table_of
from airflow_provider_geminibatch.core.bigquery_sql import keys_sql, requests_sql, row_digest
from airflow_provider_geminibatch.core.errors import StoreUnreadable
from airflow_provider_geminibatch.core.ledger import Fact
from airflow_provider_geminibatch.core.model import Build, Shard
from airflow_provider_geminibatch.core.names import short, wire_key
from airflow_provider_geminibatch.jobs.results import Desk
from airflow_provider_geminibatch.jobs.rows import AnsweredBatch
from airflow_provider_geminibatch.jobs.table_inputs import in_tables, tables_of, there
from airflow_provider_geminibatch.storage import facts as fact_store

FEW_ROWS = 10_000
"""So many rows are asked for by their numbers; of more, the whole shard is read and the others are passed over."""


class Mirrored(Fact, frozen=True, kw_only=True):
    """``keys.json`` of a shard in BigQuery: its keys and columns lie in the workspace."""

    path: str
    sha256: str


def with_keys_here(desk: Desk, build: Build) -> Build:
    """The build with the keys of its shards in the workspace; itself where they are there already."""
    if not any(map(in_tables, build.shards)):
        return build
    shards = tuple(_mirrored(desk, build, shard) if in_tables(shard) else shard for shard in build.shards)
    return msgspec.structs.replace(build, shards=shards)


def _mirrored(desk: Desk, build: Build, shard: Shard) -> Shard:
    fact = f"{shard.ledger}/keys.json"
    standing = fact_store.get(desk.store, fact, Mirrored)
    if standing is None:
        mine = _fetched_keys(desk, build, shard)
        standing = fact_store.put(desk.store, fact, mine)
    return msgspec.structs.replace(shard, keys_path=standing.path, keys_sha256=standing.sha256)


def _fetched_keys(desk: Desk, build: Build, shard: Shard) -> Mirrored:
    """Read keys and columns of a shard, and hold them against its seal. Raises StoreUnreadable."""
    tables, base = tables_of(desk.gateway, str(shard)), table_of(shard.path)
    place, _ = there(tables, base)
    query = keys_sql(base, shard.index, build.columns)
    # Each reading has a name of its own, since its rows are read once: a result is kept for a day only.
    once = f"{shard.ledger} {desk.me} {desk.now().isoformat()}"
    ran = tables.run(desk.gateway.identity.project, place, query, once=once, what=f"keys of {shard}")
    path = f"{shard.ledger}/keys-{short(desk.me, length=8)}.jsonl"
    hashed, one, other, count = hashlib.sha256(), 0, 0, 0
    with desk.store.writer(path) as out:
        for row, key, passed in tables.rows(ran):
            first, second = row_digest(f"{row} {key}{passed}")
            one, other = one ^ first, other ^ second
            if row != str(count):
                break
            count += 1
            line = f"[{key},{passed}]\n".encode()
            hashed.update(line)
            out.write(line)
    if (count, f"{one:015x}{other:015x}") != (shard.rows, shard.keys_sha256):
        raise StoreUnreadable(base.uri, "it is not what was sealed (rows or digests differ); prepare the batch again")
    desk.log.info("%s: %d keys came out of BigQuery with the answers", shard, count)
    return Mirrored(owner=desk.me, at=desk.now(), path=path, sha256=hashed.hexdigest())


def with_requests_here(desk: Desk, batch: AnsweredBatch) -> AnsweredBatch:
    """The batch with the requests of its unanswered rows in the workspace, where they lie in BigQuery.

    The files have a line for every row; those of answered rows are empty.
    """
    if not any(map(in_tables, batch.build.shards)):
        return batch
    wanted: dict[int, list[int]] = {}
    for (place, row), _ in batch.unresolved():
        wanted.setdefault(place, []).append(row)
    shards = list(batch.build.shards)
    for place, rows in wanted.items():
        if in_tables(shards[place]):
            shards[place] = msgspec.structs.replace(
                shards[place], path=_fetched_requests(desk, batch, shards[place], rows)
            )
    return replace(batch, build=msgspec.structs.replace(batch.build, shards=tuple(shards)))


def _fetched_requests(desk: Desk, batch: AnsweredBatch, shard: Shard, rows: Sequence[int]) -> str:
    digest = short(*map(str, rows))
    path = f"{shard.ledger}/requests-{digest}.jsonl"
    if desk.store.read(path) is not None:
        return path
    tables, base = tables_of(desk.gateway, str(shard)), table_of(shard.path)
    place, shown = there(tables, base)
    is_json = next(column.type for column in shown.columns if column.name == "request") == "JSON"
    query = requests_sql(base, shard.index, rows if len(rows) <= FEW_ROWS else (), is_json=is_json)
    once = f"{path} {desk.me} {desk.now().isoformat()}"
    ran = tables.run(desk.gateway.identity.project, place, query, once=once, what=f"unanswered requests of {shard}")
    wanted, at = set(rows), 0
    with desk.store.writer(path) as out:
        for row, text in tables.rows(ran):
            number = int(row or 0)
            if number not in wanted:
                continue
            out.write(b"\n" * (number - at) + _line(shard, number, text or "null"))
            at = number + 1
    return path


def _line(shard: Shard, row: int, request: str) -> bytes:
    # The text of a column may be laid out over several lines, and a line has none.
    flat = msgspec.json.format(request.encode(), indent=-1)
    return msgspec.json.encode({"key": wire_key(shard.tag, shard.index, row), "request": msgspec.Raw(flat)}) + b"\n"


__all__ = [
    "Mirrored",
    "with_keys_here",
    "with_requests_here",
]
