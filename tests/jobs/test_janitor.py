"""The janitor on the emulator: what it reports, what it does, and that nothing is lost however it is interrupted."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from airflow_provider_geminibatch.core.errors import GeminiBatchError
from airflow_provider_geminibatch.core.janitor import Act, Finding
from airflow_provider_geminibatch.core.landing import Closed
from airflow_provider_geminibatch.core.ledger import CancelMark, Claim, JanitorAct, LateResults, Opening, Uploaded
from airflow_provider_geminibatch.core.model import BatchId, Build, ServiceIdentity
from airflow_provider_geminibatch.core.names import display_name, generation_path, media_name
from airflow_provider_geminibatch.core.verdict import Verdicts
from airflow_provider_geminibatch.emulator import Emulator, running
from airflow_provider_geminibatch.gemini.gateway import Created, Gateway
from airflow_provider_geminibatch.jobs.janitor import Report, clean
from airflow_provider_geminibatch.jobs.submit import Submitted, open_path, read_build, submit
from airflow_provider_geminibatch.storage import facts
from airflow_provider_geminibatch.storage.stores import MemoryStore
from airflow_provider_geminibatch.testing import InMemoryGateway, ManualClock
from tests.faults import WAYS, Crash, FaultyGateway, FaultyStore, Plan
from tests.jobs.batches import MODEL, seal
from tests.routes import DEVELOPER, VERTEX, Route

LOG = logging.getLogger("test")
START = datetime(2026, 11, 1, tzinfo=UTC)
LINE = b'{"key":"%b-0000-0000000","request":{"contents":[{"role":"user","parts":[{"text":"hi"}]}]}}\n'


@dataclass
class Rig:
    """A workspace (its id is w1) and a service."""

    emulator: Emulator
    gateway: Gateway
    route: Route = DEVELOPER
    store: MemoryStore = field(default_factory=lambda: MemoryStore("memory://ws"))
    builds: dict[str, Build] = field(default_factory=dict)

    def now(self) -> datetime:
        return self.emulator.clock.now()

    def asked(self, endpoint: str) -> int:
        """Calls of an endpoint, by the name that the Developer API has for it."""
        return self.emulator.log.count(self.route.endpoint(endpoint))

    def batch(self, name: str) -> Build:
        """A submitted batch of one shard."""
        batch = BatchId("dag", "run", name)
        manifest = seal(self.store, batch=batch)
        build = read_build(self.store, manifest.path)
        opening = Opening(
            owner="o", at=self.now(), batch=batch, generation=1, build="b1", workspace_id="w1",
            workspace_uri=self.store.uri, fingerprint="",
        )  # fmt: skip
        facts.put(self.store, f"{generation_path(batch, 1)}/batch.json", opening)
        end = submit(manifest, store=self.store, gateway=self.gateway, me="o", now=self.now, log=LOG)
        assert isinstance(end, Submitted)
        self.builds[name] = build
        return build

    def close(self, name: str, *, note_stays: bool = False) -> None:
        build = self.builds[name]
        closed = Closed(owner="o", at=self.now(), commit="c", verdict=Verdicts.ACCEPTED)
        facts.put(self.store, f"{generation_path(build.batch, 1)}/closed.json", closed)
        if not note_stays:
            self.store.delete(open_path(build))

    def orphan(self, workspace: str = "w1") -> str:
        """A job with a workspace's mark and no ledger."""
        name = display_name(workspace, BatchId("dag", "run", "gone"), 1, "b", 0, 1)
        data = LINE % b"aaaabbbbcccc2222"
        file = self.gateway.upload(io.BytesIO(data), size_bytes=len(data), display_name=name)
        reply = self.gateway.create(model=MODEL, file_name=file.name, display_name=name)
        assert isinstance(reply, Created)
        return reply.job.name

    def clean(self, act: bool = False, plan: Plan | None = None) -> Report:
        store, gateway = (self.store, self.gateway) if plan is None else faulty(self, plan)
        return clean(store, gateway, workspace_id="w1", act=act, me="janitor", now=self.now, log=LOG)

    def generation(self, name: str) -> str:
        return generation_path(self.builds[name].batch, 1)

    def place(self, name: str) -> str:
        return f"{self.builds[name].shards[0].ledger}/a01"

    def state(self, job_name: str) -> str:
        return self.gateway.job(job_name).state

    def job_of(self, name: str) -> str:
        found = facts.shard_facts(self.store, self.builds[name].shards[0].ledger).current_job
        assert found
        return found

    def input_of(self, job_name: str) -> str:
        return self.gateway.job(job_name).input_file


def faulty(rig: Rig, plan: Plan) -> Any:
    return FaultyStore(rig.store, plan), FaultyGateway(rig.gateway, plan)


@pytest.fixture
def rig() -> Iterator[Rig]:
    yield from made()


@pytest.fixture
def vertex_rig() -> Iterator[Rig]:
    yield from made(VERTEX)


def made(route: Route = DEVELOPER) -> Iterator[Rig]:
    emulator = Emulator(seed=3, start=START, speed=0, turnaround=(1, 2))
    with running(emulator) as server, closing(route.opened(server.url)) as gateway:
        yield Rig(emulator, gateway, route)


def by_name(report: Report) -> dict[str, Finding]:
    return {finding.name: finding for finding in report.findings}


def test_a_workspace_in_order_gives_an_empty_report(rig: Rig) -> None:
    rig.batch("running")
    report = rig.clean(act=True)
    assert (report.findings, report.jobs, report.foreign, report.generations) == ((), 1, 0, 1)
    assert rig.state(rig.job_of("running")) == "PENDING"


def test_without_being_told_to_it_changes_nothing(rig: Rig) -> None:
    rig.batch("done")
    rig.close("done", note_stays=True)
    orphan = rig.orphan()
    rig.emulator.clock.advance(hours=100)
    before = {path: rig.store.read(path) for path in rig.store.list("")}

    report = rig.clean()

    found = by_name(report)
    assert found[rig.job_of("done")].acts == found[orphan].acts == (Act.COLLECT, Act.DELETE_INPUT)
    assert found[open_path(rig.builds["done"])].acts == (Act.DELETE_NOTE,)
    assert not any(finding.done for finding in report.findings)
    assert {path: rig.store.read(path) for path in rig.store.list("")} == before
    assert rig.asked("files.delete") == rig.asked("batches.cancel") == 0


def test_an_open_job_of_a_closed_batch_is_cancelled_with_a_mark(rig: Rig) -> None:
    rig.batch("closed")
    rig.close("closed")

    report = rig.clean(act=True)

    assert rig.state(rig.job_of("closed")) == "CANCELLED"
    mark = facts.get(rig.store, f"{rig.place('closed')}.cancel", CancelMark)
    assert mark is not None
    assert "janitor" in mark.why
    assert "asked to end" in by_name(report)[rig.job_of("closed")].done[0]
    assert by_name(rig.clean()).keys() <= {rig.input_of(rig.job_of("closed"))}


def test_late_results_are_collected_and_costed_before_their_file_is_deleted(rig: Rig) -> None:
    rig.batch("late")
    rig.close("late")
    rig.emulator.clock.advance(hours=3)
    job = rig.job_of("late")

    report = rig.clean(act=True)

    late = facts.get(rig.store, f"{rig.generation('late')}/late/{job.replace('/', '%2F')}.json", LateResults)
    assert late is not None
    assert (late.lines, Decimal(late.cost_usd or 0)) == (2, Decimal(rig.emulator.bill()["total_usd"]))
    assert rig.store.read(late.path)
    assert rig.gateway.file(rig.input_of(job)) is None
    assert len(by_name(report)[job].done) == 2
    assert facts.shard_facts(rig.store, rig.builds["late"].shards[0].ledger).attempts[0].collected is None
    assert rig.clean(act=True).findings == ()


def test_an_orphan_is_left_alone_until_no_work_can_be_waiting_for_it(rig: Rig) -> None:
    orphan = rig.orphan()
    rig.emulator.clock.advance(hours=71)
    young = by_name(rig.clean(act=True))[orphan]
    assert (young.acts, young.done) == ((), ())
    rig.emulator.clock.advance(hours=1)

    old = by_name(rig.clean(act=True))[orphan]

    assert len(old.done) == 2
    assert rig.store.read(f"janitor/{orphan.replace('/', '%2F')}.results.jsonl")
    assert rig.clean(act=True).findings == ()


def test_an_open_orphan_is_cancelled_and_why_goes_on_record_first() -> None:
    clock, store = ManualClock(START), MemoryStore()
    gateway = InMemoryGateway(clock, turnaround=timedelta(hours=500))
    gateway.identity = ServiceIdentity("developer", "memory://service")
    rig = Rig(Emulator(), gateway, store)  # type: ignore[arg-type]
    orphan = rig.orphan()
    clock.advance(timedelta(hours=100))

    report = clean(store, gateway, workspace_id="w1", act=True, me="janitor", now=clock, log=LOG)

    assert report.findings[0].done == ("asked to end",)
    assert gateway.job(orphan).state == "CANCELLED"
    note = facts.get(store, f"janitor/{orphan.replace('/', '%2F')}.cancel", JanitorAct)
    assert note is not None
    assert (note.name, note.act) == (orphan, "cancel")


def test_jobs_of_another_workspace_are_counted_and_never_touched(rig: Rig) -> None:
    foreign = rig.orphan("w2")
    rig.emulator.clock.advance(hours=200)
    report = rig.clean(act=True)
    assert (report.findings, report.jobs, report.foreign) == ((), 0, 1)
    assert rig.state(foreign) == "SUCCEEDED"


def test_an_unreadable_ledger_is_reported_and_stops_every_guess_about_orphans(rig: Rig) -> None:
    rig.batch("broken")
    rig.close("broken")
    orphan = rig.orphan()
    rig.store.write(f"{rig.place('broken')}.claim", b"{half")
    rig.emulator.clock.advance(hours=100)

    report = rig.clean(act=True)

    assert all(finding.acts == () for finding in report.findings)
    assert {"job", "batch"} == {finding.kind for finding in report.findings}
    assert "cannot be" in by_name(report)[orphan].says
    assert rig.asked("files.delete") == 0


def test_an_unfinished_batch_is_named_after_days_and_its_finished_job_at_once(rig: Rig) -> None:
    rig.batch("left")
    rig.emulator.clock.advance(hours=3)
    assert "not collected yet" in by_name(rig.clean(act=True))[rig.job_of("left")].says
    rig.emulator.clock.advance(hours=140)
    assert "unfinished for 6 days" in by_name(rig.clean(act=True))[rig.generation("left")].says
    assert list(rig.store.list("open"))


def test_work_that_a_rerun_sent_into_a_closed_generation_is_open_work(rig: Rig) -> None:
    rig.batch("rerun")
    rig.close("rerun")
    claim = f"{rig.place('rerun')}.claim"
    later = (rig.now() + timedelta(hours=1)).isoformat().replace("+00:00", "Z")
    first = rig.now().isoformat().replace("+00:00", "Z")
    rig.store.write(claim, (rig.store.read(claim) or b"").replace(first.encode(), later.encode()))
    assert later.encode() in (rig.store.read(claim) or b"")
    rig.clean(act=True)
    assert rig.state(rig.job_of("rerun")) == "PENDING"


def test_input_files_of_closed_batches_are_deleted(rig: Rig) -> None:
    rig.batch("full")
    name = rig.input_of(rig.job_of("full"))
    rig.emulator.clock.advance(hours=3)
    rig.gateway.cancel(rig.job_of("full"))
    rig.store.write(f"{rig.place('full')}.collected", (b'{"owner":"o","at":"2026-11-01T00:00:00Z","path":"p",'
        b'"size_bytes":1,"sha256":"x","lines":1}'))  # fmt: skip
    rig.close("full")
    report = rig.clean(act=True)
    assert by_name(report)[name].done == (f"deleted {name}",)
    assert rig.gateway.file(name) is None


def test_what_cannot_be_collected_is_not_deleted(rig: Rig) -> None:
    rig.batch("late")
    rig.close("late")
    rig.emulator.clock.advance(hours=3)
    rig.emulator.scenario(
        "refused_calls", endpoint=rig.route.endpoint("files.download"), times=1, code=400, status="X", message="no"
    )
    job = rig.job_of("late")
    finding = by_name(rig.clean(act=True))[job]
    assert finding.done[0].startswith("could not collect")
    assert len(finding.done) == 1
    assert rig.gateway.file(rig.input_of(job)) is not None


def scene(rig: Rig) -> None:
    """One of each: a late result, an open job of a closed batch, an orphan, a stale note, and work in progress."""
    rig.batch("late")
    orphaned = rig.orphan()
    rig.emulator.clock.advance(hours=80)
    rig.close("late", note_stays=True)
    rig.batch("closed")
    rig.close("closed")
    rig.batch("working")
    assert orphaned


def left(rig: Rig) -> dict[str, Any]:
    """What the world looks like afterwards."""
    paths = [path for path in rig.store.list("") if "/late/" in path or path.startswith(("janitor/", "open/"))]
    return {
        "store": sorted(path for path in paths),
        "results": sorted(len(rig.store.read(path) or b"") for path in paths if path.endswith(".results.jsonl")),
        "jobs": [rig.state(job.name) for job in rig.emulator.jobs],
        "inputs": [rig.gateway.file(rig.input_of(job.name)) is not None for job in rig.emulator.jobs],
    }


def quiet() -> tuple[list[str], dict[str, Any]]:
    plan = Plan()
    for rig in made():
        scene(rig)
        rig.clean(act=True, plan=plan)
        rig.clean(act=True)  # the input of a job that was cancelled goes once the job has ended
        return plan.seen, left(rig)
    raise AssertionError


EFFECTS, AFTER = quiet()
READS = ("store.read", "store.open", "gateway.file", "gateway.jobs", "gateway.job", "gateway.model")


@pytest.mark.parametrize(
    ("at", "way"),
    [
        pytest.param(at, way, id=f"{at:02d}-{name.replace(' ', '-')}-{way}")
        for at, name in enumerate(EFFECTS)
        for way in (("before", "frozen") if name.split(" ", maxsplit=1)[0] in READS else WAYS)
    ],
)
def test_whatever_goes_wrong_the_janitor_ends_in_the_same_place(rig: Rig, at: int, way: str) -> None:
    scene(rig)
    with suppress(Crash, GeminiBatchError):
        rig.clean(act=True, plan=Plan(at, way, meanwhile=lambda: rig.clean(act=True)))
    for _ in range(2):
        rig.clean(act=True)

    assert left(rig) == AFTER
    assert rig.state(rig.job_of("working")) in ("PENDING", "RUNNING")
    assert rig.clean(act=True).findings == ()


def test_the_scene_has_one_of_each() -> None:
    assert AFTER["jobs"] == ["SUCCEEDED", "SUCCEEDED", "CANCELLED", "PENDING"]
    assert AFTER["inputs"] == [False, False, False, True]
    assert len(AFTER["results"]) == 2


def medium(rig: Rig, sha256: str, workspace: str = "w1") -> str:
    """A medium of a workspace at the service."""
    name = media_name(workspace, sha256)
    return rig.gateway.upload(io.BytesIO(b"data"), size_bytes=4, display_name=name, mime_type="image/png").name


def points_at(rig: Rig, name: str, sha256: str, file_name: str) -> None:
    """Let the upload of a batch say that its requests name a medium."""
    path = f"{rig.place(name)}.uploaded"
    fact = facts.get(rig.store, path, Uploaded)
    assert fact is not None
    rig.store.write(path, msgspec.json.encode(msgspec.structs.replace(fact, media={f"sha256:{sha256}": file_name})))


def test_media_that_no_open_batch_points_at_are_deleted(rig: Rig) -> None:
    needed, old, foreign = medium(rig, "a" * 64), medium(rig, "b" * 64), medium(rig, "b" * 64, "another")
    for name, sha256, file in (("open", "a" * 64, needed), ("closed", "b" * 64, old)):
        rig.batch(name)
        points_at(rig, name, sha256, file)
    rig.emulator.clock.advance(hours=3)
    rig.close("closed")
    young = medium(rig, "c" * 64)

    told = [finding for finding in rig.clean().findings if finding.kind == "medium"]
    rig.clean(act=True)

    assert [(finding.name, finding.acts) for finding in told] == [(old, (Act.DELETE_MEDIUM,))]
    assert "that no open batch points at" in told[0].says
    assert [rig.gateway.file(name) is not None for name in (needed, old, foreign, young)] == [True, False, True, True]


def test_media_stay_while_a_ledger_cannot_be_read(rig: Rig) -> None:
    name = medium(rig, "a" * 64)
    rig.batch("one")
    rig.store.write(f"{rig.generation('one')}/batch.json", b"{")
    rig.emulator.clock.advance(hours=3)

    assert not [finding for finding in rig.clean(act=True).findings if finding.kind == "medium"]
    assert rig.gateway.file(name) is not None


def test_on_vertex_ai_an_orphan_is_left_alone_for_five_days_and_then_collected(vertex_rig: Rig) -> None:
    rig = vertex_rig
    job = rig.orphan()
    rig.emulator.clock.advance(hours=100)
    assert by_name(rig.clean(act=True))[job].acts == ()
    rig.emulator.clock.advance(hours=30)

    done = by_name(rig.clean(act=True))[job].done

    assert [text.split()[0] for text in done] == ["collected", "deleted"]
    assert rig.gateway.file(rig.input_of(job)) is None
    assert rig.clean().findings == ()


def test_on_vertex_ai_an_input_that_was_left_is_found_however_old_it_is(vertex_rig: Rig) -> None:
    rig = vertex_rig
    rig.batch("done")
    place = rig.place("done")
    uploaded = facts.get(rig.store, f"{place}.uploaded", Uploaded)
    assert uploaded is not None
    rig.emulator.clock.advance(hours=4)
    rig.close("done")
    collected = msgspec.json.encode(
        {"owner": "o", "at": rig.now(), "path": "x", "size_bytes": 1, "sha256": "s", "lines": 1}
    )
    rig.store.write(f"{place}.collected", collected)
    rig.emulator.clock.advance(hours=24 * 30)

    found = by_name(rig.clean(act=True))[uploaded.file_name]

    assert "paid for, until somebody deletes it" in found.says
    assert rig.gateway.file(uploaded.file_name) is None


def test_on_vertex_ai_an_input_of_no_record_goes_when_no_job_can_want_it_any_more(vertex_rig: Rig) -> None:
    """An upload whose process died before it could note it."""
    rig = vertex_rig
    name = display_name("w1", BatchId("dag", "run", "gone"), 1, "b", 0, 1)
    stray = rig.gateway.upload(io.BytesIO(LINE), size_bytes=len(LINE), display_name=name).name
    foreign = display_name("w2", BatchId("dag", "run", "gone"), 1, "b", 0, 1)
    theirs = rig.gateway.upload(io.BytesIO(LINE), size_bytes=len(LINE), display_name=foreign).name
    rig.emulator.clock.advance(hours=100)
    assert rig.clean(act=True).findings == ()
    rig.emulator.clock.advance(hours=30)

    assert by_name(rig.clean(act=True))[stray].done == (f"deleted {stray}",)

    assert rig.gateway.file(stray) is None
    assert rig.gateway.file(theirs) is not None


def test_on_vertex_ai_a_medium_that_no_open_batch_points_at_goes(vertex_rig: Rig) -> None:
    rig = vertex_rig
    name = media_name("w1", "0" * 64)
    medium = rig.gateway.upload(io.BytesIO(b"pixels"), size_bytes=6, display_name=name, mime_type="image/png").name
    assert rig.clean(act=True).findings == ()
    rig.emulator.clock.advance(hours=3)

    assert by_name(rig.clean(act=True))[medium].done == (f"deleted {medium}",)


def test_on_vertex_ai_a_failed_job_that_left_no_results_is_done_with(vertex_rig: Rig) -> None:
    rig = vertex_rig
    rig.emulator.scenario("unwritable_output")
    rig.batch("done")
    job = rig.job_of("done")
    rig.close("done")
    rig.emulator.clock.advance(hours=30)
    assert rig.state(job) == "FAILED"

    done = by_name(rig.clean(act=True))[job].done

    assert done[0] == "it left no results"
    assert rig.gateway.file(rig.input_of(job)) is None
    assert rig.clean().findings == ()


def test_on_vertex_ai_a_copy_of_a_job_that_somebody_made_is_left_alone(vertex_rig: Rig) -> None:
    rig = vertex_rig
    rig.batch("done")
    seen = rig.gateway.job(rig.job_of("done"))
    data = LINE % b"aaaabbbbcccc2222"
    theirs = rig.gateway.upload(io.BytesIO(data), size_bytes=len(data), display_name="their-own").name
    reply = rig.gateway.create(model=MODEL, file_name=theirs, display_name=seen.display_name)
    assert isinstance(reply, Created)
    rig.close("done")

    assert "none of this workspace's" in by_name(rig.clean(act=True))[reply.job.name].says

    assert rig.state(reply.job.name) not in ("CANCELLING", "CANCELLED")
    rig.emulator.clock.advance(hours=30)
    assert reply.job.name not in by_name(rig.clean(act=True))
    assert rig.gateway.file(theirs) is not None


def test_on_vertex_ai_media_stay_while_a_shard_is_being_submitted_that_may_name_them(vertex_rig: Rig) -> None:
    """A medium is kept by its content, so that one of any age may be named by an upload that is not on record yet."""
    rig = vertex_rig
    rig.batch("open")
    medium = rig.gateway.upload(
        io.BytesIO(b"pixels"), size_bytes=6, display_name=media_name("w1", "0" * 64), mime_type="image/png"
    ).name
    rig.emulator.clock.advance(hours=50)
    ledger = rig.builds["open"].shards[0].ledger
    claim = Claim(owner="o", at=rig.now(), display_name="gb1-x", service=rig.gateway.identity)
    facts.put(rig.store, f"{ledger}/a02.claim", claim)

    assert medium not in by_name(rig.clean(act=True))

    rig.emulator.clock.advance(hours=3)
    assert medium in by_name(rig.clean(act=True))
