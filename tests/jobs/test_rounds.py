"""Rounds: builds of what is unresolved, from the sealed requests alone, each opened once."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from airflow_provider_geminibatch.core.capabilities import ModelInfo
from airflow_provider_geminibatch.core.errors import GeminiBatchError, ServiceBusy, StoreUnreadable
from airflow_provider_geminibatch.core.ledger import Round, RungFact
from airflow_provider_geminibatch.core.model import BatchId, Build, Outcomes, Usage
from airflow_provider_geminibatch.core.names import wire_key
from airflow_provider_geminibatch.core.outcomes import Outcome
from airflow_provider_geminibatch.jobs.layers import build_path, rounds_of, rungs_of, sealed_places
from airflow_provider_geminibatch.jobs.results import Desk
from airflow_provider_geminibatch.jobs.rounds import (
    Asked,
    build_rung,
    most_of,
    open_round,
    with_higher_cap,
    worthy,
    write_rows,
)
from airflow_provider_geminibatch.jobs.submit import read_build
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.stores import MemoryStore
from airflow_provider_geminibatch.testing import InMemoryGateway, ManualClock
from tests.faults import WAYS, Crash, FaultyStore, Plan
from tests.jobs.batches import seal

LOG = logging.getLogger("test")
G1 = "batches/dag/run/prepare/map=-1/g0001"
EMPTY, TRUNCATED = Outcome(kind=Outcomes.EMPTY), Outcome(kind=Outcomes.TRUNCATED)
ROWS: list[Asked] = [((0, 1), EMPTY), ((1, 0), EMPTY), ((1, 2), EMPTY)]


class World:
    """A sealed batch of two shards with three rows each, and who opens rounds over it."""

    def __init__(self) -> None:
        self.store, self.clock = MemoryStore("memory://w"), ManualClock()
        self.service = InMemoryGateway(self.clock)
        self.root = read_build(self.store, seal(self.store, shards=2, rows=3).path)

    def desk(self, plan: Plan | None = None, me: str = "r") -> Desk:
        store: Any = FaultyStore(self.store, plan or Plan())
        return Desk(store, self.service, me, self.clock, LOG)

    def open(self, rows: list[Asked] = ROWS, plan: Plan | None = None, me: str = "r", number: int = 1) -> Round:
        return open_round(self.desk(plan, me), self.root, number, iter(rows), cap_factor=2.0)

    def build(self, round_: Round) -> Build:
        return read_build(self.store, build_path(self.root, round_.build))

    def lines(self, build: Build) -> Iterator[dict[str, Any]]:
        for shard in build.shards:
            yield from map(msgspec.json.decode, (self.store.read(shard.path) or b"").splitlines())

    def files(self) -> list[str]:
        return [path for path in self.store.list(f"{G1}/builds") if "/b1" not in path]


def test_a_round_is_a_build_of_its_own_whose_rows_know_the_root() -> None:
    world = World()
    round_ = world.open()
    build = world.build(round_)
    assert (build.parent, build.rows, build.model) == (world.root.id, 3, world.root.model)
    assert build.tag != world.root.tag
    assert [line["key"] for line in world.lines(build)] == [wire_key(build.tag, 0, row) for row in range(3)]
    assert [line["request"]["contents"][0]["parts"][0]["text"] for line in world.lines(build)] == [
        "row 1",
        "row 3",
        "row 5",
    ]
    assert list(sealed_places(world.store, build.shards[0])) == [(0, 1), (1, 0), (1, 2)]
    assert (world.store.read(build.shards[0].keys_path) or b"").splitlines()[0] == b'["k1",{},[0,1]]'
    assert round_.reasons == {"empty": 3}


def test_who_comes_second_obeys_and_leaves_nothing_behind() -> None:
    world = World()
    first = world.open()
    before = world.files()
    assert world.open(ROWS[:1], me="other") == first
    assert world.files() == before


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("at", range(30))
def test_wherever_opening_is_interrupted_one_round_stands(at: int, way: str) -> None:
    world = World()
    plan = Plan(at, way, meanwhile=lambda: world.open(me="other"))
    with suppress(Crash, GeminiBatchError):
        world.open(plan=plan)
    round_ = world.open(me="again")
    assert world.build(round_).rows == 3
    assert [one.fact for one in rounds_of(world.store, world.root)] == [round_]


def test_what_cannot_be_asked_better_makes_an_empty_round() -> None:
    world = World()
    round_ = world.open([((0, 0), TRUNCATED)])
    assert (round_.rows, round_.left, round_.reasons, round_.build, world.files()) == (0, 1, {}, "", [])
    assert rounds_of(world.store, world.root)[0].build is None


def capped(cap: int) -> World:
    """A world whose requests have an allowance, of a model that gives 20 tokens at most."""
    world = World()
    world.root = read_build(
        world.store,
        seal(
            world.store, rows=3, batch=BatchId("dag", "run", "capped"), generationConfig={"maxOutputTokens": cap}
        ).path,
    )
    world.service.model = lambda model: ModelInfo(model, output_token_limit=20)  # type: ignore[method-assign]
    return world


def cut(tokens: int) -> Outcome:
    return Outcome(kind=Outcomes.TRUNCATED, usage=Usage(candidates=tokens - 3, thoughts=3))


@pytest.mark.parametrize(
    ("number", "used", "asked"),
    [(1, 8, 16), (1, 0, 16), (2, 16, 20), (2, 8, 20), (3, 20, None), (3, 0, 20), (3, 16, 20)],
)
def test_what_was_cut_at_the_largest_allowance_is_not_asked_again_with_just_that(
    number: int, used: int, asked: int | None
) -> None:
    world = capped(8)
    round_ = world.open([((0, 0), cut(used) if used else TRUNCATED), ((0, 2), EMPTY)], number=number)
    caps = [line["request"]["generationConfig"]["maxOutputTokens"] for line in world.lines(world.build(round_))]
    assert caps == ([asked] if asked else []) + [8]
    assert (round_.rows, round_.left) == (len(caps), 0 if asked else 1)
    assert round_.reasons == ({"truncated": 1} if asked else {}) | {"empty": 1}


def test_what_the_service_ended_without_a_word_is_asked_again_as_it_was() -> None:
    world = World()
    round_ = world.open([((0, 0), Outcome(kind=Outcomes.TRUNCATED, transient=True)), ((0, 1), TRUNCATED)])
    assert (round_.rows, round_.left, round_.reasons) == (1, 1, {"truncated": 1})


def test_where_the_service_does_not_say_what_a_model_gives_no_more_is_asked_for_than_any_gives() -> None:
    world = World()
    for answer in (ModelInfo("m"), ServiceBusy("model", 503, "busy")):

        def said(model: str, answer: Any = answer) -> ModelInfo:
            if isinstance(answer, ServiceBusy):
                raise answer
            return answer  # type: ignore[no-any-return]

        world.service.model = said  # type: ignore[method-assign]
        assert most_of(world.service, "m") == 65_536


def test_a_row_whose_answer_did_not_fit_is_told_what_was_wrong_if_that_is_allowed() -> None:
    invalid = Outcome(kind=Outcomes.INVALID, text='{"city": 7}', reason="$.city: 7 is not a text")
    rows: list[Asked] = [((0, 1), invalid), ((1, 0), EMPTY)]
    world = World()
    round_ = open_round(world.desk(), world.root, 1, iter(rows), cap_factor=2.0, reask_invalid=True)
    told, plain = (line["request"]["contents"] for line in world.lines(world.build(round_)))
    assert [turn["role"] for turn in told] == ["user", "model", "user"]
    assert told[1]["parts"] == [{"text": '{"city": 7}'}]
    assert "$.city: 7 is not a text" in told[2]["parts"][0]["text"]
    assert len(plain) == 1
    assert (round_.corrected, round_.reasons) == (1, {"invalid": 1, "empty": 1})


def test_without_that_permission_it_is_asked_as_it_was() -> None:
    invalid = Outcome(kind=Outcomes.INVALID, text='{"city": 7}', reason="$.city: 7 is not a text")
    world = World()
    round_ = world.open([((0, 1), invalid)])
    (line,) = world.lines(world.build(round_))
    assert len(line["request"]["contents"]) == 1
    assert round_.corrected == 0


def test_the_allowance_grows_with_each_round_and_only_of_what_has_one() -> None:
    request = {"generationConfig": {"maxOutputTokens": 10, "temperature": 0}, "contents": []}
    assert with_higher_cap(request, 4.0)["generationConfig"] == {"maxOutputTokens": 40, "temperature": 0}
    assert with_higher_cap(request, 4.0, most=20)["generationConfig"]["maxOutputTokens"] == 20
    assert request["generationConfig"] == {"maxOutputTokens": 10, "temperature": 0}
    bare: dict[str, Any] = {"contents": []}
    assert with_higher_cap(bare, 2.0) is bare
    spelled = {"generation_config": {"max_output_tokens": 10}}
    assert with_higher_cap(spelled, 2.0) == {"generation_config": {"max_output_tokens": 20}}


def test_a_damaged_shard_is_not_asked_from() -> None:
    world = World()
    path = world.root.shards[0].path
    world.store.write(path, b"no request\n" * 3)
    with pytest.raises(StoreUnreadable, match="line 1 is not what was sealed"):
        world.open()
    assert world.files() == []
    assert rounds_of(world.store, world.root) == ()


def test_a_rung_asks_by_a_build_for_its_own_model() -> None:
    world = World()
    fact = RungFact(
        owner="r", at=world.clock(), number=1, position=0, kind="resubmit", model="gemini-3.7-flash",
        limit_at=world.clock() + timedelta(hours=1), reason="late",
    )  # fmt: skip
    fact_store.put(world.store, f"{G1}/rungs/01.json", fact)
    built = build_rung(world.desk(), world.root, fact, iter(ROWS))
    assert build_rung(world.desk(me="other"), world.root, fact, iter(ROWS[:1])) == built
    (rung,) = rungs_of(world.store, world.root)
    assert rung.build is not None
    assert (rung.build.model, rung.build.rows, rung.name) == ("gemini-3.7-flash", 3, "rung-01")


@pytest.mark.parametrize(
    ("model", "used", "asked"),
    [(None, 8, 16), (None, 16, 20), (None, 20, None), ("gemini-3.7-flash", 16, 20), ("gemini-3.7-flash", 20, 8)],
)
def test_a_rung_by_a_build_gives_a_truncated_row_more_than_it_used(
    model: str | None, used: int, asked: int | None
) -> None:
    world = capped(8)
    fact = RungFact(
        owner="r", at=world.clock(), number=1, position=0, kind="resubmit", model=model,
        limit_at=world.clock() + timedelta(hours=1), reason="late",
    )  # fmt: skip
    rows: list[Asked] = [((0, 0), cut(used)), ((0, 2), EMPTY)]
    built = build_rung(world.desk(), world.root, fact, iter(rows), factors=(2.0, 4.0))
    build = read_build(world.store, build_path(world.root, built.build))
    caps = [line["request"]["generationConfig"]["maxOutputTokens"] for line in world.lines(build)]
    assert caps == ([asked] if asked else []) + [8]


def test_only_what_may_fare_better_is_worthy() -> None:
    blocked = Outcome(kind=Outcomes.BLOCKED)
    assert list(worthy([((0, 0), EMPTY), ((0, 1), blocked)])) == [((0, 0), EMPTY)]


def test_a_row_set_is_a_line_per_row_with_its_digest() -> None:
    store = MemoryStore("memory://w")
    rows, digest = write_rows(store, "rungs/01.rows", iter([(0, 1), (2, 3)]))
    assert store.read("rungs/01.rows") == b"[0,1]\n[2,3]\n"
    assert (rows, len(digest)) == (2, 64)
