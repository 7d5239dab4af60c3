"""The small versioned note that travels between tasks: where the seal is, and counts. Never answers, never keys.

Every stage takes it as a dict, its JSON text, the bare URI of a seal, or a sequence of those (a mapped upstream).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from airflow_provider_geminibatch.core.errors import BadManifest
from airflow_provider_geminibatch.core.names import in_workspace

VERSION = 1
_NO_SEAL = "its uri is not that of a seal (…/batches/…/builds/<id>.json)"


class Manifest(msgspec.Struct, frozen=True):
    """A pointer to the seal of a build. ``uri`` is absolute and begins with that of the workspace."""

    uri: str
    rows: int | None = None
    shards: int | None = None

    @property
    def workspace(self) -> str:
        return self._parts[0]

    @property
    def path(self) -> str:
        """The seal relative to the workspace."""
        return self._parts[1]

    @property
    def _parts(self) -> tuple[str, str]:
        parts = in_workspace(self.uri)
        if parts is None:
            raise BadManifest(_shown(self.uri), _NO_SEAL)
        return parts

    def as_dict(self, **more: Any) -> dict[str, Any]:
        """The XCom form; None values are left out."""
        fields = {"v": VERSION, "uri": self.uri, "rows": self.rows, "shards": self.shards, **more}
        return {name: value for name, value in fields.items() if value is not None}


def parse_manifests(given: object) -> tuple[Manifest, ...]:
    """All manifests in what a stage was handed, in order, without repeats. Raises BadManifest.

    None entries in a sequence (a skipped upstream) are left out. A seal that is named twice, once with its counts and once
    without, counts once.
    """
    found: dict[str, Manifest] = {}
    for manifest in _walk(given):
        if (known := found.get(manifest.uri)) is None or known.rows is None:
            found[manifest.uri] = manifest
    if not found:
        raise BadManifest(_shown(given), "it holds none")
    return tuple(found.values())


def _walk(given: object) -> Iterable[Manifest]:
    if isinstance(given, str):
        text = given.strip()
        yield from _walk(_json(text)) if text[:1] in ("{", "[") else (_manifest({"v": VERSION, "uri": text}),)
    elif isinstance(given, Mapping):
        yield _manifest(given)
    elif isinstance(given, Iterable) and not isinstance(given, bytes):
        for item in given:
            if item is not None:
                yield from _walk(item)
    else:
        raise BadManifest(_shown(given), f"a {type(given).__name__} cannot be one")


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise BadManifest(_shown(text), f"not valid JSON ({error})") from None


def _manifest(fields: Mapping[str, Any]) -> Manifest:
    version, uri = fields.get("v"), fields.get("uri")
    if version != VERSION:
        raise BadManifest(_shown(fields), f"version {version!r} where this release reads {VERSION}")
    if not isinstance(uri, str) or not in_workspace(uri) or "/builds/" not in uri or not uri.endswith(".json"):
        raise BadManifest(_shown(fields), _NO_SEAL)
    return Manifest(uri=uri, rows=fields.get("rows"), shards=fields.get("shards"))


def _shown(given: object) -> str:
    text = repr(dict(given)) if isinstance(given, Mapping) else repr(given)
    return text if len(text) <= 120 else text[:119] + "…"
