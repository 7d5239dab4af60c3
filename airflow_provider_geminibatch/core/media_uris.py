"""The media that a request points at: where the URIs stand, which files of the Files API they name, which a route reads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

PLACEHOLDER: Final = "geminibatch:"
"""Begins the stand-in for a medium that is uploaded before it is sent; the real URI takes its place then."""

BLANK: Final = f"{PLACEHOLDER}sha256:{'0' * 64}"
"""What stands in a template for media whose content is not known yet. Nobody's file has that hash."""

# `files/abc`, and the same as an URL of any version of the API, on Google's host or any other (a proxy, the emulator).
_FILE = re.compile(
    r"(?:https?://[^/?#]+/(?:upload/|download/)?v1(?:alpha|beta)?/)?(files/[A-Za-z0-9][A-Za-z0-9_-]*)(?:[:?#].*)?\Z"
)
_YOUTUBE = re.compile(r"https?://(?:www\.|m\.)?(?:youtube\.com/|youtu\.be/)", re.IGNORECASE)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")


class MediaUri(NamedTuple):
    """One ``fileData`` of a request: its place, its URI as given, and the MIME type beside it."""

    where: str
    uri: str
    mime_type: str


class UriFault(NamedTuple):
    """Why a route may not read a URI. Only what is ``certain`` is refused; the rest is a warning."""

    what: str
    hint: str
    certain: bool = True


def media_uris(request: Mapping[str, Any], name: str = "request") -> Iterator[MediaUri]:
    """Every URI of a medium in a request in wire form, camelCase or snake_case, in order."""
    for field in ("contents", "systemInstruction", "system_instruction", "content"):
        turns = request.get(field)
        for at, turn in enumerate(turns if isinstance(turns, list | tuple) else [turns]):
            if isinstance(turn, Mapping):
                place = f"{name}.{field}[{at}]" if field == "contents" else f"{name}.{field}"
                yield from _of_parts(turn.get("parts"), f"{place}.parts")


def _of_parts(parts: Any, where: str) -> Iterator[MediaUri]:
    for at, part in enumerate(parts if isinstance(parts, list | tuple) else ()):
        for field, uri, mime in (("fileData", "fileUri", "mimeType"), ("file_data", "file_uri", "mime_type")):
            data = part.get(field) if isinstance(part, Mapping) else None
            if isinstance(data, Mapping):
                found = data.get(uri) or data.get("file_uri") or data.get("fileUri")
                if isinstance(found, str):
                    said = data.get(mime) or data.get("mime_type") or data.get("mimeType")
                    yield MediaUri(f"{where}[{at}].{field}", found, said if isinstance(said, str) else "")


def file_name(uri: str) -> str:
    """The name of the Files API's file that a URI points at, ``files/…``, or an empty text. Such a file lives for 48 h."""
    found = _FILE.match(uri)
    return found[1] if found else ""


def is_youtube(uri: str) -> bool:
    """Whether a URI is that of a video which both routes fetch by themselves."""
    return _YOUTUBE.match(uri) is not None


def uri_fault(uri: str, route: str) -> UriFault | None:
    """What keeps ``route`` from reading a URI, as far as the URI shows it.

    Sources: the guides of the Files API (files/… and their URLs, 48 h) and of file inputs of the Developer API (https
    addresses, public or signed, "supported in all endpoints, including Batch"; 2026-01); the batch notebook of Vertex AI
    (Cloud Storage and public YouTube). What neither says only warns.
    """
    if uri == BLANK or _YOUTUBE.match(uri):
        return None
    if uri.startswith(PLACEHOLDER):
        return UriFault("is a stand-in of this package and no place", "write where the file is")
    scheme = _SCHEME.match(uri)
    word = scheme[1].lower() if scheme else ""
    if file_name(uri):
        hint = "copy it to Cloud Storage and write gs://bucket/object"
        return (
            UriFault("is a file of the Developer API, which Vertex AI cannot read", hint) if route == "vertex" else None
        )
    if word == "gs":
        hint = "upload it with the Files API and write files/…"
        return (
            None if route == "vertex" else UriFault("lies in Cloud Storage, which the Developer API cannot read", hint)
        )
    reads = "gs://bucket/object" if route == "vertex" else "files/… of the Files API"
    if word == "https" and route == "developer":
        return None
    if word in ("http", "https"):
        return UriFault(
            "is a web address, and whether a batch reads those is not documented", f"write {reads}", certain=False
        )
    return UriFault("is nothing that the service can read", f"write {reads}")
