"""Where a path leads on a raw line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.columns import column

LINE = '{"key": "é1", "request" : {"contents":[ {"parts":[{"text":"a"}, {"txt": "b"}]} ],"system_instruction":{"parts":[]}}}'


def at(path: str, line: str = LINE) -> str:
    """What stands on the line where the path leads."""
    return line[column(line.encode(), path) - 1 :]


@pytest.mark.parametrize(
    ("path", "begins"),
    [
        ("key", '"é1"'),
        ("request", '{"contents"'),
        ("request.contents[0].parts[1].txt", '"b"'),
        ("request.contents[0].parts[0]", '{"text"'),
        ("request.systemInstruction.parts", "[]}}}"),
        ("request.system_instruction", '{"parts":[]}'),
    ],
)
def test_a_path_leads_to_its_value(path: str, begins: str) -> None:
    assert at(path).startswith(begins)


@pytest.mark.parametrize(
    ("path", "begins"),
    [
        ("request.generationConfig.topK", '{"contents"'),
        ("request.contents[7].parts", "[ {"),
        ("request.contents[0].role", '{"parts":[{"text"'),
        ("column id", "{"),
        ("", "{"),
    ],
)
def test_what_is_missing_is_placed_at_what_should_hold_it(path: str, begins: str) -> None:
    assert at(path).startswith(begins)


def test_a_name_may_hold_dots() -> None:
    line = '{"a.b": {"c": 1}, "a": {"x": 2}, "a.b.d": 3}'
    assert at("a.b.c", line).startswith("1}")
    assert at("a.x", line).startswith("2}")
    assert at("a.b.d", line).startswith("3}")


def test_of_two_members_of_a_name_the_one_that_counts_is_meant() -> None:
    assert at("k", '{"k": 1, "k": 2}').startswith("2}")


def test_a_decoder_s_byte_is_a_character_here() -> None:
    assert column('{"é": tru}'.encode(), "", "is not JSON: invalid character (byte 7)") == 7


@pytest.mark.parametrize("line", [b"", b"   ", b"{", b'{"a" 1}', b"nonsense", b"\xff\xfe"])
def test_a_line_that_is_no_json_has_a_column_too(line: bytes) -> None:
    assert column(line, "request.contents[0]") >= 1


_names = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | _names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=3),
    max_leaves=12,
)


def _paths(value: Any, path: str = "") -> list[tuple[str, Any]]:
    found = [(path, value)]
    if isinstance(value, dict):
        found += [each for name, inner in value.items() for each in _paths(inner, f"{path}.{name}")]
    elif isinstance(value, list):
        found += [each for index, inner in enumerate(value) for each in _paths(inner, f"{path}[{index}]")]
    return found


@given(_values, st.sampled_from([None, 1]), st.booleans())
def test_every_path_leads_to_a_value_of_that_path(value: Any, indent: int | None, plain: bool) -> None:
    line = json.dumps({"request": value}, indent=indent, ensure_ascii=plain).replace("\n", " ")
    paths = _paths(value, "request")
    for path, _ in paths:
        start = column(line.encode(), path) - 1
        found, _ = json.JSONDecoder().raw_decode(line, start)
        assert found in [meant for other, meant in paths if other == path]
