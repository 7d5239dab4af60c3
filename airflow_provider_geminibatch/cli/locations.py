"""Which of several places a batch would go to, at the command line: ``--conn-id`` names connections in the user's order."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime

from airflow_provider_geminibatch.cli.service import connection_of, open_gateway
from airflow_provider_geminibatch.core.errors import GeminiBatchError, ModelUnknown
from airflow_provider_geminibatch.core.locations import Address, Candidate, Choice, Needs, address
from airflow_provider_geminibatch.gemini.connections import locations_of, settings_of
from airflow_provider_geminibatch.jobs.locations import choose_location
from airflow_provider_geminibatch.jobs.price_list import PriceBook
from airflow_provider_geminibatch.storage.store import Store


def candidates_of(conn_ids: str) -> tuple[Candidate, ...]:
    """Every place that ``ID[@LOCATION],…`` leads to, in that order. Raises BadConnection."""
    return tuple(one for conn_id in conn_ids.split(",") if conn_id.strip() for one in _places(conn_id.strip()))


def _places(given: str) -> Iterator[Candidate]:
    known = address(given)
    connection = connection_of(known.conn_id)
    for location in (known.location,) if known.location else locations_of(connection) or ("",):
        settings = settings_of(connection, location)
        yield Candidate(
            address=str(Address(known.conn_id, location)), service=settings.identity,
            kms_key=str(getattr(settings, "kms_key", "") or ""),
        )  # fmt: skip


def chosen_place(
    args: argparse.Namespace,
    needs: Needs,
    *,
    store: Store,
    book: PriceBook,
    now: datetime,
    log: logging.Logger,
    ask: bool,
) -> Choice:
    """Where Prepare would send a batch. The services are asked for the model only when told to ``ask``."""

    def asked(candidate: Candidate) -> str:
        there = argparse.Namespace(conn_id=candidate.address, endpoint=None)
        try:
            with closing(open_gateway(there)) as gateway:
                gateway.model(needs.model)
        except ModelUnknown:
            return f"the service does not have {needs.model} there"
        except GeminiBatchError as error:
            log.warning("%s could not be asked for %s: %s", candidate, needs.model, error)
        return ""

    places = candidates_of(args.conn_id)
    if not ask:
        return choose_location(places, needs, store=store, book=book, now=now, log=log)
    return choose_location(places, needs, store=store, book=book, now=now, log=log, asked=asked)


__all__ = ["candidates_of", "chosen_place"]
