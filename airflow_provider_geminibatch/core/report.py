"""What came of a commit, in numbers: outcomes and their reasons, tokens, money and where it went, times, and the odd rows.

Rows are counted as they stream to the landing; what is kept of them is bounded, however many there are. A report holds keys
of rows and never their content. It says nothing of verdicts: those may change, and stand in the manifest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from heapq import heappush, heapreplace
from typing import Any, NamedTuple

import msgspec

from airflow_provider_geminibatch.core.landing import CommitManifest
from airflow_provider_geminibatch.core.model import Outcomes, Usage
from airflow_provider_geminibatch.core.reconcile import LineCounts

WORST = 10
"""Rows that are named for each oddity."""

MOST_REASONS = 40
"""Reasons that are told apart; the rest is counted as ``others``."""

OTHERS = "others"

METRICS = ("thoughts", "candidates", "cost_usd")
"""What the most extreme rows are named for: tokens of thought, tokens of the answer, money."""

_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`")
_NUMBER = re.compile(r"\d+")
_REASON_CHARACTERS = 100


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """The rows of one outcome. ``first`` names some of those without an answer."""

    rows: int = 0
    cost_usd: str | None = "0"
    reasons: dict[str, int] = {}
    first: tuple[str, ...] = ()


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What one way of asking took. ``asked`` is the rows that it was asked for."""

    source: str
    """``first``, ``canary``, ``round 1``, ``rung 1`` …"""
    route: str
    """``batch``, ``flex`` or ``standard``."""
    model: str
    asked: int | None = None
    tokens: Usage = Usage()
    cost_usd: str | None = None


class BatchCost(msgspec.Struct, frozen=True, kw_only=True):
    """One of the batches of a commit: the folder of its generation, its rows, and what they took."""

    batch: str
    rows: int
    costs: tuple[Cost, ...]


class Turnaround(msgspec.Struct, frozen=True, kw_only=True):
    """How long one job took, by the service's clock."""

    shard: str
    job: str
    rows: int
    state: str
    seconds: float | None = None


class Estimated(msgspec.Struct, frozen=True, kw_only=True):
    """What was estimated before the root builds were sent, and what that part of the work cost."""

    low: str
    expected: str | None
    high: str
    actual: str | None
    within: bool | None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """``_report-<commit>.json``, beside the files of the commit that it tells of."""

    v: int = 1
    landing: str
    window: str
    part: str = ""
    commit: str
    complete: bool
    rows: int
    outcomes: dict[str, Kind]
    rounds: dict[str, int] = {}
    """Rows by what answered them: ``first``, ``round 1``, or the rung or canary by its name."""
    lines: LineCounts
    tokens: Usage
    cost_usd: str | None
    costs: tuple[Cost, ...]
    """Of all batches together."""
    batches: tuple[BatchCost, ...] = ()
    strays_cost_usd: str | None = None
    cache_storage_usd: str | None = None
    cached_share: float | None = None
    """How much of the prompts came from a cache, made by us or by the service: from 0 to 1; None without prompts."""
    reused_rows: int = 0
    """Rows that had been answered before, and what they would have cost by batch."""
    reused_usd: str | None = None
    price_sources: tuple[str, ...] = ()
    estimate: Estimated | None = None
    turnaround_s: dict[str, float] = {}
    jobs: tuple[Turnaround, ...] = ()
    most: dict[str, tuple[tuple[str, int | str], ...]] = {}
    """By ``METRICS``: the keys of the most extreme rows, the first one first."""


class Seen(NamedTuple):
    """What is counted of one row, in the order of ``COLUMNS``."""

    key: str
    outcome: str
    error: str | None
    code: int | None
    finish_reason: str | None
    candidates: int
    thoughts: int
    cost_usd: Decimal | None
    shard: str | None
    round: int | None


COLUMNS = (
    "key", "outcome", "error", "code", "finish_reason", "tokens_candidates", "tokens_thoughts", "cost_usd", "shard", "round",
)  # fmt: skip
"""The columns of a landing that ``Seen`` is made of."""


class Tally:
    """Counts rows as they pass. What it keeps is bounded by the kinds, ``MOST_REASONS`` and ``WORST``."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all rows."""
        self.rows = 0
        self.kinds: dict[str, int] = {}
        self.costs: dict[str, Decimal | None] = {}
        self.reasons: dict[str, dict[str, int]] = {}
        self.first: dict[str, list[str]] = {}
        self.rounds: dict[str, int] = {}
        self._most: dict[str, list[tuple[Any, int, str]]] = {metric: [] for metric in METRICS}

    def add(self, row: Seen) -> None:
        """Count one row."""
        number = self.rows
        self.count(row.outcome, 1, row.cost_usd)
        self.count_round(row.round, row.shard, 1)
        if row.outcome != Outcomes.ANSWER:
            self.blame(row)
        self.offer("thoughts", row.thoughts, number, row.key)
        self.offer("candidates", row.candidates, number, row.key)
        if row.cost_usd is not None:
            self.offer("cost_usd", row.cost_usd, number, row.key)

    def count(self, outcome: str, rows: int, cost_usd: Decimal | None) -> None:
        """Count rows of one outcome and what they cost together; None is unknown."""
        self.rows += rows
        self.kinds[outcome] = self.kinds.get(outcome, 0) + rows
        known = self.costs.get(outcome, Decimal(0))
        self.costs[outcome] = None if known is None or cost_usd is None else known + cost_usd

    def count_round(self, round_: int | None, shard: str | None, rows: int) -> None:
        """Count rows by what answered them."""
        name = answered_by(round_, shard)
        self.rounds[name] = self.rounds.get(name, 0) + rows

    def blame(self, row: Seen) -> None:
        """Note why a row has no answer."""
        why, reasons = reason_of(row), self.reasons.setdefault(row.outcome, {})
        if why not in reasons and len(reasons) >= MOST_REASONS:
            why = OTHERS
        reasons[why] = reasons.get(why, 0) + 1
        first = self.first.setdefault(row.outcome, [])
        if len(first) < WORST:
            first.append(row.key)

    def least(self, metric: str) -> Any:
        """What a row has to exceed to be named; None while any will do."""
        heap = self._most[metric]
        return heap[0][0] if len(heap) == WORST else None

    def offer(self, metric: str, value: Any, number: int, key: str) -> None:
        """Name the row if it is among the most extreme; of equals, the first ones."""
        heap = self._most[metric]
        if not value:
            return
        entry = (value, -number, key)
        if len(heap) < WORST:
            heappush(heap, entry)
        elif entry > heap[0]:
            heapreplace(heap, entry)

    def most(self, metric: str) -> tuple[tuple[str, int | str], ...]:
        """The most extreme rows, the first one first, each with its value."""
        ranked = sorted(self._most[metric], reverse=True)
        return tuple((key, value if isinstance(value, int) else plain(value)) for value, _, key in ranked)


def reason_of(row: Seen) -> str:
    """Why a row has no answer, without anything that is only its own: no values, no numbers."""
    if row.finish_reason and row.finish_reason != "STOP":
        return row.finish_reason
    if row.code:
        return f"code {row.code}"
    said = _NUMBER.sub("#", _QUOTED.sub("…", row.error or "no reason given"))
    return said if len(said) <= _REASON_CHARACTERS else said[: _REASON_CHARACTERS - 1] + "…"


def answered_by(round_: int | None, shard: str | None) -> str:
    """How the report calls what answered a row."""
    if round_ is None:
        return shard or "?"
    return f"round {round_}" if round_ else "first"


def plain(amount: Decimal) -> str:
    """An amount of USD as plain decimal text."""
    return format(amount.normalize() if amount else Decimal(0), "f")


def together(costs: Iterable[Cost]) -> tuple[Cost, ...]:
    """Costs by source, route and model, each once; an unknown one makes its sum unknown."""
    found: dict[tuple[str, str, str], Cost] = {}
    for cost in costs:
        name = (cost.source, cost.route, cost.model)
        found[name] = _plus(found[name], cost) if name in found else cost
    return tuple(found.values())


def _plus(one: Cost, other: Cost) -> Cost:
    asked = None if one.asked is None or other.asked is None else one.asked + other.asked
    known = one.cost_usd is not None and other.cost_usd is not None
    cost = plain(Decimal(one.cost_usd or 0) + Decimal(other.cost_usd or 0)) if known else None
    return msgspec.structs.replace(one, asked=asked, tokens=one.tokens + other.tokens, cost_usd=cost)


def report_of(
    manifest: CommitManifest, tally: Tally, batches: Sequence[BatchCost], estimated_part: Decimal | None
) -> Report:
    """The report of a commit. ``estimated_part`` is what that part of the work cost for which there was an estimate."""
    return Report(
        landing=manifest.landing,
        window=manifest.window,
        part=manifest.part,
        commit=manifest.commit,
        complete=manifest.complete,
        rows=tally.rows,
        outcomes={kind.value: _kind(tally, kind.value) for kind in Outcomes if tally.kinds.get(kind.value)},
        rounds=dict(sorted(tally.rounds.items())),
        lines=manifest.lines,
        tokens=manifest.tokens,
        cost_usd=manifest.cost_usd,
        costs=together(cost for batch in batches for cost in batch.costs),
        batches=tuple(batches),
        strays_cost_usd=manifest.strays_cost_usd,
        cache_storage_usd=manifest.cache_storage_usd,
        cached_share=cached_share(manifest.tokens),
        reused_rows=manifest.reused_rows,
        reused_usd=manifest.reused_usd,
        price_sources=manifest.price_sources,
        estimate=_estimated(manifest.estimated_usd, estimated_part),
        turnaround_s=manifest.turnaround_s,
        jobs=tuple(
            Turnaround(shard=job.shard, job=job.name, rows=job.rows, state=job.state, seconds=job.turnaround_seconds)
            for job in manifest.jobs
        ),
        most={metric: found for metric in METRICS if (found := tally.most(metric))},
    )


def _kind(tally: Tally, kind: str) -> Kind:
    cost = tally.costs[kind]
    reasons = sorted(tally.reasons.get(kind, {}).items(), key=lambda item: (-item[1], item[0]))
    return Kind(
        rows=tally.kinds[kind],
        cost_usd=None if cost is None else plain(cost),
        reasons=dict(reasons),
        first=tuple(tally.first.get(kind, ())),
    )


def _estimated(amounts: Mapping[str, str | None] | None, actual: Decimal | None) -> Estimated | None:
    if not amounts or amounts.get("low") is None or amounts.get("high") is None:
        return None
    low, high = str(amounts["low"]), str(amounts["high"])
    within = None if actual is None else Decimal(low) <= actual <= Decimal(high)
    return Estimated(
        low=low, expected=amounts.get("expected"), high=high, actual=None if actual is None else plain(actual), within=within
    )  # fmt: skip


def table(report: Report) -> str:
    """The report in a few lines, for a log."""
    lines = [
        ("outcomes", "; ".join(_told_kind(name, kind, report.rows) for name, kind in report.outcomes.items()) or "no rows"),
        ("answered by", _few(f"{name} {rows:,}" for name, rows in report.rounds.items()) if len(report.rounds) > 1 else ""),
        ("kept aside", _told_lines(report.lines)),
        ("tokens", _told_tokens(report.tokens)),
        ("cost", _told_cost(report)),
        ("turnaround", _told_turnaround(report)),
        ("most", _told_most(report.most)),
    ]  # fmt: skip
    label = f"{report.window} part {report.part}" if report.part else report.window
    head = f"{report.landing} window {label}: {report.rows:,} rows, commit {report.commit}"
    return "\n".join([head, *(f"  {name:<12}{told}" for name, told in lines if told)])


def _told_kind(name: str, kind: Kind, rows: int) -> str:
    told = f"{name} {kind.rows:,} ({100 * kind.rows / rows:.3g} %)"
    if not kind.reasons:
        return told
    return f"{told}: {_few(f'{count:,} {why}' for why, count in kind.reasons.items())}"


def _few(told: Iterable[str], most: int = 3) -> str:
    every = list(told)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more


def _told_lines(lines: LineCounts) -> str:
    counts = msgspec.structs.asdict(lines)
    total = counts.pop("lines")
    odd = ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)
    return f"of {total:,} lines: {odd}" if odd else ""


def cached_share(tokens: Usage) -> float | None:
    """How much of the prompts came from a cache."""
    return round(min(tokens.cached / tokens.prompt, 1.0), 4) if tokens.prompt else None


def _told_tokens(tokens: Usage) -> str:
    cached = f" ({tokens.cached:,} of them cached, {cached_share(tokens):.0%})" if tokens.cached else ""
    return f"prompts {tokens.prompt:,}{cached}, answers {tokens.candidates:,}, thoughts {tokens.thoughts:,}"


def _told_cost(report: Report) -> str:
    told = dollars(report.cost_usd)
    if len(report.costs) > 1:
        told += ": " + ", ".join(f"{cost.source} {dollars(cost.cost_usd)}" for cost in report.costs)
    unanswered = [kind.cost_usd for name, kind in report.outcomes.items() if name != Outcomes.ANSWER]
    if None not in unanswered and (lost := sum((Decimal(cost or 0) for cost in unanswered), Decimal(0))):
        told += f"; {dollars(plain(lost))} of it for rows without an answer"
    if report.strays_cost_usd not in (None, "0"):
        told += f"; stray jobs {dollars(report.strays_cost_usd)}"
    if report.cache_storage_usd is not None:
        told += f"; prompt caches kept for {dollars(report.cache_storage_usd)}"
    if report.reused_rows:
        told += f"; {report.reused_rows:,} rows had been answered before, for {dollars(report.reused_usd)}"
    if report.estimate is not None:
        held = {True: "held", False: "did not hold", None: "not checked"}[report.estimate.within]
        told += f"; estimated {dollars(report.estimate.low)} to {dollars(report.estimate.high)}, which {held}"
    return told


def dollars(amount: str | None) -> str:
    """An amount for people: to a ten thousandth of a dollar, small ones to three digits."""
    if amount is None:
        return "unknown, not zero (no price is known)"
    value = Decimal(amount)
    if value and abs(value) < Decimal("0.1"):
        return f"{Decimal(f'{value:.3g}'):f} USD"
    return f"{value:,.4f} USD" if value else "0 USD"


def _told_turnaround(report: Report) -> str:
    timed = [job for job in report.jobs if job.seconds is not None]
    if not timed:
        return ""
    slowest = max(timed, key=lambda job: job.seconds or 0.0)
    told = f"{len(report.jobs)} job{'s' if len(report.jobs) > 1 else ''}"
    if len(timed) == 1:
        return f"{told}: {spoken(slowest.seconds or 0.0)}"
    middle = report.turnaround_s.get("p50", 0.0)
    return f"{told}: {spoken(middle)} median, {spoken(slowest.seconds or 0.0)} the slowest ({slowest.shard})"


def spoken(seconds: float) -> str:
    """A duration for people."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


_SAID = {"thoughts": "thoughts {} ({})", "candidates": "answer {} ({})", "cost_usd": "cost {} ({})"}


def _told_most(most: Mapping[str, Sequence[tuple[str, int | str]]]) -> str:
    told = []
    for metric, found in most.items():
        key, value = found[0]
        said = f"{value:,} tokens" if isinstance(value, int) else dollars(value)
        told.append(_SAID[metric].format(said, key if len(key) <= 60 else key[:59] + "…"))
    return ", ".join(told)


__all__ = [
    "COLUMNS",
    "BatchCost",
    "Cost",
    "Estimated",
    "Kind",
    "Report",
    "Seen",
    "Tally",
    "Turnaround",
    "answered_by",
    "dollars",
    "plain",
    "reason_of",
    "report_of",
    "spoken",
    "table",
    "together",
]
