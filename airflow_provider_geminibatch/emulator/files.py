"""The Files API: resumable uploads, files and their 48 hours, and the bytes of generated ones."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path

from airflow_provider_geminibatch.emulator.blobs import Blob
from airflow_provider_geminibatch.emulator.catalog import Limits
from airflow_provider_geminibatch.emulator.clock import timestamp
from airflow_provider_geminibatch.emulator.names import Names, next_page
from airflow_provider_geminibatch.emulator.parsing import check_body, field
from airflow_provider_geminibatch.emulator.ranges import byte_range
from airflow_provider_geminibatch.emulator.switches import Scenarios
from airflow_provider_geminibatch.emulator.wire import Call, Json, Reply, over_storage, refused

FILE_LIFE = timedelta(hours=48)
# How long results can be downloaded (batch guide).
RESULT_LIFE = timedelta(weeks=6)
_FILE_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file of a project. `number` is its place in lists, `made_by` the job of a generated file.

    The service works on it for `works`, and then has a `fault` with it or none.
    """

    id: str
    number: int
    project: str
    display_name: str
    mime_type: str
    created: datetime
    blob: Blob
    made_by: str = ""
    works: timedelta = timedelta(0)
    fault: str = ""

    def state(self, now: datetime) -> str:
        """Whether the service has finished with it. Only media are worked on, and only where a scenario says so."""
        if now < self.created + self.works:
            return "PROCESSING"
        return "FAILED" if self.fault else "ACTIVE"

    @property
    def name(self) -> str:
        """The resource name."""
        return f"files/{self.id}"

    @property
    def expires(self) -> datetime:
        """When the service deletes it."""
        return self.created + (RESULT_LIFE if self.made_by else FILE_LIFE)

    def resource(self, base_url: str, now: datetime) -> Json:
        """The file as the wire shows it, with its URIs under `base_url` (host and version)."""
        uri = f"{base_url}/{self.name}"
        return {
            "name": self.name,
            **({"displayName": self.display_name} if self.display_name else {}),
            "mimeType": self.mime_type,
            "sizeBytes": str(self.blob.size),
            "createTime": timestamp(self.created),
            "updateTime": timestamp(self.created),
            "expirationTime": timestamp(self.expires),
            # The digest's hexadecimal form in base64; which form the service uses is assumed.
            "sha256Hash": base64.b64encode(self.blob.sha256.hex().encode()).decode(),
            "uri": uri,
            "state": self.state(now),
            "source": "GENERATED" if self.made_by else "UPLOADED",
            **({"downloadUri": f"{uri}:download?alt=media"} if self.made_by else {}),
            # That a failed file says why in a google.rpc status is documented, its text is assumed.
            **({"error": {"code": 3, "message": self.fault}} if self.state(now) == "FAILED" else {}),
        }


@dataclass(frozen=True, slots=True)
class _Upload:
    """An upload under way: what the start asked for, and what has arrived."""

    project: str
    id: str
    display_name: str
    mime_type: str
    blob: Blob


class Files:
    """The files of all projects, and the endpoints on them.

    `generated` yields the result files that a project has at a time, or the one of an id.
    """

    def __init__(
        self,
        names: Names,
        scenarios: Scenarios,
        limits: Limits,
        folder: Path | None,
        generated: Callable[[str, datetime, str], Iterable[StoredFile]],
    ) -> None:
        self._names, self._scenarios, self._limits, self._folder = names, scenarios, limits, folder
        self._generated = generated
        self._uploads: dict[str, _Upload] = {}
        self._files: dict[str, StoredFile] = {}
        self._deleted: dict[str, tuple[StoredFile, datetime]] = {}

    def start(self, call: Call) -> Reply:
        """files.start: open an upload session, whose absolute URL is on the host that the client called."""
        body = call.request.json()
        check_body(body, "FileStart")
        file, headers = field(body, "file", {}), call.request.headers
        size = int(headers.get("x-goog-upload-header-content-length") or field(file, "sizeBytes", 0))
        self._check_size(size)
        if size + sum(stored.blob.size for stored in self._alive(call)) > self._limits.storage_bytes:
            raise over_storage()
        mime = headers.get("x-goog-upload-header-content-type") or field(file, "mimeType", "application/octet-stream")
        upload_id = self._names.make("upload", 48)
        self._uploads[upload_id] = _Upload(
            call.project,
            self._new_id(call, field(file, "name", "")),
            field(file, "displayName", ""),
            mime,
            Blob(self._folder),
        )
        url = f"{base_url(call, 'upload/')}/files?upload_id={upload_id}&upload_protocol=resumable"
        return Reply(headers={"x-goog-upload-url": url, "x-goog-upload-status": "active"})

    def chunk(self, call: Call) -> Reply:
        """files.chunk: take a chunk, tell how much there is, or finalise. The session is authorised by its URL."""
        upload = self._uploads.get(call.params["upload_id"])
        if upload is None:
            raise refused("no_upload")
        commands = {command.strip() for command in call.request.headers.get("x-goog-upload-command", "").split(",")}
        headers = {"x-goog-upload-status": "active", "x-goog-upload-size-received": str(upload.blob.size)}
        if "cancel" in commands:
            del self._uploads[call.params["upload_id"]]
            return Reply(headers={"x-goog-upload-status": "cancelled"})
        if "upload" in commands:
            offset = int(call.request.headers.get("x-goog-upload-offset", upload.blob.size))
            if offset != upload.blob.size:
                raise refused("bad_offset", got=offset, have=upload.blob.size)
            self._check_size(offset + len(call.request.body))
            upload.blob.append(call.request.body)
            headers["x-goog-upload-size-received"] = str(upload.blob.size)
        if "finalize" not in commands:
            return Reply(headers=headers)
        return self._finalised(call, upload)

    def _finalised(self, call: Call, upload: _Upload) -> Reply:
        del self._uploads[call.params["upload_id"]]
        final = {"x-goog-upload-status": "final"}
        if self._scenarios.happens("mime_refused", lambda params: fnmatchcase(upload.mime_type, params["mime"])):
            return replace(refused("bad_mime", mime=upload.mime_type).reply, headers=final)
        slow = self._scenarios.happens("slow_media", lambda params: fnmatchcase(upload.mime_type, params["mime"]))
        failed = self._scenarios.happens("failed_media", lambda params: fnmatchcase(upload.mime_type, params["mime"]))
        stored = StoredFile(
            upload.id,
            self._names.number(),
            upload.project,
            upload.display_name,
            upload.mime_type,
            call.now,
            upload.blob,
            works=timedelta(minutes=slow["minutes"]) if slow else timedelta(0),
            fault=failed["message"] if failed else "",
        )
        self._files[stored.id] = stored
        return Reply(body={"file": stored.resource(base_url(call), call.now)}, headers=final)

    def get(self, call: Call) -> Reply:
        """files.get."""
        return Reply(body=self._found(call).resource(base_url(call), call.now))

    def list_(self, call: Call) -> Reply:
        """files.list: oldest first (assumed), ten to a page unless asked (assumed)."""
        size, token = call.page(10)
        page, following = next_page([(stored.number, stored) for stored in self._alive(call)], size, token)
        body: Json = {"files": [stored.resource(base_url(call), call.now) for stored in page]} if page else {}
        return Reply(body={**body, **({"nextPageToken": following} if following else {})})

    def delete(self, call: Call) -> Reply:
        """files.delete, which refuses the 42 characters of a result file's id (as reported)."""
        if len(call.params["id"]) > 40:
            raise refused("long_file_id", call="Delete")
        stored = self._found(call)
        del self._files[stored.id]
        self._deleted[stored.id] = (stored, call.now)
        return Reply(body={})

    def download(self, call: Call) -> Reply:
        """files.download of a generated file, whole or by one Range (that Range works is assumed)."""
        stored = self._found(call)
        if not stored.made_by:
            raise refused("not_generated")
        wanted = call.request.headers.get("range", "")
        if wanted and self._scenarios.happens("download_without_ranges"):
            wanted = ""
        start, end = _range(wanted, stored.blob.size)
        cut = self._scenarios.happens("cut_download")
        sent = start + int((end - start) * cut["at"]) if cut else end
        whole = end - start == stored.blob.size
        return Reply(
            status=200 if whole else 206,
            headers={
                "content-type": stored.mime_type,
                "accept-ranges": "bytes",
                **({} if whole else {"content-range": f"bytes {start}-{end - 1}/{stored.blob.size}"}),
            },
            stream=stored.blob.blocks(start, sent),
            length=None if self._scenarios.happens("download_without_length") else end - start,
            cut=cut is not None,
        )

    def open_input(self, call: Call, name: str) -> Blob:
        """The bytes of a job's input file. Raises the 403 of a file that is gone, foreign, or never was."""
        stored = self._files.get(name.removeprefix("files/"))
        if stored is None or stored.project != call.project or stored.expires <= call.now:
            raise refused("no_file", file=name.removeprefix("files/"))
        return stored.blob

    def unusable(self, project: str, file_id: str, at: datetime) -> str:
        """What keeps a request from using a file at that time: `no_file`, `inactive_file`, or nothing."""
        stored, until = self._deleted.get(file_id, (None, at))
        if file_id in self._files:
            stored, until = self._files[file_id], self._files[file_id].expires
        if stored is None or stored.project != project or not stored.created <= at < min(until, stored.expires):
            return "no_file"
        return "" if stored.state(at) == "ACTIVE" else "inactive_file"

    def _found(self, call: Call) -> StoredFile:
        file_id = call.params["id"]
        uploaded = self._files.get(file_id)
        for stored in [uploaded] if uploaded else self._generated(call.project, call.now, file_id):
            if stored.project == call.project and stored.expires > call.now:
                return stored
        raise refused("no_file", file=file_id)

    def _alive(self, call: Call) -> list[StoredFile]:
        every = [*self._files.values(), *self._generated(call.project, call.now, "")]
        alive = [stored for stored in every if stored.project == call.project and stored.expires > call.now]
        return sorted(alive, key=lambda stored: stored.number)

    def _check_size(self, size: int) -> None:
        if size > self._limits.file_bytes:
            raise refused("big_file", size=size, limit=self._limits.file_bytes)

    def _new_id(self, call: Call, name: str) -> str:
        wanted = name.removeprefix("files/")
        if not wanted:
            return self._names.make("file", 12)
        if not _FILE_ID.fullmatch(wanted):
            raise refused("bad_file_name")
        taken = self._files.get(wanted)
        if taken is not None and taken.expires > call.now:
            raise refused("file_exists")
        return wanted


def base_url(call: Call, prefix: str = "") -> str:
    """Scheme, host and version as the client sees them, with what goes before the version."""
    return f"{call.request.origin}/{prefix}{call.version}"


def _range(header: str, size: int) -> tuple[int, int]:
    """Start and end (exclusive) of a Range header. Raises the 416 of one that asks for nothing there is."""
    span = byte_range(header, size)
    if span is None:
        refusal = refused("bad_range", size=size)
        refusal.headers["content-range"] = f"bytes */{size}"
        raise refusal
    return span


__all__ = ["FILE_LIFE", "RESULT_LIFE", "Files", "StoredFile", "base_url"]
