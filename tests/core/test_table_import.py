"""What a Vertex AI batch cannot import, told from one request: depth, names, lists."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.core.requests import check_request
from airflow_provider_geminibatch.core.response_schema import schema_config
from airflow_provider_geminibatch.core.rule_names import WARNINGS
from airflow_provider_geminibatch.core.table_import import DEEPEST, import_faults

TURN = [{"parts": [{"text": "hello"}]}]


def rules(request: dict[str, Any]) -> list[tuple[str, str]]:
    return [(fault.field, fault.rule) for fault in import_faults(request)]


def nested(levels: int) -> dict[str, Any]:
    """An object with so many levels of objects, itself among them."""
    made: dict[str, Any] = {"text": "deep"}
    for _ in range(levels - 1):
        made = {"x": made}
    return made


def test_fifteen_levels_pass_and_sixteen_do_not() -> None:
    assert rules(nested(DEEPEST)) == []
    assert rules(nested(DEEPEST + 1)) == [(".".join(["x"] * DEEPEST), "import-depth")]


def test_lists_add_no_level() -> None:
    assert rules({"a": [nested(DEEPEST - 1)]}) == []


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("$defs", "import-name"),
        ("full name", "import-name"),
        ("", "import-name"),
        ("e-mail", "import-unsure"),
        ("größe", "import-unsure"),
        ("1st", "import-unsure"),
    ],
)
def test_names_that_no_column_has(name: str, rule: str) -> None:
    assert rules({name: 1}) == [(name, rule)]


def test_a_list_in_one_place_and_none_in_another_is_refused_and_null_beside_a_text_is_not() -> None:
    assert rules({"of": [{"type": "a"}, {"type": ["b"]}]}) == [("of[1].type", "import-list")]
    assert rules({"of": [{"enum": ["a"]}, {"enum": None}]}) == [("of[1].enum", "import-list")]
    assert rules({"of": [{"a": None}, {"a": "x"}, {"a": None}]}) == []
    assert rules({"of": [{"a": None}, {"a": "x"}, {"a": ["y"]}]}) == [("of[2].a", "import-list")]


def test_the_developer_api_takes_all_of_it() -> None:
    args = {"full name": [[1]], "deep": nested(40)}
    request = {"contents": [{"parts": [{"functionCall": {"name": "f", "args": args}}]}]}
    assert check_request(request).problems == ()
    checked = check_request(request, route="vertex")
    assert {problem.rule for problem in checked.problems} == {"import-name", "import-depth"}
    assert {problem.rule for problem in checked.warnings} == {"import-unsure"}


def test_a_plain_request_has_nothing_to_be_said_about() -> None:
    schema = {"type": "OBJECT", "properties": {"mood": {"type": "STRING", "enum": ["GOOD", "BAD"]}}}
    request = {
        "contents": TURN,
        "generationConfig": {"responseMimeType": "application/json", "responseSchema": schema},
        "labels": {"team": "a"},
    }
    checked = check_request(request, route="vertex")
    assert (checked.problems, checked.warnings) == ((), ())


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "c d", "e-f"]), inner, max_size=3)
    ),
    max_leaves=25,
)


@given(st.dictionaries(st.sampled_from(["a", "b"]), _JSON, max_size=2))
def test_any_request_at_all_is_judged_by_rules_that_exist(request: dict[str, Any]) -> None:
    found = list(import_faults(request))
    assert {fault.rule for fault in found} <= {"import-depth", "import-name", "import-list", "import-unsure"}
    assert "import-unsure" in WARNINGS
    assert len({(fault.field, fault.rule, fault.what) for fault in found}) == len(found)


def test_a_template_whose_schema_could_not_be_imported_is_refused_for_vertex_by_its_path() -> None:
    anything = {"type": "object", "properties": {"what": {}}, "required": ["what"]}
    assert schema_config(anything, "developer", "responseJsonSchema")
    with pytest.raises(Unusable, match=r"generationConfig.responseJsonSchema.properties.what: it says nothing"):
        schema_config(anything, "vertex", "responseJsonSchema")
    spaced = {"type": "object", "properties": {"full name": {"type": "string"}}, "required": ["full name"]}
    with pytest.raises(Unusable, match=r"properties.full name: it has a name that is no column's"):
        schema_config(spaced, "vertex")
