"""Waves: shards are taken one after the other, within tokens and jobs; and the limits are those of the page."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.quotas import ENQUEUED_TOKENS, JOBS_AT_ONCE, enqueued_tokens, waves


@pytest.mark.parametrize(
    ("shards", "limit", "count"),
    [([], 10, 0), ([10], 10, 1), ([11], 10, None), ([4, 4, 4], 10, 2), ([1] * 101, 1000, 2), ([5, 6, 5, 6], 10, 4)],
)
def test_shards_go_in_as_many_waves_as_the_limit_makes(shards: list[int], limit: int, count: int | None) -> None:
    assert waves(shards, limit) == count


@given(st.lists(st.integers(0, 100), max_size=300), st.integers(100, 2000))
def test_there_are_never_fewer_waves_than_tokens_and_jobs_need(shards: list[int], limit: int) -> None:
    count = waves(shards, limit)
    assert count is not None
    assert count >= max(-(-sum(shards) // limit), -(-len(shards) // JOBS_AT_ONCE))
    assert count <= len(shards)


def test_a_model_has_the_limits_of_its_family_and_an_unknown_one_none() -> None:
    assert enqueued_tokens("models/gemini-3.1-pro-preview") == (5_000_000, 500_000_000, 1_000_000_000)
    assert enqueued_tokens("gemini-9") == ()
    assert all(list(limits) == sorted(limits) for limits in ENQUEUED_TOKENS.values())
