"""The budget of a batch: charged before a build is sent, settled by what it cost, and obeyed by rounds."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import msgspec
import pytest

from airflow_provider_geminibatch.core.batch import BatchPolicy, Rung
from airflow_provider_geminibatch.core.errors import BeyondBudget, GeminiBatchError, Unusable
from airflow_provider_geminibatch.core.ledger import Charge, Kept, Spending
from airflow_provider_geminibatch.core.prices import Price
from airflow_provider_geminibatch.core.steps import sends_again
from airflow_provider_geminibatch.gemini.gateway import Refused
from airflow_provider_geminibatch.jobs.budget import Books, Need, charge_build, charged_usd, need_of, refuse_build
from airflow_provider_geminibatch.jobs.collect import Landed
from airflow_provider_geminibatch.jobs.cost_estimate import afford
from airflow_provider_geminibatch.jobs.submit import read_build
from airflow_provider_geminibatch.storage import facts
from tests.faults import WAYS, Crash, Plan
from tests.jobs.test_whole import ALL, EMPTY, G1, World, at_first


class DiesAtTheSeal(Plan):
    """The process dies before it puts the choice of results on record."""

    def run(self, name: str, act: Callable[[], Any], lost: Callable[[], Any]) -> Any:
        if name == "store.create 01.json":
            raise Crash(name)
        return act()


def walked(world: World, limit: str, **more: Any) -> Landed:
    policy = BatchPolicy(max_cost_usd=Decimal(limit), thresholds=ALL, **more)
    landed = world.on(policy)
    assert isinstance(landed, Landed)
    return landed


def charges(world: World) -> list[tuple[str, Decimal, Decimal | None]]:
    found = []
    for number in range(1, 20):
        charge = facts.get(world.store, f"{G1}/charges/{number:04d}.json", Charge)
        if charge is None:
            break
        spent = facts.get(world.store, f"{G1}/charges/{number:04d}.spent.json", Spending)
        found.append((charge.purpose, Decimal(charge.upper_bound_usd), Decimal(spent.usd) if spent else None))
    return found


def test_shards_that_are_sent_once_more_are_charged_each_though_their_indexes_are_the_same() -> None:
    world = World(shards=2)
    build = read_build(world.store, world.manifest.path)
    other = msgspec.structs.replace(build.shards[1], index=0, home=f"{G1.replace('g0001', 'g0002')}/builds/b2")
    build = msgspec.structs.replace(build, shards=(build.shards[0], other))
    books = Books(world.store, G1, Decimal(9), me="x", now=world.clock)
    assert charge_build(books, world.store, build, world.clock()) == ""
    books.settle("build b1", Decimal(0))
    assert charge_build(books, world.store, build, world.clock(), again=lambda facts: True) == ""
    first, *again = charges(world)
    assert [purpose for purpose, _, _ in again] == [f"build b1 again shard {place} attempt 1" for place in (0, 1)]
    assert sum(upper for _, upper, _ in again) == first[1]


def test_a_batch_is_charged_at_the_price_of_the_day_on_which_its_job_may_end() -> None:
    """The model doubles its price on the first of January."""
    bounds = []
    for day in (25, 30):
        world = World(turnaround=timedelta(hours=40))
        world.clock.advance_to(datetime(2026, 12, day, 22, tzinfo=UTC))
        landed = walked(world, "5")
        ((_, upper, real),) = charges(world)
        assert real == landed.cost_usd
        bounds.append(upper)
    assert bounds[1] == 2 * bounds[0]


def test_a_batch_that_may_cost_more_than_allowed_is_not_sent() -> None:
    world = World()
    with pytest.raises(Unusable, match=r"up to .* USD") as error:
        walked(world, "0.001")
    assert "Nothing was sent or paid" in str(error.value)
    assert (world.service.created, world.service.files) == ([], {})


def test_a_build_is_charged_at_its_bound_and_settled_by_what_it_cost() -> None:
    world = World()
    landed = walked(world, "5")
    ((purpose, upper, real),) = charges(world)
    assert purpose == "build b1"
    assert upper > Decimal("0.3")
    assert real == landed.cost_usd == charged_usd(world.store, G1, now=world.clock)


def test_what_the_root_did_not_use_is_left_for_a_round() -> None:
    world = World(answer=at_first(EMPTY, "row 1"))
    landed = walked(world, "0.5")
    assert len(charges(world)) == 2
    assert landed.counts["answer"] == 3


def test_a_round_that_the_budget_does_not_bear_is_not_sent_and_the_rest_lands() -> None:
    world = World(answer=at_first(EMPTY, "row 1"))
    books = Books(world.store, G1, Decimal("0.5"), me="x", now=world.clock)
    policy = BatchPolicy(max_cost_usd=Decimal("0.5"), thresholds=ALL)
    world.walk(policy)
    world.clock.advance(timedelta(hours=4))
    # Another effect of the batch takes what is left, once the root is settled.
    upper = charges(world)[0][1]
    books.settle("build b1", Decimal("0.001"))
    assert books.charge("something else", Decimal("0.499"))

    landed = world.on(policy)

    assert isinstance(landed, Landed)
    assert upper < Decimal("0.5")
    assert landed.counts["answer"] == 2
    assert len(world.service.created) == 1
    assert len(charges(world)) == 2


def test_without_a_price_nothing_is_sent_under_a_budget() -> None:
    world = World()
    build = read_build(world.store, world.manifest.path)
    world.store.write(world.manifest.path, msgspec.json.encode(msgspec.structs.replace(build, model="gemini-9")))
    with pytest.raises(Unusable, match="no price is known for gemini-9"):
        walked(world, "5")
    assert world.service.created == []


def test_a_rescue_has_what_jobs_without_results_did_not_use() -> None:
    world = World(turnaround=timedelta(hours=100))
    landed = walked(world, "0.4", deadline=timedelta(hours=11), ladder=(Rung("flex"),))
    assert landed.counts["answer"] == 3
    assert [real for _, _, real in charges(world)] == [Decimal(0), landed.cost_usd]
    assert len(world.service.generated) == 3


def test_a_job_whose_results_never_showed_stays_charged_at_its_bound() -> None:
    world = World(turnaround=timedelta(hours=3))
    shown = world.service._now
    world.service._now = lambda job: msgspec.structs.replace(shown(job), output_file="")  # type: ignore[method-assign]
    ladder: dict[str, Any] = {"deadline": timedelta(hours=11), "ladder": (Rung("flex"),)}
    world.walk(BatchPolicy(max_cost_usd=Decimal(1), thresholds=ALL, **ladder))
    world.clock.advance(timedelta(hours=11))
    landed = walked(world, "1", **ladder)

    assert landed.counts["answer"] == 3
    (_, upper, real), (_, _, asked) = charges(world)
    assert (real, asked) == (None, landed.cost_usd)
    assert upper > 0


def test_a_build_that_is_not_sent_for_want_of_budget_is_put_on_record_once() -> None:
    world = World(shards=2)
    build = read_build(world.store, world.manifest.path)
    for me in ("one", "two", "three"):
        refuse_build(world.store, build, world.service.identity, "no money", me=me, at=world.clock())

    for shard in build.shards:
        (attempt,) = facts.shard_facts(world.store, shard.ledger).attempts
        assert attempt.refused is not None
        assert attempt.refused.text == "not sent: no money"


PRICE = Price(Decimal(2), Decimal(10))


def test_what_a_build_needs_is_made_of_its_prompts_and_of_the_longest_answers() -> None:
    world = World()
    build = read_build(world.store, world.manifest.path)
    need = need_of(world.store, build, (PRICE,))
    assert need.tokens == 3 * 65_536
    assert need.usd - need.prompts_usd == need.tokens * 5 / 1_000_000
    # A token for every byte of the three requests.
    lines = (world.store.read(build.shards[0].path) or b"").splitlines()
    size = sum(len(msgspec.json.encode(msgspec.json.decode(line)["request"])) for line in lines)
    assert need.prompts_usd == Decimal(size) / 1_000_000


def test_rows_that_a_canary_answered_need_nothing() -> None:
    world = World()
    build = read_build(world.store, world.manifest.path)
    (shard,) = build.shards
    whole = need_of(world.store, build, (PRICE,))
    kept = Kept(owner="me", at=world.clock(), path="lines", sha256="", lines=2, rows=(0, 2))
    facts.put(world.store, f"{shard.ledger}/canary.json", kept)
    rest = need_of(world.store, build, (PRICE,))
    assert rest.tokens == 65_536
    assert rest.usd < whole.usd / 2


@pytest.mark.parametrize(
    ("limit", "charged", "said"),
    [
        ("6", "0", "its 10 rows may cost up to 10.000000 USD, and 0 of 6 USD charged already; about 6 rows would fit, or answers"),
        ("6", "0", "answers of up to 500 tokens (maxOutputTokens)"),
        ("6", "5.5", "about 0 rows would fit"),
        ("2", "0", "about 2 rows would fit"),
    ],
)  # fmt: skip
def test_what_would_fit_is_said(limit: str, charged: str, said: str) -> None:
    need = Need(Decimal(10), Decimal(2), Decimal(10_000))
    told = need.told(10, Decimal(limit), Decimal(charged))
    assert said in told
    assert ("maxOutputTokens" in told) == (limit == "6" and charged == "0")


def test_the_same_charges_are_seen_under_another_limit() -> None:
    world = World()
    books = Books(world.store, G1, Decimal(5), me="x", now=world.clock)
    assert books.charge("one", Decimal(3))
    assert not books.within(Decimal(4)).charge("two", Decimal(2))
    assert books.charge("two", Decimal(2))
    assert books.within(Decimal(9)).account().charged_usd == 5


BY_ESTIMATE = BatchPolicy(max_cost_usd=Decimal("0.5"), budget="estimate", thresholds=ALL)


def resumed_until_landed(world: World, plan: Plan) -> Landed:
    """Walk on after whatever the plan does."""
    for _ in range(50):
        try:
            end = world.walk(BY_ESTIMATE, plan)
        except (Crash, GeminiBatchError):
            plan = Plan()
            continue
        if isinstance(end, Landed):
            return end
        world.clock.advance(timedelta(hours=1))
    raise AssertionError("it does not end")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "effect",
    ["gateway.count_tokens", "store.create cost.json", "store.create gemini-3.8-flash.json", "store.create 0001.json"],
)
def test_whatever_goes_wrong_while_a_budget_is_looked_at_there_is_one_charge_and_one_job(effect: str, way: str) -> None:
    quiet = Plan()
    World().walk(BY_ESTIMATE, quiet)
    at = quiet.seen.index(effect)

    world = World()
    landed = resumed_until_landed(world, Plan(at, way, meanwhile=lambda: world.walk(BY_ESTIMATE)))

    assert landed.counts["answer"] == 3
    assert len(world.service.created) == 1
    ((purpose, _, real),) = charges(world)
    assert (purpose, real) == ("build b1", landed.cost_usd)
    assert landed.manifest.estimated_usd is not None


def test_a_build_is_not_settled_while_a_shard_of_it_waits_for_room() -> None:
    world = World(shards=2)
    policy = BatchPolicy(
        max_cost_usd=Decimal(5), deadline=timedelta(hours=2), ladder=(Rung("hedge", timedelta(hours=9)), Rung("commit"))
    )
    create = world.service.create

    def one(**asked: Any) -> Any:
        return Refused(429, "no room", 5400.0) if world.service.created else create(**asked)

    world.service.create = one  # type: ignore[method-assign]
    world.waits(policy)
    world.clock.advance(timedelta(hours=4))
    world.waits(policy)

    assert len(world.service.created) == 1
    assert charges(world)[0][2] is None


def test_a_shard_that_is_sent_once_more_after_its_build_was_settled_is_charged_for_itself() -> None:
    world = World(shards=2)
    policy = BatchPolicy(max_cost_usd=Decimal(2), thresholds=ALL, max_rounds=0)
    world.walk(policy, max_tries=1)
    failed, shown = world.service.created[0].name, world.service._now

    def now(job: Any) -> Any:
        seen = shown(job)
        return (
            msgspec.structs.replace(seen, state="FAILED", output_file="") if job.name == failed and seen.ended else seen
        )

    world.service._now = now  # type: ignore[method-assign]
    world.clock.advance(timedelta(hours=4))
    with pytest.raises(Crash):
        world.walk(policy, DiesAtTheSeal(), max_tries=1)
    (whole,) = charges(world)
    assert whole[2] is not None

    tight = BatchPolicy(max_cost_usd=whole[2] + whole[1] / 4, thresholds=ALL, max_rounds=0)
    with pytest.raises(Unusable, match="its 3 rows may cost up to"):
        world.walk(tight, max_tries=3, later_try=True)
    ledgers, again = [(world.manifest, world.store)], partial(sends_again, task="", max_tries=3)
    with pytest.raises(BeyondBudget, match="its 3 rows may cost up to"):
        afford(ledgers, whole[2] + whole[1] / 4, me="s", now=world.clock, again=again)
    afford(ledgers, Decimal(2), me="s", now=world.clock, again=again)
    assert [purpose for purpose, _, _ in charges(world)] == ["build b1", "build b1 again shard 0 attempt 2"]
    world.walk(policy, max_tries=3, later_try=True)

    assert len(world.service.created) == 3
    _, (purpose, upper, real) = charges(world)
    assert (purpose, upper, real) == ("build b1 again shard 0 attempt 2", whole[1] / 2, None)
    world.clock.advance(timedelta(hours=4))
    landed = world.walk(policy, max_tries=3, later_try=True)
    assert isinstance(landed, Landed)
    assert landed.counts["answer"] == 6
    assert charged_usd(world.store, G1, now=world.clock) == landed.cost_usd
