"""Every rule that a request can break, by name, and which of them only warn."""

from __future__ import annotations

from typing import Final

RULES: Final = {
    # What the walk over the field table finds by itself.
    "unknown-field": "a field that no source knows",
    "other-route": "a field that only the other route has",
    "unlisted-field": "a field that the table lacks and another source knows; it is sent as it is",
    "unknown-word": "a value that the enum does not have",
    "unlisted-word": "a value that the table lacks and another source knows; it is sent as it is",
    "wrong-type": "a value of another type than the field's",
    "not-whole": "a fraction where a whole number belongs",
    "not-finite": "a number that is not finite",
    "not-base64": "base64 with a wrong alphabet, padding or length",
    "given-twice": "a field in both spellings",
    "missing": "a field without which the service refuses the message",
    "empty": "such a field, and nothing in it",
    "too-deep": "nested beyond what can be read",
    # Rules over several fields.
    "no-payload": "a part that holds nothing",
    "two-payloads": "a part that holds two things",
    "metadata-alone": "metadata of a video in a part without one",
    "two-schemas": "two schemas in one generationConfig",
    "schema-unheeded": "responseJsonSchema, which batches are reported not to heed",
    "mcp-with-schema": "tools of MCP servers beside a schema: every row is reported to fail",
    "mime-missing": "a schema without the MIME type of JSON",
    "mime-unfit": "a schema beside the MIME type of something else",
    "too-many-stops": "more stop sequences than the service takes",
    "out-of-range": "a number outside the documented range",
    "logprobs-alone": "logprobs without responseLogprobs",
    "beside-cache": "what belongs into the cached content stands beside it",
    "no-cache": "cached content, where a batch takes none",
    "untyped-schema": "a schema without a type",
    "no-items": "an ARRAY that does not say what it holds",
    "undefined-property": "required names a property that is not there",
    "empty-word": "an enum with an empty word",
    "function-name": "a function name that the service refuses",
    "two-forms": "the same thing in two forms",
    "names-unused": "allowedFunctionNames in a mode that does not look at them",
    "undeclared-function": "allowedFunctionNames names a function that no tool declares",
    "empty-tool": "a tool that is none",
    "label": "a label whose form Vertex AI refuses",
    "empty-object": "an empty object, which the import of a Vertex AI batch fails on",
    "import-depth": "more levels of objects than that import takes",
    "import-name": "a name that is no column's to that import",
    "import-list": "a list where the same path is none elsewhere, which that import fails on",
    "import-unsure": "a name, or a list in a list, that that import may fail on",
    "mixed-types": "one path with values of different types, which that import may fail on",
    "image-size": "an image size that batches of Vertex AI do not give",
    "rag-store": "retrieval from a RAG store, which batches of Vertex AI do not do",
    "media-uri": "a URI that the route cannot read",
    "media-unsure": "a URI that the route may not read",
    "inline-size": "inline data beyond the documented size of a payload",
    "other-model": "a model other than the batch's",
    # What the model can do: core/capabilities.py.
    "model-retired": "the model is shut down",
    "model-retiring": "the model is reported to be shut down",
    "model-no-batch": "the model runs no batches of this kind",
    "model-unsure": "the model is reported to run no batches",
    "model-unknown": "no source lists the model",
    "tuned-model": "a tuned model of Vertex AI, on the Developer API",
    "thinking-form": "the thinking parameter of another family of models",
    "thinking-both": "thinkingLevel and thinkingBudget in one request",
    "thinking-level": "a thinking level that the model does not have",
    "thinking-budget": "a thinking budget outside the model's range",
    "modality": "a kind of answer that the model does not give",
    "task-in-text": "a task type or title, for a model that is told both in the text",
}
"""Every rule by the name that ``geminibatch lint --json`` prints."""

WARNINGS: Final = frozenset(
    {
        "unlisted-field", "unlisted-word", "schema-unheeded", "mcp-with-schema", "metadata-alone", "names-unused",
        "media-unsure", "inline-size", "model-retiring", "model-unsure", "model-unknown", "task-in-text", "mixed-types",
        "import-unsure",
    }
)  # fmt: skip
"""Rules that warn. All others refuse. A model's limit that is only reported warns too, under its rule with ``?``."""
