"""Files: resumable upload, 48 hours, per project, and downloads of generated ones."""

import base64
import hashlib

import pytest

from airflow_provider_geminibatch.emulator import Emulator, Limits
from airflow_provider_geminibatch.emulator.wire import Reply

DENIED = "You do not have permission to access the File {} or it may not exist."


def message(reply: Reply) -> str:
    return reply.body["error"]["message"]


def session(api, **start) -> tuple[str, dict[str, str]]:
    from urllib.parse import parse_qs, urlsplit

    url = api.call("POST", "/upload/v1beta/files", {"file": {"mime_type": "jsonl", **start}}).headers[
        "x-goog-upload-url"
    ]
    assert url.startswith("http://testserver/upload/v1beta/files?upload_id=")
    return urlsplit(url).path, {"upload_id": parse_qs(urlsplit(url).query)["upload_id"][0]}


def test_a_file_goes_up_in_chunks_that_each_say_their_status(api):
    path, query = session(api, display_name="rows")
    api.key = ""  # the session is authorised by its URL
    first = api.call("POST", path, b"abc", query, x_goog_upload_command="upload", x_goog_upload_offset="0")
    asked = api.call("POST", path, None, query, x_goog_upload_command="query")
    last = api.call("POST", path, b"de", query, x_goog_upload_command="upload, finalize", x_goog_upload_offset="3")
    assert (first.headers["x-goog-upload-status"], asked.headers["x-goog-upload-size-received"]) == ("active", "3")
    assert last.headers["x-goog-upload-status"] == "final"
    assert last.body["file"] == {
        "name": last.body["file"]["name"],
        "displayName": "rows",
        "mimeType": "jsonl",
        "sizeBytes": "5",
        "createTime": "2026-11-01T06:00:00.000000000Z",
        "updateTime": "2026-11-01T06:00:00.000000000Z",
        "expirationTime": "2026-11-03T06:00:00.000000000Z",
        "sha256Hash": base64.b64encode(hashlib.sha256(b"abcde").hexdigest().encode()).decode(),
        "uri": f"http://testserver/v1beta/{last.body['file']['name']}",
        "state": "ACTIVE",
        "source": "UPLOADED",
    }


def test_a_chunk_at_the_wrong_offset_is_refused_and_nothing_is_stored(api):
    path, query = session(api)
    reply = api.call("POST", path, b"abc", query, x_goog_upload_command="upload", x_goog_upload_offset="7")
    asked = api.call("POST", path, None, query, x_goog_upload_command="query")
    assert (reply.status, asked.headers["x-goog-upload-size-received"]) == (400, "0")


def test_an_upload_that_is_over_or_cancelled_is_unknown(api):
    path, query = session(api)
    assert api.call("POST", path, None, query, x_goog_upload_command="cancel").status == 200
    assert api.call("POST", path, b"", query, x_goog_upload_command="upload, finalize").status == 404


def test_the_upload_url_is_on_the_host_that_the_client_sees(api):
    reply = api.call("POST", "/upload/v1/files", {}, x_forwarded_host="proxy:81", x_forwarded_proto="https")
    assert reply.headers["x-goog-upload-url"].startswith("https://proxy:81/upload/v1/files?")


def test_files_are_listed_in_pages(api):
    names = [api.upload("x") for _ in range(5)]
    seen, token = [], ""
    for _ in range(3):
        page = api.get("files", pageSize="2", pageToken=token)
        seen += [file["name"] for file in page["files"]]
        token = page.get("nextPageToken", "")
    assert (seen, token) == (names, "")


def test_a_file_is_gone_after_delete_and_after_48_hours(api, emulator):
    deleted, expired = api.upload("x"), api.upload("y")
    assert api.call("DELETE", f"/v1/{deleted}").body == {}
    assert message(api.call("GET", f"/v1/{deleted}")) == DENIED.format(deleted.removeprefix("files/"))
    emulator.clock.advance(hours=47, minutes=59)
    assert api.get(expired)["state"] == "ACTIVE"
    emulator.clock.advance(minutes=1)
    assert api.call("GET", f"/v1/{expired}").status == 403
    assert api.get("files") == {}


def test_another_project_sees_nothing(emulator, api):
    two = Emulator(keys={"a-key": "one", "b-key": "two", "c-key": "one"})
    api.emulator = two
    file = api.upload("x")
    api.key = "b-key"
    assert api.call("GET", f"/v1/{file}").status == 403
    assert api.create_from({"fileName": file}).status == 403
    api.key = "c-key"
    assert api.call("GET", f"/v1/{file}").status == 200


def test_a_name_of_choice_must_be_proper_and_free(api):
    assert api.upload("x", name="files/my-rows") == "files/my-rows"
    assert api.finalise(b"x", name="my-rows").status == 409
    assert api.finalise(b"x", name="-rows").status == 400
    assert api.finalise(b"x", name="r" * 41).status == 400


def test_an_uploaded_file_cannot_be_downloaded(api):
    assert api.call("GET", f"/v1/{api.upload('x')}:download").status == 400


def test_a_full_storage_and_a_huge_file_are_refused(api):
    api.emulator = Emulator(limits=Limits(storage_bytes=10, file_bytes=8))
    api.upload("x" * 6)
    full = api.finalise(b"x" * 5)
    assert full.status == 429
    violation = next(each for each in full.body["error"]["details"] if "violations" in each)["violations"][0]
    assert violation["quotaId"] == "FileStorageBytesPerProject"
    assert full.body["error"]["details"][-1]["retryDelay"] == "9223372036854775807s"
    assert api.finalise(b"x" * 9).status == 400


@pytest.fixture
def result(api, emulator):
    name = api.create().body["name"]
    emulator.clock.advance(hours=24)
    return "files/batch-" + name.removeprefix("batches/")


def test_a_result_file_is_got_and_downloaded_on_both_paths_but_not_deleted(api, result):
    file = api.get(result)
    assert (file["source"], file["downloadUri"]) == ("GENERATED", f"http://testserver/v1/{result}:download?alt=media")
    one = api.call("GET", f"/v1/{result}:download", query={"alt": "media"})
    other = api.call("GET", f"/download/v1beta/{result}:download", query={"alt": "media"})
    assert b"".join(one.stream) == b"".join(other.stream)
    assert int(file["sizeBytes"]) == one.length
    refused = api.call("DELETE", f"/v1/{result}")
    assert refused.status == 400
    assert message(refused) == (
        "* DeleteFileRequest.name: File ID (name excluding 'files/') cannot be more than 40 characters."
    )


def test_a_result_file_lives_six_weeks(api, emulator, result):
    emulator.clock.advance(weeks=5)
    assert api.call("GET", f"/v1/{result}").status == 200
    emulator.clock.advance(weeks=1)
    assert api.call("GET", f"/v1/{result}").status == 403


@pytest.mark.parametrize(
    ("header", "first", "last"),
    [("bytes=0-9", 0, 10), ("bytes=5-", 5, None), ("bytes=-4", -4, None), ("bytes=2-999999", 2, None)],
)
def test_a_range_of_a_download(api, result, header, first, last):
    whole = b"".join(api.call("GET", f"/v1/{result}:download").stream)
    part = api.call("GET", f"/v1/{result}:download", range=header)
    assert (part.status, b"".join(part.stream)) == (206, whole[first:last])
    assert part.headers["content-range"].endswith(f"/{len(whole)}")


def test_a_range_beyond_the_end_is_refused(api, result):
    assert api.call("GET", f"/v1/{result}:download", range="bytes=999999-").status == 416


def test_big_files_lie_in_the_state_folder_and_leave_nothing(tmp_path, api):
    api.emulator = Emulator(state_dir=tmp_path)
    raw = (b'{"key":"k","request":{"contents":[{"parts":[{"text":"' + b"x" * 500 + b'"}]}]}}\n') * 20_000
    file = api.upload(raw)
    assert api.create_from({"fileName": file}).body["metadata"]["batchStats"]["requestCount"] == "20000"
    assert list(tmp_path.iterdir()) == []  # the files have no name
