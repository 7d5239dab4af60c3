"""Requests made from the field table of a route, such as the validator accepts without a word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from airflow_provider_geminibatch.core.fields import PAYLOADS, element, enums, messages, snake
from airflow_provider_geminibatch.core.limits import RANGES

Message = dict[str, Any]
READS = {"developer": "files/abc", "vertex": "gs://bucket/object"}

# What a message needs that its fields alone do not say.
_AS_MANY_AS = 4


def scalar(kind: str) -> st.SearchStrategy[Any]:
    """Values of a scalar kind, in the form that goes on the wire."""
    return {
        "text": st.text(min_size=1, max_size=8),
        "base64": st.sampled_from(["AAAA", "QUI=", "_-8", "QQ"]),
        "bool": st.booleans(),
        "int": st.integers(-(2**31), 2**31 - 1),
        "number": st.floats(allow_nan=False, allow_infinity=False, width=32) | st.integers(-5, 5),
        "value": st.just({"type": "object"}),
        "object": st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(0, 9), min_size=1, max_size=2),
    }[kind]


def value(kind: str, route: str, depth: int = 0) -> st.SearchStrategy[Any]:
    """Values of a kind of the field table, in camelCase."""
    bare = kind.rstrip("!")
    if bare.startswith("["):
        return st.lists(value(element(bare), route, depth), min_size=1, max_size=2)
    if bare.startswith("{"):
        names = st.text("abc_", min_size=1, max_size=3).map(lambda name: f"k{name}")
        values = st.text("abc0", min_size=1, max_size=3) if bare == "{text}" else value(element(bare), route, depth)
        return st.dictionaries(names, values, min_size=1, max_size=2)
    if bare.startswith("="):
        return st.sampled_from(sorted(enums(route)[bare[1:]]))
    return message(bare, route, depth + 1) if bare in messages(route) else scalar(bare)


@st.composite
def message(draw: st.DrawFn, name: str, route: str = "developer", depth: int = 0) -> Message:
    """A message in order."""
    fields = messages(route)[name]
    wanted = {field for field, kind in fields.items() if kind.endswith("!")}
    if name == "Part":
        wanted = {draw(st.sampled_from([payload for payload in PAYLOADS if payload in fields]))}
    elif name == "Schema":
        wanted = {"type"}
    elif fields and depth < _AS_MANY_AS:
        wanted |= set(draw(st.lists(st.sampled_from(sorted(fields)), max_size=3)))
    if not wanted and len(fields) > 0:
        wanted = {draw(st.sampled_from(_flat(fields)))}
    made = {field: draw(value(fields[field], route, depth)) for field in fields if field in wanted}
    repair = _REPAIRS.get(name)
    return repair(made, draw, route) if repair else made


def _flat(fields: dict[str, str]) -> list[str]:
    """Fields that end a branch, if there are any."""
    flat = [field for field, kind in fields.items() if element(kind).startswith("=") or element(kind).islower()]
    return sorted(flat or fields)


def _config(made: Message, draw: st.DrawFn, route: str) -> Message:
    for field in ("_responseJsonSchema", "responseJsonSchema", "responseSchema"):
        made.pop(field, None)
    for field, (least, most, _) in RANGES.items():
        if field in made:
            made[field] = draw(
                st.floats(least, most) if isinstance(least, float) else st.integers(least, min(most, 99))
            )
    if "stopSequences" in made:
        made["stopSequences"] = made["stopSequences"][:5]
    if "logprobs" in made:
        made["responseLogprobs"] = True
    return made or {"topK": 3}


def _request(made: Message, draw: st.DrawFn, route: str) -> Message:
    made.pop("cachedContent", None)
    config = made.get("toolConfig", {}).get("functionCallingConfig", {})
    config.pop("allowedFunctionNames", None)
    if "functionCallingConfig" in made.get("toolConfig", {}):
        config.setdefault("mode", "AUTO")
    return made


def _without(field: str, fallback: Message) -> Callable[[Message, st.DrawFn, str], Message]:
    def repair(made: Message, draw: st.DrawFn, route: str) -> Message:
        made.pop(field, None)
        return made or dict(fallback)

    return repair


def _function(made: Message, draw: st.DrawFn, route: str) -> Message:
    made["name"] = draw(st.text("abcXYZ_", min_size=1, max_size=9))
    made.pop("parametersJsonSchema", None)
    made.pop("responseJsonSchema", None)
    return made


def _file(made: Message, draw: st.DrawFn, route: str) -> Message:
    return {**made, "fileUri": READS[route], "mimeType": "image/png"}


def _schema(made: Message, draw: st.DrawFn, route: str) -> Message:
    return {"type": draw(st.sampled_from(["STRING", "INTEGER", "BOOLEAN"]))}


def _part(made: Message, draw: st.DrawFn, route: str) -> Message:
    if "fileData" in made and draw(st.booleans()):
        made["videoMetadata"] = {"fps": 1.0}
    return made


def _tool(made: Message, draw: st.DrawFn, route: str) -> Message:
    if route == "vertex":  # an empty object is no tool there
        made = {field: each for field, each in made.items() if each}
    return made or {"googleSearchRetrieval": {"dynamicRetrievalConfig": {"dynamicThreshold": 0.5}}}


_REPAIRS: dict[str, Callable[[Message, st.DrawFn, str], Message]] = {
    "GenerateContentRequest": _request,
    "GenerationConfig": _config,
    "ThinkingConfig": _without("thinkingBudget", {"includeThoughts": True}),
    "FunctionDeclaration": _function,
    "FunctionCallingConfig": _without("allowedFunctionNames", {"mode": "AUTO"}),
    "SpeechConfig": _without("multiSpeakerVoiceConfig", {"languageCode": "en"}),
    "FileData": _file,
    "Schema": _schema,
    "Part": _part,
    "Tool": _tool,
    "ImageConfig": _without("imageSize", {"aspectRatio": "1:1"}),
    "ImageFormat": _without("imageSize", {"imageSize": "IMAGE_SIZE_ONE_K"}),
    "Retrieval": _without("vertexRagStore", {"disableAttribution": True}),
}


def full(made: Any) -> bool:
    """Whether no object in a request is empty."""
    if isinstance(made, dict):
        return bool(made) and all(full(each) for each in made.values())
    return all(full(each) for each in made) if isinstance(made, list) else True


def requests(route: str = "developer", kind: str = "GenerateContentRequest") -> st.SearchStrategy[Message]:
    """Requests that a route takes. On Vertex AI none of their objects is empty."""
    made = message(kind, route)
    return made.filter(full) if route == "vertex" else made


def as_snake(name: str, made: Message, route: str = "developer") -> Message:
    """The same message with the original proto names."""
    out = {}
    for field, item in made.items():
        kind = messages(route)[name][field].rstrip("!")
        inner = element(kind)
        if kind in messages(route):
            item = as_snake(kind, item, route)
        elif inner in messages(route) and kind.startswith("["):
            item = [as_snake(inner, each, route) for each in item]
        elif inner in messages(route):
            item = {key: as_snake(inner, each, route) for key, each in item.items()}
        out[snake(field)] = item
    return out
