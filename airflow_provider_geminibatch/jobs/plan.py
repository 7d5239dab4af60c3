"""What a sealed build is up to: size, tokens, cost, how long it may take, and in how many waves the service takes it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from airflow_provider_geminibatch.core import eta, quotas
from airflow_provider_geminibatch.core.cost_estimate import CostEstimate, dollars
from airflow_provider_geminibatch.core.eta import Estimate
from airflow_provider_geminibatch.core.model import Build
from airflow_provider_geminibatch.core.response_schema import SchemaOverhead, schema_overhead
from airflow_provider_geminibatch.core.sampling import Span
from airflow_provider_geminibatch.gemini.gateway import Gateway
from airflow_provider_geminibatch.jobs.cost_estimate import estimate_cost
from airflow_provider_geminibatch.jobs.price_list import PriceBook
from airflow_provider_geminibatch.storage.history import read_history
from airflow_provider_geminibatch.storage.store import Store

_LONGEST = {"developer": "48 h", "vertex": "72 h in the queue and 24 h of running"}
"""After how long the service gives a job up (batch guides, 2026)."""


@dataclass(frozen=True)
class TierPlan:
    """What a tier of the service makes of a build: ``waves`` is None when a shard is too large for it."""

    tier: int
    tokens: int
    waves: int | None
    rows_per_shard: int


@dataclass(frozen=True)
class Plan:
    """A build before it is sent."""

    build: Build
    cost: CostEstimate
    schema: SchemaOverhead | None
    turnaround: Estimate
    tiers: tuple[TierPlan, ...]
    at: datetime
    place: str = ""
    """Where the batch goes, and why, if there is a choice between places."""
    route: str = "developer"

    def as_dict(self) -> dict[str, Any]:
        """The plan as plain values."""
        build = self.build
        return {
            "model": build.model,
            "rows": build.rows,
            "shards": len(build.shards),
            "size_bytes": build.size_bytes,
            "storage_share": None if self.route == "vertex" else build.size_bytes / quotas.STORAGE_BYTES,
            **{name: value for name, value in self.cost.as_dict().items() if name != "rows"},
            "place": self.place,
            "schema_tokens_per_row": self.schema.tokens if self.schema else 0,
            "turnaround": {
                "p50_seconds": self._seconds(self.turnaround.p50_at),
                "p90_seconds": self._seconds(self.turnaround.p90_at),
                "jobs": self.turnaround.n,
                "basis": self.turnaround.basis,
            },
            "tiers": [
                {
                    "tier": one.tier,
                    "enqueued_tokens": one.tokens,
                    "waves": one.waves,
                    "rows_per_shard": one.rows_per_shard,
                }
                for one in self.tiers
            ],
            "tiers_as_of": quotas.AS_OF.isoformat(),
        }

    def told(self) -> str:
        """The plan for people."""
        build, cost = self.build, self.cost
        largest = max(shard.size_bytes for shard in build.shards)
        shards = "1 shard" if len(build.shards) == 1 else f"{len(build.shards):,} shards, the largest {_bytes(largest)}"
        # Vertex AI reads from a bucket of the user's own, and documents no quota of enqueued tokens.
        share = f" ({build.size_bytes / quotas.STORAGE_BYTES:.1%} of a project's file storage)"
        share = "" if self.route == "vertex" else share
        lines = [
            f"{build.model}: {build.rows:,} rows, {_bytes(build.size_bytes)} in {shards}{share}",
            f"prompts   {_tokens(cost)}",
            *_answers(cost),
            *self._money(),
            *([f"schema    {self.schema.said(build.rows)}"] if self.schema else []),
            *([f"place     {self.place}"] if self.place else []),
            f"time      {self._time()}",
            *(f"tier {one.tier}    {_tier(one)}" for one in self.tiers),
        ]
        if self.tiers:
            lines.append(f"          (limits of the page of {quotas.AS_OF}; prompts only, which is assumed)")
        return "\n".join(lines)

    def _money(self) -> list[str]:
        cost = self.cost
        if cost.batch_usd is None or cost.standard_usd is None:
            return [f"cost      no price is known for {self.build.model}, so that the cost is unknown, not zero"]
        return [
            f"cost      {dollars(cost.batch_usd)} by batch or flex, {dollars(cost.standard_usd)} by standard",
            f"          by {cost.price_told}",
        ]

    def _time(self) -> str:
        seen = self.turnaround
        half, most = self._seconds(seen.p50_at), self._seconds(seen.p90_at)
        if half is None:
            return f"no similar job is on record here, so nothing is known about how long a job takes ({_LONGEST[self.route]} at most)"
        ninth = "" if most is None else f", nine in ten within {_hours(most)}"
        return f"half of {seen.n} jobs ({seen.basis}) took up to {_hours(half)}{ninth}, for each wave"

    def _seconds(self, at: datetime | None) -> float | None:
        return None if at is None else (at - self.at).total_seconds()


def plan_build(
    build: Build,
    store: Store,
    *,
    service: str,
    book: PriceBook,
    now: Callable[[], datetime],
    log: logging.Logger,
    history: Store | None = None,
    gateway: Gateway | None = None,
    sample: int,
    place: str = "",
) -> Plan:
    """The plan of a sealed build; nothing is written. With a gateway the service counts ``sample`` requests, which is free.

    ``history`` is the workspace whose earlier jobs and answers are gone by; by default the build's own.
    """
    history, at = history or store, now()
    cost = estimate_cost(
        build,
        store,
        service=service,
        me="",
        now=now,
        log=log,
        gateway=gateway,
        sample=sample,
        history=history,
        book=book,
    )
    largest = max(shard.rows for shard in build.shards)
    seen = eta.estimate(read_history(history, service, build.model), service, build.model, largest, timedelta(), at)
    schema = schema_overhead(build.response_schema) if build.response_schema else None
    route = "vertex" if service.startswith("vertex ") else "developer"
    tiers = () if route == "vertex" else _tiers(build, cost)
    return Plan(build, cost, schema, seen, tiers, at, place, route)


def _tiers(build: Build, cost: CostEstimate) -> tuple[TierPlan, ...]:
    total = float(cost.prompt.expected or cost.prompt.high)
    shards = [int(total * shard.size_bytes / max(1, build.size_bytes)) for shard in build.shards]
    per_row = max(1.0, total / build.rows)
    return tuple(
        TierPlan(number, limit, quotas.waves(shards, limit), int(limit / per_row))
        for number, limit in enumerate(quotas.enqueued_tokens(build.model), 1)
    )


def _span(span: Span) -> str:
    middle = "" if span.expected is None else f"{int(span.expected):,} tokens"
    return middle + (f" ({int(span.low):,} to {int(span.high):,})" if span.low != span.high else "")


def _answers(cost: CostEstimate) -> list[str]:
    """What answers take; of a bound there is no more to say than what is allowed."""
    if cost.basis == "bound":
        return [f"answers   {cost.answers_told}"]
    return [
        f"answers   {_span(cost.candidates)}, by {cost.answers_told}",
        f"thoughts  {_span(cost.thoughts)}, billed as answers are",
    ]


def _tokens(cost: CostEstimate) -> str:
    how = f"counted by the service on {cost.sampled} rows" if cost.counted else "by size, not counted"
    cached = f", {int(cost.cached.expected or 0):,} of them cached" if cost.cached.high else ""
    media = f"; media guessed in the sample: {cost.guessed_media}" if cost.guessed_media else ""
    return f"{_span(cost.prompt)}, {how}{cached}{media}"


def _tier(one: TierPlan) -> str:
    if one.waves is None:
        return (
            f"{one.tokens:,} tokens at once: a shard is too large ever to be taken; use max_rows_per_shard={one.rows_per_shard:,} "
            "or less"
        )
    return f"{one.tokens:,} tokens at once: {'one wave' if one.waves == 1 else f'{one.waves:,} waves'}"


def _bytes(size: int) -> str:
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"


def _hours(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d}" if minutes >= 60 else f"{minutes} min"


__all__ = ["Plan", "TierPlan", "plan_build"]
