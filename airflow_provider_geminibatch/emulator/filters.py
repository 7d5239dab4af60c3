"""The `filter` of a list of Vertex AI jobs: its grammar, read into a function of a job's fields.

    display_name="nightly" AND (state!="JOB_STATE_FAILED" OR labels.run:*) AND create_time>"2026-11-01T00:00:00Z"

Fields and operators are documented. That OR binds closer than AND, that a blank means AND and `-` means NOT is Google's
general grammar of filters (AIP-160); that it holds here is assumed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from airflow_provider_geminibatch.emulator.wire import Refused

Fields = Mapping[str, Any]
Predicate = Callable[[Fields], bool]

_TOKEN = re.compile(
    r"""\s*(?:(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<op><=|>=|!=|[=<>:])|(?P<mark>[()])|(?P<word>[^\s()=<>!:"']+))"""
)
# field: the operators that it takes
_OPERATORS: Mapping[str, tuple[str, ...]] = {
    "display_name": ("=", "!=", ":"),
    "model_display_name": ("=", "!="),
    "state": ("=", "!="),
    "create_time": ("=", "!=", "<", "<=", ">", ">="),
    "labels": ("=", "!=", ":"),
}
_COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": lambda have, asked: bool(have == asked),
    "!=": lambda have, asked: bool(have != asked),
    "<": lambda have, asked: bool(have < asked),
    "<=": lambda have, asked: bool(have <= asked),
    ">": lambda have, asked: bool(have > asked),
    ">=": lambda have, asked: bool(have >= asked),
    ":": lambda have, asked: fnmatchcase(str(have), str(asked)),
}


def read_filter(text: str) -> Predicate:
    """The predicate that a filter says. Raises the 400 of a filter that cannot be read."""
    if not text.strip():
        return lambda fields: True
    reader = _Reader(_tokens(text))
    predicate = reader.conjunction()
    if reader.at < len(reader.tokens):
        raise _bad(f"unexpected {reader.tokens[reader.at][1]!r}")
    return predicate


def _tokens(text: str) -> list[tuple[str, str]]:
    found, at = [], 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise _bad(f"unexpected {text[at:].strip()[:1]!r}")
        kind, value = match.lastgroup, match[match.lastgroup]
        found.append((kind, re.sub(r"\\(.)", r"\1", value[1:-1]) if kind == "text" else value))
        at = match.end()
    return found


class _Reader:
    """Reads tokens into predicates, by recursive descent."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self.tokens, self.at = tokens, 0

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "the end")

    def take(self, *kinds: str) -> str:
        kind, value = self.peek()
        if kind not in kinds:
            raise _bad(f"unexpected {value!r}")
        self.at += 1
        return value

    def conjunction(self) -> Predicate:
        parts = [self.disjunction()]
        while self.peek()[0] != "end" and self.peek() != ("mark", ")"):
            if self.peek() == ("word", "AND"):
                self.at += 1
            parts.append(self.disjunction())
        return lambda fields: all(part(fields) for part in parts)

    def disjunction(self) -> Predicate:
        parts = [self.negation()]
        while self.peek() == ("word", "OR"):
            self.at += 1
            parts.append(self.negation())
        return lambda fields: any(part(fields) for part in parts)

    def negation(self) -> Predicate:
        kind, value = self.peek()
        if (kind, value) == ("word", "NOT"):
            self.at += 1
            inner = self.negation()
            return lambda fields: not inner(fields)
        if kind == "word" and value.startswith("-") and len(value) > 1:
            self.tokens[self.at] = (kind, value[1:])
            negated = self.comparison()
            return lambda fields: not negated(fields)
        if (kind, value) == ("mark", "("):
            self.at += 1
            grouped = self.conjunction()
            self.take("mark")  # the closing one: a conjunction ends at nothing else
            return grouped
        return self.comparison()

    def comparison(self) -> Predicate:
        path = self.take("word")
        name, _, key = path.partition(".")
        if name not in _OPERATORS or (name == "labels") != bool(key):
            raise _bad(f"{path!r} is no field that can be filtered by")
        op, asked = self.take("op"), self.take("text", "word")
        if op not in _OPERATORS[name]:
            raise _bad(f"{path} does not take {op!r}")
        compare = _COMPARE[op]
        if name == "labels":
            return lambda fields: key in fields["labels"] and compare(fields["labels"][key], asked)
        if name == "create_time":
            moment = _moment(asked)
            return lambda fields: compare(fields["create_time"], moment)
        return lambda fields: compare(fields[name], asked)


def _moment(text: str) -> datetime:
    try:
        # Nanoseconds are cut to the microseconds that a datetime holds.
        moment = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
    except ValueError:
        raise _bad(f"{text!r} is not an RFC 3339 time") from None
    if moment.tzinfo is None:
        raise _bad(f"{text!r} is not an RFC 3339 time")
    return moment


def _bad(why: str) -> Refused:
    return Refused(400, "INVALID_ARGUMENT", f"Invalid filter: {why}.")  # its wording is assumed


__all__ = ["Fields", "Predicate", "read_filter"]
