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
from itertools import chain, islice
from typing import Any, BinaryIO, NamedTuple

import msgspec

from airflow_provider_geminibatch.core.errors import StoreUnreadable, Unusable
from airflow_provider_geminibatch.core.landing import Part, part_name
from airflow_provider_geminibatch.storage.store import Store, Writer

PART_ROWS = 1_000_000
BATCH_ROWS = 20_000
"""Rows per Arrow batch: measured to be the knee between speed and memory."""

Row = tuple[Any, ...]


class Column(NamedTuple):
    """A column of a landing. ``kind`` is one of string, int64, float64, bool, decimal, json."""

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
)

# What the types of two values of a column come to. Whatever is not here is text.
_WIDER = {frozenset({"int64", "float64"}): "float64"}
_KINDS: dict[type, str] = {str: "string", bool: "bool", int: "int64", float: "float64"}


def user_columns(rows: Iterable[Mapping[str, Any]], names: Sequence[str] = ()) -> tuple[Column, ...]:
    """The user's columns, in the order in which they are named or first seen, typed by their values.

    Text stays text, numbers and truth values stay what they are. A column that mixes kinds, holds lists or objects, or has
    no value at all, is text.
    """
    kinds: dict[str, str | None] = dict.fromkeys(names)
    for row in rows:
        for name, value in row.items():
            known = kinds.setdefault(name, None)
            if value is not None:
                kinds[name] = _joined(known, _kind(value))
    return tuple(Column(name, kind or "string") for name, kind in kinds.items())


def _kind(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
        return "string"
    return _KINDS.get(type(value), "string")


def _joined(one: str | None, other: str) -> str:
    if one is None or one == other:
        return other
    return _WIDER.get(frozenset({one, other}), "string")


def fitted(value: Any, kind: str) -> Any:
    """``value`` as the column's kind holds it: what is no text in a text column becomes its JSON text."""
    if value is None or (kind == "string") == isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode() if kind == "string" else value


def landing_names(names: Sequence[str]) -> tuple[str, ...]:
    """The names that the user's columns get: theirs, or ``row_`` before one that would hide a column of ours."""
    taken = {column.name for column in COLUMNS}
    found: list[str] = []
    for name in names:
        while name in taken:
            name = f"row_{name}"
        taken.add(name)
        found.append(name)
    return tuple(found)


def write_parts(
    store: Store,
    folder: str,
    commit: str,
    file_format: str,
    columns: Sequence[Column],
    rows: Iterable[Row],
) -> tuple[Part, ...]:
    """Write all rows as parts below ``folder``. Each appears whole; writing them again gives the same bytes."""
    write, parts, rest = _WRITERS[file_format], list[Part](), iter(rows)
    for first in rest:
        name = part_name(len(parts), commit, file_format)
        chunk = islice(chain((first,), rest), PART_ROWS)
        with store.writer(f"{folder}/{name}") as target:
            hashed = _Hashed(target)
            count = write(hashed, columns, chunk)
            hashed.close()
        parts.append(Part(name, hashed.size_bytes, hashed.digest, count))
    return tuple(parts)


class _Hashed(io.RawIOBase):
    """A writer that knows the size and the digest of what went through it. Closing it does not close what it writes to."""

    def __init__(self, target: Writer) -> None:
        self._target, self._hash, self.size_bytes = target, hashlib.sha256(), 0

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def write(self, data: Any, /) -> int:
        raw = bytes(data)
        self._target.write(raw)
        self._hash.update(raw)
        self.size_bytes += len(raw)
        return len(raw)

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.size_bytes


def _write_jsonl(target: BinaryIO, columns: Sequence[Column], rows: Iterable[Row]) -> int:
    names, encode = [column.name for column in columns], msgspec.json.Encoder(decimal_format="string").encode
    count = 0
    for batch in _batches(rows, 1000):
        target.write(b"".join(encode(dict(zip(names, row, strict=True))) + b"\n" for row in batch))
        count += len(batch)
    return count


def _write_parquet(target: BinaryIO, columns: Sequence[Column], rows: Iterable[Row]) -> int:
    pa, parquet = _pyarrow()
    types = {
        "string": pa.string(),
        "int64": pa.int64(),
        "float64": pa.float64(),
        "bool": pa.bool_(),
        "decimal": pa.decimal128(28, 12),
        "json": pa.string(),
    }
    schema = pa.schema([(column.name, types[column.kind]) for column in columns])
    count = 0
    with parquet.ParquetWriter(target, schema, compression="zstd") as writer:
        for batch in _batches(rows, BATCH_ROWS):
            arrays = [
                pa.array(_texts(values) if column.kind == "json" else values, field.type)
                for column, field, values in zip(columns, schema, zip(*batch, strict=True), strict=True)
            ]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
            count += len(batch)
    return count


def _texts(values: Iterable[Any]) -> list[str | None]:
    encode = msgspec.json.encode
    return [None if value is None else encode(value).decode() for value in values]


def _batches(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    rest = iter(rows)
    while batch := list(islice(rest, size)):
        yield batch


_WRITERS: dict[str, Callable[[Any, Sequence[Column], Iterable[Row]], int]] = {
    "jsonl": _write_jsonl,
    "parquet": _write_parquet,
}


def _pyarrow() -> tuple[Any, Any]:
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
    _, parquet = _pyarrow()
    for batch in parquet.ParquetFile(file).iter_batches(batch_size=BATCH_ROWS):
        yield from batch.to_pylist()


_READERS: dict[str, Callable[[BinaryIO], Iterator[dict[str, Any]]]] = {"jsonl": _read_jsonl, "parquet": _read_parquet}


__all__ = ["COLUMNS", "Column", "fitted", "landing_names", "read_part", "user_columns", "verified", "write_parts"]
