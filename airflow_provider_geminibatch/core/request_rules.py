"""The rules over several fields of a message.

A rule looks at a message whose fields are in order one by one, as it goes on the wire, and yields what does not fit. Its
source stands beside it: what no source says is not a rule.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from airflow_provider_geminibatch.core import limits
from airflow_provider_geminibatch.core.fields import PAYLOADS, messages
from airflow_provider_geminibatch.core.media_uris import BLANK, uri_fault
from airflow_provider_geminibatch.core.table_import import import_faults

Message = dict[str, Any]


class Finding(NamedTuple):
    """What a rule found: the field below the message it looked at (empty: the message itself), and what to say."""

    field: str
    rule: str
    what: str
    hint: str = ""


Rule = Callable[[Message], Iterator[Finding]]


def _one_payload(names: tuple[str, ...]) -> Rule:
    def rule(part: Message) -> Iterator[Finding]:
        held = [name for name in names if name in part]
        if not held:
            yield Finding("", "no-payload", "holds nothing", f"write one of {', '.join(names)}")
        elif len(held) > 1:
            yield Finding(
                "", "two-payloads", f"holds {' and '.join(held)}", "a part holds one of them; make several parts"
            )
        # "The metadata should only be specified while the video data is presented in inline_data or file_data" (v1beta).
        if "videoMetadata" in part and "inlineData" not in part and "fileData" not in part:
            yield Finding(
                "videoMetadata", "metadata-alone", "stands in a part without inlineData or fileData", "move it"
            )

    return rule


_SCHEMAS: Final = ("responseSchema", "responseJsonSchema", "_responseJsonSchema")


def _structured_output(config: Message) -> Iterator[Finding]:
    schemas = [name for name in _SCHEMAS if name in config]
    mime = config.get("responseMimeType")
    if len(schemas) > 1:
        yield Finding(schemas[1], "two-schemas", f"stands beside {schemas[0]}", "keep one of them")
    if schemas and mime is None:
        yield Finding("responseMimeType", "mime-missing", f"is missing beside {schemas[0]}", "write application/json")
    elif schemas and mime not in ("application/json", "text/x.enum"):
        yield Finding("responseMimeType", "mime-unfit", f"does not fit {schemas[0]}", "write application/json")
    stops = config.get("stopSequences")
    if isinstance(stops, list) and len(stops) > limits.STOP_SEQUENCES:
        yield Finding(
            "stopSequences", "too-many-stops", f"has {len(stops)} entries", f"the service takes {limits.STOP_SEQUENCES}"
        )
    yield from _in_range(config)
    # "Only valid if response_logprobs=True" (v1beta).
    if "logprobs" in config and config.get("responseLogprobs") is not True:
        yield Finding("logprobs", "logprobs-alone", "stands without responseLogprobs", "write responseLogprobs: true")


def _heeded(config: Message) -> Iterator[Finding]:
    # 0 of 502 answers usable with it in a batch, and all with responseSchema (crmne/ruby_llm#894, 2026-08); others use it
    # without complaint, so it warns.
    if "responseJsonSchema" in config and "responseSchema" not in config:
        hint = "write responseSchema; the answers are checked either way"
        yield Finding("responseJsonSchema", "schema-unheeded", "is reported not to be heeded in batches", hint)


def _no_mcp_with_schema(request: Message) -> Iterator[Finding]:
    # Every row failed with code 3 while the job succeeded (python-genai#2693).
    config, tools = request.get("generationConfig"), request.get("tools")
    if isinstance(config, dict) and isinstance(tools, list) and any(name in config for name in _SCHEMAS):
        for at, tool in enumerate(tools):
            if isinstance(tool, dict) and "mcpServers" in tool:
                what = "stands beside a schema, and every row of such a batch is reported to fail"
                yield Finding(f"tools[{at}].mcpServers", "mcp-with-schema", what, "leave out one of the two")


def _in_range(message: Message) -> Iterator[Finding]:
    for name, (least, most, words) in limits.RANGES.items():
        value = message.get(name)
        if isinstance(value, int | float) and -math.inf < value < math.inf and not least <= value <= most:
            yield Finding(name, "out-of-range", "is outside its range", words)


def _thinking(config: Message) -> Iterator[Finding]:
    yield from _in_range(config)
    # 400 "thinking_budget and thinking_level are not supported together" (thinking guide, and reported).
    if "thinkingLevel" in config and "thinkingBudget" in config:
        yield Finding("thinkingBudget", "thinking-both", "stands beside thinkingLevel", "keep one of them")


_BESIDE_A_CACHE: Final = ("systemInstruction", "tools", "toolConfig")


def _cache_alone(request: Message) -> Iterator[Finding]:
    # 400 "CachedContent can not be used with GenerateContent request setting system_instruction, tools or tool_config".
    if "cachedContent" in request:
        for name in _BESIDE_A_CACHE:
            if name in request:
                yield Finding(
                    name, "beside-cache", "cannot stand beside cachedContent", "put it into the cached content"
                )


def _no_cache(request: Message) -> Iterator[Finding]:
    # Batch inference guide of Vertex AI: explicit caching is not supported. The job succeeds with a 404 in every row.
    if "cachedContent" in request:
        hint = "leave it out; a Vertex AI batch caches by itself what requests have in common"
        yield Finding("cachedContent", "no-cache", "is not supported in a batch", hint)


def _declared(request: Message) -> Iterator[Finding]:
    # "Function names should match FunctionDeclaration.name" (v1beta, FunctionCallingConfig).
    config = request.get("toolConfig")
    calling = config.get("functionCallingConfig") if isinstance(config, dict) else None
    allowed = calling.get("allowedFunctionNames") if isinstance(calling, dict) else None
    tools = request.get("tools")
    elsewhere = (
        any(isinstance(tool, dict) and "mcpServers" in tool for tool in tools) if isinstance(tools, list) else False
    )
    if not isinstance(allowed, list) or "cachedContent" in request or elsewhere:
        return
    declared = {
        function.get("name")
        for tool in (tools if isinstance(tools, list) else ())
        for function in (tool.get("functionDeclarations") if isinstance(tool, dict) else None) or ()
        if isinstance(function, dict)
    }
    for at, name in enumerate(allowed):
        if isinstance(name, str) and name not in declared:
            where = f"toolConfig.functionCallingConfig.allowedFunctionNames[{at}]"
            yield Finding(
                where,
                "undeclared-function",
                "is declared by no tool",
                "name a function of tools[].functionDeclarations",
            )


def _typed(schema: Message) -> Iterator[Finding]:
    if "type" not in schema and "anyOf" not in schema and "ref" not in schema:
        yield Finding("type", "untyped-schema", "is missing", "write STRING, NUMBER, INTEGER, BOOLEAN, ARRAY or OBJECT")
    elif schema.get("type") == "ARRAY" and "items" not in schema:
        yield Finding("items", "no-items", "is missing", "an ARRAY says what it holds")
    # 400 "required[0]: property is not defined" and "enum[0]: cannot be empty" (reported, python-genai and js-genai).
    properties, required, words = schema.get("properties"), schema.get("required"), schema.get("enum")
    if isinstance(required, list):
        for at, name in enumerate(required):
            if not isinstance(properties, dict) or name not in properties:
                yield Finding(f"required[{at}]", "undefined-property", "is not among the properties", "add it there")
    if isinstance(words, list) and "" in words:
        yield Finding(f"enum[{words.index('')}]", "empty-word", "is empty", 'leave it out, or write "nullable": true')


# "Must be a-z, A-Z, 0-9, or contain underscores, colons, dots, and dashes" (v1beta, FunctionDeclaration).
_FUNCTION_NAME = re.compile(r"[A-Za-z0-9_.:-]+\Z")


def _function(declaration: Message) -> Iterator[Finding]:
    name = declaration.get("name")
    if isinstance(name, str) and name and not (_FUNCTION_NAME.match(name) and len(name) <= limits.FUNCTION_NAME):
        hint = f"use letters, digits and _ . : -, {limits.FUNCTION_NAME} at most"
        yield Finding("name", "function-name", "is no name of a function", hint)
    for one, other in (("parameters", "parametersJsonSchema"), ("response", "responseJsonSchema")):
        if one in declaration and other in declaration:
            yield Finding(other, "two-forms", f"stands beside {one}", "keep one of them")


def _calling(config: Message) -> Iterator[Finding]:
    # "This should only be set when the Mode is ANY or VALIDATED" (v1beta).
    if "allowedFunctionNames" in config and config.get("mode") not in ("ANY", "VALIDATED"):
        yield Finding(
            "allowedFunctionNames", "names-unused", "is looked at in the modes ANY and VALIDATED only", "set mode"
        )


def _speech(config: Message) -> Iterator[Finding]:
    # "It is mutually exclusive with the voice_config field" (v1beta, SpeechConfig).
    if "voiceConfig" in config and "multiSpeakerVoiceConfig" in config:
        yield Finding("multiSpeakerVoiceConfig", "two-forms", "stands beside voiceConfig", "keep one of them")


def _some_tool(hint: str) -> Rule:
    def rule(tool: Message) -> Iterator[Finding]:
        if not tool:
            yield Finding("", "empty-tool", "holds nothing", hint)

    return rule


def _readable(route: str) -> Rule:
    def rule(data: Message) -> Iterator[Finding]:
        uri = data.get("fileUri")
        fault = uri_fault(uri, route) if isinstance(uri, str) and uri else None
        if fault:
            yield Finding("fileUri", "media-uri" if fault.certain else "media-unsure", fault.what, fault.hint)

    return rule


def _typed_file(data: Message) -> Iterator[Finding]:
    # "Required. The IANA standard MIME type of the source data" (discovery document of Vertex AI, FileData).
    if data.get("mimeType") in (None, "") and data.get("fileUri") != BLANK:
        yield Finding("mimeType", "missing", "is missing", "Vertex AI wants the MIME type of every file")


# "Must start with a letter or an underscore" (discovery document of Vertex AI, FunctionDeclaration).
def _begins(declaration: Message) -> Iterator[Finding]:
    name = declaration.get("name")
    if isinstance(name, str) and _FUNCTION_NAME.match(name) and not (name[0].isalpha() or name[0] == "_"):
        yield Finding("name", "function-name", "is no name of a function", "begin with a letter or _")


def _labels(request: Message) -> Iterator[Finding]:
    # Keys and values: 63 characters, lowercase letters, digits, _ and -; keys begin with a letter (same document).
    labels = request.get("labels")
    for name, value in labels.items() if isinstance(labels, dict) else ():
        texts = [text for text in (name, value) if isinstance(text, str)]
        fits = all(len(text) <= limits.LABEL and text == text.lower() and _LABEL.match(text) for text in texts)
        if not fits or not (isinstance(name, str) and name[:1].isalpha()):
            hint = f"keys and values have {limits.LABEL} characters at most: small letters, digits, _ and -; a key begins with a letter"
            yield Finding("labels", "label", "holds a label of another form", hint)
            return


_LABEL = re.compile(r"[\w-]*\Z")


def _image_size(config: Message) -> Iterator[Finding]:
    # Batch inference guide of Vertex AI, 2026: images come in 1K only; 2K and 4K are not supported in batches.
    size = config.get("imageSize")
    if isinstance(size, str) and any(word in size.upper() for word in ("2K", "4K", "TWO_K", "FOUR_K")):
        hint = "write 1K; larger ones come from calls row by row, or from a batch of the Developer API"
        yield Finding("imageSize", "image-size", "is not given in a batch of Vertex AI", hint)


def _no_rag(retrieval: Message) -> Iterator[Finding]:
    # Batch inference guide of Vertex AI, 2026: RAG is not supported.
    if "vertexRagStore" in retrieval:
        hint = "look the passages up beforehand and write them into the request"
        yield Finding("vertexRagStore", "rag-store", "is not supported in a batch", hint)


def _importable(request: Message) -> Iterator[Finding]:
    for fault in import_faults(request):
        yield Finding(*fault)


def _inline(blob: Message) -> Iterator[Finding]:
    data = blob.get("data")
    if isinstance(data, str) and len(data) > limits.INLINE_BYTES:
        what = f"has {len(data):,} bytes, and {limits.INLINE_BYTES:,} are documented as the most"
        yield Finding("data", "inline-size", what, "upload it and write fileData")


def rules(route: str) -> dict[str, tuple[Rule, ...]]:
    """The rules of a route, by message."""
    payloads = tuple(name for name in PAYLOADS if name in messages(route)["Part"])
    request: tuple[Rule, ...]
    file: tuple[Rule, ...]
    function: tuple[Rule, ...]
    config: tuple[Rule, ...]
    request, file, function = (_cache_alone, _declared, _no_mcp_with_schema), (_readable(route),), (_function,)
    config = (_structured_output, _heeded)
    tool = 'write {"googleSearch": {}} or {"functionDeclarations": […]}'
    if route == "vertex":
        tool = 'write {"functionDeclarations": […]} or {"googleSearch": {"excludeDomains": […]}}'
        config = (_structured_output,)
        request, file, function = (
            (_no_cache, _declared, _labels, _importable),
            (*file, _typed_file),
            (_function, _begins),
        )
    beside: dict[str, tuple[Rule, ...]] = {}
    if route == "vertex":
        beside = {"ImageConfig": (_image_size,), "ImageFormat": (_image_size,), "Retrieval": (_no_rag,)}
    return beside | {
        "GenerateContentRequest": request,
        "GenerationConfig": config,
        "ThinkingConfig": (_thinking,),
        "Part": (_one_payload(payloads),),
        "FileData": file,
        "Blob": (_inline,),
        "Schema": (_typed,),
        "FunctionDeclaration": function,
        "FunctionCallingConfig": (_calling,),
        "SpeechConfig": (_speech,),
        "Tool": (_some_tool(tool),),
    }
