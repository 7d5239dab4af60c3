"""The lines of results that no row came from: counted in reports, kept in the result files, found there again."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from airflow_provider_geminibatch.core.kinds import check_of
from airflow_provider_geminibatch.core.model import Build, Shard
from airflow_provider_geminibatch.core.outcomes import SchemaCheck
from airflow_provider_geminibatch.core.reconcile import Reconciler, agree
from airflow_provider_geminibatch.jobs.layers import rounds_of, rungs_of
from airflow_provider_geminibatch.jobs.lines import Lines
from airflow_provider_geminibatch.jobs.results import shard_name
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.store import Store


class Aside(msgspec.Struct, frozen=True, kw_only=True):
    """A line that was kept aside. ``place`` is where it begins in the file at ``path`` of the workspace, in bytes."""

    why: str
    """A member of ``LineCounts``, in the singular: unknown, keyless, unreadable, duplicate, conflict."""
    shard: str
    job: str
    path: str
    place: int
    key: str | None
    """The key of the request as it went out."""
    row: int | None
    """The row of the shard, where it has one."""
    line: bytes


def lines_aside(store: Store, root: Build) -> Iterator[Aside]:
    """What was kept aside of all results of a batch that were collected, those of rounds and rungs included.

    Of a row whose lines differ all lines come, since none of them landed. Raises StoreUnreadable.
    """
    above = (*(one.build for one in rounds_of(store, root)), *(one.build for one in rungs_of(store, root)))
    for build in (root, *filter(None, above)):
        check = check_of(build)
        for shard in build.shards:
            attempt = fact_store.shard_facts(store, shard.ledger).job_attempt
            if attempt and attempt.job and attempt.collected:
                yield from _of_file(store, shard, attempt.job.job_name, attempt.collected.path, check)


def _of_file(store: Store, shard: Shard, job: str, path: str, check: SchemaCheck | None) -> Iterator[Aside]:
    joining, nobodys = Reconciler(shard.tag, shard.index, shard.rows), dict[int, tuple[str | None, bool]]()
    with Lines(store, path, check) as lines:
        for places, _, block, _ in lines:
            rows = joining.add(block.keys, block.kinds, block.readable, places)
            told = zip(rows, places, block.keys, block.readable, strict=True)
            nobodys.update((place, (key, readable)) for row, place, key, readable in told if row < 0)
        found = joining.done(lines.outcome_at)

        def aside(why: str, place: int, key: str | None, row: int | None = None) -> Aside:
            line = lines.line_at(place).rstrip(b"\n")
            return Aside(why=why, shard=shard_name(shard), job=job, path=path, place=place, key=key, row=row, line=line)

        for row, further in found.again.items():
            of_row = (found.places[row], *further)
            agreed, key = agree([lines.outcome_at(place) for place in of_row]), nobodys[further[0]][0]
            for place in further if agreed else of_row:
                nobodys.pop(place, None)
                yield aside("duplicate" if agreed else "conflict", place, key, row)
        for place, (key, readable) in nobodys.items():
            yield aside("unknown" if key is not None else "keyless" if readable else "unreadable", place, key)


__all__ = ["Aside", "lines_aside"]
