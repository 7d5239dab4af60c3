"""Every error this package raises, in one tree.

    GeminiBatchError
    ├── BadInput              what the user gave cannot be used; nothing was sent, nothing was paid
    │   ├── Unusable          an argument, a template or a declaration that cannot work
    │   │   └── BeyondBudget  what a build may cost is more than is left of its budget, or unknown
    │   ├── BadRows           problems in the rows or requests of a source, each with its place
    │   ├── EmptySource       a source without a single row
    │   ├── SourceUnreadable  a source that is not there or cannot be read
    │   │   └── SourceAway    a database that cannot be reached now
    │   ├── BadManifest       what a stage was handed is not a manifest
    │   ├── BadConnection     the connection lacks something or does not fit
    │   └── BadWindow         no window can be told from the run
    ├── StoreError            the workspace or landing failed
    │   ├── StoreUnreadable   an object is there, or may be, and cannot be read
    │   ├── StoreUnwritable   an object could not be written
    │   └── StoreTooWeak      the store cannot create exclusively
    ├── ServiceError          the service answered with an error, or did not answer
    │   ├── KeyRefused        401, 403 or an invalid key
    │   │   └── CredentialsRefused   the same of an account of Google Cloud, or no credentials at all
    │   ├── ModelUnknown      the model does not exist or cannot run batches
    │   ├── ServiceBusy       429, 408, 5xx or a transport failure: worth another try
    │   └── JobUnreachable    a known job that the service does not show
    ├── SubmissionError       a shard could not be made a job
    │   ├── SubmissionRefused the service said no before anything was created
    │   ├── SubmissionUnknown a create whose fate cannot be proven
    │   ├── Superseded        another attempt of the task took this one's place
    │   ├── NotSubmitted      a shard that has no job on record
    │   ├── MediaChanged      a medium is not what was prepared, or not there any more
    │   ├── MediaRefused      a medium that the service cannot use, or will not have long enough
    │   └── ServiceChanged    the connection points at another service than the open jobs
    ├── WorkerDied            a process that wrote some of the shards of a build
    ├── ReaderDied            a process that read the results of a shard
    ├── DeclarationChanged    the task's declaration changed while a paid job is open
    ├── LedgerUnreadable      a ledger that should be there is not, or is newer than this reader
    ├── JobsFailed            no job of a batch ended with results
    ├── WaitTimedOut          a deadline of ours passed
    ├── BatchCancelled        a person asked for the end of a batch
    ├── CanaryFailed          the sample that went first does not let its batch go
    ├── ResultsNotReady       results that are not there yet
    ├── ResultsBroken         result files that cannot be trusted
    ├── Rejected              what landed is outside its thresholds
    ├── NotOwner              a window that belongs to another task or a newer generation
    └── WindowNotLanded       the window a task depends on failed or is missing

An error says what happened, to what, what it means for money, and what to do. Facts are fields, the sentence is made
from them in ``says``, and ``retryable`` tells whether the same call may succeed later without a person's help.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import ClassVar


@dataclass(eq=False)
class GeminiBatchError(Exception):
    """The root of the tree. Fields are the facts; ``says`` is the sentence over them."""

    says: ClassVar[str] = ""
    retryable: ClassVar[bool] = False

    def __post_init__(self) -> None:
        # Exceptions unpickle by calling the class with ``args``; a dataclass called by keyword would leave them empty.
        self.args = tuple(getattr(self, field.name) for field in fields(self))

    def __str__(self) -> str:
        return self.says.format(**{field.name: getattr(self, field.name) for field in fields(self)})


class BadInput(GeminiBatchError):
    """What the user gave cannot be used. Nothing was sent and nothing was paid."""


@dataclass(eq=False)
class Unusable(BadInput):
    """An argument, a template or a declaration that cannot work."""

    what: str
    why: str
    do: str
    says: ClassVar[str] = "{what}: {why}. Nothing was sent or paid. {do}"


@dataclass(eq=False)
class BeyondBudget(Unusable):
    """What a build may cost is more than is left of its budget, or nobody knows the price. ``paid`` says what was before."""

    paid: str = "Nothing was sent or paid"
    says: ClassVar[str] = "{what}: {why}. {paid}. {do}"


@dataclass(eq=False)
class EmptySource(BadInput):
    """A source without a single row."""

    source: str
    says: ClassVar[str] = (
        "{source} gave no rows, so there is nothing to ask. Nothing was sent or paid. "
        "If an empty window is normal, set on_empty='skip'; otherwise look at what fills the source."
    )


@dataclass(eq=False)
class SourceUnreadable(BadInput):
    """A source that is not there or cannot be read."""

    source: str
    why: str
    says: ClassVar[str] = (
        "{source} could not be read: {why}. Nothing was sent or paid. Check the path and the connection, then clear the task."
    )


class SourceAway(SourceUnreadable):
    """A source that cannot be reached now, such as a database that is down: worth another try."""

    retryable = True
    says = "{source} could not be read: {why}. Nothing was sent or paid. A retry reads it again from the beginning."


@dataclass(eq=False)
class BadManifest(BadInput):
    """What a stage was handed is not a manifest of ours."""

    given: str
    why: str
    says: ClassVar[str] = (
        "{given} is not a manifest: {why}. Nothing was sent or paid. "
        "Pass the output of the stage before (its dict, its JSON text, its URI, or a list of them)."
    )


@dataclass(eq=False)
class BadConnection(BadInput):
    """The Airflow connection lacks something or does not fit."""

    conn_id: str
    why: str
    do: str
    says: ClassVar[str] = "Connection {conn_id!r}: {why}. Nothing was sent or paid. {do}"


@dataclass(eq=False)
class BadWindow(BadInput):
    """No window can be told from the run or the argument."""

    why: str
    says: ClassVar[str] = (
        "No window: {why}. Nothing was committed. Pass window='{{{{ … }}}}' to the task (any text or aware time), "
        "or give the Dag data intervals, for example CronDataIntervalTimetable('0 */12 * * *', timezone='UTC')."
    )


class StoreError(GeminiBatchError):
    """The workspace or a landing failed; the objects written before are whole."""

    retryable = True


@dataclass(eq=False)
class StoreUnreadable(StoreError):
    """An object is there, or may be, and cannot be read. This is never taken for absence."""

    uri: str
    why: str
    says: ClassVar[str] = (
        "{uri} could not be read: {why}. Nothing was sent or paid because of it, since unreadable is not absent. "
        "Restore access and retry the task: it goes on from the ledger."
    )


@dataclass(eq=False)
class StoreUnwritable(StoreError):
    """An object could not be written; no part of it is visible."""

    uri: str
    why: str
    says: ClassVar[str] = (
        "{uri} could not be written: {why}. No part of it is visible and nothing further was sent or paid. "
        "Make room or restore access, then retry the task: it goes on from the ledger."
    )


@dataclass(eq=False)
class StoreTooWeak(StoreError):
    """The store cannot create exclusively, so it cannot hold a ledger."""

    uri: str
    says: ClassVar[str] = (
        "{uri} let a second exclusive create succeed, so two attempts could both pay. Nothing was sent or paid. "
        "Use a store with create-only writes (local disk, S3, GCS, Azure), or set "
        "[geminibatch] allow_weak_workspace to accept the risk."
    )
    retryable = False


@dataclass(eq=False)
class ServiceError(GeminiBatchError):
    """The service answered with an error. ``code`` is the HTTP status, ``text`` the service's own words."""

    doing: str
    code: int | None
    text: str
    says: ClassVar[str] = (
        "{doing}: the service said no ({code}: {text}). Nothing was created or paid by this call. Correct what it names, then "
        "clear the task: it goes on from the ledger."
    )

    def __str__(self) -> str:
        said = self.says if self.code is not None else self.says.replace("{code}", "no answer")
        return said.format(doing=self.doing, code=self.code, text=self.text)


class KeyRefused(ServiceError):
    """401, 403 on everything, or an invalid, revoked or leaked key."""

    says = (
        "{doing}: the service refused the key ({code}: {text}). Nothing was created or paid by this call. "
        "Put a valid API key of the same project into the connection and retry the task."
    )


class CredentialsRefused(KeyRefused):
    """Google Cloud does not let the account do this, or there are no credentials."""

    says = (
        "{doing}: Google Cloud refused the credentials ({code}: {text}). Nothing was created or paid by this call. Correct what it "
        "names (the connection's key_path, keyfile_dict or impersonation_chain, the environment's own credentials, or the account's "
        "roles) and retry the task."
    )


class ModelUnknown(ServiceError):
    """The model does not exist on this service or cannot run batches."""

    says = (
        "{doing} ({code}): {text} Nothing was created or paid. Correct model= (`geminibatch models` lists those that "
        "run batches of the kind) and clear the task."
    )


class ServiceBusy(ServiceError):
    """429, 408, a 5xx or a transport failure on a call that may be repeated."""

    retryable = True
    retry_after_seconds: float | None = None
    """When the service wants to be asked again, if it said so."""
    says = "{doing}: the service is busy or out of reach ({code}: {text}). Repeating this call costs nothing; retry the task."


@dataclass(eq=False)
class JobUnreachable(GeminiBatchError):
    """A job that we know and the service does not show. It may still run and cost."""

    job_name: str
    code: int | None
    text: str
    says: ClassVar[str] = (
        "{job_name} is known to the ledger but the service answered {code}: {text}. It may still run and be paid; nothing was "
        "resubmitted. Check that the connection uses a key of the project that created it, then retry the task. If the job is "
        "really gone, `geminibatch forget` starts afresh and pays again."
    )
    retryable = True


class SubmissionError(GeminiBatchError):
    """A shard could not be made a job."""


@dataclass(eq=False)
class SubmissionRefused(SubmissionError):
    """The service said no before anything was created."""

    shard: str
    code: int
    text: str
    do: str
    says: ClassVar[str] = (
        "{shard} was refused by the service ({code}): {text} No job was created for it and nothing was paid. {do}"
    )


@dataclass(eq=False)
class SubmissionUnknown(SubmissionError):
    """A create whose fate cannot be proven, so that sending again could pay twice."""

    shard: str
    display_name: str
    why: str
    says: ClassVar[str] = (
        "{shard} may or may not have become a job: {why}. Nothing was resubmitted, since that could pay twice. "
        "Retry the task to look again for {display_name!r}, or run `geminibatch forget` to accept the risk and start afresh."
    )
    retryable = True


@dataclass(eq=False)
class Superseded(SubmissionError):
    """Another attempt of the task took this one's place; this one stops and harms nothing."""

    shard: str
    by: str
    says: ClassVar[str] = (
        "{shard} is being submitted by another attempt ({by}), which took over from this one. This attempt created nothing "
        "that is not on record and stops here. Nothing needs to be done; a retry adopts the job."
    )
    retryable = True


@dataclass(eq=False)
class NotSubmitted(SubmissionError):
    """A batch, or a part of it, has no job on record."""

    batch: str
    shards: str
    says: ClassVar[str] = (
        "{batch}: {shards} has no job on record, so there is nothing to wait for. Nothing was sent or paid by this task. "
        "Let GeminiBatchSubmitOperator finish first (clear it if it failed); this task has to come after it."
    )


@dataclass(eq=False)
class MediaChanged(SubmissionError):
    """A medium is not what was prepared, or not there any more."""

    medium: str
    why: str
    says: ClassVar[str] = (
        "{medium} is not what was prepared: {why}. Nothing was sent or paid for its shard. Put the file back and retry the task, or "
        "clear the prepare task: it reads the media again, and only what changed is asked anew."
    )


@dataclass(eq=False)
class MediaRefused(SubmissionError):
    """A medium that the service cannot use, or will not have long enough."""

    medium: str
    why: str
    says: ClassVar[str] = (
        "{medium} cannot be used by the service: {why}. Nothing was sent or paid for its shard. Correct or leave out the rows "
        "that name it and clear the prepare task."
    )


@dataclass(eq=False)
class ServiceChanged(SubmissionError):
    """The connection points at another service than the one that holds the open jobs."""

    batch: str
    was: str
    now: str
    says: ClassVar[str] = (
        "{batch} has paid jobs at {was}, but the connection now points at {now}. Nothing was sent. Point the connection back, "
        "or run `geminibatch forget` to start afresh at the new service."
    )


@dataclass(eq=False)
class WorkerDied(GeminiBatchError):
    """A process that wrote some of the shards of a build ended before it was done."""

    source: str
    why: str
    says: ClassVar[str] = (
        "{source}: a process that wrote some of its shards did not end well ({why}). Nothing was sealed, sent or paid. "
        "Retry the task; if it happens again, set processes=1, which takes longer and less memory."
    )
    retryable = True


@dataclass(eq=False)
class ReaderDied(GeminiBatchError):
    """A process that read the results of a shard ended before it was done."""

    shard: str
    why: str
    says: ClassVar[str] = (
        "{shard}: a process that read its results did not end well ({why}). Nothing was landed; what was answered and paid is "
        "kept. Retry the task; if it happens again, set processes=1, which takes longer and less memory."
    )
    retryable = True


@dataclass(eq=False)
class DeclarationChanged(GeminiBatchError):
    """The task's declaration changed while a paid job of its batch is open."""

    batch: str
    changed: str
    says: ClassVar[str] = (
        "{batch} has a paid job open, and the task now asks something else ({changed}). Nothing was sent. Undo the change, or "
        "clear the task to ask anew (what changed is paid again), or run `geminibatch forget`."
    )


@dataclass(eq=False)
class LedgerUnreadable(GeminiBatchError):
    """A ledger that should be there is not, or was written by a newer version."""

    uri: str
    why: str
    says: ClassVar[str] = (
        "{uri}: {why}. Nothing was sent or paid because of it, since a missing ledger is not proof that nothing was "
        "submitted. Restore the object or use the release that wrote it; `geminibatch forget` starts afresh and may pay again."
    )


@dataclass(eq=False)
class JobsFailed(GeminiBatchError):
    """No job of a batch ended with results."""

    batch: str
    detail: str
    says: ClassVar[str] = (
        "{batch}: no job ended with results ({detail}). Nothing was resubmitted. Clear the submit task to send its shards again "
        "(a failed, expired or cancelled job has no results to lose), after a look at the reason."
    )


@dataclass(eq=False)
class WaitTimedOut(GeminiBatchError):
    """A deadline of ours passed while jobs were still open. The jobs are untouched."""

    batch: str
    deadline: datetime
    detail: str
    says: ClassVar[str] = (
        "{batch}: the deadline {deadline:%Y-%m-%d %H:%M:%S %Z} passed with jobs still open ({detail}). The jobs were not cancelled and "
        "may still be paid. To wait on, give the task a later deadline and clear it; to end them, use GeminiBatchCancelOperator."
    )


@dataclass(eq=False)
class BatchCancelled(GeminiBatchError):
    """A person asked for the end of a batch."""

    batch: str
    reason: str
    says: ClassVar[str] = (
        "{batch} was cancelled on a person's wish ({reason}). Its open jobs were asked to end; what they had done may be billed. "
        "Nothing was committed. To ask anew, run `geminibatch forget` and clear the task."
    )


@dataclass(eq=False)
class CanaryFailed(GeminiBatchError):
    """The sample that was asked first did not come back as it has to, so that its batch is not sent."""

    batch: str
    why: str
    numbers: str
    examples: str
    do: str
    report: str

    def __str__(self) -> str:
        examples = f" Rows such as {self.examples}." if self.examples else ""
        return (
            f"{self.batch}: the canary says no: {self.why}. {self.numbers}.{examples} Nothing of the batch was sent; the canary "
            f"is paid, and its usable answers are kept. The report is {self.report}. {self.do} Then clear the task that "
            "prepares: changed rows get a canary of their own. To send the batch as it is, raise max_unusable=, or set "
            "canary=None, and clear this task: what is answered is not paid again."
        )


@dataclass(eq=False)
class ResultsNotReady(GeminiBatchError):
    """Results that are not there yet: a shard without a job, a job that runs on, an output that is still to come."""

    what: str
    why: str
    says: ClassVar[str] = (
        "{what}: {why}. Nothing was committed, and what is paid is not lost. Retry the task later; let it run after "
        "the submit task and GeminiBatchSensor."
    )
    retryable = True


@dataclass(eq=False)
class ResultsBroken(GeminiBatchError):
    """Result files that cannot be trusted: cut, foreign or unreadable."""

    what: str
    why: str
    says: ClassVar[str] = (
        "{what}: {why}. Nothing was committed from it and the answers stay where the service wrote them (the Developer API keeps "
        "them for six weeks). Retry the task; it costs nothing to download again. If it stays so, `geminibatch forget` the batch "
        "and clear its prepare task: all of it is asked, and paid, once more."
    )
    retryable = True


@dataclass(eq=False)
class Rejected(GeminiBatchError):
    """What landed is outside its thresholds. The rows lie under ``_rejected/`` where no chain picks them up."""

    landing: str
    window: str
    numbers: str
    option: str = ""
    says: ClassVar[str] = (
        "{landing} window {window} is outside its thresholds: {numbers}. The answers are paid and kept under _rejected/, no chain "
        "moves on. Look at them, then run `geminibatch accept {landing} {window}{option} --reason …`. To ask all of it again, and "
        "pay again, run `geminibatch forget` and clear the tasks."
    )


@dataclass(eq=False)
class NotOwner(GeminiBatchError):
    """A window that belongs to another task, or holds a newer generation already."""

    landing: str
    window: str
    owner: str
    me: str
    says: ClassVar[str] = (
        "{landing} window {window} belongs to {owner}; {me} may not replace it. Nothing was changed there and the answers stay "
        "collected. Use another landing or part=, or let the owner commit."
    )


@dataclass(eq=False)
class WindowNotLanded(GeminiBatchError):
    """The window a task depends on failed or is missing."""

    landing: str
    window: str
    why: str
    says: ClassVar[str] = (
        "{landing} window {window} has not landed: {why}. Nothing was sent or paid by this task. Repair that run, or set "
        "on_missing='proceed' or 'skip' where a gap is acceptable."
    )


@dataclass(frozen=True)
class Problem:
    """One mistake in a source: where it is, what is wrong, and what to write instead. ``rule`` names it for machines."""

    where: str
    what: str
    hint: str = ""
    rule: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f" ({self.hint})" if self.hint else "")


@dataclass(eq=False)
class BadRows(BadInput):
    """Problems in the rows or requests of a source: the first twenty, and how many there are in all."""

    source: str
    problems: tuple[Problem, ...]
    total: int

    def __str__(self) -> str:
        lines = "\n".join(f"  {problem}" for problem in self.problems)
        more = f"\n  … and {self.total - len(self.problems)} more" if self.total > len(self.problems) else ""
        count = "1 problem" if self.total == 1 else f"{self.total} problems"
        return f"{self.source}: {count}; nothing was uploaded, sent or paid.\n{lines}{more}\nCorrect the rows and clear the task."
