"""Rules whose lines would be too long to keep, and what the list of rules promises."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_geminibatch.core import rule_names
from airflow_provider_geminibatch.core.fields import ROUTES, messages
from airflow_provider_geminibatch.core.limits import INLINE_BYTES
from airflow_provider_geminibatch.core.request_rules import rules
from airflow_provider_geminibatch.core.requests import check_message, check_request
from airflow_provider_geminibatch.core.rule_names import RULES, WARNINGS


def test_inline_data_beyond_the_documented_size_warns() -> None:
    blob = {"mimeType": "image/png", "data": "A" * INLINE_BYTES}
    assert check_message("Blob", blob, name="blob").warnings == ()
    (warning,) = check_message("Blob", {**blob, "data": "A" * (INLINE_BYTES + 4)}, name="blob").warnings
    assert str(warning) == (
        "blob.data: has 100,000,004 bytes, and 100,000,000 are documented as the most (upload it and write fileData)"
    )


def test_a_schema_of_a_thousand_levels_breaks_the_rule_of_depth() -> None:
    schema: dict[str, Any] = {"type": "STRING"}
    for _ in range(1000):
        schema = {"type": "ARRAY", "items": schema}
    assert [problem.rule for problem in check_message("Schema", schema, name="schema").problems] == ["too-deep"]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("field", ["seed", "topK", "maxOutputTokens", "thinkingConfig.thinkingBudget"])
def test_whole_numbers_have_32_bits(route: str, field: str) -> None:
    def said(number: int) -> list[str]:
        *outer, name = field.split(".")
        config = {outer[0]: {name: number}} if outer else {name: number}
        request = {"contents": [{"role": "user", "parts": [{"text": "a"}]}], "generationConfig": config}
        return [problem.where for problem in check_request(request, route=route).problems]

    assert said(2**31 - 1) == []
    for beyond in (2**31, 1_763_839_203_123, 10**400):
        assert said(beyond) == [f"request.generationConfig.{field}"]


@pytest.mark.parametrize("route", ROUTES)
def test_rules_are_of_messages_that_the_route_has(route: str) -> None:
    assert set(rules(route)) <= set(messages(route))


def test_rules_that_warn_are_rules() -> None:
    assert set(RULES) > WARNINGS
    assert all(says for says in RULES.values())


def test_every_rule_is_named_in_the_code_that_finds_it() -> None:
    """A rule of the list that no code reports would be a promise without a keeper."""
    core = Path(rule_names.__file__).parent
    code = "".join(
        (core / f"{name}.py").read_text()
        for name in ("requests", "request_rules", "wire_values", "capabilities", "mixed_types", "table_import")
    )
    assert [rule for rule in RULES if f'"{rule}"' not in code] == []


@pytest.mark.parametrize("labels", [{"team": "a"}, {"a-b_1": ""}, {"größe": "x"}])
def test_labels_of_the_documented_form_pass(labels: dict[str, str]) -> None:
    turn = [{"parts": [{"text": "a"}]}]
    assert check_request({"contents": turn, "labels": labels}, route="vertex").problems == ()


@pytest.mark.parametrize("labels", [{"Team": "a"}, {"a": "B"}, {"1a": "x"}, {"a": "x" * 64}, {"a b": "x"}])
def test_labels_of_another_form_are_refused_where_their_form_is_documented(labels: dict[str, str]) -> None:
    turn = [{"parts": [{"text": "a"}]}]
    (problem,) = check_request({"contents": turn, "labels": labels}, route="vertex").problems
    assert problem.rule == "label"
    assert check_request({"contents": turn, "labels": labels}).problems == ()


class Text(str):
    """As libraries of data make them."""

    __slots__ = ()


def test_a_subclass_of_text_is_text() -> None:
    checked = check_request({"contents": [{"parts": [{"text": Text("hello")}]}]})
    assert not checked.problems
    assert type(checked.request["contents"][0]["parts"][0]["text"]) is str


PAGE = Path(__file__).parents[2] / "docs" / "requests.md"


def test_the_page_lists_every_rule_and_whether_it_warns() -> None:
    text = PAGE.read_text(encoding="utf-8")
    rows = [f"| `{rule}` | {says} | {'warns' if rule in WARNINGS else 'refuses'} |" for rule, says in RULES.items()]
    assert [row for row in rows if row not in text] == []


def test_the_example_of_the_page_runs() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile(block, str(PAGE), "exec"), {})
