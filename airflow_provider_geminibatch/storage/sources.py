"""Where rows come from: files of several kinds on any storage, databases, callables and plain lists.

A source is a small value: it says what to read and gives the same text in every process. It reads when ``rows`` is called,
row by row, and says for each where it stands. Files come through a ``Files`` door, so that connections are somebody
else's business.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, cast

from airflow_provider_geminibatch.core.errors import SourceUnreadable, Unusable
from airflow_provider_geminibatch.core.rows import Row
from airflow_provider_geminibatch.storage.file_sources import (
    CsvSource,
    FilePart,
    FileSource,
    JsonlSource,
    RequestsSource,
    Slice,
)
from airflow_provider_geminibatch.storage.files import Files, PlainFiles
from airflow_provider_geminibatch.storage.table_sources import ArrowSource, ParquetSource


class Source(Protocol):
    """Something with rows."""

    @property
    def name(self) -> str:
        """What messages and the fingerprint call it; the same in every process."""
        ...

    def rows(self, files: Files) -> Iterator[Row]: ...


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


_FILE_SOURCES: tuple[type[FileSource], ...] = (CsvSource, JsonlSource, ParquetSource, ArrowSource)
_BY_SUFFIX = {suffix: kind for kind in _FILE_SOURCES for suffix in kind.suffixes}
_BY_NAME: dict[str, type[FileSource]] = {kind.__name__: kind for kind in (*_FILE_SOURCES, RequestsSource)}


def source_of(value: Any, kwargs: Mapping[str, Any] | None = None) -> Source:
    """The source that a value stands for: itself, a path by its suffix, a callable (with ``kwargs``), or rows.

    Whatever has a ``name`` and ``rows(files)`` is a source. Raises Unusable for anything else, generators included: they
    can be read once, and a clear reads again.
    """
    if isinstance(getattr(value, "name", None), str) and callable(getattr(value, "rows", None)):
        return cast(Source, value)
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
    suffix = os.path.splitext(path.lower().removesuffix(".gz"))[1]
    kind = _BY_SUFFIX.get(suffix)
    if kind is None:
        kinds, known = ", ".join(sorted(_BY_NAME)), ", ".join(sorted(_BY_SUFFIX))
        raise Unusable(
            path,
            "its suffix does not say what it holds",
            f"Name the kind, one of {kinds}, as in CsvSource({path!r}); known by suffix are {known}.",
        )
    return kind(path)


def source_from(data: Mapping[str, Any]) -> FileSource | FilePart:
    """The source of files, or the part of one, that ``serialize`` made ``data`` of, in this process or another."""
    if data.get("source") == "FilePart":
        of = source_from(data["of"])
        if isinstance(of, FileSource):
            return FilePart(of, tuple(Slice(*piece) for piece in data["slices"]))
    kind = _BY_NAME.get(str(data.get("source")))
    if kind is None:
        do = "Only sources of files are made from data; pass another one as it is."
        raise Unusable("source", f"{data.get('source')!r} is not a source of files", do)
    return kind(**{item.name: data[item.name] for item in fields(kind) if item.name in data})


__all__ = [
    "ArrowSource",
    "CallableSource",
    "CsvSource",
    "FilePart",
    "FileSource",
    "Files",
    "JsonlSource",
    "ListSource",
    "ParquetSource",
    "PlainFiles",
    "RequestsSource",
    "Source",
    "source_from",
    "source_of",
]
