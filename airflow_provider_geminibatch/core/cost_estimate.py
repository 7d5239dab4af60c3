"""What a batch will cost, told from a sample of its lines, with an interval; and what its answers may be like.

The prompts are told from the sample (``core.sampling``). What is not asked yet can only be told from answers to the like
(``AnswerSizes``), or bounded by what the requests allow. Which of them it was is always said. An interval of a bound has no
expected value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from math import hypot
from statistics import fmean, stdev
from typing import Any, Literal, NamedTuple

import msgspec

from airflow_provider_geminibatch.core.answer_sizes import AnswerSizes
from airflow_provider_geminibatch.core.budget import INPUT_TOKENS, upper_usage
from airflow_provider_geminibatch.core.prices import BATCH_SHARE, Price, rates
from airflow_provider_geminibatch.core.sampling import Sample, Seen, Span, mean_of, student, total_of

ENOUGH_BATCHES = 3
"""From how many earlier batches on their own differences tell how far the next may be off."""

MEDIA_TOKENS = 258
"""Tokens of a small image, of a page, of a second of video (token guide)."""

IMAGE_TOKENS = 2240
"""`assumed` the most that one image takes, at the highest media resolution."""

_MILLION = Decimal(1_000_000)


def guessed(request: Mapping[str, Any], size_bytes: int, media: Sequence[str]) -> Seen:
    """A line as far as its text tells: about four bytes of text for a token, two at least, eight at most.

    ``request`` is without its media, of which ``media`` are the MIME types.
    """
    text = len(msgspec.json.encode({name: value for name, value in request.items() if name != "model"}))
    cap = upper_usage(request, size_bytes).candidates
    line = Seen(size_bytes, max(1, text // 4), 0, cap, max(1, text // 8), text // 2)
    return with_media(line, media)


def with_media(line: Seen, media: Sequence[str]) -> Seen:
    """The line with parts that nobody has counted: small ones are expected, and anything but an image may fill the window."""
    most = sum(IMAGE_TOKENS if kind.startswith("image/") else INPUT_TOKENS for kind in media)
    few = MEDIA_TOKENS * len(media)
    return line._replace(prompt=line.prompt + few, least=line.least + few, most=min(line.most + most, INPUT_TOKENS))


# The answers

Basis = Literal["canary", "history", "bound"]


class Answers(NamedTuple):
    """What the answers of a batch will take, in tokens, and what that is told from."""

    candidates: Span
    thoughts: Span
    output: Span
    basis: Basis
    told: str


def bounded(sample: Sample) -> Answers:
    """Nothing is known of answers to the like: any length that the requests allow."""
    most = mean_of(sample, [seen.output_cap for seen in sample.lines]) * sample.rows
    span = Span(Decimal(0), None, most)
    per_row = int(most / max(1, sample.rows))
    told = f"no answer to the like is on record, so up to what is allowed: {per_row:,} tokens a row, thoughts included"
    return Answers(span, span, span, "bound", told)


def like_before(sample: Sample, earlier: Sequence[AnswerSizes], basis: Basis = "history") -> Answers | None:
    """Told from answers to the like, of one or several earlier batches; None where there are none.

    From ``ENOUGH_BATCHES`` on, the interval is Student's prediction for the mean of one more batch; of fewer, it reaches from
    what one in twenty answers stayed within to what nineteen in twenty did.
    """
    known = [sizes for sizes in earlier if sizes.answers]
    answers = sum(sizes.answers for sizes in known)
    if not answers:
        return None
    rows = Decimal(sample.rows)
    cap = mean_of(sample, [seen.output_cap for seen in sample.lines])

    def per_row(kind: str) -> Span:
        spreads = [getattr(sizes, kind) for sizes in known]
        mean = Decimal(sum(spread.total for spread in spreads)) / answers
        low, high = Decimal(min(spread.p05 for spread in spreads)), Decimal(max(spread.p95 for spread in spreads))
        if len(known) >= ENOUGH_BATCHES:
            means = [spread.total / sizes.answers for spread, sizes in zip(spreads, known, strict=True)]
            # How batches differ, and how far the mean of so many answers may be off: 3.3 deviations lie between p05 and p95.
            between = float(student(len(known) - 1)) * stdev(means) * (1 + 1 / len(known)) ** 0.5
            within = 2 * float(high - low) / 3.3 * (1 / answers + 1 / max(1, sample.rows)) ** 0.5
            half, mean = Decimal(str(hypot(between, within))), Decimal(str(fmean(means)))
            low, high = max(Decimal(0), mean - half), mean + half
        return Span(min(low, mean, cap), min(mean, cap), min(max(high, mean), cap)).times(rows)

    of = (
        f"{len(known)} earlier batches"
        if len(known) > 1
        else "one earlier batch"
        if basis == "history"
        else "the canary"
    )
    told = f"{answers:,} answers to the like, of {of}"
    return Answers(per_row("candidates"), per_row("thoughts"), per_row("output"), basis, told)


# The cost


class CostEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch will take and cost. Money is None where no price is known."""

    rows: int
    size_bytes: int
    sampled: int
    counted: bool
    """True when the service counted the prompts, false when their size was gone by."""
    guessed_media: int = 0
    prompt: Span
    cached: Span
    candidates: Span
    thoughts: Span
    output: Span
    """Answers and thoughts, which are billed alike."""
    basis: Basis
    answers_told: str
    batch_usd: Span | None = None
    output_usd: Span | None = None
    """Of ``batch_usd``, what the answers cost."""
    standard_usd: Span | None = None
    price_told: str = ""

    @property
    def sentence(self) -> str:
        """One line for a log."""
        by = f"counted on {self.sampled} of {self.rows}" if self.counted else "by size, not counted"
        media = f", media guessed in it: {self.guessed_media}" if self.guessed_media else ""
        tokens = f"{_shown(self.prompt)} prompt tokens ({by}{media})"
        if self.batch_usd is None:
            return f"{tokens}; no price is known, so that the cost is unknown, not zero"
        return f"{tokens}; {dollars(self.batch_usd)} by batch; answers: {self.answers_told}"

    def as_dict(self) -> dict[str, Any]:
        """Numbers and what they are told from, for XCom and JSON."""
        spans = ("prompt", "cached", "candidates", "thoughts")
        return {
            "rows": self.rows,
            "sampled": self.sampled,
            "counted": self.counted,
            "tokens": {name: _whole(getattr(self, name)) for name in spans},
            "answers_from": self.basis,
            "batch_usd": self.batch_usd and self.batch_usd.amounts(),
            "standard_usd": self.standard_usd and self.standard_usd.amounts(),
            "price": self.price_told,
        }


def cost_of(
    sample: Sample, answers: Answers, price: Price | None, *, counted: bool, media: int = 0, price_told: str = ""
) -> CostEstimate:
    """The estimate: prompts from the sample, answers as told, both at today's price."""
    lines = sample.lines
    prompt = _widened(sample, total_of(sample, [seen.prompt for seen in lines]))
    batch = None if price is None else _costs(sample, answers, price, BATCH_SHARE)
    standard = None if price is None else _costs(sample, answers, price, Decimal(1))
    return CostEstimate(
        rows=sample.rows,
        size_bytes=sample.size_bytes,
        sampled=len(lines),
        counted=counted,
        guessed_media=media,
        prompt=prompt,
        cached=total_of(sample, [seen.cached for seen in lines]),
        candidates=answers.candidates,
        thoughts=answers.thoughts,
        output=answers.output,
        basis=answers.basis,
        answers_told=answers.told,
        batch_usd=batch and batch[0].plus(batch[1]),
        output_usd=batch and batch[1],
        standard_usd=standard and standard[0].plus(standard[1]),
        price_told=price_told,
    )


def _costs(sample: Sample, answers: Answers, price: Price, share: Decimal) -> tuple[Span, Span]:
    """What the prompts cost, and what the answers do."""
    per = [rates(price, seen.prompt, share) for seen in sample.lines]
    each = [
        ((seen.prompt - min(seen.cached, seen.prompt)) * rate.input + min(seen.cached, seen.prompt) * rate.cached)
        / _MILLION
        for seen, rate in zip(sample.lines, per, strict=True)
    ]
    prompts = _widened(sample, total_of(sample, each))
    return prompts, answers.output.times(mean_of(sample, [rate.output for rate in per]) / _MILLION)


def _widened(sample: Sample, guess: Span) -> Span:
    """What was guessed may be off by as much as its text and media allow, in all lines alike; what was counted is not."""
    least, middle, most = (
        sum(getattr(seen, name) for seen in sample.lines) or 1 for name in ("least", "prompt", "most")
    )
    return Span(guess.low * least / middle, guess.expected, guess.high * most / middle)


def held_against(estimate: Span, real_usd: Decimal) -> str:
    """What a batch cost beside what it was estimated to; a difference beyond the interval is named."""
    told = f"it cost {_usd(real_usd)} USD, estimated {dollars(estimate)}"
    if estimate.holds(real_usd):
        return told
    end, side = (estimate.high, "above") if real_usd > estimate.high else (estimate.low, "below")
    return f"{told}: {_usd(abs(real_usd - end))} USD {side} the estimate's interval"


def dollars(span: Span) -> str:
    """``3.21 USD (2.90 to 3.60)``, or ``between 0.1 and 3.6 USD``."""
    low, high = _usd(span.low), _usd(span.high)
    if span.expected is None:
        return f"between {low} and {high} USD"
    return f"{_usd(span.expected)} USD" + (f" ({low} to {high})" if span.low != span.high else "")


def _usd(amount: Decimal) -> str:
    """Two digits after the point from a dollar on, else four significant ones."""
    if amount >= 1 or not amount:
        return f"{amount:.2f}"
    return f"{float(amount):.4g}" if amount >= Decimal("0.0001") else f"{amount:.8f}"


def _shown(span: Span) -> str:
    expected = "" if span.expected is None else f"{int(span.expected):,} "
    return f"{expected}({int(span.low):,} to {int(span.high):,})" if span.low != span.high else expected.strip()


def _whole(span: Span) -> dict[str, int | None]:
    return {name: None if value is None else int(value) for name, value in span._asdict().items()}


__all__ = [
    "ENOUGH_BATCHES",
    "MEDIA_TOKENS",
    "Answers",
    "CostEstimate",
    "bounded",
    "cost_of",
    "dollars",
    "guessed",
    "held_against",
    "like_before",
    "with_media",
]
