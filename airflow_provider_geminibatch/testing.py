"""Fakes for your own tests: a service in memory behind the package's gateway, and a clock you turn by hand.

    clock = ManualClock()
    service = InMemoryGateway(clock)
    ...submit through it...
    clock.advance(timedelta(hours=3))       # jobs end ``turnaround`` after they were created
    assert len(service.created) == 1

The fake keeps state instead of canned replies: files, jobs, results. It knows no misbehaviour except a lost reply to a
create; for the rest there is the emulator (``geminibatch emulator``), which speaks the real wire.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from random import Random
from threading import Lock
from typing import Any, BinaryIO

import msgspec

from airflow_provider_geminibatch.core.capabilities import BUILT_IN, METHODS, ModelInfo
from airflow_provider_geminibatch.core.errors import JobUnreachable, ModelUnknown, ServiceError
from airflow_provider_geminibatch.core.model import JobCounts, JobSnapshot, ServiceIdentity
from airflow_provider_geminibatch.core.vectors import asked_dimensions
from airflow_provider_geminibatch.gemini.gateway import (
    NO_LABELS,
    Ambiguous,
    Created,
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

FILE_LIFE = timedelta(hours=48)
_BY_ROW = {"generate": "generateContent", "embed": "embedContent"}


class ManualClock:
    """A clock that stands until it is advanced."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = start

    def __call__(self) -> datetime:
        return self._now

    def advance(self, by: timedelta) -> None:
        self._now += by

    def advance_to(self, moment: datetime) -> None:
        """Move on to ``moment``; never back."""
        self._now = max(self._now, moment)


def echo(request: Mapping[str, Any]) -> dict[str, Any]:
    """The default answer: the text of the request, as the model's; for an embed request a vector that is its own."""
    text = _text(request)
    tokens = _tokens(text)
    if "content" in request:
        values = Random(text).choices(range(-8, 9), k=asked_dimensions(request) or 3072)  # noqa: S311 - made up
        return {"embedding": {"values": [value / 8 for value in values]}, "tokenCount": str(tokens)}
    return {
        "candidates": [{"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP"}],
        "usageMetadata": {
            "promptTokenCount": tokens,
            "candidatesTokenCount": tokens,
            "totalTokenCount": 2 * tokens,
        },
        "modelVersion": "in-memory",
    }


def _text(request: Mapping[str, Any]) -> str:
    turns = [request["content"]] if "content" in request else request.get("contents", ())
    return " ".join(part.get("text", "") for content in turns for part in content.get("parts", ()))


def _tokens(text: str) -> int:
    return len(text) // 4 + 1


class InMemoryGateway:
    """``Gateway`` over a dictionary.

    ``created`` lists every job that was ever made, as the bill would, and ``generated`` every interactive call.
    """

    def __init__(
        self,
        clock: Callable[[], datetime],
        *,
        turnaround: timedelta = timedelta(hours=1),
        answer: Callable[[Mapping[str, Any]], dict[str, Any]] = echo,
        models: tuple[str, ...] = ("gemini-3.8-flash", "gemini-embedding-2"),
        project: str = "",
    ) -> None:
        self._clock, self._turnaround, self._answer, self._models = clock, turnaround, answer, models
        self.identity = ServiceIdentity("memory", "memory://service", project)
        self.files: dict[str, tuple[bytes, datetime]] = {}
        self._uploading = Lock()
        self.file_names: dict[str, str] = {}
        self.processing = timedelta(0)
        """How long a video is being processed after its upload."""
        self.ready_at: dict[str, datetime] = {}
        self.created: list[JobSnapshot] = []
        self._cancelled: dict[str, datetime] = {}
        self._lines: dict[str, list[bytes]] = {}
        self.generated: list[tuple[str, Tier]] = []
        self.counted = 0
        self.replies_to_lose = 0

    def close(self) -> None:
        """Nothing to close."""

    def upload(self, source: BinaryIO, *, size_bytes: int, display_name: str, mime_type: str = "") -> UploadedFile:
        data = source.read()
        with self._uploading:  # media come from several threads, and each file has a name of its own
            name = f"files/f{len(self.files):06d}"
            self.files[name] = (data, self._clock() + FILE_LIFE)
        self.file_names[name] = display_name
        if mime_type.startswith("video/"):
            self.ready_at[name] = self._clock() + self.processing
        return self._shown(name)

    def file(self, name: str) -> UploadedFile | None:
        _, expires_at = self.files.get(name, (b"", self._clock()))
        return self._shown(name) if expires_at > self._clock() else None

    def _shown(self, name: str) -> UploadedFile:
        data, expires_at = self.files[name]
        ready = self.ready_at.get(name, self._clock()) <= self._clock()
        return UploadedFile(
            name=name, size_bytes=len(data), expires_at=expires_at, seen_at=self._clock(), uri=f"memory://service/{name}",
            display_name=self.file_names.get(name, ""), state="ACTIVE" if ready else "PROCESSING",
        )  # fmt: skip

    def file_page(self, page_token: str = "") -> FilePage:
        return FilePage(tuple(file for file in map(self.file, tuple(self.files)) if file is not None))

    def delete_file(self, name: str) -> bool:
        shown = self.file(name) is not None
        self.files.pop(name, None)
        # A number is never used twice, so that a deleted file cannot come back as another one.
        self.files.setdefault(f"{name}-deleted", (b"", self._clock()))
        return shown

    def create(
        self,
        *,
        model: str,
        file_name: str,
        display_name: str,
        kind: str = "generate",
        labels: Mapping[str, str] = NO_LABELS,
    ) -> CreateReply:
        method = METHODS[kind]
        if model not in self._models or method not in self.model(model).methods:
            return Refused(404, f"models/{model} is not found, or is not supported for {method}")
        if self.file(file_name) is None:
            return Refused(403, f"You do not have permission to access the File {file_name} or it may not exist.")
        rows = [msgspec.json.decode(line) for line in self.files[file_name][0].splitlines()]
        job = JobSnapshot(
            name=f"batches/{len(self.created):06d}", state="PENDING", display_name=display_name, model=model,
            input_file=file_name, created_at=self._clock(), counts=JobCounts(total=len(rows), pending=len(rows)),
        )  # fmt: skip
        self._lines[job.name] = [
            msgspec.json.encode({"key": row["key"], "response": self._answer(row["request"])}) for row in rows
        ]
        self.created.append(job)
        if self.replies_to_lose:
            self.replies_to_lose -= 1
            return Ambiguous("the reply was lost")
        return Created(job, self._clock())

    def job(self, job_name: str) -> JobSnapshot:
        for job in self.created:
            if job.name == job_name:
                return self._now(job)
        raise JobUnreachable(job_name, 404, "not found")

    def jobs(self, page_token: str = "", display_name: str = "") -> JobPage:
        return JobPage(tuple(self._now(job) for job in reversed(self.created)), "", self._clock())

    def _now(self, job: JobSnapshot) -> JobSnapshot:
        assert job.created_at is not None
        ends_at = job.created_at + self._turnaround
        cancelled_at = self._cancelled.get(job.name)
        total = job.counts.total
        if cancelled_at is not None:
            return msgspec.structs.replace(job, state="CANCELLED", ended_at=cancelled_at, error_code=1)
        if self._clock() < ends_at:
            return job
        return msgspec.structs.replace(
            job, state="SUCCEEDED", ended_at=ends_at, output_file=f"files/batch-{job.name.removeprefix('batches/')}",
            counts=JobCounts(total=total, succeeded=total),
        )  # fmt: skip

    def cancel(self, job_name: str) -> None:
        if not self.job(job_name).ended:
            self._cancelled[job_name] = self._clock()

    @contextmanager
    def download(self, file_name: str, offset: int = 0) -> Iterator[Download]:
        job = self.job("batches/" + file_name.removeprefix("files/batch-"))
        if not job.output_file:
            raise ServiceError(f"download of {file_name}", 404, "not found")
        yield _Stream(b"".join(line + b"\n" for line in self._lines[job.name]), offset)

    def generate(self, model: str, request: Mapping[str, Any], *, tier: Tier, timeout_seconds: float) -> GenerateReply:
        self.model(model)
        self.generated.append((model, tier))
        return GenerateReply(response=self._answer(request), code=200, tier=tier)

    def count_tokens(self, model: str, request: Mapping[str, Any]) -> TokenCount:
        self.model(model)
        self.counted += 1
        return TokenCount(total=_tokens(_text(request)))

    def model(self, name: str) -> ModelInfo:
        if name not in self._models:
            raise ModelUnknown(f"model {name!r}", 404, f"models/{name} is not found.")
        # As the table of models has it; a model of your own making generates.
        kinds = BUILT_IN.kinds_of(name) or ("generate",)
        return ModelInfo(name, (*(_BY_ROW[kind] for kind in kinds), *(METHODS[kind] for kind in kinds)))

    def models(self) -> tuple[ModelInfo, ...]:
        return tuple(self.model(name) for name in self._models)


class _Stream:
    def __init__(self, data: bytes, offset: int) -> None:
        self._data, self.offset, self.size_bytes = data, offset, len(data)

    def chunks(self) -> Iterator[bytes]:
        yield self._data[self.offset :]
