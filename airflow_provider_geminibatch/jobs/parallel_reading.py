"""Result files of one task, read by several processes of the same interpreter, each a shard at a time.

A worker is a fresh process, not a fork: a task has threads. What it needs comes over its standard input as JSON, credentials
included, so that nothing of it stands in its arguments or its environment. What its lines came to are files in a folder that
goes with the task; the rest goes over its standard output, one JSON object a line. It talks to no service: what is to be
downloaded has been, and what it reads is in the workspace. It knows nothing of Airflow.
"""

from __future__ import annotations

import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from airflow_provider_geminibatch.core import errors
from airflow_provider_geminibatch.core.errors import GeminiBatchError, ReaderDied
from airflow_provider_geminibatch.core.kinds import check_of
from airflow_provider_geminibatch.core.landing import Place
from airflow_provider_geminibatch.core.ledger import Collected
from airflow_provider_geminibatch.core.model import Build, Shard
from airflow_provider_geminibatch.core.prices import Price
from airflow_provider_geminibatch.jobs.pipes import close, command_of, how_it_ended, send
from airflow_provider_geminibatch.jobs.reading import Read, ReadDone, heard
from airflow_provider_geminibatch.jobs.spooled import spool_for
from airflow_provider_geminibatch.storage.doors import Door, store_door
from airflow_provider_geminibatch.storage.spool import Disk
from airflow_provider_geminibatch.storage.store import Store

LEAST_ROWS = 50_000
"""Below that many rows the time that processes take to start is not worth it."""

_COMMAND = command_of("airflow_provider_geminibatch.jobs.read_worker")
_BEGINS = b'{"read":'


class ReadOrder(msgspec.Struct, kw_only=True):
    """A file to read, and where to put what is too much for a line. ``build`` is that of the shard, without its shards."""

    door: Door
    build: Build
    place: Place | None
    shard: Shard
    sealed: Collected
    price: Price | None
    rows_path: str
    spool_path: str
    spool_bytes: int


class ReadTold(msgspec.Struct, kw_only=True):
    """A line of a worker: what was read, or the error that ended it."""

    read: ReadDone | None = None
    error: str = ""
    facts: tuple[Any, ...] = ()


class Readers:
    """So many processes; each is started when it is first needed, and all end with the ``with`` block."""

    def __init__(self, processes: int) -> None:
        self.processes = processes
        self._pool = ThreadPoolExecutor(processes, "geminibatch-read")
        self._lock, self._stopped, self._numbers = threading.Lock(), False, count()
        self._idle: list[subprocess.Popen[bytes]] = []
        self._alive: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="geminibatch-results-")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._stopped = True
            for process in self._alive:
                if kind is not None:
                    process.kill()
        self._pool.shutdown(cancel_futures=True)
        for process in self._alive:
            _end(process)
        self._folder.cleanup()

    def of(self, build: Build, store: Store, disk: Disk | None) -> BuildReaders | None:
        """The readers of a build's files; None where its store can not be opened by another process."""
        door = store_door(store)
        return None if door is None else BuildReaders(self, build, door, disk)

    def path(self) -> Path:
        """Where a file may be put."""
        return Path(self._folder.name) / f"{next(self._numbers):06d}"

    def submit(self, order: ReadOrder) -> Callable[[], ReadDone]:
        """Have one of the processes carry out an order; what is returned waits for it.

        Raises what was raised there, and ReaderDied.
        """
        return self._pool.submit(self._carried_out, order).result

    def _carried_out(self, order: ReadOrder) -> ReadDone:
        process = self._taken()
        send(process, order)
        assert process.stdout is not None
        for line in process.stdout:
            begin = line.find(_BEGINS)
            if begin < 0:  # not ours: what an interpreter's sitecustomize or a library prints comes this way too
                continue
            told = msgspec.json.decode(line[begin:], type=ReadTold)
            with self._lock:
                self._idle.append(process)
            if told.read is None:
                raise _error(told)
            return told.read
        raise ReaderDied(str(order.shard), how_it_ended(process.wait()))

    def _taken(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._idle:
                return self._idle.pop()
            process = subprocess.Popen(
                _COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            self._alive.append(process)
            if self._stopped:
                process.kill()
            return process


class BuildReaders:
    """The readers, for the files of one build."""

    def __init__(self, readers: Readers, build: Build, door: Door, disk: Disk | None) -> None:
        self._readers, self._door, self._disk = readers, door, disk
        self._build, self._check = msgspec.structs.replace(build, shards=()), check_of(build)

    @property
    def processes(self) -> int:
        return self._readers.processes

    def start(self, shard: Shard, sealed: Collected, price: Price | None) -> Callable[[], Read]:
        """Have a file read; what is returned waits for it. Raises as ``read_results`` does, then."""
        disk, rows_path, spool_path = self._disk, self._readers.path(), self._readers.path()
        share = disk.left // self._readers.processes if disk else 0
        if disk:
            disk.take(share)
        order = ReadOrder(
            door=self._door, build=self._build, place=disk.place if disk else None, shard=shard, sealed=sealed, price=price,
            rows_path=str(rows_path), spool_path=str(spool_path), spool_bytes=share,
        )  # fmt: skip

        telling = self._readers.submit(order)

        def come() -> Read:
            used = 0
            try:
                done = telling()
                spool = spool_for(disk, self._check) if disk else None
                if spool is not None and done.kept is not None:
                    used = done.kept.size_bytes
                    spool.take_over(done.kept, order.spool_path)
                return heard(done, rows_path, shard, spool)
            finally:
                if disk:
                    disk.give(share - used)

        return come


def readers_for(builds: Iterable[Build], processes: int) -> Readers | None:
    """The processes that read what was answered to these builds, where that is worth it."""
    builds = list(builds)
    processes = min(processes, sum(len(build.shards) for build in builds))
    return Readers(processes) if processes > 1 and sum(build.rows for build in builds) >= LEAST_ROWS else None


def _end(process: subprocess.Popen[bytes]) -> None:
    close(process.stdin)
    process.wait()
    close(process.stdout)


def _error(told: ReadTold) -> GeminiBatchError:
    """The error that a worker raised, made again from its facts."""
    kind: Callable[..., GeminiBatchError] = getattr(errors, told.error, ReaderDied)
    return kind(*told.facts)


__all__ = ["LEAST_ROWS", "BuildReaders", "ReadOrder", "ReadTold", "Readers", "readers_for"]
