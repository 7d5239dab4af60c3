"""One batch for whatever run there is: started by a landing, by hand with a logical date, by hand without."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.common.compat.sdk import conf
from airflow.sdk import dag, task

from airflow_provider_geminibatch import (
    GeminiBatchLoadOperator,
    GeminiBatchPrepareOperator,
    GeminiBatchSensor,
    GeminiBatchSubmitOperator,
    Landing,
    RequestTemplate,
    landed_windows,
)

BESIDE = conf.get("geminibatch", "workspace").rpartition("/")[0]
BULLETINS = Landing("bulletins", f"{BESIDE}/landings/bulletins")
NOTES = Landing("notes", f"{BESIDE}/landings/notes", format="jsonl")


@dag(schedule=[BULLETINS.asset], catchup=False, default_args={"retries": 2, "retry_delay": timedelta(seconds=2)})
def any_window():
    @task
    def which(**context) -> str:
        """The newest window that started this run, else the one asked for, else none."""
        landed = landed_windows(context)
        return landed[-1]["window"] if landed else context["dag_run"].conf.get("window", "")

    prepared = GeminiBatchPrepareOperator(
        task_id="prepare",
        source=lambda: [{"id": "a", "word": "quake"}],
        template=RequestTemplate("Explain $word.", key="$id"),
        model="gemini-3.8-flash",
    )
    submitted = GeminiBatchSubmitOperator(task_id="submit", prepared=prepared.output)
    ended = GeminiBatchSensor(task_id="wait", submitted=submitted.output)
    window = which()
    loaded = GeminiBatchLoadOperator(
        task_id="load", submitted=ended.output, to=NOTES, window="{{ ti.xcom_pull(task_ids='which') }}"
    )
    window >> loaded


any_window()
