"""Images in result lines of 100 MB come into a window, in the memory of one line however many there are."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_geminibatch.storage.landings import read_rows
from airflow_provider_geminibatch.storage.stores import LocalStore
from tests.scale.images_road import LINE_BYTES, ROWS, WINDOW

pytestmark = pytest.mark.scale

MIB = 1 << 20


def landed(folder: Path, file_format: str, images: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.scale.images_road", str(folder), file_format, str(images)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.mark.parametrize("file_format", ["parquet", "jsonl"])
def test_images_in_lines_of_a_hundred_megabytes_land_one_at_a_time(
    tmp_path: Path, file_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    none, one, three = (landed(tmp_path / str(images), file_format, images) for images in (0, 1, 3))
    with capsys.disabled():
        for images, run in ((0, none), (1, one), (3, three)):
            print(
                f"\n{file_format}, {images} lines of {LINE_BYTES / MIB:.0f} MiB among {ROWS}: {run['took_s']:.1f} s, "
                f"peak {run['peak_bytes'] / MIB:.0f} MiB",
                end="",
            )
    every_row_and_image_is_there(tmp_path / "3", three)
    # What one line takes beside the libraries, at its worst: Arrow, its text, and the bytes of the image.
    assert one["peak_bytes"] - none["peak_bytes"] < 5 * LINE_BYTES
    # Held together, three would take two lines more; what an allocator has not given back yet may be one.
    assert three["peak_bytes"] - one["peak_bytes"] < 1.5 * LINE_BYTES


def every_row_and_image_is_there(folder: Path, said: dict[str, Any]) -> None:
    rows = list(read_rows(LocalStore(str(folder / "landing")), WINDOW))
    assert [row["key"] for row in rows] == [f"k{number}" for number in range(ROWS)]
    assert {row["outcome"] for row in rows} == {"answer"}
    assert [row["text"] for row in rows] == [f"draw {number}" for number in range(ROWS)]

    referred = {row["key"]: row["extra"]["inlineData"] for row in rows if row["extra"]}
    window, digests = Path(said["window_folder"]), said["digests"]
    assert len(digests) == 3
    assert {key: [blob["sha256"] for blob in blobs] for key, blobs in referred.items()} == {
        key: [digest] for key, digest in digests.items()
    }
    for key, (blob,) in referred.items():
        assert sorted(blob) == ["mimeType", "path", "sha256", "size_bytes"]
        assert (window / blob["path"]).stat().st_size == blob["size_bytes"]
        assert digest_of(window / blob["path"]) == digests[key]

    # Temporary files begin with a dot; beside the images there is their list.
    media = {blob["path"].rpartition("/")[2] for (blob,) in referred.values()}
    assert {path.name for path in window.glob("_media-*/*")} == {*media, "_list.jsonl"}
    assert [path for path in folder.rglob("*") if path.name.startswith(".")] == []
    assert sum(path.stat().st_size for path in window.glob("part-*")) < MIB
