"""Processes that a command starts: each in a session of its own, so that all its descendants can be found and ended.

A descendant cannot be found by its name (Airflow's rename themselves) nor by its parent (a killed parent leaves
orphans), but its session stays. What was started is written down, so that the next command can end what a killed one
left behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import psutil  # type: ignore[import-untyped]

GRACE_SECONDS = 5.0


@dataclass(frozen=True)
class Started:
    """A session leader: enough to know it again, since a pid alone may by now belong to someone else."""

    name: str
    pid: int
    created_at: float
    marks: tuple[str, ...]

    def members(self) -> list[psutil.Process]:
        """Every live process of the session and descendant of its leader; none if the pid is now someone else's."""
        found = {process.pid: process for process in _session(self.pid)}
        with contextlib.suppress(psutil.Error):
            leader = psutil.Process(self.pid)
            if abs(leader.create_time() - self.created_at) > 1:
                return []
            found |= {child.pid: child for child in leader.children(recursive=True) if _lives(child)}
        return list(found.values())

    def left_behind(self) -> list[psutil.Process]:
        """The members whose command line says that they are ours; for a record that may be days old."""
        return [process for process in self.members() if any(mark in _command(process) for mark in self.marks)]


def _session(leader: int) -> Iterator[psutil.Process]:
    for pid in psutil.pids():
        with contextlib.suppress(OSError, psutil.Error):
            if os.getsid(pid) == leader:
                process = psutil.Process(pid)
                if _lives(process):
                    yield process


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


class Family:
    """One started command and everything it starts, with its output in a log file."""

    def __init__(
        self, name: str, command: Sequence[str], *, environ: Mapping[str, str], log: Path, marks: Iterable[str] = ()
    ):
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                list(command),
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started = Started(name, self._process.pid, _created_at(self._process.pid), (name, *marks))

    @property
    def exit_code(self) -> int | None:
        """None while the leader runs."""
        return self._process.poll()

    def wait(self, seconds: float) -> int | None:
        """The exit code of the leader, or None when it still runs after ``seconds``."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """End the whole family at once, as a machine that dies would."""
        end([self.started], grace_seconds=0)
        self._process.wait()

    def last_lines(self, count: int = 15) -> str:
        """The end of the log, for an error message."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-count:])


def _created_at(pid: int) -> float:
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return 0.0


def end(families: Iterable[Started], *, grace_seconds: float = GRACE_SECONDS) -> None:
    """Ask every process of the families to end, then kill what is left, until nothing is."""
    families = list(families)
    if grace_seconds:
        _signal([process for family in families for process in family.members()], signal.SIGTERM)
        _gone(families, grace_seconds)
    # A process may start another between the look and the kill: look again until a look finds none.
    for _ in range(20):
        _signal([process for family in families for process in family.members()], signal.SIGKILL)
        if _gone(families, 3):
            return


def _gone(families: Iterable[Started], seconds: float) -> bool:
    """Whether nothing of the families is left within the time. A zombie is gone: it does and holds nothing."""
    until = time.monotonic() + seconds
    while any(family.members() for family in families):
        if time.monotonic() > until:
            return False
        Event().wait(0.05)
    return True


def _signal(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)


def free_ports(count: int, preferred: Sequence[int] = ()) -> list[int]:
    """Loopback ports that nobody uses; the preferred ones where they are free."""
    with contextlib.ExitStack() as held:
        return [_bound(held, preferred[at] if at < len(preferred) else 0) for at in range(count)]


def _bound(held: contextlib.ExitStack, preferred: int) -> int:
    for port in (preferred, 0):
        probe = held.enter_context(socket.socket())
        # Sockets of a server that has just ended would count as taken for a minute otherwise.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise OSError("no free port on 127.0.0.1")


class AlreadyRunning(Exception):
    """Another command uses the folder now."""


class Folder:
    """A folder that one command uses at a time. Its record names what was started there and not yet ended."""

    OWN_FILES = ("lock", "processes.json")

    def __init__(self, path: Path) -> None:
        self.path = path
        self._record = path / self.OWN_FILES[1]
        path.mkdir(parents=True, exist_ok=True)
        self._lock = (path / self.OWN_FILES[0]).open("a+")
        try:
            # The lock ends with its holder, however that ends; a pid in a file would not.
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise AlreadyRunning(
                f"{path} is in use by another run of this command. End that one, or pass another --dir."
            ) from None

    def end_left_behind(self) -> int:
        """End what an earlier command started here and could not end; the number of processes ended."""
        try:
            rows = json.loads(self._record.read_text())
        except (OSError, ValueError):
            return 0
        families = [Started(**{**row, "marks": tuple(row["marks"])}) for row in rows]
        left = [process for family in families for process in family.left_behind()]
        _signal(left, signal.SIGKILL)
        if left:
            _gone(families, 5)
        self._record.unlink(missing_ok=True)
        return len(left)

    def record(self, families: Iterable[Started]) -> None:
        """Write down what runs, before anything else may happen to this process."""
        rows = [
            {"name": one.name, "pid": one.pid, "created_at": one.created_at, "marks": one.marks} for one in families
        ]
        if not rows:
            self._record.unlink(missing_ok=True)
            return
        draft = self._record.with_suffix(".new")
        draft.write_text(json.dumps(rows))
        draft.replace(self._record)

    def release(self) -> None:
        """Let the next command in."""
        self._lock.close()
