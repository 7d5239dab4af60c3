"""From ended jobs to a committed window: collect, reconcile, judge, write the parts, commit, close.

Whatever is interrupted is simply done again: results are downloaded once, the commit id stands for the content, and every
step finds what the one before it left. Rows never pass through memory whole.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from airflow_provider_geminibatch.core import prices
from airflow_provider_geminibatch.core.errors import Rejected, StoreUnreadable
from airflow_provider_geminibatch.core.landing import (
    CommitManifest,
    JobRef,
    Origin,
    Part,
    Place,
    RunRef,
    asset_extra,
    commit_id,
    turnaround,
    window_folder,
)
from airflow_provider_geminibatch.core.manifest import Manifest
from airflow_provider_geminibatch.core.model import JobSnapshot, Outcomes, Owner
from airflow_provider_geminibatch.core.prices import NOTHING_SPENT, Spent
from airflow_provider_geminibatch.core.reconcile import LineCounts
from airflow_provider_geminibatch.core.schema_check import schema_check
from airflow_provider_geminibatch.core.verdict import Thresholds, judge
from airflow_provider_geminibatch.gemini.gateway import Gateway
from airflow_provider_geminibatch.jobs import closing
from airflow_provider_geminibatch.jobs.results import Answered, Desk, answered, stray_spent
from airflow_provider_geminibatch.jobs.rows import AnsweredBatch, LandedRows, money
from airflow_provider_geminibatch.jobs.submit import read_build
from airflow_provider_geminibatch.storage import landings
from airflow_provider_geminibatch.storage.sinks import verified, write_parts
from airflow_provider_geminibatch.storage.store import Store


class Landed(msgspec.Struct, frozen=True):
    """A window that has landed: its manifest, and the landing's URI."""

    manifest: CommitManifest
    uri: str

    @property
    def window(self) -> str:
        return self.manifest.window

    @property
    def parts(self) -> tuple[Part, ...]:
        return self.manifest.parts

    @property
    def counts(self) -> dict[str, int]:
        """Rows per outcome."""
        return self.manifest.counts

    @property
    def cost_usd(self) -> Decimal | None:
        """What the rows cost; None when a model has no known price."""
        return None if self.manifest.cost_usd is None else Decimal(self.manifest.cost_usd)

    @property
    def extra(self) -> dict[str, Any]:
        """What goes into the asset event and to the next task."""
        return asset_extra(self.manifest, self.uri)


@dataclass(frozen=True)
class Commission:
    """Where a commit goes, for whom, and how it is judged."""

    landing: Place
    store: Store
    window: str
    owner: Owner
    run: RunRef
    thresholds: Thresholds


def collect(
    manifests: Iterable[Manifest],
    *,
    open_store: Callable[[str], Store],
    gateway: Gateway,
    landing: Place,
    landing_store: Store,
    window: str,
    owner: Owner,
    run: RunRef,
    thresholds: Thresholds,
    me: str,
    now: Callable[[], datetime],
    log: logging.Logger,
    sleep: Callable[[float], object] | None = None,
) -> Landed:
    """Collect the answers of one or several batches and commit them as one window. Safe to repeat at any point.

    Raises ResultsNotReady while a job runs, ResultsBroken, NotOwner, and, after the commit under ``_rejected/`` stands,
    Rejected.
    """
    commission = Commission(landing, landing_store, window, owner, run, thresholds)
    desks: dict[str, Desk] = {}
    for manifest in (manifests := tuple(manifests)):
        desks.setdefault(manifest.workspace, Desk(open_store(manifest.workspace), gateway, me, now, log, sleep))
    batches = sorted((_gathered(desks[manifest.workspace], manifest) for manifest in manifests), key=_by_path)
    desk = next(iter(desks.values()))
    draft = _draft(desk, commission, batches)
    landings.check_owner(landing_store, draft)
    manifest_ = landings.commit(landing_store, _with_parts(desk, commission, batches, draft))
    landed = Landed(manifest_, landing.uri)
    for batch in batches:
        closing.close(desks[batch.origin.workspace], batch, manifest_, landed.extra)
    log.info("%s window %s is %s: %s", landing.name, window, manifest_.verdict.value, manifest_.numbers)
    if manifest_.rejected:
        raise Rejected(landing.uri, window, manifest_.numbers)
    return landed


def _by_path(batch: AnsweredBatch) -> str:
    return batch.origin.path


def _gathered(desk: Desk, manifest: Manifest) -> AnsweredBatch:
    """Every shard of a batch collected and joined, and the choice sealed."""
    build = read_build(desk.store, manifest.path)
    check = schema_check(build.response_schema) if build.response_schema else None
    shards = tuple(answered(desk, build.model, shard, check) for shard in build.shards)
    seal = closing.seal_results(desk, build, tuple(shard.result for shard in shards))
    origin = Origin(
        batch=build.batch, generation=build.generation, build=build.id, seal=seal, workspace=manifest.workspace
    )
    return AnsweredBatch(desk.store, build, origin, check, shards)


def _draft(desk: Desk, commission: Commission, batches: Sequence[AnsweredBatch]) -> CommitManifest:
    """The manifest as far as it is known before the parts: identity, counts and verdict."""
    shards = [shard for batch in batches for shard in batch.shards]
    counts = {kind.value: sum(shard.counts[kind] for shard in shards) for kind in Outcomes}
    verdict = judge(counts, commission.thresholds)
    sealed = {batch.origin: tuple(shard.result for shard in batch.shards) for batch in batches}
    jobs = tuple(shard.job for shard in shards if shard.job is not None)
    created = [job.created_at for job in jobs if job.created_at]
    ended = [job.ended_at for job in jobs if job.ended_at]
    return CommitManifest(
        landing=commission.landing.name,
        window=commission.window,
        commit=commit_id(commission.window, commission.landing.format, sealed),
        format=commission.landing.format,
        parts=(),
        rows=sum(counts.values()),
        counts=counts,
        lines=sum((shard.lines for shard in shards), LineCounts()),
        complete=verdict.complete,
        verdict=verdict.verdict,
        numbers=verdict.numbers,
        thresholds=commission.thresholds,
        owner=commission.owner,
        run=commission.run,
        origins=tuple(batch.origin for batch in batches),
        jobs=jobs,
        models=tuple(sorted({batch.build.model for batch in batches})),
        submitted_at=min(created, default=None),
        finished_at=max(ended, default=None),
        committed_at=desk.now(),
        turnaround_s=turnaround(jobs),
        **_spending(desk, batches),
    )


def _spending(desk: Desk, batches: Sequence[AnsweredBatch]) -> dict[str, Any]:
    """What the manifest says of tokens and money, strays apart."""
    spent = sum_of(shard.spent for batch in batches for shard in batch.shards)
    if spent.cost_usd is None:
        models = ", ".join(sorted({batch.build.model for batch in batches}))
        desk.log.warning("no price is known for %s: the cost of this window is unknown, not zero", models)
    strays = [(batch, shard, stray) for batch in batches for shard in batch.shards for stray in shard.strays]
    strayed = sum_of(stray_spent(replace(desk, store=batch.store), shard, stray) for batch, shard, stray in strays)
    return {
        "strays": tuple(_stray_ref(shard, stray) for _, shard, stray in strays),
        "tokens": spent.tokens,
        "cost_usd": money(spent.cost_usd),
        "strays_cost_usd": money(strayed.cost_usd) if strays else None,
        "price_as_of": prices.AS_OF.isoformat(),
    }


def sum_of(spent: Iterable[Spent]) -> Spent:
    """All of it together."""
    total = NOTHING_SPENT
    for one in spent:
        total = total.plus(one)
    return total


def _stray_ref(shard: Answered, stray: JobSnapshot) -> JobRef:
    return JobRef(
        name=stray.name, shard=shard.result.shard, rows=shard.shard.rows, state=stray.state,
        created_at=stray.created_at, ended_at=stray.ended_at,
    )  # fmt: skip


def _with_parts(
    desk: Desk, commission: Commission, batches: Sequence[AnsweredBatch], draft: CommitManifest
) -> CommitManifest:
    """The draft with its parts: those that an earlier try wrote, if they are all there unharmed, else written now."""
    folder = window_folder(draft.window, rejected=draft.rejected)
    noted = closing.written_parts(desk, batches[0], draft.commit)
    if noted is not None and _all_there(commission.store, folder, noted.parts):
        return msgspec.structs.replace(draft, parts=noted.parts)
    rows = LandedRows(batches)
    parts = write_parts(commission.store, folder, draft.commit, draft.format, rows.columns, rows)
    whole = msgspec.structs.replace(draft, parts=parts)
    closing.note_parts(desk, batches, whole)
    return whole


def _all_there(store: Store, folder: str, parts: Sequence[Part]) -> bool:
    with ExitStack() as opened:
        try:
            for part in parts:
                opened.enter_context(verified(store, folder, part))
        except StoreUnreadable:
            return False
    return True


__all__ = ["Landed", "collect"]
