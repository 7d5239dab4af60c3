"""A million rows before a service that misbehaves in every way at once: every row has one outcome, and the numbers are its own.

The emulator says what it did to which rows; from that alone it is worked out here what has to land.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from airflow_provider_geminibatch.emulator.scenarios import SCENARIOS
from airflow_provider_geminibatch.emulator.switches import Scenarios, parse_scenario
from tests.routes import BUCKET, DEVELOPER, ROUTES, VERTEX, Route, both
from tests.scale.scenarios_road import POISON, SHARD_ROWS

pytestmark = pytest.mark.scale

ROWS, SEED = 1_000_000, 7
# Rows and rows in a shard. On Vertex AI more can become of a job, so there are more of them.
SMALL = {DEVELOPER: (12 * SHARD_ROWS, SHARD_ROWS), VERTEX: (20 * 5_000, 5_000)}
MIB = 1 << 20

# What befalls jobs, by the number of the create that made them.
_JOBS = (
    "listed_late:hours=0.2,jobs=1/4", "unknown_state:jobs=2,hours=3", "job_failed:jobs=3", "never_finishes:jobs=5",
    "output_later_than_succeeded:jobs=6,minutes=45", "late:jobs=7,hours=30",
    "foreign_job_same_name:jobs=0/9,model=gemini-3.7-flash",
)  # fmt: skip
_ROWS = (
    "failed_rows:fraction=0.01", "all_rows_failed:fraction=0.002", "empty:fraction=0.005", "blocked:fraction=0.005",
    "prompt_blocked:fraction=0.005", "truncated:fraction=0.01", "broken_json:fraction=0.005", "thoughts_only:fraction=0.005",
    "wrong_answer:fraction=0.005", "missing:fraction=0.005", "keyless:fraction=0.003", "unknown_key:fraction=0.003",
    "no_total_tokens:fraction=0.01", f"opaque_refusal:marker={POISON}",
)  # fmt: skip
_TWICE = ("duplicate:fraction=0.01", "duplicate_differing:fraction=0.003")
# An endpoint has the name that the Developer API gives it.
_CALLS = (
    "burst_429:endpoint=batches.create,times=4,after=2,retry_after=1", "burst_429:endpoint=files.start,times=2",
    "burst_503:endpoint=batches.get,times=3,retry_after=1", "burst_503:endpoint=files.download,times=3,after=2",
    "refused_calls:endpoint=batches.get,times=2,after=9,code=500", "dropped_calls:endpoint=batches.get,times=2,after=5",
    "dropped_calls:endpoint=files.download,times=2,after=7", "slow_replies:endpoint=batches.get,times=2,seconds=0.2",
    "create_reply_lost:after=3", "create_500_but_created:after=5", "create_not_accepted_connection_dropped:after=7",
    "cut_download:times=6", "cut_download:times=4,after=4,at=0.9", "download_without_ranges:times=2,after=1",
    "download_without_length:times=3,after=2", "list_stale_stats", "list_empty_page_with_token:times=2",
    "empty_list_without_page_size",
)  # fmt: skip
# The job of Vertex AI that is charged and leaves nothing that can be read; it ends last of all, so its charge can be told.
UNREAD = 13
# The job of Vertex AI whose answers come back without their keys.
DROPPED = 17
# It has no row twice: more lines without a key than it has rows would be reason to distrust it as a whole, which nothing lands of.
_OTHERS = "/".join(str(number) for number in range(ROWS // SHARD_ROWS) if number != DROPPED)
ON = {
    DEVELOPER: (*_JOBS, "shuffled", "output_only_in_response:jobs=8", *_ROWS, *_TWICE, *_CALLS, "mime_refused"),
    VERTEX: (
        *_JOBS, "job_failed:jobs=8,done=0.5", "queued:jobs=10,hours=80", "cut:jobs=11", "partially_succeeded:jobs=12",
        f"unwritable_output:jobs={UNREAD}", f"queued:jobs={UNREAD},hours=71", "sharded_output:jobs=11/14",
        "incremental_output:jobs=7/11/14", "output_decoys:jobs=12/14", "numeric_extras:jobs=0/12/14/16",
        f"extras_dropped:jobs={DROPPED}", *_ROWS, *(f"{text},jobs={_OTHERS}" for text in _TWICE),
        *_CALLS, "upload_reply_lost:times=2,after=3",
        "burst_503:endpoint=storage.chunk,times=2,after=1", "dropped_calls:endpoint=storage.chunk,times=2,after=4",
        "dropped_calls:endpoint=storage.list,times=1,after=2",
    ),
}  # fmt: skip
# How jobs end that do not succeed.
BADLY = {
    DEVELOPER: {"FAILED": 1, "EXPIRED": 1},
    VERTEX: {"FAILED": 4, "CANCELLED": 2, "EXPIRED": 1, "PARTIALLY_SUCCEEDED": 1},
}
ENDPOINTS = {"files.start": "storage.upload"}
_NOWHERE = {
    "cache_reply_lost": "there are no prompt caches in this run",
    "usage_metadata": "a form of embeddings",
    "slow_media": "there are no media in these rows",
    "failed_media": "there are no media in these rows",
    "short_vector": "a form of embeddings",
}
ON_VERTEX = "befalls the jobs of Vertex AI alone"
ELSEWHERE = {
    DEVELOPER: {
        **_NOWHERE,
        **dict.fromkeys(("queued", "cut", "partially_succeeded", "unwritable_output", "sharded_output"), ON_VERTEX),
        **dict.fromkeys(("incremental_output", "output_decoys", "numeric_extras", "extras_dropped"), ON_VERTEX),
        "upload_reply_lost": "befalls Cloud Storage",
    },
    VERTEX: {
        **_NOWHERE,
        "shuffled": "Vertex AI keeps no order, whether it is on or not",
        "output_only_in_response": "a job of Vertex AI is no operation and has no response",
        "mime_refused": "befalls the files of the Developer API",
    },
}


@both
def test_no_scenario_is_forgotten(route: Route) -> None:
    on = {text.partition(":")[0] for text in ON[route]}
    assert on | ELSEWHERE[route].keys() == set(SCENARIOS)
    assert not on & ELSEWHERE[route].keys()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scenarios")


@pytest.fixture(scope="module")
def service(place: Path) -> Iterator[str]:
    """The emulator in a process of its own, so that its memory is not ours. Its clock is moved by hand."""
    command = [
        sys.executable, "-m", "airflow_provider_geminibatch.cli", "emulator", "--port", "0", "--quiet", "--speed", "0",
        "--start", "2026-11-01T00:00:00Z", "--turnaround", "1:2", "--seed", str(SEED), "--state-dir", str(place),
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
        if not job["came_to"]:
            outcomes["failed"] += job["rows"]
            continue
        # What a job that ended badly did not come to is not in what it left.
        outcomes["missing"] += job["rows"] - job["came_to"]
        usual = job["came_to"] - sum(each["rows"] for each in job["effects"])
        for names, rows in [*((each["scenarios"], each["rows"]) for each in job["effects"]), ((), usual)]:
            outcome, left = expected([*names, *job["bent"]], rows)
            outcomes[outcome] += rows
            lines.update(left)
    # The rows of jobs that never read them: refused or failed for the poisoned one, or expired in the queue.
    outcomes["failed"] += asked - jobs
    return outcomes, lines


def switched_on(route: Route) -> Iterator[tuple[str, dict[str, str]]]:
    """The scenarios of a run with their settings, endpoints by the names that they have on the route."""
    for name, settings in map(parse_scenario, ON[route]):
        endpoint = settings.get("endpoint", "")
        names = {"endpoint": ENDPOINTS.get(endpoint, route.endpoint(endpoint)) if route is VERTEX else endpoint}
        yield name, {**settings, **(names if endpoint else {})}


def _effects_of(job: dict[str, Any], display_name: str) -> list[dict[str, Any]]:
    """What befell the rows that a job of Vertex AI came to, where those are not all: it comes to them in an order of its own."""
    scenarios = Scenarios(SEED)
    for name, settings in switched_on(VERTEX):
        scenarios.switch_on(name, **settings)
    choose = scenarios.row_chooser(job["ordinal"], display_name)
    order = list(range(job["rows"]))
    Random(f"{SEED}/{job['name'].rpartition('/')[2]}").shuffle(order)
    befallen = [tuple(sorted(choose(index, "", ""))) for index in order]
    told = {tuple(each["scenarios"]): each["rows"] for each in job["effects"]}
    assert Counter(filter(None, befallen)) == told
    came_to = Counter(filter(None, befallen[: job["came_to"]]))
    return [{"scenarios": names, "rows": rows} for names, rows in came_to.items()]


def _recorded(route: Route, control: httpx.Client) -> dict[str, Any]:
    """The service's record, with how many rows each job left answers to, and what befell those."""
    jobs = control.get("/effects").json()["jobs"]
    shown = {job["name"]: job for job in control.get("/jobs").json()["jobs"]}
    for job in jobs:
        job["state"] = job["state"].partition("STATE_")[2]
        job["came_to"], job["bent"] = job["rows"] if job["state"] == "SUCCEEDED" else 0, []
        if route is VERTEX:
            counts = shown[job["name"]].get("completionStats", {})
            done = sum(int(counts.get(name, 0)) for name in ("successfulCount", "failedCount"))
            job["came_to"] = 0 if job["ordinal"] == UNREAD else done
            job["bent"] = ["keyless"] if job["ordinal"] == DROPPED else []
            if 0 < done < job["rows"]:
                job["effects"] = _effects_of(job, shown[job["name"]]["displayName"])
    return {"jobs": jobs}


def _road(route: Route, url: str, place: Path, rows: int, shard_rows: int) -> dict[str, Any]:
    """Prepare, submit, wait and load in a fresh process, before the misbehaving service; what it took and what landed."""
    with httpx.Client(base_url=f"{url}/_emulator", timeout=600) as control:
        control.post("/reset").raise_for_status()
        for name, settings in switched_on(route):
            control.post("/scenarios", json={"name": name, **settings}).raise_for_status()
        script = Path(__file__).with_name("scenarios_road.py")
        done = subprocess.run(
            [sys.executable, str(script), route.name, url, str(place), str(rows), str(shard_rows)],
            capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(script.parents[2])},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-4000:]
        seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        left = [one for one in control.get("/scenarios").json()["on"] if one.get("left")]
        objects = control.get(f"{url}/storage/v1/b/{BUCKET}/o").json().get("items", ()) if route is VERTEX else ()
        return seen | {
            "record": _recorded(route, control), "bill": control.get("/bill").json(), "left": left,
            "objects": Counter(each["name"].rpartition("/")[2] for each in objects),
        }  # fmt: skip


def _reconciles(route: Route, seen: dict[str, Any]) -> None:
    rows, shards = seen["rows"], seen["shards"]
    outcomes, lines = reckoned(seen["record"], rows)
    # Every call that was to go wrong did.
    assert not seen["left"]
    if route is VERTEX:
        # What was to lie beside results, or in their place, lay there.
        beside = ("incremental_predictions.jsonl", "predictions.jsonl-00000-of-00003", "row_count.json")
        assert all(seen["objects"][name] >= 2 for name in beside)
    # One job for each shard that was not refused, whatever was lost on the way.
    assert seen["jobs"] == len(seen["record"]["jobs"]) == shards - (route is DEVELOPER)
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
    assert seen["states"] == Counter(job["state"] for job in seen["record"]["jobs"])
    assert seen["states"] == {"SUCCEEDED": seen["jobs"] - sum(BADLY[route].values()), **BADLY[route]}
    batch = next(
        one for one in seen["bill"]["entries"] if (one["route"], one["model"]) == ("batch", "gemini-3.8-flash")
    )
    unread = _unread_usd(seen["bills"]) if route is VERTEX else 0
    assert Decimal(seen["cost_usd"]) == Decimal(batch["usd"]) - unread == Decimal(seen["report_cost_usd"])
    # Each part holds neighbouring rows, each of them once.
    ranges = sorted(tuple(map(int, text.split("-"))) for text in seen["keys"])
    assert [(low, high) for low, high, _, _ in ranges] == [
        (low, min(low + 1_000_000, rows) - 1) for low in range(0, rows, 1_000_000)
    ]
    assert all(distinct == count == high - low + 1 for low, high, distinct, count in ranges)


def _unread_usd(bills: Sequence[tuple[int, str]]) -> Decimal:
    """What was charged for the job whose results could not be written: the last of the charges."""
    (charges, before), (all_charges, after) = bills[-2:]
    assert all_charges == charges + 1
    return Decimal(after) - Decimal(before)


def _print(route: Route, seen: dict[str, Any]) -> None:
    print(
        f"\n{route}, {seen['rows']:>9,} rows: prepare {seen['prepare_s']:.1f} s, submit {seen['submit_s']:.1f} s, "
        f"wait {seen['wait_s']:.1f} s, load {seen['load_s']:.1f} s, peak {seen['peak_bytes'] / MIB:.0f} MiB; "
        f"{seen['kinds']}, {seen['lines']}, {seen['states']}, retried {seen['tries']}"
    )


@pytest.fixture(scope="module", params=ROUTES, ids=str)
def route(request: pytest.FixtureRequest) -> Route:
    found: Route = request.param
    return found


@pytest.fixture(scope="module")
def small(route: Route, service: str, place: Path) -> dict[str, Any]:
    return _road(route, service, place / f"{route}-small", *SMALL[route])


def test_every_row_has_one_outcome_whatever_the_service_does(
    route: Route, small: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        _print(route, small)
    _reconciles(route, small)


def test_a_million_rows_have_one_outcome_each_in_flat_memory(
    route: Route, small: dict[str, Any], service: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large = _road(route, service, place / f"{route}-large", ROWS, SHARD_ROWS)
    with capsys.disabled():
        _print(route, large)
    _reconciles(route, large)
    assert large["peak_bytes"] < small["peak_bytes"] + 150 * MIB
