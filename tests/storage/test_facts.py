"""Facts: the first stands, damage is named, newer formats are refused."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from airflow_provider_geminibatch.core.errors import LedgerUnreadable
from airflow_provider_geminibatch.core.ledger import FACTS, Attempt, Claim, Void, attempt_path
from airflow_provider_geminibatch.core.model import ServiceIdentity
from airflow_provider_geminibatch.storage import facts
from airflow_provider_geminibatch.storage.stores import MemoryStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def void(owner: str) -> Void:
    return Void(owner=owner, at=NOW, why="why")


def test_of_two_writers_the_first_stands_and_both_read_it() -> None:
    store = MemoryStore()

    assert facts.put(store, "a01.void", void("one")).owner == "one"
    assert facts.put(store, "a01.void", void("two")).owner == "one"


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"owner":"x"}', b"\xff"])
def test_a_damaged_fact_is_unreadable_and_never_absent(data: bytes) -> None:
    store = MemoryStore()
    store.write("a01.void", data)

    with pytest.raises(LedgerUnreadable, match="not proof"):
        facts.get(store, "a01.void", Void)


def test_a_newer_format_is_refused_and_unknown_fields_are_not_minded() -> None:
    store = MemoryStore()
    store.write("new", msgspec.json.encode({**msgspec.to_builtins(void("x")), "min_reader": 99}))
    store.write("more", msgspec.json.encode({**msgspec.to_builtins(void("x")), "added": 1}))

    with pytest.raises(LedgerUnreadable, match="newer release"):
        facts.get(store, "new", Void)
    assert facts.get(store, "more", Void) == void("x")


def test_a_shard_folds_its_attempts_in_order() -> None:
    store = MemoryStore()
    for number in (1, 2):
        claim = Claim(owner=f"o{number}", at=NOW, display_name="d", service=ServiceIdentity("r", "e"))
        facts.put(store, attempt_path("s", number, "claim"), claim)
    facts.put(store, attempt_path("s", 1, "void"), void("o2"))

    folded = facts.shard_facts(store, "s")

    assert [attempt.claim.owner for attempt in folded.attempts] == ["o1", "o2"]
    assert folded.attempts[0].void == void("o2")
    assert not folded.sent


def test_the_table_of_facts_is_the_shape_of_an_attempt() -> None:
    assert set(FACTS) == {field.name for field in msgspec.structs.fields(Attempt)} - {"number"}
