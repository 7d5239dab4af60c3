"""Cancel: asks the service to end the jobs of a batch that are still open."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_geminibatch.core.manifest import Manifest, parse_manifests
from airflow_provider_geminibatch.hooks.attempt import Attempt, attempt_of
from airflow_provider_geminibatch.hooks.errors import airflow_errors
from airflow_provider_geminibatch.hooks.gateways import Gateways
from airflow_provider_geminibatch.hooks.gemini_batch import GeminiBatchHook
from airflow_provider_geminibatch.hooks.locations import ConnIds, home_of
from airflow_provider_geminibatch.hooks.storage import open_store

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_geminibatch.gemini.gateway import Gateway
    from airflow_provider_geminibatch.jobs.cancel import Cancelled

log = logging.getLogger(__name__)


class GeminiBatchCancelOperator(BaseOperator):
    """Ends what is still open of a batch, so that a pipeline that gives up does not go on paying.

    Made for ``.as_teardown(setups=submit)``, and the only way to end jobs by Airflow before version 3.3. It may run any
    number of times. Who cancelled, when and why goes into the ledger first, so that a later Submit may send the shards
    again. Jobs that have ended stay as they are, and so do their results.

    :param submitted: What Submit returned, or what Prepare returned: that one is there even if Submit failed half-way.
    :param gemini_conn_id: Connection of type ``geminibatch``, or several: each batch is cancelled where it was submitted.
    """

    template_fields: Sequence[str] = ("submitted", "gemini_conn_id")
    ui_color = "#f2d7d5"

    def __init__(
        self, *, submitted: Any, gemini_conn_id: ConnIds = GeminiBatchHook.default_conn_name, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.submitted = submitted
        self.gemini_conn_id = gemini_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Cancel, report what came of it, and fail if a job could not be asked."""
        if self.submitted is None:
            log.warning(
                "Nothing was submitted, or Submit failed before it could say what. If shards may have been sent, pass "
                "what Prepare returned to this task instead."
            )
            return {"asked": [], "ended": {}}
        with airflow_errors():
            manifests = parse_manifests(self.submitted)
            homes = [home_of(one, open_store(one.workspace), self.gemini_conn_id) for one in manifests]
            with Gateways(homes[0]) as gateways:
                done = [
                    self._cancel(manifest, gateways(home), attempt_of(context))
                    for manifest, home in zip(manifests, homes, strict=True)
                ]
            for error in (error for one in done for error in one.failed.values()):
                raise error
        return {
            "asked": [name for one in done for name in one.asked],
            "ended": {name: state for one in done for name, state in one.ended.items()},
        }

    def _cancel(self, manifest: Manifest, gateway: Gateway, attempt: Attempt) -> Cancelled:
        from airflow_provider_geminibatch.jobs.cancel import Target, cancel_jobs
        from airflow_provider_geminibatch.jobs.ending import read_batch
        from airflow_provider_geminibatch.jobs.wait import utc_now

        store = open_store(manifest.workspace)
        batch = read_batch(manifest, store)
        targets = [Target(job.name, store, job.place) for job in batch.jobs if not job.ended]
        why = f"{self.task_id} of {attempt.batch.dag_id}, {attempt.batch.run_id}"
        done = cancel_jobs(targets, gateway, owner=attempt.me, why=why, now=utc_now())
        log.info("%s: %s", batch.label, done)
        if batch.unsure:
            log.warning(
                "%s: %s may have become a job, its create got no certain answer. Retry Submit: it looks for the job "
                "first, and can be cancelled then.",
                batch.label,
                ", ".join(batch.unsure),
            )
        return done
