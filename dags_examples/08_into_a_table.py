"""Answers that land in a table, from one batch per river, mapped.

Needs the connection `geminibatch_default`, and one named `answers_db` to PostgreSQL (or SQLite), with the provider of its
type. The first run makes the table; `SELECT key, text FROM river_facts` shows what came. Costs a fraction of a cent.
"""

from __future__ import annotations

from airflow.sdk import dag

from airflow_provider_geminibatch import (
    GeminiBatchLoadOperator,
    GeminiBatchPrepareOperator,
    GeminiBatchSensor,
    GeminiBatchSubmitOperator,
    Landing,
    RequestTemplate,
)

FACTS = Landing("river_facts", "sql://answers_db@/river_facts")
QUESTION = RequestTemplate("In one line, what is special about $city on the $river?", key="$city", columns=("river",))

RIVERS = {
    "Danube": ("Vienna", "Budapest", "Belgrade"),
    "Rhine": ("Basel", "Cologne", "Rotterdam"),
    "Elbe": ("Dresden", "Hamburg"),
}


@dag(schedule=None, catchup=False, default_args={"retries": 2})
def into_a_table():
    prepared = GeminiBatchPrepareOperator.partial(
        task_id="prepare", model="gemini-3.8-flash", template=QUESTION
    ).expand(source=[[{"city": city, "river": river} for city in cities] for river, cities in RIVERS.items()])
    submitted = GeminiBatchSubmitOperator.partial(task_id="submit").expand(prepared=prepared.output)
    ended = GeminiBatchSensor(task_id="wait", submitted=submitted.output)
    # All batches are one window, and one transaction.
    GeminiBatchLoadOperator(task_id="load", submitted=ended.output, to=FACTS, window="{{ run_id }}")


into_a_table()
