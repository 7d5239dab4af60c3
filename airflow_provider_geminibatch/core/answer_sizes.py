"""How long answers are, in tokens: counted while results are read, kept as a few numbers, gone by for the next batch.

A count falls into a class with at most three per cent between its ends, so that millions of answers are told by some hundred
numbers; sums are exact.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import compress
from typing import Any

import msgspec

from airflow_provider_geminibatch.core.model import Usage
from airflow_provider_geminibatch.core.names import short

_BITS = 6


def size_class(tokens: int) -> int:
    """The upper end of the class of a count: counts below 64 are apart, above six leading bits tell them apart."""
    spare = tokens.bit_length() - _BITS
    return tokens if spare <= 0 else (((tokens >> spare) + 1) << spare) - 1


class Spread(msgspec.Struct, frozen=True):
    """Tokens of many answers: their sum, and what one in twenty, a half and nineteen in twenty of them stay within."""

    total: int = 0
    p05: int = 0
    p50: int = 0
    p95: int = 0


class AnswerSizes(msgspec.Struct, frozen=True):
    """The answers of a batch, counted. ``output`` is what is billed as output: the answer and its thoughts."""

    answers: int = 0
    candidates: Spread = Spread()
    thoughts: Spread = Spread()
    output: Spread = Spread()

    @property
    def mean(self) -> float:
        """Output tokens of an answer."""
        return self.output.total / self.answers if self.answers else 0.0


class SizeTally:
    """Counts answers as they are read."""

    __slots__ = ("_kinds", "_totals", "answers")

    def __init__(self) -> None:
        self.answers = 0
        self._kinds: tuple[dict[int, int], ...] = ({}, {}, {})
        self._totals = [0, 0, 0]

    def add(self, usage: Usage) -> None:
        """Count one row; one that used nothing has no answer."""
        if not (usage.prompt or usage.total or usage.candidates):
            return
        self.answers += 1
        for kind, tokens in enumerate((usage.candidates, usage.thoughts, usage.candidates + usage.thoughts)):
            counts, place = self._kinds[kind], size_class(tokens)
            counts[place] = counts.get(place, 0) + 1
            self._totals[kind] += tokens

    def add_all(
        self, prompts: Sequence[int], candidates: Sequence[int], thoughts: Sequence[int], totals: Sequence[int]
    ) -> None:
        """Count many rows, as ``add`` does each."""
        if prompts and not min(prompts):
            asked = [bool(p or t or c) for p, t, c in zip(prompts, totals, candidates, strict=True)]
            candidates, thoughts = list(compress(candidates, asked)), list(compress(thoughts, asked))
        self.answers += len(candidates)
        for kind, tokens in enumerate((candidates, thoughts, list(map(operator.add, candidates, thoughts)))):
            counts = self._kinds[kind]
            for found, times in Counter(tokens).items():
                place = size_class(found)
                counts[place] = counts.get(place, 0) + times
            self._totals[kind] += sum(tokens)

    def plus(self, other: SizeTally) -> SizeTally:
        """Both together."""
        both = SizeTally()
        both.answers = self.answers + other.answers
        for kind in range(3):
            both._totals[kind] = self._totals[kind] + other._totals[kind]
            for counts in (self._kinds[kind], other._kinds[kind]):
                for place, count in counts.items():
                    both._kinds[kind][place] = both._kinds[kind].get(place, 0) + count
        return both

    def data(self) -> dict[str, Any]:
        """What was counted, as plain data for another process."""
        return {
            "answers": self.answers,
            "totals": self._totals,
            "kinds": [list(counts.items()) for counts in self._kinds],
        }

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> SizeTally:
        """The tally that ``data`` was made of."""
        tally = cls()
        tally.answers, tally._totals = data["answers"], list(data["totals"])
        first, second, third = (dict(map(tuple, counts)) for counts in data["kinds"])
        tally._kinds = (first, second, third)
        return tally

    def sizes(self) -> AnswerSizes:
        """What was counted, as a few numbers."""
        spreads = (_spread(counts, total) for counts, total in zip(self._kinds, self._totals, strict=True))
        return AnswerSizes(self.answers, *spreads)


def tally_of(tallies: Iterable[SizeTally]) -> SizeTally:
    """All of them together."""
    total = SizeTally()
    for one in tallies:
        total = total.plus(one)
    return total


def _spread(counts: Mapping[int, int], total: int) -> Spread:
    ranked, answers = sorted(counts.items()), sum(counts.values())
    return Spread(total, *(_rank(ranked, -(-answers * percent // 100)) for percent in (5, 50, 95)))


def _rank(ranked: list[tuple[int, int]], wanted: int) -> int:
    """The class of the ``wanted``-th smallest count."""
    seen = 0
    for place, count in ranked:
        seen += count
        if seen >= wanted:
            return place
    return 0


def asked_like(request: Mapping[str, object]) -> str:
    """What stands for all that a request asks beside its contents: requests of one template have it in common."""
    rest = {name: value for name, value in request.items() if name not in ("contents", "content", "model")}
    return short(msgspec.json.encode(rest, order="deterministic").decode())


__all__ = ["AnswerSizes", "SizeTally", "Spread", "asked_like", "size_class", "tally_of"]
