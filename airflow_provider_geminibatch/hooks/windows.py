"""Which window a run belongs to, and which one lies an offset away.

The order: what the task was given, the run's partition key, the start of a data interval that is not empty, the logical
date. Airflow's times are pendulum's here; the core takes plain ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import pendulum

from airflow_provider_geminibatch.core.errors import BadWindow
from airflow_provider_geminibatch.core.names import window_text, window_time

Window = str | datetime
Offset = timedelta | pendulum.Duration


def window_of(context: Mapping[str, Any], window: Window | None = None, offset: Offset | None = None) -> str:
    """The run's window as text, moved by ``offset``. Raises BadWindow.

    A ``pendulum.duration`` moves the wall clock of the Dag's time zone, so that twelve hours before noon is midnight on
    every day of the year; a ``timedelta`` is elapsed time. In UTC they are the same.
    """
    text = as_window(window) if window not in (None, "") else _of_run(context)
    return text if offset is None else _moved(text, offset, _zone(context))


def as_window(value: object) -> str:
    """A window as text. Text that is a whole time with a zone counts as that time, since templates render to text."""
    if isinstance(value, str):
        value = _aware(value.strip()) or value.strip()
    if not isinstance(value, str | datetime):
        raise BadWindow(f"a {type(value).__name__} is neither a time nor text")
    try:
        return window_text(value)
    except ValueError as error:
        raise BadWindow(str(error)) from None


def _aware(text: str) -> datetime | None:
    if "T" not in text and " " not in text:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else None


def _of_run(context: Mapping[str, Any]) -> str:
    run = context.get("dag_run")

    def said(name: str) -> Any:
        return context.get(name) or getattr(run, name, None)

    if key := said("partition_key"):
        return as_window(str(key))
    start, end = said("data_interval_start"), said("data_interval_end")
    if start and end and start < end:
        return as_window(start)
    if logical := said("logical_date"):
        return as_window(logical)
    raise BadWindow(
        "this run has no partition key, no data interval and no logical date, as a run that an asset started"
    )


def _zone(context: Mapping[str, Any]) -> tzinfo:
    """The time zone that the Dag's schedule is written in, else the Dag's own."""
    dag = context.get("dag")
    timetable = getattr(dag, "timetable", None)
    for holder, name in ((timetable, "timezone"), (timetable, "_timezone"), (dag, "timezone")):
        zone = getattr(holder, name, None)
        if isinstance(zone, str):
            return pendulum.timezone(zone)
        if isinstance(zone, tzinfo):
            return zone
    return pendulum.UTC


def _moved(text: str, offset: Offset, zone: tzinfo) -> str:
    if time := window_time(text):
        return window_text(_shifted(time, offset, zone))
    for pattern in _WALL_CLOCK:
        naive = _parsed(text, pattern)
        if naive is not None:
            return _shifted(naive.replace(tzinfo=zone), offset, zone).astimezone(zone).strftime(pattern)
    raise BadWindow(f"window_offset cannot be added to {text!r}, which is not a time")


# Partition keys are local times without a zone, in the format of the timetable; these are the usual ones.
_WALL_CLOCK = ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H", "%Y-%m-%d", "%Y%m%d")


def _parsed(text: str, pattern: str) -> datetime | None:
    try:
        time = datetime.strptime(text, pattern)  # noqa: DTZ007 - the zone is the schedule's and put on by the caller
    except ValueError:
        return None
    return time if time.strftime(pattern) == text else None


def _shifted(time: datetime, offset: Offset, zone: tzinfo) -> datetime:
    if not isinstance(offset, pendulum.Duration):
        return (time.astimezone(UTC) + offset).astimezone(zone)
    local = pendulum.instance(time).in_timezone(zone)  # type: ignore[arg-type]  # any zone that pendulum or Airflow made
    moved = local.naive() + offset
    return datetime(*moved.timetuple()[:6], moved.microsecond, tzinfo=zone, fold=local.fold)
