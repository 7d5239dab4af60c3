"""Reads media files by content, from several threads, and remembers small ones that many rows name."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import BinaryIO, NamedTuple
from urllib.parse import urlsplit

from airflow_provider_geminibatch.core.errors import SourceUnreadable, StoreUnreadable, Unusable
from airflow_provider_geminibatch.core.media import FILE_BYTES
from airflow_provider_geminibatch.core.media_types import HEAD_BYTES
from airflow_provider_geminibatch.core.rows import Fault
from airflow_provider_geminibatch.storage.files import Files, reading

BLOCK_BYTES = 1 << 20
REMEMBERED_BYTES = 64_000_000
"""What is kept of media that were read, for rows that name the same file again."""

_NOT_THERE = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)


class Content(NamedTuple):
    """A file as read: its digest and size, how it begins, and all of it if it is small enough."""

    sha256: str
    size_bytes: int
    head: bytes
    data: bytes | None


class FirstAlone:
    """Files for several threads: the first of each place is opened by one thread alone, since connections are looked up then."""

    def __init__(self, files: Files) -> None:
        self._files, self._lock, self._met = files, threading.Lock(), set[tuple[str, str]]()

    def open(self, uri: str) -> BinaryIO:
        scheme, place = urlsplit(uri)[:2]
        if (scheme, place) in self._met:
            return self._files.open(uri)
        with self._lock:
            opened = self._files.open(uri)
            self._met.add((scheme, place))
            return opened


class MediaReader:
    """Files by path or URI, as contents. ``keep_bytes`` is up to which size a content is kept whole."""

    def __init__(self, files: Files, keep_bytes: int) -> None:
        self._files, self._keep = FirstAlone(files), keep_bytes
        self._known: OrderedDict[str, Content] = OrderedDict()
        self._known_bytes = 0
        self._lock = threading.Lock()

    def read(self, uri: str, content: bytes | None, label: str) -> Content | Fault:
        """A file, or the bytes that are there already. Raises StoreUnreadable for what may be there another time."""
        if content is not None:
            return self._fit(_of_bytes(content))
        with self._lock:
            known = self._known.get(uri)
            if known:
                self._known.move_to_end(uri)
                return known
        try:
            with reading(uri):
                found = self._streamed(uri)
        except SourceUnreadable as error:
            cause = error.__cause__
            # The path is a row's own word, and stays out of messages.
            why = (cause.strerror or "").lower() if isinstance(cause, OSError) else ""
            why = why or type(cause or error).__name__
            if isinstance(cause, _NOT_THERE):
                return Fault(f"could not be read: {why}", "check the path and the connection")
            raise StoreUnreadable(f"media {label}", why) from error
        except Unusable as error:
            raise Unusable("RequestTemplate(media=)", error.why, error.do) from error
        fit = self._fit(found)
        if isinstance(fit, Content):
            self._remember(uri, fit)
        return fit

    def _streamed(self, uri: str) -> Content:
        digest, size, kept = hashlib.sha256(), 0, bytearray()
        with self._files.open(uri) as file:
            while block := file.read(BLOCK_BYTES):
                digest.update(block)
                size += len(block)
                if len(kept) < max(self._keep + 1, HEAD_BYTES):
                    kept += block
                if size > FILE_BYTES:
                    break
        data = bytes(kept) if size <= self._keep else None
        return Content(digest.hexdigest(), size, bytes(kept[:HEAD_BYTES]), data)

    @staticmethod
    def _fit(content: Content) -> Content | Fault:
        return content if content.size_bytes else Fault("is an empty file", "look at what wrote it")

    def _remember(self, uri: str, content: Content) -> None:
        with self._lock:
            if uri not in self._known:
                self._known[uri] = content
                self._known_bytes += _weight(content)
            while self._known_bytes > REMEMBERED_BYTES:
                self._known_bytes -= _weight(self._known.popitem(last=False)[1])


def _of_bytes(content: bytes) -> Content:
    return Content(hashlib.sha256(content).hexdigest(), len(content), content[:HEAD_BYTES], content)


def _weight(content: Content) -> int:
    return len(content.data or b"") + len(content.head) + 500


__all__ = ["Content", "FirstAlone", "MediaReader"]
