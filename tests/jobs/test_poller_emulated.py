"""The poller over the real wire: what the emulator does to those who wait, and what it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import pytest

from airflow_provider_geminibatch.core.model import JobSnapshot
from airflow_provider_geminibatch.core.watch import Ended, Look, Unreachable, Watch
from airflow_provider_geminibatch.emulator import Emulator, Limits, running
from airflow_provider_geminibatch.gemini.developer import DeveloperWatcher, Settings
from airflow_provider_geminibatch.gemini.gateway import Watcher
from airflow_provider_geminibatch.jobs.poller import Poller, polling
from airflow_provider_geminibatch.jobs.wait import wait_in_loop
from tests.scale.test_scale import _jobs

T = TypeVar("T")
START = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture
def service() -> Iterator[tuple[Emulator, str]]:
    emulator = Emulator(seed=5, start=START, speed=0, turnaround=(2, 2), limits=Limits(concurrent_jobs=500))
    with running(emulator) as server:
        yield emulator, server.url


def polled(service: tuple[Emulator, str], story: Callable[[Poller], Awaitable[T]]) -> T:
    """What a story with a poller comes to; the poller goes by the emulator's clock."""
    emulator, url = service

    async def connect() -> Watcher:
        return DeveloperWatcher(Settings("k", url))

    async def run() -> T:
        async with polling("emulated", connect, now=emulator.clock.now) as poller:
            return await asyncio.wait_for(story(poller), 30)

    return asyncio.run(run())


def states(look: Look) -> dict[str, str]:
    return {sight.name: sight.state for sight in look.sights if isinstance(sight, JobSnapshot)}


def asked(emulator: Emulator) -> tuple[int, int]:
    return emulator.log.count("batches.list"), emulator.log.count("batches.get")


def test_one_sweep_serves_all_and_stops_when_all_are_seen(service: tuple[Emulator, str]) -> None:
    emulator, url = service
    _jobs(url, 150)
    newest = _jobs(url, 50)

    look = polled(service, lambda poller: poller.look(newest, START))

    assert set(newest) <= set(states(look))
    assert asked(emulator) == (1, 0)


def test_a_job_that_the_list_does_not_show_yet_is_got(service: tuple[Emulator, str]) -> None:
    emulator, url = service
    shown = _jobs(url, 3)
    emulator.scenario("listed_late", hours=1)
    late = _jobs(url, 2)

    look = polled(service, lambda poller: poller.look([*shown, *late], START))

    assert set(states(look)) == {*shown, *late}
    assert asked(emulator) == (1, 2)


def test_an_empty_page_with_a_token_is_no_end(service: tuple[Emulator, str]) -> None:
    emulator, url = service
    names = _jobs(url, 120)
    emulator.scenario("list_empty_page_with_token")

    look = polled(service, lambda poller: poller.look(names, START))

    assert set(states(look)) == set(names)
    assert asked(emulator) == (3, 0)


@pytest.mark.parametrize("scenario", ["burst_429", "burst_503"])
def test_retry_after_holds_for_everybody_and_then_all_is_well(service: tuple[Emulator, str], scenario: str) -> None:
    emulator, url = service
    names = _jobs(url, 5)
    emulator.scenario(scenario, endpoint="batches.list", times=1, retry_after=40.0)

    async def story(poller: Poller) -> None:
        first = await poller.look(names, START)
        assert first.miss is not None
        assert (first.sights, first.miss.stop, first.miss.hold_seconds) == ((), True, 40.0)
        emulator.clock.advance(seconds=39)
        assert (await poller.look([names[0]], START)).miss is not None
        assert asked(emulator) == (1, 0)
        emulator.clock.advance(seconds=1)
        assert set(states(await poller.look(names, START))) == set(names)
        assert asked(emulator) == (2, 0)

    polled(service, story)


def test_a_list_that_fails_is_made_up_for_by_gets(service: tuple[Emulator, str]) -> None:
    emulator, url = service
    names = _jobs(url, 5)
    emulator.scenario("refused_calls", endpoint="batches.list", times=9, code=500, status="INTERNAL", message="oops")

    look = polled(service, lambda poller: poller.look(names, START))

    assert set(states(look)) == set(names)
    assert asked(emulator) == (1, 5)


def test_gets_that_fail_are_made_up_for_by_the_list(service: tuple[Emulator, str]) -> None:
    emulator, url = service
    (name,) = _jobs(url, 1)
    emulator.scenario("dropped_calls", endpoint="batches.get", times=9)

    look = polled(service, lambda poller: poller.look([name], START))

    assert (states(look), look.miss) == ({name: "PENDING"}, None)


def test_a_job_that_nobody_shows_is_unreachable_and_the_others_are_seen(service: tuple[Emulator, str]) -> None:
    _, url = service
    names = _jobs(url, 2)

    look = polled(service, lambda poller: poller.look([*names, "batches/foreign"], START))

    assert set(states(look)) == set(names)
    assert [type(sight) for sight in look.sights if sight.name == "batches/foreign"] == [Unreachable]


def test_a_finished_job_wakes_who_waits_within_one_interval(service: tuple[Emulator, str]) -> None:
    """A job of two hours, looked at once a minute; the clock moves on to when the next look is due."""
    emulator, url = service
    (name,) = _jobs(url, 1)
    ends = emulator.jobs[0].ends

    async def story(poller: Poller) -> Ended:
        async def look_at(names: object, at: datetime) -> Look:
            emulator.clock.advance(seconds=max((at - emulator.clock.now()).total_seconds(), 0))
            return await poller.look(names, at)  # type: ignore[arg-type]

        watch = Watch(names=(name,), since=START, cap=timedelta(minutes=1))
        end = await wait_in_loop(watch, look_at, say=lambda line: None, now=emulator.clock.now)
        assert isinstance(end, Ended)
        return end

    end = polled(service, story)

    assert end.jobs[name].state == "SUCCEEDED"
    assert ends is not None
    assert emulator.clock.now() - ends <= timedelta(minutes=1)
