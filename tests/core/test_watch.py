"""The watch: when to look again, and when waiting is over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.model import STATES, JobCounts, JobSnapshot
from airflow_provider_geminibatch.core.watch import (
    LONGEST_HOLD,
    REACH,
    Ended,
    Gets,
    ListPage,
    Look,
    Miss,
    Page,
    TimedOut,
    Unreachable,
    Wait,
    Watch,
    interval,
    looking,
    spell,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def job(name: str = "batches/a", state: str = "RUNNING", done: int = 0, failed: int = 0, total: int = 0) -> JobSnapshot:
    return JobSnapshot(name=name, state=state, counts=JobCounts(total=total, succeeded=done, failed=failed))


def watch(*names: str, deadline: datetime | None = None, cap: timedelta = MINUTE) -> Watch:
    return Watch(names=names or ("batches/a",), since=NOON, deadline=deadline, cap=cap)


def test_a_watch_over_nothing_cannot_be_built() -> None:
    with pytest.raises(ValueError, match="at least one job"):
        Watch(names=(), since=NOON)


def test_it_ends_when_every_job_has_ended_and_not_before() -> None:
    both = watch("batches/a", "batches/b")

    both, decision = both.seen([job("batches/a", "SUCCEEDED"), job("batches/b")], NOON)
    assert isinstance(decision, Wait)
    assert both.open == ("batches/b",)

    both, decision = both.seen([job("batches/b", "FAILED")], NOON + MINUTE)
    assert isinstance(decision, Ended)
    assert {name: seen.state for name, seen in decision.jobs.items()} == {
        "batches/a": "SUCCEEDED",
        "batches/b": "FAILED",
    }


def test_an_ended_job_stays_ended_whatever_a_lagging_list_says() -> None:
    both, _ = watch("batches/a", "batches/b").seen([job("batches/a", "SUCCEEDED")], NOON)
    both, _ = both.seen([job("batches/a", "RUNNING")], NOON + MINUTE)
    assert both.jobs["batches/a"].state == "SUCCEEDED"


def test_a_stranger_on_the_list_is_left_out() -> None:
    one, decision = watch().seen([job("batches/other", "SUCCEEDED")], NOON)
    assert one.jobs == {}
    assert isinstance(decision, Wait)


@pytest.mark.parametrize("state", sorted(STATES))
def test_only_a_terminal_state_ends_a_watch(state: str) -> None:
    _, decision = watch().seen([job(state=state)], NOON)
    assert isinstance(decision, Ended) == STATES[state].ended


def test_at_the_deadline_it_gives_up_and_names_what_is_open() -> None:
    both = watch("batches/a", "batches/b", deadline=NOON + MINUTE)
    both, _ = both.seen([job("batches/a", "SUCCEEDED"), job("batches/b")], NOON)
    _, decision = both.missed("ServiceBusy 503", NOON + MINUTE)
    assert isinstance(decision, TimedOut)
    assert decision.open == ("batches/b",)


def test_a_job_that_ended_in_time_wins_over_the_deadline() -> None:
    _, decision = watch(deadline=NOON).seen([job(state="SUCCEEDED")], NOON + MINUTE)
    assert isinstance(decision, Ended)


def test_no_pause_reaches_beyond_the_deadline() -> None:
    _, decision = watch(deadline=NOON + timedelta(seconds=2)).seen([job()], NOON)
    assert isinstance(decision, Wait)
    assert decision.until == NOON + timedelta(seconds=2)


def test_pauses_are_short_at_first_and_stretch_up_to_the_cap() -> None:
    pauses = [interval(timedelta(minutes=minutes), 10 * MINUTE) for minutes in (0, 1, 6, 60, 600)]
    assert pauses == [timedelta(seconds=5), timedelta(seconds=5), timedelta(seconds=30), 5 * MINUTE, 10 * MINUTE]
    assert interval(timedelta(hours=9), timedelta(seconds=2)) == timedelta(seconds=2)
    assert interval(timedelta(), timedelta()) == timedelta(seconds=1)


def test_an_unreachable_job_is_waited_for_and_named_once() -> None:
    hidden = Unreachable("batches/a", "404: not found")
    one, first = watch().seen([hidden], NOON)
    one, second = one.seen([hidden], NOON + MINUTE)
    one, third = one.seen([job()], NOON + 2 * MINUTE)
    assert isinstance(first, Wait)
    assert "batches/a is unreachable (404: not found), which does not mean gone" in first.line
    assert second == Wait(NOON + MINUTE + timedelta(seconds=5))
    assert isinstance(third, Wait)
    assert "batches/a is reachable again" in third.line


def test_of_many_unreachable_jobs_a_few_are_named() -> None:
    names = [f"batches/{letter}" for letter in "abcde"]
    _, decision = watch(*names).seen([Unreachable(name, "403: no") for name in names], NOON)
    assert decision.line.count("is unreachable (403: no)") == 3
    assert "2 more are unreachable too" in decision.line


def test_a_failing_look_is_said_once_per_kind_and_so_is_its_end() -> None:
    one, _ = watch().seen([job()], NOON)
    lines = []
    for kind in ("ServiceBusy 503", "ServiceBusy 503", "ServiceBusy 429", "ServiceBusy 503"):
        one, decision = one.missed(kind, NOON + MINUTE)
        lines.append(decision.line)
    assert [bool(line) for line in lines] == [True, False, True, False]
    assert "could not look (ServiceBusy 503); trying on, the jobs are not touched" in lines[0]

    one, back = one.seen([job()], NOON + 2 * MINUTE)
    assert "looking works again" in back.line
    _, again = one.missed("ServiceBusy 503", NOON + 3 * MINUTE)
    assert again.line


def test_a_look_that_showed_some_jobs_does_not_flap_about_the_rest() -> None:
    both = watch("batches/a", "batches/b")
    partly = Look((job("batches/a"),), Miss("ServiceBusy 503", "busy"))
    both, first = both.after(partly, NOON)
    both, second = both.after(Look((job("batches/a"), job("batches/b"))), NOON + MINUTE)
    _, third = both.after(partly, NOON + 2 * MINUTE)
    assert "could not look (busy)" in first.line
    assert "works again" not in second.line
    assert third.line == ""


def test_an_unknown_state_is_waited_for_and_named_once() -> None:
    both = watch("batches/a", "batches/b")
    both, first = both.seen([job("batches/a", "HIBERNATING")], NOON)
    both, second = both.seen([job("batches/b", "HIBERNATING")], NOON + MINUTE)
    assert isinstance(first, Wait)
    assert "does not know the state 'HIBERNATING'" in first.line
    assert isinstance(second, Wait)
    assert "does not know" not in second.line


def test_progress_is_one_line_per_change() -> None:
    one = watch()
    lines = []
    for minutes, seen in (
        (0, job(state="PENDING", total=500)),
        (1, job(state="PENDING", total=500)),
        (12, job(done=117, failed=3, total=500)),
        (75, job(done=300, failed=3, total=500)),
        (80, job(done=300, failed=3, total=500)),
        (90, job(state="SUCCEEDED", done=497, failed=3, total=500)),
    ):
        one, decision = one.seen([seen], NOON + minutes * MINUTE)
        lines.append(decision.line)
    assert lines == [
        "batches/a PENDING, 0 of 500 rows done; after 0 s",
        "",
        "batches/a RUNNING, 120 of 500 rows done (3 failed); after 12 min; was PENDING",
        "batches/a RUNNING, 303 of 500 rows done (3 failed); after 1 h 15 min",
        "",
        "batches/a SUCCEEDED, 500 of 500 rows done (3 failed); after 1 h 30 min; was RUNNING",
    ]


def test_a_line_about_many_jobs_counts_them_and_names_a_few() -> None:
    names = [f"batches/{letter}" for letter in "abcde"]
    many = watch(*names)
    many, _ = many.seen([job(name) for name in names], NOON)
    _, decision = many.seen([job(name, "SUCCEEDED") for name in names[:4]], NOON + MINUTE)
    assert decision.line == (
        "5 jobs: 1 RUNNING, 4 SUCCEEDED; after 1 min; batches/a RUNNING → SUCCEEDED, "
        "batches/b RUNNING → SUCCEEDED, batches/c RUNNING → SUCCEEDED and 1 more"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0 s"), (59, "59 s"), (61, "1 min"), (3600, "1 h 0 min"), (86_400 * 2 + 7200, "2 d 2 h")],
)
def test_spans_read_like_people_say_them(seconds: int, text: str) -> None:
    assert spell(timedelta(seconds=seconds)) == text


# Laws ------------------------------------------------------------------------------------------------------------------

NAMES = ("batches/a", "batches/b", "batches/c")
states = st.sampled_from([*STATES, "SOMETHING_NEW"])
sights = st.one_of(
    st.builds(job, st.sampled_from(NAMES), states),
    st.builds(Unreachable, st.sampled_from(NAMES), st.just("404")),
)
looks = st.builds(
    Look,
    st.lists(sights, max_size=4).map(tuple),
    st.none() | st.builds(Miss, st.sampled_from(["ServiceBusy 503", "KeyRefused 401"])),
)


@given(st.lists(looks, max_size=12), st.none() | st.integers(0, 600), st.integers(0, 120))
def test_a_watch_never_ends_without_a_terminal_state_or_a_deadline(
    script: list[Look], deadline_seconds: int | None, cap_seconds: int
) -> None:
    deadline = None if deadline_seconds is None else NOON + timedelta(seconds=deadline_seconds)
    one = watch(*NAMES, deadline=deadline, cap=timedelta(seconds=cap_seconds))
    now, ended = NOON, set[str]()
    for look in script:
        one, decision = one.after(look, now)
        ended |= {seen.name for seen in look.sights if isinstance(seen, JobSnapshot) and seen.ended}
        assert isinstance(decision, Ended) == (ended == set(NAMES))
        if isinstance(decision, Ended):
            return
        assert isinstance(decision, TimedOut) == (deadline is not None and now >= deadline)
        if isinstance(decision, TimedOut):
            assert set(decision.open) == set(NAMES) - ended
            return
        assert now < decision.until
        assert deadline is None or decision.until <= deadline
        now = decision.until


@given(
    st.sets(st.integers(0, 60), max_size=30),
    st.lists(st.integers(0, 60), unique=True, max_size=60),
    st.integers(1, 10),
    st.none() | st.integers(0, 6),
)
def test_looking_sees_every_job_there_is_and_never_asks_much_more_than_one_by_one(
    wanted: set[int], listed: list[int], page_size: int, broken_page: int | None
) -> None:
    pages = [listed[at : at + page_size] for at in range(0, len(listed), page_size)] or [[]]
    plan = looking([f"batches/{number}" for number in sorted(wanted)])
    calls, answer = 0, None
    while True:
        try:
            ask = plan.send(answer) if answer is not None else next(plan)
        except StopIteration as done:
            seen = done.value
            break
        if isinstance(ask, ListPage):
            at = int(ask.token or 0)
            calls += 1
            token = str(at + 1) if at + 1 < len(pages) else ""
            shown = tuple(job(f"batches/{number}") for number in pages[at])
            answer = Look(miss=Miss("ServiceBusy 503")) if at == broken_page else Page(shown, token)
        else:
            assert isinstance(ask, Gets)
            calls += len(ask.names)
            answer = Look(tuple(job(name) for name in ask.names))
    names = {sight.name for sight in seen.sights}
    assert seen.miss is None
    assert {f"batches/{number}" for number in wanted} <= names
    assert calls <= len(wanted) + len(wanted) // 4 + 1


@given(
    st.sets(st.integers(0, 400), max_size=300),
    st.sets(st.integers(0, 400)),
    st.sets(st.integers(0, 400)),
    st.booleans(),
    st.booleans(),
)
def test_whatever_fails_the_calls_are_bounded_and_what_was_shown_is_kept(
    wanted: set[int], listed: set[int], hidden: set[int], page_fails: bool, stops: bool
) -> None:
    """Pages of ten, some of them lost; gets that show some jobs and not others."""
    plan = looking([f"batches/{number}" for number in sorted(wanted)])
    order = sorted(listed)
    calls, after_a_stop, shown, answer = 0, 0, set[str](), None
    stopped = False
    while True:
        try:
            ask = plan.send(answer) if answer is not None else next(plan)
        except StopIteration as done:
            seen = done.value
            break
        after_a_stop += stopped
        if isinstance(ask, ListPage):
            calls += 1
            at = int(ask.token or 0)
            if page_fails and at >= 20:
                answer, stopped = Look(miss=Miss("ServiceBusy 503", stop=stops)), stops
            else:
                jobs = tuple(job(f"batches/{number}") for number in order[at : at + 10])
                shown |= {one.name for one in jobs}
                answer = Page(jobs, str(at + 10) if at + 10 < len(order) else "")
        else:
            calls += len(ask.names)
            numbers = {int(name.rpartition("/")[2]) for name in ask.names}
            jobs = tuple(job(f"batches/{number}") for number in sorted(numbers - hidden))
            shown |= {one.name for one in jobs}
            gone = tuple(Unreachable(f"batches/{number}", "404") for number in sorted(numbers & hidden))
            answer = Look((*jobs, *gone))
    assert calls <= len(wanted) + len(wanted) // 4 + 1 + REACH * 10
    assert after_a_stop == 0
    assert shown == {sight.name for sight in seen.sights if isinstance(sight, JobSnapshot)}
    assert not shown & {sight.name for sight in seen.sights if isinstance(sight, Unreachable)}


def test_a_single_name_is_looked_for_on_the_list_only_in_company() -> None:
    assert next(looking(["batches/a"])) == Gets(("batches/a",))
    plan = looking(["batches/a"], company=True)
    assert next(plan) == ListPage()
    assert plan.send(Page((job("batches/b"),), "more")) == Gets(("batches/a",))


def test_a_service_that_asks_for_time_gets_it_but_not_beyond_a_quarter_of_an_hour_or_the_deadline() -> None:
    busy = Look(miss=Miss("ServiceBusy 503", "busy", stop=True, hold_seconds=90.0))
    _, decision = watch().after(busy, NOON)
    assert isinstance(decision, Wait)
    assert decision.until == NOON + timedelta(seconds=90)
    _, decision = watch(deadline=NOON + MINUTE).after(busy, NOON)
    assert isinstance(decision, Wait)
    assert decision.until == NOON + MINUTE
    _, decision = watch().after(Look(miss=Miss("ServiceBusy 503", hold_seconds=80_000.0)), NOON)
    assert isinstance(decision, Wait)
    assert decision.until == NOON + LONGEST_HOLD


def test_thousands_of_jobs_are_seen_in_pages_and_a_single_one_is_got() -> None:
    plan = looking([f"batches/{number}" for number in range(10_000)])
    asked = [next(plan)]
    for at in range(0, 9_900, 100):
        shown = tuple(job(f"batches/{number}") for number in range(at, at + 100))
        asked.append(plan.send(Page(shown, str(at + 100))))
    assert asked == [ListPage(str(at) if at else "") for at in range(0, 10_000, 100)]
    with pytest.raises(StopIteration):
        plan.send(Page(tuple(job(f"batches/{number}") for number in range(9_900, 10_000)), "more"))
    assert next(looking(["batches/a"])) == Gets(("batches/a",))
