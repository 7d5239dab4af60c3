"""Media of a request: told by their content, and spliced in as parts."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.core.media import (
    MEDIA_FIELD,
    Media,
    Place,
    file_part,
    inline_part,
    place_of,
    stand_in,
    too_big,
)
from airflow_provider_geminibatch.core.media_types import HEAD_BYTES, TAKEN, mime_of, sniff, suffix_type
from airflow_provider_geminibatch.core.rows import Encoded, Fault
from airflow_provider_geminibatch.core.template import RequestTemplate, compile_template
from tests.media_files import BEGINNINGS

GOOGLE = "https://generativelanguage.googleapis.com"


@pytest.mark.parametrize("mime_type", BEGINNINGS)
def test_a_file_is_told_by_how_it_begins(mime_type: str) -> None:
    assert sniff(BEGINNINGS[mime_type]) == mime_type


def test_a_bare_mpeg_stream_is_sound() -> None:
    assert sniff(b"\xff\xfb\x90\x64\x00") == "audio/mp3"
    assert sniff(b"\xff\xfe\x00\x00") == ""  # the byte order mark of UTF-16
    assert sniff(b"\xff\xe5\x90\x00") == ""  # no layer, and no ADTS either


def test_text_is_text_wherever_its_head_is_cut() -> None:
    euros = ("€" * HEAD_BYTES).encode()

    assert [sniff(euros[:length]) for length in range(HEAD_BYTES - 3, HEAD_BYTES)] == ["text/plain"] * 3
    assert sniff(b"") == sniff(b"a\x00b") == sniff(b"caf\xe9 au lait") == ""


@given(st.binary(max_size=64))
def test_whatever_a_file_holds_something_is_said_of_it(head: bytes) -> None:
    made = mime_of(head)

    assert made in TAKEN if isinstance(made, str) else made.what


@pytest.mark.parametrize(
    ("begins", "name", "declared", "becomes"),
    [
        ("image/png", "cat.jpg", None, "image/png"),
        ("image/png", "cat.jpg", "image/png", "image/png"),
        ("image/jpeg", "", "image/jpg", "image/jpeg"),
        ("text/plain", "table.CSV", None, "text/csv"),
        ("text/plain", "s3://bucket/page.html?v=2", None, "text/html"),
        ("text/plain", "notes", "text/markdown; charset=utf-8", "text/md"),
        ("text/plain", "model.json", None, "text/plain"),
        ("image/svg+xml", "plan.svg", "text/xml", "text/xml"),
        ("video/mp4", "clip.mp4", "video/quicktime", "video/mov"),
        ("image/heif", "photo.heic", "image/heic", "image/heic"),
    ],
)
def test_the_type_that_is_sent(begins: str, name: str, declared: str | None, becomes: str) -> None:
    assert mime_of(BEGINNINGS[begins], name=name, declared=declared) == becomes


@pytest.mark.parametrize(
    ("head", "name", "declared", "says"),
    [
        (BEGINNINGS["image/png"], "cat.png", "image/jpeg", "is image/png by its content, and was declared as image/jpeg"),
        (BEGINNINGS["image/gif"], "cat.png", None, "is image/gif, which Gemini does not take"),
        (BEGINNINGS["audio/mp4"], "song.m4a", None, "is audio/mp4, which Gemini does not take"),
        (b"<html>404</html>", "cat.png", None, "is text, and image/png by its name"),
        (b"\x00\x01\x02", "cat.png", None, None),
        (b"\x00\x01\x02", "data", None, "is of a type that neither its content nor its name shows"),
        (b"\x00\x01\x02", "film.mkv", None, "is video/x-matroska, which Gemini does not take"),
    ],
)  # fmt: skip
def test_what_gemini_does_not_take_is_named(head: bytes, name: str, declared: str | None, says: str | None) -> None:
    made = mime_of(head, name=name, declared=declared)

    assert made == "image/png" if says is None else isinstance(made, Fault) and made.what == says and made.hint


def test_every_hint_for_an_image_names_what_to_make_of_it() -> None:
    fault = mime_of(BEGINNINGS["image/tiff"])

    assert isinstance(fault, Fault)
    assert fault.hint == "convert it to heic, heif, jpeg, png, webp"


def test_names_of_known_kinds_say_a_type() -> None:
    assert suffix_type("https://host/a.MP3#t=10") == "audio/mp3"
    assert suffix_type("/data/a.unknown") == suffix_type("/data.v2/a") == ""


@pytest.mark.parametrize(
    ("value", "route", "place"),
    [
        ("/data/cat.png", "developer", Place("/data/cat.png", False)),
        (" s3://conn@bucket/cat.png ", "developer", Place("s3://conn@bucket/cat.png", False)),
        ("https://host/cat.png", "developer", Place("https://host/cat.png", False)),
        ("gs://bucket/cat.png", "developer", Place("gs://bucket/cat.png", False)),
        ("gs://bucket/cat.png", "vertex", Place("gs://bucket/cat.png", True, "image/png")),
        ("files/abc-1", "developer", Place(f"{GOOGLE}/v1beta/files/abc-1", True)),
        (f"{GOOGLE}/v1/files/abc", "developer", Place(f"{GOOGLE}/v1/files/abc", True)),
        ("https://youtu.be/abc", "developer", Place("https://youtu.be/abc", True)),
        ("https://www.youtube.com/watch?v=abc", "vertex", Place("https://www.youtube.com/watch?v=abc", True)),
    ],
)
def test_who_reads_a_medium(value: str, route: str, place: Place) -> None:
    assert place_of(value, route, GOOGLE) == place


@pytest.mark.parametrize(
    ("value", "route", "says"),
    [
        ("cat.png", "developer", "relative path"),
        ("files/abc", "vertex", "Vertex AI cannot read"),
        ("geminibatch:sha256:00", "developer", "stand-in"),
    ],
)
def test_a_place_that_cannot_be_read_is_named(value: str, route: str, says: str) -> None:
    made = place_of(value, route, GOOGLE)

    assert isinstance(made, Fault)
    assert says in made.what


def test_sizes_are_held_against_the_limits_of_their_type() -> None:
    assert too_big(2_000_000_000, "video/mp4") is None
    assert too_big(50_000_000, "application/pdf") is None
    assert too_big(2_000_000_001, "video/mp4") is not None
    fault = too_big(50_000_001, "application/pdf")
    assert fault is not None
    assert "50,000,001 bytes, and a application/pdf may have 50,000,000" in fault.what


def asked(template: RequestTemplate, parts: bytes, **row: Any) -> dict[str, Any]:
    encoded = compile_template(template).encode({"id": "1", "text": "cats?", MEDIA_FIELD: parts, **row})
    assert isinstance(encoded, Encoded)
    request: dict[str, Any] = msgspec.json.decode(encoded.request)
    return request


def test_media_go_before_the_text() -> None:
    template = RequestTemplate(prompt="Any $text", media="$image")
    part = inline_part(b"\x89PNG", "image/png")

    request = asked(template, part + b",")

    inline = {"mimeType": "image/png", "data": base64.b64encode(b"\x89PNG").decode()}
    assert request["contents"] == [{"role": "user", "parts": [{"inlineData": inline}, {"text": "Any cats?"}]}]


def test_a_row_without_media_is_asked_by_text_alone() -> None:
    template = RequestTemplate(prompt="$text", media=["$image", "$sound"])

    assert asked(template, b"")["contents"][0]["parts"] == [{"text": "cats?"}]


def test_several_parts_and_what_they_say_beside_the_data_are_checked_and_kept() -> None:
    film = Media("$film", video={"start_offset": "10s", "fps": 1}, resolution="MEDIA_RESOLUTION_LOW")
    template = RequestTemplate(prompt="$text", media=[film, "$image"])
    first, second = compile_template(template).media

    request = asked(
        template,
        file_part(stand_in("a" * 64), "video/mp4", first.more) + b"," + file_part("files/b", "", second.more) + b",",
    )  # fmt: skip

    assert request["contents"][0]["parts"] == [
        {
            "fileData": {"mimeType": "video/mp4", "fileUri": f"geminibatch:sha256:{'a' * 64}"},
            "videoMetadata": {"startOffset": "10s", "fps": 1},
            "mediaResolution": {"level": "MEDIA_RESOLUTION_LOW"},
        },
        {"fileData": {"fileUri": "files/b"}},
        {"text": "cats?"},
    ]


def test_a_column_in_the_prompt_and_the_media_stay_apart() -> None:
    template = RequestTemplate(prompt="$a$b", system_instruction="$a", media="$image", generation={"temperature": 0})

    request = asked(template, file_part("files/x", "") + b",", a='"},', b="{}")

    assert request["contents"][0]["parts"] == [{"fileData": {"fileUri": "files/x"}}, {"text": '"},{}'}]
    assert request["systemInstruction"]["parts"] == [{"text": '"},'}]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (7, "a int is no medium"),
        ({"path": "$image"}, "a dict is no medium"),
        ("  ", "a source is empty"),
        (Media("$image", mime_type="image/gif"), "'image/gif' is nothing that Gemini takes"),
        (Media("$a$"), "names no column"),
        (Media("$film", video={"speed": 2}), "speed"),
        (Media("$film", resolution="BEST"), "mediaResolution"),
    ],
)
def test_a_medium_that_cannot_work_is_refused_with_the_argument(given: Any, says: str) -> None:
    with pytest.raises(Unusable, match=r"(?i)media") as refused:
        compile_template(RequestTemplate(prompt="$text", media=given))
    assert says in str(refused.value)


@pytest.mark.parametrize("given", [{"on_missing_media": "skip"}, {"inline_limit_bytes": 12_000_001}])
def test_choices_about_media_that_are_not_known_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(Unusable):
        RequestTemplate(prompt="$text", media="$image", **given)


def test_equal_media_give_equal_templates_in_every_form() -> None:
    plain = RequestTemplate(prompt="$text", media="$image")
    same = [
        RequestTemplate(prompt="$text", media=["$image"]),
        RequestTemplate(prompt="$text", media=Media("$image")),
        RequestTemplate(prompt="$text", media=[{"source": "$image"}]),
        RequestTemplate(**plain.serialize()),
    ]

    assert all(other == plain and other.declaration() == plain.declaration() for other in same)
    assert plain.serialize() == {"prompt": "$text", "media": [{"source": "$image"}]}
    assert plain != RequestTemplate(prompt="$text")
    assert "media" not in RequestTemplate(prompt="$text").serialize()


def test_a_source_of_media_is_rendered_with_the_other_texts() -> None:
    template = RequestTemplate(prompt="$text", media=Media("s3://b/{{ ds }}/$image", resolution="MEDIA_RESOLUTION_LOW"))

    rendered = template.rendered(lambda text: text.replace("{{ ds }}", "2026-11-22"))

    assert rendered.media == (Media("s3://b/2026-11-22/$image", resolution="MEDIA_RESOLUTION_LOW"),)


def test_rows_that_are_only_looked_at_need_no_media() -> None:
    encoded = compile_template(RequestTemplate(prompt="$text", media="$image")).encode({"id": "1", "text": "cats?"})

    assert isinstance(encoded, Encoded)
    assert msgspec.json.decode(encoded.request)["contents"][0]["parts"] == [{"text": "cats?"}]
