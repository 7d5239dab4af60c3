"""What stands in ``extra`` for the bytes that came inside answers."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.inline_data import Medium, commit_of, medium_of, without_data


def blob(data: bytes, mime_type: Any = "image/png") -> dict[str, Any]:
    return {"mimeType": mime_type, "data": base64.b64encode(data).decode()}


def at(medium: Medium) -> str:
    return f"here/{medium.name}"


@given(st.binary(min_size=1))
def test_bytes_are_named_by_their_digest_alone(data: bytes) -> None:
    digest = hashlib.sha256(data).hexdigest()
    assert medium_of(blob(data)) == Medium(f"{digest[:32]}.png", digest, data)


@pytest.mark.parametrize(
    ("mime_type", "extension"),
    [
        ("image/jpeg", "jpg"),
        ("IMAGE/PNG", "png"),
        ("audio/L16;codec=pcm;rate=24000", "pcm"),
        ("../../etc", "bin"),
        (7, "bin"),
    ],
)
def test_the_extension_is_of_a_table(mime_type: Any, extension: str) -> None:
    found = medium_of(blob(b"x", mime_type))
    assert found is not None
    assert found.name.rpartition(".")[2] == extension


@pytest.mark.parametrize("data", ["iVBOR", "a b=", "é", "", "a-_=", None, 7, ["aGk="]])
def test_what_is_not_base64_stays_as_it_is(data: Any) -> None:
    extra = {"inlineData": [{"mimeType": "image/png", "data": data}]}
    assert without_data(extra, at) == extra


@pytest.mark.parametrize("extra", [None, {}, [], "x", {"inlineData": "x"}, {"inlineData": [None, 1, "x", {}]}])
def test_other_shapes_pass(extra: Any) -> None:
    assert without_data(extra, at) == extra


def test_paths_stand_where_bytes_stood_and_all_else_is_kept() -> None:
    digest = hashlib.sha256(b"hi").hexdigest()
    extra = {
        "functionCall": [1],
        "inlineData": [blob(b"hi") | {"displayName": "n"}, {"data": "?"}],
        "finishMessage": "m",
    }
    assert list(without_data(extra, at).items()) == [
        ("functionCall", [1]),
        (
            "inlineData",
            [
                {
                    "mimeType": "image/png", "displayName": "n", "path": f"here/{digest[:32]}.png", "size_bytes": 2,
                    "sha256": digest,
                },
                {"data": "?"},
            ],
        ),
        ("finishMessage", "m"),
    ]  # fmt: skip


def test_only_a_path_of_ours_names_a_commit() -> None:
    assert commit_of(f"_media-abc/{'0' * 32}.png") == "abc"
    for path in (
        "_manifest.json",
        f"../_media-abc/{'0' * 32}.png",
        "_media-abc/_list.jsonl",
        f"_media-a/../{'0' * 32}.png",
    ):
        assert commit_of(path) is None
