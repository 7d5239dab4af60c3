"""A minimal BigQuery: data sets, tables, rows and query jobs over SQLite in memory, and no more than that.

What it is for: requests that a query made, the tables that batches of Vertex AI read and write, and commits in one
transaction. `docs/emulator.md` says what of the real service is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from airflow_provider_geminibatch.emulator.clock import Clock
from airflow_provider_geminibatch.emulator.names import make_token, read_token
from airflow_provider_geminibatch.emulator.sql import connected
from airflow_provider_geminibatch.emulator.table_values import (
    Column,
    as_text,
    held,
    sent,
)
from airflow_provider_geminibatch.emulator.wire import Call, Json, Refused, Reply

PAGE_ROWS = 10_000


def no(code: int, reason: str, message: str) -> Refused:
    """A refusal in the form of BigQuery."""
    status = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 409: "ALREADY_EXISTS"}[code]
    return Refused(code, status, message, [{"reason": reason, "message": message}])


@dataclass
class Table:
    """One table: what it is called, its columns, and its settings as they were given."""

    name: str
    schema: list[Column]
    created: datetime
    settings: Json = field(default_factory=dict)


class Tables:
    """The tables of all projects. Every change of a table is one transaction."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.database, self.refused = connected()
        self.datasets: dict[str, Json] = {}
        self.known: dict[str, Table] = {}

    # -- for the jobs of Vertex AI and for tests ------------------------------------------------------------------------

    def make_dataset(self, name: str, location: str) -> None:
        """A data set as `project.dataset`."""
        self.datasets[name] = {"id": name.replace(".", ":", 1), "location": location}

    def dataset_location(self, uri: str) -> str | None:
        """Where the data set of `bq://project.dataset.table` is; None when there is none."""
        found = self.datasets.get(".".join(uri.removeprefix("bq://").split(".")[:2]))
        return None if found is None else str(found["location"])

    def exists(self, uri: str) -> bool:
        """Whether `bq://project.dataset.table` is there."""
        return uri.removeprefix("bq://") in self.known

    def schema(self, uri: str) -> list[Column]:
        """The columns of a table, `{"name", "type"}`. Raises the 404 of one that is not there."""
        return [dict(column) for column in self.find(uri.removeprefix("bq://")).schema]

    def read_rows(self, uri: str) -> list[Json]:
        """All rows; JSON values as text. Raises the 404 of a table that is not there."""
        table = self.find(uri.removeprefix("bq://"))
        names = [column["name"] for column in table.schema]
        found = self.database.execute(f'SELECT * FROM "{table.name}"').fetchall()  # noqa: S608 - a name of ours
        return [dict(zip(names, map(as_text, row), strict=True)) for row in found]

    def write_table(self, uri: str, schema: Sequence[Column], rows: Iterable[Mapping[str, Any]]) -> None:
        """Make a table and fill it. Raises the 409 of one that is there, the 404 of a missing data set."""
        name = uri.removeprefix("bq://")
        self.make(name, [dict(column) for column in schema])
        self.fill(name, rows)

    # -- data sets and tables -------------------------------------------------------------------------------------------

    def insert_dataset(self, call: Call) -> Reply:
        given = call.request.json()
        name = f"{call.params['project']}.{given['datasetReference']['datasetId']}"
        if name in self.datasets:
            raise no(409, "duplicate", f"Already Exists: Dataset {name}")
        self.make_dataset(name, str(given.get("location") or "US"))
        return Reply(body=self.datasets[name])

    def get_dataset(self, call: Call) -> Reply:
        return Reply(body=self._dataset(f"{call.params['project']}.{call.params['dataset']}"))

    def _dataset(self, name: str) -> Json:
        if name not in self.datasets:
            raise no(404, "notFound", f"Not found: Dataset {name}")
        return self.datasets[name]

    def insert_table(self, call: Call) -> Reply:
        given = call.request.json()
        reference = given["tableReference"]
        name = f"{call.params['project']}.{call.params['dataset']}.{reference['tableId']}"
        self.make(name, list(given.get("schema", {}).get("fields", ())))
        self.known[name].settings.update(_settings(given))
        return Reply(body=self._shown(name))

    def get_table(self, call: Call) -> Reply:
        return Reply(body=self._shown(_name(call)))

    def list_tables(self, call: Call) -> Reply:
        dataset = f"{call.params['project']}.{call.params['dataset']}"
        self._dataset(dataset)
        names = sorted(name for name in self.known if name.rpartition(".")[0] == dataset)
        size, token = call.page(50)
        start = read_token(token) if token else 0
        page, rest = names[start : start + size], names[start + size :]
        more = {"nextPageToken": make_token(start + size)} if rest else {}
        return Reply(body={"tables": [self._shown(name) for name in page], "totalItems": len(names), **more})

    def patch_table(self, call: Call) -> Reply:
        table, given = self.find(_name(call)), call.request.json()
        fields = given.get("schema", {}).get("fields", table.schema)
        if fields[: len(table.schema)] != table.schema:
            raise no(400, "invalid", "Provided Schema does not match Table: columns can only be added")
        for column in fields[len(table.schema) :]:
            self.database.execute(f'ALTER TABLE "{table.name}" ADD COLUMN "{column["name"]}"')
        table.schema = list(fields)
        table.settings.update(_settings(given))
        return Reply(body=self._shown(table.name))

    def delete_table(self, call: Call) -> Reply:
        self.drop(self.find(_name(call)).name)
        return Reply(204)

    def find(self, name: str) -> Table:
        """A table as `project.dataset.table`. Raises the 404 of one that is not there."""
        found = self.known.get(name)
        if found is None:
            raise no(404, "notFound", f"Not found: Table {name.replace('.', ':', 1)}")
        return found

    def _shown(self, name: str) -> Json:
        table = self.find(name)
        project, dataset, table_id = name.split(".", 2)
        return {
            "id": name.replace(".", ":", 1),
            "tableReference": {"projectId": project, "datasetId": dataset, "tableId": table_id},
            "schema": {"fields": table.schema},
            "numRows": str(self.count(name)),
            "creationTime": str(int(table.created.timestamp() * 1000)),
            "location": self.datasets[f"{project}.{dataset}"]["location"],
            **table.settings,
        }

    def count(self, name: str) -> int:
        """How many rows a table has."""
        found: int = self.database.execute(f'SELECT COUNT(*) FROM "{name}"').fetchone()[0]  # noqa: S608
        return found

    def make(self, name: str, schema: list[Column]) -> None:
        """An empty table."""
        self._dataset(name.rpartition(".")[0])
        if name in self.known:
            raise no(409, "duplicate", f"Already Exists: Table {name.replace('.', ':', 1)}")
        if not schema:
            raise no(400, "invalid", "Schema is missing")
        columns = ", ".join('"' + column["name"].replace('"', '""') + '"' for column in schema)
        self.database.execute(f'CREATE TABLE "{name}" ({columns})')
        self.known[name] = Table(name, schema, self._clock.now())

    def drop(self, name: str) -> None:
        """Take a table away."""
        self.database.execute(f'DROP TABLE "{name}"')
        del self.known[name]

    def fill(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows."""
        schema = self.find(name).schema
        marks = ", ".join("?" for _ in schema)
        made = (tuple(held(row.get(column["name"]), column) for column in schema) for row in rows)
        self.database.executemany(f'INSERT INTO "{name}" VALUES ({marks})', made)  # noqa: S608

    # -- rows -----------------------------------------------------------------------------------------------------------

    def insert_rows(self, call: Call) -> Reply:
        given = call.request.json()
        self.fill(_name(call), [row["json"] for row in given.get("rows", ())])
        return Reply(body={"kind": "bigquery#tableDataInsertAllResponse"})

    def list_rows(self, call: Call) -> Reply:
        table = self.find(_name(call))
        wanted = [name for name in call.request.query.get("selectedFields", "").split(",") if name]
        schema = [column for column in table.schema if not wanted or column["name"] in wanted]
        names = ", ".join(f'"{column["name"]}"' for column in schema)
        total = self.count(table.name)

        def part(start: int, size: int) -> list[tuple[Any, ...]]:
            return self.database.execute(
                f'SELECT {names} FROM "{table.name}" ORDER BY rowid LIMIT ? OFFSET ?',  # noqa: S608
                (size, start),
            ).fetchall()

        return Reply(body=page_of(call, schema, total, part, "pageToken"))


_SETTINGS = ("expirationTime", "description", "labels", "rangePartitioning")


def _settings(given: Json) -> Json:
    return {name: given[name] for name in _SETTINGS if name in given}


def _name(call: Call) -> str:
    return f"{call.params['project']}.{call.params['dataset']}.{call.params['table']}"


def page_of(
    call: Call, schema: list[Column], total: int, part: Callable[[int, int], list[tuple[Any, ...]]], token_name: str
) -> Json:
    asked = call.request.query.get("maxResults", "")
    size = min(int(asked) if asked.isdigit() else PAGE_ROWS, PAGE_ROWS)
    token = call.request.query.get("pageToken", "")
    start = read_token(token) if token else int(call.request.query.get("startIndex", "0"))
    rows = part(start, size)
    shown = [{"f": [{"v": sent(value, column)} for value, column in zip(row, schema, strict=True)]} for row in rows]
    more = {token_name: make_token(start + size)} if start + size < total else {}
    return {"schema": {"fields": schema}, "totalRows": str(total), "rows": shown, **more}


__all__ = ["Column", "Table", "Tables", "no", "page_of"]
