"""The endpoints of Vertex AI that answer at once: models, generateContent, countTokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from airflow_provider_geminibatch.emulator import answers
from airflow_provider_geminibatch.emulator.billing import Charge, Route
from airflow_provider_geminibatch.emulator.catalog import MODELS, Model, find_vertex_model
from airflow_provider_geminibatch.emulator.effects import bent
from airflow_provider_geminibatch.emulator.names import next_page
from airflow_provider_geminibatch.emulator.parsing import check_body, field
from airflow_provider_geminibatch.emulator.switches import marked
from airflow_provider_geminibatch.emulator.vertex_wire import vertex_refused
from airflow_provider_geminibatch.emulator.wire import Call, Json, Refused, Reply

# What the documented header asks for: how it is charged, and what the reply calls it.
_HEADER = "x-vertex-ai-llm-shared-request-type"
_TRAFFIC: Mapping[str, tuple[Route, str]] = {
    "": ("standard", "ON_DEMAND"),
    "flex": ("flex", "ON_DEMAND_FLEX"),
    "priority": ("priority", "ON_DEMAND_PRIORITY"),
}


class VertexModels:
    """The models at their locations, and the calls to them, each charged through `charge`."""

    def __init__(self, charge: Callable[[Charge], None], elsewhere: Mapping[str, Sequence[str]]) -> None:
        self._charge, self._elsewhere = charge, elsewhere

    def get_model(self, call: Call) -> Reply:
        """vertex.model: a publisher's model, at a location where the path names one."""
        name, location = call.params["model"], call.params.get("location")
        model = self._model(call) if location else MODELS.get(name.partition("@")[0])
        if model is None:
            raise vertex_refused("no_model", project="-", location="-", model=name)
        return Reply(body=model.publisher_resource(name.partition("@")[0]))

    def list_models(self, call: Call) -> Reply:
        """vertex.models, fifty to a page unless asked."""
        size, token = call.page(50)
        every = [model.publisher_resource(name) for name, model in MODELS.items()]
        page, following = next_page(list(enumerate(every)), size, token)
        return Reply(body={"publisherModels": page, **({"nextPageToken": following} if following else {})})

    def generate(self, call: Call) -> Reply:
        """vertex.generate, by flex or priority where the header says so."""
        model = self._model(call)
        body = self._body(call, "VertexRequest")
        asked = call.request.headers.get(_HEADER, "").lower()
        if asked not in _TRAFFIC:
            raise Refused(400, "INVALID_ARGUMENT", f"Invalid value of {_HEADER}: {asked}.")
        if asked == "flex" and call.params["location"] != "global":
            raise vertex_refused("flex_regional")
        cached = field(body, "cachedContent")
        if cached:
            text = f"Not found: cached content metadata for {cached.rpartition('/')[2]}."
            raise Refused(404, "NOT_FOUND", text)
        response = answers.generate(body, model.name)
        if effects := marked(json.dumps(body)):
            response = bent(response, body, model.name, effects)
        used = response["usageMetadata"]
        output = used.get("candidatesTokenCount", 0) + used.get("thoughtsTokenCount", 0)
        route, traffic = _TRAFFIC[asked]
        self._charge(Charge(route, model.name, call.now, 1, used["promptTokenCount"], output))
        return Reply(body={**response, "usageMetadata": {**used, "trafficType": traffic}})

    def count_tokens(self, call: Call) -> Reply:
        """vertex.count_tokens."""
        self._model(call)
        body = self._body(call, "VertexCountTokens")
        tokens = answers.read_prompt(body).tokens
        return Reply(body={"totalTokens": tokens, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": tokens}]})

    def _body(self, call: Call, kind: str) -> Json:
        body = call.request.json()
        check_body(body, kind)
        return body

    def _model(self, call: Call) -> Model:
        name, location = call.params["model"], call.params["location"]
        model = find_vertex_model(name, location, self._elsewhere)
        if model is None or "generateContent" not in model.methods:
            raise vertex_refused("no_model", project=call.params["project"], location=location, model=name)
        return model


__all__ = ["VertexModels"]
