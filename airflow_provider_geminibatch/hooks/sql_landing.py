"""Landings in SQL as Airflow knows databases: by a connection that has a hook for DB-API."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import AirflowException, AirflowNotFoundException, BaseHook

from airflow_provider_geminibatch.core.errors import StoreUnreadable, Unusable
from airflow_provider_geminibatch.storage.sql_landing import SqlLanding
from airflow_provider_geminibatch.storage.sql_session import Database
from airflow_provider_geminibatch.storage.sql_tables import Tables, table_of
from airflow_provider_geminibatch.storage.sql_words import WORDS


def open_sql_landing(uri: str) -> SqlLanding:
    """The landing at ``sql://conn_id@/schema.table``. Nothing is connected yet.

    Raises Unusable for a connection that is not one of a database, StoreUnreadable when Airflow does not know it.
    """
    table = table_of(uri)
    hook = _hook(uri, table.conn_id)
    words = WORDS.get(hook.dialect_name, WORDS[""])
    return SqlLanding(Tables(Database(uri, hook.get_conn, words, hook.placeholder), table))


def _hook(uri: str, conn_id: str) -> Any:
    try:
        hook: Any = BaseHook.get_hook(conn_id)
    except (AirflowException, AirflowNotFoundException, ImportError) as error:
        raise StoreUnreadable(
            uri, f"the connection {conn_id!r} or the provider of its type is missing ({type(error).__name__})"
        ) from None
    if not all(hasattr(hook, name) for name in ("get_conn", "placeholder", "dialect_name")):
        raise Unusable(
            f"the connection {conn_id!r}", "it has no SQL hook", "Name a connection of PostgreSQL, SQLite or the like."
        )
    return hook
