"""Where a batch goes, when a connection has several locations or a task several connections.

The user's order stands until enough is known to do better: where both of two places have ``LEAST_JOBS`` ended jobs of the model
on record, the later one goes first if it is clearly faster and not dearer, or cheaper and not clearly slower. A place where the
batch cannot run is left out with the reason. It is decided once for a batch, and one line says why.

    choice = choose(candidates, records, Needs(model=model), now=now)
    choice.candidate.address; choice.why
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from statistics import median_low
from typing import Final, NamedTuple

import msgspec

from airflow_provider_geminibatch.core.capabilities import is_preview, offered_elsewhere, tuned_at
from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.core.eta import LEFT_OUT, NEWEST, OLDEST, Record, kaplan_meier, quantile, size_class
from airflow_provider_geminibatch.core.kinds import KINDS
from airflow_provider_geminibatch.core.model import ServiceIdentity

LEAST_JOBS: Final = 10
"""So many ended jobs of the model have to be on record at both of two places before they are compared. Of ten the median is
known to lie between the second and the ninth (19 in 20); of five between the first and the last."""
CLEARLY: Final = 0.8
"""A place is clearly faster when half of its jobs took at most so much of the other's time. Less than that is a tie."""


class Address(NamedTuple):
    """A connection id, and the location that is meant of it (empty: its first, or that of the Developer API, which has none)."""

    conn_id: str
    location: str = ""

    def __str__(self) -> str:
        return f"{self.conn_id}@{self.location}" if self.location else self.conn_id


def address(text: str) -> Address:
    """The parts of ``conn_id@location``; without ``@`` there is no location. Airflow allows no ``@`` in a connection id."""
    conn_id, _, location = text.partition("@")
    return Address(conn_id, location)


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A place that a batch may go to. ``usd`` is what a million tokens each way cost there in a batch, None where nobody knows.

    ``kms_key`` is the key that jobs of the connection are encrypted with, if one is set. ``left_out`` is why the batch cannot
    run there, empty when it can.
    """

    address: str
    service: ServiceIdentity
    kms_key: str = ""
    usd: Decimal | None = None
    left_out: str = ""

    def __str__(self) -> str:
        return f"{self.service.route} {self.service.location}".rstrip()


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch asks of a place. ``data_region`` is where its BigQuery dataset lies; empty when the rows come from elsewhere."""

    model: str
    kind: str = "generate"
    data_region: str = ""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Where the batch goes, and why, in one line. ``why`` is empty when there was nothing to choose from."""

    candidate: Candidate
    why: str = ""


_KEY: Final = re.compile(r"projects/[^/]+/locations/([^/]+)/keyRings/.+")


def unfit(candidate: Candidate, needs: Needs) -> str:
    """Why a batch cannot run at a place, told without asking the service, or an empty text.

    Sources: batch inference guide of Vertex AI, 2026 (tuned models), its notebook of 2026-08 (BigQuery), discovery document of
    2026-11-06 (where a key lies) and the page on security controls, 2026 (previews).
    """
    route, location = candidate.service.route, candidate.service.location
    if reason := KINDS[needs.kind].not_on.get(route):
        return reason
    tuned = tuned_at(needs.model)
    if route != "vertex":
        if tuned:
            return "a tuned model of Vertex AI runs on Vertex AI only"
        return "requests in BigQuery are read by Vertex AI only" if needs.data_region else ""
    if tuned and location == "global":
        return "tuned models do not run batches at global"
    if tuned and tuned != location:
        return f"the tuned model is at {tuned}"
    key = _KEY.fullmatch(candidate.kms_key)
    if key and key[1] != location:
        return f"the encryption key is at {key[1]}, and a job's key lies in its own location"
    if candidate.kms_key and is_preview(needs.model):
        return (
            f"{needs.model} is a preview, and security controls such as an encryption key are not supported for those"
        )
    if needs.data_region.upper() in ("US", "EU"):
        return f"the BigQuery dataset is in the multi-region {needs.data_region}, and a batch takes datasets of one region only"
    # A dataset of one region is read by jobs at global too, as Google's notebook does; older pages say it is not supported.
    if needs.data_region and location not in ("global", needs.data_region.lower()):
        return f"the BigQuery dataset is at {needs.data_region}, and a job reads tables of its own location"
    return ""


def doubtful(candidate: Candidate, needs: Needs) -> str:
    """Why a batch may not run at a place: what users report, and no document says. Empty when nothing is known."""
    if candidate.service.route != "vertex":
        return ""
    return offered_elsewhere(needs.model, candidate.service.location)


class Pace(NamedTuple):
    """How long jobs take at a place: ``n`` of them, half within ``half`` seconds (None: half had not ended when they were given up)."""

    n: int
    half: float | None


def usual_rows(records: Iterable[Record], model: str) -> int | None:
    """How large the jobs of a model are as a rule, told from the newest ones; None when there are none."""
    rows = [record.rows for record in _newest(records, model)]
    return median_low(rows) if rows else None


def choose(
    candidates: Sequence[Candidate],
    records: Iterable[Record],
    needs: Needs,
    *,
    now: datetime,
    rows: int | None = None,
) -> Choice:
    """Where a batch goes, of places in the user's order. Raises Unusable when it can run at none of them.

    ``records`` are the ended jobs at all of them. ``rows`` is the size of the jobs to come; by default they are taken to be as
    large as those before.
    """
    if not candidates:
        raise Unusable("gemini_conn_id", "it names no connection", "Name one of type 'geminibatch'.")
    names = _names(candidates)
    open_ = [candidate for candidate in candidates if not candidate.left_out]
    left_out = "; ".join(f"{names[one.address]} left out: {one.left_out}" for one in candidates if one.left_out)
    if not open_:
        raise Unusable(f"model {needs.model!r}", left_out, "Name a location, or a connection, where it runs batches.")
    known = [record for record in records if now - record.ended_at <= OLDEST and record.state not in LEFT_OUT]
    paces = _Paces(known, open_, needs.model, rows)
    best, why = open_[0], ""
    for other in open_[1:]:
        if told := _better(other, best, paces, names):
            best, why = other, told
    if len(candidates) == 1:
        return Choice(candidate=best)
    if not why and len(open_) > 1:
        why = _stands(best, open_[1:], paces, names)
    told = f"{names[best.address]}: {why or 'the only place where the batch can run'}; chosen"
    return Choice(candidate=best, why=f"{told}; {left_out}" if left_out else told)


class _Paces:
    """The paces of places that may be compared with each other: jobs of one size if both have enough, else of any."""

    def __init__(self, records: Sequence[Record], places: Sequence[Candidate], model: str, rows: int | None) -> None:
        services = {str(place.service) for place in places}
        known = [record for record in records if record.service in services and record.model == model]
        rows = usual_rows(known, model) if rows is None else rows
        self._of_model = {service: _of_service(known, service, model) for service in services}
        alike = [record for record in known if rows is not None and size_class(record.rows) == size_class(rows)]
        self._of_size = {service: _of_service(alike, service, model) for service in services}

    def count(self, place: Candidate) -> int:
        return len(self._of_model[str(place.service)])

    def pair(self, one: Candidate, other: Candidate) -> tuple[Pace, Pace, str] | None:
        """The paces of both and what they are of; None while there is too little at either."""
        for found, what in ((self._of_size, "similar jobs"), (self._of_model, "jobs of this model")):
            mine, its = found[str(one.service)], found[str(other.service)]
            if min(len(mine), len(its)) >= LEAST_JOBS:
                return _pace(mine), _pace(its), what
        return None


def _newest(records: Iterable[Record], model: str) -> list[Record]:
    found = (record for record in records if record.model == model and record.state not in LEFT_OUT)
    # In an order of their own, so that the same jobs say the same however they are listed.
    return sorted(found, key=lambda one: (one.ended_at, one.seconds, one.state, one.rows), reverse=True)[:NEWEST]


def _of_service(records: Iterable[Record], service: str, model: str) -> list[Record]:
    return _newest((record for record in records if record.service == service), model)


def _pace(records: Sequence[Record]) -> Pace:
    return Pace(len(records), quantile(kaplan_meier((one.seconds, one.done) for one in records), 0.5))


def _better(other: Candidate, best: Candidate, paces: _Paces, names: dict[str, str]) -> str:
    """Why ``other`` goes before ``best``, which comes before it in the user's order; empty when it does not."""
    pair = paces.pair(other, best)
    if pair is None:
        return ""
    mine, its, what = pair
    price = _price(other, best)
    if (_clearly_faster(mine, its) and price in ("cheaper", "same price")) or (
        price == "cheaper" and not _clearly_faster(its, mine)
    ):
        return _compared(mine, its, names[best.address], what, price)
    return ""


def _clearly_faster(mine: Pace, its: Pace) -> bool:
    if mine.half is None:
        return False
    return its.half is None or mine.half < CLEARLY * its.half


def _price(one: Candidate, other: Candidate) -> str:
    """How the prices compare; nobody is sent from a known price to one that is not."""
    if one.usd is None or other.usd is None:
        return "same price" if one.usd is other.usd else "a price is unknown"
    return "same price" if one.usd == other.usd else "cheaper" if one.usd < other.usd else "dearer"


def _stands(best: Candidate, others: Sequence[Candidate], paces: _Paces, names: dict[str, str]) -> str:
    """Why the first in the user's order stays: what is known of the one that comes closest, or how little is."""
    for other in others:
        if pair := paces.pair(best, other):
            mine, its, what = pair
            return _compared(mine, its, names[other.address], what, _price(best, other)) + "; first in your order"
    counts = ", ".join(f"{paces.count(one)} at {names[one.address]}" for one in (best, *others))
    return f"first in your order; too few jobs of this model are on record to compare ({counts}; {LEAST_JOBS} at both it takes)"


def _compared(mine: Pace, its: Pace, there: str, what: str, price: str) -> str:
    return f"half of {mine.n} {what} took {_span(mine)} against {_span(its)} at {there} ({its.n} jobs); {price}"


def _span(pace: Pace) -> str:
    if pace.half is None:
        return "longer than they were waited for"
    return f"{pace.half / 3600:.1f} h" if pace.half >= 3600 else f"{pace.half / 60:.0f} min"


def _names(candidates: Sequence[Candidate]) -> dict[str, str]:
    """What each place is called: route and location, or the connection too where that names two."""
    told = [str(candidate) for candidate in candidates]
    return {
        one.address: name if told.count(name) == 1 else f"{name} ({one.address})"
        for one, name in zip(candidates, told, strict=True)
    }


__all__ = [
    "CLEARLY",
    "LEAST_JOBS",
    "Address",
    "Candidate",
    "Choice",
    "Needs",
    "Pace",
    "address",
    "choose",
    "doubtful",
    "unfit",
    "usual_rows",
]
