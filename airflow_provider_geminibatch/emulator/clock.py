"""The emulator's clock: real time, sped up, or stepped by hand."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from time import monotonic


class Clock:
    """Emulated time, which runs at `speed` times real time from `start` and can be moved forward.

    `speed=1` is real time, `speed=3600` an hour a second, `speed=0` stands still until it is advanced.
    Nothing in the emulator waits for this clock: what has happened by now is computed when somebody asks.
    """

    def __init__(self, start: datetime | None = None, *, speed: float = 1.0) -> None:
        start = start or datetime.now(UTC)
        if start.tzinfo is None:
            raise ValueError(f"the clock's start needs a time zone, got {start.isoformat()}")
        if speed < 0:
            raise ValueError(f"the clock cannot run backwards, got speed={speed}")
        self._lock = threading.Lock()
        self._base = start.astimezone(UTC)
        self._since = monotonic()
        self._speed = speed

    @property
    def speed(self) -> float:
        """Emulated seconds for each real second."""
        return self._speed

    def now(self) -> datetime:
        """The emulated time, in UTC."""
        with self._lock:
            return self._now()

    def advance(self, by: timedelta | None = None, **units: float) -> datetime:
        """Move forward by a timedelta, or by `hours=5, minutes=30` and so on; the new time is returned."""
        step = (by or timedelta()) + timedelta(**units)
        if step < timedelta():
            raise ValueError(f"the clock cannot run backwards, got {step}")
        with self._lock:
            self._base = self._now() + step
            return self._base

    def run(self, speed: float) -> None:
        """Go on at another speed from the present moment."""
        if speed < 0:
            raise ValueError(f"the clock cannot run backwards, got speed={speed}")
        with self._lock:
            self._now()
            self._speed = speed

    def _now(self) -> datetime:
        tick = monotonic()
        self._base += timedelta(seconds=(tick - self._since) * self._speed)
        self._since = tick
        return self._base


def timestamp(moment: datetime) -> str:
    """A time as the wire writes it: RFC 3339 in UTC with nine digits of second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "000Z"


def http_date(moment: datetime) -> str:
    """A time as the HTTP `Date` header writes it."""
    return format_datetime(moment.astimezone(UTC).replace(microsecond=0), usegmt=True)


__all__ = ["Clock", "http_date", "timestamp"]
