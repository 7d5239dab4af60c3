"""Submission against an emulated service that misbehaves in the ways users have reported. The emulator's log has the last word."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_geminibatch.core.errors import ServiceBusy
from airflow_provider_geminibatch.emulator import Emulator, Limits, running
from airflow_provider_geminibatch.gemini.developer import DeveloperGateway, Settings
from airflow_provider_geminibatch.jobs.submit import Submitted, submit
from airflow_provider_geminibatch.jobs.wait import look
from airflow_provider_geminibatch.storage.stores import MemoryStore
from tests.jobs.batches import seal

LOG = logging.getLogger("test")
START = datetime(2026, 11, 1, tzinfo=UTC)


class Service:
    """An emulator, a gateway to it, and one task that submits, over all its deferrals and retries."""

    def __init__(self, emulator: Emulator, gateway: DeveloperGateway) -> None:
        self.emulator, self.gateway = emulator, gateway
        self.store = MemoryStore("memory://ws")
        self.manifest = seal(self.store, shards=2)
        self.tries = 0

    def submit(self) -> tuple[str, ...]:
        self.tries += 1
        while True:
            end = submit(
                self.manifest, store=self.store, gateway=self.gateway, me=f"try-{self.tries}", log=LOG,
                now=self.emulator.clock.now, later_try=self.tries > 1,
            )  # fmt: skip
            if isinstance(end, Submitted):
                return end.job_names
            wait = end.until - self.emulator.clock.now()
            self.emulator.clock.advance(seconds=max(wait.total_seconds(), 1))

    def ours(self) -> set[str]:
        """The jobs on the bill that are of our creates."""
        return {job.name for job in self.emulator.jobs}


@pytest.fixture
def service() -> Iterator[Service]:
    emulator = Emulator(seed=5, start=START, speed=0, turnaround=(5, 6), limits=Limits(concurrent_jobs=50))
    with (
        running(emulator) as server,
        closing(DeveloperGateway(Settings("k", server.url, timeout_seconds=5))) as gateway,
    ):
        yield Service(emulator, gateway)


@pytest.mark.parametrize("minutes", [0.2, 0.9, 5, 9])
def test_a_job_that_is_listed_late_after_a_lost_reply_is_adopted(service: Service, minutes: float) -> None:
    service.emulator.scenario("create_reply_lost", times=1)
    service.emulator.scenario("listed_late", hours=minutes / 60)

    names = service.submit()

    assert set(names) == service.ours()
    assert service.emulator.log.count("batches.create") == 2


def test_a_list_that_lags_longer_than_the_settle_time_is_the_promise_that_cannot_be_kept(service: Service) -> None:
    """It costs a second job, as the docs say; what would be wrong is to find none or to lose track of the one that stands."""
    service.emulator.scenario("create_reply_lost", times=1)
    service.emulator.scenario("listed_late", hours=2, jobs=(0,))

    names = service.submit()

    assert len(service.ours()) == 3
    assert set(names) < service.ours()


@pytest.mark.parametrize("model", ["", "gemini-3.5-flash"])
def test_a_foreign_job_of_the_same_name_is_left_alone(
    service: Service, model: str, caplog: pytest.LogCaptureFixture
) -> None:
    service.emulator.scenario("foreign_job_same_name", model=model)
    service.emulator.scenario("create_reply_lost", times=2)

    names = service.submit()

    listed = service.gateway.jobs().jobs
    foreign = [job for job in listed if job.name not in names]
    assert len(foreign) == 2
    assert {job.display_name for job in foreign} == {job.display_name for job in listed if job.name in names}
    assert not any(job.state == "CANCELLED" for job in listed)
    assert "was left alone" in caplog.text


def test_a_dropped_connection_that_created_nothing_is_sent_again_after_proof(service: Service) -> None:
    service.emulator.scenario("create_not_accepted_connection_dropped", times=1)

    names = service.submit()

    assert set(names) == service.ours()
    assert service.emulator.clock.now() - START >= timedelta(minutes=10)


@pytest.mark.parametrize("scenario", ["create_500_but_created", "create_reply_lost"])
def test_creates_without_an_answer_are_found_and_sent_once(service: Service, scenario: str) -> None:
    service.emulator.scenario(scenario, times=2)

    assert set(service.submit()) == service.ours()
    assert service.emulator.log.count("batches.create") == 2


@pytest.mark.parametrize("endpoint", ["files.start", "files.chunk"])
@pytest.mark.parametrize("after", [0, 1])
def test_an_upload_that_breaks_off_costs_another_upload_and_no_job(service: Service, endpoint: str, after: int) -> None:
    """A file that is not whole is no file; the next try uploads anew."""
    service.emulator.scenario("dropped_calls", endpoint=endpoint, times=4, after=after)

    with pytest.raises(ServiceBusy):
        service.submit()
    assert service.ours() <= {job.name for job in service.gateway.jobs().jobs}
    service.emulator.switch_off("dropped_calls")

    assert set(service.submit()) == service.ours()
    assert service.emulator.log.count("batches.create") == 2


def test_empty_pages_with_a_token_are_followed(service: Service) -> None:
    service.emulator.scenario("create_reply_lost", times=2)
    service.emulator.scenario("list_empty_page_with_token", times=3)

    assert set(service.submit()) == service.ours()
    assert service.emulator.log.count("batches.create") == 2


def test_a_service_without_room_is_asked_again_until_there_is_some(service: Service) -> None:
    service.emulator.scenario("burst_429", endpoint="batches.create", times=5)

    assert set(service.submit()) == service.ours()
    assert service.emulator.log.count("files.start") == 2


def test_a_rotated_key_of_the_same_project_changes_nothing() -> None:
    emulator = Emulator(seed=5, start=START, speed=0, turnaround=(5, 6), keys={"old": "project", "new": "project"})
    with (
        running(emulator) as server,
        closing(DeveloperGateway(Settings("old", server.url))) as old,
        closing(DeveloperGateway(Settings("new", server.url))) as new,
    ):
        before = Service(emulator, old)
        names = before.submit()
        emulator.revoke("old")
        after = Service(emulator, new)
        after.store, after.manifest, after.tries = before.store, before.manifest, 1

        assert old.identity == new.identity
        assert after.submit() == names
        assert after.ours() == set(names)


def test_an_unknown_state_is_waited_for(service: Service) -> None:
    service.emulator.scenario("unknown_state")
    names = service.submit()
    service.emulator.clock.advance(minutes=30)

    seen = look(service.gateway, names)

    assert {job.ended for job in seen.sights} == {False}  # type: ignore[union-attr]
    service.emulator.clock.advance(hours=48)
    assert {job.state for job in look(service.gateway, names).sights} == {"SUCCEEDED"}  # type: ignore[union-attr]
