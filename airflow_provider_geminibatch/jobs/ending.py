"""The jobs of a submitted batch, as the ledger has them, and their ends on record."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from airflow_provider_geminibatch.core.ending import begun_with, first_intent
from airflow_provider_geminibatch.core.errors import NotSubmitted
from airflow_provider_geminibatch.core.ledger import Attempt, CancelMark, End, ShardFacts, attempt_path
from airflow_provider_geminibatch.core.manifest import Manifest
from airflow_provider_geminibatch.core.model import JobSnapshot, Shard
from airflow_provider_geminibatch.jobs.submit import end_fact, read_build
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.store import Store


class SubmittedJob(msgspec.Struct, frozen=True):
    """The job that stands for a shard, and the attempt of the ledger that it is."""

    name: str
    ledger: str
    attempt: Attempt

    @property
    def place(self) -> str:
        """The attempt's facts without their suffix, relative to the workspace: ``…/s/<build>/<shard>/a01``."""
        return attempt_path(self.ledger, self.attempt.number, "job").removesuffix(".job")

    @property
    def ended(self) -> JobSnapshot | None:
        """The end that is on record. The service, which may have forgotten the job, need not be asked about it."""
        end = self.attempt.end
        return None if end is None else _as_seen(end)


class SubmittedBatch(msgspec.Struct, frozen=True):
    """A batch as far as it was submitted.

    ``pending`` are shards that need a job and have none, ``unsure`` those with a create of unknown fate.
    """

    label: str
    uri: str
    jobs: tuple[SubmittedJob, ...]
    pending: tuple[str, ...] = ()
    unsure: tuple[str, ...] = ()
    intent_at: datetime | None = None

    @property
    def cancels(self) -> dict[str, CancelMark]:
        """The marks of jobs that we asked to end."""
        return {job.name: job.attempt.cancel for job in self.jobs if job.attempt.cancel}

    def place_uri(self, job: SubmittedJob) -> str:
        """Where the job's attempt lies, as an absolute URI."""
        return f"{self.uri}/{job.place}"

    def whole(self) -> SubmittedBatch:
        """The batch, if every shard is a job. Raises NotSubmitted."""
        if self.pending:
            raise NotSubmitted(self.label, ", ".join(self.pending[:3]) + (" …" if len(self.pending) > 3 else ""))
        return self


def read_batch(manifest: Manifest, store: Store) -> SubmittedBatch:
    """What the ledger says of a batch. Raises StoreUnreadable and LedgerUnreadable, never takes them for absence."""
    build = read_build(store, manifest.path)
    all_facts = [(shard, fact_store.shard_facts(store, shard.ledger)) for shard in build.shards]
    begun = frozenset(begun_with(build))
    pending = [(shard, facts) for shard, facts in all_facts if facts.current_job is None and not facts.needless]
    return SubmittedBatch(
        label=str(build.batch),
        uri=manifest.workspace,
        jobs=tuple(job for shard, facts in all_facts if (job := _job(shard, facts))),
        pending=tuple(f"shard {shard.index}" for shard, _ in pending),
        unsure=tuple(f"shard {shard.index}" for shard, facts in all_facts if _may_be_a_job(facts)),
        intent_at=first_intent(facts for shard, facts in all_facts if shard in begun),
    )


def _job(shard: Shard, facts: ShardFacts) -> SubmittedJob | None:
    standing = facts.job_attempt
    return SubmittedJob(standing.job.job_name, shard.ledger, standing) if standing and standing.job else None


def _may_be_a_job(facts: ShardFacts) -> bool:
    return any(a.sending and not (a.job or a.refused or a.absent) for a in facts.attempts)


def note_ends(
    store: Store, batch: SubmittedBatch, jobs: Mapping[str, JobSnapshot], *, owner: str, now: datetime
) -> None:
    """Write ``end`` for every job of the batch that was seen to have ended and has none on record yet."""
    for job in batch.jobs:
        seen = jobs.get(job.name)
        if job.attempt.end is None and seen is not None and seen.ended:
            fact_store.put(store, f"{job.place}.end", end_fact(seen, owner=owner, at=now))


def _as_seen(end: End) -> JobSnapshot:
    return JobSnapshot(
        name=end.job_name, state=end.state, created_at=end.created_at, ended_at=end.ended_at, counts=end.counts,
        error_code=end.error_code, error_text=end.error_text,
        # Which output it names is the service's to say; that there is one is what makes it readable.
        output_file=end.job_name if end.output else "",
    )  # fmt: skip
