"""Buckets: create-only writes, generations that never come back, lists in order, checksums of any blob."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import google_crc32c
import pytest

from airflow_provider_geminibatch.emulator.blobs import Blob
from airflow_provider_geminibatch.emulator.buckets import Buckets, ObjectBlob
from airflow_provider_geminibatch.emulator.clock import Clock
from airflow_provider_geminibatch.emulator.wire import Refused

START = datetime(2026, 11, 1, tzinfo=UTC)


def blob(text: str, kind: type[Blob] = ObjectBlob) -> Blob:
    made = kind()
    made.append(text.encode())
    return made


@pytest.fixture
def clock() -> Clock:
    return Clock(START, speed=0)


@pytest.fixture
def buckets(clock: Clock) -> Buckets:
    return Buckets(("b",), clock, None)


def test_an_object_is_read_as_it_was_written(buckets: Buckets) -> None:
    stored = buckets.put("b", "x/1.jsonl", blob("one\n"), content_type="application/jsonl")

    found = buckets.get("b", "x/1.jsonl")

    assert found == stored
    assert (stored.bucket, stored.name, stored.size, stored.content_type) == ("b", "x/1.jsonl", 4, "application/jsonl")
    assert (stored.created, stored.uri) == (START, "gs://b/x/1.jsonl")
    assert stored.blob.read(0, 10) == b"one\n"


@pytest.mark.parametrize("kind", [Blob, ObjectBlob])
def test_any_blob_gets_the_checksums_of_its_bytes(buckets: Buckets, kind: type[Blob]) -> None:
    text = "line\n" * 400_000  # more than one block

    stored = buckets.put("b", "x", blob(text, kind))

    assert base64.b64decode(stored.crc32c) == google_crc32c.value(text.encode()).to_bytes(4, "big")
    assert base64.b64decode(stored.md5) == hashlib.md5(text.encode()).digest()


def test_a_create_only_write_meets_what_is_there(buckets: Buckets) -> None:
    first = buckets.put("b", "x", blob("1"), if_generation_match=0)

    with pytest.raises(Refused) as refusal:
        buckets.put("b", "x", blob("2"), if_generation_match=0)

    assert refusal.value.code == 412
    assert buckets.get("b", "x") == first


def test_a_write_over_a_generation_needs_that_generation(buckets: Buckets) -> None:
    first = buckets.put("b", "x", blob("1"))
    second = buckets.put("b", "x", blob("2"), if_generation_match=first.generation)

    with pytest.raises(Refused):
        buckets.put("b", "x", blob("3"), if_generation_match=first.generation)

    assert buckets.get("b", "x") == second
    assert buckets.get("b", "x", first.generation) is None


def test_generations_are_microseconds_that_never_repeat(buckets: Buckets, clock: Clock) -> None:
    made = [buckets.put("b", "x", blob("1")).generation for _ in range(3)]
    clock.advance(timedelta(hours=1))
    later = buckets.put("b", "x", blob("1")).generation

    start = int(START.timestamp()) * 1_000_000
    assert made == [start, start + 1, start + 2]
    assert later == start + 3600 * 1_000_000


def test_a_deleted_object_is_gone_and_comes_back_with_a_new_generation(buckets: Buckets) -> None:
    first = buckets.put("b", "x", blob("1"))

    assert buckets.delete("b", "x") is True
    assert buckets.delete("b", "x") is False
    assert buckets.get("b", "x") is None
    assert buckets.list("b") == []
    assert buckets.put("b", "x", blob("1"), if_generation_match=0).generation > first.generation


def test_a_list_is_of_a_prefix_and_in_order(buckets: Buckets) -> None:
    for name in ("b/2", "a", "b/10", "b", "c", "b/\N{PILE OF POO}", "b/\uff0e"):
        buckets.put("b", name, blob(name))

    names = [stored.name for stored in buckets.list("b", "b/")]

    assert names == ["b/10", "b/2", "b/\uff0e", "b/\N{PILE OF POO}"]
    assert names == sorted(names, key=lambda name: name.encode())


def test_named_buckets_are_the_only_ones_and_more_can_be_made(buckets: Buckets) -> None:
    for missing in (lambda: buckets.put("other", "x", blob("1")), lambda: buckets.list("other")):
        with pytest.raises(Refused) as refusal:
            missing()
        assert refusal.value.code == 404
    assert buckets.get("other", "x") is None

    buckets.create("other", "EU")

    buckets.put("other", "x", blob("1"))
    assert [(bucket.name, bucket.location) for bucket in buckets] == [("b", "US"), ("other", "EU")]
    with pytest.raises(Refused) as refusal:
        buckets.create("other")
    assert refusal.value.code == 409


def test_a_bucket_with_objects_stays(buckets: Buckets) -> None:
    buckets.put("b", "x", blob("1"))
    with pytest.raises(Refused) as refusal:
        buckets.remove("b")
    assert refusal.value.code == 409

    buckets.delete("b", "x")
    buckets.remove("b")

    assert list(buckets) == []


def test_without_names_any_bucket_is_there(clock: Clock) -> None:
    buckets = Buckets(None, clock, None)

    buckets.put("whatever", "x", blob("1"))

    assert [bucket.name for bucket in buckets] == ["whatever"]


def test_big_objects_lie_in_the_folder(clock: Clock, tmp_path: Path) -> None:
    made = Buckets(None, clock, tmp_path / "not there").new_blob()

    made.append(bytes(1 << 20))
    with pytest.raises(FileNotFoundError):
        made.append(bytes(8 << 20))
