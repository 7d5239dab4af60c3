"""Cancelling where the service's answer is not a plain yes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import BytesIO

import pytest

from airflow_provider_geminibatch.core.errors import JobUnreachable, ServiceError
from airflow_provider_geminibatch.core.ledger import CancelMark
from airflow_provider_geminibatch.jobs.cancel import Cancelled, Target, cancel_jobs
from airflow_provider_geminibatch.storage import facts
from airflow_provider_geminibatch.storage.stores import MemoryStore
from airflow_provider_geminibatch.testing import InMemoryGateway, ManualClock

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
PLACE = "batches/d/r/t/map=-1/g0001/s/b/0000/a01"


class Refusing(InMemoryGateway):
    """Answers a cancel with an error, after ``meanwhile`` of its time."""

    def __init__(self, code: int, meanwhile: timedelta = timedelta()) -> None:
        self.clock, self.code, self.meanwhile = ManualClock(NOON), code, meanwhile
        super().__init__(self.clock)
        file = self.upload(BytesIO(b""), size_bytes=0, display_name="x")
        self.create(model="gemini-3.8-flash", file_name=file.name, display_name="x")

    def cancel(self, job_name: str) -> None:
        self.clock.advance(self.meanwhile)
        raise ServiceError(f"cancel of {job_name}", self.code, "no")


def cancel(gateway: InMemoryGateway) -> tuple[Cancelled, CancelMark | None]:
    store = MemoryStore()
    targets = [Target(gateway.created[0].name, store, PLACE)]
    done = cancel_jobs(targets, gateway, owner="me", why="a test", now=NOON)
    return done, facts.get(store, f"{PLACE}.cancel", CancelMark)


def test_a_job_that_ended_in_between_counts_as_ended() -> None:
    done, mark = cancel(Refusing(400, timedelta(hours=2)))
    assert done == Cancelled(ended={"batches/000000": "SUCCEEDED"})
    assert mark is not None
    assert str(done) == "had ended: batches/000000 SUCCEEDED"


@pytest.mark.parametrize(("code", "kind"), [(400, ServiceError), (500, ServiceError), (404, JobUnreachable)])
def test_a_job_that_could_not_be_asked_is_kept_with_its_error(code: int, kind: type) -> None:
    done, mark = cancel(Refusing(code))
    assert mark is not None
    assert done.asked == ()
    assert type(done.failed["batches/000000"]) is kind
    assert str(done).startswith("could not be asked: ")


def test_nothing_to_cancel_reads_like_it() -> None:
    gateway = Refusing(400)
    assert str(cancel_jobs([], gateway, owner="me", why="a test", now=NOON)) == "no jobs"
