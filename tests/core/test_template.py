"""Templates: what a row becomes, and what a template says about itself."""

from __future__ import annotations

import pickle
import string
import subprocess
import sys
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.errors import Problem, Unusable
from airflow_provider_geminibatch.core.rows import Encoded
from airflow_provider_geminibatch.core.template import RequestTemplate, compile_template

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
ROW = st.fixed_dictionaries({"id": TEXT, "a": TEXT, "b": TEXT})
PIECE = st.sampled_from(["$a", "${b}", "$$", "€", '"', "\\", "\n", "{{ x }}", "{}", " ", " word", "\x01", "😀"])


class Felt(pydantic.BaseModel):
    likely: bool
    note: str


FULL = RequestTemplate(
    "Felt? $a",
    system_instruction="You know $b.",
    response_schema=Felt,
    generation={"temperature": 0, "max_output_tokens": 50},
    tools={"google_search": {}},
    safety={"HARASSMENT": "BLOCK_NONE"},
    columns=["a"],  # type: ignore[arg-type]
)


def _request(template: RequestTemplate, row: dict[str, Any], **kwargs: Any) -> Any:
    encoded = compile_template(template, **kwargs).encode(row)
    assert isinstance(encoded, Encoded)
    return msgspec.json.decode(encoded.request)


@given(st.lists(PIECE, min_size=1, max_size=8), st.lists(PIECE, max_size=5), ROW)
def test_a_spliced_request_equals_the_request_encoded_whole(
    prompt: list[str], system: list[str], row: dict[str, str]
) -> None:
    template = RequestTemplate("x" + "".join(prompt), system_instruction="".join(system) or None)
    encoded = compile_template(template).encode(row)
    whole: dict[str, Any] = {
        "contents": [{"role": "user", "parts": [{"text": "x" + string.Template("".join(prompt)).substitute(row)}]}]
    }
    if system:
        whole["systemInstruction"] = {"parts": [{"text": string.Template("".join(system)).substitute(row)}]}
    assert isinstance(encoded, Encoded)
    assert (encoded.key, encoded.request) == (row["id"], msgspec.json.encode(whole))


@given(st.text(max_size=30))
def test_a_text_is_refused_exactly_when_string_template_refuses_it(text: str) -> None:
    try:
        string.Template(text).substitute(dict.fromkeys(string.Template(text).get_identifiers(), ""))
        legal = bool(text.strip())
    except ValueError:
        legal = False
    try:
        compile_template(RequestTemplate(text))
        assert legal
    except (Unusable, UnicodeEncodeError):
        assert not legal or not text.isascii()


def test_the_whole_of_a_template_goes_on_the_wire() -> None:
    assert _request(FULL, {"id": 1, "a": "5 km", "b": "faults"}) == {
        "contents": [{"role": "user", "parts": [{"text": "Felt? 5 km"}]}],
        "systemInstruction": {"parts": [{"text": "You know faults."}]},
        "generationConfig": {
            "responseMimeType": "application/json",
            "responseSchema": {
                "type": "OBJECT",
                "properties": {"likely": {"type": "BOOLEAN"}, "note": {"type": "STRING"}},
                "required": ["likely", "note"],
                "propertyOrdering": ["likely", "note"],
            },
            "temperature": 0,
            "maxOutputTokens": 50,
        },
        "tools": [{"googleSearch": {}}],
        "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],
    }


def _config(template: RequestTemplate, **kwargs: Any) -> Any:
    return _request(template, {"id": "1"}, **kwargs)["generationConfig"]


CHOICE = {"type": "object", "properties": {"n": {"type": ["integer", "null"]}}}
PLAIN = {"responseMimeType": "application/json", "responseJsonSchema": CHOICE}
OPENAPI = {
    "responseMimeType": "application/json",
    "responseSchema": {"type": "OBJECT", "properties": {"n": {"type": "INTEGER", "nullable": True}}},
}
TEXT_FORMAT = {"text": {"mimeType": "APPLICATION_JSON", "schema": CHOICE}}


@pytest.mark.parametrize(
    ("chosen", "developer", "vertex"),
    [
        (None, OPENAPI, OPENAPI),
        ("responseSchema", OPENAPI, OPENAPI),
        ("responseJsonSchema", PLAIN, PLAIN),
        ({"vertex": "responseJsonSchema"}, OPENAPI, PLAIN),
        ({"developer": "responseJsonSchema"}, PLAIN, OPENAPI),
        ("responseFormat", {"responseFormat": TEXT_FORMAT}, {"responseFormat": [TEXT_FORMAT]}),
    ],
)
def test_a_schema_goes_into_the_field_of_the_route_or_the_one_that_was_named(
    chosen: Any, developer: Any, vertex: Any
) -> None:
    template = RequestTemplate("x", response_schema=CHOICE, schema_field=chosen)
    assert _config(template) == developer
    assert _config(template, route="vertex") == vertex


def test_a_schema_that_no_field_can_say_goes_as_it_is_where_the_user_puts_it() -> None:
    schema = {"type": "integer", "multipleOf": 5}
    for field in ("responseSchema", "responseJsonSchema", "responseFormat"):
        with pytest.raises(Unusable, match="send the schema as it is"):
            compile_template(RequestTemplate("x", response_schema=schema, schema_field=field))
    own = {"responseMimeType": "application/json", "responseJsonSchema": schema}
    assert _config(RequestTemplate("x", generation=own)) == own


def test_one_word_of_an_enum_has_to_be_asked_for_and_has_to_be_one() -> None:
    bare = {"responseMimeType": "text/x.enum"}
    words = {"type": "string", "enum": ["a", "b"]}
    assert _config(RequestTemplate("x", response_schema=words))["responseMimeType"] == "application/json"
    assert _config(RequestTemplate("x", response_schema=words, generation=bare)) == {
        "responseMimeType": "text/x.enum",
        "responseSchema": {"type": "STRING", "enum": ["a", "b"]},
    }
    for more in ({"response_schema": CHOICE}, {"response_schema": words, "schema_field": "responseFormat"}):
        with pytest.raises(Unusable, match="enum"):
            compile_template(RequestTemplate("x", generation=bare, **more))


def test_a_mime_type_of_the_users_own_stays() -> None:
    schema = {"type": "string", "enum": ["a", "b"]}
    template = RequestTemplate("x", response_schema=schema, generation={"response_mime_type": "text/x.enum"})
    assert _request(template, {"id": "1"})["generationConfig"]["responseMimeType"] == "text/x.enum"


@pytest.mark.parametrize(
    ("value", "text"),
    [(7, "7"), (1.5, "1.5"), (True, "true"), (None, ""), (["a", 1], '["a",1]'), ({"k": "é"}, '{"k":"é"}')],
)
def test_values_read_in_a_prompt_as_they_do_in_json(value: Any, text: str) -> None:
    request = _request(RequestTemplate("is: $a"), {"id": "1", "a": value})
    assert request["contents"][0]["parts"][0]["text"] == f"is: {text}"


def test_every_column_that_fails_is_named() -> None:
    encoded = compile_template(RequestTemplate("$a $b $c", key="$key")).encode({"a": b"x", "b": "\ud800", "cc": "1"})
    assert isinstance(encoded, list)
    assert [problem.where for problem in encoded] == ["column a", "column b", "column c", "column key"]
    assert encoded[2] == Problem("column c", "is not in this row", "did you mean cc?")


def test_a_prompt_of_columns_only_has_to_say_something_in_each_row() -> None:
    encoder = compile_template(RequestTemplate("$a $b"))
    assert isinstance(encoder.encode({"id": "1", "a": "", "b": "x"}), Encoded)
    assert encoder.encode({"id": "1", "a": " ", "b": ""}) == [
        Problem("prompt", "is empty", "its columns hold nothing in this row")
    ]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"prompt": "costs $5"}, "RequestTemplate(prompt=)"),
        ({"prompt": " "}, "RequestTemplate(prompt=)"),
        ({"prompt": "x", "key": ""}, "RequestTemplate(key=)"),
        ({"prompt": "x", "generation": {"temp": 1}}, "RequestTemplate(generation=)"),
        ({"prompt": "x", "generation": {"top_p": "one"}}, "RequestTemplate(generation=)"),
        ({"prompt": "x", "tools": "search"}, "RequestTemplate(tools=)"),
        ({"prompt": "x", "safety": {"HARASSMENT": "NONE"}}, "RequestTemplate(safety=)"),
        ({"prompt": "x", "response_schema": {"type": "string"}, "schema_field": "schema"}, "RequestTemplate(schema_field=)"),
        ({"prompt": "x", "response_schema": {"type": "string"}, "schema_field": {"else": "responseSchema"}},
         "RequestTemplate(schema_field=)"),
        ({"prompt": "x", "generation": {"stop_sequences": {"a"}}}, "RequestTemplate(generation=)"),
        ({"prompt": 5}, "RequestTemplate(prompt=)"),
        ({"prompt": "x", "key": 5}, "RequestTemplate(key=)"),
        ({"prompt": "x", "system_instruction": ["x"]}, "RequestTemplate(system_instruction=)"),
        ({"prompt": "x", "generation": 5}, "RequestTemplate(generation=)"),
        ({"prompt": "x", "generation": [{"topK": 1}]}, "RequestTemplate(generation=)"),
        ({"prompt": "x", "columns": 5}, "RequestTemplate(columns=)"),
        ({"prompt": "x", "columns": ["a", 5]}, "RequestTemplate(columns=)"),
        ({"prompt": "x", "columns": {"a", "b"}}, "RequestTemplate(columns=)"),
    ],
)  # fmt: skip
def test_what_the_service_would_refuse_is_refused_by_its_argument(arguments: dict[str, Any], what: str) -> None:
    with pytest.raises(Unusable) as caught:
        compile_template(RequestTemplate(**arguments))
    assert caught.value.what == what


@pytest.mark.parametrize(
    "schema", [{"type": "objekt"}, {"type": "object", "properties": {"a": {"$ref": "#/$defs/nobody"}}}]
)
def test_a_schema_that_answers_cannot_be_held_against_is_refused_before_it_is_paid_for(schema: dict[str, Any]) -> None:
    with pytest.raises(Unusable, match="response_schema"):
        compile_template(RequestTemplate(prompt="x", response_schema=schema, schema_field="responseJsonSchema"))


def test_equal_arguments_give_equal_values_texts_and_hashes() -> None:
    again = RequestTemplate(**FULL.serialize())
    assert (again, repr(again), hash(again), again.declaration()) == (FULL, repr(FULL), hash(FULL), FULL.declaration())
    assert again != RequestTemplate("Felt? $a")
    assert pickle.loads(pickle.dumps(FULL)) == FULL


def test_two_processes_with_different_hash_seeds_write_the_same_text() -> None:
    program = (
        "from tests.core.test_template import FULL\n"
        "print(FULL.declaration()); print(repr(FULL)); print(FULL.serialize())"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(said) == 1
    assert " at 0x" not in said.pop()


def test_rendering_touches_the_texts_only() -> None:
    template = RequestTemplate("{{ ds }} $a", key="{{ ds }}-$id", generation={"stop_sequences": ["{{"]})
    rendered = template.rendered(lambda text: text.replace("{{ ds }}", "2026-01-01"))
    assert rendered == RequestTemplate("2026-01-01 $a", key="2026-01-01-$id", generation={"stop_sequences": ["{{"]})


def test_airflow_renders_a_template_by_the_task_it_belongs_to() -> None:
    class Task:
        def render_template(self, text: str, context: dict[str, Any]) -> str:
            return text.replace("{{ ds }}", context["ds"])

    rendered = RequestTemplate("on {{ ds }}: $a").resolve({"task": Task(), "ds": "2026-01-01"})
    assert rendered == RequestTemplate("on 2026-01-01: $a")
