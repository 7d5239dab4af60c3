"""Requests in BigQuery: names, regions, columns, and the statements, which are compared word for word."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core import bigquery_sql as sql
from airflow_provider_geminibatch.core.bigquery import (
    Column,
    Dataset,
    Layout,
    dataset_of,
    input_table,
    layout_of,
    plain_query,
    region_rule,
    table_of,
)
from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.core.fields import messages, snake

GOLDEN = Path(__file__).parents[1] / "golden" / "bigquery"
BASE = table_of("my-project.reviews.gb1_abc")
LAYOUT = Layout("id", "request", True, ("stars", "lang"))
STATEMENTS = {
    "request_table": sql.request_table_sql(
        "SELECT id, request, stars, lang FROM `p-one.d.t`", LAYOUT, tag="tag2", rows_per_shard=200_000
    ),
    "input_table": sql.input_table_sql(BASE, 3, LAYOUT.extras, (5, 7), 20),
    "check_json": sql.check_sql(BASE, is_json=True),
    "check_text": sql.check_sql(BASE, is_json=False),
    "digest": sql.digest_sql(BASE, LAYOUT),
    "keys": sql.keys_sql(BASE, 3, LAYOUT.extras),
    "requests": sql.requests_sql(BASE, 3, (1, 2), is_json=False),
    "sample": sql.sample_sql(BASE, 200, is_json=True),
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_is_the_one_on_file(name: str) -> None:
    assert STATEMENTS[name] + "\n" == (GOLDEN / f"{name}.sql").read_text("utf-8")


def test_the_rows_of_an_input_are_named_by_the_shorter_list() -> None:
    assert sql.input_table_sql(BASE, 0, (), (0, 1, 3), rows=4).endswith("gb_shard = 0 AND gb_row IN (2)")
    assert sql.input_table_sql(BASE, 0, (), (0,), rows=4).endswith("gb_shard = 0 AND gb_row NOT IN (0)")
    assert sql.input_table_sql(BASE, 0, (), (), rows=4).endswith("gb_shard = 0")


def test_every_field_of_a_request_is_known_to_the_check() -> None:
    """The table of fields of Vertex AI decides; the statement names them in both spellings."""
    for name in messages("vertex")["GenerateContentRequest"]:
        for spelling in (name, snake(name)):
            assert f"'$.{spelling}'" in STATEMENTS["check_json"], spelling


@pytest.mark.parametrize(
    ("dataset", "job", "refused", "doubt"),
    [
        ("us-central1", "us-central1", "", False),
        ("US-CENTRAL1", "us-central1", "", False),
        ("us-central1", "global", "", True),
        ("US", "us-central1", "multi-region US", False),
        ("EU", "global", "multi-region EU", False),
        ("eu", "europe-west4", "multi-region eu", False),
        ("europe-west4", "us-central1", "is in europe-west4 and the job would run in us-central1", False),
        (None, "us-central1", "is not there", False),
    ],
)
def test_a_job_reads_tables_of_its_own_single_region(dataset: str | None, job: str, refused: str, doubt: bool) -> None:
    rule = region_rule(Dataset("p-one", "d"), dataset, job)
    assert (refused in rule.refused, bool(rule.refused), bool(rule.doubt)) == (True, bool(refused), doubt)
    assert not rule.refused or rule.do


@pytest.mark.parametrize("text", ["d.t", "p-one.d", "p-one..t", "p-one.d.t`; DROP", "", "bq://p-one.d.t.u-v"])
def test_a_table_has_three_plain_names(text: str) -> None:
    with pytest.raises(Unusable, match=r"project\.dataset\.table"):
        table_of(text)


def test_names_are_read_and_written_alike() -> None:
    assert table_of("bq://my-project.d.t").uri == "bq://my-project.d.t"
    assert table_of("example.com:my-project.d.t").project == "example.com:my-project"
    assert dataset_of("my-project.d").table("t").sql == "`my-project.d.t`"
    assert input_table(BASE, 3, 2).name == "gb1_abc_0003_a02"
    with pytest.raises(Unusable):
        dataset_of("d")


@pytest.mark.parametrize("text", ["SELECT 1 AS one;", "  -- why; not\nWITH a AS (SELECT ';' AS x) SELECT * FROM a ;\n"])
def test_a_query_stands_inside_of_another(text: str) -> None:
    assert not plain_query(text, "query").endswith(";")


@pytest.mark.parametrize("text", ["", "DELETE FROM x", "SELECT 1; DROP TABLE x", "-- nothing"])
def test_a_script_is_no_query(text: str) -> None:
    with pytest.raises(Unusable):
        plain_query(text, "query")


def laid_out(*columns: Column, wanted: tuple[str, ...] = ("*",)) -> Layout:
    schema = (Column("id", "INTEGER"), Column("request", "JSON"), *columns)
    return layout_of(schema, key="id", request="Request", columns=wanted, what="query")


def test_columns_are_used_as_the_schema_spells_them() -> None:
    assert laid_out(Column("Stars", "FLOAT"), wanted=("stars",)) == Layout("id", "request", True, ("Stars",))
    assert laid_out(Column("a", "TIMESTAMP"), Column("b", "BYTES")).extras == ("a", "b")
    assert laid_out(Column("a", "RECORD"), wanted=()).extras == ()


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (Column("tags", "STRING", "REPEATED"), "tags is an ARRAY"),
        (Column("at", "DATETIME"), "CAST(at AS STRING) AS at"),
        (Column("where_", "GEOGRAPHY"), "ST_ASTEXT(where_) AS where_"),
        (Column("span", "RANGE"), "CAST(span AS STRING) AS span"),
        (Column("who", "RECORD"), "TO_JSON_STRING(who) AS who"),
        (Column("Status", "STRING"), "write Status AS my_Status"),
        (Column("response", "JSON"), "write response AS my_response"),
        (Column("processed_time", "TIMESTAMP"), "my_processed_time"),
        (Column("wire_key", "STRING"), "my_wire_key"),
        (Column("x`y", "STRING"), "not a plain column name"),
    ],
)
def test_a_column_that_cannot_come_back_is_named_with_what_to_write(column: Column, said: str) -> None:
    with pytest.raises(Unusable) as refusal:
        laid_out(column)
    assert said in refusal.value.why


def test_all_that_is_wrong_with_the_columns_is_said_together() -> None:
    schema = (Column("id", "FLOAT"), Column("request", "RECORD"))
    with pytest.raises(Unusable) as refusal:
        layout_of(schema, key="id", request="request", columns=("gone",), what="query")
    assert all(said in refusal.value.why for said in ("CAST(id AS STRING)", "TO_JSON(request)", "no column gone"))
    with pytest.raises(Unusable, match="has no column key"):
        layout_of(schema, key="key", request="request", columns=(), what="query")


def test_what_the_check_found_becomes_problems_by_key() -> None:
    problems, total = sql.problems_of([("2", "3", "a"), ("2", "3", "b"), ("0", "1", None)])
    assert total == 4
    assert [str(problem.where) for problem in problems] == ["key 'a'", "key 'b'", "a row without a key"]
    assert problems[0].rule == "same-key"


def test_a_shard_whose_rows_are_not_numbered_without_a_gap_is_refused() -> None:
    good = ["0", "2", "20", "0", "1", "1", "2", "3", "4"]
    assert sql.shard_digests([good])[0].asked == f"{1:015x}{2:015x}"
    for bad in (["1", *good[1:]], [*good[:4], "2", *good[5:]]):
        with pytest.raises(ValueError, match="numbered from"):
            sql.shard_digests([bad])


@given(st.lists(st.text(), unique=True))
def test_the_digest_of_rows_does_not_depend_on_their_order(rows: list[str]) -> None:
    def of(texts: list[str]) -> tuple[int, int]:
        one = other = 0
        for text in texts:
            first, second = sql.row_digest(text)
            one, other = one ^ first, other ^ second
        return one, other

    assert of(rows) == of(rows[::-1])
    if rows:
        assert of(rows) != of(rows[1:])
