"""The batch endpoints of the Developer API: create, get, list, cancel, delete."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from airflow_provider_geminibatch.emulator.billing import Charge
from airflow_provider_geminibatch.emulator.blobs import Blob
from airflow_provider_geminibatch.emulator.caches import Caches
from airflow_provider_geminibatch.emulator.catalog import Limits, find_model
from airflow_provider_geminibatch.emulator.developer_jobs import ENDED, DeveloperJob, timeline
from airflow_provider_geminibatch.emulator.files import Files, StoredFile
from airflow_provider_geminibatch.emulator.intake import read_file, read_inline
from airflow_provider_geminibatch.emulator.jobs import Kind, Rows
from airflow_provider_geminibatch.emulator.names import Names
from airflow_provider_geminibatch.emulator.parsing import check_body, field
from airflow_provider_geminibatch.emulator.register import Register
from airflow_provider_geminibatch.emulator.results import Output, render
from airflow_provider_geminibatch.emulator.wire import Call, Dropped, Json, Reply, over_quota, refused

_METHODS: dict[str, tuple[Kind, str]] = {
    "batchGenerateContent": ("generate", "GenerateCreate"),
    "asyncBatchEmbedContent": ("embed", "EmbedCreate"),
}


class Batches:
    """The endpoints on the Developer API's jobs of all projects."""

    def __init__(
        self,
        seed: int,
        names: Names,
        register: Register,
        limits: Limits,
        files: Files,
        caches: Caches,
        turnaround_hours: tuple[float, float],
        folder: Path | None,
    ) -> None:
        self._seed, self._names, self._register, self._limits = seed, names, register, limits
        self._files, self._caches, self._hours, self._folder = files, caches, turnaround_hours, folder
        self._outputs: dict[str, Output] = {}

    def create(self, call: Call) -> Reply:
        """batches.create: parse everything now, then make a job, as often as asked (documented)."""
        if self._register.is_dropped():
            lost: Json = field(call.request.json(), "batch", {})
            self._leave_foreign(call, field(lost, "displayName", ""), call.params["model"])
            raise Dropped
        kind, shape = _METHODS[call.params["method"]]
        model = self._model(call)
        body = call.request.json()
        check_body(body, shape)
        batch: Json = field(body, "batch", {})
        name: str = field(batch, "displayName", "")
        rows, input_file = self._rows(call, kind, field(batch, "inputConfig", {}), name)
        if any("opaque_refusal" in effects for effects in rows.effects.values()):
            raise refused("bad_argument")
        self._check_quota(call, model, rows)
        self._leave_foreign(call, name, model)
        job = self._new(call, model, name, input_file, rows, self._register.ordinal)
        job = replace(job, kind=kind, priority=int(field(batch, "priority", 0)))
        self._register.accept(job)
        return Reply(body=self._shown(job, call.now))

    def get(self, call: Call) -> Reply:
        """batches.get, with the results of inline requests."""
        return Reply(body=self._shown(self._found(call), call.now))

    def list_(self, call: Call) -> Reply:
        """batches.list, without the results of inline requests. `filter` is not read."""
        mine = [job for job in self._register.of(DeveloperJob) if job.project == call.project]
        page, token = self._register.page(call, mine)
        stale = self._register.shows_stale_stats()
        shown = [job.operation(call.now, self._output(job, call.now, inline=False), stale=stale) for job in page]
        return Reply(body={**({"operations": shown} if shown else {}), **token})

    def cancel(self, call: Call) -> Reply:
        """batches.cancel: terminal at once and without results (as probed); nothing for a job that has ended."""
        job = self._found(call)
        if job.state(call.now) not in ENDED:
            self._register.put(replace(job, cancelled=call.now))
        return Reply(body={})

    def delete(self, call: Call) -> Reply:
        """batches.delete: out of sight. That it also stops the job is assumed: the documents disagree."""
        job = self._found(call)
        stopped = None if job.state(call.now) in ENDED else call.now
        self._register.put(replace(job, deleted=call.now, cancelled=job.cancelled or stopped))
        return Reply(body={})

    def generated(self, project: str, now: datetime, file_id: str) -> Iterator[StoredFile]:
        """The result files of a project at that time, or the one of an id."""
        one = self._register.get(file_id.removeprefix("batch-"), DeveloperJob)
        for job in [one] if one else () if file_id else self._register.of(DeveloperJob):
            if job.project == project and job.output_file and job.has_output(now):
                blob = self.output(job).lines
                yield StoredFile(
                    f"batch-{job.id}", job.number, project, "", "application/jsonl", job.ends, blob, job.name
                )

    def output(self, job: DeveloperJob) -> Output:
        """The output of a job, rendered when it is first wanted."""
        if job.id not in self._outputs:
            # Media have to outlive the processing; that every row is processed at the very end is assumed, and the worst case.
            self._outputs[job.id] = render(
                job, self._seed, self._folder, lambda file_id: self._files.unusable(job.project, file_id, job.ends),
                lambda request: self._caches.merge(job.project, job.ends, request),
            )  # fmt: skip
        return self._outputs[job.id]

    def charges(self, now: datetime) -> Iterator[Charge]:
        """What the jobs that ended well cost; that cancelled and expired ones cost nothing is assumed."""
        for job in self._register.of(DeveloperJob):
            if job.ordinal >= 0 and job.state(now) == "BATCH_STATE_SUCCEEDED":
                output = self.output(job)
                yield Charge(
                    "batch",
                    job.model,
                    job.created,
                    output.answered,
                    output.prompt_tokens,
                    output.output_tokens,
                    output.cached_tokens,
                )

    def _model(self, call: Call) -> str:
        name, method = call.params["model"], call.params["method"]
        model = find_model(name, call.version)
        if model is None or method not in model.methods:
            raise refused("no_model", model=name, version=call.version, method=method)
        return model.name

    def _rows(self, call: Call, kind: Kind, config: Json, display_name: str) -> tuple[Rows, str]:
        file_name, inlined = field(config, "fileName", ""), field(config, "requests")
        if bool(file_name) == bool(inlined):
            raise refused("no_source")
        choose = self._register.chooser(display_name)
        if file_name:
            return read_file(self._files.open_input(call, file_name), kind, choose), file_name
        if len(call.request.body) > self._limits.inline_bytes:
            raise refused("big_body", limit=self._limits.inline_bytes)
        return read_inline(inlined.get("requests") or (), choose, self._folder), ""

    def _check_quota(self, call: Call, model: str, rows: Rows) -> None:
        mine = (job for job in self._register.of(DeveloperJob) if job.project == call.project)
        active = [job for job in mine if job.state(call.now) not in ENDED]
        queued = sum(job.rows.prompt_tokens for job in active if job.model == model)
        found = find_model(model, call.version)
        full = found is not None and queued + rows.prompt_tokens > self._limits.queue_of(found)
        if full or len(active) >= self._limits.concurrent_jobs:
            raise over_quota()

    def _new(self, call: Call, model: str, name: str, input_file: str, rows: Rows, ordinal: int) -> DeveloperJob:
        traits = self._register.traits(name) if ordinal >= 0 else {}
        starts, ends = timeline(self._seed, name or str(ordinal), self._hours, traits, call.now)
        return DeveloperJob(
            self._names.make("batch", 36), self._names.number(), ordinal, call.project, "generate", model, name, input_file, rows,
            created=call.now, starts=starts, ends=ends, traits=traits,
        )  # fmt: skip

    def _leave_foreign(self, call: Call, name: str, model: str) -> None:
        """Somebody else's job of the same name, from another file, where that scenario is on."""
        params = self._register.namesake(name)
        if params is None:
            return
        blob = Blob()
        blob.append(b'{"key":"foreign","request":{"contents":[{"parts":[{"text":"foreign"}]}]}}\n')
        input_file = f"files/{self._names.make('foreign', 12)}"
        self._register.put(self._new(call, params["model"] or model, name, input_file, Rows(blob, 1, 2, (0,)), -1))

    def _found(self, call: Call) -> DeveloperJob:
        job = self._register.get(call.params["id"], DeveloperJob)
        if job is None or job.deleted or job.project != call.project:
            raise refused("no_batch")
        return job

    def _shown(self, job: DeveloperJob, now: datetime) -> Json:
        return job.operation(now, self._output(job, now, inline=True))

    def _output(self, job: DeveloperJob, now: datetime, *, inline: bool) -> Json | None:
        """What `output` says: the name of the result file, or the inline responses where they are wanted."""
        if not job.has_output(now):
            return None
        if job.output_file:
            return {"responsesFile": job.output_file}
        if not inline:
            return None
        responses = [json.loads(line) for _, line in self.output(job).lines.lines()]
        return {"inlinedResponses": {"inlinedResponses": responses}}


__all__ = ["Batches"]
