"""What to write instead: for a field nobody knows, a value of the wrong kind, or a word that an enum does not have."""

from __future__ import annotations

import difflib
import re
from functools import cache, lru_cache
from typing import Final

from airflow_provider_geminibatch.core.fields import ROOTS, ROUTES, element, elsewhere, enums, messages

_CONTENTS = 'write contents: [{"role": "user", "parts": [{"text": …}]}]'
_SYSTEM = 'write systemInstruction: {"parts": [{"text": …}]}'

# By the name without case and underscores: names from the SDK, from other services' request files, from old samples.
_ALIASES: Final = {
    "config": (
        "this is the SDK's shape; a file wants temperature, responseSchema and the like under generationConfig, and "
        "systemInstruction, tools, toolConfig, safetySettings and cachedContent beside contents"
    ),
    "Content.content": 'write parts: [{"text": …}]',
    "SystemInstruction.content": 'write parts: [{"text": …}]',
    "messages": _CONTENTS,
    "prompt": _CONTENTS,
    "input": _CONTENTS,
    "system": _SYSTEM,
    "systemprompt": _SYSTEM,
    "maxtokens": "write generationConfig.maxOutputTokens",
    "maxcompletiontokens": "write generationConfig.maxOutputTokens",
    "stop": "write generationConfig.stopSequences",
    "n": "write generationConfig.candidateCount",
    "jsonschema": "write generationConfig.responseJsonSchema",
    "servicetier": "leave it out: a batch has its own price and pace",
    "automaticfunctioncalling": "leave it out: it exists in the SDK only",
    "httpoptions": "leave it out: it exists in the SDK only",
}

# JSON Schema words that the OpenAPI subset of responseSchema lacks.
_JSON_SCHEMA: Final = frozenset(
    {
        "$ref", "$defs", "$schema", "$id", "ref", "defs", "additionalProperties", "additional_properties",
        "oneOf", "allOf", "const", "not", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "patternProperties",
        "prefixItems", "uniqueItems",
    }
)  # fmt: skip

_SHAPES: Final = {
    "Content": 'write {"parts": [{"text": …}]}',
    "SystemInstruction": 'write {"parts": [{"text": …}]}',
    "[Content]": 'write [{"role": "user", "parts": [{"text": …}]}]',
    "Part": 'write {"text": …}',
    "[Part]": 'write [{"text": …}]',
    "[Tool]": 'write [{"googleSearch": {}}] or [{"functionDeclarations": […]}]',
    "[SafetySetting]": 'write [{"category": "HARM_CATEGORY_…", "threshold": "BLOCK_…"}]',
    "[text]": 'write ["…"]',
    "base64": "write the bytes in base64",
    "GenerateContentRequest": 'write {"contents": […]}',
    "ResponseFormat": 'write {"text": {…}}; only Vertex AI has a list of them',
    "[ResponseFormat]": 'write [{"text": {…}}]; only the Developer API has a single one',
}

_MISSING: Final = {
    "Blob.mimeType": 'write the MIME type, for example "image/png"',
    "FileData.fileUri": "write where the file is",
    "FunctionDeclaration.name": "every function has a name",
    "SafetySetting.category": "write HARM_CATEGORY_…",
    "SafetySetting.threshold": "write BLOCK_NONE, OFF or another threshold",
}

_WORDS: Final = {
    ("Role", "assistant"): "the model's own turns have the role model",
    ("Role", "system"): "write systemInstruction beside contents",
}


def squashed(name: str) -> str:
    """A name without case and separators, to compare names that differ in style only."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


@cache
def message_paths(route: str = "developer") -> dict[str, str]:
    """Where each message is met first: ThinkingConfig at ``request.generationConfig.thinkingConfig``."""
    found: dict[str, str] = {}
    table = messages(route)
    queue = [(root, "request") for root in ROOTS.values()]
    while queue:
        message, path = queue.pop(0)
        if message in table and message not in found:
            found[message] = path
            for name, kind in table[message].items():
                queue.append((element(kind), f"{path}.{name}" + ("[]" if "[" in kind else "")))
    return found


@lru_cache(maxsize=4096)
def unknown_field(message: str, name: str, route: str = "developer") -> str:
    """The hint for a field that ``message`` does not have; empty when there is nothing sensible to say."""
    fields = messages(route)[message]
    by_style = {squashed(field): field for field in fields}
    plain = squashed(name)
    if plain in by_style:
        return f"did you mean {by_style[plain]}?"
    if message == "Schema" and name in _JSON_SCHEMA:
        return "this is a subset of OpenAPI; a JSON Schema goes into responseJsonSchema, of a function into parametersJsonSchema"
    if any(plain == squashed(field) for field in elsewhere(route).get(message, ())):
        other = next(said for each, said in ROUTES.items() if each != route)
        return f"only {other} has it; {ROUTES[route]} refuses it, so leave it out"
    said = _ALIASES.get(f"{message}.{plain}") or _ALIASES.get(plain)
    if said:
        return said
    place = _elsewhere(message, plain, route)
    if place:
        return f"it belongs in {place}"
    close = close_names(name, tuple(fields))
    if close:
        return f"did you mean {close[0]}?"
    return f"known here: {', '.join(fields)}" if 0 < len(fields) <= 13 else ""


def close_names(name: str, known: tuple[str, ...]) -> list[str]:
    """At most one name that was probably meant: a likeness, or what the name is the beginning of."""
    begun = [field for field in known if len(name) > 2 and squashed(field).startswith(squashed(name))]
    return difflib.get_close_matches(name, known, 1, 0.6) or begun[:1]


def _elsewhere(message: str, plain: str, route: str) -> str:
    """Where the field exists, if that is one place; names that stand for many things (``name``) say nothing."""
    owners = [
        f"{path}.{field}"
        for owner, path in message_paths(route).items()
        if owner != message
        for field in messages(route)[owner]
        if squashed(field) == plain
    ]
    chosen = owners[0] if len(owners) == 1 or (owners and plain in _PREFERRED) else ""
    # A request of the other kind begins at the same place: "contents belongs in request.contents" helps nobody.
    return "" if chosen.rpartition(".")[0] == message_paths(route).get(message) else chosen


# Met in several messages, and yet always meant for the first of them (nearest to the request).
_PREFERRED: Final = frozenset({"topk", "mediaresolution", "responsejsonschema"})


def missing_field(message: str, field: str, kind: str) -> str:
    """The hint for a field that is missing, or empty."""
    return _MISSING.get(f"{message}.{field}") or wrong_kind(kind)


def wrong_kind(kind: str) -> str:
    """The hint for a value that is not of ``kind``."""
    return _SHAPES.get(kind.rstrip("!"), "")


@lru_cache(maxsize=4096)
def unknown_word(enum: str, word: str, route: str = "developer") -> str:
    """The hint for a word that ``enum`` does not have."""
    known = enums(route)[enum]
    said = _WORDS.get((enum, word.lower()))
    if said:
        return said
    begun = [each for each in sorted(known) if len(word) > 2 and each.startswith(word.upper())]
    close = begun or difflib.get_close_matches(word.upper(), known, 1, 0.5) or difflib.get_close_matches(word, known, 1)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(sorted(known))}"
