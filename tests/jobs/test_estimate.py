"""The estimate of a batch: its open jobs, by what its workspace remembers."""

from __future__ import annotations

import logging
from datetime import timedelta

from airflow_provider_geminibatch.core.eta import UNKNOWN
from airflow_provider_geminibatch.core.names import segment
from airflow_provider_geminibatch.jobs.ending import note_ends, read_batch
from airflow_provider_geminibatch.jobs.estimate import estimate_batches, estimate_build
from airflow_provider_geminibatch.jobs.submit import read_build, submit
from airflow_provider_geminibatch.storage.stores import MemoryStore
from airflow_provider_geminibatch.testing import InMemoryGateway, ManualClock
from tests.jobs.batches import MODEL, seal

LOG = logging.getLogger("test")
HOUR = timedelta(hours=1)


class World:
    """A submitted batch of three shards, and a history of jobs that took one to thirty hours."""

    def __init__(self, *, known: bool = True) -> None:
        self.clock, self.store = ManualClock(), MemoryStore("memory://w")
        self.service = InMemoryGateway(self.clock, turnaround=20 * HOUR)
        self.manifest = seal(self.store, shards=3)
        ended = self.clock() - timedelta(days=1)
        for hours in range(1, 31) if known else ():
            name = f"{ended:%Y%m%dT%H%M%SZ}_{hours * 3600}_SUCCEEDED_2_a"
            self.store.create(f"history/{segment(str(self.service.identity))}/{MODEL}/{ended:%Y-%m}/{name}", b"")
        self.submitted = submit(self.manifest, store=self.store, gateway=self.service, me="me", now=self.clock, log=LOG)
        self.build = read_build(self.store, self.manifest.path)


def test_each_open_job_is_told_by_how_long_it_has_waited() -> None:
    world = World()
    sent = world.clock()
    world.clock.advance(5 * HOUR)
    seen = estimate_build(world.build, world.store, world.clock())
    assert list(seen) == ["batches/000000", "batches/000001", "batches/000002"]
    assert {(one.n, one.passed, one.began) for one in seen.values()} == {(25, 5, sent)}
    assert estimate_batches([(world.manifest, world.store)], world.clock()) == seen["batches/000000"]


def test_jobs_that_have_ended_are_not_expected() -> None:
    world = World()
    world.clock.advance(20 * HOUR)
    batch = read_batch(world.manifest, world.store)
    note_ends(world.store, batch, {"batches/000000": world.service.job("batches/000000")}, owner="x", now=world.clock())
    seen = estimate_build(world.build, world.store, world.clock(), ended={"batches/000001"})
    assert list(seen) == ["batches/000002"]


def test_without_a_history_nothing_is_claimed() -> None:
    world = World(known=False)
    assert estimate_batches([(world.manifest, world.store)], world.clock()) == UNKNOWN


def test_a_batch_that_was_never_sent_has_no_estimate() -> None:
    store = MemoryStore("memory://other")
    assert estimate_build(read_build(store, seal(store).path), store, ManualClock()()) == {}
