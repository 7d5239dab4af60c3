"""Names: path segments, windows, wire keys, display names. One codec each, all pure.

Nothing a user writes (a key, a Dag id, a run id, a window) reaches a path except through ``segment``.
"""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from airflow_provider_geminibatch.core.model import BatchId

SEGMENT_BYTES = 100
"""Longest path segment written; longer ones are shortened with a hash (file systems stop at 255, some tools at 143)."""

_PLAIN = re.compile(rb"[A-Za-z0-9_-]")


def segment(text: str) -> str:
    """``text`` as one path segment: injective, readable, never ``.`` or ``..``, never a separator.

    Letters, digits, ``_``, ``-`` and inner dots stay; every other byte of the UTF-8 form is percent-encoded. ``~`` is never
    produced by that, so it marks the two special forms: the empty text, and a text shortened with a hash.
    """
    raw = text.encode("utf-8", "surrogatepass")
    if not raw:
        return "~"
    last = len(raw) - 1
    out = "".join(
        chr(byte) if _PLAIN.match(bytes([byte])) or (byte == 0x2E and 0 < at < last) else f"%{byte:02X}"
        for at, byte in enumerate(raw)
    )
    if len(out) <= SEGMENT_BYTES:
        return out
    digest = hashlib.sha256(raw).hexdigest()[:32]
    return f"{out[: SEGMENT_BYTES - 33].rstrip('.%')}~{digest}"


def text_of(encoded: str) -> str:
    """The text a segment stands for. Raises ValueError for a shortened one, whose text is not in the name."""
    if encoded == "~":
        return ""
    if "~" in encoded:
        raise ValueError(f"{encoded!r} is shortened; its text is in the object, not in the name")
    return unquote_to_bytes(encoded).decode("utf-8", "surrogatepass")


def window_text(value: datetime | str) -> str:
    """A window as text: an aware time becomes ``YYYYMMDDTHHMMSSZ`` in UTC (with microseconds if it has any).

    Raises ValueError for a naive time or an empty text.
    """
    if not isinstance(value, datetime):
        if not value:
            raise ValueError("a window may not be empty")
        return value
    if value.tzinfo is None:
        raise ValueError(f"{value.isoformat()} has no time zone")
    utc = value.astimezone(UTC)
    fraction = f".{utc.microsecond:06d}" if utc.microsecond else ""
    return f"{utc.year:04d}{utc:%m%dT%H%M%S}{fraction}Z"  # %Y does not pad years before 1000


_WINDOW_TIME = re.compile(r"(\d{8}T\d{6})(\.\d{6})?Z")


def window_time(window: str) -> datetime | None:
    """The time a window text stands for, or None for any other text."""
    match = _WINDOW_TIME.fullmatch(window)
    if match is None:
        return None
    try:
        return datetime.strptime(match[1] + (match[2] or ".000000"), "%Y%m%dT%H%M%S.%f").replace(tzinfo=UTC)
    except ValueError:
        return None


def digest(*parts: str) -> str:
    """SHA-256 over parts, joined so that no two lists of parts give the same bytes (lengths are part of the input)."""
    joined = b"".join(
        f"{len(raw)}:".encode() + raw for raw in (part.encode("utf-8", "surrogatepass") for part in parts)
    )
    return hashlib.sha256(joined).hexdigest()


def short(*parts: str, length: int = 16) -> str:
    """A short lower-case base32 name over parts (80 bits at 16 characters)."""
    return base64.b32encode(bytes.fromhex(digest(*parts))).decode().lower()[:length]


class WireKey(NamedTuple):
    """What stands on a request line: which build, shard and row it belongs to."""

    tag: str
    shard: int
    row: int


def wire_key(tag: str, shard: int, row: int) -> str:
    """The key on the line: ``<build tag>-<shard>-<row>``. User keys never go on the wire."""
    return f"{tag}-{shard:04d}-{row:07d}"


_WIRE_KEY = re.compile(r"([a-z2-7]+)-(\d{4,9})-(\d{7,12})")


def parse_wire_key(key: str) -> WireKey | None:
    """The parts of a wire key, or None for a key that no build of ours wrote."""
    match = _WIRE_KEY.fullmatch(key)
    return WireKey(match[1], int(match[2]), int(match[3])) if match else None


def display_name(
    workspace_id: str, batch: BatchId, generation: int, build_digest: str, shard: int, attempt: int
) -> str:
    """The deterministic name under which an attempt's job is looked up: whose it is, and 130 bits over its identity."""
    identity = (batch.dag_id, batch.run_id, batch.task_id, str(batch.map_index))
    return name_mark(workspace_id) + short(
        workspace_id, *identity, str(generation), build_digest, str(shard), str(attempt), length=26
    )


def name_mark(workspace_id: str) -> str:
    """What the names of all jobs and files of a workspace begin with, so that they are told from those of others."""
    return f"gb1-{short(workspace_id, length=10)}-"


def media_name(workspace_id: str, sha256: str) -> str:
    """The name of a medium at the service: whose it is, that it is a medium, and which content."""
    return f"{media_mark(workspace_id)}{sha256[:26]}"


def cache_name(workspace_id: str, place: str) -> str:
    """The name of a prompt cache at the service: whose it is, and the place of its fact."""
    return f"{name_mark(workspace_id)}cache-{short(place)}"


def media_mark(workspace_id: str) -> str:
    """What the names of a workspace's media begin with at the service."""
    return f"{name_mark(workspace_id)}media-"


_OF_GOOGLE = re.compile(r"(?:projects/[^/]+/locations/[^/]+/)?publishers/google/models/|models/")


def model_id(text: str) -> str:
    """A model by the one name that it has on every route: ``models/`` and ``publishers/google/models/`` are cut.

    What else is a path, such as a tuned model, stays as it is.
    """
    plain = text.strip()
    found = _OF_GOOGLE.match(plain)
    return plain[found.end() :] if found else plain


def same_model(one: str, other: str) -> bool:
    """Whether two names are of one model: a tuned one is named with its project's id, and shown with the project's number."""
    names = [model_id(text).partition("@")[0] for text in (one, other)]
    tuned = [re.sub(r"^projects/[^/]+/", "projects/*/", name) for name in names]
    return tuned[0] == tuned[1]


_LABEL_CHARACTERS = 63
_NOT_IN_LABELS = re.compile(r"[^a-z0-9_-]")


def labels_of(batch: BatchId) -> dict[str, str]:
    """What a job says about whose it is, on routes whose jobs carry labels: the Dag, its run and the task."""
    return {"dag": _label(batch.dag_id), "run": _label(batch.run_id), "task": _label(batch.task_id)}


def _label(text: str) -> str:
    """A value of a label: lower-case letters, digits, ``_`` and ``-``, at most 63 of them (discovery document of Vertex AI).

    Where that changed the text, a short hash at the end keeps different texts apart.
    """
    plain = _NOT_IN_LABELS.sub("_", text.lower())
    if plain == text and len(plain) <= _LABEL_CHARACTERS:
        return plain
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{plain[: _LABEL_CHARACTERS - 9]}-{digest}"


def batch_path(batch: BatchId) -> str:
    """The folder of a batch, relative to the workspace."""
    return "/".join(
        ("batches", segment(batch.dag_id), segment(batch.run_id), segment(batch.task_id), f"map={batch.map_index}")
    )


_IN_WORKSPACE = re.compile(r"(.+)/(batches/[^/]+/[^/]+/[^/]+/map=-?\d+(?:/.+)?)", re.DOTALL)


def in_workspace(uri: str) -> tuple[str, str] | None:
    """The workspace that a URI of a batch, or of something in it, lies in, and the rest; None for any other URI.

    Told by the shape below the workspace, whose own path may hold a folder named ``batches`` too.
    """
    match = _IN_WORKSPACE.fullmatch(uri)
    return (match[1], match[2]) if match and ".." not in match[2].split("/") else None


def generation_path(batch: BatchId, generation: int) -> str:
    """The folder of one generation of a batch: ``batches/<dag>/<run>/<task>/map=<i>/g0001``."""
    return f"{batch_path(batch)}/g{generation:04d}"
