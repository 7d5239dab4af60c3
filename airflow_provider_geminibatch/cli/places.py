"""Workspaces and landings in files as Dags write them, at the command line: credentials are those of the environment."""

from __future__ import annotations

from airflow_provider_geminibatch.storage.store import Store
from airflow_provider_geminibatch.storage.stores import FsspecStore, open_store, store_on


def without_connection(uri: str) -> str:
    """``scheme://conn_id@bucket/folder`` without the connection, which only Airflow knows; any other URI or path as it is."""
    scheme, separator, rest = uri.partition("://")
    place, slash, path = rest.partition("/")
    return f"{scheme}{separator}{place.rpartition('@')[2]}{slash}{path}" if separator else uri


def open_place(uri: str) -> Store:
    """The store at a URI as Dags write it. It is called by that URI, so that what is put on record can be opened by Dags."""
    store = open_store(without_connection(uri))
    return store_on(store.file_system, store.root, uri) if isinstance(store, FsspecStore) else store


__all__ = ["open_place", "without_connection"]
