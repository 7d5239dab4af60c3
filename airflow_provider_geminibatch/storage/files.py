"""Files by path, URI or glob pattern, for reading: the door through which sources come to their rows."""

from __future__ import annotations

import glob
import gzip
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, Protocol, cast

from airflow_provider_geminibatch.core.errors import GeminiBatchError, SourceUnreadable, Unusable
from airflow_provider_geminibatch.storage.google_store import google_file_system, is_google, path_of, reading_of

_BUFFER_BYTES = 1 << 20


class Files(Protocol):
    """Files by path or URI, for reading."""

    def open(self, uri: str) -> BinaryIO: ...

    def match(self, pattern: str) -> Sequence[str]:
        """The files that a glob pattern names, in the order of their names."""
        ...

    def sizes(self, pattern: str) -> Mapping[str, int]:
        """The same files, or the one that a plain path names, with their sizes in bytes: one look, however many."""
        ...


class PlainFiles:
    """Local paths, and every URI that fsspec can open by itself."""

    def open(self, uri: str) -> BinaryIO:
        if is_local(uri):
            return open(uri.removeprefix("file://"), "rb", buffering=_BUFFER_BYTES)
        fs, path = file_system_of(uri)
        file = fs.open(path, "rb", **reading_of(uri))
        # fsspec's memory hands one file, with one position, to all who open it at the same time.
        return io.BytesIO(file.getvalue()) if isinstance(file, io.BytesIO) else cast(BinaryIO, file)

    def match(self, pattern: str) -> Sequence[str]:
        if is_local(pattern):
            return sorted(glob.glob(pattern.removeprefix("file://"), recursive=True))
        fs, path = file_system_of(pattern)
        return sorted(fs.unstrip_protocol(name) for name in fs.glob(path))

    def sizes(self, pattern: str) -> Mapping[str, int]:
        if is_local(pattern):
            paths = self.match(pattern) if glob.has_magic(pattern) else [pattern]
            return {path: os.path.getsize(path.removeprefix("file://")) for path in paths}
        fs, path = file_system_of(pattern)
        if not glob.has_magic(pattern):
            return {pattern: int(fs.size(path))}
        return {fs.unstrip_protocol(name): size for name, size in sizes_in(fs, path).items()}


def file_system_of(uri: str) -> tuple[Any, str]:
    """The fsspec file system of a URI, with the credentials of the environment, and the path in it."""
    if is_google(uri):
        return google_file_system(), path_of(uri)
    import fsspec

    fs, path = fsspec.core.url_to_fs(uri)
    return fs, path


def sizes_in(file_system: Any, pattern: str) -> dict[str, int]:
    """The files of a glob in an fsspec file system with their sizes, by name; a folder has none."""
    found = file_system.glob(pattern, detail=True)
    return {name: int(found[name].get("size") or 0) for name in sorted(found) if found[name].get("type") != "directory"}


def is_local(uri: str) -> bool:
    """Whether ``uri`` is a plain path or ``file://``."""
    return "://" not in uri or uri.startswith("file://")


@contextmanager
def reading(uri: str) -> Iterator[None]:
    """Every trouble with a file becomes SourceUnreadable."""
    try:
        yield
    except GeminiBatchError:
        raise
    except ImportError as error:
        do = "Install the package that reads it (pyarrow for Parquet and Arrow, the file system of the URI's scheme)."
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
def opened(files: Files, uri: str) -> Iterator[BinaryIO]:
    with files.open(uri) as raw:
        if uri.lower().endswith(".gz"):
            with gzip.open(raw, "rb") as unpacked:
                yield cast(BinaryIO, unpacked)
        elif isinstance(raw, io.BufferedIOBase):
            yield cast(BinaryIO, raw)
        else:
            yield cast(BinaryIO, io.BufferedReader(cast(Any, raw), _BUFFER_BYTES))
