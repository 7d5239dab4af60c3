"""One result line, one outcome."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.model import Outcomes
from airflow_provider_geminibatch.core.outcomes import FINISHES, Checked, Outcome, classify

GOLDEN = Path(__file__).parents[1] / "golden" / "outcomes"
CASES = [
    pytest.param(case["line"], case["becomes"], id=f"{path.stem}: {case['case']}")
    for path in sorted(GOLDEN.glob("*.jsonl"))
    for case in map(json.loads, path.read_text().splitlines())
]


@pytest.mark.parametrize(("line", "becomes"), CASES)
def test_a_line_becomes_the_outcome_that_is_written_down_for_it(line: dict[str, Any], becomes: dict[str, Any]) -> None:
    expected = msgspec.convert(becomes, Outcome)
    assert classify(json.dumps(line).encode()) == (line.get("key"), expected, True)


def test_every_outcome_but_missing_and_invalid_has_golden_lines() -> None:
    kinds = {case.values[1]["kind"] for case in CASES}
    assert kinds == set(Outcomes) - {Outcomes.MISSING, Outcomes.INVALID}


def test_every_finish_reason_of_the_sdk_has_a_row() -> None:
    from google.genai.types import FinishReason

    assert {reason.value for reason in FinishReason} <= set(FINISHES)


@pytest.mark.parametrize("key", ["null", "17", '""', '["a"]', "{}"])
def test_a_key_that_is_no_text_is_no_key(key: str) -> None:
    line = classify(f'{{"key":{key},"error":{{"code":7,"message":"no"}}}}'.encode())
    assert (line.key, line.outcome.code, line.readable) == (None, 7, True)


@pytest.mark.parametrize("said", ["OK", "", {}, {"code": 0}, {"code": 0, "message": "OK"}])
def test_a_status_that_says_all_is_well_takes_no_answer_away(said: Any) -> None:
    response = {"candidates": [{"content": {"parts": [{"text": "hi"}]}, "finishReason": "STOP"}]}
    for field in ("status", "error"):
        line = msgspec.json.encode({"key": "k", "response": response, field: said})
        assert classify(line).outcome.kind == "answer"


@pytest.mark.parametrize(
    ("said", "reason", "code", "transient"),
    [
        ({"message": "later", "status": "UNAVAILABLE"}, "later", 14, True),
        ({"status": "INVALID_ARGUMENT"}, "INVALID_ARGUMENT", 3, False),
        ({"code": "RESOURCE_EXHAUSTED", "message": "m"}, "m", 8, True),
        ({"code": "13", "message": "m"}, "m", 13, True),
        ({"code": "NEW_CODE", "status": "INTERNAL", "message": "m"}, "m", 13, True),
        ("INTERNAL", "INTERNAL", 13, True),
        ("words", "words", None, False),
        ({"code": 400, "message": "Please try again in a few minutes."}, "Please try again in a few minutes.", 400, True),
        ({"code": 400, "message": "Correct it and try again."}, "Correct it and try again.", 400, False),
        ('Bad Request: {"error": {"code": 400, "message": "no", "status": "INVALID_ARGUMENT"}}', "Bad Request: no", 400, False),
        ('Failed to get it: {"error": {"code": 503, "message": "busy"}}', "Failed to get it: busy", 503, True),
        ('{"code": 429, "message": "slow"}', "slow", 429, True),
        ('Bad: {"error": {"code": 503}}', 'Bad: {"error": {"code": 503}}', 503, True),
        ('Bad: {"error": {"code": 0}}', 'Bad: {"error": {"code": 0}}', None, False),
        ('Bad: {"error": ', 'Bad: {"error": ', None, False),
        ("Bad: {}", "Bad: {}", None, False),
    ],
)  # fmt: skip
def test_a_code_is_found_wherever_the_error_has_it(said: Any, reason: str, code: int | None, transient: bool) -> None:
    for line in ({"error": said}, {"status": said}, {"response": {"error": said}}):
        found = classify(msgspec.json.encode({"key": "k", **line})).outcome
        assert (found.kind, found.reason, found.code, found.transient) == (Outcomes.FAILED, reason, code, transient)


def test_a_blocked_prompt_beside_silent_candidates_is_blocked() -> None:
    silent = {"content": {"role": "model"}, "finishReason": "STOP"}
    response = {"promptFeedback": {"blockReason": "SAFETY"}, "candidates": [silent]}
    found = classify(msgspec.json.encode({"key": "k", "response": response})).outcome
    assert (found.kind, found.reason, found.extra) == (Outcomes.BLOCKED, "prompt blocked: SAFETY", None)
    response["candidates"] = [silent, silent]
    found = classify(msgspec.json.encode({"key": "k", "response": response})).outcome
    assert (found.kind, found.extra) == (Outcomes.BLOCKED, {"alternatives": [None]})
    response["candidates"] = [silent, {**silent, "content": {"parts": [{"text": "said"}]}}]
    assert classify(msgspec.json.encode({"key": "k", "response": response})).outcome.kind is Outcomes.ANSWER


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ({"inlineData": {"mimeType": "image/png", "data": "aQ=="}}, Outcomes.INVALID),
        ({"executableCode": {"code": "1"}}, Outcomes.INVALID),
        ({"functionCall": {"name": "f"}}, Outcomes.ANSWER),
    ],
)
def test_what_is_no_text_does_not_fit_a_schema(part: dict[str, Any], kind: Outcomes) -> None:
    response = {"candidates": [{"content": {"parts": [part]}, "finishReason": "STOP"}]}
    line = msgspec.json.encode({"key": "k", "response": response})
    assert classify(line).outcome.kind is Outcomes.ANSWER
    found = classify(line, lambda text: Checked({})).outcome
    assert (found.kind, found.value, found.extra) == (kind, None, {next(iter(part)): [next(iter(part.values()))]})


def test_a_line_without_a_key_keeps_its_outcome() -> None:
    line = classify(b'{"error":{"code":7,"message":"The caller does not have permission"}}')
    assert (line.key, line.outcome.kind, line.readable) == (None, Outcomes.FAILED, True)


@pytest.mark.parametrize(
    "raw", [b"", b"\n", b"{", b"[]", b"null", b"\xff\xfe", b'{"key":"a","response":{"cand', b"[" * 5000]
)
def test_what_is_no_json_object_is_unreadable(raw: bytes) -> None:
    line = classify(raw)
    assert (line.key, line.outcome.kind, line.readable) == (None, Outcomes.FAILED, False)


def test_an_answer_of_the_wrong_shape_is_held_against_the_schema_only_when_there_is_one() -> None:
    raw = b'{"key":"k","response":{"candidates":[{"content":{"parts":[{"text":"{}"}]},"finishReason":"STOP"}]}}'
    assert classify(raw).outcome.kind is Outcomes.ANSWER
    judged = classify(raw, lambda text: Checked({"seen": text}, "$: lacks 'x'")).outcome
    assert (judged.kind, judged.reason, judged.value) == (Outcomes.INVALID, "$: lacks 'x'", {"seen": "{}"})


def test_a_truncated_text_is_not_held_against_the_schema() -> None:
    raw = b'{"key":"k","response":{"candidates":[{"content":{"parts":[{"text":"{"}]},"finishReason":"MAX_TOKENS"}]}}'

    def never(text: str) -> Checked:
        raise AssertionError(text)

    assert classify(raw, never).outcome.kind is Outcomes.TRUNCATED


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["candidates", "content", "parts", "text", "thought", "finishReason", "promptFeedback", "blockReason", "error",
     "code", "message", "usageMetadata", "promptTokenCount", "embedding", "values", "response", "status", "key"]
)  # fmt: skip
NEAR_MISSES = st.recursive(
    JSON, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=4), max_leaves=12
)


@given(st.binary(max_size=200))
def test_no_bytes_make_it_raise(raw: bytes) -> None:
    assert classify(raw).outcome.kind in Outcomes


@given(st.dictionaries(FIELDS, NEAR_MISSES, max_size=4))
def test_no_json_makes_it_raise_and_every_outcome_can_be_written_down(line: dict[str, Any]) -> None:
    outcome = classify(json.dumps(line).encode()).outcome
    assert msgspec.json.decode(msgspec.json.encode(outcome), type=Outcome) == outcome


@given(
    st.dictionaries(st.text(max_size=4).filter(lambda name: name not in ("key", "response", "error", "status")), JSON)
)
def test_fields_that_nobody_knows_change_nothing(unknown: dict[str, Any]) -> None:
    known = {"key": "k", "response": {"candidates": [{"content": {"parts": [{"text": "a"}]}, "finishReason": "STOP"}]}}
    assert classify(json.dumps({**unknown, **known}).encode()) == classify(json.dumps(known).encode())
