"""The crash matrix of media: preparing and submitting requests that name files, with every effect going wrong in every way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_geminibatch.core.manifest import Manifest
from airflow_provider_geminibatch.core.steps import Policy
from airflow_provider_geminibatch.core.template import RequestTemplate
from airflow_provider_geminibatch.emulator import Emulator, running
from airflow_provider_geminibatch.gemini.developer import DeveloperGateway, Settings
from airflow_provider_geminibatch.jobs.prepare import Declaration, prepare
from airflow_provider_geminibatch.jobs.submit import Submitted, submit
from tests.faults import Plan, crash_cases
from tests.jobs.test_crash_matrix import BATCH, LOG, Road
from tests.media_files import mp4, png, wav

START = datetime(2026, 11, 1, tzinfo=UTC)
SOUND, VIDEO = wav(2000), mp4() + bytes(2000)
# Two shards: the first needs both, the second one of them again. One medium is small enough for its request.
ROWS = [
    {"id": "k0", "text": "a", "region": "eu", "media": [SOUND, png()]},
    {"id": "k1", "text": "b", "region": "eu", "media": VIDEO},
    {"id": "k2", "text": "c", "region": "us", "media": SOUND},
]
DECLARATION = Declaration(
    model="gemini-3.8-flash",
    source_name="rows",
    template=RequestTemplate(
        prompt="Say $text", key="$id", columns=("region",), media="$media", inline_limit_bytes=1000
    ),
    max_rows_per_shard=2,
)


class MediaRoad(Road):
    """The same road, with media; one at a time, so that effects can be counted."""

    def prepare(self, plan: Plan) -> Manifest:
        return prepare(
            DECLARATION, lambda: iter(ROWS), store=self._store(plan), workspace_id="w", batch=BATCH,
            service=self.gateway.identity, me=self._me(), now=self.now, log=LOG, max_tries=2,
        ).manifest  # fmt: skip

    def submit(self, plan: Plan) -> Submitted:
        me, later = self._me(), self.tries > 2
        while True:
            end = submit(
                self.manifest, store=self._store(plan), gateway=self._gateway(plan), me=me, now=self.now, log=LOG,
                max_tries=2, later_try=later, policy=Policy(media_threads=1),
            )  # fmt: skip
            if isinstance(end, Submitted):
                return end
            self.emulator.clock.advance(seconds=max((end.until - self.now()).total_seconds(), 1))

    def media_facts(self) -> list[str]:
        return [path.rpartition("/")[2] for path in self.store.list("media")]


def service() -> Emulator:
    emulator = Emulator(seed=3, start=START, speed=0, turnaround=(1, 2))
    emulator.scenario("slow_media", times=9, minutes=1)
    return emulator


@pytest.fixture
def road() -> Iterator[MediaRoad]:
    with running(service()) as server:
        made = MediaRoad(server.emulator, DeveloperGateway(Settings("key", server.url, timeout_seconds=10)))
        with closing(made.gateway):
            yield made


def quiet() -> tuple[dict[str, list[str]], list[tuple[Any, ...]]]:
    with running(service()) as server:
        road = MediaRoad(server.emulator, DeveloperGateway(Settings("key", server.url, timeout_seconds=10)))
        with closing(road.gateway):
            seen = {}
            for name in ("prepare", "submit"):
                seen[name] = (plan := Plan()).seen
                road.stage(name, plan)
            server.emulator.clock.advance(hours=3)
            road.stage("end")
            road.stage("load")
            return seen, landed(road)


def landed(road: MediaRoad) -> list[tuple[Any, ...]]:
    """The rows but their answers, which are made from requests that hold the address of the service."""
    return [(row["key"], row["outcome"], row["region"]) for row in road.rows()]


def concerns_media(effect: str) -> bool:
    """Whether it is an effect that media bring in, or one beside it; the others have their own matrix."""
    act, _, path = effect.partition(" ")
    fact = path.startswith("a0") and act == "store.read"
    return not fact and (
        act.startswith("gateway") or any(word in path for word in ("media", "000", "claim", "uploaded"))
    )


QUIET, UNDISTURBED = quiet()
CASES = crash_cases(QUIET, concerns_media)


def test_the_quiet_road_uploads_each_content_once_and_waits_for_the_video() -> None:
    effects = QUIET["submit"]

    assert effects.count("gateway.upload") == 2 + 2
    assert effects.count("store.create 0001.json") == 2
    assert effects.count("gateway.file") > 3
    assert [outcome for _, outcome, _ in UNDISTURBED] == ["answer"] * 3


@pytest.mark.parametrize(("stage", "at", "way"), CASES)
def test_no_content_is_recorded_twice_and_no_job_points_at_a_dead_file(
    road: MediaRoad, stage: str, at: int, way: str
) -> None:
    road.whole(stage, Plan(at, way, meanwhile=lambda: road.stage(stage)))

    # A row whose media the service cannot read when it comes to it would have failed.
    assert landed(road) == UNDISTURBED
    assert road.media_facts() == ["0001.json"] * 2
    assert len({job.display_name for job in road.emulator.jobs}) == len(road.emulator.jobs) == 2
