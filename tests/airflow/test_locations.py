"""Tasks with several connections: one place is chosen at Prepare, and every later stage goes where the batch is."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from airflow_provider_geminibatch import (
    GeminiBatchCancelOperator,
    GeminiBatchJanitorOperator,
    GeminiBatchLoadOperator,
    GeminiBatchOperator,
    GeminiBatchPrepareOperator,
    GeminiBatchSensor,
    GeminiBatchSubmitOperator,
    Landing,
    RequestTemplate,
    Rung,
    read_window,
)
from airflow_provider_geminibatch.cli.main import main
from airflow_provider_geminibatch.core.landing import JobRef
from airflow_provider_geminibatch.core.ledger import Opening
from airflow_provider_geminibatch.core.manifest import parse_manifests
from airflow_provider_geminibatch.core.model import BatchId, Build
from airflow_provider_geminibatch.emulator import Emulator, running
from airflow_provider_geminibatch.hooks.gemini_batch import GeminiBatchHook
from airflow_provider_geminibatch.hooks.storage import open_workspace
from airflow_provider_geminibatch.jobs.closing import history_path
from airflow_provider_geminibatch.jobs.wait import pause_until, utc_now
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


# Vertex AI: one connection, several locations.

STAGING = "gs://staging/batches"


@pytest.fixture
def vertex(monkeypatch):
    """An emulated Vertex AI and a connection with two locations; its Developer API too. Jobs take five hours."""
    emulator = Emulator(seed=3, start=datetime.now(UTC), speed=0, turnaround=(5, 5), keys={"key": "project"})
    with running(emulator) as server:

        def connect(*locations, **more):
            extra = {"project": "p", "locations": list(locations), "staging": STAGING} | more
            made = {"conn_type": "geminibatch", "host": server.url, "extra": extra}
            monkeypatch.setenv("AIRFLOW_CONN_VERTEX", json.dumps(made))

        connect("europe-west4", "us-central1")
        monkeypatch.setenv("AIRFLOW_CONN_DEVELOPER", connection(server.url, "key"))
        yield Connected(server.emulator, connect)


class Connected(NamedTuple):
    """An emulator, and what points the connection at locations of it."""

    emulator: Emulator
    connect: Callable[..., None]


def locations_of(server):
    """Where each job is, by its name."""
    return [job.name.split("/")[3] if job.name.startswith("projects/") else "developer" for job in server.emulator.jobs]


ONE = {"gemini_conn_id": "vertex"}


def test_a_location_is_chosen_and_the_whole_road_goes_there(vertex, workspace, landing, caplog):
    remember(workspace, "vertex@europe-west4", 57, 6.3)
    remember(workspace, "vertex@us-central1", 41, 2.1)
    with caplog.at_level("INFO"):
        prepared = prepare(**ONE)
    assert (
        "vertex us-central1: half of 41 similar jobs took 2.1 h against 6.3 h at vertex europe-west4 (57 jobs); same price; chosen"
        in caplog.messages
    )
    submitted = submit(prepared, **ONE)
    assert locations_of(vertex) == ["us-central1"]
    sensor = GeminiBatchSensor(task_id="wait", submitted=submitted, **ONE)
    with pytest.raises(TaskDeferred) as deferral:
        sensor.execute(context("wait", **WINDOW))
    assert deferral.value.trigger.conn_id == "vertex@us-central1"
    vertex.emulator.clock.advance(hours=6)
    waited = sensor.resume(context("wait", **WINDOW), {})
    loaded = GeminiBatchLoadOperator(task_id="load", submitted=waited, to=landing, **ONE)
    assert loaded.execute(context("load", **WINDOW))["counts"] == {"answer": 2}


def test_locations_added_or_reordered_move_no_batch_and_one_taken_away_only_what_was_never_sent(vertex, workspace):
    prepared = prepare(**ONE)
    vertex.connect("us-central1", "europe-west4", "global")
    assert prepare(**ONE)["uri"] == prepared["uri"]
    # Nothing was sent, and the location is not wanted any more: a new generation goes where it may.
    vertex.connect("us-central1")
    moved = prepare(**ONE)
    assert opening_of(moved).generation == 2
    submit(moved, **ONE)
    assert locations_of(vertex) == ["us-central1"]
    # A job is there now, so that it stays, and is reached there.
    vertex.connect("europe-west4")
    assert prepare(**ONE)["uri"] == moved["uri"]
    submit(moved, **ONE)
    assert locations_of(vertex) == ["us-central1"]


def test_of_both_routes_the_faster_is_chosen_and_the_other_stays_unused(vertex, workspace):
    remember(workspace, "developer", 20, 9)
    remember(workspace, "vertex@europe-west4", 20, 2)
    both = {"gemini_conn_id": ["developer", "vertex@europe-west4"]}
    prepared = prepare(**both)
    assert opening_of(prepared).chosen.startswith(
        "vertex europe-west4: half of 20 similar jobs took 2.0 h against 9.0 h at developer"
    )
    submit(prepared, **both)
    assert locations_of(vertex) == ["europe-west4"]


def test_requests_are_held_to_the_rules_of_the_route_that_was_chosen(vertex, workspace):
    empty = {"contents": [{"parts": [{"text": "hello"}]}], "tools": [{"googleSearch": {}}]}
    requests = [{"key": "a", "request": empty}]
    operator = GeminiBatchPrepareOperator(
        task_id="prepare", model=MODEL, requests=lambda: requests, gemini_conn_id=["vertex", "developer"]
    )
    with pytest.raises(AirflowFailException, match="empty object, and the import of a Vertex AI batch fails"):
        operator.execute(context("prepare", **WINDOW))


@pytest.mark.parametrize(
    ("extra", "model", "said"),
    [
        (
            {"locations": ["global"]},
            "projects/p/locations/us-central1/models/1",
            "tuned models do not run batches at global",
        ),
        (
            {"locations": ["europe-west4"]},
            "projects/p/locations/us-central1/models/1",
            "the tuned model is at us-central1",
        ),
        (
            {"kms_key": "projects/p/locations/us-east1/keyRings/r/cryptoKeys/k"},
            MODEL,
            "the encryption key is at us-east1, and a job's key lies in its own location",
        ),
        (
            {"kms_key": "projects/p/locations/europe-west4/keyRings/r/cryptoKeys/k", "locations": ["europe-west4"]},
            "gemini-3.1-pro-preview",
            "is a preview, and security controls such as an encryption key are not supported",
        ),
    ],
)
def test_what_cannot_run_anywhere_is_named_before_anything_is_uploaded(vertex, workspace, extra, model, said):
    vertex.connect("europe-west4", "us-central1", **extra)
    with pytest.raises(AirflowFailException, match=said):
        prepare(model=model, **ONE)
    assert [
        call.endpoint for call in vertex.emulator.log if "upload" in call.endpoint or "create" in call.endpoint
    ] == []


def test_a_model_that_is_reported_elsewhere_is_sent_where_it_is_and_warned_of_where_there_is_no_choice(
    vertex, workspace, caplog
):
    vertex.connect("us-central1", "global")
    prepared = prepare(model="gemini-3.5-flash-lite", **ONE)
    assert (
        "vertex us-central1 left out: gemini-3.5-flash-lite is reported to be at global only"
        in opening_of(prepared).chosen
    )
    vertex.connect("us-central1")
    prepare(context("other", **WINDOW), model="gemini-3.5-flash-lite", **ONE)
    assert "reported to be at global only" in caplog.text
    assert "a job there may be refused, which costs nothing" in caplog.text


def test_a_rung_resubmits_at_another_location_of_the_same_connection(vertex, workspace, landing):
    vertex.connect("europe-west4")
    vertex.emulator.scenario("never_finishes", jobs=0)
    where, soon = context("all", **WINDOW), timedelta(seconds=2)

    def make():
        return GeminiBatchOperator(
            task_id="all", model=MODEL, template=RequestTemplate("What about $text?"), source=ROWS, to=landing, deadline=soon,
            on_deadline=[Rung("resubmit", limit=timedelta(hours=12), location="us-central1")], poll_interval=1, **ONE,
        )  # fmt: skip

    with pytest.raises(TaskDeferred) as deferral:
        make().execute(where)
    assert deferral.value.trigger.conn_id == "vertex@europe-west4"
    pause_until(utc_now() + soon)
    for _ in range(20):
        vertex.emulator.clock.advance(hours=1)
        try:
            landed = make().resume(where, {"status": "ended"}, prepared=deferral.value.kwargs["prepared"])
            break
        except TaskDeferred:
            continue
    assert landed["counts"] == {"answer": 2}
    assert locations_of(vertex) == ["europe-west4", "us-central1"]


def test_the_janitor_looks_at_every_location(vertex, workspace):
    for place in ("vertex@europe-west4", "vertex@us-central1"):
        submit(prepare(context(f"prepare {place}", **WINDOW), gemini_conn_id=place), gemini_conn_id=place)
    report = GeminiBatchJanitorOperator(task_id="janitor", **ONE).execute(context("janitor"))
    assert report["jobs"] == 2
    assert report["generations"] == 2


def test_jobs_named_by_hand_are_asked_for_at_the_location_in_their_name(vertex, workspace):
    submit(prepare(gemini_conn_id="vertex@us-central1"), gemini_conn_id="vertex@us-central1")
    (job,) = vertex.emulator.jobs
    sensor = GeminiBatchSensor(task_id="wait", job_names=[job.name], gemini_conn_id=["developer", "vertex"])
    with pytest.raises(TaskDeferred) as deferral:
        sensor.execute(context("wait", **WINDOW))
    assert deferral.value.trigger.conn_id == "vertex@us-central1"
    vertex.emulator.clock.advance(hours=6)
    assert sensor.resume(context("wait", **WINDOW), {}) == {"jobs": {job.name: "SUCCEEDED"}}


def test_a_batch_that_a_person_gave_up_is_placed_afresh(vertex, workspace):
    submit(prepare(**ONE), **ONE)
    assert locations_of(vertex) == ["europe-west4"]
    remember(workspace, "vertex@europe-west4", 20, 9)
    remember(workspace, "vertex@us-central1", 20, 2)
    again = prepare(**ONE)
    assert opening_of(again).service.location == "europe-west4"
    assert main(["forget", again["uri"], "--reason", "to be asked elsewhere"]) == 0
    afresh = prepare(**ONE)
    assert (opening_of(afresh).generation, opening_of(afresh).service.location) == (2, "us-central1")
