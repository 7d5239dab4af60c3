"""How long answers are: counted in classes, told by a few numbers."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.answer_sizes import AnswerSizes, SizeTally, asked_like, size_class, tally_of
from airflow_provider_geminibatch.core.model import Usage

counts = st.lists(st.tuples(st.integers(0, 70_000), st.integers(0, 70_000)), max_size=60)


def tally(rows: list[tuple[int, int]]) -> SizeTally:
    counted = SizeTally()
    for candidates, thoughts in rows:
        counted.add(Usage(prompt=5, candidates=candidates, thoughts=thoughts))
    return counted


@given(st.integers(0, 10**7))
def test_a_class_is_within_four_per_cent_above_its_counts(tokens: int) -> None:
    assert tokens <= size_class(tokens) <= tokens * 1.04
    assert size_class(size_class(tokens)) == size_class(tokens)


@given(counts)
def test_sums_are_exact_and_ranks_nearly(rows: list[tuple[int, int]]) -> None:
    sizes = tally(rows).sizes()
    assert (sizes.answers, sizes.candidates.total) == (len(rows), sum(candidates for candidates, _ in rows))
    assert sizes.output.total == sizes.candidates.total + sizes.thoughts.total
    ranked = sorted(sum(row) for row in rows)
    for percent, told in ((5, sizes.output.p05), (50, sizes.output.p50), (95, sizes.output.p95)):
        exact = ranked[-(-len(ranked) * percent // 100) - 1] if ranked else 0
        assert exact <= told <= exact * 1.04


@given(counts, counts)
def test_parts_counted_apart_are_the_whole(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    assert tally_of([tally(one), tally(other)]).sizes() == tally(one + other).sizes()


def test_a_row_that_used_nothing_is_no_answer() -> None:
    counted = tally([(10, 0)])
    counted.add(Usage())
    assert counted.sizes().mean == 10
    assert SizeTally().sizes() == AnswerSizes()
    assert AnswerSizes().mean == 0


def test_sizes_survive_the_workspace() -> None:
    sizes = tally([(10, 20), (30, 0)]).sizes()
    assert msgspec.json.decode(msgspec.json.encode(sizes), type=AnswerSizes) == sizes


def test_requests_of_one_template_ask_the_like_whatever_their_contents_and_order() -> None:
    config = {"temperature": 0, "maxOutputTokens": 5}
    one = {"contents": [{"parts": [{"text": "a"}]}], "generationConfig": config, "model": "models/x"}
    same = {"generationConfig": dict(reversed(config.items())), "contents": [{"parts": [{"text": "b"}]}]}
    other = {**same, "generationConfig": {"maxOutputTokens": 6}}
    assert asked_like(one) == asked_like(same) != asked_like(other)
