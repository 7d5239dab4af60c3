"""The output of a job: one line for each row, as the service would write it and as the scenarios bend it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from random import Random

from airflow_provider_geminibatch.emulator import answers
from airflow_provider_geminibatch.emulator.blobs import Blob
from airflow_provider_geminibatch.emulator.intake import parts_of
from airflow_provider_geminibatch.emulator.jobs import Job
from airflow_provider_geminibatch.emulator.media import Look, row_error, unreadable
from airflow_provider_geminibatch.emulator.parsing import field
from airflow_provider_geminibatch.emulator.scenarios import Params
from airflow_provider_geminibatch.emulator.switches import draw_unit
from airflow_provider_geminibatch.emulator.wire import Json

# A lone surrogate, which UTF-8 has no bytes for, is written as the escape that it came as: backslashreplace.
_LINE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
# What a failed row says, by google.rpc code. The codes are reported, the texts assumed.
_MESSAGES: Mapping[int, str] = {
    3: "Request contains an invalid argument.",
    7: "The caller does not have permission",
    8: "Resource has been exhausted (e.g. check quota).",
    13: "Internal error encountered.",
    14: "The service is currently unavailable.",
}


@dataclass(frozen=True, slots=True)
class Output:
    """A rendered output: its lines, and the tokens of the rows that were answered."""

    lines: Blob
    answered: int
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class _Call:
    """What an interactive call has of a job: by what it is answered."""

    kind: str
    model: str


@dataclass(frozen=True, slots=True)
class _Row:
    """One row to answer: its place in the input, its request, and what a second answer would say."""

    index: int
    request: Json
    job: Job | _Call

    def answer(self) -> Json:
        make = answers.generate if self.job.kind == "generate" else answers.embed
        return {"response": make(self.request, self.job.model)}


def render(job: Job, seed: int, folder: Path | None, look: Look = lambda file_id: "") -> Output:
    """The whole output of a job, in the order of the service: the same bytes for the same seed and input.

    `look` says what is wrong with a file that a request names, when the job comes to it.
    """
    blob = Blob(folder)
    answered = prompt = output = 0
    buffer: list[bytes] = []
    for line in _ordered(job, seed, look):
        used = (line.get("response") or {}).get("usageMetadata")
        tokens = int((line.get("response") or {}).get("tokenCount", 0))
        if used or tokens:
            answered += 1
            prompt += used["promptTokenCount"] if used else tokens
            output += (used.get("candidatesTokenCount", 0) + used.get("thoughtsTokenCount", 0)) if used else 0
        buffer.append(_LINE(line).encode("utf-8", "backslashreplace"))
        if len(buffer) == 1000:
            blob.append(b"\n".join(buffer) + b"\n")
            buffer.clear()
    if buffer:
        blob.append(b"\n".join(buffer) + b"\n")
    return Output(blob, answered, prompt, output)


def _ordered(job: Job, seed: int, look: Look) -> Iterator[Json]:
    if "shuffled" not in job.traits:
        yield from _in_shards(job, seed, look)
        return
    lines = list(_in_shards(job, seed, look))
    Random(f"{seed}/{job.id}").shuffle(lines)
    yield from lines


def _in_shards(job: Job, seed: int, look: Look) -> Iterator[Json]:
    """Shards of a thousand rows, each in order, themselves in the order that was measured once: 0, 3, 2, 1."""
    starts = job.rows.starts
    for shard in (0, *range(len(starts) - 1, 0, -1)):
        end = starts[shard + 1] if shard + 1 < len(starts) else None
        index = count(shard * 1000)
        for _, text in job.rows.lines.lines(starts[shard], end):
            if text.strip():
                yield from _lines_of(json.loads(text), next(index), job, seed, look)


def _lines_of(line: Json, index: int, job: Job, seed: int, look: Look) -> list[Json]:
    key, request = parts_of(line)
    row = _Row(index, request, job)
    effects = job.rows.effects.get(index, {})
    dead = unreadable(request, look)
    body = row_error(dead) if dead else row.answer()
    for name, bend in _BODY.items():
        if name in effects and not dead:
            body = bend(body, row, effects[name])
    bodies = [body]
    for name, repeat in _REPEAT.items():
        if name in effects:
            bodies = repeat(bodies, row)
    label = _label(line, key, effects)
    # The order of a line's fields is not fixed.
    first = draw_unit(seed, job.ordinal, index, "order") < 0.5
    return [{**label, **made} if first else {**made, **label} for made in bodies]


def _label(line: Json, key: str, effects: Mapping[str, Params]) -> Json:
    """What comes back beside the answer: the key or the metadata, and unknown fields with their lists emptied."""
    if "request" not in line:
        return {}
    label = {name: [] if isinstance(value, list) else value for name, value in line.items() if name != "request"}
    if "keyless" in effects:
        return {name: value for name, value in label.items() if name not in ("key", "metadata")}
    if "unknown_key" in effects:
        stranger = f"unknown-{key}"
        return {**label, **({"key": stranger} if "key" in label else {"metadata": {"key": stranger}})}
    return label


def _wrong_answer(body: Json, row: _Row, params: Params) -> Json:
    strange = [{"role": "user", "parts": [{"text": "the prompt of another row"}]}]
    return replace(row, request={**row.request, "contents": strange}).answer()


def _failed(body: Json, row: _Row, params: Params) -> Json:
    codes = params["codes"]
    code = codes[row.index % len(codes)]
    error = {"code": code, "message": params["message"] or _MESSAGES.get(code, "")}
    return {"response": {"error": error}} if params["under"] == "response.error" else {params["under"]: error}


def _empty(body: Json, row: _Row, params: Params) -> Json:
    return _candidate(body, {"content": {"role": "model"}, "finishReason": "STOP", "index": 0}, 0)


def _blocked(body: Json, row: _Row, params: Params) -> Json:
    return _candidate(body, {"finishReason": params["reason"], "index": 0}, 0)


def _prompt_blocked(body: Json, row: _Row, params: Params) -> Json:
    response = _candidate(body, {}, 0)["response"]
    del response["candidates"]
    return {"response": {"promptFeedback": {"blockReason": params["reason"]}, **response}}


def _truncated(body: Json, row: _Row, params: Params) -> Json:
    cap = int(field(field(row.request, "generationConfig", {}), "maxOutputTokens", 0))
    if params["below"] and cap >= params["below"]:
        return body
    text = _text(body)
    return _reworded(body, text[: len(text) // 2], "MAX_TOKENS")


def _broken_json(body: Json, row: _Row, params: Params) -> Json:
    text = _text(body)
    return _reworded(body, text[: -max(len(text) // 3, 1)], "STOP")


def _thoughts_only(body: Json, row: _Row, params: Params) -> Json:
    parts = [{"text": f"Thinking about {_text(body)}", "thought": True}]
    content = {"parts": parts, "role": "model"}
    return _candidate(body, {"content": content, "finishReason": params["reason"], "index": 0}, 0)


def _usage_metadata(body: Json, row: _Row, params: Params) -> Json:
    response = dict(body.get("response") or {})
    tokens = response.pop("tokenCount", None)
    return {"response": {**response, "usageMetadata": {"promptTokenCount": int(tokens)}}} if tokens else body


def _short_vector(body: Json, row: _Row, params: Params) -> Json:
    response = body.get("response") or {}
    if "embedding" not in response:
        return body
    values = response["embedding"]["values"]
    return {"response": {**response, "embedding": {"values": values[: len(values) // 2]}}}


def _text(body: Json) -> str:
    parts: list[Json] = body["response"]["candidates"][0].get("content", {}).get("parts", [])
    return "".join(part.get("text", "") for part in parts if not part.get("thought"))


def _reworded(body: Json, text: str, finish: str) -> Json:
    content = {"parts": [{"text": text}], "role": "model"}
    return _candidate(body, {"content": content, "finishReason": finish, "index": 0}, answers.count_tokens(len(text)))


def _candidate(body: Json, candidate: Json, tokens: int) -> Json:
    """The same response with another candidate of so many tokens. Thoughts are counted where there were any."""
    used = body["response"]["usageMetadata"]
    thoughts = used.get("thoughtsTokenCount", 0)
    usage = answers.usage(used["promptTokenCount"], tokens, thoughts)
    return {"response": {**body["response"], "candidates": [candidate], "usageMetadata": usage}}


def _generating(bend: Callable[[Json, _Row, Params], Json]) -> Callable[[Json, _Row, Params], Json]:
    """The effect for rows that have candidates; others pass unchanged."""
    return lambda body, row, params: bend(body, row, params) if "candidates" in body.get("response", {}) else body


# What happens to the answer of a row, in this order.
_BODY: Mapping[str, Callable[[Json, _Row, Params], Json]] = {
    "wrong_answer": _generating(_wrong_answer),
    "truncated": _generating(_truncated),
    "broken_json": _generating(_broken_json),
    "thoughts_only": _generating(_thoughts_only),
    "empty": _generating(_empty),
    "blocked": _generating(_blocked),
    "prompt_blocked": _generating(_prompt_blocked),
    "usage_metadata": _usage_metadata,
    "short_vector": _short_vector,
    "failed_rows": _failed,
    "all_rows_failed": _failed,
}


def bent(response: Json, request: Json, model: str, effects: Mapping[str, Params]) -> Json:
    """The response to an interactive call as row scenarios bend it. Those that make a row an error are of jobs alone."""
    body, row = {"response": response}, _Row(0, request, _Call("generate", model))
    for name, bend in _BODY.items():
        if name in effects and bend is not _failed:
            body = bend(body, row, effects[name])
    return body["response"]


def _other(row: _Row) -> Json:
    """Another answer to the same request."""
    return replace(row, request={**row.request, "again": True}).answer()


# How often a row comes.
_REPEAT: Mapping[str, Callable[[list[Json], _Row], list[Json]]] = {
    "duplicate": lambda bodies, row: bodies * 2,
    "duplicate_differing": lambda bodies, row: [*bodies, _other(row)],
    "missing": lambda bodies, row: [],
}

__all__ = ["Output", "bent", "render"]
