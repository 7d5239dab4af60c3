"""The official google-cloud-storage client, unchanged, against the emulator."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import pytest

from airflow_provider_geminibatch.emulator import Emulator, Server, running

storage = pytest.importorskip("google.cloud.storage")
from google.api_core.exceptions import NotFound, PreconditionFailed, RetryError  # noqa: E402
from google.auth.credentials import AnonymousCredentials  # noqa: E402
from google.cloud.storage.exceptions import InvalidResponse  # noqa: E402
from google.cloud.storage.retry import DEFAULT_RETRY  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # the client's own, about itself

CHUNK = 256 << 10
SOON = DEFAULT_RETRY.with_delay(initial=0.01, maximum=0.02).with_timeout(5)


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    made = storage.Client("p", AnonymousCredentials(), client_options={"api_endpoint": server.url})
    yield made
    made.close()


@pytest.fixture
def bucket(client: Any) -> Any:
    return client.bucket("b")


def test_the_environment_names_the_emulator(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
    client = storage.Client("p")

    client.bucket("b").blob("x").upload_from_string("hello")

    assert client.bucket("b").blob("x").download_as_text() == "hello"
    assert server.emulator.log.count("storage.upload", status=200) == 1


@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 5])
def test_streaming_comes_back_as_it_went(bucket: Any, server: Server, size: int) -> None:
    data = os.urandom(size)

    with bucket.blob("in/rows.jsonl").open("wb", chunk_size=CHUNK, if_generation_match=0) as out:
        for start in range(0, size, 100_000):
            out.write(data[start : start + 100_000])

    found = bucket.get_blob("in/rows.jsonl")
    assert (found.size, found.crc32c) == (size, server.emulator.buckets.get("b", "in/rows.jsonl").crc32c)  # type: ignore[union-attr]
    assert found.download_as_bytes() == data


def test_streaming_into_what_is_there_fails_at_the_end(bucket: Any) -> None:
    bucket.blob("x").upload_from_string(b"first")

    out = bucket.blob("x").open("wb", chunk_size=CHUNK, if_generation_match=0)
    out.write(bytes(3 * CHUNK))
    with pytest.raises(InvalidResponse) as refusal:
        out.close()

    assert refusal.value.response.status_code == 412
    assert bucket.blob("x").download_as_bytes() == b"first"


def test_an_exception_while_streaming_leaves_nothing(bucket: Any) -> None:
    def stream() -> None:
        with bucket.blob("x").open("wb", chunk_size=CHUNK) as out:
            out.write(bytes(3 * CHUNK))
            raise KeyError

    with pytest.raises(KeyError):
        stream()

    assert bucket.get_blob("x") is None


@pytest.mark.parametrize("size", [5, 9 << 20])
def test_a_file_goes_up_whole_or_in_chunks_and_is_made_once(bucket: Any, tmp_path: Path, size: int) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(os.urandom(size))
    blob = bucket.blob("rows.jsonl", chunk_size=CHUNK * 8)

    blob.upload_from_filename(str(path), content_type="application/jsonl", if_generation_match=0)

    found = bucket.get_blob("rows.jsonl")
    assert (found.size, found.content_type) == (size, "application/jsonl")
    made = google_crc32c.value(path.read_bytes()).to_bytes(4, "big")
    assert found.download_as_bytes() == path.read_bytes()
    assert base64.b64decode(found.crc32c) == made
    with pytest.raises(PreconditionFailed):
        bucket.blob("rows.jsonl").upload_from_filename(str(path), if_generation_match=0)


def test_texts_metadata_and_encodings(bucket: Any) -> None:
    blob = bucket.blob("x")
    blob.metadata, blob.cache_control = {"rows": "3"}, "no-store"
    blob.upload_from_string("größe", content_type="text/plain; charset=utf-8")

    blob.metadata = {"rows": "4"}
    blob.patch(if_metageneration_match=1)

    found = bucket.get_blob("x")
    assert (found.metadata, found.cache_control, found.metageneration) == ({"rows": "4"}, "no-store", 2)
    assert found.download_as_text() == "größe"
    with pytest.raises(PreconditionFailed):
        found.patch(if_metageneration_match=1)


def test_ranges_and_generations(bucket: Any) -> None:
    blob = bucket.blob("x")
    blob.upload_from_string(b"0123456789")
    pinned = bucket.get_blob("x")

    assert pinned.download_as_bytes(start=2, end=4) == b"234"
    assert pinned.download_as_bytes(start=7) == b"789"
    with pinned.open("rb", chunk_size=4) as reading:
        assert reading.read() == b"0123456789"
    bucket.blob("x").upload_from_string(b"other")
    with pytest.raises(NotFound):
        pinned.download_as_bytes()
    with pytest.raises(PreconditionFailed):
        bucket.blob("x").download_as_bytes(if_generation_match=pinned.generation)


def test_lines_are_read_through_a_buffer_while_the_object_changes(bucket: Any, server: Server) -> None:
    lines = b"".join(b'{"key": "%d"}\n' % n for n in range(50_000))
    bucket.blob("x").upload_from_string(lines)
    pinned = bucket.get_blob("x")

    with io.BufferedReader(pinned.open("rb", chunk_size=CHUNK), 1 << 20) as reading:
        assert b"".join(reading) == lines
    with io.BufferedReader(pinned.open("rb", chunk_size=CHUNK), 1 << 10) as reading:
        reading.readline()
        bucket.blob("x").upload_from_string(lines)
        with pytest.raises(NotFound):
            reading.read()


def test_lists_with_pages_folders_and_patterns(client: Any, bucket: Any, server: Server) -> None:
    for name in ("a/1.jsonl", "a/2.jsonl", "a/b/3.jsonl", "c.txt"):
        bucket.blob(name).upload_from_string(name)

    folders = client.list_blobs("b", delimiter="/")
    assert [each.name for each in folders] == ["c.txt"]
    assert folders.prefixes == {"a/"}
    before = server.emulator.log.count("storage.list")
    assert [each.name for each in client.list_blobs("b", prefix="a/", page_size=1)] == [
        "a/1.jsonl",
        "a/2.jsonl",
        "a/b/3.jsonl",
    ]
    assert server.emulator.log.count("storage.list") == before + 3
    assert [each.name for each in client.list_blobs("b", match_glob="**.jsonl", max_results=2)] == [
        "a/1.jsonl",
        "a/2.jsonl",
    ]
    assert [each.name for each in client.list_blobs("b", start_offset="a/2", end_offset="c")] == [
        "a/2.jsonl",
        "a/b/3.jsonl",
    ]


def test_composing_copying_and_rewriting(bucket: Any) -> None:
    one, two = bucket.blob("1"), bucket.blob("2")
    one.upload_from_string(b"one,")
    two.upload_from_string(b"two")

    whole = bucket.blob("whole")
    whole.compose([one, two], if_generation_match=0, if_source_generation_match=[one.generation, two.generation])
    with pytest.raises(PreconditionFailed):
        bucket.blob("whole").compose([one], if_generation_match=0)
    copy = bucket.copy_blob(whole, bucket, "copy", if_generation_match=0)
    token, written, total = bucket.blob("rewritten").rewrite(whole)

    assert (whole.component_count, whole.md5_hash, copy.download_as_bytes()) == (2, None, b"one,two")
    assert (token, written, total) == (None, 7, 7)
    assert bucket.get_blob("rewritten").crc32c == whole.crc32c


def test_deleting_keeps_to_its_precondition(client: Any, bucket: Any) -> None:
    blob = bucket.blob("x")
    blob.upload_from_string(b"1")
    old = blob.generation
    bucket.blob("x").upload_from_string(b"2")

    with pytest.raises(PreconditionFailed):
        bucket.blob("x").delete(if_generation_match=old)
    bucket.blob("x").delete(if_generation_match=bucket.get_blob("x").generation)
    with pytest.raises(NotFound):
        bucket.blob("x").delete()


def test_a_batch_of_deletes(client: Any, bucket: Any, server: Server) -> None:
    for name in ("1", "2 ü"):
        bucket.blob(name).upload_from_string(name)

    with client.batch():
        bucket.delete_blob("1")
        bucket.delete_blob("2 ü")
    with pytest.raises(NotFound), client.batch():
        bucket.delete_blob("gone")

    assert list(client.list_blobs("b")) == []
    assert server.emulator.log.count("storage.batch") == 2


def test_buckets_by_the_client(server: Server, client: Any) -> None:
    made = client.create_bucket("new", location="EU")

    assert [each.name for each in client.list_buckets()] == ["new"]
    assert (client.get_bucket("new").location, made.exists()) == ("EU", True)
    made.delete()
    assert [each.name for each in client.list_buckets()] == []


def test_a_busy_service_is_asked_again(bucket: Any, server: Server) -> None:
    for scenario in ("burst_503", "burst_429", "dropped_calls"):
        server.emulator.scenario(scenario, endpoint="storage.upload", times=2)
    server.emulator.scenario("dropped_calls", endpoint="storage.download", times=1)

    bucket.blob("x").upload_from_string(b"data", retry=SOON)

    assert bucket.blob("x").download_as_bytes(retry=SOON) == b"data"
    server.emulator.scenario("burst_503", endpoint="storage.get", times=1000)
    with pytest.raises(RetryError):
        bucket.get_blob("x", retry=SOON.with_timeout(0.2))


def test_a_lost_reply_to_a_whole_upload_becomes_a_precondition_that_failed(bucket: Any, server: Server) -> None:
    server.emulator.scenario("upload_reply_lost")

    with pytest.raises(PreconditionFailed):
        bucket.blob("x").upload_from_string(b"data", if_generation_match=0, retry=SOON)

    assert bucket.blob("x").download_as_bytes() == b"data"


def test_a_lost_reply_to_the_last_chunk_is_asked_for_again(bucket: Any, server: Server) -> None:
    server.emulator.scenario("upload_reply_lost")

    with bucket.blob("x").open("wb", chunk_size=CHUNK, if_generation_match=0, retry=SOON) as out:
        out.write(bytes(2 * CHUNK + 5))

    assert bucket.get_blob("x").size == 2 * CHUNK + 5
    assert server.emulator.log.count("storage.chunk", status=0) == 1


def test_a_cut_download_goes_on_where_it_ended(bucket: Any, server: Server) -> None:
    data = os.urandom(3 << 20)
    bucket.blob("x").upload_from_string(data)
    server.emulator.scenario("cut_download", at=0.4)

    assert bucket.blob("x").download_as_bytes(retry=SOON) == data
    assert server.emulator.log.count("storage.download") == 2


def test_only_the_buckets_that_were_named_are_there() -> None:
    with running(Emulator(buckets=("mine",))) as server:
        client = storage.Client("p", AnonymousCredentials(), client_options={"api_endpoint": server.url})
        client.bucket("mine").blob("x").upload_from_string("1")
        assert client.lookup_bucket("other") is None
        with pytest.raises(NotFound):
            client.bucket("other").blob("x").upload_from_string("1")
