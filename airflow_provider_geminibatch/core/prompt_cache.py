"""Prompt caches: what the requests of a shard begin with alike, and a line that names it instead of saying it.

Put into a cache is what stands apart from the turns: system instruction, tools and their configuration. A request with a cache
may have none of these beside it (a 400 that users reported), so a line is changed only where all of them are the shared ones.
Text inside a prompt cannot be taken for them: there every quote has a backslash before it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import msgspec

from airflow_provider_geminibatch.core.names import digest

FIELDS: Final = ("systemInstruction", "tools", "toolConfig")

LIFE: Final = timedelta(hours=50)
"""How long a cache has to live when a job is created: a job expires after 48 h, and a row whose cache is gone fails (code 7)."""

_HOUR = timedelta(hours=1)
_MILLION = Decimal(1_000_000)
_NAMES = tuple(f'"{name}":'.encode() for name in FIELDS)


class _Request(msgspec.Struct, frozen=True):
    systemInstruction: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET  # noqa: N815
    tools: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    toolConfig: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET  # noqa: N815
    cachedContent: Any = None  # noqa: N815


class _Line(msgspec.Struct, frozen=True):
    request: _Request


_decode = msgspec.json.Decoder(_Line).decode


class Prefix(msgspec.Struct, frozen=True):
    """What requests have in common, as their lines have it: ``"systemInstruction":{…}`` and so on, byte for byte."""

    fragments: tuple[bytes, ...]

    @property
    def digest(self) -> str:
        """What stands for it in names."""
        return digest(*(fragment.decode("utf-8", "surrogateescape") for fragment in self.fragments))[:16]

    @property
    def size_bytes(self) -> int:
        """Its size, which no count of its tokens exceeds."""
        return sum(map(len, self.fragments))

    def fields(self) -> dict[str, Any]:
        """The same as fields of a request."""
        found: dict[str, Any] = msgspec.json.decode(b"{" + b",".join(self.fragments) + b"}")
        return found

    def fits(self, line: bytes) -> bool:
        """Whether a line says exactly this, and nothing else of the kind."""
        own = sum(fragment.count(name) for fragment in self.fragments for name in _NAMES)
        return sum(map(line.count, _NAMES)) == own and all(line.count(fragment) == 1 for fragment in self.fragments)

    def grows(self, name: str) -> int:
        """By how many bytes a line grows that names the cache; less than zero for every prefix worth a cache."""
        first, *others = self.fragments
        return len(_named(name)) - len(first) - sum(len(fragment) + 1 for fragment in others)

    def named(self, line: bytes, name: str) -> bytes:
        """A line that fits, with the name of the cache in the place of what it says."""
        first, *others = self.fragments
        line = line.replace(first, _named(name), 1)
        for fragment in others:
            before = b"," + fragment
            line = line.replace(before if before in line else fragment + b",", b"", 1)
        return line


def _named(name: str) -> bytes:
    return b'"cachedContent":' + msgspec.json.encode(name)


def prefix_of(line: bytes) -> Prefix | None:
    """The prefix of a line; None where it has none, or names a cache of its own."""
    try:
        request = _decode(line).request
    except msgspec.MsgspecError:
        return None
    if request.cachedContent is not None:
        return None
    fragments = tuple(
        f'"{name}":'.encode() + bytes(raw)
        for name in FIELDS
        if isinstance(raw := getattr(request, name), msgspec.Raw) and bytes(raw) != b"null"
    )
    found = Prefix(fragments)
    return found if fragments and found.fits(line) else None


class CacheUse(msgspec.Struct, frozen=True, kw_only=True):
    """The cache that the requests of a sent shard name, of how many tokens, and since when it is kept."""

    name: str
    tokens: int
    made_at: datetime


def storage_usd(tokens: int, kept: timedelta, per_million_hour: Decimal | None) -> Decimal | None:
    """What it costs to keep so many tokens so long, every hour begun counted whole; None for an unknown price."""
    if per_million_hour is None:
        return None
    hours = max(0, -(-kept // _HOUR))
    return per_million_hour * tokens * hours / _MILLION


__all__ = ["FIELDS", "LIFE", "CacheUse", "Prefix", "prefix_of", "storage_usd"]
