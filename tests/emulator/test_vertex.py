"""Vertex AI's batch prediction jobs on the wire: create, life, output, list, cancel, delete."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_geminibatch.emulator import Emulator, Limits

FLASH = "gemini-3.8-flash"
FOLDER = re.compile(r"gs://bucket/out/prediction-model-\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


@pytest.fixture
def rows(make_line):
    return [make_line(f"k{n}", f"the prompt of row {n}") for n in range(20)]


def error(reply):
    return reply.body["error"]


def walk(vertex, name, minutes=15):
    """The job, looked at again and again until it has ended."""
    seen = [vertex.get(name)]
    while seen[-1]["state"] not in ("JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED"):
        vertex.emulator.clock.advance(minutes=minutes)
        seen.append(vertex.get(name))
    return seen


def test_a_new_job_names_its_project_by_number_and_echoes_what_was_asked(vertex, make_line):
    labels = {"dag": "daily"}
    key = {"kmsKeyName": "projects/p/locations/us-central1/keyRings/r/cryptoKeys/k"}
    job = vertex.create(make_line("a", "one"), labels=labels, encryptionSpec=key)
    found = re.fullmatch(r"projects/(\d+)/locations/us-central1/batchPredictionJobs/(\d{19})", job["name"])
    assert found
    assert job == {
        "name": job["name"],
        **vertex.body(labels=labels, encryptionSpec=key),
        "modelVersionId": "1",
        "state": "JOB_STATE_PENDING",
        "createTime": "2026-11-01T06:00:00.000000Z",
        "updateTime": "2026-11-01T06:00:00.000000Z",
    }
    by_number = f"projects/{found[1]}/locations/us-central1/batchPredictionJobs/{found[2]}"
    by_id = f"projects/my-project/locations/us-central1/batchPredictionJobs/{found[2]}"
    assert vertex.get(by_number) == vertex.get(by_id) == job
    vertex.version = "v1"
    assert vertex.get(by_id) == job


def test_a_job_is_pending_then_running_then_succeeded_with_an_output(vertex, rows):
    seen = walk(vertex, vertex.create(*rows)["name"])
    states = list(dict.fromkeys(job["state"] for job in seen))
    assert states == ["JOB_STATE_PENDING", "JOB_STATE_QUEUED", "JOB_STATE_RUNNING", "JOB_STATE_SUCCEEDED"]
    assert not any("outputInfo" in job or "endTime" in job or "error" in job for job in seen[:-1])
    assert not any(
        "completionStats" in job or "startTime" in job for job in seen if job["state"].endswith(("PENDING", "QUEUED"))
    )
    last = seen[-1]
    assert FOLDER.fullmatch(last["outputInfo"]["gcsOutputDirectory"])
    assert last["outputConfig"]["gcsDestination"] == {"outputUriPrefix": "gs://bucket/out"}
    assert last["completionStats"] == {"successfulCount": "20"}
    assert last["createTime"] < last["startTime"] < last["endTime"] == last["updateTime"]
    assert "error" not in last


def test_counts_are_strings_that_move_and_unknown_at_first(vertex, rows):
    running = [job for job in walk(vertex, vertex.create(*rows)["name"], 5) if job["state"].endswith("RUNNING")]
    left = [job["completionStats"]["incompleteCount"] for job in running]
    assert left[0] == "-1"
    known = [int(each) for each in left if each != "-1"]
    assert known == sorted(known, reverse=True)
    assert len(set(known)) > 3


def test_each_row_comes_back_under_its_key_in_another_order_with_its_request(vertex, rows):
    lines = vertex.results(vertex.create(*rows))
    keys = [line["key"] for line in lines]
    assert sorted(keys) == sorted(f"k{n}" for n in range(20))
    assert keys != [f"k{n}" for n in range(20)]
    for line in lines:
        assert sorted(line) == ["key", "processed_time", "request", "response", "status"]
        assert line["status"] == ""
        assert re.fullmatch(r"2026-11-0\dT\d\d:\d\d:\d\d(\.\d{1,6})?\+00:00", line["processed_time"])
        prompt = line["request"]["contents"][0]["parts"][0]["text"]
        assert prompt in line["response"]["candidates"][0]["content"]["parts"][0]["text"]
        assert prompt.endswith(line["key"].removeprefix("k"))
        assert line["response"]["modelVersion"].removesuffix("@default") == FLASH
        assert line["response"]["usageMetadata"]["totalTokenCount"] > 0


def test_lines_are_written_in_one_of_two_forms_by_the_job(vertex, emulator, make_line):
    seen = set()
    for _ in range(12):
        (line,) = vertex.results(vertex.create(make_line("k", "p")))
        seen.add((*line, line["response"]["modelVersion"]))
    assert seen == {
        ("status", "processed_time", "key", "request", "response", f"{FLASH}@default"),
        ("key", "request", "status", "response", "processed_time", FLASH),
    }


def test_the_echo_has_the_fields_of_all_rows_and_extras_come_back(vertex):
    first = {
        "request": {"contents": [{"parts": [{"text": "t"}, {"fileData": {"fileUri": "https://x/y.png"}}]}]},
        "id": 7,
    }
    second = {"key": "b", "request": {"contents": [], "generationConfig": {"temperature": 0}}}
    lines = vertex.results(vertex.create(json.dumps(first), json.dumps(second)))
    by_id = {line["id"]: line for line in lines}
    assert by_id[7]["request"] == {
        "contents": [
            {"parts": [{"fileData": None, "text": "t"}, {"fileData": {"fileUri": "https://x/y.png"}, "text": None}]}
        ],
        "generationConfig": None,
    }
    assert by_id[7]["key"] is None
    assert by_id[None]["request"] == {"contents": [], "generationConfig": {"temperature": 0}}


def test_the_same_seed_gives_the_same_bytes(vertex, rows):
    def outcome(seed):
        vertex.emulator = Emulator(seed=seed, start=datetime(2026, 1, 1, tzinfo=UTC), speed=0)
        job = vertex.create(*rows)
        vertex.emulator.clock.advance(hours=24)
        return vertex.get(job["name"]), vertex.objects("gs://bucket/out")

    assert outcome(1) == outcome(1)
    assert outcome(1)[1] != outcome(2)[1]


def test_the_input_is_read_when_the_job_starts_and_not_needed_later(vertex, emulator, rows):
    job = vertex.create(*rows[:2])
    vertex.put("\n".join(rows[2:5]))
    (known,) = emulator.jobs
    emulator.clock.advance(known.starts - known.created)
    emulator.buckets.delete("bucket", "in/rows.jsonl")
    assert sorted(line["key"] for line in vertex.results(job)) == ["k2", "k3", "k4"]
    assert emulator.jobs[0].rows.count == 3


def test_objects_appear_when_the_job_ends_also_without_a_call_in_between(vertex, emulator, rows):
    vertex.create(*rows)
    (known,) = emulator.jobs
    emulator.clock.advance(known.ends - known.created - timedelta(seconds=1))
    assert vertex.objects("gs://bucket/out") == {}
    emulator.clock.advance(seconds=1)
    assert len(vertex.objects("gs://bucket/out")) == 1


def test_the_same_create_twice_makes_two_jobs_with_two_folders(vertex, emulator, rows):
    first, second = vertex.create(*rows), vertex.create(*rows)
    emulator.clock.advance(hours=24)
    names = {vertex.get(job["name"])["outputInfo"]["gcsOutputDirectory"] for job in (first, second)}
    assert len(names) == 2
    assert len(vertex.objects("gs://bucket/out")) == 2


@pytest.mark.parametrize(
    "place", [{"location": "europe-west4"}, {"location": "global"}, {"project": "another"}, {"project": "123"}]
)
def test_an_id_is_good_in_its_project_and_location_only(vertex, emulator, rows, place):
    job_id = vertex.create(*rows)["name"].rpartition("/")[2]
    for name, value in place.items():
        setattr(vertex, name, value)
    path = f"{vertex.parent}/batchPredictionJobs/{job_id}"
    calls = [("GET", path), ("POST", f"{path}:cancel"), ("DELETE", path)]
    assert [vertex.call(method, each).status for method, each in calls] == [404, 404, 404]
    assert vertex.jobs() == {}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"displayName": ""}, "displayName is required"),
        ({"displayName": "x" * 129}, "at most 128"),
        ({"model": ""}, "model is required"),
        ({"inputConfig": None}, "inputConfig is required"),
        ({"outputConfig": None}, "outputConfig is required"),
        ({"labels": {"Dag": "x"}}, "'Dag' is invalid"),
        ({"labels": {"dag": "x" * 64}}, "is invalid"),
        ({"labels": {f"l{n}": "x" for n in range(65)}}, "at most 64 labels"),
        ({"inputConfig": {"gcsSource": {"uris": ["gs://b/x"]}}}, "instancesFormat is required"),
        ({"inputConfig": {"instancesFormat": "csv", "gcsSource": {"uris": ["gs://b/x"]}}}, "'csv' is not a supported"),
        ({"inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": []}}}, "Exactly one source"),
        ({"inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": ["b/x"]}}}, "begin with gs://"),
        ({"inputConfig": {"instancesFormat": "bigquery", "gcsSource": {"uris": ["gs://b/x"]}}}, "Exactly one source"),
        ({"outputConfig": {"predictionsFormat": "jsonl"}}, "Exactly one destination"),
        (
            {"outputConfig": {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": "/tmp"}}},
            "begin with gs://",
        ),
        ({"model": "models/gemini-3.8-flash"}, "not the name of a model"),
        ({"model": "publishers/google/models/gemini-2.5-flash-preview-tts"}, "not the name of a model"),
        ({"model": "projects/p/locations/us-east1/models/123"}, "is not at the location us-central1"),
        (
            {"model": "projects/p/locations/us-east1/publishers/google/models/gemini-3.8-flash"},
            "is not at the location",
        ),
        ({"encryptionSpec": {"kmsKeyName": "projects/p/locations/eu/keyRings/r/cryptoKeys/k"}}, "is not a key at"),
        ({"display": "x"}, 'Unknown name "display"'),
        ({"inputConfig": {"instancesFormat": 3}}, "Invalid value at 'input_config.instances_format'"),
    ],
)
def test_a_body_that_is_wrong_is_refused(vertex, fields, says):
    reply = vertex.post(vertex.body(**fields))
    assert reply.status == 400
    assert says in error(reply)["message"]
    assert vertex.emulator.jobs == ()


def test_a_model_is_missed_where_it_is_not_offered(vertex, rows):
    for model in ("gemini-9", "gemini-3.5-flash-lite"):
        reply = vertex.post(vertex.body(model=f"publishers/google/models/{model}"))
        assert (reply.status, error(reply)["status"]) == (404, "NOT_FOUND")
        assert error(reply)["message"] == f"The PublisherModel {model} does not exist."
    vertex.location = "global"
    assert vertex.post(vertex.body(model="publishers/google/models/gemini-3.5-flash-lite")).status == 200
    vertex.emulator = Emulator(locations={FLASH: ("us-east5",)})
    assert vertex.post(vertex.body()).status == 404
    vertex.location = "us-east5"
    assert vertex.post(vertex.body()).status == 200


def test_a_tuned_model_runs_in_its_region_and_not_at_global(vertex, rows):
    model = "projects/p/locations/us-central1/models/123@2"
    lines = vertex.results(vertex.create(*rows, model=model))
    assert {line["response"]["modelVersion"].removesuffix("@default") for line in lines} == {"123"}
    vertex.location = "global"
    assert "global endpoint" in error(vertex.post(vertex.body(model=model)))["message"]


def test_a_preview_takes_no_key_of_the_customers(vertex):
    vertex.location = "global"
    key = {"kmsKeyName": "projects/p/locations/global/keyRings/r/cryptoKeys/k"}
    reply = vertex.post(vertex.body(model="publishers/google/models/gemini-3.1-pro-preview", encryptionSpec=key))
    assert (reply.status, error(reply)["status"]) == (400, "FAILED_PRECONDITION")


def test_snake_case_bodies_are_the_same(vertex, make_line):
    vertex.put(make_line("a", "one"))
    body = {
        "display_name": "snake",
        "model": f"publishers/google/models/{FLASH}",
        "input_config": {"instances_format": "jsonl", "gcs_source": {"uris": ["gs://bucket/in/rows.jsonl"]}},
        "output_config": {"predictions_format": "jsonl", "gcs_destination": {"output_uri_prefix": "gs://bucket/out/"}},
    }
    assert vertex.results(vertex.post(body).body)[0]["key"] == "a"


def test_cancelling_takes_a_while_and_leaves_what_is_done(vertex, emulator, rows):
    job = vertex.create(*rows)
    (known,) = emulator.jobs
    emulator.clock.advance(known.starts - known.created + (known.ends - known.starts) / 2)
    assert vertex.call("POST", f"{job['name']}:cancel").body == {}
    assert vertex.get(job["name"])["state"] == "JOB_STATE_CANCELLING"
    assert "outputInfo" not in vertex.get(job["name"])
    emulator.clock.advance(minutes=3)
    ended = vertex.get(job["name"])
    assert (ended["state"], ended["error"]["code"]) == ("JOB_STATE_CANCELLED", 1)
    assert ended["completionStats"] == {"successfulCount": "10", "incompleteCount": "10"}
    assert "endTime" in ended
    assert len(vertex.results(job, 0)) == 10
    assert [entry["requests"] for entry in emulator.bill()["entries"]] == [10]
    emulator.clock.advance(hours=24)
    assert vertex.get(job["name"]) == ended


def test_a_job_cancelled_before_it_runs_leaves_nothing(vertex, emulator, rows):
    job = vertex.create(*rows)
    vertex.call("POST", f"{job['name']}:cancel", {})
    emulator.clock.advance(hours=24)
    ended = vertex.get(job["name"])
    assert ended["state"] == "JOB_STATE_CANCELLED"
    assert not {"outputInfo", "completionStats", "startTime"} & set(ended)
    assert emulator.bill()["entries"] == []


def test_cancelling_at_the_very_end_comes_too_late(vertex, emulator, rows):
    job = vertex.create(*rows)
    (known,) = emulator.jobs
    emulator.clock.advance(known.ends - known.created - timedelta(minutes=1))
    vertex.call("POST", f"{job['name']}:cancel")
    assert vertex.get(job["name"])["state"] == "JOB_STATE_RUNNING"
    assert len(vertex.results(job)) == 20


def test_cancel_of_a_job_that_ended_is_refused_and_changes_nothing(vertex, emulator, rows):
    job = vertex.create(*rows)
    emulator.clock.advance(hours=24)
    before = vertex.get(job["name"])
    refused = vertex.call("POST", f"{job['name']}:cancel")
    assert (refused.status, error(refused)["status"]) == (400, "FAILED_PRECONDITION")
    assert vertex.get(job["name"]) == before


def test_only_a_job_that_ended_can_be_deleted_and_its_output_stays(vertex, emulator, rows):
    job = vertex.create(*rows)
    refused = vertex.call("DELETE", job["name"])
    assert (refused.status, error(refused)["status"]) == (400, "FAILED_PRECONDITION")
    emulator.clock.advance(hours=24)
    operation = vertex.call("DELETE", job["name"]).body
    assert operation["done"] is True
    assert re.fullmatch(r"projects/\d+/locations/us-central1/operations/\d+", operation["name"])
    assert vertex.call("GET", job["name"]).status == 404
    assert vertex.jobs() == {}
    assert len(vertex.objects("gs://bucket/out")) == 1
    assert [each.name for each in emulator.jobs] == [job["name"]]


def test_lists_are_paged_newest_first(vertex, rows):
    names = [vertex.create(*rows, displayName=f"job-{n}")["name"] for n in range(5)]
    first = vertex.jobs(pageSize="2")
    vertex.create(*rows, displayName="newcomer")
    second = vertex.jobs(pageSize="2", pageToken=first["nextPageToken"])
    last = vertex.jobs(pageSize="2", pageToken=second["nextPageToken"])
    seen = [job["name"] for page in (first, second, last) for job in page["batchPredictionJobs"]]
    assert seen == names[::-1]
    assert "nextPageToken" not in last


def test_a_filtered_list_is_paged_too(vertex, rows):
    names = [vertex.create(*rows, displayName="odd" if n % 2 else "even")["name"] for n in range(6)]
    first = vertex.jobs(pageSize="2", filter='display_name="odd"')
    second = vertex.jobs(pageSize="2", filter='display_name="odd"', pageToken=first["nextPageToken"])
    seen = [job["name"] for page in (first, second) for job in page["batchPredictionJobs"]]
    assert seen == names[5:0:-2]
    assert "nextPageToken" not in second


def test_tokens_are_checked(vertex, emulator, rows):
    vertex.token = ""
    assert (vertex.post(vertex.body()).status, vertex.call("GET", "publishers/google/models").status) == (401, 401)
    vertex.token = "old"
    emulator.revoke("old")
    assert error(vertex.post(vertex.body()))["status"] == "UNAUTHENTICATED"
    vertex.emulator = Emulator(tokens={"mine": "my-project", "yours": "your-project"})
    assert vertex.post(vertex.body()).status == 401
    vertex.token = "yours"
    denied = vertex.post(vertex.body())
    assert denied.status == 403
    assert "'aiplatform.batchPredictionJobs.create' denied" in error(denied)["message"]
    vertex.token = "mine"
    assert vertex.post(vertex.body()).status == 200


def test_an_api_key_is_no_token(vertex):
    vertex.token = ""
    reply = vertex.call("GET", f"{vertex.parent}/batchPredictionJobs", x_goog_api_key="a-key")
    assert reply.status == 401


def test_jobs_of_both_wires_count_together(api, vertex, emulator, rows):
    names = [api.create(*rows).body["name"], vertex.create(*rows)["name"], api.create(*rows).body["name"]]
    assert [(job.ordinal, job.name) for job in emulator.jobs] == list(enumerate(names))
    emulator.clock.advance(hours=24)
    assert [emulator.state(name) for name in names] == [
        "BATCH_STATE_SUCCEEDED",
        "JOB_STATE_SUCCEEDED",
        "BATCH_STATE_SUCCEEDED",
    ]
    assert len(api.get("batches", pageSize="10")["operations"]) == 2
    assert len(vertex.jobs()["batchPredictionJobs"]) == 1
    (entry,) = emulator.bill()["entries"]
    assert (entry["charges"], entry["requests"]) == (3, 60)


def test_the_log_names_the_calls(vertex, emulator, rows):
    job = vertex.create(*rows)
    vertex.get(job["name"])
    vertex.jobs()
    vertex.call("POST", f"{job['name']}:cancel")
    vertex.call("DELETE", job["name"])
    names = ("create", "get", "list", "cancel", "delete")
    assert emulator.log.counts() == {f"vertex.{name}": 1 for name in names}
    assert emulator.log.count("vertex.delete", status=400) == 1
    assert vertex.token not in repr(emulator.log.entries)


def test_an_embedding_batch(vertex):
    row = {
        "key": "e",
        "request": {"content": {"parts": [{"text": "x"}]}, "embed_content_config": {"output_dimensionality": 3}},
    }
    job = vertex.create(json.dumps(row), model="publishers/google/models/gemini-embedding-2")
    (line,) = vertex.results(job)
    assert (line["key"], line["status"]) == ("e", "")
    assert len(line["response"]["embedding"]["values"]) == 3


def test_several_objects_and_wildcards_are_read_in_order(vertex, emulator, rows):
    vertex.put(rows[0], "gs://bucket/parts/1.jsonl")
    vertex.put(rows[1] + "\n", "gs://bucket/parts/2.jsonl")
    vertex.put(rows[2] + "\n", "gs://bucket/more.jsonl")
    uris = ["gs://bucket/parts/*.jsonl", "gs://bucket/more.jsonl"]
    config = {"instancesFormat": "jsonl", "gcsSource": {"uris": uris}}
    job = vertex.post(vertex.body(inputConfig=config)).body
    assert sorted(line["key"] for line in vertex.results(job)) == ["k0", "k1", "k2"]


def test_text_beyond_ascii_and_lone_surrogates_survive(vertex):
    row = '{"key":"sch\\u00f6n \\ud800","request":{"contents":[{"parts":[{"text":"größe \\ud800 漢"}]}]}}'
    (line,) = vertex.results(vertex.create(row))
    assert line["key"] == "schön \ud800"
    assert "größe \ud800 漢" in line["response"]["candidates"][0]["content"]["parts"][0]["text"]


def test_limits_of_a_job_can_be_smaller_in_tests(vertex, rows):
    vertex.emulator = Emulator(limits=Limits(vertex_rows=19), speed=0)
    job = vertex.create(*rows)
    vertex.emulator.clock.advance(hours=24)
    assert "more than 19 requests" in vertex.get(job["name"])["error"]["message"]
