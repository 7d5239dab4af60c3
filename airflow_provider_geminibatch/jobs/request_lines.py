"""The lines of a file of requests by number, read out of order: what is kept of each are two integers."""

from __future__ import annotations

import hashlib
import io
import shutil
import tempfile
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import msgspec

_decode = msgspec.json.Decoder().decode


class Found(msgspec.Struct, frozen=True):
    """A poison line: its number in the file, its key, and what the service said about it."""

    line: int
    key: str
    why: str


class Lines:
    """The requests of a file, by number; what is kept of each are two integers."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._starts, self._numbers = file, array("Q"), array("Q")
        digest, at = hashlib.sha256(), 0
        for number, line in enumerate(file, 1):
            if not line.isspace():
                self._starts.append(at)
                self._numbers.append(number)
            digest.update(line)
            at += len(line)
        self.digest = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._starts)

    def raw(self, row: int) -> bytes:
        """A line as it stands in the file, with one line end."""
        self._file.seek(self._starts[row])
        return self._file.readline().removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n") + b"\n"

    def number(self, row: int) -> int:
        """The number of a line in the file, counted from 1."""
        return self._numbers[row]

    def row(self, number: int) -> int | None:
        """The row of a line by its number in the file."""
        at = bisect_left(self._numbers, number)
        return at if at < len(self) and self._numbers[at] == number else None

    def found(self, row: int, why: str) -> Found:
        """A line as it is reported."""
        try:
            fields = _decode(self.raw(row))
        except (msgspec.DecodeError, UnicodeDecodeError):
            fields = None
        key = fields.get("key") if isinstance(fields, dict) else None
        return Found(self.number(row), key if isinstance(key, str) else "", why)


@contextmanager
def open_lines(file: BinaryIO) -> Iterator[Lines]:
    """The lines of a file that is open for reading. What is no plain file on a disk is copied to one first: lines are read out
    of order."""
    if isinstance(file, io.BufferedReader) and isinstance(file.raw, io.FileIO) and file.seekable():
        yield Lines(file)
        return
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(file, copy, 1 << 20)
        copy.seek(0)
        yield Lines(copy)


__all__ = ["Found", "Lines", "open_lines"]
