"""Before a rescue sends anything: a last look at every open job, its end asked for and waited for, what it brought collected.

Nothing is sent twice on a guess here either. A shard that may have become a job unseen is voided, its file is deleted so that
a late create fails, and it is looked for until the same ten minutes are over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec

from airflow_provider_geminibatch.core.errors import (
    GeminiBatchError,
    JobUnreachable,
    ResultsBroken,
    ResultsNotReady,
    ServiceError,
)
from airflow_provider_geminibatch.core.ledger import Attempt, CancelMark, Fenced, JobNamed, Void, attempt_path
from airflow_provider_geminibatch.core.model import Build, Shard
from airflow_provider_geminibatch.gemini.gateway import Gateway
from airflow_provider_geminibatch.jobs.cancel import Target, cancel_jobs
from airflow_provider_geminibatch.jobs.lookup import sweep
from airflow_provider_geminibatch.jobs.results import Desk, answered, shard_name
from airflow_provider_geminibatch.jobs.submit import end_fact
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.store import Store

PATIENCE = timedelta(minutes=10)
"""How long a cancelled job may take to end. A probe saw it at once (kaibo PR#8); nothing documents it."""

LOOK_AGAIN = timedelta(seconds=15)


class SettledJobs(msgspec.Struct, frozen=True):
    """What came of the jobs. ``until``: not all have ended, call again then. ``given_up`` are shards (``<tag>-<shard>``)
    whose jobs did not end in time, or that may still be jobs: what comes of them is late."""

    ended: tuple[str, ...] = ()
    given_up: tuple[str, ...] = ()
    until: datetime | None = None


class _Open(NamedTuple):
    """A shard that may still bring something: its job runs, or its results are to come. ``since``: how long we have waited."""

    shard: Shard
    attempt: Attempt
    since: datetime


def prepare_rescue(
    number: int,
    builds: Sequence[tuple[Build, Gateway]],
    *,
    store: Store,
    me: str,
    now: Callable[[], datetime],
    log: logging.Logger,
    sleep: Callable[[float], object] | None = None,
) -> SettledJobs:
    """Bring every job of the builds to its end for rung ``number``, and collect what there is. May be called again at any time.

    A job that the service does not show, and a service that does not answer, are waited for like one that does not end.
    """
    ended: list[str] = []
    still: list[_Open] = []
    for build, gateway in builds:
        desk = Desk(store, gateway, me, now, log, sleep)
        still += _settled(desk, build, number)
        for shard in build.shards:
            missing = _collected(desk, build, shard)
            still += [missing] if missing else []
        open_now = {shard_name(one.shard) for one in still}
        ended += [name for shard in build.shards if (name := shard_name(shard)) not in open_now]
    late = [one for one in still if now() >= one.since + PATIENCE]
    if len(late) < len(still):
        due = min(one.since for one in still if one not in late) + PATIENCE
        return SettledJobs(tuple(ended), (), min(now() + LOOK_AGAIN, due))
    for one in late:
        job = one.attempt.job.job_name if one.attempt.job else one.attempt.claim.display_name
        log.warning("%s did not end in time; its rows are asked again, and what it still brings is late, and paid", job)
    return SettledJobs(tuple(ended), tuple(shard_name(one.shard) for one in late))


def _settled(desk: Desk, build: Build, number: int) -> list[_Open]:
    """Ask every open job of a build to end, and return those that have not."""
    pending: list[tuple[Shard, Attempt]] = []
    for shard in build.shards:
        last = _open_attempt(desk, shard)
        if last is not None and last.job is None:
            last = _unsent(desk, build, shard, last)
        if last is not None:
            pending.append((shard, last))
    targets = [
        Target(attempt.job.job_name, desk.store, attempt_path(shard.ledger, attempt.number, "job").removesuffix(".job"))
        for shard, attempt in pending if attempt.job
    ]  # fmt: skip
    if targets:
        why = f"rung {number} asks for its rows instead"
        done = cancel_jobs(targets, desk.gateway, owner=desk.me, why=why, now=desk.now(), rung=number)
        desk.log.info("rung %d: %s", number, done)
    return [found for shard, attempt in pending if (found := _still_open(desk, shard, attempt, number))]


def keep_unsent(desk: Desk, build: Build) -> None:
    """Keep every shard of a build that is no job yet from becoming one; what has become one unseen is put on record as a job."""
    for shard in build.shards:
        last = _open_attempt(desk, shard)
        if last is not None and last.job is None:
            _unsent(desk, build, shard, last)


def _open_attempt(desk: Desk, shard: Shard) -> Attempt | None:
    """The attempt that is or may be an open job; None when nothing of the shard can be one."""
    facts = fact_store.shard_facts(desk.store, shard.ledger)
    standing = facts.job_attempt
    if standing is not None and standing is facts.last:
        return None if standing.end else standing
    last = facts.last
    return None if last is None or last.refused or last.absent or last.job else last


def _unsent(desk: Desk, build: Build, shard: Shard, last: Attempt) -> Attempt | None:
    """Keep a shard without a job from becoming one, and look whether it has become one already."""
    if last.void is None:
        void = Void(
            owner=desk.me,
            at=desk.now(),
            why="it is not to be sent any more: its rows are asked otherwise, or not at all",
        )
        fact_store.put(desk.store, attempt_path(shard.ledger, last.number, "void"), void)
        last = _again(desk, shard, last)
    if last.sending is None or last.uploaded is None:
        return None  # its owner reads the void before it sends
    try:
        if last.fenced is None:
            desk.gateway.delete_file(last.uploaded.file_name)
            fenced = Fenced(owner=desk.me, at=desk.now(), service_at=desk.gateway.jobs().at)
            fact_store.put(desk.store, attempt_path(shard.ledger, last.number, "fenced"), fenced)
        name, file = last.claim.display_name, last.uploaded.file_name
        found = sweep(desk.gateway, display_name=name, model=build.model, file_name=file, log=desk.log).found
    except ServiceError as error:
        desk.log.warning("%s may have become a job, and cannot be looked for now: %s", shard, error)
        return last
    if found:
        extras = tuple(job.name for job in found[1:])
        for extra in extras:
            desk.gateway.cancel(extra)
        job = JobNamed(
            owner=desk.me, at=desk.now(), job_name=found[0].name, how="lookup", created_at=found[0].created_at, extras=extras
        )  # fmt: skip
        fact_store.put(desk.store, attempt_path(shard.ledger, last.number, "job"), job)
    return _again(desk, shard, last)


def _again(desk: Desk, shard: Shard, attempt: Attempt) -> Attempt:
    return fact_store.shard_facts(desk.store, shard.ledger).attempts[attempt.number - 1]


def _still_open(desk: Desk, shard: Shard, attempt: Attempt, number: int) -> _Open | None:
    """One more look at a job that was asked to end; its end goes on record."""
    if attempt.job is None:
        return _Open(shard, attempt, attempt.void.at if attempt.void else desk.now())
    try:
        job = desk.gateway.job(attempt.job.job_name)
        if job.ended:
            path = attempt_path(shard.ledger, attempt.number, "end")
            fact_store.put(desk.store, path, end_fact(job, owner=desk.me, at=desk.now()))
            return None
    except GeminiBatchError as error:
        desk.log.warning("%s", error)
    mark_path = attempt_path(shard.ledger, attempt.number, "cancel")
    mark = fact_store.get(desk.store, mark_path, CancelMark)
    if mark is None:  # the look before the cancel failed, so that it was not asked; the time counts from here
        why = "a rescue asks for its rows instead; the service did not answer"
        mark = fact_store.put(desk.store, mark_path, CancelMark(owner=desk.me, at=desk.now(), why=why, rung=number))
    return _Open(shard, attempt, mark.at)


def _collected(desk: Desk, build: Build, shard: Shard) -> _Open | None:
    """Collect what the shard's ended job brought; the shard if that is there and cannot be had yet: it is paid."""
    standing = fact_store.shard_facts(desk.store, shard.ledger).job_attempt
    if standing is None or standing.end is None or standing.collected or not standing.end.readable:
        return None
    try:
        answered(desk, None, shard, None)
    except (ServiceError, JobUnreachable, ResultsNotReady, ResultsBroken) as error:
        desk.log.warning("%s", error)
        return _Open(shard, standing, standing.end.at)
    return None


__all__ = ["PATIENCE", "SettledJobs", "keep_unsent", "prepare_rescue"]
