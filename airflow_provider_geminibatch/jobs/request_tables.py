"""A build whose requests stay in BigQuery: made there by a query, checked there, and sealed by digests made there.

Every effect has a name that follows from the batch alone, so that whoever does it again after a crash finds it done: the job
that makes the request table, the table, and the id of the build. What leaves BigQuery is a sample.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec

from airflow_provider_geminibatch.core.bigquery import (
    Dataset,
    layout_of,
    region_rule,
    table_of,
)
from airflow_provider_geminibatch.core.bigquery_sql import (
    check_sql,
    digest_sql,
    problems_of,
    request_table_sql,
    sample_sql,
    shard_digests,
)
from airflow_provider_geminibatch.core.errors import BadRows, EmptySource, Problem, SourceUnreadable, Unusable
from airflow_provider_geminibatch.core.model import BatchId, Shard
from airflow_provider_geminibatch.core.names import batch_path, short
from airflow_provider_geminibatch.core.rows import encode_json, request_encoder
from airflow_provider_geminibatch.gemini.bigquery import Tables
from airflow_provider_geminibatch.jobs.declaration import Declaration
from airflow_provider_geminibatch.jobs.warned import Warned
from airflow_provider_geminibatch.storage.store import Store

SAMPLE_ROWS = 200
"""How many requests are read and held against everything that is known of requests."""

KEEP = timedelta(days=30)
"""How long BigQuery keeps a request table by itself, should nobody delete it."""

_SHOWN = 20


@dataclass(frozen=True)
class AskedInTables:
    """What a query in BigQuery is to make, and the door to it. ``location`` is where the jobs of the batch will run."""

    tables: Tables
    project: str
    location: str
    dataset: Dataset
    query: str
    key: str
    request: str
    columns: tuple[str, ...]
    name: str
    response_schema: dict[str, Any] | None = None


@dataclass(frozen=True)
class Life:
    """What tells one reading of a batch's rows from every other: a clear reads them again."""

    workspace_id: str
    batch: BatchId
    generation: int
    fingerprint: str
    max_tries: int | None

    @property
    def token(self) -> str:
        return short(
            self.workspace_id, batch_path(self.batch), str(self.generation), self.fingerprint, str(self.max_tries),
            "in BigQuery",
        )  # fmt: skip


class MadeInTables(msgspec.Struct, frozen=True):
    """A request table, checked: its shards, its own columns, and where the sample lies."""

    base: str
    shards: tuple[Shard, ...]
    columns: tuple[str, ...]
    sample: str


def make_request_table(
    asked: AskedInTables,
    declared: Declaration,
    life: Life,
    *,
    store: Store,
    home: str,
    tag: str,
    now: Callable[[], datetime],
    log: logging.Logger,
    warned: Warned,
) -> MadeInTables:
    """Run the query into a table of its own, check every row there, and describe its shards. Safe to repeat.

    Raises Unusable for regions and columns, EmptySource, BadRows, ServiceError; the table is gone then.
    """
    place = _allowed_place(asked, log)
    tables, base = asked.tables, asked.dataset.table(f"gb1_{life.token}")
    schema = tables.columns_of(asked.project, place, asked.query, asked.name)
    layout = layout_of(schema, key=asked.key, request=asked.request, columns=asked.columns, what=asked.name)
    per_shard = declared.max_rows_per_shard
    query = request_table_sql(asked.query, layout, tag=tag, rows_per_shard=per_shard)

    made = tables.run(
        asked.project, place, query, once=f"{life.token} {query}", what=f"request table {base}", into=base, shards=4_000
    )
    tables.expire(base, now() + KEEP)

    def run(sql: str, what: str) -> Iterator[tuple[str | None, ...]]:
        # Of this very table, which may have been made before of other rows, and now: a result is kept for a day only.
        once = f"{made.job_id} {now().isoformat()} {sql}"
        return tables.rows(tables.run(asked.project, place, sql, once=once, what=what))

    try:
        if not (shown := tables.table(base)) or not shown.rows:
            raise EmptySource(asked.name)
        log.info("%s: %d requests lie in %s", asked.name, shown.rows, base)
        problems, total = problems_of(run(check_sql(base, is_json=layout.request_is_json), f"check of {base}"))
        if total:
            raise BadRows(asked.name, problems[:_SHOWN], total)
        try:
            found = shard_digests(run(digest_sql(base, layout), f"digests of {base}"))
        except ValueError as error:
            raise SourceUnreadable(asked.name, f"its request table is not whole ({error})") from None
        sampled = run(sample_sql(base, SAMPLE_ROWS, is_json=layout.request_is_json), f"sample of {base}")
        sample = _sampled(sampled, asked.name, declared, warned, store, f"{home}/sample.jsonl")
    except (EmptySource, BadRows, SourceUnreadable):
        tables.delete(base)
        raise
    shards = tuple(
        Shard(
            home=home, index=one.number, tag=tag, path=base.uri, keys_path=base.uri, rows=one.rows, size_bytes=one.size_bytes,
            sha256=one.asked, keys_sha256=one.named, content=f"bq:{one.asked}",
        )
        for one in found
    )  # fmt: skip
    return MadeInTables(base.uri, shards, layout.extras, sample)


def _allowed_place(asked: AskedInTables, log: logging.Logger) -> str:
    """Where the data set is, if a job may read it there. Raises Unusable."""
    there = asked.tables.location(asked.dataset)
    rule = region_rule(asked.dataset, there, asked.location)
    if rule.refused or there is None:
        raise Unusable(asked.name, rule.refused, rule.do)
    if rule.doubt:
        log.warning("%s: %s", asked.name, rule.doubt)
    return there


def _sampled(
    rows: Iterator[Sequence[str | None]], name: str, declared: Declaration, warned: Warned, store: Store, path: str
) -> str:
    """Hold a sample against all that is known of requests, and keep it for estimates. Raises BadRows."""
    encode = request_encoder(declared.kind, declared.model, check=declared.check, warn=warned.add)
    lines: list[bytes] = []
    problems: list[Problem] = []
    wrong = 0
    for key, wire_key, text in rows:
        request = msgspec.json.decode(text or "null")
        made = encode({"key": key, "request": request})
        if isinstance(made, list):
            wrong += 1
            problems += [
                Problem(f"key {key!r} {problem.where}", problem.what, problem.hint, problem.rule) for problem in made
            ]
        # As it lies in the table, which is what is sent.
        lines.append(encode_json({"key": wire_key, "request": request}) + b"\n")
    if problems:
        what = f"{name}, in a sample of {len(lines)} rows of which {wrong} are wrong"
        raise BadRows(what, tuple(problems[:_SHOWN]), len(problems))
    store.write(path, b"".join(lines))
    return path


def drop_request_table(tables: Tables, base: str, log: logging.Logger) -> None:
    """Delete a request table that no build refers to."""
    tables.delete(table_of(base))
    log.info("%s is not needed and was deleted", base)


__all__ = ["AskedInTables", "Life", "MadeInTables", "drop_request_table", "make_request_table"]
