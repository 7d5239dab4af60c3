"""Looking for jobs in the list: whole sweeps only, so that "not listed" means what it says."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import datetime

import msgspec

from airflow_provider_geminibatch.core.errors import JobUnreachable
from airflow_provider_geminibatch.core.ledger import ShardFacts, Stray, attempt_path
from airflow_provider_geminibatch.core.model import JobSnapshot, Shard
from airflow_provider_geminibatch.core.names import same_model
from airflow_provider_geminibatch.gemini.gateway import Gateway, JobPage
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.store import Store


class Sweep(msgspec.Struct, frozen=True):
    """One whole pass over the list: the jobs that match, earliest first, and those that have the name but do not match.

    ``at`` is the service's time of the first page: newest jobs come first, so later pages know nothing newer.
    """

    found: tuple[JobSnapshot, ...]
    at: datetime | None
    doubtful: tuple[JobSnapshot, ...] = ()


def sweep(gateway: Gateway, *, display_name: str, model: str, file_name: str, log: logging.Logger) -> Sweep:
    """All jobs that one create can have made. Raises ServiceError when any page cannot be read.

    A job of the same name with another model, input file or place for its results is not adopted. Nor is it proof of absence,
    since a service may show a model under another name than it was asked for.
    """
    swept = named_pages(gateway, display_name)
    found, doubtful = [], []
    for job in (job for page in swept for job in page.jobs if job.display_name == display_name):
        whole = job if job.input_file else gateway.job(job.name)
        if same_model(whole.model, model) and whole.input_file == file_name and not whole.oddity:
            found.append(whole)
        else:
            doubtful.append(whole)
            log.warning(
                "%s is named %s but %s; it was left alone", whole.name, display_name,
                whole.oddity or "has another model or input file",
            )  # fmt: skip
    return Sweep(tuple(sorted(found, key=_age)), swept[0].at, tuple(doubtful))


def _age(job: JobSnapshot) -> tuple[float, str]:
    return (job.created_at.timestamp() if job.created_at else float("inf"), job.name)


def named_pages(gateway: Gateway, display_name: str) -> list[JobPage]:
    """Every page that can show jobs of a name, or of the beginning of one before a ``*``.

    Where a route that can ask for names shows none, all of its list is looked through: that a filter shows nothing, which may be
    misread or lag behind, is no proof that nothing is there.
    """
    asked = list(pages(gateway, display_name))
    if gateway.identity.route != "vertex" or any(page.jobs for page in asked):
        return asked
    return list(pages(gateway))


def pages(gateway: Gateway, display_name: str = "") -> Iterator[JobPage]:
    """Every page of the list; an empty one with a token means go on (python-genai#1250).

    A display name, or the beginning of one before a ``*``, saves pages where the route can ask for it; others show the rest too.
    """
    token = ""
    while True:
        page = gateway.jobs(token, display_name)
        yield page
        token = page.next_token
        if not token:
            return


def _shown(gateway: Gateway, name: str, log: logging.Logger) -> JobSnapshot:
    """The job; without anything known of it when the service does not show it (any more): the answers do not depend on it."""
    try:
        return gateway.job(name)
    except JobUnreachable as error:
        log.warning("%s", error)
        return JobSnapshot(name=name, state="UNKNOWN")


def find_strays(
    store: Store,
    gateway: Gateway,
    shard: Shard,
    facts: ShardFacts,
    *,
    me: str,
    now: Callable[[], datetime],
    log: logging.Logger,
) -> list[JobSnapshot]:
    """Jobs that nobody wants and somebody may pay, to be costed.

    Those are the second jobs of one create, and jobs of attempts that had been proven absent and came to life after all;
    the latter are cancelled and noted. Only a shard with such an attempt costs a sweep.
    """
    extras = (name for attempt in facts.attempts if attempt.job for name in attempt.job.extras)
    strays = [_shown(gateway, name, log) for name in extras]
    absent = {attempt.claim.display_name: attempt for attempt in facts.attempts if attempt.absent}
    # All names of a workspace begin with its mark.
    mark = next(iter(absent), "").rpartition("-")[0]
    for job in (job for page in (pages(gateway, f"{mark}-*") if absent else ()) for job in page.jobs):
        attempt = absent.get(job.display_name)
        if attempt is None or attempt.uploaded is None:
            continue
        if job.input_file and job.input_file != attempt.uploaded.file_name:
            continue
        if not job.ended:
            gateway.cancel(job.name)
        stray = Stray(owner=me, at=now(), job_name=job.name, state=job.state)
        fact_store.put(store, attempt_path(shard.ledger, attempt.number, "stray"), stray)
        log.warning("%s of %s came to life after it was proven absent; cancelled, may be billed", job.name, shard)
        strays.append(job)
    return strays
