"""The order in which a template says things, as far as it decides what the service can cache by itself: equal beginnings only."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Final

from airflow_provider_geminibatch.core.errors import Problem

SHARED_TOKENS: Final = 4_096
"""The shortest beginning that is cached by itself, for models of the 3 family (caching guide, 2026; 1,024 for some of the 2.5)."""

_CHARACTERS_PER_TOKEN = 4
"""A rule of thumb of the token guide, for English."""


def late_text(texts: Sequence[str]) -> int:
    """How many fixed characters of templates stand behind the first column, in the order in which they are said."""
    late, begun = 0, False
    for text in texts:
        at = 0
        for match in string.Template.pattern.finditer(text):
            late += (match.start() - at) * begun
            begun = begun or bool(match["named"] or match["braced"])
            at = match.end()
        late += (len(text) - at) * begun
    return late


def order_doubt(system_instruction: str | None, prompt: str, *, media: bool) -> Problem | None:
    """What to say of a template whose fixed text cannot be cached for standing behind what varies; None for any other."""
    varying = "$medium" if media else ""  # the media of a row stand before its text
    tokens = late_text([system_instruction or "", varying, prompt]) // _CHARACTERS_PER_TOKEN
    if tokens <= SHARED_TOKENS:
        return None
    return Problem(
        "the prompt",
        f"has about {tokens:,} tokens of fixed text behind what differs from row to row, so that none of them can be cached",
        "put fixed text into system_instruction, or before the first $column",
    )


__all__ = ["SHARED_TOKENS", "late_text", "order_doubt"]
