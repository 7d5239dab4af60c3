"""What differs between databases: types, quoting, how a cell goes in and comes out, and what opens a transaction.

PostgreSQL and SQLite have their own row; every other database gets ANSI types and double quotes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec

from airflow_provider_geminibatch.core.names import short
from airflow_provider_geminibatch.storage.sinks import Column

NAME_BYTES = 63
"""Longest name of a column: PostgreSQL cuts what is longer, and then two could be one."""

MARK = "\0"
"""Stands for a parameter until the driver's own placeholder is known; it can be part of no name."""

CHUNK_BYTES = 1 << 18


class Words(NamedTuple):
    """One database. ``types`` per kind of column (``name``: short text that a key is made of); ``begin`` opens a writing
    transaction, ``folds`` says that names which differ in case only are one, ``copies`` that it knows COPY."""

    types: Mapping[str, str]
    begin: tuple[str, ...] = ()
    folds: bool = True
    decimal_as_text: bool = False
    copies: bool = False


_ANSI = {
    "name": "VARCHAR(255)", "string": "TEXT", "json": "TEXT", "int64": "BIGINT", "decimal": "DECIMAL(28, 12)",
    "float64": "DOUBLE PRECISION", "bool": "BOOLEAN", "timestamp": "TIMESTAMP",
}  # fmt: skip
# NUMERIC without a scale: exact, whatever the price. SQLite's NUMERIC would be a float; its locks are of the whole file, and
# a transaction that begins by reading could not always go on to write.
WORDS: Mapping[str, Words] = {
    "postgresql": Words(
        _ANSI | {"name": "TEXT", "json": "JSONB", "decimal": "NUMERIC", "timestamp": "TIMESTAMPTZ"},
        begin=("SET LOCAL lock_timeout = '{lock_seconds}s'",),
        folds=False,
        copies=True,
    ),
    "sqlite": Words(
        _ANSI | {"name": "TEXT", "int64": "INTEGER", "decimal": "TEXT", "float64": "REAL", "timestamp": "TEXT"},
        begin=("BEGIN IMMEDIATE",),
        decimal_as_text=True,
    ),
    "": Words(_ANSI),
}


def quoted(name: str) -> str:
    """A name as an identifier."""
    return '"' + name.replace('"', '""') + '"'


def bound(sql: str, placeholder: str) -> str:
    """A statement with the driver's placeholders. Where they begin with a per cent sign, one in a name is doubled."""
    return (sql.replace("%", "%%") if placeholder == "%s" else sql).replace(MARK, placeholder)


def kind_of(words: Words, kind: str) -> str:
    """The kind itself where the database has a type for it, else json, which holds everything."""
    return kind if kind in words.types else "json"


def sql_names(columns: Sequence[Column], taken: Iterable[str]) -> list[str]:
    """The names of the columns in a table: their own, unless one is too long, or hides another one but for its case."""
    seen, names = {name.casefold() for name in taken}, []
    for column in columns:
        name = _short_enough(column.name.replace("\0", ""))
        while name.casefold() in seen:
            name = _short_enough(f"row_{name}")
        seen.add(name.casefold())
        names.append(name)
    return names


def _short_enough(name: str) -> str:
    raw = name.encode("utf-8", "replace")
    if len(raw) <= NAME_BYTES:
        return raw.decode() or "_"
    return f"{raw[: NAME_BYTES - 9].decode('utf-8', 'ignore')}~{short(name, length=8)}"


def encoders(words: Words, kinds: Sequence[str]) -> list[Callable[[Any], Any]]:
    """What turns the cells of a row into parameters."""
    special: dict[str, Callable[[Any], Any]] = {"string": _text, "name": _text, "json": json_text}
    if words.decimal_as_text:
        special |= {"decimal": lambda value: format(value, "f"), "timestamp": datetime.isoformat}
    return [_unless_none(special.get(kind_of(words, kind))) for kind in kinds]


def decoders(kinds: Sequence[str]) -> list[Callable[[Any], Any]]:
    """What turns the cells of a fetched row back into what landed."""
    return [_unless_none(_DECODED.get(kind)) for kind in kinds]


def _unless_none(convert: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
    if convert is None:
        return lambda value: value
    return lambda value: None if value is None else convert(value)


def _text(value: str) -> str:
    # No character 0: PostgreSQL has none, and a window must not fail for what a model wrote.
    return value.replace("\0", "\ufffd")


_encode = msgspec.json.Encoder(decimal_format="string").encode
_ESCAPED_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


def json_text(value: Any) -> str:
    """A value as JSON that every database takes: without the character 0."""
    text = _encode(value).decode()
    return _ESCAPED_NUL.sub(r"\1\\ufffd", text) if "\\u0000" in text else text


def _from_json(value: Any) -> Any:
    return msgspec.json.decode(value) if isinstance(value, str | bytes) else value


# Some drivers have parsed JSON and times already, some give a Decimal for a number, some the text.
_DECODED: dict[str, Callable[[Any], Any]] = {
    "json": _from_json,
    "decimal": lambda value: Decimal(str(value)),
    "int64": int,
    "float64": float,
    "bool": bool,
    "timestamp": lambda value: datetime.fromisoformat(value) if isinstance(value, str) else value,
}

_COPY_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def copy_chunks(rows: Iterable[Sequence[Any]]) -> Iterator[bytes]:
    """Rows in PostgreSQL's text format for COPY, in chunks. https://www.postgresql.org/docs/current/sql-copy.html"""
    chunk, length = [], 0
    for row in rows:
        line = "\t".join([_copied(cell) for cell in row]) + "\n"
        chunk.append(line)
        length += len(line)
        if length >= CHUNK_BYTES:
            yield "".join(chunk).encode("utf-8", "replace")
            chunk, length = [], 0
    if chunk:
        yield "".join(chunk).encode("utf-8", "replace")


def _copied(cell: Any) -> str:
    if cell is None:
        return "\\N"
    if isinstance(cell, str):
        return cell.translate(_COPY_ESCAPES)
    return cell.isoformat() if isinstance(cell, datetime) else str(cell)


__all__ = [
    "MARK",
    "WORDS",
    "Words",
    "bound",
    "copy_chunks",
    "decoders",
    "encoders",
    "json_text",
    "kind_of",
    "quoted",
    "sql_names",
]
