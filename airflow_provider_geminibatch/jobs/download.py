"""A result file, brought whole into the workspace: resumed where it was cut, believed only when its end is right."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable

import msgspec

from airflow_provider_geminibatch.core.errors import (
    KeyRefused,
    ResultsBroken,
    ResultsNotReady,
    ServiceBusy,
    ServiceError,
)
from airflow_provider_geminibatch.gemini.gateway import Download, Gateway
from airflow_provider_geminibatch.storage.store import Store, Writer

TRIES = 5
"""How often one download is asked for again without getting any further."""

PROGRESS_BYTES = 1 << 20
"""A reply that brought so much has got further: a large file may be cut as often as it likes."""

PAUSES = (1.0, 2.0, 4.0, 8.0)
"""Seconds before the next try of one that got no further; the service's own word goes before, up to the last of them twice."""


class Fetched(msgspec.Struct, frozen=True):
    """What came: size and digest of the file."""

    size_bytes: int
    sha256: str


def fetch(
    gateway: Gateway,
    store: Store,
    file_name: str,
    path: str,
    *,
    what: str,
    log: logging.Logger,
    pause: Callable[[float], object],
) -> Fetched:
    """Download ``file_name`` to ``path``; the object appears when all of it is there. ``pause`` waits so many seconds.

    Raises ResultsNotReady when the service does not show the file (yet), ServiceBusy when it gets no further for some tries,
    and ResultsBroken when two replies do not fit together.
    """
    with store.writer(path) as target:
        taken, failed = _Taken(target, what), 0
        while True:
            before = taken.at
            try:
                if _take(gateway, file_name, taken):
                    return Fetched(taken.at, taken.hash.hexdigest())
                log.info(
                    "%s: %d bytes came, without a length or a last newline; asking for what follows", what, taken.at
                )
            except ServiceBusy as error:
                failed = 0 if taken.at - before >= PROGRESS_BYTES else failed + 1
                if failed == TRIES:
                    raise
                log.warning("%s: the download was cut at byte %d (%s); it goes on there", what, taken.at, error.text)
                if taken.at == before or error.code is not None:
                    wanted = error.retry_after_seconds or 0.0
                    pause(max(PAUSES[max(failed - 1, 0)], min(wanted, 2 * PAUSES[-1])))


class _Taken:
    """What has come so far, its running digest, and what was said about the whole."""

    def __init__(self, target: Writer, what: str) -> None:
        self._target, self.what = target, what
        self.hash, self.at, self.last = hashlib.sha256(), 0, b""
        self.size_bytes: int | None = None
        self._confirmed = -1

    def announce(self, size_bytes: int | None) -> None:
        """Note the size of the whole as a reply says it."""
        if size_bytes is None:
            return
        if self.size_bytes not in (None, size_bytes):
            raise ResultsBroken(self.what, f"the service announced {self.size_bytes} bytes, and then {size_bytes}")
        self.size_bytes = size_bytes

    def add(self, data: bytes) -> None:
        self._target.write(data)
        self.hash.update(data)
        self.at += len(data)
        self.last = data[-1:]
        if self.size_bytes is not None and self.at > self.size_bytes:
            raise ResultsBroken(self.what, f"{self.at} bytes came where the service announced {self.size_bytes}")

    def is_whole(self) -> bool:
        """Whether a reply that ended well was the end of the file; False asks once for what may follow."""
        if self.size_bytes is not None:
            if self.at < self.size_bytes:
                raise ServiceBusy(f"download of {self.what}", None, f"it ended at byte {self.at} of {self.size_bytes}")
            return True
        # Without a length, a connection that closes early looks like an end. Lines end with a newline.
        if self.last in (b"\n", b"") or self._confirmed == self.at:
            return True
        self._confirmed = self.at
        return False


def _take(gateway: Gateway, file_name: str, taken: _Taken) -> bool:
    """Go on where the stream was cut; whether all of it is there."""
    try:
        with gateway.download(file_name, taken.at) as reply:
            taken.announce(reply.size_bytes)
            _follow(reply, taken, taken.what)
    except ServiceError as error:
        # Seen: SUCCEEDED some time before the output can be read (ellmer PR#926). Results are kept for six weeks.
        if error.code in (403, 404) and not isinstance(error, KeyRefused):
            why = f"the service does not show its results ({error.code}: {error.text})"
            raise ResultsNotReady(taken.what, why) from error
        raise
    return taken.is_whole()


def _follow(reply: Download, taken: _Taken, what: str) -> None:
    """Take what is new in a reply. A service that ignores ranges sends the beginning again; it has to be the same."""
    skip = taken.at - reply.offset
    if skip < 0:
        raise ResultsBroken(what, f"the service went on at byte {reply.offset}, not {taken.at}")
    seen, before = hashlib.sha256(), taken.hash.hexdigest()
    for data in reply.chunks():
        known, fresh = data[:skip], data[skip:]
        if known:
            seen.update(known)
            skip -= len(known)
            if not skip and reply.offset == 0 and seen.hexdigest() != before:
                raise ResultsBroken(what, "a second download began with other bytes than the first")
        if fresh:
            taken.add(fresh)
    if skip:
        raise ServiceBusy(f"download of {what}", None, f"a second one ended {skip} bytes before the first")


__all__ = ["Fetched", "fetch"]
