"""What the calls so far would have cost by the emulator's price table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal

from airflow_provider_geminibatch.emulator.catalog import (
    BATCH_SHARE,
    CACHE_STORAGE,
    CACHED_SHARE,
    MODELS,
    PRICES_AS_OF,
    PRICES_SOURCE,
    Price,
)
from airflow_provider_geminibatch.emulator.wire import Json

Route = Literal["batch", "flex", "standard", "priority"]
_MILLION = Decimal(1_000_000)
# What a token costs by each route, of the interactive price; priority is 75 to 100 % more, and counted as the latter.
_SHARE: dict[Route, Decimal] = {
    "batch": BATCH_SHARE,
    "flex": BATCH_SHARE,
    "standard": Decimal(1),
    "priority": Decimal(2),
}


@dataclass(frozen=True, slots=True)
class Charge:
    """The tokens of one job or of one interactive call. Output includes thoughts."""

    route: Route
    model: str
    at: datetime
    requests: int
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int = 0

    @property
    def usd(self) -> Decimal | None:
        """What it costs, or None where the price table has no price for it."""
        model = MODELS.get(self.model)
        price = model.price_at(self.at) if model else Price(None, None)
        share = _SHARE[self.route]
        sides = (
            (self.prompt_tokens - self.cached_tokens, price.input, share),
            # By the guide cached tokens of a batch cost as much as any; the price table says half of that.
            (self.cached_tokens, price.input, CACHED_SHARE),
            (self.output_tokens, price.output, share),
        )
        if any(tokens and rate is None for tokens, rate, _ in sides):
            return None
        return sum((tokens * rate * part for tokens, rate, part in sides if rate is not None), Decimal(0)) / _MILLION


@dataclass(frozen=True, slots=True)
class CacheCharge:
    """A prompt cache, and how long it was kept."""

    model: str
    tokens: int
    hours: float

    @property
    def usd(self) -> Decimal | None:
        """What keeping it costs, or None where no source gives a price."""
        rate = CACHE_STORAGE.get(self.model)
        return None if rate is None else rate * self.tokens * Decimal(self.hours) / _MILLION


def bill(charges: Iterable[Charge], jobs_created: int, caches: Iterable[CacheCharge] = ()) -> Json:
    """The bill: jobs created, then one entry for each route and model, then the total. Money is a string in USD.

    Where there are prompt caches, `caches` says how many, and what keeping them cost.

    `usd` is null for an entry that has a charge without a price; `total_usd` is the sum of those that have one.
    """
    entries: dict[tuple[Route, str], Json] = {}
    total = Decimal(0)
    for charge in charges:
        start = {"charges": 0, "requests": 0, "prompt_tokens": 0, "output_tokens": 0, "usd": Decimal(0)}
        entry = entries.setdefault((charge.route, charge.model), start)
        entry["charges"] += 1
        entry["requests"] += charge.requests
        entry["prompt_tokens"] += charge.prompt_tokens
        entry["output_tokens"] += charge.output_tokens
        usd = charge.usd
        entry["usd"] = None if usd is None or entry["usd"] is None else entry["usd"] + usd
        total += usd or Decimal(0)
    kept = list(caches)
    stored = sum((each.usd or Decimal(0) for each in kept), Decimal(0))
    total += stored
    shown = [
        {"route": route, "model": model, **entry, "usd": None if entry["usd"] is None else money(entry["usd"])}
        for (route, model), entry in sorted(entries.items())
    ]
    return {
        "jobs": jobs_created,
        "entries": shown,
        **({"caches": {"count": len(kept), "storage_usd": money(stored)}} if kept else {}),
        "total_usd": money(total),
        "prices_as_of": PRICES_AS_OF,
        "prices_source": PRICES_SOURCE,
    }


def money(usd: Decimal) -> str:
    """An exact amount as plain digits."""
    text = f"{usd:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


__all__ = ["CacheCharge", "Charge", "Route", "bill"]
