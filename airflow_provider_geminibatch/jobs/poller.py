"""One poller per event loop and connection: it looks at the service for all who wait there.

Waiters say which jobs they wait for and when they want news; a round serves everybody who is due. A page of the job
list shows many jobs at once, and whoever waits for one of them gets it for free and is in step with the others from
then on. So what the service is asked grows with its list's pages, not with the waiters (``core.watch.looking``).
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Hashable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec

from airflow_provider_geminibatch.core.errors import GeminiBatchError, JobUnreachable, KeyRefused
from airflow_provider_geminibatch.core.watch import PATIENCE, Gets, ListPage, Look, Miss, Page, Sight, looking
from airflow_provider_geminibatch.gemini.gateway import Watcher
from airflow_provider_geminibatch.jobs.wait import Clock, breathe, joined, missed, unreachable, utc_now, woken_by

log = logging.getLogger(__name__)

Connect = Callable[[], Awaitable[Watcher]]

AT_ONCE = 8
"""Gets in flight together."""
STALE = timedelta(minutes=5)
"""After this the connection is read again, so that a rotated key reaches a running triggerer."""
NEVER = datetime.min.replace(tzinfo=UTC)
COMPANY = timedelta(seconds=5)
"""A round also serves those who are due this little later, so that those who wait fall into step."""
AT_A_TIME = 25
"""Waiters fed in one turn of the loop: each of them goes on at once, and other triggers want their turn too."""


@dataclass(eq=False)
class _Waiter:
    """Somebody who wants news of ``names`` at ``at``."""

    names: tuple[str, ...]
    at: datetime
    news: asyncio.Future[Look]


_pollers: dict[tuple[asyncio.AbstractEventLoop, Hashable], Poller] = {}


@contextlib.asynccontextmanager
async def polling(key: Hashable, connect: Connect, *, now: Clock = utc_now) -> AsyncIterator[Poller]:
    """The poller of this loop and ``key``, shared with everybody who uses it now. It closes when the last one leaves.

    ``connect`` of the first one is used for all, so it may depend on ``key`` only.
    """
    place = (asyncio.get_running_loop(), key)
    poller = _pollers.get(place)
    if poller is None or poller.broken:
        poller = _pollers[place] = Poller(connect, now=now)
    poller.users += 1
    try:
        yield poller
    finally:
        poller.users -= 1
        if not poller.users:
            if _pollers.get(place) is poller:
                del _pollers[place]
            await poller.close()


class Poller:
    """Looks at the service for many waiters. Made by ``polling``."""

    def __init__(self, connect: Connect, *, now: Clock) -> None:
        self.users = 0
        self._connect, self._now = connect, now
        self._waiters: set[_Waiter] = set()
        self._wake = asyncio.Event()
        self._watcher: Watcher | None = None
        self._connected_at = now()
        self._room = asyncio.Semaphore(AT_ONCE)
        self._hold: Miss | None = None
        self._hold_until = NEVER
        self._served: dict[str, None] = {}
        """Names shown since looks began to fail: they come last, so that everybody gets a turn."""
        self._pages_pay = True
        """Whether the last page that was asked for a single name showed others too."""
        # An empty context: the task outlives the trigger that started it and must not write into its task log.
        self._task = asyncio.create_task(self._run(), name="geminibatch-poller", context=contextvars.Context())
        self._task.add_done_callback(self._stopped)

    @property
    def broken(self) -> bool:
        """True after an error that is not the service's; a new poller takes the place of this one."""
        return self._task.done()

    async def look(self, names: Collection[str], at: datetime) -> Look:
        """What the service shows of ``names`` at ``at`` or, when that comes for free, before."""
        if self._task.done():
            await self._task
        if not names:
            return Look()
        waiter = _Waiter(tuple(names), at, asyncio.get_running_loop().create_future())
        self._waiters.add(waiter)
        self._wake.set()
        try:
            return await waiter.news
        finally:
            self._waiters.discard(waiter)

    async def close(self) -> None:
        """Stop, and let go of the client."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while True:
                due = await self._due()
                look = await self._round(self._in_turn(name for waiter in due for name in waiter.names))
                self._remember(look)
                await self._feed(look, due)
        finally:
            await self._disconnect()

    async def _due(self) -> set[_Waiter]:
        """Everybody who is due, as soon as somebody is."""
        while True:
            self._wake.clear()
            # Who was fed or has been cancelled is still here until its own task gets a turn.
            open_ = [waiter for waiter in self._waiters if not waiter.news.done()]
            first = min((waiter.at for waiter in open_), default=None)
            if first is not None and first <= self._now():
                return {waiter for waiter in open_ if waiter.at <= self._now() + COMPANY}
            await woken_by(self._wake, first, now=self._now)

    def _in_turn(self, names: Iterable[str]) -> list[str]:
        unique = dict.fromkeys(names)
        if not self._served:
            return list(unique)
        return [name for name in unique if name not in self._served] + [name for name in self._served if name in unique]

    def _remember(self, look: Look) -> None:
        """Who was shown while looks fail comes last next time; and a service that asks for time gets it."""
        if look.miss is None:
            self._served.clear()
            return
        for sight in look.sights:
            self._served.pop(sight.name, None)
            self._served[sight.name] = None
        if look.miss.hold and self._now() >= self._hold_until:
            self._hold, self._hold_until = look.miss, self._now() + look.miss.hold

    def _held(self) -> Look | None:
        """The miss that stands while the service wants to be left alone."""
        left = (self._hold_until - self._now()).total_seconds()
        return Look(miss=msgspec.structs.replace(self._hold, hold_seconds=left)) if self._hold and left > 0 else None

    async def _round(self, wanted: Collection[str]) -> Look:
        if held := self._held():
            return held
        try:
            watcher = await self._connected()
        except GeminiBatchError as error:
            return missed(error)
        alone = len(wanted) == 1
        look = await self._looked(watcher, wanted, company=alone and self._pages_pay and len(self._waiters) > PATIENCE)
        if alone and len(look.sights) > 1:
            waiting = {name for waiter in self._waiters for name in waiter.names}
            self._pages_pay = sum(sight.name in waiting for sight in look.sights) > 1
        return look

    async def _looked(self, watcher: Watcher, wanted: Collection[str], *, company: bool) -> Look:
        plan = looking(wanted, company=company)
        ask = next(plan)
        while True:
            answer = await self._answer(watcher, ask)
            try:
                ask = plan.send(answer)
            except StopIteration as done:
                look: Look = done.value
                return look

    async def _answer(self, watcher: Watcher, ask: ListPage | Gets) -> Page | Look:
        if isinstance(ask, Gets):
            return joined(await asyncio.gather(*(self._get(watcher, name) for name in ask.names)))
        try:
            page = await watcher.jobs(ask.token)
        except GeminiBatchError as error:
            return self._missed(error)
        return Page(page.jobs, page.next_token)

    async def _get(self, watcher: Watcher, name: str) -> Look:
        async with self._room:
            try:
                return Look((await watcher.job(name),))
            except JobUnreachable as error:
                return unreachable(error)
            except GeminiBatchError as error:
                return self._missed(error)

    def _missed(self, error: GeminiBatchError) -> Look:
        if isinstance(error, KeyRefused):
            self._connected_at = NEVER
        return missed(error)

    async def _feed(self, look: Look, due: set[_Waiter]) -> None:
        """Those who were due get what there is; others only if it is all they asked for."""
        seen: dict[str, list[Sight]] = {}
        for sight in look.sights:
            seen.setdefault(sight.name, []).append(sight)
        fed = 0
        for waiter in tuple(self._waiters):
            all_seen = all(name in seen for name in waiter.names)
            if not waiter.news.done() and (waiter in due or all_seen):
                sights = tuple(sight for name in waiter.names for sight in seen.get(name, ()))
                waiter.news.set_result(Look(sights, None if all_seen else look.miss))
                fed += 1
                if fed % AT_A_TIME == 0:
                    await breathe()

    async def _connected(self) -> Watcher:
        if self._watcher and self._now() - self._connected_at >= STALE:
            await self._disconnect()
        if self._watcher is None:
            self._watcher = await self._connect()
            self._connected_at = self._now()
            self._pages_pay = True
        return self._watcher

    async def _disconnect(self) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            await watcher.close()

    def _stopped(self, task: asyncio.Task[None]) -> None:
        """Nobody may wait for ever on a poller that has stopped."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("The poller stopped; those who wait here are told and their tasks try again.", exc_info=error)
        for waiter in self._waiters:
            if not waiter.news.done():
                waiter.news.set_exception(error) if error else waiter.news.cancel()
