"""Parts of a commit: rows to Parquet or JSONL, streamed, hashed on the way, deterministic in their bytes; and back again.

A row travels as a tuple in column order. JSON columns hold any JSON value: text in Parquet, the value itself in JSONL.
Money is Decimal in Parquet and text in JSONL; ``read_part`` gives Decimals and parsed values for both.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from itertools import chain, islice, repeat
from typing import Any, BinaryIO, NamedTuple, Protocol, TypeVar

import msgspec

from airflow_provider_geminibatch.core.errors import StoreUnreadable
from airflow_provider_geminibatch.core.kinds import VECTOR_COLUMN
from airflow_provider_geminibatch.core.landing import Part, part_name
from airflow_provider_geminibatch.storage.arrow_parts import (
    arrow_type,
    column_of,
    pyarrow,
    regrouped,
    sized,
    write_parquet,
)
from airflow_provider_geminibatch.storage.digest import Digest
from airflow_provider_geminibatch.storage.store import Store, Writer
from airflow_provider_geminibatch.storage.vectors import HELD_BYTES

PART_ROWS = 1_000_000
PART_BYTES = 2 << 30
"""Where a part ends before it has its rows, counted before compression: answers may be long."""

BATCH_ROWS = 20_000
"""Rows per Arrow batch: measured to be the knee between speed and memory."""

BATCH_BYTES = 32 << 20
"""Where a batch ends before it has its rows: an answer may be an image of megabytes."""

CHUNK_ROWS = 2_000
"""Rows that become columns together."""

Row = tuple[Any, ...]
_Group = tuple[int, list[Any]]
_Item = TypeVar("_Item")


class Column(NamedTuple):
    """A column of a landing. ``kind`` is one of string, int64, decimal, json, float64, bool, timestamp, or nested: see
    ``arrow_parts.arrow_type``."""

    name: str
    kind: str


# Every outcome row starts with these; the user's own columns follow.
COLUMNS = (
    Column("key", "string"),
    Column("outcome", "string"),
    Column("text", "string"),
    Column("value", "json"),
    Column("extra", "json"),
    Column("error", "string"),
    Column("code", "int64"),
    Column("finish_reason", "string"),
    Column("tokens_prompt", "int64"),
    Column("tokens_candidates", "int64"),
    Column("tokens_thoughts", "int64"),
    Column("tokens_cached", "int64"),
    Column("tokens_total", "int64"),
    Column("cost_usd", "decimal"),
    Column("model", "string"),
    Column("job", "string"),
    Column("shard", "string"),
    Column("round", "int64"),
    Column("repaired", "string"),
)


def own_columns(vector: str | None = None, more: Sequence[Column] = ()) -> tuple[Column, ...]:
    """The columns before the user's; vectors, of that kind of column, have one of their own and leave ``value`` empty."""
    return (*COLUMNS, *((Column(VECTOR_COLUMN, vector),) if vector is not None else ()), *more)


def user_columns(rows: Iterable[Mapping[str, Any]], names: Sequence[str] = ()) -> tuple[str, ...]:
    """The names of the user's columns, in the order in which they are named or first seen.

    They land as text. A type taken from the values of one window (numbers, whole numbers, nothing at all) would be another
    one in the next, and then no reader could open the windows of a landing together.
    """
    found = dict.fromkeys(names)
    for row in rows:
        found.update(dict.fromkeys(row))
    return tuple(found)


def as_text(value: Any) -> str | None:
    """A value of the user's as it lands: text as it is, nothing as nothing, all else as its JSON text."""
    return value if value is None or isinstance(value, str) else msgspec.json.encode(value).decode()


def landing_names(names: Sequence[str], own: Sequence[Column] = COLUMNS) -> tuple[str, ...]:
    """The names that the user's columns get: theirs, or ``row_`` before one that would hide a column of ours."""
    taken = {column.name for column in own}
    found: list[str] = []
    for name in names:
        while name in taken:
            name = f"row_{name}"
        taken.add(name)
        found.append(name)
    return tuple(found)


class Batches(Protocol):
    """Rows that also come as columns: record batches of Arrow, in the order of rows."""

    def batches(self) -> Iterator[Any]: ...


def write_parts(
    store: Store,
    folder: str,
    commit: str,
    file_format: str,
    columns: Sequence[Column],
    rows: Iterable[Row] | Batches,
) -> tuple[Part, ...]:
    """Write all rows as parts below ``folder``. Each appears whole; writing them again gives the same bytes.

    Parquet takes rows that have ``batches`` by these, and gives the same bytes for them too.
    """
    (grouped, write, weigh), parts = _WRITERS[file_format], list[Part]()
    groups = grouped(columns, rows)
    for first in groups:
        name = part_name(len(parts), commit, file_format)
        with store.writer(f"{folder}/{name}") as target:
            with Digest() as digest, _Hashed(target, digest) as hashed:
                count = write(hashed, columns, _of_part(first, groups, weigh))
            parts.append(Part(name, hashed.size_bytes, digest.hexdigest(), count))
    return tuple(parts)


def _of_part(first: _Group, groups: Iterator[_Group], weigh: Callable[[Any], int]) -> Iterator[_Group]:
    """The groups of one part; they end where parts end."""
    rows = weight = 0
    for group in chain((first,), groups):
        # What was written so far depends on the compression and on a thread; what comes in does not.
        rows, weight = rows + group[0], weight + sum(map(weigh, group[1]))
        yield group
        if rows >= PART_ROWS or weight >= PART_BYTES:
            return


class _Hashed(io.RawIOBase):
    """A writer that counts and digests what goes through it. Closing it does not close what it writes to."""

    def __init__(self, target: Writer, digest: Digest) -> None:
        self._target, self._digest, self.size_bytes = target, digest, 0

    def write(self, data: Any, /) -> int:
        raw = bytes(data)
        self._digest.update(raw)
        self._target.write(raw)
        self.size_bytes += len(raw)
        return len(raw)

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.size_bytes


def _lines(columns: Sequence[Column], rows: Any) -> Iterator[_Group]:
    names, encode = [column.name for column in columns], msgspec.json.Encoder(decimal_format="string").encode
    rows = iter(rows)
    while chunk := list(islice(rows, 1)):
        part = islice(chain(chunk, rows), PART_ROWS)
        lines = (encode(dict(zip(names, row, strict=True))) + b"\n" for row in part)
        yield from ((len(batch), batch) for batch in _batches(lines, 1000, len))


def _write_jsonl(target: BinaryIO, columns: Sequence[Column], groups: Iterable[_Group]) -> int:
    count = 0
    for rows, batch in groups:
        target.write(b"".join(batch))
        count += rows
    return count


def _row_groups(columns: Sequence[Column], rows: Any) -> Iterator[_Group]:
    schema = arrow_schema(columns)
    batches = rows.batches() if hasattr(rows, "batches") else record_batches(schema, columns, rows)
    return regrouped(batches, BATCH_ROWS, BATCH_BYTES, PART_ROWS)


def _write_parquet(target: BinaryIO, columns: Sequence[Column], groups: Iterable[_Group]) -> int:
    return write_parquet(target, arrow_schema(columns), groups)


def arrow_schema(columns: Sequence[Column]) -> Any:
    """The schema of a part. Raises Unusable without pyarrow."""
    pa, _ = pyarrow()
    return pa.schema([(column.name, arrow_type(column.kind)) for column in columns])


def record_batches(schema: Any, columns: Sequence[Column], rows: Iterable[Row]) -> Iterator[Any]:
    """Rows as record batches, small enough to be held."""
    json_at = [at for at, column in enumerate(columns) if column.kind == "json"]
    # Nothing that was turned into columns is held beside them: a row may have a hundred megabytes.
    texts = map(_json_as_text, rows, repeat(json_at))
    return (_record_batch(batch, columns, schema) for batch in _batches(texts, CHUNK_ROWS, weight_of))


def _record_batch(batch: list[list[Any]], columns: Sequence[Column], schema: Any) -> Any:
    """The columns of some rows, which are taken out of ``batch``."""
    pa, _ = pyarrow()
    cells = zip(*batch, strict=True)
    batch.clear()
    arrays = [
        column_of(values, "string" if column.kind == "json" else column.kind)
        for column, values in zip(columns, cells, strict=True)
    ]
    return pa.record_batch(arrays, schema=schema)


def _json_as_text(row: Row, json_at: Sequence[int]) -> list[Any]:
    cells = list(row)
    for at in json_at:
        cells[at] = None if cells[at] is None else msgspec.json.encode(cells[at]).decode()
    return cells


def weight_of(cells: Sequence[Any]) -> int:
    """Roughly what the texts and lists of a row take."""
    return sum(
        len(cell) if type(cell) is str else HELD_BYTES * len(cell) for cell in cells if type(cell) in (str, list)
    )


def _batches(items: Iterable[_Item], most: int, weigh: Callable[[_Item], int]) -> Iterator[list[_Item]]:
    batch, weight = list[_Item](), 0
    for item in items:
        batch.append(item)
        weight += weigh(item)
        del item
        if len(batch) >= most or weight >= BATCH_BYTES:
            yield batch
            batch, weight = [], 0
    if batch:
        yield batch


_WRITERS: dict[str, tuple[Callable[..., Iterator[_Group]], Callable[..., int], Callable[[Any], int]]] = {
    "jsonl": (_lines, _write_jsonl, len),
    "parquet": (_row_groups, _write_parquet, lambda batch: sized(batch).size_bytes),
}


@contextmanager
def verified(store: Store, folder: str, part: Part) -> Iterator[BinaryIO]:
    """A part, open at its start, after its size and digest were found to be what the manifest says."""
    path = f"{folder}/{part.path}"
    with store.open(path) as file:
        if _fingerprint(file) != (part.size_bytes, part.sha256):
            raise StoreUnreadable(f"{store.uri}/{path}", "it is not what the manifest says (size or checksum differ)")
        file.seek(0)
        yield file


def _fingerprint(file: BinaryIO) -> tuple[int, str]:
    total, digest = 0, hashlib.sha256()
    while data := file.read(1 << 20):
        total += len(data)
        digest.update(data)
    return total, digest.hexdigest()


def read_part(file: BinaryIO, file_format: str) -> Iterator[dict[str, Any]]:
    """The rows of an open part."""
    kinds = {column.name: column.kind for column in COLUMNS}
    decimals = [name for name, kind in kinds.items() if kind == "decimal"]
    texts = [name for name, kind in kinds.items() if kind == "json"] if file_format == "parquet" else []
    for row in _READERS[file_format](file):
        for name in texts:
            row[name] = None if row[name] is None else msgspec.json.decode(row[name])
        for name in decimals:
            row[name] = None if row[name] is None else Decimal(row[name])
        yield row


def _read_jsonl(file: BinaryIO) -> Iterator[dict[str, Any]]:
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    return (decode(line) for line in file)


def _read_parquet(file: BinaryIO) -> Iterator[dict[str, Any]]:
    _, parquet = pyarrow()
    parts = parquet.ParquetFile(file)
    # Group by group: they were cut by size, and a batch of the reader may span several.
    for group in range(parts.num_row_groups):
        for batch in parts.iter_batches(batch_size=BATCH_ROWS, row_groups=[group]):
            yield from batch.to_pylist()


_READERS: dict[str, Callable[[BinaryIO], Iterator[dict[str, Any]]]] = {"jsonl": _read_jsonl, "parquet": _read_parquet}


__all__ = [
    "COLUMNS",
    "Column",
    "arrow_schema",
    "as_text",
    "landing_names",
    "own_columns",
    "read_part",
    "record_batches",
    "user_columns",
    "verified",
    "weight_of",
    "write_parts",
]
