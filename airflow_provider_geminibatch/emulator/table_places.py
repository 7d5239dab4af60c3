"""Tables of the emulated BigQuery as the input and the output of a job of Vertex AI."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from airflow_provider_geminibatch.emulator.blobs import Blob
from airflow_provider_geminibatch.emulator.jobs import Effects
from airflow_provider_geminibatch.emulator.table_values import Column
from airflow_provider_geminibatch.emulator.tables import Tables
from airflow_provider_geminibatch.emulator.vertex_shape import Unimportable
from airflow_provider_geminibatch.emulator.wire import Json, Refused

# Columns of these types do not come back (documented), and that a job fails for one is assumed.
_LEFT_BEHIND = frozenset({"RECORD", "STRUCT", "RANGE", "DATETIME", "GEOGRAPHY"})
_OWN = ("response", "status", "processed_time")
_MADE: tuple[Column, ...] = (
    {"name": "status", "type": "STRING"},
    {"name": "processed_time", "type": "TIMESTAMP"},
    {"name": "response", "type": "JSON"},
)
_KINDS: Mapping[type, str] = {bool: "BOOLEAN", int: "INTEGER", float: "FLOAT", dict: "JSON", list: "JSON"}


class RequestTable:
    """Requests in a table: its rows as lines, all columns beside the request."""

    def __init__(self, tables: Tables, uris: Sequence[str]) -> None:
        self._tables, self._uris = tables, uris

    def read(self) -> Blob:
        """Every row. The wording of what is wrong is assumed."""
        uri = self._uris[0]
        try:
            schema, rows = self._tables.schema(uri), self._tables.read_rows(uri)
        except Refused as refusal:
            raise Unimportable(f"Failed to import data. {refusal.message}", code=5) from None
        for column in schema:
            if column["type"] in _LEFT_BEHIND or column.get("mode") == "REPEATED" or column["name"] in _OWN:
                raise Unimportable(f"Failed to import data. Column {column['name']} cannot be copied to the output.")
        lines = Blob()
        for row in rows:
            try:
                line = {**row, "request": json.loads(row.get("request") or "null")}
            except ValueError:
                raise Unimportable("Failed to import data. Query error: a request is not valid JSON") from None
            lines.append(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        return lines


class ResultTable:
    """Results in a new table: the columns of the input, the response, its status and its time."""

    def __init__(self, tables: Tables, uri: str) -> None:
        self._tables, self._uri = tables, uri

    def check(self) -> None:
        """Raise Unimportable for a data set that is not there, and for a table that is."""
        if self._tables.dataset_location(self._uri) is None:
            raise Unimportable(f"Failed to export data. Not found: Dataset of {self._uri}", code=5)
        if self._tables.exists(self._uri):
            raise Unimportable(f"Failed to export data. Already Exists: Table {self._uri}", code=6)

    def blob(self) -> Blob:
        """An empty blob."""
        return Blob()

    def write(self, lines: Blob, folder: str, traits: Effects) -> Json:
        """All rows at once."""
        rows = [json.loads(line) for _, line in lines.lines() if line.strip()]
        self._tables.write_table(self._uri, self._columns(rows), rows)
        dataset, _, table = self._uri.rpartition(".")
        return {"bigqueryOutputDataset": dataset, "bigqueryOutputTable": table}

    def write_early(self, lines: Blob, folder: str) -> Json:
        """Nothing: that a table shows rows before its job has ended is not known."""
        return {}

    def _columns(self, rows: list[Json]) -> list[Column]:
        """The columns of the input if that table's name with `_out` is the output's, else as the values are."""
        source = self._uri.removesuffix("_out")
        known = self._tables.schema(source) if source != self._uri and self._tables.exists(source) else []
        types = {column["name"]: column for column in known}
        names = dict.fromkeys([*types, *(name for row in rows for name in row)])
        made = [types.get(name) or {"name": name, "type": _type(rows, name)} for name in names if name not in _OWN]
        return [*made, *_MADE]


def _type(rows: list[Json], name: str) -> str:
    values: Iterator[Any] = (row[name] for row in rows if row.get(name) is not None)
    return "JSON" if name == "request" else _KINDS.get(type(next(values, "")), "STRING")


__all__ = ["RequestTable", "ResultTable"]
