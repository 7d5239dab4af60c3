"""Waits for the window that a task builds upon, most often the one before its own."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
)

from airflow_provider_geminibatch.core.chain import Hold, Missing, Pass
from airflow_provider_geminibatch.core.errors import Unusable, WindowNotLanded
from airflow_provider_geminibatch.core.names import window_time
from airflow_provider_geminibatch.hooks import config
from airflow_provider_geminibatch.hooks.chain import Awaited, awaited_by, look
from airflow_provider_geminibatch.hooks.errors import airflow_errors
from airflow_provider_geminibatch.hooks.landing import Landing
from airflow_provider_geminibatch.hooks.windows import Offset, Window, as_window, window_of
from airflow_provider_geminibatch.jobs.wait import utc_now

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

log = logging.getLogger(__name__)

ON_MISSING = ("fail", "skip", "proceed")
SLACK = timedelta(minutes=10)
"""How much later than our own deadline Airflow ends the deferral: its end would skip the method that says why."""


class GeminiBatchWindowSensor(BaseSensorOperator):
    """Passes when a complete and accepted commit of the window lies in the landing.

    It waits while the task that lands there is at work on that window, also when an older commit lies there, as in a
    backfill that reprocesses; when that task failed, was skipped, or succeeded without an accepted commit,
    ``on_missing`` decides. A window for which no run exists may still come and is waited for until ``timeout``; with
    ``skip`` and ``proceed`` it counts as missing after ``missing_after``, and in the own Dag at once, since Airflow
    makes runs in order.

    Returns ``{"window", "landing", "commit"}``, or instead of the commit ``before_first: True`` or ``missing: why``.

    :param landing: The landing to look in.
    :param window: The window; by default the run's own.
    :param window_offset: Moves the window: a ``pendulum.duration`` on the wall clock of the Dag's time zone, a
        ``timedelta`` as elapsed time.
    :param first_window: Windows before this one are not waited for: where the chain begins.
    :param on_missing: What a missing window means: ``fail`` (default), ``skip`` or ``proceed``.
    :param landed_by: ``"dag_id.task_id"``, or both as a tuple, of the task that lands there; by default
        ``landing.owner``, else the task of this Dag with that landing, else whoever made the commit.
    :param missing_after: How long after the start of this Dag run a window without a run of its owner counts as
        missing.
    :param deferrable: Wait in the triggerer (default); else by ``mode``.
    :param poll_interval: Time between two looks of the triggerer, in seconds or as a timedelta; by default
        ``[geminibatch] poll_interval``.
    """

    template_fields: Sequence[str] = ("landing", "window", "first_window", "landed_by")
    ui_color = "#e2ece9"

    def __init__(
        self,
        *,
        landing: Landing,
        window: Window | None = None,
        window_offset: Offset | None = None,
        first_window: Window | None = None,
        on_missing: str = "fail",
        landed_by: str | tuple[str, str] | None = None,
        missing_after: timedelta | None = None,
        deferrable: bool = True,
        poll_interval: timedelta | float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if on_missing not in ON_MISSING:
            raise Unusable(f"on_missing={on_missing!r}", "no such choice", f"Write one of {', '.join(ON_MISSING)}.")
        self.landing = landing
        self.window = window
        self.window_offset = window_offset
        self.first_window = first_window
        self.on_missing = on_missing
        self.landed_by = landed_by
        self.missing_after = missing_after
        self.deferrable = deferrable
        self.poll_interval = poll_interval

    def execute(self, context: Context) -> Any:
        """Look before deferring: a window that is there costs no deferral."""
        if not self.deferrable:
            return super().execute(context)
        deadline = utc_now() + timedelta(seconds=self.timeout)
        with self._softly():
            return self._look_or_defer(context, deadline, self._missing_at(context))

    def poke(self, context: Context) -> PokeReturnValue:
        """One look on the worker."""
        result = self._look(context, self._missing_at(context))
        return PokeReturnValue(is_done=isinstance(result, dict), xcom_value=result)

    def resume(self, context: Context, event: Mapping[str, Any]) -> Any:
        """Look again, since things may have changed after the event, and decide."""
        return self._look_or_defer(context, datetime.fromisoformat(event["deadline"]), _time(event["missing_at"]))

    def _look_or_defer(self, context: Context, deadline: datetime, missing_at: datetime | None) -> Any:
        result = self._look(context, missing_at)
        if isinstance(result, str) and utc_now() < deadline:
            self._defer(context, deadline, missing_at)
        if isinstance(result, str):
            raise AirflowSensorTimeout(
                f"{self.landing.name} window {self._window(context)} did not land before the timeout of this sensor: "
                f"{result}. Nothing was sent or paid by this task. Clear it to wait on."
            )
        return result

    def _look(self, context: Context, missing_at: datetime | None) -> dict[str, Any] | str:
        """The result, or the reason to wait."""
        with airflow_errors():
            window = self._window(context)
            found = {"window": window, "landing": self.landing.name}
            if self.first_window and _before(window, as_window(self.first_window)):
                return found | {"before_first": True}
            step = look(self._awaited(context))
            if isinstance(step, Pass):
                return found | {"commit": step.commit}
            if isinstance(step, Missing) and (step.certain or (missing_at is not None and missing_at <= utc_now())):
                return found | {"missing": self._accepted_gap(window, step.why)}
            why = step.why if isinstance(step, Hold) else f"{step.why}; if the chain begins here, set first_window="
            log.info("%s window %s: waiting, %s", self.landing.name, window, why)
            return why

    def _accepted_gap(self, window: str, why: str) -> str:
        """What to do without the window, as chosen. Raises unless the choice is to go on."""
        if self.on_missing == "fail":
            raise WindowNotLanded(self.landing.name, window, why)
        if self.on_missing == "skip":
            raise AirflowSkipException(f"{self.landing.name} window {window} is missing: {why}")
        log.warning("%s window %s is missing and not waited for: %s", self.landing.name, window, why)
        return why

    def _window(self, context: Context) -> str:
        return window_of(context, self.window, self.window_offset)

    def _awaited(self, context: Context) -> Awaited:
        return awaited_by(context, self.landing, self._window(context), self.landed_by)

    def _missing_at(self, context: Context) -> datetime | None:
        """From when on a window that no run exists for counts as missing."""
        if self.missing_after is not None:
            return (context["dag_run"].start_date or utc_now()) + self.missing_after
        with airflow_errors():
            awaited = self._awaited(context)
        at_once = self.on_missing != "fail" and awaited.by_date and awaited.dag_id == context["ti"].dag_id
        return utc_now() if at_once else None

    def _defer(self, context: Context, deadline: datetime, missing_at: datetime | None) -> NoReturn:
        from airflow_provider_geminibatch.triggers.window import GeminiBatchWindowTrigger

        with airflow_errors():
            awaited = self._awaited(context)
        trigger = GeminiBatchWindowTrigger(
            landing=awaited.landing,
            uri=awaited.uri,
            window=awaited.window,
            dag_id=awaited.dag_id,
            task_ids=list(awaited.task_ids),
            by_date=awaited.by_date,
            parts={part: list(tasks) for part, tasks in awaited.parts.items()},
            deadline=deadline.isoformat(),
            missing_at=missing_at.isoformat() if missing_at else None,
            poll_seconds=self._pause().total_seconds(),
            first_event_after=config.first_event_after().total_seconds(),
        )
        self.defer(trigger=trigger, method_name="resume", timeout=deadline - utc_now() + SLACK)
        raise AssertionError("defer() does not return")

    def _pause(self) -> timedelta:
        given = config.poll_interval() if self.poll_interval is None else self.poll_interval
        return given if isinstance(given, timedelta) else timedelta(seconds=given)

    @contextmanager
    def _softly(self) -> Iterator[None]:
        """``soft_fail`` and ``never_fail`` before the first deferral; after it, the base class sees to them."""
        try:
            yield
        except AirflowSkipException:
            raise
        except AirflowException as error:
            if self.never_fail or (self.soft_fail and isinstance(error, AirflowFailException | AirflowSensorTimeout)):
                raise AirflowSkipException(str(error)) from error
            raise


def _before(window: str, first: str) -> bool:
    one, other = window_time(window), window_time(first)
    return one < other if one and other else window < first


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
