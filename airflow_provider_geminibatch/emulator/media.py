"""The media that a request names by URI: whether the service can read them when it comes to the row."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from airflow_provider_geminibatch.emulator.parsing import field
from airflow_provider_geminibatch.emulator.wire import REFUSALS, Json

_FILE = re.compile(r"(?:https?://[^/]+/v1(?:alpha|beta)?/)?files/([^/:?#]+)")
_WEB = re.compile(r"https?://")

# google.rpc codes of a row: 7 is reported for files that are gone; 9 for files that are not ready, in interactive calls.
_CODES = {"no_file": 7, "inactive_file": 9, "bad_argument": 3}

Look = Callable[[str], str]
"""What is wrong with the file of an id at the time: ``no_file``, ``inactive_file``, or nothing."""


def unreadable(request: Mapping[str, Any], look: Look) -> tuple[str, str] | None:
    """The first of its media that cannot be read: the refusal and the file's id.

    Files of the Files API have to be there. Web addresses are taken as they are; that everything else is refused as an invalid
    argument is assumed.
    """
    for uri in uris(request):
        found = _FILE.fullmatch(uri)
        fault = look(found[1]) if found else "" if _WEB.match(uri) else "bad_argument"
        if fault:
            return fault, found[1] if found else ""
    return None


def row_error(fault: tuple[str, str]) -> Json:
    """The error of a row whose media cannot be read."""
    name, file = fault
    return {"error": {"code": _CODES[name], "message": REFUSALS[name].message.format(file=file)}}


def uris(request: Mapping[str, Any]) -> Iterator[str]:
    """The URIs of its media."""
    contents = field(request, "contents", ())
    for content in filter(None, contents if isinstance(contents, list | tuple) else ()):
        for part in filter(None, content.get("parts") or ()):
            data = field(part, "fileData")
            if data:
                yield str(field(data, "fileUri", ""))


__all__ = ["Look", "row_error", "unreadable", "uris"]
