"""Rows taken together are the rows taken one by one, and never too many of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core import chunks
from airflow_provider_geminibatch.core.chunks import CHUNK_ROWS, Chunk, ready_chunks
from airflow_provider_geminibatch.core.fast_rows import quick_chunks, quick_rows
from airflow_provider_geminibatch.core.rows import LINE_BYTES, Row, located, ready_rows
from airflow_provider_geminibatch.core.template import RequestTemplate, compile_template
from tests.core.test_fast_rows import COLUMNS, PLAIN_ROW, ROW, TEMPLATES

MOST = 400


def _made(
    template: RequestTemplate, columns: tuple[str, ...], rows: list[Any], unplaced: bool = False
) -> tuple[list[Any], list[Any]]:
    """The rows by chunks, taken apart again, and one by one on the long road alone."""
    wire = compile_template(template)
    placed = [Row("row", at, row) for at, row in enumerate(rows, 1)]
    options: dict[str, Any] = {"encode": wire.encode, "columns": columns, "max_bytes": MOST}

    def each(some: Any, first: int) -> Any:
        return ready_rows(located(some, first), quick=quick_rows(wire, columns), **options)

    # Rows that come without a place are numbered.
    by_chunks = ready_chunks(
        rows if unplaced else placed, each, quick_chunks(wire, columns), max_request_bytes=MOST - LINE_BYTES
    )
    apart = [row for made in by_chunks for row in (made.rows() if isinstance(made, Chunk) else (made,))]
    return apart, list(ready_rows(placed, **options))


@given(st.sampled_from(TEMPLATES), COLUMNS, st.lists(ROW, max_size=40), st.booleans())
def test_chunks_hold_what_the_long_road_makes(
    template: RequestTemplate, columns: tuple[str, ...], rows: list[dict[str, Any]], unplaced: bool
) -> None:
    apart, long = _made(template, columns, rows, unplaced)
    assert apart == long


@given(st.sampled_from(TEMPLATES), COLUMNS, st.lists(PLAIN_ROW, max_size=40), st.integers(0, 39))
def test_chunks_of_lines_do_too(
    template: RequestTemplate, columns: tuple[str, ...], rows: list[dict[str, Any]], at: int
) -> None:
    lines: list[Any] = [msgspec.json.encode(row) for row in rows]
    lines[at : at + 1] = [b'{"id": "1"'] if at % 2 else [{"id": "1", "text": "a", "more": "b", "region": "eu"}]
    apart, long = _made(template, columns, lines)
    assert apart == long


@pytest.mark.parametrize("template", TEMPLATES)
def test_rows_in_order_stay_together(template: RequestTemplate) -> None:
    rows = [{"id": f"k{at}", "text": f"text {at}", "more": "\n"} for at in range(9)]
    chunk = quick_chunks(compile_template(template), ("id",))(rows)
    assert isinstance(chunk, Chunk)
    assert len(chunk.keys) == 9


def _sizes(text_bytes: int, count: int) -> tuple[list[int], int]:
    """How many rows each chunk has, and the most rows that were read before any was given out."""
    wire, read, ahead, sizes = compile_template(RequestTemplate("$text")), 0, 0, []

    def rows() -> Iterator[Row]:
        nonlocal read
        for at in range(count):
            read += 1
            yield Row("row", at, {"id": str(at), "text": "x" * text_bytes})

    def each(some: Any, first: int) -> Any:
        return ready_rows(some, wire.encode)

    given_out = 0
    for chunk in ready_chunks(rows(), each, quick_chunks(wire), max_request_bytes=10**9):
        assert isinstance(chunk, Chunk)
        ahead = max(ahead, read - given_out)
        given_out += len(chunk.keys)
        sizes.append(len(chunk.keys))
    assert given_out == count
    return sizes, ahead


def test_chunks_are_small_for_large_rows_and_large_for_small_ones() -> None:
    small, ahead = _sizes(100, 3000)
    assert (max(small), ahead) == (CHUNK_ROWS, CHUNK_ROWS)
    large, ahead = _sizes(200_000, 60)
    assert ahead == chunks.FIRST_ROWS
    assert max(large[1:]) <= chunks.CHUNK_BYTES // 200_000


@pytest.mark.parametrize("as_lines", [False, True])
def test_large_rows_behind_many_small_ones_are_not_taken_by_the_hundred(as_lines: bool) -> None:
    held: list[int] = []

    def together(some: list[Any]) -> Chunk:
        held.append(sum(map(len, some)) if as_lines else sum(len(row["text"]) for row in some))
        return Chunk(b"{", b"}", [b"k"] * len(some), [b"x"] * len(some))

    texts = ["short"] * 5_000 + ["x" * 100_000] * 300
    rows = [msgspec.json.encode({"text": text}) if as_lines else {"text": text} for text in texts]
    made = list(ready_chunks(rows, lambda some, first: iter(()), together, max_request_bytes=10**9))
    assert sum(len(chunk.keys) for chunk in made if isinstance(chunk, Chunk)) == 5_300
    assert max(held) < 2 * chunks.FIRST_ROWS * 100_100


@pytest.mark.parametrize("key", ["a\nb", "a\\nb", "\\", "\n", 'é"\t'])
def test_keys_with_line_breaks_and_backslashes_are_keys(key: str) -> None:
    rows = [{"id": f"{key}{at}", "text": "a"} for at in range(3)]
    apart, long = _made(RequestTemplate("$text"), (), rows)
    assert apart == long
