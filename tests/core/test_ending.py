"""How jobs ended, and what is said of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_geminibatch.core.ending import first_intent, judged, turnaround
from airflow_provider_geminibatch.core.errors import JobsFailed
from airflow_provider_geminibatch.core.ledger import Attempt, CancelMark, Claim, JobNamed, Refusal, ShardFacts
from airflow_provider_geminibatch.core.model import STATES, JobSnapshot, ServiceIdentity

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
SERVICE = ServiceIdentity("developer", "https://service")


def job(name: str, state: str, **more: object) -> JobSnapshot:
    return JobSnapshot(name=name, state=state, **more)  # type: ignore[arg-type]


def test_nothing_is_said_when_all_have_results() -> None:
    assert judged("a batch", [job("batches/a", "SUCCEEDED"), job("batches/b", "PARTIALLY_SUCCEEDED")], {}) == ""


@pytest.mark.parametrize("state", [name for name, row in STATES.items() if row.ended and not row.readable])
def test_one_job_with_results_is_enough_to_go_on_and_the_rest_is_named(state: str) -> None:
    said = judged("a batch", [job("batches/a", "SUCCEEDED"), job("batches/b", state)], {})
    assert said.startswith("a batch: 1 of 2 jobs ended without results: batches/b ")


def test_without_any_results_the_batch_has_failed() -> None:
    jobs = [
        job("batches/a", "FAILED", error_code=13, error_text="Internal error."),
        job("batches/b", "CANCELLED"),
        job("batches/c", "CANCELLED"),
        job("batches/d", "EXPIRED"),
        job("batches/e", "FAILED"),
        job("batches/f", "EXPIRED"),
    ]
    mark = CancelMark(owner="me", at=NOON, why="dag.wait was marked failed")
    with pytest.raises(JobsFailed) as caught:
        judged("a batch", jobs, {"batches/b": mark})
    assert caught.value.detail == (
        "batches/a FAILED code 13: Internal error., "
        "batches/b was cancelled by us at 2026-03-01 12:00:00 UTC (dag.wait was marked failed), "
        "batches/c was cancelled at the service, and not by us, and 2 more EXPIRED, 1 more FAILED"
    )


def attempt(number: int, hours: int, *, job_name: str = "", refused: bool = False) -> Attempt:
    at = NOON + hours * HOUR
    return Attempt(
        number=number,
        claim=Claim(owner="me", at=at, display_name="gb1-x", service=SERVICE),
        job=JobNamed(owner="me", at=at, job_name=job_name, how="create") if job_name else None,
        refused=Refusal(owner="me", at=at, code=429, text="full") if refused else None,
    )


def test_a_deadline_counts_from_the_first_claim_through_waits_for_room() -> None:
    waited = ShardFacts((attempt(1, 0, refused=True), attempt(2, 3, refused=True), attempt(3, 5, job_name="batches/a")))
    later = ShardFacts((attempt(1, 4, job_name="batches/b"),))
    assert first_intent([later, waited]) == NOON


def test_a_job_that_was_sent_again_begins_anew() -> None:
    again = ShardFacts((attempt(1, 0, job_name="batches/a"), attempt(2, 7, refused=True), attempt(3, 9)))
    assert first_intent([again]) == NOON + 7 * HOUR


def test_nothing_claimed_means_no_intent() -> None:
    assert first_intent([ShardFacts()]) is None


def test_turnaround_is_from_the_first_creation_to_the_last_end() -> None:
    one = job("batches/a", "SUCCEEDED", created_at=NOON, ended_at=NOON + HOUR)
    other = job("batches/b", "FAILED", created_at=NOON + HOUR, ended_at=NOON + 5 * HOUR)
    assert turnaround([one, other]) == 5 * HOUR
    assert turnaround([one, job("batches/c", "SUCCEEDED")]) is None
    assert turnaround([]) is None
