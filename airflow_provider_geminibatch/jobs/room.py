"""The learned room of a service and model, kept in the workspace as ``room/<service>/<model>.json``.

Nothing that costs money rests on it, so the last writer wins, and a store that fails here fails nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

import msgspec

from airflow_provider_geminibatch.core.errors import ServiceError, StoreError
from airflow_provider_geminibatch.core.model import JobSnapshot
from airflow_provider_geminibatch.core.names import segment
from airflow_provider_geminibatch.core.room import Event, Full, Gone, Refused, Room, Took
from airflow_provider_geminibatch.core.steps import Policy, Wait
from airflow_provider_geminibatch.gemini.gateway import Gateway
from airflow_provider_geminibatch.jobs.wait import look
from airflow_provider_geminibatch.storage.store import Store


def room_path(service: str, model: str) -> str:
    """Where the room of a model lies."""
    return f"room/{segment(service)}/{segment(model)}.json"


def read_room(store: Store, service: str, model: str) -> Room:
    """The room on record; an empty one when there is none or it cannot be understood. Raises StoreUnreadable."""
    data = store.read(room_path(service, model))
    try:
        return msgspec.json.decode(data, type=Room) if data else Room()
    except msgspec.MsgspecError:
        return Room()


class Wave:
    """One wave: the shards that one walk may send. It is read when the first of them asks, and saved once at the end."""

    def __init__(
        self,
        store: Store,
        gateway: Gateway,
        model: str,
        now: Callable[[], datetime],
        policy: Policy,
        log: logging.Logger,
    ) -> None:
        self._store, self._gateway, self._model = store, gateway, model
        self._now, self._policy, self._log = now, policy, log
        self._service = str(gateway.identity)
        self._room: Room | None = None
        self._size: int | None = None
        self._looked = False
        self._events: list[Event] = []

    def full(self) -> Wait | None:
        """The wait for room, when there is none for one more job."""
        full = self._full()
        if full and self._look():
            full = self._full()
        return Wait(full.until, full.why) if full else None

    def _full(self) -> Full | None:
        room = self._read()
        return room.full(self._now(), self._size, self._policy.first_backoff, self._policy.longest_backoff)

    def ours_open(self) -> bool:
        """Whether jobs of this workspace hold room, so that some will come when they end."""
        return bool(self._read().open)

    def took(self, job_name: str) -> None:
        """The service took a job."""
        self._note(Took(job_name, self._now()))

    def refused(self, retry_after_seconds: float | None) -> None:
        """The service had no room: nobody else of this wave asks."""
        self._look()
        self._note(Refused(self._now(), retry_after_seconds))
        room = self._read()
        self._log.info(
            "the service has no room for more jobs of %s; %d of ours are open there", self._model, len(room.open)
        )

    def save(self) -> None:
        """Write what was learned, on top of what others have learned meanwhile."""
        if not self._events:
            return
        try:
            room = read_room(self._store, self._service, self._model)
            for event in self._events:
                room = self._after(room, event)
            self._store.write(room_path(self._service, self._model), msgspec.json.encode(room))
        except StoreError as error:
            self._log.info("what was learned about room was not saved, which costs a delay at most: %s", error)
        self._events.clear()

    def _note(self, event: Event) -> None:
        self._room = self._after(self._read(), event)
        self._events.append(event)

    def _after(self, room: Room, event: Event) -> Room:
        return room.after(event, self._policy.first_backoff, self._policy.longest_backoff)

    def _read(self) -> Room:
        if self._room is None:
            try:
                self._room = read_room(self._store, self._service, self._model).at(self._now())
            except StoreError as error:
                self._log.info("the learned room cannot be read, so there is none: %s", error)
                self._room = Room()
            self._size = self._room.wave
        return self._room

    def _look(self) -> bool:
        """Look, once a wave, which of our jobs have ended; whether any has."""
        room = self._read()
        if self._looked or not room.open:
            return False
        self._looked = True
        try:
            sights = look(self._gateway, tuple(room.open)).sights
        except ServiceError as error:
            self._log.info("our open jobs could not be looked at: %s", error)
            return False
        gone = tuple(job.name for job in sights if isinstance(job, JobSnapshot) and job.ended)
        if gone:
            self._note(Gone(gone))
        return bool(gone)
