"""Prompt caches at Submit: what the requests of a batch have in common is at the service once while their jobs may need it.

``<generation>/caches/<service>/<model>/<digest>/0001.asked`` is written before a cache is made, ``0001.json`` after. A cache whose
making got no answer is found by its name. When one is gone the next number follows; one that would not outlive a job that is
created now is kept longer. The commit of the batch deletes it, and without one it ends by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import count

import msgspec

from airflow_provider_geminibatch.core.errors import ServiceBusy, ServiceError, Unusable
from airflow_provider_geminibatch.core.ledger import CacheAsked, CacheMade
from airflow_provider_geminibatch.core.model import Build, Shard
from airflow_provider_geminibatch.core.names import cache_name, generation_path, segment
from airflow_provider_geminibatch.core.prices import cache_storage
from airflow_provider_geminibatch.core.prompt_cache import LIFE, CacheUse, Prefix, prefix_of, storage_usd
from airflow_provider_geminibatch.gemini.gateway import Gateway
from airflow_provider_geminibatch.gemini.prompt_caches import PromptCache, PromptCaches
from airflow_provider_geminibatch.jobs.budget import Books
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.store import Store

BAD_PREFIX = 400

_FRESH = LIFE - timedelta(hours=1)
"""A cache with this life left is not renewed again for the next shard."""


class BatchCaches:
    """The prompt caches of one build at one service."""

    def __init__(
        self, store: Store, gateway: Gateway, build: Build, *, me: str, now: Callable[[], datetime], log: logging.Logger,
        books: Books | None = None,
    ) -> None:  # fmt: skip
        if not isinstance(gateway, PromptCaches):
            raise Unusable(
                f"cache=True at {gateway.identity}",
                "this route takes no prompt caches in a batch",
                "Leave it out: what requests begin with alike is cached there by itself.",
            )
        self._store, self._gateway, self._build, self._me, self._now, self._log = store, gateway, build, me, now, log
        self._books = books
        place = f"{segment(str(gateway.identity))}/{segment(build.model)}"
        self._folder = f"{generation_path(build.batch, build.generation)}/caches/{place}"
        self._standing: dict[str, tuple[CacheUse, PromptCache, datetime] | None] = {}

    def prefix(self, shard: Shard) -> Prefix | None:
        """What the first request of a shard says apart from its turns; None where there is nothing to share."""
        with self._store.open(shard.path) as lines:
            return prefix_of(lines.readline())

    def placed(self, prefix: Prefix) -> tuple[CacheUse, timedelta] | None:
        """The cache of a prefix and how long it will live, which is long enough for a job that is created now.

        None where the service does not cache it, or the budget does not bear it; that is said once. Raises ServiceError.
        """
        if prefix.digest in self._standing:
            seen = self._standing[prefix.digest]
            if seen is None:
                return None
            use, cache, looked_at = seen
            left = cache.life - (self._now() - looked_at)
            if left >= _FRESH:
                return use, left
        self._standing[prefix.digest] = found = self._brought(prefix)
        return None if found is None else (found[0], found[1].life)

    def _brought(self, prefix: Prefix) -> tuple[CacheUse, PromptCache, datetime] | None:
        for number in count(1):
            path = f"{self._folder}/{prefix.digest}/{number:04d}"
            made = fact_store.get(self._store, f"{path}.json", CacheMade) or self._made(prefix, number, path)
            if (
                made is None
                or not made.name
                or not self._affords(prefix, f"{number}.{_lives(self._now() - made.made_at)}")
            ):
                return None
            cache = self._kept(made)
            if cache is not None:
                return CacheUse(name=made.name, tokens=made.tokens, made_at=made.made_at), cache, self._now()
        raise AssertionError("count does not end")

    def _kept(self, made: CacheMade) -> PromptCache | None:
        """The cache as it is now, renewed where it would not outlive a job; None when it is gone."""
        assert isinstance(self._gateway, PromptCaches)
        cache = self._gateway.cache(made.name)
        if cache is None or cache.life >= _FRESH:
            return cache
        self._log.info("%s is kept for another %s", made.name, LIFE)
        return self._gateway.keep_cache(made.name, LIFE)

    def _made(self, prefix: Prefix, number: int, path: str) -> CacheMade | None:
        """Make a cache, or find the one that was made; the fact of it. None where the budget does not bear it."""
        assert isinstance(self._gateway, PromptCaches)
        if not self._affords(prefix, f"{number}.1"):
            return None
        name = cache_name(self._build.workspace_id, path)
        asked = CacheAsked(owner=self._me, at=self._now(), display_name=name)
        mine = self._store.create(f"{path}.asked", msgspec.json.encode(asked))
        # Who was here before may have made it without hearing so.
        standing = () if mine else self._gateway.caches_named(name)
        try:
            cache = standing[0] if standing else self._gateway.make_cache(
                self._build.model, prefix.fields(), display_name=name, life=LIFE
            )  # fmt: skip
        except ServiceBusy:
            raise
        except ServiceError as error:
            if error.code != BAD_PREFIX:
                raise
            self._log.info("no prompt cache is made, requests are sent whole: %s", error.text)
            return self._put(path, "", 0, error.text)
        made = self._put(path, cache.name, cache.tokens, "")
        if made.name == cache.name:
            self._log.info("%s holds %s tokens that the requests share", cache.name, f"{cache.tokens:,}")
        else:
            self._gateway.delete_file(cache.name)  # somebody else was first, and one is enough
        return made

    def _put(self, path: str, name: str, tokens: int, why: str) -> CacheMade:
        now = self._now()
        fact = CacheMade(owner=self._me, at=now, name=name, tokens=tokens, made_at=now, why=why)
        return fact_store.put(self._store, f"{path}.json", fact)

    def _affords(self, prefix: Prefix, which: str) -> bool:
        """Charge what one life of it costs at most; a limit that does not bear it, or an unknown price, means no cache."""
        if self._books is None or not self._books.limited:
            return True
        most = storage_usd(prefix.size_bytes, LIFE, cache_storage(self._build.model))
        if most is not None and self._books.charge(f"prompt cache {prefix.digest} {which}", most):
            return True
        why = "what it costs is not known" if most is None else f"up to {most:f} USD are beyond the budget"
        self._log.info("no prompt cache is made, requests are sent whole: %s", why)
        return False


def _lives(kept: timedelta) -> int:
    """How many whole lives a cache may cost that has been kept so long and, unless it is fresh, is renewed now."""
    return 1 if kept <= LIFE - _FRESH else -(-kept // LIFE) + 1


def storage_cost(uses: tuple[CacheUse, ...], model: str, now: datetime) -> Decimal | None:
    """What keeping these caches has cost until now, each once; None when no price is known."""
    total = Decimal(0)
    for use in {use.name: use for use in uses}.values():
        one = storage_usd(use.tokens, now - use.made_at, cache_storage(model))
        if one is None:
            return None
        total += one
    return total


__all__ = ["BatchCaches", "storage_cost"]
