"""Every example parses without network and heavy imports, and runs against the emulator."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from airflow_provider_geminibatch import Landing, read_window
from airflow_provider_geminibatch.emulator import Emulator, running
from tests.routes import DEVELOPER, VERTEX, Route

pytestmark = pytest.mark.airflow

EXAMPLES = Path(__file__).parents[2] / "dags_examples"
EMBEDDINGS: dict[Route, tuple[str, ...]] = {DEVELOPER: ("proverbs",), VERTEX: ()}
"""By Vertex AI there are none: what their results look like is in no source (docs/embeddings.md)."""
FILES = sorted(EXAMPLES.glob("[0-9]*.py"))

SERIALIZE = """
import json, runpy, sys
from airflow.sdk import DAG, Asset
try:
    from airflow.serialization.serialized_objects import DagSerialization
except ImportError:  # Airflow 3.1
    from airflow.serialization.serialized_objects import SerializedDAG as DagSerialization
made = []
post_init = DAG.__attrs_post_init__
DAG.__attrs_post_init__ = lambda self: (post_init(self), made.append(self))[0]
# For the URI of an asset Airflow itself loads what every installed provider says of assets, the Google provider's clients too.
Asset("sql://database/table")
before = set(sys.modules)
runpy.run_path(sys.argv[1])
told = [DagSerialization.to_dict(dag) for dag in made]
# Not google.cloud: a namespace that a .pth file of the Google provider's libraries makes at every start.
heavy = [name for name in ("google.genai", "google.cloud.storage", "pyarrow", "fastapi") if name in sys.modules.keys() - before]
print(json.dumps({"dags": told, "heavy": heavy}, sort_keys=True, default=str))
"""


def python(*arguments, **environment):
    done = subprocess.run(
        [sys.executable, *arguments], env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_example_parses_light_and_the_same_under_every_hash_seed(file):
    one, two = (python("-c", SERIALIZE, str(file), PYTHONHASHSEED=seed)[-1] for seed in ("1", "2"))
    assert one == two
    assert json.loads(one)["heavy"] == []
    assert json.loads(one)["dags"]
    assert " at 0x" not in one


@pytest.mark.parametrize(
    "name", ["01_first_batch", "03_taskflow", "04_deadline_and_rescue", "07_canary", "09_embeddings"]
)
def test_an_example_of_one_thing_is_short(name):
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) < 60


def test_the_data_is_what_its_readme_says():
    lines = (EXAMPLES / "data" / "earthquakes.csv").read_text().splitlines()
    assert len(lines) == 1 + 1_707
    kinds = [line.rpartition(",")[2] for line in lines[1:]]
    assert [kinds.count(kind) for kind in ("earthquake", "explosion", "quarry blast")] == [1_679, 15, 13]


class Asked(NamedTuple):
    """What the service was asked, by the names that the Developer API has for it."""

    route: Route
    emulator: Emulator

    def count(self, endpoint):
        return self.emulator.log.count(self.route.endpoint(endpoint))


# By Vertex AI it is the same story once more, at the same length: with the other long ones (make e2e).
@pytest.fixture(scope="module", params=[DEVELOPER, pytest.param(VERTEX, marks=pytest.mark.e2e_more)], ids=str)
def ran(request, tmp_path_factory):
    """All examples, run once: the ten animals, two windows of the chain, and the digest that nothing has started."""
    home = tmp_path_factory.mktemp("examples")
    wanted = [
        "first_batch",
        "twelve_hour_chain=2018-01-31T12:00:00+00:00",
        "twelve_hour_chain=2018-02-01T00:00:00+00:00",
        "riddles",
        "dishes",
        "digests_in_time=2018-01-31T12:00:00+00:00",
        "many_files",
        "capitals",
        "colours",
        *EMBEDDINGS[request.param],
    ]
    with running(Emulator(seed=7, start=datetime.now(UTC), speed=2 * 3600, turnaround=(1, 3))) as service:
        environment = {
            "AIRFLOW_HOME": str(home / "airflow"),
            "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(EXAMPLES),
            "AIRFLOW__GEMINIBATCH__WORKSPACE": str(home / "workspace"),
            "AIRFLOW__GEMINIBATCH__POLL_INTERVAL": "1",
            "AIRFLOW_CONN_GEMINIBATCH_DEFAULT": request.param.connection(service.url),
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        python("-m", "airflow", "db", "migrate", **environment)
        told = python(str(Path(__file__).with_name("run_dags.py")), str(EXAMPLES), *wanted, "digest", **environment)
        runs = [json.loads(line) for line in told if line.startswith('{"dag": ')]
        return home, runs, Asked(request.param, service.emulator)


@pytest.mark.slow
def test_every_task_of_every_example_succeeds(ran):
    _, runs, asked = ran
    assert [run["dag"] for run in runs] == [
        "first_batch", "twelve_hour_chain", "twelve_hour_chain", "riddles", "dishes", "digests_in_time", "many_files", "capitals",
        "colours", *EMBEDDINGS[asked.route],
        "digest",
    ]  # fmt: skip
    *work, digest = runs
    assert {state for run in work for state in run["tasks"].values()} == {"success"}
    assert digest["tasks"] == {"windows": "success", "write": "skipped"}


@pytest.mark.slow
def test_ten_rows_in_ten_answers_out(ran):
    home, runs, _ = ran
    rows = list(read_window(Landing("first_answers", str(home / "landings" / "first_answers")), runs[0]["run_id"]))
    assert len(rows) == 10
    assert all(row["name"] in row["text"] for row in rows)


@pytest.mark.slow
def test_each_bulletin_is_built_on_the_one_before_it(ran):
    home, _, asked = ran
    bulletins = Landing("bulletins", str(home / "landings" / "bulletins"))
    annotations = Landing("annotations", str(home / "landings" / "annotations"))
    [first] = read_window(bulletins, "20180131T000000Z")
    [second] = read_window(bulletins, "20180131T120000Z")
    assert first["built_on"] == ""
    manifest = json.loads((home / "landings/bulletins/window=20180131T000000Z/_manifest.json").read_text())
    assert second["built_on"] == manifest["commit"]
    rows = list(read_window(annotations, "20180131T000000Z"))
    assert len(rows) == 96
    assert {row["outcome"] for row in rows} == {"answer"}
    assert set(rows[0]["value"]) == {"likely_felt", "by_whom", "note"}
    # 96 and 102 rows in shards of 50, two bulletins, the ten animals; riddles, two regions, digests, two files, capitals,
    # colours and proverbs.
    assert asked.count("batches.create") == 2 + 3 + 2 + 1 + 1 + 2 + 1 + 2 + 1 + 1 + len(EMBEDDINGS[asked.route])


@pytest.mark.slow
def test_the_short_ways_land_too(ran):
    home, runs, _ = ran
    by_dag = {run["dag"]: run["run_id"] for run in runs}
    riddles = list(read_window(Landing("riddles", str(home / "landings" / "riddles")), by_dag["riddles"]))
    assert {row["thing"] for row in riddles} == {"echo", "shadow", "river", "candle"}
    dishes = Landing("dishes_by_region", str(home / "landings" / "dishes_by_region"))
    regions = [list(read_window(dishes, f"{by_dag['dishes']}-{index}")) for index in range(2)]
    assert [{row["region"] for row in rows} for rows in regions] == [{"Liguria"}, {"Jutland"}]
    digests = Landing("digests", str(home / "landings" / "digests"))
    assert len(list(read_window(digests, "20180131T000000Z"))) == 4


@pytest.mark.slow
def test_what_the_canary_answered_lands_with_the_rest(ran):
    home, runs, asked = ran
    capitals = Landing("capitals", str(home / "landings" / "capitals"))
    rows = list(read_window(capitals, next(run["run_id"] for run in runs if run["dag"] == "capitals")))
    assert len(rows) == 12
    assert sum(row["shard"] == "canary" for row in rows) == asked.count("models.generate") == 3


@pytest.mark.slow
def test_every_picture_is_looked_at(ran):
    home, runs, _ = ran
    run_id = next(run["run_id"] for run in runs if run["dag"] == "colours")
    rows = list(read_window(Landing("colours", str(home / "landings" / "colours")), run_id))
    assert [(row["key"], row["outcome"]) for row in rows] == [
        (name, "answer") for name in ("tomato", "teal", "plum", "khaki")
    ]
    assert len(list((home / "workspace" / "media").rglob("0001.json"))) == 4


@pytest.mark.slow
def test_every_proverb_has_a_vector_where_there_are_batches_of_embeddings(ran):
    home, runs, asked = ran
    if not EMBEDDINGS[asked.route]:
        assert "proverbs" not in [run["dag"] for run in runs]
        return
    run_id = next(run["run_id"] for run in runs if run["dag"] == "proverbs")
    rows = list(read_window(Landing("proverb_vectors", str(home / "landings" / "proverb_vectors")), run_id))
    assert [(row["key"], len(row["embedding"])) for row in rows] == [
        ("bird", 256), ("cook", 256), ("hands", 256), ("sparrow", 256),
    ]  # fmt: skip


@pytest.mark.slow
def test_all_files_land_in_one_window(ran):
    home, runs, _ = ran
    run_id = next(run["run_id"] for run in runs if run["dag"] == "many_files")
    rows = list(read_window(Landing("reviews", str(home / "landings" / "reviews")), run_id))
    assert [(row["key"], row["shop"], row["outcome"]) for row in rows] == [
        ("north-0", "north", "answer"), ("north-1", "north", "answer"), ("south-0", "south", "answer"),
    ]  # fmt: skip
