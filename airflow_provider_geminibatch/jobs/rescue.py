"""An interactive rung: rows asked one by one on the worker, by flex or standard, a few at a time.

The order that bounds what a crash can cost: charge → block on record → calls → segment → the charge settled. A run that
starts again reads the segments and never asks an answered row. What it may pay again is what was in flight, and what had been
answered and not written yet: at most the concurrency and one segment. One process sends for a rung: who begins later writes
``run``, and who began earlier sees it before its next block and stops.

Threads do nothing but the call; all that is decided and written, the first thread does.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import count, islice
from typing import Any

import msgspec

from airflow_provider_geminibatch.core.batch import BatchPolicy
from airflow_provider_geminibatch.core.budget import upper_bound
from airflow_provider_geminibatch.core.errors import GeminiBatchError, KeyRefused, ModelUnknown, Superseded
from airflow_provider_geminibatch.core.ledger import RungBack, RungDone, RungFact, RungRun, RungSent
from airflow_provider_geminibatch.core.model import Build
from airflow_provider_geminibatch.core.names import generation_path
from airflow_provider_geminibatch.core.outcomes import classify
from airflow_provider_geminibatch.core.prices import Price, price_of, spent_on, tier_share
from airflow_provider_geminibatch.gemini.gateway import Gateway, GenerateReply, Tier
from airflow_provider_geminibatch.jobs.budget import Books
from airflow_provider_geminibatch.jobs.segments import (
    SEGMENT_ROWS,
    Place,
    SegmentLine,
    progress,
    root_requests,
    rung_path,
    segment_outcomes,
    segment_path,
    sent_path,
)
from airflow_provider_geminibatch.jobs.settle import SettledJobs, prepare_rescue
from airflow_provider_geminibatch.jobs.wait import pause_until
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.store import Store

CONCURRENCY = 8
FLUSH_AFTER = timedelta(seconds=5)
OBEY_AGAIN = timedelta(seconds=5)
"""How often a run looks whether another one has taken the rung over, besides before every block."""

CALL_SECONDS = 600.0
"""How long one call may take: flex answers within 1 to 15 minutes and wants a timeout of ten (flex guide, 2026-04)."""

FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=2), timedelta(seconds=60)
PAUSE_HERE = timedelta(seconds=30)
"""A longer pause is not slept through on the worker: the task is deferred instead."""

LOST_TRIES = 3
"""How often a row is asked whose calls bring no answer at all; each may be billed, so each is charged."""

FAILED_TRIES = 5
"""How often a row is asked that the service fails on by itself (500, 502, 504). Being shed (429, 503) is not counted."""

REFUSED_FEW = 20
"""So many refused rows before any answer, and the rung is refused rather than its rows."""

_SHED = (429, 503)
_NO_CREDIT = 402
ONLY_GENERATE = "only generateContent can be asked row by row"


class RungState(msgspec.Struct, frozen=True):
    """How far a rung is. ``until``: it asks for a pause, and to be run again then, from any process. ``answers`` are all of it."""

    done: bool
    until: datetime | None = None
    answers: int = 0
    why: str = ""


class _Ask(msgspec.Struct, eq=False):
    """A row to be asked: its request, in which block, and how often it was asked in vain."""

    at: Place
    request: dict[str, Any]
    upper: Decimal | None
    block: int
    lost: int = 0
    failed: int = 0


class _Block(msgspec.Struct):
    """A block on its way: rows without a line, and what its lines cost."""

    purpose: str
    open: int
    spent: Decimal = Decimal(0)


class _End(msgspec.Struct, frozen=True):
    """Why no more is sent now. ``done``: for good."""

    why: str
    done: bool = True
    until: datetime | None = None


def run_rung(
    fact: RungFact,
    rows: Iterable[Place],
    *,
    store: Store,
    build: Build,
    gateway: Gateway,
    policy: BatchPolicy,
    me: str,
    now: Callable[[], datetime],
    log: logging.Logger,
    sleep: Callable[[float], object] | None = None,
    concurrency: int = CONCURRENCY,
    call_seconds: float = CALL_SECONDS,
    revised: Callable[[Place, dict[str, Any]], dict[str, Any]] | None = None,
    stop: Callable[[], str] = lambda: "",
) -> RungState:
    """Ask the rows of a rung that have no answer of it yet, until all have one, its limit, or the end of the budget.

    ``rows`` come in root order; ``revised`` may change a request before it is asked; ``stop`` says, between blocks, why to stop
    for now. Raises StoreError, LedgerUnreadable, and Superseded when another process has taken the rung over.
    """
    rung = _Rung(fact, store, build, gateway, policy, me, now, log, sleep, concurrency, call_seconds)
    return rung.run(rows, revised or (lambda at, request: request), stop)


class _Rung:
    """One run of an interactive rung."""

    def __init__(
        self, fact: RungFact, store: Store, build: Build, gateway: Gateway, policy: BatchPolicy, me: str,
        now: Callable[[], datetime], log: logging.Logger, sleep: Callable[[float], object] | None, concurrency: int,
        call_seconds: float,
    ) -> None:  # fmt: skip
        self._fact, self._store, self._build, self._gateway = fact, store, build, gateway
        self._me, self._now, self._log, self._nap = me, now, log, sleep
        self._concurrency, self._call_seconds = concurrency, call_seconds
        generation = generation_path(build.batch, build.generation)
        self._prefix = rung_path(generation, fact.number)
        self._label = f"rung {fact.number} ({fact.kind}) of {build.batch}"
        self._tier: Tier = "flex" if fact.kind == "flex" else "standard"
        self._model = fact.model or build.model
        self._price: Price | None = price_of(self._model, fact.at)
        self._books = Books(store, generation, policy.max_cost_usd, me=me, now=now)
        self._flying: dict[Future[GenerateReply], _Ask] = {}
        self._again: deque[_Ask] = deque()
        self._queue: deque[_Ask] = deque()
        self._ready: deque[_Ask] = deque()
        self._blocks: dict[int, _Block] = {}
        self._lines: list[bytes] = []
        self._landed: list[tuple[int, Decimal]] = []
        self._first_line_at = self._resume_at = self._obeyed_at = now()
        self._pause = FIRST_PAUSE
        self._end: _End | None = None
        self._refused = self._run_number = 0
        self._exhausted = False

    def run(
        self, rows: Iterable[Place], revised: Callable[[Place, dict[str, Any]], dict[str, Any]], stop: Callable[[], str]
    ) -> RungState:
        done = fact_store.get(self._store, f"{self._prefix}.done", RungDone)
        if done is not None:
            return RungState(True, None, done.answers, done.why)
        self._claim()
        self._past = progress(self._store, self._prefix)
        self._stop, self._asks = stop, self._asking(rows, revised)
        self._say_begin()
        self._end = self._unfit()
        pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix="geminibatch-rung")
        try:
            self._go(pool)
        except GeminiBatchError:
            # What is answered and what is in flight is paid: it is kept if the store allows.
            self._flush()
            self._land_all()
            self._flush()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        return self._finish()

    def _claim(self) -> None:
        """From here on whoever sent for this rung before stops at its next block."""
        mine = RungRun(owner=self._me, at=self._now())
        self._run_number = next(n for n in count(1) if self._store.create(self._run_path(n), msgspec.json.encode(mine)))

    def _run_path(self, number: int) -> str:
        return f"{self._prefix}.run-{number:04d}"

    def _say_begin(self) -> None:
        """The bound of what a crash may cost, before anything is sent."""
        self._log.info(
            "%s: asks up to %d rows of %s by %s, %d at a time, until %s; %d are answered. If this process dies, at most %d rows "
            "(%d in flight and a segment of %d) may be paid again.",
            self._label, self._fact.row_count, self._model, self._tier, self._concurrency, self._fact.limit_at,
            len(self._past.answered), self._concurrency + SEGMENT_ROWS, self._concurrency, SEGMENT_ROWS,
        )  # fmt: skip
        maybe = sum(self._past.maybe_paid.values())
        if maybe:
            self._log.warning(
                "%s: %d rows were being asked when an earlier run ended; they are asked again", self._label, maybe
            )

    def _unfit(self) -> _End | None:
        if self._build.kind != "generate":
            return _End(ONLY_GENERATE)
        if self._books.limited and self._price is None:
            return _End(f"no price is known for {self._model}, so that max_cost_usd cannot be held")
        return None

    def _asking(
        self, rows: Iterable[Place], revised: Callable[[Place, dict[str, Any]], dict[str, Any]]
    ) -> Iterator[_Ask]:
        """The rows that have no line yet, with what asking each can cost at most."""
        left = (at for at in rows if at not in self._past.answered)
        share = tier_share(self._tier)
        for at, raw in root_requests(self._store, self._build, left):
            request = revised(at, msgspec.json.decode(raw))
            upper = None if self._price is None else upper_bound(request, len(raw), self._price, share)
            yield _Ask(at, request, upper, -1, self._past.maybe_paid.get(at, 0))

    def _go(self, pool: ThreadPoolExecutor) -> None:
        while True:
            self._end = self._end or self._over()
            if self._end is None:
                self._fill(pool)
            if not self._flying:
                if self._end or (self._exhausted and not self._again and not self._queue):
                    return
                self._rest()
                continue
            self._land()
            if len(self._lines) >= SEGMENT_ROWS or (self._lines and self._now() >= self._first_line_at + FLUSH_AFTER):
                self._flush()

    def _over(self) -> _End | None:
        if self._now() >= self._fact.limit_at:
            return _End(f"its limit was reached at {self._fact.limit_at:%Y-%m-%d %H:%M:%S %Z}")
        pause = self._resume_at - self._now()
        if pause > PAUSE_HERE and not self._flying:
            return _End("the service asked for a pause", done=False, until=min(self._resume_at, self._fact.limit_at))
        return None

    def _rest(self) -> None:
        """Nothing is in flight: wait on this worker for the short time that the service asked for."""
        if self._resume_at <= self._now():
            return  # the budget was waited for, and what was in flight has settled
        self._flush()
        moment = min(self._resume_at, self._fact.limit_at)
        if self._nap is not None:
            self._nap((moment - self._now()).total_seconds())
        else:
            pause_until(moment, now=self._now)

    def _fill(self, pool: ThreadPoolExecutor) -> None:
        while len(self._flying) < self._concurrency and self._now() >= self._resume_at and self._end is None:
            if self._now() >= self._obeyed_at + OBEY_AGAIN:  # also a process that slept since
                self._obey()
            ask = self._next()
            if ask is None:
                return
            left = (self._fact.limit_at - self._now()).total_seconds()
            seconds = max(1.0, min(self._call_seconds, left))
            call = pool.submit(
                self._gateway.generate, self._model, ask.request, tier=self._tier, timeout_seconds=seconds
            )
            self._flying[call] = ask

    def _next(self) -> _Ask | None:
        if self._again:
            return self._again.popleft()
        if not self._queue and not self._exhausted:
            self._take_block()
        return self._queue.popleft() if self._queue else None

    def _take_block(self) -> None:
        """Put the next rows on record before any of them is asked."""
        self._obey()
        why = self._stop()
        if why:
            self._end = _End(why, done=False, until=self._now())
            return
        asks = self._affordable()
        upper = sum((ask.upper for ask in asks if ask.upper is not None), Decimal(0))
        purpose = f"rung {self._fact.number} run {self._run_number} rows from {asks[0].at}" if asks else ""
        if not asks:
            return
        if self._books.charge(purpose, upper):
            self._record(asks, upper, purpose)
        else:  # another process took the rest of the budget between the look and the charge: look again
            self._ready.extendleft(reversed(asks))

    def _affordable(self) -> list[_Ask]:
        """The rows of the next block: as many as the budget bears. None while what is in flight may give some of it back."""
        account = self._books.account() if self._books.limited else None
        asks: list[_Ask] = []
        upper = Decimal(0)
        while len(asks) < SEGMENT_ROWS and self._has_ready():
            upper += self._ready[0].upper or Decimal(0)
            if account is not None and not account.bears(upper):
                break
            asks.append(self._ready.popleft())
        if account is not None and self._ready and not asks and not self._flying:
            self._flush()
            if not self._books.account().bears(upper):
                self._end = _End(f"the budget does not bear another row ({self._books.account()})")
        return asks

    def _has_ready(self) -> bool:
        if not self._ready:
            self._ready.extend(islice(self._asks, 1))
            self._exhausted = not self._ready
        return bool(self._ready)

    def _record(self, asks: list[_Ask], upper: Decimal, purpose: str) -> None:
        """Write the block; a number that an earlier run took in the meantime is passed over, its rows counted as asked."""
        bound = None if self._price is None else f"{upper:f}"
        mine = RungSent(owner=self._me, at=self._now(), rows=tuple(ask.at for ask in asks), upper_bound_usd=bound)
        while not self._store.create(sent_path(self._prefix, self._past.blocks), msgspec.json.encode(mine)):
            theirs = fact_store.get(self._store, sent_path(self._prefix, self._past.blocks), RungSent)
            for ask in asks:
                ask.lost += theirs is not None and ask.at in theirs.rows
            self._past.blocks += 1
        number, self._past.blocks = self._past.blocks, self._past.blocks + 1
        for ask in asks:
            ask.block = number
        self._blocks[number] = _Block(purpose, len(asks))
        self._queue.extend(asks)

    def _obey(self) -> None:
        """Raises Superseded when a later run sends for this rung."""
        self._obeyed_at = self._now()
        later = fact_store.get(self._store, self._run_path(self._run_number + 1), RungRun)
        if later is not None:
            raise Superseded(self._label, later.owner)

    def _land(self) -> None:
        landed, _ = wait(self._flying, timeout=1.0, return_when=FIRST_COMPLETED)
        for call in [call for call in self._flying if call in landed]:
            self._take(call)

    def _land_all(self) -> None:
        """What is in flight is waited for: it is paid."""
        while self._flying:
            self._land()

    def _take(self, call: Future[GenerateReply]) -> None:
        ask = self._flying.pop(call)
        try:
            reply = call.result()
        except (KeyRefused, ModelUnknown) as error:
            self._again.append(ask)
            self._end = _End(str(error))
            return
        if reply.busy or reply.lost:
            self._take_busy(ask, reply)
        elif reply.code == _NO_CREDIT:
            self._again.append(ask)
            self._end = _End("the prepaid credit is used up")
        else:
            self._write(ask, reply)

    def _take_busy(self, ask: _Ask, reply: GenerateReply) -> None:
        """Ask the row again, after the pause that the service asked for; one that brings nothing again and again is given up."""
        ask.lost += reply.lost
        shed = reply.code in _SHED or not reply.sent
        ask.failed += not shed
        if ask.failed >= (LOST_TRIES if reply.lost else FAILED_TRIES):
            self._write(ask, reply)
            return
        self._again.append(ask)
        if reply.lost:
            return
        if self._now() >= self._resume_at:  # the first of a burst: those that are in flight with it say the same
            self._pause = min(self._pause * 2, LONGEST_PAUSE)
        asked = reply.retry_after_seconds
        pause = self._pause / 2 if asked is None else timedelta(seconds=asked)
        self._resume_at = max(self._resume_at, self._now() + pause)

    def _write(self, ask: _Ask, reply: GenerateReply) -> None:
        if reply.response is not None:
            self._pause, self._refused, self._past.answers = FIRST_PAUSE, 0, self._past.answers + 1
        else:
            self._refused += 1
            if self._refused >= REFUSED_FEW and not self._past.answers:
                said = (reply.error or {}).get("message", "")
                self._end = _End(f"the service refuses these requests ({reply.code}: {said})")
        tier = reply.tier or self._tier
        usd = self._cost(ask, reply, tier)
        line = SegmentLine(
            at=ask.at, response=reply.response, error=reply.error, model=self._model, tier=tier, lost=ask.lost,
            usd=None if usd is None else f"{usd:f}",
        )  # fmt: skip
        if not self._lines:
            self._first_line_at = self._now()
        self._lines.append(msgspec.json.encode(line) + b"\n")
        self._landed.append((ask.block, usd or Decimal(0)))

    def _cost(self, ask: _Ask, reply: GenerateReply, tier: str) -> Decimal | None:
        """All that was or may have been paid: every call that was lost counts like the one that was answered."""
        if self._price is None:
            return None
        if reply.response is None:
            return (ask.upper or Decimal(0)) * ask.lost
        outcome = classify(msgspec.json.encode({"response": reply.response})).outcome
        cost = spent_on(outcome.usage, self._price, tier_share(tier)).cost_usd or Decimal(0)
        return cost * (1 + ask.lost)

    def _flush(self) -> None:
        """Write what was answered as a segment, then settle the charges of blocks that are whole."""
        if self._lines:
            data = b"".join(self._lines)
            while not self._is_written(segment_path(self._prefix, self._past.segments), data):
                self._past.segments += 1
            self._past.segments += 1
            self._lines.clear()
        for number, usd in self._landed:
            block = self._blocks[number]
            block.open, block.spent = block.open - 1, block.spent + usd
        self._landed.clear()
        for number in [number for number, block in self._blocks.items() if not block.open]:
            block = self._blocks.pop(number)
            self._books.settle(block.purpose, block.spent)

    def _is_written(self, path: str, data: bytes) -> bool:
        """False when another run has that number. What we wrote before, and were not told of, is ours."""
        return self._store.create(path, data) or self._store.read(path) == data

    def _finish(self) -> RungState:
        """Give back the rows that were not asked, and say how far the rung is."""
        self._flush()
        left = [*self._again, *self._queue]
        for number, block in self._blocks.items():
            mine = [ask for ask in left if ask.block == number]
            # Of a row that was asked and lost, only its bound is known.
            block.spent += sum(((ask.upper or Decimal(0)) * ask.lost for ask in mine), Decimal(0))
            free = tuple(ask.at for ask in mine if not ask.lost)
            if free:
                back = RungBack(owner=self._me, at=self._now(), rows=free)
                fact_store.put(self._store, sent_path(self._prefix, number, ".back"), back)
            self._books.settle(block.purpose, block.spent)
        end = self._end or _End("")
        answers = self._past.answers
        if end.done:
            fact = RungDone(owner=self._me, at=self._now(), answers=answers, why=end.why)
            fact_store.put(self._store, f"{self._prefix}.done", fact)
        self._log.info("%s: %d answers%s", self._label, answers, f"; {end.why}" if end.why else "; every row was asked")
        return RungState(end.done, end.until, answers, end.why)


__all__ = [
    "CONCURRENCY",
    "RungState",
    "SettledJobs",
    "prepare_rescue",
    "run_rung",
    "segment_outcomes",
]
