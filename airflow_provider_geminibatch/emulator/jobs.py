"""A batch job: a frozen value whose state, counts and operation are functions of the time.

Nothing runs in the background. What a job is at a moment follows from when it was created, how long it takes (drawn
from the seed), and the scenarios that were on when it was created.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import NormalDist
from typing import Literal

from airflow_provider_geminibatch.emulator.blobs import Blob
from airflow_provider_geminibatch.emulator.clock import timestamp
from airflow_provider_geminibatch.emulator.scenarios import Params
from airflow_provider_geminibatch.emulator.switches import draw_unit
from airflow_provider_geminibatch.emulator.wire import Json

Kind = Literal["generate", "embed"]
Effects = Mapping[str, Params]

EXPIRY = timedelta(hours=48)
ENDED = frozenset({"BATCH_STATE_SUCCEEDED", "BATCH_STATE_FAILED", "BATCH_STATE_CANCELLED", "BATCH_STATE_EXPIRED"})
# Scenarios that turn a row into an error.
FAILING = frozenset({"failed_rows", "all_rows_failed"})
_TYPE = "type.googleapis.com/google.ai.generativelanguage.v1main."
_MESSAGE: Mapping[Kind, str] = {"generate": "GenerateContentBatch", "embed": "EmbedContentBatch"}


@dataclass(frozen=True, slots=True)
class Rows:
    """The requests of a job, one JSON line each, in the order of the input.

    `starts` are the offsets of every thousandth row, `effects` the scenarios of the rows that have any.
    """

    lines: Blob
    count: int
    prompt_tokens: int
    starts: tuple[int, ...] = ()
    effects: Mapping[int, Effects] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        """How many rows end as errors."""
        return sum(not FAILING.isdisjoint(effects) for effects in self.effects.values())


@dataclass(frozen=True, slots=True)
class Job:
    """One batch job. `number` is its place in lists.

    `ordinal` counts the accepted creates from 0; it is -1 for a job of the foreign_job_same_name scenario.
    """

    id: str
    number: int
    ordinal: int
    project: str
    kind: Kind
    model: str
    display_name: str
    input_file: str
    rows: Rows
    created: datetime
    starts: datetime
    ends: datetime
    traits: Effects = field(default_factory=dict)
    priority: int = 0
    cancelled: datetime | None = None
    deleted: datetime | None = None

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
        odd = self.traits.get("unknown_state")
        if odd is not None:
            hours = (now - self.created) / timedelta(hours=1)
            if odd["after"] <= hours < odd["after"] + odd["hours"]:
                return str(odd["state"])
        if now < self.ends:
            return "BATCH_STATE_PENDING" if now < self.starts else "BATCH_STATE_RUNNING"
        if self.ends - self.created >= EXPIRY:
            return "BATCH_STATE_EXPIRED"
        return "BATCH_STATE_FAILED" if "job_failed" in self.traits else "BATCH_STATE_SUCCEEDED"

    def has_output(self, now: datetime) -> bool:
        """Whether its results can be fetched at that time."""
        wait = self.traits.get("output_later_than_succeeded")
        ready = self.ends + timedelta(minutes=wait["minutes"]) if wait else self.ends
        return self.state(now) == "BATCH_STATE_SUCCEEDED" and ready <= now

    def ended_at(self, now: datetime) -> datetime | None:
        """When it ended, or None while it has not."""
        if self.state(now) not in ENDED:
            return None
        return self.cancelled or self.ends

    def stats(self, now: datetime) -> Json:
        """The counts: strings, with zero left out. That they move evenly while a job runs is assumed."""
        moment = min(now, self.cancelled or now)
        done = 0.0
        if self.state(now) == "BATCH_STATE_SUCCEEDED":
            done = 1.0
        elif "never_finishes" not in self.traits and "job_failed" not in self.traits and moment > self.starts:
            done = min((moment - self.starts) / (self.ends - self.starts), 0.99)
        finished = int(self.rows.count * done)
        failed = int(self.rows.failed * done)
        counts = {
            "requestCount": self.rows.count,
            "successfulRequestCount": finished - failed,
            "failedRequestCount": failed,
            "pendingRequestCount": self.rows.count - finished,
        }
        return {name: str(count) for name, count in counts.items() if count}

    def updated(self, now: datetime) -> datetime:
        """The last change: creation, start, end, and every ten minutes of a run that moves."""
        ended = self.ended_at(now)
        if ended is not None:
            return ended
        if now < self.starts:
            return self.created
        step = timedelta(minutes=10)
        return self.starts if "never_finishes" in self.traits else self.starts + (now - self.starts) // step * step

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
            "updateTime": timestamp(self.updated(now)),
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
            return dict(self.traits["job_failed"])
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
    pending = 0.05 + 0.25 * draw_unit(seed, "pending", name)
    return created + total * pending, created + total


def turnaround(seed: int, name: str, hours: tuple[float, float]) -> timedelta:
    """How long a job of that name takes: log-normal, clipped to `hours`.

    The middle is the geometric mean of the bounds, about 4.8 h for 1 to 23, which are four standard deviations apart.
    """
    # A bound of zero means "at once"; a second keeps PENDING and RUNNING apart.
    low, high = (max(bound, 1 / 3600) for bound in hours)
    mean, spread = (math.log(low) + math.log(high)) / 2, (math.log(high) - math.log(low)) / 4
    draw = min(max(draw_unit(seed, "turnaround", name), 1e-9), 1 - 1e-9)
    return timedelta(hours=min(max(math.exp(mean + spread * NormalDist().inv_cdf(draw)), low), high))


__all__ = ["ENDED", "EXPIRY", "FAILING", "Effects", "Job", "Kind", "Rows", "timeline", "turnaround"]
