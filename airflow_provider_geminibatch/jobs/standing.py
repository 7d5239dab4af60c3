"""How a batch stands: what is on record of its builds, rounds and rungs, and what this process has seen, as one summary."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal

from airflow_provider_geminibatch.core import eta
from airflow_provider_geminibatch.core.batch import BatchPolicy, BatchSummary, Climbed, Sent, Tally
from airflow_provider_geminibatch.core.ending import begun_with, first_intent
from airflow_provider_geminibatch.core.landing import Closed
from airflow_provider_geminibatch.core.ledger import Command
from airflow_provider_geminibatch.core.manifest import Manifest
from airflow_provider_geminibatch.core.model import Build, JobSnapshot
from airflow_provider_geminibatch.jobs.budget import charged_usd
from airflow_provider_geminibatch.jobs.canary import report_of, report_uri
from airflow_provider_geminibatch.jobs.collect import Commission
from airflow_provider_geminibatch.jobs.ending import note_ends, read_batch
from airflow_provider_geminibatch.jobs.layers import (
    Gateways,
    OpenedRung,
    build_path,
    generation_of,
    rounds_of,
    rungs_of,
)
from airflow_provider_geminibatch.jobs.results import Desk, is_open
from airflow_provider_geminibatch.jobs.reuse import reused_of
from airflow_provider_geminibatch.jobs.wait import look
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.history import read_history


@dataclass
class Seen:
    """What one walk has seen and done; nothing of it outlives the process. ``submitted`` says until when, and why, a build waits."""

    looked: bool = False
    canary_until: datetime | None = None
    submitted: dict[str, tuple[datetime | None, str]] = field(default_factory=dict)
    tally: Tally | None = None
    not_ready: str = ""
    settle_until: dict[int, datetime] = field(default_factory=dict)
    rest_until: dict[int, datetime] = field(default_factory=dict)
    early_rows: int = 0
    cancelled: bool = False


class Standing:
    """What is on record of one batch, read anew for every summary."""

    def __init__(
        self,
        desk: Desk,
        root: Build,
        gateways: Gateways,
        policy: BatchPolicy,
        commission: Commission,
        stuck_at: datetime | None,
    ) -> None:
        self._desk, self._root, self._gateways, self._policy = desk, root, gateways, policy
        self._commission, self._stuck_at = commission, stuck_at
        self._histories: dict[tuple[str, str], eta.History] = {}

    def summary(self, seen: Seen) -> BatchSummary:
        """The batch as it stands. The first time, open jobs are looked at."""
        store, root = self._desk.store, self._root
        closed = fact_store.get(store, f"{generation_of(root)}/closed.json", Closed) is not None
        opened, rungs = rounds_of(store, root), rungs_of(store, root)
        live = [] if closed else self.live(rungs)
        if not seen.looked:
            seen.looked = True
            self._look(live)
        begun_at = self.begun_at()
        command = self.command(begun_at)
        return BatchSummary(
            label=str(root.batch),
            rows=root.rows,
            builds=tuple(self._sent(name, build, conn_id, seen) for name, build, conn_id in live),
            canary=report_of(self._desk, root) if self._policy.canary else None,
            canary_uri=report_uri(self._desk, root),
            looked_back=self._policy.reuse is not None and reused_of(store, generation_of(root)) is not None,
            canary_until=seen.canary_until,
            begun_at=begun_at,
            tally=seen.tally,
            not_ready=seen.not_ready,
            rounds=tuple(one.fact.rows + one.fact.left for one in opened),
            rungs=tuple(_climbed(rung, seen) for rung in rungs),
            command=command.command if command else "",
            command_reason=f"{command.owner}: {command.reason}" if command else "",
            closed=closed,
            cancelled=seen.cancelled,
            early_rows=seen.early_rows or self._early_so_far(closed),
            stuck_at=self._stuck(live),
            charged_usd=self._charged(),
        )

    def live(self, rungs: tuple[OpenedRung, ...]) -> list[tuple[str, Build, str | None]]:
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
            batch = read_batch(self.manifest_of(build), self._desk.store)
            names = [job.name for job in batch.jobs if job.attempt.end is None]
            shown = look(self._gateways(conn_id), names)
            if shown.miss:
                self._desk.log.warning("%s: %s", batch.label, shown.miss.why or shown.miss.kind)
            ended = {job.name: job for job in shown.sights if isinstance(job, JobSnapshot)}
            note_ends(self._desk.store, batch, ended, owner=self._desk.me, now=self._desk.now())

    def _sent(self, name: str, build: Build, conn_id: str | None, seen: Seen) -> Sent:
        pending, unclaimed, ended, jobs = 0, 0, 0, []
        for shard in build.shards:
            facts = fact_store.shard_facts(self._desk.store, shard.ledger)
            unclaimed += not (facts.attempts or facts.needless)
            if not is_open(facts):
                ended += shard.rows
            elif facts.job_attempt and facts.job_attempt.job and facts.job_attempt.end is None:
                jobs.append(facts.job_attempt.job.job_name)
            else:
                pending += 1
        until, why = seen.submitted.get(name, (None, ""))
        return Sent(
            name=name, rows=build.rows, ended_rows=ended, pending=pending, unclaimed=unclaimed, open=tuple(jobs), conn_id=conn_id,
            submitted=name in seen.submitted, wait_until=until, wait_why=why,
        )  # fmt: skip

    def begun_at(self) -> datetime | None:
        """When the work that stands was first meant to be sent."""
        return first_intent(fact_store.shard_facts(self._desk.store, shard.ledger) for shard in begun_with(self._root))

    def command(self, begun_at: datetime | None) -> Command | None:
        """A person's wish, if it was for the work that stands and not for what was sent again since."""
        command = fact_store.get(self._desk.store, f"{generation_of(self._root)}/command.json", Command)
        return None if command is None or (begun_at and begun_at > command.at) else command

    def _early_so_far(self, closed: bool) -> int:
        """The rows of the early commit of this very batch, if one stands."""
        if self._policy.early is None or closed:
            return 0
        commission = self._commission
        early = commission.store.manifest(commission.window, part=commission.part, early=True)
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

    def manifest_of(self, build: Build) -> Manifest:
        """The manifest of a build of the batch's generation."""
        return Manifest(uri=f"{self._desk.store.uri}/{build_path(self._root, build.id)}")


def _climbed(rung: OpenedRung, seen: Seen) -> Climbed:
    number = rung.fact.number
    return Climbed(
        fact=rung.fact, settled=rung.settled is not None, settle_until=seen.settle_until.get(number),
        built=rung.built is not None, done=rung.done is not None, rest_until=seen.rest_until.get(number),
    )  # fmt: skip


__all__ = ["Seen", "Standing"]
