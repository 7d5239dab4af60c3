"""The vocabulary: the values that travel between the parts of the package.

Times are aware and in UTC, sizes are bytes. Every value is frozen.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec


class StateRow(NamedTuple):
    """What a job state means: has the job ended, did it succeed, can results be read."""

    ended: bool
    succeeded: bool
    readable: bool


# Total over the SDK's JobState and the wire's BATCH_STATE_*; the prefix is cut. PARTIALLY_SUCCEEDED has ended although the
# SDK's ``BatchJob.done`` says otherwise. A state that is not here is waited for (see ``job_state``).
STATES: dict[str, StateRow] = {
    "UNSPECIFIED": StateRow(ended=False, succeeded=False, readable=False),
    "QUEUED": StateRow(ended=False, succeeded=False, readable=False),
    "PENDING": StateRow(ended=False, succeeded=False, readable=False),
    "RUNNING": StateRow(ended=False, succeeded=False, readable=False),
    "CANCELLING": StateRow(ended=False, succeeded=False, readable=False),
    "PAUSED": StateRow(ended=False, succeeded=False, readable=False),
    "UPDATING": StateRow(ended=False, succeeded=False, readable=False),
    "SUCCEEDED": StateRow(ended=True, succeeded=True, readable=True),
    "PARTIALLY_SUCCEEDED": StateRow(ended=True, succeeded=True, readable=True),
    "FAILED": StateRow(ended=True, succeeded=False, readable=False),
    "CANCELLED": StateRow(ended=True, succeeded=False, readable=False),
    "EXPIRED": StateRow(ended=True, succeeded=False, readable=False),
}

UNKNOWN_STATE = StateRow(ended=False, succeeded=False, readable=False)


def state_name(wire: str) -> str:
    """``BATCH_STATE_RUNNING`` or ``JOB_STATE_RUNNING`` as ``RUNNING``; anything else unchanged."""
    return wire.removeprefix("BATCH_STATE_").removeprefix("JOB_STATE_")


def state_row(name: str) -> StateRow:
    """The meaning of a state; an unknown one is waited for, so that it meets the deadline rather than a guess."""
    return STATES.get(name, UNKNOWN_STATE)


class JobCounts(msgspec.Struct, frozen=True):
    """Rows of a job as the service counts them (``batchStats``); list entries may be stale."""

    total: int = 0
    succeeded: int = 0
    failed: int = 0
    pending: int = 0


class JobSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A job as the service showed it once. ``name`` is its resource name in full, ``state`` is without prefix.

    ``input_file`` and ``output_file`` are names that the gateway's ``file`` and ``download`` take.
    """

    name: str
    state: str
    display_name: str = ""
    model: str = ""
    input_file: str = ""
    output_file: str = ""
    created_at: datetime | None = None
    updated_at: datetime | None = None
    ended_at: datetime | None = None
    counts: JobCounts = JobCounts()
    error_code: int | None = None
    error_text: str = ""
    oddity: str = ""
    """Why it cannot be of a create of ours although name, model and input are; empty where nothing speaks against it."""

    @property
    def ended(self) -> bool:
        """True once the service will not change the job any more."""
        return state_row(self.state).ended

    @property
    def readable(self) -> bool:
        """True when results exist to be read, though their file may come a little later than the state.

        A job of Vertex AI that failed, expired or was cancelled may have an output for the rows it came to.
        """
        return state_row(self.state).readable or (self.ended and bool(self.output_file))


class ServiceIdentity(msgspec.Struct, frozen=True):
    """Who answers: route, host, and on Vertex project and location. Never a credential, so a rotated key changes nothing."""

    route: str
    endpoint: str
    project: str = ""
    location: str = ""

    def __str__(self) -> str:
        return " ".join(part for part in (self.route, self.endpoint, self.project, self.location) if part)


class BatchId(msgspec.Struct, frozen=True):
    """The identity of a batch: the task instance that sealed it, without its try number. ``map_index`` is -1 unmapped."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1

    def __str__(self) -> str:
        index = "" if self.map_index < 0 else f"[{self.map_index}]"
        return f"{self.dag_id}.{self.task_id}{index} ({self.run_id})"


class Shard(msgspec.Struct, frozen=True, kw_only=True):
    """One JSONL file of a sealed build.

    A shard lives where it was first sealed (``home``, a build folder relative to the workspace); a later build whose rows are
    equal refers to it. ``content`` is a digest over keys and requests without wire keys: what makes two shards equal.
    Where it begins with ``2:``, what all requests have in common is covered once, and of each what varies.
    """

    home: str
    index: int
    tag: str
    path: str
    keys_path: str
    rows: int
    size_bytes: int
    sha256: str
    keys_sha256: str
    content: str
    media_path: str = ""
    """The list of media that its rows name by their content, and its digest; both empty when there are none."""
    media_sha256: str = ""

    @property
    def generation(self) -> int:
        """The generation that first sealed the shard; a later one may refer to it."""
        return int(self.home.rpartition("/builds/")[0].rpartition("/g")[2])

    @property
    def ledger(self) -> str:
        """The folder of the shard's facts, relative to the workspace: ``…/g0001/s/<build>/<shard>``."""
        generation, _, build = self.home.rpartition("/builds/")
        return f"{generation}/s/{build}/{self.index:04d}"

    def __str__(self) -> str:
        return f"shard {self.index} of build {self.home.rpartition('/')[2]}"


class Build(msgspec.Struct, frozen=True, kw_only=True):
    """A seal: the immutable shards of a batch, and everything that decides what its answers mean."""

    v: int = 1
    id: str
    tag: str
    batch: BatchId
    generation: int
    workspace_id: str
    workspace_uri: str
    kind: str = "generate"
    model: str
    created_at: datetime
    shards: tuple[Shard, ...]
    rows: int
    size_bytes: int
    response_schema: dict[str, Any] | None = None
    dimensions: int | None = None
    """How long the vectors of a batch of embeddings were asked to be, where all requests say the same."""
    columns: tuple[str, ...] = ()
    repair: bool = True
    """Whether answers that are not quite JSON are repaired before they are held against the schema."""
    fingerprint: str = ""
    parent: str | None = None
    digest: str = ""
    sample: str = ""
    """Where a sample of the requests lies, when they are not in the workspace themselves; the path of their shards says where."""


class Outcomes(StrEnum):
    """The seven outcomes; every request gets exactly one."""

    ANSWER = "answer"
    EMPTY = "empty"
    BLOCKED = "blocked"
    TRUNCATED = "truncated"
    INVALID = "invalid"
    FAILED = "failed"
    MISSING = "missing"


class Usage(msgspec.Struct, frozen=True):
    """Tokens by class, as ``usageMetadata`` reports them. Thoughts are billed as output."""

    prompt: int = 0
    candidates: int = 0
    thoughts: int = 0
    cached: int = 0
    total: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt + other.prompt,
            self.candidates + other.candidates,
            self.thoughts + other.thoughts,
            self.cached + other.cached,
            self.total + other.total,
        )


class Owner(msgspec.Struct, frozen=True):
    """Who may replace a window: a task of a Dag, from any of its runs."""

    dag_id: str
    task_id: str
    map_index: int = -1

    def __str__(self) -> str:
        return f"{self.dag_id}.{self.task_id}" + ("" if self.map_index < 0 else f"[{self.map_index}]")
