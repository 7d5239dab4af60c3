"""Objects and buckets as the JSON API shows them, and the metadata that its requests carry."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import quote

from airflow_provider_geminibatch.emulator.buckets import Bucket, StoredObject
from airflow_provider_geminibatch.emulator.storage_wire import base64_text, storage_refused
from airflow_provider_geminibatch.emulator.wire import Json

# The texts of an object that a request may set, beside its contentType and its own metadata.
SETTINGS = ("cacheControl", "contentDisposition", "contentEncoding", "contentLanguage", "customTime", "storageClass")


class Metadata(NamedTuple):
    """What a request says of an object."""

    content_type: str = ""
    settings: Mapping[str, str] = {}
    metadata: Mapping[str, str] = {}

    @classmethod
    def of(cls, body: Json) -> Metadata:
        """The metadata in a body that describes an object whole."""
        return cls().patched(body)

    def patched(self, body: Json) -> Metadata:
        """With what a body names put in its place; a null takes away."""
        named = {key: body[key] for key in SETTINGS if key in body}
        own: Any = body.get("metadata", {})
        if not isinstance(own, dict | None):
            raise storage_refused("invalid", reason="Invalid value for metadata: it is a map of texts.")
        return Metadata(
            str(body.get("contentType", self.content_type) or ""),
            _merged(self.settings, named),
            {} if own is None else _merged(self.metadata, own),
        )


def metadata_of(stored: StoredObject) -> Metadata:
    """What was said of an object."""
    return Metadata(stored.content_type, stored.settings, stored.metadata)


def _merged(old: Mapping[str, str], new: Mapping[str, Any]) -> dict[str, str]:
    merged = {**old, **new}
    return {key: str(value) for key, value in merged.items() if value is not None}


def body_of(raw: bytes) -> Json:
    """A body as a JSON object. Raises the 400 of one that is none."""
    try:
        value = json.loads(raw or b"{}")
    except ValueError:
        raise storage_refused("invalid", reason="Parse Error") from None
    if not isinstance(value, dict):
        raise storage_refused("invalid", reason="Parse Error")
    return value


def etag(stored: StoredObject) -> str:
    """A text that changes with every writing of an object or its metadata."""
    return base64_text(f"{stored.generation}/{stored.metageneration}".encode())


def hashes(stored: StoredObject) -> dict[str, str]:
    """The checksums of an object by the names that headers give them."""
    return {"crc32c": stored.crc32c, **({"md5": stored.md5} if stored.md5 else {})}


def object_resource(stored: StoredObject, origin: str) -> Json:
    """An object as the JSON API shows it, with its links under `origin`."""
    path = f"storage/v1/b/{quote(stored.bucket, safe='')}/o/{quote(stored.name, safe='')}"
    made, changed = _time(stored.created), _time(stored.updated)
    return {
        "kind": "storage#object",
        "id": f"{stored.bucket}/{stored.name}/{stored.generation}",
        "selfLink": f"{origin}/{path}",
        "mediaLink": f"{origin}/download/{path}?generation={stored.generation}&alt=media",
        "name": stored.name,
        "bucket": stored.bucket,
        "generation": str(stored.generation),
        "metageneration": str(stored.metageneration),
        **({"contentType": stored.content_type} if stored.content_type else {}),
        "storageClass": "STANDARD",
        "size": str(stored.size),
        **({"md5Hash": stored.md5} if stored.md5 else {}),
        "crc32c": stored.crc32c,
        **({"componentCount": stored.components} if stored.components else {}),
        "etag": etag(stored),
        "timeCreated": made,
        "updated": changed,
        "timeStorageClassUpdated": made,
        "timeFinalized": made,
        **({"metadata": dict(stored.metadata)} if stored.metadata else {}),
        **stored.settings,
    }


def bucket_resource(bucket: Bucket, origin: str) -> Json:
    """A bucket as the JSON API shows it."""
    made = _time(bucket.created)
    return {
        "kind": "storage#bucket",
        "id": bucket.name,
        "selfLink": f"{origin}/storage/v1/b/{quote(bucket.name, safe='')}",
        "name": bucket.name,
        "projectNumber": "0",
        "metageneration": "1",
        "location": bucket.location,
        "locationType": "multi-region" if bucket.location in ("US", "EU", "ASIA") else "region",
        "storageClass": "STANDARD",
        "etag": base64_text(bucket.name.encode()),
        "timeCreated": made,
        "updated": made,
    }


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


__all__ = [
    "SETTINGS",
    "Metadata",
    "body_of",
    "bucket_resource",
    "etag",
    "hashes",
    "metadata_of",
    "object_resource",
]
