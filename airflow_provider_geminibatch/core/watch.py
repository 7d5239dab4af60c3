"""Waiting, decided: what is known of some jobs, when to look again, and when waiting is over.

A ``Watch`` is a value. Each look at the service gives the next watch and a decision, and whoever drives it does nothing
but sleep and look (``jobs/wait.py``). A watch ends when every job has ended or the deadline has passed, never out of
ignorance: a service that cannot be asked, a job that it does not show and a state that nobody knows are all waited for.

    watch, decision = watch.seen([snapshot], now=now)      # or watch.missed("ServiceBusy 503", now=now)

What similar jobs took stretches the pauses and says from when on a job is late. It never ends a watch by itself: being
late is told once, and only to a driver that asks for it (``names_late``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from datetime import datetime, timedelta

import msgspec

from airflow_provider_geminibatch.core.eta import Estimate
from airflow_provider_geminibatch.core.model import STATES, JobSnapshot

QUICK = timedelta(seconds=5)
"""Pause between looks in the first minute. Many small jobs end after two to four minutes (measured August 2026)."""
STRETCH = 12
"""Later a pause is this part of the time waited so far: a job of an hour is noticed at most five minutes late."""
FAR = 5
"""While half of the similar jobs would still run, pauses may grow to this many times the usual longest one."""
STILL = timedelta(hours=2)
"""Rows that were being done and have not moved for this long, and for as long as they had moved before, are stuck."""
SHORTEST = timedelta(seconds=1)
"""No pause is shorter, whatever is configured, so that nothing spins."""
SHOWN = 3
"""How many jobs a progress line names; the rest is counted."""
PATIENCE = 4
"""Of every so many names still missing, one list page may find nothing before gets are the cheaper way."""
PROBE, LIFELINE = 8, 100
"""When the list fails, so many names are got to see whether gets work, and so many in all if they do."""
REACH = 3
"""When gets fail, so many pages of the list are read instead."""
LONGEST_HOLD = timedelta(minutes=15)
"""A service that asks for more time than this is asked again all the same: jobs end and deadlines come meanwhile."""


class Unreachable(msgspec.Struct, frozen=True):
    """A known job that the service does not show (403 or 404). It may still run and cost, so it is waited for."""

    name: str
    why: str


class Miss(msgspec.Struct, frozen=True):
    """A look, or a part of it, that showed nothing. ``kind`` tells one sort from another, ``why`` is for people.

    ``stop``: the service wants to be left alone for now, so that asking in another way is no help either. ``hold_seconds``
    is for how long, when it said so.
    """

    kind: str
    why: str = ""
    stop: bool = False
    hold_seconds: float | None = None

    @property
    def hold(self) -> timedelta:
        """How long nobody asks."""
        return min(timedelta(seconds=self.hold_seconds or 0), LONGEST_HOLD)


Sight = JobSnapshot | Unreachable


class Look(msgspec.Struct, frozen=True):
    """What one look at the service showed: some jobs, and what kept it from showing the others."""

    sights: tuple[Sight, ...] = ()
    miss: Miss | None = None


class Wait(msgspec.Struct, frozen=True):
    """Look again at ``until``. ``line`` is set when something changed."""

    until: datetime
    line: str = ""


class Ended(msgspec.Struct, frozen=True):
    """Every job has ended, however it ended."""

    jobs: dict[str, JobSnapshot]
    line: str = ""


class TimedOut(msgspec.Struct, frozen=True):
    """The deadline passed with jobs still open. ``jobs`` is what was last seen, also of those that have ended."""

    jobs: dict[str, JobSnapshot]
    open: tuple[str, ...]
    line: str = ""


class Late(msgspec.Struct, frozen=True):
    """The jobs take longer than they should, and nobody has said so yet. They are waited for as before."""

    why: str
    jobs: dict[str, JobSnapshot]
    open: tuple[str, ...]
    line: str = ""


class Wished(msgspec.Struct, frozen=True):
    """A person left word for those who wait. The jobs are as last seen."""

    jobs: dict[str, JobSnapshot]
    line: str = ""


Decision = Wait | Ended | TimedOut | Late


def interval(elapsed: timedelta, cap: timedelta) -> timedelta:
    """The pause after ``elapsed`` of waiting: quick in the first minute, then a twelfth of it, up to ``cap``."""
    return max(SHORTEST, min(cap, max(QUICK, elapsed / STRETCH)))


class Watch(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the jobs ``names``. ``since`` is when waiting began and counts for intervals and progress lines.

    Raises ValueError without names, since a watch over nothing would end at once.
    """

    names: tuple[str, ...]
    since: datetime
    deadline: datetime | None = None
    cap: timedelta = timedelta(seconds=60)
    jobs: Mapping[str, JobSnapshot] = {}
    unreachable: Mapping[str, str] = {}
    miss: Miss | None = None
    """Set while looks show nothing at all."""
    told: frozenset[str] = frozenset()
    """The kinds of misses that were said since looking last worked again."""
    expected: Estimate | None = None
    stretches: bool = False
    """Whether pauses may grow beyond ``cap`` while the jobs are not expected to end soon."""
    names_late: bool = False
    """Whether the driver wants to be told, once, that the jobs are late."""
    enough: int | None = None
    """How many of the open jobs have to end; all when None."""
    moved_at: datetime | None = None
    """When rows were last seen to be done."""

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError("a watch needs at least one job")

    @property
    def open(self) -> tuple[str, ...]:
        """The jobs that have not been seen to end, in order."""
        return tuple(name for name in self.names if not ((job := self.jobs.get(name)) and job.ended))

    def seen(self, sights: Iterable[Sight], now: datetime) -> tuple[Watch, Decision]:
        """The watch after the service showed ``sights``; other jobs are left out, an ended one stays ended."""
        return self.after(Look(tuple(sights)), now)

    def missed(self, kind: str, now: datetime, why: str = "") -> tuple[Watch, Decision]:
        """The watch after a look that showed nothing. ``kind`` is said once until it changes."""
        return self.after(Look((), Miss(kind, why)), now)

    def after(self, look: Look, now: datetime) -> tuple[Watch, Decision]:
        """The watch after ``look``, and what to do."""
        watch = self._with(look)
        if _totals(watch)[:2] != _totals(self)[:2]:
            watch = msgspec.structs.replace(watch, moved_at=now)
        line = _line(self, watch, look.miss, now)
        still = watch.open
        if not still or (self.enough is not None and len(watch.names) - len(still) >= self.enough):
            return watch, Ended(dict(watch.jobs), line)
        if self.deadline is not None and now >= self.deadline:
            return watch, TimedOut(dict(watch.jobs), still, line)
        if watch.names_late and (why := watch.lateness(now)):
            return msgspec.structs.replace(watch, names_late=False), Late(why, dict(watch.jobs), still, line)
        pause = max(watch.pause(now), look.miss.hold if look.miss else timedelta())
        return watch, Wait(min((now + pause, *watch.turns())), line)

    def pause(self, now: datetime) -> timedelta:
        """How long nobody looks: ``interval``, stretched while half of the similar jobs would still be running."""
        usual = interval(now - self.since, self.cap)
        if not self.stretches or usual < self.cap or self.expected is None or self.expected.p50_at is None:
            return usual
        return max(usual, min(self.cap * FAR, (self.expected.p50_at - now) / STRETCH))

    def lateness(self, now: datetime) -> str:
        """Why the open jobs are late, or an empty text when they are not, as far as anybody can tell."""
        late = self.expected.late_at if self.expected else None
        if late is not None and now >= late:
            return f"nineteen in twenty similar jobs were done by {late:%Y-%m-%d %H:%M %Z}"
        done, failed, total = _totals(self)
        if self.moved_at is not None and 0 < done + failed < total:
            still = now - self.moved_at
            if still >= max(STILL, self.moved_at - self.since):
                return f"{done + failed} of {total} rows are done and none was for {spell(still)}"
        return ""

    def turns(self) -> Iterable[datetime]:
        """Moments that are not slept through."""
        if self.deadline is not None:
            yield self.deadline
        if self.names_late and self.expected and self.expected.late_at:
            yield self.expected.late_at

    def _with(self, look: Look) -> Watch:
        still = frozenset(self.open)
        sights = [sight for sight in look.sights if sight.name in still]
        # Ended ones last, so that they win: pages move while they are read, and may show a job twice.
        snapshots = sorted((sight for sight in sights if isinstance(sight, JobSnapshot)), key=lambda job: job.ended)
        shown = {job.name: job for job in snapshots}
        hidden = {sight.name: sight.why for sight in sights if isinstance(sight, Unreachable)}
        kept = {name: why for name, why in self.unreachable.items() if name not in shown}
        blind = look.miss if not sights else None
        told = frozenset() if self.miss and not blind else self.told
        return msgspec.structs.replace(
            self,
            jobs={**self.jobs, **shown},
            unreachable={**kept, **hidden},
            miss=blind,
            told=told | {look.miss.kind} if look.miss else told,
        )


class ListPage(msgspec.Struct, frozen=True):
    """Ask for a page of the job list."""

    token: str = ""


class Gets(msgspec.Struct, frozen=True):
    """Ask for these jobs one by one."""

    names: tuple[str, ...]


class Page(msgspec.Struct, frozen=True):
    """A page as it came."""

    jobs: tuple[JobSnapshot, ...]
    next_token: str = ""


def looking(wanted: Collection[str], *, company: bool = False) -> Generator[ListPage | Gets, Page | Look, Look]:
    """Look at ``wanted`` with few calls: yields what to ask, takes a Page or the Look that gets (or an error) gave.

    A page of the list shows many jobs for one call, so it is asked while that pays: for a single name only in ``company``
    of others who wait for theirs, and no more pages in vain than a quarter of the names still missing. What the list does
    not show is got by name, since a list may lag behind. All in all never more than a quarter more calls than gets alone,
    plus one. When one of the two ways fails the other is tried, a little of it, unless the service wants to be left alone.
    """
    search = _Search(wanted)
    yield from search.pages(lambda: len(search.missing) // PATIENCE + 1, least=1 if company else 2)
    listed = search.miss is None
    if search.goes_on:
        names = tuple(search.missing)
        for part in (names,) if listed else (names[:PROBE], names[PROBE:LIFELINE]):
            if not part or not (yield from search.gets(part)):
                break
    if listed and search.goes_on and (search.miss or search.hidden):
        yield from search.pages(lambda: REACH, least=1)
    return search.look()


Asking = Generator[ListPage | Gets, Page | Look, bool]


class _Search:
    """What one look has found so far."""

    def __init__(self, wanted: Collection[str]) -> None:
        self.missing = dict.fromkeys(wanted)
        self.miss: Miss | None = None
        self.hidden: dict[str, Unreachable] = {}
        self._shown: list[JobSnapshot] = []
        self._token: str | None = ""

    @property
    def goes_on(self) -> bool:
        return bool(self.missing) and not (self.miss and self.miss.stop)

    def look(self) -> Look:
        """What was shown, and the first of the misses unless the other way made up for it."""
        return Look((*self._shown, *self.hidden.values()), self.miss if self.missing else None)

    def pages(self, in_vain: Callable[[], int], *, least: int) -> Asking:
        """Read pages while at least ``least`` names are missing, up to so many that show none of them."""
        pages = found = 0
        while len(self.missing) >= least and self._token is not None and pages < found + in_vain():
            answer = yield ListPage(self._token)
            if isinstance(answer, Look):
                self.miss = self.miss or answer.miss
                return False
            pages += 1
            found += self._see(answer.jobs)
            self._token = answer.next_token or None
        return True

    def gets(self, names: tuple[str, ...]) -> Asking:
        """Get these; whether any was shown."""
        answer = yield Gets(names)
        assert isinstance(answer, Look)
        self.miss = self.miss or answer.miss
        self.hidden |= {sight.name: sight for sight in answer.sights if isinstance(sight, Unreachable)}
        return self._see([sight for sight in answer.sights if isinstance(sight, JobSnapshot)]) > 0

    def _see(self, jobs: Collection[JobSnapshot]) -> int:
        before = len(self.missing)
        self._shown += jobs
        for job in jobs:
            self.missing.pop(job.name, None)
            self.hidden.pop(job.name, None)
        return before - len(self.missing)


def _line(was: Watch, now_is: Watch, miss: Miss | None, now: datetime) -> str:
    """One line if anything changed, else nothing."""
    news = [*_moved(was, now_is), *_oddities(was, now_is), *_misses(was, now_is, miss)]
    if not news and _totals(was) == _totals(now_is) and len(was.jobs) == len(now_is.jobs):
        return ""
    standing, after = _standing(now_is), f"after {spell(now - now_is.since)}"
    told = [*standing, after, *news] if standing else [*news, after]
    if now_is.expected and now_is.open and (now_is.expected.basis != "unknown" or not was.jobs):
        told.append(now_is.expected.sentence(now))
    return "; ".join(told)


def _standing(watch: Watch) -> list[str]:
    if not watch.jobs:
        return []
    states = Counter(job.state for job in watch.jobs.values())
    told = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    one = len(watch.names) == 1
    text = f"{watch.names[0]} {next(iter(states))}" if one else f"{len(watch.names)} jobs: {told}"
    done, failed, total = _totals(watch)
    if total:
        text += f", {done + failed} of {total} rows done" + (f" ({failed} failed)" if failed else "")
    return [text]


def _totals(watch: Watch) -> tuple[int, int, int]:
    counts = [job.counts for job in watch.jobs.values()]
    return sum(c.succeeded for c in counts), sum(c.failed for c in counts), sum(c.total for c in counts)


def _moved(was: Watch, now_is: Watch) -> list[str]:
    """Which jobs changed their state. The first sight of a job is in the standing already."""
    moves = [
        (name, before.state, job.state)
        for name, job in now_is.jobs.items()
        if (before := was.jobs.get(name)) and before.state != job.state
    ]
    if not moves:
        return []
    if len(now_is.names) == 1:
        return [f"was {moves[0][1]}"]
    more = f" and {len(moves) - SHOWN} more" if len(moves) > SHOWN else ""
    return [", ".join(f"{name} {before} → {after}" for name, before, after in moves[:SHOWN]) + more]


def _oddities(was: Watch, now_is: Watch) -> Iterable[str]:
    known = {job.state for job in was.jobs.values()} | STATES.keys()
    for state in dict.fromkeys(job.state for job in now_is.jobs.values() if job.state not in known):
        yield f"this release does not know the state {state!r}, it is waited for like a running one"
    hidden = [name for name in now_is.unreachable if name not in was.unreachable]
    for name in hidden[:SHOWN]:
        yield (
            f"{name} is unreachable ({now_is.unreachable[name]}), which does not mean gone: it may still run and cost, "
            "and is waited for"
        )
    if len(hidden) > SHOWN:
        yield f"{len(hidden) - SHOWN} more are unreachable too"
    yield from (f"{name} is reachable again" for name in was.unreachable if name not in now_is.unreachable)


def _misses(was: Watch, now_is: Watch, miss: Miss | None) -> Iterable[str]:
    if was.miss and not now_is.miss:
        yield "looking works again"
    if miss and miss.kind not in was.told:
        limit = f" until {now_is.deadline:%Y-%m-%d %H:%M:%S %Z}" if now_is.deadline else ""
        yield f"could not look ({miss.why or miss.kind}); trying on{limit}, the jobs are not touched"


def spell(span: timedelta) -> str:
    """A span for people: ``45 s``, ``12 min``, ``1 h 20 min``, ``2 d 3 h``."""
    seconds = max(0, int(span.total_seconds()))
    if seconds < 60:
        return f"{seconds} s"
    minutes = seconds // 60
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"
