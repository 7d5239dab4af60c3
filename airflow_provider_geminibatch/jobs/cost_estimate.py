"""What a sealed build will cost: estimated before, put on record, held against a budget, and against the real cost after."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from functools import reduce

from airflow_provider_geminibatch.core.answer_sizes import AnswerSizes, Spread
from airflow_provider_geminibatch.core.canary import CanaryReport, CanaryVerdict
from airflow_provider_geminibatch.core.cost_estimate import (
    Answers,
    CostEstimate,
    bounded,
    cost_of,
    held_against,
    like_before,
)
from airflow_provider_geminibatch.core.errors import BeyondBudget
from airflow_provider_geminibatch.core.ledger import CostEstimated, ShardFacts
from airflow_provider_geminibatch.core.manifest import Manifest
from airflow_provider_geminibatch.core.model import Build
from airflow_provider_geminibatch.core.names import generation_path
from airflow_provider_geminibatch.core.sampling import SAMPLE, Sample, Span
from airflow_provider_geminibatch.gemini.gateway import Gateway
from airflow_provider_geminibatch.jobs.budget import (
    Books,
    Need,
    charge_build,
    need_of,
    prices_to_charge,
    purpose_of,
    unpriced,
)
from airflow_provider_geminibatch.jobs.price_list import PriceBook, prices_of_build
from airflow_provider_geminibatch.jobs.sampled import asked_by, draw, look, task_of
from airflow_provider_geminibatch.jobs.submit import read_build
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.store import Store
from airflow_provider_geminibatch.storage.usage_history import read_usage

QUICK = 20
"""Lines that are looked at for an estimate that nobody asked for and that no service counts."""


def estimate_cost(
    build: Build,
    store: Store,
    *,
    service: str,
    me: str,
    now: Callable[[], datetime],
    log: logging.Logger,
    gateway: Gateway | None = None,
    sample: int = SAMPLE,
    history: Store | None = None,
    book: PriceBook | None = None,
) -> CostEstimate:
    """The estimate of a sealed build. With a gateway the service counts the sample, which is free.

    ``service`` and ``history`` (by default the build's own workspace) say whose earlier answers are gone by. Prices are those
    that the build is counted by, or those of ``book``, with which nothing is written. Raises StoreError, and with a gateway
    KeyRefused, ModelUnknown and ServiceError.
    """
    zones, whole = draw(store, build, sample)
    looked = look(zones, whole, build, gateway, log)
    answers = _answers(build, store, history or store, service, looked.sample)
    prices, at = book.find(build.model) if book else prices_of_build(store, build, me=me, now=now), now()
    return cost_of(
        looked.sample, answers, prices.at(at) if prices else None, counted=looked.counted > 0, media=looked.media,
        price_told=prices.told(at) if prices else "",
    )  # fmt: skip


def _answers(build: Build, store: Store, history: Store, service: str, sample: Sample) -> Answers:
    """A canary measured these very requests; then come earlier answers to the like; then what is allowed."""
    verdict = fact_store.get(store, f"{_generation(build)}/canary/verdict.json", CanaryVerdict)
    measured = like_before(sample, [_measured(verdict.report)], "canary") if verdict else None
    if measured is not None:
        return measured
    earlier = read_usage(
        history, service=service, model=build.model, asked=asked_by(store, build), task=task_of(build.batch)
    )
    return like_before(sample, earlier) or bounded(sample)


def _measured(report: CanaryReport) -> AnswerSizes:
    def spread(*parts: tuple[int, int, int]) -> Spread:
        total, p50, p95 = (sum(numbers) for numbers in zip(*parts, strict=True))
        # A canary keeps no low end; the median is taken to lie in the middle.
        return Spread(total, max(0, 2 * p50 - p95), p50, p95)

    answer = (report.answer.total, report.answer.p50, report.answer.p95)
    thoughts = (report.thoughts.total, report.thoughts.p50, report.thoughts.p95)
    return AnswerSizes(report.judged, spread(answer), spread(thoughts), spread(answer, thoughts))


def note_cost(
    build: Build, store: Store, estimate: CostEstimate, *, me: str, now: Callable[[], datetime], log: logging.Logger
) -> None:
    """Say the estimate, and put it on record, so that the real cost is held against it. The first on record stands."""
    log.info("%s: %s", build.batch, estimate.sentence)
    span = estimate.batch_usd
    if span is None:
        return
    expected = None if span.expected is None else f"{span.expected:f}"
    mine = CostEstimated(
        owner=me, at=now(), low_usd=f"{span.low:f}", expected_usd=expected, high_usd=f"{span.high:f}",
        counted=estimate.counted, answers_from=estimate.basis, sampled=estimate.sampled,
    )  # fmt: skip
    fact_store.put(store, _cost_path(build), mine)


def noted_cost(build: Build, store: Store) -> Span | None:
    """The estimate on record."""
    fact = cost_fact(build, store)
    return fact.span if fact else None


def cost_fact(build: Build, store: Store) -> CostEstimated | None:
    """The estimate on record, and what it was told from."""
    return fact_store.get(store, _cost_path(build), CostEstimated)


def reconcile_cost(build: Build, store: Store, real_usd: Decimal | None, log: logging.Logger) -> Span | None:
    """The estimate on record, held against what the root build cost, for people and in the log."""
    estimate = noted_cost(build, store)
    if estimate is not None and real_usd is not None:
        outside = not estimate.holds(real_usd)
        log.log(logging.WARNING if outside else logging.INFO, "%s: %s", build.batch, held_against(estimate, real_usd))
    return estimate


def afford(
    batches: Sequence[tuple[Manifest, Store]],
    limit_usd: Decimal,
    *,
    me: str,
    now: Callable[[], datetime],
    estimating: Callable[[Build, Store], CostEstimate] | None = None,
    charging: bool = True,
    again: Callable[[ShardFacts], bool] = lambda facts: False,
) -> None:
    """Charge several builds to one limit before any of them is sent, each once; all of them, or BeyondBudget says why none.

    Each is charged at its upper bound, or, with ``estimating``, at the high end of its estimate; the shards of a settled one that
    are sent ``again`` at theirs. Not ``charging``, it is only looked whether they could be, before anything is paid for them.
    """
    builds = [(read_build(store, manifest.path), store) for manifest, store in batches]
    accounts = [Books(store, _generation(build), limit_usd, me=me, now=now) for build, store in builds]
    charged = sum((books.account().charged_usd for books in accounts), Decimal(0))
    if charged and not charging:
        return
    new = [
        (books, build, store)
        for books, (build, store) in zip(accounts, builds, strict=True)
        if not books.has(purpose_of(build))
    ]
    needs = []
    for books, build, store in new:
        if not (prices := prices_to_charge(books, store, build, now())):
            raise beyond(limit_usd, unpriced(build.model), charged)
        needs.append(need_of(store, build, prices, estimating(build, store) if estimating else None))
    for books, (build, store) in zip(accounts, builds, strict=True) if charging else ():
        within = books.within(limit_usd - charged + books.account().charged_usd)
        if books.has(purpose_of(build)) and (why := charge_build(within, store, build, now(), again=again)):
            raise beyond(limit_usd, why, charged)
        charged = sum((each.account().charged_usd for each in accounts), Decimal(0))
    if not needs:
        return
    whole = reduce(Need.plus, needs)
    if charged + whole.usd > limit_usd:
        raise beyond(limit_usd, whole.told(sum(build.rows for _, build, _ in new), limit_usd, charged), charged)
    for (books, build, _), need in zip(new, needs, strict=True) if charging else ():
        others = charged - books.account().charged_usd
        if not books.within(limit_usd - others).charge(purpose_of(build), need.usd, need.estimate):
            raise beyond(limit_usd, need.told(build.rows, limit_usd, charged), charged)
        charged += need.usd


def beyond(limit_usd: Decimal | None, why: str, charged_usd: Decimal) -> BeyondBudget:
    """The error of a budget that does not bear a batch."""
    do = "Allow more, send fewer rows, ask for shorter answers (maxOutputTokens), or go by an estimate (budget='estimate')."
    paid = f"No job was created; {charged_usd:f} USD were charged before, as for a canary, whose answers are kept"
    return BeyondBudget(f"max_cost_usd={limit_usd}", why, do, *([paid] if charged_usd else []))


def _generation(build: Build) -> str:
    return generation_path(build.batch, build.generation)


def _cost_path(build: Build) -> str:
    return f"{_generation(build)}/cost.json"


__all__ = ["QUICK", "afford", "beyond", "cost_fact", "estimate_cost", "note_cost", "noted_cost", "reconcile_cost"]
