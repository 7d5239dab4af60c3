"""The dialects of the service: what comes out of a schema, as golden files, and that it means what went in, as a law.

``python -m tests.core.test_schema_dialects`` writes the golden files anew; review shows what changed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.core.openapi_schema import openapi_schema
from airflow_provider_geminibatch.core.plain_schema import plain_schema
from airflow_provider_geminibatch.core.requests import check_message
from airflow_provider_geminibatch.core.response_schema import (
    asked_schema,
    json_schema_of,
    schema_config,
    schema_doubt,
    schema_field,
    schema_overhead,
)
from airflow_provider_geminibatch.core.schema_check import json_schema
from airflow_provider_geminibatch.core.template import RequestTemplate, compile_template

GOLDEN = Path(__file__).parents[1] / "golden" / "schemas"
FIELDS = ("responseSchema", "responseJsonSchema", "responseFormat")
CASES = sorted(path.stem for path in GOLDEN.glob("*.json"))


def compiled(schema: dict[str, Any]) -> dict[str, Any]:
    """What each field makes of a schema: the fields of generationConfig, or the sentence that refuses it."""
    out: dict[str, Any] = {}
    for field in FIELDS:
        try:
            out[field] = schema_config(json_schema_of(schema), "developer", field)
        except Unusable as error:
            out[field] = str(error)
    return out


@pytest.mark.parametrize("name", CASES)
def test_every_dialect_says_what_its_golden_file_says(name: str) -> None:
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    assert compiled(golden["schema"]) == golden["compiled"]


@pytest.mark.parametrize("route", ["developer", "vertex"])
@pytest.mark.parametrize("name", CASES)
def test_what_comes_out_is_in_the_field_table_of_its_route(name: str, route: str) -> None:
    schema = json_schema_of(json.loads((GOLDEN / f"{name}.json").read_text())["schema"])
    for field in FIELDS:
        try:
            config = schema_config(schema, route, field)
        except Unusable:
            continue
        assert not check_message("GenerationConfig", config, name="config", route=route).problems
        assert asked_schema(config) is not None


def test_the_golden_files_hold_what_people_write() -> None:
    assert len(CASES) >= 20
    told = [json.loads((GOLDEN / f"{name}.json").read_text())["compiled"] for name in CASES]
    for field in FIELDS:
        refused = sum(isinstance(each[field], str) for each in told)
        assert 3 <= refused <= len(told) - 5


NAMES = st.sampled_from(["a", "b", "c d", "é"])
NOTES = st.fixed_dictionaries(
    {}, optional={"title": st.just("T"), "description": st.just("what it is"), "examples": st.just([1])}
)
Strategy = st.SearchStrategy[dict[str, Any]]


def noted(schemas: Strategy) -> Strategy:
    return st.builds(lambda schema, notes: {**schema, **notes}, schemas, NOTES)


def numbers() -> Strategy:
    bounds = st.fixed_dictionaries({}, optional={"minimum": st.integers(-3, 0), "maximum": st.integers(0, 3)})
    whole = st.fixed_dictionaries({"type": st.just("integer")}, optional={"exclusiveMinimum": st.integers(-3, 0)})
    return st.builds(lambda kind, more: {"type": kind, **more}, st.sampled_from(["integer", "number"]), bounds) | whole


def texts(lengths: bool) -> Strategy:
    words = st.lists(st.sampled_from(["x", "y", "zz", ""]), min_size=1, max_size=3, unique=True)
    chosen = st.builds(lambda some, nulls: {"type": "string", "enum": some + [None] * nulls}, words, st.booleans())
    plain = st.fixed_dictionaries(
        {"type": st.just("string")},
        optional={"format": st.sampled_from(["date", "date-time"])}
        | ({"minLength": st.integers(0, 2), "maxLength": st.integers(1, 3)} if lengths else {}),
    )
    either = st.just({"type": ["string", "null"]}) | st.just({"type": ["integer", "string"]})
    return plain | chosen | words.map(lambda some: {"enum": some}) | words.map(lambda some: {"const": some[0]}) | either


def grown(inner: Strategy) -> Strategy:
    """Objects, lists and unions of smaller schemas, as pydantic writes them."""
    properties = st.dictionaries(NAMES, inner, min_size=1, max_size=3)
    objects = properties.flatmap(
        lambda held: st.lists(st.sampled_from(sorted(held)), unique=True).map(
            lambda required: {"type": "object", "properties": held, "required": required}
        )
    )
    lists = st.builds(
        lambda items, more: {"type": "array", "items": items, **more},
        inner,
        st.fixed_dictionaries({}, optional={"minItems": st.integers(0, 1), "maxItems": st.integers(1, 2)}),
    )
    arms = st.lists(inner, min_size=1, max_size=3)
    unions = st.builds(lambda some, nulls: {"anyOf": some + [{"type": "null"}] * nulls}, arms, st.booleans())
    return noted(objects | lists | unions)


def pydantic_like(lengths: bool) -> Strategy:
    """Schemas of the subset, half of them with parts that lie under $defs."""
    leaf = noted(numbers() | texts(lengths) | st.just({"type": "boolean"}))
    schemas = st.recursive(leaf, grown, max_leaves=6)

    def defined(schema: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
        one = {"$ref": "#/$defs/Part"}
        return {
            "$defs": {"Part": part},
            "type": "object",
            "properties": {
                "first": schema,
                "part": one,
                "more": {"type": "array", "items": {**one, "description": "d"}},
            },
            "required": ["part"],
        }

    return schemas | st.builds(defined, schemas, schemas)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-4, 4) | st.sampled_from([0.5, 1.0, "x", "zz", "", "xxxx"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.sampled_from(["first", "part"]), inner, max_size=3)
    ),
    max_leaves=8,
)


def fitting(schema: dict[str, Any], whole: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Documents that mostly fit a schema, so that the law is not about refusals only."""
    if "$ref" in schema:
        return fitting(whole["$defs"]["Part"], whole)
    if "anyOf" in schema:
        return st.one_of([fitting(arm, whole) for arm in schema["anyOf"]])
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return st.one_of([_MAKERS[kind](schema, whole) for kind in kinds])


def _object(schema: dict[str, Any], whole: dict[str, Any]) -> st.SearchStrategy[Any]:
    made = {name: fitting(each, whole) for name, each in schema["properties"].items()}
    needed = {name: made[name] for name in schema["required"]}
    return st.fixed_dictionaries(needed, optional={name: each for name, each in made.items() if name not in needed})


_MAKERS: dict[str, Callable[[dict[str, Any], dict[str, Any]], st.SearchStrategy[Any]]] = {
    "object": _object,
    "array": lambda schema, whole: st.lists(fitting(schema["items"], whole), max_size=2),
    "string": lambda schema, whole: st.sampled_from(["", "x", "xx", "xxx"]),
    "integer": lambda schema, whole: st.integers(-3, 3),
    "number": lambda schema, whole: st.integers(-3, 3) | st.just(0.5),
    "boolean": lambda schema, whole: st.booleans(),
    "null": lambda schema, whole: st.none(),
}


@pytest.mark.parametrize("dialect", [openapi_schema, plain_schema])
@given(data=st.data())
def test_a_compiled_schema_takes_the_documents_that_the_original_takes_and_no_others(
    dialect: Callable[[dict[str, Any]], dict[str, Any]], data: st.DataObject
) -> None:
    schema = data.draw(pydantic_like(lengths=dialect is openapi_schema))
    document = data.draw(fitting(schema, schema) | JSON)
    before = Draft202012Validator(schema).is_valid(document)
    after = Draft202012Validator(json_schema(dialect(schema))).is_valid(document)
    assert after == before


@given(pydantic_like(lengths=True))
def test_what_was_compiled_once_comes_out_the_same_again(schema: dict[str, Any]) -> None:
    once = openapi_schema(schema)
    assert openapi_schema(json_schema_of(once)) == once


def test_a_schema_that_holds_itself_keeps_that_one_reference() -> None:
    schema = json.loads((GOLDEN / "recursive.json").read_text())["schema"]
    made = plain_schema(schema)
    deep: Any = {"name": "a", "children": [{"name": "b", "children": [{"name": "c"}]}]}
    wrong = {"name": "a", "children": [{"name": "b", "children": [{"name": 3}]}]}
    assert Draft202012Validator(made).is_valid(deep)
    assert not Draft202012Validator(made).is_valid(wrong)
    assert str(made).count("$ref") == 2


def test_a_field_of_the_newest_form_says_what_is_not_known_of_it() -> None:
    assert schema_doubt("developer") == schema_doubt("developer", "responseJsonSchema") == ""
    assert "not known" in schema_doubt("vertex", {"vertex": "responseFormat"})
    assert schema_doubt("developer", {"vertex": "responseFormat"}) == ""


def test_a_field_or_route_that_does_not_exist_is_refused() -> None:
    assert schema_field(None, "vertex") == schema_field({"developer": "responseFormat"}, "vertex") == "responseSchema"
    for chosen in ("responseFormats", {"developer": "schema"}):
        with pytest.raises(Unusable, match="it names no field for a schema"):
            schema_field(chosen, "developer")
    with pytest.raises(Unusable, match="'google' is no route"):
        schema_field({"google": "responseSchema"}, "developer")


def test_the_overhead_is_what_the_schema_adds_to_every_line() -> None:
    schema = {"type": "object", "properties": {"likely": {"type": "boolean"}}}
    config = schema_config(schema, "developer")
    overhead = schema_overhead(schema)
    assert overhead.size_bytes == len(json.dumps(config, separators=(",", ":"))) - 2
    assert overhead.tokens == -(-overhead.size_bytes // 4)
    assert overhead.said(50_000) == (
        "the schema costs about 29 tokens in every row, 1.4 M over 50,000 rows (assumed: 4 bytes a token)"
    )
    counted = schema_overhead(schema, chosen="responseFormat", tokens=74)
    assert counted.field == "responseFormat"
    assert counted.said(50_000) == (
        "the schema costs about 74 tokens in every row, 3.7 M over 50,000 rows (counted by the service)"
    )
    assert counted.said(3) == "the schema costs about 74 tokens in every row, 222 over 3 rows (counted by the service)"
    assert "740 k over" in counted.said(10_000)
    assert "74 G over" in counted.said(1_000_000_000)


def test_the_examples_of_the_page_compile_for_both_routes() -> None:
    page = (Path(__file__).parents[2] / "docs" / "schemas.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {"pydantic": pydantic, "RequestTemplate": RequestTemplate}
    examples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        exec(example, names)
        for route in ("developer", "vertex"):
            assert compile_template(names["template"], route=route).columns == ("text", "id")
    sentence = compiled(json.loads((GOLDEN / "numbers_listed.json").read_text())["schema"])["responseSchema"]
    assert sentence in " ".join(page.split())


def write_golden() -> None:
    """Compile every schema of the golden files anew."""
    for path in sorted(GOLDEN.glob("*.json")):
        schema = json.loads(path.read_text())["schema"]
        held = {"schema": schema, "compiled": compiled(schema)}
        path.write_text(json.dumps(held, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    write_golden()
