"""Jobs of the emulated BigQuery, queries, loads and copies, and its endpoints. A job is done when its insert returns."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_geminibatch.emulator.sql import BadSql, Statement, names_of, statements
from airflow_provider_geminibatch.emulator.table_values import HELD_AS, KINDS, Column, as_text, nested, parameter
from airflow_provider_geminibatch.emulator.tables import Tables, no, page_of
from airflow_provider_geminibatch.emulator.wire import Call, Json, Refused, Reply, Request

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


@dataclass
class _Job:
    reference: Json
    schema: list[Column]
    rows: list[tuple[Any, ...]]
    error: Json | None = None
    dry: bool = False


class TableJobs:
    """The jobs of all projects over their tables."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._jobs: dict[str, _Job] = {}

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
            raise no(409, "duplicate", f"Already Exists: Job {project}:{key.rpartition('.')[2]}")
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
                raise no(400, "invalid", "Required parameter is missing: this emulator runs query, load and copy jobs")
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
            raise no(400, job.error["reason"], job.error["message"])

        def part(start: int, size: int) -> list[tuple[Any, ...]]:
            return job.rows[start : start + size]

        body = page_of(call, job.schema, len(job.rows), part, "pageToken")
        return Reply(body={"jobReference": job.reference, "jobComplete": True, "totalBytesProcessed": "0", **body})

    def _job(self, call: Call) -> _Job:
        found = self._jobs.get(f"{call.params['project']}.{call.params['job']}")
        asked = call.request.query.get("location", "US")
        if found is None or str(found.reference.get("location", "US")).lower() != asked.lower():
            raise no(404, "notFound", f"Not found: Job {call.params['project']}:{asked}.{call.params['job']}")
        return found

    def _copied(self, config: Json, location: str) -> None:
        source, target = (_of(config[name]) for name in ("sourceTable", "destinationTable"))
        self._in_location((source, target), location)
        self._replaced(target, str(config.get("writeDisposition") or "WRITE_EMPTY"))
        self._tables.write_table(target, self._tables.schema(source), ())
        self._tables.database.execute(f'INSERT INTO "{target}" SELECT * FROM "{source}"')  # noqa: S608

    def _loaded(self, config: Json, lines: bytes, location: str) -> None:
        if config.get("sourceFormat") != "NEWLINE_DELIMITED_JSON":
            raise no(400, "invalid", "This emulator loads NEWLINE_DELIMITED_JSON only")
        target = _of(config["destinationTable"])
        self._in_location((target,), location)
        self._replaced(target, str(config.get("writeDisposition") or "WRITE_APPEND"))
        try:
            rows = [json.loads(line) for line in lines.splitlines() if line.strip()]
        except ValueError:
            raise no(400, "invalid", "Error while reading data: a line is not JSON") from None
        schema = list(config.get("schema", {}).get("fields", ()))
        unknown = {name for row in rows for name in row} - {column["name"] for column in schema}
        if unknown:
            raise no(400, "invalid", f"No such field: {min(unknown)}")
        self._tables.write_table(target, schema, rows)

    def _queried(self, job: _Job, config: Json, location: str) -> None:
        if config.get("useLegacySql", True):
            raise no(400, "invalid", "This emulator runs GoogleSQL only: set useLegacySql to false")
        try:
            parts = statements(str(config.get("query", "")))
        except BadSql as error:
            raise no(400, "invalidQuery", str(error)) from None
        if not parts:
            raise no(400, "invalidQuery", "Syntax error: Unexpected end of statement")
        named = [table for part in parts for table in part.tables]
        self._in_location(named, location)
        for name in named:
            self._tables.find(name)
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
            if target not in self._tables.known:
                self._tables.make(target, job.schema)
            self._tables.fill(target, (dict(zip(names, map(as_text, row), strict=True)) for row in job.rows))
            job.rows = []

    def _described(self, job: _Job, parts: list[Statement], given: Json) -> None:
        """A dry run: the schema of the result, nothing changed."""
        if len(parts) != 1 or parts[0].verb not in ("SELECT", "WITH"):
            self._tables.database.execute("SAVEPOINT dry")
            try:
                self._run(job, [part for part in parts if part.verb not in ("BEGIN", "COMMIT")], given)
            finally:
                self._tables.database.execute("ROLLBACK TO dry")
                self._tables.database.execute("RELEASE dry")
        else:
            self._run(job, parts, given)
        job.rows = []

    def _run(self, job: _Job, parts: list[Statement], given: Json) -> None:
        """The statements of a script, all or none where it says BEGIN and COMMIT; its result is that of the last query."""
        try:
            for part in parts:
                cursor = self._tables.database.execute(part.sql, given)
                if part.verb == "ASSERT" and not cursor.fetchone()[0]:
                    raise BadSql(f"Assertion failed: {part.says}")
                if cursor.description and part.verb in ("SELECT", "WITH"):
                    rows = cursor.fetchall()
                    job.rows, job.schema = rows, self._described_by(names_of(cursor.description), rows, part.tables)
        except (sqlite3.Error, BadSql) as error:
            refused, self._tables.refused[:] = [*self._tables.refused], []
            said = refused[0] if refused else str(error)
            raise no(400, "invalidQuery", said) from None
        finally:
            if self._tables.database.in_transaction and not job.dry:
                self._tables.database.execute("ROLLBACK")

    def _described_by(self, names: list[str], rows: list[tuple[Any, ...]], tables: Sequence[str]) -> list[Column]:
        """The columns of a result: as in a table that has one of that name and fits, else as the values are."""
        known = {column["name"]: column for table in tables for column in self._tables.known[table].schema}
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
        if target not in self._tables.known:
            return
        if disposition == "WRITE_TRUNCATE":
            self._tables.drop(target)
        elif disposition == "WRITE_EMPTY" and self._tables.count(target):
            raise no(409, "duplicate", f"Already Exists: Table {target.replace('.', ':', 1)}")
        elif disposition == "WRITE_EMPTY":
            self._tables.drop(target)

    def _in_location(self, names: Iterable[str], location: str) -> None:
        """Raises the 404 of a data set that is not there, or elsewhere."""
        for name in names:
            dataset = name.rpartition(".")[0]
            there = self._tables.datasets.get(dataset, {}).get("location")
            if there is None or str(there).lower() != location.lower():
                raise no(404, "notFound", f"Not found: Dataset {dataset} was not found in location {location}")


def related(request: Request) -> tuple[Json, bytes]:
    """The two parts of a multipart/related body: what is asked, and the content."""
    mark = request.headers.get("content-type", "").partition("boundary=")[2].strip('"')
    pieces = request.body.split(f"--{mark}".encode()) if mark else []
    if len(pieces) != 4:
        raise no(400, "invalid", "The body is not multipart/related with two parts")
    about, content = (piece.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for piece in pieces[1:3])
    try:
        asked: Json = json.loads(about)
    except ValueError:
        raise no(400, "parseError", "The first part is not JSON") from None
    return asked, content


def bigquery_handlers(tables: Tables) -> Mapping[str, Callable[[Call], Reply]]:
    """What answers each endpoint."""
    jobs = TableJobs(tables)
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
        "bigquery.jobs.insert": jobs.insert_job,
        "bigquery.jobs.load": jobs.load_job,
        "bigquery.jobs.get": jobs.get_job,
        "bigquery.jobs.results": jobs.results,
    }


def _of(reference: Json) -> str:
    return f"{reference['projectId']}.{reference['datasetId']}.{reference['tableId']}"


def _job(job: _Job) -> Json:
    status: Json = {"state": "DONE"}
    if job.error is not None:
        status |= {"errorResult": job.error, "errors": [job.error]}
    query = {"totalBytesProcessed": "0", "totalBytesBilled": "0", "schema": {"fields": job.schema}}
    return {"jobReference": job.reference, "status": status, "statistics": {"totalBytesProcessed": "0", "query": query}}


__all__ = ["BIGQUERY_ENDPOINTS", "TableJobs", "bigquery_handlers", "related"]
