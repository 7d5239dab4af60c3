"""The two drivers of a watch go through the same script alike, and one look asks little."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_geminibatch.core.errors import GeminiBatchError, JobUnreachable, KeyRefused, ServiceBusy
from airflow_provider_geminibatch.core.model import JobSnapshot
from airflow_provider_geminibatch.core.watch import Ended, Look, TimedOut, Unreachable, Watch, Wished
from airflow_provider_geminibatch.gemini.gateway import JobPage
from airflow_provider_geminibatch.jobs.wait import (
    look,
    pause_until,
    rest_until,
    utc_now,
    wait_in_loop,
    wait_in_thread,
    woken_by,
)
from airflow_provider_geminibatch.testing import ManualClock

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
Answer = str | GeminiBatchError
BUSY = ServiceBusy("list of jobs", 503, "overloaded")


class ScriptedService:
    """A service that answers every look at its one job with the next line of a script, the last one for ever."""

    def __init__(self, clock: ManualClock, script: Sequence[Answer]) -> None:
        self.clock, self.script = clock, list(script)
        self.looked_at: list[datetime] = []

    def job(self, job_name: str) -> JobSnapshot:
        self.looked_at.append(self.clock())
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(answer, GeminiBatchError):
            raise answer
        return JobSnapshot(name=job_name, state=answer)

    def jobs(self, page_token: str = "") -> JobPage:
        return JobPage(())  # it lags behind


Driver = Callable[[Watch, ScriptedService, Callable[[str], object]], Ended | TimedOut]


def in_thread(watch: Watch, service: ScriptedService, say: Callable[[str], object]) -> Ended | TimedOut:
    def sleep(seconds: float) -> None:
        service.clock.advance(timedelta(seconds=seconds))

    return wait_in_thread(watch, service, say=say, now=service.clock, sleep=sleep)  # type: ignore[arg-type]


def in_loop(watch: Watch, service: ScriptedService, say: Callable[[str], object]) -> Ended | TimedOut:
    async def look_at(names: Collection[str], when: datetime) -> Look:
        service.clock.advance_to(when)
        return look(service, names)  # type: ignore[arg-type]

    return asyncio.run(wait_in_loop(watch, look_at, say=say, now=service.clock))


@pytest.mark.parametrize("drive", [in_thread, in_loop])
def test_both_drivers_go_through_a_script_alike(drive: Driver) -> None:
    hidden = JobUnreachable("batches/a", 404, "not found")
    service = ScriptedService(ManualClock(NOON), ["PENDING", BUSY, BUSY, "RUNNING", hidden, "RUNNING", "SUCCEEDED"])
    lines: list[str] = []

    end = drive(Watch(names=("batches/a",), since=NOON), service, lines.append)

    assert isinstance(end, Ended)
    assert end.jobs["batches/a"].state == "SUCCEEDED"
    assert [(at - NOON).total_seconds() for at in service.looked_at] == [0, 5, 10, 15, 20, 25, 30]
    assert [line.split(";")[0] for line in lines] == [
        "batches/a PENDING",
        "batches/a PENDING",  # could not look
        "batches/a RUNNING",
        "batches/a RUNNING",  # unreachable
        "batches/a RUNNING",  # reachable again
        "batches/a SUCCEEDED",
    ]


@pytest.mark.parametrize("drive", [in_thread, in_loop])
def test_both_drivers_look_once_more_at_the_deadline_and_give_up(drive: Driver) -> None:
    service = ScriptedService(ManualClock(NOON), ["RUNNING"])
    deadline = NOON + 12 * SECOND
    end = drive(Watch(names=("batches/a",), since=NOON, deadline=deadline), service, lambda line: None)
    assert isinstance(end, TimedOut)
    assert end.open == ("batches/a",)
    assert service.looked_at[-1] == deadline


@pytest.mark.parametrize("drive", [in_thread, in_loop])
def test_a_service_that_is_down_for_long_is_waited_out(drive: Driver) -> None:
    service = ScriptedService(ManualClock(NOON), [*[BUSY] * 200, "SUCCEEDED"])
    assert isinstance(drive(Watch(names=("batches/a",), since=NOON), service, lambda line: None), Ended)
    assert service.clock() - NOON > timedelta(hours=2)


def test_a_worker_is_told_at_once_that_its_key_was_refused() -> None:
    service = ScriptedService(ManualClock(NOON), [KeyRefused("look at batches/a", 401, "bad key")])
    with pytest.raises(KeyRefused):
        in_thread(Watch(names=("batches/a",), since=NOON), service, lambda line: None)


def test_a_look_that_hangs_does_not_outlive_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_geminibatch.jobs.wait.LAST_LOOK_SECONDS", 0.0)

    async def never(names: Collection[str], when: datetime) -> Look:
        return await asyncio.get_running_loop().create_future()

    watch = Watch(names=("batches/a",), since=NOON, deadline=NOON)
    end = asyncio.run(wait_in_loop(watch, never, say=lambda line: None, now=lambda: NOON + SECOND))
    assert isinstance(end, TimedOut)


class ListedService:
    """Jobs on pages of two; ``calls`` tells what was asked."""

    def __init__(self, names: Sequence[str], broken: Sequence[str] = ()) -> None:
        self.names, self.broken, self.calls = list(names), list(broken), list[str]()

    def jobs(self, page_token: str = "") -> JobPage:
        at = int(page_token or 0)
        self.calls.append(f"page {at}")
        if f"page {at}" in self.broken:
            raise BUSY
        shown = tuple(JobSnapshot(name=name, state="RUNNING") for name in self.names[at : at + 2])
        return JobPage(shown, str(at + 2) if at + 2 < len(self.names) else "")

    def job(self, job_name: str) -> JobSnapshot:
        self.calls.append(job_name)
        if job_name in self.broken:
            raise ServiceBusy(f"look at {job_name}", 500, "internal")
        if job_name not in self.names:
            raise JobUnreachable(job_name, 403, "no permission")
        return JobSnapshot(name=job_name, state="RUNNING")


def seen(service: ListedService, *names: str) -> Look:
    return look(service, names)  # type: ignore[arg-type]


def test_many_jobs_are_read_from_the_list_and_what_it_lacks_by_name() -> None:
    service = ListedService(["batches/a", "batches/b"])
    shown = seen(service, "batches/a", "batches/b", "batches/foreign")
    assert service.calls == ["page 0", "batches/foreign"]
    assert shown.miss is None
    assert shown.sights[-1] == Unreachable("batches/foreign", "403: no permission")


def test_one_busy_answer_costs_only_its_own_job() -> None:
    service = ListedService(["batches/x", "batches/y", "batches/a", "batches/b"], broken=["batches/a", "page 2"])
    shown = seen(service, "batches/a", "batches/b")
    assert [sight.name for sight in shown.sights] == ["batches/x", "batches/y", "batches/b"]
    assert shown.miss is not None
    assert shown.miss.kind == "ServiceBusy 500"


def test_a_get_that_fails_is_made_up_for_by_the_list() -> None:
    service = ListedService(["batches/x", "batches/y", "batches/a", "batches/b"], broken=["batches/a"])
    shown = seen(service, "batches/a")
    assert service.calls == ["batches/a", "page 0", "page 2"]
    assert [sight.name for sight in shown.sights][2:] == ["batches/a", "batches/b"]
    assert shown.miss is None


def test_a_job_that_get_hides_and_the_list_shows_is_not_unreachable() -> None:
    class Forgetful(ListedService):
        def job(self, job_name: str) -> JobSnapshot:
            self.calls.append(job_name)
            raise JobUnreachable(job_name, 404, "not found")

    shown = seen(Forgetful(["batches/a"]), "batches/a")
    assert shown.sights == (JobSnapshot(name="batches/a", state="RUNNING"),)


def test_a_list_that_fails_is_made_up_for_by_gets() -> None:
    service = ListedService(["batches/a", "batches/b"], broken=["page 0"])
    shown = seen(service, "batches/a", "batches/b")
    assert service.calls == ["page 0", "batches/a", "batches/b"]
    assert len(shown.sights) == 2
    assert shown.miss is None


@pytest.mark.parametrize(("works", "calls"), [(True, 1 + 100), (False, 1 + 8)])
def test_of_a_thousand_jobs_a_hundred_are_got_while_the_list_fails_and_eight_when_gets_fail_too(
    works: bool, calls: int
) -> None:
    names = [f"batches/{number}" for number in range(1000)]
    service = ListedService(names, broken=["page 0", *([] if works else names)])
    shown = seen(service, *names)
    assert len(service.calls) == calls
    assert shown.miss is not None
    assert len(shown.sights) == (100 if works else 0)


@pytest.mark.parametrize(("code", "retry_after"), [(429, None), (429, 30.0), (503, 7.0)])
def test_a_service_that_wants_to_be_left_alone_is_asked_nothing_else(code: int, retry_after: float | None) -> None:
    class Quota(ListedService):
        def jobs(self, page_token: str = "") -> JobPage:
            self.calls.append("page")
            error = ServiceBusy("list of jobs", code, "quota")
            error.retry_after_seconds = retry_after
            raise error

    service = Quota(["batches/a", "batches/b"])
    shown = seen(service, "batches/a", "batches/b")
    assert service.calls == ["page"]
    assert shown.miss is not None
    assert (shown.miss.stop, shown.miss.hold_seconds) == (True, retry_after)


def test_a_key_that_is_refused_for_the_list_is_told_at_once() -> None:
    class Refusing(ListedService):
        def jobs(self, page_token: str = "") -> JobPage:
            raise KeyRefused("list of jobs", 401, "bad key")

    with pytest.raises(KeyRefused):
        seen(Refusing([]), "batches/a", "batches/b")


def test_nothing_wanted_asks_nothing() -> None:
    service = ListedService(["batches/a"])
    assert seen(service) == Look()
    assert service.calls == []


def test_pauses_last_until_the_moment_and_never_for_one_that_has_passed() -> None:
    slept: list[float] = []
    pause_until(NOON + 3 * SECOND, now=lambda: NOON, sleep=slept.append)
    pause_until(NOON - SECOND, now=lambda: NOON, sleep=slept.append)
    asyncio.run(rest_until(NOON - SECOND, now=lambda: NOON))
    asyncio.run(rest_until(NOON + timedelta(milliseconds=1), now=lambda: NOON))
    assert slept == [3.0]
    assert utc_now().tzinfo is UTC


def test_an_event_ends_a_rest_before_its_moment() -> None:
    async def rest() -> bool:
        event = asyncio.Event()
        asyncio.get_running_loop().call_soon(event.set)
        await asyncio.wait_for(woken_by(event, NOON + timedelta(hours=1), now=lambda: NOON), 5)
        event.clear()
        await woken_by(event, NOON - SECOND, now=lambda: NOON)
        return event.is_set()

    assert asyncio.run(rest()) is False


def test_a_worker_that_waits_is_told_of_a_person_s_word() -> None:
    clock = ManualClock(NOON)
    service, words = ScriptedService(clock, ["RUNNING"]), iter([False, False, True])
    end = wait_in_thread(
        Watch(names=("batches/1",), since=NOON), service, say=lambda line: None, now=clock,  # type: ignore[arg-type]
        sleep=lambda seconds: clock.advance(timedelta(seconds=seconds)), wished=lambda: next(words),
    )  # fmt: skip

    assert isinstance(end, Wished)
    assert [job.state for job in end.jobs.values()] == ["RUNNING"]
    assert len(service.looked_at) == 3
