"""What a batch is said to cost, against figures worked out by hand, and how it is said."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.answer_sizes import AnswerSizes, Spread
from airflow_provider_geminibatch.core.cost_estimate import (
    IMAGE_TOKENS,
    MEDIA_TOKENS,
    Answers,
    CostEstimate,
    bounded,
    cost_of,
    dollars,
    guessed,
    held_against,
    like_before,
    with_media,
)
from airflow_provider_geminibatch.core.prices import Price
from airflow_provider_geminibatch.core.sampling import Sample, Seen, Span, exactly

PRICE = Price(Decimal(2), Decimal(10), Decimal(4), Decimal(20), cached=Decimal("0.2"), long_above=1000)


def seen(size: int = 100, prompt: int = 30, *, cached: int = 0, cap: int = 500) -> Seen:
    return Seen(size, prompt, cached, cap, prompt, prompt)


def whole(*lines: Seen) -> Sample:
    return Sample(len(lines), sum(line.size_bytes for line in lines), tuple((line,) for line in lines), whole=True)


def answers(per_row: int, rows: int) -> Answers:
    span = exactly(per_row * rows)
    return Answers(span, exactly(0), span, "history", "told")


def sizes(mean: int, *, answers: int = 100, low: int | None = None, high: int | None = None) -> AnswerSizes:
    low, high = mean // 2 if low is None else low, mean * 2 if high is None else high
    spread = Spread(mean * answers, low, mean, high)
    return AnswerSizes(answers, spread, Spread(), spread)


def test_a_batch_that_is_counted_whole_costs_what_a_hand_works_out() -> None:
    # 30 + 70 prompt tokens at 1 USD, of which 20 cached at 0.2; 2 x 40 answer tokens at 5 USD, in millionths
    estimate = cost_of(whole(seen(), seen(prompt=70, cached=20)), answers(40, 2), PRICE, counted=True)
    assert estimate.batch_usd == exactly(Decimal("0.000484"))
    assert estimate.output_usd == exactly(Decimal("0.0004"))
    # all but the cached tokens at twice that
    assert estimate.standard_usd == exactly(Decimal("0.000964"))
    assert (estimate.prompt, estimate.cached) == (exactly(100), exactly(20))


def test_long_prompts_cost_their_own_price_and_so_do_their_answers() -> None:
    short, long = seen(prompt=1000), seen(prompt=1001)
    costs = [cost_of(whole(line), answers(100, 1), PRICE, counted=True).batch_usd for line in (short, long)]
    assert costs == [exactly(Decimal("0.0015")), exactly(Decimal("0.003002"))]


def test_without_a_price_tokens_are_told_and_no_money() -> None:
    estimate = cost_of(whole(seen()), answers(40, 1), None, counted=True)
    assert (estimate.batch_usd, estimate.standard_usd, estimate.as_dict()["batch_usd"]) == (None, None, None)
    assert "cost is unknown, not zero" in estimate.sentence


def test_a_guess_by_size_is_as_wide_as_text_may_be_and_says_that_it_is_one() -> None:
    request = {"contents": [{"parts": [{"text": "x" * 4000}]}]}
    line = guessed(request, 4100, [])
    assert line.least < 1000 < line.prompt < 1050 < line.most
    estimate = cost_of(whole(line), answers(0, 1), PRICE, counted=False)
    assert estimate.prompt == (line.least, line.prompt, line.most)
    assert "by size, not counted" in estimate.sentence


def test_the_most_a_guessed_line_may_answer_is_what_it_asks_for() -> None:
    request = {"contents": [], "generationConfig": {"maxOutputTokens": 70, "candidateCount": 2}, "model": "models/m"}
    assert guessed(request, 100, []).output_cap == 140
    assert guessed({"contents": []}, 100, []).output_cap == 65_536


def test_images_are_guessed_as_small_ones_and_anything_else_may_fill_the_window() -> None:
    bare = guessed({"contents": []}, 100, [])
    images = guessed({"contents": []}, 100, ["image/png", "image/jpeg"])
    assert images.prompt - bare.prompt == 2 * MEDIA_TOKENS
    assert images.most - bare.most == 2 * IMAGE_TOKENS
    for kind in ("video/mp4", "application/pdf", ""):
        other = guessed({"contents": []}, 100, [kind])
        assert (other.prompt, other.most) == (bare.prompt + MEDIA_TOKENS, 1_048_576)


def test_what_could_not_be_counted_widens_what_was() -> None:
    sure = cost_of(whole(seen(), seen()), answers(0, 2), PRICE, counted=True)
    with_one = cost_of(whole(seen(), with_media(seen(), ["image/png"])), answers(0, 2), PRICE, counted=True, media=1)
    assert sure.prompt == exactly(60)
    assert with_one.prompt == (60 + MEDIA_TOKENS, 60 + MEDIA_TOKENS, 60 + IMAGE_TOKENS)
    assert "media guessed in it: 1" in with_one.sentence


def test_without_answers_to_the_like_only_a_bound_is_told_and_no_middle() -> None:
    told = bounded(whole(seen(cap=500), seen(cap=700)))
    assert (told.basis, told.output) == ("bound", Span(Decimal(0), None, Decimal(1200)))
    assert "up to what is allowed: 600 tokens a row" in told.told
    estimate = cost_of(whole(seen(cap=500)), bounded(whole(seen(cap=500))), PRICE, counted=True)
    assert estimate.batch_usd == Span(Decimal("0.00003"), None, Decimal("0.00253"))
    assert "between" in estimate.sentence


def test_of_few_earlier_batches_the_interval_is_that_of_their_answers() -> None:
    told = like_before(whole(*[seen(cap=5000)] * 10), [sizes(100, low=20, high=400), sizes(300, low=50, high=600)])
    assert told is not None
    assert told.output == (200, 2000, 6000)
    assert told.told == "200 answers to the like, of 2 earlier batches"


def test_of_many_earlier_batches_it_is_how_much_these_differ() -> None:
    sample = whole(*[seen(cap=5000)] * 10)
    alike = like_before(sample, [sizes(100), sizes(101), sizes(99), sizes(100)])
    apart = like_before(sample, [sizes(50), sizes(150), sizes(20), sizes(180)])
    assert alike is not None
    assert apart is not None
    assert alike.output.expected == apart.output.expected == 1000
    assert 700 < alike.output.low < 1000 < alike.output.high < 1400
    assert apart.output.low == 0
    assert apart.output.high > 2 * alike.output.high


def test_an_answer_is_never_expected_to_be_longer_than_it_may_be() -> None:
    told = like_before(whole(*[seen(cap=50)] * 10), [sizes(100)])
    assert told is not None
    assert told.output == (500, 500, 500)


@pytest.mark.parametrize("earlier", [[], [AnswerSizes()]])
def test_no_answers_tell_nothing(earlier: list[AnswerSizes]) -> None:
    assert like_before(whole(seen()), earlier) is None


def test_a_canary_is_named_as_what_is_gone_by() -> None:
    told = like_before(whole(seen()), [sizes(100)], "canary")
    assert told is not None
    assert (told.basis, told.told) == ("canary", "100 answers to the like, of the canary")


spreads = st.builds(
    lambda mean, answers, low, high: sizes(mean, answers=answers, low=min(low, mean), high=max(high, mean)),
    st.integers(0, 10**5), st.integers(1, 10**6), st.integers(0, 10**5), st.integers(0, 10**5),
)  # fmt: skip


@given(st.lists(spreads, min_size=1, max_size=8), st.integers(1, 50), st.integers(0, 10**5))
def test_an_interval_of_answers_is_in_order_and_within_what_is_allowed(
    earlier: list[AnswerSizes], rows: int, cap: int
) -> None:
    told = like_before(whole(*[seen(cap=cap)] * rows), earlier)
    assert told is not None
    for span in (told.candidates, told.thoughts, told.output):
        assert span.expected is not None
        assert 0 <= span.low <= span.expected <= span.high <= cap * rows


@given(st.lists(st.tuples(st.integers(1, 9999), st.integers(0, 9999)), min_size=1, max_size=9), st.integers(1, 9))
def test_prices_times_ten_are_costs_times_ten(rows: list[tuple[int, int]], factor: int) -> None:
    dearer = Price(*(amount * factor for amount in PRICE[:4]), cached=PRICE.cached * factor, long_above=1000)  # type: ignore[operator, misc, arg-type]
    sample = whole(*(seen(size, prompt) for size, prompt in rows))
    one, other = (cost_of(sample, answers(7, len(rows)), price, counted=True) for price in (PRICE, dearer))
    assert one.batch_usd is not None
    assert other.batch_usd == one.batch_usd.times(Decimal(factor))


@pytest.mark.parametrize(
    ("span", "said"),
    [
        (exactly(3), "3.00 USD"),
        (Span(Decimal("2.9"), Decimal("3.214"), Decimal("3.6")), "3.21 USD (2.90 to 3.60)"),
        (Span(Decimal("0.1"), None, Decimal(12)), "between 0.1 and 12.00 USD"),
        (exactly(Decimal("0.00001234")), "0.00001234 USD"),
        (exactly(0), "0.00 USD"),
    ],
)
def test_money_is_said_briefly(span: Span, said: str) -> None:
    assert dollars(span) == said


@pytest.mark.parametrize(
    ("real", "said"),
    [
        ("1.2", "it cost 1.20 USD, estimated 1.00 USD (0.5 to 2.00)"),
        ("2.5", "it cost 2.50 USD, estimated 1.00 USD (0.5 to 2.00): 0.5 USD above the estimate's interval"),
        ("0.25", "it cost 0.25 USD, estimated 1.00 USD (0.5 to 2.00): 0.25 USD below the estimate's interval"),
    ],
)
def test_a_cost_outside_the_interval_is_named(real: str, said: str) -> None:
    assert held_against(Span(Decimal("0.5"), Decimal(1), Decimal(2)), Decimal(real)) == said


def test_what_goes_to_other_tasks_is_numbers() -> None:
    estimate: CostEstimate = cost_of(whole(seen()), answers(40, 1), PRICE, counted=True, price_told="mine")
    told: dict[str, Any] = estimate.as_dict()
    assert told["batch_usd"] == dict.fromkeys(("low", "expected", "high"), "0.000230")
    assert told["tokens"]["prompt"] == {"low": 30, "expected": 30, "high": 30}
    assert (told["counted"], told["answers_from"], told["price"]) == (True, "history", "mine")
