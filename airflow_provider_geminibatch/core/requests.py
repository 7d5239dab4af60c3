"""A request in wire form, checked against the field table: what is wrong with it, where, and what to write instead.

The walk accepts what proto3 JSON accepts (camelCase and snake_case names, null as unset, numbers as text, words of an
enum in any case) and returns the request as we send it: camelCase, the enum's own words, nulls left out. It never stops
at the first mistake. ``fields.py`` says what exists on which route; rules over several fields are in ``request_rules.py``,
what a model can do in ``capabilities.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from airflow_provider_geminibatch.core.capabilities import BUILT_IN, Capabilities, embedding_faults, feature_faults
from airflow_provider_geminibatch.core.errors import Problem, Unusable
from airflow_provider_geminibatch.core.fields import (
    ROOTS,
    ROUTES,
    element,
    elsewhere,
    enums,
    messages,
    snake,
    witnessed,
    witnessed_words,
)
from airflow_provider_geminibatch.core.hints import close_names, missing_field, unknown_field, unknown_word, wrong_kind
from airflow_provider_geminibatch.core.request_rules import rules
from airflow_provider_geminibatch.core.rule_names import WARNINGS
from airflow_provider_geminibatch.core.wire_values import (
    SCALARS,
    Check,
    Path,
    Report,
    list_of,
    map_of,
    spelled,
    wrong,
)

AllowFields = Mapping[str, Iterable[str]]
"""Fields to let through although no table knows them, by message: ``{"GenerationConfig": ["newField"]}``."""


class Checked(NamedTuple):
    """A request as it goes on the wire, what is wrong with it, and what may be."""

    request: dict[str, Any]
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...] = ()


def check_request(
    request: object,
    *,
    kind: str = "generate",
    model: str = "",
    route: str = "developer",
    allow_fields: AllowFields | None = None,
    capabilities: Capabilities = BUILT_IN,
    name: str = "request",
) -> Checked:
    """Check a request of a batch of ``kind`` for ``model`` on ``route``; problems are placed below ``name``.

    With a model, what the request asks of it is held against ``capabilities``. Whether the model runs batches at all is
    asked once for a batch: ``Capabilities.model_faults``.
    """
    return check_message(
        ROOTS[kind], request, name=name, model=model, route=route, allow_fields=allow_fields, capabilities=capabilities
    )


def check_message(
    message: str,
    value: object,
    *,
    name: str,
    model: str = "",
    route: str = "developer",
    allow_fields: AllowFields | None = None,
    capabilities: Capabilities = BUILT_IN,
) -> Checked:
    """Check any message of the field table by its name."""
    problems: list[Problem] = []
    warnings: list[Problem] = []

    def report(path: Path, rule: str, what: str, hint: str) -> None:
        (warnings if rule in WARNINGS else problems).append(Problem(spelled(path), what, hint, rule))

    root: Path = (None, name)
    try:
        wire = _checks(route, allowed_fields(allow_fields, route) if allow_fields else ())[message](value, root, report)
    except RecursionError:
        report(root, "too-deep", "is nested too deeply to be read", "flatten it")
        wire = {}
    if not isinstance(wire, dict):
        return Checked({}, tuple(problems), tuple(warnings))
    if model:
        _ask_of_model(wire, model, capabilities, root, problems, warnings)
    return Checked(wire, tuple(problems), tuple(warnings))


def _ask_of_model(
    wire: dict[str, Any],
    model: str,
    capabilities: Capabilities,
    root: Path,
    problems: list[Problem],
    warnings: list[Problem],
) -> None:
    named = wire.get("model")
    if isinstance(named, str) and named.removeprefix("models/") != model:
        hint = "leave it out: the task's model= decides"
        problems.append(Problem(spelled((root, ".model")), "is not the model of the batch", hint, "other-model"))
    config = wire.get("generationConfig")
    embeds = "content" in wire
    row = capabilities.row(model) if embeds or isinstance(config, dict) else None
    if row is None:
        return
    for fault in embedding_faults(wire, row, model) if embeds else feature_faults(config or {}, row, model):
        found = Problem(spelled((root, f".{fault.field}")), fault.what, fault.hint, fault.rule)
        (warnings if fault.warns else problems).append(found)


_EMPTY = "is an empty object, and the import of a Vertex AI batch fails on those"

# What is found of a message whose field was refused follows from that, and is not said again.
_FOLLOWS = frozenset({"no-payload", "empty-tool"})

Allowed = tuple[tuple[str, frozenset[str]], ...]


def allowed_fields(given: AllowFields, route: str = "developer") -> Allowed:
    """``allow_fields`` as a value that can be compared. Raises Unusable for a message that the table does not have."""
    for name in given:
        if name not in messages(route):
            close = close_names(name, tuple(messages(route)))
            do = (
                f"Did you mean {close[0]}?" if close else "Name a message of the field table, GenerationConfig for one."
            )
            raise Unusable("allow_fields", f"{ROUTES[route]} has no message {name!r}", do)
    return tuple(sorted((name, frozenset(fields)) for name, fields in given.items()))


@lru_cache(maxsize=8)
def _checks(route: str, allowed: Allowed) -> dict[str, Check]:
    """The check of every message of a route. Messages refer to each other, and Schema to itself: so they are made first."""
    made: dict[str, Check] = {}
    fill: list[Callable[[], None]] = []
    own, beside = rules(route), dict(allowed)
    for name in messages(route):
        made[name], later = _message(name, route, own.get(name, ()), beside.get(name, frozenset()), made)
        fill.append(later)
    for later in fill:
        later()
    return made


def _enum(name: str, route: str) -> Check:
    words, unlisted = enums(route)[name], witnessed_words(route).get(name, frozenset())
    by_case = {word.upper(): word for word in words}

    def check(value: Any, path: Path, report: Report) -> Any:
        if type(value) is not str:
            nullable = name == "Type" and type(value) is list
            hint = 'write one type, and "nullable": true for null' if nullable else unknown_word(name, "", route)
            wrong(value, "one of the words of this field", hint, path, report)
        elif value not in words:
            # The docs' own samples write "type": "object", "thinkingLevel": "low" and "media_resolution_high".
            if value.upper() in by_case:
                return by_case[value.upper()]
            if value.upper() in unlisted:
                report(
                    path,
                    "unlisted-word",
                    f"{value!r} is not in the field table",
                    "google-genai knows it, so it is sent",
                )
                return value.upper()
            hint = unknown_word(name, value, route)
            # A word that resembles none of the enum's may be anything, a row's content too, and is not shown.
            what = "unknown value" if hint.startswith("known: ") else f"unknown value {value!r}"
            report(path, "unknown-word", what, hint)
        return value

    return check


def _message(
    name: str, route: str, own_rules: tuple[Any, ...], allowed: frozenset[str], made: dict[str, Check]
) -> tuple[Check, Callable[[], None]]:
    """The check of a message, and what is to be called once every message has one."""
    fields = messages(route)[name]
    known: dict[str, tuple[str, Check]] = {}
    strange, whole = _strange(name, route, allowed), _whole(name, route, own_rules)

    def check(value: Any, path: Path, report: Report) -> Any:
        if not isinstance(value, Mapping):
            wrong(value, "an object", wrong_kind(name), path, report)
            return value
        wire: dict[str, Any] = {}
        refused = False
        for field, item in value.items():
            found = known.get(field)
            if found is None:
                field_name = strange(str(field), (path, f".{field}"), report)
                if not field_name:
                    refused = True
                elif item is not None:
                    wire[field_name] = item
            elif item is not None:
                if found[0] in wire:
                    hint = f"keep {found[0]}"
                    report((path, f".{field}"), "given-twice", "is given twice, in both spellings", hint)
                wire[found[0]] = found[1](item, (path, f".{field}"), report)
        whole(wire, path, report, refused)
        return wire

    def fill() -> None:
        for field, kind in fields.items():
            known[field] = known[snake(field)] = (field, _check_of(kind, route, made))

    return check, fill


def _whole(name: str, route: str, own_rules: tuple[Any, ...]) -> Callable[[dict[str, Any], Path, Report, bool], None]:
    """What is asked of a message once its fields were looked at one by one; ``refused`` tells that one of them was."""
    fields = messages(route)[name]
    required = tuple(field for field, kind in fields.items() if kind.endswith("!"))
    # A Vertex AI batch goes through a schema import that fails on a struct without fields (python-genai#2123, and others).
    no_empty = route == "vertex" and name != "Tool"

    def whole(wire: dict[str, Any], path: Path, report: Report, refused: bool) -> None:
        for field in required:
            held = wire.get(field)
            if held in (None, "", []):
                hint = missing_field(name, field, fields[field])
                what = ("missing", "is missing") if field not in wire else ("empty", "is empty")
                report((path, f".{field}"), *what, hint)
        for rule in own_rules:
            for place, word, what, hint in rule(wire):
                if not (refused and word in _FOLLOWS):
                    report((path, place and f".{place}"), word, what, hint)
        if no_empty and not wire and not refused:
            report(path, "empty-object", _EMPTY, _instead_of_empty(name))

    return whole


def _instead_of_empty(name: str) -> str:
    """What to write instead of an empty message (python-genai#2123 has the work-around)."""
    if name == "GoogleSearch":
        return 'write {"excludeDomains": ["example.invalid"]}'
    return "leave it out; no form of it that is not empty is known"


def _strange(name: str, route: str, allowed: frozenset[str]) -> Callable[[str, Path, Report], str]:
    """What becomes of a field that the table lacks: its name on the wire, or an empty text and a problem."""
    let_through = {spelling: field for field in allowed for spelling in (field, snake(field))}
    unlisted = witnessed(route).get(name, {})
    by_spelling = {spelling: field for field in unlisted for spelling in (field, snake(field))}
    refused = {spelling for field in elsewhere(route).get(name, ()) for spelling in (field, snake(field))}

    def strange(field: str, path: Path, report: Report) -> str:
        if field in let_through:
            return let_through[field]
        if field in by_spelling:
            hint = f"{unlisted[by_spelling[field]]} knows it, so it is sent as it is"
            report(path, "unlisted-field", "is not in the field table", hint)
            return by_spelling[field]
        rule = "other-route" if field in refused else "unknown-field"
        report(path, rule, "unknown field", unknown_field(name, field, route))
        return ""

    return strange


def _check_of(kind: str, route: str, made: dict[str, Check]) -> Check:
    bare = kind.rstrip("!")
    if bare.startswith("["):
        return list_of(_check_of(element(kind), route, made), wrong_kind(bare))
    if bare.startswith("{"):
        each = map_of(_check_of(element(kind), route, made))
        return _not_empty(each) if route == "vertex" else each
    if bare.startswith("="):
        return _enum(bare[1:], route)
    if bare in ("object", "value") and route == "vertex":
        return _filled(SCALARS[bare])
    return SCALARS.get(bare) or made[bare]


def _not_empty(check: Check) -> Check:
    """The same check, and the map may not be empty; what it holds is checked by itself."""

    def checked(value: Any, path: Path, report: Report) -> Any:
        if isinstance(value, Mapping) and not value:
            report(path, "empty-object", _EMPTY, "leave it out, or put a field in")
        return check(value, path, report)

    return checked


def _filled(check: Check) -> Check:
    """The same check of a value of free form, and no object in it may be empty."""

    def filled(value: Any, path: Path, report: Report) -> Any:
        _report_empty(value, path, report)
        return check(value, path, report)

    return filled


def _report_empty(value: Any, path: Path, report: Report) -> None:
    """Name every empty object in a value of free form; each is a struct of its own to the import."""
    if isinstance(value, Mapping):
        if not value:
            report(path, "empty-object", _EMPTY, "leave it out, or put a field in")
        for name, held in value.items():
            _report_empty(held, (path, f".{name}"), report)
    elif isinstance(value, list | tuple):
        for at, held in enumerate(value):
            _report_empty(held, (path, f"[{at}]"), report)


__all__ = ["AllowFields", "Checked", "allowed_fields", "check_message", "check_request"]
