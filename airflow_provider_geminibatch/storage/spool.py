"""What result lines came to, kept on the local disk between judging them and landing them, so that no line is read twice.

Lines come in the service's order and land in that of the rows: cells are kept in groups of neighbouring rows, a few pieces
each. It is a cache. Lines of a megabyte, whatever is beyond ``SPOOL_BYTES``, and everything after an error of the local disk
are simply not in it, and are read again from the results.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import msgspec

from airflow_provider_geminibatch.storage.arrow_parts import pyarrow

GROUP_ROWS = 8_192
"""Rows of a shard that are kept, and land, together."""

GROUP_BYTES = 64 << 20
"""A group that holds more is not kept: it would be held in memory whole."""

SPOOL_BYTES = 4 << 30
"""The most that lies on the local disk at once, of one task."""

ON_THEIR_WAY = 4
"""Batches that wait to be written."""

IOV_MAX = 512
"""Pieces that are written in one call."""

LINE_BYTES = 1 << 20
"""Longer lines are not kept."""

SHORT_RUN = 200
"""Results come in blocks of about a thousand rows; where the rows that follow each other are fewer, they are sorted."""

ROW = "row"


class Disk:
    """The local disk's share of one task, which all its spools write to, and the landing that they write for.

    With ``path`` it is for one spool, in a file of that name.
    """

    def __init__(self, place: Any = None, most_bytes: int = SPOOL_BYTES, path: str = "") -> None:
        self.place, self.left, self.path = place, most_bytes, path

    def take(self, size_bytes: int) -> bool:
        """Whether so much may still be written."""
        if size_bytes > self.left:
            return False
        self.left -= size_bytes
        return True

    def give(self, size_bytes: int) -> None:
        """Have back what was taken."""
        self.left += size_bytes


class Kept(msgspec.Struct, frozen=True):
    """What a spool has on the disk: for each group, where its pieces are and how long."""

    pieces: dict[int, list[tuple[int, int]]]
    size_bytes: int


class _Held:
    """What a spool has on the disk, which goes with it."""

    def __init__(self, disk: Disk) -> None:
        self.disk, self.size_bytes = disk, 0
        self.file: Any = None

    def take(self, size_bytes: int) -> int | None:
        """Where so much may be written, behind all that was; None when the disk's share is used up."""
        if not self.disk.take(size_bytes):
            return None
        self.size_bytes += size_bytes
        return self.size_bytes - size_bytes

    def write(self, pieces: Sequence[Any]) -> None:
        if self.file is None:
            # Nameless where the system can do that: it goes with the process, whatever ends it.
            self.file = open(self.disk.path, "w+b", buffering=0) if self.disk.path else _nameless()  # noqa: SIM115 - lives as long as this
        left = [memoryview(piece) for piece in pieces]
        while left:
            # In one call, since after each the thread waits for the interpreter.
            done = os.writev(self.file.fileno(), left[:IOV_MAX])
            while left and done >= len(left[0]):
                done -= len(left.pop(0))
            if done:
                left[0] = left[0][done:]

    def let_go(self) -> None:
        self.disk.give(self.size_bytes)
        if self.file is not None:
            self.file.close()


def _nameless() -> Any:
    return tempfile.TemporaryFile(prefix="geminibatch-", buffering=0)


class Spool:
    """The cells of one shard. ``schema`` begins with the row's number."""

    def __init__(self, schema: Any, disk: Disk, extras: Any = None) -> None:
        self.extras = extras
        self.schema, self._held, self._broken = schema, _Held(disk), False
        weakref.finalize(self, self._held.let_go)
        self._thread = ThreadPoolExecutor(1, "geminibatch-spool")
        self._writing: deque[Future[None]] = deque()
        self._pieces: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        self._sizes: defaultdict[int, int] = defaultdict(int)

    def add(self, batch: Any) -> None:
        """Keep the cells of some rows. A thread writes them; a few batches may be on their way."""
        if self._broken:
            return
        if len(self._writing) >= ON_THEIR_WAY:
            self._wait()
        pieces = [piece for group, rows in _by_group(batch) if (piece := self._placed(group, rows)) is not None]
        if pieces:
            self._writing.append(self._thread.submit(self._held.write, pieces))

    def finish(self) -> None:
        """All that was added is on the disk after it."""
        while self._writing:
            self._wait()
        self._thread.shutdown()

    @property
    def kept(self) -> Kept:
        """What is on the disk, for whoever takes it over."""
        return Kept(dict(self._pieces), self._held.size_bytes)

    def take_over(self, kept: Kept, path: str) -> None:
        """Have what a spool of another process kept; its file is nameless then. The disk's share of it is used already."""
        self._held.size_bytes = kept.size_bytes
        try:
            self._held.file = open(path, "rb", buffering=0)  # noqa: SIM115 - lives as long as this
            os.unlink(path)
        except OSError:
            return  # nothing was kept
        self._pieces.update(kept.pieces)

    def _wait(self) -> None:
        try:
            self._writing.popleft().result()
        except OSError:
            # A full or missing local disk costs time only.
            self._broken = True
            self._pieces.clear()

    def _placed(self, group: int, rows: Any) -> Any:
        """The bytes of some rows of a group, which have a place on the disk now; None when there is none for them."""
        if self._sizes[group] > GROUP_BYTES:
            return None
        data = rows.serialize()
        self._sizes[group] += data.size
        at = self._held.take(data.size) if self._sizes[group] <= GROUP_BYTES else None
        if at is None:
            self._sizes[group] = GROUP_BYTES + 1
            self._pieces.pop(group, None)
            return None
        self._pieces[group].append((at, data.size))
        return data

    def group(self, number: int) -> list[Any]:
        """The cells of a group of the rows that are kept, as record batches in the order of rows; none when nothing is."""
        if not self._pieces.get(number):
            return []
        pa, _ = pyarrow()
        try:
            pieces = [self._read(at, size) for at, size in self._pieces[number]]
        except OSError:
            return []
        pieces.sort(key=_first)
        # One batch: what is done with it costs more for each batch than for its rows.
        whole = pa.Table.from_batches(pieces, schema=self.schema).combine_chunks().to_batches()
        ordered = all(_last(one) < _first(other) for one, other in pairwise(pieces))
        return whole if ordered else [in_order(whole[0])]

    def _read(self, at: int, size: int) -> Any:
        pa, _ = pyarrow()
        self._held.file.seek(at)
        data = pa.py_buffer(_all_of(self._held.file, size))
        return pa.ipc.read_record_batch(data, self.schema)


def _all_of(file: Any, size: int) -> bytes:
    parts, left = [], size
    while left:
        data = file.read(left)
        if not data:
            raise OSError("the local spool ends early")
        parts.append(data)
        left -= len(data)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _first(batch: Any) -> int:
    row: int = batch.column(ROW)[0].as_py()
    return row


def _last(batch: Any) -> int:
    row: int = batch.column(ROW)[-1].as_py()
    return row


def in_order(batch: Any) -> Any:
    """A batch in the order of its rows."""
    import pyarrow.compute as pc

    return batch.take(pc.sort_indices(batch.column(ROW)))


def _by_group(batch: Any) -> Iterator[tuple[int, Any]]:
    """A batch by the groups that its rows belong to, in pieces that are each in the order of rows."""
    runs = list(_runs(batch.column(ROW).to_pylist()))
    if len(runs) > max(4, len(batch) // SHORT_RUN):
        batch = in_order(batch)
        runs = list(_runs(batch.column(ROW).to_pylist()))
    return ((group, batch.slice(start, end - start)) for group, start, end in runs)


def _runs(rows: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Where rows go on in order within one group: the group, and the places of the first and behind the last."""
    start = 0
    for at in range(1, len(rows)):
        if rows[at] < rows[at - 1] or rows[at] // GROUP_ROWS != rows[start] // GROUP_ROWS:
            yield rows[start] // GROUP_ROWS, start, at
            start = at
    if rows:
        yield rows[start] // GROUP_ROWS, start, len(rows)


__all__ = ["GROUP_ROWS", "LINE_BYTES", "ROW", "Disk", "Kept", "Spool", "in_order"]
