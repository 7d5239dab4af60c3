"""A whole batch whose requests name media, against the emulator: also what is asked again finds them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_geminibatch.core.batch import BatchPolicy, Rung
from airflow_provider_geminibatch.core.canary import Canary
from airflow_provider_geminibatch.core.model import BatchId
from airflow_provider_geminibatch.core.template import RequestTemplate
from airflow_provider_geminibatch.core.verdict import Thresholds
from airflow_provider_geminibatch.emulator import Emulator, Server, running
from airflow_provider_geminibatch.jobs.prepare import Declaration, prepare
from airflow_provider_geminibatch.jobs.whole import Waiting
from tests.jobs.test_whole_emulated import LOG, World
from tests.media_files import mp4, png, wav
from tests.routes import DEVELOPER

START = datetime(2026, 11, 1, tzinfo=UTC)
FLEX = BatchPolicy(deadline=timedelta(hours=11), ladder=(Rung("flex", limit=timedelta(hours=1)),))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running(Emulator(seed=3, start=START, speed=0, turnaround=(2, 3))) as server:
        yield server


def sealed(world: World, rows: list[dict[str, Any]], shards: int = 1) -> None:
    """The batch of a world, from rows with media."""
    declared = Declaration(
        model="gemini-3.8-flash",
        source_name="media",
        template=RequestTemplate(prompt="What is it?", media="$media", inline_limit_bytes=1000),
        max_rows_per_shard=3 // shards,
    )
    world.manifest = prepare(
        declared, lambda: iter(rows), store=world.store, workspace_id="w1", batch=BatchId("dag", "run", "media"),
        service=world.gateway.identity, me="p", now=world.now, log=LOG,
    ).manifest  # fmt: skip


class MediaWorld(World):
    """Three rows: a small image, a sound and a film that are uploaded."""

    def __init__(self, server: Server, folder: Path, *, shards: int = 1) -> None:
        super().__init__(server, DEVELOPER)
        self.film = folder / "film.mp4"
        self.film.write_bytes(mp4() + bytes(2000))
        rows = [{"id": "k0", "media": png()}, {"id": "k1", "media": wav(2000)}, {"id": "k2", "media": str(self.film)}]
        sealed(self, rows, shards)

    def media_at_the_service(self) -> list[str]:
        return [file.name for file in self.gateway.file_page().files if "-media-" in file.display_name]


def test_rows_with_media_are_answered_and_cost_what_the_service_bills(server: Server, tmp_path: Path) -> None:
    world = MediaWorld(server, tmp_path, shards=3)
    with closing(world.gateway):
        landed = world.on(BatchPolicy())

        assert world.rows() == [(f"k{number}", "answer", 0) for number in range(3)]
        assert Decimal(landed.manifest.cost_usd or 0) >= world.bill > 0
        assert len(world.media_at_the_service()) == 2


def test_a_round_asks_again_with_the_same_media(server: Server, tmp_path: Path) -> None:
    world = MediaWorld(server, tmp_path)
    with closing(world.gateway):
        world.emulator.scenario("empty", rows=(0, 2))
        assert isinstance(world.walk(BatchPolicy()), Waiting)
        world.emulator.switch_off("empty")
        world.on(BatchPolicy())

        assert world.rows() == [("k0", "answer", 1), ("k1", "answer", 0), ("k2", "answer", 1)]
        assert len(world.media_at_the_service()) == 2


def test_a_rescue_asks_row_by_row_with_the_media_that_are_there(server: Server, tmp_path: Path) -> None:
    world = MediaWorld(server, tmp_path)
    with closing(world.gateway):
        world.emulator.scenario("never_finishes")
        world.on(FLEX)

        assert world.rows() == [(f"k{number}", "answer", None) for number in range(3)]
        assert len(world.media_at_the_service()) == 2


def test_a_rescue_uploads_again_what_is_gone_and_waits_for_a_video(server: Server, tmp_path: Path) -> None:
    world = MediaWorld(server, tmp_path)
    with closing(world.gateway):
        world.emulator.scenario("never_finishes")
        assert isinstance(world.walk(FLEX), Waiting)
        for name in world.media_at_the_service():
            world.gateway.delete_file(name)
        world.emulator.scenario("slow_media", minutes=2)
        world.on(FLEX)

        assert world.rows() == [(f"k{number}", "answer", None) for number in range(3)]


def test_a_rescue_leaves_out_a_row_whose_medium_cannot_be_had_any_more(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = MediaWorld(server, tmp_path)
    policy = BatchPolicy(deadline=FLEX.deadline, ladder=FLEX.ladder, thresholds=Thresholds(max_unresolved=1.0))
    with closing(world.gateway):
        world.emulator.scenario("never_finishes")
        assert isinstance(world.walk(policy), Waiting)
        for name in world.media_at_the_service():
            world.gateway.delete_file(name)
        world.film.unlink()
        world.on(policy)

        assert [outcome for _, outcome, _ in world.rows()] == ["answer", "answer", "failed"]
        assert "row 2 of shard 0 is not asked: the video/mp4 of line 2 in" in caplog.text


def test_a_round_whose_medium_cannot_be_had_any_more_costs_nothing_that_is_there(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = MediaWorld(server, tmp_path)
    policy = BatchPolicy(thresholds=Thresholds(max_unresolved=1.0), max_cost_usd=Decimal(20))
    with closing(world.gateway):
        world.emulator.scenario("empty", rows=(2,))
        waiting = world.walk(policy)
        assert isinstance(waiting, Waiting)
        world.emulator.clock.advance(seconds=6 * 3600)
        assert {world.gateway.job(name).state for name in waiting.job_names} == {"SUCCEEDED"}
        world.emulator.switch_off("empty")
        for name in world.media_at_the_service():
            world.gateway.delete_file(name)
        world.film.unlink()
        world.on(policy)

        assert [outcome for _, outcome, _ in world.rows()] == ["answer", "answer", "empty"]
        assert "is not what was prepared: no such file" in caplog.text


def test_a_round_whose_rows_name_a_file_that_is_gone_by_then_costs_nothing_that_is_there(
    server: Server, tmp_path: Path
) -> None:
    world = World(server, DEVELOPER)
    with closing(world.gateway):
        own = world.gateway.upload(BytesIO(png()), size_bytes=len(png()), display_name="mine", mime_type="image/png")
        sealed(world, [{"id": f"k{number}", "media": own.uri} for number in range(3)])
        world.emulator.scenario("empty", rows=(1,))
        waiting = world.walk(BatchPolicy())
        assert isinstance(waiting, Waiting)
        world.emulator.clock.advance(seconds=6 * 3600)
        assert world.gateway.job(waiting.job_names[0]).state == "SUCCEEDED"
        world.emulator.switch_off("empty")
        world.gateway.delete_file(own.name)
        world.on(BatchPolicy(thresholds=Thresholds(max_unresolved=1.0)))

        assert [outcome for _, outcome, _ in world.rows()] == ["answer", "empty", "answer"]


def test_a_canary_asks_with_media_and_what_it_answered_is_not_sent_again(server: Server, tmp_path: Path) -> None:
    world = MediaWorld(server, tmp_path)
    policy = BatchPolicy(canary=Canary(rows=2, max_share=0.7))
    with closing(world.gateway):
        world.emulator.scenario("slow_media", times=9, minutes=2)
        landed = world.on(policy)

        assert [outcome for _, outcome, _ in world.rows()] == ["answer"] * 3
        assert len(world.emulator.jobs) == 1
        assert world.emulator.jobs[0].rows.count == 1
        assert len(world.media_at_the_service()) <= 2
        assert Decimal(landed.manifest.cost_usd or 0) >= world.bill > 0
