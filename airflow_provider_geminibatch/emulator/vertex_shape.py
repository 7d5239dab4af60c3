"""The import of a job's input: lines are read into one table, whose columns all rows share.

The service puts the input through the schema of a BigQuery table (seen in its errors and in the nulls of what it echoes).
So one line that cannot be read fails the whole job, and every row comes back with the fields of all.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from airflow_provider_geminibatch.emulator.blobs import Blob
from airflow_provider_geminibatch.emulator.intake import parts_of
from airflow_provider_geminibatch.emulator.jobs import Effects, Rows
from airflow_provider_geminibatch.emulator.scenarios import Params
from airflow_provider_geminibatch.emulator.wire import Json

Chooser = Callable[[int, str, str], dict[str, Params]]
# BigQuery's own limits of a table: of its columns (that it holds here is assumed) and of their nesting (seen in an error).
_MOST_FIELDS, _DEEPEST = 10_000, 15
_EMPTY = re.compile(r"\{\s*\}")
# Seen are refusals of `$defs`, `$schema` and names with spaces; what else is no name of a column is assumed.
_NAME = re.compile(r"[\w-]{1,300}")
_FAILED = "Failed to import data. Please check 'Prepare input' section of the batch predictions documentation. "


class Unimportable(Exception):
    """The input cannot be read: the google.rpc code and the text of the job's error."""

    def __init__(self, message: str, code: int = 3) -> None:
        super().__init__(message, code)
        self.message, self.code = message, code


class Shape:
    """The fields that rows have at one place, together, and what kinds of values were seen there."""

    __slots__ = ("fields", "kinds")

    def __init__(self) -> None:
        self.fields: dict[str, Shape] = {}
        self.kinds: set[str] = set()

    def learn(self, value: Any, level: int = 0) -> int:
        """Add the fields of a value; how many of them are new. Raises Unimportable for what no column can be."""
        new = 0
        if isinstance(value, dict):
            self.kinds.add("struct")
            if level > _DEEPEST:
                raise _refused(
                    f"Schema nested too deeply, at least {level} compared to the maximum allowed level of {_DEEPEST}"
                )
            for name, inner in value.items():
                known = self.fields.get(name)
                if known is None:
                    if not _NAME.fullmatch(name):
                        raise _refused(f'Invalid field name "{name}"')
                    known, new = self.fields.setdefault(name, Shape()), new + 1
                if isinstance(inner, list):
                    known.kinds.add("list")
                    for item in inner:
                        known.kinds.add(
                            "null item" if item is None else "list item" if isinstance(item, list) else "item"
                        )
                        new += 0 if isinstance(item, list) else known.learn(item, level + 1)
                else:
                    known.kinds.add("null" if inner is None else "one")
                    new += known.learn(inner, level + 1)
        elif value is not None:
            self.kinds.add("scalar")
        return new

    def settle(self, path: str = "") -> None:
        """Put the fields into alphabetical order, once all are known. Raises Unimportable where kinds do not go together.

        The first two are seen, of a list beside a single value and of null in a list or beside one; the others assumed.
        """
        self.fields = dict(sorted(self.fields.items()))
        for name, inner in self.fields.items():
            place = f"{path}.{name}" if path else name
            if inner.kinds >= {"list", "one"}:
                raise _refused(f"Repeated field must be imported as a JSON array. Field: {place}.")
            if "null item" in inner.kinds or inner.kinds >= {"list", "null"}:
                raise _refused(f"Only optional fields can be set to NULL. Field: {name}; Value: NULL")
            if "list item" in inner.kinds:
                raise _refused(f"Array specified for non-repeated field: {place}.")
            if inner.kinds >= {"struct", "scalar"}:
                raise _refused(f"This field: {place} is not a record.")
            inner.settle(place)

    def fill(self, value: Any) -> Any:
        """A value with every field of this place: where it has none null, or an empty list (assumed) where others have one."""
        if not isinstance(value, dict):
            return value
        filled: Json = {}
        for name, inner in self.fields.items():
            found = value.get(name)
            if isinstance(found, list):
                filled[name] = [inner.fill(item) for item in found]
            else:
                filled[name] = [] if found is None and "list" in inner.kinds else inner.fill(found)
        return filled


def read_rows(blob: Blob, most: int, choose: Chooser) -> tuple[Rows, Shape]:
    """The rows of an input, at most so many, and their common shape. Raises Unimportable."""
    starts, effects, shape, fields = array("Q"), dict[int, Effects](), Shape(), 0
    for start, text, line in _lines(blob):
        index = len(starts)
        if index == most:
            raise Unimportable(f"The input has more than {most} requests, the most that a batch prediction job takes.")
        fields += shape.learn(line)
        if _EMPTY.search(text):
            _refuse_empty(line)
        if fields > _MOST_FIELDS:
            raise _refused(f"Too many total leaf fields: {fields}, allowed: {_MOST_FIELDS}")
        starts.append(start)
        chosen = choose(index, parts_of(line)[0], text)
        if chosen:
            effects[index] = chosen
    if not starts:
        raise _refused("The input has no requests.")
    if "request" not in shape.fields:
        raise _refused("Query error: Unrecognized name: request")
    if any("opaque_refusal" in chosen for chosen in effects.values()):
        raise Unimportable("INTERNAL", code=13)
    shape.settle()
    return Rows(blob, len(starts), 0, starts, effects), shape


def _lines(blob: Blob) -> Iterator[tuple[int, str, Json]]:
    """Offset, text and object of every line that is not blank. The words about one that is none are BigQuery's."""
    for start, raw in blob.lines():
        text = raw.decode("utf-8", "replace")
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except (ValueError, RecursionError) as broken:
            raise _unreadable(start, str(broken)) from None
        if not isinstance(line, dict):
            raise _unreadable(start, "Start of object expected")
        yield start, text, line


def _refused(why: str) -> Unimportable:
    return Unimportable(_FAILED + why)


def _unreadable(start: int, why: str) -> Unimportable:
    return Unimportable(
        f"{_FAILED}Error while reading data, error message: JSON parsing error in row starting at position {start}: {why}"
    )


def _refuse_empty(line: Json) -> None:
    path = _empty_path(line, "")
    if path:
        raise Unimportable(f"Failed to import data. Query error: Cannot store struct '{path}' with no fields")


def _empty_path(value: Any, path: str) -> str:
    """The path of the first object without fields, as the reported error writes it: lists are passed through."""
    if isinstance(value, Mapping):
        if not value:
            return path
        inner = (_empty_path(item, f"{path}.{name}" if path else name) for name, item in value.items())
        return next(filter(None, inner), "")
    if isinstance(value, list):
        return next(filter(None, (_empty_path(item, path) for item in value)), "")
    return ""


__all__ = ["Shape", "Unimportable", "read_rows"]
