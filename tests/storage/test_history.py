"""The history of ended jobs: what one listing says, and what it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from airflow_provider_geminibatch.core.eta import History, Record
from airflow_provider_geminibatch.core.landing import JobRef
from airflow_provider_geminibatch.core.model import BatchId, Build
from airflow_provider_geminibatch.core.names import segment
from airflow_provider_geminibatch.jobs.closing import history_path
from airflow_provider_geminibatch.storage.history import read_history
from airflow_provider_geminibatch.storage.stores import MemoryStore

BEGAN, ENDED = datetime(2026, 3, 1, 8, tzinfo=UTC), datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
SERVICE = "developer https://generativelanguage.googleapis.com"


class Counted(MemoryStore):
    """A store that counts its listings."""

    listed = 0

    def list(self, folder: str) -> Iterator[str]:
        self.listed += 1
        return super().list(folder)


def note(store: MemoryStore, *, model: str = "flash", job: str = "batches/a", **fields: object) -> None:
    build = Build(
        id="b", tag="t", batch=BatchId("d", "r", "t"), generation=1, workspace_id="w", workspace_uri="memory://w",
        model=model, created_at=BEGAN, shards=(), rows=0, size_bytes=0,
    )  # fmt: skip
    known = {"state": "SUCCEEDED", "rows": 120, "created_at": BEGAN, "ended_at": ENDED} | fields
    if path := history_path(build, SERVICE, JobRef(name=job, shard="s", **known)):  # type: ignore[arg-type]
        store.create(path, b"")


def test_what_a_commit_notes_is_what_is_read() -> None:
    store = MemoryStore()
    note(store)
    note(store, job="batches/b", state="PARTIALLY_SUCCEEDED", rows=7)
    assert set(read_history(store, SERVICE, "flash").records) == {
        Record(SERVICE, "flash", ENDED, 16_200.0, "SUCCEEDED", 120),
        Record(SERVICE, "flash", ENDED, 16_200.0, "PARTIALLY_SUCCEEDED", 7),
    }


def test_one_listing_reads_a_model_and_a_second_one_the_service_only_when_the_model_is_new() -> None:
    store = Counted()
    for number in range(5):
        note(store, job=f"batches/{number}")
    assert len(read_history(store, SERVICE, "flash").records) == 5
    assert store.listed == 1
    note(store, model="models/pro preview", job="batches/other")
    wide = read_history(store, SERVICE, "models/pro preview")
    assert store.listed == 3
    assert {(seen.model, seen.rows) for seen in wide.records} == {("flash", 120), ("models/pro preview", 120)}


def test_bad_records_are_skipped_and_counted() -> None:
    store = MemoryStore()
    note(store)
    folder = f"history/{segment(SERVICE)}/flash"
    for name in ("2026-03/note.txt", "2026-03/20261399T000000Z_1_SUCCEEDED_1_a", "2026-03/x/y", "stray"):
        store.create(f"{folder}/{name}", b"")
    seen = read_history(store, SERVICE, "flash")
    assert (len(seen.records), seen.bad) == (1, 4)


@pytest.mark.parametrize("unknown", ["created_at", "ended_at"])
def test_a_job_whose_times_are_not_known_leaves_no_record(unknown: str) -> None:
    store = MemoryStore()
    note(store, **{unknown: None})
    assert list(store.list("history")) == []


def test_a_model_whose_name_was_shortened_is_still_found_and_others_stand_for_themselves() -> None:
    store, long = MemoryStore(), "m" * 300
    for number in range(5):
        note(store, model=long, job=f"batches/{number}")
    assert {seen.model for seen in read_history(store, SERVICE, long).records} == {long}
    assert {seen.model for seen in read_history(store, SERVICE, "new").records} == {segment(long)}


def test_an_empty_workspace_has_an_empty_history() -> None:
    assert read_history(MemoryStore(), SERVICE, "flash") == History()
