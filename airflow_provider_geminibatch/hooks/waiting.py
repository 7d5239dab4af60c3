"""What a waiting task waits for: the jobs of submitted batches, or jobs named by hand; and until when."""

from __future__ import annotations

import re
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
from airflow_provider_geminibatch.hooks.gateways import Gateways
from airflow_provider_geminibatch.hooks.locations import ConnIds, by_home, home_of, home_of_names
from airflow_provider_geminibatch.hooks.storage import open_store
from airflow_provider_geminibatch.jobs.wait import joined, look, utc_now

if TYPE_CHECKING:
    from airflow_provider_geminibatch.jobs.ending import SubmittedBatch
    from airflow_provider_geminibatch.storage.store import Store


_JOB = re.compile(r"batches/|projects/[^/]+/locations/[^/]+/batchPredictionJobs/")


class OpenBatch(NamedTuple):
    """A submitted batch, the store that its ledger lies in, and the connection, with its location, that it is at."""

    manifest: Manifest
    store: Store
    batch: SubmittedBatch
    home: str


class Wanted(NamedTuple):
    """The jobs to wait for. Without batches they were named by hand and are nobody's to cancel.

    ``own`` is the connection of jobs of no batch, ``homes`` that of the others.
    """

    label: str
    names: tuple[str, ...]
    own: str
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
    def homes(self) -> dict[str, str]:
        """The connection, with its location, that each job of a batch is at."""
        return {job.name: one.home for one in self.batches for job in one.batch.jobs}

    @property
    def ledgers(self) -> dict[str, dict[str, str]]:
        """For each open job of a batch, the URI of its attempt in the ledger, by the connection that it is at."""
        found: dict[str, dict[str, str]] = {}
        for one in self.batches:
            its = {job.name: one.batch.place_uri(job) for job in one.batch.jobs if not job.ended}
            found.setdefault(one.home, {}).update(its)
        return found


def named_jobs(given: Any, conn_ids: ConnIds) -> Wanted:
    """Jobs from one name or a sequence of names. Raises Unusable."""
    names = (given,) if isinstance(given, str) else given
    if not isinstance(names, Sequence) or not names or not all(isinstance(name, str) and name for name in names):
        raise Unusable(
            "job_names", f"{given!r} holds no names", "Pass a name or a list of names such as 'batches/abc'."
        )
    wrong = next((name for name in names if not _JOB.match(name)), None)
    if wrong:
        do = "Names of jobs begin with 'batches/', on Vertex AI with 'projects/…/locations/…/batchPredictionJobs/'."
        raise Unusable("job_names", f"{wrong!r} is no job", do)
    unique = tuple(dict.fromkeys(names))
    own = home_of_names(unique, conn_ids)
    return Wanted(unique[0] if len(unique) == 1 else f"{len(unique)} jobs", unique, own)


def submitted_jobs(given: Any, conn_ids: ConnIds) -> Wanted:
    """The jobs of the manifests in ``given``, as the ledgers have them. Raises NotSubmitted while a shard has none."""
    from airflow_provider_geminibatch.jobs.ending import read_batch

    found = []
    for manifest in parse_manifests(given):
        store = open_store(manifest.workspace)
        batch = read_batch(manifest, store).whole()
        found.append(OpenBatch(manifest, store, batch, home_of(manifest, store, conn_ids)))
    jobs = [job for one in found for job in one.batch.jobs]
    return Wanted(
        label=", ".join(dict.fromkeys(one.batch.label for one in found)),
        names=tuple(dict.fromkeys(job.name for job in jobs)),
        own=found[0].home,
        batches=tuple(found),
        ended={job.name: job.ended for job in jobs if job.ended},
        intent_at=min((one.batch.intent_at for one in found if one.batch.intent_at), default=None),
    )


def look_at(
    wanted: Wanted,
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
    seen = _look(wanted, tuple(name for name in wanted.names if name not in wanted.ended))
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


def _look(wanted: Wanted, names: tuple[str, ...]) -> Look:
    """One look at each service that has some of the jobs."""
    with Gateways(wanted.own) as gateways:
        homes = by_home(names, wanted.homes, wanted.own)
        return joined([look(gateways(home), its) for home, its in homes.items()])


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
