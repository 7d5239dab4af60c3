"""A million rows before a service that misbehaves in every way at once: every row has one outcome, and the numbers are its own.

The emulator says what it did to which rows; from that alone it is worked out here what has to land.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from airflow_provider_geminibatch.emulator.scenarios import SCENARIOS
from tests.scale.scenarios_road import POISON, SHARD_ROWS

pytestmark = pytest.mark.scale

ROWS = 1_000_000
MIB = 1 << 20

ON = (
    # What befalls jobs, by the number of the create that made them.
    "shuffled", "listed_late:hours=0.2,jobs=1/4", "unknown_state:jobs=2,hours=3", "job_failed:jobs=3",
    "never_finishes:jobs=5", "output_later_than_succeeded:jobs=6,minutes=45", "late:jobs=7,hours=30",
    "output_only_in_response:jobs=8", "foreign_job_same_name:jobs=0/9,model=gemini-3.7-flash",
    # What befalls rows.
    "failed_rows:fraction=0.01", "all_rows_failed:fraction=0.002", "empty:fraction=0.005", "blocked:fraction=0.005",
    "prompt_blocked:fraction=0.005", "truncated:fraction=0.01", "broken_json:fraction=0.005", "thoughts_only:fraction=0.005",
    "wrong_answer:fraction=0.005", "missing:fraction=0.005", "duplicate:fraction=0.01", "duplicate_differing:fraction=0.003",
    "keyless:fraction=0.003", "unknown_key:fraction=0.003", "no_total_tokens:fraction=0.01", f"opaque_refusal:marker={POISON}",
    # What befalls calls.
    "burst_429:times=4,after=2,retry_after=1", "burst_429:endpoint=files.start,times=2", "burst_503:times=3,retry_after=1",
    "burst_503:endpoint=files.download,times=3,after=2", "refused_calls:endpoint=batches.get,times=2,after=9,code=500",
    "dropped_calls:times=2,after=5", "dropped_calls:endpoint=files.download,times=2,after=7",
    "slow_replies:endpoint=batches.get,times=2,seconds=0.2", "create_reply_lost:after=3", "create_500_but_created:after=5",
    "create_not_accepted_connection_dropped:after=7", "cut_download:times=6", "cut_download:times=4,after=9,at=0.9",
    "download_without_ranges:times=2,after=1", "download_without_length:times=3,after=2", "mime_refused",
    "list_stale_stats", "list_empty_page_with_token:times=2", "empty_list_without_page_size",
)  # fmt: skip
ON_VERTEX = "befalls the jobs of Vertex AI alone"
ELSEWHERE = {
    **dict.fromkeys(("queued", "cut", "partially_succeeded", "unwritable_output", "sharded_output"), ON_VERTEX),
    **dict.fromkeys(("incremental_output", "output_decoys", "numeric_extras", "extras_dropped"), ON_VERTEX),
    "upload_reply_lost": "befalls Cloud Storage",
    "cache_reply_lost": "there are no prompt caches in this run",
    "usage_metadata": "a form of embeddings",
    "slow_media": "there are no media in these rows",
    "failed_media": "there are no media in these rows",
    "short_vector": "a form of embeddings",
}


def test_no_scenario_is_forgotten() -> None:
    on = {text.partition(":")[0] for text in ON}
    assert on | (ELSEWHERE.keys() & SCENARIOS.keys()) == set(SCENARIOS)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scenarios")


@pytest.fixture(scope="module")
def service(place: Path) -> Iterator[str]:
    """The emulator in a process of its own, so that its memory is not ours. Its clock is moved by hand."""
    command = [
        sys.executable, "-m", "airflow_provider_geminibatch.cli", "emulator", "--port", "0", "--quiet", "--speed", "0",
        "--start", "2026-11-01T00:00:00Z", "--turnaround", "1:2", "--state-dir", str(place),
    ]  # fmt: skip
    emulator = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert emulator.stdout is not None
    try:
        yield emulator.stdout.readline().strip()
    finally:
        emulator.terminate()
        emulator.wait(10)
        emulator.stdout.close()


# What makes an outcome, by scenario; a later one bends what an earlier one made.
_OUTCOME = {
    "wrong_answer": "answer",
    "truncated": "truncated",
    "broken_json": "broken",
    "thoughts_only": "truncated",
    "empty": "empty",
    "blocked": "blocked",
    "prompt_blocked": "blocked",
    "failed_rows": "failed",
    "all_rows_failed": "failed",
}


def expected(names: Collection[str], rows: int) -> tuple[str, Counter[str]]:
    """The outcome of rows that so many scenarios befell, and the lines that they leave."""
    if "missing" in names:
        return "missing", Counter()
    lines = 1 + ("duplicate" in names) + ("duplicate_differing" in names)
    found = Counter(lines=lines * rows)
    for stray in ("keyless", "unknown_key"):
        if stray in names:
            return "missing", found + Counter({stray.removesuffix("_key"): lines * rows})
    if "duplicate_differing" in names:
        return "failed", found + Counter(conflicts=rows)
    told = [outcome for name, outcome in _OUTCOME.items() if name in names]
    return (told[-1] if told else "answer"), found + Counter(duplicates=(lines - 1) * rows)


def reckoned(record: dict[str, Any], asked: int) -> tuple[Counter[str], Counter[str]]:
    """Rows by outcome and lines by kind, from the service's record of what it did."""
    outcomes, lines, jobs = Counter[str](), Counter[str](), 0
    for job in record["jobs"]:
        jobs += job["rows"]
        if job["state"] != "BATCH_STATE_SUCCEEDED":
            outcomes["failed"] += job["rows"]
            continue
        usual = job["rows"] - sum(each["rows"] for each in job["effects"])
        for names, rows in [*((each["scenarios"], each["rows"]) for each in job["effects"]), ((), usual)]:
            outcome, left = expected(names, rows)
            outcomes[outcome] += rows
            lines.update(left)
    # The shard with the poisoned row was refused as a whole.
    outcomes["failed"] += asked - jobs
    return outcomes, lines


def _road(url: str, place: Path, rows: int, shard_rows: int = SHARD_ROWS) -> dict[str, Any]:
    """Prepare, submit, wait and load in a fresh process, before the misbehaving service; what it took and what landed."""
    with httpx.Client(base_url=f"{url}/_emulator", timeout=600) as control:
        control.post("/reset").raise_for_status()
        for text in ON:
            name, _, given = text.partition(":")
            settings = dict(piece.split("=", 1) for piece in given.split(",") if piece)
            control.post("/scenarios", json={"name": name, **settings}).raise_for_status()
        script = Path(__file__).with_name("scenarios_road.py")
        done = subprocess.run(
            [sys.executable, str(script), url, str(place), str(rows), str(shard_rows)],
            capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(script.parents[2])},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-4000:]
        seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return seen | {"record": control.get("/effects").json(), "bill": control.get("/bill").json()}


def _reconciles(seen: dict[str, Any]) -> None:
    rows, shards = seen["rows"], seen["shards"]
    outcomes, lines = reckoned(seen["record"], rows)
    # One job for each shard but the refused one, whatever was lost on the way.
    assert seen["jobs"] == shards - 1 == len(seen["record"]["jobs"])
    assert sum(seen["counts"].values()) == sum(seen["kinds"].values()) == rows
    landed = Counter(seen["kinds"])
    repaired = landed.pop("answer repaired", 0)
    assert landed.pop("invalid", 0) + repaired == outcomes.pop("broken", 0)
    assert landed == outcomes
    assert seen["report"] == {kind: count for kind, count in seen["counts"].items() if count}
    assert {name: seen["lines"][name] for name in ("lines", "duplicates", "conflicts", "unknown", "keyless")} == {
        name: lines[name] for name in ("lines", "duplicates", "conflicts", "unknown", "keyless")
    }
    assert seen["lines"]["unreadable"] == 0
    assert seen["states"] == {"SUCCEEDED": shards - 3, "FAILED": 1, "EXPIRED": 1}
    batch = next(
        one for one in seen["bill"]["entries"] if (one["route"], one["model"]) == ("batch", "gemini-3.8-flash")
    )
    assert Decimal(seen["cost_usd"]) == Decimal(batch["usd"]) == Decimal(seen["report_cost_usd"])
    # Each part holds neighbouring rows, each of them once.
    ranges = sorted(tuple(map(int, text.split("-"))) for text in seen["keys"])
    assert [(low, high) for low, high, _, _ in ranges] == [
        (low, min(low + 1_000_000, rows) - 1) for low in range(0, rows, 1_000_000)
    ]
    assert all(distinct == count == high - low + 1 for low, high, distinct, count in ranges)


@pytest.fixture(scope="module")
def small(service: str, place: Path) -> dict[str, Any]:
    return _road(service, place / "small", 12 * SHARD_ROWS)


def _print(seen: dict[str, Any]) -> None:
    print(
        f"\n{seen['rows']:>9,} rows: prepare {seen['prepare_s']:.1f} s, submit {seen['submit_s']:.1f} s, "
        f"wait {seen['wait_s']:.1f} s, load {seen['load_s']:.1f} s, peak {seen['peak_bytes'] / MIB:.0f} MiB; "
        f"{seen['kinds']}, {seen['lines']}, retried {seen['tries']}"
    )


def test_every_row_has_one_outcome_whatever_the_service_does(
    small: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        _print(small)
    _reconciles(small)


def test_a_million_rows_have_one_outcome_each_in_flat_memory(
    small: dict[str, Any], service: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large = _road(service, place / "large", ROWS)
    with capsys.disabled():
        _print(large)
    _reconciles(large)
    assert large["peak_bytes"] < small["peak_bytes"] + 150 * MIB
