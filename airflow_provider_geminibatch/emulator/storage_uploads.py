"""Uploads to Cloud Storage: in one call with or without metadata, and in chunks through a session."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import quote, urlencode

from airflow_provider_geminibatch.emulator.buckets import Buckets, ObjectBlob, StoredObject
from airflow_provider_geminibatch.emulator.multiparts import parts
from airflow_provider_geminibatch.emulator.names import Names
from airflow_provider_geminibatch.emulator.storage_resources import Metadata, body_of, object_resource
from airflow_provider_geminibatch.emulator.storage_wire import Conditions, storage_refused
from airflow_provider_geminibatch.emulator.switches import Scenarios
from airflow_provider_geminibatch.emulator.wire import Call, Dropped, Json, Reply, Request

# Chunks but the last are multiples of this (documented).
_QUANTUM = 256 << 10
_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")


@dataclass(slots=True)
class _Session:
    """A resumable upload under way. `done` is the object's resource once it is there."""

    bucket: str
    name: str
    said: Metadata
    expected: Mapping[str, str]
    conditions: Conditions
    blob: ObjectBlob
    done: Json = field(default_factory=dict)


class _Span(NamedTuple):
    """What a Content-Range says: where the chunk begins if there is one, and how long the object is if it is known."""

    start: int | None
    total: int | None


class Uploads:
    """The endpoints that write objects."""

    def __init__(self, buckets: Buckets, names: Names, scenarios: Scenarios) -> None:
        self._buckets, self._names, self._scenarios = buckets, names, scenarios
        self._sessions: dict[str, _Session] = {}

    def upload(self, call: Call) -> Reply:
        """storage.upload: the whole of an object, or the start of a session, as `uploadType` says."""
        kind = call.request.query.get("uploadType", "media")
        ways = {"media": self._simple, "multipart": self._multipart, "resumable": self._start}
        if kind not in ways:
            raise storage_refused("invalid", reason=f"Invalid upload type: {kind}")
        self._buckets.bucket(call.params["bucket"])
        return ways[kind](call)

    def chunk(self, call: Call) -> Reply:
        """storage.chunk: take a chunk, tell how much there is, or finalise. The session is authorised by its URL."""
        session = self._session(call)
        span = _span(call.request)
        # What a session says once it is over is that of its end (assumed): the reply may have been lost.
        if session.done:
            return Reply(body=session.done)
        if span.start is not None:
            self._take(session, span.start, span.total, call.request.body)
        if span.total is None or session.blob.size < span.total:
            return _incomplete(session.blob.size)
        if session.blob.size > span.total:
            raise storage_refused("invalid", reason=f"The object has {session.blob.size} bytes, not {span.total}.")
        del self._sessions[call.params["upload_id"]]
        stored = self._store(call, session.name, session.blob, session.said, session.expected, session.conditions)
        session.done, session.blob = object_resource(stored, call.request.origin), self._buckets.new_blob()
        self._sessions[call.params["upload_id"]] = session
        return self._answered(session.done)

    def cancel(self, call: Call) -> Reply:
        """storage.cancel_upload: forget a session, which is answered by a 499 (documented)."""
        self._session(call)
        del self._sessions[call.params["upload_id"]]
        return Reply(499, stream=iter(()))

    def _simple(self, call: Call) -> Reply:
        query, headers = call.request.query, call.request.headers
        said = Metadata(
            headers.get("content-type", "application/octet-stream"),
            {"contentEncoding": query["contentEncoding"]} if query.get("contentEncoding") else {},
        )
        return self._whole(call, said, {}, call.request.body)

    def _multipart(self, call: Call) -> Reply:
        try:
            described, media = parts(call.request.headers.get("content-type", ""), call.request.body)
        except ValueError as wrong:
            raise storage_refused("invalid", reason=f"Bad multipart body: {wrong}") from None
        body = body_of(described.body)
        said = Metadata.of({"contentType": media.headers.get("content-type", ""), **body})
        return self._whole(call, said, body, media.body)

    def _whole(self, call: Call, said: Metadata, body: Json, data: bytes) -> Reply:
        blob = self._buckets.new_blob()
        blob.append(data)
        stored = self._store(call, _name(call, body), blob, said, body, Conditions.of(call.request.query))
        return self._answered(object_resource(stored, call.request.origin))

    def _start(self, call: Call) -> Reply:
        query, headers = call.request.query, call.request.headers
        body = body_of(call.request.body)
        kind = headers.get("x-upload-content-type", "application/octet-stream")
        upload_id = self._names.make("storage upload", 64)
        self._sessions[upload_id] = _Session(
            call.params["bucket"],
            _name(call, body),
            Metadata.of({"contentType": kind, **body}),
            body,
            Conditions.of(query),
            self._buckets.new_blob(),
        )
        # Google repeats the parameters of the call, and a client looks for its condition among them (gcsfs).
        asked = urlencode({**query, "upload_id": upload_id}, quote_via=quote)
        path = f"upload/storage/v1/b/{quote(call.params['bucket'], safe='')}/o"
        headers = {"location": f"{call.request.origin}/{path}?{asked}", "x-guploader-uploadid": upload_id}
        return Reply(headers=headers, stream=iter(()))

    def _take(self, session: _Session, start: int, total: int | None, data: bytes) -> None:
        """Append what is new of a chunk. What there is already is passed over (documented)."""
        have = session.blob.size
        if start > have:
            raise storage_refused(
                "invalid",
                reason="Invalid request.  According to the Content-Range header, the upload offset is "
                f"{start} byte(s), which exceeds already uploaded size of {have} byte(s).",
            )
        fresh = data[have - start :] if have > start else data
        if total is None or start + len(data) < total:
            if len(data) < _QUANTUM:
                raise storage_refused(
                    "invalid",
                    reason="Invalid request.  The number of bytes uploaded is required to be equal or greater than "
                    f"{_QUANTUM}, except for the final request (it's recommended to be the exact multiple of "
                    f"{_QUANTUM}).  The received request contained {len(data)} bytes, which does not meet this "
                    "requirement.",
                )
            # Of a chunk that is no multiple the service keeps the multiple (assumed from what gcsfs stands).
            fresh = fresh[: len(fresh) // _QUANTUM * _QUANTUM]
        session.blob.append(fresh)

    def _store(
        self,
        call: Call,
        name: str,
        blob: ObjectBlob,
        said: Metadata,
        expected: Mapping[str, object],
        conditions: Conditions,
    ) -> StoredObject:
        _check_sums(blob, expected, call.request.headers.get("x-goog-hash", ""))
        return self._buckets.put(
            call.params["bucket"],
            name,
            blob,
            content_type=said.content_type,
            conditions=conditions,
            settings=said.settings,
            metadata=said.metadata,
        )

    def _answered(self, resource: Json) -> Reply:
        if self._scenarios.happens("upload_reply_lost"):
            raise Dropped
        return Reply(body=resource)

    def _session(self, call: Call) -> _Session:
        session = self._sessions.get(call.params["upload_id"])
        if session is None:
            raise storage_refused("no_upload")
        return session


def _name(call: Call, body: Json) -> str:
    name = str(call.request.query.get("name") or body.get("name") or "")
    if not name:
        raise storage_refused("required", name="name")
    if len(name.encode()) > 1024 or "\n" in name or "\r" in name:
        raise storage_refused("invalid", reason="Invalid object name.")
    return name


def _span(request: Request) -> _Span:
    header = request.headers.get("content-range", "")
    if not header:  # one request with everything
        return _Span(0, len(request.body))
    found = _RANGE.fullmatch(header.strip())
    if not found:
        raise storage_refused("invalid", reason=f"Failed to parse Content-Range header: {header}")
    first, last, total = found.groups()
    if first and int(last) - int(first) + 1 != len(request.body):
        raise storage_refused("invalid", reason=f"Content-Range {header} does not match {len(request.body)} bytes.")
    return _Span(int(first) if first else None, None if total == "*" else int(total))


def _incomplete(size: int) -> Reply:
    headers = {"range": f"bytes=0-{size - 1}"} if size else {}
    return Reply(308, headers=headers, stream=iter(()))


def _check_sums(blob: ObjectBlob, expected: Mapping[str, object], header: str) -> None:
    """Refuse bytes whose checksum is another than the metadata or the x-goog-hash header say."""
    said = dict(each.strip().split("=", 1) for each in header.split(",") if "=" in each)
    given = {"crc32c": expected.get("crc32c") or said.get("crc32c"), "md5": expected.get("md5Hash") or said.get("md5")}
    for what, made in (("crc32c", blob.crc32c), ("md5", blob.md5)):
        if given[what] not in (None, made):
            label = what.upper()
            raise storage_refused("checksum", what=label, given=given[what], made=made)


__all__ = ["Uploads"]
