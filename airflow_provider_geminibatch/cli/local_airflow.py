"""A whole Airflow on this machine: its four processes in a folder of their own, on loopback, gone when the command is.

It is run through the ``airflow`` executable beside this Python, so that the command itself needs no Airflow import.
"""

from __future__ import annotations

import atexit
import base64
import json
import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Self

from airflow_provider_geminibatch.cli.airflow_rest import AirflowRest, AirflowSilent
from airflow_provider_geminibatch.cli.processes import GRACE_SECONDS, Family, Folder, Started, end, free_ports

COMPONENTS: dict[str, tuple[str, ...]] = {
    # Without the two log servers: two processes fewer, and the log files lie on this disk anyway.
    "api-server": ("api-server", "--host", "127.0.0.1"),
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer", "--skip-serve-logs"),
}
"""The four processes and how each is started."""

HEALTH_NAMES = {
    "scheduler": "scheduler",
    "dag-processor": "dag_processor",
    "triggerer": "triggerer",
    "api-server": "metadatabase",
}
"""Under which name Airflow's health page speaks of a component; the API server answers, so it is up."""

USER = "admin"
START_SECONDS = 300.0
CREDENTIALS = ("GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT")


class AirflowTrouble(Exception):
    """A process of Airflow ended, or did not get ready in time. The text ends with where to look."""


class LocalAirflow:
    """Airflow in ``home``. A context manager: what it started has ended when it is left, in whatever way.

    ``options`` are further ``AIRFLOW__…`` and ``AIRFLOW_CONN_…`` variables. ``database`` is a SQLAlchemy URL; SQLite in
    the home without one. ``say`` gets a line for each thing worth showing, ``stop`` ends every wait when it is set.
    """

    def __init__(
        self,
        home: Path,
        dags_folder: Path,
        *,
        options: Mapping[str, str] | None = None,
        database: str | None = None,
        port: int = 0,
        parallelism: int = 4,
        say: Callable[[str], None] = print,
        stop: Event | None = None,
    ) -> None:
        self.home = home.resolve()
        self.logs = self.home / "process-logs"
        self._say = say
        self._stop = stop or Event()
        self._folder = Folder(self.home)
        left = self._folder.end_left_behind()
        if left:
            say(f"Ended {left} processes that an earlier run had left behind.")
        self.port = free_ports(1, [port])[0]
        self.account = (USER, secrets.token_urlsafe(9))
        # SQLite has one writer at a time, and a busy machine can keep the others waiting for more than its usual 5 s.
        database = database or f"sqlite:///{self.home}/airflow.db?timeout=60"
        self.environ = _environ(self.home, dags_folder.resolve(), self.port, parallelism, database) | dict(
            options or {}
        )
        self.rest = AirflowRest(f"http://127.0.0.1:{self.port}", *self.account)
        self._families: dict[str, Family] = {}
        self._lasting: set[str] = set()
        self._stopped = False
        # Whoever forgets to leave the context, or never entered it, leaves no processes behind either.
        atexit.register(self.stop)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def clean(self) -> None:
        """Forget an earlier run: its database, its logs, all that is in the home."""
        for path in self.home.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name not in Folder.OWN_FILES:
                path.unlink()

    def migrate(self) -> None:
        """Make the database. Needed once, before ``start``."""
        password_file = self.home / "simple_auth_manager_passwords.json.generated"
        password_file.write_text(json.dumps(dict([self.account])) + "\n")
        password_file.chmod(0o600)
        self.airflow("db", "migrate")

    def airflow(self, *arguments: str, timeout_seconds: float = START_SECONDS) -> str:
        """Run one ``airflow`` command to its end; what it printed. Raises AirflowTrouble when it fails."""
        name = "-".join(("command", *(word for word in arguments[:2] if word.replace("-", "").isalnum())))
        (self.logs / f"{name}.log").unlink(missing_ok=True)
        family = self.run(name, [executable("airflow"), *arguments], lasting=False)
        self.wait_for(lambda: family.exit_code is not None, f"`airflow {' '.join(arguments)}`", timeout_seconds)
        self._forget(name)
        if family.exit_code != 0:
            words = " ".join(arguments)
            raise AirflowTrouble(
                f"`airflow {words}` ended with {family.exit_code}:\n{family.last_lines()}\nLog: {family.log}"
            )
        return family.log.read_text(errors="replace")

    def run(self, name: str, command: list[str], *, lasting: bool = True) -> Family:
        """Start any command in this Airflow's environment; it ends with it, and a ``lasting`` one not before."""
        family = Family(
            name, command, environ=self.environ, log=self.logs / f"{name}.log", marks=("airflow", "geminibatch")
        )
        self._families[name] = family
        if lasting:
            self._lasting.add(name)
        self._record()
        return family

    def start(self, *names: str) -> None:
        """Start the named components, or all four. ``wait_healthy`` says when they are ready."""
        for name in names or COMPONENTS:
            self.run(name, [executable("airflow"), *COMPONENTS[name]])

    def kill(self, name: str) -> None:
        """End a component and its descendants with SIGKILL, as the machine's memory killer would."""
        self._families[name].kill()
        self._forget(name)

    def restart(self, name: str) -> None:
        """Kill a component if it runs, and start it again."""
        if name in self._families:
            self.kill(name)
        self.start(name)

    def wait_healthy(self, timeout_seconds: float = START_SECONDS) -> None:
        """Return when every running component says it is well. Raises AirflowTrouble when one ends or does not."""
        ready: set[str] = set()
        began = time.monotonic()

        def all_well() -> bool:
            for name in self._components():
                if name not in ready and self._is_well(name):
                    ready.add(name)
                    self._say(f"  {name} is ready ({time.monotonic() - began:.0f} s)")
            return ready.issuperset(self._components())

        self.wait_for(all_well, "Airflow to get ready", timeout_seconds)

    def _is_well(self, name: str) -> bool:
        # A heartbeat from before the start is that of a predecessor, which Airflow takes for healthy for half a minute.
        beat = self.rest.well_since(HEALTH_NAMES[name])
        return beat is not None and beat.timestamp() > self._families[name].started.created_at

    def wait_for(
        self, holds: Callable[[], bool], what: str, timeout_seconds: float, *, every_seconds: float = 0.5
    ) -> None:
        """Return when ``holds()`` does. Raises AirflowTrouble after the time, or as soon as a component has ended."""
        until = time.monotonic() + timeout_seconds
        while not _answered(holds):
            self.check()
            if time.monotonic() > until:
                raise AirflowTrouble(f"Waited {timeout_seconds:.0f} s in vain for {what}. Logs: {self.logs}")
            if self._stop.wait(every_seconds):
                raise KeyboardInterrupt

    def check(self) -> None:
        """Raise AirflowTrouble if something that should last has ended by itself."""
        for name, family in self._families.items():
            if name in self._lasting and family.exit_code is not None:
                raise AirflowTrouble(
                    f"{name} ended by itself with {family.exit_code}:\n{family.last_lines()}\nLog: {family.log}"
                )

    def stop(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """End every process that was started here, and theirs. Safe to call twice."""
        if self._stopped:
            return
        end([family.started for family in self._families.values()], grace_seconds=grace_seconds)
        for family in self._families.values():
            family.wait(1)
        self._families.clear()
        self._record()
        self.rest.close()
        self._folder.release()
        atexit.unregister(self.stop)
        self._stopped = True

    def started(self) -> list[Started]:
        """What runs now."""
        return [family.started for family in self._families.values()]

    def task_logs(self) -> Path:
        """Where the logs of tasks lie."""
        return self.home / "logs"

    def _components(self) -> Iterator[str]:
        return (name for name in self._families if name in COMPONENTS)

    def _forget(self, name: str) -> None:
        self._families.pop(name, None)
        self._lasting.discard(name)
        self._record()

    def _record(self) -> None:
        self._folder.record(self.started())


def _answered(holds: Callable[[], bool]) -> bool:
    try:
        return holds()
    except AirflowSilent:
        # A machine that is busy starting four processes lets a request time out now and then.
        return False


def executable(name: str) -> str:
    """The command beside this Python. Raises AirflowTrouble when it is not installed there."""
    found = Path(sys.executable).with_name(name)
    if not found.exists():
        raise AirflowTrouble(
            f"There is no {name!r} beside {sys.executable}. Install apache-airflow in that environment."
        )
    return str(found)


def _environ(home: Path, dags_folder: Path, port: int, parallelism: int, database: str) -> dict[str, str]:
    """The surroundings without anybody's Airflow settings and credentials, and with ours."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_") and name not in CREDENTIALS
    }
    direct = ",".join(
        filter(None, (os.environ.get("NO_PROXY") or os.environ.get("no_proxy", ""), "127.0.0.1,localhost"))
    )
    return inherited | {
        "NO_PROXY": direct,
        "no_proxy": direct,
        "PYTHONUNBUFFERED": "1",
        # Forked workers that touch Apple's frameworks would abort otherwise.
        "OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES",
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags_folder),
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": str(parallelism),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__SECRET_KEY": secrets.token_urlsafe(32),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(48),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
        "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "5",
        "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
        "AIRFLOW__SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "5",
        # Airflow up to 3.3.2 fails a task whose trigger fires before its first stint has been reported; a shorter
        # heartbeat makes that stint end sooner.
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "AIRFLOW__GEMINIBATCH__FIRST_EVENT_AFTER": "5",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }
