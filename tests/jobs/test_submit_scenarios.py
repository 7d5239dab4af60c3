"""Submission against an emulated service that misbehaves in the ways users have reported. The emulator's log has the last word."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_geminibatch.core.errors import ServiceBusy, SubmissionUnknown
from airflow_provider_geminibatch.emulator import Emulator, Limits, running
from airflow_provider_geminibatch.gemini.developer import DeveloperGateway, Settings
from airflow_provider_geminibatch.gemini.gateway import Gateway, JobPage
from airflow_provider_geminibatch.gemini.google_tokens import CredentialSource
from airflow_provider_geminibatch.gemini.vertex import VertexGateway
from airflow_provider_geminibatch.jobs.submit import Submitted, submit
from airflow_provider_geminibatch.jobs.wait import look
from airflow_provider_geminibatch.storage.stores import MemoryStore
from tests.jobs.batches import seal
from tests.routes import DEVELOPER, PROJECT, ROUTES, VERTEX, Route

LOG = logging.getLogger("test")
START = datetime(2026, 11, 1, tzinfo=UTC)


class Service:
    """An emulator, a gateway to it, and one task that submits, over all its deferrals and retries."""

    def __init__(self, emulator: Emulator, gateway: Gateway, route: Route = DEVELOPER) -> None:
        self.emulator, self.gateway, self.route = emulator, gateway, route
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

    def creates(self) -> int:
        """How often the paid call was made."""
        return self.emulator.log.count(self.route.endpoint("batches.create"))

    def ours(self) -> set[str]:
        """The jobs on the bill that are of our creates."""
        return {job.name for job in self.emulator.jobs}


@contextmanager
def serving(route: Route, timeout_seconds: float = 5) -> Iterator[Service]:
    emulator = Emulator(seed=5, start=START, speed=0, turnaround=(5, 6), limits=Limits(concurrent_jobs=50))
    with running(emulator) as server, closing(route.opened(server.url, timeout_seconds=timeout_seconds)) as gateway:
        yield Service(emulator, gateway, route)


@pytest.fixture(params=ROUTES, ids=str)
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    with serving(request.param) as service:
        yield service


@pytest.fixture
def developer_service() -> Iterator[Service]:
    with serving(DEVELOPER) as service:
        yield service


@pytest.mark.parametrize("minutes", [0.2, 0.9, 5, 9])
def test_a_job_that_is_listed_late_after_a_lost_reply_is_adopted(service: Service, minutes: float) -> None:
    service.emulator.scenario("create_reply_lost", times=1)
    service.emulator.scenario("listed_late", hours=minutes / 60)

    names = service.submit()

    assert set(names) == service.ours()
    assert service.creates() == 2


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
    assert service.creates() == 2


@pytest.mark.parametrize("endpoint", ["files.start", "files.chunk"])
@pytest.mark.parametrize("after", [0, 1])
def test_an_upload_that_breaks_off_costs_another_upload_and_no_job(
    developer_service: Service, endpoint: str, after: int
) -> None:
    """A file that is not whole is no file; the next try uploads anew."""
    service = developer_service
    service.emulator.scenario("dropped_calls", endpoint=endpoint, times=4, after=after)

    with pytest.raises(ServiceBusy):
        service.submit()
    assert service.ours() <= {job.name for job in service.gateway.jobs().jobs}
    service.emulator.switch_off("dropped_calls")

    assert set(service.submit()) == service.ours()
    assert service.creates() == 2


@pytest.mark.parametrize("endpoint", ["storage.upload", "storage.chunk"])
def test_an_object_that_breaks_off_is_no_object_and_the_next_try_writes_it(endpoint: str) -> None:
    with serving(VERTEX, timeout_seconds=2) as service:
        service.emulator.scenario("dropped_calls", endpoint=endpoint, times=1000)
        with pytest.raises(ServiceBusy):
            service.submit()
        service.emulator.switch_off("dropped_calls")
        gc.collect()  # a writer that failed tries once more when it is garbage, unless it is kept from that
        assert service.gateway.file_page().files == ()

        assert set(service.submit()) == service.ours()
        assert service.creates() == 2


def test_an_upload_whose_reply_is_lost_is_taken_for_what_it_is() -> None:
    with serving(VERTEX) as service:
        service.emulator.scenario("upload_reply_lost", times=2)

        assert set(service.submit()) == service.ours()
        assert len(service.gateway.file_page().files) == service.creates() == 2


def test_empty_pages_with_a_token_are_followed(service: Service) -> None:
    service.emulator.scenario("create_reply_lost", times=2)
    service.emulator.scenario("list_empty_page_with_token", times=3)

    assert set(service.submit()) == service.ours()
    assert service.creates() == 2


def test_a_service_without_room_is_asked_again_until_there_is_some(service: Service) -> None:
    service.emulator.scenario("burst_429", endpoint=service.route.endpoint("batches.create"), times=5)

    assert set(service.submit()) == service.ours()
    assert service.emulator.log.count("storage.upload" if service.route is VERTEX else "files.start") == 2


def test_a_renewed_token_of_the_same_project_changes_nothing() -> None:
    emulator = Emulator(seed=5, start=START, speed=0, turnaround=(5, 6), tokens={"old": PROJECT, "new": PROJECT})
    with running(emulator) as server:
        settings = VERTEX.settings(server.url, 10.0)
        with (
            closing(VertexGateway(replace(settings, credentials=CredentialSource(token="old")))) as old,
            closing(VertexGateway(replace(settings, credentials=CredentialSource(token="new")))) as new,
        ):
            before = Service(emulator, old, VERTEX)
            names = before.submit()
            emulator.revoke("old")
            after = Service(emulator, new, VERTEX)
            after.store, after.manifest, after.tries = before.store, before.manifest, 1

            assert old.identity == new.identity
            assert after.submit() == names
            assert after.ours() == set(names)


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


def test_a_filter_of_the_list_that_shows_nothing_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(VERTEX) as service:
        known = service.gateway.jobs

        def jobs(page_token: str = "", display_name: str = "") -> JobPage:
            page = known(page_token)
            return JobPage((), "", page.at) if display_name else page

        monkeypatch.setattr(service.gateway, "jobs", jobs)
        service.emulator.scenario("create_reply_lost", times=1)
        assert len(service.submit()) == 2
        assert service.creates() == 2
        for path in list(service.store.list("batches")):
            if "/s/" in path:
                service.store.delete(path)
        with pytest.raises(SubmissionUnknown, match="is not on record"):
            service.submit()
        assert service.creates() == 2
