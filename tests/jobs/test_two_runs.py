"""Two runs of one task that land the same window in turn, one of them frozen while the other goes on: a window stays whole."""

from __future__ import annotations

from datetime import timedelta

import pytest

from airflow_provider_geminibatch.core.model import BatchId
from tests.faults import Plan
from tests.jobs.batches import seal
from tests.jobs.test_collect import World

ONE, OTHER = ["k0", "k1"], ["k0", "k1", "k2"]


def landed_in_turn(turns: int) -> World:
    """A window that the first run has landed, perhaps again after the second one had."""
    world = World(submitted=False)
    world.other = seal(world.store, rows=3, batch=BatchId("dag", "another run", "prepare"))  # type: ignore[attr-defined]
    for manifest in (world.manifest, world.other):  # type: ignore[attr-defined]
        world.submit(manifest)
    world.clock.advance(timedelta(hours=4))
    for turn in range(turns):
        world.load(world.other if turn % 2 else world.manifest)  # type: ignore[attr-defined]
    return world


def effects(turns: int) -> list[str]:
    world, plan = landed_in_turn(turns), Plan()
    world.load(world.other, plan=plan)  # type: ignore[attr-defined]
    return plan.seen


# Between its look at the manifest and a delete nobody can be stopped by files alone; see docs/exactly-once.md.
FROZEN = [(turns, at) for turns in (1, 3) for at, name in enumerate(effects(turns)) if "delete" not in name]


@pytest.mark.parametrize(("turns", "at"), FROZEN)
def test_a_run_that_is_frozen_while_the_other_lands_its_own_rows_once_more_leaves_a_whole_window(
    turns: int, at: int
) -> None:
    world = landed_in_turn(turns)
    plan = Plan(at, "frozen", meanwhile=lambda: world.load(world.manifest, me="cleared"))
    world.load(world.other, plan=plan)  # type: ignore[attr-defined]
    assert [row["key"] for row in world.rows()] in (ONE, OTHER)
