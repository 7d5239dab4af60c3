"""Waves: a service with little room gets one question at a time, and every shard becomes one job in the end."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from airflow_provider_geminibatch.core.errors import GeminiBatchError, ServiceBusy, SubmissionRefused, Superseded
from airflow_provider_geminibatch.core.model import BatchId
from airflow_provider_geminibatch.core.room import Room
from airflow_provider_geminibatch.emulator import Emulator, Limits, running
from airflow_provider_geminibatch.gemini.developer import DeveloperGateway, Settings
from airflow_provider_geminibatch.gemini.gateway import Refused
from airflow_provider_geminibatch.jobs.room import read_room, room_path
from airflow_provider_geminibatch.jobs.submit import Submitted, Waiting, submit
from airflow_provider_geminibatch.storage.stores import MemoryStore
from airflow_provider_geminibatch.testing import InMemoryGateway, ManualClock
from tests.faults import WAYS, Crash, FaultyGateway, FaultyStore, Plan
from tests.jobs.batches import seal

LOG = logging.getLogger("test")
MODEL = "gemini-3.8-flash"
SOON = timedelta(minutes=1)


class Narrow(InMemoryGateway):
    """A service that takes ``places`` jobs at once; ``asked`` counts the creates it was sent."""

    def __init__(self, clock: ManualClock, places: int, *, turnaround: timedelta = timedelta(hours=2)) -> None:
        super().__init__(clock, turnaround=turnaround)
        self.clock, self.places, self.asked, self.most = clock, places, 0, 0
        self.times: list[datetime] = []

    def create(self, **fields: Any) -> Any:
        self.asked += 1
        self.times.append(self.clock())
        if self.running >= self.places:
            return Refused(429, "Resource has been exhausted (e.g. check quota).")
        reply = super().create(**fields)
        self.most = max(self.most, self.running)
        return reply

    @property
    def running(self) -> int:
        return sum(not self.job(job.name).ended for job in self.created)


class World:
    """A workspace and a narrow service."""

    def __init__(self, *, shards: int, places: int, turnaround: timedelta = timedelta(hours=2)) -> None:
        self.clock = ManualClock()
        self.service = Narrow(self.clock, places, turnaround=turnaround)
        self.store = MemoryStore("memory://w")
        self.manifest = seal(self.store, shards=shards)
        self.tries, self.walks = 0, 0

    def walk(self, plan: Plan | None = None, me: str = "me", **more: Any) -> Submitted | Waiting:
        plan = plan or Plan()
        self.walks += 1
        store, gateway = FaultyStore(self.store, plan), FaultyGateway(self.service, plan)
        return submit(self.manifest, store=store, gateway=gateway, me=me, now=self.clock, log=LOG, **more)

    def attempt(self, plan: Plan | None = None) -> Submitted:
        """One try of the task over all its deferrals."""
        self.tries += 1
        me, plan = f"try-{self.tries}", plan or Plan()
        later_try = self.tries > 1
        while True:
            end = self.walk(plan, me, later_try=later_try)
            if isinstance(end, Submitted):
                return end
            self.clock.advance_to(end.until)

    @property
    def room(self) -> Room:
        return read_room(self.store, str(self.service.identity), MODEL)


def test_after_the_first_429_the_other_shards_wait_too_instead_of_each_asking() -> None:
    world = World(shards=12, places=4)
    end = world.walk()
    assert isinstance(end, Waiting)
    assert world.service.asked == 5
    assert len(world.service.files) == 5
    assert (world.room.ceiling, len(world.room.open)) == (4, 4)
    assert end.why.startswith("4 of 12 shards are jobs; no room at the service: Resource has been exhausted")


def test_while_there_is_no_room_a_walk_asks_nothing_before_its_time() -> None:
    world = World(shards=12, places=4)
    first = world.walk()
    assert isinstance(first, Waiting)
    for _ in range(5):
        again = world.walk()
        assert isinstance(again, Waiting)
        assert again.until == first.until
    assert world.service.asked == 5


def test_all_shards_go_out_in_waves_and_none_is_paid_twice() -> None:
    world = World(shards=30, places=5)
    done = world.attempt()
    assert len(world.service.created) == len(done.job_names) == 30
    assert world.service.most == 5
    refused = world.service.asked - 30
    # Ten hours of waiting for room, and the service was asked in vain a few times an hour.
    assert world.clock() - ManualClock()() >= timedelta(hours=10)
    assert refused <= 60
    assert world.walks <= 200


def test_two_batches_of_a_workspace_share_what_they_learn() -> None:
    world = World(shards=6, places=3)
    world.walk()
    asked = world.service.asked
    other = seal(world.store, shards=6, batch=BatchId("dag", "another", "prepare"))
    end = submit(other, store=world.store, gateway=world.service, me="other", now=world.clock, log=LOG)
    assert isinstance(end, Waiting)
    assert world.service.asked == asked


def test_jobs_that_end_are_noticed_by_looking_and_make_room() -> None:
    world = World(shards=9, places=3, turnaround=timedelta(hours=1))
    world.walk()
    world.clock.advance(timedelta(hours=1))
    end = world.walk()
    assert isinstance(end, Waiting)
    assert len(world.service.created) == 6
    assert len(world.room.open) == 3


def test_retry_after_holds_for_all_of_them() -> None:
    world = World(shards=5, places=0)
    world.service.create = lambda **fields: Refused(429, "quota", 1200.0)  # type: ignore[method-assign]
    end = world.walk()
    assert isinstance(end, Waiting)
    assert end.until == world.clock() + timedelta(seconds=1200)
    assert world.room.not_before == end.until


def test_room_that_never_comes_is_an_error_after_a_day_and_not_while_our_own_jobs_hold_it() -> None:
    world = World(shards=2, places=0)
    with pytest.raises(SubmissionRefused, match="Wait for jobs to end or raise the quota"):
        world.attempt()
    assert world.clock() - ManualClock()() >= timedelta(hours=24)
    patient = World(shards=2, places=1, turnaround=timedelta(hours=40))
    assert len(patient.attempt().job_names) == 2


def test_a_room_that_cannot_be_read_or_written_costs_nothing_but_advice() -> None:
    world = World(shards=3, places=9)
    world.store.create(room_path(str(world.service.identity), MODEL), b"not json")
    assert len(world.attempt().job_names) == 3
    assert len(world.room.open) == 3

    class Broken(FaultyStore):
        def write(self, path: str, data: bytes) -> None:
            from airflow_provider_geminibatch.core.errors import StoreUnwritable

            raise StoreUnwritable(path, "read-only")

        def read(self, path: str) -> bytes | None:
            from airflow_provider_geminibatch.core.errors import StoreUnreadable

            if path.startswith("room/"):
                raise StoreUnreadable(path, "out of reach")
            return world.store.read(path)

    fresh = World(shards=3, places=9)
    world.store = fresh.store
    end = submit(
        fresh.manifest, store=Broken(fresh.store, Plan()), gateway=fresh.service, me="me", now=fresh.clock, log=LOG
    )
    assert isinstance(end, Submitted)


def test_a_service_that_does_not_show_our_jobs_leaves_the_room_as_it_was() -> None:
    world = World(shards=4, places=2)

    def busy(*_: Any) -> Any:
        raise ServiceBusy("look", 503, "overloaded")

    world.service.jobs = busy  # type: ignore[method-assign]
    world.service.job = busy  # type: ignore[method-assign]
    world.store.create(
        room_path(str(world.service.identity), MODEL),
        msgspec.json.encode(
            Room(ceiling=1, refused_at=world.clock(), open={"batches/x": world.clock(), "batches/y": world.clock()})
        ),
    )
    end = world.walk()
    assert isinstance(end, Waiting)
    assert "2 jobs are open" in end.why
    assert world.service.asked == 0


def effects_of_a_quiet_attempt() -> list[str]:
    plan = Plan()
    World(shards=2, places=1, turnaround=SOON).attempt(plan)
    return plan.seen


QUIET = effects_of_a_quiet_attempt()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("at", range(len(QUIET)), ids=lambda at: f"{at}-{QUIET[at].replace(' ', '-')}")
def test_crash_matrix_of_waves(at: int, way: str) -> None:
    """Two shards, room for one: every effect of the whole story going wrong in every way."""
    world = World(shards=2, places=1, turnaround=SOON)
    if way == "frozen":
        with suppress(Superseded):
            world.attempt(Plan(at, way, meanwhile=world.attempt))
    else:
        with suppress(Crash, GeminiBatchError):
            world.attempt(Plan(at, way))

    done = world.attempt()

    created = [job.display_name for job in world.service.created]
    assert len(created) == len(set(created)) == 2
    assert set(done.job_names) == {job.name for job in world.service.created}
    assert world.service.most == 1


@pytest.fixture
def service() -> Iterator[tuple[Emulator, str]]:
    start = datetime(2026, 11, 1, tzinfo=UTC)
    with running(Emulator(seed=3, start=start, speed=0, turnaround=(1, 2), limits=Limits(concurrent_jobs=2))) as server:
        yield server.emulator, server.url


def test_the_emulators_quota_is_met_in_waves_over_the_real_wire(service: tuple[Emulator, str]) -> None:
    emulator, url = service
    store = MemoryStore("memory://w")
    manifest = seal(store, shards=7)
    with closing(DeveloperGateway(Settings("k", url))) as gateway:
        for _ in range(500):
            end = submit(manifest, store=store, gateway=gateway, me="me", now=emulator.clock.now, log=LOG)
            if isinstance(end, Submitted):
                break
            emulator.clock.advance(seconds=(end.until - emulator.clock.now()).total_seconds())
    assert isinstance(end, Submitted)
    assert len(emulator.jobs) == len({job.display_name for job in emulator.jobs}) == 7
    assert emulator.log.count("batches.create", status=429) <= 40
    assert emulator.log.count("files.start") == 7
