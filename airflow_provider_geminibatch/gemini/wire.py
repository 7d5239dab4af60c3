"""The Developer API's JSON as our values: operations, files, errors. Pure; the only place that knows these field names.

The SDK drops ``error``, ``batchStats``, ``inputConfig`` and an output that stands only under ``response``
(google-genai 3.4.0, ``_BatchJob_from_mldev``), so jobs are read from the raw operation here.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from airflow_provider_geminibatch.core.capabilities import ModelInfo
from airflow_provider_geminibatch.core.errors import KeyRefused, ModelUnknown, ServiceBusy, ServiceError
from airflow_provider_geminibatch.core.model import JobCounts, JobSnapshot, state_name
from airflow_provider_geminibatch.gemini.gateway import (
    Ambiguous,
    Created,
    CreateReply,
    FilePage,
    GenerateReply,
    JobPage,
    Tier,
    UploadedFile,
)
from airflow_provider_geminibatch.gemini.replies import (
    Reply,
    busy_error,
    count,
    error_text,
    members,
    moment,
    not_created,
    retry_after,
    row_error,
)

# Texts of the 400 that stands for a bad key (troubleshooting page, 2026-10-01); the API has no other sign of it.
_KEY_TEXTS = ("api key not valid", "api key expired", "api key was reported as leaked", "api_key_invalid")


def job_snapshot(operation: Mapping[str, Any]) -> JobSnapshot:
    """A job from its operation. Counts are int64 strings, zeros are left out, ``done`` is absent while false."""
    meta = members(operation.get("metadata"))
    stats = members(meta.get("batchStats"))
    error = members(operation.get("error"))
    output = members(meta.get("output")) or members(operation.get("response"))
    return JobSnapshot(
        name=str(operation.get("name") or meta.get("name") or ""),
        state=state_name(str(meta.get("state") or "UNSPECIFIED")),
        display_name=str(meta.get("displayName") or ""),
        model=str(meta.get("model") or "").removeprefix("models/"),
        input_file=str(members(meta.get("inputConfig")).get("fileName") or ""),
        output_file=str(output.get("responsesFile") or members(operation.get("response")).get("responsesFile") or ""),
        created_at=moment(meta.get("createTime")),
        updated_at=moment(meta.get("updateTime")),
        ended_at=moment(meta.get("endTime")),
        counts=JobCounts(
            total=count(stats.get("requestCount")),
            succeeded=count(stats.get("successfulRequestCount")),
            failed=count(stats.get("failedRequestCount")),
            pending=count(stats.get("pendingRequestCount")),
        ),
        error_code=count(error.get("code")) or None,
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
        size_bytes=count(fields.get("sizeBytes")),
        expires_at=moment(fields.get("expirationTime")),
        seen_at=seen_at,
        uri=str(fields.get("uri") or ""),
        display_name=str(fields.get("displayName") or ""),
        state=str(fields.get("state") or ""),
        error_text=str(members(fields.get("error")).get("message") or ""),
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
        input_token_limit=count(fields.get("inputTokenLimit")) or None,
        output_token_limit=count(fields.get("outputTokenLimit")) or None,
    )


def model_page(doing: str, reply: Reply) -> tuple[list[ModelInfo], str]:
    """One page of the list of models, and the token of the next."""
    body = reply.json()
    if not isinstance(body, dict):
        raise ServiceBusy(doing, reply.status, "a reply that is not a page")
    entries = [entry for entry in body.get("models") or () if isinstance(entry, dict)]
    return [model_info(entry) for entry in entries], str(body.get("nextPageToken") or "")


def create_reply(reply: Reply) -> CreateReply:
    """What may be concluded from the answer to a create."""
    body = reply.json()
    if reply.status == 200 and body is not None:
        job = job_snapshot(body)
        return Created(job, reply.date) if job.name.startswith("batches/") else Ambiguous("a 200 without a job name")
    return not_created(reply)


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
    refusal = service_error(doing, reply)
    if isinstance(refusal, KeyRefused | ModelUnknown):
        raise refusal
    return GenerateReply(
        error=row_error(reply), code=reply.status, retry_after_seconds=retry_after(reply), tier=tier
    )  # fmt: skip


def count_body(model: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """The body of ``countTokens``. In this form system instruction and tools are counted; bare ``contents`` leaves them out.

    The inner request has to name its model (API reference of ``models.countTokens``; so do all clients that were looked at).
    Whether a response schema counts is not documented, nor whether it is billed: ``assumed`` the same of both.
    """
    return {"generateContentRequest": {**request, "model": f"models/{model.removeprefix('models/')}"}}


def is_key_refusal(status: int, text: str) -> bool:
    """True when the credential itself is what the service does not accept."""
    return status == 401 or (status in (400, 403) and any(known in text.lower() for known in _KEY_TEXTS))


def service_error(doing: str, reply: Reply) -> ServiceError:
    """The error for a refused harmless call."""
    text = error_text(reply)
    if is_key_refusal(reply.status, text):
        return KeyRefused(doing, reply.status, text)
    if busy := busy_error(doing, reply):
        return busy
    if reply.status == 404 and "models/" in text:
        return ModelUnknown(doing, reply.status, text)
    return ServiceError(doing, reply.status, text)
