"""Submission: one job per shard, whatever happens in between."""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_geminibatch.core.errors import (
    GeminiBatchError,
    KeyRefused,
    ModelUnknown,
    ServiceBusy,
    ServiceChanged,
    ServiceError,
    StoreUnreadable,
    SubmissionRefused,
    SubmissionUnknown,
    Superseded,
)
from airflow_provider_geminibatch.core.ledger import (
    Absent,
    CancelMark,
    Claim,
    Sending,
    Uploaded,
    Void,
    attempt_path,
)
from airflow_provider_geminibatch.gemini.gateway import JobPage, Refused
from airflow_provider_geminibatch.jobs.lookup import find_strays, sweep
from airflow_provider_geminibatch.jobs.submit import Submitted, Waiting, end_fact, read_build, submit
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.stores import MemoryStore
from airflow_provider_geminibatch.testing import InMemoryGateway, ManualClock
from tests.faults import WAYS, Crash, FaultyGateway, FaultyStore, Plan
from tests.jobs.batches import seal

LOG = logging.getLogger("test")


class World:
    """A workspace, a service and a clock, and tries of one task against them."""

    def __init__(self, *, shards: int = 1) -> None:
        self.clock = ManualClock()
        self.store = MemoryStore("memory://w")
        self.service = InMemoryGateway(self.clock, turnaround=timedelta(hours=20))
        self.manifest = seal(self.store, shards=shards)
        self.build = read_build(self.store, self.manifest.path)
        self.tries = 0

    def attempt(self, plan: Plan | None = None, **more: Any) -> Submitted:
        """One try of the task, over all its deferrals. Errors and crashes pass through."""
        self.tries += 1
        me, plan = f"try-{self.tries}", plan or Plan()
        store, gateway = FaultyStore(self.store, plan), FaultyGateway(self.service, plan)
        more = {"later_try": self.tries > 1, **more}
        while True:
            end = submit(self.manifest, store=store, gateway=gateway, me=me, now=self.clock, log=LOG, **more)
            if isinstance(end, Submitted):
                return end
            assert isinstance(end, Waiting)
            self.clock.advance_to(end.until)

    def retried(self, *plans: Plan) -> Submitted:
        """Tries in a row as Airflow makes them, the last one undisturbed."""
        for plan in plans:
            try:
                return self.attempt(plan)
            except (Crash, GeminiBatchError):
                continue
        return self.attempt()

    def facts(self, shard: int = 0) -> Any:
        return fact_store.shard_facts(self.store, self.build.shards[shard].ledger)


def effects_of_a_quiet_walk() -> list[str]:
    plan = Plan()
    World().attempt(plan)
    return plan.seen


QUIET = effects_of_a_quiet_walk()


def test_each_shard_becomes_one_job_and_a_second_submit_adopts() -> None:
    world = World(shards=3)

    first, second = world.attempt(), world.attempt()

    assert first == second
    assert [job.name for job in world.service.created] == list(first.job_names)


def test_a_quiet_walk_creates_once_and_after_sending_is_on_record() -> None:
    create = QUIET.index("gateway.create")

    assert QUIET.count("gateway.create") == 1
    assert QUIET[create - 2 : create] == ["store.create a01.sending", "store.read a01.void"]
    assert QUIET[create + 1] == "store.create a01.job"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("at", range(len(QUIET)), ids=lambda at: f"{at}-{QUIET[at].replace(' ', '-')}")
def test_crash_matrix_of_submission(at: int, way: str) -> None:
    world = World()

    if way == "frozen":
        second: list[Submitted] = []
        plan = Plan(at, way, meanwhile=lambda: second.append(world.attempt()))
        with suppress(Superseded):
            world.attempt(plan)
        assert second
    else:
        world.retried(Plan(at, way))

    assert len(world.service.created) == 1
    assert world.attempt().job_names == (world.service.created[0].name,)
    assert world.facts().current_job == world.service.created[0].name


@settings(max_examples=150, deadline=None)
@given(
    plans=st.lists(st.tuples(st.integers(0, 40), st.sampled_from(WAYS)), min_size=1, max_size=4),
    lost=st.integers(0, 2),
)
def test_no_series_of_accidents_pays_a_shard_twice(plans: list[tuple[int, str]], lost: int) -> None:
    world = World(shards=2)
    world.service.replies_to_lose = lost

    def go_on(rest: list[tuple[int, str]]) -> None:
        if not rest:
            return
        (at, way), *later = rest
        with suppress(Crash, GeminiBatchError):
            world.attempt(Plan(at, way, meanwhile=lambda: go_on(later)))
        if way != "frozen":
            go_on(later)

    go_on(plans)
    names = world.retried().job_names

    assert len({job.display_name for job in world.service.created}) == len(world.service.created)
    assert sorted(names) == sorted(job.name for job in world.service.created)
    assert len(names) == 2


def test_a_lost_reply_is_looked_up_and_never_submitted_twice() -> None:
    world = World()
    world.service.replies_to_lose = 1

    names = world.attempt().job_names

    assert names == tuple(job.name for job in world.service.created)
    assert world.facts().last.job.how == "lookup"


def test_a_create_that_never_arrived_is_sent_again_only_after_proven_absence() -> None:
    world = World()
    create = QUIET.index("gateway.create")
    with pytest.raises(Crash):
        world.attempt(Plan(create, "before"))
    began = world.clock()

    world.attempt()

    first, second = world.facts().attempts
    assert first.void and first.shown and first.fenced and len(first.absent.sweeps) >= 2
    assert first.absent.sweeps[-1] >= first.fenced.service_at + timedelta(minutes=10)
    assert second.sending.at >= began + timedelta(minutes=10)
    assert len(world.service.created) == 1


def test_unknown_never_creates() -> None:
    world = World()
    with pytest.raises(Crash):
        world.attempt(Plan(QUIET.index("gateway.create"), "before"))
    world.service.files.clear()  # the file is not shown, so whose list this is cannot be told

    with pytest.raises(SubmissionUnknown, match="Nothing was resubmitted"):
        world.attempt()

    assert world.service.created == []


def test_a_list_that_cannot_be_read_waits_and_never_creates() -> None:
    world = World()
    with pytest.raises(Crash):
        world.attempt(Plan(QUIET.index("gateway.create"), "after"))
    plan = Plan(at=None)
    busy = FaultyGateway(world.service, plan)

    class Unlistable:
        def __getattr__(self, name: str) -> Any:
            if name == "jobs":
                from airflow_provider_geminibatch.core.errors import ServiceBusy

                def jobs(page_token: str = "", display_name: str = "") -> None:
                    raise ServiceBusy("list of jobs", 503, "unavailable")

                return jobs
            return getattr(busy, name)

    end = submit(world.manifest, store=world.store, gateway=Unlistable(), me="try-2", now=world.clock, log=LOG)

    assert isinstance(end, Waiting)
    assert len(world.service.created) == 1


def test_an_empty_ledger_on_a_later_try_is_looked_up_first() -> None:
    world = World()
    world.attempt()
    for path in list(world.store.list(world.build.shards[0].ledger)):
        world.store.delete(path)

    with pytest.raises(SubmissionUnknown, match="not on record"):
        world.attempt()

    assert len(world.service.created) == 1


def test_the_loser_of_a_claim_stops_and_harms_nothing() -> None:
    world = World()
    claim_at = QUIET.index("store.create a01.claim")
    plan = Plan(claim_at, "frozen", meanwhile=world.attempt)

    with pytest.raises(Superseded):
        world.attempt(plan)

    assert len(world.service.created) == 1


def test_a_file_about_to_expire_is_uploaded_again_before_sending() -> None:
    world = World()
    with pytest.raises(Crash):
        world.attempt(Plan(QUIET.index("store.create a01.uploaded"), "after"))
    world.clock.advance(timedelta(hours=47))

    submit(world.manifest, store=world.store, gateway=world.service, me="try-1", now=world.clock, log=LOG)

    assert [attempt.number for attempt in world.facts().attempts] == [1, 2]
    assert world.service.created[0].input_file != world.facts().attempts[0].uploaded.file_name


@pytest.mark.parametrize("apart", [timedelta(days=-400), timedelta(days=400)])
def test_clocks_that_are_far_apart_upload_once(apart: timedelta) -> None:
    world = World()

    submit(
        world.manifest, store=world.store, gateway=world.service, me="try-1", now=lambda: world.clock() + apart, log=LOG
    )

    assert len(world.facts().attempts) == len(world.service.files) == len(world.service.created) == 1


def test_a_shard_that_is_not_what_was_sealed_is_not_sent() -> None:
    world = World()
    world.store.write(world.build.shards[0].path, b"{}\n")

    with pytest.raises(StoreUnreadable, match="not what was sealed"):
        world.attempt()

    assert world.service.created == []


def test_a_connection_that_points_elsewhere_fails_while_a_job_is_open() -> None:
    world = World()
    world.attempt()
    elsewhere = InMemoryGateway(world.clock, project="other")

    with pytest.raises(ServiceChanged, match="Point the connection back"):
        submit(world.manifest, store=world.store, gateway=elsewhere, me="try-2", now=world.clock, log=LOG)

    assert elsewhere.created == []


class Refusing(InMemoryGateway):
    """Refuses creates with given replies, in order."""

    def __init__(self, clock: ManualClock, *replies: Refused) -> None:
        super().__init__(clock, turnaround=timedelta(hours=20))
        self.replies = list(replies)

    def create(self, **given: Any) -> Any:
        if self.replies:
            return self.replies.pop(0)
        return super().create(**given)


def test_429_waits_with_growing_pauses_and_keeps_its_file() -> None:
    world = World()
    world.service = Refusing(world.clock, *[Refused(429, "quota")] * 3)
    began = world.clock()

    world.attempt()

    assert world.clock() - began == timedelta(seconds=30 + 60 + 120)
    assert len(world.service.files) == 1
    assert len(world.service.created) == 1


def test_429_with_retry_after_waits_at_least_that_long() -> None:
    world = World()
    world.service = Refusing(world.clock, Refused(429, "quota", 600.0))
    began = world.clock()

    world.attempt()

    assert world.clock() - began == timedelta(seconds=600)


@pytest.mark.parametrize(
    ("refused", "error", "says"),
    [
        (Refused(400, "Error on line 2: invalid JSON, near column 3: no such field: 'x'"), SubmissionRefused, r"line 2 \(key 'k1'\)"),
        (Refused(402, "no credit"), SubmissionRefused, "top it up"),
        (Refused(403, "You do not have permission"), SubmissionRefused, "key's project"),
        (Refused(404, "models/x is not found for API version v1beta"), ModelUnknown, "Correct model="),
        (Refused(400, "API key not valid. Please pass a valid API key."), KeyRefused, "valid API key"),
    ],
)  # fmt: skip
def test_a_refusal_is_told_in_the_services_words_and_a_later_try_may_send(
    refused: Refused, error: type[GeminiBatchError], says: str
) -> None:
    world = World()
    world.service = Refusing(world.clock, refused)

    with pytest.raises(error, match=says):
        world.attempt()
    assert world.service.created == []

    world.attempt()
    assert len(world.service.created) == 1


def test_a_model_that_does_not_exist_is_named_before_anything_is_uploaded() -> None:
    world = World()
    world.manifest = seal(MemoryStore("memory://other"), model="gemini-9")
    other = MemoryStore("memory://other2")
    world.manifest = seal(other, model="gemini-9")

    with pytest.raises(ModelUnknown, match="Nothing was created or paid"):
        submit(world.manifest, store=other, gateway=world.service, me="me", now=world.clock, log=LOG)

    assert world.service.files == {}


def test_a_job_we_cancelled_is_sent_again_and_one_that_runs_is_not() -> None:
    world = World()
    name = world.attempt().job_names[0]
    mark = CancelMark(owner="someone", at=world.clock(), why="marked failed")
    fact_store.put(world.store, attempt_path(world.build.shards[0].ledger, 1, "cancel"), mark)

    assert world.attempt().job_names == (name,)  # marked, but the service has not ended it

    world.service.cancel(name)
    again = world.attempt().job_names[0]

    assert again != name
    assert len(world.service.created) == 2


def test_a_clear_sends_a_job_that_ended_without_results_again_and_a_retry_does_not() -> None:
    world = World()
    name = world.attempt(max_tries=2).job_names[0]
    world.service.cancel(name)  # by somebody else: no mark of ours
    job = world.service.job(name)
    end = end_fact(job, owner="sensor", at=world.clock())
    fact_store.put(world.store, attempt_path(world.build.shards[0].ledger, 1, "end"), end)

    assert world.attempt(max_tries=2).job_names == (name,)
    assert world.attempt(max_tries=5).job_names != (name,)


def test_a_voided_owner_never_sends() -> None:
    world = World()
    ledger = world.build.shards[0].ledger
    claim = Claim(owner="try-1", at=world.clock(), display_name="d", service=world.service.identity)
    fact_store.put(world.store, attempt_path(ledger, 1, "claim"), claim)
    fact_store.put(
        world.store, attempt_path(ledger, 1, "void"), Void(owner="other", at=world.clock(), why="taken over")
    )

    with pytest.raises(Superseded):
        world.attempt()

    assert world.service.created == []


class Renaming(InMemoryGateway):
    """A service that resolves an alias: its jobs show another model than was asked for."""

    def _now(self, job: Any) -> Any:
        return msgspec.structs.replace(super()._now(job), model="gemini-3.8-flash-001")


def test_a_job_of_our_name_that_cannot_be_verified_is_unknown_never_absent() -> None:
    world = World()
    world.service = Renaming(world.clock, turnaround=timedelta(hours=20))
    world.service.replies_to_lose = 1

    with pytest.raises(SubmissionUnknown, match=r"batches/000000 has its name.* 'gemini-3.8-flash-001'"):
        world.attempt()
    with pytest.raises(SubmissionUnknown):
        world.attempt()

    assert len(world.service.created) == 1


@pytest.mark.parametrize("apart", [timedelta(days=3), timedelta(days=-3)])
def test_the_life_of_a_file_is_told_by_the_services_clock(apart: timedelta) -> None:
    world = World()

    end = submit(
        world.manifest, store=world.store, gateway=world.service, me="me", now=lambda: world.clock() + apart, log=LOG
    )

    assert isinstance(end, Submitted)
    assert len(world.service.files) == 1


def test_a_service_that_never_shows_the_file_it_took_is_not_fed_for_ever() -> None:
    world = World()

    class Hiding(InMemoryGateway):
        def file(self, name: str) -> None:
            return None

    world.service = Hiding(world.clock)

    with pytest.raises(ServiceBusy, match="not at the service any more"):
        world.attempt()

    assert len(world.service.files) == 2
    assert world.service.created == []


def test_what_was_seen_of_one_attempt_says_nothing_about_the_next() -> None:
    """Found a job of the first attempt; meanwhile somebody has gone on to a second one, whose create is on its way."""
    world = World()
    with pytest.raises(Crash):
        world.attempt(Plan(QUIET.index("gateway.create"), "after"))
    ledger, clock = world.build.shards[0].ledger, world.clock

    def go_on() -> None:
        at = {"owner": "third", "at": clock()}
        service = world.service.identity
        fact_store.put(world.store, attempt_path(ledger, 1, "absent"), Absent(**at, sweeps=(clock(), clock())))
        fact_store.put(world.store, attempt_path(ledger, 2, "claim"), Claim(**at, display_name="d2", service=service))
        fact_store.put(
            world.store, attempt_path(ledger, 2, "uploaded"), Uploaded(**at, file_name="files/f2", file_at=clock())
        )
        fact_store.put(world.store, attempt_path(ledger, 2, "sending"), Sending(**at))

    plan = Plan(None, "frozen")
    store, gateway = FaultyStore(world.store, plan), FaultyGateway(world.service, plan)

    class Meanwhile:
        def __getattr__(self, name: str) -> Any:
            if name == "jobs" and plan.seen.count("gateway.jobs") == 0:
                return lambda token="", name="": (gateway.jobs(token), go_on())[0]
            return getattr(gateway, name)

    submit(world.manifest, store=store, gateway=Meanwhile(), me="try-2", now=clock, log=LOG, later_try=True)

    assert world.facts().attempts[1].job is None


def test_without_room_the_rest_of_the_wave_waits_and_is_not_uploaded() -> None:
    world = World(shards=4)
    world.service = Refusing(world.clock, *[Refused(429, "quota")] * 2)

    end = submit(world.manifest, store=world.store, gateway=world.service, me="me", now=world.clock, log=LOG)

    assert isinstance(end, Waiting)
    assert len(world.service.replies) == 1
    assert len(world.service.files) == 1
    assert len(world.attempt().job_names) == 4


def test_a_clear_after_giving_up_on_room_waits_for_room_again() -> None:
    world = World()
    world.service = Refusing(world.clock, *[Refused(429, "quota")] * 200)
    with pytest.raises(SubmissionRefused, match="raise the quota"):
        world.attempt()
    world.service.replies = world.service.replies[:3]
    world.clock.advance(timedelta(days=2))

    assert len(world.attempt().job_names) == 1


def test_attempts_that_are_over_are_read_once_per_walk() -> None:
    world = World()
    world.service = Refusing(world.clock, *[Refused(429, "quota")] * 20)
    world.attempt()
    world.service = Refusing(world.clock)
    plan = Plan()

    world.attempt(plan)

    assert plan.seen.count("store.read a01.claim") == 1
    world = World()
    world.service = Refusing(world.clock, *[Refused(429, "quota")] * 2)
    plan = Plan()
    world.attempt(plan)
    assert plan.seen.count("store.read a01.uploaded") == 6  # while it is the last, and once in each later walk


def test_a_list_without_the_services_time_proves_nothing_and_does_not_spin() -> None:
    world = World()
    with pytest.raises(Crash):
        world.attempt(Plan(QUIET.index("gateway.create"), "before"))

    class Timeless(InMemoryGateway):
        asked = 0

        def jobs(self, page_token: str = "", display_name: str = "") -> Any:
            self.asked += 1
            assert self.asked < 20
            page = super().jobs(page_token)
            return page if self.asked == 2 else msgspec.structs.replace(page, at=None)  # the fence has its time

    service = Timeless(world.clock)
    service.files = world.service.files

    end = submit(world.manifest, store=world.store, gateway=service, me="try-2", now=world.clock, log=LOG)

    assert isinstance(end, Waiting)
    assert world.facts().last.absent is None


def test_a_sweep_is_as_old_as_its_first_page() -> None:
    """Newest jobs come first: one that was created after the first page was read is not on a later page."""
    early, late = ManualClock()(), ManualClock()() + timedelta(minutes=5)

    class Paged(InMemoryGateway):
        def jobs(self, page_token: str = "", display_name: str = "") -> JobPage:
            return JobPage((), "", late) if page_token else JobPage((), "2", early)

    assert sweep(Paged(ManualClock()), display_name="d", model="m", file_name="f", log=LOG).at == early


def test_only_the_same_tasks_clear_counts_as_one() -> None:
    """Another Submit of the same build, with more retries, is no clear of the first."""
    world = World()
    name = world.attempt(max_tries=0, task="dag.submit").job_names[0]
    world.service.cancel(name)  # by somebody else

    assert world.attempt(max_tries=3, task="dag.other").job_names == (name,)
    assert world.attempt(max_tries=3, task="dag.submit").job_names != (name,)


def test_a_clear_is_told_although_the_dag_has_fewer_retries_now() -> None:
    world = World()
    name = world.attempt(max_tries=5).job_names[0]
    world.service.cancel(name)

    assert world.attempt(max_tries=1).job_names != (name,)


def test_a_job_that_is_listed_a_little_late_keeps_its_input_file() -> None:
    """A job that was just created may still have to read its file, and the fence deletes it."""
    world = World()

    class Late(InMemoryGateway):
        def jobs(self, page_token: str = "", display_name: str = "") -> JobPage:
            page, since = super().jobs(page_token), world.clock() - timedelta(seconds=30)
            return msgspec.structs.replace(page, jobs=tuple(job for job in page.jobs if job.created_at <= since))

    world.service = Late(world.clock, turnaround=timedelta(hours=20))
    world.service.replies_to_lose = 1

    names = world.attempt().job_names

    assert names == tuple(job.name for job in world.service.created)
    assert list(world.service.files) == [world.service.created[0].input_file]


class Doubling(InMemoryGateway):
    """Something in between sent a create twice and lost the reply. A job that has ended cannot be cancelled."""

    def create(self, **given: Any) -> Any:
        super().create(**given)
        self.replies_to_lose = 1
        return super().create(**given)

    def cancel(self, job_name: str) -> None:
        if self.job(job_name).ended:
            raise ServiceError(f"cancel of {job_name}", 400, "the job has ended")
        super().cancel(job_name)


@pytest.mark.parametrize("ended", [False, True])
def test_of_two_jobs_of_one_create_the_first_is_kept_and_the_other_cancelled_and_costed(ended: bool) -> None:
    world = World()
    world.service = Doubling(world.clock, turnaround=timedelta(hours=20))
    with pytest.raises(Crash):
        world.attempt(Plan(QUIET.index("gateway.create"), "after"))
    kept, extra = world.service.created
    if ended:
        InMemoryGateway.cancel(world.service, extra.name)

    assert world.attempt().job_names == (kept.name,)

    assert [world.service.job(job.name).state for job in (kept, extra)] == ["PENDING", "CANCELLED"]
    strays = find_strays(
        world.store, world.service, world.build.shards[0], world.facts(), me="load", now=world.clock, log=LOG
    )
    assert [job.name for job in strays] == [extra.name]


def test_a_submit_that_only_adopts_does_not_open_a_closed_batch_again() -> None:
    world = World()
    world.attempt()
    (note,) = world.store.list("open")
    world.store.delete(note)  # as the commit does

    world.attempt()
    assert list(world.store.list("open")) == []
