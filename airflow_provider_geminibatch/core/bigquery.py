"""Requests that lie in BigQuery: how tables are called, which columns come back, and in which regions a job may read them.

The rules are those of the guide to batches with BigQuery (2026): input columns, reserved names, one region for job and tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from airflow_provider_geminibatch.core.errors import Unusable

SCHEME: Final = "bq://"
RESERVED: Final = frozenset({"response", "status", "processed_time"})
"""What the service calls its own columns of an output table (the guide names the first two; the third is seen)."""

OWN: Final = ("wire_key", "key", "request")
PLACES: Final = ("gb_shard", "gb_row")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9:.-]{3,}")
_PART = re.compile(r"\w{1,1024}", re.ASCII)
_COLUMN = re.compile(r"[A-Za-z_]\w{0,299}", re.ASCII)
_LANDING = re.compile(r"bigquery://(?P<conn>[\w.\-]+)@/(?P<table>[^/@?#]+)")
_CAST_FIRST: Final = {
    "RECORD": "a STRUCT",
    "STRUCT": "a STRUCT",
    "RANGE": "a RANGE",
    "DATETIME": "a DATETIME",
    "GEOGRAPHY": "a GEOGRAPHY",
}
_AS_TEXT: Final = {"GEOGRAPHY": "ST_ASTEXT({})", "RECORD": "TO_JSON_STRING({})", "STRUCT": "TO_JSON_STRING({})"}


class Dataset(NamedTuple):
    """A data set by its project and its own name."""

    project: str
    name: str

    def __str__(self) -> str:
        return f"{self.project}.{self.name}"

    def table(self, name: str) -> TableName:
        return TableName(self.project, self.name, name)


class TableName(NamedTuple):
    """A table by project, data set and its own name."""

    project: str
    dataset: str
    name: str

    def __str__(self) -> str:
        return f"{self.project}.{self.dataset}.{self.name}"

    @property
    def uri(self) -> str:
        """As Vertex AI and the seal call it: ``bq://project.dataset.table``."""
        return f"{SCHEME}{self}"

    @property
    def sql(self) -> str:
        """As a statement calls it."""
        return f"`{self}`"

    @property
    def within(self) -> Dataset:
        return Dataset(self.project, self.dataset)


class Column(msgspec.Struct, frozen=True):
    """A column as BigQuery describes it. ``mode`` is ``REPEATED`` for an array."""

    name: str
    type: str
    mode: str = ""


def dataset_of(text: str) -> Dataset:
    """``project.dataset`` as a value. Raises Unusable for anything else."""
    project, _, name = text.strip().removeprefix(SCHEME).rpartition(".")
    if not (_NAME.fullmatch(project) and _PART.fullmatch(name)):
        raise Unusable(f"data set {text!r}", "it is not project.dataset", "Write it as my-project.my_dataset.")
    return Dataset(project, name)


def table_of(text: str) -> TableName:
    """``project.dataset.table``, with or without ``bq://``, as a value. Raises Unusable for anything else."""
    rest, _, name = text.strip().removeprefix(SCHEME).rpartition(".")
    project, _, dataset = rest.rpartition(".")
    if not (_NAME.fullmatch(project) and _PART.fullmatch(dataset) and _PART.fullmatch(name)):
        do = "Write it as my-project.my_dataset.my_table."
        raise Unusable(f"table {text!r}", "it is not project.dataset.table", do)
    return TableName(project, dataset, name)


def landing_of(uri: str) -> tuple[str, TableName]:
    """Connection and table of a landing, ``bigquery://conn_id@/project.dataset.table``. Raises Unusable."""
    found = _LANDING.fullmatch(uri)
    if found is None:
        do = "Write bigquery://conn_id@/project.dataset.table, with a connection of Vertex AI."
        raise Unusable("the URI of a landing in BigQuery", "it does not name a connection and a table", do)
    return found["conn"], table_of(found["table"])


def input_table(base: TableName, shard: int, attempt: int) -> TableName:
    """The table that the job of an attempt reads: fresh for each, so that its output table is fresh too."""
    return base._replace(name=f"{base.name}_{shard:04d}_a{attempt:02d}")


def plain_query(text: str, what: str) -> str:
    """A query as it can stand inside of another one. Raises Unusable for a script, and for what is no query."""
    query = text.strip().rstrip(";").rstrip()
    bare = _ASIDE.sub(" ", query)
    first = bare.split(maxsplit=1)[0].upper().lstrip("(") if bare.strip() else ""
    if first not in ("SELECT", "WITH", "FROM"):
        raise Unusable(what, "it is not a query", "Begin it with SELECT or WITH.")
    if ";" in bare:
        raise Unusable(what, "it holds several statements", "Write one query; what goes before it belongs elsewhere.")
    return query


_ASIDE = re.compile(
    r"--[^\n]*|\#[^\n]*|/\*.*?\*/|'''.*?'''|\"\"\".*?\"\"\"|'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|`[^`]*`", re.DOTALL
)

# -- regions -----------------------------------------------------------------------------------------------------------


class Region(NamedTuple):
    """Whether a job at a location may read a data set: why not, or what is doubtful about it."""

    refused: str = ""
    do: str = ""
    doubt: str = ""


def region_rule(dataset: Dataset, dataset_location: str | None, job_location: str) -> Region:
    """The rules that the guide gives: one region, not a multi-region, and the same for the job and its tables."""
    if dataset_location is None:
        do = f"Create it in {job_location if job_location != 'global' else 'a single region'}, or name another one."
        return Region(f"the data set {dataset} is not there, or the connection may not see it", do)
    there, asked = dataset_location.lower(), job_location.lower()
    if there in ("us", "eu"):
        return Region(
            f"the data set {dataset} is in the multi-region {dataset_location}, which batches of Vertex AI do not read",
            "Copy it into a data set of a single region such as us-central1.",
        )
    if asked == "global":
        doubt = (
            f"the job runs at the location global and its tables are in {dataset_location}: the documentation says both that this "
            "works and that it does not; try one small batch first"
        )
        return Region(doubt=doubt)
    if there != asked:
        do = f"Use a data set in {job_location}, or a connection whose location is {dataset_location}."
        return Region(f"the data set {dataset} is in {dataset_location} and the job would run in {job_location}", do)
    return Region()


# -- columns -----------------------------------------------------------------------------------------------------------


class Layout(NamedTuple):
    """The columns of a query by what they are for."""

    key: str
    request: str
    request_is_json: bool
    extras: tuple[str, ...]


def layout_of(schema: Sequence[Column], *, key: str, request: str, columns: Sequence[str], what: str) -> Layout:
    """How the columns of a query are used. Raises Unusable with all that is wrong with them."""
    by_name = {column.name.lower(): column for column in schema}
    wrong: list[str] = []
    for name, role in ((key, "key"), (request, "request")):
        if not _COLUMN.fullmatch(name):
            wrong.append(f"{role}={name!r} is not a plain column name: give it one with AS")
        elif name.lower() not in by_name:
            wrong.append(f"it has no column {name}, which {role}= names; it has {', '.join(c.name for c in schema)}")
    rest = [column.name for column in schema if column.name.lower() not in (key.lower(), request.lower())]
    wanted = rest if tuple(columns) == ("*",) else list(dict.fromkeys(columns))
    found_key, found_request = by_name.get(key.lower()), by_name.get(request.lower())
    if found_key and (found_key.type not in _KEY_TYPES or found_key.mode == "REPEATED"):
        wrong.append(f"its key {key} is of type {_type(found_key)}: write CAST({key} AS STRING) AS {key}")
    if found_request and (found_request.type not in ("JSON", "STRING") or found_request.mode == "REPEATED"):
        wrong.append(f"its {request} is of type {_type(found_request)}: write TO_JSON({request}) AS {request}")
    for name in wanted:
        column = by_name.get(name.lower())
        wrong += [f"it has no column {name}"] if column is None else _column_faults(column)
    if wrong:
        raise Unusable(what, "; ".join(wrong), "Correct the query or what columns= names.")
    assert found_request is not None
    extras = tuple(by_name[name.lower()].name for name in wanted)
    return Layout(by_name[key.lower()].name, found_request.name, found_request.type == "JSON", extras)


_KEY_TYPES: Final = frozenset({"STRING", "INTEGER", "INT64", "DATE", "NUMERIC", "BOOLEAN", "BOOL"})


def _type(column: Column) -> str:
    return f"ARRAY of {column.type}" if column.mode == "REPEATED" else column.type


def _column_faults(column: Column) -> list[str]:
    name, taken = column.name, {*RESERVED, *OWN, *PLACES}
    if column.mode == "REPEATED":
        return [f"{name} is an ARRAY, which does not come back: write CAST by TO_JSON_STRING({name}) AS {name}"]
    if kind := _CAST_FIRST.get(column.type):
        by = _AS_TEXT.get(column.type, "CAST({} AS STRING)").format(name)
        return [f"{name} is {kind}, which does not come back: CAST it to a STRING, {by} AS {name}"]
    if name.lower() in taken:
        return [f"{name} is a name that the output table needs: write {name} AS my_{name}"]
    if not _COLUMN.fullmatch(name):
        return [f"{name!r} is not a plain column name: give it one with AS"]
    return []


def wire_columns(schema: Iterable[Mapping[str, object]]) -> tuple[Column, ...]:
    """The columns of a schema as the REST API has it."""
    return tuple(Column(str(one.get("name")), str(one.get("type")), str(one.get("mode") or "")) for one in schema)


__all__ = [
    "OWN",
    "RESERVED",
    "SCHEME",
    "Column",
    "Dataset",
    "Layout",
    "Region",
    "TableName",
    "dataset_of",
    "input_table",
    "landing_of",
    "layout_of",
    "plain_query",
    "region_rule",
    "table_of",
    "wire_columns",
]
