"""When Airflow stops a waiting task: cancel its jobs only if a person marked it failed.

Airflow stops a task for many reasons: mark failed, mark success, clear, a Dag run's timeout, a worker or triggerer that
goes away. Only the first says that nobody wants the answers; in all other cases somebody may come back for jobs that
are paid for. So Airflow is asked for the task's new state, and whatever is not certainly ``failed`` cancels nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from airflow_provider_geminibatch.core.errors import BadManifest
from airflow_provider_geminibatch.core.names import in_workspace
from airflow_provider_geminibatch.hooks.gemini_batch import GeminiBatchHook
from airflow_provider_geminibatch.hooks.storage import open_store

log = logging.getLogger(__name__)

FAILED = "failed"


def task_state(ti: Any) -> str | None:
    """The state that Airflow has for a task instance now, None when it cannot be read. Blocks: not for event loops."""
    from airflow.providers.common.compat.sdk import AirflowException
    from airflow.sdk.exceptions import AirflowRuntimeError

    index = -1 if ti.map_index is None else ti.map_index
    try:
        # Imported here since Airflow sets its supervisor's channel only in processes that have a supervisor.
        from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

        runs = RuntimeTaskInstance.get_task_states(
            dag_id=ti.dag_id, map_index=index, task_ids=[ti.task_id], run_ids=[ti.run_id]
        )
    except (AirflowException, AirflowRuntimeError, ImportError, NameError, OSError, EOFError, RuntimeError) as error:
        log.warning("The state of %s could not be read (%s).", ti.task_id, type(error).__name__)
        return None
    name = ti.task_id if index < 0 else f"{ti.task_id}_{index}"
    state = runs.get(ti.run_id, {}).get(name)
    return None if state is None else str(state)


def cancel_if_failed(ti: Any, conn_id: str, ledgers: Mapping[str, str], *, owner: str) -> str:
    """Cancel the jobs of a task that was marked failed, and say what was done. Blocks: not for event loops.

    ``ledgers`` maps each job that may be cancelled to the URI of its attempt in the ledger. Raises GeminiBatchError.
    """
    from airflow_provider_geminibatch.jobs.cancel import Target, cancel_jobs

    if not ledgers:
        return "The jobs are not ours to cancel; they run on."
    state = task_state(ti)
    if state != FAILED:
        return f"The task is {state or 'in an unknown state'}, not marked failed; a later try adopts its jobs, which run on."
    stores = {root: open_store(root) for root in dict.fromkeys(_split(uri)[0] for uri in ledgers.values())}
    targets = [Target(name, stores[_split(uri)[0]], _split(uri)[1]) for name, uri in ledgers.items()]
    index = "" if ti.map_index is None or ti.map_index < 0 else f"[{ti.map_index}]"
    why = f"{ti.dag_id}.{ti.task_id}{index} of {ti.run_id} was marked failed"
    gateway = GeminiBatchHook(conn_id).gateway()
    try:
        return f"{why}; {cancel_jobs(targets, gateway, owner=owner, why=why, now=datetime.now(UTC))}"
    finally:
        gateway.close()


def _split(uri: str) -> tuple[str, str]:
    """Workspace and path of a fact's URI."""
    parts = in_workspace(uri)
    if parts is None:
        raise BadManifest(uri, "it is not the place of a job in a ledger")
    return parts
