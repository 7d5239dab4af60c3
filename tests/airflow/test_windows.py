from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pendulum
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.errors import BadWindow
from airflow_provider_geminibatch.core.names import window_text
from airflow_provider_geminibatch.hooks.windows import as_window, window_of
from tests.airflow.faces import context, interval

MIDNIGHT = datetime(2018, 1, 31, tzinfo=UTC)
NOON = datetime(2018, 1, 31, 12, tzinfo=UTC)


def test_what_the_task_was_given_comes_before_all_that_the_run_says():
    run = context(partition_key="eu", **interval(MIDNIGHT, NOON))
    assert window_of(run, "by-hand") == "by-hand"
    assert window_of(run, NOON) == "20180131T120000Z"


def test_a_partition_key_is_the_window_of_a_partitioned_run():
    assert window_of(context(partition_key="2018-01-31T00:00:00")) == "2018-01-31T00:00:00"


def test_airflow_32_has_the_partition_key_on_the_run_only():
    run = context() | {"dag_run": SimpleNamespace(partition_key="eu", run_id="r")}
    assert window_of(run) == "eu"


def test_a_data_interval_gives_its_start():
    assert window_of(context(**interval(MIDNIGHT, NOON))) == "20180131T000000Z"


def test_a_manual_run_belongs_to_the_interval_that_airflow_infers_for_it():
    run = context(run_id="manual__1", logical_date=NOON, data_interval_start=MIDNIGHT, data_interval_end=NOON)
    assert window_of(run) == "20180131T000000Z"


def test_an_empty_data_interval_says_nothing_and_the_logical_date_counts():
    run = context(logical_date=NOON, data_interval_start=MIDNIGHT, data_interval_end=MIDNIGHT)
    assert window_of(run) == "20180131T120000Z"


@pytest.mark.parametrize("run_id", ["asset_triggered__1", "manual__without_logical_date"])
def test_a_run_without_any_time_is_told_what_to_pass(run_id):
    run = context(run_id=run_id, logical_date=None, data_interval_start=None, data_interval_end=None)
    with pytest.raises(BadWindow, match="Pass window="):
        window_of(run)
    assert window_of(run, f"{run_id}") == run_id


@pytest.mark.parametrize(
    ("given_text", "window"),
    [
        ("2018-01-31T00:00:00+00:00", "20180131T000000Z"),
        ("2018-01-31 01:00:00+01:00", "20180131T000000Z"),
        ("20180131T000000Z", "20180131T000000Z"),
        ("2018-01-31T00:00:00", "2018-01-31T00:00:00"),
        ("2018-01-31", "2018-01-31"),
        (" eu/west ", "eu/west"),
    ],
)
def test_a_rendered_time_with_a_zone_is_that_time_and_all_other_text_is_itself(given_text, window):
    assert as_window(given_text) == window


@pytest.mark.parametrize("wrong", [datetime(2018, 1, 31), 7, None, "", "  "])  # noqa: DTZ001 - naive on purpose
def test_what_is_no_window_is_refused(wrong):
    with pytest.raises(BadWindow):
        as_window(wrong)


@given(st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(2200, 1, 1), timezones=st.timezones()))  # noqa: DTZ001
def test_a_time_and_its_rendered_text_are_the_same_window(time):
    assert as_window(str(time)) == as_window(time) == as_window(window_text(time))


BERLIN, NEW_YORK = pendulum.timezone("Europe/Berlin"), pendulum.timezone("America/New_York")
HALF_A_DAY = pendulum.duration(hours=-12)


@pytest.mark.parametrize(
    ("zone", "window", "before"),
    [
        (BERLIN, (2018, 3, 25, 0), (2018, 3, 24, 12)),
        (BERLIN, (2018, 3, 25, 12), (2018, 3, 25, 0)),  # eleven hours apart
        (BERLIN, (2018, 3, 26, 0), (2018, 3, 25, 12)),
        (BERLIN, (2018, 10, 28, 0), (2018, 10, 27, 12)),
        (BERLIN, (2018, 10, 28, 12), (2018, 10, 28, 0)),  # thirteen
        (BERLIN, (2018, 10, 29, 0), (2018, 10, 28, 12)),
        (NEW_YORK, (2018, 3, 11, 12), (2018, 3, 11, 0)),
        (NEW_YORK, (2018, 3, 12, 0), (2018, 3, 11, 12)),
        (NEW_YORK, (2018, 11, 4, 12), (2018, 11, 4, 0)),
        (NEW_YORK, (2018, 11, 5, 0), (2018, 11, 4, 12)),
    ],
)
def test_half_a_day_before_is_half_a_day_on_the_clock_of_the_dag_on_both_days_of_a_clock_change(zone, window, before):
    run = context(zone=zone, **interval(pendulum.datetime(*window, tz=zone), pendulum.datetime(2030, 1, 1)))
    assert window_of(run, offset=HALF_A_DAY) == window_text(pendulum.datetime(*before, tz=zone))


def test_a_calendar_day_is_a_day_on_the_clock():
    run = context(zone=BERLIN, **interval(pendulum.datetime(2018, 3, 25, 12, tz=BERLIN), pendulum.datetime(2030, 1, 1)))
    assert window_of(run, offset=pendulum.duration(days=-1)) == "20180324T110000Z"


def test_a_plain_timedelta_is_elapsed_time():
    run = context(zone=BERLIN, **interval(pendulum.datetime(2018, 3, 25, 12, tz=BERLIN), pendulum.datetime(2030, 1, 1)))
    assert window_of(run, offset=timedelta(hours=-12)) == "20180324T220000Z"


def test_the_zone_of_the_schedule_comes_before_that_of_the_dag():
    noon = pendulum.datetime(2018, 3, 25, 12, tz=BERLIN)
    for zone in (BERLIN, "Europe/Berlin"):
        run = context(timetable_zone=zone, **interval(noon, pendulum.datetime(2030, 1, 1)))
        assert window_of(run, offset=HALF_A_DAY) == "20180324T230000Z"


@pytest.mark.parametrize(
    ("key", "before"),
    [
        ("2018-03-25T12:00:00", "2018-03-25T00:00:00"),
        ("2018-03-25 12:00:00", "2018-03-25 00:00:00"),
        ("2018-03-25T12", "2018-03-25T00"),
    ],
)
def test_a_partition_key_moves_in_its_own_form(key, before):
    assert window_of(context(zone=BERLIN, partition_key=key), offset=HALF_A_DAY) == before


def test_text_that_is_no_time_cannot_be_moved():
    with pytest.raises(BadWindow, match="'eu', which is not a time"):
        window_of(context(partition_key="eu"), offset=HALF_A_DAY)


@given(st.integers(0, 20_000), st.integers(-40, 40))
def test_in_utc_both_sorts_of_offset_are_the_same(half_days, steps):
    window = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(hours=12 * half_days)
    run = context(**interval(window, window + timedelta(hours=12)))
    assert window_of(run, offset=pendulum.duration(hours=12 * steps)) == window_of(
        run, offset=timedelta(hours=12 * steps)
    )
