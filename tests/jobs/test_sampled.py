"""Lines drawn from sealed shards: which, how they are read, and what is guessed of them."""

from __future__ import annotations

import io
import logging
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.errors import ModelUnknown, ServiceBusy, ServiceError
from airflow_provider_geminibatch.core.model import Build
from airflow_provider_geminibatch.gemini.gateway import TokenCount
from airflow_provider_geminibatch.jobs import sampled
from airflow_provider_geminibatch.jobs.sampled import asked_by, draw, line_at, look, task_of, without_media
from airflow_provider_geminibatch.jobs.submit import read_build
from airflow_provider_geminibatch.storage.stores import MemoryStore
from airflow_provider_geminibatch.testing import InMemoryGateway, ManualClock
from tests.jobs.batches import BATCH, seal

LOG = logging.getLogger("test.sampled")
TEXT = {"text": "look"}
INLINE = {"inlineData": {"mimeType": "image/png", "data": "A" * 4000}}
REMOTE = {"file_data": {"file_uri": "https://x/y.png"}}
PLACED = {"fileData": {"mimeType": "video/mp4", "fileUri": "geminibatch:sha256:00"}}


def sealed(**how: Any) -> tuple[MemoryStore, Build]:
    store = MemoryStore("memory://sampled")
    return store, read_build(store, seal(store, **how).path)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.integers(1, 64))
def test_every_byte_of_a_file_leads_to_the_line_that_holds_it(lengths: list[int], step: int) -> None:
    lines = [b"x" * length + b"\n" for length in lengths]
    data = b"".join(lines)
    before, sampled._STEP_BYTES = sampled._STEP_BYTES, step
    try:
        found = {line_at(io.BytesIO(data), at) for at in range(len(data))}
    finally:
        sampled._STEP_BYTES = before
    starts = [sum(map(len, lines[:number])) for number in range(len(lines))]
    assert found == set(zip(starts, lines, strict=True))


def test_a_small_batch_is_read_whole_and_a_larger_one_by_zones() -> None:
    store, build = sealed(shards=3, rows=10)
    zones, whole = draw(store, build, 30)
    assert whole
    texts = [line.request["contents"][0]["parts"][0]["text"] for (line,) in zones]
    assert texts == [f"row {number}" for number in range(30)]
    assert sum(line.size_bytes for (line,) in zones) == build.size_bytes
    zones, whole = draw(store, build, 12)
    assert not whole
    assert [len(zone) for zone in zones] == [2] * 6
    assert {line.at[0] for zone in zones for line in zone} == {0, 1, 2}
    assert draw(store, build, 12)[0] == zones


def test_a_remote_file_is_read_in_small_steps() -> None:
    class Cache:
        blocksize = 50_000_000

    class Remote(io.BytesIO):
        cache = Cache()

    stream = Remote(b"a\n")
    assert sampled._in_small_steps(stream).cache.blocksize == 65_536  # type: ignore[attr-defined]
    plain = io.BytesIO()
    assert sampled._in_small_steps(plain) is plain


@pytest.mark.parametrize(
    ("parts", "kept", "gone", "placed"),
    [
        ([TEXT], [TEXT], [], []),
        ([TEXT, INLINE, REMOTE, PLACED], [TEXT], ["image/png", "", "video/mp4"], ["video/mp4"]),
        (["no part", TEXT], ["no part", TEXT], [], []),
    ],
)
def test_media_are_told_from_text(parts: list[Any], kept: list[Any], gone: list[str], placed: list[str]) -> None:
    request = {"contents": [{"role": "user", "parts": parts}, "bare"], "generationConfig": {}}
    bare, count = without_media(request)
    assert (bare["contents"][0]["parts"], count) == (kept, gone)
    assert bare["contents"][1:] == ["bare"]
    assert without_media(request, only_placeholders=True)[1] == placed
    assert without_media({"contents": "text"}) == ({"contents": "text"}, [])


class Counting(InMemoryGateway):
    """A service that counts, and remembers what; lines with a word of its choice it refuses."""

    def __init__(self, refuses: str = "", error: type[ServiceError] = ServiceError) -> None:
        super().__init__(ManualClock())
        self.asked: list[Any] = []
        self._refuses, self._error = refuses, error

    def count_tokens(self, model: str, request: Any) -> TokenCount:
        self.asked.append(request)
        if self._refuses and self._refuses in msgspec.json.encode(request).decode():
            raise self._error("count", 400, "no")
        return TokenCount(total=1000, cached=100)


def test_each_line_is_counted_once_however_often_it_was_drawn() -> None:
    store, build = sealed(shards=1, rows=40)
    zones, whole = draw(store, build, 38)
    gateway = Counting()
    looked = look(zones, whole, build, gateway, LOG)
    distinct = {line.at for zone in zones for line in zone}
    assert len(gateway.asked) == looked.counted == len(distinct) < 38
    assert {(seen.prompt, seen.cached, seen.least, seen.most) for seen in looked.sample.lines} == {
        (1000, 100, 1000, 1000)
    }


def test_what_the_service_cannot_count_is_guessed_and_said(caplog: pytest.LogCaptureFixture) -> None:
    store, build = sealed(shards=1, rows=10)
    zones, whole = draw(store, build, 10)
    with caplog.at_level(logging.WARNING):
        looked = look(zones, whole, build, Counting("row 3"), LOG)
    assert "1 of 10 requests could not be counted" in caplog.text
    assert [seen.prompt == 1000 for seen in looked.sample.lines] == [number != 3 for number in range(10)]


@pytest.mark.parametrize(("refuses", "error"), [("row", ServiceBusy), ("row 3", ModelUnknown)])
def test_a_service_that_counts_nothing_is_an_error(refuses: str, error: type[ServiceError]) -> None:
    store, build = sealed(shards=1, rows=10)
    zones, whole = draw(store, build, 10)
    with pytest.raises(error):
        look(zones, whole, build, Counting(refuses, error), LOG)


def with_parts(parts: list[Any], kind: str = "generate") -> tuple[MemoryStore, Build]:
    store, build = sealed(shards=1, rows=1)
    line = msgspec.json.encode({"key": "k", "request": {"contents": [{"parts": parts}]}}) + b"\n"
    shard = msgspec.structs.replace(build.shards[0], size_bytes=len(line))
    store.write(shard.path, line)
    return store, msgspec.structs.replace(build, shards=(shard,), size_bytes=len(line), kind=kind)


def test_media_that_are_not_at_the_service_yet_are_left_out_of_what_is_counted_and_guessed() -> None:
    store, build = with_parts([TEXT, INLINE, PLACED])
    gateway = Counting()
    looked = look(*draw(store, build, 5), build, gateway, LOG)
    assert gateway.asked == [{"contents": [{"parts": [TEXT, INLINE]}]}]
    line = looked.sample.lines[0]
    assert (line.least, line.prompt, line.most, looked.media) == (1258, 1258, 1_048_576, 1)


def test_by_size_media_count_as_small_images_and_not_by_their_bytes() -> None:
    store, build = with_parts([TEXT, INLINE, REMOTE])
    looked = look(*draw(store, build, 5), build, None, LOG)
    assert looked.media == 2
    assert 2 * 258 < looked.sample.lines[0].prompt < 2 * 258 + 30


def test_embeddings_are_not_counted_and_answer_with_no_tokens() -> None:
    store, build = with_parts([TEXT], kind="embed")
    gateway = Counting()
    looked = look(*draw(store, build, 5), build, gateway, LOG)
    assert (gateway.asked, looked.counted, looked.sample.lines[0].output_cap) == ([], 0, 0)


def test_builds_that_ask_the_like_have_one_name_for_it_and_so_have_runs_of_a_task() -> None:
    store, build = sealed(shards=2, rows=2)
    other_store, other = with_parts([TEXT])
    assert asked_by(store, build) == asked_by(other_store, other)
    assert task_of(BATCH) == "dag.prepare"
