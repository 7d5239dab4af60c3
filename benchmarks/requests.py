"""What preparing requests costs: rows to sealed shards, beside the disk, the SDK's types and the SDK's own converter.

    python benchmarks/requests.py              # about two minutes; --json: the last line is one object

A row is a key and a prompt of 500 characters with quotes and line breaks, one in five beyond ASCII; a request has a system
instruction of 300 characters, a schema of six properties and a safety setting beside it: about 1.6 KB a line. Every way
runs in a process of its own and ends with a file that is flushed to the disk:

    floor          the bytes of the finished lines, written as they are
    prepare        Prepare: rows (dicts) and a template to sealed shards; checks, unique keys and digests included
    prepare jsonl  the same from a file of JSON Lines
    cores          the same, split over all CPUs
    ready-made     Prepare from a file of ready-made requests: every line is checked
    lint           that file is only checked: every line, every key
    types of text  google.genai's Content for every row, dumped; all the rest of a request is dumped once
    types apart    content and config of every row in google.genai's types, dumped apart
    types          the SDK's type for a row of a batch, InlinedRequest, made of those and dumped
    converter      the same InlinedRequest, by the SDK's own converter to the wire

None of the last four checks a line, looks for keys that stand twice or computes a digest. Rounds alternate between the ways;
each figure is the best round, since whatever else a machine does only takes away.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

# Python looks beside a script first, and this one has the name of a library that Google's clients import.
sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != Path(__file__).resolve().parent]

MIB = 1 << 20
PROMPTS = 5_000
WARM_ROWS = 20
WORDS = [
    "the", "shop", "was", "open", "late", "and", "a", "clerk", "said", "come", "in", "it", "rains,", '"so', 'what"', "we",
    "thought;", "shoes,", "socks", "(wool)", "were", "fine.", "two\nof",
]  # fmt: skip
BEYOND_ASCII = ("café", "Größe", "寿司", "naïve", "👍")
SYSTEM = ("You label reviews of shops. Say what is there and nothing else. " * 5)[:300]
SCHEMA = {
    "type": "object",
    "properties": {f"property_{at}": {"type": "string", "description": f"Property {at} of the review"} for at in range(6)},
    "required": [f"property_{at}" for at in range(6)],
}  # fmt: skip
SAFETY = {"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}


class Run(msgspec.Struct):
    """One way, as measured once. ``peak_mib`` is of the largest process, ``all_mib`` of all processes together."""

    way: str
    rows: int
    wall_s: float
    cpu_s: float
    written: int
    peak_mib: float
    all_mib: float = 0.0

    @property
    def rows_per_s(self) -> float:
        return self.rows / self.wall_s

    @property
    def cpu_us(self) -> float:
        return self.cpu_s / self.rows * 1e6


# What is asked -----------------------------------------------------------------------------------------------------------


@functools.cache
def prompts() -> list[str]:
    """Enough different ones that they are in no cache of the processor; one in five goes beyond ASCII."""
    draw = random.Random(20261122)
    return [
        " ".join(draw.choices((*WORDS, *BEYOND_ASCII) if number % 5 == 0 else WORDS, k=150))[:500]
        for number in range(PROMPTS)
    ]


def rows(count: int) -> Iterator[dict[str, str]]:
    texts = prompts()
    for number in range(count):
        yield {"id": f"row-{number:08d}", "text": texts[number % PROMPTS]}


def template() -> Any:
    from airflow_provider_geminibatch.core.template import RequestTemplate

    return RequestTemplate(
        "$text", system_instruction=SYSTEM, response_schema=SCHEMA, safety=[SAFETY], generation={"temperature": 0}
    )


def line(number: int, text: str) -> bytes:
    """A ready-made line."""
    request = {
        "contents": [{"role": "user", "parts": [{"text": text}]}],
        "systemInstruction": {"parts": [{"text": SYSTEM}]},
        "generationConfig": {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA, "temperature": 0},
        "safetySettings": [SAFETY],
    }
    return msgspec.json.encode({"key": f"row-{number:08d}", "request": request}) + b"\n"


def write_inputs(folder: Path, count: int) -> None:
    """The files that are read: rows, and ready-made requests."""
    with (folder / "rows.jsonl").open("wb") as file:
        file.writelines(msgspec.json.encode(row) + b"\n" for row in rows(count))
    with (folder / "requests.jsonl").open("wb") as file:
        file.writelines(line(number, row["text"]) for number, row in enumerate(rows(count)))


# The ways ----------------------------------------------------------------------------------------------------------------


def prepared(folder: Path, source: Any, split: Any = lambda: None, **declared: Any) -> int:
    """Prepare as the task does it, without Airflow; what was written."""
    from airflow_provider_geminibatch.core.model import BatchId
    from airflow_provider_geminibatch.jobs.prepare import Declaration, prepare
    from airflow_provider_geminibatch.storage.stores import LocalStore

    made = prepare(
        Declaration(model="gemini-3.8-flash", **declared), source, store=LocalStore(str(folder / "workspace")),
        workspace_id="benchmark", batch=BatchId("requests", "once", "prepare"), service=None, me="me",
        now=lambda: datetime.now(UTC), log=logging.getLogger("benchmark"), split=split,
    )  # fmt: skip
    return made.build.size_bytes


def floor(folder: Path, count: int) -> int:
    """Blocks of a thousand finished lines."""
    block = b"".join(line(number, text) for number, text in enumerate(prompts()[:1000]))
    with (folder / "floor.jsonl").open("wb", buffering=0) as file:
        for _ in range(count // 1000 or 1):
            file.write(block)
        os.fsync(file.fileno())
        return file.tell()


def prepare_rows(folder: Path, count: int) -> int:
    return prepared(folder, lambda: rows(count), template=template())


def _of_file(name: str, count: int) -> Callable[[], Iterable[Any]]:
    from itertools import islice

    from airflow_provider_geminibatch.storage.sources import JsonlSource, PlainFiles

    return lambda: islice(JsonlSource(name).rows(PlainFiles()), count)


def prepare_jsonl(folder: Path, count: int) -> int:
    return prepared(folder, _of_file(str(folder / "rows.jsonl"), count), template=template())


def prepare_requests(folder: Path, count: int) -> int:
    return prepared(folder, _of_file(str(folder / "requests.jsonl"), count))


def lint(folder: Path, count: int) -> int:
    from airflow_provider_geminibatch.core.response_schema import CommonSchema
    from airflow_provider_geminibatch.jobs.prepare import Declaration

    declared = Declaration(model="gemini-3.8-flash")
    source = _of_file(str(folder / "requests.jsonl"), count)
    return sum(len(ready.request) for ready in declared.ready(source, CommonSchema()))


def prepare_cores(folder: Path, count: int) -> int:
    """The same file in four parts. Prepare itself leaves a source of less than 256 MiB whole."""
    from airflow_provider_geminibatch.jobs.parts import split_of
    from airflow_provider_geminibatch.storage.sources import JsonlSource, PlainFiles

    source, files = JsonlSource(str(folder / "rows.jsonl")), PlainFiles()
    size = os.path.getsize(source.path)

    def split() -> Any:
        return split_of(source, files, processes=len(os.sched_getaffinity(0)), door={}, part_bytes=size // 4 + 1)

    if count < WARM_ROWS * 2:  # the file is written for all rows
        return prepare_jsonl(folder, count)
    return prepared(folder, lambda: source.rows(files), template=template(), split=split)


def _typed(text: str) -> tuple[Any, Any]:
    """A request in the SDK's own types, as its documentation writes them."""
    from google.genai import types as sdk

    content = sdk.Content(role="user", parts=[sdk.Part.from_text(text=text)])
    properties = {
        name: sdk.Schema(type=sdk.Type.STRING, description=each["description"]) for name, each in SCHEMA["properties"].items()
    }  # fmt: skip
    config = sdk.GenerateContentConfig(
        system_instruction=sdk.Content(parts=[sdk.Part.from_text(text=SYSTEM)]),
        temperature=0,
        response_mime_type="application/json",
        response_schema=sdk.Schema(type=sdk.Type.OBJECT, properties=properties, required=SCHEMA["required"]),
        safety_settings=[
            sdk.SafetySetting(
                category=sdk.HarmCategory.HARM_CATEGORY_HARASSMENT, threshold=sdk.HarmBlockThreshold.BLOCK_NONE
            )
        ],
    )
    return content, config


def types(folder: Path, count: int) -> int:
    from google.genai import types as sdk

    with (folder / "types.jsonl").open("wb") as file:
        for row in rows(count):
            content, config = _typed(row["text"])
            request = _dumped(sdk.InlinedRequest(contents=[content], config=config))
            file.write(json.dumps({"key": row["id"], "request": request}).encode() + b"\n")
        return _flushed(file)


def types_apart(folder: Path, count: int) -> int:
    with (folder / "types.jsonl").open("wb") as file:
        for row in rows(count):
            content, config = _typed(row["text"])
            request = {"contents": [_dumped(content)], "config": _dumped(config)}
            file.write(json.dumps({"key": row["id"], "request": request}).encode() + b"\n")
        return _flushed(file)


def types_of_text(folder: Path, count: int) -> int:
    from google.genai import types as sdk

    config = _dumped(_typed("")[1])
    with (folder / "types.jsonl").open("wb") as file:
        for row in rows(count):
            content = sdk.Content(role="user", parts=[sdk.Part.from_text(text=row["text"])])
            request = {"contents": [_dumped(content)], "config": config}
            file.write(json.dumps({"key": row["id"], "request": request}).encode() + b"\n")
        return _flushed(file)


def _dumped(value: Any) -> Any:
    return value.model_dump(mode="json", by_alias=True, exclude_none=True)


def converter(folder: Path, count: int) -> int:
    from google import genai
    from google.genai import batches
    from google.genai import types as sdk

    client = genai.Client(api_key="none")._api_client
    with (folder / "converter.jsonl").open("wb") as file:
        for row in rows(count):
            content, config = _typed(row["text"])
            made = batches._InlinedRequest_to_mldev(client, sdk.InlinedRequest(contents=[content], config=config))
            file.write(json.dumps({"key": row["id"], **made}, default=_dumped).encode() + b"\n")
        return _flushed(file)


def _flushed(file: Any) -> int:
    file.flush()
    os.fsync(file.fileno())
    return int(file.tell())


# Each way, and of how many rows it takes one: the slow ones would take hours.
WAYS: dict[str, tuple[Callable[[Path, int], int], int]] = {
    "floor": (floor, 1),
    "prepare": (prepare_rows, 1),
    "prepare jsonl": (prepare_jsonl, 1),
    "cores": (prepare_cores, 1),
    "ready-made": (prepare_requests, 1),
    "lint": (lint, 1),
    "types of text": (types_of_text, 20),
    "types apart": (types_apart, 40),
    "types": (types, 40),
    "converter": (converter, 400),
}


# Measuring ---------------------------------------------------------------------------------------------------------------


def measured(way: str, folder: Path, count: int) -> Run:
    """One way in this process, imports and the making of prompts left out."""
    walk = WAYS[way][0]
    prompts()
    with tempfile.TemporaryDirectory(dir=folder) as warm:
        for name in ("rows.jsonl", "requests.jsonl"):
            if (folder / name).exists():
                (Path(warm) / name).symlink_to(folder / name)
        walk(Path(warm), WARM_ROWS)
    began, busy = time.perf_counter(), _busy_s()
    written = walk(folder, count)
    took, busy = time.perf_counter() - began, _busy_s() - busy
    peak, of_child = (_peak_mib(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    children = len(os.sched_getaffinity(0)) if of_child else 0
    return Run(way, count, took, busy, written, max(peak, of_child), peak + children * of_child)


def _busy_s() -> float:
    """Time on a CPU, of this process and those it waited for."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in spent)


def _peak_mib(who: int) -> float:
    return resource.getrusage(who).ru_maxrss / 1024


def in_a_process(way: str, inputs: Path, count: int) -> Run:
    with tempfile.TemporaryDirectory(dir=inputs) as folder:
        for name in ("rows.jsonl", "requests.jsonl"):
            (Path(folder) / name).symlink_to(inputs / name)
        command = [sys.executable, __file__, f"--run={way}", f"--rows={count}", f"--folder={folder}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Run)


def main() -> None:
    """Measure every way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", help="where files are written; on a disk that is worth measuring")
    parser.add_argument("--run", choices=WAYS, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.run:
        print(msgspec.json.encode(measured(chosen.run, Path(chosen.folder), chosen.rows)).decode())
        return
    best: dict[str, Run] = {}
    with tempfile.TemporaryDirectory(prefix="geminibatch-requests-", dir=chosen.folder) as inputs:
        write_inputs(Path(inputs), chosen.rows)
        for _ in range(chosen.rounds):
            for way, (_walk, share) in WAYS.items():
                run = in_a_process(way, Path(inputs), max(chosen.rows // share, 50))
                if way not in best or run.wall_s / run.rows < best[way].wall_s / best[way].rows:
                    best[way] = run
    _print(best, chosen.rounds)
    if chosen.json:
        print(json.dumps(_summary(best)))


def _print(best: dict[str, Run], rounds: int) -> None:
    print(f"best of {rounds} rounds\n")
    print(f"{'way':<14} {'rows':>9} {'rows/s':>10} {'MB/s':>7} {'CPU µs/row':>11} {'peak RSS':>9}")
    for run in best.values():
        print(
            f"{run.way:<14} {run.rows:>9,} {run.rows_per_s:>10,.0f} {run.written / run.wall_s / 1e6:>7,.0f} "
            f"{run.cpu_us:>11.2f} {run.peak_mib:>5.0f} MiB"
        )
    said = _summary(best)
    print(
        f"\nPrepare runs at {said['ratio_to_floor']:.0%} of the disk's speed, {said['ratio_to_sdk_types']:.0f} times as fast as "
        f"the SDK's types and {said['ratio_to_sdk_converter']:,.0f} times as fast as its converter."
    )


def _summary(best: dict[str, Run]) -> dict[str, Any]:
    """The figures in one object."""
    ours = best["prepare"]
    return {
        "rows_per_s": round(ours.rows_per_s),
        "ratio_to_sdk_types": round(ours.rows_per_s / best["types"].rows_per_s, 1),
        "ratio_to_sdk_converter": round(ours.rows_per_s / best["converter"].rows_per_s, 1),
        "ratio_to_floor": round(ours.rows_per_s / best["floor"].rows_per_s, 3),
        "lint_lines_per_s": round(best["lint"].rows_per_s),
        "peak_rss_mib": round(ours.peak_mib, 1),
        "mb_per_s": round(ours.written / ours.wall_s / 1e6),
        "cpu_us_per_row": round(ours.cpu_us, 2),
        "ratio_to_sdk_types_apart": round(ours.rows_per_s / best["types apart"].rows_per_s, 1),
        "ratio_to_sdk_types_of_text": round(ours.rows_per_s / best["types of text"].rows_per_s, 1),
        "cores_rows_per_s": round(best["cores"].rows_per_s),
        "runs": [{**msgspec.to_builtins(run), "rows_per_s": round(run.rows_per_s)} for run in best.values()],
    }


if __name__ == "__main__":
    main()
