"""A batch whose requests lie in the emulated BigQuery, on its way from the query to a window; and faults at its effects."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from airflow_provider_geminibatch.core.bigquery import dataset_of
from airflow_provider_geminibatch.core.errors import GeminiBatchError, ServiceBusy
from airflow_provider_geminibatch.core.landing import Place, RunRef
from airflow_provider_geminibatch.core.manifest import Manifest
from airflow_provider_geminibatch.core.model import BatchId, Owner
from airflow_provider_geminibatch.core.verdict import Thresholds
from airflow_provider_geminibatch.emulator import Emulator, Server
from airflow_provider_geminibatch.gemini.vertex import VertexGateway, VertexSettings
from airflow_provider_geminibatch.jobs.collect import Landed, collect
from airflow_provider_geminibatch.jobs.ending import note_ends, read_batch
from airflow_provider_geminibatch.jobs.prepare import Declaration, Prepared, prepare
from airflow_provider_geminibatch.jobs.request_tables import AskedInTables
from airflow_provider_geminibatch.jobs.submit import Submitted, submit
from airflow_provider_geminibatch.storage import landings
from airflow_provider_geminibatch.storage.landings import FileLanding
from airflow_provider_geminibatch.storage.stores import MemoryStore
from tests.faults import Crash, FaultyGateway, FaultyStore, Plan

LOG = logging.getLogger("test")
START = datetime(2026, 11, 1, tzinfo=UTC)
PLACE = "us-central1"
SOURCE = "bq://p-one.d.reviews"
QUERY = "SELECT id, request, stars FROM `p-one.d.reviews`"
MODEL = "gemini-3.8-flash"
BATCH = BatchId("dag", "run", "prepare")
WINDOW = "20261101T000000Z"
ROWS = 5


def asking(text: str, **fields: Any) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": [{"text": text}]}], **fields}


def fill(emulator: Emulator, rows: int = ROWS, kind: str = "JSON", place: str = PLACE, **fields: Any) -> None:
    """The data set and the table that the query reads."""
    emulator.tables.make_dataset("p-one.d", place)
    schema = [{"name": "id", "type": "STRING"}, {"name": "request", "type": kind}, {"name": "stars", "type": "INTEGER"}]
    made = [
        {"id": f"k{at}", "request": json.dumps(asking(f"row {at}", **fields)), "stars": at}
        for at in reversed(range(rows))
    ]
    emulator.tables.write_table(SOURCE, schema, made)


def gateway_to(server: Server, location: str = PLACE) -> VertexGateway:
    return VertexGateway(VertexSettings("p-one", location, endpoint=server.url, timeout_seconds=10))


class FaultyTables:
    """The door to BigQuery, whose effects go by a plan."""

    def __init__(self, inner: Any, plan: Plan) -> None:
        self._inner, self._plan = inner, plan

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._inner, name)
        if name not in ("run", "delete", "expire", "table", "location", "columns_of", "rows"):
            return member

        def lost() -> Any:
            raise ServiceBusy(name, None, "the reply was lost")

        return lambda *args, **kwargs: self._plan.run(f"tables.{name}", lambda: member(*args, **kwargs), lost)


class TableGateway(FaultyGateway):
    """A faulty gateway whose tables are faulty too."""

    @property
    def tables(self) -> Any:
        return FaultyTables(self._inner.tables, self._plan)


@dataclass
class Road:
    """One batch on its way."""

    emulator: Emulator
    gateway: VertexGateway
    store: MemoryStore = field(default_factory=lambda: MemoryStore("memory://ws"))
    landing: MemoryStore = field(default_factory=lambda: MemoryStore("memory://landing"))
    tries: int = 0
    max_tries: int = 2
    query: str = QUERY
    columns: tuple[str, ...] = ("*",)
    rows_per_shard: int = 3
    dataset: str = "p-one.d"
    location: str = PLACE
    schema: dict[str, Any] | None = None

    def now(self) -> datetime:
        return self.emulator.clock.now()

    def prepared(self, plan: Plan | None = None) -> Prepared:
        gateway = TableGateway(self.gateway, plan) if plan else self.gateway
        asked = AskedInTables(
            gateway.tables, "p-one", self.location, dataset_of(self.dataset), self.query, "id", "request", self.columns,
            "the query", self.schema,
        )  # fmt: skip
        declared = Declaration(
            model=MODEL, source_name="the query", route="vertex", max_rows_per_shard=self.rows_per_shard
        )
        store = FaultyStore(self.store, plan) if plan else self.store
        return prepare(
            declared, lambda: iter(()), store=store, workspace_id="w", batch=BATCH, service=self.gateway.identity,
            me=self._me(), now=self.now, log=LOG, max_tries=self.max_tries, in_bigquery=asked,
        )  # fmt: skip

    def prepare(self, plan: Plan | None = None) -> Manifest:
        return self.prepared(plan).manifest

    @property
    def manifest(self) -> Manifest:
        return self.prepare()

    def submit(self, plan: Plan | None = None, max_tries: int = 2) -> Submitted:
        me, later, manifest = self._me(), self.tries > 2, self.manifest
        gateway = TableGateway(self.gateway, plan) if plan else self.gateway
        store = FaultyStore(self.store, plan) if plan else self.store
        while True:
            end = submit(
                manifest, store=store, gateway=gateway, me=me, now=self.now, log=LOG, max_tries=max_tries,
                later_try=later,
            )  # fmt: skip
            if isinstance(end, Submitted):
                return end
            self.emulator.clock.advance(seconds=max((end.until - self.now()).total_seconds(), 1))

    def end(self, plan: Plan | None = None) -> None:
        batch = read_batch(self.manifest, self.store).whole()
        seen = {job.name: self.gateway.job(job.name) for job in batch.jobs}
        note_ends(self.store, batch, seen, owner=self._me(), now=self.now())

    def load(self, plan: Plan | None = None, thresholds: Thresholds | None = None) -> Landed:
        gateway = TableGateway(self.gateway, plan) if plan else self.gateway
        store = FaultyStore(self.store, plan) if plan else self.store
        return collect(
            [self.manifest], open_store=lambda _: store, gateway=gateway,
            landing=Place("answers", "memory://landing", "jsonl"), landing_store=FileLanding(self.landing), window=WINDOW,
            owner=Owner("dag", "load"), run=RunRef("dag", "run", "load"), thresholds=thresholds or Thresholds(),
            me=self._me(), now=self.now, log=LOG, sleep=lambda seconds: None,
        )  # fmt: skip

    def _me(self) -> str:
        self.tries += 1
        return f"try-{self.tries}"

    def stage(self, name: str, plan: Plan | None = None) -> None:
        """One task to its end: the disturbed try, then tries until one succeeds."""
        run: Callable[..., object] = getattr(self, name)
        for each in (plan, None, None):
            try:
                run(each)
                return
            except (Crash, GeminiBatchError):
                continue
        run()

    def whole(self, disturbed: str = "", plan: Plan | None = None) -> None:
        for name in STAGES:
            self.stage(name, plan if name == disturbed else None)
            if name == "submit":
                self.emulator.clock.advance(hours=30)

    def landed(self) -> list[dict[str, Any]]:
        return list(landings.read_rows(self.landing, WINDOW))

    def table_names(self) -> list[str]:
        """The tables that are ours."""
        shown = self.emulator.tables.known
        return sorted(name.rpartition(".")[2] for name in shown if ".gb1_" in name)


STAGES = ("prepare", "submit", "end", "load")
