"""The models, their limits and their prices, as data.

Limits: the rate-limit page of 2026-08-18, Tier 1. Prices: the pricing page as copied August to October 2026, USD for a
million tokens. A price that the sources do not give is None and is reported as unpriced, never as zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple

from airflow_provider_geminibatch.emulator.wire import Json

PRICES_AS_OF = "2026-10"
PRICES_SOURCE = "ai.google.dev/gemini-api/docs/pricing, as copied August to October 2026"

_GENERATE = ("generateContent", "countTokens", "createCachedContent", "batchGenerateContent")
_EMBED = ("embedContent", "countTextTokens", "asyncBatchEmbedContent")


class Price(NamedTuple):
    """USD for a million tokens by the interactive route, until `until` (exclusive; None is for good)."""

    input: Decimal | None
    output: Decimal | None
    until: datetime | None = None


# What batch and flex cost of the interactive price.
BATCH_SHARE = Decimal("0.5")
# What cached tokens cost of the interactive price of input.
CACHED_SHARE = Decimal("0.1")
# USD for a million tokens kept in a cache for an hour; no source that could be read gives it for other models.
CACHE_STORAGE: Mapping[str, Decimal] = {"gemini-3.8-flash": Decimal("0.50")}


def _usd(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def _price(tokens_in: str | None, tokens_out: str | None, until: datetime | None = None) -> Price:
    return Price(_usd(tokens_in), _usd(tokens_out), until)


_FLASH = (_price("0.75", "3.75", datetime(2027, 1, 1, tzinfo=UTC)), _price("1.50", "7.50"))


@dataclass(frozen=True, slots=True)
class Model:
    """One model: what it can do, how many tokens its batch queue takes, and what it costs up to 200k of context."""

    name: str
    methods: tuple[str, ...]
    enqueued_tokens: int
    prices: tuple[Price, ...]
    input_limit: int = 1_048_576
    output_limit: int = 65_536
    locations: tuple[str, ...] = ()
    """Where Vertex AI offers it; everywhere unless told."""

    def price_at(self, moment: datetime) -> Price:
        """The price on that day."""
        return next(price for price in self.prices if price.until is None or moment < price.until)

    def resource(self, name: str) -> Json:
        """The model as `models.get` shows it. Token limits and version are assumed."""
        return {
            "name": f"models/{name}",
            "version": "001",
            "displayName": self.name.replace("-", " ").title(),
            "inputTokenLimit": self.input_limit,
            "outputTokenLimit": self.output_limit,
            "supportedGenerationMethods": list(self.methods),
        }

    def publisher_resource(self, name: str) -> Json:
        """The model as Vertex AI shows it, which says nothing of batches; version and stage are assumed."""
        return {
            "name": f"publishers/google/models/{name}",
            "versionId": "default",
            "openSourceCategory": "PROPRIETARY",
            "launchStage": "PUBLIC_PREVIEW" if self.is_preview else "GA",
        }

    @property
    def is_preview(self) -> bool:
        """Whether its name says that it is a preview."""
        return "-preview" in self.name


# On Vertex AI newer models may be at `global` only: reported of 3.5 Flash-Lite and of a Pro preview.
_GLOBAL = ("global",)

# The queue of 3.8 Flash is not in the table of limits; that of 3.7 Flash is assumed for it.
_MODELS = (
    Model("gemini-3.8-flash", _GENERATE, 3_000_000, _FLASH),
    Model("gemini-3.7-flash", _GENERATE, 3_000_000, _FLASH),
    Model("gemini-3.6-flash", _GENERATE, 3_000_000, _FLASH),
    Model("gemini-3.5-flash", _GENERATE, 3_000_000, (_price("1.50", "9.00"),)),
    Model("gemini-3.5-flash-lite", _GENERATE, 10_000_000, (_price("0.30", "2.50"),), locations=_GLOBAL),
    Model("gemini-3.1-flash-lite", _GENERATE, 10_000_000, (_price("0.25", "1.50"),)),
    Model("gemini-3.1-pro-preview", _GENERATE, 5_000_000, (_price("2", "12"),), locations=_GLOBAL),
    Model("gemini-2.5-pro", _GENERATE, 5_000_000, (_price("1.25", None),)),
    Model("gemini-2.5-flash", _GENERATE, 3_000_000, (_price("0.30", None),)),
    Model("gemini-2.5-flash-lite", _GENERATE, 10_000_000, (_price(None, "0.40"),)),
    Model("gemini-embedding-2", _EMBED, 500_000, (_price("0.20", "0"),), 8_192, 1),
    # Listed without the batch method, as reported.
    Model("gemini-2.5-flash-preview-tts", ("generateContent", "countTokens"), 100_000, (_price(None, None),), 8_192),
)
MODELS: Mapping[str, Model] = {model.name: model for model in _MODELS}

# The `-latest` names exist on v1beta only (release notes of the client's version 3).
_LATEST = {"gemini-flash-latest": "gemini-3.8-flash", "gemini-flash-lite-latest": "gemini-3.5-flash-lite"}


def find_model(name: str, version: str) -> Model | None:
    """The model of that name (without `models/`) on that API version."""
    return MODELS.get(_LATEST.get(name, name) if version == "v1beta" else name)


def list_models(version: str) -> list[Json]:
    """Every model as `models.list` shows it on that API version."""
    latest = {name: MODELS[of] for name, of in _LATEST.items()} if version == "v1beta" else {}
    return [model.resource(name) for name, model in {**MODELS, **latest}.items()]


def find_vertex_model(name: str, location: str, elsewhere: Mapping[str, Sequence[str]]) -> Model | None:
    """The model of that name (without `publishers/google/models/`, a version after `@` is not looked at) at a location.

    `elsewhere` says of single models where they are, in place of the catalogue.
    """
    model = MODELS.get(name.partition("@")[0])
    places = elsewhere.get(model.name, model.locations) if model else ()
    return model if not places or location in places else None


@dataclass(frozen=True, slots=True)
class Limits:
    """The quotas of a project, and what a job of Vertex AI takes. `enqueued_tokens` overrides the queue of single models."""

    concurrent_jobs: int = 100
    storage_bytes: int = 20 * 2**30
    file_bytes: int = 2 * 2**30
    inline_bytes: int = 20 * 2**20
    vertex_rows: int = 200_000
    vertex_embedding_rows: int = 1_000_000
    vertex_input_bytes: int = 2**30
    enqueued_tokens: Mapping[str, int] = field(default_factory=dict)

    def queue_of(self, model: Model) -> int:
        """How many tokens all active jobs of a model may hold in one project."""
        return self.enqueued_tokens.get(model.name, model.enqueued_tokens)


__all__ = [
    "BATCH_SHARE",
    "CACHED_SHARE",
    "CACHE_STORAGE",
    "MODELS",
    "PRICES_AS_OF",
    "PRICES_SOURCE",
    "Limits",
    "Model",
    "Price",
    "find_model",
    "find_vertex_model",
    "list_models",
]
