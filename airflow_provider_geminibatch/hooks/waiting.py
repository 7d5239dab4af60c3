"""What a waiting task waits for: the jobs of submitted batches, or jobs named by hand; and until when."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.core.eta import Estimate
from airflow_provider_geminibatch.core.ledger import CancelMark
from airflow_provider_geminibatch.core.manifest import Manifest, parse_manifests
from airflow_provider_geminibatch.core.model import JobSnapshot
from airflow_provider_geminibatch.core.watch import Decision, Look, Watch
from airflow_provider_geminibatch.hooks.gemini_batch import GeminiBatchHook
from airflow_provider_geminibatch.hooks.storage import open_store
from airflow_provider_geminibatch.jobs.wait import look, utc_now

if TYPE_CHECKING:
    from airflow_provider_geminibatch.jobs.ending import SubmittedBatch
    from airflow_provider_geminibatch.storage.store import Store


class OpenBatch(NamedTuple):
    """A submitted batch and the store that its ledger lies in."""

    manifest: Manifest
    store: Store
    batch: SubmittedBatch


class Wanted(NamedTuple):
    """The jobs to wait for. Without batches they were named by hand and are nobody's to cancel."""

    label: str
    names: tuple[str, ...]
    batches: tuple[OpenBatch, ...] = ()
    ended: Mapping[str, JobSnapshot] = {}
    intent_at: datetime | None = None

    @property
    def ledger_stores(self) -> list[tuple[Manifest, Store]]:
        """Each batch's manifest with the store of its ledger."""
        return [(one.manifest, one.store) for one in self.batches]

    @property
    def cancels(self) -> dict[str, CancelMark]:
        """Which of the jobs we asked to end."""
        return {name: mark for open_batch in self.batches for name, mark in open_batch.batch.cancels.items()}

    @property
    def ledgers(self) -> dict[str, str]:
        """For each open job of a batch, the URI of its attempt in the ledger."""
        return {
            job.name: open_batch.batch.place_uri(job)
            for open_batch in self.batches
            for job in open_batch.batch.jobs
            if not job.ended
        }


def named_jobs(given: Any) -> Wanted:
    """Jobs from one name or a sequence of names. Raises Unusable."""
    names = (given,) if isinstance(given, str) else given
    if not isinstance(names, Sequence) or not names or not all(isinstance(name, str) and name for name in names):
        raise Unusable(
            "job_names", f"{given!r} holds no names", "Pass a name or a list of names such as 'batches/abc'."
        )
    wrong = next((name for name in names if not name.startswith("batches/")), None)
    if wrong:
        raise Unusable("job_names", f"{wrong!r} is no job", "Names of jobs begin with 'batches/'.")
    unique = tuple(dict.fromkeys(names))
    return Wanted(unique[0] if len(unique) == 1 else f"{len(unique)} jobs", unique)


def submitted_jobs(given: Any) -> Wanted:
    """The jobs of the manifests in ``given``, as the ledgers have them. Raises NotSubmitted while a shard has none."""
    from airflow_provider_geminibatch.jobs.ending import read_batch

    found = []
    for manifest in parse_manifests(given):
        store = open_store(manifest.workspace)
        found.append(OpenBatch(manifest, store, read_batch(manifest, store).whole()))
    jobs = [job for _, _, batch in found for job in batch.jobs]
    return Wanted(
        label=", ".join(dict.fromkeys(batch.label for _, _, batch in found)),
        names=tuple(dict.fromkeys(job.name for job in jobs)),
        batches=tuple(found),
        ended={job.name: job.ended for job in jobs if job.ended},
        intent_at=min((batch.intent_at for _, _, batch in found if batch.intent_at), default=None),
    )


def look_at(
    wanted: Wanted,
    conn_id: str,
    *,
    deadline: timedelta | datetime | str | None,
    cap: timedelta,
    stretches: bool = False,
    expected: Callable[[], Estimate] | None = None,
    names_late: bool = False,
    was: Watch | None = None,
) -> tuple[Watch, Decision]:
    """One look from a worker. Jobs whose end is on record are not asked for.

    ``expected`` is asked only while something is open.
    ``was`` is the watch after the look before this one, if there is one: what it saw is not told again.
    """
    seen = _look(conn_id, tuple(name for name in wanted.names if name not in wanted.ended))
    now = utc_now()
    if was is not None and was.names == wanted.names:
        return was.after(seen, now)
    created = [job.created_at for job in seen.sights if isinstance(job, JobSnapshot) and job.created_at]
    began = wanted.intent_at or min(created, default=now)
    watch = Watch(
        names=wanted.names,
        since=min(began, now),
        deadline=deadline_at(deadline, began),
        cap=cap,
        stretches=stretches,
        jobs=wanted.ended,
    )
    if expected is not None and any(not (isinstance(sight, JobSnapshot) and sight.ended) for sight in seen.sights):
        watch = msgspec.structs.replace(watch, expected=expected(), names_late=names_late)
    return watch.after(seen, now)


def _look(conn_id: str, names: tuple[str, ...]) -> Look:
    if not names:
        return Look()
    gateway = GeminiBatchHook(conn_id).gateway()
    try:
        return look(gateway, names)
    finally:
        gateway.close()


def deadline_at(given: timedelta | datetime | str | None, began: datetime) -> datetime | None:
    """A deadline as an absolute time in UTC. A span counts from ``began``. Raises Unusable."""
    if isinstance(given, str):
        text = given.strip()
        if text in ("", "None"):
            return None
        try:
            given = datetime.fromisoformat(text)
        except ValueError:
            raise Unusable("deadline", f"{text!r} is no time", "Give ISO 8601 with a time zone.") from None
    if given is None or isinstance(given, timedelta):
        return None if given is None else began + given
    if given.tzinfo is None:
        raise Unusable("deadline", f"{given.isoformat()} has no time zone", "Give an aware time, such as …T12:00Z.")
    return datetime.fromtimestamp(given.timestamp(), UTC)
