"""Load: the answers of ended jobs become one window of a landing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_geminibatch.core.landing import RunRef
from airflow_provider_geminibatch.core.manifest import parse_manifests
from airflow_provider_geminibatch.core.model import Owner
from airflow_provider_geminibatch.core.verdict import Thresholds
from airflow_provider_geminibatch.hooks.attempt import attempt_of
from airflow_provider_geminibatch.hooks.errors import airflow_errors
from airflow_provider_geminibatch.hooks.gateways import Gateways
from airflow_provider_geminibatch.hooks.gemini_batch import GeminiBatchHook
from airflow_provider_geminibatch.hooks.landing import Landing, open_landing, outlets_with
from airflow_provider_geminibatch.hooks.locations import ConnIds, home_of
from airflow_provider_geminibatch.hooks.outlook import on_record
from airflow_provider_geminibatch.hooks.storage import open_store
from airflow_provider_geminibatch.hooks.windows import Offset, Window, window_of
from airflow_provider_geminibatch.jobs.pipes import processes_of
from airflow_provider_geminibatch.jobs.wait import utc_now

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_geminibatch.jobs.collect import Landed

log = logging.getLogger(__name__)


class GeminiBatchLoadOperator(BaseOperator):
    """Collects the answers, gives every request its one outcome, and commits them as one window of a landing.

    A complete and accepted commit updates ``to.asset``, which is an outlet of this task; Dags scheduled on it start
    then. Of a window in parts the task that completes it does so. A commit outside its thresholds goes under
    ``_rejected/`` and fails the task for good. Doing it again after a
    crash or a clear downloads nothing twice and commits the same rows.

    Returns what the asset event carries: ``window``, ``landing``, ``uri``, ``rows``, ``counts``, ``verdict``,
    ``cost_usd``, ``turnaround_s`` and times, what was expected (``estimate``) and whether it came ``late``; never answers.

    :param submitted: What Submit or the sensor returned: a manifest, its JSON text, its URI, or a list of those, which
        land together.
    :param to: The landing. A mapped Load needs ``outlets=[landing.outlet]`` in ``partial()`` too.
    :param part: Which of ``to.parts`` this task lands.
    :param window: The window; by default the run's own.
    :param window_offset: Moves the window, as for ``GeminiBatchWindowSensor``.
    :param max_unresolved: Share of rows that may be without an answer.
    :param min_answers: Least number of answers.
    :param processes: Processes that read the results of 50,000 rows or more, shard by shard; by default one for each CPU that
        the task may use.
    :param gemini_conn_id: Connection of type ``geminibatch``, or several: each batch is asked for where it was submitted.
    """

    template_fields: Sequence[str] = ("submitted", "to", "part", "window", "gemini_conn_id")
    ui_color = "#cfe8cf"

    def __init__(
        self,
        *,
        submitted: Any,
        to: Landing,
        part: str | None = None,
        window: Window | None = None,
        window_offset: Offset | None = None,
        max_unresolved: float = Thresholds().max_unresolved,
        min_answers: int = Thresholds().min_answers,
        processes: int | None = None,
        gemini_conn_id: ConnIds = GeminiBatchHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(outlets=outlets_with(to, kwargs.pop("outlets", None)), **kwargs)
        # Says at once that a threshold cannot be meant.
        Thresholds(max_unresolved, min_answers)
        self.submitted = submitted
        self.to = to
        self.part = part
        if not isinstance(part, str) or "{{" not in part:
            # Told while the Dag is parsed, where it is not a template.
            to.place.own_part(part)
        self.window = window
        self.window_offset = window_offset
        self.max_unresolved = max_unresolved
        self.min_answers = min_answers
        self.processes = processes
        self.gemini_conn_id = gemini_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Collect, commit, and tell Airflow that the asset has changed."""
        with airflow_errors():
            landed = self._landed(context, window_of(context, self.window, self.window_offset))
            extra = landed.extra | on_record(self.submitted)
        if landed.event is not None:
            self.to.announce(context, landed.event | on_record(self.submitted))
        return extra

    def _landed(self, context: Context, window: str) -> Landed:
        from airflow_provider_geminibatch.jobs.collect import collect

        attempt = attempt_of(context)
        batch = attempt.batch
        manifests = parse_manifests(self.submitted)
        homes = {one.uri: home_of(one, open_store(one.workspace), self.gemini_conn_id) for one in manifests}
        with Gateways(homes[manifests[0].uri]) as gateways:
            return collect(
                manifests,
                open_store=open_store,
                gateway=gateways(None),
                gateways=gateways,
                at=(lambda manifest: gateways(homes[manifest.uri])) if len(set(homes.values())) > 1 else None,
                landing=self.to.place,
                landing_store=open_landing(self.to.uri),
                window=window,
                owner=Owner(batch.dag_id, batch.task_id, batch.map_index),
                run=RunRef(batch.dag_id, batch.run_id, batch.task_id, batch.map_index, attempt.try_number),
                thresholds=Thresholds(self.max_unresolved, self.min_answers),
                me=attempt.me,
                now=utc_now,
                log=log,
                part=self.to.place.own_part(self.part),
                processes=processes_of(self.processes),
            )
