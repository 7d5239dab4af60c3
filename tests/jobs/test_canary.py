"""A canary on its way: the sample goes first, stops or lets go, is kept, lands once, and is never paid again."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.batch import BatchPolicy, Rung
from airflow_provider_geminibatch.core.canary import Canary, CanaryVerdict, picked
from airflow_provider_geminibatch.core.errors import (
    BeyondBudget,
    CanaryFailed,
    KeyRefused,
    ModelUnknown,
    Rejected,
    ServiceError,
    StoreUnreadable,
    Unusable,
    WaitTimedOut,
)
from airflow_provider_geminibatch.core.landing import Place, RunRef
from airflow_provider_geminibatch.core.ledger import Command, Kept, RungFact, Uploaded, attempt_path
from airflow_provider_geminibatch.core.model import Build, Owner
from airflow_provider_geminibatch.core.names import generation_path, parse_wire_key
from airflow_provider_geminibatch.gemini.gateway import GenerateReply
from airflow_provider_geminibatch.jobs import canary as canary_module
from airflow_provider_geminibatch.jobs.canary import pass_canary, report_of, run_canary, sample
from airflow_provider_geminibatch.jobs.collect import Landed, collect
from airflow_provider_geminibatch.jobs.kept import kept_of, left_out
from airflow_provider_geminibatch.jobs.results import Desk
from airflow_provider_geminibatch.jobs.submit import Submitted, Waiting, read_build, submit
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.landings import FileLanding, read_rows
from airflow_provider_geminibatch.testing import InMemoryGateway, echo
from tests.jobs.batches import BATCH
from tests.jobs.test_media_uploads import World as MediaWorld
from tests.jobs.test_whole import ALL, BLOCKED, EMPTY, LOG, Answer, World, text_of
from tests.media_files import wav

SOME = Canary(rows=4, max_share=0.5)
WITH = BatchPolicy(canary=SOME, max_rounds=0)


def desk_of(world: World, me: str = "me", gateway: Any = None) -> Desk:
    return Desk(world.store, gateway or world.service, me, world.clock, LOG, lambda seconds: None)


def root_of(world: World) -> Build:
    return read_build(world.store, world.manifest.path)


def rows_in(world: World, job: int) -> list[str]:
    """The texts that a job was asked, told by the wire keys."""
    lines = world.service._lines[world.service.created[job].name]
    keys = [parse_wire_key(msgspec.json.decode(line)["key"]) for line in lines]
    rows = root_of(world).shards[0].rows
    return [f"row {key.shard * rows + key.row}" for key in keys if key]


def failing(*texts: str, reply: dict[str, Any] = EMPTY) -> Answer:
    return lambda request: reply if text_of(request) in texts else echo(request)


# A canary that passes


def test_the_sample_goes_first_and_its_answers_are_neither_sent_again_nor_lost() -> None:
    world = World(shards=2, rows=5)
    world.waits(WITH)
    assert len(world.service.generated) == 4
    assert {tier for _, tier in world.service.generated} == {"flex"}
    assert [len(rows_in(world, job)) for job in (0, 1)] == [3, 3]
    root = root_of(world)
    kept = [kept_of(world.store, shard) for shard in root.shards]
    sampled = {5 * place + row for place, one in enumerate(kept) if one for row in one.rows}
    assert sampled | {int(text[4:]) for job in (0, 1) for text in rows_in(world, job)} == set(range(10))
    landed = world.on(WITH)
    rows = world.rows()
    assert [row["key"] for row in rows] == [f"k{number}" for number in range(10)]
    assert {row["outcome"] for row in rows} == {"answer"}
    assert {row["key"] for row in rows if row["shard"] == "canary"} == {f"k{number}" for number in sampled}
    assert {(row["job"], row["round"]) for row in rows if row["shard"] == "canary"} == {(None, None)}
    assert landed.counts["answer"] == landed.manifest.rows == 10
    assert [job.rows for job in landed.manifest.jobs] == [3, 3]
    assert len(world.service.created) == 2
    assert len(world.service.generated) == 4


def test_what_was_left_out_is_on_record_with_the_upload() -> None:
    world = World(shards=2, rows=5)
    world.waits(WITH)
    for shard in root_of(world).shards:
        uploaded = fact_store.get(world.store, attempt_path(shard.ledger, 1, "uploaded"), Uploaded)
        assert uploaded is not None
        assert uploaded.left_out == tuple(sorted(left_out(world.store, shard)))
        assert len(uploaded.left_out) == 2


def test_every_row_costs_what_its_tier_costs_and_the_sum_is_the_manifests() -> None:
    flex, standard = World(shards=1, rows=10), World(shards=1, rows=10)
    by_flex = flex.on(WITH)
    by_standard = standard.on(BatchPolicy(canary=msgspec.structs.replace(SOME, tier="standard"), max_rounds=0))
    assert {tier for _, tier in standard.service.generated} == {"standard"}
    for world, landed in ((flex, by_flex), (standard, by_standard)):
        costs = [Decimal(str(row["cost_usd"])) for row in world.rows()]
        assert sum(costs) == landed.cost_usd
    cheap = {row["key"]: Decimal(str(row["cost_usd"])) for row in flex.rows()}
    for row in standard.rows():
        times = 2 if row["shard"] == "canary" else 1
        assert Decimal(str(row["cost_usd"])) == times * cheap[row["key"]]


def test_the_same_rows_give_the_same_sample() -> None:
    one, other = World(shards=3, rows=20), World(shards=3, rows=20)
    drawn = sample(desk_of(one), root_of(one), Canary(rows=9, max_share=1.0))
    assert drawn == sample(desk_of(other), root_of(other), Canary(rows=9, max_share=1.0))
    assert [place for place, _ in drawn] == [0, 0, 0, 1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("block", [1, 7, 100, 1 << 20])
def test_the_sample_is_the_same_however_a_file_is_read(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(shards=2, rows=120)
    lines = (world.store.read(root_of(world).shards[1].path) or b"").splitlines()
    monkeypatch.setattr(canary_module, "BLOCK_BYTES", block)
    drawn = sample(desk_of(world), root_of(world), Canary(rows=6, max_share=1.0))
    sizes = [len(line) for line in lines]
    assert [row for place, row in drawn if place == 1] == list(picked(sizes, 3, root_of(world).shards[1].content))


def test_a_shard_that_lost_a_line_is_not_sampled() -> None:
    world = World(rows=10)
    shard = root_of(world).shards[0]
    data = world.store.read(shard.path) or b""
    world.store.write(shard.path, data[: data.rindex(b"\n", 0, -1) + 1])
    with pytest.raises(StoreUnreadable, match="9 lines where 10 were sealed"):
        sample(desk_of(world), root_of(world), SOME)


def test_a_batch_of_single_rows_has_none_to_spare_and_is_sent(caplog: pytest.LogCaptureFixture) -> None:
    world = World(shards=2, rows=1)
    with caplog.at_level(logging.INFO):
        assert world.on(WITH).counts["answer"] == 2
    assert world.service.generated == []
    assert "no canary, since every shard has to keep a row" in caplog.text


def test_an_unusable_answer_of_a_canary_that_passed_is_asked_again_with_the_batch_and_both_are_paid() -> None:
    asked: list[str] = []

    def first_bad(request: Mapping[str, Any]) -> dict[str, Any]:
        asked.append(text_of(request))
        reply = echo(request)
        if text_of(request) == asked[0] and len(asked) == 1:
            reply["candidates"][0]["finishReason"] = "MAX_TOKENS"
        return reply

    world = World(shards=1, rows=10, answer=first_bad)
    landed = world.on(BatchPolicy(canary=msgspec.structs.replace(SOME, max_unusable=0.5), max_rounds=0))
    assert landed.counts["answer"] == 10
    assert len(rows_in(world, 0)) == 7
    assert asked[0] in rows_in(world, 0)
    row = next(row for row in world.rows() if row["text"] == asked[0])
    once = next(row for row in world.rows() if row["shard"] != "canary" and row["text"] != asked[0])
    assert row["shard"] != "canary"
    assert Decimal(str(row["cost_usd"])) == 2 * Decimal(str(once["cost_usd"]))
    assert sum(Decimal(str(row["cost_usd"])) for row in world.rows()) == landed.cost_usd


def test_what_the_canary_answered_stands_when_the_job_brings_nothing() -> None:
    world = World(shards=1, rows=10, turnaround=timedelta(hours=100))
    policy = BatchPolicy(canary=SOME, deadline=timedelta(hours=5), ladder=(Rung("commit"),), thresholds=ALL)
    landed = world.on(policy)
    assert (landed.counts["answer"], landed.counts["failed"]) == (4, 6)


def test_a_rescue_asks_only_what_neither_the_canary_nor_a_job_answered() -> None:
    world = World(shards=1, rows=10, turnaround=timedelta(hours=100))
    policy = BatchPolicy(canary=SOME, deadline=timedelta(hours=5), ladder=(Rung("flex"),))
    assert world.on(policy).counts["answer"] == 10
    assert len(world.service.generated) == 10


# A canary that fails


def bad_world(**changes: Any) -> World:
    return World(shards=2, rows=10, answer=failing(*(f"row {number}" for number in range(20))), **changes)


def test_a_canary_that_fails_sends_nothing_and_says_why_by_keys_alone() -> None:
    world = bad_world()
    with pytest.raises(CanaryFailed) as caught:
        world.walk(WITH)
    said = str(caught.value)
    assert world.service.created == []
    assert world.service.files == {}
    assert "0 of 4 answers usable; 4 unusable (100 %): 4 empty (no parts)" in said
    assert "'k" in said
    assert "row " not in said.replace("rows", "").replace("of a row", "").replace("row by row", "")
    verdict = world.fact("canary/verdict.json", CanaryVerdict)
    assert (verdict.verdict, verdict.report.judged, verdict.report.unusable) == ("stop", 4, {"empty": 4})
    assert all(example.key.startswith("k") for example in verdict.report.examples)


def test_a_retry_after_a_failed_canary_pays_nothing_and_fails_with_the_same_words() -> None:
    world = bad_world()
    said = []
    for me in ("one", "two"):
        with pytest.raises(CanaryFailed) as caught:
            world.walk(WITH, me=me)
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert len(world.service.generated) == 4


@pytest.mark.parametrize("canary", [None, msgspec.structs.replace(SOME, max_unusable=0.99)])
def test_a_batch_is_let_go_after_all_by_another_limit_or_none_and_keeps_what_was_answered(
    canary: Canary | None,
) -> None:
    odd = [f"row {number}" for number in range(20) if number % 2]
    world = World(shards=2, rows=10, answer=failing(*odd, reply=BLOCKED))
    strict = BatchPolicy(canary=Canary(rows=8, max_share=0.5, max_unusable=0.0), max_rounds=0)
    with pytest.raises(CanaryFailed):
        world.walk(strict)
    report = report_of(desk_of(world), root_of(world))
    assert report is not None
    landed = world.on(BatchPolicy(canary=canary, max_rounds=0, thresholds=ALL))
    assert landed.counts["answer"] == landed.counts["blocked"] == 10
    assert len(world.service.generated) == 8
    assert sum(len(rows_in(world, job)) for job in (0, 1)) == 20 - report.usable


def test_too_few_answers_by_the_limit_let_the_batch_go_with_a_warning_or_not(caplog: pytest.LogCaptureFixture) -> None:
    for policy, sent in (("proceed", 1), ("fail", 0)):
        world = World(shards=1, rows=10)
        busy = GenerateReply(error={"code": 429, "message": "later"}, code=429, retry_after_seconds=120.0)
        world.service.generate = lambda *args, busy=busy, **how: busy  # type: ignore[method-assign]
        with_ = BatchPolicy(canary=msgspec.structs.replace(SOME, on_timeout=policy), max_rounds=0)
        first = world.waits(with_)
        assert first.until is not None
        assert timedelta() < first.until - world.began <= SOME.limit
        assert "canary" in first.why
        if sent:
            with caplog.at_level(logging.WARNING):
                assert world.on(with_).counts["answer"] == 10
            assert "only 0 of 4 rows were answered (its limit was reached" in caplog.text
        else:
            with pytest.raises(CanaryFailed, match="only 0 of 4 rows were answered"):
                world.on(with_)
        assert len(world.service.created) == sent


def test_requests_that_the_service_refuses_are_named_by_their_code_and_not_by_its_words() -> None:
    world = World(shards=1, rows=10)
    refused = GenerateReply(error={"code": 400, "message": "Unknown name 'row 3'"}, code=400)
    world.service.generate = lambda *args, **how: refused  # type: ignore[method-assign]
    with pytest.raises(CanaryFailed, match=r"4 failed \(code 400\)") as caught:
        world.walk(WITH)
    assert "Unknown name" not in str(caught.value)


def test_a_wrong_model_is_named_before_a_sample_is_spent_on_it() -> None:
    world = World(rows=10)
    world.service._models = ()
    with pytest.raises(ModelUnknown):
        world.walk(WITH)
    assert world.fact("rungs/00.json", RungFact) is None


@pytest.mark.parametrize("reply", [401, 402])
def test_a_canary_that_a_person_has_to_mend_goes_on_where_it_was(reply: int) -> None:
    world = World(shards=1, rows=10)
    calls: list[int] = []

    def generate(*args: Any, **how: Any) -> GenerateReply:
        calls.append(1)
        if len(calls) == 1:
            return InMemoryGateway.generate(world.service, *args, **how)
        if reply == 401:
            raise KeyRefused("generateContent", 401, "revoked")
        return GenerateReply(error={"code": reply, "message": "used up"}, code=reply)

    world.service.generate = generate  # type: ignore[method-assign]
    with pytest.raises(ServiceError, match=str(reply)):
        world.walk(WITH)
    assert world.service.created == []
    assert report_of(desk_of(world), root_of(world)) is None
    del world.service.generate
    world.waits(WITH)
    assert len(world.service.generated) == 4
    report = report_of(desk_of(world), root_of(world))
    assert report is not None
    assert report.usable == 4


def test_a_batch_of_another_kind_is_refused() -> None:
    world = World(rows=10)
    root = msgspec.structs.replace(root_of(world), kind="embed")
    with pytest.raises(Unusable, match="row by row"):
        pass_canary(desk_of(world), root, SOME)


def test_a_backfill_asks_by_flex_whatever_the_tier() -> None:
    world = World(rows=10)
    pass_canary(desk_of(world), root_of(world), msgspec.structs.replace(SOME, tier="standard"), in_backfill=True)
    assert {tier for _, tier in world.service.generated} == {"flex"}


# Parity


def test_a_batch_answered_by_another_version_than_its_canary_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    world = World(shards=1, rows=10)
    world.waits(BatchPolicy(canary=SOME, max_rounds=0))
    job = world.service.created[0].name
    world.service._lines[job] = [line.replace(b"in-memory", b"later-version") for line in world.service._lines[job]]
    with caplog.at_level(logging.WARNING):
        world.on(WITH)
    assert "the canary was answered by in-memory, the batch by later-version" in caplog.text


def test_a_batch_that_fares_like_its_canary_needs_no_word(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        World(shards=2, rows=10).on(WITH)
    assert caplog.records == []


# Money


def test_the_canary_is_charged_before_it_is_paid_and_a_budget_holds_for_both() -> None:
    world = World(shards=1, rows=10)
    landed = world.on(BatchPolicy(canary=SOME, max_rounds=0, max_cost_usd=Decimal(5)))
    charges = [
        msgspec.json.decode(world.store.read(path) or b"")
        for path in world.store.list("batches")
        if "/charges/" in path
    ]
    assert charges[0]["purpose"].startswith("rung 0 run 1")
    spent = [Decimal(one["usd"]) for one in charges if "usd" in one]
    assert sum(spent) == landed.cost_usd


def test_a_budget_that_bears_no_row_asks_none() -> None:
    world = World(shards=1, rows=10)
    with pytest.raises(Unusable, match="max_cost_usd"):
        world.walk(BatchPolicy(canary=SOME, max_cost_usd=Decimal("0.000001")))
    assert world.service.generated == []
    assert world.service.created == []


@pytest.mark.parametrize(("limit", "model"), [("0.000001", "gemini-3.8-flash"), ("5", "gemini-9")])
def test_a_canary_that_no_money_is_there_for_is_not_over_and_goes_first_once_there_is(limit: str, model: str) -> None:
    world = World(shards=1, rows=10)
    world.service._models = (model,)
    world.store.write(world.manifest.path, msgspec.json.encode(msgspec.structs.replace(root_of(world), model=model)))
    with pytest.raises(BeyondBudget, match=r"a row of its canary may cost|no price is known"):
        world.walk(BatchPolicy(canary=SOME, max_cost_usd=Decimal(limit), budget="estimate"))
    assert report_of(desk_of(world), root_of(world)) is None
    mended = BatchPolicy(canary=SOME, max_cost_usd=Decimal(10) if model != "gemini-9" else None)
    assert world.on(mended).counts["answer"] == 10
    assert len(world.service.generated) == 4


def test_calls_without_an_answer_are_on_the_bill_of_the_report() -> None:
    world = World(shards=1, rows=10)
    lost = GenerateReply(error={"code": 504, "message": "lost"})
    calls: list[int] = []

    def generate(*args: Any, **how: Any) -> GenerateReply:
        calls.append(1)
        return lost if len(calls) == 1 else InMemoryGateway.generate(world.service, *args, **how)

    world.service.generate = generate  # type: ignore[method-assign]
    world.waits(WITH)
    report = report_of(desk_of(world), root_of(world))
    assert report is not None
    one = Decimal(report.cost_usd or 0) / 5
    assert one * 5 == Decimal(report.cost_usd or 0) > 0
    assert len(calls) == 5


# Generations, separate tasks, a person's word


def second_generation(world: World, kept_shard: int = 0) -> Build:
    """The next generation: it refers to one shard of the first, and has a new one."""
    first = root_of(world)
    home = f"{generation_path(BATCH, 2)}/builds/b2"
    old = first.shards[1 - kept_shard]
    new = msgspec.structs.replace(
        old, home=home, path=f"{home}/new.jsonl", keys_path=f"{home}/new-keys.jsonl", content="changed", index=9,
        tag="ddddeeeeffff3333",
    )  # fmt: skip
    data = (world.store.read(old.path) or b"").replace(f"{old.tag}-{old.index:04d}".encode(), b"ddddeeeeffff3333-0009")
    import hashlib

    new = msgspec.structs.replace(new, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    world.store.create(new.path, data)
    world.store.create(new.keys_path, world.store.read(old.keys_path) or b"")
    build = msgspec.structs.replace(
        first, id="b2", tag="ddddeeeeffff3333", generation=2, shards=(first.shards[kept_shard], new)
    )
    world.store.create(f"{home}.json", msgspec.json.encode(build))
    world.manifest = type(world.manifest)(uri=f"{world.store.uri}/{home}.json", rows=build.rows, shards=2)
    return build


def test_answers_travel_with_a_shard_that_the_next_generation_refers_to_and_only_new_shards_are_sampled() -> None:
    world = World(shards=2, rows=10)
    first = world.on(WITH)
    asked = len(world.service.generated)
    build = second_generation(world)
    landed = world.on(WITH)
    assert landed.counts["answer"] == 20
    assert len(world.service.created) == 3
    again = world.service.generated[asked:]
    assert len(again) == 4
    kept = [kept_of(world.store, shard) for shard in build.shards]
    assert [len(one.rows) if one else 0 for one in kept] == [2, 4]
    assert len(rows_in(world, 2)) == 6
    assert first.cost_usd is not None
    assert sum(Decimal(str(row["cost_usd"])) for row in world.rows()) == landed.cost_usd


@pytest.mark.parametrize("generation", [2, 3])
def test_a_shard_that_an_earlier_generation_sealed_and_did_not_send_keeps_its_canarys_answers(generation: int) -> None:
    world = World(shards=2, rows=10)
    build = second_generation(world)
    if generation == 3:
        assert pass_canary(desk_of(world), build, SOME) is None
        home = f"{generation_path(BATCH, 3)}/builds/b3"
        build = msgspec.structs.replace(build, id="b3", generation=3)
        world.store.create(f"{home}.json", msgspec.json.encode(build))
        world.manifest = type(world.manifest)(uri=f"{world.store.uri}/{home}.json", rows=build.rows, shards=2)
    landed = world.on(WITH)
    assert landed.counts["answer"] == 20
    assert [len(left_out(world.store, shard)) for shard in build.shards] == [2, 2]
    assert len(world.service.generated) == 4
    assert sum(Decimal(str(row["cost_usd"])) for row in world.rows()) == landed.cost_usd


def test_a_generation_whose_shards_are_all_jobs_has_no_canary() -> None:
    world = World(shards=1, rows=10)
    world.waits(BatchPolicy())
    world.waits(WITH, me="later")
    assert world.service.generated == []
    assert world.on(WITH).counts["answer"] == 10


def test_what_a_stopped_generation_sampled_still_counts_in_the_next() -> None:
    world = World(shards=2, rows=10, answer=failing(*(f"row {number}" for number in range(10))))
    with pytest.raises(CanaryFailed):
        world.walk(WITH)
    second_generation(world, kept_shard=0)
    with pytest.raises(CanaryFailed) as caught:
        world.walk(WITH)
    assert "4 of 6 answers usable; 2 unusable" in str(caught.value)
    assert len(world.service.generated) == 8


def load(world: World) -> Landed:
    return collect(
        [world.manifest], open_store=lambda uri: world.store, gateway=world.service,
        landing=Place("notes", "memory://landing", "jsonl"), landing_store=FileLanding(world.landing), window="w",
        owner=Owner("dag", "load"), run=RunRef("dag", "run", "load"), thresholds=ALL, me="load", now=world.clock, log=LOG,
    )  # fmt: skip


def test_in_separate_tasks_submit_leaves_out_what_the_canary_answered_and_load_finds_it() -> None:
    world = World(shards=2, rows=5)
    root = root_of(world)
    assert pass_canary(desk_of(world), root, SOME) is None
    end = submit(world.manifest, store=world.store, gateway=world.service, me="me", now=world.clock, log=LOG)
    assert isinstance(end, Submitted)
    assert pass_canary(desk_of(world, "retry"), root, SOME) is None
    world.clock.advance(timedelta(hours=4))
    landed = load(world)
    assert landed.counts["answer"] == 10
    assert len(world.service.generated) == 4
    rows = list(read_rows(world.landing, "w"))
    assert [row["key"] for row in rows] == [f"k{number}" for number in range(10)]
    assert sum(Decimal(str(row["cost_usd"])) for row in rows) == landed.cost_usd
    assert set(landed.manifest.models) == {"gemini-3.8-flash"}


def test_in_separate_tasks_a_long_pause_is_waited_for() -> None:
    world = World(shards=1, rows=10)
    busy = GenerateReply(error={"code": 429, "message": "later"}, code=429, retry_after_seconds=300.0)
    plain = world.service.generate
    world.service.generate = lambda *args, **how: busy  # type: ignore[method-assign]
    end = pass_canary(desk_of(world), root_of(world), SOME)
    assert isinstance(end, Waiting)
    world.clock.advance_to(end.until)
    world.service.generate = plain  # type: ignore[method-assign]
    assert pass_canary(desk_of(world, "resumed"), root_of(world), SOME) is None
    assert len(world.service.generated) == 4


def interrupted(world: World) -> Canary:
    """A canary of twenty rows that rests after five."""
    canary, plain = Canary(rows=20, max_share=1.0, limit=timedelta(hours=9)), world.service.generate
    busy = GenerateReply(error={"code": 429, "message": "later"}, code=429, retry_after_seconds=300.0)
    calls: list[int] = []

    def generate(*asked: Any, **how: Any) -> GenerateReply:
        calls.append(1)
        return busy if len(calls) > 5 else plain(*asked, **how)

    world.service.generate = generate  # type: ignore[method-assign]
    world.waits(BatchPolicy(canary=canary, max_rounds=0))
    assert len(world.service.generated) == 5
    return canary


def test_what_a_canary_answered_that_is_given_up_midway_is_not_paid_again() -> None:
    world = World(shards=2, rows=20)
    interrupted(world)
    landed = world.on(BatchPolicy(max_rounds=0))
    assert sum(len(rows_in(world, job)) for job in (0, 1)) == 35
    assert landed.counts["answer"] == 40
    assert sum(Decimal(str(row["cost_usd"])) for row in world.rows()) == landed.cost_usd


def test_what_a_canary_answered_lands_when_a_person_has_it_committed_midway() -> None:
    world = World(shards=2, rows=20)
    canary = interrupted(world)
    world.command("commit_now")
    landed = world.on(BatchPolicy(canary=canary, max_rounds=0, thresholds=ALL))
    assert (landed.counts["answer"], landed.counts["missing"]) == (5, 35)
    assert world.service.created == []


@pytest.mark.parametrize("ladder", [(), (Rung("flex", timedelta(hours=2)),)])
def test_a_deadline_that_passes_while_the_canary_rests_ends_in_the_ladder_and_pays_nothing_twice(ladder: Any) -> None:
    world = World(shards=2, rows=20)
    plain, deadline = world.service.generate, world.clock() + timedelta(hours=1)
    canary = interrupted(world)
    world.service.generate = plain  # type: ignore[method-assign]
    world.clock.advance(timedelta(hours=2))
    policy = BatchPolicy(canary=canary, max_rounds=0, deadline=deadline, ladder=ladder)
    if not ladder:
        with pytest.raises(WaitTimedOut):
            world.on(policy)
        return
    assert world.on(policy).counts["answer"] == 40
    assert len(world.service.generated) == 40


def test_a_person_who_cancels_while_the_canary_rests_is_heard() -> None:
    world = World(shards=1, rows=10)
    busy = GenerateReply(error={"code": 429, "message": "later"}, code=429, retry_after_seconds=300.0)
    world.service.generate = lambda *args, **how: busy  # type: ignore[method-assign]
    world.waits(WITH)
    world.command("cancel")
    with pytest.raises(Exception, match="cancelled on a person's wish"):
        world.walk(WITH)
    assert world.service.created == []


REPLIES: dict[str, dict[str, Any]] = {"empty": EMPTY, "blocked": BLOCKED}
KINDS = st.sampled_from(["answer", "empty", "blocked"])


@given(st.lists(st.tuples(KINDS, KINDS), min_size=2, max_size=12), st.integers(1, 6))
def test_whatever_canary_and_job_say_every_row_lands_once_with_the_best_of_it(
    said: list[tuple[str, str]], wanted: int
) -> None:
    world = World(shards=1, rows=len(said))
    root, sending = root_of(world), False

    def answer(request: Mapping[str, Any]) -> dict[str, Any]:
        kind = said[int(text_of(request)[4:])][sending]
        return echo(request) if kind == "answer" else REPLIES[kind]

    world.service._answer = answer
    run_canary(desk_of(world), root, Canary(rows=wanted, max_share=1.0))
    kept = left_out(world.store, root.shards[0])
    sending = True
    submit(world.manifest, store=world.store, gateway=world.service, me="me", now=world.clock, log=LOG)
    sampled = {row for _, row in sample_on_record(world)}
    assert kept == {row for row in sampled if said[row][0] == "answer"}
    assert rows_in(world, 0) == [f"row {row}" for row in range(len(said)) if row not in kept]
    world.clock.advance(timedelta(hours=4))
    best = [first if row in kept else second for row, (first, second) in enumerate(said)]
    if "answer" not in best:
        with pytest.raises(Rejected):
            load(world)
    rows = [] if "answer" not in best else list(read_rows(world.landing, load(world).window))
    assert [(row["key"], row["outcome"]) for row in rows] == [
        (f"k{row}", kind) for row, kind in enumerate(best) if rows
    ]


def sample_on_record(world: World) -> list[tuple[int, int]]:
    fact = world.fact("rungs/00.json", RungFact)
    return [tuple(msgspec.json.decode(line)) for line in (world.store.read(fact.rows) or b"").splitlines()]


def test_media_of_a_sampled_row_are_uploaded_for_it_and_not_again_for_its_batch() -> None:
    world = MediaWorld()
    manifest = world.prepare(*[wav(2000 + 10 * number) for number in range(6)])
    asked: list[str] = []

    def answer(request: Mapping[str, Any]) -> dict[str, Any]:
        asked.append(request["contents"][0]["parts"][0]["fileData"]["fileUri"])
        return echo({}) | {"candidates": [{"content": {"parts": [{"text": "a sound"}]}, "finishReason": "STOP"}]}

    world.service._answer = answer
    root = read_build(world.store, manifest.path)
    desk = Desk(world.store, world.service, "me", world.clock, LOG, lambda seconds: None)
    assert pass_canary(desk, root, Canary(rows=2, max_share=0.5)) is None
    assert len(world.uploads()) == 2
    assert not any("geminibatch:" in uri for uri in asked)
    assert isinstance(world.submit(manifest), Submitted)
    assert len(world.uploads()) == 6
    assert len(world.sent()) == 4


def test_kept_answers_that_were_tampered_with_are_not_used() -> None:
    world = World(shards=1, rows=10)
    world.waits(WITH)
    shard = root_of(world).shards[0]
    kept = kept_of(world.store, shard)
    assert isinstance(kept, Kept)
    world.store.write(kept.path, b"{}\n")
    world.clock.advance(timedelta(hours=4))
    with pytest.raises(StoreUnreadable, match="not what the canary kept"):
        world.walk(WITH)


def test_a_command_is_a_fact_of_its_own() -> None:
    world = World(rows=10)
    world.command("commit_now")
    with pytest.raises(Exception, match="outside its thresholds"):
        world.on(WITH)
    assert world.fact("command.json", Command).command == "commit_now"
    assert world.service.created == []
