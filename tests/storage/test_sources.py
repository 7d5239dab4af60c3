"""Sources: every kind of file row by row, with the place of each row as an editor shows it."""

from __future__ import annotations

import functools
import gzip
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.errors import EmptySource, GeminiBatchError, SourceUnreadable, Unusable
from airflow_provider_geminibatch.core.rows import Fault, Row
from airflow_provider_geminibatch.storage.sources import (
    CallableSource,
    CsvSource,
    JsonlSource,
    ListSource,
    ParquetSource,
    PlainFiles,
    RequestsSource,
    Source,
    source_of,
)

FILES = PlainFiles()


def _write(path: Path, data: bytes | str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return str(path)


def _rows(source: Source) -> list[Row]:
    return list(source.rows(FILES))


def test_a_csv_row_stands_where_its_first_line_stands(tmp_path: Path) -> None:
    path = _write(tmp_path / "rows.csv", 'id,text\n1,"two\nlines"\n\n2,plain\r\n3,"a ""quote"""\n4,\n')
    assert _rows(CsvSource(path)) == [
        Row("rows.csv line", 2, {"id": "1", "text": "two\nlines"}),
        Row("rows.csv line", 5, {"id": "2", "text": "plain"}),
        Row("rows.csv line", 6, {"id": "3", "text": 'a "quote"'}),
        Row("rows.csv line", 7, {"id": "4", "text": ""}),
    ]


CELL = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0\r"), max_size=8)


@given(st.lists(st.tuples(CELL, CELL), max_size=6))
def test_csv_gives_back_what_was_written(cells: list[tuple[str, str]]) -> None:
    import csv

    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerows([("id", "text"), *cells])
    source = CsvSource("rows.csv")
    found = [row.data for row in source.rows(_Held({"rows.csv": text.getvalue().encode()}))]
    assert found == [{"id": one, "text": other} for one, other in cells]


class _Held:
    """Files in memory; ``fail`` is raised when one is read."""

    def __init__(self, held: dict[str, bytes], fail: Callable[[], Exception] | None = None) -> None:
        self._held, self._fail = held, fail

    def open(self, uri: str) -> BinaryIO:
        if self._fail:
            raise self._fail()
        return io.BytesIO(self._held[uri])

    def match(self, pattern: str) -> Sequence[str]:
        return sorted(self._held)


def test_what_is_wrong_with_a_csv_file_is_said_where_it_is(tmp_path: Path) -> None:
    path = _write(tmp_path / "rows.csv", b'id,text\n1,a,b\n2\n3,"un"closed\n4,\xff\n5,"open')
    assert [(row.number, row.data) for row in _rows(CsvSource(path))] == [
        (2, Fault("has 3 cells where the header has 2", "quote cells that hold the delimiter")),
        (3, Fault("has 1 cells where the header has 2", "quote cells that hold the delimiter")),
        (4, Fault("is not CSV: ',' expected after '\"'", "look for a quote that is not closed or not doubled")),
        (5, {"id": "4", "text": "\udcff"}),
        (6, Fault("is not CSV: unexpected end of data", "look for a quote that is not closed or not doubled")),
    ]


def test_a_header_with_a_column_twice_ends_the_file(tmp_path: Path) -> None:
    path = _write(tmp_path / "rows.csv", "id,text,id\n1,a,b\n")
    assert [(row.number, row.data) for row in _rows(CsvSource(path))] == [
        (1, Fault("the header names id twice", "a column is found by its name"))
    ]


def test_a_broken_header_ends_the_file(tmp_path: Path) -> None:
    assert len(_rows(CsvSource(_write(tmp_path / "rows.csv", '"id"x,text\n1,a\n')))) == 1


def test_a_byte_order_mark_is_not_part_of_the_first_column(tmp_path: Path) -> None:
    path = _write(tmp_path / "rows.csv", b"\xef\xbb\xbfid\n1\n")
    lines = _write(tmp_path / "rows.jsonl", b'\xef\xbb\xbf{"id": "1"}\n')
    assert [row.data for row in _rows(CsvSource(path))] == [{"id": "1"}]
    assert [row.data for row in _rows(JsonlSource(lines))] == [b'{"id": "1"}\n']


def test_another_delimiter_and_encoding_may_be_named(tmp_path: Path) -> None:
    path = _write(tmp_path / "rows.csv", "id;text\n1;é\n".encode("latin-1"))
    assert [row.data for row in _rows(CsvSource(path, delimiter=";", encoding="latin-1"))] == [{"id": "1", "text": "é"}]
    with pytest.raises(SourceUnreadable, match="it is not ascii text"):
        _rows(CsvSource(path, delimiter=";", encoding="ascii"))


def test_a_cell_may_be_longer_than_the_csv_modules_own_limit(tmp_path: Path) -> None:
    path = _write(tmp_path / "rows.csv", f"id,text\n1,{'x' * 200_000}\n")
    (row,) = _rows(CsvSource(path))
    assert isinstance(row.data, dict)
    assert len(row.data["text"]) == 200_000


def test_lines_of_json_are_numbered_as_in_the_file(tmp_path: Path) -> None:
    path = _write(tmp_path / "rows.jsonl", '{"id": "1"}\n\n  \n{"id": "2"}')
    assert _rows(JsonlSource(path)) == [
        Row("rows.jsonl line", 1, b'{"id": "1"}\n'),
        Row("rows.jsonl line", 4, b'{"id": "2"}'),
    ]


def test_parquet_gives_typed_rows_over_all_of_its_groups(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    path = tmp_path / "rows.parquet"
    parquet.write_table(pa.table({"id": [1, 2, 3], "text": ["a", None, "é"]}), path, row_group_size=2)
    assert _rows(source_of(str(path))) == [
        Row("rows.parquet row", 1, {"id": 1, "text": "a"}),
        Row("rows.parquet row", 2, {"id": 2, "text": None}),
        Row("rows.parquet row", 3, {"id": 3, "text": "é"}),
    ]
    assert [row.data for row in _rows(ParquetSource(str(path), only=("id",)))] == [{"id": 1}, {"id": 2}, {"id": 3}]


def test_a_glob_reads_all_files_by_name_and_tells_them_apart(tmp_path: Path) -> None:
    for folder, name in (("b", "1"), ("a", "2"), ("a", "10")):
        _write(tmp_path / folder / f"{name}.csv", f"id\n{folder}{name}\n")
    rows = _rows(CsvSource(str(tmp_path / "*" / "*.csv")))
    assert [(row.place, row.data) for row in rows] == [
        ("a/10.csv line", {"id": "a10"}),
        ("a/2.csv line", {"id": "a2"}),
        ("b/1.csv line", {"id": "b1"}),
    ]


def test_a_glob_of_nothing_is_an_empty_source(tmp_path: Path) -> None:
    with pytest.raises(EmptySource):
        _rows(CsvSource(str(tmp_path / "*.csv")))


def test_a_file_with_nothing_but_a_byte_order_mark_has_no_rows(tmp_path: Path) -> None:
    for name in ("rows.jsonl", "rows.csv"):
        assert _rows(source_of(_write(tmp_path / name, b"\xef\xbb\xbf"))) == []


@pytest.mark.parametrize("packed", ["gz", "GZ"])
def test_packed_files_are_unpacked(tmp_path: Path, packed: str) -> None:
    path = _write(tmp_path / f"rows.csv.{packed}", gzip.compress(b"id\n1\n"))
    assert [row.data for row in _rows(source_of(path))] == [{"id": "1"}]
    lines = _write(tmp_path / f"rows.jsonl.{packed}", gzip.compress(b'{"id": "1"}\n'))
    assert [row.data for row in _rows(source_of(lines))] == [b'{"id": "1"}\n']


@pytest.mark.parametrize("name", ["gone.csv", "gone.jsonl", "gone.parquet"])
def test_a_file_that_is_not_there_is_said_in_one_sentence(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceUnreadable) as caught:
        _rows(source_of(str(tmp_path / name)))
    assert str(caught.value) == (
        f"{tmp_path}/{name} could not be read: no such file or directory. Nothing was sent or paid. "
        "Check the path and the connection, then clear the task."
    )


def test_a_damaged_file_is_unreadable(tmp_path: Path) -> None:
    for path in (
        _write(tmp_path / "rows.parquet", b"not parquet at all"),
        _write(tmp_path / "rows.csv.gz", gzip.compress(b"id\n1\n" * 1000)[:20]),
    ):
        with pytest.raises(SourceUnreadable):
            _rows(source_of(path))


def test_whatever_a_remote_file_system_raises_becomes_one_error() -> None:
    with pytest.raises(SourceUnreadable, match="Exception: 403 from the bucket"):
        list(CsvSource("s3://b/rows.csv").rows(_Held({}, lambda: Exception("403 from the bucket"))))
    ours = Unusable("x", "y", "z")
    with pytest.raises(GeminiBatchError) as caught:
        list(CsvSource("s3://b/rows.csv").rows(_Held({}, lambda: ours)))
    assert caught.value is ours


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(Unusable, match="pyarrow"):
        _rows(ParquetSource(_write(tmp_path / "rows.parquet", b"")))


def test_uris_go_through_fsspec() -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for name in ("a", "b"):
        memory.pipe_file(f"/sources/{name}.csv", f"id\n{name}\n".encode())
    assert [row.data for row in _rows(source_of("memory://sources/a.csv"))] == [{"id": "a"}]
    assert [row.place for row in _rows(source_of("memory://sources/*.csv"))] == ["a.csv line", "b.csv line"]


def test_a_function_is_called_once_per_reading_with_its_arguments() -> None:
    calls: list[str] = []

    def made(window: str) -> Iterator[dict[str, str]]:
        calls.append(window)
        yield {"id": window}

    source = source_of(made, {"window": "w1"})
    assert [_rows(source), _rows(source)] == [[Row("row", 1, {"id": "w1"})]] * 2
    assert calls == ["w1", "w1"]
    assert source.name == "test_a_function_is_called_once_per_reading_with_its_arguments.<locals>.made()"
    assert CallableSource(functools.partial(made, "w2")).name == source.name


@pytest.mark.parametrize("given", [None, "text", {"id": 1}, 7])
def test_a_function_that_gives_no_rows_is_unreadable(given: Any) -> None:
    with pytest.raises(SourceUnreadable, match="instead of rows"):
        _rows(CallableSource(lambda: given))


def test_an_error_of_the_users_function_is_the_users_own() -> None:
    def broken() -> Iterator[dict[str, str]]:
        yield {"id": "1"}
        raise ConnectionError("the user's database")

    with pytest.raises(ConnectionError, match="the user's database"):
        _rows(CallableSource(broken))


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("s3://b/k.CSV", CsvSource), ("/a/b.ndjson", JsonlSource), ("a.pq", ParquetSource), (Path("a.csv"), CsvSource),
        (RequestsSource("a.jsonl"), RequestsSource), ([{"id": 1}], ListSource), (dict, CallableSource),
    ],
)  # fmt: skip
def test_a_value_is_taken_for_what_it_is(value: Any, kind: type[Source]) -> None:
    assert type(source_of(value)) is kind


@pytest.mark.parametrize("value", ["rows.txt", 7, {"id": 1}, iter([1]), b"x"])
def test_what_cannot_be_read_again_or_at_all_is_refused(value: Any) -> None:
    with pytest.raises(Unusable):
        source_of(value)


def test_sources_say_the_same_in_every_process() -> None:
    source = CsvSource("{{ ds }}.csv", delimiter=";")
    assert repr(source) == "CsvSource(path='{{ ds }}.csv', delimiter=';', encoding='utf-8')"
    assert source.serialize() == {"source": "CsvSource", "path": "{{ ds }}.csv", "delimiter": ";", "encoding": "utf-8"}
    assert source == CsvSource("{{ ds }}.csv", delimiter=";") != JsonlSource("{{ ds }}.csv")


def test_airflow_renders_the_path_by_the_task_it_belongs_to() -> None:
    class Task:
        def render_template(self, text: str, context: dict[str, Any]) -> str:
            return text.replace("{{ ds }}", context["ds"])

    rendered = CsvSource("{{ ds }}.csv", delimiter=";").resolve({"task": Task(), "ds": "2026-01-01"})
    assert rendered == CsvSource("2026-01-01.csv", delimiter=";")
