"""The indexes of answers that may be used again: written when a batch is closed, read bucket by bucket, merged by the janitor.

    reuse/1/<scope>/<time>-<name>.json     what it covers: the files it points into, how many records each bucket has
    reuse/1/<scope>/<time>-<name>.idx      the records (core.reuse)

Each is immutable and names no row's content. Which there are is told by a listing: one that is not listed yet is a saving
that is missed, and nothing else.
"""

from __future__ import annotations

import hashlib
import logging
import zlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from airflow_provider_geminibatch.core.errors import StoreUnreadable
from airflow_provider_geminibatch.core.ledger import Claim, attempt_path
from airflow_provider_geminibatch.core.model import Build, Outcomes, ServiceIdentity, Shard
from airflow_provider_geminibatch.core.names import generation_path, parse_wire_key, short
from airflow_provider_geminibatch.core.reuse import (
    RECORD,
    SEGMENT_ROWS,
    VERSION,
    AnswerFile,
    Digests,
    Records,
    ReuseIndex,
    renumbered,
    request_of,
    scope_of,
    unique,
)
from airflow_provider_geminibatch.jobs.kept import CANARY, KeptLayer, reusing
from airflow_provider_geminibatch.jobs.layers import BuiltLayer
from airflow_provider_geminibatch.jobs.results import Answered, Desk
from airflow_provider_geminibatch.jobs.rows import AnsweredBatch
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.store import Store

FOLDER = f"reuse/{VERSION}"

MERGE_FROM = 16
"""So many indexes of one scope are merged into one; each is looked through at every look-up."""


@dataclass(frozen=True)
class OpenIndex:
    """An index that can be read bucket by bucket."""

    store: Store
    about: ReuseIndex

    @property
    def files(self) -> tuple[AnswerFile, ...]:
        return self.about.files

    def raw_buckets(self) -> Generator[tuple[int, bytes]]:
        """Every bucket with its number, as records in a row. Raises StoreUnreadable when it ends too soon."""
        with self.store.open(self.about.path) as file:
            for number, rows in enumerate(self.about.counts):
                data = file.read(rows * RECORD.size)
                if len(data) != rows * RECORD.size:
                    raise StoreUnreadable(f"{self.store.uri}/{self.about.path}", "it ends too soon")
                yield number, data


def indexes_of(store: Store, scope: str, log: logging.Logger) -> Iterator[OpenIndex]:
    """The indexes of a scope, the newest first. What cannot be read is told of and left out."""
    listed = (path for path in store.list(folder_of(scope)) if path.endswith(".json"))
    for path in sorted(listed, reverse=True):
        if (index := _opened(store, path, log)) is not None:
            yield index


def folder_of(scope: str) -> str:
    """Where the indexes of a scope lie."""
    return f"{FOLDER}/{short(scope)}"


# Writing


class _Source(NamedTuple):
    """A file of result lines of one shard, and which of its rows it answers."""

    build: Build
    shard: Shard
    path: str
    at: datetime
    answers: frozenset[int] | None
    answered: Answered | None

    def has(self, row: int) -> bool:
        if self.answers is not None:
            return row in self.answers
        assert self.answered is not None
        return row < self.shard.rows and self.answered.kind_of(row) == (Outcomes.ANSWER, True)


def index_answers(desk: Desk, batch: AnsweredBatch) -> int:
    """Write the indexes of what a batch answered, if it uses answers again; how many answers they hold.

    Its own answers, those of its rounds and those of its canary: each by the request that it was asked by. What it has from
    earlier batches is in their indexes. Safe to repeat: equal answers give equal names and equal bytes.
    """
    root = batch.build
    if reusing(batch.store, generation_path(root.batch, root.generation)) is None:
        return 0
    by_scope: dict[tuple[str, str, str], list[_Source]] = {}
    for service, source in _sources(desk, batch):
        scope = scope_of(service, source.build.kind, source.build.model)
        by_scope.setdefault((scope, source.build.model, str(service)), []).append(source)
    return sum(
        _Writing(batch.store, scope, model, service, batch.origin.path).write(sources)
        for (scope, model, service), sources in by_scope.items()
    )


def _sources(desk: Desk, batch: AnsweredBatch) -> Iterator[tuple[ServiceIdentity, _Source]]:
    """What there is to index, each with the service that gave it: the connection may point at another one by now."""
    for answered in batch.shards:
        yield from _of_job(batch.store, batch.build, answered)
    for layer in batch.layers:
        if isinstance(layer, BuiltLayer):
            for answered in layer.shards:
                yield from _of_job(batch.store, layer.build, answered)
        elif isinstance(layer, KeptLayer) and layer.source == CANARY:
            for place, kept in layer.kept:
                shard, rows = layer.root.shards[place], frozenset(kept.rows)
                service = _asked(batch.store, shard, 1) or desk.gateway.identity
                yield service, _Source(layer.root, shard, kept.path, kept.at, rows, None)


def _of_job(store: Store, build: Build, answered: Answered) -> Iterator[tuple[ServiceIdentity, _Source]]:
    job, service = answered.job, _asked(store, answered.shard, answered.result.attempt)
    if answered.told and job is not None and service is not None and answered.result.path:
        at = job.ended_at or job.created_at or datetime.fromtimestamp(0, UTC)
        yield service, _Source(build, answered.shard, answered.result.path, at, None, answered)


def _asked(store: Store, shard: Shard, attempt: int) -> ServiceIdentity | None:
    """The service that an attempt of a shard was meant for."""
    claim = fact_store.get(store, attempt_path(shard.ledger, attempt, "claim"), Claim)
    return None if claim is None else claim.service


class _Writing:
    """The indexes of one batch in one scope: a new one after every ``SEGMENT_ROWS`` answers."""

    def __init__(self, store: Store, scope: str, model: str, service: str, name: str) -> None:
        self._store, self._about = store, _About(folder_of(scope), model, service)
        self._digests, self._name = Digests(scope), name
        self._begin()

    def _begin(self) -> None:
        self._records, self._files = Records(), list[AnswerFile]()

    def write(self, sources: Iterable[_Source]) -> int:
        total = 0
        for source in sources:
            if self._records.rows and self._records.rows + source.shard.rows > SEGMENT_ROWS:
                total += self._flush()
            self._add(source)
        return total + self._flush()

    def _add(self, source: _Source) -> None:
        digests = self._digests_of(source)
        generation = source.shard.home.rpartition("/builds/")[0]
        number = len(self._files)
        self._files.append(AnswerFile(source.path, generation, source.at))
        for row, offset, checksum in _answers(self._store, source):
            if (found := digests.pop(row, None)) is not None:
                self._records.add(found, number, offset, checksum)

    def _digests_of(self, source: _Source) -> dict[int, bytes]:
        """The digests of the rows that have an answer and may be used again; of one shard, so that they fit into memory."""
        of, found = self._digests.of, dict[int, bytes]()
        with self._store.open(source.shard.path) as lines:
            for row, line in enumerate(lines):
                if source.has(row) and (digest := of(request_of(line))) is not None:
                    found[row] = digest
        return found

    def _flush(self) -> int:
        rows = self._records.rows
        if rows:
            _write(self._store, self._about, self._files, self._records.buckets(), self._name)
        self._begin()
        return rows


class _Keyed(msgspec.Struct, frozen=True):
    key: str = ""


_decode_key = msgspec.json.Decoder(_Keyed).decode


def _answers(store: Store, source: _Source) -> Iterator[tuple[int, int, int]]:
    """Row, offset and checksum of every line that belongs to a row of the shard, in the order of the file."""
    offset = 0
    with store.open(source.path) as lines:
        for raw in lines:
            try:
                key = parse_wire_key(_decode_key(raw).key)
            except msgspec.MsgspecError:
                key = None
            if key is not None and (key.tag, key.shard) == (source.shard.tag, source.shard.index):
                yield key.row, offset, zlib.crc32(raw)
            offset += len(raw)


class _About(NamedTuple):
    """Where an index lies, and for people whose answers it knows."""

    folder: str
    model: str
    service: str


def _write(store: Store, about: _About, files: Sequence[AnswerFile], buckets: Iterable[bytes], name: str) -> str:
    """Write an index under a name that follows from what it covers; its path. The records come first."""
    newest = max(file.at for file in files).astimezone(UTC)
    named = short(name, *(f"{file.path} {file.at.isoformat()}" for file in files))
    path = f"{about.folder}/{newest:%Y%m%dT%H%M%S}-{named}"
    hashed, counts = hashlib.sha256(), list[int]()
    with store.writer(f"{path}.idx") as out:
        for bucket in buckets:
            counts.append(len(bucket) // RECORD.size)
            hashed.update(bucket)
            out.write(bucket)
    made = ReuseIndex(
        path=f"{path}.idx", sha256=hashed.hexdigest(), rows=sum(counts), counts=tuple(counts), files=tuple(files),
        model=about.model, service=about.service,
    )  # fmt: skip
    store.write(f"{path}.json", msgspec.json.encode(made))
    return f"{path}.json"


# Merging


def merge_all(store: Store, log: logging.Logger, *, most: int = MERGE_FROM) -> list[str]:
    """Merge the indexes of every scope that has more than ``most``; those that came of it."""
    found: dict[str, list[str]] = {}
    for path in sorted(path for path in store.list(FOLDER) if path.endswith(".json")):
        found.setdefault(path.rpartition("/")[0], []).append(path)
    made = (_merge(store, folder, paths, log) for folder, paths in found.items() if len(paths) > most)
    return [path for path in made if path]


def _merge(store: Store, folder: str, paths: Sequence[str], log: logging.Logger) -> str:
    """Merge the indexes of one scope, oldest first, into one, and delete them; its path, empty when nothing is left to know.

    Files that are not there any more are left out. A crash in between leaves answers in two indexes, which changes nothing; who
    looks up meanwhile misses some at worst. Memory is one bucket of all.
    """
    found = {path: index for path in paths if (index := _opened(store, path, log))}
    files: list[AnswerFile] = []
    numbers: list[dict[int, int]] = []
    for index in found.values():
        there = [number for number, file in enumerate(index.files) if _is_there(store, file)]
        numbers.append({number: len(files) + at for at, number in enumerate(there)})
        files += (index.files[number] for number in there)
    made = ""
    if files:
        last = [*found.values()][-1].about
        with ExitStack() as streams:
            buckets = _merged(
                [streams.enter_context(closing(index.raw_buckets())) for index in found.values()], numbers
            )
            made = _write(store, _About(folder, last.model, last.service), files, buckets, "merged")
    for path, index in found.items():
        if path != made:
            store.delete(path)
            store.delete(index.about.path)
    log.info("%s/%s: %d indexes of answers are one now", store.uri, folder, len(found))
    return made


def _merged(streams: Sequence[Iterator[tuple[int, bytes]]], numbers: Sequence[dict[int, int]]) -> Iterator[bytes]:
    for parts in zip(*streams, strict=True):
        yield unique(b"".join(renumbered(data, its) for (_, data), its in zip(parts, numbers, strict=True)))


def _opened(store: Store, path: str, log: logging.Logger) -> OpenIndex | None:
    """The index at a path; None, and a warning, when it is not there any more or cannot be read."""
    try:
        data = store.read(path)
        return None if data is None else OpenIndex(store, msgspec.json.decode(data, type=ReuseIndex))
    except (StoreUnreadable, msgspec.MsgspecError) as error:
        log.warning("an index of earlier answers is not used: %s/%s: %s", store.uri, path, error)
        return None


def _is_there(store: Store, file: AnswerFile) -> bool:
    try:
        store.open(file.path).close()
    except StoreUnreadable:
        return False
    return True


__all__ = ["FOLDER", "MERGE_FROM", "OpenIndex", "folder_of", "index_answers", "indexes_of", "merge_all"]
