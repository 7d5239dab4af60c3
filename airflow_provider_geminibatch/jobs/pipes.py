"""Orders to a process over its standard input, and how it ended."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import IO, Any

import msgspec

from airflow_provider_geminibatch.core.errors import Unusable


def command_of(module: str) -> tuple[str, ...]:
    """What starts a module in a process of the same interpreter."""
    # -P: what lies in the folder that the task runs in is nothing to import.
    return (sys.executable, "-P", "-m", module)


def processes_of(asked: int | None) -> int:
    """How many processes to use: so many as were asked for, else one for each CPU that this one may use. Raises Unusable."""
    if asked is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if asked < 1:
        raise Unusable("processes", f"{asked} processes do nothing", "Pass 1 or more.")
    return asked


def send(process: subprocess.Popen[bytes], order: Any) -> None:
    """Give an order, as a line of JSON."""
    assert process.stdin is not None
    try:
        process.stdin.write(msgspec.json.encode(order) + b"\n")
        process.stdin.flush()
    except BrokenPipeError:
        return  # it has died; its silence says so


def close(pipe: IO[bytes] | None) -> None:
    """Close a pipe, whoever is at its other end."""
    try:
        if pipe is not None:
            pipe.close()
    except BrokenPipeError:
        return


def how_it_ended(code: int) -> str:
    """The end of a process in words."""
    if code >= 0:
        return f"it ended with code {code}"
    return f"it was ended by signal {-code}" + (", as happens when memory runs out" if code == -9 else "")


__all__ = ["close", "command_of", "how_it_ended", "processes_of", "send"]
