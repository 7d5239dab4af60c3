"""Dead letters: what a batch ends without an answer for, as requests that can be asked again, written before the commit."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
import pytest

from airflow_provider_geminibatch.core.batch import BatchPolicy
from airflow_provider_geminibatch.core.errors import GeminiBatchError, Rejected, StoreUnreadable
from airflow_provider_geminibatch.core.ledger import DeadLettered
from airflow_provider_geminibatch.core.verdict import Thresholds
from airflow_provider_geminibatch.jobs.dead_letters import (
    dead_letters,
    last_dead_letters,
    read_dead_letters,
)
from airflow_provider_geminibatch.storage.landings import read_manifest
from tests.faults import WAYS, Crash, Plan
from tests.jobs import test_whole as whole
from tests.jobs.test_collect import BLOCKED, G1, WINDOW, World, answering

ALL = Thresholds(max_unresolved=1.0)
REFUSED = {"error": {"code": 3, "message": "no such thing"}}


def letters_of(world: Any, seal: int = 1) -> list[dict[str, Any]]:
    found = dead_letters(world.store, G1, seal)
    assert found is not None
    return [line for _, line in read_dead_letters(world.store, found)]


def test_every_row_without_an_answer_is_there_with_its_request_and_why() -> None:
    world = World(shards=2, rows=3, answer=answering(row_1=BLOCKED, row_5=BLOCKED))
    world.load(thresholds=ALL)
    first, second = letters_of(world)
    assert first["key"] == "k1"
    assert first["request"] == {"contents": [{"role": "user", "parts": [{"text": "row 1"}]}]}
    assert (first["dead_letter"]["outcome"], first["dead_letter"]["reason"]) == ("blocked", "prompt blocked: SAFETY")
    assert (second["key"], second["dead_letter"]["row"]) == ("k5", 2)
    fact = dead_letters(world.store, G1, 1)
    assert fact is not None
    assert (fact.rows, fact.counts) == (2, {"blocked": 2})


def test_a_batch_with_all_its_answers_has_none_and_no_file() -> None:
    world = World()
    world.load()
    fact = dead_letters(world.store, G1, 1)
    assert fact is not None
    assert (fact.rows, fact.path) == (0, "")
    assert list(read_dead_letters(world.store, fact)) == []
    assert not [path for path in world.store.list(f"{G1}/dead_letters") if path.endswith(".jsonl")]


def test_a_rejected_commit_leaves_them_too() -> None:
    world = World(rows=2, answer=answering(row_0=BLOCKED))
    with pytest.raises(Rejected):
        world.load(thresholds=Thresholds(max_unresolved=0.1))
    assert [line["key"] for line in letters_of(world)] == ["k0"]


def test_what_a_round_answered_is_none() -> None:
    world = whole.World(rows=4, answer=whole.at_first(whole.EMPTY, "row 1"))
    answer = world.service._answer
    world.service._answer = lambda request: BLOCKED if whole.text_of(request) == "row 2" else answer(request)
    landed = world.on(BatchPolicy(thresholds=ALL))
    assert landed.counts["answer"] == 3
    assert [line["key"] for line in letters_of(world)] == ["k2"]


def test_the_last_seal_that_was_committed_counts() -> None:
    world = World(rows=2, answer=answering(row_0=BLOCKED))
    assert last_dead_letters(world.store, G1) is None
    world.load(thresholds=ALL)
    found = last_dead_letters(world.store, G1)
    assert found is not None
    assert found.path.endswith("dead_letters/01.jsonl")


def test_columns_that_a_line_has_itself_are_named_apart() -> None:
    world = World(rows=2, answer=answering(row_0=BLOCKED))
    shard = world.build.shards[0]
    passed = {"key": "theirs", "request": 1, "dead_letter": None, "row_key": "too", "city": "Graz"}
    keys = [["k0", passed], ["k1", passed]]
    world.store.write(shard.keys_path, b"".join(msgspec.json.encode(line) + b"\n" for line in keys))
    _reseal(world)
    world.load(thresholds=ALL)
    (line,) = letters_of(world)
    assert line["key"] == "k0"
    assert (line["row_key"], line["row_row_key"], line["row_request"]) == ("theirs", "too", 1)
    assert (line["city"], line["row_dead_letter"]) == ("Graz", None)


def _reseal(world: World) -> None:
    import hashlib

    build = world.build
    shards = tuple(
        msgspec.structs.replace(shard, keys_sha256=hashlib.sha256(world.store.read(shard.keys_path) or b"").hexdigest())
        for shard in build.shards
    )
    world.store.write(world.manifest.path, msgspec.json.encode(msgspec.structs.replace(build, shards=shards)))


def test_a_file_that_was_changed_is_not_asked_from() -> None:
    world = World(rows=2, answer=answering(row_0=BLOCKED))
    world.load(thresholds=ALL)
    found = last_dead_letters(world.store, G1)
    assert found is not None
    world.store.write(found.path, (world.store.read(found.path) or b"").replace(b"row 0", b"row 9"))
    with pytest.raises(StoreUnreadable, match="checksum"):
        list(read_dead_letters(world.store, found))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("at", range(0, 60, 2))
def test_wherever_a_load_is_interrupted_a_commit_never_stands_without_them(at: int, way: str) -> None:
    world = World(rows=2, answer=answering(row_0=BLOCKED))
    plan = Plan(at, way, meanwhile=lambda: world.load(thresholds=ALL, me="other"))
    with suppress(Crash, GeminiBatchError):
        world.load(plan=plan, thresholds=ALL)
    if read_manifest(world.landing, WINDOW) is not None:
        assert [line["key"] for line in letters_of(world)] == ["k0"]
    world.load(thresholds=ALL, me="again")
    assert [line["key"] for line in letters_of(world)] == ["k0"]
    assert world.fact(f"{G1}/dead_letters/01.json", DeadLettered).rows == 1
