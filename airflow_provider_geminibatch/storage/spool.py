"""What result lines came to, kept on the local disk between judging them and landing them, so that no line is read twice.

Lines come in the service's order and land in that of the rows: cells are kept in groups of neighbouring rows, a few pieces
each. It is a cache. Lines of a megabyte, whatever is beyond ``SPOOL_BYTES``, and everything after an error of the local disk
are simply not in it, and are read again from the results.
"""

from __future__ import annotations

import tempfile
import weakref
from collections import defaultdict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from airflow_provider_geminibatch.storage.arrow_parts import pyarrow

GROUP_ROWS = 8_192
"""Rows of a shard that are kept, and land, together."""

GROUP_BYTES = 64 << 20
"""A group that holds more is not kept: it would be held in memory whole."""

SPOOL_BYTES = 4 << 30
"""The most that lies on the local disk at once, of one task."""

LINE_BYTES = 1 << 20
"""Longer lines are not kept."""

ROW = "row"


class Disk:
    """The local disk's share of one task, which all its spools write to."""

    def __init__(self, most_bytes: int = SPOOL_BYTES) -> None:
        self.left = most_bytes

    def take(self, size_bytes: int) -> bool:
        """Whether so much may still be written."""
        if size_bytes > self.left:
            return False
        self.left -= size_bytes
        return True



class _Held:
    """What a spool has on the disk, which goes with it."""

    def __init__(self, disk: Disk) -> None:
        self.disk, self.at = disk, 0
        self.file: Any = None

    def let_go(self) -> None:
        self.disk.left += self.at
        if self.file is not None:
            self.file.close()


class Spool:
    """The cells of one shard. ``schema`` begins with the row's number."""

    def __init__(self, schema: Any, disk: Disk) -> None:
        self.schema, self._held, self._broken = schema, _Held(disk), False
        weakref.finalize(self, self._held.let_go)
        self._pieces: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
        self._sizes: defaultdict[int, int] = defaultdict(int)
        self._thread: ThreadPoolExecutor | None = ThreadPoolExecutor(1, "geminibatch-spool")
        self._last: Future[None] | None = None

    def add(self, batch: Any) -> None:
        """Keep the cells of some rows. Written in a thread; at most one is on its way."""
        if self._broken or self._thread is None:
            return
        if self._last is not None:
            self._last.result()
        self._last = self._thread.submit(self._keep, batch)

    def finish(self) -> None:
        """Everything that was added is on the disk after it."""
        if self._thread is not None:
            self._thread.shutdown(wait=True)
            self._thread = None
        if self._last is not None:
            self._last.result()
            self._last = None

    def _keep(self, batch: Any) -> None:
        try:
            if self._held.file is None:
                # Nameless where the system can do that: it goes with the process, whatever ends it.
                self._held.file = tempfile.TemporaryFile(prefix="geminibatch-", buffering=0)
            for group, piece in _by_group(batch):
                self._append(group, piece)
        except OSError:
            # A full or missing local disk costs time only.
            self._broken = True
            self._pieces.clear()

    def _append(self, group: int, piece: Any) -> None:
        if self._sizes[group] > GROUP_BYTES:
            return
        data = piece.serialize()
        self._sizes[group] += data.size
        if self._sizes[group] > GROUP_BYTES or not self._held.disk.take(data.size):
            self._sizes[group] = GROUP_BYTES + 1
            self._pieces.pop(group, None)
            return
        left = memoryview(data)
        while left:
            left = left[self._held.file.write(left) :]
        self._pieces[group].append((self._held.at, data.size))
        self._held.at += data.size

    def group(self, number: int) -> Any:
        """The cells of a group in the order of rows; of the rows that are kept. None when nothing of it is."""
        if not self._pieces.get(number):
            return None
        pa, _ = pyarrow()
        try:
            pieces = [self._read(at, size) for at, size in self._pieces[number]]
        except OSError:
            return None
        batch = pa.Table.from_batches(pieces, schema=self.schema).combine_chunks().to_batches()[0]
        return in_order(batch)

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


def in_order(batch: Any) -> Any:
    """A batch in the order of its rows."""
    import pyarrow.compute as pc

    rows = batch.column(ROW)
    if len(rows) < 2 or pc.all(pc.less(rows.slice(0, len(rows) - 1), rows.slice(1))).as_py():
        return batch
    return batch.take(pc.sort_indices(rows))


def _by_group(batch: Any) -> list[tuple[int, Any]]:
    """A batch by the groups that its rows belong to, each in the order of rows."""
    import pyarrow.compute as pc

    batch = in_order(batch)
    runs = pc.run_end_encode(pc.divide(batch.column(ROW), GROUP_ROWS))
    found, start = [], 0
    for group, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
        found.append((group, batch.slice(start, end - start)))
        start = end
    return found


__all__ = ["GROUP_ROWS", "LINE_BYTES", "ROW", "Disk", "Spool", "in_order"]
