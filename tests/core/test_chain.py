from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.chain import Hold, Landed, Missing, Pass, Run, Sight, chain_step, together

STATES = [
    None, "scheduled", "queued", "running", "deferred", "up_for_retry", "up_for_reschedule", "restarting",
    "awaiting_input", "success", "failed", "upstream_failed", "skipped", "removed",
]  # fmt: skip
AT_WORK = STATES[:9]
LANDED = Landed("c1", "run1")


def run(*states, run_id="run1", closed=False):
    return Run(run_id, states, closed)


def seen(*runs, landed=None, rejected="", owner="dag.load"):
    return Sight(owner, runs, landed, rejected)


def test_an_accepted_commit_of_a_task_that_is_done_passes():
    assert chain_step(seen(run("success"), landed=LANDED)) == Pass("c1")


@pytest.mark.parametrize("state", AT_WORK)
def test_an_owner_at_work_is_waited_for_even_if_an_older_commit_lies_there(state):
    step = chain_step(seen(run(state), landed=LANDED))
    assert isinstance(step, Hold)
    assert "run1" in step.why


@pytest.mark.parametrize("state", ["failed", "upstream_failed"])
def test_an_owner_that_failed_leaves_its_older_commit_out_of_date(state):
    step = chain_step(seen(run(state), landed=LANDED))
    assert step == Missing("dag.load failed in run1 after the commit there, which is out of date")


def test_a_commit_that_a_person_accepted_passes_although_its_task_failed():
    assert chain_step(seen(run("failed"), landed=Landed("c1", "run1", by_person=True))) == Pass("c1")


def test_a_commit_of_another_run_repairs_the_failure_of_the_first():
    assert chain_step(seen(run("failed"), run("success", run_id="by-hand"), landed=Landed("c2", "by-hand"))) == Pass(
        "c2"
    )


def test_a_commit_outlives_its_dag_run():
    assert chain_step(seen(landed=LANDED)) == Pass("c1")


@pytest.mark.parametrize("state", ["failed", "upstream_failed"])
def test_a_failed_run_without_a_commit_is_named(state):
    assert chain_step(seen(run(state))) == Missing("dag.load failed in run1")


def test_a_skipped_window_is_missing():
    assert chain_step(seen(run("skipped"))) == Missing("dag.load was skipped in run1")


def test_a_success_without_a_commit_is_missing_since_somebody_marked_it():
    step = chain_step(seen(run("success")))
    assert isinstance(step, Missing)
    assert step.certain
    assert "without an accepted commit" in step.why


def test_rejected_answers_are_named_with_their_numbers():
    assert chain_step(seen(run("failed"), rejected="3 of 9 answered")) == Missing(
        "its answers were rejected (3 of 9 answered)"
    )


def test_no_run_and_no_commit_is_not_certain():
    assert chain_step(seen()) == Missing("there is no run of dag.load for it", certain=False)
    assert chain_step(seen(owner="")) == Missing(
        "nobody is known to land there (name the task with landed_by=)", certain=False
    )


def test_a_task_that_an_ended_run_never_started_has_failed():
    assert isinstance(chain_step(seen(run(None, closed=False))), Hold)
    assert chain_step(seen(run(None, closed=True))) == Missing("dag.load failed in run1")


def test_all_instances_of_a_mapped_owner_count():
    assert isinstance(chain_step(seen(run("success", "running"), landed=LANDED)), Hold)
    assert isinstance(chain_step(seen(run("success", "failed"), landed=LANDED)), Missing)
    assert chain_step(seen(run("success", "skipped"), landed=LANDED)) == Pass("c1")


runs = st.builds(
    Run,
    st.sampled_from(["run1", "run2"]),
    st.lists(st.sampled_from(STATES), min_size=1, max_size=3).map(tuple),
    st.booleans(),
)
sights = st.builds(
    Sight,
    st.just("dag.load"),
    st.lists(runs, max_size=2).map(tuple),
    st.none() | st.builds(Landed, st.just("c1"), st.sampled_from(["run1", "run3"]), st.booleans()),
    st.sampled_from(["", "0 of 9 answered"]),
)


@given(sights)
def test_nothing_but_an_accepted_commit_passes_and_never_while_its_owner_works(sight):
    step = chain_step(sight)
    if isinstance(step, Pass):
        assert sight.landed is not None
        assert not any(run.open for run in sight.runs)


@given(sights)
def test_what_is_certainly_missing_stays_so_until_a_person_acts(sight):
    step = chain_step(sight)
    if isinstance(step, Missing) and step.certain:
        assert not any(run.open for run in sight.runs)
        assert sight.runs or sight.rejected


def test_a_window_in_parts_passes_when_every_part_does_and_waits_before_it_despairs():
    ok, hold = Pass("c1"), Hold("at work")
    gone, perhaps = Missing("failed"), Missing("no run", certain=False)
    assert together({"eu": ok, "us": ok}, "c12") == Pass("c12")
    assert together({"eu": ok, "us": hold}, "c12") == Hold("part us: at work")
    assert together({"eu": gone, "us": hold}, "c12") == Hold("part us: at work")
    assert together({"eu": gone, "us": ok}, "c12") == Missing("part eu: failed")
    assert together({"eu": perhaps, "us": ok}, "c12") == Missing("part eu: no run", certain=False)
    assert together({"eu": perhaps, "us": gone}, "c12") == Missing("part eu: no run; part us: failed")
