"""A function gives the rows, one task does the rest: the shortest way from rows to a window of answers.

The function may be a generator of any length; it is read row by row. It runs again only when nothing of it was sealed,
so neither a retry nor a task that waits deferred calls it twice. The second Dag makes one batch per region.

Needs a connection `geminibatch_default`. Trigger both by hand.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from airflow.providers.common.compat.sdk import conf
from airflow.sdk import dag, task

from airflow_provider_geminibatch import Landing, RequestTemplate, gemini_batch, read_window

HOME = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser() / "geminibatch"
WORKSPACE = conf.get("geminibatch", "workspace", fallback="") or str(HOME / "workspace")
BESIDE = WORKSPACE.rpartition("/")[0]
RIDDLES = Landing("riddles", f"{BESIDE}/landings/riddles")
BY_REGION = Landing("dishes_by_region", f"{BESIDE}/landings/dishes_by_region")

MODEL = "gemini-3.8-flash"
A_RIDDLE = RequestTemplate("Write a riddle whose answer is $thing.", key="$thing", columns=("thing",))
A_DISH = RequestTemplate("Name a dish of $region with $plant.", key="$plant", columns=("region", "plant"))


@dag(schedule=None, catchup=False, default_args={"retries": 2})
def riddles():
    @gemini_batch(model=MODEL, template=A_RIDDLE, to=RIDDLES, window="{{ run_id }}", workspace=WORKSPACE)
    def write() -> Iterator[dict[str, str]]:
        for thing in ("echo", "shadow", "river", "candle"):
            yield {"thing": thing}

    @task
    def show(landed: dict) -> None:
        for row in read_window(RIDDLES, landed["window"]):
            print(f"{row['thing']}: {row['text']}")  # noqa: T201 - to be seen in the task's log

    show(write())


@dag(schedule=None, catchup=False, default_args={"retries": 2})
def dishes():
    # Also as @task.gemini_batch. Mapped over regions, each in a window of its own.
    window = "{{ run_id }}-{{ ti.map_index }}"

    @task.gemini_batch(model=MODEL, template=A_DISH, to=BY_REGION, window=window, workspace=WORKSPACE)
    def ask(region: str) -> Iterator[dict[str, str]]:
        yield from ({"region": region, "plant": plant} for plant in ("fennel", "barley"))

    ask.expand(region=["Liguria", "Jutland"])


riddles()
dishes()
