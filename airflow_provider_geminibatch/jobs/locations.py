"""Where a batch goes: what the history and the prices of a workspace say of each place, and what is on record already.

It is decided at Prepare and stands in ``batch.json``, which is created exclusively before anything is sent. Later generations
stay where the batch was: a clear does not move it, and neither does a location that is added to the connection.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal

import msgspec

from airflow_provider_geminibatch.core.errors import StoreError
from airflow_provider_geminibatch.core.eta import Record
from airflow_provider_geminibatch.core.ledger import Opening
from airflow_provider_geminibatch.core.locations import Candidate, Choice, Needs, choose, doubtful, unfit
from airflow_provider_geminibatch.core.model import BatchId
from airflow_provider_geminibatch.core.names import generation_path
from airflow_provider_geminibatch.core.prices import rates
from airflow_provider_geminibatch.jobs.prepare import kept_lives
from airflow_provider_geminibatch.jobs.price_list import PriceBook
from airflow_provider_geminibatch.jobs.submit import read_build
from airflow_provider_geminibatch.storage import facts
from airflow_provider_geminibatch.storage.history import read_history
from airflow_provider_geminibatch.storage.store import Store

Asked = Callable[[Candidate], str]
"""Asks the service at a place why the batch cannot run there; an empty text when it can, or when nobody can tell."""


def choose_location(
    candidates: Sequence[Candidate],
    needs: Needs,
    *,
    store: Store,
    book: PriceBook,
    now: datetime,
    log: logging.Logger,
    asked: Asked = lambda candidate: "",
    rows: int | None = None,
) -> Choice:
    """Where a batch goes, of places in the user's order. Raises Unusable when it can run at none of them.

    With one place nothing is read and the service is not asked: what is wrong there is said when it is used. A place that users
    report not to have the model is taken only where there is no other, with a warning.
    """
    several = len(candidates) > 1
    looked = [_looked(candidate, needs, book, now, asked if several else _not_asked) for candidate in candidates]
    doubts = {one.address: doubtful(one, needs) for one in looked if not one.left_out}
    if any(not doubt for doubt in doubts.values()):
        looked = [msgspec.structs.replace(one, left_out=one.left_out or doubts.get(one.address, "")) for one in looked]
    else:
        for doubt in dict.fromkeys(doubts.values()):
            log.warning("%s: a job there may be refused, which costs nothing", doubt)
    records = _records(looked, needs.model, store, log) if len(looked) > 1 else ()
    return choose(looked, records, needs, now=now, rows=rows)


def _not_asked(candidate: Candidate) -> str:
    return ""


def _looked(candidate: Candidate, needs: Needs, book: PriceBook, now: datetime, asked: Asked) -> Candidate:
    reason = unfit(candidate, needs)
    return msgspec.structs.replace(
        candidate, left_out=reason or asked(candidate), usd=_usd(book, needs.model, candidate, now)
    )


def _usd(book: PriceBook, model: str, candidate: Candidate, now: datetime) -> Decimal | None:
    """What a million tokens each way cost at a place in a batch."""
    prices = book.find(model, candidate.service)
    price = prices.at(now) if prices else None
    if price is None:
        return None
    batch = rates(price, 0)
    return batch.input + batch.output


def _records(candidates: Sequence[Candidate], model: str, store: Store, log: logging.Logger) -> list[Record]:
    """The ended jobs at all places. A history that cannot be read is one that says nothing: the user's order stands."""
    found: list[Record] = []
    try:
        for service in dict.fromkeys(str(one.service) for one in candidates if not one.left_out):
            found += read_history(store, service, model).records
    except StoreError as error:
        log.warning("The history could not be read, so locations are not compared. %s", error)
        return []
    return found


def standing_opening(store: Store, batch: BatchId) -> Opening | None:
    """The newest life of a batch, which says where it is; None for one that is new, or that a person gave up."""
    lives = kept_lives(store, batch)
    return lives[-1] if lives else None


def anything_sent(store: Store, opening: Opening) -> bool:
    """Whether a shard of that life may be a job already, so that it cannot move any more."""
    home = generation_path(opening.batch, opening.generation)
    build = read_build(store, f"{home}/builds/{opening.build}.json")
    return any(facts.shard_facts(store, shard.ledger).sent for shard in build.shards)


__all__ = ["Asked", "anything_sent", "choose_location", "standing_opening"]
