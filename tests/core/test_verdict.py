"""Thresholds: what a chain may move on from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.core.model import Outcomes
from airflow_provider_geminibatch.core.verdict import Thresholds, Verdicts, judge


@pytest.mark.parametrize(
    ("counts", "thresholds", "verdict", "numbers"),
    [
        ({"answer": 20}, Thresholds(), "accepted", "20 of 20 answered"),
        (
            {"answer": 19, "empty": 1},
            Thresholds(),
            "accepted",
            "19 of 20 answered; 1 unresolved (5 %, at most 5 % allowed): 1 empty",
        ),
        (
            {"answer": 18, "blocked": 1, "missing": 1},
            Thresholds(),
            "rejected",
            "18 of 20 answered; 2 unresolved (10 %, at most 5 % allowed): 1 blocked, 1 missing",
        ),
        (
            {"answer": 0, "failed": 3},
            Thresholds(max_unresolved=1),
            "rejected",
            "0 of 3 answered; 3 unresolved (100 %, at most 100 % allowed): 3 failed; at least 1 answered asked for",
        ),
        (
            {"answer": 9},
            Thresholds(min_answers=10),
            "rejected",
            "9 of 9 answered; at least 10 answered asked for",
        ),
        ({}, Thresholds(), "rejected", "0 of 0 answered; at least 1 answered asked for"),
    ],
)
def test_the_verdict_and_its_sentence(
    counts: dict[str, int], thresholds: Thresholds, verdict: str, numbers: str
) -> None:
    judged = judge(counts, thresholds)
    assert (judged.verdict, judged.numbers) == (verdict, numbers)


@given(st.dictionaries(st.sampled_from([kind for kind in Outcomes if kind is not Outcomes.ANSWER]), st.integers(0, 99)))
def test_zero_answers_is_never_a_success(counts: dict[str, int]) -> None:
    assert judge(counts, Thresholds(max_unresolved=1.0)).verdict is Verdicts.REJECTED


@given(st.integers(1, 100))
def test_a_share_of_exactly_the_threshold_passes(percent: int) -> None:
    counts = {"answer": 1000 - 10 * percent + 10, "missing": 10 * percent - 10}
    assert judge(counts, Thresholds(max_unresolved=(percent - 1) / 100)).verdict is Verdicts.ACCEPTED


def test_chains_move_on_from_complete_and_accepted_only() -> None:
    assert judge({"answer": 1}, Thresholds()).passes
    assert not judge({"answer": 1}, Thresholds(), complete=False).passes
    assert not judge({"missing": 1}, Thresholds()).passes


@pytest.mark.parametrize("wrong", [{"max_unresolved": 5}, {"max_unresolved": -0.1}, {"min_answers": 0}])
def test_thresholds_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(Unusable, match="Write"):
        Thresholds(**wrong)  # type: ignore[arg-type]
