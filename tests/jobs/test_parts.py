"""A source in parts gives the same build by one process or by several, and one bad part spoils them all."""

from __future__ import annotations

import io
import logging
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from airflow_provider_geminibatch.core.capabilities import Listing
from airflow_provider_geminibatch.core.errors import (
    BadRows,
    EmptySource,
    Problem,
    SourceUnreadable,
    Unusable,
    WorkerDied,
)
from airflow_provider_geminibatch.core.model import BatchId
from airflow_provider_geminibatch.core.names import parse_wire_key
from airflow_provider_geminibatch.core.response_schema import CommonSchema
from airflow_provider_geminibatch.core.template import RequestTemplate
from airflow_provider_geminibatch.jobs import parallel, parts
from airflow_provider_geminibatch.jobs.part_worker import work
from airflow_provider_geminibatch.jobs.parts import PART_SHARDS, Bench, PartDone, as_data, common_schema, split_of
from airflow_provider_geminibatch.jobs.prepare import Declaration, Prepared, prepare
from airflow_provider_geminibatch.storage.sources import JsonlSource, ListSource, PlainFiles, RequestsSource
from airflow_provider_geminibatch.storage.stores import LocalStore, MemoryStore, open_store
from airflow_provider_geminibatch.testing import ManualClock

LOG = logging.getLogger("test.parts")
TEMPLATE = RequestTemplate(
    "Say $text", columns=("region",), response_schema={"type": "object", "properties": {"a": {"type": "string"}}}
)
ROWS = 300
PART_BYTES = 4_000


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join(msgspec.json.encode(_row(number)) + b"\n" for number in range(ROWS)))
    return path


def _row(number: int, **more: Any) -> dict[str, Any]:
    return {"id": f"k{number}", "text": f"text {number}", "region": "eu", **more}


def _prepare(
    store: Any, source: Any, *, processes: int, max_tries: int = 2, part_bytes: int = PART_BYTES, **declared: Any
) -> Prepared:
    files = PlainFiles()
    given = {
        "model": "gemini-3-flash",
        "template": TEMPLATE,
        "source_name": source.name,
        "max_rows_per_shard": 40,
        **declared,
    }
    return prepare(
        Declaration(**given), lambda: source.rows(files), store=store, workspace_id="w", batch=BatchId("d", "r", "t"),
        service=None, me="me", now=ManualClock(), log=LOG, max_tries=max_tries,
        split=lambda: split_of(source, files, processes=processes, door={}, part_bytes=part_bytes),
    )  # fmt: skip


def _contents(made: Prepared) -> list[tuple[int, int, str, str]]:
    return [(shard.index, shard.rows, shard.content, shard.keys_sha256) for shard in made.build.shards]


def _keys(store: Any, made: Prepared) -> Iterator[str]:
    for shard in made.build.shards:
        for row, (line, key) in enumerate(
            zip(store.read(shard.path).splitlines(), store.read(shard.keys_path).splitlines(), strict=True)
        ):
            assert parse_wire_key(msgspec.json.decode(line)["key"]) == (shard.tag, shard.index, row)
            yield msgspec.json.decode(key)[0]


def test_several_processes_seal_what_one_seals(lines: Path, tmp_path: Path) -> None:
    one, several = LocalStore(str(tmp_path / "one")), LocalStore(str(tmp_path / "several"))
    alone = _prepare(one, JsonlSource(str(lines)), processes=1)
    together = _prepare(several, JsonlSource(str(lines)), processes=3)
    assert _contents(alone) == _contents(together)
    assert list(_keys(several, together)) == list(_keys(one, alone)) == [f"k{number}" for number in range(ROWS)]
    assert together.build.rows == ROWS
    assert (together.build.response_schema, together.build.columns) == (alone.build.response_schema, ("region",))


def test_shards_are_numbered_by_part(lines: Path, tmp_path: Path) -> None:
    made = _prepare(LocalStore(str(tmp_path / "w")), JsonlSource(str(lines)), processes=2)
    begins = [shard.index for shard in made.build.shards if shard.index % PART_SHARDS == 0]
    count = len(split_of(JsonlSource(str(lines)), PlainFiles(), processes=1, part_bytes=PART_BYTES).parts)
    assert begins == [part * PART_SHARDS for part in range(count)]
    assert count > 2


def test_a_clear_with_another_number_of_processes_finds_the_same_build(lines: Path, tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path / "w"))
    first = _prepare(store, JsonlSource(str(lines)), processes=3)
    again = _prepare(store, JsonlSource(str(lines)), processes=1, max_tries=3)
    assert (again.reused, again.build) == (True, first.build)


def test_a_changed_row_changes_its_shard_only(lines: Path, tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path / "w"))
    first = _prepare(store, JsonlSource(str(lines)), processes=2)
    lines.write_bytes(lines.read_bytes().replace(b'"text 250"', b'"TEXT 250"'))
    second = _prepare(store, JsonlSource(str(lines)), processes=2, max_tries=3)
    assert second.generation == 2
    assert sum(new != old for new, old in zip(second.build.shards, first.build.shards, strict=True)) == 1


def test_a_row_added_at_the_end_changes_the_last_shards_only(lines: Path, tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path / "w"))
    first = _prepare(store, JsonlSource(str(lines)), processes=2)
    with lines.open("ab") as file:
        file.write(msgspec.json.encode(_row(ROWS)) + b"\n")
    second = _prepare(store, JsonlSource(str(lines)), processes=2, max_tries=3)
    assert second.build.rows == ROWS + 1
    assert len([shard for shard in second.build.shards if shard not in first.build.shards]) == 1


def test_ready_made_requests_go_in_parts_too(tmp_path: Path) -> None:
    config = {
        "responseMimeType": "application/json",
        "responseSchema": {"type": "OBJECT", "properties": {"a": {"type": "STRING"}}},
    }
    path = tmp_path / "requests.jsonl"
    with path.open("wb") as file:
        for number in range(100):
            request = {"contents": [{"parts": [{"text": f"text {number}"}]}], "generationConfig": config}
            file.write(msgspec.json.encode({"key": f"k{number}", "request": request}) + b"\n")
    made = [
        _prepare(
            LocalStore(str(tmp_path / str(processes))), RequestsSource(str(path)), processes=processes, template=None
        )
        for processes in (1, 2)
    ]
    assert _contents(made[0]) == _contents(made[1])
    assert made[0].build.response_schema == made[1].build.response_schema == config["responseSchema"]


@pytest.mark.parametrize("processes", [1, 3])
def test_bad_rows_of_all_parts_are_told_in_their_order(lines: Path, tmp_path: Path, processes: int) -> None:
    rows = [_row(number) for number in range(ROWS)]
    del rows[10]["text"], rows[290]["text"]
    rows[150]["id"] = ""
    lines.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    store = LocalStore(str(tmp_path / "w"))
    with pytest.raises(BadRows) as caught:
        _prepare(store, JsonlSource(str(lines)), processes=processes)
    assert [problem.where for problem in caught.value.problems] == [
        "rows.jsonl line 11: column text", "rows.jsonl line 151: key", "rows.jsonl line 291: column text",
    ]  # fmt: skip
    assert (caught.value.total, caught.value.source) == (3, str(lines))
    assert list(store.list("batches")) == []


@pytest.mark.parametrize("processes", [1, 3])
def test_a_key_that_stands_in_two_parts_is_named_with_both_its_rows(
    lines: Path, tmp_path: Path, processes: int
) -> None:
    rows = [_row(number) for number in range(ROWS)]
    rows[280]["id"] = "k5"
    del rows[3]["text"]
    lines.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    store = LocalStore(str(tmp_path / "w"))
    with pytest.raises(BadRows) as caught:
        _prepare(store, JsonlSource(str(lines)), processes=processes)
    assert [str(problem) for problem in caught.value.problems][1:] == [
        'rows.jsonl line 281: key: "k5" stands in rows.jsonl line 6 too (a key is unique within its source)'
    ]
    assert caught.value.total == 2
    assert list(store.list("batches")) == []


def test_warnings_of_all_parts_are_counted_together(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, lines: Path
) -> None:
    done = [PartDone(warnings=((_problem(), 3),)), PartDone(warnings=((_problem(), 4),))]
    said = []
    for make in ("write_parts", "write_in_parallel"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(f"airflow_provider_geminibatch.jobs.prepare.{make}", lambda *given, **more: done)
            with pytest.raises(EmptySource):
                _prepare(
                    LocalStore(str(tmp_path / make)), JsonlSource(str(lines)), processes=2 if "parallel" in make else 1
                )
        said.append([record.getMessage() for record in caplog.records if "may be wrong" in record.getMessage()])
        caplog.clear()
    assert said == [["request.x: may be wrong, 7 times"]] * 2


def _problem() -> Problem:
    return Problem("request.x", "may be wrong")


def test_parts_that_ask_for_different_schemas_have_none_in_common() -> None:
    shard = _prepare(MemoryStore(), ListSource([_row(1)], "rows"), processes=1).build.shards[:1]
    one, other, empty = (
        PartDone(schema={"type": "object"}, shards=shard),
        PartDone(schema=None, shards=shard),
        PartDone(),
    )
    found = []
    for some in ([one, one], [one, empty], [one, other], [other, one], [empty]):
        common = CommonSchema()
        common_schema(some, common)
        found.append(common.schema)
    assert found == [{"type": "object"}, {"type": "object"}, None, None, None]


def test_small_sources_and_those_that_cannot_be_cut_stay_whole(lines: Path) -> None:
    files = PlainFiles()
    assert split_of(JsonlSource(str(lines)), files, processes=4) is None
    assert split_of(ListSource([_row(1)]), files, processes=4, part_bytes=1) is None
    with pytest.raises(Unusable, match="0 processes"):
        split_of(JsonlSource(str(lines)), files, processes=0)


def test_a_store_that_only_this_process_has_is_written_by_it(lines: Path) -> None:
    store = MemoryStore()
    made = _prepare(store, JsonlSource(str(lines)), processes=3)
    assert list(_keys(store, made)) == [f"k{number}" for number in range(ROWS)]


def test_a_store_of_a_file_system_is_opened_in_the_workers(lines: Path, tmp_path: Path) -> None:
    import fsspec

    from airflow_provider_geminibatch.storage.stores import FsspecStore

    store = FsspecStore(fsspec.filesystem("file", auto_mkdir=True), str(tmp_path / "fs"), "file://somewhere")
    made = _prepare(store, JsonlSource(str(lines)), processes=2)
    assert sorted(_keys(store, made)) == sorted(f"k{number}" for number in range(ROWS))


def test_too_many_shards_of_one_part_are_refused(lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "PART_SHARDS", 5)
    with pytest.raises(Unusable, match=r"makes \d+ shards of one part"):
        _prepare(LocalStore(str(tmp_path / "w")), JsonlSource(str(lines)), processes=1, max_rows_per_shard=2)


def _as_worker(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(parallel, "_COMMAND", (parallel._COMMAND[0], "-c", code))


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import os; os.kill(os.getpid(), 9)", "ended by signal 9, as happens when memory runs out"),
        ("import os; os.kill(os.getpid(), 15)", "ended by signal 15)"),
        ("import sys; sys.exit(3)", "ended with code 3"),
        ("import sys; sys.stdin.readline(); sys.stdin.readline()", "ended with code 0"),
    ],
)
def test_a_dead_worker_is_said_and_nothing_is_left(
    lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, why: str
) -> None:
    _as_worker(monkeypatch, code)
    store = LocalStore(str(tmp_path / "w"))
    with pytest.raises(WorkerDied, match=re.escape(why)):
        _prepare(store, JsonlSource(str(lines)), processes=2)
    assert list(store.list("batches")) == []


def test_an_error_of_a_worker_is_the_error_of_the_task(lines: Path, tmp_path: Path) -> None:
    class Gone(PlainFiles):
        def sizes(self, pattern: str) -> dict[str, int]:
            sizes = super().sizes(pattern)
            return {**sizes, f"{pattern}.gone": 5_000}

    source, store = JsonlSource(f"{lines.parent}/rows*.jsonl"), LocalStore(str(tmp_path / "w"))
    split = split_of(source, Gone(), processes=2, door={}, part_bytes=PART_BYTES)
    with pytest.raises(SourceUnreadable, match=r"rows\*.jsonl.gone could not be read: no such file"):
        prepare(
            Declaration(model="gemini-3-flash", template=TEMPLATE, source_name="rows"), lambda: iter(()), store=store,
            workspace_id="w", batch=BatchId("d", "r", "t"), service=None, me="me", now=ManualClock(), log=LOG,
            split=lambda: split,
        )  # fmt: skip
    assert list(store.list("batches")) == []


def test_what_a_worker_did_not_expect_is_named_without_its_text(tmp_path: Path) -> None:
    task = {
        "declared": as_data(Declaration(model="gemini-3-flash", template=TEMPLATE)),
        "bench": msgspec.to_builtins(Bench(home="h", tag="t", max_rows=1, max_bytes=9)),
        "store": {"root": str(tmp_path), "uri": "u"}, "files": {},
    }  # fmt: skip
    order = {"part": 0, "source": {"source": "JsonlSource"}, "marks": str(tmp_path / "marks")}
    out = io.BytesIO()
    work(io.BytesIO(b"\n".join(msgspec.json.encode(each) for each in (task, order))), out)
    told = msgspec.json.decode(out.getvalue(), type=parallel.Told)
    assert told.error == "WorkerDied"
    assert re.fullmatch(r"TypeError in \w+\.py, line \d+", told.facts[1])


def test_credentials_and_rows_are_in_no_argument_and_no_environment(
    lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    class Watched(parallel.subprocess.Popen):  # type: ignore[name-defined,misc]
        def __init__(self, command: Any, **options: Any) -> None:
            seen.append((command, {name: value for name, value in options["env"].items() if name not in os.environ}))
            super().__init__(command, **options)

    monkeypatch.setattr(parallel.subprocess, "Popen", Watched)
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    _prepare(LocalStore(str(tmp_path / "w")), JsonlSource(str(lines)), processes=2)
    assert [command for command, _ in seen] == [parallel._COMMAND] * 2
    assert [set(more) for _, more in seen] == [{"PYTHONHASHSEED"}] * 2


def test_a_declaration_comes_through_as_it_was() -> None:
    listing = msgspec.convert({"as_of": "2026-11-01", "endpoint": "https://x", "models": []}, Listing)
    declared = [
        Declaration(model="m", template=TEMPLATE, source_name="s"),
        Declaration(model="m", columns=("a", "b"), allow_fields={"GenerationConfig": {"new"}}, listing=listing),
    ]
    for each in declared:
        data = msgspec.json.decode(msgspec.json.encode(parts.as_data(each)))
        again = parts.from_data(data)
        assert parts.as_data(again) == parts.as_data(each)
        assert (again.template, again.columns, again.listing) == (each.template, each.columns, each.listing)
        assert again.fingerprint(None) == each.fingerprint(None)


def test_what_others_print_in_a_worker_is_no_answer(
    lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('hello'); print('no line end', end='')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    made = _prepare(LocalStore(str(tmp_path / "w")), JsonlSource(str(lines)), processes=2)
    assert made.build.rows == ROWS


def test_no_worker_outlives_the_task(lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _as_worker(monkeypatch, "import sys\nfor line in sys.stdin: pass")
    begun: list[Any] = []

    class Watched(parallel.subprocess.Popen):  # type: ignore[name-defined,misc]
        def __init__(self, *given: Any, **options: Any) -> None:
            super().__init__(*given, **options)
            begun.append(self)
            if len(begun) == 2:
                begun[0].send_signal(signal.SIGKILL)

    monkeypatch.setattr(parallel.subprocess, "Popen", Watched)
    with pytest.raises(WorkerDied):
        _prepare(open_store(str(tmp_path / "w")), JsonlSource(str(lines)), processes=2)
    assert [process.returncode for process in begun] == [-9, -9]
