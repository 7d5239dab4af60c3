"""A caller of the emulated Vertex AI, with the buckets that its jobs read and write."""

import json
from dataclasses import dataclass
from typing import Any

from airflow_provider_geminibatch.emulator import Emulator
from airflow_provider_geminibatch.emulator.wire import Reply, Request

FLASH = "gemini-3.8-flash"


@dataclass
class VertexApi:
    """Calls as a client of one token, project and location would."""

    emulator: Emulator
    project: str = "my-project"
    location: str = "us-central1"
    version: str = "v1beta1"
    token: str = "a-token"

    @property
    def parent(self) -> str:
        return f"projects/{self.project}/locations/{self.location}"

    def call(
        self, method: str, path: str, body: Any = None, query: dict[str, str] | None = None, **headers: str
    ) -> Reply:
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        token = {"authorization": f"Bearer {self.token}"} if self.token else {}
        every = {"host": "testserver", **token, **named}
        return self.emulator.handle(Request(method, f"/{self.version}/{path}", query or {}, every, raw))

    def put(self, content: str | bytes, uri: str = "gs://bucket/in/rows.jsonl") -> str:
        bucket, _, name = uri.removeprefix("gs://").partition("/")
        blob = self.emulator.buckets.new_blob()
        blob.append(content.encode() if isinstance(content, str) else content)
        self.emulator.buckets.put(bucket, name, blob)
        return uri

    def body(self, uri: str = "gs://bucket/in/rows.jsonl", **fields: Any) -> dict[str, Any]:
        return {
            "displayName": "nightly",
            "model": f"publishers/google/models/{FLASH}",
            "inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": [uri]}},
            "outputConfig": {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": "gs://bucket/out"}},
            **fields,
        }

    def post(self, body: Any) -> Reply:
        return self.call("POST", f"{self.parent}/batchPredictionJobs", body)

    def create(self, *rows: str, **fields: Any) -> dict[str, Any]:
        """A job of those rows, as the create shows it."""
        self.put("".join(f"{row}\n" for row in rows))
        reply = self.post(self.body(**fields))
        assert reply.status == 200, reply.body
        job: dict[str, Any] = reply.body
        return job

    def get(self, name: str) -> dict[str, Any]:
        reply = self.call("GET", name)
        assert reply.status == 200, reply.body
        job: dict[str, Any] = reply.body
        return job

    def jobs(self, **query: str) -> dict[str, Any]:
        reply = self.call("GET", f"{self.parent}/batchPredictionJobs", query=query)
        assert reply.status == 200, reply.body
        page: dict[str, Any] = reply.body
        return page

    def listed(self, text: str) -> list[str]:
        """The display names of the jobs that a filter selects."""
        return [job["displayName"] for job in self.jobs(filter=text).get("batchPredictionJobs", ())]

    def objects(self, uri: str) -> dict[str, bytes]:
        """The objects under a gs:// URI, by what comes after it."""
        bucket, _, prefix = uri.removeprefix("gs://").partition("/")
        found = self.emulator.buckets.list(bucket, prefix)
        return {stored.name.removeprefix(prefix).lstrip("/"): b"".join(stored.blob.blocks()) for stored in found}

    def results(self, job: dict[str, Any], hours: float = 24) -> list[dict[str, Any]]:
        """The lines that a job left, after a day."""
        self.emulator.clock.advance(hours=hours)
        folder = self.objects(self.get(job["name"])["outputInfo"]["gcsOutputDirectory"])
        return [json.loads(each) for each in folder["predictions.jsonl"].splitlines()]

    def by_key(self, job: dict[str, Any]) -> dict[str, dict[str, Any]]:
        return {line["key"]: line for line in self.results(job)}
