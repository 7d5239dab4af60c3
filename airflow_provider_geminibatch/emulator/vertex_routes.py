"""The endpoints of Vertex AI: their paths, who may call them, and what answers them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from airflow_provider_geminibatch.emulator.vertex import Vertex
from airflow_provider_geminibatch.emulator.vertex_models import VertexModels
from airflow_provider_geminibatch.emulator.vertex_wire import project_number, vertex_refused
from airflow_provider_geminibatch.emulator.wire import Call, Reply, Request

_VERSION = "/(?P<version>v1|v1beta1)"
_PARENT = f"{_VERSION}/projects/(?P<project>[^/]+)/locations/(?P<location>[^/]+)"
_JOB = f"{_PARENT}/batchPredictionJobs/(?P<id>[^/:]+)"
_MODELS = "publishers/google/models"
VERTEX_ENDPOINTS: tuple[tuple[str, str, str], ...] = (
    ("vertex.create", "POST", f"{_PARENT}/batchPredictionJobs"),
    ("vertex.get", "GET", _JOB),
    ("vertex.list", "GET", f"{_PARENT}/batchPredictionJobs"),
    ("vertex.cancel", "POST", f"{_JOB}:cancel"),
    ("vertex.delete", "DELETE", _JOB),
    ("vertex.generate", "POST", f"{_PARENT}/{_MODELS}/(?P<model>[^/:]+):generateContent"),
    ("vertex.count_tokens", "POST", f"{_PARENT}/{_MODELS}/(?P<model>[^/:]+):countTokens"),
    ("vertex.model", "GET", f"({_PARENT}|{_VERSION.replace('version', 'bare')})/{_MODELS}/(?P<model>[^/:]+)"),
    ("vertex.models", "GET", f"({_PARENT}|{_VERSION.replace('version', 'bare')})/{_MODELS}"),
)
# What a caller is said to lack, where it is not what one needs to call a model.
_PERMISSIONS: Mapping[str, str] = {
    f"vertex.{verb}": f"aiplatform.batchPredictionJobs.{verb}" for verb in ("create", "get", "list", "cancel", "delete")
}


def vertex_handlers(vertex: Vertex, models: VertexModels) -> Mapping[str, Callable[[Call], Reply]]:
    """What answers each endpoint."""
    return {
        "vertex.create": vertex.create,
        "vertex.get": vertex.get,
        "vertex.list": vertex.list_,
        "vertex.cancel": vertex.cancel,
        "vertex.delete": vertex.delete,
        "vertex.generate": models.generate,
        "vertex.count_tokens": models.count_tokens,
        "vertex.model": models.get_model,
        "vertex.models": models.list_models,
    }


def vertex_project(call: Call, seed: int, tokens: Mapping[str, str] | None, revoked: Collection[str]) -> str:
    """The number of the project that a call is for. Raises the refusal of a token that may not ask there.

    A token is good for one project, and any will do for any where none are given.
    """
    token = check_token(call.request, tokens, revoked)
    asked = call.params.get("project")
    if asked is None:
        return ""
    number = project_number(seed, asked)
    if tokens is not None and number != project_number(seed, tokens[token]):
        resource = f"projects/{asked}/locations/{call.params['location']}"
        permission = _PERMISSIONS.get(call.endpoint, "aiplatform.endpoints.predict")
        raise vertex_refused("denied", permission=permission, resource=resource)
    return number


def check_token(request: Request, tokens: Mapping[str, str] | None, revoked: Collection[str]) -> str:
    """The access token of a request. Raises the refusal of one that is missing or no good."""
    token = bearer(request)
    if not token:
        raise vertex_refused("no_token")
    if token in revoked or (tokens is not None and token not in tokens):
        raise vertex_refused("bad_token")
    return token


def bearer(request: Request) -> str:
    """The access token of a request, empty where it has none."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


__all__ = ["VERTEX_ENDPOINTS", "bearer", "check_token", "vertex_handlers", "vertex_project"]
