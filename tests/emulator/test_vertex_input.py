"""What makes a whole job of Vertex AI fail when it reads its input, and what makes single rows fail."""

import json

import pytest

from airflow_provider_geminibatch.emulator import Emulator, Limits
from airflow_provider_geminibatch.emulator.vertex_results import status_text


def line(**request):
    return json.dumps({"key": "k", "request": {"contents": [{"parts": [{"text": "hi"}]}], **request}})


def failure(vertex, *rows, **fields):
    """The error of a job of those rows."""
    job = vertex.create(*rows, **fields)
    vertex.emulator.clock.advance(hours=24)
    ended = vertex.get(job["name"])
    assert ended["state"] == "JOB_STATE_FAILED"
    assert not {"outputInfo", "completionStats"} & set(ended)
    assert ended["endTime"] > ended["startTime"]
    assert vertex.objects("gs://bucket/out") == {}
    assert vertex.emulator.bill()["total_usd"] == "0"
    return ended["error"]


def status(vertex, row):
    """The status of the row `k` beside one that is fine, and the error in it."""
    other = json.dumps({"key": "fine", "request": {"contents": [{"parts": [{"text": "hi"}]}]}})
    job = vertex.create(row, other)
    lines = vertex.by_key(job)
    ended = vertex.get(job["name"])
    assert ended["state"] == "JOB_STATE_SUCCEEDED"
    assert ended["completionStats"] == {"successfulCount": "1", "failedCount": "1"}
    assert lines["fine"]["status"] == ""
    text = lines["k"]["status"]
    assert not lines["k"].get("response")
    return text, json.loads(text[text.index("{") :])["error"]


@pytest.mark.parametrize(
    ("request_fields", "path"),
    [
        ({"tools": [{"googleSearch": {}}]}, "request.tools.googleSearch"),
        ({"tools": [{"functionDeclarations": []}, {"url_context": {}}]}, "request.tools.url_context"),
        (
            {"generationConfig": {"responseSchema": {"properties": {}}}},
            "request.generationConfig.responseSchema.properties",
        ),
        ({"labels": {}}, "request.labels"),
    ],
)
def test_an_object_without_fields_fails_the_whole_job(vertex, request_fields, path):
    error = failure(vertex, line(), line(**request_fields))
    text = f"Failed to import data. Query error: Cannot store struct '{path}' with no fields"
    assert error == {"code": 3, "message": text}


def test_an_object_without_fields_beside_the_request_fails_it_too(vertex):
    row = json.dumps({"key": "k", "note": [{"a": 1}, {}], "request": {"contents": []}})
    assert "Cannot store struct 'note' with no fields" in failure(vertex, row)["message"]


def test_an_empty_object_in_a_text_and_a_null_field_are_fine(vertex):
    job = vertex.create(line(tools=[{"googleSearch": {"timeRangeFilter": None}}], labels={"a": "{}"}))
    (row,) = vertex.results(job)
    assert row["status"] == ""


@pytest.mark.parametrize("row", ["not json", '{"request": {"contents": [}}', '["a list"]', '"text"', "{" * 100_000])
def test_a_line_that_is_no_object_fails_the_job(vertex, row):
    error = failure(vertex, line(), row)
    assert error["code"] == 3
    assert error["message"].startswith(
        "Failed to import data. Please check 'Prepare input' section of the batch predictions documentation. "
        "Error while reading data, error message: JSON parsing error in row starting at position "
    )


def test_an_input_that_is_missing_or_empty_or_has_no_requests_fails_the_job(vertex):
    config = {"instancesFormat": "jsonl", "gcsSource": {"uris": ["gs://bucket/in/none.jsonl"]}}
    error = failure(vertex, line(), inputConfig=config)
    assert (error["code"], "gs://bucket/in/none.jsonl" in error["message"]) == (5, True)
    assert "no requests" in failure(vertex, "")["message"]
    assert "request" in failure(vertex, '{"contents": []}')["message"]


def test_an_input_that_is_too_large_fails_the_job(vertex):
    vertex.emulator = Emulator(limits=Limits(vertex_rows=2), speed=0)
    assert "more than 2 requests" in failure(vertex, line(), line(), line())["message"]
    vertex.emulator = Emulator(limits=Limits(vertex_input_bytes=100), speed=0)
    assert "larger than 100 bytes" in failure(vertex, line(), line())["message"]


def nested(levels):
    return "1" if levels == 0 else f'{{"a":{nested(levels - 1)}}}'


def test_objects_nested_beyond_fifteen_levels_fail_the_job(vertex):
    fine, deep = (f'{{"request":{{"contents":[],"x":{nested(levels)}}}}}' for levels in (14, 15))
    text = "Schema nested too deeply, at least 16 compared to the maximum allowed level of 15"
    assert failure(vertex, fine, deep)["message"].endswith(text)
    (row,) = vertex.results(vertex.create(fine))
    assert "Unknown name" in row["status"]


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        ({"tools": [{"$defs": 1}]}, {}, 'Invalid field name "$defs"'),
        ({"labels": {"a name": "x"}}, {}, 'Invalid field name "a name"'),
        (
            {"generationConfig": {"responseJsonSchema": {"type": ["string", "null"]}}},
            {"generationConfig": {"responseJsonSchema": {"type": "string"}}},
            "Repeated field must be imported as a JSON array. Field: request.generationConfig.responseJsonSchema.type.",
        ),
        (
            {"generationConfig": {"responseSchema": {"enum": None}}},
            {"generationConfig": {"responseSchema": {"enum": ["a"]}}},
            "Only optional fields can be set to NULL. Field: enum;",
        ),
        ({"tools": [None]}, {}, "Only optional fields can be set to NULL. Field: tools;"),
        ({"tools": [[]]}, {}, "Array specified for non-repeated field: request.tools."),
        ({"labels": "x"}, {"labels": {"a": "b"}}, "This field: request.labels is not a record."),
        (
            {"contents": {"parts": [{"text": "x"}]}},
            {},
            "Repeated field must be imported as a JSON array. Field: request.contents.",
        ),
    ],
)
def test_what_cannot_be_one_table_fails_the_job(vertex, first, second, says):
    error = failure(vertex, line(**first), line(**second))
    assert error["code"] == 3
    assert error["message"].startswith("Failed to import data. Please check 'Prepare input' section of the batch")
    assert says in error["message"]


def test_numbers_and_texts_in_one_place_are_fine(vertex):
    lines = vertex.results(vertex.create(line(labels={"a": "1"}), line(labels={"a": 1})))
    assert sorted(bool(row["status"]) for row in lines) == [False, True]


def test_a_missing_list_comes_back_empty_and_a_missing_object_as_null(vertex):
    tools = [{"googleSearch": {"timeRangeFilter": None}}]
    lines = vertex.results(vertex.create(line(tools=tools, labels={"a": "b"}), line()))
    seen = [(row["request"]["tools"], row["request"]["labels"]) for row in lines]
    assert ([], None) in seen
    assert (tools, {"a": "b"}) in seen


def test_more_fields_than_a_table_has_columns_fail_the_job(vertex):
    rows = (line(labels={f"l{row}-{n}": "x" for n in range(64)}) for row in range(170))
    assert "Too many total leaf fields" in failure(vertex, *rows)["message"]


def test_a_bucket_that_is_not_there_fails_the_job_and_not_the_create(vertex):
    vertex.emulator = Emulator(buckets=("bucket",), speed=0)
    missing = {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": "gs://nowhere/out"}}
    assert "nowhere" in failure(vertex, line(), outputConfig=missing)["message"]
    source = {"instancesFormat": "jsonl", "gcsSource": {"uris": ["gs://nowhere/in.jsonl"]}}
    error = failure(vertex, line(), inputConfig=source)
    assert error["code"] == 9
    assert error["message"] == (
        "Failed to get GCS bucket location for nowhere. Please check that the bucket exists and permissions are set correctly."
    )


def test_a_bucket_that_goes_while_the_job_runs_fails_it_and_costs_nothing(vertex):
    vertex.emulator = Emulator(buckets=("bucket", "results"), speed=0)
    there = {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": "gs://results/out"}}
    job = vertex.create(line(), outputConfig=there)
    (known,) = vertex.emulator.jobs
    vertex.emulator.clock.advance(known.starts - known.created)
    vertex.emulator.buckets.remove("results")
    vertex.emulator.clock.advance(hours=24)
    ended = vertex.get(job["name"])
    assert (ended["state"], ended["error"]["code"]) == ("JOB_STATE_FAILED", 9)
    assert vertex.emulator.bill()["entries"] == []


def test_an_unreadable_input_is_told_soon_after_the_start(vertex):
    job = vertex.create("not json")
    (known,) = vertex.emulator.jobs
    vertex.emulator.clock.advance(known.starts - known.created)
    assert vertex.get(job["name"])["state"] == "JOB_STATE_RUNNING"
    vertex.emulator.clock.advance(minutes=2)
    assert vertex.get(job["name"])["state"] == "JOB_STATE_FAILED"


def test_a_cached_prompt_is_a_404_of_its_row(vertex):
    text, error = status(vertex, line(cachedContent="projects/1/locations/us-central1/cachedContents/42"))
    assert text.startswith("Internal error occurred. Failed to get generateContentResponse: {")
    assert error == {"code": 404, "message": "Not found: cached content metadata for 42.", "status": "NOT_FOUND"}


def test_a_job_whose_every_row_names_a_cache_succeeds_and_costs_nothing(vertex):
    job = vertex.create(*(line(cachedContent="c/1") for _ in range(3)))
    vertex.emulator.clock.advance(hours=24)
    ended = vertex.get(job["name"])
    assert (ended["state"], ended["completionStats"]) == ("JOB_STATE_SUCCEEDED", {"failedCount": "3"})
    assert vertex.emulator.bill()["total_usd"] == "0"


def test_an_unknown_field_is_a_400_of_its_row(vertex):
    text, error = status(vertex, line(generationConfig={"cached_content": "c/1"}))
    assert text.startswith("Bad Request: {")
    assert (error["code"], error["status"]) == (400, "INVALID_ARGUMENT")
    assert error["message"] == (
        "Invalid JSON payload received. Unknown name \"cached_content\" at 'generation_config': Cannot find field."
    )
    assert error["details"][0]["fieldViolations"][0]["field"] == "generation_config"


@pytest.mark.parametrize(
    "row",
    [
        '{"key": "k", "request": null}',
        '{"key": "k"}',
        line(contents=[{"parts": [{"inlineData": {"data": "?"}}]}]),
        line(contents=[{"role": 3}]),
        line(contents=[{"parts": [{"fileData": {"fileUri": "gs://bucket/none.png"}}]}]),
        line(contents=[{"parts": [{"fileData": {"fileUri": "files/abc"}}]}]),
        line(
            contents=[{"parts": [{"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1/files/abc"}}]}]
        ),
    ],
)
def test_a_request_that_cannot_be_answered_is_a_400_of_its_row(vertex, row):
    text, error = status(vertex, row)
    assert text.startswith("Bad Request: {")
    assert error["code"] == 400


def test_media_in_a_bucket_are_looked_for_when_the_row_is_processed(vertex):
    vertex.put(b"picture", "gs://bucket/cat.png")
    job = vertex.create(
        line(contents=[{"parts": [{"fileData": {"fileUri": "gs://bucket/cat.png", "mimeType": "image/png"}}]}])
    )
    (row,) = vertex.results(job)
    assert row["response"]["usageMetadata"]["promptTokenCount"] > 200


def test_a_prompt_can_ask_for_failure_by_its_text_and_a_code_that_nobody_knows_has_a_text(vertex):
    assert status_text({"code": 99, "message": "odd"}) == (
        'Internal error occurred. Failed to get generateContentResponse: {"error": {"code": 99, "message": "odd", '
        '"status": "UNKNOWN"}}'
    )
