"""The step function: total over every record, and cautious with money on each."""

from __future__ import annotations

import typing
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core import steps
from airflow_provider_geminibatch.core.errors import Superseded
from airflow_provider_geminibatch.core.ledger import (
    Absent,
    Attempt,
    CancelMark,
    Claim,
    End,
    Fenced,
    JobNamed,
    Refusal,
    Sending,
    ShardFacts,
    Shown,
    Uploaded,
    Void,
)
from airflow_provider_geminibatch.core.model import JobSnapshot, ServiceIdentity
from airflow_provider_geminibatch.core.steps import Evidence, Policy, shard_step

NOW = datetime(2026, 1, 2, tzinfo=UTC)
HERE, THERE = ServiceIdentity("developer", "https://here"), ServiceIdentity("developer", "https://there")
POLICY = Policy()
owners = st.sampled_from(["me", "other", "third"])
moments = st.integers(0, 40 * 60).map(lambda minutes: NOW - timedelta(minutes=minutes))


def maybe(fact: st.SearchStrategy[typing.Any]) -> st.SearchStrategy[typing.Any]:
    return st.none() | fact


@st.composite
def attempts(draw: st.DrawFn, number: int = 1) -> Attempt:
    """Any record an attempt can have, those that only a bug or an accident would leave included."""
    base = {"owner": owners, "at": moments}
    fact = lambda kind, **more: maybe(st.builds(kind, **base, **more))  # noqa: E731 - a table of strategies reads better
    sending = draw(fact(Sending, service_at=moments))
    uploaded = draw(
        (st.builds if sending else lambda *a, **k: maybe(st.builds(*a, **k)))(
            Uploaded,
            **base,
            file_name=st.just("files/a"),
            file_at=moments,
            life_seconds=maybe(st.sampled_from([600.0, 48 * 3600.0])),
        )
    )
    return Attempt(
        number=number,
        claim=draw(
            st.builds(
                Claim,
                **base,
                display_name=st.just("d"),
                service=st.sampled_from([HERE, THERE]),
                max_tries=maybe(st.integers(0, 3)),
            )
        ),
        uploaded=uploaded,
        sending=sending,
        job=draw(fact(JobNamed, job_name=st.just("batches/1"), how=st.just("create"))),
        refused=draw(fact(Refusal, code=st.sampled_from([0, 400, 401, 403, 404, 429]), text=st.just("no"))),
        void=draw(fact(Void, why=st.just("why"))),
        shown=draw(fact(Shown, file_name=st.just("files/a"))),
        fenced=draw(fact(Fenced, service_at=maybe(moments))),
        absent=draw(fact(Absent, sweeps=st.just((NOW, NOW)))),
        cancel=draw(fact(CancelMark, why=st.just("why"))),
        end=draw(
            fact(End, job_name=st.just("batches/1"), state=st.sampled_from(["SUCCEEDED", "CANCELLED", "EXPIRED"]))
        ),
    )


records = st.integers(0, 3).flatmap(
    lambda count: st.tuples(*[attempts(number) for number in range(1, count + 1)]).map(ShardFacts)
)
evidences = st.builds(
    Evidence,
    label=st.just("shard 0"),
    service=st.sampled_from([HERE, THERE]),
    max_tries=maybe(st.integers(0, 3)),
    later_try=st.booleans(),
    looked_at_job=st.booleans(),
    found=st.just(()) | st.just((JobSnapshot(name="batches/1", state="PENDING", display_name="d"),)),
    swept=st.booleans(),
    unlisted=st.lists(moments.map(lambda at: at + timedelta(hours=1)), max_size=3).map(tuple),
    file_hidden=st.booleans(),
    doubtful=st.sampled_from(["", "batches/2 has its name, but another file"]),
    unsure=st.sampled_from(["", "503"]),
    service_now=maybe(moments),
)


@given(records, evidences)
def test_there_is_always_one_next_step(facts: ShardFacts, evidence: Evidence) -> None:
    assert isinstance(shard_step(facts, evidence, POLICY, "me", NOW), steps.Step)


@given(records, evidences)
def test_nothing_is_sent_while_an_earlier_create_may_have_arrived(facts: ShardFacts, evidence: Evidence) -> None:
    """A create, or a new attempt that leads to one, needs every earlier create closed: refused, absent, or ended for good."""
    step = shard_step(facts, evidence, POLICY, "me", NOW)

    if isinstance(step, steps.Start | steps.Send) and facts.last:
        last = facts.last
        open_create = last.sending and not (last.refused or last.absent or last.job)
        running = last.job and not last.absent and not (last.end and last.end.state != "SUCCEEDED")
        assert not open_create
        assert not running


@given(records, evidences)
def test_only_the_owner_of_an_unvoided_claim_sends(facts: ShardFacts, evidence: Evidence) -> None:
    step = shard_step(facts, evidence, POLICY, "me", NOW)

    if isinstance(step, steps.Send):
        assert facts.last
        assert (facts.last.claim.owner, facts.last.void, facts.last.sending) == ("me", None, None)


@given(records, evidences)
def test_the_job_of_a_shard_is_the_same_to_submit_and_to_everybody_after(facts: ShardFacts, evidence: Evidence) -> None:
    step = shard_step(facts, evidence, POLICY, "me", NOW)

    if isinstance(step, steps.Done):
        assert step.job_name == facts.current_job


@given(records, evidences)
def test_unknown_never_yields_a_create(facts: ShardFacts, evidence: Evidence) -> None:
    step = shard_step(facts, evidence, POLICY, "me", NOW)

    if evidence.unsure and facts.last and facts.last.sending:
        last = facts.last
        if not (last.job or last.refused or last.absent):
            assert isinstance(step, steps.Wait | steps.Stop | steps.Adopt)


@given(records, evidences)
def test_absence_needs_the_fence_two_sweeps_and_the_settle_time(facts: ShardFacts, evidence: Evidence) -> None:
    step = shard_step(facts, evidence, POLICY, "me", NOW)

    if isinstance(step, steps.NoteAbsent):
        assert facts.last
        last = facts.last
        assert last.void and last.shown and last.fenced and last.fenced.service_at
        assert len(step.sweeps) >= 2
        assert max(step.sweeps) >= last.fenced.service_at + POLICY.settle


@given(records, evidences)
def test_a_wait_ends_in_the_future(facts: ShardFacts, evidence: Evidence) -> None:
    step = shard_step(facts, evidence, POLICY, "me", NOW)

    if isinstance(step, steps.Wait):
        assert step.until > NOW


def test_every_action_declares_its_effect() -> None:
    assert set(steps.EFFECTS) == set(typing.get_args(steps.Action))


def test_a_lost_claim_stops() -> None:
    claim = Claim(owner="other", at=NOW, display_name="d", service=HERE)

    step = shard_step(ShardFacts(), Evidence(label="shard 0", service=HERE, lost_claim=claim), POLICY, "me", NOW)

    assert isinstance(step, steps.Stop)
    assert isinstance(step.error, Superseded)


def test_a_batch_waits_for_its_earliest_shard_and_is_done_when_all_are_jobs() -> None:
    early, late = steps.Wait(NOW, "room"), steps.Wait(NOW + timedelta(hours=1), "look")

    assert steps.batch_step([late, steps.Done("batches/1"), early]) == early
    assert steps.batch_step([steps.Done("batches/1")]) is None
