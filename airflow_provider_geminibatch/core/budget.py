"""What a request can cost at most, and whether a budget still bears it. Money is charged before it is spent.

An upper bound has to hold without asking the service: a token covers at least one byte of text, a request that brings
anything but text may fill the model's whole window, and an answer is bounded by what it was allowed to be long.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import msgspec

from airflow_provider_geminibatch.core.model import Usage
from airflow_provider_geminibatch.core.prices import Price, batch_cost

INPUT_TOKENS = 1_048_576
"""The largest window of the models in the price table (their model pages, copies of August to October 2026)."""

OUTPUT_TOKENS = 65_536
"""The longest answer of these models, thoughts included (same pages)."""

_TEXT_ONLY = frozenset({"text", "thought"})


def upper_usage(request: Mapping[str, Any], size_bytes: int) -> Usage:
    """The most tokens one request can use; ``size_bytes`` is the length of its JSON."""
    config = _object(request.get("generationConfig") or request.get("generation_config"))
    asked = _whole(config.get("maxOutputTokens") or config.get("max_output_tokens"))
    candidates = max(1, _whole(config.get("candidateCount") or config.get("candidate_count")))
    output = (min(asked, OUTPUT_TOKENS) if asked else OUTPUT_TOKENS) * candidates
    prompt = min(size_bytes, INPUT_TOKENS) if _is_text(request) else INPUT_TOKENS
    return Usage(prompt=prompt, candidates=output, total=prompt + output)


def upper_bound(request: Mapping[str, Any], size_bytes: int, price: Price, share: Decimal) -> Decimal:
    """The most that one request can cost in USD, at a share of the standard price."""
    return batch_cost(price, upper_usage(request, size_bytes), share)


def _is_text(request: Mapping[str, Any]) -> bool:
    """True when the prompt is what stands in the request: no media, no cache, no tool that brings more into it."""
    if any(request.get(name) for name in ("cachedContent", "cached_content", "tools")):
        return False
    system = request.get("systemInstruction") or request.get("system_instruction")
    contents = [*_list(request.get("contents")), *([system] if system else [])]
    parts = [part for content in contents for part in _parts(content)]
    return all(isinstance(part, str) or (isinstance(part, Mapping) and set(part) <= _TEXT_ONLY) for part in parts)


def _parts(content: object) -> list[Any]:
    return _list(_object(content).get("parts")) if isinstance(content, Mapping) else [content]


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _object(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _whole(value: object) -> int:
    try:
        return max(0, int(value))  # type: ignore[call-overload, no-any-return]
    except (TypeError, ValueError, OverflowError):
        return 0


class Account(msgspec.Struct, frozen=True):
    """A budget as far as it is used: what was spent, and what charges that are not settled yet may still cost."""

    limit_usd: Decimal | None = None
    spent_usd: Decimal = Decimal(0)
    open_usd: Decimal = Decimal(0)

    @property
    def charged_usd(self) -> Decimal:
        """What counts against the limit."""
        return self.spent_usd + self.open_usd

    def bears(self, upper_usd: Decimal) -> bool:
        """True when the limit holds even if the effect costs its upper bound."""
        return self.limit_usd is None or self.charged_usd + upper_usd <= self.limit_usd

    def __str__(self) -> str:
        limit = "" if self.limit_usd is None else f" of {self.limit_usd} USD"
        return f"{self.charged_usd:f}{limit or ' USD'} charged"


def account(limit_usd: Decimal | None, charges: Iterable[tuple[Decimal, Decimal | None]]) -> Account:
    """The account over charges, each with its upper bound and, once it is settled, what it really cost."""
    spent = opened = Decimal(0)
    for upper, real in charges:
        if real is None:
            opened += upper
        else:
            spent += real
    return Account(limit_usd, spent, opened)


__all__ = ["INPUT_TOKENS", "OUTPUT_TOKENS", "Account", "account", "upper_bound", "upper_usage"]
