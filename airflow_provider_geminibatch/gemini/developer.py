"""The route to the Gemini Developer API.

Job calls are raw HTTP: what the SDK drops is needed (``gemini.wire``), its asynchronous client re-sends a create by itself,
and the one paid call must be sent exactly once, by a synchronous client, without retries and redirects. Uploads, which are
resumable and harmless to repeat, are the SDK's.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

import httpx
import msgspec

from airflow_provider_geminibatch.core.capabilities import ModelInfo
from airflow_provider_geminibatch.core.errors import JobUnreachable, ModelUnknown, ServiceBusy, ServiceError
from airflow_provider_geminibatch.core.kinds import KINDS
from airflow_provider_geminibatch.core.model import JobSnapshot, ServiceIdentity
from airflow_provider_geminibatch.gemini import wire
from airflow_provider_geminibatch.gemini.gateway import (
    NO_LABELS,
    Ambiguous,
    CreateReply,
    Download,
    FilePage,
    GenerateReply,
    JobPage,
    Refused,
    Tier,
    TokenCount,
    UploadedFile,
)
from airflow_provider_geminibatch.gemini.http import (
    NEVER_SENT,
    HttpDownload,
    ask_once,
    headers_of,
    named,
    out_of_reach,
    page_query,
    reply_of,
)
from airflow_provider_geminibatch.gemini.prompt_caches import CacheCalls
from airflow_provider_geminibatch.gemini.replies import Reply, error_text, token_count, whole_size

if TYPE_CHECKING:
    from google.genai import Client

ENDPOINT = "https://generativelanguage.googleapis.com"

JSONL_MIME = "jsonl"
"""The MIME type the docs use; the service has intermittently refused it (python-genai#1547), and then plain text works."""


@dataclass(frozen=True)
class Settings:
    """How to reach the service. The key does not show in ``repr``."""

    api_key: str = field(repr=False)
    endpoint: str = ENDPOINT
    api_version: str = "v1beta"
    timeout_seconds: float = 60.0
    mime_type: str = JSONL_MIME

    @property
    def identity(self) -> ServiceIdentity:
        return ServiceIdentity("developer", self.endpoint.rstrip("/"))

    @property
    def base(self) -> str:
        return f"{self.endpoint.rstrip('/')}/{self.api_version}"

    def http(self) -> dict[str, Any]:
        """Arguments of both httpx clients. Each phase has the timeout, so a create is over well before the settle time."""
        return {"headers": {"x-goog-api-key": self.api_key}, "timeout": self.timeout_seconds, "follow_redirects": False}


class DeveloperGateway(CacheCalls):
    """``Gateway`` over the Developer API; synchronous, for workers. It takes prompt caches too."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._http = httpx.Client(**settings.http())
        self._sdk: Client | None = None
        self._sdk_lock = threading.Lock()

    @property
    def identity(self) -> ServiceIdentity:
        return self._settings.identity

    def close(self) -> None:
        self._http.close()
        if self._sdk is not None:
            self._sdk.close()

    def upload(self, source: BinaryIO, *, size_bytes: int, display_name: str, mime_type: str = "") -> UploadedFile:
        from google.genai.errors import APIError  # two seconds of import, needed here only

        doing = f"upload of {display_name}"
        try:
            return self._upload(source, display_name, mime_type or self._settings.mime_type)
        except APIError as error:
            # Only the refusal of the MIME type is answered with another one; every other 400 is the user's to see.
            if error.code == 400 and not mime_type and "mime" in str(error.message).lower():
                source.seek(0)
                return self._upload(source, display_name, "text/plain")
            raise _sdk_error(doing, error) from error
        except _transport_errors() as error:
            raise ServiceBusy(doing, None, named(error)) from error

    def _upload(self, source: BinaryIO, display_name: str, mime_type: str) -> UploadedFile:
        sent = self._client().files.upload(
            file=source,  # type: ignore[arg-type]  # any binary stream works; the annotation wants IOBase
            config={"display_name": display_name, "mime_type": mime_type},
        )
        return UploadedFile(
            name=sent.name or "",
            size_bytes=sent.size_bytes or 0,
            expires_at=sent.expiration_time,
            seen_at=sent.create_time,
            uri=sent.uri or "",
            display_name=display_name,
            state=str(sent.state.value) if sent.state else "",
        )

    def _client(self) -> Client:
        # Media are uploaded by several threads; of two clients the one that is dropped would close what the other is sending.
        with self._sdk_lock:
            if self._sdk is None:
                from google.genai import Client  # see upload

                self._sdk = Client(vertexai=False, api_key=self._settings.api_key, http_options=self._sdk_options())  # type: ignore[arg-type]
            return self._sdk

    def _sdk_options(self) -> dict[str, Any]:
        # The SDK's timeout is in milliseconds.
        return {
            "base_url": self._settings.endpoint,
            "api_version": self._settings.api_version,
            "timeout": int(self._settings.timeout_seconds * 1000),
        }

    def file(self, name: str) -> UploadedFile | None:
        reply = self._call("GET", f"/{name}", f"look at {name}", absent=(403, 404))
        return None if reply is None else wire.uploaded_file(reply.json() or {}, reply.date)

    def file_page(self, page_token: str = "") -> FilePage:
        doing = "list of files"
        page = wire.file_page(_ok(self._send("GET", "/files", doing, params=page_query(page_token)), doing))
        if page is None:
            raise ServiceBusy(doing, 200, "a reply that is not a page")
        return page

    def delete_file(self, name: str) -> bool:
        return self._call("DELETE", f"/{name}", f"delete {name}", absent=(403, 404)) is not None

    def create(
        self,
        *,
        model: str,
        file_name: str,
        display_name: str,
        kind: str = "generate",
        labels: Mapping[str, str] = NO_LABELS,
    ) -> CreateReply:
        body = {"batch": {"displayName": display_name, "inputConfig": {"fileName": file_name}}}
        try:
            answer = self._http.post(f"{self._settings.base}/models/{model}:{KINDS[kind].method}", json=body)
        except NEVER_SENT as error:
            return Refused(0, f"not sent: {named(error)}")
        except httpx.HTTPError as error:
            return Ambiguous(named(error))
        return wire.create_reply(reply_of(answer))

    def job(self, job_name: str) -> JobSnapshot:
        return _job(job_name, self._send("GET", f"/{job_name}", f"look at {job_name}"))

    def jobs(self, page_token: str = "", display_name: str = "") -> JobPage:
        return _page(self._send("GET", "/batches", "list of jobs", params=page_query(page_token)))

    def cancel(self, job_name: str) -> None:
        self._call("POST", f"/{job_name}:cancel", f"cancel of {job_name}", json={})

    def generate(self, model: str, request: Mapping[str, Any], *, tier: Tier, timeout_seconds: float) -> GenerateReply:
        url = f"{self._settings.base}/models/{model}:generateContent"
        doing = f"generateContent of {model}"
        # A connection is made in the usual time; the answer may take as long as was asked for.
        timeout = httpx.Timeout(timeout_seconds, connect=min(timeout_seconds, self._settings.timeout_seconds))
        answer = ask_once(self._http, url, json=wire.generate_body(request, tier), timeout=timeout)
        return answer if isinstance(answer, GenerateReply) else wire.generate_reply(doing, answer)

    def count_tokens(self, model: str, request: Mapping[str, Any]) -> TokenCount:
        doing = f"countTokens of {model}"
        reply = self._send("POST", f"/models/{model}:countTokens", doing, json=wire.count_body(model, request))
        return token_count(doing, _ok(reply, doing))

    def model(self, name: str) -> ModelInfo:
        doing = f"model {name!r}"
        reply = self._send("GET", f"/models/{name}", doing)
        if reply.status == 404:
            raise ModelUnknown(doing, 404, error_text(reply))
        return wire.model_info(_ok(reply, doing).json() or {})

    def models(self) -> tuple[ModelInfo, ...]:
        doing, found, token = "list of models", list[ModelInfo](), ""
        while True:
            reply = _ok(self._send("GET", "/models", doing, params=page_query(token)), doing)
            page, following = wire.model_page(doing, reply)
            found += page
            if not following or following == token:
                return tuple(found)
            token = following

    @contextmanager
    def download(self, file_name: str, offset: int = 0) -> Iterator[Download]:
        doing = f"download of {file_name}"
        # Unpacked bytes only: lengths and ranges are those of what is on the wire.
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if offset else {})
        url = f"{self._settings.base}/{file_name}:download"
        try:
            with self._http.stream("GET", url, params={"alt": "media"}, headers=headers) as answer:
                if answer.status_code not in (200, 206):
                    answer.read()
                    # Asked for what comes after the last byte, a service says that there is nothing (RFC 9110 15.5.17).
                    if answer.status_code != 416 or whole_size(headers_of(answer)) != offset:
                        raise wire.service_error(doing, reply_of(answer))
                yield HttpDownload(answer, doing, offset)
        except httpx.HTTPError as error:
            raise ServiceBusy(doing, None, named(error)) from error

    def _call(
        self, method: str, path: str, doing: str, *, absent: tuple[int, ...] = (), json: object = None
    ) -> Reply | None:
        """A call that must succeed; None when the status is one of ``absent``, unless the key itself was refused."""
        reply = self._send(method, path, doing, json=json)
        if reply.status in absent and not wire.is_key_refusal(reply.status, error_text(reply)):
            return None
        return _ok(reply, doing)

    def _send(self, method: str, path: str, doing: str, **more: Any) -> Reply:
        with out_of_reach(doing):
            return reply_of(self._http.request(method, self._settings.base + path, **more))


class DeveloperWatcher:
    """``Watcher`` over the Developer API, for one event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._http = httpx.AsyncClient(**settings.http())

    async def job(self, job_name: str) -> JobSnapshot:
        return _job(job_name, await self._get(f"/{job_name}", f"look at {job_name}"))

    async def jobs(self, page_token: str = "") -> JobPage:
        return _page(await self._get("/batches", "list of jobs", params=page_query(page_token)))

    async def close(self) -> None:
        await self._http.aclose()

    async def _get(self, path: str, doing: str, **more: Any) -> Reply:
        with out_of_reach(doing):
            return reply_of(await self._http.get(self._settings.base + path, **more))


def _job(job_name: str, reply: Reply) -> JobSnapshot:
    text = error_text(reply)
    if reply.status in (403, 404) and not wire.is_key_refusal(reply.status, text):
        raise JobUnreachable(job_name, reply.status, text)
    body = _ok(reply, f"look at {job_name}").json()
    if body is None:
        raise ServiceBusy(f"look at {job_name}", reply.status, "a reply that is not JSON")
    return wire.job_snapshot(body)


def _page(reply: Reply) -> JobPage:
    page = wire.job_page(_ok(reply, "list of jobs"))
    if page is None:
        raise ServiceBusy("list of jobs", reply.status, "a reply that is not a page")
    return page


def _ok(reply: Reply, doing: str) -> Reply:
    if reply.status != 200:
        raise wire.service_error(doing, reply)
    return reply


def _sdk_error(doing: str, error: Any) -> ServiceError:
    body = {"error": {"code": error.code, "message": str(error.message or error.status or "")}}
    return wire.service_error(doing, Reply(int(error.code or 500), {}, msgspec.json.encode(body)))


def _transport_errors() -> tuple[type[BaseException], ...]:
    """What the SDK's transport may raise: it switches between httpx, httpx2 and aiohttp by what is installed."""
    bases: list[type[BaseException]] = [OSError, TimeoutError]
    for library, name in (("httpx", "HTTPError"), ("httpx2", "HTTPError"), ("aiohttp", "ClientError")):
        base = getattr(sys.modules.get(library), name, None)
        bases += [base] if isinstance(base, type) else []
    return tuple(bases)
