"""What may be done next about a batch: laws over every summary, and a walk that always ends."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_geminibatch.core import batch as planning
from airflow_provider_geminibatch.core.batch import (
    BatchPolicy,
    BatchSummary,
    Climbed,
    Commit,
    Fail,
    Rest,
    Rung,
    Sent,
    Tally,
    batch_step,
)
from airflow_provider_geminibatch.core.canary import Canary
from airflow_provider_geminibatch.core.errors import BatchCancelled, Unusable, WaitTimedOut
from airflow_provider_geminibatch.core.ledger import RungFact
from airflow_provider_geminibatch.core.reuse import Reuse

START = datetime(2026, 1, 1, tzinfo=UTC)
DEADLINE = timedelta(hours=11)


_NAMES: dict[type, str] = {
    planning.Submit: "submit",
    Rest: "rest",
    planning.CountUp: "count_up",
    planning.OpenRound: "open_round",
    planning.OpenRung: "open_rung",
    planning.Settle: "settle",
    planning.BuildRung: "build_rung",
    planning.RunRung: "run_rung",
    planning.EndRung: "end_rung",
    planning.CommitEarly: "commit_early",
    planning.CancelAll: "cancel_all",
}


class Model:
    """A batch that is done on paper: every step changes the summary as the real one would, chance decides how it fares."""

    def __init__(self, policy: BatchPolicy, chance: Callable[[int], int], *, rows: int = 20) -> None:
        self.policy, self.chance, self.now = policy, chance, START
        self.summary = BatchSummary(
            label="b", rows=rows, builds=(Sent(name="root", rows=rows, pending=2),), begun_at=START
        )
        self.left = rows
        self.settles = 0
        self.trace: list[Any] = []
        self.opened_at: list[tuple[datetime, planning.OpenRung]] = []

    def run(self) -> Commit | Fail:
        for _ in range(400):
            for step in batch_step(self.summary, self.policy, "me", self.now):
                self.trace.append(step)
                if isinstance(step, Commit | Fail):
                    return step
                getattr(self, _NAMES[type(step)])(step)
        raise AssertionError(f"no end: {self.trace[-10:]}")

    def _change(self, **fields: Any) -> None:
        self.summary = msgspec.structs.replace(self.summary, **fields)

    def _build(self, name: str, **fields: Any) -> None:
        self._change(
            builds=tuple(msgspec.structs.replace(b, **fields) if b.name == name else b for b in self.summary.builds)
        )

    def _rung(self, **fields: Any) -> None:
        *before, last = self.summary.rungs
        self._change(rungs=(*before, msgspec.structs.replace(last, **fields)))

    def submit(self, step: planning.Submit) -> None:
        full = self.chance(3) == 0
        wait = self.now + timedelta(minutes=30) if full else None
        self._build(step.build, submitted=True, pending=int(full), open=(f"{step.build}/job",), wait_until=wait)
        self._change(tally=None)

    def rest(self, step: Rest) -> None:
        assert step.until is None or step.until > self.now, "it would spin"
        assert step.until is not None or self.summary.open, "nobody would wake it"
        soon = self.now + timedelta(hours=1 + self.chance(4))
        self.now = min(soon, step.until) if step.until else soon
        for build in self.summary.builds:
            if build.open and self.chance(3) == 0:
                self._build(build.name, open=(), ended_rows=build.rows)
            self._build(build.name, wait_until=None)
        self._change(
            rungs=tuple(msgspec.structs.replace(r, rest_until=None, settle_until=None) for r in self.summary.rungs)
        )

    def count_up(self, step: planning.CountUp) -> None:
        self.left = self.chance(self.left + 1)
        self._change(tally=Tally({"failed": self.left}, self.left))

    def open_round(self, step: planning.OpenRound) -> None:
        worth = self.summary.tally.worth if self.summary.tally else 0
        build = Sent(name=f"round-{step.number:02d}", rows=worth, pending=1)
        self._change(rounds=(*self.summary.rounds, worth), builds=(*self.summary.builds, build), tally=None)

    def open_rung(self, step: planning.OpenRung) -> None:
        self.opened_at.append((self.now, step))
        fact = RungFact(
            owner="me", at=self.now, number=step.number, position=step.position, kind=step.rung.kind,
            limit_at=self.now + step.rung.limit, reason=step.reason,
        )  # fmt: skip
        self._change(rungs=(*self.summary.rungs, Climbed(fact=fact)))

    def settle(self, step: planning.Settle) -> None:
        self.settles += 1
        if self.settles % 4 and self.chance(3) == 0:
            self._rung(settle_until=self.now + timedelta(minutes=1))
            return
        self._rung(settled=True)
        self._change(builds=(), tally=None)

    def build_rung(self, step: planning.BuildRung) -> None:
        self._rung(built=True)
        build = Sent(name=f"rung-{step.number:02d}", rows=self.left, pending=1)
        self._change(builds=(*self.summary.builds, build), tally=None)

    def run_rung(self, step: planning.RunRung) -> None:
        if self.chance(2):
            self._rung(done=True)
        else:
            self._rung(rest_until=self.now + timedelta(minutes=10))
        self._change(tally=None, charged_usd=self.summary.charged_usd + 1)

    def end_rung(self, step: planning.EndRung) -> None:
        self._rung(done=True)

    def commit_early(self, step: planning.CommitEarly) -> None:
        self._change(early_rows=sum(build.ended_rows for build in self.summary.builds if build.name == "root"))

    def cancel_all(self, step: planning.CancelAll) -> None:
        self._change(cancelled=True)


rungs = st.builds(Rung, st.sampled_from(planning.KINDS), st.integers(1, 5).map(lambda hours: timedelta(hours=hours)))
policies = st.builds(
    BatchPolicy,
    max_rounds=st.integers(0, 3),
    deadline=st.just(DEADLINE),
    ladder=st.lists(rungs, max_size=4).map(tuple),
    early=st.sampled_from([None, 0.1, 1.0]),
    max_cost_usd=st.sampled_from([None, Decimal(2)]),
    standard_allowed=st.booleans(),
    in_backfill=st.booleans(),
    rescue_in_backfill=st.booleans(),
)


@settings(max_examples=300)
@given(policies, st.randoms(use_true_random=False), st.sampled_from(["", "commit_now", "cancel"]))
def test_whatever_happens_the_laws_hold_and_it_ends(policy: BatchPolicy, random: Any, command: str) -> None:
    model = Model(policy, random.randrange)
    model._change(command=command)
    model.run()

    sizes = model.summary.rounds
    assert len(sizes) <= policy.max_rounds
    assert all(later < earlier for earlier, later in pairwise(sizes)), "rounds shrink or stop"
    kinds = [step.rung.kind for _, step in model.opened_at]
    assert len(kinds) <= len(policy.ladder) + 1
    if not command:
        assert all(at >= START + DEADLINE for at, _ in model.opened_at), "no rung before the deadline"
    if policy.in_backfill and not policy.rescue_in_backfill:
        assert not set(kinds) & planning.DEARER
    if not policy.standard_allowed:
        assert "standard" not in kinds
    asked = [step for step in model.trace if isinstance(step, planning.Submit | planning.RunRung | planning.BuildRung)]
    settled = {climbed.fact.number for climbed in model.summary.rungs if climbed.settled}
    for number in settled - {c.fact.number for c in model.summary.rungs if c.fact.kind == "hedge"}:
        at = next(i for i, step in enumerate(model.trace) if step == planning.Settle(number))
        later = [step for step in model.trace[at:] if isinstance(step, planning.Submit)]
        assert not any(step.build == "root" or step.build.startswith("round") for step in later)
    assert command != "cancel" or not asked


def test_every_step_says_what_makes_repeating_it_harmless() -> None:
    acts = set(get_args(planning.Act)) | {Commit}
    assert set(planning.EFFECTS) == acts
    assert all(effect.harmless and effect.does for effect in planning.EFFECTS.values())


def summary(**fields: Any) -> BatchSummary:
    root = Sent(name="root", rows=10, open=("batches/1",), submitted=True)
    return msgspec.structs.replace(BatchSummary(label="b", rows=10, builds=(root,), begun_at=START), **fields)


DONE = (Sent(name="root", rows=10, ended_rows=10, submitted=True),)


def test_what_is_committed_is_committed_again_and_nothing_is_sent() -> None:
    assert isinstance(batch_step(summary(closed=True, command="cancel"), BatchPolicy(), "me", START)[0], Commit)


def test_a_deadline_does_not_matter_to_what_is_whole() -> None:
    whole = summary(builds=DONE, tally=Tally({"blocked": 1}, 0))
    policy = BatchPolicy(deadline=DEADLINE, ladder=(Rung("flex"),))
    assert batch_step(whole, policy, "me", START + timedelta(days=1)) == (Commit(),)


def test_rows_left_at_the_deadline_go_to_the_ladder_and_not_into_a_round() -> None:
    left = summary(builds=DONE, tally=Tally({"failed": 2}, 2))
    policy = BatchPolicy(deadline=DEADLINE, ladder=(Rung("flex"),), max_rounds=3)
    assert isinstance(batch_step(left, policy, "me", START)[0], planning.OpenRound)
    assert isinstance(batch_step(left, policy, "me", START + DEADLINE)[0], planning.OpenRung)


def test_rows_left_at_the_deadline_without_a_ladder_are_committed_as_they_are() -> None:
    left = summary(builds=DONE, tally=Tally({"failed": 2}, 2))
    assert isinstance(batch_step(left, BatchPolicy(deadline=DEADLINE), "me", START + DEADLINE)[0], Commit)


def test_an_open_job_at_the_deadline_without_a_ladder_is_a_failure() -> None:
    (step,) = batch_step(summary(), BatchPolicy(deadline=DEADLINE), "me", START + DEADLINE)
    assert isinstance(step, Fail)
    assert isinstance(step.error, WaitTimedOut)
    assert "batches/1" in str(step.error)


def test_at_the_deadline_nothing_that_is_not_a_job_yet_is_sent() -> None:
    pending = summary(builds=(Sent(name="root", rows=10, pending=1),))
    policy = BatchPolicy(deadline=DEADLINE, ladder=(Rung("flex"),))
    assert isinstance(batch_step(pending, policy, "me", START + DEADLINE)[0], planning.OpenRung)


def test_a_person_who_cancels_is_obeyed_before_anything_else() -> None:
    told = summary(command="cancel", command_reason="enough")
    assert batch_step(told, BatchPolicy(), "me", START) == (planning.CancelAll("enough"),)
    (step,) = batch_step(msgspec.structs.replace(told, cancelled=True), BatchPolicy(), "me", START)
    assert isinstance(step, Fail)
    assert isinstance(step.error, BatchCancelled)


def test_a_spent_budget_opens_no_rung_that_asks() -> None:
    policy = BatchPolicy(deadline=DEADLINE, ladder=(Rung("flex"), Rung("resubmit")), max_cost_usd=Decimal(1))
    (step,) = batch_step(summary(charged_usd=Decimal(1)), policy, "me", START + DEADLINE)
    assert isinstance(step, planning.OpenRung)
    assert step.rung.kind == "commit"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Rung("sprint"), "no such rung"),  # type: ignore[arg-type]
        (lambda: Rung("flex", limit=timedelta()), "more than zero"),
        (lambda: Rung("wait", model="m"), "asks nobody"),
        (lambda: BatchPolicy(ladder=(Rung("flex"),)), "never climbed"),
        (lambda: BatchPolicy(max_rounds=-1), "0 or more"),
        (lambda: BatchPolicy(early=0), "above 0"),
    ],
)
def test_what_cannot_be_meant_is_said_at_once(make: Callable[[], object], says: str) -> None:
    with pytest.raises(Unusable, match=says):
        make()


def test_a_time_that_has_passed_is_not_waited_for() -> None:
    """Without a ladder nothing follows from being stuck, and with nothing open there is nothing to be stuck."""
    open_ = Sent(name="root", rows=9, submitted=True, open=("batches/1",))
    waits = Sent(name="root", rows=9, submitted=True, pending=1, wait_until=START + DEADLINE, wait_why="no room")
    late = START + timedelta(hours=5)
    for build, policy, until in (
        (open_, BatchPolicy(stuck_after=0.9), None),
        (open_, BatchPolicy(stuck_after=0.9, deadline=DEADLINE), START + DEADLINE),
        (waits, BatchPolicy(stuck_after=0.9, ladder=(Rung("flex"),)), START + DEADLINE),
    ):
        summary = BatchSummary(label="b", rows=9, builds=(build,), begun_at=START, stuck_at=START + timedelta(hours=4))
        (step,) = batch_step(summary, policy, "me", late)
        assert isinstance(step, Rest)
        assert step.until == until


def test_what_is_known_is_looked_up_before_a_canary_asks_and_before_anything_is_sent() -> None:
    root = Sent(name="root", rows=10, pending=1, unclaimed=1)
    fresh = msgspec.structs.replace(summary(), builds=(root,), begun_at=None)
    both = BatchPolicy(reuse=Reuse(), canary=Canary())
    assert batch_step(fresh, both, "me", START) == (planning.ReuseAnswers(),)
    looked = msgspec.structs.replace(fresh, looked_back=True)
    assert batch_step(looked, both, "me", START) == (planning.RunCanary(),)
    assert batch_step(looked, BatchPolicy(reuse=Reuse()), "me", START) == (planning.Submit("root"),)
    claimed = msgspec.structs.replace(fresh, builds=(msgspec.structs.replace(root, unclaimed=0),))
    assert batch_step(claimed, both, "me", START) == (planning.Submit("root"),)
