"""The end of what ran before a rescue: last look, cancel, at most ten minutes, collect."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_geminibatch.core.errors import JobUnreachable, ServiceBusy
from airflow_provider_geminibatch.core.ledger import ShardFacts
from airflow_provider_geminibatch.core.model import Build, JobSnapshot
from airflow_provider_geminibatch.jobs.settle import PATIENCE, SettledJobs, prepare_rescue
from airflow_provider_geminibatch.jobs.submit import Submitted, read_build, submit
from airflow_provider_geminibatch.storage import facts
from airflow_provider_geminibatch.storage.stores import MemoryStore
from airflow_provider_geminibatch.testing import InMemoryGateway, ManualClock
from tests.faults import Crash, FaultyGateway, Plan
from tests.jobs.batches import seal

LOG = logging.getLogger("test")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
NAMES = ("aaaabbbbcccc2222-0000", "aaaabbbbcccc2222-0001")


class Service(InMemoryGateway):
    """A service that can be deaf to cancels, hide jobs, or be out of reach."""

    deaf = hidden = busy = False

    def cancel(self, job_name: str) -> None:
        if not self.deaf:
            super().cancel(job_name)

    def job(self, job_name: str) -> JobSnapshot:
        if self.busy:
            raise ServiceBusy(f"look at {job_name}", 503, "overloaded")
        if self.hidden:
            raise JobUnreachable(job_name, 404, "not found")
        return super().job(job_name)


class Rig:
    """Two submitted shards whose jobs take an hour."""

    def __init__(self, submitted: bool = True) -> None:
        self.clock, self.store = ManualClock(NOON), MemoryStore()
        self.service = Service(self.clock)
        self.manifest = seal(self.store, shards=2)
        self.build: Build = read_build(self.store, self.manifest.path)
        if submitted:
            assert isinstance(self.submit(), Submitted)

    def submit(self, gateway: Any = None, me: str = "first") -> Any:
        return submit(self.manifest, store=self.store, gateway=gateway or self.service, me=me, now=self.clock, log=LOG)

    def settle(self, number: int = 1) -> SettledJobs:
        return prepare_rescue(
            number, [(self.build, self.service)], store=self.store, me="rescue", now=self.clock, log=LOG,
            sleep=lambda seconds: None,
        )  # fmt: skip

    def shard(self, index: int) -> ShardFacts:
        return facts.shard_facts(self.store, self.build.shards[index].ledger)


def test_open_jobs_are_marked_cancelled_and_their_end_is_on_record_at_once() -> None:
    rig = Rig()
    assert rig.settle() == SettledJobs(NAMES)
    for index in range(2):
        last = rig.shard(index).last
        assert last is not None
        assert last.cancel is not None
        assert last.end is not None
        assert (last.cancel.rung, last.end.state) == (1, "CANCELLED")


def test_a_job_that_ended_meanwhile_is_collected_and_not_cancelled() -> None:
    rig = Rig()
    rig.clock.advance(timedelta(hours=2))
    assert rig.settle() == SettledJobs(NAMES)
    for index in range(2):
        last = rig.shard(index).last
        assert last is not None
        assert last.cancel is None
        assert last.collected is not None


def test_a_job_that_does_not_end_is_waited_for_ten_minutes_and_then_given_up() -> None:
    rig = Rig()
    rig.service.deaf = True
    first = rig.settle()
    assert first.until is not None
    assert NOON < first.until < NOON + timedelta(minutes=1)
    rig.clock.advance(PATIENCE - timedelta(seconds=5))
    assert rig.settle().until == NOON + PATIENCE
    rig.clock.advance(timedelta(seconds=5))
    assert rig.settle() == SettledJobs((), NAMES)


@pytest.mark.parametrize("trouble", ["hidden", "busy"])
def test_a_job_that_cannot_be_seen_is_waited_for_like_one_that_does_not_end(trouble: str) -> None:
    rig = Rig()
    setattr(rig.service, trouble, True)
    assert rig.settle().until is not None
    rig.clock.advance(timedelta(minutes=3))
    setattr(rig.service, trouble, False)
    assert rig.settle() == SettledJobs(NAMES)
    assert {rig.service.job(job.name).state for job in rig.service.created} == {"CANCELLED"}


def test_what_is_there_and_cannot_be_had_yet_is_waited_for_since_it_is_paid() -> None:
    rig = Rig()
    rig.clock.advance(timedelta(hours=2))
    real, rig.service._lines = rig.service._lines, {name: [b"no json\n"] * 9 for name in rig.service._lines}
    assert rig.settle().until is not None
    rig.service._lines = real
    assert rig.settle() == SettledJobs(NAMES)


def test_a_shard_that_was_never_sent_is_voided_so_that_nobody_sends_it_later() -> None:
    rig = Rig(submitted=False)
    with pytest.raises(Crash):  # dies before the first create: model, upload, look at the file, create
        rig.submit(FaultyGateway(rig.service, Plan(3)))

    # Its create was about to be sent, so it is looked for as long as a job may take to turn up.
    assert rig.settle().until is not None
    last = rig.shard(0).last
    assert last is not None
    assert last.void is not None
    assert last.fenced is not None
    rig.clock.advance(PATIENCE)
    assert rig.settle().given_up == NAMES[:1]
    assert rig.service.created == []


def test_a_create_whose_answer_was_lost_is_found_and_cancelled() -> None:
    rig = Rig(submitted=False)
    rig.service.replies_to_lose = 1
    with pytest.raises(Crash):
        rig.submit(FaultyGateway(rig.service, Plan(4)))

    assert rig.settle() == SettledJobs(NAMES)

    assert [rig.service.job(job.name).state for job in rig.service.created] == ["CANCELLED"]
    last = rig.shard(0).last
    assert last is not None
    assert last.job is not None
    assert (last.job.how, last.job.job_name) == ("lookup", "batches/000000")
