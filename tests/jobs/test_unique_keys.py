"""Keys that stand twice are found, named with the row before them, and cost eight bytes a row."""

from __future__ import annotations

import io
import tempfile
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.errors import BadRows, Problem, SourceUnreadable, StoreUnwritable
from airflow_provider_geminibatch.core.response_schema import CommonSchema
from airflow_provider_geminibatch.core.rows import Ready, Row
from airflow_provider_geminibatch.core.template import RequestTemplate
from airflow_provider_geminibatch.jobs import building, unique_keys
from airflow_provider_geminibatch.jobs.prepare import Declaration
from airflow_provider_geminibatch.jobs.unique_keys import KeyMarks, Repeated, repeats

KEYS = st.lists(st.integers(0, 40), max_size=60)


def _ready(key: object) -> Ready:
    return Ready(b'"%b"' % str(key).encode(), b"{}", b"{}")


def _noted(keys: Iterable[object], held: int) -> KeyMarks:
    marks = KeyMarks(held)
    for _ in marks.noting(_ready(key) for key in keys):
        pass
    return marks


@given(KEYS, st.integers(1, 30))
def test_exactly_what_stands_twice_is_repeated(keys: list[int], held: int) -> None:
    with _noted(keys, held) as marks:
        found = marks.repeated()
    assert found.marks == {hash(str(key).encode()) for key in keys if keys.count(key) > 1}
    assert found.rows == len(keys) - len(set(keys))


@given(KEYS, KEYS, st.integers(1, 30))
def test_marks_of_several_processes_are_compared_together(ours: list[int], theirs: list[int], held: int) -> None:
    file = io.BytesIO()
    with tempfile.TemporaryFile() as passed, _noted(theirs, held) as other, _noted(ours, held) as marks:
        other.write(passed)
        passed.seek(0)
        file.write(passed.read())
        file.seek(0)
        marks.read(file)
        found = marks.repeated()
    assert file.tell() == 8 * len(theirs)
    both = [*ours, *theirs]
    assert (len(found.marks), found.rows) == (
        len({key for key in both if both.count(key) > 1}),
        len(both) - len({*both}),
    )


def test_marks_are_on_disk_beyond_what_is_held_and_gone_at_the_end() -> None:
    tracemalloc.start()
    try:
        with _noted(range(300_000), 1 << 12) as marks:
            assert marks.repeated() == Repeated(frozenset(), 0)
            assert marks._file is not None
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert marks._file.closed
    assert peak < 1_500_000


def test_no_room_for_marks_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(StoreUnwritable, match="keys that may stand twice are noted there"):
        _noted(range(10), 5)


def _read(rows: Iterable[Any], **more: Any) -> list[Ready]:
    declared = Declaration(model="m", template=RequestTemplate("Say $id"), source_name="rows.csv", **more)
    return list(declared.ready(lambda: iter(rows), CommonSchema()))


def test_the_later_row_is_named_with_the_earlier_one() -> None:
    rows = [Row("rows.csv line", 2 + at, {"id": key}) for at, key in enumerate("abcab")]
    with pytest.raises(BadRows) as caught:
        _read(rows)
    assert [str(problem) for problem in caught.value.problems] == [
        'rows.csv line 5: key: "a" stands in rows.csv line 2 too (a key is unique within its source)',
        'rows.csv line 6: key: "b" stands in rows.csv line 3 too (a key is unique within its source)',
    ]
    assert caught.value.total == 2


@given(st.lists(st.sampled_from(["a", "b", "c", "", "d"]), max_size=12))
def test_all_problems_come_in_the_order_of_the_rows(keys: list[str]) -> None:
    expected = [at for at, key in enumerate(keys, 1) if not key or key in keys[: at - 1]]
    rows = [{"id": key, "text": ""} for key in keys]
    if not expected:
        assert len(_read(rows)) == len(keys)
        return
    with pytest.raises(BadRows) as caught:
        _read(rows)
    assert [int(problem.where.split(":")[0].split()[1]) for problem in caught.value.problems] == expected
    assert caught.value.total == len(expected)


def test_two_keys_with_one_hash_are_two_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unique_keys, "hash", lambda key: 7, raising=False)
    assert len(_read([{"id": "a"}, {"id": "b"}])) == 2
    with pytest.raises(BadRows):
        _read([{"id": "a"}, {"id": "b"}, {"id": "a"}])


def test_a_source_that_gives_other_rows_the_second_time_is_no_source() -> None:
    readings: list[list[dict[str, str]]] = [[{"id": "a"}, {"id": "a"}], [{"id": "a"}, {"id": "b"}]]
    declared = Declaration(model="m", template=RequestTemplate("Say $id"), source_name="rows()")
    with pytest.raises(SourceUnreadable, match="other rows when it was read again"):
        list(declared.ready(lambda: readings.pop(0), CommonSchema()))


def test_of_very_many_repeats_twenty_are_shown_and_all_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (unique_keys, building):
        monkeypatch.setattr(module, "NAMED", 30)
    with pytest.raises(BadRows) as caught:
        _read([{"id": str(number % 500)} for number in range(2000)] + [{"id": ""}])
    assert (len(caught.value.problems), caught.value.total) == (20, 1501)


def test_problems_of_rows_come_along() -> None:
    def rows() -> Iterator[tuple[Row, Any]]:
        yield Row("row", 1, {}), [Problem("row 1: key", "is empty")]
        for number in (2, 3):
            yield Row("row", number, {}), _ready("x")

    repeated = Repeated(frozenset({hash(b"x")}), 1)
    found = [str(problem) for problem in repeats(rows(), repeated, "rows")]
    assert found == ["row 1: key: is empty", 'row 3: key: "x" stands in row 2 too (a key is unique within its source)']
