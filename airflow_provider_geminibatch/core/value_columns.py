"""Typed columns from a response schema: one for each property of the answer, of the same type in every window.

Types come from the schema alone, never from values. A kind is a word, or JSON text of ``{"list": kind}`` and ``{"struct":
{name: kind}}``. What no type of a column can say (a property of any type, an object without properties) is JSON text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

PREFIX = "value_"
ANY = "json"
"""The kind of a column that holds whatever comes."""

_DEEPEST = 12
_PLAIN = {"integer": "int64", "number": "float64", "boolean": "bool"}


class ValueColumn(NamedTuple):
    """A column for a property: its name, its kind, the property."""

    name: str
    kind: str
    property: str


def value_columns(schema: Any) -> tuple[ValueColumn, ...]:
    """The columns of a schema, in plain JSON Schema; none unless it describes one object."""
    described = _resolved(schema, schema)
    properties = described.get("properties") if isinstance(described, Mapping) else None
    if not isinstance(properties, Mapping) or not isinstance(schema, Mapping):
        return ()
    return tuple(
        ValueColumn(f"{PREFIX}{name}", _text_of(_kind(rules, schema, ())), name) for name, rules in properties.items()
    )


def common_columns(batches: Sequence[Sequence[ValueColumn]]) -> tuple[ValueColumn, ...]:
    """The columns of several schemas together; where two disagree about a property, it is JSON text."""
    found: dict[str, ValueColumn] = {}
    for columns in batches:
        for column in columns:
            known = found.setdefault(column.name, column)
            if known.kind != column.kind:
                found[column.name] = column._replace(kind=ANY)
    return tuple(found.values())


def _text_of(kind: Any) -> str:
    if isinstance(kind, str):
        return ANY if kind == "text" else kind
    return msgspec.json.encode(kind).decode()


def _resolved(rules: Any, root: Mapping[str, Any]) -> Any:
    """What a reference, or a choice between one thing and nothing, comes to."""
    for _ in range(_DEEPEST):
        if not isinstance(rules, Mapping):
            return None
        ref, choices = rules.get("$ref"), rules.get("anyOf")
        if isinstance(ref, str):
            rules = _defined(ref, root)
        elif isinstance(choices, list) and "type" not in rules:
            some = [choice for choice in choices if choice != {"type": "null"}]
            if len(some) != 1:
                return None
            rules = some[0]
        else:
            return rules
    return None


def _defined(ref: str, root: Any) -> Any:
    if not ref.startswith("#/"):
        return None
    for step in ref[2:].split("/"):
        root = root.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(root, Mapping) else None
    return root


def _kind(rules: Any, root: Mapping[str, Any], within: tuple[int, ...]) -> Any:
    """The kind of what ``rules`` describe; a schema inside itself has no end, and is text there."""
    rules = _resolved(rules, root)
    if rules is None or len(within) > _DEEPEST or id(rules) in within:
        return "text"
    within = (*within, id(rules))
    of = rules.get("type")
    if isinstance(of, list):
        some = [one for one in of if one != "null"]
        of = some[0] if len(some) == 1 else None
    if of == "string":
        return "timestamp" if rules.get("format") == "date-time" else "string"
    if of == "array" and "items" in rules:
        return {"list": _kind(rules["items"], root, within)}
    if of == "object" and rules.get("properties"):
        properties = rules["properties"]
        return {"struct": {name: _kind(inner, root, within) for name, inner in properties.items()}}
    return _PLAIN.get(of, "text") if isinstance(of, str) else "text"


def reader(kind: str) -> Callable[[Any], Any]:
    """What makes a column's cell of a value; None of what does not fit it, such as a number beyond 64 bits."""
    return _reader(msgspec.json.decode(kind) if kind.startswith("{") else kind)


def _reader(kind: Any) -> Callable[[Any], Any]:
    if isinstance(kind, str):
        return _READERS[kind]
    if "list" in kind:
        item = _reader(kind["list"])
        return lambda value: [item(one) for one in value] if isinstance(value, list) else None
    members = {name: _reader(inner) for name, inner in kind["struct"].items()}
    return lambda value: _members(value, members)


def _members(value: Any, members: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any] | None:
    return {name: read(value.get(name)) for name, read in members.items()} if isinstance(value, dict) else None


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _text(value: Any) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()


def _int64(value: Any) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and -(2**63) <= value < 2**63 else None


def _float64(value: Any) -> float | None:
    if type(value) is float:
        return value
    # Beyond 2**53 a whole number may be another one as a float, as for everybody who reads JSON numbers as such.
    return float(value) if type(value) is int and abs(value) < 2**1023 else None


def _bool(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _timestamp(value: Any) -> datetime | None:
    try:
        moment = msgspec.convert(value, datetime) if isinstance(value, str) else None
        # In UTC it may be of a year that no calendar here has: 9999-12-31T23:59:59-05:00.
        return moment.astimezone(UTC) if moment is not None and moment.tzinfo is not None else None
    except (msgspec.ValidationError, OverflowError):
        return None


_READERS: dict[str, Callable[[Any], Any]] = {
    "string": _string,
    "text": _text,
    ANY: lambda value: value,
    "int64": _int64,
    "float64": _float64,
    "bool": _bool,
    "timestamp": _timestamp,
}


__all__ = ["ANY", "PREFIX", "ValueColumn", "common_columns", "reader", "value_columns"]
