"""The job behind a ``@task.llm_batch``: created once, looked up when nobody knows, read by key alone."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_geminibatch.core.common_ai import Submission, submission
from airflow_provider_geminibatch.core.errors import (
    ModelUnknown,
    ResultsBroken,
    ResultsNotReady,
    ServiceBusy,
    SubmissionRefused,
    SubmissionUnknown,
)
from airflow_provider_geminibatch.core.model import Outcomes
from airflow_provider_geminibatch.emulator import Emulator, running
from airflow_provider_geminibatch.gemini.developer import DeveloperGateway, Settings
from airflow_provider_geminibatch.gemini.gateway import Gateway
from airflow_provider_geminibatch.jobs.common_ai import CLOCK_SLACK, Desk, Sent, line_of, look_up, results, send
from airflow_provider_geminibatch.testing import InMemoryGateway, ManualClock

LOG = logging.getLogger("tests")
MODEL = "gemini-3.8-flash"
SETTLE = timedelta(minutes=10)


def lines(asked: Submission) -> list[bytes]:
    return [
        line_of(asked, row, {"contents": [{"role": "user", "parts": [{"text": f"question {row}"}]}]})
        for row in range(asked.rows)
    ]


@pytest.fixture
def emulator() -> Iterator[tuple[Emulator, Gateway]]:
    service = Emulator(seed=7, start=datetime.now(UTC), speed=0, turnaround=(5, 5))
    with running(service) as server:
        gateway = DeveloperGateway(Settings(api_key="any", endpoint=server.url))
        yield service, gateway
        gateway.close()


def desk(gateway: Gateway, now: Callable[[], datetime], advance: Callable[[timedelta], object]) -> Desk:
    """A desk whose pauses pass on the service's own clock."""
    return Desk(gateway, LOG, now=now, sleep=lambda seconds: advance(timedelta(seconds=seconds)))


def beside(service: tuple[Emulator, Gateway]) -> Desk:
    emulator, gateway = service
    return desk(gateway, emulator.clock.now, lambda by: emulator.clock.advance(seconds=by.total_seconds()))


def ended(service: tuple[Emulator, Gateway], asked: Submission) -> str:
    """A job of the submission that has ended."""
    name = send(beside(service), asked, lines(asked), model=MODEL).job_name
    service[0].clock.advance(hours=6)
    return name


def test_every_request_comes_back_under_its_index(emulator: tuple[Emulator, Gateway]) -> None:
    emulator[0].scenario("shuffled")
    found = results(beside(emulator), ended(emulator, submission("key", "print", 30)))
    assert found.asked == submission("key", "print", 30)
    rows = list(found.rows)
    assert [row.index for row in rows] == list(range(30))
    assert all(f"question {row.index} " in f"{row.outcome.text} " for row in rows)


@pytest.mark.parametrize("scenario", ["create_reply_lost", "create_500_but_created"])
def test_a_lost_reply_is_looked_up_and_not_sent_again(emulator: tuple[Emulator, Gateway], scenario: str) -> None:
    emulator[0].scenario(scenario)
    asked = submission("key", "print", 3)
    sent = send(beside(emulator), asked, lines(asked), model=MODEL)
    assert [job.name for job in emulator[0].jobs] == [sent.job_name]


def test_a_job_that_is_listed_late_is_waited_for(emulator: tuple[Emulator, Gateway]) -> None:
    emulator[0].scenario("create_reply_lost")
    emulator[0].scenario("listed_late", hours=0.1)
    asked = submission("key", "print", 3)
    sent = send(beside(emulator), asked, lines(asked), model=MODEL)
    assert [job.name for job in emulator[0].jobs] == [sent.job_name]


def test_a_create_that_did_not_arrive_is_proven_absent_and_not_repeated_in_here(
    emulator: tuple[Emulator, Gateway],
) -> None:
    emulator[0].scenario("create_not_accepted_connection_dropped")
    asked, began = submission("key", "print", 3), emulator[0].clock.now()
    with pytest.raises(ServiceBusy, match="proven that no job"):
        send(beside(emulator), asked, lines(asked), model=MODEL)
    assert emulator[0].clock.now() - began >= SETTLE
    assert emulator[0].log.count("batches.create") == 1
    # Its file is gone, so that the create fails if it wakes up after all.
    assert not [file for file in emulator[1].file_page().files if file.display_name == asked.job_name]
    # The next attempt is sure at once.
    before = emulator[0].clock.now()
    assert look_up(beside(emulator), asked, since=began, sent_at=began) is None
    assert emulator[0].clock.now() == before


def test_a_crashed_attempt_is_found_by_the_next() -> None:
    clock = ManualClock()
    gateway, asked = InMemoryGateway(clock), submission("key", "print", 2)
    intent = clock()
    sent = send(desk(gateway, clock, clock.advance), asked, lines(asked), model=MODEL)
    found = look_up(desk(gateway, clock, clock.advance), submission("key", "print"), since=intent, sent_at=intent)
    assert found is not None
    assert found.name == sent.job_name
    assert clock() == intent


def test_absence_is_certain_only_when_the_settle_time_has_passed() -> None:
    clock = ManualClock()
    gateway, asked = InMemoryGateway(clock), submission("key", "print")
    intent = clock()
    assert look_up(desk(gateway, clock, clock.advance), asked, since=intent - CLOCK_SLACK, sent_at=intent) is None
    assert clock() == intent + SETTLE


def test_a_young_file_of_the_submission_puts_certainty_off_and_is_deleted_then() -> None:
    clock = ManualClock()
    gateway, asked = InMemoryGateway(clock), submission("key", "print", 1)
    intent = clock()
    clock.advance(timedelta(minutes=30))  # a long upload, and a crash right after it
    gateway.upload(io.BytesIO(b"".join(lines(asked))), size_bytes=1, display_name=asked.job_name)
    assert look_up(desk(gateway, clock, clock.advance), asked, since=intent, sent_at=intent) is None
    assert clock() == intent + timedelta(minutes=40)
    assert not gateway.file_page().files


def test_another_attempt_beside_this_one_is_adopted(emulator: tuple[Emulator, Gateway]) -> None:
    asked, other = submission("key", "print", 3), list[Sent]()

    def meanwhile() -> Iterator[bytes]:
        yield from lines(asked)
        emulator[0].clock.advance(seconds=1)
        other.append(send(beside(emulator), asked, lines(asked), model=MODEL))

    mine = send(beside(emulator), asked, meanwhile(), model=MODEL)
    assert mine == Sent(other[0].job_name)
    assert len(emulator[0].jobs) == 1


def test_an_older_job_of_the_same_name_is_not_adopted() -> None:
    clock = ManualClock()
    gateway, asked = InMemoryGateway(clock), submission("key", "print", 1)
    first = send(desk(gateway, clock, clock.advance), asked, lines(asked), model=MODEL)
    gateway.cancel(first.job_name)
    clock.advance(timedelta(hours=1))
    second = send(desk(gateway, clock, clock.advance), asked, lines(asked), model=MODEL)
    assert first.job_name != second.job_name
    found = look_up(desk(gateway, clock, clock.advance), asked, since=clock() - CLOCK_SLACK, sent_at=clock())
    assert found is not None
    assert found.name == second.job_name


def test_a_refusal_is_told_and_leaves_no_file(emulator: tuple[Emulator, Gateway]) -> None:
    emulator[0].scenario("burst_429")
    asked = submission("key", "print", 3)
    with pytest.raises(SubmissionRefused, match="No job was created"):
        send(beside(emulator), asked, lines(asked), model=MODEL)
    assert not emulator[1].file_page().files
    assert not emulator[0].jobs


def test_a_model_that_is_not_there_is_named_before_the_upload(emulator: tuple[Emulator, Gateway]) -> None:
    asked = submission("key", "print", 3)
    with pytest.raises(ModelUnknown):
        send(beside(emulator), asked, lines(asked), model="gemini-0-none")
    assert emulator[0].log.count("files.upload") == 0


def test_clocks_that_disagree_prove_nothing() -> None:
    clock = ManualClock()
    ahead = clock() + timedelta(hours=3)
    with pytest.raises(SubmissionUnknown, match="clocks"):
        look_up(desk(InMemoryGateway(clock), clock, clock.advance), submission("k", "f"), since=clock(), sent_at=ahead)


def test_lines_that_are_odd_are_kept_aside_and_counted(emulator: tuple[Emulator, Gateway]) -> None:
    emulator[0].scenario("missing", rows=(0,))
    emulator[0].scenario("duplicate", rows=(1,))
    emulator[0].scenario("duplicate_differing", rows=(2,))
    emulator[0].scenario("keyless", rows=(3,))
    emulator[0].scenario("unknown_key", rows=(4,))
    rows = list(results(beside(emulator), ended(emulator, submission("key", "print", 20))).rows)
    first = {row.index: row.outcome for row in rows if not row.again and row.index >= 0}
    assert sorted(first) == [1, 2, *range(5, 20)]
    assert first[1].kind is Outcomes.ANSWER
    assert (first[2].kind, first[2].reason) == (Outcomes.FAILED, "conflict: 2 lines answer this row and differ")
    assert sorted(row.index for row in rows if row.again) == [1, 2]
    assert sum(row.index < 0 for row in rows) == 2


def test_a_file_that_is_mostly_somebody_elses_is_not_used(emulator: tuple[Emulator, Gateway]) -> None:
    emulator[0].scenario("unknown_key", fraction=0.5)
    name = ended(emulator, submission("key", "print", 40))
    with pytest.raises(ResultsBroken, match="belong to no row"):
        results(beside(emulator), name)


def test_a_cut_download_goes_on(emulator: tuple[Emulator, Gateway]) -> None:
    name = ended(emulator, submission("key", "print", 40))
    emulator[0].scenario("cut_download")
    assert len(list(results(beside(emulator), name).rows)) == 40


def test_an_output_that_comes_late_is_waited_for_a_moment_and_then_left_to_a_retry(
    emulator: tuple[Emulator, Gateway],
) -> None:
    emulator[0].scenario("output_later_than_succeeded", minutes=120)
    name = ended(emulator, submission("key", "print", 2))
    with pytest.raises(ResultsNotReady):
        results(beside(emulator), name)
    emulator[0].clock.advance(hours=2)
    assert len(list(results(beside(emulator), name).rows)) == 2


def test_a_job_that_ended_early_has_no_rows(emulator: tuple[Emulator, Gateway]) -> None:
    asked = submission("key", "print", 2)
    name = send(beside(emulator), asked, lines(asked), model=MODEL).job_name
    emulator[1].cancel(name)
    found = results(beside(emulator), name)
    assert (found.job.state, list(found.rows)) == ("CANCELLED", [])


def test_a_job_of_somebody_else_is_not_read(emulator: tuple[Emulator, Gateway]) -> None:
    asked = submission("key", "print", 2)
    sent = send(beside(emulator), asked, lines(asked), model=MODEL)
    reply = emulator[1].create(model=MODEL, file_name=sent.file_name, display_name="nightly")
    with pytest.raises(ResultsBroken, match="nightly"):
        results(beside(emulator), reply.job.name)  # type: ignore[union-attr]
