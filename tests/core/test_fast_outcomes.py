"""Many lines at once come to what each of them comes to alone."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_geminibatch.core import fast_outcomes
from airflow_provider_geminibatch.core.answer_sizes import SizeTally
from airflow_provider_geminibatch.core.fast_outcomes import NUMBER, Block, landing_cells, read_lines
from airflow_provider_geminibatch.core.model import Usage
from airflow_provider_geminibatch.core.outcomes import SchemaCheck, classify
from airflow_provider_geminibatch.core.prices import Price, batch_cost, of_picos, row_costs
from airflow_provider_geminibatch.core.schema_check import schema_check
from tests.core.test_outcomes import CASES, FIELDS, NEAR_MISSES

CHECK = schema_check({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]})


def rows_of(block: Block) -> list[tuple[Any, ...]]:
    texts = (block.text, block.value, block.extra, block.error, block.code, block.finish)
    rest = (*block.counts, block.version, block.repaired, block.told)
    return list(zip(block.keys, block.kinds, block.readable, *texts, *rest, strict=True))


def alone(line: bytes, check: SchemaCheck | None) -> tuple[Any, ...]:
    key, outcome, readable = classify(line, check)
    usage = outcome.usage
    counts = (usage.prompt, usage.candidates, usage.thoughts, usage.cached, usage.total)
    rest = (outcome.model_version, outcome.repaired or None, outcome.thoughts)
    return (key, NUMBER[outcome.kind], readable, *landing_cells(outcome), *counts, *rest)


def test_every_golden_line_comes_to_the_same() -> None:
    lines = [json.dumps(case.values[0]).encode() for case in CASES]
    assert rows_of(read_lines(lines)) == [alone(line, None) for line in lines]


def test_some_lines_of_a_block_are_a_block_of_their_own() -> None:
    whole = read_lines([json.dumps(case.values[0]).encode() for case in CASES], CHECK)
    assert rows_of(whole.only([3, 0])) == [rows_of(whole)[3], rows_of(whole)[0]]
    assert len(whole.only([])) == 0


@given(
    st.lists(
        st.dictionaries(FIELDS, NEAR_MISSES, max_size=4).map(lambda line: json.dumps(line).encode())
        | st.binary(max_size=40)
    )
)
def test_near_misses_come_to_the_same(lines: list[bytes]) -> None:
    for check in (None, CHECK):
        assert rows_of(read_lines(lines, check)) == [alone(line, check) for line in lines]


def plain(key: str, **more: Any) -> bytes:
    candidate = {"content": {"parts": [{"text": key}]}, "finishReason": "STOP"}
    response = {"candidates": [candidate], "usageMetadata": {"promptTokenCount": 2}, "responseId": "r"}
    return json.dumps({"key": key, "response": response, **more}).encode()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["plain", "odd", "vertex", "broken", "failed", "wordless"]), max_size=90))
def test_plain_lines_and_others_come_to_the_same_in_whatever_mixture(kinds: list[str]) -> None:
    made = {
        "plain": plain("k"), "vertex": plain("k", status="", error=None), "broken": b'{"key":"k', "wordless": plain(" "),
        "odd": plain("k").replace(b"STOP", b"SAFETY"), "failed": plain("k", status="quota", response=None),
    }  # fmt: skip
    lines = [made[kind] for kind in kinds]
    assert rows_of(read_lines(lines)) == [alone(line, None) for line in lines]


def test_plain_lines_are_told_by_their_type_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def classify(line: bytes, check: SchemaCheck | None) -> Any:
        raise AssertionError(line)

    monkeypatch.setattr(fast_outcomes, "classify", classify)
    block = read_lines([plain("a"), plain("b", status="OK"), plain("c", error="", status=None)])
    assert (block.keys, block.text) == (["a", "b", "c"], ["a", "b", "c"])


COUNTS = st.integers(-3, 2**64) | st.sampled_from(["7", "x", None, 2.0, 1e300, 2**53, 2**53 - 1])
TEXTS = st.sampled_from(['{"a":1}', '{"a":1,}', '{"a":"x"}', "{", "hello", "", " ", "é\u2028"])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "key": st.sampled_from(["k", "", None, 1]),
                "text": TEXTS,
                "finish": st.sampled_from(["STOP", "MAX_TOKENS", "NEW", None]),
                "thought": st.booleans(),
                "usage": st.dictionaries(
                    st.sampled_from(
                        [
                            "promptTokenCount",
                            "toolUsePromptTokenCount",
                            "candidatesTokenCount",
                            "thoughtsTokenCount",
                            "totalTokenCount",
                        ]
                    ),
                    COUNTS,
                ),
                "call": st.just({"name": "f"}),
                "avgLogprobs": st.just(-0.5),
            },
        ),
        max_size=5,
    )
)
def test_lines_like_those_of_the_service_come_to_the_same(given_lines: list[dict[str, Any]]) -> None:
    lines = []
    for made in given_lines:
        part = {"text": made.get("text"), "thought": made.get("thought"), "functionCall": made.get("call")}
        candidate = {
            "content": {"parts": [part]},
            "finishReason": made.get("finish", "STOP"),
            "avgLogprobs": made.get("avgLogprobs"),
        }
        response = {"candidates": [candidate], "usageMetadata": made.get("usage"), "modelVersion": "m"}
        lines.append(json.dumps({"key": made.get("key", "k"), "response": response}).encode())
    for check in (None, CHECK):
        assert rows_of(read_lines(lines, check)) == [alone(line, check) for line in lines]


SMALL = st.integers(0, 10**6)
CENTS = st.integers(1, 1000).map(lambda cents: Decimal(cents).scaleb(-2))
FRACTIONS = st.integers(1, 10**9).map(lambda parts: Decimal(parts).scaleb(-9))
PRICES = st.tuples(CENTS, CENTS, st.none() | CENTS, st.none() | FRACTIONS).map(
    lambda made: Price(input=made[0], output=made[1], long_input=made[2], cached=made[3])
)


@given(PRICES, st.lists(st.tuples(SMALL, SMALL, SMALL, SMALL), max_size=5))
def test_costs_of_many_rows_are_those_of_each(price: Price, counts: list[tuple[int, int, int, int]]) -> None:
    columns = list(zip(*counts, strict=True)) if counts else [(), (), (), ()]
    expected = [batch_cost(price, Usage(prompt=p, candidates=c, thoughts=t, cached=k)) for p, c, t, k in counts]
    assert [of_picos(one) for one in row_costs(price, *columns)] == expected
    assert of_picos(sum(row_costs(price, *columns))) == sum(expected, Decimal(0))


@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300), st.integers(0, 300), st.integers(0, 3)), max_size=6)
)
def test_sizes_of_many_rows_are_those_of_each(counts: list[tuple[int, int, int, int]]) -> None:
    one, many = SizeTally(), SizeTally()
    for prompt, candidates, thoughts, total in counts:
        one.add(Usage(prompt=prompt, candidates=candidates, thoughts=thoughts, total=total))
    many.add_all(*(zip(*counts, strict=True) if counts else ((), (), (), ())))
    assert (one.sizes(), one.answers) == (many.sizes(), many.answers)
