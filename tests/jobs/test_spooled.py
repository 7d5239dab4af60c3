"""What waits on the local disk lands as if every line were read again: the same bytes, whatever the results hold."""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Iterator
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from pyarrow import parquet

from airflow_provider_geminibatch.core.landing import Place
from airflow_provider_geminibatch.core.manifest import Manifest
from airflow_provider_geminibatch.core.model import BatchId
from airflow_provider_geminibatch.core.names import wire_key
from airflow_provider_geminibatch.core.outcomes import classify
from airflow_provider_geminibatch.core.verdict import Thresholds
from airflow_provider_geminibatch.jobs import collect as collecting
from airflow_provider_geminibatch.jobs import lines as line_files
from airflow_provider_geminibatch.jobs import rows as landing_rows
from airflow_provider_geminibatch.jobs.lines import buffered
from airflow_provider_geminibatch.jobs.submit import read_build
from airflow_provider_geminibatch.storage import spool as spools
from airflow_provider_geminibatch.storage.spool import Disk
from airflow_provider_geminibatch.storage.stores import MemoryStore
from tests.jobs.batches import seal
from tests.jobs.test_collect import WINDOW, World

SCHEMA = {
    "type": "object",
    "properties": {
        "n": {"type": "integer"},
        "when": {"type": "string", "format": "date-time"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["n"],
}  # fmt: skip
PLACE = Place("notes", "memory://landing", "parquet", typed=True, keep=("thoughts", "raw"))
JSONL = Place("notes", "memory://landing", "jsonl", keep=("thoughts", "raw"))
ANY = Thresholds(max_unresolved=1.0)


def said(row: int, text: str, thought: str = "") -> dict[str, Any]:
    parts = [*([{"text": thought, "thought": True}] if thought else []), {"text": text}]
    usage = {"promptTokenCount": row + 1, "candidatesTokenCount": 2, "totalTokenCount": row + 3}
    candidate = {"content": {"parts": parts}, "finishReason": "STOP", "avgLogprobs": -0.25}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-3.8-flash-001"}


def disturbed(lines: list[bytes], seed: int) -> Iterator[bytes]:
    """Lines in any order, of all shapes; some are lost, some come twice, some differ from each other."""
    draw = random.Random(seed)
    made = []
    for row, line in enumerate(lines):
        key = msgspec.json.decode(line)["key"]
        value = msgspec.json.encode({"n": row, "when": "2026-01-01T00:00:00Z", "tags": ["é"] * (row % 3)}).decode()
        response = draw.choice(
            [said(row, value), said(row, value, "hm"), said(row, value + "x" * 60), said(row, f"```\n{value}\n```"),
             said(row, '{"n": "no"}'), {"promptFeedback": {"blockReason": "SAFETY"}}]
        )  # fmt: skip
        answer = {"key": key, "response": response}
        made += [msgspec.json.encode(answer)] * draw.choice([0, 1, 1, 1, 1, 1, 2])
        if draw.random() < 0.1:
            made.append(msgspec.json.encode({"key": key, "error": {"code": 13, "message": "late"}}))
    draw.shuffle(made)
    return iter([*made, b'{"key":"stranger","error":"x"}', b""])


def world_of(seed: int, rows: int = 60) -> World:
    world = World(shards=2, rows=rows, submitted=False)
    build = msgspec.structs.replace(world.build, response_schema=SCHEMA)
    world.store.write(world.manifest.path, msgspec.json.encode(build))
    world.submit(world.manifest)
    for number, (job, lines) in enumerate(world.service._lines.items()):
        world.service._lines[job] = list(disturbed(lines, seed + number))
    world.clock.advance(world.service._turnaround * 2)
    return world


def landed(world: World, monkeypatch: pytest.MonkeyPatch, disk: Disk | None, place: Place = PLACE) -> tuple[Any, ...]:
    monkeypatch.setattr(collecting, "disk_for", lambda landing: disk)
    return world.load(landing=place, thresholds=ANY).manifest.parts


@pytest.mark.parametrize("place", [PLACE, JSONL], ids=["parquet", "jsonl"])
@pytest.mark.parametrize("seed", range(6))
def test_the_same_bytes_land_with_and_without_the_local_disk(
    seed: int, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spools, "GROUP_ROWS", 16)
    monkeypatch.setattr(landing_rows, "GROUP_ROWS", 16)
    monkeypatch.setattr(spools, "LINE_BYTES", 420)  # some lines are too long to be kept
    plain = landed(world_of(seed), monkeypatch, None, place)
    disk = Disk(place)
    assert landed(world_of(seed), monkeypatch, disk, place) == plain
    assert landed(world_of(seed), monkeypatch, Disk(place, 9_000), place) == plain  # part of it fits
    assert landed(world_of(seed), monkeypatch, Disk(place, 0), place) == plain
    assert disk.left == spools.SPOOL_BYTES, "what was taken is given back"


def test_a_full_local_disk_costs_nothing_but_time(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = landed(world_of(1), monkeypatch, None)

    def full(*args: object, **more: object) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spools.tempfile, "TemporaryFile", full)
    assert landed(world_of(1), monkeypatch, Disk(PLACE)) == plain


@pytest.mark.parametrize("file_format", ["parquet", "jsonl"])
def test_lines_are_decoded_once_where_nothing_is_odd(file_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_geminibatch.jobs import lines

    again: list[bytes] = []

    def counting(line: bytes, *more: Any) -> Any:
        again.append(line)
        return classify(line, *more)

    monkeypatch.setattr(lines, "classify", counting)
    world = World(shards=2, rows=50)
    world.load(landing=Place("notes", "memory://landing", file_format))
    assert again == []
    assert [row["text"] for row in world.rows()] == [f"row {number}" for number in range(100)]


def test_typed_columns_and_what_is_kept_land_beside_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    world = world_of(3)
    (part,) = landed(world, monkeypatch, Disk(PLACE))
    table = parquet.read_table(io.BytesIO(world.landing.read(f"window={WINDOW}/{part.path}") or b""))
    types = {name: table.schema.field(name).type for name in ("value_n", "value_when", "value_tags", "thoughts", "raw")}
    assert types == {
        "value_n": pa.int64(), "value_when": pa.timestamp("us", tz="UTC"), "value_tags": pa.list_(pa.string()),
        "thoughts": pa.string(), "raw": pa.string(),
    }  # fmt: skip
    rows = world.rows()
    for row in rows:
        good = row["outcome"] == "answer"
        assert row["value_n"] == (row["value"]["n"] if good else None)
        assert (row["value_when"] is not None) is good
        assert row["raw"] is None or msgspec.json.decode(row["raw"])["key"].startswith("aaaabbbbcccc2222-")
    assert {row["repaired"] for row in rows} == {None, "code fence", "words around it"}
    assert {row["thoughts"] for row in rows} == {None, "hm"}
    assert any(row["extra"] == {"avgLogprobs": -0.25} for row in rows)


def test_the_schema_of_parts_is_the_same_whatever_came(monkeypatch: pytest.MonkeyPatch) -> None:
    schemas = []
    for answer in (said(0, '{"n": 1}'), {"promptFeedback": {"blockReason": "SAFETY"}}):
        world = world_of(0, rows=1)
        for index, job in enumerate(world.service._lines):
            response = answer if index else said(0, '{"n": 0}')
            line = {"key": wire_key("aaaabbbbcccc2222", index, 0), "response": response}
            world.service._lines[job] = [msgspec.json.encode(line)]
        landed(world, monkeypatch, Disk(PLACE))
        (path,) = [path for path in world.landing.list("") if path.endswith(".parquet")]
        schemas.append(parquet.read_schema(io.BytesIO(world.landing.read(path) or b"")))
    assert schemas[0] == schemas[1]


def test_what_is_kept_lands_in_one_order_and_once_however_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    found = set()
    for keep in (("thoughts", "raw"), ("raw", "thoughts"), ("raw", "thoughts", "raw")):
        place = Place("notes", "memory://landing", keep=keep)
        (part,) = landed(world_of(2), monkeypatch, Disk(place), place)
        found.add(part.sha256)
    assert len(found) == 1


def test_files_of_object_stores_are_read_in_blocks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.spec import AbstractBufferedFile

    data = b"".join(b"%d %s\n" % (row, b"x" * row) for row in range(300))

    class Remote(AbstractBufferedFile):  # type: ignore[misc]
        def _fetch_range(self, start: int, end: int) -> bytes:
            return data[start:end]

    class Files:
        def info(self, path: str) -> dict[str, Any]:
            return {"size": len(data), "name": path}

    file = buffered(Remote(Files(), "f", size=len(data), block_size=1000))
    blocks = list(iter(lambda: file.readlines(5000), []))
    assert b"".join(line for block in blocks for line in block) == data
    assert max(sum(map(len, block)) for block in blocks) < 6000


def of_two_schemas() -> tuple[World, Manifest]:
    """Two batches in one window whose schemas disagree about the kinds of all properties."""
    world = World(shards=1, rows=2, submitted=False)
    other = seal(world.store, shards=1, rows=2, batch=BatchId("dag", "run", "other"))
    kinds = {"n": {"type": "integer"}, "when": {"type": "string", "format": "date-time"}, "more": {"type": "number"}}
    words = {"n": {"type": "string"}, "when": {"type": "string"}, "only": {"type": "integer"}}
    said_by = {
        world.manifest: {"n": 1.0, "when": "2026-01-01T02:00:00+02:00", "more": 2},
        other: {"n": "x", "when": "y"},
    }
    for manifest, properties in ((world.manifest, kinds), (other, words)):
        build = msgspec.structs.replace(
            read_build(world.store, manifest.path), response_schema={"type": "object", "properties": properties}
        )
        world.store.write(manifest.path, msgspec.json.encode(build))
        world.submit(manifest)
        job = list(world.service._lines)[-1]
        text = msgspec.json.encode(said_by[manifest]).decode()
        lines = [{"key": wire_key(build.tag, 0, row), "response": said(row, text)} for row in range(2)]
        world.service._lines[job] = [msgspec.json.encode(line) for line in lines]
    world.clock.advance(world.service._turnaround * 2)
    return world, other


def test_batches_that_disagree_about_a_property_land_the_same_with_and_without_the_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = []
    for disk in (None, Disk(PLACE)):
        world, other = of_two_schemas()
        monkeypatch.setattr(collecting, "disk_for", lambda landing, disk=disk: disk)
        world.load(world.manifest, other, landing=PLACE, thresholds=ANY)
        found.append(
            [(row["value_n"], row["value_when"], row["value_more"], row["value_only"]) for row in world.rows()]
        )
    assert found[0] == found[1]
    assert sorted(found[0]) == sorted(
        [('"x"', '"y"', None, None)] * 2 + [("1.0", '"2026-01-01T02:00:00+02:00"', 2.0, None)] * 2
    )


@pytest.mark.parametrize("block_bytes", [1, 2, 7, 64, 1 << 20])
@pytest.mark.parametrize("end", ["\n", "", "\n\n \n"])
def test_lines_are_the_same_whatever_is_read_at_once(
    monkeypatch: pytest.MonkeyPatch, block_bytes: int, end: str
) -> None:
    monkeypatch.setattr(line_files, "BLOCK_BYTES", block_bytes)
    made = ['{"key":"a","error":"x"}', "", "   ", '{"key":"b",\r"error":"é"}', "{", '{"key":"c","error":"y"}\r']
    store, data = MemoryStore(), ("\n".join(made) + end).encode()
    store.write("r", data)
    with line_files.Lines(store, "r", None) as lines:
        found = [(place, raw) for places, raws, _, _ in lines for place, raw in zip(places, raws, strict=True)]
        assert [raw.decode() for _, raw in found] == [made[at] for at in (0, 3, 4, 5)]
        assert all(data[place:].startswith(raw) for place, raw in found)
        assert (lines.size_bytes, lines.digest.hexdigest()) == (len(data), hashlib.sha256(data).hexdigest())
        assert not lines.cut
    store.write("r", data.rstrip() + b'\n{"key":"d')
    with line_files.Lines(store, "r", None) as lines:
        assert sum(len(raws) for _, raws, _, _ in lines) == 5
        assert lines.cut
