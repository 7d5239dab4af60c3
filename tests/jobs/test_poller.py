"""The shared poller: one client and few calls for all who wait on a loop, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_geminibatch.core.errors import BadConnection, JobUnreachable, KeyRefused, ServiceBusy
from airflow_provider_geminibatch.core.model import JobSnapshot
from airflow_provider_geminibatch.core.watch import Look, Unreachable, Watch
from airflow_provider_geminibatch.gemini.gateway import JobPage
from airflow_provider_geminibatch.jobs import poller as poller_module
from airflow_provider_geminibatch.jobs.poller import AT_ONCE, STALE, Poller, polling
from airflow_provider_geminibatch.jobs.wait import wait_in_loop
from airflow_provider_geminibatch.testing import ManualClock

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = timedelta(minutes=1)
WHO = contextvars.ContextVar("who", default="nobody")


class Service:
    """Jobs by name with their states, in pages of a hundred; clients made by ``connect`` are counted."""

    def __init__(self, **states: str) -> None:
        self.states = {f"batches/{name}": state for name, state in states.items()}
        self.pages, self.gets, self.in_flight, self.most_in_flight = 0, list[str](), 0, 0
        self.clients: list[Client] = []
        self.error: Exception | None = None
        self.connect_error: Exception | None = None
        self.listed = True

    async def connect(self) -> Client:
        if self.connect_error:
            raise self.connect_error
        self.clients.append(Client(self))
        return self.clients[-1]


class Client:
    """A watcher of the service."""

    def __init__(self, service: Service) -> None:
        self.service, self.closed, self.who = service, False, WHO.get()

    async def jobs(self, page_token: str = "") -> JobPage:
        assert not self.closed
        self.service.pages += 1
        if self.service.error:
            raise self.service.error
        at = int(page_token or 0)
        names = list(self.service.states) if self.service.listed else []
        shown = tuple(JobSnapshot(name=name, state=self.service.states[name]) for name in names[at : at + 100])
        return JobPage(shown, str(at + 100) if at + 100 < len(names) else "")

    async def job(self, job_name: str) -> JobSnapshot:
        assert not self.closed
        service = self.service
        service.gets.append(job_name)
        service.in_flight += 1
        service.most_in_flight = max(service.most_in_flight, service.in_flight)
        await asyncio.sleep(0)
        service.in_flight -= 1
        if service.error:
            raise service.error
        if job_name not in service.states:
            raise JobUnreachable(job_name, 404, "not found")
        return JobSnapshot(name=job_name, state=service.states[job_name])

    async def close(self) -> None:
        self.closed = True


def run(story: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        await asyncio.wait_for(story(), 20)
        assert poller_module._pollers == {}
        assert [task for task in asyncio.all_tasks() if task.get_name() == "geminibatch-poller"] == []

    asyncio.run(bounded())


def states(look: Look) -> dict[str, str]:
    return {sight.name: sight.state for sight in look.sights if isinstance(sight, JobSnapshot)}


async def settled() -> None:
    """Let everything that can go on go on."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_one_job_is_got_and_many_are_read_from_the_list() -> None:
    clock, service = ManualClock(NOON), Service(a="RUNNING", b="SUCCEEDED", c="PENDING")

    async def story() -> None:
        async with polling("conn", service.connect, now=clock) as poller:
            assert states(await poller.look(["batches/a"], NOON)) == {"batches/a": "RUNNING"}
            assert (service.pages, service.gets) == (0, ["batches/a"])
            assert states(await poller.look(["batches/b", "batches/c"], NOON)) == {
                "batches/b": "SUCCEEDED",
                "batches/c": "PENDING",
            }
            assert (service.pages, len(service.gets)) == (1, 1)

    run(story)


def test_ten_thousand_waiters_cost_a_page_per_hundred_jobs_and_one_client() -> None:
    clock, service = ManualClock(NOON), Service(**{f"j{number}": "RUNNING" for number in range(10_000)})

    async def waiter(name: str) -> Look:
        async with polling("conn", service.connect, now=clock) as poller:
            return await poller.look([name], NOON)

    async def story() -> None:
        looks = await asyncio.gather(*(waiter(name) for name in service.states))
        assert [states(look) for look in looks] == [{name: "RUNNING"} for name in service.states]
        assert (service.pages, service.gets) == (100, [])
        assert [client.closed for client in service.clients] == [True]

    run(story)


def test_who_is_on_a_page_gets_it_for_free_and_is_in_step_from_then_on() -> None:
    clock, service = ManualClock(NOON), Service(a="RUNNING", b="RUNNING", c="RUNNING")

    async def story() -> None:
        async with polling("conn", service.connect, now=clock) as poller:
            early = asyncio.create_task(poller.look(["batches/c"], NOON + LATER))
            await settled()
            await poller.look(["batches/a", "batches/b"], NOON)
            assert states(await early) == {"batches/c": "RUNNING"}
            assert (service.pages, service.gets) == (1, [])

    run(story)


def test_nobody_is_served_before_their_time_unless_it_is_free() -> None:
    clock, service = ManualClock(NOON), Service(a="RUNNING", b="RUNNING")

    async def story() -> None:
        async with polling("conn", service.connect, now=clock) as poller:
            early = asyncio.create_task(poller.look(["batches/b"], NOON + LATER))
            await poller.look(["batches/a"], NOON)
            await settled()
            assert not early.done()
            clock.advance(LATER)
            await poller.look(["batches/a"], NOON)
            assert states(await early) == {"batches/b": "RUNNING"}

    run(story)


def test_a_job_that_the_list_does_not_show_is_got() -> None:
    clock, service = ManualClock(NOON), Service(a="RUNNING", b="RUNNING")
    service.listed = False

    async def story() -> None:
        async with polling("conn", service.connect, now=clock) as poller:
            look = await poller.look(["batches/a", "batches/gone"], NOON)
            assert states(look) == {"batches/a": "RUNNING"}
            assert look.sights[-1] == Unreachable("batches/gone", "404: not found")
            assert look.miss is None

    run(story)


def test_gets_run_together_but_not_more_than_eight() -> None:
    clock, service = ManualClock(NOON), Service(**{f"j{number}": "RUNNING" for number in range(50)})
    service.listed = False

    async def story() -> None:
        async with polling("conn", service.connect, now=clock) as poller:
            await poller.look(list(service.states), NOON)
            assert len(service.gets) == 50
            assert service.most_in_flight == AT_ONCE

    run(story)


def test_an_error_of_the_service_is_a_miss_for_those_who_were_due() -> None:
    clock, service = ManualClock(NOON), Service(a="RUNNING")
    service.error = ServiceBusy("look", 503, "overloaded")

    async def story() -> None:
        async with polling("conn", service.connect, now=clock) as poller:
            look = await poller.look(["batches/a"], NOON)
            assert look.miss is not None
            assert look.miss.kind == "ServiceBusy 503"
            service.error = None
            assert states(await poller.look(["batches/a"], NOON)) == {"batches/a": "RUNNING"}

    run(story)


def test_a_list_that_fails_is_a_miss_and_the_next_round_tries_again() -> None:
    clock, service = ManualClock(NOON), Service(a="RUNNING", b="RUNNING")
    service.error = KeyRefused("list of jobs", 401, "bad key")

    async def story() -> None:
        async with polling("conn", service.connect, now=clock) as poller:
            look = await poller.look(["batches/a", "batches/b"], NOON)
            assert (look.sights, look.miss and look.miss.kind) == ((), "KeyRefused 401")
            service.error = None
            assert len(states(await poller.look(["batches/a", "batches/b"], NOON))) == 2
            assert len(service.clients) == 2

    run(story)


def test_a_connection_that_cannot_be_read_is_a_miss_too() -> None:
    clock, service = ManualClock(NOON), Service(a="RUNNING")
    service.connect_error = BadConnection("conn", "it does not exist", "Create it.")

    async def story() -> None:
        async with polling("conn", service.connect, now=clock) as poller:
            look = await poller.look(["batches/a"], NOON)
            assert look.miss is not None
            assert look.miss.kind == "BadConnection"
            service.connect_error = None
            assert states(await poller.look(["batches/a"], NOON)) == {"batches/a": "RUNNING"}

    run(story)


def test_a_refused_key_is_read_again_from_the_connection_at_the_next_look() -> None:
    clock, service = ManualClock(NOON), Service(a="RUNNING")

    async def story() -> None:
        async with polling("conn", service.connect, now=clock) as poller:
            service.error = KeyRefused("look", 401, "bad key")
            await poller.look(["batches/a"], NOON)
            service.error = None
            await poller.look(["batches/a"], NOON)
            assert [client.closed for client in service.clients] == [True, False]

    run(story)


def test_a_client_is_used_for_five_minutes_and_then_made_anew() -> None:
    clock, service = ManualClock(NOON), Service(a="RUNNING")

    async def story() -> None:
        async with polling("conn", service.connect, now=clock) as poller:
            await poller.look(["batches/a"], NOON)
            clock.advance(STALE - timedelta(seconds=1))
            await poller.look(["batches/a"], NOON)
            assert len(service.clients) == 1
            clock.advance(timedelta(seconds=1))
            await poller.look(["batches/a"], NOON)
            assert [client.closed for client in service.clients] == [True, False]

    run(story)


def test_connections_have_pollers_of_their_own_and_share_nothing() -> None:
    clock, one, other = ManualClock(NOON), Service(a="RUNNING"), Service(a="SUCCEEDED")

    async def story() -> None:
        async with (
            polling("one", one.connect, now=clock) as first,
            polling("other", other.connect, now=clock) as second,
        ):
            assert states(await first.look(["batches/a"], NOON)) == {"batches/a": "RUNNING"}
            assert states(await second.look(["batches/a"], NOON)) == {"batches/a": "SUCCEEDED"}

    run(story)


def test_it_closes_when_the_last_one_leaves_and_opens_again_for_the_next() -> None:
    clock, service = ManualClock(NOON), Service(a="RUNNING")

    async def story() -> None:
        async with polling("conn", service.connect, now=clock) as outer:
            async with polling("conn", service.connect, now=clock) as inner:
                assert inner is outer
                await inner.look(["batches/a"], NOON)
            assert not service.clients[0].closed
        assert service.clients[0].closed
        async with polling("conn", service.connect, now=clock) as fresh:
            assert fresh is not outer

    run(story)


def test_a_cancelled_waiter_leaves_without_harm_to_the_others() -> None:
    clock, service = ManualClock(NOON), Service(a="RUNNING", b="RUNNING")

    async def waiter(name: str, at: datetime) -> Look:
        async with polling("conn", service.connect, now=clock) as poller:
            return await poller.look([name], at)

    async def story() -> None:
        staying = asyncio.create_task(waiter("batches/a", NOON + LATER))
        leaving = asyncio.create_task(waiter("batches/b", NOON + LATER))
        await settled()
        leaving.cancel()
        clock.advance(LATER)
        await waiter("batches/b", NOON)
        assert states(await staying) == {"batches/a": "RUNNING"}
        assert leaving.cancelled()

    run(story)


def test_it_works_in_an_empty_context_so_that_no_task_log_is_written_by_another_task() -> None:
    clock, service = ManualClock(NOON), Service(a="RUNNING")

    async def story() -> None:
        WHO.set("the first trigger")
        async with polling("conn", service.connect, now=clock) as poller:
            await poller.look(["batches/a"], NOON)
        assert service.clients[0].who == "nobody"

    run(story)


def test_an_error_that_is_not_the_services_reaches_all_who_wait_and_the_next_one_starts_afresh() -> None:
    clock, service = ManualClock(NOON), Service(a="RUNNING")
    service.error = ZeroDivisionError("a bug")

    async def story() -> None:
        async with polling("conn", service.connect, now=clock) as poller:
            waiting = asyncio.create_task(poller.look(["batches/b"], NOON + LATER))
            await settled()
            with pytest.raises(ZeroDivisionError):
                await poller.look(["batches/a"], NOON)
            with pytest.raises(ZeroDivisionError):
                await waiting
            with pytest.raises(ZeroDivisionError):
                await poller.look(["batches/a"], NOON)
            assert poller.broken
            service.error = None
            async with polling("conn", service.connect, now=clock) as fresh:
                assert states(await fresh.look(["batches/a"], NOON)) == {"batches/a": "RUNNING"}
        gc.collect()

    run(story)


def test_a_loop_that_ends_under_a_waiter_leaves_no_poller_behind() -> None:
    clock, service = ManualClock(NOON), Service(a="RUNNING")

    async def forever() -> None:
        async with polling("conn", service.connect, now=clock) as poller:
            await poller.look(["batches/a"], NOON + LATER)

    async def main() -> None:
        task = asyncio.create_task(forever())
        await settled()
        assert not task.done()

    asyncio.run(main())
    assert poller_module._pollers == {}


def test_the_driver_waits_through_the_poller() -> None:
    clock, service = ManualClock(NOON), Service(a="RUNNING")

    class Impatient(Poller):
        """A poller whose clock moves on to when somebody is due."""

        async def look(self, names: object, at: datetime) -> Look:
            clock.advance_to(at)
            if at > NOON:
                service.states["batches/a"] = "SUCCEEDED"
            return await super().look(names, at)  # type: ignore[arg-type]

    async def story() -> None:
        poller = Impatient(service.connect, now=clock)
        lines: list[str] = []
        await wait_in_loop(Watch(names=("batches/a",), since=NOON), poller.look, say=lines.append, now=clock)
        await poller.close()
        assert lines == ["batches/a RUNNING; after 0 s", "batches/a SUCCEEDED; after 5 s; was RUNNING"]

    run(story)


def test_a_list_that_fails_is_made_up_for_by_gets_and_everybody_gets_a_turn() -> None:
    clock, service = ManualClock(NOON), Service(**{f"j{number}": "RUNNING" for number in range(250)})

    class Listless(Client):
        async def jobs(self, page_token: str = "") -> JobPage:
            self.service.pages += 1
            raise ServiceBusy("list of jobs", 500, "internal")

    async def connect() -> Listless:
        return Listless(service)

    async def story() -> None:
        shown: list[str] = []
        async with polling("conn", connect, now=clock) as poller:
            for _ in range(3):
                look = await poller.look(list(service.states), clock())
                assert look.miss is not None
                shown += states(look)
                clock.advance(LATER)
        assert [len(shown), len(set(shown)), service.pages] == [300, 250, 3]

    run(story)


def test_a_get_that_fails_is_made_up_for_by_the_list() -> None:
    clock, service = ManualClock(NOON), Service(a="SUCCEEDED", b="RUNNING")

    class Getless(Client):
        async def job(self, job_name: str) -> JobSnapshot:
            self.service.gets.append(job_name)
            raise ServiceBusy(f"look at {job_name}", 500, "id too long")

    async def connect() -> Getless:
        return Getless(service)

    async def story() -> None:
        async with polling("conn", connect, now=clock) as poller:
            look = await poller.look(["batches/a"], NOON)
            assert states(look) == {"batches/a": "SUCCEEDED"}
            assert look.miss is None

    run(story)


@pytest.mark.parametrize("code", [429, 503])
def test_a_service_that_asks_for_time_is_left_alone_by_all_who_wait(code: int) -> None:
    clock, service = ManualClock(NOON), Service(a="RUNNING", b="RUNNING", c="RUNNING")
    service.error = ServiceBusy("list of jobs", code, "overloaded")
    service.error.retry_after_seconds = 120.0

    async def story() -> None:
        async with polling("conn", service.connect, now=clock) as poller:
            first = await poller.look(["batches/a", "batches/b"], NOON)
            assert first.miss is not None
            assert (first.miss.hold_seconds, service.pages, service.gets) == (120.0, 1, [])
            clock.advance(timedelta(seconds=50))
            second = await poller.look(["batches/c"], NOON)
            assert second.miss is not None
            assert (second.miss.hold_seconds, service.pages, service.gets) == (70.0, 1, [])
            service.error = None
            clock.advance(timedelta(seconds=70))
            assert states(await poller.look(["batches/c"], NOON)) == {"batches/c": "RUNNING"}

    run(story)


def test_waiters_out_of_step_fall_into_step_and_cost_a_page_instead_of_gets() -> None:
    """Thirty waiters, each due at a time of its own: within an interval they are served together."""
    clock, service = ManualClock(NOON), Service(**{f"j{number}": "RUNNING" for number in range(30)})

    async def waiter(name: str, at: datetime) -> None:
        async with polling("conn", service.connect, now=clock) as poller:
            for _ in range(10):
                await poller.look([name], at)
                at = clock() + LATER

    async def story() -> None:
        tasks = [
            asyncio.create_task(waiter(name, NOON + number * timedelta(seconds=2)))
            for number, name in enumerate(service.states)
        ]
        while not all(task.done() for task in tasks):
            await settled()
            clock.advance(timedelta(seconds=1))
            for poller in poller_module._pollers.values():
                poller._wake.set()
        assert service.pages + len(service.gets) <= 15

    run(story)


def test_a_page_that_shows_nobody_who_waits_is_not_asked_for_a_single_name_again() -> None:
    clock, service = ManualClock(NOON), Service(**{f"j{number}": "RUNNING" for number in range(300)})
    deep = [f"batches/j{number}" for number in range(200, 210)]

    async def waiter(poller: Poller, name: str, at: datetime) -> None:
        await poller.look([name], at)

    async def story() -> None:
        async with polling("conn", service.connect, now=clock) as poller:
            others = [asyncio.create_task(waiter(poller, name, NOON + 60 * LATER)) for name in deep[1:]]
            await settled()
            for _ in range(3):
                await poller.look([deep[0]], NOON)
            assert (service.pages, len(service.gets)) == (1, 3)
            for task in others:
                task.cancel()

    run(story)


def test_feeding_many_lets_others_have_their_turn() -> None:
    clock, service = ManualClock(NOON), Service(a="RUNNING", b="RUNNING")

    async def story() -> None:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async with polling("conn", service.connect, now=clock) as poller:
            waiters = [asyncio.create_task(poller.look(["batches/a"], NOON)) for _ in range(1000)]
            await asyncio.sleep(0)
            task = asyncio.create_task(other())
            done, _ = await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
            assert len(done) < 1000
            await asyncio.gather(*waiters)
            task.cancel()
        assert turns >= 10

    run(story)


def test_looking_at_nothing_asks_nothing() -> None:
    clock, service = ManualClock(NOON), Service()

    async def story() -> None:
        async with polling("conn", service.connect, now=clock) as poller:
            assert await poller.look([], NOON) == Look()
        assert service.clients == []

    run(story)


def test_two_triggerers_have_a_poller_each_and_neither_waits_for_the_other() -> None:
    """Two loops in two threads, as two triggerers are two processes: each costs a page per look."""
    clock, service = ManualClock(NOON), Service(**{f"j{number}": "RUNNING" for number in range(50)})
    seen: list[int] = []

    async def triggerer() -> None:
        async with polling("conn", service.connect, now=clock) as poller:
            looks = await asyncio.gather(*(poller.look([name], NOON) for name in service.states))
            seen.append(sum(len(states(look)) for look in looks))

    threads = [threading.Thread(target=asyncio.run, args=(triggerer(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert seen == [50, 50]
    assert (service.pages, service.gets, len(service.clients)) == (2, [], 2)
    assert poller_module._pollers == {}


def test_who_joins_while_a_look_is_under_way_is_served_by_the_next_one() -> None:
    clock, service = ManualClock(NOON), Service(a="RUNNING", b="RUNNING", c="RUNNING")
    gate = asyncio.Event()

    class Slow(Client):
        async def jobs(self, page_token: str = "") -> JobPage:
            await gate.wait()
            return await super().jobs(page_token)

        async def job(self, job_name: str) -> JobSnapshot:
            await gate.wait()
            return await super().job(job_name)

    async def connect() -> Slow:
        return Slow(service)

    async def story() -> None:
        async with polling("conn", connect, now=clock) as poller:
            first = [asyncio.create_task(poller.look([name], NOON)) for name in ("batches/a", "batches/b")]
            await settled()
            late = asyncio.create_task(poller.look(["batches/other"], NOON))
            first[0].cancel()
            await settled()
            gate.set()
            assert states(await first[1]) == {"batches/b": "RUNNING"}
            assert (await late).sights == (Unreachable("batches/other", "404: not found"),)
            assert first[0].cancelled()

    run(story)
