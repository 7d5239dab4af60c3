"""Real Airflow processes, the example chain in them, and an emulator in this process whose clock the test moves."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from airflow_provider_geminibatch.cli.demo import DAG_FILE, options, read_commits
from airflow_provider_geminibatch.cli.local_airflow import LocalAirflow
from airflow_provider_geminibatch.core.landing import CommitManifest
from airflow_provider_geminibatch.core.ledger import Opening
from airflow_provider_geminibatch.core.model import Build
from airflow_provider_geminibatch.core.names import window_text
from airflow_provider_geminibatch.emulator import Emulator, running
from tests.routes import DEVELOPER, Route

EXAMPLES = Path(__file__).parents[2] / "dags_examples"
CHAIN = "twelve_hour_chain"
AN_HOUR_A_SECOND = 3600


class Chain:
    """The example chain on an Airflow of its own. Waits are bounded, and end when a process of Airflow does."""

    def __init__(self, airflow: LocalAirflow, emulator: Emulator, folder: Path, route: Route = DEVELOPER) -> None:
        self.airflow = airflow
        self.rest = airflow.rest
        self.emulator = emulator
        self.folder = folder
        self.route = route

    def wait(self, holds: Callable[[], bool], what: str, seconds: float) -> None:
        try:
            self.airflow.wait_for(holds, what, seconds, every_seconds=1)
        except Exception as trouble:
            trouble.add_note(f"{self.states()}\n{self.emulator.log.counts()}")
            raise

    @contextmanager
    def quiet_database(self) -> Iterator[None]:
        """Nothing else writes while the block runs. `airflow backfill create` reads and writes in one transaction, which
        SQLite ends with "database is locked" when a scheduler writes in between, however long one would wait.
        """
        writers = ("scheduler", "dag-processor", "triggerer")
        for name in writers:
            self.airflow.kill(name)
        yield
        self.airflow.start(*writers)
        self.airflow.wait_healthy()

    def runs(self, dag_id: str = CHAIN) -> dict[str, dict[str, Any]]:
        """Runs with a logical date, by window."""
        runs = self.rest.runs(dag_id)
        return {_window(run["logical_date"]): run for run in runs if run["logical_date"]}

    def states(self, dag_id: str = CHAIN) -> dict[tuple[str, str], str | None]:
        """The state of every task instance, by window (or run) and task."""
        return {
            (_window(one["logical_date"]) if one["logical_date"] else one["dag_run_id"], one["task_id"]): one["state"]
            for one in self.rest.task_instances(dag_id)
        }

    def in_state(self, task_id: str, state: str) -> list[str]:
        """The windows whose task is in the state."""
        return sorted(window for (window, task), now in self.states().items() if (task, now) == (task_id, state))

    def landed(self, count: int) -> bool:
        """Whether ``count`` runs succeeded. Fails at once when one failed."""
        states = [run["state"] for run in self.rest.runs(CHAIN)]
        assert "failed" not in states, self.states()
        return states.count("success") == count

    def backfills_are_done(self, count: int) -> bool:
        """Whether there are that many backfills, all of them ended."""
        backfills = self.rest.backfills(CHAIN)
        return len(backfills) == count and all(one["completed_at"] for one in backfills)

    def commits(self, landing: str) -> dict[str, CommitManifest]:
        """What lies in a landing, by window, oldest first."""
        found = read_commits(self.folder / "landings" / landing)
        return {one.window: one for one in sorted(found, key=lambda one: one.window)}

    def texts(self, landing: str) -> dict[str, list[dict[str, Any]]]:
        """The rows of a landing's windows, read from the parts that the manifests name."""
        import pyarrow.parquet as pq

        base = self.folder / "landings" / landing
        return {
            window: [
                row
                for part in one.parts
                for row in pq.read_table(base / f"window={window}" / part.path, partitioning=None).to_pylist()
            ]
            for window, one in self.commits(landing).items()
        }

    def builds(self) -> list[Build]:
        """The root build of every generation of every batch."""
        opened = sorted(self.folder.glob("workspace/batches/**/batch.json"))
        return [self._build(path.parent, msgspec.json.decode(path.read_bytes(), type=Opening).build) for path in opened]

    def _build(self, generation: Path, build: str) -> Build:
        return msgspec.json.decode((generation / "builds" / f"{build}.json").read_bytes(), type=Build)

    def requests(self, commit: CommitManifest) -> str:
        """The request lines behind a commit, as they were sent."""
        workspace = self.folder / "workspace"
        texts = []
        for origin in commit.origins:
            texts += [
                (workspace / one.path).read_text() for one in self._build(workspace / origin.path, origin.build).shards
            ]
        return "\n".join(texts)

    def assert_one_job_per_shard(self) -> None:
        """As many creates as different shards in all builds, each under a name of its own, and none was cancelled."""
        shards = {(shard.home, shard.index) for build in self.builds() for shard in build.shards}
        names = [job.display_name for job in self.emulator.jobs]
        assert len(names) == len(set(names)) == len(shards)
        assert self.asked("batches.create") == len(shards)
        assert self.asked("batches.cancel") == 0

    def asked(self, endpoint: str) -> int:
        """Calls of an endpoint, by the name that the Developer API has for it."""
        return self.emulator.log.count(self.route.endpoint(endpoint))


def _window(logical_date: str) -> str:
    return window_text(datetime.fromisoformat(logical_date))


@pytest.fixture
def chain(tmp_path):
    """Starts the chain: ``chain(windows=3)``. The clock stands still until the test moves it."""
    stops = []

    def start(
        *,
        windows: int | None = None,
        turnaround: tuple[float, float] = (1, 23),
        extra_dags: tuple[str, ...] = (),
        route: Route = DEVELOPER,
        **more: str,
    ) -> Chain:
        dags = tmp_path / "dags"
        shutil.copytree(EXAMPLES / "data", dags / "data")
        shutil.copy2(EXAMPLES / DAG_FILE, dags)
        for name in extra_dags:
            shutil.copy2(Path(__file__).parent / "dags" / name, dags)
        service = running(Emulator(seed=7, speed=0, turnaround=turnaround))
        server = service.__enter__()
        stops.append(lambda: service.__exit__(None, None, None))
        airflow = LocalAirflow(
            tmp_path / "airflow", dags, options=options(tmp_path, server.url, windows, route.name) | more
        )
        stops.append(airflow.stop)
        airflow.migrate()
        airflow.start()
        airflow.wait_healthy()
        found = Chain(airflow, server.emulator, tmp_path, route)
        found.wait(lambda: CHAIN in airflow.rest.dag_ids(), f"{CHAIN} to be read", 60)
        return found

    yield start
    for stop in reversed(stops):
        stop()
