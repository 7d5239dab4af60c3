"""docs/capabilities.md says what the code does. ``GOLDEN_UPDATE=1`` rewrites its tables of models; the diff is the review."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_geminibatch.core import limits
from airflow_provider_geminibatch.core.capabilities import AS_OF, MODELS, ONLY_AT, Model
from airflow_provider_geminibatch.core.rule_names import RULES, WARNINGS
from tests.core.test_problem_corpus import FILES, _said

PAGE = Path(__file__).parents[2] / "docs" / "capabilities.md"


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading, without its first two lines."""
    section = PAGE.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def named(cell: str) -> list[str]:
    return re.findall(r"`([a-z-]+)`", cell)


BY_ROUTE = rows("By route")


@pytest.mark.parametrize("row", BY_ROUTE, ids=lambda row: row[0])
def test_every_row_names_rules_that_exist_and_says_which_of_them_warn(row: list[str]) -> None:
    what, _, _, _, where, source = row
    assert source, what
    assert set(named(where)) <= set(RULES), what
    for rule in named(where):
        assert (f"`{rule}` (warns)" in where) == (rule in WARNINGS), (what, rule)
    assert named(where) or "Prepare" in where or "choice of a place" in where


def broken(route: str) -> set[str]:
    return {problem.rule for path in FILES if path.parent.name == route for _, problem in _said(path)}


@pytest.mark.parametrize(
    ("route", "rules"),
    [
        (
            "vertex",
            ["no-cache", "empty-object", "image-size", "rag-store", "media-uri", "missing", "label", "other-route"],
        ),
        ("developer", ["beside-cache", "media-uri", "mcp-with-schema", "other-route", "unknown-field"]),
    ],
)
def test_what_a_route_does_not_do_has_a_line_of_requests_that_is_answered_by_its_sentence(
    route: str, rules: list[str]
) -> None:
    listed = {rule for row in BY_ROUTE for rule in named(row[4])}
    assert set(rules) <= listed
    assert set(rules) <= broken(route)


def test_what_only_vertex_refuses_passes_on_the_developer_api() -> None:
    assert not {"no-cache", "empty-object", "image-size", "rag-store", "label"} & broken("developer")


def test_sizes_are_those_of_the_code() -> None:
    told = {row[0]: (row[1], row[2]) for row in rows("Sizes")}
    gigabyte = 10**9
    assert told["input file of a job"] == tuple(
        f"{limits.FILE_BYTES[route] // gigabyte} GB" for route in ("developer", "vertex")
    )
    assert told["requests of a job"][1] == f"{limits.VERTEX_JOB_ROWS:,}"
    assert told["embeddings of a job"][1] == f"{limits.VERTEX_EMBED_JOB_ROWS:,}"
    assert told["rows of a shard unless told otherwise"] == (f"{limits.SHARD_ROWS:,}",) * 2
    assert told["inline data of a payload"] == (f"{limits.INLINE_BYTES // 10**6} MB",) * 2


def _of_model(row: Model) -> str:
    kinds = " and ".join(row.kinds) or "none"
    thinking = {"": "", "level": "levels", "budget": "budget"}[row.thinking]
    if row.levels:
        thinking += f" {', '.join(row.levels)}"
    if row.budgets:
        thinking += f" {row.budgets[0]:,} to {row.budgets[1]:,}{', 0 for none' if row.budget_zero else ''}"
    reported = "" if row.sure == "documented" else " (reported)"
    gone = f"{row.retired}{'' if row.sure_retired == 'documented' else ' (reported)'}" if row.retired else ""
    return f"| `{row.pattern}` | {kinds}{reported} | {thinking} | {', '.join(row.outputs)} | {gone} | {row.source} |"


def _tables() -> Iterator[tuple[str, list[str]]]:
    yield "only-at", [f"| `{one.pattern}` | {', '.join(one.locations)} | {one.source} |" for one in ONLY_AT]
    yield "models", [_of_model(row) for row in MODELS] + ["", f"As of {AS_OF}; the first row that fits a name counts."]


def test_the_tables_of_models_are_those_of_the_code() -> None:
    text = expected = PAGE.read_text(encoding="utf-8")
    for mark, lines in _tables():
        start, table, end = re.search(  # type: ignore[union-attr]
            rf"(<!-- {mark}: [^\n]*\n\n\|[^\n]*\n\|[^\n]*\n)(.*?)(<!-- end -->)", expected, re.DOTALL
        ).groups()
        expected = expected.replace(start + table + end, start + "\n".join(lines) + "\n" + end)
    if os.environ.get("GOLDEN_UPDATE"):
        PAGE.write_text(expected, encoding="utf-8")
    assert text == expected
