"""What opens a store or files in another process says all that is needed, and says no where it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import fsspec
import pytest

from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.storage.doors import (
    FileSystemFiles,
    file_system_data,
    open_files_door,
    open_store_door,
    store_door,
)
from airflow_provider_geminibatch.storage.stores import FsspecStore, LocalStore, MemoryStore


def test_a_store_is_the_same_on_the_other_side_of_its_door(tmp_path: Path) -> None:
    local = LocalStore(str(tmp_path / "w"), f"file://{tmp_path}/w")
    remote = FsspecStore(fsspec.filesystem("file", auto_mkdir=True), str(tmp_path / "w"), "s3://conn@bucket/w")
    local.write("a/b", b"1")
    for store in (local, remote):
        door = json.loads(json.dumps(store_door(store)))
        again = open_store_door(door)
        assert (type(again), again.uri, again.read("a/b")) == (type(store), store.uri, b"1")


def test_what_only_this_process_has_has_no_door() -> None:
    memory = fsspec.filesystem("memory")
    assert store_door(MemoryStore()) is None
    assert store_door(FsspecStore(memory, "/w", "memory://w")) is None


def test_a_file_system_that_cannot_be_said_in_json_has_no_door() -> None:
    class Signed(fsspec.AbstractFileSystem):
        protocol = "signed"

    assert file_system_data(Signed(signer=object())) is None
    assert file_system_data(object.__new__(Signed)) is None


def test_files_are_opened_without_the_connection_in_their_uri(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"{}")
    files = open_files_door({"file_system": file_system_data(fsspec.filesystem("file"))})
    assert isinstance(files, FileSystemFiles)
    with files.open(f"file://conn@{tmp_path}/a.jsonl") as file:
        assert file.read() == b"{}"
    for look in (files.match, files.sizes):
        with pytest.raises(Unusable, match="a part of a source names its files"):
            look("*.jsonl")
