"""The fields of requests by route, generated: ``make fields`` writes this module anew, by hand nothing is changed here.

A kind stands alone if both routes have the field so, else behind the route that has it. ``core/fields.py`` reads this.
Sources:

    the service's description of v1beta, as github.com/LeenHawk/gproxy transcribed it (2026-09-10)
    aiplatform.v1.json of google-api-python-client-2.202.0 (2026-11-06)
    aiplatform.v1beta1.json of google-api-python-client-2.202.0 (2026-11-06)
    google-genai 3.4.0 (2026-11-16)
    google-ai-generativelanguage 0.12.1 (2026-10-01)
"""

# ruff: noqa: E501
# fmt: off

from __future__ import annotations

from typing import Final

FIELDS: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "GenerateContentRequest": (
        ("model", "developer: text"),
        ("contents", "[Content]!"),
        ("tools", "[Tool]"),
        ("toolConfig", "ToolConfig"),
        ("safetySettings", "[SafetySetting]"),
        ("labels", "{text}"),
        ("systemInstruction", "SystemInstruction"),
        ("generationConfig", "GenerationConfig"),
        ("cachedContent", "text"),
        ("store", "developer: bool"),
        ("continuationToken", "vertex: base64"),
        ("modelArmorConfig", "vertex: ModelArmorConfig"),
        ("outputConfig", "vertex: GenerateContentRequestOutputConfig"),
    ),
    "EmbedContentRequest": (
        ("model", "text"),
        ("content", "Content!"),
        ("taskType", "=TaskType"),
        ("title", "text"),
        ("outputDimensionality", "int"),
        ("embedContentConfig", "EmbedContentConfig"),
        ("autoTruncate", "vertex: bool"),
    ),
    "Content": (
        ("parts", "[Part]!"),
        ("role", "=Role"),
    ),
    "Tool": (
        ("functionDeclarations", "[FunctionDeclaration]"),
        ("googleSearchRetrieval", "GoogleSearchRetrieval"),
        ("codeExecution", "CodeExecution"),
        ("googleSearch", "GoogleSearch"),
        ("computerUse", "ComputerUse"),
        ("urlContext", "UrlContext"),
        ("fileSearch", "developer: FileSearch"),
        ("mcpServers", "developer: [McpServer]"),
        ("googleMaps", "GoogleMaps"),
        ("enterpriseWebSearch", "vertex: EnterpriseWebSearch"),
        ("exaAiSearch", "vertex: ToolExaAiSearch"),
        ("parallelAiSearch", "vertex: ToolParallelAiSearch"),
        ("retrieval", "vertex: Retrieval"),
    ),
    "ToolConfig": (
        ("functionCallingConfig", "FunctionCallingConfig"),
        ("retrievalConfig", "RetrievalConfig"),
        ("includeServerSideToolInvocations", "developer: bool"),
    ),
    "SafetySetting": (
        ("category", "=HarmCategory!"),
        ("threshold", "=HarmBlockThreshold!"),
        ("method", "vertex: =SafetySettingMethod"),
    ),
    "SystemInstruction": (
        ("parts", "[Part]!"),
        ("role", "text"),
    ),
    "GenerationConfig": (
        ("stopSequences", "[text]"),
        ("responseMimeType", "text"),
        ("responseSchema", "Schema"),
        ("_responseJsonSchema", "developer: value"),
        ("responseJsonSchema", "value"),
        ("responseModalities", "[=Modality]"),
        ("candidateCount", "int"),
        ("maxOutputTokens", "int"),
        ("temperature", "number"),
        ("topP", "number"),
        ("topK", "developer: int"),
        ("topK", "vertex: number"),
        ("seed", "int"),
        ("presencePenalty", "number"),
        ("frequencyPenalty", "number"),
        ("responseLogprobs", "bool"),
        ("logprobs", "int"),
        ("enableEnhancedCivicAnswers", "developer: bool"),
        ("speechConfig", "SpeechConfig"),
        ("thinkingConfig", "ThinkingConfig"),
        ("imageConfig", "ImageConfig"),
        ("mediaResolution", "=MediaResolution"),
        ("responseFormat", "developer: ResponseFormat"),
        ("responseFormat", "vertex: [ResponseFormat]"),
        ("enableAffectiveDialog", "bool"),
        ("translationConfig", "TranslationConfig"),
        ("audioTranscriptionConfig", "AudioTranscriptionConfig"),
        ("audioTimestamp", "vertex: bool"),
        ("modelConfig", "vertex: GenerationConfigModelConfig"),
        ("routingConfig", "vertex: GenerationConfigRoutingConfig"),
    ),
    "EmbedContentConfig": (
        ("documentOcr", "bool"),
        ("audioTrackExtraction", "bool"),
        ("taskType", "=TaskType"),
        ("title", "text"),
        ("outputDimensionality", "int"),
        ("autoTruncate", "bool"),
    ),
    "Part": (
        ("thought", "bool"),
        ("thoughtSignature", "base64"),
        ("partMetadata", "developer: object"),
        ("mediaResolution", "PartMediaResolution"),
        ("mediaProcessing", "=MediaProcessing"),
        ("audioTranscription", "AudioTranscription"),
        ("speechMetadata", "SpeechMetadata"),
        ("text", "text"),
        ("inlineData", "Blob"),
        ("functionCall", "FunctionCall"),
        ("functionResponse", "FunctionResponse"),
        ("fileData", "FileData"),
        ("executableCode", "ExecutableCode"),
        ("codeExecutionResult", "CodeExecutionResult"),
        ("toolCall", "developer: ToolCall"),
        ("toolResponse", "developer: ToolResponse"),
        ("videoMetadata", "VideoMetadata"),
    ),
    "FunctionDeclaration": (
        ("name", "text!"),
        ("description", "text"),
        ("behavior", "=Behavior"),
        ("parameters", "Schema"),
        ("parametersJsonSchema", "value"),
        ("response", "Schema"),
        ("responseJsonSchema", "value"),
    ),
    "GoogleSearchRetrieval": (
        ("dynamicRetrievalConfig", "DynamicRetrievalConfig"),
    ),
    "CodeExecution": (
    ),
    "GoogleSearch": (
        ("timeRangeFilter", "developer: Interval"),
        ("searchTypes", "SearchTypes"),
        ("blockingConfidence", "vertex: =GoogleSearchBlockingConfidence"),
        ("excludeDomains", "vertex: [text]"),
    ),
    "ComputerUse": (
        ("environment", "=Environment!"),
        ("excludedPredefinedFunctions", "[text]"),
        ("enablePromptInjectionDetection", "bool"),
        ("disabledSafetyPolicies", "[=SafetyPolicy]"),
    ),
    "UrlContext": (
    ),
    "FileSearch": (  # developer only
        ("fileSearchStoreNames", "[text]!"),
        ("metadataFilter", "text"),
        ("topK", "int"),
    ),
    "McpServer": (  # developer only
        ("name", "text!"),
        ("streamableHttpTransport", "HttpTransport"),
    ),
    "GoogleMaps": (
        ("enableWidget", "bool"),
        ("groundingTypes", "vertex: GoogleMapsGroundingTypes"),
    ),
    "FunctionCallingConfig": (
        ("mode", "=FunctionCallingMode"),
        ("allowedFunctionNames", "[text]"),
        ("streamFunctionCallArguments", "vertex: bool"),
    ),
    "RetrievalConfig": (
        ("latLng", "LatLng"),
        ("languageCode", "text"),
    ),
    "Schema": (
        ("type", "=Type"),
        ("format", "text"),
        ("title", "text"),
        ("description", "text"),
        ("nullable", "bool"),
        ("enum", "[text]"),
        ("maxItems", "int"),
        ("minItems", "int"),
        ("properties", "{Schema}"),
        ("required", "[text]"),
        ("minProperties", "int"),
        ("maxProperties", "int"),
        ("minLength", "int"),
        ("maxLength", "int"),
        ("pattern", "text"),
        ("example", "value"),
        ("anyOf", "[Schema]"),
        ("propertyOrdering", "[text]"),
        ("default", "value"),
        ("items", "Schema"),
        ("minimum", "number"),
        ("maximum", "number"),
        ("additionalProperties", "vertex: value"),
        ("defs", "vertex: {Schema}"),
        ("ref", "vertex: text"),
    ),
    "SpeechConfig": (
        ("voiceConfig", "VoiceConfig"),
        ("multiSpeakerVoiceConfig", "MultiSpeakerVoiceConfig"),
        ("languageCode", "text"),
    ),
    "ThinkingConfig": (
        ("thinkingBudget", "int"),
        ("thinkingLevel", "=ThinkingLevel"),
        ("includeThoughts", "bool"),
    ),
    "ImageConfig": (
        ("aspectRatio", "text"),
        ("imageSize", "text"),
        ("imageOutputOptions", "vertex: ImageConfigImageOutputOptions"),
        ("personGeneration", "vertex: =ImageConfigPersonGeneration"),
        ("prominentPeople", "vertex: =ImageConfigProminentPeople"),
    ),
    "ResponseFormat": (
        ("text", "TextFormat"),
        ("audio", "AudioFormat"),
        ("image", "ImageFormat"),
        ("video", "vertex: VideoResponseFormat"),
    ),
    "TranslationConfig": (
        ("echoTargetLanguage", "bool"),
        ("targetLanguageCode", "text"),
    ),
    "AudioTranscriptionConfig": (
        ("languageCodes", "[text]"),
        ("languageAuto", "LanguageAuto"),
        ("languageHints", "LanguageHints"),
        ("customVocabulary", "[text]"),
        ("adaptationPhrases", "[text]"),
        ("wordTimestamp", "bool"),
        ("diarization", "bool"),
        ("mode", "=AudioTranscriptionMode"),
        ("sourceText", "vertex: text"),
    ),
    "PartMediaResolution": (
        ("level", "=PartMediaResolution"),
    ),
    "AudioTranscription": (
        ("text", "text!"),
        ("speakerLabel", "text"),
        ("words", "[Word]"),
    ),
    "SpeechMetadata": (
        ("speaker", "text"),
        ("style", "text"),
    ),
    "Blob": (
        ("mimeType", "text!"),
        ("data", "base64!"),
        ("displayName", "text"),
    ),
    "FunctionCall": (
        ("name", "text!"),
        ("id", "text"),
        ("args", "object"),
        ("partialArgs", "vertex: [PartialArg]"),
        ("willContinue", "vertex: bool"),
    ),
    "FunctionResponse": (
        ("name", "text!"),
        ("response", "object!"),
        ("id", "text"),
        ("parts", "[FunctionResponsePart]"),
        ("willContinue", "developer: bool"),
        ("scheduling", "=Scheduling"),
    ),
    "FileData": (
        ("fileUri", "text!"),
        ("mimeType", "text"),
        ("displayName", "text"),
    ),
    "ExecutableCode": (
        ("language", "=Language!"),
        ("code", "text!"),
        ("id", "text"),
    ),
    "CodeExecutionResult": (
        ("outcome", "=CodeOutcome!"),
        ("id", "text"),
        ("output", "text"),
    ),
    "ToolCall": (  # developer only
        ("toolType", "=ToolType!"),
        ("id", "text"),
        ("toolName", "text"),
        ("args", "object"),
    ),
    "ToolResponse": (  # developer only
        ("toolType", "=ToolType!"),
        ("id", "text"),
        ("response", "object"),
    ),
    "VideoMetadata": (
        ("startOffset", "text"),
        ("endOffset", "text"),
        ("fps", "number"),
    ),
    "DynamicRetrievalConfig": (
        ("mode", "=RetrievalMode"),
        ("dynamicThreshold", "number"),
    ),
    "Interval": (  # developer only
        ("startTime", "text"),
        ("endTime", "text"),
    ),
    "SearchTypes": (
        ("webSearch", "WebSearch"),
        ("imageSearch", "ImageSearch"),
    ),
    "HttpTransport": (  # developer only
        ("url", "text!"),
        ("headers", "{text}"),
        ("timeout", "text"),
        ("sseReadTimeout", "text"),
        ("terminateOnClose", "bool"),
    ),
    "LatLng": (
        ("latitude", "number"),
        ("longitude", "number"),
    ),
    "VoiceConfig": (
        ("prebuiltVoiceConfig", "PrebuiltVoiceConfig"),
        ("voice", "text"),
        ("replicatedVoiceConfig", "vertex: ReplicatedVoiceConfig"),
    ),
    "MultiSpeakerVoiceConfig": (
        ("speakerVoiceConfigs", "[SpeakerVoiceConfig]!"),
    ),
    "TextFormat": (
        ("mimeType", "=TextMimeType"),
        ("schema", "value"),
    ),
    "AudioFormat": (
        ("mimeType", "=AudioMimeType"),
        ("delivery", "=Delivery"),
        ("sampleRate", "int"),
        ("bitRate", "int"),
    ),
    "ImageFormat": (
        ("mimeType", "=ImageMimeType"),
        ("delivery", "=Delivery"),
        ("aspectRatio", "=AspectRatio"),
        ("imageSize", "=ImageSize"),
    ),
    "LanguageAuto": (
    ),
    "LanguageHints": (
        ("languageCodes", "[text]"),
    ),
    "Word": (
        ("word", "text!"),
        ("startOffset", "text"),
        ("endOffset", "text"),
    ),
    "FunctionResponsePart": (
        ("inlineData", "Blob"),
        ("fileData", "vertex: FunctionResponseFileData"),
    ),
    "WebSearch": (
    ),
    "ImageSearch": (
    ),
    "PrebuiltVoiceConfig": (
        ("voiceName", "text"),
    ),
    "SpeakerVoiceConfig": (
        ("speaker", "text!"),
        ("voiceConfig", "VoiceConfig!"),
    ),
    "ModelArmorConfig": (  # vertex only
        ("promptTemplateName", "text"),
        ("responseTemplateName", "text"),
    ),
    "GenerateContentRequestOutputConfig": (  # vertex only
        ("outputUriPrefix", "text"),
    ),
    "GenerationConfigModelConfig": (  # vertex only
        ("featureSelectionPreference", "=GenerationConfigModelConfigFeatureSelectionPreference"),
    ),
    "GenerationConfigRoutingConfig": (  # vertex only
        ("autoMode", "GenerationConfigRoutingConfigAutoRoutingMode"),
        ("manualMode", "GenerationConfigRoutingConfigManualRoutingMode"),
    ),
    "EnterpriseWebSearch": (  # vertex only
        ("blockingConfidence", "=EnterpriseWebSearchBlockingConfidence"),
        ("excludeDomains", "[text]"),
    ),
    "ToolExaAiSearch": (  # vertex only
        ("apiKey", "text"),
        ("customConfigs", "object"),
    ),
    "ToolParallelAiSearch": (  # vertex only
        ("apiKey", "text"),
        ("customConfigs", "object"),
        ("enableDataRetention", "bool"),
        ("enableZeroDataRetention", "bool"),
    ),
    "Retrieval": (  # vertex only
        ("disableAttribution", "bool"),
        ("externalApi", "ExternalApi"),
        ("vertexAiSearch", "VertexAISearch"),
        ("vertexRagStore", "VertexRagStore"),
    ),
    "ImageConfigImageOutputOptions": (  # vertex only
        ("compressionQuality", "int"),
        ("mimeType", "text"),
    ),
    "VideoResponseFormat": (  # vertex only
        ("aspectRatio", "=VideoResponseFormatAspectRatio"),
        ("delivery", "=VideoResponseFormatDelivery"),
        ("duration", "text"),
        ("gcsUri", "text"),
        ("resolution", "text"),
    ),
    "GenerationConfigRoutingConfigAutoRoutingMode": (  # vertex only
        ("modelRoutingPreference", "=GenerationConfigRoutingConfigAutoRoutingModeModelRoutingPreference"),
    ),
    "GenerationConfigRoutingConfigManualRoutingMode": (  # vertex only
        ("modelName", "text"),
    ),
    "GoogleMapsGroundingTypes": (  # vertex only
        ("places", "GoogleMapsPlaces"),
        ("routing", "GoogleMapsRouting"),
    ),
    "ExternalApi": (  # vertex only
        ("apiAuth", "ApiAuth"),
        ("apiSpec", "=ExternalApiApiSpec"),
        ("authConfig", "AuthConfig"),
        ("elasticSearchParams", "ExternalApiElasticSearchParams"),
        ("endpoint", "text"),
        ("simpleSearchParams", "ExternalApiSimpleSearchParams"),
    ),
    "VertexAISearch": (  # vertex only
        ("dataStoreSpecs", "[VertexAISearchDataStoreSpec]"),
        ("datastore", "text"),
        ("engine", "text"),
        ("filter", "text"),
        ("maxResults", "int"),
    ),
    "VertexRagStore": (  # vertex only
        ("ragCorpora", "[text]"),
        ("ragResources", "[VertexRagStoreRagResource]"),
        ("ragRetrievalConfig", "RagRetrievalConfig"),
        ("similarityTopK", "int"),
        ("storeContext", "bool"),
        ("vectorDistanceThreshold", "number"),
    ),
    "PartialArg": (  # vertex only
        ("boolValue", "bool"),
        ("jsonPath", "text"),
        ("nullValue", "=PartialArgNullValue"),
        ("numberValue", "number"),
        ("stringValue", "text"),
        ("willContinue", "bool"),
    ),
    "ReplicatedVoiceConfig": (  # vertex only
        ("mimeType", "text"),
        ("voiceSampleAudio", "base64"),
    ),
    "GoogleMapsPlaces": (  # vertex only
    ),
    "GoogleMapsRouting": (  # vertex only
    ),
    "ApiAuth": (  # vertex only
        ("apiKeyConfig", "ApiAuthApiKeyConfig"),
    ),
    "AuthConfig": (  # vertex only
        ("apiKeyConfig", "AuthConfigApiKeyConfig"),
        ("authType", "=AuthConfigAuthType"),
        ("googleServiceAccountConfig", "AuthConfigGoogleServiceAccountConfig"),
        ("httpBasicAuthConfig", "AuthConfigHttpBasicAuthConfig"),
        ("oauthConfig", "AuthConfigOauthConfig"),
        ("oidcConfig", "AuthConfigOidcConfig"),
    ),
    "ExternalApiElasticSearchParams": (  # vertex only
        ("index", "text"),
        ("numHits", "int"),
        ("searchTemplate", "text"),
    ),
    "ExternalApiSimpleSearchParams": (  # vertex only
    ),
    "VertexAISearchDataStoreSpec": (  # vertex only
        ("dataStore", "text"),
        ("filter", "text"),
    ),
    "VertexRagStoreRagResource": (  # vertex only
        ("ragCorpus", "text"),
        ("ragFileIds", "[text]"),
    ),
    "RagRetrievalConfig": (  # vertex only
        ("filter", "RagRetrievalConfigFilter"),
        ("hybridSearch", "RagRetrievalConfigHybridSearch"),
        ("ranking", "RagRetrievalConfigRanking"),
        ("topK", "int"),
    ),
    "FunctionResponseFileData": (  # vertex only
        ("displayName", "text"),
        ("fileUri", "text"),
        ("mimeType", "text"),
    ),
    "ApiAuthApiKeyConfig": (  # vertex only
        ("apiKeySecretVersion", "text"),
        ("apiKeyString", "text"),
    ),
    "AuthConfigApiKeyConfig": (  # vertex only
        ("apiKeySecret", "text"),
        ("apiKeyString", "text"),
        ("httpElementLocation", "=AuthConfigApiKeyConfigHttpElementLocation"),
        ("name", "text"),
    ),
    "AuthConfigGoogleServiceAccountConfig": (  # vertex only
        ("serviceAccount", "text"),
    ),
    "AuthConfigHttpBasicAuthConfig": (  # vertex only
        ("credentialSecret", "text"),
    ),
    "AuthConfigOauthConfig": (  # vertex only
        ("accessToken", "text"),
        ("serviceAccount", "text"),
    ),
    "AuthConfigOidcConfig": (  # vertex only
        ("idToken", "text"),
        ("serviceAccount", "text"),
    ),
    "RagRetrievalConfigFilter": (  # vertex only
        ("metadataFilter", "text"),
        ("vectorDistanceThreshold", "number"),
        ("vectorSimilarityThreshold", "number"),
    ),
    "RagRetrievalConfigHybridSearch": (  # vertex only
        ("alpha", "number"),
    ),
    "RagRetrievalConfigRanking": (  # vertex only
        ("llmRanker", "RagRetrievalConfigRankingLlmRanker"),
        ("rankService", "RagRetrievalConfigRankingRankService"),
    ),
    "RagRetrievalConfigRankingLlmRanker": (  # vertex only
        ("modelName", "text"),
    ),
    "RagRetrievalConfigRankingRankService": (  # vertex only
        ("modelName", "text"),
    ),
}

WORDS: Final[dict[str, str]] = {
    "TaskType": "developer:TASK_TYPE_UNSPECIFIED RETRIEVAL_QUERY RETRIEVAL_DOCUMENT SEMANTIC_SIMILARITY CLASSIFICATION CLUSTERING QUESTION_ANSWERING FACT_VERIFICATION CODE_RETRIEVAL_QUERY vertex:UNSPECIFIED",
    "Role": "user model function tool",
    "HarmCategory": "HARM_CATEGORY_UNSPECIFIED HARM_CATEGORY_HARASSMENT HARM_CATEGORY_HATE_SPEECH HARM_CATEGORY_SEXUALLY_EXPLICIT HARM_CATEGORY_DANGEROUS_CONTENT HARM_CATEGORY_CIVIC_INTEGRITY developer:HARM_CATEGORY_DEROGATORY developer:HARM_CATEGORY_TOXICITY developer:HARM_CATEGORY_VIOLENCE developer:HARM_CATEGORY_SEXUAL developer:HARM_CATEGORY_MEDICAL developer:HARM_CATEGORY_DANGEROUS HARM_CATEGORY_JAILBREAK vertex:HARM_CATEGORY_IMAGE_HATE vertex:HARM_CATEGORY_IMAGE_DANGEROUS_CONTENT vertex:HARM_CATEGORY_IMAGE_HARASSMENT vertex:HARM_CATEGORY_IMAGE_SEXUALLY_EXPLICIT",
    "HarmBlockThreshold": "HARM_BLOCK_THRESHOLD_UNSPECIFIED BLOCK_LOW_AND_ABOVE BLOCK_MEDIUM_AND_ABOVE BLOCK_ONLY_HIGH BLOCK_NONE OFF",
    "Modality": "MODALITY_UNSPECIFIED TEXT IMAGE VIDEO AUDIO developer:DOCUMENT",
    "MediaResolution": "MEDIA_RESOLUTION_UNSPECIFIED MEDIA_RESOLUTION_LOW MEDIA_RESOLUTION_MEDIUM MEDIA_RESOLUTION_HIGH",
    "MediaProcessing": "MEDIA_PROCESSING_UNSPECIFIED STATIC AGENTIC",
    "Behavior": "UNSPECIFIED BLOCKING NON_BLOCKING",
    "Environment": "ENVIRONMENT_UNSPECIFIED ENVIRONMENT_BROWSER ENVIRONMENT_MOBILE ENVIRONMENT_DESKTOP",
    "SafetyPolicy": "SAFETY_POLICY_UNSPECIFIED FINANCIAL_TRANSACTIONS SENSITIVE_DATA_MODIFICATION COMMUNICATION_TOOL ACCOUNT_CREATION DATA_MODIFICATION USER_CONSENT_MANAGEMENT LEGAL_TERMS_AND_AGREEMENTS",
    "FunctionCallingMode": "MODE_UNSPECIFIED AUTO ANY NONE VALIDATED",
    "Type": "TYPE_UNSPECIFIED STRING NUMBER INTEGER BOOLEAN ARRAY OBJECT NULL",
    "ThinkingLevel": "THINKING_LEVEL_UNSPECIFIED MINIMAL LOW MEDIUM HIGH developer:XHIGH",
    "AudioTranscriptionMode": "MODE_UNSPECIFIED VERBATIM SMART",
    "PartMediaResolution": "MEDIA_RESOLUTION_UNSPECIFIED MEDIA_RESOLUTION_LOW MEDIA_RESOLUTION_MEDIUM MEDIA_RESOLUTION_HIGH MEDIA_RESOLUTION_ULTRA_HIGH",
    "Scheduling": "SCHEDULING_UNSPECIFIED SILENT WHEN_IDLE INTERRUPT",
    "Language": "LANGUAGE_UNSPECIFIED PYTHON",
    "CodeOutcome": "OUTCOME_UNSPECIFIED OUTCOME_OK OUTCOME_FAILED OUTCOME_DEADLINE_EXCEEDED",
    "ToolType": "TOOL_TYPE_UNSPECIFIED GOOGLE_SEARCH_WEB GOOGLE_SEARCH_IMAGE URL_CONTEXT GOOGLE_MAPS FILE_SEARCH",
    "RetrievalMode": "MODE_UNSPECIFIED MODE_DYNAMIC",
    "TextMimeType": "MIME_TYPE_UNSPECIFIED APPLICATION_JSON TEXT_PLAIN",
    "AudioMimeType": "MIME_TYPE_UNSPECIFIED AUDIO_MP3 AUDIO_OGG_OPUS AUDIO_L16 AUDIO_WAV AUDIO_ALAW AUDIO_MULAW",
    "Delivery": "DELIVERY_UNSPECIFIED INLINE URI",
    "ImageMimeType": "MIME_TYPE_UNSPECIFIED IMAGE_JPEG",
    "AspectRatio": "ASPECT_RATIO_UNSPECIFIED ASPECT_RATIO_ONE_BY_ONE ASPECT_RATIO_TWO_BY_THREE ASPECT_RATIO_THREE_BY_TWO ASPECT_RATIO_THREE_BY_FOUR ASPECT_RATIO_FOUR_BY_THREE ASPECT_RATIO_FOUR_BY_FIVE ASPECT_RATIO_FIVE_BY_FOUR ASPECT_RATIO_NINE_BY_SIXTEEN ASPECT_RATIO_SIXTEEN_BY_NINE ASPECT_RATIO_TWENTY_ONE_BY_NINE ASPECT_RATIO_ONE_BY_EIGHT ASPECT_RATIO_EIGHT_BY_ONE ASPECT_RATIO_ONE_BY_FOUR ASPECT_RATIO_FOUR_BY_ONE",
    "ImageSize": "IMAGE_SIZE_UNSPECIFIED IMAGE_SIZE_FIVE_TWELVE IMAGE_SIZE_ONE_K IMAGE_SIZE_TWO_K IMAGE_SIZE_FOUR_K",
    "SafetySettingMethod": "HARM_BLOCK_METHOD_UNSPECIFIED SEVERITY PROBABILITY",
    "ImageConfigPersonGeneration": "PERSON_GENERATION_UNSPECIFIED ALLOW_ALL ALLOW_ADULT ALLOW_NONE",
    "ImageConfigProminentPeople": "PROMINENT_PEOPLE_UNSPECIFIED ALLOW_PROMINENT_PEOPLE BLOCK_PROMINENT_PEOPLE",
    "GenerationConfigModelConfigFeatureSelectionPreference": "FEATURE_SELECTION_PREFERENCE_UNSPECIFIED PRIORITIZE_QUALITY BALANCED PRIORITIZE_COST",
    "EnterpriseWebSearchBlockingConfidence": "PHISH_BLOCK_THRESHOLD_UNSPECIFIED BLOCK_LOW_AND_ABOVE BLOCK_MEDIUM_AND_ABOVE BLOCK_HIGH_AND_ABOVE BLOCK_HIGHER_AND_ABOVE BLOCK_VERY_HIGH_AND_ABOVE BLOCK_ONLY_EXTREMELY_HIGH",
    "GoogleSearchBlockingConfidence": "PHISH_BLOCK_THRESHOLD_UNSPECIFIED BLOCK_LOW_AND_ABOVE BLOCK_MEDIUM_AND_ABOVE BLOCK_HIGH_AND_ABOVE BLOCK_HIGHER_AND_ABOVE BLOCK_VERY_HIGH_AND_ABOVE BLOCK_ONLY_EXTREMELY_HIGH",
    "VideoResponseFormatAspectRatio": "ASPECT_RATIO_UNSPECIFIED ASPECT_RATIO_SIXTEEN_BY_NINE ASPECT_RATIO_NINE_BY_SIXTEEN",
    "VideoResponseFormatDelivery": "DELIVERY_UNSPECIFIED INLINE URI",
    "GenerationConfigRoutingConfigAutoRoutingModeModelRoutingPreference": "UNKNOWN PRIORITIZE_QUALITY BALANCED PRIORITIZE_COST",
    "ExternalApiApiSpec": "API_SPEC_UNSPECIFIED SIMPLE_SEARCH ELASTIC_SEARCH",
    "PartialArgNullValue": "NULL_VALUE",
    "AuthConfigAuthType": "AUTH_TYPE_UNSPECIFIED NO_AUTH API_KEY_AUTH HTTP_BASIC_AUTH GOOGLE_SERVICE_ACCOUNT_AUTH OAUTH OIDC_AUTH",
    "AuthConfigApiKeyConfigHttpElementLocation": "HTTP_IN_UNSPECIFIED HTTP_IN_QUERY HTTP_IN_HEADER HTTP_IN_PATH HTTP_IN_BODY HTTP_IN_COOKIE",
}

ELSEWHERE: Final[dict[str, dict[str, str]]] = {
    "developer": {
        "EmbedContentRequest": "autoTruncate",
        "FunctionCall": "partialArgs willContinue",
        "FunctionCallingConfig": "streamFunctionCallArguments",
        "GenerateContentRequest": "continuationToken modelArmorConfig outputConfig",
        "GenerationConfig": "audioTimestamp modelConfig modelSelectionConfig routingConfig",
        "GoogleMaps": "groundingTypes",
        "GoogleSearch": "blockingConfidence excludeDomains",
        "ImageConfig": "imageOutputOptions outputCompressionQuality outputMimeType personGeneration prominentPeople",
        "SafetySetting": "method",
        "Schema": "additionalProperties defs ref",
        "Tool": "enterpriseWebSearch exaAiSearch parallelAiSearch retrieval",
    },
    "vertex": {
        "FunctionResponse": "willContinue",
        "FunctionResponsePart": "mediaProcessing",
        "GenerateContentRequest": "model store",
        "GenerationConfig": "_responseJsonSchema enableEnhancedCivicAnswers",
        "Part": "partMetadata toolCall toolResponse",
        "ReplicatedVoiceConfig": "consentAudio voiceConsentSignature",
        "Tool": "fileSearch mcpServers",
        "ToolConfig": "includeServerSideToolInvocations",
    },
}

WITNESSED: Final[dict[str, dict[str, dict[str, str]]]] = {
    "developer": {
        "AudioTranscriptionConfig": {"sourceText": "google-genai"},
        "FileSearch": {"retrievalConfig": "google-ai-generativelanguage", "retrievalResources": "google-ai-generativelanguage"},
        "FunctionResponsePart": {"audioMetadata": "google-genai", "documentMetadata": "google-genai", "fileData": "google-genai", "mediaProcessing": "google-genai", "mediaResolution": "google-genai", "spreadsheetMetadata": "google-genai", "videoMetadata": "google-genai"},
        "GoogleMaps": {"authConfig": "google-genai"},
        "Part": {"audioMetadata": "google-genai", "documentMetadata": "google-genai", "spreadsheetMetadata": "google-genai"},
        "PartMediaResolution": {"numTokens": "google-genai"},
        "ResponseFormat": {"video": "google-genai"},
        "TextFormat": {"jsonSchema": "google-genai"},
        "VideoMetadata": {"contentLayers": "google-genai"},
        "VoiceConfig": {"replicatedVoiceConfig": "google-genai"},
    },
    "vertex": {
        "AuthConfig": {"apiKey": "google-genai"},
        "FunctionResponsePart": {"audioMetadata": "google-genai", "documentMetadata": "google-genai", "mediaResolution": "google-genai", "spreadsheetMetadata": "google-genai", "videoMetadata": "google-genai"},
        "GenerationConfig": {"modelSelectionConfig": "google-genai"},
        "GoogleMaps": {"authConfig": "google-genai"},
        "GoogleSearch": {"timeRangeFilter": "google-genai"},
        "ImageConfig": {"outputCompressionQuality": "google-genai", "outputMimeType": "google-genai"},
        "Part": {"audioMetadata": "google-genai", "documentMetadata": "google-genai", "spreadsheetMetadata": "google-genai"},
        "PartMediaResolution": {"numTokens": "google-genai"},
        "TextFormat": {"jsonSchema": "google-genai"},
        "VideoMetadata": {"contentLayers": "google-genai"},
    },
}

WITNESSED_WORDS: Final[dict[str, dict[str, str]]] = {
    "developer": {
        "HarmCategory": "HARM_CATEGORY_IMAGE_HATE HARM_CATEGORY_IMAGE_DANGEROUS_CONTENT HARM_CATEGORY_IMAGE_HARASSMENT HARM_CATEGORY_IMAGE_SEXUALLY_EXPLICIT",
        "ToolType": "MEDIA_PROCESSING",
    },
    "vertex": {
        "HarmCategory": "HARM_CATEGORY_DEROGATORY HARM_CATEGORY_TOXICITY HARM_CATEGORY_VIOLENCE HARM_CATEGORY_SEXUAL HARM_CATEGORY_MEDICAL HARM_CATEGORY_DANGEROUS",
        "ThinkingLevel": "XHIGH",
        "VideoResponseFormatAspectRatio": "ASPECT_RATIO_ONE_BY_ONE ASPECT_RATIO_TWO_BY_THREE ASPECT_RATIO_THREE_BY_TWO ASPECT_RATIO_THREE_BY_FOUR ASPECT_RATIO_FOUR_BY_THREE ASPECT_RATIO_FOUR_BY_FIVE ASPECT_RATIO_FIVE_BY_FOUR ASPECT_RATIO_TWENTY_ONE_BY_NINE ASPECT_RATIO_ONE_BY_EIGHT ASPECT_RATIO_EIGHT_BY_ONE ASPECT_RATIO_ONE_BY_FOUR ASPECT_RATIO_FOUR_BY_ONE",
    },
}
