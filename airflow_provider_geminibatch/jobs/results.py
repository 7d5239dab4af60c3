"""One shard's results: its job, its file in the workspace, and which line belongs to which row."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol, Self

import msgspec

from airflow_provider_geminibatch.core.answer_sizes import SizeTally
from airflow_provider_geminibatch.core.errors import JobUnreachable, ResultsBroken, ResultsNotReady, StoreUnreadable
from airflow_provider_geminibatch.core.landing import JobRef, ShardResult
from airflow_provider_geminibatch.core.ledger import Attempt, Collected, End, ShardFacts, attempt_path
from airflow_provider_geminibatch.core.model import JobSnapshot, Outcomes, Shard, state_row
from airflow_provider_geminibatch.core.outcomes import Outcome, SchemaCheck
from airflow_provider_geminibatch.core.prices import NOTHING_SPENT, Price, PriceList, Spent
from airflow_provider_geminibatch.core.prompt_cache import CacheUse
from airflow_provider_geminibatch.core.reconcile import KINDS, LineCounts, Reconciled, distrust
from airflow_provider_geminibatch.gemini.gateway import Gateway
from airflow_provider_geminibatch.jobs.download import fetch
from airflow_provider_geminibatch.jobs.lines import Lines
from airflow_provider_geminibatch.jobs.lookup import find_strays
from airflow_provider_geminibatch.jobs.reading import Read, read_results
from airflow_provider_geminibatch.jobs.submit import end_fact
from airflow_provider_geminibatch.jobs.wait import pause_until
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.files import Files, PlainFiles
from airflow_provider_geminibatch.storage.spool import Disk, Spool
from airflow_provider_geminibatch.storage.store import Store

OUTPUT_LOOKS = (2.0, 4.0, 8.0)
"""Seconds between looks at a job that succeeded and does not name its output yet (seen: ellmer PR#926)."""


class ShardReaders(Protocol):
    """Processes that read results for this one."""

    @property
    def processes(self) -> int: ...

    def start(self, shard: Shard, sealed: Collected, price: Price | None) -> Callable[[], Read]:
        """Have a file read; what is returned waits for it. Raises as ``read_results`` does, then."""
        ...


@dataclass(frozen=True)
class Desk:
    """Who collects, and with what."""

    store: Store
    gateway: Gateway
    me: str
    now: Callable[[], datetime]
    log: logging.Logger
    sleep: Callable[[float], object] | None = None
    files: Files = field(default_factory=PlainFiles)
    """The door to media, where some have to be uploaded again."""
    disk: Disk | None = None
    """The local disk, where what lines came to may wait for the landing; None when there will be none, or none by columns."""
    raw: bool = False
    """Whether the lines themselves land too."""
    processes: int = 1
    """How many processes may read large results, shard by shard."""
    readers: ShardReaders | None = None
    """Those processes, where there are some."""

    def pause(self, seconds: float) -> None:
        """Hold this thread for a moment."""
        if self.sleep is not None:
            self.sleep(seconds)
        else:
            pause_until(self.now() + timedelta(seconds=seconds), now=self.now)


@dataclass(frozen=True)
class Answered:
    """A shard whose job has ended: its results, or the one outcome that all its rows have without results."""

    shard: Shard
    result: ShardResult
    job: JobRef | None = None
    service: str = ""
    found: Reconciled | None = None
    failure: Outcome | None = None
    spent: Spent = NOTHING_SPENT
    price: Price | None = None
    versions: Mapping[str, int] = field(default_factory=dict)
    """Lines per version of the model that answered."""
    strays: tuple[JobSnapshot, ...] = ()
    input_files: tuple[str, ...] = ()
    caches: tuple[CacheUse, ...] = ()
    """The prompt caches that its requests named."""
    sizes: SizeTally = field(default_factory=SizeTally)
    spool: Spool | None = field(default=None, compare=False, repr=False)
    """What its lines came to, by columns; not of all lines, and of none where it was not asked for."""

    @property
    def counts(self) -> dict[str, int]:
        """Rows per outcome."""
        if self.found is not None:
            return self.found.counts
        assert self.failure is not None
        return {kind.value: self.shard.rows if kind is self.failure.kind else 0 for kind in Outcomes}

    @property
    def told(self) -> bool:
        """True when the service answered row by row; else the one outcome of all rows says little about any of them."""
        return self.found is not None

    def kind_of(self, row: int) -> tuple[Outcomes, bool]:
        """The outcome of a row by its kind, and whether a line of the results says so."""
        if self.found is None:
            assert self.failure is not None
            return self.failure.kind, False
        kind = KINDS[self.found.kinds[row]]
        return kind, kind is not Outcomes.MISSING

    @property
    def lines(self) -> LineCounts:
        return self.found.lines if self.found is not None else LineCounts()

    def outcomes(self, store: Store, check: SchemaCheck | None, *, raw: bool = False) -> Iterator[Outcome]:
        """The outcome of every row, in row order; on request with its line."""
        if self.found is None:
            assert self.failure is not None
            yield from (self.failure for _ in range(self.shard.rows))
            return
        with Lines(store, self.result.path, check, raw=raw) as lines:
            yield from self.found.outcomes(lines.outcome_at)

    def unresolved(self, store: Store, check: SchemaCheck | None) -> Iterator[tuple[int, Outcome]]:
        """The rows without an answer, in row order; only their lines are read again."""
        if self.found is None:
            assert self.failure is not None
            yield from ((row, self.failure) for row in range(self.shard.rows))
            return
        answer = KINDS.index(Outcomes.ANSWER)
        with Lines(store, self.result.path, check) as lines:
            for row in (row for row, kind in enumerate(self.found.kinds) if kind != answer):
                yield row, self.found.outcome_of(row, lines.outcome_at)


class OutcomeReader:
    """The outcomes of a shard's rows by row, from the results."""

    def __init__(self, answered: Answered, store: Store, check: SchemaCheck | None, *, raw: bool = False) -> None:
        self._answered = answered
        self._open: Callable[[], Lines] = lambda: Lines(store, answered.result.path, check, raw=raw)
        self._lines: Lines | None = None
        self.again: AbstractSet[int] = answered.found.again.keys() if answered.found is not None else frozenset()
        """The rows that several lines answer."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *details: object) -> None:
        if self._lines is not None:
            self._lines.__exit__(*details)

    def __call__(self, row: int) -> Outcome:
        """The outcome of one row."""
        found = self._answered.found
        if found is None:
            assert self._answered.failure is not None
            return self._answered.failure
        if self._lines is None:
            self._lines = self._open()
        return found.outcome_of(row, self._lines.outcome_at)


def answered(
    desk: Desk,
    prices: PriceList | None,
    shard: Shard,
    check: SchemaCheck | None,
    *,
    unless_open: bool = False,
    unless_ready: bool = False,
    given_up: bool = False,
) -> Answered:
    """What a shard came to, as ``answering`` tells when it is done."""
    return answering(
        desk, prices, shard, check, unless_open=unless_open, unless_ready=unless_ready, given_up=given_up
    )()


def answering(
    desk: Desk,
    prices: PriceList | None,
    shard: Shard,
    check: SchemaCheck | None,
    *,
    unless_open: bool = False,
    unless_ready: bool = False,
    given_up: bool = False,
) -> Callable[[], Answered]:
    """Have a shard's results come and be read; what is returned waits for it, and gives what the shard came to.

    Raises ResultsNotReady while its job runs, ResultsBroken for a file that cannot be trusted.
    With ``unless_open`` a shard without an end on record has no answers yet, which all its rows say, and with ``unless_ready``
    one whose results cannot be had, or not be trusted; ``given_up``, it never will have, whatever comes of its job.
    """
    facts = fact_store.shard_facts(desk.store, shard.ledger)
    if given_up or (unless_open and is_open(facts)):
        return _known(_open(shard, facts, prices, given_up))
    if facts.needless:
        return _known(_without_need(shard))
    strays = tuple(find_strays(desk.store, desk.gateway, shard, facts, me=desk.me, now=desk.now, log=desk.log))
    attempt = facts.job_attempt
    if attempt is None or attempt.job is None:
        return _known(_without_job(shard, facts, strays))
    try:
        end, job = _ended(desk, shard, attempt, attempt.job.job_name)
    except JobUnreachable:
        if not unless_ready:
            raise
        return _known(_open(shard, facts, prices))
    not_asked = len(attempt.uploaded.left_out) if attempt.uploaded else 0
    reference = JobRef(
        name=end.job_name, shard=shard_name(shard), rows=shard.rows - not_asked, state=end.state, created_at=end.created_at,
        ended_at=end.ended_at, error=_why(end) if not state_row(end.state).succeeded else "",
    )  # fmt: skip
    price = prices.at(end.ended_at or end.created_at or end.at) if prices else None
    common: dict[str, Any] = {
        "job": reference, "service": str(attempt.claim.service), "price": price, "strays": strays,
        "input_files": _inputs(facts), "caches": caches_of(facts),
    }  # fmt: skip
    result = ShardResult(shard=shard_name(shard), attempt=attempt.number, job=end.job_name)
    # What somebody called off there is not asked again behind their back.
    called_off = end.state == "CANCELLED" and attempt.cancel is None and not _is_cut(end, attempt)
    why = "job CANCELLED at the service, and not by us" if called_off else _why(end)

    def without_results() -> Answered:
        failure = Outcome(kind=Outcomes.FAILED, reason=why, code=end.error_code, transient=not called_off)
        return Answered(shard, msgspec.structs.replace(result, failure=why), failure=failure, **common)

    if not end.readable:
        return _known(without_results())

    def come() -> Answered:
        collected, read = coming()
        desk.log.info("%s: %s", end.job_name, _summary(read.found, not_asked))
        sealed = msgspec.structs.replace(result, path=collected.path, sha256=collected.sha256)
        found = read.found
        if end.state != "SUCCEEDED":
            reason = f"{why}; the result file holds no line for this row"
            lineless = Outcome(kind=Outcomes.MISSING, reason=reason, transient=not called_off)
            found = msgspec.structs.replace(found, lineless=lineless)
        return Answered(
            shard, sealed, found=found, spent=read.spent, versions=read.versions, sizes=read.sizes, spool=read.spool,
            **common,
        )  # fmt: skip

    def unready(wait: Callable[[], Any]) -> Any:
        try:
            return wait()
        except (ResultsNotReady, ResultsBroken, JobUnreachable) as error:
            if end.output and isinstance(error, ResultsNotReady):
                # A job that ended badly may name a place for results and have written none.
                return without_results()
            if not unless_ready:
                raise
            return _open(shard, facts, prices)

    coming = unready(lambda: _collecting(desk, shard, attempt, job, check, price))
    return _known(coming) if isinstance(coming, Answered) else lambda: unready(come)


def _known(found: Answered) -> Callable[[], Answered]:
    return lambda: found


def shard_name(shard: Shard) -> str:
    """``<build tag>-<shard>``: how a shard is called in rows and manifests."""
    return f"{shard.tag}-{shard.index:04d}"


def is_open(facts: ShardFacts) -> bool:
    """True while something may still come of a shard: it has a job without an end on record, or may be one yet."""
    if facts.needless:
        return False
    attempt, last = facts.job_attempt, facts.last
    if attempt is not None and (attempt is last or attempt.end is None):
        return attempt.end is None
    # What is sent once more is open again, whatever became of the job before.
    return last is None or last.refused is None or last.refused.code == 429


def _open(shard: Shard, facts: ShardFacts, prices: PriceList | None, given_up: bool = False) -> Answered:
    attempt = facts.job_attempt or facts.last
    job = attempt.job.job_name if attempt and attempt.job else ""
    why = f"{job or 'the shard'} {'had not ended when it was given up' if given_up else 'has not ended'}"
    result = ShardResult(shard=shard_name(shard), attempt=attempt.number if attempt else 0, job=job, failure=why)
    nothing = Outcome(kind=Outcomes.MISSING, reason=why, transient=True)
    if not (given_up and attempt and job):
        return Answered(shard, result, failure=nothing)
    # Nobody takes what it brings, and it is paid.
    end = attempt.end
    ended_at = end.ended_at if end else None
    stray = JobSnapshot(
        name=job, state=end.state if end else "RUNNING", created_at=end.created_at if end else None, ended_at=ended_at
    )  # fmt: skip
    price = prices.at(ended_at or attempt.claim.at) if prices else None
    return Answered(shard, result, failure=nothing, price=price, strays=(stray,))


def _without_need(shard: Shard) -> Answered:
    """A shard without a job, all of whose rows were answered before: those answers are a layer of their own."""
    nothing = Outcome(kind=Outcomes.MISSING, reason="it was not asked: it was answered before", transient=True)
    return Answered(shard, ShardResult(shard=shard_name(shard), attempt=0), failure=nothing)


def _without_job(shard: Shard, facts: ShardFacts, strays: tuple[JobSnapshot, ...]) -> Answered:
    last = facts.last
    if last is None or last.refused is None:
        raise ResultsNotReady(str(shard), "it is not a job yet")
    why = f"refused by the service ({last.refused.code}): {last.refused.text}"
    failure = Outcome(kind=Outcomes.FAILED, reason=why, code=last.refused.code or None)
    result = ShardResult(shard=shard_name(shard), attempt=last.number, failure=why)
    return Answered(shard, result, failure=failure, strays=strays)


def caches_of(facts: ShardFacts) -> tuple[CacheUse, ...]:
    """The prompt caches that any attempt of a shard named."""
    uses = (attempt.uploaded.cache for attempt in facts.attempts if attempt.uploaded and attempt.uploaded.cache)
    return tuple({use.name: use for use in uses}.values())


def _inputs(facts: ShardFacts) -> tuple[str, ...]:
    return tuple(dict.fromkeys(attempt.uploaded.file_name for attempt in facts.attempts if attempt.uploaded))


def _why(end: End) -> str:
    return f"job {end.state}" + (f": {end.error_text}" if end.error_text else "")


VERTEX_CUT = timedelta(hours=24)
"""So long after it began to run the service calls off what is left of a job (batch guide of Vertex AI; its state is ``assumed``)."""


def _is_cut(end: End, attempt: Attempt) -> bool:
    """Whether a job was called off by the service itself for its age. When it began is not on record; it waits before."""
    if attempt.claim.service.route != "vertex" or end.created_at is None or end.ended_at is None:
        return False
    return end.ended_at - end.created_at >= VERTEX_CUT


def _ended(desk: Desk, shard: Shard, attempt: Attempt, job_name: str) -> tuple[End, JobSnapshot | None]:
    """The end of the job as it stands on record. The service is not asked about a job whose results are here already."""
    if attempt.end is not None and (attempt.collected is not None or not attempt.end.readable):
        return attempt.end, None
    job = desk.gateway.job(job_name)
    if not job.ended:
        raise ResultsNotReady(job_name, f"it has not ended ({job.state.lower()})")
    path = attempt_path(shard.ledger, attempt.number, "end")
    return fact_store.put(desk.store, path, end_fact(job, owner=desk.me, at=desk.now())), job


_Coming = Callable[[], tuple[Collected, Read]]


def _collecting(
    desk: Desk, shard: Shard, attempt: Attempt, job: JobSnapshot | None, check: SchemaCheck | None, price: Price | None
) -> _Coming:
    """The results in the workspace: those that were collected before if they are unharmed, else a download."""
    before = attempt.collected
    if before is None:
        return _downloading(desk, shard, attempt, job, check, price)
    reading = _reading(desk, shard, before, check, price)

    def come() -> tuple[Collected, Read]:
        try:
            return before, reading()
        except StoreUnreadable as error:
            desk.log.warning("%s Downloading it again.", error)
        return _downloading(desk, shard, attempt, job, check, price)()

    return come


def _downloading(
    desk: Desk, shard: Shard, attempt: Attempt, job: JobSnapshot | None, check: SchemaCheck | None, price: Price | None
) -> _Coming:
    assert attempt.job is not None
    source = _with_output(desk, job or desk.gateway.job(attempt.job.job_name))
    path = attempt_path(shard.ledger, attempt.number, "results.jsonl")
    came = fetch(desk.gateway, desk.store, source.output_file, path, what=source.name, log=desk.log, pause=desk.pause)
    mine = Collected(owner=desk.me, at=desk.now(), path=path, size_bytes=came.size_bytes, sha256=came.sha256, lines=0)
    reading = _reading(desk, shard, mine, check, price)

    def come() -> tuple[Collected, Read]:
        read = reading()
        why = distrust(read.found, len(attempt.uploaded.left_out) if attempt.uploaded else 0)
        if why:
            raise ResultsBroken(source.name, why)
        if not read.found.lines.lines and source.counts.succeeded:
            # Taken at its word, all its rows would be asked, and paid, once more.
            raise ResultsNotReady(source.name, f"its results are empty, and {source.counts.succeeded} rows succeeded")
        counted = msgspec.structs.replace(mine, lines=read.found.lines.lines)
        standing = fact_store.put(desk.store, attempt_path(shard.ledger, attempt.number, "collected"), counted)
        if standing.sha256 != mine.sha256:
            read = _reading(desk, shard, standing, check, price)()
        return standing, read

    return come


def _reading(
    desk: Desk, shard: Shard, sealed: Collected, check: SchemaCheck | None, price: Price | None
) -> Callable[[], Read]:
    """Have a file read: by another process, where there are some, from now on; else when it is waited for."""
    if desk.readers is not None:
        return desk.readers.start(shard, sealed, price)
    return lambda: read_results(desk.store, desk.disk, shard, sealed, check, price)


def _with_output(desk: Desk, job: JobSnapshot) -> JobSnapshot:
    """The job once it names its output; looked at a few times, since that can come a little after the state."""
    for seconds in OUTPUT_LOOKS:
        if job.output_file:
            return job
        desk.pause(seconds)
        job = desk.gateway.job(job.name)
    if not job.output_file:
        raise ResultsNotReady(job.name, f"it is {job.state.lower()} and does not name its output yet")
    return job


def _summary(found: Reconciled, not_asked: int) -> str:
    counts = found.counts
    # Rows that were answered before are not in the job and miss no line.
    counts[Outcomes.MISSING.value] = max(0, counts[Outcomes.MISSING] - not_asked)
    rows = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    odd = msgspec.structs.asdict(found.lines)
    total = odd.pop("lines")
    aside = ", ".join(f"{count} {kind}" for kind, count in odd.items() if count)
    return f"{total} lines, {rows}" + (f"; kept aside: {aside}" if aside else "")
