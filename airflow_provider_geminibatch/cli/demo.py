"""`geminibatch demo`: chained windows on a real Airflow with the emulator as the service, from nothing to a table."""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_geminibatch.cli.demo_view import Downstream
    from airflow_provider_geminibatch.cli.local_airflow import LocalAirflow
    from airflow_provider_geminibatch.core.landing import CommitManifest

_SAYS = "Run chained windows on a local Airflow and the emulator: no key, no account, no network."
DAG_FILE = "02_twelve_hour_chain.py"
WINDOWS_IN_DATA = 14
CHAIN = "twelve_hour_chain"
DOWNSTREAM = "digest"
LANDINGS = 2
SPEED = 3600
UI_PORT = 8080
MARKER = ".geminibatch-demo"
CONNECTIONS: dict[str, dict[str, Any]] = {
    "developer": {"password": "the-emulator-takes-any-key"},
    "vertex": {"extra": {"project": "demo-project", "location": "global", "staging": "gs://demo-bucket/geminibatch"}},
}
"""What a connection holds besides the emulator's address, by route."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("demo", help=_SAYS, description=_SAYS)
    parser.add_argument(
        "--windows",
        type=_windows,
        default=4,
        metavar="N",
        help=f"windows of 12 hours, 1 to {WINDOWS_IN_DATA} (default: 4)",
    )
    parser.add_argument("--keep", action="store_true", help="leave Airflow's UI up afterwards, until Ctrl-C")
    parser.add_argument(
        "--dir", type=Path, default=Path(".demo"), metavar="DIR", help="where everything is written (default: ./.demo)"
    )
    parser.add_argument("--dags-folder", type=Path, metavar="DIR", help=f"where {DAG_FILE} is (default: this checkout)")
    parser.add_argument(
        "--route",
        choices=sorted(CONNECTIONS),
        default="developer",
        help="which API is emulated: vertex is Vertex AI, whose requests and results go through emulated buckets",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the demo. Returns 0 if every window was accepted, 1 if not, 2 if it could not start, 130 after Ctrl-C."""
    from airflow_provider_geminibatch.cli.airflow_rest import AirflowRefused
    from airflow_provider_geminibatch.cli.local_airflow import AirflowTrouble, LocalAirflow
    from airflow_provider_geminibatch.cli.processes import AlreadyRunning

    folder = args.dir.resolve()
    say = functools.partial(print, flush=True)
    with _stoppable() as stop:
        try:
            dag_file = find_dag_file(args.dags_folder)
            claim_folder(folder)
            with LocalAirflow(folder / "airflow", folder / "dags", port=UI_PORT, say=say, stop=stop) as airflow:
                return Demo(airflow, folder, windows=args.windows, keep=args.keep, route=args.route).run(dag_file)
        except (NotStarted, AlreadyRunning) as refusal:
            print(f"geminibatch demo: {refusal}", file=sys.stderr)
            return 2
        except (AirflowTrouble, AirflowRefused) as trouble:
            print(f"geminibatch demo: {trouble}\nEverything was stopped.", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print(f"\nStopped; nothing is left running. Logs: {folder / 'airflow'}", file=sys.stderr)
            return 130


class NotStarted(Exception):
    """The demo cannot start as it was called."""


class Demo:
    """One run of the demo in a folder of its own."""

    def __init__(self, airflow: LocalAirflow, folder: Path, *, windows: int, keep: bool, route: str) -> None:
        self._airflow = airflow
        self._folder = folder
        self._windows = windows
        self._keep = keep
        self._route = route
        self._began = time.monotonic()
        self._shown: dict[str, str] = {}
        self._service = ""

    def run(self, dag_file: Path) -> int:
        """From an empty folder to the table. Returns the exit code."""
        from airflow_provider_geminibatch.cli import demo_view

        several = "s" * (self._windows > 1)
        emulated = (
            "The emulator is Vertex AI and Cloud Storage" if self._route == "vertex" else "The emulator is the service"
        )
        print(
            f"{self._windows} window{several} of 12 hours, two batches each, on a real Airflow. {emulated}, and an hour "
            f"takes it a second.\nThis takes {demo_view.estimate(self._windows)}. Ctrl-C ends it "
            f"and leaves nothing running. Everything is written to {self._folder}",
            flush=True,
        )
        self._airflow.clean()
        self._copy(dag_file)
        self._start()
        self._airflow.wait_for(self._chain_is_there, "the Dag to be read", 120, every_seconds=1)
        self._airflow.wait_for(self._finished, "the windows to land", 300 + 90 * self._windows, every_seconds=1)
        return self._report()

    def _copy(self, dag_file: Path) -> None:
        for name in ("dags", "workspace", "landings"):
            shutil.rmtree(self._folder / name, ignore_errors=True)
        shutil.copytree(dag_file.parent / "data", self._folder / "dags" / "data")
        shutil.copy2(dag_file, self._folder / "dags")

    def _start(self) -> None:
        from airflow_provider_geminibatch.cli.local_airflow import executable

        airflow = self._airflow
        command = [executable("geminibatch"), "emulator", "--port", "0", "--speed", str(SPEED), "--turnaround", "1:23"]
        emulator = airflow.run("emulator", [*command, "--quiet"])
        self._say("Airflow's database")
        airflow.migrate()
        airflow.wait_for(lambda: "http" in emulator.last_lines(), "the emulator", 30)
        self._service = emulator.last_lines().split()[0]
        airflow.environ.update(options(self._folder, self._service, self._windows, self._route))
        airflow.start()
        self._say("Airflow's four processes")
        airflow.wait_healthy()
        self._say(f"Airflow is up: {airflow.rest.url}")

    def _say(self, text: str) -> None:
        passed = int(time.monotonic() - self._began)
        print(f"[{passed // 60}:{passed % 60:02d}] {text}", flush=True)

    def _chain_is_there(self) -> bool:
        if broken := self._airflow.rest.import_errors():
            raise NotStarted("\n".join(broken))
        return {CHAIN, DOWNSTREAM} <= set(self._airflow.rest.dag_ids())

    def _finished(self) -> bool:
        """Show what has changed, and tell whether nothing more will."""
        from airflow_provider_geminibatch.cli import demo_view

        rest = self._airflow.rest
        runs = rest.runs(CHAIN)
        instances = rest.task_instances(CHAIN)
        for run in sorted(runs, key=lambda one: one["logical_date"]):
            own = [one for one in instances if one["dag_run_id"] == run["dag_run_id"]]
            stage = "landed" if run["state"] == "success" else demo_view.stage(own)
            if stage.startswith(demo_view.WORTH_A_LINE) and self._shown.get(run["dag_run_id"]) != stage:
                self._shown[run["dag_run_id"]] = stage
                jobs = demo_view.jobs_line(self._ask_service("jobs")["jobs"])
                self._say(f"{run['logical_date'][:16].replace('T', ' ')}  {stage}   ({jobs})")
        ended = [run for run in runs if run["state"] in ("success", "failed")]
        return len(ended) >= self._windows and self._downstream_is_done(ended)

    def _downstream_is_done(self, ended: list[dict[str, Any]]) -> bool:
        expected = [run for run in ended if run["state"] == "success"]
        return len({window for one in self._downstream(finished=True) for window in one.landed_at}) >= len(expected)

    def _downstream(self, *, finished: bool = False) -> list[Downstream]:
        from airflow_provider_geminibatch.cli.demo_view import Downstream

        rest = self._airflow.rest
        found = []
        for run in rest.runs(DOWNSTREAM):
            if run["start_date"] is None or (finished and run["state"] not in ("success", "failed")):
                continue
            events = rest.upstream_events(DOWNSTREAM, run["dag_run_id"])
            landed = {
                (event["extra"]["landing"], event["extra"]["window"]): datetime.fromisoformat(event["timestamp"])
                for event in events
            }
            found.append(Downstream(run["dag_run_id"], datetime.fromisoformat(run["start_date"]), landed))
        return found

    def _report(self) -> int:
        from airflow_provider_geminibatch.cli import demo_view

        commits = read_commits(self._folder / "landings")
        bill = self._ask_service("bill")
        downstream = self._downstream()
        print(f"\n{demo_view.table(commits, downstream)}\n")
        print(f"The service's bill: {bill['jobs']} jobs, {bill['total_usd']} USD (prices of {bill['prices_as_of']}).")
        print("Times are the service's own; landings and downstream starts are this machine's.")
        for landing in sorted((self._folder / "landings").iterdir()):
            print(f"Parquet: {landing}/window=*/*.parquet")
        found = demo_view.troubles(commits, LANDINGS * self._windows, bill)
        for trouble in found:
            print(f"NOT AS IT SHOULD BE: {trouble}", file=sys.stderr)
        if found:
            print(f"Logs: {self._airflow.task_logs()} (tasks), {self._airflow.logs} (processes)", file=sys.stderr)
        if self._keep:
            self._stay()
        return 1 if found else 0

    def _stay(self) -> None:
        airflow = self._airflow
        user, password = airflow.account
        print(f"\nAirflow: {airflow.rest.url}  user: {user}  password: {password}\nCtrl-C ends it.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            airflow.wait_for(lambda: False, "Ctrl-C", float("inf"))

    def _ask_service(self, what: str) -> dict[str, Any]:
        import httpx

        from airflow_provider_geminibatch.cli.airflow_rest import AirflowSilent

        try:
            answer = httpx.get(f"{self._service}/_emulator/{what}", timeout=10, trust_env=False)
        except httpx.TransportError as error:
            raise AirflowSilent(f"the emulator at {self._service}: {error!r}") from error
        found: dict[str, Any] = answer.json()
        return found


def options(folder: Path, service: str, windows: int | None, route: str = "developer") -> dict[str, str]:
    """What the chain needs to know: where the service is, where to write, and how many windows there are to be."""
    connection = {"conn_type": "geminibatch", "host": service, **CONNECTIONS[route]}
    return {
        "AIRFLOW_CONN_GEMINIBATCH_DEFAULT": json.dumps(connection),
        "AIRFLOW__GEMINIBATCH__WORKSPACE": str(folder / "workspace"),
        "AIRFLOW__GEMINIBATCH__POLL_INTERVAL": "1",
        **({} if windows is None else {"GEMINIBATCH_DEMO_WINDOWS": str(windows)}),
    }


def read_commits(landings: Path) -> list[CommitManifest]:
    """The manifest of every window that lies under the folder."""
    import msgspec

    from airflow_provider_geminibatch.core.landing import MANIFEST, CommitManifest

    found = sorted(landings.glob(f"**/{MANIFEST}"))
    return [msgspec.json.decode(path.read_bytes(), type=CommitManifest) for path in found]


def _windows(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= WINDOWS_IN_DATA:
        raise argparse.ArgumentTypeError(f"the data has {WINDOWS_IN_DATA} windows; write 1 to {WINDOWS_IN_DATA}")
    return int(text)


@contextlib.contextmanager
def _stoppable() -> Iterator[Event]:
    """An event that Ctrl-C, SIGTERM and a closed terminal set, instead of breaking off wherever the program is."""
    stop = Event()
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    previous = [signal.signal(number, lambda *_: stop.set()) for number in numbers]
    try:
        yield stop
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)


def find_dag_file(dags_folder: Path | None) -> Path:
    """The Dag file of the demo, in the given folder or in the checkout that this package is part of. Raises NotStarted."""
    folder = dags_folder or Path(__file__).parents[2] / "dags_examples"
    found = folder.resolve() / DAG_FILE
    if found.is_file():
        return found
    raise NotStarted(
        f"{found} is not there. The installed package comes without example Dags: "
        f"clone the repository and pass --dags-folder …/dags_examples."
    )


def claim_folder(folder: Path) -> None:
    """Make the demo's folder, and mark it: its content is deleted by the next demo. Raises NotStarted for anybody else's."""
    marker = folder / MARKER
    try:
        if folder.is_dir() and not marker.exists() and any(folder.iterdir()):
            raise NotStarted(f"{folder} holds something that is not a demo's. Pass another --dir.")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".gitignore").write_text("*\n")
        marker.write_text(
            "Made by `geminibatch demo`, which deletes what lies here when it starts. Delete it whenever you like.\n"
        )
    except OSError as error:
        raise NotStarted(f"{folder} cannot be used: {error.strerror or error}. Pass another --dir.") from None
