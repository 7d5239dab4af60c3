"""The wire as captured and documented (see docs/emulator.md for what is assumed): operations, lists, errors, refusals."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.errors import KeyRefused, ModelUnknown, ServiceBusy, ServiceError
from airflow_provider_geminibatch.core.model import JobCounts
from airflow_provider_geminibatch.gemini import replies, wire
from airflow_provider_geminibatch.gemini.gateway import Ambiguous, Created, Refused

PENDING = {
    "name": "batches/abc",
    "metadata": {
        "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch",
        "model": "models/gemini-3.8-flash",
        "displayName": "gb1-x",
        "inputConfig": {"fileName": "files/in"},
        "createTime": "2026-07-25T10:00:00.123456789Z",
        "updateTime": "2026-07-25T10:00:00.123456789Z",
        "batchStats": {"requestCount": "2", "pendingRequestCount": "2"},
        "state": "BATCH_STATE_PENDING",
        "name": "batches/abc",
    },
}


def succeeded(**output: Any) -> dict[str, Any]:
    ended = {"state": "BATCH_STATE_SUCCEEDED", "endTime": "2026-07-25T11:00:00Z"}
    return {
        **PENDING,
        "metadata": {**PENDING["metadata"], **ended, **output.pop("metadata", {})},
        "done": True,
        **output,
    }  # type: ignore[dict-item]


def reply(status: int, body: object, **headers: str) -> replies.Reply:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return replies.Reply(status, {"date": "Sat, 25 Jul 2026 10:00:05 GMT", **headers}, data)


def refusal(code: int, message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "status": "X", **more}}


def test_a_pending_operation_gives_what_the_sdk_drops() -> None:
    job = wire.job_snapshot(PENDING)

    assert (job.name, job.state, job.model, job.display_name) == ("batches/abc", "PENDING", "gemini-3.8-flash", "gb1-x")
    assert (job.input_file, job.counts) == ("files/in", JobCounts(total=2, pending=2))
    assert job.created_at == datetime(2026, 7, 25, 10, 0, 0, 123457, tzinfo=UTC)
    assert not job.ended


@pytest.mark.parametrize(
    "operation",
    [
        succeeded(metadata={"output": {"responsesFile": "files/batch-abc"}}),
        succeeded(response={"responsesFile": "files/batch-abc"}),
        succeeded(metadata={"output": {"other": 1}}, response={"responsesFile": "files/batch-abc"}),
    ],
)
def test_the_output_is_found_in_either_place(operation: dict[str, Any]) -> None:
    job = wire.job_snapshot(operation)

    assert (job.readable, job.output_file) == (True, "files/batch-abc")


def test_an_error_of_a_job_is_kept() -> None:
    job = wire.job_snapshot({**PENDING, "done": True, "error": {"code": 1, "message": "cancelled"}})

    assert (job.error_code, job.error_text) == (1, "cancelled")


names = st.sampled_from([*PENDING, *PENDING["metadata"], "error", "response"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from([*PENDING, "error", "response", "done"]), json_values))
def test_no_operation_however_odd_is_an_exception(operation: dict[str, Any]) -> None:
    assert isinstance(wire.job_snapshot(operation).ended, bool)


@pytest.mark.parametrize("code", sorted(replies.CERTAIN_REFUSALS))
def test_a_refusal_in_the_services_own_form_is_certain(code: int) -> None:
    assert wire.create_reply(reply(code, refusal(code, "no"))) == Refused(code, "no")


@pytest.mark.parametrize(
    "answer",
    [
        reply(200, b"<html>"),
        reply(200, {}),
        reply(200, {"name": "operations/1"}),
        reply(200, []),
        reply(204, b""),
        reply(302, b""),
        reply(408, refusal(408, "timeout")),
        reply(409, refusal(409, "exists")),
        reply(499, refusal(499, "closed")),
        reply(500, refusal(500, "internal")),
        reply(503, refusal(503, "overloaded")),
        reply(403, b"<html>a proxy said no</html>"),
        reply(429, b""),
        reply(404, {"message": "gateway"}),
    ],
    ids=lambda answer: f"{answer.status}-{answer.body[:12]!r}",
)
def test_everything_else_about_a_create_is_ambiguous(answer: replies.Reply) -> None:
    assert isinstance(wire.create_reply(answer), Ambiguous)


def test_a_created_job_carries_the_services_time() -> None:
    created = wire.create_reply(reply(200, PENDING))

    assert isinstance(created, Created)
    assert (created.job.name, created.at) == ("batches/abc", datetime(2026, 7, 25, 10, 0, 5, tzinfo=UTC))


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (reply(429, refusal(429, "q"), **{"retry-after": "30"}), 30.0),
        (reply(429, refusal(429, "q", details=[{"@type": "…RetryInfo", "retryDelay": "12.5s"}])), 12.5),
        (reply(429, refusal(429, "q", details=[{"retryDelay": "9223372036854775807s"}])), None),
        (reply(429, refusal(429, "q"), **{"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}), None),
        (reply(429, refusal(429, "q", details="odd")), None),
        (reply(429, b""), None),
    ],
)
def test_advice_to_wait_is_taken_only_when_it_is_one(answer: replies.Reply, seconds: float | None) -> None:
    assert replies.retry_after(answer) == seconds


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (reply(400, refusal(400, "API key not valid. Please pass a valid API key.")), KeyRefused),
        (reply(403, refusal(403, "Your API key was reported as leaked. Please use another API key.")), KeyRefused),
        (reply(401, refusal(401, "unauthenticated")), KeyRefused),
        (reply(404, refusal(404, "models/x is not found for API version v1beta")), ModelUnknown),
        (reply(429, refusal(429, "quota")), ServiceBusy),
        (reply(503, b"<html>"), ServiceBusy),
        (reply(418, refusal(418, "teapot")), ServiceError),
    ],
)
def test_an_error_is_told_by_its_code_and_its_known_texts(answer: replies.Reply, kind: type[ServiceError]) -> None:
    assert type(wire.service_error("look", answer)) is kind


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"<html>caf\xe9</html>", b'{"a":"caf\xe9"}', b'{"a":"\\ud800"}', b"[" * 5000, b'{"a":' * 5000]
)
def test_a_body_that_is_no_object_is_nothing_whatever_its_bytes_are(body: bytes) -> None:
    reply = replies.Reply(200, {}, body)
    assert reply.json() is None
    assert replies.error_text(reply)
    assert wire.generate_reply("generateContent", reply).lost


def test_an_unreadable_page_is_not_an_empty_one() -> None:
    assert wire.job_page(reply(200, b"nonsense")) is None
    assert wire.job_page(reply(200, {"operations": "odd"})) is None
    empty = wire.job_page(reply(200, {"nextPageToken": "t"}))
    assert empty is not None
    assert (empty.jobs, empty.next_token) == ((), "t")


def test_a_long_error_text_is_shortened() -> None:
    assert len(replies.error_text(reply(400, refusal(400, "x" * 5000)))) == 2000


def counted(**body: Any) -> replies.Reply:
    return replies.Reply(200, {}, json.dumps(body).encode())


def test_a_count_has_its_cached_part_and_its_modalities() -> None:
    reply = counted(
        totalTokens=1295, cachedContentTokenCount=1000, promptTokensDetails=[
            {"modality": "TEXT", "tokenCount": 1037}, {"modality": "IMAGE", "tokenCount": 258},
        ],
    )  # fmt: skip
    count = replies.token_count("count", reply)
    assert (count.total, count.cached) == (1295, 1000)
    assert count.modalities == (("TEXT", 1037), ("IMAGE", 258))


@pytest.mark.parametrize("body", [{}, {"totalTokens": 0}, {"totalTokens": "many"}, {"tokens": 5}])
def test_a_reply_without_a_count_is_an_error_and_never_zero(body: dict[str, Any]) -> None:
    with pytest.raises(ServiceError, match="without totalTokens"):
        replies.token_count("count", counted(**body))


def test_the_request_that_is_counted_names_the_model_that_is_asked() -> None:
    body = wire.count_body("gemini-a", {"contents": [], "model": "models/gemini-b"})
    assert body == {"generateContentRequest": {"contents": [], "model": "models/gemini-a"}}


@pytest.mark.parametrize(
    ("status", "headers", "found"),
    [
        (200, {"content-length": "100"}, (0, 100)),
        (200, {}, (0, None)),
        (200, {"content-length": "60", "content-encoding": "gzip"}, (0, None)),
        (206, {"content-length": "90", "content-range": "bytes 10-99/100"}, (10, 100)),
        (206, {"content-range": "bytes 20-99/100"}, (20, 100)),
        (206, {"content-length": "90", "content-range": "bytes 10-99/*"}, (10, 100)),
        (206, {"content-length": "90"}, (10, 100)),
        (206, {"content-range": "apples"}, (10, None)),
        (416, {"content-range": "bytes */10"}, (10, 10)),
    ],
)
def test_where_a_download_begins_and_how_large_the_whole_is(
    status: int, headers: dict[str, str], found: tuple[int, int | None]
) -> None:
    assert replies.extent(status, headers, 10 if status != 200 else 0) == found
