"""What models can do: rows with sources, and what is sure refuses while the rest warns."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from airflow_provider_geminibatch.core.capabilities import (
    BUILT_IN,
    METHODS,
    MODELS,
    Capabilities,
    Listing,
    ModelInfo,
    is_preview,
    offered_elsewhere,
    read_listing,
)
from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.core.fields import ROOTS, enums
from airflow_provider_geminibatch.core.requests import check_request

TODAY = date(2026, 11, 22)
TURN = [{"role": "user", "parts": [{"text": "hello"}]}]


def rules_of(model: str, kind: str = "generate", today: date = TODAY, **more: Any) -> list[tuple[str, bool]]:
    return [(fault.rule, fault.warns) for fault in Capabilities(**more).model_faults(model, kind=kind, today=today)]


def test_every_row_has_a_source_and_words_of_the_wire() -> None:
    assert all(row.source for row in MODELS)
    assert {word for row in MODELS for word in row.levels} <= enums()["ThinkingLevel"]
    assert {word for row in MODELS for word in row.outputs} <= enums()["Modality"]
    assert {kind for row in MODELS for kind in row.kinds} <= set(ROOTS) == set(METHODS)


@pytest.mark.parametrize(
    ("model", "kind", "expected"),
    [
        ("gemini-3.8-flash", "generate", []),
        ("gemini-3.1-flash-image", "generate", []),
        ("gemini-embedding-2", "embed", []),
        ("gemini-embedding-2", "generate", [("model-no-batch", False)]),
        ("gemini-3.8-flash", "embed", [("model-no-batch", False)]),
        ("gemini-2.0-flash", "generate", [("model-retired", False)]),
        ("gemini-3-pro-image-preview", "generate", [("model-retired", False)]),
        ("gemini-2.5-flash", "generate", [("model-retiring", True)]),
        ("gemini-2.5-flash-preview-tts", "generate", [("model-unsure", True)]),
        ("imagen-4", "generate", [("model-unsure", True)]),
        ("gemini-99-nano", "generate", [("model-unknown", True)]),
        ("projects/p/locations/l/publishers/google/models/gemini-3.8-flash@default", "generate", []),
    ],
)
def test_a_model_runs_batches_or_the_rule_says_how_sure_it_is_that_it_does_not(
    model: str, kind: str, expected: list[tuple[str, bool]]
) -> None:
    assert rules_of(model, kind) == expected


def test_a_model_counts_as_shut_down_from_its_day_on() -> None:
    assert rules_of("gemini-2.0-flash", today=date(2026, 5, 31)) == []
    assert rules_of("gemini-2.0-flash", today=date(2026, 6, 1)) == [("model-retired", False)]


def test_the_services_own_list_decides_before_the_table() -> None:
    listing = Listing(
        as_of=TODAY,
        endpoint="https://x",
        models=(
            ModelInfo("models/gemini-99-nano", ("batchGenerateContent",)),
            ModelInfo("gemini-3.8-flash", ("generateContent",)),
        ),
    )
    assert rules_of("gemini-99-nano", listing=listing) == []
    assert rules_of("gemini-3.8-flash", listing=listing) == [("model-no-batch", False)]
    assert rules_of("gemini-3.5-flash", listing=listing) == [("model-unknown", True)]
    assert rules_of("gemini-2.0-flash", listing=listing) == [("model-unknown", True), ("model-retired", False)]


def test_what_is_no_list_of_models_is_refused_with_what_to_do() -> None:
    with pytest.raises(Unusable, match="geminibatch models --write"):
        read_listing(b'{"models": 5}', "models.json")


@pytest.mark.parametrize(
    ("model", "config", "refused", "warned"),
    [
        ("gemini-3.8-flash", {"thinkingConfig": {"thinkingLevel": "LOW"}}, [], []),
        ("gemini-3.8-flash", {"thinkingConfig": {"thinkingLevel": "minimal"}}, [], ["thinking-level"]),
        ("gemini-3.8-flash", {"thinkingConfig": {"thinkingBudget": 100}}, [], ["thinking-form"]),
        ("gemini-2.5-flash", {"thinkingConfig": {"thinkingBudget": 0}}, [], []),
        ("gemini-2.5-flash", {"thinkingConfig": {"thinkingBudget": -1}}, [], []),
        ("gemini-2.5-pro", {"thinkingConfig": {"thinkingBudget": 0}}, ["thinking-budget"], []),
        ("gemini-2.5-pro", {"thinking_config": {"thinking_budget": "32769"}}, ["thinking-budget"], []),
        ("gemini-2.5-pro", {"thinkingConfig": {"thinkingLevel": "LOW"}}, ["thinking-form"], []),
        ("gemini-3.8-flash", {"responseModalities": ["TEXT", "IMAGE"]}, ["modality"], []),
        ("gemini-3.1-flash-image", {"responseModalities": ["TEXT", "IMAGE"]}, [], []),
        ("gemini-99-nano", {"thinkingConfig": {"thinkingBudget": 1}, "responseModalities": ["AUDIO"]}, [], []),
    ],
)
def test_a_request_asks_of_a_model_what_it_gives(
    model: str, config: dict[str, Any], refused: list[str], warned: list[str]
) -> None:
    checked = check_request({"contents": TURN, "generationConfig": config}, model=model)
    assert [problem.rule for problem in checked.problems] == refused
    assert [warning.rule for warning in checked.warnings] == warned


def test_without_a_model_nothing_is_asked_of_it() -> None:
    config = {"thinkingConfig": {"thinkingLevel": "MINIMAL"}, "responseModalities": ["IMAGE"]}
    assert check_request({"contents": TURN, "generationConfig": config}, capabilities=BUILT_IN).problems == ()


TUNED = "projects/p/locations/us-central1/endpoints/123"


def test_a_tuned_model_is_none_of_the_developer_api_and_known_by_no_row_of_vertex() -> None:
    (fault,) = Capabilities().model_faults(TUNED, kind="generate", today=TODAY)
    assert (fault.rule, fault.warns) == ("tuned-model", False)
    assert f"it {fault.what}" == "it is a tuned model, which runs on Vertex AI only"
    assert not list(Capabilities().model_faults(TUNED, kind="generate", today=TODAY, route="vertex"))


@pytest.mark.parametrize("model", ["gemini-3.5-flash-lite", "publishers/google/models/gemini-3.5-flash-lite@default"])
def test_a_model_that_is_reported_at_global_only_is_told_elsewhere_with_the_source(model: str) -> None:
    assert offered_elsewhere(model, "us-central1") == (
        "gemini-3.5-flash-lite is reported to be at global only (404 at us-central1 and taken at global, reported 2026-08-30)"
    )
    assert offered_elsewhere(model, "global") == ""
    assert offered_elsewhere("gemini-3.8-flash", "us-central1") == ""
    assert offered_elsewhere(TUNED, "us-central1") == ""


def test_a_preview_is_told_by_its_name_and_a_tuned_model_is_none() -> None:
    assert is_preview("gemini-3.1-pro-preview")
    assert is_preview("gemini-2.5-flash-preview-09-2025")
    assert not is_preview("gemini-3.1-pro")
    assert not is_preview("projects/p-preview/locations/l/models/1")
