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
    """Called with every request, it warns once of each path that has had two types. Null has none."""

    def __init__(self, warn: Callable[[tuple[Problem, ...]], object]) -> None:
        self._warn = warn
        self._types: dict[str, str] = {}
        self._told: set[str] = set()

    def __call__(self, request: Mapping[str, Any]) -> None:
        # With a stack of its own: how deeply arguments are nested is the user's affair.
        left: list[tuple[str, Any]] = [("request", request)]
        while left:
            path, value = left.pop()
            if value is None:
                continue
            self._meet(path, _type(value))
            if isinstance(value, Mapping):
                left.extend((f"{path}.{name}", held) for name, held in value.items())
            elif isinstance(value, list | tuple):
                left.extend((f"{path}[]", held) for held in value)

    def _meet(self, path: str, kind: str) -> None:
        if len(self._types) < MOST_PATHS:
            known = self._types.setdefault(path, kind)
        else:
            known = self._types.get(path, kind)
        if known != kind and path not in self._told:
            self._told.add(path)
            what = f"is {known} in one request and {kind} in another, which may fail the import of a Vertex AI batch"
            self._warn((Problem(path, what, _HINT, "mixed-types"),))


def _type(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, Mapping):
        return "an object"
    return "a list" if isinstance(value, list | tuple) else "text"


__all__ = ["MOST_PATHS", "MixedTypes"]
