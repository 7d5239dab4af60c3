"""Ten rows in, ten answers out: one batch, from Python dicts to a Parquet file.

Needs a connection `geminibatch_default` with an API key (or the emulator's address as host), and nothing else. Costs a
fraction of a cent. Trigger it by hand; the answers lie under `landings/first_answers`, one window per run, and the last
task prints them.
"""

from __future__ import annotations

import os
from pathlib import Path

from airflow.providers.common.compat.sdk import conf
from airflow.sdk import dag, task

from airflow_provider_geminibatch import (
    GeminiBatchLoadOperator,
    GeminiBatchPrepareOperator,
    GeminiBatchSensor,
    GeminiBatchSubmitOperator,
    Landing,
    RequestTemplate,
    read_window,
)

# Wherever [geminibatch] workspace says; on this machine only, when it says nothing.
HOME = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser() / "geminibatch"
WORKSPACE = conf.get("geminibatch", "workspace", fallback="") or str(HOME / "workspace")
ANSWERS = Landing("first_answers", f"{WORKSPACE.rpartition('/')[0]}/landings/first_answers")

ANIMALS = ("otter", "heron", "newt", "stoat", "adder", "kestrel", "mole", "toad", "pike", "shrew")
QUESTION = RequestTemplate("Say in one sentence what a $name eats.", key="$name", columns=("name",))


@dag(schedule=None, catchup=False, default_args={"retries": 2})
def first_batch():
    prepared = GeminiBatchPrepareOperator(
        task_id="prepare",
        model="gemini-3.8-flash",
        source=[{"name": name} for name in ANIMALS],
        template=QUESTION,
        workspace=WORKSPACE,
    )
    submitted = GeminiBatchSubmitOperator(task_id="submit", prepared=prepared.output)
    ended = GeminiBatchSensor(task_id="wait", submitted=submitted.output)
    # A run by hand has no window of its own, so this one is named after the run.
    landed = GeminiBatchLoadOperator(task_id="load", submitted=ended.output, to=ANSWERS, window="{{ run_id }}")

    @task
    def show(landed: dict) -> None:
        for row in read_window(ANSWERS, landed["window"]):
            print(f"{row['name']}: {row['text']}")  # noqa: T201 - to be seen in the task's log

    show(landed.output)


first_batch()
