"""Media that came inside answers: what their files are called, and what stands in ``extra`` instead of them."""

from __future__ import annotations

import binascii
import hashlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

LISTING = "_list.jsonl"
"""The files of a commit's media, one a line."""

# A fixed table: what the operating system knows of types would give a file another name on another worker.
_EXTENSIONS = {
    "image/png": "png", "image/jpeg": "jpg", "image/webp": "webp", "image/gif": "gif", "image/heic": "heic",
    "image/heif": "heif", "image/bmp": "bmp", "image/svg+xml": "svg", "image/tiff": "tiff", "image/avif": "avif",
    "audio/wav": "wav", "audio/x-wav": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3", "audio/ogg": "ogg",
    "audio/flac": "flac", "audio/aac": "aac", "audio/l16": "pcm", "audio/pcm": "pcm", "video/mp4": "mp4",
    "video/webm": "webm", "video/quicktime": "mov", "application/pdf": "pdf", "application/json": "json",
    "text/plain": "txt", "text/csv": "csv", "text/html": "html",
}  # fmt: skip
_PATH = re.compile(r"_media-([^/]+)/[0-9a-f]{32}\.[a-z0-9]+")


class Medium(NamedTuple):
    """Bytes that came in an answer; ``name`` is made of their digest alone."""

    name: str
    sha256: str
    data: bytes


def media_folder(commit: str) -> str:
    """``_media-<commit>``, beside the parts. Readers of Parquet pass names that begin so."""
    return f"_media-{commit}"


def listing_path(commit: str) -> str:
    """Where the media of a commit are listed, beside its parts."""
    return f"{media_folder(commit)}/{LISTING}"


def is_listing(path: str) -> bool:
    """Whether a file of a commit lists media, which go and come with it."""
    return path.endswith(f"/{LISTING}")


def commit_of(path: str) -> str | None:
    """The commit that a ``path`` of ``extra.inlineData`` belongs to; None for any other text."""
    found = _PATH.fullmatch(path)
    return found[1] if found else None


def medium_of(blob: Any) -> Medium | None:
    """The bytes of a blob; None for what holds none, or none in base64."""
    data = blob.get("data") if isinstance(blob, dict) else None
    if not isinstance(data, str) or not data:
        return None
    try:
        # What base64.b64decode does with validate=True, without another copy: an image may have a hundred megabytes.
        raw = binascii.a2b_base64(data, strict_mode=True)
    except (binascii.Error, ValueError):  # ValueError: characters beyond ASCII
        return None
    if not raw:
        return None
    digest, mime_type = hashlib.sha256(raw).hexdigest(), blob.get("mimeType")
    kind = mime_type.partition(";")[0].strip().lower() if isinstance(mime_type, str) else ""
    return Medium(f"{digest[:32]}.{_EXTENSIONS.get(kind, 'bin')}", digest, raw)


def without_data(extra: Any, write: Callable[[Medium], str]) -> Any:
    """``extra`` with paths in the place of bytes; ``write`` puts them somewhere and says where. The same where there are none."""
    blobs = extra.get("inlineData") if isinstance(extra, dict) else None
    if not isinstance(blobs, list):
        return extra
    return {**extra, "inlineData": [_referred(blob, write) for blob in blobs]}


def _referred(blob: Any, write: Callable[[Medium], str]) -> Any:
    medium = medium_of(blob)
    if medium is None:
        return blob
    rest = {name: value for name, value in blob.items() if name != "data"}
    return {**rest, "path": write(medium), "size_bytes": len(medium.data), "sha256": medium.sha256}


__all__ = [
    "LISTING",
    "Medium",
    "commit_of",
    "is_listing",
    "listing_path",
    "media_folder",
    "medium_of",
    "without_data",
]
