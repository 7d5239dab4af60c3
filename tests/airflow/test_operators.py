"""Prepare, Submit and Load as Airflow runs them, against the emulator."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    TaskDeferred,
)

from airflow_provider_geminibatch import (
    GeminiBatchLoadOperator,
    GeminiBatchPrepareOperator,
    GeminiBatchSubmitOperator,
    Landing,
    RequestTemplate,
    read_window,
)
from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.operators import submit as submit_module
from tests.airflow.faces import context, interval

pytestmark = pytest.mark.airflow

QUESTION = RequestTemplate("What about $text?", columns=("text",))
WINDOW = interval(datetime(2018, 1, 31, tzinfo=UTC), datetime(2018, 1, 31, 12, tzinfo=UTC))


def rows(*texts):
    return [{"id": f"k{number}", "text": text} for number, text in enumerate(texts)]


def prepare(source, run=None, **more):
    arguments = {"model": "gemini-3.8-flash", "template": QUESTION, **more}
    operator = GeminiBatchPrepareOperator(task_id="prepare", source=source, **arguments)
    return operator.execute(run or context("prepare", **WINDOW))


def submit(prepared, run=None, **more):
    operator = GeminiBatchSubmitOperator(task_id="submit", prepared=prepared, **more)
    return operator.execute(run or context("submit", **WINDOW))


@pytest.fixture
def landing(tmp_path):
    return Landing("answers", str(tmp_path / "landings" / "answers"))


def load(submitted, landing, run=None, **more):
    operator = GeminiBatchLoadOperator(task_id="load", submitted=submitted, to=landing, **more)
    return operator.execute(run or context("load", **WINDOW))


def test_rows_become_a_window_of_answers_and_an_asset_event(service, workspace, landing):
    submitted = submit(prepare(rows("rain", "snow")))
    assert submitted["jobs"] == 1
    service.emulator.clock.advance(hours=6)
    run = context("load", **WINDOW)
    landed = load(submitted, landing, run)
    assert landed["window"] == "20180131T000000Z"
    assert landed["counts"] == {"answer": 2}
    assert landed["verdict"] == "accepted"
    assert run["outlet_events"][landing.asset].extra == landed
    found = {row["key"]: row["text"] for row in read_window(landing, "20180131T000000Z")}
    assert set(found) == {"k0", "k1"}
    assert json.dumps(landed)


def test_a_load_that_died_between_its_commit_and_the_asset_event_sends_the_same_event_when_tried_again(
    service, workspace, landing
):
    submitted = submit(prepare(rows("rain")))
    service.emulator.clock.advance(hours=6)
    died = context("load", **WINDOW)
    first = load(submitted, landing, died)  # what it put into the event was never sent
    downloads = service.emulator.log.count("files.download")

    again = context("load", **WINDOW, try_number=2)
    assert load(submitted, landing, again) == first
    assert again["outlet_events"][landing.asset].extra == first
    assert service.emulator.log.count("files.download") == downloads


def test_what_travels_between_tasks_holds_no_row_and_no_key(service, workspace):
    prepared = prepare([{"id": "key of a patient", "text": "a very secret sentence"}])
    travelled = json.dumps([prepared, submit(prepared)])
    assert "secret" not in travelled
    assert "patient" not in travelled


def test_a_retry_of_prepare_reads_no_row(service, workspace):
    readings = []

    def source():
        readings.append(1)
        return rows("rain")

    first = prepare(source)
    again = prepare(source, context("prepare", try_number=2, **WINDOW))
    assert first == again
    assert readings == [1]


def test_a_clear_with_equal_rows_costs_nothing(service, workspace):
    first = prepare(rows("rain"))
    submit(first)
    again = prepare(rows("rain"), context("prepare", try_number=2, max_tries=1, **WINDOW))
    assert again == first
    submit(again, context("submit", try_number=2, max_tries=1, **WINDOW))
    assert service.emulator.log.count("batches.create") == 1


def test_a_clear_with_one_changed_row_submits_its_shard_only(service, workspace):
    submit(prepare(rows("rain", "snow", "hail"), max_rows_per_shard=1))
    cleared = context("prepare", try_number=2, max_tries=1, **WINDOW)
    again = prepare(rows("rain", "sleet", "hail"), cleared, max_rows_per_shard=1)
    submit(again, context("submit", try_number=2, max_tries=1, **WINDOW))
    assert service.emulator.log.count("batches.create") == 4


def test_two_submits_of_one_build_make_one_job(service, workspace):
    prepared = prepare(rows("rain"))
    assert submit(prepared) == submit(prepared, context("another", run_id="other", **WINDOW))
    assert service.emulator.log.count("batches.create") == 1


@pytest.mark.parametrize("form", [dict, json.dumps, lambda manifest: manifest["uri"]], ids=["dict", "json", "uri"])
def test_a_stage_takes_its_manifest_in_any_form(service, workspace, form):
    submitted = submit(form(prepare(rows("rain"))))
    assert (submitted["v"], submitted["jobs"]) == (1, 1)


def test_mapped_prepares_end_in_one_load(service, workspace, landing):
    runs = [context("prepare", map_index=index, **WINDOW) for index in range(3)]
    prepared = [prepare([{"id": f"m{run['ti'].map_index}", "text": "rain"}], run) for run in runs]
    submitted = submit([*prepared, None])
    assert [each["jobs"] for each in submitted] == [1, 1, 1]
    service.emulator.clock.advance(hours=6)
    assert load(submitted, landing)["rows"] == 3


def test_a_source_function_gets_its_arguments_and_the_context_it_names(service, workspace):
    def source(region, data_interval_start):
        return [{"id": "1", "text": f"{region} {data_interval_start:%Y}"}]

    prepare(source, source_kwargs={"region": "west"})
    [shard] = [path for path in _files(workspace) if path.name == "shard-0000.jsonl"]
    assert "west 2018" in shard.read_text()


def test_airflow_renders_paths_prompts_and_arguments_but_never_calls_a_function(service, workspace, tmp_path):
    (tmp_path / "20180131.csv").write_text("id,text\n1,rain\n")
    template = RequestTemplate("On {{ day }}: $text {'json': '$$5'}", system_instruction="{{ day }}")
    operator = GeminiBatchPrepareOperator(
        task_id="prepare", model="{{ model }}", source=f"{tmp_path}/{{{{ day }}}}.csv", template=template
    )
    run = context("prepare", day="20180131", model="gemini-3.8-flash", task=operator, **WINDOW)
    operator.render_template_fields(run)
    operator.execute(run)
    [shard] = [path for path in _files(workspace) if path.name == "shard-0000.jsonl"]
    line = json.loads(shard.read_text())
    assert line["request"]["contents"][0]["parts"] == [{"text": "On 20180131: rain {'json': '$5'}"}]
    assert line["request"]["systemInstruction"]["parts"] == [{"text": "20180131"}]

    called = []
    operator = GeminiBatchPrepareOperator(
        task_id="rows", model="m", source=lambda **_: called.append(1) or [], template=QUESTION
    )
    operator.render_template_fields(context("rows", task=operator))
    assert called == []


def test_ready_made_requests_need_no_template(service, workspace, tmp_path, landing):
    line = {"key": "one", "request": {"contents": [{"parts": [{"text": "rain?"}]}]}}
    path = tmp_path / "requests.txt"
    path.write_text(json.dumps(line) + "\n")
    by_path = GeminiBatchPrepareOperator(task_id="path", model="gemini-3.8-flash", requests=str(path))
    by_function = GeminiBatchPrepareOperator(task_id="function", model="gemini-3.8-flash", requests=lambda: [line])
    assert by_path.execute(context("path"))["rows"] == by_function.execute(context("function"))["rows"] == 1


@pytest.mark.parametrize(
    "arguments",
    [{}, {"source": "a.csv"}, {"template": QUESTION}, {"source": "a.csv", "template": QUESTION, "requests": "b.jsonl"}],
)
def test_prepare_takes_rows_with_a_template_or_requests(arguments):
    with pytest.raises(Unusable, match="source= and template=, or requests="):
        GeminiBatchPrepareOperator(task_id="prepare", model="m", **arguments)


@pytest.mark.parametrize("arguments", [{"on_empty": "ignore"}, {"on_clear": "again"}])
def test_a_choice_that_does_not_exist_is_refused_while_the_dag_is_parsed(arguments):
    with pytest.raises(Unusable, match="no such choice"):
        GeminiBatchPrepareOperator(task_id="prepare", model="m", source=[], template=QUESTION, **arguments)


def test_an_empty_source_skips_where_that_was_chosen(service, workspace):
    with pytest.raises(AirflowSkipException, match="nothing to ask"):
        prepare([], on_empty="skip")


def test_a_service_without_room_is_waited_for_without_a_worker(service, workspace, monkeypatch):
    monkeypatch.setenv("AIRFLOW__GEMINIBATCH__FIRST_EVENT_AFTER", "600")
    service.emulator.scenario("burst_429", endpoint="batches.create", times=1)
    prepared, run = prepare(rows("rain")), context("submit", **WINDOW)
    operator = GeminiBatchSubmitOperator(task_id="submit", prepared=prepared)
    began = datetime.now(UTC)
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(run)
    path, arguments = deferred.value.trigger.serialize()
    assert path.endswith("DateTimeTrigger")
    assert arguments["moment"] >= began + timedelta(seconds=600)
    assert deferred.value.method_name == "resume"
    submit_later = datetime.now(UTC) + timedelta(hours=1)
    monkeypatch.setattr(submit_module, "utc_now", lambda: submit_later)
    assert operator.resume(run, event=None)["jobs"] == 1
    assert service.emulator.log.count("batches.create", status=200) == 1


def test_a_ledger_that_is_gone_after_a_deferral_is_not_taken_for_an_empty_one(service, workspace, monkeypatch):
    service.emulator.scenario("create_reply_lost", times=1)
    service.emulator.scenario("burst_503", endpoint="batches.list", times=1)
    prepared, run = prepare(rows("rain")), context("submit", **WINDOW)
    operator = GeminiBatchSubmitOperator(task_id="submit", prepared=prepared)
    with pytest.raises(TaskDeferred):
        operator.execute(run)
    for ledger in Path(workspace).glob("batches/*/*/*/*/*/s"):
        shutil.rmtree(ledger)
    with pytest.raises(AirflowException, match="is not on record"):
        operator.resume(run, event=None)
    assert service.emulator.log.count("batches.create") == 1


def test_without_a_triggerer_the_worker_waits(service, workspace, monkeypatch):
    service.emulator.scenario("burst_429", endpoint="batches.create", times=1)
    clock = [datetime.now(UTC)]
    monkeypatch.setattr(submit_module, "utc_now", lambda: clock[0])
    monkeypatch.setattr(submit_module, "pause_until", lambda until: clock.__setitem__(0, until))
    assert submit(prepare(rows("rain")), deferrable=False)["jobs"] == 1


def test_a_lost_reply_is_never_submitted_twice(service, workspace):
    service.emulator.scenario("create_reply_lost", times=1)
    assert submit(prepare(rows("rain")))["jobs"] == 1
    assert service.emulator.log.count("batches.create") == 1


def test_results_that_are_not_there_yet_are_worth_a_retry(service, workspace, landing):
    submitted, run = submit(prepare(rows("rain"))), context("load", **WINDOW)
    with pytest.raises(AirflowException) as caught:
        load(submitted, landing, run)
    assert not isinstance(caught.value, AirflowFailException)
    assert run["outlet_events"].named == {}


def test_answers_outside_the_thresholds_fail_for_good_and_start_nobody(service, workspace, landing):
    service.emulator.scenario("blocked", rows=(0,))
    submitted, run = submit(prepare(rows("rain", "snow", "hail"))), context("load", **WINDOW)
    service.emulator.clock.advance(hours=6)
    with pytest.raises(AirflowFailException, match=r"2 of 3 answered.*1 blocked"):
        load(submitted, landing, run)
    assert run["outlet_events"].named == {}
    assert [row["key"] for row in read_window(landing, "20180131T000000Z", any_verdict=True)] == ["k0", "k1", "k2"]
    assert load(submitted, landing, run, max_unresolved=0.5)["verdict"] == "accepted"


def test_a_workspace_may_lie_in_a_folder_named_batches(service, workspace, tmp_path, landing):
    place = str(tmp_path / "batches" / "ws")
    assert submit(prepare(rows("rain"), workspace=place))["jobs"] == 1
    assert sorted(path.name for path in tmp_path.joinpath("batches").iterdir()) == ["ws"]


def test_loading_again_commits_the_same_and_downloads_nothing(service, workspace, landing):
    submitted = submit(prepare(rows("rain")))
    service.emulator.clock.advance(hours=6)
    first = load(submitted, landing)
    again = load(submitted, landing, context("load", try_number=2, max_tries=1, **WINDOW))
    assert first["commit"] == again["commit"]
    assert service.emulator.log.count("files.download") == 1


def test_a_window_belongs_to_the_task_that_landed_it(service, workspace, landing):
    submitted = submit(prepare(rows("rain")))
    service.emulator.clock.advance(hours=6)
    load(submitted, landing)
    with pytest.raises(AirflowFailException, match=r"belongs to dag\.load; dag\.other may not replace it"):
        load(submitted, landing, context("other", **WINDOW))


def test_load_declares_its_asset_once():
    landing = Landing("answers", "/data/answers")
    one = GeminiBatchLoadOperator(task_id="one", submitted="x", to=landing)
    two = GeminiBatchLoadOperator(task_id="two", submitted="x", to=landing, outlets=[landing.asset])
    assert one.outlets == two.outlets == [landing.asset]


def test_a_run_without_a_window_is_told_before_anything_is_downloaded(service, workspace, landing):
    submitted = submit(prepare(rows("rain")))
    with pytest.raises(AirflowFailException, match="No window"):
        load(submitted, landing, context("load"))
    assert service.emulator.log.count("files.download") == 0


def _files(workspace):
    return [path for path in Path(workspace).rglob("*") if path.is_file()]
