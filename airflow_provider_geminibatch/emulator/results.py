"""The output of a job of the Developer API: one line for each row, as the service would write it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random

from airflow_provider_geminibatch.emulator.blobs import Blob
from airflow_provider_geminibatch.emulator.caches import Merge, Merged, uncached
from airflow_provider_geminibatch.emulator.effects import Row, bodies, label
from airflow_provider_geminibatch.emulator.intake import parts_of
from airflow_provider_geminibatch.emulator.jobs import Job
from airflow_provider_geminibatch.emulator.media import Look, row_error, unreadable
from airflow_provider_geminibatch.emulator.switches import draw_unit
from airflow_provider_geminibatch.emulator.wire import REFUSALS, Json

# A lone surrogate, which UTF-8 has no bytes for, is written as the escape that it came as: backslashreplace.
_LINE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
# Reported of rows whose cache has expired, billed 0; the text is that of calls.
_NO_CACHE: Json = {"error": {"code": 7, "message": REFUSALS["no_cache"].message}}


@dataclass(frozen=True, slots=True)
class Output:
    """A rendered output: its lines, and the tokens of the rows that were answered."""

    lines: Blob
    answered: int
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int = 0


def render(
    job: Job, seed: int, folder: Path | None, look: Look = lambda file_id: "", merge: Merge = uncached
) -> Output:
    """The whole output of a job, in the order of the service: the same bytes for the same seed and input.

    `look` says what is wrong with a file that a request names, when the job comes to it; `merge` puts the prefix of a cache
    before a request that names one.
    """
    return written(_ordered(job, seed, look, merge), Blob(folder))


def written(lines: Iterable[Json], blob: Blob) -> Output:
    """Those lines in an empty blob, and what they cost."""
    answered = prompt = output = cached = 0
    buffer: list[bytes] = []
    for line in lines:
        used = (line.get("response") or {}).get("usageMetadata")
        tokens = int((line.get("response") or {}).get("tokenCount", 0))
        if used or tokens:
            answered += 1
            prompt += used["promptTokenCount"] if used else tokens
            cached += used.get("cachedContentTokenCount", 0) if used else 0
            output += (used.get("candidatesTokenCount", 0) + used.get("thoughtsTokenCount", 0)) if used else 0
        buffer.append(_LINE(line).encode("utf-8", "backslashreplace"))
        if len(buffer) == 1000:
            blob.append(b"\n".join(buffer) + b"\n")
            buffer.clear()
    if buffer:
        blob.append(b"\n".join(buffer) + b"\n")
    return Output(blob, answered, prompt, output, cached)


def _ordered(job: Job, seed: int, look: Look, merge: Merge) -> Iterator[Json]:
    if "shuffled" not in job.traits:
        yield from _in_shards(job, seed, look, merge)
        return
    lines = list(_in_shards(job, seed, look, merge))
    Random(f"{seed}/{job.id}").shuffle(lines)
    yield from lines


def _in_shards(job: Job, seed: int, look: Look, merge: Merge) -> Iterator[Json]:
    """Shards of a thousand rows, each in order, themselves in the order that was measured once: 0, 3, 2, 1."""
    starts = job.rows.starts
    for shard in (0, *range(len(starts) - 1, 0, -1)):
        end = starts[shard + 1] if shard + 1 < len(starts) else None
        index = count(shard * 1000)
        for _, text in job.rows.lines.lines(starts[shard], end):
            if text.strip():
                yield from _lines_of(json.loads(text), next(index), job, seed, look, merge)


def _lines_of(line: Json, index: int, job: Job, seed: int, look: Look, merge: Merge) -> list[Json]:
    key, request = parts_of(line)
    effects = job.rows.effects.get(index, {})
    merged = merge(request)
    dead = unreadable(request, look)
    error = _NO_CACHE if merged is None else row_error(dead) if dead else None
    asked = merged or Merged(request)
    # Unknown fields come back, but their lists come back empty.
    beside = {name: [] if isinstance(value, list) else value for name, value in label(line, key, effects).items()}
    made = bodies(Row(index, asked.request, job, asked.cached_tokens), effects, error)
    # The order of a line's fields is not fixed.
    first = draw_unit(seed, job.ordinal, index, "order") < 0.5
    return [{**beside, **body} if first else {**body, **beside} for body in made]


__all__ = ["Output", "render", "written"]
