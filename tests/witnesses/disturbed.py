"""Requests in order with one thing that is not: a field too many, or a value of another kind."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from airflow_provider_geminibatch.core.fields import element, messages
from tests.witnesses.probes import ROOT, VARIANTS, everybody, sample
from tests.witnesses.strategies import requests


def shape_of(kind: str) -> str:
    """The kind as VARIANTS has it."""
    shape = {"[": "list", "{": "map", "=": "enum"}.get(kind[0], kind)
    return shape if shape in VARIANTS or shape == "value" else "message"


def messages_in(value: Any, kind: str, route: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every message in a request, with its name."""
    bare = kind.rstrip("!")
    if bare.startswith("[") and isinstance(value, list):
        for each in value:
            yield from messages_in(each, element(bare), route)
    elif bare.startswith("{") and isinstance(value, dict):
        for each in value.values():
            yield from messages_in(each, element(bare), route)
    elif bare in messages(route) and isinstance(value, dict):
        yield bare, value
        for field, item in value.items():
            yield from messages_in(item, messages(route)[bare].get(field, "value"), route)


@st.composite
def disturbed(draw: st.DrawFn, route: str) -> tuple[dict[str, Any], set[str]]:
    """A request in order, perhaps with one field too many or a value of another kind; and what a row may call it."""
    request = copy.deepcopy(draw(requests(route)))
    keys: set[str] = set()
    places = list(messages_in(request, ROOT, route))
    name, message = draw(st.sampled_from(places))
    if draw(st.booleans()):
        known = everybody().messages.get(name, {})
        field = draw(
            st.sampled_from(sorted({*known, *messages(route)[name]}) or ["x"]) | st.sampled_from(["config", "xyz"])
        )
        kind = messages(route)[name].get(field) or known.get(field) or "text"
        shape = shape_of(kind)
        variants = VARIANTS.get(shape, {})
        variant = draw(st.sampled_from(["", *variants]))
        value = variants[variant] if variant else sample(route, kind)
        if variant == "small":
            value = sample(route, kind).lower()
        message[field] = value
        keys |= {f"{shape}:{variant}"}
    for owner, each in messages_in(request, ROOT, route):
        for field, value in each.items():
            words = value if isinstance(value, list) else [value]
            keys |= {f"{owner}.{field}", *(f"{owner}.{field}={word}" for word in words if isinstance(word, str))}
    return request, {key.replace("SystemInstruction.", "Content.") for key in keys}
