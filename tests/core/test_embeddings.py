"""The kinds of batches, templates of embed requests, and vectors."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.capabilities import METHODS
from airflow_provider_geminibatch.core.embed_template import EmbedTemplate
from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.core.fields import MESSAGES, ROOTS
from airflow_provider_geminibatch.core.kinds import KINDS
from airflow_provider_geminibatch.core.model import Outcomes
from airflow_provider_geminibatch.core.outcomes import VectorCheck, classify
from airflow_provider_geminibatch.core.requests import check_request
from airflow_provider_geminibatch.core.rows import Encoded
from airflow_provider_geminibatch.core.template import TEMPLATES, RequestTemplate, compile_template, template_of
from airflow_provider_geminibatch.core.vectors import (
    asked_dimensions,
    is_vector,
    together,
    vector_dimensions,
    vector_kind,
)


def asked(template: EmbedTemplate, **row: Any) -> dict[str, Any]:
    encoded = compile_template(template).encode(row)
    assert isinstance(encoded, Encoded)
    return dict(msgspec.json.decode(encoded.request))


def test_every_kind_has_a_message_a_method_and_a_template() -> None:
    assert set(KINDS) == set(TEMPLATES) == set(ROOTS) == set(METHODS)
    assert all(kind.message in MESSAGES for kind in KINDS.values())
    assert {name: template.kind for name, template in TEMPLATES.items()} == {name: name for name in KINDS}


def test_a_row_becomes_the_request_of_its_vector() -> None:
    template = EmbedTemplate(
        'On "$word": $$', key="$n", title="$word", task_type="RETRIEVAL_DOCUMENT", output_dimensionality=64
    )
    assert asked(template, n=1, word='a "b"') == {
        "content": {"parts": [{"text": 'On "a "b"": $'}]},
        "taskType": "RETRIEVAL_DOCUMENT",
        "title": 'a "b"',
        "outputDimensionality": 64,
    }


def test_what_is_not_said_is_not_sent() -> None:
    assert asked(EmbedTemplate("$word"), id="k", word="x") == {"content": {"parts": [{"text": "x"}]}}


@given(st.text(), st.text(min_size=1).filter(str.strip), st.integers(1, 5000))
def test_every_request_of_a_template_passes_the_check(title: str, text: str, length: int) -> None:
    try:
        (title + text).encode()
    except UnicodeEncodeError:
        return
    request = asked(
        EmbedTemplate("$text", title="$title", output_dimensionality=length), id="k", text=text, title=title
    )
    assert check_request(request, kind="embed", model="gemini-embedding-2").problems == ()
    assert asked_dimensions(request) == length


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"output_dimensionality": 0}, r"EmbedTemplate\(output_dimensionality=\): 0 is no length"),
        ({"output_dimensionality": True}, "True is no length"),
        ({"output_dimensionality": "768"}, "'768' is no length"),
        ({"title": "$t", "task_type": "CLUSTERING"}, r"EmbedTemplate\(title=\): CLUSTERING takes no title"),
    ],
)
def test_what_no_vector_can_be_is_refused_at_once(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(Unusable, match=said):
        EmbedTemplate("$text", **arguments)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (EmbedTemplate("$text", task_type="SEARCH"), r"EmbedTemplate\(task_type=\)"),
        (EmbedTemplate("costs $ 5"), r"EmbedTemplate\(text=\): the \$ in line 1, character 7"),
        (EmbedTemplate("$text", title="$"), r"EmbedTemplate\(title=\)"),
        (EmbedTemplate("$text", key=""), r"EmbedTemplate\(key=\): it is empty"),
    ],
)
def test_what_the_service_would_refuse_names_its_argument(template: EmbedTemplate, said: str) -> None:
    with pytest.raises(Unusable, match=said):
        compile_template(template)


def test_a_template_is_for_its_kind_only() -> None:
    with pytest.raises(Unusable, match="EmbedTemplate is for kind 'embed'"):
        compile_template(EmbedTemplate("$text"), "generate")
    with pytest.raises(Unusable, match="RequestTemplate is for kind 'generate'"):
        compile_template(RequestTemplate("$text"), "embed")


def test_templates_are_values() -> None:
    one, other = (EmbedTemplate("$text", columns=["a"]) for _ in range(2))  # type: ignore[arg-type]
    assert one == other
    assert hash(one) == hash(other)
    assert one != EmbedTemplate("$text")
    assert one != RequestTemplate("$text")
    assert repr(one) == "EmbedTemplate(text='$text', columns=['a'])"
    assert EmbedTemplate(**one.serialize()) == one


def test_a_template_is_told_by_its_arguments() -> None:
    assert template_of({"text": "$a", "output_dimensionality": 3}, "f") == EmbedTemplate("$a", output_dimensionality=3)
    assert template_of({"prompt": "$a"}, "f") == RequestTemplate("$a")
    with pytest.raises(Unusable, match="f: it is not a template: EmbedTemplate has no temperature"):
        template_of({"text": "$a", "temperature": 0}, "f")


@pytest.mark.parametrize("field", ["outputDimensionality", "output_dimensionality"])
@pytest.mark.parametrize("place", ["", "embedContentConfig"])
@pytest.mark.parametrize("value", [768, "768"])
def test_the_length_that_is_asked_for_is_found(field: str, place: str, value: Any) -> None:
    said = {place: {field: value}} if place else {field: value}
    checked = check_request({"content": {"parts": [{"text": "x"}]}, **said}, kind="embed")
    assert checked.problems == ()
    assert asked_dimensions(checked.request) == 768


@pytest.mark.parametrize(
    "request_", [{}, {"outputDimensionality": 0}, {"outputDimensionality": -1}, {"embedContentConfig": {}}]
)
def test_a_request_may_leave_the_length_to_the_model(request_: dict[str, Any]) -> None:
    assert asked_dimensions(request_) is None


@given(st.none() | st.integers(1, 10_000))
def test_the_kind_of_a_column_tells_its_length(length: int | None) -> None:
    kind = vector_kind(length)
    assert is_vector(kind)
    assert vector_dimensions(kind) == length
    assert json.loads(kind) == {"vector": length}
    assert together([kind, kind]) == kind
    assert together([kind, vector_kind(10_001)]) == vector_kind(None)


def test_other_kinds_of_columns_hold_no_vectors() -> None:
    assert not any(map(is_vector, ("string", "json", '{"list":"float64"}')))


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32)), st.none() | st.integers(1, 8))
def test_a_vector_is_an_answer_exactly_if_it_has_the_length(values: list[float], length: int | None) -> None:
    line = msgspec.json.encode({"key": "t-0-0", "response": {"embedding": {"values": values}}})

    found = classify(line, VectorCheck(length)).outcome

    if not values:
        assert found.kind is Outcomes.EMPTY
    elif length in (None, len(values)):
        assert (found.kind, found.value) == (Outcomes.ANSWER, values)
    else:
        assert (found.kind, found.value) == (Outcomes.INVALID, None)


@pytest.mark.parametrize("number", [1e39, -1e39, 1e308])
@pytest.mark.parametrize("length", [None, 2])
def test_a_number_that_single_precision_does_not_have_is_no_part_of_a_vector(number: float, length: int | None) -> None:
    line = msgspec.json.encode({"key": "t-0-0", "response": {"embedding": {"values": [0.5, number]}}})
    found = classify(line, VectorCheck(length)).outcome
    assert (found.kind, found.value) == (Outcomes.INVALID, None)
    assert found.reason == "the vector holds a number beyond single precision"


@pytest.mark.parametrize(
    ("model", "warned"), [("gemini-embedding-2", ["taskType", "title"]), ("gemini-embedding-001", [])]
)
def test_a_task_that_the_model_may_not_heed_warns(model: str, warned: list[str]) -> None:
    request = {"content": {"parts": [{"text": "x"}]}, "taskType": "RETRIEVAL_DOCUMENT", "title": "t"}
    checked = check_request(request, kind="embed", model=model)
    assert checked.problems == ()
    assert [(warning.where, warning.rule) for warning in checked.warnings] == [
        (f"request.{field}", "task-in-text") for field in warned
    ]
