"""Cloud Storage as a store: by gcsfs, which repeats calls by itself, so that every create carries a mark of its own."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Mapping
from typing import Any

from airflow_provider_geminibatch.storage.stores import FsspecStore

SCHEMES = ("gs", "gcs")
_GOOGLE = "https://storage.googleapis.com"
_MARK = "geminibatch-create"

# A piece ahead. By default gcsfs 2026 reads further ahead the longer it goes on, by 100 MiB and more.
_READING: Mapping[str, Any] = {"cache_type": "readahead", "block_size": 4 << 20}


class GoogleStore(FsspecStore):
    """A folder in Cloud Storage.

    gcsfs sends a create again whose reply was lost, and then meets its own success. The mark in the object's metadata tells that
    from another writer's, who may have written the same bytes.
    """

    def _reader(self, target: str) -> Any:
        return self._fs.open(target, "rb", **_READING)

    def _put_new(self, target: str, data: bytes) -> bool:
        mark = uuid.uuid4().hex
        try:
            # One call, with ifGenerationMatch=0: gcsfs has this way of its own, and its files take two calls for the smallest.
            self._fs.pipe_file(target, data, mode="create", metadata={_MARK: mark})
        except FileExistsError:
            return self._mark_of(target) == mark
        except FileNotFoundError:
            raise _no_bucket(target) from None
        return True

    def _put(self, target: str, data: bytes, mode: str) -> None:
        try:
            self._fs.pipe_file(target, data)
        except FileNotFoundError:
            raise _no_bucket(target) from None

    def _mark_of(self, target: str) -> str | None:
        self._fs.invalidate_cache()
        try:
            found = self._fs.info(target).get("metadata") or {}
        except FileNotFoundError:
            return None  # and nobody's any more
        return str(found.get(_MARK)) if _MARK in found else None


def _no_bucket(target: str) -> OSError:
    return FileNotFoundError(errno.ENOENT, f"there is no bucket {target.partition('/')[0]}")


def google_file_system(credentials: Any = None, endpoint: str = "", **options: Any) -> Any:
    """gcsfs with these credentials, or those of the environment, at an endpoint, or Google's own. Raises ImportError."""
    try:
        from gcsfs.core import GCSFileSystem
    except ImportError as error:
        raise ImportError(f"{error}; install airflow-provider-geminibatch[gcs]") from error

    # The plain class: the newer one asks another service, over gRPC, what kind each bucket is, and where that service cannot
    # be reached it waits a minute before every file (gcsfs 2026.10.1, ExtendedGcsFileSystem).
    if credentials is None and os.environ.get("STORAGE_EMULATOR_HOST"):
        credentials = "anon"  # as Google's own client does
    given = {"token": credentials} if credentials is not None else {}
    place = {"endpoint_url": endpoint} if endpoint and endpoint != _GOOGLE else {}
    return GCSFileSystem(use_listings_cache=False, **given, **place, **options)


def is_google(uri: str) -> bool:
    """Whether a URI is of Cloud Storage."""
    return uri.startswith(tuple(f"{scheme}://" for scheme in SCHEMES))


def reading_of(uri: str) -> Mapping[str, Any]:
    """What a file system is told of how the file at a URI is read."""
    return _READING if is_google(uri) else {}


def path_of(uri: str) -> str:
    """Bucket and path of a URI, which may name a connection before ``@``."""
    place, slash, path = uri.partition("://")[2].partition("/")
    return f"{place.rpartition('@')[2]}{slash}{path}"


__all__ = ["SCHEMES", "GoogleStore", "google_file_system", "is_google", "path_of", "reading_of"]
