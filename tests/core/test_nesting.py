"""JSON that is nested deeper than whoever reads it next can bear."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.nesting import DEEPEST, too_deep
from airflow_provider_geminibatch.core.schema_check import schema_check


@pytest.mark.parametrize(
    ("text", "deep"),
    [
        ("", False),
        ("[" * 200 + "]" * 200, False),
        ("[" * 201 + "]" * 201, True),
        ('{"a":' * 201 + "1" + "}" * 201, True),
        ("[[]" * 150 + "]" * 150, False),
        ("[" + "[]," * 500 + "[]]", False),
        (json.dumps("[" * 500), False),
        (json.dumps('"[' * 500), False),
        (json.dumps(["\\", "[" * 500]), False),
        ('"' + "[" * 500, False),
        ("[" * 500, True),
    ],
)
def test_brackets_count_that_are_open_at_once_outside_of_strings(text: str, deep: bool) -> None:
    assert too_deep(text) is deep


@given(
    st.recursive(st.text(max_size=3) | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
)
def test_the_depth_is_that_of_the_value(value: object) -> None:
    def depth(found: object) -> int:
        inner = found.values() if isinstance(found, dict) else found if isinstance(found, list) else None
        return 0 if inner is None else 1 + max(map(depth, inner), default=0)

    text, deepest = json.dumps(value), depth(value)
    assert not too_deep(text, deepest)
    assert not deepest or too_deep(text, deepest - 1)


def test_a_hostile_text_is_looked_through_once() -> None:
    began = time.perf_counter()
    for text in ('"\\' * 500_000 + "[" * 300, '["' * 500_000, "[]" * 500_000):
        too_deep(text)
    assert time.perf_counter() - began < 5


def test_an_answer_that_could_not_be_read_again_does_not_fit_any_schema() -> None:
    for repair in (True, False):
        check = schema_check({}, repair=repair)
        fine, deep = "[" * DEEPEST + "]" * DEEPEST, "[" * 900 + "]" * 900
        assert check(fine).problem == ""
        assert check(deep) == (None, "nested deeper than 200 levels", "")
        assert check(f"Sure: {deep}").problem
        assert check(f"Sure: {deep}").value is None
