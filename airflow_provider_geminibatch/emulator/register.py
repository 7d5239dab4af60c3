"""The jobs of both wires in one register, and what scenarios do to their creation and their lists."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import TypeVar

from airflow_provider_geminibatch.emulator.jobs import Effects, Job
from airflow_provider_geminibatch.emulator.names import Names, make_token, next_page
from airflow_provider_geminibatch.emulator.scenarios import Params
from airflow_provider_geminibatch.emulator.switches import Scenarios
from airflow_provider_geminibatch.emulator.wire import Call, Dropped, Json, refused

J = TypeVar("J", bound=Job)


class Register:
    """Every job ever created, foreign and deleted ones among them, oldest first."""

    def __init__(self, names: Names, scenarios: Scenarios) -> None:
        self._names, self._scenarios = names, scenarios
        self._jobs: dict[str, Job] = {}
        self._accepted = 0

    @property
    def jobs(self) -> tuple[Job, ...]:
        """The jobs, oldest first."""
        return tuple(self._jobs.values())

    @property
    def ordinal(self) -> int:
        """Which of the accepted creates the next one is, from 0."""
        return self._accepted

    def of(self, wire: type[J]) -> list[J]:
        """The jobs of one wire, oldest first."""
        return [job for job in self._jobs.values() if isinstance(job, wire)]

    def get(self, job_id: str, wire: type[J]) -> J | None:
        """The job of an id, unless it is of another wire."""
        job = self._jobs.get(job_id)
        return job if isinstance(job, wire) else None

    def put(self, job: Job) -> None:
        """Add a job that nobody's call created, or a job as it has become."""
        self._jobs[job.id] = job

    def is_dropped(self) -> bool:
        """Whether the connection of this create drops before anything is created."""
        return self._scenarios.happens("create_not_accepted_connection_dropped") is not None

    def namesake(self, display_name: str) -> Params | None:
        """How a job of somebody else with that name is to be left beside the next one, if it is."""
        return self.traits(display_name).get("foreign_job_same_name")

    def traits(self, display_name: str) -> Effects:
        """The job scenarios that the next job has."""
        return self._scenarios.of_job(self._accepted, display_name)

    def chooser(self, display_name: str) -> Callable[[int, str, str], dict[str, Params]]:
        """The function that says which row scenarios the rows of the next job have."""
        return self._scenarios.row_chooser(self._accepted, display_name)

    def accept(self, job: Job) -> None:
        """Add the job of this create. Raises where its reply is to get lost or to be a 500."""
        self._jobs[job.id] = job
        self._accepted += 1
        if self._scenarios.happens("create_reply_lost"):
            raise Dropped
        if self._scenarios.happens("create_500_but_created"):
            raise refused("internal")

    def page(self, call: Call, jobs: Iterable[J]) -> tuple[list[J], Json]:
        """A page of those jobs, newest first (assumed), fifty unless asked (assumed), and the token of the next one."""
        if "pageSize" not in call.request.query and self._scenarios.is_on("empty_list_without_page_size"):
            return [], {}
        size, token = call.page(50)
        if self._scenarios.happens("list_empty_page_with_token"):
            return [], {"nextPageToken": token or make_token(-sys.maxsize)}
        newest = sorted(((-job.number, job) for job in jobs if job.is_listed(call.now)), key=lambda pair: pair[0])
        page, following = next_page(newest, size, token)
        return page, {"nextPageToken": following} if following else {}

    def shows_stale_stats(self) -> bool:
        """Whether lists show the counts of the beginning."""
        return self._scenarios.is_on("list_stale_stats")


__all__ = ["Register"]
