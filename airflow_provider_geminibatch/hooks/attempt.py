"""Who is acting: the task instance as the ledger knows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from airflow_provider_geminibatch.core.model import BatchId
from airflow_provider_geminibatch.core.names import short


class Attempt(NamedTuple):
    """One attempt of one task instance.

    ``me`` is the same over the deferrals of an attempt and another one for every retry, clear and zombie. ``max_tries``
    moves when a finished task is cleared (down, if the Dag has fewer retries by now), which is how a clear is told from a
    retry.
    """

    batch: BatchId
    me: str
    try_number: int
    max_tries: int | None


def in_backfill(context: Mapping[str, Any]) -> bool:
    """True for a task of a backfill's run."""
    run_type = getattr(context.get("dag_run"), "run_type", None)
    return str(getattr(run_type, "value", run_type)) == "backfill"


def attempt_of(context: Mapping[str, Any]) -> Attempt:
    """The attempt that this context belongs to."""
    ti = context["ti"]
    index = -1 if ti.map_index is None else int(ti.map_index)
    batch = BatchId(dag_id=ti.dag_id, run_id=ti.run_id, task_id=ti.task_id, map_index=index)
    max_tries = getattr(ti, "max_tries", None)
    return Attempt(batch, short(str(ti.id), str(ti.try_number)), int(ti.try_number), max_tries)
