"""Parts end by their size too, at the same rows whether these wait by columns or are read again."""

from __future__ import annotations

import pytest

from airflow_provider_geminibatch.core.landing import Place
from airflow_provider_geminibatch.storage import sinks
from airflow_provider_geminibatch.storage.sinks import COLUMNS, read_part, verified, write_parts
from airflow_provider_geminibatch.storage.spool import Disk
from airflow_provider_geminibatch.storage.stores import MemoryStore
from tests.jobs.test_spooled import JSONL, PLACE, landed, world_of
from tests.storage.test_sinks import FORMATS, USERS, row


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_part_of_long_answers_ends_before_it_has_its_rows(file_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "BATCH_BYTES", 2_000)
    monkeypatch.setattr(sinks, "PART_BYTES", 20_000)
    monkeypatch.setattr(sinks, "PART_ROWS", 30)
    rows = [row(number, text="x" * (4_000 if number < 20 else 1)) for number in range(90)]
    store, keys = MemoryStore(), []
    parts = write_parts(store, "w", "c", file_format, (*COLUMNS, *USERS), rows)
    assert [part.rows for part in parts][:4] == [5, 5, 5, 5]
    assert all(part.rows > 5 for part in parts[4:-1])
    for part in parts:
        with verified(store, "w", part) as file:
            keys += [made["key"] for made in read_part(file, file_format)]
    assert keys == [f"k{number}" for number in range(90)]


@pytest.mark.parametrize("place", [PLACE, JSONL], ids=["parquet", "jsonl"])
def test_the_same_parts_land_with_and_without_the_local_disk(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "BATCH_BYTES", 1_500)
    monkeypatch.setattr(sinks, "PART_BYTES", 9_000)
    plain = landed(world_of(1), monkeypatch, None, place)
    assert len(plain) > 2
    assert landed(world_of(1), monkeypatch, Disk(place), place) == plain
    assert landed(world_of(1), monkeypatch, Disk(place, 9_000), place) == plain
