"""Where on a raw line of JSON a path leads: the column that an editor can jump to. Looked for on bad lines only.

Columns are characters, counted from 1. A path is that of a ``Problem``: names behind dots, indices in brackets. Names may
hold dots themselves (those of a schema's properties), so the line decides where one ends, and not the path.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from airflow_provider_geminibatch.core.fields import snake

_SPACE = re.compile(r"[ \t\r\n]*")
_INDEX = re.compile(r"\[(\d+)\]")
_AT_BYTE = re.compile(r"\(byte (\d+)\)")
# Exact about JSON, and runs in C; what else it takes (NaN) was refused before anybody asks for a column.
_value_at = json.JSONDecoder().raw_decode


def column(line: bytes, path: str, what: str = "") -> int:
    """The column of the value at ``path``, or of the nearest value around it that the line has.

    ``what`` is what is wrong: a decoder's message names the byte where the line stops being JSON.
    """
    byte = _AT_BYTE.search(what)
    if byte:
        return len(line[: int(byte[1])].decode("utf-8", "replace")) + 1
    text = line.decode("utf-8", "replace")
    try:
        return _walk(text, _after_space(text, 0), path if path[:1] in ("", "[") else f".{path}")[1] + 1
    except (ValueError, IndexError, RecursionError):
        return 1


def _walk(text: str, at: int, path: str) -> tuple[int, int]:
    """How much of ``path`` leads nowhere below the value at ``at``, and where the value that it does lead to begins."""
    here = (len(path), at)
    if text[at] == "{" and path:
        return min((_walk(text, start, rest) for start, rest in _members(text, at, path)), default=here)
    index = _INDEX.match(path)
    if text[at] == "[" and index:
        start = _item(text, at, int(index[1]))
        return here if start is None else _walk(text, start, path[index.end() :])
    return here


def _members(text: str, at: int, path: str) -> Iterator[tuple[int, str]]:
    """The members of an object that the path may mean, each with what is left of the path behind its name.

    Of members of one name the last counts, as it does for everybody who decodes the line.
    """
    exact: dict[str, tuple[int, str]] = {}
    other: dict[str, tuple[int, str]] = {}
    at = _after_space(text, at + 1)
    while text[at] != "}":
        name, at = _value_at(text, at)
        start = _after_space(text, _after_space(text, at) + 1)
        for spelled, found in ((name, exact), (_camel(name), other)):
            rest = path.removeprefix(f".{spelled}")
            if rest != path and rest[:1] in ("", ".", "["):
                found[name] = (start, rest)
        at = _after_space(text, _value_at(text, start)[1])
        at = _after_space(text, at + 1) if text[at] == "," else at
    yield from (exact or other).values()


def _item(text: str, at: int, index: int) -> int | None:
    """Where an item of the list at ``at`` begins."""
    at = _after_space(text, at + 1)
    while text[at] != "]":
        if not index:
            return at
        at = _after_space(text, _value_at(text, at)[1])
        at, index = (_after_space(text, at + 1) if text[at] == "," else at), index - 1
    return None


def _camel(name: str) -> str:
    """The camelCase spelling of a snake_case name, under which the rules speak of a field."""
    camel = re.sub(r"_([a-z0-9])", lambda found: found[1].upper(), name)
    return camel if snake(camel) == name else name


def _after_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


__all__ = ["column"]
