"""Landings as Dags see them: one value that producer and consumer import, its asset, and readers of what landed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import Asset, AssetAlias

from airflow_provider_geminibatch.core.bigquery import landing_of
from airflow_provider_geminibatch.core.landing import BIGQUERY, SQL, TABLES, Place
from airflow_provider_geminibatch.core.names import window_time
from airflow_provider_geminibatch.hooks.storage import is_local, open_store, whole
from airflow_provider_geminibatch.hooks.windows import Window, as_window

if TYPE_CHECKING:
    from airflow_provider_geminibatch.storage.landing_store import LandingStore


@dataclass(frozen=True)
class Landing:
    """The place where windows of outcomes lie for others to read.

    :param name: Name of the landing and of its asset; unique in an Airflow installation.
    :param uri: Folder, as a whole path or URI; ``scheme://conn_id@bucket/folder`` uses an Airflow connection.
        ``sql://conn_id@/schema.table`` lands in a table, through any Airflow connection with a SQL hook, and
        ``bigquery://conn_id@/project.dataset.table`` in one of BigQuery, through a connection of Vertex AI.
    :param format: ``parquet`` or ``jsonl``; a table has none to choose.
    :param owner: ``dag_id.task_id`` of the task that lands here, for Dags that wait for windows of another Dag.
    :param parts: Names of the parts of a window, where several tasks land it together, each with ``part=``. The window
        is there when all of them are.
    :param typed: Whether each property of answers with a response schema has a column of its own, ``value_<property>``, of
        the type that the schema gives it; for Parquet and tables.
    :param keep: What else lands of every row: ``thoughts``, what the model thought where it tells; ``raw``, the result line.
    """

    name: str
    uri: str
    format: str = ""
    owner: str | None = None
    parts: tuple[str, ...] = ()
    typed: bool = False
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.format:
            object.__setattr__(self, "format", SQL if self.uri.startswith(TABLES) else "parquet")
        if not isinstance(self.parts, str):
            object.__setattr__(self, "parts", tuple(self.parts))
        if not isinstance(self.keep, str):
            object.__setattr__(self, "keep", tuple(self.keep))
        # What cannot work is told while the Dag is parsed.
        if self.uri.startswith(f"{BIGQUERY}://"):
            landing_of(self.uri)
        elif self.place.in_sql:
            from airflow_provider_geminibatch.storage.sql_tables import table_of

            table_of(self.uri)
        else:
            whole(self.uri)

    @property
    def asset(self) -> Asset:
        """The asset that is updated when a window has landed. Its URI is fixed and names no connection."""
        return Asset(name=self.name, uri=_public(self.uri), group="geminibatch")

    @property
    def outlet(self) -> Asset | AssetAlias:
        """What a task that lands here has as outlet.

        Airflow updates an asset after every success of a task that has it as outlet. The task that lands a part does not
        always complete the window: it has an alias, which updates the asset only when it is told to.
        """
        return AssetAlias(f"{self.name} in parts", group="geminibatch") if self.parts else self.asset

    def announce(self, context: Mapping[str, Any], extra: dict[str, Any]) -> None:
        """Say what goes into the asset event of the running task."""
        event = context["outlet_events"][self.outlet]
        if self.parts:
            event.add(self.asset, extra=extra)
        else:
            event.extra = extra

    @property
    def place(self) -> Place:
        """The same for the package's own layers."""
        return Place(
            name=self.name, uri=self.uri, format=self.format, parts=self.parts, typed=self.typed, keep=self.keep
        )

    def serialize(self) -> dict[str, Any]:
        """What Airflow shows of it and compares between two parses of the Dag."""
        shown = {"name": self.name, "uri": self.uri, "format": self.format, "owner": self.owner}
        more = {"parts": list(self.parts), "typed": self.typed, "keep": list(self.keep)}
        return shown | {name: value for name, value in more.items() if value}


def outlets_with(landing: Landing, given: Any) -> list[Any]:
    """The outlets of a task that lands there: those it was given, and the landing's own once."""
    # Of a mapped task the asset may have been named in partial(); of a landing in parts it must not be an outlet itself.
    others = [outlet for outlet in given or () if not (landing.parts and outlet == landing.asset)]
    return others if landing.outlet in others else [*others, landing.outlet]


def open_landing(uri: str) -> LandingStore:
    """The landing at ``uri``, files or tables. Raises Unusable, StoreUnreadable."""
    from airflow_provider_geminibatch.storage.landings import FileLanding

    if uri.startswith(f"{BIGQUERY}://"):
        from airflow_provider_geminibatch.hooks.bigquery import open_bigquery_landing

        return open_bigquery_landing(uri)
    if uri.startswith(f"{SQL}://"):
        from airflow_provider_geminibatch.hooks.sql_landing import open_sql_landing

        return open_sql_landing(uri)
    return FileLanding(open_store(uri))


def _public(uri: str) -> str:
    if is_local(uri):
        return "file://" + uri.removeprefix("file://")
    if uri.startswith(f"{BIGQUERY}://"):
        # As the Google provider wants it, where that is installed (AIP-60).
        return f"{BIGQUERY}://{'/'.join(landing_of(uri)[1])}"
    parts = urlsplit(uri)
    # Airflow takes the empty place out of sql:///table.
    return parts._replace(netloc=parts.netloc.rpartition("@")[2] or "database").geturl()


def read_window(landing: Landing, window: Window, *, any_verdict: bool = False) -> Iterator[dict[str, Any]]:
    """The rows of one window, through its manifest: the old commit or the new one, whole, never a mixture.

    Of a window in parts the rows of all of them, one part after the other.

    :param landing: Where to read.
    :param window: The window, as text or as an aware time.
    :param any_verdict: Also read rows that were rejected or are incomplete.

    Raises WindowNotLanded when there is no accepted commit.
    """
    yield from open_landing(landing.uri).rows(as_window(window), parts=landing.parts, any_verdict=any_verdict)


def open_media(landing: Landing, window: Window, path: str) -> BinaryIO:
    """Open an image, or whatever else came inside an answer, for reading.

    :param landing: Where the window lies.
    :param window: The window, as text or as an aware time.
    :param path: ``path`` of one of the row's ``extra["inlineData"]``.

    Raises Unusable for a path of another commit, say of one that was replaced since.
    """
    return open_landing(landing.uri).open_media(as_window(window), path, parts=landing.parts)


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
