"""`geminibatch status` and `geminibatch forget`."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from airflow_provider_geminibatch.cli.main import main
from airflow_provider_geminibatch.core.ledger import Opening
from airflow_provider_geminibatch.core.manifest import Manifest
from airflow_provider_geminibatch.core.template import RequestTemplate
from airflow_provider_geminibatch.jobs.prepare import Declaration, Prepared, prepare
from airflow_provider_geminibatch.jobs.submit import submit
from airflow_provider_geminibatch.storage import facts
from airflow_provider_geminibatch.storage.stores import LocalStore
from airflow_provider_geminibatch.testing import InMemoryGateway, ManualClock
from tests.jobs.batches import BATCH

LOG = logging.getLogger("test")
DECLARED = Declaration(model="gemini-3.8-flash", source_name="rows", template=RequestTemplate("Say $text"))


class Batch:
    """A batch in a folder, prepared and submitted as its tasks would."""

    def __init__(self, folder: Path) -> None:
        self.store, self.clock = LocalStore(str(folder)), ManualClock()
        self.service = InMemoryGateway(self.clock)

    def prepare(self, *, max_tries: int = 1, text: str = "x") -> Prepared:
        return prepare(
            DECLARED, lambda: [{"id": "a", "text": text}], store=self.store, workspace_id="w", batch=BATCH,
            service=self.service.identity, me="me", now=self.clock, log=LOG, max_tries=max_tries,
        )  # fmt: skip

    def submit(self, manifest: Manifest) -> None:
        submit(manifest, store=self.store, gateway=self.service, me="me", now=self.clock, log=LOG)


@pytest.fixture
def batch(tmp_path: Path) -> Batch:
    return Batch(tmp_path / "ws")


def test_status_tells_each_shard_and_attempt(batch: Batch, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = batch.prepare().manifest

    assert main(["status", manifest.uri]) == 0
    assert "shard 0000  1 rows  not submitted" in capsys.readouterr().out
    batch.submit(manifest)
    assert main(["status", manifest.uri.partition("/g0001")[0]]) == 0

    assert "attempt 1: batches/000000 running or not yet looked at" in capsys.readouterr().out


def test_a_batch_given_up_is_asked_anew_by_its_next_prepare(batch: Batch, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = batch.prepare().manifest
    batch.submit(manifest)

    assert main(["forget", manifest.uri, "--reason", "the reply was lost for good"]) == 0

    assert "were not cancelled and may still be billed" in capsys.readouterr().out
    again = batch.prepare()
    assert (again.reused, again.generation) == (False, 2)
    assert again.build.shards[0].home != manifest.path.removesuffix(".json")
    assert batch.prepare().generation == 2
    assert batch.prepare(max_tries=3, text="y").generation == 3
    assert batch.prepare(max_tries=5).build.shards == again.build.shards  # lent by generation 2, never by 1
    batch.submit(again.manifest)
    assert len(batch.service.created) == 2
    assert main(["status", manifest.uri]) == 0
    assert "given up" in capsys.readouterr().out


def test_who_gives_up_first_stays_on_record(batch: Batch, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = batch.prepare().manifest
    main(["forget", manifest.uri, "--reason", "first"])

    assert main(["forget", manifest.uri, "--reason", "second"]) == 0

    assert "given up before" in capsys.readouterr().err
    opening = facts.get(batch.store, f"{manifest.path.partition('/builds/')[0]}/batch.json", Opening)
    assert opening is not None


@pytest.mark.parametrize("place", ["nowhere", "/tmp/x/batches/d/r", "/tmp/not-there/batches/d/r/t/map=-1"])
def test_what_is_no_batch_is_named_with_the_form_of_one(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", place]) == 1
    assert "is not a manifest" in capsys.readouterr().err
