"""The whole story in one task, by repeated deferral, against the emulator."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, TaskDeferred

from airflow_provider_geminibatch import GeminiBatchOperator, Landing, RequestTemplate, Rung, read_window
from airflow_provider_geminibatch.cli.main import main
from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.core.manifest import Manifest
from airflow_provider_geminibatch.emulator import Emulator, Server, running
from airflow_provider_geminibatch.hooks import kill, outlook
from airflow_provider_geminibatch.jobs.wait import pause_until
from airflow_provider_geminibatch.operators import batch as batch_module
from tests.airflow.conftest import KEY
from tests.airflow.faces import connection, context, interval
from tests.airflow.test_late import history

pytestmark = pytest.mark.airflow

QUESTION = RequestTemplate("What about $text?", columns=("text",))
WINDOW = interval(datetime(2018, 1, 31, tzinfo=UTC), datetime(2018, 1, 31, 12, tzinfo=UTC))
HOUR = timedelta(hours=1)


@pytest.fixture
def landing(tmp_path: Any) -> Landing:
    return Landing("answers", str(tmp_path / "landings" / "answers"))


def rows(*texts: str) -> list[dict[str, str]]:
    return [{"id": f"k{number}", "text": text} for number, text in enumerate(texts)]


def whole(landing: Landing, source: Any = None, **more: Any) -> GeminiBatchOperator:
    given = {"model": "gemini-3.8-flash", "template": QUESTION, "poll_interval": 1, **more}
    return GeminiBatchOperator(task_id="whole", source=source or rows("rain", "snow"), to=landing, **given)


def run(**more: Any) -> dict[str, Any]:
    return context("whole", **(WINDOW | more))


def deferred(call: Any, *given: Any, **more: Any) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as caught:
        call(*given, **more)
    return caught.value


def event(deferral: TaskDeferred) -> dict[str, Any]:
    """What the trigger says, run from its serialized form as the triggerer would."""
    path, kwargs = deferral.trigger.serialize()
    assert path.endswith("GeminiBatchTrigger"), path

    async def fired() -> list[Any]:
        return [one.payload async for one in type(deferral.trigger)(**kwargs).run()]

    (payload,) = asyncio.run(asyncio.wait_for(fired(), 60))
    return payload


def resumed(task: GeminiBatchOperator, deferral: TaskDeferred, where: dict[str, Any]) -> dict[str, Any]:
    return task.resume_execution(deferral.method_name, {**deferral.kwargs, "event": event(deferral)}, where)


def to_the_end(make: Any, where: dict[str, Any], *, begin: TaskDeferred | None = None) -> dict[str, Any]:
    """A new operator for every stint, as Airflow makes them; each deferral's trigger is run to its event."""
    deferral = begin
    for _ in range(6):
        try:
            return make().execute(where) if deferral is None else resumed(make(), deferral, where)
        except TaskDeferred as again:
            deferral = again
    raise AssertionError("it never came to an end")


def test_rows_in_a_window_out_in_one_task(service: Server, workspace: str, landing: Landing) -> None:
    where, task = run(), whole(landing)
    deferral = deferred(task.execute, where)
    assert service.emulator.log.count("batches.create") == 1
    assert KEY not in str(deferral.trigger.serialize())
    assert "rain" not in str(deferral.trigger.serialize())

    service.emulator.clock.advance(hours=6)
    landed = resumed(whole(landing), deferral, where)

    assert landed["counts"] == {"answer": 2}
    assert landed["verdict"] == "accepted"
    assert (landed["estimate"], landed["late"]) == (None, False)
    assert where["outlet_events"][landing.asset].extra == landed
    assert [row["key"] for row in read_window(landing, "20180131T000000Z")] == ["k0", "k1"]
    assert service.emulator.log.count("batches.create") == 1


def test_a_retry_reads_no_row_and_submits_nothing(service: Server, workspace: str, landing: Landing) -> None:
    readings: list[int] = []

    def source() -> list[dict[str, str]]:
        readings.append(1)
        return rows("rain")

    deferred(whole(landing, source).execute, run())
    deferred(whole(landing, source).execute, run(try_number=2))
    service.emulator.clock.advance(hours=6)
    assert whole(landing, source).execute(run(try_number=3))["rows"] == 1
    assert readings == [1]
    assert service.emulator.log.count("batches.create") == 1


def test_a_resume_that_was_told_nothing_finds_what_was_sealed(
    service: Server, workspace: str, landing: Landing
) -> None:
    """As in ``dag.test()``, which forgets what a deferral keeps."""
    where = run()
    deferred(whole(landing).execute, where)
    service.emulator.clock.advance(hours=6)
    assert whole(landing).resume_execution("resume", {"event": {}}, where)["rows"] == 2
    assert service.emulator.log.count("batches.create") == 1


def test_what_is_unresolved_is_asked_again_as_a_batch(service: Server, workspace: str, landing: Landing) -> None:
    service.emulator.scenario("missing", rows=(1,), jobs=(0,))
    where = run()
    first = deferred(whole(landing, rows("rain", "snow", "hail")).execute, where)
    service.emulator.clock.advance(hours=6)
    second = deferred(resumed, whole(landing), first, where)
    assert service.emulator.log.count("batches.create") == 2
    service.emulator.clock.advance(hours=6)
    landed = resumed(whole(landing), second, where)
    assert landed["counts"] == {"answer": 3}
    assert {row["round"] for row in read_window(landing, "20180131T000000Z")} == {0, 1}


def test_without_a_ladder_the_deadline_fails_and_cancels_nothing(
    service: Server, workspace: str, landing: Landing
) -> None:
    service.emulator.scenario("never_finishes")
    soon = datetime.now(UTC) + timedelta(seconds=3)
    where = run()
    deferral = deferred(whole(landing, deadline=soon).execute, where)
    with pytest.raises(AirflowFailException, match=r"deadline .* passed with jobs still open"):
        resumed(whole(landing, deadline=soon), deferral, where)
    assert service.emulator.log.count("batches.cancel") == 0


def test_at_the_deadline_the_rest_goes_by_flex_and_the_window_is_complete(
    service: Server, workspace: str, landing: Landing
) -> None:
    service.emulator.scenario("never_finishes")
    soon = datetime.now(UTC) + timedelta(seconds=2)

    def make() -> GeminiBatchOperator:
        return whole(landing, deadline=soon, on_deadline=[Rung("flex", HOUR), Rung("commit")])

    where = run()
    landed = to_the_end(make, where)
    assert landed["counts"] == {"answer": 2}
    assert (landed["verdict"], landed["complete"]) == ("accepted", True)
    assert where["outlet_events"][landing.asset].extra == landed
    assert service.emulator.log.count("batches.cancel") == 1
    assert service.emulator.log.count("models.generate") == 2


def test_committing_what_is_there_at_the_deadline(service: Server, workspace: str, landing: Landing) -> None:
    service.emulator.scenario("never_finishes", jobs=(1,))
    soon = datetime.now(UTC) + timedelta(seconds=4)

    def make() -> GeminiBatchOperator:
        return whole(
            landing, rows("rain", "snow", "hail"), max_rows_per_shard=2, max_unresolved=0.5, deadline=soon,
            on_deadline=[Rung("commit")],
        )  # fmt: skip

    where = run()
    deferral = deferred(make().execute, where)
    service.emulator.clock.advance(hours=6)
    landed = to_the_end(make, where, begin=deferral)
    assert landed["counts"]["answer"] == 2
    assert landed["rows"] == 3


def test_early_commits_lie_apart_and_start_nobody(service: Server, workspace: str, landing: Landing) -> None:
    service.emulator.scenario("late", hours=30, jobs=(1,))

    def make() -> GeminiBatchOperator:
        return whole(landing, rows("rain", "snow"), max_rows_per_shard=1, early=0.01)

    where = run()
    deferral = deferred(make().execute, where)
    assert deferral.trigger.enough == 1
    service.emulator.clock.advance(hours=6)
    deferral = deferred(resumed, make(), deferral, where)
    assert where["outlet_events"].named == {}
    assert (Path(landing.uri) / "_early" / "window=20180131T000000Z" / "_manifest.json").is_file()
    service.emulator.clock.advance(hours=30)
    assert resumed(make(), deferral, where)["rows"] == 2


def test_a_person_may_have_it_committed_now(service: Server, workspace: str, landing: Landing) -> None:
    service.emulator.scenario("never_finishes", jobs=(1,))

    def make() -> GeminiBatchOperator:
        return whole(landing, rows("rain", "snow"), max_rows_per_shard=1, max_unresolved=0.5)

    where = run()
    deferral = deferred(make().execute, where)
    (word,) = deferral.trigger.commands
    assert main(["command", word.removesuffix("/command.json"), "commit-now", "--reason", "due"]) == 0
    service.emulator.clock.advance(hours=6)
    landed = to_the_end(make, where, begin=deferral)
    assert landed["counts"]["answer"] == 1


def test_a_service_without_room_is_waited_for_without_a_worker(
    service: Server, workspace: str, landing: Landing
) -> None:
    service.emulator.scenario("burst_429", endpoint="batches.create", times=1)
    deferral = deferred(whole(landing).execute, run())
    assert type(deferral.trigger).__name__ == "DateTimeTrigger"
    assert deferral.kwargs["prepared"]["rows"] == 2


def test_without_a_triggerer_the_worker_waits(service: Server, workspace: str, landing: Landing) -> None:
    service.emulator.clock.run(speed=18_000 * 5)
    assert whole(landing, deferrable=False).execute(run())["counts"] == {"answer": 2}


def test_a_worker_that_waits_hears_a_person_too(
    service: Server, workspace: str, landing: Landing, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.emulator.scenario("never_finishes")
    left: list[str] = []

    def leave_word(line: str) -> None:
        if not left:
            (opening,) = Path(workspace).glob("batches/*/*/*/*/g0001/batch.json")
            left.append(str(opening.parent))
            assert main(["command", left[0], "cancel", "--reason", "wrong prompt"]) == 0

    pausing = batch_module.wait_in_thread
    monkeypatch.setattr(
        batch_module, "wait_in_thread", lambda *given, say, **more: pausing(*given, say=leave_word, **more)
    )
    with pytest.raises(AirflowFailException, match="wrong prompt"):
        whole(landing, deferrable=False).execute(run())

    assert {service.emulator.state(job.name) for job in service.emulator.jobs} == {"BATCH_STATE_CANCELLED"}


def test_the_deferrals_own_timeout_is_later_than_our_deadline(
    service: Server, workspace: str, landing: Landing
) -> None:
    deferral = deferred(whole(landing, deadline=HOUR).execute, run())
    ours = datetime.fromisoformat(deferral.trigger.deadline)
    assert datetime.now(UTC) + deferral.timeout > ours + batch_module.SLACK - timedelta(seconds=5)
    assert abs(ours - datetime.now(UTC) - HOUR) < timedelta(seconds=30)


def test_an_absolute_deadline_that_passed_before_anything_was_sent_is_a_mistake(
    service: Server, workspace: str, landing: Landing
) -> None:
    with pytest.raises(AirflowFailException, match="before anything was sent"):
        whole(landing, deadline="2020-01-01T00:00:00Z", on_deadline=[Rung("flex")]).execute(run())
    assert service.emulator.log.count("batches.create") == 0
    assert service.emulator.log.count("models.generate") == 0


def test_a_run_without_a_window_is_told_before_anything_is_sealed(
    service: Server, workspace: str, landing: Landing
) -> None:
    with pytest.raises(AirflowFailException, match="No window"):
        whole(landing).execute(context("whole"))
    assert service.emulator.log.count("files.start") == 0


def test_an_empty_source_skips_where_that_was_chosen(service: Server, workspace: str, landing: Landing) -> None:
    with pytest.raises(AirflowSkipException, match="nothing to ask"):
        whole(landing, list, on_empty="skip").execute(run())


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"deadline": HOUR, "on_deadline": [Rung("standard")]}, "twice the price"),
        ({"on_deadline": [Rung("flex")]}, "deadline"),
        ({"rounds": -1}, "rounds"),
        ({"early": 2}, "early"),
        ({"max_cost_usd": "much"}, "max_cost_usd"),
        ({"max_cost_usd": 0}, "max_cost_usd"),
        ({"max_unresolved": 7}, "share of the rows"),
    ],
)
def test_what_cannot_be_meant_is_told_while_the_dag_is_parsed(landing: Landing, given: Any, says: str) -> None:
    with pytest.raises(Unusable, match=says):
        whole(landing, **given)


def test_the_policy_knows_a_backfill_from_a_scheduled_run(landing: Landing) -> None:
    task = whole(landing, max_cost_usd="2.50", rescue_in_backfill=True)
    policy = task._policy(None, {"dag_run": SimpleNamespace(run_type=SimpleNamespace(value="backfill"))})
    assert (policy.in_backfill, policy.rescue_in_backfill, policy.max_cost_usd) == (True, True, Decimal("2.50"))
    assert not task._policy(None, {"dag_run": SimpleNamespace(run_type="scheduled")}).in_backfill


# Being stopped ---------------------------------------------------------------------------------------------------------


def stopped(landing: Landing, where: dict[str, Any], state: str | None) -> None:
    """The task is stopped on its worker after it has submitted, and Airflow says ``state``."""
    task = whole(landing)
    deferred(task.execute, where)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kill, "task_state", lambda ti: state)
        patch.setattr(batch_module, "_current_ti", lambda: where["ti"])
        task.on_kill()


@pytest.mark.parametrize(("state", "cancels"), [("failed", 1), ("success", 0), ("running", 0), (None, 0)])
def test_only_a_task_that_was_marked_failed_has_its_jobs_cancelled(
    service: Server, workspace: str, landing: Landing, state: str | None, cancels: int
) -> None:
    stopped(landing, run(), state)
    assert service.emulator.log.count("batches.cancel") == cancels


def test_marked_failed_while_deferred_cancels_too(service: Server, workspace: str, landing: Landing) -> None:
    where = run()
    trigger = deferred(whole(landing).execute, where).trigger
    assert set(trigger.ledgers) == set(trigger.job_names)
    trigger.task_instance = where["ti"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kill, "task_state", lambda ti: "failed")
        asyncio.run(trigger.on_kill())
    assert service.emulator.log.count("batches.cancel") == 1


@pytest.mark.parametrize("deferred_now", [True, False])
def test_marked_failed_cancels_the_jobs_of_every_connection(
    service: Server, workspace: str, landing: Landing, monkeypatch: pytest.MonkeyPatch, deferred_now: bool
) -> None:
    service.emulator.scenario("never_finishes")
    ladder = (Rung("hedge", limit=timedelta(hours=3), conn_id="elsewhere"),)
    where = run()

    def make() -> GeminiBatchOperator:
        return whole(landing, deadline=timedelta(seconds=0.2), on_deadline=ladder)

    with running(Emulator(seed=8, start=datetime.now(UTC), speed=0, turnaround=(5, 5))) as other:
        monkeypatch.setenv("AIRFLOW_CONN_ELSEWHERE", connection(other.url, "k"))
        task = make()
        deferral = deferred(task.execute, where)
        if not other.emulator.jobs:  # else the deadline has passed already while the first job was sent
            pause_until(datetime.now(UTC) + timedelta(seconds=0.3))
            task = make()
            deferral = deferred(resumed, task, deferral, where)
        trigger: Any = deferral.trigger
        trigger.task_instance = where["ti"]
        monkeypatch.setattr(kill, "task_state", lambda ti: "failed")
        monkeypatch.setattr(batch_module, "_current_ti", lambda: where["ti"])
        if deferred_now:
            asyncio.run(type(trigger)(**trigger.serialize()[1]).on_kill())
            assert other.emulator.log.count("batches.cancel") == 0
            asyncio.run(trigger.on_kill())
        else:
            task.on_kill()

        assert [other.emulator.state(job.name) for job in other.emulator.jobs] == ["BATCH_STATE_CANCELLED"]
    assert {service.emulator.state(job.name) for job in service.emulator.jobs} == {"BATCH_STATE_CANCELLED"}


def test_stopped_before_anything_was_sealed_there_is_nothing_to_cancel(landing: Landing) -> None:
    whole(landing).on_kill()


# What is told ----------------------------------------------------------------------------------------------------------


def test_the_operator_expects_names_late_and_is_stuck_by_the_same_history(
    service: Server, workspace: str, landing: Landing, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[str] = []
    monkeypatch.setattr(outlook, "Stats", SimpleNamespace(incr=lambda name, tags=None: counted.append(name)))
    called: list[Any] = []
    where, begun = run(), datetime.now(UTC)

    def make(**more: Any) -> GeminiBatchOperator:
        return whole(landing, on_late=called.append, **more)

    first = deferred(make().execute, where)
    history(workspace, {"uri": first.kwargs["prepared"]["uri"]}, *[2.0] * 30)
    second = deferred(make(deadline=HOUR).resume, where, **first.kwargs)
    told = where["ti"].pushed["estimate"]
    assert (told["n"], told["late"]) == (30, False)
    assert told["chance"] > 0.9

    third = deferred(resumed, make(deadline=HOUR), second, where)
    assert [one["late"]["batch"] for one in called] == ["dag.whole (scheduled__2018-01-31T00:00:00+00:00)"]
    assert called[0]["late"]["why"].startswith("nineteen in twenty")
    assert counted == ["geminibatch.late"]
    assert third.trigger.names_late is False
    assert where["ti"].pushed["estimate"]["late"] is True

    stuck = make(stuck_after=0.95, on_deadline=[Rung("commit")])._stuck_at(Manifest(first.kwargs["prepared"]["uri"]))
    assert stuck is not None
    assert timedelta() < stuck - begun < timedelta(seconds=20)

    service.emulator.clock.advance(hours=6)
    landed = resumed(make(), third, where)
    assert landed["late"] is True
    assert landed["estimate"]["n"] == 30


def test_when_stuck_the_ladder_is_climbed_before_the_deadline(
    service: Server, workspace: str, landing: Landing
) -> None:
    service.emulator.scenario("never_finishes")
    where = run()

    def make() -> GeminiBatchOperator:
        return whole(landing, deadline=11 * HOUR, stuck_after=0.95, on_deadline=[Rung("flex", HOUR)])

    first = deferred(make().execute, where)
    history(workspace, {"uri": first.kwargs["prepared"]["uri"]}, *[1.0] * 30)
    landed = to_the_end(make, where)
    assert landed["counts"] == {"answer": 2}
    assert service.emulator.log.count("batches.cancel") == 1
