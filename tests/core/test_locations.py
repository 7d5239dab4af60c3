"""Where a batch goes: the user's order until enough is known, then time and price, never a place that was left out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.core.eta import Record
from airflow_provider_geminibatch.core.locations import (
    LEAST_JOBS,
    Address,
    Candidate,
    Needs,
    address,
    choose,
    tuned_at,
    unfit,
)
from airflow_provider_geminibatch.core.model import ServiceIdentity

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
MODEL = "gemini-3.8-flash"
NEEDS = Needs(model=MODEL)
PLACES = ("europe-west4", "us-central1", "global")


def candidate(location, *, conn_id="vertex", project="p", **more):
    service = ServiceIdentity("vertex", f"https://{location}-aiplatform.googleapis.com", project, location)
    return Candidate(address=f"{conn_id}@{location}", service=service, **more)


DEVELOPER = Candidate(
    address="developer", service=ServiceIdentity("developer", "https://generativelanguage.googleapis.com")
)


def jobs(place, count, hours, *, state="SUCCEEDED", rows=1000, model=MODEL, days=0):
    """``count`` ended jobs at a place, each an hour after the other."""
    first = NOW - timedelta(days=days, hours=count)
    return [
        Record(str(place.service), model, first + timedelta(hours=number), hours * 3600, state, rows)
        for number in range(count)
    ]


EUROPE, CENTRAL, GLOBAL = (candidate(location) for location in PLACES)


def test_a_place_that_is_clearly_faster_goes_first_and_one_line_says_why():
    records = jobs(EUROPE, 57, 6.3) + jobs(CENTRAL, 41, 2.1)
    chosen = choose([EUROPE, CENTRAL], records, NEEDS, now=NOW)
    assert chosen.candidate == CENTRAL
    assert chosen.why == (
        "vertex us-central1: half of 41 similar jobs took 2.1 h against 6.3 h at vertex europe-west4 (57 jobs); same price; chosen"
    )


def test_the_order_stands_while_either_place_has_too_few_jobs():
    records = jobs(EUROPE, 50, 9) + jobs(CENTRAL, LEAST_JOBS - 1, 1)
    chosen = choose([EUROPE, CENTRAL], records, NEEDS, now=NOW)
    assert chosen.candidate == EUROPE
    assert chosen.why == (
        "vertex europe-west4: first in your order; too few jobs of this model are on record to compare (50 at vertex "
        "europe-west4, 9 at vertex us-central1; 10 at both it takes); chosen"
    )


def test_what_is_not_clearly_faster_is_a_tie():
    records = jobs(EUROPE, 20, 2.0) + jobs(CENTRAL, 20, 1.7)
    chosen = choose([EUROPE, CENTRAL], records, NEEDS, now=NOW)
    assert chosen.candidate == EUROPE
    assert chosen.why.endswith("against 1.7 h at vertex us-central1 (20 jobs); same price; first in your order; chosen")


def test_a_place_where_most_jobs_expired_is_slower_than_any_that_ends_them():
    records = jobs(EUROPE, 20, 72, state="EXPIRED") + jobs(CENTRAL, 20, 20)
    chosen = choose([EUROPE, CENTRAL], records, NEEDS, now=NOW)
    assert chosen.candidate == CENTRAL
    assert "took 20.0 h against longer than they were waited for at vertex europe-west4 (20 jobs)" in chosen.why


def test_a_few_that_expired_count_as_jobs_that_would_have_taken_longer():
    expired = jobs(EUROPE, 9, 1, state="EXPIRED") + jobs(EUROPE, 11, 4)
    assert choose([EUROPE, CENTRAL], expired + jobs(CENTRAL, 20, 3), NEEDS, now=NOW).candidate == CENTRAL


def test_failed_jobs_old_jobs_and_those_of_other_models_are_no_evidence():
    slow = jobs(EUROPE, 20, 9)
    for other in (
        jobs(CENTRAL, 20, 1, state="FAILED"),
        jobs(CENTRAL, 20, 1, days=100),
        jobs(CENTRAL, 20, 1, model="gemini-3.1-pro"),
    ):
        assert choose([EUROPE, CENTRAL], slow + other, NEEDS, now=NOW).candidate == EUROPE


def test_jobs_are_compared_with_jobs_of_their_size():
    records = jobs(EUROPE, 20, 4) + jobs(CENTRAL, 20, 1) + jobs(CENTRAL, 20, 9, rows=50_000)
    records += jobs(EUROPE, 20, 2, rows=50_000)
    assert choose([EUROPE, CENTRAL], records, NEEDS, now=NOW, rows=2_000).candidate == CENTRAL
    assert choose([EUROPE, CENTRAL], records, NEEDS, now=NOW, rows=20_000).candidate == EUROPE


def test_a_cheaper_place_goes_first_unless_it_is_clearly_slower():
    cheap = msgspec.structs.replace(CENTRAL, usd=Decimal(1))
    dear = msgspec.structs.replace(EUROPE, usd=Decimal("1.1"))
    assert (
        choose([dear, cheap], jobs(dear, 20, 4) + jobs(cheap, 20, 4.5), NEEDS, now=NOW).candidate.address
        == cheap.address
    )
    assert (
        choose([dear, cheap], jobs(dear, 20, 4) + jobs(cheap, 20, 9), NEEDS, now=NOW).candidate.address == dear.address
    )
    # Nobody is sent to a dearer place, or from a known price to an unknown one, for the sake of time.
    assert (
        choose([cheap, dear], jobs(cheap, 20, 9) + jobs(dear, 20, 1), NEEDS, now=NOW).candidate.address == cheap.address
    )
    unknown = msgspec.structs.replace(EUROPE, usd=None)
    assert (
        choose([cheap, unknown], jobs(cheap, 20, 9) + jobs(unknown, 20, 1), NEEDS, now=NOW).candidate.address
        == cheap.address
    )


def test_without_history_the_price_moves_nothing_either():
    dear, cheap = (msgspec.structs.replace(one, usd=Decimal(usd)) for one, usd in ((EUROPE, "1.1"), (CENTRAL, "1")))
    assert choose([dear, cheap], (), NEEDS, now=NOW).candidate.address == EUROPE.address


def test_what_was_left_out_is_told_and_the_next_stands():
    gone = msgspec.structs.replace(EUROPE, left_out="the service does not have the model there")
    chosen = choose([gone, CENTRAL], jobs(gone, 50, 1), NEEDS, now=NOW)
    assert chosen.candidate == CENTRAL
    assert chosen.why == (
        "vertex us-central1: the only place where the batch can run; chosen; vertex europe-west4 left out: the service does "
        "not have the model there"
    )


def test_nowhere_to_go_is_an_error_that_names_every_reason():
    gone = [msgspec.structs.replace(one, left_out=f"reason {number}") for number, one in enumerate((EUROPE, CENTRAL))]
    with pytest.raises(Unusable, match=r"europe-west4 left out: reason 0; vertex us-central1 left out: reason 1"):
        choose(gone, (), NEEDS, now=NOW)


def test_one_place_needs_no_words():
    assert choose([EUROPE], (), NEEDS, now=NOW).why == ""


def test_two_connections_at_one_location_are_told_apart():
    mine, yours = (
        candidate("us-central1", conn_id="mine", project="a"),
        candidate("us-central1", conn_id="yours", project="b"),
    )
    chosen = choose([mine, yours], jobs(mine, 20, 6) + jobs(yours, 20, 2), NEEDS, now=NOW)
    assert chosen.why.startswith(
        "vertex us-central1 (yours@us-central1): half of 20 similar jobs took 2.0 h against 6.0 h"
    )


TUNED = "projects/p/locations/us-central1/models/123"
KEY = "projects/p/locations/europe-west4/keyRings/r/cryptoKeys/k"


@pytest.mark.parametrize(
    ("place", "needs", "reason"),
    [
        (EUROPE, NEEDS, ""),
        (GLOBAL, NEEDS, ""),
        (GLOBAL, Needs(model=TUNED), "tuned models do not run batches at global"),
        (EUROPE, Needs(model=TUNED), "the tuned model is at us-central1"),
        (CENTRAL, Needs(model=TUNED), ""),
        (CENTRAL, Needs(model=TUNED.replace("models", "endpoints")), ""),
        (DEVELOPER, Needs(model=TUNED), "a tuned model of Vertex AI runs on Vertex AI only"),
        (msgspec.structs.replace(EUROPE, kms_key=KEY), NEEDS, ""),
        (
            msgspec.structs.replace(CENTRAL, kms_key=KEY),
            NEEDS,
            "the encryption key is at europe-west4, and a job's key lies in its own location",
        ),
        (
            msgspec.structs.replace(GLOBAL, kms_key=KEY),
            NEEDS,
            "the encryption key is at europe-west4, and a job's key lies in its own location",
        ),
        (EUROPE, Needs(model=MODEL, data_region="europe-west4"), ""),
        (GLOBAL, Needs(model=MODEL, data_region="europe-west4"), ""),
        (
            CENTRAL,
            Needs(model=MODEL, data_region="europe-west4"),
            "the BigQuery dataset is at europe-west4, and a job reads tables of its own location",
        ),
        (DEVELOPER, Needs(model=MODEL, data_region="us-central1"), "requests in BigQuery are read by Vertex AI only"),
    ],
)
def test_what_cannot_run_at_a_place_is_known_without_asking(place, needs, reason):
    assert unfit(place, needs) == reason


def test_embeddings_are_left_to_the_developer_api():
    assert "another form" in unfit(EUROPE, Needs(model="gemini-embedding-2", kind="embed"))
    assert unfit(DEVELOPER, Needs(model="gemini-embedding-2", kind="embed")) == ""


def test_a_tuned_model_says_where_it_is():
    assert tuned_at(TUNED) == "us-central1"
    assert tuned_at("projects/1/locations/europe-west4/endpoints/9@2") == "europe-west4"
    assert tuned_at("publishers/google/models/gemini-3.8-flash") is None


@pytest.mark.parametrize("text", ["vertex", "vertex@europe-west4", "@us-central1"])
def test_an_address_is_its_text(text):
    assert str(address(text)) == text
    assert address("vertex@europe-west4") == Address("vertex", "europe-west4")


# Laws. Three places, and what each is known by.

_STATES = st.sampled_from(["SUCCEEDED", "PARTIALLY_SUCCEEDED", "EXPIRED", "CANCELLED", "FAILED"])
_PRICES = st.sampled_from([None, Decimal(1), Decimal("1.1")])


@st.composite
def places(draw):
    count = draw(st.integers(1, 4))
    return [
        candidate(location, usd=draw(_PRICES), left_out=draw(st.sampled_from(["", "", "gone"])))
        for location in ("europe-west4", "us-central1", "global", "asia-east1")[:count]
    ]


@st.composite
def histories(draw):
    found = []
    for place in (EUROPE, CENTRAL, GLOBAL, candidate("asia-east1")):
        count = draw(st.sampled_from([0, 3, LEAST_JOBS - 1, LEAST_JOBS, 15, 30]))
        hours = draw(st.lists(st.floats(0.1, 70), min_size=1, max_size=4))
        states = draw(st.lists(_STATES, min_size=1, max_size=4))
        found += [
            Record(
                str(place.service), MODEL, NOW - timedelta(hours=number), hours[number % len(hours)] * 3600,
                states[number % len(states)], 10 ** (number % 3 + 1),
            )
            for number in range(count)
        ]  # fmt: skip
    return found


def _chosen(candidates, records):
    try:
        return choose(candidates, records, NEEDS, now=NOW)
    except Unusable:
        return None


@given(places(), histories(), st.randoms())
def test_the_same_history_says_the_same_in_any_order(candidates, records, random):
    shuffled = list(records)
    random.shuffle(shuffled)
    assert _chosen(candidates, records) == _chosen(candidates, shuffled)


@given(places(), histories())
def test_no_place_that_was_left_out_is_chosen_and_there_is_an_error_only_if_all_are(candidates, records):
    chosen = _chosen(candidates, records)
    if chosen is None:
        assert all(one.left_out for one in candidates)
    else:
        assert not chosen.candidate.left_out
        assert all(one.left_out in chosen.why for one in candidates)


@given(places(), histories())
def test_while_the_history_is_thin_the_first_that_is_open_is_chosen(candidates, records):
    thin = [record for record in records if record.service != str(candidates[0].service)]
    open_ = [one for one in candidates if not one.left_out]
    if open_ and open_[0] == candidates[0]:
        assert _chosen(candidates, thin).candidate == open_[0]


@given(places(), histories(), st.floats(0.1, 1), st.floats(1, 10))
def test_a_place_that_gets_faster_is_not_given_up_and_one_that_gets_slower_is_not_taken_up(
    candidates, records, less, more
):
    chosen = _chosen(candidates, records)
    if chosen is None:
        return

    def scaled(place, factor):
        return [
            msgspec.structs.replace(record, seconds=record.seconds * factor)
            if record.service == str(place.service)
            else record
            for record in records
        ]

    assert _chosen(candidates, scaled(chosen.candidate, less)).candidate == chosen.candidate
    for other in candidates:
        if other.address != chosen.candidate.address:
            assert _chosen(candidates, scaled(other, more)).candidate.address != other.address


@given(places(), histories())
def test_a_place_that_gets_cheaper_is_not_given_up(candidates, records):
    chosen = _chosen(candidates, records)
    if chosen is None or chosen.candidate.usd is None:
        return
    cheaper = msgspec.structs.replace(chosen.candidate, usd=chosen.candidate.usd / 2)
    again = [cheaper if one == chosen.candidate else one for one in candidates]
    assert _chosen(again, records).candidate == cheaper
