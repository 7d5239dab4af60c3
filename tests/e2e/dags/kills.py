"""Waiting tasks for somebody to act on, each with a batch of its own."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import dag

from airflow_provider_geminibatch import (
    GeminiBatchPrepareOperator,
    GeminiBatchSensor,
    GeminiBatchSubmitOperator,
    RequestTemplate,
)

KINDS = {
    "marked_failed": {},
    "marked_success": {},
    "cleared": {},
    "failed_on_a_worker": {"deferrable": False, "poke_interval": 1.0},
}


@dag(schedule=None, catchup=False, default_args={"retries": 1, "retry_delay": timedelta(seconds=1)})
def kills():
    for kind, how in KINDS.items():
        prepared = GeminiBatchPrepareOperator(
            task_id=f"prepare_{kind}",
            model="gemini-3.8-flash",
            source=[{"id": "a"}],
            template=RequestTemplate(f"{kind}: $id"),
        )
        submitted = GeminiBatchSubmitOperator(task_id=f"submit_{kind}", prepared=prepared.output)
        GeminiBatchSensor(task_id=f"wait_{kind}", submitted=submitted.output, **how)


kills()
