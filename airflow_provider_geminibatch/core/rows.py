"""From the rows of a source to rows that can be packed: a key, an encoded request, and the columns that travel along.

A row that is in order costs no more than its encoding; only one that is not is looked at column by column, to say why.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import date, datetime, time
from decimal import Decimal
from functools import partial
from numbers import Number
from typing import Any, NamedTuple

import msgspec

from airflow_provider_geminibatch.core.errors import Problem
from airflow_provider_geminibatch.core.fields import MESSAGES, ROOTS
from airflow_provider_geminibatch.core.limits import SHARD_BYTES
from airflow_provider_geminibatch.core.requests import Checked, check_request

ALL_COLUMNS = "*"
OWN_FIELDS = frozenset({"key", "request"})

LINE_BYTES = 64
"""What a line holds beside its request, at most: the wire key and the JSON around it."""


def _by_its_base(value: Any) -> Any:
    """What is a kind of text, number or time, as plain text, number or time: msgspec writes exact types only."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, datetime):
        return datetime.combine(date(value.year, value.month, value.day), value.timetz())
    if isinstance(value, date):
        return date(value.year, value.month, value.day)
    for base in (int, float):
        if isinstance(value, base):
            return base(value)
    raise TypeError(f"a {type(value).__name__} is nothing that JSON knows")


encode_json = msgspec.json.Encoder(decimal_format="string", enc_hook=_by_its_base).encode
_decode_json = msgspec.json.Decoder().decode


class Fault(NamedTuple):
    """What a source itself found wrong with one of its rows."""

    what: str
    hint: str = ""


class Row(msgspec.Struct, frozen=True, gc=False):
    """One row of a source and where it stands: ``rows.csv line`` and 17. ``bytes`` are a line of JSON, not yet read."""

    place: str
    number: int
    data: Mapping[str, Any] | bytes | Fault


class Encoded(msgspec.Struct, frozen=True, gc=False):
    """What an encoder makes of a row.

    ``varying`` is what of the request differs from row to row, where the rest is known beforehand: two requests of one
    encoder are equal if and only if their ``varying`` are. None stands for the request itself.
    """

    key: str
    request: bytes
    varying: bytes | None = None


class Ready(msgspec.Struct, frozen=True, gc=False):
    """A row that can be packed: its key and passthrough columns as JSON, its request as it goes on the wire.

    ``varying`` as in ``Encoded``.
    """

    key: bytes
    request: bytes
    columns: bytes
    varying: bytes | None = None


# These three are made for every row, and a Struct costs a quarter of a named tuple. None of them can be part of a cycle.

Problems = list[Problem]
Encode = Callable[[Mapping[str, Any]], Encoded | Problems]
Quick = Callable[[Any], Ready | None]
"""A short road for what a row holds: what it can vouch for, and None for all that has to be looked at more closely."""


def ready_rows(
    rows: Iterable[Row],
    encode: Encode,
    *,
    columns: tuple[str, ...] = (),
    own: frozenset[str] = frozenset(),
    max_bytes: int = SHARD_BYTES,
    quick: Quick | None = None,
) -> Iterator[Ready | Problems]:
    """Each row in order, as something to pack or as the list of its problems. That keys are unique is not looked at.

    ``own`` are fields that ``*`` does not count as columns. What ``quick`` lets through must be what ``encode`` would make.
    """
    most = max_bytes - LINE_BYTES
    for row in rows:
        made: Any = None if quick is None else quick(row.data)
        if made is None:
            made = _ready(row.data, encode, columns, own)
        if type(made) is Ready:
            if len(made.request) <= most:
                yield made
                continue
            what = f"has {len(made.request):,} bytes, and a shard may have {max_bytes:,}"
            made = [Problem("request", what, "split it")]
        yield placed(row, made)


def located(rows: Iterable[Any], first: int = 1) -> Iterator[Row]:
    """Rows with their place; what comes without one is numbered from ``first``."""
    for number, row in enumerate(rows, first):
        yield row if type(row) is Row else Row("row", number, row)


def placed(row: Row, problems: Problems) -> Problems:
    """The problems of a row with its place before their own."""
    return [replace(problem, where=f"{row.place} {row.number}: {problem.where}".rstrip(": ")) for problem in problems]


def _ready(
    data: Mapping[str, Any] | bytes | Fault, encode: Encode, columns: tuple[str, ...], own: frozenset[str]
) -> Any:
    fields = decoded(data) if type(data) is bytes else data
    if type(fields) is Fault:
        return [Problem("", fields.what, fields.hint)]
    if not isinstance(fields, Mapping):
        return [
            Problem("", f"a row must be a mapping, not {type(fields).__name__}", 'for example {"id": "1", "text": "…"}')
        ]
    encoded = encode(fields)
    if type(encoded) is not Encoded:
        return encoded
    along = passthrough(fields, columns, own)
    if type(along) is not bytes:
        return along
    try:
        key = encode_json(encoded.key)
    except UnicodeEncodeError:
        return [Problem("key", *NOT_TEXT)]
    if not encoded.key.strip():
        return [Problem("key", "is empty", "every row needs its own key")]
    return Ready(key, encoded.request, along, encoded.varying)


def shown_key(key: bytes) -> str:
    """A key as messages show it."""
    text = key.decode()
    return text if len(text) <= 80 else text[:79] + "…"


def decoded(line: bytes) -> Any:
    """A line of JSON as Python, or a Fault. Messages of the decoder name positions, never content."""
    try:
        return _decode_json(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if isinstance(error, UnicodeDecodeError):
            return Fault(f"is not UTF-8 (byte {_first_not_utf8(line, error)})", "write the file in UTF-8")
        if isinstance(error, RecursionError):
            return Fault("is nested too deeply to be read", "flatten it")
        return Fault(f"is not JSON: {str(error).removeprefix('JSON is malformed: ')}", "one JSON object per line")


def _first_not_utf8(line: bytes, error: UnicodeDecodeError) -> int:
    """Where a line stops being UTF-8. The decoder's error counts within the one text that it was reading."""
    try:
        line.decode()
    except UnicodeDecodeError as whole:
        return whole.start
    return error.start


NOT_TEXT = (
    "holds a character that no UTF-8 text can hold",
    "the file may not be UTF-8; a lone half of an emoji does it too",
)


def passthrough(fields: Mapping[str, Any], columns: tuple[str, ...], own: frozenset[str]) -> bytes | Problems:
    """The columns that travel along, as a JSON object, or what is wrong with them."""
    if not columns:
        return b"{}"
    try:
        if ALL_COLUMNS in columns:
            return encode_json({name: value for name, value in fields.items() if name not in own})
        return encode_json({name: fields[name] for name in columns})
    except (KeyError, TypeError, ValueError):
        names = [name for name in fields if name not in own] if ALL_COLUMNS in columns else columns
        return [problem for name in names for problem in _column_problem(fields, name)]


def _column_problem(fields: Mapping[str, Any], name: str) -> Iterator[Problem]:
    if name not in fields:
        yield missing_column(fields, name)
        return
    try:
        encode_json({name: fields[name]})
    except UnicodeEncodeError:
        yield Problem(f"column {name}", *NOT_TEXT)
    except (TypeError, ValueError):
        yield Problem(
            f"column {name}", f"a {type(fields[name]).__name__} cannot be written as JSON", "convert it to text"
        )


def missing_column(fields: Mapping[str, Any], name: str) -> Problem:
    """The problem of a row that lacks a column."""
    known = [str(field) for field in fields]
    close = difflib.get_close_matches(name, known, 1)
    shown = ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
    return Problem(f"column {name}", "is not in this row", f"did you mean {close[0]}?" if close else f"it has {shown}")


def text_of(value: Any) -> str | None:
    """A value as it reads in a prompt or a key; None for what has no text of its own (bytes, objects).

    Absent is empty, truth is JSON's, times are ISO, lists and mappings are JSON.
    """
    if isinstance(value, str):
        return str.__str__(value)  # of a subclass too: columns may hold such, and msgspec writes exact types only
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    # The core imports no uuid, since that module makes random ones.
    if isinstance(value, Number | Decimal) or type(value).__module__ == "uuid":
        return str(value)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Mapping | list | tuple):
        try:
            return encode_json(value).decode()
        except (TypeError, UnicodeEncodeError):
            return None
    return None


def request_encoder(
    kind: str,
    model: str,
    note: Callable[[dict[str, Any]], object] = lambda request: None,
    *,
    ordered: bool = True,
    check: Callable[[object], Checked] | None = None,
    warn: Callable[[tuple[Problem, ...]], object] = lambda warnings: None,
) -> Encode:
    """The encoder for rows that are requests already: ``{"key": …, "request": {…}}``, perhaps with more columns.

    ``check`` is the verdict on a request, by default that of ``check_request`` for the kind and the model; ``warn`` is shown
    the warnings of every request, and ``note`` every request that is in order.

    Without ``ordered`` its fields keep the order in which they came,
    as in builds that were sealed before there was a short road (``fast_requests``).
    """

    verdict: Callable[[object], Checked] = check or partial(check_request, kind=kind, model=model)

    def encode(fields: Mapping[str, Any]) -> Encoded | Problems:
        problems = [*_key_problems(fields)]
        if "request" not in fields:
            return [*problems, _no_request(fields)]
        checked = verdict(fields["request"])
        if checked.warnings:
            warn(checked.warnings)
        if problems or checked.problems:
            return [*problems, *checked.problems]
        note(checked.request)
        try:
            return Encoded(fields["key"], encode_json(canonical(checked.request, kind) if ordered else checked.request))
        except UnicodeEncodeError:
            return [Problem("request", *NOT_TEXT)]
        except TypeError as error:
            return [Problem("request", f"cannot be written as JSON ({error})", "use text, numbers, lists and mappings")]

    return encode


def canonical(request: dict[str, Any], kind: str) -> dict[str, Any]:
    """A request with its own fields, and those of its turns, in the order of their names, whichever road it took.

    Not in the order of the field table, which may change: contents of shards are compared for as long as a batch lives.
    """
    out = {name: request[name] for name in sorted(request)}
    for name, word in MESSAGES[ROOTS[kind]].items():
        if name in out and word.strip("[]!") == "Content":
            turns = out[name]
            out[name] = [_turn(turn) for turn in turns] if isinstance(turns, list) else _turn(turns)
    return out


def _turn(turn: dict[str, Any]) -> dict[str, Any]:
    return {name: turn[name] for name in sorted(turn)}


def _key_problems(fields: Mapping[str, Any]) -> Iterator[Problem]:
    key = fields.get("key")
    if key is None:
        yield Problem("key", "is missing", 'a line is {"key": "…", "request": {…}}')
    elif not isinstance(key, str):
        yield Problem("key", f"must be text, not {type(key).__name__}", "put it in quotes")


def _no_request(fields: Mapping[str, Any]) -> Problem:
    bare = "contents" in fields
    hint = (
        'this line is the bare request: write {"key": "…", "request": …}'
        if bare
        else 'a line is {"key": "…", "request": {…}}'
    )
    return Problem("request", "is missing", hint)
