"""Vectors: how long they were asked to be, and the column that they land in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_MARK = '{"vector":'


def asked_dimensions(request: Mapping[str, Any]) -> int | None:
    """The length of vector that a checked embed request asks for, under either of its places; None for the model's own."""
    config = request.get("embedContentConfig")
    inner = config.get("outputDimensionality") if isinstance(config, Mapping) else None
    found = request.get("outputDimensionality", inner)
    if isinstance(found, str) and found.isdecimal():
        return int(found) or None
    # No source says what a length below one is; the vector that comes has another length, whatever it is taken for.
    return found if type(found) is int and found > 0 else None


def vector_kind(dimensions: int | None) -> str:
    """The kind of a column of vectors, all of one length or each of its own."""
    return f"{_MARK}{'null' if dimensions is None else dimensions}}}"


def is_vector(kind: str) -> bool:
    """True for the kind of a column of vectors."""
    return kind.startswith(_MARK)


def vector_dimensions(kind: str) -> int | None:
    """How long the vectors of a column are; None for each of its own length."""
    length = kind[len(_MARK) : -1]
    return None if length == "null" else int(length)


def together(kinds: Sequence[str]) -> str:
    """The kind of a column that holds the vectors of several batches."""
    return kinds[0] if len(set(kinds)) == 1 else vector_kind(None)


__all__ = ["asked_dimensions", "is_vector", "together", "vector_dimensions", "vector_kind"]
