"""A request in wire form, checked against the field table: what is wrong with it, where, and what to write instead.

The walk accepts what proto3 JSON accepts (camelCase and snake_case names, null as unset, numbers as text, words of an
enum in any case) and returns the request as we send it: camelCase, the enum's own words, nulls left out. It never stops
at the first mistake. ``fields.py`` says what exists; the rules over several fields of a message are in ``_RULES`` below.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from airflow_provider_geminibatch.core import limits
from airflow_provider_geminibatch.core.errors import Problem
from airflow_provider_geminibatch.core.fields import ENUMS, MESSAGES, PAYLOADS, ROOTS, snake
from airflow_provider_geminibatch.core.hints import unknown_field, unknown_word, wrong_kind

# A path is a linked list, the last name first: cheap to make for every node, spelled out only for a problem.
Path = tuple[Any, str]
Report = Callable[[Path, str, str], None]
Check = Callable[[Any, Path, Report], Any]


class Checked(NamedTuple):
    """A request as it goes on the wire, or what is wrong with it."""

    request: dict[str, Any]
    problems: tuple[Problem, ...]


def check_request(request: object, *, kind: str = "generate", model: str = "", name: str = "request") -> Checked:
    """Check a request of a batch of ``kind`` for ``model``; problems are placed below ``name``."""
    return check_message(ROOTS[kind], request, name=name, model=model)


def check_message(message: str, value: object, *, name: str, model: str = "") -> Checked:
    """Check any message of the field table by its name."""
    problems: list[Problem] = []

    def report(path: Path, what: str, hint: str) -> None:
        problems.append(Problem(_spelled(path), what, hint))

    root: Path = (None, name)
    try:
        wire = _CHECKS[message](value, root, report)
    except RecursionError:
        report(root, "is nested too deeply to be read", "flatten it")
        wire = {}
    named = wire.get("model") if isinstance(wire, dict) else None
    if model and isinstance(named, str) and named.removeprefix("models/") != model:
        report((root, ".model"), "is not the model of the batch", "leave it out: the task's model= decides")
    return Checked(wire if isinstance(wire, dict) else {}, tuple(problems))


def _spelled(path: Path) -> str:
    names = []
    while path is not None:
        path, name = path
        names.append(name)
    return "".join(reversed(names))


def _said(value: object) -> str:
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


def _wrong(value: object, wanted: str, hint: str, path: Path, report: Report) -> None:
    report(path, f"must be {wanted}, not {_said(value)}", hint)


def _text(value: Any, path: Path, report: Report) -> Any:
    if type(value) is not str:
        _wrong(value, "text", "", path, report)
    return value


_BASE64 = re.compile(r"[A-Za-z0-9+/_-]*={0,2}\Z")


def _base64(value: Any, path: Path, report: Report) -> Any:
    if type(value) is not str:
        _wrong(value, "text", wrong_kind("base64"), path, report)
    elif not _BASE64.match(value):
        report(path, "is not base64", wrong_kind("base64"))
    return value


def _bool(value: Any, path: Path, report: Report) -> Any:
    if type(value) is not bool:
        _wrong(value, "true or false", "", path, report)
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
        report(path, "must be a whole number", "")
    else:
        _wrong(value, "a whole number", "", path, report)
    return value


_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?\Z", re.ASCII)


def _number(value: Any, path: Path, report: Report) -> Any:
    if type(value) is str and _NUMBER.match(value):
        value = float(value)
    if type(value) is int:
        return value
    if type(value) is not float:
        _wrong(value, "a number", "", path, report)
    elif not math.isfinite(value):
        report(path, "must be a finite number", "")
    return value


def _value(value: Any, path: Path, report: Report) -> Any:
    return value


def _object(value: Any, path: Path, report: Report) -> Any:
    if not isinstance(value, Mapping):
        _wrong(value, "an object", "", path, report)
    return value


def _enum(name: str) -> Check:
    words = ENUMS[name]
    by_case = {word.upper(): word for word in words}

    def check(value: Any, path: Path, report: Report) -> Any:
        if type(value) is not str:
            nullable = name == "Type" and type(value) is list
            hint = 'write one type, and "nullable": true for null' if nullable else unknown_word(name, "")
            _wrong(value, "one of the words of this field", hint, path, report)
        elif value not in words:
            # The docs' own samples write "type": "object", "thinkingLevel": "low" and "media_resolution_high".
            if value.upper() in by_case:
                return by_case[value.upper()]
            hint = unknown_word(name, value)
            # A word that resembles none of the enum's may be anything, a row's content too, and is not shown.
            report(path, "unknown value" if hint.startswith("known: ") else f"unknown value {value!r}", hint)
        return value

    return check


def _list(kind: str, each: Check) -> Check:
    hint = wrong_kind(f"[{kind}]")

    def check(value: Any, path: Path, report: Report) -> Any:
        if type(value) is not list and type(value) is not tuple:
            _wrong(value, "a list", hint, path, report)
            return value
        return [each(item, (path, f"[{at}]"), report) for at, item in enumerate(value)]

    return check


def _map(each: Check) -> Check:
    def check(value: Any, path: Path, report: Report) -> Any:
        if not isinstance(value, Mapping):
            _wrong(value, "an object", "", path, report)
            return value
        return {name: each(item, (path, f".{name}"), report) for name, item in value.items()}

    return check


def _message(name: str) -> Check:
    rule = _RULES.get(name)
    required = tuple(field for field, kind in MESSAGES[name].items() if kind.endswith("!"))
    known: dict[str, tuple[str, Check]] = {}

    def check(value: Any, path: Path, report: Report) -> Any:
        if not isinstance(value, Mapping):
            _wrong(value, "an object", wrong_kind(name), path, report)
            return value
        wire: dict[str, Any] = {}
        for field, item in value.items():
            found = known.get(field)
            if found is None:
                report((path, f".{field}"), "unknown field", unknown_field(name, str(field)))
            elif item is not None:
                if found[0] in wire:
                    report((path, f".{field}"), "is given twice, in both spellings", f"keep {found[0]}")
                wire[found[0]] = found[1](item, (path, f".{field}"), report)
        for field in required:
            if wire.get(field) in (None, "", []):
                report(
                    (path, f".{field}"),
                    "is missing" if field not in wire else "is empty",
                    wrong_kind(MESSAGES[name][field]),
                )
        if rule:
            for field, what, hint in rule(wire):
                report((path, field and f".{field}"), what, hint)
        return wire

    def fill() -> None:
        for field, kind in MESSAGES[name].items():
            known[field] = known[snake(field)] = (field, _check_of(kind))

    _LATER.append(fill)
    return check


# Messages refer to each other, and Schema to itself: the tables of fields are filled once every message has its check.
_LATER: list[Callable[[], None]] = []
_SCALARS: dict[str, Check] = {
    "text": _text,
    "base64": _base64,
    "bool": _bool,
    "int": _int,
    "number": _number,
    "value": _value,
    "object": _object,
}


def _check_of(kind: str) -> Check:
    kind = kind.rstrip("!")
    if kind.startswith("["):
        return _list(kind[1:-1], _check_of(kind[1:-1]))
    if kind.startswith("{"):
        return _map(_check_of(kind[1:-1]))
    if kind.startswith("="):
        return _enum(kind[1:])
    return _SCALARS.get(kind) or _CHECKS[kind]


Found = Iterator[tuple[str, str, str]]


def _one_payload(part: dict[str, Any]) -> Found:
    held = [name for name in PAYLOADS if name in part]
    if not held:
        yield "", "holds nothing", f"write one of {', '.join(PAYLOADS)}"
    elif len(held) > 1:
        yield "", f"holds {' and '.join(held)}", "a part holds one of them; make several parts"


def _structured_output(config: dict[str, Any]) -> Found:
    schemas = [name for name in ("responseSchema", "responseJsonSchema", "_responseJsonSchema") if name in config]
    mime = config.get("responseMimeType")
    if len(schemas) > 1:
        yield schemas[1], f"stands beside {schemas[0]}", "keep one of them"
    if schemas and mime is None:
        yield "responseMimeType", f"is missing beside {schemas[0]}", "write application/json"
    elif schemas and mime not in ("application/json", "text/x.enum"):
        yield "responseMimeType", f"does not fit {schemas[0]}", "write application/json"
    stops = config.get("stopSequences")
    if isinstance(stops, list) and len(stops) > limits.STOP_SEQUENCES:
        yield "stopSequences", f"has {len(stops)} entries", f"the service takes {limits.STOP_SEQUENCES}"


_BESIDE_A_CACHE = ("systemInstruction", "tools", "toolConfig")


def _cache_alone(request: dict[str, Any]) -> Found:
    # 400 "CachedContent can not be used with GenerateContent request setting system_instruction, tools or tool_config".
    if "cachedContent" in request:
        for name in _BESIDE_A_CACHE:
            if name in request:
                yield name, "cannot stand beside cachedContent", "put it into the cached content"


def _typed(schema: dict[str, Any]) -> Found:
    if "type" not in schema and "anyOf" not in schema:
        yield "type", "is missing", "write STRING, NUMBER, INTEGER, BOOLEAN, ARRAY or OBJECT"
    elif schema.get("type") == "ARRAY" and "items" not in schema:
        yield "items", "is missing", "an ARRAY says what it holds"


_RULES: dict[str, Callable[[dict[str, Any]], Found]] = {
    "Part": _one_payload,
    "GenerationConfig": _structured_output,
    "GenerateContentRequest": _cache_alone,
    "Schema": _typed,
}

_CHECKS: dict[str, Check] = {name: _message(name) for name in MESSAGES}
for _fill in _LATER:
    _fill()
