"""A few rows first: the batch is sent only if the answers of a sample are usable.

Three of twelve questions are asked one by one, at the price of batch and within minutes. If more than one in five answers is
empty, blocked, cut off or no document of the schema, nothing is sent, and the task says what was wrong. What was answered is
kept: the batch asks the other nine. Set ``maxOutputTokens`` to 2 to see it say no.

Needs a connection `geminibatch_default`.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pendulum
from airflow.providers.common.compat.sdk import conf
from airflow.sdk import dag

from airflow_provider_geminibatch import Canary, GeminiBatchOperator, Landing, RequestTemplate

HOME = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser() / "geminibatch"
WORKSPACE = conf.get("geminibatch", "workspace", fallback="") or str(HOME / "workspace")
CAPITALS = Landing("capitals", f"{WORKSPACE.rpartition('/')[0]}/landings/capitals")
COUNTRIES = ["Peru", "Chad", "Fiji", "Cuba", "Laos", "Mali", "Oman", "Togo", "Iran", "Iraq", "Nepal", "Kenya"]
ANSWER = {"type": "object", "properties": {"capital": {"type": "string"}}, "required": ["capital"]}


@dag(schedule=None, start_date=pendulum.datetime(2018, 1, 31, tz="UTC"), default_args={"retries": 2})
def capitals():
    GeminiBatchOperator(
        task_id="capitals",
        model="gemini-3.8-flash",
        source=[{"country": country} for country in COUNTRIES],
        template=RequestTemplate(
            "What is the capital of $country?",
            key="$country",
            response_schema=ANSWER,
            generation={"maxOutputTokens": 2000},
        ),
        to=CAPITALS,
        window="{{ run_id }}",
        workspace=WORKSPACE,
        canary=Canary(rows=3, max_share=0.25, limit=timedelta(minutes=10)),
    )


capitals()
