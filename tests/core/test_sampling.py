"""What a sample says of the whole: laws of the estimator, and how often its interval holds."""

from __future__ import annotations

from bisect import bisect_right
from decimal import Decimal
from itertools import accumulate
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.sampling import (
    Sample,
    Seen,
    Span,
    exactly,
    mean_of,
    places,
    student,
    total_of,
)

sizes = st.integers(1, 5000)
tokens = st.integers(0, 3000)


def line(size: int, prompt: int = 0) -> Seen:
    return Seen(size, prompt, 0, 100, prompt, prompt)


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    zones = draw(st.lists(st.tuples(st.tuples(sizes, tokens), st.tuples(sizes, tokens)), min_size=1, max_size=20))
    lines = tuple(tuple(line(*one) for one in zone) for zone in zones)
    return Sample(draw(st.integers(2 * len(zones), 10**6)), draw(st.integers(1, 10**9)), lines)


def prompts(sample: Sample) -> list[int]:
    return [seen.prompt for seen in sample.lines]


@given(samples())
def test_a_total_is_never_below_zero_and_lies_in_its_interval(sample: Sample) -> None:
    low, expected, high = total_of(sample, prompts(sample))
    assert expected is not None
    assert 0 <= low <= expected <= high


@given(samples(), st.integers(1, 1000))
def test_a_hundred_times_the_tokens_is_a_hundred_times_the_total(sample: Sample, factor: int) -> None:
    once, times = total_of(sample, prompts(sample)), total_of(sample, [value * factor for value in prompts(sample)])
    for one, other in zip(once, times, strict=True):
        assert one is not None
        assert float(one) * factor == pytest.approx(float(other), rel=1e-9, abs=1e-9)


@given(samples(), st.integers(1, 50))
def test_twice_the_bytes_of_the_like_is_twice_the_total(sample: Sample, factor: int) -> None:
    more = sample._replace(size_bytes=sample.size_bytes * factor)
    once, times = total_of(sample, prompts(sample)), total_of(more, prompts(more))
    assert float(once.expected or 0) * factor == pytest.approx(float(times.expected or 0), rel=1e-9, abs=1e-9)


@given(samples(), st.fractions(0, 4))
def test_where_every_byte_has_the_same_tokens_the_total_is_known(sample: Sample, per_byte: object) -> None:
    rate = Decimal(str(float(per_byte)))  # type: ignore[arg-type]
    total = total_of(sample, [rate * seen.size_bytes for seen in sample.lines])
    truth = rate * sample.size_bytes
    assert float(total.low) == pytest.approx(float(truth), rel=1e-9)
    assert float(total.high) == pytest.approx(float(truth), rel=1e-9)


@given(st.lists(st.tuples(sizes, tokens), min_size=1, max_size=30))
def test_what_was_counted_whole_is_exact(rows: list[tuple[int, int]]) -> None:
    lines = tuple((line(*row),) for row in rows)
    sample = Sample(len(rows), sum(size for size, _ in rows), lines, whole=True)
    assert total_of(sample, prompts(sample)) == exactly(sum(prompts(sample)))
    assert mean_of(sample, prompts(sample)) * len(rows) == pytest.approx(Decimal(sum(prompts(sample))))


@given(samples(), tokens)
def test_the_mean_of_a_constant_is_the_constant(sample: Sample, value: int) -> None:
    assert float(mean_of(sample, [value] * len(sample.lines))) == pytest.approx(value)


@given(st.lists(st.integers(0, 10**6), max_size=20), st.integers(1, 300), st.text(max_size=5))
def test_places_lie_in_their_shards_and_depend_on_nothing_else(shards: list[int], wanted: int, seed: str) -> None:
    zones = places(shards, wanted, seed)
    assert zones == places(shards, wanted, seed)
    assert len(zones) == (max(1, wanted // 2) if sum(shards) else 0)
    assert all(0 <= at < shards[shard] for zone in zones for shard, at in zone)
    assert all(len(zone) == 2 for zone in zones)


def test_places_are_spread_over_all_shards_in_proportion_to_their_bytes() -> None:
    drawn = [shard for zone in places([1000, 3000, 6000], 200, "seed") for shard, _ in zone]
    assert [drawn.count(shard) for shard in range(3)] == [20, 60, 120]
    assert places([1000], 10, "a") != places([1000], 10, "b")


SHAPES = {
    "alike": lambda rng: rng.randint(380, 420),
    "many short, few long": lambda rng: rng.choice([120, 130, 140, 150, 160, 9000]),
    "log-normal": lambda rng: int(rng.lognormvariate(6, 1)) + 60,
    "rising": lambda rng: rng.randint(60, 4000),
}


def truth_and_estimate(shape: str, seed: int, rows: int = 3000, wanted: int = 100) -> tuple[int, Span]:
    """Lines of a shape, tokens that vary about a quarter of their bytes, and what a sample makes of them."""
    rng = Random(f"{shape} {seed}")
    drawn = [SHAPES[shape](rng) for _ in range(rows)]
    if shape == "rising":
        drawn.sort()
    counted = [max(1, int(size * rng.uniform(0.2, 0.3))) for size in drawn]
    ends = list(accumulate(drawn))

    def at(byte: int) -> Seen:
        row = bisect_right(ends, byte)
        return line(drawn[row], counted[row])

    zones = tuple(tuple(at(byte) for _, byte in zone) for zone in places([ends[-1]], wanted, str(seed)))
    sample = Sample(rows, ends[-1], zones)
    return sum(counted), total_of(sample, prompts(sample))


@pytest.mark.parametrize("rows", [300, 3000])
@pytest.mark.parametrize("shape", SHAPES)
def test_nineteen_of_twenty_intervals_hold_the_truth_and_are_narrow(shape: str, rows: int) -> None:
    runs = [truth_and_estimate(shape, seed, rows) for seed in range(40)]
    held = sum(span.holds(Decimal(truth)) for truth, span in runs)
    assert held >= 36  # of 40 at 95 %, fewer than 36 come about once in a hundred and fifty times
    assert all(span.high - span.low < Decimal("0.12") * truth for truth, span in runs)


def test_students_t_falls_towards_the_normal() -> None:
    values = [student(freedom) for freedom in range(1, 60)]
    assert values == sorted(values, reverse=True)
    assert (values[0], values[9], values[-1]) == (Decimal("12.706"), Decimal("2.228"), Decimal("2.04"))


def test_intervals_add_up_and_one_without_a_middle_makes_the_sum_one() -> None:
    both = Span(Decimal(1), Decimal(2), Decimal(3)).plus(exactly(10))
    assert both == (11, 12, 13)
    assert both.plus(Span(Decimal(0), None, Decimal(5))) == (11, None, 18)
    assert both.times(Decimal(2)) == (22, 24, 26)
    assert [both.holds(Decimal(value)) for value in (10, 11, 13, 14)] == [False, True, True, False]
