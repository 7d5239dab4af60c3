"""An interactive rung on the emulator: what is asked, what is paid, and what a crash may cost."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_geminibatch.core.batch import BatchPolicy
from airflow_provider_geminibatch.core.errors import StoreUnwritable, Superseded
from airflow_provider_geminibatch.core.ledger import RungFact, RungRun
from airflow_provider_geminibatch.core.manifest import Manifest
from airflow_provider_geminibatch.core.model import Build
from airflow_provider_geminibatch.core.names import generation_path
from airflow_provider_geminibatch.core.outcomes import classify
from airflow_provider_geminibatch.emulator import Emulator, Server, running
from airflow_provider_geminibatch.gemini.developer import DeveloperGateway, Settings
from airflow_provider_geminibatch.gemini.gateway import GenerateReply, Tier
from airflow_provider_geminibatch.jobs.budget import Books, charged_usd
from airflow_provider_geminibatch.jobs.rescue import RungState, run_rung
from airflow_provider_geminibatch.jobs.segments import (
    SEGMENT_ROWS,
    Place,
    root_requests,
    rung_bill,
    rung_path,
    segment_line,
    segment_outcomes,
    segment_paths,
)
from airflow_provider_geminibatch.jobs.submit import read_build
from airflow_provider_geminibatch.storage import facts
from airflow_provider_geminibatch.storage.stores import MemoryStore
from airflow_provider_geminibatch.testing import InMemoryGateway, ManualClock, echo
from tests.faults import Crash
from tests.jobs.batches import BATCH, MODEL, seal

LOG = logging.getLogger("test")
START = datetime(2026, 11, 1, tzinfo=UTC)
GENERATION = generation_path(BATCH, 1)


@pytest.fixture
def service() -> Iterator[tuple[Emulator, Server]]:
    emulator = Emulator(seed=3, start=START, speed=0, turnaround=(1, 2))
    with running(emulator) as server:
        yield emulator, server


@dataclass
class Rig:
    """A sealed build of two shards and a rung over its rows."""

    gateway: Any
    clock: Any
    shards: int = 2
    rows: int = 30
    store: MemoryStore = field(default_factory=lambda: MemoryStore("memory://ws"))
    naps: list[float] = field(default_factory=list)
    runs: int = 0

    def __post_init__(self) -> None:
        self.manifest: Manifest = seal(self.store, shards=self.shards, rows=self.rows)
        self.build: Build = read_build(self.store, self.manifest.path)

    @property
    def places(self) -> list[Place]:
        return [(shard, row) for shard in range(self.shards) for row in range(self.rows)]

    def fact(self, kind: str = "flex", **more: Any) -> RungFact:
        base = {"number": 1, "position": 0, "limit_at": START + timedelta(hours=1), "reason": "late", "row_count": 60}
        return RungFact(owner="x", at=START, kind=kind, **{**base, **more})

    def nap(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.clock.advance(seconds) if isinstance(self.clock, _Stepped) else self.clock.advance(
            timedelta(seconds=seconds)
        )

    def run(self, fact: RungFact | None = None, *, rows: list[Place] | None = None, **more: Any) -> RungState:
        self.runs += 1
        arguments: dict[str, Any] = {
            "store": self.store, "build": self.build, "gateway": self.gateway, "policy": BatchPolicy(),
            "me": f"try-{self.runs}", "now": self.clock, "log": LOG, "sleep": self.nap, "concurrency": 4,
        }  # fmt: skip
        return run_rung(fact or self.fact(), self.places if rows is None else rows, **{**arguments, **more})

    def outcomes(self) -> list[tuple[Place, bytes]]:
        return list(segment_outcomes(self.store, GENERATION, 1))


class _Stepped:
    """The emulator's clock as a function."""

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator

    def __call__(self) -> datetime:
        return self._emulator.clock.now()

    def advance(self, seconds: float) -> None:
        self._emulator.clock.advance(seconds=seconds)


@pytest.fixture
def rig(service: tuple[Emulator, Server]) -> Iterator[Rig]:
    emulator, server = service
    with closing(DeveloperGateway(Settings("key", server.url, timeout_seconds=10))) as gateway:
        yield Rig(gateway, _Stepped(emulator))


def bill(emulator: Emulator) -> dict[str, Any]:
    entries: list[dict[str, Any]] = emulator.bill()["entries"]
    return entries[0] if entries else {"requests": 0}


@pytest.mark.parametrize("tier", ["flex", "standard"])
def test_every_row_is_asked_once_by_its_tier_and_costed_to_the_cent(
    service: tuple[Emulator, Server], rig: Rig, tier: str
) -> None:
    emulator, _ = service

    state = rig.run(rig.fact(tier))

    assert (state.done, state.answers, state.why) == (True, 60, "")
    assert [at for at, _ in rig.outcomes()] == rig.places
    assert all(classify(line).outcome.usable for _, line in rig.outcomes())
    assert (bill(emulator)["route"], bill(emulator)["requests"]) == (tier, 60)
    spent = rung_bill(rig.store, GENERATION, 1)
    assert spent.spent.cost_usd == Decimal(emulator.bill()["total_usd"])
    assert (spent.answers, spent.errors, spent.unanswered, spent.unanswered_usd) == (60, 0, 0, Decimal(0))


def test_the_answers_are_those_of_the_rows_and_the_segments_are_small(rig: Rig) -> None:
    rows = [(0, 3), (0, 4), (1, 29)]
    rig.run(rows=rows)

    asked = {at: b"row %d" % (at[0] * 30 + at[1]) for at in rows}
    requests = dict(root_requests(rig.store, rig.build, rows))
    assert all(asked[at] in requests[at] for at in rows)
    assert [at for at, _ in rig.outcomes()] == rows
    assert len(segment_paths(rig.store, GENERATION, 1)) == 1


def test_a_burst_of_429_waits_as_long_as_it_was_asked_to(service: tuple[Emulator, Server], rig: Rig) -> None:
    emulator, _ = service
    emulator.scenario("burst_429", endpoint="models.generate", times=6, retry_after=20)

    state = rig.run()

    assert (state.done, state.answers) == (True, 60)
    assert bill(emulator)["requests"] == 60
    assert rig.naps
    assert rig.naps[0] == pytest.approx(20)
    assert emulator.log.count("models.generate", status=429) == 6


def test_a_long_pause_is_not_slept_through_on_the_worker(service: tuple[Emulator, Server], rig: Rig) -> None:
    emulator, _ = service
    emulator.scenario("burst_429", endpoint="models.generate", times=4, retry_after=300)

    state = rig.run()

    assert (state.done, state.until, rig.naps) == (False, START + timedelta(seconds=300), [])
    emulator.clock.advance(seconds=300)
    again = rig.run()
    assert (again.done, again.answers) == (True, 60)
    assert bill(emulator)["requests"] == 60
    assert all(segment_line(line).lost == 0 for _, line in rig.outcomes())


def test_an_overloaded_service_is_left_at_the_limit_of_the_rung(service: tuple[Emulator, Server], rig: Rig) -> None:
    emulator, _ = service
    emulator.scenario("burst_503", endpoint="models.generate", times=100_000)
    rung = rig.fact(limit_at=START + timedelta(minutes=10))

    state = rig.run(rung)

    assert state.done
    assert "limit" in state.why
    assert rig.clock() == START + timedelta(minutes=10)
    assert rig.run(rung) == RungState(True, None, 0, state.why)
    assert bill(emulator) == {"requests": 0}


def test_a_refused_row_gets_its_error_and_the_others_their_answers(service: tuple[Emulator, Server], rig: Rig) -> None:
    emulator, _ = service
    emulator.scenario(
        "refused_calls", endpoint="models.generate", times=3, after=5, code=400, status="INVALID_ARGUMENT", message="no"
    )

    state = rig.run()

    outcomes = [classify(line).outcome for _, line in rig.outcomes()]
    assert (state.done, state.answers) == (True, 57)
    assert sorted(outcome.code or 0 for outcome in outcomes)[-3:] == [400, 400, 400]
    assert not any(outcome.transient for outcome in outcomes if outcome.code)


@pytest.mark.parametrize(("code", "why"), [(402, "credit"), (400, "refuses these requests")])
def test_a_service_that_refuses_everything_ends_the_rung_early(
    service: tuple[Emulator, Server], rig: Rig, code: int, why: str
) -> None:
    emulator, _ = service
    emulator.scenario("refused_calls", endpoint="models.generate", times=1000, code=code, status="X", message="no")

    state = rig.run()

    assert state.done
    assert why in state.why
    assert emulator.log.count("models.generate") < 30


@pytest.mark.parametrize("model", ["gemini-0", "gemini-3.8-flash"])
def test_a_model_or_a_key_that_is_refused_ends_the_rung_with_the_reason(
    service: tuple[Emulator, Server], rig: Rig, model: str
) -> None:
    emulator, _ = service
    if model == MODEL:
        emulator.revoke("key")

    state = rig.run(rig.fact(model=model))

    assert state.done
    assert state.answers == 0
    assert ("key" if model == MODEL else "gemini-0") in state.why


def test_lost_answers_are_asked_again_a_few_times_and_all_of_them_are_costed(
    service: tuple[Emulator, Server], rig: Rig
) -> None:
    emulator, _ = service
    emulator.scenario("slow_replies", endpoint="models.generate", times=2, seconds=2.0)

    state = rig.run(rows=[(0, 0), (0, 1)], call_seconds=1.0)

    assert (state.done, state.answers) == (True, 2)
    assert [segment_line(line).lost for _, line in rig.outcomes()] == [1, 1]
    assert bill(emulator)["requests"] == 4
    assert rung_bill(rig.store, GENERATION, 1).spent.cost_usd == Decimal(emulator.bill()["total_usd"])


class Dying(InMemoryGateway):
    """Answers ``good`` calls, then the process dies; ``paid`` counts the answers that were made, by text."""

    def __init__(self, clock: ManualClock, good: int) -> None:
        super().__init__(clock)
        self.good, self.paid, self._lock = good, Counter[str](), threading.Lock()

    def generate(self, model: str, request: Mapping[str, Any], *, tier: Tier, timeout_seconds: float) -> GenerateReply:
        with self._lock:
            self.good -= 1
            alive = self.good >= 0
            self.paid[echo(request)["candidates"][0]["content"]["parts"][0]["text"]] += 1
        if not alive:
            raise Crash("generate")
        return super().generate(model, request, tier=tier, timeout_seconds=timeout_seconds)


@pytest.mark.parametrize("good", [0, 1, 49, 50, 51, 77, 119])
def test_a_crash_pays_at_most_the_concurrency_and_a_segment_again(good: int) -> None:
    clock = ManualClock(START)
    gateway = Dying(clock, good)
    rig = Rig(gateway, clock, rows=60)

    with pytest.raises(Crash):
        rig.run()
    gateway.good = 10_000
    state = rig.run()

    assert (state.done, state.answers) == (True, 120)
    assert sorted({at for at, _ in rig.outcomes()}) == rig.places
    twice = sum(count - 1 for count in gateway.paid.values())
    assert twice <= 4 + SEGMENT_ROWS
    costed = sum(1 + segment_line(line).lost for _, line in rig.outcomes())
    assert costed >= sum(gateway.paid.values())


def test_a_budget_is_never_exceeded_and_what_was_saved_is_spent_on_further_rows(
    service: tuple[Emulator, Server], rig: Rig
) -> None:
    emulator, _ = service

    def short(at: Place, request: dict[str, Any]) -> dict[str, Any]:
        return {**request, "generationConfig": {"maxOutputTokens": 200}}

    policy = BatchPolicy(max_cost_usd=Decimal("0.0100"))
    state = rig.run(policy=policy, revised=short)

    assert state.done
    assert "budget" in state.why
    assert Decimal(emulator.bill()["total_usd"]) <= charged_usd(rig.store, GENERATION, now=rig.clock) <= Decimal("0.01")
    # A row is bound at 0.0004 USD, so that charges at their bounds would have let through 25 rows at most.
    assert 25 < state.answers < 60


def test_without_a_price_no_budget_can_be_held(rig: Rig) -> None:
    state = rig.run(rig.fact(model="gemini-embedding-9"), policy=BatchPolicy(max_cost_usd=Decimal(1)))
    assert (state.done, state.answers) == (True, 0)
    assert "price" in state.why


def test_a_charge_is_taken_by_one_process_only() -> None:
    store, clock = MemoryStore(), ManualClock(START)
    books = [Books(store, "g", Decimal(10), me=str(each), now=clock) for each in range(2)]
    assert books[0].charge("a", Decimal(6))
    assert not books[1].charge("b", Decimal(6))
    assert books[1].charge("a", Decimal(6))
    books[0].settle("a", Decimal(1))
    assert books[1].charge("b", Decimal(6))
    assert books[0].account().charged_usd == Decimal(7)


def test_who_takes_a_rung_over_is_obeyed_at_the_next_block() -> None:
    clock = ManualClock(START)

    def answer(request: Mapping[str, Any]) -> dict[str, Any]:
        facts.put(rig.store, f"{rung_path(GENERATION, 1)}.run-0002", RungRun(owner="another", at=START))
        return echo(request)

    rig = Rig(InMemoryGateway(clock, answer=answer), clock, rows=60)

    with pytest.raises(Superseded, match="another"):
        rig.run()
    assert len(rig.outcomes()) == 50, "what was in flight is kept"


def test_a_person_who_wants_a_commit_now_is_heard_between_blocks(rig: Rig) -> None:
    wishes = iter(["", "a person asked"])
    state = rig.run(stop=lambda: next(wishes))
    assert (state.done, state.until, state.answers, state.why) == (False, START, 50, "a person asked")
    assert rig.run().answers == 60


class Full(MemoryStore):
    """A store that cannot write the second segment."""

    def create(self, path: str, data: bytes) -> bool:
        if path.endswith("seg-00001.jsonl"):
            raise StoreUnwritable(path, "full")
        return super().create(path, data)


def test_a_store_that_is_full_fails_the_task_and_loses_only_that_segment() -> None:
    clock = ManualClock(START)
    rig = Rig(InMemoryGateway(clock), clock, rows=60)
    rig.store.__class__ = Full
    with pytest.raises(StoreUnwritable):
        rig.run()
    rig.store.__class__ = MemoryStore
    assert rig.run().answers == 120


def test_embeddings_cannot_be_asked_row_by_row(rig: Rig) -> None:
    import msgspec

    rig.build = msgspec.structs.replace(rig.build, kind="embed")
    assert "generateContent" in rig.run().why


def test_the_bound_of_what_a_crash_costs_is_said_before_anything_is_sent(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        rig.run()
    assert "at most 54 rows (4 in flight and a segment of 50) may be paid again" in caplog.text


def test_a_lost_call_is_charged_again_before_it_is_repeated(service: tuple[Emulator, Server], rig: Rig) -> None:
    emulator, _ = service
    emulator.scenario("slow_replies", endpoint="models.generate", times=1, seconds=2.0)

    def short(at: Place, request: dict[str, Any]) -> dict[str, Any]:
        return {**request, "generationConfig": {"maxOutputTokens": 200}}

    # One row is bound at about 0.0004 USD: the first call fits and a second does not.
    policy = BatchPolicy(max_cost_usd=Decimal("0.0006"))
    state = rig.run(rows=[(0, 0)], call_seconds=1.0, policy=policy, revised=short)

    ((_, line),) = rig.outcomes()
    assert (state.done, state.answers) == (True, 0)
    assert (segment_line(line).lost, bill(emulator)["requests"]) == (1, 1)
    assert (
        Decimal(emulator.bill()["total_usd"]) <= charged_usd(rig.store, GENERATION, now=rig.clock) <= Decimal("0.0006")
    )


def test_rows_that_another_process_kept_the_budget_from_are_not_forgotten(rig: Rig) -> None:
    """Its charge comes between our look and ours; when it costs less than its bound, our rows are asked after all."""
    rival = Books(rig.store, GENERATION, Decimal("0.01"), me="rival", now=rig.clock)
    create, came = rig.store.create, list[str]()

    def beaten(path: str, data: bytes) -> bool:
        if path.endswith("charges/0001.json") and not came:
            came.append(path)
            assert rival.charge("theirs", Decimal("0.0099"))
            rival.settle("theirs", Decimal(0))
        return create(path, data)

    rig.store.create = beaten  # type: ignore[method-assign]

    def short(at: Place, request: dict[str, Any]) -> dict[str, Any]:
        return {**request, "generationConfig": {"maxOutputTokens": 200}}

    state = rig.run(rows=[(0, 0), (0, 1)], policy=BatchPolicy(max_cost_usd=Decimal("0.01")), revised=short)
    assert (state.done, state.answers) == (True, 2)


class Counting(InMemoryGateway):
    """Holds every call until as many are in flight as it expects, and remembers the most that were."""

    def __init__(self, clock: ManualClock, expected: int) -> None:
        super().__init__(clock)
        self.barrier, self.now_in, self.most = threading.Barrier(expected, timeout=5), 0, 0
        self.lock = threading.Lock()

    def generate(self, model: str, request: Mapping[str, Any], *, tier: Tier, timeout_seconds: float) -> GenerateReply:
        with self.lock:
            self.now_in += 1
            self.most = max(self.most, self.now_in)
        self.barrier.wait()
        with self.lock:
            self.now_in -= 1
        return super().generate(model, request, tier=tier, timeout_seconds=timeout_seconds)


def test_as_many_calls_are_in_flight_as_were_allowed_and_no_more() -> None:
    clock = ManualClock(START)
    rig = Rig(Counting(clock, 5), clock)
    assert rig.run(concurrency=5).answers == 60
    assert rig.gateway.most == 5


def test_no_call_may_outlast_the_limit_of_its_rung() -> None:
    clock, seen = ManualClock(START), set[float]()

    class Timed(InMemoryGateway):
        def generate(
            self, model: str, request: Mapping[str, Any], *, tier: Tier, timeout_seconds: float
        ) -> GenerateReply:
            seen.add(timeout_seconds)
            clock.advance(timedelta(minutes=4))
            return super().generate(model, request, tier=tier, timeout_seconds=timeout_seconds)

    rig = Rig(Timed(clock), clock)
    state = rig.run(rig.fact(limit_at=START + timedelta(minutes=15)), concurrency=1)
    assert (state.done, state.answers, sorted(seen)) == (True, 4, [180, 420, 600])
