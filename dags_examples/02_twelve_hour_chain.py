"""Windows of twelve hours, each chained to the one before it on its real completion.

Every window has two batches. `annotate` asks about each event of the window and needs nobody, so these waits overlap.
`bulletin` writes one text from the window's annotations and the bulletin of the window before, so it waits for that one,
whenever it lands. The second Dag starts when bulletins have really landed, never on the clock.

    geminibatch emulator --speed 3600       # instead of a key: an hour takes a second
    airflow backfill create --dag-id twelve_hour_chain --from-date 2018-01-31 --to-date 2018-02-06T12:00:00 \\
        --max-active-runs 6 --reprocess-behavior completed

Airflow asks for a reprocess behavior wherever a task has depends_on_past; what did not change is not paid again.
Needs a connection `geminibatch_default`. `geminibatch demo` does all of it.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pendulum
from airflow.providers.common.compat.sdk import conf
from airflow.sdk import ObjectStoragePath, dag, task, task_group
from airflow.timetables.interval import CronDataIntervalTimetable
from pydantic import BaseModel

from airflow_provider_geminibatch import (
    GeminiBatchLoadOperator,
    GeminiBatchPrepareOperator,
    GeminiBatchSensor,
    GeminiBatchSubmitOperator,
    GeminiBatchWindowSensor,
    Landing,
    RequestTemplate,
    landed_windows,
    read_window,
)

MODEL = "gemini-3.8-flash"
EVENTS = Path(__file__).parent / "data" / "earthquakes.csv"
START = pendulum.datetime(2018, 1, 31, tz="UTC")
HALF_A_DAY = pendulum.duration(hours=12)
WINDOWS = int(os.environ.get("GEMINIBATCH_DEMO_WINDOWS", "14"))

# Wherever [geminibatch] workspace says; on this machine only, when it says nothing. The landings lie beside it.
HOME = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser() / "geminibatch"
WORKSPACE = conf.get("geminibatch", "workspace", fallback="") or str(HOME / "workspace")
BESIDE = WORKSPACE.rpartition("/")[0]
ANNOTATIONS = Landing("annotations", f"{BESIDE}/landings/annotations")
BULLETINS = Landing("bulletins", f"{BESIDE}/landings/bulletins")


class Annotation(BaseModel):
    """What is asked about an event."""

    likely_felt: bool
    by_whom: str
    note: str


ABOUT_AN_EVENT = RequestTemplate(
    "On $time there was a seismic event ($event_type) of magnitude $magnitude at a depth of $depth_km km, $place. "
    "Reports of people who felt it: $felt_reports. Was it likely felt, and by whom? Add a note of one line.",
    response_schema=Annotation,
    columns=("time", "place", "magnitude"),
)
A_BULLETIN = RequestTemplate(
    "Write the bulletin of the twelve hours from $window, in five sentences.\n\n"
    "What happened:\n$events\n\nThe bulletin before this one:\n$before",
    key="$window",
    columns=("window", "built_on"),
)


def events_of_window(data_interval_start: datetime, data_interval_end: datetime) -> Iterator[dict[str, str]]:
    """The events of the window, straight from the file."""
    with EVENTS.open(newline="", encoding="utf-8") as file:
        for event in csv.DictReader(file):
            if data_interval_start <= datetime.fromisoformat(event["time"]) < data_interval_end:
                yield event


def bulletin_of_window(annotated: dict, previous: dict) -> list[dict[str, str]]:
    """One row: what was annotated in this window, and the bulletin of the one before."""
    rows = [row for row in read_window(ANNOTATIONS, annotated["window"]) if row["outcome"] == "answer"]
    before = "There is none; this is the first."
    if "commit" in previous:
        [bulletin] = read_window(BULLETINS, previous["window"])
        before = bulletin["text"]
    events = "\n".join(
        f"{row['time']}, magnitude {row['magnitude']}, {row['place']}: {row['value']['note']}"
        + (f" Felt by {row['value']['by_whom']}." if row["value"]["likely_felt"] else "")
        for row in sorted(rows, key=lambda row: row["time"])
    )
    built_on = previous.get("commit", "")
    return [{"window": annotated["window"], "events": events, "before": before, "built_on": built_on}]


def batch(to: Landing, **prepare):
    """Prepare, submit, wait, load: one batch from rows to a window of a landing."""
    prepared = GeminiBatchPrepareOperator(task_id="prepare", model=MODEL, workspace=WORKSPACE, **prepare)
    submitted = GeminiBatchSubmitOperator(task_id="submit", prepared=prepared.output)
    ended = GeminiBatchSensor(task_id="wait", submitted=submitted.output)
    return GeminiBatchLoadOperator(task_id="load", submitted=ended.output, to=to)


@dag(
    schedule=CronDataIntervalTimetable("0 */12 * * *", timezone="UTC"),
    start_date=START,
    end_date=START + HALF_A_DAY * (WINDOWS - 1),
    catchup=True,
    max_active_runs=14,
    default_args={"retries": 2, "retry_delay": timedelta(seconds=5)},
)
def twelve_hour_chain():
    @task_group
    def annotate():
        return batch(ANNOTATIONS, source=events_of_window, template=ABOUT_AN_EVENT, max_rows_per_shard=50)

    @task_group
    def bulletin(annotated):
        # Within one Dag depends_on_past also orders a backfill that reprocesses: a cleared run waits for a cleared run.
        previous = GeminiBatchWindowSensor(
            task_id="previous",
            landing=BULLETINS,
            window_offset=-HALF_A_DAY,
            first_window=START,
            depends_on_past=True,
        )
        both = {"annotated": annotated.output, "previous": previous.output}
        return batch(BULLETINS, source=bulletin_of_window, source_kwargs=both, template=A_BULLETIN)

    bulletin(annotate())


@dag(schedule=[BULLETINS.asset], catchup=False, default_args={"retries": 2, "retry_delay": timedelta(seconds=5)})
def digest():
    @task
    def windows(**context) -> list[dict]:
        return landed_windows(context)

    @task(map_index_template="{{ task.op_kwargs['landed']['window'] }}")
    def write(landed: dict, **context) -> dict[str, str]:
        [bulletin] = read_window(BULLETINS, landed["window"])
        page = ObjectStoragePath(f"{BESIDE}/digests/{landed['window']}.txt")
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(f"{bulletin['window']}\n\n{bulletin['text']}\n")
        return {
            "window": landed["window"],
            "landed_at": landed["committed_at"],
            "started_at": context["ti"].start_date.isoformat(),
        }

    write.expand(landed=windows())


twelve_hour_chain()
digest()
