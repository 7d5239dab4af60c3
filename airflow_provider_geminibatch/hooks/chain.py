"""One look at a window, from a worker or a triggerer: what Airflow says of its owner, and what lies there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from airflow_provider_geminibatch.core.chain import Answer, Landed, Run, Sight, chain_step, together
from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.core.landing import CommitManifest
from airflow_provider_geminibatch.core.names import window_time
from airflow_provider_geminibatch.hooks.landing import Landing, open_landing

if TYPE_CHECKING:
    from airflow_provider_geminibatch.storage.landing_store import LandingStore

CLOSED_RUNS = ("success", "failed")


class Awaited(msgspec.Struct, frozen=True):
    """A window that somebody waits for, in names and times only: this is what lies in a trigger.

    ``dag_id`` and ``task_ids`` are the owner's, empty when only the commit can tell. ``by_date`` says that its run has
    the window's time as its logical date, as with data intervals; otherwise only a commit tells which run it was.
    ``parts`` names those of the window that are awaited, each with the owner's tasks that may land it.
    """

    landing: str
    uri: str
    window: str
    dag_id: str = ""
    task_ids: tuple[str, ...] = ()
    by_date: bool = True
    parts: Mapping[str, tuple[str, ...]] = {}


def look(awaited: Awaited) -> Answer:
    """Whether the window may be built upon now.

    Asks Airflow before the landing: a commit is always older than the success of its task.
    """
    from airflow_provider_geminibatch.storage.landing_store import view_of

    runs = {part: _scheduled(awaited, tasks) for part, tasks in (awaited.parts or {"": awaited.task_ids}).items()}
    landing = open_landing(awaited.uri)
    view = view_of(landing, awaited.window, tuple(awaited.parts))
    found = {manifest.part: manifest for manifest in view.found}
    if not view.declared:
        # Landed whole, perhaps before it had parts.
        of_all = tuple(run for its in runs.values() for run in its)
        return chain_step(_sight(awaited, "", awaited.task_ids, of_all, found.get(""), landing))
    steps = {
        part: chain_step(_sight(awaited, part, tasks, runs[part], found.get(part), landing))
        for part, tasks in awaited.parts.items()
    }
    return together(steps, view.commit)


def _sight(
    awaited: Awaited,
    part: str,
    task_ids: tuple[str, ...],
    runs: tuple[Run, ...],
    standing: CommitManifest | None,
    landing: LandingStore,
) -> Sight:
    """What there is of one part, or of a whole window."""
    landed = standing if standing is not None and standing.passes else None
    rejected = None if landed else landing.manifest(awaited.window, part=part, rejected=True)
    owner = f"{awaited.dag_id}.{'|'.join(task_ids)}" if task_ids else ""
    if landed is not None:
        made_by = landed.run
        owner = owner or f"{made_by.dag_id}.{made_by.task_id}"
        if made_by.run_id not in {run.run_id for run in runs}:
            runs += _runs(made_by.dag_id, [made_by.task_id], run_ids=[made_by.run_id])
    return Sight(owner=owner, runs=runs, landed=_landed(landed), rejected=rejected.numbers if rejected else "")


def _landed(manifest: CommitManifest | None) -> Landed | None:
    if manifest is None:
        return None
    return Landed(manifest.commit, manifest.run.run_id, by_person=manifest.acceptance is not None)


def _scheduled(awaited: Awaited, task_ids: tuple[str, ...]) -> tuple[Run, ...]:
    """The owner's run of that time, if there is one."""
    time = window_time(awaited.window)
    if time is None or not task_ids or not awaited.by_date:
        return ()
    return _runs(awaited.dag_id, task_ids, logical_dates=[time])


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


def awaited_by(
    context: Mapping[str, Any], landing: Landing, window: str, given: str | tuple[str, str] | None
) -> Awaited:
    """The window and who lands it: the given owner, else the landing's, else the tasks of the own Dag with that
    landing.

    When none is known, the manifest of a commit is the only one to tell.
    """
    if owner := given or landing.owner:
        dag_id, task_id = owner.split(".", 1) if isinstance(owner, str) and "." in owner else _pair(owner)
        parts = dict.fromkeys(landing.parts, (task_id,))
        return Awaited(landing.name, landing.uri, window, dag_id, (task_id,), parts=parts)
    dag = context["dag"]
    loads = [task for task in dag.tasks if getattr(_argument(task, "to"), "uri", None) == landing.uri]
    if not loads:
        return Awaited(landing.name, landing.uri, window, parts=dict.fromkeys(landing.parts, ()))
    own = all(_argument(task, "window") is None and _argument(task, "window_offset") is None for task in loads)
    parts = {
        # A task whose part is known at its run only may land each of them.
        part: tuple(task.task_id for task in loads if _may_land(task, part, landing.parts))
        for part in landing.parts
    }
    return Awaited(landing.name, landing.uri, window, dag.dag_id, tuple(task.task_id for task in loads), own, parts)


def _may_land(task: Any, part: str, declared: tuple[str, ...]) -> bool:
    named = _argument(task, "part")
    return named == part or named not in declared


def _pair(given: object) -> tuple[str, str]:
    if isinstance(given, tuple | list) and len(given) == 2:
        return str(given[0]), str(given[1])
    raise Unusable(f"the owner {given!r}", "it names no task", "Write 'dag_id.task_id', or a tuple of the two.")


def _argument(task: Any, name: str) -> Any:
    """An argument of an operator, mapped or not."""
    partial: Mapping[str, Any] = getattr(task, "partial_kwargs", {})
    return partial.get(name) if name in partial else getattr(task, name, None)
