"""Answers that are used again: looked up before a batch is sent, and kept beside its shards as a canary's are.

    reuse.json                 the decision, before anything is looked up; an edit of the Dag does not change it
    s/…/reused.json            what was found, shard by shard; its rows are left out of the shard's job
    reuse.done.json            all has been looked up

A shard that somebody has meant to send is left as it is. What an index says is believed only as far as the line it points
to has the checksum it had, and is an answer that fits the schema of the batch that asks now.
"""

from __future__ import annotations

import hashlib
import logging
import uuid
import zlib
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from datetime import timedelta
from itertools import accumulate, chain, islice
from struct import Struct as Layout
from types import TracebackType
from typing import BinaryIO, NamedTuple, Self

import msgspec

from airflow_provider_geminibatch.core.errors import StoreUnreadable
from airflow_provider_geminibatch.core.fast_outcomes import NUMBER, read_lines
from airflow_provider_geminibatch.core.kinds import check_of
from airflow_provider_geminibatch.core.ledger import Claim, Forgotten, Kept, Reused, Reusing, attempt_path
from airflow_provider_geminibatch.core.model import Build, Outcomes, Shard, Usage
from airflow_provider_geminibatch.core.names import generation_path, short, wire_key
from airflow_provider_geminibatch.core.prices import NOTHING_SPENT, spent_on
from airflow_provider_geminibatch.core.reuse import (
    BUCKETS,
    RECORD,
    SEGMENT_ROWS,
    AnswerFile,
    Digests,
    Reuse,
    request_of,
    scope_of,
)
from airflow_provider_geminibatch.jobs.kept import REUSED, KeptLine, kept_of
from airflow_provider_geminibatch.jobs.price_list import prices_of_build
from airflow_provider_geminibatch.jobs.results import Desk
from airflow_provider_geminibatch.jobs.reuse_index import OpenIndex, indexes_of
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.store import Store

OPEN_FILES = 16
"""Files of results that are kept open while answers are copied: those of a batch that is asked again come one after the other."""

OPEN_INDEXES = 64

BLOCK_ROWS = 500
"""Answers that are held against what is asked at a time."""

NONE = 0xFFFFFFFF
_ANSWER = NUMBER[Outcomes.ANSWER]
_WANTED = Layout("<16sI")


class _Line(msgspec.Struct, frozen=True):
    response: msgspec.Raw = msgspec.Raw()


_decode_line = msgspec.json.Decoder(_Line).decode


def reused_of(store: Store, generation: str) -> Reused | None:
    """What came of the look-up of a generation, once it is over."""
    return fact_store.get(store, f"{generation}/reuse.done.json", Reused)


def reuse_answers(desk: Desk, root: Build, reuse: Reuse) -> Reused:
    """Find answers to the rows of a sealed build, and keep them beside its shards; once that is on record nothing is looked up.

    Safe to repeat at any point. Raises StoreError for the build's own files; an answer that cannot be had is not used.
    """
    generation = generation_path(root.batch, root.generation)
    if (standing := reused_of(desk.store, generation)) is not None:
        return standing
    age = None if reuse.max_age is None else reuse.max_age.total_seconds()
    decided = fact_store.put(
        desk.store, f"{generation}/reuse.json", Reusing(owner=desk.me, at=desk.now(), max_age_seconds=age)
    )
    seconds = decided.max_age_seconds
    look = _Look(desk, root, Reuse(max_age=None if seconds is None else timedelta(seconds=seconds)))
    new = [shard for shard in root.shards if look.is_new(shard)]
    for group in _groups([shard for shard in new if kept_of(desk.store, shard, REUSED) is None]):
        look.keep(group)
    # Also what was kept by somebody who was interrupted.
    found = sum(len(kept.rows) for shard in new if (kept := kept_of(desk.store, shard, REUSED)))
    done = Reused(owner=desk.me, at=desk.now(), rows=sum(shard.rows for shard in new), reused=found)
    standing = fact_store.put(desk.store, f"{generation}/reuse.done.json", done)
    desk.log.info(
        "%s: %d of %d rows were answered before and are not asked", root.batch, standing.reused, standing.rows
    )
    return standing


def _groups(shards: Sequence[Shard]) -> Iterator[list[Shard]]:
    """Shards in groups whose rows fit into memory by their digests."""
    group: list[Shard] = []
    rows = 0
    for shard in shards:
        if group and rows + shard.rows > SEGMENT_ROWS:
            yield group
            group, rows = [], 0
        group.append(shard)
        rows += shard.rows
    if group:
        yield group


class _Group:
    """Shards that are looked up together: of each row its digest (20 bytes), and where its answer stands (16 bytes)."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = shards
        self.starts = (0, *accumulate(shard.rows for shard in shards))
        rows = self.starts[-1]
        self._wanted = [bytearray() for _ in range(BUCKETS)]
        self._files = array("I", [NONE]) * rows
        self._offsets = array("Q", [0]) * rows
        self._checksums = array("I", [0]) * rows

    def want(self, digest: bytes, at: int) -> None:
        self._wanted[digest[0]] += _WANTED.pack(digest, at)

    def wanted(self, bucket: int) -> dict[bytes, list[int]]:
        """The rows of a bucket that were not found yet, by their digest: several rows may ask the same."""
        rows_of: dict[bytes, list[int]] = {}
        for digest, at in _WANTED.iter_unpack(self._wanted[bucket]):
            if self._files[at] == NONE:
                rows_of.setdefault(digest, []).append(at)
        return rows_of

    def found(self, at: int, file: int, offset: int, checksum: int) -> None:
        self._files[at], self._offsets[at], self._checksums[at] = file, offset, checksum

    def hits(self, place: int) -> Iterator[_Hit]:
        """The rows of a shard whose answers are known, in order."""
        first = self.starts[place]
        for at in range(first, self.starts[place + 1]):
            if self._files[at] != NONE:
                yield _Hit(at - first, self._files[at], self._offsets[at], self._checksums[at])


class _Hit(NamedTuple):
    row: int
    file: int
    offset: int
    checksum: int


class _Look:
    """One look-up for one build."""

    def __init__(self, desk: Desk, root: Build, reuse: Reuse) -> None:
        self._desk, self._root, self._reuse = desk, root, reuse
        scope = scope_of(desk.gateway.identity, root.kind, root.model)
        self._digests = Digests(scope)
        self._check = check_of(root)
        prices = prices_of_build(desk.store, root, me=desk.me, now=desk.now)
        self._price = prices.at(root.created_at) if prices else None
        self._files: list[AnswerFile] = []
        self._indexes = tuple(indexes_of(desk.store, scope, desk.log))
        self._forgotten: dict[str, bool] = {}

    def is_new(self, shard: Shard) -> bool:
        """True for a shard that nobody has meant to send."""
        return fact_store.get(self._desk.store, attempt_path(shard.ledger, 1, "claim"), Claim) is None

    def keep(self, shards: Sequence[Shard]) -> None:
        """Look up the rows of these shards together, and keep what there is."""
        if not self._indexes:
            return
        group = _Group(shards)
        self._want(group)
        for at in range(0, len(self._indexes), OPEN_INDEXES):
            self._find(group, self._indexes[at : at + OPEN_INDEXES])
        with _Answers(self._desk.store, self._files) as answers:
            for place, shard in enumerate(shards):
                self._keep_beside(shard, group.hits(place), answers)

    def _want(self, group: _Group) -> None:
        of, want = self._digests.of, group.want
        for shard, first in zip(group.shards, group.starts, strict=False):
            with self._desk.store.open(shard.path) as lines:
                for at, line in enumerate(lines, first):
                    if (digest := of(request_of(line))) is not None:
                        want(digest, at)

    def _find(self, group: _Group, indexes: Sequence[OpenIndex]) -> None:
        """Bucket by bucket through all indexes, the newest first: what that knows need not be looked for in older ones."""
        with ExitStack() as streams:
            readers = [self._reader(index, streams) for index in indexes]
            for bucket in range(BUCKETS):
                rows_of = group.wanted(bucket)
                for reader in readers:
                    for digest, file, offset, checksum in reader.records():
                        if digest in rows_of and file in reader.files:
                            for at in rows_of.pop(digest):
                                group.found(at, reader.files[file], offset, checksum)

    def _reader(self, index: OpenIndex, streams: ExitStack) -> _Reader:
        """An index that is read along, and which of its files may be used, by their numbers there and here."""
        first = len(self._files)
        self._files += index.files
        files = {number: first + number for number, file in enumerate(index.files) if self._usable(file)}
        # One that has no file to offer is not read at all.
        buckets = streams.enter_context(closing(index.raw_buckets())) if files else iter(())
        return _Reader(buckets, files, self._desk.log)

    def _usable(self, file: AnswerFile) -> bool:
        """Whether answers of a file may be used: by their age, and unless a person gave their batch up."""
        if not self._reuse.allows(file.at, self._root.created_at):
            return False
        if file.generation not in self._forgotten:
            path = f"{file.generation}/forgotten.json"
            self._forgotten[file.generation] = fact_store.get(self._desk.store, path, Forgotten) is not None
        return not self._forgotten[file.generation]

    def _keep_beside(self, shard: Shard, hits: Iterator[_Hit], answers: _Answers) -> None:
        """Copy the answers of one shard beside it, and put them on record, or obey who was first."""
        if (first := next(hits, None)) is None:
            return
        store, me = self._desk.store, self._desk.me
        path = f"{shard.ledger}/{REUSED}-{short(me, uuid.uuid4().hex)}.jsonl"
        copied = _Copied()
        with store.writer(path) as out:
            for line in self._lines(shard, chain((first,), hits), answers, copied):
                copied.hash.update(line)
                out.write(line)
        if not copied.rows:
            store.delete(path)
            return
        mine = Kept(
            owner=me, at=self._desk.now(), path=path, sha256=copied.hash.hexdigest(), lines=len(copied.rows),
            rows=tuple(copied.rows), whole=len(copied.rows) == shard.rows,
            saved_usd=None if copied.saved.cost_usd is None else str(copied.saved.cost_usd),
        )  # fmt: skip
        standing = fact_store.put(store, f"{shard.ledger}/{REUSED}.json", mine)
        if standing.path != path:
            store.delete(path)

    def _lines(self, shard: Shard, hits: Iterable[_Hit], answers: _Answers, copied: _Copied) -> Iterator[bytes]:
        """The answers in their kept form, of those hits whose line is an answer by what the batch asks for now."""
        found = ((hit, raw) for hit in hits if (raw := answers.line(hit.file, hit.offset, hit.checksum)) is not None)
        while block := list(islice(found, BLOCK_ROWS)):
            read = read_lines([raw for _, raw in block], self._check)
            for (hit, raw), kind, *counts in zip(block, read.kinds, *read.counts, strict=True):
                if kind == _ANSWER:
                    copied.rows.append(hit.row)
                    copied.saved = copied.saved.plus(spent_on(Usage(*counts), self._price))
                    yield self._line(wire_key(shard.tag, shard.index, hit.row), raw, self._files[hit.file])

    def _line(self, key: str, raw: bytes, came: AnswerFile) -> bytes:
        about = KeptLine(key=key, model=self._root.model, usd="0", at=came.at, path=came.path)
        return b'%b,"response":%b}\n' % (msgspec.json.encode(about)[:-1], bytes(_decode_line(raw).response))


class _Reader:
    """An index read bucket by bucket beside others. From where it cannot be read any more, it has no records."""

    def __init__(self, buckets: Iterator[tuple[int, bytes]], files: dict[int, int], log: logging.Logger) -> None:
        self._buckets, self.files, self._log = buckets, files, log

    def records(self) -> Iterator[tuple[bytes, int, int, int]]:
        """Those of the next bucket."""
        try:
            _, data = next(self._buckets, (0, b""))
        except StoreUnreadable as error:
            self._log.warning("an index of earlier answers is not used any further: %s", error)
            data = b""
        return RECORD.iter_unpack(data)


class _Copied:
    """What was copied for a shard so far."""

    def __init__(self) -> None:
        self.rows, self.saved, self.hash = list[int](), NOTHING_SPENT, hashlib.sha256()


class _Answers:
    """Files of results by number, the last few of them open. One that is gone, or damaged, has no answers."""

    def __init__(self, store: Store, files: Sequence[AnswerFile]) -> None:
        self._store, self._files = store, files
        self._open: OrderedDict[int, BinaryIO | None] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._open.values():
            if file is not None:
                file.close()

    def line(self, number: int, offset: int, checksum: int) -> bytes | None:
        """The line that begins there, if it is still the one that was indexed."""
        file = self._file(number)
        if file is None:
            return None
        file.seek(offset)
        line = file.readline()
        return line if zlib.crc32(line) == checksum else None

    def _file(self, number: int) -> BinaryIO | None:
        if number not in self._open:
            if len(self._open) >= OPEN_FILES and (oldest := self._open.popitem(last=False)[1]) is not None:
                oldest.close()
            try:
                self._open[number] = self._store.open(self._files[number].path)
            except StoreUnreadable:
                self._open[number] = None
        self._open.move_to_end(number)
        return self._open[number]


__all__ = ["reuse_answers", "reused_of"]
