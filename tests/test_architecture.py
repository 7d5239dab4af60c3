"""The promises that no single module can keep: who imports whom, what a Dag parse loads, and that names agree."""

from __future__ import annotations

import ast
import configparser
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import airflow_provider_geminibatch
from airflow_provider_geminibatch import provider_info

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "airflow_provider_geminibatch"
HEAVY = ("google.genai", "google.cloud", "pyarrow", "fastapi")


def modules(folder: str = "") -> list[Path]:
    return sorted((PACKAGE / folder).rglob("*.py"))


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path: Path) -> Iterator[str]:
    """Every name that a module imports, wherever in it: `from google import genai` is `google.genai`."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_imports_point_down_only() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run([lint, "--no-cache"], check=False, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_only_gemini_knows_the_sdk() -> None:
    knowing = {
        path.relative_to(PACKAGE).parts[0]
        for path in modules()
        if any(name.startswith("google.genai") for name in imported(path))
    }
    assert knowing <= {"gemini"}


@pytest.mark.parametrize("path", modules("core"), ids=dotted)
def test_core_asks_no_clock_and_opens_no_file(path: Path) -> None:
    """The modules that could are forbidden to it by contract; these are the calls that need none of them."""
    asked = [
        f"{path.name}:{node.lineno} {ast.unparse(node.func)}()"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call)
        and (
            (isinstance(node.func, ast.Attribute) and node.func.attr in {"now", "utcnow", "today"})
            or (isinstance(node.func, ast.Name) and node.func.id in {"open", "print", "input"})
        )
    ]
    assert asked == []


def test_provider_info_imports_nothing() -> None:
    """Airflow reads it in every process, before its own configuration exists."""
    assert list(imported(PACKAGE / "provider_info.py")) == []


# Loaded by another provider, through an entry point, and only where that provider is installed.
BY_ENTRY_POINT = "airflow_provider_geminibatch.hooks.common_ai"
DAG_SIDE = [
    dotted(path)
    for folder in ("hooks", "operators", "sensors", "triggers", "decorators")
    for path in modules(folder)
    if dotted(path) != BY_ENTRY_POINT
]


def test_what_another_provider_loads_is_loaded_by_nobody_else() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    [line] = setup["options.entry_points"]["airflow.providers.common.ai.batch_adapters"].strip().splitlines()
    prefix, module, adapter = re.split(r"\s*=\s*|:", line)
    assert (prefix, module) == ("gemini", BY_ENTRY_POINT)
    assert f"class {adapter}(" in (PACKAGE / "hooks" / "common_ai.py").read_text(encoding="utf-8")
    importing = {
        dotted(path)
        for path in modules()
        if any(f"{name}.".startswith(f"{BY_ENTRY_POINT}.") for name in imported(path))
    }
    assert importing == set()


@pytest.mark.airflow
def test_parsing_a_dag_loads_nothing_heavy() -> None:
    """Half a second or more each, for every parse of every Dag file; and triggers are imported on the event loop."""
    script = f"""
import importlib, sys
for name in {DAG_SIDE!r}:
    before = set(sys.modules)
    importlib.import_module(name)
    for heavy in {HEAVY!r}:
        if heavy in set(sys.modules) - before:
            print(name, "loads", heavy)
"""
    # fastapi is Airflow's own on some versions; what Airflow's parts for Dags load by themselves is not ours to avoid.
    script = "import airflow.providers.common.compat.sdk, airflow.triggers.base\n" + script
    run = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert [line for line in run.stdout.splitlines() if " loads " in line] == []


# Results and rows: by key, never by position. A line may come in any order, twice or not at all, so that its place says nothing.
JUDGES = frozenset({"Lines", "read_lines", "classify"})
"""What makes outcomes of lines that came from the service."""
ASKED = frozenset({"sealed_keys", "sealed_places", "sealed_requests"})
"""What goes through the rows that were asked, in their order."""
PAIRING = frozenset({"zip", "enumerate", "count"})

KNOWS_THE_ROW_BY = {
    "core.fast_outcomes": "nothing: it judges lines",
    "jobs.lines": "nothing: it reads lines",
    "jobs.strays": "nothing: it counts tokens of lines that land nowhere",
    "jobs.janitor": "nothing: it counts tokens of lines that land nowhere",
    "jobs.rung_ledger": "nothing: it counts tokens of a reply",
    "jobs.segments": "nothing: it counts tokens of lines that we wrote",
    "jobs.aside": "Reconciler",
    "jobs.reading": "Reconciler",
    "jobs.common_ai": "reconcile",
    "jobs.results": "the places that a Reconciler gave to the row",
    "jobs.layers": "the row that we wrote into the line when we asked for it alone",
    "jobs.canary": "the row that we wrote into the line when we asked for it alone",
    "jobs.kept": "the wire key that we wrote into the line",
    "jobs.reuse": "the place that the index of answers has for the row's content",
}
"""Every module that judges lines, and whence it knows whose a line is. Who adds one says it here."""


def called(node: ast.AST) -> set[str]:
    """The bare names of everything that is called in a piece of code."""
    calls = (call.func for call in ast.walk(node) if isinstance(call, ast.Call))
    return {func.attr if isinstance(func, ast.Attribute) else func.id for func in calls if isinstance(func, NAMES)}


NAMES = (ast.Name, ast.Attribute)


def judging(path: Path) -> bool:
    """Whether a module judges lines; there are other ``Lines``, of requests."""
    names = {name.rpartition(".")[2] for name in imported(path) if name.startswith(PACKAGE.name)}
    own = {node.name for node in tree(path).body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    here = {"Lines": "jobs.lines.Lines", "read_lines": "read_lines", "classify": "classify"}
    return any(name in called(tree(path)) and (name in names - own) for name in here)


def beside_each_other(code: ast.Module) -> Iterator[str]:
    """Functions and classes that go through lines of results and through the rows that were asked."""
    for node in ast.walk(code):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and called(node) & JUDGES and called(node) & ASKED:
            yield f"{node.name}, line {node.lineno}"


def by_position(code: ast.Module) -> Iterator[str]:
    """Where the lines of a result file, or what goes through them, are paired or numbered."""
    for node in ast.walk(code):
        if not isinstance(node, ast.FunctionDef) or not called(node) & JUDGES:
            continue
        held = {
            item.optional_vars.id
            for block in ast.walk(node)
            if isinstance(block, ast.With)
            for item in block.items
            if isinstance(item.optional_vars, ast.Name) and called(item.context_expr) & JUDGES
        }
        for call in ast.walk(node):
            if isinstance(call, ast.Call) and isinstance(call.func, NAMES) and called(call) & PAIRING:
                said = {name.id for name in ast.walk(call) if isinstance(name, ast.Name)}
                if said & held or called(call) & JUDGES:
                    yield f"{node.name}, line {call.lineno}: {ast.unparse(call)}"


RESULT_SIDE = [*modules("core"), *modules("jobs"), *modules("storage")]


def test_every_module_that_judges_lines_says_how_it_knows_their_rows() -> None:
    assert {dotted(path).removeprefix(f"{PACKAGE.name}.") for path in modules() if judging(path)} == {*KNOWS_THE_ROW_BY}


@pytest.mark.parametrize("path", RESULT_SIDE, ids=dotted)
def test_no_code_goes_through_results_and_requests_side_by_side(path: Path) -> None:
    assert [*beside_each_other(tree(path)), *by_position(tree(path))] == []


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("Reconciler", {"core.reconcile", "jobs.aside", "jobs.reading"}),
        # ``jobs.reading`` makes again what another process has joined.
        ("Reconciled", {"core.reconcile", "jobs.reading"}),
        ("reconcile", {"jobs.common_ai"}),
        ("parse_wire_key", {"core.reconcile", "jobs.kept", "jobs.reuse_index"}),
    ],
)
def test_lines_get_their_rows_in_few_places(name: str, places: set[str]) -> None:
    found = {dotted(path).removeprefix(f"{PACKAGE.name}.") for path in RESULT_SIDE if name in called(tree(path))}
    assert found == places


@pytest.mark.parametrize(
    "broken",
    [
        """
def rows(store, shard):
    with Lines(store, shard.path, None) as lines:
        for (key, passed), block in zip(sealed_keys(store, shard), lines):
            yield key, block
""",
        """
def rows(store, shard):
    with Lines(store, shard.path, None) as lines:
        for row, block in enumerate(lines):
            yield row, block
""",
        """
class Rows:
    def asked(self, store, shard):
        self.keys = sealed_keys(store, shard)

    def __iter__(self):
        for raw in self.file:
            yield next(self.keys), classify(raw)
""",
        """
def rows(keys, raws):
    return dict(zip(keys, map(lambda raw: classify(raw), raws)))
""",
    ],
)
def test_joining_by_position_would_be_found(broken: str) -> None:
    code = ast.parse(broken)
    assert [*beside_each_other(code), *by_position(code)]


KINDS = {"hooks": "Hook", "operators": "Operator", "sensors": "Sensor", "triggers": "Trigger"}


@pytest.mark.parametrize("kind", KINDS)
def test_provider_info_names_the_modules_that_have_one(kind: str) -> None:
    having = {
        dotted(path)
        for path in modules(kind)
        if any(isinstance(node, ast.ClassDef) and node.name.endswith(KINDS[kind]) for node in tree(path).body)
    }
    [entry] = provider_info.get_provider_info()[kind]  # type: ignore[misc]
    assert set(entry["python-modules"]) == having


@pytest.mark.airflow
def test_the_connection_type_has_its_hook() -> None:
    [connection] = provider_info.get_provider_info()["connection-types"]  # type: ignore[misc]
    module, _, hook = connection["hook-class-name"].rpartition(".")
    assert getattr(importlib.import_module(module), hook).conn_type == connection["connection-type"]


def test_every_library_that_is_imported_is_asked_for() -> None:
    """Also those that Airflow brings: it may stop. Google's and Airflow's own are told apart by the contracts."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = [text for name, text in setup["options.extras_require"].items() if name != "dev"]
    lines = "\n".join([setup["options"]["install_requires"], *extras]).splitlines()
    asked = {re.split(r"[^\w-]", line.strip())[0] for line in lines}
    optional = {"flask_appbuilder", "flask_babel", "wtforms"}  # the connection form of Airflow 3.1, where installed
    known = {*sys.stdlib_module_names, PACKAGE.name, "airflow", "google"}
    roots = {name.partition(".")[0] for path in modules() for name in imported(path)} - known - optional
    assert {root.replace("_", "-") for root in roots} <= asked


def test_the_version_is_the_same_everywhere() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    version = setup["metadata"]["version"]
    released = re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert airflow_provider_geminibatch.__version__ == version
    assert released[0] == version
    assert provider_info.get_provider_info()["versions"] == released
