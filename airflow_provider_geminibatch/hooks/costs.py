"""What a task's batch is expected to cost: the prices that airflow.cfg names, and the estimate in log, ledger and XCom."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from airflow_provider_geminibatch.core.errors import StoreError, Unusable
from airflow_provider_geminibatch.core.manifest import Manifest
from airflow_provider_geminibatch.core.names import generation_path
from airflow_provider_geminibatch.hooks import config
from airflow_provider_geminibatch.hooks.storage import AirflowFiles
from airflow_provider_geminibatch.jobs.wait import utc_now
from airflow_provider_geminibatch.storage.store import Store

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_geminibatch.core.cost_estimate import CostEstimate
    from airflow_provider_geminibatch.core.model import Build
    from airflow_provider_geminibatch.jobs.price_list import PriceBook

log = logging.getLogger(__name__)

XCOM_KEY = "cost"


BUDGETS = ("upper_bound", "estimate")


def usd_limit(given: Decimal | float | str | None, budget: str = "upper_bound") -> Decimal | None:
    """The ``max_cost_usd`` of a task as an amount, None for none. Raises Unusable."""
    if budget not in BUDGETS:
        raise Unusable(f"budget={budget!r}", "no such choice", f"Write one of {', '.join(BUDGETS)}.")
    if given is None:
        return None
    try:
        amount = Decimal(str(given))
    except InvalidOperation:
        raise Unusable(f"max_cost_usd={given!r}", "it is no amount", "Write US dollars, such as 2.50.") from None
    if not amount.is_finite() or amount <= 0:
        raise Unusable(f"max_cost_usd={given!r}", "nothing could be paid with it", "Write US dollars, such as 2.50.")
    return amount


def note_prices(ledgers: Iterable[tuple[Manifest, Store]], models: Iterable[str | None], *, me: str) -> None:
    """Put the prices of the file that ``[geminibatch] prices`` names into the ledgers, for the build's model and ``models``.

    Where none is named, and for models that it does not have, who needs a price first takes the usual ones. Raises Unusable
    for a file that holds no prices, SourceUnreadable for one that cannot be read.
    """
    from airflow_provider_geminibatch.core.ledger import Opening
    from airflow_provider_geminibatch.jobs.price_list import standing_prices
    from airflow_provider_geminibatch.jobs.submit import read_build
    from airflow_provider_geminibatch.storage import facts

    if not config.prices():
        return
    book = price_book()
    for manifest, store in ledgers:
        build = read_build(store, manifest.path)
        opening = facts.get(store, f"{_generation(build)}/batch.json", Opening)
        service = opening.service if opening else None
        for model in {build.model, *(model for model in models if model)}:
            standing_prices(store, _generation(build), model, me=me, now=utc_now, book=book, service=service)


def price_book() -> PriceBook:
    """Every price that can be known here. Raises Unusable, SourceUnreadable."""
    from airflow_provider_geminibatch.jobs.price_list import open_book

    return open_book(config.prices(), _read)


def _read(uri: str) -> bytes:
    from airflow_provider_geminibatch.storage.files import opened, reading

    with reading(uri), opened(AirflowFiles(), uri) as file:
        return file.read()


def show_estimate(context: Context, ledgers: Sequence[tuple[Manifest, Store]], *, service: str, me: str) -> None:
    """Say what sealed builds are expected to cost, by size and by earlier answers, in the log and as XCom ``cost``."""
    from airflow_provider_geminibatch.jobs.submit import read_build

    told = []
    for manifest, store in ledgers:
        build = read_build(store, manifest.path)
        if estimate := _quick(build, store, service, me):
            log.info("%s: %s", build.batch, estimate.sentence)
            told.append(estimate.as_dict())
    _push(context, told)


def record_estimate(
    context: Context,
    ledgers: Sequence[tuple[Manifest, Store]],
    *,
    service: str | Callable[[Manifest], str],
    me: str,
) -> None:
    """As ``show_estimate``, and on record, where the real cost is held against it. What is on record is not estimated again.

    ``service`` is that of all batches, or says which each is at.
    """
    from airflow_provider_geminibatch.jobs.cost_estimate import cost_fact, note_cost
    from airflow_provider_geminibatch.jobs.submit import read_build

    told = []
    for manifest, store in ledgers:
        build = read_build(store, manifest.path)
        standing = cost_fact(build, store)
        if standing is not None:
            told.append(standing.as_dict())
        elif estimate := _quick(build, store, service if isinstance(service, str) else service(manifest), me):
            note_cost(build, store, estimate, me=me, now=utc_now, log=log)
            told.append(estimate.as_dict())
    _push(context, told)


def _push(context: Context, told: Sequence[dict[str, Any]]) -> None:
    """The estimates as XCom: one as it is, several as a list, none not at all."""
    if told:
        context["ti"].xcom_push(key=XCOM_KEY, value=told[0] if len(told) == 1 else list(told))


def _quick(build: Build, store: Store, service: str, me: str) -> CostEstimate | None:
    """An estimate asks nobody and decides nothing, so that a task does not fail for want of one."""
    from airflow_provider_geminibatch.jobs.cost_estimate import QUICK, estimate_cost

    try:
        return estimate_cost(build, store, service=service, me=me, now=utc_now, log=log, sample=QUICK)
    except StoreError as error:
        log.warning("there is no estimate of the cost: %s", error)
        return None


def _generation(build: Build) -> str:
    return generation_path(build.batch, build.generation)


__all__ = ["XCOM_KEY", "note_prices", "price_book", "record_estimate", "show_estimate", "usd_limit"]
