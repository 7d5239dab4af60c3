"""JSON Schema as ``responseSchema`` takes it: a subset of OpenAPI, with all references inlined.

What it cannot say is refused by its path and not dropped: that a schema means less than it says is found out after the money
is spent. Let go are ``additionalProperties: false`` and formats that it does not know, which go into the description, since
every answer is checked against the whole schema anyway. ``oneOf`` is sent as ``anyOf``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from airflow_provider_geminibatch.core.schema_nodes import (
    ANNOTATIONS,
    AS_IT_IS,
    ROOT,
    Opened,
    Schema,
    allows_null,
    check_type,
    definitions,
    flattened,
    inclusive,
    refuse,
    without,
)

_OPENAPI_WORDS = frozenset(
    {
        "title", "description", "default", "example", "required", "propertyOrdering", "minItems", "maxItems",
        "minProperties", "maxProperties", "minimum", "maximum", "minLength", "maxLength", "pattern", "format",
    }
)  # fmt: skip
_FORMATS = {
    "string": {"date-time", "enum"},
    "number": {"float", "double"},
    "integer": {"int32", "int64"},
}
_PLAIN_INSTEAD = "Write it another way, or set schema_field='responseJsonSchema', which knows it."
_PLAIN_KNOWS = frozenset({"prefixItems"})


def openapi_schema(schema: Schema) -> Schema:
    """A JSON Schema as ``responseSchema``, references inlined. Raises Unusable, with the path, for what cannot be said there."""
    return _openapi(schema, ROOT, definitions(schema), {"#": False})


def _openapi(given: Any, path: str, defs: Schema, opened: Opened) -> Schema:
    if not isinstance(given, Mapping) or not given:
        refuse(path, "it does not say what type it has", "Name a type, such as string.")
    node, nullable, opened = flattened(dict(given), path, defs, opened)
    if "$ref" in node:
        why = f"{node['$ref']} refers to itself, and responseSchema has no references"
        refuse(path, why, "Write it to a fixed depth, or set schema_field='responseJsonSchema'.")
    node, nullable = _without_null(node, nullable, path)
    node = _with_format(node)
    out: Schema = {}
    for word, value in node.items():
        for name, made in _openapi_word(word, value, node, path, defs, opened):
            out[name] = made
    if "type" not in out and "anyOf" not in out:
        refuse(path, "it does not say what type it has", "Name a type, such as string.")
    if nullable:
        out["nullable"] = True
    _complete(out, path)
    return out


def _without_null(node: Schema, nullable: bool, path: str) -> tuple[Schema, bool]:
    """The node without null among its types and values, and whether null was or is allowed."""
    if "const" in node and node["const"] is None:
        node = {**without(node, "const"), "type": "null"}
    kinds = node.get("type")
    nullable = nullable or allows_null(node)
    if isinstance(kinds, list):
        left = [kind for kind in kinds if kind != "null"]
        if len(left) > 1 and not set(node) - ANNOTATIONS <= {"type", "title", "description", "default"}:
            do = "Write an anyOf with one schema for each type."
            refuse(f"{path}.type", "several types and further conditions in one schema", do)
        several = {**without(node, "type"), "anyOf": [{"type": kind} for kind in left]}
        node = {**node, "type": left[0]} if len(left) == 1 else several
    if isinstance(node.get("enum"), list) and None in node["enum"]:
        node = {**node, "enum": [value for value in node["enum"] if value is not None]}
    if "default" in node and node["default"] is None:
        node = without(node, "default")
    return node, nullable


def _with_format(node: Schema) -> Schema:
    """The node with a format that the service does not know said in words."""
    if "format" not in node or node["format"] in _FORMATS.get(node.get("type", ""), ()):
        return node
    said = f"{node.get('description', '')} (format: {node['format']})".strip()
    return {**without(node, "format"), "description": said}


def _openapi_word(
    word: str, value: Any, node: Schema, path: str, defs: Schema, opened: Opened
) -> Iterator[tuple[str, Any]]:
    """What one word of JSON Schema becomes."""
    here = f"{path}.{word}"
    if word in _OPENAPI_WORDS:
        yield word, value
    elif word == "type":
        check_type(value, here)
        yield word, value.upper()
    elif word == "properties":
        yield word, {name: _openapi(each, f"{here}.{name}", defs, opened) for name, each in value.items()}
    elif word == "items":
        yield word, _openapi(value, here, defs, opened)
    elif word == "anyOf":
        yield word, [_openapi(arm, f"{here}[{at}]", defs, opened) for at, arm in enumerate(value)]
    elif word in ("enum", "const"):
        yield from _words(value if word == "enum" else [value], node, here)
    elif word in ("exclusiveMinimum", "exclusiveMaximum"):
        yield inclusive(word, value, node, here, "responseSchema")
    elif word == "additionalProperties":
        if isinstance(value, Mapping):
            do = "Use a list of objects with a name and a value, or set schema_field='responseJsonSchema'."
            refuse(here, "responseSchema has no objects with free names", do)
    elif word not in ANNOTATIONS:
        refuse(here, "responseSchema does not know this word", _PLAIN_INSTEAD if word in _PLAIN_KNOWS else AS_IT_IS)


def _words(values: list[Any], node: Schema, here: str) -> Iterator[tuple[str, Any]]:
    if not values or not all(isinstance(value, str) for value in values):
        do = "List them as text, or set schema_field='responseJsonSchema', which lists numbers too."
        if any(isinstance(value, bool) for value in values):
            do = "Use type boolean, or list them as text."
        refuse(here, "responseSchema lists text only", do)
    if "type" not in node:
        yield "type", "STRING"
    yield "enum", values


def _complete(out: Schema, path: str) -> None:
    """What the service needs beyond the user's words. Without propertyOrdering it may sort the properties by name."""
    if out.get("type") == "OBJECT":
        if not out.get("properties"):
            do = "Name its properties, or set schema_field='responseJsonSchema'."
            refuse(f"{path}.properties", "an object without properties; the service refuses it", do)
        if len(out["properties"]) > 1:
            out.setdefault("propertyOrdering", list(out["properties"]))
    if out.get("type") == "ARRAY" and "items" not in out:
        refuse(f"{path}.items", "a list that does not say what it holds", "Say it, such as {'type': 'string'}.")


__all__ = ["openapi_schema"]
