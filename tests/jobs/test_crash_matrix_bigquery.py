"""The crash matrix where requests lie in BigQuery: one request table, one job per shard, one commit, whatever goes wrong."""

from __future__ import annotations

from contextlib import closing
from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_geminibatch.emulator import Emulator, running
from airflow_provider_geminibatch.jobs.ending import read_batch
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage import landings
from tests.faults import Plan, crash_cases
from tests.jobs.tables_road import STAGES, START, WINDOW, Road, fill, gateway_to

COLUMNS = ("key", "outcome", "text", "stars")


def fresh(emulator: Emulator, server: Any) -> Road:
    fill(emulator)
    return Road(emulator, gateway_to(server))


def _emulator() -> Emulator:
    return Emulator(seed=3, start=START, speed=0, turnaround=(1, 2))


def quiet() -> tuple[dict[str, list[str]], list[tuple[Any, ...]], str]:
    """The effects of each stage on an undisturbed road, the rows that it lands, and what it costs."""
    with running(_emulator()) as server:
        road = fresh(server.emulator, server)
        with closing(road.gateway):
            seen = {}
            for name in STAGES:
                plan = Plan()
                road.stage(name, plan)
                seen[name] = plan.seen
                if name == "submit":
                    road.emulator.clock.advance(hours=30)
            rows = [tuple(row[name] for name in COLUMNS) for row in road.landed()]
            return seen, rows, road.emulator.bill()["total_usd"]


QUIET, UNDISTURBED, BILL = quiet()


def _matters(effect: str) -> bool:
    """What is of this route: the tables, the create, and the facts around them; the rest is in the other matrices."""
    facts = ("batch.json", "a01.uploaded", "a01.sending", "keys.json")
    return effect.startswith("tables.") or effect in ("gateway.create", *(f"store.create {name}" for name in facts))


@pytest.mark.parametrize(("stage", "at", "way"), crash_cases(QUIET, _matters))
def test_whatever_goes_wrong_each_shard_is_one_job_and_the_window_lands_once(stage: str, at: int, way: str) -> None:
    with running(_emulator()) as server:
        road = fresh(server.emulator, server)
        with closing(road.gateway):
            road.whole(stage, Plan(at, way, meanwhile=lambda: road.stage(stage)))

            assert [tuple(row[name] for name in COLUMNS) for row in road.landed()] == UNDISTURBED
            names = [job.display_name for job in road.emulator.jobs]
            # A create that slept through its own proven absence makes a job that finds no input: it fails and costs nothing.
            late = QUIET[stage][at] == "gateway.create" and way == "frozen"
            assert len(names) == len(set(names)) == (3 if late else 2)
            states = sorted(road.emulator.state(job.name) for job in road.emulator.jobs)
            assert states[-2:] == ["JOB_STATE_SUCCEEDED"] * 2
            assert states[:-2] in ([], ["JOB_STATE_CANCELLED"], ["JOB_STATE_FAILED"])
            assert road.emulator.bill()["total_usd"] == BILL
            manifest = landings.read_manifest(road.landing, WINDOW)
            assert manifest is not None
            assert Decimal(manifest.cost_usd or 0) >= Decimal(road.emulator.bill()["total_usd"]) > 0
            batch = read_batch(road.manifest, road.store)
            assert all(fact_store.shard_facts(road.store, job.ledger).last.collected for job in batch.jobs)  # type: ignore[union-attr]
            # One request table; of the inputs nothing is left, of each job its output.
            tables = road.table_names()
            assert len([name for name in tables if name.count("_") == 1]) == 1
            assert len([name for name in tables if name.endswith("_out")]) == 2


def test_the_matrix_has_every_kind_of_effect() -> None:
    kinds = {name for names in QUIET.values() for name in names if name.startswith("tables.")}
    assert {
        "tables.run",
        "tables.expire",
        "tables.columns_of",
        "tables.location",
        "tables.table",
        "tables.rows",
    } <= kinds
    assert QUIET["submit"].count("gateway.create") == 2
