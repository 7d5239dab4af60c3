"""The trigger that waits for jobs. It carries ids and times only, and neither creates nor ends anything by running."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
from airflow.providers.common.compat.sdk import AirflowException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_geminibatch.core.errors import GeminiBatchError, ServiceBusy
from airflow_provider_geminibatch.core.eta import Estimate
from airflow_provider_geminibatch.core.names import short
from airflow_provider_geminibatch.core.watch import Ended, Late, TimedOut, Watch, Wished
from airflow_provider_geminibatch.hooks.commands import command_left
from airflow_provider_geminibatch.hooks.gemini_batch import GeminiBatchHook
from airflow_provider_geminibatch.hooks.kill import cancel_if_failed
from airflow_provider_geminibatch.jobs.poller import polling
from airflow_provider_geminibatch.jobs.wait import rest_until, utc_now, wait_in_loop

if TYPE_CHECKING:
    from airflow_provider_geminibatch.gemini.gateway import Watcher

log = logging.getLogger(__name__)

STATUS: dict[type, str] = {Ended: "ended", TimedOut: "timeout", Late: "late", Wished: "command"}
"""What an event says of why it was fired. The task looks itself in any case."""


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
    :param ledgers_elsewhere: The same for jobs of other connections, by connection: nobody waits for them here, and they end
        with the others.
    :param expected: When similar jobs were done, as ``Estimate.as_dict`` gives it: pauses grow while that is far away.
    :param stretches: Whether pauses may grow beyond ``poll_seconds`` by it.
    :param names_late: Whether to fire, with the status ``late``, when the jobs take longer than they should.
    :param enough: How many of the jobs have to end; all when None.
    :param commands: URIs where a person may leave word for those who wait (``command.json``); looked at on each look.
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
        ledgers_elsewhere: Mapping[str, Mapping[str, str]] | None = None,
        expected: Mapping[str, Any] | None = None,
        stretches: bool = False,
        names_late: bool = False,
        enough: int | None = None,
        commands: Sequence[str] = (),
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
        self.ledgers_elsewhere = {conn_id: dict(its) for conn_id, its in (ledgers_elsewhere or {}).items()}
        self.expected = None if expected is None else dict(expected)
        self.stretches = stretches
        self.names_late = names_late
        self.enough = enough
        self.commands = list(commands)
        self._said: set[str] = set()

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
                "ledgers_elsewhere": self.ledgers_elsewhere,
                "expected": self.expected,
                "stretches": self.stretches,
                "names_late": self.names_late,
                "enough": self.enough,
                "commands": self.commands,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, fire once, and end at once: a trigger that goes on after its event is taken for one that was killed."""
        earliest = utc_now() + timedelta(seconds=self.first_event_after)
        async with polling(self.conn_id, self._connect) as poller:
            end = await wait_in_loop(self._watch(), poller.look, say=self._say, wished=self._wished)
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
        for conn_id, ledgers in ({self.conn_id: self.ledgers} | self.ledgers_elsewhere).items():
            try:
                done = await asyncio.to_thread(cancel_if_failed, ti, conn_id, ledgers, owner=owner)
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
            expected=None if self.expected is None else msgspec.convert(self.expected, Estimate, strict=False),
            stretches=self.stretches,
            names_late=self.names_late,
            enough=self.enough,
        )

    async def _wished(self) -> bool:
        from airflow.sdk.exceptions import AirflowRuntimeError

        for uri in self.commands:
            try:
                if await asyncio.to_thread(command_left, uri) is not None:
                    return True
            except (GeminiBatchError, AirflowException, AirflowRuntimeError) as error:
                # Like a service that cannot be asked: the jobs run on, and the next look asks again.
                self._say_once(f"{uri} could not be read ({type(error).__name__}): {error}")
        return False

    def _say_once(self, line: str) -> None:
        if line not in self._said:
            log.warning("%s", line)
            self._said.add(line)

    async def _connect(self) -> Watcher:
        from airflow.sdk.exceptions import AirflowRuntimeError

        try:
            return await GeminiBatchHook.aconnect(self.conn_id)
        except (AirflowException, AirflowRuntimeError) as error:
            # Airflow could not be asked now; like a service that cannot be asked, that is waited out.
            raise ServiceBusy(f"reading connection {self.conn_id!r}", None, type(error).__name__) from error

    def _say(self, line: str) -> None:
        log.info("%s", line)

    def _payload(self, end: Ended | TimedOut | Late | Wished) -> dict[str, Any]:
        more = {"why": end.why} if isinstance(end, Late) else {}
        return {
            "status": STATUS[type(end)],
            "jobs": {name: job.state for name, job in end.jobs.items()},
            "give_up_at": self.give_up_at,
            **more,
        }
