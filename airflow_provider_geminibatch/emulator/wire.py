"""What goes over the wire: a request, a reply, and the refusals with their reported texts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, read to its end. Header names are lower case; `peer` is the client's address."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    peer: str = "127.0.0.1"
    raw_path: str = ""
    """The path as it was sent, percent-encoded."""

    @property
    def origin(self) -> str:
        """Scheme and host as the client sees them."""
        host = self.headers.get("x-forwarded-host") or self.headers.get("host", "localhost")
        return f"{self.headers.get('x-forwarded-proto', 'http')}://{host}"

    def json(self) -> Json:
        """The body as a JSON object. Raises the 400 of a payload that is none."""
        try:
            value = json.loads(self.body or b"{}")
        except ValueError as broken:
            raise refused("bad_payload", reason=str(broken)) from None
        if not isinstance(value, dict):
            raise refused("bad_payload", reason="Root element must be a message.")
        return value


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP reply: a JSON `body`, or a `stream` of `length` bytes. A `cut` stream ends the connection too early.

    `delay` is how many seconds of real time pass before it is sent.
    """

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    stream: Iterator[bytes] | None = None
    length: int | None = 0
    """None where it is not said."""
    cut: bool = False
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class Call:
    """A request that was routed and authorised: who asks for what, and when by the emulator's clock."""

    request: Request
    endpoint: str
    params: Mapping[str, str]
    project: str
    now: datetime

    @property
    def version(self) -> str:
        """The API version in the path: `v1`, `v1beta` or `v1alpha`."""
        return self.params.get("version", "v1")

    def page(self, default_size: int) -> tuple[int, str]:
        """The page size and token asked for. The cap of 1000 and the default are assumed: neither is documented."""
        text = self.request.query.get("pageSize", "")
        size = int(text) if text.isdigit() and int(text) else default_size
        return min(size, 1000), self.request.query.get("pageToken", "")


class Dropped(Exception):
    """The connection ends without a reply."""


class Refused(Exception):
    """A reply in the google.rpc error shape."""

    def __init__(self, code: int, status: str, message: str, details: list[Json] | None = None) -> None:
        super().__init__(code, status, message, details)
        self.code, self.status, self.message, self.details = code, status, message, details
        self.headers: dict[str, str] = {}

    @property
    def reply(self) -> Reply:
        """The refusal as it is sent."""
        error: Json = {"code": self.code, "message": self.message, "status": self.status}
        if self.details:
            error["details"] = self.details
        return Reply(self.code, {"error": error}, self.headers)


class Text(NamedTuple):
    """One refusal: HTTP code, google.rpc status, message."""

    code: int
    status: str
    message: str


_QUOTA = (
    "You exceeded your current quota, please check your plan and billing details. For more information on this error, "
    "head to: https://ai.google.dev/gemini-api/docs/rate-limits."
)
_RPC = "type.googleapis.com/google.rpc."
_LIMITS_PAGE = "https://ai.google.dev/gemini-api/docs/rate-limits"
_HELP: Json = {
    "@type": _RPC + "Help",
    "links": [{"description": "Learn more about Gemini API quotas", "url": _LIMITS_PAGE}],
}
_BAD, _MISSING, _DENIED = "INVALID_ARGUMENT", "NOT_FOUND", "PERMISSION_DENIED"

# Texts that users reported word for word come first; the wording of those after the mark is assumed.
REFUSALS: Mapping[str, Text] = {
    "bad_key": Text(400, _BAD, "API key not valid. Please pass a valid API key."),
    "bad_line": Text(400, _BAD, "{reason}"),
    "bad_argument": Text(400, _BAD, "Request contains an invalid argument."),
    "long_file_id": Text(
        400,
        _BAD,
        "* {call}FileRequest.name: File ID (name excluding 'files/') cannot be more than 40 characters.",
    ),
    "no_file": Text(403, _DENIED, "You do not have permission to access the File {file} or it may not exist."),
    "inactive_file": Text(
        400, "FAILED_PRECONDITION", "The File {file} is not in an ACTIVE state and usage is not allowed."
    ),
    "no_cache": Text(403, _DENIED, "CachedContent not found (or permission denied)"),
    "beside_cache": Text(
        400,
        _BAD,
        "CachedContent can not be used with GenerateContent request setting system_instruction, tools or tool_config.",
    ),
    "no_model": Text(
        404,
        _MISSING,
        "models/{model} is not found for API version {version}, or is not supported for {method}. "
        "Call ListModels to see the list of available models and their supported methods.",
    ),
    "quota": Text(429, "RESOURCE_EXHAUSTED", _QUOTA),
    "overloaded": Text(503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
    "internal": Text(500, "INTERNAL", "An internal error has occurred. Please retry."),
    # assumed from here on
    "no_key": Text(403, _DENIED, "Method doesn't allow unregistered callers. Please use an API key."),
    "bad_payload": Text(400, _BAD, "Invalid JSON payload received. {reason}"),
    "bad_value": Text(400, _BAD, "Invalid value at '{path}'."),
    "bad_file_name": Text(
        400,
        _BAD,
        "* CreateFileRequest.file.name: File ID must be at most 40 characters: lowercase letters, digits and "
        "dashes, with no dash at either end.",
    ),
    "bad_mime": Text(400, _BAD, "Unsupported MIME type: {mime}"),
    "bad_offset": Text(400, _BAD, "Upload offset {got} does not match the {have} bytes received."),
    "big_file": Text(400, _BAD, "File size of {size} bytes exceeds the limit of {limit} bytes."),
    "big_body": Text(400, _BAD, "Request payload size exceeds the limit: {limit} bytes."),
    "no_rows": Text(400, _BAD, "The batch has no requests."),
    "no_source": Text(400, _BAD, "batch.input_config needs exactly one of file_name and requests."),
    "file_exists": Text(409, "ALREADY_EXISTS", "Requested entity already exists."),
    "not_generated": Text(400, _BAD, "Only generated files can be downloaded."),
    "no_upload": Text(404, _MISSING, "The upload session was not found."),
    "no_batch": Text(404, _MISSING, "Requested entity was not found."),
    "no_path": Text(404, _MISSING, "The requested URL {path} was not found on this server."),
    "bad_range": Text(416, "OUT_OF_RANGE", "The requested range is outside the {size} bytes of the file."),
}


def refused(name: str, details: list[Json] | None = None, *, retry_after: float = 0, **facts: object) -> Refused:
    """The refusal of that name in `REFUSALS`, with its text filled in and a Retry-After unless that is 0 s."""
    text = REFUSALS[name]
    refusal = Refused(text.code, text.status, text.message.format(**facts), details)
    if retry_after:
        refusal.headers["retry-after"] = f"{retry_after:g}"
    return refusal


def over_quota(*, retry_after: float = 0) -> Refused:
    """The 429 that does not say which quota it was (as reported), with a RetryInfo and a Retry-After unless that is 0 s."""
    info = {"@type": _RPC + "RetryInfo", "retryDelay": f"{retry_after:g}s"}
    return refused("quota", [_HELP, *([info] if retry_after else [])], retry_after=retry_after)


def over_storage() -> Refused:
    """The 429 of a full storage, which names its quota and asks to retry after the largest int64 of seconds (as reported)."""
    violation = {
        "quotaMetric": "generativelanguage.googleapis.com/file_storage_bytes",
        "quotaId": "FileStorageBytesPerProject",
    }
    failure = {"@type": _RPC + "QuotaFailure", "violations": [violation]}
    return refused("quota", [_HELP, failure, {"@type": _RPC + "RetryInfo", "retryDelay": f"{2**63 - 1}s"}])


__all__ = [
    "REFUSALS",
    "Call",
    "Dropped",
    "Json",
    "Refused",
    "Reply",
    "Request",
    "over_quota",
    "over_storage",
    "refused",
]
