"""docs/emulator.md shows every scenario of the table, and the modules keep to the house rules."""

import ast
import re
from pathlib import Path

from airflow_provider_geminibatch.emulator import SCENARIOS
from airflow_provider_geminibatch.emulator.scenarios import Scenario

ROOT = Path(__file__).parents[2]
DOC = ROOT / "docs" / "emulator.md"
PACKAGE = ROOT / "airflow_provider_geminibatch" / "emulator"
OTHERS = ("airflow", "google", "httpx", "requests")


def row(scenario: Scenario) -> str:
    """A scenario's line in the table of the document."""
    settings = ", ".join(f"`{name}={_shown(value)}`" for name, value in scenario.params.items())
    return f"| `{scenario.name}` | {scenario.scope} | {scenario.says} | {settings} | {scenario.evidence} |"


def _shown(value: object) -> str:
    return (
        "/".join(map(str, value))
        if isinstance(value, tuple)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


def test_the_document_has_the_table_of_scenarios():
    shown = re.findall(r"^\| `\w+` \| (?:job|row|call|list) \|.*$", DOC.read_text("utf-8"), re.MULTILINE)
    assert shown == [row(scenario) for scenario in SCENARIOS.values()]


def test_the_document_says_what_is_not_claimed():
    assert "## What is not claimed" in DOC.read_text("utf-8")


def imports_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    plain = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    return plain | {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}


def test_the_emulator_imports_nothing_of_the_package_but_itself():
    for path in PACKAGE.glob("*.py"):
        for module in imports_of(path):
            assert module.split(".")[0] not in OTHERS, path
            if module.startswith("airflow_provider_geminibatch"):
                assert module.startswith("airflow_provider_geminibatch.emulator"), path
