"""Rows on their way to a shard: keys, columns, ready-made requests."""

from __future__ import annotations

import datetime as dt
import decimal
import tracemalloc
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.errors import Problem
from airflow_provider_geminibatch.core.rows import (
    OWN_FIELDS,
    Encoded,
    Fault,
    Ready,
    Row,
    decoded,
    ready_rows,
    request_encoder,
    text_of,
)
from airflow_provider_geminibatch.core.template import RequestTemplate, compile_template

TURN = [{"role": "user", "parts": [{"text": "hello"}]}]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
)


def _plain(fields: Mapping[str, Any]) -> Encoded:
    return Encoded(str(fields.get("id", "")), b"{}")


def _through(rows: list[Any], columns: tuple[str, ...] = (), **more: Any) -> list[Ready | list[Problem]]:
    placed = (Row("rows.csv line", number, row) for number, row in enumerate(rows, 2))
    return list(ready_rows(placed, more.pop("encode", _plain), columns=columns, **more))


@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), JSON, max_size=4))
def test_passthrough_columns_come_back_as_they_were(columns: dict[str, Any]) -> None:
    (row,) = _through([{**columns, "id": "1"}], ("*",))
    assert isinstance(row, Ready)
    assert msgspec.json.decode(row.columns) == {**columns, "id": "1"}


@given(st.dictionaries(st.text("xyz", min_size=1, max_size=3), JSON, max_size=3))
def test_a_ready_made_request_is_what_comes_out_of_its_line(values: dict[str, Any]) -> None:
    request = {"contents": [{"role": "user", "parts": [{"functionCall": {"name": "f", "args": values}}]}]}
    line = msgspec.json.encode({"key": "k", "request": request})
    (row,) = _through([line], encode=request_encoder("generate", "m"))
    assert isinstance(row, Ready)
    assert (row.key, msgspec.json.decode(row.request)) == (b'"k"', request)


def test_a_problem_says_where_it_is() -> None:
    made = _through([{"id": "1"}, {"id": " "}, Fault("has 3 cells where the header has 4", "quote")])
    assert [str(row[0]) for row in made if isinstance(row, list)] == [
        "rows.csv line 3: key: is empty (every row needs its own key)",
        "rows.csv line 4: has 3 cells where the header has 4 (quote)",
    ]


def test_a_column_that_cannot_travel_is_named() -> None:
    made = _through([{"id": "1", "a": object(), "b": "\ud800"}, {"id": "2"}], ("a", "b"))
    assert [[problem.where for problem in row] for row in made if isinstance(row, list)] == [
        ["rows.csv line 2: column a", "rows.csv line 2: column b"],
        ["rows.csv line 3: column a", "rows.csv line 3: column b"],
    ]


def test_times_and_money_travel_as_text() -> None:
    (row,) = _through([{"id": "1", "at": dt.date(2026, 1, 2), "usd": decimal.Decimal("0.10")}], ("at", "usd"))
    assert isinstance(row, Ready)
    assert row.columns == b'{"at":"2026-01-02","usd":"0.10"}'


def test_fields_beside_a_ready_made_request_are_columns() -> None:
    line = msgspec.json.encode({"key": "k", "request": {"contents": TURN}, "region": "eu"})
    (row,) = _through([line], ("*",), encode=request_encoder("generate", "m"), own=OWN_FIELDS)
    assert isinstance(row, Ready)
    assert row.columns == b'{"region":"eu"}'


def test_a_request_larger_than_a_shard_may_be_is_a_problem() -> None:
    (row,) = _through([{"id": "1"}], encode=lambda fields: Encoded("1", b"x" * 1000), max_bytes=1000)
    assert isinstance(row, list)
    assert row[0].what == "has 1,000 bytes, and a shard may have 1,000"


def test_rows_that_are_no_mappings_and_lines_that_are_no_json_are_problems() -> None:
    made = _through([["a"], b'{"id": "1"', b'{"id": "\xff"}', b"[" * 100_000, b'{"id": NaN}', b'{"id": "\\ud800"}'])
    assert [type(row) for row in made] == [list] * 6
    assert [row[0].where for row in made if isinstance(row, list)] == [
        f"rows.csv line {number}" for number in range(2, 8)
    ]


def test_no_message_of_a_broken_line_shows_its_content() -> None:
    made = _through([b'{"id": "secret', b'{"id": secret}', b'{"secret\xff": 1}', b"secret"])
    assert "secret" not in str(made)


def test_a_request_with_what_json_cannot_hold_is_a_problem() -> None:
    call = {"contents": [{"parts": [{"functionCall": {"name": "f", "args": {"at": object()}}}]}]}
    lone = {"contents": [{"parts": [{"text": "\ud800"}]}]}
    made = _through(
        [{"key": "a", "request": call}, {"key": "b", "request": lone}], encode=request_encoder("generate", "m")
    )
    assert [row[0].where for row in made if isinstance(row, list)] == [
        "rows.csv line 2: request",
        "rows.csv line 3: request",
    ]


def test_what_has_a_text_of_its_own() -> None:
    some = uuid.UUID(int=1)
    at = dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC)
    values = [some, at, at.date(), at.time(), decimal.Decimal("1.0"), b"x", object(), [object()], {"a": "\ud800"}]
    assert [text_of(value) for value in values] == [
        str(some), "2026-01-02T03:00:00+00:00", "2026-01-02", "03:00:00", "1.0", None, None, None, None,
    ]  # fmt: skip


def test_memory_does_not_grow_with_the_size_of_rows() -> None:
    def rows() -> Iterator[Row]:
        for number in range(2_000):
            yield Row("row", number, {"id": str(number), "text": "x" * 10_000})

    tracemalloc.start()
    try:
        for _ in ready_rows(rows(), lambda fields: Encoded(fields["id"], fields["text"].encode())):
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_500_000


def test_what_the_quick_road_lets_through_is_not_looked_at_again() -> None:
    quick = {"1": Ready(b'"quick"', b"{}", b"{}")}
    made = _through([{"id": "1"}, {"id": "2"}], quick=lambda row: quick.get(row["id"]))
    assert [row.key for row in made if isinstance(row, Ready)] == [b'"quick"', b'"2"']


def test_the_quick_road_has_the_same_limit_of_size() -> None:
    (row,) = _through([{"id": "1"}], quick=lambda row: Ready(b'"1"', b"x" * 1000, b"{}"), max_bytes=1000)
    assert isinstance(row, list)
    assert str(row[0]) == "rows.csv line 2: request: has 1,000 bytes, and a shard may have 1,000 (split it)"


def test_values_of_subclasses_read_and_come_back_as_what_they_are_a_kind_of() -> None:
    import pendulum

    class Text(str):
        __slots__ = ()

        def __str__(self) -> str:
            return "another text"

    class Whole(int): ...

    class Real(float): ...

    row = {
        "id": Text("1"),
        "text": Text("a"),
        "number": Whole(2),
        "share": Real(0.5),
        "at": pendulum.datetime(2026, 1, 1, 12, tz="Europe/Berlin"),
        "day": pendulum.date(2026, 1, 1),
        "deep": [{Text("k"): Text("v")}],
    }
    template = compile_template(RequestTemplate("$text $number $share $at $day $deep"))
    (made,) = _through([row], ("*",), encode=template.encode)
    assert isinstance(made, Ready)
    assert made.key == b'"1"'
    asked = msgspec.json.decode(made.request)["contents"][0]["parts"][0]["text"]
    assert asked == 'a 2 0.5 2026-01-01T12:00:00+01:00 2026-01-01 [{"k":"v"}]'
    assert msgspec.json.decode(made.columns) == {
        "id": "1",
        "text": "a",
        "number": 2,
        "share": 0.5,
        "at": "2026-01-01T12:00:00+01:00",
        "day": "2026-01-01",
        "deep": [{"k": "v"}],
    }
    ready = {"key": Text("k"), "request": {"contents": [{"parts": [{"text": "hello"}]}]}}
    (one,) = _through([ready], encode=request_encoder("generate", "m"))
    assert isinstance(one, Ready)
    assert one.key == b'"k"'


def test_a_byte_that_is_no_utf8_is_counted_from_the_beginning_of_its_line() -> None:
    line = b'{"id": "1", "text": "gr\xfc\xdfe"}'
    assert decoded(line) == Fault(f"is not UTF-8 (byte {line.index(0xFC)})", "write the file in UTF-8")
