"""Waiting, driven: a thread and an event loop that look, sleep and look again. Nothing else in the package sleeps.

What to do next is decided by ``core.watch``; the two drivers differ in how they sleep and how they ask.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from datetime import UTC, datetime

from airflow_provider_geminibatch.core.errors import JobUnreachable, KeyRefused, ServiceBusy, ServiceError
from airflow_provider_geminibatch.core.watch import (
    Ended,
    Gets,
    Late,
    ListPage,
    Look,
    Miss,
    Page,
    Sight,
    TimedOut,
    Unreachable,
    Wait,
    Watch,
    Wished,
    looking,
)
from airflow_provider_geminibatch.gemini.gateway import Gateway

Clock = Callable[[], datetime]
Say = Callable[[str], object]

LAST_LOOK_SECONDS = 60.0
"""How long after the deadline the look that began at the deadline may take."""


def utc_now() -> datetime:
    """The time of this machine, aware."""
    return datetime.now(UTC)


def pause_until(moment: datetime, *, now: Clock = utc_now, sleep: Callable[[float], object] = time.sleep) -> None:
    """Hold this thread until ``moment``; a moment that has passed costs nothing."""
    if (seconds := (moment - now()).total_seconds()) > 0:
        sleep(seconds)


async def rest_until(moment: datetime, *, now: Clock = utc_now) -> None:
    """Hold this coroutine until ``moment``, not its loop."""
    if (seconds := (moment - now()).total_seconds()) > 0:
        await asyncio.sleep(seconds)


async def breathe() -> None:
    """Let everything else in this loop have a turn."""
    await asyncio.sleep(0)


async def woken_by(event: asyncio.Event, moment: datetime | None, *, now: Clock = utc_now) -> None:
    """Hold this coroutine until ``event`` is set or ``moment`` has come, whichever is first."""
    try:
        seconds = None if moment is None else max(0.0, (moment - now()).total_seconds())
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return


def wait_in_thread(
    watch: Watch,
    gateway: Gateway,
    *,
    say: Say,
    wished: Callable[[], bool] | None = None,
    now: Clock = utc_now,
    sleep: Callable[[float], object] = time.sleep,
) -> Ended | TimedOut | Late | Wished:
    """Wait in this thread until the jobs have ended or the deadline has passed. ``say`` gets one line per change.

    ``wished()`` is asked after each look whether a person left word, which ends the waiting too. Raises KeyRefused, since a
    worker has somebody who can be told at once.
    """
    until = now()
    while True:
        pause_until(until, now=now, sleep=sleep)
        watch, decision = watch.after(look(gateway, watch.open), now())
        if decision.line:
            say(decision.line)
        if not isinstance(decision, Wait):
            return decision
        if wished is not None and wished():
            return Wished(dict(watch.jobs))
        until = decision.until


async def wait_in_loop(
    watch: Watch,
    look_at: Callable[[Collection[str], datetime], Awaitable[Look]],
    *,
    say: Say,
    wished: Callable[[], Awaitable[bool]] | None = None,
    now: Clock = utc_now,
) -> Ended | TimedOut | Late | Wished:
    """Wait in this event loop, like ``wait_in_thread``. ``look_at(names, when)`` sleeps and looks: ``Poller.look``.

    ``wished()`` is asked after each look whether a person left word, which ends the waiting too.
    """
    until = now()
    while True:
        watch, decision = watch.after(await _in_time(look_at(watch.open, until), watch.deadline, now), now())
        if decision.line:
            say(decision.line)
        if not isinstance(decision, Wait):
            return decision
        if wished is not None and await wished():
            return Wished(dict(watch.jobs))
        until = decision.until


async def _in_time(look_at: Awaitable[Look], deadline: datetime | None, now: Clock) -> Look:
    """The look, or a miss when it is not done soon after the deadline: a poller may be busy with other waiters."""
    left = None if deadline is None else max(0.0, (deadline - now()).total_seconds()) + LAST_LOOK_SECONDS
    try:
        return await asyncio.wait_for(look_at, left)
    except TimeoutError:
        return Look(miss=Miss("TimeoutError", "no answer by the deadline"))


def look(gateway: Gateway, names: Collection[str]) -> Look:
    """One look from a worker. A service that is busy is a miss; raises KeyRefused."""
    if not names:
        return Look()
    plan = looking(names)
    ask = next(plan)
    while True:
        answer = _answer(gateway, ask)
        try:
            ask = plan.send(answer)
        except StopIteration as done:
            result: Look = done.value
            return result


def _answer(gateway: Gateway, ask: ListPage | Gets) -> Page | Look:
    if isinstance(ask, Gets):
        return joined([_get(gateway, name) for name in ask.names])
    try:
        page = gateway.jobs(ask.token)
    except KeyRefused:
        raise
    except ServiceError as error:
        return missed(error)
    return Page(page.jobs, page.next_token)


def _get(gateway: Gateway, name: str) -> Look:
    try:
        return Look((gateway.job(name),))
    except JobUnreachable as error:
        return unreachable(error)
    except KeyRefused:
        raise
    except ServiceError as error:
        return missed(error)


def missed(error: Exception) -> Look:
    """A failed look as a value: the kind is the error's type and code, so that it is said once.

    After a refused key, a 429 or a Retry-After there is nothing to gain by asking in another way.
    """
    code = getattr(error, "code", None)
    hold = error.retry_after_seconds if isinstance(error, ServiceBusy) else None
    stop = isinstance(error, KeyRefused) or code == 429 or hold is not None
    return Look(miss=Miss(f"{type(error).__name__} {code or ''}".rstrip(), str(error), stop, hold))


def unreachable(error: JobUnreachable) -> Look:
    """A job that the service does not show, as a value."""
    return Look((Unreachable(error.job_name, f"{error.code}: {error.text}"),))


def joined(looks: list[Look]) -> Look:
    """Several looks as one, with the first of their misses."""
    sights: list[Sight] = [sight for part in looks for sight in part.sights]
    return Look(tuple(sights), next((part.miss for part in looks if part.miss), None))
