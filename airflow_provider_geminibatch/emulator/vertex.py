"""The batch prediction jobs of Vertex AI: create, get, list, cancel, delete, and what they read and write in time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from airflow_provider_geminibatch.emulator.billing import Charge
from airflow_provider_geminibatch.emulator.blobs import Blob
from airflow_provider_geminibatch.emulator.catalog import Limits
from airflow_provider_geminibatch.emulator.filters import read_filter
from airflow_provider_geminibatch.emulator.jobs import Rows
from airflow_provider_geminibatch.emulator.names import Names
from airflow_provider_geminibatch.emulator.parsing import field
from airflow_provider_geminibatch.emulator.register import Register
from airflow_provider_geminibatch.emulator.results import written
from airflow_provider_geminibatch.emulator.vertex_create import Asked, read_create
from airflow_provider_geminibatch.emulator.vertex_jobs import (
    ENDED,
    IMPORT_TAKES,
    VertexJob,
    Written,
    microseconds,
    timeline,
)
from airflow_provider_geminibatch.emulator.vertex_places import Destination, Places, scheme_of
from airflow_provider_geminibatch.emulator.vertex_results import Look, lines
from airflow_provider_geminibatch.emulator.vertex_shape import Chooser, Unimportable, read_rows
from airflow_provider_geminibatch.emulator.vertex_wire import vertex_refused
from airflow_provider_geminibatch.emulator.wire import Call, Dropped, Json, Reply

_DELETED = "type.googleapis.com/google.cloud.aiplatform.v1beta1.DeleteOperationMetadata"
_NOTHING = "type.googleapis.com/google.protobuf.Empty"


class Vertex:
    """The endpoints on Vertex AI's jobs of all projects and locations.

    A job reads its input when it starts and writes its output when it ends, by the clock: `settle` does what is due, and
    is called before every call to the emulator, so that nothing can change in between.
    """

    def __init__(
        self,
        seed: int,
        names: Names,
        register: Register,
        limits: Limits,
        places: Places,
        look: Look,
        turnaround_hours: tuple[float, float],
        elsewhere: Mapping[str, Sequence[str]],
    ) -> None:
        self._seed, self._names, self._register, self._limits = seed, names, register, limits
        self._places, self._look, self._hours, self._elsewhere = places, look, turnaround_hours, elsewhere
        # What jobs still have to do by the clock, and which scenarios their rows will have.
        self._due: dict[str, Chooser] = {}

    def create(self, call: Call) -> Reply:
        """vertex.create: make a job, as often as asked; its input is looked at when it starts."""
        body = call.request.json()
        if self._register.is_dropped():
            self._leave_foreign(call, body)
            raise Dropped
        schemes = (self._places.sources, self._places.destinations)
        asked = read_create(body, call.params["location"], self._elsewhere, schemes)
        self._leave_foreign(call, body)
        job = self._new(call, asked, self._register.ordinal)
        self._due[job.id] = self._register.chooser(asked.display_name)
        self._register.accept(job)
        return Reply(body=job.resource(call.now))

    def get(self, call: Call) -> Reply:
        """vertex.get."""
        return Reply(body=self._found(call).resource(call.now))

    def list_(self, call: Call) -> Reply:
        """vertex.list, of one location, with a filter."""
        suits = read_filter(call.request.query.get("filter", ""))
        here = (job for job in self._register.of(VertexJob) if _place(job) == _asked_place(call))
        page, token = self._register.page(call, [job for job in here if suits(_fields(job, call.now))])
        stale = self._register.shows_stale_stats()
        shown = [job.resource(call.now, stale=stale) for job in page]
        return Reply(body={**({"batchPredictionJobs": shown} if shown else {}), **token})

    def cancel(self, call: Call) -> Reply:
        """vertex.cancel: begins to cancel. Of a job that has ended it is refused (seen of a failed one)."""
        job = self._found(call)
        state = job.state(call.now)
        if state in ENDED:
            raise vertex_refused("ended", state=state)
        if job.cancelled is None:
            self._register.put(replace(job, cancelled=call.now))
        return Reply(body={})

    def delete(self, call: Call) -> Reply:
        """vertex.delete: of a job that has ended, by an operation that is done at once (assumed). Its output stays."""
        job = self._found(call)
        state = job.state(call.now)
        if state not in ENDED:
            raise vertex_refused("not_ended", state=state)
        self._register.put(replace(job, deleted=call.now))
        times = {"createTime": microseconds(call.now), "updateTime": microseconds(call.now)}
        return Reply(
            body={
                "name": f"{job.parent}/operations/{self._number()}",
                "metadata": {"@type": _DELETED, "genericMetadata": times},
                "done": True,
                "response": {"@type": _NOTHING},
            }
        )

    def settle(self, now: datetime) -> None:
        """Let every job read and write what is due by then."""
        for job_id, choose in list(self._due.items()):
            job = self._register.get(job_id, VertexJob)
            if job is None or job.starts > now:
                if job is None or (job.stopped is not None and job.stopped <= now):
                    del self._due[job_id]
                continue
            done = self._written(self._early(self._imported(job, choose), now), now)
            if done is not job:
                self._register.put(done)
            if done.state(now) in ENDED and (done.written is not None or not done.done_rows(now)):
                del self._due[job_id]

    def charges(self, now: datetime) -> Iterator[Charge]:
        """What the rows cost that jobs were done with, however they ended (documented of cancelled jobs)."""
        for job in self._register.of(VertexJob):
            if job.ordinal >= 0 and job.written is not None:
                output = job.written.output
                yield Charge(
                    "batch", job.model, job.created, output.answered, output.prompt_tokens, output.output_tokens
                )

    def _imported(self, job: VertexJob, choose: Chooser) -> VertexJob:
        """The job with the rows of its input, or with what is wrong with that."""
        if job.shape is not None or job.fault is not None or job.expires or job.ordinal < 0:
            return job
        if job.stopped is not None and job.stopped <= job.starts:
            return job
        most = self._limits.vertex_rows if job.kind == "generate" else self._limits.vertex_embedding_rows
        try:
            self._destination(job).check()
            rows, shape = read_rows(self._places.sources[scheme_of(job.input_file)](job.inputs).read(), most, choose)
        except Unimportable as reason:
            return self._failed(job, reason)
        return replace(job, rows=rows, shape=shape)

    def _failed(self, job: VertexJob, reason: Unimportable) -> VertexJob:
        fault = {"code": reason.code, "message": reason.message}
        return replace(job, fault=fault, ends=min(job.ends, job.starts + IMPORT_TAKES), rows=_no_rows(), shape=None)

    def _early(self, job: VertexJob, now: datetime) -> VertexJob:
        """The job with the rows that it shows while it runs, from the middle of its run on, where a scenario says so."""
        if "incremental_output" not in job.traits or job.early is not None or job.shape is None:
            return job
        rows = job.done_rows(now)
        if not job.is_running(now) or job.progress(now) < 0.5 or not rows:
            return job
        destination = self._destination(job)
        output = written(lines(job, job.shape, self._seed, rows, self._look), destination.blob())
        return replace(job, early=destination.write_early(output.lines, job.folder))

    def _written(self, job: VertexJob, now: datetime) -> VertexJob:
        """The job with what it leaves, once it has ended and that can be seen."""
        ended = job.ended_at(now)
        rows = job.done_rows(now)
        if (
            job.written is not None
            or ended is None
            or job.shape is None
            or not rows
            or not job.output_ready(ended, now)
        ):
            return job
        destination = self._destination(job)
        try:
            destination.check()
            output = written(lines(job, job.shape, self._seed, rows, self._look), destination.blob())
            if "unwritable_output" in job.traits:
                info = {"gcsOutputDirectory": f"{job.destination.rstrip('/')}/{job.folder}"}
            else:
                info = destination.write(output.lines, job.folder, job.traits)
        except Unimportable as reason:
            return replace(self._failed(job, reason), ends=job.ends)
        return replace(job, written=Written(output, rows, info))

    def _destination(self, job: VertexJob) -> Destination:
        return self._places.destinations[scheme_of(job.destination)](job.destination)

    def _new(self, call: Call, asked: Asked, ordinal: int) -> VertexJob:
        traits = self._register.traits(asked.display_name) if ordinal >= 0 else {}
        name = asked.display_name or str(ordinal)
        starts, ends = timeline(self._seed, name, self._hours, traits, call.now)
        return VertexJob(
            self._number(), self._names.number(), ordinal, call.project, asked.kind, asked.model, asked.display_name,
            asked.sources[0], _no_rows(), created=call.now, starts=starts, ends=ends, traits=traits,
            location=call.params["location"], inputs=asked.sources, destination=asked.destination, asked=asked.echo,
        )  # fmt: skip

    def _number(self) -> str:
        return str(10**18 + int(self._names.make("vertex", 12), 36) % (9 * 10**18))

    def _leave_foreign(self, call: Call, body: Json) -> None:
        """Somebody else's job of the same name, from another object, where that scenario is on. It is never read."""
        name = field(body, "displayName", "")
        params = self._register.namesake(name)
        if params is None:
            return
        place = f"gs://foreign-{self._names.make('foreign', 12)}/"
        model = params["model"] or str(field(body, "model", "")).rpartition("/")[2]
        source = {"instancesFormat": "jsonl", "gcsSource": {"uris": [f"{place}in.jsonl"]}}
        target = {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": f"{place}out"}}
        echo = {"displayName": name, "model": f"publishers/google/models/{model}"}
        asked = Asked("generate", model, name, (f"{place}in.jsonl",), f"{place}out", {
            **echo, "inputConfig": source, "outputConfig": target,
        })  # fmt: skip
        self._register.put(self._new(call, asked, -1))

    def _found(self, call: Call) -> VertexJob:
        job = self._register.get(call.params["id"], VertexJob)
        if job is None or job.deleted or _place(job) != _asked_place(call):
            raise vertex_refused("no_job")
        return job


def _no_rows() -> Rows:
    return Rows(Blob(), 0, 0)


def _place(job: VertexJob) -> tuple[str, str]:
    return job.project, job.location


def _asked_place(call: Call) -> tuple[str, str]:
    return call.project, call.params["location"]


def _fields(job: VertexJob, now: datetime) -> Mapping[str, Any]:
    """What a filter can ask about."""
    return {
        "display_name": job.display_name,
        "model_display_name": job.model,
        "state": job.state(now),
        "create_time": job.created,
        "labels": job.asked.get("labels", {}),
    }


__all__ = ["Vertex"]
