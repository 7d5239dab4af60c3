"""The layout of a landing, the names of commits, and who may replace a window."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from airflow_provider_geminibatch.core.errors import NotOwner, Unusable
from airflow_provider_geminibatch.core.landing import (
    CommitManifest,
    JobRef,
    Origin,
    Part,
    Place,
    RunRef,
    ShardResult,
    asset_extra,
    commit_id,
    part_name,
    refuse_replacement,
    replacing,
    same_commit,
    turnaround,
    window_folder,
)
from airflow_provider_geminibatch.core.model import BatchId, Owner, Usage
from airflow_provider_geminibatch.core.reconcile import LineCounts
from airflow_provider_geminibatch.core.verdict import Thresholds, Verdicts

NOW = datetime(2026, 1, 2, tzinfo=UTC)
BATCH = BatchId("dag", "run", "prepare")
OWNER = Owner("dag", "load")


def origin(generation: int = 1, seal: int = 1, batch: BatchId = BATCH) -> Origin:
    return Origin(batch=batch, generation=generation, build="b1", seal=seal, workspace="/ws")


def part(name: str) -> Part:
    return Part(name, 10, "aa", 1)


def manifest(**changes: Any) -> CommitManifest:
    base = CommitManifest(
        landing="notes", window="w1", commit="c1", format="jsonl", parts=(part("part-00000-c1.jsonl"),), rows=1,
        counts={"answer": 1, "failed": 0}, lines=LineCounts(lines=1), complete=True, verdict=Verdicts.ACCEPTED,
        numbers="1 of 1 answered", thresholds=Thresholds(), owner=OWNER, run=RunRef("dag", "run", "load"),
        origins=(origin(),), jobs=(), models=("m",), tokens=Usage(), cost_usd="0.5", committed_at=NOW,
    )  # fmt: skip
    return msgspec.structs.replace(base, **changes)


def test_a_manifest_survives_its_file() -> None:
    written = manifest(jobs=(JobRef(name="batches/1", shard="t-0000", rows=1, state="SUCCEEDED", ended_at=NOW),))
    assert msgspec.json.decode(msgspec.json.encode(written), type=CommitManifest) == written


def test_fields_of_a_later_release_do_not_stop_a_reader() -> None:
    later = msgspec.json.decode(msgspec.json.encode(manifest())) | {"novelty": [1]}
    assert msgspec.json.decode(msgspec.json.encode(later), type=CommitManifest) == manifest()


def test_windows_lie_in_their_own_folders_and_rejected_ones_apart() -> None:
    assert window_folder("20260101T000000Z") == "window=20260101T000000Z"
    assert window_folder("a/b", rejected=True) == "_rejected/window=a%2Fb"
    assert part_name(7, "abc", "parquet") == "part-00007-abc.parquet"


def result(sha256: str = "aa", failure: str = "") -> ShardResult:
    return ShardResult(shard="t-0000", attempt=1, job="batches/1", path="p", sha256=sha256, failure=failure)


def test_a_commit_is_named_after_what_decides_its_content_and_nothing_else() -> None:
    name = commit_id("w1", "jsonl", {origin(): [result()]})
    again = commit_id("w1", "jsonl", {origin(seal=2): [msgspec.structs.replace(result(), attempt=2)]})
    assert name == again
    others = {
        commit_id("w2", "jsonl", {origin(): [result()]}),
        commit_id("w1", "parquet", {origin(): [result()]}),
        commit_id("w1", "jsonl", {origin(2): [result()]}),
        commit_id("w1", "jsonl", {origin(): [result("bb")]}),
        # Every row names its job.
        commit_id("w1", "jsonl", {origin(): [msgspec.structs.replace(result(), job="batches/9")]}),
        commit_id("w1", "jsonl", {origin(): [result("", "job EXPIRED")]}),
        commit_id("w1", "jsonl", {origin(): [result()], origin(batch=BatchId("d", "r", "p", 1)): [result()]}),
    }
    assert len(others | {name}) == 8


def test_the_order_of_batches_does_not_name_another_commit() -> None:
    one, other = origin(), origin(batch=BatchId("dag", "run", "prepare", 1))
    assert commit_id("w", "jsonl", {one: [result()], other: []}) == commit_id(
        "w", "jsonl", {other: [], one: [result()]}
    )


def test_another_owners_window_is_refused_by_name() -> None:
    with pytest.raises(NotOwner, match=r"belongs to other\.load; dag\.load may not replace it"):
        refuse_replacement(manifest(owner=Owner("other", "load")), manifest())


@pytest.mark.parametrize("newer", [origin(generation=2), origin(seal=2)])
def test_a_newer_generation_or_seal_of_the_same_batch_is_not_replaced(newer: Origin) -> None:
    with pytest.raises(NotOwner, match="belongs to generation"):
        refuse_replacement(manifest(origins=(newer,)), manifest())


@pytest.mark.parametrize(
    "standing",
    [None, manifest(), manifest(origins=(origin(generation=7, batch=BatchId("dag", "an earlier run", "prepare")),))],
    ids=["nothing", "the same", "another run of the owner"],
)
def test_the_owner_replaces_from_any_run(standing: CommitManifest | None) -> None:
    refuse_replacement(standing, manifest())


def test_replacing_names_what_goes_and_keeps_what_both_have() -> None:
    standing = manifest(commit="c0", parts=(part("old"), part("both")), replaces=("older",))
    assert replacing(standing, manifest(parts=(part("both"), part("new")))).replaces == ("old", "older")
    assert replacing(None, manifest()).replaces == ()


def test_a_repeated_commit_is_the_same_whoever_tries_and_whenever() -> None:
    later = manifest(committed_at=NOW + timedelta(hours=1), run=RunRef("dag", "run", "load", -1, 2))
    assert same_commit(manifest(), later)
    assert not same_commit(manifest(), manifest(thresholds=Thresholds(0.5)))
    assert not same_commit(manifest(), manifest(verdict=Verdicts.REJECTED))
    assert not same_commit(None, manifest())


def job(hours: float | None) -> JobRef:
    ended = None if hours is None else NOW + timedelta(hours=hours)
    return JobRef(name="j", shard="s", rows=1, state="SUCCEEDED", created_at=NOW, ended_at=ended)


def test_turnaround_is_the_median_and_the_longest() -> None:
    assert turnaround([job(3), job(1), job(None)]) == {"p50": 7200.0, "max": 10800.0}
    assert turnaround([job(1), job(2), job(9)]) == {"p50": 7200.0, "max": 32400.0}
    assert turnaround([job(None)]) == {}


def test_what_travels_with_the_event_is_small_and_plain() -> None:
    extra = asset_extra(manifest(submitted_at=NOW, turnaround_s={"p50": 1.0, "max": 1.0}), "s3://bucket/notes")
    assert extra == {
        "landing": "notes", "window": "w1", "uri": "s3://bucket/notes/window=w1", "commit": "c1", "rows": 1,
        "counts": {"answer": 1}, "verdict": "accepted", "complete": True, "cost_usd": "0.5",
        "turnaround_s": {"p50": 1.0, "max": 1.0}, "submitted_at": "2026-01-02T00:00:00+00:00", "finished_at": None,
        "committed_at": "2026-01-02T00:00:00+00:00",
    }  # fmt: skip


def test_a_place_knows_its_formats() -> None:
    with pytest.raises(Unusable, match="Write parquet or jsonl"):
        Place("notes", "/tmp/notes", "csv")
