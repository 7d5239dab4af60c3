"""What a waiting task expects, from the history of its workspace, and what it says when that does not come.

The estimate of the first wait is put on record beside the batch, so that Load can tell it from what really happened; that
the batch is late is put on record after it was named, so that a retry does not name it again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import Stats

from airflow_provider_geminibatch.core.errors import GeminiBatchError
from airflow_provider_geminibatch.core.eta import UNKNOWN, Estimate
from airflow_provider_geminibatch.core.ledger import Estimated, LateNamed
from airflow_provider_geminibatch.core.manifest import Manifest, parse_manifests
from airflow_provider_geminibatch.hooks.storage import open_store
from airflow_provider_geminibatch.storage import facts

if TYPE_CHECKING:
    from airflow_provider_geminibatch.storage.store import Store

log = logging.getLogger(__name__)

METRIC = "geminibatch.late"
OnLate = Callable[[Any], object]
"""A function or a notifier. It gets the context, whose ``late`` says what is known."""

Batch = tuple[Manifest, "Store"]


def expected(batches: Sequence[Batch], now: datetime, *, ended: Collection[str] = ()) -> Estimate:
    """When the open jobs should have ended. A history that cannot be read is an unknown estimate: nothing rests on it."""
    from airflow_provider_geminibatch.jobs.estimate import estimate_batches

    try:
        return estimate_batches(batches, now, ended=ended)
    except GeminiBatchError as error:
        log.warning("The history could not be read, so nothing is expected. %s", error)
        return UNKNOWN


def note_estimate(
    batches: Iterable[Batch], estimate: Estimate, deadline: datetime | None, *, owner: str, now: datetime
) -> None:
    """Say what the chance to make the deadline is, and put the first known estimate of each batch on record."""
    chance = estimate.chance(deadline) if deadline else None
    if deadline is not None and chance is not None:
        log.info(
            "the chance to have ended by the deadline, %s, is %.0f %%", f"{deadline:%Y-%m-%d %H:%M %Z}", 100 * chance
        )
    if estimate.basis == "unknown":
        return
    fact = Estimated(
        owner=owner, at=now, p50_at=estimate.p50_at, p90_at=estimate.p90_at, p95_at=estimate.p95_at,
        n=estimate.n, basis=estimate.basis, deadline=deadline, chance=chance,
    )  # fmt: skip
    for manifest, store in batches:
        path = _beside(manifest, "estimate.json")
        if facts.get(store, path, Estimated) is None:
            facts.put(store, path, fact)


def is_named_late(batches: Sequence[Batch]) -> bool:
    """Whether it is on record that the batches are late."""
    return any(facts.get(store, _beside(manifest, "late.json"), LateNamed) for manifest, store in batches)


def name_late(
    context: Mapping[str, Any],
    batches: Iterable[Batch],
    late: Mapping[str, Any],
    *,
    on_late: OnLate | Sequence[OnLate] | None,
    owner: str,
    now: datetime,
) -> None:
    """Say it: in the log, as a metric, to whoever wants to be called, and on record. ``late`` is JSON-safe."""
    log.warning("%s: LATE, %s. Nothing is cancelled by that.", late["batch"], late["why"])
    ti = context["ti"]
    Stats.incr(METRIC, tags={"dag_id": ti.dag_id, "task_id": ti.task_id})
    for call in _calls(on_late):
        try:
            call({**context, "late": late})
        except Exception:
            # The user's own code, of which anything may come. Airflow treats its callbacks in the same way.
            log.exception("on_late of %s failed; the waiting goes on.", ti.task_id)
    for manifest, store in batches:
        facts.put(store, _beside(manifest, "late.json"), LateNamed(owner=owner, at=now, why=str(late["why"])))


def _calls(given: OnLate | Sequence[OnLate] | None) -> Sequence[OnLate]:
    if given is None:
        return ()
    return (given,) if callable(given) else given


def on_record(given: Any) -> dict[str, Any]:
    """What was expected of the batches in ``given`` and whether they were named late: for the asset event's extra.

    Of several batches it is the estimate that was expected last.
    """
    batches = [(manifest, open_store(manifest.workspace)) for manifest in parse_manifests(given)]
    noted = [
        found
        for manifest, store in batches
        if (found := facts.get(store, _beside(manifest, "estimate.json"), Estimated))
    ]
    last = max(noted, key=lambda one: one.p90_at or one.p50_at or one.at, default=None)
    return {"estimate": None if last is None else _told(last), "late": is_named_late(batches)}


def _told(fact: Estimated) -> dict[str, Any]:
    times = {
        "estimated_at": fact.at,
        "p50_at": fact.p50_at,
        "p90_at": fact.p90_at,
        "p95_at": fact.p95_at,
        "deadline": fact.deadline,
    }
    told = {name: time.isoformat() if time else None for name, time in times.items()}
    return told | {"chance": fact.chance, "n": fact.n, "basis": fact.basis}


def outlook(estimate: Estimate, deadline: datetime | None, *, late: bool) -> dict[str, Any]:
    """The estimate as it lies in XCom while the task waits: plain values."""
    return estimate.as_dict() | {
        "deadline": deadline.isoformat() if deadline else None,
        "chance": estimate.chance(deadline) if deadline else None,
        "late": late,
    }


def passed_on(estimate: Estimate) -> dict[str, Any] | None:
    """The estimate as a trigger carries it: times and numbers only."""
    return None if estimate.basis == "unknown" else estimate.as_dict() | {"passed": estimate.passed}


def _beside(manifest: Manifest, name: str) -> str:
    """A fact of the generation that the manifest's build belongs to."""
    return f"{manifest.path.rpartition('/builds/')[0]}/{name}"
