"""From a create body to the rows of a job, or to the refusal that names every bad line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from airflow_provider_geminibatch.emulator.answers import read_prompt
from airflow_provider_geminibatch.emulator.blobs import Blob
from airflow_provider_geminibatch.emulator.jobs import Effects, Kind, Rows
from airflow_provider_geminibatch.emulator.parsing import conforms, explain_line, field
from airflow_provider_geminibatch.emulator.scenarios import Params
from airflow_provider_geminibatch.emulator.wire import Json, refused

SHARD_ROWS = 1000
_LINE: dict[Kind, str] = {"generate": "GenerateLine", "embed": "EmbedLine"}
_REQUEST: dict[Kind, str] = {"generate": "GenerateContentRequest", "embed": "EmbedContentRequest"}
_MOST_ERRORS = 100  # assumed; a message has to end somewhere

# What belongs into a cache where there is one (a 400 that users reported).
_IN_CACHE = ("systemInstruction", "tools", "toolConfig")

Chooser = Callable[[int, str, str], dict[str, Params]]


def read_file(blob: Blob, kind: Kind, choose: Chooser) -> Rows:
    """The rows of an input file. Raises the 400 with one message for each bad line, up to a hundred."""
    return _rows(blob, _checked(blob, kind), choose)


def read_inline(requests: Iterable[Json], choose: Chooser, folder: Path | None) -> Rows:
    """The rows of inline requests, whose types were checked with the body."""
    blob = Blob(folder)
    for request in requests:
        blob.append(json.dumps(request, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
    return _rows(blob, ((start, text, json.loads(text)) for start, text in _texts(blob)), choose)


def parts_of(line: Json) -> tuple[str, Json]:
    """The key and the request of a line. A line that is a bare request has no key (as in the guide's curl sample)."""
    if "request" not in line:
        return "", line
    metadata = line.get("metadata")
    key = line.get("key") or (metadata.get("key") if isinstance(metadata, dict) else None)
    return str(key or ""), line["request"] or {}


def _texts(blob: Blob) -> Iterator[tuple[int, str]]:
    for start, line in blob.lines():
        yield start, line.decode("utf-8", "replace")


def _checked(blob: Blob, kind: Kind) -> Iterator[tuple[int, str, Json]]:
    errors: list[str] = []
    for number, (start, text) in enumerate(_texts(blob), 1):
        if not text.strip():
            continue
        line = _decoded(text)
        bare = isinstance(line, dict) and "request" not in line
        shape = _REQUEST[kind] if bare else _LINE[kind]
        if isinstance(line, dict) and conforms(line, shape):
            if not errors:
                yield start, text, line
            continue
        errors.append(explain_line(number, text.rstrip("\r"), shape))
        if len(errors) == _MOST_ERRORS:
            break
    if errors:
        raise refused("bad_line", reason="\n".join(errors))


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _rows(blob: Blob, lines: Iterable[tuple[int, str, Json]], choose: Chooser) -> Rows:
    count, tokens = 0, 0
    starts: list[int] = []
    effects: dict[int, Effects] = {}
    for start, text, line in lines:
        key, request = parts_of(line)
        if count % SHARD_ROWS == 0:
            starts.append(start)
        chosen = choose(count, key, text)
        if chosen:
            effects[count] = chosen
        if field(request, "cachedContent") and any(field(request, name) for name in _IN_CACHE):
            raise refused("beside_cache")
        tokens += read_prompt(request).tokens
        count += 1
    if not count:
        raise refused("no_rows")
    return Rows(blob, count, tokens, tuple(starts), effects)


__all__ = ["SHARD_ROWS", "parts_of", "read_file", "read_inline"]
