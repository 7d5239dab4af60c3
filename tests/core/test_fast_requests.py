"""The short road says what the long road says, byte for byte, or nothing."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core import fast_requests
from airflow_provider_geminibatch.core.errors import Problem
from airflow_provider_geminibatch.core.fast_requests import FastRequests
from airflow_provider_geminibatch.core.requests import Checked, check_request
from airflow_provider_geminibatch.core.rows import OWN_FIELDS, Ready, Row, ready_rows, request_encoder

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
ROLE = st.sampled_from(["user", "model", "function", "USER", "assistant", "", None, 3])
PART: st.SearchStrategy[Any] = st.one_of(
    *[st.fixed_dictionaries({"text": TEXT})] * 8,
    st.sampled_from(
        [{}, {"text": None}, {"text": 1}, {"text": "a", "thought": True}, {"text": "a", "inlineData": {}}, {"texts": "a"},
         {"fileData": {"fileUri": "files/a"}}, {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}, "a", None]
    ),
)  # fmt: skip
TURN = st.fixed_dictionaries(
    {"parts": st.lists(PART, min_size=1, max_size=2)}, optional={"role": ROLE}
) | st.sampled_from(
    [{"parts": []}, {"role": "user"}, {"parts": "a"}, "a", None, {"parts": [{"text": "a"}], "roles": "user"}]
)
SYSTEM = st.sampled_from(
    [{"parts": [{"text": "be kind"}]}, {"role": "system", "parts": [{"text": "b"}]}, "be kind", None]
)
CONFIG = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0, 1.5, "0.5", None, "hot"]),
        "maxOutputTokens": st.sampled_from([5, "5", 5.0, 5.5]),
        "max_output_tokens": st.just(7),
        "responseMimeType": st.just("application/json"),
        "responseSchema": st.sampled_from(
            [{"type": "object", "properties": {"b": {"type": "STRING"}}}, {"type": "thing"}]
        ),
        "responseJsonSchema": st.just({"type": "object"}),
        "stopSequences": st.sampled_from([["a"], ["a"] * 9]),
        "responseSchema2": st.just(1),
    },
)
REQUEST = st.fixed_dictionaries(
    {},
    optional={
        "contents": st.lists(TURN, max_size=3),
        "systemInstruction": SYSTEM,
        "system_instruction": SYSTEM,
        "generationConfig": CONFIG,
        "generation_config": CONFIG,
        "safetySettings": st.sampled_from(
            [[{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}], [{"category": "X"}], {}]
        ),
        "tools": st.sampled_from([[{"googleSearch": {}}], [{"googleSearch": []}]]),
        "cachedContent": st.sampled_from(["cachedContents/a", 1]),
        "model": st.sampled_from(["models/m", "models/other"]),
        "labels": st.just({"a": "b"}),
        "store": st.booleans(),
        "config": st.just({}),
    },
)
LINE = st.fixed_dictionaries(
    {"key": TEXT | st.sampled_from([" ", None, 7]), "request": REQUEST | st.sampled_from([None, [], "a"])},
    optional={"region": st.sampled_from(["eu", {"a": [1, 2.5, None]}]), "note": TEXT},
)


def _check(request: dict[str, Any]) -> Checked:
    return check_request(request, kind="generate", model="m")


def _roads(lines: list[bytes], columns: tuple[str, ...] = ()) -> tuple[list[Any], list[Any]]:
    """What the short road makes of each line, and what the long one makes of it."""
    short = FastRequests(_check, columns=columns, own=OWN_FIELDS)
    rows = [Row("line", at, line) for at, line in enumerate(lines, 1)]
    long = ready_rows(rows, request_encoder("generate", "m"), columns=columns, own=OWN_FIELDS)
    return [short(line) for line in lines], list(long)


@given(st.lists(LINE, min_size=1, max_size=6), st.sampled_from([(), ("region",), ("*",)]), st.booleans())
def test_what_the_short_road_lets_through_is_what_the_long_road_writes(
    lines: list[dict[str, Any]], columns: tuple[str, ...], compact: bool
) -> None:
    encoded = [msgspec.json.encode(line) if compact else json.dumps(line, indent=1).encode() for line in lines]
    short, long = _roads(encoded, columns)
    for ours, theirs in zip(short, long, strict=True):
        assert ours is None or ours == theirs


def _line(request: dict[str, Any], **more: Any) -> bytes:
    return msgspec.json.encode({"key": "k", "request": request, **more})


def _said(*texts: str, **rest: Any) -> dict[str, Any]:
    turns = [
        {"role": role, "parts": [{"text": text}]} for role, text in zip(("user", "model") * 9, texts, strict=False)
    ]
    return {"contents": turns, **rest}


@pytest.mark.parametrize(
    "request_",
    [
        _said("hello"),
        _said("hello", "what?", "hello!"),
        _said("hello", systemInstruction={"parts": [{"text": "be kind"}]}, model="models/m"),
        _said(
            "hello", system_instruction={"parts": [{"text": "be kind"}]}, generation_config={"max_output_tokens": "5"}
        ),
        _said("hello", generationConfig={"temperature": None}, safetySettings=None),
        {"contents": [{"parts": [{"text": "a"}, {"text": "b"}]}]},
    ],
)
def test_plain_text_takes_the_short_road(request_: dict[str, Any]) -> None:
    short, long = _roads([_line(request_)])
    assert isinstance(short[0], Ready)
    assert short == long


@pytest.mark.parametrize(
    "line",
    [
        _line(_said("")),
        _line(_said("a", generationConfig={"temperature": "hot"})),
        _line(_said("a", model="models/other")),
        _line(_said("a", cachedContent="cachedContents/a", tools=[{"googleSearch": {}}])),
        _line(_said("a", generation_config={}, generationConfig={})),
        _line({"contents": [{"parts": [{"fileData": {"fileUri": "files/a"}}]}]}),
        _line(_said("a")).replace(b'"a"', b'"\\ud800"'),
        _line(_said("a")).replace(b'"a"', b'"\xff"'),
        _line(_said("a"))[:-1],
        _line(_said("a", labels={"a": "b"})).replace(b'"b"', b'"\xff"'),
        b"[" * 100_000,
        b'{"key": " ", "request": {"contents": [{"parts": [{"text": "a"}]}]}}',
    ],
)
def test_everything_else_is_left_to_the_long_road(line: bytes) -> None:
    short, _ = _roads([line])
    assert short == [None]


def test_rows_that_are_no_lines_are_left_to_the_long_road() -> None:
    assert FastRequests(_check)({"key": "k", "request": _said("a")}) is None


def test_of_members_that_stand_twice_the_last_counts_on_both_roads_and_alone_is_sent() -> None:
    turns = b'"contents":[{"parts":[{"text":"c"}]}],"contents":[{"parts":[{"text":"a","text":"b"}]}]'
    twice = b'{"key":"j","key":"k","request":{%b,"store":3,"store":true}}' % turns
    short, long = _roads([twice])
    assert short == long
    assert short[0].request == b'{"contents":[{"parts":[{"text":"b"}]}],"store":true}'


def test_the_rest_is_looked_at_once_per_wording() -> None:
    asked: list[dict[str, Any]] = []

    def check(request: dict[str, Any]) -> Checked:
        asked.append(request)
        return _check(request)

    short = FastRequests(check)
    for number in range(100):
        assert short(_line(_said(f"text {number}", generationConfig={"temperature": number % 2})))
    assert len(asked) == 2
    assert "text" not in str([request["contents"][0]["parts"][0]["text"] for request in asked])


def test_a_file_of_ever_new_wordings_does_not_fill_the_memory() -> None:
    short = FastRequests(_check)
    for number in range(fast_requests.KNOWN_FRAMES * 3):
        assert short(_line(_said("a", generationConfig={"seed": number})))
        assert len(short._frames) <= fast_requests.KNOWN_FRAMES


def test_each_accepted_wording_is_shown_once() -> None:
    noted: list[dict[str, Any]] = []
    short = FastRequests(_check, note=noted.append)
    for temperature in (0, 0, 1, "hot", 0, 1):
        short(_line(_said("a", generationConfig={"temperature": temperature})))
    assert [request["generationConfig"]["temperature"] for request in noted] == [0, 1]


def test_warnings_are_told_for_every_line_or_the_line_is_left_to_the_long_road() -> None:
    line = _line(
        _said("a", generationConfig={"responseMimeType": "application/json", "responseJsonSchema": {"type": "object"}})
    )
    told: list[tuple[Problem, ...]] = []
    short = FastRequests(_check, warn=told.append)
    rows = [short(line) for _ in range(3)]
    assert rows == _roads([line])[1] * 3
    assert [[warning.rule for warning in each] for each in told] == [["schema-unheeded"]] * 3
    assert told[0] is told[1] is told[2]
    assert FastRequests(_check)(line) is None


def test_columns_that_are_asked_for_are_read_whole() -> None:
    broken = _line(_said("a"), region="eu").replace(b"eu", b"\xff")
    assert [FastRequests(_check, columns=columns)(broken) is None for columns in ((), ("region",), ("*",))] == [
        False, True, True,
    ]  # fmt: skip
