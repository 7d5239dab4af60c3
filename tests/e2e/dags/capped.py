"""Five batches at once, and Airflow's own ways to let only two of them run."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import conf
from airflow.sdk import dag

from airflow_provider_geminibatch import GeminiBatchOperator, Landing, RequestTemplate

BESIDE = conf.get("geminibatch", "workspace").rpartition("/")[0]
HOW = {"pooled": {"pool": "two_at_once"}, "limited": {"max_active_tis_per_dag": 2}}


def capped(name: str):
    landing = Landing(name, f"{BESIDE}/landings/{name}")

    @dag(dag_id=name, schedule=None, catchup=False)
    def made():
        GeminiBatchOperator.partial(
            task_id="batch",
            model="gemini-3.8-flash",
            source=[{"id": "a"}],
            to=landing,
            outlets=[landing.asset],
            window="window-{{ ti.map_index }}",
            **HOW[name],
        ).expand(template=[RequestTemplate(f"{name} {number}: $id") for number in range(5)])

    made()


for each in HOW:
    capped(each)
