"""What keeps a request from being imported as a row of a table, which is how a Vertex AI batch reads its file.

The import makes one column of every path of the file, with one type, and fails the whole job (code 3, "Failed to import data")
where it cannot. Its sentences were captured live from 2026-08-26 to 09-02, and made 73 of 75 failed jobs of a gateway in a week
(a public research note of its owner): more than 15 levels of objects, names that no column may have, a list where the same path
is none elsewhere, null where it is a list. That other names than these fail too, and lists in lists, is ``assumed``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

DEEPEST: Final = 15
"""Levels of objects, the request itself among them: "at least 16 compared to the maximum allowed level of 15"."""

_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
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
_NESTED: Final = (
    "import-unsure",
    "is a list in a list, which the import of a Vertex AI batch may fail on",
    "put an object between; that tables have no such columns is documented, that the import fails is assumed",
)


def import_faults(request: Mapping[str, Any]) -> Iterator[ImportFault]:
    """What is wrong with a request, as it goes on the wire, each path once."""
    shapes: dict[str, str] = {}
    yield from _object(request, "", "", 1, shapes)


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


def _object(
    held: Mapping[str, Any], path: str, column: str, depth: int, shapes: dict[str, str]
) -> Iterator[ImportFault]:
    if depth > DEEPEST:
        yield ImportFault(path, *_DEEP)
        return
    for name, value in held.items():
        its, its_column = f"{path}.{name}" if path else str(name), f"{column}.{name}"
        # What a label may be called has a rule of its own.
        if not _PLAIN.match(name) and column != ".labels":
            yield ImportFault(its, *(_NAME if _REFUSED.search(name) or not name else _NAME_UNSURE))
        yield from _value(value, its, its_column, depth, shapes)


def _value(value: Any, path: str, column: str, depth: int, shapes: dict[str, str]) -> Iterator[ImportFault]:
    shape = "list" if isinstance(value, list | tuple) else "null" if value is None else "one"
    known = shapes.setdefault(column, shape)
    if known != shape:
        if "list" in (known, shape):
            yield ImportFault(path, *(_NULL if "null" in (known, shape) else _LIST))
        elif known == "null":
            shapes[column] = shape
    if isinstance(value, Mapping):
        yield from _object(value, path, column, depth + 1, shapes)
    elif shape == "list":
        for at, item in enumerate(value):
            if isinstance(item, list | tuple):
                yield ImportFault(f"{path}[{at}]", *_NESTED)
            elif isinstance(item, Mapping):
                yield from _object(item, f"{path}[{at}]", column, depth + 1, shapes)


__all__ = ["DEEPEST", "ImportFault", "empty_objects", "import_faults"]
