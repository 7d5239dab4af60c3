"""A job of Vertex AI: its states, its counts and its resource."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from airflow_provider_geminibatch.emulator.jobs import Effects, Job, pending_share, turnaround
from airflow_provider_geminibatch.emulator.results import Output
from airflow_provider_geminibatch.emulator.vertex_shape import Shape
from airflow_provider_geminibatch.emulator.wire import Json

# How long a job may wait, and how long after its start it is cut (both documented).
QUEUE_LIMIT = timedelta(hours=72)
RUN_LIMIT = timedelta(hours=24)
# That cancelling takes a while is documented, how long is assumed.
CANCEL_TAKES = timedelta(minutes=3)
# How long reading the input takes before it fails; assumed.
IMPORT_TAKES = timedelta(minutes=2)
PENDING_FOR = timedelta(minutes=1)
_PREFIX = "JOB_STATE_"
ENDED = frozenset(
    f"{_PREFIX}{state}" for state in ("SUCCEEDED", "PARTIALLY_SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED")
)
# When the documents say that endTime and error are there.
_END_TIMES = frozenset(f"{_PREFIX}{state}" for state in ("SUCCEEDED", "FAILED", "CANCELLED"))
_ERRORS = frozenset(f"{_PREFIX}{state}" for state in ("FAILED", "CANCELLED"))
_CANCELLED: Json = {"code": 1, "message": "CANCELED"}
_CUT: Json = {"code": 4, "message": "The job exceeded its maximum running time of 24 hours."}  # assumed


class Ending(NamedTuple):
    """How a job ends that nobody cancels: its state, the share of its rows that is done by then, and its error."""

    state: str
    done: float
    error: Json | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """What a job left: its output, how many rows it had processed, and where that lies as `outputInfo` says it."""

    output: Output
    rows: int
    info: Json


@dataclass(frozen=True, slots=True)
class VertexJob(Job):
    """One batch prediction job. Its rows are known once it has started and read its input.

    `inputs` and `destination` are URIs, `asked` is the create's body as the resource echoes it, `shape` what the rows look like
    together, `fault` why the input could not be read, `early` where rows lie that it wrote before it ended, `written` what it
    left.
    """

    location: str = ""
    inputs: tuple[str, ...] = ()
    destination: str = ""
    asked: Mapping[str, Any] = field(default_factory=dict)
    shape: Shape | None = None
    fault: Json | None = None
    early: Json | None = None
    written: Written | None = None

    @property
    def parent(self) -> str:
        """Project and location, the project by its number."""
        return f"projects/{self.project}/locations/{self.location}"

    @property
    def name(self) -> str:
        """The resource name."""
        return f"{self.parent}/batchPredictionJobs/{self.id}"

    @property
    def folder(self) -> str:
        """The name of its output folder: the time of its creation in microseconds; no two jobs of the emulator share one."""
        moment = self.created + timedelta(microseconds=self.number)
        return f"prediction-model-{microseconds(moment)}"

    @property
    def expires(self) -> bool:
        """Whether it waits until it expires."""
        return self.starts - self.created >= QUEUE_LIMIT

    @property
    def stopped(self) -> datetime | None:
        """When its cancelling is over; None where nobody cancels it, or it ends before that."""
        over = self.cancelled + CANCEL_TAKES if self.cancelled is not None else self.ends
        return over if over < self.ends else None

    def state(self, now: datetime) -> str:
        """The state on the wire at that time."""
        stopped = self.stopped
        if stopped is not None and self.cancelled is not None and self.cancelled <= now:
            return f"{_PREFIX}CANCELLING" if now < stopped else f"{_PREFIX}CANCELLED"
        odd = self.odd_state(now)
        if odd:
            return odd.replace("BATCH_STATE_", _PREFIX)
        if now >= self.ends:
            return self.ending().state
        if now >= self.starts:
            return f"{_PREFIX}RUNNING"
        # A create replies PENDING, and who asks later sees QUEUED (both seen); from when on is assumed.
        return f"{_PREFIX}PENDING" if now < self.created + PENDING_FOR else f"{_PREFIX}QUEUED"

    def ending(self) -> Ending:
        """How it ends if nobody cancels it."""
        if self.fault is not None:
            return Ending(f"{_PREFIX}FAILED", 0.0, self.fault)
        if self.expires:
            return Ending(f"{_PREFIX}EXPIRED", 0.0)
        if "job_failed" in self.traits:
            failed = self.traits["job_failed"]
            return Ending(f"{_PREFIX}FAILED", failed["done"], {"code": failed["code"], "message": failed["message"]})
        if "unwritable_output" in self.traits:
            return Ending(f"{_PREFIX}FAILED", 1.0, {"code": 7, "message": self._unwritable()})
        if "cut" in self.traits:
            return Ending(str(self.traits["cut"]["state"]), self.traits["cut"]["done"], _CUT)
        if "never_finishes" in self.traits:
            return Ending(f"{_PREFIX}CANCELLED", 0.0, _CUT)
        if "partially_succeeded" in self.traits:
            return Ending(f"{_PREFIX}PARTIALLY_SUCCEEDED", self.traits["partially_succeeded"]["done"])
        return Ending(f"{_PREFIX}SUCCEEDED", 1.0)

    def _unwritable(self) -> str:
        agent = f"service-{self.project}@gcp-sa-aiplatform.iam.gserviceaccount.com"
        place = f"{self.destination.rstrip('/')}/{self.folder}/predictions.jsonl"
        return f'Service account {agent} doesn\'t have sufficient permission "storage.objects.create" to write {place}.'

    def ended_at(self, now: datetime) -> datetime | None:
        """When it ended, or None while it has not."""
        over = self.stopped or self.ends
        return over if over <= now and self.state(now) in ENDED else None

    def done_rows(self, now: datetime) -> int:
        """How many rows are processed by then. What is under way when it is cancelled is not finished (assumed)."""
        ending = self.ending()
        moment = min(now, self.cancelled) if self.stopped and self.cancelled else now
        share = ending.done if moment >= self.ends else ending.done * self.progress(moment)
        return int(self.rows.count * share)

    def is_running(self, now: datetime) -> bool:
        """Whether it is at work on its rows."""
        return self.shape is not None and self.starts <= now < (self.stopped or self.ends)

    def stats(self, now: datetime) -> Json:
        """completionStats: strings, zero left out, and nothing before the input was read.

        That -1 stands for what is not known yet is documented; that it does for the first tenth of the run is assumed.
        """
        if self.shape is None or now < self.starts:
            return {}
        done = self.done_rows(now)
        if self.written is not None and self.ended_at(now):
            good = min(self.written.output.answered, done)
        else:
            good = done - min(int(self.rows.failed * done / self.rows.count), done)
        left = -1 if self.is_running(now) and self.progress(now) < 0.1 else self.rows.count - done
        counts = {"successfulCount": good, "failedCount": done - good, "incompleteCount": left}
        return {"completionStats": {name: str(count) for name, count in counts.items() if count}}

    def shown(self, now: datetime) -> Json:
        """The resource, as the control API shows it too."""
        return self.resource(now)

    def resource(self, now: datetime, *, stale: bool = False) -> Json:
        """The BatchPredictionJob at that time, `stale` with the counts of the beginning."""
        state, ended = self.state(now), self.ended_at(now)
        error = (_CANCELLED if self.stopped else self.ending().error) if ended else None
        started = now >= self.starts and not self.expires and (self.stopped is None or self.starts < self.stopped)
        info = self.output_info(now)
        return {
            "name": self.name,
            **self.asked,
            "modelVersionId": "1",
            "state": state,
            "createTime": microseconds(self.created),
            **({"startTime": microseconds(self.starts)} if started else {}),
            **({"endTime": microseconds(ended)} if ended and state in _END_TIMES else {}),
            "updateTime": microseconds(
                self.cancelled if state.endswith("CANCELLING") and self.cancelled else self.updated(now, ended)
            ),
            **({"error": dict(error)} if error and state in _ERRORS else {}),
            **({"outputInfo": info} if info else {}),
            **self.stats(self.created if stale else now),
        }

    def output_info(self, now: datetime) -> Json | None:
        """Where its output lies, once there is one to be seen."""
        ended = self.ended_at(now)
        if ended is not None and not self.output_ready(ended, now):
            return None
        return self.written.info if self.written is not None else self.early


def timeline(
    seed: int, name: str, hours: tuple[float, float], traits: Effects, created: datetime
) -> tuple[datetime, datetime]:
    """When a job of that name starts to run and when it ends, at the latest by expiring or by being cut.

    Of a `late` job that part is waiting which does not fit into a run.
    """
    total = turnaround(seed, name, hours)
    waits = total * pending_share(seed, name)
    runs = total - waits
    if "late" in traits:
        total = timedelta(hours=traits["late"]["hours"])
        runs = min(total * (1 - pending_share(seed, name)), RUN_LIMIT * 0.9)
        waits = total - runs
    if "queued" in traits:
        waits = timedelta(hours=traits["queued"]["hours"])
    if "never_finishes" in traits or "cut" in traits:
        runs = RUN_LIMIT
    if waits >= QUEUE_LIMIT:
        return created + QUEUE_LIMIT, created + QUEUE_LIMIT
    return created + waits, created + waits + min(runs, RUN_LIMIT)


def microseconds(moment: datetime) -> str:
    """A time as this wire writes it: RFC 3339 in UTC with six digits of second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "Z"


__all__ = [
    "CANCEL_TAKES",
    "ENDED",
    "IMPORT_TAKES",
    "QUEUE_LIMIT",
    "RUN_LIMIT",
    "VertexJob",
    "Written",
    "microseconds",
    "timeline",
]
