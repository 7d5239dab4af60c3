"""Parts: a source of files, cut so that other processes can read it, has the same rows with the same places."""

from __future__ import annotations

import gzip
import io
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.errors import EmptySource, SourceUnreadable, Unusable
from airflow_provider_geminibatch.core.rows import Row
from airflow_provider_geminibatch.storage.sources import (
    ArrowSource,
    CsvSource,
    FilePart,
    FileSource,
    JsonlSource,
    ListSource,
    ParquetSource,
    PlainFiles,
    RequestsSource,
    source_from,
)

FILES = PlainFiles()


class Held:
    """Files in memory. ``read`` counts how often each was opened."""

    def __init__(self, held: dict[str, bytes]) -> None:
        self._held, self.opened = held, 0

    def open(self, uri: str) -> BinaryIO:
        self.opened += 1
        return io.BytesIO(self._held[uri])

    def match(self, pattern: str) -> Sequence[str]:
        return sorted(self._held)

    def sizes(self, pattern: str) -> Mapping[str, int]:
        return {uri: len(self._held[uri]) for uri in sorted(self._held)}


def said(rows: Iterator[Row]) -> list[tuple[str, Any]]:
    """Rows as messages place them."""
    return [(f"{row.place} {row.number}", row.data) for row in rows]


def in_parts(source: FileSource, files: Any, part_bytes: int) -> list[tuple[str, Any]]:
    """What all parts say, each made again from its data as another process would."""
    parts = source.parts(files, part_bytes=part_bytes)
    again = [source_from(json.loads(json.dumps(part.serialize()))) for part in parts]
    assert again == list(parts)
    return [row for part in again for row in said(part.rows(files))]


LINE = st.sampled_from([b"", b" ", b"{}", b'{"id": 1}', b'{"text": "\xc3\xa9 \xe2\x80\xa8 longer"}', b"\r"])


@given(st.lists(LINE, max_size=12), st.integers(1, 40), st.booleans(), st.booleans())
def test_the_parts_of_a_file_of_lines_have_its_rows_and_say_the_same_lines(
    lines: list[bytes], part_bytes: int, ended: bool, marked: bool
) -> None:
    data = (b"\xef\xbb\xbf" if marked else b"") + b"\n".join(lines) + (b"\n" if ended else b"")
    files = Held({"rows.jsonl": data})
    source = JsonlSource("rows.jsonl")
    assert in_parts(source, files, part_bytes) == said(source.rows(files))


@given(st.dictionaries(st.sampled_from("abcde"), st.integers(0, 9), min_size=1), st.integers(1, 60))
def test_files_that_follow_each_other_share_a_part_up_to_its_size(sizes: dict[str, int], part_bytes: int) -> None:
    files = Held({f"{name}.jsonl": b'{"id":1}\n' * lines for name, lines in sizes.items()})
    source = JsonlSource("*.jsonl")
    parts = source.parts(files, part_bytes=part_bytes)
    assert in_parts(source, files, part_bytes) == said(source.rows(files))
    assert sum(part.size_bytes for part in parts) == 9 * sum(sizes.values())
    assert all(part.size_bytes <= part_bytes for part in parts)
    assert all(one.size_bytes + other.slices[0].size_bytes > part_bytes for one, other in itertools.pairwise(parts))


def test_the_lines_before_a_part_are_counted_only_when_somebody_reads_a_number() -> None:
    files = Held({"rows.jsonl": b"{}\n" * 100})
    *_, last = JsonlSource("rows.jsonl").parts(files, part_bytes=100)
    rows = list(last.rows(files))
    assert files.opened == 1
    assert [f"{row.place} {row.number}" for row in rows] == [f"rows.jsonl line {at}" for at in range(68, 101)]
    assert [str(row.number) for row in rows] == [str(at) for at in range(68, 101)]
    assert files.opened == 2


def test_where_a_file_is_cut_depends_on_its_size_alone() -> None:
    one, other = Held({"rows.jsonl": b"{}\n" * 100}), Held({"rows.jsonl": b" " * 299 + b"\n"})
    source = RequestsSource("rows.jsonl")
    parts = source.parts(one, part_bytes=90)
    assert parts == source.parts(other, part_bytes=90)
    assert [(part.slices[0].start, part.slices[0].end) for part in parts] == [
        (0, 90),
        (90, 180),
        (180, 270),
        (270, 300),
    ]
    assert parts[1].serialize() == {
        "source": "FilePart",
        "of": {"source": "RequestsSource", "path": "rows.jsonl"},
        "slices": [["rows.jsonl", "rows.jsonl", 90, 90, 180]],
    }
    assert [len(list(part.rows(other))) for part in parts] == [0, 0, 0, 0]
    assert {part.name for part in parts} == {"rows.jsonl"}


def test_lines_that_are_added_at_the_end_move_no_cut() -> None:
    source = JsonlSource("rows.jsonl")
    before = source.parts(Held({"rows.jsonl": b"{}\n" * 100}), part_bytes=90)
    after = source.parts(Held({"rows.jsonl": b"{}\n" * 135}), part_bytes=90)
    assert after[:3] == before[:3]


@pytest.mark.parametrize("group", [1, 3, 7, 100])
@pytest.mark.parametrize("part_bytes", [1, 400, 100_000])
def test_parquet_is_cut_between_its_row_groups(tmp_path: Path, group: int, part_bytes: int) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    for name in ("a", "b"):
        table = pa.table({"id": [f"{name}{at}" for at in range(20)], "text": ["x" * at for at in range(20)]})
        parquet.write_table(table, tmp_path / f"{name}.parquet", row_group_size=group)
    source = ParquetSource(str(tmp_path / "*.parquet"), only=("id",))
    assert in_parts(source, FILES, part_bytes) == said(source.rows(FILES))
    groups = -(-20 // group)
    assert len(source.parts(FILES, part_bytes=1)) == 2 * groups


def test_what_cannot_be_cut_is_one_part_however_large(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import feather

    (tmp_path / "rows.csv").write_text("id,text\n" + '1,"a\nb"\n' * 50)
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(b"{}\n" * 50))
    feather.write_feather(pa.table({"id": list(range(50))}), tmp_path / "rows.arrow")
    for source in (
        CsvSource(str(tmp_path / "rows.csv"), delimiter=","),
        JsonlSource(str(tmp_path / "rows.jsonl.gz")),
        ArrowSource(str(tmp_path / "rows.arrow")),
    ):
        assert len(source.parts(FILES, part_bytes=10)) == 1
        assert in_parts(source, FILES, 10) == said(source.rows(FILES))
        assert len(said(source.rows(FILES))) == 50


def test_files_on_any_storage_are_cut_the_same_way() -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for name in ("a", "b"):
        memory.pipe_file(f"/parts/{name}.jsonl", f'{{"id": "{name}"}}\n'.encode() * 30)
    for path in ("memory://parts/*.jsonl", "memory://parts/a.jsonl", "memory://parts/"):
        source = JsonlSource(path)
        assert in_parts(source, FILES, 100) == said(source.rows(FILES))
        assert len(source.parts(FILES, part_bytes=100)) > 3


def test_parts_of_nothing_and_of_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(EmptySource):
        JsonlSource(f"{tmp_path}/*.jsonl").parts(FILES, part_bytes=100)
    with pytest.raises(SourceUnreadable, match="no such file"):
        JsonlSource(f"{tmp_path}/gone.jsonl").parts(FILES, part_bytes=100)
    with pytest.raises(Unusable, match="at least one byte"):
        JsonlSource("rows.jsonl").parts(FILES, part_bytes=0)


def test_only_sources_of_files_are_made_from_data() -> None:
    for data in ({"source": "ListSource"}, {}, {"source": None}):
        with pytest.raises(Unusable, match="not a source of files"):
            source_from(data)
    part = FilePart(CsvSource("a.csv", delimiter=";"), ())
    assert source_from(part.serialize()) == part
    assert source_from(CsvSource("a.csv", delimiter=";").serialize()) == CsvSource("a.csv", delimiter=";")
    assert source_from(ParquetSource("a.pq", only=("id",)).serialize()) == ParquetSource("a.pq", only=("id",))
    with pytest.raises(AttributeError):
        ListSource([]).parts  # type: ignore[attr-defined]  # noqa: B018 - that there are none is what is tested
