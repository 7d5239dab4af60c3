"""The short road of a template makes of a row what the long road makes of it, or nothing."""

from __future__ import annotations

import datetime as dt
import decimal
from types import MappingProxyType
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.fast_rows import quick_rows
from airflow_provider_geminibatch.core.rows import Encoded, Ready, Row, ready_rows
from airflow_provider_geminibatch.core.template import RequestTemplate, WireTemplate, compile_template

TEMPLATES = [
    RequestTemplate("Say $text"),
    RequestTemplate("$text"),
    RequestTemplate("$text$more", key="$id-$more"),
    RequestTemplate("Say $text and $more and $text", system_instruction="As $more", key="row $id"),
    RequestTemplate("Say hello", system_instruction="Be kind"),
    RequestTemplate("$text", key="$text"),
]
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=6)
VALUE = st.one_of(
    TEXT, TEXT, TEXT,
    st.sampled_from([None, True, 7, 1.5, ["a", 1], {"b": None}, " ", "", "\ud800", decimal.Decimal("1.10"),
                     dt.date(2026, 1, 2), b"bytes", object(), [object()]]),
)  # fmt: skip
ROW = st.fixed_dictionaries({}, optional={"id": VALUE, "text": VALUE, "more": VALUE, "region": VALUE, "other": VALUE})
PLAIN = st.sampled_from([None, True, 7, 1.5, ["a", 1], {"b": None}, " ", "", "a", '\n"é']) | TEXT
PLAIN_ROW = st.fixed_dictionaries(
    {}, optional={"id": PLAIN, "text": PLAIN, "more": PLAIN, "region": PLAIN, "other": PLAIN}
)
COLUMNS = st.sampled_from([(), ("region",), ("region", "text"), ("*",)])


def _both(template: RequestTemplate, columns: tuple[str, ...], data: Any) -> tuple[Ready | None, Any]:
    wire = compile_template(template)
    (long,) = ready_rows((Row("row", 1, data),), wire.encode, columns=columns)
    return quick_rows(wire, columns)(data), long


@given(st.sampled_from(TEMPLATES), COLUMNS, ROW)
def test_a_row_on_the_short_road_is_the_row_of_the_long_road(
    template: RequestTemplate, columns: tuple[str, ...], row: dict[str, Any]
) -> None:
    short, long = _both(template, columns, row)
    assert short == (long if isinstance(long, Ready) else None)


@given(st.sampled_from(TEMPLATES), COLUMNS, PLAIN_ROW)
def test_a_line_on_the_short_road_is_the_line_of_the_long_road(
    template: RequestTemplate, columns: tuple[str, ...], row: dict[str, Any]
) -> None:
    short, long = _both(template, columns, msgspec.json.encode(row))
    assert short == (long if isinstance(long, Ready) else None)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"7", b'{"id": "1"', b'{"id": "\xff", "text": "\xff"}', [], 7, None, b"[" * 99_999]
)
@pytest.mark.parametrize("template", TEMPLATES)
def test_what_is_no_row_is_left_to_the_long_road(template: RequestTemplate, data: Any) -> None:
    assert quick_rows(compile_template(template))(data) is None


def test_columns_that_nobody_asked_for_need_not_be_utf8() -> None:
    quick = quick_rows(compile_template(RequestTemplate("Say $text")))
    made = [
        quick(b'{"id": "1", "text": "a", "other": %b}' % other) for other in (b'"\xff"', b'"\\ud800"', b"[1, {}]", b"{")
    ]
    assert [row is not None for row in made] == [True, False, True, False]


def test_a_template_without_columns_still_wants_an_object() -> None:
    wire = WireTemplate((b"{}",), (), ("key",), ())
    assert [quick_rows(wire)(data) for data in (b"[]", {}, b"{}")] == [
        None, Ready(b'"key"', b"{}", b"{}", b""), Ready(b'"key"', b"{}", b"{}", b""),
    ]  # fmt: skip


def test_other_mappings_take_the_long_road() -> None:
    row = MappingProxyType({"id": "1", "text": "a"})
    short, long = _both(TEMPLATES[0], (), row)
    assert short is None
    assert isinstance(long, Ready)


def test_encoded_parts_are_spliced_as_they_are() -> None:
    wire = WireTemplate((b'{"a":[', b"", b'],"b":"', b"", b'"}'), ((3, "text"),), ("k",), (), ((1, "part"),))
    row = {"part": b'{"inlineData":{}}', "text": "x\n"}
    short = quick_rows(wire)(row)
    assert short == Ready(b'"k"', b'{"a":[{"inlineData":{}}],"b":"x\\n"}', b"{}", b'{"inlineData":{}}],"b":"x\\n')
    assert wire.encode(row) == Encoded("k", short.request, short.varying)


@given(st.sampled_from(TEMPLATES), st.lists(PLAIN_ROW, min_size=2, max_size=2))
def test_requests_are_equal_if_and_only_if_what_varies_is(
    template: RequestTemplate, rows: list[dict[str, Any]]
) -> None:
    wire = compile_template(template)
    one, other = (wire.encode(row) for row in rows)
    if isinstance(one, Encoded) and isinstance(other, Encoded) and len(wire.slots) <= 1:
        assert (one.request == other.request) == (one.varying == other.varying)
    elif isinstance(one, Encoded) and isinstance(other, Encoded) and one.varying == other.varying:
        assert one.request == other.request


def test_templates_that_ask_another_thing_have_another_constant() -> None:
    constants = {compile_template(template).constant for template in TEMPLATES}
    assert len(constants) == len(TEMPLATES) - 1  # "$text" asks the same under either key
