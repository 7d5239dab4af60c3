"""The crash matrix: from rows to a committed window, with every effect going wrong in every way.

Each stage is a task of its own, as in a Dag: one that dies or fails is tried again until it succeeds. The service is the
emulator over HTTP, and its log and its bill have the last word.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_geminibatch.core.embed_template import EmbedTemplate
from airflow_provider_geminibatch.core.errors import GeminiBatchError
from airflow_provider_geminibatch.core.landing import Place, RunRef
from airflow_provider_geminibatch.core.manifest import Manifest
from airflow_provider_geminibatch.core.model import BatchId, Owner
from airflow_provider_geminibatch.core.template import RequestTemplate
from airflow_provider_geminibatch.core.verdict import Thresholds
from airflow_provider_geminibatch.emulator import Emulator, Server, running
from airflow_provider_geminibatch.gemini.gateway import Gateway
from airflow_provider_geminibatch.jobs.cancel import Target, cancel_jobs
from airflow_provider_geminibatch.jobs.collect import Landed, collect
from airflow_provider_geminibatch.jobs.ending import note_ends, read_batch
from airflow_provider_geminibatch.jobs.lookup import pages
from airflow_provider_geminibatch.jobs.prepare import Declaration, prepare
from airflow_provider_geminibatch.jobs.submit import Submitted, submit
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage import landings
from airflow_provider_geminibatch.storage.landings import FileLanding
from airflow_provider_geminibatch.storage.stores import MemoryStore
from tests.faults import WAYS, Crash, FaultyGateway, FaultyStore, Plan, crash_cases
from tests.routes import DEVELOPER, VERTEX, Route

LOG = logging.getLogger("test")
START = datetime(2026, 11, 1, tzinfo=UTC)
ROWS = [{"id": f"k{number}", "text": f"row {number}", "region": "eu"} for number in range(5)]
DECLARATION = Declaration(
    model="gemini-3.8-flash",
    source_name="rows",
    template=RequestTemplate(prompt="Say $text", key="$id", columns=("region",)),
    max_rows_per_shard=3,
)
BATCH = BatchId("dag", "run", "prepare")
WINDOW = "20261101T000000Z"


@pytest.fixture
def service() -> Iterator[tuple[Emulator, Server]]:
    emulator = Emulator(seed=3, start=START, speed=0, turnaround=(1, 2))
    with running(emulator) as server:
        yield emulator, server


@dataclass
class Road:
    """One batch on its way; ``plans`` holds what goes wrong in which stage."""

    emulator: Emulator
    gateway: Gateway
    declaration: Declaration = DECLARATION
    store: MemoryStore = field(default_factory=lambda: MemoryStore("memory://ws"))
    landing: MemoryStore = field(default_factory=lambda: MemoryStore("memory://landing"))
    tries: int = 0

    def now(self) -> datetime:
        return self.emulator.clock.now()

    def prepare(self, plan: Plan) -> Manifest:
        return prepare(
            self.declaration, lambda: iter(ROWS), store=self._store(plan), workspace_id="w", batch=BATCH,
            service=self.gateway.identity, me=self._me(), now=self.now, log=LOG, max_tries=2,
        ).manifest  # fmt: skip

    def submit(self, plan: Plan) -> Submitted:
        me, later = self._me(), self.tries > 2
        while True:
            end = submit(
                self.manifest, store=self._store(plan), gateway=self._gateway(plan), me=me, now=self.now, log=LOG,
                max_tries=2, later_try=later,
            )  # fmt: skip
            if isinstance(end, Submitted):
                return end
            self.emulator.clock.advance(seconds=max((end.until - self.now()).total_seconds(), 1))

    def end(self, plan: Plan) -> None:
        store, gateway = self._store(plan), self._gateway(plan)
        batch = read_batch(self.manifest, store).whole()
        seen = {job.name: gateway.job(job.name) for job in batch.jobs}
        note_ends(store, batch, seen, owner=self._me(), now=self.now())

    def load(self, plan: Plan) -> Landed:
        store = self._store(plan)
        return collect(
            [self.manifest], open_store=lambda _: store, gateway=self._gateway(plan),
            landing=Place("answers", "memory://landing", "jsonl"),
            landing_store=FileLanding(FaultyStore(self.landing, plan)), window=WINDOW,
            owner=Owner("dag", "load"), run=RunRef("dag", "run", "load"), thresholds=Thresholds(), me=self._me(),
            now=self.now, log=LOG, sleep=lambda seconds: None,
        )  # fmt: skip

    @property
    def manifest(self) -> Manifest:
        """What Prepare gave, as XCom would carry it: asking again reads the sealed build and no rows."""
        return self.prepare(Plan())

    def _me(self) -> str:
        self.tries += 1
        return f"try-{self.tries}"

    def _store(self, plan: Plan) -> Any:
        return FaultyStore(self.store, plan)

    def _gateway(self, plan: Plan) -> Any:
        return FaultyGateway(self.gateway, plan)

    def stage(self, name: str, plan: Plan | None = None) -> None:
        """One task to its end: the disturbed try, then tries until one succeeds."""
        run: Callable[[Plan], object] = getattr(self, name)
        if plan is not None and self._survives(run, plan):
            return
        for _ in range(3):
            if self._survives(run, Plan()):
                return
        run(Plan())

    @staticmethod
    def _survives(run: Callable[[Plan], object], plan: Plan) -> bool:
        try:
            run(plan)
        except (Crash, GeminiBatchError):
            return False
        return True

    def whole(self, disturbed: str = "", plan: Plan | None = None) -> None:
        for name in STAGES:
            self.stage(name, plan if name == disturbed else None)
            if name == "submit":
                self.emulator.clock.advance(hours=3)

    def rows(self) -> list[dict[str, Any]]:
        return list(landings.read_rows(self.landing, WINDOW))


STAGES = ("prepare", "submit", "end", "load")


def fresh(service: tuple[Emulator, Server], declaration: Declaration = DECLARATION, route: Route = DEVELOPER) -> Road:
    emulator, server = service
    return Road(emulator, route.opened(server.url), declaration)


COLUMNS = ("key", "outcome", "text", "region", "cost_usd")


def quiet(
    declaration: Declaration = DECLARATION, columns: tuple[str, ...] = COLUMNS, route: Route = DEVELOPER
) -> tuple[dict[str, list[str]], list[tuple[Any, ...]]]:
    """The effects of each stage on an undisturbed road, and the rows that it lands."""
    emulator = Emulator(seed=3, start=START, speed=0, turnaround=(1, 2))
    with running(emulator) as server:
        road = fresh((emulator, server), declaration, route)
        with closing(road.gateway):
            seen = {}
            for name in STAGES:
                plan = Plan()
                road.stage(name, plan)
                seen[name] = plan.seen
                if name == "submit":
                    emulator.clock.advance(hours=3)
            return seen, [tuple(row[name] for name in columns) for row in road.rows()]


QUIET, UNDISTURBED = quiet()
CASES = crash_cases(QUIET)


@pytest.mark.parametrize(("stage", "at", "way"), CASES)
def test_whatever_goes_wrong_the_window_lands_once_and_is_paid_once(
    service: tuple[Emulator, Server], stage: str, at: int, way: str
) -> None:
    road = fresh(service)
    with closing(road.gateway):
        road.whole(stage, Plan(at, way, meanwhile=lambda: road.stage(stage)))

        assert [tuple(row[name] for name in COLUMNS) for row in road.rows()] == UNDISTURBED
        _paid_once(road)
        _books_in_order(road)


QUIET_VERTEX, UNDISTURBED_VERTEX = quiet(route=VERTEX)


def _differs(effect: str) -> bool:
    """What the route changes: how the service is spoken to, and the facts that stand right around that."""
    return effect.startswith("gateway.") or effect.endswith((".uploaded", ".sending", ".job"))


VERTEX_CASES = crash_cases({stage: QUIET_VERTEX[stage] for stage in ("submit", "end", "load")}, _differs)


@pytest.mark.parametrize(("stage", "at", "way"), VERTEX_CASES)
def test_on_vertex_ai_too_the_window_lands_once_and_is_paid_once(
    service: tuple[Emulator, Server], stage: str, at: int, way: str
) -> None:
    road = fresh(service, route=VERTEX)
    with closing(road.gateway):
        road.whole(stage, Plan(at, way, meanwhile=lambda: road.stage(stage)))

        assert [tuple(row[name] for name in COLUMNS) for row in road.rows()] == UNDISTURBED_VERTEX
        _paid_once(road)
        _books_in_order(road)


def test_both_routes_walk_the_same_way() -> None:
    for stage, names in QUIET.items():
        ours, theirs = ([name for name in each if name.startswith("gateway.")] for each in (QUIET_VERTEX[stage], names))
        assert [name for name in ours if "chunk" not in name] == [name for name in theirs if "chunk" not in name]


def _paid_once(road: Road) -> None:
    names = [job.display_name for job in road.emulator.jobs]
    if road.gateway.identity.route == "vertex":
        # A create that wakes up after its input is gone makes a job there; it ends for want of its input, and costs nothing.
        assert len(names) == len(set(names)) <= 3
        ended = [road.gateway.job(job.name) for page in pages(road.gateway) for job in page.jobs]
        names = [job.display_name for job in ended if job.counts.succeeded]
    assert len(names) == len(set(names)) == 2
    manifest = landings.read_manifest(road.landing, WINDOW)
    assert manifest is not None
    assert Decimal(manifest.cost_usd or 0) >= Decimal(road.emulator.bill()["total_usd"]) > 0


def _books_in_order(road: Road) -> None:
    """No accepted manifest names a missing part, no part lies about, and nothing is left open or claimed."""
    manifest = landings.read_manifest(road.landing, WINDOW)
    assert manifest is not None
    assert manifest.passes
    names = (path.rpartition("/")[2] for path in road.landing.list("window=" + WINDOW))
    parts = {name for name in names if not name.startswith(("_manifest.json", "_report-"))}
    assert parts == {part.path for part in manifest.parts}
    build = read_batch(road.manifest, road.store)
    assert all(fact_store.shard_facts(road.store, job.ledger).last.collected for job in build.jobs)  # type: ignore[union-attr]
    assert list(road.store.list("open")) == []
    assert len(list(road.store.list("index"))) == 1


VECTORS = Declaration(
    model="gemini-embedding-2",
    source_name="rows",
    template=EmbedTemplate("Say $text", key="$id", output_dimensionality=4, columns=("region",)),
    max_rows_per_shard=3,
)
VECTOR_COLUMNS = ("key", "outcome", "embedding", "region", "cost_usd")
QUIET_VECTORS, UNDISTURBED_VECTORS = quiet(VECTORS, VECTOR_COLUMNS)


def test_a_batch_of_embeddings_walks_the_same_way() -> None:
    for stage, names in QUIET.items():
        # Names of models are in some paths, and a row of vectors may take another number of writes.
        ours, theirs = (
            [name for name in each if name.startswith("gateway.")] for each in (QUIET_VECTORS[stage], names)
        )
        assert ours == theirs
    assert [len(row[2]) for row in UNDISTURBED_VECTORS] == [4] * len(ROWS)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("stage", "effect"), [("submit", "gateway.create"), ("load", "gateway.download-chunk")])
def test_vectors_land_once_and_are_paid_once_whatever_goes_wrong(
    service: tuple[Emulator, Server], stage: str, effect: str, way: str
) -> None:
    road = fresh(service, VECTORS)
    with closing(road.gateway):
        at = QUIET_VECTORS[stage].index(effect)
        road.whole(stage, Plan(at, way, meanwhile=lambda: road.stage(stage)))

        assert [tuple(row[name] for name in VECTOR_COLUMNS) for row in road.rows()] == UNDISTURBED_VECTORS
        _paid_once(road)
        _books_in_order(road)


def test_every_stage_has_effects_and_the_create_is_one_per_shard() -> None:
    assert [len(names) > 3 for names in QUIET.values()] == [True] * len(STAGES)
    assert QUIET["submit"].count("gateway.create") == 2


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("at", range(30))
def test_a_cancel_ends_all_jobs_whatever_goes_wrong(service: tuple[Emulator, Server], at: int, way: str) -> None:
    road = fresh(service)
    with closing(road.gateway):
        road.stage("prepare")
        road.stage("submit")

        def cancelling(plan: Plan) -> None:
            store, gateway = FaultyStore(road.store, plan), FaultyGateway(road.gateway, plan)
            for job in read_batch(road.manifest, store).jobs:  # one by one: eight at a time have no order to count by
                done = cancel_jobs(
                    [Target(job.name, store, job.place)], gateway, owner="x", why="teardown", now=road.now()
                )
                for error in done.failed.values():
                    raise error

        plan = Plan(at, way, meanwhile=lambda: cancelling(Plan()))
        if not Road._survives(cancelling, plan):
            cancelling(Plan())

        assert {road.gateway.job(job.name).state for job in road.emulator.jobs} == {"CANCELLED"}
        assert all(job.attempt.cancel for job in read_batch(road.manifest, road.store).jobs)


def test_the_settle_time_is_what_the_service_says_not_the_workers_clock(service: tuple[Emulator, Server]) -> None:
    """A worker whose clock runs an hour ahead still waits the settle time of the service."""
    road = fresh(service)
    with closing(road.gateway):
        road.stage("prepare")
        create = QUIET["submit"].index("gateway.create")
        with pytest.raises(Crash):
            road.submit(Plan(create, "before"))
        ahead = timedelta(hours=1)
        began = road.now()

        while True:
            end = submit(
                road.manifest, store=road.store, gateway=road.gateway, me="ahead", now=lambda: road.now() + ahead, log=LOG,
                max_tries=2, later_try=True,
            )  # fmt: skip
            if isinstance(end, Submitted):
                break
            road.emulator.clock.advance(seconds=max((end.until - road.now() - ahead).total_seconds(), 1))

        assert road.now() - began >= timedelta(minutes=10)
        assert len(road.emulator.jobs) == 2
