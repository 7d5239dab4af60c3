"""gcsfs, unchanged, against the emulator."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_geminibatch.emulator import Server

gcsfs = pytest.importorskip("gcsfs")

pytestmark = pytest.mark.filterwarnings("ignore")  # the client's own, about itself

# It goes up in blocks of 5 MiB; smaller files in one call.
BLOCK = 5 << 20


@pytest.fixture
def fs(server: Server) -> Any:
    # A new one each time: fsspec would hand out that of a test before.
    options = {"endpoint_url": server.url, "use_listings_cache": False, "skip_instance_cache": True}
    return gcsfs.GCSFileSystem(project="p", token="anon", **options)


@pytest.mark.parametrize("size", [0, 7, BLOCK, 2 * BLOCK + 7])
def test_a_file_comes_back_as_it_went(fs: Any, size: int) -> None:
    data = os.urandom(size)

    with fs.open("b/folder/x", "wb", block_size=BLOCK) as out:
        out.write(data)

    assert fs.info("b/folder/x")["size"] == size
    assert fs.cat_file("b/folder/x") == data
    with fs.open("b/folder/x", "rb") as reading:
        assert reading.read() == data


@pytest.mark.parametrize("size", [7, 2 * BLOCK + 7])
def test_an_exclusive_create_meets_what_is_there(fs: Any, size: int) -> None:
    with fs.open("b/x", "xb", block_size=BLOCK) as out:
        out.write(bytes(size))

    second = fs.open("b/x", "xb", block_size=BLOCK)
    second.write(bytes(size + 1))
    with pytest.raises(FileExistsError):
        second.close()

    assert fs.size("b/x") == size
    fs.pipe_file("b/y", b"one", mode="create")
    with pytest.raises(FileExistsError):
        fs.pipe_file("b/y", b"two", mode="create")
    assert fs.cat_file("b/y") == b"one"


def test_a_write_that_is_discarded_leaves_nothing(fs: Any, server: Server) -> None:
    out = fs.open("b/x", "xb", block_size=BLOCK)
    out.write(bytes(2 * BLOCK))
    out.discard()

    assert not fs.exists("b/x")
    assert server.emulator.log.count("storage.cancel_upload", status=499) == 1


def test_folders_are_listed_and_removed(fs: Any, server: Server) -> None:
    for name in ("a/1", "a/2", "a/b/3 ü%", "c"):
        fs.pipe_file(f"b/{name}", name.encode())

    assert fs.ls("b/a", detail=False) == ["b/a/1", "b/a/2", "b/a/b"]
    assert fs.find("b/a") == ["b/a/1", "b/a/2", "b/a/b/3 ü%"]
    assert fs.glob("b/*/*[13]") == ["b/a/1"]
    fs.rm("b/a", recursive=True)

    assert fs.find("b") == ["b/c"]
    assert server.emulator.log.count("storage.delete", status=204) == 3
    fs.rm_file("b/c")
    with pytest.raises(FileNotFoundError):
        fs.rm_file("b/c")


def test_lines_through_a_buffer_are_few_calls(fs: Any, server: Server) -> None:
    lines = b"".join(b'{"key": "%d"}\n' % n for n in range(100_000))
    fs.pipe_file("b/x", lines)

    with io.BufferedReader(fs.open("b/x", "rb"), 1 << 20) as reading:
        assert b"".join(reading) == lines

    assert server.emulator.log.count("storage.download") < 10


def test_copies_moves_and_files_on_disk(fs: Any, tmp_path: Path) -> None:
    data = os.urandom(2 * BLOCK + 7)
    (tmp_path / "x").write_bytes(data)

    fs.put_file(str(tmp_path / "x"), "b/x", chunksize=BLOCK)
    fs.cp_file("b/x", "b/y")
    fs.mv("b/y", "b/z")
    fs.get_file("b/z", str(tmp_path / "z"))

    assert (tmp_path / "z").read_bytes() == data
    assert fs.find("b") == ["b/x", "b/z"]
    fs.merge("b/both", ["b/x", "b/z"])
    assert fs.size("b/both") == 2 * len(data)
    assert fs.cat_file("b/both", start=len(data) - 3, end=len(data) + 3) == data[-3:] + data[:3]


def test_metadata_by_gcsfs(fs: Any) -> None:
    with fs.open("b/x", "wb", metadata={"rows": "3"}, content_type="application/jsonl") as out:
        out.write(b"data")

    fs.setxattrs("b/x", more="1")

    assert fs.info("b/x")["contentType"] == "application/jsonl"
    assert (fs.getxattr("b/x", "rows"), fs.getxattr("b/x", "more")) == ("3", "1")


def test_buckets_by_gcsfs(fs: Any) -> None:
    fs.mkdir("new")
    fs.touch("new/x")

    assert "new/" in fs.ls("") or "new" in fs.ls("", detail=False)
    fs.rm("new/x")
    fs.rmdir("new")
