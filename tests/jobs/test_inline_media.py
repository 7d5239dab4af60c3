"""Media that came inside answers lie beside the rows, as files of the commit."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pyarrow import dataset

from airflow_provider_geminibatch.core.errors import Rejected, Unusable
from airflow_provider_geminibatch.core.landing import CommitManifest, Place
from airflow_provider_geminibatch.core.model import BatchId
from airflow_provider_geminibatch.core.verdict import Thresholds
from airflow_provider_geminibatch.emulator.answers import generate
from airflow_provider_geminibatch.jobs import collect as collecting
from airflow_provider_geminibatch.jobs import rows as landed_rows
from airflow_provider_geminibatch.jobs import spooled
from airflow_provider_geminibatch.jobs.results import OutcomeReader
from airflow_provider_geminibatch.storage import sinks
from airflow_provider_geminibatch.storage.landings import FileLanding
from airflow_provider_geminibatch.storage.spool import Disk
from airflow_provider_geminibatch.storage.stores import LocalStore
from tests.databases import Base
from tests.jobs.batches import seal
from tests.jobs.test_collect import BLOCKED, WINDOW, World

FORMATS = ("parquet", "jsonl")
ANY = Thresholds(max_unresolved=1.0)


def drawing(
    picture: Callable[[str], bytes], mime_type: str = "image/png", **more: Any
) -> Callable[[Any], dict[str, Any]]:
    def answer(request: Any) -> dict[str, Any]:
        text = request["contents"][0]["parts"][0]["text"]
        blob = {"mimeType": mime_type, "data": base64.b64encode(picture(text)).decode()}
        candidate = {"content": {"parts": [{"text": text}, {"inlineData": blob}]}, "finishReason": "STOP", **more}
        return {"candidates": [candidate], "modelVersion": "gemini-3.8-flash-001"}

    return answer


def place(file_format: str, **how: Any) -> Place:
    return Place("notes", "memory://landing", file_format, **how)


def media(world: World, folder: str = "") -> list[str]:
    return [path for path in world.landing.list(folder) if "/_media-" in path]


@pytest.mark.parametrize("file_format", FORMATS)
def test_an_image_is_a_file_and_its_row_says_which(file_format: str) -> None:
    world = World(shards=2, rows=3, answer=drawing(str.encode))
    landed = world.load(landing=place(file_format))
    assert landed.manifest.media is not None
    assert landed.manifest.media.rows == 6
    for row in world.rows():
        data = row["text"].encode()
        digest = hashlib.sha256(data).hexdigest()
        path = f"_media-{landed.manifest.commit}/{digest[:32]}.png"
        assert row["extra"]["inlineData"] == [
            {"mimeType": "image/png", "path": path, "size_bytes": len(data), "sha256": digest}
        ]
        assert world.landing.read(f"{landed.manifest.folder}/{path}") == data
        with FileLanding(world.landing).open_media(WINDOW, path) as file:
            assert file.read() == data


@pytest.mark.parametrize("file_format", FORMATS)
def test_the_same_content_is_one_file(file_format: str) -> None:
    world = World(rows=5, answer=drawing(lambda text: b"the same"))
    landed = world.load(landing=place(file_format))
    assert len(media(world)) == 2, "the image and the list"
    assert landed.manifest.media is not None
    assert landed.manifest.media.rows == 1


@pytest.mark.parametrize("how", [{}, {"keep": ("thoughts", "raw")}])
def test_columns_and_rows_land_as_the_same_bytes(how: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spooled, "LINE_BYTES", 700)  # some lines are too long to wait on the disk
    where, found = place("parquet", **how), []
    picture: Callable[[str], bytes] = lambda text: text.encode() * (100 if text.endswith(("2", "5")) else 1)  # noqa: E731
    for disk in (None, Disk(where), Disk(where, 2_000), Disk(where, 0)):
        monkeypatch.setattr(collecting, "disk_for", lambda landing, disk=disk: disk)
        world = World(shards=2, rows=9, answer=drawing(picture, avgLogprobs=-0.1, finishMessage='é " 1e3'))
        manifest = world.load(landing=where).manifest
        found.append((manifest.parts, manifest.media, media(world)))
    assert found[1:] == found[:1] * 3


@pytest.mark.parametrize("file_format", FORMATS)
def test_long_lines_among_usual_ones_land_one_after_the_other(
    file_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def manifest() -> CommitManifest:
        return World(rows=12, answer=drawing(picture)).load(landing=place(file_format)).manifest

    picture: Callable[[str], bytes] = lambda text: text.encode() * (100 if text.endswith(("2", "5", "8")) else 1)  # noqa: E731
    together = manifest()
    read, usual = list[int](), OutcomeReader.__call__
    monkeypatch.setattr(OutcomeReader, "__call__", lambda self, row: read.append(row) or usual(self, row))  # type: ignore[func-returns-value]
    monkeypatch.setattr(spooled, "LINE_BYTES", 700)
    monkeypatch.setattr(sinks, "BATCH_BYTES", 500)
    monkeypatch.setattr(landed_rows, "BATCH_BYTES", 500)
    apart = manifest()
    assert (apart.rows, apart.counts, apart.media) == (together.rows, together.counts, together.media)
    # The first long one is too much to be held until the others are there: all rows are read in their order then.
    assert read == [2, *range(12)]


def test_nothing_of_it_is_there_without_media() -> None:
    world = World()
    assert world.load().manifest.media is None
    assert media(world) == []


@pytest.mark.parametrize("file_format", FORMATS)
def test_what_is_not_base64_lands_as_it_came(file_format: str) -> None:
    blob = {"mimeType": "image/png", "data": "iVBOR"}
    candidate = {"content": {"parts": [{"inlineData": blob}]}, "finishReason": "STOP"}
    world = World(answer=lambda request: {"candidates": [candidate]})
    assert world.load(landing=place(file_format)).manifest.media is None
    assert [row["extra"] for row in world.rows()] == [{"inlineData": [blob]}] * 2


@pytest.mark.parametrize("file_format", FORMATS)
def test_media_go_with_the_commit_that_had_them(file_format: str) -> None:
    world = World(answer=drawing(str.encode))
    old = world.load(landing=place(file_format)).manifest
    newer = seal(world.store, rows=3, batch=BatchId("dag", "run 2", "prepare"))
    world.submit(newer)
    world.clock.advance(timedelta(hours=4))
    new = world.load(newer, landing=place(file_format)).manifest
    assert old.media is not None
    assert old.media.path in new.replaces
    assert len(media(world)) == 4
    assert all(f"/_media-{new.commit}/" in path for path in media(world))
    with pytest.raises(Unusable, match="no such medium"):
        FileLanding(world.landing).open_media(WINDOW, f"_media-{old.commit}/{'0' * 32}.png")


@pytest.mark.parametrize("file_format", FORMATS)
def test_media_of_an_accepted_window_move_with_it(file_format: str) -> None:
    usual = drawing(str.encode)
    world = World(rows=4, answer=lambda request: BLOCKED if "row 0" in str(request) else usual(request))
    with pytest.raises(Rejected):
        world.load(landing=place(file_format))
    assert len(media(world, "_rejected")) == 4
    landing = FileLanding(world.landing)
    landing.accept(WINDOW, reason="r", who="ada", now=world.clock())
    assert media(world, "_rejected") == []
    paths = [blob["path"] for row in world.rows() if row["extra"] for blob in row["extra"]["inlineData"]]
    assert [landing.open_media(WINDOW, path).read() for path in paths] == [b"row 1", b"row 2", b"row 3"]


def test_readers_of_parquet_pass_the_media(tmp_path: Path) -> None:
    world = World(answer=drawing(str.encode, "text/csv"))
    world.load(landing=place("parquet"), landing_store=FileLanding(LocalStore(str(tmp_path))))
    assert list(tmp_path.rglob("_media-*/*.csv"))
    assert dataset.dataset(str(tmp_path), format="parquet").to_table().num_rows == 2


def test_an_image_of_the_emulator_lands_as_a_file() -> None:
    def answer(request: Any) -> dict[str, Any]:
        return generate({**request, "generationConfig": {"responseModalities": ["TEXT", "IMAGE"]}}, "gemini-3.8-flash")

    world = World(answer=answer)
    landed = world.load(landing=place("parquet"))
    paths = [blob["path"] for row in world.rows() for blob in row["extra"]["inlineData"]]
    assert len(set(paths)) == 2
    for path in paths:
        assert (world.landing.read(f"{landed.manifest.folder}/{path}") or b"").startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_part_has_its_media_in_its_own_folder(file_format: str) -> None:
    world = World(answer=drawing(str.encode))
    landed = world.load(landing=place(file_format, parts=("eu", "us")), part="eu")
    assert all(path.startswith(f"{landed.manifest.folder}/_media-") for path in media(world))
    path = world.rows(parts=("eu",))[0]["extra"]["inlineData"][0]["path"]
    assert FileLanding(world.landing).open_media(WINDOW, path, parts=("us", "eu")).read() == b"row 0"


def test_a_window_landed_before_parts_were_declared_has_its_media_still() -> None:
    world = World(answer=drawing(str.encode))
    world.load()
    path = world.rows()[0]["extra"]["inlineData"][0]["path"]
    assert FileLanding(world.landing).open_media(WINDOW, path, parts=("eu",)).read() == b"row 0"


def test_a_list_that_was_harmed_is_written_again() -> None:
    world = World(answer=drawing(str.encode))
    manifest = world.load().manifest
    assert manifest.media is not None
    listing = f"{manifest.folder}/{manifest.media.path}"
    before = world.landing.read(listing)
    world.landing.write(listing, b"{")
    assert world.load().manifest.media == manifest.media
    assert world.landing.read(listing) == before


def test_in_a_table_the_data_stay_in_the_row(tmp_path: Path) -> None:
    world = World(answer=drawing(str.encode))
    table = Base("sqlite", tmp_path)
    landing = table.landing(table.connect)
    world.load(landing=Place("notes", "sql://db@/notes", "sql"), landing_store=landing)
    blobs = [row["extra"]["inlineData"][0] for row in landing.rows(WINDOW)]
    assert [base64.b64decode(blob["data"]) for blob in blobs] == [b"row 0", b"row 1"]
    with pytest.raises(Unusable, match="is a table"):
        landing.open_media(WINDOW, "x")
