"""An interactive rung in its ledger: who sends, which rows are about to be asked, what came, and what it costs.

The order that bounds what a crash can cost: charge → block on record → calls → segment → the charge settled.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from itertools import count
from typing import Any

import msgspec

from airflow_provider_geminibatch.core.budget import upper_bound
from airflow_provider_geminibatch.core.errors import MediaChanged, MediaRefused, Superseded
from airflow_provider_geminibatch.core.kinds import KINDS
from airflow_provider_geminibatch.core.ledger import RungBack, RungDone, RungFact, RungRun, RungSent
from airflow_provider_geminibatch.core.model import Build
from airflow_provider_geminibatch.core.names import generation_path
from airflow_provider_geminibatch.core.outcomes import classify
from airflow_provider_geminibatch.core.prices import spent_on, tier_share
from airflow_provider_geminibatch.core.steps import Wait
from airflow_provider_geminibatch.gemini.gateway import GenerateReply, Tier
from airflow_provider_geminibatch.jobs import segments
from airflow_provider_geminibatch.jobs.budget import Books
from airflow_provider_geminibatch.jobs.media_uploads import MediaUploads, Placed
from airflow_provider_geminibatch.jobs.price_list import standing_prices
from airflow_provider_geminibatch.jobs.segments import Place, SegmentLine, progress, root_requests, rung_path
from airflow_provider_geminibatch.jobs.sending import media_of, with_media
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.store import Store

ONLY_GENERATE = "only generateContent can be asked row by row"

Revise = Callable[[Place, dict[str, Any]], dict[str, Any] | None]
"""What to ask of a row instead of its request; None where asking again would be no better than before."""


class Ask(msgspec.Struct, eq=False):
    """A row to be asked: its request, in which block, and how often it was asked in vain."""

    at: Place
    request: dict[str, Any]
    upper: Decimal | None
    block: int = -1
    lost: int = 0
    failed: int = 0


class _Block(msgspec.Struct):
    """A block on its way: its charges, the rows of it without a line, and what its lines cost."""

    purposes: list[str]
    open: int
    spent: Decimal = Decimal(0)


class RungLedger:
    """What one run of a rung reads and writes. Used by one thread."""

    def __init__(
        self, fact: RungFact, store: Store, build: Build, limit_usd: Decimal | None, me: str, now: Callable[[], datetime],
        log: logging.Logger,
    ) -> None:  # fmt: skip
        self._fact, self._store, self._build, self._me, self._now, self._log = fact, store, build, me, now, log
        generation = generation_path(build.batch, build.generation)
        self._prefix = rung_path(generation, fact.number)
        # Number 0 is no rung of the ladder.
        called = f"rung {fact.number}" if fact.number else "canary"
        self.label = f"{called} ({fact.kind}) of {build.batch}"
        self.tier: Tier = "flex" if fact.kind == "flex" else "standard"
        self.model = fact.model or build.model
        prices = standing_prices(store, generation, self.model, me=me, now=now)
        self._price = prices.at(fact.at) if prices else None
        self._books = Books(store, generation, limit_usd, me=me, now=now)
        self._ready: deque[Ask] = deque()
        self._blocks: dict[int, _Block] = {}
        self._lines: list[bytes] = []
        self._landed: list[tuple[int, Decimal]] = []
        self._run_number = 0
        self.exhausted = False
        self.media_until: datetime | None = None
        self.obeyed_at = self.first_line_at = now()

    def done(self) -> RungDone | None:
        """The end of the rung, if it is on record."""
        return fact_store.get(self._store, f"{self._prefix}.done", RungDone)

    def begin(self, rows: Iterable[Place], revised: Revise, uploads: MediaUploads) -> None:
        """From here on whoever sent for this rung before stops at its next block."""
        mine = msgspec.json.encode(RungRun(owner=self._me, at=self._now()))
        self._run_number = next(number for number in count(1) if self._store.create(self._run_path(number), mine))
        self._past = progress(self._store, self._prefix)
        self._asks = self._asking(rows, revised, uploads)

    def _run_path(self, number: int) -> str:
        return f"{self._prefix}.run-{number:04d}"

    def say_begin(self, concurrency: int) -> None:
        """The bound of what a crash may cost, before anything is sent."""
        segment = segments.SEGMENT_ROWS
        self._log.info(
            "%s: asks up to %d rows of %s by %s, %d at a time, until %s; %d are answered. If this process dies, at most %d rows "
            "(%d in flight and a segment of %d) may be paid again.",
            self.label, self._fact.row_count, self.model, self.tier, concurrency, self._fact.limit_at,
            len(self._past.answered), min(concurrency + segment, self._fact.row_count or concurrency + segment), concurrency, segment,
        )  # fmt: skip
        maybe = sum(self._past.maybe_paid.values())
        if maybe:
            self._log.warning(
                "%s: %d rows were being asked when an earlier run ended; they are asked again", self.label, maybe
            )

    def unfit(self) -> str:
        """Why nothing of the rung can be asked, or an empty text."""
        if not KINDS[self._build.kind].by_row:
            return ONLY_GENERATE
        if self._books.limited and self._price is None:
            return f"no price is known for {self.model}, so that max_cost_usd cannot be held"
        return ""

    @property
    def answers(self) -> int:
        """Rows with a response, those of earlier runs included."""
        return self._past.answers

    @property
    def unwritten(self) -> int:
        """Lines that are in no segment yet."""
        return len(self._lines)

    def _asking(self, rows: Iterable[Place], revised: Revise, uploads: MediaUploads) -> Iterator[Ask | Wait]:
        """The rows that have no line yet, with what asking each can cost at most; or a wait for the media of the next."""
        left = (at for at in rows if at not in self._past.answered)
        share = tier_share(self.tier)
        for at, raw in root_requests(self._store, self._build, left):
            placed = self._placed(at, raw, uploads)
            while isinstance(placed, Wait):
                yield placed
                placed = self._placed(at, raw, uploads)
            if placed is None:
                continue
            request = revised(at, msgspec.json.decode(with_media(raw, placed)))
            if request is None:
                continue
            upper = None if self._price is None else upper_bound(request, len(raw), self._price, share)
            yield Ask(at, request, upper, lost=self._past.maybe_paid.get(at, 0))

    def _placed(self, at: Place, raw: bytes, uploads: MediaUploads) -> Mapping[str, str] | Wait | None:
        """The URIs of a row's media; None where one cannot be had any more, so that the row stays as it is."""
        contents = media_of(raw)
        try:
            placed = uploads.placed(self._build.shards[at[0]], contents) if contents else Placed()
        except (MediaChanged, MediaRefused) as error:
            self._log.warning("%s: row %d of shard %d is not asked: %s", self.label, at[1], at[0], error)
            return None
        return placed if isinstance(placed, Wait) else placed.uris

    def obey(self) -> None:
        """Raises Superseded when a later run sends for this rung."""
        self.obeyed_at = self._now()
        later = fact_store.get(self._store, self._run_path(self._run_number + 1), RungRun)
        if later is not None:
            raise Superseded(self.label, later.owner)

    # Blocks

    def next_block(self, *, waiting: bool) -> tuple[list[Ask], str]:
        """The next rows, charged and on record before any of them is asked; or why no further one can be.

        Nothing of both: there are none, or, while ``waiting`` for calls, the budget may be given some of it back.
        """
        asks, why = self._affordable(waiting)
        if not asks:
            return [], why
        upper = sum((ask.upper for ask in asks if ask.upper is not None), Decimal(0))
        purpose = f"rung {self._fact.number} run {self._run_number} rows from {asks[0].at}"
        if not self._books.charge(purpose, upper):
            # Another process took the rest of the budget between the look and the charge: look again.
            self._ready.extendleft(reversed(asks))
            self.exhausted = False
            return [], ""
        self._record(asks, upper, purpose)
        return asks, ""

    def _affordable(self, waiting: bool) -> tuple[list[Ask], str]:
        """As many rows as the budget bears and a block holds."""
        account = self._books.account() if self._books.limited else None
        asks: list[Ask] = []
        upper = Decimal(0)
        while len(asks) < segments.SEGMENT_ROWS and self._has_ready():
            upper += self._ready[0].upper or Decimal(0)
            if account is not None and not account.bears(upper):
                break
            asks.append(self._ready.popleft())
        if asks or not self._ready or waiting:
            return asks, ""
        self.flush()
        account = self._books.account()
        return asks, "" if account.bears(upper) else f"the budget does not bear another row ({account})"

    def _has_ready(self) -> bool:
        if not self._ready:
            following = next(self._asks, None)
            self.media_until = following.until if isinstance(following, Wait) else None
            self._ready.extend([following] if isinstance(following, Ask) else ())
            self.exhausted = following is None
        return bool(self._ready)

    def _record(self, asks: list[Ask], upper: Decimal, purpose: str) -> None:
        """Write the block; a number that an earlier run took in the meantime is passed over, its rows counted as asked."""
        bound = None if self._price is None else f"{upper:f}"
        mine = RungSent(owner=self._me, at=self._now(), rows=tuple(ask.at for ask in asks), upper_bound_usd=bound)
        while not self._store.create(self._sent_path(self._past.blocks), msgspec.json.encode(mine)):
            theirs = fact_store.get(self._store, self._sent_path(self._past.blocks), RungSent)
            for ask in asks:
                ask.lost += theirs is not None and ask.at in theirs.rows
            self._past.blocks += 1
        number, self._past.blocks = self._past.blocks, self._past.blocks + 1
        for ask in asks:
            ask.block = number
        self._blocks[number] = _Block([purpose], len(asks))

    def _sent_path(self, number: int, suffix: str = "") -> str:
        return segments.sent_path(self._prefix, number, suffix)

    def charge_again(self, ask: Ask) -> bool:
        """Charge a row once more whose call was lost; False when the budget does not bear it."""
        purpose = f"rung {self._fact.number} run {self._run_number} row {ask.at} again {ask.lost}"
        if not self._books.charge(purpose, ask.upper or Decimal(0)):
            return False
        self._blocks[ask.block].purposes.append(purpose)
        return True

    # Answers

    def write(self, ask: Ask, reply: GenerateReply) -> None:
        """Take down a row's answer, for the next segment."""
        self._past.answers += reply.response is not None
        tier = reply.tier or self.tier
        usd = self._cost(ask, reply, tier)
        line = SegmentLine(
            at=ask.at, response=reply.response, error=reply.error, model=self.model, tier=tier, lost=ask.lost,
            usd=None if usd is None else f"{usd:f}",
        )  # fmt: skip
        if not self._lines:
            self.first_line_at = self._now()
        self._lines.append(msgspec.json.encode(line) + b"\n")
        self._landed.append((ask.block, usd or Decimal(0)))

    def _cost(self, ask: Ask, reply: GenerateReply, tier: str) -> Decimal | None:
        """All that was or may have been paid: every call that was lost counts like the one that was answered."""
        if self._price is None:
            return None
        if reply.response is None:
            return (ask.upper or Decimal(0)) * ask.lost
        outcome = classify(msgspec.json.encode({"response": reply.response})).outcome
        cost = spent_on(outcome.usage, self._price, tier_share(tier)).cost_usd or Decimal(0)
        return cost * (1 + ask.lost)

    def flush(self) -> None:
        """Write what was answered as a segment, then settle the charges of blocks that are whole."""
        if self._lines:
            data = b"".join(self._lines)
            while not self._is_written(segments.segment_path(self._prefix, self._past.segments), data):
                self._past.segments += 1
            self._past.segments += 1
            self._lines.clear()
        for number, usd in self._landed:
            block = self._blocks[number]
            block.open, block.spent = block.open - 1, block.spent + usd
        self._landed.clear()
        for number in [number for number, block in self._blocks.items() if not block.open]:
            self._settle(self._blocks.pop(number))

    def _is_written(self, path: str, data: bytes) -> bool:
        """False when another run has that number. What we wrote before, and were not told of, is ours."""
        return self._store.create(path, data) or self._store.read(path) == data

    def _settle(self, block: _Block) -> None:
        """The block's first charge stands for all it cost, what was charged again included."""
        for place, purpose in enumerate(block.purposes):
            self._books.settle(purpose, Decimal(0) if place else block.spent)

    def give_back(self, left: Iterable[Ask]) -> None:
        """An orderly end: the rows that certainly were not answered are put on record as such, and every charge is settled."""
        self.flush()
        rows = list(left)
        for number, block in self._blocks.items():
            mine = [ask for ask in rows if ask.block == number]
            # Of a row that was asked and lost, only its bound is known.
            block.spent += sum(((ask.upper or Decimal(0)) * ask.lost for ask in mine), Decimal(0))
            free = tuple(ask.at for ask in mine if not ask.lost)
            if free:
                back = RungBack(owner=self._me, at=self._now(), rows=free)
                fact_store.put(self._store, self._sent_path(number, ".back"), back)
            self._settle(block)

    def note_done(self, why: str) -> None:
        """Nothing will be sent by this rung any more."""
        fact = RungDone(owner=self._me, at=self._now(), answers=self.answers, why=why)
        fact_store.put(self._store, f"{self._prefix}.done", fact)


__all__ = ["ONLY_GENERATE", "Ask", "Revise", "RungLedger"]
