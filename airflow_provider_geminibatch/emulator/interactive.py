"""The endpoints that answer at once: models, generateContent, countTokens, embedContent."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from airflow_provider_geminibatch.emulator import answers
from airflow_provider_geminibatch.emulator.billing import Charge, Route
from airflow_provider_geminibatch.emulator.caches import Caches
from airflow_provider_geminibatch.emulator.catalog import Model, find_model, list_models
from airflow_provider_geminibatch.emulator.effects import bent
from airflow_provider_geminibatch.emulator.files import Files
from airflow_provider_geminibatch.emulator.media import unreadable
from airflow_provider_geminibatch.emulator.names import next_page
from airflow_provider_geminibatch.emulator.parsing import check_body, field
from airflow_provider_geminibatch.emulator.switches import marked
from airflow_provider_geminibatch.emulator.wire import Call, Json, Reply, refused

_ROUTES: Mapping[str, Route] = {"flex": "flex", "priority": "priority"}


class Interactive:
    """The models and the calls to them, each charged through `charge`."""

    def __init__(self, charge: Callable[[Charge], None], files: Files, caches: Caches) -> None:
        self._charge, self._files, self._caches = charge, files, caches

    def get_model(self, call: Call) -> Reply:
        """models.get."""
        return Reply(body=self._model(call, "generateContent", any_method=True).resource(call.params["model"]))

    def list_models(self, call: Call) -> Reply:
        """models.list, fifty to a page unless asked."""
        size, token = call.page(50)
        page, following = next_page(list(enumerate(list_models(call.version))), size, token)
        return Reply(body={"models": page, **({"nextPageToken": following} if following else {})})

    def generate(self, call: Call) -> Reply:
        """models.generateContent, by flex, standard or priority as `serviceTier` says."""
        model = self._model(call, "generateContent")
        body = self._body(call, "GenerateContentRequest")
        dead = unreadable(body, lambda file_id: self._files.unusable(call.project, file_id, call.now))
        if dead:
            raise refused(dead[0], file=dead[1])
        merged = self._caches.merge(call.project, call.now, body)
        if merged is None:
            raise refused("no_cache")
        response = answers.generate(merged.request, model.name)
        if merged.cached_tokens:
            response["usageMetadata"]["cachedContentTokenCount"] = merged.cached_tokens
        if effects := marked(json.dumps(body)):
            response = bent(response, body, model.name, effects)
        tier = str(field(body, "serviceTier", "standard")).lower().removeprefix("service_tier_")
        used = response["usageMetadata"]
        output = used.get("candidatesTokenCount", 0) + used.get("thoughtsTokenCount", 0)
        route = _ROUTES.get(tier, "standard")
        cached = used.get("cachedContentTokenCount", 0)
        self._charge(Charge(route, model.name, call.now, 1, used["promptTokenCount"], output, cached))
        return Reply(body=response, headers={"x-gemini-service-tier": route})

    def count_tokens(self, call: Call) -> Reply:
        """models.countTokens."""
        self._model(call, "countTokens")
        body = self._body(call, "CountTokens")
        tokens = answers.read_prompt(field(body, "generateContentRequest", body)).tokens
        return Reply(body={"totalTokens": tokens, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": tokens}]})

    def embed(self, call: Call) -> Reply:
        """models.embedContent."""
        model = self._model(call, "embedContent")
        response = answers.embed(self._body(call, "EmbedContentRequest"), model.name)
        tokens = int(response.pop("tokenCount"))
        self._charge(Charge("standard", model.name, call.now, 1, tokens, 0))
        return Reply(body={**response, "usageMetadata": {"promptTokenCount": tokens}})

    def _body(self, call: Call, kind: str) -> dict[str, Any]:
        body: Json = call.request.json()
        check_body(body, kind)
        return body

    def _model(self, call: Call, method: str, *, any_method: bool = False) -> Model:
        name = call.params["model"]
        model = find_model(name, call.version)
        if model is None or not (any_method or method in model.methods):
            raise refused("no_model", model=name, version=call.version, method=method)
        return model


__all__ = ["Interactive"]
