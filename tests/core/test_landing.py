"""The layout of a landing, the names of commits, and who may replace a window."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from airflow_provider_geminibatch.core.errors import NotOwner, Unusable
from airflow_provider_geminibatch.core.landing import (
    Acceptance,
    CommitManifest,
    JobRef,
    Origin,
    Part,
    Place,
    RunRef,
    ShardResult,
    WindowView,
    as_accepted_before,
    asset_extra,
    commit_id,
    part_name,
    refuse_mixture,
    refuse_replacement,
    replacing,
    same_commit,
    turnaround,
    window_extra,
    window_folder,
)
from airflow_provider_geminibatch.core.model import BatchId, Owner, Usage
from airflow_provider_geminibatch.core.reconcile import LineCounts
from airflow_provider_geminibatch.core.verdict import Thresholds, Verdicts

NOW = datetime(2026, 1, 2, tzinfo=UTC)
BATCH = BatchId("dag", "run", "prepare")
OWNER = Owner("dag", "load")
HOUR = timedelta(hours=1)


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
    assert replacing(standing, manifest(parts=(part("both"), part("new")))).replaces == (
        "old",
        "_report-c0.json",
        "older",
    )
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


def test_a_landing_in_parts_knows_its_parts() -> None:
    whole, parted = Place("notes", "/n"), Place("notes", "/n", parts=("eu", "us"))
    assert (whole.own_part(None), parted.own_part("us")) == ("", "us")
    for place, given in ((whole, "eu"), (parted, None), (parted, "asia")):
        with pytest.raises(Unusable, match="part="):
            place.own_part(given)
    with pytest.raises(Unusable, match="stands twice"):
        Place("notes", "/n", parts=("eu", "eu"))
    with pytest.raises(Unusable, match="format='parquet'"):
        Place("notes", "sql://c@/t")


def test_a_part_lies_in_a_folder_of_its_own_whatever_its_name() -> None:
    assert window_folder("w1", part="eu") == "window=w1/part=eu"
    assert window_folder("w1", part="../x", early=True) == "_early/window=w1/part=%2E.%2Fx"
    assert manifest(part="eu").folder == "window=w1/part=eu"


def test_a_part_and_a_whole_window_of_the_same_answers_are_two_commits() -> None:
    sealed = {origin(): (ShardResult(shard="s", attempt=1),)}
    ids = [commit_id("w1", "jsonl", sealed, part=name) for name in ("", "eu", "us")]
    assert len(set(ids)) == 3
    assert ids[0] == commit_id("w1", "jsonl", sealed)


def test_a_window_in_parts_is_there_when_all_declared_parts_are_and_pass() -> None:
    eu, us = manifest(part="eu", commit="c1"), manifest(part="us", commit="c2")
    assert WindowView(("eu", "us"), (eu, us)).passes
    assert not WindowView(("eu", "us"), (eu,)).passes
    assert WindowView(("eu", "us"), (eu,)).absent == ("us",)
    assert not WindowView(("eu", "us"), (eu, manifest(part="us", complete=False))).passes
    assert not WindowView((), ()).passes
    assert WindowView((), (manifest(),)).commit == "c1"
    assert WindowView(("eu", "us"), (eu, us)).commit != WindowView(("eu", "us"), (eu, manifest(part="us"))).commit


def test_the_event_of_a_window_in_parts_tells_of_all_of_them() -> None:
    eu = manifest(part="eu", commit="c1", turnaround_s={"p50": 1.0, "max": 9.0}, submitted_at=NOW)
    us = manifest(
        part="us", commit="c2", cost_usd="0.25", rows=2, counts={"answer": 1, "failed": 1}, submitted_at=NOW - HOUR,
        finished_at=NOW, committed_at=NOW + HOUR,
    )  # fmt: skip
    extra = window_extra(WindowView(("eu", "us"), (eu, us)), "/n/")
    assert {name: extra[name] for name in ("uri", "parts", "rows", "counts", "cost_usd", "complete", "verdict")} == {
        "uri": "/n/window=w1", "parts": {"eu": "c1", "us": "c2"}, "rows": 3, "counts": {"answer": 2, "failed": 1},
        "cost_usd": "0.75", "complete": True, "verdict": "accepted",
    }  # fmt: skip
    assert extra["turnaround_s"] == {"max": 9.0}
    assert (extra["submitted_at"], extra["finished_at"]) == ("2026-01-01T23:00:00+00:00", "2026-01-02T00:00:00+00:00")
    assert extra["committed_at"] == "2026-01-02T01:00:00+00:00"
    unknown = window_extra(WindowView(("eu", "us"), (eu, manifest(part="us", cost_usd=None))), "/n")
    assert unknown["cost_usd"] is None
    assert window_extra(WindowView((), (manifest(),)), "/n") == asset_extra(manifest(), "/n")
    assert asset_extra(manifest(), "sql://db@/notes")["uri"] == "sql://db@/notes"


def test_parts_and_a_whole_window_do_not_come_together() -> None:
    refuse_mixture(None, (), manifest())
    refuse_mixture(None, ("us",), manifest(part="eu"))
    with pytest.raises(NotOwner, match="landed it whole"):
        refuse_mixture(manifest(), (), manifest(part="eu"))
    with pytest.raises(NotOwner, match="eu, us"):
        refuse_mixture(None, ("us", "eu"), manifest())


def test_what_a_person_accepted_stays_accepted_for_as_long_as_it_is_these_answers() -> None:
    word = Acceptance("ada", "good enough", NOW)
    standing = manifest(acceptance=word)
    again = manifest(verdict=Verdicts.REJECTED, commit="in another format", price_as_of="2027-01-01")
    heeded = as_accepted_before(standing, again)
    assert heeded.passes
    assert heeded.acceptance == word
    assert heeded.commit == again.commit


@pytest.mark.parametrize(
    "changes",
    [
        {"origins": (origin(seal=2),)},
        {"origins": (origin(generation=2),)},
        {"counts": {"answer": 1, "blocked": 1}},
        {"owner": Owner("another", "load")},
        {"complete": False, "verdict": Verdicts.PARTIAL_BY_POLICY},
    ],
    ids=["other results", "another generation", "other outcomes", "another owner", "early"],
)
def test_a_persons_word_is_not_taken_for_other_answers(changes: dict[str, Any]) -> None:
    mine = manifest(verdict=Verdicts.REJECTED)
    mine = msgspec.structs.replace(mine, **changes)
    assert as_accepted_before(manifest(acceptance=Acceptance("ada", "good enough", NOW)), mine) == mine


@pytest.mark.parametrize("standing", [None, "by itself"])
def test_without_a_persons_word_the_thresholds_decide(standing: str | None) -> None:
    mine = manifest(verdict=Verdicts.REJECTED)
    assert as_accepted_before(manifest() if standing else None, mine) == mine
