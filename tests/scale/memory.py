"""The most memory of a process, for scripts that run in one of their own."""

from __future__ import annotations

from pathlib import Path


def peak_bytes() -> int:
    """The peak of this process; ``ru_maxrss`` would count that of the process which started it, too."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) * 1024
