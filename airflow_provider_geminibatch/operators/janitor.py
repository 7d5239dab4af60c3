"""Janitor: reports what lies about at the service and in the workspace, and cleans up only when told to."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_geminibatch.hooks.attempt import attempt_of
from airflow_provider_geminibatch.hooks.errors import airflow_errors
from airflow_provider_geminibatch.hooks.gateways import Gateways
from airflow_provider_geminibatch.hooks.gemini_batch import GeminiBatchHook
from airflow_provider_geminibatch.hooks.locations import ConnIds, candidates_of
from airflow_provider_geminibatch.hooks.storage import open_workspace

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

log = logging.getLogger(__name__)


class GeminiBatchJanitorOperator(BaseOperator):
    """Finds finished jobs that nobody collected, orphans, and input files that are not needed any more.

    Looks only at what bears the workspace's own mark; jobs of other workspaces in the same project are counted and left alone.
    With ``act=True`` it cancels, collects and deletes what no unfinished work can need: what belongs to a batch that is closed,
    or to none at all and is three days old by the service's clock. It collects before it deletes, and what it does goes on
    record first. A batch whose ledger is open or cannot be read is reported, never touched. May run any number of times.

    :param workspace: Folder where the ledgers live; ``[geminibatch] workspace`` when empty.
    :param act: Do what may be done, rather than only report it.
    :param gemini_conn_id: Connection of type ``geminibatch``, of the project whose jobs are looked at, or several; at each of
        their locations in turn.
    """

    template_fields: Sequence[str] = ("workspace", "gemini_conn_id")
    ui_color = "#f2d7d5"

    def __init__(
        self,
        *,
        workspace: str | None = None,
        act: bool = False,
        gemini_conn_id: ConnIds = GeminiBatchHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.workspace = workspace
        self.act = act
        self.gemini_conn_id = gemini_conn_id

    def execute(self, context: Context) -> dict[str, Any]:
        """Look, act if told to, and return the report."""
        from airflow_provider_geminibatch.jobs.janitor import clean, together
        from airflow_provider_geminibatch.jobs.wait import utc_now

        with airflow_errors():
            workspace = open_workspace(self.workspace)
            places = candidates_of(self.gemini_conn_id)
            with Gateways(places[0].address) as gateways:
                report = together(
                    clean(
                        workspace.store, gateways(place.address), workspace_id=workspace.id, act=self.act,
                        me=attempt_of(context).me, now=utc_now, log=log,
                    )
                    for place in places
                )  # fmt: skip
        log.info("%s%s", report, "" if self.act else "; nothing was changed: pass act=True to clean up")
        return report.as_dict()
