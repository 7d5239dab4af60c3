"""Sizes of earlier answers: kept by what was asked, read newest first, the task's own before others'."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow_provider_geminibatch.core.answer_sizes import AnswerSizes
from airflow_provider_geminibatch.storage.stores import MemoryStore
from airflow_provider_geminibatch.storage.usage_history import NEWEST, note_usage, read_usage

ENDED = datetime(2026, 11, 1, tzinfo=UTC)


def note(store: MemoryStore, answers: int, *, task: str = "dag.ask", asked: str = "asked", day: int = 0) -> None:
    note_usage(
        store, service="developer https://x", model="m", asked=asked, task=task, ended=ENDED + timedelta(days=day),
        name=f"c{answers}", sizes=AnswerSizes(answers),
    )  # fmt: skip


def read(store: MemoryStore, task: str = "dag.ask", asked: str = "asked", model: str = "m") -> list[int]:
    found = read_usage(store, service="developer https://x", model=model, asked=asked, task=task)
    return [sizes.answers for sizes in found]


def test_the_newest_batches_of_the_task_come_first() -> None:
    store = MemoryStore("memory://usage")
    for day in range(NEWEST + 5):
        note(store, day + 1, day=day)
    note(store, 999, task="other.task", day=99)
    assert read(store) == list(range(NEWEST + 5, 5, -1))


def test_a_task_without_a_past_goes_by_others_that_asked_the_like() -> None:
    store = MemoryStore("memory://usage")
    note(store, 1, task="a.b", day=1)
    note(store, 2, task="c.d", day=2)
    note(store, 3, asked="something else", day=3)
    assert read(store, task="new.task") == read(store, task="") == [2, 1]
    assert read(store, model="another") == []


def test_what_cannot_be_read_or_has_no_answers_is_passed_over() -> None:
    store = MemoryStore("memory://usage")
    note(store, 0, day=1)
    note(store, 7, day=2)
    (path, *_) = store.list("usage")
    store.write(f"{path.rpartition('/')[0]}/20270101T000000Z_bad.json", b"no JSON")
    assert read(store) == [7]


def test_noting_a_batch_again_changes_nothing() -> None:
    store = MemoryStore("memory://usage")
    note(store, 5)
    note(store, 5)
    assert len(list(store.list("usage"))) == 1
