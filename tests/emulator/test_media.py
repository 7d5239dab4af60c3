"""Media in requests: files that are there, still worked on, failed, expired, deleted or another's; and web addresses."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_geminibatch.emulator import Emulator

MODEL = "gemini-3.8-flash"


def uploaded(api: Any, mime_type: str = "image/png") -> str:
    name: str = api.upload(b"data", mimeType=mime_type)
    return name


def asked(api: Any, uri: str) -> Any:
    part = {"fileData": {"mimeType": "image/png", "fileUri": uri}}
    return api.call(
        "POST", f"/v1beta/models/{MODEL}:generateContent", {"contents": [{"parts": [part, {"text": "What?"}]}]}
    )


def row_of(api: Any, emulator: Emulator, uri: str, *, hours: float = 1) -> dict[str, Any]:
    """What a batch of one row that names the URI says of it."""
    part = {"file_data": {"file_uri": uri}}
    request = {"contents": [{"parts": [part, {"text": "What?"}]}]}
    body = {"batch": {"display_name": uri, "input_config": {"requests": {"requests": [{"request": request}]}}}}
    emulator.scenario("late", hours=hours)
    job = api.call("POST", f"/v1beta/models/{MODEL}:batchGenerateContent", body).body["name"]
    emulator.switch_off("late")
    emulator.clock.advance(hours=hours + 0.1)
    answers = api.call("GET", f"/v1beta/{job}").body["response"]["inlinedResponses"]["inlinedResponses"]
    return dict(answers[0])


def test_a_file_that_is_there_is_read_by_either_of_its_names(api, emulator):
    name = uploaded(api)

    assert asked(api, f"http://testserver/v1beta/{name}").status == 200
    assert "response" in row_of(api, emulator, name)


@pytest.mark.parametrize("uri", ["files/nobody", "https://host/v1/files/nobody"])
def test_a_file_that_is_not_there_fails_its_row_and_refuses_a_call(api, emulator, uri):
    denied = "You do not have permission to access the File nobody or it may not exist."

    assert row_of(api, emulator, uri)["error"] == {"code": 7, "message": denied}
    assert (asked(api, uri).status, asked(api, uri).body["error"]["message"]) == (403, denied)


def test_a_file_that_expires_before_the_job_comes_to_it_fails_its_row(api, emulator):
    name = uploaded(api)
    emulator.clock.advance(hours=40)

    assert row_of(api, emulator, name, hours=9)["error"]["code"] == 7
    assert "response" in row_of(api, emulator, uploaded(api), hours=9)


def test_a_file_that_was_deleted_after_the_end_had_been_read(api, emulator):
    name = uploaded(api)
    late = uploaded(api)
    api.call("DELETE", f"/v1beta/{name}")

    assert row_of(api, emulator, name)["error"]["code"] == 7
    assert "response" in row_of(api, emulator, late)


def test_a_file_of_another_project_is_as_good_as_none(api):
    api.emulator = Emulator(seed=1, speed=0, keys={"one": "p1", "two": "p2"})
    api.key = "one"
    name = uploaded(api)
    api.key = "two"

    assert asked(api, name).status == 403


@pytest.mark.parametrize(
    ("uri", "fine"), [("https://youtu.be/x", True), ("gs://b/o", False), ("geminibatch:sha256:0", False)]
)
def test_other_addresses(api, emulator, uri, fine):
    assert ("response" in row_of(api, emulator, uri)) is fine
    assert asked(api, uri).status == (200 if fine else 400)


def test_a_video_is_worked_on_for_a_while_where_that_is_on(api, emulator):
    emulator.scenario("slow_media", minutes=3)
    image, video = uploaded(api), uploaded(api, "video/mp4")

    assert api.call("GET", f"/v1beta/{image}").body["state"] == "ACTIVE"
    assert api.call("GET", f"/v1beta/{video}").body["state"] == "PROCESSING"
    assert asked(api, video).body["error"]["status"] == "FAILED_PRECONDITION"
    emulator.clock.advance(minutes=4)
    assert api.call("GET", f"/v1beta/{video}").body["state"] == "ACTIVE"
    assert asked(api, video).status == 200


def test_a_file_that_the_service_cannot_use_says_why(api, emulator):
    emulator.scenario("failed_media", message="no picture in it")
    name = uploaded(api)

    shown = api.call("GET", f"/v1beta/{name}").body
    assert (shown["state"], shown["error"]["message"]) == ("FAILED", "no picture in it")
    assert row_of(api, emulator, name)["error"]["code"] == 9
