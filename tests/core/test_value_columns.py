"""Typed columns: the same for the same schema, whatever the values."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.value_columns import ValueColumn, common_columns, reader, value_columns

SCHEMA = {
    "type": "object",
    "properties": {
        "label": {"type": "string", "enum": ["a", "b"]},
        "when": {"type": "string", "format": "date-time"},
        "count": {"type": "integer"},
        "share": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        "sure": {"type": ["boolean", "null"]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "place": {"$ref": "#/$defs/Place"},
        "any": {},
        "map": {"type": "object"},
        "loop": {"$ref": "#/$defs/Loop"},
    },
    "$defs": {
        "Place": {"type": "object", "properties": {"lat": {"type": "number"}, "more": {}}},
        "Loop": {"$ref": "#/$defs/Loop"},
    },
}


def test_every_property_has_a_column_of_the_type_that_the_schema_gives_it() -> None:
    assert {column.property: column.kind for column in value_columns(SCHEMA)} == {
        "label": "string",
        "when": "timestamp",
        "count": "int64",
        "share": "float64",
        "sure": "bool",
        "tags": '{"list":"string"}',
        "place": '{"struct":{"lat":"float64","more":"text"}}',
        "any": "json",
        "map": "json",
        "loop": "json",
    }
    assert value_columns(SCHEMA)[0].name == "value_label"


@pytest.mark.parametrize(
    "schema", [{}, {"type": "array", "items": {"type": "object"}}, {"type": "string"}, {"$ref": "#/x"}]
)
def test_what_describes_no_object_has_no_columns(schema: Any) -> None:
    assert value_columns(schema) == ()


@pytest.mark.parametrize(
    ("kind", "value", "cell"),
    [
        ("int64", 1.0, 1),
        ("int64", 2**63, None),
        ("int64", True, None),
        ("int64", 1.5, None),
        ("float64", 1, 1.0),
        ("float64", 2**2000, None),
        ("bool", 1, None),
        ("string", 1, None),
        ("timestamp", "2026-11-22T10:00:00Z", datetime(2026, 11, 22, 10, tzinfo=UTC)),
        ("timestamp", "2026-11-22T10:00:00", None),
        ("timestamp", "yesterday", None),
        ("timestamp", "9999-12-31T23:59:59Z", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("timestamp", "9999-12-31T23:59:59-05:00", None),
        ("timestamp", "0001-01-01T00:00:00+05:00", None),
        ('{"list":"int64"}', [1, "x"], [1, None]),
        ('{"list":"int64"}', {"a": 1}, None),
        (
            '{"struct":{"lat":"float64","more":"text"}}',
            {"lat": 1, "more": {"x": [1]}},
            {"lat": 1.0, "more": '{"x":[1]}'},
        ),
        ('{"struct":{"lat":"float64"}}', [1], None),
        ("json", {"x": 1}, {"x": 1}),
    ],
)
def test_a_cell_is_the_value_in_its_type_or_nothing(kind: str, value: Any, cell: Any) -> None:
    assert reader(kind)(value) == cell


def test_schemas_that_disagree_about_a_property_leave_it_untyped() -> None:
    one, other = ValueColumn("value_a", "int64", "a"), ValueColumn("value_a", "string", "a")
    assert common_columns([[one], [other, other]]) == (other._replace(kind="json"),)
    assert common_columns([[one], [one]]) == (one,)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=5,
)


@given(st.sampled_from([column.kind for column in value_columns(SCHEMA)]), st.lists(VALUES, max_size=4))
def test_whatever_the_values_are_the_column_has_its_type(kind: str, values: list[Any]) -> None:
    from airflow_provider_geminibatch.storage.arrow_parts import arrow_type, column_of

    cells = [reader(kind)(value) for value in values]
    assert column_of(cells, kind).type == arrow_type(kind)


def test_a_time_is_in_utc_wherever_it_lands() -> None:
    found = reader("timestamp")("2026-11-22T10:00:00+02:00")
    assert found.isoformat() == "2026-11-22T08:00:00+00:00"


def test_a_schema_inside_itself_is_json_text_there() -> None:
    node = {
        "type": "object",
        "properties": {"kin": {"type": "array", "items": {"$ref": "#/$defs/Node"}}, "left": {"$ref": "#/$defs/Node"},
                       "right": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]}, "n": {"type": "integer"}},
    }  # fmt: skip
    (column,) = value_columns(
        {"type": "object", "properties": {"tree": {"$ref": "#/$defs/Node"}}, "$defs": {"Node": node}}
    )
    assert column.kind == '{"struct":{"kin":{"list":"text"},"left":"text","right":"text","n":"int64"}}'
    read = reader(column.kind)
    assert read({"kin": [{"n": 1}], "left": {"left": None}, "n": 2}) == {
        "kin": ['{"n":1}'], "left": '{"left":null}', "right": None, "n": 2,
    }  # fmt: skip


def test_a_description_that_is_used_twice_is_not_inside_itself() -> None:
    place = {"type": "object", "properties": {"lat": {"type": "number"}}}
    schema = {
        "type": "object", "properties": {"from": {"$ref": "#/$defs/P"}, "to": {"$ref": "#/$defs/P"}}, "$defs": {"P": place},
    }  # fmt: skip
    assert {column.kind for column in value_columns(schema)} == {'{"struct":{"lat":"float64"}}'}
