"""Many result lines at once: the same outcomes as ``outcomes.classify``, column by column, at a fraction of the cost.

Most lines are one finished candidate with one part of text. A type that takes nothing else tells them while they are decoded;
every other shape goes to ``outcomes``, which stays the only place that decides what it means.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from operator import add
from typing import Annotated, Any, Literal

import msgspec

from airflow_provider_geminibatch.core.model import Outcomes
from airflow_provider_geminibatch.core.outcomes import (
    MOST_TOKENS,
    UNREADABLE,
    Feedback,
    Line,
    Outcome,
    SchemaCheck,
    classify,
    notes_of,
)

KINDS = tuple(Outcomes)
NUMBER = {kind: number for number, kind in enumerate(KINDS)}
_ANSWER, _INVALID = NUMBER[Outcomes.ANSWER], NUMBER[Outcomes.INVALID]

_Well = Literal["", "OK"] | None
_Tokens = Annotated[int, msgspec.Meta(ge=0, lt=MOST_TOKENS)]


class _Part(msgspec.Struct, frozen=True, gc=False):
    text: str
    thought: None = None
    functionCall: None = None  # noqa: N815 - the wire's names
    inlineData: None = None  # noqa: N815
    fileData: None = None  # noqa: N815
    executableCode: None = None  # noqa: N815
    codeExecutionResult: None = None  # noqa: N815


class _Content(msgspec.Struct, frozen=True, gc=False):
    parts: tuple[_Part]


class _Candidate(msgspec.Struct, frozen=True, gc=False):
    content: _Content
    finishReason: Literal["STOP"]  # noqa: N815
    groundingMetadata: Any = None  # noqa: N815
    citationMetadata: Any = None  # noqa: N815
    urlContextMetadata: Any = None  # noqa: N815
    safetyRatings: Any = None  # noqa: N815
    avgLogprobs: Any = None  # noqa: N815
    logprobsResult: Any = None  # noqa: N815
    finishMessage: Any = None  # noqa: N815


class _Usage(msgspec.Struct, frozen=True, gc=False):
    promptTokenCount: _Tokens = 0  # noqa: N815
    toolUsePromptTokenCount: _Tokens = 0  # noqa: N815
    candidatesTokenCount: _Tokens = 0  # noqa: N815
    thoughtsTokenCount: _Tokens = 0  # noqa: N815
    cachedContentTokenCount: _Tokens = 0  # noqa: N815
    totalTokenCount: _Tokens = 0  # noqa: N815


class _Response(msgspec.Struct, frozen=True, gc=False):
    candidates: tuple[_Candidate]
    usageMetadata: _Usage  # noqa: N815
    modelVersion: str = ""  # noqa: N815
    responseId: str | None = None  # noqa: N815
    promptFeedback: Feedback | None = None  # noqa: N815
    embedding: None = None
    tokenCount: None = None  # noqa: N815
    error: _Well = None


class _Plain(msgspec.Struct, frozen=True, gc=False):
    """The line of an answer that is one text, and of nothing else. What it refuses may still be any outcome."""

    key: Annotated[str, msgspec.Meta(min_length=1)]
    response: _Response
    error: _Well = None
    status: _Well = None


_decode = msgspec.json.Decoder(_Plain).decode
_IN_PLACE = _Plain("-", _Response((_Candidate(_Content((_Part("-"),)), "STOP"),), _Usage()))
"""Stands where a line is that is not plain, so that columns keep their places."""

_TRIES = 16
"""After so many lines that were not plain, they have to be the fewer of a block for it to be tried on."""


class Block:
    """What some lines came to, as columns; the counts are checked and may be summed."""

    __slots__ = (
        "cached", "candidates", "code", "error", "extra", "finish", "keys", "kinds", "prompt", "readable", "repaired", "text",
        "thoughts", "told", "total", "value", "version",
    )  # fmt: skip

    def __init__(self, plain: Sequence[_Plain]) -> None:
        count, responses = len(plain), [line.response for line in plain]
        self.keys: list[str | None] = [line.key for line in plain]
        self.kinds, self.readable = [_ANSWER] * count, [True] * count
        candidates = [response.candidates[0] for response in responses]
        self.text: list[str | None] = [candidate.content.parts[0].text for candidate in candidates]
        self.value: list[Any] = [None] * count
        self.extra: list[dict[str, Any] | None] = [notes_of(candidate) for candidate in candidates]
        self.error: list[str | None] = [None] * count
        self.code: list[int | None] = [None] * count
        self.finish: list[str | None] = ["STOP"] * count
        usages = [response.usageMetadata for response in responses]
        self.prompt = [usage.promptTokenCount for usage in usages]
        # Tokens that tools bring into the prompt are reported apart and billed as input.
        tools = [usage.toolUsePromptTokenCount for usage in usages]
        if any(tools):
            both = map(add, self.prompt, tools)
            self.prompt = [tokens if tokens < MOST_TOKENS else 0 for tokens in both]
        self.candidates = [usage.candidatesTokenCount for usage in usages]
        self.thoughts = [usage.thoughtsTokenCount for usage in usages]
        self.cached = [usage.cachedContentTokenCount for usage in usages]
        self.total = [usage.totalTokenCount for usage in usages]
        self.version = [response.modelVersion for response in responses]
        self.repaired: list[str | None] = [None] * count
        self.told: list[str | None] = [None] * count

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def counts(self) -> tuple[Sequence[int], ...]:
        """Tokens: prompt, candidates, thoughts, cached, total."""
        return self.prompt, self.candidates, self.thoughts, self.cached, self.total

    def hold(self, check: SchemaCheck, odd: AbstractSet[int]) -> None:
        """Hold the texts against the response schema, but those of ``odd`` lines."""
        for at, text in enumerate(self.text):
            if text is None or at in odd:
                continue
            self.value[at], problem, repaired = check(text)
            if problem or repaired:
                self.error[at], self.repaired[at] = problem or None, repaired or None
                self.kinds[at] = _INVALID if problem else _ANSWER

    def only(self, places: Sequence[int]) -> Block:
        """Some of the lines, as a block of their own."""
        block = Block.__new__(Block)
        for name in self.__slots__:
            values = getattr(self, name)
            setattr(block, name, [values[at] for at in places])
        return block

    def put(self, at: int, line: Line) -> None:
        """Put an outcome in its place."""
        outcome, usage = line.outcome, line.outcome.usage
        self.keys[at], self.kinds[at], self.readable[at] = line.key, NUMBER[outcome.kind], line.readable
        self.text[at], self.value[at], self.extra[at], *rest = landing_cells(outcome)
        self.error[at], self.code[at], self.finish[at] = rest
        self.prompt[at], self.candidates[at], self.thoughts[at] = usage.prompt, usage.candidates, usage.thoughts
        self.cached[at], self.total[at], self.version[at] = usage.cached, usage.total, outcome.model_version
        self.repaired[at], self.told[at] = outcome.repaired or None, outcome.thoughts


def read_lines(lines: Sequence[bytes], check: SchemaCheck | None = None) -> Block:
    """The outcomes of result lines, in their order."""
    plain, odd = _decoded(lines)
    block = Block(plain)
    odd.update(_wordless(block.text))
    if check is not None:
        block.hold(check, odd)
    for at in odd:
        block.put(at, classify(lines[at], check))
    return block


def _decoded(lines: Sequence[bytes]) -> tuple[list[_Plain], set[int]]:
    """The lines, and which of them are not plain."""
    plain, odd, rest = list[_Plain](), set[int](), iter(lines)
    while len(plain) < len(lines):
        try:
            # What was decoded before a line that is not plain stays.
            plain.extend(map(_decode, rest))
        except UNREADABLE:
            odd.add(len(plain))
            plain.append(_IN_PLACE)
            if _TRIES < len(odd) > len(plain) // 2:
                odd.update(range(len(plain), len(lines)))
                plain.extend([_IN_PLACE] * (len(lines) - len(plain)))
    return plain, odd


def _wordless(texts: Sequence[str | None]) -> list[int]:
    """Where a text says nothing."""
    if all(texts) and not any(map(str.isspace, texts)):  # type: ignore[arg-type]
        return []
    return [at for at, text in enumerate(texts) if not text or text.isspace()]


def landing_cells(outcome: Outcome) -> tuple[Any, ...]:
    """What lands of an outcome beside its kind: text, value, extra, error, code, finish reason."""
    extra = {**(outcome.extra or {}), **outcome.notes} if outcome.notes else outcome.extra
    return outcome.text, outcome.value, extra, outcome.reason or None, outcome.code, outcome.finish_reason or None


__all__ = ["KINDS", "NUMBER", "Block", "landing_cells", "read_lines"]
