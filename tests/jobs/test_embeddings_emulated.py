"""What the service may do to a batch of embeddings, and what becomes of it. Against the emulator, over HTTP."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_geminibatch.core.embed_template import EmbedTemplate
from airflow_provider_geminibatch.core.landing import CommitManifest, Place, RunRef
from airflow_provider_geminibatch.core.model import BatchId, Owner
from airflow_provider_geminibatch.core.verdict import Thresholds
from airflow_provider_geminibatch.emulator import Emulator, Server, running
from airflow_provider_geminibatch.gemini.developer import DeveloperGateway, Settings
from airflow_provider_geminibatch.jobs.collect import collect
from airflow_provider_geminibatch.jobs.declaration import Declaration
from airflow_provider_geminibatch.jobs.prepare import prepare
from airflow_provider_geminibatch.jobs.submit import Submitted, submit
from airflow_provider_geminibatch.storage.landings import FileLanding, read_rows
from airflow_provider_geminibatch.storage.stores import MemoryStore

LOG = logging.getLogger("test")
ROWS = 10
AFFECTED = (0, 3)
DECLARED = Declaration(
    model="gemini-embedding-2", template=EmbedTemplate("text $n", key="k$n", title="$n", output_dimensionality=8)
)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running(Emulator(seed=3, start=datetime(2026, 11, 1, tzinfo=UTC), speed=0, turnaround=(2, 3))) as server:
        yield server


class World:
    """One batch of embeddings, through to a window in Parquet."""

    def __init__(self, server: Server) -> None:
        self.emulator = server.emulator
        self.emulator.reset()
        self.gateway = DeveloperGateway(Settings("key", server.url))
        self.store, self.landing = MemoryStore("memory://w"), MemoryStore("memory://l")

    def landed(self) -> tuple[list[dict[str, Any]], CommitManifest]:
        now = self.emulator.clock.now
        manifest = prepare(
            DECLARED, lambda: [{"n": number} for number in range(ROWS)], store=self.store, workspace_id="w",
            batch=BatchId("dag", "run", "prepare"), service=self.gateway.identity, me="p", now=now, log=LOG,
        ).manifest  # fmt: skip
        assert isinstance(submit(manifest, store=self.store, gateway=self.gateway, me="s", now=now, log=LOG), Submitted)
        self.emulator.clock.advance(timedelta(hours=4))
        done = collect(
            (manifest,), open_store=lambda uri: self.store, gateway=self.gateway, window="w",
            landing=Place("vectors", "memory://l", "parquet"), landing_store=FileLanding(self.landing),
            owner=Owner("dag", "load"), run=RunRef("dag", "run", "load"), thresholds=Thresholds(max_unresolved=0.9),
            me="l", now=now, log=LOG, sleep=lambda seconds: self.emulator.clock.advance(timedelta(seconds=seconds)),
        )  # fmt: skip
        return list(read_rows(self.landing, "w")), done.manifest


@pytest.fixture
def world(server: Server) -> Iterator[World]:
    world = World(server)
    yield world
    world.gateway.close()


@pytest.fixture(scope="module")
def undisturbed(server: Server) -> list[list[float]]:
    world = World(server)
    rows, _ = world.landed()
    world.gateway.close()
    return [row["embedding"] for row in rows]


def test_every_row_has_a_vector_of_the_length_that_was_asked_for(world: World) -> None:
    rows, manifest = world.landed()
    assert [row["key"] for row in rows] == [f"k{number}" for number in range(ROWS)]
    assert [len(row["embedding"]) for row in rows] == [8] * ROWS
    assert len({tuple(row["embedding"]) for row in rows}) == ROWS
    assert manifest.counts["answer"] == ROWS


@pytest.mark.parametrize("scenario", [None, "usage_metadata"])
def test_the_cost_is_that_of_the_bill(world: World, scenario: str | None) -> None:
    if scenario:
        world.emulator.scenario(scenario)
    rows, manifest = world.landed()
    assert sum(row["cost_usd"] for row in rows) == Decimal(manifest.cost_usd or "x")
    assert Decimal(manifest.cost_usd or "x") == Decimal(str(world.emulator.bill()["total_usd"])) > 0
    assert all(row["tokens_prompt"] > 0 == row["tokens_candidates"] for row in rows)


@pytest.mark.parametrize(
    ("scenario", "settings", "outcome", "error"),
    [
        ("short_vector", {}, "invalid", "the vector has 4 dimensions, where 8 were asked for"),
        ("missing", {}, "missing", "the result file holds no line for this row"),
        ("keyless", {}, "missing", "the result file holds no line for this row"),
        ("unknown_key", {}, "missing", "the result file holds no line for this row"),
        ("duplicate", {}, "answer", None),
        ("duplicate_differing", {}, "failed", "conflict: 2 lines answer this row and differ"),
        ("failed_rows", {"codes": (13,)}, "failed", "Internal error encountered."),
        ("failed_rows", {"codes": (3,), "under": "response.error"}, "failed", "Request contains an invalid argument."),
    ],
)
def test_a_misbehaving_row_gets_its_outcome_and_no_other_row_is_touched(
    world: World,
    undisturbed: list[list[float]],
    scenario: str,
    settings: dict[str, Any],
    outcome: str,
    error: str | None,
) -> None:
    world.emulator.scenario(scenario, rows=AFFECTED, **settings)
    rows, _ = world.landed()
    for number, row in enumerate(rows):
        expected = (outcome, error) if number in AFFECTED else ("answer", None)
        assert (row["outcome"], row["error"]) == expected
        assert row["embedding"] == (undisturbed[number] if expected[0] == "answer" else None)


@pytest.mark.parametrize("scenario", ["shuffled", "cut_download", "listed_late", "output_only_in_response"])
def test_vectors_land_in_their_own_rows_whatever_the_road(
    world: World, undisturbed: list[list[float]], scenario: str
) -> None:
    world.emulator.scenario(scenario)
    rows, _ = world.landed()
    assert [row["embedding"] for row in rows] == undisturbed
