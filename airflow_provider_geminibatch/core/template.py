"""The template of a request: fixed text with ``$columns``, encoded and checked once; per row only columns are spliced in.

``string.Template`` rules: ``$column``, ``${column}``, ``$$`` for a dollar. So Airflow's ``{{ ds }}`` and the braces of
JSON both stay usable in a prompt.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, ClassVar, Final, NamedTuple, Self

from airflow_provider_geminibatch.core import names
from airflow_provider_geminibatch.core.embed_template import EmbedTemplate
from airflow_provider_geminibatch.core.errors import Problem, Unusable
from airflow_provider_geminibatch.core.media import (
    INLINE_BYTES,
    INLINE_REQUEST_BYTES,
    MEDIA_FIELD,
    Media,
    media_of,
    stand_in,
)
from airflow_provider_geminibatch.core.prompt_order import order_doubt
from airflow_provider_geminibatch.core.requests import Checked, check_request
from airflow_provider_geminibatch.core.response_schema import (
    JSON_MIME,
    FieldChoice,
    json_schema_of,
    schema_config,
)
from airflow_provider_geminibatch.core.rows import (
    NOT_TEXT,
    Encoded,
    Problems,
    encode_json,
    missing_column,
    text_of,
)
from airflow_provider_geminibatch.core.template_values import Template, names_of, plain


@dataclass(frozen=True, eq=False, repr=False)
class RequestTemplate(Template):
    """What every row is asked. Equal arguments give equal values, equal text and equal JSON, in any process.

    :param prompt: The text of the user's turn.
    :param key: The row's own key; unique within a batch.
    :param system_instruction: Text that goes before; may hold columns too.
    :param response_schema: A pydantic model, another type, or a schema: answers come as JSON of this form.
    :param generation: Fields of ``generationConfig`` as a dict: ``{"temperature": 0, "max_output_tokens": 500}``.
    :param tools: A tool or a list of tools, in wire form.
    :param safety: Safety settings in wire form, or ``{category: threshold}``.
    :param media: Images, audio, video and documents of each row, which go before the text: ``"$image"`` (a column with a path,
        a URI or bytes), ``Media("$clip", video={"fps": 1})``, or a list of those.
    :param on_missing_media: ``fail``, or ``omit`` to ask a row without the medium that its column does not name.
    :param inline_limit_bytes: Larger media are uploaded, once per content, and not put into the request.
    :param columns: Columns of the source that come back beside each answer; ``"*"`` for all.
    :param schema_field: The field that carries the schema, where it is not the route's own: ``"responseJsonSchema"``,
        ``"responseFormat"`` or ``"responseSchema"``, or one by route: ``{"vertex": "responseJsonSchema"}``.
    """

    prompt: str
    key: str = "$id"
    system_instruction: str | None = None
    response_schema: Any = None
    generation: dict[str, Any] | None = None
    tools: list[Any] | dict[str, Any] | None = None
    safety: list[Any] | dict[str, str] | None = None
    columns: tuple[str, ...] | str = ()
    schema_field: FieldChoice = None
    media: Any = ()
    on_missing_media: str = "fail"
    inline_limit_bytes: int = INLINE_BYTES

    kind: ClassVar[str] = "generate"
    texts: ClassVar[tuple[str, ...]] = ("prompt", "key", "system_instruction")
    said: ClassVar[str] = "prompt"
    """The argument that every row has to fill with words."""
    arguments: ClassVar[dict[str, str]] = {
        "request.generationConfig": "generation",
        "request.tools": "tools",
        "request.safetySettings": "safety",
        "request.systemInstruction": "system_instruction",
    }
    """Which argument a path of the request comes from; ``said`` otherwise."""

    def __post_init__(self) -> None:
        # Types are turned into data at once, so that nothing in here depends on where a Dag file was loaded from.
        schema = None if self.response_schema is None else json_schema_of(self.response_schema)
        values = {
            "response_schema": schema,
            "columns": names_of(self.columns, "RequestTemplate(columns=)"),
            "media": media_of(self.media),
        }
        for name in ("generation", "tools", "safety", "schema_field"):
            values[name] = plain(getattr(self, name), f"RequestTemplate({name}=)")
        for name, value in values.items():
            object.__setattr__(self, name, value)
        if self.on_missing_media not in ("fail", "omit"):
            raise Unusable("RequestTemplate(on_missing_media=)", "it is not known", "Use 'fail' or 'omit'.")
        if not 0 <= self.inline_limit_bytes <= INLINE_REQUEST_BYTES:
            do = f"Pass a number from 0 to {INLINE_REQUEST_BYTES:,}."
            raise Unusable("RequestTemplate(inline_limit_bytes=)", "no request is that large", do)

    def serialize(self) -> dict[str, Any]:
        media = {"media": [medium.serialize() for medium in self.media]} if self.media else {}
        return super().serialize() | media

    def rendered(self, render: Callable[[str], str]) -> Self:
        return replace(super().rendered(render), media=tuple(medium.rendered(render) for medium in self.media))

    def request(self, put: Callable[[str, str], str], route: str) -> dict[str, Any]:
        """The request of every row; ``put(text, argument)`` gives a text with marks for its columns."""
        # Media before text: so the guides on images and video advise it for a single medium ("place the text prompt after").
        media = [{"fileData": {"fileUri": stand_in("0" * 64)}, **medium.more} for medium in self.media]
        request: dict[str, Any] = {
            "contents": [{"role": "user", "parts": [*media, {"text": put(self.prompt, "prompt")}]}]
        }
        if system := put(self.system_instruction or "", "system_instruction"):
            request["systemInstruction"] = {"parts": [{"text": system}]}
        config = {**_structured(self, route), **(self.generation or {})}
        if config:
            request["generationConfig"] = config
        if self.tools:
            request["tools"] = [self.tools] if isinstance(self.tools, dict) else self.tools
        if self.safety:
            request["safetySettings"] = _safety(self.safety)
        return request


AnyTemplate = RequestTemplate | EmbedTemplate

TEMPLATES: Final[dict[str, type[AnyTemplate]]] = {"generate": RequestTemplate, "embed": EmbedTemplate}
"""The template of each kind of batch."""


class Column(NamedTuple):
    """A place in a text where a column goes."""

    name: str


def parse_text(text: str, what: str) -> tuple[str | Column, ...]:
    """A text as its constant pieces and its columns. Raises Unusable for a ``$`` that is neither column nor ``$$``."""
    pieces: list[str | Column] = []
    end = 0
    for match in string.Template.pattern.finditer(text):
        pieces.append(text[end : match.start()])
        end = match.end()
        column = match["named"] or match["braced"]
        if column:
            pieces.append(Column(column))
        elif match["escaped"] is not None:
            pieces.append("$")
        else:
            line, at = text.count("\n", 0, match.start()) + 1, match.start() - text.rfind("\n", 0, match.start())
            raise Unusable(what, f"the $ in line {line}, character {at}, names no column", "Write $$ for a dollar.")
    return tuple(piece for piece in (*pieces, text[end:]) if piece)


class MediaSlot(NamedTuple):
    """A medium of each row: its source as pieces and columns, and what its encoded part says beside the data."""

    medium: Media
    source: tuple[str | Column, ...]
    more: bytes


@dataclass(frozen=True)
class WireTemplate:
    """A template ready for splicing: constant bytes, and the columns that go between them.

    ``spoken`` are the columns of a prompt that has no words of its own: one of them has to say something in every row.
    ``raw`` are places where a row brings JSON that is encoded already, under the name beside it.
    """

    pieces: tuple[bytes, ...]
    slots: tuple[tuple[int, str], ...]
    key: tuple[str | Column, ...]
    spoken: tuple[str, ...]
    raw: tuple[tuple[int, str], ...] = ()
    media: tuple[MediaSlot, ...] = ()
    said: str = "prompt"
    """The argument of the template that has to say something in every row."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that a row must have, in order of appearance."""
        found = [column for _, column in self.slots] + [piece.name for piece in self.key if isinstance(piece, Column)]
        return tuple(dict.fromkeys(found))

    @property
    def constant(self) -> str:
        """A digest of what all requests have in common."""
        return names.digest(*(piece.decode() for piece in self.pieces))

    @cached_property
    def span(self) -> slice:
        """The pieces from the first to the last that a row fills in."""
        filled = [at for at, _ in (*self.slots, *self.raw)]
        return slice(min(filled), max(filled) + 1) if filled else slice(0, 0)

    def encode(self, row: Mapping[str, Any]) -> Encoded | Problems:
        """The row's key and request, or what keeps it from having them."""
        out = list(self.pieces)
        try:
            for at, column in self.slots:
                out[at] = encode_json(_text(row[column]))[1:-1]
            for at, name in self.raw:
                out[at] = row.get(name, b"")  # who only looks at rows brings no media
            key = "".join([piece if isinstance(piece, str) else _text(row[piece.name]) for piece in self.key])
            if not self.spoken or any(_text(row[column]).strip() for column in self.spoken):
                return Encoded(key, b"".join(out), b"".join(out[self.span]))
        except (KeyError, ValueError):
            return [problem for column in self.columns for problem in _column_problems(row, column)]
        return [Problem(self.said, "is empty", "its columns hold nothing in this row")]


def _text(value: Any) -> str:
    text = value if type(value) is str else text_of(value)
    if text is None:
        raise ValueError("no text")
    return text


def _column_problems(row: Mapping[str, Any], column: str) -> Problems:
    if column not in row:
        return [missing_column(row, column)]
    text = text_of(row[column])
    if text is None:
        name = type(row[column]).__name__
        return [Problem(f"column {column}", f"a {name} has no text of its own", "convert it to text in the source")]
    try:
        text.encode()
    except UnicodeEncodeError:
        return [Problem(f"column {column}", *NOT_TEXT)]
    return []


def template_of(given: Mapping[str, Any], what: str) -> AnyTemplate:
    """The template that has these arguments. Raises Unusable, about ``what``, for arguments that none has."""
    made = next((each for each in TEMPLATES.values() if each.said in given), RequestTemplate)
    known = {field.name for field in fields(made)}
    strange = sorted(set(given) - known)
    if made.said not in given or strange:
        rest = ", ".join(sorted(known - {made.said}))
        do = f"Write the arguments of {made.__name__} as a JSON object: {made.said}, and any of {rest}."
        why = f": {made.__name__} has no {', no '.join(strange)}" if strange else ""
        raise Unusable(what, f"it is not a template{why}", do)
    return made(**given)


def compile_template(
    template: AnyTemplate,
    kind: str | None = None,
    *,
    route: str = "developer",
    check: Callable[[object], Checked] | None = None,
    warn: Callable[[tuple[Problem, ...]], object] = lambda warnings: None,
) -> WireTemplate:
    """Encode and check the constant part. Raises Unusable, naming the argument, for what the service would refuse.

    ``kind`` is what the template is for, and may only be said. ``check`` is the verdict on a request, by default that of
    ``check_request`` for the kind; ``warn`` is shown its warnings.
    """
    name = type(template).__name__
    if kind not in (None, template.kind):
        raise Unusable(
            f"kind={kind!r}", f"{name} is for kind {template.kind!r}", "Leave kind= out, or pass the other template."
        )
    _check_kinds(template)
    said, key = (parse_text(getattr(template, each), f"{name}({each}=)") for each in (template.said, "key"))
    for each, text in ((template.said, said), ("key", key)):
        if not any(type(piece) is Column or str(piece).strip() for piece in text):
            raise Unusable(f"{name}({each}=)", "it is empty", f"Write the {each}, with $columns of the source.")
    if template.response_schema is not None:
        _checkable(template.response_schema)
    marks = _Marks(template.declaration())
    request = template.request(lambda text, each: marks.put(parse_text(text, f"{name}({each}=)")), route)
    checked = check(request) if check else check_request(request, kind=template.kind, route=route)
    if checked.warnings:
        warn(checked.warnings)
    if checked.problems:
        first = checked.problems[0]
        raise Unusable(
            _argument(template, first.where),
            f"{first.where}: {first.what}",
            _sentence(first.hint or "correct the template"),
        )
    if isinstance(template, RequestTemplate):
        doubt = order_doubt(template.system_instruction, template.prompt, media=bool(template.media))
        if doubt is not None:
            warn((doubt,))
    more = _take_media(checked.request, len(template.media), marks)
    pieces, slots, raw = marks.split(encode_json(checked.request))
    sources = [parse_text(medium.source, "RequestTemplate(media=)") for medium in template.media]
    media = tuple(map(MediaSlot, template.media, sources, more))
    wordless = all(isinstance(piece, Column) or piece.isspace() for piece in said)
    spoken = tuple(piece.name for piece in said if isinstance(piece, Column)) if wordless else ()
    return WireTemplate(pieces, slots, key, spoken, raw, media, template.said)


_KINDS = {"prompt": str, "text": str, "title": str, "key": str, "system_instruction": str, "generation": dict}


def _check_kinds(template: AnyTemplate) -> None:
    """Raises Unusable for an argument of another kind, as a template that was read from a file may have."""
    for name, kind in _KINDS.items():
        given = getattr(template, name, None)
        if given is not None and not isinstance(given, kind):
            do = "Write a text, with $columns." if kind is str else 'Write a dict: {"temperature": 0}.'
            raise Unusable(f"{type(template).__name__}({name}=)", f"it is a {type(given).__name__}", do)


def _take_media(request: dict[str, Any], count: int, marks: _Marks) -> list[bytes]:
    """Put one mark in the place of all media parts of a checked request; what they said beside their data."""
    if not count:
        return []
    parts = request["contents"][0]["parts"]
    beside = [{name: value for name, value in part.items() if name != "fileData"} for part in parts[:count]]
    parts[:count] = [{"text": marks.put((Column(MEDIA_FIELD),))}]
    return [b"," + encode_json(more)[1:-1] if more else b"" for more in beside]


def _checkable(schema: Mapping[str, Any]) -> None:
    """Raises Unusable for a schema that answers cannot be held against: found out later, they would all be paid for."""
    from airflow_provider_geminibatch.core.schema_check import dangling, schema_check  # jsonschema is slow to import

    schema_check(schema)
    if ref := dangling(schema):
        raise Unusable("response_schema", f"{ref} is not defined in the schema", "Define it under $defs.")


_Slots = tuple[tuple[int, str], ...]


class _Marks:
    """Stand-ins for columns while the request is encoded. A text cannot hold them, since they are a digest of all texts."""

    def __init__(self, declaration: str) -> None:
        self._mark = names.digest(declaration)
        self._columns: list[str] = []

    def put(self, text: tuple[str | Column, ...]) -> str:
        out = []
        for piece in text:
            if isinstance(piece, Column):
                out.append(f"{self._mark}{len(self._columns):06d}")
                self._columns.append(piece.name)
            else:
                out.append(piece)
        return "".join(out)

    def split(self, encoded: bytes) -> tuple[tuple[bytes, ...], _Slots, _Slots]:
        """The encoded request with an empty piece for each column, and which column goes where: as text, and as it is."""
        first, *rest = encoded.split(self._mark.encode())
        pieces: list[bytes] = [first]
        slots: list[tuple[int, str]] = []
        raw: list[tuple[int, str]] = []
        for chunk in rest:
            column, following = self._columns[int(chunk[:6])], chunk[6:]
            if column == MEDIA_FIELD:  # a whole part and the comma behind it: the prompt's part always follows
                pieces[-1], following = pieces[-1].removesuffix(b'{"text":"'), following.removeprefix(b'"},')
            (raw if column == MEDIA_FIELD else slots).append((len(pieces), column))
            pieces += [b"", following]
        return tuple(pieces), tuple(slots), tuple(raw)


def _structured(template: RequestTemplate, route: str) -> dict[str, Any]:
    """The fields of generationConfig that ask for answers of the schema, the MIME type included."""
    if template.response_schema is None:
        return {}
    generation = template.generation or {}
    mime = generation.get("responseMimeType") or generation.get("response_mime_type") or JSON_MIME
    config = schema_config(template.response_schema, route, template.schema_field, mime)
    return {name: value for name, value in config.items() if name != "responseMimeType" or mime == JSON_MIME}


def _safety(safety: list[Any] | dict[str, str]) -> list[Any]:
    if not isinstance(safety, dict):
        return safety
    if "category" in safety:
        return [safety]
    return [
        {"category": name if name.startswith("HARM_CATEGORY_") else f"HARM_CATEGORY_{name}", "threshold": threshold}
        for name, threshold in safety.items()
    ]


def _argument(template: AnyTemplate, where: str) -> str:
    name = next((name for path, name in template.arguments.items() if where.startswith(path)), template.said)
    name = "media" if ".videoMetadata" in where or ".mediaResolution" in where else name
    return f"{type(template).__name__}({name}=)"


def _sentence(hint: str) -> str:
    return f"{hint[:1].upper()}{hint[1:]}." if hint and not hint.endswith("?") else hint[:1].upper() + hint[1:]
