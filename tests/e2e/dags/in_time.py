"""A batch whose service never finishes, with a way out at its deadline; and a Dag that starts when the window landed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from airflow.providers.common.compat.sdk import conf
from airflow.sdk import dag, task

from airflow_provider_geminibatch import Landing, RequestTemplate, Rung, gemini_batch, landed_windows

ANSWERS = Landing("in_time", f"{conf.get('geminibatch', 'workspace').rpartition('/')[0]}/landings/in_time")


@dag(schedule=None, catchup=False, default_args={"retries": 1, "retry_delay": timedelta(seconds=1)})
def in_time():
    @gemini_batch(
        model="gemini-3.8-flash",
        template=RequestTemplate("Explain $word.", key="$word"),
        to=ANSWERS,
        window="one",
        deadline=timedelta(seconds=30),
        on_deadline=[Rung("flex", timedelta(minutes=2)), Rung("commit")],
    )
    def ask() -> Iterator[dict[str, str]]:
        for word in ("quake", "tide", "comet"):
            yield {"word": word}

    ask()


@dag(schedule=[ANSWERS.asset], catchup=False)
def after_it():
    @task
    def windows(**context) -> list[str]:
        return [f"{one['window']} {one['verdict']} {one['late']}" for one in landed_windows(context)]

    windows()


in_time()
after_it()
