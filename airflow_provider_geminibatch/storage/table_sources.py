"""Rows from tables in files, Parquet and Arrow, with the columns that their folders are named after. Needs pyarrow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar
from urllib.parse import unquote

from airflow_provider_geminibatch.core.errors import SourceUnreadable
from airflow_provider_geminibatch.storage.file_sources import FileSource, Slice
from airflow_provider_geminibatch.storage.files import Files, opened

_ARROW_FILE = b"ARROW1"
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class TableSource(FileSource):
    """What tables share: which columns are read, and those that stand in the names of folders."""

    only: tuple[str, ...] = ()
    partitions: bool = True

    unit: ClassVar[str] = "row"
    batch_rows: ClassVar[int] = 2_000

    def __post_init__(self) -> None:
        object.__setattr__(self, "only", tuple(self.only))

    def _read(self, file: BinaryIO, files: Files, piece: Slice) -> Iterator[tuple[int, Mapping[str, Any]]]:
        import pyarrow as pa

        folders = partitions_of(piece.uri) if self.partitions else {}
        with pa.PythonFile(file, mode="r") as source:
            before, schema, batches = self._batches(source, piece, folders)
            twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
            if twice:
                raise SourceUnreadable(piece.uri, f"two of its columns are called {', '.join(twice)}")
            wanted = {name: value for name, value in folders.items() if not self.only or name in self.only}
            # A column that the file has itself is the file's: it was written by whoever knows its type.
            along = {name: value for name, value in wanted.items() if name not in schema.names}
            number = before
            for row in _rows(batches, self.batch_rows):
                number += 1
                row.update(along)
                yield number, row

    def _batches(self, source: Any, piece: Slice, folders: Mapping[str, Any]) -> tuple[int, Any, Iterable[Any]]:
        """How many rows lie before, the schema of the file, and its rows as record batches."""
        raise TypeError(f"{type(self).__name__} reads no tables")

    def _columns(self, schema: Any, piece: Slice, folders: Mapping[str, Any]) -> list[str]:
        """Which of the columns asked for are read from the file."""
        known = set(schema.names)
        gone = [name for name in self.only if name.partition(".")[0] not in known | set(folders)]
        if gone:
            raise SourceUnreadable(piece.uri, f"it has no column {', '.join(gone)}; it has {', '.join(schema.names)}")
        return [name for name in self.only if name.partition(".")[0] in known]


@dataclass(frozen=True)
class ParquetSource(TableSource):
    """A Parquet file, or a glob of such files. Needs pyarrow.

    :param path: Path, URI, glob pattern, or folder with ``/`` at its end.
    :param only: The columns to read; all when empty.
    :param partitions: Whether folders named ``column=value`` give columns, as text.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".parquet", ".pq")

    def _batches(self, source: Any, piece: Slice, folders: Mapping[str, Any]) -> tuple[int, Any, Iterable[Any]]:
        from pyarrow import parquet

        # Column chunks are read as streams: a file of a single huge row group takes no more memory than another.
        table = parquet.ParquetFile(source, pre_buffer=False, buffer_size=1 << 20)
        columns = self._columns(table.schema_arrow, piece, folders) if self.only else None
        groups = range(piece.start, table.num_row_groups if piece.end is None else piece.end)
        before = sum(table.metadata.row_group(at).num_rows for at in range(piece.start))
        batches = table.iter_batches(self.batch_rows, row_groups=list(groups), columns=columns)
        return before, table.schema_arrow, batches

    def _cut(self, files: Files, whole: Slice, part_bytes: int) -> Iterator[Slice]:
        """Runs of row groups, by their packed sizes."""
        from pyarrow import parquet

        with opened(files, whole.uri) as file:
            metadata = parquet.ParquetFile(file).metadata
            groups = [metadata.row_group(at) for at in range(metadata.num_row_groups)]
            sizes = [sum(g.column(at).total_compressed_size for at in range(g.num_columns)) for g in groups]
        run = start = 0
        for at, size in enumerate(sizes):
            if at > start and run + size > part_bytes:
                yield whole._replace(size_bytes=run, start=start, end=at)
                run, start = 0, at
            run += size
        yield whole._replace(size_bytes=run, start=start, end=len(sizes))


@dataclass(frozen=True)
class ArrowSource(TableSource):
    """An Arrow IPC file (Feather) or stream, or a glob of such files. Needs pyarrow.

    :param path: Path, URI, glob pattern, or folder with ``/`` at its end.
    :param only: The columns to read; all when empty.
    :param partitions: Whether folders named ``column=value`` give columns, as text.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".arrow", ".arrows", ".feather", ".ipc")

    def _batches(self, source: Any, piece: Slice, folders: Mapping[str, Any]) -> tuple[int, Any, Iterable[Any]]:
        from pyarrow import ipc

        is_file = source.read(len(_ARROW_FILE)) == _ARROW_FILE
        source.seek(0)
        if is_file:
            table = ipc.open_file(source)
            batches = (table.get_batch(at) for at in range(table.num_record_batches))
        else:
            table = ipc.open_stream(source)
            batches = iter(table)
        if not self.only:
            return 0, table.schema, batches
        columns = self._columns(table.schema, piece, folders)
        return 0, table.schema, (batch.select(columns) for batch in batches)


def partitions_of(uri: str) -> dict[str, str | None]:
    """The columns that the folders of a path are named after: ``…/day=2026-01-01/region=eu/…`` has two, as text."""
    pairs = [level.partition("=") for level in uri.split("/")[:-1]]
    found = {unquote(name): unquote(value) for name, equals, value in pairs if equals and name}
    return {name: None if value == _NO_VALUE else value for name, value in found.items()}


def _rows(batches: Iterable[Any], batch_rows: int) -> Iterator[dict[str, Any]]:
    """The rows of record batches as Python, a few thousand at a time however long a batch is."""
    for batch in batches:
        coarse = _coarser(batch)
        for start in range(0, coarse.num_rows, batch_rows):
            yield from coarse.slice(start, batch_rows).to_pylist()


def _coarser(batch: Any) -> Any:
    """The batch with times of nanoseconds as microseconds: Python's own times are no finer, and pyarrow refuses them."""
    import pyarrow as pa

    types = [_coarse(kind) for kind in batch.schema.types]
    if types == batch.schema.types:
        return batch
    schema = pa.schema(zip(batch.schema.names, types, strict=True))
    return batch.cast(schema, safe=False)


def _coarse(kind: Any) -> Any:
    """The type with nanoseconds replaced by microseconds, inside of lists, maps and structs too."""
    import pyarrow as pa
    from pyarrow import types

    if types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    if types.is_duration(kind) and kind.unit == "ns":
        return pa.duration("us")
    if types.is_time64(kind) and kind.unit == "ns":
        return pa.time64("us")
    if types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_coarse(kind.value_type)))
    if types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_coarse(kind.value_type)))
    if types.is_map(kind):
        return pa.map_(kind.key_type, _coarse(kind.item_type))
    if types.is_struct(kind):
        return pa.struct([field.with_type(_coarse(field.type)) for field in kind])
    return kind


__all__: Sequence[str] = ("ArrowSource", "ParquetSource", "TableSource", "partitions_of")
