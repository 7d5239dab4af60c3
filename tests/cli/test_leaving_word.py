"""`geminibatch command`: a person's word lies beside the batch, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_provider_geminibatch.cli.main import main
from airflow_provider_geminibatch.core.ledger import Command
from airflow_provider_geminibatch.storage import facts
from tests.cli.test_batches import Batch


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    return Batch(tmp_path / "ws")


def test_the_word_lies_beside_the_batch(batch: Batch, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = batch.prepare().manifest

    assert main(["command", manifest.uri, "commit-now", "--reason", "the report is due"]) == 0

    path = manifest.path.partition("/builds/")[0] + "/command.json"
    left = facts.get(batch.store, path, Command)
    assert left is not None
    assert (left.command, left.reason) == ("commit_now", "the report is due")
    assert "Open jobs are cancelled, and what is there is judged" in capsys.readouterr().out


def test_the_first_word_stands(batch: Batch, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = batch.prepare().manifest
    assert main(["command", manifest.uri, "cancel", "--reason", "wrong prompt"]) == 0

    assert main(["command", manifest.uri, "cancel", "--reason", "really"]) == 0
    assert main(["command", manifest.uri, "commit-now", "--reason", "no, wait"]) == 1

    assert "commanded cancel at" in capsys.readouterr().err


def test_a_place_without_a_batch_takes_no_word(batch: Batch, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = batch.prepare().manifest
    nowhere = manifest.uri.replace("/g0001/", "/g0007/")

    assert main(["command", nowhere, "cancel", "--reason", "x"]) == 1

    assert "there is no batch at that place" in capsys.readouterr().err
