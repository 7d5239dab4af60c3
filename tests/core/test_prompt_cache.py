"""What requests begin with alike, and lines that name a cache of it."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.prompt_cache import FIELDS, Prefix, prefix_of, storage_usd

SYSTEM = {"parts": [{"text": 'Say "systemInstruction": never.'}]}
TOOLS = [{"functionDeclarations": [{"name": "look_up"}]}]
NAME = "cachedContents/abc"


def line(**request: Any) -> bytes:
    return msgspec.json.encode({"key": "k", "request": request}) + b"\n"


def named(raw: bytes, name: str = NAME) -> Any:
    prefix = prefix_of(raw)
    assert prefix is not None
    made = prefix.named(raw, name)
    assert len(made) == len(raw) + prefix.grows(name)
    return json.loads(made)["request"]


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
values = st.dictionaries(texts, st.one_of(texts, st.integers(-9, 9), st.booleans()), min_size=1, max_size=3)


@given(texts, st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, values)), st.permutations([*FIELDS, "contents"]))
def test_a_line_that_names_its_cache_says_the_same_otherwise(
    prompt: str, shared: dict[str, Any], order: list[str]
) -> None:
    request = {"contents": [{"parts": [{"text": prompt}]}], **shared}
    raw = line(**{name: request[name] for name in order if name in request})
    prefix = prefix_of(raw)
    if not shared:
        assert prefix is None
    elif prefix is not None:
        assert named(raw) == {"contents": request["contents"], "cachedContent": NAME}
        assert prefix.fields() == shared


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param({}, id="says nothing of it"),
        pytest.param({"systemInstruction": {"parts": [{"text": "Another."}]}}, id="another instruction"),
        pytest.param({"systemInstruction": SYSTEM, "tools": TOOLS}, id="tools besides"),
        pytest.param({"systemInstruction": SYSTEM, "toolConfig": {}}, id="a configuration besides"),
    ],
)
def test_a_line_that_says_something_else_is_left_alone(request_: dict[str, Any]) -> None:
    prefix = prefix_of(line(contents=[], systemInstruction=SYSTEM))
    assert prefix is not None
    assert not prefix.fits(line(contents=[], **request_))


def test_a_prompt_that_quotes_the_prefix_is_not_taken_for_it() -> None:
    quoted = msgspec.json.encode(SYSTEM).decode()
    raw = line(contents=[{"parts": [{"text": f'"systemInstruction":{quoted}'}]}], systemInstruction=SYSTEM)
    assert named(raw)["contents"][0]["parts"][0]["text"] == f'"systemInstruction":{quoted}'


@pytest.mark.parametrize("raw", [b"", b"{", b'{"request":7}', line(cachedContent="cachedContents/own", tools=TOOLS)])
def test_some_lines_have_no_prefix(raw: bytes) -> None:
    assert prefix_of(raw) is None


def test_equal_prefixes_have_one_digest() -> None:
    one, other = prefix_of(line(contents=[], tools=TOOLS)), prefix_of(line(contents=[1], tools=TOOLS))
    assert one is not None and other is not None
    assert one.digest == other.digest != Prefix((b'"tools":[]',)).digest


def test_an_hour_begun_is_an_hour_paid() -> None:
    assert storage_usd(1_000_000, timedelta(minutes=61), Decimal("0.50")) == Decimal("1.00")
    assert storage_usd(1_000_000, timedelta(0), Decimal("0.50")) == 0
    assert storage_usd(1_000_000, timedelta(hours=1), None) is None
