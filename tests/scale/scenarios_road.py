"""One batch before a service that misbehaves in every way at once: `scenarios_road.py ROUTE URL FOLDER ROWS SHARD_ROWS`.

The service's clock stands still unless it is moved from here, so that hours of waiting take no time. Prints one JSON object.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import httpx
import msgspec
import pyarrow.compute as pc
import pyarrow.parquet as pq

from airflow_provider_geminibatch.core.errors import GeminiBatchError, ResultsNotReady, ServiceBusy
from airflow_provider_geminibatch.core.landing import Place, RunRef
from airflow_provider_geminibatch.core.model import BatchId, Owner
from airflow_provider_geminibatch.core.template import RequestTemplate
from airflow_provider_geminibatch.core.verdict import Thresholds
from airflow_provider_geminibatch.jobs.collect import Landed, collect
from airflow_provider_geminibatch.jobs.prepare import Declaration, prepare
from airflow_provider_geminibatch.jobs.report import decoded
from airflow_provider_geminibatch.jobs.submit import Submitted, submit
from airflow_provider_geminibatch.storage.landings import FileLanding
from airflow_provider_geminibatch.storage.stores import LocalStore
from tests.routes import ROUTES, Route

LOG = logging.getLogger("road")
SHARD_ROWS = 25_000
POISON = "poison"
SCHEMA = {
    "type": "OBJECT",
    "properties": {"mood": {"type": "STRING"}, "stars": {"type": "INTEGER"}},
    "required": ["mood", "stars"],
}
T = TypeVar("T")


class Clock:
    """The emulator's clock, seen and moved from here."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=f"{url}/_emulator", timeout=600)
        self._now = datetime.fromisoformat(self._http.get("/clock").json()["now"]).astimezone(UTC)

    def __call__(self) -> datetime:
        return self._now

    def advance(self, seconds: float) -> None:
        self._http.post("/clock", json={"advance": {"seconds": seconds}}).raise_for_status()
        self._now += timedelta(seconds=seconds)

    def billed(self) -> tuple[int, str]:
        """How many jobs are billed by now, and for how much."""
        bill = self._http.get("/bill").json()
        return sum(entry["charges"] for entry in bill["entries"]), bill["total_usd"]


def rows(count: int) -> Iterator[dict[str, str]]:
    for number in range(count):
        text = POISON if number == count - 1 else f"Sentence number {number}, to be judged."
        yield {"id": f"row-{number:08d}", "text": text}


def patiently(clock: Clock, act: Callable[[], T], tries: Counter[str]) -> T:
    """As a task that is retried: what costs nothing to repeat is repeated, an hour later."""
    for _ in range(200):
        try:
            return act()
        except (ServiceBusy, ResultsNotReady) as error:
            tries[type(error).__name__] += 1
            clock.advance(600)
    raise SystemExit("it does not end")


def main(route: Route, url: str, folder: str, count: int, shard_rows: int) -> dict[str, Any]:
    from memory import peak_bytes  # which lies beside this script

    store, landing, clock = LocalStore(f"{folder}/workspace"), LocalStore(f"{folder}/landing"), Clock(url)
    gateway, tries = route.opened(url, timeout_seconds=600), Counter[str]()
    template = RequestTemplate("Judge: $text", key="$id", response_schema=SCHEMA)
    declared = Declaration(
        model="gemini-3.8-flash",
        source_name="rows",
        template=template,
        max_rows_per_shard=shard_rows,
        columns=("text",),
    )
    took, began = {}, time.perf_counter()
    made = prepare(
        declared, lambda: rows(count), store=store, workspace_id="w", batch=BatchId("d", str(count), "t"),
        service=gateway.identity, me="me", now=clock, log=LOG,
    )  # fmt: skip
    took["prepare_s"], began = time.perf_counter() - began, time.perf_counter()

    def send() -> Submitted:
        end = submit(
            made.manifest, store=store, gateway=gateway, me="me", now=clock, log=LOG, later_try=True, past_refusals=True
        )
        if isinstance(end, Submitted):
            return end
        clock.advance(max(60.0, (end.until - clock()).total_seconds()))
        raise ServiceBusy("submit", None, end.why)

    sent = patiently(clock, send, tries)
    took["submit_s"], began = time.perf_counter() - began, time.perf_counter()
    bills = [clock.billed()]
    for name in sent.job_names:
        while not patiently(clock, lambda name=name: gateway.job(name), tries).ended:  # type: ignore[misc]
            clock.advance(3600)
            bills.append(clock.billed())
    took["wait_s"], began = time.perf_counter() - began, time.perf_counter()

    def load() -> Landed:
        return collect(
            [made.manifest], open_store=lambda _: store, gateway=gateway, landing=Place("answers", landing.uri),
            landing_store=FileLanding(landing), window="w", owner=Owner("d", "load"), run=RunRef("d", "r", "load"),
            thresholds=Thresholds(max_unresolved=1.0), me="me", now=clock, log=LOG, sleep=clock.advance,
        )  # fmt: skip

    landed = patiently(clock, load, tries)
    took["load_s"] = time.perf_counter() - began
    gateway.close()
    peak = peak_bytes()
    return {
        **took, **_landed(landing, landed), "rows": count, "shards": len(made.build.shards), "jobs": len(sent.job_names),
        "tries": dict(tries), "peak_bytes": peak, "bills": sorted(set(bills)),
    }  # fmt: skip


def _landed(landing: LocalStore, landed: Landed) -> dict[str, Any]:
    """What landed, counted from the files themselves, and what manifest and report say of it."""
    manifest, kinds, keys, cost = landed.manifest, Counter[str](), set[bytes](), 0
    for part in manifest.parts:
        path = f"{landing.uri}/{manifest.folder}/{part.path}"
        names = ["key", "outcome", "text", "user_text", "repaired"]
        table = pq.read_table(path, columns=[name for name in names if name in pq.read_schema(path).names])
        for one in table.group_by(["outcome", "repaired"]).aggregate([([], "count_all")]).to_pylist():
            kinds[one["outcome"] + (" repaired" if one["repaired"] else "")] += one["count_all"]
        numbers = pc.cast(pc.utf8_slice_codeunits(table.column("key"), 4), "int64")
        keys |= {bytes(f"{pc.min(numbers)}-{pc.max(numbers)}-{pc.count_distinct(numbers)}-{len(numbers)}", "ascii")}
        cost += table.num_rows
    data = FileLanding(landing).report(manifest)
    assert data is not None
    report = decoded(data, "report")
    return {
        "kinds": dict(kinds), "keys": sorted(key.decode() for key in keys), "counts": manifest.counts,
        "lines": msgspec.to_builtins(manifest.lines), "cost_usd": manifest.cost_usd, "strays": len(manifest.strays),
        "strays_cost_usd": manifest.strays_cost_usd, "states": dict(Counter(job.state for job in manifest.jobs)),
        "report": {name: kind.rows for name, kind in report.outcomes.items()}, "report_cost_usd": report.cost_usd,
    }  # fmt: skip


if __name__ == "__main__":
    try:
        asked = next(route for route in ROUTES if route.name == sys.argv[1])
        print(json.dumps(main(asked, sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))))
    except GeminiBatchError as problem:
        raise SystemExit(f"{type(problem).__name__}: {problem}") from problem
