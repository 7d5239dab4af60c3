"""What landing results costs: result files to a committed window, beside the least that has to be done and the SDK's types.

    python benchmarks/results.py              # about two minutes; --json: the last line is one object

A line is 1.5 KB: a text, counts of tokens, a signature, ids. Half of the rows belong to a batch with a response schema of six
properties, whose answers are parsed and checked. Lines come in blocks of a thousand, not in the order of the rows, as was seen
of the service; each row passes two columns through. Every way runs in a process of its own:

    lines       the package's reader alone: lines are classified, answers with a schema are parsed and checked, and all of it is
                written to Parquet as Load does it, in one process, with its threads for digest and writing; with digest and
                cost, without keys, order and user columns
    load        the task's way from files in the workspace to a window: digest, outcome, schema, key, cost, user columns,
                Parquet, manifest; results are read by as many processes as there are CPUs
    load 1      the same by one process
    load jsonl  as load, to JSON Lines
    floor       readline, typed decode, a look at what came, and Parquet with zstd, on one core: no digest, no keys, no order,
                no schema, no cost
    types       what a user of google-genai writes to get outcomes in Parquet: json.loads, the SDK's response types, the text
                and the finish reason of the first candidate, answers with a schema through a pydantic model, and Parquet; no
                digest, no keys, no order, no cost
    sdk         the same with answers as the SDK itself makes them: client.batches.get of a job whose results are inline
    reconcile   keys alone, ten million of them: which row does a line belong to

Time on the CPU is that of all processes of a way, and so is the peak of memory: where there are several it is that of the first
and so many times the highest of the others.

Rounds alternate between the ways; each figure is the best round, since whatever else a machine does only takes away.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

# Python looks beside a script first, and `requests.py` there has the name of a library that Google's clients import.
sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != Path(__file__).resolve().parent]

NOW = datetime(2026, 11, 22, tzinfo=UTC)
BATCHES = ("plain", "structured")
SCHEMA = {
    "type": "object",
    "properties": {
        "label": {"type": "string", "enum": ["praise", "complaint", "question"]},
        "confidence": {"type": "number", "minimum": 0, "maximum": 1},
        "stars": {"type": "integer", "minimum": 1, "maximum": 5},
        "topics": {"type": "array", "items": {"type": "string"}},
        "urgent": {"type": "boolean"},
        "reason": {"type": "string"},
    },
    "required": ["label", "confidence", "stars", "topics", "urgent", "reason"],
}  # fmt: skip
LETTERS = 'abcdefghijklmnopqrstuvwxyz    \n"é'
BLOCK = 1_000
INLINE = 5_000
"""Answers of one job whose results are inline; it may have 20 MB."""
KEYS = 10_000_000
LOG = logging.getLogger("benchmark")


class Run(msgspec.Struct):
    """One way, as measured once."""

    way: str
    rows: int
    wall_s: float
    cpu_s: float
    peak_mib: float

    @property
    def rows_per_s(self) -> float:
        return self.rows / self.wall_s

    @property
    def cpu_us(self) -> float:
        return self.cpu_s / self.rows * 1e6


# What is read ------------------------------------------------------------------------------------------------------------


def texts(structured: bool) -> list[str]:
    """Five thousand different ones."""
    draw, made = random.Random(20261122), []
    for _ in range(5_000):
        said = "".join(draw.choices(LETTERS, k=480 if structured else 800))
        value = {
            "label": draw.choice(["praise", "complaint", "question"]), "confidence": round(draw.random(), 3),
            "stars": draw.randint(1, 5), "topics": ["".join(draw.choices(LETTERS[:26], k=9)) for _ in range(3)],
            "urgent": draw.random() < 0.2, "reason": said,
        }  # fmt: skip
        made.append(json.dumps(value) if structured else said)
    return made


def _service() -> Any:
    """A service in memory that writes what it answers to the disk, in blocks of a thousand lines, in another order."""
    from airflow_provider_geminibatch.gemini.gateway import Created, Download
    from airflow_provider_geminibatch.testing import InMemoryGateway, ManualClock

    class Service(InMemoryGateway):
        def __init__(self, clock: ManualClock, folder: Path) -> None:
            super().__init__(clock)
            self.folder, self.clock, self.structured = folder, clock, False

        def create(self, *, file_name: str, **asked: Any) -> Any:
            keys = [msgspec.json.decode(row)["key"] for row in self.files[file_name][0].splitlines()]
            self.files[file_name] = (b"", self.files[file_name][1])
            reply = super().create(file_name=file_name, **asked)
            assert isinstance(reply, Created)
            with (self.folder / reply.job.name.rpartition("/")[2]).open("wb") as file:
                file.writelines(_lines(keys, self.structured))
            return reply

        @contextmanager
        def download(self, file_name: str, offset: int = 0) -> Iterator[Download]:
            yield _Stream(self.folder / file_name.rpartition("-")[2])

    return Service


class _Stream:
    def __init__(self, path: Path) -> None:
        self.offset, self.size_bytes, self._path = 0, path.stat().st_size, path

    def chunks(self) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            while data := file.read(1 << 20):
                yield data


def _lines(keys: list[str], structured: bool) -> Iterator[bytes]:
    draw, said = random.Random(7), texts(structured)
    signatures = ["".join(draw.choices(LETTERS[:26], k=272 if structured else 220)) for _ in range(1_000)]
    blocks = [keys[at : at + BLOCK] for at in range(0, len(keys), BLOCK)]
    for at, key in enumerate(key for block in (*blocks[:1], *reversed(blocks[1:])) for key in block):
        part = {"text": said[at % len(said)], "thoughtSignature": signatures[at % 1_000]}
        prompt, answer, thoughts = 200 + at % 300, 150 + at % 200, at % 90
        yield msgspec.json.encode({
            "key": key,
            "response": {
                "candidates": [{"content": {"parts": [part], "role": "model"}, "finishReason": "STOP", "index": 0}],
                "usageMetadata": {
                    "promptTokenCount": prompt, "candidatesTokenCount": answer, "totalTokenCount": prompt + answer + thoughts,
                    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt}], "thoughtsTokenCount": thoughts,
                },
                "modelVersion": "gemini-3.8-flash", "responseId": f"r{at:020d}",
            },
        }) + b"\n"  # fmt: skip


def write_inputs(folder: Path, count: int) -> None:
    """Two batches whose results have been collected, and all their lines in one file."""
    from airflow_provider_geminibatch.core.model import BatchId
    from airflow_provider_geminibatch.core.template import RequestTemplate
    from airflow_provider_geminibatch.jobs.collect import gathered
    from airflow_provider_geminibatch.jobs.prepare import Declaration, prepare
    from airflow_provider_geminibatch.jobs.results import Desk
    from airflow_provider_geminibatch.jobs.submit import submit
    from airflow_provider_geminibatch.storage.stores import LocalStore
    from airflow_provider_geminibatch.testing import ManualClock

    clock, store = ManualClock(NOW), LocalStore(str(folder / "workspace"))
    service = _service()(clock, folder)
    uris = []
    for batch in BATCHES:
        service.structured = batch == "structured"
        template = RequestTemplate(
            "$text", key="$id", columns=("place", "kind"), response_schema=SCHEMA if service.structured else None
        )
        made = prepare(
            Declaration(model="gemini-3.8-flash", template=template), lambda batch=batch: _rows(batch, count // 2),
            store=store, workspace_id="benchmark", batch=BatchId("results", "once", batch),
            service=service.identity, me="me", now=clock, log=LOG,
        )  # fmt: skip
        submit(made.manifest, store=store, gateway=service, me="me", now=clock, log=LOG)
        clock.advance(timedelta(hours=2))
        gathered(Desk(store, service, "me", clock, LOG), made.manifest)
        uris.append(made.manifest.uri)
    (folder / "manifests.json").write_bytes(msgspec.json.encode(uris))
    files = sorted(folder.glob("0*"))
    with (folder / "lines.jsonl").open("wb") as file:
        for at, path in enumerate(files):
            file.write(path.read_bytes())
            path.rename(folder / f"{BATCHES[at * len(BATCHES) // len(files)]}-{at:04d}.jsonl")


def _rows(batch: str, count: int) -> Iterator[dict[str, str]]:
    for at in range(count):
        yield {"id": f"{batch}-{at:08d}", "text": f"Row {at}", "place": f"shop {at % 977}", "kind": "review"}


# The ways ----------------------------------------------------------------------------------------------------------------


def load(folder: Path, count: int, file_format: str = "parquet", processes: int = 0) -> int:
    """Load as the task does it, without Airflow; by as many processes as it has CPUs, unless their number is given."""
    from airflow_provider_geminibatch.core.landing import Place, RunRef
    from airflow_provider_geminibatch.core.manifest import parse_manifests
    from airflow_provider_geminibatch.core.model import Owner
    from airflow_provider_geminibatch.core.verdict import Thresholds
    from airflow_provider_geminibatch.jobs.collect import collect
    from airflow_provider_geminibatch.storage.landings import FileLanding
    from airflow_provider_geminibatch.storage.stores import LocalStore
    from airflow_provider_geminibatch.testing import InMemoryGateway, ManualClock

    clock, uris = ManualClock(NOW + timedelta(hours=9)), json.loads((folder / "manifests.json").read_bytes())
    with tempfile.TemporaryDirectory(dir=folder) as place:
        landing = LocalStore(place)
        landed = collect(
            parse_manifests(uris), open_store=LocalStore, gateway=InMemoryGateway(clock),
            landing=Place("answers", landing.uri, file_format), landing_store=FileLanding(landing), window="w",
            owner=Owner("results", "load"), run=RunRef("results", "once", "load"), thresholds=Thresholds(), me="me", now=clock,
            log=LOG, processes=processes or len(os.sched_getaffinity(0)),
        )  # fmt: skip
    assert landed.counts["answer"] == landed.manifest.rows
    return landed.manifest.rows


def load_alone(folder: Path, count: int) -> int:
    return load(folder, count, processes=1)


def load_jsonl(folder: Path, count: int) -> int:
    return load(folder, count, "jsonl")


def lines(folder: Path, count: int) -> int:
    """Results to columns as Load reads them, and straight into one file, as it writes them."""
    from airflow_provider_geminibatch.core.schema_check import schema_check
    from airflow_provider_geminibatch.jobs.spooled import spool_for
    from airflow_provider_geminibatch.storage.arrow_parts import regrouped, write_parquet
    from airflow_provider_geminibatch.storage.sinks import BATCH_BYTES, BATCH_ROWS, PART_ROWS
    from airflow_provider_geminibatch.storage.spool import Disk

    checks = {batch: schema_check(SCHEMA) if batch == "structured" else None for batch in BATCHES}
    spools = {batch: spool_for(Disk(), check) for batch, check in checks.items()}
    groups = regrouped(_columns(folder, checks, spools), BATCH_ROWS, BATCH_BYTES, PART_ROWS)
    with (folder / "out.parquet").open("wb") as file:
        return write_parquet(file, spools[BATCHES[0]].schema, groups)  # type: ignore[union-attr]


def _columns(folder: Path, checks: dict[str, Any], spools: dict[str, Any]) -> Iterator[Any]:
    from airflow_provider_geminibatch.core.prices import price_of
    from airflow_provider_geminibatch.jobs.lines import Lines
    from airflow_provider_geminibatch.jobs.spooled import cells
    from airflow_provider_geminibatch.storage.stores import LocalStore

    store, price, read = LocalStore(str(folder)), price_of("gemini-3.8-flash", NOW), 0
    for batch in BATCHES:
        for path in sorted(folder.glob(f"{batch}-*.jsonl")):
            with Lines(store, path.name, checks[batch], price) as results:
                for _, raws, block, costs in results:
                    yield cells(spools[batch], range(read, read + len(raws)), raws, block, costs)
                    read += len(raws)


class _Part(msgspec.Struct):
    text: str | None = None
    thought: bool = False


class _Content(msgspec.Struct):
    parts: list[_Part] = []


class _Candidate(msgspec.Struct):
    content: _Content | None = None
    finishReason: str = ""  # noqa: N815


class _Usage(msgspec.Struct):
    promptTokenCount: int | str = 0  # noqa: N815
    candidatesTokenCount: int | str = 0  # noqa: N815
    thoughtsTokenCount: int | str = 0  # noqa: N815
    cachedContentTokenCount: int | str = 0  # noqa: N815
    totalTokenCount: int | str = 0  # noqa: N815


class _Response(msgspec.Struct):
    candidates: list[_Candidate] = []
    usageMetadata: _Usage | None = None  # noqa: N815
    modelVersion: str = ""  # noqa: N815
    responseId: str = ""  # noqa: N815


class _Line(msgspec.Struct):
    key: str = ""
    response: _Response | None = None
    error: Any = None


COLUMNS = {
    "key": "string", "outcome": "string", "text": "string", "error": "string", "code": "int64", "finish_reason": "string",
    "tokens_prompt": "int64", "tokens_candidates": "int64", "tokens_thoughts": "int64", "tokens_cached": "int64",
    "tokens_total": "int64", "model": "string", "response_id": "string",
}  # fmt: skip


def _written(folder: Path, cells: Iterator[tuple[Any, ...]]) -> int:
    """Rows to Parquet in batches of 20,000, and nothing else."""
    import itertools

    import pyarrow as pa
    from pyarrow import parquet

    schema = pa.schema([(name, getattr(pa, kind)()) for name, kind in COLUMNS.items()])
    count = 0
    with parquet.ParquetWriter(str(folder / "out.parquet"), schema, compression="zstd") as writer:
        while batch := list(itertools.islice(cells, 20_000)):
            arrays = [
                pa.array(values, field.type) for field, values in zip(schema, zip(*batch, strict=True), strict=True)
            ]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
            count += len(batch)
    return count


def floor(folder: Path, count: int) -> int:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    return _written(folder, _classified(folder))


def _classified(folder: Path) -> Iterator[tuple[Any, ...]]:
    decode = msgspec.json.Decoder(_Line).decode
    with (folder / "lines.jsonl").open("rb", buffering=1 << 20) as file:
        for raw in file:
            line = decode(raw)
            response = line.response
            if line.error is not None or response is None or not response.candidates:
                yield line.key, "failed", None, str(line.error), None, None, 0, 0, 0, 0, 0, None, None
                continue
            candidate, usage = response.candidates[0], response.usageMetadata or _Usage()
            parts = candidate.content.parts if candidate.content else []
            text = "".join(part.text for part in parts if part.text is not None and not part.thought)
            kind = ("answer" if text else "empty") if candidate.finishReason == "STOP" else "truncated"
            yield (
                line.key, kind, text, None, None, candidate.finishReason, usage.promptTokenCount, usage.candidatesTokenCount,
                usage.thoughtsTokenCount, usage.cachedContentTokenCount, usage.totalTokenCount, response.modelVersion,
                response.responseId,
            )  # fmt: skip


def types(folder: Path, count: int) -> int:
    return _written(folder, _typed(count, _validated(folder, count)))


def sdk(folder: Path, count: int) -> int:
    return _written(folder, _typed(count, _inlined(folder, count)))


def _validated(folder: Path, count: int) -> Iterator[tuple[str, Any]]:
    """Answers as the SDK's type, made from a file's lines."""
    from google.genai import types as sdk

    for raw in _chosen(folder, count):
        line = json.loads(raw)
        yield line["key"], sdk.GenerateContentResponse.model_validate(line["response"])


def _inlined(folder: Path, count: int) -> Iterator[tuple[str, Any]]:
    """The same answers, as the SDK's client makes them of batches whose results are inline."""
    from itertools import islice

    import httpx
    from google import genai
    from google.genai import types as sdk

    lines, body = _chosen(folder, count), b""
    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=body))
    options = sdk.HttpOptions(httpx_client=httpx.Client(transport=transport))
    with genai.Client(api_key="none", http_options=options) as client:
        while part := list(islice(lines, INLINE)):
            body = (
                b'{"name": "batches/b", "done": true, "metadata": {"state": "BATCH_STATE_SUCCEEDED", "output": {%b}}}'
                % (b'"inlinedResponses": {"inlinedResponses": [%b]}' % b",".join(map(_inline, part)))
            )
            job = client.batches.get(name="batches/b")
            for one in job.dest.inlined_responses:  # type: ignore[union-attr]
                yield one.metadata["key"], one.response


def _inline(raw: bytes) -> bytes:
    """A line as a member of a list of inline results, which has its key as metadata."""
    line = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    return b'{"metadata": {"key": %b}, "response": %b}' % (line["key"], line["response"])


def _chosen(folder: Path, count: int) -> Iterator[bytes]:
    """So many lines of both batches alike."""
    from itertools import islice

    with (folder / "lines.jsonl").open("rb", buffering=1 << 20) as file:
        total = sum(1 for _ in file)
        file.seek(0)
        yield from islice(file, count // 2)
        yield from islice(file, total // 2 - count // 2, total // 2)


def _typed(count: int, answers: Iterator[tuple[str, Any]]) -> Iterator[tuple[Any, ...]]:
    from google.genai import types as sdk
    from pydantic import ValidationError

    answer = _model()
    for at, (key, response) in enumerate(answers):
        candidate = response.candidates[0] if response.candidates else None
        reason = candidate.finish_reason if candidate else None
        usage = response.usage_metadata or sdk.GenerateContentResponseUsageMetadata()
        text, error = response.text, None
        kind = "answer" if text and reason is sdk.FinishReason.STOP else "truncated" if text else "empty"
        if text and at >= count // 2:  # of the batch with a schema
            try:
                answer.model_validate_json(text)
            except ValidationError as problem:
                kind, error = "invalid", str(problem)
        yield (
            key, kind, text, error, None, reason and reason.value, usage.prompt_token_count, usage.candidates_token_count,
            usage.thoughts_token_count, usage.cached_content_token_count, usage.total_token_count, response.model_version,
            response.response_id,
        )  # fmt: skip


def _model() -> Any:
    """The schema as a pydantic model."""
    from typing import Annotated, Literal

    from pydantic import BaseModel, Field

    class Answer(BaseModel):
        label: Literal["praise", "complaint", "question"]
        confidence: Annotated[float, Field(ge=0, le=1)]
        stars: Annotated[int, Field(ge=1, le=5)]
        topics: list[str]
        urgent: bool
        reason: str

    # Annotations are text here, and its names are those of this function.
    Answer.model_rebuild(_types_namespace={"Annotated": Annotated, "Field": Field, "Literal": Literal})
    return Answer


def reconcile(folder: Path, count: int) -> int:
    """Keys to rows; a hundred rows have no line, fifty lines repeat another, ten belong to nobody."""
    from airflow_provider_geminibatch.core.names import wire_key
    from airflow_provider_geminibatch.core.outcomes import Outcome
    from airflow_provider_geminibatch.core.reconcile import KINDS, Reconciler

    tag, joining, began = "aaaabbbbcccc2222", None, 0.0
    joining = Reconciler(tag, 0, count)
    answer = Outcome(kind=KINDS[0])
    spent = 0.0
    for start in range(0, count, 100_000):
        end = min(start + 100_000, count)
        keys = [wire_key(tag, 0, row) for row in range(start, end) if row >= 100]
        keys += [wire_key(tag, 0, 200)] * (50 if not start else 0) + [
            f"alien-{at}" for at in range(10 if not start else 0)
        ]
        random.Random(start).shuffle(keys)
        began = time.perf_counter()
        joining.add(keys, [0] * len(keys), [True] * len(keys), range(start, start + len(keys)))
        spent += time.perf_counter() - began
    began = time.perf_counter()
    found = joining.done(lambda place: answer)
    spent += time.perf_counter() - began
    assert (found.counts["missing"], found.lines.duplicates, found.lines.unknown) == (100, 50, 10)
    (folder / "reconcile_s").write_text(str(spent))
    return count


WAYS: dict[str, tuple[Any, int]] = {
    "lines": (lines, 1), "load": (load, 1), "load 1": (load_alone, 1), "floor": (floor, 1), "load jsonl": (load_jsonl, 1),
    "types": (types, 20), "sdk": (sdk, 20), "reconcile": (reconcile, 1),
}  # fmt: skip


def measured(way: str, folder: Path, count: int) -> Run:
    """One way in this process. What it imports is imported before."""
    import pyarrow as pa  # noqa: F401
    from google.genai import types  # noqa: F401
    from pyarrow import compute, parquet  # noqa: F401

    import airflow_provider_geminibatch.core.schema_check
    import airflow_provider_geminibatch.jobs.collect  # noqa: F401
    from airflow_provider_geminibatch.core.limits import SHARD_ROWS

    walk, _ = WAYS[way]
    began, busy = time.perf_counter(), _busy()
    rows = walk(folder, count)
    took, busy = time.perf_counter() - began, _busy() - busy
    if way == "reconcile":
        took = float((folder / "reconcile_s").read_text())
    own, others = (resource.getrusage(of).ru_maxrss for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    # One process for each CPU, but no more than there are shards.
    others *= min(len(os.sched_getaffinity(0)), 2 * -(-count // 2 // SHARD_ROWS)) if others else 0
    return Run(way, rows, took, busy, (own + others) / 1024)


def _busy() -> float:
    """Seconds on the CPU, of this process and of those that it started."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def in_a_process(way: str, folder: Path, count: int) -> Run:
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
    parser.add_argument("--keys", type=int, default=KEYS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=list(WAYS))
    parser.add_argument("--folder", help="where files are written; on a disk that is worth measuring")
    parser.add_argument("--run", choices=(*WAYS, "inputs"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.run == "inputs":
        write_inputs(Path(chosen.folder), chosen.rows)
        return
    if chosen.run:
        print(msgspec.json.encode(measured(chosen.run, Path(chosen.folder), chosen.rows)).decode())
        return
    best: dict[str, Run] = {}
    with tempfile.TemporaryDirectory(prefix="geminibatch-results-", dir=chosen.folder) as folder:
        command = [sys.executable, __file__, "--run=inputs", f"--rows={chosen.rows}", f"--folder={folder}"]
        subprocess.run(command, check=True)
        line_bytes = (Path(folder) / "lines.jsonl").stat().st_size / chosen.rows
        for _ in range(chosen.rounds):
            for way in chosen.ways:
                count = chosen.keys if way == "reconcile" else max(chosen.rows // WAYS[way][1], 50)
                run = in_a_process(way, Path(folder), count)
                if way not in best or run.wall_s / run.rows < best[way].wall_s / best[way].rows:
                    best[way] = run
    print(f"{chosen.rows:,} lines of {line_bytes:,.0f} bytes, best of {chosen.rounds} rounds\n")
    print(f"{'way':<12} {'rows':>11} {'rows/s':>10} {'CPU µs/row':>11} {'peak RSS':>9}")
    for run in best.values():
        print(f"{run.way:<12} {run.rows:>11,} {run.rows_per_s:>10,.0f} {run.cpu_us:>11.2f} {run.peak_mib:>5.0f} MiB")
    if best.keys() >= {"lines", "load", "load 1", "floor", "types", "sdk", "reconcile"}:
        said = _summary(best)
        print(
            f"\nLines are classified, checked and written at {said['ratio_to_floor']:.0%} of the floor and "
            f"{said['ratio_to_sdk_types']:.1f} times as fast as by the SDK's types, {said['ratio_to_sdk_itself']:.1f} times as fast as "
            f"by the SDK itself; a whole Load runs at "
            f"{said['ratio_to_floor_load']:.0%} ({said['ratio_to_floor_one_process']:.0%} by one process) and "
            f"{said['ratio_to_sdk_types_load']:.1f} times. The floor is {said['floor_to_sdk_types']:.1f} times as fast as the types."
        )
        if chosen.json:
            print(json.dumps(said))


def _summary(best: dict[str, Run]) -> dict[str, Any]:
    """The figures in one object."""
    read, ours, alone, floor, types = best["lines"], best["load"], best["load 1"], best["floor"], best["types"]
    return {
        "lines_per_s": round(read.rows_per_s),
        "ratio_to_sdk_types": round(read.rows_per_s / types.rows_per_s, 1),
        "ratio_to_floor": round(read.rows_per_s / floor.rows_per_s, 3),
        "lines_per_s_load": round(ours.rows_per_s),
        "ratio_to_sdk_types_load": round(ours.rows_per_s / types.rows_per_s, 1),
        "ratio_to_floor_load": round(ours.rows_per_s / floor.rows_per_s, 3),
        "lines_per_s_one_process": round(alone.rows_per_s),
        "ratio_to_sdk_types_one_process": round(alone.rows_per_s / types.rows_per_s, 1),
        "ratio_to_floor_one_process": round(alone.rows_per_s / floor.rows_per_s, 3),
        "ratio_to_floor_cpu": round(floor.cpu_us / alone.cpu_us, 3),
        "ratio_to_sdk_itself": round(read.rows_per_s / best["sdk"].rows_per_s, 1),
        "floor_to_sdk_types": round(floor.rows_per_s / types.rows_per_s, 1),
        "peak_rss_mib": round(ours.peak_mib, 1),
        "reconcile_keys_per_s": round(best["reconcile"].rows_per_s),
        "cpu_us_per_line": round(ours.cpu_us, 2),
        "runs": [{**msgspec.to_builtins(run), "rows_per_s": round(run.rows_per_s)} for run in best.values()],
    }


if __name__ == "__main__":
    main()
