"""Holds the text of an answer against the response schema: fast accept, slow explain.

A schema may be JSON Schema or the service's OpenAPI subset (upper-case types, ``nullable``, counts as text). Most answers
are accepted by a type that msgspec checks in two microseconds; what it refuses, and every schema it cannot express, goes to
jsonschema, which has the last word and writes the sentence. The sentence names places and rules, never values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal

import msgspec
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError, best_match
from referencing import Registry, Resource
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.core.nesting import DEEPEST, too_deep
from airflow_provider_geminibatch.core.outcomes import Checked, SchemaCheck
from airflow_provider_geminibatch.core.repair import repaired
from airflow_provider_geminibatch.core.value_columns import ValueColumn, value_columns

_LONGEST = 200
_COUNTS = frozenset({"minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"})
_SCHEMAS_BY_NAME = ("properties", "$defs", "definitions", "patternProperties")
_DEFINITIONS = ("$defs", "definitions", "$id", "$schema")
_LISTS_OF_SCHEMAS = ("anyOf", "oneOf", "allOf", "prefixItems")
_DATA = frozenset({"default", "const", "enum", "example", "examples"})


def schema_check(schema: Mapping[str, Any], *, repair: bool = True) -> SchemaCheck:
    """A check of texts against ``schema``; what is not JSON may be repaired first. Raises Unusable for something that is no schema."""
    plain = json_schema(schema)
    try:
        Draft202012Validator.check_schema(plain)
    except SchemaError as error:
        raise Unusable("response_schema", f"at {error.json_path}: {error.message}", "Correct the schema.") from None
    # An empty registry: a reference that leads out of the schema is an error, never a download.
    return _Check(fast_type(plain), Draft202012Validator(plain, registry=Registry()), _words(plain), repair)


def _words(plain: Any) -> frozenset[str]:
    """The answers of a schema that is nothing but a choice of words: as ``text/x.enum`` they come bare, without quotes."""
    if isinstance(plain, Mapping) and plain.get("anyOf", [None])[1:] == [{"type": "null"}]:
        plain = plain["anyOf"][0]
    if not isinstance(plain, Mapping) or plain.get("type") != "string":
        return frozenset()
    return frozenset(word for word in plain.get("enum", ()) if isinstance(word, str))


def dangling(schema: Mapping[str, Any]) -> str:
    """The first reference of ``schema`` that leads nowhere or out of it, which makes answers uncheckable; else an empty text."""
    plain = json_schema(schema)
    resource = Resource.from_contents(plain, default_specification=DRAFT202012)
    base = resource.id() or ""
    resolver = Registry().with_resource(base, resource).resolver(base)
    for ref in _references(plain):
        try:
            resolver.lookup(ref)
        except Unresolvable:
            return ref
    return ""


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        for word, value in node.items():
            if word == "$ref" and isinstance(value, str):
                yield value
            elif word not in _DATA:
                yield from _references(value)
    elif isinstance(node, list):
        for item in node:
            yield from _references(item)


class _Check:
    """The two engines behind one call."""

    __slots__ = ("_fast", "_repair", "_slow", "_words")

    def __init__(self, fast: Any, slow: Draft202012Validator, words: frozenset[str], repair: bool) -> None:
        self._fast, self._slow, self._words, self._repair = fast, slow, words, repair

    @property
    def columns(self) -> tuple[ValueColumn, ...]:
        """The typed columns of a value that fits."""
        return value_columns(self._slow.schema)

    def __call__(self, text: str) -> Checked:
        if self._words and text.strip() in self._words:
            return Checked(text.strip())
        try:
            value = msgspec.json.decode(text)
        except (ValueError, RecursionError) as error:
            return (self._repaired(text) if self._repair else None) or Checked(None, f"not JSON: {error}")
        if too_deep(text):
            return Checked(None, f"nested deeper than {DEEPEST} levels")
        return Checked(value, self._problem(value))

    def _repaired(self, text: str) -> Checked | None:
        """What becomes of a text that is not JSON as it stands. Whatever comes of it is held against the schema as any other."""
        found = repaired(text)
        if found is None or too_deep(found.text):
            return None
        try:
            value = found.text if found.text in self._words else msgspec.json.decode(found.text)
        except (ValueError, RecursionError):
            return None
        return Checked(value, self._problem(value), found.what)

    def _problem(self, value: Any) -> str:
        if self._fast is not None:
            try:
                msgspec.convert(value, self._fast)
            except (msgspec.ValidationError, RecursionError):
                pass  # the slow engine has the last word
            else:
                return ""
        return self._explain(value)

    def _explain(self, value: Any) -> str:
        try:
            error = best_match(self._slow.iter_errors(value))
        except (RecursionError, Unresolvable, ArithmeticError) as problem:
            # ArithmeticError: jsonschema divides by ``multipleOf`` as floats, which numbers of 400 digits are too large for.
            return f"cannot be checked: {type(problem).__name__}"
        return "" if error is None else _sentence(error)


def _sentence(error: ValidationError) -> str:
    expected: Any = error.validator_value
    instance: Any = error.instance
    if error.validator == "required":
        return f"{error.json_path}: lacks {', '.join(repr(name) for name in expected if name not in instance)}"
    rule = msgspec.json.encode(expected, enc_hook=repr).decode()
    rule = rule if len(rule) <= _LONGEST else rule[: _LONGEST - 1] + "…"
    return f"{error.json_path}: does not fit {error.validator} {rule}"


def json_schema(schema: Any) -> Any:
    """``schema`` as JSON Schema: what is only spelled differently in the service's subset is respelled."""
    if not isinstance(schema, Mapping):
        return schema
    plain = dict(_respelled(schema))
    if plain.pop("nullable", False) is True:
        # Definitions stay where references look for them.
        shared = {name: plain.pop(name) for name in _DEFINITIONS if name in plain}
        return {"anyOf": [plain, {"type": "null"}], **shared}
    return plain


def _respelled(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in schema.items():
        if name == "type":
            types = [str(item).lower() for item in (value if isinstance(value, list) else [value])]
            if "type_unspecified" not in types:
                yield name, types if isinstance(value, list) else types[0]
        elif name == "pattern" and not _readable(value):
            pass  # the service's own dialect (RE2: \p{L} and the like); it has been told, and we cannot check it
        elif name in _COUNTS and isinstance(value, str) and value.isdigit():
            yield name, int(value)
        elif name in _SCHEMAS_BY_NAME and isinstance(value, Mapping):
            yield name, {key: json_schema(item) for key, item in value.items()}
        elif name in _LISTS_OF_SCHEMAS and isinstance(value, list):
            yield name, [json_schema(item) for item in value]
        elif name in ("items", "additionalProperties"):
            yield name, json_schema(value)
        else:
            yield name, value


def _readable(pattern: Any) -> bool:
    try:
        re.compile(pattern)
    except (re.error, TypeError):
        return not isinstance(pattern, str)
    return True


# What says nothing about a value.
_NOTES = frozenset(
    {"title", "description", "default", "example", "examples", "format", "propertyOrdering", "$schema", "$id"}
)


def fast_type(schema: Any) -> Any:
    """A type whose acceptance by msgspec implies validity against ``schema``, or None where there is none."""
    try:
        return _type(schema)
    except _Inexpressible:
        return None


class _Inexpressible(Exception):
    """The schema says something that our msgspec types do not."""


def _type(schema: Any) -> Any:
    rules = (
        {name: value for name, value in schema.items() if name not in _NOTES} if isinstance(schema, Mapping) else None
    )
    if rules is None:
        raise _Inexpressible
    if set(rules) == {"anyOf"}:
        return _nullable(rules["anyOf"])
    make = _TYPES.get(rules.pop("type", None)) if isinstance(rules.get("type"), str) else None
    if make is None:
        raise _Inexpressible
    return make(rules)


def _nullable(choices: Any) -> Any:
    others = [choice for choice in choices if choice != {"type": "null"}]
    if len(others) != 1:
        raise _Inexpressible
    return _type(others[0]) | None


def _only(rules: Mapping[str, Any], *known: str) -> None:
    if not set(rules) <= set(known):
        raise _Inexpressible


def _string(rules: Mapping[str, Any]) -> Any:
    choices = rules.get("enum")
    if choices is not None:
        _only(rules, "enum")
        if not choices or not all(isinstance(choice, str) for choice in choices):
            raise _Inexpressible
        return Literal[tuple(choices)]
    _only(rules, "minLength", "maxLength")
    return Annotated[str, _meta(min_length=_count(rules.get("minLength")), max_length=_count(rules.get("maxLength")))]


def _number(of: type[int | float]) -> Callable[[Mapping[str, Any]], Any]:
    def make(rules: Mapping[str, Any]) -> Any:
        _only(rules, "minimum", "maximum")
        return Annotated[of, _meta(ge=_bound(rules.get("minimum"), of), le=_bound(rules.get("maximum"), of))]

    return make


def _bound(found: Any, of: type[int | float]) -> float | None:
    # Beyond 2**53 a float bound is not the number that was written.
    if found is not None and not (isinstance(found, (int, of)) and abs(found) < 2**53):
        raise _Inexpressible
    return None if found is None else of(found)


def _count(found: Any) -> int | None:
    # JSON Schema takes 2.0 for a count, and any size.
    if found is not None and not (type(found) is int and found < 2**63):
        raise _Inexpressible
    return found


def _array(rules: Mapping[str, Any]) -> Any:
    _only(rules, "items", "minItems", "maxItems")
    kind: Any = list[_type(rules["items"])] if "items" in rules else list  # type: ignore[misc]
    return Annotated[kind, _meta(min_length=_count(rules.get("minItems")), max_length=_count(rules.get("maxItems")))]


def _object(rules: Mapping[str, Any]) -> Any:
    _only(rules, "properties", "required", "additionalProperties")
    closed = rules.get("additionalProperties", True)
    properties, required = rules.get("properties", {}), rules.get("required", [])
    if not isinstance(closed, bool) or not set(required) <= set(properties):
        raise _Inexpressible
    fields, names = [], {}
    for number, (name, schema) in enumerate(properties.items()):
        names[f"f{number}"], kind = name, _type(schema)
        field = (f"f{number}", kind) if name in required else (f"f{number}", kind | msgspec.UnsetType, msgspec.UNSET)
        fields.append(field)
    return msgspec.defstruct("Answer", fields, rename=names, kw_only=True, forbid_unknown_fields=not closed)


def _bare(of: Any) -> Callable[[Mapping[str, Any]], Any]:
    def make(rules: Mapping[str, Any]) -> Any:
        _only(rules)
        return of

    return make


def _meta(**rules: Any) -> msgspec.Meta:
    return msgspec.Meta(**{name: rule for name, rule in rules.items() if rule is not None})


_TYPES: dict[Any, Callable[[Mapping[str, Any]], Any]] = {
    "string": _string,
    "integer": _number(int),
    "number": _number(float),
    "boolean": _bare(bool),
    "null": _bare(None),
    "array": _array,
    "object": _object,
}


__all__ = ["fast_type", "json_schema", "schema_check"]
