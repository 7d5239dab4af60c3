"""The order of result lines means nothing: whatever the service does, shuffled files land the same bytes.

What is compared are the parts of commits. Their names, and the manifest's checksum of results, follow from the files' bytes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_provider_geminibatch.core.landing import Place
from airflow_provider_geminibatch.core.reconcile import Reconciler
from airflow_provider_geminibatch.emulator import Emulator, Server, running
from airflow_provider_geminibatch.storage.stores import MemoryStore
from tests.jobs.test_collect import World
from tests.jobs.test_collect_scenarios import World as Emulated
from tests.jobs.test_spooled import ANY, PLACE, world_of
from tests.routes import ROUTES, Route

AFFECTED = (0, 3, 4)
SCENARIOS: list[tuple[str, dict[str, Any]]] = [
    ("empty", {}), ("blocked", {}), ("prompt_blocked", {}), ("truncated", {}), ("thoughts_only", {}), ("missing", {}),
    ("keyless", {}), ("unknown_key", {}), ("duplicate", {}), ("wrong_answer", {}), ("duplicate_differing", {}),
    ("failed_rows", {"codes": (13, 3)}), ("broken_json", {}), ("shuffled", {}), ("cut_download", {"times": 2}),
]  # fmt: skip


class Stirred:
    """A gateway whose downloads have their lines in another order."""

    def __init__(self, gateway: Any, seed: int) -> None:
        self._gateway, self._seed = gateway, seed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._gateway, name)

    @contextmanager
    def download(self, file_name: str, offset: int = 0) -> Iterator[Any]:
        chunks, at = [], 0
        while True:  # all of it, though the service may cut it
            with self._gateway.download(file_name, at) as whole:
                chunks += [bytes(chunk) for chunk in whole.chunks()]
            at = sum(map(len, chunks))
            if whole.size_bytes is None or at >= whole.size_bytes:
                break
        lines = b"".join(chunks).splitlines()
        random.Random(self._seed).shuffle(lines)
        yield _Said(b"".join(line + b"\n" for line in lines)[offset:], offset)


class _Said:
    def __init__(self, data: bytes, offset: int) -> None:
        self._data, self.offset, self.size_bytes = data, offset, offset + len(data)

    def chunks(self) -> Iterator[bytes]:
        yield self._data


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    emulator = Emulator(seed=5, start=datetime(2026, 11, 1, tzinfo=UTC), speed=0, turnaround=(2, 3))
    with running(emulator) as server:
        yield server


def copied(store: MemoryStore) -> MemoryStore:
    copy = MemoryStore(store.uri)
    for path in list(store.list("")):
        copy.write(path, store.read(path) or b"")
    return copy


def parts(world: Any, load: Callable[[], Any]) -> tuple[Any, ...]:
    """The bytes of a window, and what its manifest counts."""
    manifest = load().manifest
    data = [world.landing.read(f"{manifest.folder}/{part.path}") for part in manifest.parts]
    assert data and None not in data
    return data, manifest.counts, manifest.lines, manifest.tokens, manifest.cost_usd


@pytest.mark.parametrize("route", ROUTES, ids=str)
@pytest.mark.parametrize(("scenario", "settings"), [*SCENARIOS, ("all of them", {})], ids=str)
def test_shuffled_results_land_the_same_bytes(
    server: Server, route: Route, scenario: str, settings: dict[str, Any]
) -> None:
    world = Emulated(server, route)
    for name, its in SCENARIOS if scenario == "all of them" else [(scenario, settings)]:
        rows = {} if name in ("shuffled", "cut_download") else {"rows": AFFECTED}
        if scenario == "all of them" and rows:
            rows = {"rows": (SCENARIOS.index((name, its)),)}
        world.emulator.scenario(name, **rows, **its)
    world.submitted(rows=400)
    world.emulator.clock.advance(timedelta(hours=4))
    submitted, straight, found = world.store, world.gateway, []
    for seed in range(3):
        world.store, world.landing = copied(submitted), MemoryStore("memory://l")
        world.gateway = Stirred(straight, seed) if seed else straight
        found.append(parts(world, world.load))
    straight.close()
    assert found[1] == found[0]
    assert found[2] == found[0]


@pytest.mark.parametrize("place", [PLACE, Place("notes", "memory://landing", "jsonl")], ids=["parquet", "jsonl"])
def test_lines_of_all_shapes_land_the_same_in_any_order(place: Place) -> None:
    found = []
    for seed in range(3):
        world = world_of(7)
        for job, lines in world.service._lines.items():
            random.Random(seed).shuffle(lines)
            world.service._lines[job] = lines
        found.append(parts(world, lambda world=world: world.load(landing=place, thresholds=ANY)))  # type: ignore[misc]
    assert found[0] == found[1] == found[2]


def test_joining_by_position_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def by_position(
        self: Reconciler,
        keys: Sequence[str | None],
        kinds: Sequence[int],
        readable: Sequence[bool],
        places: Iterable[int],
    ) -> list[int]:
        rows = list(range(self._total, self._total + len(keys)))
        return self._take(rows, kinds, list(places))

    monkeypatch.setattr(Reconciler, "add", by_position)
    found = []
    for seed in range(2):
        world = World(shards=1, rows=50)
        for lines in world.service._lines.values():
            random.Random(seed).shuffle(lines)
        found.append(parts(world, world.load))
    assert found[0] != found[1]
