"""What common.ai asks as requests of ours, and what outcomes are called there."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_geminibatch.core.common_ai import (
    Ask,
    batch_problems,
    counts_of,
    hoisted,
    made_request,
    repeats,
    status_of,
    submission,
    submission_of,
    thought_warning,
    told,
    usage_of,
)
from airflow_provider_geminibatch.core.model import STATES, JobCounts, JobSnapshot, Outcomes, Usage
from airflow_provider_geminibatch.core.outcomes import Outcome

MODEL = "gemini-3.8-flash"
ASKED = submission("0123456789abcdef", "f" * 64, 10)


def ask(**settings: Any) -> Ask:
    return Ask(model=MODEL, **settings)


def job(state: str, *, output: str = "", **counts: int) -> JobSnapshot:
    return JobSnapshot(
        name="batches/1", state=state, display_name=ASKED.job_name, output_file=output, counts=JobCounts(**counts),
        created_at=datetime(2026, 11, 1, tzinfo=UTC),
    )  # fmt: skip


def test_a_prompt_becomes_a_request_with_the_settings_of_its_batch() -> None:
    made = made_request({"prompt": "Why?"}, ask(system_prompt="Be brief.", max_tokens=2000), "requests[0]")
    assert made.problems == ()
    assert made.request == {
        "contents": [{"role": "user", "parts": [{"text": "Why?"}]}],
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "generationConfig": {"maxOutputTokens": 2000},
    }


def test_a_requests_own_settings_win() -> None:
    batch = ask(system_prompt="A", max_tokens=2000, params={"temperature": 0.1, "top_p": 0.5})
    row = {"prompt": "x", "system_prompt": "B", "max_tokens": 30, "params": {"generation_config": {"temperature": 0.9}}}
    made = made_request(row, batch, "requests[0]")
    assert made.problems == ()
    assert made.request["systemInstruction"] == {"parts": [{"text": "B"}]}
    assert made.request["generationConfig"] == {"temperature": 0.9, "topP": 0.5, "maxOutputTokens": 30}


def test_settings_go_where_the_service_wants_them() -> None:
    made = made_request(
        {"prompt": "x", "params": {"tools": [{"googleSearch": {}}], "thinking_config": {"thinkingLevel": "LOW"}}},
        ask(), "requests[0]",
    )  # fmt: skip
    assert made.problems == ()
    assert made.request["tools"] == [{"googleSearch": {}}]
    assert made.request["generationConfig"]["thinkingConfig"] == {"thinkingLevel": "LOW"}


@pytest.mark.parametrize(
    ("params", "where", "hint"),
    [
        ({"contents": []}, "requests[3].contents", "GeminiBatchOperator"),
        ({"max_tokens": 5}, "requests[3].maxOutputTokens", "max_tokens="),
        ({"system_instruction": {}}, "requests[3].systemInstruction", "system_prompt="),
        ({"model": "gemini-3-pro"}, "requests[3].model", "model_id="),
        ({"temprature": 1}, "requests[3].generationConfig.temprature", "temperature"),
        ({"safetySetings": []}, "requests[3].safetySetings", "safetySettings"),
        ({"temperature": 9}, "requests[3].generationConfig.temperature", "0 to 2"),
        ("loud", "requests[3].params", "{name: value}"),
    ],
)
def test_a_setting_that_cannot_be_is_named_with_its_place(params: Any, where: str, hint: str) -> None:
    [problem] = made_request({"prompt": "x", "params": params}, ask(), "requests[3]").problems
    assert problem.where == where
    assert hint in problem.hint


def test_a_response_schema_is_the_tasks_own_where_it_asks_for_a_type() -> None:
    params = {"responseSchema": {"type": "STRING"}, "responseMimeType": "application/json"}
    free = made_request({"prompt": "x", "params": params}, ask(), "r")
    bound = made_request(
        {"prompt": "x", "params": params}, ask(directive={"responseMimeType": "application/json"}), "r"
    )
    assert free.problems == ()
    assert {problem.hint for problem in bound.problems} == {"write output_type="}


def test_settings_of_the_batch_are_wrong_once_and_not_in_every_request() -> None:
    [problem] = batch_problems(ask(params={"temperature": 9})).problems
    assert problem.where == "every request.generationConfig.temperature"


def test_a_small_cap_on_a_model_that_thinks_is_worth_a_word() -> None:
    assert "thoughts" in thought_warning(ask())
    assert thought_warning(ask(max_tokens=8000)) == ""
    assert thought_warning(Ask(model="gemini-9-nobody-knows")) == ""


def test_a_submission_is_read_back_from_the_name_of_its_job() -> None:
    assert submission_of(ASKED.job_name) == ASKED
    assert ASKED.job_name.startswith(submission("0123456789abcdef", "f" * 64).mark)
    assert submission_of("gb1-abc-def") is None
    assert submission_of("nightly") is None


def test_another_input_is_another_submission() -> None:
    assert submission("k", "one").mark != submission("k", "two").mark
    assert submission("k", "one").tag != submission("j", "one").tag


def test_every_state_has_a_word_and_only_ended_ones_end() -> None:
    for state, row in STATES.items():
        assert (status_of(job(state)) != "in_progress") is row.ended
    assert status_of(job("A_STATE_OF_THE_FUTURE")) == "in_progress"


def test_an_early_end_without_results_loses_every_request() -> None:
    assert counts_of(job("EXPIRED", total=10, succeeded=7)) == {
        "succeeded": 0, "errored": 0, "expired": 10, "cancelled": 0
    }  # fmt: skip
    assert counts_of(job("CANCELLED"))["cancelled"] == 10


def test_an_early_end_with_results_loses_the_rest() -> None:
    counts = counts_of(job("EXPIRED", output="files/1", total=10, succeeded=6, failed=1))
    assert counts == {"succeeded": 6, "errored": 1, "expired": 3, "cancelled": 0}
    assert counts_of(job("SUCCEEDED", output="files/1", total=10, succeeded=10))["succeeded"] == 10


@pytest.mark.parametrize("kind", [kind for kind in Outcomes if kind is not Outcomes.ANSWER])
def test_only_an_answer_is_a_success(kind: Outcomes) -> None:
    assert told(Outcome(kind=Outcomes.ANSWER, text="yes"), "SUCCEEDED") == ("success", None)
    status, error = told(Outcome(kind=kind, reason="why"), "SUCCEEDED")
    assert status == "errored"
    assert error is not None
    assert error["type"] == ("provider_error" if kind is Outcomes.FAILED else kind.value)
    assert (error["message"], error["stage"]) == ("why", "provider")


def test_what_came_of_a_cut_answer_is_kept_beside_its_error() -> None:
    cut = Outcome(kind=Outcomes.TRUNCATED, text="half of", reason="MAX_TOKENS", finish_reason="MAX_TOKENS")
    _, error = told(cut, "SUCCEEDED")
    assert error is not None
    assert (error["partial_text"], error["provider_code"]) == ("half of", "MAX_TOKENS")


def test_rows_that_the_end_of_their_job_took_along_are_told_apart() -> None:
    cancelled = Outcome(kind=Outcomes.FAILED, code=1, reason="cancelled")
    expired = Outcome(kind=Outcomes.FAILED, code=4, reason="deadline")
    assert [told(cancelled, state).status for state in ("CANCELLED", "SUCCEEDED")] == ["cancelled", "errored"]
    assert [told(expired, state).status for state in ("EXPIRED", "SUCCEEDED")] == ["expired", "errored"]


def test_thoughts_are_output_as_they_are_on_the_bill() -> None:
    used = Outcome(kind=Outcomes.ANSWER, usage=Usage(prompt=5, candidates=7, thoughts=11, total=23))
    assert usage_of(used) == {"input_tokens": 5, "output_tokens": 18}


def test_definitions_of_a_wrapped_schema_stand_where_references_look() -> None:
    inner = {"type": "array", "items": {"$ref": "#/$defs/D"}, "$defs": {"D": {"type": "string"}}}
    wrapped = {"type": "object", "properties": {"response": inner}, "required": ["response"]}
    assert hoisted(wrapped) == {
        "type": "object", "properties": {"response": {"type": "array", "items": {"$ref": "#/$defs/D"}}},
        "required": ["response"], "$defs": {"D": {"type": "string"}},
    }  # fmt: skip
    assert hoisted({"type": "object"}) == {"type": "object"}


def test_a_row_repeats_as_often_as_its_lines_do() -> None:
    assert list(repeats({4: (10, 20), 7: (30,)})) == [4, 4, 7]
