"""Media at Submit: at the service once per content, there when the job comes to them, and never paid for when they are not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import pytest

from airflow_provider_geminibatch.core.errors import MediaChanged, MediaRefused, StoreUnreadable
from airflow_provider_geminibatch.core.ledger import MediaUploaded
from airflow_provider_geminibatch.core.manifest import Manifest
from airflow_provider_geminibatch.core.model import BatchId
from airflow_provider_geminibatch.core.steps import Policy
from airflow_provider_geminibatch.core.template import RequestTemplate
from airflow_provider_geminibatch.gemini.gateway import Refused
from airflow_provider_geminibatch.jobs import submit as submitting
from airflow_provider_geminibatch.jobs.prepare import Declaration, prepare
from airflow_provider_geminibatch.jobs.submit import Submitted, Waiting, read_build, submit
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.files import PlainFiles
from airflow_provider_geminibatch.storage.stores import MemoryStore
from airflow_provider_geminibatch.testing import InMemoryGateway, ManualClock
from tests.media_files import mp4, png, wav

LOG = logging.getLogger("test.media")
FILES = PlainFiles()
MODEL = "gemini-3.8-flash"


class World:
    """A workspace, a service and a clock, and batches with media; everything above 1,000 bytes is uploaded."""

    def __init__(self, **service: Any) -> None:
        self.clock, self.store = ManualClock(), MemoryStore("memory://w")
        self.service = InMemoryGateway(self.clock, **service)
        self.tries = 0

    def prepare(self, *media: Any, run: str = "r", rows_per_shard: int = 100) -> Manifest:
        template = RequestTemplate(prompt="What is it?", media="$image", inline_limit_bytes=1000)
        declared = Declaration(model=MODEL, source_name="rows", template=template, max_rows_per_shard=rows_per_shard)
        rows = [{"id": number, "image": medium} for number, medium in enumerate(media)]
        return prepare(
            declared, lambda: iter(rows), store=self.store, workspace_id="w", batch=BatchId("d", run, "t"),
            service=self.service.identity, me="p", now=self.clock, log=LOG,
        ).manifest  # fmt: skip

    def submit(self, manifest: Manifest, *, me: str = "", files: Any = FILES, **policy: Any) -> Submitted | Waiting:
        self.tries += 1
        return submit(
            manifest, store=self.store, gateway=self.service, me=me or f"try-{self.tries}", now=self.clock, log=LOG,
            files=files, later_try=self.tries > 1, policy=Policy(**policy),
        )  # fmt: skip

    def uploads(self) -> list[bytes]:
        """The contents of media files that were uploaded, deleted ones among them."""
        return [self.service.files[name][0] for name, shown in self.service.file_names.items() if "-media-" in shown]

    def facts(self) -> list[MediaUploaded]:
        return [
            msgspec.json.decode(self.store.read(path) or b"", type=MediaUploaded) for path in self.store.list("media")
        ]

    def sent(self, job: int = 0) -> list[dict[str, Any]]:
        """The media parts of the requests of a job, as the service got them."""
        data, _ = self.service.files[self.service.created[job].input_file]
        requests = [msgspec.json.decode(line)["request"] for line in data.splitlines()]
        return [request["contents"][0]["parts"][0] for request in requests]


def test_each_content_is_uploaded_once_and_every_row_points_at_it() -> None:
    world = World()
    manifest = world.prepare(wav(2000), wav(3000), wav(2000), png(), rows_per_shard=2)

    world.submit(manifest)

    assert sorted(map(len, world.uploads())) == sorted((len(wav(2000)), len(wav(3000))))
    uris = [part["fileData"]["fileUri"] for job in (0, 1) for part in world.sent(job) if "fileData" in part]
    assert len(uris) == 3
    assert uris[0] == uris[2] != uris[1]
    assert set(uris) == {fact.uri for fact in world.facts()}
    assert "inlineData" in world.sent(1)[1]


def test_what_was_substituted_is_on_record_and_the_seal_is_not_touched() -> None:
    world = World()
    manifest = world.prepare(wav(2000))
    shard = read_build(world.store, manifest.path).shards[0]
    sealed = world.store.read(shard.path)

    world.submit(manifest)

    uploaded = fact_store.shard_facts(world.store, shard.ledger).attempts[0].uploaded
    assert uploaded is not None
    (fact,) = world.facts()
    (listed,) = (world.store.read(shard.media_path) or b"").splitlines()
    assert uploaded.media == {f"sha256:{msgspec.json.decode(listed)['sha256']}": fact.file_name}
    assert world.store.read(shard.path) == sealed
    assert b"geminibatch:" in (sealed or b"")


def test_another_batch_uses_what_is_there_while_it_lives_long_enough() -> None:
    world = World()
    world.submit(world.prepare(wav(2000)))
    world.clock.advance(timedelta(hours=20))

    world.submit(world.prepare(wav(2000), png(), run="second"))

    assert len(world.uploads()) == len(world.facts()) == 1


def test_a_file_that_would_not_outlive_the_job_is_uploaded_again() -> None:
    world = World()
    world.submit(world.prepare(wav(2000)))
    world.clock.advance(timedelta(hours=25))

    world.submit(world.prepare(wav(2000), png(), run="second"))

    first, second = world.facts()
    assert first.file_name != second.file_name
    assert world.sent(1)[0]["fileData"]["fileUri"] == second.uri


def test_how_long_it_has_to_live_goes_by_the_deadline() -> None:
    world = World()
    world.submit(world.prepare(wav(2000)))
    world.clock.advance(timedelta(hours=40))

    world.submit(world.prepare(wav(2000), png(), run="soon"), deadline=world.clock() + timedelta(hours=6))
    assert len(world.facts()) == 1

    world.submit(world.prepare(wav(2000), png(1), run="later"), deadline=world.clock() + timedelta(hours=9))
    assert len(world.facts()) == 2


def test_a_file_that_somebody_deleted_is_uploaded_again() -> None:
    world = World()
    world.submit(world.prepare(wav(2000)))
    world.service.delete_file(world.facts()[0].file_name)

    world.submit(world.prepare(wav(2000), png(), run="second"))

    assert len(world.facts()) == 2


def test_many_lives_of_a_content_are_counted_without_reading_them_all() -> None:
    world = World()
    for run in range(12):
        world.submit(world.prepare(wav(2000), png(run), run=f"run-{run}"))
        world.clock.advance(timedelta(hours=30))

    assert [path[-9:] for path in world.store.list("media")] == [f"{number:04d}.json" for number in range(1, 13)]


def test_a_video_that_is_still_worked_on_is_waited_for_without_a_second_upload() -> None:
    world = World()
    world.service.processing = timedelta(minutes=5)
    manifest = world.prepare(mp4() + bytes(2000), wav(2000))

    first = world.submit(manifest, me="one")

    assert isinstance(first, Waiting)
    assert "working on 1 of 2 media" in first.why
    assert world.service.created == []
    while isinstance(end := world.submit(manifest, me="one"), Waiting):
        world.clock.advance_to(end.until)
    assert len(world.uploads()) == 2
    assert len(world.service.created) == 1


class Failing(InMemoryGateway):
    """Cannot do anything with videos."""

    def file(self, name: str) -> Any:
        file = super().file(name)
        video = file is not None and name in self.ready_at and file.state == "ACTIVE"
        return msgspec.structs.replace(file, state="FAILED", error_text="no picture in it") if video else file


def test_a_medium_that_the_service_cannot_use_is_named_before_anything_is_paid() -> None:
    world = World()
    world.service = Failing(world.clock)
    world.service.processing = timedelta(minutes=1)
    manifest = world.prepare(mp4() + bytes(2000))
    world.submit(manifest, me="one")
    world.clock.advance(timedelta(minutes=2))

    with pytest.raises(
        MediaRefused, match=r"the video/mp4 of line 1 in memory://w/.*media\.jsonl cannot be used"
    ) as refused:
        world.submit(manifest, me="one")

    assert "no picture in it" in str(refused.value)
    assert world.service.created == []


def test_the_next_try_uploads_a_failed_medium_again() -> None:
    world = World()
    world.service = Failing(world.clock)
    world.service.processing = timedelta(minutes=1)
    manifest = world.prepare(mp4() + bytes(2000))
    world.submit(manifest, me="one")
    world.clock.advance(timedelta(minutes=2))

    assert isinstance(world.submit(manifest, me="two"), Waiting)
    assert len(world.facts()) == 2


def test_a_file_that_is_worked_on_for_ever_is_given_up() -> None:
    world = World()
    world.service.processing = timedelta(hours=30)
    manifest = world.prepare(mp4() + bytes(2000))
    world.submit(manifest, me="one")
    world.clock.advance(timedelta(hours=3))

    with pytest.raises(MediaRefused, match="working on it for 2:00:00"):
        world.submit(manifest, me="one")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.unlink(), "no such file or directory"),
        (lambda path: path.write_bytes(wav(2000, level=1)), "its content is another"),
        (lambda path: path.write_bytes(b""), "it is shorter than it was"),
    ],
)
def test_a_medium_that_is_not_what_was_prepared_stops_before_anything_is_paid(
    tmp_path: Path, spoil: Callable[[Path], object], says: str
) -> None:
    world, path = World(), tmp_path / "secret.wav"
    path.write_bytes(wav(2000))
    manifest = world.prepare(str(path))
    spoil(path)

    with pytest.raises(MediaChanged, match=says) as changed:
        world.submit(manifest)

    assert world.service.created == []
    assert world.facts() == []
    assert "secret" not in str(changed.value)
    assert all(world.service.file(name) is None for name in world.service.file_names)


def test_storage_that_does_not_answer_is_worth_another_try(tmp_path: Path) -> None:
    world, path = World(), tmp_path / "a.wav"
    path.write_bytes(wav(2000))
    manifest = world.prepare(str(path))

    class Files(PlainFiles):
        def open(self, uri: str) -> BinaryIO:
            raise TimeoutError

    with pytest.raises(StoreUnreadable, match="TimeoutError") as failed:
        world.submit(manifest, files=Files())

    assert failed.value.retryable


def test_media_that_expire_while_there_is_no_room_are_uploaded_again() -> None:
    world = World()
    manifest = world.prepare(wav(2000))
    create, world.service.create = world.service.create, lambda **more: Refused(429, "quota")  # type: ignore[method-assign]
    assert isinstance(world.submit(manifest, me="one", give_up_after=timedelta(days=9)), Waiting)
    world.clock.advance(timedelta(hours=30))
    world.service.create = create  # type: ignore[method-assign]

    while isinstance(end := world.submit(manifest, me="one", give_up_after=timedelta(days=9)), Waiting):
        world.clock.advance_to(end.until)

    assert len(world.facts()) == 2
    assert world.sent()[0]["fileData"]["fileUri"] == world.facts()[1].uri


def test_of_two_who_upload_the_same_one_file_stands() -> None:
    world = World()
    manifest, other = world.prepare(wav(2000)), world.prepare(wav(2000), png(), run="other")
    upload, raced = world.service.upload, []

    def racing(source: Any, *, display_name: str, **more: Any) -> Any:
        if "-media-" in display_name and not raced:
            raced.append(True)
            world.submit(other)
        return upload(source, display_name=display_name, **more)

    world.service.upload = racing  # type: ignore[method-assign]
    world.submit(manifest)

    (fact,) = world.facts()
    alive = [
        name for name, shown in world.service.file_names.items() if "-media-" in shown and world.service.file(name)
    ]
    assert alive == [fact.file_name]
    assert {world.sent(job)[0]["fileData"]["fileUri"] for job in (0, 1)} == {fact.uri}


def given(world: World, name: str) -> Manifest:
    """A batch of a ready-made request that names a file of the service."""
    part = {"file_data": {"mime_type": "image/png", "file_uri": f"https://host/v1beta/{name}"}}
    row = {"key": "k", "request": {"contents": [{"role": "user", "parts": [part, {"text": "What?"}]}]}}
    declared = Declaration(model=MODEL, source_name="rows")
    return prepare(
        declared, lambda: iter([row]), store=world.store, workspace_id="w", batch=BatchId("d", "r", "t"),
        service=world.service.identity, me="p", now=world.clock, log=LOG,
    ).manifest  # fmt: skip


def own_file(world: World) -> str:
    import io

    return world.service.upload(io.BytesIO(b"x"), size_bytes=1, display_name="mine").name


def test_a_file_that_the_user_named_and_that_is_gone_is_refused_before_anything_is_paid() -> None:
    world = World()
    manifest = given(world, own_file(world))
    world.clock.advance(timedelta(hours=49))

    with pytest.raises(MediaRefused, match="files/f000000 cannot be used by the service: it is not there"):
        world.submit(manifest)
    assert world.service.created == []


def test_a_file_that_the_user_named_has_to_outlive_the_deadline() -> None:
    world = World()
    manifest = given(world, own_file(world))
    world.clock.advance(timedelta(hours=20))

    with pytest.raises(MediaRefused, match="it expires at 2026-01-03 00:00 UTC, and the answers may come after that"):
        world.submit(manifest, deadline=world.clock() + timedelta(hours=30))
    assert isinstance(world.submit(manifest, deadline=world.clock() + timedelta(hours=20)), Submitted)


def test_without_a_deadline_a_short_life_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    manifest = given(world, own_file(world))
    world.clock.advance(timedelta(hours=30))

    world.submit(manifest)

    assert (
        "files/f000000 expires at 2026-01-03 00:00 UTC: rows that name it fail if their job takes longer" in caplog.text
    )


def test_what_the_files_have_together_is_told_and_warned_of(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    manifest = world.prepare(wav(2000), wav(2000), wav(3000))

    with caplog.at_level(logging.INFO):
        world.submit(manifest)
    assert "of requests and 5,088 of media are uploaded" in caplog.text
    assert "may have together" not in caplog.text

    monkeypatch.setattr(submitting, "STORAGE_BYTES", 5000)
    world.submit(world.prepare(wav(2000), wav(3000), run="more"))
    assert "more than the 5,000 bytes that the files of a project may have together" in caplog.text


def test_a_key_of_another_project_at_the_same_service_uploads_for_itself() -> None:
    world = World()
    world.submit(world.prepare(wav(2000)))
    world.service = InMemoryGateway(world.clock)

    world.submit(world.prepare(wav(2000), png(), run="other"))

    assert len(world.facts()) == 2
    assert len(world.uploads()) == 1
