"""What lies about at the service and in the workspace, and which of it may be touched.

Only what carries this workspace's mark is looked at. Acted on is only what no unfinished work can need: of a generation that
was closed after the attempt was claimed, or of no ledger at all and older than any job can be. An open or unreadable ledger is
reported and left alone, and while one is unreadable nothing counts as having no ledger.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from airflow_provider_geminibatch.core.model import JobSnapshot

FOREIGN_MARK = "gb1-"
"""How names of any workspace begin."""

SAFE_AGES = {"developer": timedelta(hours=72)}
"""A job expires after 48 h (batch guide, 2026-09-18); a day more is our caution."""

SAFE_AGE = timedelta(hours=120)
"""Where a job can wait 72 h in a queue and run for a day after it, as on Vertex."""


def safe_age(route: str) -> timedelta:
    """From which age on, by the service's clock, nothing can be waiting for a job that no ledger knows."""
    return SAFE_AGES.get(route, SAFE_AGE)


_KEPT = {"developer": "; results are kept for six weeks"}
"""How long results wait to be collected; those of Vertex AI lie in a bucket for as long as that keeps them."""


class Standing(StrEnum):
    """What the ledger says about an attempt: its work is finished, or not, or the ledger cannot be read."""

    CLOSED = "closed"
    OPEN = "open"
    UNREADABLE = "unreadable"


class Act(StrEnum):
    """What the janitor may do, in the order in which it does it."""

    CANCEL = "cancel"
    COLLECT = "collect"
    DELETE_INPUT = "delete its input file"
    DELETE_MEDIUM = "delete it"
    DELETE_NOTE = "delete the note"


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """The attempt that a job or a file is of. ``place`` are its facts without their suffix, ``generation`` its folder."""

    label: str
    generation: str
    place: str
    standing: Standing
    why: str = ""
    collected: bool = False


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something that lies about. ``acts`` is what may be done about it; ``done`` is what was, or why it could not be."""

    kind: str
    name: str
    says: str
    batch: str = ""
    acts: tuple[Act, ...] = ()
    done: tuple[str, ...] = ()

    def __str__(self) -> str:
        whose = f" of {self.batch}" if self.batch else ""
        may = f" [may: {', '.join(self.acts)}]" if self.acts and not self.done else ""
        done = f" [{'; '.join(self.done)}]" if self.done else ""
        return f"{self.kind} {self.name}{whose}: {self.says}{may}{done}"


class Places(msgspec.Struct, frozen=True, kw_only=True):
    """What a judgement rests on: the workspace's mark, the service's time and route, and whether every ledger could be read."""

    mark: str
    route: str
    service_now: datetime | None
    unreadable: tuple[str, ...] = ()


def job_finding(job: JobSnapshot, known: Known | None, places: Places) -> Finding | None:
    """What there is to say about a job that bears the workspace's mark; None when all is as it should be."""
    if job.input_file.startswith("gs://") and not _is_ours(job.input_file, places):
        says = f"{_state(job)}, and it reads {job.input_file}, which is none of this workspace's: it was left alone"
        return None if job.ended else _job(job, known, says)
    if known is None:
        return _orphan(job, places)
    if known.standing is Standing.UNREADABLE:
        return _job(job, known, f"{_state(job)}, and its ledger cannot be read ({known.why}); it was left alone")
    if known.standing is Standing.OPEN:
        if not (job.ended and job.readable) or known.collected:
            return None
        kept = _KEPT.get(places.route, "")
        return _job(job, known, f"{_state(job)}, and not collected yet: let its Load run{kept}")
    if not job.ended:
        return _job(job, known, f"{_state(job)} although its batch is closed: nobody waits for it", Act.CANCEL)
    if job.readable and not known.collected:
        return _job(job, known, f"{_state(job)} after its batch was closed, and not collected", *_taken(job, places))
    return None


def _orphan(job: JobSnapshot, places: Places) -> Finding | None:
    if places.unreadable:
        return _job(
            job, None, f"{_state(job)}, no ledger that can be read knows it; one cannot be: {places.unreadable[0]}"
        )
    age = _age(job, places)
    safe = safe_age(places.route)
    if age is None or age < safe:
        old = "of unknown age" if age is None else f"{age.total_seconds() / 3600:.0f} h old"
        limit = f"{safe.total_seconds() / 3600:.0f} h"
        return _job(job, None, f"{_state(job)}, no ledger knows it, {old}: left alone until it is {limit} old")
    if not job.ended:
        return _job(job, None, f"{_state(job)}, no ledger knows it", Act.CANCEL)
    if job.readable:
        return _job(job, None, f"{_state(job)}, no ledger knows it, and not collected", *_taken(job, places))
    return None


def _taken(job: JobSnapshot, places: Places) -> tuple[Act, ...]:
    """Collect first, delete after."""
    return (Act.COLLECT, Act.DELETE_INPUT) if _is_ours(job.input_file, places) else (Act.COLLECT,)


def _is_ours(name: str, places: Places) -> bool:
    """Whether an input was uploaded by this workspace: a job may be a copy of ours that reads what is somebody else's.

    Tables that jobs read end by themselves.
    """
    if name.startswith("gs://"):
        return name.rsplit("/", 2)[1].startswith(places.mark)
    return name.startswith("files/")


def _age(job: JobSnapshot, places: Places) -> timedelta | None:
    """By the service's own clock: ours may be far from it."""
    if job.created_at is None or places.service_now is None:
        return None
    return places.service_now - job.created_at


def _state(job: JobSnapshot) -> str:
    counts = f" ({job.counts.total} rows)" if job.counts.total else ""
    return f"{job.state}{counts}"


def _job(job: JobSnapshot, known: Known | None, says: str, *acts: Act) -> Finding:
    return Finding(kind="job", name=job.name, batch=known.label if known else "", says=says, acts=acts)


def file_finding(name: str, known: Known) -> Finding | None:
    """What there is to say about an input file that is still at the service."""
    if known.standing is not Standing.CLOSED:
        return None
    says = f"its batch is closed; {_weight(name)}"
    return Finding(kind="file", name=name, batch=known.label, says=says, acts=(Act.DELETE_INPUT,))


def _weight(name: str) -> str:
    if name.startswith("gs://"):
        return "it stays in its bucket, and is paid for, until somebody deletes it"
    return "it fills the project's 20 GB until it expires"


def stray_finding(name: str, known: Known | None, age: timedelta | None, places: Places) -> Finding | None:
    """What there is to say about an input in the staging folder that is on no record: its upload was not noted any more."""
    if places.unreadable or age is None or age < safe_age(places.route):
        return None
    if known is not None and known.standing is not Standing.CLOSED:
        return None
    says = f"an input that no job was made of; {_weight(name)}"
    return Finding(kind="file", name=name, batch=known.label if known else "", says=says, acts=(Act.DELETE_INPUT,))


MEDIA_AGE = timedelta(hours=2)
"""A medium younger than this may be of a shard that is being submitted, whose upload is not on record yet."""


def medium_finding(
    name: str, size_bytes: int, age: timedelta | None, *, needed: bool, unreadable: bool
) -> Finding | None:
    """What there is to say about a medium of this workspace that lies at the service; None while somebody may need it.

    A wrong guess costs an upload, never an answer: whoever submits looks at a file before a request points at it.
    """
    if needed or unreadable or age is None or age < MEDIA_AGE:
        return None
    says = f"{size_bytes:,} bytes that no open batch points at; {_weight(name)}"
    return Finding(kind="medium", name=name, says=says, acts=(Act.DELETE_MEDIUM,))


def note_finding(name: str, label: str, standing: Standing | None) -> Finding | None:
    """What there is to say about a note that a batch is unfinished. ``standing`` is None when there is no such batch."""
    if standing is Standing.CLOSED:
        return Finding(
            kind="note",
            name=name,
            batch=label,
            says="the batch is closed and still noted as open",
            acts=(Act.DELETE_NOTE,),
        )
    if standing is None:
        return Finding(kind="note", name=name, batch=label, says="it names a batch that is not there")
    return None


def batch_finding(
    generation: str, label: str, standing: Standing, why: str, age: timedelta, forgotten: bool
) -> Finding | None:
    """What there is to say about a generation whose ledger is not closed."""
    if standing is Standing.UNREADABLE:
        return Finding(kind="batch", name=generation, batch=label, says=f"its ledger cannot be read: {why}")
    if standing is Standing.CLOSED or forgotten or age < SAFE_AGE:
        return None
    days = age.total_seconds() / 86_400
    says = f"unfinished for {days:.0f} days: clear its tasks, or give it up with `geminibatch forget`"
    return Finding(kind="batch", name=generation, batch=label, says=says)


__all__ = [
    "FOREIGN_MARK",
    "MEDIA_AGE",
    "Act",
    "Finding",
    "Known",
    "Places",
    "Standing",
    "batch_finding",
    "file_finding",
    "job_finding",
    "medium_finding",
    "note_finding",
    "safe_age",
    "stray_finding",
]
