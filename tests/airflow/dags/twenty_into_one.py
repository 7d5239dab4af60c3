"""Twenty batches that land as one window, in files and in a table, and as two parts of another; run by test_many_into_one.py."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from airflow.sdk import dag, task

from airflow_provider_geminibatch import (
    GeminiBatchLoadOperator,
    GeminiBatchPrepareOperator,
    GeminiBatchSensor,
    GeminiBatchSubmitOperator,
    GeminiBatchWindowSensor,
    Landing,
    RequestTemplate,
    read_window,
)

HOME = os.environ["LANDINGS_OF_THIS_TEST"]
FILES = Landing("twenty", f"{HOME}/twenty", format="jsonl")
TABLE = Landing("twenty_rows", "sql://rows_db@/twenty_rows")
PARTS = Landing("halves", f"{HOME}/halves", parts=("low", "high"))
WINDOW = "all-of-them"


@dag(schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), catchup=False)
def twenty_into_one():
    prepared = GeminiBatchPrepareOperator.partial(
        task_id="prepare",
        model="gemini-3.8-flash",
        template=RequestTemplate("What is $n times $n?", key="$n", columns=("n", "text")),
    ).expand(source=[[{"n": number, "text": f"of batch {number}"}] for number in range(20)])
    submitted = GeminiBatchSubmitOperator.partial(task_id="submit").expand(prepared=prepared.output)
    ended = GeminiBatchSensor(task_id="wait", submitted=submitted.output, poke_interval=1)
    loads = [
        GeminiBatchLoadOperator(task_id=f"load_{to.name}", submitted=ended.output, to=to, window=WINDOW)
        for to in (FILES, TABLE)
    ]

    @task
    def half(manifests: list, low: bool) -> list:
        return manifests[:10] if low else manifests[10:]

    low, high = half.override(task_id="lower")(ended.output, True), half.override(task_id="upper")(ended.output, False)
    first = GeminiBatchLoadOperator(task_id="load_low", submitted=low, to=PARTS, part="low", window=WINDOW)
    second = GeminiBatchLoadOperator(task_id="load_high", submitted=high, to=PARTS, part="high", window=WINDOW)
    there = GeminiBatchWindowSensor(task_id="both_halves", landing=PARTS, window=WINDOW, deferrable=False)
    first >> second >> there

    @task
    def read() -> list:
        return [sorted(row["key"] for row in read_window(to, WINDOW)) for to in (FILES, TABLE, PARTS)]

    [*loads, there] >> read()


twenty_into_one()
