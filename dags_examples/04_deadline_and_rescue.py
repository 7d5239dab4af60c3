"""Every twelve hours a window, with something useful at the deadline even when the service does not answer.

Batch jobs may wait for a day and expire after two. Here each batch has eleven hours. If its jobs have not ended by then, or
much later than similar ones did, they are cancelled, what they brought is collected, and the rest is asked row by row at the
same price (flex) for at most forty minutes; whatever is there then is committed and judged. Meanwhile what has ended is
readable under `_early/`, and `geminibatch command BATCH commit-now --reason …` has it committed at any time.

Needs a connection `geminibatch_default`.
"""

from __future__ import annotations

import logging
import os
from datetime import timedelta
from pathlib import Path

import pendulum
from airflow.providers.common.compat.sdk import conf
from airflow.sdk import dag
from airflow.timetables.interval import CronDataIntervalTimetable

from airflow_provider_geminibatch import GeminiBatchOperator, Landing, RequestTemplate, Rung

log = logging.getLogger(__name__)
HOME = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser() / "geminibatch"
WORKSPACE = conf.get("geminibatch", "workspace", fallback="") or str(HOME / "workspace")
DIGESTS = Landing("digests", f"{WORKSPACE.rpartition('/')[0]}/landings/digests")


def tell(context) -> None:
    """Called once, when nineteen in twenty similar jobs would have ended. Any notifier fits here too."""
    log.error("%s is late: %s", context["late"]["batch"], context["late"]["why"])


@dag(
    schedule=CronDataIntervalTimetable("0 */12 * * *", timezone="UTC"),
    start_date=pendulum.datetime(2018, 1, 31, tz="UTC"),
    catchup=False,
    default_args={"retries": 2},
)
def digests_in_time():
    GeminiBatchOperator(
        task_id="digests",
        model="gemini-3.8-flash",
        source=[{"topic": topic} for topic in ("tides", "comets", "glaciers", "bees")],
        template=RequestTemplate("Three sentences about $topic.", key="$topic", columns=("topic",)),
        to=DIGESTS,
        workspace=WORKSPACE,
        deadline=timedelta(hours=11),
        stuck_after=0.95,
        on_deadline=[Rung("flex", timedelta(minutes=40)), Rung("commit")],
        early=0.25,
        max_cost_usd="1.00",
        on_late=tell,
    )


digests_in_time()
