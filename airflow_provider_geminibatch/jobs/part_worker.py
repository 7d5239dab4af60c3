"""A process that writes parts of a source: orders come over standard input, answers go over standard output.

The first line says what all parts have in common. Each line after it is a part to write, or keys to look for in all of them.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import IO, Any

import msgspec

from airflow_provider_geminibatch.core.errors import BadRows, GeminiBatchError
from airflow_provider_geminibatch.core.response_schema import CommonSchema
from airflow_provider_geminibatch.jobs.building import Progress
from airflow_provider_geminibatch.jobs.parallel import Told
from airflow_provider_geminibatch.jobs.parts import Bench, PartDone, from_data, write_part
from airflow_provider_geminibatch.jobs.unique_keys import KeyMarks, Repeated
from airflow_provider_geminibatch.storage.doors import open_files_door, open_store_door
from airflow_provider_geminibatch.storage.sources import source_from

log = logging.getLogger(__name__)


class _Telling(Progress):
    """Says rows as they are written."""

    def __init__(self, source_name: str, out: IO[bytes]) -> None:
        super().__init__(source_name, _now, log)
        self._out, self._untold = out, 0

    def add(self, rows: int) -> None:
        self._untold += rows
        if self._untold >= 10_000:
            _tell(self._out, Told(rows=self._untold))
            self._untold = 0

    def rest(self) -> int:
        """Rows that were not told yet."""
        rows, self._untold = self._untold, 0
        return rows


class Worker:
    """What all orders have in common, opened once."""

    def __init__(self, task: dict[str, Any], out: IO[bytes]) -> None:
        self._declared = from_data(task["declared"])
        self.source_name = self._declared.source_name
        self._bench = msgspec.convert(task["bench"], Bench)
        self._store, self._files = open_store_door(task["store"]), open_files_door(task["files"])
        self._progress, self._out = _Telling(self.source_name, out), out

    def do(self, order: dict[str, Any]) -> Told:
        """Carry out one order."""
        if "again" in order:
            repeated = Repeated(frozenset(order["marks"]), order["rows"])
            return Told(done=self._explained(order["again"], repeated, order["others"]))
        rows = self._rows([order["source"]])
        with KeyMarks() as marks, open(order["marks"], "wb") as file:
            done = write_part(
                order["part"], rows, self._declared, self._bench,
                store=self._store, marks=marks, progress=self._progress, log=log,
            )  # fmt: skip
            marks.write(file)
        return Told(rows=self._progress.rest(), done=done)

    def _rows(self, parts: Sequence[dict[str, Any]]) -> Iterator[Any]:
        for part in parts:
            yield from source_from(part).rows(self._files)

    def _explained(self, parts: Sequence[dict[str, Any]], repeated: Repeated, others: int) -> PartDone:
        try:
            self._declared.road(CommonSchema()).refuse_repeats(lambda: self._rows(parts), repeated, others)
        except BadRows as bad:
            return PartDone(problems=bad.problems, total=bad.total)
        return PartDone()


def work(orders: IO[bytes], out: IO[bytes]) -> None:
    """Carry out all orders; at the first error say which, and end."""
    worker: Worker | None = None
    try:
        for line in orders:
            order = msgspec.json.decode(line)
            if worker is None:
                worker = Worker(order, out)
            else:
                _tell(out, worker.do(order))
    except GeminiBatchError as error:
        _tell(out, Told(error=type(error).__name__, facts=error.args))
    except Exception as error:  # noqa: BLE001 - whatever it was, the parent has to be told; its text may hold a row, its place does not
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{type(error).__name__} in {place.filename.rpartition('/')[2]}, line {place.lineno}"
        _tell(out, Told(error="WorkerDied", facts=(worker.source_name if worker else "the source", where)))


def _tell(out: IO[bytes], told: Told) -> None:
    out.write(msgspec.json.encode(told) + b"\n")
    out.flush()


def _now() -> datetime:
    return datetime.now(UTC)


if __name__ == "__main__":
    work(sys.stdin.buffer, sys.stdout.buffer)
