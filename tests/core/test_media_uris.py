"""Media URIs: where they are found, which file they name, and which route reads them."""

from __future__ import annotations

import pytest

from airflow_provider_geminibatch.core.media_uris import BLANK, MediaUri, file_name, media_uris, uri_fault

FILE_URL = "https://generativelanguage.googleapis.com/v1beta/files/abc-1"


def test_every_uri_of_a_request_is_found_in_either_spelling() -> None:
    request = {
        "contents": [
            {"parts": [{"text": "a"}, {"fileData": {"fileUri": "files/a", "mimeType": "image/png"}}]},
            {"parts": [{"file_data": {"file_uri": "gs://b/c"}}]},
        ],
        "system_instruction": {"parts": [{"fileData": {"fileUri": FILE_URL}}]},
    }
    assert list(media_uris(request)) == [
        MediaUri("request.contents[0].parts[1].fileData", "files/a", "image/png"),
        MediaUri("request.contents[1].parts[0].file_data", "gs://b/c", ""),
        MediaUri("request.system_instruction.parts[0].fileData", FILE_URL, ""),
    ]


@pytest.mark.parametrize(
    "request_", [{}, {"contents": 5}, {"contents": [7, {"parts": "x"}]}, {"content": {"parts": [None]}}]
)
def test_a_request_that_is_none_has_no_uris(request_: dict[str, object]) -> None:
    assert list(media_uris(request_)) == []


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("files/abc-1", "files/abc-1"),
        (FILE_URL, "files/abc-1"),
        ("http://127.0.0.1:8080/v1/files/x", "files/x"),
        (f"{FILE_URL}:download?alt=media", "files/abc-1"),
        ("gs://files/abc", ""),
        ("https://example.com/files/abc", ""),
        ("files/", ""),
    ],
)
def test_a_file_of_the_files_api_is_known_by_its_name_and_by_its_url(uri: str, name: str) -> None:
    assert file_name(uri) == name


@pytest.mark.parametrize(
    ("uri", "developer", "vertex"),
    [
        ("files/a", "reads", "refused"),
        (FILE_URL, "reads", "refused"),
        ("gs://bucket/a.png", "refused", "reads"),
        ("https://www.youtube.com/watch?v=x", "reads", "reads"),
        ("https://youtu.be/x", "reads", "reads"),
        ("https://example.com/a.png", "reads", "warned"),
        ("http://example.com/a.png", "warned", "warned"),
        ("s3://bucket/a.png", "refused", "refused"),
        ("/home/me/a.png", "refused", "refused"),
        (BLANK, "reads", "reads"),
        ("geminibatch:sha256:00", "refused", "refused"),
    ],
)
def test_each_route_reads_its_own_kind_of_uri(uri: str, developer: str, vertex: str) -> None:
    for route, verdict in (("developer", developer), ("vertex", vertex)):
        fault = uri_fault(uri, route)
        assert ("reads" if fault is None else "refused" if fault.certain else "warned") == verdict
