"""Each scenario on the wire of Vertex AI."""

import json
from datetime import timedelta

import pytest

from airflow_provider_geminibatch.emulator import SCENARIOS
from airflow_provider_geminibatch.emulator.wire import Dropped

FLASH = "gemini-3.8-flash"


@pytest.fixture
def rows(make_line):
    return [make_line(f"k{n}", f"the prompt of row {n}") for n in range(20)]


def candidate(line):
    return line["response"]["candidates"][0]


def text(line):
    return candidate(line)["content"]["parts"][0]["text"]


def folder(vertex, job):
    return vertex.objects(vertex.get(job["name"])["outputInfo"]["gcsOutputDirectory"])


def ended(vertex, *rows, hours=24, **fields):
    job = vertex.create(*rows, **fields)
    vertex.emulator.clock.advance(hours=hours)
    return vertex.get(job["name"])


def charged(emulator):
    return sum(entry["requests"] for entry in emulator.bill()["entries"])


# Jobs


def test_a_late_job_waits_for_what_does_not_fit_into_a_run(vertex, emulator, rows):
    emulator.scenario("late", hours=90)
    name = ended(vertex, *rows, hours=65)["name"]
    assert vertex.get(name)["state"] == "JOB_STATE_QUEUED"
    emulator.clock.advance(hours=20)
    assert vertex.get(name)["state"] == "JOB_STATE_RUNNING"
    emulator.clock.advance(hours=5.1)
    assert vertex.get(name)["state"] == "JOB_STATE_SUCCEEDED"


@pytest.mark.parametrize(("scenario", "settings"), [("queued", {"hours": 72}), ("late", {"hours": 100})])
def test_a_job_expires_after_72_hours_of_waiting_with_nothing(vertex, emulator, rows, scenario, settings):
    emulator.scenario(scenario, **settings)
    name = ended(vertex, *rows, hours=71.9)["name"]
    assert vertex.get(name)["state"] == "JOB_STATE_QUEUED"
    emulator.clock.advance(hours=0.1)
    job = vertex.get(name)
    assert job["state"] == "JOB_STATE_EXPIRED"
    assert not {"error", "endTime", "startTime", "outputInfo", "completionStats"} & set(job)
    emulator.clock.advance(hours=1)
    assert vertex.get(name) == job
    assert vertex.objects("gs://bucket/out") == {}
    assert emulator.bill()["entries"] == []


def test_queued(vertex, emulator, rows):
    emulator.scenario("queued", hours=40)
    name = ended(vertex, *rows, hours=39)["name"]
    assert vertex.get(name)["state"] == "JOB_STATE_QUEUED"
    emulator.clock.advance(hours=1)
    assert vertex.get(name)["state"] == "JOB_STATE_RUNNING"
    emulator.clock.advance(hours=23)
    assert vertex.get(name)["state"] == "JOB_STATE_SUCCEEDED"


def test_a_job_that_never_finishes_is_cut_a_day_after_its_start(vertex, emulator, rows):
    emulator.scenario("never_finishes")
    job = vertex.create(*rows)
    (known,) = emulator.jobs
    emulator.clock.advance(known.starts - known.created + timedelta(hours=23.9))
    running = vertex.get(job["name"])
    assert (running["state"], running["completionStats"]) == ("JOB_STATE_RUNNING", {"incompleteCount": "-1"})
    emulator.clock.advance(hours=0.1)
    cut = vertex.get(job["name"])
    assert (cut["state"], cut["completionStats"]) == ("JOB_STATE_CANCELLED", {"incompleteCount": "20"})
    assert "outputInfo" not in cut
    assert charged(emulator) == 0


@pytest.mark.parametrize(
    "state", ["JOB_STATE_CANCELLED", "JOB_STATE_FAILED", "JOB_STATE_PARTIALLY_SUCCEEDED", "JOB_STATE_EXPIRED"]
)
def test_cut(vertex, emulator, rows, state):
    emulator.scenario("cut", done=0.4, state=state)
    job = ended(vertex, *rows, hours=48)
    assert job["state"] == state
    assert ("error" in job) == (state in ("JOB_STATE_CANCELLED", "JOB_STATE_FAILED"))
    assert job["completionStats"] == {"successfulCount": "8", "incompleteCount": "12"}
    assert len(folder(vertex, job)["predictions.jsonl"].splitlines()) == charged(emulator) == 8


def test_partially_succeeded(vertex, emulator, rows):
    emulator.scenario("partially_succeeded")
    job = ended(vertex, *rows)
    assert job["state"] == "JOB_STATE_PARTIALLY_SUCCEEDED"
    assert "error" not in job
    assert len(folder(vertex, job)["predictions.jsonl"].splitlines()) == charged(emulator) == 18


@pytest.mark.parametrize(("done", "written"), [(0, 0), (0.5, 10)])
def test_job_failed(vertex, emulator, rows, done, written):
    emulator.scenario("job_failed", code=9, message="no luck", done=done)
    job = ended(vertex, *rows)
    assert (job["state"], job["error"]) == ("JOB_STATE_FAILED", {"code": 9, "message": "no luck"})
    assert ("outputInfo" in job) == bool(written)
    assert charged(emulator) == written


def test_unknown_state(vertex, emulator, rows):
    emulator.scenario("unknown_state", after=0, hours=2)
    job = vertex.create(*rows)
    assert job["state"] == "JOB_STATE_PAUSED"
    emulator.clock.advance(hours=24)
    assert vertex.get(job["name"])["state"] == "JOB_STATE_SUCCEEDED"


def test_listed_late(vertex, emulator, rows):
    emulator.scenario("listed_late", hours=1)
    job = vertex.create(*rows)
    assert vertex.get(job["name"])["name"] == job["name"]
    assert vertex.jobs() == {}
    emulator.clock.advance(hours=1)
    assert len(vertex.jobs()["batchPredictionJobs"]) == 1


def test_foreign_job_same_name(vertex, emulator, rows):
    emulator.scenario("foreign_job_same_name", model="gemini-2.5-flash")
    ours = vertex.create(*rows, displayName="twin")
    listed = {job["name"]: job for job in vertex.jobs(filter='display_name="twin"')["batchPredictionJobs"]}
    assert len(listed) == 2
    foreign = listed.pop(next(name for name in listed if name != ours["name"]))
    assert foreign["model"] == "publishers/google/models/gemini-2.5-flash"
    assert foreign["inputConfig"] != ours["inputConfig"]
    assert foreign["outputConfig"] != ours["outputConfig"]
    emulator.clock.advance(hours=24)
    assert (len(emulator.jobs), emulator.bill()["jobs"], charged(emulator)) == (1, 1, 20)
    assert vertex.get(foreign["name"])["state"] == "JOB_STATE_SUCCEEDED"


def test_output_later_than_succeeded(vertex, emulator, rows):
    emulator.scenario("output_later_than_succeeded", minutes=30)
    job = vertex.create(*rows)
    (known,) = emulator.jobs
    emulator.clock.advance(known.ends - known.created)
    early = vertex.get(job["name"])
    assert early["state"] == "JOB_STATE_SUCCEEDED"
    assert "outputInfo" not in early
    assert vertex.objects("gs://bucket/out") == {}
    emulator.clock.advance(minutes=30)
    assert len(vertex.results(job, 0)) == 20


def test_sharded_output(vertex, emulator, rows):
    emulator.scenario("sharded_output", shards=3)
    whole = folder(vertex, ended(vertex, *rows))
    assert list(whole) == [f"predictions.jsonl-0000{n}-of-00003" for n in range(3)]
    assert all(whole.values())
    keys = [json.loads(line)["key"] for piece in whole.values() for line in piece.splitlines()]
    assert sorted(keys) == sorted(f"k{n}" for n in range(20))


def test_unwritable_output(vertex, emulator, rows):
    emulator.scenario("unwritable_output")
    job = ended(vertex, *rows)
    assert (job["state"], job["error"]["code"]) == ("JOB_STATE_FAILED", 7)
    assert '"storage.objects.create" to write gs://bucket/out/prediction-model-2026' in job["error"]["message"]
    assert job["completionStats"] == {"successfulCount": "20"}
    assert folder(vertex, job) == {}
    assert charged(emulator) == 20


def test_numeric_extras(vertex, emulator, make_line):
    emulator.scenario("numeric_extras")
    lines = vertex.results(vertex.create(make_line("000", "x"), make_line("7", "x"), make_line("k7", "x")))
    assert sorted((line["key"] for line in lines), key=str) == [0, 7, "k7"]


def test_incremental_output(vertex, emulator, rows):
    emulator.scenario("incremental_output")
    job = vertex.create(*rows)
    (known,) = emulator.jobs
    emulator.clock.advance(known.starts - known.created + (known.ends - known.starts) * 0.4)
    assert "outputInfo" not in vertex.get(job["name"])
    emulator.clock.advance((known.ends - known.starts) * 0.3)
    running = vertex.get(job["name"])
    assert running["state"] == "JOB_STATE_RUNNING"
    (early,) = folder(vertex, running).items()
    assert early[0] == "incremental_predictions.jsonl"
    assert 10 <= len(early[1].splitlines()) < 20
    emulator.clock.advance(hours=24)
    assert list(folder(vertex, running)) == ["incremental_predictions.jsonl", "predictions.jsonl"]
    assert folder(vertex, running)["predictions.jsonl"].startswith(early[1])
    assert charged(emulator) == 20


def test_output_decoys(vertex, emulator, rows):
    emulator.scenario("output_decoys")
    assert list(folder(vertex, ended(vertex, *rows))) == [
        "predictions.jsonl",
        "predictions.jsonl.metadata",
        "row_count.json",
    ]


def test_extras_dropped(vertex, emulator, rows):
    emulator.scenario("extras_dropped")
    lines = vertex.results(vertex.create(*rows))
    assert all(sorted(line) == ["processed_time", "request", "response", "status"] for line in lines)


# Rows


@pytest.mark.parametrize(
    ("code", "begins", "inner", "name"),
    [
        (3, "Bad Request: ", 400, "INVALID_ARGUMENT"),
        (4, "Internal error occurred. Failed to get generateContentResponse: ", 4, "DEADLINE_EXCEEDED"),
        (5, "Internal error occurred. Failed to get generateContentResponse: ", 404, "NOT_FOUND"),
        (8, "RESOURCE_EXHAUSTED error occurred: ", 429, "RESOURCE_EXHAUSTED"),
        (9, "Bad Request: ", 400, "FAILED_PRECONDITION"),
        (13, "Internal error occurred. Failed to get generateContentResponse: ", 500, "INTERNAL"),
        (14, "Internal error occurred. Failed to get generateContentResponse: ", 503, "UNAVAILABLE"),
    ],
)
@pytest.mark.parametrize("under", ["error", "status", "response.error"])
def test_failed_rows(vertex, emulator, rows, code, begins, inner, name, under):
    emulator.scenario("failed_rows", codes=(code,), rows=(1, 4), under=under)
    job = vertex.create(*rows)
    lines = vertex.by_key(job)
    assert sorted(key for key, line in lines.items() if line["status"]) == ["k1", "k4"]
    error = json.loads(lines["k1"]["status"].removeprefix(begins))["error"]
    assert (error["code"], error["status"]) == (inner, name)
    assert error["message"]
    ended_job = vertex.get(job["name"])
    assert (ended_job["state"], ended_job["completionStats"]) == (
        "JOB_STATE_SUCCEEDED",
        {"successfulCount": "18", "failedCount": "2"},
    )
    assert charged(emulator) == 18


def test_the_response_of_a_failed_row_is_empty_or_null_or_not_there(vertex, emulator, make_line):
    emulator.scenario("all_rows_failed")
    lines = vertex.results(vertex.create(*(make_line(str(n), "x") for n in range(60))))
    assert {repr(line.get("response", "absent")) for line in lines} == {"{}", "None", "'absent'"}
    assert charged(emulator) == 0


@pytest.mark.parametrize(
    ("scenario", "finish"),
    [
        ("empty", "STOP"),
        ("blocked", "SAFETY"),
        ("truncated", "MAX_TOKENS"),
        ("broken_json", "STOP"),
        ("thoughts_only", "MAX_TOKENS"),
    ],
)
def test_answers_that_are_of_no_use_have_an_empty_status(vertex, emulator, rows, scenario, finish):
    emulator.scenario(scenario, rows=(3,))
    line = vertex.by_key(vertex.create(*rows))["k3"]
    assert (line["status"], candidate(line)["finishReason"]) == ("", finish)


def test_no_total_tokens(vertex, emulator, rows):
    emulator.scenario("no_total_tokens", rows=(3,))
    lines = vertex.by_key(vertex.create(*rows))
    assert "totalTokenCount" not in lines["k3"]["response"]["usageMetadata"]
    assert charged(emulator) == 20


def test_prompt_blocked(vertex, emulator, rows):
    emulator.scenario("prompt_blocked", rows=(3,))
    line = vertex.by_key(vertex.create(*rows))["k3"]
    assert line["response"]["promptFeedback"] == {"blockReason": "PROHIBITED_CONTENT"}
    assert "candidates" not in line["response"]


def test_wrong_answer(vertex, emulator, rows):
    emulator.scenario("wrong_answer", rows=(3,))
    assert "another row" in text(vertex.by_key(vertex.create(*rows))["k3"])


@pytest.mark.parametrize(
    ("scenario", "keys"),
    [
        ("missing", ["k0", "k2"]),
        ("duplicate", ["k0", "k1", "k1", "k2"]),
        ("duplicate_differing", ["k0", "k1", "k1", "k2"]),
        ("keyless", ["", "k0", "k2"]),
        ("unknown_key", ["k0", "k2", "unknown-k1"]),
    ],
)
def test_rows_that_do_not_come_once_under_their_key(vertex, emulator, rows, scenario, keys):
    emulator.scenario(scenario, rows=(1,))
    lines = vertex.results(vertex.create(*rows[:3]))
    assert sorted(line.get("key", "") for line in lines) == keys
    twins = [text(line) for line in lines if line.get("key") == "k1"]
    if len(twins) == 2:
        assert (twins[0] == twins[1]) == (scenario == "duplicate")


def test_rows_of_an_embedding_job(vertex, emulator):
    emulator.scenario("usage_metadata", rows=(0,))
    emulator.scenario("short_vector", rows=(1,))
    request = {"content": {"parts": [{"text": "abcd"}]}, "outputDimensionality": 4}
    rows = [json.dumps({"key": f"k{n}", "request": request}) for n in range(2)]
    lines = vertex.by_key(vertex.create(*rows, model="publishers/google/models/gemini-embedding-2"))
    assert lines["k0"]["response"]["usageMetadata"] == {"promptTokenCount": 1}
    assert len(lines["k1"]["response"]["embedding"]["values"]) == 2


def test_opaque_refusal(vertex, emulator, rows):
    emulator.scenario("opaque_refusal", rows=(3,))
    job = ended(vertex, *rows)
    assert (job["state"], job["error"]) == ("JOB_STATE_FAILED", {"code": 13, "message": "INTERNAL"})
    assert charged(emulator) == 0


@pytest.mark.parametrize("name", sorted(name for name, scenario in SCENARIOS.items() if scenario.scope == "row"))
def test_a_prompt_can_ask_for_its_own_scenario(vertex, make_line, name):
    job = ended(vertex, make_line("k", f"a prompt [[emulator:{name}]]"), make_line("fine", "a prompt"))
    if name == "opaque_refusal":
        assert job["state"] == "JOB_STATE_FAILED"
        return
    lines = [json.loads(line) for line in folder(vertex, job)["predictions.jsonl"].splitlines()]
    (fine,) = [line for line in lines if line.get("key") == "fine"]
    assert (fine["status"], candidate(fine)["finishReason"]) == ("", "STOP")


# Choosing, calls and lists


def test_jobs_are_chosen_by_ordinal_over_both_wires(api, vertex, emulator, rows):
    emulator.scenario("job_failed", jobs=(1,))
    names = [api.create(*rows).body["name"], vertex.create(*rows)["name"], vertex.create(*rows)["name"]]
    emulator.clock.advance(hours=24)
    assert [emulator.state(name).rpartition("_")[2] for name in names] == ["SUCCEEDED", "FAILED", "SUCCEEDED"]


def test_rows_keep_the_scenarios_that_were_on_at_the_create(vertex, emulator, rows):
    emulator.scenario("blocked", rows=(0,))
    job = vertex.create(*rows)
    emulator.switch_off()
    emulator.scenario("missing")
    lines = vertex.by_key(job)
    assert (len(lines), candidate(lines["k0"])["finishReason"]) == (20, "SAFETY")


@pytest.mark.parametrize(("scenario", "status"), [("burst_429", 429), ("burst_503", 503), ("refused_calls", 402)])
def test_a_burst_meets_the_next_calls_of_its_endpoint(vertex, emulator, scenario, status):
    emulator.scenario(scenario, endpoint="vertex.list", times=2, after=1)
    path = f"{vertex.parent}/batchPredictionJobs"
    replies = [vertex.call("GET", path) for _ in range(4)]
    assert [reply.status for reply in replies] == [200, status, status, 200]
    assert "ai.google.dev" not in replies[1].body["error"]["message"]


def test_slow_and_dropped_calls(vertex, emulator, rows):
    emulator.scenario("slow_replies", endpoint="vertex.create", seconds=9)
    emulator.scenario("dropped_calls", endpoint="vertex.get")
    vertex.put("\n".join(rows))
    reply = vertex.post(vertex.body())
    assert reply.delay == 9
    with pytest.raises(Dropped):
        vertex.get(reply.body["name"])
    assert vertex.get(reply.body["name"])["name"] == reply.body["name"]


def test_create_reply_lost(vertex, emulator, rows):
    emulator.scenario("create_reply_lost")
    with pytest.raises(Dropped):
        vertex.create(*rows)
    (listed,) = vertex.jobs(filter='display_name="nightly"')["batchPredictionJobs"]
    assert [job.name for job in emulator.jobs] == [listed["name"]]
    assert emulator.log.count("vertex.create", status=0) == 1
    assert len(vertex.results(listed)) == 20


def test_create_500_but_created(vertex, emulator, rows):
    emulator.scenario("create_500_but_created")
    assert vertex.post(vertex.body()).status == 500
    assert len(emulator.jobs) == 1


def test_nothing_of_ours_was_created_but_a_namesake_is_listed(vertex, emulator, rows):
    emulator.scenario("foreign_job_same_name")
    emulator.scenario("create_not_accepted_connection_dropped")
    with pytest.raises(Dropped):
        vertex.create(*rows, displayName="twin")
    assert emulator.jobs == ()
    (listed,) = vertex.jobs()["batchPredictionJobs"]
    assert (listed["displayName"], listed["model"]) == ("twin", f"publishers/google/models/{FLASH}")


def test_lists(vertex, emulator, rows):
    names = [vertex.create(*rows)["name"] for _ in range(3)]
    emulator.scenario("list_empty_page_with_token", after=1)
    first = vertex.jobs(pageSize="2")
    empty = vertex.jobs(pageSize="2", pageToken=first["nextPageToken"])
    assert "batchPredictionJobs" not in empty
    last = vertex.jobs(pageSize="2", pageToken=empty["nextPageToken"])
    assert [job["name"] for page in (first, last) for job in page["batchPredictionJobs"]] == names[::-1]
    emulator.scenario("empty_list_without_page_size")
    assert vertex.jobs() == {}


def test_list_stale_stats(vertex, emulator, rows):
    emulator.scenario("list_stale_stats")
    job = ended(vertex, *rows)
    (listed,) = vertex.jobs()["batchPredictionJobs"]
    assert (listed["state"], "completionStats" in listed) == ("JOB_STATE_SUCCEEDED", False)
    assert job["completionStats"] == {"successfulCount": "20"}
