"""Rows from files of text: CSV, JSON Lines, ready-made requests; one file, a glob of files, or a folder.

A source of files can be split into parts that are read apart from each other, in other processes too. Where it is cut
follows from the files' names and sizes alone, so that the same files give the same parts everywhere.
"""

from __future__ import annotations

import csv
import functools
import glob
import io
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, BinaryIO, ClassVar, NamedTuple

from airflow_provider_geminibatch.core.errors import EmptySource, Unusable
from airflow_provider_geminibatch.core.rows import Fault, Row
from airflow_provider_geminibatch.storage.files import Files, opened, reading

_BLOCK_BYTES = 1 << 20


class Slice(NamedTuple):
    """A stretch of one file: lines that begin in a range of bytes, or a range of row groups. Without an end, all of it."""

    uri: str
    shown: str
    size_bytes: int = 0
    start: int = 0
    end: int | None = None


@dataclass(frozen=True)
class FileSource:
    """What the kinds of files share: a path, a glob pattern or a folder, and how its files are found, read and split."""

    path: str

    unit: ClassVar[str] = "line"
    suffixes: ClassVar[tuple[str, ...]] = ()

    @property
    def name(self) -> str:
        return self.path

    def serialize(self) -> dict[str, Any]:
        """The arguments that were given, as plain data, for Airflow's Dag version and its page."""
        given = {item.name: getattr(self, item.name) for item in fields(self)}
        return {"source": type(self).__name__, **given}

    def resolve(self, context: Mapping[str, Any]) -> FileSource:
        """What Airflow's templating calls: the path rendered with the task's own Jinja environment."""
        return replace(self, path=str(context["task"].render_template(self.path, context)))

    def rows(self, files: Files) -> Iterator[Row]:
        """All rows of all files, in the order of their names. Raises SourceUnreadable, EmptySource for a glob of nothing."""
        with reading(self.path):
            found = self._chosen(files.match(self._pattern)) if self._many else [self.path]
        for uri, shown in self._shown(found):
            yield from self.read(files, Slice(uri, shown))

    def read(self, files: Files, piece: Slice) -> Iterator[Row]:
        """The rows of one stretch of one file."""
        place = f"{piece.shown} {self.unit}"
        with reading(piece.uri), opened(files, piece.uri) as file:
            for number, data in self._read(file, files, piece):
                yield Row(place, number, data)

    def parts(self, files: Files, *, part_bytes: int) -> tuple[FilePart, ...]:
        """The source in parts of about ``part_bytes``, in order: together they have the same rows with the same places.

        Small files that follow each other share a part. What cannot be cut (CSV, since a cell may hold line ends, and
        packed files) is a part of its own, however large.
        """
        if part_bytes < 1:
            raise Unusable("part_bytes", "a part holds at least one byte", "Pass a number above zero.")
        with reading(self.path):
            sizes = files.sizes(self._pattern)
            found = self._chosen(list(sizes)) if self._many else list(sizes)
        wholes = (Slice(uri, shown, sizes[uri]) for uri, shown in self._shown(found))
        return tuple(FilePart(self, run) for run in _runs(self._cut_all(files, wholes, part_bytes), part_bytes))

    def _cut_all(self, files: Files, wholes: Iterable[Slice], part_bytes: int) -> Iterator[Slice]:
        for whole in wholes:
            if whole.size_bytes <= part_bytes or whole.uri.lower().endswith(".gz"):
                yield whole
            else:
                with reading(whole.uri):
                    yield from self._cut(files, whole, part_bytes)

    def _cut(self, files: Files, whole: Slice, part_bytes: int) -> Iterable[Slice]:
        return (whole,)

    @property
    def _many(self) -> bool:
        return self.path.endswith("/") or glob.has_magic(self.path)

    @property
    def _pattern(self) -> str:
        return f"{self.path}**" if self.path.endswith("/") else self.path

    def _chosen(self, found: Sequence[str]) -> Sequence[str]:
        """Of the files in a folder those of this kind; what begins with ``_`` or ``.`` is somebody's bookkeeping."""
        if not self.path.endswith("/"):
            return found
        own = set(self.path.split("/"))
        return [
            uri
            for uri in found
            if uri.lower().removesuffix(".gz").endswith(self.suffixes)
            and not any(level[:1] in ("_", ".") and level not in own for level in uri.split("/"))
        ]

    def _shown(self, found: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Each file, and how messages call it: by the part of its path that tells it from the others."""
        if not found:
            raise EmptySource(self.path)
        shared = _shared_folders(found) if self._many else self.path.count("/")
        yield from ((uri, "/".join(uri.split("/")[shared:])) for uri in found)

    def _read(
        self, file: BinaryIO, files: Files, piece: Slice
    ) -> Iterator[tuple[int, Mapping[str, Any] | bytes | Fault]]:
        raise TypeError(f"{type(self).__name__} reads no files")


@dataclass(frozen=True)
class FilePart:
    """Some of the rows of a source of files: stretches that follow each other. Plain data, like the source itself."""

    of: FileSource
    slices: tuple[Slice, ...]

    @property
    def name(self) -> str:
        return self.of.name

    @property
    def size_bytes(self) -> int:
        """What is read for it, packed files as they are."""
        return sum(piece.size_bytes for piece in self.slices)

    def serialize(self) -> dict[str, Any]:
        """Plain data that ``source_from`` makes a part of again, in any process."""
        return {"source": "FilePart", "of": self.of.serialize(), "slices": [list(piece) for piece in self.slices]}

    def rows(self, files: Files) -> Iterator[Row]:
        """The rows of its stretches, each with the place that it has in its whole file."""
        for piece in self.slices:
            yield from self.of.read(files, piece)


def _shared_folders(uris: Sequence[str]) -> int:
    """How many leading folders all paths have in common."""
    folders = [uri.split("/")[:-1] for uri in uris]
    return len(list(itertools.takewhile(lambda level: len(set(level)) == 1, zip(*folders, strict=False))))


def _runs(slices: Iterable[Slice], part_bytes: int) -> Iterator[tuple[Slice, ...]]:
    """Slices in runs of at most ``part_bytes``, each of at least one."""
    run: list[Slice] = []
    run_bytes = 0
    for piece in slices:
        if run and run_bytes + piece.size_bytes > part_bytes:
            yield tuple(run)
            run, run_bytes = [], 0
        run.append(piece)
        run_bytes += piece.size_bytes
    if run:
        yield tuple(run)


@dataclass(frozen=True)
class CsvSource(FileSource):
    """A CSV file with a header line, or a glob of such files. Values are text, empty cells are ``""``.

    :param path: Path, URI, glob pattern, or folder with ``/`` at its end; ``.gz`` is unpacked.
    """

    delimiter: str = ","
    encoding: str = "utf-8"

    suffixes: ClassVar[tuple[str, ...]] = (".csv",)

    def _read(self, file: BinaryIO, files: Files, piece: Slice) -> Iterator[tuple[int, Mapping[str, Any] | Fault]]:
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
class JsonlSource(FileSource):
    """A file of JSON objects, one per line, or a glob of such files.

    :param path: Path, URI, glob pattern, or folder with ``/`` at its end; ``.gz`` is unpacked.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".jsonl", ".ndjson")

    def _read(self, file: BinaryIO, files: Files, piece: Slice) -> Iterator[tuple[int, bytes]]:
        lines = iter(file) if piece.end is None else _lines_between(file, piece.start, piece.end)
        if piece.start:
            line_of = _lines_after(functools.partial(_lines_before, files, piece))
            for local, line in enumerate(lines, 1):
                if not line.isspace():
                    yield line_of(local), line
            return
        for number, line in enumerate(lines, 1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf") or b"\n"  # a file of the mark alone has no rows
            if not line.isspace():
                yield number, line

    def _cut(self, files: Files, whole: Slice, part_bytes: int) -> Iterator[Slice]:
        # At multiples of a part, not in equal pieces: lines that are added at the end move no cut, and so change no shard
        # of the parts before, which a clear would pay for again.
        for start in range(0, whole.size_bytes, part_bytes):
            end = min(start + part_bytes, whole.size_bytes)
            yield whole._replace(size_bytes=end - start, start=start, end=end)


class RequestsSource(JsonlSource):
    """A file of ready-made requests: ``{"key": …, "request": {…}}``, one per line, or a glob of such files."""


def _lines_between(file: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    """The lines that begin at ``start`` or after it and before ``end``: a line that a cut goes through lies before it."""
    at = start
    if start:
        # Read from one byte before: if that is a line end, the line at ``start`` begins there and is ours.
        file.seek(start - 1)
        at += len(file.readline()) - 1
    for line in file:
        if at >= end:
            return
        at += len(line)
        yield line


class _Line(int):
    """A line's number, counted from the first line of its part; the lines before are counted when it is to be read.

    Messages need it, and they are few. Counting for every part beforehand would read each file many times over.
    """

    before: ClassVar[Callable[[], int]]

    def __str__(self) -> str:
        return str(int(self) + type(self).before())

    def __format__(self, spec: str) -> str:
        return format(int(self) + type(self).before(), spec)


def _lines_after(before: Callable[[], int]) -> type[_Line]:
    return type("Line", (_Line,), {"before": staticmethod(functools.cache(before))})


def _lines_before(files: Files, piece: Slice) -> int:
    """How many lines begin before the part does, the one that the cut goes through included."""
    lines, left, last = 0, piece.start, b"\n"
    with reading(piece.uri), opened(files, piece.uri) as file:
        while left and (block := file.read(min(left, _BLOCK_BYTES))):
            lines, left, last = lines + block.count(b"\n"), left - len(block), block[-1:]
    return lines + (last != b"\n")
