"""What we decided on top of the sources: each line a reviewed decision, with its reason where the sources do not say it.

``compose.py`` lays this over the extracts. Names are those of the composed table.
"""

from __future__ import annotations

from typing import Final

# The same message has another name in the other sources, and a few names would mislead.
COPIES: Final = {"SystemInstruction": "Content"}
"""Messages of our own that begin as a copy of another."""

KINDS: Final = {
    # Roles are text on the wire, but the service answers others with "Please use a valid role: user, model."
    "Content.role": "=Role",
    # Its role means nothing: Google's JavaScript SDK writes "system", the Python one "user".
    "SystemInstruction.role": "text",
    "GenerateContentRequest.systemInstruction": "SystemInstruction",
    "ComputerUse.disabledSafetyPolicies": "[=SafetyPolicy]",
}

EXTRA: Final = {
    # In google-genai 3.4.0, newer than the description of the service, and its converter sends them.
    "ComputerUse.enablePromptInjectionDetection": "developer: bool",
    "ComputerUse.disabledSafetyPolicies": "developer: [=SafetyPolicy]",
}

# "tool" is what the Python SDK's README writes for the result of a function, "function" what older samples do.
WORDS: Final = {
    "Role": "user model function tool",
    # In google-genai 3.4.0 and in use; the description of the service is older.
    "ThinkingLevel": "developer:XHIGH",
    "SafetyPolicy": (
        "SAFETY_POLICY_UNSPECIFIED FINANCIAL_TRANSACTIONS SENSITIVE_DATA_MODIFICATION COMMUNICATION_TOOL "
        "ACCOUNT_CREATION DATA_MODIFICATION USER_CONSENT_MANAGEMENT LEGAL_TERMS_AND_AGREEMENTS"
    ),
}

DROPPED: Final = {
    # A batch has its own price and pace; no document says that a row may ask for another tier.
    "GenerateContentRequest.serviceTier": "developer",
}

REFUSED: Final = {
    # The converter of google-genai refuses every field of an McpServer for Vertex AI, and discovery has none.
    "Tool.mcpServers": "vertex",
}
"""Fields that a route refuses although no converter names them."""

ARTEFACTS: Final = frozenset(
    {
        # The Python package renames field 28 and so accepts a name that is on no wire; its JSON name is responseJsonSchema.
        "GenerationConfig.responseJsonSchemaOrdered",
        # google-genai shares one Schema type between the routes; the Developer API's description has none of the three.
        "Schema.additionalProperties",
        "Schema.defs",
        "Schema.ref",
        # google-genai shares Transcription between live sessions and parts, and Part with the parts of a function's response.
        "AudioTranscription.endOffset",
        "AudioTranscription.finished",
        "AudioTranscription.languageCode",
        "AudioTranscription.startOffset",
    }
)
"""Fields that only a package's own shape of the types has: no witness of the wire, so they stay mistakes."""

_REQUIRED: Final = """
    GenerateContentRequest.contents EmbedContentRequest.content Content.parts SystemInstruction.parts
    Blob.mimeType Blob.data FileData.fileUri FunctionCall.name FunctionResponse.name FunctionResponse.response
    ExecutableCode.language ExecutableCode.code CodeExecutionResult.outcome ToolCall.toolType ToolResponse.toolType
    AudioTranscription.text Word.word MultiSpeakerVoiceConfig.speakerVoiceConfigs SpeakerVoiceConfig.speaker
    SpeakerVoiceConfig.voiceConfig FunctionDeclaration.name ComputerUse.environment FileSearch.fileSearchStoreNames
    McpServer.name HttpTransport.url SafetySetting.category SafetySetting.threshold
"""

REQUIRED: Final = frozenset(_REQUIRED.split())
"""Fields without which the service refuses a message, or which make no sense without."""
