"""The log of requests. It keeps neither keys nor bodies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from airflow_provider_geminibatch.emulator.clock import timestamp
from airflow_provider_geminibatch.emulator.wire import Json


@dataclass(frozen=True, slots=True)
class Entry:
    """One request: when by the emulator's clock, what, and the HTTP status it got (0 for a dropped connection)."""

    at: datetime
    endpoint: str
    method: str
    path: str
    status: int

    def shown(self) -> Json:
        """The entry as the control API shows it."""
        return {
            "at": timestamp(self.at),
            "endpoint": self.endpoint,
            "method": self.method,
            "path": self.path,
            "status": self.status,
        }


class Log:
    """All requests since the start or the last reset, the control API's own left out."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The requests, oldest first."""
        return tuple(self._entries)

    def note(self, entry: Entry) -> None:
        """Add a request."""
        self._entries.append(entry)

    def count(self, endpoint: str | None = None, *, status: int | None = None) -> int:
        """How many requests there were, to one endpoint or all, with one status or any."""
        return sum(
            (endpoint is None or entry.endpoint == endpoint) and (status is None or entry.status == status)
            for entry in self.entries
        )

    def counts(self) -> dict[str, int]:
        """How many requests each endpoint had."""
        return dict(Counter(entry.endpoint for entry in self.entries))

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()


__all__ = ["Entry", "Log"]
