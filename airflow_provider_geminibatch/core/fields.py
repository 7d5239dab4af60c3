"""The field table: every field that a request may hold on the wire of the Developer API, as data.

Source: the service's description of v1beta of 2026-09-10, as third parties transcribed it, compared with google-genai
3.4.0. The service gains fields every few weeks; a new one is a new line here.

A kind is one of

    text  base64  bool  int  number    scalars of proto3 JSON (64-bit integers may be text)
    value  object                      any JSON; any JSON object. Nothing inside is looked at
    =Name                              an enum of ENUMS
    Name                               a message of MESSAGES
    [kind]  {kind}                     a list; a map with free names

and ``!`` behind it says that the field must be there and not empty.
"""

from __future__ import annotations

import re
from typing import Final

ROOTS: Final = {"generate": "GenerateContentRequest"}
"""The message of a request, by kind of batch."""

MESSAGES: Final[dict[str, dict[str, str]]] = {
    "GenerateContentRequest": {
        "model": "text",
        "contents": "[Content]!",
        "systemInstruction": "SystemInstruction",
        "generationConfig": "GenerationConfig",
        "tools": "[Tool]",
        "toolConfig": "ToolConfig",
        "safetySettings": "[SafetySetting]",
        "cachedContent": "text",
        "labels": "{text}",
        "store": "bool",
    },
    "GenerationConfig": {
        "temperature": "number",
        "topP": "number",
        "topK": "int",
        "candidateCount": "int",
        "maxOutputTokens": "int",
        "stopSequences": "[text]",
        "seed": "int",
        "presencePenalty": "number",
        "frequencyPenalty": "number",
        "responseMimeType": "text",
        "responseSchema": "Schema",
        "responseJsonSchema": "value",
        "_responseJsonSchema": "value",
        "responseFormat": "ResponseFormat",
        "responseModalities": "[=Modality]",
        "responseLogprobs": "bool",
        "logprobs": "int",
        "thinkingConfig": "ThinkingConfig",
        "mediaResolution": "=MediaResolution",
        "imageConfig": "ImageConfig",
        "speechConfig": "SpeechConfig",
        "translationConfig": "TranslationConfig",
        "audioTranscriptionConfig": "AudioTranscriptionConfig",
        "enableEnhancedCivicAnswers": "bool",
        "enableAffectiveDialog": "bool",
    },
    "Content": {"role": "=Role", "parts": "[Part]!"},
    # Its role means nothing: Google's JavaScript SDK writes "system", the Python one "user".
    "SystemInstruction": {"role": "text", "parts": "[Part]!"},
    "Part": {
        "text": "text",
        "inlineData": "Blob",
        "fileData": "FileData",
        "functionCall": "FunctionCall",
        "functionResponse": "FunctionResponse",
        "executableCode": "ExecutableCode",
        "codeExecutionResult": "CodeExecutionResult",
        "toolCall": "ToolCall",
        "toolResponse": "ToolResponse",
        "thought": "bool",
        "thoughtSignature": "base64",
        "partMetadata": "object",
        "mediaResolution": "PartMediaResolution",
        "mediaProcessing": "=MediaProcessing",
        "videoMetadata": "VideoMetadata",
        "audioTranscription": "AudioTranscription",
        "speechMetadata": "SpeechMetadata",
    },
    "Blob": {"mimeType": "text!", "data": "base64!", "displayName": "text"},
    "FileData": {"fileUri": "text!", "mimeType": "text", "displayName": "text"},
    "FunctionCall": {"id": "text", "name": "text!", "args": "object"},
    "FunctionResponse": {
        "id": "text",
        "name": "text!",
        "response": "object!",
        "parts": "[FunctionResponsePart]",
        "willContinue": "bool",
        "scheduling": "=Scheduling",
    },
    "FunctionResponsePart": {"inlineData": "Blob"},
    "ExecutableCode": {"id": "text", "language": "=Language!", "code": "text!"},
    "CodeExecutionResult": {"id": "text", "outcome": "=CodeOutcome!", "output": "text"},
    "ToolCall": {"id": "text", "toolType": "=ToolType!", "toolName": "text", "args": "object"},
    "ToolResponse": {"id": "text", "toolType": "=ToolType!", "response": "object"},
    "PartMediaResolution": {"level": "=PartMediaResolution"},
    "VideoMetadata": {"startOffset": "text", "endOffset": "text", "fps": "number"},
    "AudioTranscription": {"text": "text!", "speakerLabel": "text", "words": "[Word]"},
    "Word": {"word": "text!", "startOffset": "text", "endOffset": "text"},
    "SpeechMetadata": {"speaker": "text", "style": "text"},
    "ThinkingConfig": {"includeThoughts": "bool", "thinkingBudget": "int", "thinkingLevel": "=ThinkingLevel"},
    "ImageConfig": {"aspectRatio": "text", "imageSize": "text"},
    "SpeechConfig": {
        "voiceConfig": "VoiceConfig",
        "multiSpeakerVoiceConfig": "MultiSpeakerVoiceConfig",
        "languageCode": "text",
    },
    "VoiceConfig": {"prebuiltVoiceConfig": "PrebuiltVoiceConfig", "voice": "text"},
    "PrebuiltVoiceConfig": {"voiceName": "text"},
    "MultiSpeakerVoiceConfig": {"speakerVoiceConfigs": "[SpeakerVoiceConfig]!"},
    "SpeakerVoiceConfig": {"speaker": "text!", "voiceConfig": "VoiceConfig!"},
    "TranslationConfig": {"echoTargetLanguage": "bool", "targetLanguageCode": "text"},
    "AudioTranscriptionConfig": {
        "languageCodes": "[text]",
        "languageAuto": "object",
        "languageHints": "LanguageHints",
        "customVocabulary": "[text]",
        "adaptationPhrases": "[text]",
        "wordTimestamp": "bool",
        "diarization": "bool",
        "mode": "=AudioTranscriptionMode",
    },
    "LanguageHints": {"languageCodes": "[text]"},
    "ResponseFormat": {"text": "TextFormat", "audio": "object", "image": "object"},
    "TextFormat": {"mimeType": "=TextMimeType", "schema": "value"},
    "Tool": {
        "functionDeclarations": "[FunctionDeclaration]",
        "googleSearch": "GoogleSearch",
        "googleSearchRetrieval": "GoogleSearchRetrieval",
        "googleMaps": "GoogleMaps",
        "codeExecution": "Empty",
        "urlContext": "Empty",
        "computerUse": "ComputerUse",
        "fileSearch": "FileSearch",
        "mcpServers": "[McpServer]",
    },
    "Empty": {},
    "FunctionDeclaration": {
        "name": "text!",
        "description": "text",
        "behavior": "=Behavior",
        "parameters": "Schema",
        "parametersJsonSchema": "value",
        "response": "Schema",
        "responseJsonSchema": "value",
    },
    "GoogleSearch": {"timeRangeFilter": "Interval", "searchTypes": "SearchTypes"},
    "Interval": {"startTime": "text", "endTime": "text"},
    "SearchTypes": {"webSearch": "Empty", "imageSearch": "Empty"},
    "GoogleSearchRetrieval": {"dynamicRetrievalConfig": "DynamicRetrievalConfig"},
    "DynamicRetrievalConfig": {"mode": "=RetrievalMode", "dynamicThreshold": "number"},
    "GoogleMaps": {"enableWidget": "bool"},
    "ComputerUse": {
        "environment": "=Environment!",
        "excludedPredefinedFunctions": "[text]",
        "enablePromptInjectionDetection": "bool",
        "disabledSafetyPolicies": "[=SafetyPolicy]",
    },
    "FileSearch": {"fileSearchStoreNames": "[text]!", "metadataFilter": "text", "topK": "int"},
    "McpServer": {"name": "text!", "streamableHttpTransport": "HttpTransport"},
    "HttpTransport": {
        "url": "text!",
        "headers": "{text}",
        "timeout": "text",
        "sseReadTimeout": "text",
        "terminateOnClose": "bool",
    },
    "ToolConfig": {
        "functionCallingConfig": "FunctionCallingConfig",
        "retrievalConfig": "RetrievalConfig",
        "includeServerSideToolInvocations": "bool",
    },
    "FunctionCallingConfig": {"mode": "=FunctionCallingMode", "allowedFunctionNames": "[text]"},
    "RetrievalConfig": {"latLng": "LatLng", "languageCode": "text"},
    "LatLng": {"latitude": "number", "longitude": "number"},
    "SafetySetting": {"category": "=HarmCategory!", "threshold": "=HarmBlockThreshold!"},
    "Schema": {
        "type": "=Type",
        "format": "text",
        "title": "text",
        "description": "text",
        "nullable": "bool",
        "enum": "[text]",
        "items": "Schema",
        "minItems": "int",
        "maxItems": "int",
        "properties": "{Schema}",
        "required": "[text]",
        "minProperties": "int",
        "maxProperties": "int",
        "propertyOrdering": "[text]",
        "minimum": "number",
        "maximum": "number",
        "minLength": "int",
        "maxLength": "int",
        "pattern": "text",
        "example": "value",
        "default": "value",
        "anyOf": "[Schema]",
    },
}

PAYLOADS: Final = (
    "text", "inlineData", "fileData", "functionCall", "functionResponse", "executableCode", "codeExecutionResult",
    "toolCall", "toolResponse",
)  # fmt: skip
"""The fields of a Part of which exactly one is set."""

# What the Developer API refuses by name although Vertex or the SDK has it (google-genai 3.4.0, `_to_mldev` converters).
VERTEX_ONLY: Final[dict[str, frozenset[str]]] = {
    "GenerateContentRequest": frozenset({"modelArmorConfig", "continuationToken", "outputConfig"}),
    "GenerationConfig": frozenset({"routingConfig", "modelSelectionConfig", "audioTimestamp", "modelConfig"}),
    "SafetySetting": frozenset({"method"}),
    "Tool": frozenset({"retrieval", "enterpriseWebSearch", "parallelAiSearch", "exaAiSearch"}),
    "ImageConfig": frozenset(
        {"personGeneration", "prominentPeople", "outputMimeType", "outputCompressionQuality", "imageOutputOptions"}
    ),
    "FunctionCallingConfig": frozenset({"streamFunctionCallArguments"}),
    "FunctionCall": frozenset({"partialArgs", "willContinue"}),
    "GoogleSearch": frozenset({"excludeDomains", "blockingConfidence"}),
    "GoogleMaps": frozenset({"groundingTypes", "authConfig"}),
}

_HARMS = (
    "UNSPECIFIED HARASSMENT HATE_SPEECH SEXUALLY_EXPLICIT DANGEROUS_CONTENT CIVIC_INTEGRITY JAILBREAK "
    "DEROGATORY TOXICITY VIOLENCE SEXUAL MEDICAL DANGEROUS"
)

# Roles are text on the wire, but the service answers others with "Please use a valid role: user, model."
ENUMS: Final[dict[str, frozenset[str]]] = {
    name: frozenset(values.split())
    for name, values in {
        # "tool" is what the Python SDK's README writes for the result of a function.
        "Role": "user model function tool",
        "Type": "TYPE_UNSPECIFIED STRING NUMBER INTEGER BOOLEAN ARRAY OBJECT NULL",
        "HarmCategory": " ".join(f"HARM_CATEGORY_{name}" for name in _HARMS.split()),
        "HarmBlockThreshold": (
            "HARM_BLOCK_THRESHOLD_UNSPECIFIED BLOCK_LOW_AND_ABOVE BLOCK_MEDIUM_AND_ABOVE BLOCK_ONLY_HIGH BLOCK_NONE OFF"
        ),
        "Modality": "MODALITY_UNSPECIFIED TEXT IMAGE AUDIO VIDEO DOCUMENT",
        "ThinkingLevel": "THINKING_LEVEL_UNSPECIFIED MINIMAL LOW MEDIUM HIGH XHIGH",
        "MediaResolution": (
            "MEDIA_RESOLUTION_UNSPECIFIED MEDIA_RESOLUTION_LOW MEDIA_RESOLUTION_MEDIUM MEDIA_RESOLUTION_HIGH"
        ),
        "PartMediaResolution": (
            "MEDIA_RESOLUTION_UNSPECIFIED MEDIA_RESOLUTION_LOW MEDIA_RESOLUTION_MEDIUM MEDIA_RESOLUTION_HIGH "
            "MEDIA_RESOLUTION_ULTRA_HIGH"
        ),
        "MediaProcessing": "MEDIA_PROCESSING_UNSPECIFIED STATIC AGENTIC",
        "FunctionCallingMode": "MODE_UNSPECIFIED AUTO ANY NONE VALIDATED",
        "Behavior": "UNSPECIFIED BLOCKING NON_BLOCKING",
        "Scheduling": "SCHEDULING_UNSPECIFIED SILENT WHEN_IDLE INTERRUPT",
        "Language": "LANGUAGE_UNSPECIFIED PYTHON",
        "CodeOutcome": "OUTCOME_UNSPECIFIED OUTCOME_OK OUTCOME_FAILED OUTCOME_DEADLINE_EXCEEDED",
        "ToolType": ("TOOL_TYPE_UNSPECIFIED GOOGLE_SEARCH_WEB GOOGLE_SEARCH_IMAGE URL_CONTEXT GOOGLE_MAPS FILE_SEARCH"),
        "RetrievalMode": "MODE_UNSPECIFIED MODE_DYNAMIC",
        "Environment": "ENVIRONMENT_UNSPECIFIED ENVIRONMENT_BROWSER ENVIRONMENT_MOBILE ENVIRONMENT_DESKTOP",
        "SafetyPolicy": (
            "SAFETY_POLICY_UNSPECIFIED FINANCIAL_TRANSACTIONS SENSITIVE_DATA_MODIFICATION COMMUNICATION_TOOL "
            "ACCOUNT_CREATION DATA_MODIFICATION USER_CONSENT_MANAGEMENT LEGAL_TERMS_AND_AGREEMENTS"
        ),
        "AudioTranscriptionMode": "MODE_UNSPECIFIED VERBATIM SMART",
        "TextMimeType": "MIME_TYPE_UNSPECIFIED APPLICATION_JSON TEXT_PLAIN",
    }.items()
}


def messages(route: str = "developer") -> dict[str, dict[str, str]]:
    """The messages as a route knows them."""
    return MESSAGES


def enums(route: str = "developer") -> dict[str, frozenset[str]]:
    """The enums as a route knows them."""
    return ENUMS


def snake(name: str) -> str:
    """The original proto name of a field: ``generationConfig`` is ``generation_config``."""
    return re.sub(r"(?<!^)([A-Z])", lambda match: "_" + match[1].lower(), name)
