"""Shards whose requests lie in BigQuery: the table that the job of an attempt reads.

Nothing is uploaded: the input of an attempt is cut from the request table under a name of its own, so that its output table is
fresh, and deleting it is the fence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from airflow_provider_geminibatch.core.bigquery import OWN, PLACES, SCHEME, TableName, input_table, table_of
from airflow_provider_geminibatch.core.bigquery_sql import input_table_sql
from airflow_provider_geminibatch.core.errors import StoreUnreadable, Unusable
from airflow_provider_geminibatch.core.ledger import Uploaded
from airflow_provider_geminibatch.core.model import Build, Shard
from airflow_provider_geminibatch.gemini.bigquery import Shown, Tables
from airflow_provider_geminibatch.gemini.gateway import Gateway

KEEP_INPUT = timedelta(days=8)
"""How long BigQuery keeps the input of a job by itself: longer than a job may wait and run (96 hours)."""


def in_tables(shard: Shard) -> bool:
    """Whether the requests of a shard lie in BigQuery."""
    return shard.path.startswith(SCHEME)


def tables_of(gateway: Gateway, what: str) -> Tables:
    """The door to BigQuery of a gateway. Raises Unusable for a route that has none."""
    tables = getattr(gateway, "tables", None)
    if tables is None:
        why = f"its requests lie in BigQuery, and {gateway.identity.route} reads none from there"
        raise Unusable(what, why, "Use the connection of Vertex AI that it was prepared with.")
    found: Tables = tables
    return found


def refuse_in_tables(builds: Iterable[Build], what: str, do: str) -> None:
    """Raises Unusable for a build in BigQuery where something needs its requests in the workspace."""
    for build in builds:
        if any(map(in_tables, build.shards)):
            raise Unusable(what, f"the requests of {build.batch} lie in BigQuery and stay there", do)


def cut_input(
    gateway: Gateway, shard: Shard, attempt: int, left_out: Iterable[int], *, me: str, now: Callable[[], datetime]
) -> Uploaded:
    """Make the table that the job of an attempt reads. Repeating it makes none again."""
    base = table_of(shard.path)
    tables, target = tables_of(gateway, str(shard)), input_table(base, shard.index, attempt)
    place, shown = there(tables, base)
    extras = [column.name for column in shown.columns if column.name not in (*OWN, *PLACES)]
    gone = tuple(sorted(left_out))
    tables.run(
        gateway.identity.project, place, input_table_sql(base, shard.index, extras, gone, shard.rows),
        once=target.uri, what=f"input table {target}", into=target,
    )  # fmt: skip
    tables.expire(target, now() + KEEP_INPUT)
    at = now()
    return Uploaded(owner=me, at=at, file_name=target.uri, file_at=at, life_seconds=None, left_out=gone)


def there(tables: Tables, base: TableName) -> tuple[str, Shown]:
    """Where a request table is, and what it is like. Raises StoreUnreadable when it is gone."""
    place, shown = tables.location(base.within), tables.table(base)
    if place is None or shown is None:
        why = "the request table is gone: it is kept for 30 days; clear Prepare, which makes it again"
        raise StoreUnreadable(base.uri, why)
    return place, shown


__all__ = ["cut_input", "in_tables", "refuse_in_tables", "tables_of", "there"]
