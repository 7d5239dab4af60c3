"""May a task build upon a window? Decided from what has landed there and what Airflow says of the task that lands it.

A commit alone is not enough: while its owner is at work on the window again, the old commit is about to be replaced,
and when that work failed, it is out of date. Whoever looks asks for the runs first and for the commit after them, since
the commit always comes before the success of the task that made it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

FAILED = frozenset({"failed", "upstream_failed"})
LEFT_OUT = frozenset({"skipped", "removed"})
DONE = "success"
# Every other state, none at all included, is work still to come: waiting, queued, running, deferred, up for retry …


class Run(msgspec.Struct, frozen=True):
    """The owner's task in one Dag run: states of its mapped instances; ``closed`` when the run itself has ended."""

    run_id: str
    states: tuple[str | None, ...]
    closed: bool = False

    @property
    def open(self) -> bool:
        """True while the task may still land something. In an ended run a task without a state was never started."""
        return any(_open(state) and not (self.closed and state is None) for state in self.states)

    @property
    def failed(self) -> bool:
        return not self.open and any(state is None or state in FAILED for state in self.states)

    @property
    def left_out(self) -> bool:
        return not self.failed and all(state in LEFT_OUT for state in self.states)


def _open(state: str | None) -> bool:
    return state != DONE and state not in FAILED and state not in LEFT_OUT


class Landed(msgspec.Struct, frozen=True):
    """A complete and accepted commit: in which run, and whether a person accepted it against its thresholds."""

    commit: str
    run_id: str
    by_person: bool = False


class Sight(msgspec.Struct, frozen=True):
    """What one look showed. ``owner`` is empty when nobody is known to land there; ``rejected`` is why a commit was."""

    owner: str
    runs: tuple[Run, ...] = ()
    landed: Landed | None = None
    rejected: str = ""


class Pass(msgspec.Struct, frozen=True):
    """The window is there to be built upon."""

    commit: str


class Hold(msgspec.Struct, frozen=True):
    """The window may still come."""

    why: str


class Missing(msgspec.Struct, frozen=True):
    """The window is not there. ``certain`` means that nothing on its way would change that without a person."""

    why: str
    certain: bool = True


Answer = Pass | Hold | Missing


def chain_step(sight: Sight) -> Answer:
    """Whether the chain may go on."""
    at_work = [run.run_id for run in sight.runs if run.open]
    if at_work:
        return Hold(f"{sight.owner} is at work on it in {_listed(at_work)}")
    if sight.landed is None:
        return _not_landed(sight)
    spoiled = any(run.failed for run in sight.runs if run.run_id == sight.landed.run_id)
    if spoiled and not sight.landed.by_person:
        return Missing(f"{sight.owner} failed in {sight.landed.run_id} after the commit there, which is out of date")
    return Pass(sight.landed.commit)


def together(answers: Mapping[str, Answer], commit: str) -> Answer:
    """The answer for a window that several tasks land in parts: it is there when every part is, as ``commit``."""
    if holds := [f"part {part}: {step.why}" for part, step in answers.items() if isinstance(step, Hold)]:
        return Hold("; ".join(holds))
    missing = {part: step for part, step in answers.items() if isinstance(step, Missing)}
    if missing:
        why = "; ".join(f"part {part}: {step.why}" for part, step in missing.items())
        return Missing(why, certain=any(step.certain for step in missing.values()))
    return Pass(commit)


def _not_landed(sight: Sight) -> Missing:
    if sight.rejected:
        return Missing(f"its answers were rejected ({sight.rejected})")
    if not sight.owner:
        return Missing("nobody is known to land there (name the task with landed_by=)", certain=False)
    if not sight.runs:
        return Missing(f"there is no run of {sight.owner} for it", certain=False)
    if failed := [run.run_id for run in sight.runs if run.failed]:
        return Missing(f"{sight.owner} failed in {_listed(failed)}")
    if all(run.left_out for run in sight.runs):
        return Missing(f"{sight.owner} was skipped in {_listed(run.run_id for run in sight.runs)}")
    succeeded = _listed(run.run_id for run in sight.runs if not run.left_out)
    return Missing(f"{sight.owner} succeeded in {succeeded} without an accepted commit (was it marked so?)")


def _listed(run_ids: Iterable[str]) -> str:
    return ", ".join(sorted(run_ids))
