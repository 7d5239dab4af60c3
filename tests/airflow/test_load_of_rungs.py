"""A Load after a ladder: what a rung asked at another connection is asked for there."""

from __future__ import annotations

from datetime import timedelta

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_geminibatch import (
    GeminiBatchLoadOperator,
    GeminiBatchOperator,
    Landing,
    RequestTemplate,
    Rung,
    read_window,
)
from airflow_provider_geminibatch.jobs.wait import pause_until, utc_now
from tests.airflow.faces import context
from tests.airflow.test_locations import MODEL, ROWS, WINDOW, jobs_at, later, services

pytestmark = pytest.mark.airflow

__all__ = ["services"]


def test_a_load_asks_the_connection_of_a_rung_for_what_the_rung_asked(services, workspace, tmp_path):
    services["far"].emulator.scenario("never_finishes")
    landing, soon = Landing("answers", str(tmp_path / "answers")), timedelta(seconds=2)
    where = context("all", **WINDOW)

    def make():
        return GeminiBatchOperator(
            task_id="all", model=MODEL, template=RequestTemplate("What about $text?"), source=ROWS, to=landing, deadline=soon,
            on_deadline=[Rung("resubmit", limit=timedelta(hours=12), conn_id="near")], poll_interval=1, gemini_conn_id="far",
        )  # fmt: skip

    with pytest.raises(TaskDeferred) as deferral:
        make().execute(where)
    pause_until(utc_now() + soon)
    prepared = deferral.value.kwargs["prepared"]
    for _ in range(5):
        with pytest.raises(TaskDeferred):
            make().resume(where, {"status": "ended"}, prepared=prepared)
        if jobs_at(services)["near"]:
            break
    later(services, 6)
    load = GeminiBatchLoadOperator(task_id="load", submitted=prepared, to=landing, gemini_conn_id="far")
    assert load.execute(context("load", **WINDOW))["counts"] == {"answer": 2}
    assert {row["shard"] for row in read_window(landing, "20180131T000000Z")}
    assert jobs_at(services) == {"far": 1, "near": 1}
