"""Three witnesses of what a request may hold, none of which shares code with the validator.

Each says yes or no to a request. The protobuf parser is the public package's, by stored descriptors; the Vertex AI schema is
the stored discovery document, with a checker of its own here; the SDK's converters are those of the installed google-genai.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
Request = Mapping[str, Any]


@cache
def _message_class(root: str) -> Any:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    files = descriptor_pb2.FileDescriptorSet.FromString((HERE / "extracts" / "protobuf.binpb").read_bytes())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    descriptor = pool.FindMessageTypeByName(f"google.ai.generativelanguage.v1beta.{root}")
    return message_factory.GetMessageClass(descriptor)


def protobuf_refuses(request: Request, root: str = "GenerateContentRequest") -> str:
    """Why the parser of google-ai-generativelanguage refuses a request; empty if it does not."""
    from google.protobuf import json_format

    try:
        json_format.ParseDict(dict(request), _message_class(root)())
    except json_format.ParseError as error:
        return str(error) or "refused"
    return ""


@cache
def _discovery() -> tuple[dict[str, dict[str, list[str]]], dict[str, list[str]]]:
    """The messages of v1 and v1beta1 together: every kind that either gives a field."""
    messages: dict[str, dict[str, list[str]]] = {}
    enums: dict[str, list[str]] = {}
    for version in ("v1beta1", "v1"):
        stored = json.loads((HERE / "extracts" / f"vertex_{version}.json").read_text())
        for name, fields in stored["messages"].items():
            for field, kind in fields.items():
                kinds = messages.setdefault(name, {}).setdefault(field, [])
                if kind not in kinds:
                    kinds.append(kind)
            messages.setdefault(name, {})
        for name, words in stored["enums"].items():
            enums.setdefault(name, []).extend(words)
    return messages, enums


# Strictly as the schema is written: proto3 JSON's other forms (numbers as text, small letters) are not in a schema.
_IS: dict[str, Callable[[Any], bool]] = {
    "text": lambda value: isinstance(value, str),
    "base64": lambda value: isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9+/_-]*={0,2}", value) is not None,
    "bool": lambda value: isinstance(value, bool),
    "int": lambda value: type(value) in (int, str) and re.fullmatch(r"-?\d+", str(value)) is not None,
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "value": lambda value: True,
    "object": lambda value: isinstance(value, dict),
}  # fmt: skip


def discovery_refuses(request: Request, root: str = "GenerateContentRequest") -> str:
    """Why the discovery document of Vertex AI refuses a request; empty if it does not."""
    return next(_discovery_faults(request, root, root), "")


def _discovery_faults(value: Any, kind: str, where: str) -> Iterator[str]:
    messages, enums = _discovery()
    if kind.startswith("["):
        if not isinstance(value, list):
            yield f"{where}: no list"
            return
        for each in value:
            yield from _discovery_faults(each, kind[1:-1], where)
    elif kind.startswith("{"):
        if not isinstance(value, dict):
            yield f"{where}: no map"
            return
        for each in value.values():
            yield from _discovery_faults(each, kind[1:-1], where)
    elif kind.startswith("="):
        if value not in enums[kind[1:]]:
            yield f"{where}: no such word"
    elif kind in _IS:
        if not _IS[kind](value):
            yield f"{where}: no {kind}"
    elif not isinstance(value, dict):
        yield f"{where}: no object"
    else:
        for name, item in value.items():
            kinds = messages[kind].get(name)
            if kinds is None:
                yield f"{where}.{name}: unknown"
            else:
                faults = [list(_discovery_faults(item, each, f"{where}.{name}")) for each in kinds]
                yield from min(faults, key=len)


# Where the SDK keeps a message in another shape than the wire.
_FLAT = {"GenerateContentRequest": "GenerateContentConfig", "GenerationConfig": "GenerateContentConfig"}


def sdk_refuses(route: str, message: str, field: str, value: Any) -> bool:
    """Whether the installed SDK's converter of a message raises at a field, in its own words, for a route."""
    from google.genai import batches, models

    module, suffix = (batches, "mldev") if route == "developer" else (models, "vertex")
    converter = getattr(module, f"_{_FLAT.get(message, message)}_to_{suffix}", None)
    if converter is None:
        return False
    given = {re.sub(r"([A-Z])", lambda found: "_" + found[1].lower(), field): value}
    flat = message in _FLAT
    arguments: list[Any] = [None, given, {}] if flat else [given, {}]
    try:
        converter(*arguments, *([{}] if route == "vertex" else []))
    except ValueError as error:
        return "only supported in" in str(error) or "not supported in" in str(error)
    except (AttributeError, KeyError, TypeError):
        return False  # not built for a bare value; it looked at the field and did not refuse it by name
    return False
