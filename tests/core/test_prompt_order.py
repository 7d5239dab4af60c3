"""What of a template stands too late to be cached by itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.errors import Problem
from airflow_provider_geminibatch.core.prompt_order import SHARED_TOKENS, late_text, order_doubt
from airflow_provider_geminibatch.core.template import RequestTemplate, compile_template

LONG = "Mind the rules of the house. " * (SHARED_TOKENS * 4 // 29 + 9)
plain = st.text(st.characters(exclude_characters="$", exclude_categories=["Cs"]))


@given(plain, plain)
def test_what_stands_behind_the_first_column_is_late(before: str, behind: str) -> None:
    assert late_text([f"{before}${{text}}{behind}"]) == len(behind)


@given(plain)
def test_text_without_columns_is_never_late(text: str) -> None:
    assert late_text([text, "100 $$", text]) == 0


@pytest.mark.parametrize(
    ("system", "prompt", "media", "told"),
    [
        pytest.param(LONG, "Say $text", False, False, id="shared text in the system instruction"),
        pytest.param(None, LONG + "$text", False, False, id="shared text first"),
        pytest.param(None, "$text " + LONG, False, True, id="shared text last"),
        pytest.param("For $name: " + LONG, "$text", False, True, id="a column in the system instruction"),
        pytest.param(None, LONG + "$text", True, True, id="media first"),
        pytest.param(None, "$text " + LONG[: len(LONG) // 2], False, False, id="too little to matter"),
    ],
)
def test_shared_text_in_the_wrong_place_is_named(system: str | None, prompt: str, media: bool, told: bool) -> None:
    assert (order_doubt(system, prompt, media=media) is not None) is told


def test_a_template_that_is_compiled_says_so() -> None:
    warned: list[Problem] = []
    compile_template(RequestTemplate(prompt="$text " + LONG), warn=warned.extend)
    assert [problem.hint for problem in warned] == [
        "put fixed text into system_instruction, or before the first $column"
    ]
    assert "about 4,1" in warned[0].what
