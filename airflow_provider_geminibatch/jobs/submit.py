"""Submitting a sealed build: walks ``core.steps`` until every shard is a job, however often it is interrupted.

The loop is ask, perform, record, ask again. All decisions are in ``core.steps``; here is only how each step is carried out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import BinaryIO, TypeVar, cast

import msgspec

from airflow_provider_geminibatch.core import steps
from airflow_provider_geminibatch.core.errors import (
    LedgerUnreadable,
    MediaChanged,
    MediaRefused,
    ModelUnknown,
    ServiceBusy,
    SubmissionRefused,
)
from airflow_provider_geminibatch.core.kinds import KINDS
from airflow_provider_geminibatch.core.ledger import (
    Absent,
    Claim,
    End,
    Fact,
    Fenced,
    JobNamed,
    Refusal,
    Sending,
    ShardFacts,
    Shown,
    Stray,
    Uploaded,
    Void,
    attempt_path,
)
from airflow_provider_geminibatch.core.manifest import Manifest
from airflow_provider_geminibatch.core.media import STORAGE_BYTES
from airflow_provider_geminibatch.core.model import Build, JobSnapshot, Shard, state_row
from airflow_provider_geminibatch.core.names import (
    batch_path,
    display_name,
    generation_path,
    labels_of,
    name_mark,
    short,
)
from airflow_provider_geminibatch.core.prompt_cache import LIFE, CacheUse
from airflow_provider_geminibatch.core.steps import Evidence, Policy
from airflow_provider_geminibatch.gemini.gateway import Created, Gateway, JobPage, Refused
from airflow_provider_geminibatch.jobs.budget import Books
from airflow_provider_geminibatch.jobs.ended import keep_what_came
from airflow_provider_geminibatch.jobs.kept import left_out
from airflow_provider_geminibatch.jobs.lookup import named_pages, sweep
from airflow_provider_geminibatch.jobs.media_uploads import MediaUploads, Placed
from airflow_provider_geminibatch.jobs.prompt_caches import BatchCaches
from airflow_provider_geminibatch.jobs.room import Wave
from airflow_provider_geminibatch.jobs.sending import Cached, Survey, outgoing, survey, with_keys
from airflow_provider_geminibatch.jobs.table_inputs import cut_input, in_tables
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.files import Files, PlainFiles
from airflow_provider_geminibatch.storage.store import Store, must_read

F = TypeVar("F", bound=Fact)
Now = Callable[[], datetime]
NO_MEDIUM = 424
"""The code of a refusal of our own, for want of a medium: what HTTP says of a failed dependency."""


class Submitted(msgspec.Struct, frozen=True):
    """Every shard of the build that needs one is a job; the names are in shard order."""

    job_names: tuple[str, ...]


class Waiting(msgspec.Struct, frozen=True):
    """Nothing can be done before ``until``; call again then, from any process."""

    until: datetime
    why: str


def read_build(store: Store, path: str) -> Build:
    """The seal at ``path``. Raises StoreUnreadable when it is absent, LedgerUnreadable when it is damaged."""
    try:
        return msgspec.json.decode(must_read(store, path), type=Build)
    except msgspec.MsgspecError as error:
        raise LedgerUnreadable(f"{store.uri}/{path}", f"it is not a seal ({error})") from None


def submit(
    manifest: Manifest,
    *,
    store: Store,
    gateway: Gateway,
    me: str,
    now: Now,
    log: logging.Logger,
    task: str = "",
    max_tries: int | None = None,
    later_try: bool = False,
    policy: Policy = Policy(),  # noqa: B008 - frozen
    answered: Callable[[Shard], frozenset[int]] | None = None,
    past_refusals: bool = False,
    files: Files = PlainFiles(),  # noqa: B008 - has no state
    books: Books | None = None,
) -> Submitted | Waiting:
    """Bring every shard of a build to a job, as far as that goes now.

    ``me`` is the token of this attempt of the task, the same over its deferrals; ``task`` names its task instance, whose
    ``max_tries`` tells a clear from a retry; ``later_try`` says that earlier tries, or this one before it waited, may have
    left something. ``answered`` are rows of a shard that need not be sent, since they are answered already: those that were
    kept, unless told otherwise. A shard without any other needs no job. ``files`` is the door to media, which are uploaded
    before the shard that names them; ``books`` is what keeping prompt caches is charged to.
    With ``past_refusals`` a shard that the service refuses, or whose media cannot be had, is told of, and the others go on.
    Raises what ``core.steps`` stops with, and ServiceError, StoreError from the doors.
    """
    build = read_build(store, manifest.path)
    begun = Evidence(label="", service=gateway.identity, task=task, max_tries=max_tries, later_try=later_try)
    known = answered or (lambda shard: left_out(store, shard))
    walker = _Walker(store, gateway, build, me, now, log, begun, policy, known, files, books)
    try:
        needed = [shard for shard in build.shards if not fact_store.needless(store, shard.ledger)]
        ends = [end for shard in needed if (end := _walked(walker, shard, past_refusals, log))]
    finally:
        walker.wave.save()
    wait = steps.batch_step(ends)
    if wait:
        sent = sum(isinstance(end, steps.Done) for end in ends)
        return Waiting(wait.until, f"{sent} of {len(ends)} shards are jobs; {wait.why}" if sent else wait.why)
    return Submitted(tuple(end.job_name for end in ends if isinstance(end, steps.Done)))


def _walked(walker: _Walker, shard: Shard, past_refusals: bool, log: logging.Logger) -> steps.Wait | steps.Done | None:
    """One shard as far as it goes; None when it was refused and the others are wanted all the same."""
    try:
        return walker.walk(shard)
    except (SubmissionRefused, MediaChanged, MediaRefused) as error:
        if not past_refusals:
            raise
        log.warning("%s", error)
        if not isinstance(error, SubmissionRefused):
            walker.note_not_sent(shard, str(error))
        return None


def _note_open(store: Store, build: Build) -> None:
    """``open/<id>.json``: lets the page, the janitor and the quota view find unfinished batches without walking the tree."""
    uri = f"{store.uri}/{generation_path(build.batch, build.generation)}/builds/{build.id}.json"
    note = {"v": 1, "uri": uri, "generation": build.generation, "batch": msgspec.to_builtins(build.batch)}
    store.create(open_path(build), msgspec.json.encode(note))


def open_path(build: Build) -> str:
    """Where a batch is noted while it is unfinished."""
    return f"open/{short(batch_path(build.batch), str(build.generation))}.json"


class _Walker:
    """One walk over the shards of one build."""

    def __init__(
        self, store: Store, gateway: Gateway, build: Build, me: str, now: Now,
        log: logging.Logger, begun: Evidence, policy: Policy, answered: Callable[[Shard], frozenset[int]],
        files: Files, books: Books | None,
    ) -> None:  # fmt: skip
        self._store, self._gateway, self._build, self._me = store, gateway, build, me
        self._now, self._log, self._begun, self._policy = now, log, begun, policy
        self._answered = answered
        self._media = MediaUploads(
            store, gateway, files, workspace_id=build.workspace_id, me=me, now=now, log=log, policy=policy
        )
        self._placed: dict[str, tuple[Survey, Placed]] = {}
        self._caches = (
            BatchCaches(store, gateway, build, me=me, now=now, log=log, books=books) if policy.cache else None
        )
        self._has_begun = False
        self.wave = Wave(store, gateway, build.model, now, policy, log)
        self._listed: dict[str, JobSnapshot] | None = None
        self._perform: Mapping[type, Callable[..., Evidence | None]] = {
            steps.SeekUnrecorded: self._seek_unrecorded,
            steps.Start: self._start,
            steps.Upload: self._upload,
            steps.Send: self._send,
            steps.LookUp: self._look_up,
            steps.Revoke: self._revoke,
            steps.Show: self._show,
            steps.Fence: self._fence,
            steps.NoteAbsent: self._note_absent,
            steps.Adopt: self._adopt,
            steps.LookAtJob: self._look_at_job,
        }

    def walk(self, shard: Shard) -> steps.Wait | steps.Done:
        """One shard as far as it goes. Raises the error it stops with."""
        begun = msgspec.structs.replace(self._begun, label=f"{shard} ({self._build.batch})")
        facts, evidence = ShardFacts(), begun
        while True:
            before, facts = facts, fact_store.shard_facts(self._store, shard.ledger, facts)
            if len(facts.attempts) > len(before.attempts):
                # What was seen of one attempt says nothing about the next, whoever began that.
                evidence = msgspec.structs.replace(begun, lost_claim=evidence.lost_claim)
            if _had_no_room(facts):
                evidence = msgspec.structs.replace(evidence, ours_open=self.wave.ours_open())
            step = steps.shard_step(facts, evidence, self._policy, self._me, self._now())
            if isinstance(step, steps.Start):
                step = self.wave.full() or step
            if isinstance(step, steps.Upload) and step.reuse is None and shard.media_path:
                step = self._place_media(shard) or step
            match step:
                case steps.Stop(error):
                    raise error
                case steps.Wait() | steps.Done():
                    return step
            evidence = self._perform[type(step)](shard, facts, step, evidence) or evidence

    def note_not_sent(self, shard: Shard, why: str) -> None:
        """Put on record that the claimed attempt is not sent for want of a medium, so that nobody waits for its job."""
        last = fact_store.shard_facts(self._store, shard.ledger).last
        if last is not None and last.claim.owner == self._me and last.sending is None:
            refusal = Refusal(owner=self._me, at=self._now(), code=NO_MEDIUM, text=f"not sent: {why}")
            self._put(shard, last.number, "refused", refusal)

    def _place_media(self, shard: Shard) -> steps.Wait | None:
        """Bring the media of a shard to the service; until when to wait where it is still working on some."""
        prefix = self._caches.prefix(shard) if self._caches else None
        seen = survey(self._store, shard, self._answered(shard), prefix)
        placed = self._media.placed(shard, seen.media)
        if isinstance(placed, steps.Wait):
            return placed
        self._placed[shard.ledger] = (seen, placed)
        return None

    def _put(self, shard: Shard, attempt: int, name: str, fact: F) -> F:
        return fact_store.put(self._store, attempt_path(shard.ledger, attempt, name), fact)

    def _name(self, shard: Shard, attempt: int) -> str:
        build = self._build
        return display_name(
            build.workspace_id, build.batch, shard.generation, shard.home + shard.sha256, shard.index, attempt
        )

    def _seek_unrecorded(
        self, shard: Shard, facts: ShardFacts, step: steps.SeekUnrecorded, evidence: Evidence
    ) -> Evidence:
        """One sweep serves all shards of the walk."""
        if self._listed is None:
            try:
                self._listed = {job.display_name: job for page in self._pages() for job in page.jobs}
            except ServiceBusy as error:
                return msgspec.structs.replace(evidence, unsure=str(error))
        found = self._listed.get(self._name(shard, 1))
        return msgspec.structs.replace(evidence, swept=True, found=(found,) if found else ())

    def _pages(self) -> list[JobPage]:
        """The list, as far as it can show a job of this workspace."""
        return named_pages(self._gateway, f"{name_mark(self._build.workspace_id)}*")

    def _start(self, shard: Shard, facts: ShardFacts, step: steps.Start, evidence: Evidence) -> Evidence | None:
        self._begin()
        if facts.last is not None and self._build.parent is None:
            keep_what_came(
                self._store, self._gateway, self._build, shard, facts.last, me=self._me, now=self._now, log=self._log
            )
        claim = Claim(
            owner=self._me, at=self._now(), display_name=self._name(shard, step.attempt),
            service=self._gateway.identity, task=self._begun.task, max_tries=self._begun.max_tries,
        )  # fmt: skip
        standing = self._put(shard, step.attempt, "claim", claim)
        return None if standing.owner == self._me else msgspec.structs.replace(evidence, lost_claim=standing)

    def _begin(self) -> None:
        """Before the first claim of a walk: a wrong model or a revoked key is named, and the batch is noted as unfinished."""
        if self._has_begun:
            return
        info = self._gateway.model(self._build.model)
        method = KINDS[self._build.kind].method
        if info.methods and method not in info.methods:
            raise ModelUnknown(f"model {self._build.model!r}", 404, f"it does not support {method}.")
        _note_open(self._store, self._build)
        self._say_size()
        self._has_begun = True

    def _say_size(self) -> None:
        """Files of a project have a limit together, and uploads count until they expire or their batch is closed."""
        shards = [shard for shard in self._build.shards if shard.media_path]
        media = self._media.size_bytes(shards) if shards else 0
        size = self._build.size_bytes + media
        if media or size > STORAGE_BYTES:
            self._log.info(
                "%s bytes of requests and %s of media are uploaded", f"{self._build.size_bytes:,}", f"{media:,}"
            )
        if size > STORAGE_BYTES:
            self._log.warning(
                "That is more than the %s bytes that the files of a project may have together: what does not fit is refused until "
                "others have expired (48 hours). Smaller batches, days apart, get through.", f"{STORAGE_BYTES:,}",
            )  # fmt: skip

    def _upload(self, shard: Shard, facts: ShardFacts, step: steps.Upload, evidence: Evidence) -> None:
        if step.reuse:
            uploaded = msgspec.structs.replace(step.reuse, owner=self._me, at=self._now())
        else:
            assert facts.last is not None
            uploaded = (
                self._cut(shard, step.attempt)
                if in_tables(shard)
                else self._uploaded(shard, facts.last.claim.display_name)
            )
        self._put(shard, step.attempt, "uploaded", uploaded)

    def _cut(self, shard: Shard, attempt: int) -> Uploaded:
        """The input of a shard whose requests lie in BigQuery, where they stay."""
        made = cut_input(self._gateway, shard, attempt, self._answered(shard), me=self._me, now=self._now)
        self._log.info("%s lies in %s; nothing is uploaded", shard, made.file_name)
        return made

    def _uploaded(self, shard: Shard, display_name: str) -> Uploaded:
        answered = self._answered(shard)
        seen, placed = self._placed.pop(shard.ledger, (None, Placed()))
        cached, use, cache_life = self._cached(shard)
        with outgoing(self._store, shard, left_out=answered, media=placed.uris, seen=seen, cached=cached) as source:
            size = source.size_bytes
            sent = self._gateway.upload(cast(BinaryIO, source), size_bytes=size, display_name=display_name)
            source.confirm()
        self._media.check_given(source.named_files)
        self._log.info("%s uploaded as %s (%d bytes)", shard, sent.name, size)
        # A job reads all of them: the file of its requests, and the media and the cache that these name.
        own = (sent.expires_at - sent.seen_at).total_seconds() if sent.expires_at and sent.seen_at else None
        life = min((seconds for seconds in (own, placed.life_seconds, cache_life) if seconds is not None), default=None)
        now = self._now()
        return Uploaded(
            owner=self._me, at=now, file_name=sent.name, file_at=now, life_seconds=life,
            left_out=tuple(sorted(answered)), sent_sha256=source.sha256, media=placed.names,
            cache=use,
        )  # fmt: skip

    def _cached(self, shard: Shard) -> tuple[Cached | None, CacheUse | None, float | None]:
        """The prompt cache that the requests of a shard are to name, and for how long this upload is good with it."""
        prefix = self._caches.prefix(shard) if self._caches else None
        found = self._caches.placed(prefix) if self._caches and prefix else None
        if prefix is None or found is None:
            return None, None, None
        use, life = found
        # It has to live as long as a job can, from the create on; an upload that waited too long is made anew.
        good = life - LIFE + 2 * self._policy.file_margin
        return Cached(prefix, use.name), use, good.total_seconds()

    def _send(self, shard: Shard, facts: ShardFacts, step: steps.Send, evidence: Evidence) -> None:
        """The paid call. Between ``sending`` and the create there is one read and nothing else."""
        seen = self._gateway.file(step.file_name)
        if seen is None:
            why = f"{step.file_name} is not at the service any more"
            self._put(shard, step.attempt, "void", Void(owner=self._me, at=self._now(), why=why))
            return
        path = attempt_path(shard.ledger, step.attempt, "sending")
        sending = Sending(owner=self._me, at=self._now(), service_at=seen.seen_at)
        if not self._store.create(path, msgspec.json.encode(sending)):
            return  # another process of this attempt was here; what it sent is looked up
        if fact_store.get(self._store, attempt_path(shard.ledger, step.attempt, "void"), Void):
            return
        reply = self._gateway.create(
            model=self._build.model, file_name=step.file_name, display_name=step.display_name, kind=self._build.kind,
            labels=labels_of(self._build.batch),
        )  # fmt: skip
        if isinstance(reply, Created):
            self._named(shard, step.attempt, reply.job)
        elif isinstance(reply, Refused):
            sent = facts.last.uploaded if facts.last else None
            gone = frozenset(sent.left_out if sent else ())
            text = reply.text if in_tables(shard) else with_keys(self._store, shard, reply.text, gone)
            self._put(
                shard, step.attempt, "refused",
                Refusal(owner=self._me, at=self._now(), code=reply.code, text=text, retry_after_seconds=reply.retry_after_seconds),
            )  # fmt: skip
            if reply.code == 429:
                self.wave.refused(reply.retry_after_seconds)
        else:
            self._log.warning("%s: the create got no certain answer (%s); looking it up", shard, reply.why)

    def _named(self, shard: Shard, attempt: int, job: JobSnapshot) -> None:
        named = JobNamed(owner=self._me, at=self._now(), job_name=job.name, how="create", created_at=job.created_at)
        self._put(shard, attempt, "job", named)
        self.wave.took(job.name)
        self._log.info("%s is %s", shard, job.name)
        # A create that slept through its own proven absence: its shard may be another job by now, so this one is not wanted.
        if fact_store.get(self._store, attempt_path(shard.ledger, attempt, "absent"), Absent):
            self._gateway.cancel(job.name)
            self._put(
                shard, attempt, "stray", Stray(owner=self._me, at=self._now(), job_name=job.name, state=job.state)
            )
            self._log.warning(
                "%s came to life after it was proven absent; it was cancelled and may be billed", job.name
            )

    def _look_up(self, shard: Shard, facts: ShardFacts, step: steps.LookUp, evidence: Evidence) -> Evidence:
        try:
            seen = sweep(
                self._gateway, display_name=step.display_name, model=self._build.model,
                file_name=step.file_name, log=self._log,
            )  # fmt: skip
        except ServiceBusy as error:
            return msgspec.structs.replace(evidence, unsure=str(error))
        doubtful = "".join(
            f"{job.name} has its name, but the service shows it with model {job.model!r} and file {job.input_file!r}"
            + (f", and {job.oddity}" if job.oddity else "")
            for job in seen.doubtful[:1]
        )
        fenced = facts.last is not None and facts.last.fenced is not None
        if fenced and seen.at is None:
            return msgspec.structs.replace(
                evidence, found=seen.found, unsure="the service gave no time with its job list"
            )
        counted = (seen.at,) if fenced and not seen.found and seen.at else ()
        return msgspec.structs.replace(
            evidence, found=seen.found, doubtful=doubtful, swept=True, unlisted=evidence.unlisted + counted,
            service_now=seen.at, unsure="",
        )  # fmt: skip

    def _revoke(self, shard: Shard, facts: ShardFacts, step: steps.Revoke, evidence: Evidence) -> None:
        self._put(shard, step.attempt, "void", Void(owner=self._me, at=self._now(), why=step.why))

    def _show(self, shard: Shard, facts: ShardFacts, step: steps.Show, evidence: Evidence) -> Evidence | None:
        if self._gateway.file(step.file_name) is None:
            return msgspec.structs.replace(evidence, file_hidden=True)
        self._put(shard, step.attempt, "shown", Shown(owner=self._me, at=self._now(), file_name=step.file_name))
        return None

    def _fence(self, shard: Shard, facts: ShardFacts, step: steps.Fence, evidence: Evidence) -> None:
        self._gateway.delete_file(step.file_name)
        at = self._gateway.jobs().at
        self._put(shard, step.attempt, "fenced", Fenced(owner=self._me, at=self._now(), service_at=at))

    def _note_absent(self, shard: Shard, facts: ShardFacts, step: steps.NoteAbsent, evidence: Evidence) -> None:
        self._put(shard, step.attempt, "absent", Absent(owner=self._me, at=self._now(), sweeps=step.sweeps))
        self._log.warning("%s: attempt %d is proven not to be a job; the next one may send", shard, step.attempt)

    def _adopt(self, shard: Shard, facts: ShardFacts, step: steps.Adopt, evidence: Evidence) -> None:
        ended = {job.name for job in evidence.found if job.ended}
        for extra in step.extras:
            if extra not in ended:
                self._gateway.cancel(extra)
            self._log.warning(
                "%s: %s is a second job of the same create; it was cancelled and may be billed", shard, extra
            )
        named = JobNamed(
            owner=self._me, at=self._now(), job_name=step.job.name, how="lookup",
            created_at=step.job.created_at, extras=step.extras,
        )  # fmt: skip
        self._put(shard, step.attempt, "job", named)
        self.wave.took(step.job.name)
        self._log.info("%s was found as %s and adopted", shard, step.job.name)

    def _look_at_job(self, shard: Shard, facts: ShardFacts, step: steps.LookAtJob, evidence: Evidence) -> Evidence:
        job = self._gateway.job(step.job_name)
        if job.ended:
            self._put(shard, step.attempt, "end", end_fact(job, owner=self._me, at=self._now()))
        return msgspec.structs.replace(evidence, looked_at_job=True)


def _had_no_room(facts: ShardFacts) -> bool:
    return facts.last is not None and facts.last.refused is not None and facts.last.refused.code == 429


def end_fact(job: JobSnapshot, *, owner: str, at: datetime) -> End:
    """The end of a job as it goes on record."""
    return End(
        owner=owner, at=at, job_name=job.name, state=job.state, created_at=job.created_at, ended_at=job.ended_at,
        counts=job.counts, error_code=job.error_code, error_text=job.error_text,
        output=job.readable and not state_row(job.state).readable,
    )  # fmt: skip
