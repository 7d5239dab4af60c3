"""Downloads: resumed where they were cut, and believed only whole."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from airflow_provider_geminibatch.core.errors import (
    KeyRefused,
    ResultsBroken,
    ResultsNotReady,
    ServiceBusy,
    ServiceError,
)
from airflow_provider_geminibatch.jobs import download
from airflow_provider_geminibatch.jobs.download import PAUSES, TRIES, fetch
from airflow_provider_geminibatch.storage.stores import MemoryStore

DATA = b"".join(b'{"key":"%d"}\n' % number for number in range(100))
LOG = logging.getLogger("test")


class Cutting:
    """A service that sends ``DATA`` in chunks and cuts each reply after so many bytes; perhaps without ranges or a length."""

    def __init__(self, *cuts: int, ranges: bool = True, length: bool = True, error: ServiceError | None = None) -> None:
        self.cuts, self.ranges, self.length, self.error = list(cuts), ranges, length, error
        self.asked: list[int] = []
        self.data = DATA

    @contextmanager
    def download(self, file_name: str, offset: int = 0) -> Iterator[Any]:
        self.asked.append(offset)
        if self.error:
            raise self.error
        start = offset if self.ranges else 0
        cut = self.cuts.pop(0) if self.cuts else None
        yield _Reply(self.data[start:], cut, start, len(self.data) if self.length else None)


class _Reply:
    def __init__(self, data: bytes, cut: int | None, offset: int, size_bytes: int | None) -> None:
        self._data, self._cut, self.offset, self.size_bytes = data, cut, offset, size_bytes

    def chunks(self) -> Iterator[bytes]:
        end = len(self._data) if self._cut is None else self._cut
        for at in range(0, end, 64):
            yield self._data[at : min(at + 64, end)]
        if self._cut is not None:
            raise ServiceBusy("download", None, "cut")


def fetched(service: Any, pauses: list[float] | None = None) -> bytes | None:
    store, slept = MemoryStore(), [] if pauses is None else pauses
    came = fetch(service, store, "files/batch-1", "results", what="batches/1", log=LOG, pause=slept.append)
    data = store.read("results")
    assert data is not None
    assert (came.size_bytes, came.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    return data


@pytest.mark.parametrize("service", [Cutting(), Cutting(length=False)], ids=["with a length", "without"])
def test_a_file_comes_whole(service: Cutting) -> None:
    assert fetched(service) == DATA
    assert service.asked == [0]


def test_a_cut_download_goes_on_where_it_was_cut() -> None:
    service = Cutting(300, 200, 0)
    assert fetched(service) == DATA
    assert service.asked == [0, 300, 500, 500]


def test_a_service_that_ignores_ranges_is_read_from_the_start_again() -> None:
    assert fetched(Cutting(300, 200, 500, ranges=False)) == DATA


def test_another_beginning_the_second_time_is_not_believed() -> None:
    service = Cutting(300, ranges=False)

    def swapped(*args: Any) -> Any:
        service.data = DATA if not service.asked else DATA[::-1]
        return Cutting.download(service, *args)

    service.download = swapped  # type: ignore[method-assign]
    with pytest.raises(ResultsBroken, match="began with other bytes"):
        fetched(service)


def test_a_download_that_is_cut_again_and_again_is_left_for_the_next_try_and_leaves_nothing() -> None:
    store, service = MemoryStore(), Cutting(*[10] * TRIES)
    with pytest.raises(ServiceBusy):
        fetch(
            service,  # type: ignore[arg-type]
            store, "files/batch-1", "results", what="batches/1", log=LOG, pause=[].append,
        )  # fmt: skip
    assert len(service.asked) == TRIES
    assert store.read("results") is None


@pytest.mark.parametrize("code", [403, 404])
def test_results_that_are_not_shown_are_not_ready(code: int) -> None:
    with pytest.raises(ResultsNotReady, match=f"the service does not show its results \\({code}"):
        fetched(Cutting(error=ServiceError("download", code, "no")))


def test_a_refused_key_is_not_taken_for_absent_results() -> None:
    with pytest.raises(KeyRefused):
        fetched(Cutting(error=KeyRefused("download", 403, "API key not valid")))


def test_a_large_file_may_be_cut_as_often_as_it_gets_further(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PROGRESS_BYTES", 50)
    service, pauses = Cutting(*[60] * 15), list[float]()
    assert fetched(service, pauses) == DATA
    assert len(service.asked) == 16
    assert pauses == []


class Busy(Cutting):
    """A service that answers 503 so many times, perhaps saying when to come back, and then sends."""

    def __init__(self, times: int, retry_after: float | None = None, cuts: tuple[int, ...] = ()) -> None:
        super().__init__(*cuts)
        self.times, self.retry_after = times, retry_after

    @contextmanager
    def download(self, file_name: str, offset: int = 0) -> Iterator[Any]:
        if self.times and not (offset == 0 and self.cuts):
            self.times -= 1
            self.asked.append(offset)
            error = ServiceBusy("download", 503, "overloaded")
            error.retry_after_seconds = self.retry_after
            raise error
        with super().download(file_name, offset) as reply:
            yield reply


def test_a_busy_service_is_given_more_time_each_time() -> None:
    pauses: list[float] = []
    assert fetched(Busy(4), pauses) == DATA
    assert pauses == list(PAUSES)


def test_a_busy_service_in_the_middle_of_a_file_is_waited_for_and_asked_for_the_rest() -> None:
    service, pauses = Busy(2, cuts=(300,)), list[float]()
    assert fetched(service, pauses) == DATA
    assert service.asked == [0, 300, 300, 300]
    assert pauses == [2.0, 4.0]


@pytest.mark.parametrize(("said", "slept"), [(5.0, 5.0), (0.1, 1.0), (3600.0, 16.0)])
def test_the_service_says_when_to_come_back_within_reason(said: float, slept: float) -> None:
    pauses: list[float] = []
    assert fetched(Busy(1, said), pauses) == DATA
    assert pauses == [slept]


class Scripted:
    """Replies as written: (offset of the reply, size it announces, its bytes)."""

    def __init__(self, *replies: tuple[int, int | None, bytes]) -> None:
        self.replies, self.asked = list(replies), list[int]()

    @contextmanager
    def download(self, file_name: str, offset: int = 0) -> Iterator[Any]:
        self.asked.append(offset)
        start, size, data = self.replies.pop(0)
        yield _Reply(data, None, start, size)


def test_an_end_without_a_length_and_without_a_newline_is_looked_behind() -> None:
    service = Scripted((0, None, DATA[:105]), (105, None, DATA[105:]))
    assert fetched(service) == DATA
    assert service.asked == [0, 105]


def test_a_last_line_without_a_newline_is_taken_when_nothing_follows() -> None:
    bare = DATA[:-1]
    assert fetched(Scripted((0, None, bare), (len(bare), len(bare), b""))) == bare
    assert fetched(Scripted((0, None, bare), (0, None, bare))) == bare


def test_a_reply_that_ends_early_by_its_own_word_is_gone_on_with() -> None:
    service = Scripted((0, len(DATA), DATA[:200]), (200, len(DATA), DATA[200:]))
    assert fetched(service) == DATA


def test_a_second_reply_that_ends_before_the_first_is_no_whole_file() -> None:
    service = Scripted((0, None, DATA[:105]), (0, None, DATA[:50]), (0, None, DATA))
    assert fetched(service) == DATA
    assert service.asked == [0, 105, 105]


@pytest.mark.parametrize(
    ("second", "told"),
    [
        ((200, len(DATA) + 1, DATA[200:]), "announced 1290 bytes, and then 1291"),
        ((300, len(DATA), DATA[300:]), "went on at byte 300, not 200"),
        ((200, len(DATA), DATA[199:]), "1291 bytes came where the service announced 1290"),
    ],
    ids=["another size", "a gap", "too much"],
)
def test_replies_that_do_not_fit_together_are_not_believed(second: tuple[int, int, bytes], told: str) -> None:
    with pytest.raises(ResultsBroken, match=told):
        fetched(Scripted((0, len(DATA), DATA[:200]), second))
