"""Nodes of a JSON Schema, as both dialects of the service read them: references followed, null told apart, places named."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NoReturn

from airflow_provider_geminibatch.core.errors import Unusable

Schema = dict[str, Any]
Opened = Mapping[str, bool]
"""The references that a place lies inside of, and whether a property that may be missing lies between."""

ROOT: Final = "response_schema"

ANNOTATIONS: Final = frozenset(
    {
        "$schema", "$id", "$anchor", "$comment", "$defs", "definitions", "examples", "deprecated", "readOnly",
        "writeOnly", "discriminator", "nullable",
    }
)  # fmt: skip
"""Words that hold no answer back, and that neither dialect has."""

AS_IT_IS: Final = (
    "Leave the word out and say it in the description, or send the schema as it is: "
    "generation={'responseMimeType': 'application/json', 'responseJsonSchema': …}."
)
"""The way out where neither dialect has a word."""

_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")


def definitions(schema: Schema) -> Schema:
    named = {
        f"#/{word}/{name}": each for word in ("$defs", "definitions") for name, each in (schema.get(word) or {}).items()
    }
    return {**named, "#": schema}


def refuse(path: str, why: str, do: str) -> NoReturn:
    raise Unusable(path, why, do)


def flattened(node: Schema, path: str, defs: Schema, opened: Opened) -> tuple[Schema, bool, Opened]:
    """The node with references and one-armed unions replaced by what they stand for, and whether it may be null.

    A ``$ref`` that is left refers to what it lies in.
    """
    nullable = False
    while True:
        if "$ref" in node:
            ref = node["$ref"]
            if ref in opened:
                return node, nullable, opened
            if ref not in defs:
                refuse(path, f"{ref} is not defined in the schema", "Define it under $defs.")
            opened, node = {**opened, ref: False}, {**defs[ref], **without(node, "$ref")}
        elif isinstance(node.get("allOf"), list) and len(node["allOf"]) == 1:
            node = {**node["allOf"][0], **without(node, "allOf")}
        elif "anyOf" in node or "oneOf" in node:
            word = "anyOf" if "anyOf" in node else "oneOf"
            others = [arm for arm in node[word] if arm != {"type": "null"}]
            nullable = nullable or len(others) < len(node[word])
            node = without(node, word)
            if len(others) != 1:
                return {**node, "anyOf": others}, nullable, opened
            node = {**others[0], **node}
        else:
            return node, nullable, opened


def without(node: Schema, word: str) -> Schema:
    return {name: value for name, value in node.items() if name != word}


def check_type(value: Any, here: str) -> None:
    if value not in _TYPES:
        refuse(here, "it is not a type of JSON Schema", f"Write one of {', '.join(_TYPES)}.")


def inclusive(word: str, value: Any, node: Schema, here: str, field: str) -> tuple[str, Any]:
    """``exclusiveMinimum`` and ``exclusiveMaximum``, which only whole numbers can do without."""
    if node.get("type") != "integer" or not isinstance(value, int):
        do = "Use minimum or maximum (ge= and le= in pydantic)."
        refuse(here, f"{field} knows minimum and maximum only", do)
    return ("minimum", value + 1) if word == "exclusiveMinimum" else ("maximum", value - 1)


def allows_null(node: Schema) -> bool:
    """Whether null fits the types and the values that a node names, and it names either."""
    kinds, values = node.get("type"), node.get("enum")
    by_type = kinds is None or kinds == "null" or (isinstance(kinds, list) and "null" in kinds)
    by_value = not isinstance(values, list) or None in values
    return by_type and by_value and not (kinds is None and values is None) and kinds != "null"
