"""The gateways of a task that may ask by more than one connection."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from airflow_provider_geminibatch.hooks.gemini_batch import GeminiBatchHook

if TYPE_CHECKING:
    from airflow_provider_geminibatch.gemini.developer import DeveloperGateway


class Gateways:
    """Called with the id of a connection, or None for the task's own, it gives its gateway; leaving it closes them."""

    def __init__(self, own: str) -> None:
        self._own = own
        self._open: dict[str, DeveloperGateway] = {}

    def __call__(self, conn_id: str | None) -> DeveloperGateway:
        chosen = conn_id or self._own
        if chosen not in self._open:
            self._open[chosen] = GeminiBatchHook(chosen).gateway()
        return self._open[chosen]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._open:
            self._open.popitem()[1].close()
