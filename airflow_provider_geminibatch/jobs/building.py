"""Building: the rows of a source stream into shard files and key files, checked as they go, nothing held whole."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from datetime import datetime, timedelta
from itertools import chain, islice
from typing import Any, cast

from airflow_provider_geminibatch.core.errors import BadRows, Problem, StoreError
from airflow_provider_geminibatch.core.model import Shard
from airflow_provider_geminibatch.core.rows import Problems, Ready, Row
from airflow_provider_geminibatch.core.sharding import Block, pack
from airflow_provider_geminibatch.jobs.unique_keys import NAMED, KeyMarks, repeats
from airflow_provider_geminibatch.storage.store import Store

SHOWN_PROBLEMS = 20
PROGRESS_ROWS = 100_000
PROGRESS_TIME = timedelta(seconds=10)


class ShardWriter:
    """Streams the rows of a source into the shard files of one build."""

    def __init__(self, store: Store, home: str, tag: str, progress: Progress, log: logging.Logger) -> None:
        self._store, self._home, self._tag, self._progress, self._log = store, home, tag, progress, log
        self._made: list[Shard] = []
        self._begun: list[str] = []

    def write(self, rows: Iterable[Ready], *, max_rows: int, max_bytes: int) -> tuple[Shard, ...]:
        """All shards, whole and closed; none for no rows. What ``rows`` raises ends it, and the shard in the making."""
        blocks = pack(rows, tag=self._tag, max_rows=max_rows, max_bytes=max_bytes)
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
                content=content_hash.hexdigest(),
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


def located(rows: Iterable[Row | Mapping[str, Any] | bytes]) -> Iterator[Row]:
    """Rows with their place; what comes without one is numbered from 1."""
    for number, row in enumerate(rows, 1):
        yield row if type(row) is Row else Row("row", number, cast("Mapping[str, Any]", row))


Again = Callable[[], Iterable[tuple[Row, Ready | Problems]]]
"""Reads the source once more, each row with what becomes of it."""


def flawless(rows: Iterable[Ready | Problems], source_name: str, marks: KeyMarks) -> Iterator[Ready]:
    """The rows, as long as none has a problem. At the first that has, the rest is read for problems only, and BadRows raised.

    All keys are noted in ``marks``.
    """
    rest = marks.noting(rows)
    for row in rest:
        if type(row) is not Ready:
            raise _bad_rows(row, rest, source_name)
        yield row


def _bad_rows(first: Problems, rest: Iterator[Ready | Problems], source_name: str) -> BadRows:
    every = chain(first, (problem for row in rest if type(row) is not Ready for problem in row))
    return _of_all(every, source_name)


def _of_all(every: Iterator[Problem], source_name: str) -> BadRows:
    shown = tuple(islice(every, SHOWN_PROBLEMS))
    return BadRows(source_name, shown, len(shown) + sum(1 for _ in every))


def refuse_repeats(marks: KeyMarks, again: Again, source_name: str, others: int = 0) -> None:
    """Raises BadRows, with all problems of the source in their order, when a key stands twice. ``others`` are those known."""
    repeated = marks.repeated()
    if not repeated.marks:
        return
    found = _of_all(repeats(again(), repeated, source_name), source_name)
    if len(repeated.marks) >= NAMED:
        found.total = others + repeated.rows
    if found.total:  # else two keys that only share a hash
        raise found


def delete(store: Store, path: str, log: logging.Logger) -> None:
    """Best effort: what stays is unread, in a folder of its own."""
    try:
        store.delete(path)
    except StoreError as error:
        log.warning("left behind, harmless: %s", error)
