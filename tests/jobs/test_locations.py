"""The choice of a place by what a workspace has on record: history by service, prices by location, and where a batch is."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from airflow_provider_geminibatch.core.errors import StoreUnreadable, Unusable
from airflow_provider_geminibatch.core.landing import JobRef
from airflow_provider_geminibatch.core.ledger import Forgotten
from airflow_provider_geminibatch.core.locations import Candidate, Needs
from airflow_provider_geminibatch.core.model import BatchId, Build, ServiceIdentity
from airflow_provider_geminibatch.core.names import generation_path
from airflow_provider_geminibatch.core.prices import parse_prices
from airflow_provider_geminibatch.core.template import RequestTemplate
from airflow_provider_geminibatch.jobs.closing import history_path
from airflow_provider_geminibatch.jobs.declaration import Declaration
from airflow_provider_geminibatch.jobs.locations import anything_sent, choose_location, standing_opening
from airflow_provider_geminibatch.jobs.prepare import prepare
from airflow_provider_geminibatch.jobs.price_list import PriceBook
from airflow_provider_geminibatch.storage import facts
from airflow_provider_geminibatch.storage.stores import MemoryStore

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
LOG = logging.getLogger(__name__)
MODEL = "gemini-3.8-flash"
NEEDS = Needs(model=MODEL)


def place(location):
    service = ServiceIdentity("vertex", f"https://{location}-aiplatform.googleapis.com", "p", location)
    return Candidate(address=f"vertex@{location}", service=service)


EUROPE, CENTRAL = place("europe-west4"), place("us-central1")
BUILD = Build(
    id="b", tag="b", batch=BatchId("dag", "run", "task"), generation=1, workspace_id="w", workspace_uri="memory://w",
    model=MODEL, created_at=NOW, shards=(), rows=0, size_bytes=0,
)  # fmt: skip


@pytest.fixture
def store():
    return MemoryStore()


def leave(store, where, count, hours, *, state="SUCCEEDED"):
    """Jobs as closed batches leave them in the history."""
    for number in range(count):
        ended = NOW - timedelta(hours=number)
        job = JobRef(
            name=f"{where.address}/{number}",
            shard="shard 0",
            state=state,
            created_at=ended - timedelta(hours=hours),
            ended_at=ended,
            rows=500,
        )
        store.create(history_path(BUILD, str(where.service), job), b"")


def chosen(store, places, **more):
    return choose_location(places, NEEDS, store=store, book=more.pop("book", PriceBook()), now=NOW, log=LOG, **more)


def test_the_history_of_each_place_is_its_own(store):
    leave(store, EUROPE, 57, 6.3)
    leave(store, CENTRAL, 41, 2.1)
    found = chosen(store, [EUROPE, CENTRAL])
    assert found.candidate.service == CENTRAL.service
    assert found.why == (
        "vertex us-central1: half of 41 similar jobs took 2.1 h against 6.3 h at vertex europe-west4 (57 jobs); same price; chosen"
    )


def test_a_thin_history_leaves_the_order_alone(store):
    leave(store, EUROPE, 57, 6.3)
    leave(store, CENTRAL, 4, 0.5)
    assert chosen(store, [EUROPE, CENTRAL]).candidate.service == EUROPE.service


def test_jobs_that_expired_count_as_slow_and_failed_ones_not_at_all(store):
    leave(store, EUROPE, 20, 72, state="EXPIRED")
    leave(store, CENTRAL, 20, 30)
    assert chosen(store, [EUROPE, CENTRAL]).candidate.service == CENTRAL.service
    leave(store, CENTRAL, 30, 0.1, state="FAILED")
    assert "half of 20 similar jobs took 30.0 h" in chosen(store, [EUROPE, CENTRAL]).why


def test_prices_of_a_location_are_told_apart(store):
    leave(store, EUROPE, 20, 4)
    leave(store, CENTRAL, 20, 4.2)
    prices = b"""{"models": {"gemini-3.8-flash at europe-west4": [{"input": "0.9", "output": "4"}],
                             "gemini-3.8-flash": [{"input": "0.75", "output": "3.75"}]}}"""
    book = PriceBook(parse_prices(prices, "prices.json"))
    found = chosen(store, [EUROPE, CENTRAL], book=book)
    assert found.candidate.service == CENTRAL.service
    assert found.candidate.usd == Decimal("2.25")
    assert "; cheaper; chosen" in found.why


def test_a_price_by_route_counts_for_every_location_of_it():
    prices = b'{"models": {"gemini-3.8-flash at vertex": [{"input": "2"}], "gemini-3.8-flash": [{"input": "1"}]}}'
    book = PriceBook(parse_prices(prices, "prices.json"))
    assert book.find("gemini-3.8-flash-preview", EUROPE.service).rows[0].input == 2
    assert book.find("gemini-3.8-flash", ServiceIdentity("developer", "https://x")).rows[0].input == 1
    assert book.find("gemini-3.8-flash").rows[0].input == 1


def test_a_place_without_the_model_is_left_out_whatever_its_history_says(store):
    leave(store, EUROPE, 57, 6.3)
    leave(store, CENTRAL, 41, 2.1)
    found = chosen(store, [EUROPE, CENTRAL], asked=lambda one: "no such model there" if one == CENTRAL else "")
    assert found.candidate.service == EUROPE.service
    assert found.why.endswith("vertex us-central1 left out: no such model there")
    with pytest.raises(Unusable, match="no such model there"):
        chosen(store, [EUROPE, CENTRAL], asked=lambda one: "no such model there")


def test_one_place_is_not_asked_and_its_history_not_read(store):
    def unexpected(one):
        raise AssertionError(one)

    assert chosen(store, [EUROPE], asked=unexpected).candidate.service == EUROPE.service


def test_a_history_that_cannot_be_read_leaves_the_order_alone(caplog):
    class Broken(MemoryStore):
        def list(self, prefix):
            raise StoreUnreadable("memory://w/history", "it broke")

    assert chosen(Broken(), [EUROPE, CENTRAL]).candidate.service == EUROPE.service
    assert "locations are not compared" in caplog.text


def prepared(store, service, rows, me):
    return prepare(
        Declaration(model=MODEL, source_name="rows", template=RequestTemplate("Say $text"), route="vertex"), rows, store=store,
        workspace_id="w", batch=BUILD.batch, service=service, me=me, now=lambda: NOW, log=LOG, max_tries=1,
        chosen=f"chosen by {me}",
    )  # fmt: skip


def test_of_two_that_prepare_with_different_choices_one_opening_stands_and_both_obey_it(store):
    def other():
        prepared(store, CENTRAL.service, lambda: [{"id": "a", "text": "x"}], "other")
        return [{"id": "a", "text": "x"}]

    ours = prepared(store, EUROPE.service, other, "ours")
    opening = standing_opening(store, BUILD.batch)
    assert (opening.service, opening.chosen) == (CENTRAL.service, "chosen by other")
    assert (ours.reused, ours.build.id) == (True, opening.build)
    assert not anything_sent(store, opening)


def test_a_batch_that_is_new_or_was_given_up_is_nowhere(store):
    assert standing_opening(store, BUILD.batch) is None
    prepared(store, EUROPE.service, lambda: [{"id": "a", "text": "x"}], "me")
    facts.put(store, f"{generation_path(BUILD.batch, 1)}/forgotten.json", Forgotten(owner="me", at=NOW, reason="no"))
    assert standing_opening(store, BUILD.batch) is None
