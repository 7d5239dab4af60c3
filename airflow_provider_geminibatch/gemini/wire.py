"""The Developer API's JSON as our values: operations, files, errors. Pure; the only place that knows these field names.

The SDK drops ``error``, ``batchStats``, ``inputConfig`` and an output that stands only under ``response``
(google-genai 3.4.0, ``_BatchJob_from_mldev``), so jobs are read from the raw operation here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from airflow_provider_geminibatch.core.capabilities import ModelInfo
from airflow_provider_geminibatch.core.errors import KeyRefused, ModelUnknown, ServiceBusy, ServiceError
from airflow_provider_geminibatch.core.model import JobCounts, JobSnapshot, state_name
from airflow_provider_geminibatch.gemini.gateway import (
    BUSY,
    Ambiguous,
    Created,
    CreateReply,
    FilePage,
    GenerateReply,
    JobPage,
    Refused,
    Tier,
    TokenCount,
    UploadedFile,
)

CERTAIN_REFUSALS = frozenset({400, 401, 402, 403, 404, 429})
"""Statuses of a create that say: nothing was created. Every other failure is ambiguous."""

# Texts of the 400 that stands for a bad key (troubleshooting page, 2026-10-01); the API has no other sign of it.
_KEY_TEXTS = ("api key not valid", "api key expired", "api key was reported as leaked", "api_key_invalid")


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
        except (msgspec.MsgspecError, RecursionError):
            return None
        return decoded if isinstance(decoded, dict) else None


def job_snapshot(operation: Mapping[str, Any]) -> JobSnapshot:
    """A job from its operation. Counts are int64 strings, zeros are left out, ``done`` is absent while false."""
    meta = _object(operation.get("metadata"))
    stats = _object(meta.get("batchStats"))
    error = _object(operation.get("error"))
    output = _object(meta.get("output")) or _object(operation.get("response"))
    return JobSnapshot(
        name=str(operation.get("name") or meta.get("name") or ""),
        state=state_name(str(meta.get("state") or "UNSPECIFIED")),
        display_name=str(meta.get("displayName") or ""),
        model=str(meta.get("model") or "").removeprefix("models/"),
        input_file=str(_object(meta.get("inputConfig")).get("fileName") or ""),
        output_file=str(output.get("responsesFile") or _object(operation.get("response")).get("responsesFile") or ""),
        created_at=_time(meta.get("createTime")),
        updated_at=_time(meta.get("updateTime")),
        ended_at=_time(meta.get("endTime")),
        counts=JobCounts(
            total=_count(stats.get("requestCount")),
            succeeded=_count(stats.get("successfulRequestCount")),
            failed=_count(stats.get("failedRequestCount")),
            pending=_count(stats.get("pendingRequestCount")),
        ),
        error_code=_count(error.get("code")) or None,
        error_text=str(error.get("message") or ""),
    )


def job_page(reply: Reply) -> JobPage | None:
    """A page of the list, or None for an unreadable one (which is not an empty one)."""
    body = reply.json()
    if body is None or not isinstance(body.get("operations", []), list):
        return None
    jobs = tuple(job_snapshot(operation) for operation in body.get("operations", []) if isinstance(operation, dict))
    return JobPage(jobs, str(body.get("nextPageToken") or ""), reply.date)


def uploaded_file(fields: Mapping[str, Any], seen_at: datetime | None = None) -> UploadedFile:
    """A file resource."""
    return UploadedFile(
        name=str(fields.get("name") or ""),
        size_bytes=_count(fields.get("sizeBytes")),
        expires_at=_time(fields.get("expirationTime")),
        seen_at=seen_at,
        uri=str(fields.get("uri") or ""),
        display_name=str(fields.get("displayName") or ""),
        state=str(fields.get("state") or ""),
        error_text=str(_object(fields.get("error")).get("message") or ""),
    )


def file_page(reply: Reply) -> FilePage | None:
    """A page of the list of files, or None for an unreadable one."""
    body = reply.json()
    if body is None or not isinstance(body.get("files", []), list):
        return None
    files = tuple(uploaded_file(fields, reply.date) for fields in body.get("files", []) if isinstance(fields, dict))
    return FilePage(files, str(body.get("nextPageToken") or ""))


def model_info(fields: Mapping[str, Any]) -> ModelInfo:
    """A model resource."""
    return ModelInfo(
        name=str(fields.get("name") or "").removeprefix("models/"),
        methods=tuple(str(method) for method in fields.get("supportedGenerationMethods") or ()),
        input_token_limit=_count(fields.get("inputTokenLimit")) or None,
        output_token_limit=_count(fields.get("outputTokenLimit")) or None,
    )


def model_page(doing: str, reply: Reply) -> tuple[list[ModelInfo], str]:
    """One page of the list of models, and the token of the next."""
    body = reply.json()
    if not isinstance(body, dict):
        raise ServiceBusy(doing, reply.status, "a reply that is not a page")
    entries = [entry for entry in body.get("models") or () if isinstance(entry, dict)]
    return [model_info(entry) for entry in entries], str(body.get("nextPageToken") or "")


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


def create_reply(reply: Reply) -> CreateReply:
    """What may be concluded from the answer to a create.

    A refusal counts only in the service's own error form: the same status from something in between proves nothing.
    """
    body = reply.json()
    if reply.status == 200 and body is not None:
        job = job_snapshot(body)
        return Created(job, reply.date) if job.name.startswith("batches/") else Ambiguous("a 200 without a job name")
    if reply.status in CERTAIN_REFUSALS and body is not None and isinstance(body.get("error"), dict):
        return Refused(reply.status, error_text(reply), retry_after(reply))
    return Ambiguous(f"HTTP {reply.status}: {error_text(reply)}")


def generate_body(request: Mapping[str, Any], tier: Tier) -> dict[str, Any]:
    """A batch request as the body of an interactive call. A model of its own would contradict the one in the path."""
    asked = {name: value for name, value in request.items() if name != "model"}
    return {**asked, "serviceTier": "flex"} if tier == "flex" else asked


def generate_reply(doing: str, reply: Reply) -> GenerateReply:
    """The answer to an interactive call. Raises KeyRefused and ModelUnknown."""
    tier = reply.headers.get("x-gemini-service-tier", "").lower()
    body = reply.json()
    if reply.status == 200 and body is not None and "error" not in body:
        return GenerateReply(response=body, code=200, tier=tier)
    text = error_text(reply)
    refusal = service_error(doing, reply)
    if isinstance(refusal, KeyRefused | ModelUnknown):
        raise refusal
    named = _object((body or {}).get("error")).get("status")
    error = {"code": reply.status, "message": text, **({"status": named} if isinstance(named, str) else {})}
    return GenerateReply(error=error, code=reply.status, retry_after_seconds=retry_after(reply), tier=tier)


def count_body(model: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """The body of ``countTokens``. In this form system instruction and tools are counted; bare ``contents`` leaves them out.

    The inner request has to name its model (API reference of ``models.countTokens``; so do all clients that were looked at).
    Whether a response schema counts is not documented, nor whether it is billed: ``assumed`` the same of both.
    """
    return {"generateContentRequest": {**request, "model": f"models/{model.removeprefix('models/')}"}}


def token_count(doing: str, reply: Reply) -> TokenCount:
    """The count in a reply. One without ``totalTokens`` raises ServiceError: nobody asks about a prompt of no tokens."""
    body = reply.json() or {}
    total = _count(body.get("totalTokens"))
    if total <= 0:
        raise ServiceError(doing, reply.status, "a reply without totalTokens")
    details = body.get("promptTokensDetails")
    each = [_object(detail) for detail in details] if isinstance(details, list) else []
    return TokenCount(
        total=total,
        cached=_count(body.get("cachedContentTokenCount")),
        modalities=tuple((str(one.get("modality") or ""), _count(one.get("tokenCount"))) for one in each),
    )


def error_text(reply: Reply) -> str:
    """The service's own words, shortened; never the request."""
    message = _object((reply.json() or {}).get("error")).get("message")
    text = str(message) if message else f"no message ({len(reply.body)} bytes that are not an error of this API)"
    return text if len(text) <= 2000 else text[:1999] + "…"


def retry_after(reply: Reply) -> float | None:
    """Seconds the service asks to wait (header, else ``RetryInfo``); None when it says nothing or nonsense.

    A storage quota answers with ``RetryInfo`` of 2**63-1 seconds, which is no advice.
    """
    candidates: list[object] = [reply.headers.get("retry-after")]
    details = _object((reply.json() or {}).get("error")).get("details")
    candidates += [_object(detail).get("retryDelay") for detail in details] if isinstance(details, list) else []
    for candidate in candidates:
        try:
            seconds = float(str(candidate).removesuffix("s"))
        except ValueError:
            continue
        if 0 <= seconds <= 86_400:
            return seconds
    return None


def is_key_refusal(status: int, text: str) -> bool:
    """True when the credential itself is what the service does not accept."""
    return status == 401 or (status in (400, 403) and any(known in text.lower() for known in _KEY_TEXTS))


def service_error(doing: str, reply: Reply) -> ServiceError:
    """The error for a refused harmless call."""
    text = error_text(reply)
    if is_key_refusal(reply.status, text):
        return KeyRefused(doing, reply.status, text)
    if reply.status in BUSY:
        busy = ServiceBusy(doing, reply.status, text)
        busy.retry_after_seconds = retry_after(reply)
        return busy
    if reply.status == 404 and "models/" in text:
        return ModelUnknown(doing, reply.status, text)
    return ServiceError(doing, reply.status, text)


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: object) -> int:
    try:
        return int(value)  # type: ignore[call-overload, no-any-return]
    except (TypeError, ValueError):
        return 0


def _time(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        return msgspec.convert(value, datetime).astimezone(UTC)
    except (msgspec.ValidationError, ValueError):
        return None
