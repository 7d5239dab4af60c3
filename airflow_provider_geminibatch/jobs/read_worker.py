"""A process that reads result files: orders come over standard input, answers go over standard output, a line each."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import IO

import msgspec

from airflow_provider_geminibatch.core.errors import GeminiBatchError
from airflow_provider_geminibatch.core.kinds import check_of
from airflow_provider_geminibatch.jobs.parallel_reading import ReadOrder, ReadTold
from airflow_provider_geminibatch.jobs.reading import read_results, told
from airflow_provider_geminibatch.storage.doors import open_store_door
from airflow_provider_geminibatch.storage.spool import Disk


def work(orders: IO[bytes], out: IO[bytes]) -> None:
    """Carry out all orders. An error of one is said, and those after it are carried out all the same."""
    for line in orders:
        _tell(out, _carried_out(msgspec.json.decode(line, type=ReadOrder)))


def _carried_out(order: ReadOrder) -> ReadTold:
    disk = Disk(order.place, order.spool_bytes, order.spool_path) if order.place is not None else None
    try:
        store, check = open_store_door(order.door), check_of(order.build)
        read = read_results(store, disk, order.shard, order.sealed, check, order.price)
        return ReadTold(read=told(read, Path(order.rows_path)))
    except GeminiBatchError as error:
        return ReadTold(error=type(error).__name__, facts=error.args)
    except Exception as error:  # noqa: BLE001 - whatever it was, the parent has to be told; its text may hold a row, its place does not
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{type(error).__name__} in {place.filename.rpartition('/')[2]}, line {place.lineno}"
        return ReadTold(error="ReaderDied", facts=(str(order.shard), where))


def _tell(out: IO[bytes], said: ReadTold) -> None:
    out.write(msgspec.json.encode(said) + b"\n")
    out.flush()


if __name__ == "__main__":
    work(sys.stdin.buffer, sys.stdout.buffer)
