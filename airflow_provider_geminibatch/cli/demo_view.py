"""What the demo prints, from what Airflow, the landings and the emulator say. Nothing here asks anybody."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from airflow_provider_geminibatch.core.landing import CommitManifest
from airflow_provider_geminibatch.core.names import window_time

Json = Mapping[str, Any]

START_SECONDS = 65
"""Until Airflow is up and the annotations of all windows have come, on two cores."""
WINDOW_SECONDS = 22
"""What a window adds: its bulletin needs the one before it, so these waits come one after the other."""

WORTH_A_LINE = ("waits", "tries", "failed", "landed")
"""Beginnings of the stages that are shown; a run works on something for a second or two only."""

_BEGUN = ("running", "deferred", "up_for_reschedule", "up_for_retry", "queued", "scheduled", "restarting")
_ENDED_BADLY = ("failed", "upstream_failed")


@dataclass(frozen=True)
class Downstream:
    """A run that landings started: when, and by which landing and window, each with the time of its event."""

    run_id: str
    started_at: datetime
    landed_at: Mapping[tuple[str, str], datetime]


def estimate(windows: int) -> str:
    """How long the demo takes, in words."""
    minutes = round((START_SECONDS + WINDOW_SECONDS * windows) / 60)
    return "about a minute" if minutes == 1 else f"about {minutes} minutes"


def stage(task_instances: Iterable[Json]) -> str:
    """Where a run is: its waiting and failed tasks by name, or the one word for all of it."""
    states: dict[str, list[str]] = {}
    for instance in task_instances:
        states.setdefault(instance["state"] or "none", []).append(instance["task_id"])
    bad = sorted(name for state in _ENDED_BADLY for name in states.get(state, ()))
    if bad:
        return f"failed: {', '.join(bad)}"
    if states and set(states) <= {"success", "skipped", "removed"}:
        return "landed"
    waiting = sorted((*states.get("deferred", ()), *states.get("up_for_reschedule", ())))
    working = sorted(name for state in _BEGUN for name in states.get(state, ()) if name not in waiting)
    told = [f"waits in {', '.join(waiting)}"] if waiting else []
    retried = states.get("up_for_retry", [])
    told += [f"tries again: {', '.join(sorted(retried))}"] if retried else []
    if not told:
        return f"works on {', '.join(working)}" if working else "begins"
    return "; ".join(told)


def jobs_line(jobs: Iterable[Json]) -> str:
    """The service's jobs by state: ``jobs: 3 running, 5 succeeded``."""
    states = Counter(
        str(job.get("state", "")).removeprefix("BATCH_STATE_").removeprefix("JOB_STATE_").lower() for job in jobs
    )
    return "jobs: " + (", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "none")


def table(commits: Sequence[CommitManifest], downstream: Sequence[Downstream]) -> str:
    """One line for each window and batch."""
    head = ("window", "batch", "rows", "outcomes", "submitted", "finished", "turnaround", "cost USD", "downstream")
    rows = [_row(commit, downstream) for commit in sorted(commits, key=lambda one: (one.window, one.submitted_at or 0))]
    return aligned((head, *rows), right=(2, 6, 7))


def _row(commit: CommitManifest, downstream: Sequence[Downstream]) -> tuple[str, ...]:
    outcomes = ", ".join(f"{count} {name}" for name, count in commit.counts.items() if count)
    return (
        window_label(commit.window),
        commit.landing,
        str(commit.rows),
        outcomes + ("" if commit.passes else f" ({commit.verdict})"),
        _clock(commit.submitted_at),
        _clock(commit.finished_at),
        span(commit.submitted_at, commit.finished_at),
        "unknown" if commit.cost_usd is None else f"{Decimal(commit.cost_usd):.6f}",
        _started((commit.landing, commit.window), downstream),
    )


def _started(landed: tuple[str, str], downstream: Sequence[Downstream]) -> str:
    runs = [one for one in downstream if landed in one.landed_at]
    if not runs:
        return ""
    first = min(runs, key=lambda one: one.started_at)
    late = (first.started_at - first.landed_at[landed]).total_seconds()
    return f"started {first.started_at.astimezone():%H:%M:%S}, {late:.1f} s after it landed"


def window_label(window: str) -> str:
    """A window as people write it."""
    time = window_time(window)
    return f"{time:%Y-%m-%d %H:%M}" if time else window


def span(begin: datetime | None, end: datetime | None) -> str:
    """A span as ``7 h 12 min``."""
    if begin is None or end is None:
        return "-"
    minutes = round((end - begin) / timedelta(minutes=1))
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _clock(moment: datetime | None) -> str:
    return f"{moment:%m-%d %H:%M}" if moment else "-"


def aligned(rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Rows in columns of equal width; the columns in ``right`` lean to the right."""
    rows = list(rows)
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if at in right else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def troubles(commits: Sequence[CommitManifest], expected: int, bill: Json) -> list[str]:
    """What is not as it should be: missing or unaccepted windows, a job too many, a cost that is not the bill's."""
    found = [f"{one.landing} {window_label(one.window)} is {one.verdict}" for one in commits if not one.passes]
    if len(commits) != expected:
        found.append(f"{len(commits)} of {expected} windows have landed")
    jobs = sum(len(one.jobs) for one in commits)
    if bill["jobs"] != jobs:
        found.append(f"the service has {bill['jobs']} jobs, the landings name {jobs}")
    if total_cost(commits) != Decimal(bill["total_usd"]):
        found.append(f"the service's bill is {bill['total_usd']} USD, the landings say {total_cost(commits)} USD")
    return found


def total_cost(commits: Iterable[CommitManifest]) -> Decimal | None:
    """The cost of all commits; None when one has no known price."""
    costs = [one.cost_usd for one in commits]
    return None if None in costs else sum((Decimal(cost) for cost in costs if cost is not None), Decimal(0))
