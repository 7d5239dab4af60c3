"""The short road for the rows of a template: a row in order costs its encoding and little else.

It splices as ``WireTemplate.encode`` does and vouches only for rows that need no second look; one that lacks a column, holds
what has no text, or has no key is left to the long road, which says what is wrong with it. Of a line of JSON only the
columns that are asked for are read; of the others it is enough that they are JSON, in whatever encoding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import repeat
from operator import attrgetter, itemgetter
from typing import Any, cast

import msgspec

from airflow_provider_geminibatch.core.chunks import Chunk, Together
from airflow_provider_geminibatch.core.rows import (
    ALL_COLUMNS,
    Problems,
    Quick,
    Ready,
    encode_json,
    passthrough,
    text_of,
)
from airflow_provider_geminibatch.core.template import Column, WireTemplate

_decode = msgspec.json.Decoder().decode
_NOT_PLAIN = (KeyError, TypeError, ValueError, RecursionError, msgspec.MsgspecError)

Pick = Callable[[Any], tuple[Any, ...]]


def quick_rows(wire: WireTemplate, columns: tuple[str, ...] = ()) -> Quick:
    """The short road for rows, decoded or as lines of JSON. ``columns`` travel along."""
    pick, pick_line = _picks(wire, columns)
    place = {name: at for at, name in enumerate(_needed(wire, columns))}
    body, key_of = _body(wire, place), _key(wire, place)
    along = _along(columns, place)
    spoken = tuple(place[name] for name in wire.spoken)

    def quick(data: Any) -> Ready | None:
        try:
            values = pick(data) if type(data) is dict else pick_line(data)
            request, varying = body(values)
            key = key_of(values)
            if not key or key.isspace() or (spoken and _wordless(values, spoken)):
                return None
            passed = b"{}" if along is None else along(data, values)
            return Ready(encode_json(key), request, passed, varying) if type(passed) is bytes else None
        except _NOT_PLAIN:
            return None

    return quick


def quick_chunks(wire: WireTemplate, columns: tuple[str, ...] = ()) -> Together:
    """The short road for many rows at a time, all decoded or all lines of JSON."""
    pick, pick_line = _picks(wire, columns)
    place = {name: at for at, name in enumerate(_needed(wire, columns))}
    vary, key_of = _varying(wire, place), _keys(wire, place)
    along = _along(columns, place)
    before, after = b"".join(wire.pieces[: wire.span.start]), b"".join(wire.pieces[wire.span.stop :])
    spoken = tuple(place[name] for name in wire.spoken)

    def together(data: list[Any]) -> Chunk | None:
        kinds = set(map(type, data))
        if len(kinds) != 1:
            return None
        try:
            values = list(map(pick if dict in kinds else pick_line, data))
            texts = [_texts(column) for column in zip(*values, strict=True)]
            keys = key_of(texts, len(data))
            if not all(map(str.strip, keys)):
                return None
            if spoken and not all(map(str.strip, texts[spoken[0]] if len(spoken) == 1 else _joined(texts, spoken))):
                return None
            passed = None if along is None else [along(*row) for row in zip(data, values, strict=True)]
            if passed is not None and set(map(type, passed)) != {bytes}:
                return None
            return Chunk(before, after, _key_bodies(keys), vary(texts, len(data)), cast("list[bytes] | None", passed))
        except _NOT_PLAIN:
            return None

    return together


def _key_bodies(keys: Sequence[str]) -> list[bytes]:
    """Short texts are encoded in one go, with line breaks between them; one too many, and it is done one by one."""
    bodies = encode_json("\n".join(keys))[1:-1].split(rb"\n")
    return bodies if len(bodies) == len(keys) else _bodies(keys)


def _texts(column: tuple[Any, ...]) -> Sequence[str]:
    return column if set(map(type, column)) == {str} else [_plain(value) for value in column]


def _joined(texts: Sequence[Sequence[str]], numbers: tuple[int, ...]) -> list[str]:
    return list(map("".join, zip(*(texts[number] for number in numbers), strict=True)))


def _varying(wire: WireTemplate, place: Mapping[str, int]) -> Callable[[Sequence[Sequence[str]], int], list[bytes]]:
    """What makes of columns of text what varies in each request."""
    slots = {at: place[name] for at, name in wire.slots}
    pieces = list(enumerate(wire.pieces))[wire.span]

    def vary(texts: Sequence[Sequence[str]], count: int) -> list[bytes]:
        if len(pieces) == 1:
            return _bodies(texts[slots[pieces[0][0]]])
        parts = (_bodies(texts[slots[at]]) if at in slots else repeat(piece, count) for at, piece in pieces)
        return list(map(b"".join, zip(*parts, strict=True))) if pieces else [b""] * count

    return vary


def _bodies(texts: Sequence[str]) -> list[bytes]:
    # One call for all would be slower: its result would have to be looked through for where the texts end.
    return [encode_json(text)[1:-1] for text in texts]


def _keys(wire: WireTemplate, place: Mapping[str, int]) -> Callable[[Sequence[Sequence[str]], int], Sequence[str]]:
    if len(wire.key) == 1 and isinstance(wire.key[0], Column):
        number = place[wire.key[0].name]
        return lambda texts, count: texts[number]
    pieces = tuple(place[piece.name] if isinstance(piece, Column) else piece for piece in wire.key)

    def joined(texts: Sequence[Sequence[str]], count: int) -> Sequence[str]:
        parts = (repeat(piece, count) if isinstance(piece, str) else texts[piece] for piece in pieces)
        return list(map("".join, zip(*parts, strict=True)))

    return joined


def _needed(wire: WireTemplate, columns: tuple[str, ...]) -> tuple[str, ...]:
    """The columns that are looked at, each once."""
    raw = (name for _, name in wire.raw)
    return tuple(dict.fromkeys((*wire.columns, *raw, *(name for name in columns if name != ALL_COLUMNS))))


def _picks(wire: WireTemplate, columns: tuple[str, ...]) -> tuple[Pick, Pick]:
    """How the values of those columns are taken out of a mapping, and out of a line of JSON."""
    names = _needed(wire, columns)
    if not names:
        return lambda row: (), _object
    of_row: Any = itemgetter(*names)
    fields = tuple(f"c{at}" for at in range(len(names)))
    kind = msgspec.defstruct(
        "Columns",
        [(field, Any) for field in fields],
        rename=dict(zip(fields, names, strict=True)),
        gc=False,
        frozen=True,
    )
    read, of_line = msgspec.json.Decoder(kind).decode, attrgetter(*fields)

    def pick_line(line: Any) -> Any:
        if type(line) is not bytes:
            raise TypeError("no line")
        return of_line(read(line))

    if len(names) > 1:
        return of_row, pick_line
    return lambda row: (of_row(row),), lambda line: (pick_line(line),)


def _object(line: Any) -> tuple[Any, ...]:
    if type(line) is not bytes or type(_decode(line)) is not dict:
        raise TypeError("no line")
    return ()


def _plain(value: Any) -> str:
    text = text_of(value)
    if text is None:
        raise ValueError("no text")
    return text


def _body(wire: WireTemplate, place: Mapping[str, int]) -> Callable[[tuple[Any, ...]], tuple[bytes, bytes]]:
    """What makes a request, and what varies in it, of the values."""
    slots = tuple((at, place[name]) for at, name in wire.slots)
    raw, span = tuple((at, place[name]) for at, name in wire.raw), wire.span
    if len(slots) == 1 and not raw:
        (at, number) = slots[0]
        before, after = b"".join(wire.pieces[:at]), b"".join(wire.pieces[at + 1 :])

        def one(values: tuple[Any, ...]) -> tuple[bytes, bytes]:
            value = values[number]
            said = encode_json(value if type(value) is str else _plain(value))[1:-1]
            return b"%b%b%b" % (before, said, after), said

        return one

    def several(values: tuple[Any, ...]) -> tuple[bytes, bytes]:
        out = list(wire.pieces)
        for at, number in slots:
            value = values[number]
            out[at] = encode_json(value if type(value) is str else _plain(value))[1:-1]
        for at, number in raw:
            out[at] = values[number]
        return b"".join(out), b"".join(out[span])

    return several


def _key(wire: WireTemplate, place: Mapping[str, int]) -> Callable[[tuple[Any, ...]], str]:
    if len(wire.key) == 1 and isinstance(wire.key[0], Column):
        number = place[wire.key[0].name]

        def one(values: tuple[Any, ...]) -> str:
            value = values[number]
            return value if type(value) is str else _plain(value)

        return one
    pieces = tuple(place[piece.name] if isinstance(piece, Column) else piece for piece in wire.key)
    return lambda values: "".join([piece if isinstance(piece, str) else _plain(values[piece]) for piece in pieces])


def _along(
    columns: tuple[str, ...], place: Mapping[str, int]
) -> Callable[[Any, tuple[Any, ...]], bytes | Problems] | None:
    if not columns:
        return None
    none = frozenset[str]()
    if ALL_COLUMNS in columns:
        return lambda data, values: passthrough(data if type(data) is dict else _decode(data), columns, none)
    numbers = tuple((name, place[name]) for name in columns)
    return lambda data, values: passthrough({name: values[number] for name, number in numbers}, columns, none)


def _wordless(values: tuple[Any, ...], spoken: tuple[int, ...]) -> bool:
    return not any(_plain(values[number]).strip() for number in spoken)
