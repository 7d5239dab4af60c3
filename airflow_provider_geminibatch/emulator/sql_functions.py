"""The functions of GoogleSQL that the emulated BigQuery has, over the values that SQLite holds.

A value of type JSON is bytes here and a STRING is text, which is how functions tell them apart.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any


class BadSql(Exception):
    """A statement that is outside of what is understood, or wrong."""


_compact = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def _parse_json(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        return _compact(json.loads(text)).encode()
    except ValueError as error:
        raise BadSql(f"Invalid input to PARSE_JSON: {error}") from None


def _safe_parse_json(text: str | None) -> bytes | None:
    try:
        return _parse_json(text)
    except BadSql:
        return None


def _loaded(value: Any) -> Any:
    """A JSON value, or the text of one. A text that is no JSON is told as BigQuery tells it: null."""
    return json.loads(value)


_STEP = re.compile(r"""\.([A-Za-z_]\w*)|\."([^"]+)"|\[(\d+)\]""")


def _steps(path: str) -> list[str | int]:
    if not path.startswith("$") or _STEP.sub("", path[1:]):
        raise BadSql(f"JSONPath is outside of what this emulator knows: {path}")
    return [int(found[3]) if found[3] else found[1] or found[2] for found in _STEP.finditer(path)]


_GONE = object()


def _at(value: Any, path: str) -> Any:
    for step in _steps(path):
        if isinstance(step, int):
            value = value[step] if isinstance(value, list) and step < len(value) else _GONE
        else:
            value = value.get(step, _GONE) if isinstance(value, dict) else _GONE
    return value


def _json_query(value: Any, path: str = "$") -> bytes | None:
    if value is None:
        return None
    found = _at(_loaded(value), path)
    return None if found is _GONE else _compact(found).encode()


def _json_value(value: Any, path: str = "$") -> str | None:
    found = _GONE if value is None else _at(_loaded(value), path)
    if found is _GONE or found is None or isinstance(found, dict | list):
        return None
    return found if isinstance(found, str) else _compact(found)


def _json_query_array(value: Any, path: str = "$") -> bytes | None:
    found = _GONE if value is None else _at(_loaded(value), path)
    return _compact(found).encode() if isinstance(found, list) else None


_KINDS = {dict: "object", list: "array", str: "string", bool: "boolean", int: "number", float: "number"}


def _json_type(value: bytes | None) -> str | None:
    if value is None:
        return None
    if not isinstance(value, bytes):
        raise BadSql("No matching signature for function JSON_TYPE for argument types: STRING")
    return _KINDS.get(type(_loaded(value)), "null")


def _json_remove(value: bytes | None, *paths: str) -> bytes | None:
    if value is None:
        return None
    whole = _loaded(value)
    for path in paths:
        *way, last = _steps(path)
        within = _at(whole, path[: path.rindex(f".{last}")]) if way else whole
        if isinstance(within, dict):
            within.pop(str(last), None)
    return _compact(whole).encode()


def _to_json(value: Any) -> Any:
    return _loaded(value) if isinstance(value, bytes) else value


def _json_object(*pairs: Any) -> bytes:
    return _compact({name: _to_json(value) for name, value in zip(pairs[::2], pairs[1::2], strict=True)}).encode()


def _element(value: Any, kind: str) -> bytes:
    if kind in ("object", "array"):
        return str(value).encode()
    return _compact({"true": True, "false": False, "null": None}.get(kind, value)).encode()


def _cast_string(value: Any) -> str | None:
    return None if value is None else value.decode() if isinstance(value, bytes) else str(value)


def _cast_int64(value: Any) -> int | None:
    if value is None or isinstance(value, int):
        return value
    try:
        return round(value) if isinstance(value, float) else int(value, 16 if value.lower().startswith("0x") else 10)
    except ValueError:
        raise BadSql(f"Bad int64 value: {value}") from None


def _cast_float64(value: Any) -> float | None:
    return None if value is None else float(value)


def _nulls(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which gives NULL where any argument is NULL."""
    return lambda *given: None if None in given else function(*given)


def _re2(pattern: str) -> str:
    return pattern.replace(r"\z", r"\Z")


CASTS: Mapping[str, Callable[[Any], Any]] = {
    "STRING": _cast_string,
    "INT64": _cast_int64,
    "FLOAT64": _cast_float64,
}

FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "ARRAY_LENGTH": _nulls(lambda value: len(_loaded(value))),
    "BYTE_LENGTH": _nulls(lambda text: len(text.encode() if isinstance(text, str) else text)),
    "CHAR_LENGTH": _nulls(len),
    "CONCAT": _nulls(lambda *texts: "".join(texts)),
    "DIV": _nulls(lambda one, other: int(one / other) if other < 0 else one // other),
    "JSON_ARRAY": lambda *values: _compact([_to_json(value) for value in values]).encode(),
    "JSON_OBJECT": _json_object,
    "JSON_QUERY": _json_query,
    "JSON_QUERY_ARRAY": _json_query_array,
    "JSON_REMOVE": _json_remove,
    "JSON_TYPE": _json_type,
    "JSON_VALUE": _json_value,
    "LPAD": _nulls(lambda text, size, fill=" ": text[:size] if len(text) >= size else text.rjust(size, fill[0])),
    "MD5": _nulls(lambda text: hashlib.md5(text.encode(), usedforsecurity=False).digest()),
    "MOD": _nulls(lambda one, other: one % other),
    "PARSE_JSON": _parse_json,
    "REGEXP_CONTAINS": _nulls(lambda text, pattern: re.search(_re2(pattern), text) is not None),
    "REGEXP_REPLACE": _nulls(lambda text, pattern, by: re.sub(_re2(pattern), by, text)),
    "SAFE_PARSE_JSON": _safe_parse_json,
    "STARTS_WITH": _nulls(lambda text, start: text.startswith(start)),
    "TO_HEX": _nulls(lambda value: value.hex()),
    "TO_JSON_STRING": lambda value: _compact(_to_json(value)),
}
INNER: Mapping[str, Callable[..., Any]] = {
    "ARRAY_TEXT": lambda value: "[]" if value is None else value.decode() if isinstance(value, bytes) else value,
    "ELEMENT": _element,
}


class _CountIf:
    def __init__(self) -> None:
        self.value = 0

    def step(self, holds: Any) -> None:
        self.value += bool(holds)

    def finalize(self) -> int:
        return self.value


class _BitXor(_CountIf):
    def step(self, bits: Any) -> None:
        self.value ^= bits or 0


AGGREGATES: Mapping[str, type[_CountIf]] = {"COUNTIF": _CountIf, "BIT_XOR": _BitXor}

__all__ = ["AGGREGATES", "CASTS", "FUNCTIONS", "INNER", "BadSql"]
