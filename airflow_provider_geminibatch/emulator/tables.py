"""A minimal BigQuery: data sets, tables, rows and query jobs over SQLite in memory, and no more than that.

What it is for: requests that a query made, the tables that batches of Vertex AI read and write, and commits in one
transaction. `docs/emulator.md` says what of the real service is left out.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from airflow_provider_geminibatch.emulator.clock import Clock
from airflow_provider_geminibatch.emulator.names import make_token, read_token
from airflow_provider_geminibatch.emulator.sql import BadSql, Statement, connected, names_of, statements
from airflow_provider_geminibatch.emulator.table_values import (
    HELD_AS,
    KINDS,
    Column,
    as_text,
    held,
    nested,
    parameter,
    sent,
)
from airflow_provider_geminibatch.emulator.wire import Call, Json, Refused, Reply, Request

PAGE_ROWS = 10_000

_PATHS = (
    ("datasets.insert", "POST", "datasets"),
    ("datasets.get", "GET", "datasets/(?P<dataset>[^/]+)"),
    ("tables.insert", "POST", "datasets/(?P<dataset>[^/]+)/tables"),
    ("tables.list", "GET", "datasets/(?P<dataset>[^/]+)/tables"),
    ("tables.get", "GET", "datasets/(?P<dataset>[^/]+)/tables/(?P<table>[^/]+)"),
    ("tables.patch", "PATCH", "datasets/(?P<dataset>[^/]+)/tables/(?P<table>[^/]+)"),
    ("tables.delete", "DELETE", "datasets/(?P<dataset>[^/]+)/tables/(?P<table>[^/]+)"),
    ("rows.list", "GET", "datasets/(?P<dataset>[^/]+)/tables/(?P<table>[^/]+)/data"),
    ("rows.insert", "POST", "datasets/(?P<dataset>[^/]+)/tables/(?P<table>[^/]+)/insertAll"),
    ("jobs.insert", "POST", "jobs"),
    ("jobs.get", "GET", "jobs/(?P<job>[^/]+)"),
    ("jobs.results", "GET", "queries/(?P<job>[^/]+)"),
)
BIGQUERY_ENDPOINTS: tuple[tuple[str, str, str], ...] = (
    *(
        (f"bigquery.{name}", method, f"/bigquery/v2/projects/(?P<project>[^/]+)/{path}")
        for name, method, path in _PATHS
    ),
    ("bigquery.jobs.load", "POST", "/upload/bigquery/v2/projects/(?P<project>[^/]+)/jobs"),
)


def _no(code: int, reason: str, message: str) -> Refused:
    status = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 409: "ALREADY_EXISTS"}[code]
    return Refused(code, status, message, [{"reason": reason, "message": message}])


@dataclass
class Table:
    """One table: what it is called, its columns, and its settings as they were given."""

    name: str
    schema: list[Column]
    created: datetime
    settings: Json = field(default_factory=dict)


@dataclass
class _Job:
    reference: Json
    schema: list[Column]
    rows: list[tuple[Any, ...]]
    error: Json | None = None
    dry: bool = False


class Tables:
    """The tables of all projects. Every change of a table is one transaction."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._database, self._refused = connected()
        self._datasets: dict[str, Json] = {}
        self._tables: dict[str, Table] = {}
        self._jobs: dict[str, _Job] = {}

    # -- for the jobs of Vertex AI and for tests ------------------------------------------------------------------------

    def make_dataset(self, name: str, location: str) -> None:
        """A data set as `project.dataset`."""
        self._datasets[name] = {"id": name.replace(".", ":", 1), "location": location}

    def dataset_location(self, uri: str) -> str | None:
        """Where the data set of `bq://project.dataset.table` is; None when there is none."""
        found = self._datasets.get(".".join(uri.removeprefix("bq://").split(".")[:2]))
        return None if found is None else str(found["location"])

    def exists(self, uri: str) -> bool:
        """Whether `bq://project.dataset.table` is there."""
        return uri.removeprefix("bq://") in self._tables

    def schema(self, uri: str) -> list[Column]:
        """The columns of a table, `{"name", "type"}`. Raises the 404 of one that is not there."""
        return [dict(column) for column in self._table(uri.removeprefix("bq://")).schema]

    def read_rows(self, uri: str) -> list[Json]:
        """All rows; JSON values as text. Raises the 404 of a table that is not there."""
        table = self._table(uri.removeprefix("bq://"))
        names = [column["name"] for column in table.schema]
        found = self._database.execute(f'SELECT * FROM "{table.name}"').fetchall()  # noqa: S608 - a name of ours
        return [dict(zip(names, map(as_text, row), strict=True)) for row in found]

    def write_table(self, uri: str, schema: Sequence[Column], rows: Iterable[Mapping[str, Any]]) -> None:
        """Make a table and fill it. Raises the 409 of one that is there, the 404 of a missing data set."""
        name = uri.removeprefix("bq://")
        self._make(name, [dict(column) for column in schema])
        self._fill(name, rows)

    # -- data sets and tables -------------------------------------------------------------------------------------------

    def insert_dataset(self, call: Call) -> Reply:
        given = call.request.json()
        name = f"{call.params['project']}.{given['datasetReference']['datasetId']}"
        if name in self._datasets:
            raise _no(409, "duplicate", f"Already Exists: Dataset {name}")
        self.make_dataset(name, str(given.get("location") or "US"))
        return Reply(body=self._datasets[name])

    def get_dataset(self, call: Call) -> Reply:
        return Reply(body=self._dataset(f"{call.params['project']}.{call.params['dataset']}"))

    def _dataset(self, name: str) -> Json:
        if name not in self._datasets:
            raise _no(404, "notFound", f"Not found: Dataset {name}")
        return self._datasets[name]

    def insert_table(self, call: Call) -> Reply:
        given = call.request.json()
        reference = given["tableReference"]
        name = f"{call.params['project']}.{call.params['dataset']}.{reference['tableId']}"
        self._make(name, list(given.get("schema", {}).get("fields", ())))
        self._tables[name].settings.update(_settings(given))
        return Reply(body=self._shown(name))

    def get_table(self, call: Call) -> Reply:
        return Reply(body=self._shown(_name(call)))

    def list_tables(self, call: Call) -> Reply:
        dataset = f"{call.params['project']}.{call.params['dataset']}"
        self._dataset(dataset)
        names = sorted(name for name in self._tables if name.rpartition(".")[0] == dataset)
        size, token = call.page(50)
        start = read_token(token) if token else 0
        page, rest = names[start : start + size], names[start + size :]
        more = {"nextPageToken": make_token(start + size)} if rest else {}
        return Reply(body={"tables": [self._shown(name) for name in page], "totalItems": len(names), **more})

    def patch_table(self, call: Call) -> Reply:
        table, given = self._table(_name(call)), call.request.json()
        fields = given.get("schema", {}).get("fields", table.schema)
        if fields[: len(table.schema)] != table.schema:
            raise _no(400, "invalid", "Provided Schema does not match Table: columns can only be added")
        for column in fields[len(table.schema) :]:
            self._database.execute(f'ALTER TABLE "{table.name}" ADD COLUMN "{column["name"]}"')
        table.schema = list(fields)
        table.settings.update(_settings(given))
        return Reply(body=self._shown(table.name))

    def delete_table(self, call: Call) -> Reply:
        self._drop(self._table(_name(call)).name)
        return Reply(204)

    def _table(self, name: str) -> Table:
        found = self._tables.get(name)
        if found is None:
            raise _no(404, "notFound", f"Not found: Table {name.replace('.', ':', 1)}")
        return found

    def _shown(self, name: str) -> Json:
        table = self._table(name)
        project, dataset, table_id = name.split(".", 2)
        return {
            "id": name.replace(".", ":", 1),
            "tableReference": {"projectId": project, "datasetId": dataset, "tableId": table_id},
            "schema": {"fields": table.schema},
            "numRows": str(self._count(name)),
            "creationTime": str(int(table.created.timestamp() * 1000)),
            "location": self._datasets[f"{project}.{dataset}"]["location"],
            **table.settings,
        }

    def _count(self, name: str) -> int:
        found: int = self._database.execute(f'SELECT COUNT(*) FROM "{name}"').fetchone()[0]  # noqa: S608
        return found

    def _make(self, name: str, schema: list[Column]) -> None:
        self._dataset(name.rpartition(".")[0])
        if name in self._tables:
            raise _no(409, "duplicate", f"Already Exists: Table {name.replace('.', ':', 1)}")
        if not schema:
            raise _no(400, "invalid", "Schema is missing")
        columns = ", ".join('"' + column["name"].replace('"', '""') + '"' for column in schema)
        self._database.execute(f'CREATE TABLE "{name}" ({columns})')
        self._tables[name] = Table(name, schema, self._clock.now())

    def _drop(self, name: str) -> None:
        self._database.execute(f'DROP TABLE "{name}"')
        del self._tables[name]

    def _fill(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        schema = self._table(name).schema
        marks = ", ".join("?" for _ in schema)
        made = (tuple(held(row.get(column["name"]), column) for column in schema) for row in rows)
        self._database.executemany(f'INSERT INTO "{name}" VALUES ({marks})', made)  # noqa: S608

    # -- rows -----------------------------------------------------------------------------------------------------------

    def insert_rows(self, call: Call) -> Reply:
        given = call.request.json()
        self._fill(_name(call), [row["json"] for row in given.get("rows", ())])
        return Reply(body={"kind": "bigquery#tableDataInsertAllResponse"})

    def list_rows(self, call: Call) -> Reply:
        table = self._table(_name(call))
        wanted = [name for name in call.request.query.get("selectedFields", "").split(",") if name]
        schema = [column for column in table.schema if not wanted or column["name"] in wanted]
        names = ", ".join(f'"{column["name"]}"' for column in schema)
        total = self._count(table.name)

        def part(start: int, size: int) -> list[tuple[Any, ...]]:
            return self._database.execute(
                f'SELECT {names} FROM "{table.name}" ORDER BY rowid LIMIT ? OFFSET ?',  # noqa: S608
                (size, start),
            ).fetchall()

        return Reply(body=_page(call, schema, total, part, "pageToken"))

    # -- jobs -----------------------------------------------------------------------------------------------------------

    def load_job(self, call: Call) -> Reply:
        """A load of JSON lines that come with the call."""
        return self._inserted(call, *related(call.request))

    def insert_job(self, call: Call) -> Reply:
        return self._inserted(call, call.request.json(), b"")

    def _inserted(self, call: Call, given: Json, lines: bytes) -> Reply:
        project = call.params["project"]
        reference = {"projectId": project, **given.get("jobReference", {})}
        config = given.get("configuration", {})
        dry = bool(config.get("dryRun"))
        job_id = str(reference.get("jobId") or f"job_{len(self._jobs)}")
        reference["jobId"] = job_id
        if not dry and (key := f"{project}.{job_id}") in self._jobs:
            raise _no(409, "duplicate", f"Already Exists: Job {project}:{key.rpartition('.')[2]}")
        job = _Job(reference, [], [], dry=dry)
        location = str(reference.get("location") or "US")
        try:
            if "copy" in config:
                self._copied(config["copy"], location)
            elif "query" in config:
                self._queried(job, config["query"], location)
            elif "load" in config:
                self._loaded(config["load"], lines, location)
            else:
                raise _no(400, "invalid", "Required parameter is missing: this emulator runs query, load and copy jobs")
        except Refused as refusal:
            # A statement that is not understood is refused at once; what goes wrong in running it is the job's error.
            if refusal.code == 400 or dry:
                raise
            reason = (refusal.details or [{}])[0].get("reason", "invalid")
            job.error = {"reason": reason, "message": refusal.message}
        if not dry:
            self._jobs[f"{project}.{job_id}"] = job
        return Reply(body=_job(job))

    def get_job(self, call: Call) -> Reply:
        return Reply(body=_job(self._job(call)))

    def results(self, call: Call) -> Reply:
        job = self._job(call)
        if job.error is not None:
            raise _no(400, job.error["reason"], job.error["message"])

        def part(start: int, size: int) -> list[tuple[Any, ...]]:
            return job.rows[start : start + size]

        body = _page(call, job.schema, len(job.rows), part, "pageToken")
        return Reply(body={"jobReference": job.reference, "jobComplete": True, "totalBytesProcessed": "0", **body})

    def _job(self, call: Call) -> _Job:
        found = self._jobs.get(f"{call.params['project']}.{call.params['job']}")
        asked = call.request.query.get("location", "US")
        if found is None or str(found.reference.get("location", "US")).lower() != asked.lower():
            raise _no(404, "notFound", f"Not found: Job {call.params['project']}:{asked}.{call.params['job']}")
        return found

    def _copied(self, config: Json, location: str) -> None:
        source, target = (_of(config[name]) for name in ("sourceTable", "destinationTable"))
        self._in_location((source, target), location)
        self._replaced(target, str(config.get("writeDisposition") or "WRITE_EMPTY"))
        self.write_table(target, self.schema(source), ())
        self._database.execute(f'INSERT INTO "{target}" SELECT * FROM "{source}"')  # noqa: S608

    def _loaded(self, config: Json, lines: bytes, location: str) -> None:
        if config.get("sourceFormat") != "NEWLINE_DELIMITED_JSON":
            raise _no(400, "invalid", "This emulator loads NEWLINE_DELIMITED_JSON only")
        target = _of(config["destinationTable"])
        self._in_location((target,), location)
        self._replaced(target, str(config.get("writeDisposition") or "WRITE_APPEND"))
        try:
            rows = [json.loads(line) for line in lines.splitlines() if line.strip()]
        except ValueError:
            raise _no(400, "invalid", "Error while reading data: a line is not JSON") from None
        schema = list(config.get("schema", {}).get("fields", ()))
        unknown = {name for row in rows for name in row} - {column["name"] for column in schema}
        if unknown:
            raise _no(400, "invalid", f"No such field: {min(unknown)}")
        self.write_table(target, schema, rows)

    def _queried(self, job: _Job, config: Json, location: str) -> None:
        if config.get("useLegacySql", True):
            raise _no(400, "invalid", "This emulator runs GoogleSQL only: set useLegacySql to false")
        try:
            parts = statements(str(config.get("query", "")))
        except BadSql as error:
            raise _no(400, "invalidQuery", str(error)) from None
        if not parts:
            raise _no(400, "invalidQuery", "Syntax error: Unexpected end of statement")
        named = [table for part in parts for table in part.tables]
        self._in_location(named, location)
        for name in named:
            self._table(name)
        given = {one["name"]: parameter(one) for one in config.get("queryParameters", ())}
        if job.dry:
            self._described(job, parts, given)
            return
        target = _of(config["destinationTable"]) if "destinationTable" in config else ""
        if target:
            self._in_location((target,), location)
            self._replaced(target, str(config.get("writeDisposition") or "WRITE_EMPTY"))
        self._run(job, parts, given)
        if target:
            names = [column["name"] for column in job.schema]
            if target not in self._tables:
                self._make(target, job.schema)
            self._fill(target, (dict(zip(names, map(as_text, row), strict=True)) for row in job.rows))
            job.rows = []

    def _described(self, job: _Job, parts: list[Statement], given: Json) -> None:
        """A dry run: the schema of the result, nothing changed."""
        if len(parts) != 1 or parts[0].verb not in ("SELECT", "WITH"):
            self._database.execute("SAVEPOINT dry")
            try:
                self._run(job, [part for part in parts if part.verb not in ("BEGIN", "COMMIT")], given)
            finally:
                self._database.execute("ROLLBACK TO dry")
                self._database.execute("RELEASE dry")
        else:
            self._run(job, parts, given)
        job.rows = []

    def _run(self, job: _Job, parts: list[Statement], given: Json) -> None:
        """The statements of a script, all or none where it says BEGIN and COMMIT; its result is that of the last query."""
        try:
            for part in parts:
                cursor = self._database.execute(part.sql, given)
                if part.verb == "ASSERT" and not cursor.fetchone()[0]:
                    raise BadSql(f"Assertion failed: {part.says}")
                if cursor.description and part.verb in ("SELECT", "WITH"):
                    rows = cursor.fetchall()
                    job.rows, job.schema = rows, self._described_by(names_of(cursor.description), rows, part.tables)
        except (sqlite3.Error, BadSql) as error:
            refused, self._refused[:] = [*self._refused], []
            said = refused[0] if refused else str(error)
            raise _no(400, "invalidQuery", said) from None
        finally:
            if self._database.in_transaction and not job.dry:
                self._database.execute("ROLLBACK")

    def _described_by(self, names: list[str], rows: list[tuple[Any, ...]], tables: Sequence[str]) -> list[Column]:
        """The columns of a result: as in a table that has one of that name and fits, else as the values are."""
        known = {column["name"]: column for table in tables for column in self._tables[table].schema}
        schema = []
        for at, name in enumerate(names):
            kind = next((KINDS[type(row[at])] for row in rows if row[at] is not None), "")
            column = known.get(name)
            if column is not None and (not kind or kind in HELD_AS.get(column["type"], ("STRING",)) or nested(column)):
                schema.append(dict(column))
            else:
                schema.append({"name": name, "type": kind or "STRING"})
        return schema

    def _replaced(self, target: str, disposition: str) -> None:
        if target not in self._tables:
            return
        if disposition == "WRITE_TRUNCATE":
            self._drop(target)
        elif disposition == "WRITE_EMPTY" and self._count(target):
            raise _no(409, "duplicate", f"Already Exists: Table {target.replace('.', ':', 1)}")
        elif disposition == "WRITE_EMPTY":
            self._drop(target)

    def _in_location(self, names: Iterable[str], location: str) -> None:
        """Raises the 404 of a data set that is not there, or elsewhere."""
        for name in names:
            dataset = name.rpartition(".")[0]
            there = self._datasets.get(dataset, {}).get("location")
            if there is None or str(there).lower() != location.lower():
                raise _no(404, "notFound", f"Not found: Dataset {dataset} was not found in location {location}")


def related(request: Request) -> tuple[Json, bytes]:
    """The two parts of a multipart/related body: what is asked, and the content."""
    mark = request.headers.get("content-type", "").partition("boundary=")[2].strip('"')
    pieces = request.body.split(f"--{mark}".encode()) if mark else []
    if len(pieces) != 4:
        raise _no(400, "invalid", "The body is not multipart/related with two parts")
    about, content = (piece.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for piece in pieces[1:3])
    try:
        asked: Json = json.loads(about)
    except ValueError:
        raise _no(400, "parseError", "The first part is not JSON") from None
    return asked, content


def bigquery_handlers(tables: Tables) -> Mapping[str, Callable[[Call], Reply]]:
    """What answers each endpoint."""
    return {
        "bigquery.datasets.insert": tables.insert_dataset,
        "bigquery.datasets.get": tables.get_dataset,
        "bigquery.tables.insert": tables.insert_table,
        "bigquery.tables.list": tables.list_tables,
        "bigquery.tables.get": tables.get_table,
        "bigquery.tables.patch": tables.patch_table,
        "bigquery.tables.delete": tables.delete_table,
        "bigquery.rows.list": tables.list_rows,
        "bigquery.rows.insert": tables.insert_rows,
        "bigquery.jobs.insert": tables.insert_job,
        "bigquery.jobs.load": tables.load_job,
        "bigquery.jobs.get": tables.get_job,
        "bigquery.jobs.results": tables.results,
    }


_SETTINGS = ("expirationTime", "description", "labels", "rangePartitioning")


def _settings(given: Json) -> Json:
    return {name: given[name] for name in _SETTINGS if name in given}


def _name(call: Call) -> str:
    return f"{call.params['project']}.{call.params['dataset']}.{call.params['table']}"


def _of(reference: Json) -> str:
    return f"{reference['projectId']}.{reference['datasetId']}.{reference['tableId']}"


def _page(
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


def _job(job: _Job) -> Json:
    status: Json = {"state": "DONE"}
    if job.error is not None:
        status |= {"errorResult": job.error, "errors": [job.error]}
    query = {"totalBytesProcessed": "0", "totalBytesBilled": "0", "schema": {"fields": job.schema}}
    return {"jobReference": job.reference, "status": status, "statistics": {"totalBytesProcessed": "0", "query": query}}


__all__ = ["BIGQUERY_ENDPOINTS", "Column", "Table", "Tables", "bigquery_handlers"]
