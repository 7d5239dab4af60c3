"""A stepped emulator and a caller that speaks to it without a socket."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_geminibatch.emulator import Emulator, Server, running
from airflow_provider_geminibatch.emulator.wire import Reply, Request
from tests.emulator.vertex_api import VertexApi

START = datetime(2026, 11, 1, 6, 0, tzinfo=UTC)
FLASH = "gemini-3.8-flash"


def line(key: str, text: str, **config: Any) -> str:
    request: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": text}]}]}
    if config:
        request["generationConfig"] = config
    return json.dumps({"key": key, "request": request}, ensure_ascii=False)


@dataclass
class Api:
    """Calls an emulator as a client of one key would."""

    emulator: Emulator
    key: str = "a-key"
    version: str = "v1"

    def call(
        self, method: str, path: str, body: Any = None, query: dict[str, str] | None = None, **headers: str
    ) -> Reply:
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        every = {"host": "testserver", "x-goog-api-key": self.key, **named}
        return self.emulator.handle(Request(method, path, query or {}, every, raw))

    def get(self, path: str, **query: str) -> Any:
        return self.call("GET", f"/{self.version}/{path}", query=query).body

    def upload(self, content: str | bytes, **file: str) -> str:
        raw = content.encode() if isinstance(content, str) else content
        reply = self.finalise(raw, **file)
        assert reply.status == 200, reply.body
        return reply.body["file"]["name"]

    def finalise(self, raw: bytes, **file: str) -> Reply:
        start = {"file": {"mimeType": "jsonl", "sizeBytes": str(len(raw)), **file}}
        session = self.call("POST", f"/upload/{self.version}/files", start)
        if session.status != 200:
            return session
        path, upload_id = split(session.headers["x-goog-upload-url"])
        headers = {"x-goog-upload-command": "upload, finalize", "x-goog-upload-offset": "0"}
        return self.call("POST", path, raw, {"upload_id": upload_id}, **headers)

    def create(
        self, *rows: str, name: str = "nightly", model: str = FLASH, method: str = "batchGenerateContent"
    ) -> Reply:
        file = self.upload("\n".join(rows or (line("k0", "hello"),)) + "\n")
        return self.create_from({"fileName": file}, name=name, model=model, method=method)

    def create_from(
        self, source: Any, *, name: str = "", model: str = FLASH, method: str = "batchGenerateContent"
    ) -> Reply:
        body = {"batch": {"displayName": name, "inputConfig": source}}
        return self.call("POST", f"/{self.version}/models/{model}:{method}", body)

    def results(self, job_name: str) -> list[dict[str, Any]]:
        """The lines of a job's output, after a day."""
        self.emulator.clock.advance(hours=24)
        return self.lines(job_name)

    def lines(self, job_name: str) -> list[dict[str, Any]]:
        return [json.loads(each) for each in self.download(job_name).splitlines()]

    def download(self, job_name: str) -> bytes:
        file_id = "batch-" + job_name.removeprefix("batches/")
        reply = self.call("GET", f"/{self.version}/files/{file_id}:download", query={"alt": "media"})
        assert reply.status == 200, reply.body
        return b"".join(reply.stream or ())


def split(upload_url: str) -> tuple[str, str]:
    """The path and the session of an upload URL."""
    path, _, query = upload_url.partition("?")
    return path.removeprefix("http://testserver"), query.split("&")[0].removeprefix("upload_id=")


@pytest.fixture
def emulator() -> Emulator:
    return Emulator(seed=7, start=START, speed=0)


@pytest.fixture
def api(emulator: Emulator) -> Api:
    return Api(emulator)


@pytest.fixture
def vertex(emulator: Emulator) -> VertexApi:
    return VertexApi(emulator)


@pytest.fixture
def server(emulator: Emulator) -> Iterator[Server]:
    with running(emulator) as running_server:
        yield running_server


@pytest.fixture
def make_line() -> Any:
    return line
