"""The facts of a batch: small, immutable, written create-only under deterministic names. The record is their fold.

Of two writers of one fact the first wins; the second reads it and obeys. A fact says who wrote it (``owner``, one token per
attempt of the task) and when (``at``, our clock; fields named ``service_at`` are the service's own ``Date`` and are compared
only with each other). Unknown fields are ignored on reading; a fact whose ``min_reader`` is above ``READER`` is refused.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from airflow_provider_geminibatch.core.model import BatchId, JobCounts, ServiceIdentity, state_row
from airflow_provider_geminibatch.core.prices import PriceList
from airflow_provider_geminibatch.core.prompt_cache import CacheUse
from airflow_provider_geminibatch.core.sampling import Span

READER = 1
"""The fact format this release reads."""


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """What every fact carries."""

    v: int = 1
    min_reader: int = 1
    owner: str
    at: datetime


class Opening(Fact, frozen=True, kw_only=True):
    """``batch.json``: opens a generation and names the one root build it has; written after that build is sealed."""

    batch: BatchId
    generation: int
    build: str
    workspace_id: str
    workspace_uri: str
    fingerprint: str
    service: ServiceIdentity | None = None
    max_tries: int | None = None
    chosen: str = ""
    """Why the batch is where it is, if there was a choice between locations or connections."""


class Checked(Fact, frozen=True, kw_only=True):
    """``checked-<max_tries>.json``: a clear read the source again and found equal rows."""

    build: str


class Forgotten(Fact, frozen=True, kw_only=True):
    """``forgotten.json``: a person gave this generation up; the next Prepare opens another and refers to nothing of it."""

    reason: str


class Command(Fact, frozen=True, kw_only=True):
    """``command.json``: what a person wants of those who wait for the batch. ``command`` is ``commit_now`` or ``cancel``."""

    command: str
    reason: str = ""


class Estimated(Fact, frozen=True, kw_only=True):
    """``estimate.json``: what similar jobs made us expect when somebody first waited. Nothing is decided by it."""

    p50_at: datetime | None = None
    p90_at: datetime | None = None
    p95_at: datetime | None = None
    n: int = 0
    basis: str = "unknown"
    deadline: datetime | None = None
    chance: float | None = None


class LateNamed(Fact, frozen=True, kw_only=True):
    """``late.json``: the batch was late, and was named so in log, metric and callback."""

    why: str


class Claim(Fact, frozen=True, kw_only=True):
    """An attempt to make a shard a job: under which display name, at which service."""

    display_name: str
    service: ServiceIdentity
    task: str = ""
    """The task instance that submits; ``max_tries`` is its own and says nothing about another's."""
    max_tries: int | None = None


class CacheAsked(Fact, frozen=True, kw_only=True):
    """``caches/<service>/<model>/<digest>/0001.asked``: a prompt cache is about to be made under that display name."""

    display_name: str


class CacheMade(Fact, frozen=True, kw_only=True):
    """``…/0001.json``: the cache that holds what the requests share. No ``name``: the service makes none of it, and ``why``."""

    name: str
    tokens: int
    made_at: datetime
    why: str = ""


class Uploaded(Fact, frozen=True, kw_only=True):
    """The shard lies at the service as ``file_name``, since ``file_at`` by our clock and for ``life_seconds`` by the service's.

    A duration, since the two clocks may be far apart. None: the service said nothing about an end. What was sent is the sealed
    shard without the rows ``left_out``, and with each content of ``media`` at the file of that name; ``sent_sha256`` is its digest.
    """

    file_name: str
    file_at: datetime
    life_seconds: float | None = None
    left_out: tuple[int, ...] = ()
    sent_sha256: str = ""
    media: dict[str, str] = {}
    cache: CacheUse | None = None
    """The prompt cache that requests name which say in the seal what it holds."""


class MediaUploaded(Fact, frozen=True, kw_only=True):
    """``media/<service>/<sha256>/0001.json``: a content lies at the service. ``expires_at`` is by the service's clock."""

    file_name: str
    uri: str
    size_bytes: int
    mime_type: str
    expires_at: datetime | None = None


class Sending(Fact, frozen=True, kw_only=True):
    """The create is about to be sent; from here on its fate is unknown until a job, a refusal or a proven absence is on record."""

    service_at: datetime | None = None


class JobNamed(Fact, frozen=True, kw_only=True):
    """The attempt is a job. ``how`` is ``create`` or ``lookup``; ``extras`` are further jobs of the same create, cancelled."""

    job_name: str
    how: str
    created_at: datetime | None = None
    extras: tuple[str, ...] = ()


class Refusal(Fact, frozen=True, kw_only=True):
    """The create was refused before anything came of it. ``code`` 0 means before the first byte."""

    code: int
    text: str
    retry_after_seconds: float | None = None


class Void(Fact, frozen=True, kw_only=True):
    """The attempt may not send any more. Its owner re-reads this between ``sending`` and the create."""

    why: str


class Shown(Fact, frozen=True, kw_only=True):
    """The attempt's own file was seen, so the one who looks is the same service identity as the one who sent."""

    file_name: str


class Fenced(Fact, frozen=True, kw_only=True):
    """The attempt's file is gone from the service, so a create that wakes up later fails for want of it (``assumed``)."""

    service_at: datetime | None = None


class Absent(Fact, frozen=True, kw_only=True):
    """The create is proven not to have become a job: the service times of the whole list sweeps that did not show it."""

    sweeps: tuple[datetime, ...]


class CancelMark(Fact, frozen=True, kw_only=True):
    """We asked for the end of the job; ``why`` says on whose behalf.

    ``rung`` names the rung of a rescue that asks for its rows instead, so that the shard is not sent again.
    """

    why: str
    rung: int | None = None


class End(Fact, frozen=True, kw_only=True):
    """The job ended: state, counts and times as the service said. ``output``: it did not succeed, and names an output all the same."""

    job_name: str
    state: str
    created_at: datetime | None = None
    ended_at: datetime | None = None
    counts: JobCounts = JobCounts()
    error_code: int | None = None
    error_text: str = ""
    output: bool = False

    @property
    def readable(self) -> bool:
        """True when there are results to be read, of all rows or of some."""
        return self.output or state_row(self.state).readable


class Collected(Fact, frozen=True, kw_only=True):
    """The job's result file lies in the workspace, whole."""

    path: str
    size_bytes: int
    sha256: str
    lines: int


class Stray(Fact, frozen=True, kw_only=True):
    """A job of an attempt that had been proven absent turned up late; it was cancelled and may be on the bill."""

    job_name: str
    state: str


class Round(Fact, frozen=True, kw_only=True):
    """``rounds/NN.json``: opens a round with a sealed build of what was unresolved and worth asking again.

    ``build`` is empty when nothing could be asked better than before. Key files of a round's build have a third element per
    line, ``[shard, row]``: the place of the shard in the root build's ``shards`` (not its ``index``) and the row in it.
    """

    number: int
    build: str
    rows: int
    left: int = 0
    """Rows that were worth asking and could not be asked better than before."""
    reasons: dict[str, int] = {}
    """Why the rows are asked again, by outcome."""
    corrected: int = 0
    """How many of the rows were asked again with their answer and what was wrong with it."""


class Kept(Fact, frozen=True, kw_only=True):
    """``s/<build>/<shard>/canary.json``, ``…/reused.json``, ``…/ended-01.json``: answers that a shard has without its job, wherever
    it is referred to; those of ``ended-…`` came from an earlier job of it, of ``attempt``, that ended badly.

    ``rows`` have a usable answer among the lines of the file and are left out of the shard's jobs; with ``whole`` these are all
    its rows, and it needs no job. ``saved_usd`` is what rows that were used again would have cost by batch; None for an unknown price.
    """

    path: str
    sha256: str
    lines: int
    rows: tuple[int, ...]
    whole: bool = False
    saved_usd: str | None = None
    attempt: int = 0


class Reusing(Fact, frozen=True, kw_only=True):
    """``reuse.json``: answers are used again in this generation, decided once, before any was looked for."""

    max_age_seconds: float | None = None


class Reused(Fact, frozen=True, kw_only=True):
    """``reuse.done.json``: all that there was has been looked up and kept; ``rows`` were looked up and ``reused`` found."""

    rows: int
    reused: int


class DeadLettered(Fact, frozen=True, kw_only=True):
    """``dead_letters/NN.json``: the rows without an answer, as far as seal NN of the results says. No rows, no ``path``."""

    build: str
    path: str
    sha256: str
    rows: int
    counts: dict[str, int] = {}


class RungFact(Fact, frozen=True, kw_only=True):
    """``rungs/NN.json``: a rung of the ladder was opened, for the rows that ``rows`` lists; decided once, by the first fact.

    ``rows`` is a file beside it with a line ``[shard, row]`` per row, in root order, as in the key files of a round.
    ``position`` is the rung's place in the ladder, counted from 0. ``service`` is None for the batch's own.
    """

    number: int
    position: int
    kind: str
    model: str | None = None
    conn_id: str | None = None
    service: ServiceIdentity | None = None
    rows: str = ""
    rows_digest: str = ""
    row_count: int = 0
    limit_at: datetime
    reason: str
    budget_usd: str | None = None


class Settled(Fact, frozen=True, kw_only=True):
    """``rungs/NN.settled``: all jobs before the rung have ended and are collected, or were given up on (``<tag>-<shard>``)."""

    given_up: tuple[str, ...] = ()


class RungBuild(Fact, frozen=True, kw_only=True):
    """``rungs/NN.build``: the sealed build by which a rung asks again as a batch; its id, empty when nothing was left to ask."""

    build: str
    rows: int


class RungDone(Fact, frozen=True, kw_only=True):
    """``rungs/NN.done``: nothing will be sent by this rung any more."""

    answers: int = 0
    why: str = ""


class RungRun(Fact, frozen=True, kw_only=True):
    """``rungs/NN.run-0001``: who sends for an interactive rung; the highest number does, everybody before it stops."""


class RungSent(Fact, frozen=True, kw_only=True):
    """``rungs/NN.sent-00000``: these rows are about to be asked, at an upper bound of their cost (None: no known price)."""

    rows: tuple[tuple[int, int], ...]
    upper_bound_usd: str | None = None


class RungBack(Fact, frozen=True, kw_only=True):
    """``rungs/NN.sent-00000.back``: rows of the block that were certainly not answered, so that they cost nothing."""

    rows: tuple[tuple[int, int], ...]


class Charge(Fact, frozen=True, kw_only=True):
    """``charges/0001.json``: a paid effect is about to be done; ``upper_bound_usd`` is the most that it can cost.

    With ``basis`` "estimate" it is the high end of an estimate, which holds only about as often as estimates do.
    """

    purpose: str
    upper_bound_usd: str
    basis: str = "upper_bound"
    expected_usd: str | None = None


class Spending(Fact, frozen=True, kw_only=True):
    """``charges/0001.spent.json``: what the effect really cost; from here on it counts instead of the upper bound."""

    usd: str


class CostEstimated(Fact, frozen=True, kw_only=True):
    """``cost.json``: what the root build was estimated to cost by batch before it was sent. The first estimate stands.

    ``expected_usd`` is None where answers to the like were unknown, so that only bounds could be told.
    """

    low_usd: str
    expected_usd: str | None
    high_usd: str
    counted: bool
    answers_from: str
    sampled: int

    @property
    def span(self) -> Span:
        """The interval."""
        expected = None if self.expected_usd is None else Decimal(self.expected_usd)
        return Span(Decimal(self.low_usd), expected, Decimal(self.high_usd))

    def as_dict(self) -> dict[str, Any]:
        """As much of ``CostEstimate.as_dict`` as is on record."""
        about = {"counted": self.counted, "answers_from": self.answers_from, "sampled": self.sampled}
        return {**about, "batch_usd": self.span.amounts()}


class Priced(Fact, frozen=True, kw_only=True):
    """``prices/<model>.json``: the prices that this generation is counted by, decided once by whoever needs them first."""

    model: str
    prices: PriceList


class JanitorAct(Fact, frozen=True, kw_only=True):
    """``janitor/<name>.json``: the janitor is about to act on something at the service that no ledger knows."""

    name: str
    act: str
    why: str


class LateResults(Fact, frozen=True, kw_only=True):
    """``…/late/<job>.json``: results that came after their batch was closed: kept and costed, never committed."""

    job_name: str
    path: str
    size_bytes: int
    sha256: str
    lines: int
    cost_usd: str | None = None


FACTS: dict[str, type[Fact]] = {
    "claim": Claim,
    "uploaded": Uploaded,
    "sending": Sending,
    "job": JobNamed,
    "refused": Refusal,
    "void": Void,
    "shown": Shown,
    "fenced": Fenced,
    "absent": Absent,
    "cancel": CancelMark,
    "end": End,
    "collected": Collected,
    "stray": Stray,
}
"""Every fact of an attempt by the suffix of its name: ``a01.claim``, ``a01.uploaded`` …"""


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of one attempt, folded. The fields are the suffixes of ``FACTS``."""

    number: int
    claim: Claim
    uploaded: Uploaded | None = None
    sending: Sending | None = None
    job: JobNamed | None = None
    refused: Refusal | None = None
    void: Void | None = None
    shown: Shown | None = None
    fenced: Fenced | None = None
    absent: Absent | None = None
    cancel: CancelMark | None = None
    end: End | None = None
    collected: Collected | None = None
    stray: Stray | None = None


class ShardFacts(msgspec.Struct, frozen=True):
    """All attempts of one shard, oldest first. No attempt at all means: certainly nothing was ever sent.

    ``needless``: there is none, and none is needed, since every row has an answer that was kept.
    """

    attempts: tuple[Attempt, ...] = ()
    needless: bool = False

    @property
    def last(self) -> Attempt | None:
        return self.attempts[-1] if self.attempts else None

    @property
    def current_job(self) -> str | None:
        """The job that stands for the shard: that of the last attempt that has one and was not proven absent before it came."""
        return self.job_attempt.job.job_name if self.job_attempt and self.job_attempt.job else None

    @property
    def job_attempt(self) -> Attempt | None:
        """The attempt whose job stands for the shard."""
        named = [attempt for attempt in self.attempts if attempt.job and not attempt.absent]
        return named[-1] if named else None

    @property
    def sent(self) -> bool:
        """True when a create was or may have been sent, so that money may have been spent."""
        return any(attempt.sending or attempt.job for attempt in self.attempts)

    @property
    def open(self) -> bool:
        """True when a create is a job without an end on record, or may be one."""
        sent = (attempt for attempt in self.attempts if attempt.sending or attempt.job)
        return any(not (attempt.end or attempt.refused or attempt.absent) for attempt in sent)


def attempt_path(ledger: str, number: int, fact: str) -> str:
    """The object of a fact, relative to the workspace: ``…/s/<build>/<shard>/a01.claim``."""
    return f"{ledger}/a{number:02d}.{fact}"
