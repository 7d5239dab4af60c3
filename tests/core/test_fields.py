"""The field table: whole in itself, and not behind the installed SDK."""

from __future__ import annotations

import re

import pytest
from google.genai import types

from airflow_provider_geminibatch.core.fields import ENUMS, MESSAGES, PAYLOADS, ROOTS, VERTEX_ONLY, snake
from airflow_provider_geminibatch.core.hints import element, message_paths

SCALARS = {"text", "base64", "bool", "int", "number", "value", "object"}

# What the SDK's types hold and the Developer API's requests do not, beside VERTEX_ONLY. A new field of a new SDK is
# either a line of the table or a line here.
NOT_ON_THE_WIRE = {
    "Part": {"documentMetadata", "spreadsheetMetadata", "audioMetadata"},  # answers only, in the SDK since 3.4
    "VideoMetadata": {"contentLayers"},
    "AudioTranscriptionConfig": {"sourceText"},
    "FunctionResponsePart": set(MESSAGES["Part"]) | {"audioMetadata", "documentMetadata", "spreadsheetMetadata"},
    "PartMediaResolution": {"numTokens"},
    "ResponseFormat": {"video"},
    "VoiceConfig": {"replicatedVoiceConfig"},
    "Schema": {"additionalProperties", "defs", "ref"},
}


def test_every_kind_in_the_table_exists() -> None:
    for name, fields in MESSAGES.items():
        for field, kind in fields.items():
            inner = element(kind)
            known = inner[1:] in ENUMS if inner.startswith("=") else inner in MESSAGES or inner in SCALARS
            assert known, f"{name}.{field}: {kind}"


def test_every_message_and_enum_is_used() -> None:
    kinds = {element(kind) for fields in MESSAGES.values() for kind in fields.values()}
    assert set(MESSAGES) == set(message_paths())
    assert {f"={name}" for name in ENUMS} <= kinds
    assert set(ROOTS.values()) <= set(MESSAGES)
    assert set(VERTEX_ONLY) <= set(MESSAGES)
    assert set(PAYLOADS) <= set(MESSAGES["Part"])


def test_camel_and_snake_names_are_two_spellings_of_one_field() -> None:
    for fields in MESSAGES.values():
        spellings = [name for field in fields for name in {field, snake(field)}]
        assert len(spellings) == len(set(spellings))
        assert all(re.fullmatch(r"_?[a-z][A-Za-z0-9]*", field) for field in fields)


@pytest.mark.parametrize(
    "name", sorted(name for name in MESSAGES if hasattr(getattr(types, name, None), "model_fields"))
)
def test_the_table_knows_every_field_of_the_installed_sdk(name: str) -> None:
    by_snake = {snake(field) for field in MESSAGES[name]}
    known = {snake(field) for field in VERTEX_ONLY.get(name, frozenset()) | NOT_ON_THE_WIRE.get(name, set())}
    assert set(getattr(types, name).model_fields) - by_snake - known == set()
