"""What Vertex AI answers at once: models, generateContent, countTokens."""

import pytest

FLASH = "gemini-3.8-flash"
BODY = {"contents": [{"role": "user", "parts": [{"text": "hello there"}]}]}


def generate(vertex, body=BODY, model=FLASH, **headers):
    return vertex.call("POST", f"{vertex.parent}/publishers/google/models/{model}:generateContent", body, **headers)


@pytest.mark.parametrize(
    ("asked", "traffic", "route"),
    [("", "ON_DEMAND", "standard"), ("flex", "ON_DEMAND_FLEX", "flex"), ("priority", "ON_DEMAND_PRIORITY", "priority")],
)
def test_a_call_is_answered_and_billed_as_its_header_says(vertex, emulator, asked, traffic, route):
    vertex.location = "global"
    reply = generate(vertex, x_vertex_ai_llm_shared_request_type=asked) if asked else generate(vertex)
    assert "hello there" in reply.body["candidates"][0]["content"]["parts"][0]["text"]
    assert reply.body["usageMetadata"]["trafficType"] == traffic
    assert [entry["route"] for entry in emulator.bill()["entries"]] == [route]


def test_flex_is_at_global_only_and_other_words_are_refused(vertex):
    assert generate(vertex, x_vertex_ai_llm_shared_request_type="flex").status == 400
    assert generate(vertex, x_vertex_ai_llm_shared_request_type="batch").status == 400


def test_what_a_call_is_refused_for(vertex, emulator):
    assert generate(vertex, model="gemini-9").status == 404
    assert generate(vertex, model="gemini-3.5-flash-lite").status == 404
    assert generate(vertex, model="gemini-embedding-2").status == 404
    assert 'Unknown name "generation_cfg"' in generate(vertex, {**BODY, "generation_cfg": {}}).body["error"]["message"]
    cached = generate(vertex, {**BODY, "cachedContent": "projects/1/locations/us-central1/cachedContents/42"})
    assert (cached.status, cached.body["error"]["message"]) == (404, "Not found: cached content metadata for 42.")
    assert emulator.bill()["entries"] == []
    assert emulator.log.counts() == {"vertex.generate": 5}


def test_a_prompt_gets_its_own_scenario(vertex):
    body = {"contents": [{"parts": [{"text": "say [[emulator:truncated]]"}]}]}
    assert generate(vertex, body).body["candidates"][0]["finishReason"] == "MAX_TOKENS"


def test_tokens_are_counted(vertex, emulator):
    body = {"contents": [{"parts": [{"text": "x" * 40}]}], "systemInstruction": {"parts": [{"text": "y" * 40}]}}
    path = f"{vertex.parent}/publishers/google/models/{FLASH}:countTokens"
    assert vertex.call("POST", path, body).body["totalTokens"] == 20
    assert emulator.log.count("vertex.count_tokens") == 1


def test_a_model_is_shown_where_it_is(vertex, emulator):
    assert vertex.get(f"publishers/google/models/{FLASH}") == {
        "name": f"publishers/google/models/{FLASH}",
        "versionId": "default",
        "openSourceCategory": "PROPRIETARY",
        "launchStage": "GA",
    }
    lite = "publishers/google/models/gemini-3.5-flash-lite"
    assert vertex.get(lite)["name"] == lite
    assert vertex.call("GET", f"{vertex.parent}/{lite}").status == 404
    vertex.location = "global"
    assert vertex.call("GET", f"{vertex.parent}/{lite}").status == 200
    assert vertex.call("GET", "publishers/google/models/gemini-9").status == 404
    preview = vertex.get("publishers/google/models/gemini-3.1-pro-preview")
    assert preview["launchStage"] == "PUBLIC_PREVIEW"
    assert emulator.log.counts() == {"vertex.model": 6}


def test_models_are_listed_in_pages(vertex):
    first = vertex.call("GET", "publishers/google/models", query={"pageSize": "5"}).body
    second = vertex.call("GET", "publishers/google/models", query={"pageToken": first["nextPageToken"]}).body
    names = [model["name"] for page in (first, second) for model in page["publisherModels"]]
    assert len(first["publisherModels"]) == 5
    assert len(set(names)) == len(names) > 8
    assert "nextPageToken" not in second
