"""Cancelling jobs on somebody's behalf: the mark goes into the ledger first, then the service is asked.

With the mark on record a cancelled job is known to be ours, so that the next submission may send its shard again; a job
that is cancelled without one is an error that says so. All of it may be repeated.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import NamedTuple

import msgspec

from airflow_provider_geminibatch.core.errors import GeminiBatchError, JobUnreachable, ServiceError
from airflow_provider_geminibatch.core.ledger import CancelMark
from airflow_provider_geminibatch.core.model import JobSnapshot
from airflow_provider_geminibatch.gemini.gateway import Gateway
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.store import Store

AT_ONCE = 8
"""Jobs cancelled together: a triggerer grants 30 s for all of them."""


class Target(NamedTuple):
    """A job, and where its attempt's facts lie in a store (without their suffix)."""

    job_name: str
    store: Store
    place: str


class Cancelled(msgspec.Struct, frozen=True):
    """What came of it: jobs that were asked to end, those that had ended already, and those that could not be asked."""

    asked: tuple[str, ...] = ()
    ended: dict[str, str] = {}
    failed: dict[str, GeminiBatchError] = {}

    def __str__(self) -> str:
        ended = ", ".join(f"{name} {state}" for name, state in self.ended.items())
        failed = " ".join(str(error) for error in self.failed.values())
        parts = (
            f"asked to end: {', '.join(self.asked)}" if self.asked else "",
            f"had ended: {ended}" if ended else "",
            f"could not be asked: {failed}" if failed else "",
        )
        return "; ".join(part for part in parts if part) or "no jobs"


def cancel_jobs(
    targets: Iterable[Target], gateway: Gateway, *, owner: str, why: str, now: datetime, rung: int | None = None
) -> Cancelled:
    """Look at each job and ask the open ones to end, eight at a time. An error with one job stops no other.

    ``rung``: a rung of the rescue asks for their rows instead.
    """

    def one(target: Target) -> JobSnapshot | GeminiBatchError | None:
        try:
            return _cancel(target, gateway, CancelMark(owner=owner, at=now, why=why, rung=rung))
        except GeminiBatchError as error:
            return error

    chosen = list(targets)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        came = list(zip((target.job_name for target in chosen), pool.map(one, chosen), strict=True))
    return Cancelled(
        asked=tuple(name for name, result in came if result is None),
        ended={name: result.state for name, result in came if isinstance(result, JobSnapshot)},
        failed={name: result for name, result in came if isinstance(result, GeminiBatchError)},
    )


def _cancel(target: Target, gateway: Gateway, mark: CancelMark) -> JobSnapshot | None:
    """The job if it has ended, else None after it was asked to. Raises what kept the service from being asked."""
    job = gateway.job(target.job_name)
    if job.ended:
        return job
    fact_store.put(target.store, f"{target.place}.cancel", mark)
    try:
        gateway.cancel(target.job_name)
    except ServiceError as error:
        # It may have ended in between; whether the service then answers 200 or 400 is not documented.
        if error.code in (403, 404):
            raise JobUnreachable(target.job_name, error.code, error.text) from error
        if error.code == 400 and (again := gateway.job(target.job_name)).ended:
            return again
        raise
    return None
