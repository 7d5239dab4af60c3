"""What the emulated import of Vertex AI fails on is named before an upload, and what is refused before it does fail there."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.errors import Problem
from airflow_provider_geminibatch.core.mixed_types import MixedTypes
from airflow_provider_geminibatch.core.rule_names import WARNINGS
from airflow_provider_geminibatch.core.table_import import empty_objects, import_faults
from airflow_provider_geminibatch.emulator.vertex_shape import Shape, Unimportable

_NAMES = st.sampled_from(["a", "b", "c_1", "d e", "$ref", "f-g"])
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=20,
)
REQUESTS = st.dictionaries(st.sampled_from(["contents", "labels2", "tools"]), _JSON, min_size=1, max_size=2)


def emulated(*requests: dict[str, Any]) -> bool:
    """Whether the emulator's import fails on a file of these."""
    shape = Shape()
    try:
        for request in requests:
            shape.learn({"request": request})
        shape.settle()
    except Unimportable:
        return True
    return any(True for request in requests for _ in empty_objects(request))


def refused(request: dict[str, Any]) -> bool:
    return any(fault.rule not in WARNINGS for fault in import_faults(request)) or any(
        True for _ in empty_objects(request)
    )


def named(*requests: dict[str, Any]) -> bool:
    """Whether anything at all is said, within a request or over several."""
    found: list[Problem] = []
    mixed = MixedTypes(found.extend)
    for request in requests:
        mixed(request)
    return bool(found) or any(import_faults(request) or refused(request) for request in requests)


@given(REQUESTS)
@example({"a": {"enum": ["x", None]}})
@example({"a": [{"type": "x"}, {"type": ["x"]}]})
def test_what_is_refused_fails_in_the_emulator_and_what_fails_there_is_named(request: dict[str, Any]) -> None:
    if refused(request):
        assert emulated(request)
    if emulated(request):
        assert named(request)


@given(st.lists(REQUESTS, min_size=2, max_size=4))
def test_what_fails_over_several_rows_is_named(requests: list[dict[str, Any]]) -> None:
    if emulated(*requests):
        assert named(*requests)


@pytest.mark.parametrize("levels", range(12, 19))
def test_both_count_levels_alike(levels: int) -> None:
    request: dict[str, Any] = {"text": "deep"}
    for _ in range(levels - 1):
        request = {"x": request}
    assert refused(request) == emulated(request) == (levels > 15)
