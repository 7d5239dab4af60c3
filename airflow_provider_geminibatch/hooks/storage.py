"""Stores as Airflow knows them: ``scheme://conn_id@bucket/folder`` through a provider, everything else plain."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from glob import has_magic
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast
from urllib.parse import urlsplit

from airflow.providers.common.compat.sdk import BaseHook, conf

from airflow_provider_geminibatch.core.errors import StoreUnreadable, Unusable
from airflow_provider_geminibatch.core.locations import address
from airflow_provider_geminibatch.hooks import config
from airflow_provider_geminibatch.hooks.gemini_batch import GeminiBatchHook
from airflow_provider_geminibatch.storage import facts, stores
from airflow_provider_geminibatch.storage.doors import Door, file_system_data
from airflow_provider_geminibatch.storage.files import PlainFiles, sizes_in
from airflow_provider_geminibatch.storage.google_store import google_file_system, is_google, path_of, reading_of
from airflow_provider_geminibatch.storage.store import Store

if TYPE_CHECKING:
    from airflow_provider_geminibatch.gemini.vertex import VertexSettings

log = logging.getLogger(__name__)

LOCAL_EXECUTORS = ("LocalExecutor", "SequentialExecutor")

_warned: set[str] = set()
# By process and connection: what the connection said, and what was made of it.
_opened: dict[tuple[int, str], tuple[object, Any]] = {}
_AS_OBJECT = object()


class Workspace(NamedTuple):
    """A workspace that can hold a ledger: its store, probed, and its own id."""

    store: Store
    id: str


def open_workspace(uri: str | None) -> Workspace:
    """The workspace at ``uri``, or at ``[geminibatch] workspace`` when that is empty.

    Raises Unusable when neither is set, StoreTooWeak for a store without create-only writes, StoreUnwritable for one
    that takes nothing.
    """
    chosen = (uri or "").strip() or config.workspace()
    if not chosen:
        raise Unusable(
            "workspace",
            "none is set",
            "Set [geminibatch] workspace to a folder that every worker reaches, or pass workspace= to the task.",
        )
    store = open_store(chosen)
    if is_local(chosen) and chosen not in _warned and not _executor_is_local():
        _warned.add(chosen)
        log.warning(
            "The workspace %s is on a local disk, and the executor runs tasks on other machines too: they would not "
            "see each other's ledgers. Use object storage, or a disk that all workers share.",
            chosen,
        )
    facts.probe(store, allow_weak=config.allow_weak_workspace())
    return Workspace(store, facts.workspace_id(store))


class AirflowFiles:
    """Files for reading by path, URI or glob pattern: with a connection id before ``@`` through Airflow, else plain."""

    def open(self, uri: str) -> BinaryIO:
        if not _names_connection(uri):
            return self._plain.open(uri)
        file_system, path = _airflow_file_system(uri)
        opened: BinaryIO = file_system.open(path, "rb", **reading_of(uri))
        return opened

    def match(self, pattern: str) -> Sequence[str]:
        """The files that a glob pattern names, with the connection that the pattern has."""
        if not _names_connection(pattern):
            return self._plain.match(pattern)
        file_system, path = _airflow_file_system(pattern)
        return sorted(_with_connection(pattern, name) for name in file_system.glob(path))

    def sizes(self, pattern: str) -> Mapping[str, int]:
        """The same files, or the one that a plain path names, with their sizes in bytes."""
        if not _names_connection(pattern):
            return self._plain.sizes(pattern)
        file_system, path = _airflow_file_system(pattern)
        if not has_magic(pattern):
            return {pattern: int(file_system.size(path))}
        return {_with_connection(pattern, name): size for name, size in sizes_in(file_system, path).items()}

    _plain = PlainFiles()


def files_door(path: str) -> Door | None:
    """What opens the files of ``path`` in another process, credentials included; None where that cannot be said."""
    if not _names_connection(path):
        return {}
    made = file_system_data(_airflow_file_system(path)[0])
    return made and {"file_system": made}


def _with_connection(pattern: str, name: object) -> str:
    """A file that a pattern named, as a URI with the connection that the pattern has."""
    scheme, netloc = urlsplit(pattern)[:2]
    return f"{scheme}://{netloc.rpartition('@')[0]}@{str(name).lstrip('/')}"


def open_store(uri: str) -> Store:
    """The store at ``uri``. A connection id before ``@`` needs the Airflow provider of that scheme.

    Raises Unusable for a relative path, StoreUnreadable for a scheme that nothing installed can open.
    """
    whole(uri)
    if not _names_connection(uri):
        return stores.open_store(uri)
    file_system, path = _airflow_file_system(uri)
    return stores.store_on(file_system, path, uri)


def _names_connection(uri: str) -> bool:
    return not is_local(uri) and "@" in urlsplit(uri).netloc


def _airflow_file_system(uri: str) -> tuple[Any, str]:
    """The file system that Airflow's provider of the scheme makes from the connection, and the path in it.

    A ``geminibatch`` connection of Vertex AI opens Cloud Storage by itself, without Google's provider.
    """
    from airflow.providers.common.compat.sdk import AirflowException, AirflowNotFoundException, ObjectStoragePath

    try:
        if is_google(uri) and (conn_id := _own_connection(uri)):
            return _google_file_system(conn_id), path_of(uri)
        path = ObjectStoragePath(uri)
        return path.fs, str(path.path)
    except (AirflowException, AirflowNotFoundException, ImportError, ValueError) as error:
        raise StoreUnreadable(
            uri, f"{error}; the connection or the provider of {urlsplit(uri).scheme}:// is missing"
        ) from error


def _own_connection(uri: str) -> str:
    """The connection in a URI if it is one of ours; else empty."""
    conn_id = urlsplit(uri).netloc.rpartition("@")[0]
    found = BaseHook.get_connection(address(conn_id).conn_id)
    return conn_id if found.conn_type == GeminiBatchHook.conn_type else ""


def _google_file_system(conn_id: str) -> Any:
    """Cloud Storage by one of our connections; one file system for each, as a trigger asks for it at every look."""
    hook = GeminiBatchHook(conn_id)
    settings, key = hook.settings(), (os.getpid(), conn_id)
    said = settings, _key_file(settings)
    made = _opened.get(key)
    if made is None or made[0] != said:
        credentials, endpoint = hook.storage_access()
        handed = _as_data(cast("VertexSettings", settings), endpoint)
        token = credentials if handed is _AS_OBJECT else handed
        made = _opened[key] = said, google_file_system(token, endpoint, skip_instance_cache=True)
    return made[1]


def _key_file(settings: object) -> tuple[int, int] | None:
    """What tells that the key in a connection's key file was exchanged, for a process that lives long."""
    path = getattr(getattr(settings, "credentials", None), "key_path", "")
    try:
        seen = os.stat(path) if path else None
    except OSError:
        return None  # whoever opens it says so
    return (seen.st_mtime_ns, seen.st_size) if seen else None


def _as_data(settings: VertexSettings, endpoint: str) -> Any:
    """Credentials as gcsfs takes them and another process can be handed them; else ``_AS_OBJECT``."""
    given = settings.credentials
    if not given.given and endpoint.startswith("https:"):
        return None  # those of the environment
    key = json.loads(given.keyfile) if given.keyfile and not given.impersonation_chain else {}
    return key if key.get("type") == "service_account" else _AS_OBJECT


def whole(uri: str) -> None:
    """Raises Unusable for a relative path."""
    if is_local(uri) and not uri.removeprefix("file://").startswith("/"):
        raise Unusable(
            repr(uri), "a relative path means another place in every process", "Give the whole path or a URI."
        )


def is_local(uri: str) -> bool:
    """Whether ``uri`` is a plain path or ``file://``."""
    return "://" not in uri or uri.startswith("file://")


def _executor_is_local() -> bool:
    configured = str(conf.get("core", "executor", fallback=LOCAL_EXECUTORS[0]))
    return all(name.strip().rpartition(".")[2].rpartition(":")[2] in LOCAL_EXECUTORS for name in configured.split(","))
