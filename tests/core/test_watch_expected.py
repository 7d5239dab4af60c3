"""What a watch makes of an estimate: longer pauses, one word about lateness, and never an end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.eta import Estimate
from airflow_provider_geminibatch.core.model import JobCounts, JobSnapshot
from airflow_provider_geminibatch.core.watch import FAR, SHORTEST, Ended, Late, TimedOut, Wait, Watch, interval

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
USUAL = Estimate(
    p50_at=NOON + 4 * HOUR, p90_at=NOON + 8 * HOUR, p95_at=NOON + 9 * HOUR, late_at=NOON + 9 * HOUR, n=87,
    basis="same model and size",
)  # fmt: skip


def job(state: str = "RUNNING", done: int = 0, total: int = 0, name: str = "batches/a") -> JobSnapshot:
    return JobSnapshot(name=name, state=state, counts=JobCounts(total=total, succeeded=done))


def watch(*names: str, **more) -> Watch:
    given = {"since": NOON, "cap": MINUTE, "expected": USUAL, "stretches": True, "names_late": True, **more}
    return Watch(names=names or ("batches/a",), **given)


def until(of: Watch, now: datetime) -> datetime:
    _, decision = of.seen([job()], now)
    assert isinstance(decision, Wait)
    return decision.until


def test_pauses_are_quick_first_long_while_the_end_is_far_and_usual_when_it_is_near() -> None:
    assert until(watch(), NOON) - NOON == timedelta(seconds=5)
    assert until(watch(), NOON + HOUR) - (NOON + HOUR) == FAR * MINUTE
    near = NOON + 4 * HOUR - 24 * MINUTE
    assert until(watch(), near) - near == 2 * MINUTE
    assert until(watch(), NOON + 5 * HOUR) - (NOON + 5 * HOUR) == MINUTE


def test_a_pause_that_somebody_chose_is_not_stretched() -> None:
    assert until(watch(stretches=False), NOON + HOUR) - (NOON + HOUR) == MINUTE


def test_the_moment_of_lateness_is_not_slept_through() -> None:
    early = NOON + 9 * HOUR - timedelta(seconds=20)
    assert until(watch(), early) == NOON + 9 * HOUR


def test_late_is_told_once_and_waited_on() -> None:
    late, decision = watch().seen([job()], NOON + 9 * HOUR)
    assert isinstance(decision, Late)
    assert decision.why == "nineteen in twenty similar jobs were done by 2026-03-01 21:00 UTC"
    assert decision.open == ("batches/a",)
    later, decision = late.seen([job()], NOON + 10 * HOUR)
    assert isinstance(decision, Wait)
    _, decision = later.seen([job("SUCCEEDED")], NOON + 30 * HOUR)
    assert isinstance(decision, Ended)


def test_nobody_is_told_who_did_not_ask() -> None:
    assert isinstance(watch(names_late=False).seen([job()], NOON + 90 * HOUR)[1], Wait)


def test_a_job_that_ended_is_not_late_and_a_deadline_comes_first() -> None:
    assert isinstance(watch().seen([job("SUCCEEDED")], NOON + 9 * HOUR)[1], Ended)
    assert isinstance(watch(deadline=NOON + 9 * HOUR).seen([job()], NOON + 9 * HOUR)[1], TimedOut)


def test_rows_that_stopped_moving_are_named_even_without_a_history() -> None:
    moving, _ = watch(expected=None).seen([job(done=1, total=10)], NOON + HOUR)
    moving, _ = moving.seen([job(done=5, total=10)], NOON + 3 * HOUR)
    _, decision = moving.seen([job(done=5, total=10)], NOON + 5 * HOUR)
    assert isinstance(decision, Wait), "it had moved for three hours before"
    _, decision = moving.seen([job(done=5, total=10)], NOON + 6 * HOUR)
    assert isinstance(decision, Late)
    assert decision.why == "5 of 10 rows are done and none was for 3 h 0 min"


def test_a_job_that_shows_no_counts_until_it_ends_is_not_called_stuck() -> None:
    waiting, _ = watch(expected=None).seen([job(total=10)], NOON)
    assert isinstance(waiting.seen([job(total=10)], NOON + 40 * HOUR)[1], Wait)


def test_progress_lines_say_what_similar_jobs_took() -> None:
    _, decision = watch().seen([job("PENDING")], NOON)
    assert decision.line.endswith("; half of 87 similar jobs were done by 16:00, nine in ten by 20:00 UTC")


def test_not_knowing_is_said_once() -> None:
    first, decision = watch(expected=Estimate()).seen([job("PENDING")], NOON)
    assert "no similar job is on record yet" in decision.line
    _, decision = first.seen([job("RUNNING")], NOON)
    assert "no similar job" not in decision.line
    assert "was PENDING" in decision.line


def test_some_of_the_jobs_can_be_enough() -> None:
    three = ("batches/a", "batches/b", "batches/c")
    _, decision = watch(*three, enough=1).seen([job("SUCCEEDED", name="batches/b")], NOON)
    assert isinstance(decision, Ended)
    assert isinstance(watch(*three, enough=2).seen([job("SUCCEEDED", name="batches/b")], NOON)[1], Wait)


@given(
    st.timedeltas(min_value=timedelta(), max_value=60 * HOUR),
    st.none() | st.timedeltas(min_value=timedelta(), max_value=60 * HOUR),
    st.timedeltas(min_value=timedelta(seconds=1), max_value=HOUR),
)
def test_an_estimate_only_lengthens_pauses_and_never_beyond_measure(
    waited: timedelta, half: timedelta | None, cap: timedelta
) -> None:
    expected = Estimate(p50_at=None if half is None else NOON + half, n=20, basis="same model")
    pause = watch(expected=expected, cap=cap).pause(NOON + waited)
    usual = interval(waited, cap)
    assert SHORTEST <= usual <= pause <= max(usual, FAR * cap)
    if half is None or half <= waited:
        assert pause == usual
