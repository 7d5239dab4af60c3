"""What tokens cost, against figures worked out by hand."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal

import msgspec
import pytest

from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.core.model import Usage
from airflow_provider_geminibatch.core.prices import (
    AS_OF,
    NOTHING_SPENT,
    PRICES,
    Price,
    PriceList,
    Spent,
    batch_cost,
    identity_of,
    parse_prices,
    price_of,
    rates,
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


def test_a_price_of_its_own_for_batch_goes_before_the_share() -> None:
    price = Price(Decimal(10), Decimal(20), batch_input=Decimal(4), batch_output=Decimal(9))
    usage = Usage(prompt=1_000_000, candidates=1_000_000)
    assert batch_cost(price, usage) == 13
    assert batch_cost(price, usage, Decimal(1)) == 30


@pytest.mark.parametrize(
    ("prompt", "share", "per_input", "per_output", "per_cached"),
    [
        (50, "0.5", "3", "7", "2"),
        (50, "1", "8", "16", "2"),
        (101, "0.5", "5", "14", "4"),  # the long output has no batch price of its own, so that the share counts
        (101, "1", "12", "28", "4"),
    ],
)
def test_long_prompts_have_rates_of_their_own(
    prompt: int, share: str, per_input: str, per_output: str, per_cached: str
) -> None:
    price = Price(
        Decimal(8), Decimal(16), Decimal(12), Decimal(28), cached=Decimal(2), long_cached=Decimal(4), batch_input=Decimal(3),
        batch_output=Decimal(7), batch_long_input=Decimal(5), long_above=100,
    )  # fmt: skip
    assert rates(price, prompt, Decimal(share)) == tuple(map(Decimal, (per_input, per_output, per_cached)))


def test_a_model_without_long_prices_has_one_rate_for_all_lengths() -> None:
    price = Price(Decimal(8), Decimal(16), cached=Decimal(2), batch_input=Decimal(3), batch_output=Decimal(7))
    assert rates(price, 10**6) == rates(price, 1) == (3, 7, 2)


OWN = {
    "as_of": "2026-11-20",
    "models": {
        "models/mine": [{"input": "0.5", "output": 2, "until": "2027-01-01"}, {"input": "1", "output": "4"}],
        "once": [{"input": "3", "until": "2026-12-01"}],
    },
}


def test_the_users_prices_are_dated_and_say_where_they_are_from() -> None:
    mine = parse_prices(msgspec.json.encode(OWN), "s3://b/prices.json")["mine"]
    assert [mine.at(at) for at in (IN_2026, IN_2027)] == [
        Price(Decimal("0.5"), Decimal(2), until=date(2027, 1, 1)),
        Price(Decimal(1), Decimal(4)),
    ]
    assert mine.told(IN_2026) == "s3://b/prices.json of 2026-11-20"


def test_a_price_that_has_run_out_is_unknown() -> None:
    assert parse_prices(msgspec.json.encode(OWN), "p")["once"].at(IN_2027) is None


@pytest.mark.parametrize(
    ("given", "what"),
    [
        (b"{", "it is no list of prices"),
        (b"[]", "it is no list of prices"),
        (b'{"models": {"m": [{"input": "free", "output": "1"}]}}', "it is no list of prices"),
        (b'{"models": {"m": [{"inptu": "1", "output": "1"}]}}', "inptu"),
        (b'{"models": {"m": []}}', "a price of m is missing"),
        (b'{"models": {"m": [{"input": "-1"}]}}', "no amount of money"),
        (b'{"models": {"m": [{"input": "NaN"}]}}', "no amount of money"),
        (b'{"models": {"m": [{"input": "1"}, {"input": "2", "until": "2027-01-01"}]}}', "not in the order"),
    ],
)
def test_a_file_that_holds_no_prices_is_refused_and_says_how_to_write_it(given: bytes, what: str) -> None:
    with pytest.raises(Unusable, match=what) as error:
        parse_prices(given, "gs://b/prices.json")
    assert "gs://b/prices.json" in str(error.value)


def test_a_price_whose_batch_share_is_assumed_says_so() -> None:
    told = PriceList((Price(Decimal(1), Decimal(1), assumed_batch=True),), "genai-prices 9", "").told(IN_2026)
    assert told == "genai-prices 9, batch assumed to cost 50 % of it"


def test_equal_prices_stand_for_the_same_and_others_do_not() -> None:
    table, other = PriceList(PRICES["gemini-2.5-pro"]), PriceList((Price(Decimal(1), Decimal(1)),), "mine", "")
    assert identity_of([]) == identity_of([table, table]) == AS_OF.isoformat()
    changed = PriceList((Price(Decimal(2), Decimal(1)),), "mine", "")
    assert len({identity_of([table]), identity_of([other]), identity_of([changed]), identity_of([other, changed])}) == 4
    assert identity_of([other, changed]) == identity_of([changed, other])


def test_a_price_list_survives_the_ledger() -> None:
    mine = parse_prices(msgspec.json.encode(OWN), "p")["mine"]
    assert msgspec.json.decode(msgspec.json.encode(mine), type=PriceList) == mine
