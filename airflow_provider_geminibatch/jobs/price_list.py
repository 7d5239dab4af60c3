"""Which prices a batch goes by: the user's own, else the package's table, else genai-prices where it is installed.

The first who needs the price of a model puts it into the ledger of the batch, and everybody after goes by that: what is charged
before, settled after and written beside each row is counted alike, whatever is installed where.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from importlib import metadata
from typing import TYPE_CHECKING, Any

from airflow_provider_geminibatch.core.ledger import Priced
from airflow_provider_geminibatch.core.model import Build, ServiceIdentity
from airflow_provider_geminibatch.core.names import generation_path, segment
from airflow_provider_geminibatch.core.prices import (
    LONG_PROMPT_TOKENS,
    Price,
    PriceList,
    of_model,
    parse_prices,
    table_prices,
)
from airflow_provider_geminibatch.storage import facts
from airflow_provider_geminibatch.storage.store import Store

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice

_BATCH = {"processing": "batch"}


@dataclass(frozen=True)
class PriceBook:
    """Every price that can be known here. ``overrides`` are the user's own, by model."""

    overrides: Mapping[str, PriceList] = field(default_factory=dict)

    def find(self, model: str, service: ServiceIdentity | None = None) -> PriceList | None:
        """The prices of a model, or None where nobody knows them.

        The user's own may be for one location or route only: ``"gemini-3.8-flash at europe-west4"``, ``"… at developer"``.
        """
        for place in (service.location, service.route) if service else ():
            there = f" at {place}"
            own = {name.removesuffix(there): prices for name, prices in self.overrides.items() if name.endswith(there)}
            if found := of_model(own, model):
                return found
        return of_model(self.overrides, model) or table_prices(model) or library_prices(model)


def open_book(uri: str, read: Callable[[str], bytes]) -> PriceBook:
    """The book with the user's prices from ``uri``; without one, the book as it is. Raises Unusable, and what ``read`` raises."""
    return PriceBook(parse_prices(read(uri), uri)) if uri else PriceBook()


def standing_prices(
    store: Store,
    generation: str,
    model: str,
    *,
    me: str,
    now: Callable[[], datetime],
    book: PriceBook | None = None,
    service: ServiceIdentity | None = None,
) -> PriceList | None:
    """The prices that a generation is counted by: those on record, else those of the book, which are put on record.

    What nobody knows is not written down, so that a price that becomes known later counts. ``service`` is where the generation
    is, for prices of the book that differ by place.
    """
    path = prices_path(generation, model)
    standing = facts.get(store, path, Priced)
    if standing is None:
        found = (book or PriceBook()).find(model, service)
        if found is None:
            return None
        standing = facts.put(store, path, Priced(owner=me, at=now(), model=model, prices=found))
    return standing.prices


def prices_of_build(store: Store, build: Build, *, me: str, now: Callable[[], datetime]) -> PriceList | None:
    """The prices that a build is counted by, which are those of its generation."""
    return standing_prices(store, generation_path(build.batch, build.generation), build.model, me=me, now=now)


def prices_path(generation: str, model: str) -> str:
    """Where the prices of a model stand in the ledger of a generation."""
    return f"{generation}/prices/{segment(model)}.json"


def library_prices(model: str) -> PriceList | None:
    """What genai-prices says, or None: it is not installed, does not know the model, or prices it by the hour of the day."""
    try:
        from genai_prices.data_snapshot import get_snapshot  # 0.7 s, and an extra
        from genai_prices.types import StartDateConstraint
    except ImportError:
        return None
    try:
        _, info = get_snapshot().find_provider_model(model.removeprefix("models/"), None, "google", None)
    except LookupError:
        return None
    limits = [one.constraint for one in (*_dated(info.prices), *(info.price_variants or ())) if one.constraint]
    if not all(isinstance(limit, StartDateConstraint) for limit in limits):
        return None
    starts = sorted({limit.start_date for limit in limits if isinstance(limit, StartDateConstraint)})
    begins = [starts[0] - timedelta(days=1) if starts else date.max, *starts]
    rows = [
        _row(info, datetime.combine(begin, time(12), UTC), until)
        for begin, until in zip(begins, [*starts, None], strict=True)
    ]
    known = tuple(row for row in rows if row is not None)
    if not known or len(known) < len(rows):
        return None
    return PriceList(known, f"genai-prices {metadata.version('genai-prices')} ({info.id})", "")


def _dated(prices: object) -> list[Any]:
    return prices if isinstance(prices, list) else []


def _row(info: ModelInfo, moment: datetime, until: Any) -> Price | None:
    """The prices of one span of time. A library's batch price counts only where it says that it is one."""
    standard = info.get_prices(moment)
    named = any(
        one.when == _BATCH and (one.constraint is None or one.constraint.active(moment))
        for one in info.price_variants or ()
    )
    batch = info.get_prices(moment, _BATCH) if named else None
    per_input, long_input, above = _tiers(standard, "input_mtok")
    per_output, long_output, _ = _tiers(standard, "output_mtok")
    if per_input is None:
        return None
    cached, long_cached, _ = _tiers(standard, "cache_read_mtok")
    batch_input, batch_long_input, _ = _tiers(batch, "input_mtok")
    batch_output, batch_long_output, _ = _tiers(batch, "output_mtok")
    return Price(
        per_input, per_output or Decimal(0), long_input, long_output, until, cached, long_cached,
        batch_input, batch_output, batch_long_input, batch_long_output, above, assumed_batch=not named,
    )  # fmt: skip


def _tiers(prices: ModelPrice | None, name: str) -> tuple[Decimal | None, Decimal | None, int]:
    """The usual price, the one for long prompts, and from where on; of several steps the dearest from the first on."""
    given = getattr(prices, name, None) if prices else None
    if given is None or isinstance(given, Decimal):
        return given, None, LONG_PROMPT_TOKENS
    if not given.tiers:
        return given.base, None, LONG_PROMPT_TOKENS
    return given.base, max(tier.price for tier in given.tiers), given.tiers[0].start


__all__ = ["PriceBook", "library_prices", "open_book", "prices_of_build", "prices_path", "standing_prices"]
