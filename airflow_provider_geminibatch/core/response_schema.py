"""The schema of an answer: from what a user writes to JSON Schema, and from there to the field in which a route takes it.

``responseSchema`` is the form that works in batches (``responseJsonSchema`` was once measured at 0 of 502 usable
answers on the batch endpoint: crmne/ruby_llm#894, August 2026; hindsight PR#2719 uses it without complaint). Another field
is a word in the template, and what each dialect cannot say is refused by its path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

import msgspec

from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.core.fields import MESSAGES, ROUTES, snake
from airflow_provider_geminibatch.core.openapi_schema import openapi_schema
from airflow_provider_geminibatch.core.plain_schema import plain_schema
from airflow_provider_geminibatch.core.rule_names import WARNINGS
from airflow_provider_geminibatch.core.schema_nodes import ROOT, Schema
from airflow_provider_geminibatch.core.table_import import empty_objects, import_faults
from airflow_provider_geminibatch.core.vectors import asked_dimensions

SCHEMA_FIELDS: Final = {"developer": "responseSchema", "vertex": "responseSchema"}
"""The field that a schema goes into unless a template says otherwise, by route: on both the one that is seen to work."""

JSON_MIME: Final = "application/json"
ENUM_MIME: Final = "text/x.enum"

_CAMEL = {snake(name): name for name in MESSAGES["Schema"]}


def json_schema_of(given: object) -> Schema:
    """A JSON Schema from a pydantic model or any type that pydantic can describe, or from a schema in either form."""
    if isinstance(given, Mapping):
        form: Schema = _json_form(given)
        return form
    plain: Schema = _untitled(_described(given), getattr(given, "__name__", ""))
    return plain


_ASKED = ("responseSchema", "response_schema", "responseJsonSchema", "response_json_schema", "_responseJsonSchema")


def asked_schema(config: Any) -> Schema | None:
    """The schema that a ``generationConfig`` asks for, under whichever of its names."""
    if not isinstance(config, Mapping):
        return None
    form = config.get("responseFormat") or config.get("response_format")
    forms = form if isinstance(form, list) else [form]
    texts = [each.get("text") for each in forms if isinstance(each, Mapping)]
    newer = [text.get("schema") for text in texts if isinstance(text, Mapping)]
    found = [*(config.get(name) for name in _ASKED), *newer]
    return next((dict(schema) for schema in found if isinstance(schema, Mapping)), None)


class CommonSchema:
    """What all requests of a source ask for: a schema, or vectors of one length; None when one of them asks for another, or
    for none.
    """

    def __init__(self) -> None:
        self.schema: Schema | None = None
        self.dimensions: int | None = None
        self._begun = False

    def note(self, request: Mapping[str, Any]) -> None:
        """Look at one more request."""
        found = asked_schema(request.get("generationConfig"))
        if self._begun and found != self.schema:
            found = None
        length = asked_dimensions(request)
        if self._begun and length != self.dimensions:
            length = None
        self.schema, self.dimensions, self._begun = found, length, True


def _described(given: Any) -> Schema:
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

    describe = getattr(given, "model_json_schema", None)
    try:
        return describe() if describe else TypeAdapter(given).json_schema()
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        name = getattr(given, "__name__", type(given).__name__)
        do = "Pass a pydantic model, a dataclass, a TypedDict or a JSON Schema."
        if getattr(error, "code", "") == "typed-dict-version":  # typing's own tells too little before Python 3.12
            do = "Import TypedDict from typing_extensions."
        raise Unusable(ROOT, f"{name} describes no JSON ({str(error).splitlines()[0]})", do) from None


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


def _older(name: str, dialect: Callable[[Schema], Schema]) -> Callable[[Schema, str, str], Schema]:
    """The two fields that stand beside ``responseMimeType``, without which the service refuses them."""
    return lambda schema, route, mime: {"responseMimeType": mime, name: dialect(schema)}


def _response_format(schema: Schema, route: str, mime: str) -> Schema:
    """The newest form. It names the MIME type by an enum in the discovery document, and as text in the REST guide, while
    the service tells nobody which (discuss.ai.google.dev/t/188396, October 2026); proto3 JSON takes an enum's name."""
    if mime != JSON_MIME:
        do = f"Leave the MIME type out, or use responseSchema for {mime}."
        raise Unusable("RequestTemplate(generation=)", f"responseFormat has no {mime}", do)
    text = {"mimeType": "APPLICATION_JSON", "schema": plain_schema(schema)}
    return {"responseFormat": [{"text": text}] if route == "vertex" else {"text": text}}


_FIELDS: Final[dict[str, Callable[[Schema, str, str], Schema]]] = {
    "responseSchema": _older("responseSchema", openapi_schema),
    "responseJsonSchema": _older("responseJsonSchema", plain_schema),
    "responseFormat": _response_format,
}

_DOUBTS: Final = {
    "responseFormat": "whether batches heed responseFormat is not known, nor which spelling of its MIME type they take",
}
"""What is not certain of a field and not said by the check of requests, which warns of ``responseJsonSchema``."""

FieldChoice = str | Mapping[str, str] | None
"""What a template may say about the field: nothing, one field, or one for each route that differs."""


def schema_field(chosen: FieldChoice, route: str) -> str:
    """The field that a schema goes into on a route. Raises Unusable for a field or a route that does not exist."""
    given = chosen if isinstance(chosen, Mapping) else dict.fromkeys(ROUTES, chosen)
    what = "RequestTemplate(schema_field=)"
    for name, field in given.items():
        if name not in ROUTES:
            raise Unusable(what, f"{name!r} is no route", f"Use {' or '.join(ROUTES)}.")
        if field is not None and field not in _FIELDS:
            raise Unusable(what, "it names no field for a schema", f"Use {', '.join(_FIELDS)}.")
    return given.get(route) or SCHEMA_FIELDS[route]


def schema_config(schema: Schema, route: str, chosen: FieldChoice = None, mime: str = JSON_MIME) -> Schema:
    """The fields of ``generationConfig`` that ask for answers of a schema. Raises Unusable, with the path, for what they cannot say."""
    if mime == ENUM_MIME and not _is_a_choice(schema):
        do = "Pass an enum of texts, or leave the MIME type out for answers in JSON."
        raise Unusable("RequestTemplate(generation=)", "text/x.enum asks for one word of an enum, and this is none", do)
    made = _FIELDS[schema_field(chosen, route)](schema, route, mime)
    if route == "vertex":
        _refuse_unimportable(made)
    return made


def _refuse_unimportable(config: Schema) -> None:
    """Raises Unusable for a schema that would fail the import of every job of Vertex AI, wherever it stands in the request."""
    asked = {"generationConfig": config}
    for path in empty_objects(asked):
        do = "Say what it may hold, or leave it out; on the Developer API it may stand."
        raise Unusable(path, "it says nothing, and the import of a Vertex AI batch fails on an empty object", do)
    for fault in import_faults(asked):
        if fault.rule not in WARNINGS:
            raise Unusable(fault.field, f"it {fault.what}", f"{fault.hint[:1].upper()}{fault.hint[1:]}.")


def _is_a_choice(schema: Schema) -> bool:
    try:
        return "enum" in openapi_schema(schema)
    except Unusable:
        return False


def schema_doubt(route: str, chosen: FieldChoice = None) -> str:
    """What is not certain about the field that a schema goes into; an empty text for the default."""
    doubt = _DOUBTS.get(schema_field(chosen, route), "")
    return f"{doubt}: look at a few answers first, as canary= does" if doubt else ""


BYTES_PER_TOKEN: Final = 4
"""assumed: what JSON takes on average; a count by the service replaces it where there is one."""


@dataclass(frozen=True)
class SchemaOverhead:
    """What a schema adds to every request. It is paid for as input."""

    field: str
    size_bytes: int
    tokens: int
    counted: bool = False

    def said(self, rows: int) -> str:
        """The overhead as a sentence, over so many rows."""
        basis = "counted by the service" if self.counted else f"assumed: {BYTES_PER_TOKEN} bytes a token"
        return (
            f"the schema costs about {self.tokens:,} tokens in every row, {_short(self.tokens * rows)} over {rows:,} rows "
            f"({basis})"
        )


def schema_overhead(
    schema: Schema, route: str = "developer", chosen: FieldChoice = None, *, tokens: int | None = None
) -> SchemaOverhead:
    """What a schema adds to every request: its bytes on the wire, and its tokens, estimated unless somebody counted them."""
    config = schema_config(schema, route, chosen)
    size_bytes = len(msgspec.json.encode(config)) - len(b"{}")
    estimated = ceil(size_bytes / BYTES_PER_TOKEN)
    return SchemaOverhead(
        schema_field(chosen, route), size_bytes, estimated if tokens is None else tokens, counted=tokens is not None
    )


def _short(number: int) -> str:
    """A count as people say it: 740, 37 k, 3.7 M."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.2g} {unit}" if number < 10 * size else f"{number / size:,.0f} {unit}"
    return str(number)
