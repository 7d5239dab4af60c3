"""Each scenario does what its row in the table says, alone and together with others."""

import json
from collections import Counter

import pytest

from airflow_provider_geminibatch.emulator import SCENARIOS, Emulator
from airflow_provider_geminibatch.emulator.switches import parse_scenario
from airflow_provider_geminibatch.emulator.wire import Dropped

FLASH = "gemini-3.8-flash"


@pytest.fixture
def rows(make_line):
    return [make_line(f"k{n}", f"the prompt of row {n}") for n in range(20)]


def candidate(line):
    return line["response"]["candidates"][0]


def text(line):
    return candidate(line)["content"]["parts"][0]["text"]


def finished(api, emulator, *rows, hours=24, **how):
    name = api.create(*rows, **how).body["name"]
    emulator.clock.advance(hours=hours)
    return api.get(name)


# Jobs


def test_late(api, emulator):
    emulator.scenario("late", hours=30)
    name = finished(api, emulator, hours=29.9)["name"]
    assert api.get(name)["metadata"]["state"] == "BATCH_STATE_RUNNING"
    emulator.clock.advance(hours=0.2)
    assert api.get(name)["metadata"]["state"] == "BATCH_STATE_SUCCEEDED"


@pytest.mark.parametrize(("scenario", "settings"), [("never_finishes", {}), ("late", {"hours": 60})])
def test_a_job_that_does_not_end_expires_at_48_hours_with_nothing(api, emulator, scenario, settings):
    emulator.scenario(scenario, **settings)
    name = finished(api, emulator, hours=47.9)["name"]
    assert api.get(name)["metadata"]["state"] == "BATCH_STATE_RUNNING"
    emulator.clock.advance(hours=0.1)
    operation = api.get(name)
    assert (operation["metadata"]["state"], operation["done"]) == ("BATCH_STATE_EXPIRED", True)
    assert not {"response", "error"} & set(operation)
    assert "output" not in operation["metadata"]
    assert emulator.bill()["entries"] == []


def test_a_job_that_never_finishes_shows_no_movement(api, emulator):
    emulator.scenario("never_finishes")
    operation = finished(api, emulator, hours=20)
    emulator.clock.advance(hours=20)
    assert api.get(operation["name"]) == operation
    assert operation["metadata"]["batchStats"] == {"requestCount": "1", "pendingRequestCount": "1"}


def test_job_failed(api, emulator):
    emulator.scenario("job_failed", code=9, message="no luck")
    operation = finished(api, emulator)
    assert operation["metadata"]["state"] == "BATCH_STATE_FAILED"
    assert operation["error"] == {"code": 9, "message": "no luck"}
    assert "response" not in operation


def test_unknown_state(api, emulator):
    emulator.scenario("unknown_state", state="BATCH_STATE_DREAMING", after=0, hours=2)
    name = api.create().body["name"]
    assert emulator.state(name) == "BATCH_STATE_DREAMING"
    assert "done" not in api.get(name)
    emulator.clock.advance(hours=24)
    assert emulator.state(name) == "BATCH_STATE_SUCCEEDED"


def test_listed_late(api, emulator):
    emulator.scenario("listed_late", hours=1)
    name = api.create().body["name"]
    assert api.get(name)["name"] == name
    assert api.get("batches", pageSize="10") == {}
    emulator.clock.advance(hours=1)
    assert [each["name"] for each in api.get("batches", pageSize="10")["operations"]] == [name]


def test_foreign_job_same_name(api, emulator):
    emulator.scenario("foreign_job_same_name", model="gemini-2.5-flash")
    ours = api.create(name="twin").body
    listed = {each["name"]: each["metadata"] for each in api.get("batches", pageSize="10")["operations"]}
    foreign = listed.pop(next(name for name in listed if name != ours["name"]))
    assert foreign["displayName"] == "twin"
    assert foreign["model"] == "models/gemini-2.5-flash"
    assert foreign["inputConfig"] != ours["metadata"]["inputConfig"]
    emulator.clock.advance(hours=24)
    assert (len(emulator.jobs), emulator.bill()["jobs"]) == (1, 1)
    assert [entry["model"] for entry in emulator.bill()["entries"]] == [FLASH]


def test_output_later_than_succeeded(api, emulator):
    emulator.scenario("output_later_than_succeeded", minutes=30)
    name = api.create().body["name"]
    (job,) = emulator.jobs
    emulator.clock.advance(job.ends - job.created)
    operation = api.get(name)
    assert operation["metadata"]["state"] == "BATCH_STATE_SUCCEEDED"
    assert operation["done"]
    assert "response" not in operation
    assert api.call("GET", f"/v1/{job.output_file}:download").status == 403
    emulator.clock.advance(minutes=30)
    assert api.get(name)["response"]["responsesFile"] == job.output_file
    assert api.lines(name)


def test_output_only_in_response(api, emulator):
    emulator.scenario("output_only_in_response")
    operation = finished(api, emulator)
    assert "output" not in operation["metadata"]
    assert operation["response"]["responsesFile"].startswith("files/batch-")


def test_shuffled(api, emulator, rows):
    emulator.scenario("shuffled")
    keys = [line["key"] for line in api.results(api.create(*rows).body["name"])]
    assert keys != sorted(keys)
    assert sorted(keys) == sorted(f"k{n}" for n in range(20))


# Rows


def test_failed_rows(api, emulator, rows):
    emulator.scenario("failed_rows", rows=(0, 1, 2, 3, 4))
    operation = finished(api, emulator, *rows)
    assert operation["metadata"]["state"] == "BATCH_STATE_SUCCEEDED"
    assert operation["metadata"]["batchStats"] == {
        "requestCount": "20",
        "successfulRequestCount": "15",
        "failedRequestCount": "5",
    }
    lines = api.lines(operation["name"])
    assert [line["error"]["code"] for line in lines if "error" in line] == [3, 7, 8, 13, 14]
    assert all(line["error"]["message"] for line in lines if "error" in line)
    assert emulator.bill()["entries"][0]["requests"] == 15


@pytest.mark.parametrize("under", ["error", "status", "response.error"])
def test_a_failed_row_in_each_place(api, emulator, under):
    emulator.scenario("failed_rows", codes=(7,), under=under, message="dead cache")
    (line,) = api.results(api.create().body["name"])
    for step in under.split("."):
        line = line[step]
    assert line == {"code": 7, "message": "dead cache"}


def test_all_rows_failed(api, emulator, rows):
    emulator.scenario("all_rows_failed")
    operation = finished(api, emulator, *rows)
    assert operation["metadata"]["state"] == "BATCH_STATE_SUCCEEDED"
    assert operation["metadata"]["batchStats"] == {"requestCount": "20", "failedRequestCount": "20"}
    assert {line["error"]["code"] for line in api.lines(operation["name"])} == {13}


def test_empty(api, emulator):
    emulator.scenario("empty")
    (line,) = api.results(api.create().body["name"])
    assert candidate(line) == {"content": {"role": "model"}, "finishReason": "STOP", "index": 0}


def test_blocked(api, emulator):
    emulator.scenario("blocked", reason="RECITATION")
    (line,) = api.results(api.create().body["name"])
    assert candidate(line) == {"finishReason": "RECITATION", "index": 0}


def test_prompt_blocked(api, emulator):
    emulator.scenario("prompt_blocked")
    (line,) = api.results(api.create().body["name"])
    assert line["response"]["promptFeedback"] == {"blockReason": "PROHIBITED_CONTENT"}
    assert "candidates" not in line["response"]


def test_truncated(api, emulator, make_line):
    (whole,) = api.results(api.create(make_line("k", "a prompt")).body["name"])
    emulator.scenario("truncated")
    (cut,) = api.results(api.create(make_line("k", "a prompt")).body["name"])
    assert candidate(cut)["finishReason"] == "MAX_TOKENS"
    assert text(cut)
    assert text(whole).startswith(text(cut))
    assert len(text(cut)) < len(text(whole))


def test_truncated_below_a_cap_is_healed_by_a_larger_cap(api, emulator, make_line):
    emulator.scenario("truncated", below=1000)
    lines = [make_line("small", "p", maxOutputTokens=999), make_line("large", "p", maxOutputTokens=1000)]
    small, large = api.results(api.create(*lines).body["name"])
    assert (candidate(small)["finishReason"], candidate(large)["finishReason"]) == ("MAX_TOKENS", "STOP")


def test_broken_json(api, emulator, make_line):
    emulator.scenario("broken_json")
    (line,) = api.results(api.create(make_line("k", "p", responseMimeType="application/json")).body["name"])
    assert candidate(line)["finishReason"] == "STOP"
    with pytest.raises(json.JSONDecodeError):
        json.loads(text(line))


def test_thoughts_only(api, emulator):
    emulator.scenario("thoughts_only")
    (line,) = api.results(api.create().body["name"])
    assert all(part["thought"] for part in candidate(line)["content"]["parts"])
    assert candidate(line)["finishReason"] == "MAX_TOKENS"


def test_wrong_answer(api, emulator, make_line):
    emulator.scenario("wrong_answer")
    (line,) = api.results(api.create(make_line("k", "mine", responseMimeType="application/json")).body["name"])
    assert line["key"] == "k"
    assert json.loads(text(line))["echo"].startswith("the prompt of another row")


@pytest.mark.parametrize(
    ("scenario", "keys"),
    [
        ("missing", ["k0", "k2"]),
        ("duplicate", ["k0", "k1", "k1", "k2"]),
        ("duplicate_differing", ["k0", "k1", "k1", "k2"]),
        ("keyless", ["k0", None, "k2"]),
        ("unknown_key", ["k0", "unknown-k1", "k2"]),
    ],
)
def test_rows_that_do_not_come_once_under_their_key(api, emulator, rows, scenario, keys):
    emulator.scenario(scenario, rows=(1,))
    lines = api.results(api.create(*rows[:3]).body["name"])
    assert [line.get("key") for line in lines] == keys
    twins = [text(line) for line in lines if line.get("key") == "k1"]
    if len(twins) == 2:
        assert (twins[0] == twins[1]) == (scenario == "duplicate")


def test_keyless_and_unknown_key_of_inline_rows(api, emulator):
    emulator.scenario("keyless", rows=(0,))
    emulator.scenario("unknown_key", rows=(1,))
    requests = [{"request": {"contents": []}, "metadata": {"key": f"k{n}"}} for n in range(2)]
    name = api.create_from({"requests": {"requests": requests}}).body["name"]
    emulator.clock.advance(hours=24)
    first, second = api.get(name)["response"]["inlinedResponses"]["inlinedResponses"]
    assert "metadata" not in first
    assert second["metadata"] == {"key": "unknown-k1"}


def test_usage_metadata(api, emulator):
    emulator.scenario("usage_metadata")
    row = json.dumps({"key": "e", "request": {"content": {"parts": [{"text": "abcd"}]}, "outputDimensionality": 2}})
    (line,) = api.results(api.create(row, model="gemini-embedding-2", method="asyncBatchEmbedContent").body["name"])
    assert line["response"]["usageMetadata"] == {"promptTokenCount": 1}
    assert "tokenCount" not in line["response"]


@pytest.mark.parametrize("name", sorted(name for name, scenario in SCENARIOS.items() if scenario.scope == "row"))
def test_a_prompt_can_ask_for_its_own_scenario(api, make_line, name):
    plain, marked = make_line("k", "a prompt"), make_line("k", f"a prompt [[emulator:{name}]]")
    usual = [line.keys() | {candidate(line)["finishReason"]} for line in api.results(api.create(plain).body["name"])]
    if name == "opaque_refusal":
        assert api.create(marked).status == 400
        return
    bent = api.results(api.create(marked).body["name"])
    if name in ("duplicate", "duplicate_differing", "missing"):
        assert len(bent) != len(usual)
    elif name not in (
        "usage_metadata",
        "short_vector",
        "no_total_tokens",
        "broken_json",
        "unknown_key",
        "empty",
        "wrong_answer",
    ):
        shown = [
            line.keys() | {candidate(line)["finishReason"] if "candidates" in line.get("response", {}) else ""}
            for line in bent
        ]
        assert shown != usual


@pytest.mark.parametrize(
    ("name", "finish"),
    [
        ("truncated", "MAX_TOKENS"),
        ("thoughts_only", "MAX_TOKENS"),
        ("empty", "STOP"),
        ("blocked", "SAFETY"),
        ("missing", "STOP"),
    ],
)
def test_a_prompt_gets_its_own_scenario_by_an_interactive_call_too(api, emulator, make_line, name, finish):
    request = json.loads(make_line("k", f"a prompt [[emulator:{name}]]"))["request"]
    reply = api.call("POST", f"/v1beta/models/{FLASH}:generateContent", request)
    assert reply.status == 200
    assert reply.body["candidates"][0]["finishReason"] == finish
    (line,) = api.results(api.create(make_line("k", f"a prompt [[emulator:{name}]]")).body["name"]) or ({},)
    assert line.get("response", reply.body) == reply.body


# Choosing


def test_rows_are_chosen_by_fraction_marker_and_key(api, emulator, make_line):
    lines = [make_line(f"k{n}", "odd" if n % 2 else "even") for n in range(400)]
    emulator.scenario("failed_rows", fraction=0.1)
    emulator.scenario("blocked", marker="odd")
    emulator.scenario("missing", keys="k39?")
    outcome = api.results(api.create(*lines).body["name"])
    failed = sum("error" in line for line in outcome)
    assert 20 < failed < 60
    assert len(outcome) == 390
    finishes = Counter(candidate(line)["finishReason"] for line in outcome if "response" in line)
    assert finishes["SAFETY"] + finishes["STOP"] + failed == 390
    assert finishes["SAFETY"] > 100


def test_another_round_of_the_same_rows_draws_anew(api, emulator, rows):
    emulator.scenario("failed_rows", fraction=0.5)
    draws = [{line["key"] for line in api.results(api.create(*rows).body["name"]) if "error" in line} for _ in range(2)]
    assert draws[0] != draws[1]


def test_jobs_are_chosen_by_ordinal_and_name(api, emulator):
    emulator.scenario("job_failed", jobs=(1,))
    emulator.scenario("never_finishes", display_name="slow-*")
    names = [api.create(name=name).body["name"] for name in ("one", "two", "slow-three")]
    emulator.clock.advance(hours=24)
    assert [emulator.state(name) for name in names] == [
        "BATCH_STATE_SUCCEEDED",
        "BATCH_STATE_FAILED",
        "BATCH_STATE_RUNNING",
    ]


def test_row_scenarios_hold_for_their_jobs_only_and_for_jobs_created_while_on(api, emulator):
    emulator.scenario("blocked", jobs=(0,))
    first, second = api.create().body["name"], api.create().body["name"]
    emulator.switch_off("blocked")
    emulator.clock.advance(hours=24)
    assert [candidate(api.lines(name)[0])["finishReason"] for name in (first, second)] == ["SAFETY", "STOP"]


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("nonsense", {}, "there is no scenario 'nonsense'"),
        ("late", {"minutes": 3}, "late has no setting minutes; it has display_name, hours, jobs"),
        ("late", {"hours": "long"}, "hours is like 30.0, not 'long'"),
        ("burst_429", {"jobs": (0,)}, "burst_429 has no setting jobs"),
    ],
)
def test_what_a_scenario_does_not_know_is_refused(emulator, name, settings, says):
    with pytest.raises(ValueError, match=says.replace("(", r"\(")):
        emulator.scenario(name, **settings)


def test_scenarios_are_read_from_text():
    assert parse_scenario("late") == ("late", {})
    assert parse_scenario("failed_rows:codes=3/13, fraction=0.1") == (
        "failed_rows",
        {"codes": "3/13", "fraction": "0.1"},
    )
    with pytest.raises(ValueError, match="key=value"):
        parse_scenario("late:30")


def test_settings_are_converted_from_text(emulator):
    emulator.scenario("failed_rows", codes="3/13", fraction="0.25", rows=4)
    (switch,) = emulator.switches
    assert (switch.params["codes"], switch.choice) == ((3, 13), {"fraction": 0.25, "rows": (4,)})


# Calls


@pytest.mark.parametrize(("scenario", "status"), [("burst_429", 429), ("burst_503", 503)])
def test_a_burst_meets_the_next_calls_of_its_endpoint(api, emulator, scenario, status):
    emulator.scenario(scenario, endpoint="batches.list", times=2, after=1, retry_after=7)
    replies = [api.call("GET", "/v1/batches", query={"pageSize": "1"}) for _ in range(4)]
    assert [reply.status for reply in replies] == [200, status, status, 200]
    assert replies[1].headers["retry-after"] == "7"
    assert api.call("GET", "/v1/models").status == 200


def test_a_burst_on_create_creates_nothing_and_need_not_say_when_to_come_back(api, emulator):
    emulator.scenario("burst_429")
    reply = api.create()
    assert (reply.status, emulator.jobs) == (429, ())
    assert "retry-after" not in reply.headers
    assert not any("retryDelay" in detail for detail in reply.body["error"]["details"])


def test_refused_calls(api, emulator):
    emulator.scenario("refused_calls", code=402, message="no credit")
    reply = api.create()
    assert (reply.status, reply.body["error"]["message"], emulator.jobs) == (402, "no credit", ())


def test_dropped_calls(api, emulator):
    name = api.create().body["name"]
    emulator.scenario("dropped_calls", times=2)
    for _ in range(2):
        with pytest.raises(Dropped):
            api.get(name)
    assert api.get(name)["name"] == name


def test_slow_replies(api, emulator):
    emulator.scenario("slow_replies", seconds=9)
    assert api.create().delay == 9
    assert len(emulator.jobs) == 1
    assert api.create().delay == 0


def test_create_reply_lost(api, emulator):
    emulator.scenario("create_reply_lost")
    with pytest.raises(Dropped):
        api.create()
    assert len(emulator.jobs) == 1
    assert emulator.log.count("batches.create", status=0) == 1
    assert api.create().status == 200


def test_create_500_but_created(api, emulator):
    emulator.scenario("create_500_but_created")
    assert api.create().status == 500
    assert len(emulator.jobs) == 1


def test_create_not_accepted_connection_dropped(api, emulator):
    emulator.scenario("create_not_accepted_connection_dropped")
    with pytest.raises(Dropped):
        api.create()
    assert emulator.jobs == ()


def test_nothing_of_ours_was_created_but_a_namesake_is_listed(api, emulator):
    emulator.scenario("foreign_job_same_name")
    emulator.scenario("create_not_accepted_connection_dropped")
    with pytest.raises(Dropped):
        api.create(name="twin")
    assert emulator.jobs == ()
    (listed,) = api.get("batches", pageSize="10")["operations"]
    assert listed["metadata"]["displayName"] == "twin"


def test_accepted_lost_and_listed_late_together(api, emulator):
    emulator.scenario("create_reply_lost")
    emulator.scenario("listed_late", hours=2)
    with pytest.raises(Dropped):
        api.create()
    assert api.get("batches", pageSize="10") == {}
    emulator.clock.advance(hours=2)
    assert len(api.get("batches", pageSize="10")["operations"]) == 1


def test_cut_download(api, emulator, rows):
    emulator.scenario("cut_download", times=1, at=0.5)
    name = finished(api, emulator, *rows)["name"]
    path = f"/v1/files/batch-{name.removeprefix('batches/')}:download"
    cut, whole = api.call("GET", path), api.call("GET", path)
    assert cut.cut
    assert len(b"".join(cut.stream)) == whole.length // 2 == len(b"".join(whole.stream)) // 2


def test_mime_refused(api, emulator):
    emulator.scenario("mime_refused", times=2)
    refused = [api.finalise(b"x", mimeType=mime) for mime in ("jsonl", "application/jsonl")]
    assert [reply.status for reply in refused] == [400, 400]
    assert refused[0].headers["x-goog-upload-status"] == "final"
    assert api.finalise(b"x", mimeType="text/plain").status == 200
    assert api.finalise(b"x").status == 200


# Lists


def test_list_stale_stats(api, emulator, rows):
    emulator.scenario("list_stale_stats")
    operation = finished(api, emulator, *rows)
    (listed,) = api.get("batches", pageSize="1")["operations"]
    assert listed["done"]
    assert listed["metadata"]["state"] == "BATCH_STATE_SUCCEEDED"
    assert listed["metadata"]["batchStats"] == {"requestCount": "20", "pendingRequestCount": "20"}
    assert operation["metadata"]["batchStats"] == {"requestCount": "20", "successfulRequestCount": "20"}


def test_list_empty_page_with_token(api, emulator):
    names = [api.create().body["name"] for _ in range(3)]
    emulator.scenario("list_empty_page_with_token", after=1)
    seen, token, pages = [], "", 0
    while pages == 0 or token:
        page = api.get("batches", pageSize="2", pageToken=token)
        seen += [each["name"] for each in page.get("operations", ())]
        token, pages = page.get("nextPageToken", ""), pages + 1
    assert seen == names[::-1]
    assert pages == 3


def test_an_empty_first_page_goes_on_at_the_beginning(api, emulator):
    name = api.create().body["name"]
    emulator.scenario("list_empty_page_with_token")
    empty = api.get("batches", pageSize="2")
    assert "operations" not in empty
    (listed,) = api.get("batches", pageSize="2", pageToken=empty["nextPageToken"])["operations"]
    assert listed["name"] == name


def test_empty_list_without_page_size(api, emulator):
    api.create()
    assert len(api.get("batches")["operations"]) == 1
    emulator.scenario("empty_list_without_page_size")
    assert api.get("batches") == {}
    assert len(api.get("batches", pageSize="1")["operations"]) == 1


def test_every_scenario_can_be_switched_on_with_its_defaults():
    emulator = Emulator()
    for name in SCENARIOS:
        emulator.scenario(name)
    assert {switch.scenario.name for switch in emulator.switches} == set(SCENARIOS)
    emulator.switch_off()
    assert emulator.switches == ()
