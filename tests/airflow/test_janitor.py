"""The janitor as a task: it reports, and acts only when told to."""

from __future__ import annotations

from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_geminibatch.core.landing import Closed
from airflow_provider_geminibatch.core.names import generation_path
from airflow_provider_geminibatch.core.verdict import Verdicts
from airflow_provider_geminibatch.emulator import Server
from airflow_provider_geminibatch.jobs.wait import utc_now
from airflow_provider_geminibatch.operators.janitor import GeminiBatchJanitorOperator
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.stores import open_store
from tests.airflow.faces import context
from tests.airflow.waiting import job_names, submitted
from tests.jobs.batches import BATCH

pytestmark = pytest.mark.airflow


def cleaned(workspace: str, **more: Any) -> dict[str, Any]:
    return GeminiBatchJanitorOperator(task_id="clean", workspace=workspace, **more).execute(context("clean"))  # type: ignore[arg-type]


def test_it_reports_and_acts_only_when_told_to(service: Server, workspace: str) -> None:
    store = open_store(workspace)
    store.create("workspace.json", b'{"v":1,"id":"w1"}')  # the one that the seal was made in
    manifest = submitted(workspace)
    (name,) = job_names(workspace, manifest)
    closed = Closed(owner="o", at=utc_now(), commit="c", verdict=Verdicts.ACCEPTED)
    fact_store.put(store, f"{generation_path(BATCH, 1)}/closed.json", closed)

    told = cleaned(workspace)
    mine = [finding for finding in told["findings"] if finding["name"] == name]
    assert told["acted"] is False
    assert told["jobs"] == len(mine) == 1
    assert (mine[0]["acts"], mine[0]["done"]) == (["cancel"], [])
    assert service.emulator.log.count("batches.cancel") == 0

    assert cleaned(workspace, act=True)["acted"] is True
    assert service.emulator.state(name) == "BATCH_STATE_CANCELLED"


def test_a_service_that_is_out_of_reach_fails_the_task_with_a_sentence(
    workspace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_GEMINIBATCH_DEFAULT", '{"conn_type":"geminibatch","password":"k","host":"http://127.0.0.1:9"}'
    )
    with pytest.raises(AirflowException, match="list of jobs"):
        cleaned(workspace)
