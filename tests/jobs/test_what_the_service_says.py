"""What the service says beside an answer lands with it: grounding, citations, ratings, logprobs; the raw line has all of it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from airflow_provider_geminibatch.core.landing import Place
from airflow_provider_geminibatch.core.verdict import Thresholds
from tests.jobs.test_collect import World, answering

RATINGS = [{"category": "HARM_CATEGORY_HARASSMENT", "probability": "LOW"}]
NOTES: dict[str, Any] = {
    "groundingMetadata": {"webSearchQueries": ["rain"], "groundingChunks": [{"web": {"uri": "https://a.example"}}]},
    "citationMetadata": {"citationSources": [{"uri": "https://b.example", "startIndex": 1}]},
    "urlContextMetadata": {"urlMetadata": [{"retrievedUrl": "https://c.example"}]},
    "safetyRatings": RATINGS,
    "avgLogprobs": -0.25,
    "logprobsResult": {"chosenCandidates": [{"token": "a", "logProbability": -0.5}]},
    "finishMessage": "done",
}
TOLD = {"content": {"parts": [{"text": "hi"}]}, "finishReason": "STOP", **NOTES, "fieldOfTomorrow": [1]}
ANSWERED = {"candidates": [TOLD], "modelVersion": "gemini-3.8-flash-001", "anotherOne": {"a": None}}
BLOCKED = {"promptFeedback": {"blockReason": "SAFETY", "safetyRatings": RATINGS}}


@pytest.mark.parametrize("file_format", ["parquet", "jsonl"])
def test_it_lands_beside_the_answer_and_unknown_fields_in_the_raw_line(file_format: str) -> None:
    world = World(rows=2, answer=answering(row_0=ANSWERED, row_1=BLOCKED))
    place = Place("notes", "memory://landing", file_format, keep=("raw",))
    world.load(landing=place, thresholds=Thresholds(max_unresolved=1.0))
    answered, blocked = world.rows()
    assert (answered["outcome"], answered["text"], answered["extra"]) == ("answer", "hi", NOTES)
    assert (blocked["outcome"], blocked["extra"]) == ("blocked", {"safetyRatings": RATINGS})
    assert msgspec.json.decode(answered["raw"])["response"] == ANSWERED
    assert msgspec.json.decode(blocked["raw"])["response"] == BLOCKED
