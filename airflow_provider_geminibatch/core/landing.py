"""A landing: where windows of outcomes lie for others to read. The layout, the manifest that is the commit, who may replace it.

<landing>/window=<key>/part-00000-<commit>.parquet
<landing>/window=<key>/_manifest.json                 the commit: written last, replaced whole
<landing>/window=<key>/_report-<commit>.json          what came of it, for people; written after it
<landing>/window=<key>/_media-<commit>/<digest>.png   what came inside answers; the manifest names their list
<landing>/_rejected/window=<key>/…                    the same for what is outside its thresholds
<landing>/_early/window=<key>/…                       the same for what there is before a window is complete

A window that several tasks land together has a folder ``part=<name>`` for each below it, with a commit of its own; it is
there when all parts that the landing declares are. A landing in SQL keeps the same in tables.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
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
KEEPABLE = ("thoughts", "raw")
"""Columns that land only where they are asked for: what the model thought, and the line as it came."""

SQL = "sql"
BIGQUERY = "bigquery"
TABLES = (f"{SQL}://", f"{BIGQUERY}://")
"""How the URIs of landings in tables begin; the format of both is ``sql``."""
"""The format of a landing in a database, and the scheme of its URI."""

MANIFEST = "_manifest.json"
REJECTED = "_rejected/"
EARLY = "_early/"

ROW_FORMAT = 3
"""Moves when the columns of a part change, so that a commit id never stands for two contents."""


class Place(msgspec.Struct, frozen=True):
    """Where to land: a name for people and assets, the URI, the format, and the parts of a window that is landed in parts."""

    name: str
    uri: str
    format: str = "parquet"
    parts: tuple[str, ...] = ()
    typed: bool = False
    """Whether the answers' properties have columns of their own, typed by the response schema."""
    keep: tuple[str, ...] = ()
    """What else lands of every row: of ``KEEPABLE``."""

    def __post_init__(self) -> None:
        known = (SQL,) if self.in_sql else FORMATS
        if self.format not in known:
            raise Unusable(
                f"format={self.format!r}", "no such format of a landing there", f"Write {' or '.join(known)}."
            )
        given: Any = self.parts
        if isinstance(given, str) or not all(isinstance(part, str) and part for part in given):
            raise Unusable(
                f"parts={self.parts!r}", "these are no names", "Write a tuple of texts, such as ('eu', 'us')."
            )
        if len(set(self.parts)) < len(self.parts):
            raise Unusable(f"parts={self.parts!r}", "a name stands twice", "Name each part once.")

        if self.typed and self.format == "jsonl":
            do = "Leave typed= out: value is the parsed answer there."
            raise Unusable("typed=True with format='jsonl'", "JSON lines have no column types", do)
        kept: Any = self.keep
        if isinstance(kept, str) or not set(kept) <= set(KEEPABLE):
            raise Unusable(f"keep={self.keep!r}", "that cannot be kept", f"Write a tuple of {', '.join(KEEPABLE)}.")

    @property
    def content(self) -> str:
        """The format with all else that decides the columns."""
        return " ".join((self.format, *(("typed",) if self.typed else ()), *sorted(self.keep)))

    @property
    def in_sql(self) -> bool:
        """True for tables of a database, False for a folder of files."""
        return self.uri.startswith(TABLES)

    def own_part(self, given: str | None) -> str:
        """The part that a task lands, "" for whole windows. Raises Unusable when it is not one of those declared."""
        if self.parts and given not in self.parts:
            declared = ", ".join(self.parts)
            why = "its windows are landed in parts and the task names none" if not given else f"it declares {declared}"
            raise Unusable(f"part={given!r} of the landing {self.name}", why, f"Give part= one of {declared}.")
        if given and not self.parts:
            do = f"Declare it where the landing is made: Landing(…, parts=({given!r}, …))."
            raise Unusable(f"part={given!r} of the landing {self.name}", "its windows are landed whole", do)
        return given or ""


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
    part: str = ""
    """The part of the window that this is; "" when it is all of it."""
    commit: str
    format: str
    parts: tuple[Part, ...]
    """The files; none in a database."""
    media: Part | None = None
    """The list of the media that came inside answers, with how many they are; None without any."""
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
    cache_storage_usd: str | None = None
    """What keeping prompt caches cost until the commit, beside ``cost_usd``; None without any, or without a known price."""
    reused_rows: int = 0
    """Rows that had been answered before and cost nothing now."""
    reused_usd: str | None = None
    """What those rows would have cost by batch; None without any, or without a known price."""
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
        return window_folder(self.window, rejected=self.rejected, early=self.early, part=self.part)

    @property
    def label(self) -> str:
        """The window, and its part if it has one, as people read it."""
        return f"{self.window} part {self.part}" if self.part else self.window


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
    media: Part | None = None


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


class WindowView(msgspec.Struct, frozen=True):
    """A window as whoever builds upon it sees it: one commit, or those of its declared parts."""

    declared: tuple[str, ...]
    found: tuple[CommitManifest, ...]

    @property
    def absent(self) -> tuple[str, ...]:
        """The declared parts without a commit."""
        there = {manifest.part for manifest in self.found}
        return tuple(part for part in self.declared if part not in there)

    @property
    def passes(self) -> bool:
        """True when all of it is there, complete and accepted."""
        return bool(self.found) and not self.absent and all(manifest.passes for manifest in self.found)

    @property
    def commit(self) -> str:
        """The id of its content: of the one commit, or one made of those of all parts."""
        if not self.declared:
            return "".join(manifest.commit for manifest in self.found)
        return short(*(f"{manifest.part} {manifest.commit}" for manifest in self.found))


def window_folder(window: str, *, rejected: bool = False, early: bool = False, part: str = "") -> str:
    """The folder of a window, or of a part of it, relative to the landing."""
    folder = f"{EARLY if early else REJECTED if rejected else ''}window={segment(window)}"
    return f"{folder}/part={segment(part)}" if part else folder


def part_name(number: int, commit: str, file_format: str) -> str:
    """``part-00000-<commit>.parquet``: never written twice with two contents, since the id stands for the content."""
    return f"part-{number:05d}-{commit}.{file_format}"


def report_name(commit: str) -> str:
    """``_report-<commit>.json``, beside the parts of its commit. Readers of Parquet pass names that begin so."""
    return f"_report-{commit}.json"


def commit_id(
    window: str,
    file_format: str,
    sealed: Mapping[Origin, Iterable[ShardResult]],
    priced: str = prices.AS_OF.isoformat(),
    *,
    part: str = "",
) -> str:
    """What names a commit: all that decides the content of its parts, and nothing else (no thresholds, no time, no try).

    ``priced`` stands for the prices, which decide the cost that is written beside each row.
    """
    content = sorted(
        "\n".join((origin.path, origin.build, *(_result_text(result) for result in results)))
        for origin, results in sealed.items()
    )
    where = (window, "part", part) if part else (window,)
    return short(str(ROW_FORMAT), priced, *where, file_format, *content)


def _result_text(result: ShardResult) -> str:
    return f"{result.shard} {result.job} {result.sha256} {result.failure}"


def refuse_replacement(standing: CommitManifest | None, mine: CommitManifest) -> None:
    """Raises NotOwner when ``standing`` belongs to another task, or comes from a newer generation or seal of the same batch."""
    if standing is None:
        return
    if standing.owner != mine.owner:
        raise NotOwner(mine.landing, mine.label, str(standing.owner), str(mine.owner))
    newest = {origin.batch: (origin.generation, origin.seal) for origin in standing.origins}
    for origin in mine.origins:
        there = newest.get(origin.batch, (0, 0))
        if there > (origin.generation, origin.seal):
            newer = f"generation {there[0]} (results {there[1]}) of {origin.batch}"
            raise NotOwner(mine.landing, mine.label, newer, f"generation {origin.generation} (results {origin.seal})")


def refuse_mixture(whole: CommitManifest | None, parts: Iterable[str], mine: CommitManifest) -> None:
    """Raises NotOwner when a part would come into a window that was landed ``whole``, or a whole one into its ``parts``."""
    if mine.part and whole is not None:
        raise NotOwner(mine.landing, mine.window, f"{whole.owner}, which landed it whole", f"{mine.owner}")
    if not mine.part and (there := sorted(parts)):
        raise NotOwner(mine.landing, mine.window, f"the tasks of its parts ({', '.join(there)})", f"{mine.owner}")


def same_commit(standing: CommitManifest | None, mine: CommitManifest) -> bool:
    """True when ``standing`` already says what ``mine`` would: same content from the same jobs, same verdict."""
    return standing is not None and _saying(standing) == _saying(mine)


def as_accepted_before(standing: CommitManifest | None, mine: CommitManifest) -> CommitManifest:
    """``mine`` with the word of the person who has accepted these very answers, where somebody has.

    The same batches with the same sealed results are the same answers, however their rows are written or priced since.
    """
    if standing is None or standing.acceptance is None or not (mine.complete and standing.owner == mine.owner):
        return mine
    if (standing.origins, standing.counts) != (mine.origins, mine.counts):
        return mine
    return msgspec.structs.replace(mine, verdict=standing.verdict, acceptance=standing.acceptance)


def _saying(manifest: CommitManifest) -> tuple[object, ...]:
    return (
        manifest.commit, manifest.parts, manifest.origins, manifest.jobs, manifest.verdict, manifest.thresholds,
        manifest.complete,
    )  # fmt: skip


def files_of(manifest: CommitManifest | Committing) -> tuple[Part, ...]:
    """The parts, and the list of media after them: where parts are whole, none of their media is deleted yet."""
    return (*manifest.parts, *((manifest.media,) if manifest.media else ()))


def replacing(standing: CommitManifest | None, mine: CommitManifest) -> CommitManifest:
    """``mine`` with the parts that go when it stands. What the standing one had still to delete is taken over."""
    if standing is None:
        return mine
    kept = {part.path for part in files_of(mine)}
    if standing.commit == mine.commit:
        kept.add(report_name(mine.commit))
    gone = dict.fromkeys(
        (*(part.path for part in files_of(standing)), report_name(standing.commit), *standing.replaces)
    )
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
        **({"part": manifest.part} if manifest.part else {}),
        "uri": _address(uri, manifest.folder),
        "commit": manifest.commit,
        "rows": manifest.rows,
        "counts": {kind: count for kind, count in manifest.counts.items() if count},
        "verdict": manifest.verdict.value,
        "complete": manifest.complete,
        "cost_usd": manifest.cost_usd,
        **({"reused_rows": manifest.reused_rows} if manifest.reused_rows else {}),
        "turnaround_s": manifest.turnaround_s,
        "submitted_at": _iso(manifest.submitted_at),
        "finished_at": _iso(manifest.finished_at),
        "committed_at": _iso(manifest.committed_at),
    }


def window_extra(view: WindowView, uri: str) -> dict[str, Any]:
    """What travels with the asset event of a window: of its one commit, or of all its parts together."""
    if not view.declared:
        return asset_extra(view.found[0], uri)
    found = view.found
    counts = sum((Counter(manifest.counts) for manifest in found), Counter[str]())
    costs = [manifest.cost_usd for manifest in found]
    times = [manifest.turnaround_s["max"] for manifest in found if manifest.turnaround_s]
    window = found[0].window
    return {
        "landing": found[0].landing,
        "window": window,
        "uri": _address(uri, window_folder(window)),
        "commit": view.commit,
        "parts": {manifest.part: manifest.commit for manifest in found},
        "rows": sum(manifest.rows for manifest in found),
        "counts": {kind: count for kind, count in counts.items() if count},
        "verdict": Verdicts.ACCEPTED.value if view.passes else Verdicts.PARTIAL_BY_POLICY.value,
        "complete": view.passes,
        "cost_usd": None if None in costs else format(sum((Decimal(cost or 0) for cost in costs), Decimal(0)), "f"),
        "turnaround_s": {"max": max(times)} if times else {},
        "submitted_at": _iso(_extreme(min, (manifest.submitted_at for manifest in found))),
        "finished_at": _iso(_extreme(max, (manifest.finished_at for manifest in found))),
        "committed_at": _iso(_extreme(max, (manifest.committed_at for manifest in found))),
    }


def _address(uri: str, folder: str) -> str:
    """Where a window lies: a folder below the landing, or the landing's own table."""
    return uri if uri.startswith(TABLES) else f"{uri.rstrip('/')}/{folder}"


def _extreme(choose: Callable[[Sequence[datetime]], datetime], times: Iterable[datetime | None]) -> datetime | None:
    known = [time for time in times if time is not None]
    return choose(known) if known else None


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat()
