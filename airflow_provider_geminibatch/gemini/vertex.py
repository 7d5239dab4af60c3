"""The route to Vertex AI: jobs of one location, whose files are objects of Cloud Storage.

Job calls are raw HTTP, as on the Developer API and for the same reasons. Creating and listing happen at the gateway's own
location; a job that is known is asked for where its name says that it is. An input is an object that is created once, its
results go to a place of their own beside it, and deleting it is what makes a late create come to nothing.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

import httpx
import msgspec

from airflow_provider_geminibatch.core.capabilities import ModelInfo
from airflow_provider_geminibatch.core.errors import (
    JobUnreachable,
    KeyRefused,
    ModelUnknown,
    ResultsBroken,
    ServiceBusy,
    ServiceError,
    Unusable,
)
from airflow_provider_geminibatch.core.model import JobSnapshot, ServiceIdentity, state_row
from airflow_provider_geminibatch.gemini import cloud_storage, vertex_wire
from airflow_provider_geminibatch.gemini.cloud_calls import Calls
from airflow_provider_geminibatch.gemini.cloud_storage import CloudStorage, Place, StoredObject, place_of
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
from airflow_provider_geminibatch.gemini.google_tokens import Bearer, CredentialSource, Tokens
from airflow_provider_geminibatch.gemini.http import NEVER_SENT, ask_once, named, out_of_reach, page_query, reply_of
from airflow_provider_geminibatch.gemini.replies import Reply, error_text, token_count

if TYPE_CHECKING:
    from airflow_provider_geminibatch.gemini.bigquery import Tables

JSONL_MIME = "application/jsonl"
_LISTING = "v1beta1"
"""The version whose list of publisher models the discovery document has; ``v1`` has none."""

_RESULTS = re.compile(r"predictions\.jsonl(-\d+-of-\d+)?")
"""Results, whole or in shards. What lies beside them is a dump of a running job, or counts (research: seen by users)."""

_MEDIA = "media"
_UPLOADED = re.compile(rf"([^/]+)/\d{{4,}}\.jsonl|{_MEDIA}/([^/]+)/\d{{4,}}")
"""The names of what ``upload`` made, below the staging folder. Copies of it lie elsewhere, and are somebody's own."""

TABLE = "bq://"
"""How names of tables begin."""


@dataclass(frozen=True)
class VertexSettings:
    """How to reach one location. Nothing of the credentials shows in ``repr``.

    ``staging`` is the folder of Cloud Storage for inputs and results. ``endpoint`` is for a service that is not Google's; one on
    this machine also stands for storage and tables, so that an emulator's connection never writes to a real bucket.
    """

    project: str
    location: str
    staging: str = ""
    credentials: CredentialSource = field(default_factory=CredentialSource)
    endpoint: str = ""
    storage_endpoint: str = ""
    bigquery_endpoint: str = ""
    api_version: str = "v1beta1"
    timeout_seconds: float = 60.0
    kms_key: str = ""

    @property
    def identity(self) -> ServiceIdentity:
        return ServiceIdentity("vertex", self.host(self.location), self.project, self.location)

    def host(self, location: str) -> str:
        """Who answers for a location."""
        return self.endpoint.rstrip("/") or vertex_wire.host_of(location)

    @property
    def base(self) -> str:
        return f"{self.host(self.location)}/{self.api_version}"

    @property
    def parent(self) -> str:
        """The location's resource name."""
        return f"projects/{self.project}/locations/{self.location}"

    @property
    def storage(self) -> str:
        """Who answers for Cloud Storage."""
        return self._beside(self.storage_endpoint, cloud_storage.ENDPOINT)

    @property
    def bigquery(self) -> str:
        """Who answers for BigQuery."""
        return self._beside(self.bigquery_endpoint, "https://bigquery.googleapis.com")

    def _beside(self, given: str, googles: str) -> str:
        return (given or (self.endpoint if is_local(self.endpoint) else googles)).rstrip("/")

    def tokens(self) -> Tokens:
        """What authorises calls. An emulator on this machine asks for nothing, and is never sent what is worth anything."""
        if is_local(self.endpoint) and not self.credentials.given:
            return Tokens(CredentialSource(token="emulated"))  # noqa: S106 - no secret
        return Tokens(self.credentials)


def is_local(endpoint: str) -> bool:
    """Whether an endpoint is on this machine."""
    return urlsplit(endpoint).hostname in ("127.0.0.1", "localhost", "::1")


class VertexGateway:
    """``Gateway`` over Vertex AI in one location; synchronous, for workers."""

    def __init__(self, settings: VertexSettings) -> None:
        self._settings = settings
        self._calls = Calls(settings.tokens(), settings.timeout_seconds)
        self._storage = CloudStorage(settings.storage, self._calls, project=settings.project)
        self._results: dict[str, tuple[_Part, ...]] = {}
        self._doubted: set[str] = set()
        self._tables: Tables | None = None

    @property
    def identity(self) -> ServiceIdentity:
        return self._settings.identity

    @property
    def tables(self) -> Tables:
        """The tables of BigQuery, which ``bq://`` names are of."""
        if self._tables is None:
            from airflow_provider_geminibatch.gemini.bigquery import Tables

            bearer = Bearer(self._calls.tokens, "BigQuery")
            self._tables = Tables(self._settings.bigquery, bearer, self._settings.timeout_seconds)
        return self._tables

    def close(self) -> None:
        if self._tables is not None:
            self._tables.close()
        self._storage.close()
        self._calls.close()

    # Files

    def upload(self, source: BinaryIO, *, size_bytes: int, display_name: str, mime_type: str = "") -> UploadedFile:
        staging = self._staging()
        folder = f"{_MEDIA}/{display_name}" if mime_type else display_name
        suffix = "" if mime_type else ".jsonl"
        for number in count(1):
            place = Place(staging.bucket, f"{staging.name}{folder}/{number:04d}{suffix}")
            # What is there shows before its bytes are sent for nothing. A medium is named by its content, and kept.
            if (standing := self._storage.get(place)) is not None:
                if mime_type and self._storage.is_equal(standing, source, size_bytes):
                    return self._shown(standing)
                source.seek(0)
                continue
            stored = self._storage.create(place, source, size_bytes=size_bytes, content_type=mime_type or JSONL_MIME)
            if stored is not None:
                return self._shown(stored)
            source.seek(0)
        raise AssertionError("count does not end")

    def _staging(self) -> Place:
        """The folder for files, its name with a slash at the end unless it is the whole bucket."""
        given = self._settings.staging.strip().rstrip("/")
        try:
            place = place_of(f"{given}/x")
        except ValueError:
            what = f"staging {given!r} of the connection" if given else "staging of the connection"
            why = (
                "it is not gs://bucket/folder"
                if given
                else "it is not set, so that there is no place for request files"
            )
            do = 'Write {"staging": "gs://your-bucket/geminibatch"} into its extra; the bucket has to exist.'
            raise Unusable(what, why, do) from None
        return Place(place.bucket, place.name.removesuffix("x"))

    def _shown(self, stored: StoredObject) -> UploadedFile:
        uri = str(stored.place)
        below = uri.removeprefix(f"{self._settings.staging.strip().rstrip('/')}/")
        named = _UPLOADED.fullmatch(below)
        return UploadedFile(
            name=uri, size_bytes=stored.size_bytes, seen_at=stored.seen_at, uri=uri, created_at=stored.created_at,
            display_name=(named[1] or named[2]) if named else "", state="ACTIVE",
        )  # fmt: skip

    def file(self, name: str) -> UploadedFile | None:
        if name.startswith(TABLE):
            return self.tables.file(name)
        if not name.startswith("gs://"):
            return None  # a file of the Developer API, which there are none of here
        stored = self._storage.get(_place(name))
        return None if stored is None else self._shown(stored)

    def file_page(self, page_token: str = "") -> FilePage:
        page = self._storage.list(self._staging(), page_token)
        return FilePage(tuple(map(self._shown, page.objects)), page.next_token)

    def delete_file(self, name: str) -> bool:
        if name.startswith(TABLE):
            return self.tables.delete_file(name)
        if not name.startswith("gs://"):
            return False
        return self._storage.delete(_place(name))

    @contextmanager
    def download(self, file_name: str, offset: int = 0) -> Iterator[Download]:
        if file_name.startswith(TABLE):
            with self.tables.download(file_name, offset) as rows:
                yield rows
            return
        doing = f"download of {file_name}"
        parts = self._pinned(file_name, offset, doing)
        if offset > (size := sum(part.size_bytes for part in parts)):
            raise ServiceError(doing, 416, f"byte {offset} is outside the {size} bytes of the results")
        try:
            yield _Joined(self._storage, parts, offset, doing)
        except ServiceError as error:
            if error.code is not None:
                # Another generation may stand there now.
                self._doubted.add(file_name)
            raise

    def _pinned(self, folder: str, offset: int, doing: str) -> tuple[_Part, ...]:
        """The results as they stand; where a stream goes on, as they stood at its beginning. Raises ResultsBroken for others."""
        before = self._results.get(folder)
        if offset and before is not None and folder not in self._doubted:
            return before
        parts = self._parts(folder, doing)
        if offset and before is not None and _as_read(parts) != _as_read(before):
            raise ResultsBroken(folder, "other results lie there than those that a part was read of")
        self._results[folder] = parts
        self._doubted.discard(folder)
        return parts

    def _parts(self, folder: str, doing: str) -> tuple[_Part, ...]:
        """The results in a job's output folder, in the order of their names. Raises the 404 of a folder without any."""
        found = self._objects(folder)
        if not found:
            raise ServiceError(doing, 404, f"{folder} holds no predictions.jsonl")
        whole = [stored for stored in found if stored.size_bytes]
        # Lines end with a newline, also where one object ends without and the next begins.
        open_ends = [self._is_open(stored, doing) for stored in whole[:-1]] + [False] * bool(whole)
        return tuple(_Part(stored, ended) for stored, ended in zip(whole, open_ends, strict=True)) or (
            _Part(found[0], False),
        )

    def _objects(self, folder: str) -> list[StoredObject]:
        place = _place(f"{folder.rstrip('/')}/")
        return [
            stored
            for stored in self._storage.all(place)
            if _RESULTS.fullmatch(stored.place.name.removeprefix(place.name))
        ]

    def _is_open(self, stored: StoredObject, doing: str) -> bool:
        last = b"".join(self._storage.read(stored, stored.size_bytes - 1, doing))
        return last != b"\n"

    # Jobs

    def create(
        self,
        *,
        model: str,
        file_name: str,
        display_name: str,
        kind: str = "generate",
        labels: Mapping[str, str] = NO_LABELS,
    ) -> CreateReply:
        settings, doing = self._settings, f"create of {display_name}"
        body = vertex_wire.create_body(
            model=model, file_name=file_name, display_name=display_name, labels=labels, kms_key=settings.kms_key
        )
        try:
            headers = self._calls.tokens.headers(doing)
        except KeyRefused as error:
            return Refused(401, error.text)
        except ServiceBusy as error:
            return Refused(0, f"not sent: {error.text}")
        try:
            url = f"{settings.base}/{settings.parent}/batchPredictionJobs"
            answer = self._calls.http.post(url, json=body, headers=headers)
        except NEVER_SENT as error:
            return Refused(0, f"not sent: {named(error)}")
        except httpx.HTTPError as error:
            return Ambiguous(named(error))
        return vertex_wire.create_reply(reply_of(answer), settings.location)

    def job(self, job_name: str) -> JobSnapshot:
        doing = f"look at {job_name}"
        seen = _job(job_name, self._calls.send("GET", _job_url(self._settings, job_name), doing))
        if seen.output_file.startswith("gs://") and seen.ended and not state_row(seen.state).succeeded:
            # Whether a job that ended badly leaves results, or only the dump of a running one, is not documented: it is looked for.
            return seen if self._has_results(seen.output_file) else msgspec.structs.replace(seen, output_file="")
        return seen

    def _has_results(self, folder: str) -> bool:
        try:
            return bool(self._objects(folder))
        except ServiceError as error:
            if error.code == 404:
                return False
            raise

    def jobs(self, page_token: str = "", display_name: str = "") -> JobPage:
        query = {**page_query(page_token), **vertex_wire.name_filter(display_name)}
        doing = "list of jobs"
        return _page(self._calls.send("GET", _jobs_url(self._settings), doing, params=query), self._settings)

    def cancel(self, job_name: str) -> None:
        doing = f"cancel of {job_name}"
        reply = self._calls.send("POST", f"{_job_url(self._settings, job_name)}:cancel", doing)
        error = (reply.json() or {}).get("error")
        # Harmless on a job that has ended, whatever the service says to it.
        if reply.status == 400 and isinstance(error, dict) and error.get("status") == "FAILED_PRECONDITION":
            return
        self._ok(reply, doing)

    # Interactive calls and models

    def generate(self, model: str, request: Mapping[str, Any], *, tier: Tier, timeout_seconds: float) -> GenerateReply:
        doing = f"generateContent of {model}"
        url = f"{self._model_url(model)}:generateContent"
        try:
            headers = self._calls.tokens.headers(doing)
        except ServiceBusy as error:
            return GenerateReply(error={"code": 503, "message": f"not sent: {error.text}"}, sent=False)
        # A connection is made in the usual time; the answer may take as long as was asked for.
        timeout = httpx.Timeout(timeout_seconds, connect=min(timeout_seconds, self._settings.timeout_seconds))
        headers |= vertex_wire.tier_headers(tier)
        body = vertex_wire.generate_body(request)
        answer = ask_once(self._calls.http, url, json=body, timeout=timeout, headers=headers)
        if isinstance(answer, GenerateReply):
            return answer
        return vertex_wire.generate_reply(doing, answer, self._settings.location)

    def count_tokens(self, model: str, request: Mapping[str, Any]) -> TokenCount:
        doing = f"countTokens of {model}"
        url = f"{self._model_url(model)}:countTokens"
        reply = self._calls.send("POST", url, doing, json=vertex_wire.count_body(request))
        return token_count(doing, self._ok(reply, doing))

    def _model_url(self, model: str) -> str:
        path = vertex_wire.model_path(model)
        own = path.startswith("projects/")
        return f"{self._settings.base}/{path if own else f'{self._settings.parent}/{path}'}"

    def model(self, name: str) -> ModelInfo:
        doing, path = f"model {name!r}", vertex_wire.model_path(name)
        self._check_place(name, doing)
        reply = self._calls.send("GET", f"{self._settings.base}/{path}", doing)
        if reply.status == 403:
            # Who may run batches need not be allowed to look at models.
            return vertex_wire.known_model(name)
        if reply.status == 404:
            text = f"{error_text(reply)} {vertex_wire.elsewhere(self._settings.location)}"
            raise ModelUnknown(doing, 404, text)
        self._ok(reply, doing)
        return vertex_wire.model_info(reply.json() or {}) if not path.startswith("projects/") else ModelInfo(name)

    def _check_place(self, model: str, doing: str) -> None:
        """Tuned models and endpoints run where they are, and never at global (batch guide of Vertex AI)."""
        place, here = vertex_wire.tuned_place(model), self._settings.location
        if place is not None and (place != here or here == vertex_wire.GLOBAL):
            other = f"Give the connection the location {place!r}." if place != vertex_wire.GLOBAL else ""
            raise ModelUnknown(
                doing, 400, f"a tuned model runs in its own region, and this gateway is at {here}. {other}"
            )

    def models(self) -> tuple[ModelInfo, ...]:
        doing, found, token = "list of models", list[ModelInfo](), ""
        url = f"{self._settings.host(self._settings.location)}/{_LISTING}/publishers/google/models"
        while True:
            reply = self._ok(self._calls.send("GET", url, doing, params=page_query(token)), doing)
            page, following = vertex_wire.model_page(doing, reply)
            found += page
            if not following or following == token:
                return tuple(found)
            token = following

    def _ok(self, reply: Reply, doing: str) -> Reply:
        if reply.status != 200:
            raise vertex_wire.service_error(doing, reply, self._settings.location)
        return reply


class VertexWatcher:
    """``Watcher`` over Vertex AI, for one event loop. Tokens are fetched beside the loop."""

    def __init__(self, settings: VertexSettings) -> None:
        self._settings, self._tokens = settings, settings.tokens()
        self._http = httpx.AsyncClient(timeout=settings.timeout_seconds, follow_redirects=False)

    async def job(self, job_name: str) -> JobSnapshot:
        return _job(job_name, await self._get(_job_url(self._settings, job_name), f"look at {job_name}"))

    async def jobs(self, page_token: str = "") -> JobPage:
        reply = await self._get(_jobs_url(self._settings), "list of jobs", params=page_query(page_token))
        return _page(reply, self._settings)

    async def close(self) -> None:
        await self._http.aclose()

    async def _get(self, url: str, doing: str, **more: Any) -> Reply:
        bearer = self._tokens.standing()
        if bearer is None:
            bearer = await asyncio.to_thread(self._tokens.headers, doing)
        reply = await self._answered(url, doing, bearer, **more)
        other = await asyncio.to_thread(self._tokens.renew, doing, bearer) if reply.status == 401 else None
        return await self._answered(url, doing, other, **more) if other else reply

    async def _answered(self, url: str, doing: str, bearer: dict[str, str], **more: Any) -> Reply:
        with out_of_reach(doing):
            return reply_of(await self._http.get(url, headers=bearer, **more))


@dataclass(frozen=True)
class _Part:
    """One object of the results; ``open_end`` when a newline is missing between it and the next."""

    stored: StoredObject
    open_end: bool

    @property
    def size_bytes(self) -> int:
        return self.stored.size_bytes + self.open_end


def _as_read(parts: tuple[_Part, ...]) -> list[tuple[Place, int, bool]]:
    return [(part.stored.place, part.stored.generation, part.open_end) for part in parts]


class _Joined:
    """``Download`` over the objects of an output folder, as if they were one."""

    def __init__(self, storage: CloudStorage, parts: tuple[_Part, ...], offset: int, doing: str) -> None:
        self._storage, self._parts, self._doing = storage, parts, doing
        self.offset = offset
        self.size_bytes: int | None = sum(part.size_bytes for part in parts)

    def chunks(self) -> Iterator[bytes]:
        skip = self.offset
        for part in self._parts:
            if skip < part.stored.size_bytes:
                yield from self._storage.read(part.stored, skip, self._doing)
            if part.open_end and skip < part.size_bytes:
                yield b"\n"
            skip = max(0, skip - part.size_bytes)


def _place(name: str) -> Place:
    try:
        return place_of(name)
    except ValueError as error:
        raise ServiceError(f"look at {name}", None, str(error)) from None


def _job_url(settings: VertexSettings, name: str) -> str:
    """Where a job is asked for: at the location in its own name."""
    found = vertex_wire.job_name(name)
    if found is None:
        raise JobUnreachable(
            name, None, "that is not the name of a job of Vertex AI; was it made by another connection?"
        )
    return f"{settings.host(found.location)}/{settings.api_version}/{name}"


def _jobs_url(settings: VertexSettings) -> str:
    return f"{settings.base}/{settings.parent}/batchPredictionJobs"


def _job(job_name: str, reply: Reply) -> JobSnapshot:
    if reply.status in (403, 404):
        raise JobUnreachable(job_name, reply.status, error_text(reply))
    location = (found := vertex_wire.job_name(job_name)) and found.location
    if reply.status != 200:
        raise vertex_wire.service_error(f"look at {job_name}", reply, location or "")
    body = reply.json()
    if body is None:
        raise ServiceBusy(f"look at {job_name}", reply.status, "a reply that is not JSON")
    return vertex_wire.job_snapshot(body)


def _page(reply: Reply, settings: VertexSettings) -> JobPage:
    if reply.status != 200:
        raise vertex_wire.service_error("list of jobs", reply, settings.location)
    page = vertex_wire.job_page(reply)
    if page is None:
        raise ServiceBusy("list of jobs", reply.status, "a reply that is not a page")
    return page


__all__ = ["CredentialSource", "VertexGateway", "VertexSettings", "VertexWatcher", "is_local"]
