"""What Vertex AI refuses, and the names of its projects."""

from __future__ import annotations

from collections.abc import Mapping

from airflow_provider_geminibatch.emulator.switches import draw_unit
from airflow_provider_geminibatch.emulator.wire import Refused, Text

_BAD, _MISSING, _STATE = "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"

# Reported texts come first; the wording of those after the mark is assumed.
_REFUSALS: Mapping[str, Text] = {
    "no_model": Text(
        404,
        _MISSING,
        "Publisher Model `projects/{project}/locations/{location}/publishers/google/models/{model}` was not found or "
        "your project does not have access to it. Please ensure you are using a valid model version.",
    ),
    "no_token": Text(
        401,
        "UNAUTHENTICATED",
        "Request is missing required authentication credential. Expected OAuth 2 access token, login cookie or other "
        "valid authentication credential.",
    ),
    "bad_token": Text(
        401,
        "UNAUTHENTICATED",
        "Request had invalid authentication credentials. Expected OAuth 2 access token, login cookie or other valid "
        "authentication credential.",
    ),
    "denied": Text(
        403,
        "PERMISSION_DENIED",
        "Permission '{permission}' denied on resource '//aiplatform.googleapis.com/{resource}' (or it may not exist).",
    ),
    "quota": Text(
        429,
        "RESOURCE_EXHAUSTED",
        "Resource exhausted. Please try again later. Please refer to "
        "https://cloud.google.com/vertex-ai/generative-ai/docs/error-code-429 for more details.",
    ),
    "no_batch_model": Text(404, _MISSING, "The PublisherModel {model} does not exist."),
    # assumed from here on
    "overloaded": Text(503, "UNAVAILABLE", "The service is currently unavailable."),
    "no_job": Text(404, _MISSING, "The BatchPredictionJob does not exist."),
    "required": Text(400, _BAD, "The field {field} is required."),
    "long_name": Text(400, _BAD, "The display name must be at most 128 characters long."),
    "no_source": Text(400, _BAD, "Exactly one source is required in input_config, that of its instances_format."),
    "no_destination": Text(
        400, _BAD, "Exactly one destination is required in output_config, that of its predictions_format."
    ),
    "bad_format": Text(400, _BAD, "{format!r} is not a supported format of {field}."),
    "bad_uri": Text(400, _BAD, "{uri!r} is not a valid URI of {field}; it has to begin with {scheme}."),
    "no_place": Text(501, "UNIMPLEMENTED", "The emulator has nothing to read from or write to {scheme}."),
    "bad_label": Text(400, _BAD, "The label {label!r} is invalid: at most 63 lower-case letters, digits, _ and -."),
    "many_labels": Text(400, _BAD, "A resource has at most 64 labels."),
    "bad_model": Text(400, _BAD, "{model!r} is not the name of a model that takes batch predictions."),
    "tuned_at_global": Text(400, _BAD, "Tuned models are not supported at the global endpoint."),
    "model_elsewhere": Text(400, _BAD, "The model {model} is not at the location {location} of the job."),
    "bad_key": Text(400, _BAD, "{key!r} is not a key at the location {location}."),
    "preview_key": Text(400, _STATE, "Security controls are not supported for preview models: {model}."),
    "ended": Text(400, _STATE, "The BatchPredictionJob is in the state {state} and can not be cancelled."),
    "not_ended": Text(400, _STATE, "The BatchPredictionJob is in the state {state} and can not be deleted."),
    "flex_regional": Text(400, _STATE, "Flex requests are supported at the global endpoint only."),
}


def vertex_refused(name: str, *, retry_after: float = 0, **facts: object) -> Refused:
    """The refusal of that name, with its text filled in and a Retry-After unless that is 0 s."""
    text = _REFUSALS[name]
    refusal = Refused(text.code, text.status, text.message.format(**facts))
    if retry_after:
        refusal.headers["retry-after"] = f"{retry_after:g}"
    return refusal


def project_number(seed: int, project: str) -> str:
    """The number of a project, by its id or by that number itself."""
    return project if project.isdigit() else str(10**11 + int(draw_unit(seed, "project", project) * 9 * 10**11))


__all__ = ["project_number", "vertex_refused"]
