"""One bad line for each mistake and route, and the very sentences that are said to it: tests/golden/problems/ROUTE/MISTAKE.

``MISTAKE@MODEL.jsonl`` is a batch of that model. ``GOLDEN_UPDATE=1`` rewrites the sentences; the diff is the review.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from pathlib import Path

import pytest

from airflow_provider_geminibatch.core.capabilities import BUILT_IN
from airflow_provider_geminibatch.core.errors import Problem
from airflow_provider_geminibatch.core.fast_requests import FastRequests
from airflow_provider_geminibatch.core.fields import ROUTES
from airflow_provider_geminibatch.core.requests import Checked, check_request
from airflow_provider_geminibatch.core.rows import Ready, Row, ready_rows, request_encoder
from airflow_provider_geminibatch.core.rule_names import RULES, WARNINGS

CORPUS = Path(__file__).parents[1] / "golden" / "problems"
FILES = sorted(path for route in ROUTES for path in (CORPUS / route).glob("*.jsonl"))
TODAY = date(2026, 11, 22)
MODEL = "gemini-3.8-flash"

# Rules that a route has no line for, because it cannot break them, or because the line would be too long to keep: then
# test_request_rules.py has them.
NO_LINE = {
    "developer": {"no-cache", "empty-object", "label", "inline-size", "too-deep", "task-in-text"}
    | {
        "mixed-types",
        "image-size",
        "rag-store",
        "tuned-model",
        "import-depth",
        "import-name",
        "import-list",
        "import-unsure",
    },
    "vertex": {
        "mixed-types",
        "tuned-model",
        "beside-cache",
        "inline-size",
        "too-deep",
        "other-model",
        "schema-unheeded",
        "mcp-with-schema",
        "task-in-text",
    },
}


def _model(path: Path) -> str:
    return path.stem.partition("@")[2] or MODEL


def _check(path: Path) -> Callable[[object], Checked]:
    return partial(check_request, model=_model(path), route=path.parent.name)


def _said(path: Path) -> Iterator[tuple[str, Problem]]:
    """What is said to the line of a file: of its model, of the line, and whether it only warns."""
    for fault in BUILT_IN.model_faults(_model(path), kind="generate", today=TODAY):
        where = f"model {_model(path)}"
        yield ("warning" if fault.warns else "error"), Problem(where, fault.what, fault.hint, fault.rule)
    warned: list[Problem] = []
    encode = request_encoder("generate", _model(path), check=_check(path), warn=warned.extend)
    for made in ready_rows([Row("line", 1, path.read_bytes().rstrip(b"\n"))], encode):
        yield from (("error", problem) for problem in ([] if isinstance(made, Ready) else made))
    yield from (("warning", problem) for problem in warned)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_mistake_is_answered_by_its_sentences(path: Path) -> None:
    said = "".join(f"{severity}: {problem}\n" for severity, problem in _said(path))
    golden = path.with_suffix(path.suffix + ".txt")
    if os.environ.get("GOLDEN_UPDATE"):
        golden.write_text(said)
    assert said
    assert said == golden.read_text()


@pytest.mark.parametrize("route", ROUTES)
def test_every_rule_has_a_line_that_breaks_it(route: str) -> None:
    broken = {problem.rule for path in FILES if path.parent.name == route for _, problem in _said(path)} - {""}
    assert broken <= set(RULES)
    assert set(RULES) - broken == NO_LINE[route]


def test_warnings_are_of_rules_that_warn_or_of_what_is_only_reported() -> None:
    for path in FILES:
        for severity, problem in _said(path):
            if problem.rule in WARNINGS:
                assert severity == "warning", problem
            elif severity == "warning":
                assert problem.rule in {"thinking-level", "thinking-form"}, problem


def test_every_file_of_sentences_has_its_line() -> None:
    lines = {path.name for path in FILES}
    assert [path.name for route in ROUTES for path in (CORPUS / route).glob("*.txt") if path.stem not in lines] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_the_short_road_never_takes_a_line_that_something_is_said_to(path: Path) -> None:
    fast = FastRequests(_check(path), route=path.parent.name)
    line = path.read_bytes().rstrip(b"\n")
    of_the_line = [problem for _, problem in _said(path) if not problem.rule.startswith("model-")]
    assert not of_the_line or fast(line) is None
