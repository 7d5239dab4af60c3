"""Vectors as Arrow columns."""

from __future__ import annotations

from array import array

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.vectors import vector_kind
from airflow_provider_geminibatch.storage.arrow_parts import arrow_type, column_of, sized
from airflow_provider_geminibatch.storage.vectors import row_bytes

FLOATS = st.floats(width=32, allow_nan=False)


@given(
    st.integers(1, 5).flatmap(
        lambda n: st.lists(st.none() | st.lists(FLOATS, min_size=n, max_size=n)).map(lambda v: (n, v))
    )
)
def test_vectors_come_back_as_they_went_in(drawn: tuple[int, list[list[float] | None]]) -> None:
    length, vectors = drawn
    for kind in (vector_kind(length), vector_kind(None)):
        column = column_of(vectors, kind)
        column.validate(full=True)
        assert column.type == arrow_type(kind)
        assert column.to_pylist() == vectors


def test_a_number_is_kept_in_single_precision() -> None:
    (found,) = column_of([[0.1]], vector_kind(1)).to_pylist()
    assert found == array("f", [0.1]).tolist()


def test_both_forms_are_built_alike() -> None:
    vectors = [[1.0, 2.0], None, [3.0, 4.0]]
    assert column_of(vectors, vector_kind(2)).equals(pa.array(vectors, pa.list_(pa.float32(), 2)))


def test_a_vector_of_another_length_does_not_slip_into_the_next_row() -> None:
    with pytest.raises(AssertionError, match="checked for their length"):
        column_of([[1.0], [2.0, 3.0]], vector_kind(2))


@pytest.mark.parametrize("kind", [vector_kind(2), vector_kind(None)])
def test_vectors_count_as_what_they_hold(kind: str) -> None:
    column = column_of([[1.0, 2.0], [3.0, 4.0]], kind)
    assert row_bytes(pa, column) == [8, 8]
    assert sized(pa.record_batch([column, pa.array(["ab", "c"])], ["v", "t"])).size_bytes == 16 + 3
