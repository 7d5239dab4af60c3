"""Building: the rows of a source stream into shard files and key files, checked as they go, nothing held whole."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from itertools import chain, islice
from typing import Any, NamedTuple

from airflow_provider_geminibatch.core.chunks import Chunk
from airflow_provider_geminibatch.core.errors import BadRows, Problem, StoreError
from airflow_provider_geminibatch.core.model import Shard
from airflow_provider_geminibatch.core.rows import Problems, Ready, Row, located
from airflow_provider_geminibatch.core.sharding import Block, pack
from airflow_provider_geminibatch.jobs.unique_keys import NAMED, KeyMarks, Repeated, repeats
from airflow_provider_geminibatch.storage.store import Store

SHOWN_PROBLEMS = 20
BRIEF = "2:"
"""What the content of a shard begins with in its second form. Contents of two forms are never equal."""

PROGRESS_ROWS = 100_000
PROGRESS_TIME = timedelta(seconds=10)


class ShardWriter:
    """Streams the rows of a source into the shard files of one build, numbered from ``first``.

    ``constant`` stands for all that the requests have in common; then the content of a shard covers it and what varies, and
    says so by ``BRIEF``. Without it the content covers every request whole, as in builds from before there were two forms.
    """

    def __init__(
        self,
        store: Store,
        home: str,
        tag: str,
        progress: Progress,
        log: logging.Logger,
        *,
        constant: str | None = None,
        first: int = 0,
    ) -> None:
        self._store, self._home, self._tag, self._progress, self._log = store, home, tag, progress, log
        self._constant, self._first = constant, first
        self._made: list[Shard] = []
        self._begun: list[str] = []

    def write(self, rows: Iterable[Chunk | Ready], *, max_rows: int, max_bytes: int) -> tuple[Shard, ...]:
        """All shards, whole and closed; none for no rows. What ``rows`` raises ends it, and the shard in the making."""
        brief = self._constant is not None
        blocks = pack(rows, tag=self._tag, max_rows=max_rows, max_bytes=max_bytes, first=self._first, brief=brief)
        block = next(blocks, None)
        while block is not None:
            block = self._write_shard(block, blocks)
        return tuple(self._made)

    def _write_shard(self, block: Block, blocks: Iterator[Block]) -> Block | None:
        """One shard, from its first block; returns the first block of the next."""
        index, rows, size = block.shard, 0, 0
        path, keys_path = (f"{self._home}/{part}-{index:04d}.jsonl" for part in ("shard", "keys"))
        self._begun += [path, keys_path]
        lines_hash, keys_hash, content_hash = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
        if self._constant is not None:
            content_hash.update(b"%b\n" % self._constant.encode())
        following: Block | None = block
        with ExitStack() as streams:
            lines, keys = (streams.enter_context(self._store.writer(each)) for each in (path, keys_path))
            while following is not None and following.shard == index:
                lines.write(following.lines)
                keys.write(following.keys)
                lines_hash.update(following.lines)
                keys_hash.update(following.keys)
                content_hash.update(following.content)
                rows, size = rows + following.rows, size + len(following.lines)
                self._progress.add(following.rows)
                following = next(blocks, None)
        self._made.append(
            Shard(
                home=self._home,
                index=index,
                tag=self._tag,
                path=path,
                keys_path=keys_path,
                rows=rows,
                size_bytes=size,
                sha256=lines_hash.hexdigest(),
                keys_sha256=keys_hash.hexdigest(),
                content=("" if self._constant is None else BRIEF) + content_hash.hexdigest(),
            )
        )
        return following

    def discard(self) -> None:
        """Remove what is whole, also of the shard in the making: of its two files one may be."""
        for path in self._begun:
            delete(self._store, path, self._log)


class Progress:
    """One line per hundred thousand rows or ten seconds, whichever comes first."""

    def __init__(self, source_name: str, now: Callable[[], datetime], log: logging.Logger) -> None:
        self._name, self._now, self._log = source_name, now, log
        self._rows = self._said_rows = 0
        self._began = self._said_at = now()

    def add(self, rows: int) -> None:
        self._rows += rows
        at = self._now()
        if self._rows - self._said_rows >= PROGRESS_ROWS or at - self._said_at >= PROGRESS_TIME:
            self._said_rows, self._said_at = self._rows, at
            elapsed = (at - self._began).total_seconds()
            self._log.info("%s: %d rows after %.0f s", self._name, self._rows, elapsed)


class Road(NamedTuple):
    """How the rows of a source become ready, and the digest of what their requests have in common.

    ``chunks`` is a faster way to the same rows, where there is one.
    """

    ready: Callable[[Iterable[Row]], Iterator[Ready | Problems]]
    constant: str
    source_name: str
    chunks: Callable[[Iterable[Any]], Iterator[Chunk | Ready | Problems]] | None = None

    def unique(self, source: Callable[[], Iterable[Any]], marks: KeyMarks) -> Iterator[Chunk | Ready]:
        """The rows, ready, as long as none has a problem; keys are noted in ``marks`` and compared at the end.

        Raises BadRows with all problems of the source, in the order of its rows.
        """
        try:
            yield from self.flawless(source(), marks)
        except BadRows as bad:
            self.refuse_repeats(source, marks.repeated(), bad.total)
            raise
        self.refuse_repeats(source, marks.repeated())

    def flawless(self, rows: Iterable[Any], marks: KeyMarks) -> Iterator[Chunk | Ready]:
        """The rows; at the first that has a problem, the rest is read for problems only, and BadRows raised."""
        rest = marks.noting(self.chunks(rows) if self.chunks else self.ready(located(rows)))
        for row in rest:
            if isinstance(row, list):
                others = (problem for other in rest if isinstance(other, list) for problem in other)
                raise _bad_rows(chain(row, others), self.source_name)
            yield row

    def refuse_repeats(self, source: Callable[[], Iterable[Any]], repeated: Repeated, others: int = 0) -> None:
        """Raises BadRows when a key stands twice: reads the source again, and ``others`` are the problems known of it."""
        if not repeated.marks:
            return
        pairs = ((row, next(self.ready((row,)))) for row in located(source()))
        found = _bad_rows(repeats(pairs, repeated, self.source_name), self.source_name)
        if len(repeated.marks) >= NAMED:
            found.total = others + repeated.rows
        if found.total:  # else two keys that only share a hash
            raise found


def _bad_rows(problems: Iterator[Problem], source_name: str) -> BadRows:
    shown = tuple(islice(problems, SHOWN_PROBLEMS))
    return BadRows(source_name, shown, len(shown) + sum(1 for _ in problems))


def delete(store: Store, path: str, log: logging.Logger) -> None:
    """Best effort: what stays is unread, in a folder of its own."""
    try:
        store.delete(path)
    except StoreError as error:
        log.warning("left behind, harmless: %s", error)
