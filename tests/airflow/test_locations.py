"""Tasks with several connections: one place is chosen at Prepare, and every later stage goes where the batch is."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from airflow_provider_geminibatch import (
    GeminiBatchCancelOperator,
    GeminiBatchLoadOperator,
    GeminiBatchOperator,
    GeminiBatchPrepareOperator,
    GeminiBatchSensor,
    GeminiBatchSubmitOperator,
    Landing,
    RequestTemplate,
    read_window,
)
from airflow_provider_geminibatch.core.landing import JobRef
from airflow_provider_geminibatch.core.ledger import Opening
from airflow_provider_geminibatch.core.manifest import parse_manifests
from airflow_provider_geminibatch.core.model import BatchId, Build
from airflow_provider_geminibatch.emulator import Emulator, running
from airflow_provider_geminibatch.hooks.gemini_batch import GeminiBatchHook
from airflow_provider_geminibatch.hooks.storage import open_workspace
from airflow_provider_geminibatch.jobs.closing import history_path
from airflow_provider_geminibatch.storage import facts
from tests.airflow.faces import connection, context, interval

pytestmark = pytest.mark.airflow

MODEL = "gemini-3.8-flash"
WINDOW = interval(datetime(2018, 1, 31, tzinfo=UTC), datetime(2018, 1, 31, 12, tzinfo=UTC))
BOTH = ["far", "near"]
ROWS = [{"id": "k0", "text": "rain"}, {"id": "k1", "text": "snow"}]


@pytest.fixture
def services(monkeypatch):
    """Two services with a connection each; jobs take five hours at either."""
    with ExitStack() as stack:
        found = {}
        for seed, name in enumerate(BOTH):
            emulator = Emulator(
                seed=seed, start=datetime.now(UTC), speed=0, turnaround=(5, 5), keys={name: name, f"{name}-2": name}
            )
            found[name] = stack.enter_context(running(emulator))
            monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", connection(found[name].url, name))
        yield found


@pytest.fixture
def landing(tmp_path):
    return Landing("answers", str(tmp_path / "landings" / "answers"))


def jobs_at(services):
    return {name: len(server.emulator.jobs) for name, server in services.items()}


def later(services, hours):
    for server in services.values():
        server.emulator.clock.advance(hours=hours)


def remember(workspace, name, count, hours):
    """Ended jobs of a service, as closed batches leave them."""
    store = open_workspace(workspace).store
    service, now = str(GeminiBatchHook(name).identity()), datetime.now(UTC)
    build = Build(
        id="b", tag="b", batch=BatchId("dag", "run", "task"), generation=1, workspace_id="w", workspace_uri="w",
        model=MODEL, created_at=now, shards=(), rows=0, size_bytes=0,
    )  # fmt: skip
    for number in range(count):
        ended = now - timedelta(hours=number)
        job = JobRef(
            name=f"{name}/{number}", shard="0", state="SUCCEEDED", rows=2, ended_at=ended,
            created_at=ended - timedelta(hours=hours),
        )  # fmt: skip
        store.create(history_path(build, service, job), b"")


def remember_both(workspace):
    remember(workspace, "far", 57, 6.3)
    remember(workspace, "near", 41, 2.1)


def prepare(run=None, rows=None, **more):
    arguments = {"model": MODEL, "template": RequestTemplate("What about $text?"), "gemini_conn_id": BOTH} | more
    operator = GeminiBatchPrepareOperator(task_id="prepare", source=rows or ROWS, **arguments)
    return operator.execute(run or context("prepare", **WINDOW))


def submit(prepared, run=None, **more):
    arguments = {"gemini_conn_id": BOTH} | more
    operator = GeminiBatchSubmitOperator(task_id="submit", prepared=prepared, **arguments)
    return operator.execute(run or context("submit", **WINDOW))


def load(submitted, landing, **more):
    operator = GeminiBatchLoadOperator(task_id="load", submitted=submitted, to=landing, gemini_conn_id=BOTH, **more)
    return operator.execute(context("load", **WINDOW))


def opening_of(prepared):
    (manifest,) = parse_manifests(prepared)
    store = open_workspace(manifest.workspace).store
    return facts.get(store, f"{manifest.path.rpartition('/builds/')[0]}/batch.json", Opening)


def test_the_faster_of_two_connections_is_chosen_and_the_whole_road_goes_there(services, workspace, landing, caplog):
    remember_both(workspace)
    with caplog.at_level("INFO"):
        prepared = prepare()
    told = [record.getMessage() for record in caplog.records if record.getMessage().endswith("; chosen")]
    assert told == [
        "developer (near): half of 41 similar jobs took 2.1 h against 6.3 h at developer (far) (57 jobs); same price; chosen"
    ]
    assert opening_of(prepared).chosen == told[0]
    submitted = submit(prepared)
    assert jobs_at(services) == {"far": 0, "near": 1}
    later(services, 6)
    waited = GeminiBatchSensor(task_id="wait", submitted=submitted, gemini_conn_id=BOTH).execute(
        context("wait", **WINDOW)
    )
    assert load(waited, landing)["counts"] == {"answer": 2}
    assert {row["key"] for row in read_window(landing, "20180131T000000Z")} == {"k0", "k1"}


def test_without_history_the_first_connection_stands(services, workspace):
    submit(prepare())
    assert jobs_at(services) == {"far": 1, "near": 0}


def test_a_text_with_commas_names_connections_too(services, workspace):
    remember_both(workspace)
    submit(prepare(gemini_conn_id="far, near"), gemini_conn_id="far, near")
    assert jobs_at(services) == {"far": 0, "near": 1}


def test_a_place_without_the_model_is_left_out_before_anything_is_built(services, workspace, monkeypatch):
    # The alias is there on v1beta only.
    monkeypatch.setenv("AIRFLOW_CONN_NEAR", connection(services["near"].url, "near", api_version="v1"))
    prepared = prepare(model="gemini-flash-latest", gemini_conn_id=["near", "far"])
    assert opening_of(prepared).chosen == (
        "developer (far): the only place where the batch can run; chosen; developer (near) left out: the service does not have "
        "gemini-flash-latest there"
    )
    submit(prepared)
    assert jobs_at(services) == {"far": 1, "near": 0}


def test_a_batch_stays_where_it_was_when_the_history_changes_its_mind_and_it_is_cleared(services, workspace):
    remember_both(workspace)
    submit(prepare())
    remember(workspace, "near", 60, 40.0)
    again = prepare(context("prepare", max_tries=2, **WINDOW), rows=[*ROWS, {"id": "k2", "text": "hail"}])
    assert opening_of(again).generation == 2
    assert opening_of(again).service == GeminiBatchHook("near").identity()
    submit(again, context("submit", max_tries=2, **WINDOW))
    assert jobs_at(services) == {"far": 0, "near": 2}


def test_a_connection_added_to_the_list_moves_no_sealed_batch(services, workspace):
    prepared = prepare(gemini_conn_id="far")
    remember_both(workspace)
    assert prepare(gemini_conn_id=["near", "far"])["uri"] == prepared["uri"]
    submit(prepared, gemini_conn_id=["near", "far"])
    assert jobs_at(services) == {"far": 1, "near": 0}


def test_a_rotated_key_changes_no_sealed_batch(services, workspace, monkeypatch):
    remember_both(workspace)
    prepared = prepare()
    monkeypatch.setenv("AIRFLOW_CONN_NEAR", connection(services["near"].url, "near-2"))
    assert prepare()["uri"] == prepared["uri"]
    submit(prepared)
    assert jobs_at(services) == {"far": 0, "near": 1}


def test_batches_at_different_places_are_waited_for_and_land_together(services, workspace, landing):
    first = submit(prepare(context("one", **WINDOW), gemini_conn_id="far"))
    second = submit(prepare(context("two", **WINDOW), rows=[{"id": "k9", "text": "wind"}], gemini_conn_id="near"))
    assert jobs_at(services) == {"far": 1, "near": 1}
    sensor = GeminiBatchSensor(task_id="wait", submitted=[first, second], gemini_conn_id=BOTH)
    with pytest.raises(TaskDeferred) as deferral:
        sensor.execute(context("wait", **WINDOW))
    trigger = deferral.value.trigger
    assert trigger.conn_id == "far"
    assert list(trigger.ledgers_elsewhere) == ["near"]
    services["far"].emulator.clock.advance(hours=6)
    with pytest.raises(TaskDeferred) as deferral:
        sensor.resume(context("wait", **WINDOW), {})
    assert deferral.value.trigger.conn_id == "near"
    services["near"].emulator.clock.advance(hours=6)
    landed = load(sensor.resume(context("wait", **WINDOW), {}), landing)
    assert landed["counts"] == {"answer": 3}


def test_batches_at_different_places_are_cancelled_where_they_are(services, workspace):
    first = submit(prepare(context("one", **WINDOW), gemini_conn_id="far"))
    second = submit(prepare(context("two", **WINDOW), gemini_conn_id="near"))
    cancel = GeminiBatchCancelOperator(task_id="cancel", submitted=[first, second], gemini_conn_id=BOTH)
    assert len(cancel.execute(context("cancel", **WINDOW))["asked"]) == 2


def test_a_connection_that_is_gone_is_named_rather_than_another_used(services, workspace, monkeypatch):
    remember_both(workspace)
    prepared = prepare()
    monkeypatch.delenv("AIRFLOW_CONN_NEAR")
    with pytest.raises(AirflowFailException, match="'near': it does not exist"):
        submit(prepared)
    assert jobs_at(services) == {"far": 0, "near": 0}


def test_the_one_task_operator_goes_where_its_batch_is(services, workspace, landing):
    remember_both(workspace)
    operator = GeminiBatchOperator(
        task_id="all", model=MODEL, template=RequestTemplate("What about $text?"), source=ROWS, to=landing,
        gemini_conn_id=BOTH,
    )  # fmt: skip
    with pytest.raises(TaskDeferred) as deferral:
        operator.execute(context("all", **WINDOW))
    assert deferral.value.trigger.conn_id == "near"
    assert jobs_at(services) == {"far": 0, "near": 1}
    later(services, 6)
    assert operator.resume(context("all", **WINDOW), {"status": "ended"})["counts"] == {"answer": 2}
