"""One batch of N rows from a generator to a Parquet window, in a process of its own: `road.py URL FOLDER ROWS`."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from airflow_provider_geminibatch.core.landing import Place, RunRef
from airflow_provider_geminibatch.core.model import BatchId, Owner
from airflow_provider_geminibatch.core.template import RequestTemplate
from airflow_provider_geminibatch.core.verdict import Thresholds
from airflow_provider_geminibatch.gemini.developer import DeveloperGateway, Settings
from airflow_provider_geminibatch.jobs.collect import collect
from airflow_provider_geminibatch.jobs.prepare import Declaration, prepare
from airflow_provider_geminibatch.jobs.submit import Submitted, submit
from airflow_provider_geminibatch.jobs.wait import pause_until
from airflow_provider_geminibatch.storage.landings import FileLanding
from airflow_provider_geminibatch.storage.stores import LocalStore

LOG = logging.getLogger("road")


def now() -> datetime:
    return datetime.now(UTC)


def rows(count: int) -> Iterator[dict[str, str]]:
    for number in range(count):
        yield {"id": f"row-{number:08d}", "text": f"Sentence number {number}, to be judged."}


def main(url: str, folder: str, count: int) -> dict[str, object]:
    from memory import peak_bytes  # which lies beside this script

    store, landing = LocalStore(f"{folder}/workspace"), LocalStore(f"{folder}/landing")
    gateway = DeveloperGateway(Settings("key", url, timeout_seconds=600))
    declared = Declaration(
        model="gemini-3.8-flash",
        source_name="rows",
        template=RequestTemplate("Judge: $text"),
        max_rows_per_shard=50_000,
    )
    took: dict[str, object] = {"rows": count}
    began = time.perf_counter()
    prepared = prepare(
        declared, lambda: rows(count), store=store, workspace_id="w", batch=BatchId("d", str(count), "t"),
        service=gateway.identity, me="me", now=now, log=LOG,
    )  # fmt: skip
    took["prepare_s"], began = time.perf_counter() - began, time.perf_counter()
    while not isinstance(
        end := submit(prepared.manifest, store=store, gateway=gateway, me="me", now=now, log=LOG), Submitted
    ):
        pause_until(end.until)
    took["submit_s"] = time.perf_counter() - began
    while not all(gateway.job(name).ended for name in end.job_names):
        pause_until(datetime.fromtimestamp(now().timestamp() + 1, UTC))
    began = time.perf_counter()
    landed = collect(
        [prepared.manifest], open_store=lambda _: store, gateway=gateway, landing=Place("answers", landing.uri),
        landing_store=FileLanding(landing), window="w", owner=Owner("d", "load"), run=RunRef("d", "r", "load"),
        thresholds=Thresholds(), me="me", now=now, log=LOG,
    )  # fmt: skip
    took["load_s"] = time.perf_counter() - began
    gateway.close()
    return {**took, "counts": landed.counts, "peak_bytes": peak_bytes()}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
