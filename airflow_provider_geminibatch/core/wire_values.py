"""Values of the kinds of the field table: what proto3 JSON accepts of each, and how it goes on the wire.

A check is given a value, its path and a report; it returns the value as it is sent. Nothing here knows a field by name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

# A path is a linked list, the last name first: cheap to make for every node, spelled out only for a problem.
Path = tuple[Any, str]
Report = Callable[[Path, str, str, str], None]
"""Path, rule, what is wrong, hint."""
Check = Callable[[Any, Path, Report], Any]

ENCODE_HINT: Final = "write the bytes in base64"


def spelled(path: Path) -> str:
    """A path as text: ``request.contents[0].parts``."""
    names = []
    while path is not None:
        path, name = path
        names.append(name)
    return "".join(reversed(names))


def said(value: object) -> str:
    """The type of a value in JSON's words. Never the value."""
    if value is None:
        return "null"
    for kinds, word in (
        (str, "text"),
        (bool, "true/false"),
        (int | float, "a number"),
        (Mapping, "an object"),
        (list | tuple, "a list"),
    ):
        if isinstance(value, kinds):
            return word
    return f"a Python {type(value).__name__}"


def wrong(value: object, wanted: str, hint: str, path: Path, report: Report) -> None:
    """Report a value of another type than the field's."""
    report(path, "wrong-type", f"must be {wanted}, not {said(value)}", hint)


def _text(value: Any, path: Path, report: Report) -> Any:
    if type(value) is str:
        return value
    if isinstance(value, str):  # a subclass, as libraries of data make them
        return str.__str__(value)
    quotes = isinstance(value, int | float) and not isinstance(value, bool)
    wrong(value, "text", "put it in quotes" if quotes else "", path, report)
    return value


_BASE64 = re.compile(r"[A-Za-z0-9+/_-]*={0,2}\Z")


def is_base64(text: str) -> bool:
    """Whether a text is base64 as proto3 JSON reads it: either alphabet, padded to fours or not padded at all."""
    if not _BASE64.match(text):
        return False
    return len(text) % 4 == 0 or (text[-1] != "=" and len(text) % 4 != 1)


def _base64(value: Any, path: Path, report: Report) -> Any:
    if type(value) is not str:
        wrong(value, "text", ENCODE_HINT, path, report)
    elif not is_base64(value):
        report(path, "not-base64", "is not base64", _why_not(value))
    return value


def _why_not(text: str) -> str:
    if text.startswith("data:"):
        return "leave out what stands before the comma of a data: URL"
    if re.search(r"\s", text):
        return "leave out spaces and line breaks"
    if _BASE64.match(text):
        return "its length fits no number of bytes; it may be cut off"
    return ENCODE_HINT


def _bool(value: Any, path: Path, report: Report) -> Any:
    if type(value) is not bool:
        wrong(value, "true or false", "", path, report)
    return value


_INT = re.compile(r"-?\d{1,19}\Z", re.ASCII)


def _int(value: Any, path: Path, report: Report) -> Any:
    if type(value) is int:
        return value
    if type(value) is str and _INT.match(value):
        return int(value)
    if type(value) is float and value.is_integer():
        return int(value)
    if type(value) is float:
        report(path, "not-whole", "must be a whole number", "")
    else:
        wrong(value, "a whole number", "", path, report)
    return value


_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?\Z", re.ASCII)


def _number(value: Any, path: Path, report: Report) -> Any:
    if type(value) is str and _NUMBER.match(value):
        value = float(value)
    if type(value) is int:
        return value
    if type(value) is not float:
        wrong(value, "a number", "", path, report)
    elif not math.isfinite(value):
        report(path, "not-finite", "must be a finite number", "")
    return value


def _value(value: Any, path: Path, report: Report) -> Any:
    """Any JSON at all."""
    return value


def _object(value: Any, path: Path, report: Report) -> Any:
    if not isinstance(value, Mapping):
        wrong(value, "an object", "", path, report)
    return value


SCALARS: Final[dict[str, Check]] = {
    "text": _text,
    "base64": _base64,
    "bool": _bool,
    "int": _int,
    "number": _number,
    "value": _value,
    "object": _object,
}


def list_of(each: Check, hint: str) -> Check:
    """The check of a list whose items ``each`` checks."""

    def check(value: Any, path: Path, report: Report) -> Any:
        if type(value) is not list and type(value) is not tuple:
            wrong(value, "a list", hint, path, report)
            return value
        return [each(item, (path, f"[{at}]"), report) for at, item in enumerate(value)]

    return check


def map_of(each: Check) -> Check:
    """The check of a map with free names whose values ``each`` checks."""

    def check(value: Any, path: Path, report: Report) -> Any:
        if not isinstance(value, Mapping):
            wrong(value, "an object", "", path, report)
            return value
        return {name: each(item, (path, f".{name}"), report) for name, item in value.items()}

    return check
