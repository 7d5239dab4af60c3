"""Commits in a store: the old window or the new one, whole."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import msgspec
import pytest

from airflow_provider_geminibatch.core.errors import NotOwner, StoreUnreadable, Unusable, WindowNotLanded
from airflow_provider_geminibatch.core.landing import CommitManifest, Origin, RunRef, window_folder
from airflow_provider_geminibatch.core.model import BatchId, Owner, Usage
from airflow_provider_geminibatch.core.reconcile import LineCounts
from airflow_provider_geminibatch.core.verdict import Thresholds, Verdicts
from airflow_provider_geminibatch.storage import landings
from airflow_provider_geminibatch.storage.landing_store import view_of
from airflow_provider_geminibatch.storage.landings import (
    FileLanding,
    accept,
    commit,
    drop_early,
    read_manifest,
    read_rows,
    windows,
)
from airflow_provider_geminibatch.storage.sinks import COLUMNS, Row, write_parts
from airflow_provider_geminibatch.storage.store import Store
from airflow_provider_geminibatch.storage.stores import MemoryStore

NOW = datetime(2026, 1, 2, tzinfo=UTC)
BATCH = BatchId("dag", "run", "prepare")


def row(key: str) -> Row:
    return (key, "answer", *([None] * (len(COLUMNS) - 2)))


def written(store: Store, name: str, *keys: str, window: str = "w", **changes: Any) -> CommitManifest:
    """A manifest whose parts lie in the store and whose commit is still to come."""
    verdict = changes.get("verdict", Verdicts.ACCEPTED)
    early = verdict is Verdicts.PARTIAL_BY_POLICY
    part = changes.get("part", "")
    folder = window_folder(window, rejected=verdict is Verdicts.REJECTED, early=early, part=part)
    parts = write_parts(store, folder, name, "jsonl", COLUMNS, [row(key) for key in keys])
    base = CommitManifest(
        landing="notes", window=window, commit=name, format="jsonl", parts=parts, rows=len(keys),
        counts={"answer": len(keys)}, lines=LineCounts(), complete=True, verdict=Verdicts.ACCEPTED,
        numbers=f"{len(keys)} answered", thresholds=Thresholds(), owner=Owner("dag", "load"),
        run=RunRef("dag", "run", "load"), models=("m",), tokens=Usage(), cost_usd=None, committed_at=NOW,
        origins=(Origin(batch=BATCH, generation=1, build="b", seal=1, workspace="/w"),), jobs=(),
    )  # fmt: skip
    return msgspec.structs.replace(base, **changes)


def keys_of(store: Store, window: str = "w", **how: Any) -> list[str]:
    return [found["key"] for found in read_rows(store, window, **how)]


def test_what_is_committed_can_be_read() -> None:
    store = MemoryStore()
    commit(store, written(store, "c1", "a", "b"))
    assert keys_of(store) == ["a", "b"]
    assert windows(store) == ["w"]


def test_parts_without_a_manifest_are_no_commit() -> None:
    store = MemoryStore()
    written(store, "c1", "a")
    assert read_manifest(store, "w") is None
    with pytest.raises(WindowNotLanded, match="nothing was committed"):
        keys_of(store)


def test_a_replacement_deletes_the_parts_it_replaced_and_nothing_else() -> None:
    store = MemoryStore()
    commit(store, written(store, "c1", "a"))
    store.write("window=w/notes.txt", b"somebody's")
    commit(store, written(store, "c2", "b"))
    assert keys_of(store) == ["b"]
    assert list(store.list("")) == ["window=w/_manifest.json", "window=w/notes.txt", "window=w/part-00000-c2.jsonl"]


def test_a_crash_between_manifest_and_deletes_is_cleaned_up_by_the_next_try() -> None:
    store = MemoryStore()
    first = commit(store, written(store, "c1", "a"))
    commit(store, written(store, "c2", "b"))
    write_parts(store, "window=w", first.commit, "jsonl", COLUMNS, [row("a")])  # as if never deleted
    commit(store, written(store, "c2", "b", committed_at=NOW + timedelta(hours=1)))
    assert [path for path in store.list("") if "part" in path] == ["window=w/part-00000-c2.jsonl"]


def test_a_repeated_commit_leaves_the_manifest_as_it_was() -> None:
    store = MemoryStore()
    first = commit(store, written(store, "c1", "a"))
    assert commit(store, written(store, "c1", "a", committed_at=NOW + timedelta(hours=1))) == first


def test_a_commit_that_returns_brings_its_parts_back() -> None:
    store = MemoryStore()
    for name, key in (("c1", "a"), ("c2", "b"), ("c1", "a")):
        commit(store, written(store, name, key))
    assert keys_of(store) == ["a"]
    assert [path for path in store.list("") if "part" in path] == ["window=w/part-00000-c1.jsonl"]


def test_a_reader_in_the_middle_of_a_replacement_sees_one_commit_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    commit(store, written(store, "c1", "a", "b"))
    opened, pending = store.open, [lambda: commit(store, written(store, "c2", "c", "d"))]

    def open_after_the_replacement(path: str) -> Any:
        while pending:
            pending.pop()()
        return opened(path)

    monkeypatch.setattr(store, "open", open_after_the_replacement)
    assert keys_of(store) == ["c", "d"]


def test_a_reader_that_began_before_a_replacement_ends_with_the_old_commit() -> None:
    store = MemoryStore()
    commit(store, written(store, "c1", "a", "b"))
    rows = read_rows(store, "w")
    first = next(rows)
    commit(store, written(store, "c2", "c"))
    assert [first["key"], *(found["key"] for found in rows)] == ["a", "b"]


def test_a_part_that_is_gone_or_changed_is_an_error_and_never_fewer_rows() -> None:
    store = MemoryStore()
    manifest = commit(store, written(store, "c1", "a"))
    store.delete(f"window=w/{manifest.parts[0].path}")
    with pytest.raises(StoreUnreadable, match="it is not there"):
        keys_of(store)


def test_a_damaged_manifest_is_not_taken_for_an_absent_one() -> None:
    store = MemoryStore()
    store.write("window=w/_manifest.json", b'{"v": 1')
    with pytest.raises(StoreUnreadable, match="not a manifest"):
        read_manifest(store, "w")


def test_another_owner_is_refused_before_anything_changes() -> None:
    store = MemoryStore()
    commit(store, written(store, "c1", "a", owner=Owner("other", "load")))
    for verdict in (Verdicts.ACCEPTED, Verdicts.REJECTED):
        with pytest.raises(NotOwner):
            commit(store, written(store, "c2", "b", verdict=verdict))
    assert keys_of(store) == ["a"]
    assert read_manifest(store, "w", rejected=True) is None


def test_a_rejected_commit_lies_apart_and_never_replaces_an_accepted_one() -> None:
    store = MemoryStore()
    commit(store, written(store, "c1", "a"))
    commit(store, written(store, "c2", "b", verdict=Verdicts.REJECTED))
    assert keys_of(store) == keys_of(store, any_verdict=True) == ["a"]
    assert list(store.list("_rejected")) == [
        "_rejected/window=w/_manifest.json",
        "_rejected/window=w/part-00000-c2.jsonl",
    ]


def test_rejected_rows_are_read_only_by_those_who_ask_for_them() -> None:
    store = MemoryStore()
    commit(store, written(store, "c1", "a", verdict=Verdicts.REJECTED))
    with pytest.raises(WindowNotLanded, match="it was rejected: 1 answered"):
        keys_of(store)
    assert keys_of(store, any_verdict=True) == ["a"]
    assert windows(store) == []


def test_an_incomplete_commit_is_read_only_by_those_who_ask_for_it() -> None:
    store = MemoryStore()
    commit(store, written(store, "c1", "a", complete=False))
    with pytest.raises(WindowNotLanded, match="complete: False"):
        keys_of(store)
    assert keys_of(store, any_verdict=True) == ["a"]


def test_windows_of_any_name_are_found_again() -> None:
    store = MemoryStore()
    names = ["", "a/b", "20260101T000000Z", "ü" * 90, ".."]
    for number, name in enumerate(names):
        commit(store, written(store, f"c{number}", "a", window=name))
    assert windows(store) == sorted(names)


def accepted(store: Store) -> CommitManifest:
    return accept(store, "w", reason="good enough", who="ada", now=NOW + timedelta(hours=1))


def test_the_commits_of_a_landing_are_its_own() -> None:
    store = MemoryStore()
    for name, changes in (("c1", {}), ("c2", {"verdict": Verdicts.REJECTED}), ("c3", {"part": "eu", "window": "v"})):
        commit(store, written(store, name, "a", **changes))
    manifest = store.read("window=w/_manifest.json") or b""
    # Another landing below this one, and what somebody put aside by hand.
    store.write("other/window=w/_manifest.json", manifest)
    store.write("window=w/old/_manifest.json", manifest)
    assert sorted(one.commit for one in FileLanding(store).commits()) == ["c1", "c2", "c3"]


def test_a_person_accepts_a_rejected_window_on_record() -> None:
    store = MemoryStore()
    commit(store, written(store, "c1", "a", verdict=Verdicts.REJECTED))
    assert accepted(store).passes
    standing = read_manifest(store, "w")
    assert standing is not None
    assert standing.acceptance is not None
    assert (standing.acceptance.by, standing.acceptance.reason) == ("ada", "good enough")
    assert keys_of(store) == ["a"]
    assert list(store.list("_rejected")) == []


def test_accepting_replaces_the_commit_that_stood() -> None:
    store = MemoryStore()
    commit(store, written(store, "c1", "a"))
    commit(store, written(store, "c2", "b", verdict=Verdicts.REJECTED))
    accepted(store)
    assert keys_of(store) == ["b"]
    assert [path for path in store.list("") if "part" in path] == ["window=w/part-00000-c2.jsonl"]


def test_an_interrupted_acceptance_is_finished_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    commit(store, written(store, "c1", "a", verdict=Verdicts.REJECTED))

    def crash(*args: object) -> None:
        raise KeyboardInterrupt

    for broken in ("_put", "_delete_replaced"):
        with monkeypatch.context() as patched:
            patched.setattr(landings, broken, crash)
            with pytest.raises(KeyboardInterrupt):
                accepted(store)
        assert read_manifest(store, "w", rejected=True) is not None
    accepted(store)
    assert keys_of(store) == ["a"]


def test_what_is_rejected_while_a_person_accepts_the_one_before_is_not_lost() -> None:
    store = MemoryStore()
    commit(store, written(store, "c1", "a", verdict=Verdicts.REJECTED))

    class Busy(MemoryStore):
        """Somebody commits as soon as the first part of the accepted one is gone."""

        def delete(self, path: str) -> None:
            super().delete(path)
            if "part-00000-c1" in path and path.startswith("_rejected"):
                commit(store, written(store, "c2", "b", verdict=Verdicts.REJECTED))

    busy = Busy()
    busy._objects = store._objects
    assert FileLanding(busy).accept("w", reason="r", who="ada", now=NOW).commit == "c1"
    standing = read_manifest(store, "w", rejected=True)
    assert standing is not None
    assert standing.commit == "c2"
    assert [row["key"] for row in read_rows(store, "w")] == ["a"]


def test_nothing_is_accepted_twice_or_over_a_later_commit() -> None:
    store = MemoryStore()
    with pytest.raises(Unusable, match="no rejected commit lies there"):
        accepted(store)
    commit(store, written(store, "c1", "a", verdict=Verdicts.REJECTED))
    commit(store, written(store, "c2", "b", committed_at=NOW + timedelta(minutes=1)))
    with pytest.raises(Unusable, match=r"a later commit .* was accepted"):
        accepted(store)
    assert keys_of(store) == ["b"]


EARLY: dict[str, Any] = {"verdict": Verdicts.PARTIAL_BY_POLICY, "complete": False}


def test_an_early_commit_lies_apart_and_is_read_only_by_those_who_ask() -> None:
    store = MemoryStore()
    commit(store, written(store, "c1", "a", **EARLY))
    assert {path.partition("/")[0] for path in store.list("")} == {"_early"}
    assert windows(store) == []
    with pytest.raises(WindowNotLanded, match="nothing was committed"):
        keys_of(store)
    assert keys_of(store, any_verdict=True) == ["a"]


def test_a_later_early_commit_replaces_the_earlier_one() -> None:
    store = MemoryStore()
    commit(store, written(store, "c1", "a", **EARLY))
    commit(store, written(store, "c2", "a", "b", **EARLY))
    assert keys_of(store, any_verdict=True) == ["a", "b"]
    assert len(list(store.list("_early"))) == 2


def test_what_was_committed_early_goes_when_the_window_is_whole() -> None:
    store = MemoryStore()
    commit(store, written(store, "c1", "a", **EARLY))
    final = commit(store, written(store, "c2", "a", "b"))
    drop_early(store, final)
    drop_early(store, final)
    assert list(store.list("_early")) == []
    assert keys_of(store) == ["a", "b"]


def test_what_a_late_try_left_early_is_swept() -> None:
    store = MemoryStore()
    final = commit(store, written(store, "c2", "a", "b"))
    written(store, "c1", "a", **EARLY)
    drop_early(store, final)
    assert len(list(store.list("_early"))) == 1
    drop_early(store, final, sweep=True)
    assert list(store.list("_early")) == []


def test_an_early_commit_of_another_owner_stays() -> None:
    store = MemoryStore()
    commit(store, written(store, "c1", "a", owner=Owner("other", "load"), **EARLY))
    drop_early(store, commit(store, written(store, "c2", "a")), sweep=True)
    assert len(list(store.list("_early"))) == 2


def test_an_early_commit_never_goes_beside_a_later_whole_one() -> None:
    store = MemoryStore()
    origin = Origin(batch=BATCH, generation=1, build="b", seal=2, workspace="/w")
    commit(store, written(store, "c2", "a", "b", origins=(origin,)))
    with pytest.raises(NotOwner):
        commit(store, written(store, "c1", "a", **EARLY))


def test_parts_of_a_window_are_read_together_when_all_are_there() -> None:
    store = MemoryStore()
    commit(store, written(store, "c1", "a", part="eu", owner=Owner("dag", "eu")))
    with pytest.raises(WindowNotLanded, match="part us: nothing was committed"):
        keys_of(store, parts=("eu", "us"))
    assert keys_of(store, parts=("eu", "us"), any_verdict=True) == ["a"]
    commit(store, written(store, "c2", "b", part="us", owner=Owner("dag", "us")))
    commit(store, written(store, "c3", "c", part="eu", owner=Owner("dag", "eu")))
    assert keys_of(store, parts=("us", "eu")) == ["b", "c"]
    assert windows(store) == ["w"]
    assert [path for path in store.list("") if "c1" in path] == []


def test_a_part_has_its_own_owner_and_does_not_come_into_a_whole_window() -> None:
    store = MemoryStore()
    commit(store, written(store, "c1", "a", part="eu"))
    with pytest.raises(NotOwner, match="part eu"):
        commit(store, written(store, "c2", "b", part="eu", owner=Owner("dag", "other")))
    with pytest.raises(NotOwner, match="the tasks of its parts"):
        commit(store, written(store, "c2", "b"))
    other = MemoryStore()
    commit(other, written(other, "c1", "a"))
    with pytest.raises(NotOwner, match="landed it whole"):
        commit(other, written(other, "c2", "b", part="eu"))
    # A window from before the parts were declared is read as it is.
    assert keys_of(other, parts=("eu", "us")) == ["a"]


@pytest.mark.parametrize("order", sorted(set(permutations(("eu", "eu", "us", "us")))))
def test_of_two_parts_that_come_at_the_same_moment_at_least_one_finds_the_window_whole(order: tuple[str, ...]) -> None:
    """Each task commits and then looks; in whichever order these four happen, somebody updates the asset."""
    store, done, found = MemoryStore(), set[str](), []
    for part in order:
        if part not in done:
            commit(store, written(store, f"c-{part}", part, part=part, owner=Owner("dag", part)))
            done.add(part)
        else:
            found.append(view_of(FileLanding(store), "w", ("eu", "us")).passes)
    assert any(found)


def test_an_acceptance_that_was_interrupted_while_it_cleaned_up_is_finished_by_the_next() -> None:
    store = MemoryStore()
    rejected = commit(store, written(store, "c1", "a", verdict=Verdicts.REJECTED))
    manifest = store.read("_rejected/window=w/_manifest.json")
    first = accept(store, "w", reason="enough", who="ada", now=NOW)
    assert manifest is not None
    store.write("_rejected/window=w/_manifest.json", manifest)  # as if it had stopped after the parts
    assert accept(store, "w", reason="again", who="eve", now=NOW) == first
    assert (keys_of(store), list(store.list("_rejected"))) == (["a"], [])
    assert rejected.rejected


def test_early_rows_of_one_part_go_with_that_part_only() -> None:
    store = MemoryStore()
    for part in ("eu", "us"):
        commit(store, written(store, f"e-{part}", "a", part=part, **EARLY))
    drop_early(store, commit(store, written(store, "c2", "a", "b", part="eu")), sweep=True)
    assert {path.split("/")[2] for path in store.list("_early")} == {"part=us"}


def test_who_may_not_list_may_commit_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()

    def forbidden(folder: str) -> Any:
        raise StoreUnreadable(folder, "403")

    monkeypatch.setattr(store, "list", forbidden)
    commit(store, written(store, "c1", "a"))
    assert keys_of(store) == ["a"]
