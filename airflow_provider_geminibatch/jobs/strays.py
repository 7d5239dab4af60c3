"""What jobs cost whose answers nobody takes: second jobs of one create, jobs that came to life late, and those given up.

    s/<build>/<shard>/stray-<job>.results.jsonl    what such a job brought
    s/<build>/<shard>/stray-<job>.json             what that cost, so that it is known when the service has forgotten the job

What such a job brought or cost is no reason not to land the answers that there are: what cannot be told is unknown, not zero.
"""

from __future__ import annotations

from decimal import Decimal

from airflow_provider_geminibatch.core.errors import JobUnreachable, ResultsBroken, ResultsNotReady, ServiceError
from airflow_provider_geminibatch.core.ledger import LateResults
from airflow_provider_geminibatch.core.model import JobSnapshot
from airflow_provider_geminibatch.core.names import segment
from airflow_provider_geminibatch.core.prices import NOTHING_SPENT, Spent
from airflow_provider_geminibatch.jobs.download import fetch
from airflow_provider_geminibatch.jobs.lines import Lines
from airflow_provider_geminibatch.jobs.results import Answered, Desk
from airflow_provider_geminibatch.storage import facts as fact_store

_UNKNOWN = Spent(cost_usd=None)


def stray_spent(desk: Desk, answered: Answered, stray: JobSnapshot) -> Spent:
    """What a stray job of a shard cost: nothing where it ended without results, and unknown where that cannot be told (yet)."""
    path = f"{answered.shard.ledger}/stray-{segment(stray.name)}"
    if (standing := fact_store.get(desk.store, f"{path}.json", LateResults)) is not None:
        return Spent(cost_usd=None if standing.cost_usd is None else Decimal(standing.cost_usd))
    try:
        job = desk.gateway.job(stray.name)
        if not job.ended:
            return _UNKNOWN
        if not job.readable:
            return NOTHING_SPENT
        return _counted(desk, answered, job, path)
    except (ServiceError, JobUnreachable, ResultsNotReady, ResultsBroken) as error:
        desk.log.warning("what %s cost is unknown, not zero: %s", stray.name, error)
        return _UNKNOWN


def _counted(desk: Desk, answered: Answered, job: JobSnapshot, path: str) -> Spent:
    """Bring what the job brought into the workspace, count it, and put the cost on record."""
    if not job.output_file:
        raise ResultsNotReady(job.name, f"it is {job.state.lower()} and does not name its output")
    results = f"{path}.results.jsonl"
    came = fetch(desk.gateway, desk.store, job.output_file, results, what=job.name, log=desk.log, pause=desk.pause)
    count = 0
    with Lines(desk.store, results, None, answered.price) as lines:
        for places, *_ in lines:
            count += len(places)
    cost = lines.spent.cost_usd
    fact = LateResults(
        owner=desk.me, at=desk.now(), job_name=job.name, path=results, size_bytes=came.size_bytes, sha256=came.sha256,
        lines=count, cost_usd=None if cost is None else f"{cost:f}",
    )  # fmt: skip
    fact_store.put(desk.store, f"{path}.json", fact)
    return lines.spent


__all__ = ["stray_spent"]
