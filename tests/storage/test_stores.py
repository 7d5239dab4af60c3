"""One contract for every store."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import fsspec
import pytest

from airflow_provider_geminibatch.core.errors import StoreTooWeak, StoreUnreadable, StoreUnwritable
from airflow_provider_geminibatch.storage import facts
from airflow_provider_geminibatch.storage.store import Store, Writer, checked, must_read
from airflow_provider_geminibatch.storage.stores import FsspecStore, LocalStore, MemoryStore, open_store


@pytest.fixture(params=["local", "memory", "fsspec-memory", "fsspec-local", "gs"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return LocalStore(str(tmp_path / "ws"))
    if request.param == "memory":
        return MemoryStore("memory://contract")
    if request.param == "fsspec-memory":
        fs = fsspec.filesystem("memory", skip_instance_cache=True)
        fs.store, fs.pseudo_dirs = {}, [""]  # both are shared by all instances
        return FsspecStore(fs, "/ws", "memory-fs://ws")
    if request.param == "gs":
        request.getfixturevalue("google")
        return open_store("gs://bucket/ws")
    return FsspecStore(fsspec.filesystem("file"), str(tmp_path / "ws"), str(tmp_path / "ws"))


def test_absent_and_empty_are_two_answers(store: Store) -> None:
    store.create("a/empty", b"")

    assert store.read("a/empty") == b""
    assert store.read("a/absent") is None
    assert store.read("a/empty/below") is None


def test_only_the_first_create_succeeds(store: Store) -> None:
    assert store.create("a/fact", b"first") is True
    assert store.create("a/fact", b"second") is False
    assert store.create("a/fact", b"first") is False
    assert store.read("a/fact") == b"first"


def test_write_replaces(store: Store) -> None:
    store.write("a/b", b"old")
    store.write("a/b", b"new")

    assert store.read("a/b") == b"new"


def test_list_is_sorted_relative_and_deep(store: Store) -> None:
    for path in ("t/b", "t/a/c", "other"):
        store.write(path, b"x")

    assert list(store.list("t")) == ["t/a/c", "t/b"]
    assert list(store.list("nothing")) == []


def test_delete_is_silent_when_absent(store: Store) -> None:
    store.write("a", b"x")

    store.delete("a")
    store.delete("a")

    assert store.read("a") is None


def test_a_stream_appears_whole_at_its_end(store: Store) -> None:
    with store.writer("big/file") as stream:
        stream.write(b"one ")
        stream.write(b"two")

    assert store.read("big/file") == b"one two"
    with store.open("big/file") as file:
        file.seek(4)
        assert file.read() == b"two"


@pytest.mark.parametrize("store", ["local", "memory", "gs"], indirect=True)
def test_a_broken_stream_leaves_nothing(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt), store.writer("big/file") as stream:
        _write_and_raise(stream, KeyboardInterrupt())

    assert store.read("big/file") is None


def test_what_is_not_there_cannot_be_opened(store: Store) -> None:
    with pytest.raises(StoreUnreadable, match="unreadable is not absent"):
        store.open("nothing")
    with pytest.raises(StoreUnreadable):
        must_read(store, "nothing")


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../x", "a//b", "a/.", "a\\b", "a\0b", "a/"])
def test_no_path_leaves_its_root(store: Store, path: str) -> None:
    with pytest.raises(ValueError, match="not a path below the root"):
        store.read(path)
    with pytest.raises(ValueError, match="not a path below the root"):
        checked(path)


def test_of_many_creators_one_wins(store: Store) -> None:
    won: list[int] = []
    barrier = threading.Barrier(8)

    def creator(number: int) -> None:
        barrier.wait()
        if store.create("race", str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=creator, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    if not isinstance(store, FsspecStore) or "memory" not in store.uri:  # fsspec's memory checks, then writes
        assert len(won) == 1
        assert store.read("race") == str(won[0]).encode()


def test_a_probed_store_is_accepted_and_a_weak_one_refused(store: Store) -> None:
    facts.probe(store)

    class Weak(MemoryStore):
        def create(self, path: str, data: bytes) -> bool:
            self.write(path, data)
            return True

    weak = Weak(f"memory://weak/{store.uri}")
    with pytest.raises(StoreTooWeak, match="allow_weak_workspace"):
        facts.probe(weak)
    facts.probe(weak, allow_weak=True)


def test_a_full_disk_is_an_error_that_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(str(tmp_path))

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    for act in (lambda: store.create("a", b"x"), lambda: store.write("a", b"x")):
        with pytest.raises(StoreUnwritable, match="no space left on device"):
            act()
    with pytest.raises(StoreUnwritable, match="no space left"), store.writer("a") as stream:
        stream.write(b"x")

    assert os.listdir(tmp_path) == []


def test_an_error_of_the_body_is_not_taken_for_one_of_the_store(store: Store) -> None:
    with pytest.raises(ConnectionResetError, match="the source"), store.writer("a") as stream:
        _write_and_raise(stream, ConnectionResetError("the source broke off"))


def _write_and_raise(stream: Writer, error: BaseException) -> None:
    stream.write(b"half")
    raise error


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(StoreUnwritable):
        LocalStore(str(tmp_path / "file")).create("a", b"x")


def test_a_disk_without_links_still_creates_exclusively(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(str(tmp_path))

    def refused(*_: Any) -> None:
        raise OSError(errno.EPERM, "not here")

    monkeypatch.setattr(os, "link", refused)

    assert store.create("a", b"1") is True
    assert store.create("a", b"2") is False
    assert store.read("a") == b"1"


def test_a_lost_reply_to_a_create_is_settled_by_what_lies_there() -> None:
    class Flaky(MemoryStoreFileSystem):
        fails_after_write = True

    fs = Flaky()
    store = FsspecStore(fs, "/ws", "flaky://ws")

    assert store.create("a", b"mine") is True
    fs.objects["/ws/b"] = b"theirs"
    assert store.create("b", b"mine") is False


def test_a_client_library_that_fails_while_writing_is_a_store_that_cannot_be_written() -> None:
    class Full(MemoryStoreFileSystem):
        def open(self, path: str, mode: str) -> Any:
            stream = _LosesReply(self, path)

            def write(data: bytes) -> None:
                raise RuntimeError("QuotaExceeded")

            stream.write = write  # type: ignore[method-assign]
            return stream

    fs = Full()
    with (
        pytest.raises(StoreUnwritable, match="QuotaExceeded"),
        FsspecStore(fs, "/ws", "full://ws").writer("a") as stream,
    ):
        stream.write(b"x")

    assert fs.objects == {}


class MemoryStoreFileSystem:
    """The least of a file system: writes succeed, then the reply is lost."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def makedirs(self, path: str, exist_ok: bool) -> None:
        """Folders are names."""

    def open(self, path: str, mode: str) -> Any:
        return _LosesReply(self, path)

    def cat_file(self, path: str) -> bytes:
        if path not in self.objects:
            raise FileNotFoundError(path)
        return self.objects[path]


class _LosesReply:
    def __init__(self, fs: MemoryStoreFileSystem, path: str) -> None:
        self._fs, self._path, self._data = fs, path, b""

    def write(self, data: bytes) -> None:
        self._data += data

    def close(self) -> None:
        self._fs.objects.setdefault(self._path, self._data)
        raise TimeoutError("no reply")

    def discard(self) -> None:
        """Nothing to abort."""


def test_uris_open_their_stores(tmp_path: Path) -> None:
    assert open_store(str(tmp_path)).uri == str(tmp_path)
    assert open_store(f"file://{tmp_path}").uri == f"file://{tmp_path}"
    assert open_store("memory://shared") is open_store("memory://shared/")
    with pytest.raises(StoreUnreadable):
        open_store("nosuchscheme://bucket/x")


def test_the_workspace_id_is_made_once(store: Store) -> None:
    assert facts.workspace_id(store) == facts.workspace_id(store) != ""


def test_what_was_created_outlives_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is durable once its folder is synced, and so is the folder's own name in its parent, up to what was there."""
    synced: set[int] = set()
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (fsync(handle), synced.add(os.fstat(handle).st_ino)))
    store = LocalStore(str(tmp_path / "ws"))

    store.create("s/b1/0000/a01.sending", b"1")

    folders = ["", "ws", "ws/s", "ws/s/b1", "ws/s/b1/0000", "ws/s/b1/0000/a01.sending"]
    assert {os.stat(tmp_path / folder).st_ino for folder in folders} <= synced


def test_a_disk_without_links_syncs_its_folder_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise OSError(errno.EPERM, "not here")

    synced: set[int] = set()
    fsync = os.fsync
    monkeypatch.setattr(os, "link", refused)
    monkeypatch.setattr(os, "fsync", lambda handle: (fsync(handle), synced.add(os.fstat(handle).st_ino)))

    LocalStore(str(tmp_path)).create("a", b"1")

    assert os.stat(tmp_path).st_ino in synced
