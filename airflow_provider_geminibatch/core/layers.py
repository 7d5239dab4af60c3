"""Several answers for one row: which of them lands, and which rows are worth asking again.

A row is answered by layers: the root build, then rounds, then rungs of the ladder, in that order. Each layer says something
of some rows, in the order of the root's rows, so that they are merged as they stream.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import groupby
from typing import NamedTuple

from airflow_provider_geminibatch.core.model import Outcomes
from airflow_provider_geminibatch.core.outcomes import Outcome

At = tuple[int, int]
"""A row of the root build: the place of its shard in the build's ``shards``, and the row in it."""


class Said(NamedTuple):
    """What one layer says of one row. ``told`` is False when no line of any result says so: its job ended without results.

    ``round`` is None for a rung, which ``shard`` names.
    """

    at: At
    layer: int
    outcome: Outcome
    told: bool
    cost_usd: Decimal | None
    model: str
    job: str | None
    shard: str
    round: int | None


def chosen(found: Sequence[tuple[Outcomes, bool]]) -> int:
    """Which of a row's outcomes lands, of (kind, told) by layer: the first answer, else the last that a line of results told."""
    for place, (kind, _) in enumerate(found):
        if kind is Outcomes.ANSWER:
            return place
    told = [place for place, (_, told) in enumerate(found) if told]
    return told[-1] if told else len(found) - 1


def landing(said: Sequence[Said]) -> Said:
    """What lands of all that was said of one row."""
    return said[chosen([(one.outcome.kind, one.told) for one in said])]


def paid(said: Iterable[Said]) -> Decimal | None:
    """What a row cost in all layers; None when one of them has no known price."""
    total = Decimal(0)
    for one in said:
        if one.cost_usd is None:
            return None
        total += one.cost_usd
    return total


def overlaid(layers: Iterable[Iterable[Said]]) -> Iterator[list[Said]]:
    """All that is said of each row, by layer, row after row. Every layer comes in the order of rows and is read once."""
    merged = heapq.merge(*layers, key=_order)
    return (list(said) for _, said in groupby(merged, key=_at))


def _order(said: Said) -> tuple[At, int]:
    return said.at, said.layer


def _at(said: Said) -> At:
    return said.at


_WORTH = {
    Outcomes.EMPTY: "came back empty",
    Outcomes.INVALID: "does not fit the schema",
    Outcomes.MISSING: "has no line in the results",
    Outcomes.TRUNCATED: "was cut off",
}


_NEARLY = 1.02


def worth(outcome: Outcome) -> str:
    """Why a row is worth asking again, or an empty text: what was blocked, or failed for good, would be so again."""
    if outcome.kind is Outcomes.FAILED:
        return "failed for a while" if outcome.transient else ""
    return _WORTH.get(outcome.kind, "")


def higher_cap(cap: int, factor: float, most: int | None = None, used: int = 0) -> int | None:
    """The larger allowance for a truncated request that used so many tokens; None when there is none to give.

    What was cut in a round before had been given more than its own ``cap`` already; a model stops a little before its allowance.
    """
    raised = int(cap * factor)
    if most is not None:
        raised = min(raised, most)
    return raised if raised > cap and raised > used * _NEARLY else None


__all__ = ["At", "Said", "chosen", "higher_cap", "landing", "overlaid", "paid", "worth"]
