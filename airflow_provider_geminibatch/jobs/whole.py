"""A batch from its seal to its commit: asks ``core.batch`` what may be done, does it, and asks again.

``walk`` may be called at any time from any process; it goes as far as it can now and says what is to be waited for. Nothing
is decided here: every step is in ``core.batch``, and how each is carried out is in the module of its name.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal

import msgspec

from airflow_provider_geminibatch.core import batch as planning
from airflow_provider_geminibatch.core.batch import BatchPolicy, BatchSummary, Tally
from airflow_provider_geminibatch.core.canary import CanaryReport
from airflow_provider_geminibatch.core.cost_estimate import CostEstimate
from airflow_provider_geminibatch.core.errors import (
    JobUnreachable,
    ResultsBroken,
    ResultsNotReady,
    Unusable,
)
from airflow_provider_geminibatch.core.landing import Place, RunRef
from airflow_provider_geminibatch.core.layers import At, worth
from airflow_provider_geminibatch.core.ledger import RungDone, RungFact, Settled
from airflow_provider_geminibatch.core.manifest import Manifest
from airflow_provider_geminibatch.core.model import Build, Outcomes, Owner
from airflow_provider_geminibatch.core.names import short
from airflow_provider_geminibatch.core.outcomes import Outcome
from airflow_provider_geminibatch.core.steps import Policy, sends_again
from airflow_provider_geminibatch.gemini.gateway import Gateway
from airflow_provider_geminibatch.gemini.prompt_caches import PromptCaches
from airflow_provider_geminibatch.jobs import rounds
from airflow_provider_geminibatch.jobs.budget import Books, Estimating, charge_build, refuse_build, settle_build
from airflow_provider_geminibatch.jobs.canary import has_begun, keep_what_came, run_canary
from airflow_provider_geminibatch.jobs.cancel import Target, cancel_jobs
from airflow_provider_geminibatch.jobs.collect import Commission, Landed, disk_for, gathered, land, sum_of
from airflow_provider_geminibatch.jobs.cost_estimate import afford, beyond, estimate_cost, note_cost
from airflow_provider_geminibatch.jobs.ending import read_batch
from airflow_provider_geminibatch.jobs.layers import (
    BuiltLayer,
    Gateways,
    OpenedRung,
    generation_of,
    rounds_of,
    rung_path,
    rungs_of,
)
from airflow_provider_geminibatch.jobs.rescue import prepare_rescue, run_rung
from airflow_provider_geminibatch.jobs.results import Desk, is_open, shard_name
from airflow_provider_geminibatch.jobs.reuse import reuse_answers
from airflow_provider_geminibatch.jobs.rows import AnsweredBatch
from airflow_provider_geminibatch.jobs.settle import keep_unsent
from airflow_provider_geminibatch.jobs.standing import Seen, Standing
from airflow_provider_geminibatch.jobs.submit import Submitted, read_build, submit
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.files import Files, PlainFiles
from airflow_provider_geminibatch.storage.landing_store import LandingStore
from airflow_provider_geminibatch.storage.store import Store

LOOK_ELSEWHERE = timedelta(minutes=5)
"""How often jobs of a second connection are looked at while those of the first are waited for."""

NOT_READY = timedelta(minutes=1)
"""How long a job may rest that has succeeded and does not name its output yet."""


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing can be done before ``until`` (None: no limit of ours), or before jobs have ended: all of them, or any.

    ``job_names`` are jobs of ``conn_id``, None for the batch's own connection.
    """

    until: datetime | None
    job_names: tuple[str, ...] = ()
    why: str = ""
    conn_id: str | None = None
    wake: Literal["all", "any"] = "all"


def walk(
    manifest: Manifest,
    *,
    store: Store,
    gateways: Gateways,
    policy: BatchPolicy,
    landing: Place,
    landing_store: LandingStore,
    window: str,
    owner: Owner,
    run: RunRef,
    me: str,
    now: Callable[[], datetime],
    log: logging.Logger,
    max_tries: int | None = None,
    later_try: bool = False,
    stuck_at: datetime | None = None,
    submit_policy: Policy = Policy(),  # noqa: B008 - frozen
    sleep: Callable[[float], object] | None = None,
    part: str = "",
    files: Files = PlainFiles(),  # noqa: B008 - has no state
    processes: int = 1,
) -> Landed | Waiting:
    """Bring a sealed batch as far towards its commit as it goes now.

    ``gateways`` gives the service of a connection id, and of None the batch's own. ``stuck_at`` is when most similar jobs would
    have ended; by default the history of the workspace says it, where ``policy.stuck_after`` asks for it. ``files`` is the door
    to the media that requests name. So many ``processes`` read large results.
    Raises Rejected after a commit outside ``policy.thresholds``, WaitTimedOut at a deadline without a ladder or on a "fail"
    rung, BatchCancelled on a person's wish, Unusable for a deadline that is past before anything was sent, and what ``submit``
    and ``collect`` raise.
    """
    desk = Desk(
        store, gateways(None), me, now, log, sleep, files, disk_for(landing), "raw" in landing.keep, processes=processes
    )
    commission = Commission(
        landing, landing_store, window, owner, run, policy.thresholds, early=policy.early is not None, part=part
    )
    submitting = {"max_tries": max_tries, "later_try": later_try, "policy": submit_policy}
    return _Walk(desk, manifest, gateways, policy, commission, submitting, stuck_at).on()


class _Walk:
    """One walk: what is on record is read anew for every question, what was seen by this process stays with it."""

    def __init__(
        self,
        desk: Desk,
        manifest: Manifest,
        gateways: Gateways,
        policy: BatchPolicy,
        commission: Commission,
        submitting: Mapping[str, Any],
        stuck_at: datetime | None,
    ) -> None:
        self._desk, self._manifest, self._gateways, self._policy = desk, manifest, gateways, policy
        self._commission, self._submitting = commission, submitting
        self._root = read_build(desk.store, manifest.path)
        self._standing = Standing(desk, self._root, gateways, policy, commission, stuck_at)
        self._seen = Seen()
        self._answers: AnsweredBatch | None = None
        self._perform: Mapping[type, Callable[..., None]] = {
            planning.ReuseAnswers: self._reuse_answers,
            planning.RunCanary: self._run_canary,
            planning.Submit: self._submit,
            planning.CountUp: self._count_up,
            planning.CommitEarly: self._commit_early,
            planning.OpenRound: self._open_round,
            planning.OpenRung: self._open_rung,
            planning.Settle: self._settle,
            planning.BuildRung: self._build_rung,
            planning.RunRung: self._run_rung,
            planning.EndRung: self._end_rung,
            planning.CancelAll: self._cancel_all,
        }

    def on(self) -> Landed | Waiting:
        while True:
            summary = self._standing.summary(self._seen)
            self._refuse_past_deadline(summary)
            try:
                for step in planning.batch_step(summary, self._policy, self._desk.me, self._desk.now()):
                    match step:
                        case planning.Commit():
                            return self._commit(step, summary)
                        case planning.Fail(error):
                            raise error
                        case planning.Rest():
                            return self._waiting(summary, step)
                    self._perform[type(step)](step)
            except ResultsNotReady as error:
                if self._seen.not_ready:
                    return Waiting(until=self._desk.now() + NOT_READY, why=str(error))
                # Whether that is waited for, or the deadline does not allow it, is to be decided like all else.
                self._seen.not_ready = str(error)

    def _refuse_past_deadline(self, summary: BatchSummary) -> None:
        deadline = self._policy.deadline
        if not isinstance(deadline, datetime) or summary.begun_at or summary.closed or self._desk.now() < deadline:
            return
        if has_begun(self._desk, self._root):
            return  # a canary was paid, and the batch ends as one that was late
        why = f"it is past ({deadline:%Y-%m-%d %H:%M:%S %Z}) before anything was sent"
        raise Unusable("deadline", why, "Give a later one, or a span, which counts from the first intent.")

    def _reuse_answers(self, step: planning.ReuseAnswers) -> None:
        assert self._policy.reuse is not None
        reuse_answers(self._desk, self._root, self._policy.reuse)
        self._forget_answers()

    def _run_canary(self, step: planning.RunCanary) -> None:
        policy = self._policy
        assert policy.canary is not None
        if policy.max_cost_usd is not None and policy.budget == "upper_bound":
            # Nothing is spent on a sample of what could not be sent after it.
            ledger = [(self._manifest, self._desk.store)]
            afford(ledger, policy.max_cost_usd, me=self._desk.me, now=self._desk.now, charging=False)
        end = run_canary(
            self._desk, self._root, policy.canary, limit_usd=policy.max_cost_usd, in_backfill=policy.in_backfill,
            stop=self._told_otherwise,
        )  # fmt: skip
        self._seen.canary_until = None if isinstance(end, CanaryReport) else end.until
        self._forget_answers()

    def _submit(self, step: planning.Submit) -> None:
        live = {name: (build, conn_id) for name, build, conn_id in self._standing.live(self._rungs())}
        if step.build not in live:
            return  # another process has opened a rung since
        build, conn_id = live[step.build]
        if step.build == "root" and self._policy.canary is None:
            keep_what_came(self._desk, self._root)
        self._forget_answers()
        estimating = self._estimating(self._gateways(conn_id)) if self._policy.budget == "estimate" else None
        max_tries = self._submitting["max_tries"]
        again = partial(sends_again, task="", max_tries=max_tries)
        if why := charge_build(self._books(), self._desk.store, build, self._desk.now(), estimating, again):
            self._beyond_budget(step.build, build, self._gateways(conn_id), why)
            return
        deadline = self._policy.deadline_at(self._standing.begun_at(), self._desk.now())
        policy = msgspec.structs.replace(self._submitting["policy"], deadline=deadline)
        # Without the root there is nothing. Of rounds and rungs the rows stay as they are: the refusal is on record, and no reason
        # to lose what is there or to ask no others.
        root = step.build == "root"
        if not root and not isinstance(self._gateways(conn_id), PromptCaches):
            policy = msgspec.structs.replace(policy, cache=False)  # a rung may ask by a route that takes none
        end = submit(
            self._manifest if root else self._standing.manifest_of(build),
            store=self._desk.store, gateway=self._gateways(conn_id), me=self._desk.me, now=self._desk.now,
            log=self._desk.log, files=self._desk.files, past_refusals=not root, books=self._books(),
            **{**self._submitting, "policy": policy},
        )  # fmt: skip
        self._seen.submitted[step.build] = (None, "") if isinstance(end, Submitted) else (end.until, end.why)

    def _estimating(self, gateway: Gateway) -> Estimating:
        """How a build is estimated: counted by the service that will be asked. That of the root goes on record."""
        desk = self._desk

        def estimate(build: Build) -> CostEstimate:
            found = estimate_cost(
                build,
                desk.store,
                service=str(gateway.identity),
                me=desk.me,
                now=desk.now,
                log=desk.log,
                gateway=gateway,
            )
            if build.id == self._root.id:
                note_cost(build, desk.store, found, me=desk.me, now=desk.now, log=desk.log)
            return found

        return estimate

    def _books(self) -> Books:
        desk = self._desk
        return Books(desk.store, generation_of(self._root), self._policy.max_cost_usd, me=desk.me, now=desk.now)

    def _beyond_budget(self, name: str, build: Build, gateway: Gateway, why: str) -> None:
        """The budget does not bear a build: without the root there is nothing, of any other the rows stay as they are."""
        if name == "root":
            raise beyond(self._policy.max_cost_usd, why, self._books().account().charged_usd)
        refuse_build(self._desk.store, build, gateway.identity, why, me=self._desk.me, at=self._desk.now())
        self._desk.log.warning("%s of %s is not sent: %s", name, self._root.batch, why)

    def _rungs(self) -> tuple[OpenedRung, ...]:
        return rungs_of(self._desk.store, self._root)

    def _forget_answers(self) -> None:
        self._answers = self._seen.tally = None

    def _gathered(self) -> AnsweredBatch:
        """All answers as far as there are any; what has not ended is not answered yet."""
        if self._answers is None:
            # Once that is known, rows whose results cannot be had yet are not answered yet either.
            try:
                self._answers = gathered(
                    self._desk,
                    self._manifest,
                    self._gateways,
                    unless_open=True,
                    unless_ready=bool(self._seen.not_ready),
                )
            except (ResultsBroken, JobUnreachable) as error:
                if not self._is_late():
                    raise
                # Nobody waits any more for what cannot be trusted, or is not shown: the ladder may ask for its rows.
                what, why = (
                    (error.what, error.why) if isinstance(error, ResultsBroken) else (error.job_name, error.text)
                )
                raise ResultsNotReady(what, why) from error
            self._settle_books(self._answers)
        return self._answers

    def _is_late(self) -> bool:
        deadline = self._policy.deadline_at(self._standing.begun_at(), self._desk.now())
        return deadline is not None and self._desk.now() >= deadline

    def _settle_books(self, batch: AnsweredBatch) -> None:
        """From here on what ended builds really cost counts instead of their upper bounds."""
        books = self._books()
        if not books.limited:
            return
        settle_build(books, batch.store, self._root, sum_of(shard.spent for shard in batch.shards).cost_usd)
        for layer in batch.layers:
            if isinstance(layer, BuiltLayer):
                settle_build(books, batch.store, layer.build, layer.spent.cost_usd)

    def _count_up(self, step: planning.CountUp) -> None:
        unresolved: Counter[str] = Counter()
        worthy = 0
        for _, outcome in self._gathered().unresolved():
            unresolved[outcome.kind.value] += 1
            worthy += bool(worth(outcome))
        self._seen.tally = Tally(dict(unresolved), worthy)
        told = ", ".join(f"{rows} {kind}" for kind, rows in sorted(unresolved.items()))
        self._desk.log.info("%s: %s", self._root.batch, f"unresolved: {told}" if told else "every row is answered")

    def _commit_early(self, step: planning.CommitEarly) -> None:
        batch = gathered(self._desk, self._manifest, self._gateways, ended_only=True)
        land({batch.origin.workspace: self._desk}, self._commission, [batch], complete=False)
        self._seen.early_rows = batch.rows

    def _open_round(self, step: planning.OpenRound) -> None:
        rows = rounds.worthy(self._gathered().unresolved())
        rounds.open_round(
            self._desk, self._root, step.number, rows, cap_factor=self._policy.truncated_cap_factor,
            reask_invalid=self._policy.reask_invalid,
        )  # fmt: skip
        self._forget_answers()

    def _open_rung(self, step: planning.OpenRung) -> None:
        rung, root, store = step.rung, self._root, self._desk.store
        keep_what_came(self._desk, root)
        self._forget_answers()
        path, rows, digest = "", 0, ""
        if rung.kind in planning.INTERACTIVE | planning.REBUILT:
            path = rung_path(root, step.number, f"{short(self._desk.me, self._desk.now().isoformat())}.rows")
            asked = (at for at, _ in rounds.worthy(self._gathered().unresolved()))
            rows, digest = rounds.write_rows(store, path, asked)
        service = None if rung.address is None else self._gateways(rung.address).identity
        budget = self._policy.max_cost_usd
        mine = RungFact(
            owner=self._desk.me, at=self._desk.now(), number=step.number, position=step.position, kind=rung.kind,
            model=rung.model, conn_id=rung.address, service=service, rows=path, rows_digest=digest, row_count=rows,
            limit_at=self._desk.now() + rung.limit, reason=step.reason, budget_usd=None if budget is None else str(budget),
        )  # fmt: skip
        standing = fact_store.put(store, rung_path(root, step.number, "json"), mine)
        if path and standing.rows != path:
            store.delete(path)
        self._forget_answers()
        self._desk.log.warning(
            "%s: %s; rung %d is %s, until %s", root.batch, standing.reason, standing.number, standing.kind,
            f"{standing.limit_at:%Y-%m-%d %H:%M:%S %Z}",
        )  # fmt: skip

    def _settle(self, step: planning.Settle) -> None:
        rungs = self._rungs()
        if rungs[step.number - 1].settled:
            return  # another process has settled it since, and what is open now is the rung's own
        live = self._standing.live(rungs)
        builds = [(build, self._gateways(conn_id)) for _, build, conn_id in live]
        desk = self._desk
        done = prepare_rescue(
            step.number, builds, store=desk.store, me=desk.me, now=desk.now, log=desk.log, sleep=desk.sleep
        )
        self._forget_answers()
        if done.until is not None:
            self._seen.settle_until[step.number] = done.until
            return
        # A shard that never became a job will not be one any more either.
        unsent = [
            shard_name(shard)
            for build, _ in builds
            for shard in build.shards
            if is_open(fact_store.shard_facts(desk.store, shard.ledger))
        ]
        given_up = tuple(dict.fromkeys((*done.given_up, *unsent)))
        fact = Settled(owner=desk.me, at=desk.now(), given_up=given_up)
        fact_store.put(desk.store, rung_path(self._root, step.number, "settled"), fact)

    def _build_rung(self, step: planning.BuildRung) -> None:
        fact = self._rungs()[step.number - 1].fact
        desk = replace(self._desk, gateway=self._gateways(fact.conn_id))
        rows = rounds.worthy(self._gathered().unresolved())
        rounds.build_rung(desk, self._root, fact, rows, factors=self._factors())
        self._forget_answers()

    def _factors(self) -> tuple[float, ...]:
        """By how much a rung may raise the allowance of a truncated row: rounds have raised it before."""
        factor, opened = self._policy.truncated_cap_factor, len(rounds_of(self._desk.store, self._root))
        return tuple(factor**step for step in range(1, opened + 2)) if factor > 1 else ()

    def _run_rung(self, step: planning.RunRung) -> None:
        fact, desk = self._rungs()[step.number - 1].fact, self._desk
        truncated: dict[At, Outcome] = {}

        def rows() -> Iterator[At]:
            for at, outcome in rounds.worthy(self._gathered().unresolved()):
                if outcome.kind is Outcomes.TRUNCATED:
                    truncated[at] = outcome
                yield at

        gateway = self._gateways(fact.conn_id)
        most = rounds.most_of(gateway, fact.model or self._root.model)
        factors, same = self._factors(), fact.model in (None, self._root.model)

        def revised(at: At, request: dict[str, Any]) -> dict[str, Any] | None:
            cut = truncated.get(at)
            if cut is None or not factors:
                return request
            # Another model may come to an end where this one does not.
            return rounds.larger(request, cut, factors, most) or (request if cut.transient or not same else None)

        state = run_rung(
            fact, rows(), store=desk.store, build=self._root, gateway=gateway, policy=self._policy,
            me=desk.me, now=desk.now, log=desk.log, sleep=desk.sleep, revised=revised, stop=self._told_otherwise,
            files=desk.files,
        )  # fmt: skip
        self._forget_answers()
        if state.until is not None:
            self._seen.rest_until[step.number] = state.until

    def _told_otherwise(self) -> str:
        command = self._standing.command(self._standing.begun_at())
        return f"{command.owner} asked for {command.command}" if command else ""

    def _end_rung(self, step: planning.EndRung) -> None:
        fact = RungDone(owner=self._desk.me, at=self._desk.now(), why=step.why)
        fact_store.put(self._desk.store, rung_path(self._root, step.number, "done"), fact)

    def _cancel_all(self, step: planning.CancelAll) -> None:
        desk = self._desk
        for _, build, conn_id in self._standing.live(self._rungs()):
            keep_unsent(replace(desk, gateway=self._gateways(conn_id)), build)
            batch = read_batch(self._standing.manifest_of(build), desk.store)
            targets = [Target(job.name, desk.store, job.place) for job in batch.jobs if job.attempt.end is None]
            done = cancel_jobs(targets, self._gateways(conn_id), owner=desk.me, why=step.reason, now=desk.now())
            for error in done.failed.values():
                raise error
            desk.log.info("%s: %s", batch.label, done)
        self._seen.cancelled = True

    def _commit(self, step: planning.Commit, summary: BatchSummary) -> Landed:
        if step.why:
            self._desk.log.info("%s: commits what is there: %s", self._root.batch, step.why)
        # Another process may have settled or closed it since, with more than this one had seen.
        known = None if summary.closed or summary.rungs else self._answers
        batch = known or gathered(self._desk, self._manifest, self._gateways)
        landed = land({batch.origin.workspace: self._desk}, self._commission, [batch])
        if landed.manifest.rejected:
            raise landed.rejected
        return landed

    def _waiting(self, summary: BatchSummary, step: planning.Rest) -> Waiting:
        """What to wait for: jobs of one connection, and a time that looks after those of another."""
        own = [build for build in summary.builds if build.open and build.conn_id is None]
        watched = own or [build for build in summary.builds if build.open]
        conn_id = watched[0].conn_id if watched else None
        names = tuple(name for build in watched if build.conn_id == conn_id for name in build.open)
        until = step.until
        if summary.not_ready:
            soon = self._desk.now() + NOT_READY
            until = soon if until is None else min(soon, until)
        if len(names) < len(summary.open):
            soon = self._desk.now() + LOOK_ELSEWHERE
            until = soon if until is None else min(soon, until)
        hedging = bool(summary.rungs) and summary.rungs[-1].fact.kind == "hedge"
        wake: Literal["all", "any"] = "any" if self._policy.early is not None or hedging else "all"
        return Waiting(until=until, job_names=names, why=step.why, conn_id=conn_id, wake=wake)


__all__ = ["Waiting", "walk"]
