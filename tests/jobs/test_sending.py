"""What goes to the service is what was sealed, or a recorded edit of it, or nothing."""

from __future__ import annotations

import hashlib
import io
import logging
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.errors import StoreUnreadable, SubmissionRefused
from airflow_provider_geminibatch.core.model import Shard
from airflow_provider_geminibatch.gemini.gateway import Refused
from airflow_provider_geminibatch.jobs.sending import media_of, outgoing, survey, with_keys, with_media
from airflow_provider_geminibatch.jobs.submit import read_build, submit
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.stores import MemoryStore
from airflow_provider_geminibatch.testing import InMemoryGateway, ManualClock
from tests.jobs.batches import seal

LOG = logging.getLogger("test")
CAT, DOG = "sha256:" + "c" * 64, "sha256:" + "d" * 64


def part(content: str) -> bytes:
    return b'{"fileData":{"mimeType":"image/png","fileUri":"geminibatch:%b"}}' % content.encode()


def sealed(lines: list[bytes]) -> tuple[MemoryStore, Shard]:
    """A shard of these lines, whose user keys are k0, k1, …"""
    store = MemoryStore("memory://w")
    data = b"".join(line + b"\n" for line in lines)
    keys = b"".join(b'["k%d",{}]\n' % row for row in range(len(lines)))
    store.create("s.jsonl", data)
    store.create("k.jsonl", keys)
    shard = Shard(
        home="batches/d/r/t/map=-1/g0001/builds/b", index=0, tag="t", path="s.jsonl", keys_path="k.jsonl", rows=len(lines),
        size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), keys_sha256="", content="c",
    )  # fmt: skip
    return store, shard


def test_an_unedited_shard_goes_out_byte_by_byte_and_is_read_once() -> None:
    store, shard = sealed([b'{"a":1}', b'{"b":2}'])

    with outgoing(store, shard) as source:
        assert source.seek(0, io.SEEK_END) == source.size_bytes == shard.size_bytes
        source.seek(0)
        assert source.read(3) + source.read() == store.read("s.jsonl")
        source.confirm()

    assert source.sha256 == shard.sha256


@given(
    lines=st.lists(st.binary(max_size=40).map(lambda raw: raw.replace(b"\n", b" ")), min_size=1, max_size=12),
    left=st.sets(st.integers(0, 11)),
    cut=st.integers(1, 50),
)
def test_what_is_sent_is_the_sealed_lines_without_those_left_out(lines: list[bytes], left: set[int], cut: int) -> None:
    store, shard = sealed(lines)
    kept = b"".join(line + b"\n" for row, line in enumerate(lines) if row not in left)

    with outgoing(store, shard, left_out=frozenset(left)) as source:
        sent = b""
        while len(sent) < source.size_bytes:
            sent += source.read(cut)
        source.confirm()

    assert sent == kept
    assert source.size_bytes == len(kept)
    assert source.sha256 == hashlib.sha256(kept).hexdigest()


def test_stand_ins_become_the_uris_of_the_service() -> None:
    store, shard = sealed([b"[%b,%b]" % (part(CAT), part(CAT)), b"[%b]" % part(DOG), b"[]"])
    uris = {CAT: "https://host/v1beta/files/cat", DOG: "files/d"}

    seen = survey(store, shard)
    with outgoing(store, shard, media=uris, seen=seen) as source:
        sent = source.read()
        source.confirm()

    assert seen.media == {CAT: 2, DOG: 1}
    assert b"geminibatch:" not in sent
    assert sent.count(b'"fileUri":"https://host/v1beta/files/cat"') == 2
    assert len(sent) == source.size_bytes == seen.size_bytes(uris)


def test_media_of_rows_that_are_left_out_are_not_asked_for() -> None:
    store, shard = sealed([b"[%b]" % part(CAT), b"[%b]" % part(DOG)])

    assert survey(store, shard, frozenset({0})).media == {DOG: 1}


def test_a_prompt_that_looks_like_a_stand_in_is_sent_as_it_is() -> None:
    prompt = msgspec.json.encode({"text": part(CAT).decode()})

    assert media_of(prompt) == ()
    assert with_media(prompt, {CAT: "files/cat"}) == prompt


def test_a_stand_in_without_a_uri_stays() -> None:
    assert with_media(part(CAT), {DOG: "files/dog"}) == part(CAT)


@pytest.mark.parametrize("left", [frozenset[int](), frozenset({0})], ids=["whole", "edited"])
@pytest.mark.parametrize("changed", [b'{"a":9}\n{"b":2}\n', b'{"a":1}\n', b'{"a":1}\n{"b":2}\n{"c":3}\n'])
def test_a_shard_that_is_not_what_was_sealed_is_not_sent(left: frozenset[int], changed: bytes) -> None:
    store, shard = sealed([b'{"a":1}', b'{"b":2}'])
    store.write("s.jsonl", changed)

    with pytest.raises(StoreUnreadable, match="not what was sealed"):
        read_out(store, shard, left)


def read_out(store: MemoryStore, shard: Shard, left_out: frozenset[int]) -> None:
    with outgoing(store, shard, left_out=left_out) as source:
        source.read()
        source.confirm()


def test_a_shard_that_changes_between_the_two_readings_is_not_sent() -> None:
    store, shard = sealed([b'{"a":1}', b'{"b":2}'])
    seen = survey(store, shard, frozenset({0}))
    store.write("s.jsonl", b'{"a":1}\n{"b":3}\n')

    with outgoing(store, shard, left_out=frozenset({0}), seen=seen) as source:
        source.read()
        with pytest.raises(StoreUnreadable, match="not what was sealed"):
            source.confirm()


def test_line_numbers_of_a_refusal_count_the_lines_that_were_sent() -> None:
    store, shard = sealed([b"{}"] * 5)

    assert with_keys(store, shard, "Error on line 2: bad") == "Error on line 2 (key 'k1'): bad"
    assert with_keys(store, shard, "Error on line 2: bad", frozenset({0, 2})) == "Error on line 2 (key 'k3'): bad"
    assert with_keys(store, shard, "Error on line 9: bad") == "Error on line 9 (key '?'): bad"
    assert with_keys(store, shard, "no such model") == "no such model"


class Refusing(InMemoryGateway):
    """Refuses every create over its second line."""

    def create(self, **more: Any) -> Refused:  # type: ignore[override]
        return Refused(400, "Error on line 2: invalid JSON")


def test_rows_that_are_answered_already_are_not_sent_and_the_ledger_says_which() -> None:
    clock, store = ManualClock(), MemoryStore("memory://w")
    manifest, service = seal(store, rows=4), InMemoryGateway(clock)
    build = read_build(store, manifest.path)

    submit(
        manifest, store=store, gateway=service, me="me", now=clock, log=LOG, answered=lambda shard: frozenset({0, 2})
    )  # fmt: skip

    uploaded = fact_store.shard_facts(store, build.shards[0].ledger).attempts[0].uploaded
    assert uploaded is not None
    data, _ = service.files[uploaded.file_name]
    assert [msgspec.json.decode(line)["key"][-1] for line in data.splitlines()] == ["1", "3"]
    assert (uploaded.left_out, uploaded.sent_sha256) == ((0, 2), hashlib.sha256(data).hexdigest())


def test_a_refusal_of_an_edited_shard_names_the_key_of_the_line_that_was_sent() -> None:
    clock, store = ManualClock(), MemoryStore("memory://w")
    manifest = seal(store, rows=4)

    with pytest.raises(SubmissionRefused, match=r"line 2 \(key 'k3'\)"):
        submit(
            manifest, store=store, gateway=Refusing(clock), me="me", now=clock, log=LOG,
            answered=lambda shard: frozenset({0, 2}),
        )  # fmt: skip
