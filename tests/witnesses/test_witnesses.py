"""The validator against three witnesses: each disagreement is a reviewed row, and each row a disagreement."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import pytest
from google.genai import types
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.fields import element, elsewhere, messages, snake, witnessed
from airflow_provider_geminibatch.core.requests import check_request
from airflow_provider_geminibatch.core.rule_names import RULES
from tests.witnesses import compose, overlay
from tests.witnesses.disagreements import DISAGREEMENTS, REFUSED_BEFORE
from tests.witnesses.disturbed import disturbed, messages_in, shape_of
from tests.witnesses.probes import (
    ROOT,
    SHAPE,
    Probe,
    everybody,
    field_probes,
    ours,
    paths,
    spelling_probe,
    value_probes,
    word_probes,
)
from tests.witnesses.witnesses import discovery_refuses, protobuf_refuses, sdk_refuses

PARSERS: dict[str, tuple[str, Callable[..., str]]] = {
    "developer": ("protobuf", protobuf_refuses),
    "vertex": ("discovery", discovery_refuses),
}


def keys_of(probe: Probe, route: str) -> list[str]:
    """What a row may call a probe, from the outside in."""
    owner, names = ROOT, []
    for field, kind in paths(route)[probe.message]:
        names.append(f"{owner}.{field}")
        owner = element(kind)
    shape = probe.kind if probe.kind == "spelling" else shape_of(probe.kind)
    more = [probe.name, f"{probe.name}={probe.variant}", f"{shape}:{probe.variant}"]
    return [key.replace("SystemInstruction.", "Content.") for key in (*names, *more)]


def rows_for(witness: str, says: str) -> dict[str, str]:
    """The keys of all rows of a witness, with their reasons."""
    return {key: row.why for row in DISAGREEMENTS if (row.witness, row.says) == (witness, says) for key in row.keys}


@pytest.mark.parametrize("route", PARSERS)
def test_the_parsers_disagree_in_listed_cases_only_and_in_all_of_them(route: str) -> None:
    witness, refuses = PARSERS[route]
    used: set[tuple[str, str]] = set()
    for probe in chain(field_probes(route), word_probes(route), value_probes(route), [spelling_probe(route)]):
        mine, theirs = ours(route, probe.request) == "refuse", bool(refuses(probe.request))
        if mine == theirs:
            continue
        says = "refuses" if theirs else "accepts"
        listed = rows_for(witness, says)
        found = next((key for key in keys_of(probe, route) if key in listed), None)
        assert found, f"{witness} {says} {probe.name} {probe.variant}: {refuses(probe.request)}"
        used.add((says, found))
    every = {(says, key) for says in ("refuses", "accepts") for key in rows_for(witness, says)}
    assert every - used == set()


def _refused(route: str) -> list[Probe]:
    """What the installed SDK's converters refuse, an older one also what its successors send."""
    probes = [each for each in field_probes(route) if sdk_refuses(route, each.message, each.field, each.value)]
    return [each for each in probes if each.name not in REFUSED_BEFORE[route]]


@pytest.mark.parametrize("route", PARSERS)
def test_what_the_installed_sdk_refuses_for_a_route_is_refused(route: str) -> None:
    refused = _refused(route)
    assert refused
    assert [each.name for each in refused if ours(route, each.request) != "refuse"] == []


@pytest.mark.parametrize("route", PARSERS)
def test_fields_that_the_sdk_sends_are_refused_in_listed_cases_only(route: str) -> None:
    """By the extract, which is of one version: an older SDK refuses fewer fields, which says nothing."""
    found = compose.sources()
    sent = {
        probe.name
        for probe in field_probes(route)
        if probe.field in found.sdk.messages.get(probe.message, {})
        and probe.field not in found.refused[route].get(probe.message, set())
        and ours(route, probe.request) == "refuse"
    }
    assert sent == set(rows_for(f"sdk {route}", "accepts"))


@pytest.mark.parametrize("route", PARSERS)
def test_the_extract_holds_every_refusal_of_the_installed_sdk(route: str) -> None:
    """A field of its own that a newer SDK refuses is for the next extract: `python -m tests.witnesses.extract`."""
    stored = compose.sources().refused[route]
    assert [each.name for each in _refused(route) if each.field not in stored.get(each.message, set())] == []


@pytest.mark.parametrize("route", PARSERS)
def test_what_older_sdks_refused_goes_through(route: str) -> None:
    accepted = {each.name for each in field_probes(route) if ours(route, each.request) == "accept"}
    assert accepted >= REFUSED_BEFORE[route]


def test_the_table_is_what_the_sources_and_the_overlay_give() -> None:
    assert compose.TARGET.read_text() == compose.module()


@pytest.mark.parametrize(
    "name", sorted(name for name in everybody().messages if hasattr(getattr(types, name, None), "model_fields"))
)
def test_the_table_knows_every_field_of_the_installed_sdk(name: str) -> None:
    """A newer SDK has newer fields: `python -m tests.witnesses.extract --only sdk`, then `make fields`."""
    known = {snake(field) for route in PARSERS for field in _known(route, name)}
    assert set(getattr(types, name).model_fields) - known == set()


def _known(route: str, name: str) -> set[str]:
    dropped = {path.split(".")[1] for path in (*overlay.DROPPED, *overlay.ARTEFACTS) if path.startswith(f"{name}.")}
    there = {*messages(route).get(name, {}), *elsewhere(route).get(name, ()), *witnessed(route).get(name, {})}
    return there | dropped | _SDK_ONLY.get(name, set()) | _OF_A_CALL.get(name, set())


# What the SDK keeps beside a message for its own calls; it goes nowhere in the request.
_OF_A_CALL = {"EmbedContentConfig": {"httpOptions", "mimeType"}}


# Messages that only fields outside the table hold: by the extract they are known, and nothing more is asked of them.
_SDK_ONLY = {
    name: set(fields)
    for name, fields in compose.sources().sdk.messages.items()
    if not any(name in messages(route) for route in PARSERS)
}


@pytest.mark.parametrize("route", PARSERS)
@given(data=st.data())
def test_no_request_brings_up_a_disagreement_that_is_not_listed(route: str, data: st.DataObject) -> None:
    witness, refuses = PARSERS[route]
    request, keys = data.draw(disturbed(route))
    mine, theirs = ours(route, request) == "refuse", refuses(request)
    if mine == bool(theirs):
        return
    listed = rows_for(witness, "refuses" if theirs else "accepts")
    assert keys & set(listed), (json.dumps(request), theirs)


def test_only_problems_of_the_shape_are_compared() -> None:
    assert set(RULES) > SHAPE


def _lines_of_the_corpus(route: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted((Path(__file__).parents[1] / "golden" / "problems" / route).glob("*.jsonl")):
        try:
            request = msgspec.json.decode(path.read_bytes()).get("request")
        except (msgspec.DecodeError, AttributeError):
            continue  # no line of JSON, or no object: nothing that a witness of requests could be asked
        if isinstance(request, dict):
            yield path.stem, request


# What the lines of the corpus have wrong, as the rows call it, where the line is not about one field.
_CALLED = {
    "not-base64": {"base64:alphabet", "base64:padding", "base64:cut"},
    "not-finite": {"number:infinite"},
    "unknown-word": {"enum:word"},
    "wrong-type": {"enum:number", "number:bool", "message:list", "enum:word"},
}


# Rules over several fields that a witness sees as well: a parser of protobuf knows which fields exclude each other.
_SEEN: dict[str, set[str]] = {"protobuf": {"two-payloads", "given-twice"}, "discovery": set()}


@pytest.mark.parametrize("route", PARSERS)
def test_the_corpus_brings_up_no_disagreement_that_is_not_listed(route: str) -> None:
    witness, refuses = PARSERS[route]
    looked_at = 0
    for name, request in _lines_of_the_corpus(route):
        looked_at += 1
        broken, theirs = _rules(route, request), refuses(request)
        if bool(broken & (SHAPE | _SEEN[witness])) == bool(theirs):
            continue
        keys = {key for rule in broken for key in _CALLED.get(rule, set())}
        for owner, each in messages_in(request, ROOT, route):
            keys |= {f"{owner}.{field}" for field in each}
            keys |= {"spelling:snake" for field in each if "_" in field}
            keys |= {f"{owner}.{field}={word}" for field, word in each.items() if isinstance(word, str)}
        assert keys & set(rows_for(witness, "refuses" if theirs else "accepts")), (name, theirs)
    assert looked_at > 90


def _rules(route: str, request: dict[str, Any]) -> set[str]:
    return {problem.rule for problem in check_request(request, route=route).problems}
