"""A large source through Prepare as Airflow runs it: in parts, by several processes, then submitted and landed."""

from __future__ import annotations

import json

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from fsspec.implementations.local import LocalFileSystem

from airflow_provider_geminibatch.hooks import storage
from airflow_provider_geminibatch.jobs import parts
from airflow_provider_geminibatch.operators.prepare import _cpus
from airflow_provider_geminibatch.storage.doors import open_files_door
from tests.airflow.faces import context
from tests.airflow.test_operators import WINDOW, landing, load, prepare, submit  # noqa: F401 - landing is a fixture

pytestmark = pytest.mark.airflow


@pytest.fixture
def lines(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PART_BYTES", 1_000)
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"id": f"k{number}", "text": f"rain {number}"}) + "\n" for number in range(90)))
    return str(path)


@pytest.mark.parametrize("processes", [2, None])
def test_what_several_processes_prepared_is_submitted_and_lands(service, workspace, landing, lines, processes):  # noqa: F811
    prepared = prepare(lines, processes=processes)
    assert (prepared["rows"], prepared["shards"]) == (90, 3)
    submitted = submit(prepared)
    service.emulator.clock.advance(hours=6)
    assert load(submitted, landing)["counts"] == {"answer": 90}
    again = prepare(lines, context("prepare", try_number=2, max_tries=1, **WINDOW), processes=1)
    assert again == prepared


def test_no_process_at_all_is_refused(service, workspace, lines):
    with pytest.raises(AirflowFailException, match="processes: 0 processes do nothing"):
        prepare(lines, processes=0)


def test_as_many_processes_as_there_are_cpus_for_the_task():
    assert _cpus() >= 1


def test_files_behind_a_connection_are_opened_by_another_process(tmp_path, monkeypatch):
    made = LocalFileSystem(auto_mkdir=True)
    monkeypatch.setattr(storage, "_airflow_file_system", lambda uri: (made, str(tmp_path / "rows.jsonl")))
    (tmp_path / "rows.jsonl").write_text("{}")
    door = storage.files_door(f"file2://conn@{tmp_path}/rows.jsonl")
    assert json.loads(json.dumps(door))["file_system"]["auto_mkdir"] is True
    assert storage.files_door(str(tmp_path / "rows.jsonl")) == {}


def test_plain_files_need_nothing_said(tmp_path):
    (tmp_path / "rows.jsonl").write_text("{}")
    with open_files_door({}).open(str(tmp_path / "rows.jsonl")) as file:
        assert file.read() == b"{}"
