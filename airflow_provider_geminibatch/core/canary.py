"""A canary: a small sample asked first, row by row; what its answers are like decides whether the batch is sent.

The sample is a matter of the rows alone: the same rows give the same sample, whoever draws it and however often. Every row of
the batch has about the same chance to be in it, so that plain means speak for the whole.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from itertools import accumulate, pairwise
from typing import Literal, NamedTuple, get_args

import msgspec

from airflow_provider_geminibatch.core.errors import CanaryFailed, Unusable
from airflow_provider_geminibatch.core.ledger import Fact
from airflow_provider_geminibatch.core.model import Outcomes, Usage
from airflow_provider_geminibatch.core.names import digest
from airflow_provider_geminibatch.core.outcomes import Outcome
from airflow_provider_geminibatch.core.prices import Price, batch_cost

CanaryTier = Literal["flex", "standard"]
OnTimeout = Literal["proceed", "fail"]

EXAMPLES = 5
"""How many unusable rows a report names, by their keys."""

_LONGEST = 120


class Canary(msgspec.Struct, frozen=True, kw_only=True):
    """How many rows go first, by what tier, and what their answers have to be like for the rest to follow.

    At most ``max_share`` of the batch is sampled, at least one row, and every shard keeps one at least. ``max_unusable`` is a
    share of the answers; everything but a usable answer counts against it, errors that pass do not count at all. With answers
    to fewer than ``min_judged`` of the sample by the ``limit``, ``on_timeout`` says what follows. Standard costs twice what
    batch and flex cost; in a backfill it takes ``standard_in_backfill`` too, without which flex is asked.
    """

    rows: int = 50
    max_share: float = 0.2
    tier: CanaryTier = "flex"
    max_unusable: float = 0.2
    min_judged: float = 0.5
    limit: timedelta = timedelta(minutes=20)
    on_timeout: OnTimeout = "proceed"
    standard_in_backfill: bool = False

    def __post_init__(self) -> None:
        for name in ("max_share", "min_judged"):
            if not 0 < getattr(self, name) <= 1:
                raise _unusable(self, name, "it is a share of the rows", "Write a number above 0, at most 1.")
        if not 0 <= self.max_unusable < 1:
            raise _unusable(self, "max_unusable", "it is a share of the answers", "Write a number from 0 to under 1.")
        if self.rows < 1:
            raise _unusable(self, "rows", "nothing would be asked", "Write 1 or more, or leave canary= out.")
        if self.limit <= timedelta():
            raise _unusable(self, "limit", "a limit is a time", "Write more than zero.")
        if self.tier not in get_args(CanaryTier):
            raise _unusable(self, "tier", "there is no such tier", "Write 'flex' or 'standard'.")
        if self.on_timeout not in get_args(OnTimeout):
            raise _unusable(self, "on_timeout", "there is no such policy", "Write 'proceed' or 'fail'.")

    def tier_in(self, *, backfill: bool) -> CanaryTier:
        """The tier to ask by: a backfill pays no more than the batch price unless that was allowed."""
        return "flex" if backfill and not self.standard_in_backfill else self.tier


def _unusable(canary: Canary, name: str, why: str, do: str) -> Unusable:
    return Unusable(f"Canary({name}={getattr(canary, name)!r})", why, do)


def quotas(rows: Sequence[int], canary: Canary) -> list[int]:
    """How many rows of each shard are sampled, of shards with so many rows: spread evenly, and never all rows of one."""
    total, spare = sum(rows), [max(0, count - 1) for count in rows]
    wanted = min(canary.rows, max(1, int(total * canary.max_share)), sum(spare))
    ends, found = list(accumulate(rows)), [0] * len(rows)
    for number in range(wanted):
        place = bisect_right(ends, (2 * number + 1) * total // (2 * wanted))
        while found[place] >= spare[place]:  # some shard has one to spare, as no more are wanted than there are
            place = (place + 1) % len(rows)
        found[place] += 1
    return found


def picked(sizes: Sequence[int], wanted: int, seed: str) -> tuple[int, ...]:
    """``wanted`` rows of a shard by the sizes of their lines: one of each class of size, which digests of ``seed`` choose."""
    by_size = sorted(range(len(sizes)), key=sizes.__getitem__)
    bounds = [number * len(sizes) // wanted for number in range(wanted + 1)] if wanted else [0]
    drawn = (
        by_size[low + int(digest(seed, str(number)), 16) % (high - low)]
        for number, (low, high) in enumerate(pairwise(bounds))
    )
    return tuple(sorted(drawn))


class Heard(NamedTuple):
    """What came back for one row. ``responded``: the model did, whatever it said; else there was an error instead."""

    at: tuple[int, int]
    outcome: Outcome
    responded: bool

    @property
    def judged(self) -> bool:
        """True when it tells something of the request: an error that passes does not."""
        return self.responded or not self.outcome.transient


def best_of(heard: Iterable[Heard]) -> list[Heard]:
    """One for each row, in the order of rows: the first usable one, else the last."""
    found: dict[tuple[int, int], Heard] = {}
    for one in heard:
        if one.at not in found or not found[one.at].outcome.usable:
            found[one.at] = one
    return [found[at] for at in sorted(found)]


class Spread(msgspec.Struct, frozen=True):
    """Tokens of a row over a sample: the median, what 95 of 100 rows stay within, the most, and the sum."""

    p50: int = 0
    p95: int = 0
    most: int = 0
    total: int = 0

    def __str__(self) -> str:
        return f"{self.p50}/{self.p95}"


def spread(values: Iterable[int]) -> Spread:
    """The spread of values, by nearest rank."""
    ranked = sorted(values)
    if not ranked:
        return Spread()
    return Spread(_rank(ranked, 50), _rank(ranked, 95), ranked[-1], sum(ranked))


def _rank(ranked: Sequence[int], percent: int) -> int:
    return ranked[max(0, -(-percent * len(ranked) // 100) - 1)]


class Example(msgspec.Struct, frozen=True):
    """An unusable row: its key, its outcome and why; never what was asked or answered."""

    key: str
    outcome: str
    why: str


class CanaryReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a canary found. ``unusable`` counts by outcome, ``reasons`` by outcome and reason.

    Tokens are of the rows that were judged. ``cost_usd`` is what the canary cost, or may have; ``batch_usd`` is what all
    ``rows`` of the batch would cost by batch if they are like the sample: low, expected and high (two standard errors of the
    mean). Both are None without a known price.
    """

    tier: str
    model: str
    rows: int
    asked: int
    usable: int
    unusable: dict[str, int] = {}
    reasons: dict[str, int] = {}
    examples: tuple[Example, ...] = ()
    prompt: Spread = Spread()
    answer: Spread = Spread()
    thoughts: Spread = Spread()
    cached_tokens: int = 0
    cost_usd: str | None = None
    batch_usd: tuple[str, str, str] | None = None
    model_versions: dict[str, int] = {}
    ended: str = ""

    @property
    def bad(self) -> int:
        """Rows with an answer that is not usable."""
        return sum(self.unusable.values())

    @property
    def judged(self) -> int:
        return self.usable + self.bad

    @property
    def sentence(self) -> str:
        """All of it in numbers."""
        said = f"{self.usable} of {self.judged} answers usable"
        if self.bad:
            why = ", ".join(f"{count} {reason}" for reason, count in self.reasons.items())
            said += f"; {self.bad} unusable ({100 * self.bad / self.judged:.3g} %): {why}"
        if self.judged < self.asked:
            said += f"; {self.asked - self.judged} of {self.asked} asked rows have no answer"
        tokens = f"prompt {self.prompt}, answer {self.answer}, thoughts {self.thoughts}"
        return f"{said}; tokens of a row (median/p95): {tokens}; {self._money}"

    @property
    def _money(self) -> str:
        if self.batch_usd is None:
            return f"its cost is unknown, since no price is known for {self.model}"
        low, expected, high = self.batch_usd
        return f"it cost {self.cost_usd} USD, and all {self.rows} rows would cost {expected} USD by batch ({low} to {high})"


class CanaryVerdict(Fact, frozen=True, kw_only=True):
    """``canary/verdict.json``: what a canary found, decided once. ``verdict`` is how it was judged then, ``pass`` or ``stop``;
    whoever submits judges the report by the limits that are set now."""

    verdict: str
    report: CanaryReport


class CanaryRun(msgspec.Struct, frozen=True, kw_only=True):
    """What a report is made from, besides the answers."""

    tier: str
    model: str
    rows: int
    asked: int
    cost_usd: Decimal | None = None
    ended: str = ""


def worst(heard: Sequence[Heard]) -> list[Heard]:
    """A few of the unusable rows, of as many kinds as there are."""
    seen: Counter[str] = Counter()
    ranked: list[tuple[int, int, Heard]] = []
    for number, one in enumerate(heard):
        if one.judged and not one.outcome.usable:
            ranked.append((seen[reason(one.outcome)], number, one))
            seen[reason(one.outcome)] += 1
    return [one for _, _, one in sorted(ranked, key=lambda item: item[:2])[:EXAMPLES]]


def measured(
    heard: Sequence[Heard], run: CanaryRun, price: Price | None, keys: Mapping[tuple[int, int], str]
) -> CanaryReport:
    """The report over the best answer of each row; ``keys`` names the rows of ``worst``."""
    judged = [one for one in heard if one.judged]
    bad = [one.outcome for one in judged if not one.outcome.usable]
    used = [one.outcome.usage for one in judged]
    versions = Counter(one.outcome.model_version for one in judged if one.outcome.model_version)
    return CanaryReport(
        tier=run.tier,
        model=run.model,
        rows=run.rows,
        asked=run.asked,
        usable=len(judged) - len(bad),
        unusable=dict(Counter(outcome.kind.value for outcome in bad).most_common()),
        reasons=dict(Counter(f"{outcome.kind.value} ({reason(outcome)})" for outcome in bad).most_common()),
        examples=tuple(Example(keys[one.at], one.outcome.kind.value, reason(one.outcome)) for one in worst(heard)),
        prompt=spread(usage.prompt for usage in used),
        answer=spread(usage.candidates for usage in used),
        thoughts=spread(usage.thoughts for usage in used),
        cached_tokens=sum(usage.cached for usage in used),
        cost_usd=None if run.cost_usd is None else _plain(run.cost_usd),
        batch_usd=None if price is None else _for_all(used, price, run.rows),
        model_versions=dict(sorted(versions.items())),
        ended=run.ended,
    )


def _for_all(used: Sequence[Usage], price: Price, rows: int) -> tuple[str, str, str]:
    """What ``rows`` rows like these cost by batch: low, expected, high."""
    costs = [batch_cost(price, usage) for usage in used]
    if not costs:
        return ("0", "0", "0")
    count = len(costs)
    mean = sum(costs, Decimal(0)) / count
    # One row alone says nothing of how they differ: the next may cost nothing, or twice as much.
    squares = sum(((cost - mean) ** 2 for cost in costs), Decimal(0))
    error = 2 * (squares / (count - 1) / count).sqrt() if count > 1 else mean
    return _usd(max(Decimal(0), mean - error) * rows), _usd(mean * rows), _usd((mean + error) * rows)


def _usd(amount: Decimal) -> str:
    """To a millionth of a dollar."""
    return _plain(amount.quantize(Decimal("0.000001")))


def _plain(amount: Decimal) -> str:
    return f"{amount.normalize() if amount else Decimal(0):f}"


_INDEX = re.compile(r"\[\d+\]")


def reason(outcome: Outcome) -> str:
    """Why an answer is unusable, in words that say nothing of its content and are the same for all rows that share them.

    The service's own text is left out, as it may repeat what was asked.
    """
    if outcome.kind is Outcomes.FAILED:
        return f"code {outcome.code}" if outcome.code is not None else outcome.finish_reason or "no readable response"
    if outcome.reason.startswith("not JSON"):
        return "not JSON"
    said = _INDEX.sub("[*]", outcome.reason)
    return said if len(said) <= _LONGEST else said[: _LONGEST - 1] + "…"


class Judgement(NamedTuple):
    """Whether the batch may follow its canary: ``problem`` says why not, ``warning`` what is doubtful about it."""

    problem: str = ""
    warning: str = ""


def judge(report: CanaryReport, canary: Canary) -> Judgement:
    """The report held against the limits."""
    if not report.asked:
        return Judgement()
    allowed = f"at most {100 * canary.max_unusable:.3g} % are allowed"
    # What is bad already stays so, however good the rest may be; see core.verdict for the last term.
    if report.bad > canary.max_unusable * report.asked + 1e-9:
        return Judgement(f"too many unusable answers, {allowed}")
    if report.judged < max(1.0, canary.min_judged * report.asked - 1e-9):
        why = f" ({report.ended})" if report.ended else ""
        few = f"only {report.judged} of {report.asked} rows were answered{why}"
        return Judgement(few) if canary.on_timeout == "fail" else Judgement("", f"{few}, which says little")
    if report.bad > canary.max_unusable * report.judged + 1e-9:
        return Judgement(f"too many unusable answers, {allowed}")
    return Judgement()


PARITY_SHARE = 0.05
"""How much larger the share of unusable answers has to be by batch to be worth a word."""


def disparity(report: CanaryReport, counts: Mapping[str, int], versions: Mapping[str, int]) -> str:
    """How the answers of a batch differ from those of its canary, or an empty text: the same requests should fare alike.

    ``counts`` are rows per outcome, of which those without a line say nothing here; ``versions`` lines per version of the model.
    """
    told: list[str] = []
    ours, theirs = (sorted(filter(None, found)) for found in (report.model_versions, versions))
    if ours and theirs and ours != theirs:
        told.append(f"the canary was answered by {', '.join(ours)}, the batch by {', '.join(theirs)}")
    lines = sum(counts.values()) - counts.get(Outcomes.MISSING, 0)
    bad = lines - counts.get(Outcomes.ANSWER, 0)
    if lines and report.judged:
        before, now = report.bad / report.judged, bad / lines
        both = (report.bad + bad) / (report.judged + lines)
        # The error of the difference of two shares; three of it are no accident.
        error = (both * (1 - both) * (1 / report.judged + 1 / lines)) ** 0.5
        if abs(now - before) > max(PARITY_SHARE, 3 * error):
            told.append(f"{100 * before:.3g} % of the canary's answers were unusable, {100 * now:.3g} % of the batch's")
    return "; ".join(told)


_DO = {
    Outcomes.TRUNCATED: "Allow longer answers (maxOutputTokens) or less thinking (thinkingConfig).",
    Outcomes.INVALID: "Make the schema easier to meet, or ask for it by another field (docs/schemas.md).",
    Outcomes.BLOCKED: "Look at the prompts and safetySettings.",
    Outcomes.EMPTY: "Look at the prompts; less thinking (thinkingConfig) leaves more room for the answer.",
    Outcomes.FAILED: "Correct the requests: the service answers these with an error.",
}


def failure(label: str, report: CanaryReport, canary: Canary, uri: str) -> CanaryFailed | None:
    """The error of a canary that does not let its batch go, or None. ``uri`` is where the report lies."""
    problem = judge(report, canary).problem
    if not problem:
        return None
    most = next(iter(report.unusable), None)
    do = _DO[Outcomes(most)] if most else "Look at the service's status; with on_timeout='proceed' so few answers do."
    return CanaryFailed(label, problem, report.sentence, examples_text(report), do, uri)


def examples_text(report: CanaryReport) -> str:
    """``'k7' truncated (MAX_TOKENS), …``, or an empty text."""
    return ", ".join(f"{one.key!r} {one.outcome} ({one.why})" for one in report.examples)


__all__ = [
    "Canary",
    "CanaryReport",
    "CanaryRun",
    "CanaryVerdict",
    "Example",
    "Heard",
    "Judgement",
    "Spread",
    "best_of",
    "disparity",
    "failure",
    "judge",
    "measured",
    "picked",
    "quotas",
    "reason",
    "spread",
    "worst",
]
