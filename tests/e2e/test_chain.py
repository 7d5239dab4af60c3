"""The main story on real processes: windows chain on real completion, whatever dies or is cleared on the way."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from airflow_provider_geminibatch.core.verdict import Verdicts
from tests.routes import DEVELOPER, VERTEX

AN_HOUR_A_SECOND = 3600


@pytest.mark.parametrize(
    "route",
    [pytest.param(DEVELOPER, marks=pytest.mark.e2e), pytest.param(VERTEX, marks=pytest.mark.e2e_more)],
    ids=str,
)
def test_a_killed_triggerer_and_a_cleared_sensor_pay_nothing_twice(chain, route):
    chain = chain(windows=3, route=route)
    chain.wait(lambda: len(chain.in_state("annotate.wait", "deferred")) == 3, "three sensors to wait", 120)
    submitted = chain.asked("batches.create")

    chain.airflow.kill("triggerer")
    chain.airflow.start("triggerer")
    chain.airflow.wait_healthy()
    first, second, third = chain.in_state("annotate.wait", "deferred")

    chain.rest.clear("twelve_hour_chain", chain.runs()[second]["dag_run_id"], ["annotate.wait"])
    chain.wait(lambda: second not in chain.in_state("annotate.wait", "deferred"), "the sensor to be cleared", 30)
    chain.wait(lambda: second in chain.in_state("annotate.wait", "deferred"), "the sensor to wait again", 60)
    assert chain.asked("batches.create") == submitted

    chain.emulator.clock.run(AN_HOUR_A_SECOND)
    chain.wait(lambda: chain.landed(3), "three windows to land", 240)

    chain.assert_one_job_per_shard()
    for landing in ("annotations", "bulletins"):
        commits = chain.commits(landing)
        assert list(commits) == [first, second, third]
        assert all(one.complete and one.verdict is Verdicts.ACCEPTED for one in commits.values())
    assert_each_bulletin_is_built_on_the_one_before(chain)
    assert_downstream_started_on_landings(chain)


def assert_each_bulletin_is_built_on_the_one_before(chain):
    commits, rows = chain.commits("bulletins"), chain.texts("bulletins")
    windows = list(commits)
    for before, window in pairwise(windows):
        [bulletin] = rows[window]
        [bulletin_before] = rows[before]
        assert bulletin["built_on"] == commits[before].commit
        assert bulletin_before["text"][:80] in chain.requests(commits[window])
        assert commits[before].committed_at < commits[window].committed_at


def assert_downstream_started_on_landings(chain):
    chain.wait(
        lambda: len(list((chain.folder / "digests").glob("*.txt"))) == len(chain.commits("bulletins")),
        "the digests",
        60,
    )
    for run in chain.rest.runs("digest"):
        started = datetime.fromisoformat(run["start_date"])
        for event in chain.rest.upstream_events("digest", run["dag_run_id"]):
            landed = chain.commits("bulletins")[event["extra"]["window"]].committed_at
            assert landed < started < landed + timedelta(minutes=1)


@pytest.mark.e2e_more
def test_a_changed_row_is_asked_anew_and_every_later_bulletin_with_it(chain):
    chain = chain(turnaround=(2, 9), AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION="True")
    backfill(chain)
    chain.rest.pause("twelve_hour_chain", False)
    assert_waiting_holds_no_slot(chain, 6)
    chain.emulator.clock.run(AN_HOUR_A_SECOND)
    chain.wait(lambda: chain.landed(14) and chain.backfills_are_done(1), "the week to land", 900)
    chain.assert_one_job_per_shard()
    assert_each_bulletin_is_built_on_the_one_before(chain)
    jobs, before = len(chain.emulator.jobs), chain.commits("bulletins")
    windows = list(before)
    assert len(windows) == 14

    changed = windows[8]
    change_one_row(chain.folder / "dags" / "data" / "earthquakes.csv", changed)
    backfill(chain)
    chain.wait(lambda: chain.landed(14) and chain.backfills_are_done(2), "the week to be reprocessed", 900)

    chain.assert_one_job_per_shard()
    assert len(chain.emulator.jobs) == jobs + 1 + len(windows[8:])
    assert_each_bulletin_is_built_on_the_one_before(chain)
    after = chain.commits("bulletins")
    assert [window for window in windows if after[window].commit != before[window].commit] == windows[8:]
    assert all(one.complete and one.verdict is Verdicts.ACCEPTED for one in after.values())
    assert all(one.committed_at >= before[window].committed_at for window, one in after.items())


def backfill(chain):
    """The whole week, six runs at a time, as a person asks for it."""
    week = ("--from-date", "2018-01-31T00:00:00", "--to-date", "2018-02-06T12:00:00")
    # Airflow refuses a backfill of a Dag with depends_on_past that does not say what becomes of runs that are there.
    how = ("--max-active-runs", "6", "--reprocess-behavior", "completed")
    with chain.quiet_database():
        chain.airflow.airflow("backfill", "create", "--dag-id", "twelve_hour_chain", *week, *how)


def assert_waiting_holds_no_slot(chain, runs):
    """While every active run waits, nothing runs, nothing is queued, and no slot of the pool is taken."""

    def all_wait():
        deferred = len(chain.in_state("annotate.wait", "deferred"))
        pool = chain.rest.pool()
        return deferred == runs and pool["occupied_slots"] == 0 and pool["deferred_slots"] >= runs

    chain.wait(all_wait, f"{runs} sensors to wait without a slot", 240)
    active = {state for state in chain.states().values() if state} & {"running", "queued", "scheduled"}
    assert active == set()


def change_one_row(path, window):
    """Move one event of the window elsewhere."""
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    begin = datetime.strptime(window, "%Y%m%dT%H%M%S%z")
    row = next(row for row in rows if begin <= datetime.fromisoformat(row["time"]) < begin + timedelta(hours=12))
    row["place"] = "10km S of Somewhere Else"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.e2e_more
def test_every_kind_of_run_finds_its_window(chain):
    chain = chain(windows=1, turnaround=(2, 6), extra_dags=("any_window.py",))
    chain.wait(lambda: "any_window" in chain.rest.dag_ids(), "any_window to be read", 30)
    chain.emulator.clock.run(AN_HOUR_A_SECOND)
    dated = chain.rest.trigger("any_window", logical_date=datetime(2018, 2, 5, tzinfo=UTC))
    named = chain.rest.trigger("any_window", conf={"window": "by hand"})
    lost = chain.rest.trigger("any_window")
    chain.wait(lambda: set(ended(chain)) >= {dated, named, lost} and len(ended(chain)) == 4, "all four runs", 240)

    runs = ended(chain)
    [landed] = set(runs) - {dated, named, lost}
    assert runs == {dated: "success", named: "success", landed: "success", lost: "failed"}
    [first] = chain.commits("bulletins")
    assert {window: one.run.run_id for window, one in chain.commits("notes").items()} == {
        "20180205T000000Z": dated,
        "by hand": named,
        first: landed,
    }
    logs = "".join(path.read_text() for path in chain.airflow.task_logs().glob(f"*/run_id={lost}/task_id=load/*.log"))
    assert "No window: this run has no partition key, no data interval and no logical date" in logs
    assert chain.states("any_window")[lost, "load"] == "failed"


def ended(chain):
    """The ended runs of any_window and how they ended."""
    runs = chain.rest.runs("any_window")
    return {run["dag_run_id"]: run["state"] for run in runs if run["state"] in ("success", "failed")}
