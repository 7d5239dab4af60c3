"""The field table of the requests that the emulator accepts.

Messages are tables of `camelCase` name to kind; the snake_case spelling of each is accepted too, as in proto3 JSON.
A kind is a scalar (`string`, `bytes`, `bool`, `int`, `number`, `enum`), `any` JSON, `struct` (any JSON object), a
message by name, `[kind]` for a list, or `{kind}` for a map with string keys. Values of enums are not checked.

The names are those of the batch reference and of what the official client sends to the Developer API (its converters,
version 3.4.0), with what the service's own description of 2026-09-10 has beyond. That the service accepts exactly these
is assumed; that it refuses others is reported.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

from airflow_provider_geminibatch.emulator.vertex_fields import VERTEX_TABLE

_TABLE: Mapping[str, Mapping[str, str]] = {
    "GenerateContentRequest": {
        "model": "string",
        "contents": "[Content]",
        "systemInstruction": "Content",
        "tools": "[Tool]",
        "toolConfig": "ToolConfig",
        "safetySettings": "[SafetySetting]",
        "cachedContent": "string",
        "generationConfig": "GenerationConfig",
        "serviceTier": "enum",
        "store": "bool",
        "labels": "{string}",
    },
    "EmbedContentRequest": {
        "model": "string",
        "content": "Content",
        "taskType": "enum",
        "title": "string",
        "outputDimensionality": "int",
        "embedContentConfig": "struct",
    },
    "Content": {"parts": "[Part]", "role": "string"},
    "Part": {
        "text": "string",
        "inlineData": "Blob",
        "fileData": "FileData",
        "functionCall": "FunctionCall",
        "functionResponse": "FunctionResponse",
        "executableCode": "struct",
        "codeExecutionResult": "struct",
        "toolCall": "struct",
        "toolResponse": "struct",
        "thought": "bool",
        "thoughtSignature": "bytes",
        "videoMetadata": "struct",
        "mediaResolution": "any",
        "mediaProcessing": "enum",
        "partMetadata": "struct",
        "audioMetadata": "struct",
        "audioTranscription": "struct",
        "documentMetadata": "struct",
        "speechMetadata": "struct",
        "spreadsheetMetadata": "struct",
    },
    "Blob": {"mimeType": "string", "data": "bytes", "displayName": "string"},
    "FileData": {"mimeType": "string", "fileUri": "string", "displayName": "string"},
    "FunctionCall": {"id": "string", "name": "string", "args": "struct"},
    "FunctionResponse": {
        "id": "string",
        "name": "string",
        "response": "struct",
        "parts": "[struct]",
        "willContinue": "bool",
        "scheduling": "enum",
    },
    "Tool": {
        "functionDeclarations": "[FunctionDeclaration]",
        "googleSearch": "struct",
        "googleSearchRetrieval": "struct",
        "googleMaps": "struct",
        "codeExecution": "struct",
        "computerUse": "struct",
        "fileSearch": "struct",
        "mcpServers": "[struct]",
        "urlContext": "struct",
    },
    "FunctionDeclaration": {
        "name": "string",
        "description": "string",
        "behavior": "enum",
        "parameters": "Schema",
        "parametersJsonSchema": "any",
        "response": "Schema",
        "responseJsonSchema": "any",
    },
    "ToolConfig": {
        "functionCallingConfig": "FunctionCallingConfig",
        "retrievalConfig": "struct",
        "includeServerSideToolInvocations": "bool",
    },
    "FunctionCallingConfig": {
        "mode": "enum",
        "allowedFunctionNames": "[string]",
    },
    "SafetySetting": {"category": "enum", "threshold": "enum"},
    "GenerationConfig": {
        "stopSequences": "[string]",
        "responseMimeType": "string",
        "responseSchema": "Schema",
        "responseJsonSchema": "any",
        "_responseJsonSchema": "any",
        "responseFormat": "struct",
        "responseModalities": "[enum]",
        "candidateCount": "int",
        "maxOutputTokens": "int",
        "temperature": "number",
        "topP": "number",
        "topK": "int",
        "seed": "int",
        "presencePenalty": "number",
        "frequencyPenalty": "number",
        "responseLogprobs": "bool",
        "logprobs": "int",
        "enableEnhancedCivicAnswers": "bool",
        "enableAffectiveDialog": "bool",
        "translationConfig": "struct",
        "speechConfig": "struct",
        "audioTranscriptionConfig": "struct",
        "thinkingConfig": "ThinkingConfig",
        "imageConfig": "ImageConfig",
        "mediaResolution": "enum",
    },
    "ThinkingConfig": {"includeThoughts": "bool", "thinkingBudget": "int", "thinkingLevel": "enum"},
    "ImageConfig": {"aspectRatio": "string", "imageSize": "string"},
    # The OpenAPI subset that responseSchema takes; $ref, $defs and additionalProperties belong to responseJsonSchema.
    "Schema": {
        "type": "enum",
        "format": "string",
        "title": "string",
        "description": "string",
        "nullable": "bool",
        "enum": "[string]",
        "items": "Schema",
        "minItems": "int",
        "maxItems": "int",
        "properties": "{Schema}",
        "required": "[string]",
        "propertyOrdering": "[string]",
        "minProperties": "int",
        "maxProperties": "int",
        "minLength": "int",
        "maxLength": "int",
        "minimum": "number",
        "maximum": "number",
        "pattern": "string",
        "anyOf": "[Schema]",
        "default": "any",
        "example": "any",
    },
    # One line of an input file. Other fields are tolerated and echoed (reported), which the `*` says.
    "GenerateLine": {"key": "string", "request": "GenerateContentRequest", "*": "any"},
    "EmbedLine": {"key": "string", "request": "EmbedContentRequest", "*": "any"},
    # Bodies.
    "GenerateCreate": {"batch": "GenerateBatch"},
    "EmbedCreate": {"batch": "EmbedBatch"},
    "GenerateBatch": {
        "name": "string",
        "model": "string",
        "displayName": "string",
        "inputConfig": "GenerateInput",
        "priority": "int",
        "webhookConfig": "struct",
    },
    "EmbedBatch": {
        "name": "string",
        "model": "string",
        "displayName": "string",
        "inputConfig": "EmbedInput",
        "priority": "int",
    },
    "GenerateInput": {"fileName": "string", "requests": "GenerateInlined"},
    "EmbedInput": {"fileName": "string", "requests": "EmbedInlined"},
    "GenerateInlined": {"requests": "[GenerateInlinedRequest]"},
    "EmbedInlined": {"requests": "[EmbedInlinedRequest]"},
    "GenerateInlinedRequest": {"request": "GenerateContentRequest", "metadata": "struct"},
    "EmbedInlinedRequest": {"request": "EmbedContentRequest", "metadata": "struct"},
    "CountTokens": {"contents": "[Content]", "generateContentRequest": "GenerateContentRequest"},
    "FileStart": {"file": "File"},
    "File": {"name": "string", "displayName": "string", "mimeType": "string", "sizeBytes": "int"},
}


@cache
def snake(name: str) -> str:
    """A camelCase name in snake_case."""
    return re.sub(r"([A-Z])", lambda found: "_" + found[1].lower(), name)


_MESSAGES = {**_TABLE, **VERTEX_TABLE}
# Both spellings of every field, made once.
MESSAGES: Mapping[str, Mapping[str, str]] = {
    message: {spelling: kind for name, kind in fields.items() for spelling in (name, snake(name))}
    for message, fields in _MESSAGES.items()
}

SNAKE: Mapping[str, str] = {name: snake(name) for fields in _MESSAGES.values() for name in fields}

__all__ = ["MESSAGES", "SNAKE", "snake"]
