"""A whole batch against the emulator, over HTTP: what lands, by when, and that the bill is not above what we say."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_geminibatch.core.batch import BatchPolicy, Rung
from airflow_provider_geminibatch.core.errors import GeminiBatchError, WaitTimedOut
from airflow_provider_geminibatch.core.landing import Place, RunRef
from airflow_provider_geminibatch.core.model import Owner
from airflow_provider_geminibatch.core.verdict import Thresholds
from airflow_provider_geminibatch.emulator import Emulator, Server, running
from airflow_provider_geminibatch.jobs.collect import Landed
from airflow_provider_geminibatch.jobs.whole import Waiting, walk
from airflow_provider_geminibatch.storage.landings import FileLanding, read_rows
from airflow_provider_geminibatch.storage.stores import MemoryStore
from tests.faults import WAYS, Crash, FaultyGateway, FaultyStore, Plan
from tests.jobs.batches import seal
from tests.routes import DEVELOPER, Route, both

LOG = logging.getLogger("test")
START = datetime(2026, 11, 1, tzinfo=UTC)
ALL = Thresholds(max_unresolved=1.0)
FLEX = BatchPolicy(deadline=timedelta(hours=11), ladder=(Rung("flex", limit=timedelta(hours=1)),))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running(Emulator(seed=3, start=START, speed=0, turnaround=(2, 3))) as server:
        yield server


class World:
    """One batch against an emulator whose clock is stepped."""

    def __init__(self, server: Server, route: Route, *, shards: int = 2, rows: int = 3) -> None:
        self.emulator = server.emulator
        self.emulator.reset()
        self.route, self.gateway = route, route.opened(server.url)
        self.store, self.landing = MemoryStore("memory://w"), MemoryStore("memory://l")
        self.manifest = seal(self.store, shards=shards, rows=rows)
        self.began, self.tries = self.now(), 0

    def now(self) -> datetime:
        return self.emulator.clock.now()

    def walk(self, policy: BatchPolicy, plan: Plan | None = None) -> Landed | Waiting:
        plan, self.tries = plan or Plan(), self.tries + 1
        gateway = FaultyGateway(self.gateway, plan)
        return walk(
            self.manifest, store=FaultyStore(self.store, plan), gateways=lambda conn_id: gateway, policy=policy,
            landing=Place("notes", "memory://l", "jsonl"), landing_store=FileLanding(FaultyStore(self.landing, plan)), window="w",
            owner=Owner("dag", "ask"), run=RunRef("dag", "run", "ask"), me=f"try-{self.tries}", now=self.now, log=LOG,
            later_try=self.tries > 1, sleep=lambda seconds: self.emulator.clock.advance(seconds=seconds),
        )  # fmt: skip

    def on(self, policy: BatchPolicy, plan: Plan | None = None) -> Landed:
        for _ in range(100):
            try:
                end = self.walk(policy, plan)
            except (Crash, GeminiBatchError):
                if plan is None:
                    raise
                plan = None
                continue
            if isinstance(end, Landed):
                return end
            hour = self.now() + timedelta(hours=1)
            until = min(hour, end.until) if end.until else hour
            self.emulator.clock.advance(seconds=max((until - self.now()).total_seconds(), 1))
        raise AssertionError("it does not end")

    def rows(self) -> list[tuple[Any, ...]]:
        return [(row["key"], row["outcome"], row["round"]) for row in read_rows(self.landing, "w", any_verdict=True)]

    @property
    def bill(self) -> Decimal:
        return Decimal(self.emulator.bill()["total_usd"])


@both
def test_what_never_finishes_is_a_window_by_the_deadline_plus_the_limit(server: Server, route: Route) -> None:
    world = World(server, route)
    with closing(world.gateway):
        world.emulator.scenario("never_finishes")
        landed = world.on(FLEX)
        assert world.now() - world.began <= timedelta(hours=12)
        assert landed.manifest.passes
        assert world.rows() == [(f"k{number}", "answer", None) for number in range(6)]
        assert {job.state for job in (world.gateway.job(job.name) for job in world.emulator.jobs)} == {"CANCELLED"}
        assert Decimal(landed.manifest.cost_usd or 0) >= world.bill > 0


@both
def test_a_round_mends_what_came_back_empty_and_is_on_the_bill(server: Server, route: Route) -> None:
    world = World(server, route, shards=1, rows=10)
    with closing(world.gateway):
        world.emulator.scenario("empty", rows=(2, 5))
        assert isinstance(world.walk(BatchPolicy()), Waiting)
        world.emulator.switch_off("empty")
        landed = world.on(BatchPolicy())
        assert [row[2] for row in world.rows()] == [0, 0, 1, 0, 0, 1, 0, 0, 0, 0]
        assert landed.counts["answer"] == 10
        assert Decimal(landed.manifest.cost_usd or 0) >= world.bill > 0


@both
@pytest.mark.parametrize(
    ("policy", "landed_rounds"),
    [
        (
            BatchPolicy(deadline=timedelta(hours=11), ladder=(Rung("commit"),), thresholds=ALL),
            ["answer"] * 3 + ["missing"] * 3,
        ),
        (FLEX, ["answer"] * 6),
        (
            BatchPolicy(deadline=timedelta(hours=11), ladder=(Rung("wait", limit=timedelta(hours=1)),), thresholds=ALL),
            ["answer"] * 3 + ["missing"] * 3,
        ),
    ],
)
def test_results_that_never_show_do_not_outlast_the_deadline(
    server: Server, route: Route, policy: BatchPolicy, landed_rounds: list[str]
) -> None:
    world = World(server, route)
    with closing(world.gateway):
        waits_for_results_until_the_deadline(world, policy)
        world.on(policy)
        assert world.now() - world.began <= timedelta(hours=12, minutes=20)
        assert [row[1] for row in world.rows()] == landed_rounds


@both
def test_without_a_ladder_results_that_never_show_are_a_failure_at_the_deadline(server: Server, route: Route) -> None:
    world, policy = World(server, route), BatchPolicy(deadline=timedelta(hours=11))
    with closing(world.gateway):
        waits_for_results_until_the_deadline(world, policy)
        with pytest.raises(WaitTimedOut):
            world.walk(policy)


def waits_for_results_until_the_deadline(world: World, policy: BatchPolicy) -> None:
    """The second job succeeds and never names its output."""
    world.emulator.scenario("output_later_than_succeeded", minutes=100_000, jobs=(1,))
    world.walk(policy)
    for hours in (4, 6):
        world.emulator.clock.advance(hours=hours)
        waiting = world.walk(policy)
        assert isinstance(waiting, Waiting)
        assert waiting.until is not None
        assert waiting.until - world.now() <= timedelta(minutes=1)
        assert "does not name its output yet" in waiting.why
    world.emulator.clock.advance(hours=1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "effect",
    ["gateway.create", "gateway.cancel", "gateway.generate", "store.create 01.json", "store.create 01.settled"],
)
def test_what_goes_wrong_in_a_rescue_costs_at_most_what_is_said(server: Server, effect: str, way: str) -> None:
    quiet, world = Plan(), World(server, DEVELOPER)
    with closing(world.gateway):
        world.emulator.scenario("never_finishes")
        world.on(FLEX, quiet)
    at = quiet.seen.index(effect)

    world = World(server, DEVELOPER)
    with closing(world.gateway):
        world.emulator.scenario("never_finishes")
        landed = world.on(FLEX, Plan(at, way, meanwhile=lambda: world.on(FLEX)))
        assert world.rows() == [(f"k{number}", "answer", None) for number in range(6)]
        assert len(world.emulator.jobs) == 2
        if way != "frozen":  # who was frozen in a call adds to the bill after the window is closed
            assert Decimal(landed.manifest.cost_usd or 0) >= world.bill
