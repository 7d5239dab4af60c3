"""A batch that was submitted to the emulator, for the tests that begin when it is time to wait."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

from airflow_provider_geminibatch.core.ledger import ShardFacts
from airflow_provider_geminibatch.core.manifest import Manifest
from airflow_provider_geminibatch.core.model import BatchId
from airflow_provider_geminibatch.hooks.gemini_batch import GeminiBatchHook
from airflow_provider_geminibatch.jobs.submit import Submitted, read_build, submit
from airflow_provider_geminibatch.storage.facts import shard_facts
from airflow_provider_geminibatch.storage.stores import LocalStore
from tests.jobs.batches import BATCH, seal

log = logging.getLogger(__name__)


def sealed(workspace: str, *, shards: int = 1, batch: BatchId = BATCH) -> dict[str, Any]:
    """The manifest of a sealed build that nobody has submitted."""
    return seal(LocalStore(workspace), shards=shards, batch=batch).as_dict()


def submitted(workspace: str, *, shards: int = 1, batch: BatchId = BATCH) -> dict[str, Any]:
    """The manifest of a batch whose shards are jobs at the service of the default connection."""
    manifest = seal(LocalStore(workspace), shards=shards, batch=batch)
    gateway = GeminiBatchHook().gateway()
    try:
        end = submit(
            manifest,
            store=LocalStore(workspace),
            gateway=gateway,
            me="submitter",
            now=lambda: datetime.now(UTC),
            log=log,
        )
    finally:
        gateway.close()
    assert isinstance(end, Submitted)
    return manifest.as_dict(jobs=shards)


def facts(workspace: str, manifest: dict[str, Any]) -> list[ShardFacts]:
    """What is on record for each shard."""
    store = LocalStore(workspace)
    build = read_build(store, Manifest(manifest["uri"]).path)
    return [shard_facts(store, shard.ledger) for shard in build.shards]


def job_names(workspace: str, manifest: dict[str, Any]) -> list[str]:
    """The jobs that stand for the shards."""
    return [str(shard.current_job) for shard in facts(workspace, manifest)]
