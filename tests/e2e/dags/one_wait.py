"""A task, a wait without a worker, a task: the least that needs all four processes of Airflow."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.standard.sensors.time_delta import TimeDeltaSensor
from airflow.sdk import dag, task


@dag(schedule=None, catchup=False)
def one_wait():
    @task
    def first() -> int:
        return 20

    @task
    def last(value: int) -> int:
        return value + 1

    began = first()
    waited = TimeDeltaSensor(task_id="waited", delta=timedelta(seconds=8), deferrable=True, retries=2)
    began >> waited >> last(began)


one_wait()
