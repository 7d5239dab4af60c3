"""A batch job: a frozen value whose state and progress are functions of the time.

Nothing runs in the background. What a job is at a moment follows from when it was created, how long it takes (drawn
from the seed), and the scenarios that were on when it was created. What is particular to a wire is in `developer_jobs`
and `vertex_jobs`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import NormalDist
from typing import Literal

from airflow_provider_geminibatch.emulator.blobs import Blob
from airflow_provider_geminibatch.emulator.scenarios import Params
from airflow_provider_geminibatch.emulator.switches import draw_unit
from airflow_provider_geminibatch.emulator.wire import Json

Kind = Literal["generate", "embed"]
Effects = Mapping[str, Params]

# Scenarios that turn a row into an error.
FAILING = frozenset({"failed_rows", "all_rows_failed"})
# Scenarios in which no row is done before the end.
_STANDING = frozenset({"never_finishes", "job_failed"})


@dataclass(frozen=True, slots=True)
class Rows:
    """The requests of a job, one JSON line each, in the order of the input.

    `starts` are the offsets of every thousandth row, or of each; `effects` the scenarios of the rows that have any.
    """

    lines: Blob
    count: int
    prompt_tokens: int
    starts: Sequence[int] = ()
    effects: Mapping[int, Effects] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        """How many rows end as errors."""
        return sum(not FAILING.isdisjoint(effects) for effects in self.effects.values())


@dataclass(frozen=True, slots=True)
class Job(ABC):
    """One batch job. `number` is its place in lists.

    `ordinal` counts the accepted creates of both wires from 0; it is -1 for a job of the foreign_job_same_name scenario.
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
    cancelled: datetime | None = None
    deleted: datetime | None = None

    @property
    @abstractmethod
    def name(self) -> str:
        """The resource name."""

    @abstractmethod
    def state(self, now: datetime) -> str:
        """The state on the wire at that time."""

    @abstractmethod
    def shown(self, now: datetime) -> Json:
        """What the control API shows of it: the job as its wire does, without results."""

    def odd_state(self, now: datetime) -> str:
        """The state that the unknown_state scenario says it has, empty when it has an ordinary one."""
        odd = self.traits.get("unknown_state")
        if odd is None:
            return ""
        hours = (now - self.created) / timedelta(hours=1)
        return str(odd["state"]) if odd["after"] <= hours < odd["after"] + odd["hours"] else ""

    def is_listed(self, now: datetime) -> bool:
        """Whether lists show it."""
        late = self.traits.get("listed_late")
        return self.deleted is None and (late is None or now >= self.created + timedelta(hours=late["hours"]))

    def output_ready(self, ended: datetime, now: datetime) -> bool:
        """Whether what it left when it ended can be seen by now."""
        wait = self.traits.get("output_later_than_succeeded")
        return ended + timedelta(minutes=wait["minutes"] if wait else 0) <= now

    def progress(self, now: datetime) -> float:
        """The share of its run that lies behind, below one; that rows are done evenly over it is assumed."""
        if now <= self.starts or not _STANDING.isdisjoint(self.traits):
            return 0.0
        return min((now - self.starts) / (self.ends - self.starts), 0.99)

    def updated(self, now: datetime, ended: datetime | None) -> datetime:
        """The last change: creation, start, end, and every ten minutes of a run that moves."""
        if ended is not None:
            return ended
        if now < self.starts:
            return self.created
        step = timedelta(minutes=10)
        return self.starts if "never_finishes" in self.traits else self.starts + (now - self.starts) // step * step


def pending_share(seed: int, name: str) -> float:
    """How much of its time a job of that name waits."""
    return 0.05 + 0.25 * draw_unit(seed, "pending", name)


def turnaround(seed: int, name: str, hours: tuple[float, float]) -> timedelta:
    """How long a job of that name takes: log-normal, clipped to `hours`.

    The middle is the geometric mean of the bounds, about 4.8 h for 1 to 23, which are four standard deviations apart.
    """
    # A bound of zero means "at once"; a second keeps PENDING and RUNNING apart.
    low, high = (max(bound, 1 / 3600) for bound in hours)
    mean, spread = (math.log(low) + math.log(high)) / 2, (math.log(high) - math.log(low)) / 4
    draw = min(max(draw_unit(seed, "turnaround", name), 1e-9), 1 - 1e-9)
    return timedelta(hours=min(max(math.exp(mean + spread * NormalDist().inv_cdf(draw)), low), high))


__all__ = ["FAILING", "Effects", "Job", "Kind", "Rows", "pending_share", "turnaround"]
