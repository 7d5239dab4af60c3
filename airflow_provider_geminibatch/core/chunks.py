"""Rows taken by the hundred: what makes a template fast is that next to nothing is done once per row in Python.

A chunk that is in order stays together from the source to the block that is written; one that is not is taken apart and
goes row by row, which also says what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import msgspec

from airflow_provider_geminibatch.core.rows import Problems, Ready, Row

CHUNK_ROWS = 256
CHUNK_BYTES = 1 << 19
"""A chunk is aimed at half a megabyte, which stays in a processor's cache; the first rows show how many that are."""

FIRST_ROWS = 16
"""So many are taken at a time, and the last of them is looked at: large rows may follow thousands of small ones."""


class Chunk(msgspec.Struct, frozen=True, gc=False):
    """Consecutive rows of one template. A request is ``before``, what varies, ``after``; keys are JSON without their quotes.

    ``columns`` are those that travel along, as JSON; None where none do.
    """

    before: bytes
    after: bytes
    keys: list[bytes]
    varying: list[bytes]
    columns: list[bytes] | None = None

    def rows(self) -> Iterator[Ready]:
        """The same rows one by one."""
        for at, (key, varying) in enumerate(zip(self.keys, self.varying, strict=True)):
            along = b"{}" if self.columns is None else self.columns[at]
            yield Ready(b'"%b"' % key, b"%b%b%b" % (self.before, varying, self.after), along, varying)


Together = Callable[[list[Any]], Chunk | None]
"""A short road for what several rows hold: all of them as a chunk, or None when one of them has to be looked at."""


def ready_chunks(
    rows: Iterable[Any],
    each: Callable[[Iterable[Any], int], Iterator[Ready | Problems]],
    together: Together,
    *,
    max_request_bytes: int,
) -> Iterator[Chunk | Ready | Problems]:
    """The rows in order, in chunks where ``together`` and the size of their requests allow it, else as ``each`` has them.

    A row is a ``Row`` or only what it holds; ``each`` is told the number of the first one that it gets.
    """
    rest, most, first = iter(rows), FIRST_ROWS, 1
    while some := _taken(rest, most):
        chunk = together([row.data if type(row) is Row else row for row in some])
        number, first = first, first + len(some)
        if chunk is None:
            yield from each(some, number)
            continue
        constant = len(chunk.before) + len(chunk.after)
        sizes = list(map(len, chunk.varying))
        if constant + max(sizes) > max_request_bytes:
            yield from each(some, number)
            continue
        yield chunk
        size = constant * len(sizes) + sum(sizes)
        most = max(1, min(CHUNK_ROWS, 2 * most, CHUNK_BYTES * len(sizes) // size))


def _taken(rest: Iterator[Any], most: int) -> list[Any]:
    """The next rows: as many as wanted, or fewer when they turn out to be large."""
    some: list[Any] = []
    while len(some) < most and (more := list(islice(rest, min(FIRST_ROWS, most - len(some))))):
        some += more
        if _text_bytes(more[-1]) * len(some) > CHUNK_BYTES:
            break
    return some


def _text_bytes(row: Any) -> int:
    """About how many bytes of text a row holds, decoded or as a line."""
    data = row.data if type(row) is Row else row
    if isinstance(data, bytes):
        return len(data)
    return sum(len(value) for value in data.values() if isinstance(value, str)) if isinstance(data, dict) else 0
