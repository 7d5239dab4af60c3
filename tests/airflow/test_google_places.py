"""Everything in Cloud Storage: source, workspace and landing as ``gs://``, by either route and by each kind of credentials."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import distributions
from typing import Any

import pytest

from airflow_provider_geminibatch import Landing, read_window
from airflow_provider_geminibatch.core.errors import StoreUnwritable
from airflow_provider_geminibatch.emulator import Emulator, Server, running
from airflow_provider_geminibatch.hooks.landing import open_landing
from airflow_provider_geminibatch.hooks.storage import open_store, open_workspace
from tests.airflow.faces import context
from tests.airflow.test_operators import QUESTION, WINDOW, load, prepare, submit
from tests.routes import DEVELOPER, VERTEX, Route, both

pytestmark = [pytest.mark.airflow, pytest.mark.filterwarnings("ignore:.*:ResourceWarning")]

INSTALLED = {distribution.name for distribution in distributions()}
WINDOW_KEY = "20180131T000000Z"
AIRFLOWS = "google_cloud_default"
# Airflow's own connection where Google's provider is installed, which is one of the two installs.
PLACES = ["", "ours@", *([f"{AIRFLOWS}@"] if "apache-airflow-providers-google" in INSTALLED else [])]


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """An emulator that is Google Cloud to this process: `gs://` without a connection means it, and two connections lead there."""
    pytest.importorskip("gcsfs")
    with running(Emulator(seed=7, start=datetime.now(UTC), speed=0, turnaround=(5, 5))) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        monkeypatch.setenv("AIRFLOW_CONN_OURS", VERTEX.connection(server.url))
        airflows = {"conn_type": "google_cloud_platform", "extra": {"is_anonymous": True, "project": "p"}}
        monkeypatch.setenv("AIRFLOW_CONN_" + AIRFLOWS.upper(), json.dumps(airflows))
        yield server


@pytest.fixture(params=PLACES)
def root(request: pytest.FixtureRequest, google: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket, as the three kinds of credentials open it."""
    place = f"gs://{request.param}lake"
    monkeypatch.setenv("AIRFLOW__GEMINIBATCH__WORKSPACE", f"{place}/workspace")
    return place


def answered(google: Server, source: Any, landing: Landing) -> dict[str, Any]:
    submitted = submit(prepare(source, template=QUESTION))
    google.emulator.clock.advance(hours=6)
    landed: dict[str, Any] = load(submitted, landing, context("load", **WINDOW))
    return landed


@both
@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_rows_in_cloud_storage_become_a_window_there(
    google: Server, root: str, route: Route, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_GEMINIBATCH_DEFAULT", route.connection(google.url))
    landing = Landing("answers", f"{root}/landings/answers", format=form)
    open_store(f"{root}/events").write("a.csv", b"id,text\nk0,rain\nk1,snow\n")

    landed = answered(google, f"{root}/events/*.csv", landing)

    assert (landed["counts"], landed["verdict"]) == ({"answer": 2}, "accepted")
    found = {row["key"]: row["text"] for row in read_window(landing, WINDOW_KEY)}
    assert ("rain" in found["k0"], "snow" in found["k1"]) == (True, True)
    assert open_landing(landing.uri).windows() == [WINDOW_KEY]
    names = [stored.name for stored in google.emulator.buckets.list("lake")]
    assert {name.split("/")[0] for name in names} == {"events", "workspace", "landings"}
    assert google.emulator.log.count(route.endpoint("batches.create")) == 1


def test_a_clear_finds_its_ledger_again(google: Server, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_GEMINIBATCH_DEFAULT", VERTEX.connection(google.url))
    landing = Landing("answers", f"{root}/landings/answers")
    rows = [{"id": "k0", "text": "rain"}]
    first = answered(google, rows, landing)

    prepared = prepare(rows, context("prepare", try_number=2, max_tries=1, **WINDOW), template=QUESTION)
    again = submit(prepared, context("submit", try_number=2, max_tries=1, **WINDOW))

    assert again["jobs"] == 1
    assert google.emulator.log.count("vertex.create") == 1
    assert load(again, landing, context("load", try_number=2, max_tries=1, **WINDOW))["commit"] == first["commit"]


@pytest.fixture
def impatient(google: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Where gcsfs asks again at once, and not after a second or two."""
    monkeypatch.setenv("AIRFLOW_CONN_GEMINIBATCH_DEFAULT", DEVELOPER.connection(google.url))
    monkeypatch.setattr(gcsfs_retry(), "min", lambda *_: 0, raising=False)
    return google


def test_whatever_reply_of_the_ledger_is_lost_the_job_is_sent_at_once_and_once(
    impatient: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator = impatient.emulator

    def sent(name: str) -> int:
        """How many objects are written until the job is there."""
        monkeypatch.setenv("AIRFLOW__GEMINIBATCH__WORKSPACE", f"gs://lake/{name}")
        before = emulator.log.count("storage.upload", status=200)
        submit(prepare([{"id": "k0", "text": "rain"}], template=QUESTION))
        return emulator.log.count("storage.upload", status=200) - before

    sent("first")  # what is written once for all is out of the way
    for number in range(sent("second")):
        emulator.scenario("upload_reply_lost", after=number)
        sent(str(number))
        assert [switch.left for switch in emulator.switches] == [0]
        emulator.switch_off()
        assert len(emulator.jobs) == number + 3


@pytest.mark.parametrize(
    ("scenario", "settings"),
    [
        ("upload_reply_lost", {}),
        ("dropped_calls", {"endpoint": "storage.upload"}),
        ("burst_503", {"endpoint": "storage.download"}),
        ("cut_download", {}),
    ],
)
def test_what_befalls_calls_to_the_store_changes_no_window(
    impatient: Server, monkeypatch: pytest.MonkeyPatch, scenario: str, settings: dict[str, str]
) -> None:
    for number in range(0, 24, 6):
        monkeypatch.setenv("AIRFLOW__GEMINIBATCH__WORKSPACE", f"gs://lake/{number}/workspace")
        landing = Landing("answers", f"gs://lake/{number}/landing")
        impatient.emulator.scenario(scenario, after=number, **settings)
        landed = answered(impatient, [{"id": "k0", "text": "rain"}, {"id": "k1", "text": "snow"}], landing)
        impatient.emulator.switch_off()
        assert landed["counts"] == {"answer": 2}
        assert [row["key"] for row in read_window(landing, WINDOW_KEY)] == ["k0", "k1"]
        assert len(impatient.emulator.jobs) == number // 6 + 1


def gcsfs_retry() -> Any:
    from gcsfs import retry

    return retry


def test_a_workspace_there_is_strong_enough(google: Server, root: str) -> None:
    one, other = open_workspace(f"{root}/ws"), open_workspace(f"{root}/ws")

    assert one.id == other.id
    assert (one.store.create("fact", b"1"), other.store.create("fact", b"1")) == (True, False)


def test_a_process_beside_prepares_there_too(google: Server, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_GEMINIBATCH_DEFAULT", VERTEX.connection(google.url))
    lines = "".join(f"k{number},word {number}\n" for number in range(2000))
    open_store(f"{root}/events").write("a.csv", f"id,text\n{lines}".encode())

    prepared = prepare(f"{root}/events/a.csv", template=QUESTION, processes=2)

    assert prepared["rows"] == 2000


def test_a_bucket_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gcsfs")
    with running(Emulator(buckets=("lake",))) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        with pytest.raises(StoreUnwritable, match=r"gs://sea/ws/.* there is no bucket sea"):
            open_workspace("gs://sea/ws")
