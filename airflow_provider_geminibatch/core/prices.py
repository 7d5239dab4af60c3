"""What tokens cost, as dated data: USD for a million tokens. An unknown price is None, never zero.

The table is from the pricing page (ai.google.dev/gemini-api/docs/pricing), copies of August to October 2026; what they lack of
the 2.5 family from third parties' tables of April 2026, its long output price `assumed`. Text, image and video input; audio
input of some models costs more, and so do grounding and cache storage, which the usage of a row does not show.

Prices of the user go before the table, and a maintained library (``jobs.price_list``) comes after it. Which of them a batch
goes by is decided once and stands in its ledger, so that what is charged and what is settled are counted alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple, TypeVar

import msgspec

from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.core.model import Usage
from airflow_provider_geminibatch.core.names import short

AS_OF = date(2026, 10, 31)

TABLE = "the package's table"
"""The source of a price that stands here."""

BATCH_SHARE = Decimal("0.5")
"""What batch costs of the standard price (batch guide of 2026-09-18)."""

LONG_PROMPT_TOKENS = 200_000
"""Prompts above this are billed at the long price, where a model has one."""

_CACHED_SHARE = Decimal("0.1")
"""What cached tokens cost of the standard input price; in a batch too, since of two contradicting statements the higher one
is used (research of the pricing page: the guide says no further discount, the price table halves it)."""

_MILLION = Decimal(1_000_000)
_EXACT = Decimal("0.000000000001")


class Price(NamedTuple):
    """Standard prices, valid before ``until``; the long ones for prompts above ``long_above`` tokens.

    Batch (and flex) prices are given where they are not ``BATCH_SHARE`` of the standard ones; ``assumed_batch`` says that a
    source names none, so that the share is an assumption. ``cached`` is the caching price, of a batch too.
    """

    input: Decimal
    output: Decimal
    long_input: Decimal | None = None
    long_output: Decimal | None = None
    until: date | None = None
    cached: Decimal | None = None
    long_cached: Decimal | None = None
    batch_input: Decimal | None = None
    batch_output: Decimal | None = None
    batch_long_input: Decimal | None = None
    batch_long_output: Decimal | None = None
    long_above: int = LONG_PROMPT_TOKENS
    assumed_batch: bool = False


class PriceList(msgspec.Struct, frozen=True):
    """The prices of one model over time, and who says so."""

    rows: tuple[Price, ...]
    source: str = TABLE
    as_of: str = AS_OF.isoformat()

    def at(self, moment: datetime) -> Price | None:
        """The price on the day of ``moment`` (UTC); None when the list ends before."""
        day = moment.astimezone(UTC).date()
        return next((price for price in self.rows if price.until is None or day < price.until), None)

    def over(self, moment: datetime, span: timedelta) -> tuple[Price, ...]:
        """The prices that count within ``span`` from ``moment``, of which today's is known; none when it is not."""
        if self.at(moment) is None:
            return ()
        found = (self.at(moment + timedelta(days=day)) for day in range(span.days + 1))
        return tuple(dict.fromkeys(price for price in found if price))

    def told(self, moment: datetime) -> str:
        """Where the price of that day is from, and what of it is assumed."""
        price = self.at(moment)
        doubt = ", batch assumed to cost 50 % of it" if price and price.assumed_batch else ""
        return f"{self.source}{f' of {self.as_of}' if self.as_of else ''}{doubt}"


def _usd(*texts: str, until: date | None = None) -> Price:
    return Price(*map(Decimal, texts), until=until)  # type: ignore[misc, arg-type]


_FLASH = (_usd("0.75", "3.75", until=date(2027, 1, 1)), _usd("1.50", "7.50"))

PRICES: dict[str, tuple[Price, ...]] = {
    "gemini-3.8-flash": _FLASH,
    "gemini-3.7-flash": _FLASH,
    "gemini-3.6-flash": _FLASH,
    "gemini-3.5-flash": (_usd("1.50", "9.00"),),
    "gemini-3.5-flash-lite": (_usd("0.30", "2.50"),),
    "gemini-3.1-flash-lite": (_usd("0.25", "1.50"),),
    "gemini-3.1-pro": (_usd("2", "12", "4", "18"),),
    "gemini-2.5-pro": (_usd("1.25", "10", "2.50", "15"),),
    "gemini-2.5-flash": (_usd("0.30", "2.50"),),
    "gemini-2.5-flash-lite": (_usd("0.10", "0.40"),),
    "gemini-embedding-2": (_usd("0.20", "0"),),
}

# gemini-2.5-flash-001, gemini-3.1-pro-preview, gemini-2.5-flash-preview-09-2025: the family's price.
_SUFFIX = re.compile(r"(-preview(-\d{2}-\d{2,4})?|-\d{3})$")


CACHE_STORAGE: dict[str, Decimal] = {"gemini-3.8-flash": Decimal("0.50")}
"""What a million tokens in a prompt cache cost an hour (pricing page, October 2026; what could be read of it names one model)."""


def cache_storage(model: str) -> Decimal | None:
    """The price of keeping a million tokens in a prompt cache for an hour, or None where no source names it."""
    return of_model(CACHE_STORAGE, model)


T = TypeVar("T")


def of_model(prices: Mapping[str, T], model: str) -> T | None:
    """The entry of a model in a table of prices: its own, else that of its family, else None."""
    name = model.removeprefix("models/")
    return prices.get(name) or prices.get(_SUFFIX.sub("", name))


def table_prices(model: str) -> PriceList | None:
    """What the table says of a model."""
    rows = of_model(PRICES, model)
    return PriceList(rows) if rows else None


def price_of(model: str, at: datetime) -> Price | None:
    """The table's price of a model on the day of ``at`` (UTC), or None for a model that it does not have."""
    found = table_prices(model)
    return found.at(at) if found else None


class _Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A price as users write it."""

    input: Decimal
    output: Decimal = Decimal(0)
    long_input: Decimal | None = None
    long_output: Decimal | None = None
    until: date | None = None
    cached: Decimal | None = None
    long_cached: Decimal | None = None
    batch_input: Decimal | None = None
    batch_output: Decimal | None = None
    batch_long_input: Decimal | None = None
    batch_long_output: Decimal | None = None
    long_above: int = LONG_PROMPT_TOKENS


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    models: dict[str, tuple[_Row, ...]]
    as_of: date | None = None


_FORM = 'Write {"as_of": "2026-11-01", "models": {"gemini-…": [{"input": "0.75", "output": "3.75", "until": "2027-01-01"}, …]}}.'


def parse_prices(data: bytes, uri: str) -> dict[str, PriceList]:
    """The users' own prices from their file. Raises Unusable, naming what is wrong in it."""
    try:
        given = msgspec.json.decode(data, type=_File)
    except (msgspec.MsgspecError, ArithmeticError) as error:
        raise Unusable(uri, f"it is no list of prices ({error})", _FORM) from None
    return {model.removeprefix("models/"): _own(model, rows, given.as_of, uri) for model, rows in given.models.items()}


def _own(model: str, rows: tuple[_Row, ...], as_of: date | None, uri: str) -> PriceList:
    prices = tuple(Price(**msgspec.structs.asdict(row)) for row in rows)
    amounts = [amount for price in prices for amount in price if isinstance(amount, Decimal)]
    if not prices or any(not amount.is_finite() or amount < 0 for amount in amounts):
        raise Unusable(uri, f"a price of {model} is missing or no amount of money", _FORM)
    dates = [price.until or date.max for price in prices]
    if dates != sorted(set(dates)):
        raise Unusable(
            uri, f"the prices of {model} are not in the order of their until", "The last one may be without."
        )
    return PriceList(prices, uri, as_of.isoformat() if as_of else "")


def identity_of(lists: Iterable[PriceList]) -> str:
    """What stands for the prices that a cost was counted by: equal lists, equal text."""
    lists = tuple(lists)
    table = {one.as_of for one in lists if one.source == TABLE}
    others = sorted(f"{one.source} {one.as_of} {short(repr(one.rows))}" for one in lists if one.source != TABLE)
    return "; ".join([*sorted(table), *others]) or AS_OF.isoformat()


TIER_SHARES = {"batch": BATCH_SHARE, "flex": BATCH_SHARE, "standard": Decimal(1), "priority": Decimal(2)}
"""What each way of asking costs of the standard price; priority is 75 to 100 % more (priority guide), counted as the latter."""


def tier_share(tier: str) -> Decimal:
    """The share of a tier; one that nobody knows is counted as the dearest."""
    return TIER_SHARES.get(tier, max(TIER_SHARES.values()))


class Rates(NamedTuple):
    """What a token costs, in USD for a million, for a prompt of a certain length asked in a certain way."""

    input: Decimal
    output: Decimal
    cached: Decimal


def rates(price: Price, prompt_tokens: int, share: Decimal = BATCH_SHARE) -> Rates:
    """The rates for a prompt of that length, by batch unless another share is given."""
    above, batch = prompt_tokens > price.long_above, share == BATCH_SHARE
    if above and price.long_input is not None:
        per_input, own_input, cached = price.long_input, price.batch_long_input, price.long_cached
    else:
        per_input, own_input, cached = price.input, price.batch_input, price.cached
    if above and price.long_output is not None:
        per_output, own_output = price.long_output, price.batch_long_output
    else:
        per_output, own_output = price.output, price.batch_output
    return Rates(
        own_input if batch and own_input is not None else per_input * share,
        own_output if batch and own_output is not None else per_output * share,
        per_input * _CACHED_SHARE if cached is None else cached,
    )


@lru_cache(maxsize=64)
def _rates(price: Price, above: bool, share: Decimal) -> Rates:
    """For the millions of rows of a window, which share two or three of these."""
    return rates(price, price.long_above + above, share)


def batch_cost(price: Price, usage: Usage, share: Decimal = BATCH_SHARE) -> Decimal:
    """What one row costs, in USD; by batch unless another share is given.

    Thoughts are billed as output, cached tokens at the caching price.
    """
    prompt, cached = usage.prompt, usage.cached
    per_input, per_output, per_cached = _rates(price, prompt > price.long_above, share)
    if cached:
        cached = min(cached, prompt)
        total = (prompt - cached) * per_input + cached * per_cached + (usage.candidates + usage.thoughts) * per_output
    else:
        total = prompt * per_input + (usage.candidates + usage.thoughts) * per_output
    return (total / _MILLION).quantize(_EXACT)


def row_costs(
    price: Price, prompt: Sequence[int], candidates: Sequence[int], thoughts: Sequence[int], cached: Sequence[int]
) -> list[int]:
    """What each of many rows costs by batch, as ``batch_cost`` counts it, in whole picodollars (1e-12 USD)."""
    per = rates(price, 0)
    whole = [rate * _MILLION == int(rate * _MILLION) for rate in per]
    if not prompt or not all(whole) or max(prompt) > price.long_above:
        counts = zip(prompt, candidates, thoughts, cached, strict=True)
        return [
            int(batch_cost(price, Usage(prompt=p, candidates=c, thoughts=t, cached=k)).scaleb(12))
            for p, c, t, k in counts
        ]
    a, b, c = (int(rate * _MILLION) for rate in per)
    if not any(cached):
        return [a * p + b * (said + mused) for p, said, mused in zip(prompt, candidates, thoughts, strict=True)]
    cached = list(map(min, cached, prompt))
    return [
        a * (p - k) + b * (said + mused) + c * k
        for p, said, mused, k in zip(prompt, candidates, thoughts, cached, strict=True)
    ]


def of_picos(picos: int) -> Decimal:
    """Picodollars as dollars."""
    return Decimal(picos).scaleb(-12)


class Spent(NamedTuple):
    """Tokens and what they cost. None is an unknown cost: a sum without the unknown would look like the whole."""

    tokens: Usage = Usage()
    cost_usd: Decimal | None = Decimal(0)

    def plus(self, other: Spent) -> Spent:
        """Both together."""
        known = self.cost_usd is not None and other.cost_usd is not None
        cost = self.cost_usd + other.cost_usd if known else None  # type: ignore[operator]
        return Spent(self.tokens + other.tokens, cost)


NOTHING_SPENT = Spent()


def spent_on(usage: Usage, price: Price | None, share: Decimal = BATCH_SHARE) -> Spent:
    """What one row cost, by batch unless another share is given; nothing used costs nothing, whatever the price."""
    if usage == Usage():
        return NOTHING_SPENT
    return Spent(usage, None if price is None else batch_cost(price, usage, share))


__all__ = [
    "AS_OF",
    "BATCH_SHARE",
    "LONG_PROMPT_TOKENS",
    "NOTHING_SPENT",
    "PRICES",
    "TABLE",
    "TIER_SHARES",
    "Price",
    "PriceList",
    "Rates",
    "Spent",
    "batch_cost",
    "identity_of",
    "of_model",
    "of_picos",
    "parse_prices",
    "price_of",
    "rates",
    "row_costs",
    "spent_on",
    "table_prices",
    "tier_share",
]
