"""Requests that a query in BigQuery makes, answered by Vertex AI, and read back: no row is uploaded.

Needs the connection `geminibatch_vertex`: type Gemini Batch, with `project` and `location` in its extra. In that project a
data set `feedback` in the same single region, with a table `reviews (id, text, stars)`. Costs a fraction of a cent, and what
BigQuery bills for a few small queries. Against the emulator it runs as it is: see docs/bigquery.md.
"""

from __future__ import annotations

import os
from pathlib import Path

from airflow.providers.common.compat.sdk import conf
from airflow.sdk import dag

from airflow_provider_geminibatch import (
    BigQueryRequests,
    GeminiBatchLoadOperator,
    GeminiBatchPrepareOperator,
    GeminiBatchSensor,
    GeminiBatchSubmitOperator,
    Landing,
)

CONNECTION = "geminibatch_vertex"
FEEDBACK = os.environ.get("FEEDBACK_DATASET", "my-project.feedback")
HOME = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser() / "geminibatch"
WORKSPACE = conf.get("geminibatch", "workspace", fallback="") or str(HOME / "workspace")
SUMMARIES = Landing("review_summaries", f"{WORKSPACE.rpartition('/')[0]}/landings/review_summaries")

# Every row gives its key, its request, and columns that come back beside the answer.
QUERY = f"""
SELECT id, stars,
  JSON_OBJECT('contents', JSON_ARRAY(JSON_OBJECT('role', 'user', 'parts', JSON_ARRAY(
    JSON_OBJECT('text', CONCAT('Say in five words what this review is about: ', text)))))) AS request
FROM `{FEEDBACK}.reviews`
WHERE text IS NOT NULL
"""


@dag(schedule=None, catchup=False, default_args={"retries": 2})
def reviews_in_bigquery():
    prepared = GeminiBatchPrepareOperator(
        task_id="prepare",
        model="gemini-3.8-flash",
        requests=BigQueryRequests(QUERY, dataset=FEEDBACK, key="id"),
        workspace=WORKSPACE,
        gemini_conn_id=CONNECTION,
    )
    submitted = GeminiBatchSubmitOperator(task_id="submit", prepared=prepared.output, gemini_conn_id=CONNECTION)
    ended = GeminiBatchSensor(task_id="wait", submitted=submitted.output, gemini_conn_id=CONNECTION)
    GeminiBatchLoadOperator(
        task_id="load", submitted=ended.output, to=SUMMARIES, window="{{ run_id }}", gemini_conn_id=CONNECTION
    )


reviews_in_bigquery()
