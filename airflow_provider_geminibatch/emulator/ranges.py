"""The Range header of a download."""

from __future__ import annotations

import re

_ONE = re.compile(r"bytes=(?:(\d+)-(\d*)|-(\d+))")


def is_range(header: str) -> bool:
    """Whether a Range header is one simple range; anything else means the whole."""
    return _ONE.fullmatch(header.strip()) is not None


def byte_range(header: str, size: int) -> tuple[int, int] | None:
    """Start and end (exclusive) of what a Range header asks of `size` bytes; None where there is nothing of it."""
    found = _ONE.fullmatch(header.strip())
    if not found:
        return 0, size
    first, last, tail = found.groups()
    start = max(size - int(tail), 0) if tail else int(first)
    end = min(int(last) + 1, size) if last else size
    return (start, end) if start < end else None


__all__ = ["byte_range", "is_range"]
