"""A job of the Developer API: its states, its counts and its operation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from airflow_provider_geminibatch.emulator.clock import timestamp
from airflow_provider_geminibatch.emulator.jobs import Effects, Job, Kind, pending_share, turnaround
from airflow_provider_geminibatch.emulator.wire import Json

EXPIRY = timedelta(hours=48)
ENDED = frozenset({"BATCH_STATE_SUCCEEDED", "BATCH_STATE_FAILED", "BATCH_STATE_CANCELLED", "BATCH_STATE_EXPIRED"})
_TYPE = "type.googleapis.com/google.ai.generativelanguage.v1main."
_MESSAGE: Mapping[Kind, str] = {"generate": "GenerateContentBatch", "embed": "EmbedContentBatch"}


@dataclass(frozen=True, slots=True)
class DeveloperJob(Job):
    """One batch of the Developer API. Cancelling it is terminal at once, and it expires 48 h after its creation."""

    priority: int = 0

    @property
    def name(self) -> str:
        """The resource name."""
        return f"batches/{self.id}"

    @property
    def output_file(self) -> str:
        """The name that its result file has or will have; empty for inline requests."""
        return f"files/batch-{self.id}" if self.input_file else ""

    def state(self, now: datetime) -> str:
        """The state on the wire at that time."""
        if self.cancelled is not None and self.cancelled <= now:
            return "BATCH_STATE_CANCELLED"
        odd = self.odd_state(now)
        if odd:
            return odd
        if now < self.ends:
            return "BATCH_STATE_PENDING" if now < self.starts else "BATCH_STATE_RUNNING"
        if self.ends - self.created >= EXPIRY:
            return "BATCH_STATE_EXPIRED"
        return "BATCH_STATE_FAILED" if "job_failed" in self.traits else "BATCH_STATE_SUCCEEDED"

    def has_output(self, now: datetime) -> bool:
        """Whether its results can be fetched at that time."""
        return self.state(now) == "BATCH_STATE_SUCCEEDED" and self.output_ready(self.ends, now)

    def ended_at(self, now: datetime) -> datetime | None:
        """When it ended, or None while it has not."""
        if self.state(now) not in ENDED:
            return None
        return self.cancelled or self.ends

    def stats(self, now: datetime) -> Json:
        """The counts: strings, with zero left out."""
        succeeded = self.state(now) == "BATCH_STATE_SUCCEEDED"
        done = 1.0 if succeeded else self.progress(min(now, self.cancelled or now))
        finished = int(self.rows.count * done)
        failed = int(self.rows.failed * done)
        counts = {
            "requestCount": self.rows.count,
            "successfulRequestCount": finished - failed,
            "failedRequestCount": failed,
            "pendingRequestCount": self.rows.count - finished,
        }
        return {name: str(count) for name, count in counts.items() if count}

    def shown(self, now: datetime) -> Json:
        """The metadata of its operation."""
        metadata: Json = self.operation(now, None)["metadata"]
        return metadata

    def operation(self, now: datetime, output: Json | None, *, stale: bool = False) -> Json:
        """The operation at that time; `output` where it is to be shown, `stale` with the counts of the beginning."""
        message = _MESSAGE[self.kind]
        ended = self.ended_at(now)
        hidden = "output_only_in_response" in self.traits
        metadata: Json = {
            "@type": _TYPE + message,
            "model": f"models/{self.model}",
            **({"displayName": self.display_name} if self.display_name else {}),
            **({"inputConfig": {"fileName": self.input_file}} if self.input_file else {}),
            **({"output": output} if output and not hidden else {}),
            "createTime": timestamp(self.created),
            **({"endTime": timestamp(ended)} if ended else {}),
            "updateTime": timestamp(self.updated(now, ended)),
            "batchStats": self.stats(self.created if stale else now),
            "state": self.state(now),
            **({"priority": str(self.priority)} if self.priority else {}),
            "name": self.name,
        }
        operation: Json = {"name": self.name, "metadata": metadata}
        if ended is None:
            return operation
        operation["done"] = True
        error = self._error(now)
        if error:
            operation["error"] = error
        elif output:
            operation["response"] = {"@type": f"{_TYPE}{message}Output", **output}
        return operation

    def _error(self, now: datetime) -> Json | None:
        """The google.rpc status of a job that was cancelled (documented) or failed (its text is assumed)."""
        state = self.state(now)
        if state == "BATCH_STATE_CANCELLED":
            return {"code": 1, "message": "The operation was cancelled."}
        if state == "BATCH_STATE_FAILED":
            failed = self.traits["job_failed"]
            return {"code": failed["code"], "message": failed["message"]}
        # What an expired job carries is unknown, so nothing is made up.
        return None


def timeline(
    seed: int, name: str, hours: tuple[float, float], traits: Effects, created: datetime
) -> tuple[datetime, datetime]:
    """When a job of that name starts and when it ends, at the latest by expiring."""
    total = turnaround(seed, name, hours)
    if "late" in traits:
        total = timedelta(hours=traits["late"]["hours"])
    if "never_finishes" in traits or total > EXPIRY:
        total = EXPIRY
    return created + total * pending_share(seed, name), created + total


__all__ = ["ENDED", "EXPIRY", "DeveloperJob", "timeline"]
