"""From a service that never finishes to a committed window, by the deadline and the limit of the rung, over the real wire."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from airflow_provider_geminibatch.core.batch import BatchPolicy, Rung
from airflow_provider_geminibatch.core.errors import Rejected
from airflow_provider_geminibatch.core.landing import Place, RunRef
from airflow_provider_geminibatch.core.model import Owner
from airflow_provider_geminibatch.core.verdict import Thresholds
from airflow_provider_geminibatch.emulator import Emulator, running
from airflow_provider_geminibatch.gemini.gateway import Gateway
from airflow_provider_geminibatch.jobs.collect import Landed
from airflow_provider_geminibatch.jobs.whole import walk
from airflow_provider_geminibatch.storage.landings import FileLanding, read_rows
from airflow_provider_geminibatch.storage.stores import MemoryStore
from tests.jobs.batches import seal
from tests.routes import ROUTES, Route

LOG = logging.getLogger("test")
START = datetime(2026, 11, 1, tzinfo=UTC)
WINDOW = "20261101T000000Z"
DEADLINE, LIMIT = timedelta(hours=11), timedelta(hours=1)


@dataclass
class Pipeline:
    """A sealed batch of two shards, walked as a task would that is deferred again and again."""

    emulator: Emulator
    gateway: Gateway
    route: Route
    store: MemoryStore = field(default_factory=lambda: MemoryStore("memory://ws"))
    landing: MemoryStore = field(default_factory=lambda: MemoryStore("memory://landing"))

    def now(self) -> datetime:
        return self.emulator.clock.now()

    def run(self, policy: BatchPolicy) -> Landed:
        manifest = seal(self.store, shards=2, rows=30)
        for _ in range(500):
            end = walk(
                manifest, store=self.store, gateways=lambda conn_id: self.gateway, policy=policy,
                landing=Place("notes", "memory://landing", "jsonl"), landing_store=FileLanding(self.landing), window=WINDOW,
                owner=Owner("dag", "ask"), run=RunRef("dag", "run", "ask"), me="me", now=self.now, log=LOG,
                sleep=lambda seconds: self.emulator.clock.advance(seconds=seconds),
            )  # fmt: skip
            if isinstance(end, Landed):
                return end
            soon = self.now() + timedelta(minutes=30)
            moment = min(soon, end.until) if end.until else soon
            self.emulator.clock.advance(seconds=max(1.0, (moment - self.now()).total_seconds()))
        raise AssertionError("it does not end")

    def counts(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for row in read_rows(self.landing, WINDOW, any_verdict=True):
            found[row["outcome"]] = found.get(row["outcome"], 0) + 1
        return found


@pytest.fixture(params=ROUTES, ids=str)
def pipeline(request: pytest.FixtureRequest) -> Iterator[Pipeline]:
    route: Route = request.param
    emulator = Emulator(seed=3, start=START, speed=0, turnaround=(1, 2))
    emulator.scenario("never_finishes")
    with running(emulator) as server, closing(route.opened(server.url)) as gateway:
        yield Pipeline(emulator, gateway, route)


def policy(*rungs: Rung, **more: object) -> BatchPolicy:
    return BatchPolicy(deadline=DEADLINE, ladder=rungs, thresholds=Thresholds(max_unresolved=1.0), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("trouble", ["", "burst_429", "burst_503"])
def test_a_window_lands_by_the_deadline_and_the_limit(pipeline: Pipeline, trouble: str) -> None:
    if trouble:
        pipeline.emulator.scenario(
            trouble, endpoint=pipeline.route.endpoint("models.generate"), times=12, retry_after=120
        )

    landed = pipeline.run(policy(Rung("flex", LIMIT)))

    assert START + DEADLINE <= pipeline.now() <= START + DEADLINE + LIMIT
    assert landed.manifest.passes
    assert pipeline.counts() == {"answer": 60}
    assert landed.cost_usd == Decimal(pipeline.emulator.bill()["total_usd"])
    assert {pipeline.gateway.job(job.name).state for job in pipeline.emulator.jobs} == {"CANCELLED"}
    assert pipeline.emulator.log.count(pipeline.route.endpoint("batches.create")) == 2


def test_what_flex_cannot_do_standard_does_if_it_may(pipeline: Pipeline) -> None:
    pipeline.emulator.scenario(
        "burst_503", endpoint=pipeline.route.endpoint("models.generate"), times=30, retry_after=25
    )
    rungs = (Rung("flex", timedelta(minutes=1)), Rung("standard", LIMIT))

    landed = pipeline.run(policy(*rungs, standard_allowed=True))

    routes = {entry["route"]: entry["requests"] for entry in pipeline.emulator.bill()["entries"]}
    assert routes["standard"] + routes.get("flex", 0) == 60
    assert pipeline.counts() == {"answer": 60}
    assert landed.cost_usd == Decimal(pipeline.emulator.bill()["total_usd"])


def test_standard_is_never_asked_unless_it_may_be(pipeline: Pipeline) -> None:
    pipeline.emulator.scenario("burst_503", endpoint=pipeline.route.endpoint("models.generate"), times=100_000)

    with pytest.raises(Rejected, match="0 of 60 answered"):
        pipeline.run(policy(Rung("flex", LIMIT), Rung("standard", LIMIT)))

    assert pipeline.now() <= START + DEADLINE + LIMIT + timedelta(minutes=1)
    assert pipeline.emulator.bill()["entries"] == []


def test_a_rescue_stays_inside_the_budget(pipeline: Pipeline) -> None:
    with_budget = policy(Rung("flex", LIMIT), max_cost_usd=Decimal(8))
    landed = pipeline.run(with_budget)
    assert pipeline.counts() == {"answer": 60}
    assert landed.cost_usd is not None
    assert landed.cost_usd <= Decimal(8)
