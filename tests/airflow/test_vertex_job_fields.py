"""What a job of Vertex AI carries besides its requests: whose it is, and what it is encrypted with."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from airflow_provider_geminibatch.core.model import BatchId
from airflow_provider_geminibatch.core.names import labels_of
from airflow_provider_geminibatch.emulator import Emulator, running
from tests.airflow.faces import context
from tests.airflow.test_vertex_road import WINDOW, submitted
from tests.routes import PROJECT, VERTEX

pytestmark = pytest.mark.airflow

REGION = "us-central1"
KEY = f"projects/p/locations/{REGION}/keyRings/r/cryptoKeys/k"


def test_a_submitted_job_names_its_dag_run_and_task_and_the_key_of_the_connection(
    workspace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(Emulator(seed=7, start=datetime.now(UTC), speed=0, turnaround=(5, 5))) as server:
        made = VERTEX.connection(server.url, location=REGION, kms_key=KEY)
        monkeypatch.setenv("AIRFLOW_CONN_GEMINIBATCH_DEFAULT", made)
        submitted()
        url = f"{server.url}/v1beta1/projects/{PROJECT}/locations/{REGION}/batchPredictionJobs"
        [job] = httpx.get(url, headers={"Authorization": "Bearer any"}).json()["batchPredictionJobs"]
    ti: Any = context("prepare", **WINDOW)["ti"]
    assert job["labels"] == labels_of(BatchId(ti.dag_id, ti.run_id, ti.task_id))
    assert set(job["labels"]) == {"dag", "run", "task"}
    assert job["encryptionSpec"] == {"kmsKeyName": KEY}
    source, target = job["inputConfig"]["gcsSource"]["uris"], job["outputConfig"]["gcsDestination"]["outputUriPrefix"]
    assert source == [target.removesuffix(".out") + ".jsonl"]
