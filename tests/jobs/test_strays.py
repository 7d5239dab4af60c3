"""Jobs whose answers nobody takes: they keep no window from landing, and what they cost is told, or told to be unknown."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_geminibatch.core.batch import BatchPolicy, Rung
from airflow_provider_geminibatch.core.errors import JobUnreachable
from airflow_provider_geminibatch.core.ledger import JobNamed, Settled, attempt_path
from airflow_provider_geminibatch.core.model import Build
from airflow_provider_geminibatch.core.verdict import Thresholds
from airflow_provider_geminibatch.jobs.layers import build_path, rungs_of
from airflow_provider_geminibatch.jobs.submit import read_build
from airflow_provider_geminibatch.storage import facts as fact_store
from tests.jobs import test_collect, test_whole
from tests.jobs.test_whole import ending


def second_job(service: Any, store: Any, build: Build) -> str:
    """A second job of the first shard's create, which is on record as such."""
    shard = build.shards[0]
    with store.open(shard.path) as source:
        sent = service.upload(source, size_bytes=shard.size_bytes, display_name="again")
    name: str = service.create(model=build.model, file_name=sent.name, display_name="again").job.name
    path = attempt_path(shard.ledger, 1, "job")
    fact = fact_store.get(store, path, JobNamed)
    assert fact is not None
    store.delete(path)
    again = JobNamed(owner=fact.owner, at=fact.at, job_name=fact.job_name, how=fact.how, extras=(name,))
    fact_store.put(store, path, again)
    return name


def forgets(service: Any, *names: str) -> None:
    """The service shows these jobs no more."""
    known = service.job

    def job(name: str) -> Any:
        if name in names:
            raise JobUnreachable(name, 404, "not found")
        return known(name)

    service.job = job


def test_a_second_job_is_costed_once_and_its_cost_outlives_it() -> None:
    world = test_collect.World()
    name = second_job(world.service, world.store, world.build)
    world.clock.advance(timedelta(hours=4))
    first = world.load()
    assert [stray.name for stray in first.manifest.strays] == [name]
    assert first.manifest.strays_cost_usd == first.manifest.cost_usd == "0.000009"
    forgets(world.service, name)
    again = world.load(me="cleared", thresholds=Thresholds(max_unresolved=0.5))
    assert again.manifest.strays_cost_usd == "0.000009"
    assert [(stray.name, stray.state) for stray in again.manifest.strays] == [(name, "UNKNOWN")]


def test_a_job_that_the_service_has_forgotten_keeps_no_window_from_landing() -> None:
    world = test_collect.World()
    name = second_job(world.service, world.store, world.build)
    forgets(world.service, name)
    landed = world.load()
    assert landed.counts["answer"] == 2
    assert landed.manifest.strays_cost_usd is None
    assert landed.manifest.cost_usd == "0.000009"


def test_a_stray_job_that_still_runs_costs_nobody_knows_what() -> None:
    world = test_collect.World()
    second_job(world.service, world.store, world.build)
    landed = world.load()
    assert [stray.state for stray in landed.manifest.strays] == ["PENDING"]
    assert landed.manifest.strays_cost_usd is None


def test_stray_jobs_of_a_rung_are_looked_for_where_it_asked() -> None:
    world = test_whole.World(turnaround=timedelta(days=9))
    rung = Rung("resubmit", limit=timedelta(hours=2), model="gemini-3.7-flash", conn_id="other")
    policy = BatchPolicy(deadline=timedelta(hours=11), ladder=(rung,))
    world.waits(policy)
    world.clock.advance(timedelta(hours=11))
    world.waits(policy)
    (opened,) = rungs_of(world.store, read_build(world.store, world.manifest.path))
    assert opened.build is not None
    build = read_build(world.store, build_path(opened.build, opened.build.id))
    name = second_job(world.elsewhere, world.store, build)
    landed = world.on(policy)
    assert [stray.name for stray in landed.manifest.strays] == [name]
    assert landed.manifest.strays_cost_usd == landed.manifest.cost_usd


@pytest.mark.parametrize("shows", [True, False])
def test_a_job_that_was_given_up_and_brings_its_results_after_all_is_in_the_bill(shows: bool) -> None:
    world = test_whole.World(turnaround=timedelta(days=9))
    world.service.cancel = lambda name: None  # type: ignore[method-assign]
    policy = BatchPolicy(deadline=timedelta(hours=11), ladder=(Rung("flex", limit=timedelta(hours=1)),))
    world.waits(policy)
    world.clock.advance(timedelta(hours=11))
    for _ in range(20):
        if world.fact("rungs/01.settled", Settled):
            break
        world.service.generate = never  # type: ignore[method-assign]
        try:
            world.walk(policy)
        except Interrupted:
            break
        world.clock.advance(timedelta(minutes=11))
    assert len(world.fact("rungs/01.settled", Settled).given_up) == 1
    del world.service.generate
    if shows:
        ending(world, "row 0")
    landed = world.on(policy)
    assert [row[1] for row in world.told()] == ["answer"] * 3
    assert [stray.name for stray in landed.manifest.strays] == ["batches/000000"]
    assert landed.manifest.strays_cost_usd == ("0.0000135" if shows else None)


class Interrupted(BaseException):
    """The process ended."""


def never(*asked: Any, **how: Any) -> Any:
    raise Interrupted


def test_a_job_that_the_service_shows_no_more_does_not_outlast_the_deadline() -> None:
    world = test_whole.World(shards=2)
    policy = BatchPolicy(deadline=timedelta(hours=11), ladder=(Rung("flex", limit=timedelta(hours=1)),))
    world.waits(policy)
    world.clock.advance(timedelta(hours=4))
    shown = world.service.download
    world.service.download = stopped  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        world.walk(policy)
    world.service.download, known = shown, world.service.job  # type: ignore[method-assign]

    def job(name: str) -> Any:
        if name == "batches/000001":
            raise JobUnreachable(name, 404, "not found")
        return known(name)

    world.service.job = job  # type: ignore[method-assign]
    with pytest.raises(JobUnreachable):
        world.walk(policy)
    world.clock.advance(timedelta(hours=8))
    landed = world.on(policy)
    assert [row[1] for row in world.told()] == ["answer"] * 6
    assert landed.manifest.strays_cost_usd is None


def stopped(*asked: Any, **how: Any) -> Any:
    raise KeyboardInterrupt
