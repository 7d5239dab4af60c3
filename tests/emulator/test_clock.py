"""The clock runs, runs fast, and is stepped."""

from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_geminibatch.emulator import Clock
from airflow_provider_geminibatch.emulator.clock import http_date, timestamp

START = datetime(2026, 11, 1, 6, 0, tzinfo=UTC)


def test_a_standing_clock_moves_only_when_it_is_advanced():
    clock = Clock(START, speed=0)
    assert clock.now() == START
    assert clock.advance(hours=5) == clock.now() == START + timedelta(hours=5)
    assert clock.advance(timedelta(minutes=1), seconds=1) == START + timedelta(hours=5, minutes=1, seconds=1)


def test_a_fast_clock_multiplies_real_time(monkeypatch):
    seconds = iter([100.0, 102.0, 103.0, 104.0])
    monkeypatch.setattr("airflow_provider_geminibatch.emulator.clock.monotonic", lambda: next(seconds))
    clock = Clock(START, speed=3600)
    assert clock.now() == START + timedelta(hours=2)
    clock.run(0)
    assert clock.speed == 0
    assert clock.now() == START + timedelta(hours=3)


@pytest.mark.parametrize(
    "wrong", [lambda: Clock(speed=-1), lambda: Clock(START).advance(hours=-1), lambda: Clock().run(-1)]
)
def test_a_clock_does_not_run_backwards(wrong):
    with pytest.raises(ValueError, match="backwards"):
        wrong()


def test_a_start_without_time_zone_is_refused():
    with pytest.raises(ValueError, match="time zone"):
        Clock(datetime(2026, 11, 1))  # noqa: DTZ001


def test_times_are_written_as_the_wire_and_http_write_them():
    moment = datetime(2026, 11, 1, 6, 0, 0, 123456, tzinfo=UTC)
    assert timestamp(moment) == "2026-11-01T06:00:00.123456000Z"
    assert http_date(moment) == "Sun, 01 Nov 2026 06:00:00 GMT"
