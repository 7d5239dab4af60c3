"""Which line belongs to which row: joined on the wire key alone, never on order, in a few bytes per row.

The service promises input order and breaks the promise above a thousand rows; lines also come without keys, twice, or
under keys that nobody sent. Every row of the shard ends with exactly one outcome; every line that is not a row's is counted.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from airflow_provider_geminibatch.core.model import Outcomes, Usage
from airflow_provider_geminibatch.core.names import parse_wire_key, wire_key
from airflow_provider_geminibatch.core.outcomes import MISSING, Line, Outcome

KINDS = tuple(Outcomes)
_NUMBER = {kind: number for number, kind in enumerate(KINDS)}
_NOWHERE = -1
_DIGITS, _MOST_DIGITS = 7, 12
"""How many digits the row of a wire key has."""

FOREIGN_SHARE = 0.01
"""More unknown lines than this share of a file, and nothing of it is used."""

FOREIGN_FEW = 3
"""So many unknown lines are bearable in a file however small, where one alone would be more than the share."""


class LineCounts(msgspec.Struct, frozen=True):
    """The lines of result files by what they turned out to be: ``duplicates`` are lines that repeat another one,
    ``conflicts`` rows whose lines differ."""

    lines: int = 0
    duplicates: int = 0
    conflicts: int = 0
    unknown: int = 0
    keyless: int = 0
    unreadable: int = 0

    def __add__(self, other: LineCounts) -> LineCounts:
        return LineCounts(
            *(a + b for a, b in zip(msgspec.structs.astuple(self), msgspec.structs.astuple(other), strict=True))
        )


class Reconciled(msgspec.Struct, frozen=True):
    """A shard's rows and where their lines are: ``kinds`` and ``places`` by row, ``again`` the further lines of a row."""

    kinds: bytes
    places: array[int]
    again: dict[int, tuple[int, ...]]
    lines: LineCounts
    lineless: Outcome = MISSING
    """What became of a row that no line answers."""

    @property
    def counts(self) -> dict[str, int]:
        """Rows per outcome; every outcome is named."""
        return {kind.value: self.kinds.count(number) for number, kind in enumerate(KINDS)}

    def outcomes(self, read: Callable[[int], Outcome]) -> Iterator[Outcome]:
        """The outcome of every row, in row order; ``read`` gives the outcome of the line at a place."""
        return (self.outcome_of(row, read) for row in range(len(self.places)))

    def outcome_of(self, row: int, read: Callable[[int], Outcome]) -> Outcome:
        """The outcome of one row."""
        place = self.places[row]
        if place == _NOWHERE:
            return self.lineless
        return settled([read(at) for at in (place, *self.again.get(row, ()))])


class Reconciler:
    """Joins the lines of one result file, as they are read, to the rows of the shard they answer."""

    def __init__(self, tag: str, shard: int, rows: int) -> None:
        self._tag, self._shard, self._rows = tag, shard, rows
        self._prefix = wire_key(tag, shard, 0)[:-_DIGITS]
        self._kinds, self._places = bytearray([_NUMBER[Outcomes.MISSING]]) * rows, array("q", [_NOWHERE]) * rows
        self._again: dict[int, list[int]] = {}
        self._total = self._unknown = self._keyless = self._unreadable = 0

    def add(
        self, keys: Sequence[str | None], kinds: Sequence[int], readable: Sequence[bool], places: Iterable[int]
    ) -> list[int]:
        """Take lines, each with its place in the file. Gives the row of each line that is the first of its row, else -1."""
        if (rows_of := self._all_awaited(keys)) is not None:
            return self._take(rows_of, kinds, places)
        prefix, places_of, kinds_of, found = self._prefix, self._places, self._kinds, list[int]()
        start, ends, rows = len(prefix), (len(prefix) + _DIGITS, len(prefix) + _MOST_DIGITS), self._rows
        for at, (key, place) in enumerate(zip(keys, places, strict=True)):
            row: int | None
            # What ``parse_wire_key`` reads, for the one tag and shard that are awaited, written as we write them.
            if key and key.startswith(prefix) and ends[0] <= len(key) <= ends[1] and (tail := key[start:]).isdecimal():
                row = int(tail)
                row = row if row < rows else None
            else:
                row = self._other(key, readable[at])
            if row is None:
                self._unknown += key is not None
                found.append(_NOWHERE)
            elif places_of[row] == _NOWHERE:
                kinds_of[row], places_of[row] = kinds[at], place
                found.append(row)
            else:
                self._again.setdefault(row, []).append(place)
                found.append(_NOWHERE)
        self._total += len(found)
        return found

    def _all_awaited(self, keys: Sequence[str | None]) -> list[int] | None:
        """The rows of lines that are all under keys of this shard as we write them; None where any is not."""
        if None in keys or not keys:
            return None
        apart = "\n" + self._prefix
        # As many line feeds as keys, each before the prefix: then each key begins with it and what is between are their ends.
        text = "\n" + "\n".join(keys)  # type: ignore[arg-type]
        first, *tails = text.split(apart)
        if first or not len(tails) == len(keys) == text.count("\n") or {*map(len, tails)} != {_DIGITS}:
            return None
        digits = "".join(tails)
        if not (digits.isascii() and digits.isdecimal()):
            return None
        rows = list(map(int, tails))
        return rows if max(rows) < self._rows else None

    def _take(self, rows: list[int], kinds: Sequence[int], places: Iterable[int]) -> list[int]:
        """Take lines whose rows are known."""
        places_of, kinds_of = self._places, self._kinds
        for at, (row, kind, place) in enumerate(zip(rows, kinds, places, strict=True)):
            if places_of[row] == _NOWHERE:
                kinds_of[row], places_of[row] = kind, place
            else:
                self._again.setdefault(row, []).append(place)
                rows[at] = _NOWHERE
        self._total += len(rows)
        return rows

    def _other(self, key: str | None, readable: bool) -> int | None:
        if key is None:
            self._keyless, self._unreadable = self._keyless + readable, self._unreadable + (not readable)
            return None
        return _row(key, self._tag, self._shard, self._rows)

    def done(self, read: Callable[[int], Outcome]) -> Reconciled:
        """What all lines came to; ``read`` gives the outcome of the line at a place."""
        conflicts = repeats = 0
        for row, further in self._again.items():
            found = [read(at) for at in (self._places[row], *further)]
            differing = not agree(found)
            conflicts, repeats = conflicts + differing, repeats + (0 if differing else len(further))
            self._kinds[row] = _NUMBER[settled(found).kind]
        counts = LineCounts(self._total, repeats, conflicts, self._unknown, self._keyless, self._unreadable)
        again = {row: tuple(further) for row, further in self._again.items()}
        return Reconciled(bytes(self._kinds), self._places, again, counts)


def reconcile(
    tag: str, shard: int, rows: int, lines: Iterable[tuple[int, Line]], read: Callable[[int], Outcome]
) -> Reconciled:
    """Join the lines of one result file, each with its place, to the rows of the shard they answer."""
    joining = Reconciler(tag, shard, rows)
    for place, (key, outcome, readable) in lines:
        joining.add((key,), (_NUMBER[outcome.kind],), (readable,), (place,))
    return joining.done(read)


def _row(key: str, tag: str, shard: int, rows: int) -> int | None:
    found = parse_wire_key(key)
    if found is None or found.tag != tag or found.shard != shard or found.row >= rows:
        return None
    return found.row


def settled(found: Sequence[Outcome]) -> Outcome:
    """The one outcome of a row that several lines answer: theirs if they agree, in whatever order they came; else a conflict."""
    if len(found) == 1:
        return found[0]
    if not agree(found):
        reason = f"conflict: {len(found)} lines answer this row and differ"
        # Different answers were all made, so all may be on the bill.
        spent = sum((outcome.usage for outcome in found), Usage())
        return Outcome(kind=Outcomes.FAILED, reason=reason, transient=True, usage=spent)
    return min(found, key=_order)


def agree(found: Sequence[Outcome]) -> bool:
    """Whether lines of one row are the same answer."""
    return len({_meaning(outcome) for outcome in found}) == 1


def _meaning(outcome: Outcome) -> bytes:
    """What makes two lines the same answer: all that lands, but neither tokens nor the service's ids."""
    fields = (
        outcome.kind,
        outcome.text,
        outcome.value,
        outcome.extra,
        outcome.reason,
        outcome.finish_reason,
        outcome.code,
    )
    return msgspec.json.encode(fields, order="deterministic")


def _order(outcome: Outcome) -> bytes:
    return msgspec.json.encode(outcome, order="deterministic")


def distrust(found: Reconciled, not_asked: int = 0) -> str:
    """Why nothing of a result file may be used, or an empty text.

    Lines without a key may be the lost lines of missing rows; only those beyond the missing rows are foreign for sure. So many
    rows that were ``not_asked`` miss nothing.
    """
    lines, missing = found.lines, max(0, found.counts[Outcomes.MISSING] - not_asked)
    foreign = lines.unknown + max(0, lines.keyless + lines.unreadable - missing)
    if foreign <= max(FOREIGN_FEW, lines.lines * FOREIGN_SHARE):
        return ""
    return (
        f"{foreign} of its {lines.lines} lines belong to no row of the shard "
        f"({lines.unknown} under unknown keys, {lines.keyless} without a key, {lines.unreadable} unreadable)"
    )


__all__ = ["KINDS", "LineCounts", "Reconciled", "Reconciler", "agree", "distrust", "reconcile", "settled"]
