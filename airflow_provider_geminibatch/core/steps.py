"""What may be done next about a shard: one pure function over what is on record, what was just seen, and the time.

``shard_step(facts, evidence, policy, me, now)`` returns one step. Whoever walks performs it, records it as a fact and asks
again, so a crash anywhere resumes at the same question. ``EFFECTS`` says of every step which fact comes before it, what it
does, which fact comes after it, and why repeating it is harmless.

The order that keeps a create from being paid twice: ``claim`` → upload → ``uploaded`` → ``sending`` → read ``void`` once more
→ create → ``job``. Whoever takes over writes ``void`` first and reads ``sending`` after it. Both orders are create-only, so
either the sender sees the void, or the one who takes over sees that something may have been sent and has to prove that it
was not.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec

from airflow_provider_geminibatch.core.errors import (
    GeminiBatchError,
    KeyRefused,
    ModelUnknown,
    ServiceBusy,
    ServiceChanged,
    SubmissionRefused,
    SubmissionUnknown,
    Superseded,
)
from airflow_provider_geminibatch.core.ledger import Attempt, Claim, ShardFacts, Uploaded
from airflow_provider_geminibatch.core.model import JobSnapshot, ServiceIdentity, state_row
from airflow_provider_geminibatch.core.room import backoff


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """The times and choices a submission goes by."""

    settle: timedelta = timedelta(minutes=10)
    """How long after the fence a job may still turn up in the list. Nothing documents it; ten minutes is our caution."""
    list_lag: timedelta = timedelta(minutes=1)
    """How long after ``sending`` no file is deleted: a job that is not listed yet may still have to read it."""
    file_margin: timedelta = timedelta(hours=2)
    """A file with less life than this is uploaded again: uploaded files live 48 h and the job has to read it first."""
    look_again: timedelta = timedelta(minutes=1)
    """Pause after a look-up that could not be finished."""
    first_backoff: timedelta = timedelta(seconds=30)
    longest_backoff: timedelta = timedelta(minutes=15)
    give_up_after: timedelta = timedelta(hours=24)
    """How long room, or certainty about a create, is waited for."""
    deadline: datetime | None = None
    """Until when the answers are wanted, where that is known."""
    cache: bool = False
    """Whether what the requests have in common is put into a prompt cache, where the service makes one of it."""
    media_threads: int = 4
    """How many media are uploaded at the same time."""

    def media_life(self, now: datetime) -> timedelta:
        """How long media have to be there still when a job is created: to the deadline, else as long as most jobs take.

        The service aims at 24 h (batch guide) and keeps files for 48; a fresh upload has to be enough, with time to spare.
        """
        wanted = timedelta(hours=24) if self.deadline is None else self.deadline - now
        return max(self.file_margin, min(wanted, timedelta(hours=40)))


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What this process has seen since it began; nothing of it outlives the process."""

    label: str
    """The shard in words, for errors."""
    service: ServiceIdentity
    task: str = ""
    max_tries: int | None = None
    """``max_tries`` of the submitting task now; it moves when a finished try is cleared."""
    later_try: bool = False
    """Not the first try of the task, so an empty ledger may be a lost one: the list is asked before anything is sent."""
    looked_at_job: bool = False
    """The job has been looked at by this process (and its end put on record, if it had ended)."""
    lost_claim: Claim | None = None
    """The claim that was there before ours."""
    found: tuple[JobSnapshot, ...] = ()
    """Jobs of the attempt's display name, model and file, earliest first."""
    doubtful: str = ""
    """A job of the attempt's display name whose model or file is not what was sent, in words."""
    swept: bool = False
    """A whole sweep of the list has been made for the last attempt."""
    unlisted: tuple[datetime, ...] = ()
    """Service times of whole sweeps after the fence that did not show the job."""
    file_hidden: bool = False
    """The attempt's own file was looked for and not shown."""
    unsure: str = ""
    """Why the last look-up could not be finished."""
    service_now: datetime | None = None
    ours_open: bool = False
    """Jobs of this workspace hold room at the service, so that there will be some when they end."""


class Start(msgspec.Struct, frozen=True):
    """Write ``claim`` for a new attempt."""

    attempt: int


class Upload(msgspec.Struct, frozen=True):
    """Upload the shard, or take over the file of an earlier, closed attempt; write ``uploaded``."""

    attempt: int
    reuse: Uploaded | None = None


class Send(msgspec.Struct, frozen=True):
    """Write ``sending``, read ``void``, create once, write ``job`` or ``refused``."""

    attempt: int
    file_name: str
    display_name: str


class LookUp(msgspec.Struct, frozen=True):
    """Sweep the whole list for the attempt's display name, model and file."""

    attempt: int
    display_name: str
    file_name: str


class SeekUnrecorded(msgspec.Struct, frozen=True):
    """Sweep the list for the name the first attempt of this shard would have."""


class Revoke(msgspec.Struct, frozen=True):
    """Write ``void``: the attempt may not send any more."""

    attempt: int
    why: str


class Show(msgspec.Struct, frozen=True):
    """Get the attempt's own file; write ``shown`` if the service shows it."""

    attempt: int
    file_name: str


class Fence(msgspec.Struct, frozen=True):
    """Delete the attempt's file at the service; write ``fenced``."""

    attempt: int
    file_name: str


class NoteAbsent(msgspec.Struct, frozen=True):
    """Write ``absent``."""

    attempt: int
    sweeps: tuple[datetime, ...]


class Adopt(msgspec.Struct, frozen=True):
    """Cancel the later jobs of the same create, if any, and write ``job`` for the earliest."""

    attempt: int
    job: JobSnapshot
    extras: tuple[str, ...]


class LookAtJob(msgspec.Struct, frozen=True):
    """Get the job; write ``end`` if it has ended. Only a cleared task asks: it decides whether there is anything to send again."""

    attempt: int
    job_name: str


class Wait(msgspec.Struct, frozen=True):
    """Nothing to do before ``until``."""

    until: datetime
    why: str


class Done(msgspec.Struct, frozen=True):
    """The shard is a job."""

    job_name: str


class Stop(msgspec.Struct, frozen=True):
    """A person, another attempt or a later try has to go on; ``error`` says who and how."""

    error: GeminiBatchError


Action = SeekUnrecorded | Start | Upload | Send | LookUp | Revoke | Show | Fence | NoteAbsent | Adopt | LookAtJob
Step = Action | Wait | Done | Stop


class Effect(NamedTuple):
    """What a step needs, does and leaves, and what makes doing it again harmless."""

    before: str
    does: str
    after: str
    harmless: str


EFFECTS: dict[type, Effect] = {
    SeekUnrecorded: Effect("", "reads the job list", "", "reading"),
    Start: Effect("", "nothing outside", "claim", "create-only: the second writer reads the first and stops"),
    Upload: Effect("claim", "one more file at the service", "uploaded", "a file costs nothing and expires after 48 h"),
    Send: Effect(
        "uploaded",
        "the create",
        "sending, then job or refused",
        "never repeated: with sending on record it is looked up",
    ),
    LookUp: Effect("sending", "reads the job list", "", "reading"),
    Revoke: Effect("claim", "nothing outside", "void", "create-only"),
    Show: Effect("void", "reads the file's record", "shown", "reading; create-only"),
    Fence: Effect("shown", "deletes the attempt's file", "fenced", "deleting what is deleted changes nothing"),
    NoteAbsent: Effect("fenced", "nothing outside", "absent", "create-only"),
    LookAtJob: Effect("job", "reads the job", "end", "reading; create-only"),
    Adopt: Effect("sending", "cancels extra jobs of the same create", "job", "cancelling an ended job changes nothing"),
}


def shard_step(facts: ShardFacts, evidence: Evidence, policy: Policy, me: str, now: datetime) -> Step:
    """The next step for one shard. Pure; total over every record that a crash can leave."""
    if evidence.lost_claim:
        return Stop(Superseded(evidence.label, evidence.lost_claim.owner))
    last = facts.last
    if last is None:
        return _unrecorded(evidence)
    if last.absent:
        return Start(last.number + 1)  # also if a job of it came to life since: that one is a stray
    if last.job:
        return _with_job(last, evidence)
    if last.refused:
        return _refused(facts, last, evidence, policy, me, now)
    if last.sending is None:
        return _not_sent(facts, last, evidence, policy, me, now)
    return _maybe_sent(last, evidence, policy, me, now)


def _unrecorded(evidence: Evidence) -> Step:
    if not evidence.later_try:
        return Start(1)
    if evidence.unsure:
        return Stop(ServiceBusy(f"look-up of {evidence.label}", None, evidence.unsure))
    if not evidence.swept:
        return SeekUnrecorded()
    if evidence.found:
        name = evidence.found[0].name
        return Stop(
            SubmissionUnknown(
                evidence.label, evidence.found[0].display_name, f"{name} has its name but is not on record"
            )
        )
    return Start(1)


def _with_job(last: Attempt, evidence: Evidence) -> Step:
    """A job stands, unless it ended without results and we cancelled it or the user cleared the task (a rerun)."""
    assert last.job is not None
    end = last.end
    if end is None and last.claim.service != evidence.service:
        return Stop(ServiceChanged(last.job.job_name, str(last.claim.service), str(evidence.service)))
    again = _is_wanted_again(last, evidence.task, evidence.max_tries)
    if again and end is None and not evidence.looked_at_job:
        return LookAtJob(last.number, last.job.job_name)
    if again and end is not None and not state_row(end.state).readable:
        return Start(last.number + 1)
    return Done(last.job.job_name)


def sends_again(facts: ShardFacts, task: str, max_tries: int | None) -> bool:
    """True when the next walk of ``task`` sends a shard once more: its job ended without results and we cancelled it, or the
    task was cleared since."""
    last = facts.last
    if last is None or last.job is None or last.end is None or state_row(last.end.state).readable:
        return False
    return _is_wanted_again(last, task, max_tries)


def _is_wanted_again(last: Attempt, task: str, max_tries: int | None) -> bool:
    # What a rescue cancelled was asked for elsewhere; to send it again would pay twice.
    cancelled = last.cancel is not None and last.cancel.rung is None
    return cancelled or _is_cleared(last.claim, task, max_tries)


def _is_cleared(claim: Claim, task: str, max_tries: int | None) -> bool:
    """True when a clear of this task lies between. Untold means a retry.

    A clear sets ``max_tries`` to the tries so far plus the task's retries, which is less than before if the Dag has fewer
    retries by now; nothing else changes it.
    """
    told = claim.max_tries is not None and max_tries is not None
    return told and claim.task == task and claim.max_tries != max_tries


def _refused(facts: ShardFacts, last: Attempt, evidence: Evidence, policy: Policy, me: str, now: datetime) -> Step:
    """429 waits for room and tries again; anything else is told once and tried again by the next try of the task."""
    assert last.refused is not None
    if last.refused.code == 429:
        since = min((attempt.claim.at for attempt in facts.attempts if attempt.claim.owner == me), default=now)
        too_long = now - since >= policy.give_up_after
        if too_long and last.refused.owner == me and not evidence.ours_open:
            return Stop(_refusal(last, evidence.label, "Wait for jobs to end or raise the quota, then clear the task."))
        until = last.refused.at + _backoff(facts, policy)
        if now >= until:
            return Start(last.number + 1)
        return Wait(until, f"no room at the service: {last.refused.text}")
    if last.refused.owner == me:
        return Stop(_refusal_error(last, evidence.label))
    return Start(last.number + 1)


def _backoff(facts: ShardFacts, policy: Policy) -> timedelta:
    """Doubling over the refusals in a row, capped; what the service asked for if that is longer."""
    in_a_row = 0
    for attempt in reversed(facts.attempts):
        if attempt.refused is None or attempt.refused.code != 429:
            break
        in_a_row += 1
    last = facts.attempts[-1].refused
    asked = last.retry_after_seconds if last else None
    return backoff(in_a_row, policy.first_backoff, policy.longest_backoff, asked)


def _not_sent(facts: ShardFacts, last: Attempt, evidence: Evidence, policy: Policy, me: str, now: datetime) -> Step:
    """No ``sending``: whatever its owner does now, it will see ``void`` before it sends."""
    if last.void:
        if last.claim.owner == me and last.void.owner != me:
            return Stop(Superseded(evidence.label, last.void.owner))
        # One fresh upload may be needed; a second in a row would be one for ever.
        in_vain = [a for a in facts.attempts[-2:] if a.void and {a.claim.owner, a.void.owner} == {me}]
        if len(in_vain) == 2:
            return Stop(ServiceBusy(f"upload of {evidence.label}", None, last.void.why))
        return Start(last.number + 1)
    if last.claim.owner != me:
        return Revoke(last.number, f"taken over by {me}")
    if last.claim.service != evidence.service:
        return Revoke(last.number, "the connection points elsewhere now")
    if last.uploaded is None:
        return _upload(facts, last, policy, now)
    if _expiring(last.uploaded, policy, now):
        return Revoke(last.number, "the uploaded file is about to expire")
    return Send(last.number, last.uploaded.file_name, last.claim.display_name)


def _upload(facts: ShardFacts, last: Attempt, policy: Policy, now: datetime) -> Upload:
    """A refused attempt is closed for good, so its file can serve the next one; a fenced or voided one's cannot."""
    before = facts.attempts[-2] if len(facts.attempts) > 1 else None
    if before is None or before.refused is None or before.void or before.uploaded is None:
        return Upload(last.number)
    same = before.claim.service == last.claim.service and not _expiring(before.uploaded, policy, now)
    return Upload(last.number, before.uploaded if same else None)


def _expiring(file: Uploaded, policy: Policy, now: datetime) -> bool:
    """Told by the file's age on our clock and its life on the service's. A fresh file never is, however short its life."""
    if file.life_seconds is None:
        return False
    margin = policy.media_life(now) if file.media else policy.file_margin
    usable = timedelta(seconds=file.life_seconds) - margin
    return now - file.file_at > max(usable, timedelta(minutes=1))


def _maybe_sent(last: Attempt, evidence: Evidence, policy: Policy, me: str, now: datetime) -> Step:
    """``sending`` without an outcome: look it up, and only a proven absence allows another attempt."""
    assert last.sending is not None and last.uploaded is not None
    if last.claim.service != evidence.service:
        return Stop(ServiceChanged(last.claim.display_name, str(last.claim.service), str(evidence.service)))
    if last.void and last.void.owner != me and last.claim.owner == me:
        return Stop(Superseded(evidence.label, last.void.owner))
    if evidence.found:
        return Adopt(last.number, evidence.found[0], tuple(job.name for job in evidence.found[1:]))
    if evidence.doubtful:
        return _unknown(last, evidence.label, evidence.doubtful)
    too_long = now - last.sending.at >= policy.give_up_after
    if evidence.unsure:
        return (
            _unknown(last, evidence.label, evidence.unsure)
            if too_long
            else Wait(now + policy.look_again, evidence.unsure)
        )
    file_name = last.uploaded.file_name
    look = LookUp(last.number, last.claim.display_name, file_name)
    if not evidence.swept:
        return look
    if last.void is None:
        return Revoke(last.number, f"its create got no answer on record; {me} looks it up")
    if last.fenced is None and now < last.sending.at + policy.list_lag:
        return Wait(last.sending.at + policy.list_lag, "a create whose reply was lost may still turn up in the list")
    if last.shown is None:
        if not evidence.file_hidden:
            return Show(last.number, file_name)
        hidden = f"{file_name} is not shown, so the list of this key proves nothing"
        settled = now >= last.sending.at + policy.settle
        return _unknown(last, evidence.label, hidden) if settled else Wait(now + policy.look_again, hidden)
    if last.fenced is None:
        return Fence(last.number, file_name)
    return _prove_absence(last, evidence, policy, now, look)


def _prove_absence(last: Attempt, evidence: Evidence, policy: Policy, now: datetime, look: LookUp) -> Step:
    """Two whole sweeps, the last one ``settle`` after the fence by the service's clock.

    Counting from the fence, not from ``sending``, covers a sender that wakes up just before its file is deleted.
    """
    assert last.fenced is not None
    fenced_at = last.fenced.service_at
    settled = [at for at in evidence.unlisted if fenced_at is not None and at >= fenced_at + policy.settle]
    if len(evidence.unlisted) >= 2 and settled:
        return NoteAbsent(last.number, evidence.unlisted)
    if fenced_at is None:
        return _unknown(last, evidence.label, "the service gave no time when the file was deleted")
    if evidence.unlisted and evidence.service_now is not None and not settled:
        left = fenced_at + policy.settle - evidence.service_now
        return Wait(
            now + max(left, timedelta(seconds=1)), "a create whose reply was lost may still turn up in the list"
        )
    return look


def _unknown(last: Attempt, label: str, why: str) -> Stop:
    return Stop(SubmissionUnknown(label, last.claim.display_name, why))


def _refusal(last: Attempt, label: str, do: str) -> SubmissionRefused:
    assert last.refused is not None
    return SubmissionRefused(label, last.refused.code, last.refused.text, do)


def _refusal_error(last: Attempt, label: str) -> GeminiBatchError:
    """The refusal as the error that says what to do about it."""
    assert last.refused is not None
    code, text = last.refused.code, last.refused.text
    doing = f"create of {last.claim.display_name}"
    if code == 0:
        return ServiceBusy(doing, None, text)
    if code == 401 or "api key" in text.lower():
        return KeyRefused(doing, code, text)
    if code == 404 and "models/" in text:
        return ModelUnknown(doing, code, text)
    return _refusal(last, label, _REFUSAL_ADVICE.get(code, "Read the service's reason, correct it and clear the task."))


_REFUSAL_ADVICE = {
    400: "Correct the named rows or fields in the source or the template and clear the prepare task.",
    402: "The prepaid credit is used up: top it up, then clear the task.",
    403: "Check that the key's project may run batches and owns the uploaded file, then clear the task.",
    404: "Check that the key's project owns the uploaded file, then clear the task.",
}


def batch_step(steps: Iterable[Wait | Done]) -> Wait | None:
    """What a batch waits for once each of its shards has been walked as far as it goes: the earliest, or None when all are jobs."""
    waits = [step for step in steps if isinstance(step, Wait)]
    return min(waits, key=lambda wait: wait.until, default=None)
