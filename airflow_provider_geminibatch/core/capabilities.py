"""What models can do in a batch: dated rows with their sources, and how sure each is.

Only what Google documents refuses a request; what users report, and a model that no row knows, warns. The rows age: the
list of models that ``geminibatch models --write FILE`` keeps is laid over them by ``[geminibatch] models``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple

import msgspec

from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.core.kinds import KINDS

AS_OF: Final = date(2026, 11, 22)
"""When the rows below were put together."""

Sure = Literal["documented", "reported"]
METHODS: Final = {name: kind.method for name, kind in KINDS.items()}
"""The method that a model lists when it runs batches of a kind."""


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """What models whose names match ``pattern`` can do. None and empty: nothing known, nothing checked."""

    pattern: str
    source: str
    sure: Sure = "documented"
    kinds: tuple[str, ...] = ("generate",)
    """The kinds of batches they run; empty for none."""
    thinking: Literal["", "level", "budget"] = ""
    levels: tuple[str, ...] = ()
    budgets: tuple[int, int] | None = None
    """Smallest and largest thinkingBudget; -1, "as much as it takes", is always one."""
    budget_zero: bool = False
    """Whether a budget of 0 turns thinking off."""
    outputs: tuple[str, ...] = ()
    """The kinds of answers, as in responseModalities."""
    task_in_text: bool = False
    """Whether task type and title of an embedding belong into its text, and not into fields."""
    retired: date | None = None
    sure_retired: Sure = "documented"
    sure_thinking: Sure = "documented"


_THINKING = "thinking guide of the Gemini API, as clients quote it, 2026"
_BATCH = "batch guide (2026-09-18) and rate limits (2026-08-18)"
_ALL = ("MINIMAL", "LOW", "MEDIUM", "HIGH")

# The first row that matches counts: the special before the general.
MODELS: Final = (
    Model(pattern="gemini-2.0-*", source="changelog, 2026-07: shut down", retired=date(2026, 6, 1)),
    Model(pattern="gemini-*-image-preview*", source="changelog, 2026-07: image previews shut down", retired=date(2026, 6, 25)),
    Model(pattern="gemini-embedding-2*", source=_BATCH, kinds=("embed",), task_in_text=True),
    Model(pattern="gemini-embedding-*", source=_BATCH, kinds=("embed",)),
    Model(pattern="text-embedding-*", source="batch guide of embeddings on Vertex AI", kinds=("embed",)),
    Model(pattern="gemini-*-tts*", source="lists of models, 2026; the rate limits name them", sure="reported", kinds=()),
    Model(pattern="gemini-*-omni*", source="404 of a batch, reported 2026", sure="reported", kinds=()),
    Model(pattern="gemini-*-live*", source="live sessions only; reported 2026", sure="reported", kinds=()),
    Model(pattern="gemma-*", source="lists of models, reported 2026", sure="reported", kinds=()),
    Model(pattern="imagen-*", source="404 of a batch, reported 2026", sure="reported", kinds=()),
    Model(pattern="veo-*", source="404 of a batch, reported 2026", sure="reported", kinds=()),
    Model(pattern="lyria-*", source="404 of a batch, reported 2026", sure="reported", kinds=()),
    Model(pattern="gemini-3*-image*", source=_BATCH, outputs=("TEXT", "IMAGE")),
    Model(pattern="gemini-2.5-flash-image*", source=_BATCH, outputs=("TEXT", "IMAGE")),
    Model(
        pattern="gemini-2.5-pro*", source=_THINKING, thinking="budget", budgets=(128, 32_768), outputs=("TEXT",),
        retired=date(2026, 10, 15), sure_retired="reported",
    ),
    Model(
        pattern="gemini-2.5-flash-lite*", source=_THINKING, thinking="budget", budgets=(512, 24_576), budget_zero=True,
        outputs=("TEXT",), retired=date(2026, 10, 15), sure_retired="reported",
    ),
    Model(
        pattern="gemini-2.5-flash*", source=_THINKING, thinking="budget", budgets=(1, 24_576), budget_zero=True,
        outputs=("TEXT",), retired=date(2026, 10, 15), sure_retired="reported",
    ),
    Model(
        pattern="gemini-3.8-flash*", source="a measured batch refused MINIMAL, 2026-08", thinking="level",
        levels=("LOW", "MEDIUM", "HIGH"), outputs=("TEXT",), sure_thinking="reported",
    ),
    Model(
        pattern="gemini-3-pro*", source=_THINKING, thinking="level", levels=("LOW", "HIGH"), outputs=("TEXT",),
        sure_thinking="reported",
    ),
    Model(
        pattern="gemini-3.1-pro*", source=_BATCH, thinking="level", levels=("LOW", "MEDIUM", "HIGH"), outputs=("TEXT",),
        sure_thinking="reported",
    ),
    Model(pattern="gemini-3-flash*", source=_THINKING, thinking="level", levels=_ALL, outputs=("TEXT",),
          sure_thinking="reported"),
    Model(pattern="gemini-3.1-flash-lite*", source=_THINKING, thinking="level", levels=_ALL, outputs=("TEXT",),
          sure_thinking="reported"),
    Model(pattern="gemini-3.?-*", source=_BATCH, thinking="level", outputs=("TEXT",)),
    Model(pattern="gemini-4-*", source="list of batch models on Vertex AI, 2026"),
    Model(pattern="gemini-flash-latest", source="release notes of google-genai 3: an alias, on v1beta only"),
    Model(pattern="gemini-flash-lite-latest", source="release notes of google-genai 3: an alias, on v1beta only"),
    Model(pattern="gemini-pro-latest", source="release notes of google-genai 3: an alias, on v1beta only"),
)  # fmt: skip


class Offered(NamedTuple):
    """Models whose names match ``pattern`` are reported to be at these locations of Vertex AI only."""

    pattern: str
    locations: tuple[str, ...]
    source: str


ONLY_AT: Final = (
    Offered("gemini-3.5-flash-lite*", ("global",), "404 at us-central1 and taken at global, reported 2026-08-30"),
    Offered("gemini-3-pro-preview*", ("global",), "404 at us-central1 and taken at global, reported 2026"),
)
"""Newer models may be at ``global`` only; no source lists where each is."""

_TUNED: Final = re.compile(r"projects/[^/]+/locations/([^/]+)/(?:models|endpoints)/.+")


def tuned_at(model: str) -> str | None:
    """The location of a tuned model or endpoint, which is written as a resource name; None for a model of Google's."""
    found = _TUNED.fullmatch(model)
    return found[1] if found else None


def offered_elsewhere(model: str, location: str) -> str:
    """Where a model is reported to be instead of at a location of Vertex AI, with the source; empty when nothing says so."""
    name = model.rsplit("/", 1)[-1].split("@", 1)[0]
    row = next((row for row in ONLY_AT if fnmatchcase(name, row.pattern)), None)
    if row is None or location in row.locations or tuned_at(model):
        return ""
    return f"{name} is reported to be at {' and '.join(row.locations)} only ({row.source})"


def is_preview(model: str) -> bool:
    """Whether a model of Google's is a preview, told by its name."""
    return not tuned_at(model) and "-preview" in model


class ModelInfo(msgspec.Struct, frozen=True):
    """A model as the service lists it, without ``models/``."""

    name: str
    methods: tuple[str, ...] = ()
    input_token_limit: int | None = None
    output_token_limit: int | None = None


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """The models of a service on a day: what ``geminibatch models --write`` keeps."""

    v: int = 1
    as_of: date
    endpoint: str
    models: tuple[ModelInfo, ...]


def read_listing(raw: bytes, source: str) -> Listing:
    """A kept list. Raises Unusable for what is none."""
    try:
        return msgspec.json.decode(raw, type=Listing)
    except msgspec.DecodeError as error:
        do = "Write it anew with `geminibatch models --write FILE`."
        raise Unusable(source, f"it is no list of models ({error})", do) from None


class Fault(NamedTuple):
    """What a model cannot do, or may not be able to: the field below the request, and whether it is sure."""

    field: str
    rule: str
    what: str
    hint: str
    warns: bool


@dataclass(frozen=True)
class Capabilities:
    """The table, and the service's own list of models laid over it."""

    rows: tuple[Model, ...] = MODELS
    listing: Listing | None = field(default=None)

    def row(self, model: str) -> Model | None:
        """The row of a model; None for one that no source knows."""
        return _row(self.rows, model)

    def kinds_of(self, model: str) -> tuple[str, ...]:
        """The kinds of batches that a model runs, as far as anybody says."""
        listed, row = self._listed(model), self.row(model)
        if listed:
            return tuple(kind for kind, method in METHODS.items() if method in listed.methods)
        return row.kinds if row else ()

    def model_faults(self, model: str, *, kind: str, today: date, route: str = "developer") -> Iterator[Fault]:
        """What keeps a model from running batches of a kind on a route, asked once for a batch."""
        if tuned_at(model):
            # It bears a number, and what it can do is that of the model it was made of, which its name does not say.
            if route != "vertex":
                hint = "pass a connection with its project and location, or name a model of Google's"
                yield Fault("model", "tuned-model", "is a tuned model, which runs on Vertex AI only", hint, False)
            return
        row, listed = self.row(model), self._listed(model)
        if self.listing and listed:
            if METHODS[kind] not in listed.methods:
                what = f"runs no {kind} batches, says the service's list of {self.listing.as_of}"
                yield Fault("model", "model-no-batch", what, "`geminibatch models` lists those that do", False)
            return
        if self.listing:
            what = f"is not in the service's list of {self.listing.as_of}"
            yield Fault("model", "model-unknown", what, "`geminibatch models --write` renews the list", True)
        if row is None:
            if not self.listing:
                what = f"is in no source as of {AS_OF}"
                yield Fault(
                    "model", "model-unknown", what, "check the name; `geminibatch models` lists what there is", True
                )
            return
        if row.retired and today >= row.retired:
            sure = row.sure_retired == "documented"
            what = f"{'was' if sure else 'is reported to be'} shut down on {row.retired}"
            hint = f"name another model; source: {row.source}" if sure else "name another model"
            yield Fault("model", "model-retired" if sure else "model-retiring", what, hint, not sure)
        elif kind not in row.kinds:
            sure = row.sure == "documented"
            what = f"runs no {kind} batches" if sure else f"is reported to run no {kind} batches"
            yield Fault("model", "model-no-batch" if sure else "model-unsure", what, f"source: {row.source}", not sure)

    def _listed(self, model: str) -> ModelInfo | None:
        models = self.listing.models if self.listing else ()
        return next((each for each in models if each.name.removeprefix("models/") == model), None)


BUILT_IN: Final = Capabilities()


@lru_cache(maxsize=256)
def _row(rows: tuple[Model, ...], model: str) -> Model | None:
    # A resource name of Vertex AI ends in the model, perhaps with a version behind an @.
    name = model.rsplit("/", 1)[-1].split("@", 1)[0]
    return next((row for row in rows if fnmatchcase(name, row.pattern)), None)


def embedding_faults(request: dict[str, Any], row: Model, model: str) -> Iterator[Fault]:
    """What an embed request, as it goes on the wire, asks of a model that it may not heed."""
    if row.task_in_text:
        # Guide of batch embeddings on Vertex AI, 2026. Nothing says it of the Developer API, and nothing the contrary.
        for field in ("taskType", "title"):
            if field in request:
                what = f"may not be heeded: {model} takes it in the text"
                yield Fault(field, "task-in-text", what, "write it into the text", True)


def feature_faults(config: dict[str, Any], row: Model, model: str) -> Iterator[Fault]:
    """What a generationConfig, as it goes on the wire, asks of a model that it does not give."""
    thinking = config.get("thinkingConfig")
    if isinstance(thinking, dict):
        yield from _thinking_faults(thinking, row, model)
    wanted = config.get("responseModalities")
    if row.outputs and isinstance(wanted, list):
        for at, word in enumerate(wanted):
            if word in ("IMAGE", "AUDIO", "VIDEO") and word not in row.outputs:
                gives = " and ".join(row.outputs)
                what = f"is nothing that {model} answers with"
                yield Fault(
                    f"generationConfig.responseModalities[{at}]",
                    "modality",
                    what,
                    f"it gives {gives}",
                    row.sure != "documented",
                )


_LEVEL: Final = "generationConfig.thinkingConfig.thinkingLevel"
_BUDGET: Final = "generationConfig.thinkingConfig.thinkingBudget"


def _thinking_faults(thinking: dict[str, Any], row: Model, model: str) -> Iterator[Fault]:
    level, budget = thinking.get("thinkingLevel"), thinking.get("thinkingBudget")
    unsure = row.sure_thinking != "documented"
    if row.thinking == "budget" and level is not None:
        # "Gemini 2.5 series models don't support thinkingLevel; use thinkingBudget instead" (thinking guide).
        yield Fault(_LEVEL, "thinking-form", f"is not for {model}", "write thinkingBudget, a number of tokens", False)
    elif row.thinking == "level" and budget is not None:
        # "While thinkingBudget is accepted for backwards compatibility, using it … may result in suboptimal performance".
        yield Fault(_BUDGET, "thinking-form", f"is the older form; {model} has levels", "write thinkingLevel", True)
    if row.levels and isinstance(level, str) and level in _ALL and level not in row.levels:
        yield Fault(_LEVEL, "thinking-level", f"is no level of {model}", f"it has {', '.join(row.levels)}", unsure)
    if row.budgets and type(budget) is int and budget != -1 and not (budget == 0 and row.budget_zero):
        least, most = row.budgets
        if not least <= budget <= most:
            zero = "0, " if row.budget_zero else ""
            hint = f"write -1, {zero}or {least:,} to {most:,}"
            yield Fault(_BUDGET, "thinking-budget", f"is outside the range of {model}", hint, unsure)
