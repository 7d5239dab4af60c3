"""A canary decides: which rows, what was measured, and whether the batch may follow."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.batch import (
    BatchPolicy,
    BatchSummary,
    Fail,
    Rest,
    RunCanary,
    Sent,
    Submit,
    batch_step,
)
from airflow_provider_geminibatch.core.canary import (
    Canary,
    CanaryReport,
    CanaryRun,
    Heard,
    Spread,
    best_of,
    disparity,
    failure,
    judge,
    measured,
    picked,
    quotas,
    reason,
    spread,
    worst,
)
from airflow_provider_geminibatch.core.errors import CanaryFailed, Unusable
from airflow_provider_geminibatch.core.model import Outcomes, Usage
from airflow_provider_geminibatch.core.outcomes import Outcome
from airflow_provider_geminibatch.core.prices import Price

NOW = datetime(2026, 11, 1, tzinfo=UTC)
SHARDS = st.lists(st.integers(1, 5000), min_size=1, max_size=30)
CANARIES = st.builds(lambda rows, share: Canary(rows=rows, max_share=share), st.integers(1, 200), st.floats(0.001, 1.0))


def answer(text: str = "yes", **changes: Any) -> Outcome:
    return Outcome(kind=Outcomes.ANSWER, text=text, finish_reason="STOP", **changes)


def bad(kind: Outcomes = Outcomes.TRUNCATED, why: str = "MAX_TOKENS", **changes: Any) -> Outcome:
    return Outcome(kind=kind, reason=why, **changes)


def report(
    *, asked: int = 50, usable: int = 50, unusable: dict[str, int] | None = None, **changes: Any
) -> CanaryReport:
    return CanaryReport(
        tier="flex", model="m", rows=1000, asked=asked, usable=usable, unusable=unusable or {}, **changes
    )


# The sample


@given(SHARDS, CANARIES)
def test_every_shard_keeps_a_row_and_the_sample_stays_within_its_share(rows: list[int], canary: Canary) -> None:
    wanted = quotas(rows, canary)
    assert all(0 <= count < max(2, whole) for count, whole in zip(wanted, rows, strict=True))
    assert all(count <= whole - 1 for count, whole in zip(wanted, rows, strict=True))
    spare = sum(rows) - len(rows)
    assert sum(wanted) == min(canary.rows, max(1, int(sum(rows) * canary.max_share)), spare)


@given(st.integers(2, 40), st.integers(100, 3000))
def test_shards_of_one_size_are_sampled_alike(shards: int, rows: int) -> None:
    wanted = quotas([rows] * shards, Canary(rows=50, max_share=1.0))
    assert max(wanted) - min(wanted) <= 1


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=300), st.data(), st.text(max_size=5))
def test_one_row_of_each_class_of_size_is_drawn(sizes: list[int], data: st.DataObject, seed: str) -> None:
    wanted = data.draw(st.integers(0, len(sizes)))
    rows = picked(sizes, wanted, seed)
    assert rows == tuple(sorted(set(rows)))
    assert len(rows) == wanted
    ranked = sorted(range(len(sizes)), key=sizes.__getitem__)
    classes = [set(ranked[at * len(sizes) // wanted : (at + 1) * len(sizes) // wanted]) for at in range(wanted)]
    assert all(len(one & set(rows)) == 1 for one in classes)


def test_the_same_content_gives_the_same_sample_and_another_another() -> None:
    sizes = [100 + number % 7 for number in range(1000)]
    assert picked(sizes, 20, "content") == picked(sizes, 20, "content")
    assert picked(sizes, 20, "content") != picked(sizes, 20, "other content")


# What was measured


def test_of_a_row_that_was_asked_twice_the_first_usable_answer_counts() -> None:
    heard = [
        Heard((0, 1), bad(), True),
        Heard((0, 0), answer("a"), True),
        Heard((0, 1), answer("b"), True),
        Heard((0, 0), bad(), True),
    ]
    assert [(one.at, one.outcome.text) for one in best_of(heard)] == [((0, 0), "a"), ((0, 1), "b")]


def test_an_error_that_passes_says_nothing_of_the_request_and_one_that_stays_does() -> None:
    busy = Heard((0, 0), bad(Outcomes.FAILED, "overloaded", code=503, transient=True), False)
    refused = Heard((0, 1), bad(Outcomes.FAILED, "no such field", code=400), False)
    odd = Heard((0, 2), bad(Outcomes.FAILED, "OTHER", finish_reason="OTHER", transient=True), True)
    found = measured(
        [busy, refused, odd], CanaryRun(tier="flex", model="m", rows=10, asked=3), None, {(0, 1): "k1", (0, 2): "k2"}
    )
    assert (found.judged, found.usable, found.unusable) == (2, 0, {"failed": 2})
    assert found.reasons == {"failed (code 400)": 1, "failed (OTHER)": 1}


def test_a_report_counts_measures_and_names_a_few_keys_of_every_kind() -> None:
    heard = [
        Heard((0, row), answer(usage=Usage(10, row, 2 * row, 0, 0), model_version="v1"), True) for row in range(1, 21)
    ]
    heard += [Heard((1, row), bad(usage=Usage(10, 100, 0, 0, 0)), True) for row in range(6)]
    heard += [Heard((2, 0), bad(Outcomes.BLOCKED, "prompt blocked: SAFETY"), True)]
    named = worst(heard)
    assert [one.at for one in named] == [(1, 0), (2, 0), (1, 1), (1, 2), (1, 3)]
    run = CanaryRun(tier="flex", model="m", rows=1000, asked=30, cost_usd=Decimal("0.5"), ended="its limit was reached")
    found = measured(heard, run, Price(Decimal(1), Decimal(2)), {one.at: f"key {one.at}" for one in named})
    assert (found.usable, found.unusable) == (20, {"truncated": 6, "blocked": 1})
    assert found.reasons == {"truncated (MAX_TOKENS)": 6, "blocked (prompt blocked: SAFETY)": 1}
    assert (found.examples[1].key, found.examples[1].why) == ("key (2, 0)", "prompt blocked: SAFETY")
    assert (found.answer, found.thoughts) == (Spread(13, 100, 100, 810), Spread(14, 38, 40, 420))
    assert found.model_versions == {"v1": 20}
    assert found.batch_usd is not None
    low, expected, high = map(Decimal, found.batch_usd)
    assert low < expected < high
    # 26 rows of 10 tokens in, and 810 + 420 out, at half of 1 and 2 dollars a million.
    assert expected == (Decimal(260 + 2 * 1230) / 2 / 27 * 1000 / 1_000_000).quantize(Decimal("0.000001"))
    assert "20 of 27 answers usable; 7 unusable (25.9 %): 6 truncated (MAX_TOKENS), 1 blocked" in found.sentence
    assert "3 of 30 asked rows have no answer" in found.sentence
    assert "it cost 0.5 USD, and all 1000 rows would cost" in found.sentence


def test_without_a_price_the_cost_is_unknown_and_not_zero() -> None:
    found = measured([Heard((0, 0), answer(), True)], CanaryRun(tier="flex", model="m", rows=9, asked=1), None, {})
    assert (found.cost_usd, found.batch_usd) == (None, None)
    assert "no price is known for m" in found.sentence


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=200))
def test_a_spread_is_made_of_values_that_were_seen(values: list[int]) -> None:
    found = spread(values)
    assert {found.p50, found.p95, found.most} <= set(values)
    assert found.p50 <= found.p95 <= found.most == max(values)
    assert sum(value <= found.p95 for value in values) >= 0.95 * len(values)


@given(st.lists(st.integers(1, 10**5), min_size=2, max_size=60), st.integers(1, 1000))
def test_an_extrapolation_grows_with_the_rows_and_its_range_holds_the_mean(tokens: list[int], rows: int) -> None:
    heard = [Heard((0, row), answer(usage=Usage(count, count, 0, 0, 0)), True) for row, count in enumerate(tokens)]
    price = Price(Decimal(100), Decimal(100))
    one = measured(heard, CanaryRun(tier="flex", model="m", rows=rows, asked=60), price, {}).batch_usd
    assert one is not None
    low, mean, high = map(Decimal, one)
    assert 0 <= low <= mean <= high
    assert abs(mean - Decimal(sum(tokens)) * 2 * 50 / len(tokens) * rows / 10**6) < Decimal("0.00001")


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (bad(Outcomes.INVALID, "$.items[3].tags[12]: lacks 'name'"), "$.items[*].tags[*]: lacks 'name'"),
        (bad(Outcomes.INVALID, "not JSON: Input data was truncated"), "not JSON"),
        (bad(Outcomes.FAILED, "Unknown name 'my secret prompt'", code=400), "code 400"),
        (bad(Outcomes.FAILED, "unreadable response: odd"), "no readable response"),
        (bad(Outcomes.EMPTY, "no parts"), "no parts"),
        (bad(Outcomes.BLOCKED, "SAFETY, no parts"), "SAFETY, no parts"),
    ],
)
def test_a_reason_is_the_same_for_all_rows_that_share_it_and_tells_no_content(outcome: Outcome, said: str) -> None:
    assert reason(outcome) == said


# The verdict


@pytest.mark.parametrize(
    ("usable", "unusable", "stops"),
    [(50, 0, False), (40, 10, False), (39, 11, True), (0, 50, True), (0, 11, True), (25, 0, False), (20, 5, False)],
)
def test_a_batch_follows_unless_too_many_answers_are_unusable(usable: int, unusable: int, stops: bool) -> None:
    found = judge(report(usable=usable, unusable={"empty": unusable} if unusable else {}), Canary())
    assert bool(found.problem) is stops
    assert found.warning == ""


@pytest.mark.parametrize(("policy", "stops"), [("proceed", False), ("fail", True)])
def test_too_few_answers_are_a_matter_of_policy(policy: Any, stops: bool) -> None:
    found = judge(report(usable=10, ended="its limit was reached"), Canary(on_timeout=policy))
    assert "only 10 of 50 rows were answered (its limit was reached)" in (found.problem if stops else found.warning)
    assert bool(found.problem) is stops
    assert bool(found.warning) is not stops


def test_no_answer_at_all_is_too_few_however_little_is_asked_for() -> None:
    assert judge(report(usable=0), Canary(min_judged=0.001, on_timeout="fail")).problem
    assert judge(report(asked=0, usable=0), Canary(on_timeout="fail")) == ("", "")


@given(st.integers(0, 50), st.integers(0, 50), st.floats(0, 0.99), st.sampled_from(["proceed", "fail"]))
def test_one_more_usable_answer_never_stops_a_batch(usable: int, unusable: int, limit: float, policy: Any) -> None:
    canary = Canary(max_unusable=limit, on_timeout=policy)
    asked = usable + unusable + 1
    before = judge(report(asked=asked, usable=usable, unusable={"empty": unusable}), canary)
    after = judge(report(asked=asked, usable=usable + 1, unusable={"empty": unusable}), canary)
    # Except that enough answers are judged by their share, where few were let pass.
    assert before.problem or not after.problem or before.warning


@pytest.mark.parametrize(
    ("counts", "versions", "told"),
    [
        ({"answer": 950, "empty": 50, "missing": 50}, {"v1": 1000}, ""),
        (
            {"answer": 700, "invalid": 300},
            {"v1": 1000},
            "4 % of the canary's answers were unusable, 30 % of the batch's",
        ),
        ({"answer": 1000}, {"v2": 999, "": 1}, "the canary was answered by v1, the batch by v2"),
        ({"missing": 10}, {}, ""),
        ({}, {}, ""),
    ],
)
def test_a_batch_that_fares_otherwise_than_its_canary_is_told_of(
    counts: dict[str, int], versions: dict[str, int], told: str
) -> None:
    found = report(usable=48, unusable={"empty": 2}, model_versions={"v1": 50})
    assert disparity(found, counts, versions) == told


@given(st.integers(1, 500), st.integers(0, 500), st.integers(2, 40))
def test_the_same_shares_are_no_disparity(usable: int, bad: int, times: int) -> None:
    found = report(asked=usable + bad, usable=usable, unusable={"empty": bad} if bad else {})
    assert disparity(found, {"answer": times * usable, "empty": times * bad}, {}) == ""


def test_the_error_says_what_it_cost_what_was_wrong_and_what_to_do() -> None:
    found = report(
        usable=30,
        unusable={"truncated": 20},
        reasons={"truncated (MAX_TOKENS)": 20},
        cost_usd="0.01",
        batch_usd=("1", "2", "3"),
    )
    error = failure("dag.ask (run)", found, Canary(), "s3://w/verdict.json")
    assert isinstance(error, CanaryFailed)
    said = str(error)
    for text in (
        "dag.ask (run)",
        "20 truncated",
        "0.01 USD",
        "2 USD by batch (1 to 3)",
        "maxOutputTokens",
        "canary=None",
        "s3://w/verdict.json",
    ):
        assert text in said
    assert not error.retryable
    assert failure("x", report(), Canary(), "") is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"rows": 0}, {"max_share": 0.0}, {"max_share": 1.5}, {"max_unusable": 1.0}, {"max_unusable": -0.1}, {"min_judged": 0.0},
        {"limit": timedelta()}, {"tier": "priority"}, {"on_timeout": "wait"},
    ],
)  # fmt: skip
def test_a_canary_that_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Unusable, match=f"Canary\\({next(iter(wrong))}="):
        Canary(**wrong)


def test_a_backfill_asks_by_flex_unless_more_was_allowed() -> None:
    assert Canary(tier="standard").tier_in(backfill=True) == "flex"
    assert Canary(tier="standard").tier_in(backfill=False) == "standard"
    assert Canary(tier="standard", standard_in_backfill=True).tier_in(backfill=True) == "standard"


# The order of things

ROOT = Sent(name="root", rows=10, pending=2, unclaimed=2)
BASE = BatchSummary(label="b", rows=10, builds=(ROOT,))
WITH = BatchPolicy(canary=Canary())


def steps(summary: BatchSummary, policy: BatchPolicy = WITH, at: datetime = NOW) -> tuple[Any, ...]:
    return batch_step(summary, policy, "me", at)


def changed(**changes: Any) -> BatchSummary:
    return msgspec.structs.replace(BASE, **changes)


def test_the_canary_goes_first_and_the_batch_follows_when_it_passed() -> None:
    assert steps(BASE) == (RunCanary(),)
    assert steps(BASE, BatchPolicy()) == (Submit("root"),)
    assert steps(changed(canary=report())) == (Submit("root"),)


def test_a_canary_that_failed_stops_the_batch_each_time_it_is_asked_and_a_wider_limit_lets_it_go() -> None:
    failed = changed(canary=report(usable=30, unusable={"empty": 20}))
    (step,) = steps(failed)
    assert isinstance(step, Fail)
    assert isinstance(step.error, CanaryFailed)
    assert steps(failed, BatchPolicy(canary=Canary(max_unusable=0.5))) == (Submit("root"),)
    assert steps(failed, BatchPolicy()) == (Submit("root"),)


def test_what_was_claimed_before_needs_no_canary() -> None:
    claimed = changed(builds=(msgspec.structs.replace(ROOT, unclaimed=0),), begun_at=NOW)
    assert steps(claimed) == (Submit("root"),)


def test_a_pause_of_the_canary_is_waited_for() -> None:
    until = NOW + timedelta(minutes=5)
    assert [type(step) for step in steps(changed(canary_until=until))] == [Rest]
    assert steps(changed(canary_until=until), at=until) == (RunCanary(),)


def test_a_persons_word_comes_before_the_canary() -> None:
    told = changed(command="cancel", command_reason="ann: no")
    assert RunCanary not in [type(step) for step in steps(told)]
    (step,) = steps(msgspec.structs.replace(told, cancelled=True))
    assert isinstance(step, Fail)
