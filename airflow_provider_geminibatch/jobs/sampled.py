"""Lines of a sealed build, drawn for an estimate, and what they are like: counted by the service, or guessed by their size."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, BinaryIO, NamedTuple

import msgspec

from airflow_provider_geminibatch.core.answer_sizes import asked_like
from airflow_provider_geminibatch.core.cost_estimate import guessed, with_media
from airflow_provider_geminibatch.core.errors import KeyRefused, ModelUnknown, ServiceError
from airflow_provider_geminibatch.core.kinds import KINDS
from airflow_provider_geminibatch.core.media_uris import PLACEHOLDER
from airflow_provider_geminibatch.core.model import BatchId, Build
from airflow_provider_geminibatch.core.names import digest
from airflow_provider_geminibatch.core.sampling import Sample, Seen, places
from airflow_provider_geminibatch.gemini.gateway import Gateway, TokenCount
from airflow_provider_geminibatch.storage.store import Store

AT_ONCE = 8
"""How many requests are counted at a time."""

_STEP_BYTES = 1 << 16


class Drawn(NamedTuple):
    """One line: where it begins, its size, and its request."""

    at: tuple[int, int]
    size_bytes: int
    request: dict[str, Any]


class Looked(NamedTuple):
    """A sample as it was seen. ``counted`` lines of it the service counted; ``media`` parts were guessed."""

    sample: Sample
    counted: int
    media: int


class _Line(msgspec.Struct, frozen=True):
    request: dict[str, Any]


_decode_line = msgspec.json.Decoder(_Line).decode


def draw(store: Store, build: Build, wanted: int) -> tuple[list[list[Drawn]], bool]:
    """The sampled lines, zone by zone, and whether they are all there are. The same build gives the same lines."""
    if build.sample:
        with store.open(build.sample) as sample:
            kept = [Drawn((0, at), len(line), _decode_line(line).request) for at, line in enumerate(sample)]
        return [[line] for line in kept], len(kept) >= build.rows
    with ExitStack() as opened:
        if build.rows <= wanted:
            return [[line] for line in _all_lines(opened, store, build)], True
        streams: dict[int, BinaryIO] = {}
        zones = places([shard.size_bytes for shard in build.shards], wanted, digest(*(s.content for s in build.shards)))
        found: list[list[Drawn]] = []
        for zone in zones:
            lines = []
            for shard, at in zone:
                if shard not in streams:
                    streams[shard] = opened.enter_context(_in_small_steps(store.open(build.shards[shard].path)))
                start, line = line_at(streams[shard], at)
                lines.append(Drawn((shard, start), len(line), _decode_line(line).request))
            found.append(lines)
        return found, False


def _all_lines(opened: ExitStack, store: Store, build: Build) -> Iterator[Drawn]:
    for shard, sealed in enumerate(build.shards):
        start = 0
        for line in opened.enter_context(store.open(sealed.path)):
            yield Drawn((shard, start), len(line), _decode_line(line).request)
            start += len(line)


def _in_small_steps(stream: BinaryIO) -> BinaryIO:
    """fsspec reads far ahead, 50 MB on S3, which is for nothing where single lines are looked at."""
    cache = getattr(stream, "cache", None)
    if cache is not None and hasattr(cache, "blocksize"):
        cache.blocksize = _STEP_BYTES
    return stream


def line_at(stream: BinaryIO, at: int) -> tuple[int, bytes]:
    """The line that holds the byte ``at``: where it begins, and all of it."""
    start = at
    while start:
        begin = max(0, start - _STEP_BYTES)
        stream.seek(begin)
        end = stream.read(start - begin).rfind(b"\n")
        if end >= 0:
            start = begin + end + 1
            break
        start = begin
    stream.seek(start)
    return start, stream.readline()


def look(
    zones: Sequence[Sequence[Drawn]], whole: bool, build: Build, gateway: Gateway | None, log: logging.Logger
) -> Looked:
    """What the drawn lines are like. With a gateway the service counts them; a line that it cannot count is guessed, and so is
    every line of embeddings, which take no ``countTokens``.

    Raises KeyRefused and ModelUnknown, and the last ServiceError when more lines were refused than were counted.
    """
    kind = KINDS[build.kind]
    gateway = gateway if kind.counted else None
    lines = {line.at: line for zone in zones for line in zone}
    bare = {at: without_media(line.request, only_placeholders=gateway is not None) for at, line in lines.items()}
    counts = (
        {} if gateway is None else _counted(gateway, build.model, {at: request for at, (request, _) in bare.items()})
    )
    if len(counts) < len(lines) and gateway is not None:
        log.warning(
            "%d of %d requests could not be counted and are guessed by size", len(lines) - len(counts), len(lines)
        )

    def seen(line: Drawn) -> Seen:
        request, media = bare[line.at] if gateway is None else without_media(line.request)
        guess = guessed(request, line.size_bytes, media)
        guess = guess if kind.counted else guess._replace(output_cap=0)
        count = counts.get(line.at)
        if count is None:
            return guess
        # Parts that are not at the service yet are guessed even where the rest was counted.
        line_counted = guess._replace(prompt=count.total, cached=count.cached, least=count.total, most=count.total)
        return with_media(line_counted, bare[line.at][1])

    sample = Sample(build.rows, build.size_bytes, tuple(tuple(seen(line) for line in zone) for zone in zones), whole)
    return Looked(sample, len(counts), sum(len(media) for _, media in bare.values()))


def _counted(
    gateway: Gateway, model: str, requests: Mapping[tuple[int, int], dict[str, Any]]
) -> dict[tuple[int, int], TokenCount]:
    refused: list[ServiceError] = []

    def count(request: dict[str, Any]) -> TokenCount | None:
        try:
            return gateway.count_tokens(model, request)
        except (KeyRefused, ModelUnknown):
            raise
        except ServiceError as error:
            refused.append(error)
            return None

    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="count-tokens") as pool:
        found = dict(zip(requests, pool.map(count, requests.values()), strict=True))
    counts = {at: one for at, one in found.items() if one is not None}
    if len(refused) > len(counts):
        raise refused[-1]
    return counts


def without_media(request: dict[str, Any], *, only_placeholders: bool = False) -> tuple[dict[str, Any], list[str]]:
    """The request without its parts of media, and the MIME types of these."""
    contents = request.get("contents")
    if not isinstance(contents, list):
        return request, []
    gone: list[str] = []
    kept: list[Any] = []
    for content in contents:
        parts = content.get("parts") if isinstance(content, dict) else None
        if not isinstance(parts, list):
            kept.append(content)
            continue
        kinds = [_media_kind(part, only_placeholders) for part in parts]
        gone += [kind for kind in kinds if kind is not None]
        kept.append({**content, "parts": [part for part, kind in zip(parts, kinds, strict=True) if kind is None]})
    return ({**request, "contents": kept}, gone) if gone else (request, [])


def _media_kind(part: object, only_placeholders: bool) -> str | None:
    """The MIME type of a part of media, empty when it does not say; None for any other part."""
    if not isinstance(part, dict):
        return None
    file, data = (part.get(name) or part.get(other) for name, other in _MEDIA_FIELDS)
    if not isinstance(file, dict):
        return None if only_placeholders or not isinstance(data, dict) else _mime(data)
    uri = str(file.get("fileUri") or file.get("file_uri") or "")
    # What is uploaded only before its shard, the service cannot count yet.
    return None if only_placeholders and not uri.startswith(PLACEHOLDER) else _mime(file)


_MEDIA_FIELDS = (("fileData", "file_data"), ("inlineData", "inline_data"))


def _mime(data: dict[str, Any]) -> str:
    return str(data.get("mimeType") or data.get("mime_type") or "")


def asked_by(store: Store, build: Build) -> str:
    """What stands for what a build asks beside its contents, told from its first line."""
    with _in_small_steps(store.open(build.sample or build.shards[0].path)) as lines:
        return asked_like(_decode_line(lines.readline()).request)


def task_of(batch: BatchId) -> str:
    """The task that asks, over all its runs."""
    return f"{batch.dag_id}.{batch.task_id}"


__all__ = ["AT_ONCE", "Drawn", "Looked", "asked_by", "draw", "line_at", "look", "task_of", "without_media"]
