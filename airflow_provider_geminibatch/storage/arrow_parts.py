"""Columns to Arrow and Arrow to Parquet: what rows of any origin go through, so that equal rows give equal bytes.

A group of rows ends with the row that fills it, by number or by size, however the rows come: one by one, or as columns that
were read before. Compressing and writing run in a thread beside the next group, since Arrow lets go of the interpreter.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from decimal import Decimal
from itertools import accumulate
from typing import Any, NamedTuple

import msgspec

from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.core.vectors import is_vector
from airflow_provider_geminibatch.storage.vectors import holds_vectors, row_bytes, vector_type, vectors_of

WRITE_BYTES = 4 << 20
_MOST = 2**63
_encode = msgspec.json.Encoder().encode


def pyarrow() -> tuple[Any, Any]:
    """The library, and its part for Parquet. Raises Unusable where it is not installed."""
    try:
        import pyarrow as pa  # half a second, and an extra
        from pyarrow import parquet
    except ImportError:
        raise Unusable(
            "a Parquet landing",
            "pyarrow is not installed",
            "Install airflow-provider-geminibatch[parquet] on the workers, or land as format='jsonl'.",
        ) from None
    return pa, parquet


def arrow_type(kind: str) -> Any:
    """The Arrow type of a column: of one of the plain kinds, of ``{"list": kind}`` and ``{"struct": {name: kind}}``, or of
    vectors (``core.vectors``)."""
    if is_vector(kind):
        return vector_type(pyarrow()[0], kind)
    return _type(msgspec.json.decode(kind) if kind.startswith("{") else kind)


def _type(kind: Any) -> Any:
    pa, _ = pyarrow()
    if isinstance(kind, dict):
        if "list" in kind:
            return pa.list_(_type(kind["list"]))
        return pa.struct([(name, _type(inner)) for name, inner in kind["struct"].items()])
    return {
        "string": pa.string(), "text": pa.string(), "json": pa.string(), "int64": pa.int64(), "decimal": pa.decimal128(28, 12),
        "float64": pa.float64(), "bool": pa.bool_(), "timestamp": pa.timestamp("us", tz="UTC"),
    }[kind]  # fmt: skip


def column_of(values: Sequence[Any], kind: str) -> Any:
    """Values as an Arrow array of a column's kind."""
    pa, _ = pyarrow()
    build = vectors_of if is_vector(kind) else _BUILD.get(kind, _plain)
    return build(pa, values, arrow_type(kind))


def _plain(pa: Any, values: Sequence[Any], of: Any) -> Any:
    return pa.nulls(len(values), of) if values.count(None) == len(values) else pa.array(values, of)


def _json(pa: Any, values: Sequence[Any], of: Any) -> Any:
    if values.count(None) == len(values):
        return pa.nulls(len(values), of)
    encode = _encode
    return pa.array([None if value is None else encode(value) for value in values], pa.binary()).view(of)


def _whole(pa: Any, values: Sequence[Any], of: Any) -> Any:
    try:
        return pa.Array.from_buffers(of, len(values), [None, pa.py_buffer(array("q", values))])
    except TypeError:  # there are nothings among them
        return pa.array(values, of)


_BUILD: dict[str, Callable[[Any, Sequence[Any], Any], Any]] = {"json": _json, "int64": _whole}


def money_of(picos: Sequence[int] | None, count: int) -> Any:
    """Picodollars as the money of ``count`` rows; nothing, where no price is known."""
    pa, _ = pyarrow()
    of = arrow_type("decimal")
    if picos is None:
        return pa.nulls(count, of)
    if count and max(picos) >= _MOST:
        return pa.array([Decimal(one).scaleb(-12) for one in picos], of)
    # Twelve digits behind the point: a whole number of picodollars is the unscaled value of the decimal.
    wide = pa.Array.from_buffers(pa.int64(), count, [None, pa.py_buffer(array("q", picos))]).cast(pa.decimal128(28, 0))
    return pa.Array.from_buffers(of, count, wide.buffers())


class Sized(NamedTuple):
    """Columns in Arrow, and how many bytes of text and of vectors are in them."""

    batch: Any
    size_bytes: int


def sized(batch: Any) -> Sized:
    """A record batch with the size of its texts and vectors."""
    pa, _ = pyarrow()
    texts = sum(_text_bytes(column) for column in batch.columns if column.type == pa.string())
    vectors = (column for column in batch.columns if holds_vectors(pa, column.type))
    return Sized(batch, texts + sum(sum(row_bytes(pa, column)) for column in vectors))


def _text_bytes(column: Any) -> int:
    import pyarrow.compute as pc

    return pc.sum(pc.binary_length(column)).as_py() or 0


def regrouped(
    batches: Iterable[Any], most_rows: int, most_bytes: int, part_rows: int
) -> Iterator[tuple[int, list[Any]]]:
    """Batches as groups of at most ``most_rows``, ended by the row that reaches ``most_bytes`` and at the end of a part."""
    held, count, weight, of_part = list[Any](), 0, 0, 0
    for batch in batches:
        rest = sized(batch)
        while rest.batch.num_rows:
            room = min(most_rows - count, part_rows - of_part - count)
            taken = _fitting(rest, room, most_bytes - weight)
            piece = rest if taken == rest.batch.num_rows else sized(rest.batch.slice(0, taken))
            held.append(piece.batch)
            count, weight = count + taken, weight + piece.size_bytes
            if taken == room or weight >= most_bytes:
                of_part = (of_part + count) % part_rows
                yield count, held
                held, count, weight = [], 0, 0
            rest = Sized(rest.batch.slice(taken), rest.size_bytes - piece.size_bytes)
    if held:
        yield count, held


def _fitting(rest: Sized, rows: int, size_bytes: int) -> int:
    """How many rows of a batch go into a group with so much room; the one that reaches its size goes in."""
    rows = min(rows, rest.batch.num_rows)
    if rest.size_bytes < size_bytes:
        return rows
    for at, weight in enumerate(accumulate(_row_bytes(rest.batch)), 1):
        if weight >= size_bytes or at == rows:
            return at
    raise AssertionError("the sum of its rows is the size of a batch")


def _row_bytes(batch: Any) -> Iterator[int]:
    import pyarrow.compute as pc

    pa, _ = pyarrow()
    columns = [pc.binary_length(column).to_pylist() for column in batch.columns if column.type == pa.string()]
    columns += [row_bytes(pa, column) for column in batch.columns if holds_vectors(pa, column.type)]
    return (sum(length or 0 for length in lengths) for lengths in zip(*columns, strict=True))


def write_parquet(target: Any, schema: Any, groups: Iterable[tuple[int, list[Any]]]) -> int:
    """Write groups as row groups; how many rows they were."""
    pa, parquet = pyarrow()
    count, last = 0, None
    # Every write to a file of Python's waits for the interpreter, so few large ones.
    out = pa.BufferedOutputStream(pa.PythonFile(target, mode="w"), WRITE_BYTES)
    with (
        ThreadPoolExecutor(1, "geminibatch-parquet") as thread,
        out,
        parquet.ParquetWriter(out, schema, compression="zstd") as to,
    ):
        try:
            for rows, held in groups:
                if last is not None:
                    last.result()
                last = thread.submit(_write, pa, to, held, schema)
                count += rows
        finally:
            _settle(last)
    return count


def _write(pa: Any, to: Any, held: list[Any], schema: Any) -> None:
    to.write_table(pa.Table.from_batches(held, schema=schema).combine_chunks())


def _settle(last: Future[None] | None) -> None:
    if last is not None:
        last.result()


__all__ = ["arrow_type", "column_of", "money_of", "pyarrow", "regrouped", "sized", "write_parquet"]
