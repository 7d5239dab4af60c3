"""The gateways of a task that may ask by more than one connection, or at more than one location."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from airflow_provider_geminibatch.core.locations import Address, address
from airflow_provider_geminibatch.hooks.gemini_batch import GeminiBatchHook

if TYPE_CHECKING:
    from airflow_provider_geminibatch.gemini.gateway import Gateway


class Gateways:
    """Called with the id of a connection, or None for the task's own, it gives its gateway; leaving it closes them.

    An id may end in ``@location``; ``@location`` alone is the task's own connection there.
    """

    def __init__(self, own: str) -> None:
        self._own = own
        self._open: dict[str, Gateway] = {}

    def __call__(self, conn_id: str | None) -> Gateway:
        chosen = self.address(conn_id)
        if chosen not in self._open:
            self._open[chosen] = GeminiBatchHook(chosen).gateway()
        return self._open[chosen]

    def address(self, conn_id: str | None) -> str:
        """The connection that is meant, with its location if one is."""
        given = address(conn_id or self._own)
        return str(given if given.conn_id else Address(address(self._own).conn_id, given.location))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._open:
            self._open.popitem()[1].close()
