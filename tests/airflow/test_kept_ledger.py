"""What Airflow does to tasks and runs leaves the ledger and the jobs alone, unless somebody marks a waiting sensor failed."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_geminibatch import (
    GeminiBatchLoadOperator,
    GeminiBatchPrepareOperator,
    GeminiBatchSensor,
    GeminiBatchSubmitOperator,
    GeminiBatchWindowSensor,
)


def test_killing_any_task_but_the_waiting_sensor_cancels_nothing() -> None:
    """A kill of Submit (mark failed, mark success, clear) leaves its jobs to the next attempt, which adopts them."""
    for operator in (
        GeminiBatchPrepareOperator,
        GeminiBatchSubmitOperator,
        GeminiBatchLoadOperator,
        GeminiBatchWindowSensor,
    ):
        assert operator.on_kill is BaseOperator.on_kill
    assert GeminiBatchSensor.on_kill is not BaseOperator.on_kill
