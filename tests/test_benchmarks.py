"""The benchmarks run, and say what the docs say they say. Small sizes: figures are for people, who run them whole."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("law", ["steady", "bimodal"])
def test_where_the_service_stays_the_same_the_estimate_is_calibrated(law: str) -> None:
    turnaround = loaded("turnaround")
    score = turnaround.backtest(turnaround.month(turnaround.LAWS[law], seed=11))
    assert score.asked > 500
    assert 0.42 < score.share("p50") < 0.6
    assert 0.84 < score.share("p90") < 0.97
    assert 0.9 < score.share("p95") <= 1


def test_the_waiting_benchmark_ends_in_one_object_with_its_figures() -> None:
    script = BENCHMARKS / "waiting.py"
    done = subprocess.run(
        [sys.executable, str(script), "--sizes", "30", "--interval", "1", "--json"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert 0 < said["ratio_requests_at_1000"] < 0.5
    assert {"lag_p99_ms_at_1000", "kib_per_waiter", "resume_s_p50"} < said.keys()
    assert all(run["resumed"] >= 15 for run in said["runs"])


def test_the_request_benchmark_ends_in_one_object_with_its_figures(tmp_path: Path) -> None:
    script = BENCHMARKS / "requests.py"
    done = subprocess.run(
        [sys.executable, str(script), "--rows", "2000", "--rounds", "1", "--folder", str(tmp_path), "--json"],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["ratio_to_sdk_converter"] > said["ratio_to_sdk_types"] > 1
    assert 0 < said["ratio_to_floor"] < 2
    assert 20 < said["peak_rss_mib"] < 200
    assert {"rows_per_s", "lint_lines_per_s", "mb_per_s", "cpu_us_per_row", "cores_rows_per_s"} < said.keys()
    runs = {run["way"]: run for run in said["runs"]}
    assert runs["prepare"]["rows"] == runs["cores"]["rows"] == runs["lint"]["rows"] == 2000
    assert runs["cores"]["all_mib"] > runs["cores"]["peak_mib"]
    assert list(tmp_path.iterdir()) == []


def test_the_results_benchmark_ends_in_one_object_with_its_figures() -> None:
    script = BENCHMARKS / "results.py"
    done = subprocess.run(
        [sys.executable, str(script), "--rows", "400", "--keys", "300000", "--rounds", "1", "--json"],
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    wanted = {"lines_per_s", "ratio_to_sdk_types", "ratio_to_floor", "peak_rss_mib", "reconcile_keys_per_s"}
    assert all(said[name] > 0 for name in wanted)
    assert {run["way"]: run["rows"] for run in said["runs"]}["load"] == 400
