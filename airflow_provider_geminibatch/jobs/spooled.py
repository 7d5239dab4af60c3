"""From lines that were judged to record batches that land: by columns, without a look at a row where all is as usual."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from decimal import Decimal
from importlib.util import find_spec
from itertools import chain
from typing import Any

import msgspec

from airflow_provider_geminibatch.core.fast_outcomes import KINDS, Block
from airflow_provider_geminibatch.core.kinds import VECTOR_COLUMN
from airflow_provider_geminibatch.core.outcomes import SchemaCheck, VectorCheck
from airflow_provider_geminibatch.core.vectors import vector_kind
from airflow_provider_geminibatch.jobs.extras import Extras
from airflow_provider_geminibatch.storage.arrow_parts import column_of, money_of, pyarrow
from airflow_provider_geminibatch.storage.sinks import CHUNK_ROWS, Column, Row, arrow_schema, own_columns
from airflow_provider_geminibatch.storage.spool import LINE_BYTES, ROW, Disk, Spool
from airflow_provider_geminibatch.storage.vectors import vectors_of

_NAMES = [kind.value for kind in KINDS]
_OF_LANDING = frozenset({"key", "job", "shard", "round"})
"""What is not known, or the same for a whole shard, while lines are read."""


def spool_for(disk: Disk, check: SchemaCheck | None = None) -> Spool | None:
    """A spool for the lines of a shard; None without pyarrow, and where vectors land row by row: theirs are shorter numbers."""
    by_rows = disk.place is not None and disk.place.format != "parquet"
    if find_spec("pyarrow") is None or (by_rows and isinstance(check, VectorCheck)):
        return None
    vector = vector_kind(check.dimensions) if isinstance(check, VectorCheck) else None
    extras = Extras(disk.place, [check])
    own = (column for column in own_columns(vector, extras.columns) if column.name not in _OF_LANDING)
    return Spool(arrow_schema((Column(ROW, "int64"), *own)), disk, extras)


def cells(spool: Spool, rows: Sequence[int], raws: Sequence[bytes], block: Block, costs: Sequence[int | None]) -> Any:
    """What the lines came to that are the first of their row and not too long; by columns, with the rows in front."""
    pa, _ = pyarrow()
    schema, extras = spool.schema, spool.extras
    if min(rows) < 0 or max(map(len, raws)) > LINE_BYTES:
        # Before their columns are made: a line may have a hundred megabytes.
        keep = [at for at, (row, raw) in enumerate(zip(rows, raws, strict=True)) if row >= 0 and len(raw) <= LINE_BYTES]
        rows, raws, costs = [rows[at] for at in keep], [raws[at] for at in keep], [costs[at] for at in keep]
        block = block.only(keep)
    vectors = VECTOR_COLUMN in schema.names
    picos = None if None in costs else [cost or 0 for cost in costs]
    arrays = {
        ROW: column_of(rows, "int64"),
        "outcome": _mostly_same([_NAMES[kind] for kind in block.kinds]),
        "text": column_of(block.text, "string"),
        "value": column_of((None,) * len(block) if vectors else block.value, "json"),
        "extra": column_of(block.extra, "json"),
        "error": column_of(block.error, "string"),
        "code": column_of(block.code, "int64"),
        "finish_reason": _mostly_same(block.finish),
        "tokens_prompt": column_of(block.prompt, "int64"),
        "tokens_candidates": column_of(block.candidates, "int64"),
        "tokens_thoughts": column_of(block.thoughts, "int64"),
        "tokens_cached": column_of(block.cached, "int64"),
        "tokens_total": column_of(block.total, "int64"),
        "cost_usd": money_of(picos, len(block)) if picos is not None else _partly(costs),
        "model": _mostly_same([version or None for version in block.version]),
        "repaired": column_of(block.repaired, "string"),
    }
    for column, values in zip(extras.columns, extras.of_block(block, raws), strict=True):
        arrays[column.name] = column_of(values, column.kind)
    if vectors:
        arrays[VECTOR_COLUMN] = vectors_of(pa, block.value, schema.field(VECTOR_COLUMN).type)
    return pa.record_batch([arrays[name] for name in schema.names], schema=schema)


def _mostly_same(values: Sequence[str | None]) -> Any:
    """A column of texts, which nearly always are the same one."""
    first = values[0] if values else None
    if first is None or values.count(first) < len(values):
        return column_of(values, "string")
    pa, _ = pyarrow()
    return pa.repeat(first, len(values))


def _partly(costs: Sequence[int | None]) -> Any:
    """The cost of rows without a price, of which some used nothing."""
    import pyarrow.compute as pc

    pa, _ = pyarrow()
    none = pa.array([cost is None for cost in costs])
    return pc.if_else(none, money_of(None, len(costs)), money_of([0] * len(costs), len(costs)))


class Whole:
    """Puts together what a spool kept with what the rest of the row is: keys, the user's columns, and the shard's own."""

    def __init__(self, columns: Sequence[Column], users: int, model: str, same: Mapping[str, Any]) -> None:
        self._columns, self._schema, self._model, self._same = columns, arrow_schema(columns), model, same
        self._users = [column.name for column in columns[len(columns) - users :]]

    def batch(self, kept: Any, keys: Sequence[str], users: Sequence[Sequence[str | None]]) -> Any:
        """Record batch of rows that were kept; ``users`` is column by column."""
        import pyarrow.compute as pc

        pa, _ = pyarrow()
        own = dict(zip(self._users, users, strict=True))
        arrays = []
        for column, field in zip(self._columns, self._schema, strict=True):
            if column.name == "key":
                arrays.append(pa.array(keys, field.type))
            elif column.name in self._same:
                value = self._same[column.name]
                arrays.append(
                    pa.nulls(len(keys), field.type)
                    if value is None
                    else pa.repeat(pa.scalar(value, field.type), len(keys))
                )
            elif column.name in own:
                arrays.append(column_of(own[column.name], "string"))
            else:
                found = _found(kept, column, field.type)
                arrays.append(pc.fill_null(found, self._model) if column.name == "model" else found)
        return pa.record_batch(arrays, schema=self._schema)


def _found(kept: Any, column: Column, of: Any) -> Any:
    """A column of what was kept.

    Those of vectors and of properties may be missing, and vectors of another length, where batches that land together differ.
    """
    pa, _ = pyarrow()
    if column.name not in kept.schema.names:
        return pa.nulls(kept.num_rows, of)
    found = kept.column(column.name)
    return found if found.type == of else found.cast(of)


def merged(batches: Sequence[Any], rows: Sequence[int]) -> Any:
    """Batches of different rows as one, in the order of rows; ``rows`` are theirs, one batch after the other."""
    import pyarrow.compute as pc

    pa, _ = pyarrow()
    order = pc.sort_indices(pa.array(array("q", rows), pa.int64()))
    return pa.Table.from_batches(batches).combine_chunks().take(order).combine_chunks().to_batches()[0]


def without(kept: Sequence[Any], odd: AbstractSet[int]) -> tuple[list[Any], list[list[int]]]:
    """Record batches of a spool without some rows, and the rows of each."""
    pa, _ = pyarrow()
    batches, rows = list[Any](), list[list[int]]()
    for batch in kept:
        have = batch.column(ROW).to_pylist()
        if not odd.isdisjoint(have):
            batch = batch.filter(pa.array([row not in odd for row in have], pa.bool_()))
            have = [row for row in have if row not in odd]
        if have:
            batches.append(batch)
            rows.append(have)
    return batches, rows


def tuples(batch: Any) -> Iterator[Row]:
    """The rows of a record batch as they would be without one; a value is its JSON as it stands."""
    return chain.from_iterable(_tuples(batch.slice(at, CHUNK_ROWS)) for at in range(0, batch.num_rows, CHUNK_ROWS))


def _tuples(batch: Any) -> Iterator[Row]:
    return zip(
        *(_cells(name, column) for name, column in zip(batch.schema.names, batch.columns, strict=True)), strict=True
    )


def _cells(name: str, column: Any) -> list[Any]:
    if column.null_count == len(column):
        return [None] * len(column)
    cells: list[Any] = column.to_pylist()
    read = _READ.get(name)
    return cells if read is None else [None if cell is None else read(cell) for cell in cells]


_NOTHING = Decimal(0)
_READ: dict[str, Callable[[Any], Any]] = {
    "value": msgspec.Raw,
    "extra": msgspec.json.decode,
    "cost_usd": lambda cost: cost or _NOTHING,
}


__all__ = ["Whole", "cells", "merged", "spool_for", "tuples", "without"]
