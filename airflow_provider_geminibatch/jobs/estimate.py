"""When the open jobs of a submitted batch are expected to have ended, from the history of its workspace."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime

from airflow_provider_geminibatch.core import eta
from airflow_provider_geminibatch.core.eta import Estimate
from airflow_provider_geminibatch.core.ledger import Attempt
from airflow_provider_geminibatch.core.manifest import Manifest
from airflow_provider_geminibatch.core.model import Build
from airflow_provider_geminibatch.jobs.submit import read_build
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.history import read_history
from airflow_provider_geminibatch.storage.store import Store


def estimate_batches(
    batches: Sequence[tuple[Manifest, Store]], now: datetime, *, ended: Collection[str] = ()
) -> Estimate:
    """The estimate of several batches together: that of the job which is expected last. Raises StoreError.

    ``ended`` are jobs that are known to have ended although the ledger does not say so yet.
    """
    return eta.latest(
        job_estimate
        for manifest, store in batches
        for job_estimate in estimate_build(read_build(store, manifest.path), store, now, ended=ended).values()
    )


def estimate_build(build: Build, store: Store, now: datetime, *, ended: Collection[str] = ()) -> dict[str, Estimate]:
    """The estimate of each open job of a build, by job name. One listing reads the history. Raises StoreError."""
    histories: dict[str, eta.History] = {}
    estimates = {}
    for name, attempt, rows in _open_jobs(build, store, ended):
        service = str(attempt.claim.service)
        if service not in histories:
            histories[service] = read_history(store, service, build.model)
        waited = now - _sent_at(attempt)
        estimates[name] = eta.estimate(histories[service], service, build.model, rows, waited, now)
    return estimates


def _open_jobs(build: Build, store: Store, ended: Collection[str]) -> Iterator[tuple[str, Attempt, int]]:
    for shard in build.shards:
        standing = fact_store.shard_facts(store, shard.ledger).job_attempt
        if standing and standing.job and standing.end is None and standing.job.job_name not in ended:
            yield standing.job.job_name, standing, shard.rows


def _sent_at(attempt: Attempt) -> datetime:
    """When the job was sent, by our clock, which is the one that ``now`` is read from."""
    return attempt.sending.at if attempt.sending else attempt.claim.at
