"""Where a person leaves word for those who wait: the same place for the command line and for the tasks, whatever is named how."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from airflow_provider_geminibatch.cli.main import main
from airflow_provider_geminibatch.core.eta import Estimate
from airflow_provider_geminibatch.core.ledger import Opening
from airflow_provider_geminibatch.core.manifest import Manifest
from airflow_provider_geminibatch.core.model import BatchId
from airflow_provider_geminibatch.core.names import generation_path
from airflow_provider_geminibatch.hooks.commands import command_left, command_uri
from airflow_provider_geminibatch.hooks.outlook import note_estimate
from airflow_provider_geminibatch.storage import facts
from airflow_provider_geminibatch.storage.stores import LocalStore
from tests.jobs.batches import seal

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def opened(store: LocalStore, batch: BatchId) -> Manifest:
    """A batch whose generation is open, as Prepare leaves it."""
    manifest = seal(store, batch=batch)
    opening = Opening(
        owner="me", at=NOW, batch=batch, generation=1, build="b1", workspace_id="w1", workspace_uri=store.uri, fingerprint=""
    )  # fmt: skip
    facts.put(store, f"{generation_path(batch, 1)}/batch.json", opening)
    return manifest


@pytest.mark.parametrize("folder", ["ws", "builds/ws", "batches/ws", "builds/batches/builds"])
@pytest.mark.parametrize(
    "batch", [BatchId("dag", "run", "t"), BatchId("builds", "run", "builds"), BatchId("batches", "builds", "t")]
)
def test_a_command_is_found_where_it_was_left(folder: str, batch: BatchId, tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path / folder))
    manifest = opened(store, batch)
    assert command_left(command_uri(manifest)) is None

    assert main(["command", manifest.uri, "cancel", "--reason", "enough"]) == 0

    left = command_left(command_uri(manifest))
    assert left is not None
    assert left.reason == "enough"


def test_what_was_expected_lies_beside_the_batch(tmp_path: Path) -> None:
    batch, store = BatchId("builds", "run", "builds"), LocalStore(str(tmp_path))
    manifest = opened(store, batch)

    note_estimate([(manifest, store)], Estimate(basis="same model", n=5), None, owner="me", now=NOW)

    assert store.read(f"{generation_path(batch, 1)}/estimate.json") is not None
