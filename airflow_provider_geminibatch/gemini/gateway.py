"""The door to the service: one small Protocol in our own types. What a route does behind it stays behind it.

A reply to ``create`` is a value, since what may be concluded from it is a matter of money: ``Created`` and ``Refused`` are
certain, ``Ambiguous`` is everything else and leads to a look-up, never to a second create. All other calls are harmless to
repeat and raise ``core.errors``: KeyRefused, ModelUnknown, ServiceBusy, JobUnreachable or plain ServiceError.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from typing import BinaryIO, Protocol

import msgspec

from airflow_provider_geminibatch.core.model import JobSnapshot, ServiceIdentity


class UploadedFile(msgspec.Struct, frozen=True, kw_only=True):
    """An input file at the service. ``name`` is ``files/…``; times are the service's own."""

    name: str
    size_bytes: int
    expires_at: datetime | None = None
    seen_at: datetime | None = None
    """The service's ``Date`` of the reply that showed it."""


class Created(msgspec.Struct, frozen=True):
    """The service accepted the create and named the job. ``at`` is the service's ``Date``."""

    job: JobSnapshot
    at: datetime | None = None


class Refused(msgspec.Struct, frozen=True):
    """Definitely not created: refused before the first byte (``code`` 0), or a 400, 401, 402, 403, 404 or 429."""

    code: int
    text: str
    retry_after_seconds: float | None = None


class Ambiguous(msgspec.Struct, frozen=True):
    """A create whose fate is unknown: a lost reply, a timeout, a 5xx, 408, 409 or an unreadable 200."""

    why: str


CreateReply = Created | Refused | Ambiguous


class JobPage(msgspec.Struct, frozen=True):
    """One page of the job list. An empty page with a token means: go on. ``at`` is the service's ``Date``."""

    jobs: tuple[JobSnapshot, ...]
    next_token: str = ""
    at: datetime | None = None


class ModelInfo(msgspec.Struct, frozen=True):
    """A model as the service lists it."""

    name: str
    methods: tuple[str, ...] = ()
    input_token_limit: int | None = None
    output_token_limit: int | None = None


class Download(Protocol):
    """An open result stream: where it starts, the total size if the service said one, and the bytes in order."""

    @property
    def offset(self) -> int:
        """First byte of the stream: what was asked for, or 0 where the service ignores ranges."""
        ...

    @property
    def size_bytes(self) -> int | None:
        """Size of the whole file."""
        ...

    def chunks(self) -> Iterator[bytes]: ...


class Gateway(Protocol):
    """The calls the package makes. Synchronous; ``Watcher`` is the asynchronous part of it."""

    @property
    def identity(self) -> ServiceIdentity: ...

    def upload(self, source: BinaryIO, *, size_bytes: int, display_name: str) -> UploadedFile:
        """Upload one JSONL file. Repeating it makes another file, which costs nothing."""
        ...

    def file(self, name: str) -> UploadedFile | None:
        """The file, or None when the service answers 403 or 404 (gone, expired, or another project's)."""
        ...

    def delete_file(self, name: str) -> bool:
        """Delete; False when the service answers 403 or 404."""
        ...

    def create(self, *, model: str, file_name: str, display_name: str) -> CreateReply:
        """The one paid call: sent once, never repeated in here."""
        ...

    def job(self, job_name: str) -> JobSnapshot: ...

    def jobs(self, page_token: str = "") -> JobPage: ...

    def cancel(self, job_name: str) -> None:
        """Ask for the end of a job; harmless on an ended one."""
        ...

    def download(self, file_name: str, offset: int = 0) -> AbstractContextManager[Download]:
        """Stream a result file from ``offset``. A cut raises ServiceBusy from ``chunks``."""
        ...

    def model(self, name: str) -> ModelInfo: ...

    def close(self) -> None: ...


class Watcher(Protocol):
    """What waiting needs, for an event loop. Neither call creates or changes anything at the service."""

    async def job(self, job_name: str) -> JobSnapshot: ...

    async def jobs(self, page_token: str = "") -> JobPage: ...

    async def close(self) -> None: ...
