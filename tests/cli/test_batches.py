"""`geminibatch status` and `geminibatch forget`."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from airflow_provider_geminibatch.cli.main import main
from airflow_provider_geminibatch.core.ledger import Opening
from airflow_provider_geminibatch.core.manifest import Manifest
from airflow_provider_geminibatch.core.names import segment
from airflow_provider_geminibatch.core.room import Room
from airflow_provider_geminibatch.core.template import RequestTemplate
from airflow_provider_geminibatch.jobs.prepare import Declaration, Prepared, prepare
from airflow_provider_geminibatch.jobs.room import room_path
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


def history(batch: Batch, *hours: float, state: str = "SUCCEEDED", rows: int = 1) -> None:
    """Ended jobs of the same service and model on record, as commits leave them."""
    service = segment(str(batch.service.identity))
    for number, took in enumerate(hours):
        ended = datetime.now(UTC) - timedelta(days=1)
        name = f"{ended:%Y%m%dT%H%M%SZ}_{took * 3600:.0f}_{state}_{rows}_a{'b' * number}"
        batch.store.create(f"history/{service}/{DECLARED.model}/{ended:%Y-%m}/{name}", b"")


def sent(batch: Batch, ago: timedelta) -> str:
    """A batch that was submitted so long ago."""
    batch.clock.advance_to(datetime.now(UTC) - ago)
    manifest = batch.prepare().manifest
    batch.submit(manifest)
    return manifest.uri


def test_status_says_what_to_expect_of_an_open_job(batch: Batch, capsys: pytest.CaptureFixture[str]) -> None:
    uri = sent(batch, timedelta(hours=4))
    history(batch, *range(1, 31))

    assert main(["status", uri]) == 0

    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith(
        "  batches/000000: half of the 26 similar jobs that took longer than this so far were done by "
    )
    assert "nine in ten by " in said
    assert "96% likely to be done by " in said
    assert said.endswith("when the service gives it up")


def test_status_says_the_chance_to_make_a_deadline(batch: Batch, capsys: pytest.CaptureFixture[str]) -> None:
    uri = sent(batch, timedelta(hours=4))
    history(batch, *range(1, 31))
    in_ten_hours = datetime.now(UTC) + timedelta(hours=10, minutes=1)

    assert main(["status", uri, "--deadline", in_ten_hours.isoformat()]) == 0

    assert f"37% likely to be done by {in_ten_hours:%d %b %H:%M} UTC" in capsys.readouterr().out


def test_status_names_a_late_job_and_what_the_service_had_room_for(
    batch: Batch, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = sent(batch, timedelta(hours=28, minutes=50))
    history(batch, *range(1, 29), 28.5)
    room = Room(ceiling=7, refused_at=datetime.now(UTC))
    batch.store.write(room_path(str(batch.service.identity), DECLARED.model), msgspec.json.encode(room))

    assert main(["status", uri]) == 0

    said = capsys.readouterr().out
    assert "it has taken longer than 29 of 29 similar jobs; late: nineteen in twenty were done by" in said
    assert "room for gemini-3.8-flash: at most about 7 jobs at once (refused 0 s ago), 0 of ours open" in said


def test_status_is_honest_when_nothing_is_known(batch: Batch, capsys: pytest.CaptureFixture[str]) -> None:
    uri = sent(batch, timedelta(hours=4))

    assert main(["status", uri]) == 0

    said = capsys.readouterr().out
    assert "no similar job is on record yet, so nothing is known about how long it takes" in said
    assert "likely" not in said


def test_a_deadline_that_is_no_time_is_refused(batch: Batch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["status", "x", "--deadline", "tonight"])
    assert "'tonight' is no time; give ISO 8601" in capsys.readouterr().err


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


def test_status_says_why_a_batch_is_where_it_is(batch: Batch, capsys: pytest.CaptureFixture[str]) -> None:
    why = "vertex us-central1: first in your order; chosen"
    prepared = prepare(
        DECLARED, lambda: [{"id": "a", "text": "x"}], store=batch.store, workspace_id="w", batch=BATCH,
        service=batch.service.identity, me="me", now=batch.clock, log=LOG, chosen=why,
    )  # fmt: skip
    assert main(["status", prepared.manifest.uri]) == 0
    assert f"\n  {why}\n" in capsys.readouterr().out
