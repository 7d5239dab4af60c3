"""A generation that refers to shards of an earlier one: its own work counts from its own beginning."""

from __future__ import annotations

import logging
from datetime import timedelta

from airflow_provider_geminibatch.core.batch import BatchPolicy, Rung
from airflow_provider_geminibatch.core.landing import Place, RunRef
from airflow_provider_geminibatch.core.manifest import Manifest
from airflow_provider_geminibatch.core.model import Owner
from airflow_provider_geminibatch.core.template import RequestTemplate
from airflow_provider_geminibatch.jobs.collect import Landed
from airflow_provider_geminibatch.jobs.declaration import Declaration
from airflow_provider_geminibatch.jobs.ending import read_batch
from airflow_provider_geminibatch.jobs.prepare import prepare
from airflow_provider_geminibatch.jobs.whole import Waiting, walk
from airflow_provider_geminibatch.storage.landings import FileLanding, read_rows
from airflow_provider_geminibatch.storage.stores import MemoryStore
from airflow_provider_geminibatch.testing import InMemoryGateway, ManualClock
from tests.jobs.batches import BATCH

LOG = logging.getLogger("test")
DECLARED = Declaration(
    model="gemini-3.8-flash", source_name="rows", template=RequestTemplate("Say $text"), max_rows_per_shard=1
)
POLICY = BatchPolicy(deadline=timedelta(hours=11), ladder=(Rung("flex"),))


class World:
    """A batch whose rows may change between clears."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store, self.landing = MemoryStore("memory://w"), MemoryStore("memory://l")
        self.service = InMemoryGateway(self.clock)

    def prepare(self, *texts: str, max_tries: int = 1) -> Manifest:
        rows = [{"id": f"k{number}", "text": text} for number, text in enumerate(texts)]
        return prepare(
            DECLARED, lambda: rows, store=self.store, workspace_id="w", batch=BATCH, service=self.service.identity,
            me=f"me-{max_tries}", now=self.clock, log=LOG, max_tries=max_tries,
        ).manifest  # fmt: skip

    def walk(self, manifest: Manifest, max_tries: int = 1) -> Landed | Waiting:
        return walk(
            manifest, store=self.store, gateways=lambda _: self.service, policy=POLICY,
            landing=Place("notes", "memory://l", "jsonl"), landing_store=FileLanding(self.landing), window="w",
            owner=Owner("dag", "ask"), run=RunRef("dag", "run", "ask"), me=f"me-{max_tries}", now=self.clock, log=LOG,
            max_tries=max_tries, later_try=max_tries > 1,
        )  # fmt: skip


def test_a_deadline_counts_from_the_own_work_and_not_from_what_is_taken_over() -> None:
    world = World()
    assert isinstance(world.walk(world.prepare("a", "b")), Waiting)
    world.clock.advance(timedelta(hours=3))
    assert isinstance(world.walk(world.prepare("a", "b")), Landed)

    world.clock.advance(timedelta(days=2))
    changed = world.prepare("a", "c", max_tries=3)
    assert world.walk(changed, max_tries=3).until == world.clock() + timedelta(hours=11)  # type: ignore[union-attr]

    assert read_batch(changed, world.store).intent_at == world.clock()
    assert (len(world.service.created), len(world.service.generated)) == (3, 0)
    world.clock.advance(timedelta(hours=2))
    assert isinstance(world.walk(changed, max_tries=3), Landed)
    assert [row["text"] for row in read_rows(world.landing, "w")] == ["Say a", "Say c"]


def test_what_is_only_taken_over_counts_from_when_it_was_begun() -> None:
    world = World()
    begun = world.clock()
    world.walk(world.prepare("a", "b"))
    world.clock.advance(timedelta(minutes=30))

    fewer = world.prepare("a", max_tries=3)
    assert world.walk(fewer, max_tries=3).until == begun + timedelta(hours=11)  # type: ignore[union-attr]
    assert len(world.service.created) == 2
