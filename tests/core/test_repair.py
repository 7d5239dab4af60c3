"""What is repaired of an answer that is not quite JSON, and what is left alone."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.outcomes import Checked
from airflow_provider_geminibatch.core.repair import LONGEST, repaired
from airflow_provider_geminibatch.core.schema_check import schema_check

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('```json\n{"a": 1}\n```', "code fence"),
        ('Here it is:\n```\n{"a": 1}\n```\nAnything else?', "code fence"),
        ('The answer is {"a": 1}.', "words around it"),
        ('{"a": 1,}', "trailing comma"),
        ('{"a": 1, }\n', "trailing comma"),
        ('{"a": 1\n', "closing bracket"),
        ('{"a": 1}}', "words around it"),
        ('```json\n{"a": 1,}\n```', "code fence, trailing comma"),
    ],
)
def test_a_slip_is_repaired_and_said(text: str, what: str) -> None:
    assert schema_check(SCHEMA)(text) == Checked({"a": 1}, "", what)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON at all",
        '{"a": 1} {"a": 2}',
        '{"a": "cut in the mid',
        '{"a": "ends with an escaped quote\\"',
        '{"a": {"b": true',
        '{"a": 1',
        '{"a": [1, 2',
        '{"a": 1]',
        "{'a': 1}",
        '"x": {"a": 1}',
        'x: {"a": 1}}',
        '2], {"a": 1}',
        '}, {"a": 1}',
        '{"a": 1,\n',
        'Either ```json\n{"a": 1}\n``` or ```json\n5\n```',
        "{" * 5000,
        '{"a": 1}}' + " " * LONGEST,
    ],
)
def test_what_may_mean_something_else_is_left_alone(text: str) -> None:
    checked = schema_check(SCHEMA)(text)
    assert (checked.value, checked.repaired) == (None, "")
    assert checked.problem.startswith("not JSON: ")


def test_a_repaired_value_has_to_fit_the_schema_too() -> None:
    assert schema_check(SCHEMA)('```json\n{"a": "x"}\n```') == Checked(
        {"a": "x"}, '$.a: does not fit type "integer"', "code fence"
    )


def test_nothing_is_repaired_where_that_is_not_wanted() -> None:
    assert schema_check(SCHEMA, repair=False)('{"a": 1,}').problem.startswith("not JSON: ")


def test_a_word_of_a_choice_in_a_code_fence_is_that_word() -> None:
    assert schema_check({"type": "string", "enum": ["yes", "no"]})("```\nyes\n```") == Checked("yes", "", "code fence")


documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
).filter(lambda value: isinstance(value, (dict, list)))


@given(documents)
def test_a_document_in_a_fence_comes_back_as_it_was(value: Any) -> None:
    found = repaired(f"```json\n{json.dumps(value)}\n```")
    assert found is not None
    assert (json.loads(found.text), found.what) == (value, "code fence")


@given(documents, st.integers(0, 60))
def test_a_document_that_was_cut_off_never_comes_back_as_another(value: Any, at: int) -> None:
    text = json.dumps(value)
    found = repaired(text[: min(at, len(text) - 1)])
    if found is None:
        return
    try:
        made = msgspec.json.decode(found.text)
    except msgspec.MsgspecError:
        return
    # Whole members may lack, as they would if the model had meant that; none is another one.
    if isinstance(value, list):
        assert made == value[: len(made)]
    else:
        assert (
            made.items() <= value.items() if all(map(_plain, value.values())) else all(name in value for name in made)
        )


def _plain(value: Any) -> bool:
    return not isinstance(value, (dict, list))


@given(st.text(alphabet='{}[]",\\ a1:`', max_size=30))
def test_no_text_makes_it_raise(text: str) -> None:
    schema_check(SCHEMA)(text)


@given(st.lists(st.integers(), min_size=1))
def test_a_list_that_was_to_go_on_is_never_closed(items: list[int]) -> None:
    for ending in (",", ", ", ",\n"):
        text = json.dumps([{"a": item} for item in items])[:-1] + ending
        assert repaired(text) is None
        assert repaired(f"Here: {text}") is None
