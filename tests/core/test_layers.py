"""Of several answers for a row one lands, whatever their order in time, and only what may fare better is asked again."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.layers import Said, chosen, higher_cap, landing, overlaid, paid, worth
from airflow_provider_geminibatch.core.model import Outcomes
from airflow_provider_geminibatch.core.outcomes import Outcome

ANSWER, EMPTY, FAILED, MISSING = Outcomes.ANSWER, Outcomes.EMPTY, Outcomes.FAILED, Outcomes.MISSING


def said(row: int, layer: int, kind: Outcomes = ANSWER, cost: str | None = "1", *, told: bool = True) -> Said:
    cost_usd = None if cost is None else Decimal(cost)
    return Said((0, row), layer, Outcome(kind=kind), told, cost_usd, "m", None, f"layer-{layer}", layer)


def test_the_first_answer_lands_whatever_comes_after() -> None:
    assert chosen([(EMPTY, True), (ANSWER, True), (ANSWER, True)]) == 1


def test_without_an_answer_the_last_that_a_line_told_lands() -> None:
    assert chosen([(Outcomes.BLOCKED, True), (EMPTY, True), (FAILED, False)]) == 1


def test_where_nothing_was_told_the_last_lands() -> None:
    assert chosen([(MISSING, False), (FAILED, False)]) == 1


@given(st.lists(st.tuples(st.sampled_from(list(Outcomes)), st.booleans()), min_size=1, max_size=6))
def test_an_answer_is_never_passed_over(found: list[tuple[Outcomes, bool]]) -> None:
    kind, told = found[chosen(found)]
    assert (kind is ANSWER) == any(kind is ANSWER for kind, _ in found)
    assert told or kind is ANSWER or not any(told for _, told in found)


@given(st.lists(st.sets(st.integers(0, 30)), min_size=1, max_size=4))
def test_layers_are_merged_row_by_row_in_order(rows: list[set[int]]) -> None:
    layers = [[said(row, layer) for row in sorted(which)] for layer, which in enumerate(rows)]
    groups = list(overlaid(iter(layer) for layer in layers))
    assert [group[0].at[1] for group in groups] == sorted(set().union(*rows))
    for group in groups:
        assert [one.layer for one in group] == [layer for layer, which in enumerate(rows) if group[0].at[1] in which]


def test_what_lands_is_one_of_what_was_said_and_all_of_it_is_paid() -> None:
    group = [said(0, 0, EMPTY, "0.5"), said(0, 1, ANSWER, "2")]
    assert landing(group).layer == 1
    assert paid(group) == Decimal("2.5")
    assert paid([*group, said(0, 2, ANSWER, None)]) is None


def test_what_was_blocked_or_failed_for_good_is_not_asked_again() -> None:
    assert worth(Outcome(kind=Outcomes.BLOCKED)) == worth(Outcome(kind=FAILED)) == worth(Outcome(kind=ANSWER)) == ""
    again = [Outcome(kind=kind) for kind in (EMPTY, MISSING, Outcomes.TRUNCATED, Outcomes.INVALID)]
    assert all(map(worth, [*again, Outcome(kind=FAILED, transient=True)]))


def test_an_allowance_grows_up_to_what_the_model_can() -> None:
    assert higher_cap(100, 2.0) == 200
    assert higher_cap(100, 2.0, most=150) == 150
    assert higher_cap(100, 2.0, most=100) is None
    assert higher_cap(100, 1.0) is None
