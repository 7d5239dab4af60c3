"""Many files into one window: a Prepare and a Submit for each file, one Sensor and one Load over all of them.

Every run first finds the files, so that tomorrow there may be more. Each becomes a batch of its own: several are prepared at
once, a file that has to be done again costs nothing but itself, and Load takes them all together. A file larger than 256 MiB is
read and written by several processes besides.

Here the files are two small ones, written by the first task. Needs a connection `geminibatch_default`. Trigger it by hand.
"""

from __future__ import annotations

import json
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
)

HOME = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser() / "geminibatch"
WORKSPACE = conf.get("geminibatch", "workspace", fallback="") or str(HOME / "workspace")
BESIDE = WORKSPACE.rpartition("/")[0]
REVIEWS = Landing("reviews", f"{BESIDE}/landings/reviews")
A_MOOD = RequestTemplate("Is the writer of this pleased? $text", columns=("shop",))


@dag(schedule=None, catchup=False, default_args={"retries": 2}, max_active_tasks=16)
def many_files():
    @task
    def files() -> list[str]:
        folder = Path(BESIDE) / "reviews"
        folder.mkdir(parents=True, exist_ok=True)
        for shop, texts in {"north": ("Fine shoes.", "Too dear."), "south": ("Closed again!",)}.items():
            rows = ({"id": f"{shop}-{number}", "shop": shop, "text": text} for number, text in enumerate(texts))
            (folder / f"{shop}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return sorted(str(path) for path in folder.glob("*.jsonl"))

    prepared = GeminiBatchPrepareOperator.partial(
        task_id="prepare", model="gemini-3.8-flash", template=A_MOOD, workspace=WORKSPACE
    ).expand(source=files())
    submitted = GeminiBatchSubmitOperator.partial(task_id="submit").expand(prepared=prepared.output)
    ended = GeminiBatchSensor(task_id="wait", submitted=submitted.output)
    GeminiBatchLoadOperator(task_id="load", submitted=ended.output, to=REVIEWS, window="{{ run_id }}")


many_files()
