"""Waits in the triggerer for a window to land, or for it to be certain that it will not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

from airflow.sdk.exceptions import AirflowRuntimeError
from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from airflow_provider_geminibatch.core.chain import Hold, Missing
from airflow_provider_geminibatch.core.errors import GeminiBatchError
from airflow_provider_geminibatch.hooks.chain import Awaited, look
from airflow_provider_geminibatch.jobs.wait import rest_until, utc_now

SHORTEST = timedelta(seconds=0.1)
"""No pause is shorter, whatever is configured, so that nothing spins."""

_ARGUMENTS = (
    "landing", "uri", "window", "dag_id", "task_ids", "by_date", "parts", "deadline", "missing_at", "poll_seconds", "first_event_after",
)  # fmt: skip


class GeminiBatchWindowTrigger(BaseTrigger):
    """Looks until the waiting task has something to decide, sends one event that says so, and returns.

    It changes nothing anywhere, and its arguments are names and times: Airflow keeps them in clear text.

    :param landing: Name of the landing.
    :param uri: Its folder.
    :param window: The window, as text.
    :param dag_id: Dag of the task that lands there, empty when unknown.
    :param task_ids: Its tasks that land there.
    :param by_date: Whether its run has the window as its logical date.
    :param parts: For a window in parts, which of the tasks may land each.
    :param deadline: ISO time at which waiting ends.
    :param missing_at: ISO time from which a window without a run counts as missing; None for never.
    :param poll_seconds: Time between two looks.
    :param first_event_after: Seconds without an event after the start, since Airflow may fail a task that resumes at
        once.
    """

    def __init__(
        self,
        *,
        landing: str,
        uri: str,
        window: str,
        dag_id: str,
        task_ids: list[str],
        by_date: bool,
        deadline: str,
        missing_at: str | None,
        poll_seconds: float,
        first_event_after: float,
        parts: dict[str, list[str]] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's own
        self.landing = landing
        self.uri = uri
        self.window = window
        self.dag_id = dag_id
        self.task_ids = task_ids
        self.by_date = by_date
        self.parts = parts or {}
        self.deadline = deadline
        self.missing_at = missing_at
        self.poll_seconds = poll_seconds
        self.first_event_after = first_event_after

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class and its arguments."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {name: getattr(self, name) for name in _ARGUMENTS}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Look, sleep and look again, from the start after every restart of the triggerer."""
        deadline, said = datetime.fromisoformat(self.deadline), ""
        # Without an id nobody schedules us: the trigger runs inside `dag.test()`, where nothing races.
        next_look = utc_now() + timedelta(seconds=self.first_event_after if self.trigger_id else 0)
        while True:
            await rest_until(next_look)
            now = utc_now()
            ready, why = await self._look(now)
            if why != said:
                self.log.info("%s window %s: %s", self.landing, self.window, why or "there")
                said = why
            if ready or now >= deadline:
                break
            next_look = min(now + max(SHORTEST, timedelta(seconds=self.poll_seconds)), deadline)
        told = {"ready": ready, "deadline": self.deadline, "missing_at": self.missing_at, "why": said}
        yield TriggerEvent(told)  # type: ignore[no-untyped-call]  # Airflow's own

    async def _look(self, now: datetime) -> tuple[bool, str]:
        """Whether the task has something to decide, and what keeps it waiting; a failed look is a reason to."""
        parts = {part: tuple(tasks) for part, tasks in self.parts.items()}
        awaited = Awaited(self.landing, self.uri, self.window, self.dag_id, tuple(self.task_ids), self.by_date, parts)
        try:
            # Not in the thread that all triggers share: a slow store would hold up every one of them.
            step = await sync_to_async(look, thread_sensitive=False)(awaited)
        except (GeminiBatchError, AirflowRuntimeError, OSError) as error:
            return False, f"looking failed, trying again: {error}"
        if isinstance(step, Hold):
            return False, step.why
        if isinstance(step, Missing):
            due = self.missing_at is not None and datetime.fromisoformat(self.missing_at) <= now
            return step.certain or due, step.why
        return True, ""
