"""What Prepare holds against requests beyond their shape: the model, fields of the future, and what only may be wrong."""

from __future__ import annotations

import logging
from datetime import UTC, date, datetime
from typing import Any

import pytest

from airflow_provider_geminibatch.core.capabilities import Listing, ModelInfo
from airflow_provider_geminibatch.core.errors import BadRows, Unusable
from airflow_provider_geminibatch.core.template import RequestTemplate
from airflow_provider_geminibatch.jobs.declaration import Declaration
from tests.jobs.test_prepare import World

MODEL = "gemini-3.8-flash"


def line(key: str, **more: Any) -> dict[str, Any]:
    return {"key": key, "request": {"contents": [{"role": "user", "parts": [{"text": "hello"}]}], **more}}


def prepare(*rows: dict[str, Any], **changes: Any) -> Any:
    return World().prepare(lambda: list(rows), **{"template": None, "model": MODEL, **changes})


def test_a_model_that_runs_no_such_batches_is_refused_before_a_row_is_read() -> None:
    def unread() -> list[Any]:
        raise AssertionError("read")

    with pytest.raises(Unusable, match="model 'gemini-embedding-2': it runs no generate batches"):
        World().prepare(unread, template=None, model="gemini-embedding-2")


def test_a_model_that_the_services_list_says_runs_no_batches_is_refused() -> None:
    listing = Listing(as_of=date(2026, 11, 1), endpoint="https://x", models=(ModelInfo(MODEL, ("generateContent",)),))
    with pytest.raises(Unusable, match="runs no generate batches, says the service's list of 2026-11-01"):
        prepare(line("a"), listing=listing)


def test_a_model_that_is_shut_down_by_now_is_missed_by_changed_rows_only() -> None:
    world, old = World(), {"template": None, "model": "gemini-2.0-flash", "max_rows_per_shard": 1}
    rows = [line("a", labels={}), line("b")]
    first = world.prepare(lambda: rows, **old)
    world.clock.advance_to(datetime(2026, 6, 2, tzinfo=UTC))
    assert world.prepare(lambda: rows, max_tries=5, **old).build == first.build
    before = world.paths()
    for changed in ([line("a"), line("c")], [*rows, line("c")]):
        with pytest.raises(Unusable, match="shut down on 2026-06-01"):
            world.prepare(lambda changed=changed: changed, max_tries=8, **old)
        assert world.paths() == before
    fewer = world.prepare(lambda: rows[:1], max_tries=8, **old)
    assert (fewer.generation, fewer.build.shards) == (2, first.build.shards[:1])


def test_what_may_be_wrong_is_logged_once_for_each_place_and_sealed_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    web = {"fileData": {"fileUri": "http://example.com/a.png", "mimeType": "image/png"}}
    rows = [{"key": key, "request": {"contents": [{"parts": [web]}]}} for key in "abc"]
    with caplog.at_level(logging.WARNING):
        prepared = prepare(*rows, model="gemini-99-nano")
    assert prepared.manifest.rows == 3
    assert [message.split(":")[0] for message in caplog.messages] == [
        "request.contents[].parts[].fileData.fileUri",
        "model 'gemini-99-nano'",
    ]
    assert caplog.messages[0].endswith(", 3 times")


def test_what_a_model_cannot_do_is_a_problem_of_the_row_and_of_the_template() -> None:
    config = {"thinkingConfig": {"thinkingLevel": "LOW"}}
    with pytest.raises(
        BadRows, match=r"row 1: request.generationConfig.thinkingConfig.thinkingLevel: is not for gemini-2.5-pro"
    ):
        prepare(line("a", generationConfig=config), model="gemini-2.5-pro")
    with pytest.raises(Unusable, match=r"RequestTemplate\(generation=\)"):
        World().prepare(list, template=RequestTemplate("Say $id", generation=config), model="gemini-2.5-pro")


def test_a_field_of_the_future_goes_through_when_it_is_allowed() -> None:
    row = line("a", generationConfig={"newField": {"x": 1}, "new_too": 2})
    with pytest.raises(BadRows, match="unknown field"):
        prepare(row)
    world = World()
    prepared = world.prepare(
        lambda: [row], template=None, model=MODEL, allow_fields={"GenerationConfig": ["newField", "newToo"]}
    )
    sealed = world.store.read(prepared.build.shards[0].path)
    assert b'"generationConfig":{"newField":{"x":1},"newToo":2}' in sealed


def test_allowed_fields_of_a_message_that_is_none_are_refused() -> None:
    with pytest.raises(Unusable, match=r"has no message 'generationConfig'.*Did you mean GenerationConfig\?"):
        prepare(line("a"), allow_fields={"generationConfig": ["x"]})


def test_shards_are_cut_to_what_the_route_takes() -> None:
    declared = Declaration(model=MODEL, route="vertex")
    assert (declared.max_shard_bytes, Declaration(model=MODEL).max_shard_bytes) == (950_000_000, 1_900_000_000)
    with pytest.raises(Unusable, match="at most 200,000"):
        Declaration(model=MODEL, route="vertex", max_rows_per_shard=200_001)
    with pytest.raises(Unusable, match="at most 1,000,000,000"):
        Declaration(model=MODEL, route="vertex", max_shard_bytes=1_000_000_001)
    with pytest.raises(Unusable, match="Use developer or vertex"):
        Declaration(model=MODEL, route="nowhere")
