"""The validator against the emulator's own parser, which shares neither code nor table with it.

What the validator lets through, the emulator reads; what it refuses for its shape, the emulator refuses too, but for the
cases of ``OPEN``. The emulator stands in for a service whose strictness is known in part only, so it is the laxer one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.errors import Problem
from airflow_provider_geminibatch.core.fields import messages, snake
from airflow_provider_geminibatch.core.requests import check_request
from airflow_provider_geminibatch.emulator.fields import MESSAGES
from airflow_provider_geminibatch.emulator.parsing import conforms, explain_line
from tests.witnesses.disturbed import disturbed
from tests.witnesses.probes import ROOT, SHAPE, field_probes, value_probes
from tests.witnesses.strategies import requests

OPEN = {
    "inside": "the emulator reads some messages as any JSON object: what the service says of their fields is not reported",
    "words": "the emulator does not check words of enums: no report tells what the service says of one that it does not know",
    "tier": "the emulator takes serviceTier, as the service does of interactive calls; a row of a batch may not ask for a tier",
    "roles": "roles are text on the wire; the service refuses others when it answers, not when it reads",
    "numbers": "the emulator reads Infinity and NaN as proto3 JSON does; JSON itself has neither, and no model has a use for them",
    "range": "the emulator does not check how many digits a number has",
    "twice": "the emulator reads both spellings of a field and takes the camelCase one",
}
"""Why the emulator takes what the validator refuses. The other way there is one case: the value of a field that only
another source knows is sent as it is, and three such fields of a Part are objects to the emulator."""

_STEP = re.compile(r"\.?([^.\[]+)|\[(\d+)\]")


def excuse(problem: Problem) -> str:
    """Which case of OPEN a problem is, or an empty text."""
    kind = ROOT
    names = [found[1] for found in _STEP.finditer(problem.where.removeprefix("request")) if found[1]]
    for at, name in enumerate(names):
        kind = kind.strip("[]{}") if kind.startswith(("[", "{")) else kind
        if kind in ("struct", "any"):
            return "inside"
        if kind in MESSAGES:
            if name not in MESSAGES[kind]:
                return ""
            kind = MESSAGES[kind][name]
        elif at:
            continue  # a name of a map
    if kind.strip("[]") in ("struct", "any"):
        return "inside" if problem.rule == "wrong-type" and "an object" in problem.what else ""
    if names == ["serviceTier"] or names == ["service_tier"]:
        return "tier"
    if kind.strip("[]") == "enum" and problem.rule in ("unknown-word", "wrong-type"):
        return "words"
    if names[-1:] == ["role"]:
        return "roles"
    if kind == "number" and problem.rule in ("not-finite", "wrong-type"):
        return "numbers"
    if problem.rule == "wrong-type" and kind == "int":
        return "range"
    return "twice" if problem.rule == "given-twice" else ""


def excuses(request: dict[str, Any]) -> Iterator[tuple[Problem, str]]:
    """The problems of the shape of a request, with their excuses."""
    for problem in check_request(request).problems:
        if problem.rule in SHAPE or problem.rule == "given-twice":
            yield problem, excuse(problem)


def compare(request: dict[str, Any]) -> set[str]:
    """Hold the two against each other. Returns the cases of OPEN that were needed."""
    found = list(excuses(request))
    reads = conforms(request, ROOT)
    if not found:
        reads = reads or any(warning.rule == "unlisted-field" for warning in check_request(request).warnings)
        assert reads, (request, explain_line(1, json.dumps(request), ROOT))
        return set()
    if not reads:
        return set()
    assert all(reason for _, reason in found), [str(problem) for problem, reason in found if not reason]
    return {reason for _, reason in found}


@given(requests("developer"))
def test_what_the_validator_accepts_the_emulator_reads(request_: dict[str, Any]) -> None:
    checked = check_request(request_)
    assert not checked.problems
    assert conforms(checked.request, ROOT)


@settings(max_examples=400)
@given(disturbed("developer"))
def test_what_one_refuses_the_other_refuses_or_the_reason_is_listed(made: tuple[dict[str, Any], set[str]]) -> None:
    compare(made[0])


@pytest.mark.slow
@settings(max_examples=6000)
@given(disturbed("developer"))
def test_the_same_over_thousands_of_requests(made: tuple[dict[str, Any], set[str]]) -> None:
    compare(made[0])


def test_every_field_and_every_wrong_value_and_every_reason() -> None:
    needed: set[str] = set()
    for probe in (*field_probes("developer"), *value_probes("developer")):
        needed |= compare(probe.request)
    turn = [{"parts": [{"text": "a"}]}]
    for config in ({"topP": "NaN"}, {"topK": "9" * 30}, {"topK": 1, "top_k": 1}, {"temperature": "Infinity"}):
        needed |= compare({"contents": turn, "generationConfig": config})
    assert needed <= set(OPEN)
    assert set(OPEN) - needed == set()


@pytest.mark.parametrize("message", sorted(name for name in messages() if name in MESSAGES))
def test_the_emulator_reads_every_field_that_the_validator_knows(message: str) -> None:
    ours = messages()[message]
    assert [field for field in ours if field not in MESSAGES[message] or snake(field) not in MESSAGES[message]] == []


@given(data=st.data())
def test_both_name_the_same_unknown_field(data: st.DataObject) -> None:
    request = data.draw(requests("developer"))
    request["generationConfig"] = {**request.get("generationConfig", {}), "zzz": 1}
    assert "request.generationConfig.zzz" in [problem.where for problem in check_request(request).problems]
    assert explain_line(1, json.dumps(request), ROOT).endswith("no such field: 'zzz'")
