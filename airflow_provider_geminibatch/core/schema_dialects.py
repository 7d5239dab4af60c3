"""The two dialects in which the service takes a schema, and what of JSON Schema each of them can say.

``openapi_schema`` is for ``responseSchema``, a subset of OpenAPI; ``plain_schema`` for ``responseJsonSchema`` and
``responseFormat``, a subset of JSON Schema. What a dialect cannot say is refused by its path and not dropped: that a schema
means less than it says is found out after the money is spent. Let go are only words that hold no answer back, and in
``responseSchema`` ``additionalProperties: false`` and formats that it does not know, since every answer is checked against
the whole schema anyway. ``oneOf`` is sent as ``anyOf``, which is how the service reads it (v1beta).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

from airflow_provider_geminibatch.core.errors import Unusable

Schema = dict[str, Any]
Opened = Mapping[str, bool]
"""The references that a place lies inside of, and whether a property that may be missing lies between."""

ROOT = "response_schema"
_ANNOTATIONS = frozenset(
    {
        "$schema", "$id", "$anchor", "$comment", "$defs", "definitions", "examples", "deprecated", "readOnly",
        "writeOnly", "discriminator", "nullable",
    }
)  # fmt: skip
_OPENAPI_WORDS = frozenset(
    {
        "title", "description", "default", "example", "required", "propertyOrdering", "minItems", "maxItems",
        "minProperties", "maxProperties", "minimum", "maximum", "minLength", "maxLength", "pattern", "format",
    }
)  # fmt: skip
# The comment on GenerationConfig.response_json_schema in v1beta/generative_service.proto lists what is supported.
_PLAIN_WORDS = frozenset(
    {"title", "description", "required", "propertyOrdering", "minItems", "maxItems", "minimum", "maximum", "format"}
)
_FORMATS = {
    "string": {"date-time", "enum"},
    "number": {"float", "double"},
    "integer": {"int32", "int64"},
}
_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
_ELSE = (
    "Leave the word out and say it in the description, or send the schema as it is: "
    "generation={'responseMimeType': 'application/json', 'responseJsonSchema': …}."
)


def openapi_schema(schema: Schema) -> Schema:
    """A JSON Schema as ``responseSchema``, references inlined. Raises Unusable, with the path, for what cannot be said there."""
    return _openapi(schema, ROOT, _definitions(schema), {"#": False})


def plain_schema(schema: Schema) -> Schema:
    """A JSON Schema as ``responseJsonSchema``: references inlined, but for those of a schema that holds itself.

    Raises Unusable, with the path, for what cannot be said there.
    """
    return _Plain(_definitions(schema)).whole(schema)


def _definitions(schema: Schema) -> Schema:
    named = {
        f"#/{word}/{name}": each for word in ("$defs", "definitions") for name, each in (schema.get(word) or {}).items()
    }
    return {**named, "#": schema}


def _refuse(path: str, why: str, do: str) -> NoReturn:
    raise Unusable(path, why, do)


def _flattened(node: Schema, path: str, defs: Schema, opened: Opened) -> tuple[Schema, bool, Opened]:
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
                _refuse(path, f"{ref} is not defined in the schema", "Define it under $defs.")
            opened, node = {**opened, ref: False}, {**defs[ref], **_but(node, "$ref")}
        elif isinstance(node.get("allOf"), list) and len(node["allOf"]) == 1:
            node = {**node["allOf"][0], **_but(node, "allOf")}
        elif "anyOf" in node or "oneOf" in node:
            word = "anyOf" if "anyOf" in node else "oneOf"
            others = [arm for arm in node[word] if arm != {"type": "null"}]
            nullable = nullable or len(others) < len(node[word])
            node = _but(node, word)
            if len(others) != 1:
                return {**node, "anyOf": others}, nullable, opened
            node = {**others[0], **node}
        else:
            return node, nullable, opened


def _but(node: Schema, word: str) -> Schema:
    return {name: value for name, value in node.items() if name != word}


def _type_known(value: Any, here: str) -> None:
    if value not in _TYPES:
        _refuse(here, "it is not a type of JSON Schema", f"Write one of {', '.join(_TYPES)}.")


def _bound(word: str, value: Any, node: Schema, here: str, field: str) -> tuple[str, Any]:
    """``exclusiveMinimum`` and ``exclusiveMaximum``, which only whole numbers can do without."""
    if node.get("type") != "integer" or not isinstance(value, int):
        do = "Use minimum or maximum (ge= and le= in pydantic)."
        _refuse(here, f"{field} knows minimum and maximum only", do)
    return ("minimum", value + 1) if word == "exclusiveMinimum" else ("maximum", value - 1)


# responseSchema


_PLAIN_INSTEAD = "Write it another way, or set schema_field='responseJsonSchema', which knows it."
_PLAIN_KNOWS = frozenset({"prefixItems"})


def _openapi(given: Any, path: str, defs: Schema, opened: Opened) -> Schema:
    if not isinstance(given, Mapping) or not given:
        _refuse(path, "it does not say what type it has", "Name a type, such as string.")
    node, nullable, opened = _flattened(dict(given), path, defs, opened)
    if "$ref" in node:
        why = f"{node['$ref']} refers to itself, and responseSchema has no references"
        _refuse(path, why, "Write it to a fixed depth, or set schema_field='responseJsonSchema'.")
    node, nullable = _without_null(node, nullable, path)
    node = _with_format(node)
    out: Schema = {}
    for word, value in node.items():
        for name, made in _openapi_word(word, value, node, path, defs, opened):
            out[name] = made
    if "type" not in out and "anyOf" not in out:
        _refuse(path, "it does not say what type it has", "Name a type, such as string.")
    if nullable:
        out["nullable"] = True
    _complete(out, path)
    return out


def _without_null(node: Schema, nullable: bool, path: str) -> tuple[Schema, bool]:
    """The node without null among its types and values, and whether null was or is allowed."""
    kinds = node.get("type")
    nullable = nullable or _allows_null(node)
    if isinstance(kinds, list):
        left = [kind for kind in kinds if kind != "null"]
        if len(left) > 1 and not set(node) <= {"type", "title", "description", "default"}:
            do = "Write an anyOf with one schema for each type."
            _refuse(f"{path}.type", "several types and further conditions in one schema", do)
        several = {**_but(node, "type"), "anyOf": [{"type": kind} for kind in left]}
        node = {**node, "type": left[0]} if len(left) == 1 else several
    if isinstance(node.get("enum"), list) and None in node["enum"]:
        node = {**node, "enum": [value for value in node["enum"] if value is not None]}
    if "default" in node and node["default"] is None:
        node = _but(node, "default")
    return node, nullable


def _allows_null(node: Schema) -> bool:
    """Whether null fits the types and the values that a node names, and it names either."""
    kinds, values = node.get("type"), node.get("enum")
    by_type = kinds is None or kinds == "null" or (isinstance(kinds, list) and "null" in kinds)
    by_value = not isinstance(values, list) or None in values
    return by_type and by_value and not (kinds is None and values is None) and kinds != "null"


def _with_format(node: Schema) -> Schema:
    """The node with a format that the service does not know said in words."""
    if "format" not in node or node["format"] in _FORMATS.get(node.get("type", ""), ()):
        return node
    said = f"{node.get('description', '')} (format: {node['format']})".strip()
    return {**_but(node, "format"), "description": said}


def _openapi_word(
    word: str, value: Any, node: Schema, path: str, defs: Schema, opened: Opened
) -> Iterator[tuple[str, Any]]:
    """What one word of JSON Schema becomes."""
    here = f"{path}.{word}"
    if word in _OPENAPI_WORDS:
        yield word, value
    elif word == "type":
        _type_known(value, here)
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
        yield _bound(word, value, node, here, "responseSchema")
    elif word == "additionalProperties":
        if isinstance(value, Mapping):
            do = "Use a list of objects with a name and a value, or set schema_field='responseJsonSchema'."
            _refuse(here, "responseSchema has no objects with free names", do)
    elif word not in _ANNOTATIONS:
        _refuse(here, "responseSchema does not know this word", _PLAIN_INSTEAD if word in _PLAIN_KNOWS else _ELSE)


def _words(values: list[Any], node: Schema, here: str) -> Iterator[tuple[str, Any]]:
    if not values or not all(isinstance(value, str) for value in values):
        do = "List them as text, or set schema_field='responseJsonSchema', which lists numbers too."
        _refuse(here, "responseSchema lists text only", do)
    if "type" not in node:
        yield "type", "STRING"
    yield "enum", values


def _complete(out: Schema, path: str) -> None:
    """What the service needs beyond the user's words. Without propertyOrdering it may sort the properties by name."""
    if out.get("type") == "OBJECT":
        if not out.get("properties"):
            do = "Name its properties, or set schema_field='responseJsonSchema'."
            _refuse(f"{path}.properties", "an object without properties; the service refuses it", do)
        if len(out["properties"]) > 1:
            out.setdefault("propertyOrdering", list(out["properties"]))
    if out.get("type") == "ARRAY" and "items" not in out:
        _refuse(f"{path}.items", "a list that does not say what it holds", "Say it, such as {'type': 'string'}.")


# responseJsonSchema, responseFormat


_OPENAPI_KNOWS = frozenset({"minLength", "maxLength", "pattern", "minProperties", "maxProperties"})
_OPENAPI_INSTEAD = "Set schema_field='responseSchema', which knows it."
_UNSAID = _ANNOTATIONS | {"default", "example"}


class _Plain:
    """One schema on its way: which definitions have to go along, since they hold themselves."""

    def __init__(self, defs: Schema) -> None:
        self._defs = defs
        self._kept: dict[str, str] = {}

    def whole(self, schema: Schema) -> Schema:
        out = self.node(schema, ROOT, {"#": False})
        made: Schema = {}
        while left := [ref for ref, name in self._kept.items() if name not in made]:
            ref = left[0]
            made[self._kept[ref]] = self.node(self._defs[ref], f"{ROOT}.$defs.{self._kept[ref]}", {ref: False})
        return {**out, "$defs": made} if made else out

    def node(self, given: Any, path: str, opened: Opened) -> Schema:
        if given is True:
            return {}
        if not isinstance(given, Mapping):
            _refuse(path, "it is no schema", "Write an object, such as {'type': 'string'}.")
        node, nullable, opened = _flattened(dict(given), path, self._defs, opened)
        if "$ref" in node:
            out = self._reference(node, path, opened)
        else:
            node, nullable = _listed(node, nullable, f"{path}.enum")
            out = {}
            for word, value in node.items():
                out.update(self._word(word, value, node, path, opened))
        return _or_null(out) if nullable else out

    def _reference(self, node: Schema, path: str, opened: Opened) -> Schema:
        ref = node["$ref"]
        if not opened[ref]:
            why = f"{ref} refers to itself inside of required properties, and the service unrolls only what may be missing"
            _refuse(path, why, "Give the property a default, or write the schema to a fixed depth.")
        more = set(node) - {"$ref", "title", "description"} - _UNSAID
        if more:
            _refuse(path, f"{', '.join(sorted(more))} beside $ref, which stands alone", "Put it into the definition.")
        name = self._kept.setdefault(ref, ref.rpartition("/")[2] if ref != "#" else self._free_name())
        return {"$ref": f"#/$defs/{name}"}

    def _free_name(self) -> str:
        name = "Whole"
        while any(f"#/{word}/{name}" in self._defs for word in ("$defs", "definitions")):
            name += "_"
        return name

    def _word(self, word: str, value: Any, node: Schema, path: str, opened: Opened) -> Schema:
        """What one word of JSON Schema becomes."""
        here = f"{path}.{word}"
        if word in _PLAIN_WORDS:
            return {word: value}
        if word in _UNSAID:
            return {}
        if word in ("exclusiveMinimum", "exclusiveMaximum"):
            return dict([_bound(word, value, node, here, "responseJsonSchema")])
        if word not in _PLAIN_PARTS:
            do = _OPENAPI_INSTEAD if word in _OPENAPI_KNOWS else _ELSE
            _refuse(here, "responseJsonSchema does not heed this word", do)
        return {word: _PLAIN_PARTS[word](self, value, node, here, opened)}

    def type(self, value: Any, node: Schema, here: str, opened: Opened) -> Any:
        for kind in value if isinstance(value, list) else [value]:
            _type_known(kind, here)
        return value

    def enum(self, value: Any, node: Schema, here: str, opened: Opened) -> Any:
        return value

    def properties(self, value: Any, node: Schema, here: str, opened: Opened) -> Any:
        required, crossed = node.get("required") or (), dict.fromkeys(opened, True)
        return {
            name: self.node(each, f"{here}.{name}", opened if name in required else crossed)
            for name, each in value.items()
        }

    def one(self, value: Any, node: Schema, here: str, opened: Opened) -> Any:
        return self.node(value, here, opened)

    def several(self, value: Any, node: Schema, here: str, opened: Opened) -> Any:
        return [self.node(each, f"{here}[{at}]", opened) for at, each in enumerate(value)]

    def free(self, value: Any, node: Schema, here: str, opened: Opened) -> Any:
        return value if isinstance(value, bool) else self.node(value, here, dict.fromkeys(opened, True))


_PLAIN_PARTS: dict[str, Callable[[_Plain, Any, Schema, str, Opened], Any]] = {
    "type": _Plain.type,
    "enum": _Plain.enum,
    "properties": _Plain.properties,
    "items": _Plain.one,
    "prefixItems": _Plain.several,
    "anyOf": _Plain.several,
    "additionalProperties": _Plain.free,
}


def _listed(node: Schema, nullable: bool, here: str) -> tuple[Schema, bool]:
    """The node with ``const`` as an ``enum`` of one and null out of it, and whether null was or is allowed."""
    if "const" in node:
        node = {**_but(node, "const"), "enum": [node["const"]]}
    if "enum" not in node:
        return node, nullable
    nullable = nullable or _allows_null(node)
    values = [value for value in node["enum"] if value is not None]
    if any(not isinstance(value, str | int | float) or isinstance(value, bool) for value in values):
        _refuse(here, "responseJsonSchema lists text and numbers only", "Use type boolean, or list them as text.")
    if not values:
        return {**_but(node, "enum"), "type": "null"}, False
    if isinstance(node.get("type"), list):
        kinds = [kind for kind in node["type"] if kind != "null"]
        node = {**node, "type": kinds[0] if len(kinds) == 1 else kinds}
    return {**node, "enum": values}, nullable


def _or_null(out: Schema) -> Schema:
    kinds = out.get("type")
    if kinds is not None and "enum" not in out and "anyOf" not in out:
        listed = kinds if isinstance(kinds, list) else [kinds]
        return {**out, "type": [*listed, "null"] if "null" not in listed else listed}
    if set(out) <= {"anyOf", "title", "description"}:
        return {**out, "anyOf": [*out["anyOf"], {"type": "null"}]} if "anyOf" in out else out
    return {"anyOf": [out, {"type": "null"}]}


__all__ = ["openapi_schema", "plain_schema"]
