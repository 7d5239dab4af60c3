"""An interactive rung: rows asked one by one on the worker, by flex or standard, a few at a time.

A run that starts again reads the segments and never asks an answered row. What it may pay again is what was in flight, and
what had been answered and not written yet: at most the concurrency and one segment. One process sends for a rung: who begins
later says so in the ledger, and who began earlier sees it before its next block and stops.

Threads do nothing but the call; all that is decided and written, the first thread does.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import datetime, timedelta

import msgspec

from airflow_provider_geminibatch.core.batch import BatchPolicy
from airflow_provider_geminibatch.core.errors import GeminiBatchError, KeyRefused, ModelUnknown, ServiceError
from airflow_provider_geminibatch.core.ledger import RungFact
from airflow_provider_geminibatch.core.model import Build
from airflow_provider_geminibatch.core.steps import Policy
from airflow_provider_geminibatch.gemini.gateway import Gateway, GenerateReply
from airflow_provider_geminibatch.jobs import segments
from airflow_provider_geminibatch.jobs.media_uploads import MediaUploads
from airflow_provider_geminibatch.jobs.rung_ledger import Ask, Revise, RungLedger
from airflow_provider_geminibatch.jobs.segments import Place, segment_outcomes
from airflow_provider_geminibatch.jobs.settle import SettledJobs, prepare_rescue
from airflow_provider_geminibatch.jobs.wait import pause_until
from airflow_provider_geminibatch.storage.files import Files, PlainFiles
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


class RungState(msgspec.Struct, frozen=True):
    """How far a rung is. ``until``: it asks for a pause, and to be run again then, from any process. ``answers`` are all of it."""

    done: bool
    until: datetime | None = None
    answers: int = 0
    why: str = ""


class _End(msgspec.Struct, frozen=True):
    """Why no more is sent now. ``done``: for good. ``error``: what only a person can mend."""

    why: str
    done: bool = True
    until: datetime | None = None
    error: GeminiBatchError | None = None


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
    revised: Revise | None = None,
    stop: Callable[[], str] = lambda: "",
    files: Files = PlainFiles(),  # noqa: B008 - has no state
) -> RungState:
    """Ask the rows of a rung that have no answer of it yet, until all have one, its limit, or the end of the budget.

    ``rows`` come in root order; ``revised`` may change a request before it is asked; ``stop`` says, between blocks, why to stop
    for now. ``files`` is the door to media, which may have to be uploaded once more. Raises StoreError, LedgerUnreadable, and
    Superseded when another process has taken the rung over; a canary raises KeyRefused, ModelUnknown and a used-up credit too.
    """
    ledger = RungLedger(fact, store, build, policy.max_cost_usd, me, now, log)
    done = ledger.done()
    if done is not None:
        return RungState(True, None, done.answers, done.why)
    uploads = MediaUploads(
        store,
        gateway,
        files,
        workspace_id=build.workspace_id,
        me=me,
        now=now,
        log=log,
        policy=Policy(deadline=fact.limit_at),
    )
    ledger.begin(rows, revised or (lambda at, request: request), uploads)
    ledger.say_begin(concurrency)
    rung = _Rung(ledger, gateway, fact.limit_at, now, sleep, concurrency, call_seconds, stop)
    end = rung.run(ledger.unfit())
    if end.error is not None and not fact.number:
        raise end.error  # a canary waits for whoever mends it, where a ladder has its next rung
    if end.done:
        ledger.note_done(end.why)
    log.info("%s: %d answers; %s", ledger.label, ledger.answers, end.why or "every row was asked")
    return RungState(end.done, end.until, ledger.answers, end.why)


class _Rung:
    """One run of an interactive rung: what is in flight, what has to be asked again, and until when to pause."""

    def __init__(
        self, ledger: RungLedger, gateway: Gateway, limit_at: datetime, now: Callable[[], datetime],
        sleep: Callable[[float], object] | None, concurrency: int, call_seconds: float, stop: Callable[[], str],
    ) -> None:  # fmt: skip
        self._ledger, self._gateway, self._limit_at, self._now, self._nap = ledger, gateway, limit_at, now, sleep
        self._concurrency, self._call_seconds, self._stop = concurrency, call_seconds, stop
        self._flying: dict[Future[GenerateReply], Ask] = {}
        self._again: deque[Ask] = deque()
        self._queue: deque[Ask] = deque()
        self._resume_at, self._pause = now(), FIRST_PAUSE
        self._end: _End | None = None
        self._refused = 0

    def run(self, unfit: str) -> _End:
        """Ask until there is an end, in good order."""
        self._end = _End(unfit) if unfit else None
        pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix="geminibatch-rung")
        try:
            self._go(pool)
            self._ledger.give_back((*self._again, *self._queue))
        except GeminiBatchError:
            # What is answered and what is in flight is paid: it is kept if the store allows.
            self._ledger.flush()
            self._land_all()
            self._ledger.flush()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        return self._end or _End("")

    @property
    def _asked_all(self) -> bool:
        return self._ledger.exhausted and not self._again and not self._queue

    def _go(self, pool: ThreadPoolExecutor) -> None:
        while True:
            self._end = self._end or self._over()
            if self._end is None:
                self._fill(pool)
            if not self._flying:
                if self._end or self._asked_all:
                    return
                self._rest()
                continue
            self._land()
            lines, due = self._ledger.unwritten, self._ledger.first_line_at + FLUSH_AFTER
            if lines >= segments.SEGMENT_ROWS or (lines and self._now() >= due):
                self._ledger.flush()

    def _over(self) -> _End | None:
        if self._asked_all:
            return None
        if self._now() >= self._limit_at:
            return _End(f"its limit was reached at {self._limit_at:%Y-%m-%d %H:%M:%S %Z}")
        if self._resume_at - self._now() > PAUSE_HERE and not self._flying:
            why = "the service is working on media" if self._ledger.media_until else "the service asked for a pause"
            return _End(why, done=False, until=min(self._resume_at, self._limit_at))
        return None

    def _rest(self) -> None:
        """Nothing is in flight: wait on this worker for the short time that the service asked for."""
        if self._resume_at <= self._now():
            return  # the budget was waited for, and what was in flight has settled
        self._ledger.flush()
        moment = min(self._resume_at, self._limit_at)
        if self._nap is not None:
            self._nap((moment - self._now()).total_seconds())
        else:
            pause_until(moment, now=self._now)

    def _fill(self, pool: ThreadPoolExecutor) -> None:
        while len(self._flying) < self._concurrency and self._now() >= self._resume_at and self._end is None:
            if self._now() >= self._ledger.obeyed_at + OBEY_AGAIN:  # also a process that slept since
                self._ledger.obey()
            ask = self._next()
            if ask is None:
                return
            left = (self._limit_at - self._now()).total_seconds()
            seconds = max(1.0, min(self._call_seconds, left))
            ledger = self._ledger
            call = pool.submit(
                self._gateway.generate, ledger.model, ask.request, tier=ledger.tier, timeout_seconds=seconds
            )
            self._flying[call] = ask

    def _next(self) -> Ask | None:
        if self._again:
            return self._again.popleft()
        if not self._queue and not self._ledger.exhausted:
            self._take_block()
        return self._queue.popleft() if self._queue else None

    def _take_block(self) -> None:
        self._ledger.obey()
        if told := self._stop():
            self._end = _End(told, done=False, until=self._now())
            return
        asks, why = self._ledger.next_block(waiting=bool(self._flying))
        self._queue.extend(asks)
        if self._ledger.media_until is not None:
            self._resume_at = max(self._resume_at, self._ledger.media_until)
        self._end = _End(why) if why else None

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
            self._end = _End(str(error), error=error)
            return
        if reply.busy or reply.lost:
            self._take_busy(ask, reply)
        elif reply.code == _NO_CREDIT:
            self._again.append(ask)
            why = "the prepaid credit is used up"
            self._end = _End(why, error=ServiceError("a call row by row", _NO_CREDIT, why))
        else:
            self._write(ask, reply)

    def _take_busy(self, ask: Ask, reply: GenerateReply) -> None:
        """Ask the row again, after the pause that the service asked for; one that brings nothing again and again is given up."""
        ask.lost += reply.lost
        shed = reply.code in _SHED or not reply.sent
        ask.failed += not shed
        given_up = ask.failed >= (LOST_TRIES if reply.lost else FAILED_TRIES)
        if given_up or (reply.lost and not self._ledger.charge_again(ask)):
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

    def _write(self, ask: Ask, reply: GenerateReply) -> None:
        self._ledger.write(ask, reply)
        if reply.response is not None:
            self._pause, self._refused = FIRST_PAUSE, 0
            return
        self._refused += 1
        if self._refused >= REFUSED_FEW and not self._ledger.answers:
            said = (reply.error or {}).get("message", "")
            self._end = _End(f"the service refuses these requests ({reply.code}: {said})")


__all__ = [
    "CONCURRENCY",
    "RungState",
    "SettledJobs",
    "prepare_rescue",
    "run_rung",
    "segment_outcomes",
]
