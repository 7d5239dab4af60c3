"""From ended jobs to a committed window: collect, reconcile, judge, write the parts, commit, close.

Whatever is interrupted is simply done again: results are downloaded once, the commit id stands for the content, and every
step finds what the one before it left. Rows never pass through memory whole.
"""

from __future__ import annotations

import logging
import shlex
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from functools import reduce
from itertools import chain, islice
from typing import Any

import msgspec

from airflow_provider_geminibatch.core.errors import Rejected, Unusable
from airflow_provider_geminibatch.core.kinds import check_of
from airflow_provider_geminibatch.core.landing import (
    CommitManifest,
    Committing,
    JobRef,
    Origin,
    Part,
    Place,
    RunRef,
    ShardResult,
    WindowView,
    as_accepted_before,
    asset_extra,
    commit_id,
    turnaround,
    window_extra,
)
from airflow_provider_geminibatch.core.manifest import Manifest
from airflow_provider_geminibatch.core.model import Build, JobSnapshot, Outcomes, Owner, Shard
from airflow_provider_geminibatch.core.prices import NOTHING_SPENT, PriceList, Spent, identity_of
from airflow_provider_geminibatch.core.reconcile import LineCounts
from airflow_provider_geminibatch.core.report import Tally
from airflow_provider_geminibatch.core.sampling import Span
from airflow_provider_geminibatch.core.verdict import Thresholds, judge
from airflow_provider_geminibatch.gemini.gateway import Gateway
from airflow_provider_geminibatch.jobs import closing
from airflow_provider_geminibatch.jobs.budget import Books, settle_build
from airflow_provider_geminibatch.jobs.canary import compare
from airflow_provider_geminibatch.jobs.cost_estimate import reconcile_cost
from airflow_provider_geminibatch.jobs.dead_letters import note_dead_letters
from airflow_provider_geminibatch.jobs.kept import KeptLayer
from airflow_provider_geminibatch.jobs.layers import BuiltLayer, Gateways, given_up_in, layers_of, rungs_of
from airflow_provider_geminibatch.jobs.parallel_reading import Readers, readers_for
from airflow_provider_geminibatch.jobs.price_list import prices_of_build, standing_prices
from airflow_provider_geminibatch.jobs.prompt_caches import storage_cost
from airflow_provider_geminibatch.jobs.report import counted, note_report
from airflow_provider_geminibatch.jobs.results import Answered, Desk, answering, is_open, shard_name
from airflow_provider_geminibatch.jobs.reuse_index import index_answers
from airflow_provider_geminibatch.jobs.rows import AnsweredBatch, LandedRows, money
from airflow_provider_geminibatch.jobs.strays import stray_spent
from airflow_provider_geminibatch.jobs.submit import read_build
from airflow_provider_geminibatch.jobs.table_shards import with_keys_here
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.landing_store import LandingStore, view_of
from airflow_provider_geminibatch.storage.spool import Disk
from airflow_provider_geminibatch.storage.store import Store


class Landed(msgspec.Struct, frozen=True):
    """A window that has landed, or a part of one: its manifest, the landing's URI, and what there is of the whole window."""

    manifest: CommitManifest
    uri: str
    view: WindowView

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
        """What goes to the next task."""
        return asset_extra(self.manifest, self.uri)

    @property
    def rejected(self) -> Rejected:
        """The error for a commit outside its thresholds."""
        manifest = self.manifest
        if not manifest.part:
            return Rejected(self.uri, manifest.window, manifest.numbers)
        numbers = f"part {manifest.part}: {manifest.numbers}"
        return Rejected(self.uri, manifest.window, numbers, f" --part {shlex.quote(manifest.part)}")

    @property
    def event(self) -> dict[str, Any] | None:
        """What goes into the asset event; None while the window is not there to be built upon.

        Of several parts that were committed at the same moment each may find the window whole: at least one event comes.
        """
        return window_extra(self.view, self.uri) if self.manifest.passes and self.view.passes else None


@dataclass(frozen=True)
class Commission:
    """Where a commit goes, for whom, and how it is judged."""

    landing: Place
    store: LandingStore
    window: str
    owner: Owner
    run: RunRef
    thresholds: Thresholds
    early: bool = False
    """Commits before the window is complete may have been made."""
    part: str = ""
    """The part of the window that this is, where it is landed in parts."""


def collect(
    manifests: Iterable[Manifest],
    *,
    open_store: Callable[[str], Store],
    gateway: Gateway,
    landing: Place,
    landing_store: LandingStore,
    window: str,
    owner: Owner,
    run: RunRef,
    thresholds: Thresholds,
    me: str,
    now: Callable[[], datetime],
    log: logging.Logger,
    sleep: Callable[[float], object] | None = None,
    gateways: Gateways | None = None,
    part: str = "",
    at: Callable[[Manifest], Gateway] | None = None,
    processes: int = 1,
) -> Landed:
    """Collect the answers of one or several batches and commit them as one window. Safe to repeat at any point.

    What rounds and rungs answered is laid over the first answers; ``gateways`` gives the service of a rung that asked another,
    ``at`` that of each batch where they are not all at ``gateway``. So many ``processes`` read large results, shard by shard.
    Raises ResultsNotReady while a job runs, ResultsBroken, NotOwner, Unusable for a batch that is named twice, and, after the
    commit under ``_rejected/`` stands, Rejected.
    """
    commission = Commission(landing, landing_store, window, owner, run, thresholds, part=part)
    desks: dict[str, Desk] = {}
    disk = disk_for(landing)
    for manifest in (manifests := tuple(manifests)):
        store = open_store(manifest.workspace)
        its = at(manifest) if at else gateway
        desk = Desk(store, its, me, now, log, sleep, disk=disk, raw="raw" in landing.keep, processes=processes)
        desks.setdefault(manifest.workspace if at is None else _life(manifest), desk)
    asked = [(desks[manifest.workspace if at is None else _life(manifest)], manifest) for manifest in manifests]
    batches = all_gathered(asked, gateways)
    landed = land(desks, commission, batches)
    if landed.manifest.rejected:
        raise landed.rejected
    return landed


def _life(manifest: Manifest) -> str:
    """The folder of the batch's generation, as an absolute URI."""
    return manifest.uri.rpartition("/builds/")[0]


def _desk_of(desks: Mapping[str, Desk], batch: AnsweredBatch) -> Desk:
    """The desk of a batch: its own, where batches are at several services, or that of its workspace."""
    own = desks.get(f"{batch.origin.workspace}/{batch.origin.path}")
    return own or desks[batch.origin.workspace]


def disk_for(landing: Place) -> Disk | None:
    """The local disk for what waits to be landed, where it lands in files."""
    return Disk(landing) if landing.format in ("parquet", "jsonl") else None


def land(
    desks: Mapping[str, Desk], commission: Commission, batches: Sequence[AnsweredBatch], *, complete: bool = True
) -> Landed:
    """Seal the choice, commit it, and close the batches; not ``complete``, it goes under ``_early/`` and nothing is closed.

    Returns a rejected commit too: whoever asked for it has to raise.
    """
    _refuse_repeats(batches)
    batches = sorted((_sealed(_desk_of(desks, batch), batch, complete) for batch in batches), key=_by_path)
    desk, store, place = next(iter(desks.values())), commission.store, commission.landing
    draft = _draft(desks, commission, batches, complete)
    if complete:
        draft = as_accepted_before(store.manifest(commission.window, part=commission.part), draft)
        draft = msgspec.structs.replace(draft, estimated_usd=_settled(desk, batches))
        for batch in batches:
            # Before the commit, so that whoever finds a window finds its dead letters too.
            note_dead_letters(_desk_of(desks, batch), batch)
    tally = Tally()
    manifest = store.commit(
        draft, lambda: counted(LandedRows(batches, place), tally), _Notes(desk, batches, draft.commit)
    )
    if manifest.commit == draft.commit:
        note_report(batches, manifest, store, lambda: counted(LandedRows(batches, place), tally), tally, desk.log)
    landed = Landed(manifest, place.uri, view_of(store, manifest.window, place.parts))
    if complete:
        for batch in batches:
            if told := compare(_desk_of(desks, batch), batch.build, batch.shards):
                desk.log.warning("%s: %s", batch.build.batch, told)
        store.drop_early(manifest, sweep=commission.early)
        for batch in batches:
            index_answers(_desk_of(desks, batch), batch)
            closing.close(_desk_of(desks, batch), batch, manifest, landed.extra)
    desk.log.info("%s window %s is %s: %s", place.name, manifest.label, manifest.verdict.value, manifest.numbers)
    if landed.view.absent:
        desk.log.info("%s window %s: still to come: %s", place.name, manifest.window, ", ".join(landed.view.absent))
    return landed


def _refuse_repeats(batches: Sequence[AnsweredBatch]) -> None:
    """Raises Unusable when a batch would land twice, say in two of its generations: its rows would come twice."""
    times = Counter(batch.origin.batch for batch in batches)
    twice, most = times.most_common(1)[0]
    if most > 1:
        named = ", ".join(f"{one.origin.workspace}/{one.origin.path}" for one in batches if one.origin.batch == twice)
        raise Unusable(
            f"what is to land names {twice} {most} times", f"its rows would come more than once ({named})",
            "Hand over each batch once, in its newest generation.",
        )  # fmt: skip


@dataclass(frozen=True)
class _Notes:
    """What the ledgers of the batches say of a commit on its way."""

    desk: Desk
    batches: Sequence[AnsweredBatch]
    commit: str

    def written(self) -> Committing | None:
        return closing.written_parts(self.desk, self.batches[0], self.commit)

    def write(self, manifest: CommitManifest) -> None:
        closing.note_parts(self.desk, self.batches, manifest)


def _by_path(batch: AnsweredBatch) -> str:
    return batch.origin.path


def gathered(
    desk: Desk,
    manifest: Manifest,
    gateways: Gateways | None = None,
    *,
    unless_open: bool = False,
    unless_ready: bool = False,
    ended_only: bool = False,
) -> AnsweredBatch:
    """Every shard of a batch, and of the rounds and rungs above it, collected and joined. Raises as ``answered``.

    With ``unless_open`` shards that have not ended count as not answered yet, with ``unless_ready`` those too whose results do
    not show yet; with ``ended_only`` they are left out.
    """
    (batch,) = all_gathered(
        [(desk, manifest)], gateways, unless_open=unless_open, unless_ready=unless_ready, ended_only=ended_only
    )
    return batch


def all_gathered(
    asked: Sequence[tuple[Desk, Manifest]],
    gateways: Gateways | None = None,
    *,
    unless_open: bool = False,
    unless_ready: bool = False,
    ended_only: bool = False,
) -> list[AnsweredBatch]:
    """Several batches, each as ``gathered``."""
    opened = [_Opened.of(desk, manifest, ended_only) for desk, manifest in asked]
    processes = max((desk.processes for desk, _ in asked), default=1)
    with readers_for([one.build for one in opened], processes) or nullcontext() as readers:
        coming = (one.coming(readers, unless_open, unless_ready) for one in opened)
        found = _in_turn(chain.from_iterable(coming), readers.processes if readers else 0)
        shards = [tuple(islice(found, len(one.shards))) for one in opened]
    return [
        one.joined(answered, gateways, unless_open=unless_open or ended_only, unless_ready=unless_ready)
        for one, answered in zip(opened, shards, strict=True)
    ]


@dataclass(frozen=True)
class _Opened:
    """A batch whose shards are asked for."""

    desk: Desk
    manifest: Manifest
    build: Build
    shards: tuple[Shard, ...]

    @classmethod
    def of(cls, desk: Desk, manifest: Manifest, ended_only: bool) -> _Opened:
        build = with_keys_here(desk, read_build(desk.store, manifest.path))
        shards = (
            shard
            for shard in build.shards
            if not (ended_only and is_open(fact_store.shard_facts(desk.store, shard.ledger)))
        )
        return cls(desk, manifest, build, tuple(shards))

    def coming(
        self, readers: Readers | None, unless_open: bool, unless_ready: bool
    ) -> Iterator[Callable[[], Answered]]:
        """The shards, each begun when it is asked for."""
        desk, build = self.desk, self.build
        if readers is not None:
            desk = replace(desk, readers=readers.of(build, desk.store, desk.disk))
        given_up = given_up_in(rungs_of(desk.store, build))
        prices, check = prices_of_build(desk.store, build, me=desk.me, now=desk.now), check_of(build)
        for shard in self.shards:
            yield answering(
                desk,
                prices,
                shard,
                check,
                unless_open=unless_open,
                unless_ready=unless_ready,
                given_up=shard_name(shard) in given_up,
            )

    def joined(
        self, shards: tuple[Answered, ...], gateways: Gateways | None, *, unless_open: bool, unless_ready: bool
    ) -> AnsweredBatch:
        """The batch, with the rounds and rungs above it."""
        desk, build, check = self.desk, self.build, check_of(self.build)
        layers = layers_of(
            replace(desk, disk=None), build, check, gateways or (lambda _: desk.gateway), unless_open=unless_open,
            unless_ready=unless_ready,
        )  # fmt: skip
        origin = Origin(
            batch=build.batch, generation=build.generation, build=build.id, seal=0, workspace=self.manifest.workspace
        )
        return AnsweredBatch(desk.store, build, origin, check, shards, layers)


def _in_turn(coming: Iterable[Callable[[], Answered]], ahead: int) -> Iterator[Answered]:
    """What comes, in its order; so many more are begun before one is waited for."""
    waiting = deque[Callable[[], Answered]]()
    for come in coming:
        waiting.append(come)
        if len(waiting) > ahead:
            yield waiting.popleft()()
    for come in waiting:
        yield come()


def _sealed(desk: Desk, batch: AnsweredBatch, complete: bool) -> AnsweredBatch:
    """The batch with its choice of results on record."""
    seal = closing.seal_results(desk, batch.build, _results(batch), partial=not complete)
    return replace(batch, origin=msgspec.structs.replace(batch.origin, seal=seal))


def _results(batch: AnsweredBatch) -> tuple[ShardResult, ...]:
    above = (result for layer in batch.layers for result in layer.results)
    return (*(shard.result for shard in batch.shards), *above)


def _draft(
    desks: Mapping[str, Desk], commission: Commission, batches: Sequence[AnsweredBatch], complete: bool = True
) -> CommitManifest:
    """The manifest as far as it is known before the parts: identity, counts and verdict."""
    desk = next(iter(desks.values()))
    shards = [shard for batch in batches for shard in _all_shards(batch)]
    counts = {kind.value: sum(batch.counts[kind] for batch in batches) for kind in Outcomes}
    verdict = judge(counts, commission.thresholds, complete=complete)
    sealed = {batch.origin: _results(batch) for batch in batches}
    jobs = tuple(shard.job for shard in shards if shard.job is not None)
    prices = _prices(desk, batches)
    created = [job.created_at for job in jobs if job.created_at]
    ended = [job.ended_at for job in jobs if job.ended_at]
    return CommitManifest(
        landing=commission.landing.name,
        window=commission.window,
        part=commission.part,
        commit=commit_id(
            commission.window, commission.landing.content, sealed, identity_of(prices), part=commission.part
        ),
        format=commission.landing.format,
        parts=(),
        rows=sum(counts.values()),
        counts=counts,
        lines=sum((shard.lines for shard in shards), LineCounts()),
        complete=verdict.complete,
        verdict=verdict.verdict,
        numbers=verdict.numbers if complete else f"early, of {_asked(batches)} rows: {verdict.numbers}",
        thresholds=commission.thresholds,
        owner=commission.owner,
        run=commission.run,
        origins=tuple(batch.origin for batch in batches),
        jobs=jobs,
        models=_models(batches),
        submitted_at=min(created, default=None),
        finished_at=max(ended, default=None),
        committed_at=desk.now(),
        turnaround_s=turnaround(jobs),
        price_as_of=identity_of(prices),
        price_sources=tuple(dict.fromkeys(one.told(max(ended, default=desk.now())) for one in prices)),
        **_spending(desks, batches),
    )


def _settled(desk: Desk, batches: Sequence[AnsweredBatch]) -> dict[str, str | None] | None:
    """Hold what the root builds cost against their estimates, and settle what was charged for them."""
    spans: list[Span] = []
    for batch in batches:
        kept = (layer.spent for layer in batch.layers if isinstance(layer, KeptLayer))
        # An estimate is of all rows: what was used again counts as what it would have cost.
        saved = (layer.saved for layer in batch.layers if isinstance(layer, KeptLayer))
        real = sum_of((*(shard.spent for shard in batch.shards), *kept, *saved)).cost_usd
        books = Books(batch.store, batch.origin.path, None, me=desk.me, now=desk.now)
        settle_build(books, batch.store, batch.build, sum_of(shard.spent for shard in batch.shards).cost_usd)
        span = reconcile_cost(batch.build, batch.store, real, desk.log)
        spans += [span] if span else []
    return reduce(Span.plus, spans).amounts() if len(spans) == len(batches) else None


def _prices(desk: Desk, batches: Sequence[AnsweredBatch]) -> tuple[PriceList, ...]:
    """The prices that the batches were counted by, of all models that were asked."""
    found = (
        standing_prices(batch.store, batch.origin.path, model, me=desk.me, now=desk.now)
        for batch in batches
        for model in _models([batch])
    )
    return tuple(dict.fromkeys(prices for prices in found if prices))


def _spending(desks: Mapping[str, Desk], batches: Sequence[AnsweredBatch]) -> dict[str, Any]:
    """What the manifest says of tokens and money, strays apart."""
    above = [layer.spent for batch in batches for layer in batch.layers]
    spent = sum_of((*(shard.spent for batch in batches for shard in batch.shards), *above))
    if spent.cost_usd is None:
        models = ", ".join(_models(batches))
        log = next(iter(desks.values())).log
        log.warning("no price is known for %s: the cost of this window is unknown, not zero", models)
    strays = [(its, shard, stray) for its, shard in _desks_of(desks, batches) for stray in shard.strays]
    strayed = sum_of(stray_spent(its, shard, stray) for its, shard, stray in strays)
    return {
        "strays": tuple(_stray_ref(shard, stray) for _, shard, stray in strays),
        "tokens": spent.tokens,
        "cost_usd": money(spent.cost_usd),
        "strays_cost_usd": money(strayed.cost_usd) if strays else None,
        "cache_storage_usd": _storage(next(iter(desks.values())), batches),
        **_reused(batches),
    }


def _storage(desk: Desk, batches: Sequence[AnsweredBatch]) -> str | None:
    """What keeping the prompt caches of the batches has cost; None without any, or where no price is known."""
    costs = [
        storage_cost(tuple(use for shard in _all_shards(batch) for use in shard.caches), batch.build.model, desk.now())
        for batch in batches
        if any(shard.caches for shard in _all_shards(batch))
    ]
    if None in costs:
        desk.log.warning("what keeping the prompt caches cost is not known for the model: it is unknown, not zero")
        return None
    return money(sum((cost for cost in costs if cost is not None), Decimal(0))) if costs else None


def _reused(batches: Sequence[AnsweredBatch]) -> dict[str, Any]:
    """How many rows had been answered before, and what they would have cost."""
    layers = [layer for batch in batches for layer in batch.layers if isinstance(layer, KeptLayer)]
    rows = sum(layer.reused_rows for layer in layers)
    return {"reused_rows": rows, "reused_usd": money(sum_of(layer.saved for layer in layers).cost_usd)} if rows else {}


def _all_shards(batch: AnsweredBatch) -> Iterator[Answered]:
    yield from batch.shards
    for layer in batch.layers:
        yield from layer.shards


def _desks_of(desks: Mapping[str, Desk], batches: Sequence[AnsweredBatch]) -> Iterator[tuple[Desk, Answered]]:
    """Every shard with the desk whose service has its jobs: a rung may have asked another one."""
    for batch in batches:
        own = replace(_desk_of(desks, batch), store=batch.store)
        yield from ((own, shard) for shard in batch.shards)
        for layer in batch.layers:
            yield from ((layer.desk if isinstance(layer, BuiltLayer) else own, shard) for shard in layer.shards)


def _asked(batches: Sequence[AnsweredBatch]) -> int:
    return sum(batch.build.rows for batch in batches)


def _models(batches: Sequence[AnsweredBatch]) -> tuple[str, ...]:
    roots = {batch.build.model for batch in batches}
    above = (layer for batch in batches for layer in batch.layers)
    return tuple(
        sorted(roots | {layer.build.model if isinstance(layer, BuiltLayer) else layer.model for layer in above})
    )


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


__all__ = ["Commission", "Landed", "collect", "gathered", "land"]
