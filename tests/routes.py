"""The routes by which the same tests go: one row each, all over the one emulator.

A row says how a gateway is made, what the service calls the endpoints in its log, and how a connection is written.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from airflow_provider_geminibatch.gemini.developer import DeveloperGateway, DeveloperWatcher, Settings
from airflow_provider_geminibatch.gemini.gateway import Gateway, Watcher
from airflow_provider_geminibatch.gemini.vertex import VertexGateway, VertexSettings, VertexWatcher

PROJECT, LOCATION, BUCKET = "emulated", "global", "staging"


@dataclass(frozen=True, eq=False)
class Route:
    """One way to the service."""

    name: str
    settings: Callable[..., Any]
    gateway: Callable[[Any], Gateway]
    watcher: Callable[[Any], Watcher]
    endpoints: dict[str, str] = field(default_factory=dict)
    extra: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name

    def opened(self, url: str, *, timeout_seconds: float = 10.0) -> Any:
        """A gateway to the emulator at ``url``."""
        return self.gateway(self.settings(url, timeout_seconds))

    def watched(self, url: str) -> Any:
        """A watcher of the emulator at ``url``."""
        return self.watcher(self.settings(url, 10.0))

    def endpoint(self, name: str) -> str:
        """What the log of the emulator calls an endpoint that has the Developer API's name."""
        return self.endpoints.get(name, name)

    def connection(self, url: str, **extra: object) -> str:
        """An Airflow connection of the route as its JSON."""
        password = {} if self.extra else {"password": "key"}
        return json.dumps({"conn_type": "geminibatch", "host": url, **password, "extra": {**self.extra, **extra}})


def _developer(url: str, timeout_seconds: float) -> Settings:
    return Settings("secret-key", url, timeout_seconds=timeout_seconds)


def _vertex(url: str, timeout_seconds: float) -> VertexSettings:
    return VertexSettings(PROJECT, LOCATION, f"gs://{BUCKET}/batches", endpoint=url, timeout_seconds=timeout_seconds)


DEVELOPER = Route("developer", _developer, DeveloperGateway, DeveloperWatcher)
VERTEX = Route(
    "vertex",
    _vertex,
    VertexGateway,
    VertexWatcher,
    {
        "batches.create": "vertex.create",
        "batches.get": "vertex.get",
        "batches.list": "vertex.list",
        "batches.cancel": "vertex.cancel",
        "files.get": "storage.get",
        "files.delete": "storage.delete",
        "files.download": "storage.download",
        "models.get": "vertex.model",
        "models.generate": "vertex.generate",
        "models.count_tokens": "vertex.count_tokens",
    },
    {"project": PROJECT, "location": LOCATION, "staging": f"gs://{BUCKET}/batches"},
)
ROUTES = (DEVELOPER, VERTEX)

both = pytest.mark.parametrize("route", ROUTES, ids=str)
"""Marks a test that goes by either route."""
