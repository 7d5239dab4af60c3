"""Lists of objects: by prefix and folder, between two names, by pattern, page by page."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from airflow_provider_geminibatch.emulator.buckets import StoredObject
from airflow_provider_geminibatch.emulator.storage_wire import storage_refused

_LARGEST_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Page:
    """One page: objects, the folders that stand for what lies below them, and the token of the next page."""

    objects: tuple[StoredObject, ...]
    prefixes: tuple[str, ...]
    token: str = ""


def page(objects: Iterable[StoredObject], query: Mapping[str, str]) -> Page:
    """The page that a call asks for, of objects that are in order and have its prefix."""
    size = query.get("maxResults", "")
    largest = min(int(size), _LARGEST_PAGE) if size.isdigit() and int(size) else _LARGEST_PAGE
    after = _read(query["pageToken"]) if query.get("pageToken") else ""
    found: list[tuple[str, StoredObject | None]] = []
    for each in _grouped(_chosen(objects, query), query):
        if each[0] <= after:
            continue
        if len(found) == largest:
            return _page(found, _token(found[-1][0]))
        found.append(each)
    return _page(found, "")


def _page(found: list[tuple[str, StoredObject | None]], token: str) -> Page:
    objects = tuple(stored for _, stored in found if stored is not None)
    return Page(objects, tuple(name for name, stored in found if stored is None), token)


def _chosen(objects: Iterable[StoredObject], query: Mapping[str, str]) -> Iterator[StoredObject]:
    start, end, glob = query.get("startOffset", ""), query.get("endOffset", ""), query.get("matchGlob", "")
    pattern = re.compile(pattern_of(glob), re.DOTALL) if glob else None
    for stored in objects:
        between = stored.name >= start and (not end or stored.name < end)
        if between and (pattern is None or pattern.fullmatch(stored.name)):
            yield stored


def _grouped(objects: Iterable[StoredObject], query: Mapping[str, str]) -> Iterator[tuple[str, StoredObject | None]]:
    """Names in order, each with its object, or without one where it stands for all that begin with it."""
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    with_folder = query.get("includeTrailingDelimiter", "") == "true"
    last = ""
    for stored in objects:
        at = stored.name.find(delimiter, len(prefix)) if delimiter else -1
        if at < 0:
            yield stored.name, stored
            continue
        folder = stored.name[: at + len(delimiter)]
        if folder != last:
            last = folder
            yield folder, None
        if with_folder and stored.name == folder:
            yield stored.name, stored


def pattern_of(glob: str) -> str:
    """A glob as a regular expression: `**` spans folders, `*` and `?` do not; `[a-z]`, `[!a-z]` and `{a,b}` too."""
    found, depth = [], 0
    for sign in re.findall(r"\*\*/|\*\*|\[!?\]?[^\]]*\]|\\.|.", glob, re.DOTALL):
        if sign in _GLOB:
            found.append(_GLOB[sign])
        elif len(sign) > 1 and sign[0] == "[":
            inside = sign[1:-1].replace("\\", r"\\")
            found.append("[" + ("^/" + inside[1:] if inside.startswith("!") else inside) + "]")
        elif sign == "{":
            depth += 1
            found.append("(?:")
        elif depth and sign in ",}":
            found.append("|" if sign == "," else ")")
            depth -= sign == "}"
        else:
            found.append(re.escape(sign[-1]))
    if depth:
        raise storage_refused("invalid", reason=f"Invalid glob pattern: {glob}")
    return "".join(found)


_GLOB = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def _token(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode()


def _read(token: str) -> str:
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except ValueError:
        raise storage_refused("invalid", reason="Invalid value for pageToken.") from None


__all__ = ["Page", "page", "pattern_of"]
