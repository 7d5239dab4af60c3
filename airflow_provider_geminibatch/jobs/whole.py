"""A batch from its seal to its commit: asks ``core.batch`` what may be done, does it, and asks again.

``walk`` may be called at any time from any process; it goes as far as it can now and says what is to be waited for. Nothing
is decided here: every step is in ``core.batch``, and how each is carried out is in the module of its name.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

import msgspec

from airflow_provider_geminibatch.core import batch as planning
from airflow_provider_geminibatch.core import eta
from airflow_provider_geminibatch.core.batch import BatchPolicy, BatchSummary, Climbed, Sent, Tally
from airflow_provider_geminibatch.core.ending import first_intent
from airflow_provider_geminibatch.core.errors import (
    Rejected,
    ResultsNotReady,
    SubmissionRefused,
    Unusable,
)
from airflow_provider_geminibatch.core.landing import Closed, Place, RunRef
from airflow_provider_geminibatch.core.layers import At, worth
from airflow_provider_geminibatch.core.ledger import Command, RungDone, RungFact, Settled
from airflow_provider_geminibatch.core.manifest import Manifest
from airflow_provider_geminibatch.core.model import Build, JobSnapshot, Outcomes, Owner
from airflow_provider_geminibatch.core.names import short
from airflow_provider_geminibatch.core.steps import Policy
from airflow_provider_geminibatch.gemini.gateway import Gateway
from airflow_provider_geminibatch.jobs import rounds
from airflow_provider_geminibatch.jobs.budget import Books, charge_build, charged_usd, refuse_build, settle_build
from airflow_provider_geminibatch.jobs.cancel import Target, cancel_jobs
from airflow_provider_geminibatch.jobs.collect import Commission, Landed, gathered, land, sum_of
from airflow_provider_geminibatch.jobs.ending import note_ends, read_batch
from airflow_provider_geminibatch.jobs.layers import (
    BuiltLayer,
    Gateways,
    OpenedRung,
    build_path,
    generation_of,
    rounds_of,
    rung_path,
    rungs_of,
)
from airflow_provider_geminibatch.jobs.rescue import prepare_rescue, run_rung
from airflow_provider_geminibatch.jobs.results import Desk, is_open, shard_name
from airflow_provider_geminibatch.jobs.rows import AnsweredBatch
from airflow_provider_geminibatch.jobs.submit import Submitted, read_build, submit
from airflow_provider_geminibatch.jobs.wait import look
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage import landings
from airflow_provider_geminibatch.storage.history import read_history
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
    landing_store: Store,
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
) -> Landed | Waiting:
    """Bring a sealed batch as far towards its commit as it goes now.

    ``gateways`` gives the service of a connection id, and of None the batch's own. ``stuck_at`` is when most similar jobs would
    have ended; by default the history of the workspace says it, where ``policy.stuck_after`` asks for it.
    Raises Rejected after a commit outside ``policy.thresholds``, WaitTimedOut at a deadline without a ladder or on a "fail"
    rung, BatchCancelled on a person's wish, Unusable for a deadline that is past before anything was sent, and what ``submit``
    and ``collect`` raise.
    """
    desk = Desk(store, gateways(None), me, now, log, sleep)
    commission = Commission(
        landing, landing_store, window, owner, run, policy.thresholds, early=policy.early is not None
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
        self._commission, self._submitting, self._stuck_at = commission, submitting, stuck_at
        self._root = read_build(desk.store, manifest.path)
        self._submitted: dict[str, tuple[datetime | None, str]] = {}
        self._looked = self._cancelled = False
        self._answers: AnsweredBatch | None = None
        self._tally: Tally | None = None
        self._settle_until: dict[int, datetime] = {}
        self._rest_until: dict[int, datetime] = {}
        self._early_rows = 0
        self._histories: dict[tuple[str, str], eta.History] = {}
        self._perform: Mapping[type, Callable[..., None]] = {
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
            summary = self._summary()
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
                return Waiting(until=self._desk.now() + NOT_READY, why=str(error))

    def _refuse_past_deadline(self, summary: BatchSummary) -> None:
        deadline = self._policy.deadline
        if not isinstance(deadline, datetime) or summary.begun_at or summary.closed or self._desk.now() < deadline:
            return
        why = f"it is past ({deadline:%Y-%m-%d %H:%M:%S %Z}) before anything was sent"
        raise Unusable("deadline", why, "Give a later one, or a span, which counts from the first intent.")

    # What is on record

    def _summary(self) -> BatchSummary:
        store, root = self._desk.store, self._root
        closed = fact_store.get(store, f"{generation_of(root)}/closed.json", Closed) is not None
        opened, rungs = rounds_of(store, root), rungs_of(store, root)
        live = [] if closed else self._live(rungs)
        if not self._looked:
            self._looked = True
            self._look(live)
        begun_at = first_intent(fact_store.shard_facts(store, shard.ledger) for shard in root.shards)
        command = self._command(begun_at)
        return BatchSummary(
            label=str(root.batch),
            rows=root.rows,
            builds=tuple(self._sent(name, build, conn_id) for name, build, conn_id in live),
            begun_at=begun_at,
            tally=self._tally,
            rounds=tuple(one.fact.rows for one in opened),
            rungs=tuple(self._climbed(rung) for rung in rungs),
            command=command.command if command else "",
            command_reason=f"{command.owner}: {command.reason}" if command else "",
            closed=closed,
            cancelled=self._cancelled,
            early_rows=self._early_rows or self._early_so_far(closed),
            stuck_at=self._stuck(live),
            charged_usd=self._charged(),
        )

    def _live(self, rungs: tuple[OpenedRung, ...]) -> list[tuple[str, Build, str | None]]:
        """The builds whose jobs still count: those since the last rung before which everything was settled."""
        settled = max((rung.fact.number for rung in rungs if rung.settled), default=0)
        live: list[tuple[str, Build, str | None]] = []
        if not settled:
            live.append(("root", self._root, None))
            live += [
                (f"round-{opened.fact.number:02d}", opened.build, None)
                for opened in rounds_of(self._desk.store, self._root)
                if opened.build is not None
            ]
        for rung in rungs:
            # A hedge is settled once it is over, any other rung before it begins.
            over = rung.fact.number < settled or (rung.fact.number == settled and rung.fact.kind == "hedge")
            if rung.build is not None and not over:
                live.append((rung.name, rung.build, rung.fact.conn_id))
        return live

    def _look(self, live: list[tuple[str, Build, str | None]]) -> None:
        """One look at every open job; ends go on record. A service that is busy is asked again by the next walk."""
        for _, build, conn_id in live:
            batch = read_batch(self._manifest_of(build), self._desk.store)
            names = [job.name for job in batch.jobs if job.attempt.end is None]
            seen = look(self._gateways(conn_id), names)
            if seen.miss:
                self._desk.log.warning("%s: %s", batch.label, seen.miss.why or seen.miss.kind)
            ended = {job.name: job for job in seen.sights if isinstance(job, JobSnapshot)}
            note_ends(self._desk.store, batch, ended, owner=self._desk.me, now=self._desk.now())

    def _sent(self, name: str, build: Build, conn_id: str | None) -> Sent:
        pending, ended, jobs = 0, 0, []
        for shard in build.shards:
            facts = fact_store.shard_facts(self._desk.store, shard.ledger)
            if not is_open(facts):
                ended += shard.rows
            elif facts.current_job:
                jobs.append(facts.current_job)
            else:
                pending += 1
        until, why = self._submitted.get(name, (None, ""))
        return Sent(
            name=name, rows=build.rows, ended_rows=ended, pending=pending, open=tuple(jobs), conn_id=conn_id,
            submitted=name in self._submitted, wait_until=until, wait_why=why,
        )  # fmt: skip

    def _climbed(self, rung: OpenedRung) -> Climbed:
        number = rung.fact.number
        return Climbed(
            fact=rung.fact, settled=rung.settled is not None, settle_until=self._settle_until.get(number),
            built=rung.built is not None, done=rung.done is not None, rest_until=self._rest_until.get(number),
        )  # fmt: skip

    def _command(self, begun_at: datetime | None = None) -> Command | None:
        """A person's wish, if it was for the work that stands and not for what was sent again since."""
        command = fact_store.get(self._desk.store, f"{generation_of(self._root)}/command.json", Command)
        return None if command is None or (begun_at and begun_at > command.at) else command

    def _early_so_far(self, closed: bool) -> int:
        """The rows of the early commit of this very batch, if one stands."""
        if self._policy.early is None or closed:
            return 0
        early = landings.read_manifest(self._commission.store, self._commission.window, early=True)
        mine = early is not None and any(
            (origin.batch, origin.generation) == (self._root.batch, self._root.generation) for origin in early.origins
        )
        return early.rows if early is not None and mine else 0

    def _stuck(self, live: list[tuple[str, Build, str | None]]) -> datetime | None:
        """When the share of similar jobs that the policy names had ended, of the open job that is expected last."""
        share = self._policy.stuck_after
        if share is None or self._stuck_at is not None:
            return self._stuck_at
        times: list[datetime] = []
        for _, build, conn_id in live:
            service = str(self._gateways(conn_id).identity)
            for shard in build.shards:
                attempt = fact_store.shard_facts(self._desk.store, shard.ledger).job_attempt
                if attempt is None or attempt.end is not None:
                    continue
                history = self._history(service, build.model)
                usual = eta.estimate(history, service, build.model, shard.rows, timedelta(), self._desk.now())
                seconds = eta.quantile(usual.curve, share)
                if seconds is None:
                    return None
                sent_at = attempt.sending.at if attempt.sending else attempt.claim.at
                times.append(sent_at + timedelta(seconds=seconds))
        return max(times, default=None)

    def _history(self, service: str, model: str) -> eta.History:
        if (service, model) not in self._histories:
            self._histories[service, model] = read_history(self._desk.store, service, model)
        return self._histories[service, model]

    def _charged(self) -> Decimal:
        if self._policy.max_cost_usd is None:
            return Decimal(0)
        return charged_usd(self._desk.store, generation_of(self._root), now=self._desk.now)

    def _manifest_of(self, build: Build) -> Manifest:
        return Manifest(uri=f"{self._manifest.workspace}/{build_path(self._root, build.id)}")

    # What is done

    def _submit(self, step: planning.Submit) -> None:
        live = {name: (build, conn_id) for name, build, conn_id in self._live(self._rungs())}
        if step.build not in live:
            return  # another process has opened a rung since
        build, conn_id = live[step.build]
        self._forget_answers()
        if why := charge_build(self._books(), self._desk.store, build, self._desk.now()):
            self._beyond_budget(step.build, build, self._gateways(conn_id), why)
            return
        try:
            end = submit(
                self._manifest if step.build == "root" else self._manifest_of(build),
                store=self._desk.store, gateway=self._gateways(conn_id), me=self._desk.me, now=self._desk.now,
                log=self._desk.log, **self._submitting,
            )  # fmt: skip
        except SubmissionRefused as error:
            if step.build == "root":
                raise
            # Its rows stay as they are; the refusal is on record and no reason to lose what is there.
            self._desk.log.warning("%s", error)
            self._submitted[step.build] = (None, "")
            return
        self._submitted[step.build] = (None, "") if isinstance(end, Submitted) else (end.until, end.why)

    def _books(self) -> Books:
        desk = self._desk
        return Books(desk.store, generation_of(self._root), self._policy.max_cost_usd, me=desk.me, now=desk.now)

    def _beyond_budget(self, name: str, build: Build, gateway: Gateway, why: str) -> None:
        """The budget does not bear a build: without the root there is nothing, of any other the rows stay as they are."""
        if name == "root":
            do = "Allow more, or ask for shorter answers (maxOutputTokens), which lowers the upper bound."
            raise Unusable(f"max_cost_usd={self._policy.max_cost_usd}", why, do)
        refuse_build(self._desk.store, build, gateway.identity, why, me=self._desk.me, at=self._desk.now())
        self._desk.log.warning("%s of %s is not sent: %s", name, self._root.batch, why)

    def _rungs(self) -> tuple[OpenedRung, ...]:
        return rungs_of(self._desk.store, self._root)

    def _forget_answers(self) -> None:
        self._answers = self._tally = None

    def _gathered(self) -> AnsweredBatch:
        """All answers as far as there are any; what has not ended is not answered yet."""
        if self._answers is None:
            self._answers = gathered(self._desk, self._manifest, self._gateways, unless_open=True)
            self._settle_books(self._answers)
        return self._answers

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
        self._tally = Tally(dict(unresolved), worthy)
        told = ", ".join(f"{rows} {kind}" for kind, rows in sorted(unresolved.items()))
        self._desk.log.info("%s: %s", self._root.batch, f"unresolved: {told}" if told else "every row is answered")

    def _commit_early(self, step: planning.CommitEarly) -> None:
        batch = gathered(self._desk, self._manifest, self._gateways, ended_only=True)
        land({batch.origin.workspace: self._desk}, self._commission, [batch], complete=False)
        self._early_rows = batch.rows

    def _open_round(self, step: planning.OpenRound) -> None:
        rows = rounds.worthy(self._gathered().unresolved())
        rounds.open_round(self._desk, self._root, step.number, rows, cap_factor=self._policy.truncated_cap_factor)
        self._forget_answers()

    def _open_rung(self, step: planning.OpenRung) -> None:
        rung, root, store = step.rung, self._root, self._desk.store
        path, rows, digest = "", 0, ""
        if rung.kind in planning.INTERACTIVE | planning.REBUILT:
            path = rung_path(root, step.number, f"{short(self._desk.me, self._desk.now().isoformat())}.rows")
            asked = (at for at, _ in rounds.worthy(self._gathered().unresolved()))
            rows, digest = rounds.write_rows(store, path, asked)
        service = None if rung.conn_id is None else self._gateways(rung.conn_id).identity
        budget = self._policy.max_cost_usd
        mine = RungFact(
            owner=self._desk.me, at=self._desk.now(), number=step.number, position=step.position, kind=rung.kind,
            model=rung.model, conn_id=rung.conn_id, service=service, rows=path, rows_digest=digest, row_count=rows,
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
        live = self._live(self._rungs())
        builds = [(build, self._gateways(conn_id)) for _, build, conn_id in live]
        desk = self._desk
        done = prepare_rescue(
            step.number, builds, store=desk.store, me=desk.me, now=desk.now, log=desk.log, sleep=desk.sleep
        )
        self._forget_answers()
        if done.until is not None:
            self._settle_until[step.number] = done.until
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
        rounds.build_rung(desk, self._root, fact, rounds.worthy(self._gathered().unresolved()))
        self._forget_answers()

    def _run_rung(self, step: planning.RunRung) -> None:
        fact, desk = self._rungs()[step.number - 1].fact, self._desk
        rows: list[At] = []
        truncated: set[At] = set()
        for at, outcome in rounds.worthy(self._gathered().unresolved()):
            rows.append(at)
            if outcome.kind is Outcomes.TRUNCATED:
                truncated.add(at)

        def revised(at: At, request: dict[str, Any]) -> dict[str, Any]:
            return rounds.with_higher_cap(request, self._policy.truncated_cap_factor) if at in truncated else request

        state = run_rung(
            fact, rows, store=desk.store, build=self._root, gateway=self._gateways(fact.conn_id), policy=self._policy,
            me=desk.me, now=desk.now, log=desk.log, sleep=desk.sleep, revised=revised, stop=self._told_otherwise,
        )  # fmt: skip
        self._forget_answers()
        if state.until is not None:
            self._rest_until[step.number] = state.until

    def _told_otherwise(self) -> str:
        command = self._command()
        return f"{command.owner} asked for {command.command}" if command else ""

    def _end_rung(self, step: planning.EndRung) -> None:
        fact = RungDone(owner=self._desk.me, at=self._desk.now(), why=step.why)
        fact_store.put(self._desk.store, rung_path(self._root, step.number, "done"), fact)

    def _cancel_all(self, step: planning.CancelAll) -> None:
        desk = self._desk
        for _, build, conn_id in self._live(self._rungs()):
            batch = read_batch(self._manifest_of(build), desk.store)
            targets = [Target(job.name, desk.store, job.place) for job in batch.jobs if job.attempt.end is None]
            done = cancel_jobs(targets, self._gateways(conn_id), owner=desk.me, why=step.reason, now=desk.now())
            for error in done.failed.values():
                raise error
            desk.log.info("%s: %s", batch.label, done)
        self._cancelled = True

    def _commit(self, step: planning.Commit, summary: BatchSummary) -> Landed:
        if step.why:
            self._desk.log.info("%s: commits what is there: %s", self._root.batch, step.why)
        # Another process may have closed it since, with more than this one had seen.
        known = None if summary.closed else self._answers
        batch = known or gathered(self._desk, self._manifest, self._gateways)
        landed = land({batch.origin.workspace: self._desk}, self._commission, [batch])
        if landed.manifest.rejected:
            raise Rejected(landed.uri, landed.window, landed.manifest.numbers)
        return landed

    def _waiting(self, summary: BatchSummary, step: planning.Rest) -> Waiting:
        """What to wait for: jobs of one connection, and a time that looks after those of another."""
        own = [build for build in summary.builds if build.open and build.conn_id is None]
        watched = own or [build for build in summary.builds if build.open]
        conn_id = watched[0].conn_id if watched else None
        names = tuple(name for build in watched if build.conn_id == conn_id for name in build.open)
        until = step.until
        if len(names) < len(summary.open):
            soon = self._desk.now() + LOOK_ELSEWHERE
            until = soon if until is None else min(soon, until)
        hedging = bool(summary.rungs) and summary.rungs[-1].fact.kind == "hedge"
        wake: Literal["all", "any"] = "any" if self._policy.early is not None or hedging else "all"
        return Waiting(until=until, job_names=names, why=step.why, conn_id=conn_id, wake=wake)


__all__ = ["Waiting", "walk"]
