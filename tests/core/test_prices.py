"""What tokens cost, against figures worked out by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from airflow_provider_geminibatch.core.model import Usage
from airflow_provider_geminibatch.core.prices import (
    NOTHING_SPENT,
    PRICES,
    Spent,
    batch_cost,
    price_of,
    spent_on,
    tier_share,
)

IN_2026 = datetime(2026, 11, 22, tzinfo=UTC)
IN_2027 = datetime(2027, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("model", "at", "usage", "usd"),
    [
        # 1,000,000 in at 0.375 and 200,000 out at 1.875
        ("gemini-3.8-flash", IN_2026, Usage(prompt=1_000_000, candidates=200_000), "0.75"),
        # the same a year on: 0.75 + 0.2 * 3.75
        ("gemini-3.8-flash", IN_2027, Usage(prompt=1_000_000, candidates=200_000), "1.5"),
        # thoughts are output: 100 * 0.375 + (50 + 350) * 1.875, in millionths
        ("models/gemini-3.8-flash", IN_2026, Usage(prompt=100, candidates=50, thoughts=350), "0.0007875"),
        # of 1000 in, 600 cached at 0.075: 400 * 0.375 + 600 * 0.075, in millionths
        ("gemini-3.8-flash", IN_2026, Usage(prompt=1000, cached=600), "0.000195"),
        # long prompts: 300,000 at 2.00 and 1000 out at 9.00
        ("gemini-3.1-pro-preview", IN_2026, Usage(prompt=300_000, candidates=1000), "0.609"),
        ("gemini-3.1-pro-preview", IN_2026, Usage(prompt=200_000, candidates=1000), "0.206"),
        ("gemini-3.5-flash-lite-001", IN_2026, Usage(prompt=1_000_000, candidates=1_000_000), "1.4"),
        ("gemini-embedding-2", IN_2026, Usage(prompt=1_000_000), "0.1"),
    ],
)
def test_a_row_costs_what_a_hand_works_out(model: str, at: datetime, usage: Usage, usd: str) -> None:
    price = price_of(model, at)
    assert price is not None
    assert batch_cost(price, usage) == Decimal(usd)


@pytest.mark.parametrize("model", ["gemini-9-flash", "gemini-2.5-flash-image", "gemini-3.8-flash-ultra", ""])
def test_a_model_that_is_not_in_the_table_has_no_price(model: str) -> None:
    assert price_of(model, IN_2026) is None


def test_an_unknown_price_makes_the_sum_unknown_and_never_zero() -> None:
    known = spent_on(Usage(prompt=1_000_000), price_of("gemini-3.8-flash", IN_2026))
    unknown = spent_on(Usage(prompt=5), None)
    assert known.plus(known) == Spent(Usage(prompt=2_000_000), Decimal("0.75"))
    assert known.plus(unknown) == Spent(Usage(prompt=1_000_005), None)
    assert unknown.plus(known).cost_usd is None


def test_nothing_used_costs_nothing_even_without_a_price() -> None:
    assert spent_on(Usage(), None) == NOTHING_SPENT


def test_every_model_has_a_price_for_good() -> None:
    assert all(prices[-1].until is None for prices in PRICES.values())


def test_a_tier_costs_its_share_and_an_unknown_one_counts_as_the_dearest() -> None:
    price, usage = price_of("gemini-2.5-flash", datetime(2026, 11, 1, tzinfo=UTC)), Usage(prompt=1000, candidates=1000)
    assert price is not None
    costs = {tier: batch_cost(price, usage, tier_share(tier)) for tier in ("batch", "flex", "standard", "what")}
    assert costs["flex"] == costs["batch"] == costs["standard"] / 2 == costs["what"] / 4
