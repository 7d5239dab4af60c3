"""What a commit leaves in the workspace: the seal of its results, its facts, the summary, and a line of history per job."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC
from itertools import count
from typing import Any

import msgspec

from airflow_provider_geminibatch.core.answer_sizes import tally_of
from airflow_provider_geminibatch.core.errors import ResultsBroken, ServiceError
from airflow_provider_geminibatch.core.landing import (
    Closed,
    CommitManifest,
    Committed,
    Committing,
    JobRef,
    ResultsSeal,
    ShardResult,
)
from airflow_provider_geminibatch.core.model import Build
from airflow_provider_geminibatch.core.names import generation_path, segment, short
from airflow_provider_geminibatch.jobs.layers import BuiltLayer
from airflow_provider_geminibatch.jobs.results import Answered, Desk
from airflow_provider_geminibatch.jobs.rows import AnsweredBatch
from airflow_provider_geminibatch.jobs.sampled import asked_by, task_of
from airflow_provider_geminibatch.jobs.submit import open_path
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.usage_history import note_usage


def seal_results(desk: Desk, build: Build, results: tuple[ShardResult, ...], *, partial: bool = False) -> int:
    """The number of the seal that says exactly these results; a new one when the last says others.

    Raises ResultsBroken when another try has sealed results of a later attempt: this one obeys. ``partial`` results say nothing
    of shards that are open, also of those that were sealed as failed and are asked again since.
    """
    mine = ResultsSeal(owner=desk.me, at=desk.now(), build=build.id, results=results)
    folder = generation_path(build.batch, build.generation)
    for number in count(1):
        path = f"{folder}/seals/{number:02d}.json"
        standing = fact_store.get(desk.store, path, ResultsSeal) or fact_store.put(desk.store, path, mine)
        if (standing.build, standing.results) == (build.id, results):
            return number
        ours = {result.shard: result.attempt for result in results}
        if any(
            result.attempt > ours.get(result.shard, result.attempt if partial else 0) for result in standing.results
        ):
            raise ResultsBroken(f"the results of {build.batch}", "another try has sealed later ones")
    raise AssertionError("count does not end")


def written_parts(desk: Desk, batch: AnsweredBatch, commit: str) -> Committing | None:
    """The note of an earlier try that this commit's parts are written, if there is one."""
    return fact_store.get(desk.store, _commit_path(batch, commit, "json"), Committing)


def note_parts(desk: Desk, batches: Sequence[AnsweredBatch], manifest: CommitManifest) -> None:
    """Write ``commits/<id>.json`` in the ledger of every batch of the commit."""
    for batch in batches:
        note = Committing(
            owner=desk.me, at=desk.now(), landing=manifest.landing, window=manifest.window, commit=manifest.commit,
            parts=manifest.parts, media=manifest.media,
        )  # fmt: skip
        fact_store.put(batch.store, _commit_path(batch, manifest.commit, "json"), note)


def _commit_path(batch: AnsweredBatch, commit: str, suffix: str) -> str:
    return f"{batch.origin.path}/commits/{commit}.{suffix}"


def close(desk: Desk, batch: AnsweredBatch, manifest: CommitManifest, summary: dict[str, Any]) -> None:
    """Put the end of a batch on record. Every line of it may be repeated."""
    store, build = batch.store, batch.build
    done = Committed(
        owner=desk.me, at=desk.now(), landing=manifest.landing, window=manifest.window, commit=manifest.commit,
        verdict=manifest.verdict,
    )  # fmt: skip
    fact_store.put(store, _commit_path(batch, manifest.commit, "done"), done)
    for its, answered in _all_shards(batch):
        if answered.job is not None and (path := history_path(its, answered.service, answered.job)):
            store.create(path, b"")
    _note_usage(batch, manifest)
    closed = Closed(owner=desk.me, at=desk.now(), commit=manifest.commit, verdict=manifest.verdict)
    fact_store.put(store, f"{batch.origin.path}/closed.json", closed)
    note = open_path(build)
    index = note.replace("open/", f"index/{manifest.committed_at:%Y-%m-%d}/", 1)
    about = {"v": 1, "batch": msgspec.to_builtins(build.batch), "generation": build.generation, "build": build.id}
    store.write(index, msgspec.json.encode({**about, **summary}))
    store.delete(note)
    _delete_inputs(desk, batch.shards)
    for layer in batch.layers:
        _delete_inputs(layer.desk if isinstance(layer, BuiltLayer) else desk, layer.shards)


def _note_usage(batch: AnsweredBatch, manifest: CommitManifest) -> None:
    """How long the answers of the root build were, for estimates of batches to the like.

    Under the name of the batch: it may land in several places, and others of its task beside it.
    """
    sizes = tally_of(answered.sizes for answered in batch.shards).sizes()
    service = next((answered.service for answered in batch.shards if answered.job), "")
    ended = [answered.job.ended_at for answered in batch.shards if answered.job and answered.job.ended_at]
    if sizes.answers and service:
        note_usage(
            batch.store, service=service, model=batch.build.model, asked=asked_by(batch.store, batch.build),
            task=task_of(batch.build.batch), ended=max(ended, default=manifest.committed_at), name=short(batch.origin.path),
            sizes=sizes,
        )  # fmt: skip


def _all_shards(batch: AnsweredBatch) -> Iterator[tuple[Build, Answered]]:
    """Every shard of the root build, the rounds and the rungs, with its build."""
    yield from ((batch.build, answered) for answered in batch.shards)
    for layer in batch.layers:
        if isinstance(layer, BuiltLayer):
            yield from ((layer.build, answered) for answered in layer.shards)


def history_path(build: Build, service: str, job: JobRef) -> str | None:
    """``history/<service>/<model>/<month>/<ended>_<seconds>_<state>_<rows>_<job>``: one listing teaches the turnaround model.

    The job tells shards apart that are of one size and ended in the same second. One whose times the service does not say,
    as Vertex AI does of some that ended badly, teaches nothing: None.
    """
    if job.ended_at is None or job.turnaround_seconds is None:
        return None
    ended = job.ended_at.astimezone(UTC)
    name = f"{ended:%Y%m%dT%H%M%SZ}_{job.turnaround_seconds:.0f}_{segment(job.state)}_{job.rows}_{short(job.name, length=8)}"
    return f"history/{segment(service)}/{segment(build.model)}/{ended:%Y-%m}/{name}"


def _delete_inputs(desk: Desk, shards: Sequence[Answered]) -> None:
    """Input files go when the job has ended: they fill the project's 20 GB. The service drops them after 48 h anyway.

    So do prompt caches, which cost as long as they are kept.
    """
    files = [name for answered in shards for name in answered.input_files]
    caches = [use.name for answered in shards for use in answered.caches]
    for name in dict.fromkeys(files + caches):
        try:
            desk.gateway.delete_file(name)
        except ServiceError as error:
            desk.log.info("%s was not deleted, which costs nothing: %s", name, error)
