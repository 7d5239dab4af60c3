"""The schema of an answer, from types to the wire."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import sys
import typing
from collections.abc import Callable
from typing import Any, Literal

import pydantic
import pytest
import typing_extensions

from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.core.openapi_schema import openapi_schema
from airflow_provider_geminibatch.core.requests import check_message
from airflow_provider_geminibatch.core.response_schema import json_schema_of


class Level(enum.Enum):
    LOW = "low"
    HIGH = "high"


class Place(pydantic.BaseModel):
    name: str = pydantic.Field(description="as the people there call it", max_length=80)
    population: int = pydantic.Field(gt=0)


class Felt(pydantic.BaseModel):
    model_config = {"extra": "forbid"}
    likely: bool
    by_whom: str | None = None
    day: dt.date
    at: dt.datetime
    level: Level
    kind: Literal["weak", "strong"]
    places: list[Place]
    depth: float | str


@dataclasses.dataclass
class Point:
    x: float
    y: float


def test_a_pydantic_model_becomes_the_subset_that_batches_take() -> None:
    assert openapi_schema(json_schema_of(Felt)) == {
        "type": "OBJECT",
        "properties": {
            "likely": {"type": "BOOLEAN"},
            "by_whom": {"type": "STRING", "nullable": True},
            "day": {"type": "STRING", "description": "(format: date)"},
            "at": {"type": "STRING", "format": "date-time"},
            "level": {"type": "STRING", "enum": ["low", "high"]},
            "kind": {"type": "STRING", "enum": ["weak", "strong"]},
            "places": {
                "type": "ARRAY",
                "items": {
                    "type": "OBJECT",
                    "properties": {
                        "name": {"type": "STRING", "description": "as the people there call it", "maxLength": 80},
                        "population": {"type": "INTEGER", "minimum": 1},
                    },
                    "required": ["name", "population"],
                    "propertyOrdering": ["name", "population"],
                },
            },
            "depth": {"anyOf": [{"type": "NUMBER"}, {"type": "STRING"}]},
        },
        "required": ["likely", "day", "at", "level", "kind", "places", "depth"],
        "propertyOrdering": ["likely", "by_whom", "day", "at", "level", "kind", "places", "depth"],
    }


@pytest.mark.parametrize("given", [Felt, Point, list[Place], Level, dict(json_schema_of(Felt))])
def test_what_comes_out_is_in_the_field_table(given: Any) -> None:
    assert not check_message("Schema", openapi_schema(json_schema_of(given)), name="schema").problems


def test_the_services_own_form_becomes_json_schema_and_comes_back() -> None:
    own = {
        "type": "OBJECT",
        "properties": {"a": {"type": "STRING", "nullable": True}, "b": {"type": "ARRAY", "items": {"type": "INTEGER"}}},
        "required": ["a"],
        "property_ordering": ["b", "a"],
    }
    schema = json_schema_of(own)
    assert schema == {
        "type": "object",
        "properties": {"a": {"type": ["string", "null"]}, "b": {"type": "array", "items": {"type": "integer"}}},
        "required": ["a"],
        "propertyOrdering": ["b", "a"],
    }
    back = openapi_schema(schema)
    assert back == {
        **{name: value for name, value in own.items() if name != "property_ordering"},
        "propertyOrdering": ["b", "a"],
    }


def test_titles_that_pydantic_makes_up_are_not_paid_for() -> None:
    assert "title" not in str(json_schema_of(Felt))


def test_a_title_of_the_users_own_stays() -> None:
    class Titled(pydantic.BaseModel):
        a: str = pydantic.Field(title="The first letter")

    assert json_schema_of(Titled)["properties"]["a"]["title"] == "The first letter"


class Node(pydantic.BaseModel):
    name: str
    parent: Node | None = None


def _with(**words: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": words}}


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        (json_schema_of(Node), "response_schema.properties.parent"),
        (_with(type="number", exclusiveMinimum=0), "response_schema.properties.a.exclusiveMinimum"),
        (_with(type="integer", multipleOf=5), "response_schema.properties.a.multipleOf"),
        (_with(type="integer", enum=[1, 2]), "response_schema.properties.a.enum"),
        (_with(const=1), "response_schema.properties.a.const"),
        (_with(type="object", additionalProperties={"type": "integer"}), "response_schema.properties.a.additionalProperties"),
        (_with(type="object"), "response_schema.properties.a.properties"),
        (_with(type="array"), "response_schema.properties.a.items"),
        (_with(type="string", **{"not": {}}), "response_schema.properties.a.not"),
        (_with(type="text"), "response_schema.properties.a.type"),
        (_with(description="anything"), "response_schema.properties.a"),
        (_with(**{"$ref": "#/$defs/Gone"}), "response_schema.properties.a"),
        (_with(type="array", items={"anyOf": [{"type": "string"}, {"type": "x"}]}),
         "response_schema.properties.a.items.anyOf[1].type"),
        (_with(allOf=[{"type": "string"}, {"maxLength": 3}]), "response_schema.properties.a.allOf"),
        (_with(type=["string", "integer"], minimum=3), "response_schema.properties.a.type"),
    ],
)  # fmt: skip
def test_what_cannot_be_said_is_refused_by_its_path(schema: dict[str, Any], path: str) -> None:
    with pytest.raises(Unusable) as caught:
        openapi_schema(schema)
    assert caught.value.what == path


@pytest.mark.parametrize(
    ("schema", "wire"),
    [
        ({"type": ["string", "null"]}, {"type": "STRING", "nullable": True}),
        ({"enum": ["a", None]}, {"type": "STRING", "enum": ["a"], "nullable": True}),
        ({"anyOf": [{"type": "string"}, {"type": "null"}], "description": "d"},
         {"type": "STRING", "description": "d", "nullable": True}),
        ({"oneOf": [{"type": "string"}, {"type": "integer"}]}, {"anyOf": [{"type": "STRING"}, {"type": "INTEGER"}]}),
        ({"type": ["string", "integer"]}, {"anyOf": [{"type": "STRING"}, {"type": "INTEGER"}]}),
        ({"const": "a"}, {"type": "STRING", "enum": ["a"]}),
        ({"allOf": [{"type": "string"}], "maxLength": 3}, {"type": "STRING", "maxLength": 3}),
        ({"type": "integer", "exclusiveMaximum": 10}, {"type": "INTEGER", "maximum": 9}),
        ({"type": "string", "format": "email", "description": "whom"}, {"type": "STRING", "description": "whom (format: email)"}),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"type": "boolean"}}}, {"type": "BOOLEAN"}),
    ],
)  # fmt: skip
def test_other_ways_to_say_the_same(schema: dict[str, Any], wire: dict[str, Any]) -> None:
    assert openapi_schema(schema) == wire


def test_a_type_that_describes_no_json_is_refused() -> None:
    class Plain:
        pass

    with pytest.raises(Unusable, match="Plain describes no JSON"):
        json_schema_of(Plain)

    class Calls(pydantic.BaseModel):
        back: Callable[[], None]

    with pytest.raises(Unusable, match="Calls describes no JSON"):
        json_schema_of(Calls)


class Told(typing_extensions.TypedDict):
    likely: bool
    by_whom: typing_extensions.NotRequired[str]


def test_a_typed_dict_and_a_dataclass_are_types_like_others() -> None:
    assert json_schema_of(Told) == {
        "type": "object",
        "properties": {"likely": {"type": "boolean"}, "by_whom": {"type": "string"}},
        "required": ["likely"],
    }
    assert json_schema_of(Point)["required"] == ["x", "y"]


def test_typings_own_typed_dict_is_taken_or_told_where_to_come_from() -> None:
    class Old(typing.TypedDict):
        a: int

    if sys.version_info >= (3, 12):
        assert json_schema_of(Old)["required"] == ["a"]
        return
    with pytest.raises(Unusable, match="Import TypedDict from typing_extensions"):
        json_schema_of(Old)
