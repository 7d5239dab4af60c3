"""One look at a window, from a worker or a triggerer: what Airflow says of its owner, and what lies there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from airflow_provider_geminibatch.core.chain import Landed, Run, Sight
from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.core.landing import CommitManifest
from airflow_provider_geminibatch.core.names import window_time
from airflow_provider_geminibatch.hooks.landing import Landing
from airflow_provider_geminibatch.hooks.storage import open_store

CLOSED_RUNS = ("success", "failed")


class Awaited(msgspec.Struct, frozen=True):
    """A window that somebody waits for, in names and times only: this is what lies in a trigger.

    ``dag_id`` and ``task_ids`` are the owner's, empty when only the commit can tell. ``by_date`` says that its run has
    the window's time as its logical date, as with data intervals; otherwise only a commit tells which run it was.
    """

    landing: str
    uri: str
    window: str
    dag_id: str = ""
    task_ids: tuple[str, ...] = ()
    by_date: bool = True

    @property
    def owner(self) -> str:
        return f"{self.dag_id}.{'|'.join(self.task_ids)}" if self.task_ids else ""


def look(awaited: Awaited) -> Sight:
    """What there is now. Asks Airflow before the landing: a commit is always older than the success of its task."""
    runs = _scheduled(awaited)
    landed, rejected = _manifests(awaited)
    owner = awaited.owner
    if landed is not None:
        made_by = landed.run
        owner = owner or f"{made_by.dag_id}.{made_by.task_id}"
        if made_by.run_id not in {run.run_id for run in runs}:
            runs += _runs(made_by.dag_id, [made_by.task_id], run_ids=[made_by.run_id])
    return Sight(
        owner=owner,
        runs=runs,
        landed=_landed(landed),
        rejected=rejected.numbers if rejected else "",
    )


def _landed(manifest: CommitManifest | None) -> Landed | None:
    if manifest is None:
        return None
    return Landed(manifest.commit, manifest.run.run_id, by_person=manifest.acceptance is not None)


def _scheduled(awaited: Awaited) -> tuple[Run, ...]:
    """The owner's run of that time, if there is one."""
    time = window_time(awaited.window)
    if time is None or not awaited.task_ids or not awaited.by_date:
        return ()
    return _runs(awaited.dag_id, awaited.task_ids, logical_dates=[time])


def _runs(
    dag_id: str,
    task_ids: Iterable[str],
    *,
    logical_dates: list[datetime] | None = None,
    run_ids: list[str] | None = None,
) -> tuple[Run, ...]:
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    found: Mapping[str, Mapping[str, Any]] = RuntimeTaskInstance.get_task_states(
        dag_id=dag_id, task_ids=list(task_ids), logical_dates=logical_dates, run_ids=run_ids
    )
    return tuple(_run(dag_id, run_id, tuple(states.values())) for run_id, states in sorted(found.items()))


def _run(dag_id: str, run_id: str, states: tuple[Any, ...]) -> Run:
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    told = tuple(None if state is None else str(getattr(state, "value", state)) for state in states)
    # Only a task without a state needs the state of its run: it waits in a live run and was never started in an ended
    # one.
    closed = None in told and str(RuntimeTaskInstance.get_dagrun_state(dag_id, run_id)) in CLOSED_RUNS
    return Run(run_id, told, closed)


def _manifests(awaited: Awaited) -> tuple[CommitManifest | None, CommitManifest | None]:
    """The commit that chains move on from, and else the rejected one."""
    from airflow_provider_geminibatch.storage.landings import read_manifest

    store = open_store(awaited.uri)
    standing = read_manifest(store, awaited.window)
    if standing is not None and standing.passes:
        return standing, None
    return None, read_manifest(store, awaited.window, rejected=True)


def awaited_by(
    context: Mapping[str, Any], landing: Landing, window: str, given: str | tuple[str, str] | None
) -> Awaited:
    """The window and who lands it: the given owner, else the landing's, else the tasks of the own Dag with that
    landing.

    When none is known, the manifest of a commit is the only one to tell.
    """
    if owner := given or landing.owner:
        dag_id, task_id = owner.split(".", 1) if isinstance(owner, str) and "." in owner else _pair(owner)
        return Awaited(landing.name, landing.uri, window, dag_id, (task_id,))
    dag = context["dag"]
    loads = [task for task in dag.tasks if getattr(_argument(task, "to"), "uri", None) == landing.uri]
    if not loads:
        return Awaited(landing.name, landing.uri, window)
    own = all(_argument(task, "window") is None and _argument(task, "window_offset") is None for task in loads)
    return Awaited(landing.name, landing.uri, window, dag.dag_id, tuple(task.task_id for task in loads), own)


def _pair(given: object) -> tuple[str, str]:
    if isinstance(given, tuple | list) and len(given) == 2:
        return str(given[0]), str(given[1])
    raise Unusable(f"the owner {given!r}", "it names no task", "Write 'dag_id.task_id', or a tuple of the two.")


def _argument(task: Any, name: str) -> Any:
    """An argument of an operator, mapped or not."""
    partial: Mapping[str, Any] = getattr(task, "partial_kwargs", {})
    return partial.get(name) if name in partial else getattr(task, name, None)
