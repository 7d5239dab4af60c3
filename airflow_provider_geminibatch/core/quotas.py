"""How much of a batch the service takes at once, by the tier of a project: dated data, and what follows for its shards.

From the rate-limit page of 2026-08-18; limits of 3.8 Flash are not on it, those of 3.7 Flash are `assumed` for it. That only
prompts count, not what answers may take, is `assumed` too. Read the live page before relying on it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from airflow_provider_geminibatch.core.prices import of_model

AS_OF = date(2026, 8, 18)

JOBS_AT_ONCE = 100
"""Batch jobs that a project may have open."""

STORAGE_BYTES = 20_000_000_000
"""What all uploaded files of a project may hold."""

_M, _B = 1_000_000, 1_000_000_000
_FLASH = (3 * _M, 400 * _M, _B)
_LITE = (10 * _M, 500 * _M, _B)
_PRO = (5 * _M, 500 * _M, _B)

ENQUEUED_TOKENS: dict[str, tuple[int, ...]] = {
    "gemini-3.8-flash": _FLASH,
    "gemini-3.7-flash": _FLASH,
    "gemini-3.6-flash": _FLASH,
    "gemini-3.5-flash": _FLASH,
    "gemini-3.5-flash-lite": _LITE,
    "gemini-3.1-flash-lite": _LITE,
    "gemini-3.1-pro": _PRO,
    "gemini-2.5-pro": _PRO,
    "gemini-2.5-flash": _FLASH,
    "gemini-2.5-flash-lite": _LITE,
    "gemini-embedding-2": (500_000, 5 * _M, 10 * _M),
}
"""Tokens that all open jobs of a model may hold together, at Tier 1, 2 and 3."""


def enqueued_tokens(model: str) -> tuple[int, ...]:
    """The limits of a model by tier, from the first on; none for a model that the page does not have."""
    return of_model(ENQUEUED_TOKENS, model) or ()


def waves(shard_tokens: Iterable[int], limit: int) -> int | None:
    """In how many waves shards of so many tokens are taken, one after the other; None when one of them never is."""
    count, tokens, jobs = 0, 0, 0
    for shard in shard_tokens:
        if shard > limit:
            return None
        if not count or tokens + shard > limit or jobs == JOBS_AT_ONCE:
            count, tokens, jobs = count + 1, 0, 0
        tokens, jobs = tokens + shard, jobs + 1
    return count


__all__ = ["AS_OF", "ENQUEUED_TOKENS", "JOBS_AT_ONCE", "STORAGE_BYTES", "enqueued_tokens", "waves"]
