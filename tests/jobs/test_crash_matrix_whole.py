"""The crash matrix of a whole batch: rounds, early commits, a person's word, hedges and rungs, each effect going wrong in every way.

One task walks the batch; whatever stops it, the next try goes on. The service keeps its jobs in memory, so that thousands of
disturbed roads can be walked; ``test_whole_emulated`` has the bill of the emulator.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Any

import pytest

from airflow_provider_geminibatch.core.batch import BatchPolicy, Rung
from airflow_provider_geminibatch.core.canary import Canary
from airflow_provider_geminibatch.core.errors import GeminiBatchError
from airflow_provider_geminibatch.core.landing import Closed, report_name
from airflow_provider_geminibatch.jobs.collect import Landed
from airflow_provider_geminibatch.storage.landings import read_manifest
from tests.faults import WAYS, Crash, Plan
from tests.jobs.test_whole import ALL, EMPTY, WINDOW, World, at_first, ending, never_ending

STEP = timedelta(hours=3)


@dataclass(frozen=True)
class Case:
    """A batch and what becomes of it; ``jobs`` is how many are made here and elsewhere."""

    make: Callable[[], World]
    policy: BatchPolicy
    jobs: tuple[int, int]
    meanwhile: Callable[[World], object] = lambda world: None
    """What happens once, when both shards are jobs."""


def round_() -> World:
    return World(shards=2, rows=2, answer=at_first(EMPTY, "row 1", "row 2"))


def early() -> World:
    return World(shards=2, rows=2)


def endless() -> World:
    world = World(shards=2, rows=2)
    never_ending(world, "row 0")
    return world


def two_ended(world: World) -> None:
    ending(world, "row 2")


def commit_now(world: World) -> None:
    ending(world, "row 2")
    world.clock.advance(STEP)
    world.command("commit_now")


LADDER = {"deadline": timedelta(hours=11)}
CASES = {
    "canary": Case(early, BatchPolicy(canary=Canary(rows=1)), (2, 0)),
    "round": Case(round_, BatchPolicy(), (3, 0)),
    "early": Case(early, BatchPolicy(early=0.25), (2, 0), two_ended),
    "commit-now": Case(endless, BatchPolicy(thresholds=ALL), (2, 0), commit_now),
    "resubmit": Case(
        endless, BatchPolicy(**LADDER, ladder=(Rung("resubmit", timedelta(hours=9), conn_id="other"),)), (2, 1)
    ),
    "hedge": Case(endless, BatchPolicy(**LADDER, ladder=(Rung("hedge", timedelta(hours=9), conn_id="other"),)), (2, 1)),
    "flex": Case(endless, BatchPolicy(**LADDER, ladder=(Rung("flex", timedelta(hours=9)),)), (2, 0)),
}  # fmt: skip


class Road:
    """One batch on its way, walked by one try after the other."""

    def __init__(self, case: Case) -> None:
        self.case, self.world, self.tries, self.told = case, case.make(), 0, False

    def one_try(self, plan: Plan) -> Landed:
        """Walk until it lands, over all waits. Raises what a try of the task would end with."""
        self.tries += 1
        me, later = f"try-{self.tries}", self.tries > 1
        for _ in range(300):
            end = self.world.walk(self.case.policy, plan, me, later_try=later)
            if isinstance(end, Landed):
                return end
            if not self.told and len(end.job_names) == 2:
                self.told = True
                self.case.meanwhile(self.world)
                continue
            soon = self.world.clock() + STEP
            self.world.clock.advance_to(min(soon, end.until) if end.until else soon)
            self.world.clock.advance(timedelta(seconds=1))
        raise AssertionError("it does not end")

    def whole(self, plan: Plan) -> Landed:
        """The disturbed try, then tries until one succeeds."""
        for disturbed in (plan, Plan(), Plan(), Plan()):
            try:
                return self.one_try(disturbed)
            except (Crash, GeminiBatchError):
                continue
        return self.one_try(Plan())

    def rows(self) -> list[tuple[Any, ...]]:
        return self.world.told()


def quiet(case: Case) -> tuple[list[str], list[tuple[Any, ...]]]:
    """The effects on an undisturbed road, and what it lands."""
    road, plan = Road(case), Plan()
    road.whole(plan)
    return plan.seen, road.rows()


QUIET = {name: quiet(case) for name, case in CASES.items()}
READS = ("store.read", "store.open", "gateway.file", "gateway.jobs", "gateway.job", "gateway.model")


def effects(name: str) -> list[Any]:
    """Each effect in every way, twice where it is repeated; of reads, which are the same to everybody, the first of each object."""
    found, seen = [], Counter[str]()
    for at, effect in enumerate(QUIET[name][0]):
        reads = effect.split(" ", maxsplit=1)[0] in READS
        seen[effect] += 1
        if seen[effect] > (1 if reads else 2):
            continue
        for way in ("before", "frozen") if reads else WAYS:
            found.append(pytest.param(name, at, way, id=f"{name}-{at:03d}-{effect.replace(' ', '-')}-{way}"))  # noqa: PERF401
    return found


def anywhere(name: str) -> list[Any]:
    """Fifty places of a road, by lot: who freezes between two reads goes on with half of what he knows."""
    drawn = Random(name).sample(range(len(QUIET[name][0])), 50)
    return [pytest.param(name, at, "frozen", id=f"{name}-{at:03d}-anywhere") for at in sorted(drawn)]


@pytest.mark.parametrize(
    ("name", "at", "way"), [param for name in CASES for param in (*effects(name), *anywhere(name))]
)
def test_whatever_goes_wrong_the_same_rows_land_and_no_job_is_made_twice(name: str, at: int, way: str) -> None:
    case = CASES[name]
    road = Road(case)
    landed = road.whole(Plan(at, way, meanwhile=lambda: road.whole(Plan())))

    assert road.rows() == QUIET[name][1]
    world = road.world
    assert (len(world.service.created), len(world.elsewhere.created)) == case.jobs
    manifest = read_manifest(world.landing, WINDOW)
    assert manifest is not None
    assert manifest.commit == landed.manifest.commit
    assert list(world.landing.list("_early")) == []
    parts = {path.rpartition("/")[2] for path in world.landing.list("window=" + WINDOW)} - {"_manifest.json"}
    assert parts == {*(part.path for part in manifest.parts), report_name(manifest.commit)}
    assert world.fact("closed.json", Closed).commit == manifest.commit
    assert list(world.store.list("open")) == []


def test_the_roads_are_what_they_say() -> None:
    rounds = {name: {row[3] for row in rows} for name, (_, rows) in QUIET.items()}
    assert rounds["round"] == {0, 1}
    assert rounds["resubmit"] == rounds["hedge"] == rounds["flex"] == {0, None}
    assert {row[1] for row in QUIET["commit-now"][1]} == {"answer", "failed"}
    assert any("_manifest" in effect for effect in QUIET["early"][0])
