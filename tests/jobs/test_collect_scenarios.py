"""Every misbehaviour of the service that has a name, and what becomes of it. Against the emulator, over HTTP."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from airflow_provider_geminibatch.core.errors import Rejected, ResultsBroken, ResultsNotReady
from airflow_provider_geminibatch.core.landing import Place, RunRef
from airflow_provider_geminibatch.core.model import Owner
from airflow_provider_geminibatch.core.reconcile import LineCounts
from airflow_provider_geminibatch.core.verdict import Thresholds
from airflow_provider_geminibatch.emulator import Emulator, Server, running
from airflow_provider_geminibatch.jobs.collect import Landed, collect
from airflow_provider_geminibatch.jobs.submit import Submitted, read_build, submit
from airflow_provider_geminibatch.storage.landings import FileLanding, read_rows
from airflow_provider_geminibatch.storage.stores import MemoryStore
from tests.jobs.batches import seal
from tests.routes import DEVELOPER, ROUTES, VERTEX, Route

LOG = logging.getLogger("test")
ROWS = 10
LENIENT = Thresholds(max_unresolved=0.9)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    emulator = Emulator(seed=3, start=datetime(2026, 11, 1, tzinfo=UTC), speed=0, turnaround=(2, 3))
    with running(emulator) as server:
        yield server


class World:
    """One batch against an emulator whose clock is stepped."""

    def __init__(self, server: Server, route: Route) -> None:
        self.emulator, self.route = server.emulator, route
        self.emulator.reset()
        self.gateway = route.opened(server.url)
        self.store, self.landing = MemoryStore("memory://w"), MemoryStore("memory://l")

    def submitted(self, *, rows: int = ROWS, schema: dict[str, Any] | None = None) -> None:
        self.manifest = seal(self.store, rows=rows)
        if schema is not None:
            self._ask_for(schema)
        done = submit(
            self.manifest, store=self.store, gateway=self.gateway, me="s", now=self.emulator.clock.now, log=LOG
        )
        assert isinstance(done, Submitted)

    def _ask_for(self, schema: dict[str, Any]) -> None:
        """Seal again, with requests that ask for JSON of that schema."""
        build = read_build(self.store, self.manifest.path)
        lines = [msgspec.json.decode(line) for line in (self.store.read(build.shards[0].path) or b"").splitlines()]
        for line in lines:
            line["request"]["generationConfig"] = {"responseMimeType": "application/json", "responseSchema": schema}
        data = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        sha256 = hashlib.sha256(data).hexdigest()
        shard = msgspec.structs.replace(build.shards[0], size_bytes=len(data), sha256=sha256)
        self.store.write(shard.path, data)
        build = msgspec.structs.replace(build, shards=(shard,), response_schema=schema)
        self.store.write(self.manifest.path, msgspec.json.encode(build))

    def until_the_job_has_ended(self) -> None:
        self.emulator.clock.advance(self.emulator.jobs[0].ends - self.emulator.clock.now())

    def load(self, thresholds: Thresholds = LENIENT, me: str = "l1") -> Landed:
        return collect(
            (self.manifest,), open_store=lambda uri: self.store, gateway=self.gateway,
            landing=Place("notes", "memory://l", "jsonl"), landing_store=FileLanding(self.landing), window="w",
            owner=Owner("dag", "load"), run=RunRef("dag", "run", "load"), thresholds=thresholds, me=me,
            now=self.emulator.clock.now, log=LOG,
            sleep=lambda seconds: self.emulator.clock.advance(timedelta(seconds=seconds)),
        )  # fmt: skip

    def landed(self, **how: Any) -> list[dict[str, Any]]:
        """Submit, wait, load: the rows that landed."""
        self.submitted(**how)
        self.emulator.clock.advance(timedelta(hours=4))
        self.manifest_ = self.load().manifest
        return list(read_rows(self.landing, "w"))


@pytest.fixture(params=ROUTES, ids=str)
def world(request: pytest.FixtureRequest, server: Server) -> Iterator[World]:
    world = World(server, request.param)
    yield world
    world.gateway.close()


@pytest.fixture
def developer_world(server: Server) -> Iterator[World]:
    world = World(server, DEVELOPER)
    yield world
    world.gateway.close()


@pytest.fixture
def vertex_world(server: Server) -> Iterator[World]:
    world = World(server, VERTEX)
    yield world
    world.gateway.close()


def test_without_any_misbehaviour_every_row_has_its_own_answer(world: World) -> None:
    rows = world.landed()
    assert [row["key"] for row in rows] == [f"k{number}" for number in range(ROWS)]
    assert all(f"row {number} " in row["text"] for number, row in enumerate(rows))
    assert {row["outcome"] for row in rows} == {"answer"}


def test_the_cost_is_that_of_the_bill(world: World) -> None:
    rows = world.landed()
    assert sum(row["cost_usd"] for row in rows) == Decimal(world.manifest_.cost_usd or "x")
    assert Decimal(world.manifest_.cost_usd or "x") == Decimal(str(world.emulator.bill()["total_usd"]))


AFFECTED = (0, 3)
VERTEX_WORDS = re.compile(
    r"^(Internal error occurred\. Failed to get generateContentResponse|Bad Request|RESOURCE_EXHAUSTED error occurred): "
)


@pytest.mark.parametrize(
    ("scenario", "settings", "outcome", "error"),
    [
        ("empty", {}, "empty", "no parts"),
        ("blocked", {}, "blocked", "SAFETY, no parts"),
        ("blocked", {"reason": "RECITATION"}, "blocked", "RECITATION, no parts"),
        ("prompt_blocked", {}, "blocked", "prompt blocked: PROHIBITED_CONTENT"),
        ("truncated", {}, "truncated", "MAX_TOKENS"),
        ("thoughts_only", {}, "truncated", "MAX_TOKENS, nothing but thoughts"),
        ("thoughts_only", {"reason": "STOP"}, "empty", "nothing but thoughts"),
        ("missing", {}, "missing", "the result file holds no line for this row"),
        ("keyless", {}, "missing", "the result file holds no line for this row"),
        ("unknown_key", {}, "missing", "the result file holds no line for this row"),
        ("duplicate", {}, "answer", None),
        # An answer filed under the wrong key inside the service cannot be seen.
        ("wrong_answer", {}, "answer", None),
        ("duplicate_differing", {}, "failed", "conflict: 2 lines answer this row and differ"),
        *[
            ("failed_rows", {"codes": (13,), "under": under}, "failed", "Internal error encountered.")
            for under in ("error", "status", "response.error")
        ],
        ("failed_rows", {"codes": (3,)}, "failed", "Request contains an invalid argument."),
        ("failed_rows", {"codes": (7,)}, "failed", "The caller does not have permission"),
        ("failed_rows", {"codes": (8,)}, "failed", "Resource has been exhausted (e.g. check quota)."),
        ("failed_rows", {"codes": (14,)}, "failed", "The service is currently unavailable."),
    ],
)
def test_a_misbehaving_row_gets_its_outcome_and_no_other_row_is_touched(
    world: World, scenario: str, settings: dict[str, Any], outcome: str, error: str | None
) -> None:
    world.emulator.scenario(scenario, rows=AFFECTED, **settings)
    rows = world.landed()
    assert [row["key"] for row in rows] == [f"k{number}" for number in range(ROWS)]
    for number, row in enumerate(rows):
        expected = (outcome, error) if number in AFFECTED else ("answer", None)
        told = row["error"]
        if world.route is VERTEX and scenario == "failed_rows" and told:
            told = VERTEX_WORDS.sub("", told)
        assert (row["outcome"], told) == expected


@pytest.mark.parametrize(
    ("scenario", "lines"),
    [
        ("duplicate", LineCounts(lines=12, duplicates=2)),
        ("duplicate_differing", LineCounts(lines=12, conflicts=2)),
        ("keyless", LineCounts(lines=10, keyless=2)),
        ("unknown_key", LineCounts(lines=10, unknown=2)),
        ("missing", LineCounts(lines=8)),
    ],
)
def test_lines_that_are_no_rows_are_counted_and_kept_aside(world: World, scenario: str, lines: LineCounts) -> None:
    world.emulator.scenario(scenario, rows=AFFECTED)
    world.landed()
    assert world.manifest_.lines == lines


@pytest.mark.parametrize(
    "scenario", ["duplicate", "duplicate_differing", "keyless", "unknown_key", "truncated", "blocked"]
)
def test_the_cost_is_never_below_the_bill(world: World, scenario: str) -> None:
    world.emulator.scenario(scenario, rows=AFFECTED)
    world.landed()
    assert Decimal(world.manifest_.cost_usd or "x") >= Decimal(str(world.emulator.bill()["total_usd"]))


def test_json_that_breaks_off_is_invalid(world: World) -> None:
    world.emulator.scenario("broken_json", rows=AFFECTED)
    felt = {"type": "OBJECT", "properties": {"likely_felt": {"type": "BOOLEAN"}}, "required": ["likely_felt"]}
    rows = world.landed(schema=felt)
    for number, row in enumerate(rows):
        assert row["outcome"] == ("invalid" if number in AFFECTED else "answer")
        assert row["value"] is None if number in AFFECTED else isinstance(row["value"]["likely_felt"], bool)
    assert rows[0]["error"].startswith("not JSON: ")


def test_many_strangers_spoil_the_file(world: World) -> None:
    world.emulator.scenario("unknown_key", rows=(0, 1, 2, 3))
    world.submitted()
    world.emulator.clock.advance(timedelta(hours=4))
    with pytest.raises(ResultsBroken, match="4 of its 10 lines belong to no row"):
        world.load()


def test_rows_in_any_order_land_in_their_own(world: World) -> None:
    world.emulator.scenario("shuffled")
    rows = world.landed()
    assert all(f"row {number} " in row["text"] for number, row in enumerate(rows))


def test_the_shards_of_a_thousand_land_in_order_with_their_own_answers(world: World) -> None:
    rows = world.landed(rows=3500)
    assert [row["key"] for row in rows] == [f"k{number}" for number in range(3500)]
    assert all(f"row {number} " in row["text"] for number, row in enumerate(rows))


def test_a_job_that_succeeded_with_nothing_but_failed_rows_is_rejected(world: World) -> None:
    world.emulator.scenario("all_rows_failed")
    world.submitted()
    world.emulator.clock.advance(timedelta(hours=4))
    with pytest.raises(Rejected, match="0 of 10 answered"):
        world.load(Thresholds(max_unresolved=1.0))


def test_a_cut_download_is_taken_up_again(world: World) -> None:
    world.emulator.scenario("cut_download", times=2)
    assert len(world.landed()) == ROWS
    assert world.manifest_.counts["answer"] == ROWS


def test_an_output_that_comes_later_is_waited_for_a_little_and_then_left_for_the_next_try(world: World) -> None:
    world.emulator.scenario("output_later_than_succeeded", minutes=30)
    world.submitted()
    world.until_the_job_has_ended()
    with pytest.raises(ResultsNotReady) as caught:
        world.load()
    assert caught.value.retryable
    world.emulator.clock.advance(timedelta(minutes=40))
    assert world.load(me="l2").counts["answer"] == ROWS


def test_an_output_that_is_seconds_late_costs_no_try(world: World) -> None:
    world.emulator.scenario("output_later_than_succeeded", minutes=0.1)
    world.submitted()
    world.until_the_job_has_ended()
    assert world.load().counts["answer"] == ROWS


def test_an_output_that_is_named_in_response_only_is_found(world: World) -> None:
    world.emulator.scenario("output_only_in_response")
    assert len(world.landed()) == ROWS


@pytest.mark.parametrize(
    ("scenario", "hours", "error"),
    [
        ("never_finishes", 49, ("job EXPIRED", "job CANCELLED: ")),
        ("job_failed", 4, "job FAILED: Internal error encountered."),
    ],
)
def test_a_job_without_results_rejects_the_window_with_its_reason(
    world: World, scenario: str, hours: int, error: str
) -> None:
    world.emulator.scenario(scenario)
    world.submitted()
    world.emulator.clock.advance(timedelta(hours=hours))
    with pytest.raises(Rejected, match="0 of 10 answered"):
        world.load()
    rows = list(read_rows(world.landing, "w", any_verdict=True))
    assert {row["outcome"] for row in rows} == {"failed"}
    assert rows[0]["error"].startswith(error)


def test_a_second_load_asks_the_service_for_nothing_but_the_deletion(world: World) -> None:
    world.landed()
    before = dict(world.emulator.log.counts())
    world.load(me="l2")
    after = world.emulator.log.counts()
    asked = {name for name in after if after[name] != before.get(name, 0)}
    assert asked <= {world.route.endpoint("files.delete")}


ENDS = [
    ("cut", {"done": 0.6}, "CANCELLED"),
    ("cut", {"done": 0.6, "state": "JOB_STATE_EXPIRED"}, "EXPIRED"),
    ("cut", {"done": 0.6, "state": "JOB_STATE_FAILED"}, "FAILED"),
    ("partially_succeeded", {"done": 0.6}, "PARTIALLY_SUCCEEDED"),
    ("job_failed", {"done": 0.6}, "FAILED"),
]


@pytest.mark.parametrize(("scenario", "settings", "state"), ENDS)
def test_what_a_job_came_to_before_it_ended_badly_lands_and_the_rest_is_missing_with_its_end(
    vertex_world: World, scenario: str, settings: dict[str, Any], state: str
) -> None:
    vertex_world.emulator.scenario(scenario, **settings)
    vertex_world.submitted()
    vertex_world.emulator.clock.advance(timedelta(hours=60))
    landed = vertex_world.load()
    rows = list(read_rows(vertex_world.landing, "w"))
    answered = [row for row in rows if row["outcome"] == "answer"]
    missing = [row for row in rows if row["outcome"] == "missing"]
    assert (len(answered), len(missing)) == (6, 4)
    assert all(f"row {row['key'][1:]} " in row["text"] for row in answered)
    assert {row["error"].startswith(f"job {state}") for row in missing} == {True}
    # What was done is billed, and told.
    assert Decimal(landed.manifest.cost_usd or "x") == Decimal(str(vertex_world.emulator.bill()["total_usd"])) > 0


def test_a_job_that_names_a_place_for_results_and_wrote_none_has_none(vertex_world: World) -> None:
    vertex_world.emulator.scenario("unwritable_output")
    vertex_world.submitted()
    vertex_world.emulator.clock.advance(timedelta(hours=4))
    with pytest.raises(Rejected, match="0 of 10 answered"):
        vertex_world.load()
    rows = list(read_rows(vertex_world.landing, "w", any_verdict=True))
    assert all(row["error"].startswith("job FAILED") for row in rows)


@pytest.mark.parametrize("scenario", ["sharded_output", "incremental_output", "output_decoys"])
def test_only_results_are_read_however_the_output_folder_looks(vertex_world: World, scenario: str) -> None:
    vertex_world.emulator.scenario(scenario)
    rows = vertex_world.landed()
    assert [row["outcome"] for row in rows] == ["answer"] * ROWS
    assert all(f"row {number} " in row["text"] for number, row in enumerate(rows))


def test_results_without_keys_are_never_taken_by_their_place(vertex_world: World) -> None:
    vertex_world.emulator.scenario("extras_dropped")
    vertex_world.submitted()
    vertex_world.emulator.clock.advance(timedelta(hours=4))
    with pytest.raises(Rejected, match="0 of 10 answered"):
        vertex_world.load()


@pytest.mark.parametrize("done", [0.6, 1.0])
def test_a_clear_asks_again_only_for_what_a_job_that_ended_badly_did_not_come_to(
    vertex_world: World, done: float
) -> None:
    world = vertex_world
    world.emulator.scenario("cut", done=done, jobs=(0, 1) if done < 1 else (0,))
    world.manifest = seal(world.store, rows=ROWS)

    def submitted(max_tries: int) -> None:
        end = submit(
            world.manifest, store=world.store, gateway=world.gateway, me=f"s{max_tries}", now=world.emulator.clock.now, log=LOG,
            task="dag.submit", max_tries=max_tries, later_try=max_tries > 0,
        )  # fmt: skip
        assert isinstance(end, Submitted)
        world.emulator.clock.advance(timedelta(hours=60))

    for max_tries in (0, 1, 2):  # the first try, and two clears
        submitted(max_tries)

    rows = (world.load().manifest, list(read_rows(world.landing, "w")))[1]
    assert [row["key"] for row in rows] == [f"k{number}" for number in range(ROWS)]
    assert {row["outcome"] for row in rows} == {"answer"}
    assert all(f"row {row['key'][1:]} " in row["text"] for row in rows)
    asked = [job.rows.count for job in world.emulator.jobs]
    assert asked == (
        [10, 4, 2] if done < 1 else [10, 1]
    )  # a shard that is sent once more has a job, if only for one row
    manifest = world.load(me="l2").manifest
    assert Decimal(manifest.cost_usd or "x") == Decimal(str(world.emulator.bill()["total_usd"]))
    assert sum(entry["requests"] for entry in world.emulator.bill()["entries"]) == ROWS + (done == 1)
