"""When a job will have ended, told from how long similar jobs took: Kaplan-Meier over the history, given the wait so far.

Similar are the jobs of the same model and size; where those are too few, the jobs of the model, then those of the service.
A job that succeeded says how long one takes. One that expired, was cancelled or was lost says only that it would have taken
longer (it is *censored*), and one that failed says nothing and is left out. Where there is too little to go by, the answer is
"unknown" and no time is named.

    seen = estimate(history, service, model, rows, waited, now)
    seen.p90_at; seen.chance(deadline); seen.sentence(now)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

import msgspec

Basis = Literal["same model and size", "same model", "same service", "unknown"]

ENOUGH: dict[Basis, int] = {"same model and size": 20, "same model": 5, "same service": 3}
"""From how many jobs on a class is gone by. Nineteen in twenty can be told from twenty; a model's own few jobs still say
more than many of other models; with fewer than three in all, nothing is said."""
NEWEST = 100
"""Only so many of the newest jobs of a class count, since the service changes. With 200 a drift is followed worse, with 60 an
episode of stuck jobs is forgotten too soon (``benchmarks/turnaround.py``)."""
OLDEST = timedelta(days=90)
"""What ended longer ago is not gone by."""

DONE = frozenset({"SUCCEEDED", "PARTIALLY_SUCCEEDED"})
LEFT_OUT = frozenset({"FAILED"})
"""States that say nothing about how long an answer takes. Every other state counts as censored."""

_SIMILAR: dict[Basis, str] = {
    "same model and size": "similar jobs",
    "same model": "jobs of this model",
    "same service": "jobs of this service",
}


class Record(msgspec.Struct, frozen=True):
    """A job that has ended: at which service and model, when, how, after how many seconds, and of how many rows."""

    service: str
    model: str
    ended_at: datetime
    seconds: float
    state: str
    rows: int

    @property
    def done(self) -> bool:
        """True when the job ended with results, so that its time is a whole turnaround."""
        return self.state in DONE


class History(msgspec.Struct, frozen=True):
    """What is known of ended jobs. ``bad`` counts the records that could not be read."""

    records: tuple[Record, ...] = ()
    bad: int = 0


class Point(NamedTuple):
    """After ``seconds`` the share ``open`` of all jobs has not ended yet."""

    seconds: float
    open: float


def size_class(rows: int) -> int:
    """The order of magnitude of a job: 0 below ten rows, 1 below a hundred, and so on."""
    return len(str(max(rows, 1))) - 1


def kaplan_meier(times: Iterable[tuple[float, bool]], *, endless: int = 0) -> tuple[Point, ...]:
    """The share of jobs still open after each turnaround that was seen; ``times`` are (seconds, ended and not censored).

    ``endless`` jobs are added that are never seen to end. With one of them the share is what the *next* job is expected to
    do rather than what the known ones did: of n known jobs the k-th turnaround is not reached by k of n + 1.
    """
    # Of equal times the ended ones come first: who was given up then was still at risk.
    ordered = sorted(times, key=lambda time: (time[0], not time[1]))
    at_risk, left = len(ordered) + endless, 1.0
    curve: list[Point] = []
    for place, (seconds, ended) in enumerate(ordered):
        if ended:
            left *= 1 - 1 / (at_risk - place)
            if curve and curve[-1].seconds == seconds:
                curve.pop()
            curve.append(Point(seconds, left))
    return tuple(curve)


def quantile(curve: Sequence[Point], share: float) -> float | None:
    """When ``share`` of the jobs have ended, in seconds, or None where the curve does not come that far."""
    # A share is a product of many factors; without the allowance one of exactly a half would be missed.
    return next((point.seconds for point in curve if point.open <= 1 - share + 1e-9), None)


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """When a job is expected to have ended, given that it is still open. Times are None where the history does not say."""

    p50_at: datetime | None = None
    p90_at: datetime | None = None
    p95_at: datetime | None = None
    n: int = 0
    """How many jobs this is told from: similar ones that took longer than this one has waited."""
    basis: Basis = "unknown"
    late_at: datetime | None = None
    """When nineteen in twenty similar jobs had ended, counted from the beginning: later than this a job is late."""
    passed: int = 0
    """How many similar jobs took no longer than this one has waited."""
    began: datetime | None = None
    curve: tuple[Point, ...] = ()

    def chance(self, deadline: datetime) -> float | None:
        """How likely it is that the job has ended by ``deadline``, or None where the history does not say.

        Beyond the longest turnaround on record it is what is known at least.
        """
        if self.began is None or not self.curve:
            return None
        seconds = (deadline - self.began).total_seconds()
        return 1 - next((point.open for point in reversed(self.curve) if point.seconds <= seconds), 1.0)

    def late(self, now: datetime) -> bool:
        """True when nineteen in twenty similar jobs had ended by now."""
        return self.late_at is not None and now > self.late_at

    def sentence(self, now: datetime) -> str:
        """The estimate for people: ``half of 87 similar jobs were done by 14:20, nine in ten by 19:05 UTC``."""
        if self.basis == "unknown":
            return "no similar job is on record yet, so nothing is known about how long it takes"
        jobs = _SIMILAR[self.basis]
        if self.p50_at is None:
            return f"it has taken longer than {self.passed} of {self.passed + self.n} {jobs}"
        which = f"the {self.n} {jobs} that took longer than this so far" if self.passed else f"{self.n} {jobs}"
        more = f", nine in ten by {_clock(self.p90_at, now)}" if self.p90_at else ""
        return f"half of {which} were done by {_clock(self.p50_at, now)}{more} UTC"

    def as_dict(self) -> dict[str, object]:
        """The estimate as plain values, for XCom and the extra of an asset event."""
        named = {"p50_at": self.p50_at, "p90_at": self.p90_at, "p95_at": self.p95_at, "late_at": self.late_at}
        return {name: at.isoformat() if at else None for name, at in named.items()} | {"n": self.n, "basis": self.basis}


UNKNOWN = Estimate()


def estimate(history: History, service: str, model: str, rows: int, waited: timedelta, now: datetime) -> Estimate:
    """When a job of ``rows`` rows that was created ``waited`` ago will have ended."""
    classes = _classes(history, service, model, rows, now)
    so_far = max(waited.total_seconds(), 0.0)
    began = now - timedelta(seconds=so_far)
    usual = _chosen(classes, 0.0)
    if usual is None:
        return UNKNOWN
    late_at = _at(began, quantile(_curve(usual[1]), 0.95))
    chosen = _chosen(classes, so_far)
    if chosen is None:
        beyond = sum(record.seconds > so_far for record in usual[1])
        return Estimate(basis=usual[0], n=beyond, passed=len(usual[1]) - beyond, late_at=late_at, began=began)
    basis, records = chosen
    longer = [record for record in records if record.seconds > so_far]
    curve = _curve(longer)
    return Estimate(
        p50_at=_at(began, quantile(curve, 0.5)),
        p90_at=_at(began, quantile(curve, 0.9)),
        p95_at=_at(began, quantile(curve, 0.95)),
        n=len(longer),
        basis=basis,
        late_at=late_at,
        passed=len(records) - len(longer),
        began=began,
        curve=curve,
    )


def latest(estimates: Iterable[Estimate]) -> Estimate:
    """The estimate of a batch: that of its job which is expected last.

    Jobs of one batch are sent together and wait in one queue, so they are taken to move together. One unknown job makes
    the batch unknown.
    """
    return max(estimates, key=_lateness, default=UNKNOWN)


def _lateness(seen: Estimate) -> tuple[bool, bool, float]:
    at = seen.p90_at or seen.p50_at
    return seen.basis == "unknown", at is None, at.timestamp() if at else 0.0


def _classes(
    history: History, service: str, model: str, rows: int, now: datetime
) -> tuple[tuple[Basis, list[Record]], ...]:
    """The jobs of each class, the newest first, from the narrowest class to the widest."""
    recent = sorted(
        (
            record
            for record in history.records
            if record.service == service and record.state not in LEFT_OUT and now - record.ended_at <= OLDEST
        ),
        key=lambda record: record.ended_at,
        reverse=True,
    )
    of_model = [record for record in recent if record.model == model]
    of_size = [record for record in of_model if size_class(record.rows) == size_class(rows)]
    return (
        ("same model and size", of_size[:NEWEST]),
        ("same model", of_model[:NEWEST]),
        ("same service", recent[:NEWEST]),
    )


def _chosen(classes: Sequence[tuple[Basis, list[Record]]], so_far: float) -> tuple[Basis, list[Record]] | None:
    """The narrowest class with enough jobs that took longer than ``so_far``, named by the narrowest that holds them all."""
    longer = [sum(record.seconds > so_far for record in records) for _, records in classes]
    for (basis, _), count in zip(classes, longer, strict=True):
        if count >= ENOUGH[basis]:
            return classes[longer.index(count)]
    return None


def _curve(records: Iterable[Record]) -> tuple[Point, ...]:
    return kaplan_meier(((record.seconds, record.done) for record in records), endless=1)


def _at(began: datetime, seconds: float | None) -> datetime | None:
    return None if seconds is None else began + timedelta(seconds=seconds)


def _clock(at: datetime, now: datetime) -> str:
    """The time of day, with the date when that is not today's."""
    return f"{at:%H:%M}" if at.date() == now.date() else f"{at:%d %b %H:%M}"
