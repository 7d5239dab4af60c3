"""Cloud Storage as a store, by gcsfs against the emulator: what is lost on the way, and what it costs in calls."""

from __future__ import annotations

import json
import os
import sys

import pytest

from airflow_provider_geminibatch.core.errors import StoreUnreadable, StoreUnwritable
from airflow_provider_geminibatch.emulator import Server
from airflow_provider_geminibatch.storage import facts
from airflow_provider_geminibatch.storage.doors import open_store_door, store_door
from airflow_provider_geminibatch.storage.files import PlainFiles, opened
from airflow_provider_geminibatch.storage.google_store import GoogleStore, google_file_system
from airflow_provider_geminibatch.storage.store import Writer
from airflow_provider_geminibatch.storage.stores import open_store

pytestmark = pytest.mark.filterwarnings("ignore")  # the client's own, about itself


@pytest.fixture
def store(google: Server) -> GoogleStore:
    opened = open_store("gs://bucket/ws")
    assert isinstance(opened, GoogleStore)
    return opened


def test_a_create_that_meets_its_own_success_has_succeeded(google: Server, store: GoogleStore) -> None:
    google.emulator.scenario("upload_reply_lost")

    assert store.create("a", b"mine") is True

    assert google.emulator.log.count("storage.upload", status=412) == 1


def test_a_create_that_meets_the_same_bytes_of_another_has_not(google: Server, store: GoogleStore) -> None:
    other = open_store("gs://bucket/ws")
    other.create("a", b"same")

    assert store.create("a", b"same") is False


def test_what_was_created_elsewise_is_never_ours(google: Server, store: GoogleStore) -> None:
    store.write("a", b"same")

    assert store.create("a", b"same") is False


def test_a_probe_whose_reply_is_lost_finds_the_store_strong(google: Server) -> None:
    google.emulator.scenario("upload_reply_lost")

    facts.probe(open_store(f"gs://bucket/{os.urandom(8).hex()}"))


def test_a_fact_is_one_call_to_write_and_one_to_read(google: Server, store: GoogleStore) -> None:
    store.create("batches/a/fact.json", b"{}")
    store.read("batches/a/fact.json")
    store.read("batches/a/absent.json")

    calls = google.emulator.log.counts()
    assert (calls.pop("storage.upload"), calls.pop("storage.download")) == (1, 2)
    assert calls == {}


def test_lines_are_read_in_large_pieces(google: Server, store: GoogleStore) -> None:
    lines = b"".join(b"%d\n" % number for number in range(200_000))
    store.write("rows.jsonl", lines)

    with store.open("rows.jsonl") as file:
        assert sum(1 for _ in file) == 200_000

    assert google.emulator.log.count("storage.download") < 10


def test_a_busy_service_is_asked_again(google: Server, store: GoogleStore) -> None:
    google.emulator.scenario("burst_503", endpoint="storage.upload")
    google.emulator.scenario("dropped_calls", endpoint="storage.download")

    assert store.create("a", b"1") is True
    assert store.read("a") == b"1"


def test_a_service_that_refuses_is_neither_absent_nor_written(google: Server, store: GoogleStore) -> None:
    for endpoint in ("storage.upload", "storage.download", "storage.list", "storage.get"):
        google.emulator.scenario(
            "refused_calls", endpoint=endpoint, code=403, status="forbidden", message="no access", times=99
        )

    with pytest.raises(StoreUnreadable, match="no access"):
        store.read("a")
    with pytest.raises(StoreUnreadable, match="no access"):
        store.create("a", b"1")
    with pytest.raises(StoreUnwritable, match="no access"):
        store.write("a", b"1")
    with pytest.raises(StoreUnreadable, match="no access"):
        list(store.list(""))


def test_half_of_a_stream_is_taken_back(google: Server, store: GoogleStore) -> None:
    def half(stream: Writer) -> None:
        for _ in range(12):
            stream.write(bytes(1 << 20))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), store.writer("big") as stream:
        half(stream)

    assert store.read("big") is None
    assert google.emulator.log.count("storage.cancel_upload", status=499) == 1


def test_a_large_stream_goes_in_pieces(google: Server, store: GoogleStore) -> None:
    data = os.urandom(1 << 20)

    with store.writer("big") as stream:
        for _ in range(12):
            stream.write(data)

    assert store.read("big") == data * 12
    assert google.emulator.log.count("storage.chunk") > 1


def test_another_process_opens_the_same_store(google: Server, store: GoogleStore) -> None:
    store.create("a", b"1")
    door = store_door(store)
    assert door is not None

    other = open_store_door(json.loads(json.dumps(door)))

    assert (type(other), other.read("a"), other.create("a", b"1")) == (GoogleStore, b"1", False)


def test_credentials_as_objects_go_to_no_other_process(google: Server) -> None:
    from google.oauth2.credentials import Credentials

    store = GoogleStore(google_file_system(Credentials("a-token"), google.url), "bucket/ws", "gs://bucket/ws")  # type: ignore[no-untyped-call]

    assert store.create("a", b"1") is True
    assert store_door(store) is None


def test_sources_in_cloud_storage_are_found_and_read(google: Server, store: GoogleStore) -> None:
    for name in ("1.csv", "2.csv"):
        store.write(f"rows/{name}", b"key\n" + name.encode() + b"\n")
    files = PlainFiles()

    assert files.match("gs://bucket/ws/rows/*.csv") == ["gs://bucket/ws/rows/1.csv", "gs://bucket/ws/rows/2.csv"]
    assert files.sizes("gs://bucket/ws/rows/*.csv") == {
        "gs://bucket/ws/rows/1.csv": 10,
        "gs://bucket/ws/rows/2.csv": 10,
    }
    assert files.sizes("gs://bucket/ws/rows/1.csv") == {"gs://bucket/ws/rows/1.csv": 10}
    with opened(files, "gs://bucket/ws/rows/2.csv") as file:
        assert list(file) == [b"key\n", b"2.csv\n"]


def test_without_gcsfs_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs.core", None)

    with pytest.raises(StoreUnreadable, match=r"geminibatch\[gcs\]"):
        open_store("gs://bucket/ws")


@pytest.mark.parametrize("size", [1, 12])
def test_replies_lost_in_the_middle_of_a_stream_change_nothing(google: Server, store: GoogleStore, size: int) -> None:
    data = os.urandom(1 << 20)
    google.emulator.scenario("dropped_calls", endpoint="storage.chunk", times=1, after=1)
    google.emulator.scenario("upload_reply_lost")

    with store.writer("big") as stream:
        for _ in range(size):
            stream.write(data)

    assert store.read("big") == data * size
