"""The calls to BigQuery that batches of Vertex AI need: tables, and queries that are harmless to repeat. Raw REST.

A query runs as a job under a name of ours, and the service takes a name once: whoever repeats it, after a lost reply or a
crash, gets the job that ran. What a query makes is a table that must not be there (``WRITE_EMPTY``), so it is made once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import chain, repeat
from itertools import count as count_from
from types import MappingProxyType
from typing import Any, BinaryIO, Protocol

import httpx
import msgspec

from airflow_provider_geminibatch.core.bigquery import Column, Dataset, TableName, table_of, wire_columns
from airflow_provider_geminibatch.core.errors import KeyRefused, ServiceBusy, ServiceError, Unusable
from airflow_provider_geminibatch.core.names import digest
from airflow_provider_geminibatch.gemini.gateway import Download, UploadedFile
from airflow_provider_geminibatch.gemini.http import named, reply_of
from airflow_provider_geminibatch.gemini.replies import Reply, busy_error, count, error_text, members

ENDPOINT = "https://bigquery.googleapis.com"
PAGE_ROWS = 5_000
TRIES = 4
"""How often one call is sent again, and one query under another name, when the service had a fault of its own."""

WAIT_MS = 20_000
"""How long the service holds a call that asks for a result which is not there yet."""

_ROLES = (
    "Grant the connection's account roles/bigquery.jobUser on the project and roles/bigquery.dataEditor on the data set "
    "(and roles/bigquery.dataViewer on what the query reads)."
)
# Reasons after which the same query under another name may fare better (BigQuery's own list of errors).
_AGAIN = frozenset(
    {"backendError", "internalError", "jobBackendError", "jobInternalError", "rateLimitExceeded", "jobRateLimitExceeded",
     "timeout"}
)  # fmt: skip

_NONE: Mapping[str, str] = MappingProxyType({})

log = logging.getLogger(__name__)


class Tokens(Protocol):
    """Bearer tokens: one that is good now, and another one after a refusal."""

    def bearer(self) -> str: ...

    def renew(self, refused: str) -> str: ...


class Shown(msgspec.Struct, frozen=True):
    """A table as BigQuery describes it."""

    rows: int
    size_bytes: int
    columns: tuple[Column, ...]
    seen_at: datetime | None = None


class Ran(msgspec.Struct, frozen=True):
    """A query that has run: the job that did it, and what it is billed for."""

    project: str
    job_id: str
    location: str
    billed_bytes: int


class QueryFailed(ServiceError):
    """A query that did not run. What BigQuery says of data is not repeated here: its texts quote values of rows."""

    reason = ""


class Tables:
    """BigQuery behind one bearer token; synchronous, for workers."""

    def __init__(self, endpoint: str, tokens: Tokens, timeout_seconds: float = 60.0) -> None:
        self._base = f"{(endpoint or ENDPOINT).rstrip('/')}/bigquery/v2/projects"
        self._tokens = tokens
        self._http = httpx.Client(timeout=max(timeout_seconds, WAIT_MS / 1000 + 10), follow_redirects=False)

    def close(self) -> None:
        self._http.close()

    # -- tables ---------------------------------------------------------------------------------------------------------

    def location(self, dataset: Dataset) -> str | None:
        """Where a data set is; None when it is not shown."""
        found = self._get(f"{dataset.project}/datasets/{dataset.name}", f"data set {dataset}", absent=(404,))
        return None if found is None else str((found.json() or {}).get("location") or "US")

    def table(self, name: TableName) -> Shown | None:
        """A table, or None when it is not there."""
        reply = self._get(_path(name), f"table {name}", absent=(404,))
        if reply is None:
            return None
        body = reply.json() or {}
        fields = members(body.get("schema")).get("fields")
        columns = wire_columns(fields if isinstance(fields, list) else ())
        return Shown(count(body.get("numRows")), count(body.get("numBytes")), columns, reply.date)

    def delete(self, name: TableName) -> bool:
        """Delete a table; False when it was not there."""
        return self._call("DELETE", _path(name), f"delete of table {name}", absent=(404,)) is not None

    def expire(self, name: TableName, at: datetime) -> None:
        """Let BigQuery delete a table by itself at a time."""
        body = {"expirationTime": str(int(at.timestamp() * 1000))}
        self._call("PATCH", _path(name), f"expiration of table {name}", json=body)

    def make(self, name: TableName, columns: Sequence[Column], description: str = "") -> bool:
        """Make an empty table; False when it is there already."""
        body = {
            "tableReference": _reference(name),
            "schema": {"fields": _fields(columns)},
            **({"description": description} if description else {}),
        }
        path = f"{name.project}/datasets/{name.dataset}/tables"
        return self._call("POST", path, f"table {name}", json=body, absent=(409,)) is not None

    def reshape(self, name: TableName, columns: Sequence[Column]) -> None:
        """Give a table more columns; ``columns`` are all of them, those that are there first."""
        body = {"schema": {"fields": _fields(columns)}}
        self._call("PATCH", _path(name), f"columns of table {name}", json=body)

    def load(
        self,
        project: str,
        location: str,
        into: TableName,
        columns: Sequence[Column],
        source: BinaryIO,
        size_bytes: int,
        *,
        once: str,
        what: str,
        pause: Callable[[float], object],
    ) -> None:
        """Make a table of JSON lines, whole or not at all; free of charge. With the same ``once`` it is made once.

        ``pause`` waits so many seconds between two looks. Raises QueryFailed, ServiceBusy, KeyRefused.
        """
        job_id = f"geminibatch_{digest(once, 'load')[:40]}"
        config = {
            "destinationTable": _reference(into),
            "schema": {"fields": _fields(columns)},
            "sourceFormat": "NEWLINE_DELIMITED_JSON",
            "writeDisposition": "WRITE_EMPTY",
        }
        about = {
            "jobReference": {"projectId": project, "jobId": job_id, "location": location},
            "configuration": {"load": config, "labels": {"made_by": "geminibatch"}},
        }
        parts = _Related(msgspec.json.encode(about), source, size_bytes)
        reply = self._send(
            "POST", f"{project}/jobs", what, base=self._base.replace("/bigquery/v2/", "/upload/bigquery/v2/", 1),
            params={"uploadType": "multipart"}, content=parts, headers=parts.headers,
        )  # fmt: skip
        if reply.status == 400:
            raise _failed(what, members((reply.json() or {}).get("error")), job_id)
        if reply.status != 409:
            _checked(reply, what)
        status: Mapping[str, Any] = {}
        for seconds in chain((0.5, 1.0, 2.0), repeat(5.0)):
            job = self._need(f"{project}/jobs/{job_id}", what, {"location": location}).json() or {}
            status = members(job.get("status"))
            if status.get("state") == "DONE":
                break
            pause(seconds)
        if problem := members(status.get("errorResult")):
            raise _failed(what, problem, job_id)

    # -- queries --------------------------------------------------------------------------------------------------------

    def columns_of(self, project: str, location: str, query: str, what: str) -> tuple[Column, ...]:
        """The columns that a query would give, without running it; how much it would read is told. Raises Unusable."""
        config = {"dryRun": True, "query": {"query": query, "useLegacySql": False}}
        body = {"jobReference": {"projectId": project, "location": location}, "configuration": config}
        reply = self._send("POST", f"{project}/jobs", what, json=body)
        if reply.status == 400:  # nothing ran, so nothing of a row is in the text
            raise Unusable(what, f"BigQuery says: {error_text(reply)}", "Correct the query.")
        statistics = members((_checked(reply, what).json() or {}).get("statistics"))
        told = members(statistics.get("query"))
        log.info("%s reads %s bytes", what, f"{count(statistics.get('totalBytesProcessed')):,}")
        fields = members(told.get("schema")).get("fields")
        return wire_columns(fields if isinstance(fields, list) else ())

    def run(
        self,
        project: str,
        location: str,
        query: str,
        *,
        once: str,
        what: str,
        into: TableName | None = None,
        shards: int = 0,
        values: Mapping[str, str | int | None] | None = None,
    ) -> Ran:
        """Run a query or a script to its end. ``once`` names it: with the same ``once`` it runs once, however often it is asked.

        ``into`` is the table that it makes, which must not be there; ``shards`` > 0 parts that by ``gb_shard``. What is billed
        is told. Raises QueryFailed, ServiceBusy, KeyRefused.
        """
        asked: dict[str, Any] = {"query": query, "useLegacySql": False}
        if into is not None:
            asked |= {"destinationTable": _reference(into), "writeDisposition": "WRITE_EMPTY"}
        if shards:
            span = {"start": "0", "end": str(shards), "interval": "1"}
            asked["rangePartitioning"] = {"field": "gb_shard", "range": span}
        if values:
            asked |= {"parameterMode": "NAMED", "queryParameters": [_parameter(*pair) for pair in values.items()]}
        fresh = 0
        for number in count_from(0):
            job_id = f"geminibatch_{digest(once, str(number))[:40]}"
            sent = self._sent(project, location, job_id, asked, what)
            fresh += sent
            try:
                ran = self._ran(project, location, job_id, what)
            except QueryFailed as error:
                if not sent:
                    continue  # it failed in an earlier try, and what it failed for may have been mended since
                if error.reason in _AGAIN and fresh < TRIES:
                    log.warning("%s The same query is sent under another name.", error)
                    continue
                if error.reason == "duplicate" and into is not None and self.table(into) is not None:
                    return Ran(project, job_id, location, 0)  # made before, by a job that has been forgotten since
                raise
            if into is None or self.table(into) is not None:
                return ran
            if sent:
                raise ServiceBusy(what, None, f"{into} was made, and is not there")
            # It was made and deleted since: this is another life of the same batch.
        raise AssertionError("count does not end")

    def rows(self, ran: Ran) -> Iterator[tuple[str | None, ...]]:
        """The rows of a query that has run, as texts, page by page."""
        _, pages = self.result(ran)
        return pages

    def result(self, ran: Ran) -> tuple[tuple[Column, ...], Iterator[tuple[str | None, ...]]]:
        """The columns and the rows of a query that has run."""
        what, path = f"result of {ran.job_id}", f"{ran.project}/queries/{ran.job_id}"
        query = {"location": ran.location, "maxResults": str(PAGE_ROWS)}
        first = self._page(path, query, what)
        return _schema(first), self._pages(first, path, query, what)

    def table_rows(self, name: TableName, columns: Sequence[str] = ()) -> Iterator[dict[str, str | None]]:
        """The rows of a table, page by page, in the order that BigQuery has them, which is the same while nobody changes it."""
        shown = self.table(name)
        if shown is None:
            raise ServiceError(f"rows of {name}", 404, "the table is not there")
        kept = [column.name for column in shown.columns if not columns or column.name in columns]
        query = {"maxResults": str(PAGE_ROWS)} | ({"selectedFields": ",".join(kept)} if columns else {})
        path, what = f"{_path(name)}/data", f"rows of {name}"
        for row in self._pages(self._page(path, query, what), path, query, what):
            yield dict(zip(kept, row, strict=True))

    def _sent(self, project: str, location: str, job_id: str, asked: Mapping[str, Any], what: str) -> bool:
        """Begin a job; False when one of that name was begun before."""
        body = {
            "jobReference": {"projectId": project, "jobId": job_id, "location": location},
            "configuration": {"query": asked, "labels": {"made_by": "geminibatch"}},
        }
        reply = self._send("POST", f"{project}/jobs", what, json=body)
        if reply.status == 400:
            raise _failed(what, members((reply.json() or {}).get("error")), job_id)
        if reply.status == 409:
            return False
        _checked(reply, what)
        return True

    def _ran(self, project: str, location: str, job_id: str, what: str) -> Ran:
        """What came of a job, once it is done."""
        job = self._waited(project, location, job_id, what)
        status = members(job.get("status"))
        if problem := members(status.get("errorResult")):
            raise _failed(what, problem, job_id)
        statistics = members(job.get("statistics"))
        told = members(statistics.get("query"))
        billed = count(told.get("totalBytesBilled") or statistics.get("totalBytesProcessed"))
        log.info("%s: BigQuery job %s, %s bytes billed", what, job_id, f"{billed:,}")
        return Ran(project, job_id, location, billed)

    def _waited(self, project: str, location: str, job_id: str, what: str) -> Mapping[str, Any]:
        """The job once it is done. The service holds the call that asks for its result; nobody sleeps here."""
        while True:
            job = (self._need(f"{project}/jobs/{job_id}", what, {"location": location})).json() or {}
            if members(job.get("status")).get("state") == "DONE":
                return job
            query = {"location": location, "maxResults": "0", "timeoutMs": str(WAIT_MS)}
            held = self._send("GET", f"{project}/queries/{job_id}", what, params=query)
            if busy := busy_error(what, held):
                raise busy

    def _pages(
        self, page: Mapping[str, Any], path: str, query: Mapping[str, str], what: str
    ) -> Iterator[tuple[str | None, ...]]:
        while True:
            rows = page.get("rows")
            for row in rows if isinstance(rows, list) else ():
                yield tuple(_cell(members(cell).get("v")) for cell in members(row).get("f") or ())
            token = page.get("pageToken")
            if not token:
                return
            page = self._page(path, {**query, "pageToken": str(token)}, what)

    def _page(self, path: str, query: Mapping[str, str], what: str) -> Mapping[str, Any]:
        page = self._need(path, what, query).json()
        if page is None:
            raise ServiceBusy(what, 200, "a reply that is not a page")
        return page

    # -- as the gateway's files ------------------------------------------------------------------------------------------

    def file(self, name: str) -> UploadedFile | None:
        """A table as the input of a job."""
        shown = self.table(table_of(name))
        if shown is None:
            return None
        return UploadedFile(name=name, size_bytes=shown.size_bytes, seen_at=shown.seen_at, uri=name, state="ACTIVE")

    def delete_file(self, name: str) -> bool:
        return self.delete(table_of(name))

    @contextmanager
    def download(self, name: str, offset: int = 0) -> Iterator[Download]:
        """An output table as the lines that a result file has, always from the beginning."""
        yield _Lines(self, table_of(name))

    # -- HTTP -----------------------------------------------------------------------------------------------------------

    def _get(self, path: str, doing: str, *, absent: tuple[int, ...] = ()) -> Reply | None:
        return self._call("GET", path, doing, absent=absent)

    def _need(self, path: str, doing: str, params: Mapping[str, str]) -> Reply:
        return _checked(self._send("GET", path, doing, params=dict(params)), doing)

    def _call(
        self, method: str, path: str, doing: str, *, absent: tuple[int, ...] = (), json: Any = None
    ) -> Reply | None:
        reply = self._send(method, path, doing, json=json)
        return None if reply.status in absent else _checked(reply, doing)

    def _send(
        self, method: str, path: str, doing: str, *, base: str = "", headers: Mapping[str, str] = _NONE, **more: Any
    ) -> Reply:
        """One call, sent again when it got no answer: all calls here are harmless to repeat. A refused token is renewed once."""
        bearer, renewed, failed = self._tokens.bearer(), False, 0
        while True:
            given = {**headers, "Authorization": f"Bearer {bearer}"}
            try:
                reply = reply_of(self._http.request(method, f"{base or self._base}/{path}", headers=given, **more))
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                failed += 1
                if failed == TRIES:
                    raise ServiceBusy(doing, None, named(error)) from error
                continue
            if reply.status != 401 or renewed:
                return reply
            bearer, renewed = self._tokens.renew(bearer), True


class _Related:
    """A multipart body of what a load is to be and its lines, which starts over whenever it is sent."""

    def __init__(self, about: bytes, source: BinaryIO, size_bytes: int) -> None:
        mark = f"geminibatch-{digest(about.decode())[:24]}"
        kinds = ("application/json; charset=UTF-8", "application/octet-stream")
        first, second = (f"--{mark}\r\nContent-Type: {kind}\r\n\r\n".encode() for kind in kinds)
        self._head, self._tail = first + about + b"\r\n" + second, f"\r\n--{mark}--\r\n".encode()
        self._source = source
        self.headers = {
            "Content-Type": f"multipart/related; boundary={mark}",
            "Content-Length": str(len(self._head) + size_bytes + len(self._tail)),
        }

    def __iter__(self) -> Iterator[bytes]:
        yield self._head
        self._source.seek(0)
        while block := self._source.read(1 << 20):
            yield block
        yield self._tail


class _Lines:
    """``Download`` over the rows of an output table."""

    def __init__(self, tables: Tables, name: TableName) -> None:
        self._tables, self._name = tables, name
        self.offset, self.size_bytes = 0, None

    def chunks(self) -> Iterator[bytes]:
        block: list[bytes] = []
        for row in self._tables.table_rows(self._name, ("wire_key", "status", "response", "processed_time")):
            block.append(_line(row))
            if len(block) == 500:
                yield b"".join(block)
                block = []
        yield b"".join(block)


def _line(row: Mapping[str, str | None]) -> bytes:
    """A row of an output table as a line of a result file. A response that is no JSON is left for the reader to refuse."""
    line: dict[str, Any] = {"key": row.get("wire_key"), "status": row.get("status") or ""}
    if response := row.get("response"):
        try:
            # The text of a column may be laid out over several lines, and a line has none.
            msgspec.json.decode(response)
            line["response"] = msgspec.Raw(msgspec.json.format(response.encode(), indent=-1))
        except msgspec.MsgspecError:
            line["response"] = response
    if time := row.get("processed_time"):
        line["processed_time"] = time
    return msgspec.json.encode(line) + b"\n"


def _cell(value: Any) -> str | None:
    """A cell as text; what is nested, as JSON."""
    return value if value is None or isinstance(value, str) else msgspec.json.encode(value).decode()


def _schema(page: Mapping[str, Any]) -> tuple[Column, ...]:
    fields = members(page.get("schema")).get("fields")
    return wire_columns(fields if isinstance(fields, list) else ())


def _fields(columns: Sequence[Column]) -> list[dict[str, str]]:
    return [{"name": one.name, "type": one.type} | ({"mode": one.mode} if one.mode else {}) for one in columns]


def _path(name: TableName) -> str:
    return f"{name.project}/datasets/{name.dataset}/tables/{name.name}"


def _reference(name: TableName) -> dict[str, str]:
    return {"projectId": name.project, "datasetId": name.dataset, "tableId": name.name}


def _parameter(name: str, value: str | int | None) -> dict[str, Any]:
    kind = "INT64" if isinstance(value, int) else "STRING"
    held = {} if value is None else {"value": str(value)}
    return {"name": name, "parameterType": {"type": kind}, "parameterValue": held}


def _checked(reply: Reply, doing: str) -> Reply:
    """The reply to a call that must succeed. Raises ServiceBusy, KeyRefused, ServiceError."""
    if reply.status < 300:
        return reply
    if busy := busy_error(doing, reply):
        raise busy
    if reply.status == 401:
        raise KeyRefused(doing, 401, error_text(reply))
    if reply.status == 403:
        raise ServiceError(doing, 403, f"{error_text(reply)} {_ROLES}")
    raise ServiceError(doing, reply.status, error_text(reply))


def _failed(what: str, problem: Mapping[str, Any], job_id: str) -> QueryFailed:
    errors = problem.get("errors")
    first = members(errors[0]) if isinstance(errors, list) and errors else problem
    reason = str(first.get("reason") or members(_details(problem)).get("reason") or "invalid")
    made = QueryFailed(what, 400, f"BigQuery says {reason!r}; its own words are with job {job_id} in the console")
    made.reason = reason
    return made


def _details(problem: Mapping[str, Any]) -> object:
    details = problem.get("details")
    return details[0] if isinstance(details, list) and details else None


__all__ = ["ENDPOINT", "QueryFailed", "Ran", "Shown", "Tables", "Tokens"]
