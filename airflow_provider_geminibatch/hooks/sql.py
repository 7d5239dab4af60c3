"""Rows of a query, streamed from any database that Airflow has a hook for.

The result is never held whole: PostgreSQL sends it by a server-side cursor, MySQL row by row, and every other driver is
asked for a few thousand rows at a time. Where the driver has it, the transaction is read-only.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, fields, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow_provider_geminibatch.core.errors import (
    BadConnection,
    GeminiBatchError,
    SourceAway,
    SourceUnreadable,
    Unusable,
)
from airflow_provider_geminibatch.core.names import digest
from airflow_provider_geminibatch.core.rows import Row, encode_json

if TYPE_CHECKING:
    from airflow_provider_geminibatch.storage.files import Files

log = logging.getLogger(__name__)

_SHOWN = 80
_LONGEST_REASON = 300


@dataclass(frozen=True)
class SqlSource:
    """The rows of a query. Column names are those of the result; types are the driver's (numbers, times, JSON …).

    A clear runs the query again, and equal rows in the same order come to the same jobs: give it an ``ORDER BY`` over
    something unique. Values go in by ``parameters``, in the driver's own style, or by Airflow's templates.

    :param sql: A SELECT, or the name of a ``.sql`` file beside the Dag or on its ``template_searchpath``; templated.
    :param conn_id: Connection of a database: any whose hook is a ``DbApiHook``; templated.
    :param parameters: Values for the placeholders of the query, a list or a dict; templated.
    :param fetch_rows: Rows per round trip.
    """

    sql: str
    conn_id: str
    parameters: Mapping[str, Any] | Sequence[Any] | None = None
    fetch_rows: int = 2_000

    def __post_init__(self) -> None:
        if self.fetch_rows < 1:
            raise Unusable("SqlSource(fetch_rows=)", "it reads at least one row at a time", "Pass a number above zero.")

    @property
    def name(self) -> str:
        """The query as messages call it. Its digest stands for its whole text and its parameters; the connection is left
        out, since the same rows may be reached by another."""
        text = " ".join(self.sql.split())
        shown = text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
        try:
            parameters = "" if self.parameters is None else encode_json(self.parameters).decode()
        except TypeError as error:
            do = "Use text, numbers, times, lists and dicts."
            raise Unusable("SqlSource(parameters=)", str(error), do) from None
        return f"query {digest(self.sql, parameters)[:12]} ({shown})"

    def serialize(self) -> dict[str, Any]:
        """The arguments that were given, for Airflow's Dag version and its page."""
        return {"source": type(self).__name__, **{item.name: getattr(self, item.name) for item in fields(self)}}

    def resolve(self, context: Mapping[str, Any]) -> SqlSource:
        """What Airflow's templating calls: query, connection and parameters rendered with the task's own environment."""
        task = context["task"]
        sql = text_of_file(self.sql, task) if self.sql.endswith(".sql") else self.sql
        sql, conn_id, parameters = (
            task.render_template(value, context) for value in (sql, self.conn_id, self.parameters)
        )
        return replace(self, sql=str(sql), conn_id=str(conn_id), parameters=parameters)

    def rows(self, files: Files) -> Iterator[Row]:
        """The rows, numbered from 1. The connection is opened here, and closed when the last row is read or nobody wants more.

        Raises BadConnection, SourceAway for a database that cannot be reached, SourceUnreadable for a query that it refuses.
        """
        name = self.name
        if not is_ordered(self.sql):
            log.warning(
                "%s has no ORDER BY. A clear runs it again, and the same rows in another order are other shards, which are "
                "paid for again: order by something unique.",
                name,
            )
        with (
            _trouble(name),
            closing(_connected(self.conn_id)) as connection,
            closing(_streaming(connection, self.fetch_rows)) as cursor,
        ):
            yield from self._fetched(cursor, name)

    def _fetched(self, cursor: Any, name: str) -> Iterator[Row]:
        cursor.execute(self.sql.rstrip().rstrip(";"), *(() if self.parameters is None else (self.parameters,)))
        number, batch = 0, cursor.fetchmany(self.fetch_rows)
        columns = _columns(cursor.description, name)
        while batch:
            for values in batch:
                number += 1
                yield Row("row", number, dict(zip(columns, values, strict=True)))
            batch = cursor.fetchmany(self.fetch_rows)


def is_ordered(sql: str) -> bool:
    """Whether a query says ORDER BY outside of comments, quotes and brackets, where it does not order what comes out."""
    depth, bare = 0, []
    for piece in re.split(r"([()])", _ASIDE.sub(" ", sql)):
        depth += (piece == "(") - (piece == ")")
        if depth == 0:
            bare.append(piece)
    return re.search(r"\border\s+by\b", " ".join(bare), re.IGNORECASE) is not None


_ASIDE = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\"[^\"]*\"|`[^`]*`", re.DOTALL)


def text_of_file(name: str, task: Any, what: str = "SqlSource(sql=)") -> str:
    """The text of a file that Airflow's templates can include: beside the Dag or on its search path."""
    environment = task.get_template_env()
    try:
        if environment.loader is None:  # a task without a Dag
            raise LookupError(name)
        text: str = environment.loader.get_source(environment, name)[0]
    except LookupError as error:  # jinja2's TemplateNotFound is one
        do = "Put it beside the Dag file, or its folder into the Dag's template_searchpath."
        raise Unusable(what, f"there is no file {name}", do) from error
    return text


def _connected(conn_id: str) -> Any:
    """A new connection to the database, by the hook of its type."""
    from airflow.providers.common.compat.sdk import AirflowException, AirflowNotFoundException, BaseHook

    try:
        hook = BaseHook.get_hook(conn_id)
    except AirflowNotFoundException:
        raise BadConnection(conn_id, "it is not defined", "Define it, or correct conn_id= of the SqlSource.") from None
    except (AirflowException, ImportError) as error:
        do = "Install the Airflow provider of its type."
        raise BadConnection(conn_id, f"there is no hook for it ({error})", do) from error
    connect = getattr(hook, "get_conn", None)
    if connect is None or not hasattr(hook, "get_records"):
        what = f"{type(hook).__name__} runs no SQL"
        raise BadConnection(conn_id, what, "Name the connection of a database.")
    return connect()


# The drivers are looked up when a connection of theirs is there: none is needed by all, and not all have types.


def _psycopg2(connection: Any, fetch_rows: int) -> Any:
    driver, extensions = import_module("psycopg2"), import_module("psycopg2.extensions")
    connection.rollback()  # what the hook may have begun; a session changes its mode between transactions only
    connection.set_session(readonly=True, autocommit=False)
    cursor = connection.cursor(name="geminibatch", cursor_factory=extensions.cursor)
    cursor.itersize = fetch_rows

    def whole(value: Any, at: Any) -> bytes | None:
        return None if value is None else bytes(driver.BINARY(value, at))  # which is a memoryview

    extensions.register_type(extensions.new_type(driver.BINARY.values, "BYTEA", whole), cursor)
    return cursor


def _psycopg(connection: Any, fetch_rows: int) -> Any:
    connection.rollback()
    connection.autocommit = False
    connection.read_only = True
    return connection.cursor(name="geminibatch", row_factory=import_module("psycopg.rows").tuple_row)


def _sqlite3(connection: Any, fetch_rows: int) -> Any:
    connection.execute("PRAGMA query_only = ON")
    connection.row_factory = None
    return connection.cursor()


def _unbuffered(driver: str) -> Callable[[Any, int], Any]:
    """The cursor of a MySQL driver that leaves the rows with the server: the plain one fetches them all at once."""

    def cursor(connection: Any, fetch_rows: int) -> Any:
        return connection.cursor(import_module(f"{driver}.cursors").SSCursor)

    return cursor


def _plain(connection: Any, fetch_rows: int) -> Any:
    cursor = connection.cursor()
    with suppress(AttributeError):
        cursor.arraysize = fetch_rows
    return cursor


_CURSORS: dict[str, Callable[[Any, int], Any]] = {
    "psycopg": _psycopg,
    "psycopg2": _psycopg2,
    "sqlite3": _sqlite3,
    **{driver: _unbuffered(driver) for driver in ("MySQLdb", "pymysql")},
}


def _streaming(connection: Any, fetch_rows: int) -> Any:
    """A cursor that does not fetch the whole result at once, as the connection's driver makes one."""
    drivers = (kind.__module__.partition(".")[0] for kind in type(connection).__mro__)
    make = next((_CURSORS[driver] for driver in drivers if driver in _CURSORS), _plain)
    return make(connection, fetch_rows)


def _columns(description: Any, name: str) -> list[str]:
    if description is None:
        raise SourceUnreadable(name, "the statement gives no rows; it has to be a query")
    columns = [str(column[0]) for column in description]
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        raise SourceUnreadable(name, f"two of its columns are called {', '.join(twice)}; name one of them with AS")
    return columns


@contextmanager
def _trouble(name: str) -> Iterator[None]:
    """Every trouble with a database becomes one of our errors, without what its rows hold."""
    try:
        yield
    except GeminiBatchError:
        raise
    except Exception as error:  # noqa: BLE001 - drivers share no base class; PEP 249 asks for names only, looked at below
        kinds = {kind.__name__ for kind in type(error).__mro__}
        reason = _reason(error, kinds)
        made = SourceAway(name, reason) if kinds & _AWAY else SourceUnreadable(name, reason)
        raise made from None


_AWAY = frozenset({"OperationalError", "InterfaceError", "ConnectionError", "TimeoutError"})
_ABOUT_THE_QUERY = _AWAY | {"ProgrammingError", "NotSupportedError", "TypeError", "OSError"}


def _reason(error: Exception, kinds: set[str]) -> str:
    """What went wrong. Of errors about data only the name and the code: their texts quote the rows."""
    code = getattr(error, "pgcode", None) or getattr(error, "sqlstate", None)
    shown = f"{type(error).__name__} ({code})" if code else type(error).__name__
    if not kinds & _ABOUT_THE_QUERY:
        return f"{shown}; the database's own log has the details"
    lines = str(error).strip().splitlines()
    return f"{shown}: {lines[0][:_LONGEST_REASON]}" if lines else shown
