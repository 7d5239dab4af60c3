"""What may be done next about a whole batch: one pure function over what is on record, the policy, and the time.

``batch_step(summary, policy, me, now)`` returns the independent steps that may be done next. Whoever walks performs them and
asks again, so that a crash anywhere resumes at the same question. ``EFFECTS`` says of every step which fact comes before it,
what it does, which fact comes after it, and why repeating it is harmless.

The order of things: what was answered before is looked up, and a canary goes first, if there is one; the root build is
submitted and waited for; what is unresolved and worth asking again goes into rounds, each smaller than the one before; at
the deadline, or when stuck, the rungs of the ladder are opened one after the other; at the end stands a commit, or a
failure that says why.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal, get_args

import msgspec

from airflow_provider_geminibatch.core import canary as canaries
from airflow_provider_geminibatch.core.canary import Canary, CanaryReport
from airflow_provider_geminibatch.core.errors import BatchCancelled, GeminiBatchError, Unusable, WaitTimedOut
from airflow_provider_geminibatch.core.ledger import RungFact
from airflow_provider_geminibatch.core.locations import Address, address
from airflow_provider_geminibatch.core.reuse import Reuse
from airflow_provider_geminibatch.core.steps import Effect
from airflow_provider_geminibatch.core.verdict import Thresholds

RungKind = Literal["wait", "commit", "resubmit", "flex", "standard", "hedge", "fail"]
KINDS: tuple[RungKind, ...] = get_args(RungKind)

INTERACTIVE = frozenset({"flex", "standard"})
"""Rungs that ask row by row, on the worker."""

REBUILT = frozenset({"resubmit", "hedge"})
"""Rungs that ask again as a batch, by a sealed build of their own."""

LEAVES_JOBS = frozenset({"wait", "hedge"})
"""Rungs that let open jobs run. Before any other rung they are cancelled and what they brought is collected."""

DEARER = frozenset({"standard", "hedge"})
"""Rungs that pay more than the batch price: twice by standard, and twice the rows by a hedge. Flex costs what batch costs."""


class Rung(msgspec.Struct, frozen=True):
    """One rung of the ladder: what to do, for how long, and by which model, connection and location if not the batch's own.

    ``location`` is one of the connection's project on Vertex AI; the connection's own list need not name it.
    """

    kind: RungKind
    limit: timedelta = timedelta(hours=1)
    model: str | None = None
    conn_id: str | None = None
    location: str | None = None

    @property
    def address(self) -> str | None:
        """The connection with its location; ``@location`` alone is the batch's own connection there, None the batch's own place."""
        if not self.location:
            return self.conn_id
        return str(Address(address(self.conn_id or "").conn_id, self.location))

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise Unusable(f"Rung({self.kind!r})", "there is no such rung", f"Write one of {', '.join(KINDS)}.")
        if self.limit <= timedelta():
            raise Unusable(f"Rung({self.kind!r}, limit={self.limit})", "a limit is a time", "Write more than zero.")
        if (self.model or self.address) and self.kind not in INTERACTIVE | REBUILT:
            raise Unusable(f"Rung({self.kind!r})", "it asks nobody", "Leave model=, conn_id= and location= out.")


class BatchPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What a batch may do to come to its commit.

    ``deadline`` is a time, or a span from the batch's first intent, which survives retries. ``stuck_after`` is the share of
    similar jobs that had ended by the time a batch counts as stuck. ``early`` is the share of the rows that has to be new
    before a further early commit. Nothing dearer than batch is paid without ``standard_allowed`` (standard), nor in a
    backfill without ``rescue_in_backfill``. A build is charged to ``max_cost_usd`` at its upper bound, or, with ``budget``
    "estimate", at the high end of its estimate; rows that are asked one by one always at their bound. With a ``canary`` a
    sample goes first, and nothing is sent if that comes back bad. With ``reuse`` rows that were answered before are not asked.
    With ``reask_invalid`` a round tells the model what was wrong with an answer that does not fit the schema.
    """

    canary: Canary | None = None
    reuse: Reuse | None = None
    max_rounds: int = 1
    truncated_cap_factor: float = 2.0
    reask_invalid: bool = False
    deadline: datetime | timedelta | None = None
    ladder: tuple[Rung, ...] = ()
    stuck_after: float | None = None
    early: float | None = None
    max_cost_usd: Decimal | None = None
    budget: Literal["upper_bound", "estimate"] = "upper_bound"
    standard_allowed: bool = False
    in_backfill: bool = False
    rescue_in_backfill: bool = False
    thresholds: Thresholds = Thresholds()

    def __post_init__(self) -> None:
        if self.max_rounds < 0:
            raise Unusable(f"rounds={self.max_rounds}", "it is a number of rounds", "Write 0 or more.")
        if self.early is not None and not 0 < self.early <= 1:
            raise Unusable(f"early={self.early}", "it is a share of the rows", "Write a number above 0, at most 1.")
        if self.ladder and self.deadline is None and self.stuck_after is None:
            raise Unusable("on_deadline", "a ladder without a deadline is never climbed", "Set deadline= too.")

    def deadline_at(self, begun_at: datetime | None, now: datetime) -> datetime | None:
        """The deadline as a time; a span counts from the first intent, or from now while nothing was meant to be sent."""
        if isinstance(self.deadline, timedelta):
            return (begun_at or now) + self.deadline
        return self.deadline

    def allows(self, rung: Rung, charged_usd: Decimal) -> str:
        """Why a rung may not be opened, or an empty text."""
        if rung.kind in DEARER and self.in_backfill and not self.rescue_in_backfill:
            return "a backfill pays no more than the batch price"
        if rung.kind == "standard" and not self.standard_allowed:
            return "the standard price was not allowed"
        asks = rung.kind in INTERACTIVE | REBUILT
        if asks and self.max_cost_usd is not None and charged_usd >= self.max_cost_usd:
            return f"the budget of {self.max_cost_usd} USD is spent"
        return ""


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """A build as far as it was submitted. ``name`` is ``root``, ``round-01`` or ``rung-01``.

    ``submitted``: this walk has been over it, so that what can be adopted or sent again is. ``pending`` shards are not jobs yet,
    ``unclaimed`` ones were never meant to be; with ``wait_until`` they wait, for room or for certainty. ``open`` are jobs that
    have not ended.
    """

    name: str
    rows: int
    ended_rows: int = 0
    pending: int = 0
    unclaimed: int = 0
    open: tuple[str, ...] = ()
    conn_id: str | None = None
    submitted: bool = False
    wait_until: datetime | None = None
    wait_why: str = ""

    @property
    def unfinished(self) -> bool:
        return bool(self.pending or self.open)


class Climbed(msgspec.Struct, frozen=True, kw_only=True):
    """A rung that was opened, and how far it is. ``built``: its build is sealed. ``rest_until``: it asked for a pause."""

    fact: RungFact
    settled: bool = False
    settle_until: datetime | None = None
    built: bool = False
    done: bool = False
    rest_until: datetime | None = None


class Tally(msgspec.Struct, frozen=True):
    """What is unresolved once nothing is open: rows by outcome, and how many are worth asking again."""

    unresolved: dict[str, int]
    worth: int


class BatchSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about a batch that a step depends on, but the time."""

    label: str
    rows: int
    builds: tuple[Sent, ...]
    canary: CanaryReport | None = None
    """What the sample came to that goes first, once it is on record."""
    canary_uri: str = ""
    looked_back: bool = False
    """Answers from before have been looked up, and what there was is kept."""
    canary_until: datetime | None = None
    """The canary asked for a pause."""
    begun_at: datetime | None = None
    tally: Tally | None = None
    not_ready: str = ""
    """Why results that are paid cannot be had yet: a job that succeeded and does not name its output."""
    rounds: tuple[int, ...] = ()
    """For each round that was opened, how many rows were worth asking then."""
    rungs: tuple[Climbed, ...] = ()
    command: str = ""
    command_reason: str = ""
    closed: bool = False
    """A final commit of this generation stands; nothing is sent any more."""
    cancelled: bool = False
    """Every job has been asked to end, on a person's wish."""
    early_rows: int = 0
    stuck_at: datetime | None = None
    charged_usd: Decimal = Decimal(0)

    @property
    def open(self) -> tuple[str, ...]:
        return tuple(name for build in self.builds for name in build.open)

    @property
    def unfinished(self) -> bool:
        return bool(self.not_ready) or any(build.unfinished for build in self.builds)


class ReuseAnswers(msgspec.Struct, frozen=True):
    """Look up answers from before and keep them beside the shards; write ``reuse.done.json``."""


class RunCanary(msgspec.Struct, frozen=True):
    """Ask the sample row by row on the worker, keep its answers, write ``canary/verdict.json``."""


class Submit(msgspec.Struct, frozen=True):
    """Bring the shards of a build to jobs."""

    build: str


class CountUp(msgspec.Struct, frozen=True):
    """Collect what has ended and count what is unresolved."""


class CommitEarly(msgspec.Struct, frozen=True):
    """Commit the shards that have ended under ``_early/``."""


class OpenRound(msgspec.Struct, frozen=True):
    """Seal a build of what is worth asking again; write ``rounds/NN.json``."""

    number: int


class OpenRung(msgspec.Struct, frozen=True):
    """Write the row set, then ``rungs/NN.json``."""

    number: int
    position: int
    rung: Rung
    reason: str


class Settle(msgspec.Struct, frozen=True):
    """Look at open jobs a last time, cancel them, wait for their end, collect; write ``rungs/NN.settled``."""

    number: int


class BuildRung(msgspec.Struct, frozen=True):
    """Seal a build of the rung's rows that are still unresolved; write ``rungs/NN.build``."""

    number: int


class RunRung(msgspec.Struct, frozen=True):
    """Ask for the rung's rows one by one on the worker, until all are answered or its limit is reached."""

    number: int


class EndRung(msgspec.Struct, frozen=True):
    """Write ``rungs/NN.done``."""

    number: int
    why: str


class CancelAll(msgspec.Struct, frozen=True):
    """Ask every open job to end, on a person's wish."""

    reason: str


class Rest(msgspec.Struct, frozen=True):
    """Nothing to do before ``until`` (None: no limit), or before jobs have ended."""

    until: datetime | None
    why: str


class Commit(msgspec.Struct, frozen=True):
    """Commit every row with the best outcome it has."""

    why: str = ""


class Fail(msgspec.Struct, frozen=True):
    """Give up; ``error`` says why, and what to do."""

    error: GeminiBatchError


Act = (
    ReuseAnswers
    | RunCanary
    | Submit
    | CountUp
    | CommitEarly
    | OpenRound
    | OpenRung
    | Settle
    | BuildRung
    | RunRung
    | EndRung
    | CancelAll
)
BatchStep = Act | Rest | Commit | Fail

EFFECTS: dict[type, Effect] = {
    ReuseAnswers: Effect("reuse.json", "copies answers", "reused.json of each shard, reuse.done.json", "create-only; own copies go"),
    RunCanary: Effect("rungs/00.json", "paid calls", "segments, canary/verdict.json", "as RunRung; the verdict is create-only"),
    Submit: Effect("the build's seal", "one create per shard", "job of each shard", "core.steps: never repeated on a guess"),
    CountUp: Effect("end", "downloads results", "collected", "reading; a file that is there is not downloaded again"),
    CommitEarly: Effect("collected", "writes below _early/", "_early/…/_manifest.json", "same content, same commit"),
    OpenRound: Effect("collected", "writes a build", "rounds/NN.json", "create-only: a second build is removed again"),
    OpenRung: Effect("", "writes the row set", "rungs/NN.json", "create-only: the second writer obeys"),
    Settle: Effect("rungs/NN.json", "cancels open jobs", "cancel, end, rungs/NN.settled", "cancelling again changes nothing"),
    BuildRung: Effect("rungs/NN.settled", "writes a build", "rungs/NN.build", "create-only: a second build is removed again"),
    RunRung: Effect("rungs/NN.settled", "paid calls", "segments", "segments are read first; what was in flight may be paid twice"),
    EndRung: Effect("segments, or end of its jobs", "nothing outside", "rungs/NN.done", "create-only"),
    CancelAll: Effect("command.json", "cancels open jobs", "cancel", "cancelling again changes nothing"),
    Commit: Effect("collected", "writes the landing", "commits/<id>.done, closed.json", "same content, same commit"),
}  # fmt: skip


def batch_step(summary: BatchSummary, policy: BatchPolicy, me: str, now: datetime) -> tuple[BatchStep, ...]:
    """The steps that may be done next, in an order that is as good as any. Never empty; pure; total."""
    if summary.closed:
        return (Commit("it was committed before"),)
    if summary.command == "cancel":
        # Also what may be a job without anybody knowing yet.
        if summary.unfinished and not summary.cancelled:
            return (CancelAll(summary.command_reason),)
        return (Fail(BatchCancelled(summary.label, summary.command_reason)),)
    if summary.rungs:
        return _on_rung(summary, policy, now)
    reason = _over(summary, policy, now)
    fresh = [Submit(build.name) for build in summary.builds if not build.submitted]
    # At its end nothing new is sent; jobs are adopted, and a cleared task sends again what ended without results.
    if fresh and not (reason and any(build.pending for build in summary.builds)):
        return _before_root(summary, policy, now) or tuple(fresh)
    if reason:
        return _next_rung(summary, policy, reason, now)
    if summary.unfinished:
        # What has passed by now did not end the ordinary course, and is not waited for either.
        ahead = (policy.deadline_at(summary.begun_at, now), summary.stuck_at)
        return _going_on(summary, policy, _earliest(*(at for at in ahead if at is not None and at > now)))
    return _at_rest(summary, policy)


def _before_root(summary: BatchSummary, policy: BatchPolicy, now: datetime) -> tuple[BatchStep, ...]:
    """What comes before the root build is sent, as long as there are shards that nobody has meant to send."""
    if not any(build.unclaimed for build in summary.builds if build.name == "root"):
        return ()
    if policy.reuse is not None and not summary.looked_back:
        return (ReuseAnswers(),)
    if policy.canary is None:
        return ()
    if summary.canary is not None:
        error = canaries.failure(summary.label, summary.canary, policy.canary, summary.canary_uri)
        return (Fail(error),) if error else ()
    if summary.canary_until is not None and now < summary.canary_until:
        return (Rest(summary.canary_until, "the service asked the canary for a pause"),)
    return (RunCanary(),)


def _over(summary: BatchSummary, policy: BatchPolicy, now: datetime) -> str:
    """Why the ordinary course is over, or an empty text."""
    if summary.command == "commit_now":
        return f"a person asked for it: {summary.command_reason}"
    deadline = policy.deadline_at(summary.begun_at, now)
    # What is all there needs no rescue, however late it is.
    settled = not summary.unfinished and (summary.tally is None or not summary.tally.worth)
    if deadline is not None and now >= deadline and not settled:
        return f"the deadline {deadline:%Y-%m-%d %H:%M:%S %Z} passed"
    if summary.stuck_at is not None and now >= summary.stuck_at and summary.open and policy.ladder:
        return f"stuck: most similar jobs had ended by {summary.stuck_at:%Y-%m-%d %H:%M:%S %Z}"
    return ""


def _going_on(summary: BatchSummary, policy: BatchPolicy, limit: datetime | None) -> tuple[BatchStep, ...]:
    """While something is open: what can be sent and what can be committed early, and else waiting."""
    acts: list[BatchStep] = [Submit(build.name) for build in summary.builds if build.pending and not build.wait_until]
    ended = sum(build.ended_rows for build in summary.builds if build.name == "root")
    if policy.early is not None and ended - summary.early_rows >= max(1, policy.early * summary.rows):
        acts.append(CommitEarly())
    if acts:
        return tuple(acts)
    waits = [build for build in summary.builds if build.wait_until]
    why = "; ".join(dict.fromkeys(build.wait_why for build in waits if build.wait_why))
    jobs = len(summary.open)
    if jobs:
        why = "; ".join(filter(None, (f"{jobs} job{'s' if jobs > 1 else ''} open", why)))
    why = "; ".join(filter(None, (why, summary.not_ready)))
    return (Rest(_earliest(limit, *(build.wait_until for build in waits)), why),)


def _at_rest(summary: BatchSummary, policy: BatchPolicy) -> tuple[BatchStep, ...]:
    """Nothing is open: count, and ask again what is worth it while rounds are left and shrink."""
    tally = summary.tally
    if tally is None:
        return (CountUp(),)
    used = len(summary.rounds)
    shrinks = not summary.rounds or tally.worth < summary.rounds[-1]
    spent = policy.max_cost_usd is not None and summary.charged_usd >= policy.max_cost_usd
    if tally.worth and used < policy.max_rounds and shrinks and not spent:
        return (OpenRound(used + 1),)
    return (Commit(),)


def _next_rung(summary: BatchSummary, policy: BatchPolicy, reason: str, now: datetime) -> tuple[BatchStep, ...]:
    """The next rung that the policy allows; below the last one lies a commit of what is there."""
    number = len(summary.rungs) + 1
    begin = summary.rungs[-1].fact.position + 1 if summary.rungs else 0
    if summary.command != "commit_now":
        for position in range(begin, len(policy.ladder)):
            rung = policy.ladder[position]
            if rung.kind == "fail":
                # Nothing is put on record: with a later deadline the same batch may be waited for again.
                return (Fail(_timed_out(summary, policy, now)),)
            if not policy.allows(rung, summary.charged_usd):
                return (OpenRung(number, position, rung, reason),)
    if policy.ladder or summary.rungs or summary.command == "commit_now":
        return (OpenRung(number, max(begin, len(policy.ladder)), COMMIT_RUNG, reason),)
    return (Fail(_timed_out(summary, policy, now)),) if summary.unfinished else (Commit(reason),)


def _on_rung(summary: BatchSummary, policy: BatchPolicy, now: datetime) -> tuple[BatchStep, ...]:
    """The last rung that was opened decides, until it is done or its limit is reached."""
    climbed = summary.rungs[-1]
    kind = climbed.fact.kind
    if summary.command == "commit_now" and kind != "commit":
        return _next_rung(summary, policy, _over(summary, policy, now), now)
    if kind not in LEAVES_JOBS and not climbed.settled:
        return _settling(climbed, now)
    if kind == "commit":
        return (Commit(climbed.fact.reason),)
    if kind == "hedge" and climbed.done:
        return (Commit(climbed.fact.reason),) if climbed.settled else _settling(climbed, now)
    if kind in INTERACTIVE and not climbed.done:
        return _asking(climbed, now)
    if kind in REBUILT and not climbed.built:
        return (BuildRung(climbed.fact.number),)
    if kind == "hedge" and summary.unfinished and _one_side_ended(summary):
        return _race(summary, policy, climbed, now)
    if summary.unfinished and now < climbed.fact.limit_at:
        return _going_on(summary, policy, climbed.fact.limit_at)
    if summary.unfinished:
        return _next_rung(summary, policy, f"{kind} reached its limit: {climbed.fact.reason}", now)
    return _after(summary, policy, climbed, now)


def _settling(climbed: Climbed, now: datetime) -> tuple[BatchStep, ...]:
    if climbed.settle_until is not None and now < climbed.settle_until:
        return (Rest(climbed.settle_until, "cancelled jobs are still to end"),)
    return (Settle(climbed.fact.number),)


def _asking(climbed: Climbed, now: datetime) -> tuple[BatchStep, ...]:
    number, limit_at = climbed.fact.number, climbed.fact.limit_at
    if now >= limit_at:
        return (EndRung(number, "its limit is reached"),)
    if climbed.rest_until is not None and now < climbed.rest_until:
        return (Rest(min(climbed.rest_until, limit_at), f"{climbed.fact.kind} is asked again later"),)
    return (RunRung(number),)


def _one_side_ended(summary: BatchSummary) -> bool:
    hedge = f"rung-{summary.rungs[-1].fact.number:02d}"
    sides = [[build.unfinished for build in summary.builds if (build.name == hedge) is own] for own in (True, False)]
    return any(not any(side) for side in sides)


def _race(summary: BatchSummary, policy: BatchPolicy, climbed: Climbed, now: datetime) -> tuple[BatchStep, ...]:
    """One side of a hedge has ended: if it answered all, the other is cancelled; else both are waited for."""
    if summary.tally is None:
        return (CountUp(),)
    if not summary.tally.worth:
        return (EndRung(climbed.fact.number, "one side has answered all"),)
    if now < climbed.fact.limit_at:
        return _going_on(summary, policy, climbed.fact.limit_at)
    return _next_rung(summary, policy, f"hedge reached its limit: {climbed.fact.reason}", now)


def _after(summary: BatchSummary, policy: BatchPolicy, climbed: Climbed, now: datetime) -> tuple[BatchStep, ...]:
    """The rung has done what it could: commit, or the next one for what is left."""
    if summary.tally is None:
        return (CountUp(),)
    if not summary.tally.worth:
        return (Commit(climbed.fact.reason),)
    return _next_rung(summary, policy, f"{summary.tally.worth} rows are left: {climbed.fact.reason}", now)


def _timed_out(summary: BatchSummary, policy: BatchPolicy, now: datetime) -> WaitTimedOut:
    deadline = policy.deadline_at(summary.begun_at, now) or now
    shown = ", ".join(summary.open[:3]) + (" …" if len(summary.open) > 3 else "")
    return WaitTimedOut(summary.label, deadline, shown or "none is a job yet, or rows are left without an answer")


def _earliest(*times: datetime | None) -> datetime | None:
    return min((time for time in times if time is not None), default=None)


COMMIT_RUNG = Rung("commit")
"""What is below the last rung of every ladder, and what a person's "commit now" opens."""
