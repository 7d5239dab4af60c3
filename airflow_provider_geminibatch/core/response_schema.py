"""The schema of an answer: from what a user writes to JSON Schema, and from there to what the service takes.

``responseSchema`` is the form that works in batches (``responseJsonSchema`` was once measured at 0 of 502 usable
answers on the batch endpoint: crmne/ruby_llm#894, August 2026). It is a subset of OpenAPI, so what it cannot say is
refused here, by its path, and not dropped: that a schema means less than it says is found out after the money is spent.
Two things are let go, since every answer is checked against the full schema anyway: ``additionalProperties: false``,
and formats that the service does not know, which go into the description.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.core.fields import MESSAGES, snake

Schema = dict[str, Any]

_ROOT = "response_schema"
_ANNOTATIONS = frozenset(
    {
        "$schema", "$id", "$comment", "$defs", "definitions", "examples", "deprecated", "readOnly", "writeOnly",
        "discriminator", "nullable",
    }
)  # fmt: skip
_KEPT = frozenset(
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
_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
_CAMEL = {snake(name): name for name in MESSAGES["Schema"]}


def json_schema_of(given: object) -> Schema:
    """A JSON Schema from a pydantic model or any type that pydantic can describe, or from a schema in either form."""
    if isinstance(given, Mapping):
        form: Schema = _json_form(given)
        return form
    describe = getattr(given, "model_json_schema", None)
    plain: Schema = _untitled(describe() if describe else _described(given), getattr(given, "__name__", ""))
    return plain


_ASKED = ("responseSchema", "response_schema", "responseJsonSchema", "response_json_schema", "_responseJsonSchema")


def asked_schema(config: Any) -> Schema | None:
    """The schema that a ``generationConfig`` asks for, under whichever of its names."""
    found = [config.get(name) for name in _ASKED] if isinstance(config, Mapping) else []
    return next((dict(schema) for schema in found if isinstance(schema, Mapping)), None)


class CommonSchema:
    """The schema that all requests of a source ask for; None when one of them asks for another, or for none."""

    def __init__(self) -> None:
        self.schema: Schema | None = None
        self._begun = False

    def note(self, request: Mapping[str, Any]) -> None:
        """Look at one more request."""
        found = asked_schema(request.get("generationConfig"))
        if self._begun and found != self.schema:
            found = None
        self.schema, self._begun = found, True


def _described(given: Any) -> Schema:
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

    try:
        return TypeAdapter(given).json_schema()
    except (PydanticSchemaGenerationError, PydanticUserError):
        name = getattr(given, "__name__", type(given).__name__)
        raise Unusable(
            _ROOT, f"{name} describes no JSON", "Pass a pydantic model, a dataclass or a JSON Schema."
        ) from None


def _untitled(node: Any, *names: str) -> Any:
    """Without the titles that pydantic makes from names: they say nothing new and are paid in every request."""
    if isinstance(node, list):
        return [_untitled(item) for item in node]
    if not isinstance(node, dict):
        return node
    out = {}
    for word, value in node.items():
        if word == "title" and value in names:
            continue
        if word in ("properties", "$defs") and isinstance(value, dict):
            out[word] = {name: _untitled(each, name, name.replace("_", " ").title()) for name, each in value.items()}
        elif word in ("default", "const", "enum", "example", "examples"):
            out[word] = value
        else:
            out[word] = _untitled(value)
    return out


def _json_form(node: Any) -> Any:
    """The service's spelling (OBJECT, nullable, any_of) as JSON Schema; a JSON Schema comes out as it went in."""
    if isinstance(node, list | tuple):
        return [_json_form(item) for item in node]
    if not isinstance(node, Mapping):
        return node
    out: Schema = {}
    for word, value in node.items():
        word = _CAMEL.get(str(word), str(word))
        if word in ("properties", "$defs", "definitions") and isinstance(value, Mapping):
            out[word] = {name: _json_form(each) for name, each in value.items()}
        elif word in ("default", "const", "enum", "example", "examples", "required"):
            out[word] = value
        elif word == "type" and isinstance(value, str):
            out[word] = value.lower()
        else:
            out[word] = _json_form(value)
    return _with_null(out) if out.pop("nullable", False) is True else out


def _with_null(node: Schema) -> Schema:
    if isinstance(node.get("type"), str):
        node = {**node, "type": [node["type"], "null"]}
    if "anyOf" in node:
        node = {**node, "anyOf": [*node["anyOf"], {"type": "null"}]}
    if "enum" in node:
        node = {**node, "enum": [*node["enum"], None]}
    return node


def openapi_schema(schema: Schema) -> Schema:
    """A JSON Schema as ``responseSchema``. Raises Unusable, with the path, for what cannot be said there."""
    defs = {
        f"#/{word}/{name}": each for word in ("$defs", "definitions") for name, each in (schema.get(word) or {}).items()
    }
    return _convert(schema, _ROOT, {**defs, "#": schema}, ())


def _refuse(path: str, why: str, do: str = "") -> NoReturn:
    raise Unusable(
        path,
        why,
        do or "Write it another way, or set schema_field='responseJsonSchema' to send the JSON Schema as it is.",
    )


def _convert(node: Any, path: str, defs: Schema, opened: tuple[str, ...]) -> Schema:
    if not isinstance(node, Mapping) or not node:
        _refuse(path, "it does not say what type it has")
    node, nullable, opened = _flattened(dict(node), path, defs, opened)
    node, nullable = _without_null(node, nullable, path)
    node = _with_format(node)
    out: Schema = {}
    for word, value in node.items():
        for name, made in _word(word, value, node, path, defs, opened):
            out[name] = made
    if "type" not in out and "anyOf" not in out:
        _refuse(path, "it does not say what type it has")
    if nullable:
        out["nullable"] = True
    _complete(out, path)
    return out


def _flattened(node: Schema, path: str, defs: Schema, opened: tuple[str, ...]) -> tuple[Schema, bool, tuple[str, ...]]:
    """The node with references and one-armed unions replaced by what they stand for, and whether it may be null."""
    nullable = False
    while True:
        if "$ref" in node:
            ref = node.pop("$ref")
            if ref in opened or ref == "#":
                _refuse(path, f"{ref} refers to itself, and responseSchema has no references")
            if ref not in defs:
                _refuse(path, f"{ref} is not defined in the schema", "Define it under $defs.")
            opened, node = (*opened, ref), {**defs[ref], **node}
        elif isinstance(node.get("allOf"), list) and len(node["allOf"]) == 1:
            node = {**node.pop("allOf")[0], **node}
        elif "anyOf" in node or "oneOf" in node:
            arms = node.pop("anyOf") if "anyOf" in node else node.pop("oneOf")
            others = [arm for arm in arms if arm != {"type": "null"}]
            nullable = nullable or len(others) < len(arms)
            if len(others) != 1:
                return {**node, "anyOf": others}, nullable, opened
            node = {**others[0], **node}
        else:
            return node, nullable, opened


def _without_null(node: Schema, nullable: bool, path: str) -> tuple[Schema, bool]:
    """The node without null among its types and values, and whether null was or is allowed."""
    kinds = node.get("type")
    if isinstance(kinds, list):
        nullable = nullable or "null" in kinds
        left = [kind for kind in kinds if kind != "null"]
        if len(left) > 1 and not set(node) <= {"type", "title", "description", "default"}:
            _refuse(f"{path}.type", "several types and further conditions in one schema")
        several = {**_but(node, "type"), "anyOf": [{"type": kind} for kind in left]}
        node = {**node, "type": left[0]} if len(left) == 1 else several
    if isinstance(node.get("enum"), list) and None in node["enum"]:
        nullable, node = True, {**node, "enum": [value for value in node["enum"] if value is not None]}
    if "default" in node and node["default"] is None:
        node = _but(node, "default")
    return node, nullable


def _with_format(node: Schema) -> Schema:
    """The node with a format that the service does not know said in words."""
    if "format" not in node or node["format"] in _FORMATS.get(node.get("type", ""), ()):
        return node
    said = f"{node.get('description', '')} (format: {node['format']})".strip()
    return {**_but(node, "format"), "description": said}


def _but(node: Schema, word: str) -> Schema:
    return {name: value for name, value in node.items() if name != word}


def _word(
    word: str, value: Any, node: Schema, path: str, defs: Schema, opened: tuple[str, ...]
) -> Iterator[tuple[str, Any]]:
    """What one word of JSON Schema becomes."""
    here = f"{path}.{word}"
    if word in _KEPT:
        yield word, value
    elif word == "type":
        if value not in _TYPES:
            _refuse(here, "it is not a type of JSON Schema", f"Write one of {', '.join(_TYPES)}.")
        yield word, value.upper()
    elif word == "properties":
        yield word, {name: _convert(each, f"{here}.{name}", defs, opened) for name, each in value.items()}
    elif word == "items":
        yield word, _convert(value, here, defs, opened)
    elif word == "anyOf":
        yield word, [_convert(arm, f"{here}[{at}]", defs, opened) for at, arm in enumerate(value)]
    elif word in ("enum", "const"):
        yield from _enum(value if word == "enum" else [value], node, here)
    elif word in ("exclusiveMinimum", "exclusiveMaximum"):
        if node.get("type") != "integer" or not isinstance(value, int):
            _refuse(here, "responseSchema knows minimum and maximum only")
        yield ("minimum", value + 1) if word == "exclusiveMinimum" else ("maximum", value - 1)
    elif word == "additionalProperties":
        if isinstance(value, Mapping):
            _refuse(
                here, "responseSchema has no objects with free names", "Use a list of objects with a name and a value."
            )
    elif word not in _ANNOTATIONS:
        _refuse(here, "responseSchema does not know this word")


def _enum(values: list[Any], node: Schema, here: str) -> Iterator[tuple[str, Any]]:
    if not values or not all(isinstance(value, str) for value in values):
        _refuse(here, "responseSchema lists text only")
    if "type" not in node:
        yield "type", "STRING"
    yield "enum", values


def _complete(out: Schema, path: str) -> None:
    """What the service needs beyond the user's words. Without propertyOrdering it may sort the properties by name."""
    if out.get("type") == "OBJECT":
        if not out.get("properties"):
            _refuse(f"{path}.properties", "an object without properties; the service refuses it")
        if len(out["properties"]) > 1:
            out.setdefault("propertyOrdering", list(out["properties"]))
    if out.get("type") == "ARRAY" and "items" not in out:
        _refuse(f"{path}.items", "a list that does not say what it holds")
