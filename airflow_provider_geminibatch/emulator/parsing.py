"""Strict parsing by the field table: a fast yes, and a slow no that names the place.

`conforms` walks decoded JSON and is all that a good line costs. Only a refusal pays for `explain_line`, which reads the
text again to say the column, or for the walk that says the path in a body.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from airflow_provider_geminibatch.emulator.fields import MESSAGES, SNAKE, snake
from airflow_provider_geminibatch.emulator.wire import Json, Refused, refused

_BASE64 = frozenset(string.ascii_letters + string.digits + "+/-_")
_INT = re.compile(r"-?\d+")
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?|NaN|-?Infinity")


def _is_int(value: Any) -> bool:
    if isinstance(value, str):  # int64 travels as a string in proto3 JSON
        return _INT.fullmatch(value) is not None
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, float) and value.is_integer())


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return _NUMBER.fullmatch(value) is not None
    return not isinstance(value, bool) and isinstance(value, int | float)


def _is_base64(value: Any) -> bool:
    """Either alphabet; padded to groups of four, or not padded."""
    if not isinstance(value, str):
        return False
    bare = value.rstrip("=")
    pads = len(value) - len(bare)
    whole = len(value) % 4 == 0 and pads <= 2 if pads else len(bare) % 4 != 1
    return whole and not set(bare) - _BASE64


# kind: (what is accepted, the first character that it is expected to have)
_SCALARS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "string": (lambda value: isinstance(value, str), '"'),
    "bytes": (_is_base64, '"'),
    "enum": (lambda value: isinstance(value, str | int) and not isinstance(value, bool), '"'),
    "bool": (lambda value: isinstance(value, bool), "t"),
    "int": (_is_int, "0"),
    "number": (_is_number, "0"),
    "struct": (lambda value: isinstance(value, dict), "{"),
    "any": (lambda value: True, ""),
}


def conforms(value: Any, kind: str) -> bool:
    """Whether decoded JSON is of that kind. null is fine everywhere, as in proto3 JSON."""
    if value is None:
        return True
    scalar = _SCALARS.get(kind)
    if scalar is not None:
        return scalar[0](value)
    if kind[0] == "[":
        return isinstance(value, list) and all(conforms(item, kind[1:-1]) for item in value)
    if not isinstance(value, dict):
        return False
    if kind[0] == "{":
        return all(conforms(item, kind[1:-1]) for item in value.values())
    fields = MESSAGES[kind]
    rest = fields.get("*")
    for name, item in value.items():
        known = fields.get(name, rest)
        if known is None or not conforms(item, known):
            return False
    return True


def field(message: Mapping[str, Any], name: str, default: Any = None) -> Any:
    """The field of that camelCase name, however it was spelt; null counts as absent."""
    value = message.get(name)
    if value is None:
        value = message.get(SNAKE[name])
    return default if value is None else value


class _Misfit(Exception):
    """The first thing wrong in a text: its offset, and what it is."""


class _Reader:
    """Reads a text along the field table until something does not fit."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def peek(self) -> str:
        while self.text[self.at : self.at + 1] in (" ", "\t", "\r", "\n"):
            self.at += 1
        return self.text[self.at : self.at + 1]

    def take(self, wanted: str) -> None:
        found = self.peek()
        if found != wanted:
            seen = f"unexpected character: '{found}'; expected '{wanted}'"
            raise _Misfit(self.at, seen if found else "unexpected end")
        self.at += 1

    def free(self) -> Any:
        self.peek()
        try:
            value, self.at = json.JSONDecoder().raw_decode(self.text, self.at)
        except json.JSONDecodeError as broken:
            character = self.text[broken.pos : broken.pos + 1]
            seen = f"unexpected character: '{character}'"
            raise _Misfit(broken.pos, seen if character else "unexpected end") from None
        return value

    def value(self, kind: str) -> None:
        first = self.peek()
        if kind in _SCALARS or (first == "n" and self.text.startswith("null", self.at)):
            self.scalar(kind, first)
        elif kind[0] == "[":
            self.sequence("[", "]", lambda: self.value(kind[1:-1]))
        elif kind[0] == "{":
            self.sequence("{", "}", lambda: self.member(lambda _name, _at: kind[1:-1]))
        else:
            self.sequence("{", "}", lambda: self.member(lambda name, at: self.known(kind, name, at)))

    def scalar(self, kind: str, first: str) -> None:
        start = self.at
        value = self.free()
        if value is not None and not _SCALARS[kind][0](value):
            raise _Misfit(start, f"unexpected character: '{first}'; expected '{_SCALARS[kind][1]}'")

    def sequence(self, opening: str, closing: str, item: Callable[[], None]) -> None:
        self.take(opening)
        if self.peek() != closing:
            item()
            while self.peek() == ",":
                self.at += 1
                item()
        self.take(closing)

    def member(self, kind_of: Callable[[str, int], str]) -> None:
        first, start = self.peek(), self.at
        if first != '"':
            self.take('"')
        kind = kind_of(self.free(), start)
        self.take(":")
        self.value(kind)

    def known(self, message: str, name: str, at: int) -> str:
        fields = MESSAGES[message]
        kind = fields.get(name, fields.get("*"))
        if kind is None:
            raise _Misfit(at, f"no such field: '{name}'")
        return kind


def explain_line(number: int, text: str, kind: str) -> str:
    """Why a line (counted from 1) was refused, in the words users reported.

    The column is that of the character, counted from 1 in the line; that the service counts so is assumed.
    """
    reader = _Reader(text)
    column, reason = len(text) + 1, "unexpected end"
    try:
        reader.value(kind)
        if reader.peek():
            column, reason = reader.at + 1, f"unexpected character: '{reader.peek()}'"
    except _Misfit as misfit:
        column, reason = misfit.args[0] + 1, misfit.args[1]
    except RecursionError:
        column, reason = reader.at + 1, "nested too deeply"
    return f"Error on line {number}: invalid JSON, near column {column}: {reason}"


def check_body(body: Json, kind: str) -> None:
    """Raise the 400 that names every unknown field of a body, or the first value of a wrong type."""
    if conforms(body, kind):
        return
    faults = list(_faults(body, kind, ""))
    unknown = [(path, name) for path, name in faults if name]
    if not unknown:
        raise refused("bad_value", path=faults[0][0] if faults else "")
    raise _unknown_names(unknown)


def _unknown_names(unknown: list[tuple[str, str]]) -> Refused:
    violations = []
    for path, name in unknown:
        where = f" at '{path}'" if path else ""
        text = f'Invalid JSON payload received. Unknown name "{name}"{where}: Cannot find field.'
        violations.append({**({"field": path} if path else {}), "description": text})
    message = "\n".join(violation["description"] for violation in violations)
    details = {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": violations}
    return Refused(400, "INVALID_ARGUMENT", message, [details])


def _faults(value: Any, kind: str, path: str) -> Iterator[tuple[str, str]]:
    """Each fault as (path, unknown name); the name is empty for a wrong type. Paths are snake_case (reported)."""
    if value is None or conforms(value, kind):
        return
    if kind[0] == "[" and isinstance(value, list):
        for index, item in enumerate(value):
            yield from _faults(item, kind[1:-1], f"{path}[{index}]")
    elif kind not in _SCALARS and kind[0] != "[" and isinstance(value, dict):
        fields = dict.fromkeys(value, kind[1:-1]) if kind[0] == "{" else MESSAGES[kind]
        for name, item in value.items():
            known = fields.get(name, fields.get("*"))
            if known is None:
                yield path, name
            else:
                yield from _faults(item, known, f"{path}.{snake(name)}" if path else snake(name))
    else:
        yield path, ""


__all__ = ["check_body", "conforms", "explain_line", "field"]
