"""Vectors as Arrow columns: four bytes a number, all of one length where that is known.

Single precision, since that is what the service has: ``values`` of its ContentEmbedding are floats.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

from airflow_provider_geminibatch.core.vectors import vector_dimensions

FLOAT_BYTES = 4
HELD_BYTES = 32
"""What a number of a list takes in Python: its place and itself."""


def vector_type(pa: Any, kind: str) -> Any:
    """The Arrow type of a column of vectors."""
    dimensions = vector_dimensions(kind)
    return pa.list_(pa.float32()) if dimensions is None else pa.list_(pa.float32(), dimensions)


def vectors_of(pa: Any, values: Sequence[Sequence[float] | None], of: Any) -> Any:
    """Lists of numbers as a column of that type; rows without a vector have nothing."""
    if not pa.types.is_fixed_size_list(of):
        return pa.array(values, of)
    none = [0.0] * of.list_size
    floats = array("f")
    for each in values:
        floats.fromlist(none if each is None else list(each))
    if len(floats) != of.list_size * len(values):
        raise AssertionError("vectors are checked for their length before they land")
    there = None
    if any(each is None for each in values):
        there = pa.array([each is not None for each in values], pa.bool_()).buffers()[1]
    numbers = pa.Array.from_buffers(pa.float32(), len(floats), [None, pa.py_buffer(floats)])
    return pa.Array.from_buffers(of, len(values), [there], children=[numbers])


def row_bytes(pa: Any, column: Any) -> list[int]:
    """How much each row of a column of vectors holds."""
    import pyarrow.compute as pc

    if pa.types.is_fixed_size_list(column.type):
        return [FLOAT_BYTES * column.type.list_size] * len(column)
    return [FLOAT_BYTES * (length or 0) for length in pc.list_value_length(column).to_pylist()]


def holds_vectors(pa: Any, of: Any) -> bool:
    """True for the type of a column of vectors."""
    lists = pa.types.is_fixed_size_list(of) or pa.types.is_list(of)
    return bool(lists and pa.types.is_float32(of.value_type))


__all__ = ["FLOAT_BYTES", "HELD_BYTES", "holds_vectors", "row_bytes", "vector_type", "vectors_of"]
