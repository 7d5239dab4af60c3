"""From the connections of a task to the place where a batch goes, and from a batch on record to the connection that reaches it.

``gemini_conn_id`` names one connection or several in the order that the user prefers, each with a location behind an ``@`` or
without one: then all locations of the connection are meant.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing

from airflow_provider_geminibatch.core.errors import BadConnection, GeminiBatchError, KeyRefused, ModelUnknown, Unusable
from airflow_provider_geminibatch.core.ledger import Opening
from airflow_provider_geminibatch.core.locations import Address, Candidate, Choice, Needs, address
from airflow_provider_geminibatch.core.manifest import Manifest
from airflow_provider_geminibatch.core.model import BatchId, ServiceIdentity
from airflow_provider_geminibatch.hooks.costs import price_book
from airflow_provider_geminibatch.hooks.gemini_batch import GeminiBatchHook
from airflow_provider_geminibatch.jobs.wait import utc_now
from airflow_provider_geminibatch.storage import facts
from airflow_provider_geminibatch.storage.store import Store

log = logging.getLogger(__name__)

ConnIds = str | Sequence[str]
"""One connection or several, as ``gemini_conn_id`` of a task takes them."""


def conn_ids(given: ConnIds) -> tuple[str, ...]:
    """The connections that a task names, in its order. Raises Unusable."""
    named = given.split(",") if isinstance(given, str) else given
    found = tuple(dict.fromkeys(name.strip() for name in named if name.strip()))
    if not found:
        raise Unusable(
            "gemini_conn_id", f"{given!r} names no connection", "Name one of type 'geminibatch', or several."
        )
    return found


def candidates_of(given: ConnIds) -> tuple[Candidate, ...]:
    """Every place that the connections lead to, in the user's order. Raises BadConnection."""
    return tuple(candidate for conn_id in conn_ids(given) for candidate in _places(conn_id))


def _places(conn_id: str) -> Iterator[Candidate]:
    known = address(conn_id)
    locations = (known.location,) if known.location else GeminiBatchHook(known.conn_id).locations()
    for location in locations or ("",):
        place = str(Address(known.conn_id, location))
        settings = GeminiBatchHook(place).settings()
        yield Candidate(address=place, service=settings.identity, kms_key=str(getattr(settings, "kms_key", "") or ""))


def settled_location(store: Store, batch: BatchId, given: ConnIds, needs: Needs) -> Choice:
    """Where a batch goes: where it is on record already, else the choice between what the connections offer, said in one line.

    A batch whose location no connection lists any more stays there once anything of it was sent. Raises BadConnection,
    Unusable when it can run nowhere, StoreError, LedgerUnreadable.
    """
    from airflow_provider_geminibatch.jobs.locations import anything_sent, choose_location, standing_opening

    if len(ids := conn_ids(given)) == 1 and not _has_locations(ids[0]):
        return Choice(candidate=next(_places(ids[0])))
    opening = standing_opening(store, batch)
    found = address_of(opening.service, ids) if opening and opening.service else ""
    if opening is not None and opening.service is not None and found:
        listed = any(one.service == opening.service for one in _readable_places(ids))
        if listed or anything_sent(store, opening):
            if not listed:
                log.info("%s stays at %s, which its connection does not list any more", batch, opening.service)
            return Choice(candidate=Candidate(address=found, service=opening.service), why=opening.chosen)
    chosen = choose_location(
        candidates_of(ids), needs, store=store, book=price_book(), now=utc_now(), log=log,
        asked=lambda candidate: _asked(candidate, needs.model),
    )  # fmt: skip
    if chosen.why:
        log.info("%s", chosen.why)
    return chosen


def _has_locations(conn_id: str) -> bool:
    """Whether a connection is of a route with locations; one of those may have been moved since the batch was prepared."""
    return bool(address(conn_id).location or GeminiBatchHook(conn_id).locations())


def _readable_places(ids: Iterable[str]) -> Iterator[Candidate]:
    for conn_id in ids:
        try:
            yield from _places(conn_id)
        except BadConnection as error:
            log.warning("%s", error)


def _asked(candidate: Candidate, model: str) -> str:
    """Ask a place whether it has the model; why not, or an empty text."""
    try:
        with closing(GeminiBatchHook(candidate.address).gateway()) as gateway:
            gateway.model(model)
    except ModelUnknown:
        return f"the service does not have {model} there"
    except KeyRefused as error:
        return f"its credentials are refused ({error})"
    except GeminiBatchError as error:
        # Whoever does not answer now may do so when the batch is sent; that alone moves nobody.
        log.warning("%s could not be asked for %s: %s", candidate, model, error)
    return ""


def address_of(service: ServiceIdentity, given: ConnIds) -> str:
    """Which of a task's connections reaches a service, and at which location; an empty text when none does.

    A connection reaches every location of its project, also one that it does not list. Raises BadConnection when none reaches
    the service and one cannot be read.
    """
    broken: BadConnection | None = None
    for conn_id in conn_ids(given):
        known = address(conn_id)
        try:
            if GeminiBatchHook(known.conn_id).identity().route != service.route:
                continue
            place = str(Address(known.conn_id, service.location))
            if GeminiBatchHook(place).identity() == service:
                return place
        except BadConnection as error:
            broken = broken or error
    if broken is not None:
        raise broken
    return ""


def home_of(manifest: Manifest, store: Store, given: ConnIds) -> str:
    """The connection, with its location, that a batch on record is at.

    Where it is at none of them, the task's first: who submits is told then that the connection points elsewhere. One that
    cannot be read is told of when it is used, which ends that are on record may save. Raises BadConnection, StoreError,
    LedgerUnreadable.
    """
    ids = conn_ids(given)
    if len(ids) == 1:
        try:
            if not _has_locations(ids[0]):
                return ids[0]
        except BadConnection:
            return ids[0]
    opening = facts.get(store, f"{manifest.path.rpartition('/builds/')[0]}/batch.json", Opening)
    found = address_of(opening.service, ids) if opening and opening.service else ""
    return found or ids[0]


def homes_of(batches: Iterable[tuple[Manifest, Store]], given: ConnIds) -> list[str]:
    """``home_of`` for each of several batches."""
    return [home_of(manifest, store, given) for manifest, store in batches]


def by_home(names: Iterable[str], homes: Mapping[str, str], own: str) -> dict[str, tuple[str, ...]]:
    """Jobs by the connection that they are asked for at, in order; those of no batch are at ``own``."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(homes.get(name, own), []).append(name)
    return {home: tuple(its) for home, its in found.items()}


def home_of_names(names: Sequence[str], given: ConnIds) -> str:
    """The connection to ask for jobs that were named by hand: the first whose route has such names, at the first one's location."""
    ids = conn_ids(given)
    parts = names[0].split("/") if names else []
    location = parts[3] if len(parts) > 3 and parts[0] == "projects" else ""
    for conn_id in ids:
        if (GeminiBatchHook(conn_id).identity().route == "vertex") == bool(location):
            return str(Address(address(conn_id).conn_id, location))
    return ids[0]


__all__ = [
    "ConnIds",
    "address_of",
    "by_home",
    "candidates_of",
    "conn_ids",
    "home_of",
    "home_of_names",
    "homes_of",
    "settled_location",
]
