"""How deep JSON may be nested that a model wrote: a decoder that gets through it is no promise that the next one does."""

from __future__ import annotations

import re

DEEPEST = 200
"""Decoders and encoders end at about a thousand levels, less what the program is nested itself when they are called."""

# A string that does not end goes to the end of the text, so that no text is looked through twice.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
_STEPS = {"[": 1, "{": 1, "]": -1, "}": -1}


def too_deep(text: str, most: int = DEEPEST) -> bool:
    """Whether a text has more brackets open at once, outside of strings, than ``most``."""
    if text.count("[") + text.count("{") <= most:
        return False
    depth = 0
    for token in _TOKEN.finditer(text):
        depth += _STEPS.get(token[0], 0)
        if depth > most:
            return True
    return False


__all__ = ["DEEPEST", "too_deep"]
