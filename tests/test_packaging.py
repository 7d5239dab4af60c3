"""The wheel as a user gets it: built from a clean copy, installed alone, found by Airflow."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.wheel]

ROOT = Path(__file__).parent.parent
VALIDATE = """
import json, pathlib, jsonschema, airflow
from airflow_provider_geminibatch.provider_info import get_provider_info
schema = json.loads((pathlib.Path(airflow.__file__).parent / "provider_info.schema.json").read_text())
jsonschema.validate(get_provider_info(), schema)
"""


def run(*command: str | Path, **environment: str) -> str:
    """What a command prints, run as a user would: without the settings of the test run."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env=inherited | environment, timeout=600
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy without the leftovers of earlier builds, and with all that must stay outside."""
    source, out = tmp_path_factory.mktemp("source") / "checkout", tmp_path_factory.mktemp("wheel")
    leftovers = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, ignore=leftovers)
    run(sys.executable, "-m", "build", "--wheel", "--outdir", out, source)
    [built] = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment that holds the wheel, what it asks for, and no extras."""
    environment = tmp_path_factory.mktemp("clean") / "venv"
    run(sys.executable, "-m", "venv", environment)
    constraints = ROOT / "constraints" / "airflow-3.3.txt"
    uv = Path(sys.executable).with_name("uv")
    run(uv, "pip", "install", "--quiet", "-c", constraints, wheel, VIRTUAL_ENV=str(environment))
    return environment / "bin"


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {
        "airflow_provider_geminibatch",
        "airflow_provider_geminibatch-0.1.0.dist-info",
    }
    assert "airflow_provider_geminibatch/py.typed" in names
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in names)
    package = ROOT / "airflow_provider_geminibatch"
    sources = {
        str(path.relative_to(ROOT)) for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    assert sources <= set(names), "files of the package that the wheel lacks"


def test_airflow_finds_the_provider(installed: Path, tmp_path: Path) -> None:
    providers = json.loads(run(installed / "airflow", "providers", "list", "-o", "json", AIRFLOW_HOME=str(tmp_path)))
    ours = {row["package_name"]: row["version"] for row in providers}
    assert ours["airflow-provider-geminibatch"] == "0.1.0"


def test_airflow_offers_the_connection_type(installed: Path, tmp_path: Path) -> None:
    hooks = json.loads(run(installed / "airflow", "providers", "hooks", "-o", "json", AIRFLOW_HOME=str(tmp_path)))
    [ours] = [row for row in hooks if row["connection_type"] == "geminibatch"]
    assert ours["class"] == "airflow_provider_geminibatch.hooks.gemini_batch.GeminiBatchHook"


def test_provider_info_is_what_airflow_expects(installed: Path, tmp_path: Path) -> None:
    run(installed / "python", "-c", VALIDATE, AIRFLOW_HOME=str(tmp_path))


def test_the_command_works(installed: Path, tmp_path: Path) -> None:
    assert "usage" in run(installed / "geminibatch", "--help", AIRFLOW_HOME=str(tmp_path)).lower()
