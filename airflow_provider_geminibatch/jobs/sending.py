"""What goes to the service for a shard: the sealed bytes, or an edited form of them, never held whole.

Three edits are known. Rows that are answered already are left out, stand-ins for media become the URIs under which the service
has them, and what the requests share gives way to the name of a prompt cache that holds it. None touches what was sealed: the
edit goes on record with the upload, and wire keys stay as they are.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import BinaryIO

import msgspec

from airflow_provider_geminibatch.core.errors import StoreUnreadable
from airflow_provider_geminibatch.core.media_uris import PLACEHOLDER
from airflow_provider_geminibatch.core.model import Shard
from airflow_provider_geminibatch.core.prompt_cache import Prefix
from airflow_provider_geminibatch.storage.store import Store

BLOCK_BYTES = 1 << 20

# As our own encoder writes it. Inside a JSON text every quote has a backslash before it, so no prompt can look like this.
_STAND_IN = re.compile(rb'"fileUri":"%b(sha256:[0-9a-f]{64})"' % PLACEHOLDER.encode())
_FILE = re.compile(rb'"file_?[uU]ri"\s*:\s*"[^"\\]{0,200}?(files/[A-Za-z0-9][A-Za-z0-9_-]*)"')
_LINE = re.compile(r"\bline (\d+)")


class Survey(msgspec.Struct, frozen=True):
    """A sealed shard as read once: that it is what was sealed, how large its edited form is, and the media it asks for.

    ``media`` counts how often each content (``sha256:…``) stands in the rows that are sent, ``sharing`` those that say the prefix
    which was looked for, and nothing else of the kind.
    """

    kept_bytes: int
    media: dict[str, int]
    sharing: int = 0

    def size_bytes(self, uris: Mapping[str, str], cached: Cached | None = None) -> int:
        """The size of what is sent when each content is at its URI, and the cache is named."""
        shorter = self.sharing * cached.prefix.grows(cached.name) if cached else 0
        return (
            self.kept_bytes
            + shorter
            + sum(
                times * (len(_encoded(uris[content])) - len(_encoded(PLACEHOLDER + content)))
                for content, times in self.media.items()
            )
        )


class Cached(msgspec.Struct, frozen=True):
    """A prefix, and the prompt cache that holds it."""

    prefix: Prefix
    name: str


def survey(store: Store, shard: Shard, left_out: frozenset[int] = frozenset(), prefix: Prefix | None = None) -> Survey:
    """Read a shard through its seal. Raises StoreUnreadable unless it is what was sealed, whole and unchanged."""
    kept, media, sharing = 0, Counter[str](), 0
    with store.open(shard.path) as source:
        for row, line in enumerate(sealed := _SealedLines(source, shard, f"{store.uri}/{shard.path}")):
            if row not in left_out:
                kept += len(line)
                media.update(found.decode() for found in _STAND_IN.findall(line))
                sharing += prefix is not None and prefix.fits(line)
        sealed.confirm()
    return Survey(kept, dict(media), sharing)


class Outgoing(io.RawIOBase):
    """An edited shard as a stream for an upload: it knows its size, starts over on ``seek(0)``, and hashes what was read.

    ``named_files`` are the files of the service (``files/…``) that the requests point at, as far as they were read.

    Reading it to its end and ``confirm`` is what makes it trustworthy: what does not match its seal is not sent.
    """

    def __init__(self, lines: Callable[[], _SealedLines], edit: _Edit, size_bytes: int) -> None:
        self._lines, self._edit, self.size_bytes = lines, edit, size_bytes
        self._start_over()

    def _start_over(self) -> None:
        self._sealed = self._lines()
        self._edited = self._edit.lines(self._sealed)
        self._buffer, self._at, self._hash = bytearray(), 0, hashlib.sha256()
        self._tail, self.named_files = b"", set[str]()

    @property
    def sha256(self) -> str:
        """The digest of all that was read; of an unedited shard, what is held against its seal."""
        return self._hash.hexdigest() if self._edit else self._sealed.sha256

    def read(self, size: int = -1, /) -> bytes:
        left = self.size_bytes - self._at
        wanted = left if size < 0 else min(size, left)
        while len(self._buffer) < wanted:
            block = next(self._edited, None)
            if block is None:
                # An upload that gets nothing where more was promised would ask for ever.
                raise self._sealed.broken()
            self._buffer += block
        data = bytes(self._buffer[:wanted])
        del self._buffer[:wanted]
        self._at += len(data)
        if self._edit:
            self._hash.update(data)
        self._note_files(data)
        return data

    def _note_files(self, data: bytes) -> None:
        """Keep the names of the service's files that requests point at, also where one is cut by the end of a block."""
        seen = self._tail + data
        if b"files/" in seen:
            self.named_files.update(name.decode() for name in _FILE.findall(seen))
        self._tail = seen[-512:]

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """To the beginning, or to the end, as those do who ask for the size."""
        if (offset, whence) == (0, io.SEEK_END):
            self._at, self._buffer = self.size_bytes, bytearray()
        elif (offset, whence) == (0, io.SEEK_SET):
            self._start_over()
        else:
            raise io.UnsupportedOperation(f"seek({offset}, {whence})")
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def confirm(self) -> None:
        """Raises StoreUnreadable unless all of it was read and the shard is what was sealed, unchanged."""
        if self._at != self.size_bytes or self._buffer or next(self._edited, None):
            raise self._sealed.broken()
        self._sealed.confirm()


@contextmanager
def outgoing(
    store: Store,
    shard: Shard,
    *,
    left_out: frozenset[int] = frozenset(),
    media: Mapping[str, str] | None = None,
    seen: Survey | None = None,
    cached: Cached | None = None,
) -> Iterator[Outgoing]:
    """What to upload for a shard: without the rows ``left_out``, each content of ``media`` at its URI, and ``cached`` by name.

    Only an edited shard is read twice, once to know its size; ``seen`` is that reading, where it was made already.
    """
    edit = _Edit(left_out, dict(media or {}), cached)
    if edit:
        seen = seen or survey(store, shard, left_out, cached.prefix if cached else None)
    size = seen.size_bytes(edit.media, cached) if seen and edit else shard.size_bytes
    with store.open(shard.path) as source:

        def lines() -> _SealedLines:
            source.seek(0)
            return _SealedLines(source, shard, f"{store.uri}/{shard.path}")

        yield Outgoing(lines, edit, size)


class _Edit(msgspec.Struct, frozen=True):
    """What is changed on the way out."""

    left_out: frozenset[int]
    media: dict[str, str]
    cached: Cached | None = None

    def __bool__(self) -> bool:
        return bool(self.left_out or self.media or self.cached)

    def lines(self, sealed: _SealedLines) -> Iterator[bytes]:
        if not self:
            return sealed.blocks()
        return (self._edited(line) for row, line in enumerate(sealed) if row not in self.left_out)

    def _edited(self, line: bytes) -> bytes:
        if self.cached is not None and self.cached.prefix.fits(line):
            line = self.cached.prefix.named(line, self.cached.name)
        return with_media(line, self.media) if self.media else line


def with_media(line: bytes, uris: Mapping[str, str]) -> bytes:
    """A line or request of ours with the stand-ins of these contents replaced by their URIs; others stay."""

    def uri(found: re.Match[bytes]) -> bytes:
        known = uris.get(found[1].decode())
        return found[0] if known is None else b'"fileUri":' + _encoded(known)

    return _STAND_IN.sub(uri, line)


def media_of(line: bytes) -> tuple[str, ...]:
    """The contents (``sha256:…``) whose stand-ins are in a line or request of ours."""
    return tuple(dict.fromkeys(found.decode() for found in _STAND_IN.findall(line)))


_encoded = msgspec.json.Encoder().encode


class _SealedLines:
    """A shard read once from its beginning, and held against its seal."""

    def __init__(self, source: BinaryIO, shard: Shard, uri: str) -> None:
        self._source, self._shard, self._uri = source, shard, uri
        self._hash, self._at = hashlib.sha256(), 0

    def __iter__(self) -> Iterator[bytes]:
        carried = b""
        for block in self.blocks():
            *lines, carried = (carried + block).split(b"\n")
            yield from (line + b"\n" for line in lines)
        if carried:
            yield carried

    def blocks(self) -> Iterator[bytes]:
        """The bytes as they come. Own blocks, since iterating over a remote file may cost a call for each byte."""
        while block := self._source.read(BLOCK_BYTES):
            self._at += len(block)
            self._hash.update(block)
            yield block

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def confirm(self) -> None:
        """Raises StoreUnreadable unless all that was sealed was read, unchanged."""
        if (self._at, self._hash.hexdigest()) != (self._shard.size_bytes, self._shard.sha256):
            raise self.broken()

    def broken(self) -> StoreUnreadable:
        return StoreUnreadable(
            self._uri, "it is not what was sealed (size or checksum differ); prepare the batch again"
        )


def with_keys(store: Store, shard: Shard, text: str, left_out: frozenset[int] = frozenset()) -> str:
    """The service's ``line N`` with the user's keys beside them. N counts the lines that were sent, from 1."""
    wanted = {int(number) for number in _LINE.findall(text)}
    if not wanted:
        return text
    keys: dict[int, str] = {}
    with store.open(shard.keys_path) as lines:
        sent = (line for row, line in enumerate(lines) if row not in left_out)
        for number, line in enumerate(sent, 1):
            if number in wanted:
                keys[number] = msgspec.json.decode(line)[0]
    return _LINE.sub(lambda match: f"{match[0]} (key {keys.get(int(match[1]), '?')!r})", text)


__all__ = ["Cached", "Outgoing", "Survey", "media_of", "outgoing", "survey", "with_keys", "with_media"]
