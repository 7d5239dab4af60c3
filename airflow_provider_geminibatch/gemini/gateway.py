"""The door to the service: one small Protocol in our own types. What a route does behind it stays behind it.

A reply to ``create`` is a value, since what may be concluded from it is a matter of money: ``Created`` and ``Refused`` are
certain, ``Ambiguous`` is everything else and leads to a look-up, never to a second create. The reply to ``generate``, the
other paid call, is a value too. All other calls are harmless to repeat and raise ``core.errors``: KeyRefused, ModelUnknown,
ServiceBusy, JobUnreachable or plain ServiceError.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, BinaryIO, Literal, Protocol

import msgspec

from airflow_provider_geminibatch.core.capabilities import ModelInfo
from airflow_provider_geminibatch.core.model import JobSnapshot, ServiceIdentity


class UploadedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file at the service. ``name`` is ``files/…``, on Vertex AI ``gs://…``; times are the service's own."""

    name: str
    size_bytes: int
    expires_at: datetime | None = None
    seen_at: datetime | None = None
    """The service's ``Date`` of the reply that showed it."""
    uri: str = ""
    """What requests point at."""
    display_name: str = ""
    state: str = ""
    """``ACTIVE``, ``PROCESSING`` (a video that is not ready yet) or ``FAILED``; empty where the service says none."""
    error_text: str = ""
    created_at: datetime | None = None
    """By the service's clock, where it says so: what never ends has an age all the same."""

    @property
    def life(self) -> timedelta | None:
        """How long it will still be there; None when the service said nothing about an end."""
        return self.expires_at - self.seen_at if self.expires_at and self.seen_at else None


class FilePage(msgspec.Struct, frozen=True):
    """One page of the list of files. An empty page with a token means: go on."""

    files: tuple[UploadedFile, ...]
    next_token: str = ""


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


NO_LABELS: Mapping[str, str] = MappingProxyType({})

Tier = Literal["flex", "standard"]
"""How an interactive call is served: flex at the price of batch, within minutes and sheddable; standard at twice that."""

BUSY = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses after which the same call may fare better (the SDK's own list of retryable codes)."""


class GenerateReply(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one interactive call: the model's response, or an error in the form a result line has.

    ``code`` is the HTTP status, None when none came. ``tier`` is what the service says it was served by, where it says so.
    """

    response: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    code: int | None = None
    retry_after_seconds: float | None = None
    tier: str = ""
    sent: bool = True
    """False when the call failed before its first byte, so that it certainly cost nothing."""

    @property
    def busy(self) -> bool:
        """True when the same call may fare better a little later."""
        return self.response is None and (self.code is None or self.code in BUSY)

    @property
    def lost(self) -> bool:
        """True when an answer may have been made, and billed, that did not reach us."""
        return self.response is None and self.sent and (self.code is None or self.code == 200)


class JobPage(msgspec.Struct, frozen=True):
    """One page of the job list. An empty page with a token means: go on. ``at`` is the service's ``Date``."""

    jobs: tuple[JobSnapshot, ...]
    next_token: str = ""
    at: datetime | None = None


class TokenCount(msgspec.Struct, frozen=True, kw_only=True):
    """How many tokens the prompt of a request has, as the service counts them. ``cached`` of them come from a cache."""

    total: int
    cached: int = 0
    modalities: tuple[tuple[str, int], ...] = ()
    """Tokens by modality (``TEXT``, ``IMAGE`` …), where the service says so."""


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

    def upload(self, source: BinaryIO, *, size_bytes: int, display_name: str, mime_type: str = "") -> UploadedFile:
        """Upload one file, JSONL unless its type is given. Repeating it makes another file, which costs nothing."""
        ...

    def file(self, name: str) -> UploadedFile | None:
        """The file, or None when the service answers 403 or 404 (gone, expired, or another project's)."""
        ...

    def file_page(self, page_token: str = "") -> FilePage:
        """A page of the files of the project, results among them."""
        ...

    def delete_file(self, name: str) -> bool:
        """Delete; False when the service answers 403 or 404."""
        ...

    def create(
        self,
        *,
        model: str,
        file_name: str,
        display_name: str,
        kind: str = "generate",
        labels: Mapping[str, str] = NO_LABELS,
    ) -> CreateReply:
        """The one paid call: sent once, never repeated in here. ``kind`` is that of the requests in the file.

        ``labels`` say whose job it is, on routes whose jobs can carry them.
        """
        ...

    def job(self, job_name: str) -> JobSnapshot: ...

    def jobs(self, page_token: str = "", display_name: str = "") -> JobPage:
        """A page of the list, newest first. A display name, or the beginning of one before a ``*``, is for routes that can filter.

        Others show what they always show, so that whoever asks looks at the names all the same.
        """
        ...

    def cancel(self, job_name: str) -> None:
        """Ask for the end of a job; harmless on an ended one."""
        ...

    def download(self, file_name: str, offset: int = 0) -> AbstractContextManager[Download]:
        """Stream a result file from ``offset``. A cut raises ServiceBusy from ``chunks``."""
        ...

    def generate(self, model: str, request: Mapping[str, Any], *, tier: Tier, timeout_seconds: float) -> GenerateReply:
        """Ask one request and wait for the answer. Paid, sent once, never repeated in here; may be called from several threads.

        Raises KeyRefused and ModelUnknown; everything else is in the reply.
        """
        ...

    def count_tokens(self, model: str, request: Mapping[str, Any]) -> TokenCount:
        """The tokens of a request's prompt, system instruction and tools included. Free; may be called from several threads."""
        ...

    def model(self, name: str) -> ModelInfo: ...

    def models(self) -> tuple[ModelInfo, ...]:
        """Every model that the service lists, all pages of it."""
        ...

    def close(self) -> None: ...


class Watcher(Protocol):
    """What waiting needs, for an event loop. Neither call creates or changes anything at the service."""

    async def job(self, job_name: str) -> JobSnapshot: ...

    async def jobs(self, page_token: str = "") -> JobPage: ...

    async def close(self) -> None: ...
