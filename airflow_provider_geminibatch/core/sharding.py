"""Ready rows become the bytes of shards: rolled by rows and by size, in order, never held whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, repeat
from typing import NamedTuple

from airflow_provider_geminibatch.core.chunks import Chunk
from airflow_provider_geminibatch.core.names import wire_key
from airflow_provider_geminibatch.core.rows import Ready

# Where the joins of a thousand lines stop paying (measured: 666,000 lines a second against 314,000 line by line).
BLOCK_ROWS = 1_000
BLOCK_BYTES = 1 << 20


class Block(NamedTuple):
    """Consecutive rows of one shard: lines for its file, lines for its key file, and what its content digest covers.

    The content is what was asked, key by key, without the wire keys: equal rows read twice give equal content.
    """

    shard: int
    rows: int
    lines: bytes
    keys: bytes
    content: bytes


def pack(
    rows: Iterable[Ready | Chunk], *, tag: str, max_rows: int, max_bytes: int, first: int = 0, brief: bool = False
) -> Iterator[Block]:
    """Blocks in the order of the rows, in shards numbered from ``first``. A shard ends before the row over a limit.

    With ``brief`` the content holds only what varies from row to row, where a row says what that is. That no row alone is
    larger than ``max_bytes`` is for ``ready_rows`` to see to.
    """
    packing = _Packing(tag, max_rows, max_bytes, first, brief)
    for ready in rows:
        if type(ready) is Chunk:
            yield from packing.add_chunk(ready)
        else:
            yield from packing.add(ready)  # type: ignore[arg-type]
    yield from packing.rest()


class _Packing:
    """The shard in the making, and the rows of it that no block holds yet: many small joins would cost more than one."""

    def __init__(self, tag: str, max_rows: int, max_bytes: int, first: int, brief: bool) -> None:
        self._tag, self._max_rows, self._max_bytes, self._brief = tag, max_rows, max_bytes, brief
        self._begin(first)

    def _begin(self, shard: int) -> None:
        self._shard, self._row, self._size = shard, 0, 0
        # What the lines of a shard begin with, up to the number of the row, in the form of ``names.wire_key``.
        self._head = b'{"key":"%b' % wire_key(self._tag, shard, 0).removesuffix("0000000").encode()
        self._clear()

    def _clear(self) -> None:
        self._rows = self._rows_bytes = 0
        self._lines: list[bytes] = []
        self._keys: list[bytes] = []
        # Compact JSON holds no raw line break, and a JSON string says itself where it ends: no two contents look alike.
        self._content: list[bytes] = []

    def rest(self) -> Iterator[Block]:
        """What was added and not given out."""
        if self._rows:
            joined = (b"".join(pieces) for pieces in (self._lines, self._keys, self._content))
            yield Block(self._shard, self._rows, *joined)
            self._clear()

    def add(self, ready: Ready) -> Iterator[Block]:
        start = b'%b%07d","request":' % (self._head, self._row)
        size = len(start) + len(ready.request) + 2
        if self._row and (self._row >= self._max_rows or self._size + size > self._max_bytes):
            yield from self.rest()
            self._begin(self._shard + 1)
            yield from self.add(ready)
            return
        self._lines += (start, ready.request, b"}\n")
        self._keys += (b"[", ready.key, b",", ready.columns, b"]\n")
        varying = ready.varying if self._brief and ready.varying is not None else ready.request
        self._content += (ready.key, b" ", varying, b"\n")
        self._count(1, size)
        self._rows, self._rows_bytes = self._rows + 1, self._rows_bytes + size
        if self._rows >= BLOCK_ROWS or self._rows_bytes >= BLOCK_BYTES:
            yield from self.rest()

    def _count(self, rows: int, size: int) -> None:
        self._row, self._size = self._row + rows, self._size + size

    def add_chunk(self, chunk: Chunk) -> Iterator[Block]:
        """As ``add`` for each row of a chunk, a block for all that fit into the shard."""
        yield from self.rest()
        at, rows = 0, len(chunk.keys)
        while at < rows:
            taken, size = self._room(chunk, at)
            if not taken:
                self._begin(self._shard + 1)
                continue
            yield self._block(chunk, slice(at, at + taken))
            self._count(taken, size)
            at += taken

    def _room(self, chunk: Chunk, at: int) -> tuple[int, int]:
        """How many rows of a chunk, from ``at`` on, still go into the shard, and the size of their lines."""
        sizes = list(map(len, chunk.varying[at : at + self._max_rows - self._row]))
        start = len(b'%b%07d","request":' % (self._head, self._row + len(sizes)))
        each = start + len(chunk.before) + len(chunk.after) + 2
        size = each * len(sizes) + sum(sizes)
        while sizes and self._size + size > self._max_bytes and self._row + len(sizes) > 1:
            size -= each + sizes.pop()
        return len(sizes), size

    def _block(self, chunk: Chunk, taken: slice) -> Block:
        keys, varying = chunk.keys[taken], chunk.varying[taken]
        numbers = _numbers(self._row, self._row + len(keys))
        middle, end = b'","request":' + chunk.before, chunk.after + b"}\n"
        lines = zip(repeat(self._head), numbers, repeat(middle), varying, repeat(end))
        columns = repeat(b"{}") if chunk.columns is None else chunk.columns[taken]
        rows = zip(repeat(b'["'), keys, repeat(b'",'), columns, repeat(b"]\n"))
        whole = (b"", b"") if self._brief else (chunk.before, chunk.after)
        content = zip(repeat(b'"'), keys, repeat(b'" ' + whole[0]), varying, repeat(whole[1] + b"\n"))
        joined = (b"".join(chain.from_iterable(pieces)) for pieces in (lines, rows, content))
        return Block(self._shard, len(keys), *joined)


_NUMBERS: list[bytes] = []
_KEPT_NUMBERS = 1 << 16


def _numbers(start: int, end: int) -> list[bytes]:
    """Rows as they stand in wire keys. Those of an ordinary shard are written once for all shards."""
    if end > _KEPT_NUMBERS:
        return [b"%07d" % row for row in range(start, end)]
    if end > len(_NUMBERS):
        _NUMBERS.extend([b"%07d" % row for row in range(len(_NUMBERS), end)])
    return _NUMBERS[start:end]
