"""Answers that are used again: only equal requests, only usable answers, only what is new is paid for; by facts, not clocks."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from airflow_provider_geminibatch.core.batch import BatchPolicy
from airflow_provider_geminibatch.core.canary import Canary
from airflow_provider_geminibatch.core.errors import GeminiBatchError, StoreUnreadable
from airflow_provider_geminibatch.core.landing import Place, RunRef
from airflow_provider_geminibatch.core.ledger import Forgotten, Kept, Reused
from airflow_provider_geminibatch.core.manifest import Manifest
from airflow_provider_geminibatch.core.model import BatchId, Build, Owner, ServiceIdentity
from airflow_provider_geminibatch.core.names import generation_path
from airflow_provider_geminibatch.core.reuse import Reuse
from airflow_provider_geminibatch.core.verdict import Thresholds
from airflow_provider_geminibatch.jobs.collect import Landed, collect
from airflow_provider_geminibatch.jobs.ending import read_batch
from airflow_provider_geminibatch.jobs.kept import kept_of, left_out
from airflow_provider_geminibatch.jobs.results import Desk
from airflow_provider_geminibatch.jobs.reuse import reuse_answers, reused_of
from airflow_provider_geminibatch.jobs.reuse_index import FOLDER, merge_all
from airflow_provider_geminibatch.jobs.submit import Submitted, read_build, submit
from airflow_provider_geminibatch.jobs.whole import Waiting, walk
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.landings import FileLanding, read_manifest, read_rows
from airflow_provider_geminibatch.storage.stores import MemoryStore
from airflow_provider_geminibatch.testing import InMemoryGateway, ManualClock, echo
from tests.faults import WAYS, Crash, FaultyGateway, FaultyStore, Plan
from tests.jobs.batches import seal

LOG = logging.getLogger("test")
BLOCKED = {"promptFeedback": {"blockReason": "SAFETY"}}
ALL = Thresholds(max_unresolved=1.0)
HOURS = timedelta(hours=4)


def batch(name: str) -> BatchId:
    return BatchId("dag", name, "prepare")


class World:
    """One workspace, one service and one clock; batches of the same rows, run after run."""

    def __init__(self, answer: Any = echo) -> None:
        self.clock = ManualClock()
        self.store, self.landing = MemoryStore("memory://w"), MemoryStore("memory://landing")
        self.service = InMemoryGateway(self.clock, turnaround=timedelta(hours=3), answer=answer)

    def seal(self, name: str, *, shards: int = 1, rows: int = 3, **how: Any) -> Manifest:
        """A build whose rows begin as those of every other do; sealed now."""
        manifest = seal(self.store, shards=shards, rows=rows, batch=batch(name), **how)
        build = msgspec.structs.replace(read_build(self.store, manifest.path), created_at=self.clock())
        self.store.write(manifest.path, msgspec.json.encode(build))
        return manifest

    def build_of(self, name: str) -> Manifest:
        """The build of a batch that was sealed before."""
        return Manifest(uri=f"{self.store.uri}/{generation_path(batch(name), 1)}/builds/b1.json")

    def build(self, manifest: Manifest) -> Build:
        return read_build(self.store, manifest.path)

    def desk(self, plan: Plan | None = None, me: str = "s") -> Desk:
        plan = plan or Plan()
        return Desk(FaultyStore(self.store, plan), FaultyGateway(self.service, plan), me, self.clock, LOG)

    def reuse(self, manifest: Manifest, reuse: Reuse = Reuse(), **how: Any) -> Reused:  # noqa: B008 - frozen
        return reuse_answers(self.desk(**how), self.build(manifest), reuse)

    def submit(self, manifest: Manifest, me: str = "s", plan: Plan | None = None) -> Submitted:
        desk = self.desk(plan)
        done = submit(manifest, store=desk.store, gateway=desk.gateway, me=me, now=self.clock, log=LOG)
        assert isinstance(done, Submitted)
        return done

    def load(self, manifest: Manifest, plan: Plan | None = None, me: str = "l", **changes: Any) -> Landed:
        plan, window = plan or Plan(), self.build(manifest).batch.run_id
        arguments: dict[str, Any] = {
            "landing": Place("notes", "memory://landing", "jsonl"), "window": window, "owner": Owner("dag", "load"),
            "run": RunRef("dag", "run", "load"), "thresholds": ALL,
        } | changes  # fmt: skip
        store = FaultyStore(self.store, plan)
        return collect(
            (manifest,), open_store=lambda uri: store, gateway=FaultyGateway(self.service, plan),
            landing_store=FileLanding(FaultyStore(self.landing, plan)), me=me, now=self.clock, log=LOG,
            sleep=lambda seconds: self.clock.advance(timedelta(seconds=seconds)), **arguments,
        )  # fmt: skip

    def run(self, name: str, reuse: Reuse | None = Reuse(), **how: Any) -> Landed:  # noqa: B008 - frozen
        """A batch from its seal to its window, by separate tasks."""
        manifest = self.seal(name, **how)
        if reuse is not None:
            self.reuse(manifest, reuse)
        self.submit(manifest)
        self.clock.advance(HOURS)
        return self.load(manifest)

    def rows(self, name: str) -> list[dict[str, Any]]:
        return list(read_rows(self.landing, name, any_verdict=True))

    def told(self, name: str) -> list[tuple[Any, ...]]:
        return [(row["key"], row["text"], row["shard"] == "reused") for row in self.rows(name)]


def test_a_batch_that_is_asked_again_costs_nothing_and_needs_no_job() -> None:
    world = World()
    first = world.run("one", shards=2)
    assert len(world.service.created) == 2
    again = world.run("two", shards=2)
    assert len(world.service.created) == 2
    assert [row["text"] for row in world.rows("two")] == [row["text"] for row in world.rows("one")]
    assert all((row["shard"], row["job"], row["round"]) == ("reused", None, None) for row in world.rows("two"))
    assert all(Decimal(row["cost_usd"]) == 0 for row in world.rows("two"))
    assert (again.manifest.cost_usd, again.manifest.reused_rows, again.manifest.jobs) == ("0", 6, ())
    assert first.manifest.reused_rows == 0
    assert again.manifest.reused_usd == first.manifest.cost_usd
    assert again.manifest.tokens.total == 0
    assert again.manifest.passes


def test_an_overlapping_batch_pays_only_for_what_is_new() -> None:
    world = World()
    world.run("one", rows=3)
    landed = world.run("two", rows=5)
    assert world.told("two") == [(f"k{n}", f"row {n}", n < 3) for n in range(5)]
    assert landed.manifest.reused_rows == 3
    assert [job.rows for job in landed.manifest.jobs] == [2]


def test_without_being_asked_for_nothing_is_used_and_nothing_is_noted() -> None:
    world = World()
    world.run("one", None)
    assert not list(world.store.list("reuse"))
    landed = world.run("two", None)
    assert (len(world.service.created), landed.manifest.reused_rows) == (2, 0)


def test_another_request_model_or_setting_is_not_the_same() -> None:
    world = World()
    world.run("one")
    for name, how in {
        "settings": {"generationConfig": {"temperature": 0.5}},
        "system": {"systemInstruction": {"parts": [{"text": "Be short."}]}},
    }.items():
        assert world.run(name, **how).manifest.reused_rows == 0
    world.service = InMemoryGateway(world.clock, turnaround=timedelta(hours=3), models=("gemini-3.7-flash",))
    assert world.run("model", model="gemini-3.7-flash").manifest.reused_rows == 0


def test_another_host_is_another_service_and_another_project_is_not() -> None:
    world = World()
    world.run("one")
    world.service = InMemoryGateway(world.clock, turnaround=timedelta(hours=3), project="other")
    assert world.run("two").manifest.reused_rows == 3


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"googleSearch": {}}]},
        {"tools": [{"urlContext": {}}]},
        {"cachedContent": "cachedContents/abc"},
        {"systemInstruction": {"parts": [{"fileData": {"fileUri": "gs://bucket/file", "mimeType": "text/plain"}}]}},
    ],
)
def test_what_depends_on_more_than_the_request_is_always_asked(fields: dict[str, Any]) -> None:
    world = World()
    world.run("one", **fields)
    assert world.run("two", **fields).manifest.reused_rows == 0


def test_media_that_stand_in_by_their_content_are_no_obstacle() -> None:
    stand_in = {"fileUri": f"geminibatch:sha256:{'ab' * 32}", "mimeType": "image/png"}
    world = World()
    fields = {"systemInstruction": {"parts": [{"fileData": stand_in}]}}
    world.run("one", **fields)
    assert world.run("two", **fields).manifest.reused_rows == 3


def test_answers_are_known_as_those_of_the_service_that_gave_them_whoever_loads_them() -> None:
    world = World()
    world.run("one")
    emulator, google = world.service.identity, ServiceIdentity("memory", "memory://another-host")
    world.service.identity = google
    world.load(world.build_of("one"), me="cleared")
    world.run("two")
    assert world.told("two") == [(f"k{n}", f"row {n}", False) for n in range(3)]
    world.service.identity = emulator
    world.run("three")
    assert world.told("three") == [(f"k{n}", f"row {n}", True) for n in range(3)]


def test_only_usable_answers_are_used_again() -> None:
    def answer(request: Mapping[str, Any]) -> dict[str, Any]:
        return BLOCKED if request["contents"][0]["parts"][0]["text"] == "row 1" else echo(request)

    world = World(answer)
    world.run("one")
    landed = world.run("two")
    assert world.told("two") == [("k0", "row 0", True), ("k1", None, False), ("k2", "row 2", True)]
    assert [job.rows for job in landed.manifest.jobs] == [1]


def test_an_answer_that_does_not_fit_the_schema_of_now_is_asked_again() -> None:
    world = World()
    world.run("one")
    manifest = world.seal("two")
    strict = msgspec.structs.replace(world.build(manifest), response_schema={"type": "object"})
    world.store.write(manifest.path, msgspec.json.encode(strict))
    assert world.reuse(manifest).reused == 0


def test_how_old_an_answer_may_be_counts_from_the_seal_whatever_the_clock_of_the_reader_says() -> None:
    world = World()
    world.run("one")
    world.clock.advance(timedelta(days=2))
    old, young = Reuse(max_age=timedelta(days=1)), Reuse(max_age=timedelta(days=30))
    assert world.reuse(world.seal("strict"), old).reused == 0
    manifest = world.seal("two")
    world.clock.advance(timedelta(days=300))
    assert world.reuse(manifest, young).reused == 3


def test_the_first_decision_stands_over_an_edit_of_the_dag() -> None:
    world = World()
    world.run("one")
    world.clock.advance(timedelta(days=2))
    manifest = world.seal("two")
    assert world.reuse(manifest, Reuse(max_age=timedelta(days=1))).reused == 0
    assert world.reuse(manifest, Reuse(), me="later").reused == 0


def test_what_a_person_gave_up_is_not_used() -> None:
    world = World()
    world.run("one")
    path = f"{generation_path(batch('one'), 1)}/forgotten.json"
    fact_store.put(world.store, path, Forgotten(owner="ann", at=world.clock(), reason="wrong"))
    assert world.run("two").manifest.reused_rows == 0


def test_answers_that_are_gone_or_damaged_are_asked_again() -> None:
    world = World()
    world.run("one")
    (results,) = [path for path in world.store.list("batches") if path.endswith("results.jsonl")]
    data = world.store.read(results) or b""
    world.store.write(results, data.replace(b"row 1", b"row 9"))
    assert world.reuse(world.seal("two")).reused == 2
    world.store.delete(results)
    assert world.reuse(world.seal("three")).reused == 0


def test_an_index_that_is_damaged_costs_only_what_it_would_have_saved() -> None:
    world = World()
    world.run("one")
    for path in list(world.store.list(FOLDER)):
        world.store.write(path, b"half")
    assert world.reuse(world.seal("two")).reused == 0
    short = World()
    short.run("one")
    (records,) = [path for path in short.store.list(FOLDER) if path.endswith(".idx")]
    short.store.write(records, (short.store.read(records) or b"")[:-8])
    assert short.reuse(short.seal("two")).reused == 2


def test_what_was_kept_and_changed_since_is_not_landed() -> None:
    world = World()
    world.run("one")
    manifest = world.seal("two")
    world.reuse(manifest)
    kept = kept_of(world.store, world.build(manifest).shards[0], "reused")
    assert kept is not None
    world.store.write(kept.path, (world.store.read(kept.path) or b"").replace(b"row 1", b"row 9"))
    with pytest.raises(StoreUnreadable, match="kept to be used again"):
        world.load(manifest)


def test_equal_requests_of_one_batch_all_have_the_answer() -> None:
    world = World()
    world.run("one", rows=2)
    manifest = world.seal("two", rows=2)
    build = world.build(manifest)
    line = (world.store.read(build.shards[0].path) or b"").splitlines(keepends=True)
    twice = line[0] + line[0].replace(b"0000000", b"0000001")
    import hashlib

    shard = msgspec.structs.replace(build.shards[0], size_bytes=len(twice), sha256=hashlib.sha256(twice).hexdigest())
    world.store.write(shard.path, twice)
    world.store.write(manifest.path, msgspec.json.encode(msgspec.structs.replace(build, shards=(shard,))))
    assert world.reuse(manifest).reused == 2
    world.load(manifest)
    assert [row["text"] for row in world.rows("two")] == ["row 0", "row 0"]


def test_a_shard_that_somebody_has_meant_to_send_is_left_as_it_is() -> None:
    world = World()
    world.run("one")
    manifest = world.seal("two")
    world.submit(manifest)
    assert world.reuse(manifest).rows == 0
    assert left_out(world.store, world.build(manifest).shards[0]) == frozenset()


def next_generation(world: World, manifest: Manifest, number: int) -> Manifest:
    """A later generation of a batch, with equal rows: it refers to the shards of the first."""
    build = world.build(manifest)
    home = f"{generation_path(build.batch, number)}/builds/b{number}"
    made = msgspec.structs.replace(build, id=f"b{number}", tag="ddddeeeeffff3333", generation=number)
    world.store.create(f"{home}.json", msgspec.json.encode(made))
    return Manifest(uri=f"{world.store.uri}/{home}.json", rows=build.rows, shards=len(build.shards))


@pytest.mark.parametrize("generation", [2, 3])
@pytest.mark.parametrize("rows", [3, 5])
def test_a_shard_that_an_earlier_generation_sealed_and_did_not_send_lands_with_what_is_used_again(
    generation: int, rows: int
) -> None:
    world = World()
    world.run("one")
    first = world.seal("two", rows=rows)
    second = next_generation(world, first, 2)
    world.reuse(second)
    last = second if generation == 2 else next_generation(world, first, 3)
    world.submit(last)
    world.clock.advance(HOURS)
    landed = world.load(last)
    assert world.told("two") == [(f"k{n}", f"row {n}", n < 3) for n in range(rows)]
    assert landed.manifest.reused_rows == 3


def test_a_batch_without_any_job_is_submitted_and_ended_at_once() -> None:
    world = World()
    world.run("one")
    manifest = world.seal("two")
    world.reuse(manifest)
    assert world.submit(manifest).job_names == ()
    assert read_batch(manifest, world.store).whole().jobs == ()


def test_what_was_used_again_is_known_by_its_first_asking_only() -> None:
    world = World()
    world.run("one")
    before = list(world.store.list(FOLDER))
    world.run("two")
    assert list(world.store.list(FOLDER)) == before
    assert world.run("three").manifest.reused_rows == 3


def test_many_indexes_are_merged_into_one_that_knows_the_same() -> None:
    world = World()
    for number in range(5):
        world.run(f"run {number}", rows=number + 1)
    assert len([path for path in world.store.list(FOLDER) if path.endswith(".json")]) == 5
    (made,) = merge_all(world.store, LOG, most=4)
    assert list(world.store.list(FOLDER)) == sorted([made, made.replace(".json", ".idx")])
    assert merge_all(world.store, LOG, most=4) == []
    assert world.run("after", rows=6).manifest.reused_rows == 5


def test_merging_leaves_out_what_is_gone() -> None:
    world = World()
    world.run("one", rows=2)
    world.run("two", rows=4)
    for path in [path for path in world.store.list("batches/dag/one") if path.endswith("results.jsonl")]:
        world.store.delete(path)
    merge_all(world.store, LOG, most=1)
    assert world.reuse(world.seal("three", rows=4)).reused == 2


class Whole(World):
    """The same by the task that does it all."""

    def walk(self, manifest: Manifest, policy: BatchPolicy, plan: Plan | None = None, me: str = "w") -> Any:
        desk, window = self.desk(plan), self.build(manifest).batch.run_id
        landing = FileLanding(FaultyStore(self.landing, plan or Plan()))
        return walk(
            manifest, store=desk.store, gateways=lambda _: desk.gateway, policy=policy,
            landing=Place("notes", "memory://landing", "jsonl"), landing_store=landing, window=window,
            owner=Owner("dag", "load"), run=RunRef("dag", "run", "ask"), me=me, now=self.clock, log=LOG,
            sleep=lambda seconds: self.clock.advance(timedelta(seconds=seconds)),
        )  # fmt: skip

    def on(self, manifest: Manifest, policy: BatchPolicy) -> Landed:
        for number in range(100):
            end = self.walk(manifest, policy, me=f"w{number}")
            if isinstance(end, Landed):
                return end
            assert isinstance(end, Waiting)
            self.clock.advance(timedelta(minutes=30))
        raise AssertionError("it does not end")


def test_the_task_that_does_it_all_ends_without_waiting_when_nothing_is_new() -> None:
    world, policy = Whole(), BatchPolicy(reuse=Reuse(), thresholds=ALL, deadline=timedelta(hours=5))
    world.on(world.seal("one", shards=2), policy)
    end = world.walk(world.seal("two", shards=2), policy)
    assert isinstance(end, Landed)
    assert end.manifest.reused_rows == 6
    assert len(world.service.created) == 2


def test_a_canary_asks_only_what_is_not_known() -> None:
    world = Whole()
    world.on(world.seal("one", rows=6), BatchPolicy(reuse=Reuse(), thresholds=ALL))
    policy = BatchPolicy(reuse=Reuse(), canary=Canary(rows=2, max_share=0.5), thresholds=ALL)
    manifest = world.seal("two", rows=12)
    landed = world.on(manifest, policy)
    shard = world.build(manifest).shards[0]
    canary, reused = kept_of(world.store, shard), kept_of(world.store, shard, "reused")
    assert canary is not None
    assert reused is not None
    assert set(reused.rows) == set(range(6))
    assert canary.rows
    assert not set(canary.rows) & set(reused.rows)
    assert landed.counts["answer"] == 12
    assert [job.rows for job in landed.manifest.jobs] == [6 - len(canary.rows)]
    # What the canary answered is known from now on as well.
    assert isinstance(world.walk(world.seal("three", rows=12), policy), Landed)


def test_a_budget_needs_nothing_for_what_is_known() -> None:
    world = Whole()
    first = world.on(world.seal("one"), BatchPolicy(reuse=Reuse(), thresholds=ALL))
    assert first.cost_usd is not None
    tight = BatchPolicy(reuse=Reuse(), thresholds=ALL, max_cost_usd=Decimal("0.0000001"))
    assert world.on(world.seal("two"), tight).manifest.reused_rows == 3


def test_what_a_round_answered_is_known_by_what_it_asked() -> None:
    asked: dict[str, int] = {}

    def answer(request: Mapping[str, Any]) -> dict[str, Any]:
        text = request["contents"][0]["parts"][0]["text"]
        asked[text] = asked.get(text, 0) + 1
        empty = {"candidates": [{"content": {"parts": []}, "finishReason": "STOP"}]}
        return empty if text == "row 1" and asked[text] == 1 else echo(request)

    world, policy = Whole(answer), BatchPolicy(reuse=Reuse(), thresholds=ALL)
    assert world.on(world.seal("one"), policy).counts["answer"] == 3
    assert world.on(world.seal("two"), policy).manifest.reused_rows == 3


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("at", range(40))
def test_wherever_a_look_up_is_interrupted_nothing_is_asked_that_is_known(at: int, way: str) -> None:
    world = World()
    world.run("one", rows=2)
    manifest = world.seal("two", shards=2, rows=2)
    plan = Plan(at, way, meanwhile=lambda: world.reuse(manifest, me="other"))
    with suppress(Crash, GeminiBatchError):
        world.reuse(manifest, plan=plan)
    world.reuse(manifest, me="again")
    world.submit(manifest)
    world.clock.advance(HOURS)
    landed = world.load(manifest)
    assert landed.manifest.reused_rows == 2
    assert [job.rows for job in landed.manifest.jobs] == [2]
    assert [row["text"] for row in world.rows("two")] == [f"row {n}" for n in range(4)]
    done = reused_of(world.store, generation_path(batch("two"), 1))
    assert done is not None
    assert (done.rows, done.reused) == (4, 2)
    leftovers = {path for path in world.store.list("batches/dag/two") if "/reused-" in path}
    named = {kept.path for shard in world.build(manifest).shards if (kept := kept_of(world.store, shard, "reused"))}
    assert named <= leftovers


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("at", range(0, 80, 2))
def test_wherever_a_load_is_interrupted_its_answers_are_known_once_it_is_closed(at: int, way: str) -> None:
    world = World()
    manifest = world.seal("one", rows=2)
    world.reuse(manifest)
    world.submit(manifest)
    world.clock.advance(HOURS)
    plan = Plan(at, way, meanwhile=lambda: world.load(manifest, me="other"))
    with suppress(Crash, GeminiBatchError):
        world.load(manifest, plan=plan)
    if world.store.read(f"{generation_path(batch('one'), 1)}/closed.json") is None:
        world.load(manifest, me="again")
    assert read_manifest(world.landing, "one") is not None
    assert world.run("two", rows=2).manifest.reused_rows == 2
    assert len(world.service.created) == 1


def test_the_facts_are_those_that_were_told() -> None:
    world = World()
    world.run("one")
    manifest = world.seal("two")
    world.reuse(manifest)
    shard = world.build(manifest).shards[0]
    kept = fact_store.get(world.store, f"{shard.ledger}/reused.json", Kept)
    assert kept is not None
    assert (kept.rows, kept.whole, kept.lines) == ((0, 1, 2), True, 3)
    assert kept.saved_usd is not None
    line = msgspec.json.decode((world.store.read(kept.path) or b"").splitlines()[0])
    assert (line["usd"], line["model"]) == ("0", "gemini-3.8-flash")
    assert line["path"].endswith("results.jsonl")
    assert line["response"]["candidates"]
