"""The crash matrix of a rescue: jobs that never finish are ended, their rows asked one by one, and every effect of it goes
wrong in every way. The emulator's log and its bill have the last word.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from airflow_provider_geminibatch.core.batch import BatchPolicy
from airflow_provider_geminibatch.core.errors import GeminiBatchError
from airflow_provider_geminibatch.core.ledger import RungFact
from airflow_provider_geminibatch.core.manifest import Manifest
from airflow_provider_geminibatch.core.model import Build
from airflow_provider_geminibatch.core.names import generation_path
from airflow_provider_geminibatch.core.outcomes import classify
from airflow_provider_geminibatch.emulator import Emulator, Server, running
from airflow_provider_geminibatch.gemini.developer import DeveloperGateway, Settings
from airflow_provider_geminibatch.jobs import segments
from airflow_provider_geminibatch.jobs.budget import Books, charged_usd
from airflow_provider_geminibatch.jobs.rescue import prepare_rescue, run_rung
from airflow_provider_geminibatch.jobs.segments import Place, rung_bill, segment_outcomes
from airflow_provider_geminibatch.jobs.submit import Submitted, read_build, submit
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.stores import MemoryStore
from tests.faults import Crash, FaultyGateway, FaultyStore, Plan, crash_cases
from tests.jobs.batches import BATCH, seal

LOG = logging.getLogger("test")
START = datetime(2026, 11, 1, tzinfo=UTC)
GENERATION = generation_path(BATCH, 1)
ROWS: list[Place] = [(shard, row) for shard in range(2) for row in range(3)]
SEGMENT = 2
BOUND = 1 + SEGMENT
"""What a crash may pay again: the concurrency, and a segment."""

POLICY = BatchPolicy(max_cost_usd=Decimal(20))


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (segments,):
        monkeypatch.setattr(module, "SEGMENT_ROWS", SEGMENT)


@dataclass
class Road:
    """A batch whose jobs never finish, on its way over one rung."""

    emulator: Emulator
    gateway: DeveloperGateway
    store: MemoryStore = field(default_factory=lambda: MemoryStore("memory://ws"))
    tries: int = 0

    def __post_init__(self) -> None:
        self.manifest: Manifest = seal(self.store, shards=2, rows=3)
        self.build: Build = read_build(self.store, self.manifest.path)
        end = submit(self.manifest, store=self.store, gateway=self.gateway, me="first", now=self.now, log=LOG)
        assert isinstance(end, Submitted)
        self.emulator.clock.advance(hours=11)
        self.fact = RungFact(
            owner="x", at=self.now(), number=1, position=0, kind="flex", limit_at=self.now() + timedelta(hours=1), reason="late",
            row_count=len(ROWS),
        )  # fmt: skip

    def now(self) -> datetime:
        return self.emulator.clock.now()

    def settle(self, plan: Plan) -> None:
        while True:
            self.tries += 1
            done = prepare_rescue(
                1, [(self.build, FaultyGateway(self.gateway, plan))], store=FaultyStore(self.store, plan),  # type: ignore[list-item, arg-type]
                me=f"try-{self.tries}", now=self.now, log=LOG, sleep=lambda seconds: None,
            )  # fmt: skip
            if done.until is None:
                assert done.given_up == ()
                return
            self.emulator.clock.advance(seconds=(done.until - self.now()).total_seconds())

    def rung(self, plan: Plan) -> None:
        self.tries += 1
        state = run_rung(
            self.fact, iter(ROWS), store=FaultyStore(self.store, plan), build=self.build,  # type: ignore[arg-type]
            gateway=FaultyGateway(self.gateway, plan), policy=POLICY, me=f"try-{self.tries}", now=self.now,  # type: ignore[arg-type]
            log=LOG, sleep=lambda seconds: None, concurrency=1,
        )  # fmt: skip
        assert state.done

    def stage(self, name: str, plan: Plan | None = None) -> None:
        """One task to its end: the disturbed try, then tries until one succeeds."""
        run: Callable[[Plan], None] = getattr(self, name)
        for one in (plan or Plan(), Plan(), Plan()):
            try:
                run(one)
            except (Crash, GeminiBatchError):
                continue
            return
        run(Plan())


STAGES = ("settle", "rung")


def road_of(service: tuple[Emulator, Server]) -> Road:
    emulator, server = service
    emulator.scenario("never_finishes")
    return Road(emulator, DeveloperGateway(Settings("key", server.url, timeout_seconds=10)))


@pytest.fixture
def road() -> Iterator[Road]:
    emulator = Emulator(seed=3, start=START, speed=0, turnaround=(1, 2))
    with running(emulator) as server:
        found = road_of((emulator, server))
        with closing(found.gateway):
            yield found


def quiet() -> tuple[dict[str, list[str]], list[tuple[Place, str | None]]]:
    """The effects of each stage when nothing goes wrong, and what it answers."""
    emulator = Emulator(seed=3, start=START, speed=0, turnaround=(1, 2))
    with running(emulator) as server, pytest.MonkeyPatch.context() as patch:
        for module in (segments,):
            patch.setattr(module, "SEGMENT_ROWS", SEGMENT)
        road, seen = road_of((emulator, server)), {}
        with closing(road.gateway):
            for name in STAGES:
                plan = Plan()
                road.stage(name, plan)
                seen[name] = plan.seen
            return seen, answers(road)


def answers(road: Road) -> list[tuple[Place, str | None]]:
    """The first answer of every row, in order."""
    first: dict[Place, str | None] = {}
    for at, line in segment_outcomes(road.store, GENERATION, 1):
        first.setdefault(at, classify(line).outcome.text)
    return list(first.items())


QUIET, UNDISTURBED = quiet()
CASES = crash_cases(QUIET)


@pytest.mark.parametrize(("stage", "at", "way"), CASES)
def test_whatever_goes_wrong_every_row_is_answered_and_little_is_paid_again(
    road: Road, stage: str, at: int, way: str
) -> None:
    for name in STAGES:
        road.stage(name, Plan(at, way, meanwhile=lambda: road.stage(stage)) if name == stage else None)

    assert answers(road) == UNDISTURBED
    assert [place for place, _ in UNDISTURBED] == ROWS
    assert {road.gateway.job(job.name).state for job in road.emulator.jobs} == {"CANCELLED"}
    assert len(road.emulator.jobs) == 2, "what a rescue cancelled is not sent again"
    entry = road.emulator.bill()["entries"][0]
    assert len(ROWS) <= entry["requests"] <= len(ROWS) + BOUND
    _costed(road)


def _costed(road: Road) -> None:
    """Neither what is reported nor what is charged is below the bill, and the budget holds."""
    billed = Decimal(road.emulator.bill()["total_usd"])
    report = rung_bill(road.store, GENERATION, 1)
    assert report.spent.cost_usd is not None
    assert report.unanswered_usd is not None
    assert report.spent.cost_usd + report.unanswered_usd >= billed > 0
    assert POLICY.max_cost_usd is not None
    assert billed <= charged_usd(road.store, GENERATION, now=road.now) <= POLICY.max_cost_usd


@pytest.mark.parametrize("stage", STAGES)
def test_a_job_that_a_rescue_cancelled_is_marked_so_and_stands(road: Road, stage: str) -> None:
    road.stage("settle")
    for shard in road.build.shards:
        attempt = fact_store.shard_facts(road.store, shard.ledger).job_attempt
        assert attempt is not None
        assert attempt.cancel is not None
        assert (attempt.cancel.rung, attempt.end and attempt.end.state) == (1, "CANCELLED")
    if stage == "rung":
        road.stage("rung")
    end = submit(road.manifest, store=road.store, gateway=road.gateway, me="later", now=road.now, log=LOG)
    assert isinstance(end, Submitted)
    assert len(road.emulator.jobs) == 2


def test_an_undisturbed_rescue_is_paid_once() -> None:
    assert QUIET["rung"].count("gateway.generate") == len(ROWS)
    assert QUIET["settle"].count("gateway.cancel") == 2


def test_books_of_two_processes_agree(road: Road) -> None:
    road.stage("rung")
    books = Books(road.store, GENERATION, POLICY.max_cost_usd, me="x", now=road.now)
    assert books.account().open_usd == 0
    assert books.account().spent_usd == Decimal(road.emulator.bill()["total_usd"])
