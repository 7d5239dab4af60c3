"""Answers held against the response schema: fast accept, slow explain."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.core.outcomes import Checked
from airflow_provider_geminibatch.core.schema_check import dangling, fast_type, json_schema, schema_check

FELT = {
    "type": "OBJECT",
    "properties": {
        "likely_felt": {"type": "BOOLEAN"},
        "by whom": {"type": "STRING", "nullable": True},
        "level": {"type": "INTEGER", "minimum": 0, "maximum": 12},
        "tags": {"type": "ARRAY", "items": {"type": "STRING", "enum": ["coast", "inland"]}, "minItems": "1"},
    },
    "required": ["likely_felt", "by whom"],
    "propertyOrdering": ["likely_felt", "by whom", "level", "tags"],
}


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ({"likely_felt": True, "by whom": None}, ""),
        ({"likely_felt": True, "by whom": "all", "level": 3.0, "tags": ["coast"], "more": 1}, ""),
        ({"likely_felt": "yes", "by whom": None}, '$.likely_felt: does not fit type "boolean"'),
        ({"likely_felt": True}, "$: lacks 'by whom'"),
        ({"likely_felt": True, "by whom": None, "level": 13}, "$.level: does not fit maximum 12"),
        ({"likely_felt": True, "by whom": None, "tags": []}, "$.tags: does not fit minItems 1"),
        ({"likely_felt": True, "by whom": None, "tags": ["x"]}, '$.tags[0]: does not fit enum ["coast","inland"]'),
        (["likely_felt"], '$: does not fit type "object"'),
    ],
)
def test_the_sentence_names_the_place_and_the_rule(answer: Any, problem: str) -> None:
    checked = schema_check(FELT)(json.dumps(answer))
    assert (checked.value, checked.problem) == (answer, problem)


def test_the_sentence_never_shows_the_value() -> None:
    secret = "0123-4567-89"
    for answer in ({"likely_felt": secret, "by whom": None}, {"likely_felt": True, "by whom": {"x": secret}}, [secret]):
        assert secret not in schema_check(FELT)(json.dumps(answer)).problem


@pytest.mark.parametrize("text", ["", "{", '{"likely_felt": tru', "no JSON at all", "{} {}", "[" * 5000])
def test_broken_json_is_named_as_such(text: str) -> None:
    checked = schema_check(FELT)(text)
    assert checked.value is None
    assert checked.problem.startswith("not JSON: ")


def test_what_the_fast_engine_cannot_express_is_left_to_the_slow_one() -> None:
    exotic = {"type": "object", "patternProperties": {"^x": {"type": "integer"}}, "minProperties": 1}
    assert fast_type(exotic) is None
    check = schema_check(exotic)
    assert check('{"x1": 1}').problem == ""
    assert check('{"x1": "a"}').problem == '$.x1: does not fit type "integer"'


def test_references_inside_the_schema_work_and_never_lead_out_of_it() -> None:
    inside = {"$defs": {"n": {"type": "integer"}}, "type": "array", "items": {"$ref": "#/$defs/n"}}
    assert schema_check(inside)("[1]").problem == ""
    outside = {"$ref": "https://example.com/schema.json"}
    assert schema_check(outside)("1").problem.startswith("cannot be checked")


def test_a_choice_of_words_may_come_bare_as_the_enum_mime_type_has_it() -> None:
    check = schema_check({"type": "STRING", "enum": ["yes", "no", "1"]})
    for text, value in (("yes", "yes"), ('"no"', "no"), ("1", "1"), (" yes\n", "yes")):
        assert check(text) == Checked(value)
    assert check("perhaps").problem
    assert check('"perhaps"').problem


def test_a_choice_of_words_or_nothing_may_come_bare_too() -> None:
    check = schema_check({"type": "STRING", "enum": ["yes", "no"], "nullable": True})
    for text, value in (("yes", "yes"), ('"no"', "no"), ("null", None)):
        assert check(text) == Checked(value)
    assert check("perhaps").problem


def test_no_number_however_large_ends_the_reading_of_results() -> None:
    huge = "1" + "0" * 400
    for rules in ({"multipleOf": 0.5}, {"maximum": 1.5}, {"enum": [0.5]}, {"exclusiveMinimum": 1e308}):
        for text in (huge, f"-{huge}", "1e308", "1e999"):
            checked = schema_check({"type": "number", **rules})(text)
            assert isinstance(checked.problem, str)
    assert schema_check({"type": "number", "multipleOf": 0.5})(huge).problem == "cannot be checked: OverflowError"


@pytest.mark.parametrize("size", [2.0, 2**63, "9223372036854775808", 2**80])
def test_a_count_that_is_no_small_whole_number_is_left_to_the_slow_engine(size: Any) -> None:
    for schema, text in (({"type": "array", "maxItems": size}, "[1]"), ({"type": "string", "maxLength": size}, '"a"')):
        assert schema_check(schema)(text).problem == ""
    assert schema_check({"type": "array", "minItems": size})("[1]").problem


def test_definitions_beside_nullable_are_found() -> None:
    schema = {
        "type": "object", "nullable": True, "properties": {"a": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"type": "integer"}},
    }  # fmt: skip
    assert dangling(schema) == ""
    check = schema_check(schema)
    assert (check("null").problem, check('{"a": 1}').problem) == ("", "")
    assert check('{"a": "x"}').problem


def test_a_pattern_that_only_the_service_can_read_is_left_to_the_service() -> None:
    check = schema_check({"type": "OBJECT", "properties": {"name": {"type": "STRING", "pattern": r"^\p{L}+$"}}})
    assert check('{"name": "Zoë"}').problem == ""
    assert check('{"name": 1}').problem


def test_a_reference_that_leads_nowhere_is_found() -> None:
    inside = {"$defs": {"n": {"type": "integer"}}, "type": "array", "items": {"$ref": "#/$defs/n"}}
    assert dangling(inside) == dangling({**inside, "$id": "https://example.com/s"}) == ""
    assert dangling({"type": "array", "items": {"$ref": "#/$defs/m"}}) == "#/$defs/m"
    assert dangling({"$ref": "https://example.com/schema.json"}) == "https://example.com/schema.json"
    assert dangling({"enum": [{"$ref": "data"}]}) == ""


def test_something_that_is_no_schema_is_named() -> None:
    with pytest.raises(Unusable, match=r"response_schema: at \$\.required"):
        schema_check({"type": "object", "required": "name"})


def test_the_subset_of_the_service_is_only_respelled() -> None:
    given_schema = {"type": "ARRAY", "items": {"type": "STRING", "nullable": True}, "maxItems": "3", "minItems": "0"}
    assert json_schema(given_schema) == {
        "type": "array",
        "items": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "maxItems": 3,
        "minItems": 0,
    }


bounds = st.fixed_dictionaries({}, optional={"minimum": st.integers(-3, 3), "maximum": st.integers(-3, 3)})
sizes = st.fixed_dictionaries({}, optional={"minItems": st.integers(0, 2), "maxItems": st.integers(0, 2)})
lengths = st.fixed_dictionaries({}, optional={"minLength": st.integers(0, 2), "maxLength": st.integers(0, 2)})
leaves = st.one_of(
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    bounds.map(lambda rules: {"type": "integer", **rules}),
    bounds.map(lambda rules: {"type": "number", **rules}),
    lengths.map(lambda rules: {"type": "string", **rules}),
    st.lists(st.text(max_size=2), min_size=1, max_size=3, unique=True).map(
        lambda names: {"type": "string", "enum": names}
    ),
)
names = st.sampled_from(["a", "b", "f0", "class", "ä b", ""])


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def with_rules(properties: dict[str, Any]) -> st.SearchStrategy[Any]:
        required = st.lists(st.sampled_from(sorted(properties)), unique=True) if properties else st.just([])
        rules = {"required": required, "additionalProperties": st.booleans()}
        return st.fixed_dictionaries({"type": st.just("object"), "properties": st.just(properties)}, optional=rules)

    return st.dictionaries(names, inner, max_size=3).flatmap(with_rules)


schemas = st.recursive(
    leaves,
    lambda inner: (
        objects(inner)
        | st.tuples(inner, sizes).map(lambda made: {"type": "array", "items": made[0], **made[1]})
        | inner.map(lambda schema: {"anyOf": [schema, {"type": "null"}]})
    ),
    max_leaves=5,
)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-4, 4) | st.sampled_from([1.0, 0.5, 2**70]) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)


@given(schemas, values)
def test_what_the_fast_engine_accepts_jsonschema_accepts(schema: Any, value: Any) -> None:
    kind = fast_type(schema)
    if kind is None:
        return
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return
    assert Draft202012Validator(schema).is_valid(value)


@given(schemas, values)
def test_the_verdict_is_that_of_jsonschema(schema: Any, value: Any) -> None:
    problem = schema_check(schema)(json.dumps(value)).problem
    assert (problem == "") == Draft202012Validator(schema).is_valid(value)
