"""Prompt caches: what many requests begin with, kept for a while and named by each of them.

That a cache can be used in a batch is documented, and that rows fail with code 7 once it has expired is reported; so is the
smallest size, as measured. A file of more than one prefix, and texts beyond those, are assumed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from airflow_provider_geminibatch.emulator.answers import read_prompt
from airflow_provider_geminibatch.emulator.billing import CacheCharge
from airflow_provider_geminibatch.emulator.catalog import find_model
from airflow_provider_geminibatch.emulator.clock import timestamp
from airflow_provider_geminibatch.emulator.names import Names, next_page
from airflow_provider_geminibatch.emulator.parsing import check_body, field
from airflow_provider_geminibatch.emulator.wire import Call, Dropped, Json, Refused, Reply, refused

_PATH = "/(?P<version>v1|v1beta|v1alpha)/cachedContents"
CACHE_ENDPOINTS = (
    ("caches.create", "POST", _PATH),
    ("caches.list", "GET", _PATH),
    ("caches.get", "GET", f"{_PATH}/(?P<id>[^/:]+)"),
    ("caches.update", "PATCH", f"{_PATH}/(?P<id>[^/:]+)"),
    ("caches.delete", "DELETE", f"{_PATH}/(?P<id>[^/:]+)"),
)
MIN_TOKENS = 1_024
DEFAULT_LIFE = timedelta(hours=1)
_TTL = re.compile(r"(\d+(?:\.\d+)?)s")
_OWN = ("displayName", "expireTime", "ttl", "name")


@dataclass(frozen=True, slots=True)
class Cache:
    """One cache of a project; `prefix` is what requests that name it begin with."""

    id: str
    number: int
    project: str
    model: str
    display_name: str
    prefix: Json
    tokens: int
    created: datetime
    expires: datetime
    deleted: datetime | None = None

    @property
    def name(self) -> str:
        """The resource name."""
        return f"cachedContents/{self.id}"

    def lives(self, now: datetime) -> bool:
        """Whether it is there."""
        return now < self.expires and (self.deleted is None or now < self.deleted)

    def hours(self, now: datetime) -> float:
        """How long it was kept, until now."""
        end = min(now, self.expires, self.deleted or now)
        return max((end - self.created) / timedelta(hours=1), 0.0)

    def resource(self) -> Json:
        """The cache as the wire shows it, without its contents."""
        return {
            "name": self.name,
            "model": f"models/{self.model}",
            **({"displayName": self.display_name} if self.display_name else {}),
            "createTime": timestamp(self.created),
            "updateTime": timestamp(self.created),
            "expireTime": timestamp(self.expires),
            "usageMetadata": {"totalTokenCount": self.tokens},
        }


@dataclass(frozen=True, slots=True)
class Merged:
    """A request as the model sees it, and how many of its tokens come from a cache."""

    request: Json
    cached_tokens: int = 0


Merge = Callable[[Json], Merged | None]
"""A request with the prefix of its cache; None where that is not there (any more)."""


def uncached(request: Json) -> Merged:
    """For requests that name no cache."""
    return Merged(request)


class Caches:
    """The caches of all projects, and the endpoints on them."""

    def __init__(self, names: Names, is_lost: Callable[[], bool]) -> None:
        self._names, self._is_lost = names, is_lost
        self._caches: dict[str, Cache] = {}

    def create(self, call: Call) -> Reply:
        """caches.create, as often as asked: it has no request id."""
        body = call.request.json()
        check_body({name: value for name, value in body.items() if name not in _OWN}, "GenerateContentRequest")
        name = str(field(body, "model", "")).removeprefix("models/")
        model = find_model(name, call.version)
        if model is None:
            raise refused("no_model", model=name, version=call.version, method="createCachedContent")
        prefix: Json = {
            each: body[each] for each in ("contents", "systemInstruction", "tools", "toolConfig") if each in body
        }
        tokens = read_prompt(prefix).tokens
        if tokens < MIN_TOKENS:
            why = f"Cached content is too small. total_token_count={tokens}, min_total_token_count={MIN_TOKENS}"
            raise Refused(400, "INVALID_ARGUMENT", why)
        cache = Cache(
            self._names.make("cache", 32), self._names.number(), call.project, model.name,
            str(field(body, "displayName", "")), prefix, tokens, call.now, call.now + _life(body, DEFAULT_LIFE),
        )  # fmt: skip
        self._caches[cache.id] = cache
        if self._is_lost():
            raise Dropped
        return Reply(body=cache.resource())

    def get(self, call: Call) -> Reply:
        """caches.get."""
        return Reply(body=self._found(call).resource())

    def list_(self, call: Call) -> Reply:
        """caches.list, newest first."""
        size, token = call.page(50)
        mine = [cache for cache in self._caches.values() if cache.project == call.project and cache.lives(call.now)]
        page, following = next_page([(-cache.number, cache) for cache in reversed(mine)], size, token)
        shown = {"cachedContents": [cache.resource() for cache in page]} if page else {}
        return Reply(body={**shown, **({"nextPageToken": following} if following else {})})

    def update(self, call: Call) -> Reply:
        """caches.patch: only how long it lives can be changed (documented)."""
        cache = self._found(call)
        body = call.request.json()
        cache = replace(cache, expires=call.now + _life(body, cache.expires - call.now))
        self._caches[cache.id] = cache
        return Reply(body=cache.resource())

    def delete(self, call: Call) -> Reply:
        """caches.delete."""
        cache = self._found(call)
        self._caches[cache.id] = replace(cache, deleted=call.now)
        return Reply(body={})

    def merge(self, project: str, now: datetime, request: Json) -> Merged | None:
        """A request of a project as the model sees it at that time."""
        name = field(request, "cachedContent", "")
        if not name:
            return Merged(request)
        cache = self._caches.get(str(name).removeprefix("cachedContents/"))
        if cache is None or cache.project != project or not cache.lives(now):
            return None
        rest = {each: value for each, value in request.items() if each not in ("cachedContent", "cached_content")}
        contents = [*cache.prefix.get("contents", ()), *field(request, "contents", ())]
        return Merged({**cache.prefix, **rest, "contents": contents}, cache.tokens)

    def charges(self, now: datetime) -> Iterator[CacheCharge]:
        """What keeping them has cost so far."""
        for cache in self._caches.values():
            yield CacheCharge(cache.model, cache.tokens, cache.hours(now))

    def _found(self, call: Call) -> Cache:
        cache = self._caches.get(call.params["id"])
        if cache is None or cache.project != call.project or not cache.lives(call.now):
            raise refused("no_cache")
        return cache


def _life(body: Mapping[str, object], otherwise: timedelta) -> timedelta:
    given = str(field(body, "ttl", ""))
    found = _TTL.fullmatch(given)
    if given and found is None:
        raise refused("bad_value", path="cached_content.ttl")
    return timedelta(seconds=float(found[1])) if found else otherwise


def cache_handlers(caches: Caches) -> Mapping[str, Callable[[Call], Reply]]:
    """What answers each endpoint."""
    return {
        "caches.create": caches.create,
        "caches.list": caches.list_,
        "caches.get": caches.get,
        "caches.update": caches.update,
        "caches.delete": caches.delete,
    }


__all__ = ["CACHE_ENDPOINTS", "MIN_TOKENS", "Cache", "Caches", "Merge", "Merged", "cache_handlers", "uncached"]
