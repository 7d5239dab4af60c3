"""Answers that are used again: which requests count as equal, what may be used, and how the index of them is laid out.

An index holds no answers. It says of a request, by its digest, in which file of the workspace its result line stands:

    record    digest (16 bytes), number of the file (4), offset of the line (8), checksum of the line (4)

Records lie in 256 buckets by the first byte of the digest, so that a bucket of all indexes is looked through at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from hashlib import blake2b
from itertools import accumulate
from struct import Struct as Layout

import msgspec

from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.core.media_uris import PLACEHOLDER
from airflow_provider_geminibatch.core.model import ServiceIdentity
from airflow_provider_geminibatch.core.names import digest

VERSION = 1
"""Moves when equal requests get another digest or the layout changes; then nothing from before is found any more."""

BUCKETS = 256
DIGEST_BYTES = 16
RECORD = Layout("<16sIQI")
SEGMENT_ROWS = 1_000_000
"""Most records of one index, and most rows that are looked up at a time: 32 MB."""


class Reuse(msgspec.Struct, frozen=True, kw_only=True):
    """Use answers again that the same model gave to the same request; ``max_age`` counts back from when the build was sealed."""

    max_age: timedelta | None = None

    def __post_init__(self) -> None:
        if self.max_age is not None and self.max_age <= timedelta():
            raise Unusable(f"max_age={self.max_age}", "nothing is that new", "Write more than zero, or leave it out.")

    def allows(self, answered_at: datetime, sealed_at: datetime) -> bool:
        """Whether an answer of that time may be used in a build of that time. Both are on record: no clock is asked."""
        return self.max_age is None or sealed_at - answered_at <= self.max_age


def reuse_of(given: Reuse | bool | None) -> Reuse | None:
    """What a task was given, as a value. Raises Unusable."""
    if given is None or given is False:
        return None
    if given is True:
        return Reuse()
    if isinstance(given, Reuse):
        return given
    raise Unusable(f"reuse={given!r}", "it is neither", "Write True, or Reuse(max_age=…).")


def scope_of(service: ServiceIdentity, kind: str, model: str) -> str:
    """Where answers are shared: one model at one route and host.

    Not the project or location, which decide who pays. But the host: what an emulator answers is never taken for the service's.
    And the route: fields, schemas and safety settings mean other things on another.
    """
    return digest("reuse", str(VERSION), service.route, service.endpoint, kind, model)


# A request that names something outside it may be answered otherwise tomorrow. Stand-ins for media name a content.
_LIVE = re.compile(
    rb'"(?:cached_?[cC]ontent|google_?[sS]earch\w*|url_?[cC]ontext|google_?[mM]aps|enterprise_?[wW]eb_?[sS]earch'
    rb'|file_?[sS]earch|retrieval|file_?[uU]ri"\s*:\s*"(?!%bsha256:)[^"]*)"' % PLACEHOLDER.encode()
)


class Digests:
    """The digests of requests within one scope."""

    def __init__(self, scope: str) -> None:
        self._base = blake2b(scope.encode(), digest_size=DIGEST_BYTES)

    def of(self, request: bytes) -> bytes | None:
        """The digest of a request as it was sealed; None for one whose answer depends on more than the request."""
        if _LIVE.search(request):
            return None
        hashed = self._base.copy()
        hashed.update(request)
        return hashed.digest()


_REQUEST = b'"request":'


def request_of(line: bytes) -> bytes:
    """The request of a sealed line, without the wire key before it: the bytes that ``core.sharding`` put there."""
    return line[line.index(_REQUEST) + len(_REQUEST) : line.rindex(b"}")]


class AnswerFile(msgspec.Struct, frozen=True):
    """A file of result lines that an index points into: where it lies, whose it is, and when its answers were given."""

    path: str
    generation: str
    at: datetime


class ReuseIndex(msgspec.Struct, frozen=True, kw_only=True):
    """``reuse/1/<scope>/<name>.json``: describes the records beside it. ``counts`` are those of the buckets, in order."""

    v: int = VERSION
    path: str
    sha256: str
    rows: int
    counts: tuple[int, ...]
    files: tuple[AnswerFile, ...]
    model: str
    service: str

    @property
    def bounds(self) -> tuple[int, ...]:
        """Where each bucket begins, in records, and where the last one ends."""
        return (0, *accumulate(self.counts))


class Records:
    """Records in the making, bucket by bucket: flat bytes, since a million tuples would take three hundred megabytes."""

    def __init__(self) -> None:
        self._buckets = [bytearray() for _ in range(BUCKETS)]
        self.rows = 0

    def add(self, found: bytes, file: int, offset: int, checksum: int) -> None:
        self._buckets[found[0]] += RECORD.pack(found, file, offset, checksum)
        self.rows += 1

    @property
    def counts(self) -> tuple[int, ...]:
        return tuple(len(bucket) // RECORD.size for bucket in self._buckets)

    def buckets(self) -> Iterator[bytes]:
        """The buckets in order, the records of each sorted and each digest once: the same answers give the same bytes."""
        for number, bucket in enumerate(self._buckets):
            self._buckets[number] = bytearray(unique(bytes(bucket)))
            yield bytes(self._buckets[number])


def unique(bucket: bytes) -> bytes:
    """Records sorted by digest, the one of the highest file and offset for each: the newest, as files are added in order."""
    newest: dict[bytes, bytes] = {}
    for found, file, offset, checksum in sorted(RECORD.iter_unpack(bucket), key=_newest_last):
        newest[found] = RECORD.pack(found, file, offset, checksum)
    return b"".join(newest[found] for found in sorted(newest))


def _newest_last(record: tuple[bytes, int, int, int]) -> tuple[int, int]:
    return record[1], record[2]


def renumbered(bucket: bytes, files: Mapping[int, int]) -> bytes:
    """Records of one index as those of another: the numbers of their files changed, those of other files left out."""
    kept = (record for record in RECORD.iter_unpack(bucket) if record[1] in files)
    return b"".join(RECORD.pack(found, files[file], offset, checksum) for found, file, offset, checksum in kept)


__all__ = [
    "BUCKETS",
    "RECORD",
    "SEGMENT_ROWS",
    "VERSION",
    "AnswerFile",
    "Digests",
    "Records",
    "Reuse",
    "ReuseIndex",
    "renumbered",
    "request_of",
    "reuse_of",
    "scope_of",
    "unique",
]
