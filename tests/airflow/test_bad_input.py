"""Each way to get it wrong ends in one typed sentence: what happened, what it means for money, what to do."""

from __future__ import annotations

import resource
from contextlib import contextmanager
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_geminibatch import (
    GeminiBatchLoadOperator,
    GeminiBatchPrepareOperator,
    GeminiBatchSubmitOperator,
    Landing,
    RequestTemplate,
)
from airflow_provider_geminibatch.core import errors
from tests.airflow.conftest import KEY
from tests.airflow.faces import connection, context

pytestmark = pytest.mark.airflow

QUESTION = RequestTemplate("What about $text?")
ROWS = [{"id": "1", "text": "rain"}]


def prepare(source=ROWS, **more):
    arguments = {"model": "gemini-3.8-flash", "template": QUESTION, **more}
    operator = GeminiBatchPrepareOperator(task_id="prepare", source=source, **arguments)
    return operator.execute(context("prepare"))


def submit(prepared, **more):
    return GeminiBatchSubmitOperator(task_id="submit", prepared=prepared, **more).execute(context("submit"))


@contextmanager
def refused(error, *sentences, for_good=True):
    """The task fails with a sentence of ours, and with nothing of anybody else's."""
    with pytest.raises(AirflowException) as caught:
        yield
    said = str(caught.value)
    assert isinstance(caught.value, AirflowFailException) is for_good
    assert isinstance(caught.value.__cause__, error)
    assert said == str(caught.value.__cause__)
    for sentence in sentences:
        assert sentence in said
    assert "Traceback" not in said
    assert KEY not in said


def nothing_is_sealed(workspace):
    left = [path.name for path in Path(workspace).rglob("*") if path.is_file()]
    return set(left) <= {"workspace.json"}


def test_an_empty_source(service, workspace):
    with refused(errors.EmptySource, "the rows given gave no rows", "Nothing was sent or paid", "on_empty='skip'"):
        prepare([])
    assert nothing_is_sealed(workspace)


def test_a_file_with_a_header_only(service, workspace, tmp_path):
    (tmp_path / "rows.csv").write_text("id,text\n")
    with refused(errors.EmptySource, "rows.csv gave no rows"):
        prepare(str(tmp_path / "rows.csv"))


def test_a_missing_file(service, workspace, tmp_path):
    with refused(errors.SourceUnreadable, "rows.csv could not be read: no such file", "Nothing was sent or paid"):
        prepare(str(tmp_path / "rows.csv"))
    assert nothing_is_sealed(workspace)


def test_rows_with_problems_are_named_all_together(service, workspace, tmp_path):
    (tmp_path / "rows.csv").write_text("id,text\n1,rain\n1,snow\n,hail\n")
    with refused(errors.BadRows, "2 problems", "rows.csv line 3", "rows.csv line 4", "nothing was uploaded"):
        prepare(str(tmp_path / "rows.csv"))
    assert nothing_is_sealed(workspace)


def test_a_connection_without_a_key(service, workspace, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_GEMINIBATCH_DEFAULT", connection(service.url, ""))
    with refused(errors.BadConnection, "'geminibatch_default': it has no API key", "password field"):
        prepare()
    assert service.emulator.log.counts() == {}


def test_a_connection_that_does_not_exist(service, workspace):
    with refused(errors.BadConnection, "Connection 'nowhere': it does not exist"):
        prepare(gemini_conn_id="nowhere")


def test_a_model_that_does_not_exist(service, workspace):
    prepared = prepare(model="gemini-9-imaginary")
    with refused(errors.ModelUnknown, "gemini-9-imaginary", "Nothing was created or paid", "Correct model="):
        submit(prepared)
    assert service.emulator.log.count("files.start") == 0
    assert service.emulator.log.count("batches.create") == 0


def test_a_revoked_key(service, workspace):
    prepared = prepare()
    service.emulator.revoke(KEY)
    with refused(errors.KeyRefused, "the service refused the key", "Put a valid API key of the same project"):
        submit(prepared)
    assert service.emulator.log.count("batches.create") == 0


def test_a_key_that_is_revoked_while_the_job_runs_costs_no_answer(service, workspace, tmp_path):
    submitted = submit(prepare())
    service.emulator.clock.advance(hours=6)
    service.emulator.revoke(KEY)
    landing = Landing("answers", str(tmp_path / "answers"))
    with refused(errors.KeyRefused, "the service refused the key"):
        GeminiBatchLoadOperator(task_id="load", submitted=submitted, to=landing, window="w").execute(context("load"))
    assert not list(tmp_path.glob("answers/*"))


@contextmanager
def at_most(size_bytes):
    """No file may grow beyond this, as on a disk that is full: the write fails in the operating system."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_store_that_runs_full_leaves_nothing_half_written(service, workspace):
    many = [{"id": str(number), "text": "rain " * 50} for number in range(2_000)]
    told = ("shard-0000.jsonl could not be written", "No part of it is visible", "Make room or restore access")
    with at_most(100_000), refused(errors.StoreUnwritable, *told, for_good=False):
        prepare(many)
    # A whole file beside the one that failed may stay in the folder of the unsealed build, where nobody looks.
    left = [path.name for path in Path(workspace).rglob("*") if path.is_file()]
    assert sorted(set(left) - {"keys-0000.jsonl"}) == ["workspace.json"]
    assert prepare(many)["rows"] == 2_000


def test_a_workspace_that_cannot_be_written(service, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with refused(errors.StoreUnwritable, "file/workspace", "not a directory", for_good=False):
        prepare(workspace=str(tmp_path / "file" / "workspace"))


def test_no_workspace_at_all(service, monkeypatch):
    monkeypatch.setenv("AIRFLOW__GEMINIBATCH__WORKSPACE", "")
    with refused(errors.Unusable, "workspace: none is set", "[geminibatch] workspace"):
        prepare()


@pytest.mark.parametrize("workspace", ["geminibatch", "./here", "file://there"])
def test_a_workspace_that_is_another_place_in_every_process(service, workspace):
    with refused(errors.Unusable, "a relative path"):
        prepare(workspace=workspace)


def test_a_workspace_whose_provider_is_not_installed(service):
    with refused(errors.StoreUnreadable, "nfs9://conn@bucket", "provider of nfs9:// is missing", for_good=False):
        prepare(workspace="nfs9://conn@bucket/work")


@pytest.mark.parametrize("given", [None, 7, "{broken", {"uri": "x"}, {"v": 1, "uri": "/somewhere/else.json"}, []])
def test_what_is_no_manifest(service, workspace, given):
    with refused(errors.BadManifest, "is not a manifest", "Pass the output of the stage before"):
        submit(given)


def test_a_template_that_the_service_would_refuse_is_told_by_prepare(service, workspace):
    template = RequestTemplate("$text", generation={"temprature": 0})
    with refused(errors.GeminiBatchError, "temprature", "temperature"):
        prepare(template=template)
    assert nothing_is_sealed(workspace)
