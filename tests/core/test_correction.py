"""A second turn that says what was wrong: only where it is certain to mean the same, and never longer than three turns."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.correction import LONGEST_ANSWER, LONGEST_PROBLEM, corrected
from airflow_provider_geminibatch.core.requests import check_request

ASKED: dict[str, Any] = {
    "contents": [{"role": "user", "parts": [{"text": "Which city?"}]}],
    "generationConfig": {"responseMimeType": "application/json"},
}


def test_the_model_sees_its_answer_and_what_was_wrong_with_it() -> None:
    told = corrected(ASKED, '{"city": 7}', "$.city: 7 is not of type 'string'.")
    assert told is not None
    assert [turn["role"] for turn in told["contents"]] == ["user", "model", "user"]
    assert told["contents"][0] == ASKED["contents"][0]
    assert told["contents"][1]["parts"] == [{"text": '{"city": 7}'}]
    assert "$.city: 7 is not of type 'string'. Answer" in told["contents"][2]["parts"][0]["text"]
    assert told["generationConfig"] == ASKED["generationConfig"]
    assert check_request(told, kind="generate", model="gemini-3.8-flash", route="developer").problems == ()


def test_a_turn_without_a_role_is_the_users() -> None:
    told = corrected({"contents": [{"parts": [{"text": "?"}]}]}, "no", "not JSON")
    assert told is not None
    assert told["contents"][0] == {"role": "user", "parts": [{"text": "?"}]}


@pytest.mark.parametrize(
    "contents",
    [
        None,
        [],
        "Which city?",
        [{"role": "model", "parts": [{"text": "?"}]}],
        [{"role": "user", "parts": []}],
        [{"role": "user", "parts": [{"text": "?"}, {"fileData": {"fileUri": "gs://b/f"}}]}],
        [{"role": "user", "parts": [{"text": "?", "thought": True}]}],
        [{"role": "user", "parts": [{"text": "?"}]}, {"role": "model", "parts": [{"text": "!"}]}],
    ],
)
def test_whatever_is_not_one_turn_of_text_is_left_as_it_is(contents: Any) -> None:
    assert corrected({"contents": contents}, "answer", "problem") is None


def test_nothing_to_show_or_too_much_of_it_is_not_shown() -> None:
    assert corrected(ASKED, None, "problem") is None
    assert corrected(ASKED, "", "problem") is None
    assert corrected(ASKED, "answer", "") is None
    assert corrected(ASKED, "x" * (LONGEST_ANSWER + 1), "problem") is None


@given(answer=st.text(max_size=200), problem=st.text(max_size=3_000))
def test_what_is_added_is_bounded_whatever_was_answered(answer: str, problem: str) -> None:
    told = corrected(ASKED, answer, problem)
    if told is not None:
        added = sum(len(part["text"]) for turn in told["contents"][1:] for part in turn["parts"])
        assert added <= len(answer) + LONGEST_PROBLEM + 150
    assert (told is None) == (not answer or not problem)
