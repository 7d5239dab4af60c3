"""Names: injective, safe, reversible where they promise it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.model import BatchId
from airflow_provider_geminibatch.core.names import (
    SEGMENT_BYTES,
    batch_path,
    display_name,
    generation_path,
    labels_of,
    parse_wire_key,
    segment,
    text_of,
    window_text,
    window_time,
    wire_key,
)
from airflow_provider_geminibatch.storage.store import checked

any_text = st.text(st.characters(codec=None), max_size=150)


@given(any_text)
def test_a_segment_is_one_safe_path_part(text: str) -> None:
    encoded = segment(text)

    assert checked(encoded) == encoded
    assert "/" not in encoded
    assert len(encoded) <= SEGMENT_BYTES
    assert encoded.isascii()


@given(any_text, any_text)
def test_different_texts_have_different_segments(one: str, other: str) -> None:
    assert (segment(one) == segment(other)) == (one == other)


@given(st.text(st.characters(codec=None), max_size=8))
def test_a_segment_that_is_not_shortened_gives_its_text_back(text: str) -> None:
    assert text_of(segment(text)) == text


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        ("scheduled__2018-01-31T00:00:00+00:00", "scheduled__2018-01-31T00%3A00%3A00%2B00%3A00"),
        ("team.daily-annotate_v2", "team.daily-annotate_v2"),
        ("..", "%2E%2E"),
        (".hidden", "%2Ehidden"),
        ("a/../../etc", "a%2F..%2F..%2Fetc"),
        ("a~b", "a%7Eb"),
        ("", "~"),
    ],
)
def test_segments_read_well(text: str, encoded: str) -> None:
    assert segment(text) == encoded


def test_a_shortened_segment_says_that_its_text_is_elsewhere() -> None:
    with pytest.raises(ValueError, match="shortened"):
        text_of(segment("x" * 300))


@given(
    st.datetimes(
        datetime(2, 1, 1),  # noqa: DTZ001 - Hypothesis adds the zone
        datetime(9998, 1, 1),  # noqa: DTZ001 - Hypothesis adds the zone
        timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(-timedelta(hours=8))]),
    )
)
def test_a_window_of_a_time_gives_the_time_back(moment: datetime) -> None:
    assert window_time(window_text(moment)) == moment


def test_windows_in_words() -> None:
    assert window_text(datetime(2018, 1, 31, 12, tzinfo=UTC)) == "20180131T120000Z"
    assert window_text("eu-west") == "eu-west"
    assert window_time("eu-west") is None
    assert window_time("20181399T000000Z") is None
    with pytest.raises(ValueError, match="no time zone"):
        window_text(datetime(2018, 1, 31))  # noqa: DTZ001 - the point
    with pytest.raises(ValueError, match="empty"):
        window_text("")


@given(st.integers(0, 10**6), st.integers(0, 10**8))
def test_a_wire_key_gives_its_parts_back(shard: int, row: int) -> None:
    assert parse_wire_key(wire_key("abc234", shard, row)) == ("abc234", shard, row)


@pytest.mark.parametrize("key", ["", "abc", "abc-1-2", "ABC-0000-0000000", "abc-0000-0000000-", "abc-0000-0000000\n"])
def test_a_foreign_key_is_no_wire_key(key: str) -> None:
    assert parse_wire_key(key) is None


def test_a_display_name_depends_on_all_of_its_identity_and_fits_the_service() -> None:
    batch = BatchId("d", "r", "t")
    names = {
        display_name("w", batch, 1, "b", 0, 1),
        display_name("v", batch, 1, "b", 0, 1),
        display_name("w", BatchId("d", "r", "t", 0), 1, "b", 0, 1),
        display_name("w", batch, 2, "b", 0, 1),
        display_name("w", batch, 1, "c", 0, 1),
        display_name("w", batch, 1, "b", 1, 1),
        display_name("w", batch, 1, "b", 0, 2),
        display_name("w", BatchId("dr", "", "t"), 1, "b", 0, 1),
    }

    assert len(names) == 8
    assert all(name.startswith("gb1-") and len(name) == 41 for name in names)


def test_batches_lie_where_the_workspace_says() -> None:
    batch = BatchId("my dag", "manual__1", "prepare", 3)

    assert batch_path(batch) == "batches/my%20dag/manual__1/prepare/map=3"
    assert generation_path(batch, 12) == "batches/my%20dag/manual__1/prepare/map=3/g0012"


@given(st.text(), st.text(), st.text(min_size=1))
def test_labels_keep_to_the_letters_that_labels_may_have(dag: str, run: str, task: str) -> None:
    labels = labels_of(BatchId(dag, run, task))
    assert all(re.fullmatch(r"[a-z0-9_-]{0,63}", value) for value in labels.values())


@given(st.text(), st.text())
def test_different_dags_have_different_labels(one: str, other: str) -> None:
    assert (labels_of(BatchId(one, "r", "t")) == labels_of(BatchId(other, "r", "t"))) is (one == other)


def test_a_plain_dag_id_is_its_own_label() -> None:
    assert labels_of(BatchId("nightly_reviews", "scheduled__2026-11-22T00:00:00+00:00", "submit")) == {
        "dag": "nightly_reviews",
        "run": "scheduled__2026-11-22t00_00_00_00_00-71bbca42",
        "task": "submit",
    }
