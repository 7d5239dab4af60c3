"""Lines joined to rows: every row one outcome, every line counted, order without meaning."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.model import Outcomes, Usage
from airflow_provider_geminibatch.core.names import wire_key
from airflow_provider_geminibatch.core.outcomes import MISSING, MOST_TOKENS, Line, Outcome
from airflow_provider_geminibatch.core.reconcile import (
    KINDS,
    LineCounts,
    Reconciled,
    Reconciler,
    distrust,
    reconcile,
    settled,
)

TAG = "aaaabbbbcccc2222"


def answer(text: str = "a", **more: Any) -> Outcome:
    return Outcome(kind=Outcomes.ANSWER, text=text, **more)


def line(row: int, outcome: Outcome, *, tag: str = TAG, shard: int = 3) -> Line:
    return Line(wire_key(tag, shard, row), outcome)


def joined(rows: int, *lines: Line) -> tuple[Reconciled, list[Outcome]]:
    def read(place: int) -> Outcome:
        return lines[place].outcome

    found = reconcile(TAG, 3, rows, enumerate(lines), read)
    return found, list(found.outcomes(read))


def test_rows_get_their_lines_by_key_and_never_by_order() -> None:
    found, outcomes = joined(3, line(2, answer("c")), line(0, answer("a")), line(1, answer("b")))
    assert [outcome.text for outcome in outcomes] == ["a", "b", "c"]
    assert found.lines == LineCounts(lines=3)


def test_a_row_without_a_line_is_missing() -> None:
    found, outcomes = joined(2, line(1, answer()))
    assert outcomes == [MISSING, answer()]
    assert found.counts == {**dict.fromkeys(Outcomes, 0), "answer": 1, "missing": 1}


def test_equal_duplicates_count_once() -> None:
    found, outcomes = joined(1, line(0, answer()), line(0, answer(response_id="again", usage=Usage(total=9))))
    assert outcomes[0].kind is Outcomes.ANSWER
    assert found.lines == LineCounts(lines=2, duplicates=1)


def test_differing_duplicates_leave_the_row_unresolved_and_cost_both() -> None:
    found, outcomes = joined(
        1, line(0, answer("a", usage=Usage(prompt=2, total=2))), line(0, answer("b", usage=Usage(prompt=3, total=3)))
    )
    assert outcomes[0].kind is Outcomes.FAILED
    assert outcomes[0].reason == "conflict: 2 lines answer this row and differ"
    assert outcomes[0].usage == Usage(prompt=5, total=5)
    assert found.counts[Outcomes.FAILED] == 1
    assert found.lines == LineCounts(lines=2, conflicts=1)


@pytest.mark.parametrize(
    "stranger",
    [
        line(0, answer(), tag="zzzzzzzzzzzzzzzz"),
        line(0, answer(), shard=4),
        line(9, answer()),
        Line("k0", answer()),
        Line(f"{TAG}-0003-0", answer()),
    ],
)
def test_another_tag_shard_row_or_form_of_key_resolves_nothing(stranger: Line) -> None:
    found, outcomes = joined(1, stranger)
    assert outcomes == [MISSING]
    assert found.lines == LineCounts(lines=1, unknown=1)


def test_keyless_and_unreadable_lines_are_counted_apart() -> None:
    failed = Outcome(kind=Outcomes.FAILED)
    found, _ = joined(1, line(0, answer()), Line(None, failed), Line(None, failed, readable=False))
    assert found.lines == LineCounts(lines=3, keyless=1, unreadable=1)


def counted(rows: int, missing: int, **lines: int) -> Reconciled:
    have = [line(row, answer()) for row in range(missing, rows)]
    strangers = [Line("stranger", answer())] * lines.get("unknown", 0) + [Line(None, answer())] * lines.get(
        "keyless", 0
    )
    return joined(rows, *have, *strangers)[0]


@pytest.mark.parametrize(
    ("found", "trusted"),
    [
        (counted(1000, 0), True),
        (counted(1000, 10, unknown=10), True),
        (counted(1000, 0, unknown=11), False),
        (counted(10, 3, unknown=3), True),
        (counted(10, 4, unknown=4), False),
        (counted(10, 10, keyless=10), True),
        (counted(10, 0, keyless=4), False),
    ],
    ids=["clean", "one per cent", "more", "few in a small file", "many in a small file", "lost keys", "surplus lines"],
)
def test_a_file_with_more_than_one_per_cent_of_foreign_lines_is_not_used(found: Reconciled, trusted: bool) -> None:
    assert (distrust(found) == "") is trusted


def test_the_reason_of_distrust_has_the_numbers() -> None:
    assert distrust(counted(10, 0, unknown=5, keyless=1)) == (
        "6 of its 16 lines belong to no row of the shard (5 under unknown keys, 1 without a key, 0 unreadable)"
    )


outcomes = st.builds(
    Outcome,
    kind=st.sampled_from([kind for kind in Outcomes if kind is not Outcomes.MISSING]),
    text=st.sampled_from([None, "a", "b"]),
    response_id=st.sampled_from(["", "r1", "r2"]),
    usage=st.builds(Usage, total=st.integers(0, 3)),
)
lines = st.one_of(
    st.builds(line, st.integers(0, 5), outcomes),
    st.builds(line, st.integers(0, 5), outcomes, tag=st.just("zzzz")),
    st.builds(Line, st.sampled_from([None, "", "k0"]), outcomes),
    st.builds(Line, st.none(), outcomes, st.just(False)),
)


@given(st.integers(0, 4), st.lists(lines, max_size=12))
def test_every_row_gets_exactly_one_outcome_and_every_line_is_counted(rows: int, given_lines: list[Line]) -> None:
    found, outcomes_ = joined(rows, *given_lines)
    assert len(outcomes_) == rows
    assert found.counts == {kind: sum(outcome.kind is kind for outcome in outcomes_) for kind in Outcomes}
    answered = rows - found.counts[Outcomes.MISSING]
    conflicting = sum(len(found.again[row]) for row in found.again if outcomes_[row].reason.startswith("conflict"))
    odd = found.lines.duplicates + conflicting + found.lines.unknown + found.lines.keyless + found.lines.unreadable
    assert answered + odd == found.lines.lines == len(given_lines)


@given(
    st.integers(0, 4),
    st.lists(lines, max_size=10).flatmap(lambda made: st.tuples(st.just(made), st.permutations(made))),
)
def test_the_order_of_lines_means_nothing(rows: int, orders: tuple[list[Line], list[Line]]) -> None:
    (one, there), (other, again) = (joined(rows, *order) for order in orders)
    assert there == again
    assert (one.lines, one.kinds) == (other.lines, other.kinds)


@given(st.lists(outcomes, min_size=1, max_size=4).flatmap(lambda made: st.tuples(st.just(made), st.permutations(made))))
def test_the_choice_among_lines_of_one_row_is_pure(orders: tuple[list[Outcome], list[Outcome]]) -> None:
    assert settled(orders[0]) == settled(orders[1])


def test_what_many_lines_of_one_row_cost_together_still_fits_a_column() -> None:
    usage = Usage(prompt=MOST_TOKENS - 1, total=MOST_TOKENS - 1)
    spent = settled([answer(str(number), usage=usage) for number in range(1_000)]).usage
    assert spent.prompt == 1_000 * (MOST_TOKENS - 1) < 2**63


KEYS = st.sampled_from(
    [
        *(wire_key(TAG, 3, row) for row in range(4)), wire_key("zzzz", 3, 1), wire_key(TAG, 4, 1), wire_key(TAG, 3, 10**7),
        wire_key(TAG, 3, 1) + "0", wire_key(TAG, 3, 1)[:-1], wire_key(TAG, 3, 1) + "\n" + wire_key(TAG, 3, 2), "\n", "",
        wire_key(TAG, 3, 1)[:-1] + "\u0661", wire_key(TAG, 3, 1)[:-2] + "_1", None,
    ]
)  # fmt: skip


@given(st.lists(KEYS, max_size=8) | st.lists(st.sampled_from([wire_key(TAG, 3, row) for row in range(6)]), max_size=8))
def test_many_lines_at_once_are_joined_as_one_by_one(keys: list[str | None]) -> None:
    together, apart = Reconciler(TAG, 3, 5), Reconciler(TAG, 3, 5)
    kinds = [number % len(KINDS) for number in range(len(keys))]
    rows = together.add(keys, kinds, [True] * len(keys), range(len(keys)))
    assert rows == [apart.add((key,), (kinds[at],), (True,), (at,))[0] for at, key in enumerate(keys)]
    assert together.done(lambda place: answer()) == apart.done(lambda place: answer())
