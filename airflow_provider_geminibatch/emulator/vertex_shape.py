"""The import of a job's input: lines are read into one table, whose columns all rows share.

The service puts the input through the schema of a BigQuery table (reported by its errors and by the nulls in what it
echoes). So one line that cannot be read fails the whole job, and every row comes back with the fields of all.
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
# BigQuery's own limit of columns in a table; that it holds for this import is assumed.
_MOST_FIELDS = 10_000
_EMPTY = re.compile(r"\{\s*\}")


class Unimportable(Exception):
    """The input cannot be read: the google.rpc code and the text of the job's error."""

    def __init__(self, message: str, code: int = 3) -> None:
        super().__init__(message, code)
        self.message, self.code = message, code


class Shape:
    """The fields that rows have at one place, together."""

    __slots__ = ("fields",)

    def __init__(self) -> None:
        self.fields: dict[str, Shape] = {}

    def learn(self, value: Any) -> int:
        """Add the fields of a value; how many of them are new."""
        new = 0
        if isinstance(value, dict):
            for name, inner in value.items():
                known = self.fields.get(name)
                if known is None:
                    known, new = self.fields.setdefault(name, Shape()), new + 1
                new += known.learn(inner)
        elif isinstance(value, list):
            for item in value:
                new += self.learn(item)
        return new

    def fill(self, value: Any) -> Any:
        """A value with every field of this place, null where it has none, in alphabetical order."""
        if isinstance(value, dict):
            return {name: inner.fill(value.get(name)) for name, inner in sorted(self.fields.items())}
        if isinstance(value, list):
            return [self.fill(item) for item in value]
        return value


def read_rows(blob: Blob, most: int, choose: Chooser) -> tuple[Rows, Shape]:
    """The rows of an input, at most so many, and their common shape. Raises Unimportable."""
    starts, effects, shape, fields = array("Q"), dict[int, Effects](), Shape(), 0
    for start, text, line in _lines(blob):
        index = len(starts)
        if index == most:
            raise Unimportable(f"The input has more than {most} requests, the most that a batch prediction job takes.")
        if _EMPTY.search(text):
            _refuse_empty(line)
        fields += shape.learn(line)
        if fields > _MOST_FIELDS:
            raise Unimportable(f"Failed to import data. Too many total leaf fields: {fields}, allowed: {_MOST_FIELDS}")
        starts.append(start)
        chosen = choose(index, parts_of(line)[0], text)
        if chosen:
            effects[index] = chosen
    if not starts:
        raise Unimportable("Failed to import data. The input has no requests.")
    if "request" not in shape.fields:
        raise Unimportable("Failed to import data. Query error: Unrecognized name: request")
    if any("opaque_refusal" in chosen for chosen in effects.values()):
        raise Unimportable("INTERNAL", code=13)
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


def _unreadable(start: int, why: str) -> Unimportable:
    return Unimportable(
        "Failed to import data. Error while reading data, error message: JSON parsing error in row starting at "
        f"position {start}: {why}"
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
