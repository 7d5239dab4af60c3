"""What waiting costs: our shared poller beside one get per waiter in threads, which is what people use today.

    python benchmarks/waiting.py               # about three minutes; --json: the last line is one object

One service in a process of its own answers both, over HTTP. Every waiter waits for one job and looks every few seconds. First
nothing ends: what the service is asked then, what a waiter weighs and how late the event loop runs is the cost of waiting.
Then some jobs end, one after the other: from there to when their waiters go on is the time to resume.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec

PAGE = 100
KIB = 1024


# The service -----------------------------------------------------------------------------------------------------------


class Service(asyncio.Protocol):
    """A list in pages and a get per job, as bare as can be, so that what is measured is who asks.

    ``/_end/<n>`` ends the n-th job and says when; ``/_asked`` says how many calls there were.
    """

    jobs: list[bytes] = []  # noqa: RUF012 - one service per process
    pages: dict[int, bytes] = {}  # noqa: RUF012
    asked = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
            body = self.answer(head.split(b" ", 2)[1].decode())
            reply = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
            self.transport.write(reply + body)  # type: ignore[attr-defined]

    def answer(self, path: str) -> bytes:
        kind = type(self)
        if path.startswith("/_end/"):
            number = int(path.rpartition("/")[2])
            kind.jobs[number] = _operation(number, "BATCH_STATE_SUCCEEDED")
            kind.pages.pop(number // PAGE, None)
            return b"%.6f" % time.time()
        if path.startswith("/_asked"):
            return str(kind.asked).encode()
        if path.startswith("/_jobs/"):
            count = int(path.rpartition("/")[2])
            kind.jobs, kind.asked = [_operation(number, "BATCH_STATE_RUNNING") for number in range(count)], 0
            kind.pages.clear()
            return b"ok"
        kind.asked += 1
        if "/batches/" in path:
            return kind.jobs[int(path.rpartition("/j")[2])]
        at = int(path.rpartition("pageToken=")[2]) if "pageToken=" in path else 0
        page = kind.pages.get(at // PAGE)
        if page is None:
            token = f'"nextPageToken":"{at + PAGE}",' if at + PAGE < len(kind.jobs) else ""
            page = b'{%s"operations":[%s]}' % (token.encode(), b",".join(kind.jobs[at : at + PAGE]))
            kind.pages[at // PAGE] = page
        return page


def _operation(number: int, state: str) -> bytes:
    stats = {"requestCount": "500", "successfulRequestCount": "120", "pendingRequestCount": "380"}
    meta = {
        "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch",
        "model": "models/gemini-3.8-flash", "displayName": f"gb1-{number:026d}", "state": state,
        "createTime": "2026-11-01T00:00:00.000000000Z", "updateTime": "2026-11-01T01:00:00.000000000Z",
        "inputConfig": {"fileName": f"files/f{number:06d}"}, "batchStats": stats, "name": f"batches/j{number}",
    }  # fmt: skip
    return msgspec.json.encode({"name": f"batches/j{number}", "metadata": meta})


def serve(port: Any) -> None:
    """The service's process."""

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Service, "127.0.0.1", 0, backlog=4096)
        port.value = server.sockets[0].getsockname()[1]
        await server.serve_forever()

    asyncio.run(run())


@contextmanager
def service() -> Iterator[str]:
    port = multiprocessing.Value("i", 0)
    process = multiprocessing.Process(target=serve, args=(port,), daemon=True)
    process.start()
    while not port.value:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port.value}"
    finally:
        process.terminate()
        process.join(5)


# The two ways ----------------------------------------------------------------------------------------------------------


class Run(msgspec.Struct):
    """One way of waiting with so many waiters, as measured."""

    way: str
    waiters: int
    per_minute: float = 0.0
    lag_p99_ms: float = 0.0
    kib_per_waiter: float = 0.0
    resume_s: float = 0.0
    cpu_share: float = 0.0
    resumed: int = 0


class Ends:
    """Ends some jobs and takes down when their waiters went on."""

    def __init__(self, url: str, waiters: int) -> None:
        self.url = url
        count = min(20, waiters)
        self.chosen = [number * (waiters // count) for number in range(count)]
        self.ended: dict[int, float] = {}
        self.resumed: dict[int, float] = {}

    def end(self, number: int) -> None:
        self.ended[number] = float(httpx.get(f"{self.url}/_end/{number}").text)

    def went_on(self, number: int) -> None:
        self.resumed[number] = time.time()

    @property
    def took(self) -> list[float]:
        return [self.resumed[number] - at for number, at in self.ended.items() if number in self.resumed]


def ours(url: str, waiters: int, interval: float, seconds: float) -> Run:
    """The package's poller and watches, as in the triggerer."""
    from airflow_provider_geminibatch.core.watch import Watch
    from airflow_provider_geminibatch.gemini.developer import DeveloperWatcher, Settings
    from airflow_provider_geminibatch.gemini.gateway import Watcher
    from airflow_provider_geminibatch.jobs.poller import polling
    from airflow_provider_geminibatch.jobs.wait import wait_in_loop

    run, ends = Run("shared poller", waiters), Ends(url, waiters)
    since = datetime.now(UTC) - timedelta(hours=1)

    async def connect() -> Watcher:
        return DeveloperWatcher(Settings("k", url))

    async def waiter(number: int) -> None:
        watch = Watch(names=(f"batches/j{number}",), since=since, cap=timedelta(seconds=interval))
        async with polling("benchmark", connect) as poller:
            await wait_in_loop(watch, poller.look, say=lambda line: None)
        ends.went_on(number)

    async def story() -> None:
        lags: list[float] = []
        async with polling("benchmark", connect) as poller:  # imports, client and connection are not a waiter's weight
            await poller.look(["batches/j0", "batches/j1"], datetime.now(UTC))
        gc.collect()
        before = _rss_bytes()
        tasks = [asyncio.create_task(waiter(number)) for number in range(waiters)]
        await asyncio.sleep(interval * 1.5)  # all have looked once; that is not what waiting costs
        gc.collect()
        run.kib_per_waiter = (_rss_bytes() - before) / KIB / waiters
        asked, began, busy = _asked(url), time.perf_counter(), time.process_time()
        ticking = asyncio.create_task(_tick(lags))
        await asyncio.sleep(seconds)
        took = time.perf_counter() - began
        run.per_minute = (_asked(url) - asked) / took * 60
        run.cpu_share = (time.process_time() - busy) / took
        for number in ends.chosen:
            await asyncio.to_thread(ends.end, number)
            await asyncio.sleep(interval / len(ends.chosen))
        await asyncio.sleep(interval * 1.3)
        ticking.cancel()
        run.lag_p99_ms = _p99(lags) * 1000
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(story())
    return _done(run, ends)


async def _tick(lags: list[float]) -> None:
    """How much later than asked for the loop comes back, every 5 ms."""
    while True:
        at = time.perf_counter()
        await asyncio.sleep(0.005)
        lags.append(time.perf_counter() - at - 0.005)


def threads(url: str, waiters: int, interval: float, seconds: float) -> Run:
    """A thread per waiter that gets its job and sleeps, with one shared client."""
    run, ends, stop = Run("get per waiter", waiters), Ends(url, waiters), threading.Event()
    limits = httpx.Limits(max_connections=100, max_keepalive_connections=100)
    client = httpx.Client(base_url=url, headers={"x-goog-api-key": "k"}, limits=limits, timeout=60.0)
    client.get("/v1beta/batches/j0").json()  # imports, client and connection are not a waiter's weight
    before = _rss_bytes()

    def waiter(number: int) -> None:
        # Each begins at a time of its own, as tasks do; all at once would flatter nobody.
        stop.wait(interval * number / waiters)
        while not stop.is_set():
            job = client.get(f"/v1beta/batches/j{number}").json()
            if job["metadata"]["state"] == "BATCH_STATE_SUCCEEDED":
                ends.went_on(number)
                return
            stop.wait(interval)

    threading.stack_size(256 * KIB)
    crowd = [threading.Thread(target=waiter, args=(number,), daemon=True) for number in range(waiters)]
    for thread in crowd:
        thread.start()
    time.sleep(interval * 1.5)
    run.kib_per_waiter = (_rss_bytes() - before) / KIB / waiters
    lags: list[float] = []
    asked, began, busy = _asked(url), time.perf_counter(), time.process_time()
    while time.perf_counter() - began < seconds:
        at = time.perf_counter()
        time.sleep(0.005)
        lags.append(time.perf_counter() - at - 0.005)
    took = time.perf_counter() - began
    run.per_minute = (_asked(url) - asked) / took * 60
    run.cpu_share = (time.process_time() - busy) / took
    for number in ends.chosen:
        ends.end(number)
        time.sleep(interval / len(ends.chosen))
    time.sleep(interval * 1.3)
    run.lag_p99_ms = _p99(lags) * 1000
    stop.set()
    for thread in crowd:
        thread.join(60)
    client.close()
    return _done(run, ends)


def _done(run: Run, ends: Ends) -> Run:
    run.resumed = len(ends.took)
    run.resume_s = statistics.median(ends.took) if ends.took else float("nan")
    return run


def _asked(url: str) -> int:
    return int(httpx.get(f"{url}/_asked").text)


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)] if values else float("nan")


def _rss_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


WAYS: dict[str, Callable[[str, int, float, float], Run]] = {"ours": ours, "threads": threads}


def _in_a_process(way: str, url: str, waiters: int, interval: float, seconds: float) -> Run:
    """A run in a fresh process, so that memory is its own."""
    arguments = [
        f"--run={way}",
        f"--url={url}",
        f"--waiters={waiters}",
        f"--interval={interval}",
        f"--seconds={seconds}",
    ]
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Run)


def main() -> None:
    """Measure both ways at each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 100, 1000, 10_000])
    parser.add_argument("--interval", type=float, default=3.0, help="seconds between two looks of a waiter")
    parser.add_argument("--seconds", type=float, default=0.0, help="how long is measured; two intervals by default")
    parser.add_argument("--run", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--waiters", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    seconds = chosen.seconds or chosen.interval * 2
    if chosen.run:
        print(msgspec.json.encode(WAYS[chosen.run](chosen.url, chosen.waiters, chosen.interval, seconds)).decode())
        return
    runs: dict[tuple[str, int], Run] = {}
    print(f"every waiter looks every {chosen.interval:g} s; each figure over {seconds:g} s\n")
    print(
        f"{'waiters':>8}  {'way':<15} {'calls/min':>10} {'lag p99':>9} {'KiB/waiter':>11} {'resume p50':>11} {'CPU':>5}"
    )
    with service() as url:
        for size in chosen.sizes:
            for way in WAYS:
                httpx.get(f"{url}/_jobs/{size}")
                run = runs[way, size] = _in_a_process(way, url, size, chosen.interval, seconds)
                print(
                    f"{size:>8,}  {run.way:<15} {run.per_minute:>10,.0f} {run.lag_p99_ms:>6.1f} ms {run.kib_per_waiter:>11.1f} "
                    f"{run.resume_s:>9.1f} s {run.cpu_share:>5.0%}", flush=True,
                )  # fmt: skip
    print("\ncalls of ours for one of a get per waiter:")
    ratios = {size: runs["ours", size].per_minute / runs["threads", size].per_minute for size in chosen.sizes}
    print("  " + ", ".join(f"{size:,} waiters: {ratio:.4f}" for size, ratio in ratios.items()))
    if chosen.json:
        print(json.dumps(_summary(runs, ratios)))


def _summary(runs: dict[tuple[str, int], Run], ratios: dict[int, float]) -> dict[str, Any]:
    """The figures in one object; of the size nearest to a thousand where there is none of that."""
    size = min(ratios, key=lambda each: abs(each - 1000))
    run = runs["ours", size]
    return {
        "ratio_requests_at_1000": round(ratios[size], 5),
        "lag_p99_ms_at_1000": round(run.lag_p99_ms, 2),
        "kib_per_waiter": round(run.kib_per_waiter, 2),
        "resume_s_p50": round(run.resume_s, 2),
        "runs": [msgspec.to_builtins(each) for each in runs.values()],
    }


if __name__ == "__main__":
    main()
