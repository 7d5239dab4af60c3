"""Parts: rows to Parquet or JSONL and back, the same bytes each time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_geminibatch.core.errors import StoreUnreadable, StoreUnwritable, Unusable
from airflow_provider_geminibatch.storage import sinks
from airflow_provider_geminibatch.storage.sinks import (
    COLUMNS,
    Column,
    Row,
    as_text,
    landing_names,
    read_part,
    user_columns,
    verified,
    write_parts,
)
from airflow_provider_geminibatch.storage.stores import LocalStore, MemoryStore

FORMATS = ("jsonl", "parquet")
USERS = (Column("place", "string"), Column("depth_km", "string"))


def row(number: int, **changes: Any) -> Row:
    values: dict[str, Any] = {
        "key": f"k{number}", "outcome": "answer", "text": "Ja, spürbar\u2028.", "value": {"felt": True}, "extra": None,
        "error": None, "code": None, "finish_reason": "STOP", "tokens_prompt": 1, "tokens_candidates": 2,
        "tokens_thoughts": 3, "tokens_cached": 0, "tokens_total": 6, "cost_usd": Decimal("0.000000375"), "model": "m",
        "job": "batches/1", "shard": "t-0000", "round": 0, "repaired": None, "place": "Zürich", "depth_km": "1.5",
    }  # fmt: skip
    return tuple({**values, **changes}.values())


def as_dict(made: Row) -> dict[str, Any]:
    return dict(zip([column.name for column in (*COLUMNS, *USERS)], made, strict=True))


@pytest.mark.parametrize("file_format", FORMATS)
def test_rows_come_back_as_they_were_written(file_format: str) -> None:
    rows = [row(1), row(2, value=[1, "a", None], cost_usd=None, text=None, code=13, depth_km=None), row(3, value=None)]
    store = MemoryStore()
    (part,) = write_parts(store, "w", "c", file_format, (*COLUMNS, *USERS), iter(rows))
    with verified(store, "w", part) as file:
        assert list(read_part(file, file_format)) == [as_dict(made) for made in rows]
    assert part.rows == 3
    assert part.path == f"part-00000-c.{file_format}"


@pytest.mark.parametrize("file_format", FORMATS)
def test_writing_again_gives_the_same_bytes(file_format: str) -> None:
    rows = [row(number) for number in range(50)]
    one, other = (write_parts(MemoryStore(), "w", "c", file_format, (*COLUMNS, *USERS), rows) for _ in range(2))
    assert one == other


@pytest.mark.parametrize("file_format", FORMATS)
def test_many_rows_roll_over_into_several_parts(file_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "PART_ROWS", 10)
    store = MemoryStore()
    parts = write_parts(store, "w", "c", file_format, (*COLUMNS, *USERS), [row(number) for number in range(25)])
    assert [part.rows for part in parts] == [10, 10, 5]
    keys = []
    for part in parts:
        with verified(store, "w", part) as file:
            keys += [made["key"] for made in read_part(file, file_format)]
    assert keys == [f"k{number}" for number in range(25)]


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_break_in_the_middle_leaves_no_part(file_format: str, tmp_path: Any) -> None:
    def rows() -> Iterator[Row]:
        yield from (row(number) for number in range(30_000))
        raise ZeroDivisionError

    store = LocalStore(str(tmp_path))
    with pytest.raises(ZeroDivisionError):
        write_parts(store, "w", "c", file_format, (*COLUMNS, *USERS), rows())
    assert list(store.list("")) == []


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_full_disk_is_named_and_leaves_no_part(
    file_format: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("airflow_provider_geminibatch.storage.stores.os.fsync", full)
    store = LocalStore(str(tmp_path))
    with pytest.raises(StoreUnwritable, match="no space left on device"):
        write_parts(store, "w", "c", file_format, (*COLUMNS, *USERS), [row(1)])
    assert list(store.list("")) == []


def test_a_changed_part_is_never_read() -> None:
    store = MemoryStore()
    (part,) = write_parts(store, "w", "c", "jsonl", (*COLUMNS, *USERS), [row(1)])
    store.write(f"w/{part.path}", b"{}\n")
    with pytest.raises(StoreUnreadable, match="not what the manifest says"), verified(store, "w", part):
        pass


def test_parquet_without_pyarrow_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(Unusable, match=r"airflow-provider-geminibatch\[parquet\]"):
        write_parts(MemoryStore(), "w", "c", "parquet", COLUMNS, [row(1)[: len(COLUMNS)]])


def test_parquet_types_are_those_of_the_columns() -> None:
    from pyarrow import parquet

    store = MemoryStore()
    (part,) = write_parts(store, "w", "c", "parquet", (*COLUMNS, *USERS), [row(1)])
    with store.open(f"w/{part.path}") as file:
        types = {field.name: str(field.type) for field in parquet.read_schema(file)}
    assert types["cost_usd"] == "decimal128(28, 12)"
    assert (types["value"], types["tokens_total"], types["depth_km"]) == ("string", "int64", "string")


@pytest.mark.parametrize("file_format", FORMATS)
def test_rows_of_megabytes_are_never_held_by_the_thousand(file_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sinks, "BATCH_BYTES", 1000)
    held: list[int] = []
    batches = sinks._batches

    def watched(*arguments: Any) -> Iterator[list[Any]]:
        for batch in batches(*arguments):
            held.append(len(batch))
            yield batch

    monkeypatch.setattr(sinks, "_batches", watched)
    store, rows = MemoryStore(), [row(number, extra={"inlineData": ["A" * 600]}) for number in range(7)]
    (part,) = write_parts(store, "w", "c", file_format, (*COLUMNS, *USERS), iter(rows))
    assert sum(held) == 7
    assert max(held) <= 2
    with verified(store, "w", part) as file:
        assert list(read_part(file, file_format)) == [as_dict(made) for made in rows]


def test_columns_come_in_the_order_in_which_they_are_named_or_seen() -> None:
    assert user_columns([{"b": 1}, {"c": "x", "a": 2}], ("a", "d")) == ("a", "d", "b", "c")


@pytest.mark.parametrize(
    ("value", "text"),
    [("007", "007"), (None, None), ([1], "[1]"), ({"a": "ü"}, '{"a":"ü"}'), (2**70, str(2**70)), (2.5, "2.5"), (True, "true")],
)  # fmt: skip
def test_a_value_of_the_users_lands_as_text(value: Any, text: str | None) -> None:
    assert as_text(value) == text


def test_a_user_column_never_hides_one_of_ours() -> None:
    assert landing_names(["place", "text", "row_text", "key"]) == ("place", "row_text", "row_row_text", "row_key")
