from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from airflow_provider_geminibatch.core.errors import Unusable, WindowNotLanded
from airflow_provider_geminibatch.hooks.landing import Landing, landed_windows, read_window

BULLETINS = Landing("bulletins", "s3://aws@bucket/bulletins/")


def event(window, minute, landing="bulletins", **more):
    at = datetime(2018, 2, 1, 0, minute, tzinfo=UTC)
    return SimpleNamespace(extra={"window": window, "landing": landing, **more}, timestamp=at)


def run_started_by(*events):
    return {"triggering_asset_events": {"asset": list(events)}}


def test_an_asset_names_no_connection_and_is_the_same_every_time():
    assert BULLETINS.asset == BULLETINS.asset
    assert (BULLETINS.asset.name, BULLETINS.asset.uri) == ("bulletins", "s3://bucket/bulletins")


def test_a_plain_path_is_a_file_asset():
    assert Landing("local", "/data/bulletins").asset.uri == "file:///data/bulletins"


def test_a_format_that_nobody_writes_is_refused_while_the_dag_is_parsed():
    with pytest.raises(Unusable, match="csv"):
        Landing("bulletins", "/data/bulletins", format="csv")


def test_two_processes_with_different_hash_seeds_show_airflow_the_same_landing():
    code = (
        "from airflow_provider_geminibatch.hooks.landing import Landing;"
        "one = Landing('b', 's3://x/y', owner='dag.task'); print(one, one.serialize(), one.asset)"
    )
    shown = {
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout.splitlines()[-1]
        for seed in ("1", "2")
    }
    assert len(shown) == 1


def test_windows_come_oldest_first_and_each_once_with_its_newest_event():
    context = run_started_by(
        event("20180201T000000Z", 1),
        event("20180131T000000Z", 2, rows=1),
        event("20180131T120000Z", 3),
        event("20180131T000000Z", 4, rows=2),
    )
    windows = landed_windows(context)
    assert [each["window"] for each in windows] == ["20180131T000000Z", "20180131T120000Z", "20180201T000000Z"]
    assert windows[0]["rows"] == 2


def test_windows_that_are_no_times_come_in_the_order_they_landed():
    context = run_started_by(event("west", 3), event("east", 1), event("north", 2))
    assert [each["window"] for each in landed_windows(context)] == ["east", "north", "west"]


def test_events_of_other_landings_and_of_nobody_are_left_out_when_asked_so():
    context = run_started_by(event("a", 1), event("b", 2, landing="annotations"))
    context["triggering_asset_events"]["foreign"] = [SimpleNamespace(extra={}, timestamp=datetime.now(UTC))]
    assert [each["window"] for each in landed_windows(context)] == ["a", "b"]
    assert [each["window"] for each in landed_windows(context, BULLETINS)] == ["a"]


def test_a_run_that_no_landing_started_has_no_landed_windows():
    assert landed_windows({}) == []
    assert landed_windows({"triggering_asset_events": {}}) == []


def test_two_landings_may_have_a_window_of_the_same_name():
    context = run_started_by(event("a", 1), event("a", 1 + 1, landing="annotations"))
    assert {each["landing"] for each in landed_windows(context)} == {"bulletins", "annotations"}


def test_reading_a_window_that_has_not_landed_says_so(tmp_path):
    landing = Landing("bulletins", str(tmp_path))
    with pytest.raises(WindowNotLanded, match="20180131T000000Z has not landed"):
        list(read_window(landing, datetime(2018, 1, 31, tzinfo=UTC)))
    assert list(tmp_path.iterdir()) == []


def test_a_window_may_be_given_in_any_zone(tmp_path):
    landing, there = Landing("bulletins", str(tmp_path)), datetime(2018, 1, 31, 2, tzinfo=UTC).astimezone()
    with pytest.raises(WindowNotLanded, match="20180131T020000Z"):
        list(read_window(landing, there + timedelta(0)))
