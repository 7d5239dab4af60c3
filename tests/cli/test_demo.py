"""What the demo says, and how it treats the folder that it is given."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from airflow_provider_geminibatch.cli import demo, demo_view
from airflow_provider_geminibatch.cli.demo_view import Downstream
from airflow_provider_geminibatch.core.landing import CommitManifest, JobRef, RunRef
from airflow_provider_geminibatch.core.model import Owner, Usage
from airflow_provider_geminibatch.core.reconcile import LineCounts
from airflow_provider_geminibatch.core.verdict import Thresholds, Verdicts

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
WINDOW = "20180131T000000Z"


def commit(**change) -> CommitManifest:
    job = JobRef(name="batches/1", shard="0000", rows=3, state="SUCCEEDED")
    plain = CommitManifest(
        landing="annotations",
        window=WINDOW,
        commit="abc",
        format="parquet",
        parts=(),
        rows=3,
        counts={"answer": 2, "empty": 1, "failed": 0},
        lines=LineCounts(),
        complete=True,
        verdict=Verdicts.ACCEPTED,
        numbers="",
        thresholds=Thresholds(),
        owner=Owner("chain", "load"),
        run=RunRef("chain", "run", "load"),
        origins=(),
        jobs=(job,),
        models=("gemini",),
        tokens=Usage(),
        cost_usd="0.0012",
        submitted_at=NOON,
        finished_at=NOON + timedelta(hours=7, minutes=12),
        committed_at=NOON,
    )
    return msgspec.structs.replace(plain, **change)


BILL = {"jobs": 1, "total_usd": "0.0012", "prices_as_of": "2026-11-01"}


def task(task_id: str, state: str | None) -> dict[str, str | None]:
    return {"task_id": task_id, "state": state}


@pytest.mark.parametrize(
    ("instances", "stage"),
    [
        ([], "begins"),
        ([task("a", None)], "begins"),
        ([task("a", "success"), task("b", "running"), task("c", None)], "works on b"),
        ([task("a", "deferred"), task("b", "running")], "waits in a"),
        ([task("b", "up_for_reschedule"), task("a", "deferred")], "waits in a, b"),
        ([task("a", "deferred"), task("b", "up_for_retry")], "waits in a; tries again: b"),
        ([task("a", "failed"), task("b", "upstream_failed"), task("c", "deferred")], "failed: a, b"),
        ([task("a", "success"), task("b", "skipped")], "landed"),
    ],
)
def test_the_stage_of_a_run_is_told_by_what_waits_and_what_failed(instances, stage):
    assert demo_view.stage(instances) == stage


def test_jobs_are_counted_by_state():
    jobs = [{"state": "BATCH_STATE_RUNNING"}, {"state": "BATCH_STATE_SUCCEEDED"}, {"state": "BATCH_STATE_RUNNING"}]
    assert demo_view.jobs_line(jobs) == "jobs: 2 running, 1 succeeded"
    assert demo_view.jobs_line([]) == "jobs: none"


def test_the_table_has_a_line_for_each_window_and_batch():
    started = Downstream("asset_1", NOON + timedelta(seconds=2), {("bulletins", WINDOW): NOON})
    later = commit(landing="bulletins", submitted_at=NOON + timedelta(hours=8), cost_usd=None)
    lines = demo_view.table([later, commit()], [started]).splitlines()
    assert lines[0].split()[:4] == ["window", "batch", "rows", "outcomes"]
    assert [line.split()[2] for line in lines[1:]] == ["annotations", "bulletins"]
    assert "2 answer, 1 empty" in lines[1]
    assert "failed" not in lines[1]
    assert "7 h 12 min" in lines[1]
    assert "0.001200" in lines[1]
    assert "unknown" in lines[2]
    assert "2.0 s after it landed" in lines[2]
    assert "landed" not in lines[1]


def test_the_table_says_what_was_not_accepted():
    assert "(rejected)" in demo_view.table([commit(verdict=Verdicts.REJECTED)], [])


def test_all_is_well_when_every_window_is_accepted_and_the_bill_agrees():
    assert demo_view.troubles([commit()], 1, BILL) == []


@pytest.mark.parametrize(
    ("commits", "expected", "bill", "says"),
    [
        ([], 1, {**BILL, "jobs": 0, "total_usd": "0"}, "0 of 1 windows have landed"),
        ([commit(verdict=Verdicts.REJECTED)], 1, BILL, "annotations 2018-01-31 00:00 is rejected"),
        ([commit()], 1, {**BILL, "jobs": 2}, "the service has 2 jobs, the landings name 1"),
        ([commit()], 1, {**BILL, "total_usd": "0.0024"}, "the service's bill is 0.0024 USD"),
        ([commit(cost_usd=None)], 1, BILL, "the landings say None USD"),
    ],
)
def test_the_demo_finds_fault_with_itself(commits, expected, bill, says):
    (trouble,) = demo_view.troubles(commits, expected, bill)
    assert says in trouble


def test_more_windows_take_longer():
    assert [demo_view.estimate(windows) for windows in (1, 4, 14)] == [
        "about a minute",
        "about 3 minutes",
        "about 6 minutes",
    ]


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    demo.add_parser(parser.add_subparsers())
    return parser.parse_args(["demo", *words])


def test_four_windows_are_the_default():
    assert parsed().windows == 4


@pytest.mark.parametrize("text", ["0", "15", "-1", "week", ""])
def test_the_number_of_windows_is_one_that_the_data_has(text, capsys):
    with pytest.raises(SystemExit):
        parsed("--windows", text)
    assert "1 to 14" in capsys.readouterr().err


def test_without_the_example_it_says_how_to_pass_it(tmp_path, capsys):
    assert demo.run(parsed("--dags-folder", str(tmp_path), "--dir", str(tmp_path / "out"))) == 2
    assert "--dags-folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_with_foreign_files_is_never_taken(tmp_path):
    (tmp_path / "precious").write_text("keep")
    with pytest.raises(demo.NotStarted, match="Pass another --dir"):
        demo.claim_folder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_a_folder_that_cannot_be_made_is_refused_with_the_reason(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(demo.NotStarted, match="cannot be used"):
        demo.claim_folder(tmp_path / "file" / "demo")


def test_a_folder_of_an_earlier_demo_is_taken_again(tmp_path):
    demo.claim_folder(tmp_path / "demo")
    (tmp_path / "demo" / "airflow").mkdir()
    demo.claim_folder(tmp_path / "demo")
    assert (tmp_path / "demo" / demo.MARKER).exists()
    assert (tmp_path / "demo" / ".gitignore").read_text() == "*\n"


def test_the_chain_is_told_where_the_service_is_and_nothing_secret(tmp_path):
    given = demo.options(tmp_path, "http://127.0.0.1:1", 4)
    assert '"host": "http://127.0.0.1:1"' in given["AIRFLOW_CONN_GEMINIBATCH_DEFAULT"]
    assert given["AIRFLOW__GEMINIBATCH__WORKSPACE"] == f"{tmp_path}/workspace"


def test_manifests_are_read_where_they_lie(tmp_path):
    place = tmp_path / "annotations" / "window=20180131T000000Z"
    place.mkdir(parents=True)
    (place / "_manifest.json").write_bytes(msgspec.json.encode(commit()))
    assert demo.read_commits(tmp_path) == [commit()]
