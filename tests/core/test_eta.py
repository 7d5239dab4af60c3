"""The turnaround model: what is expected of the next job, and the honest silence where nothing is known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.eta import (
    NEWEST,
    OLDEST,
    UNKNOWN,
    Estimate,
    History,
    Point,
    Record,
    estimate,
    kaplan_meier,
    latest,
    quantile,
    size_class,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = 3600.0
SERVICE, MODEL = "developer https://example.test", "gemini-3.8-flash"


def record(
    hours: float, state: str = "SUCCEEDED", *, model: str = MODEL, rows: int = 500, age: timedelta = timedelta(days=1)
) -> Record:
    return Record(SERVICE, model, NOON - age, hours * HOUR, state, rows)


def told(*records: Record, waited: float = 0.0, rows: int = 500, now: datetime = NOON) -> Estimate:
    return estimate(History(records), SERVICE, MODEL, rows, timedelta(hours=waited), now)


def after(at: datetime | None, began: datetime = NOON) -> float | None:
    """A time as hours after the beginning."""
    return None if at is None else (at - began) / timedelta(hours=1)


# Kaplan-Meier ----------------------------------------------------------------------------------------------------------


def shares(*times: tuple[float, bool], endless: int = 0) -> list[tuple[float, float]]:
    return [(point.seconds, pytest.approx(point.open)) for point in kaplan_meier(times, endless=endless)]


def test_without_censoring_it_is_the_share_that_is_still_open() -> None:
    assert shares((1, True), (2, True), (3, True), (4, True)) == [(1, 0.75), (2, 0.5), (3, 0.25), (4, 0.0)]


def test_the_textbook_case_of_remission_times() -> None:
    """The treated group of Freireich et al. 1963, as in every textbook: 21 patients, 9 events."""
    events = [6, 6, 6, 7, 10, 13, 16, 22, 23]
    censored = [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
    curve = shares(*((time, True) for time in events), *((time, False) for time in censored))
    known = [(6, 0.857), (7, 0.807), (10, 0.753), (13, 0.690), (16, 0.627), (22, 0.538), (23, 0.448)]
    assert [(time, pytest.approx(share.expected, abs=5e-4)) for time, share in curve] == known


def test_a_censored_time_ends_nothing_but_weighs_what_comes_after() -> None:
    assert shares((1, True), (2, False), (3, True)) == [(1, 2 / 3), (3, 0.0)]
    assert shares((1, False), (2, False)) == []


def test_equal_times_are_one_point_and_the_censored_among_them_were_still_at_risk() -> None:
    assert shares((2, True), (2, False), (2, True), (5, True)) == [(2, 0.5), (5, 0.0)]


def test_with_an_endless_job_the_kth_of_n_stands_for_k_of_n_and_one() -> None:
    assert shares((1, True), (2, True), (3, True), endless=1) == [(1, 0.75), (2, 0.5), (3, 0.25)]


def test_a_quantile_is_where_the_curve_comes_so_far_or_nowhere() -> None:
    curve = [Point(10, 0.75), Point(20, 0.5), Point(30, 0.25)]
    assert [quantile(curve, share) for share in (0.1, 0.25, 0.5, 0.6, 0.75, 0.9)] == [10, 10, 20, 30, 30, None]
    assert quantile([], 0.5) is None


# The estimate ----------------------------------------------------------------------------------------------------------


def test_the_times_of_nineteen_equal_steps_are_read_off_by_hand() -> None:
    """Of nineteen jobs the k-th stands for k in twenty, so half is the tenth and nine in ten the eighteenth."""
    seen = told(*(record(hours) for hours in range(1, 20)), *(record(99, model="other") for _ in range(9)))
    assert (after(seen.p50_at), after(seen.p90_at), after(seen.p95_at)) == (10, 18, 19)
    assert (seen.n, seen.basis, seen.late_at) == (19, "same model and size", NOON + timedelta(hours=19))
    assert [seen.chance(NOON + timedelta(hours=hours)) for hours in (0, 1, 10, 19, 500)] == pytest.approx(
        [0, 0.05, 0.5, 0.95, 0.95]
    )


def test_what_has_been_waited_is_taken_into_account() -> None:
    """After ten hours nine of nineteen are left; the fifth of those is the half of them, the ninth nine in ten."""
    seen = told(*(record(hours) for hours in range(1, 20)), waited=10)
    began = NOON - timedelta(hours=10)
    assert (after(seen.p50_at, began), after(seen.p90_at, began), seen.p95_at) == (15, 19, None)
    assert (seen.n, seen.passed) == (9, 10)
    assert seen.late_at == began + timedelta(hours=19)


def test_expired_and_cancelled_jobs_make_it_later_and_failed_ones_change_nothing() -> None:
    quick = [record(hours) for hours in range(1, 20)]
    plain = told(*quick)
    with_stuck = told(*quick, *(record(48, state) for state in ("EXPIRED", "CANCELLED", "EXPIRED")))
    with_failed = told(*quick, *(record(0.01, "FAILED") for _ in range(30)))
    assert (after(plain.p50_at), after(with_stuck.p50_at), with_stuck.p90_at) == (10, 12, None)
    assert with_failed == plain


def test_few_similar_jobs_give_way_to_wider_classes() -> None:
    small = [record(1, rows=7) for _ in range(19)]
    large = [record(5, rows=700) for _ in range(25)]
    other = [record(9, model="other") for _ in range(40)]
    assert told(*large, *small, rows=7).basis == "same model"
    assert told(*large, record(1, rows=7), *small, rows=7).basis == "same model and size"
    assert told(*small[:5], *other, rows=7).basis == "same model and size"
    assert told(*small[:4], *other, rows=7).basis == "same service"
    assert told(*other[:2], rows=7).basis == "unknown"


def test_a_class_is_named_by_the_narrowest_that_holds_the_same_jobs() -> None:
    assert told(*(record(hours) for hours in (1, 2, 3, 4, 5))).basis == "same model and size"


def test_nothing_is_said_when_nothing_is_known() -> None:
    assert told() == UNKNOWN
    assert UNKNOWN.chance(NOON) is None
    assert not UNKNOWN.late(NOON)
    assert UNKNOWN.sentence(NOON) == "no similar job is on record yet, so nothing is known about how long it takes"


def test_a_few_jobs_say_a_half_but_not_nine_in_ten() -> None:
    seen = told(record(1), record(2), record(3))
    assert (after(seen.p50_at), seen.p90_at, seen.late_at) == (2, None, None)
    assert seen.sentence(NOON) == "half of 3 similar jobs were done by 14:00 UTC"


def test_other_services_and_old_jobs_are_not_gone_by() -> None:
    elsewhere = tuple(Record("developer http://127.0.0.1", MODEL, NOON, HOUR, "SUCCEEDED", 500) for _ in range(50))
    old = tuple(record(1, age=OLDEST + timedelta(days=1)) for _ in range(50))
    assert estimate(History(elsewhere + old), SERVICE, MODEL, 500, timedelta(), NOON) == UNKNOWN


def test_only_the_newest_jobs_count_so_that_a_change_is_followed() -> None:
    before = [record(20, age=timedelta(days=30)) for _ in range(500)]
    since = [record(2, age=timedelta(days=2)) for _ in range(NEWEST)]
    assert after(told(*before, *since).p95_at) == 2


def test_longer_than_all_that_is_known_is_late_and_names_no_time() -> None:
    seen = told(*(record(hours) for hours in range(1, 41)), waited=39.5)
    assert (seen.p50_at, seen.n, seen.passed, seen.basis) == (None, 1, 39, "same model and size")
    assert seen.late(NOON)
    assert seen.chance(NOON + timedelta(hours=5)) is None
    assert seen.sentence(NOON) == "it has taken longer than 39 of 40 similar jobs"


def test_the_sentence_says_on_whom_it_rests_and_until_when() -> None:
    fresh = told(*(record(2 + number / 100) for number in range(87)))
    assert fresh.sentence(NOON) == "half of 87 similar jobs were done by 14:25, nine in ten by 14:47 UTC"
    waited = told(*(record(hours) for hours in range(1, 41)), waited=10)
    assert waited.sentence(NOON) == (
        "half of the 30 similar jobs that took longer than this so far were done by 02 Mar 04:00, "
        "nine in ten by 02 Mar 16:00 UTC"
    )


def test_it_travels_as_plain_values() -> None:
    seen = told(*(record(hours) for hours in (1, 2, 3)))
    assert seen.as_dict() == {
        "p50_at": "2026-03-01T14:00:00+00:00", "p90_at": None, "p95_at": None, "late_at": None,
        "n": 3, "basis": "same model and size",
    }  # fmt: skip


def test_of_several_jobs_the_last_one_counts_and_an_unknown_one_makes_all_unknown() -> None:
    early, late_ = told(*(record(1) for _ in range(30))), told(*(record(7) for _ in range(30)))
    beyond = told(*(record(hours) for hours in range(1, 31)), waited=40)
    assert latest([early, late_]) is late_
    assert latest([early, beyond, late_]) is beyond
    assert latest([early, UNKNOWN, beyond]) is UNKNOWN
    assert latest([]) is UNKNOWN


@pytest.mark.parametrize(("rows", "magnitude"), [(0, 0), (9, 0), (10, 1), (999, 2), (1000, 3), (1_234_567, 6)])
def test_jobs_are_of_one_size_within_an_order_of_magnitude(rows: int, magnitude: int) -> None:
    assert size_class(rows) == magnitude


# Laws ------------------------------------------------------------------------------------------------------------------

times = st.lists(st.tuples(st.integers(1, 100), st.booleans()), max_size=30)
records = st.lists(
    st.builds(
        record,
        st.integers(1, 48),
        st.sampled_from(["SUCCEEDED", "PARTIALLY_SUCCEEDED", "EXPIRED", "CANCELLED", "FAILED", "LOST"]),
        model=st.sampled_from([MODEL, "other"]),
        rows=st.sampled_from([5, 50, 500]),
    ),
    max_size=60,
)


@given(times, st.integers(0, 1))
def test_a_curve_only_falls_and_stays_between_one_and_nothing(seen: list[tuple[float, bool]], endless: int) -> None:
    curve = kaplan_meier(seen, endless=endless)
    open_ = [1.0, *(point.open for point in curve)]
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(open_))
    assert all(-1e-9 <= share <= 1 for share in open_)
    assert [point.seconds for point in curve] == sorted({time for time, ended in seen if ended})
    assert not endless or open_[-1] > 0


@given(times, st.data())
def test_censoring_never_shortens(seen: list[tuple[float, bool]], data: st.DataObject) -> None:
    """If a job that ended had been given up at that time instead, no share would be reached sooner."""
    ended = [place for place, (_, done) in enumerate(seen) if done]
    if not ended:
        return
    chosen = data.draw(st.sampled_from(ended))
    given_up = [(time, done and place != chosen) for place, (time, done) in enumerate(seen)]
    for share in (0.1, 0.5, 0.9, 0.95):
        before, now = (quantile(kaplan_meier(each, endless=1), share) for each in (seen, given_up))
        assert now is None or (before is not None and now >= before)


@given(records, st.integers(0, 60), st.sampled_from([5, 50, 500]))
def test_estimates_are_in_order_and_never_before_now(seen: list[Record], waited: int, rows: int) -> None:
    told_ = told(*seen, waited=waited, rows=rows)
    named = [at for at in (told_.p50_at, told_.p90_at, told_.p95_at) if at]
    assert named == sorted(named)
    assert all(at > NOON for at in named)
    assert (told_.p90_at is None) >= (told_.p50_at is None)
    assert (told_.p95_at is None) >= (told_.p90_at is None)
    assert bool(told_.basis == "unknown") == (told_.n + told_.passed == 0)
    assert told_.sentence(NOON)


@given(records, st.integers(0, 60), st.lists(st.integers(-5, 100), min_size=2, max_size=6))
def test_the_chance_grows_with_the_deadline_and_agrees_with_the_times(
    seen: list[Record], waited: int, hours: list[int]
) -> None:
    told_ = told(*seen, waited=waited)
    chances = [told_.chance(NOON + timedelta(hours=hour)) for hour in sorted(hours)]
    if not told_.curve:
        assert set(chances) == {None}
        return
    assert chances == sorted(chances)
    assert told_.chance(NOON) == 0
    for at, share in ((told_.p50_at, 0.5), (told_.p90_at, 0.9), (told_.p95_at, 0.95)):
        if at:
            reached, before = told_.chance(at), told_.chance(at - timedelta(seconds=1))
            assert reached is not None and before is not None
            assert before < share <= reached + 1e-6


@given(records, st.integers(0, 40), st.integers(0, 20))
def test_who_has_waited_longer_is_never_told_an_earlier_end_by_the_same_jobs(
    seen: list[Record], waited: int, more: int
) -> None:
    began = NOON - timedelta(hours=waited)
    first = told(*seen, waited=waited)
    second = told(*seen, waited=waited + more, now=NOON + timedelta(hours=more))
    assert second.began == began or second.basis == "unknown"
    if first.basis == second.basis and first.p50_at and second.p50_at:
        assert second.p50_at >= first.p50_at
