"""The field table: every field that a request may hold on the wire, by route, as data.

``wire_fields.py`` holds the table itself; it is composed from named, dated sources and a reviewed overlay. Here it is read.
A new field of the service is a new extract, or an entry of ``[geminibatch] allow_fields`` until then.

A kind is one of

    text  base64  bool  int  number    scalars of proto3 JSON (64-bit integers may be text)
    value  object                      any JSON; any JSON object. Nothing inside is looked at
    =Name                              an enum of ENUMS
    Name                               a message of MESSAGES
    [kind]  {kind}                     a list; a map with free names

and ``!`` behind it says that the field must be there and not empty.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final

from airflow_provider_geminibatch.core.kinds import KINDS
from airflow_provider_geminibatch.core.wire_fields import ELSEWHERE, FIELDS, WITNESSED, WITNESSED_WORDS, WORDS

ROUTES: Final = {"developer": "the Developer API", "vertex": "Vertex AI"}
"""The routes that requests are written for, and how they are called in a sentence."""

ROOTS: Final = {name: kind.message for name, kind in KINDS.items()}
"""The message of a request, by kind of batch."""

PAYLOADS: Final = (
    "text", "inlineData", "fileData", "functionCall", "functionResponse", "executableCode", "codeExecutionResult",
    "toolCall", "toolResponse",
)  # fmt: skip
"""The fields of a Part of which exactly one is set."""


def element(kind: str) -> str:
    """The kind inside a list or a map, else the kind itself, without the required mark."""
    return kind.rstrip("!").strip("[]{}")


@cache
def messages(route: str = "developer") -> dict[str, dict[str, str]]:
    """The messages as a route knows them, those that a request can hold."""
    found: dict[str, dict[str, str]] = {}
    queue = list(ROOTS.values())
    while queue:
        name = queue.pop(0)
        if name in FIELDS and name not in found:
            marked = ((field, *_marked(kind)) for field, kind in FIELDS[name])
            found[name] = {field: kind for field, where, kind in marked if where in ("", route)}
            queue += [element(kind) for kind in found[name].values()]
    return found


def _marked(kind: str) -> tuple[str, str]:
    """``vertex: [Tool]`` as route and kind; the route is empty for what both have."""
    where, _, bare = kind.rpartition(": ")
    return where, bare


@cache
def enums(route: str = "developer") -> dict[str, frozenset[str]]:
    """The enums as a route knows them."""
    used = {element(kind)[1:] for fields in messages(route).values() for kind in fields.values() if "=" in kind}
    other = tuple(f"{each}:" for each in ROUTES if each != route)
    return {
        name: frozenset(word.removeprefix(f"{route}:") for word in words.split() if not word.startswith(other))
        for name, words in WORDS.items()
        if name in used
    }


@cache
def elsewhere(route: str = "developer") -> dict[str, frozenset[str]]:
    """Fields that only the other route has: this one refuses them by name."""
    return {name: frozenset(fields.split()) for name, fields in ELSEWHERE[route].items()}


@cache
def witnessed(route: str = "developer") -> dict[str, dict[str, str]]:
    """Fields that the table lacks and another source knows, and which source that is. They go through with a warning."""
    return WITNESSED[route]


@cache
def witnessed_words(route: str = "developer") -> dict[str, frozenset[str]]:
    """Words of enums that the table lacks and google-genai knows."""
    return {name: frozenset(words.split()) for name, words in WITNESSED_WORDS[route].items()}


@cache
def snake(name: str) -> str:
    """The original proto name of a field: ``generationConfig`` is ``generation_config``."""
    return re.sub(r"(?<!^)([A-Z])", lambda match: "_" + match[1].lower(), name)


MESSAGES: Final = messages()
ENUMS: Final = enums()
