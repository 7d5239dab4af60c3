"""Batch jobs on the wire: create, life, counts, output, list, cancel, delete, quotas, bill."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from airflow_provider_geminibatch.emulator import MODELS, Emulator, Limits
from airflow_provider_geminibatch.emulator.jobs import turnaround

FLASH = "gemini-3.8-flash"
V1MAIN = "type.googleapis.com/google.ai.generativelanguage.v1main."


def error(reply):
    return reply.body["error"]


def walk(api, emulator, name):
    """The operations of a job, looked at four times an hour until it is done."""
    seen = [api.get(name)]
    while not seen[-1].get("done"):
        emulator.clock.advance(minutes=15)
        seen.append(api.get(name))
    return seen


def test_a_new_job_is_shown_as_captured_from_the_wire(api, make_line):
    operation = api.create(make_line("a", "one"), make_line("b", "two")).body
    assert len(operation["name"]) == len("batches/") + 36
    input_file = operation["metadata"]["inputConfig"]["fileName"]
    assert operation == {
        "name": operation["name"],
        "metadata": {
            "@type": V1MAIN + "GenerateContentBatch",
            "model": "models/gemini-3.8-flash",
            "displayName": "nightly",
            "inputConfig": {"fileName": input_file},
            "createTime": "2026-11-01T06:00:00.000000000Z",
            "updateTime": "2026-11-01T06:00:00.000000000Z",
            "batchStats": {"requestCount": "2", "pendingRequestCount": "2"},
            "state": "BATCH_STATE_PENDING",
            "name": operation["name"],
        },
    }


def test_a_job_is_pending_then_running_then_succeeded(api, emulator):
    seen = walk(api, emulator, api.create().body["name"])
    states = list(dict.fromkeys(operation["metadata"]["state"] for operation in seen))
    assert states == ["BATCH_STATE_PENDING", "BATCH_STATE_RUNNING", "BATCH_STATE_SUCCEEDED"]
    last = seen[-1]
    output = {"responsesFile": "files/batch-" + last["name"].removeprefix("batches/")}
    assert last["metadata"]["output"] == output
    assert last["response"] == {"@type": V1MAIN + "GenerateContentBatchOutput", **output}
    assert last["metadata"]["batchStats"] == {"requestCount": "1", "successfulRequestCount": "1"}
    assert last["metadata"]["endTime"] > last["metadata"]["createTime"]
    assert "error" not in last


def test_each_row_comes_back_under_its_key_with_an_echo(api, make_line):
    rows = {"a": "the first prompt", "b": "the second prompt"}
    lines = api.results(api.create(*(make_line(key, text) for key, text in rows.items())).body["name"])
    assert [each["key"] for each in lines] == ["a", "b"]
    for each in lines:
        text = each["response"]["candidates"][0]["content"]["parts"][0]["text"]
        assert rows[each["key"]] in text


def test_inline_results_come_with_get_and_are_left_out_of_lists(api, emulator):
    request = {"contents": [{"parts": [{"text": "hi"}]}]}
    source = {"requests": {"requests": [{"request": request, "metadata": {"key": str(n)}} for n in range(3)]}}
    name = api.create_from(source).body["name"]
    emulator.clock.advance(hours=24)
    responses = api.get(name)["response"]["inlinedResponses"]["inlinedResponses"]
    assert [each["metadata"] for each in responses] == [{"key": "0"}, {"key": "1"}, {"key": "2"}]
    (listed,) = api.get("batches", pageSize="10")["operations"]
    assert listed["done"]
    assert "response" not in listed
    assert "output" not in listed["metadata"]


def test_an_embedding_batch_from_a_file_and_inline(api, emulator):
    row = {"key": "e", "request": {"output_dimensionality": 3, "content": {"parts": [{"text": "1"}]}}}
    how = {"model": "gemini-embedding-2", "method": "asyncBatchEmbedContent"}
    file_job = api.create(json.dumps(row), **how).body
    inline_job = api.create_from({"requests": {"requests": [{"request": row["request"]}]}}, **how).body
    assert file_job["metadata"]["@type"] == V1MAIN + "EmbedContentBatch"
    (line,) = api.results(file_job["name"])
    (inlined,) = api.get(inline_job["name"])["response"]["inlinedResponses"]["inlinedResponses"]
    assert (line["key"], line["response"]["tokenCount"]) == ("e", "1")
    assert line["response"] == inlined["response"]
    values = line["response"]["embedding"]["values"]
    assert sum(value * value for value in values) == pytest.approx(1)
    assert len(values) == 3


def test_snake_case_bodies_are_the_same(api):
    file = api.upload('{"key":"k","request":{"contents":[]}}\n')
    body = {"batch": {"display_name": "snake", "input_config": {"file_name": file}, "priority": "-2"}}
    metadata = api.call("POST", f"/v1beta/models/{FLASH}:batchGenerateContent", body).body["metadata"]
    assert (metadata["displayName"], metadata["priority"]) == ("snake", "-2")


def test_bad_lines_are_named_together(api, make_line):
    flat = json.dumps({"key": "b", "request": {"contents": [], "thinking_config": {}}})
    listed = json.dumps({"request": {"systemInstruction": ["x"]}})
    field, bracket = flat.index('"thinking') + 1, listed.index("[") + 1
    reply = api.create(make_line("a", "fine"), flat, "", listed)
    assert reply.status == 400
    assert error(reply)["message"].splitlines() == [
        f"Error on line 2: invalid JSON, near column {field}: no such field: 'thinking_config'",
        f"Error on line 4: invalid JSON, near column {bracket}: unexpected character: '['; expected '{{'",
    ]
    assert not api.emulator.jobs


def test_an_unknown_field_of_an_inline_request_is_named_by_its_path(api):
    reply = api.create_from({"requests": {"requests": [{"request": {"contents": []}, "safetySettings": []}]}})
    text = (
        'Invalid JSON payload received. Unknown name "safetySettings" at '
        "'batch.input_config.requests.requests[0]': Cannot find field."
    )
    assert (reply.status, error(reply)["message"]) == (400, text)
    (violation,) = error(reply)["details"][0]["fieldViolations"]
    assert violation == {"field": "batch.input_config.requests.requests[0]", "description": text}


@pytest.mark.parametrize("source", [{}, {"fileName": "files/x", "requests": {"requests": [{"request": {}}]}}])
def test_a_create_needs_exactly_one_source(api, source):
    assert api.create_from(source).status == 400


def test_a_wrong_type_and_an_empty_file_are_refused(api):
    assert api.create_from({"requests": {"requests": [{"request": {"contents": {}}}]}}).status == 400
    assert api.create_from({"fileName": api.upload("\n")}).status == 400
    assert api.call("POST", f"/v1/models/{FLASH}:batchGenerateContent", b"not json").status == 400


@pytest.mark.parametrize(
    "model", ["gemini-9", "gemini-2.5-flash-preview-tts", "gemini-embedding-2", "gemini-flash-latest"]
)
def test_a_model_that_cannot_batch_is_not_found(api, model):
    reply = api.create(model=model)
    assert reply.status == 404
    assert error(reply)["message"] == (
        f"models/{model} is not found for API version v1, or is not supported for batchGenerateContent. "
        "Call ListModels to see the list of available models and their supported methods."
    )


def test_latest_names_exist_on_v1beta_only(api):
    api.version = "v1beta"
    assert api.create(model="gemini-flash-latest").body["metadata"]["model"] == "models/gemini-3.8-flash"


def test_a_missing_input_file_is_forbidden_at_create_and_not_needed_later(api, emulator):
    assert error(api.create_from({"fileName": "files/nope"}))["message"] == (
        "You do not have permission to access the File nope or it may not exist."
    )
    file = api.upload('{"key":"k","request":{"contents":[]}}\n')
    name = api.create_from({"fileName": file}).body["name"]
    api.call("DELETE", f"/v1/{file}")
    assert [each["key"] for each in api.results(name)] == ["k"]


def test_the_same_create_twice_makes_two_jobs(api, emulator):
    file = api.upload('{"key":"k","request":{"contents":[]}}\n')
    names = {api.create_from({"fileName": file}, name="same").body["name"] for _ in range(2)}
    assert len(names) == len(emulator.jobs) == 2


def test_cancel_is_terminal_at_once_and_leaves_nothing(api, emulator):
    name = api.create().body["name"]
    emulator.clock.advance(minutes=1)
    assert api.call("POST", f"/v1/{name}:cancel", {}).body == {}
    operation = api.get(name)
    assert (operation["metadata"]["state"], operation["done"], operation["error"]["code"]) == (
        "BATCH_STATE_CANCELLED",
        True,
        1,
    )
    emulator.clock.advance(hours=24)
    assert api.get(name) == operation
    assert "response" not in operation


def test_cancel_of_a_job_that_ended_changes_nothing(api, emulator):
    name = api.create().body["name"]
    emulator.clock.advance(hours=24)
    before = api.get(name)
    api.call("POST", f"/v1/{name}:cancel", {})
    assert api.get(name) == before


def test_a_deleted_job_is_out_of_sight(api, emulator):
    name = api.create().body["name"]
    assert api.call("DELETE", f"/v1/{name}").body == {}
    assert api.call("GET", f"/v1/{name}").status == 404
    assert api.get("batches", pageSize="10") == {}
    assert [job.name for job in emulator.jobs] == [name]


def test_lists_are_paged_newest_first_and_stable(api):
    names = [api.create(name=f"job-{n}").body["name"] for n in range(5)]
    first = api.get("batches", pageSize="2")
    api.create(name="newcomer")
    second = api.get("batches", pageSize="2", pageToken=first["nextPageToken"])
    last = api.get("batches", pageSize="2", pageToken=second["nextPageToken"])
    seen = [operation["name"] for page in (first, second, last) for operation in page["operations"]]
    assert seen == names[::-1]
    assert "nextPageToken" not in last


def test_a_job_deleted_between_two_pages_hides_no_other(api):
    names = [api.create().body["name"] for _ in range(4)]
    first = api.get("batches", pageSize="2")
    for operation in first["operations"]:
        api.call("DELETE", f"/v1/{operation['name']}")
    second = api.get("batches", pageSize="2", pageToken=first["nextPageToken"])
    assert [operation["name"] for operation in second["operations"]] == names[1::-1]


def test_a_token_that_is_none_is_refused(api):
    assert api.call("GET", "/v1/batches", query={"pageToken": "rubbish"}).status == 400


def test_jobs_are_seen_by_their_project_only(api):
    api.emulator = Emulator(keys={"a-key": "one", "b-key": "two"})
    name = api.create().body["name"]
    api.key = "b-key"
    assert api.get("batches", pageSize="10") == {}
    assert api.call("GET", f"/v1/{name}").status == 404


def test_keys_are_checked(api, emulator):
    api.key = ""
    assert api.call("GET", "/v1/models").status == 403
    assert api.call("GET", "/v1/models", query={"key": "in-the-query"}).status == 200
    api.key = "leaked"
    emulator.revoke("leaked")
    refused = api.call("GET", "/v1/models")
    assert (refused.status, error(refused)["message"]) == (400, "API key not valid. Please pass a valid API key.")


def test_one_job_too_many_meets_the_quota_until_one_ends(api):
    api.emulator = Emulator(limits=Limits(concurrent_jobs=2), speed=0)
    names = [api.create().body["name"] for _ in range(2)]
    refused = api.create()
    assert (refused.status, error(refused)["status"]) == (429, "RESOURCE_EXHAUSTED")
    assert error(refused)["message"].startswith("You exceeded your current quota, please check your plan and billing")
    api.call("POST", f"/v1/{names[0]}:cancel", {})
    assert api.create().status == 200


def test_enqueued_tokens_are_limited_for_each_model(api, make_line):
    api.emulator = Emulator(limits=Limits(enqueued_tokens={FLASH: 100}))
    big = make_line("k", "x" * 300)  # 75 tokens
    assert api.create(big).status == 200
    assert api.create(big).status == 429
    assert api.create(big, model="gemini-3.5-flash").status == 200


def test_a_huge_inline_body_is_refused(api):
    api.emulator = Emulator(limits=Limits(inline_bytes=100))
    request = {"contents": [{"parts": [{"text": "x" * 200}]}]}
    assert api.create_from({"requests": {"requests": [{"request": request}]}}).status == 400


def test_a_big_output_comes_in_shards_of_a_thousand_out_of_order(api, make_line):
    rows = [make_line(str(n), "x") for n in range(3644)]
    lines = api.results(api.create(*rows).body["name"])
    order = [int(each["key"]) for each in lines]
    assert order == [*range(1000), *range(3000, 3644), *range(2000, 3000), *range(1000, 2000)]


def test_the_order_of_fields_in_a_line_varies(api, make_line):
    lines = api.results(api.create(*(make_line(str(n), "x") for n in range(50))).body["name"])
    firsts = Counter(next(iter(each)) for each in lines)
    assert set(firsts) == {"key", "response"}


def test_extra_fields_of_a_line_are_echoed_with_lists_emptied_and_bare_requests_have_no_key(api):
    extra = json.dumps({"key": "k", "request": {"contents": []}, "note": "mine", "tags": ["a"]})
    bare = json.dumps({"contents": [{"parts": [{"text": "bare"}]}]})
    first, second = api.results(api.create(extra, bare).body["name"])
    assert {name: first[name] for name in ("key", "note", "tags")} == {"key": "k", "note": "mine", "tags": []}
    assert list(second) == ["response"]


def test_text_beyond_ascii_and_lone_surrogates_survive(api, emulator):
    row = '{"key":"sch\\u00f6n \\ud800","request":{"contents":[{"parts":[{"text":"größe \\ud800 漢"}]}]}}'
    file_job = api.create(row).body["name"]
    inline_job = api.create_from({"requests": {"requests": [{"request": json.loads(row)["request"]}]}}).body["name"]
    (line,) = api.results(file_job)
    assert line["key"] == "schön \ud800"
    assert "größe \ud800 漢" in line["response"]["candidates"][0]["content"]["parts"][0]["text"]
    (inlined,) = api.get(inline_job)["response"]["inlinedResponses"]["inlinedResponses"]
    assert inlined["response"] == line["response"]


def test_the_same_seed_gives_the_same_bytes_and_another_gives_others(make_line, api):
    def outcome(seed):
        api.emulator = Emulator(seed=seed, start=datetime(2026, 1, 1, tzinfo=UTC), speed=0)
        api.emulator.scenario("failed_rows", fraction=0.3)
        name = api.create(*(make_line(str(n), f"row {n}") for n in range(40))).body["name"]
        api.emulator.clock.advance(hours=24)
        return api.get(name), api.download(name)

    assert outcome(1) == outcome(1)
    assert outcome(1)[1] != outcome(2)[1]


def test_turnarounds_stay_in_bounds_and_spread():
    hours = sorted(turnaround(0, str(n), (1, 23)) / timedelta(hours=1) for n in range(500))
    assert hours[0] >= 1
    assert hours[-1] <= 23
    assert 4 < hours[250] < 6
    assert turnaround(0, "x", (3, 3)) == timedelta(hours=3)
    assert turnaround(0, "x", (0, 0)) == timedelta(seconds=1)


@pytest.mark.parametrize("wrong", [(2, 1), (-1, 3)])
def test_a_turnaround_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match="turnaround"):
        Emulator(turnaround=wrong)


def test_counts_move_while_a_job_runs(api, emulator, make_line):
    name = api.create(*(make_line(str(n), "x") for n in range(100))).body["name"]
    pending = [int(each["metadata"]["batchStats"].get("pendingRequestCount", 0)) for each in walk(api, emulator, name)]
    assert pending == sorted(pending, reverse=True)
    assert len(set(pending)) > 3


def test_the_bill_is_half_price_for_batches_and_names_its_source(api, emulator, make_line):
    name = api.create(make_line("k", "x" * 400)).body["name"]
    assert emulator.bill()["total_usd"] == "0"
    emulator.clock.advance(hours=24)
    usage = api.lines(name)[0]["response"]["usageMetadata"]
    output = usage["candidatesTokenCount"] + usage["thoughtsTokenCount"]
    price = MODELS[FLASH].price_at(emulator.clock.now())
    expected = (100 * price.input + output * price.output) / Decimal(2_000_000)
    bill = emulator.bill()
    assert bill["jobs"] == 1
    assert [(entry["route"], entry["model"], entry["requests"]) for entry in bill["entries"]] == [("batch", FLASH, 1)]
    assert Decimal(bill["total_usd"]) == expected
    assert bill["prices_as_of"] == "2026-10"


def test_an_unknown_price_is_null_not_zero(api, emulator):
    api.create(model="gemini-2.5-pro")
    emulator.clock.advance(hours=24)
    (entry,) = emulator.bill()["entries"]
    assert entry["usd"] is None


def test_prices_change_on_their_day():
    flash = MODELS[FLASH]
    assert flash.price_at(datetime(2026, 12, 31, 23, tzinfo=UTC)).input == Decimal("0.75")
    assert flash.price_at(datetime(2027, 1, 1, tzinfo=UTC)).input == Decimal("1.50")


def test_interactive_calls_answer_and_are_billed_by_their_tier(api, emulator):
    body = {"contents": [{"parts": [{"text": "hello there"}]}]}
    path = f"/v1/models/{FLASH}:generateContent"
    standard = api.call("POST", path, body)
    flex = api.call("POST", path, {**body, "serviceTier": "flex"})
    assert (standard.headers["x-gemini-service-tier"], flex.headers["x-gemini-service-tier"]) == ("standard", "flex")
    assert "hello there" in standard.body["candidates"][0]["content"]["parts"][0]["text"]
    assert {entry["route"] for entry in emulator.bill()["entries"]} == {"standard", "flex"}
    assert api.call("POST", path, {**body, "generation_cfg": {}}).body["error"]["message"] == (
        'Invalid JSON payload received. Unknown name "generation_cfg": Cannot find field.'
    )


def test_tokens_are_counted_and_embeddings_answered(api):
    counted = api.call("POST", f"/v1/models/{FLASH}:countTokens", {"contents": [{"parts": [{"text": "x" * 40}]}]})
    assert counted.body["totalTokens"] == 10
    body = {"content": {"parts": [{"text": "x"}]}, "outputDimensionality": 4}
    embedded = api.call("POST", "/v1/models/gemini-embedding-2:embedContent", body)
    assert len(embedded.body["embedding"]["values"]) == 4


def test_models_say_whether_they_can_batch(api):
    assert "batchGenerateContent" in api.get(f"models/{FLASH}")["supportedGenerationMethods"]
    listed = {model["name"] for model in api.get("models", pageSize="1000")["models"]}
    assert listed == {f"models/{name}" for name in MODELS}


def test_an_unknown_path_is_not_found(api):
    assert api.call("GET", "/v2/batches").status == 404
    assert api.call("POST", f"/v1/models/{FLASH}:streamGenerateContent", {}).status == 404


def test_the_log_counts_by_endpoint_and_keeps_no_keys(api, emulator):
    api.create()
    api.create_from({"fileName": "files/nope"})
    log = emulator.log
    assert (log.count("batches.create"), log.count("batches.create", status=403), log.count()) == (2, 1, 4)
    assert log.counts() == {"files.start": 1, "files.chunk": 1, "batches.create": 2}
    assert api.key not in repr(log.entries)


def test_reset_forgets_all_but_the_time(api, emulator):
    api.create()
    emulator.scenario("late")
    emulator.clock.advance(hours=1)
    now = emulator.clock.now()
    emulator.reset()
    assert (emulator.jobs, emulator.switches, emulator.log.count()) == ((), (), 0)
    assert emulator.clock.now() == now
