"""Load: the same rows whatever happens in between, and a window that is replaced whole or not at all."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest

from airflow_provider_geminibatch.core.errors import (
    GeminiBatchError,
    NotOwner,
    Rejected,
    ResultsBroken,
    ResultsNotReady,
    StoreUnreadable,
    Unusable,
)
from airflow_provider_geminibatch.core.landing import Closed, Committed, Place, ResultsSeal, RunRef
from airflow_provider_geminibatch.core.ledger import (
    Absent,
    Claim,
    Fact,
    JobNamed,
    Refusal,
    Sending,
    Uploaded,
    attempt_path,
)
from airflow_provider_geminibatch.core.manifest import Manifest
from airflow_provider_geminibatch.core.model import BatchId, Build, JobSnapshot, Owner
from airflow_provider_geminibatch.core.verdict import Thresholds
from airflow_provider_geminibatch.jobs.collect import Landed, collect
from airflow_provider_geminibatch.jobs.submit import Submitted, read_build, submit
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.landings import FileLanding, commit, read_manifest, read_rows
from airflow_provider_geminibatch.storage.stores import LocalStore, MemoryStore
from airflow_provider_geminibatch.testing import InMemoryGateway, ManualClock, echo
from tests.faults import WAYS, Crash, FaultyGateway, FaultyStore, Plan
from tests.jobs.batches import BATCH, seal

LOG = logging.getLogger("test")
WINDOW = "20260101T000000Z"
G1 = "batches/dag/run/prepare/map=-1/g0001"


class World:
    """A submitted batch, a service, a landing and a clock."""

    def __init__(self, *, shards: int = 1, rows: int = 2, submitted: bool = True, **service: Any) -> None:
        self.clock = ManualClock()
        self.store, self.landing = MemoryStore("memory://w"), MemoryStore("memory://landing")
        self.service = InMemoryGateway(self.clock, turnaround=timedelta(hours=3), **service)
        self.manifest = seal(self.store, shards=shards, rows=rows)
        if submitted:
            self.submit(self.manifest)
            self.clock.advance(timedelta(hours=4))

    def submit(self, manifest: Manifest) -> None:
        done = submit(manifest, store=self.store, gateway=self.service, me="s", now=self.clock, log=LOG)
        assert isinstance(done, Submitted)

    @property
    def build(self) -> Build:
        return read_build(self.store, self.manifest.path)

    def load(self, *manifests: Manifest, plan: Plan | None = None, me: str = "l1", **changes: Any) -> Landed:
        plan = plan or Plan()
        workspace, landing = FaultyStore(self.store, plan), FaultyStore(self.landing, plan)
        arguments: dict[str, Any] = {
            "landing": Place("notes", "memory://landing", "jsonl"), "window": WINDOW, "owner": Owner("dag", "load"),
            "run": RunRef("dag", "run", "load"), "thresholds": Thresholds(), "landing_store": FileLanding(landing),
        } | changes  # fmt: skip
        return collect(
            manifests or (self.manifest,), open_store=lambda uri: workspace, gateway=FaultyGateway(self.service, plan),
            me=me, now=self.clock, log=LOG,
            sleep=lambda seconds: self.clock.advance(timedelta(seconds=seconds)), **arguments,
        )  # fmt: skip

    def rows(self, window: str = WINDOW, **how: Any) -> list[dict[str, Any]]:
        return list(read_rows(self.landing, window, **how))

    def fact(self, path: str, kind: type[Fact]) -> Any:
        return fact_store.get(self.store, path, kind)

    def put(self, shard: int, attempt: int, name: str, fact: Fact) -> None:
        fact_store.put(self.store, attempt_path(self.build.shards[shard].ledger, attempt, name), fact)


def answering(**by_text: dict[str, Any]) -> Callable[[Any], dict[str, Any]]:
    """An answer function that says something else to some rows (``row_0=…``)."""

    def answer(request: Any) -> dict[str, Any]:
        text = request["contents"][0]["parts"][0]["text"]
        return by_text.get(text.replace(" ", "_"), echo(request))

    return answer


BLOCKED = {"promptFeedback": {"blockReason": "SAFETY"}}


def test_every_row_lands_with_its_own_answer() -> None:
    world = World(shards=2, rows=3)
    landed = world.load()
    assert [(row["key"], row["text"], row["outcome"]) for row in world.rows()] == [
        (f"k{number}", f"row {number}", "answer") for number in range(6)
    ]
    assert landed.counts["answer"] == landed.manifest.rows == 6
    assert landed.manifest.passes


def test_the_manifest_says_what_it_took_and_what_it_cost() -> None:
    world = World(shards=2, rows=3)
    landed = world.load()
    assert landed.manifest.turnaround_s == {"p50": 10800.0, "max": 10800.0}
    # Six rows of two tokens in and two out: 12 * 0.375 + 12 * 1.875, in millionths.
    assert landed.cost_usd == Decimal("0.000027") == sum(row["cost_usd"] for row in world.rows())
    assert [job.state for job in landed.manifest.jobs] == ["SUCCEEDED", "SUCCEEDED"]
    assert landed.extra["cost_usd"] == "0.000027"
    assert landed.manifest.submitted_at == world.service.created[0].created_at


def test_an_unknown_price_is_said_and_never_zero(caplog: pytest.LogCaptureFixture) -> None:
    world = World(submitted=False)
    world.service = InMemoryGateway(world.clock, models=("gemini-9-flash",))
    world.manifest = seal(world.store, model="gemini-9-flash", batch=BatchId("dag", "run 9", "prepare"))
    world.submit(world.manifest)
    world.clock.advance(timedelta(hours=4))
    assert world.load().cost_usd is None
    assert [row["cost_usd"] for row in world.rows()] == [None, None]
    assert "no price is known for gemini-9-flash" in caplog.text


def test_a_second_load_downloads_nothing_and_commits_the_same() -> None:
    world = World()
    first = world.load()
    world.service.download = None  # type: ignore[assignment, method-assign]
    world.service.job = None  # type: ignore[assignment, method-assign]
    world.clock.advance(timedelta(days=60))
    assert world.load(me="l2").manifest == first.manifest


def test_a_running_job_is_not_ready_and_nothing_is_written() -> None:
    world = World(submitted=False)
    world.submit(world.manifest)
    with pytest.raises(ResultsNotReady, match="batches/000000: it has not ended"):
        world.load()
    assert list(world.landing.list("")) == []


def test_a_shard_that_was_never_sent_is_not_ready() -> None:
    world = World(submitted=False)
    with pytest.raises(ResultsNotReady, match="shard 0 of build b1: it is not a job yet"):
        world.load()


def test_a_job_without_results_gives_all_its_rows_the_reason() -> None:
    world = World(shards=2, rows=10)
    world.service.cancel = lambda name: None  # type: ignore[method-assign]
    asked = world.service.job

    def one_expired(name: str) -> JobSnapshot:
        job = asked(name)
        if name != "batches/000001":
            return job
        return msgspec.structs.replace(job, state="EXPIRED", output_file="", error_code=4, error_text="too late")

    world.service.job = one_expired  # type: ignore[method-assign]
    landed = world.load(thresholds=Thresholds(max_unresolved=0.5))
    assert (landed.counts["answer"], landed.counts["failed"]) == (10, 10)
    rows = world.rows()
    assert [row["key"] for row in rows] == [f"k{number}" for number in range(20)]
    assert {(row["error"], row["code"]) for row in rows[10:]} == {("job EXPIRED: too late", 4)}


def test_a_refused_shard_gives_all_its_rows_the_refusal() -> None:
    world = World(submitted=False)
    at, service = world.clock(), world.service.identity
    world.put(0, 1, "claim", Claim(owner="s", at=at, display_name="d", service=service))
    world.put(0, 1, "refused", Refusal(owner="s", at=at, code=400, text="Error on line 1"))
    with pytest.raises(Rejected):
        world.load()
    rows = world.rows(any_verdict=True)
    assert [(row["outcome"], row["error"]) for row in rows] == [
        ("failed", "refused by the service (400): Error on line 1")
    ] * 2


def test_below_its_thresholds_a_window_lies_apart_and_the_error_has_the_numbers() -> None:
    world = World(rows=4, answer=answering(row_0=BLOCKED, row_1=BLOCKED))
    with pytest.raises(
        Rejected, match=r"2 of 4 answered; 2 unresolved \(50 %, at most 5 % allowed\): 2 blocked"
    ) as caught:
        world.load()
    assert not caught.value.retryable
    assert read_manifest(world.landing, WINDOW) is None
    assert len(world.rows(any_verdict=True)) == 4
    assert world.fact(f"{G1}/closed.json", Closed).verdict == "rejected"


def test_relaxed_thresholds_accept_what_was_rejected_without_asking_again() -> None:
    world = World(rows=4, answer=answering(row_0=BLOCKED))
    with pytest.raises(Rejected):
        world.load()
    landed = world.load(thresholds=Thresholds(max_unresolved=0.25), me="l2")
    assert landed.manifest.passes
    assert landed.manifest.thresholds == Thresholds(max_unresolved=0.25)
    assert len(world.rows()) == 4
    assert len(world.service.created) == 1


def test_tightened_thresholds_never_take_an_accepted_window_away() -> None:
    world = World(rows=4, answer=answering(row_0=BLOCKED))
    world.load(thresholds=Thresholds(max_unresolved=0.25))
    with pytest.raises(Rejected):
        world.load()
    assert len(world.rows()) == 4


def accepted_by_hand(world: World) -> None:
    with pytest.raises(Rejected):
        world.load()
    FileLanding(world.landing).accept(WINDOW, reason="good enough", who="ada", now=world.clock())


def test_what_a_person_accepted_stays_accepted_when_the_task_is_cleared() -> None:
    world = World(rows=4, answer=answering(row_0=BLOCKED))
    accepted_by_hand(world)
    before = sorted(world.landing.list(""))
    landed = world.load(me="l2")
    assert landed.manifest.passes
    assert landed.event is not None
    assert landed.manifest.acceptance is not None
    assert (landed.manifest.acceptance.by, landed.manifest.acceptance.reason) == ("ada", "good enough")
    assert sorted(world.landing.list("")) == before
    assert len(world.rows()) == 4


def test_a_persons_word_outlasts_other_thresholds_and_another_format() -> None:
    world = World(rows=4, answer=answering(row_0=BLOCKED))
    accepted_by_hand(world)
    world.load(thresholds=Thresholds(max_unresolved=0.01), me="l2")
    landed = world.load(landing=Place("notes", "memory://landing", "parquet"), me="l3")
    assert landed.manifest.acceptance is not None
    assert landed.manifest.format == "parquet"
    assert len(world.rows()) == 4


def test_a_persons_word_is_not_taken_for_more_answers() -> None:
    world = World(rows=4, answer=answering(row_0=BLOCKED))
    accepted_by_hand(world)
    other = seal(world.store, rows=4, batch=BatchId("dag", "run", "another"))
    world.submit(other)
    world.clock.advance(timedelta(hours=4))
    with pytest.raises(Rejected):
        world.load(world.manifest, other, me="l2")
    assert len(world.rows()) == 4


def test_answers_are_held_against_the_schema_of_the_seal() -> None:
    world = World(submitted=False, answer=answering(row_0=echo({"contents": [{"parts": [{"text": '{"n": 1}'}]}]})))
    build = msgspec.structs.replace(
        world.build, response_schema={"type": "OBJECT", "properties": {"n": {"type": "INTEGER"}}, "required": ["n"]}
    )
    world.store.write(world.manifest.path, msgspec.json.encode(build))
    world.submit(world.manifest)
    world.clock.advance(timedelta(hours=4))
    world.load(thresholds=Thresholds(max_unresolved=0.5))
    assert [(row["outcome"], row["value"], row["text"]) for row in world.rows()] == [
        ("answer", {"n": 1}, '{"n": 1}'),
        ("invalid", None, "row 1"),
    ]


def with_columns(world: World, *passed: dict[str, Any]) -> None:
    """Give the rows of the one shard columns of the user's, before it is submitted."""
    keys = b"".join(msgspec.json.encode([f"k{number}", row]) + b"\n" for number, row in enumerate(passed))
    shard = msgspec.structs.replace(world.build.shards[0], keys_sha256=hashlib.sha256(keys).hexdigest())
    world.store.write(shard.keys_path, keys)
    world.store.write(world.manifest.path, msgspec.json.encode(msgspec.structs.replace(world.build, shards=(shard,))))


def test_the_users_columns_come_beside_the_answers() -> None:
    world = World()
    with_columns(world, {"place": "Zürich", "depth": 3, "text": "own"}, {"place": "007", "depth": 2.5, "tags": [1]})
    world.load(landing=Place("notes", "memory://landing", "parquet"))
    assert [(row["place"], row["depth"], row["row_text"], row["tags"], row["text"]) for row in world.rows()] == [
        ("Zürich", "3", "own", None, "row 0"),
        ("007", "2.5", None, "[1]", "row 1"),
    ]


@pytest.mark.parametrize(
    "second", [{"depth": 2.5, "felt": "no"}, {"depth": None, "felt": None}, {"depth": "deep", "felt": 1}]
)
@pytest.mark.parametrize("turned", [False, True])
def test_all_windows_of_a_landing_open_as_one_dataset_whatever_their_rows_hold(
    tmp_path: Path, second: dict[str, Any], turned: bool
) -> None:
    from pyarrow import dataset

    windows = [{"depth": 3, "felt": True}, second]
    for number, passed in enumerate(reversed(windows) if turned else windows):
        world = World(answer=echo if number else answering(row_0=BLOCKED))
        world.landing = LocalStore(str(tmp_path))  # type: ignore[assignment]
        with_columns(world, passed, passed)
        world.load(
            landing=Place("notes", str(tmp_path), "parquet"),
            window=f"w{number}",
            thresholds=Thresholds(max_unresolved=0.5),
        )
    table = dataset.dataset(tmp_path, format="parquet", partitioning="hive").to_table()
    assert (table.num_rows, sorted(set(table["window"].to_pylist()))) == (4, ["w0", "w1"])
    assert {table.schema.field(name).type for name in ("depth", "felt", "error", "value")} == {pa.string()}


def test_a_key_file_that_is_not_the_sealed_one_is_never_used() -> None:
    world = World()
    world.store.write(world.build.shards[0].keys_path, b'["k1",{}]\n["k0",{}]\n')
    with pytest.raises(StoreUnreadable, match="not what was sealed"):
        world.load()
    assert read_manifest(world.landing, WINDOW) is None


def test_harmed_results_are_downloaded_again() -> None:
    world = World()
    world.load()
    path = f"{world.build.shards[0].ledger}/a01.results.jsonl"
    whole = world.store.read(path)
    for harm in (lambda: world.store.write(path, b"{}\n"), lambda: world.store.delete(path)):
        harm()
        world.load(me="l2")
        assert world.store.read(path) == whole


def test_a_file_of_strangers_is_not_used_and_not_kept_as_collected() -> None:
    world = World(rows=10)
    name = world.service.created[0].name
    lines = world.service._lines[name]
    world.service._lines[name] = [line.replace(b'"key":"aaaa', b'"key":"zzzz') for line in lines]
    with pytest.raises(ResultsBroken, match="10 of its 10 lines belong to no row"):
        world.load()
    assert list(world.landing.list("")) == []
    world.service._lines[name] = lines
    assert world.load(me="l2").counts["answer"] == 10


def test_results_without_a_line_are_not_there_yet_when_rows_succeeded() -> None:
    world = World()
    lines = dict(world.service._lines)
    world.service._lines["batches/000000"] = []
    with pytest.raises(ResultsNotReady, match="its results are empty, and 2 rows succeeded"):
        world.load()
    assert list(world.landing.list("")) == []
    world.service._lines.update(lines)
    assert world.load(me="l2").counts["answer"] == 2


def test_several_batches_land_as_one_window() -> None:
    world = World(submitted=False)
    manifests = [seal(world.store, batch=BatchId("dag", "run", "prepare", index)) for index in range(3)]
    for manifest in manifests:
        world.submit(manifest)
    world.clock.advance(timedelta(hours=4))
    landed = world.load(*reversed(manifests))
    assert landed.manifest.rows == 6
    assert [origin.batch.map_index for origin in landed.manifest.origins] == [0, 1, 2]
    assert world.load(*manifests, me="l2").manifest == landed.manifest


def test_each_batch_leaves_its_sizes_once_wherever_it_lands() -> None:
    world = World()
    other = seal(world.store, rows=3, batch=BatchId("dag", "another run", "prepare"))
    world.submit(other)
    world.clock.advance(timedelta(hours=4))
    world.load(world.manifest, other)
    left = [path for path in world.store.list("") if path.startswith("usage/")]
    assert len(left) == 2
    world.load(world.manifest, window="another", landing=Place("notes", "memory://landing", "jsonl", keep=("raw",)))
    assert [path for path in world.store.list("") if path.startswith("usage/")] == left


def test_two_generations_of_one_batch_do_not_land_together() -> None:
    world = World()
    home = "batches/dag/run/prepare/map=-1/g0002/builds/b2"
    world.store.create(f"{home}.json", msgspec.json.encode(msgspec.structs.replace(world.build, id="b2", generation=2)))
    with pytest.raises(Unusable, match=r"prepare.* 2 times: its rows would come more than once .*g0001, .*g0002"):
        world.load(world.manifest, Manifest(uri=f"{world.store.uri}/{home}.json"))
    assert list(world.landing.list("")) == []


def test_the_ledger_says_what_became_of_the_batch() -> None:
    world = World(shards=2)
    landed = world.load()
    name = landed.manifest.commit
    assert world.fact(f"{G1}/closed.json", Closed).commit == name
    assert world.fact(f"{G1}/commits/{name}.done", Committed).window == WINDOW
    assert [result.shard[-4:] for result in world.fact(f"{G1}/seals/01.json", ResultsSeal).results] == ["0000", "0001"]
    assert list(world.store.list("open")) == []
    (index,) = world.store.list("index")
    assert index.startswith("index/2026-01-01/")
    assert msgspec.json.decode(world.store.read(index) or b"")["verdict"] == "accepted"
    history = [path.rpartition("/") for path in world.store.list("history")]
    assert {folder for folder, _, _ in history} == {"history/memory%20memory%3A%2F%2Fservice/gemini-3.8-flash/2026-01"}
    assert [name[:34] for _, _, name in history] == ["20260101T030000Z_10800_SUCCEEDED_2"] * 2


def test_input_files_go_when_their_job_has_ended() -> None:
    world = World(shards=2)
    world.load()
    assert all(world.service.file(job.input_file) is None for job in world.service.created)


def test_another_owner_is_refused_and_nothing_of_it_lands() -> None:
    world = World()
    world.load(owner=Owner("other", "load"))
    before = {path: world.landing.read(path) for path in world.landing.list("")}
    with pytest.raises(NotOwner, match=r"belongs to other\.load; dag\.load may not replace it"):
        world.load(me="l2")
    assert {path: world.landing.read(path) for path in world.landing.list("")} == before


def test_an_older_generation_never_replaces_a_newer_one() -> None:
    world = World()
    old, build = world.manifest, world.build
    home = "batches/dag/run/prepare/map=-1/g0002/builds/b2"
    world.store.create(f"{home}.json", msgspec.json.encode(msgspec.structs.replace(build, id="b2", generation=2)))
    newer = Manifest(uri=f"{world.store.uri}/{home}.json")
    landed = world.load(newer)
    with pytest.raises(NotOwner, match=r"belongs to generation 2"):
        world.load(old, me="zombie")
    assert read_manifest(world.landing, WINDOW) == landed.manifest


def test_a_later_attempt_of_a_shard_is_a_new_seal_and_the_older_one_obeys() -> None:
    world = World()
    first = world.load()
    at = world.clock()
    shard = world.build.shards[0]
    with world.store.open(shard.path) as source:
        sent = world.service.upload(source, size_bytes=shard.size_bytes, display_name="again")
    again = world.service.create(model="gemini-3.8-flash", file_name=sent.name, display_name="again").job  # type: ignore[union-attr]
    world.put(0, 2, "claim", Claim(owner="s2", at=at, display_name="again", service=world.service.identity))
    world.put(0, 2, "job", JobNamed(owner="s2", at=at, job_name=again.name, how="create"))
    world.clock.advance(timedelta(hours=4))
    second = world.load(me="l2")
    assert [origin.seal for origin in second.manifest.origins] == [2]
    with pytest.raises(NotOwner):
        commit(world.landing, first.manifest)


def test_a_job_that_came_to_life_after_its_proven_absence_is_cancelled_and_named() -> None:
    world = World()
    shard, at = world.build.shards[0], world.clock()
    # Attempt 2 is proven absent and turns up after all.
    with world.store.open(shard.path) as source:
        sent = world.service.upload(source, size_bytes=shard.size_bytes, display_name="late")
    late = world.service.create(model="gemini-3.8-flash", file_name=sent.name, display_name="late").job  # type: ignore[union-attr]
    world.put(0, 2, "claim", Claim(owner="s2", at=at, display_name="late", service=world.service.identity))
    world.put(0, 2, "uploaded", Uploaded(owner="s2", at=at, file_name=sent.name, file_at=at))
    world.put(0, 2, "sending", Sending(owner="s2", at=at))
    world.put(0, 2, "absent", Absent(owner="s2", at=at, sweeps=(at, at)))
    landed = world.load()
    assert [stray.name for stray in landed.manifest.strays] == [late.name]
    assert world.service.job(late.name).state == "CANCELLED"
    assert landed.manifest.strays_cost_usd == "0"
    assert landed.counts["answer"] == 2


def test_the_job_of_an_attempt_that_was_proven_absent_never_stands_for_the_shard() -> None:
    world = World()
    at = world.clock()
    world.put(0, 1, "absent", Absent(owner="s2", at=at, sweeps=(at, at)))
    with pytest.raises(ResultsNotReady):
        world.load()
    assert list(world.landing.list("")) == []


def test_the_same_failure_of_another_job_is_another_commit() -> None:
    world = World()
    asked = world.service.job

    def expired(name: str) -> JobSnapshot:
        return msgspec.structs.replace(asked(name), state="EXPIRED", output_file="", error_text="too late")

    world.service.job = expired  # type: ignore[method-assign]
    with pytest.raises(Rejected):
        world.load()
    at, shard = world.clock(), world.build.shards[0]
    with world.store.open(shard.path) as source:
        sent = world.service.upload(source, size_bytes=shard.size_bytes, display_name="again")
    again = world.service.create(model="gemini-3.8-flash", file_name=sent.name, display_name="again").job  # type: ignore[union-attr]
    world.put(0, 2, "claim", Claim(owner="s2", at=at, display_name="again", service=world.service.identity))
    world.put(0, 2, "job", JobNamed(owner="s2", at=at, job_name=again.name, how="create"))
    with pytest.raises(Rejected):
        world.load(me="l2")
    assert {row["job"] for row in world.rows(any_verdict=True)} == {again.name}


def quiet(**how: Any) -> tuple[list[str], Landed, list[dict[str, Any]]]:
    plan, world = Plan(), World(**how)
    landed = world.load(plan=plan)
    return plan.seen, landed, world.rows()


EFFECTS, UNDISTURBED, ROWS = quiet(shards=2)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("at", range(len(EFFECTS)), ids=lambda at: f"{at}-{EFFECTS[at].replace('/', '-')}")
def test_wherever_a_load_is_interrupted_the_same_rows_land_once(at: int, way: str) -> None:
    world = World(shards=2)
    plan = Plan(at, way, meanwhile=lambda: world.load(me="the other"))
    try:
        world.load(plan=plan)
    except (Crash, GeminiBatchError):
        standing = read_manifest(world.landing, WINDOW)
        assert standing is None or world.rows() == ROWS  # an accepted manifest never names a missing part
    again = world.load(me="l2")
    assert world.rows() == ROWS
    assert again.manifest.commit == UNDISTURBED.manifest.commit
    assert [part.path for part in again.parts] == [path[len("window=") + len(WINDOW) + 1 :] for path in parts(world)]
    assert len(world.service.created) == 2
    assert list(world.store.list("open")) == []
    assert world.fact(f"{G1}/closed.json", Closed).commit == again.manifest.commit


def parts(world: World) -> list[str]:
    return [path for path in world.landing.list("") if "/part-" in path]


def test_the_effects_cover_download_parts_commit_and_close() -> None:
    kinds = {effect.partition(" ")[0] for effect in EFFECTS}
    assert {"gateway.download-chunk", "store.write-part", "store.writer-close", "store.write", "store.create"} <= kinds


def test_what_a_commit_replaced_is_gone_wherever_the_replacement_was_interrupted() -> None:
    other = BatchId("dag", "run 2", "prepare")

    def replaced(plan: Plan) -> World:
        world = World()
        world.load()
        newer = seal(world.store, rows=3, batch=other)
        world.submit(newer)
        world.clock.advance(timedelta(hours=4))
        try:
            world.load(newer, plan=plan)
        except (Crash, GeminiBatchError):
            assert len(world.rows()) in (2, 3)  # the old window or the new one, whole
            world.load(newer, me="l2")
        return world

    undisturbed = Plan()
    replaced(undisturbed)
    for way in ("before", "after", "lost"):
        for at, effect in enumerate(undisturbed.seen):
            if effect.startswith(("store.write", "store.delete")):
                world = replaced(Plan(at, way))
                assert len(world.rows()) == 3
                assert len(parts(world)) == 1, (way, effect)


def test_the_batch_under_test_is_the_one_of_the_paths() -> None:
    assert G1.startswith(f"batches/{BATCH.dag_id}/{BATCH.run_id}/{BATCH.task_id}")
