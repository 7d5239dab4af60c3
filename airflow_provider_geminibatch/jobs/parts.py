"""A large source in parts: each becomes a run of shards of its own, so that several processes can write one build.

Where a source is cut follows from its files alone, never from the number of processes: equal rows come to equal shards on
every machine, and a clear compares them. Small sources are not cut.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any, Protocol

import msgspec

from airflow_provider_geminibatch.core.capabilities import Listing
from airflow_provider_geminibatch.core.errors import BadRows, Problem, Unusable
from airflow_provider_geminibatch.core.model import Shard
from airflow_provider_geminibatch.core.response_schema import CommonSchema
from airflow_provider_geminibatch.core.template import TEMPLATES
from airflow_provider_geminibatch.jobs.building import SHOWN_PROBLEMS, Progress, ShardWriter
from airflow_provider_geminibatch.jobs.declaration import Declaration
from airflow_provider_geminibatch.jobs.unique_keys import KeyMarks
from airflow_provider_geminibatch.jobs.warned import Warned
from airflow_provider_geminibatch.storage.doors import Door
from airflow_provider_geminibatch.storage.files import Files
from airflow_provider_geminibatch.storage.store import Store

PART_BYTES = 256 << 20
"""Size of a part. A shard that a part does not fill is one job more, and of this size a part fills several."""

PART_SHARDS = 10_000
"""Shards are numbered by part: those of the third begin at 20,000."""


class Part(Protocol):
    """Some of the rows of a source, as ``storage.file_sources`` cuts it."""

    def rows(self, files: Files) -> Iterator[Any]: ...

    def serialize(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Split:
    """A source in parts, in order. ``door`` opens the same ``files`` in another process; None where that cannot be done."""

    parts: tuple[Part, ...]
    files: Files
    processes: int = 1
    door: Door | None = None

    def rows(self) -> Iterator[Any]:
        """All rows of all parts."""
        return chain.from_iterable(part.rows(self.files) for part in self.parts)


def split_of(
    source: Any, files: Files, *, processes: int, door: Door | None = None, part_bytes: int | None = None
) -> Split | None:
    """A source that is worth splitting, in parts; None for one that is small or cannot be cut."""
    if processes < 1:
        raise Unusable("processes", f"{processes} processes do nothing", "Pass 1 or more.")
    if not hasattr(source, "parts"):
        return None
    parts = source.parts(files, part_bytes=part_bytes or PART_BYTES)
    return Split(parts, files, min(processes, len(parts)), door) if len(parts) > 1 else None


class PartDone(msgspec.Struct, kw_only=True):
    """What became of a part: its shards, or what is wrong with its rows."""

    shards: tuple[Shard, ...] = ()
    schema: dict[str, Any] | None = None
    dimensions: int | None = None
    problems: tuple[Problem, ...] = ()
    total: int = 0
    warnings: tuple[tuple[Problem, int], ...] = ()


class Bench(msgspec.Struct, frozen=True, kw_only=True):
    """Where the parts of a build are written, and what all of them have in common."""

    home: str
    tag: str
    max_rows: int
    max_bytes: int


def write_part(
    number: int,
    rows: Iterable[Any],
    declared: Declaration,
    bench: Bench,
    *,
    store: Store,
    marks: KeyMarks,
    progress: Progress,
    log: logging.Logger,
) -> PartDone:
    """Write the shards of a part. Bad rows are told, not raised: the other parts may have some too."""
    common, warned = CommonSchema(), Warned()
    road = declared.road(common, warned=warned)
    first = number * PART_SHARDS
    writer = ShardWriter(store, bench.home, bench.tag, progress, log, constant=road.constant, first=first)
    done = PartDone()
    try:
        done.shards = writer.write(road.flawless(rows, marks), max_rows=bench.max_rows, max_bytes=bench.max_bytes)
    except BadRows as bad:
        done.problems, done.total = bad.problems, bad.total
    if len(done.shards) > PART_SHARDS:
        do = f"Raise max_rows_per_shard: a part of {PART_BYTES >> 20} MiB may have {PART_SHARDS:,} shards."
        raise Unusable("max_rows_per_shard", f"it makes {len(done.shards):,} shards of one part", do)
    done.schema, done.dimensions, done.warnings = common.schema, common.dimensions, tuple(warned.counts.items())
    return done


def write_parts(
    split: Split, declared: Declaration, bench: Bench, *, store: Store, progress: Progress, log: logging.Logger
) -> list[PartDone]:
    """All parts, one after the other in this process. Raises BadRows for all that is wrong with the rows of any of them."""
    with KeyMarks() as marks:
        done = [
            write_part(
                number, part.rows(split.files), declared, bench, store=store, marks=marks, progress=progress, log=log
            )
            for number, part in enumerate(split.parts)
        ]
        road, repeated = declared.road(CommonSchema()), marks.repeated()
        road.refuse_repeats(split.rows, repeated, sum(part.total for part in done))
    refuse_bad(done, declared.source_name)
    return done


def refuse_bad(parts: Sequence[PartDone], source_name: str) -> None:
    """Raises BadRows with the problems of all parts, in their order."""
    total = sum(part.total for part in parts)
    if total:
        problems = tuple(problem for part in parts for problem in part.problems)
        raise BadRows(source_name, problems[:SHOWN_PROBLEMS], total)


def common_schema(parts: Iterable[PartDone], common: CommonSchema) -> None:
    """Note what the parts that have rows ask for, as if they were one."""
    for part in parts:
        if part.shards:
            asked = {"generationConfig": {"responseJsonSchema": part.schema}} if part.schema else {}
            common.note({**asked, "outputDimensionality": part.dimensions})


def as_data(declared: Declaration) -> dict[str, Any]:
    """A declaration as plain data, for another process."""
    given = {item.name: getattr(declared, item.name) for item in fields(declared)}
    allowed = {message: sorted(names) for message, names in (declared.allow_fields or {}).items()}
    template = declared.template.serialize() if declared.template else None
    data: dict[str, Any] = msgspec.to_builtins({**given, "template": template, "allow_fields": allowed or None})
    return data


def from_data(data: dict[str, Any]) -> Declaration:
    """The declaration that ``as_data`` made ``data`` of."""
    template = TEMPLATES[data["kind"]](**data["template"]) if data["template"] else None
    listing = msgspec.convert(data["listing"], Listing | None)
    return Declaration(**{**data, "template": template, "listing": listing, "columns": tuple(data["columns"])})
