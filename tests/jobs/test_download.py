"""Downloads: resumed where they were cut, and believed only whole."""

from __future__ import annotations

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
from airflow_provider_geminibatch.jobs.download import TRIES, fetch
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


def fetched(service: Cutting) -> bytes | None:
    store = MemoryStore()
    fetch(service, store, "files/batch-1", "results", what="batches/1", log=LOG)  # type: ignore[arg-type]
    return store.read("results")


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
        fetch(service, store, "files/batch-1", "results", what="batches/1", log=LOG)  # type: ignore[arg-type]
    assert len(service.asked) == TRIES
    assert store.read("results") is None


@pytest.mark.parametrize("code", [403, 404])
def test_results_that_are_not_shown_are_not_ready(code: int) -> None:
    with pytest.raises(ResultsNotReady, match=f"the service does not show its results \\({code}"):
        fetched(Cutting(error=ServiceError("download", code, "no")))


def test_a_refused_key_is_not_taken_for_absent_results() -> None:
    with pytest.raises(KeyRefused):
        fetched(Cutting(error=KeyRefused("download", 403, "API key not valid")))
