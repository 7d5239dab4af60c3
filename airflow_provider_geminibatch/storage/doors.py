"""Stores and files for another process: what it takes to open the same door there, as plain data.

The data may hold credentials. It goes to a child process over its standard input and nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.storage.files import Files, PlainFiles
from airflow_provider_geminibatch.storage.google_store import reading_of
from airflow_provider_geminibatch.storage.store import Store
from airflow_provider_geminibatch.storage.stores import FsspecStore, LocalStore, store_on

Door = dict[str, Any]


class FileSystemFiles:
    """Files of one fsspec file system, by URIs that may name a connection before ``@``."""

    def __init__(self, file_system: Any) -> None:
        self._file_system = file_system

    def open(self, uri: str) -> BinaryIO:
        parts = urlsplit(uri)
        bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        return cast(BinaryIO, self._file_system.open(bare, "rb", **reading_of(bare)))

    def match(self, pattern: str) -> Sequence[str]:
        """Not needed where a part of a source is read: its files are named."""
        raise Unusable(pattern, "a part of a source names its files", "Match patterns before splitting.")

    def sizes(self, pattern: str) -> Mapping[str, int]:
        """As ``match``."""
        raise Unusable(pattern, "a part of a source names its files", "Split it before.")


def store_door(store: Store) -> Door | None:
    """What opens the same store in another process; None for one that only this process has."""
    if isinstance(store, LocalStore):
        return {"root": store.root, "uri": store.uri}
    if isinstance(store, FsspecStore):
        made = file_system_data(store.file_system)
        return made and {"file_system": made, "root": store.root, "uri": store.uri}
    return None


def open_store_door(door: Door) -> Store:
    """The store of a ``store_door``."""
    if "file_system" in door:
        return store_on(_file_system(door["file_system"]), door["root"], door["uri"])
    return LocalStore(door["root"], door["uri"])


def open_files_door(door: Door) -> Files:
    """The files of a door: ``{}`` for plain ones, or ``{"file_system": …}``."""
    return FileSystemFiles(_file_system(door["file_system"])) if door else PlainFiles()


def file_system_data(file_system: Any) -> Any | None:
    """An fsspec file system as data; None for one that lives in this process, or cannot be said in JSON."""
    if "memory" in str(file_system.protocol):
        return None
    try:
        data = json.loads(file_system.to_json())
        return data if _said(_file_system(data)) == _said(file_system) else None
    except (AttributeError, TypeError, ValueError, ImportError):
        return None


def _said(file_system: Any) -> Any:
    return type(file_system), file_system.storage_options


def _file_system(data: Any) -> Any:
    from fsspec import AbstractFileSystem

    return AbstractFileSystem.from_json(json.dumps(data))
