"""`geminibatch plan`: of a sealed batch, of rows, of requests; counted or by size; nothing is paid and nothing is written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_geminibatch.cli.main import main
from airflow_provider_geminibatch.core.answer_sizes import AnswerSizes, Spread, asked_like
from airflow_provider_geminibatch.core.ledger import Opening, Priced
from airflow_provider_geminibatch.core.model import ServiceIdentity
from airflow_provider_geminibatch.core.names import segment
from airflow_provider_geminibatch.core.prices import parse_prices
from airflow_provider_geminibatch.emulator import Emulator, Server, running
from airflow_provider_geminibatch.jobs.submit import read_build
from airflow_provider_geminibatch.storage import facts
from airflow_provider_geminibatch.storage.stores import LocalStore
from airflow_provider_geminibatch.storage.usage_history import note_usage
from tests.jobs.batches import BATCH, seal

MODEL = "gemini-3.8-flash"
NOW = datetime.now(UTC)
PRICES = {"as_of": "2026-11-20", "models": {MODEL: [{"input": "8", "output": "80"}]}}


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[Server]:
    with running(Emulator(seed=1)) as server:
        yield server


@pytest.fixture
def rows(tmp_path: Path) -> list[str]:
    """Arguments that name rows and a template."""
    source, template = tmp_path / "rows.csv", tmp_path / "template.json"
    source.write_text("id,text\n" + "".join(f"{number},{'word ' * (number % 40)}\n" for number in range(400)))
    template.write_text(json.dumps({"prompt": "Say: $text", "generation": {"max_output_tokens": 200}}))
    return ["--source", str(source), "--template", str(template), "--model", MODEL]


def plan(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    assert main(["plan", *args, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_rows_and_a_template_are_planned_by_size_without_a_key(
    rows: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    found = plan(capsys, *rows, "--max-rows-per-shard", "100")
    assert (found["rows"], found["shards"], found["counted"], found["answers_from"]) == (400, 4, False, "bound")
    assert found["tokens"]["candidates"] == {"low": 0, "expected": None, "high": 80_000}
    # all answers at their longest: 80,000 at 1.875 (to the end of 2026) or 3.75 in a million
    assert 0.15 < float(found["batch_usd"]["high"]) < 0.45
    assert float(found["standard_usd"]["high"]) == pytest.approx(2 * float(found["batch_usd"]["high"]), abs=1e-5)
    assert [tier["waves"] for tier in found["tiers"]] == [1, 1, 1]


def test_with_a_sample_the_service_counts_and_nothing_is_paid(
    rows: list[str], server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "k")
    found = plan(capsys, *rows, "--sample", "40", "--endpoint", server.url)
    assert (found["counted"], found["sampled"]) == (True, 40)
    assert 0 < server.emulator.log.count("models.count_tokens") <= 40
    assert (server.emulator.bill()["total_usd"], server.emulator.jobs) == ("0", ())


def test_ready_made_requests_are_planned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "requests.jsonl"
    file.write_text('{"key": "a", "request": {"contents": [{"parts": [{"text": "hello"}]}]}}\n')
    assert plan(capsys, "--requests", str(file), "--model", MODEL)["rows"] == 1


def test_prices_of_ones_own_count(rows: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps(PRICES))
    found = plan(capsys, *rows, "--prices", str(prices))
    assert found["price"] == f"{prices} of 2026-11-20"
    assert float(found["batch_usd"]["high"]) > 80_000 * 40 / 1e6


def test_it_is_told_in_lines(rows: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *rows]) == 0
    said = capsys.readouterr().out
    assert "gemini-3.8-flash: 400 rows" in said
    assert "by size, not counted" in said
    assert "no answer to the like is on record" in said
    assert "by batch or flex, between" in said
    assert "no similar job is on record" in said
    assert "tier 1    3,000,000 tokens at once: one wave" in said


def test_a_shard_that_no_tier_ever_takes_is_named_with_a_size_that_fits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, template = tmp_path / "rows.jsonl", tmp_path / "template.json"
    source.write_text("".join(f'{{"id": "{number}", "text": "{"word " * 2000}"}}\n' for number in range(1500)))
    template.write_text(
        '{"prompt": "$text", "response_schema": {"type": "object", "properties": {"a": {"type": "string"}}}}'
    )
    args = ["--source", str(source), "--template", str(template), "--model", MODEL]
    found = plan(capsys, *args)
    assert found["tiers"][0]["waves"] is None
    fits = found["tiers"][0]["rows_per_shard"]
    assert plan(capsys, *args, "--max-rows-per-shard", str(fits))["tiers"][0]["waves"] == 2
    assert found["schema_tokens_per_row"] > 0
    assert main(["plan", *args]) == 0
    assert f"max_rows_per_shard={fits:,} or less" in capsys.readouterr().out


def batch(tmp_path: Path, **how: Any) -> tuple[LocalStore, str]:
    """A sealed batch in a workspace, opened."""
    store = LocalStore(str(tmp_path / "workspace"))
    manifest = seal(store, shards=2, rows=5, **how)
    build = read_build(store, manifest.path)
    opening = Opening(
        owner="me", at=NOW, batch=BATCH, generation=1, build="b1", workspace_id="w", workspace_uri=store.uri,
        fingerprint="", service=ServiceIdentity("developer", "https://x"),
    )  # fmt: skip
    facts.put(store, "batches/dag/run/prepare/map=-1/g0001/batch.json", opening)
    assert build.rows == 10
    return store, manifest.uri


def test_a_sealed_batch_goes_by_what_its_workspace_knows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, uri = batch(tmp_path)
    sizes = AnswerSizes(100, Spread(5000, 20, 50, 90), Spread(), Spread(5000, 20, 50, 90))
    note_usage(
        store, service="developer https://x", model=MODEL, asked=asked_like({"contents": []}), task="dag.prepare", ended=NOW,
        name="c", sizes=sizes,
    )  # fmt: skip
    for number in range(12):
        ended = NOW - timedelta(days=1, minutes=number)
        name = f"{ended:%Y%m%dT%H%M%SZ}_{3600 + number * 60}_SUCCEEDED_5_aaaaaaa{'abcdefghijkl'[number]}"
        store.create(f"history/developer%20https%3A%2F%2Fx/{MODEL}/{ended:%Y-%m}/{name}", b"")
    before = list(store.list(""))

    found = plan(capsys, uri)
    assert found["answers_from"] == "history"
    assert found["tokens"]["candidates"] == {"low": 200, "expected": 500, "high": 900}
    assert found["turnaround"]["jobs"] == 12
    assert 3600 < found["turnaround"]["p50_seconds"] < found["turnaround"]["p90_seconds"] < 4400
    assert main(["plan", uri]) == 0
    said = capsys.readouterr().out
    assert "half of 12 jobs (same model and size) took up to 1 h 0" in said
    assert "answers   500 tokens (200 to 900), by 100 answers to the like, of one earlier batch" in said
    assert "thoughts  0 tokens, billed as answers are" in said
    assert list(store.list("")) == before


def test_a_sealed_batch_is_planned_at_the_prices_that_it_is_counted_by(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, uri = batch(tmp_path)
    mine = parse_prices(json.dumps(PRICES).encode(), "mine")[MODEL]
    path = f"batches/dag/run/prepare/map=-1/g0001/prices/{MODEL}.json"
    facts.put(store, path, Priced(owner="me", at=NOW, model=MODEL, prices=mine))
    assert plan(capsys, uri)["price"] == "mine of 2026-11-20"


def test_a_model_without_a_price_has_a_plan_and_no_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, uri = batch(tmp_path, model="gemini-9")
    found = plan(capsys, uri)
    assert (found["batch_usd"], found["tiers"]) == (None, [])
    assert main(["plan", uri]) == 0
    assert "no price is known for gemini-9" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "it needs one batch to look at"),
        (["--source", "x.csv", "--model", "m"], "it needs one batch to look at"),
        (["somewhere", "--requests", "x.jsonl", "--model", "m"], "it needs one batch to look at"),
        (["--requests", "x.jsonl"], "Give --model"),
        (["nowhere"], "it names no batch"),
        (["/w/batches/d/r/t/map=-1"], "there is no batch at that place"),
        (["--requests", "/nowhere/x.jsonl", "--model", "gemini-3.8-flash"], "could not be read"),
        (["nowhere", "--sample", "1"], "too few"),
        (["--source", "x.csv", "--template", "/nowhere/t.json", "--model", "m"], "could not be read"),
        (["--source", "x.csv", "--template", "{here}/no.json", "--model", "m"], "it is no template"),
        (["--source", "x.csv", "--template", "{here}/list.json", "--model", "m"], "no JSON object"),
        (["--source", "x.csv", "--template", "{here}/other.json", "--model", "m"], "promt"),
    ],
)
def test_what_makes_no_sense_is_said(
    args: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "no.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "other.json").write_text('{"promt": "x"}')
    assert main(["plan", *(arg.replace("{here}", str(tmp_path)) for arg in args)]) == 1
    assert said in capsys.readouterr().err


def test_counting_needs_a_key(rows: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *rows, "--sample", "10"]) == 1
    assert "no API key is set" in capsys.readouterr().err


def connect(monkeypatch: pytest.MonkeyPatch, name: str, **fields: Any) -> None:
    monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps({"conn_type": "geminibatch", **fields}))


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Two connections, of either route, and a workspace where jobs at the second one were faster."""
    connect(monkeypatch, "developer", password="key")
    connect(
        monkeypatch, "vertex",
        extra={"project": "p", "locations": ["europe-west4", "us-central1"], "staging": "gs://bucket/folder"},
    )  # fmt: skip
    workspace = str(tmp_path / "workspace")
    store = LocalStore(workspace)
    for service, hours in (
        ("developer https://generativelanguage.googleapis.com", 9),
        ("vertex https://europe-west4-aiplatform.googleapis.com p europe-west4", 6),
        ("vertex https://us-central1-aiplatform.googleapis.com p us-central1", 2),
    ):
        for number in range(12):
            ended = NOW - timedelta(hours=number)
            folder = f"history/{segment(service)}/{MODEL}/{ended:%Y-%m}"
            store.create(f"{folder}/{ended:%Y%m%dT%H%M%SZ}_{hours * 3600}_SUCCEEDED_400_abcd", b"")
    return workspace


def test_of_several_places_it_says_where_the_batch_would_go_and_why(
    rows: list[str], places: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = plan(capsys, *rows, "--conn-id", "developer,vertex", "--workspace", places)
    assert found["place"] == (
        "vertex us-central1: half of 12 similar jobs took 2.0 h against 6.0 h at vertex europe-west4 (12 jobs); same price; chosen"
    )
    assert (found["tiers"], found["storage_share"]) == ([], None)
    assert found["turnaround"]["p50_seconds"] == pytest.approx(2 * 3600, abs=60)
    assert main(["plan", *rows, "--conn-id", "developer,vertex", "--workspace", places]) == 0
    assert f"place     {found['place']}" in capsys.readouterr().out


def test_without_history_it_says_that_the_first_stands(
    rows: list[str], places: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = plan(capsys, *rows, "--conn-id", "developer,vertex")
    assert found["place"].startswith("developer: first in your order; too few jobs of this model are on record")
    assert [tier["waves"] for tier in found["tiers"]] == [1, 1, 1]


def test_one_place_needs_no_line_and_one_that_cannot_run_the_batch_is_an_error(
    rows: list[str], places: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(capsys, *rows, "--conn-id", "vertex@europe-west4")["place"] == ""
    tuned = [*rows[:-1], "projects/p/locations/us-central1/models/1"]
    assert main(["plan", *tuned, "--conn-id", "vertex@global"]) == 1
    assert "tuned models do not run batches at global" in capsys.readouterr().err
