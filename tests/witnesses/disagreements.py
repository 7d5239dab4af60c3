"""Every disagreement between the validator and a witness, with why we do as we do.

A key is ``Message.field`` (also for what stands inside it), ``Message.field=WORD``, or ``kind:variant`` of ``probes.VARIANTS``.
A disagreement that no row explains fails the tests, and so does a row that explains none.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Row(NamedTuple):
    """What a witness says to some keys where we say the opposite, and the reason for ours."""

    witness: str
    says: str
    keys: frozenset[str]
    why: str


def _row(witness: str, says: str, keys: str, why: str) -> Row:
    return Row(witness, says, frozenset(keys.split()), why)


REFUSED_BEFORE: Final = {
    # google-genai 2.8 and 2.9; later versions send them, and the routes' own descriptions have them.
    "developer": frozenset({"GenerateContentRequest.labels", "Blob.displayName", "FileData.displayName"}),
    "vertex": frozenset({"ExecutableCode.id", "CodeExecutionResult.id"}),
}
"""Fields that converters of older SDKs refuse by name, and ours lets through."""

DISAGREEMENTS: Final = (
    # google-ai-generativelanguage 0.12.1: published on 2026-10-01, its v1beta is of 2026-05.
    _row(
        "protobuf", "refuses",
        """
        GenerateContentRequest.labels GenerateContentRequest.store
        GenerationConfig.audioTranscriptionConfig GenerationConfig.enableAffectiveDialog GenerationConfig.responseFormat
        GenerationConfig.translationConfig ThinkingConfig.thinkingLevel ImageConfig.imageSize VoiceConfig.voice
        Part.audioTranscription Part.mediaProcessing Part.mediaResolution Part.speechMetadata Part.toolCall Part.toolResponse
        Tool.mcpServers GoogleSearch.searchTypes ToolConfig.includeServerSideToolInvocations
        Blob.displayName FileData.displayName ExecutableCode.id CodeExecutionResult.id
        FunctionResponsePart.audioMetadata FunctionResponsePart.documentMetadata FunctionResponsePart.fileData
        FunctionResponsePart.mediaProcessing FunctionResponsePart.mediaResolution
        FunctionResponsePart.spreadsheetMetadata FunctionResponsePart.videoMetadata
        """,
        "newer than the package's protos; in the description of v1beta of 2026-09-10, or witnessed by google-genai (a warning)",
    ),
    _row(
        "protobuf", "refuses",
        "ComputerUse.disabledSafetyPolicies ComputerUse.enablePromptInjectionDetection",
        "newer than the package's protos; google-genai 3.4.0 sends them",
    ),
    _row(
        "protobuf", "refuses",
        """
        Part.audioMetadata Part.documentMetadata Part.spreadsheetMetadata GoogleMaps.authConfig
        VideoMetadata.contentLayers VoiceConfig.replicatedVoiceConfig
        """,
        "in google-genai 3.4.0 only: a warning, and the field is sent as it is",
    ),
    _row(
        "protobuf", "refuses",
        """
        SafetySetting.category=HARM_CATEGORY_IMAGE_DANGEROUS_CONTENT SafetySetting.category=HARM_CATEGORY_IMAGE_HARASSMENT
        SafetySetting.category=HARM_CATEGORY_IMAGE_HATE SafetySetting.category=HARM_CATEGORY_IMAGE_SEXUALLY_EXPLICIT
        """,
        "in google-genai 3.4.0 and on Vertex AI: a warning, and the word is sent as it is",
    ),
    _row(
        "protobuf", "refuses",
        """
        SafetySetting.category=HARM_CATEGORY_JAILBREAK GenerationConfig.responseModalities=DOCUMENT
        GenerationConfig.responseModalities=VIDEO ComputerUse.environment=ENVIRONMENT_DESKTOP
        ComputerUse.environment=ENVIRONMENT_MOBILE
        """,
        "newer than the package's protos; in the description of v1beta of 2026-09-10",
    ),
    _row(
        "protobuf", "refuses", "Tool.fileSearch",
        "the package has another FileSearch, of the preview (retrievalResources); the description has fileSearchStoreNames",
    ),
    _row(
        "protobuf", "refuses", "GenerationConfig._responseJsonSchema",
        "proto-plus drops the json_name of field 24; the description of v1beta has it",
    ),
    _row(
        "protobuf", "accepts", "GenerationConfig.responseJsonSchemaOrdered",
        "proto-plus writes the proto name of field 28, whose JSON name is responseJsonSchema; the service knows no other",
    ),
    _row(
        "protobuf", "refuses", "GoogleSearch.timeRangeFilter VideoMetadata.endOffset VideoMetadata.startOffset",
        "durations and times have a text form of their own, which only the service checks",
    ),
    _row("protobuf", "refuses", "enum:small", "the service's own docs write small letters; we send the enum's own word"),
    _row("protobuf", "accepts", "enum:number", "proto3 JSON has numbers for words; nobody writes them, and none can be explained"),
    _row("protobuf", "accepts", "enum:word", "roles are text to the parser; the service answers others with 400"),
    _row("protobuf", "accepts", "number:bool", "a slip of Python's parser: true is a number to it; upb and the service refuse it"),
    _row("protobuf", "accepts", "base64:alphabet base64:padding", "Python's parser drops what is no base64; what is sent would differ"),
    _row("protobuf", "accepts", "message:list", "a slip of Python's parser: an empty list is an empty message to it"),
    _row("protobuf", "accepts", "number:infinite", "proto3 JSON has infinities; no model has a use for one, and JSON has none"),
    # The discovery documents of Vertex AI, v1 and v1beta1, of 2026-11-06: a schema, without the leniency of proto3 JSON.
    _row(
        "discovery", "refuses",
        """
        GenerationConfig.modelSelectionConfig Part.audioMetadata Part.documentMetadata Part.spreadsheetMetadata
        GoogleSearch.timeRangeFilter GoogleMaps.authConfig ImageConfig.outputCompressionQuality ImageConfig.outputMimeType
        PartMediaResolution.numTokens VideoMetadata.contentLayers TextFormat.jsonSchema FunctionResponsePart.audioMetadata
        FunctionResponsePart.documentMetadata FunctionResponsePart.mediaResolution FunctionResponsePart.spreadsheetMetadata
        FunctionResponsePart.videoMetadata AuthConfig.apiKey
        """,
        "in google-genai 3.4.0, whose converter sends them to Vertex AI: a warning, and the field is sent as it is",
    ),
    _row(
        "discovery", "refuses",
        """
        SafetySetting.category=HARM_CATEGORY_DANGEROUS SafetySetting.category=HARM_CATEGORY_DEROGATORY
        SafetySetting.category=HARM_CATEGORY_MEDICAL SafetySetting.category=HARM_CATEGORY_SEXUAL
        SafetySetting.category=HARM_CATEGORY_TOXICITY SafetySetting.category=HARM_CATEGORY_VIOLENCE
        ThinkingConfig.thinkingLevel=XHIGH
        """,
        "another source has the word: a warning, and it is sent as it is",
    ),
    _row(
        "discovery", "refuses",
        """
        VideoResponseFormat.aspectRatio=ASPECT_RATIO_EIGHT_BY_ONE VideoResponseFormat.aspectRatio=ASPECT_RATIO_FIVE_BY_FOUR
        VideoResponseFormat.aspectRatio=ASPECT_RATIO_FOUR_BY_FIVE VideoResponseFormat.aspectRatio=ASPECT_RATIO_FOUR_BY_ONE
        VideoResponseFormat.aspectRatio=ASPECT_RATIO_FOUR_BY_THREE VideoResponseFormat.aspectRatio=ASPECT_RATIO_ONE_BY_EIGHT
        VideoResponseFormat.aspectRatio=ASPECT_RATIO_ONE_BY_FOUR VideoResponseFormat.aspectRatio=ASPECT_RATIO_ONE_BY_ONE
        VideoResponseFormat.aspectRatio=ASPECT_RATIO_THREE_BY_FOUR VideoResponseFormat.aspectRatio=ASPECT_RATIO_THREE_BY_TWO
        VideoResponseFormat.aspectRatio=ASPECT_RATIO_TWENTY_ONE_BY_NINE VideoResponseFormat.aspectRatio=ASPECT_RATIO_TWO_BY_THREE
        """,
        "google-genai has one enum of ratios for images and videos: a warning",
    ),
    _row("discovery", "refuses", "enum:small", "the services' own docs write small letters; we send the enum's own word"),
    _row("discovery", "refuses", "int:whole-float number:text", "proto3 JSON reads them; we send the number"),
    _row("discovery", "refuses", "spelling:snake", "proto3 JSON reads the original names of fields too; we send the JSON names"),
    _row("discovery", "accepts", "base64:cut base64:padding", "a pattern of letters is all that a schema says of base64"),
    _row("discovery", "accepts", "enum:word", "roles are text to the schema; the service answers others with 400"),
    # The converters of google-genai: they refuse by name what a route lacks, and do not look at the rest.
    _row(
        "sdk developer", "accepts", "GenerateContentRequest.serviceTier",
        "for interactive calls; no document says that a row of a batch may ask for another tier",
    ),
    _row(
        "sdk vertex", "accepts", "GenerateContentRequest.serviceTier",
        "the discovery document has no such field; a batch has its own price and pace",
    ),
    _row(
        "sdk developer", "accepts", "Schema.additionalProperties Schema.defs Schema.ref",
        "one Schema type for both routes; the description of v1beta has none of the three, and 400s are reported",
    ),
    _row(
        "sdk developer", "accepts",
        "AudioTranscription.endOffset AudioTranscription.finished AudioTranscription.languageCode AudioTranscription.startOffset",
        "one Transcription type for live sessions and for parts; no description of a part has them",
    ),
    _row(
        "sdk vertex", "accepts",
        "AudioTranscription.endOffset AudioTranscription.finished AudioTranscription.languageCode AudioTranscription.startOffset",
        "one Transcription type for live sessions and for parts; the discovery document has none of them",
    ),
    _row(
        "sdk vertex", "accepts", "Tool.mcpServers",
        "it passes the list on and refuses both fields of its items; the discovery document has no such tool",
    ),
)  # fmt: skip
