"""What an interactive rung leaves in the ledger: blocks of rows before they are asked, segments of answers after.

    rungs/01.run-0001            who sends; the highest number does
    rungs/01.sent-00000[.back]   rows that are about to be asked, and those of them that certainly were not answered
    rungs/01.seg-00000.jsonl     {"at":[shard,row],"response":{…}|"error":{…},"model":…,"tier":…,"lost":0,"usd":"…"}

A row of a block that is in no segment and did not come back may have been paid; how often is what ``lost`` counts.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import count
from typing import Any

import msgspec

from airflow_provider_geminibatch.core.errors import LedgerUnreadable, StoreUnreadable
from airflow_provider_geminibatch.core.ledger import RungBack, RungSent
from airflow_provider_geminibatch.core.model import Build, Shard
from airflow_provider_geminibatch.core.names import wire_key
from airflow_provider_geminibatch.core.outcomes import classify
from airflow_provider_geminibatch.core.prices import Spent
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.store import Store

Place = tuple[int, int]
"""A row of the root build: the place of its shard in the build's ``shards``, and its row in it."""

SEGMENT_ROWS = 50
"""Most rows of a block, and of a segment."""

_OPEN_SEGMENTS = 16


class SegmentLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One answer of an interactive rung.

    ``usd`` is all that was or may have been paid for it by this rung, the ``lost`` calls without an answer included; None when
    the model has no known price.
    """

    at: Place
    response: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    model: str = ""
    tier: str = ""
    lost: int = 0
    usd: str | None = None

    @property
    def cost_usd(self) -> Decimal | None:
        return None if self.usd is None else Decimal(self.usd)


class _At(msgspec.Struct, frozen=True):
    at: Place


_decode = msgspec.json.Decoder(SegmentLine).decode
_decode_at = msgspec.json.Decoder(_At).decode


def rung_path(generation: str, rung: int) -> str:
    """What the names of a rung's facts begin with: ``<generation>/rungs/01``."""
    return f"{generation}/rungs/{rung:02d}"


def segment_line(line: bytes) -> SegmentLine:
    """A line of a segment with its money; ``core.outcomes.classify`` takes the same bytes for its outcome."""
    return _decode(line)


def segment_outcomes(
    store: Store, generation: str, rung: int, most: int | None = None
) -> Iterator[tuple[Place, bytes]]:
    """The answers of an interactive rung in root order, each as the line of a segment, whatever order they came in.

    ``most`` segments are read: those that a seal names, since what a late writer adds after a commit changes nothing.

    A row that two runs of a rung asked has several lines, one after the other, in the order in which they were recorded.
    Memory is an index; the lines are read again.
    """
    prefix = rung_path(generation, rung)
    index = sorted((*at, number, offset) for number, offset, at, _ in _lines(store, prefix, most))
    segments = _Segments(store, prefix)
    for shard, row, number, offset in index:
        data = segments.read(number)
        yield (shard, row), data[offset : data.index(b"\n", offset)]


def segment_paths(store: Store, generation: str, rung: int, most: int | None = None) -> tuple[str, ...]:
    """The segments that there are, in order: what a seal of results names."""
    prefix = rung_path(generation, rung)
    return tuple(segment_path(prefix, number) for number, _ in _read_all(store, prefix, most))


def segment_path(prefix: str, number: int) -> str:
    return f"{prefix}.seg-{number:05d}.jsonl"


def sent_path(prefix: str, number: int, suffix: str = "") -> str:
    return f"{prefix}.sent-{number:05d}{suffix}"


class _Segments:
    """Segments by number, the last few kept: answers come nearly in root order."""

    def __init__(self, store: Store, prefix: str) -> None:
        self._store, self._prefix, self._kept = store, prefix, OrderedDict[int, bytes]()

    def read(self, number: int) -> bytes:
        if number not in self._kept:
            path = segment_path(self._prefix, number)
            data = self._store.read(path)
            if data is None:
                raise StoreUnreadable(f"{self._store.uri}/{path}", "it was there a moment ago and is not any more")
            self._kept[number] = data
            if len(self._kept) > _OPEN_SEGMENTS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(number)
        return self._kept[number]


def _read_all(store: Store, prefix: str, most: int | None = None) -> Iterator[tuple[int, bytes]]:
    for number in count() if most is None else range(most):
        data = store.read(segment_path(prefix, number))
        if data is None:
            return
        yield number, data


def _lines(store: Store, prefix: str, most: int | None = None) -> Iterator[tuple[int, int, Place, bytes]]:
    """Every line with its segment, its offset and its row. Raises LedgerUnreadable for a damaged segment."""
    for number, data in _read_all(store, prefix, most):
        offset = 0
        for line in data.splitlines(keepends=True):
            try:
                at = _decode_at(line).at
            except msgspec.MsgspecError as error:
                uri = f"{store.uri}/{segment_path(prefix, number)}"
                raise LedgerUnreadable(uri, f"it is not a segment of answers ({error})") from None
            yield number, offset, at, line
            offset += len(line)


class Progress(msgspec.Struct):
    """How far a rung is: the rows that have a line, how often every other row may have been paid, and the next free names."""

    answered: set[Place]
    answers: int
    maybe_paid: Counter[Place]
    blocks: int
    segments: int


def progress(store: Store, prefix: str) -> Progress:
    """What is on record of an interactive rung."""
    found = Progress(set(), 0, Counter(), 0, 0)
    for number, _, at, line in _lines(store, prefix):
        found.answered.add(at)
        found.answers += _decode(line).response is not None
        found.segments = number + 1
    for number, sent, back in blocks(store, prefix):
        found.blocks = number + 1
        returned = set(back.rows) if back else set()
        found.maybe_paid.update(at for at in sent.rows if at not in returned)
    for at in found.answered:
        found.maybe_paid.pop(at, None)
    return found


def blocks(store: Store, prefix: str) -> Iterator[tuple[int, RungSent, RungBack | None]]:
    """The blocks of a rung, in order."""
    for number in count():
        sent = fact_store.get(store, sent_path(prefix, number), RungSent)
        if sent is None:
            return
        yield number, sent, fact_store.get(store, sent_path(prefix, number, ".back"), RungBack)


class RungBill(msgspec.Struct, frozen=True):
    """What a rung came to. ``spent`` is that of all its lines; ``unanswered`` rows may have been paid and have no line.

    ``unanswered_usd`` is the upper bound of these; None when it is not known.
    """

    answers: int
    errors: int
    spent: Spent
    unanswered: int
    unanswered_usd: Decimal | None


def rung_bill(store: Store, generation: str, rung: int) -> RungBill:
    """The tokens and the money of an interactive rung, over every line of its segments."""
    prefix, spent, answers, errors = rung_path(generation, rung), Spent(), 0, 0
    for _, _, _, raw in _lines(store, prefix):
        line = _decode(raw)
        answers, errors = answers + (line.response is not None), errors + (line.response is None)
        spent = spent.plus(Spent(classify(raw).outcome.usage, line.cost_usd))
    open_rows, open_usd = progress(store, prefix).maybe_paid, Decimal(0)
    known = True
    for _, sent, back in blocks(store, prefix):
        mine = [at for at in sent.rows if at in open_rows and not (back and at in back.rows)]
        known = known and (not mine or sent.upper_bound_usd is not None)
        open_usd += Decimal(sent.upper_bound_usd or 0) * len(mine) / len(sent.rows) if mine else Decimal(0)
    return RungBill(answers, errors, spent, len(open_rows), open_usd if known else None)


class _Line(msgspec.Struct, frozen=True):
    key: str
    request: msgspec.Raw


_decode_request = msgspec.json.Decoder(_Line).decode


def root_requests(store: Store, build: Build, rows: Iterable[Place]) -> Iterator[tuple[Place, bytes]]:
    """The requests of rows of a build, which have to come in root order, from its sealed shard files."""
    reader: _Shard | None = None
    try:
        for place, row in rows:
            if reader is None or reader.place != place:
                if reader is not None:
                    reader.close()
                reader = _Shard(store, place, build.shards[place])
            yield (place, row), reader.request(row)
    finally:  # also where the budget or the limit ends it among the rows
        if reader is not None:
            reader.close()


class _Shard:
    """A sealed shard file, read forward. A line counts as a row's only under the row's own wire key."""

    def __init__(self, store: Store, place: int, shard: Shard) -> None:
        self.place, self._shard, self._uri, self._row = place, shard, f"{store.uri}/{shard.path}", -1
        self._lines = store.open(shard.path)

    def request(self, row: int) -> bytes:
        line = b""
        while self._row < row:
            line, self._row = self._lines.readline(), self._row + 1
        try:
            found = _decode_request(line)
        except msgspec.MsgspecError as error:
            raise StoreUnreadable(self._uri, f"row {row} is not what was sealed ({error})") from None
        if found.key != wire_key(self._shard.tag, self._shard.index, row):
            raise StoreUnreadable(self._uri, f"row {row} is not what was sealed (another key)")
        return bytes(found.request)

    def close(self) -> None:
        self._lines.close()


__all__ = [
    "SEGMENT_ROWS",
    "Place",
    "RungBill",
    "SegmentLine",
    "root_requests",
    "rung_bill",
    "rung_path",
    "segment_line",
    "segment_outcomes",
    "segment_paths",
]
