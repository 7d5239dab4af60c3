"""A JSON document that conforms to a schema, made up from an echo and a seeded generator.

Reads both the OpenAPI subset of `responseSchema` (types in capitals, `nullable`, `propertyOrdering`) and the JSON
Schema of `responseJsonSchema` (types in small letters or as a list, `$ref`, `anyOf`, `const`). `pattern` is not
followed.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil, floor
from random import Random
from typing import Any

from airflow_provider_geminibatch.emulator.fields import snake
from airflow_provider_geminibatch.emulator.wire import Json

# Beyond this many objects inside one another only required properties are filled in, so that recursive schemas end.
_DEPTH = 5
# A reference that leads only to itself ends after so many steps.
_REFERENCES = 32
_FORMATS: Mapping[str, Callable[[Random], str]] = {
    "date-time": lambda rng: f"2026-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}T{rng.randint(0, 23):02}:00:00Z",
    "date": lambda rng: f"2026-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}",
    "time": lambda rng: f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}:00Z",
    "duration": lambda rng: f"PT{rng.randint(1, 59)}M",
    "email": lambda rng: f"someone{rng.randint(1, 999)}@example.com",
    "uri": lambda rng: f"https://example.com/{rng.randint(1, 999)}",
    "uuid": lambda rng: str(uuid.UUID(int=rng.getrandbits(128), version=4)),
}


def document(schema: Mapping[str, Any], echo: str, seed: int) -> Any:
    """A document of that schema. Free strings carry the echo; numbers, choices and lengths follow the seed."""
    return _Maker(schema, echo, Random(seed)).make(schema, 0)


@dataclass(frozen=True, slots=True)
class _Maker:
    root: Mapping[str, Any]
    echo: str
    rng: Random

    def make(self, schema: Any, depth: int) -> Any:
        if not isinstance(schema, Mapping):  # `true` in JSON Schema
            return self.echo
        schema = self._resolved(schema)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return self.rng.choice([choice for choice in schema["enum"] if choice is not None] or [None])
        return _MAKERS[_type_of(schema)](self, schema, depth)

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """The schema with `$ref`, `allOf` and the first useful branch of `anyOf` or `oneOf` folded in."""
        for _ in range(_REFERENCES):
            reference = schema.get("$ref")
            branches = _get(schema, "anyOf") or _get(schema, "oneOf")
            if isinstance(reference, str):
                schema = {**self._at(reference), **_without(schema, "$ref")}
            elif branches:
                kept = [branch for branch in branches if not _is_null(branch)] or [{"type": "null"}]
                schema = {**_without(schema, "anyOf", "any_of", "oneOf", "one_of"), **kept[0]}
            elif schema.get("allOf"):
                schema = _merged([_without(schema, "allOf"), *map(self._resolved, schema["allOf"])])
            else:
                break
        return schema

    def _at(self, reference: str) -> Mapping[str, Any]:
        found: Any = self.root
        for step in filter(None, reference.removeprefix("#").split("/")):
            found = found.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(found, Mapping) else None
        return found if isinstance(found, Mapping) else {}

    def object(self, schema: Mapping[str, Any], depth: int) -> Json:
        properties: Mapping[str, Any] = schema.get("properties") or {}
        required = schema.get("required") or ()
        ordering = _get(schema, "propertyOrdering") or ()
        names = [
            *(name for name in ordering if name in properties),
            *(name for name in properties if name not in ordering),
        ]
        return {name: self.make(properties[name], depth + 1) for name in names if depth < _DEPTH or name in required}

    def array(self, schema: Mapping[str, Any], depth: int) -> list[Any]:
        least, most = int(_get(schema, "minItems") or 0), _get(schema, "maxItems")
        first = [self.make(item, depth + 1) for item in schema.get("prefixItems") or ()]
        likely = 0 if depth >= _DEPTH else self.rng.randint(1, 3)
        count = max(least, likely if most is None else min(likely, int(most)))
        items = schema.get("items", {})
        rest = [] if items is False else [self.make(items, depth + 1) for _ in range(count - len(first))]
        return first + (_distinct(rest) if schema.get("uniqueItems") else rest)

    def string(self, schema: Mapping[str, Any], depth: int) -> str:
        made = _FORMATS.get(schema.get("format") or "")
        text = made(self.rng) if made else self.echo
        least, most = int(_get(schema, "minLength") or 0), _get(schema, "maxLength")
        text += "." * (least - len(text))
        return text if most is None else text[: int(most)]

    def integer(self, schema: Mapping[str, Any], depth: int) -> int:
        low, high = self._bounds(schema, 1)
        step = int(_get(schema, "multipleOf") or 1)
        return step * self.rng.randint(ceil(low / step), max(floor(high / step), ceil(low / step)))

    def number(self, schema: Mapping[str, Any], depth: int) -> float:
        low, high = self._bounds(schema, 1e-6)
        step = _get(schema, "multipleOf")
        if step:
            return float(step) * self.rng.randint(ceil(low / step), max(floor(high / step), ceil(low / step)))
        return min(max(round(self.rng.uniform(low, high), 4), low), high)

    def boolean(self, schema: Mapping[str, Any], depth: int) -> bool:
        return self.rng.random() < 0.5

    def nothing(self, schema: Mapping[str, Any], depth: int) -> None:
        return None

    def _bounds(self, schema: Mapping[str, Any], margin: float) -> tuple[float, float]:
        """The closed range of a number; an open end is moved by the margin. Without ends, about 0 to 100."""
        ends = (_get(schema, name) for name in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"))
        low, high, above, below = (None if end is None else float(end) for end in ends)
        low = above + margin if low is None and above is not None else low
        high = below - margin if high is None and below is not None else high
        low = (0 if high is None or high >= 0 else high - 100) if low is None else low
        return low, (low + 100 if high is None else high)


_MAKERS: Mapping[str, Callable[[_Maker, Mapping[str, Any], int], Any]] = {
    "object": _Maker.object,
    "array": _Maker.array,
    "string": _Maker.string,
    "integer": _Maker.integer,
    "number": _Maker.number,
    "boolean": _Maker.boolean,
    "null": _Maker.nothing,
}


def _type_of(schema: Mapping[str, Any]) -> str:
    named = schema.get("type")
    kinds = [str(kind).lower() for kind in (named if isinstance(named, list) else [named]) if kind is not None]
    kinds = [kind for kind in kinds if kind in _MAKERS]
    if kinds:
        return next((kind for kind in kinds if kind != "null"), "null")
    return "object" if "properties" in schema else "array" if "items" in schema else "string"


def _get(schema: Mapping[str, Any], name: str) -> Any:
    return schema.get(name, schema.get(snake(name)))


def _without(schema: Mapping[str, Any], *names: str) -> Json:
    return {name: value for name, value in schema.items() if name not in names}


def _is_null(schema: Any) -> bool:
    return isinstance(schema, Mapping) and str(schema.get("type", "")).lower() == "null"


def _merged(schemas: list[Mapping[str, Any]]) -> Json:
    whole: Json = {}
    for schema in schemas:
        properties = {**whole.get("properties", {}), **schema.get("properties", {})}
        required = [*whole.get("required", ()), *schema.get("required", ())]
        whole = {**whole, **schema, **({"properties": properties, "required": required} if properties else {})}
    return whole


def _distinct(items: list[Any]) -> list[Any]:
    return [item for index, item in enumerate(items) if item not in items[:index]]


__all__ = ["document"]
