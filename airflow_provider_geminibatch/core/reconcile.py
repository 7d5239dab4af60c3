"""Which line belongs to which row: joined on the wire key alone, never on order, in a few bytes per row.

The service promises input order and breaks the promise above a thousand rows; lines also come without keys, twice, or
under keys that nobody sent. Every row of the shard ends with exactly one outcome; every line that is not a row's is counted.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from airflow_provider_geminibatch.core.model import Outcomes, Usage
from airflow_provider_geminibatch.core.names import parse_wire_key
from airflow_provider_geminibatch.core.outcomes import MISSING, Line, Outcome

KINDS = tuple(Outcomes)
_NUMBER = {kind: number for number, kind in enumerate(KINDS)}
_NOWHERE = -1

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
        return MISSING if place == _NOWHERE else settled([read(at) for at in (place, *self.again.get(row, ()))])


def reconcile(
    tag: str, shard: int, rows: int, lines: Iterable[tuple[int, Line]], read: Callable[[int], Outcome]
) -> Reconciled:
    """Join the lines of one result file, each with its place, to the rows of the shard they answer."""
    kinds, places = bytearray([_NUMBER[Outcomes.MISSING]]) * rows, array("q", [_NOWHERE]) * rows
    again: dict[int, list[int]] = {}
    total = unknown = keyless = unreadable = 0
    for place, (key, outcome, readable) in lines:
        total += 1
        if key is None:
            keyless, unreadable = keyless + readable, unreadable + (not readable)
            continue
        row = _row(key, tag, shard, rows)
        if row is None:
            unknown += 1
        elif places[row] == _NOWHERE:
            kinds[row], places[row] = _NUMBER[outcome.kind], place
        else:
            again.setdefault(row, []).append(place)
    conflicts = repeats = 0
    for row, further in again.items():
        found = [read(at) for at in (places[row], *further)]
        differing = len({_meaning(outcome) for outcome in found}) > 1
        conflicts, repeats = conflicts + differing, repeats + (0 if differing else len(further))
        kinds[row] = _NUMBER[settled(found).kind]
    counts = LineCounts(total, repeats, conflicts, unknown, keyless, unreadable)
    return Reconciled(bytes(kinds), places, {row: tuple(further) for row, further in again.items()}, counts)


def _row(key: str, tag: str, shard: int, rows: int) -> int | None:
    found = parse_wire_key(key)
    if found is None or found.tag != tag or found.shard != shard or found.row >= rows:
        return None
    return found.row


def settled(found: Sequence[Outcome]) -> Outcome:
    """The one outcome of a row that several lines answer: theirs if they agree, in whatever order they came; else a conflict."""
    if len(found) == 1:
        return found[0]
    if len({_meaning(outcome) for outcome in found}) > 1:
        reason = f"conflict: {len(found)} lines answer this row and differ"
        # Different answers were all made, so all may be on the bill.
        spent = sum((outcome.usage for outcome in found), Usage())
        return Outcome(kind=Outcomes.FAILED, reason=reason, transient=True, usage=spent)
    return min(found, key=_order)


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


__all__ = ["KINDS", "LineCounts", "Reconciled", "distrust", "reconcile", "settled"]
