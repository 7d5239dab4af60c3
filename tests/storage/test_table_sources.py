"""Tables: Parquet and Arrow, typed, streamed, with the columns that stand in the names of folders."""

from __future__ import annotations

import datetime as dt
import decimal
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import feather, ipc, parquet

from airflow_provider_geminibatch.core.errors import EmptySource, SourceUnreadable, Unusable
from airflow_provider_geminibatch.core.rows import Encoded, Ready, Row, ready_rows
from airflow_provider_geminibatch.storage.sources import (
    ArrowSource,
    CsvSource,
    JsonlSource,
    ParquetSource,
    PlainFiles,
    Source,
    source_of,
)
from airflow_provider_geminibatch.storage.table_sources import partitions_of

FILES = PlainFiles()
TABLE = pa.table({"id": [1, 2, 3], "text": ["a", None, "é"]})
ROWS = [{"id": 1, "text": "a"}, {"id": 2, "text": None}, {"id": 3, "text": "é"}]


def _data(source: Source) -> list[Any]:
    return [row.data for row in source.rows(FILES)]


def _stream(path: Path) -> None:
    with ipc.new_stream(str(path), TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=2)


def _file(path: Path) -> None:
    with ipc.new_file(str(path), TABLE.schema, options=ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(TABLE, max_chunksize=2)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("rows.arrow", _file), ("rows.arrows", _stream), ("rows.ipc", _stream), ("rows.arrow", _stream),
        ("rows.feather", lambda path: feather.write_feather(TABLE, str(path))),
        ("rows.parquet", lambda path: parquet.write_table(TABLE, str(path))),
    ],
)  # fmt: skip
def test_every_form_of_a_table_gives_the_same_typed_rows(tmp_path: Path, name: str, write: Any) -> None:
    write(tmp_path / name)
    source = source_of(str(tmp_path / name))
    assert list(source.rows(FILES)) == [Row(f"{name} row", at, row) for at, row in enumerate(ROWS, 1)]
    assert isinstance(source, ArrowSource | ParquetSource)
    assert _data(type(source)(str(tmp_path / name), only=("id",))) == [{"id": 1}, {"id": 2}, {"id": 3}]


def test_a_column_that_is_not_there_is_said_before_any_row(tmp_path: Path) -> None:
    _file(tmp_path / "rows.arrow")
    parquet.write_table(TABLE, tmp_path / "rows.parquet")
    for source in (
        ArrowSource(f"{tmp_path}/rows.arrow", only=("txt",)),
        ParquetSource(f"{tmp_path}/rows.parquet", only=("txt",)),
    ):
        with pytest.raises(SourceUnreadable, match="it has no column txt; it has id, text"):
            _data(source)


def test_folders_that_name_a_column_give_it(tmp_path: Path) -> None:
    for day, region in (("2026-01-01", "eu"), ("2026-01-01", "na%2Fus"), ("2026-01-02", "__HIVE_DEFAULT_PARTITION__")):
        folder = tmp_path / f"day={day}" / f"region={region}"
        folder.mkdir(parents=True)
        parquet.write_table(pa.table({"id": [f"{day} {region}"]}), folder / "part-0.parquet")
    every = [
        {"id": "2026-01-01 eu", "day": "2026-01-01", "region": "eu"},
        {"id": "2026-01-01 na%2Fus", "day": "2026-01-01", "region": "na/us"},
        {"id": "2026-01-02 __HIVE_DEFAULT_PARTITION__", "day": "2026-01-02", "region": None},
    ]
    assert _data(ParquetSource(f"{tmp_path}/")) == every
    assert _data(source_of(f"{tmp_path}/*/*/*.parquet")) == every
    assert _data(ParquetSource(f"{tmp_path}/day=2026-01-02/*/*.parquet")) == every[2:]
    assert _data(ParquetSource(f"{tmp_path}/", only=("id", "region")))[0] == {"id": "2026-01-01 eu", "region": "eu"}
    assert _data(ParquetSource(f"{tmp_path}/", partitions=False))[0] == {"id": "2026-01-01 eu"}
    (first, *_) = ParquetSource(f"{tmp_path}/").rows(FILES)
    assert first.place == "day=2026-01-01/region=eu/part-0.parquet row"


def test_a_column_of_the_file_is_the_files(tmp_path: Path) -> None:
    folder = tmp_path / "id=7"
    folder.mkdir()
    parquet.write_table(pa.table({"id": [7]}), folder / "rows.parquet")
    assert _data(ParquetSource(f"{folder}/rows.parquet")) == [{"id": 7}]
    assert _data(ParquetSource(f"{folder}/rows.parquet", only=("id",))) == [{"id": 7}]


def test_what_a_uri_says_about_columns() -> None:
    assert partitions_of("s3://aws@bucket/a/day=2026/x/=no/y=/k=v.parquet") == {"day": "2026", "y": ""}


def test_a_folder_holds_the_files_of_its_kind_and_no_bookkeeping(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a/1.ndjson", "a/rows.csv", "_tmp/0.jsonl", ".old/0.jsonl", "_SUCCESS", "c.JSONL"):
        path = tmp_path / "_raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("id\n" if name.endswith("csv") else f'{{"id": "{name}"}}\n')
    rows = list(JsonlSource(f"{tmp_path}/_raw/").rows(FILES))
    assert [row.place for row in rows] == ["a/1.ndjson line", "b.jsonl line", "c.JSONL line"]
    assert _data(CsvSource(f"{tmp_path}/_raw/")) == []
    with pytest.raises(EmptySource):
        _data(ParquetSource(f"{tmp_path}/_raw/"))
    with pytest.raises(Unusable, match="Name the kind, one of ArrowSource, CsvSource"):
        source_of(f"{tmp_path}/_raw/")


def test_times_of_nanoseconds_come_as_microseconds_at_any_depth(tmp_path: Path) -> None:
    aware, nanos = dt.datetime(2026, 1, 1, 12, 30, 15, 123456, dt.UTC), 1767270615123456789
    stamp = pa.timestamp("ns", "UTC")
    table = pa.table(
        {
            "at": pa.array([nanos], stamp),
            "took": pa.array([1_500_000_001], pa.duration("ns")),
            "clock": pa.array([1_000_000_001], pa.time64("ns")),
            "list": pa.array([[nanos]], pa.list_(stamp)),
            "long": pa.array([[nanos]], pa.large_list(stamp)),
            "map": pa.array([[("a", nanos)]], pa.map_(pa.string(), stamp)),
            "deep": pa.array([{"at": nanos, "n": 1}], pa.struct({"at": stamp, "n": pa.int8()})),
        }
    )
    feather.write_feather(table, str(tmp_path / "rows.arrow"))
    parquet.write_table(table, tmp_path / "rows.parquet")
    for name in ("rows.arrow", "rows.parquet"):
        (row,) = _data(source_of(str(tmp_path / name)))
        assert row == {
            "at": aware,
            "took": dt.timedelta(seconds=1.5),
            "clock": dt.time(0, 0, 1),
            "list": [aware],
            "long": [aware],
            "map": [("a", aware)],
            "deep": {"at": aware, "n": 1},
        }


def test_typed_columns_come_back_as_json(tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": ["1"],
            "price": [decimal.Decimal("1.10")],
            "day": [dt.date(2026, 1, 1)],
            "tags": [["a", "b"]],
            "raw": [b"\x00\x01"],
            "kind": pa.array(["x"]).dictionary_encode(),
        }
    )
    parquet.write_table(table, tmp_path / "rows.parquet")
    rows = source_of(str(tmp_path / "rows.parquet")).rows(FILES)
    (ready,) = ready_rows(rows, lambda row: Encoded(row["id"], b"{}"), columns=("*",))
    assert isinstance(ready, Ready)
    assert ready.columns == (b'{"id":"1","price":"1.10","day":"2026-01-01","tags":["a","b"],"raw":"AAE=","kind":"x"}')


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pa.table([[1], [2]], names=["id", "id"])
    parquet.write_table(table, tmp_path / "rows.parquet")
    arrow = tmp_path / "rows.arrow"
    with ipc.new_file(str(arrow), table.schema) as writer:
        writer.write_table(table)
    for name in ("rows.parquet", "rows.arrow"):
        with pytest.raises(SourceUnreadable, match="two of its columns are called id"):
            _data(source_of(str(tmp_path / name)))


def test_a_damaged_arrow_file_is_unreadable(tmp_path: Path) -> None:
    _file(tmp_path / "whole.arrow")
    _stream(tmp_path / "whole.arrows")
    for name in ("whole.arrow", "whole.arrows"):
        data = (tmp_path / name).read_bytes()
        for cut in (0, 3, len(data) // 2):
            (tmp_path / "half.arrow").write_bytes(data[:cut])
            with pytest.raises(SourceUnreadable):
                _data(ArrowSource(f"{tmp_path}/half.arrow"))


def test_tables_on_any_storage() -> None:
    import fsspec

    sink = pa.BufferOutputStream()
    parquet.write_table(TABLE, sink)
    fsspec.filesystem("memory").pipe_file("/tables/day=1/rows.parquet", sink.getvalue().to_pybytes())
    assert _data(ParquetSource("memory://tables/")) == [{**row, "day": "1"} for row in ROWS]


def test_a_long_batch_becomes_python_a_few_thousand_rows_at_a_time(tmp_path: Path) -> None:
    table = pa.table({"id": list(range(60_000)), "text": ["x" * 100] * 60_000})
    feather.write_feather(table, str(tmp_path / "rows.arrow"), chunksize=60_000)
    parquet.write_table(table, tmp_path / "rows.parquet")
    for name in ("rows.arrow", "rows.parquet"):
        tracemalloc.start()
        count = sum(1 for _ in source_of(str(tmp_path / name)).rows(FILES))
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert count == 60_000
        assert peak_bytes < 6_000_000
