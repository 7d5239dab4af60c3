"""BigQuery as Dags see it: rows of a query or a table as a source, and requests that a query makes and that stay there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import msgspec

from airflow_provider_geminibatch.core.bigquery import Column, dataset_of, landing_of, plain_query, table_of
from airflow_provider_geminibatch.core.errors import BadConnection, SourceUnreadable, Unusable
from airflow_provider_geminibatch.core.names import digest
from airflow_provider_geminibatch.core.response_schema import json_schema_of
from airflow_provider_geminibatch.core.rows import Row
from airflow_provider_geminibatch.hooks.gemini_batch import GeminiBatchHook
from airflow_provider_geminibatch.hooks.sql import text_of_file

if TYPE_CHECKING:
    from airflow_provider_geminibatch.core.model import ServiceIdentity
    from airflow_provider_geminibatch.gemini.bigquery import Tables
    from airflow_provider_geminibatch.jobs.bigquery_landing import BigQueryLanding
    from airflow_provider_geminibatch.jobs.request_tables import AskedInTables
    from airflow_provider_geminibatch.storage.files import Files

_SHOWN = 80


@contextmanager
def open_tables(conn_id: str) -> Iterator[tuple[Tables, ServiceIdentity]]:
    """The door to BigQuery of a connection of Vertex AI. Raises BadConnection for one that has none."""
    gateway = GeminiBatchHook(conn_id).gateway()
    try:
        tables = getattr(gateway, "tables", None)
        if tables is None:
            do = "Use one of Vertex AI: with a project in its extra."
            raise BadConnection(conn_id, "it is of the Developer API, which does not reach BigQuery", do)
        yield tables, gateway.identity
    finally:
        gateway.close()


def open_bigquery_landing(uri: str) -> BigQueryLanding:
    """The landing in a table of BigQuery. Nothing is asked yet."""
    from airflow_provider_geminibatch.jobs.bigquery_landing import landing_at

    conn_id, table = landing_of(uri)
    return landing_at(uri, table, lambda: open_tables(conn_id))


class _Query:
    """What both have in common: a query that is templated, and a name that stands for its whole text."""

    def serialize(self) -> dict[str, Any]:
        """The arguments that were given, for Airflow's Dag version and its page."""
        given = {item.name: getattr(self, item.name) for item in fields(self)}  # type: ignore[arg-type]
        return {"source": type(self).__name__, **given}


def _name(query: str, *more: str) -> str:
    text = " ".join(query.split())
    shown = text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
    return f"BigQuery {digest(query, *more)[:12]} ({shown})"


def _rendered(query: str, context: Mapping[str, Any], what: str) -> str:
    task = context["task"]
    text = text_of_file(query, task, what) if query.endswith(".sql") else query
    return str(task.render_template(text, context))


@dataclass(frozen=True)
class BigQuerySource(_Query):
    """Rows of BigQuery for any Prepare, streamed page by page: of a query, or of a table as it stands.

    A clear reads them again, and equal rows in the same order come to the same jobs: give a query an ``ORDER BY`` over something
    unique. What the query is billed for is told in the log. Columns of type STRUCT and ARRAY have to be written as JSON.

    :param query: A SELECT, or the name of a ``.sql`` file beside the Dag or on its ``template_searchpath``; templated.
    :param table: Instead, ``project.dataset.table``; reading it is free. Templated.
    :param location: Where the data sets of the query are, such as ``us-central1`` or ``US``.
    :param columns: Columns of the table to read; all when empty.
    :param gemini_conn_id: Connection of type ``geminibatch`` for Vertex AI; templated.
    """

    query: str = ""
    table: str = ""
    location: str = ""
    columns: tuple[str, ...] = ()
    gemini_conn_id: str = GeminiBatchHook.default_conn_name

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", tuple(self.columns))
        if bool(self.query) == bool(self.table):
            raise Unusable("BigQuerySource", "it needs query= or table=, one of them", "Name a query or a table.")
        if self.query and not self.location:
            do = "Say where its data sets are: location='us-central1'."
            raise Unusable("BigQuerySource(query=)", "it does not know where to run", do)

    @property
    def name(self) -> str:
        """What messages and the fingerprint call it; the connection is left out."""
        return f"BigQuery {self.table}" if self.table else _name(self.query)

    def resolve(self, context: Mapping[str, Any]) -> BigQuerySource:
        """What Airflow's templating calls."""
        render: Callable[[str], str] = lambda value: str(context["task"].render_template(value, context))  # noqa: E731
        return replace(
            self, query=_rendered(self.query, context, "BigQuerySource(query=)"), table=render(self.table),
            location=render(self.location), gemini_conn_id=render(self.gemini_conn_id),
        )  # fmt: skip

    def rows(self, files: Files) -> Iterator[Row]:
        """The rows, numbered from 1. Raises what the door raises, and SourceUnreadable for columns that are not flat."""
        with open_tables(self.gemini_conn_id) as (tables, identity):
            columns, found = self._read(tables, identity)
            readers = [(column.name, _reader(column, self.name)) for column in columns]
            for number, row in enumerate(found, 1):
                values = zip(readers, row, strict=True)
                yield Row("row", number, {name: value and read(value) for (name, read), value in values})

    def _read(
        self, tables: Tables, identity: ServiceIdentity
    ) -> tuple[Sequence[Column], Iterator[tuple[str | None, ...]]]:
        if self.query:
            query = plain_query(self.query, self.name)
            # A name of its own for each reading: a clear is to see what is there now.
            ran = tables.run(identity.project, self.location, query, once=uuid4().hex, what=self.name)
            return tables.result(ran)
        table = table_of(self.table)
        shown = tables.table(table)
        if shown is None:
            raise SourceUnreadable(self.name, "there is no such table, or the connection may not see it")
        kept = [column for column in shown.columns if not self.columns or column.name in self.columns]
        if gone := sorted(set(self.columns) - {column.name for column in kept}):
            raise SourceUnreadable(self.name, f"it has no column {', '.join(gone)}")
        rows = tables.table_rows(table, tuple(column.name for column in kept))
        return kept, (tuple(row.values()) for row in rows)


def _time(text: str) -> datetime:
    return datetime.fromtimestamp(float(text), UTC)


_READERS: Mapping[str, Callable[[str], Any]] = {
    **dict.fromkeys(("INTEGER", "INT64"), int),
    **dict.fromkeys(("FLOAT", "FLOAT64"), float),
    **dict.fromkeys(("BOOLEAN", "BOOL"), lambda text: text == "true"),
    **dict.fromkeys(("NUMERIC", "BIGNUMERIC"), Decimal),
    "JSON": msgspec.json.decode,
    "TIMESTAMP": _time,
    "DATE": date.fromisoformat,
}


def _reader(column: Column, name: str) -> Callable[[str], Any]:
    """How the wire's text of a column becomes a value; a type that has no other stays text."""
    if column.mode == "REPEATED" or column.type in ("RECORD", "STRUCT"):
        raise SourceUnreadable(name, f"{column.name} is nested; write TO_JSON({column.name}) AS {column.name}")
    return _READERS.get(column.type, str)


@dataclass(frozen=True)
class BigQueryRequests(_Query):
    """Requests that a query in BigQuery makes. They stay there: jobs of Vertex AI read them from a table.

    For ``GeminiBatchPrepareOperator(requests=…)`` with a connection of Vertex AI. The query gives a key, the request as JSON or
    as its text, and columns that come back beside each answer. It is run once, into a table of its own in ``dataset``, and
    every row is checked there; a sample is read and checked here. See docs/bigquery.md.

    :param query: A SELECT, or the name of a ``.sql`` file beside the Dag or on its ``template_searchpath``; templated.
    :param dataset: ``project.dataset`` where the tables of a batch are made; in one region, that of the jobs. Templated.
    :param key: Name of the column with the row's own key; unique.
    :param request: Name of the column with the request.
    :param columns: Columns that come back beside each answer; ``"*"`` for all others.
    :param response_schema: What answers are held against: a pydantic model or a JSON Schema, the one that the requests name.
    """

    query: str
    dataset: str
    key: str = "key"
    request: str = "request"
    columns: tuple[str, ...] | str = "*"
    response_schema: Any = None

    def __post_init__(self) -> None:
        columns = (self.columns,) if isinstance(self.columns, str) else tuple(self.columns)
        schema = None if self.response_schema is None else json_schema_of(self.response_schema)
        object.__setattr__(self, "columns", columns)
        object.__setattr__(self, "response_schema", schema)

    @property
    def name(self) -> str:
        """What messages and the fingerprint call it. Where the tables are made has no part in what is asked."""
        schema = (
            ""
            if self.response_schema is None
            else msgspec.json.encode(self.response_schema, order="deterministic").decode()
        )
        return _name(self.query, self.key, self.request, *self.columns, schema)

    def resolve(self, context: Mapping[str, Any]) -> BigQueryRequests:
        """What Airflow's templating calls."""
        dataset = str(context["task"].render_template(self.dataset, context))
        return replace(self, query=_rendered(self.query, context, "BigQueryRequests(query=)"), dataset=dataset)

    def rows(self, files: Files) -> Iterator[Row]:
        """Nothing reads them here. Raises Unusable."""
        do = "Give them to GeminiBatchPrepareOperator(requests=…), and then Submit, Sensor and Load; or take BigQuerySource."
        raise Unusable("BigQueryRequests", "its requests stay in BigQuery and are no rows", do)

    def data_region(self, tables: Tables) -> str:
        """Where the data set is; empty where it is not shown."""
        return tables.location(dataset_of(self.dataset)) or ""

    def asked(self, tables: Tables, service: ServiceIdentity) -> AskedInTables:
        """The same for the package's own layers."""
        from airflow_provider_geminibatch.jobs.request_tables import AskedInTables

        return AskedInTables(
            tables=tables, project=service.project, location=service.location, dataset=dataset_of(self.dataset),
            query=plain_query(self.query, self.name), key=self.key, request=self.request, columns=tuple(self.columns),
            name=self.name, response_schema=self.response_schema,
        )  # fmt: skip


__all__ = ["BigQueryRequests", "BigQuerySource", "open_bigquery_landing", "open_tables"]
