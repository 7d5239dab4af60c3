"""The search for the lines that make the service refuse a file: which lines to ask about next, and what an answer says.

A file is refused as a whole, so a refusal says that one of its lines is poison, and an acceptance that none is. What was
accepted is never asked about again, which bounds the cost: every line is in at most one accepted file.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator

import msgspec


class Span(msgspec.Struct, frozen=True):
    """Lines from ``start`` up to ``stop``, counted from 0. ``poisoned``: it is known that one of them is poison."""

    start: int
    stop: int
    poisoned: bool = False


class Search(msgspec.Struct, frozen=True):
    """How far the search is: the spans still to be looked at, the next one last, and the poison found, in order."""

    spans: tuple[Span, ...]
    poison: tuple[int, ...] = ()

    @property
    def over(self) -> bool:
        return not self.spans

    @property
    def rest(self) -> Iterator[int]:
        """The lines that nothing is known about yet, in order."""
        for span in sorted(self.spans, key=lambda span: span.start):
            yield from self.lines(span)

    def ask(self) -> Span:
        """The span whose lines are to be sent next."""
        last = self.spans[-1]
        return self._halves(last)[0] if last.poisoned else last

    def lines(self, span: Span) -> Iterator[int]:
        """The lines of a span without those that are known to be poison."""
        return (line for line in range(span.start, span.stop) if not self._holds(line))

    def answered(self, *, refused: bool) -> Search:
        """The search after the lines of ``ask`` were refused, or accepted."""
        last, others = self.spans[-1], self.spans[:-1]
        if not last.poisoned:
            return _settled((*others, Span(last.start, last.stop, True)) if refused else others, self.poison)
        left, right = self._halves(last)
        if refused:
            return _settled((*others, right, Span(left.start, left.stop, True)), self.poison)
        return _settled((*others, Span(right.start, right.stop, True)), self.poison)

    def found(self, lines: Iterable[int]) -> Search:
        """The search once ``lines`` are known to be poison from elsewhere. What else a refused span holds is open again."""
        now = Search(self.spans, tuple(sorted({*self.poison, *lines})))
        same = (now.count(span) == self.count(span) for span in self.spans)
        spans = tuple(
            span if kept else Span(span.start, span.stop) for span, kept in zip(self.spans, same, strict=True)
        )
        return _settled(spans, now.poison)

    def count(self, span: Span) -> int:
        """How many lines a span has, without the known poison."""
        known = bisect_left(self.poison, span.stop) - bisect_left(self.poison, span.start)
        return span.stop - span.start - known

    def _halves(self, span: Span) -> tuple[Span, Span]:
        """Two parts of a span, of one line at least each."""
        low, high = span.start + 1, span.stop - 1
        half = self.count(span) // 2
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self.count(Span(span.start, middle)) >= half else (middle + 1, high)
        return Span(span.start, low), Span(low, span.stop)

    def _holds(self, line: int) -> bool:
        at = bisect_left(self.poison, line)
        return at < len(self.poison) and self.poison[at] == line


def _settled(spans: Iterable[Span], poison: tuple[int, ...]) -> Search:
    """The search without spans that hold nothing any more; a poisoned span of one line is that line.

    Neighbours of which nothing is known are one question and not two.
    """
    before = Search((), poison)
    kept: list[Span] = []
    for span in spans:
        count = before.count(span)
        if span.poisoned and count == 1:
            poison = tuple(sorted({*poison, next(before.lines(span))}))
        elif count and kept and not (span.poisoned or kept[-1].poisoned) and kept[-1].start == span.stop:
            kept[-1] = Span(span.start, kept[-1].stop)
        elif count:
            kept.append(span)
    return Search(tuple(kept), poison)


def search_of(lines: int) -> Search:
    """The beginning: all lines of a file, of which nothing is known."""
    return _settled((Span(0, lines),), ())


__all__ = ["Search", "Span", "search_of"]
