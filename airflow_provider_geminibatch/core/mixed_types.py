"""Whether one path holds values of different types in different requests of a file.

The input of a Vertex AI batch goes through an import that gives every path one column type, so that a path that is a text in one
row and a number in another may fail the whole job. Of a list beside something else that was seen (``table_import``); of other
types it is ``assumed``, so it warns. Only what is free in form can differ: the arguments of functions and what they gave, and
schemas.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from airflow_provider_geminibatch.core.errors import Problem

MOST_PATHS: Final = 10_000
"""Paths that are remembered; names that are keys of their own could be without number."""

_HINT: Final = "write it in one type, as text for instance; whether the import takes both is assumed not to be so"


class MixedTypes:
    """Called with every request, it warns once of each path that has had two types; null is one beside a list only."""

    def __init__(self, warn: Callable[[tuple[Problem, ...]], object]) -> None:
        self._warn = warn
        # A path is known by its names, one in the other: the type, those below it, and whether it was told of.
        self._known: dict[str, Any] = {}
        self._paths = 0

    def __call__(self, request: Mapping[str, Any]) -> None:
        # With a stack of its own: how deeply arguments are nested is the user's affair.
        left: list[tuple[Mapping[str, Any], dict[str, Any], _Path]] = [(request, self._known, None)]
        while left:
            held, known, path = left.pop()
            for name, value in held.items():
                node = self._met(name, value, known, path)
                if node is None or value is None:
                    continue
                if isinstance(value, Mapping):
                    left.append((value, node[1], (path, name)))
                elif isinstance(value, list | tuple):
                    left.extend(({_ITEM: item}, node[1], (path, name)) for item in value)

    def _met(self, name: str, value: Any, known: dict[str, Any], path: _Path) -> list[Any] | None:
        """What is known of a path that holds a value; None where no more paths are remembered."""
        kind = _TYPES.get(type(value)) or _type(value)
        node: list[Any] | None = known.get(name)
        if node is None and self._paths < MOST_PATHS:
            self._paths += 1
            node = known[name] = [kind, {}, False]
        elif node is not None and node[0] != kind and not node[2]:
            # Null goes with everything but a list ("Only optional fields can be set to NULL", captured live 2026-08).
            if _NULL not in (node[0], kind) or _LIST in (node[0], kind):
                node[2] = True
                self._tell((path, name), node[0], kind)
            elif node[0] == _NULL:
                node[0] = kind
        return node

    def _tell(self, path: _Path, known: str, kind: str) -> None:
        what = f"is {known} in one request and {kind} in another, which may fail the import of a Vertex AI batch"
        self._warn((Problem(_spelled(path), what, _HINT, "mixed-types"),))


_ITEM: Final = "[]"
_Path = tuple[Any, str] | None
_NULL: Final = "null"
_LIST: Final = "a list"
_TYPES: Final = {
    str: "text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    dict: "an object",
    list: _LIST,
    type(None): _NULL,
}


def _spelled(path: _Path) -> str:
    steps: list[str] = []
    while path is not None:
        path, name = path
        steps.append(name if name == _ITEM else f".{name}")
    return "request" + "".join(reversed(steps))


def _type(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, Mapping):
        return "an object"
    return _LIST if isinstance(value, list | tuple) else "text"


__all__ = ["MOST_PATHS", "MixedTypes"]
