"""The crash matrix of a canary: every effect of the sample, and of the submission that leaves it out, goes wrong in every way.

The emulator's log and its bill have the last word: what a row may be paid twice is bounded, the verdict is decided once, and
whatever was kept is in no job.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_geminibatch.core.canary import Canary, CanaryVerdict
from airflow_provider_geminibatch.core.errors import CanaryFailed, GeminiBatchError
from airflow_provider_geminibatch.core.landing import Place, RunRef
from airflow_provider_geminibatch.core.ledger import Uploaded, attempt_path
from airflow_provider_geminibatch.core.model import Owner
from airflow_provider_geminibatch.core.names import generation_path
from airflow_provider_geminibatch.core.verdict import Thresholds
from airflow_provider_geminibatch.emulator import Emulator, Server, running
from airflow_provider_geminibatch.gemini.developer import DeveloperGateway, Settings
from airflow_provider_geminibatch.jobs import segments
from airflow_provider_geminibatch.jobs.budget import charged_usd
from airflow_provider_geminibatch.jobs.canary import pass_canary
from airflow_provider_geminibatch.jobs.collect import Landed, collect
from airflow_provider_geminibatch.jobs.kept import left_out
from airflow_provider_geminibatch.jobs.results import Desk
from airflow_provider_geminibatch.jobs.submit import Submitted, read_build, submit
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.landings import FileLanding, read_rows
from airflow_provider_geminibatch.storage.stores import MemoryStore
from tests.faults import WAYS, Crash, FaultyGateway, FaultyStore, Plan
from tests.jobs.batches import BATCH, seal

LOG = logging.getLogger("test")
START = datetime(2026, 11, 1, tzinfo=UTC)
GENERATION = generation_path(BATCH, 1)
SHARDS, ROWS, SAMPLE, SEGMENT = 2, 4, 3, 2
BOUND = 1 + SEGMENT
"""What a crash may pay again: the concurrency, and a segment."""

CANARY = Canary(rows=SAMPLE, max_share=0.5)
LIMIT = Decimal(20)


class Road:
    """A sealed batch on its way to its jobs, with a canary before them."""

    def __init__(self, server: Server) -> None:
        self.emulator = server.emulator
        self.emulator.reset()
        self.gateway = DeveloperGateway(Settings("key", server.url, timeout_seconds=10))
        self.store, self.landing = MemoryStore("memory://w"), MemoryStore("memory://l")
        self.manifest = seal(self.store, shards=SHARDS, rows=ROWS)
        self.build, self.tries = read_build(self.store, self.manifest.path), 0

    def now(self) -> datetime:
        return self.emulator.clock.now()

    def canary(self, plan: Plan) -> None:
        desk = self._desk(plan)
        assert pass_canary(desk, self.build, CANARY, limit_usd=LIMIT, concurrency=1) is None

    def submit(self, plan: Plan) -> None:
        desk = self._desk(plan)
        while True:
            end = submit(
                self.manifest, store=desk.store, gateway=desk.gateway, me=desk.me, now=self.now, log=LOG,
                later_try=self.tries > 2,
            )  # fmt: skip
            if isinstance(end, Submitted):
                return
            self.emulator.clock.advance(seconds=max(1.0, (end.until - self.now()).total_seconds()))

    def _desk(self, plan: Plan) -> Desk:
        self.tries += 1
        store: Any = FaultyStore(self.store, plan)
        gateway: Any = FaultyGateway(self.gateway, plan)
        return Desk(store, gateway, f"try-{self.tries}", self.now, LOG, lambda seconds: None)

    def stage(self, name: str, plan: Plan | None = None) -> None:
        """One task to its end: the disturbed try, then tries until one succeeds."""
        run: Callable[[Plan], None] = getattr(self, name)
        for one in (plan or Plan(), Plan(), Plan()):
            try:
                run(one)
            except CanaryFailed:
                raise
            except (Crash, GeminiBatchError):
                continue
            return
        run(Plan())

    def both(self) -> None:
        for name in STAGES:
            self.stage(name)

    def load(self) -> Landed:
        self.emulator.clock.advance(hours=24)
        return collect(
            [self.manifest], open_store=lambda uri: self.store, gateway=self.gateway, landing=Place("n", "memory://l", "jsonl"),
            landing_store=FileLanding(self.landing), window="w", owner=Owner("dag", "load"), run=RunRef("dag", "run", "load"),
            thresholds=Thresholds(), me="load", now=self.now, log=LOG,
        )  # fmt: skip

    def rows(self) -> list[tuple[Any, ...]]:
        return [(row["key"], row["outcome"], row["text"], row["shard"]) for row in read_rows(self.landing, "w")]

    def verdict(self) -> CanaryVerdict | None:
        return fact_store.get(self.store, f"{GENERATION}/canary/verdict.json", CanaryVerdict)

    def requests(self, route: str) -> int:
        return sum(one["requests"] for one in self.emulator.bill()["entries"] if one["route"] == route)


STAGES = ("canary", "submit")


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SEGMENT_ROWS", SEGMENT)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running(Emulator(seed=3, start=START, speed=0, turnaround=(2, 3))) as server:
        yield server


@pytest.fixture
def road(server: Server) -> Iterator[Road]:
    found = Road(server)
    with closing(found.gateway):
        yield found


def quiet() -> tuple[dict[str, list[str]], list[tuple[Any, ...]]]:
    """The effects of each stage when nothing goes wrong, and what lands."""
    emulator = Emulator(seed=3, start=START, speed=0, turnaround=(2, 3))
    with running(emulator) as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "SEGMENT_ROWS", SEGMENT)
        found, seen = Road(server), {}
        with closing(found.gateway):
            for name in STAGES:
                plan = Plan()
                found.stage(name, plan)
                seen[name] = plan.seen
            found.load()
            return seen, found.rows()


READS = ("store.read", "store.open", "gateway.file", "gateway.jobs", "gateway.job", "gateway.model")


def cases() -> Iterator[Any]:
    """Each effect in every way; of reads, which are the same to everybody, the first two of each object."""
    for stage, names in QUIET.items():
        seen = Counter[str]()
        for at, name in enumerate(names):
            reads = name.split(" ", maxsplit=1)[0] in READS
            seen[name] += 1
            for way in ("before", "frozen") if reads else WAYS:
                if not reads or seen[name] <= 2:
                    yield pytest.param(stage, at, way, id=f"{stage}-{at:02d}-{name.replace(' ', '-')}-{way}")


QUIET, UNDISTURBED = quiet()


@pytest.mark.parametrize(("stage", "at", "way"), list(cases()))
def test_whatever_goes_wrong_no_row_is_paid_by_the_canary_and_again_by_a_job(
    road: Road, stage: str, at: int, way: str
) -> None:
    for name in STAGES:
        # While one try is frozen, another goes all the way.
        road.stage(name, Plan(at, way, meanwhile=road.both) if name == stage else None)
    decided = road.verdict()
    assert decided is not None
    landed = road.load()

    assert road.rows() == UNDISTURBED
    assert SAMPLE <= road.requests("flex") <= SAMPLE + BOUND
    kept = [left_out(road.store, shard) for shard in road.build.shards]
    assert sum(map(len, kept)) == SAMPLE
    assert road.requests("batch") == SHARDS * ROWS - SAMPLE
    assert len(road.emulator.jobs) == SHARDS
    for shard, rows in zip(road.build.shards, kept, strict=True):
        uploads = [
            fact_store.get(road.store, attempt_path(shard.ledger, number, "uploaded"), Uploaded) for number in (1, 2)
        ]
        assert {frozenset(one.left_out) for one in uploads if one} == {rows}

    assert landed.cost_usd is not None
    assert landed.cost_usd >= Decimal(road.emulator.bill()["total_usd"]) > 0
    assert charged_usd(road.store, GENERATION, now=road.now) >= sum(
        Decimal(one["usd"]) for one in road.emulator.bill()["entries"] if one["route"] == "flex"
    )
    calls = road.requests("flex")
    road.stage("canary")
    assert road.verdict() == decided
    assert road.requests("flex") == calls


def test_an_undisturbed_canary_asks_each_row_once_and_its_verdict_comes_last() -> None:
    assert QUIET["canary"].count("gateway.generate") == SAMPLE
    writes = [name for name in QUIET["canary"] if name.startswith("store.create")]
    assert writes[-1] == "store.create verdict.json"
    assert writes.count("store.create canary.json") == SHARDS
    assert {row[3] for row in UNDISTURBED if row[3] == "canary"} == {"canary"}
    assert len(UNDISTURBED) == SHARDS * ROWS


EFFECTS = sorted({name for name in QUIET["canary"] if name.startswith("store.create") or name == "gateway.generate"})


@pytest.mark.parametrize("effect", EFFECTS)
@pytest.mark.parametrize("way", WAYS)
def test_whatever_goes_wrong_a_bad_canary_sends_nothing(server: Server, effect: str, way: str) -> None:
    road = Road(server)
    with closing(road.gateway):
        _cut_off(road)
        at = QUIET["canary"].index(effect)
        with pytest.raises(CanaryFailed, match="truncated"):
            road.stage("canary", Plan(at, way, meanwhile=lambda: _fails(road)))
        verdict = road.verdict()
        assert verdict is not None
        assert verdict.verdict == "stop"
        assert not road.emulator.jobs
        assert road.requests("flex") <= SAMPLE + BOUND


def _fails(road: Road) -> None:
    with pytest.raises(CanaryFailed):
        road.stage("canary")


def _cut_off(road: Road) -> None:
    """The same batch with answers of one token."""
    road.store = MemoryStore("memory://w")
    road.manifest = seal(road.store, shards=SHARDS, rows=ROWS, generationConfig={"maxOutputTokens": 1})
    road.build = read_build(road.store, road.manifest.path)
