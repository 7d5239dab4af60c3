"""Dead letters of a window or of a batch are a source: Prepare takes them as they are, and they come to an answer."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_geminibatch import DeadLetters, GeminiBatchOperator, Landing, read_window
from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.emulator import Server
from airflow_provider_geminibatch.hooks.storage import open_store
from tests.airflow.faces import context, interval
from tests.airflow.test_batch_operator import WINDOW, deferred, resumed, rows, to_the_end, whole

pytestmark = pytest.mark.airflow

LATER = interval(datetime(2018, 1, 31, 12, tzinfo=UTC), datetime(2018, 2, 1, tzinfo=UTC))


@pytest.fixture
def landing(tmp_path: Any) -> Landing:
    return Landing("answers", str(tmp_path / "landings" / "answers"))


def ended(service: Server, landing: Landing, **more: Any) -> dict[str, Any]:
    """A window of three rows, of which the second is blocked."""
    given = rows("rain", "snow [[emulator:blocked]]", "hail")
    where = context("whole", **WINDOW)
    deferral = deferred(whole(landing, given, **more).execute, where)
    service.emulator.clock.advance(hours=6)
    resumed(whole(landing, given, **more), deferral, where)
    return where


def replay(landing: Landing, letters: DeadLetters) -> GeminiBatchOperator:
    return GeminiBatchOperator(
        task_id="replay", requests=letters, columns=("text",), model="gemini-3.8-flash", to=landing, poll_interval=1,
        max_unresolved=1.0,
    )  # fmt: skip


def test_dead_letters_of_a_window_are_asked_again_and_land(service: Server, workspace: str, landing: Landing) -> None:
    ended(service, landing, max_unresolved=0.5, rounds=0)
    letters = DeadLetters(landing, window="2018-01-31T00:00:00+00:00")
    again = Landing("again", landing.uri + "-again")
    where = context("replay", **LATER)
    deferral = deferred(replay(again, letters).execute, where)
    service.emulator.clock.advance(hours=6)
    with pytest.raises(AirflowFailException):  # it is blocked again, and zero answers is never a success
        resumed(replay(again, letters), deferral, where)
    (row,) = read_window(again, "20180131T120000Z", any_verdict=True)
    assert (row["key"], row["outcome"]) == ("k1", "blocked")
    assert row["row_text"] == "snow [[emulator:blocked]]"
    (line,) = DeadLetters(again, window="20180131T120000Z").rows(None)  # type: ignore[arg-type]
    assert line.data["key"] == "k1"
    assert line.data["request"]["contents"]


def test_rejected_windows_and_batches_are_sources_as_well(service: Server, workspace: str, landing: Landing) -> None:
    with pytest.raises(AirflowFailException):
        ended(service, landing, max_unresolved=0.1, rounds=0)
    by_window = list(DeadLetters(landing, window="20180131T000000Z").rows(None))  # type: ignore[arg-type]
    store = open_store(workspace)
    (build,) = [path for path in store.list("batches") if re.fullmatch(r".*/g0001/builds/[^/]+\.json", path)]
    by_batch = list(DeadLetters(f"{workspace}/{build}").rows(None))  # type: ignore[arg-type]
    assert [row.data["key"] for row in by_window] == [row.data["key"] for row in by_batch] == ["k1"]
    assert list(DeadLetters(landing, window="20180131T000000Z", outcomes=["missing"]).rows(None)) == []  # type: ignore[arg-type]


def test_what_was_lost_for_a_while_is_answered_by_the_replay(service: Server, workspace: str, landing: Landing) -> None:
    service.emulator.scenario("missing", rows=(1,), jobs=(0,))
    where = context("whole", **WINDOW)
    task = {"rounds": 0, "max_unresolved": 0.5}
    deferral = deferred(whole(landing, rows("rain", "snow", "hail"), **task).execute, where)
    service.emulator.clock.advance(hours=6)
    resumed(whole(landing, rows("rain", "snow", "hail"), **task), deferral, where)
    again = Landing("again", landing.uri + "-again")
    letters = DeadLetters(landing, window="20180131T000000Z")
    run = context("replay", **LATER)
    first = deferred(replay(again, letters).execute, run)
    service.emulator.clock.advance(hours=6)
    to_the_end(lambda: replay(again, letters), run, begin=first)
    (row,) = read_window(again, "20180131T120000Z")
    assert (row["key"], row["outcome"], row["row_text"]) == ("k1", "answer", "snow")


def test_templates_of_a_source_are_rendered_and_shown(landing: Landing) -> None:
    letters = DeadLetters(landing, window="{{ ds }}", outcomes=["failed"])

    class Task:
        def render_template(self, value: Any, context: Any) -> Any:
            return value.replace("{{ ds }}", "2018-01-31")

    made = letters.resolve({"task": Task()})
    assert made.name == "dead letters of answers, window 2018-01-31"
    assert letters.serialize()["outcomes"] == ["failed"]
    assert letters.serialize() == DeadLetters(landing, window="{{ ds }}", outcomes=["failed"]).serialize()


def test_what_cannot_be_meant_is_said_at_once(landing: Landing, workspace: str) -> None:
    with pytest.raises(Unusable, match="no such outcome"):
        DeadLetters(landing, window="w", outcomes=["answer"])
    with pytest.raises(Unusable, match="a landing needs a window"):
        DeadLetters(landing)
    with pytest.raises(Unusable, match="nothing was committed"):
        list(DeadLetters(landing, window="20180131T000000Z").rows(None))  # type: ignore[arg-type]
