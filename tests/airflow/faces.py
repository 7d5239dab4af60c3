"""What Airflow gives a task, as far as the faces look at it: a task instance, a run, a context."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from types import SimpleNamespace
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import pendulum

RUN = "scheduled__2018-01-31T00:00:00+00:00"


class _Event:
    def __init__(self) -> None:
        self.extra: dict[str, Any] = {}
        self.added: list[tuple[Any, dict[str, Any]]] = []

    def add(self, asset: Any, extra: dict[str, Any]) -> None:
        self.added.append((asset, extra))


class Outlets:
    """``outlet_events``: every asset has an event whose ``extra`` may be set, every alias one that assets may be added to.
    ``named`` holds those that were asked for."""

    def __init__(self) -> None:
        self.named: dict[str, Any] = {}

    def __getitem__(self, asset: Any) -> Any:
        # By name, since assets of Airflow 3.1 cannot be keys.
        return self.named.setdefault(asset.name, _Event())


def context(
    task_id: str = "task",
    *,
    dag_id: str = "dag",
    run_id: str = RUN,
    map_index: int = -1,
    try_number: int = 1,
    max_tries: int = 0,
    zone: Any = pendulum.UTC,
    timetable_zone: Any = None,
    tasks: Iterable[Any] = (),
    **more: Any,
) -> dict[str, Any]:
    """A context; the id of the task instance changes with its try, as Airflow's does."""
    ti = SimpleNamespace(
        id=uuid5(NAMESPACE_OID, f"{dag_id}{run_id}{task_id}{map_index}{try_number}{max_tries}"),
        dag_id=dag_id,
        run_id=run_id,
        task_id=task_id,
        map_index=map_index,
        try_number=try_number,
        max_tries=max_tries,
        pushed={},
    )
    ti.xcom_push = lambda key, value: ti.pushed.update({key: value})
    dag = SimpleNamespace(
        dag_id=dag_id, timezone=zone, timetable=SimpleNamespace(timezone=timetable_zone), tasks=list(tasks)
    )
    run = SimpleNamespace(run_id=run_id, start_date=None, conf={}, partition_key=None)
    made = {"ti": ti, "task_instance": ti, "dag": dag, "dag_run": run, "run_id": run_id, "outlet_events": Outlets()}
    return made | more


def interval(start: datetime, end: datetime) -> dict[str, datetime]:
    """The part of a context that a run with a data interval has."""
    return {"logical_date": start, "data_interval_start": start, "data_interval_end": end}


def connection(url: str, key: str = "key-one", **extra: Any) -> str:
    """The value of ``AIRFLOW_CONN_…`` for a service at ``url``."""
    return json.dumps({"conn_type": "geminibatch", "password": key, "host": url, "extra": extra})
