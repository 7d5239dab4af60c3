"""Media at Prepare: read, named by their content, and made parts of the sealed requests."""

from __future__ import annotations

import base64
import hashlib
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import pytest

from airflow_provider_geminibatch.core.errors import BadRows, StoreUnreadable, Unusable
from airflow_provider_geminibatch.core.media import Media
from airflow_provider_geminibatch.core.model import BatchId, ServiceIdentity
from airflow_provider_geminibatch.core.rows import Row
from airflow_provider_geminibatch.core.template import RequestTemplate
from airflow_provider_geminibatch.jobs.media import ROWS_AHEAD, MediaStage, media_files, read_list
from airflow_provider_geminibatch.jobs.prepare import Declaration, Prepared, prepare
from airflow_provider_geminibatch.storage.files import PlainFiles
from airflow_provider_geminibatch.storage.stores import MemoryStore
from airflow_provider_geminibatch.testing import ManualClock
from tests.media_files import BEGINNINGS, pdf, png, wav

LOG = logging.getLogger("test.media")
GOOGLE = ServiceIdentity("developer", "https://generativelanguage.googleapis.com")


class World:
    """A workspace, and a task that prepares rows with media; the sixth kilobyte of a file is too much for a request."""

    def __init__(self, **template: Any) -> None:
        self.store, self.clock, self.max_tries, self.tries = MemoryStore("memory://w"), ManualClock(), 2, 0
        self.template = RequestTemplate(
            **{"prompt": "What is it?", "media": "$image", "inline_limit_bytes": 5000, **template}
        )

    def prepare(
        self,
        *rows: Any,
        files: Any = PlainFiles(),  # noqa: B008 - it holds nothing
        service: ServiceIdentity = GOOGLE,
        **declared_too: Any,
    ) -> Prepared:
        self.tries += 1
        declared = Declaration(model="gemini-3.8-flash", source_name="rows", template=self.template, **declared_too)
        return prepare(
            declared, lambda: iter(rows), store=self.store, workspace_id="w", batch=BatchId("d", "r", "t"), service=service,
            me=f"try-{self.tries}", now=self.clock, log=LOG, max_tries=self.max_tries, files=files,
        )  # fmt: skip

    def refused(self, *rows: Any, **more: Any) -> str:
        with pytest.raises(BadRows) as bad:
            self.prepare(*rows, **more)
        assert [path for path in self.store.list("") if "/builds/" in path] == []
        return "\n".join(map(str, bad.value.problems))

    def parts(self, made: Prepared) -> list[list[dict[str, Any]]]:
        lines = (self.store.read(made.build.shards[0].path) or b"").splitlines()
        return [msgspec.json.decode(line)["request"]["contents"][0]["parts"][:-1] for line in lines]

    def passed(self, made: Prepared) -> list[dict[str, Any]]:
        lines = (self.store.read(made.build.shards[0].keys_path) or b"").splitlines()
        return [msgspec.json.decode(line)[1] for line in lines]


def inline(data: bytes, mime_type: str) -> dict[str, Any]:
    return {"inlineData": {"mimeType": mime_type, "data": base64.b64encode(data).decode()}}


def by_content(data: bytes, mime_type: str) -> dict[str, Any]:
    uri = f"geminibatch:sha256:{hashlib.sha256(data).hexdigest()}"
    return {"fileData": {"mimeType": mime_type, "fileUri": uri}}


def saved(folder: Path, name: str, data: bytes) -> str:
    (folder / name).write_bytes(data)
    return str(folder / name)


def test_small_media_stand_in_the_request_and_large_ones_by_their_content(tmp_path: Path) -> None:
    world, small, large = World(), png(), wav(samples=6000)

    made = world.prepare(
        {"id": 1, "image": saved(tmp_path, "a.png", small)}, {"id": 2, "image": saved(tmp_path, "b.wav", large)}
    )

    assert world.parts(made) == [[inline(small, "image/png")], [by_content(large, "audio/wav")]]
    listed = read_list(world.store, made.build.shards[0])
    content = f"sha256:{hashlib.sha256(large).hexdigest()}"
    assert list(listed) == [content]
    assert listed[content].uri == str(tmp_path / "b.wav")
    assert (listed[content].mime_type, listed[content].size_bytes) == ("audio/wav", len(large))


def test_nothing_is_listed_where_all_media_are_small(tmp_path: Path) -> None:
    world = World()

    made = world.prepare({"id": 1, "image": saved(tmp_path, "a.png", png())})

    assert (made.build.shards[0].media_path, made.build.shards[0].media_sha256) == ("", "")
    assert read_list(world.store, made.build.shards[0]) == {}


def test_many_rows_keep_their_order_and_a_content_is_listed_once(tmp_path: Path) -> None:
    world = World(inline_limit_bytes=0)
    paths = [saved(tmp_path, f"{shade}.png", png(shade % 5)) for shade in range(60)]

    made = world.prepare(*({"id": number, "image": path} for number, path in enumerate(paths)))

    assert world.parts(made) == [[by_content(png(shade % 5), "image/png")] for shade in range(60)]
    assert [medium.uri for medium in read_list(world.store, made.build.shards[0]).values()] == paths[:5]


def test_bytes_and_lists_and_data_set_images_are_media_too(tmp_path: Path) -> None:
    world = World(columns="*")
    path = saved(tmp_path, "a.png", png(1))

    made = world.prepare(
        {"id": 1, "image": png(2)},
        {"id": 2, "image": [path, bytearray(png(3))]},
        {"id": 3, "image": {"bytes": png(4), "path": "cat.png"}},
        {"id": 4, "image": {"bytes": None, "path": path}},
    )

    assert world.parts(made) == [
        [inline(png(2), "image/png")],
        [inline(png(1), "image/png"), inline(png(3), "image/png")],
        [inline(png(4), "image/png")],
        [inline(png(1), "image/png")],
    ]
    assert world.passed(made)[0] == {"id": 1, "image": f"sha256:{hashlib.sha256(png(2)).hexdigest()}"}


def test_large_bytes_are_kept_in_the_workspace_until_they_are_uploaded() -> None:
    world, sound = World(), wav(samples=9000)

    made = world.prepare({"id": 1, "image": sound})

    shard = made.build.shards[0]
    (medium,) = read_list(world.store, shard).values()
    kept = medium.kept_at(shard.media_path)
    assert kept is not None
    assert world.store.read(kept) == sound
    assert media_files(world.store, shard.media_path) == [shard.media_path, kept]


def test_a_source_may_be_put_together_from_columns(tmp_path: Path) -> None:
    world = World(media=[f"{tmp_path}/$folder/$name.png", Media(f"{tmp_path}/$name.txt", mime_type="text/md")])
    (tmp_path / "eu").mkdir()
    saved(tmp_path, "eu/a.png", png())
    saved(tmp_path, "a.txt", b"# Notes\n")

    made = world.prepare({"id": 1, "folder": "eu", "name": "a"})

    assert world.parts(made) == [[inline(png(), "image/png"), inline(b"# Notes\n", "text/md")]]


def test_what_the_service_reads_by_itself_is_not_read_here() -> None:
    world = World()

    made = world.prepare({"id": 1, "image": "files/abc"}, {"id": 2, "image": "https://youtu.be/x"})

    assert world.parts(made) == [
        [{"fileData": {"fileUri": f"{GOOGLE.endpoint}/v1beta/files/abc"}}],
        [{"fileData": {"fileUri": "https://youtu.be/x"}}],
    ]


def test_fields_that_are_allowed_go_through_beside_media() -> None:
    world = World(generation={"newField": 1})

    made = world.prepare({"id": 1, "image": "files/abc"}, allow_fields={"GenerationConfig": ["newField"]})

    assert b'"newField":1' in world.store.read(made.build.shards[0].path)


def test_on_vertex_cloud_storage_is_the_services_to_read() -> None:
    made = (world := World()).prepare(
        {"id": 1, "image": "gs://bucket/a.png"}, service=ServiceIdentity("vertex", "https://x")
    )

    assert world.parts(made) == [[{"fileData": {"mimeType": "image/png", "fileUri": "gs://bucket/a.png"}}]]


def test_media_of_a_request_together_stay_below_what_a_request_may_have() -> None:
    world = World(inline_limit_bytes=12_000_000)
    pages = [pdf() + bytes([page]) * 5_000_000 for page in range(3)]

    made = world.prepare({"id": 1, "image": pages})

    assert [next(iter(part)) for part in world.parts(made)[0]] == ["inlineData", "inlineData", "fileData"]


def test_all_unusable_media_are_named_with_their_rows_and_without_their_paths(tmp_path: Path) -> None:
    empty, gif = saved(tmp_path, "secret-empty.png", b""), saved(tmp_path, "secret.gif", BEGINNINGS["image/gif"])

    said = World().refused(
        {"id": 1, "image": f"{tmp_path}/secret-gone.png"},
        {"id": 2, "image": gif},
        {"id": 3, "image": empty},
        {"id": 4, "image": ""},
        {"id": 5, "image": None},
        {"id": 6, "picture": "x"},
        {"id": 7, "image": "secret.png"},
        {"id": 8, "image": object()},
        {"id": 9, "image": str(tmp_path)},
        {"id": 10, "image": []},
    )

    assert said.splitlines() == [
        "row 1: media $image: could not be read: no such file or directory (check the path and the connection)",
        "row 2: media $image: is image/gif, which Gemini does not take (convert it to PNG, or to MP4 if it moves)",
        "row 3: media $image: is an empty file (look at what wrote it)",
        "row 4: media $image: is empty in this row (give every row one, or set on_missing_media='omit')",
        "row 5: media $image: is empty in this row (give every row one, or set on_missing_media='omit')",
        "row 6: media $image: needs column image, which is not in this row (check the name of the column)",
        "row 7: media $image: is a relative path, which means another place in every process (write the whole path or a URI)",
        "row 8: media $image: is a object (give a path, a URI, bytes, or a list of those)",
        "row 9: media $image: could not be read: is a directory (check the path and the connection)",
        "row 10: media $image: is empty in this row (give every row one, or set on_missing_media='omit')",
    ]
    assert "secret" not in said


def test_rows_without_a_medium_are_asked_without_one_where_that_is_wanted() -> None:
    world = World(on_missing_media="omit", media=["$image", "/photos/$name.png"])

    made = world.prepare({"id": 1, "image": None, "name": ""}, {"id": 2, "image": png(), "name": None})

    assert world.parts(made) == [[], [inline(png(), "image/png")]]


def test_a_column_does_not_lead_out_of_the_folder_that_the_template_names(tmp_path: Path) -> None:
    said = World(media=f"{tmp_path}/photos/$name").refused({"id": 1, "name": "../../etc/passwd"})

    assert "leads out of its folder with '..'" in said


def test_a_pdf_beyond_its_limit_is_named(tmp_path: Path) -> None:
    said = World().refused({"id": 1, "image": saved(tmp_path, "a.pdf", pdf() + b"\0" * 50_000_000)})

    assert "bytes, and a application/pdf may have 50,000,000" in said


class Files:
    """A door that counts, and fails where it is told to."""

    def __init__(self, failing: BaseException | None = None) -> None:
        self.failing, self.opened, self.lock = failing, list[str](), threading.Lock()

    def open(self, uri: str) -> BinaryIO:
        with self.lock:
            self.opened.append(uri)
        if self.failing:
            raise self.failing
        return PlainFiles().open(uri)


def test_a_small_file_that_many_rows_name_is_not_read_for_each(tmp_path: Path) -> None:
    files, path = Files(), saved(tmp_path, "logo.png", png())

    World().prepare(*({"id": number, "image": path} for number in range(200)), files=files)

    assert len(files.opened) < 20


def test_storage_that_does_not_answer_is_worth_another_try() -> None:
    world = World()

    with pytest.raises(StoreUnreadable, match=r"media \$image of row 1 could not be read: TimeoutError") as failed:
        world.prepare({"id": 1, "image": "s3://bucket/secret.png"}, files=Files(TimeoutError()))

    assert failed.value.retryable
    assert "secret" not in str(failed.value)
    assert [path for path in world.store.list("") if "/builds/" in path] == []


def test_a_file_system_that_is_not_installed_is_named() -> None:
    with pytest.raises(Unusable, match="install s3fs"):
        World().prepare({"id": 1, "image": "s3://bucket/a.png"}, files=Files(ImportError("install s3fs")))


def test_a_row_that_is_no_row_is_explained_as_ever() -> None:
    said = World().refused(b'{"id": 1,', 7)

    assert "row 1: is not JSON" in said
    assert "row 2: a row must be a mapping, not int" in said


def test_a_repeated_key_is_found_among_rows_with_media() -> None:
    said = World().refused({"id": 1, "image": png(1)}, {"id": 1, "image": png(2)})

    assert said.startswith("row 2: key: ")
    assert "row 1" in said


def cleared(world: World) -> World:
    world.max_tries += 1
    return world


def test_a_clear_over_equal_media_keeps_the_build(tmp_path: Path) -> None:
    world, rows = World(), [{"id": 1, "image": saved(tmp_path, "b.wav", wav(6000))}, {"id": 2, "image": wav(7000)}]
    first = world.prepare(*rows)
    before = list(world.store.list(""))

    second = cleared(world).prepare(*rows)

    assert second.reused
    assert second.build == first.build
    assert [path for path in world.store.list("") if "checked" not in path] == before


def test_a_medium_that_was_moved_is_asked_the_same_and_found_where_it_is_now(tmp_path: Path) -> None:
    world, sound = World(), wav(6000)
    first = world.prepare({"id": 1, "image": saved(tmp_path, "old.wav", sound)})

    second = cleared(world).prepare({"id": 1, "image": saved(tmp_path, "new.wav", sound)})

    assert second.generation == 2
    assert second.build.shards[0].ledger == first.build.shards[0].ledger
    (medium,) = read_list(world.store, second.build.shards[0]).values()
    assert medium.uri == str(tmp_path / "new.wav")


def test_a_medium_that_changed_in_its_place_is_asked_anew(tmp_path: Path) -> None:
    world, path = World(), saved(tmp_path, "a.wav", wav(6000))
    first = world.prepare({"id": 1, "image": path})
    saved(tmp_path, "a.wav", wav(6000, level=1))

    second = cleared(world).prepare({"id": 1, "image": path})

    assert second.generation == 2
    assert second.build.shards[0].ledger != first.build.shards[0].ledger


def test_a_list_that_is_not_what_was_sealed_is_not_believed(tmp_path: Path) -> None:
    world = World()
    shard = world.prepare({"id": 1, "image": wav(6000)}).build.shards[0]
    world.store.write(shard.media_path, b"{}\n")

    with pytest.raises(StoreUnreadable, match="not what was sealed"):
        read_list(world.store, shard)


def test_more_media_than_a_project_may_hold_are_warned_of(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    world = World()

    with caplog.at_level(logging.INFO):
        world.prepare({"id": 1, "image": saved(tmp_path, "a.wav", wav(6000))})

    assert "1 different media of 6,044 bytes will be uploaded" in caplog.text
    assert "files of a project may have" not in caplog.text


def test_rows_are_read_only_a_few_ahead_and_threads_end_with_them() -> None:
    pulled: list[int] = []

    def source() -> Iterator[Row]:
        for number in range(1000):
            pulled.append(number)
            yield Row("row", number, {"id": number, "image": png()})

    stage = MediaStage(
        RequestTemplate(prompt="What?", media="$image"), files=PlainFiles(), store=MemoryStore("memory://w"), home="h",
        route="developer", endpoint=GOOGLE.endpoint, log=LOG,
    )  # fmt: skip
    rows = stage.rows(source())
    assert [next(rows).number for _ in range(10)] == list(range(10))
    assert len(pulled) <= 10 + ROWS_AHEAD

    rows.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("geminibatch-media")]
