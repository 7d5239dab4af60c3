"""Landings as Dags see them: one value that producer and consumer import, its asset, and readers of what landed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import Asset

from airflow_provider_geminibatch.core.landing import Place
from airflow_provider_geminibatch.core.names import window_time
from airflow_provider_geminibatch.hooks.storage import is_local, open_store, whole
from airflow_provider_geminibatch.hooks.windows import Window, as_window


@dataclass(frozen=True)
class Landing:
    """The place where windows of outcomes lie for others to read.

    :param name: Name of the landing and of its asset; unique in an Airflow installation.
    :param uri: Folder, as a whole path or URI; ``scheme://conn_id@bucket/folder`` uses an Airflow connection.
    :param format: ``parquet`` or ``jsonl``.
    :param owner: ``dag_id.task_id`` of the task that lands here, for Dags that wait for windows of another Dag.
    """

    name: str
    uri: str
    format: str = "parquet"
    owner: str | None = None

    def __post_init__(self) -> None:
        # What cannot work is told while the Dag is parsed.
        Place(self.name, self.uri, self.format)
        whole(self.uri)

    @property
    def asset(self) -> Asset:
        """The asset that is updated when a window has landed. Its URI is fixed and names no connection."""
        return Asset(name=self.name, uri=_public(self.uri), group="geminibatch")

    @property
    def place(self) -> Place:
        """The same for the package's own layers."""
        return Place(name=self.name, uri=self.uri, format=self.format)

    def serialize(self) -> dict[str, Any]:
        """What Airflow shows of it and compares between two parses of the Dag."""
        return {"name": self.name, "uri": self.uri, "format": self.format, "owner": self.owner}


def _public(uri: str) -> str:
    if is_local(uri):
        return "file://" + uri.removeprefix("file://")
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def read_window(landing: Landing, window: Window, *, any_verdict: bool = False) -> Iterator[dict[str, Any]]:
    """The rows of one window, through its manifest: the old commit or the new one, whole, never a mixture.

    :param landing: Where to read.
    :param window: The window, as text or as an aware time.
    :param any_verdict: Also read rows that were rejected or are incomplete.

    Raises WindowNotLanded when there is no accepted commit.
    """
    from airflow_provider_geminibatch.storage.landings import read_rows

    yield from read_rows(open_store(landing.uri), as_window(window), any_verdict=any_verdict)


def landed_windows(context: Mapping[str, Any], landing: Landing | None = None) -> list[dict[str, Any]]:
    """The windows whose landing started this run: oldest first, of each window its newest event.

    Airflow may fold several events into one run. Each dict holds what Load wrote into the event (``window``,
    ``landing``, ``uri``, ``counts``, ``cost_usd`` …), so that a task can be mapped over the list. Empty for a run that
    no landing started.

    :param context: The task's context.
    :param landing: Only windows of this landing; all by default.
    """
    newest: dict[tuple[str, str], Any] = {}
    for events in (context.get("triggering_asset_events") or {}).values():
        for event in events:
            extra = event.extra or {}
            if "window" not in extra or "landing" not in extra or (landing and extra["landing"] != landing.name):
                continue
            key = (extra["landing"], extra["window"])
            if key not in newest or newest[key].timestamp < event.timestamp:
                newest[key] = event
    return [dict(event.extra) for event in sorted(newest.values(), key=_age)]


def _age(event: Any) -> tuple[datetime, str]:
    """What windows are ordered by: their own time, or the event's for a window that is no time."""
    return window_time(event.extra["window"]) or event.timestamp, event.extra["window"]
