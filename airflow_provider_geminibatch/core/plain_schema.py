"""JSON Schema as ``responseJsonSchema`` and ``responseFormat`` take it: what the service says it heeds of the standard.

References are inlined, but for those of a schema that holds itself. The service lets other words pass and does not heed
them; here they are refused by their path, since a schema would mean less than it says. What says nothing about an answer
(defaults, examples) is left out. ``oneOf`` is sent as ``anyOf``, which is how the service reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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

# The comment on GenerationConfig.response_json_schema in v1beta/generative_service.proto lists what is supported.
_PLAIN_WORDS = frozenset(
    {"title", "description", "required", "propertyOrdering", "minItems", "maxItems", "minimum", "maximum", "format"}
)
_OPENAPI_KNOWS = frozenset({"minLength", "maxLength", "pattern", "minProperties", "maxProperties"})
_OPENAPI_INSTEAD = "Set schema_field='responseSchema', which knows it."
_UNSAID = ANNOTATIONS | {"default", "example"}


def plain_schema(schema: Schema) -> Schema:
    """A JSON Schema as ``responseJsonSchema``: references inlined, but for those of a schema that holds itself.

    Raises Unusable, with the path, for what cannot be said there.
    """
    return _Plain(definitions(schema)).whole(schema)


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
            refuse(path, "it is no schema", "Write an object, such as {'type': 'string'}.")
        node, nullable, opened = flattened(dict(given), path, self._defs, opened)
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
            refuse(path, why, "Give the property a default, or write the schema to a fixed depth.")
        more = set(node) - {"$ref", "title", "description"} - _UNSAID
        if more:
            refuse(path, f"{', '.join(sorted(more))} beside $ref, which stands alone", "Put it into the definition.")
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
            return dict([inclusive(word, value, node, here, "responseJsonSchema")])
        if word not in _PLAIN_PARTS:
            do = _OPENAPI_INSTEAD if word in _OPENAPI_KNOWS else AS_IT_IS
            refuse(here, "responseJsonSchema does not heed this word", do)
        return {word: _PLAIN_PARTS[word](self, value, node, here, opened)}

    def type(self, value: Any, node: Schema, here: str, opened: Opened) -> Any:
        for kind in value if isinstance(value, list) else [value]:
            check_type(kind, here)
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
        node = {**without(node, "const"), "enum": [node["const"]]}
    if "enum" not in node:
        return node, nullable
    nullable = nullable or allows_null(node)
    values = [value for value in node["enum"] if value is not None]
    if any(not isinstance(value, str | int | float) or isinstance(value, bool) for value in values):
        refuse(here, "responseJsonSchema lists text and numbers only", "Use type boolean, or list them as text.")
    if not values:
        return {**without(node, "enum"), "type": "null"}, False
    if "type" not in node:
        kinds = sorted({"string" if isinstance(value, str) else "number" for value in values})
        node = {"type": kinds[0] if len(kinds) == 1 else kinds, **node}
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


__all__ = ["plain_schema"]
