"""A whole batch: rounds over what is unresolved, early commits, the ladder, a person's word, and always an end."""

from __future__ import annotations

import logging
import tracemalloc
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from airflow_provider_geminibatch.core.batch import BatchPolicy, Rung
from airflow_provider_geminibatch.core.errors import (
    BatchCancelled,
    Rejected,
    ResultsBroken,
    ServiceBusy,
    Unusable,
    WaitTimedOut,
)
from airflow_provider_geminibatch.core.landing import Place, ResultsSeal, RunRef, ShardResult
from airflow_provider_geminibatch.core.ledger import CancelMark, Command, Fact, Round, RungFact, Settled
from airflow_provider_geminibatch.core.model import Owner
from airflow_provider_geminibatch.core.verdict import Thresholds
from airflow_provider_geminibatch.gemini.gateway import JobPage, Refused
from airflow_provider_geminibatch.jobs.closing import seal_results
from airflow_provider_geminibatch.jobs.collect import Landed, gathered
from airflow_provider_geminibatch.jobs.results import Desk
from airflow_provider_geminibatch.jobs.rows import LandedRows
from airflow_provider_geminibatch.jobs.submit import read_build
from airflow_provider_geminibatch.jobs.whole import Waiting, walk
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.landings import FileLanding, read_manifest, read_rows
from airflow_provider_geminibatch.storage.stores import LocalStore, MemoryStore
from airflow_provider_geminibatch.testing import InMemoryGateway, ManualClock, echo
from tests.faults import FaultyGateway, FaultyStore, Plan
from tests.jobs.batches import seal

LOG = logging.getLogger("test")
WINDOW = "20260101T000000Z"
G1 = "batches/dag/run/prepare/map=-1/g0001"
BLOCKED = {"promptFeedback": {"blockReason": "SAFETY"}}
EMPTY = {"candidates": [{"content": {"parts": []}, "finishReason": "STOP"}]}
ALL = Thresholds(max_unresolved=1.0)

Answer = Callable[[Mapping[str, Any]], dict[str, Any]]


def text_of(request: Mapping[str, Any]) -> str:
    return str(request["contents"][0]["parts"][0]["text"])


def at_first(reply: dict[str, Any], *texts: str, times: int = 1) -> Answer:
    """Some rows get ``reply`` the first times they are asked, and an answer after that."""
    asked: dict[str, int] = {}

    def answer(request: Mapping[str, Any]) -> dict[str, Any]:
        text = text_of(request)
        asked[text] = asked.get(text, 0) + 1
        return reply if text in texts and asked[text] <= times else echo(request)

    return answer


class World:
    """A sealed batch, services, a landing and a clock."""

    def __init__(
        self, *, shards: int = 1, rows: int = 3, turnaround: timedelta = timedelta(hours=3), answer: Answer = echo
    ) -> None:
        self.clock = ManualClock()
        self.store, self.landing = MemoryStore("memory://w"), MemoryStore("memory://landing")
        self.service = InMemoryGateway(self.clock, turnaround=turnaround, answer=answer)
        self.elsewhere = InMemoryGateway(
            self.clock,
            turnaround=timedelta(minutes=30),
            models=("gemini-3.7-flash", "gemini-3.8-flash"),
            project="other",
        )
        self.manifest = seal(self.store, shards=shards, rows=rows)
        self.began = self.clock()

    def walk(self, policy: BatchPolicy, plan: Plan | None = None, me: str = "w", **changes: Any) -> Landed | Waiting:
        plan = plan or Plan()
        own, other = FaultyGateway(self.service, plan), FaultyGateway(self.elsewhere, plan)
        return walk(
            self.manifest, store=FaultyStore(self.store, plan), gateways=lambda conn_id: other if conn_id else own,
            policy=policy, landing=Place("notes", "memory://landing", "jsonl"),
            landing_store=FileLanding(FaultyStore(self.landing, plan)),
            window=WINDOW, owner=Owner("dag", "ask"), run=RunRef("dag", "run", "ask"), me=me, now=self.clock, log=LOG,
            sleep=lambda seconds: self.clock.advance(timedelta(seconds=seconds)), **changes,
        )  # fmt: skip

    def on(self, policy: BatchPolicy, *, step: timedelta = timedelta(minutes=30), most: int = 200) -> Landed:
        """Walk as a task would that is deferred again and again."""
        for _ in range(most):
            end = self.walk(policy)
            if isinstance(end, Landed):
                return end
            soon = self.clock() + step
            self.clock.advance_to(min(soon, end.until) if end.until else soon)
            self.clock.advance(timedelta(seconds=1))
        raise AssertionError("it does not end")

    def waits(self, policy: BatchPolicy, **changes: Any) -> Waiting:
        end = self.walk(policy, **changes)
        assert isinstance(end, Waiting), end
        return end

    def rows(self, **how: Any) -> list[dict[str, Any]]:
        return list(read_rows(self.landing, WINDOW, **how))

    def told(self) -> list[tuple[Any, ...]]:
        return [(row["key"], row["outcome"], row["text"], row["round"]) for row in self.rows(any_verdict=True)]

    def fact(self, path: str, kind: type[Fact]) -> Any:
        return fact_store.get(self.store, f"{G1}/{path}", kind)

    def command(self, what: str) -> None:
        fact_store.put(
            self.store, f"{G1}/command.json", Command(owner="ann", at=self.clock(), command=what, reason="enough")
        )

    @property
    def elapsed(self) -> timedelta:
        return self.clock() - self.began


def test_a_batch_comes_to_its_commit_without_anybody_doing_more_than_asking() -> None:
    world = World(shards=2)
    first = world.waits(BatchPolicy())
    assert first.job_names == ("batches/000000", "batches/000001")
    assert (first.until, first.wake, first.conn_id) == (None, "all", None)
    world.clock.advance(timedelta(hours=4))
    landed = world.walk(BatchPolicy())
    assert isinstance(landed, Landed)
    assert landed.manifest.passes
    assert len(world.rows()) == 6
    assert world.walk(BatchPolicy(), me="again").manifest == landed.manifest  # type: ignore[union-attr]
    assert len(world.service.created) == 2


def test_an_answer_that_does_not_fit_is_corrected_in_a_round_when_that_is_allowed() -> None:
    def answer(request: Mapping[str, Any]) -> dict[str, Any]:
        """As a model that gets the type wrong until it is told so."""
        told = len(request["contents"]) == 3
        text = '{"n": 7}' if told or text_of(request) == "row 0" else '{"n": "seven"}'
        return {"candidates": [{"content": {"parts": [{"text": text}]}, "finishReason": "STOP"}]}

    def run(**policy: Any) -> list[Any]:
        world = World(rows=2, answer=answer)
        schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
        build = msgspec.structs.replace(read_build(world.store, world.manifest.path), response_schema=schema)
        world.store.write(world.manifest.path, msgspec.json.encode(build))
        world.on(BatchPolicy(thresholds=ALL, **policy))
        return [(row["key"], row["outcome"], row["round"]) for row in world.rows()]

    assert run() == [("k0", "answer", 0), ("k1", "invalid", 1)]
    assert run(reask_invalid=True) == [("k0", "answer", 0), ("k1", "answer", 1)]


def test_a_round_asks_again_only_what_is_unresolved_and_worth_it() -> None:
    world = World(rows=4, answer=at_first(EMPTY, "row 2"))
    blocked = world.service._answer
    world.service._answer = lambda request: BLOCKED if text_of(request) == "row 1" else blocked(request)
    landed = world.on(BatchPolicy(thresholds=ALL))
    assert world.told() == [
        ("k0", "answer", "row 0", 0), ("k1", "blocked", None, 0), ("k2", "answer", "row 2", 1), ("k3", "answer", "row 3", 0),
    ]  # fmt: skip
    assert [job.counts.total for job in world.service.created] == [4, 1]
    assert world.fact("rounds/01.json", Round).reasons == {"empty": 1}
    assert landed.counts == {**dict.fromkeys(landed.counts, 0), "answer": 3, "blocked": 1}


def test_a_row_costs_what_all_its_rounds_cost() -> None:
    spent = {**EMPTY, "usageMetadata": {"promptTokenCount": 100, "candidatesTokenCount": 0, "totalTokenCount": 100}}
    world = World(answer=at_first(spent, "row 2"))
    landed = world.on(BatchPolicy())
    costs = [row["cost_usd"] for row in world.rows()]
    assert costs[0] == Decimal("0.0000045")  # two tokens in, two out
    assert costs[2] == costs[0] + Decimal("0.0000375")  # and a hundred in, in vain
    assert landed.cost_usd == sum(costs)


def test_rounds_shrink_or_stop() -> None:
    world = World(answer=at_first(EMPTY, "row 1", "row 2", times=99))
    landed = world.on(BatchPolicy(max_rounds=5, thresholds=ALL))
    # The first round did not shrink what was unresolved, so there is no second.
    assert [job.counts.total for job in world.service.created] == [3, 2]
    assert landed.counts["empty"] == 2


def test_rows_that_can_be_given_no_more_keep_no_others_from_a_further_round() -> None:
    cut = {"candidates": [{"content": {"parts": [{"text": "ro"}]}, "finishReason": "MAX_TOKENS"}]}
    patience = at_first(EMPTY, "row 3", times=2)

    def answer(request: Mapping[str, Any]) -> dict[str, Any]:
        return (
            cut
            if text_of(request) in ("row 0", "row 1")
            else patience(request)
            if text_of(request) == "row 3"
            else late(request)
        )

    late = at_first(EMPTY, "row 2", times=1)
    world = World(rows=4, answer=answer)
    world.on(BatchPolicy(max_rounds=3, thresholds=ALL))
    assert [job.counts.total for job in world.service.created] == [4, 2, 1]
    assert [(row[1], row[3]) for row in world.told()] == [("truncated", 0)] * 2 + [("answer", 1), ("answer", 2)]
    first = world.fact("rounds/01.json", Round)
    assert (first.rows, first.left, first.reasons) == (2, 2, {"empty": 2})


def test_several_rounds_each_smaller_than_the_one_before() -> None:
    patience = {"row 0": 1, "row 1": 2, "row 2": 3}
    asked: dict[str, int] = {}

    def answer(request: Mapping[str, Any]) -> dict[str, Any]:
        asked[text_of(request)] = asked.get(text_of(request), 0) + 1
        return EMPTY if asked[text_of(request)] <= patience[text_of(request)] else echo(request)

    world = World(answer=answer)
    world.on(BatchPolicy(max_rounds=5))
    assert [job.counts.total for job in world.service.created] == [3, 3, 2, 1]
    assert [row[3] for row in world.told()] == [1, 2, 3]


def test_a_rung_gives_a_truncated_row_more_than_the_rounds_gave_it_and_asks_none_for_what_it_had() -> None:
    caps: list[int] = []

    def answer(request: Mapping[str, Any]) -> dict[str, Any]:
        cap = request.get("generationConfig", {}).get("maxOutputTokens", 0)
        caps.append(cap)
        used = {"promptTokenCount": 1, "candidatesTokenCount": cap or 500, "totalTokenCount": cap}
        full = {**echo(request), "usageMetadata": used}
        return {**full, "candidates": [{**full["candidates"][0], "finishReason": "MAX_TOKENS"}]} if cap < 400 else full

    world = World(rows=2, answer=answer)
    capped(world, f"{G1}/builds/b1/shard-0000.jsonl")
    # The round has ended, and nobody has looked yet, when the deadline passes.
    policy = BatchPolicy(deadline=timedelta(hours=7, minutes=30), ladder=(Rung("flex"),), thresholds=ALL)
    world.on(policy, step=timedelta(hours=2))
    assert caps == [100, 0, 200, 400]
    assert [(row[1], row[3]) for row in world.told()] == [("answer", None), ("truncated", 0)]


def test_a_truncated_request_gets_a_larger_allowance_and_one_without_is_left_alone() -> None:
    caps: list[int] = []

    def answer(request: Mapping[str, Any]) -> dict[str, Any]:
        cap = request.get("generationConfig", {}).get("maxOutputTokens", 0)
        caps.append(cap)
        full = echo(request)
        return {"candidates": [{**full["candidates"][0], "finishReason": "MAX_TOKENS"}]} if cap < 200 else full

    world = World(rows=2, answer=answer)
    shard = f"{G1}/builds/b1/shard-0000.jsonl"
    capped(world, shard)
    landed = world.on(BatchPolicy(thresholds=ALL))
    assert caps == [100, 0, 200]
    assert landed.counts["answer"] == landed.counts["truncated"] == 1
    assert world.fact("rounds/01.json", Round).rows == 1


def capped(world: World, path: str) -> None:
    """Give the first row of the sealed shard an allowance of a hundred tokens, as if it had been sealed so."""
    import hashlib

    first, *rest = (world.store.read(path) or b"").splitlines(keepends=True)
    line = msgspec.json.decode(first)
    line["request"]["generationConfig"] = {"maxOutputTokens": 100}
    data = b"".join([msgspec.json.encode(line) + b"\n", *rest])
    world.store.write(path, data)
    build = msgspec.json.decode(world.store.read(f"{G1}/builds/b1.json") or b"")
    build["shards"][0] |= {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    world.store.write(f"{G1}/builds/b1.json", msgspec.json.encode(build))


def test_nothing_is_asked_again_where_no_round_is_wanted() -> None:
    world = World(answer=at_first(EMPTY, "row 1"))
    assert world.on(BatchPolicy(max_rounds=0, thresholds=ALL)).counts["empty"] == 1
    assert len(world.service.created) == 1


def test_a_commit_outside_its_thresholds_lies_apart_and_says_so_every_time() -> None:
    world = World(answer=lambda request: BLOCKED)
    for _ in range(2):
        with pytest.raises(Rejected, match="0 of 3 answered"):
            world.on(BatchPolicy())
    assert read_manifest(world.landing, WINDOW) is None


def test_a_deadline_without_a_ladder_fails_and_leaves_the_jobs_alone() -> None:
    world = World(turnaround=timedelta(days=9))
    with pytest.raises(WaitTimedOut, match="not cancelled"):
        world.on(BatchPolicy(deadline=timedelta(hours=11)))
    assert world.elapsed < timedelta(hours=11, minutes=1)
    assert not world.service.job("batches/000000").ended


def test_a_deadline_that_is_past_before_anything_was_sent_is_a_mistake() -> None:
    world = World()
    with pytest.raises(Unusable, match="before anything was sent"):
        world.walk(BatchPolicy(deadline=world.clock() - timedelta(hours=1)))
    assert world.service.created == []


def test_what_never_finishes_is_committed_by_the_deadline_plus_the_limit_of_the_fallback() -> None:
    world = World(shards=2, turnaround=timedelta(days=9))
    policy = BatchPolicy(deadline=timedelta(hours=11), ladder=(Rung("flex", limit=timedelta(hours=1)),))
    landed = world.on(policy)
    assert world.elapsed <= timedelta(hours=12)
    assert landed.manifest.passes
    assert world.told() == [(f"k{number}", "answer", f"row {number}", None) for number in range(6)]
    assert {row["shard"] for row in world.rows()} == {"rung-01"}
    assert {job.state for job in map(world.service.job, ("batches/000000", "batches/000001"))} == {"CANCELLED"}
    fact = world.fact("rungs/01.json", RungFact)
    assert (fact.kind, fact.row_count) == ("flex", 6)
    seals = world.fact("seals/01.json", ResultsSeal)
    assert [result.shard for result in seals.results if result.path] == ["rung-01.seg-00000"]


def test_what_had_ended_is_kept_and_only_the_rest_is_rescued() -> None:
    world = World(answer=at_first(EMPTY, "row 1", times=9), turnaround=timedelta(hours=3))
    # The first answers come in time, the round does not.
    policy = BatchPolicy(deadline=timedelta(hours=5), ladder=(Rung("flex", limit=timedelta(hours=1)),), thresholds=ALL)
    world.service._answer = at_first(EMPTY, "row 1", times=1)
    world.on(policy)
    assert [(row[1], row[3]) for row in world.told()] == [("answer", 0), ("answer", None), ("answer", 0)]
    assert world.fact("rungs/01.json", RungFact).row_count == 1


def test_commit_what_is_there_cancels_the_rest_and_says_so_per_row() -> None:
    world = World(shards=2, turnaround=timedelta(hours=3))
    never_ending(world, "row 3")
    policy = BatchPolicy(deadline=timedelta(hours=5), ladder=(Rung("commit"),), thresholds=ALL)
    landed = world.on(policy)
    assert landed.counts["answer"] == 3
    assert landed.counts["failed"] + landed.counts["missing"] == 3
    assert landed.manifest.complete
    assert world.elapsed < timedelta(hours=5, minutes=30)


def test_waiting_on_is_a_rung_too() -> None:
    world = World(turnaround=timedelta(hours=12))
    policy = BatchPolicy(deadline=timedelta(hours=11), ladder=(Rung("wait", limit=timedelta(hours=2)), Rung("fail")))
    landed = world.on(policy)
    assert landed.counts["answer"] == 3
    assert world.fact("rungs/02.json", RungFact) is None
    assert len(world.service.created) == 1


def test_the_rung_below_the_last_is_a_commit_of_what_is_there() -> None:
    world = World(turnaround=timedelta(days=9))
    policy = BatchPolicy(deadline=timedelta(hours=11), ladder=(Rung("wait", limit=timedelta(hours=2)),))
    with pytest.raises(Rejected):
        world.on(policy)
    assert timedelta(hours=13) <= world.elapsed <= timedelta(hours=13, minutes=30)
    assert world.fact("rungs/02.json", RungFact).kind == "commit"


def test_the_last_rung_may_be_to_fail() -> None:
    world = World(turnaround=timedelta(days=9))
    policy = BatchPolicy(deadline=timedelta(hours=11), ladder=(Rung("wait", limit=timedelta(hours=2)), Rung("fail")))
    with pytest.raises(WaitTimedOut):
        world.on(policy)
    assert not world.service.job("batches/000000").ended


def test_asking_elsewhere_cancels_here_first_and_waits_there() -> None:
    world = World(turnaround=timedelta(days=9))
    rung = Rung("resubmit", limit=timedelta(hours=2), model="gemini-3.7-flash", conn_id="other")
    policy = BatchPolicy(deadline=timedelta(hours=11), ladder=(rung,))
    world.waits(policy)
    world.clock.advance(timedelta(hours=11))
    waiting = world.waits(policy)
    assert world.service.job("batches/000000").state == "CANCELLED"
    assert (waiting.conn_id, waiting.job_names) == ("other", ("batches/000000",))
    landed = world.on(policy)
    assert landed.manifest.models == ("gemini-3.7-flash", "gemini-3.8-flash")
    assert [row[1] for row in world.told()] == ["answer"] * 3
    assert world.elapsed <= timedelta(hours=13)


def test_a_hedge_leaves_the_first_job_alone_until_one_side_has_won() -> None:
    world = World(turnaround=timedelta(days=9))
    policy = BatchPolicy(
        deadline=timedelta(hours=11),
        ladder=(Rung("hedge", limit=timedelta(hours=2), conn_id="other"),),
        in_backfill=False,
    )
    world.waits(policy)
    world.clock.advance(timedelta(hours=11))
    waiting = world.waits(policy)
    assert (waiting.conn_id, waiting.job_names, waiting.wake) == (None, ("batches/000000",), "any")
    assert waiting.until == world.clock() + timedelta(minutes=5)  # the other one is looked at then
    assert len(world.elsewhere.created) == 1
    assert not world.service.job("batches/000000").ended
    landed = world.on(policy)
    assert landed.counts["answer"] == 3
    assert world.service.job("batches/000000").state == "CANCELLED"
    assert len(world.service.created) == 1  # the loser is not sent again because it was cancelled


def test_of_a_hedge_the_first_answer_wins_and_both_are_paid() -> None:
    world = World(turnaround=timedelta(hours=11, minutes=10))
    policy = BatchPolicy(
        deadline=timedelta(hours=11), ladder=(Rung("hedge", limit=timedelta(hours=2), conn_id="other"),)
    )
    landed = world.on(policy, step=timedelta(minutes=5))
    assert [row[3] for row in world.told()] == [0, 0, 0]
    assert world.elsewhere.job("batches/000000").state == "CANCELLED"
    assert {job.state for job in landed.manifest.jobs} == {"SUCCEEDED", "CANCELLED"}


@pytest.mark.parametrize("kind", ["standard", "hedge"])
def test_a_backfill_pays_no_more_than_batch_unless_it_may(kind: Any) -> None:
    world = World(turnaround=timedelta(days=9))
    policy = BatchPolicy(
        deadline=timedelta(hours=11),
        ladder=(Rung(kind), Rung("commit")),
        standard_allowed=True,
        in_backfill=True,
        thresholds=ALL,
    )
    with pytest.raises(Rejected):
        world.on(policy)
    assert world.fact("rungs/01.json", RungFact).kind == "commit"
    assert world.elsewhere.created == []


def test_early_commits_lie_apart_and_go_when_the_window_is_whole() -> None:
    world = World(shards=4, rows=2)
    policy = BatchPolicy(early=0.25)
    waiting = world.waits(policy)
    assert waiting.wake == "any"
    ending(world, "row 0", "row 4")
    assert world.waits(policy).job_names == ("batches/000001", "batches/000003")
    early = read_manifest(world.landing, WINDOW, early=True)
    assert early is not None
    assert (early.complete, early.verdict, early.rows) == (False, "partial_by_policy", 4)
    assert not early.passes
    assert read_manifest(world.landing, WINDOW) is None
    assert [row["key"] for row in world.rows(any_verdict=True)] == ["k0", "k1", "k4", "k5"]
    assert world.fact("closed.json", Fact) is None
    assert world.waits(policy)  # nothing new, no new commit
    assert read_manifest(world.landing, WINDOW, early=True) == early
    world.clock.advance(timedelta(hours=4))
    landed = world.on(policy)
    assert landed.manifest.rows == 8
    assert list(world.landing.list("_early")) == []


def asks(world: World, job: Any, *texts: str) -> bool:
    """True when one of the rows is the job's."""
    return any(f'"{text}"'.encode() in line for text in texts for line in world.service._lines[job.name])


def ending(world: World, *texts: str) -> None:
    """The jobs of these rows have ended already, the others as they do."""
    real = world.service._now

    def seen(job: Any) -> Any:
        if asks(world, job, *texts) and real(job).state != "CANCELLED":
            output = f"files/batch-{job.name.removeprefix('batches/')}"
            return msgspec.structs.replace(job, state="SUCCEEDED", ended_at=job.created_at, output_file=output)
        return real(job)

    world.service._now = seen  # type: ignore[method-assign]


def never_ending(world: World, text: str) -> None:
    """The job of this row runs on until it is cancelled."""
    real = world.service._now

    def seen(job: Any) -> Any:
        now = real(job)
        return (
            msgspec.structs.replace(job, state="RUNNING")
            if asks(world, job, text) and now.state == "SUCCEEDED"
            else now
        )

    world.service._now = seen  # type: ignore[method-assign]


def test_a_person_may_have_it_committed_now() -> None:
    world = World(shards=2, rows=2, turnaround=timedelta(hours=3))
    policy = BatchPolicy(thresholds=ALL)
    world.waits(policy)
    ending(world, "row 2")
    world.clock.advance(timedelta(minutes=30))
    world.command("commit_now")
    landed = world.on(policy)
    assert [row[1] for row in world.told()] == ["failed", "failed", "answer", "answer"]
    assert "ann" in world.fact("rungs/01.json", RungFact).reason
    assert world.service.job("batches/000000").state == "CANCELLED"
    assert landed.manifest.complete


def test_a_person_may_have_it_ended() -> None:
    world = World()
    world.waits(BatchPolicy())
    world.command("cancel")
    for _ in range(2):
        with pytest.raises(BatchCancelled, match="ann: enough"):
            world.walk(BatchPolicy())
    assert world.service.job("batches/000000").state == "CANCELLED"
    assert list(world.landing.list("")) == []


def test_what_is_stuck_is_rescued_before_its_deadline() -> None:
    world = World(turnaround=timedelta(days=9))
    stuck_at = world.clock() + timedelta(hours=6)
    policy = BatchPolicy(
        deadline=timedelta(hours=11), stuck_after=0.95, ladder=(Rung("flex", limit=timedelta(hours=1)),)
    )
    assert world.waits(policy, stuck_at=stuck_at).until == stuck_at
    world.clock.advance_to(stuck_at)
    assert isinstance(world.walk(policy, stuck_at=stuck_at), Landed)
    assert "stuck" in world.fact("rungs/01.json", RungFact).reason


def test_what_is_stuck_is_told_from_the_history_of_the_workspace() -> None:
    world = World(turnaround=timedelta(days=9))
    for number in range(40):
        name = f"20251231T000000Z_{3600 + number}_SUCCEEDED_3_j{number}"
        world.store.create(f"history/memory%20memory%3A%2F%2Fservice/gemini-3.8-flash/2025-12/{name}", b"")
    policy = BatchPolicy(deadline=timedelta(hours=11), stuck_after=0.5, ladder=(Rung("commit"),), thresholds=ALL)
    until = world.waits(policy).until
    assert until is not None
    assert timedelta(hours=1) <= until - world.began <= timedelta(hours=1, minutes=1)


def test_a_job_that_will_not_end_is_given_up_and_what_it_brings_is_late() -> None:
    world = World(turnaround=timedelta(days=9))
    world.service.cancel = lambda name: None  # type: ignore[method-assign]
    policy = BatchPolicy(deadline=timedelta(hours=11), ladder=(Rung("flex", limit=timedelta(hours=1)),))
    landed = world.on(policy)
    assert world.elapsed <= timedelta(hours=12)
    assert len(world.fact("rungs/01.settled", Settled).given_up) == 1
    ending(world, "row 0")
    assert world.walk(policy, me="again").manifest == landed.manifest  # type: ignore[union-attr]
    assert [row[3] for row in world.told()] == [None] * 3


def test_the_first_rung_on_record_stands_whatever_the_policy_says_later() -> None:
    world = World(turnaround=timedelta(days=9))
    first = BatchPolicy(deadline=timedelta(hours=11), ladder=(Rung("wait", limit=timedelta(hours=2)),))
    world.waits(first)
    world.clock.advance(timedelta(hours=11))
    assert world.waits(first).until == world.began + timedelta(hours=13)
    other = BatchPolicy(deadline=timedelta(hours=20), ladder=(Rung("wait", limit=timedelta(hours=9)),))
    assert world.waits(other).until == world.began + timedelta(hours=13)


def test_a_round_that_is_refused_costs_nothing_that_is_there() -> None:
    world = World(answer=at_first(EMPTY, "row 1"))
    policy = BatchPolicy(thresholds=ALL)
    world.waits(policy)
    world.clock.advance(timedelta(hours=4))
    world.service.create = lambda **how: Refused(400, "no")  # type: ignore[method-assign]
    landed = world.on(policy)
    assert landed.counts["answer"] == 2
    assert landed.counts["empty"] == 1
    assert world.told()[1][1] == "empty"  # what a line told says more than a job that never was


def test_a_datetime_is_a_deadline_as_it_stands() -> None:
    world = World(turnaround=timedelta(days=9))
    deadline = datetime(2026, 1, 1, 11, tzinfo=world.began.tzinfo)
    assert world.waits(BatchPolicy(deadline=deadline)).until == deadline


def test_rows_of_several_layers_pass_through_memory_a_few_at_a_time(tmp_path: Path) -> None:
    peaks = []
    for rows in (1_000, 9_000):
        world = World(rows=rows, answer=at_first(EMPTY, *(f"row {number}" for number in range(0, rows, 2))))
        world.store = LocalStore(str(tmp_path / str(rows)))  # type: ignore[assignment]
        world.manifest = seal(world.store, rows=rows)
        world.on(BatchPolicy(), step=timedelta(hours=4))
        batch = gathered(Desk(world.store, world.service, "m", world.clock, LOG), world.manifest)
        tracemalloc.start()
        assert sum(row[1] == "answer" for row in LandedRows([batch])) == rows
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 100_000  # and not by eight thousand rows


def test_what_never_finds_room_is_rescued_too_and_never_sent_as_a_batch_after_that() -> None:
    world = World(shards=2)
    world.service.create = lambda **how: Refused(429, "quota")  # type: ignore[method-assign]
    policy = BatchPolicy(deadline=timedelta(hours=11), ladder=(Rung("flex", limit=timedelta(hours=1)),))
    landed = world.on(policy, most=2000)
    assert [row[1] for row in world.told()] == ["answer"] * 6
    assert world.elapsed <= timedelta(hours=12)
    del world.service.create
    assert world.walk(policy, me="again", later_try=True).manifest == landed.manifest  # type: ignore[union-attr]
    assert world.service.created == []


def test_a_reply_that_was_lost_before_the_deadline_is_found_before_anything_is_asked_again() -> None:
    world = World(turnaround=timedelta(days=9))
    world.service.replies_to_lose = 1
    policy = BatchPolicy(deadline=timedelta(minutes=5), ladder=(Rung("flex", limit=timedelta(hours=1)),))
    real = world.service.jobs
    world.service.jobs = lambda token="", display_name="": (_ for _ in ()).throw(ServiceBusy("list", 503, "busy"))  # type: ignore[method-assign, assignment]
    world.waits(policy)
    world.clock.advance(timedelta(minutes=5))
    world.service.jobs = real  # type: ignore[method-assign]
    world.on(policy)
    assert [job.state for job in map(world.service.job, ["batches/000000"])] == ["CANCELLED"]
    assert len(world.service.created) == 1


def test_a_rung_asks_for_no_more_than_the_model_can_give() -> None:
    caps: list[int] = []

    def answer(request: Mapping[str, Any]) -> dict[str, Any]:
        cap = request.get("generationConfig", {}).get("maxOutputTokens", 0)
        caps.append(cap)
        full = echo(request)
        return {"candidates": [{**full["candidates"][0], "finishReason": "MAX_TOKENS"}]} if cap < 150 else full

    world = World(shards=2, rows=1, answer=answer)
    capped(world, f"{G1}/builds/b1/shard-0000.jsonl")
    shown, now = world.service.model, world.service._now
    slow = "batches/000001"
    world.service._now = lambda job: job if job.name == slow and not world.service._cancelled else now(job)  # type: ignore[method-assign]
    world.service.model = lambda name: msgspec.structs.replace(shown(name), output_token_limit=150)  # type: ignore[method-assign]

    world.on(BatchPolicy(deadline=timedelta(hours=11), ladder=(Rung("flex"),), thresholds=ALL))

    assert sorted(caps) == [0, 0, 100, 150]


def test_a_shard_of_a_round_that_is_refused_keeps_no_other_from_being_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_geminibatch.core.limits.SHARD_ROWS", 1)
    world = World(rows=3, answer=at_first(EMPTY, "row 0", "row 1", "row 2"))
    create = world.service.create

    def picky(**given: Any) -> Any:
        lines = world.service.files[given["file_name"]][0].splitlines()
        if len(lines) == 1 and b"row 1" in lines[0]:
            return Refused(400, "Request contains an invalid argument.")
        return create(**given)

    world.service.create = picky  # type: ignore[method-assign]
    landed = world.on(BatchPolicy(thresholds=ALL))

    assert [row[1] for row in world.told()] == ["answer", "empty", "answer"]
    assert landed.counts["answer"] == 2


def test_what_somebody_cancelled_at_the_service_is_not_asked_again() -> None:
    world = World()
    world.walk(BatchPolicy())
    world.service.cancel("batches/000000")

    with pytest.raises(Rejected):
        world.on(BatchPolicy(deadline=timedelta(hours=11), ladder=(Rung("flex"),)))

    assert len(world.service.created) == 1
    assert not world.service.generated
    assert {(row["outcome"], row["error"]) for row in world.rows(any_verdict=True)} == {
        ("failed", "job CANCELLED at the service, and not by us")
    }


def test_what_a_person_had_cancelled_by_us_is_asked_again_by_a_round() -> None:
    world = World()
    world.walk(BatchPolicy())
    mark = CancelMark(owner="ann", at=world.clock(), why="marked failed")
    fact_store.put(world.store, f"{G1}/s/b1/0000/a01.cancel", mark)
    world.service.cancel("batches/000000")

    landed = world.on(BatchPolicy())

    assert landed.counts["answer"] == 3


def cancelled_by_us(world: World, policy: BatchPolicy) -> None:
    """The batch is one job, which we had cancelled."""
    world.waits(policy, max_tries=1)
    mark = CancelMark(owner="ann", at=world.clock(), why="marked failed")
    fact_store.put(world.store, f"{G1}/s/b1/0000/a01.cancel", mark)
    world.service.cancel("batches/000000")
    world.clock.advance(timedelta(minutes=1))


def test_a_shard_that_is_sent_once_more_and_finds_no_room_is_waited_for_and_in_no_round_meanwhile() -> None:
    world, policy = World(), BatchPolicy(max_cost_usd=Decimal(5))
    cancelled_by_us(world, policy)
    world.service.create, create = (lambda **asked: Refused(429, "no room", 60.0)), world.service.create  # type: ignore[method-assign,assignment,misc]
    assert "no room" in world.waits(policy, me="again", max_tries=2, later_try=True).why
    world.service.create = create  # type: ignore[method-assign]

    landed = world.on(policy)

    assert landed.counts["answer"] == 3
    assert {row["round"] for row in world.rows()} == {0}
    assert len(world.service.created) == 2
    assert world.fact("rounds/01.json", Round) is None


def test_a_shard_that_is_sent_once_more_and_whose_reply_is_lost_is_paid_once() -> None:
    world, policy = World(), BatchPolicy()
    cancelled_by_us(world, policy)
    world.service.replies_to_lose = 1
    shown = world.service.jobs
    world.service.jobs = lambda page_token="", display_name="": JobPage(())  # type: ignore[method-assign,assignment,misc]
    world.waits(policy, me="again", max_tries=2, later_try=True)
    world.service.jobs = shown  # type: ignore[method-assign]

    landed = world.on(policy)

    assert landed.counts["answer"] == 3
    assert {row["job"] for row in world.rows()} == {"batches/000001"}
    assert len(world.service.created) == 2


def test_a_batch_called_off_ends_a_job_whose_create_was_never_answered() -> None:
    world = World()
    world.service.replies_to_lose = 1
    shown = world.service.jobs
    world.service.jobs = lambda page_token="", display_name="": JobPage(())  # type: ignore[method-assign,assignment,misc]
    assert isinstance(world.walk(BatchPolicy()), Waiting)
    (lost,) = world.service.created
    world.service.jobs = shown  # type: ignore[method-assign]
    world.command("cancel")

    with pytest.raises(BatchCancelled):
        world.walk(BatchPolicy())

    assert world.service.job(lost.name).state == "CANCELLED"
    assert not any(world.service.file(name) for name in world.service.files)


def test_an_early_commit_leaves_out_a_shard_that_is_asked_again() -> None:
    world = World(shards=2)
    shard = [ShardResult(shard=f"s-{number}", attempt=1, job=f"batches/{number}") for number in range(2)]
    desk = Desk(world.store, world.service, "w", world.clock, LOG)
    build = read_build(world.store, world.manifest.path)

    assert seal_results(desk, build, tuple(shard)) == 1
    with pytest.raises(ResultsBroken):
        seal_results(desk, build, (shard[1],))
    assert seal_results(desk, build, (shard[1],), partial=True) == 2
    again = msgspec.structs.replace(shard[0], attempt=2)
    assert seal_results(desk, build, (again, shard[1])) == 3
    with pytest.raises(ResultsBroken):
        seal_results(desk, build, (shard[0],), partial=True)


def breaking(world: World) -> None:
    """The results of the second job come under keys that nobody sent."""
    lines, create = world.service._lines, world.service.create

    def created(**asked: Any) -> Any:
        reply = create(**asked)
        if len(lines) == 2 and "batches/000001" in lines:
            lines["batches/000001"] = [line.replace(b'"key":"', b'"key":"x') for line in lines["batches/000001"]]
        return reply

    world.service.create = created  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("rung", "outcomes"),
    [
        (Rung("flex", limit=timedelta(hours=1)), ["answer"] * 12),
        (Rung("commit"), ["answer"] * 6 + ["missing"] * 6),
        (Rung("resubmit", limit=timedelta(hours=4)), ["answer"] * 12),
        (Rung("wait", limit=timedelta(hours=1)), ["answer"] * 6 + ["missing"] * 6),
    ],
    ids=str,
)
def test_results_that_cannot_be_trusted_do_not_outlast_the_deadline(rung: Rung, outcomes: list[str]) -> None:
    world = World(shards=2, rows=6)
    breaking(world)
    policy = BatchPolicy(deadline=timedelta(hours=11), ladder=(rung,), thresholds=ALL)
    world.waits(policy)
    world.clock.advance(timedelta(hours=4))
    with pytest.raises(ResultsBroken, match="belong to no row"):
        world.walk(policy)
    world.clock.advance(timedelta(hours=7))
    landed = world.on(policy)
    assert [row[1] for row in world.told()] == outcomes
    assert world.elapsed <= timedelta(hours=15, minutes=30)
    # What nobody could use is paid all the same.
    assert [stray.name for stray in landed.manifest.strays] == ["batches/000001"]
    assert landed.manifest.strays_cost_usd == "0.000027"


def test_without_a_ladder_results_that_cannot_be_trusted_are_a_failure_at_the_deadline() -> None:
    world = World(shards=2, rows=6)
    breaking(world)
    policy = BatchPolicy(deadline=timedelta(hours=11))
    world.waits(policy)
    world.clock.advance(timedelta(hours=11))
    with pytest.raises(WaitTimedOut):
        world.walk(policy)
