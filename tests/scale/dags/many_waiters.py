"""Two hundred sensors, each waiting for a job of its own; which ones stands in a file beside this one."""

from __future__ import annotations

import json
from pathlib import Path

from airflow.sdk import dag

from airflow_provider_geminibatch import GeminiBatchSensor

NAMES = json.loads(Path(__file__).with_name("names.json").read_text())


@dag(schedule=None, catchup=False, max_active_tasks=64)
def many_waiters():
    GeminiBatchSensor.partial(task_id="wait", deadline=None).expand(job_names=[[name] for name in NAMES])


many_waiters()
