"""The janitor: looks for finished jobs that nobody collected, orphans and old input files, and acts only when told to.

Jobs are listed before the ledgers are read: a claim is written before its job is created, so a job that was listed and is in
no ledger after that has none. What a listing suggests is read by content before anything is done, and what is done goes on
record first. All of it may be repeated.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from airflow_provider_geminibatch.core.errors import (
    GeminiBatchError,
    LedgerUnreadable,
    ResultsNotReady,
    ServiceError,
    StoreUnreadable,
)
from airflow_provider_geminibatch.core.janitor import (
    FOREIGN_MARK,
    MEDIA_AGE,
    Act,
    Finding,
    Known,
    Places,
    Standing,
    batch_finding,
    file_finding,
    job_finding,
    medium_finding,
    note_finding,
    stray_finding,
)
from airflow_provider_geminibatch.core.landing import Closed
from airflow_provider_geminibatch.core.ledger import (
    Claim,
    Collected,
    Forgotten,
    JanitorAct,
    JobNamed,
    LateResults,
    Opening,
    Uploaded,
)
from airflow_provider_geminibatch.core.model import JobSnapshot
from airflow_provider_geminibatch.core.names import media_mark, name_mark, segment
from airflow_provider_geminibatch.core.outcomes import classify
from airflow_provider_geminibatch.core.prices import NOTHING_SPENT, PriceList, spent_on
from airflow_provider_geminibatch.gemini.gateway import Gateway, UploadedFile
from airflow_provider_geminibatch.jobs.cancel import Target, cancel_jobs
from airflow_provider_geminibatch.jobs.download import fetch
from airflow_provider_geminibatch.jobs.lookup import pages
from airflow_provider_geminibatch.jobs.price_list import PriceBook, standing_prices
from airflow_provider_geminibatch.jobs.reuse_index import merge_all
from airflow_provider_geminibatch.jobs.wait import pause_until
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.store import Store

FILE_LIFE = timedelta(hours=72)
"""An uploaded file lives 48 h; older uploads are not asked after."""

UPLOAD_LIFE = timedelta(hours=48)

_GENERATION = re.compile(r"(batches/.+/g\d{4,})/")
_CLAIM = re.compile(r"((batches/.+/g\d{4,})/s/[^/]+/\d+/a\d+)\.claim")
_UNREADABLE = (LedgerUnreadable, StoreUnreadable)
WHY = "the janitor: its batch is closed"


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. ``foreign`` are jobs of other workspaces, which are none of ours."""

    findings: tuple[Finding, ...]
    acted: bool
    jobs: int
    foreign: int
    generations: int

    def as_dict(self) -> dict[str, Any]:
        """The form for XCom: small, JSON-safe, no rows and no answers."""
        fields: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))
        return fields

    def __str__(self) -> str:
        scope = f"{self.jobs} jobs of this workspace, {self.foreign} of others, {self.generations} batches"
        return f"{len(self.findings)} findings ({scope})"


def together(reports: Iterable[Report]) -> Report:
    """What was found at several services in one workspace: what lies in the workspace itself was found at each of them."""
    found = list(reports)
    findings = {repr(finding): finding for report in found for finding in report.findings}
    return Report(
        findings=tuple(findings.values()),
        acted=any(report.acted for report in found),
        jobs=sum(report.jobs for report in found),
        foreign=sum(report.foreign for report in found),
        generations=max(report.generations for report in found),
    )


class _Generation(NamedTuple):
    """A generation as its ledger shows it."""

    path: str
    label: str
    opened_at: datetime | None
    closed_at: datetime | None
    forgotten: bool
    why: str

    def standing(self, claimed_at: datetime | None) -> Standing:
        """That of an attempt: what was claimed after the close is work of a rerun, which is open."""
        if self.why:
            return Standing.UNREADABLE
        closed = self.closed_at is not None and (claimed_at is None or claimed_at <= self.closed_at)
        return Standing.CLOSED if closed else Standing.OPEN


class _Attempt(NamedTuple):
    """An attempt by its claim; the claim is None when it cannot be read."""

    place: str
    generation: _Generation
    claim: Claim | None


def clean(
    store: Store,
    gateway: Gateway,
    *,
    workspace_id: str,
    act: bool,
    me: str,
    now: Callable[[], datetime],
    log: logging.Logger,
) -> Report:
    """Look through the service and the workspace; with ``act`` also do what may be done about it.

    Raises ServiceError when the list cannot be read, and StoreError when the workspace cannot be listed. A single thing that
    cannot be dealt with is noted in its finding and stops nothing else.
    """
    return _Janitor(store, gateway, workspace_id, me, now, log).clean(act)


class _Janitor:
    def __init__(
        self,
        store: Store,
        gateway: Gateway,
        workspace_id: str,
        me: str,
        now: Callable[[], datetime],
        log: logging.Logger,
    ) -> None:
        self._store, self._gateway, self._mark = store, gateway, name_mark(workspace_id)
        self._media_mark = media_mark(workspace_id)
        self._me, self._now, self._log = me, now, log
        self._staged: tuple[UploadedFile, ...] | None = None
        self._names: frozenset[str] | None = None

    def clean(self, act: bool) -> Report:
        swept = list(pages(self._gateway, f"{FOREIGN_MARK}*"))
        listed = [job for page in swept for job in page.jobs]
        mine = [job for job in listed if job.display_name.startswith(self._mark)]
        foreign = sum(job.display_name.startswith(FOREIGN_MARK) for job in listed) - len(mine)
        generations, attempts = self._ledgers()
        unreadable = tuple(one.path for one in generations.values() if one.why)
        places = Places(
            mark=self._mark, route=self._gateway.identity.route, service_now=swept[-1].at, unreadable=unreadable
        )
        found: list[Finding] = []
        for finding, perform in self._findings(mine, generations, attempts, places):
            self._log.info("%s", finding)
            found.append(self._acted(finding, perform) if act and finding.acts else finding)
        if act:
            merge_all(self._store, self._log)
        return Report(
            findings=tuple(found), acted=act, jobs=len(mine), foreign=foreign, generations=len(generations)
        )  # fmt: skip

    # What there is

    def _ledgers(self) -> tuple[dict[str, _Generation], list[_Attempt]]:
        """Every generation of the workspace, and every attempt ever claimed. The listing names them; their content decides."""
        paths = list(self._store.list("batches"))
        names = dict.fromkeys(match[1] for path in paths if (match := _GENERATION.match(path)))
        generations = {name: self._generation(name) for name in names}
        attempts = []
        for match in filter(None, map(_CLAIM.fullmatch, paths)):
            generation = generations[match[2]]
            try:
                claim = fact_store.get(self._store, match[0], Claim)
            except _UNREADABLE as error:
                claim = None
                generations[match[2]] = generation = generation._replace(why=str(error))
            attempts.append(_Attempt(match[1], generation, claim))
        # A generation that turned out unreadable is so for all of its attempts.
        return generations, [one._replace(generation=generations[one.generation.path]) for one in attempts]

    def _generation(self, path: str) -> _Generation:
        try:
            opening = fact_store.get(self._store, f"{path}/batch.json", Opening)
            closed = fact_store.get(self._store, f"{path}/closed.json", Closed)
            forgotten = fact_store.get(self._store, f"{path}/forgotten.json", Forgotten)
        except _UNREADABLE as error:
            return _Generation(path, path, None, None, False, str(error))
        label = str(opening.batch) if opening else path
        return _Generation(
            path, label, opening.at if opening else None, closed.at if closed else None, forgotten is not None, ""
        )  # fmt: skip

    def _findings(
        self, jobs: list[JobSnapshot], generations: dict[str, _Generation], attempts: list[_Attempt], places: Places
    ) -> Iterator[tuple[Finding, Callable[[Act], str]]]:
        needed: set[str] = set()
        by_name = {one.claim.display_name: one for one in attempts if one.claim}
        for job in jobs:
            attempt = by_name.get(job.display_name)
            known = self._known(attempt, job) if attempt else None
            finding = job_finding(job, known, places)
            if finding is not None or not job.ended:
                needed.add(job.input_file)
            if finding is not None and not (known is None and job.readable and self._taken_before(None, job)):
                yield finding, _Job(self, job, known).perform
        for attempt in attempts:
            yield from self._file(attempt, needed)
        yield from self._stray_inputs(by_name, places)
        yield from self._media(attempts, bool(places.unreadable))
        yield from self._notes(generations)
        for one in generations.values():
            age = self._now() - one.opened_at if one.opened_at else timedelta()
            standing = one.standing(None)
            finding = batch_finding(one.path, one.label, standing, one.why, age, one.forgotten)
            if finding is not None:
                yield finding, _nothing

    def _known(self, attempt: _Attempt, job: JobSnapshot) -> Known:
        generation = attempt.generation
        standing = generation.standing(attempt.claim.at if attempt.claim else None)
        known = Known(
            label=generation.label,
            generation=generation.path,
            place=attempt.place,
            standing=standing,
            why=generation.why,
        )
        if standing is Standing.UNREADABLE or not job.readable:
            return known
        try:
            named = fact_store.get(self._store, f"{attempt.place}.job", JobNamed)
            here = fact_store.get(self._store, f"{attempt.place}.collected", Collected)
            own = named is not None and named.job_name == job.name and here is not None
            return msgspec.structs.replace(known, collected=own or self._taken_before(known, job))
        except _UNREADABLE as error:
            return msgspec.structs.replace(known, standing=Standing.UNREADABLE, why=str(error))

    def _taken_before(self, known: Known | None, job: JobSnapshot) -> bool:
        return fact_store.get(self._store, f"{late_path(known, job)}.json", LateResults) is not None

    def _file(self, attempt: _Attempt, needed: set[str]) -> Iterator[tuple[Finding, Callable[[Act], str]]]:
        """The input file of a closed attempt, if it can still be there and its job is over and dealt with."""
        claim = attempt.claim
        if claim is None or claim.service != self._gateway.identity:
            return
        if attempt.generation.standing(claim.at) is not Standing.CLOSED:
            return
        try:
            uploaded = fact_store.get(self._store, f"{attempt.place}.uploaded", Uploaded)
            if uploaded is None or uploaded.file_name in needed or not self._is_there(uploaded):
                return
        except (*_UNREADABLE, ServiceError) as error:
            self._log.warning("%s", error)
            return
        known = Known(
            label=attempt.generation.label, generation=attempt.generation.path, place=attempt.place,
            standing=Standing.CLOSED,
        )  # fmt: skip
        finding = file_finding(uploaded.file_name, known)
        if finding is not None:
            yield finding, lambda act, name=uploaded.file_name: self.delete_file(name)  # type: ignore[misc]

    def _is_there(self, uploaded: Uploaded) -> bool:
        if uploaded.file_name.startswith("gs://"):
            # Objects stay until somebody deletes them: one listing tells of all that were ever uploaded.
            if self._names is None:
                self._names = frozenset(file.name for file in self._objects())
            return uploaded.file_name in self._names
        return self._now() - uploaded.file_at <= FILE_LIFE and self._gateway.file(uploaded.file_name) is not None

    def _objects(self) -> tuple[UploadedFile, ...]:
        """What lies in the staging folder of Vertex AI under this workspace's mark; nothing on other routes."""
        if self._staged is None:
            found = self._files() if self._gateway.identity.route == "vertex" else ()
            self._staged = tuple(file for file in found if file.display_name.startswith(self._mark))
        return self._staged

    def _stray_inputs(
        self, attempts: dict[str, _Attempt], places: Places
    ) -> Iterator[tuple[Finding, Callable[[Act], str]]]:
        """Inputs in the staging folder of which no record says that they were uploaded."""
        try:
            for file in self._objects():
                attempt = attempts.get(file.display_name)
                noted = fact_store.get(self._store, f"{attempt.place}.uploaded", Uploaded) if attempt else None
                if not file.name.endswith(".jsonl") or (noted is not None and noted.file_name == file.name):
                    continue
                known = None
                if attempt is not None:
                    generation = attempt.generation
                    known = Known(
                        label=generation.label, generation=generation.path, place=attempt.place,
                        standing=generation.standing(attempt.claim.at if attempt.claim else None),
                    )  # fmt: skip
                finding = stray_finding(file.name, known, _age(file), places)
                if finding is not None:
                    yield finding, lambda act, name=file.name: self.delete_file(name)  # type: ignore[misc]
        except (*_UNREADABLE, ServiceError) as error:
            self._log.warning("the staging folder was not looked through: %s", error)

    def _media(self, attempts: list[_Attempt], unreadable: bool) -> Iterator[tuple[Finding, Callable[[Act], str]]]:
        """Media of this workspace at the service that no open attempt points at."""
        try:
            mine = [file for file in self._files() if file.display_name.startswith(self._media_mark)]
            if mine and self._is_submitting(attempts):
                self._log.info("media were not looked at: a shard that may name them is being submitted")
                return
            needed = self._pointed_at(attempts) if mine else frozenset[str]()
        except (*_UNREADABLE, ServiceError) as error:
            self._log.warning("media were not looked at: %s", error)
            return
        for file in mine:
            age = _age(file)
            finding = medium_finding(
                file.name, file.size_bytes, age, needed=file.display_name in needed, unreadable=unreadable
            )  # fmt: skip
            if finding is not None:
                yield finding, lambda act, name=file.name: self.delete_file(name)  # type: ignore[misc]

    def _files(self) -> Iterator[UploadedFile]:
        token = ""
        while True:
            page = self._gateway.file_page(token)
            yield from page.files
            token = page.next_token
            if not token:
                return

    def _is_submitting(self, attempts: list[_Attempt]) -> bool:
        """Whether an upload that is not on record yet may name media of any age: where they are kept by their content, one may."""
        if self._gateway.identity.route != "vertex":
            return False
        return any(
            one.claim is not None
            and self._now() - one.claim.at < MEDIA_AGE
            and one.generation.standing(one.claim.at) is not Standing.CLOSED
            and self._store.read(f"{one.place}.uploaded") is None
            and self._store.read(f"{one.place}.refused") is None
            for one in attempts
        )

    def _pointed_at(self, attempts: list[_Attempt]) -> frozenset[str]:
        """The media that attempts of unfinished batches name: by their content, since a rung may have uploaded one again."""
        named: set[str] = set()
        for attempt in attempts:
            if attempt.generation.standing(attempt.claim.at if attempt.claim else None) is not Standing.CLOSED:
                uploaded = fact_store.get(self._store, f"{attempt.place}.uploaded", Uploaded)
                contents = uploaded.media if uploaded else ()
                named.update(f"{self._media_mark}{content.removeprefix('sha256:')[:26]}" for content in contents)
        return frozenset(named)

    def _notes(self, generations: dict[str, _Generation]) -> Iterator[tuple[Finding, Callable[[Act], str]]]:
        for path in list(self._store.list("open")):
            uri = _noted(self._store.read(path))
            match = _GENERATION.search(uri)
            one = generations.get(match[1]) if match else None
            finding = note_finding(path, one.label if one else uri, one.standing(None) if one else None)
            if finding is not None:
                yield finding, lambda act, path=path: self._delete_note(path)  # type: ignore[misc]

    # What is done

    def _acted(self, finding: Finding, perform: Callable[[Act], str]) -> Finding:
        """Do all that may be done, in order; the first that fails ends it, so that nothing uncollected is deleted."""
        done: list[str] = []
        for act in finding.acts:
            try:
                done.append(perform(act))
            except GeminiBatchError as error:
                done.append(f"could not {act.value}: {error}")
                self._log.warning("%s: %s", finding.name, done[-1])
                break
        return msgspec.structs.replace(finding, done=tuple(done))

    def cancel(self, job: JobSnapshot, known: Known | None) -> str:
        if known is None:
            note = JanitorAct(
                owner=self._me, at=self._now(), name=job.name, act=Act.CANCEL.value, why="no ledger knows it"
            )
            fact_store.put(self._store, f"{late_path(None, job)}.cancel", note)
            self._gateway.cancel(job.name)
            return "asked to end"
        target = Target(job.name, self._store, known.place)
        done = cancel_jobs([target], self._gateway, owner=self._me, why=WHY, now=self._now())
        for error in done.failed.values():
            raise error
        return str(done)

    def collect(self, job: JobSnapshot, known: Known | None) -> str:
        """Bring the results of a job into the workspace, beside what was committed, with what they cost."""
        seen = self._gateway.job(job.name)
        path = late_path(known, job)
        if seen.ended and not seen.readable:
            # It named a place for results when it was listed, and wrote none.
            nothing = LateResults(
                owner=self._me, at=self._now(), job_name=job.name, path="", size_bytes=0,
                sha256=hashlib.sha256().hexdigest(), lines=0,
            )  # fmt: skip
            fact_store.put(self._store, f"{path}.json", nothing)
            return "it left no results"
        if not seen.output_file:
            raise ResultsNotReady(job.name, f"it is {seen.state.lower()} and does not name its output")
        came = fetch(
            self._gateway, self._store, seen.output_file, f"{path}.results.jsonl", what=job.name, log=self._log,
            pause=lambda seconds: pause_until(self._now() + timedelta(seconds=seconds), now=self._now),
        )  # fmt: skip
        prices = self._prices(seen.model, known)
        price, spent, lines = prices.at(seen.ended_at or self._now()) if prices else None, NOTHING_SPENT, 0
        with self._store.open(f"{path}.results.jsonl") as stream:
            for line in stream:
                spent, lines = spent.plus(spent_on(classify(line).outcome.usage, price)), lines + 1
        cost = None if spent.cost_usd is None else f"{spent.cost_usd:f}"
        late = LateResults(
            owner=self._me, at=self._now(), job_name=job.name, path=f"{path}.results.jsonl", size_bytes=came.size_bytes,
            sha256=came.sha256, lines=lines, cost_usd=cost,
        )  # fmt: skip
        fact_store.put(self._store, f"{path}.json", late)
        return f"collected {lines} lines as {path}.results.jsonl" + (f" ({cost} USD)" if cost else "")

    def _prices(self, model: str, known: Known | None) -> PriceList | None:
        """Those that the job's batch was counted by, else those of today."""
        if known is None:
            return PriceBook().find(model)
        return standing_prices(self._store, known.generation, model, me=self._me, now=self._now)

    def delete_file(self, name: str) -> str:
        return f"deleted {name}" if self._gateway.delete_file(name) else f"{name} was gone"

    def _delete_note(self, path: str) -> str:
        self._store.delete(path)
        return "deleted the note"


class _Job(NamedTuple):
    """The acts on a job."""

    janitor: _Janitor
    job: JobSnapshot
    known: Known | None

    def perform(self, act: Act) -> str:
        if act is Act.CANCEL:
            return self.janitor.cancel(self.job, self.known)
        if act is Act.COLLECT:
            return self.janitor.collect(self.job, self.known)
        return self.janitor.delete_file(self.job.input_file)


def _age(file: UploadedFile) -> timedelta | None:
    """How long it has been there, by the service's clock, as is what it is held to. What lives for 48 h tells it by its end."""
    if file.created_at is not None and file.seen_at is not None:
        return file.seen_at - file.created_at
    return None if file.life is None else UPLOAD_LIFE - file.life


def late_path(known: Known | None, job: JobSnapshot) -> str:
    """Where late results lie, without suffix: beside the ledger of their batch, or apart when there is none."""
    name = segment(job.name)
    return f"{known.generation}/late/{name}" if known else f"janitor/{name}"


def _noted(data: bytes | None) -> str:
    """The URI in a note that a batch is unfinished."""
    try:
        note = msgspec.json.decode(data or b"null")
    except msgspec.MsgspecError:
        return ""
    return str(note.get("uri", "")) if isinstance(note, dict) else ""


def _nothing(act: Act) -> str:
    return ""


__all__ = ["Report", "clean", "late_path", "together"]
