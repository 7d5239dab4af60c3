"""One result file, read: which line is whose, what all of it cost, and on the local disk what its lines came to.

It needs a store and nothing else, so that it can be done in another process; ``ReadDone`` is what such a process has to say.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from airflow_provider_geminibatch.core.answer_sizes import SizeTally
from airflow_provider_geminibatch.core.errors import ResultsBroken, StoreUnreadable
from airflow_provider_geminibatch.core.ledger import Collected
from airflow_provider_geminibatch.core.model import Shard
from airflow_provider_geminibatch.core.outcomes import SchemaCheck
from airflow_provider_geminibatch.core.prices import Price, Spent
from airflow_provider_geminibatch.core.reconcile import LineCounts, Reconciled, Reconciler
from airflow_provider_geminibatch.jobs.lines import Lines
from airflow_provider_geminibatch.jobs.spooled import cells, spool_for
from airflow_provider_geminibatch.storage.spool import Disk, Kept, Spool
from airflow_provider_geminibatch.storage.store import Store


class Read(NamedTuple):
    """What a file came to."""

    found: Reconciled
    spent: Spent
    versions: Mapping[str, int]
    sizes: SizeTally
    spool: Spool | None


def read_results(
    store: Store, disk: Disk | None, shard: Shard, sealed: Collected, check: SchemaCheck | None, price: Price | None
) -> Read:
    """Join a collected file to the shard's rows. Raises StoreUnreadable when it is not the file that was collected."""
    spool = spool_for(disk, check) if disk else None
    joining = Reconciler(shard.tag, shard.index, shard.rows)
    with Lines(store, sealed.path, check, price) as lines:
        for places, raws, block, costs in lines:
            rows = joining.add(block.keys, block.kinds, block.readable, places)
            if spool is not None:
                spool.add(cells(spool, rows, raws, block, costs))
            del raws, block  # before the next are read: a line may have a hundred megabytes
        found = joining.done(lines.outcome_at)
        if spool is not None:
            spool.finish()
        if (lines.size_bytes, lines.digest.hexdigest()) != (sealed.size_bytes, sealed.sha256):
            raise StoreUnreadable(
                f"{store.uri}/{sealed.path}", "it is not what was collected (size or checksum differ)"
            )
        if lines.cut:
            # Without a length from the service, a cut between two chunks looks like an end.
            raise ResultsBroken(f"the results of {shard}", "the last line is cut off")
    return Read(found, lines.spent, lines.versions, lines.sizes, spool)


class ReadDone(msgspec.Struct, kw_only=True):
    """A ``Read`` as plain data; the rows' kinds and places, and what is spooled, are files."""

    spent: Spent
    versions: dict[str, int]
    sizes: dict[str, Any]
    lines: LineCounts
    again: dict[int, tuple[int, ...]]
    kept: Kept | None = None


def told(read: Read, rows_path: Path) -> ReadDone:
    """What was read, for another process; the rows go to a file."""
    found = read.found
    with rows_path.open("wb") as file:
        file.write(found.kinds)
        file.write(found.places)
    return ReadDone(
        spent=read.spent, versions=dict(read.versions), sizes=read.sizes.data(), lines=found.lines, again=found.again,
        kept=read.spool.kept if read.spool else None,
    )  # fmt: skip


def heard(done: ReadDone, rows_path: Path, shard: Shard, spool: Spool | None) -> Read:
    """What another process has read; the file of its rows goes."""
    data, places = rows_path.read_bytes(), array("q")
    rows_path.unlink()
    places.frombytes(memoryview(data)[shard.rows :])
    found = Reconciled(data[: shard.rows], places, done.again, done.lines)
    return Read(found, done.spent, done.versions, SizeTally.of(done.sizes), spool)


__all__ = ["Read", "ReadDone", "heard", "read_results", "told"]
