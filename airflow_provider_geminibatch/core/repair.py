"""A lenient look at an answer that should be JSON and is not quite: only what cannot change its meaning, and always on record.

Taken away are a code fence, words around a document, and commas before a closing bracket; added is the one bracket that
closes a document which ends without it. The answer of a model that was cut off is never mended: a text that ends inside a
string, behind a comma, or with more than one bracket open, stays what it is, and so does one with two documents.
"""

from __future__ import annotations

import re
from typing import NamedTuple

LONGEST = 1 << 20
"""Longer texts are left alone."""

_FENCE = re.compile(r"\A\s*```[A-Za-z0-9_-]*[ \t]*\n(.*?)\n?[ \t]*```\s*\Z", re.DOTALL)
# A string that does not end goes to the end of the text, so that no text is looked through twice.
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|[\[\]{},]', re.DOTALL)
_IN_A_MEMBER = re.compile(r'"\s*[:,]?\s*\Z')
_CLOSES = {"{": "}", "[": "]"}
_CLOSING = re.compile(r"[\]}]")


_NUMBERS = frozenset("0123456789.+-eE")


class Repaired(NamedTuple):
    """A text that may be JSON now, and what was done to it."""

    text: str
    what: str


class _Document(NamedTuple):
    text: str
    done: list[str]
    end: int


def repaired(text: str) -> Repaired | None:
    """The document in ``text``, if it can be told which one is meant; None if not, or if there is nothing to repair."""
    if len(text) > LONGEST:
        return None
    start = min((at for at in (text.find("{"), text.find("[")) if at >= 0), default=-1)
    if start < 0:
        fenced = _FENCE.match(text)
        return Repaired(fenced[1].strip(), "code fence") if fenced and fenced[1].strip() else None
    found = _document(text, start)
    if found is None:
        return None
    before, after = text[:start], text[found.end :]
    if "{" in after or "[" in after or after.count("```") > 1:
        return None  # which of them is meant?
    around = [] if not (before + after).strip() else ["code fence"] if "```" in before else ["words around it"]
    if _IN_A_MEMBER.search(before) or after.strip().startswith(",") or _CLOSING.search(before):
        return None  # it looks like a piece of a larger document
    if before.strip() and _CLOSING.search(after):
        return None  # and so does this, where alone it may be a bracket too many
    done = [*around, *found.done]
    return Repaired(found.text, ", ".join(dict.fromkeys(done))) if done else None


def _document(text: str, start: int) -> _Document | None:
    """The document that begins at ``start``, without commas that nothing follows, and closed if one bracket lacks."""
    open_, pieces, done, kept, comma = list[str](), list[str](), list[str](), start, -1
    for token in _TOKEN.finditer(text, start):
        word = token[0]
        if word[0] == '"':
            if len(word) < 2 or not _closed(word):
                return None
            comma = -1
        elif word == ",":
            comma = token.start()
        elif word in _CLOSES:
            open_.append(_CLOSES[word])
            comma = -1
        else:
            if not open_ or open_.pop() != word:
                return None
            if comma >= 0 and not text[comma + 1 : token.start()].strip():
                pieces.append(text[kept:comma])
                kept = comma + 1
                done.append("trailing comma")
            comma = -1
            if not open_:
                return _Document("".join((*pieces, text[kept : token.end()])), done, token.end())
    if len(open_) != 1 or text[-1] in _NUMBERS or not text[start + 1 :].strip():
        return None  # of a number there may have been more, and of nothing anything
    end = len(text.rstrip())
    if comma >= 0 and comma == end - 1:
        return None  # something was to follow
    return _Document("".join((*pieces, text[kept:end], open_[0])), [*done, "closing bracket"], len(text))


def _closed(word: str) -> bool:
    """Whether a string ends with its own quote, not with an escaped one."""
    body = word[1:-1]
    return word[-1] == '"' and (len(body) - len(body.rstrip("\\"))) % 2 == 0


__all__ = ["LONGEST", "Repaired", "repaired"]
