"""Which requests count as equal, what may be used again, and records that come out as they went in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.core.model import ServiceIdentity
from airflow_provider_geminibatch.core.names import wire_key
from airflow_provider_geminibatch.core.reuse import (
    BUCKETS,
    RECORD,
    Digests,
    Records,
    Reuse,
    renumbered,
    request_of,
    reuse_of,
    scope_of,
    unique,
)
from airflow_provider_geminibatch.core.rows import Ready
from airflow_provider_geminibatch.core.sharding import pack

GOOGLE = ServiceIdentity("developer", "https://generativelanguage.googleapis.com", "p")
SCOPE = scope_of(GOOGLE, "generate", "gemini-3.8-flash")


def test_a_scope_is_a_model_of_a_route_and_host_whoever_pays() -> None:
    others = [
        scope_of(ServiceIdentity("developer", "http://localhost:1", "p"), "generate", "gemini-3.8-flash"),
        scope_of(ServiceIdentity("vertex", GOOGLE.endpoint, "p"), "generate", "gemini-3.8-flash"),
        scope_of(GOOGLE, "generate", "gemini-3.7-flash"),
        scope_of(GOOGLE, "embed", "gemini-3.8-flash"),
    ]
    assert len({SCOPE, *others}) == 5
    assert scope_of(ServiceIdentity("developer", GOOGLE.endpoint, "q"), "generate", "gemini-3.8-flash") == SCOPE


@given(st.text(), st.text(), st.sampled_from(["tag", "other"]), st.integers(0, 9), st.integers(0, 999))
def test_the_request_is_found_in_its_line_whatever_it_holds(
    text: str, key: str, tag: str, shard: int, row: int
) -> None:
    tricky = {"contents": [{"parts": [{"text": f'{text}"request":{{}}'}]}], "labels": {"request": text}}
    request = msgspec.json.encode(tricky)
    (block,) = pack([Ready(msgspec.json.encode(key), request, b"{}")], tag=tag, max_rows=9, max_bytes=10**9)
    assert request_of(block.lines) == request
    by_hand = msgspec.json.encode({"key": wire_key(tag, shard, row), "request": tricky}) + b"\n"
    assert request_of(by_hand) == request


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_equal_requests_have_one_digest_and_others_another(one: bytes, other: bytes) -> None:
    digests = Digests(SCOPE)
    first, second = digests.of(one), digests.of(other)
    assert (first == second) == (one == other) or None in (first, second)
    assert first is None or first != Digests("elsewhere").of(one)


@pytest.mark.parametrize(
    ("request_", "known"),
    [
        ({"contents": [{"parts": [{"text": 'say "googleSearch" and "fileUri":"x"'}]}]}, True),
        ({"contents": [{"parts": [{"fileData": {"fileUri": "geminibatch:sha256:00"}}]}]}, True),
        ({"contents": [{"parts": [{"fileData": {"fileUri": "files/abc"}}]}]}, False),
        ({"contents": [{"parts": [{"file_data": {"file_uri": "gs://b/f"}}]}]}, False),
        ({"tools": [{"googleSearchRetrieval": {}}]}, False),
        ({"tools": [{"google_search": {}}]}, False),
        ({"tools": [{"functionDeclarations": []}]}, True),
        ({"cached_content": "cachedContents/x"}, False),
    ],
)
def test_a_request_that_names_what_may_change_has_none(request_: dict[str, Any], known: bool) -> None:
    assert (Digests(SCOPE).of(msgspec.json.encode(request_)) is not None) is known


def test_the_age_of_an_answer_counts_from_the_seal() -> None:
    sealed = datetime(2026, 5, 1, tzinfo=UTC)
    day = timedelta(days=1)
    assert Reuse().allows(sealed - 900 * day, sealed)
    assert Reuse(max_age=day).allows(sealed - day, sealed)
    assert not Reuse(max_age=day).allows(sealed - day - timedelta(seconds=1), sealed)
    assert Reuse(max_age=day).allows(sealed + day, sealed)


def test_what_a_task_may_be_given() -> None:
    assert (reuse_of(None), reuse_of(False), reuse_of(True)) == (None, None, Reuse())
    assert reuse_of(Reuse(max_age=timedelta(1))) == Reuse(max_age=timedelta(1))
    with pytest.raises(Unusable, match="neither"):
        reuse_of("yes")  # type: ignore[arg-type]
    with pytest.raises(Unusable, match="nothing is that new"):
        Reuse(max_age=timedelta())


rows = st.tuples(
    st.binary(min_size=16, max_size=16), st.integers(0, 5), st.integers(0, 2**60), st.integers(0, 2**32 - 1)
)


@given(st.lists(rows, max_size=60))
def test_records_come_out_sorted_by_bucket_each_digest_once_with_its_newest_place(given_: list[Any]) -> None:
    made = Records()
    for row in given_:
        made.add(*row)
    out = b"".join(made.buckets())
    found = list(RECORD.iter_unpack(out))
    assert [row[0] for row in found] == sorted({row[0] for row in given_})
    for digest, file, offset, _ in found:
        assert (file, offset) == max((f, o) for d, f, o, _ in given_ if d == digest)
    assert len(made.counts) == BUCKETS
    assert sum(made.counts) == len(found)


@given(st.lists(rows, max_size=30))
def test_records_are_renumbered_and_those_of_files_that_are_gone_left_out(given_: list[Any]) -> None:
    bucket = unique(b"".join(RECORD.pack(*row) for row in given_))
    moved = list(RECORD.iter_unpack(renumbered(bucket, {0: 7, 3: 1})))
    assert [row[1] for row in moved] == [{0: 7, 3: 1}[r[1]] for r in RECORD.iter_unpack(bucket) if r[1] in (0, 3)]
