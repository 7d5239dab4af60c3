"""The Range header of a download."""

from __future__ import annotations

import re


def byte_range(header: str, size: int) -> tuple[int, int] | None:
    """Start and end (exclusive) of what a Range header asks of `size` bytes; None where there is nothing of it.

    Anything that is not one simple range means the whole.
    """
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", header.strip())
    if not found or not any(found.groups()):
        return 0, size
    first, last = found.groups()
    start = int(first) if first else max(size - int(last), 0)
    end = min(int(last) + 1, size) if first and last else size
    return (start, end) if start < end else None


__all__ = ["byte_range"]
