"""Where a job of Vertex AI reads its requests and writes its results: one small class for each scheme of URIs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Protocol

from airflow_provider_geminibatch.emulator.blobs import Blob
from airflow_provider_geminibatch.emulator.buckets import Buckets, StoredObject
from airflow_provider_geminibatch.emulator.jobs import Effects
from airflow_provider_geminibatch.emulator.vertex_shape import Unimportable
from airflow_provider_geminibatch.emulator.wire import Json, Refused


class Source(Protocol):
    """Where requests come from."""

    def read(self) -> Blob:
        """All requests as JSON lines. Raises Unimportable where they cannot be read."""


class Destination(Protocol):
    """Where results go."""

    def check(self) -> None:
        """Raise Unimportable where nothing can be written."""

    def blob(self) -> Blob:
        """An empty blob for the lines to come."""

    def write(self, lines: Blob, folder: str, traits: Effects) -> Json:
        """Keep result lines, in a folder of that name where there are folders; `outputInfo` to say where."""

    def write_early(self, lines: Blob, folder: str) -> Json:
        """Keep the lines that are there while the job runs."""


class Objects:
    """Requests in objects of Cloud Storage, in the order of the URIs; `*` in one stands for several (reported).

    That several objects are together as large as one may be is assumed.
    """

    def __init__(self, buckets: Buckets, uris: Sequence[str], limit: int) -> None:
        self._buckets, self._uris, self._limit = buckets, uris, limit

    def read(self) -> Blob:
        """Every line of every object. The wording of what is wrong with them is assumed."""
        found = [stored for uri in self._uris for stored in self._found(uri)]
        size = sum(stored.size for stored in found)
        if size > self._limit:
            raise Unimportable(
                f"The input of {size} bytes is larger than {self._limit} bytes, the most that a job takes."
            )
        if len(found) == 1:
            return found[0].blob
        joined = self._buckets.new_blob()
        for stored in found:
            for block in stored.blob.blocks():
                joined.append(block)
            joined.append(b"\n")
        return joined

    def _found(self, uri: str) -> list[StoredObject]:
        bucket, name = split_uri(uri)
        _check_bucket(self._buckets, bucket)
        one = self._buckets.get(bucket, name)
        many = self._buckets.list(bucket, name.partition("*")[0]) if "*" in name else []
        found = [one] if one else [stored for stored in many if fnmatchcase(stored.name, name)]
        if not found:
            raise Unimportable(f"Failed to import data. Not found: URI {uri}", code=5)
        return found


class Folder:
    """Results in a new folder of Cloud Storage under a prefix."""

    def __init__(self, buckets: Buckets, prefix: str) -> None:
        self._buckets, self._prefix = buckets, prefix.rstrip("/")

    def check(self) -> None:
        """Raise Unimportable for a bucket that is not there."""
        _check_bucket(self._buckets, split_uri(self._prefix)[0])

    def blob(self) -> Blob:
        """An empty blob that reckons its checksums as it grows."""
        return self._buckets.new_blob()

    def write(self, lines: Blob, folder: str, traits: Effects) -> Json:
        """predictions.jsonl, in several pieces where a scenario says so, with what else lies there beside it."""
        shards = int(traits.get("sharded_output", {}).get("shards", 1))
        if shards > 1:
            for number, piece in enumerate(self._pieces(lines, shards)):
                self._put(folder, f"predictions.jsonl-{number:05d}-of-{shards:05d}", piece)
        else:
            self._put(folder, "predictions.jsonl", lines)
        if "output_decoys" in traits:
            self._put(folder, "predictions.jsonl.metadata", self._text(b'{"format":"jsonl"}'))
            self._put(folder, "row_count.json", self._text(b'{"row_count":-1}\n'))
        return self._info(folder)

    def write_early(self, lines: Blob, folder: str) -> Json:
        """incremental_predictions.jsonl, which stays when the job has ended."""
        self._put(folder, "incremental_predictions.jsonl", lines)
        return self._info(folder)

    def _pieces(self, lines: Blob, shards: int) -> list[Blob]:
        pieces = [self.blob() for _ in range(shards)]
        for start, line in lines.lines():
            pieces[min(start * shards // max(lines.size, 1), shards - 1)].append(line + b"\n")
        return pieces

    def _text(self, content: bytes) -> Blob:
        blob = self.blob()
        blob.append(content)
        return blob

    def _put(self, folder: str, name: str, blob: Blob) -> None:
        bucket, prefix = split_uri(self._prefix)
        path = "/".join(filter(None, (prefix, folder, name)))
        self._buckets.put(bucket, path, blob, content_type="application/octet-stream")

    def _info(self, folder: str) -> Json:
        return {"gcsOutputDirectory": f"{self._prefix}/{folder}"}


class Places:
    """The makers of sources and destinations by the scheme of their URIs; another kind is one more entry of each."""

    def __init__(self, buckets: Buckets, input_bytes: int) -> None:
        self.sources: dict[str, Callable[[Sequence[str]], Source]] = {
            "gs": lambda uris: Objects(buckets, uris, input_bytes)
        }
        self.destinations: dict[str, Callable[[str], Destination]] = {"gs": lambda uri: Folder(buckets, uri)}


def _check_bucket(buckets: Buckets, name: str) -> None:
    """Raise what was seen of a bucket that is not there, for input and output alike."""
    try:
        buckets.bucket(name)
    except Refused as refusal:
        why = "Please check that the bucket exists and permissions are set correctly."
        raise Unimportable(f"Failed to get GCS bucket location for {name}. {why}", code=9) from refusal


def scheme_of(uri: str) -> str:
    """What stands before `://`."""
    return uri.partition("://")[0]


def split_uri(uri: str) -> tuple[str, str]:
    """The bucket and the name in a gs:// URI."""
    bucket, _, name = uri.partition("://")[2].partition("/")
    return bucket, name


__all__ = ["Destination", "Folder", "Objects", "Places", "Source", "scheme_of", "split_uri"]
