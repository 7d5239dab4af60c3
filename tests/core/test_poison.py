"""The search for poison lines: it finds exactly them, and asks little."""

from __future__ import annotations

from math import ceil, log2

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.poison import Search, Span, search_of


def run(search: Search, poison: set[int], names: bool = False) -> tuple[Search, list[list[int]], list[list[int]]]:
    """The search to its end against a service that refuses files with ``poison``: accepted and refused files."""
    accepted, refused = [], []
    while not search.over:
        asked = list(search.lines(search.ask()))
        bad = [line for line in asked if line in poison]
        (refused if bad else accepted).append(asked)
        search = search.found(bad) if bad and names else search.answered(refused=bool(bad))
    return search, accepted, refused


files = st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), max_size=5)))


@given(files)
def test_exactly_the_poison_is_found(file: tuple[int, set[int]]) -> None:
    lines, poison = file
    search, accepted, refused = run(search_of(lines), poison)

    assert set(search.poison) == poison
    assert len(accepted) + len(refused) <= 1 + len(poison) * (ceil(log2(lines)) + 2)


@given(files)
def test_every_line_is_in_at_most_one_accepted_file(file: tuple[int, set[int]]) -> None:
    lines, poison = file
    _, accepted, refused = run(search_of(lines), poison)

    paid = [line for asked in accepted for line in asked]
    assert len(paid) == len(set(paid))
    assert not poison & set(paid)
    assert all(asked for asked in (*accepted, *refused))


@given(files)
def test_lines_that_the_service_names_are_not_searched_for(file: tuple[int, set[int]]) -> None:
    lines, poison = file
    search, accepted, refused = run(search_of(lines), poison, names=True)

    assert set(search.poison) == poison
    assert len(refused) <= 1 and len(accepted) <= 1


@given(files, st.integers(0, 12), st.data())
def test_what_is_learnt_elsewhere_in_the_middle_is_left_out(
    file: tuple[int, set[int]], steps: int, data: st.DataObject
) -> None:
    lines, poison = file
    search = search_of(lines)
    for _ in range(steps):
        if search.over:
            break
        asked = set(search.lines(search.ask()))
        search = search.answered(refused=bool(asked & poison))
    told = data.draw(st.sets(st.sampled_from(sorted(poison)))) if poison else set()
    search, _, _ = run(search.found(told), poison)

    assert set(search.poison) == poison


@given(files, st.integers(0, 8))
def test_a_search_is_resumed_from_what_was_written_down(file: tuple[int, set[int]], steps: int) -> None:
    lines, poison = file
    search = search_of(lines)
    for _ in range(steps):
        if not search.over:
            asked = set(search.lines(search.ask()))
            search = search.answered(refused=bool(asked & poison))
    again = msgspec.json.decode(msgspec.json.encode(search), type=Search)

    assert again == search
    assert set(run(again, poison)[0].poison) == poison


def test_one_poison_line_takes_a_question_for_each_halving() -> None:
    search, accepted, refused = run(search_of(4096), {1234})

    assert search.poison == (1234,)
    assert len(accepted) + len(refused) == 1 + 12 + 1


def test_an_accepted_file_ends_the_search() -> None:
    assert search_of(9).ask() == Span(0, 9)
    assert search_of(9).answered(refused=False).over
    assert search_of(0).over
    assert search_of(1).answered(refused=True).poison == (0,)


def test_what_is_open_is_the_rest() -> None:
    search = search_of(8).answered(refused=True).answered(refused=True)

    assert list(search.rest) == list(range(8))
    assert list(search.answered(refused=False).rest) == [2, 3, 4, 5, 6, 7]
