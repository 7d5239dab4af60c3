"""What every reply over HTTP has in common, whatever the route: status, time, errors, ranges, and advice to wait. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from airflow_provider_geminibatch.core.errors import ServiceBusy, ServiceError
from airflow_provider_geminibatch.gemini.gateway import BUSY, Ambiguous, CreateReply, Refused, TokenCount

CERTAIN_REFUSALS = frozenset({400, 401, 402, 403, 404, 429})
"""Statuses of a create that say: nothing was created. Every other failure is ambiguous."""


class Reply(msgspec.Struct, frozen=True):
    """An HTTP reply, reduced to what is decided on."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def date(self) -> datetime | None:
        """The service's own clock (``Date`` header)."""
        try:
            return parsedate_to_datetime(self.headers["date"]).astimezone(UTC)
        except (KeyError, ValueError):
            return None

    def json(self) -> dict[str, Any] | None:
        """The body as an object, or None when it is not one."""
        try:
            decoded = msgspec.json.decode(self.body)
        except (ValueError, RecursionError):  # bytes that are no UTF-8 are a ValueError too
            return None
        return decoded if isinstance(decoded, dict) else None


def error_text(reply: Reply) -> str:
    """The service's own words, shortened; never the request."""
    message = members((reply.json() or {}).get("error")).get("message")
    text = str(message) if message else f"no message ({len(reply.body)} bytes that are not an error of this API)"
    return text if len(text) <= 2000 else text[:1999] + "…"


def retry_after(reply: Reply) -> float | None:
    """Seconds the service asks to wait (header, else ``RetryInfo``); None when it says nothing or nonsense.

    A storage quota answers with ``RetryInfo`` of 2**63-1 seconds, which is no advice.
    """
    candidates: list[object] = [reply.headers.get("retry-after")]
    details = members((reply.json() or {}).get("error")).get("details")
    candidates += [members(detail).get("retryDelay") for detail in details] if isinstance(details, list) else []
    for candidate in candidates:
        try:
            seconds = float(str(candidate).removesuffix("s"))
        except ValueError:
            continue
        if 0 <= seconds <= 86_400:
            return seconds
    return None


def busy_error(doing: str, reply: Reply) -> ServiceBusy | None:
    """The error for a call that may fare better a little later; None for every other reply."""
    if reply.status not in BUSY:
        return None
    busy = ServiceBusy(doing, reply.status, error_text(reply))
    busy.retry_after_seconds = retry_after(reply)
    return busy


def not_created(reply: Reply) -> CreateReply:
    """What may be concluded from an answer to a create that names no job.

    A refusal counts only in the service's own error form: the same status from something in between proves nothing.
    """
    body = reply.json()
    if reply.status in CERTAIN_REFUSALS and body is not None and isinstance(body.get("error"), dict):
        return Refused(reply.status, error_text(reply), retry_after(reply))
    return Ambiguous(f"HTTP {reply.status}: {error_text(reply)}")


def row_error(reply: Reply) -> dict[str, Any]:
    """A refused interactive call as the error that a result line would have."""
    named = members((reply.json() or {}).get("error")).get("status")
    status = {"status": named} if isinstance(named, str) else {}
    return {"code": reply.status, "message": error_text(reply), **status}


def token_count(doing: str, reply: Reply) -> TokenCount:
    """The count in a reply. One without ``totalTokens`` raises ServiceError: nobody asks about a prompt of no tokens."""
    body = reply.json() or {}
    total = count(body.get("totalTokens"))
    if total <= 0:
        raise ServiceError(doing, reply.status, "a reply without totalTokens")
    details = body.get("promptTokensDetails")
    each = [members(detail) for detail in details] if isinstance(details, list) else []
    return TokenCount(
        total=total,
        cached=count(body.get("cachedContentTokenCount")),
        modalities=tuple((str(one.get("modality") or ""), count(one.get("tokenCount"))) for one in each),
    )


_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")


def whole_size(headers: Mapping[str, str]) -> int | None:
    """The size of the whole file as a ``Content-Range`` says it; None when it does not."""
    found = _CONTENT_RANGE.fullmatch(headers.get("content-range", "").strip())
    return int(found[2]) if found and found[2].isdigit() else None


def extent(status: int, headers: Mapping[str, str], asked: int) -> tuple[int, int | None]:
    """Where the body of a download begins in the file, and how large the whole file is, if the reply says so."""
    if status == 416:
        return asked, whole_size(headers)
    found = _CONTENT_RANGE.fullmatch(headers.get("content-range", "").strip()) if status == 206 else None
    start = int(found[1]) if found and found[1] else asked if status == 206 else 0
    length = headers.get("content-length", "")
    # The length of a packed body says nothing about the bytes that come out of it.
    if not length.isdigit() or headers.get("content-encoding", "identity").lower() != "identity":
        return start, whole_size(headers) if found else None
    rest = start + int(length)
    said = whole_size(headers) if found else None
    return start, rest if said is None else said


def members(value: object) -> Mapping[str, Any]:
    """The value as an object; an empty one for what is none."""
    return value if isinstance(value, dict) else {}


def count(value: object) -> int:
    """The value as a number, which the wire may write as a text; zero for what is none."""
    try:
        return int(value)  # type: ignore[call-overload, no-any-return]
    except (TypeError, ValueError):
        return 0


def moment(value: object) -> datetime | None:
    """The value as a time."""
    if not isinstance(value, str):
        return None
    try:
        return msgspec.convert(value, datetime).astimezone(UTC)
    except (msgspec.ValidationError, ValueError):
        return None
