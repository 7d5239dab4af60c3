"""The sensor: waits until the jobs of a batch, or jobs named by hand, have ended."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
)

from airflow_provider_geminibatch.core.ending import judged, turnaround
from airflow_provider_geminibatch.core.errors import BatchCancelled, GeminiBatchError, WaitTimedOut
from airflow_provider_geminibatch.core.eta import UNKNOWN
from airflow_provider_geminibatch.core.model import JobSnapshot
from airflow_provider_geminibatch.core.watch import Decision, Ended, Late, TimedOut, Watch, spell
from airflow_provider_geminibatch.hooks import config
from airflow_provider_geminibatch.hooks.attempt import attempt_of
from airflow_provider_geminibatch.hooks.commands import CANCEL, command_uri, commands_for, meant_by, obey
from airflow_provider_geminibatch.hooks.errors import airflow_errors
from airflow_provider_geminibatch.hooks.gemini_batch import GeminiBatchHook
from airflow_provider_geminibatch.hooks.kill import cancel_if_failed
from airflow_provider_geminibatch.hooks.locations import ConnIds, by_home
from airflow_provider_geminibatch.hooks.outlook import (
    OnLate,
    expected,
    is_named_late,
    name_late,
    note_estimate,
    outlook,
    passed_on,
)
from airflow_provider_geminibatch.hooks.waiting import Wanted, look_at, named_jobs, submitted_jobs
from airflow_provider_geminibatch.jobs.wait import LAST_LOOK_SECONDS, utc_now
from airflow_provider_geminibatch.triggers.batch import GeminiBatchTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

log = logging.getLogger(__name__)

Result = dict[str, Any]

SLACK = timedelta(seconds=LAST_LOOK_SECONDS) + timedelta(minutes=10)
"""How much later than the trigger's own deadline Airflow's is: its expiry would skip our resume method."""
KILL_SECONDS = 4.0
"""Airflow grants a stopped task five seconds."""


class GeminiBatchSensor(BaseSensorOperator):
    """Waits until every job has ended, without a worker.

    It looks before it defers and is done at once if nothing is open. It passes when all jobs have ended and at least
    one has results; the others are named in a warning, and Load judges whether what came suffices. Without any results
    it fails for good. It never creates a job. It cancels its batch's jobs only when somebody marks the waiting task
    failed (deferred tasks: Airflow 3.3 and later), and jobs named by hand never.

    ``timeout``, ``soft_fail`` and the other arguments of a sensor keep their meaning. ``mode``, ``poke_interval`` and
    ``silent_fail`` only count with ``deferrable=False``.

    :param submitted: What Submit returned: its manifest, the JSON text of one, the URI of a seal, or a list of those.
    :param job_names: Instead of it, the names of jobs that somebody else submitted (``batches/…``).
    :param gemini_conn_id: Connection of type ``geminibatch``, or several: each batch is asked for where it was submitted.
    :param deferrable: Wait in the triggerer (default), or on workers by ``mode="poke"`` or ``"reschedule"``.
    :param deadline: When to give up: a timedelta counts from the first intent to submit (for ``job_names``, from the
        creation of the first job) and survives retries; a datetime, or a text that renders to one, is absolute. The
        jobs are not cancelled.
    :param poll_interval: The longest pause between two looks while deferred, in seconds or as a timedelta. By default
        ``[geminibatch] poll_interval``, and up to five times that while similar jobs would still be running.
    :param on_late: Called once when the jobs take longer than nineteen in twenty similar jobs, or when rows that were
        being done have stopped: a function or a notifier, or a list of those. It gets the context, with ``late`` in it.
    """

    template_fields: Sequence[str] = ("submitted", "job_names", "deadline", "gemini_conn_id")
    ui_color = "#d7e3fc"

    def __init__(
        self,
        *,
        submitted: Any = None,
        job_names: Any = None,
        gemini_conn_id: ConnIds = GeminiBatchHook.default_conn_name,
        deferrable: bool = True,
        deadline: timedelta | datetime | str | None = None,
        poll_interval: timedelta | float | None = None,
        on_late: OnLate | Sequence[OnLate] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if (submitted is None) == (job_names is None):
            raise ValueError("GeminiBatchSensor takes submitted= or job_names=, and one of them")
        self.submitted = submitted
        self.job_names = job_names
        self.gemini_conn_id = gemini_conn_id
        self.deferrable = deferrable
        self.deadline = deadline
        self.poll_interval = poll_interval
        self.on_late = on_late
        # What the poke before this one saw, so that it is not told again. Nothing else depends on it.
        self._watch: Watch | None = None

    def execute(self, context: Context) -> Any:
        """Look, and defer if anything is open."""
        if not self.deferrable:
            return super().execute(context)
        try:
            return self._look_or_defer(context, utc_now() + timedelta(seconds=self.timeout))
        except AirflowException as error:
            # The same as BaseSensor does when a method of a deferred task resumes.
            if self.soft_fail or self.never_fail:
                raise AirflowSkipException(f"Skipped instead of failed, as the task asks: {error}") from error
            raise

    def resume(self, context: Context, event: Mapping[str, Any] | None = None) -> Any:
        """Look once more on the worker; the event only says that it is time, and until when this try may wait."""
        until = (event or {}).get("give_up_at")
        limit = datetime.fromisoformat(until) if until else utc_now() + timedelta(seconds=self.timeout)
        return self._look_or_defer(context, limit)

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """One look, for ``deferrable=False``."""
        with airflow_errors():
            if not (wanted := self._wanted()).names:
                return PokeReturnValue(is_done=True, xcom_value=self._passed(context, wanted, Ended({})))
            watch, decision = self._looked(wanted)
            self._watch = watch
            if isinstance(decision, Ended):
                return PokeReturnValue(is_done=True, xcom_value=self._passed(context, wanted, decision))
            _still_in_time(wanted, watch, decision)
            self._obey(context, wanted, watch)
            self._say_if_late(context, wanted, watch, decision)
            return False

    def on_kill(self) -> None:
        """Airflow stops this task on its worker: cancel the jobs if, and only if, it was marked failed."""
        # In a thread, since this runs inside a signal handler and the interrupted code may hold the channel to Airflow.
        thread = threading.Thread(target=self._cancel_if_failed, args=(self._current_ti(),), daemon=True)
        thread.start()
        thread.join(KILL_SECONDS)

    def _look_or_defer(self, context: Context, give_up_at: datetime) -> Any:
        with airflow_errors():
            if not (wanted := self._wanted()).names:
                # Every row was answered before, so that there is no job.
                return self._passed(context, wanted, Ended({}))
            watch, decision = self._looked(wanted)
            if isinstance(decision, Ended):
                return self._passed(context, wanted, decision)
            _still_in_time(wanted, watch, decision)
            if utc_now() >= give_up_at:
                raise AirflowSensorTimeout(
                    f"{wanted.label}: the sensor's timeout of {self.timeout:g} s passed with {len(watch.open)} jobs "
                    "open. The jobs were not cancelled and may still be paid. Clear this task to wait on."
                )
            unheard = self._obey(context, wanted, watch)
            self._say_if_late(context, wanted, watch, decision)
            return self._defer_until(context, wanted, watch, give_up_at, unheard)

    def _defer_until(
        self, context: Context, wanted: Wanted, watch: Watch, give_up_at: datetime, commands: list[str]
    ) -> NoReturn:
        estimate = watch.expected or UNKNOWN
        note_estimate(wanted.ledger_stores, estimate, watch.deadline, owner=attempt_of(context).me, now=utc_now())
        late = bool(watch.lateness(utc_now()))
        context["ti"].xcom_push(key="estimate", value=outlook(estimate, watch.deadline, late=late))
        until = min(give_up_at, watch.deadline or give_up_at)
        first_event_after = config.first_event_after()
        homes = by_home(watch.open, wanted.homes, wanted.own)
        ledgers = wanted.ledgers
        # Jobs of one connection are waited for at a time; when they have ended, the task looks at all and waits for the next.
        conn_id, names = next(iter(homes.items()))
        trigger = GeminiBatchTrigger(
            conn_id=conn_id,
            job_names=names,
            since=watch.since.isoformat(),
            deadline=until.isoformat(),
            give_up_at=give_up_at.isoformat(),
            poll_seconds=watch.cap.total_seconds(),
            first_event_after=first_event_after.total_seconds(),
            ledgers={name: uri for name, uri in ledgers.pop(conn_id, {}).items() if name in names},
            ledgers_elsewhere=ledgers,
            expected=passed_on(estimate),
            stretches=watch.stretches,
            names_late=watch.names_late,
            commands=commands,
        )
        expiry = until - utc_now() + SLACK + first_event_after
        self.defer(trigger=trigger, method_name="resume", timeout=expiry)

    def _wanted(self) -> Wanted:
        if self.submitted is None:
            return named_jobs(self.job_names, self.gemini_conn_id)
        return submitted_jobs(self.submitted, self.gemini_conn_id)

    def _looked(self, wanted: Wanted) -> tuple[Watch, Decision]:
        cap = config.poll_interval() if self.poll_interval is None else self.poll_interval
        watch, decision = look_at(
            wanted,
            deadline=self.deadline,
            cap=cap if isinstance(cap, timedelta) else timedelta(seconds=cap),
            # A pause that somebody chose is not made longer.
            stretches=self.poll_interval is None,
            expected=(lambda: expected(wanted.ledger_stores, utc_now())) if wanted.batches else None,
            names_late=not is_named_late(wanted.ledger_stores),
            was=self._watch,
        )
        if decision.line:
            log.info("%s", decision.line)
        return watch, decision

    def _obey(self, context: Context, wanted: Wanted, watch: Watch) -> list[str]:
        """Do what a person left word for; the places where nobody has left any yet."""
        commands = commands_for(wanted.batches)
        if commands:
            owner, now = attempt_of(context).me, utc_now()
            done = obey(wanted.batches, commands, watch.open, owner=owner, now=now)
            if done:
                log.warning("%s", done)
        return [uri for uri in (command_uri(one.manifest) for one in wanted.batches) if uri not in commands]

    def _say_if_late(self, context: Context, wanted: Wanted, watch: Watch, decision: Decision) -> None:
        if not isinstance(decision, Late):
            return
        now = utc_now()
        seen = outlook(watch.expected or UNKNOWN, watch.deadline, late=True)
        late = {"batch": wanted.label, "why": decision.why, "open": list(decision.open), "estimate": seen}
        owner = attempt_of(context).me
        name_late(context, wanted.ledger_stores, late, on_late=self.on_late, owner=owner, now=now)

    def _passed(self, context: Context, wanted: Wanted, decision: Ended) -> Result | list[Result]:
        """Put the ends on record, judge them, and hand on what Load needs."""
        from airflow_provider_geminibatch.jobs.ending import note_ends

        owner, now = attempt_of(context).me, utc_now()
        for one in wanted.batches:
            note_ends(one.store, one.batch, decision.jobs, owner=owner, now=now)
        _raise_if_called_off(wanted, decision.jobs)
        jobs = tuple(decision.jobs.values())
        # Without jobs every row was answered before.
        warning = judged(wanted.label, jobs, wanted.cancels) if jobs else ""
        if warning:
            log.warning("%s", warning)
        context["ti"].xcom_push(key="jobs", value=_summary(jobs))
        took = turnaround(jobs)
        after = f", {spell(took)} after they were created" if took else ""
        log.info("%s: all %d jobs have ended%s", wanted.label, len(jobs), after)
        if not wanted.batches:
            return {"jobs": {job.name: job.state for job in jobs}}
        results = [one.manifest.as_dict(jobs=len(one.batch.jobs)) for one in wanted.batches]
        return results[0] if len(results) == 1 else results

    @staticmethod
    def _current_ti() -> Any:
        from airflow.sdk import get_current_context

        try:
            return get_current_context()["ti"]
        except (RuntimeError, KeyError):  # not inside a task
            return None

    def _cancel_if_failed(self, ti: Any) -> None:
        if ti is None or self.submitted is None:
            return
        try:
            owner, jobs = attempt_of({"ti": ti}).me, self._wanted().ledgers
        except GeminiBatchError as error:
            log.warning("The jobs could not be cancelled. %s", error)
            return
        for conn_id, ledgers in jobs.items():
            try:
                log.info("%s", cancel_if_failed(ti, conn_id, ledgers, owner=owner))
            except GeminiBatchError as error:
                log.warning("The jobs could not be cancelled. %s", error)


def _still_in_time(wanted: Wanted, watch: Watch, decision: Decision) -> None:
    """Raises WaitTimedOut when the deadline has passed."""
    if isinstance(decision, TimedOut) and watch.deadline:
        states = {name: job.state for name, job in decision.jobs.items()}
        told = ", ".join(f"{name} {states.get(name, 'not seen')}" for name in decision.open[:3])
        more = f" and {len(decision.open) - 3} more" if len(decision.open) > 3 else ""
        raise WaitTimedOut(wanted.label, watch.deadline, told + more)


def _raise_if_called_off(wanted: Wanted, jobs: Mapping[str, JobSnapshot]) -> None:
    """Raises BatchCancelled when a person had the batch cancelled and jobs ended without results since."""
    for one in wanted.batches:
        command = commands_for([one]).get(command_uri(one.manifest))
        if command and command.command == CANCEL and not all(jobs[name].readable for name in meant_by(command, one)):
            raise BatchCancelled(one.batch.label, f"{command.owner}: {command.reason}")


def _summary(jobs: tuple[JobSnapshot, ...]) -> dict[str, Any]:
    """What is pushed as ``jobs``: numbers for dashboards and callbacks, nothing of any row."""
    states: dict[str, int] = {}
    for job in jobs:
        states[job.state] = states.get(job.state, 0) + 1
    took = turnaround(jobs)
    return {
        "jobs": len(jobs),
        "states": states,
        "rows": sum(job.counts.total for job in jobs),
        "succeeded": sum(job.counts.succeeded for job in jobs),
        "failed": sum(job.counts.failed for job in jobs),
        "turnaround_s": None if took is None else took.total_seconds(),
    }
