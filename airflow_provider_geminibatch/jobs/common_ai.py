"""Submitting, looking up and reading the job of a ``@task.llm_batch``, whose own state file is all the record there is.

There is no ledger of ours, so nothing can be fenced that another attempt may still begin. What can be done is done: a create
is sent once; one whose fate is unknown, here or in a crashed attempt, is looked up by a name made from the submission, and is
called absent only when its input file is gone and the settle time has passed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any, BinaryIO, NamedTuple

import msgspec

from airflow_provider_geminibatch.core.capabilities import METHODS
from airflow_provider_geminibatch.core.common_ai import Submission, repeats, submission_of
from airflow_provider_geminibatch.core.errors import (
    ModelUnknown,
    ResultsBroken,
    ResultsNotReady,
    ServiceBusy,
    SubmissionRefused,
    SubmissionUnknown,
)
from airflow_provider_geminibatch.core.model import JobSnapshot, Outcomes
from airflow_provider_geminibatch.core.names import wire_key
from airflow_provider_geminibatch.core.outcomes import Line, Outcome, classify
from airflow_provider_geminibatch.core.reconcile import Reconciled, distrust, reconcile
from airflow_provider_geminibatch.core.steps import Policy
from airflow_provider_geminibatch.gemini.gateway import Created, Gateway, Refused, UploadedFile
from airflow_provider_geminibatch.jobs.download import fetch
from airflow_provider_geminibatch.jobs.lookup import pages
from airflow_provider_geminibatch.jobs.wait import pause_until, utc_now
from airflow_provider_geminibatch.storage.stores import LocalStore

CLOCK_SLACK = timedelta(minutes=5)
"""How far the clock of a worker, which dates an intent, may be ahead of the service's, which dates jobs."""

FILE_LIFE = timedelta(hours=48)
"""How long an uploaded file lives (files guide); with its end it tells its age."""

OUTPUT_LOOKS = (2.0, 4.0, 8.0)
"""Pauses while a job that succeeded does not name its output yet."""


@dataclass(frozen=True)
class Desk:
    """Who asks, by which clock, and how long a job may take to turn up in the list."""

    gateway: Gateway
    log: logging.Logger
    policy: Policy = field(default_factory=Policy)
    now: Callable[[], datetime] = utc_now
    sleep: Callable[[float], object] | None = None

    def pause(self, seconds: float) -> None:
        """Hold this thread for a moment."""
        if self.sleep is not None:
            self.sleep(seconds)
        else:
            pause_until(self.now() + timedelta(seconds=seconds), now=self.now)


class Sent(NamedTuple):
    """The job of a submission; ``file_name`` is empty when an earlier create turned out to have made it."""

    job_name: str
    file_name: str = ""


def line_of(asked: Submission, index: int, request: dict[str, Any]) -> bytes:
    """A request as a line of the input file."""
    return msgspec.json.encode({"key": wire_key(asked.tag, 0, index), "request": request}) + b"\n"


def send(desk: Desk, asked: Submission, lines: Iterable[bytes], *, model: str) -> Sent:
    """Upload the lines and create their job, once.

    Raises SubmissionRefused for a no, ServiceBusy for a create that is proven not to have arrived, and SubmissionUnknown
    where that cannot be told.
    """
    info = desk.gateway.model(model)
    if info.methods and METHODS["generate"] not in info.methods:
        raise ModelUnknown(f"model {model!r}", 404, f"it does not support {METHODS['generate']}.")
    # An earlier life of the same submission, a cancelled one say, is none of this one's jobs.
    before = frozenset(job.name for job in _named(desk.gateway, asked))
    uploaded = _upload(desk.gateway, asked, lines)
    desk.log.info("%s uploaded as %s (%d bytes)", asked.job_name, uploaded.name, uploaded.size_bytes)
    if other := _newest(desk, asked, before=before):
        desk.gateway.delete_file(uploaded.name)
        desk.log.warning("%s is of another attempt of this task that runs beside this one; it is adopted", other.name)
        return Sent(other.name)
    reply = desk.gateway.create(model=model, file_name=uploaded.name, display_name=asked.job_name)
    if isinstance(reply, Created):
        return Sent(reply.job.name, uploaded.name)
    if isinstance(reply, Refused):
        desk.gateway.delete_file(uploaded.name)
        do = "Wait for jobs to end, or raise the quota, and" if reply.code == 429 else "Correct what it names and"
        raise SubmissionRefused(asked.job_name, reply.code, reply.text, f"{do} retry the task.")
    desk.log.warning("%s: the create got no certain answer (%s); looking it up", asked.job_name, reply.why)
    found = look_up(desk, asked, sent_at=desk.now(), before=before)
    if found:
        return Sent(found.name, uploaded.name)
    raise ServiceBusy(f"create of {asked.job_name}", None, f"{reply.why}; it is proven that no job came of it")


def _upload(gateway: Gateway, asked: Submission, lines: Iterable[bytes]) -> UploadedFile:
    with TemporaryFile() as file:
        file.writelines(lines)
        size = file.tell()
        file.seek(0)
        return gateway.upload(file, size_bytes=size, display_name=asked.job_name)


def look_up(
    desk: Desk, asked: Submission, *, sent_at: datetime, since: datetime | None = None,
    before: frozenset[str] = frozenset(),
) -> JobSnapshot | None:  # fmt: skip
    """The newest job of a submission created from ``since`` on that was not there ``before``; None when there is certainly none.

    Absence is told as the ledger tells it: the submission's file is old enough that whoever uploaded it has long sent its
    create, then it is deleted, so that a create that wakes up later fails for want of it, and a whole sweep shows nothing.
    Until then this thread is held, ``settle`` after ``sent_at`` or the upload at most. Raises SubmissionUnknown and ServiceError.
    """
    settle = desk.policy.settle
    due, limit = sent_at + settle, desk.now() + settle + CLOCK_SLACK
    while True:
        if found := _newest(desk, asked, since, before):
            return found
        files = tuple(_files(desk.gateway, asked))
        due = max([due, *(desk.now() + settle - age for age in map(_age, files) if age is not None)])
        if due > limit:
            why = "somebody still uploads for it, or the clocks of this worker and of the service disagree"
            raise SubmissionUnknown(asked.job_name, asked.mark, why)
        left = due - desk.now()
        if left <= timedelta(0):
            break
        pause = min(left, desk.policy.look_again)
        desk.log.info(
            "no job named %s… is listed; that is certain in %d s, looking again in %d s",
            asked.mark, left.total_seconds(), pause.total_seconds(),
        )  # fmt: skip
        desk.pause(pause.total_seconds())
    for file in files:
        desk.gateway.delete_file(file.name)
    return _newest(desk, asked, since, before)


def _named(gateway: Gateway, asked: Submission) -> Iterator[JobSnapshot]:
    listed = (job for page in pages(gateway, f"{asked.mark}*") for job in page.jobs)
    return (job for job in listed if job.display_name.startswith(asked.mark))


def _newest(
    desk: Desk, asked: Submission, since: datetime | None = None, before: frozenset[str] = frozenset()
) -> JobSnapshot | None:
    fresh = (job for job in _named(desk.gateway, asked) if job.name not in before)
    found = sorted(
        (job for job in fresh if since is None or job.created_at is None or job.created_at >= since),
        key=lambda job: (job.created_at or datetime.max.replace(tzinfo=UTC), job.name),
    )
    for extra in found[:-1]:
        desk.log.warning("%s is another job of the same submission; it was left alone and may be billed", extra.name)
    return found[-1] if found else None


def _files(gateway: Gateway, asked: Submission) -> Iterator[UploadedFile]:
    token = ""
    while True:
        page = gateway.file_page(token)
        yield from (file for file in page.files if file.display_name.startswith(asked.mark))
        token = page.next_token
        if not token:
            return


def _age(file: UploadedFile) -> timedelta | None:
    # The service's Date has whole seconds, so that a fresh file may seem to have more than its life before it.
    return None if file.life is None else max(timedelta(0), FILE_LIFE - file.life)


_OF_NO_REQUEST = Outcome(kind=Outcomes.FAILED, reason="a line of no request")


class Row(msgspec.Struct, frozen=True):
    """A line of the results that belongs to a request; ``again`` for one that repeats an earlier one."""

    index: int
    outcome: Outcome
    again: bool = False


class Results(NamedTuple):
    """The results of a job: whose they are, its state, and its rows. A row of index -1 is a line of no request."""

    asked: Submission
    job: JobSnapshot
    rows: Iterator[Row]


def results(desk: Desk, job_name: str) -> Results:
    """The outcomes of a job, joined by key alone. Raises at once for what cannot be had; the file is then there, whole."""
    job = _with_output(desk, desk.gateway.job(job_name))
    asked = submission_of(job.display_name)
    if asked is None:
        raise ResultsBroken(job_name, f"it is named {job.display_name!r}, which no @task.llm_batch of ours is")
    if not job.output_file:
        return Results(asked, job, iter(()))
    with TemporaryDirectory(prefix="geminibatch-") as folder:
        fetch(
            desk.gateway, LocalStore(folder), job.output_file, "results.jsonl", what=job_name, log=desk.log, pause=desk.pause
        )  # fmt: skip
        file = (Path(folder) / "results.jsonl").open("rb")
    # From here on the file has no name and goes with its last reader.
    try:
        found = reconcile(asked.tag, 0, asked.rows, _lines(file, job_name), _reader(file))
        if why := distrust(found):
            raise ResultsBroken(job_name, why)
    except BaseException:  # whatever it is: nobody else has the file yet; the error goes on
        file.close()
        raise
    _say(desk, job_name, found)
    return Results(asked, job, _rows(file, found))


def _with_output(desk: Desk, job: JobSnapshot) -> JobSnapshot:
    for seconds in OUTPUT_LOOKS:
        if job.output_file or not job.readable:
            return job
        desk.pause(seconds)
        job = desk.gateway.job(job.name)
    if job.readable and not job.output_file:
        raise ResultsNotReady(job.name, f"it is {job.state.lower()} and does not name its output yet")
    return job


def _lines(file: BinaryIO, job_name: str) -> Iterator[tuple[int, Line]]:
    at = 0
    for raw in file:
        place, at = at, at + len(raw)
        if raw.isspace():
            continue
        line = classify(raw)
        if not line.readable and not raw.endswith(b"\n"):
            raise ResultsBroken(job_name, "the last line is cut off")
        yield place, line


def _reader(file: BinaryIO) -> Callable[[int], Outcome]:
    def read(place: int) -> Outcome:
        file.seek(place)
        return classify(file.readline()).outcome

    return read


def _rows(file: BinaryIO, found: Reconciled) -> Iterator[Row]:
    with file:
        read = _reader(file)
        for index, place in enumerate(found.places):
            if place >= 0:
                yield Row(index, found.outcome_of(index, read))
        yield from (Row(index, found.outcome_of(index, read), again=True) for index in repeats(found.again))
        nobody = found.lines.unknown + found.lines.keyless + found.lines.unreadable
        yield from (Row(-1, _OF_NO_REQUEST) for _ in range(nobody))


def _say(desk: Desk, job_name: str, found: Reconciled) -> None:
    counts = ", ".join(f"{count} {kind}" for kind, count in found.counts.items() if count)
    odd = msgspec.structs.asdict(found.lines)
    total = odd.pop("lines")
    aside = ", ".join(f"{count} {kind}" for kind, count in odd.items() if count)
    desk.log.info("%s: %d lines, %s%s", job_name, total, counts, f"; kept aside: {aside}" if aside else "")
