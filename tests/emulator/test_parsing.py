"""Request lines are parsed strictly, and a refusal names line, column and reason."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_geminibatch.emulator.answers import embed, generate
from airflow_provider_geminibatch.emulator.fields import _TABLE, MESSAGES
from airflow_provider_geminibatch.emulator.parsing import _SCALARS, conforms, explain_line

GOOD = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}


def test_every_kind_in_the_table_is_known():
    kinds = {kind.strip("[]{}") for fields in _TABLE.values() for kind in fields.values()}
    assert kinds <= {*_SCALARS, *MESSAGES}


@pytest.mark.parametrize(
    "request_",
    [
        GOOD,
        {
            **GOOD,
            "systemInstruction": {"parts": [{"text": "x"}]},
            "generationConfig": {"maxOutputTokens": "12", "topK": 3},
        },
        {**GOOD, "system_instruction": {"parts": [{"text": "x"}]}, "generation_config": {"max_output_tokens": 12.0}},
        {**GOOD, "generationConfig": {"responseSchema": {"type": "OBJECT", "properties": {"a": {"type": "STRING"}}}}},
        {**GOOD, "generationConfig": {"responseJsonSchema": {"$defs": {}, "additionalProperties": False}}},
        {**GOOD, "tools": [{"googleSearch": {}}], "safetySettings": None},
    ],
)
def test_both_spellings_and_proto3_json_are_accepted(request_):
    assert conforms({"key": "k", "request": request_}, "GenerateLine")


@pytest.mark.parametrize(
    ("text", "column", "reason"),
    [
        ('{"request":{"contents":[],"thinking_config":{}}}', 27, "no such field: 'thinking_config'"),
        ('{"request":{"generationConfig":{"cachedContent":"c"}}}', 33, "no such field: 'cachedContent'"),
        ('{"request":{"systemInstruction": [{"text":"x"}]}}', 34, "unexpected character: '['; expected '{'"),
        ('{"request":{"contents":{"parts":[]}}}', 24, "unexpected character: '{'; expected '['"),
        ('{"request":{"contents":[{"parts":[{"text":5}]}]}}', 43, """unexpected character: '5'; expected '"'"""),
        ('{"request":{"generationConfig":{"temperature":true}}}', 47, "unexpected character: 't'; expected '0'"),
        ('{"key":7,"request":{}}', 8, """unexpected character: '7'; expected '"'"""),
        ('{"request":{"contents":[', 25, "unexpected end"),
        ("plain text", 1, "unexpected character: 'p'; expected '{'"),
        ("[]", 1, "unexpected character: '['; expected '{'"),
        ('{"request":{}} {}', 16, "unexpected character: '{'"),
    ],
)
def test_a_refused_line_says_where_and_why(text, column, reason):
    assert explain_line(3, text, "GenerateLine") == f"Error on line 3: invalid JSON, near column {column}: {reason}"


def test_the_reported_message_comes_out_word_for_word():
    # A bare request, as reported: column 23 is where the list opens.
    text = '{"systemInstruction": [{"text": "x"}]}'
    reported = "Error on line 1: invalid JSON, near column 23: unexpected character: '['; expected '{'"
    assert explain_line(1, text, "GenerateContentRequest") == reported


def values(kind, depth=0):
    """Any value that a field of that kind may have."""
    scalars = {
        "string": st.text(max_size=9),
        "bytes": st.just("aGk="),
        "enum": st.sampled_from(["STRING", "object", "ARRAY", "ANY", "x", 3]),
        "bool": st.booleans(),
        "int": st.integers(-9, 99) | st.just("7") | st.just(2.0),
        "number": st.floats() | st.sampled_from(["NaN", "4", "-Infinity"]),
        "struct": st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
        "any": st.recursive(st.none() | st.integers() | st.text(max_size=3), st.lists, max_leaves=3)
        | st.just({"enum": 5}),
    }
    if kind in scalars:
        return st.none() | scalars[kind]
    if depth > 5:
        return st.none()
    if kind[0] == "[":
        return st.lists(st.deferred(lambda: values(kind[1:-1], depth + 1)), max_size=2)
    if kind[0] == "{":
        return st.dictionaries(st.text(max_size=3), st.deferred(lambda: values(kind[1:-1], depth + 1)), max_size=2)
    fields = {
        name: st.deferred(lambda of=of: values(of, depth + 1)) for name, of in MESSAGES[kind].items() if name != "*"
    }
    return st.fixed_dictionaries({}, optional=fields)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(values("GenerateContentRequest"), values("EmbedContentRequest"))
def test_whatever_conforms_is_answered(request, content):
    assert conforms(request, "GenerateContentRequest")
    assert conforms(content, "EmbedContentRequest")
    assert json.dumps(generate(request, "m"))
    assert json.dumps(embed(content, "m"))


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
names = st.sampled_from(
    ["request", "key", "contents", "parts", "text", "generationConfig", "generation_config", "topK", "x"]
)
documents = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(documents)
def test_the_fast_yes_and_the_slow_no_agree(value):
    explained = explain_line(1, json.dumps(value), "GenerateLine")
    nothing_wrong = explained.endswith("unexpected end")
    assert nothing_wrong == conforms(value, "GenerateLine")


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(max_size=60))
def test_any_text_is_explained_without_failing(text):
    assert explain_line(1, text, "GenerateLine").startswith("Error on line 1: invalid JSON, near column ")


def test_a_line_nested_beyond_reason_is_refused_not_a_crash(api):
    deep = '{"request":{"contents":[{"parts":[{"functionCall":{"args":' + '{"a":' * 20_000
    reply = api.create(deep)
    assert reply.status == 400
    assert "nested too deeply" in reply.body["error"]["message"]
