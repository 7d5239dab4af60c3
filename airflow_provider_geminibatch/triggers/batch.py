"""The trigger that waits for jobs. It carries ids and times only, and neither creates nor ends anything by running."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_geminibatch.core.errors import GeminiBatchError, ServiceBusy
from airflow_provider_geminibatch.core.names import short
from airflow_provider_geminibatch.core.watch import Ended, TimedOut, Watch
from airflow_provider_geminibatch.hooks.gemini_batch import GeminiBatchHook
from airflow_provider_geminibatch.hooks.kill import cancel_if_failed
from airflow_provider_geminibatch.jobs.poller import polling
from airflow_provider_geminibatch.jobs.wait import rest_until, utc_now, wait_in_loop

if TYPE_CHECKING:
    from airflow_provider_geminibatch.gemini.gateway import Watcher

log = logging.getLogger(__name__)


class GeminiBatchTrigger(BaseTrigger):
    """Waits until jobs have ended or a deadline has passed, then fires one event.

    Its arguments lie in clear text in Airflow's database, so there is no key and no client among them. A restart of the
    triggerer starts ``run`` anew, which only looks again. Errors of the service are waited out until the deadline.

    :param conn_id: Connection of type ``geminibatch``.
    :param job_names: The jobs to wait for.
    :param since: When the waiting began, ISO 8601; pauses between looks grow with the time since.
    :param deadline: When to give up, ISO 8601, or None. It has to lie before the ``timeout`` of the deferral.
    :param give_up_at: Handed back in the event: until when the task may wait in all. A deferral keeps nothing else.
    :param poll_seconds: The longest pause between two looks.
    :param first_event_after: Seconds after the start before which no event is sent. Airflow up to 3.3.2 may fail a
        task whose trigger fires within about 8 s of the deferral.
    :param ledgers: For each job that may be cancelled, the URI of its attempt in the ledger. Only they are cancelled
        when somebody marks the task failed.
    """

    def __init__(
        self,
        *,
        conn_id: str,
        job_names: Sequence[str],
        since: str,
        deadline: str | None = None,
        give_up_at: str | None = None,
        poll_seconds: float = 60.0,
        first_event_after: float = 12.0,
        ledgers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.conn_id = conn_id
        self.job_names = list(job_names)
        self.since = since
        self.deadline = deadline
        self.give_up_at = give_up_at
        self.poll_seconds = poll_seconds
        self.first_event_after = first_event_after
        self.ledgers = dict(ledgers or {})

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """The class and what it needs to start again anywhere."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "conn_id": self.conn_id,
                "job_names": self.job_names,
                "since": self.since,
                "deadline": self.deadline,
                "give_up_at": self.give_up_at,
                "poll_seconds": self.poll_seconds,
                "first_event_after": self.first_event_after,
                "ledgers": self.ledgers,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, fire once, and end at once: a trigger that goes on after its event is taken for one that was killed."""
        earliest = utc_now() + timedelta(seconds=self.first_event_after)
        async with polling(self.conn_id, self._connect) as poller:
            end = await wait_in_loop(self._watch(), poller.look, say=self._say)
        # Without an id it runs inline (dag.test()), where there is no executor to be faster than.
        if self.trigger_id is not None:
            await rest_until(earliest)
        yield TriggerEvent(self._payload(end))  # type: ignore[no-untyped-call]

    async def on_kill(self) -> None:
        """Called by Airflow 3.3 and later when somebody acts on the deferred task, with 30 s to do it.

        Before 3.3 there is no such call: jobs run on, and GeminiBatchCancelOperator as a teardown ends them.
        """
        ti = self.task_instance
        if ti is None:
            return
        owner = short(str(ti.id), str(ti.try_number))
        try:
            done = await asyncio.to_thread(cancel_if_failed, ti, self.conn_id, self.ledgers, owner=owner)
        except GeminiBatchError as error:
            log.warning("The jobs could not be cancelled. %s", error)
        else:
            log.info("%s", done)

    def _watch(self) -> Watch:
        return Watch(
            names=tuple(self.job_names),
            since=datetime.fromisoformat(self.since),
            deadline=datetime.fromisoformat(self.deadline) if self.deadline else None,
            cap=timedelta(seconds=self.poll_seconds),
        )

    async def _connect(self) -> Watcher:
        from airflow.sdk.exceptions import AirflowRuntimeError

        try:
            return await GeminiBatchHook.aconnect(self.conn_id)
        except (AirflowException, AirflowRuntimeError) as error:
            # Airflow could not be asked now; like a service that cannot be asked, that is waited out.
            raise ServiceBusy(f"reading connection {self.conn_id!r}", None, type(error).__name__) from error

    def _say(self, line: str) -> None:
        log.info("%s", line)

    def _payload(self, end: Ended | TimedOut) -> dict[str, Any]:
        return {
            "status": "ended" if isinstance(end, Ended) else "timeout",
            "jobs": {name: job.state for name, job in end.jobs.items()},
            "give_up_at": self.give_up_at,
        }
