"""The door to files: a small Protocol over whole objects under one root, for local disks, fsspec and memory.

Paths are relative, ``/``-separated and already encoded (``core.names.segment``); every implementation refuses one that
would leave the root. Absent, unreadable and empty are three answers: None, StoreUnreadable, and ``b""``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol

from airflow_provider_geminibatch.core.errors import StoreUnreadable


class Writer(Protocol):
    """A stream to one object. The object appears, whole, when the context ends without an exception, else not at all."""

    def write(self, data: bytes, /) -> object: ...


class Store(Protocol):
    """Objects under one root. Raises StoreUnreadable and StoreUnwritable only."""

    @property
    def uri(self) -> str:
        """The root, without a trailing slash."""
        ...

    def read(self, path: str) -> bytes | None:
        """The object, or None when it is certainly absent."""
        ...

    def create(self, path: str, data: bytes) -> bool:
        """Write only if absent; False when another writer was first. Exclusive across processes and machines."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Replace the whole object; readers see the old bytes or the new."""
        ...

    def list(self, folder: str) -> Iterator[str]:
        """Paths of all objects below a folder (``""``: the root), sorted. For pages and janitors; no decision about money
        reads it."""
        ...

    def delete(self, path: str) -> None:
        """Delete; silent when absent."""
        ...

    def open(self, path: str) -> BinaryIO:
        """Open for reading (seekable). Raises StoreUnreadable when absent."""
        ...

    def writer(self, path: str) -> AbstractContextManager[Writer]:
        """Stream a large object; it is visible only after a clean end."""
        ...


def checked(path: str) -> str:
    """``path`` if it stays inside its root; ValueError otherwise. The last line of defence behind ``names.segment``."""
    parts = path.split("/")
    if (
        not path
        or path.startswith("/")
        or "\\" in path
        or "\0" in path
        or any(part in ("", ".", "..") for part in parts)
    ):
        raise ValueError(f"{path!r} is not a path below the root")
    return path


def must_read(store: Store, path: str) -> bytes:
    """The object, which has to be there. Raises StoreUnreadable when it is absent."""
    data = store.read(path)
    if data is None:
        raise StoreUnreadable(f"{store.uri}/{path}", "it is not there")
    return data
