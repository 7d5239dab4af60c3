"""Reports: rows are counted once each, what is kept of them is bounded, and nothing of their content comes out."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.model import Outcomes, Usage
from airflow_provider_geminibatch.core.reconcile import LineCounts
from airflow_provider_geminibatch.core.report import (
    COLUMNS,
    METRICS,
    MOST_REASONS,
    OTHERS,
    WORST,
    BatchCost,
    Cost,
    Report,
    Seen,
    Tally,
    dollars,
    reason_of,
    report_of,
    spoken,
    table,
)
from airflow_provider_geminibatch.jobs.report import count_batch, decoded, encoded
from tests.core.test_landing import job, manifest

GOLDEN = Path(__file__).parents[1] / "golden" / "report"


def seen(key: str = "k", outcome: str = "answer", **changes: object) -> Seen:
    row = Seen(key, outcome, None, None, "STOP", 10, 0, Decimal("0.001"), "tag-0000", 0)
    return row._replace(**changes)  # type: ignore[arg-type]


def tallied(*rows: Seen) -> Tally:
    tally = Tally()
    for row in rows:
        tally.add(row)
    return tally


ROWS = st.builds(
    Seen,
    key=st.text("abc", min_size=1, max_size=3),
    outcome=st.sampled_from([kind.value for kind in Outcomes]),
    error=st.sampled_from([None, "it is 'secret' 17", "other"]),
    code=st.sampled_from([None, 3, 13]),
    finish_reason=st.sampled_from([None, "STOP", "SAFETY"]),
    candidates=st.integers(0, 30),
    thoughts=st.integers(0, 30),
    cost_usd=st.none() | st.integers(0, 9).map(lambda picos: Decimal(picos).scaleb(-12)),
    shard=st.sampled_from(["a", "b", None]),
    round=st.sampled_from([None, 0, 1]),
)
_TYPES = (
    pa.string(), pa.string(), pa.string(), pa.int64(), pa.string(), pa.int64(), pa.int64(), pa.decimal128(28, 12),
    pa.string(), pa.int64(),
)  # fmt: skip


@given(st.lists(ROWS, max_size=60), st.integers(1, 20))
def test_columns_are_counted_as_their_rows_are(rows: list[Seen], size: int) -> None:
    one, other = tallied(*rows), Tally()
    for start in range(0, len(rows), size):
        columns = zip(*rows[start : start + size], strict=True)
        arrays = [pa.array(column, of) for column, of in zip(columns, _TYPES, strict=True)]
        count_batch(other, pa.RecordBatch.from_arrays(arrays, names=list(COLUMNS)))
    for name in ("rows", "kinds", "costs", "reasons", "first", "rounds"):
        assert getattr(one, name) == getattr(other, name)
    assert [one.most(metric) for metric in METRICS] == [other.most(metric) for metric in METRICS]


@given(st.lists(ROWS, max_size=60))
def test_the_extreme_rows_are_those_a_sort_finds(rows: list[Seen]) -> None:
    ranked = sorted((row for row in rows if row.thoughts), key=lambda row: -row.thoughts)
    assert tallied(*rows).most("thoughts") == tuple((row.key, row.thoughts) for row in ranked[:WORST])


def test_what_is_kept_does_not_grow_with_the_rows() -> None:
    tally = tallied(*(seen(f"k{n}", "failed", error="x" * (n % 90), finish_reason=None) for n in range(5000)))
    assert sum(tally.reasons["failed"].values()) == tally.rows == 5000
    assert len(tally.reasons["failed"]) == MOST_REASONS + 1
    assert tally.reasons["failed"][OTHERS] > 0
    assert tally.first["failed"] == [f"k{n}" for n in range(WORST)]
    assert all(len(tally.most(metric)) == WORST for metric in ("candidates", "cost_usd"))


def test_one_unknown_cost_makes_the_sum_unknown_and_not_smaller() -> None:
    tally = tallied(seen(), seen(cost_usd=None), seen())
    assert tally.costs == {"answer": None}


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (seen(finish_reason="SAFETY", error="SAFETY"), "SAFETY"),
        (seen(finish_reason=None, code=13, error="boom"), "code 13"),
        (seen(finish_reason=None, error="prompt blocked: OTHER"), "prompt blocked: OTHER"),
        (seen(error="$.items[17].age: 'forty' is not of type \"integer\""), "$.items[#].age: … is not of type …"),
        (seen(finish_reason=None), "no reason given"),
        (seen(finish_reason=None, error="y" * 500), "y" * 99 + "…"),
    ],
)
def test_a_reason_holds_nothing_that_is_only_its_rows(row: Seen, why: str) -> None:
    assert reason_of(row) == why


def made() -> Report:
    tally = tallied(
        *(seen(f"k{n}", thoughts=n) for n in range(90)),
        *(seen(f"b{n}", "blocked", finish_reason="SAFETY", candidates=0, cost_usd=Decimal("0.0002")) for n in range(6)),
        seen("i0", "invalid", error="$.n: 'x' is not an integer", round=1, cost_usd=Decimal("0.25")),
        *(
            seen(f"m{n}", "missing", error="the result file holds no line for this row", cost_usd=Decimal(0))
            for n in range(2)
        ),
        seen("f0", "failed", code=13, finish_reason=None, shard="rung-01", round=None, cost_usd=Decimal(0)),
    )
    amounts: dict[str, str | None] = {"low": "0.30", "expected": "0.35", "high": "0.40"}
    told = manifest(
        tokens=Usage(prompt=1_000, candidates=900, thoughts=4_005, cached=10, total=5_905), cost_usd="0.3412",
        lines=LineCounts(lines=104, duplicates=3, unknown=1), estimated_usd=amounts, jobs=(job(2.0), job(5.5)),
        turnaround_s={"p50": 13500.0, "max": 19800.0}, strays_cost_usd="0.01", price_sources=("the package's table",),
    )  # fmt: skip
    first = Cost(source="first", route="batch", model="m", asked=100, tokens=Usage(prompt=900), cost_usd="0.3402")
    again = Cost(source="round 1", route="batch", model="m", asked=1, tokens=Usage(prompt=100), cost_usd="0.001")
    batches = [
        BatchCost(batch="batches/d/r/t/map=-1/g0001", rows=99, costs=(first, again)),
        BatchCost(batch="batches/d/r/t/map=0/g0001", rows=1, costs=(msgspec.structs.replace(again, cost_usd="0"),)),
    ]
    return report_of(told, tally, batches, Decimal("0.3402"))


@pytest.mark.parametrize(
    ("name", "make"), [("report.json", encoded), ("report.txt", lambda one: table(one).encode() + b"\n")]
)
def test_a_report_reads_as_the_golden_one(name: str, make: object) -> None:
    golden = GOLDEN / name
    assert make(made()).decode() == golden.read_text()  # type: ignore[operator]


def test_a_report_survives_its_file_and_fields_of_a_later_release() -> None:
    assert decoded(encoded(made()), "u") == made()
    later = msgspec.json.decode(encoded(made())) | {"v": 2, "mood": "good"}
    assert decoded(msgspec.json.encode(later), "u").rows == 100


def test_a_report_of_nothing_is_told() -> None:
    report = report_of(manifest(cost_usd=None, rows=0), Tally(), [], None)
    assert table(report).splitlines()[1:3] == [
        "  outcomes    no rows",
        "  tokens      prompts 0, answers 0, thoughts 0",
    ]
    assert "unknown, not zero" in table(report)


@pytest.mark.parametrize(
    ("amount", "told"),
    [("0", "0 USD"), ("0.000027", "0.000027 USD"), ("0.0123456", "0.0123 USD"), ("1234.56789", "1,234.5679 USD")],
)
def test_money_is_told_with_the_digits_that_matter(amount: str, told: str) -> None:
    assert dollars(amount) == told


@pytest.mark.parametrize(
    ("seconds", "told"), [(7.2, "7 s"), (61, "1 min"), (3599, "1 h 00 min"), (19800, "5 h 30 min")]
)
def test_durations_are_told_in_hours_and_minutes(seconds: float, told: str) -> None:
    assert spoken(seconds) == told
