"""``cache=True`` as tasks have it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_geminibatch import Landing, RequestTemplate, read_window
from airflow_provider_geminibatch.emulator import Server
from tests.airflow.faces import context
from tests.airflow.test_batch_operator import rows, run, to_the_end, whole
from tests.airflow.test_operators import WINDOW, load, prepare, submit

pytestmark = pytest.mark.airflow
SHARED = RequestTemplate("What is $text?", key="$id", system_instruction="You are a careful weather forecaster. " * 150)


@pytest.fixture
def landing(tmp_path: Any) -> Landing:
    return Landing("answers", str(tmp_path / "landings" / "answers"))


def cached(landing: Landing) -> list[int]:
    return [row["tokens_cached"] for row in read_window(landing, "20180131T000000Z")]


def test_submit_puts_what_requests_share_into_a_cache(service: Server, workspace: str, landing: Landing) -> None:
    submitted = submit(prepare(rows("rain", "snow"), template=SHARED), cache=True, max_cost_usd=1)
    service.emulator.clock.advance(hours=6)
    landed = load(submitted, landing, context("load", **WINDOW))
    assert landed["counts"] == {"answer": 2}
    assert cached(landing) == [1425, 1425]
    assert service.emulator.log.count("caches.create") == service.emulator.log.count("files.delete") == 1
    assert Decimal(service.emulator.bill()["caches"]["storage_usd"]) > 0


def test_the_task_that_does_it_all_does_it_too(service: Server, workspace: str, landing: Landing) -> None:
    service.emulator.clock.run(speed=90_000)
    to_the_end(lambda: whole(landing, template=SHARED, cache=True), run())
    assert cached(landing) == [1425, 1425]
    assert service.emulator.log.count("caches.create") == 1
    assert service.emulator.log.count("caches.delete") == 1
