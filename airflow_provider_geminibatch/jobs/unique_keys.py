"""Whether a key is given twice, in bounded memory: eight bytes a key, on disk beyond a hundred thousand of them.

What is kept of a key is its hash. Two equal hashes are a reason to look again, never an error: the source is read once
more for the keys in question, which also tells where the first of the two stands.
"""

from __future__ import annotations

import tempfile
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import IO, NamedTuple, Self

from airflow_provider_geminibatch.core.chunks import Chunk
from airflow_provider_geminibatch.core.errors import Problem, SourceUnreadable, StoreUnwritable
from airflow_provider_geminibatch.core.rows import Problems, Ready, Row, placed, shown_key

HELD = 1 << 17
"""Marks held in memory: a megabyte of them."""

BUCKETS = 256
"""Marks are compared bucket by bucket. One of 50 million rows holds 200,000 of them, or 20 MB while it is looked at."""

NAMED = 10_000
"""Repeated keys that are looked for by name; beyond, they are counted."""


class Repeated(NamedTuple):
    """Marks that stand more than once, as far as they are named, and how many rows repeat one of an earlier row."""

    marks: frozenset[int]
    rows: int


class KeyMarks:
    """The marks of all keys of a source. A context manager, for the temporary file that holds them when they are many."""

    def __init__(self, held: int = HELD) -> None:
        self._held = held
        self._new = array("q")
        # For each bucket, where in the file its marks are: place and number, place and number …
        self._spilled = [array("q") for _ in range(BUCKETS)]
        self._file: IO[bytes] | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def noting(self, rows: Iterable[Chunk | Ready | Problems]) -> Iterator[Chunk | Ready | Problems]:
        """The rows, the key of each noted as it passes."""
        new, held = self._new, self._held
        for row in rows:
            if type(row) is Ready:
                new.append(_mark(row))
            elif type(row) is Chunk:
                new.extend(map(hash, row.keys))
            if len(new) >= held:
                self._spill()
            yield row

    def write(self, file: IO[bytes]) -> None:
        """All marks as they are in memory, for another process of the same hash seed and machine (``read``)."""
        if self._file is None:
            self._new.tofile(file)
            return
        self._spill()
        for bucket in range(BUCKETS):
            self._bucket(bucket).tofile(file)

    def read(self, file: IO[bytes]) -> None:
        """Note all that another process has written."""
        while block := file.read(self._held * 8):
            self._new.frombytes(block)
            if len(self._new) >= self._held:
                self._spill()

    def repeated(self) -> Repeated:
        """What stands more than once."""
        marks: set[int] = set()
        rows = 0
        if self._file is not None:
            self._spill()
        for bucket in range(BUCKETS) if self._file else (-1,):
            held = self._bucket(bucket) if bucket >= 0 else self._new
            surplus = len(held) - len(set(held))
            rows += surplus
            if surplus and len(marks) < NAMED:
                twice = (mark for mark, times in Counter(held).items() if times > 1)
                marks.update(mark for mark, _ in zip(twice, range(NAMED - len(marks)), strict=False))
        return Repeated(frozenset(marks), rows)

    def _spill(self) -> None:
        buckets: list[list[int]] = [[] for _ in range(BUCKETS)]
        appends = [bucket.append for bucket in buckets]
        for mark in self._new:
            appends[mark & 255](mark)
        try:
            if self._file is None:
                opened = tempfile.TemporaryFile(prefix="geminibatch-keys-")  # noqa: SIM115 - closed by the stack
                self._file = self._stack.enter_context(opened)
            at = self._file.seek(0, 2)
            for places, bucket in zip(self._spilled, buckets, strict=True):
                places.extend((at, len(bucket)))
                at += 8 * len(bucket)
                self._file.write(array("q", bucket).tobytes())
        except OSError as error:
            why = f"{error.strerror}; keys that may stand twice are noted there, eight bytes a row"
            raise StoreUnwritable(tempfile.gettempdir(), why) from error
        del self._new[:]

    def _bucket(self, number: int) -> array[int]:
        """The marks of a bucket, once all are in the file: to look for it among the others took a second and a half."""
        found = array("q")
        assert self._file is not None
        places = self._spilled[number]
        for at, count in zip(places[::2], places[1::2], strict=True):
            self._file.seek(at)
            found.frombytes(self._file.read(8 * count))
        return found


def _mark(row: Ready) -> int:
    return hash(row.key[1:-1])  # without its quotes, as chunks hold keys


def repeats(rows: Iterable[tuple[Row, Ready | Problems]], repeated: Repeated, source_name: str) -> Iterator[Problem]:
    """Every problem of rows that are read once more, in their order, repeated keys among them.

    Raises SourceUnreadable when the source gives other rows than before, so that what was seen twice is not found.
    """
    first: dict[bytes, str] = {}
    times: Counter[int] = Counter()
    for row, made in rows:
        if isinstance(made, list):
            yield from made
            continue
        mark = _mark(made)
        if mark not in repeated.marks:
            continue
        times[mark] += 1
        here = f"{row.place} {row.number}"
        where = first.setdefault(made.key, here)
        if where is not here:
            what = f"{shown_key(made.key)} stands in {where} too"
            yield from placed(row, [Problem("key", what, "a key is unique within its source")])
    if any(times[mark] < 2 for mark in repeated.marks):
        raise SourceUnreadable(source_name, "it gave other rows when it was read again to find a key that stands twice")
