"""The window sensor and its trigger: what passes, what waits, what fails, in every mode of waiting."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import msgspec
import pendulum
import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
)
from airflow.sdk.execution_time import task_runner

from airflow_provider_geminibatch import GeminiBatchLoadOperator, GeminiBatchWindowSensor, Landing
from airflow_provider_geminibatch.core.errors import StoreUnreadable, Unusable
from airflow_provider_geminibatch.core.landing import Acceptance, CommitManifest, RunRef
from airflow_provider_geminibatch.core.model import Owner, Usage
from airflow_provider_geminibatch.core.reconcile import LineCounts
from airflow_provider_geminibatch.core.verdict import Thresholds, Verdicts
from airflow_provider_geminibatch.hooks import chain
from airflow_provider_geminibatch.jobs.wait import utc_now
from airflow_provider_geminibatch.storage import landings
from airflow_provider_geminibatch.storage.stores import LocalStore
from airflow_provider_geminibatch.triggers.window import GeminiBatchWindowTrigger
from tests.airflow.faces import context, interval

pytestmark = pytest.mark.airflow

MIDNIGHT, NOON = datetime(2018, 1, 31, tzinfo=UTC), datetime(2018, 1, 31, 12, tzinfo=UTC)
BEFORE = "20180131T000000Z"
HALF_A_DAY = pendulum.duration(hours=12)


class FakeAirflow:
    """What Airflow knows: task states by Dag and run, the logical date of each run, and the state of the run itself."""

    def __init__(self):
        self.states = defaultdict(dict)
        self.dates = {}
        self.runs = {}
        self.asked = 0

    def run(self, run_id, state, *, at=MIDNIGHT, dag_id="dag", task_id="load", run_state="running"):
        self.states[dag_id][run_id] = {task_id: state}
        self.dates[run_id], self.runs[run_id] = at, run_state

    def get_task_states(self, dag_id, task_ids, logical_dates=None, run_ids=None, map_index=None):
        self.asked += 1
        return {
            run_id: {name: state for name, state in states.items() if name in task_ids}
            for run_id, states in self.states[dag_id].items()
            if (logical_dates is None or self.dates[run_id] in logical_dates) and (run_ids is None or run_id in run_ids)
        }

    def get_dagrun_state(self, dag_id, run_id):
        return self.runs[run_id]


@pytest.fixture
def airflow(monkeypatch):
    fake = FakeAirflow()
    monkeypatch.setattr(task_runner, "RuntimeTaskInstance", fake)
    return fake


@pytest.fixture
def bulletins(tmp_path):
    return Landing("bulletins", str(tmp_path / "bulletins"))


def land(
    landing, window=BEFORE, *, run_id="run1", dag_id="dag", task_id="load", accepted_by=None, rejected=False, part=""
):
    """Commit an empty window by hand."""
    manifest = CommitManifest(
        landing=landing.name, window=window, part=part, commit=f"c-{run_id}", format="parquet", parts=(), rows=1,
        counts={"answer": 1}, lines=LineCounts(), complete=True,
        verdict=Verdicts.REJECTED if rejected else Verdicts.ACCEPTED, numbers="0 of 1 answered" if rejected else "",
        thresholds=Thresholds(), owner=Owner(dag_id, task_id), run=RunRef(dag_id, run_id, task_id), origins=(), jobs=(),
        models=(), tokens=Usage(), cost_usd="0", committed_at=datetime.now(UTC),
        acceptance=Acceptance(accepted_by, "looked fine", datetime.now(UTC)) if accepted_by else None,
    )  # fmt: skip
    landings.commit(LocalStore(landing.uri), manifest)


def sensor(landing, **more):
    return GeminiBatchWindowSensor(task_id="previous", landing=landing, window_offset=-HALF_A_DAY, **more)


def run_of(landing, **more):
    """The run of the window after, in a Dag whose task ``load`` lands there."""
    tasks = [GeminiBatchLoadOperator(task_id="load", submitted="x", to=landing), SimpleNamespace(task_id="other")]
    return context("previous", run_id="run2", tasks=tasks, **interval(NOON, NOON + timedelta(hours=12)), **more)


def deferred(operator, run):
    with pytest.raises(TaskDeferred) as caught:
        operator.execute(run)
    assert caught.value.method_name == "resume"
    return caught.value


def events(trigger):
    async def all_of_them():
        return [event.payload async for event in trigger.run()]

    return asyncio.run(asyncio.wait_for(all_of_them(), 20))


def test_an_accepted_window_passes_at_once_and_names_its_commit(airflow, bulletins):
    airflow.run("run1", "success")
    land(bulletins)
    assert sensor(bulletins).execute(run_of(bulletins)) == {
        "window": BEFORE, "landing": "bulletins", "commit": "c-run1"
    }  # fmt: skip


def test_before_the_first_window_nothing_is_asked(airflow, bulletins):
    for first in (NOON, "2018-01-31T12:00:00+00:00", pendulum.instance(NOON)):
        found = sensor(bulletins, first_window=first).execute(run_of(bulletins))
        assert found == {"window": BEFORE, "landing": "bulletins", "before_first": True}
    assert airflow.asked == 0
    deferred(sensor(bulletins, first_window=MIDNIGHT), run_of(bulletins))


def test_an_owner_at_work_is_waited_for_although_an_older_commit_lies_there(airflow, bulletins):
    land(bulletins)
    airflow.run("run1", "deferred")
    trigger = deferred(sensor(bulletins), run_of(bulletins)).trigger
    path, arguments = trigger.serialize()
    assert path == "airflow_provider_geminibatch.triggers.window.GeminiBatchWindowTrigger"
    assert (arguments["dag_id"], arguments["task_ids"], arguments["window"]) == ("dag", ["load"], BEFORE)
    assert json.dumps(arguments)
    assert GeminiBatchWindowTrigger(**arguments).serialize() == (path, arguments)


def test_a_cleared_task_that_has_not_started_is_at_work_too(airflow, bulletins):
    land(bulletins)
    airflow.run("run1", None, run_state="queued")
    deferred(sensor(bulletins), run_of(bulletins))


@pytest.mark.parametrize("state", ["failed", "upstream_failed"])
def test_a_failed_owner_fails_the_sensor_and_its_run_is_named(airflow, bulletins, state):
    airflow.run("run1", state)
    with pytest.raises(AirflowFailException, match=r"20180131T000000Z has not landed: dag\.load failed in run1"):
        sensor(bulletins).execute(run_of(bulletins))


def test_a_failed_owner_fails_the_sensor_also_when_its_older_commit_lies_there(airflow, bulletins):
    land(bulletins)
    airflow.run("run1", "failed")
    with pytest.raises(AirflowFailException, match="out of date"):
        sensor(bulletins).execute(run_of(bulletins))


def test_a_window_that_a_person_accepted_passes_although_its_task_failed(airflow, bulletins):
    land(bulletins, accepted_by="ada")
    airflow.run("run1", "failed")
    assert sensor(bulletins).execute(run_of(bulletins))["commit"] == "c-run1"


def test_a_rejected_window_is_named_with_its_numbers(airflow, bulletins):
    land(bulletins, rejected=True)
    airflow.run("run1", "failed")
    with pytest.raises(AirflowFailException, match=r"its answers were rejected \(0 of 1 answered\)"):
        sensor(bulletins).execute(run_of(bulletins))


def test_a_gap_is_skipped_or_passed_over_as_chosen(airflow, bulletins):
    airflow.run("run1", "failed")
    with pytest.raises(AirflowSkipException, match="failed in run1"):
        sensor(bulletins, on_missing="skip").execute(run_of(bulletins))
    found = sensor(bulletins, on_missing="proceed").execute(run_of(bulletins))
    assert found == {"window": BEFORE, "landing": "bulletins", "missing": "dag.load failed in run1"}


def test_a_window_without_a_run_may_still_come_and_is_waited_for(airflow, bulletins):
    arguments = deferred(sensor(bulletins), run_of(bulletins)).trigger.serialize()[1]
    assert arguments["missing_at"] is None


def test_in_the_own_dag_a_gap_that_was_allowed_needs_no_waiting_since_runs_come_in_order(airflow, bulletins):
    found = sensor(bulletins, on_missing="proceed").execute(run_of(bulletins))
    assert found["missing"] == "there is no run of dag.load for it"
    with pytest.raises(AirflowSkipException):
        sensor(bulletins, on_missing="skip").execute(run_of(bulletins))


def test_another_dags_run_may_come_late_and_is_given_time(airflow, bulletins):
    operator = sensor(bulletins, on_missing="proceed", landed_by="weather.load", missing_after=timedelta(hours=1))
    run = run_of(bulletins)
    run["dag_run"].start_date = utc_now()
    arguments = deferred(operator, run).trigger.serialize()[1]
    assert (arguments["dag_id"], arguments["task_ids"]) == ("weather", ["load"])
    assert arguments["missing_at"] == (run["dag_run"].start_date + timedelta(hours=1)).isoformat()
    run["dag_run"].start_date = utc_now() - timedelta(hours=2)
    assert "no run of weather.load" in operator.execute(run)["missing"]
    without_time = sensor(bulletins, on_missing="proceed", landed_by="weather.load")
    assert deferred(without_time, run).trigger.serialize()[1]["missing_at"] is None


def test_missing_after_lets_a_sensor_that_fails_do_so_early(airflow, bulletins):
    run = run_of(bulletins)
    run["dag_run"].start_date = utc_now() - timedelta(hours=2)
    with pytest.raises(AirflowFailException, match="there is no run"):
        sensor(bulletins, missing_after=timedelta(hours=1)).execute(run)


@pytest.mark.parametrize("owner", ["weather.group.load", ("weather", "group.load")])
def test_the_owner_may_be_named_on_the_sensor_or_on_the_landing(airflow, tmp_path, owner):
    for landing, more in (
        (Landing("b", str(tmp_path)), {"landed_by": owner}),
        (Landing("b", str(tmp_path), owner="weather.group.load"), {}),
    ):
        arguments = deferred(sensor(landing, **more), run_of(landing)).trigger.serialize()[1]
        assert (arguments["dag_id"], arguments["task_ids"]) == ("weather", ["group.load"])


def test_an_owner_that_names_no_task_is_refused(airflow, bulletins):
    with pytest.raises(AirflowFailException, match=r"Write 'dag_id\.task_id'"):
        sensor(bulletins, landed_by="load").execute(run_of(bulletins))


def test_in_a_dag_that_lands_nothing_there_the_commit_says_who_owns_it(airflow, bulletins):
    land(bulletins, dag_id="weather")
    airflow.run("run1", "running", dag_id="weather")
    run = context("previous", **interval(NOON, NOON + timedelta(hours=12)))
    deferred(sensor(bulletins), run)
    airflow.run("run1", "success", dag_id="weather")
    assert sensor(bulletins).execute(run)["commit"] == "c-run1"


def test_a_window_landed_by_a_run_by_hand_passes_although_its_scheduled_run_failed(airflow, bulletins):
    airflow.run("run1", "failed")
    airflow.run("by-hand", "success", at=NOON)
    land(bulletins, run_id="by-hand")
    assert sensor(bulletins).execute(run_of(bulletins))["commit"] == "c-by-hand"


def test_a_window_whose_dag_run_was_deleted_stays_landed(airflow, bulletins):
    land(bulletins)
    assert sensor(bulletins).execute(run_of(bulletins))["commit"] == "c-run1"


def test_a_window_that_is_no_time_is_found_by_its_commit(airflow, bulletins):
    land(bulletins, "eu/west")
    operator = GeminiBatchWindowSensor(task_id="previous", landing=bulletins, window="eu/west")
    assert operator.execute(context("previous"))["window"] == "eu/west"


def test_a_mapped_owner_is_found_by_its_landing(airflow, bulletins):
    mapped = SimpleNamespace(task_id="load", partial_kwargs={"to": bulletins})
    run = context("previous", tasks=[mapped], **interval(NOON, NOON + timedelta(hours=12)))
    assert deferred(sensor(bulletins), run).trigger.serialize()[1]["task_ids"] == ["load"]


def test_a_load_that_lands_other_windows_than_its_runs_is_known_by_its_commits_only(airflow, bulletins):
    load = GeminiBatchLoadOperator(task_id="load", submitted="x", to=bulletins, window_offset=HALF_A_DAY)
    run = context("previous", tasks=[load], **interval(NOON, NOON + timedelta(hours=12)))
    airflow.run("run1", "failed")
    deferred(sensor(bulletins), run)
    deferred(sensor(bulletins, on_missing="proceed"), run)
    airflow.run("run0", "success", at=MIDNIGHT - timedelta(hours=12))
    land(bulletins, run_id="run0")
    assert sensor(bulletins).execute(run)["commit"] == "c-run0"


def test_a_choice_that_does_not_exist_is_refused_while_the_dag_is_parsed(bulletins):
    with pytest.raises(Unusable, match="fail, skip, proceed"):
        sensor(bulletins, on_missing="ignore")


# How it waits


def test_the_trigger_sends_one_event_when_the_window_has_landed_and_ends(airflow, bulletins):
    airflow.run("run1", "running")
    operator, run = sensor(bulletins, poll_interval=timedelta(0)), run_of(bulletins)
    trigger = deferred(operator, run).trigger
    airflow.run("run1", "success")
    land(bulletins)
    [event] = events(trigger)
    assert operator.resume(run, event)["commit"] == "c-run1"


def test_a_resume_looks_again_and_waits_on_when_the_owner_was_cleared_meanwhile(airflow, bulletins):
    airflow.run("run1", "running")
    operator, run = sensor(bulletins, poll_interval=timedelta(0)), run_of(bulletins)
    first = deferred(operator, run)
    airflow.run("run1", "failed")
    [event] = events(first.trigger)
    airflow.run("run1", None)
    with pytest.raises(TaskDeferred) as again:
        operator.resume(run, event)
    assert again.value.trigger.serialize()[1]["deadline"] == first.trigger.serialize()[1]["deadline"]


def test_the_sensors_timeout_ends_the_wait_with_a_sentence_before_airflow_would(airflow, bulletins):
    airflow.run("run1", "running")
    operator, run = sensor(bulletins, timeout=0.2, poll_interval=timedelta(0)), run_of(bulletins)
    waiting = deferred(operator, run)
    assert waiting.timeout > timedelta(minutes=5)
    [event] = events(waiting.trigger)
    assert event["ready"] is False
    with pytest.raises(AirflowSensorTimeout, match=r"dag\.load is at work on it in run1"):
        operator.resume(run, event)


def test_no_event_comes_before_airflow_can_take_it(airflow, bulletins, monkeypatch):
    monkeypatch.setenv("AIRFLOW__GEMINIBATCH__FIRST_EVENT_AFTER", "0.3")
    airflow.run("run1", "running")
    trigger = deferred(sensor(bulletins), run_of(bulletins)).trigger
    airflow.run("run1", "success")
    land(bulletins)
    trigger.trigger_id = 1
    began = utc_now()
    events(trigger)
    assert utc_now() - began >= timedelta(seconds=0.3)


def test_inside_dag_test_nothing_races_and_nothing_waits(airflow, bulletins, monkeypatch):
    monkeypatch.setenv("AIRFLOW__GEMINIBATCH__FIRST_EVENT_AFTER", "600")
    airflow.run("run1", "running")
    trigger = deferred(sensor(bulletins), run_of(bulletins)).trigger
    airflow.run("run1", "failed")
    [event] = events(trigger)
    assert "failed in run1" in event["why"]


def test_a_look_that_fails_is_tried_again(airflow, bulletins, monkeypatch):
    airflow.run("run1", "running")
    trigger = deferred(sensor(bulletins, poll_interval=timedelta(0)), run_of(bulletins)).trigger
    airflow.run("run1", "success")
    land(bulletins)
    broken, read = [1, 1], chain.open_landing

    def sometimes(uri):
        if broken:
            broken.pop()
            raise StoreUnreadable(uri, "the network is down")
        return read(uri)

    monkeypatch.setattr(chain, "open_landing", sometimes)
    [event] = events(trigger)
    assert event["ready"]


def test_a_trigger_that_is_stopped_sends_nothing_and_changes_nothing(airflow, bulletins):
    airflow.run("run1", "running")
    trigger = deferred(sensor(bulletins, poll_interval=timedelta(hours=1)), run_of(bulletins)).trigger

    async def stopped():
        task = asyncio.create_task(anext(trigger.run()))
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return task.cancelled()

    assert asyncio.run(stopped())


@pytest.mark.parametrize("mode", ["poke", "reschedule"])
def test_without_a_triggerer_it_is_an_ordinary_sensor(airflow, bulletins, mode):
    run = run_of(bulletins)
    run["ti"].get_first_reschedule_date = lambda _: None
    operator = sensor(bulletins, deferrable=False, mode=mode, poke_interval=0)
    airflow.run("run1", "running")
    assert not operator.poke(run)
    airflow.run("run1", "success")
    land(bulletins)
    assert operator.execute(run)["commit"] == "c-run1"


def test_poking_keeps_the_timeout_of_a_sensor(airflow, bulletins):
    airflow.run("run1", "running")
    operator = sensor(bulletins, deferrable=False, poke_interval=0.05, timeout=0.05)
    with pytest.raises(AirflowSensorTimeout):
        operator.execute(run_of(bulletins))


@pytest.mark.parametrize("deferrable", [True, False])
def test_soft_fail_skips_where_it_would_have_failed(airflow, bulletins, deferrable):
    airflow.run("run1", "failed")
    with pytest.raises(AirflowSkipException):
        sensor(bulletins, soft_fail=True, deferrable=deferrable).execute(run_of(bulletins))


def test_soft_fail_does_not_hide_a_store_that_cannot_be_read(airflow, bulletins, monkeypatch):
    def broken(uri):
        raise StoreUnreadable(uri, "the network is down")

    monkeypatch.setattr(chain, "open_landing", broken)
    with pytest.raises(AirflowException, match="the network is down") as caught:
        sensor(bulletins, soft_fail=True).execute(run_of(bulletins))
    assert not isinstance(caught.value, AirflowSkipException)
    with pytest.raises(AirflowSkipException):
        sensor(bulletins, never_fail=True).execute(run_of(bulletins))


def test_what_lies_in_the_trigger_are_names_and_times(bulletins):
    assert {field.name for field in msgspec.structs.fields(chain.Awaited)} == {
        "landing", "uri", "window", "dag_id", "task_ids", "by_date", "parts"
    }  # fmt: skip


@pytest.fixture
def halves(tmp_path):
    return Landing("halves", str(tmp_path / "halves"), parts=("eu", "us"))


def run_of_halves(landing):
    tasks = [
        GeminiBatchLoadOperator(task_id=f"load_{part}", submitted="x", to=landing, part=part) for part in landing.parts
    ]
    return context("previous", run_id="run2", tasks=tasks, **interval(NOON, NOON + timedelta(hours=12)))


def test_a_window_in_parts_passes_when_all_of_them_have_landed(airflow, halves):
    airflow.run("run1", "success", task_id="load_eu")
    airflow.states["dag"]["run1"] = {"load_eu": "success", "load_us": "running"}
    land(halves, part="eu", task_id="load_eu")
    trigger = deferred(sensor(halves), run_of_halves(halves)).trigger
    assert trigger.parts == {"eu": ["load_eu"], "us": ["load_us"]}

    airflow.states["dag"]["run1"]["load_us"] = "success"
    land(halves, part="us", task_id="load_us")
    assert sensor(halves).execute(run_of_halves(halves))["window"] == BEFORE
    [event] = events(GeminiBatchWindowTrigger(**trigger.serialize()[1] | {"first_event_after": 0.0}))
    assert event["ready"]


def test_a_part_whose_task_failed_is_named_and_the_other_part_is_not_blamed(airflow, halves):
    airflow.run("run1", "success")
    airflow.states["dag"]["run1"] = {"load_eu": "success", "load_us": "failed"}
    land(halves, part="eu", task_id="load_eu")
    with pytest.raises(AirflowException, match=r"part us: dag\.load_us failed in run1") as caught:
        sensor(halves).execute(run_of_halves(halves))
    assert "part eu" not in str(caught.value)


def test_parts_that_nobody_is_known_to_land_are_told_by_their_commits(airflow, halves):
    airflow.run("other1", "success", dag_id="eu_dag", at=MIDNIGHT)
    airflow.run("other2", "success", dag_id="us_dag", at=MIDNIGHT)
    nobody = context("previous", run_id="run2", tasks=[], **interval(NOON, NOON + timedelta(hours=12)))
    land(halves, part="eu", dag_id="eu_dag", run_id="other1")
    deferred(sensor(halves), nobody)
    land(halves, part="us", dag_id="us_dag", run_id="other2")
    assert sensor(halves).execute(nobody)["commit"]


def test_a_window_landed_whole_before_there_were_parts_passes(airflow, halves):
    airflow.run("run1", "success", task_id="load_eu")
    land(halves, task_id="load_eu")
    assert sensor(halves).execute(run_of_halves(halves))["commit"] == "c-run1"
