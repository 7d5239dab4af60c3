"""Structured answers conform to the schema that was asked for."""

import json

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_geminibatch.emulator.answers import generate
from airflow_provider_geminibatch.emulator.schemas import document

PERSON = {
    "$defs": {"Tag": {"type": "string", "enum": ["a", "b"]}, "Node": {"$ref": "#/$defs/Tree"}, "Tree": {
        "type": "object",
        "properties": {"name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}}},
        "required": ["name", "children"],
        "additionalProperties": False,
    }},
    "type": "object",
    "properties": {
        "tag": {"$ref": "#/$defs/Tag"},
        "tree": {"$ref": "#/$defs/Tree"},
        "note": {"type": ["null", "string"], "maxLength": 12},
        "when": {"type": "string", "format": "date"},
        "either": {"anyOf": [{"type": "null"}, {"type": "integer", "minimum": 3, "maximum": 3}]},
        "kind": {"const": "person"},
        "both": {"allOf": [{"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}]},
    },
    "required": ["tag", "tree", "note", "when", "either", "kind", "both"],
}  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_a_json_schema_with_references_is_met(seed):
    made = document(PERSON, "an echo", seed)
    jsonschema.validate(made, PERSON)
    json.dumps(made)


def numbers(kind):
    bounds = st.tuples(st.integers(-1000, 1000), st.integers(0, 50))
    return bounds.map(lambda pair: {"type": kind, "minimum": pair[0], "maximum": pair[0] + pair[1]})


leaves = st.one_of(
    st.fixed_dictionaries({"type": st.just("string"), "minLength": st.integers(0, 9), "maxLength": st.integers(9, 30)}),
    st.lists(st.text(max_size=4), min_size=1, max_size=3).map(lambda choices: {"type": "string", "enum": choices}),
    numbers("integer"),
    numbers("number"),
    st.sampled_from(
        [{"type": "boolean"}, {"type": "null"}, {"type": "integer", "exclusiveMinimum": 2, "multipleOf": 5}]
    ),
)


def wider(inner):
    lists = st.tuples(inner, st.integers(0, 3), st.integers(0, 3)).map(
        lambda it: {"type": "array", "items": it[0], "minItems": it[1], "maxItems": it[1] + it[2]}
    )
    objects = st.dictionaries(st.text(max_size=4), inner, max_size=4).map(
        lambda properties: {"type": "object", "properties": properties, "required": sorted(properties)}
    )
    return lists | objects | st.lists(inner, min_size=1, max_size=2).map(lambda branches: {"anyOf": branches})


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.recursive(leaves, wider, max_leaves=8), st.integers(0, 2**64 - 1))
def test_what_is_made_validates(schema, seed):
    made = document(schema, "an echo of a prompt", seed)
    jsonschema.validate(made, schema)
    assert made == document(schema, "an echo of a prompt", seed)


def test_the_openapi_subset_is_met_with_its_ordering_and_snake_case():
    schema = {
        "type": "OBJECT",
        "properties": {
            "b": {"type": "INTEGER", "minimum": "4", "maximum": 4},
            "a": {"type": "STRING", "nullable": True},
        },
        "property_ordering": ["a", "b"],
    }
    made = document(schema, "echo", 1)
    assert list(made) == ["a", "b"]
    assert made == {"a": "echo", "b": 4}


@pytest.mark.parametrize(
    "schema", [{"$ref": "#"}, {"$ref": "#/nowhere"}, {"$defs": {"A": {"$ref": "#/$defs/A"}}, "$ref": "#/$defs/A"}]
)
def test_a_schema_that_leads_nowhere_still_gets_something(schema):
    assert document(schema, "echo", 1) == "echo"


def ask(**config):
    return {"contents": [{"parts": [{"text": "Summarise the review"}]}], "generationConfig": config}


def text_of(response):
    return response["candidates"][0]["content"]["parts"][-1]["text"]


@pytest.mark.parametrize("field", ["responseSchema", "responseJsonSchema", "response_schema"])
def test_an_answer_to_a_schema_echoes_the_prompt_in_its_strings(field):
    schema = {"type": "object", "properties": {"summary": {"type": "string"}}, "required": ["summary"]}
    response = generate(ask(responseMimeType="application/json", **{field: schema}), "m")
    assert json.loads(text_of(response))["summary"].startswith("Summarise the review [")


def test_an_enum_answer_is_one_of_the_choices():
    schema = {"type": "STRING", "enum": ["yes", "no"]}
    assert text_of(generate(ask(responseMimeType="text/x.enum", responseSchema=schema), "m")) in ("yes", "no")


def test_the_cap_on_output_holds_and_is_said():
    response = generate(ask(maxOutputTokens=3), "m")
    assert response["candidates"][0]["finishReason"] == "MAX_TOKENS"
    assert response["usageMetadata"]["candidatesTokenCount"] == 3
    assert "thoughtsTokenCount" not in response["usageMetadata"]


def test_thoughts_are_shown_when_asked_for_and_absent_when_switched_off():
    shown = generate(ask(thinkingConfig={"includeThoughts": True}), "m")
    assert [part.get("thought", False) for part in shown["candidates"][0]["content"]["parts"]] == [True, False]
    off = generate(ask(thinkingConfig={"thinkingBudget": 0}), "m")
    assert "thoughtsTokenCount" not in off["usageMetadata"]


@pytest.mark.parametrize("budget", [5, "5"])
def test_a_thinking_budget_holds(budget):
    assert generate(ask(thinkingConfig={"thinkingBudget": budget}), "m")["usageMetadata"]["thoughtsTokenCount"] == 5


def test_usage_adds_up_and_another_prompt_gets_another_answer():
    one, other = generate(ask(), "m"), generate({"contents": [{"parts": [{"text": "Summarise the film"}]}]}, "m")
    used = one["usageMetadata"]
    parts = used["promptTokenCount"] + used["candidatesTokenCount"] + used["thoughtsTokenCount"]
    assert used["totalTokenCount"] == parts
    assert text_of(one) != text_of(other)
    assert one == generate(ask(), "m")


@pytest.mark.parametrize("parameters", ["parameters", "parametersJsonSchema"])
def test_a_function_is_called_where_the_mode_is_any(parameters):
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    request = {**ask(), "tools": [{"functionDeclarations": [{"name": "weather", parameters: schema}]}]}
    forced = {**request, "toolConfig": {"functionCallingConfig": {"mode": "ANY"}}}
    (part,) = generate(forced, "m")["candidates"][0]["content"]["parts"]
    assert part == {"functionCall": {"name": "weather", "args": {"city": "Summarise the review"}}}
    assert "text" in generate(request, "m")["candidates"][0]["content"]["parts"][0]


@pytest.mark.parametrize("field", ["responseSchema", "responseJsonSchema", "responseFormat"])
def test_every_field_that_a_template_may_name_brings_answers_of_its_schema(field):
    from airflow_provider_geminibatch.core.schema_check import schema_check
    from airflow_provider_geminibatch.core.template import RequestTemplate, compile_template

    schema = {
        "type": "object",
        "properties": {"likely": {"type": "boolean"}, "kind": {"enum": ["a", "b", None]}},
        "required": ["likely", "kind"],
    }
    made = compile_template(RequestTemplate("x", response_schema=schema, schema_field=field)).encode({"id": "1"})
    answer = generate(json.loads(made.request), "gemini-3.8-flash")
    text = answer["candidates"][0]["content"]["parts"][-1]["text"]
    assert schema_check(schema)(text).problem == ""


def test_the_newest_form_is_read_in_both_spellings_of_its_mime_type():
    for mime in ("APPLICATION_JSON", "application/json"):
        config = {"responseFormat": {"text": {"mimeType": mime, "schema": {"type": "integer"}}}}
        request = {"contents": [{"parts": [{"text": "x"}]}], "generationConfig": config}
        assert isinstance(json.loads(generate(request, "m")["candidates"][0]["content"]["parts"][-1]["text"]), int)
