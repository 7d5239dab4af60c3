"""`geminibatch collect` and `geminibatch cost`: a finished batch lands without Airflow, and what it cost is summed."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from airflow_provider_geminibatch.cli.main import main
from airflow_provider_geminibatch.core.landing import Committed, Origin
from airflow_provider_geminibatch.core.model import BatchId, Owner
from airflow_provider_geminibatch.core.template import RequestTemplate
from airflow_provider_geminibatch.core.verdict import Verdicts
from airflow_provider_geminibatch.emulator import Emulator, running
from airflow_provider_geminibatch.gemini.developer import DeveloperGateway, Settings
from airflow_provider_geminibatch.jobs.prepare import Declaration, Prepared, prepare
from airflow_provider_geminibatch.jobs.report import encoded, read_report, report_path
from airflow_provider_geminibatch.jobs.submit import submit
from airflow_provider_geminibatch.storage.landings import FileLanding, commit, read_rows
from airflow_provider_geminibatch.storage.stores import LocalStore
from tests.storage.test_landings import written

LOG = logging.getLogger("test")
START = datetime(2026, 11, 1, tzinfo=UTC)
W = "20260101T000000Z"


class Service:
    """An emulator, a workspace and a landing on disk."""

    def __init__(self, folder: Path, emulator: Emulator, url: str) -> None:
        self.emulator, self.url = emulator, url
        self.store, self.landing = LocalStore(str(folder / "ws")), str(folder / "notes")
        self.gateway = DeveloperGateway(Settings("key", url))

    def batch(self, task: str = "prepare", *, ended: bool = True, rows: int = 4) -> Prepared:
        now = self.emulator.clock.now
        made = prepare(
            Declaration(model="gemini-3.8-flash", source_name="rows", template=RequestTemplate("Say $text", key="$id")),
            lambda: [{"id": f"{task}-{n}", "text": f"word {n}"} for n in range(rows)], store=self.store,
            workspace_id="w", batch=BatchId("my.dag", "run", task), service=self.gateway.identity, me="me", now=now, log=LOG,
        )  # fmt: skip
        submit(made.manifest, store=self.store, gateway=self.gateway, me="me", now=now, log=LOG)
        if ended:
            self.emulator.clock.advance(hours=4)
        return made

    def collect(self, *more: str, to: str = "", window: str = W) -> int:
        return main(["collect", *more, "--to", to or self.landing, "--window", window, "--endpoint", self.url])

    @property
    def files(self) -> FileLanding:
        return FileLanding(LocalStore(self.landing))

    def keys(self) -> list[str]:
        return [row["key"] for row in read_rows(self.files.store, W)]


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("GEMINI_API_KEY", "key")
    emulator = Emulator(seed=1, start=START, speed=0, turnaround=(2, 3))
    with running(emulator) as server:
        made = Service(tmp_path, emulator, server.url)
        yield made
        made.gateway.close()


def test_a_finished_batch_lands_for_the_task_that_is_named(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    made = service.batch()
    assert service.collect(made.manifest.uri, "--task", "load") == 0
    said = capsys.readouterr().out
    assert said.startswith(f"notes window {W}: 4 rows, commit ")
    assert f"{service.landing}/window={W} is accepted for my.dag.load: 4 of 4 answered." in said
    assert service.keys() == [f"prepare-{n}" for n in range(4)]
    manifest = service.files.manifest(W)
    assert manifest is not None
    assert (manifest.owner, manifest.landing, manifest.format) == (Owner("my.dag", "load"), "notes", "parquet")


def test_collecting_again_changes_nothing_and_asks_for_no_task(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    made = service.batch()
    service.collect(made.manifest.uri, "--task", "load", "--format", "jsonl")
    first = service.files.manifest(W)
    assert service.collect(made.manifest.uri.partition("/builds/")[0]) == 0
    assert service.files.manifest(W) == first
    capsys.readouterr()


def test_columns_that_the_landing_of_the_dag_has_land_too(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    made = service.batch()
    assert service.collect(made.manifest.uri, "--task", "load", "--keep", "raw", "--keep", "thoughts", "--typed") == 0
    assert {"raw", "thoughts"} <= next(read_rows(service.files.store, W)).keys()
    with pytest.raises(SystemExit):
        service.collect(made.manifest.uri, "--task", "load", "--keep", "everything")
    capsys.readouterr()


def test_a_part_in_a_table_is_landed_as_such(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_DB", f"sqlite:///{tmp_path}/rows.db")
    made = service.batch()
    assert service.collect(made.manifest.uri, "--task", "load", "--part", "eu", to="sql://db@/notes") == 0
    assert service.collect(made.manifest.uri, "--part", "eu", to="sql://db@/notes") == 0
    assert main(["cost", "sql://db@/notes", "--json"]) == 0
    (window,) = json.loads(capsys.readouterr().out.splitlines()[-1])["windows"]
    assert (window["window"], window["part"], window["rows"]) == (W, "eu", 4)


def test_several_batches_land_together_and_as_json(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    uris = [service.batch(task).manifest.uri for task in ("b", "a")]
    assert service.collect(*uris, "--task", "load", "--dag", "other", "--map-index", "3", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["rows"], said["verdict"], said["report"]["rows"]) == (8, "accepted", 8)
    assert len(said["report"]["batches"]) == 2
    manifest = service.files.manifest(W)
    assert manifest is not None
    assert manifest.owner == Owner("other", "load", 3)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ((), "Give --task"),
        (("--task", "load"), "has not ended"),
    ],
)
def test_what_cannot_land_is_one_sentence(
    service: Service, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], told: str
) -> None:
    made = service.batch(ended=False)
    assert service.collect(made.manifest.uri, *more) == 1
    assert told in capsys.readouterr().err
    assert list(service.files.commits()) == []


def test_a_window_of_another_task_is_not_replaced(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    made = service.batch()
    service.collect(made.manifest.uri, "--task", "load")
    assert service.collect(made.manifest.uri, "--task", "another") == 1
    assert "my.dag.load" in capsys.readouterr().err


def test_a_window_outside_its_thresholds_lies_apart_and_is_exit_code_1(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    service.emulator.scenario("blocked", rows=(0, 1))
    made = service.batch()
    assert service.collect(made.manifest.uri, "--task", "load") == 1
    assert "2 of 4 answered" in capsys.readouterr().err
    assert service.collect(made.manifest.uri, "--max-unresolved", "0.5") == 0
    capsys.readouterr()
    assert main(["cost", service.landing]) == 0
    assert capsys.readouterr().out.count(W) == 1


def test_a_table_takes_it_too(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_DB", f"sqlite:///{tmp_path}/rows.db")
    made = service.batch()
    assert service.collect(made.manifest.uri, "--task", "load", to="sql://db@/notes") == 0
    assert main(["cost", "sql://db@/notes", "--json"]) == 0


def test_no_batch_at_a_place_is_said(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    assert service.collect(f"{service.store.uri}/batches/d/r/t/map=-1", "--task", "load") == 1
    assert main(["cost", f"{service.store.uri}/batches/d/r/t/map=-1"]) == 1
    assert capsys.readouterr().err.count("there is no batch at that place") == 2


def billed(service: Service) -> Decimal:
    return Decimal(service.emulator.bill()["total_usd"])


def test_the_cost_of_a_landing_is_the_bill_of_the_service(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        made = service.batch(f"p{number}", rows=2 + number)
        service.collect(made.manifest.uri, "--task", "load", window=f"w{number}")
    capsys.readouterr()
    assert main(["cost", service.landing, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [(one["window"], one["rows"]) for one in said["windows"]] == [("w0", 2), ("w1", 3), ("w2", 4)]
    assert Decimal(said["known_usd"]) == billed(service) == Decimal(said["models"]["gemini-3.8-flash"])
    assert (said["sources"][0]["source"], said["sources"][0]["asked"], said["unknown"]) == ("first", 9, [])
    assert main(["cost", service.landing, "w1"]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[1].split()[:3] == ["w1", "3", "3"]
    assert "price: the package's table" in shown


def test_the_cost_of_a_batch_is_its_own_share(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = service.batch("p1"), service.batch("p2", rows=9)
    assert main(["cost", one.manifest.uri]) == 0
    assert "has not landed. Charged so far: 0 USD" in capsys.readouterr().out
    service.collect(one.manifest.uri, two.manifest.uri, "--task", "load")
    capsys.readouterr()
    said = []
    for made in (one, two):
        assert main(["cost", made.manifest.uri, "--json"]) == 0
        said.append(json.loads(capsys.readouterr().out))
    assert [each["sources"][0]["asked"] for each in said] == [4, 9]
    assert sum(Decimal(each["known_usd"]) for each in said) == billed(service)
    assert main(["cost", one.manifest.uri, W]) == 1
    assert "it is a batch, which has no windows" in capsys.readouterr().err


def test_the_cost_of_a_batch_is_that_of_its_newest_commit_with_stray_jobs(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    made = service.batch()
    service.collect(made.manifest.uri, "--task", "load")
    first = service.files.manifest(W)
    assert first is not None
    generation = first.origins[0].path
    report = read_report(service.store, generation, first.commit)
    assert report is not None
    (mine,) = report.batches
    dearer = msgspec.structs.replace(mine, costs=(msgspec.structs.replace(mine.costs[0], cost_usd="0.5"),))
    again = msgspec.structs.replace(report, commit="later", batches=(dearer,), strays_cost_usd="0.25")
    service.store.write(report_path(generation, "later"), encoded(again))
    done = Committed(
        owner="me", at=datetime(2027, 1, 1, tzinfo=UTC), landing="notes", window=W, commit="later", verdict=first.verdict
    )  # fmt: skip
    service.store.write(f"{generation}/commits/later.done", msgspec.json.encode(done))
    capsys.readouterr()
    assert main(["cost", made.manifest.uri, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [(one["source"], one["cost_usd"]) for one in said["sources"]] == [("first", "0.5"), ("stray jobs", "0.25")]
    assert (said["known_usd"], said["unknown"]) == ("0.75", [])


def test_the_report_of_a_table_is_read_from_the_ledger(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_DB", f"sqlite:///{tmp_path}/rows.db")
    service.collect(service.batch().manifest.uri, "--task", "load", to="sql://db@/notes")
    capsys.readouterr()
    assert main(["cost", "sql://db@/notes", "--json"]) == 0
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert said["sources"][0]["source"] == "first"
    assert Decimal(said["known_usd"]) == billed(service)


def plain_window(store: LocalStore, window: str, cost: str | None, **changes: Any) -> None:
    made = written(store, f"c-{window}", "a", window=window, **changes)
    made = msgspec.structs.replace(made, cost_usd=cost, models=("m",), price_sources=("a list",))
    commit(store, msgspec.structs.replace(made, origins=(origin(window),)))


def origin(window: str) -> Origin:
    return Origin(batch=BatchId("d", window, "p"), generation=1, build="b", seal=1, workspace="/nowhere")


def test_what_no_price_is_known_for_is_named_and_not_counted_as_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = LocalStore(str(tmp_path))
    plain_window(store, "w1", "0.5")
    plain_window(store, "w2", None)
    plain_window(store, "w3", "0.25", verdict=Verdicts.REJECTED)
    assert main(["cost", str(tmp_path)]) == 0
    assert capsys.readouterr().out == (
        "window  rows  answers  cost\n"
        "w1      1     1        0.5000 USD\n"
        "w2      1     1        unknown\n"
        "w3      1     1        0.2500 USD  rejected\n"
        "\n"
        "source  route  model  tokens in  tokens out  cost\n"
        "all            m      0          0           unknown\n"
        "\n"
        "total 0.7500 USD, and what no price is known for, which is not zero: w2\n"
        "price: a list\n"
    )
    assert main(["cost", str(tmp_path), "w9"]) == 1
    assert "window w9: nothing was committed there" in capsys.readouterr().err


def test_a_workspace_and_a_landing_may_be_named_with_their_connection(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # As an Airflow task calls them, which reaches them by a connection of its own.
    service.store = LocalStore(str(tmp_path / "ws"), f"local://lake@{tmp_path}/ws")
    landing = f"local://lake@{tmp_path}/notes"
    made = service.batch()
    assert made.manifest.uri.startswith("local://lake@/")
    assert service.collect(made.manifest.uri, "--task", "load", to=landing) == 0
    first = service.files.manifest(W)
    assert first is not None
    assert [origin.workspace for origin in first.origins] == [service.store.uri]
    assert service.keys() == [f"prepare-{n}" for n in range(4)]
    # Also where it is named without: what is on record stays what Airflow can open.
    assert service.collect(made.manifest.uri.replace("lake@", ""), to=landing) == 0
    assert service.files.manifest(W) == first
    capsys.readouterr()
    for place in (landing, made.manifest.uri):
        assert main(["cost", place, "--json"]) == 0
        assert Decimal(json.loads(capsys.readouterr().out)["known_usd"]) == billed(service)
    assert main(["status", made.manifest.uri]) == 0
    assert "4 rows in 1 shards" in capsys.readouterr().out
    assert main(["accept", landing, W, "--reason", "r"]) == 1
    assert "no rejected commit lies there" in capsys.readouterr().err
