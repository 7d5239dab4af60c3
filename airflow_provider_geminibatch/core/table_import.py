"""What keeps a request from being imported as a row of a table, which is how a Vertex AI batch reads its file.

The import makes one column of every path of the file, with one type, and fails the whole job (code 3, "Failed to import data")
where it cannot. Its sentences were captured live from 2026-08-26 to 09-02, and made 73 of 75 failed jobs of a gateway in a week
(a public research note of its owner): more than 15 levels of objects, names that no column may have, a list where the same path
is none elsewhere, null where it is a list. That other names than these fail too, and lists in lists, is ``assumed``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

DEEPEST: Final = 15
"""Levels of objects, the request itself among them: "at least 16 compared to the maximum allowed level of 15"."""

_REFUSED: Final = re.compile(r"[$\s]")


class ImportFault(NamedTuple):
    """The path below the request, the rule, what is wrong, and what to write instead."""

    field: str
    rule: str
    what: str
    hint: str


_DEEP: Final = (
    "import-depth",
    f"lies deeper than {DEEPEST} levels of objects, and the import of a Vertex AI batch fails on those",
    "flatten it, or send it on the Developer API",
)
_NAME: Final = (
    "import-name",
    "has a name that is no column's, and the import of a Vertex AI batch fails on those",
    "begin with a letter and use letters, digits and _; of a schema, write out what $defs and $ref stand for",
)
_NAME_UNSURE: Final = (
    "import-unsure",
    "has a name that the import of a Vertex AI batch may fail on",
    "letters, digits and _ are safe; that others are not is assumed",
)
_LIST: Final = (
    "import-list",
    "is a list in one place of the request and none in another, and the import of a Vertex AI batch fails on that",
    'write it in one form; of a schema, "nullable": true or anyOf rather than a list of types',
)
_NULL: Final = (
    "import-list",
    "is null where it is a list elsewhere in the request, and the import of a Vertex AI batch fails on that",
    "leave it out",
)
_NULL_ITEM: Final = (
    "import-list",
    "is null in a list, and the import of a Vertex AI batch fails on that",
    'leave it out; of a schema, write "nullable": true instead of null among the words of an enum',
)
_OBJECT: Final = (
    "import-unsure",
    "is an object in one place of the request and none in another, which the import of a Vertex AI batch may fail on",
    "write it in one form; that a column has one type is documented, that the import fails is assumed",
)
_NESTED: Final = (
    "import-unsure",
    "is a list in a list, which the import of a Vertex AI batch may fail on",
    "put an object between; that tables have no such columns is documented, that the import fails is assumed",
)


def import_faults(request: Mapping[str, Any]) -> list[ImportFault]:
    """What is wrong with a request, as it goes on the wire, in the order of its fields."""
    found: list[ImportFault] = []
    _object(request, None, 1, {}, found)
    return found


def empty_objects(value: Any, path: str = "") -> Iterator[str]:
    """The places of objects that hold nothing; each would be a struct without fields."""
    if isinstance(value, Mapping):
        if not value:
            yield path
        for name, held in value.items():
            yield from empty_objects(held, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list | tuple):
        for at, held in enumerate(value):
            yield from empty_objects(held, f"{path}[{at}]")


# A path is the one above it and the last step, and is written out only where something is wrong: most requests are in order.
_Path = tuple[Any, str | int] | None


def _spelled(path: _Path) -> str:
    steps: list[str] = []
    while path is not None:
        path, step = path
        steps.append(f"[{step}]" if isinstance(step, int) else f".{step}")
    return "".join(reversed(steps)).removeprefix(".")


def _object(
    held: Mapping[str, Any], path: _Path, depth: int, columns: dict[str, Any], found: list[ImportFault]
) -> None:
    """One object, and what it holds. ``columns`` are the paths below it that were met: their shape, those below them, and
    of a list the shape of its items."""
    if depth > DEEPEST:
        found.append(ImportFault(_spelled(path), *_DEEP))
        return
    for name, value in held.items():
        # The characters of an identifier, without those beyond ASCII. What a label may be called has a rule of its own.
        if not (name.isidentifier() and name.isascii()) and path != _LABELS:
            found.append(ImportFault(_spelled((path, name)), *_named(name)))
        kind = type(value)
        shape = _SHAPES.get(kind) or _shape(value)
        column = columns.get(name)
        if column is None:
            column = columns[name] = [shape, {}, ""]
        elif column[0] != shape:
            _meet(column, shape, (path, name), found)
        if shape == "list":
            _items(value, (path, name), depth, column, found)
        elif shape == "object":
            _object(value, (path, name), depth + 1, column[1], found)


def _items(held: Iterable[Any], path: _Path, depth: int, column: list[Any], found: list[ImportFault]) -> None:
    """The items of a list, which share a column."""
    for at, item in enumerate(held):
        shape = _SHAPES.get(type(item)) or _shape(item)
        if shape in ("list", "null"):
            found.append(ImportFault(_spelled((path, at)), *(_NESTED if shape == "list" else _NULL_ITEM)))
            continue
        if column[2] not in ("", shape):
            found.append(ImportFault(_spelled((path, at)), *_OBJECT))
        column[2] = shape
        if shape == "object":
            _object(item, (path, at), depth + 1, column[1], found)


_LABELS: Final[_Path] = (None, "labels")


_SHAPES: Final = {
    dict: "object",
    list: "list",
    str: "value",
    int: "value",
    float: "value",
    bool: "value",
    type(None): "null",
}


def _shape(value: Any) -> str:
    """What a value is to a column; of types that libraries derive from the usual ones."""
    if isinstance(value, Mapping):
        return "object"
    return "list" if isinstance(value, list | tuple) else "value"


def _named(name: str) -> tuple[str, str, str]:
    return _NAME if not name or _REFUSED.search(name) else _NAME_UNSURE


def _meet(column: list[Any], shape: str, path: _Path, found: list[ImportFault]) -> None:
    """A path has another shape than before. What was null so far may be anything but a list."""
    known = column[0]
    if "list" in (known, shape):
        found.append(ImportFault(_spelled(path), *(_NULL if "null" in (known, shape) else _LIST)))
    elif known == "null":
        column[0] = shape
    elif shape != "null":
        found.append(ImportFault(_spelled(path), *_OBJECT))


__all__ = ["DEEPEST", "ImportFault", "empty_objects", "import_faults"]
