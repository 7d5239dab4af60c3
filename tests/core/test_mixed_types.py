"""One path, one type: what the import of a Vertex AI batch may fail on across rows is warned of once."""

from __future__ import annotations

from functools import partial
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core import mixed_types
from airflow_provider_geminibatch.core.errors import Problem
from airflow_provider_geminibatch.core.lint import rules_of_requests
from airflow_provider_geminibatch.core.mixed_types import MixedTypes
from airflow_provider_geminibatch.core.requests import check_request
from airflow_provider_geminibatch.core.rows import Row


def warned(*requests: dict[str, Any]) -> list[Problem]:
    found: list[Problem] = []
    mixed = MixedTypes(found.extend)
    for request in requests:
        mixed(request)
    return found


def called(**arguments: object) -> dict[str, Any]:
    return {"contents": [{"parts": [{"functionCall": {"name": "find", "args": arguments}}]}]}


def test_a_path_of_two_types_is_warned_of_once() -> None:
    (problem,) = warned(called(day=1), called(day="Monday"), called(day="Friday"))
    assert str(problem) == (
        "request.contents[].parts[].functionCall.args.day: is a number in one request and text in another, which may fail the "
        "import of a Vertex AI batch (write it in one type, as text for instance; whether the import takes both is assumed not "
        "to be so)"
    )
    assert problem.rule == "mixed-types"


def test_what_is_null_or_absent_or_a_number_of_another_kind_is_of_no_other_type() -> None:
    assert not warned(called(day=1), called(day=None), called(), called(day=2.5))


def test_items_of_lists_are_one_path_and_true_is_no_number() -> None:
    assert [one.where for one in warned(called(of=[1, 2, "three"]))] == [
        "request.contents[].parts[].functionCall.args.of[]"
    ]
    assert [one.where for one in warned(called(of=True), called(of=1))] == [
        "request.contents[].parts[].functionCall.args.of"
    ]


def test_what_is_remembered_has_a_limit(monkeypatch: Any) -> None:
    monkeypatch.setattr(mixed_types, "MOST_PATHS", 20)
    assert not warned(called(**{f"a{number}": 1 for number in range(100)}), called(a99="x"))


_ARGUMENTS = st.dictionaries(
    st.sampled_from("abc"), st.one_of(st.integers(), st.text(max_size=2), st.booleans(), st.none()), max_size=3
)


@given(st.lists(_ARGUMENTS, max_size=6), st.randoms())
def test_which_paths_are_warned_of_does_not_depend_on_the_order(arguments: list[dict[str, Any]], random: Any) -> None:
    shuffled = list(arguments)
    random.shuffle(shuffled)
    paths = {one.where for one in warned(*(called(**one) for one in arguments))}
    assert {one.where for one in warned(*(called(**one) for one in shuffled))} == paths


def test_lint_names_it_for_vertex_and_not_for_the_developer_api() -> None:
    line = (
        b'{"key": "%s", "request": {"contents": [{"parts": [{"functionCall": {"name": "f", "args": {"day": %s}}}]}]}}'
    )
    lines = [line % (b"a", b"1"), line % (b"b", b'"Monday"')]
    for route, expected in (("vertex", 1), ("developer", 0)):
        rules = rules_of_requests(partial(check_request, route=route), route=route)
        made = list(rules.ready(Row("file", number, data) for number, data in enumerate(lines, 1)))
        assert len(made) == 2
        assert [one.rule for one in rules.warnings] == ["mixed-types"] * expected


def test_null_beside_a_list_in_another_request_is_warned_of() -> None:
    for requests in ((called(of=None), called(of=["a"])), (called(of=["a"]), called(of=None))):
        (problem,) = warned(*requests)
        assert problem.where == "request.contents[].parts[].functionCall.args.of"
