"""GeminiBatchOperator: rows in, a landed window out, in one task that holds no worker while it waits."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from math import ceil
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from airflow_provider_geminibatch.core.batch import INTERACTIVE, BatchPolicy, Rung
from airflow_provider_geminibatch.core.errors import GeminiBatchError, Unusable
from airflow_provider_geminibatch.core.eta import quantile
from airflow_provider_geminibatch.core.kinds import KINDS
from airflow_provider_geminibatch.core.landing import RunRef
from airflow_provider_geminibatch.core.manifest import Manifest, parse_manifests
from airflow_provider_geminibatch.core.model import Owner
from airflow_provider_geminibatch.core.reuse import Reuse, reuse_of
from airflow_provider_geminibatch.core.verdict import Thresholds
from airflow_provider_geminibatch.core.watch import Watch
from airflow_provider_geminibatch.hooks import config
from airflow_provider_geminibatch.hooks.attempt import attempt_of, in_backfill
from airflow_provider_geminibatch.hooks.commands import command_left, command_uri
from airflow_provider_geminibatch.hooks.costs import note_prices, record_estimate, show_estimate, usd_limit
from airflow_provider_geminibatch.hooks.errors import airflow_errors
from airflow_provider_geminibatch.hooks.gateways import Gateways
from airflow_provider_geminibatch.hooks.kill import cancel_if_failed
from airflow_provider_geminibatch.hooks.landing import Landing, open_landing, outlets_with
from airflow_provider_geminibatch.hooks.locations import home_of
from airflow_provider_geminibatch.hooks.outlook import (
    OnLate,
    expected,
    is_named_late,
    name_late,
    note_estimate,
    on_record,
    outlook,
    passed_on,
)
from airflow_provider_geminibatch.hooks.storage import AirflowFiles, open_store, open_workspace
from airflow_provider_geminibatch.hooks.waiting import deadline_at
from airflow_provider_geminibatch.hooks.windows import Offset, Window, window_of
from airflow_provider_geminibatch.jobs.pipes import processes_of
from airflow_provider_geminibatch.jobs.wait import LAST_LOOK_SECONDS, pause_until, utc_now, wait_in_thread
from airflow_provider_geminibatch.operators.prepare import GeminiBatchPrepareOperator
from airflow_provider_geminibatch.triggers.batch import GeminiBatchTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_geminibatch.core.canary import Canary
    from airflow_provider_geminibatch.jobs.collect import Landed
    from airflow_provider_geminibatch.jobs.whole import Waiting

log = logging.getLogger(__name__)

SLACK = timedelta(seconds=LAST_LOOK_SECONDS) + timedelta(minutes=10)
"""How much later than the trigger's own deadline Airflow's is: its expiry would skip our resume method."""
KILL_SECONDS = 4.0
"""Airflow grants a stopped task five seconds."""


class GeminiBatchOperator(GeminiBatchPrepareOperator):
    """Prepare, Submit, wait and Load in one task, and what they cannot do alone: rounds, early commits, a way out.

    It seals the rows, submits them once, waits without a worker, asks again for what is unresolved and worth it, and
    commits the window; whenever it is stopped it goes on where the ledger says it is. At the deadline, or when similar
    jobs were long done, it climbs the ladder that was chosen beforehand. Takes all arguments of
    GeminiBatchPrepareOperator, and returns what GeminiBatchLoadOperator returns.

    :param reuse: As for GeminiBatchSubmitOperator: rows that were answered before are not asked again.
    :param cache: As for GeminiBatchSubmitOperator: what requests have in common goes into a prompt cache.
    :param canary: Asks a sample first, row by row, and sends nothing when it comes back bad: ``Canary(rows=50)``.
    :param to: The landing. A mapped task needs ``outlets=[landing.outlet]`` in ``partial()`` too.
    :param part: Which of ``to.parts`` this task lands.
    :param window: The window; by default the run's own.
    :param window_offset: Moves the window, as for ``GeminiBatchWindowSensor``.
    :param max_unresolved: Share of rows that may be without an answer.
    :param min_answers: Least number of answers.
    :param deadline: When waiting is over: a timedelta counts from the first intent to submit and survives retries; a
        datetime, or a text that renders to one, is absolute.
    :param on_deadline: What is done then, one after the other: ``Rung("commit")``, ``Rung("flex", timedelta(hours=1))``,
        ``Rung("resubmit", model=…)`` … Without a ladder the task fails at the deadline, and the jobs run on.
    :param stuck_after: Climb already when this share of similar jobs would have ended, such as 0.95.
    :param standard_allowed: Lets ``Rung("standard")`` pay the interactive price, twice that of batch.
    :param rescue_in_backfill: Lets a backfill climb to rungs above the batch price.
    :param rounds: How often unresolved rows are asked again as a batch.
    :param reask_invalid: A row whose answer does not fit the schema is asked again with that answer and what was wrong with
        it, by JSON path; without it, as it was.
    :param early: Commit under ``_early/`` whenever this share of the rows is new, such as 0.01.
    :param max_cost_usd: What the batch may cost at most; charged before anything is paid for.
    :param budget: As for GeminiBatchSubmitOperator: ``upper_bound`` or ``estimate``.
    :param on_late: As for GeminiBatchSensor.
    :param poll_interval: As for GeminiBatchSensor.
    :param deferrable: Wait in the triggerer (default) or on the worker.
    """

    reads_requests = True
    template_fields: Sequence[str] = (*GeminiBatchPrepareOperator.template_fields, "to", "part", "window", "deadline")
    ui_color = "#cfe8cf"

    def __init__(
        self,
        *,
        to: Landing,
        part: str | None = None,
        canary: Canary | None = None,
        reuse: Reuse | bool = False,
        cache: bool = False,
        window: Window | None = None,
        window_offset: Offset | None = None,
        max_unresolved: float = Thresholds().max_unresolved,
        min_answers: int = Thresholds().min_answers,
        deadline: timedelta | datetime | str | None = None,
        on_deadline: Sequence[Rung] = (),
        stuck_after: float | None = None,
        standard_allowed: bool = False,
        rescue_in_backfill: bool = False,
        rounds: int = 1,
        reask_invalid: bool = False,
        early: float | None = None,
        max_cost_usd: Decimal | float | str | None = None,
        budget: str = "upper_bound",
        on_late: OnLate | Sequence[OnLate] | None = None,
        poll_interval: timedelta | float | None = None,
        deferrable: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(outlets=outlets_with(to, kwargs.pop("outlets", None)), **kwargs)
        self.to = to
        self.part = part
        if not isinstance(part, str) or "{{" not in part:
            # Told while the Dag is parsed, where it is not a template.
            to.place.own_part(part)
        self.canary = canary
        self.reuse = reuse
        self.cache = cache
        self.window = window
        self.window_offset = window_offset
        self.max_unresolved = max_unresolved
        self.min_answers = min_answers
        self.deadline = deadline
        self.on_deadline = tuple(on_deadline)
        self.stuck_after = stuck_after
        self.standard_allowed = standard_allowed
        self.rescue_in_backfill = rescue_in_backfill
        self.rounds = rounds
        self.reask_invalid = reask_invalid
        self.early = early
        self.max_cost_usd = max_cost_usd
        self.budget = budget
        self.on_late = on_late
        self.poll_interval = poll_interval
        self.deferrable = deferrable
        self._prepared_as: Manifest | None = None
        # Says at once what cannot be meant.
        _check_ladder(self.on_deadline, standard_allowed=standard_allowed)
        _check_by_row(self.kind, self.on_deadline, canary)
        self._policy(deadline if isinstance(deadline, timedelta) else timedelta(1) if deadline else None, {})

    def execute(self, context: Context) -> dict[str, Any]:
        """Seal the rows, unless they are sealed, and go on from there."""
        with airflow_errors():
            window_of(context, self.window, self.window_offset)
            self.to.place.own_part(self.part)
        return self._go_on(context, super().execute(context))

    def resume(
        self, context: Context, event: Mapping[str, Any] | None = None, *, prepared: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Go on where the ledger says we are; the event only says that it is time."""
        # dag.test() forgets what a deferral keeps. What is sealed is found again then, and no row is read for it.
        prepared = prepared or super().execute(context)
        if event and event.get("status") == "late":
            self._name_late(context, prepared, event)
        return self._go_on(context, prepared)

    def on_kill(self) -> None:
        """Airflow stops this task on its worker: cancel the jobs if, and only if, it was marked failed."""
        # In a thread, since this runs inside a signal handler and the interrupted code may hold the channel to Airflow.
        thread = threading.Thread(target=self._cancel_if_failed, args=(_current_ti(),), daemon=True)
        thread.start()
        thread.join(KILL_SECONDS)

    def _go_on(self, context: Context, prepared: dict[str, Any]) -> dict[str, Any]:
        from airflow_provider_geminibatch.jobs.whole import Waiting

        (manifest,) = parse_manifests(prepared)
        self._prepared_as = manifest
        with airflow_errors():
            while isinstance(end := self._walked(context, manifest), Waiting):
                log.info("waiting%s: %s", f" until {end.until:%Y-%m-%d %H:%M:%S %Z}" if end.until else "", end.why)
                if self.deferrable:
                    self._defer_until(context, manifest, end)
                self._wait_here(manifest, end)
            extra = end.extra | on_record(prepared)
        if end.event is not None:
            self.to.announce(context, end.event | on_record(prepared))
        return extra

    def _show_cost(self, context: Context, manifest: Manifest) -> None:
        """Prices and the estimate on record, once; where the budget goes by one, it is counted when that is charged."""
        me, ledger = attempt_of(context).me, [(manifest, open_workspace(manifest.workspace).store)]
        note_prices(ledger, [rung.model for rung in self.on_deadline], me=me)
        note = record_estimate if self.budget == "upper_bound" or self.max_cost_usd is None else show_estimate
        note(context, ledger, service=self._service(*ledger[0]), me=me)

    def _walked(self, context: Context, manifest: Manifest) -> Landed | Waiting:
        """Everything that can be done now."""
        from airflow_provider_geminibatch.core.steps import Policy
        from airflow_provider_geminibatch.jobs.whole import walk

        attempt = attempt_of(context)
        batch = attempt.batch
        with Gateways(self._home(manifest)) as gateways:
            return walk(
                manifest,
                store=open_workspace(manifest.workspace).store,
                gateways=gateways,
                policy=_addressed(self._policy(_deadline(self.deadline), context), gateways),
                landing=self.to.place,
                landing_store=open_landing(self.to.uri),
                window=window_of(context, self.window, self.window_offset),
                owner=Owner(batch.dag_id, batch.task_id, batch.map_index),
                run=RunRef(batch.dag_id, batch.run_id, batch.task_id, batch.map_index, attempt.try_number),
                me=attempt.me,
                now=utc_now,
                log=log,
                max_tries=attempt.max_tries,
                later_try=attempt.try_number > 1,
                stuck_at=self._stuck_at(manifest),
                submit_policy=Policy(settle=config.settle_time(), cache=self.cache),
                part=self.to.place.own_part(self.part),
                files=AirflowFiles(),
                processes=processes_of(self.processes),
            )

    def _home(self, manifest: Manifest) -> str:
        """The connection, with its location, that the batch is at."""
        return home_of(manifest, open_store(manifest.workspace), self.gemini_conn_id)

    def _stuck_at(self, manifest: Manifest) -> datetime | None:
        """When that share of similar jobs would have ended, counted from the first intent; None when nobody knows."""
        from airflow_provider_geminibatch.jobs.ending import read_batch

        if self.stuck_after is None:
            return None
        store = open_store(manifest.workspace)
        begun_at = read_batch(manifest, store).intent_at
        if begun_at is None:
            return None
        # As it looked when the waiting began: what is expected of a job that still runs moves on with the time.
        usual = expected([(manifest, store)], begun_at)
        seconds = quantile(usual.curve, self.stuck_after)
        return None if seconds is None else begun_at + timedelta(seconds=seconds)

    def _policy(self, deadline: timedelta | datetime | None, context: Mapping[str, Any]) -> BatchPolicy:
        return BatchPolicy(
            canary=self.canary,
            reuse=reuse_of(self.reuse),
            max_rounds=self.rounds,
            reask_invalid=self.reask_invalid,
            deadline=deadline,
            ladder=self.on_deadline,
            stuck_after=self.stuck_after,
            early=self.early,
            max_cost_usd=usd_limit(self.max_cost_usd, self.budget),
            budget=self.budget,  # type: ignore[arg-type]  # one of the two, as was just looked
            standard_allowed=self.standard_allowed,
            in_backfill=in_backfill(context),
            rescue_in_backfill=self.rescue_in_backfill,
            thresholds=Thresholds(self.max_unresolved, self.min_answers),
        )

    def _defer_until(self, context: Context, manifest: Manifest, waiting: Waiting) -> NoReturn:
        first_event_after = config.first_event_after()
        if waiting.job_names:
            trigger: Any = self._trigger(context, manifest, waiting)
            expiry = waiting.until - utc_now() + SLACK + first_event_after if waiting.until else None
        else:
            from airflow.providers.standard.triggers.temporal import DateTimeTrigger

            # Airflow may fail a task whose trigger fires right after the deferral.
            soonest = utc_now() + first_event_after
            trigger, expiry = DateTimeTrigger(moment=max(waiting.until or soonest, soonest)), None
        self.defer(trigger=trigger, method_name="resume", kwargs={"prepared": manifest.as_dict()}, timeout=expiry)
        raise AssertionError("defer() does not return")

    def _trigger(self, context: Context, manifest: Manifest, waiting: Waiting) -> GeminiBatchTrigger:
        from airflow_provider_geminibatch.jobs.ending import read_batch

        store, now = open_store(manifest.workspace), utc_now()
        ledger, begun_at = [(manifest, store)], read_batch(manifest, store).intent_at
        deadline = self._policy(_deadline(self.deadline), context).deadline_at(begun_at, now)
        estimate, was_late = expected(ledger, now), is_named_late(ledger)
        log.info("%s", estimate.sentence(now))
        note_estimate(ledger, estimate, deadline, owner=attempt_of(context).me, now=now)
        context["ti"].xcom_push(key="estimate", value=outlook(estimate, deadline, late=was_late))
        gateways = Gateways(self._home(manifest))
        conn_id = gateways.address(waiting.conn_id)
        ledgers = _ledgers(manifest, gateways)
        return GeminiBatchTrigger(
            conn_id=conn_id,
            job_names=waiting.job_names,
            since=(begun_at or now).isoformat(),
            deadline=waiting.until.isoformat() if waiting.until else None,
            poll_seconds=self._cap().total_seconds(),
            first_event_after=config.first_event_after().total_seconds(),
            ledgers={name: uri for name, uri in ledgers.pop(conn_id, {}).items() if name in waiting.job_names},
            ledgers_elsewhere={other: its for other, its in ledgers.items() if its},
            expected=passed_on(estimate),
            stretches=self.poll_interval is None,
            names_late=not was_late,
            enough=None if waiting.wake == "all" else ceil((self.early or 0) * len(waiting.job_names)) or 1,
            commands=[] if command_left(command_uri(manifest)) else [command_uri(manifest)],
        )

    def _wait_here(self, manifest: Manifest, waiting: Waiting) -> None:
        """Hold the worker instead of the triggerer."""
        if not waiting.job_names:
            pause_until(waiting.until or utc_now() + self._cap())
            return
        watch = Watch(names=waiting.job_names, since=utc_now(), deadline=waiting.until, cap=self._cap(), enough=1)
        with Gateways(self._home(manifest)) as gateways:
            word = command_uri(manifest)
            # Word that was left before has been heard.
            wished = None if command_left(word) else lambda: command_left(word) is not None
            wait_in_thread(watch, gateways(waiting.conn_id), say=lambda line: log.info("%s", line), wished=wished)

    def _cap(self) -> timedelta:
        cap = config.poll_interval() if self.poll_interval is None else self.poll_interval
        return cap if isinstance(cap, timedelta) else timedelta(seconds=cap)

    def _name_late(self, context: Context, prepared: dict[str, Any], event: Mapping[str, Any]) -> None:
        (manifest,) = parse_manifests(prepared)
        with airflow_errors():
            ledger = [(manifest, open_store(manifest.workspace))]
            if is_named_late(ledger):
                return
            attempt = attempt_of(context)
            late = {"batch": str(attempt.batch), "why": event.get("why", ""), "open": list(event.get("jobs", ()))}
            name_late(context, ledger, late, on_late=self.on_late, owner=attempt.me, now=utc_now())

    def _cancel_if_failed(self, ti: Any) -> None:
        if ti is None or self._prepared_as is None:
            return
        try:
            owner, manifest = attempt_of({"ti": ti}).me, self._prepared_as
            jobs = _ledgers(manifest, Gateways(self._home(manifest)))
        except GeminiBatchError as error:
            log.warning("The jobs could not be cancelled. %s", error)
            return
        for conn_id, ledgers in jobs.items():
            try:
                log.info("%s", cancel_if_failed(ti, conn_id, ledgers, owner=owner))
            except GeminiBatchError as error:
                log.warning("The jobs of connection %s could not be cancelled. %s", conn_id, error)


def _addressed(policy: BatchPolicy, gateways: Gateways) -> BatchPolicy:
    """The policy with every rung's place in full, so that what goes on record can be opened by anybody."""
    ladder = tuple(
        msgspec.structs.replace(rung, conn_id=gateways.address(rung.address), location=None) if rung.location else rung
        for rung in policy.ladder
    )
    return msgspec.structs.replace(policy, ladder=ladder)


def _current_ti() -> Any:
    from airflow.sdk import get_current_context

    try:
        return get_current_context()["ti"]
    except (RuntimeError, KeyError):  # not inside a task
        return None


def _ledgers(manifest: Manifest, gateways: Gateways) -> dict[str, dict[str, str]]:
    """For each open job of the batch, also of its rounds and rungs, the URI of its attempt in the ledger, by connection."""
    from airflow_provider_geminibatch.jobs.ending import read_batch
    from airflow_provider_geminibatch.jobs.layers import build_path, rounds_of, rungs_of
    from airflow_provider_geminibatch.jobs.submit import read_build

    store = open_store(manifest.workspace)
    root = read_build(store, manifest.path)
    own = gateways.address(None)
    builds = [(own, root), *((own, one.build) for one in rounds_of(store, root))]
    builds += [(gateways.address(one.fact.conn_id), one.build) for one in rungs_of(store, root)]
    found: dict[str, dict[str, str]] = {}
    for conn_id, build in builds:
        if build is None:
            continue
        batch = read_batch(Manifest(f"{manifest.workspace}/{build_path(root, build.id)}"), store)
        found.setdefault(conn_id, {}).update({job.name: batch.place_uri(job) for job in batch.jobs if not job.ended})
    return found


def _deadline(given: timedelta | datetime | str | None) -> timedelta | datetime | None:
    """A span as it is, anything else as an absolute time. Raises Unusable."""
    return given if given is None or isinstance(given, timedelta) else deadline_at(given, utc_now())


def _check_ladder(ladder: Sequence[Rung], *, standard_allowed: bool) -> None:
    if not standard_allowed and any(rung.kind == "standard" for rung in ladder):
        raise Unusable(
            'Rung("standard")', "it pays twice the price of batch", "Say standard_allowed=True, or use Rung('flex')."
        )


def _check_by_row(kind: str, ladder: Sequence[Rung], canary: Canary | None) -> None:
    """Raises Unusable for what asks row by row, where the kind of the batch has no such way."""
    asking = (
        ["canary="] if canary is not None else [f'Rung("{rung.kind}")' for rung in ladder if rung.kind in INTERACTIVE]
    )
    if asking and not KINDS[kind].by_row:
        do = "Leave it out; the rungs commit, resubmit, hedge and fail are there for every kind."
        raise Unusable(asking[0], f"a batch of kind {kind!r} cannot be asked row by row", do)
