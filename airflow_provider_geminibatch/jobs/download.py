"""A result file, brought whole into the workspace: resumed where it was cut, believed only when its end is right."""

from __future__ import annotations

import hashlib
import logging

import msgspec

from airflow_provider_geminibatch.core.errors import (
    KeyRefused,
    ResultsBroken,
    ResultsNotReady,
    ServiceBusy,
    ServiceError,
)
from airflow_provider_geminibatch.gemini.gateway import Gateway
from airflow_provider_geminibatch.storage.store import Store, Writer

TRIES = 5
"""How often one download is taken up again after a cut."""


class Fetched(msgspec.Struct, frozen=True):
    """What came: size and digest of the file."""

    size_bytes: int
    sha256: str


def fetch(gateway: Gateway, store: Store, file_name: str, path: str, *, what: str, log: logging.Logger) -> Fetched:
    """Download ``file_name`` to ``path``; the object appears when all of it is there.

    Raises ResultsNotReady when the service does not show the file (yet), ServiceBusy when it is cut again and again, and
    ResultsBroken when two replies do not fit together.
    """
    with store.writer(path) as target:
        stream, size = _Taken(target), None
        for left in reversed(range(TRIES)):
            try:
                size = _take(gateway, file_name, stream, what)
            except ServiceBusy:
                if not left:
                    raise
                log.warning("%s: the download was cut at byte %d; it goes on there", what, stream.at)
                continue
            if size is None or stream.at == size:
                return Fetched(stream.at, stream.hash.hexdigest())
            if stream.at > size:
                raise ResultsBroken(what, f"{stream.at} bytes came where the service announced {size}")
        raise ServiceBusy(f"download of {what}", None, f"it ended at byte {stream.at} of {size}")


class _Taken:
    """What has come so far, and its running digest."""

    def __init__(self, target: Writer) -> None:
        self._target, self.hash, self.at = target, hashlib.sha256(), 0

    def add(self, data: bytes) -> None:
        self._target.write(data)
        self.hash.update(data)
        self.at += len(data)


def _take(gateway: Gateway, file_name: str, taken: _Taken, what: str) -> int | None:
    """Go on where the stream was cut; the size of the whole, where it is known."""
    try:
        with gateway.download(file_name, taken.at) as reply:
            skip = taken.at - reply.offset
            if skip < 0:
                raise ResultsBroken(what, f"the service went on at byte {reply.offset}, not {taken.at}")
            seen = hashlib.sha256()
            before = taken.hash.hexdigest()
            for data in reply.chunks():
                # A service that ignores ranges sends the beginning again; it has to be the same beginning.
                known, fresh = data[:skip], data[skip:]
                if known:
                    seen.update(known)
                    skip -= len(known)
                    if not skip and reply.offset == 0 and seen.hexdigest() != before:
                        raise ResultsBroken(what, "a second download began with other bytes than the first")
                if fresh:
                    taken.add(fresh)
            return reply.size_bytes
    except ServiceError as error:
        # Seen: SUCCEEDED some time before the output can be read (ellmer PR#926). Results are kept for six weeks.
        if error.code in (403, 404) and not isinstance(error, KeyRefused):
            raise ResultsNotReady(
                what, f"the service does not show its results ({error.code}: {error.text})"
            ) from error
        raise


__all__ = ["Fetched", "fetch"]
