"""The quick road and the long one agree on every line that the wire might hold, and on what jsonschema says of it."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from airflow_provider_geminibatch.core.fast_outcomes import read_lines
from airflow_provider_geminibatch.core.model import Outcomes
from airflow_provider_geminibatch.core.outcomes import FINISHES, SchemaCheck, VectorCheck, classify
from airflow_provider_geminibatch.core.schema_check import schema_check
from tests.core.test_fast_outcomes import alone, rows_of

SCHEMA = {
    "type": "object",
    "properties": {
        "n": {"type": "integer", "minimum": 0},
        "share": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        "word": {"type": "string", "enum": ["x", "é"]},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 3}, "maxItems": 2},
    },
    "required": ["n"],
    "additionalProperties": False,
}
CHECKS: tuple[SchemaCheck | None, ...] = (None, schema_check(SCHEMA), schema_check({"type": "string"}), VectorCheck(2))

SCALARS = st.sampled_from(
    [0, 1, -1, 1.0, 0.5, -0.0, 2**53 + 1, 2**64, 10**30, -(10**400), 1e308, 5e-324, True, False, None, "", "x", "é", "\x00", "\u2028"]
)  # fmt: skip
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.sampled_from(["", "n", "x"]), SCALARS, max_size=2)
ANSWERS = st.dictionaries(st.sampled_from([*SCHEMA["properties"], "more", ""]), VALUES, max_size=4)  # type: ignore[misc]
ODD_TEXTS = st.sampled_from(
    ["", " \n", "{", "hello", '{"n":1,"n":"x"}', '{"word":"\\ud800"}', '{"n":NaN}', '{"n":1e999}', "[" * 400, '{"n":1}{"n":2}',
     '\ufeff{"n":1}', "```json\n{\"n\":1}\n```", 'Sure: {"n":1}', '{"n":1,}', '{"n":1', "[" * 50 + "]" * 50]
)  # fmt: skip
TEXTS = ODD_TEXTS | ANSWERS.map(json.dumps) | ANSWERS.map(lambda made: json.dumps(made, ensure_ascii=False))
PARTS = st.fixed_dictionaries(
    {},
    optional={
        "text": TEXTS,
        "thought": st.sampled_from([True, False, None]),
        "functionCall": st.sampled_from([None, {"name": "f", "args": {"x": 10**30}}]),
        "inlineData": st.sampled_from([None, {"mimeType": "image/png", "data": "aGk="}, {"data": "!"}, 7]),
        "executableCode": st.just({"code": "1"}),
        "thoughtSignature": st.just("c2ln"),
    },
)
CANDIDATES = st.fixed_dictionaries(
    {"finishReason": st.sampled_from(["STOP"] * 12 + [*FINISHES, "NEW", "", None])},
    optional={
        "content": st.none() | st.fixed_dictionaries({}, optional={"parts": st.none() | st.lists(PARTS, max_size=3)}),
        "avgLogprobs": st.sampled_from([-0.5, None]),
        "groundingMetadata": st.just({"webSearchQueries": ["é"]}),
        "logprobsResult": st.just({"chosenCandidates": [{"logProbability": -1e-320}]}),
        "safetyRatings": st.just([]),
    },
)
COUNTS = st.sampled_from([0, 1, 7, "7", "x", None, 2.0, 1e300, -1, 2**53 - 1, 2**53, 2**64])
ERRORS = st.sampled_from(
    [None, "", "OK", "words", "INTERNAL", {}, [], 0, 7, {"code": 0}, {"code": "13"}, {"code": "UNAVAILABLE", "message": ""},
     {"message": "m", "status": "ABORTED"}, 'Bad: {"error": {"code": 429, "message": "slow"}}', {"code": 10**30}, {"code": True}]
)  # fmt: skip
USAGES = st.dictionaries(
    st.sampled_from(["promptTokenCount", "toolUsePromptTokenCount", "candidatesTokenCount", "thoughtsTokenCount",
                     "cachedContentTokenCount", "totalTokenCount"]),
    COUNTS,
)  # fmt: skip
RESPONSES = st.fixed_dictionaries(
    {"candidates": st.lists(CANDIDATES, max_size=2)},
    optional={
        "promptFeedback": st.sampled_from([None, {}, {"blockReason": "SAFETY", "safetyRatings": [{}]}]),
        "usageMetadata": st.none() | USAGES,
        "modelVersion": st.sampled_from(["m", "", None]),
        "tokenCount": COUNTS,
        "embedding": st.sampled_from([None, {}, {"values": []}, {"values": [0.5, 1]}, {"values": [1, 1e39]}]),
        "error": ERRORS,
    },
)
LINES = st.fixed_dictionaries(
    {"key": st.sampled_from(["k", "k", "k", "", None, 1])},
    optional={"response": st.none() | RESPONSES, "error": ERRORS, "status": ERRORS, "more": VALUES},
)


def encoded(made: dict[str, Any]) -> bytes:
    return json.dumps(made, ensure_ascii=False).encode("utf-8", "replace")


@settings(max_examples=300, deadline=None)
@given(st.lists(LINES.map(encoded), max_size=4))
def test_both_roads_come_to_the_same_whatever_the_line_holds(lines: list[bytes]) -> None:
    for check in CHECKS:
        assert repr(rows_of(read_lines(lines, check))) == repr([alone(line, check) for line in lines])


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_an_answer_is_valid_exactly_if_jsonschema_says_so_of_what_lands(text: str) -> None:
    part = {"content": {"parts": [{"text": text}]}, "finishReason": "STOP"}
    found = classify(encoded({"key": "k", "response": {"candidates": [part]}}), CHECKS[1]).outcome
    if found.kind is Outcomes.ANSWER:
        assert Draft202012Validator(SCHEMA).is_valid(found.value)
        if not found.repaired:
            assert json.loads(text) == found.value
    elif found.kind is Outcomes.INVALID and found.value is not None:
        assert not Draft202012Validator(SCHEMA).is_valid(found.value)
