"""How the jobs of a batch ended: what may be made of it, and the sentence that says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from airflow_provider_geminibatch.core.errors import JobsFailed
from airflow_provider_geminibatch.core.ledger import CancelMark, ShardFacts
from airflow_provider_geminibatch.core.model import Build, JobSnapshot, Shard

SHOWN = 3
"""How many jobs a sentence names; the rest is counted by state."""


def judged(batch: str, jobs: Iterable[JobSnapshot], cancels: Mapping[str, CancelMark]) -> str:
    """The warning about jobs that ended without results, or an empty text when all have some.

    Raises JobsFailed when none has. Whether the results that are there suffice is for Load and its thresholds to say.
    """
    ended = tuple(jobs)
    empty = [job for job in ended if not job.readable]
    told = ", ".join(_told(job, cancels.get(job.name)) for job in empty[:SHOWN]) + _rest(empty[SHOWN:])
    if len(empty) == len(ended):
        raise JobsFailed(batch, told)
    return f"{batch}: {len(empty)} of {len(ended)} jobs ended without results: {told}" if empty else ""


def _rest(jobs: list[JobSnapshot]) -> str:
    states = Counter(job.state for job in jobs)
    return f", and {', '.join(f'{count} more {state}' for state, count in sorted(states.items()))}" if jobs else ""


def _told(job: JobSnapshot, cancel: CancelMark | None) -> str:
    if job.state == "CANCELLED" and cancel:
        return f"{job.name} was cancelled by us at {cancel.at:%Y-%m-%d %H:%M:%S %Z} ({cancel.why})"
    if job.state == "CANCELLED":
        return f"{job.name} was cancelled at the service, and not by us"
    if job.state == "EXPIRED":
        return f"{job.name} EXPIRED: the service gave up on it after 48 h"
    code = f" code {job.error_code}" if job.error_code is not None else ""
    return f"{job.name} {job.state}{code}" + (f": {job.error_text}" if job.error_text else "")


def first_intent(shards: Iterable[ShardFacts]) -> datetime | None:
    """When the work that stands was first meant to be sent: what a deadline given as a span counts from.

    It survives retries and waits for room. A job that was sent again after it ended without results begins anew.
    """
    begins = [begin for facts in shards if (begin := _begin(facts))]
    return min(begins, default=None)


def begun_with(build: Build) -> tuple[Shard, ...]:
    """The shards whose intents count for a build: its generation's own, or all when it only refers to those of earlier ones.

    What an earlier generation sent days ago and has the answers of is not when this one began.
    """
    return tuple(shard for shard in build.shards if shard.generation == build.generation) or build.shards


def _begin(facts: ShardFacts) -> datetime | None:
    begin = None
    for attempt in facts.attempts:
        begin = begin or attempt.claim.at
        if attempt.job and attempt is not facts.attempts[-1]:
            begin = None
    return begin


def turnaround(jobs: Iterable[JobSnapshot]) -> timedelta | None:
    """From the first creation to the last end, by the service's clock; None when it did not say."""
    ended = tuple(jobs)
    starts = [job.created_at for job in ended if job.created_at]
    ends = [job.ended_at for job in ended if job.ended_at]
    return max(ends) - min(starts) if ended and len(starts) == len(ends) == len(ended) else None
