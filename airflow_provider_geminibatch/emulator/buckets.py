"""Buckets and their objects: written whole, each writing with a generation of its own."""

from __future__ import annotations

import hashlib
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import google_crc32c

from airflow_provider_geminibatch.emulator.blobs import Blob
from airflow_provider_geminibatch.emulator.clock import Clock
from airflow_provider_geminibatch.emulator.storage_wire import Conditions, base64_text, storage_refused

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ObjectBlob(Blob):
    """Bytes that also know the two checksums of Cloud Storage as they are appended."""

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__(folder)
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._crc32c = 0

    @property
    def md5(self) -> str:
        """The MD5 of what was appended so far, in base64."""
        return base64_text(self._md5.digest())

    @property
    def crc32c(self) -> str:
        """The CRC32C of what was appended so far, big-endian, in base64."""
        return base64_text(self._crc32c.to_bytes(4, "big"))

    def append(self, data: bytes) -> None:
        """Write at the end."""
        super().append(data)
        self._md5.update(data)
        self._crc32c = google_crc32c.extend(self._crc32c, data)


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object as it stands. `settings` are its texts such as contentEncoding, `metadata` what users gave it.

    An object that was composed has no `md5`.
    """

    bucket: str
    name: str
    generation: int
    blob: Blob
    crc32c: str
    created: datetime
    updated: datetime
    content_type: str = ""
    md5: str = ""
    metageneration: int = 1
    components: int = 0
    settings: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return self.blob.size

    @property
    def uri(self) -> str:
        """Its gs:// address."""
        return f"gs://{self.bucket}/{self.name}"


@dataclass(frozen=True, slots=True)
class Bucket:
    """One bucket."""

    name: str
    created: datetime
    location: str = "US"


class _Shelf:
    """The objects of one bucket, with their names in order for listing."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self.objects: dict[str, StoredObject] = {}
        self.names: list[str] = []

    def put(self, stored: StoredObject) -> None:
        if stored.name not in self.objects:
            insort(self.names, stored.name)
        self.objects[stored.name] = stored

    def take(self, name: str) -> None:
        del self.objects[name]
        del self.names[bisect_left(self.names, name)]


class Buckets:
    """The buckets of an emulator. Without `names` every bucket exists that somebody names.

    Nothing is versioned: an object that is written over or deleted is gone, its old generation with it.
    """

    def __init__(self, names: Iterable[str] | None, clock: Clock, folder: Path | None) -> None:
        self._clock, self._folder, self._any = clock, folder, names is None
        self._shelves = {name: _Shelf(Bucket(name, clock.now())) for name in names or ()}
        self._generation = 0

    def __iter__(self) -> Iterator[Bucket]:
        return iter([shelf.bucket for _, shelf in sorted(self._shelves.items())])

    def new_blob(self) -> ObjectBlob:
        """An empty blob for an object to come, which goes to disk where the emulator keeps big ones there."""
        return ObjectBlob(self._folder)

    def bucket(self, name: str) -> Bucket:
        """A bucket. Raises the 404 of one that is not there."""
        return self._shelf(name).bucket

    def create(self, name: str, location: str = "US") -> Bucket:
        """Make a bucket. Raises the 409 of one that is there."""
        if name in self._shelves:
            raise storage_refused("bucket_exists")
        self._shelves[name] = _Shelf(Bucket(name, self._clock.now(), location))
        return self._shelves[name].bucket

    def remove(self, name: str) -> None:
        """Delete a bucket. Raises the 409 of one that holds objects."""
        if self._shelf(name).objects:
            raise storage_refused("bucket_full")
        del self._shelves[name]

    def get(self, bucket: str, name: str, generation: int | None = None) -> StoredObject | None:
        """The object as it stands; None where there is none, or its generation is another one."""
        shelf = self._shelves.get(bucket)
        found = shelf.objects.get(name) if shelf else None
        return None if found is None or generation not in (None, found.generation) else found

    def put(
        self,
        bucket: str,
        name: str,
        blob: Blob,
        *,
        content_type: str = "",
        if_generation_match: int | None = None,
        conditions: Conditions | None = None,
        settings: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        components: int = 0,
    ) -> StoredObject:
        """Write an object whole. Raises the 412 of a condition that does not hold, then nothing is written.

        The blob belongs to the object from here on: nothing may be appended to it.
        """
        shelf = self._shelf(bucket)
        (conditions or Conditions(generation=if_generation_match)).check(shelf.objects.get(name))
        summed = blob if isinstance(blob, ObjectBlob) else _summed(blob)
        now = self._clock.now()
        stored = StoredObject(
            bucket,
            name,
            self._next_generation(now),
            blob,
            summed.crc32c,
            now,
            now,
            content_type=content_type,
            md5="" if components else summed.md5,
            components=components,
            settings=dict(settings or {}),
            metadata=dict(metadata or {}),
        )
        shelf.put(stored)
        return stored

    def change(
        self, stored: StoredObject, content_type: str, settings: Mapping[str, str], metadata: Mapping[str, str]
    ) -> StoredObject:
        """Write the metadata of an object anew; its bytes and generation stay."""
        changed = replace(
            stored,
            content_type=content_type,
            settings=dict(settings),
            metadata=dict(metadata),
            metageneration=stored.metageneration + 1,
            updated=self._clock.now(),
        )
        self._shelf(stored.bucket).put(changed)
        return changed

    def list(self, bucket: str, prefix: str = "") -> list[StoredObject]:
        """The objects whose names begin with `prefix`, in the order of names as UTF-8 sorts them.

        Raises the 404 of a bucket that is not there.
        """
        shelf = self._shelf(bucket)
        found = []
        # Code points sort as their UTF-8 does.
        for name in shelf.names[bisect_left(shelf.names, prefix) :]:
            if not name.startswith(prefix):
                break
            found.append(shelf.objects[name])
        return found

    def delete(self, bucket: str, name: str) -> bool:
        """Delete an object; whether there was one."""
        if self.get(bucket, name) is None:
            return False
        self._shelves[bucket].take(name)
        return True

    def _shelf(self, name: str) -> _Shelf:
        if self._any and name not in self._shelves:
            self._shelves[name] = _Shelf(Bucket(name, self._clock.now()))
        shelf = self._shelves.get(name)
        if shelf is None:
            raise storage_refused("no_bucket")
        return shelf

    def _next_generation(self, now: datetime) -> int:
        # Google's are microseconds of the time of writing too; a clock that stands still goes on counting.
        self._generation = max(self._generation + 1, (now - _EPOCH) // timedelta(microseconds=1))
        return self._generation


class _Sums:
    """The checksums of a blob that was made elsewhere."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        md5, crc32c = hashlib.md5(usedforsecurity=False), 0
        for block in blocks:
            md5.update(block)
            crc32c = google_crc32c.extend(crc32c, block)
        self.md5, self.crc32c = base64_text(md5.digest()), base64_text(crc32c.to_bytes(4, "big"))


def _summed(blob: Blob) -> _Sums:
    return _Sums(blob.blocks())


__all__ = ["Bucket", "Buckets", "ObjectBlob", "StoredObject"]
