"""Digests that are made beside whatever else is done with the data."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self


class Digest:
    """SHA-256 in a thread of its own, one piece behind: hashlib lets go of the interpreter."""

    def __init__(self) -> None:
        self._hash, self._thread = hashlib.sha256(), ThreadPoolExecutor(1, "geminibatch-digest")
        self._last: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()

    def update(self, data: bytes) -> None:
        """Take some more, once what came before is done with."""
        self._wait()
        self._last = self._thread.submit(self._hash.update, data)

    def hexdigest(self) -> str:
        """That of all that was given."""
        self._wait()
        return self._hash.hexdigest()

    def _wait(self) -> None:
        if self._last is not None:
            self._last.result()
            self._last = None


__all__ = ["Digest"]
