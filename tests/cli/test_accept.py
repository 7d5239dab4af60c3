"""`geminibatch accept` at the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_geminibatch.cli.main import main
from airflow_provider_geminibatch.core.verdict import Verdicts
from airflow_provider_geminibatch.storage.landings import commit, read_manifest
from airflow_provider_geminibatch.storage.stores import LocalStore
from tests.storage.test_landings import keys_of, written


def test_a_rejected_window_is_accepted_with_a_name_and_a_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = LocalStore(str(tmp_path))
    commit(store, written(store, "c1", "a", verdict=Verdicts.REJECTED))
    assert main(["accept", str(tmp_path), "w", "--reason", "two rows are enough", "--who", "ada"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{tmp_path}/window=w is accepted by ada: 1 answered.\n")
    manifest = read_manifest(store, "w")
    assert manifest is not None
    assert manifest.acceptance is not None
    assert manifest.acceptance.reason == "two rows are enough"
    assert keys_of(store) == ["a"]


def test_nothing_to_accept_is_one_sentence_and_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["accept", f"file://{tmp_path}", "w", "--reason", "why not"]) == 1
    assert "no rejected commit lies there" in capsys.readouterr().err


def test_a_reason_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["accept", str(tmp_path), "w"])
