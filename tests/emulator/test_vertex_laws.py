"""Laws of the emulated Vertex AI: whatever it is given, it answers; what comes back holds all that was sent."""

import json
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_geminibatch.emulator import Emulator, answers
from airflow_provider_geminibatch.emulator.fields import MESSAGES
from airflow_provider_geminibatch.emulator.filters import read_filter
from airflow_provider_geminibatch.emulator.media import uris
from airflow_provider_geminibatch.emulator.parsing import conforms
from airflow_provider_geminibatch.emulator.vertex_shape import Shape, Unimportable
from airflow_provider_geminibatch.emulator.wire import Refused
from tests.emulator.vertex_api import VertexApi

SOME = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 300),
    st.floats(allow_nan=False),
    st.sampled_from(
        ["", "text", "STRING", "OBJECT", "application/json", "gs://b/x", "https://x/y", "12", "NaN", "aGk="]
    ),
)
JOB = {
    "display_name": "a",
    "model_display_name": "b",
    "state": "z",
    "create_time": datetime(2026, 11, 1, tzinfo=UTC),
    "labels": {"a": "b"},
}
ANY = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


def message(kind: str, depth: int = 0) -> st.SearchStrategy:
    """Values of a kind of the field table, now and then another one."""
    if depth > 6:
        return st.none()
    if kind[0] == "[":
        fitting = st.lists(message(kind[1:-1], depth + 1), max_size=2)
    elif kind[0] == "{":
        fitting = st.dictionaries(st.sampled_from("abc"), message(kind[1:-1], depth + 1), max_size=2)
    elif kind in MESSAGES:
        names = sorted(MESSAGES[kind])
        fitting = st.lists(st.sampled_from(names), max_size=4, unique=True).flatmap(
            lambda chosen: st.fixed_dictionaries({name: message(MESSAGES[kind][name], depth + 1) for name in chosen})
        )
    else:
        fitting = {
            "string": st.sampled_from(["", "x", "gs://b/x", "application/json", "text/x.enum"]),
            "bytes": st.just("aGk="),
            "enum": st.sampled_from(["STRING", "OBJECT", "ARRAY", "ANY", 3]),
            "bool": st.booleans(),
            "int": st.sampled_from([-1, 0, 1, 7, "12", 3.0]),
            "number": st.sampled_from([0, -1, 0.5, "NaN", "1e3"]),
            "struct": st.dictionaries(st.sampled_from("abc"), ANY, min_size=1, max_size=2),
            "any": ANY,
        }[kind]
    return st.one_of(fitting, fitting, fitting, fitting, fitting, ANY)


@SOME
@given(st.lists(message("VertexRequest"), min_size=1, max_size=3), st.booleans())
def test_every_job_ends_whatever_its_requests_are(requests, embeds):
    vertex = VertexApi(Emulator(start=datetime(2026, 11, 1, tzinfo=UTC), speed=0))
    model = "gemini-embedding-2" if embeds else "gemini-3.8-flash"
    job = vertex.create(
        *(json.dumps({"key": f"k{n}", "request": request}) for n, request in enumerate(requests)),
        model=f"publishers/google/models/{model}",
    )
    vertex.emulator.clock.advance(hours=24)
    ended = vertex.get(job["name"])
    assert ended["state"] in ("JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED")
    if ended["state"] == "JOB_STATE_SUCCEEDED":
        lines = vertex.results(job, 0)
        assert sorted(line["key"] for line in lines) == [f"k{n}" for n in range(len(requests))]
    else:
        assert ended["error"]["message"]
    assert vertex.emulator.bill()["jobs"] == 1


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("VertexRequest", answers.generate),
        ("VertexEmbedRequest", answers.embed),
        ("GenerateContentRequest", answers.generate),
        ("EmbedContentRequest", answers.embed),
    ],
)
@SOME
@given(data=st.data())
def test_every_request_that_has_the_right_fields_is_answered(kind, answer, data):
    names = st.sampled_from(sorted(MESSAGES[kind]))
    request = {name: data.draw(message(MESSAGES[kind][name])) for name in data.draw(st.sets(names, max_size=3))}
    if conforms(request, kind):
        assert answer(request, "gemini-3.8-flash")
        assert all(isinstance(uri, str) for uri in uris(request))


def test_a_list_of_response_formats_is_followed():
    schema = {"type": "OBJECT", "properties": {"label": {"type": "STRING"}}, "required": ["label"]}
    asked = [None, {"text": {"mimeType": "APPLICATION_JSON", "schema": schema}}]
    response = answers.generate({"contents": [], "tools": [None], "generationConfig": {"responseFormat": asked}}, "m")
    assert list(json.loads(response["candidates"][0]["content"]["parts"][0]["text"])) == ["label"]


@SOME
@given(message("VertexJob"))
def test_every_create_is_a_job_or_a_refusal(body):
    vertex = VertexApi(Emulator(speed=0))
    reply = vertex.post(body if isinstance(body, dict) else {"displayName": body})
    assert reply.status in (200, 400, 404, 501)


@SOME
@given(message("VertexRequest"))
def test_every_call_is_answered_or_refused(body):
    vertex = VertexApi(Emulator(speed=0))
    path = f"{vertex.parent}/publishers/google/models/gemini-3.8-flash"
    for verb in ("generateContent", "countTokens"):
        reply = vertex.call("POST", f"{path}:{verb}", body if isinstance(body, dict) else {"contents": body})
        assert reply.status in (200, 400, 404)


@SOME
@given(st.text(alphabet=st.sampled_from("abz_=:!<>()\"'-. *0AND"), max_size=30))
def test_every_filter_is_read_or_refused(text):
    with suppress(Refused):
        assert read_filter(text)(JOB) in (True, False)


@SOME
@given(st.lists(st.dictionaries(st.sampled_from("abc"), ANY, max_size=3), max_size=4))
def test_what_was_sent_comes_back_and_all_rows_have_the_same_fields(rows):
    shape = Shape()
    try:
        for row in rows:
            shape.learn(row)
        shape.settle()
    except Unimportable:
        return
    filled = [shape.fill(row) for row in rows]
    assert len({tuple(row) for row in filled}) <= 1
    for row, echo in zip(rows, filled, strict=True):
        assert holds(echo, row)


def holds(echo, sent):
    """Whether all that was sent is in the echo."""
    if isinstance(sent, dict):
        return isinstance(echo, dict) and all(holds(echo[name], value) for name, value in sent.items())
    if isinstance(sent, list):
        return len(echo) == len(sent) and all(holds(*pair) for pair in zip(echo, sent, strict=True))
    return echo == sent
