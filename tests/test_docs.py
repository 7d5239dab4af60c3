"""Docs that cannot drift: links lead somewhere, named tests exist, code parses, and every option and command is told."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from airflow_provider_geminibatch.cli.main import parser
from airflow_provider_geminibatch.provider_info import get_provider_info

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("dags_examples/**/*.md")])
PROSE = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
ids = {"ids": lambda page: page.name}


@pytest.mark.parametrize("page", PAGES, **ids)  # type: ignore[arg-type]
def test_every_link_leads_to_a_file(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]

    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, **ids)  # type: ignore[arg-type]
def test_every_test_that_is_named_exists(page: Path) -> None:
    named = re.findall(r"(tests/[\w/]+\.py)(?:::(\w+))?", page.read_text(encoding="utf-8"))

    for path, name in named:
        assert (ROOT / path).is_file(), path
        assert not name or f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), f"{path}::{name}"


@pytest.mark.parametrize("page", PAGES, **ids)  # type: ignore[arg-type]
def test_python_in_the_docs_parses(page: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        ast.parse(block.replace("…", "..."))


def test_every_command_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    actions = [action for action in parser()._actions if action.choices]
    commands = [name for action in actions for name in action.choices or ()]

    assert commands
    assert [name for name in commands if f"`{name}`" not in readme] == []


def test_every_option_of_airflow_cfg_is_told() -> None:
    options = get_provider_info()["config"]["geminibatch"]["options"]

    assert [name for name in options if name not in PROSE] == []


def test_every_target_of_the_makefile_that_the_docs_name_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:`|\n)make ([a-z][a-z-]+)", PROSE))  # as code or at the start of a line, not as a verb

    assert {name for name in named if not re.search(rf"^{name}:", makefile, re.MULTILINE)} <= {"sure"}
