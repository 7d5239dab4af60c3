"""Prompt caches on the road: made once, named by every request, alive for every job, gone with the batch, on the bill."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.core.manifest import Manifest
from airflow_provider_geminibatch.core.steps import Policy
from airflow_provider_geminibatch.core.template import RequestTemplate
from airflow_provider_geminibatch.emulator import Emulator, running
from airflow_provider_geminibatch.gemini.developer import DeveloperGateway, Settings
from airflow_provider_geminibatch.jobs.budget import Books
from airflow_provider_geminibatch.jobs.declaration import Declaration
from airflow_provider_geminibatch.jobs.submit import Submitted, submit
from airflow_provider_geminibatch.storage import landings
from airflow_provider_geminibatch.storage.stores import MemoryStore
from airflow_provider_geminibatch.testing import InMemoryGateway, ManualClock
from tests.faults import Plan, crash_cases
from tests.jobs.batches import seal
from tests.jobs.test_crash_matrix import LOG, STAGES, WINDOW, Road

START = datetime(2026, 11, 1, tzinfo=UTC)
SYSTEM = "You are a careful librarian. " * 200
DECLARATION = Declaration(
    model="gemini-3.8-flash",
    source_name="rows",
    template=RequestTemplate(prompt="Say $text", key="$id", columns=("region",), system_instruction=SYSTEM),
    max_rows_per_shard=2,
)
WHOLE = {"systemInstruction": {"parts": [{"text": SYSTEM}]}}


class CacheRoad(Road):
    """The same road, with a prompt cache."""

    cache = True
    limit: Decimal | None = None

    def submit(self, plan: Plan) -> Submitted:
        me, later, store = self._me(), self.tries > 2, self._store(plan)
        manifest = self.manifest
        books = Books(store, manifest.path.partition("/builds/")[0], self.limit, me=me, now=self.now)
        while True:
            end = submit(
                manifest, store=store, gateway=self._gateway(plan), me=me, now=self.now, log=LOG,
                max_tries=2, later_try=later, policy=Policy(cache=self.cache), books=books,
            )  # fmt: skip
            if isinstance(end, Submitted):
                return end
            self.emulator.clock.advance(seconds=max((end.until - self.now()).total_seconds(), 1))

    def landed(self) -> list[tuple[Any, ...]]:
        return [(row["key"], row["outcome"], row["text"], row["region"]) for row in self.rows()]

    def standing(self) -> list[dict[str, Any]]:
        """The caches that are at the service."""
        reply = self.gateway._send("GET", "/cachedContents", "list").json()
        assert reply is not None
        return reply.get("cachedContents", [])

    def bill(self) -> Decimal:
        return Decimal(self.emulator.bill()["total_usd"])

    def told(self) -> Decimal:
        """What the manifest says that it cost, prompt caches included."""
        manifest = landings.read_manifest(self.landing, WINDOW)
        assert manifest is not None and manifest.cost_usd is not None
        return Decimal(manifest.cost_usd) + Decimal(manifest.cache_storage_usd or 0)


def service() -> Emulator:
    return Emulator(seed=3, start=START, speed=0, turnaround=(1, 2))


@pytest.fixture
def road() -> Iterator[CacheRoad]:
    with running(service()) as server:
        gateway = DeveloperGateway(Settings("key", server.url, timeout_seconds=10))
        with closing(gateway):
            yield CacheRoad(server.emulator, gateway, DECLARATION)


def test_answers_are_those_of_whole_requests_for_less(road: CacheRoad) -> None:
    road.whole()
    cached, paid = road.landed(), road.told()
    assert len(cached) == 5
    assert {outcome for _, outcome, _, _ in cached} == {"answer"}
    assert all(row["tokens_cached"] == 1450 for row in road.rows())
    assert paid >= road.bill()
    with running(service()) as server, closing(DeveloperGateway(Settings("key", server.url))) as gateway:
        plain = CacheRoad(server.emulator, gateway, DECLARATION)
        plain.cache = False
        plain.whole()
        assert plain.landed() == cached
        rows = sum(Decimal(str(row["cost_usd"])) for row in road.rows())
        assert rows < Decimal("0.6") * plain.told()  # the answers cost the same


def test_one_cache_serves_all_shards_and_goes_with_the_batch(road: CacheRoad) -> None:
    road.stage("prepare")
    road.stage("submit")
    (cache,) = road.standing()
    assert road.emulator.log.count("caches.create") == 1
    assert cache["displayName"].startswith("gb1-")
    road.emulator.clock.advance(hours=3)
    road.stage("end")
    road.stage("load")
    assert road.standing() == []


def test_a_shard_that_is_sent_days_later_finds_the_cache_alive(road: CacheRoad) -> None:
    road.emulator.scenario("burst_429", times=40, after=1, retry_after=7200)
    road.stage("prepare")
    submit_at = road.now()
    road.stage("submit")
    assert road.now() - submit_at > timedelta(hours=3)
    assert road.emulator.log.count("caches.update") >= 1
    road.emulator.clock.advance(hours=3)
    road.stage("end")
    road.stage("load")
    assert {outcome for _, outcome, _, _ in road.landed()} == {"answer"}


def test_a_small_prefix_is_sent_whole(caplog: pytest.LogCaptureFixture) -> None:
    with running(service()) as server, closing(DeveloperGateway(Settings("key", server.url))) as gateway:
        template = RequestTemplate(prompt="Say $text", key="$id", columns=("region",), system_instruction="Be brief.")
        road = CacheRoad(server.emulator, gateway, replace(DECLARATION, template=template))
        with caplog.at_level(logging.INFO):
            road.whole()
        assert {outcome for _, outcome, _, _ in road.landed()} == {"answer"}
        assert server.emulator.log.count("caches.create") == 1
        assert [text for text in caplog.messages if "requests are sent whole" in text and "too small" in text]
        assert landings.read_manifest(road.landing, WINDOW).cache_storage_usd is None  # type: ignore[union-attr]


def test_a_budget_bears_a_cache_or_there_is_none(road: CacheRoad) -> None:
    road.limit = Decimal("0.0001")
    road.stage("prepare")
    road.stage("submit")
    assert road.emulator.log.count("caches.create") == 0
    assert len(road.emulator.jobs) == 3


def test_a_budget_is_charged_what_keeping_it_may_cost(road: CacheRoad) -> None:
    road.limit = Decimal(1)
    road.stage("prepare")
    road.stage("submit")
    generation = road.manifest.path.partition("/builds/")[0]
    charged = Books(road.store, generation, None, me="", now=road.now).account().charged_usd
    # 5,800 bytes hold no more tokens than that, and 50 hours are the most that they are kept.
    assert Decimal("0.14") < charged < Decimal("0.16")


def test_a_route_without_caches_says_so() -> None:
    clock, store = ManualClock(START), MemoryStore("memory://ws")
    manifest: Manifest = seal(store, **WHOLE)
    with pytest.raises(Unusable, match="takes no prompt caches in a batch"):
        submit(
            manifest,
            store=store,
            gateway=InMemoryGateway(clock),
            me="me",
            now=clock,
            log=LOG,
            policy=Policy(cache=True),
        )


def test_a_request_with_a_cache_of_its_own_is_left_alone(road: CacheRoad) -> None:
    manifest = seal(road.store, cachedContent="cachedContents/own")
    submit(manifest, store=road.store, gateway=road.gateway, me="me", now=road.now, log=LOG, policy=Policy(cache=True))
    assert road.emulator.log.count("caches.create") == 0


def test_a_lost_reply_is_looked_up(road: CacheRoad) -> None:
    road.emulator.scenario("cache_reply_lost")
    road.whole()
    assert road.emulator.log.count("caches.create") == 1
    assert road.standing() == []
    assert len(road.landed()) == 5


def quiet() -> tuple[dict[str, list[str]], list[tuple[Any, ...]]]:
    with running(service()) as server, closing(DeveloperGateway(Settings("key", server.url))) as gateway:
        road, seen = CacheRoad(server.emulator, gateway, DECLARATION), {}
        for name in STAGES:
            seen[name] = (plan := Plan()).seen
            road.stage(name, plan)
            if name == "submit":
                server.emulator.clock.advance(hours=3)
        return seen, road.landed()


def concerns_caches(effect: str) -> bool:
    """Whether caches bring it in, or it stands beside one that they do; the others have a matrix of their own."""
    return "cache" in effect or any(word in effect for word in ("asked", "0001", "delete_file", "uploaded", "upload"))


QUIET, UNDISTURBED = quiet()
CASES = crash_cases(QUIET, concerns_caches)


def test_the_quiet_road_makes_one_cache() -> None:
    assert QUIET["submit"].count("gateway.make_cache") == 1
    assert QUIET["submit"].count("store.create 0001.asked") == 1


@pytest.mark.parametrize(("stage", "at", "way"), CASES)
def test_whatever_goes_wrong_every_job_has_its_cache_and_none_stays(
    road: CacheRoad, stage: str, at: int, way: str
) -> None:
    meanwhile: Callable[[], object] = lambda: road.stage(stage)  # noqa: E731
    road.whole(stage, Plan(at, way, meanwhile=meanwhile))

    assert road.landed() == UNDISTURBED
    assert len({job.display_name for job in road.emulator.jobs}) == len(road.emulator.jobs) == 3
    # A create whose reply was lost while another try made one as well can leave a cache of the same name, until it expires.
    assert len(road.standing()) <= road.emulator.log.count("caches.create") - 1
    assert road.told() + Decimal("0.04") * len(road.standing()) >= road.bill()
