"""Faults at numbered effects: wraps a store and a gateway so that a walk can be stopped, robbed of a reply, or frozen.

Every call that touches the outside counts as one effect. A plan names the effect and the way it goes wrong:

    before   the process dies just before it          after   it dies just after it
    lost     it is done, but its answer is an error   frozen  everything else goes on here, then it is done
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from airflow_provider_geminibatch.core.errors import ServiceBusy, StoreUnwritable
from airflow_provider_geminibatch.gemini.gateway import Ambiguous, GenerateReply

WAYS = ("before", "after", "lost", "frozen")
STORE_EFFECTS = ("read", "create", "write", "delete", "open")
READS = ("store.read", "store.open", "gateway.file", "gateway.jobs", "gateway.job", "gateway.model")
GATEWAY_EFFECTS = (
    "upload",
    "file",
    "file_page",
    "delete_file",
    "create",
    "job",
    "jobs",
    "cancel",
    "model",
    "models",
    "generate",
    "count_tokens",
    "make_cache",
    "cache",
    "caches_named",
    "keep_cache",
)


def ways(effect: str) -> tuple[str, ...]:
    """Stopping before or after a read is the same to everybody, and so is losing its answer."""
    return ("before", "frozen") if effect.split(" ", maxsplit=1)[0] in READS else WAYS


def crash_cases(stages: Mapping[str, Sequence[str]], keep: Callable[[str], bool] = lambda effect: True) -> list[Any]:
    """Every effect of every stage of a quiet road, each way: parameters ``stage``, ``at``, ``way``."""
    return [
        pytest.param(stage, at, way, id=f"{stage}-{at:02d}-{name.replace(' ', '-')}-{way}")
        for stage, names in stages.items()
        for at, name in enumerate(names)
        if keep(name)
        for way in ways(name)
    ]


class Crash(BaseException):
    """The process died: nothing of ours may catch it, as nothing can catch SIGKILL."""


class Plan:
    """Counts effects and lets the chosen one go wrong."""

    def __init__(
        self, at: int | None = None, way: str = "before", meanwhile: Callable[[], object] = lambda: None
    ) -> None:
        self.at, self.way, self.meanwhile = at, way, meanwhile
        self.seen: list[str] = []

    def run(self, name: str, act: Callable[[], Any], lost: Callable[[], Any]) -> Any:
        number = len(self.seen)
        self.seen.append(name)
        if number != self.at:
            return act()
        if self.way == "before":
            raise Crash(name)
        if self.way == "frozen":
            self.meanwhile()
            return act()
        done = act()
        if self.way == "after":
            raise Crash(name)
        return done if lost is None else lost()


class FaultyStore:
    """A store whose effects go by a plan."""

    def __init__(self, inner: Any, plan: Plan) -> None:
        self._inner, self._plan, self.uri = inner, plan, inner.uri

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if name not in STORE_EFFECTS:
            return method

        def call(path: str, *args: Any) -> Any:
            def lost() -> None:
                raise StoreUnwritable(path, "the reply was lost")

            return self._plan.run(f"store.{name} {path.rpartition('/')[2]}", lambda: method(path, *args), lost)

        return call

    @contextmanager
    def writer(self, path: str) -> Iterator[Any]:
        with self._inner.writer(path) as stream:
            yield _FaultyStream(stream, path, self._plan)
            self._plan.run(f"store.writer-close {path.rpartition('/')[2]}", lambda: None, lambda: None)
        self._plan.run(f"store.writer-closed {path.rpartition('/')[2]}", lambda: None, lambda: None)


class _FaultyStream:
    def __init__(self, inner: Any, path: str, plan: Plan) -> None:
        self._inner, self._path, self._plan = inner, path, plan

    def write(self, data: bytes) -> Any:
        return self._plan.run(
            f"store.write-part {self._path.rpartition('/')[2]}", lambda: self._inner.write(data), lambda: len(data)
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class FaultyGateway:
    """A gateway whose effects go by a plan. A lost reply to a paid call is a value, to anything else it is an error."""

    def __init__(self, inner: Any, plan: Plan) -> None:
        self._inner, self._plan = inner, plan

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._inner, name)
        if name not in GATEWAY_EFFECTS:
            return member

        def lost() -> Any:
            if name == "create":
                return Ambiguous("the reply was lost")
            if name == "generate":
                return GenerateReply(error={"code": 504, "message": "the reply was lost"})
            raise ServiceBusy(name, None, "the reply was lost")

        return lambda *args, **kwargs: self._plan.run(f"gateway.{name}", lambda: member(*args, **kwargs), lost)

    @contextmanager
    def download(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        with self._inner.download(*args, **kwargs) as stream:
            yield _FaultyDownload(stream, self._plan)


class _FaultyDownload:
    def __init__(self, inner: Any, plan: Plan) -> None:
        self._inner, self._plan = inner, plan
        self.offset, self.size_bytes = inner.offset, inner.size_bytes

    def chunks(self) -> Iterator[bytes]:
        def lost() -> None:
            raise ServiceBusy("download", None, "cut")

        for chunk in self._inner.chunks():
            half = len(chunk) // 2
            yield chunk[:half]
            yield self._plan.run("gateway.download-chunk", lambda: chunk[half:], lost)  # noqa: B023 - called at once


class FaultyConnection:
    """A DB-API connection whose statements go by a plan; one that is lost is done, and an error of the driver."""

    def __init__(self, inner: Any, plan: Plan) -> None:
        self._inner, self._plan = inner, plan

    @classmethod
    def opener(cls, connect: Callable[[], Any], plan: Plan) -> Callable[[], Any]:
        """A ``connect`` whose connections are faulty."""

        def opened() -> FaultyConnection:
            made = []
            try:
                return cls(plan.run("sql.connect", lambda: made.append(connect()) or made[0], _lost_statement), plan)
            except BaseException:
                for connection in made:  # a process that is dead has none
                    connection.close()
                raise

        return opened

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        return _FaultyCursor(self._inner.cursor(*args, **kwargs), self._plan)

    def commit(self) -> None:
        self._plan.run("sql.COMMIT", self._inner.commit, _lost_statement)


class _FaultyCursor:
    def __init__(self, inner: Any, plan: Plan) -> None:
        self._inner, self._plan = inner, plan
        if hasattr(inner, "copy"):
            self.copy = self._copy

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def execute(self, sql: str, *values: Any) -> None:
        self._plan.run(_statement(sql), lambda: self._inner.execute(sql, *values), _lost_statement)

    def executemany(self, sql: str, rows: Any) -> None:
        self._plan.run(_statement(sql), lambda: self._inner.executemany(sql, rows), _lost_statement)

    @contextmanager
    def _copy(self, sql: str) -> Iterator[Any]:
        with self._inner.copy(sql) as stream:
            yield stream
            self._plan.run("sql.COPY-close", lambda: None, _lost_statement)
        self._plan.run(_statement(sql), lambda: None, _lost_statement)


def _statement(sql: str) -> str:
    """``INSERT notes__early``: what a statement does, and to which table."""
    named = [word for word in sql.replace('"', " ").split() if word.startswith("notes")]
    return f"sql.{sql.split(maxsplit=1)[0]} {named[0] if named else ''}".strip()


def _lost_statement() -> Any:
    raise sqlite3.OperationalError("the reply was lost")
