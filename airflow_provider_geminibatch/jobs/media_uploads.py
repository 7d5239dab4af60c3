"""Media at Submit: each content is at the service once while it lives, whoever needs it, and a job never points at a dead one.

What was uploaded is a fact of the workspace, by service and content: ``media/<service>/<sha256>/0001.json``. Of two uploads of
one content the first fact stands and the other file is deleted; when a file is gone or does not live long enough, the next number
follows. A fact is believed only when the service shows its file.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from typing import BinaryIO, TypeVar, cast

import msgspec

from airflow_provider_geminibatch.core.errors import MediaChanged, MediaRefused, SourceUnreadable, StoreUnreadable
from airflow_provider_geminibatch.core.ledger import MediaUploaded
from airflow_provider_geminibatch.core.model import Shard
from airflow_provider_geminibatch.core.names import media_name, segment
from airflow_provider_geminibatch.core.steps import Policy, Wait
from airflow_provider_geminibatch.gemini.gateway import Gateway, UploadedFile
from airflow_provider_geminibatch.jobs.media import Medium, read_list
from airflow_provider_geminibatch.jobs.media_reader import FirstAlone
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.files import Files, reading
from airflow_provider_geminibatch.storage.store import Store

A = TypeVar("A")
B = TypeVar("B")

LOOK_AGAIN = timedelta(seconds=40)
"""How often a file is looked at that the service is still working on; videos take from seconds to minutes."""

TOO_LONG = timedelta(hours=2)
"""When a file that is still being worked on is given up."""

FRESH = timedelta(minutes=10)
"""A file uploaded so recently is taken however short its life is: another upload would not live longer."""

_NOT_THERE = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)


class Placed(msgspec.Struct, frozen=True):
    """Where contents (``sha256:…``) are at the service: file names, URIs, and for how long all of them will be there."""

    names: dict[str, str] = {}
    uris: dict[str, str] = {}
    life_seconds: float | None = None


class _Standing(msgspec.Struct, frozen=True):
    """A content as the service has it now."""

    fact: MediaUploaded
    file: UploadedFile
    looked_at: datetime

    def life(self, now: datetime) -> timedelta | None:
        """What is left of its life; the time since it was looked at is told by our clock."""
        return None if self.file.life is None else self.file.life - (now - self.looked_at)


class MediaUploads:
    """Brings media to one service; what was seen of it stays with this process."""

    def __init__(
        self,
        store: Store,
        gateway: Gateway,
        files: Files,
        *,
        workspace_id: str,
        me: str,
        now: Callable[[], datetime],
        log: logging.Logger,
        policy: Policy,
    ) -> None:
        self._store, self._gateway, self._files = store, gateway, FirstAlone(files)
        self._workspace_id, self._me, self._now, self._log, self._policy = workspace_id, me, now, log, policy
        self._folder = f"media/{segment(str(gateway.identity))}"
        self._seen: dict[str, _Standing] = {}
        self._lists: dict[str, dict[str, Medium]] = {}
        self._given: set[str] = set()

    def placed(self, shard: Shard, contents: Iterable[str]) -> Placed | Wait:
        """The contents at the service, uploaded where they were not; or until when to wait for those it still works on.

        Raises MediaChanged and MediaRefused, which say what to do about a medium, and ServiceError, StoreError.
        """
        wanted = tuple(dict.fromkeys(contents))
        if not wanted:
            return Placed()
        listed = self._listed(shard)
        lacking = [content for content in wanted if content not in listed]
        if lacking:
            raise StoreUnreadable(f"{self._store.uri}/{shard.media_path}", f"it does not list {lacking[0]}")
        todo = [content for content in wanted if not self._usable(self._seen.get(content))]
        bring = partial(self._bring, shard)
        for content, standing in zip(todo, self._each(bring, [listed[content] for content in todo]), strict=True):
            self._seen[content] = standing
        working = [content for content in wanted if self._seen[content].file.state == "PROCESSING"]
        if working:
            why = f"the service is working on {len(working)} of {len(wanted)} media"
            return Wait(self._now() + LOOK_AGAIN, why)
        return self._summed({content: self._seen[content] for content in wanted})

    def size_bytes(self, shards: Iterable[Shard]) -> int:
        """How large the media are that these shards list, each content counted once."""
        media = {content: medium for shard in shards for content, medium in self._listed(shard).items()}
        return sum(medium.size_bytes for medium in media.values())

    def check_given(self, names: Iterable[str]) -> None:
        """Look at files of the service that the user's own requests name. Raises MediaRefused for one that is not there.

        One that expires before the deadline is refused as well; without a deadline, a short life is warned of.
        """
        ours = {standing.fact.file_name for standing in self._seen.values()}
        names = sorted(set(names) - ours - self._given)
        soon = self._policy.media_life(self._now())
        for name, file in zip(names, self._each(self._gateway.file, names), strict=True):
            if file is None:
                why = "it is not there: it has expired or was deleted, or is another project's"
                raise MediaRefused(name, f"{why}. Files live for 48 hours")
            if file.state == "FAILED":
                raise MediaRefused(name, file.error_text or "it gives no reason")
            left = file.life
            if left is not None and left < soon:
                ends = f"{self._now() + left:%Y-%m-%d %H:%M %Z}"
                if self._policy.deadline is not None:
                    raise MediaRefused(
                        name, f"it expires at {ends}, and the answers may come after that; upload it again"
                    )
                self._log.warning("%s expires at %s: rows that name it fail if their job takes longer", name, ends)
        self._given.update(names)

    def _each(self, act: Callable[[A], B], items: Sequence[A]) -> list[B]:
        """In order, a few at a time; the first error ends it."""
        if len(items) < 2 or self._policy.media_threads < 2:
            return [act(item) for item in items]
        with ThreadPoolExecutor(self._policy.media_threads, thread_name_prefix="geminibatch-media") as pool:
            futures = [pool.submit(act, item) for item in items]
            try:
                return [future.result() for future in futures]
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _listed(self, shard: Shard) -> dict[str, Medium]:
        if shard.media_path not in self._lists:
            self._lists[shard.media_path] = read_list(self._store, shard)
        return self._lists[shard.media_path]

    def _usable(self, standing: _Standing | None) -> bool:
        return standing is not None and standing.file.state != "PROCESSING" and self._lives(standing)

    def _lives(self, standing: _Standing) -> bool:
        """Whether it is there long enough for a job that is created now."""
        life = standing.life(self._now())
        fresh = self._now() - standing.fact.at < FRESH
        return life is None or fresh or life >= self._policy.media_life(self._now())

    def _bring(self, shard: Shard, medium: Medium) -> _Standing:
        number, fact = self._last(medium)
        if fact is not None:
            file = self._gateway.file(fact.file_name)
            if file is not None and file.state == "FAILED":
                if fact.owner == self._me:
                    raise MediaRefused(self._where(shard, medium), file.error_text or "it gives no reason")
            elif file is not None and self._lives(standing := _Standing(fact, file, self._now())):
                if file.state != "PROCESSING" or self._now() - fact.at < TOO_LONG:
                    return standing
                if fact.owner == self._me:
                    raise MediaRefused(self._where(shard, medium), f"it has been working on it for {TOO_LONG}")
        return self._uploaded(shard, medium, number + 1)

    def _last(self, medium: Medium) -> tuple[int, MediaUploaded | None]:
        """The newest fact of a content. Numbers have no gaps, so their end is found in a few reads, however many there are."""

        def read(number: int) -> MediaUploaded | None:
            return fact_store.get(self._store, self._path(medium, number), MediaUploaded) if number else None

        step, fact = 1, read(1)
        if fact is None:
            return 0, None
        low, best = 1, fact
        while (found := read(low + step)) is not None:
            low, best, step = low + step, found, step * 2
        while step > 1:
            step //= 2
            if (found := read(low + step)) is not None:
                low, best = low + step, found
        return low, best

    def _path(self, medium: Medium, number: int) -> str:
        return f"{self._folder}/{medium.sha256}/{number:04d}.json"

    def _uploaded(self, shard: Shard, medium: Medium, number: int) -> _Standing:
        name = media_name(self._workspace_id, medium.sha256)
        with self._opened(shard, medium) as source:
            checked = _Checked(source, medium, self._where(shard, medium))
            sent = self._gateway.upload(
                cast(BinaryIO, checked), size_bytes=medium.size_bytes, display_name=name, mime_type=medium.mime_type
            )
        try:
            checked.confirm()
        except MediaChanged:
            self._gateway.delete_file(sent.name)
            raise
        mine = MediaUploaded(
            owner=self._me, at=self._now(), file_name=sent.name, uri=sent.uri or sent.name, size_bytes=medium.size_bytes,
            mime_type=medium.mime_type, expires_at=sent.expires_at,
        )  # fmt: skip
        fact = fact_store.put(self._store, self._path(medium, number), mine)
        if fact.file_name == sent.name:
            self._log.info("a medium of %s bytes is %s (%s)", f"{medium.size_bytes:,}", sent.name, medium.mime_type)
            return _Standing(fact, sent, self._now())
        self._gateway.delete_file(sent.name)  # somebody else was first, and one is enough
        return self._bring(shard, medium)

    def _opened(self, shard: Shard, medium: Medium) -> BinaryIO:
        kept = medium.kept_at(shard.media_path)
        if kept is not None:
            return self._store.open(kept)
        try:
            with reading(medium.uri):
                return self._files.open(medium.uri)
        except SourceUnreadable as error:
            raise _unreadable(error, self._where(shard, medium)) from error

    def _where(self, shard: Shard, medium: Medium) -> str:
        """How messages call a medium: by its place in the sealed list, which says where it came from."""
        listed = list(self._listed(shard))
        line = listed.index(f"sha256:{medium.sha256}") + 1
        return f"the {medium.mime_type} of line {line} in {self._store.uri}/{shard.media_path}"

    def _summed(self, standing: Mapping[str, _Standing]) -> Placed:
        lives = [life.total_seconds() for one in standing.values() if (life := one.life(self._now())) is not None]
        return Placed(
            {content: one.fact.file_name for content, one in standing.items()},
            {content: one.fact.uri for content, one in standing.items()},
            min(lives, default=None),
        )


def _unreadable(error: SourceUnreadable, where: str) -> MediaChanged | StoreUnreadable:
    cause = error.__cause__
    why = (cause.strerror or "").lower() if isinstance(cause, OSError) else ""
    if isinstance(cause, _NOT_THERE):
        return MediaChanged(where, why or "it is not there any more")
    return StoreUnreadable(where, why or type(cause or error).__name__)


class _Checked(io.RawIOBase):
    """A medium on its way out, held against the digest that was sealed."""

    def __init__(self, source: BinaryIO, medium: Medium, where: str) -> None:
        self._source, self._medium, self._where = source, medium, where
        self._hash, self._at = hashlib.sha256(), 0

    def read(self, size: int = -1, /) -> bytes:
        left = self._medium.size_bytes - self._at
        wanted = left if size < 0 else min(size, left)
        data = b""
        try:
            with reading(self._where):
                data = self._source.read(wanted)
        except SourceUnreadable as error:
            raise _unreadable(error, self._where) from error
        if wanted and not data:
            # An upload that gets nothing where more was promised would ask for ever.
            raise MediaChanged(self._where, "it is shorter than it was")
        self._at += len(data)
        self._hash.update(data)
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        if (offset, whence) == (0, io.SEEK_END):
            self._at = self._medium.size_bytes
        elif (offset, whence) == (0, io.SEEK_SET):
            self._source.seek(0)
            self._hash, self._at = hashlib.sha256(), 0
        else:
            raise io.UnsupportedOperation(f"seek({offset}, {whence})")
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def confirm(self) -> None:
        """Raises MediaChanged unless what was read is what was sealed."""
        if self._at != self._medium.size_bytes or self._hash.hexdigest() != self._medium.sha256:
            raise MediaChanged(self._where, "its content is another")


__all__ = ["MediaUploads", "Placed"]
