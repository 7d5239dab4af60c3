"""Objects of Cloud Storage: written once, checked, read at the generation that was seen.

Uploads are Google's client's, resumable and streamed; what is small or must be read exactly is asked for here, as it stands
on the wire. An object is created or it is not: none is ever written over, and an upload that fails leaves nothing.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from threading import Lock
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple
from urllib.parse import quote

import httpx
import msgspec

from airflow_provider_geminibatch.core.errors import (
    CredentialsRefused,
    ResultsBroken,
    ServiceBusy,
    ServiceError,
)
from airflow_provider_geminibatch.gemini.cloud_calls import Calls
from airflow_provider_geminibatch.gemini.gateway import BUSY
from airflow_provider_geminibatch.gemini.http import CHUNK_BYTES, named, reply_of
from airflow_provider_geminibatch.gemini.replies import Reply, busy_error, count, error_text, members, moment

if TYPE_CHECKING:
    from google.cloud.storage import Client

ENDPOINT = "https://storage.googleapis.com"

UPLOAD_CHUNK_BYTES = 8 << 20
"""Twice as much is held while it is sent (measured with google-cloud-storage 3.17); the default, 40 MiB, is much for a worker."""

_URI = re.compile(r"gs://([a-z0-9][a-z0-9._-]{1,220}[a-z0-9])/(.+)", re.DOTALL)
_ROLE = "Grant the account of the connection roles/storage.objectAdmin on the bucket."


class Place(NamedTuple):
    """Where an object is, or may be."""

    bucket: str
    name: str

    def __str__(self) -> str:
        return f"gs://{self.bucket}/{self.name}"


def place_of(uri: str) -> Place:
    """The place that a URI names. Raises ValueError for one that names none."""
    found = _URI.fullmatch(uri)
    if not found:
        raise ValueError(f"{uri!r} is not gs://bucket/object")
    return Place(found[1], found[2])


class StoredObject(msgspec.Struct, frozen=True, kw_only=True):
    """An object as it stood when the service showed it, at ``seen_at`` by its own clock."""

    place: Place
    generation: int
    size_bytes: int
    crc32c: str = ""
    created_at: datetime | None = None
    seen_at: datetime | None = None


class ObjectPage(msgspec.Struct, frozen=True):
    """One page of a listing."""

    objects: tuple[StoredObject, ...]
    next_token: str = ""


class CloudStorage:
    """The objects of one endpoint."""

    def __init__(self, endpoint: str, calls: Calls, *, project: str) -> None:
        self._endpoint, self._calls, self._project = endpoint, calls, project
        self._client: Client | None = None
        self._lock = Lock()

    def close(self) -> None:
        """Let go of the connections of Google's client; the calls are their owner's."""
        if self._client is not None:
            self._client.close()

    def get(self, place: Place) -> StoredObject | None:
        """The object as it stands now; None when there is none."""
        doing = f"look at {place}"
        reply = self._calls.send("GET", self._url(place), doing)
        if reply.status == 404:
            return None
        return _stored(place.bucket, _ok(doing, reply).json() or {}, reply.date)

    def delete(self, place: Place) -> bool:
        """Delete an object; False when there is none."""
        doing = f"delete {place}"
        reply = self._calls.send("DELETE", self._url(place), doing)
        if reply.status in (200, 204):
            return True
        if reply.status == 404:
            return False
        raise _storage_error(doing, reply)

    def list(self, place: Place, page_token: str = "", *, page_size: int = 1000) -> ObjectPage:
        """A page of the objects whose names begin with that of ``place``, in the order of their names."""
        doing = f"list of {place}"
        query = {"prefix": place.name, "maxResults": str(page_size)} | ({"pageToken": page_token} if page_token else {})
        reply = _ok(
            doing, self._calls.send("GET", f"{self._endpoint}/storage/v1/b/{place.bucket}/o", doing, params=query)
        )
        body = reply.json()
        if body is None or not isinstance(body.get("items", []), list):
            raise ServiceBusy(doing, reply.status, "a reply that is not a page")
        items = [item for item in body.get("items", []) if isinstance(item, dict)]
        found = tuple(_stored(place.bucket, item, reply.date) for item in items)
        return ObjectPage(found, str(body.get("nextPageToken") or ""))

    def all(self, place: Place) -> Iterator[StoredObject]:
        """All objects whose names begin with that of ``place``."""
        token = ""
        while True:
            page = self.list(place, token)
            yield from page.objects
            token = page.next_token
            if not token:
                return

    def create(self, place: Place, source: BinaryIO, *, size_bytes: int, content_type: str) -> StoredObject | None:
        """Upload an object, unless one is there by then that is another one: then None.

        One that is there and equal is taken for ours: a reply that was lost makes Google's client meet its own success.
        """
        doing = f"upload of {place}"
        summed = _Summed(source)
        try:
            self._upload(place, summed, size_bytes, content_type, doing)
        except _library_errors() as error:
            if _status(error) != 412:
                raise _upload_error(doing, error) from error
        stored = self.get(place)
        if stored is None:
            raise ServiceBusy(doing, None, "it is not there after its upload")
        return stored if stored.size_bytes == size_bytes and stored.crc32c == summed.base64(size_bytes) else None

    def is_equal(self, stored: StoredObject, source: BinaryIO, size_bytes: int) -> bool:
        """Whether an object holds what a stream brings, which is read to its end for that."""
        return stored.size_bytes == size_bytes and stored.crc32c == _Summed(source).base64(size_bytes)

    def _upload(self, place: Place, source: _Summed, size_bytes: int, content_type: str, doing: str) -> None:
        from google.cloud.storage.retry import DEFAULT_RETRY

        blob = self._opened(doing).bucket(place.bucket).blob(place.name)
        options: dict[str, Any] = {
            "content_type": content_type, "if_generation_match": 0, "checksum": "crc32c",
            "timeout": self._calls.timeout_seconds, "retry": DEFAULT_RETRY.with_timeout(self._calls.timeout_seconds),
        }  # fmt: skip
        if not size_bytes:
            # A stream to which nothing is written leaves no object.
            blob.upload_from_string(b"", **options)
            return
        # Binary, always: in text mode an exception would leave the half that was sent.
        target = blob.open("wb", chunk_size=UPLOAD_CHUNK_BYTES, **options)
        try:
            while data := source.read(CHUNK_BYTES):
                target.write(data)
            target.close()
        except BaseException:
            _abandon(target)
            raise

    def _opened(self, doing: str) -> Client:
        # Media are uploaded by several threads.
        with self._lock:
            if self._client is None:
                from google.cloud import storage

                self._client = storage.Client(
                    project=self._project,
                    credentials=self._calls.tokens.credentials(doing),
                    client_options={"api_endpoint": self._endpoint},
                )
            return self._client

    def read(self, stored: StoredObject, start: int, doing: str) -> Iterator[bytes]:
        """The bytes of an object from ``start`` on, at the generation that was seen, checked against its sum if read whole."""
        # Unpacked bytes only: lengths and ranges are those of what is stored.
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
        query = {"alt": "media", "generation": str(stored.generation)}
        at, seen = start, _Sum()
        with self._calls.stream(self._url(stored.place, "/download"), doing, headers=headers, params=query) as answer:
            if answer.status_code != (206 if start else 200):
                if answer.status_code == 200:  # all of it, where a part was asked for
                    raise ServiceBusy(
                        doing, None, f"the whole object came where its bytes from {start} on were asked for"
                    )
                answer.read()
                raise _storage_error(doing, reply_of(answer))
            for data in _bytes(answer, doing):
                at += len(data)
                seen.update(data)
                yield data
        if at != stored.size_bytes:
            raise ServiceBusy(doing, None, f"it ended at byte {at} of {stored.size_bytes}")
        if not start and stored.crc32c and seen.base64 != stored.crc32c:
            raise ResultsBroken(str(stored.place), "what came does not have the checksum of the object")

    def _url(self, place: Place, media: str = "") -> str:
        return f"{self._endpoint}{media}/storage/v1/b/{place.bucket}/o/{quote(place.name, safe='')}"


def _abandon(target: Any) -> None:
    """Let a half upload be: nothing of it becomes an object, now or later.

    Where ``close`` itself failed, the writer would try once more when it is garbage, from whatever thread that is in, and might
    bring back an object that was deleted since (google-cloud-storage 3.17, ``fileio.py``; measured).
    """
    target.close = lambda: None
    with suppress(*_library_errors()):
        target.terminate()


class _Sum:
    """A running CRC32C, and its form on the wire."""

    def __init__(self) -> None:
        import google_crc32c

        self._extend, self._value = google_crc32c.extend, 0

    def update(self, data: bytes) -> None:
        self._value = self._extend(self._value, data)

    @property
    def base64(self) -> str:
        return base64.b64encode(self._value.to_bytes(4, "big")).decode()


class _Summed:
    """A stream that is read once, and the sum of what was read."""

    def __init__(self, source: BinaryIO) -> None:
        self._source, self._sum, self._at = source, _Sum(), 0

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        self._sum.update(data)
        self._at += len(data)
        return data

    def base64(self, size_bytes: int) -> str:
        """The sum of all of it: what an upload left unread is read now."""
        while self._at < size_bytes and self.read(CHUNK_BYTES):
            pass
        return self._sum.base64


def _bytes(answer: httpx.Response, doing: str) -> Iterator[bytes]:
    try:
        yield from answer.iter_raw(CHUNK_BYTES)
    except httpx.HTTPError as error:
        raise ServiceBusy(doing, None, named(error)) from error


def _stored(bucket: str, fields: dict[str, Any], seen_at: datetime | None) -> StoredObject:
    return StoredObject(
        place=Place(bucket, str(fields.get("name") or "")),
        generation=count(fields.get("generation")),
        size_bytes=count(fields.get("size")),
        crc32c=str(fields.get("crc32c") or ""),
        created_at=moment(fields.get("timeCreated")),
        seen_at=seen_at,
    )


def _ok(doing: str, reply: Reply) -> Reply:
    if reply.status != 200:
        raise _storage_error(doing, reply)
    return reply


def _storage_error(doing: str, reply: Reply) -> ServiceError:
    if reply.status in (401, 403):
        return CredentialsRefused(doing, reply.status, f"{error_text(reply)} {_ROLE}")
    return busy_error(doing, reply) or ServiceError(doing, reply.status, error_text(reply))


def _library_errors() -> tuple[type[Exception], ...]:
    """What Google's client raises: its own two families, and those of what it is made of."""
    import requests
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

    return (GoogleAPIError, InvalidResponse, DataCorruption, GoogleAuthError, requests.RequestException, OSError)


def _status(error: BaseException) -> int | None:
    """The HTTP status of an error. A conflict is one of two classes, by the way of the upload."""
    answer = getattr(error, "response", None)
    found = getattr(error, "code", None) or getattr(answer, "status_code", None)
    return int(found) if isinstance(found, int) else None


def _upload_error(doing: str, error: Exception) -> ServiceError:
    status, text = _status(error), type(error).__name__
    with suppress(ValueError, AttributeError, TypeError):
        text = str(members(members(error.response.json()).get("error")).get("message") or text)  # type: ignore[attr-defined]
    if status in (401, 403):
        return CredentialsRefused(doing, status, f"{text} {_ROLE}")
    if status is None or status in BUSY:
        return ServiceBusy(doing, status, text)
    return ServiceError(doing, status, text)


__all__ = ["ENDPOINT", "CloudStorage", "Place", "StoredObject", "place_of"]
