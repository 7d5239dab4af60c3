"""Landings at the command line, where Airflow need not be installed: credentials are those of the environment."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from airflow_provider_geminibatch.cli.places import open_place
from airflow_provider_geminibatch.cli.service import connection_of
from airflow_provider_geminibatch.core.bigquery import landing_of
from airflow_provider_geminibatch.core.errors import BadConnection
from airflow_provider_geminibatch.core.landing import BIGQUERY, SQL
from airflow_provider_geminibatch.core.model import ServiceIdentity
from airflow_provider_geminibatch.gemini.bigquery import Tables as BigQueryTables
from airflow_provider_geminibatch.gemini.connections import gateway_of, settings_of
from airflow_provider_geminibatch.jobs.bigquery_landing import landing_at
from airflow_provider_geminibatch.storage.landing_store import LandingStore
from airflow_provider_geminibatch.storage.landings import FileLanding
from airflow_provider_geminibatch.storage.sql_landing import SqlLanding
from airflow_provider_geminibatch.storage.sql_session import Database
from airflow_provider_geminibatch.storage.sql_tables import Tables, table_of
from airflow_provider_geminibatch.storage.sql_words import WORDS


def open_landing(uri: str) -> LandingStore:
    """The landing at a URI as Dags write it.

    The connection that a URI of files may name before ``@`` is left out; that of tables has to be in the environment, as
    Airflow would read it there. Raises Unusable, BadConnection.
    """
    if uri.startswith(f"{BIGQUERY}://"):
        conn_id, table_name = landing_of(uri)
        return landing_at(uri, table_name, lambda: _tables(conn_id))
    if not uri.startswith(f"{SQL}://"):
        return FileLanding(open_place(uri))
    table = table_of(uri)
    kind, given = _connection(table.conn_id)
    if kind == "sqlite":
        path = given.get("host")
        if not path:
            do = f"Correct AIRFLOW_CONN_{table.conn_id.upper()}: the host is the path of the file."
            raise BadConnection(table.conn_id, "it names no file of SQLite", do)
        return SqlLanding(Tables(Database(uri, lambda: sqlite3.connect(path), WORDS["sqlite"], "?"), table))
    connect = _postgres_driver(table.conn_id)
    arguments = {ours: given[airflows] for ours, airflows in _ARGUMENTS.items() if given.get(airflows)}
    arguments |= {name: value for name, value in given["extra"].items() if name.startswith("ssl")}
    return SqlLanding(Tables(Database(uri, lambda: connect(**arguments), WORDS["postgresql"], "%s"), table))


@contextmanager
def _tables(conn_id: str) -> Iterator[tuple[BigQueryTables, ServiceIdentity]]:
    """The door to BigQuery of a connection of Vertex AI in the environment."""
    gateway = gateway_of(settings_of(connection_of(conn_id), ""))
    try:
        tables = getattr(gateway, "tables", None)
        if tables is None:
            do = "Name one of Vertex AI: with a project in its extra."
            raise BadConnection(conn_id, "it is of the Developer API, which does not reach BigQuery", do)
        yield tables, gateway.identity
    finally:
        gateway.close()


_ARGUMENTS = {"host": "host", "port": "port", "user": "login", "password": "password", "dbname": "schema"}
_KINDS = {"postgres": "postgres", "postgresql": "postgres", "sqlite": "sqlite"}


def _connection(conn_id: str) -> tuple[str, dict[str, Any]]:
    """The type of a connection and its fields, from ``AIRFLOW_CONN_…``: JSON or a URI."""
    variable = f"AIRFLOW_CONN_{conn_id.upper()}"
    text = os.environ.get(variable, "")
    if not text:
        do = f"Set {variable} to the connection, as JSON or as a URI."
        raise BadConnection(conn_id, "Airflow's database is not asked here, and the environment lacks it", do)
    try:
        given = json.loads(text) if text.lstrip().startswith("{") else _of_uri(text)
        extra = given.get("extra") or {}
        given["extra"] = json.loads(extra) if isinstance(extra, str) else extra
    except ValueError:
        raise BadConnection(conn_id, f"{variable} is neither JSON nor a URI", "Correct it.") from None
    kind = _KINDS.get(str(given.get("conn_type")))
    if kind is None:
        do = "Accept the window from a Dag or by SQL, or use a landing in one of these."
        raise BadConnection(conn_id, "the command line knows PostgreSQL and SQLite only", do)
    return kind, given


def _of_uri(text: str) -> dict[str, Any]:
    parts = urlsplit(text)
    schema = unquote(parts.path.removeprefix("/"))
    return {
        "conn_type": parts.scheme,
        "host": unquote(parts.hostname or "") if parts.scheme != "sqlite" else schema,
        "login": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "port": parts.port,
        "schema": schema,
        "extra": dict(parse_qsl(parts.query)),
    }


def _postgres_driver(conn_id: str) -> Callable[..., Any]:
    for name in ("psycopg", "psycopg2"):
        try:
            connect: Callable[..., Any] = import_module(name).connect
        except ImportError:
            continue
        return connect
    raise BadConnection(conn_id, "no driver for PostgreSQL is installed", "Install psycopg or psycopg2-binary.")
