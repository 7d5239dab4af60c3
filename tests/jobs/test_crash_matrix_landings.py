"""The crash matrix of every sink: files whole and in parts, and tables, with every effect of a commit going wrong.

Whatever happens, a reader sees the old window or the new one, whole, and the next try ends with the same rows.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_geminibatch.core.errors import GeminiBatchError, Rejected, WindowNotLanded
from airflow_provider_geminibatch.core.landing import Closed, Committed, Committing, Place, RunRef, files_of
from airflow_provider_geminibatch.core.manifest import Manifest
from airflow_provider_geminibatch.core.model import BatchId, Owner
from airflow_provider_geminibatch.core.verdict import Thresholds
from airflow_provider_geminibatch.jobs.collect import Commission, Landed, collect, gathered, land
from airflow_provider_geminibatch.jobs.results import Desk
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.inline_media import media_of
from airflow_provider_geminibatch.storage.landing_store import LandingStore
from airflow_provider_geminibatch.storage.landings import FileLanding
from airflow_provider_geminibatch.storage.stores import MemoryStore
from airflow_provider_geminibatch.testing import echo
from tests.databases import Base, postgres_server
from tests.faults import WAYS, Crash, FaultyConnection, FaultyStore, Plan
from tests.jobs.batches import seal
from tests.jobs.test_collect import BLOCKED, WINDOW, World

LOG = logging.getLogger("test")
OTHER = BatchId("dag", "run 2", "prepare")


def drawn(request: Any) -> dict[str, Any]:
    """An answer with an image, another one for each text."""
    text = request["contents"][0]["parts"][0]["text"]
    blob = {"mimeType": "image/png", "data": base64.b64encode(text.encode()).decode()}
    parts = [{"text": text}, {"inlineData": blob}]
    return {
        "candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}],
        "modelVersion": "gemini-3.8-flash-001",
    }


class Files:
    """Files, in parts where it has a part."""

    def __init__(self, file_format: str = "jsonl", part: str = "", **answers: Any) -> None:
        self.answers = answers
        self.store, self.part = MemoryStore("memory://landing"), part
        self.place = Place("notes", "memory://landing", file_format, (part,) if part else ())

    def open(self, plan: Plan) -> LandingStore:
        return FileLanding(FaultyStore(self.store, plan))

    def leftovers(self) -> set[str]:
        """Files of rows, and media, that no manifest names."""
        there = {path for path in self.store.list("") if "/part-" in path or "/_media-" in path}
        manifests = [
            FileLanding(self.store).manifest(WINDOW, part=self.part, rejected=rejected, early=early)
            for rejected, early in ((False, False), (True, False), (False, True))
        ]
        named = {f"{one.folder}/{part.path}" for one in manifests if one for part in files_of(one)}
        listed = [(one.folder, one.media.path) for one in manifests if one and one.media]
        media = {f"{folder}/{one.path}" for folder, path in listed for one in media_of(self.store, folder, path)}
        assert media <= there, "what a manifest lists is there"
        return there - named - media


class Tables:
    """Tables, in SQLite or PostgreSQL."""

    def __init__(self, base: Base) -> None:
        self.base, self.part, self.answers = base, "", dict[str, Any]()
        self.place = Place("notes", "sql://db@/notes", "sql")

    def open(self, plan: Plan) -> LandingStore:
        return self.base.landing(FaultyConnection.opener(self.base.connect, plan))

    def leftovers(self) -> set[str]:
        """Rows that belong to no commit."""
        nowhere = "landed_window NOT IN (SELECT landed_window FROM {}notes__commits WHERE place = 'PLACE' AND commit_id IS NOT NULL)"
        return {
            key
            for place, suffix in (("accepted", ""), ("rejected", "__rejected"), ("early", "__early"))
            for (key,) in self.base.query(f"SELECT key FROM {{}}notes{suffix} WHERE {nowhere.replace('PLACE', place)}")
        }


Sink = Files | Tables


class Sunk(World):
    """A world whose batches go into one sink. Only the sink is faulty: the ledger has matrices of its own."""

    def __init__(self, sink: Sink, **how: Any) -> None:
        super().__init__(**(sink.answers | how))
        self.sink = sink

    def collect(self, *manifests: Manifest, plan: Plan | None = None, me: str = "l1", **changes: Any) -> Landed:
        plan = plan or Plan()
        arguments: dict[str, Any] = {"thresholds": Thresholds(), "owner": Owner("dag", "load")} | changes
        return collect(
            manifests or (self.manifest,), open_store=lambda uri: self.store, gateway=self.service,
            landing=self.sink.place, landing_store=self.sink.open(plan), part=self.sink.part, window=WINDOW,
            run=RunRef("dag", "run", "load"), me=me, now=self.clock, log=LOG, sleep=self._sleep, **arguments,
        )  # fmt: skip

    def early(self, plan: Plan | None = None) -> Landed:
        """What a batch that still runs lands of the shards that have ended: here all of them."""
        plan = plan or Plan()
        desk = Desk(self.store, self.service, "e", self.clock, LOG, self._sleep)
        commission = Commission(
            self.sink.place, self.sink.open(plan), WINDOW, Owner("dag", "load"), RunRef("dag", "run", "load"),
            Thresholds(), early=True, part=self.sink.part,
        )  # fmt: skip
        batch = gathered(desk, self.manifest, ended_only=True)
        return land({batch.origin.workspace: desk}, commission, [batch], complete=False)

    def _sleep(self, seconds: float) -> None:
        self.clock.advance(timedelta(seconds=seconds))

    def another(self, rows: int = 3) -> Manifest:
        """A second batch, submitted and ended."""
        manifest = seal(self.store, rows=rows, batch=OTHER)
        self.submit(manifest)
        self.clock.advance(timedelta(hours=4))
        return manifest

    def landed(self, **how: Any) -> list[dict[str, Any]] | None:
        """What a reader sees; None for nothing."""
        try:
            return list(self.sink.open(Plan()).rows(WINDOW, parts=self.sink.place.parts, **how))
        except WindowNotLanded:
            return None


# Each makes what stands before, and gives the step that is disturbed.
Step = Callable[..., Landed]


def first(sink: Sink) -> tuple[Sunk, Step]:
    world = Sunk(sink, shards=2)
    return world, world.collect


def replacement(sink: Sink) -> tuple[Sunk, Step]:
    world = Sunk(sink)
    world.collect()
    newer = world.another()
    return world, lambda **how: world.collect(newer, **how)


def after_early(sink: Sink) -> tuple[Sunk, Step]:
    world = Sunk(sink, shards=2)
    world.early()
    return world, world.collect


def early(sink: Sink) -> tuple[Sunk, Step]:
    world = Sunk(sink, shards=2)
    return world, lambda plan=None, **_: world.early(plan)


def rejected(sink: Sink) -> tuple[Sunk, Step]:
    usual = sink.answers.get("answer", echo)
    world = Sunk(sink, answer=lambda request: BLOCKED if "row 0" in str(request) else usual(request))

    def step(**how: Any) -> Landed:
        try:
            return world.collect(**how)
        except Rejected:
            return None  # type: ignore[return-value]

    return world, step


def accepted(sink: Sink) -> tuple[Sunk, Step]:
    world, reject = rejected(sink)
    reject()

    def step(plan: Plan | None = None, **_: Any) -> Any:
        return sink.open(plan or Plan()).accept(WINDOW, reason="r", who="ada", now=world.clock(), part=sink.part)

    return world, step


SCENES = {scene.__name__: scene for scene in (first, replacement, early, after_early, rejected, accepted)}


def survives(step: Callable[[], object]) -> bool:
    try:
        step()
    except (Crash, GeminiBatchError):
        return False
    return True


def seen(world: Sunk) -> tuple[Any, Any]:
    """What a reader sees, and one who takes any verdict."""
    return world.landed(), world.landed(any_verdict=True)


def in_order(world: Sunk, scene: str) -> None:
    """Nothing lies about that no manifest names, and the ledger tells what stands."""
    assert world.sink.leftovers() == set()
    landing, part = world.sink.open(Plan()), world.sink.part
    manifest = landing.manifest(WINDOW, part=part, rejected=scene == "rejected", early=scene == "early")
    assert manifest is not None
    for origin in manifest.origins:
        noted = fact_store.get(world.store, f"{origin.path}/commits/{manifest.commit}.json", Committing)
        assert noted is not None
        assert noted.parts == manifest.parts
        if scene != "early":
            done = fact_store.get(world.store, f"{origin.path}/commits/{manifest.commit}.done", Committed)
            assert done is not None
            assert done.commit == manifest.commit
            assert fact_store.get(world.store, f"{origin.path}/closed.json", Closed) is not None
    others = [landing.manifest(WINDOW, part=part, rejected=one, early=not one) for one in (True, False)]
    assert sum(other is not None for other in others) == (scene in ("rejected", "early"))


SINKS: dict[str, Callable[[Path], Sink]] = {
    "jsonl": lambda folder: Files(),
    "parquet": lambda folder: Files("parquet"),
    "part": lambda folder: Files(part="eu"),
    "media": lambda folder: Files(answer=drawn),
    "media by columns": lambda folder: Files("parquet", answer=drawn),
    "sqlite": lambda folder: Tables(sqlite_at(folder)),
}


def sqlite_at(folder: Path) -> Base:
    """A new file each time, whose second writer gives up at once."""
    return Base("sqlite", folder, timeout=0.01)


def through_all_effects(sink: Callable[[], Sink], scene: str, way: str) -> int:
    """The scene again and again, each time with another effect going wrong. Returns how many there are."""
    quiet, step = SCENES[scene](sink())
    plan = Plan()
    old = seen(quiet)
    step(plan=plan)
    new = seen(quiet)
    in_order(quiet, scene)

    for at, effect in enumerate(plan.seen):
        world, step = SCENES[scene](sink())
        assert seen(world) == old
        faulty = Plan(at, way, meanwhile=lambda step=step: survives(lambda: step(me="the other")))  # type: ignore[misc]
        survives(lambda step=step, faulty=faulty: step(plan=faulty))  # type: ignore[misc]
        between = seen(world)
        assert between[0] in (old[0], new[0]), (at, effect)
        assert between[1] in (old[1], new[1]), (at, effect)

        assert survives(lambda step=step: step(me="l2")) or between == new, (at, effect)  # type: ignore[misc]
        assert seen(world) == new, (at, effect)
        in_order(world, scene)
    return len(plan.seen)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("sink", SINKS)
def test_whatever_goes_wrong_a_window_is_the_old_one_or_the_new_one(
    sink: str, scene: str, way: str, tmp_path: Path
) -> None:
    assert through_all_effects(lambda: SINKS[sink](tmp_path), scene, way) > 4


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with postgres_server() as host:
        yield host


@pytest.mark.parametrize("way", WAYS)
def test_the_same_on_postgresql(way: str, postgres: str, tmp_path: Path) -> None:
    assert through_all_effects(lambda: Tables(Base("psycopg3", tmp_path, lambda: postgres)), "replacement", way) > 4


def test_the_effects_of_a_commit_in_tables_are_those_that_are_told(tmp_path: Path) -> None:
    _, step = replacement(Tables(sqlite_at(tmp_path)))
    plan = Plan()
    step(plan=plan)
    transaction = plan.seen[plan.seen.index("sql.BEGIN") :]
    assert transaction[:2] == ["sql.BEGIN", "sql.UPDATE notes__commits"]
    writes = [effect for effect in transaction if not effect.startswith(("sql.SELECT", "sql.connect"))]
    assert writes[2:] == ["sql.DELETE notes", "sql.INSERT notes", "sql.UPDATE notes__commits", "sql.COMMIT"]
