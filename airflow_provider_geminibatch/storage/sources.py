"""Where rows come from: CSV, JSON Lines and Parquet files on any storage, ready-made requests, callables and plain lists.

A source is a small value: it says what to read and gives the same text in every process. It reads when ``rows`` is called,
row by row, and says for each where it stands in its file. Files come through a ``Files`` door, so that connections are
somebody else's business.
"""

from __future__ import annotations

import csv
import functools
import glob
import gzip
import io
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any, BinaryIO, ClassVar, Protocol, cast

from airflow_provider_geminibatch.core.errors import EmptySource, GeminiBatchError, SourceUnreadable, Unusable
from airflow_provider_geminibatch.core.rows import Fault, Row

_BUFFER_BYTES = 1 << 20


class Files(Protocol):
    """Files by path or URI, for reading."""

    def open(self, uri: str) -> BinaryIO: ...

    def match(self, pattern: str) -> Sequence[str]:
        """The files that a glob pattern names."""
        ...


class PlainFiles:
    """Local paths, and every URI that fsspec can open by itself."""

    def open(self, uri: str) -> BinaryIO:
        if _is_local(uri):
            return open(uri.removeprefix("file://"), "rb", buffering=_BUFFER_BYTES)
        import fsspec

        return cast(BinaryIO, fsspec.open(uri, "rb").open())

    def match(self, pattern: str) -> Sequence[str]:
        if _is_local(pattern):
            return sorted(glob.glob(pattern.removeprefix("file://"), recursive=True))
        import fsspec

        fs, path = fsspec.core.url_to_fs(pattern)
        return sorted(fs.unstrip_protocol(name) for name in fs.glob(path))


def _is_local(uri: str) -> bool:
    return "://" not in uri or uri.startswith("file://")


class Source(Protocol):
    """Something with rows."""

    @property
    def name(self) -> str:
        """What messages and the fingerprint call it; the same in every process."""
        ...

    def rows(self, files: Files) -> Iterator[Row]: ...


@dataclass(frozen=True)
class _FileSource:
    """What the kinds of files share: a path or a glob pattern, and how its files are found and opened."""

    path: str

    unit: ClassVar[str] = "line"

    @property
    def name(self) -> str:
        return self.path

    def serialize(self) -> dict[str, Any]:
        """The arguments that were given, as plain data, for Airflow's Dag version and its page."""
        given = {item.name: getattr(self, item.name) for item in fields(self)}
        return {"source": type(self).__name__, **given}

    def resolve(self, context: Mapping[str, Any]) -> _FileSource:
        """What Airflow's templating calls: the path rendered with the task's own Jinja environment."""
        return replace(self, path=str(context["task"].render_template(self.path, context)))

    def rows(self, files: Files) -> Iterator[Row]:
        """All rows of all files, in the order of their names. Raises SourceUnreadable, EmptySource for a glob of nothing."""
        for uri, shown in self._files(files):
            place = f"{shown} {self.unit}"
            with _reading(uri), _opened(files, uri) as file:
                for number, data in self._read(file):
                    yield Row(place, number, data)

    def _files(self, files: Files) -> Iterator[tuple[str, str]]:
        """Each file, and how messages call it: by the part of its path that tells it from the others."""
        if not glob.has_magic(self.path):
            yield self.path, self.path.rpartition("/")[2]
            return
        with _reading(self.path):
            found = files.match(self.path)
        if not found:
            raise EmptySource(self.path)
        shared = _shared_folders(found)
        yield from ((uri, "/".join(uri.split("/")[shared:])) for uri in found)

    def _read(self, file: BinaryIO) -> Iterator[tuple[int, Mapping[str, Any] | bytes | Fault]]:
        raise TypeError(f"{type(self).__name__} reads no files")


def _shared_folders(uris: Sequence[str]) -> int:
    """How many leading folders all paths have in common."""
    folders = [uri.split("/")[:-1] for uri in uris]
    return len(list(itertools.takewhile(lambda level: len(set(level)) == 1, zip(*folders, strict=False))))


@contextmanager
def _reading(uri: str) -> Iterator[None]:
    """Every trouble with a file becomes SourceUnreadable."""
    try:
        yield
    except GeminiBatchError:
        raise
    except ImportError as error:
        do = "Install the package that reads it (pyarrow for Parquet, the file system of the URI's scheme)."
        raise Unusable(uri, f"{error}", do) from error
    except Exception as error:
        # Remote file systems raise their client libraries' own errors, which share no base class; nothing of ours but the
        # readers below runs in here.
        raise SourceUnreadable(uri, _reason(error)) from error


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, UnicodeDecodeError):
        return f"it is not {error.encoding} text (byte {error.start})"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


@contextmanager
def _opened(files: Files, uri: str) -> Iterator[BinaryIO]:
    with files.open(uri) as raw:
        if uri.endswith(".gz"):
            with gzip.open(raw, "rb") as unpacked:
                yield cast(BinaryIO, unpacked)
        elif isinstance(raw, io.BufferedIOBase):
            yield cast(BinaryIO, raw)
        else:
            yield cast(BinaryIO, io.BufferedReader(cast(Any, raw), _BUFFER_BYTES))


@dataclass(frozen=True)
class CsvSource(_FileSource):
    """A CSV file with a header line, or a glob of such files. Values are text, empty cells are ``""``.

    :param path: Path, URI or glob pattern; ``.gz`` is unpacked.
    """

    delimiter: str = ","
    encoding: str = "utf-8"

    def _read(self, file: BinaryIO) -> Iterator[tuple[int, Mapping[str, Any] | Fault]]:
        # A cell may be as long as a prompt; the module's limit of 128 KiB is global and meant for other times.
        csv.field_size_limit(sys.maxsize)
        # Bytes that are no UTF-8 come in as lone surrogates and are reported with their line and column.
        utf8 = self.encoding.lower().replace("_", "-") in ("utf-8", "utf8")
        encoding, errors = ("utf-8-sig", "surrogateescape") if utf8 else (self.encoding, "strict")
        with io.TextIOWrapper(file, encoding, errors, newline="") as text:
            yield from _records(csv.reader(text, delimiter=self.delimiter, strict=True))


def _records(reader: Any) -> Iterator[tuple[int, Mapping[str, Any] | Fault]]:
    """The rows below the header, each with the line it begins on."""
    header: list[str] = []
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield line, Fault(f"is not CSV: {error}", "look for a quote that is not closed or not doubled")
            if not header:
                return
            continue
        if cells is None:
            return
        if not cells:
            continue
        if header:
            yield line, _cells(header, cells)
            continue
        header = cells
        twice = sorted({name for name in header if header.count(name) > 1})
        if twice:
            yield line, Fault(f"the header names {', '.join(twice)} twice", "a column is found by its name")
            return


def _cells(header: list[str], cells: list[str]) -> dict[str, str] | Fault:
    if len(cells) == len(header):
        return dict(zip(header, cells, strict=True))
    return Fault(f"has {len(cells)} cells where the header has {len(header)}", "quote cells that hold the delimiter")


@dataclass(frozen=True)
class JsonlSource(_FileSource):
    """A file of JSON objects, one per line, or a glob of such files.

    :param path: Path, URI or glob pattern; ``.gz`` is unpacked.
    """

    def _read(self, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
        for number, line in enumerate(file, 1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if not line.isspace():
                yield number, line


class RequestsSource(JsonlSource):
    """A file of ready-made requests: ``{"key": …, "request": {…}}``, one per line, or a glob of such files."""


@dataclass(frozen=True)
class ParquetSource(_FileSource):
    """A Parquet file, or a glob of such files. Needs pyarrow.

    :param path: Path, URI or glob pattern.
    :param only: The columns to read; all when empty.
    """

    only: tuple[str, ...] = ()

    unit: ClassVar[str] = "row"
    batch_rows: ClassVar[int] = 2_000

    def _read(self, file: BinaryIO) -> Iterator[tuple[int, Mapping[str, Any]]]:
        from pyarrow import parquet

        number = 0
        for batch in parquet.ParquetFile(file).iter_batches(self.batch_rows, columns=list(self.only) or None):
            for row in batch.to_pylist():
                number += 1
                yield number, row


@dataclass(frozen=True)
class CallableSource:
    """Rows from a function: called once per reading, with keyword arguments. It returns or yields mappings."""

    function: Callable[..., Iterable[Mapping[str, Any]]]
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        function: Any = self.function
        while isinstance(function, functools.partial):
            function = function.func
        # Not the module: Airflow loads Dag files under names of its own.
        return f"{getattr(function, '__qualname__', type(function).__qualname__)}()"

    def serialize(self) -> str:
        """What Airflow shows and compares: the name, since the function's repr is another at each parse of the Dag."""
        return self.name

    def rows(self, files: Files) -> Iterator[Row]:
        """What the function gives, numbered from 1. Errors of the function are its own and stay as they are."""
        given = self.function(**self.kwargs)
        if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
            raise SourceUnreadable(self.name, f"it returned {type(given).__name__} instead of rows")
        yield from _numbered(given)


@dataclass(frozen=True)
class ListSource:
    """Rows that are there already."""

    given: Iterable[Mapping[str, Any]]
    name: str = "the rows given"

    def rows(self, files: Files) -> Iterator[Row]:
        yield from _numbered(self.given)


def _numbered(rows: Iterable[Any]) -> Iterator[Row]:
    for number, row in enumerate(rows, 1):
        yield Row("row", number, row)


_BY_SUFFIX: dict[str, type[_FileSource]] = {
    ".csv": CsvSource,
    ".jsonl": JsonlSource,
    ".ndjson": JsonlSource,
    ".parquet": ParquetSource,
    ".pq": ParquetSource,
}


def source_of(value: Any, kwargs: Mapping[str, Any] | None = None) -> Source:
    """The source that a value stands for: itself, a path by its suffix, a callable (with ``kwargs``), or rows.

    Raises Unusable for anything else, generators included: they can be read once, and a clear reads again.
    """
    if isinstance(value, _FileSource | CallableSource | ListSource):
        return value
    if isinstance(value, str | os.PathLike) or hasattr(value, "__fspath__"):
        return _by_suffix(str(value))
    if callable(value):
        return CallableSource(value, dict(kwargs or {}))
    if isinstance(value, Iterator):
        raise Unusable("source", "a generator can be read only once", "Pass the function that makes it.")
    if isinstance(value, Iterable) and not isinstance(value, Mapping | bytes):
        return ListSource(value)
    do = "Pass a path, a source, a function or a list of rows."
    raise Unusable("source", f"a {type(value).__name__} has no rows", do)


def _by_suffix(path: str) -> Source:
    suffix = os.path.splitext(path.removesuffix(".gz"))[1].lower()
    kind = _BY_SUFFIX.get(suffix)
    if kind is None:
        known = ", ".join(sorted(_BY_SUFFIX))
        do = f"Name the kind: CsvSource, JsonlSource, ParquetSource or RequestsSource (known by suffix: {known})."
        raise Unusable(path, "its suffix does not say what it holds", do)
    return kind(path)
