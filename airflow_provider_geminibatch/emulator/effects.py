"""What happens to the answer of a row: the row scenarios, as functions of an answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from airflow_provider_geminibatch.emulator import answers
from airflow_provider_geminibatch.emulator.jobs import Effects, Job
from airflow_provider_geminibatch.emulator.parsing import field
from airflow_provider_geminibatch.emulator.scenarios import Params
from airflow_provider_geminibatch.emulator.wire import Json

# What a failed row says, by google.rpc code. The codes are reported, and the texts of 4 and 9; the others are assumed.
_MESSAGES: Mapping[int, str] = {
    3: "Request contains an invalid argument.",
    4: "Request deadline exceeded before prefill finished",
    5: "Requested entity was not found.",
    7: "The caller does not have permission",
    8: "Resource has been exhausted (e.g. check quota).",
    9: "Service agents are being provisioned. Please try again in a few minutes.",
    13: "Internal error encountered.",
    14: "The service is currently unavailable.",
}


@dataclass(frozen=True, slots=True)
class _Call:
    """What an interactive call has of a job: by what it is answered."""

    kind: str
    model: str


@dataclass(frozen=True, slots=True)
class Row:
    """One row to answer: its place in the input, its request, and what a second answer would say."""

    index: int
    request: Json
    job: Job | _Call
    cached_tokens: int = 0

    def answer(self) -> Json:
        make = answers.generate if self.job.kind == "generate" else answers.embed
        response = make(self.request, self.job.model)
        if self.cached_tokens:
            response["usageMetadata"]["cachedContentTokenCount"] = self.cached_tokens
        return {"response": response}


def bodies(row: Row, effects: Effects, dead: Json | None) -> list[Json]:
    """What a row comes back as, once, several times or never; `dead` is the error of a row that cannot be answered."""
    body = dead or row.answer()
    for name, bend in _BODY.items():
        if name in effects and not dead:
            body = bend(body, row, effects[name])
    made = [body]
    for name, repeat in _REPEAT.items():
        if name in effects:
            made = repeat(made, row)
    return made


def error_of(body: Json) -> Json | None:
    """The google.rpc status of a body that is an error, wherever it lies in it."""
    found: Json | None = body.get("error") or body.get("status") or (body.get("response") or {}).get("error")
    return found


def label(line: Json, key: str, effects: Effects) -> Json:
    """What comes back beside the answer: all of a line but its request, as the scenarios of keys leave it."""
    if "request" not in line:
        return {}
    kept = {name: value for name, value in line.items() if name != "request"}
    if "keyless" in effects:
        return {name: value for name, value in kept.items() if name not in ("key", "metadata")}
    if "unknown_key" in effects:
        stranger = f"unknown-{key}"
        return {**kept, **({"key": stranger} if "key" in kept else {"metadata": {"key": stranger}})}
    return kept


def _wrong_answer(body: Json, row: Row, params: Params) -> Json:
    strange = [{"role": "user", "parts": [{"text": "the prompt of another row"}]}]
    return replace(row, request={**row.request, "contents": strange}).answer()


def _failed(body: Json, row: Row, params: Params) -> Json:
    codes = params["codes"]
    code = codes[row.index % len(codes)]
    error = {"code": code, "message": params["message"] or _MESSAGES.get(code, "")}
    return {"response": {"error": error}} if params["under"] == "response.error" else {params["under"]: error}


def _empty(body: Json, row: Row, params: Params) -> Json:
    return _candidate(body, {"content": {"role": "model"}, "finishReason": "STOP", "index": 0}, 0)


def _blocked(body: Json, row: Row, params: Params) -> Json:
    return _candidate(body, {"finishReason": params["reason"], "index": 0}, 0)


def _prompt_blocked(body: Json, row: Row, params: Params) -> Json:
    response = _candidate(body, {}, 0)["response"]
    del response["candidates"]
    return {"response": {"promptFeedback": {"blockReason": params["reason"]}, **response}}


def _truncated(body: Json, row: Row, params: Params) -> Json:
    cap = int(field(field(row.request, "generationConfig", {}), "maxOutputTokens", 0))
    if params["below"] and cap >= params["below"]:
        return body
    text = _text(body)
    return _reworded(body, text[: len(text) // 2], "MAX_TOKENS")


def _broken_json(body: Json, row: Row, params: Params) -> Json:
    text = _text(body)
    return _reworded(body, text[: -max(len(text) // 3, 1)], "STOP")


def _thoughts_only(body: Json, row: Row, params: Params) -> Json:
    parts = [{"text": f"Thinking about {_text(body)}", "thought": True}]
    content = {"parts": parts, "role": "model"}
    return _candidate(body, {"content": content, "finishReason": params["reason"], "index": 0}, 0)


def _no_total_tokens(body: Json, row: Row, params: Params) -> Json:
    used = {name: count for name, count in body["response"]["usageMetadata"].items() if name != "totalTokenCount"}
    return {"response": {**body["response"], "usageMetadata": used}}


def _usage_metadata(body: Json, row: Row, params: Params) -> Json:
    response = dict(body.get("response") or {})
    tokens = response.pop("tokenCount", None)
    return {"response": {**response, "usageMetadata": {"promptTokenCount": int(tokens)}}} if tokens else body


def _short_vector(body: Json, row: Row, params: Params) -> Json:
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
    if cached := used.get("cachedContentTokenCount"):
        usage["cachedContentTokenCount"] = cached
    return {"response": {**body["response"], "candidates": [candidate], "usageMetadata": usage}}


def _generating(bend: Callable[[Json, Row, Params], Json]) -> Callable[[Json, Row, Params], Json]:
    """The effect for rows that have candidates; others pass unchanged."""
    return lambda body, row, params: bend(body, row, params) if "candidates" in body.get("response", {}) else body


# What happens to the answer of a row, in this order.
_BODY: Mapping[str, Callable[[Json, Row, Params], Json]] = {
    "wrong_answer": _generating(_wrong_answer),
    "truncated": _generating(_truncated),
    "broken_json": _generating(_broken_json),
    "thoughts_only": _generating(_thoughts_only),
    "empty": _generating(_empty),
    "blocked": _generating(_blocked),
    "prompt_blocked": _generating(_prompt_blocked),
    "no_total_tokens": _generating(_no_total_tokens),
    "usage_metadata": _usage_metadata,
    "short_vector": _short_vector,
    "failed_rows": _failed,
    "all_rows_failed": _failed,
}


def bent(response: Json, request: Json, model: str, effects: Effects) -> Json:
    """The response to an interactive call as row scenarios bend it. Those that make a row an error are of jobs alone."""
    body, row = {"response": response}, Row(0, request, _Call("generate", model))
    for name, bend in _BODY.items():
        if name in effects and bend is not _failed:
            body = bend(body, row, effects[name])
    return body["response"]


def _other(row: Row) -> Json:
    """Another answer to the same request."""
    return replace(row, request={**row.request, "again": True}).answer()


# How often a row comes.
_REPEAT: Mapping[str, Callable[[list[Json], Row], list[Json]]] = {
    "duplicate": lambda bodies, row: bodies * 2,
    "duplicate_differing": lambda bodies, row: [*bodies, _other(row)],
    "missing": lambda bodies, row: [],
}

__all__ = ["Row", "bent", "bodies", "error_of", "label"]
