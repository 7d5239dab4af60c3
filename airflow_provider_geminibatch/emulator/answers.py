"""Answers that are a function of the request alone: the same request gets the same answer, in any job and at any time.

An answer echoes the prompt and a digest of the whole request, so that a test can see which request it belongs to.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from airflow_provider_geminibatch.emulator.parsing import field
from airflow_provider_geminibatch.emulator.schemas import document
from airflow_provider_geminibatch.emulator.wire import Json

# Tokens of one media part: what an image costs in the interactive documentation; assumed for every kind of media.
_MEDIA_TOKENS = 258
_THOUGHTS = (64, 640)
_ECHO_CHARACTERS = 80
_DIMENSIONS = 3072
_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False).encode
_JSON = json.JSONEncoder(ensure_ascii=False).encode


def count_tokens(characters: int, media: int = 0) -> int:
    """About a token for four characters of text, and at least one, and more for each part that is media."""
    return max(1, -(-characters // 4)) + media * _MEDIA_TOKENS


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a request says: its last text, and the size of all that it sends."""

    echo: str
    tokens: int


def read_prompt(request: Mapping[str, Any]) -> Prompt:
    """The prompt of a generate or an embed request."""
    contents = [*field(request, "contents", ()), *filter(None, [field(request, "content")])]
    system = field(request, "systemInstruction")
    characters, media, last = 0, 0, ""
    for part in _parts([*filter(None, [system]), *contents]):
        text = part.get("text")
        if text:
            characters, last = characters + len(text), text
        elif field(part, "inlineData") or field(part, "fileData"):
            media += 1
    return Prompt(_shortened(last), count_tokens(characters, media))


def _parts(contents: list[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for content in filter(None, contents):
        yield from filter(None, content.get("parts") or ())


def _shortened(text: str) -> str:
    words = " ".join(text[: 4 * _ECHO_CHARACTERS].split())
    return words if len(words) <= _ECHO_CHARACTERS else words[:_ECHO_CHARACTERS].rsplit(" ", 1)[0] + " …"


def digest(request: Mapping[str, Any], model: str) -> bytes:
    """Sixteen bytes that stand for a request to a model; the order of its fields does not matter."""
    canonical = _CANONICAL([model, request]).encode("utf-8", "backslashreplace")
    return hashlib.blake2b(canonical, digest_size=16).digest()


def generate(request: Mapping[str, Any], model: str) -> Json:
    """A GenerateContentResponse with one candidate, thought for a while and ended by STOP (or by maxOutputTokens)."""
    mark = digest(request, model)
    prompt = read_prompt(request)
    config = field(request, "generationConfig", {})
    text = _text(request, config, prompt, mark)
    tokens = count_tokens(len(text))
    cap = int(field(config, "maxOutputTokens", 0))
    finish = "STOP"
    if 0 < cap < tokens:
        text, tokens, finish = text[: cap * 4], cap, "MAX_TOKENS"
    thinking = field(config, "thinkingConfig", {})
    thoughts = _thoughts(thinking, mark, cap - tokens if cap > 0 else _THOUGHTS[1])
    parts: list[Json] = [_function_call(request, mark) or {"text": text}]
    if thoughts and field(thinking, "includeThoughts"):
        parts.insert(0, {"text": f"Thinking about {prompt.echo}", "thought": True})
    if "IMAGE" in [str(one).upper() for one in field(config, "responseModalities", ())]:
        parts.append({"inlineData": {"mimeType": "image/png", "data": base64.b64encode(_image(mark)).decode()}})
    candidate = {"content": {"parts": parts, "role": "model"}, "finishReason": finish, "index": 0}
    return {
        "candidates": [candidate],
        "usageMetadata": usage(prompt.tokens, tokens, thoughts),
        "modelVersion": model,
        "responseId": base64.urlsafe_b64encode(mark).decode().rstrip("="),
    }


def _image(mark: bytes) -> bytes:
    """A PNG of one pixel, whose colour is the request's."""
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0" + mark[:3])),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def _thoughts(thinking: Mapping[str, Any], mark: bytes, room: int) -> int:
    """How many tokens of thought there were: drawn from the request, within its budget and the room that is left."""
    low, high = _THOUGHTS
    budget = int(field(thinking, "thinkingBudget", -1))  # -1 leaves it to the model
    return min(low + mark[0] * (high - low) // 255, room, budget if budget >= 0 else high)


def _function_call(request: Mapping[str, Any], mark: bytes) -> Json | None:
    """A call of one of the declared functions where the mode is ANY; otherwise the model prefers to talk."""
    calling = field(field(request, "toolConfig", {}), "functionCallingConfig", {})
    tools = field(request, "tools", ())
    every = (function for tool in filter(None, tools) for function in field(tool, "functionDeclarations", ()))
    declared = [function for function in every if function]
    allowed = field(calling, "allowedFunctionNames") or [function.get("name") for function in declared]
    chosen = next((function for function in declared if function.get("name") in allowed), None)
    if str(field(calling, "mode", "")).upper() != "ANY" or chosen is None:
        return None
    schema = field(chosen, "parameters") or field(chosen, "parametersJsonSchema") or {"type": "OBJECT"}
    args = _conforming(schema, read_prompt(request).echo, mark)
    return {"functionCall": {"name": chosen.get("name", ""), "args": args}}


def usage(prompt: int, candidates: int, thoughts: int) -> Json:
    """Usage metadata; as in all of proto3 JSON, what is zero is left out."""
    counts = {"candidatesTokenCount": candidates, "thoughtsTokenCount": thoughts}
    return {
        "promptTokenCount": prompt,
        **{name: count for name, count in counts.items() if count},
        "totalTokenCount": prompt + candidates + thoughts,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt}],
    }


def _text(request: Mapping[str, Any], config: Mapping[str, Any], prompt: Prompt, mark: bytes) -> str:
    echo = f"{prompt.echo} [{mark[:4].hex()}]"
    mime, schema = _asked_format(config)
    if mime not in ("application/json", "text/x.enum"):
        return f"Echo: {echo}"
    made = _conforming(schema, echo, mark) if schema else {"echo": echo}
    return str(made) if mime == "text/x.enum" else _JSON(made)


def _conforming(schema: Mapping[str, Any], echo: str, mark: bytes) -> Any:
    """A document of that schema. One that cannot be read is not followed, as the service may do too."""
    try:
        return document(schema, echo, int.from_bytes(mark[:8], "big"))
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
        return {"echo": echo}


def _asked_format(config: Mapping[str, Any]) -> tuple[str, Mapping[str, Any] | None]:
    """The MIME type and schema asked for.

    `responseFormat` in a batch is undocumented; that it works is assumed, in both spellings of its MIME type: the
    discovery document has the enum APPLICATION_JSON, the REST guide sends the text `application/json`.
    """
    newer = _newer_format(field(config, "responseFormat"))
    schema = field(config, "responseSchema") or field(config, "responseJsonSchema") or newer.get("schema")
    mime = str(field(config, "responseMimeType", "") or field(newer, "mimeType", "")).lower()
    return mime.replace("application_json", "application/json"), schema


def _whole(asked: Any) -> int:
    """A number of dimensions; what is none inside of a free object is not followed."""
    try:
        return int(asked)
    except (TypeError, ValueError, OverflowError):
        return _DIMENSIONS


def _newer_format(asked: Any) -> Mapping[str, Any]:
    """The text format of `responseFormat`, of which Vertex AI has a list."""
    for each in asked if isinstance(asked, list) else [asked]:
        found = each.get("text") if isinstance(each, dict) else None
        if isinstance(found, dict):
            return found
    return {}


def embed(request: Mapping[str, Any], model: str) -> Json:
    """An embedding response of the asked dimensionality (3072 otherwise, assumed), of length one."""
    seed = int.from_bytes(digest(request, model)[:8], "big")
    rng = Random(seed)
    inner = field(field(request, "embedContentConfig", {}), "outputDimensionality", _DIMENSIONS)
    wanted = _whole(field(request, "outputDimensionality", inner))
    values = [rng.uniform(-1, 1) for _ in range(min(max(wanted, 1), _DIMENSIONS))]
    length = sum(value * value for value in values) ** 0.5 or 1.0
    embedding = {"values": [round(value / length, 7) for value in values]}
    return {"embedding": embedding, "tokenCount": str(read_prompt(request).tokens)}


__all__ = ["Prompt", "count_tokens", "digest", "embed", "generate", "read_prompt", "usage"]
