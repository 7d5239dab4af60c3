"""Small requests that each hold one field, or one wrong value, and what everybody says to them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

from airflow_provider_geminibatch.core.fields import element, elsewhere, enums, messages, witnessed, witnessed_words
from airflow_provider_geminibatch.core.requests import check_request
from tests.witnesses.compose import SCALARS, Table, inner, join, sources

# Problems of the shape, which a witness can see. The others are rules over several fields, and of what models can do.
SHAPE = frozenset(
    {
        "unknown-field", "other-route", "unlisted-field", "unknown-word", "unlisted-word",
        "wrong-type", "not-whole", "not-finite", "not-base64",
    }
)  # fmt: skip
ROOT = "GenerateContentRequest"
BASE = {"contents": [{"role": "user", "parts": [{"text": "a"}]}]}
GOOD: dict[str, Any] = {
    "text": "a", "base64": "QUJD", "bool": True, "int": 3, "number": 0.5, "value": {"type": "object"}, "object": {"a": 1},
}  # fmt: skip
# Other forms that proto3 JSON has, and what is wrong however one reads it.
VARIANTS: dict[str, dict[str, Any]] = {
    "text": {"number": 5, "object": {}},
    "base64": {"number": 5, "alphabet": "§", "cut": "QUJDR", "padding": "QQ=", "url": "_-8="},
    "bool": {"text": "true", "number": 1},
    "int": {"text": "3", "whole-float": 3.0, "fraction": 3.5, "word": "x", "bool": True},
    "number": {"text": "0.5", "word": "x", "bool": True, "infinite": "1e999"},
    "object": {"text": "a", "list": []},
    "enum": {"word": "NO_SUCH_WORD", "small": "", "number": 1},
    "list": {"object": {}, "text": "a"},
    "map": {"list": [], "text": "a"},
    "message": {"text": "a", "list": []},
}


class Probe(NamedTuple):
    """One request, what it is about, and the kind and variant of the value."""

    message: str
    field: str
    kind: str
    variant: str
    request: dict[str, Any]
    value: Any

    @property
    def name(self) -> str:
        return f"{self.message}.{self.field}"


@cache
def everybody() -> Table:
    """All fields that any source has, under common names."""
    found = sources()
    table = join(found.developer, found.vertex, found.sdk, found.protobuf)
    for route in ("developer", "vertex"):
        for name, fields in messages(route).items():
            have = table.messages.setdefault(name, {})
            have.update({field: kind.rstrip("!") for field, kind in fields.items() if field not in have})
        for name, words in enums(route).items():
            table.enums.setdefault(name, list(words))
    return table


def kind_of(route: str, message: str, field: str) -> str:
    """The kind of a field as the route's table has it, else as any source has it."""
    return (messages(route).get(message, {}).get(field) or everybody().messages[message][field]).rstrip("!")


def sample(route: str, kind: str, depth: int = 0) -> Any:
    """A value of a kind, as small as it may be."""
    bare = kind.rstrip("!")
    if bare.startswith("["):
        return [sample(route, element(bare), depth)]
    if bare.startswith("{"):
        return {"k": sample(route, element(bare), depth)}
    if bare.startswith("="):
        words = enums(route).get(bare[1:]) or everybody().enums[bare[1:]]
        return min(word for word in words if "UNSPECIFIED" not in word)
    if bare in SCALARS:
        return GOOD[bare]
    fields = messages(route).get(bare, {})
    return {field: sample(route, each, depth + 1) for field, each in fields.items() if each.endswith("!")}


@cache
def paths(route: str) -> dict[str, tuple[tuple[str, str], ...]]:
    """How to come from the request to each message: fields and their kinds."""
    found: dict[str, tuple[tuple[str, str], ...]] = {ROOT: ()}
    queue = [ROOT]
    while queue:
        name = queue.pop(0)
        for field, kind in messages(route)[name].items():
            child = element(kind)
            if child in messages(route) and child not in found:
                found[child] = (*found[name], (field, kind.rstrip("!")))
                queue.append(child)
    return found


def placed(route: str, message: str, value: dict[str, Any]) -> dict[str, Any]:
    """A request that holds a message with just these fields, beside what it needs."""
    made: Any = {**sample(route, message), **value}
    if message == "Part" and "text" not in value:
        made = value
    above = paths(route)[message]
    for at in range(len(above) - 1, -1, -1):
        field, kind = above[at]
        owner = ROOT if at == 0 else element(above[at - 1][1])
        wrapped = [made] if kind.startswith("[") else {"k": made} if kind.startswith("{") else made
        beside = {} if owner in (ROOT, "Part") else sample(route, owner)
        made = {**beside, field: wrapped}
    return {**BASE, **made}


def fields_of(route: str, message: str) -> list[str]:
    """Fields of a message that anybody knows."""
    known = everybody().messages.get("Content" if message == "SystemInstruction" else message, {})
    more = [*messages(route)[message], *elsewhere(route).get(message, ()), *witnessed(route).get(message, {})]
    return sorted({*known, *more} & {*known, *messages(route)[message]})


def field_probes(route: str) -> Iterator[Probe]:
    """Every field of every message that a request of the route can hold, with a value in order."""
    for message in paths(route):
        source = "Content" if message == "SystemInstruction" else message
        for field in fields_of(route, message):
            kind = (
                kind_of(route, message, field) if field in messages(route)[message] else kind_of(route, source, field)
            )
            value = sample(route, kind)
            yield Probe(message, field, kind, "", placed(route, message, {field: value}), value)


def value_probes(route: str) -> Iterator[Probe]:
    """Every field of the route's own table, with values that are not in order, or in another form."""
    for message in paths(route):
        for field, marked in messages(route)[message].items():
            kind = marked.rstrip("!")
            shape = "list" if kind[0] == "[" else "map" if kind[0] == "{" else "enum" if kind[0] == "=" else kind
            for variant, value in VARIANTS.get(shape if shape in VARIANTS else "message", {}).items():
                if shape == "value":
                    continue
                if variant == "small":
                    value = sample(route, kind).lower()
                    if value == sample(route, kind):
                        continue  # roles are small as they are
                yield Probe(message, field, kind, variant, placed(route, message, {field: value}), value)


def spelling_probe(route: str) -> Probe:
    """A field by its original proto name."""
    return Probe(
        "GenerationConfig", "topP", "spelling", "snake", placed(route, "GenerationConfig", {"top_p": 0.5}), 0.5
    )


def word_probes(route: str) -> Iterator[Probe]:
    """Every word of every enum that anybody knows."""
    for message in paths(route):
        for field, marked in messages(route)[message].items():
            name = inner(marked)
            if name.startswith("="):
                every = {
                    *enums(route)[name[1:]],
                    *everybody().enums.get(name[1:], ()),
                    *witnessed_words(route).get(name[1:], ()),
                }
                for word in sorted(every):
                    value = [word] if marked.startswith("[") else word
                    yield Probe(message, field, name, word, placed(route, message, {field: value}), value)


def ours(route: str, request: dict[str, Any]) -> str:
    """The validator's verdict on the shape of a request: accept, warn or refuse."""
    checked = check_request(request, route=route)
    if any(problem.rule in SHAPE for problem in checked.problems):
        return "refuse"
    return "warn" if any(warning.rule in SHAPE for warning in checked.warnings) else "accept"
