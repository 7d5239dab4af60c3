"""Prompt caches at the service: what many requests begin with, kept there for a while, so that each of them only names it.

A route that takes none in a batch has none of these methods: on Vertex AI such a job ends well and every row of it is a 404
(python-genai#509). The lifetime is all of a cache that can be changed; a create has no request id, so a repeat makes another.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol, runtime_checkable

import msgspec

from airflow_provider_geminibatch.core.errors import ServiceBusy, ServiceError
from airflow_provider_geminibatch.gemini.http import page_query
from airflow_provider_geminibatch.gemini.replies import Reply, count, members, moment
from airflow_provider_geminibatch.gemini.wire import service_error


class PromptCache(msgspec.Struct, frozen=True, kw_only=True):
    """A cache at the service. ``name`` is ``cachedContents/…``; times are the service's own."""

    name: str
    display_name: str = ""
    tokens: int = 0
    created_at: datetime | None = None
    expires_at: datetime | None = None
    seen_at: datetime | None = None
    """The service's ``Date`` of the reply that showed it."""

    @property
    def life(self) -> timedelta:
        """How long it will still be there; none where the service did not say."""
        return self.expires_at - self.seen_at if self.expires_at and self.seen_at else timedelta(0)


@runtime_checkable
class PromptCaches(Protocol):
    """What a gateway has whose route takes prompt caches in a batch. All calls raise ``core.errors``, as those of a gateway do."""

    def make_cache(self, model: str, prefix: Mapping[str, Any], *, display_name: str, life: timedelta) -> PromptCache:
        """Make a cache of fields of a request: ``systemInstruction``, ``tools``, ``toolConfig``.

        Raises ServiceError with code 400 for a prefix that the service does not cache, such as a short one, and ServiceBusy
        when it is not known whether it was made.
        """
        ...

    def cache(self, name: str) -> PromptCache | None:
        """The cache, or None when it is gone."""
        ...

    def caches_named(self, display_name: str) -> tuple[PromptCache, ...]:
        """Every cache of that name, all pages of the list looked through, oldest first."""
        ...

    def keep_cache(self, name: str, life: timedelta) -> PromptCache | None:
        """Let it live so long from now; None when it is gone."""
        ...


class CacheCalls:
    """``PromptCaches`` over the REST resource ``cachedContents``, for a gateway that sends."""

    @abstractmethod
    def _send(self, method: str, path: str, doing: str, **more: Any) -> Reply: ...

    @abstractmethod
    def _call(
        self, method: str, path: str, doing: str, *, absent: tuple[int, ...] = (), json: object = None
    ) -> Reply | None: ...

    def make_cache(self, model: str, prefix: Mapping[str, Any], *, display_name: str, life: timedelta) -> PromptCache:
        body = {"model": f"models/{model}", "displayName": display_name, "ttl": _ttl(life), **prefix}
        reply = self._call("POST", "/cachedContents", f"prompt cache {display_name}", json=body)
        made = _cache(reply)
        if not made.name:
            raise ServiceBusy(f"prompt cache {display_name}", 200, "a reply that names no cache")
        return made

    def cache(self, name: str) -> PromptCache | None:
        reply = self._call("GET", f"/{name}", f"look at {name}", absent=(403, 404))
        return None if reply is None else _cache(reply)

    def caches_named(self, display_name: str) -> tuple[PromptCache, ...]:
        doing, found, token = "list of prompt caches", list[PromptCache](), ""
        while True:
            reply = self._send("GET", "/cachedContents", doing, params=page_query(token))
            body = reply.json()
            listed = None if body is None else body.get("cachedContents", [])
            if reply.status != 200:
                raise service_error(doing, reply)
            if body is None or not isinstance(listed, list):
                raise ServiceBusy(doing, reply.status, "a reply that is not a page")
            every = [_shown(each, reply) for each in listed if isinstance(each, dict)]
            found += [cache for cache in every if cache.display_name == display_name]
            following = str(body.get("nextPageToken") or "")
            if not following or following == token:
                return tuple(sorted(found, key=_age))
            token = following

    def keep_cache(self, name: str, life: timedelta) -> PromptCache | None:
        reply = self._call("PATCH", f"/{name}", f"keeping {name}", absent=(403, 404), json={"ttl": _ttl(life)})
        return None if reply is None else _cache(reply)


def _ttl(life: timedelta) -> str:
    return f"{life.total_seconds():.0f}s"


def _cache(reply: Reply | None) -> PromptCache:
    body = reply.json() if reply else None
    if reply is None or body is None:
        raise ServiceError("prompt cache", 200, "a reply that is not JSON")
    return _shown(body, reply)


def _shown(body: Mapping[str, Any], reply: Reply) -> PromptCache:
    return PromptCache(
        name=str(body.get("name") or ""),
        display_name=str(body.get("displayName") or ""),
        tokens=count(members(body.get("usageMetadata")).get("totalTokenCount")),
        created_at=moment(body.get("createTime")),
        expires_at=moment(body.get("expireTime")),
        seen_at=reply.date,
    )


def _age(cache: PromptCache) -> tuple[float, str]:
    return (cache.created_at.timestamp() if cache.created_at else float("inf"), cache.name)


__all__ = ["CacheCalls", "PromptCache", "PromptCaches"]
