"""`geminibatch janitor` at the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from airflow_provider_geminibatch.cli.main import main
from airflow_provider_geminibatch.emulator import Emulator, running
from airflow_provider_geminibatch.storage.facts import workspace_id
from airflow_provider_geminibatch.storage.stores import LocalStore


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    workspace_id(LocalStore(str(tmp_path)))
    return str(tmp_path)


def test_a_note_without_a_batch_is_reported(
    workspace: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GOOGLE_API_KEY", "k")
    LocalStore(workspace).create("open/x.json", b'{"uri":"file:///gone/batches/d/r/t/map=-1/g0001/builds/b.json"}')
    with running(Emulator()) as server:
        assert main(["janitor", workspace, "--endpoint", server.url]) == 0
        said = capsys.readouterr().out
        assert "note open/x.json" in said
        assert "1 findings (0 jobs of this workspace, 0 of others, 0 batches)" in said
        assert main(["janitor", workspace, "--endpoint", server.url, "--json", "--act"]) == 0
        report = json.loads(capsys.readouterr().out)
    assert (report["acted"], report["findings"][0]["kind"], report["findings"][0]["done"]) == (True, "note", [])


def test_it_asks_for_a_key_and_a_workspace(
    workspace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["janitor", workspace]) == 1
    assert "GEMINI_API_KEY" in capsys.readouterr().err
    monkeypatch.setenv("GEMINI_API_KEY", "k")
    assert main(["janitor", str(tmp_path / "elsewhere")]) == 1
    assert "not a workspace" in capsys.readouterr().err


def test_it_looks_at_every_location_of_a_connection_and_tells_what_lies_in_the_workspace_once(
    workspace: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    LocalStore(workspace).create("open/x.json", b'{"uri":"file:///gone/batches/d/r/t/map=-1/g0001/builds/b.json"}')
    with running(Emulator()) as server:
        extra = {"project": "p", "locations": ["europe-west4", "us-central1"], "staging": "gs://bucket/folder"}
        made = {"conn_type": "geminibatch", "host": server.url, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_VERTEX", json.dumps(made))
        assert main(["janitor", workspace, "--conn-id", "vertex"]) == 0
        assert "1 findings (0 jobs of this workspace, 0 of others, 0 batches)" in capsys.readouterr().out
        assert server.emulator.log.count("vertex.list") == 2
        assert main(["janitor", workspace, "--conn-id", "vertex@europe-west4"]) == 0
        assert server.emulator.log.count("vertex.list") == 3
