"""A landing: where windows of outcomes lie for others to read. The layout, the manifest that is the commit, who may replace it.

<landing>/window=<key>/part-00000-<commit>.parquet
<landing>/window=<key>/_manifest.json                 the commit: written last, replaced whole
<landing>/_rejected/window=<key>/…                    the same for what is outside its thresholds
<landing>/_early/window=<key>/…                       the same for what there is before a window is complete
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import msgspec

from airflow_provider_geminibatch.core import prices
from airflow_provider_geminibatch.core.errors import NotOwner, Unusable
from airflow_provider_geminibatch.core.ledger import Fact
from airflow_provider_geminibatch.core.model import BatchId, Owner, Usage
from airflow_provider_geminibatch.core.names import generation_path, segment, short
from airflow_provider_geminibatch.core.reconcile import LineCounts
from airflow_provider_geminibatch.core.verdict import Thresholds, Verdicts

FORMATS = ("parquet", "jsonl")
MANIFEST = "_manifest.json"
REJECTED = "_rejected/"
EARLY = "_early/"

ROW_FORMAT = 2
"""Moves when the columns of a part change, so that a commit id never stands for two contents."""


class Place(msgspec.Struct, frozen=True):
    """Where to land: a name for people and assets, the URI of the folder, and the format of the parts."""

    name: str
    uri: str
    format: str = "parquet"

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise Unusable(
                f"format={self.format!r}", "no such format of a landing", f"Write one of {', '.join(FORMATS)}."
            )


class RunRef(msgspec.Struct, frozen=True):
    """The task instance that committed, with its try."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    try_number: int = 0


class Part(msgspec.Struct, frozen=True):
    """One file of a commit; ``path`` is its name beside the manifest."""

    path: str
    size_bytes: int
    sha256: str
    rows: int


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """A batch whose answers are in a commit: its generation, its build and the seal of results that was used."""

    batch: BatchId
    generation: int
    build: str
    seal: int
    workspace: str

    @property
    def path(self) -> str:
        """The folder of the generation, relative to its workspace."""
        return generation_path(self.batch, self.generation)


class JobRef(msgspec.Struct, frozen=True, kw_only=True):
    """A job behind a commit, and how it ended."""

    name: str
    shard: str
    rows: int
    state: str
    created_at: datetime | None = None
    ended_at: datetime | None = None
    error: str = ""

    @property
    def turnaround_seconds(self) -> float | None:
        """From submission to end, by the service's clock."""
        if self.created_at is None or self.ended_at is None:
            return None
        return max(0.0, (self.ended_at - self.created_at).total_seconds())


class Acceptance(msgspec.Struct, frozen=True):
    """A person's decision to take a rejected commit after all."""

    by: str
    reason: str
    at: datetime


class CommitManifest(msgspec.Struct, frozen=True, kw_only=True):
    """``_manifest.json``. ``replaces`` names the parts of the commit before, which are deleted after this one stands."""

    v: int = 1
    landing: str
    window: str
    commit: str
    format: str
    parts: tuple[Part, ...]
    rows: int
    counts: dict[str, int]
    lines: LineCounts
    complete: bool
    verdict: Verdicts
    numbers: str
    thresholds: Thresholds
    owner: Owner
    run: RunRef
    origins: tuple[Origin, ...]
    jobs: tuple[JobRef, ...]
    strays: tuple[JobRef, ...] = ()
    models: tuple[str, ...]
    tokens: Usage
    """Of every line of the results: also one that repeats another or belongs to no row may be on the bill."""
    cost_usd: str | None
    """What ``tokens`` cost, as decimal text; None when a model has no known price, which is not zero."""
    strays_cost_usd: str | None = None
    price_as_of: str = ""
    """What stands for the prices that were counted by."""
    price_sources: tuple[str, ...] = ()
    """Where they are from, for people."""
    estimated_usd: dict[str, str | None] | None = None
    """What the root builds were estimated to cost before they were sent: low, expected and high."""
    submitted_at: datetime | None = None
    finished_at: datetime | None = None
    committed_at: datetime
    turnaround_s: dict[str, float] = {}
    replaces: tuple[str, ...] = ()
    acceptance: Acceptance | None = None

    @property
    def passes(self) -> bool:
        """True when chains move on from it."""
        return self.complete and self.verdict is Verdicts.ACCEPTED

    @property
    def rejected(self) -> bool:
        return self.verdict is Verdicts.REJECTED

    @property
    def early(self) -> bool:
        """True for what was committed before the window is complete."""
        return not self.complete and self.verdict is Verdicts.PARTIAL_BY_POLICY

    @property
    def folder(self) -> str:
        """Where it lies, relative to the landing."""
        return window_folder(self.window, rejected=self.rejected, early=self.early)


class ShardResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a shard came to: a result file by its digest, or why there is none."""

    shard: str
    attempt: int
    job: str = ""
    path: str = ""
    sha256: str = ""
    failure: str = ""


class ResultsSeal(Fact, frozen=True, kw_only=True):
    """``seals/NN.json``: the results that a commit is made from, decided once."""

    build: str
    results: tuple[ShardResult, ...]


class Committing(Fact, frozen=True, kw_only=True):
    """``commits/<id>.json``: the parts are written; the manifest comes next."""

    landing: str
    window: str
    commit: str
    parts: tuple[Part, ...]


class Committed(Fact, frozen=True, kw_only=True):
    """``commits/<id>.done``: the manifest stood, and what it replaced is gone."""

    landing: str
    window: str
    commit: str
    verdict: Verdicts


class Closed(Fact, frozen=True, kw_only=True):
    """``closed.json``: the generation is finished; nothing of it will be sent any more."""

    commit: str
    verdict: Verdicts


def window_folder(window: str, *, rejected: bool = False, early: bool = False) -> str:
    """The folder of a window, relative to the landing."""
    return f"{EARLY if early else REJECTED if rejected else ''}window={segment(window)}"


def part_name(number: int, commit: str, file_format: str) -> str:
    """``part-00000-<commit>.parquet``: never written twice with two contents, since the id stands for the content."""
    return f"part-{number:05d}-{commit}.{file_format}"


def commit_id(
    window: str,
    file_format: str,
    sealed: Mapping[Origin, Iterable[ShardResult]],
    priced: str = prices.AS_OF.isoformat(),
) -> str:
    """What names a commit: all that decides the content of its parts, and nothing else (no thresholds, no time, no try).

    ``priced`` stands for the prices, which decide the cost that is written beside each row.
    """
    content = sorted(
        "\n".join((origin.path, origin.build, *(_result_text(result) for result in results)))
        for origin, results in sealed.items()
    )
    return short(str(ROW_FORMAT), priced, window, file_format, *content)


def _result_text(result: ShardResult) -> str:
    return f"{result.shard} {result.job} {result.sha256} {result.failure}"


def refuse_replacement(standing: CommitManifest | None, mine: CommitManifest) -> None:
    """Raises NotOwner when ``standing`` belongs to another task, or comes from a newer generation or seal of the same batch."""
    if standing is None:
        return
    if standing.owner != mine.owner:
        raise NotOwner(mine.landing, mine.window, str(standing.owner), str(mine.owner))
    newest = {origin.batch: (origin.generation, origin.seal) for origin in standing.origins}
    for origin in mine.origins:
        there = newest.get(origin.batch, (0, 0))
        if there > (origin.generation, origin.seal):
            newer = f"generation {there[0]} (results {there[1]}) of {origin.batch}"
            raise NotOwner(mine.landing, mine.window, newer, f"generation {origin.generation} (results {origin.seal})")


def same_commit(standing: CommitManifest | None, mine: CommitManifest) -> bool:
    """True when ``standing`` already says what ``mine`` would: same content from the same jobs, same verdict."""
    return standing is not None and _saying(standing) == _saying(mine)


def _saying(manifest: CommitManifest) -> tuple[object, ...]:
    return (
        manifest.commit, manifest.parts, manifest.origins, manifest.jobs, manifest.verdict, manifest.thresholds,
        manifest.complete,
    )  # fmt: skip


def replacing(standing: CommitManifest | None, mine: CommitManifest) -> CommitManifest:
    """``mine`` with the parts that go when it stands. What the standing one had still to delete is taken over."""
    if standing is None:
        return mine
    kept = {part.path for part in mine.parts}
    gone = dict.fromkeys((*(part.path for part in standing.parts), *standing.replaces))
    return msgspec.structs.replace(mine, replaces=tuple(path for path in gone if path not in kept))


def turnaround(jobs: Iterable[JobRef]) -> dict[str, float]:
    """Median and maximum of the jobs' turnaround in seconds; empty when no job has both times."""
    seconds = sorted(job.turnaround_seconds for job in jobs if job.turnaround_seconds is not None)
    if not seconds:
        return {}
    middle = len(seconds) // 2
    median = seconds[middle] if len(seconds) % 2 else (seconds[middle - 1] + seconds[middle]) / 2
    return {"p50": round(median, 3), "max": round(seconds[-1], 3)}


def asset_extra(manifest: CommitManifest, uri: str) -> dict[str, Any]:
    """What travels with the asset event and between tasks: small, JSON-safe, no answers."""
    return {
        "landing": manifest.landing,
        "window": manifest.window,
        "uri": f"{uri.rstrip('/')}/{manifest.folder}",
        "commit": manifest.commit,
        "rows": manifest.rows,
        "counts": {kind: count for kind, count in manifest.counts.items() if count},
        "verdict": manifest.verdict.value,
        "complete": manifest.complete,
        "cost_usd": manifest.cost_usd,
        "turnaround_s": manifest.turnaround_s,
        "submitted_at": _iso(manifest.submitted_at),
        "finished_at": _iso(manifest.finished_at),
        "committed_at": _iso(manifest.committed_at),
    }


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()
