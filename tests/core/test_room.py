"""The learned room: a refusal lowers it to what is open, success raises it slowly, and it never blocks for good."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.room import (
    FORGET,
    LIFE,
    REMEMBERED,
    Event,
    Gone,
    Refused,
    Room,
    Took,
    backoff,
    described,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
FIRST, LONGEST = timedelta(seconds=30), timedelta(minutes=15)


def after(room: Room, *events: Event) -> Room:
    for event in events:
        room = room.after(event, FIRST, LONGEST)
    return room


def holding(*names: str, ceiling: int | None = None) -> Room:
    return Room(ceiling=ceiling, open=dict.fromkeys(names, NOON))


def test_nothing_is_known_at_first_so_everything_may_go() -> None:
    assert Room().wave is None
    assert holding(*"abcdef").full(NOON, None, FIRST, LONGEST) is None
    assert described(Room(), NOON) == ""


def test_a_refusal_lowers_the_ceiling_to_what_is_open_and_the_others_wait() -> None:
    room = after(holding("a", "b", "c", ceiling=50), Refused(NOON))
    full = room.full(NOON, room.wave, FIRST, LONGEST)
    assert room.ceiling == 3
    assert full is not None
    assert (full.until, full.why) == (NOON + FIRST, "no room at the service (429), our 3 open jobs hold some of it")


def test_even_with_nothing_open_one_may_ask() -> None:
    room = after(Room(), Refused(NOON))
    assert (room.ceiling, room.full(NOON + FIRST, room.wave, FIRST, LONGEST)) == (1, None)


def test_refusals_in_a_row_double_the_pause_up_to_a_cap_and_a_success_ends_the_row() -> None:
    room, now, pauses = Room(), NOON, []
    for _ in range(7):
        room = after(room, Refused(now))
        assert room.not_before is not None
        pauses.append((room.not_before - now).total_seconds())
        now = room.not_before
    assert pauses == [30, 60, 120, 240, 480, 900, 900]
    room = after(room, Took("a", now), Refused(now + SECOND))
    assert room.not_before == now + SECOND + FIRST


def test_several_who_are_refused_at_once_count_as_one() -> None:
    room = after(Room(), Refused(NOON), Refused(NOON + SECOND), Refused(NOON + 2 * SECOND))
    assert (room.in_a_row, room.not_before) == (1, NOON + 2 * SECOND + FIRST)


def test_what_the_service_asks_for_is_kept_if_it_is_longer() -> None:
    assert after(Room(), Refused(NOON, 600.0)).not_before == NOON + timedelta(seconds=600)
    assert after(Room(), Refused(NOON, 1.0)).not_before == NOON + FIRST
    assert backoff(1, FIRST, LONGEST, None) == FIRST


@pytest.mark.parametrize(("ceiling", "wave"), [(1, 2), (9, 10), (10, 11), (100, 110)])
def test_a_wave_goes_a_tenth_beyond_the_ceiling_and_one_at_least(ceiling: int, wave: int) -> None:
    assert holding(ceiling=ceiling).wave == wave


def test_a_wave_that_was_taken_raises_the_ceiling_for_the_next_one() -> None:
    room = holding("a", "b", ceiling=2)
    wave = room.wave
    room = after(room, Took("c", NOON))
    full = room.full(NOON, wave, FIRST, LONGEST)
    assert full is not None
    assert full.why == "3 jobs are open, and the service was full at 3 or fewer"
    assert (room.ceiling, room.wave) == (3, 4)


def test_while_nothing_moves_the_pause_grows() -> None:
    room = holding("a", "b", ceiling=1)
    pauses = []
    for minutes in (0, 6, 60, 600):
        now = NOON + timedelta(minutes=minutes)
        full = room.full(now, room.wave, FIRST, LONGEST)
        assert full is not None
        pauses.append((full.until - now).total_seconds())
    assert pauses == [30, 30, 300, 900]


def test_jobs_that_have_ended_make_room() -> None:
    room = after(holding("a", "b", "c", ceiling=2), Gone(("a", "c")))
    assert list(room.open) == ["b"]
    assert room.full(NOON, room.wave, FIRST, LONGEST) is None


def test_what_is_too_old_does_not_count() -> None:
    room = after(holding("a"), Refused(NOON))
    assert room.at(NOON + FORGET).ceiling is None
    assert room.at(NOON + LIFE - SECOND).open == {"a": NOON}
    assert room.at(NOON + LIFE).open == {}


def test_only_the_newest_jobs_are_remembered() -> None:
    room = Room()
    for number in range(REMEMBERED + 5):
        room = after(room, Took(f"j{number}", NOON + number * SECOND))
    assert len(room.open) == REMEMBERED
    assert "j4" not in room.open


def test_it_is_told_in_one_line() -> None:
    room = after(holding("a", "b"), Refused(NOON))
    said = described(room, NOON + timedelta(minutes=5))
    assert said == "at most about 2 jobs at once (refused 5 min ago), 2 of ours open"


events = st.one_of(
    st.builds(Took, st.sampled_from("abcdefghij"), st.just(NOON)),
    st.builds(Refused, st.just(NOON), st.none() | st.floats(0, 86_400)),
    st.builds(Gone, st.lists(st.sampled_from("abcdefghij"), max_size=3).map(tuple)),
)


@given(st.lists(events, max_size=30))
def test_a_refusal_never_raises_and_a_success_never_lowers_it(happened: list[Event]) -> None:
    room = Room()
    for event in happened:
        before, room = room, after(room, event)
        match event:
            case Refused():
                assert room.ceiling == max(1, len(before.open))
                assert room.not_before is not None and room.not_before >= NOON + FIRST
            case Took(name):
                assert name in room.open
                assert (room.ceiling is None) == (before.ceiling is None)
                assert (room.ceiling or 0) >= (before.ceiling or 0)
                assert (room.ceiling or 0) <= max(before.ceiling or 0, len(room.open))
            case Gone():
                assert room.ceiling == before.ceiling
        assert msgspec.json.decode(msgspec.json.encode(room), type=Room) == room


@given(st.lists(events, max_size=30))
def test_once_all_is_over_somebody_may_always_send(happened: list[Event]) -> None:
    """Whatever was learned, two days later there is room again: advice never becomes a dead end."""
    room = after(Room(), *happened).at(NOON + LIFE)
    assert room.full(NOON + LIFE, room.wave, FIRST, LONGEST) is None
