"""Media at Prepare: each row's images, sounds, videos and documents are read, named by their content, and made parts.

Files are read by a few threads, a few rows ahead, and the rows keep their order. What is small goes into the request; of what is
large only the digest is kept, and where it came from: it is uploaded when its shard is sent.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple

import msgspec

from airflow_provider_geminibatch.core.errors import StoreUnreadable
from airflow_provider_geminibatch.core.media import (
    INLINE_REQUEST_BYTES,
    MEDIA_FIELD,
    STORAGE_BYTES,
    file_part,
    inline_part,
    place_of,
    stand_in,
    too_big,
)
from airflow_provider_geminibatch.core.media_types import mime_of
from airflow_provider_geminibatch.core.model import Shard
from airflow_provider_geminibatch.core.requests import Checked
from airflow_provider_geminibatch.core.rows import Fault, Row, decoded, text_of
from airflow_provider_geminibatch.core.template import Column, MediaSlot, RequestTemplate, compile_template
from airflow_provider_geminibatch.jobs.media_reader import MediaReader
from airflow_provider_geminibatch.storage.files import Files
from airflow_provider_geminibatch.storage.store import Store, must_read

THREADS = 8
ROWS_AHEAD = 16
IN_WORKSPACE = "workspace:"
"""Begins the place of a medium that came as bytes and was kept beside its list until it is uploaded."""

_BYTES = (bytes, bytearray, memoryview)


class Medium(msgspec.Struct, frozen=True):
    """A content to be uploaded, as a line of the sealed list has it: its digest and type, and where it came from."""

    sha256: str
    size_bytes: int
    mime_type: str
    uri: str

    def kept_at(self, list_path: str) -> str | None:
        """Where in the workspace it lies, if it was kept there. ``list_path`` is the list that names it."""
        if not self.uri.startswith(IN_WORKSPACE):
            return None
        path = self.uri.removeprefix(IN_WORKSPACE)
        return path[1:] if path.startswith("/") else f"{list_path.rpartition('/')[0]}/{path}"


class _Made(NamedTuple):
    """The parts of a row, each with a comma behind it, and what of them has to be uploaded (bytes for what has no place)."""

    parts: bytes
    media: tuple[tuple[Medium, bytes | None], ...]


class MediaStage:
    """Resolves the media of one build, and seals the list of those that are to be uploaded.

    ``check`` is the verdict on its requests, by default that of ``check_request``.
    """

    def __init__(
        self,
        template: RequestTemplate,
        *,
        files: Files,
        store: Store,
        home: str,
        route: str,
        endpoint: str,
        log: logging.Logger,
        check: Callable[[object], Checked] | None = None,
        threads: int = THREADS,
    ) -> None:
        self._slots = compile_template(template, check=check).media
        self._omit, self._inline = template.on_missing_media == "omit", template.inline_limit_bytes
        self._reader = MediaReader(files, self._inline)
        self._store, self._home, self._route, self._endpoint = store, home, route, endpoint
        self._log, self._threads = log, threads
        self._found: dict[str, Medium] = {}
        self._kept: list[str] = []
        self._inlined = 0

    def rows(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows with their encoded media parts, in order; one whose media cannot be used as the fault that it has."""
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="geminibatch-media")
        ahead: deque[tuple[Row, Future[Any]]] = deque()
        coming = iter(rows)
        try:
            while True:
                for row in islice(coming, ROWS_AHEAD - len(ahead)):
                    ahead.append((row, pool.submit(self._resolved, row)))
                if not ahead:
                    return
                row, made = ahead.popleft()
                yield self._with_parts(row, *made.result())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _with_parts(self, row: Row, fields: Any, made: _Made | Fault | None) -> Row:
        """In the first thread, in the order of the rows: so the list is the same whenever it is made."""
        if made is None:
            return row
        if isinstance(made, Fault):
            return msgspec.structs.replace(row, data=made)
        for medium, data in made.media:
            if medium.sha256 not in self._found:
                self._found[medium.sha256] = self._kept_in_workspace(medium, data) if data is not None else medium
        return msgspec.structs.replace(row, data={**fields, MEDIA_FIELD: made.parts})

    def _kept_in_workspace(self, medium: Medium, data: bytes) -> Medium:
        name = f"media/{medium.sha256}"
        self._kept.append(f"{self._home}/{name}")
        self._store.write(f"{self._home}/{name}", data)
        return msgspec.structs.replace(medium, uri=f"{IN_WORKSPACE}{name}")

    def listed(self, shards: tuple[Shard, ...]) -> tuple[Shard, ...]:
        """The shards with the list of what is to be uploaded for them, which is written here if there is any such thing."""
        if not self._found:
            return shards
        path = f"{self._home}/media.jsonl"
        data = b"".join(msgspec.json.encode(medium) + b"\n" for medium in self._found.values())
        self._kept.append(path)
        self._store.write(path, data)
        size = sum(medium.size_bytes for medium in self._found.values())
        self._log.info("%d different media of %s bytes will be uploaded", len(self._found), f"{size:,}")
        if size > STORAGE_BYTES:
            self._log.warning(
                "The media have %s bytes together, and the files of a project may have %s: the service will refuse some until "
                "others have expired. Send them in several batches, days apart.", f"{size:,}", f"{STORAGE_BYTES:,}",
            )  # fmt: skip
        digest = hashlib.sha256(data).hexdigest()
        return tuple(msgspec.structs.replace(shard, media_path=path, media_sha256=digest) for shard in shards)

    @property
    def written(self) -> tuple[str, ...]:
        """All that lies in the workspace because of this stage, for whoever discards the build."""
        return tuple(self._kept)

    def _resolved(self, row: Row) -> tuple[Any, _Made | Fault | None]:
        """A row's fields, and its parts or what is wrong with them; None where the row itself is to be explained."""
        fields = decoded(row.data) if isinstance(row.data, bytes) else row.data
        if isinstance(fields, Fault) or not isinstance(fields, Mapping):
            return fields, None
        fields, parts, media, room = dict(fields), b"", [], INLINE_REQUEST_BYTES
        for slot in self._slots:
            named = "".join(f"${piece.name}" if isinstance(piece, Column) else piece for piece in slot.source)
            for value in _values(slot, fields):
                if isinstance(value, Fault):
                    return fields, _about(named, value)
                if not value.content and not value.text.strip():
                    if self._omit:
                        continue
                    hint = "give every row one, or set on_missing_media='omit'"
                    return fields, _about(named, Fault("is empty in this row", hint))
                made = self._part(slot, value, room, f"{named} of {row.place} {row.number}")
                if isinstance(made, Fault):
                    return fields, _about(named, made)
                part, medium, inlined = made
                parts, room = parts + part + b",", room - inlined
                media += [medium] if medium else []
        _name_bytes(fields, self._slots)
        return fields, _Made(parts, tuple(media))

    def _part(
        self, slot: MediaSlot, value: _Value, room: int, label: str
    ) -> tuple[bytes, tuple[Medium, bytes | None] | None, int] | Fault:
        """The part of one medium, what of it is to be uploaded, and how many bytes went into the request."""
        uri = value.text
        if value.content is None:
            place = place_of(uri, self._route, self._endpoint)
            if isinstance(place, Fault):
                return place
            if place.by_service:
                return file_part(place.uri, slot.medium.mime_type or place.mime_type, slot.more), None, 0
            uri = place.uri
        content = self._reader.read(uri, value.content, label)
        if isinstance(content, Fault):
            return content
        mime_type = mime_of(content.head, name=uri, declared=slot.medium.mime_type)
        wrong = mime_type if isinstance(mime_type, Fault) else too_big(content.size_bytes, mime_type)
        if isinstance(mime_type, Fault) or wrong:
            return wrong or Fault("cannot be used")
        if content.data is not None and content.size_bytes <= min(self._inline, room):
            return inline_part(content.data, mime_type, slot.more), None, content.size_bytes
        medium = Medium(content.sha256, content.size_bytes, mime_type, "" if value.content else uri)
        data = bytes(value.content) if value.content else None
        return file_part(stand_in(content.sha256), mime_type, slot.more), (medium, data), 0


def bare(rows: Iterable[Row]) -> Iterator[Row]:
    """The rows without their media, for whoever only looks at them."""
    for row in rows:
        fields = decoded(row.data) if isinstance(row.data, bytes) else row.data
        yield msgspec.structs.replace(row, data={**fields, MEDIA_FIELD: b""}) if isinstance(fields, Mapping) else row


def read_list(store: Store, shard: Shard) -> dict[str, Medium]:
    """The media that a shard may name, by ``sha256:…``. Raises StoreUnreadable for a list that is not what was sealed."""
    if not shard.media_path:
        return {}
    data = must_read(store, shard.media_path)
    if hashlib.sha256(data).hexdigest() != shard.media_sha256:
        uri = f"{store.uri}/{shard.media_path}"
        raise StoreUnreadable(uri, "it is not what was sealed (checksum differs); prepare the batch again")
    media = (msgspec.json.decode(line, type=Medium) for line in data.splitlines())
    return {f"sha256:{medium.sha256}": medium for medium in media}


def lists_of(store: Store, shards: Sequence[Shard], home: str) -> tuple[str, str]:
    """One list for rows of all these shards, and its digest: the one that they share, or a new one in ``home`` of all."""
    known = dict.fromkeys((shard.media_path, shard.media_sha256) for shard in shards if shard.media_path)
    if len(known) < 2:
        return next(iter(known), ("", ""))
    media: dict[str, Medium] = {}
    for shard in shards:
        for content, medium in read_list(store, shard).items():
            kept = medium.kept_at(shard.media_path)
            media[content] = msgspec.structs.replace(medium, uri=f"{IN_WORKSPACE}/{kept}") if kept else medium
    path, data = f"{home}/media.jsonl", b"".join(msgspec.json.encode(medium) + b"\n" for medium in media.values())
    store.write(path, data)
    return path, hashlib.sha256(data).hexdigest()


def media_files(store: Store, list_path: str) -> list[str]:
    """A list of media and what was kept beside it, for whoever removes them; nothing for no list."""
    data = store.read(list_path) if list_path else None
    if data is None:
        return []
    media = (msgspec.json.decode(line, type=Medium) for line in data.splitlines())
    kept = (medium.kept_at(list_path) for medium in media)
    return [list_path, *(path for path in kept if path)]


class _Value(NamedTuple):
    """What a column names: a path or URI, or bytes with a name to go by."""

    text: str
    content: bytes | None = None


def _values(slot: MediaSlot, fields: Mapping[str, Any]) -> Iterator[_Value | Fault]:
    """The media that a row names in one slot. A column alone may hold bytes, a list, or a mapping of bytes and path."""
    missing = [piece.name for piece in slot.source if isinstance(piece, Column) and piece.name not in fields]
    if missing:
        yield Fault(f"needs column {missing[0]}, which is not in this row", "check the name of the column")
        return
    if len(slot.source) == 1 and isinstance(slot.source[0], Column):
        given = fields[slot.source[0].name]
        values = given if isinstance(given, list | tuple) else [given]
        yield from map(_value, values or [""])
        return
    texts = [piece if isinstance(piece, str) else text_of(fields[piece.name]) for piece in slot.source]
    if any(text is None or not text.strip() for text in texts):
        yield _Value("") if None not in texts else Fault("holds no text", "put its columns as text")
        return
    of_row = [text for text, piece in zip(texts, slot.source, strict=True) if isinstance(piece, Column) and text]
    if any(".." in text.replace("\\", "/").split("/") for text in of_row):
        yield Fault("leads out of its folder with '..'", "write what lies below it")
        return
    yield _Value("".join(text for text in texts if text))


def _value(value: Any) -> _Value | Fault:
    # Data sets of images keep them as {"bytes": …, "path": …} (the Image feature of Hugging Face's datasets).
    name = ""
    if isinstance(value, Mapping) and set(value) <= {"bytes", "path"}:
        name = str(value.get("path") or "")
        value = value.get("bytes") if value.get("bytes") is not None else name
    if isinstance(value, _BYTES):
        return _Value(name, bytes(value))
    text = text_of(value) if not isinstance(value, Mapping | list | tuple) else None
    if text is None:
        return Fault(f"is a {type(value).__name__}", "give a path, a URI, bytes, or a list of those")
    return _Value(text)


def _name_bytes(fields: dict[str, Any], slots: tuple[MediaSlot, ...]) -> None:
    """Bytes of media columns do not travel along as passthrough columns: their digest does."""
    for name in {piece.name for slot in slots for piece in slot.source if isinstance(piece, Column)}:
        value = fields.get(name)
        content = value.get("bytes") if isinstance(value, Mapping) else value
        if isinstance(content, _BYTES):
            fields[name] = f"sha256:{hashlib.sha256(content).hexdigest()}"


def _about(named: str, fault: Fault) -> Fault:
    return Fault(f"media {named}: {fault.what}", fault.hint)


__all__ = ["IN_WORKSPACE", "MediaStage", "Medium", "bare", "lists_of", "media_files", "read_list"]
