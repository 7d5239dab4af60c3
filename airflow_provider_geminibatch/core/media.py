"""Images, audio, video and documents of a request: where they are, who reads them, and the part that they become.

Small media go into the request itself; larger ones stand in it by the digest of their content until they are uploaded.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final, NamedTuple

from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.core.media_types import TAKEN, canonical, suffix_type
from airflow_provider_geminibatch.core.media_uris import PLACEHOLDER, file_name, is_youtube, uri_fault
from airflow_provider_geminibatch.core.rows import Fault, encode_json

MEDIA_FIELD: Final = "\0media"
"""Under this name a row carries its encoded media parts to the template; no source has a column that is called so."""

INLINE_BYTES: Final = 1_000_000
"""Media up to this size go into the request, unless told otherwise. As base64 it is 1.33 MB: small beside the 100 MB that a
request may have (file input guide, 2026-01) and the 2 GB of a batch file, and not worth a file of its own and a call for it."""

INLINE_REQUEST_BYTES: Final = 12_000_000
"""Media in one request together, before base64: it stays below 20 MB, which every route takes (the limit until 2026-01)."""

FILE_BYTES: Final = 2_000_000_000
"""Largest file of the Files API (files guide, 2026)."""

STORAGE_BYTES: Final = 20_000_000_000
"""What the files of a project may have together (rate limits page, 2026-08)."""

PDF_BYTES: Final = 50_000_000
"""Largest PDF (file input guide, 2026-01)."""


@dataclass(frozen=True)
class Media:
    """A medium of every row: an image, a sound, a video or a document.

    :param source: Where it is: text with ``$columns``, a path or URI. A column alone may also hold bytes, or a list.
    :param mime_type: Its type, where neither content nor name says it.
    :param video: Which part of a video: ``{"startOffset": "10s", "endOffset": "40s", "fps": 1}``.
    :param resolution: How closely it is looked at: ``MEDIA_RESOLUTION_LOW``, ``_MEDIUM``, ``_HIGH`` or ``_ULTRA_HIGH``.
    """

    source: str
    mime_type: str | None = None
    video: dict[str, Any] | None = None
    resolution: str | None = None

    def serialize(self) -> dict[str, Any]:
        """The arguments that were given, as plain data."""
        return {item.name: getattr(self, item.name) for item in fields(self) if getattr(self, item.name) is not None}

    def rendered(self, render: Callable[[str], str]) -> Media:
        """The same with ``render`` applied to its source."""
        return replace(self, source=render(self.source))

    @property
    def more(self) -> dict[str, Any]:
        """What its part says beside the data."""
        resolution = {"mediaResolution": {"level": self.resolution}} if self.resolution else {}
        return {**({"videoMetadata": dict(self.video)} if self.video else {}), **resolution}


def media_of(given: Any) -> tuple[Media, ...]:
    """What a template's ``media=`` stands for: a source, a Media, the dict of one, or a list of those. Raises Unusable."""
    if given is None:
        return ()
    items = given if isinstance(given, list | tuple) else [given]
    return tuple(_medium(item) for item in items)


def _medium(item: Any) -> Media:
    known = {field.name for field in fields(Media)}
    if isinstance(item, str):
        item = Media(item)
    elif isinstance(item, Mapping) and "source" in item and not set(item) - known:
        item = Media(**item)
    if not isinstance(item, Media):
        do = 'Pass "$column", Media("$column", …) or a list of those.'
        raise Unusable("RequestTemplate(media=)", f"a {type(item).__name__} is no medium", do)
    if not item.source.strip():
        raise Unusable("RequestTemplate(media=)", "a source is empty", 'Name its column, for example "$image".')
    if item.mime_type is not None and canonical(item.mime_type) not in TAKEN:
        do = f"Use one of {', '.join(sorted(TAKEN))}."
        raise Unusable("Media(mime_type=)", f"{item.mime_type!r} is nothing that Gemini takes", do)
    return item


class Place(NamedTuple):
    """Where a medium is: read by us, or by the service itself (``uri`` is what it is told then)."""

    uri: str
    by_service: bool
    mime_type: str = ""


def place_of(value: str, route: str, endpoint: str) -> Place | Fault:
    """Who reads a path or URI. The Files API's files, YouTube, and on Vertex Cloud Storage are the service's to read.

    Everything else is read here: web addresses too, since a batch may start a day after it was checked.
    """
    uri = value.strip()
    fault = uri_fault(uri, route)
    if file_name(uri):
        if fault:
            return Fault(fault.what, fault.hint)
        # The service names its files by their whole URL; whether it takes the bare name is not documented.
        return Place(uri if "://" in uri else f"{endpoint.rstrip('/')}/v1beta/{file_name(uri)}", True)
    if uri.startswith(PLACEHOLDER):
        return Fault("is a stand-in of this package and no place", "write a path or a URI")
    if (uri.startswith("gs://") and route == "vertex") or is_youtube(uri):
        return Place(uri, True, suffix_type(uri) if uri.startswith("gs://") else "")
    if "://" not in uri and not uri.startswith("/"):
        return Fault("is a relative path, which means another place in every process", "write the whole path or a URI")
    return Place(uri, False)


def inline_part(data: bytes, mime_type: str, more: bytes = b"") -> bytes:
    """A part with the medium in it. ``more`` are further encoded fields, each with a comma before it."""
    return b'{"inlineData":{"mimeType":%b,"data":"%b"}%b}' % (encode_json(mime_type), base64.b64encode(data), more)


def file_part(uri: str, mime_type: str, more: bytes = b"") -> bytes:
    """A part that points at the medium."""
    typed = b'"mimeType":%b,' % encode_json(mime_type) if mime_type else b""
    return b'{"fileData":{%b"fileUri":%b}%b}' % (typed, encode_json(uri), more)


def stand_in(sha256: str) -> str:
    """What stands for a content until it is uploaded."""
    return f"{PLACEHOLDER}sha256:{sha256}"


def too_big(size_bytes: int, mime_type: str) -> Fault | None:
    """Why a file of that size and type is not taken, if it is not."""
    most = PDF_BYTES if mime_type == "application/pdf" else FILE_BYTES
    if size_bytes <= most:
        return None
    return Fault(f"has {size_bytes:,} bytes, and a {mime_type} may have {most:,}", "split it, or make it smaller")


__all__ = [
    "FILE_BYTES",
    "INLINE_BYTES",
    "INLINE_REQUEST_BYTES",
    "MEDIA_FIELD",
    "PDF_BYTES",
    "STORAGE_BYTES",
    "Media",
    "Place",
    "file_part",
    "inline_part",
    "media_of",
    "place_of",
    "stand_in",
    "too_big",
]
