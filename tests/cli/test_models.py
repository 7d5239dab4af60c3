"""`geminibatch models` at the command line."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from airflow_provider_geminibatch.cli.main import main
from airflow_provider_geminibatch.core.capabilities import Capabilities, read_listing
from airflow_provider_geminibatch.emulator import Emulator, running

TODAY = date(2026, 11, 22)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
    monkeypatch.setenv("GEMINI_API_KEY", "k")


def test_models_that_run_batches_are_listed_with_what_is_known_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    with running(Emulator()) as server:
        assert main(["models", "--endpoint", server.url]) == 0
    said = capsys.readouterr().out
    assert "gemini-3.8-flash          generate  1,048,576 tokens in, 65,536 tokens out  thinkingLevel" in said
    assert "gemini-embedding-2        embed" in said
    assert "tts" not in said
    assert f"models run batches, as of {datetime.now(UTC).date()}" in said


def test_the_whole_list_is_kept_and_laid_over_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "lists" / "models.json"
    with running(Emulator()) as server:
        assert main(["models", "--endpoint", server.url, "--write", str(file)]) == 0
    assert f"Written to {file}" in capsys.readouterr().out
    told = Capabilities(listing=read_listing(file.read_bytes(), str(file)))
    assert not list(told.model_faults("gemini-3.8-flash", kind="generate", today=TODAY))
    tts = list(told.model_faults("gemini-2.5-flash-preview-tts", kind="generate", today=TODAY))
    assert [(fault.rule, fault.warns) for fault in tts] == [("model-no-batch", False)]


def test_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    with running(Emulator()) as server:
        assert main(["models", "--endpoint", server.url, "--json", "--all"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["endpoint"] == server.url
    assert "gemini-2.5-flash-preview-tts" in [model["name"] for model in listed["models"]]


def test_it_asks_for_a_key(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("GEMINI_API_KEY")
    assert main(["models"]) == 1
    assert "no API key is set" in capsys.readouterr().err
