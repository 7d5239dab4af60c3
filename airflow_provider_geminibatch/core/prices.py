"""What tokens cost, as dated data: USD for a million tokens. An unknown price is None, never zero.

From the pricing page (ai.google.dev/gemini-api/docs/pricing), copies of August to October 2026; what they lack of the
2.5 family from third parties' tables of April 2026, its long output price `assumed`. Text, image and video input; audio
input of some models costs more, and so do grounding and cache storage, which the usage of a row does not show.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import NamedTuple

from airflow_provider_geminibatch.core.model import Usage

AS_OF = date(2026, 10, 31)

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
    """Standard prices, valid before ``until``; the long ones above ``LONG_PROMPT_TOKENS``."""

    input: Decimal
    output: Decimal
    long_input: Decimal | None = None
    long_output: Decimal | None = None
    until: date | None = None


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


def price_of(model: str, at: datetime) -> Price | None:
    """The price of a model on the day of ``at`` (UTC), or None for a model that the table does not have."""
    name = model.removeprefix("models/")
    prices = PRICES.get(name) or PRICES.get(_SUFFIX.sub("", name), ())
    day = at.astimezone(UTC).date()
    return next((price for price in prices if price.until is None or day < price.until), None)


TIER_SHARES = {"batch": BATCH_SHARE, "flex": BATCH_SHARE, "standard": Decimal(1), "priority": Decimal(2)}
"""What each way of asking costs of the standard price; priority is 75 to 100 % more (priority guide), counted as the latter."""


def tier_share(tier: str) -> Decimal:
    """The share of a tier; one that nobody knows is counted as the dearest."""
    return TIER_SHARES.get(tier, max(TIER_SHARES.values()))


def batch_cost(price: Price, usage: Usage, share: Decimal = BATCH_SHARE) -> Decimal:
    """What one row costs, in USD; by batch unless another share is given.

    Thoughts are billed as output, cached tokens at the caching price.
    """
    long = usage.prompt > LONG_PROMPT_TOKENS
    per_input = (price.long_input if long else None) or price.input
    per_output = (price.long_output if long else None) or price.output
    cached = min(usage.cached, usage.prompt)
    fresh = (usage.prompt - cached) * per_input + (usage.candidates + usage.thoughts) * per_output
    return ((fresh * share + cached * per_input * _CACHED_SHARE) / _MILLION).quantize(_EXACT)


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
    "TIER_SHARES",
    "Price",
    "Spent",
    "batch_cost",
    "price_of",
    "spent_on",
    "tier_share",
]
