"""Before a shard is sent once more: what its job came to before it ended badly is paid, and is left out of the next one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from airflow_provider_geminibatch.core.errors import ResultsBroken, ResultsNotReady
from airflow_provider_geminibatch.core.kinds import check_of
from airflow_provider_geminibatch.core.ledger import Attempt, attempt_path
from airflow_provider_geminibatch.core.model import Build, Shard
from airflow_provider_geminibatch.core.names import generation_path
from airflow_provider_geminibatch.gemini.gateway import Gateway
from airflow_provider_geminibatch.jobs.download import fetch
from airflow_provider_geminibatch.jobs.kept import keep_ended
from airflow_provider_geminibatch.jobs.price_list import standing_prices
from airflow_provider_geminibatch.jobs.wait import pause_until
from airflow_provider_geminibatch.storage.store import Store


def keep_what_came(
    store: Store,
    gateway: Gateway,
    build: Build,
    shard: Shard,
    attempt: Attempt,
    *,
    me: str,
    now: Callable[[], datetime],
    log: logging.Logger,
) -> None:
    """Keep the answers of a job that ended badly and has an output all the same; of any other job nothing.

    Raises ServiceError and StoreError. An output that is not there, or is harmed, is told of, and its rows are asked again.
    """
    end = attempt.end
    if attempt.job is None or end is None or not end.output:
        return
    try:
        results = attempt.collected.path if attempt.collected else _fetched(store, gateway, shard, attempt, now, log)
    except (ResultsNotReady, ResultsBroken) as error:
        log.warning("%s What it came to is asked again.", error)
        return
    generation = generation_path(build.batch, build.generation)
    prices = standing_prices(store, generation, build.model, me=me, now=now, service=gateway.identity)
    price = prices.at(end.ended_at or end.created_at or end.at) if prices else None
    kept = keep_ended(
        store, shard, results, attempt=attempt.number, model=build.model, price=price, check=check_of(build), me=me, at=now()
    )  # fmt: skip
    log.info("%s: %d of its rows were answered by %s and are not asked again", shard, len(kept.rows), end.job_name)


def _fetched(
    store: Store, gateway: Gateway, shard: Shard, attempt: Attempt, now: Callable[[], datetime], log: logging.Logger
) -> str:
    assert attempt.job is not None
    job = gateway.job(attempt.job.job_name)
    if not job.output_file:
        raise ResultsNotReady(job.name, "it names no output")
    path = attempt_path(shard.ledger, attempt.number, "kept.jsonl")
    fetch(
        gateway, store, job.output_file, path, what=job.name, log=log,
        pause=lambda seconds: pause_until(now() + timedelta(seconds=seconds), now=now),
    )  # fmt: skip
    return path


__all__ = ["keep_what_came"]
