"""The parts of a source, written by several processes of the same interpreter.

A worker is a fresh process, not a fork: a task has threads. What it needs comes over its standard input as JSON, credentials
included, so that nothing of it stands in its arguments or its environment; what it has to say goes over its standard
output, one JSON object a line. It knows nothing of Airflow.
"""

from __future__ import annotations

import logging
import os
import queue
import secrets
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from airflow_provider_geminibatch.core import errors
from airflow_provider_geminibatch.core.errors import BadRows, GeminiBatchError, WorkerDied
from airflow_provider_geminibatch.jobs.building import Progress
from airflow_provider_geminibatch.jobs.declaration import Declaration
from airflow_provider_geminibatch.jobs.parts import Bench, PartDone, Split, as_data, refuse_bad
from airflow_provider_geminibatch.jobs.pipes import close, command_of, how_it_ended, send
from airflow_provider_geminibatch.jobs.unique_keys import KeyMarks, Repeated
from airflow_provider_geminibatch.storage.doors import Door

_COMMAND = command_of("airflow_provider_geminibatch.jobs.part_worker")


class Told(msgspec.Struct, kw_only=True):
    """A line of a worker: rows written since the last one, the end of its work, or the error that ended it."""

    rows: int = 0
    done: PartDone | None = None
    error: str = ""
    facts: tuple[Any, ...] = ()


_BEGINS = b'{"rows":'


def write_in_parallel(
    split: Split, declared: Declaration, bench: Bench, *, door: Door, progress: Progress, log: logging.Logger
) -> list[PartDone]:
    """All parts, by ``split.processes`` processes; ``door`` opens the store there.

    Raises BadRows for all that is wrong with the rows of any part, WorkerDied, and what a worker raised.
    """
    task = {
        "declared": as_data(declared), "bench": msgspec.to_builtins(bench), "store": door, "files": split.door or {},
    }  # fmt: skip
    log.info("%s: %d parts, by %d processes", declared.source_name, len(split.parts), split.processes)
    with tempfile.TemporaryDirectory(prefix="geminibatch-parts-") as folder, KeyMarks() as marks:
        run = _Run(task, split, Path(folder), progress, declared.source_name)
        done = run.written()
        for number in range(len(split.parts)):
            with run.marks_path(number).open("rb") as file:
                marks.read(file)
        repeated = marks.repeated()
        if repeated.marks:
            run.explain(repeated, sum(part.total for part in done))
    refuse_bad(done, declared.source_name)
    return done


class _Run:
    """The workers of one build. All have one hash seed, so that the marks of their keys can be compared."""

    def __init__(self, task: dict[str, Any], split: Split, folder: Path, progress: Progress, source_name: str) -> None:
        self._task, self._split, self._folder, self._progress = task, split, folder, progress
        self._source_name = source_name
        self._environment = {**os.environ, "PYTHONHASHSEED": str(secrets.randbelow(1 << 32))}
        self._lock, self._stopped = threading.Lock(), threading.Event()
        self._alive: list[subprocess.Popen[bytes]] = []
        self._first: BaseException | None = None

    def marks_path(self, number: int) -> Path:
        return self._folder / f"marks-{number}"

    def written(self) -> list[PartDone]:
        """What became of each part. The first error stops all workers."""
        numbers: queue.SimpleQueue[int] = queue.SimpleQueue()
        for number in range(len(self._split.parts)):
            numbers.put(number)
        found: dict[int, PartDone] = {}
        with ThreadPoolExecutor(self._split.processes, "geminibatch-part") as pool:
            futures = [pool.submit(self._work, numbers, found) for _ in range(self._split.processes)]
            try:
                for future in futures:
                    future.result()
            except BaseException as error:  # noqa: BLE001 - an interrupt of the task too has to end the workers
                self._stop(error)
                # Workers that were stopped for it end badly too; what they say of that is of no use.
                assert self._first is not None
                raise self._first from None
        return [found[number] for number in sorted(found)]

    def _work(self, numbers: queue.SimpleQueue[int], found: dict[int, PartDone]) -> None:
        """One worker, as long as there are parts."""
        try:
            with self._worker() as process:
                while not self._stopped.is_set():
                    try:
                        number = numbers.get_nowait()
                    except queue.Empty:
                        return
                    part = self._split.parts[number].serialize()
                    order = {"part": number, "source": part, "marks": str(self.marks_path(number))}
                    found[number] = self._answer(process, order)
        except BaseException as error:  # whatever it is, the other workers have to end; the error goes on
            self._stop(error)
            raise

    def explain(self, repeated: Repeated, others: int) -> None:
        """Have a worker, since it has the seed, look for the keys that stand twice. Raises BadRows unless it finds none."""
        parts = [part.serialize() for part in self._split.parts]
        order = {"again": parts, "marks": sorted(repeated.marks), "rows": repeated.rows, "others": others}
        with self._worker() as process:
            done = self._answer(process, order)
        if done.total:
            raise BadRows(self._source_name, done.problems, done.total)

    @contextmanager
    def _worker(self) -> Iterator[subprocess.Popen[bytes]]:
        process = subprocess.Popen(
            _COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=self._environment
        )
        with self._lock:
            self._alive.append(process)
            if self._stopped.is_set():
                process.kill()
        try:
            send(process, self._task)
            yield process
        finally:
            if sys.exc_info()[0] is not None:
                process.kill()
            close(process.stdin)
            process.wait()
            close(process.stdout)

    def _answer(self, process: subprocess.Popen[bytes], order: dict[str, Any]) -> PartDone:
        send(process, order)
        assert process.stdout is not None
        for line in process.stdout:
            begin = line.find(_BEGINS)
            if begin < 0:  # not ours: what an interpreter's sitecustomize or a library prints comes this way too
                continue
            told = msgspec.json.decode(line[begin:], type=Told)
            if told.error:
                raise _error(told)
            if told.rows:
                with self._lock:
                    self._progress.add(told.rows)
            if told.done is not None:
                return told.done
        raise WorkerDied(self._source_name, how_it_ended(process.wait()))

    def _stop(self, error: BaseException) -> None:
        """End all workers. The first error is the one that is raised."""
        with self._lock:
            self._first = self._first or error
            self._stopped.set()
            for process in self._alive:
                process.kill()


def _error(told: Told) -> GeminiBatchError:
    """The error that a worker raised, made again from its facts."""
    kind: Callable[..., GeminiBatchError] = getattr(errors, told.error, WorkerDied)
    return kind(*told.facts)
