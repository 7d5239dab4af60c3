"""Objects of Cloud Storage once they are there: read, listed, changed, copied, composed and deleted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_geminibatch.emulator.buckets import Buckets, StoredObject
from airflow_provider_geminibatch.emulator.ranges import byte_range, is_range
from airflow_provider_geminibatch.emulator.storage_lists import page
from airflow_provider_geminibatch.emulator.storage_resources import (
    Metadata,
    body_of,
    etag,
    hashes,
    metadata_of,
    object_resource,
)
from airflow_provider_geminibatch.emulator.storage_wire import Conditions, StorageRefused, number, storage_refused
from airflow_provider_geminibatch.emulator.switches import Scenarios
from airflow_provider_geminibatch.emulator.wire import Call, Json, Reply

_MOST_SOURCES = 32


class Objects:
    """The endpoints on objects that are there."""

    def __init__(self, buckets: Buckets, scenarios: Scenarios) -> None:
        self._buckets, self._scenarios = buckets, scenarios

    def get(self, call: Call) -> Reply:
        """storage.get: the metadata of an object."""
        return self._shown(call, self._read(call))

    def download(self, call: Call) -> Reply:
        """storage.download, whole or by one Range. What refuses it is told as plain text."""
        try:
            return self._download(call, self._read(call))
        except StorageRefused as refusal:
            return refusal.plain_reply

    def list_(self, call: Call) -> Reply:
        """storage.list: objects in the order of their names, a thousand to a page unless fewer are asked for."""
        query = call.request.query
        found = page(self._buckets.list(call.params["bucket"], query.get("prefix", "")), query)
        items = [object_resource(stored, call.request.origin) for stored in found.objects]
        return Reply(
            body={
                "kind": "storage#objects",
                **({"nextPageToken": found.token} if found.token else {}),
                **({"prefixes": list(found.prefixes)} if found.prefixes else {}),
                **({"items": items} if items else {}),
            }
        )

    def delete(self, call: Call) -> Reply:
        """storage.delete."""
        stored = self._found(call)
        Conditions.of(call.request.query).check(stored)
        self._buckets.delete(stored.bucket, stored.name)
        return Reply(204, stream=iter(()), length=None)

    def patch(self, call: Call) -> Reply:
        """storage.patch: change what the body names of the metadata."""
        return self._changed(call, metadata_of)

    def update(self, call: Call) -> Reply:
        """storage.update: write the metadata anew."""
        return self._changed(call, lambda stored: Metadata())

    def copy(self, call: Call) -> Reply:
        """storage.copy."""
        return self._shown(call, self._copied(call, call.params["to_bucket"]))

    def rewrite(self, call: Call) -> Reply:
        """storage.rewrite, which is done in one call; Google's may want several for what is big."""
        stored = self._copied(call, call.params["to_bucket"])
        size = str(stored.size)
        body = {"kind": "storage#rewriteResponse", "totalBytesRewritten": size, "objectSize": size, "done": True}
        return Reply(body={**body, "resource": object_resource(stored, call.request.origin)})

    def move(self, call: Call) -> Reply:
        """storage.move: another name in the same bucket."""
        source = self._source(call)
        stored = self._copied(call, source.bucket)
        if source.name != stored.name:
            self._buckets.delete(source.bucket, source.name)
        return self._shown(call, stored)

    def compose(self, call: Call) -> Reply:
        """storage.compose: up to 32 objects of a bucket, one behind the other."""
        bucket, body = call.params["bucket"], body_of(call.request.body)
        wanted = body.get("sourceObjects") or []
        if not wanted:
            raise storage_refused("required", name="sourceObjects")
        if not isinstance(wanted, list) or not all(isinstance(each, dict) for each in wanted):
            raise storage_refused("invalid", reason="Invalid value for sourceObjects.")
        if len(wanted) > _MOST_SOURCES:
            raise storage_refused("too_many_sources", count=len(wanted))
        sources = [self._component(bucket, each) for each in wanted]
        said = Metadata.of(body.get("destination") or {})
        conditions = Conditions.of(call.request.query)
        conditions.check(self._buckets.get(bucket, call.params["object"]))  # before the bytes are copied
        blob = self._buckets.new_blob()
        for source in sources:
            for block in source.blob.blocks():
                blob.append(block)
        stored = self._buckets.put(
            bucket,
            call.params["object"],
            blob,
            content_type=said.content_type,
            conditions=conditions,
            settings=said.settings,
            metadata=said.metadata,
            components=sum(source.components or 1 for source in sources),
        )
        if body.get("deleteSourceObjects"):
            for name in {source.name for source in sources} - {stored.name}:
                self._buckets.delete(bucket, name)
        return self._shown(call, stored)

    def _component(self, bucket: str, wanted: Json) -> StoredObject:
        name = str(wanted.get("name", ""))
        stored = self._buckets.get(bucket, name, number(wanted, "generation"))
        if stored is None:
            raise storage_refused("no_object", bucket=bucket, name=name)
        conditions = wanted.get("objectPreconditions") or {}
        Conditions(generation=number(conditions, "ifGenerationMatch")).check(stored)
        return stored

    def _copied(self, call: Call, to_bucket: str) -> StoredObject:
        source = self._source(call)
        said = metadata_of(source)
        if call.request.body:
            said = said.patched(body_of(call.request.body))
        return self._buckets.put(
            to_bucket,
            call.params["to_object"],
            source.blob,
            content_type=said.content_type,
            conditions=Conditions.of(call.request.query),
            settings=said.settings,
            metadata=said.metadata,
            components=source.components,
        )

    def _source(self, call: Call) -> StoredObject:
        source = self._found(call, "sourceGeneration")
        Conditions.of(call.request.query, "ifSource").check(source)
        return source

    def _changed(self, call: Call, before: Any) -> Reply:
        stored = self._found(call)
        Conditions.of(call.request.query).check(stored)
        said: Metadata = before(stored).patched(body_of(call.request.body))
        return self._shown(call, self._buckets.change(stored, said.content_type, said.settings, said.metadata))

    def _download(self, call: Call, stored: StoredObject) -> Reply:
        wanted = call.request.headers.get("range", "")
        if wanted and self._scenarios.happens("download_without_ranges"):
            wanted = ""
        span = byte_range(wanted, stored.size)
        if span is None:
            refusal = storage_refused("bad_range")
            refusal.headers["content-range"] = f"bytes */{stored.size}"
            raise refusal
        start, end = span
        cut = self._scenarios.happens("cut_download")
        sent = start + int((end - start) * cut["at"]) if cut else end
        partly = {"content-range": f"bytes {start}-{end - 1}/{stored.size}"} if is_range(wanted) else {}
        return Reply(
            status=206 if partly else 200,
            headers={**_described(stored), **partly},
            stream=stored.blob.blocks(start, sent),
            length=None if self._scenarios.happens("download_without_length") else end - start,
            cut=cut is not None,
        )

    def _read(self, call: Call) -> StoredObject:
        stored = self._found(call)
        Conditions.of(call.request.query).check(stored, reading=True)
        return stored

    def _found(self, call: Call, parameter: str = "generation") -> StoredObject:
        bucket, name = call.params["bucket"], call.params["object"]
        self._buckets.bucket(bucket)
        stored = self._buckets.get(bucket, name, number(call.request.query, parameter))
        if stored is None:
            raise storage_refused("no_object", bucket=bucket, name=name)
        return stored

    @staticmethod
    def _shown(call: Call, stored: StoredObject) -> Reply:
        return Reply(body=object_resource(stored, call.request.origin), headers={"etag": etag(stored)})


def _described(stored: StoredObject) -> Mapping[str, str]:
    """The headers of a download."""
    named = {"contentEncoding": "content-encoding", "cacheControl": "cache-control"}
    return {
        "content-type": stored.content_type or "application/octet-stream",
        **{header: stored.settings[name] for name, header in named.items() if name in stored.settings},
        "accept-ranges": "bytes",
        "etag": etag(stored),
        "x-goog-generation": str(stored.generation),
        "x-goog-metageneration": str(stored.metageneration),
        "x-goog-hash": ",".join(f"{name}={value}" for name, value in hashes(stored).items()),
        "x-goog-storage-class": stored.settings.get("storageClass", "STANDARD"),
        "x-goog-stored-content-encoding": stored.settings.get("contentEncoding", "identity"),
        "x-goog-stored-content-length": str(stored.size),
    }


__all__ = ["Objects"]
