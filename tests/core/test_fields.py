"""The field table: whole in itself, composed from its sources, and not behind the installed SDK."""

from __future__ import annotations

import re

import pytest

from airflow_provider_geminibatch.core.fields import (
    PAYLOADS,
    ROOTS,
    ROUTES,
    element,
    elsewhere,
    enums,
    messages,
    snake,
    witnessed,
    witnessed_words,
)
from airflow_provider_geminibatch.core.hints import message_paths

SCALARS = {"text", "base64", "bool", "int", "number", "value", "object"}


@pytest.mark.parametrize("route", ROUTES)
def test_every_kind_in_the_table_exists(route: str) -> None:
    for name, fields in messages(route).items():
        for field, kind in fields.items():
            inner = element(kind)
            known = inner[1:] in enums(route) if inner.startswith("=") else inner in messages(route) or inner in SCALARS
            assert known, f"{name}.{field}: {kind}"


@pytest.mark.parametrize("route", ROUTES)
def test_every_message_and_enum_is_used(route: str) -> None:
    kinds = {element(kind) for fields in messages(route).values() for kind in fields.values()}
    assert set(messages(route)) == set(message_paths(route))
    assert {f"={name}" for name in enums(route)} <= kinds
    assert set(ROOTS.values()) <= set(messages(route))
    assert set(messages(route)["Part"]) & set(PAYLOADS)


@pytest.mark.parametrize("route", ROUTES)
def test_a_field_is_in_the_table_or_elsewhere_or_witnessed_and_never_two_of_them(route: str) -> None:
    for name, fields in messages(route).items():
        there, seen = elsewhere(route).get(name, frozenset()), set(witnessed(route).get(name, ()))
        assert not (set(fields) & there or set(fields) & seen or there & seen), name
    for name, words in witnessed_words(route).items():
        assert not words & enums(route)[name], name


@pytest.mark.parametrize("route", ROUTES)
def test_camel_and_snake_names_are_two_spellings_of_one_field(route: str) -> None:
    for fields in messages(route).values():
        spellings = [name for field in fields for name in {field, snake(field)}]
        assert len(spellings) == len(set(spellings))
        assert all(re.fullmatch(r"_?[a-z][A-Za-z0-9]*", field) for field in fields)


def test_the_routes_differ_where_the_sources_say_so() -> None:
    developer, vertex = messages("developer"), messages("vertex")
    assert "fileSearch" in developer["Tool"] and "fileSearch" not in vertex["Tool"]
    assert "retrieval" in vertex["Tool"] and "retrieval" not in developer["Tool"]
    assert developer["GenerationConfig"]["responseFormat"] == "ResponseFormat"
    assert vertex["GenerationConfig"]["responseFormat"] == "[ResponseFormat]"
    assert "HARM_CATEGORY_TOXICITY" in enums("developer")["HarmCategory"] - enums("vertex")["HarmCategory"]
