"""Room at the service: how many jobs of a model it takes at once, learned from what it refuses.

The service tells no limit (jobs at once, enqueued tokens, requests a minute); it only answers 429. So shards go out in
waves: a refusal lowers the ceiling to what is open, and each wave that is taken raises it by a tenth. All of it is advice, kept
where the last writer wins: a wrong guess costs a delay, never money.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from airflow_provider_geminibatch.core.watch import STRETCH, spell

LIFE = timedelta(hours=50)
"""The service ends every job after 48 h, so an older one holds no room whatever is on record."""
FORGET = timedelta(days=1)
"""A ceiling that was not met for so long is not gone by any more."""
REMEMBERED = 500
"""So many of the newest open jobs are kept; a project may have 100 at once."""
PART = 10
"""A wave may go beyond the ceiling by this part of it, and by one at least."""


class Took(msgspec.Struct, frozen=True):
    """The service took a job."""

    job_name: str
    at: datetime


class Refused(msgspec.Struct, frozen=True):
    """The service had no room and, it may be, said when to ask again."""

    at: datetime
    retry_after_seconds: float | None = None


class Gone(msgspec.Struct, frozen=True):
    """These jobs have ended and hold no room."""

    job_names: tuple[str, ...]


Event = Took | Refused | Gone


class Full(msgspec.Struct, frozen=True):
    """No job may be sent before ``until``."""

    until: datetime
    why: str


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the room for one model of a service. ``open`` are our jobs there and since when."""

    v: int = 1
    ceiling: int | None = None
    refused_at: datetime | None = None
    not_before: datetime | None = None
    in_a_row: int = 0
    """Refusals since a job was taken last."""
    open: dict[str, datetime] = {}

    def after(self, event: Event, first_pause: timedelta, longest_pause: timedelta) -> Room:
        """The room after something happened."""
        match event:
            case Took(name, at):
                return self._took(name, at)
            case Gone(names):
                left = {name: since for name, since in self.open.items() if name not in names}
                return msgspec.structs.replace(self, open=left)
            case Refused(at, asked):
                # Whoever was refused while others already wait adds nothing to what is known.
                first = self.not_before is None or at >= self.not_before
                in_a_row = self.in_a_row + first
                until = at + backoff(in_a_row, first_pause, longest_pause, asked)
                return msgspec.structs.replace(
                    self,
                    ceiling=max(1, len(self.open)),
                    refused_at=at,
                    not_before=max(until, self.not_before or until),
                    in_a_row=in_a_row,
                )

    def _took(self, name: str, at: datetime) -> Room:
        recent = {job: since for job, since in self.open.items() if at - since < LIFE} | {name: at}
        newest = dict(sorted(recent.items(), key=lambda item: item[1])[-REMEMBERED:])
        ceiling = None if self.ceiling is None else max(self.ceiling, len(newest))
        return msgspec.structs.replace(self, open=newest, ceiling=ceiling, not_before=None, in_a_row=0)

    def at(self, now: datetime) -> Room:
        """The room as it counts now: without jobs too old to be open and a ceiling too old to be true."""
        holding = {job: since for job, since in self.open.items() if now - since < LIFE}
        forgotten = self.refused_at is not None and now - self.refused_at >= FORGET
        return msgspec.structs.replace(self, open=holding, ceiling=None if forgotten else self.ceiling)

    @property
    def wave(self) -> int | None:
        """How many jobs may be open at the end of a wave that begins now; None while no limit was met."""
        return None if self.ceiling is None else self.ceiling + max(1, self.ceiling // PART)

    def full(self, now: datetime, wave: int | None, shortest: timedelta, longest: timedelta) -> Full | None:
        """Why no job may be sent now, if so. ``wave`` is what the wave began with.

        A wave that was just taken is soon followed by the next; the longer nothing moves, the longer the pause.
        """
        if self.not_before is not None and now < self.not_before:
            return Full(
                self.not_before, f"no room at the service (429), our {len(self.open)} open jobs hold some of it"
            )
        if wave is not None and len(self.open) >= wave:
            why = f"{len(self.open)} jobs are open, and the service was full at {self.ceiling} or fewer"
            still = now - max(self.open.values())
            return Full(now + min(longest, max(shortest, still / STRETCH)), why)
        return None


def backoff(in_a_row: int, first: timedelta, longest: timedelta, asked_seconds: float | None) -> timedelta:
    """The pause after so many refusals in a row: doubling, capped, and what the service asked for if that is longer."""
    doubled = first * (1 << min(max(in_a_row - 1, 0), 10))
    return max(min(doubled, longest), timedelta(seconds=asked_seconds or 0))


def described(room: Room, now: datetime) -> str:
    """The room for people, or an empty text when nothing was ever refused."""
    if room.ceiling is None or room.refused_at is None:
        return ""
    ago = spell(now - room.refused_at)
    return f"at most about {room.ceiling} jobs at once (refused {ago} ago), {len(room.open)} of ours open"
