"""The report of a commit: its numbers are those of the rows, the manifest and the bill, and it comes and goes with its commit."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from airflow_provider_geminibatch.core.batch import BatchPolicy, Rung
from airflow_provider_geminibatch.core.canary import Canary
from airflow_provider_geminibatch.core.landing import CommitManifest, Place
from airflow_provider_geminibatch.core.report import Report, table
from airflow_provider_geminibatch.jobs import collect as collecting
from airflow_provider_geminibatch.jobs.collect import Landed
from airflow_provider_geminibatch.jobs.report import decoded, report_path
from airflow_provider_geminibatch.storage.landings import FileLanding
from tests.jobs import test_collect, test_reuse, test_whole
from tests.jobs.test_collect import BLOCKED, LOG, WINDOW, World, accepted_by_hand, answering
from tests.jobs.test_whole import ALL, EMPTY, at_first

Any_World = World | test_whole.World | test_reuse.World


def report_of(world: Any_World, manifest: CommitManifest) -> Report:
    """The report beside the data, which is the one in the ledger."""
    beside = FileLanding(world.landing).report(manifest)
    assert beside is not None
    for origin in manifest.origins:
        assert beside == world.store.read(report_path(origin.path, manifest.commit))
    return decoded(beside, "report")


def holds(world: Any_World, landed: Landed) -> Report:
    """The laws of a report."""
    report, manifest = report_of(world, landed.manifest), landed.manifest
    rows = list(FileLanding(world.landing).rows(WINDOW, any_verdict=True))
    assert report.rows == manifest.rows == len(rows)
    told = {name: kind.rows for name, kind in report.outcomes.items()}
    assert told == Counter(row["outcome"] for row in rows) == {kind: n for kind, n in manifest.counts.items() if n}
    for name, kind in report.outcomes.items():
        assert sum(kind.reasons.values()) == (0 if name == "answer" else kind.rows)
        assert Decimal(kind.cost_usd or "nan") == sum(row["cost_usd"] for row in rows if row["outcome"] == name)
    assert sum(report.rounds.values()) == report.rows
    assert (report.tokens, report.cost_usd, report.lines) == (manifest.tokens, manifest.cost_usd, manifest.lines)
    assert sum(Decimal(cost.cost_usd or "nan") for cost in report.costs) == Decimal(manifest.cost_usd or "nan")
    assert sum(cost.tokens.prompt for cost in report.costs) == manifest.tokens.prompt
    assert [job.job for job in report.jobs] == [job.name for job in manifest.jobs]
    return report


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_the_numbers_are_those_of_the_rows_and_of_the_manifest(form: str, caplog: pytest.LogCaptureFixture) -> None:
    world = World(shards=2, rows=4, answer=answering(row_1=BLOCKED, row_6=EMPTY))
    caplog.set_level("INFO", LOG.name)
    place = Place("notes", "memory://landing", form)
    with pytest.raises(collecting.Rejected):
        world.load(landing=place)
    landed = world.load(landing=place, thresholds=ALL)
    report = holds(world, landed)
    assert report.outcomes["blocked"].reasons == {"prompt blocked: SAFETY": 1}
    assert report.outcomes["blocked"].first == ("k1",)
    assert report.outcomes["empty"].first == ("k6",)
    assert {job.seconds for job in report.jobs} == {10800.0}
    assert "notes window 20260101T000000Z: 8 rows, commit" in caplog.text
    assert "row 1" not in caplog.text


def test_what_each_way_of_asking_took_adds_up() -> None:
    world = test_whole.World(rows=6, answer=at_first(EMPTY, "row 2"))
    policy = BatchPolicy(canary=Canary(rows=2, max_unusable=0.9), thresholds=ALL)
    report = holds(world, world.on(policy))
    assert [(cost.source, cost.route) for cost in report.costs] == [
        ("first", "batch"), ("canary", "row by row"), ("round 1", "batch"),
    ]  # fmt: skip
    assert set(report.rounds) >= {"first", "canary"}


def test_a_rung_is_told_by_its_number_and_route() -> None:
    world = test_whole.World(turnaround=timedelta(hours=100))
    policy = BatchPolicy(deadline=timedelta(hours=5), ladder=(Rung("flex"),), max_rounds=0, thresholds=ALL)
    report = holds(world, world.on(policy))
    assert [(cost.source, cost.route) for cost in report.costs] == [("first", "batch"), ("rung 1", "flex")]
    assert report.rounds == {"rung-01": 3}


def test_rungs_that_ask_by_a_build_are_told_by_their_numbers_too() -> None:
    world = test_whole.World(rows=4, turnaround=timedelta(days=9))
    world.elsewhere._answer = at_first(EMPTY, "row 1", "row 2", times=1)
    again = Rung("resubmit", limit=timedelta(hours=2), conn_id="other")
    policy = BatchPolicy(deadline=timedelta(hours=5), ladder=(again, again), max_rounds=0, thresholds=ALL)
    report = holds(world, world.on(policy))
    assert [(cost.source, cost.route, cost.asked) for cost in report.costs] == [
        ("first", "batch", 4), ("rung 1", "batch", 4), ("rung 2", "batch", 2),
    ]  # fmt: skip
    assert report.rounds == {"rung-01": 2, "rung-02": 2}


def test_a_crash_between_the_commit_and_its_report_is_made_good_by_the_next_try(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = World(rows=4, answer=answering(row_1=BLOCKED))
    wanted = holds(whole, whole.load(thresholds=ALL))
    world = World(rows=4, answer=answering(row_1=BLOCKED))

    def crash(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(collecting, "note_report", crash)
        with pytest.raises(KeyboardInterrupt):
            world.load(thresholds=ALL)
    landed = world.load(thresholds=ALL, me="l2")
    assert holds(world, landed) == wanted


def test_a_report_goes_with_the_commit_that_is_replaced() -> None:
    world = World(rows=4, answer=answering(row_1=BLOCKED))
    first = world.load(thresholds=ALL)
    second = world.load(thresholds=ALL, landing=Place("notes", "memory://landing", "parquet"))
    reports = [path for path in world.landing.list("") if "_report" in path]
    assert reports == [f"window={WINDOW}/_report-{second.manifest.commit}.json"]
    assert first.manifest.commit != second.manifest.commit


def test_a_report_stays_as_it_is_when_nothing_changes() -> None:
    world = World(rows=4)
    before = report_of(world, world.load().manifest)
    world.clock.advance(timedelta(days=1))
    assert report_of(world, world.load(me="l2").manifest) == before


def test_a_report_moves_with_a_window_that_a_person_accepts() -> None:
    world = World(rows=4, answer=answering(row_0=BLOCKED))
    accepted_by_hand(world)
    manifest = FileLanding(world.landing).manifest(WINDOW)
    assert manifest is not None
    assert report_of(world, manifest).outcomes["blocked"].rows == 1
    assert list(world.landing.list("_rejected")) == []
    assert holds(world, world.load(me="l2")).rows == 4


def test_early_reports_go_when_the_window_is_whole() -> None:
    world = test_whole.World(shards=2, answer=at_first(EMPTY, "row 2"))
    landed = world.on(BatchPolicy(early=0.1, thresholds=ALL))
    holds(world, landed)
    assert len([path for path in world.landing.list("") if "_report" in path]) == 1


def test_an_unknown_price_is_unknown_in_the_report_too() -> None:
    world = test_collect.World(submitted=False)
    world.service = test_collect.InMemoryGateway(world.clock, models=("gemini-9-flash",))
    batch = test_collect.BatchId("dag", "run 9", "prepare")
    world.manifest = test_collect.seal(world.store, model="gemini-9-flash", batch=batch)
    world.submit(world.manifest)
    world.clock.advance(timedelta(hours=4))
    report = report_of(world, world.load().manifest)
    assert (report.cost_usd, report.costs[0].cost_usd, report.outcomes["answer"].cost_usd) == (None, None, None)


def test_a_report_holds_no_answer_and_no_request() -> None:
    world = World(rows=4, answer=answering(row_1=BLOCKED))
    data: Any = msgspec.json.encode(report_of(world, world.load(thresholds=ALL).manifest))
    assert b"row " not in data


def test_of_several_batches_each_has_its_own_costs_and_the_report_in_its_ledger() -> None:
    world = World(rows=4)
    other = test_collect.seal(world.store, rows=2, batch=test_collect.BatchId("dag", "run", "another"))
    world.submit(other)
    world.clock.advance(timedelta(hours=4))
    report = holds(world, world.load(world.manifest, other))
    assert sorted((batch.batch.split("/")[3], batch.rows, batch.costs[0].asked) for batch in report.batches) == [
        ("another", 2, 2), ("prepare", 4, 4),
    ]  # fmt: skip
    assert [cost.asked for cost in report.costs] == [6]


def test_what_was_answered_before_is_told_apart_and_costs_nothing() -> None:
    world = test_reuse.World()
    first = world.run("one", rows=3)
    landed = world.run("two", rows=5)
    report = report_of(world, landed.manifest)
    assert [(cost.source, cost.route, cost.asked) for cost in report.costs] == [
        ("first", "batch", 2),
        ("reused", "none", 3),
    ]
    assert [cost.cost_usd for cost in report.costs] == [landed.manifest.cost_usd, "0"]
    assert (report.reused_rows, report.reused_usd) == (3, first.manifest.cost_usd)
    assert report.rounds == {"first": 2, "reused": 3}
    assert "3 rows had been answered before, for 0.0000135 USD" in table(report)
