"""Many result lines at once: the same outcomes as ``outcomes.classify``, column by column, at a fraction of the cost.

Most lines are one candidate with one part of text. They are told by a few looks at the decoded line; every other shape goes
to ``outcomes``, which stays the only place that decides what it means.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from operator import add
from typing import Any

from airflow_provider_geminibatch.core.model import Outcomes
from airflow_provider_geminibatch.core.outcomes import (
    MOST_TOKENS,
    UNREADABLE,
    Line,
    Outcome,
    SchemaCheck,
    Wire,
    count_of,
    decode_line,
    key_of,
    notes_of,
    odd_line,
    outcome_of,
    plain_text,
)

KINDS = tuple(Outcomes)
NUMBER = {kind: number for number, kind in enumerate(KINDS)}
_ANSWER, _INVALID = NUMBER[Outcomes.ANSWER], NUMBER[Outcomes.INVALID]

Cells = tuple[Any, ...]
"""A line: key, kind by number, readable, text, value, extra, error, code, finish reason, then the counts of tokens (prompt,
tools', candidates, thoughts, cached, total), the version of the model, what repaired the value, thoughts."""

_NO_COUNTS = (0, 0, 0, 0, 0, 0)


class Block:
    """What some lines came to, as columns; the counts are checked and may be summed."""

    __slots__ = (
        "cached", "candidates", "code", "error", "extra", "finish", "keys", "kinds", "prompt", "readable", "repaired", "text",
        "thoughts", "told", "total", "value", "version",
    )  # fmt: skip

    def __init__(self, cells: Sequence[Cells]) -> None:
        columns = tuple(zip(*cells, strict=True)) if cells else ((),) * 18
        self.keys, self.kinds, self.readable, self.text, self.value, self.extra = columns[:6]
        self.error, self.code, self.finish = columns[6:9]
        prompt, tools, self.candidates, self.thoughts, self.cached, self.total = map(_counts, columns[9:15])
        # Tokens that tools bring into the prompt are reported apart and billed as input.
        self.prompt: Sequence[int] = _counts(tuple(map(add, prompt, tools))) if any(tools) else prompt
        self.version, self.repaired, self.told = columns[15:]

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def counts(self) -> tuple[Sequence[int], ...]:
        """Tokens: prompt, candidates, thoughts, cached, total."""
        return self.prompt, self.candidates, self.thoughts, self.cached, self.total


def _counts(found: Sequence[Any]) -> Sequence[int]:
    """Counts as numbers; nearly always they are."""
    if not found or (set(map(type, found)) == {int} and min(found) >= 0 and max(found) < MOST_TOKENS):
        return found
    return [count_of(one) for one in found]


def read_lines(lines: Sequence[bytes], check: SchemaCheck | None = None) -> Block:
    """The outcomes of result lines, in their order."""
    return Block([_cells(line, check) for line in lines])


def _cells(line: bytes, check: SchemaCheck | None, decode: Callable[[bytes], Wire] = decode_line) -> Cells:
    try:
        wire = decode(line)
    except UNREADABLE as error:
        return cells_of(odd_line(line, error))
    text = plain_text(wire)
    if text is None:
        return cells_of(Line(key_of(wire.key), outcome_of(wire, check)))
    response = wire.response
    assert response is not None and response.candidates is not None  # or there were no text
    kind, value, problem, repaired = _ANSWER, None, None, None
    if check is not None:
        value, problem, repaired = check(text)
        if problem:
            kind = _INVALID
    meta = response.usageMetadata
    counts = (
        (0, 0, 0, 0, 0, 0) if meta is None else
        (meta.promptTokenCount, meta.toolUsePromptTokenCount, meta.candidatesTokenCount, meta.thoughtsTokenCount,
         meta.cachedContentTokenCount, meta.totalTokenCount)
    )  # fmt: skip
    if meta is None and response.tokenCount:
        counts = (response.tokenCount, 0, 0, 0, 0, response.tokenCount)
    return (
        key_of(wire.key), kind, True, text, value, notes_of(response.candidates[0]), problem or None, None, "STOP", *counts,
        response.modelVersion or "", repaired or None, None,
    )  # fmt: skip


def cells_of(line: Line) -> Cells:
    """An outcome as cells."""
    outcome, usage = line.outcome, line.outcome.usage
    return (
        line.key, NUMBER[outcome.kind], line.readable, *landing_cells(outcome),
        usage.prompt, 0, usage.candidates, usage.thoughts, usage.cached, usage.total,
        outcome.model_version, outcome.repaired or None, outcome.thoughts,
    )  # fmt: skip


def landing_cells(outcome: Outcome) -> tuple[Any, ...]:
    """What lands of an outcome beside its kind: text, value, extra, error, code, finish reason."""
    extra = {**(outcome.extra or {}), **outcome.notes} if outcome.notes else outcome.extra
    return outcome.text, outcome.value, extra, outcome.reason or None, outcome.code, outcome.finish_reason or None


def numbers(found: Sequence[int]) -> array[int]:
    """Counts in eight bytes each."""
    return array("q", found)


__all__ = ["KINDS", "NUMBER", "Block", "Cells", "cells_of", "landing_cells", "numbers", "read_lines"]
