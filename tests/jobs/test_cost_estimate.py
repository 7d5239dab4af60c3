"""Estimates against the emulator's bill: the interval holds it, a limit below refuses with nothing sent, and the end settles."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import msgspec
import pytest

from airflow_provider_geminibatch.core.answer_sizes import AnswerSizes
from airflow_provider_geminibatch.core.batch import BatchPolicy
from airflow_provider_geminibatch.core.canary import CanaryReport, CanaryVerdict
from airflow_provider_geminibatch.core.canary import Spread as CanarySpread
from airflow_provider_geminibatch.core.cost_estimate import CostEstimate
from airflow_provider_geminibatch.core.errors import BeyondBudget, KeyRefused, ServiceBusy
from airflow_provider_geminibatch.core.landing import Place, RunRef
from airflow_provider_geminibatch.core.ledger import Charge, Spending
from airflow_provider_geminibatch.core.manifest import Manifest
from airflow_provider_geminibatch.core.model import BatchId, Build, Owner
from airflow_provider_geminibatch.core.names import generation_path
from airflow_provider_geminibatch.core.sampling import Span
from airflow_provider_geminibatch.core.template import RequestTemplate
from airflow_provider_geminibatch.core.verdict import Thresholds
from airflow_provider_geminibatch.emulator import Emulator, Server, running
from airflow_provider_geminibatch.gemini.developer import DeveloperGateway, Settings
from airflow_provider_geminibatch.jobs.budget import Books
from airflow_provider_geminibatch.jobs.collect import Landed, collect
from airflow_provider_geminibatch.jobs.cost_estimate import afford, estimate_cost, note_cost, noted_cost
from airflow_provider_geminibatch.jobs.declaration import Declaration
from airflow_provider_geminibatch.jobs.layers import generation_of
from airflow_provider_geminibatch.jobs.prepare import prepare
from airflow_provider_geminibatch.jobs.submit import Submitted, read_build, submit
from airflow_provider_geminibatch.jobs.whole import Waiting, walk
from airflow_provider_geminibatch.storage import facts
from airflow_provider_geminibatch.storage.landings import FileLanding
from airflow_provider_geminibatch.storage.stores import MemoryStore

LOG = logging.getLogger("test.costs")
START = datetime(2026, 11, 1, tzinfo=UTC)
MODEL = "gemini-3.8-flash"
ALL = Thresholds(max_unresolved=1.0, min_answers=1)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running(Emulator(seed=5, start=START, speed=0, turnaround=(1, 2))) as server:
        yield server


class World:
    """A workspace and an emulated service whose clock is stepped."""

    def __init__(self, server: Server) -> None:
        self.emulator = server.emulator
        self.emulator.reset()
        self.gateway = DeveloperGateway(Settings("key", server.url, timeout_seconds=10))
        self.store, self.landing = MemoryStore("memory://w"), MemoryStore("memory://l")

    def now(self) -> datetime:
        return self.emulator.clock.now()

    def prepare(self, texts: list[str], run: str = "run", **template: Any) -> Manifest:
        rows = [{"id": f"k{number}", "text": text} for number, text in enumerate(texts)]
        declaration = Declaration(
            model=MODEL, template=RequestTemplate("$text", **template), source_name="rows", max_rows_per_shard=120
        )
        return prepare(
            declaration, lambda: rows, store=self.store, workspace_id="w1", batch=BatchId("dag", run, "ask"),
            service=self.gateway.identity, me="me", now=self.now, log=LOG,
        ).manifest  # fmt: skip

    def build(self, manifest: Manifest) -> Build:
        return read_build(self.store, manifest.path)

    def estimate(self, manifest: Manifest, *, counted: bool = True, **more: Any) -> CostEstimate:
        return estimate_cost(
            self.build(manifest), self.store, service=str(self.gateway.identity), me="me", now=self.now, log=LOG,
            gateway=self.gateway if counted else None, **more,
        )  # fmt: skip

    def walk(self, manifest: Manifest, **policy: Any) -> Landed | Waiting:
        return walk(
            manifest, store=self.store, gateways=lambda _: self.gateway, policy=BatchPolicy(thresholds=ALL, **policy),
            landing=Place("notes", "memory://l", "jsonl"), landing_store=FileLanding(self.landing), window=manifest.path,
            owner=Owner("dag", "ask"), run=RunRef("dag", "run", "ask"), me="me", now=self.now, log=LOG,
            sleep=lambda seconds: self.emulator.clock.advance(seconds=seconds),
        )  # fmt: skip

    def land(self, manifest: Manifest, **policy: Any) -> Landed:
        for _ in range(50):
            end = self.walk(manifest, **policy)
            if isinstance(end, Landed):
                return end
            self.emulator.clock.advance(hours=1)
        raise AssertionError("it does not end")

    @property
    def bill(self) -> Decimal:
        return Decimal(self.emulator.bill()["total_usd"])


@pytest.fixture
def world(server: Server) -> Iterator[World]:
    made = World(server)
    with closing(made.gateway):
        yield made


def words(shape: Callable[[Random], int], rows: int = 300) -> list[str]:
    rng = Random("words")
    return ["word " * shape(rng) for _ in range(rows)]


SHAPES: dict[str, tuple[list[str], dict[str, Any]]] = {
    "alike": (words(lambda rng: rng.randint(20, 40)), {}),
    "few long": (words(lambda rng: rng.choice([5] * 30 + [4000]), rows=400), {}),
    "log-normal, with a system instruction": (
        words(lambda rng: int(rng.lognormvariate(4, 1)) + 1),
        {"system_instruction": "Say it in one line. " * 20},
    ),
    "short answers": (words(lambda rng: rng.randint(100, 300)), {"generation": {"max_output_tokens": 120}}),
    "a schema": (
        words(lambda rng: rng.randint(5, 100)),
        {"response_schema": {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}},
    ),
    "fewer rows than a sample": (words(lambda rng: rng.randint(1, 50), rows=30), {}),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_interval_holds_the_bill_before_anything_is_known_and_after(world: World, shape: str) -> None:
    texts, template = SHAPES[shape]
    first = world.prepare(texts, "one", **template)
    before = world.estimate(first)
    assert world.bill == 0
    assert (before.counted, before.basis) == (True, "bound")
    assert world.land(first).counts["answer"] + world.land(first).counts["truncated"] == len(texts)
    cost = world.bill
    assert before.batch_usd is not None
    assert before.batch_usd.holds(cost)

    again = world.prepare([*texts[1:], texts[0]], "two", **template)
    after = world.estimate(again)
    world.land(again)
    assert after.basis == "history"
    assert after.batch_usd is not None
    assert after.batch_usd.expected is not None
    assert after.batch_usd.holds(world.bill - cost)
    assert abs(after.batch_usd.expected - (world.bill - cost)) < Decimal("0.1") * cost
    assert after.standard_usd is not None
    assert float(after.standard_usd.high) == pytest.approx(2 * float(after.batch_usd.high))


def test_prompts_are_counted_within_a_few_per_cent(world: World) -> None:
    texts, _ = SHAPES["few long"]
    manifest = world.prepare(texts)
    estimate = world.estimate(manifest)
    world.land(manifest)
    told = world.emulator.bill()["entries"][0]["prompt_tokens"]
    assert estimate.prompt.holds(Decimal(told))
    assert estimate.sampled == 100
    assert float(estimate.prompt.expected or 0) == pytest.approx(told, rel=0.05)


def test_equal_rows_are_estimated_equally_and_counting_is_free(world: World) -> None:
    texts, _ = SHAPES["alike"]
    manifest = world.prepare(texts)
    assert world.estimate(manifest) == world.estimate(manifest)
    assert world.bill == 0


def test_by_size_nobody_is_asked_and_the_interval_is_wide(world: World) -> None:
    texts, _ = SHAPES["alike"]
    manifest = world.prepare(texts)
    calls = world.emulator.log.count("models.count_tokens")
    guess, counted = world.estimate(manifest, counted=False), world.estimate(manifest)
    assert world.emulator.log.count("models.count_tokens") - calls <= 100
    assert not guess.counted
    assert guess.prompt.high - guess.prompt.low > 5 * (counted.prompt.high - counted.prompt.low)
    world.land(manifest)
    assert guess.prompt.holds(Decimal(world.emulator.bill()["entries"][0]["prompt_tokens"]))


def test_a_few_refusals_are_guessed_and_more_of_them_are_an_error(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = world.prepare(SHAPES["alike"][0])
    world.emulator.scenario("burst_429", endpoint="models.count_tokens", times=7)
    with caplog.at_level(logging.WARNING):
        assert world.estimate(manifest).counted
    assert re.search(r"7 of \d\d requests could not be counted", caplog.text)
    world.emulator.scenario("burst_429", endpoint="models.count_tokens", times=80)
    with pytest.raises(ServiceBusy):
        world.estimate(manifest)


def test_a_refused_key_is_not_guessed_around(world: World) -> None:
    manifest = world.prepare(SHAPES["alike"][0])
    world.emulator.revoke("key")
    with pytest.raises(KeyRefused):
        world.estimate(manifest)


def test_what_a_canary_measured_goes_before_earlier_batches(world: World) -> None:
    texts = SHAPES["alike"][0]
    world.land(world.prepare(texts, "one"))
    manifest = world.prepare(texts, "two")
    report = CanaryReport(
        tier="flex", model=MODEL, rows=300, asked=20, usable=20, answer=CanarySpread(10, 20, 30, 200),
        thoughts=CanarySpread(100, 150, 200, 2000),
    )  # fmt: skip
    path = f"{generation_path(world.build(manifest).batch, 1)}/canary/verdict.json"
    facts.put(world.store, path, CanaryVerdict(owner="me", at=world.now(), verdict="pass", report=report))
    estimate = world.estimate(manifest)
    assert estimate.basis == "canary"
    assert estimate.candidates == (0, 300 * 10, 300 * 20)
    assert estimate.thoughts == (300 * 50, 300 * 100, 300 * 150)


# Budgets


def charges(world: World, manifest: Manifest) -> list[tuple[Charge, Spending | None]]:
    build = world.build(manifest)
    folder, found = f"{generation_path(build.batch, build.generation)}/charges", []
    for number in range(1, 20):
        charge = facts.get(world.store, f"{folder}/{number:04d}.json", Charge)
        if charge is not None:
            found.append((charge, facts.get(world.store, f"{folder}/{number:04d}.spent.json", Spending)))
    return found


@pytest.mark.parametrize("budget", ["upper_bound", "estimate"])
def test_a_limit_below_refuses_with_no_job_and_says_what_would_fit(world: World, budget: str) -> None:
    manifest = world.prepare(SHAPES["alike"][0], generation={"max_output_tokens": 1000})
    with pytest.raises(BeyondBudget) as error:
        world.walk(manifest, max_cost_usd=Decimal("0.2"), budget=budget)
    said = str(error.value)
    assert "max_cost_usd=0.2" in said
    assert "rows would fit" in said
    assert "maxOutputTokens" in said
    assert "Nothing was sent or paid" in said
    assert ("estimated to cost" in said) == (budget == "estimate")
    assert (world.bill, world.emulator.jobs, charges(world, manifest)) == (0, (), [])


def test_what_is_said_to_fit_does(world: World) -> None:
    texts = SHAPES["alike"][0]
    manifest = world.prepare(texts, generation={"max_output_tokens": 1000})
    with pytest.raises(BeyondBudget) as error:
        afford([(manifest, world.store)], Decimal("0.2"), me="me", now=world.now)
    rows = int(error.value.why.split("about ")[1].split()[0].replace(",", ""))
    cap = int(error.value.why.split("answers of up to ")[1].split()[0].replace(",", ""))
    assert 90 < rows < 120
    fewer = world.prepare(texts[:rows], "fewer", generation={"max_output_tokens": 1000})
    shorter = world.prepare(texts, "shorter", generation={"max_output_tokens": cap})
    for fitting in (fewer, shorter):
        afford([(fitting, world.store)], Decimal("0.2"), me="me", now=world.now)
        assert charges(world, fitting)
    longer = world.prepare(texts, "longer", generation={"max_output_tokens": cap + 5})
    with pytest.raises(BeyondBudget):
        afford([(longer, world.store)], Decimal("0.2"), me="me", now=world.now)


def test_by_an_estimate_a_batch_is_sent_that_its_upper_bound_would_forbid(world: World) -> None:
    texts = SHAPES["alike"][0]
    world.land(world.prepare(texts, "one"))
    before = world.bill
    manifest = world.prepare(texts, "two")
    with pytest.raises(BeyondBudget, match="may cost up to 36"):
        world.walk(manifest, max_cost_usd=Decimal(1))
    landed = world.land(manifest, max_cost_usd=Decimal(1), budget="estimate")
    ((charge, spent),) = charges(world, manifest)
    assert (charge.basis, charge.expected_usd is None) == ("estimate", False)
    assert spent is not None
    assert landed.cost_usd == Decimal(spent.usd) == world.bill - before < Decimal(charge.upper_bound_usd)


def test_a_limit_over_several_batches_counts_them_together_and_charges_none_or_all(world: World) -> None:
    two = [world.prepare(SHAPES["alike"][0], run, generation={"max_output_tokens": 1000}) for run in ("one", "two")]
    ledgers = [(manifest, world.store) for manifest in two]
    for one in ledgers:
        afford([one], Decimal("0.7"), me="me", now=world.now, charging=False)
    with pytest.raises(BeyondBudget, match="its 600 rows"):
        afford(ledgers, Decimal("0.7"), me="me", now=world.now)
    assert [charges(world, manifest) for manifest in two] == [[], []]
    afford(ledgers, Decimal("1.2"), me="me", now=world.now)
    afford(ledgers, Decimal("0.1"), me="me", now=world.now)  # what is charged once is not asked again
    assert [len(charges(world, manifest)) for manifest in two] == [1, 1]
    # Once a canary is being paid, what its batch needs is looked at when that is charged, without the rows that it answered.
    third = [(world.prepare(SHAPES["alike"][0], "three"), world.store)]
    with pytest.raises(BeyondBudget):
        afford(third, Decimal("0.1"), me="me", now=world.now, charging=False)
    assert Books(world.store, generation_of(world.build(third[0][0])), Decimal(1), me="me", now=world.now).charge(
        "rung 0 run 1", Decimal("0.001")
    )
    afford(third, Decimal("0.1"), me="me", now=world.now, charging=False)


def test_without_a_price_nothing_is_sent_under_a_limit_and_the_error_says_what_helps(world: World) -> None:
    manifest = world.prepare(SHAPES["alike"][0])
    build = msgspec.structs.replace(world.build(manifest), model="gemini-9")
    world.store.write(manifest.path, msgspec.json.encode(build))
    with pytest.raises(BeyondBudget, match=r"no price is known for gemini-9.*\[geminibatch\] prices"):
        afford([(manifest, world.store)], Decimal(5), me="me", now=world.now)


# After


def load(world: World, manifest: Manifest) -> Landed:
    """Submit and Load as tasks of their own."""
    while not isinstance(
        submit(manifest, store=world.store, gateway=world.gateway, me="s", now=world.now, log=LOG), Submitted
    ):
        world.emulator.clock.advance(minutes=10)
    world.emulator.clock.advance(hours=3)
    return collect(
        [manifest], open_store=lambda _: world.store, gateway=world.gateway, landing=Place("notes", "memory://l", "jsonl"),
        landing_store=FileLanding(world.landing), window="w", owner=Owner("dag", "load"), run=RunRef("dag", "run", "load"),
        thresholds=ALL, me="l", now=world.now, log=LOG,
    )  # fmt: skip


def test_a_window_says_what_it_was_estimated_to_cost_and_settles_what_was_charged(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    manifest = world.prepare(SHAPES["alike"][0], generation={"max_output_tokens": 1000})
    note_cost(world.build(manifest), world.store, world.estimate(manifest), me="me", now=world.now, log=LOG)
    afford([(manifest, world.store)], Decimal(1), me="me", now=world.now)
    with caplog.at_level(logging.INFO):
        landed = load(world, manifest)
    estimated = landed.manifest.estimated_usd
    assert estimated is not None
    assert (estimated["expected"], Decimal(estimated["high"] or 0) > world.bill) == (None, True)
    assert landed.manifest.price_sources == ("the package's table of 2026-10-31",)
    ((_, spent),) = charges(world, manifest)
    assert spent is not None
    assert Decimal(spent.usd) == world.bill
    assert f"it cost {world.bill:.4g}" in caplog.text
    assert "estimated between" in caplog.text


def test_a_cost_outside_the_estimate_is_a_warning(world: World, caplog: pytest.LogCaptureFixture) -> None:
    manifest = world.prepare(SHAPES["alike"][0])
    low = Span(Decimal("0.0001"), Decimal("0.0002"), Decimal("0.0003"))
    estimate = msgspec.structs.replace(world.estimate(manifest), batch_usd=low)
    note_cost(world.build(manifest), world.store, estimate, me="me", now=world.now, log=LOG)
    with caplog.at_level(logging.WARNING):
        load(world, manifest)
    assert "above the estimate's interval" in caplog.text


def test_the_first_estimate_on_record_stands(world: World) -> None:
    manifest = world.prepare(SHAPES["alike"][0])
    build, estimate = world.build(manifest), world.estimate(manifest)
    assert noted_cost(build, world.store) is None
    for changed in (estimate, msgspec.structs.replace(estimate, batch_usd=Span(Decimal(0), None, Decimal(0)))):
        note_cost(build, world.store, changed, me="me", now=world.now, log=LOG)
    assert noted_cost(build, world.store) == estimate.batch_usd


def test_a_batch_leaves_the_sizes_of_its_answers_once(world: World) -> None:
    manifest = world.prepare(SHAPES["short answers"][0], generation={"max_output_tokens": 120})
    load(world, manifest)
    (path,) = [path for path in world.store.list("usage") if path.endswith(".json")]
    assert "/dag.ask/" in path
    sizes = msgspec.json.decode(world.store.read(path) or b"", type=AnswerSizes)
    assert sizes.answers == 300
    assert sizes.output.total == world.emulator.bill()["entries"][0]["output_tokens"]
    assert 0 < sizes.output.p05 <= sizes.output.p50 <= sizes.output.p95 <= 123
    world.emulator.clock.advance(seconds=timedelta(days=1).total_seconds())
    load(world, manifest)
    assert [path] == list(world.store.list("usage"))
