"""Bytes that are written once and read often, in memory or on disk."""

from __future__ import annotations

import hashlib
import tempfile
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

_BLOCK = 1 << 20
_IN_MEMORY = 8 << 20


class Blob:
    """Appended bytes, kept in memory; with a `folder`, in a nameless file there once they pass 8 MiB."""

    def __init__(self, folder: Path | None = None) -> None:
        place = str(folder) if folder else None
        # The file has no name, so it goes when the last reader has gone, whatever happens to the process.
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY if folder else 0, dir=place)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        # A download reads from the server's thread while a bill may be reading from another.
        self._lock = threading.Lock()
        self._hash = hashlib.sha256()
        self.size = 0

    @property
    def sha256(self) -> bytes:
        """The digest of what was appended so far."""
        return self._hash.digest()

    def append(self, data: bytes) -> None:
        """Write at the end."""
        with self._lock:
            self._file.seek(self.size)
            self._file.write(data)
            self._hash.update(data)
            self.size += len(data)

    def read(self, start: int, length: int) -> bytes:
        """Up to `length` bytes from offset `start`."""
        with self._lock:
            self._file.seek(start)
            return self._file.read(length)

    def blocks(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` to `end` (exclusive), 1 MiB at a time."""
        end = self.size if end is None else end
        while start < end:
            block = self.read(start, min(_BLOCK, end - start))
            start += len(block)
            yield block

    def lines(self, start: int = 0, end: int | None = None) -> Iterator[tuple[int, bytes]]:
        """Each line between two offsets that are starts of lines, with its own offset and without its newline."""
        rest = b""
        for block in self.blocks(start, end):
            *whole, rest = (rest + block).split(b"\n")
            for line in whole:
                yield start, line
                start += len(line) + 1
        if rest:
            yield start, rest


__all__ = ["Blob"]
