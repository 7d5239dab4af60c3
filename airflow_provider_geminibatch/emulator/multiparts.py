"""Bodies of several parts: uploads of metadata and bytes together, and batches of calls."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

_BOUNDARY = re.compile(r'boundary="?([^";]+)"?', re.IGNORECASE)


class Part(NamedTuple):
    """One part of a body: headers with names in lower case, and its bytes."""

    headers: Mapping[str, str]
    body: bytes


def parts(content_type: str, body: bytes) -> list[Part]:
    """The parts of a body. Raises ValueError for one that is not what its type says.

    Lines end as the first one does: some clients write bare line feeds, and then a carriage return is data.
    """
    found = _BOUNDARY.search(content_type)
    if not found:
        raise ValueError("Missing multipart boundary.")
    delimiter = b"--" + found[1].encode("latin-1")
    start = body.find(delimiter)
    if start < 0:
        raise ValueError("Missing start boundary in multipart body.")
    end_of_line = b"\r\n" if body[start + len(delimiter) :].startswith(b"\r\n") else b"\n"
    return list(_split(body, start + len(delimiter), delimiter, end_of_line))


def _split(body: bytes, at: int, delimiter: bytes, end_of_line: bytes) -> Iterator[Part]:
    while not body.startswith(b"--", at):
        begin = at + len(end_of_line)
        end = body.find(end_of_line + delimiter, begin)
        if end < 0:
            raise ValueError("Missing end boundary in multipart body.")
        yield part(body[begin:end], end_of_line)
        at = end + len(end_of_line) + len(delimiter)


def part(text: bytes, end_of_line: bytes = b"\n") -> Part:
    """Headers, an empty line, and what follows it."""
    if text.startswith(end_of_line):
        return Part({}, text[len(end_of_line) :])
    head, _, body = text.partition(end_of_line * 2)
    pairs = (line.partition(":") for line in head.decode("latin-1").splitlines())
    return Part({name.strip().lower(): value.strip() for name, _, value in pairs}, body)


__all__ = ["Part", "part", "parts"]
