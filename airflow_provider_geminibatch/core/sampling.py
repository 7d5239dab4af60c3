"""A sample of a batch's lines, and what it says of all of them.

The bytes of all shards are cut into equal zones, and in each zone two places are drawn by digest: the line that holds the place
is in the sample. So it is spread over all shards, a line is drawn in proportion to its size (long lines decide the cost),
nothing has to be read but the sample, and equal rows give an equal sample. A batch of no more rows than the sample is
counted whole.

The total is tokens per byte, averaged in each zone, times the bytes of the zone: the Hansen-Hurwitz estimator of sampling in
proportion to size, stratified (Cochran, Sampling Techniques, 3rd ed., 9A.3 and 5.3). Its variance is the sum of
``bytes² · s² / n`` over the zones; the interval is Student's at 95 %, its degrees of freedom Satterthwaite's (5.4), since a
few zones may bring most of the variance. Lines are drawn with replacement, for which there is no finite population
correction: what a small batch gains is that it is counted whole.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from decimal import Decimal
from itertools import accumulate
from typing import NamedTuple

from airflow_provider_geminibatch.core.names import digest

SAMPLE = 100
"""Requests in a sample unless told otherwise: a few seconds of counting, and an interval of some per cent."""

_T975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
         2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042)  # fmt: skip
"""Student's t at 97.5 % for 1 to 30 degrees of freedom; beyond, that of the normal distribution and a little more."""


_ROUNDING = Decimal("1e-9")
"""So that three zones alike have three degrees of freedom, whatever their unit."""


def student(freedom: int) -> Decimal:
    """How many standard errors 95 of 100 intervals need to each side."""
    return Decimal(str(_T975[max(1, freedom) - 1] if freedom <= len(_T975) else 2.04))


class Span(NamedTuple):
    """An interval; ``expected`` is None where only its ends are known."""

    low: Decimal
    expected: Decimal | None
    high: Decimal

    def plus(self, other: Span) -> Span:
        """Both together, as if both were off to the same side."""
        known = self.expected is not None and other.expected is not None
        return Span(
            self.low + other.low,
            self.expected + other.expected if known else None,  # type: ignore[operator]
            self.high + other.high,
        )

    def times(self, factor: Decimal) -> Span:
        return Span(self.low * factor, None if self.expected is None else self.expected * factor, self.high * factor)

    def amounts(self) -> dict[str, str | None]:
        """An interval of money as plain text, to a millionth of a dollar."""
        six = Decimal("0.000001")
        return {name: None if value is None else f"{value.quantize(six):f}" for name, value in self._asdict().items()}

    def holds(self, value: Decimal) -> bool:
        """True when the value lies inside."""
        return self.low <= value <= self.high


def exactly(value: Decimal | int) -> Span:
    """A value that is known."""
    return Span(Decimal(value), Decimal(value), Decimal(value))


# The sample


def places(shard_bytes: Sequence[int], wanted: int, seed: str) -> list[list[tuple[int, int]]]:
    """Where to look, zone by zone: (shard, byte in it), two of each zone. Only what is in ``seed`` and sizes decides."""
    ends = list(accumulate(shard_bytes))
    total, zones = ends[-1] if ends else 0, max(1, wanted // 2)
    found = []
    for zone in range(zones if total else 0):
        low, high = zone * total // zones, (zone + 1) * total // zones
        drawn = (low + int(digest(seed, str(zone), str(draw)), 16) % max(1, high - low) for draw in range(2))
        found.append([_within(ends, at) for at in drawn])
    return found


def _within(ends: Sequence[int], at: int) -> tuple[int, int]:
    shard = bisect_right(ends, at)
    return shard, at - (ends[shard - 1] if shard else 0)


class Seen(NamedTuple):
    """One line of the sample: its size, the tokens of its prompt, and the most tokens that its answer may have.

    Between ``least`` and ``most`` the tokens of the prompt lie as far as can be told from its text.
    """

    size_bytes: int
    prompt: int
    cached: int
    output_cap: int
    least: int
    most: int


class Sample(NamedTuple):
    """What was seen of a batch, by zones. ``whole``: all its lines, each of them once."""

    rows: int
    size_bytes: int
    zones: tuple[tuple[Seen, ...], ...]
    whole: bool = False

    @property
    def lines(self) -> list[Seen]:
        return [seen for zone in self.zones for seen in zone]


def total_of(sample: Sample, values: Sequence[Decimal | int]) -> Span:
    """The total over all rows of something that was found in each line of the sample, in the order of ``sample.lines``."""
    if sample.whole:
        return exactly(sum(map(Decimal, values), Decimal(0)))
    found = iter(values)
    ratios = [[Decimal(next(found)) / seen.size_bytes for seen in zone] for zone in sample.zones]
    each = Decimal(sample.size_bytes) / len(ratios)
    total = sum((each * _mean(zone) for zone in ratios), Decimal(0))
    variances = [each**2 * _variance(zone) / len(zone) for zone in ratios]
    variance, squares = sum(variances, Decimal(0)), sum((one * one for one in variances), Decimal(0))
    half = student(int(variance * variance / squares + _ROUNDING)) * variance.sqrt() if squares else Decimal(0)
    return Span(max(Decimal(0), total - half), total, total + half)


def _mean(values: Sequence[Decimal]) -> Decimal:
    return sum(values, Decimal(0)) / len(values)


def _variance(values: Sequence[Decimal]) -> Decimal:
    mean = _mean(values)
    return sum(((value - mean) ** 2 for value in values), Decimal(0)) / (len(values) - 1)


def mean_of(sample: Sample, values: Sequence[Decimal | int]) -> Decimal:
    """The mean over all rows: a line was drawn in proportion to its size, so that it stands for the less rows the longer it is."""
    if sample.whole:
        return _mean([Decimal(value) for value in values])
    weights = [1 / Decimal(seen.size_bytes) for seen in sample.lines]
    return sum((Decimal(value) * weight for value, weight in zip(values, weights, strict=True)), Decimal(0)) / sum(
        weights
    )


__all__ = ["SAMPLE", "Sample", "Seen", "Span", "exactly", "mean_of", "places", "student", "total_of"]
