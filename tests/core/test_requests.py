"""The walk over a request: what it accepts, what it says, and what goes on the wire."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.fields import ROOTS, ROUTES
from airflow_provider_geminibatch.core.requests import check_message, check_request
from tests.witnesses.strategies import as_snake, requests

KNOWN_HERE = (
    "known here: model, contents, tools, toolConfig, safetySettings, labels, systemInstruction, generationConfig, "
    "cachedContent, store"
)
TURN = [{"role": "user", "parts": [{"text": "hello"}]}]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("kind", ROOTS)
@given(data=st.data())
def test_a_request_made_from_the_table_passes_and_goes_on_the_wire_as_it_is(
    kind: str, route: str, data: st.DataObject
) -> None:
    request = data.draw(requests(route, ROOTS[kind]))
    assert check_request(request, kind=kind, route=route) == (request, (), ())


@pytest.mark.parametrize("route", ROUTES)
@given(data=st.data())
def test_snake_case_means_the_same_as_camel_case(route: str, data: st.DataObject) -> None:
    request = data.draw(requests(route))
    assert check_request(as_snake("GenerateContentRequest", request, route), route=route) == (request, (), ())


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: (
    st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["contents", "parts", "text", "generationConfig", "tools", "x"]), inner, max_size=3)
)))  # fmt: skip
def test_anything_at_all_gets_a_verdict(value: Any) -> None:
    checked = check_request(value)
    assert checked.problems or check_request(checked.request) == checked


def test_null_is_unset_and_integers_may_be_text() -> None:
    checked = check_request({"contents": TURN, "tools": None, "generationConfig": {"topK": "40", "seed": 3.0}})
    assert checked == ({"contents": TURN, "generationConfig": {"topK": 40, "seed": 3}}, (), ())


def test_the_type_of_a_schema_may_be_in_small_letters() -> None:
    config = {"responseMimeType": "application/json", "responseSchema": {"type": "array", "items": {"type": "string"}}}
    checked = check_message("GenerationConfig", config, name="config")
    assert checked.request["responseSchema"] == {"type": "ARRAY", "items": {"type": "STRING"}}
    assert not checked.problems


def test_the_model_may_be_repeated_but_not_changed() -> None:
    assert not check_request({"model": "models/gemini-x", "contents": TURN}, model="gemini-x").problems
    assert check_request({"model": "models/gemini-y", "contents": TURN}, model="gemini-x").problems


def test_words_of_an_enum_may_be_in_any_case_and_go_on_the_wire_in_the_enums_own() -> None:
    """As the service's docs write them in samples: ``"thinkingLevel": "low"``, ``"Text"``, ``"media_resolution_high"``."""
    config = {
        "thinkingConfig": {"thinkingLevel": "low"},
        "responseModalities": ["Text"],
        "mediaResolution": "media_resolution_high",
    }
    checked = check_request({"contents": TURN, "generationConfig": config})
    assert not checked.problems
    assert checked.request["generationConfig"] == {
        "thinkingConfig": {"thinkingLevel": "LOW"},
        "responseModalities": ["TEXT"],
        "mediaResolution": "MEDIA_RESOLUTION_HIGH",
    }


def test_numbers_may_be_text() -> None:
    checked = check_request({"contents": TURN, "generationConfig": {"temperature": "0.2", "topP": "1e-1"}})
    assert checked == ({"contents": TURN, "generationConfig": {"temperature": 0.2, "topP": 0.1}}, (), ())
    for text in ("1e999", "0x1", "NaN", "", "\u0661"):
        assert check_request({"contents": TURN, "generationConfig": {"temperature": text}}).problems


def test_the_roles_that_googles_own_clients_write_pass() -> None:
    result = {"role": "tool", "parts": [{"functionResponse": {"name": "f", "response": {}}}]}
    request = {"contents": [*TURN, result], "systemInstruction": {"role": "system", "parts": [{"text": "be brief"}]}}
    assert check_request(request) == (request, (), ())


def test_a_model_that_is_no_text_is_a_problem_and_not_a_crash() -> None:
    (problem,) = check_request({"model": 5, "contents": TURN}, model="gemini-x").problems
    assert str(problem) == "request.model: must be text, not a number (put it in quotes)"


def test_all_mistakes_of_a_request_are_found_at_once() -> None:
    checked = check_request({"contents": [], "config": {}, "tools": {}, "generationConfig": {"topP": "x"}})
    assert [problem.where for problem in checked.problems] == [
        "request.config",
        "request.tools",
        "request.generationConfig.topP",
        "request.contents",
    ]


@pytest.mark.parametrize(
    ("field", "hint"),
    [
        ("generationconfig", "did you mean generationConfig?"),
        ("temperature", "it belongs in request.generationConfig.temperature"),
        ("thinking_budget", "it belongs in request.generationConfig.thinkingConfig.thinkingBudget"),
        ("messages", 'write contents: [{"role": "user", "parts": [{"text": …}]}]'),
        ("max_tokens", "write generationConfig.maxOutputTokens"),
        ("modelArmorConfig", "only Vertex AI has it; the Developer API refuses it, so leave it out"),
        ("safetySetings", "did you mean safetySettings?"),
        ("sys", "did you mean systemInstruction?"),
        ("qqq", KNOWN_HERE),
    ],
)
def test_an_unknown_field_comes_with_what_was_probably_meant(field: str, hint: str) -> None:
    (problem,) = check_request({"contents": TURN, field: 1}).problems
    assert (problem.where, problem.what, problem.hint) == (f"request.{field}", "unknown field", hint)


def test_a_word_that_resembles_nothing_is_not_repeated() -> None:
    (problem,) = check_request({"contents": [{"role": "Jane Doe", "parts": [{"text": "a"}]}]}).problems
    assert "Jane" not in str(problem)


def test_a_schema_of_a_thousand_levels_is_a_problem_and_not_a_crash() -> None:
    schema: dict[str, Any] = {"type": "STRING"}
    for _ in range(1000):
        schema = {"type": "ARRAY", "items": schema}
    checked = check_message("Schema", schema, name="schema")
    assert [problem.what for problem in checked.problems] == ["is nested too deeply to be read"]


def test_a_field_of_the_other_kind_of_request_is_not_sent_back_to_where_it_stands() -> None:
    request = {"contents": [{"parts": [{"text": "a"}]}], "content": {"parts": [{"text": "a"}]}}
    (problem,) = check_request(request, kind="embed").problems
    assert (problem.where, problem.hint) == ("request.contents", "did you mean content?")
    (problem,) = check_request(request, kind="generate").problems
    assert (problem.where, problem.hint) == ("request.content", "did you mean contents?")
