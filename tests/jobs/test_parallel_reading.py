"""Results that several processes read land as if one had read them; a process that dies loses nothing."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import re
import signal
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from airflow_provider_geminibatch.core.errors import ReaderDied, ResultsBroken, StoreUnreadable, Unusable
from airflow_provider_geminibatch.core.landing import Place, RunRef
from airflow_provider_geminibatch.core.ledger import Collected, attempt_path
from airflow_provider_geminibatch.core.model import Owner
from airflow_provider_geminibatch.core.prices import price_of
from airflow_provider_geminibatch.core.report import Report
from airflow_provider_geminibatch.core.verdict import Thresholds
from airflow_provider_geminibatch.jobs import collect as collecting
from airflow_provider_geminibatch.jobs import parallel_reading
from airflow_provider_geminibatch.jobs.collect import Landed, collect, disk_for
from airflow_provider_geminibatch.jobs.parallel_reading import ReadOrder, ReadTold
from airflow_provider_geminibatch.jobs.pipes import processes_of
from airflow_provider_geminibatch.jobs.read_worker import work
from airflow_provider_geminibatch.jobs.report import read_report
from airflow_provider_geminibatch.storage import spool as spools
from airflow_provider_geminibatch.storage.landings import FileLanding
from airflow_provider_geminibatch.storage.spool import Disk
from airflow_provider_geminibatch.storage.stores import LocalStore, MemoryStore
from airflow_provider_geminibatch.testing import InMemoryGateway, ManualClock
from tests.jobs.batches import seal
from tests.jobs.test_collect import WINDOW, World
from tests.jobs.test_spooled import SCHEMA, disturbed

PARQUET = Place("notes", "memory://landing", "parquet", typed=True, keep=("thoughts", "raw"))
JSONL = Place("notes", "memory://landing", "jsonl", keep=("thoughts",))


class LocalWorld(World):
    """A world whose workspace other processes can open, and whose results are of all shapes and in any order."""

    def __init__(self, folder: Path, seed: int = 0, *, shards: int = 4, rows: int = 40) -> None:
        self.clock = ManualClock()
        self.store: Any = LocalStore(str(folder / "w"), "memory://w")
        self.landing = MemoryStore("memory://landing")
        self.service = InMemoryGateway(self.clock, turnaround=timedelta(hours=3))
        self.manifest = seal(self.store, shards=shards, rows=rows)
        build = msgspec.structs.replace(self.build, response_schema=SCHEMA)
        self.store.write(self.manifest.path, msgspec.json.encode(build))
        self.submit(self.manifest)
        for number, (job, lines) in enumerate(self.service._lines.items()):
            self.service._lines[job] = list(disturbed(lines, seed + number))
        self.clock.advance(timedelta(hours=4))

    def landed(self, processes: int, place: Place = PARQUET) -> Landed:
        return collect(
            (self.manifest,), open_store=lambda uri: self.store, gateway=self.service, me="l", now=self.clock,
            log=logging.getLogger("test"), landing=place, window=WINDOW, owner=Owner("dag", "load"),
            run=RunRef("dag", "run", "load"), thresholds=Thresholds(max_unresolved=1.0),
            landing_store=FileLanding(self.landing), sleep=lambda seconds: None, processes=processes,
        )  # fmt: skip

    @property
    def files(self) -> dict[str, bytes]:
        return {path: self.landing.read(path) or b"" for path in self.landing.list("")}

    def report(self, landed: Landed) -> Report | None:
        return read_report(self.store, "batches/dag/run/prepare/map=-1/g0001", landed.manifest.commit)


@pytest.fixture(autouse=True)
def any_number_of_rows_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel_reading, "LEAST_ROWS", 1)


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The processes that were started."""
    begun: list[Any] = []

    class Watched(parallel_reading.subprocess.Popen):  # type: ignore[name-defined,misc]
        def __init__(self, *given: Any, **options: Any) -> None:
            super().__init__(*given, **options)
            self.given, self.options = given, options
            begun.append(self)

    monkeypatch.setattr(parallel_reading.subprocess, "Popen", Watched)
    return begun


@pytest.mark.parametrize("place", [PARQUET, JSONL], ids=["parquet", "jsonl"])
@pytest.mark.parametrize("seed", range(3))
def test_several_processes_land_what_one_lands(tmp_path: Path, seed: int, place: Place, begun: list[Any]) -> None:
    worlds = [LocalWorld(tmp_path / str(number), seed) for number in range(2)]
    one, many = (world.landed(1 + number * 2, place) for number, world in enumerate(worlds))
    assert len(begun) == 3
    assert many == one
    assert worlds[0].files == worlds[1].files
    assert worlds[0].report(one) == worlds[1].report(many) is not None
    assert [process.returncode for process in begun] == [0] * 3


def test_batches_of_one_shard_each_are_read_together(tmp_path: Path, begun: list[Any]) -> None:
    one, other = LocalWorld(tmp_path / "a", shards=1), LocalWorld(tmp_path / "b", shards=1)
    asked = [
        (collecting.Desk(w.store, w.service, "l", w.clock, logging.getLogger("test")), w.manifest) for w in (one, other)
    ]
    found = collecting.all_gathered([(replace(desk, processes=4), manifest) for desk, manifest in asked])
    assert len(begun) == 2
    assert [batch.counts for batch in found] == [collecting.gathered(*each).counts for each in asked]


@pytest.mark.parametrize("size_bytes", [spools.SPOOL_BYTES, 9_000, 0])
def test_the_share_of_the_local_disk_is_kept_and_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size_bytes: int
) -> None:
    plain, world = LocalWorld(tmp_path / "a"), LocalWorld(tmp_path / "b")
    disk = Disk(PARQUET, size_bytes)
    with monkeypatch.context() as patch:
        patch.setattr(collecting, "disk_for", lambda landing: disk)
        landed = world.landed(2)
    assert landed == plain.landed(1)
    assert disk.left == size_bytes


def test_lines_are_not_read_again_by_the_process_that_lands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_geminibatch.jobs import lines

    world, read = LocalWorld(tmp_path), list[int]()
    monkeypatch.setattr(lines, "read_lines", lambda raws, check: read.append(len(raws)))
    world.landed(2)
    assert read == []


def test_harmed_results_are_downloaded_again(tmp_path: Path) -> None:
    world, plain = LocalWorld(tmp_path / "a"), LocalWorld(tmp_path / "b")
    world.landed(1, JSONL)
    path = attempt_path(world.build.shards[1].ledger, 1, "results.jsonl")
    good = world.store.read(path)
    world.store.write(path, b"{}\n")
    assert world.landed(2).parts == plain.landed(1).parts
    assert world.store.read(path) == good


def test_what_is_wrong_with_a_file_is_raised_as_by_one_process(tmp_path: Path) -> None:
    world, data = LocalWorld(tmp_path), b'{"key":"cut'
    world.store.write("cut", data)
    shard = world.build.shards[0]
    sealed = Collected(
        owner="m", at=world.clock(), path="cut", size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), lines=0
    )
    with parallel_reading.Readers(1) as readers:
        build = readers.of(world.build, world.store, None)
        assert build is not None
        with pytest.raises(ResultsBroken, match="the last line is cut off"):
            build.start(shard, sealed, None)()
        # The process goes on to the next one.
        with pytest.raises(StoreUnreadable, match="size or checksum differ"):
            build.start(shard, msgspec.structs.replace(sealed, size_bytes=1), None)()


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import os; os.kill(os.getpid(), 9)", "ended by signal 9, as happens when memory runs out"),
        ("import sys; sys.exit(3)", "ended with code 3"),
        ("import sys; sys.stdin.readline()", "ended with code 0"),
    ],
)
def test_a_dead_process_is_told_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: list[Any], code: str, why: str
) -> None:
    world, plain = LocalWorld(tmp_path / "a"), LocalWorld(tmp_path / "b")
    monkeypatch.setattr(parallel_reading, "_COMMAND", (parallel_reading._COMMAND[0], "-c", code))
    with pytest.raises(ReaderDied, match=re.escape(why)):
        world.landed(2)
    assert world.files == {}
    assert all(process.returncode is not None for process in begun)
    monkeypatch.undo()
    assert world.landed(1) == plain.landed(1)


def test_no_process_outlives_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: list[Any]) -> None:
    world = LocalWorld(tmp_path)
    monkeypatch.setattr(
        parallel_reading, "_COMMAND", (parallel_reading._COMMAND[0], "-c", "import sys\nfor line in sys.stdin: pass")
    )
    real = parallel_reading.send

    def killing(process: Any, order: Any) -> None:
        real(process, order)
        if process is begun[0]:
            process.send_signal(signal.SIGKILL)

    monkeypatch.setattr(parallel_reading, "send", killing)
    with pytest.raises(ReaderDied):
        world.landed(2)
    assert {process.returncode for process in begun} == {-9}


def test_few_rows_start_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: list[Any]) -> None:
    monkeypatch.setattr(parallel_reading, "LEAST_ROWS", 161)
    LocalWorld(tmp_path).landed(8)
    assert begun == []


def test_a_workspace_that_only_this_process_has_is_read_by_it(tmp_path: Path, begun: list[Any]) -> None:
    world = World(shards=3, rows=5)
    assert world.load(processes=3).counts["answer"] == 15
    assert begun == []


def test_the_processes_are_those_asked_for_or_one_for_each_cpu() -> None:
    assert (processes_of(3), processes_of(None) >= 1) == (3, True)
    with pytest.raises(Unusable, match="0 processes do nothing"):
        processes_of(0)


def test_neither_rows_nor_credentials_are_in_arguments_and_environment(tmp_path: Path, begun: list[Any]) -> None:
    LocalWorld(tmp_path).landed(2)
    assert [process.given for process in begun] == [(parallel_reading._COMMAND,)] * 2
    assert all("env" not in process.options for process in begun)


def test_what_a_process_did_not_expect_is_named_without_its_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_geminibatch.jobs import read_worker

    def broken(*given: Any) -> Any:
        raise KeyError("what a row says")

    monkeypatch.setattr(read_worker, "read_results", broken)
    world, out = LocalWorld(tmp_path), io.BytesIO()
    shard = world.build.shards[0]
    order = ReadOrder(
        door={"root": str(tmp_path), "uri": "u"}, build=world.build, place=None, shard=shard,
        sealed=Collected(owner="m", at=world.clock(), path="p", size_bytes=1, sha256="", lines=0),
        price=price_of("gemini-3.8-flash", world.clock()), rows_path="r", spool_path="s", spool_bytes=0,
    )  # fmt: skip
    work(io.BytesIO(msgspec.json.encode(order) + b"\n"), out)
    told = msgspec.json.decode(out.getvalue(), type=ReadTold)
    assert told.error == "ReaderDied"
    assert re.fullmatch(r"KeyError in \w+\.py, line \d+", told.facts[1])


def test_what_others_print_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begun: list[Any]) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('hello'); print('no line end', end='')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    assert LocalWorld(tmp_path).landed(2).manifest.rows == 160
    assert len(begun) == 2


def test_a_landing_in_tables_needs_no_local_disk() -> None:
    assert disk_for(Place("notes", "sql://db", "sql")) is None
