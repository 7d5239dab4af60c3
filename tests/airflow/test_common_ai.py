"""``@task.llm_batch`` of Airflow's common.ai provider on Gemini: its operator and trigger, our adapter, the emulator."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

# The provider is installed where the oldest Airflow and the Google provider are tried: make test-oldest, make test-versions.
pytest.importorskip("airflow.providers.common.ai.batch", reason="common.ai is not installed here")

from airflow.providers.common.ai.batch import dispatch, state
from airflow.providers.common.ai.batch.base import RawResultItem
from airflow.providers.common.ai.batch.output_schema import build_output_spec
from airflow.providers.common.ai.batch.results import build_result_row
from airflow.providers.common.ai.decorators.llm_batch import llm_batch_task
from airflow.providers.common.ai.exceptions import (
    BatchProviderNotYetSupportedError,
    LLMBatchCancelledError,
    LLMBatchInputError,
    LLMBatchJobError,
    LLMBatchLimitExceededError,
    LLMBatchModelMismatchError,
    LLMBatchOrphanLookupError,
    LLMBatchOutputTypeError,
)
from airflow.providers.common.ai.operators.llm_batch import LLMBatchOperator
from airflow.providers.common.compat.sdk import DAG, TaskDeferred

from airflow_provider_geminibatch.core.errors import ServiceBusy, SubmissionRefused
from airflow_provider_geminibatch.core.model import Outcomes
from airflow_provider_geminibatch.core.outcomes import Outcome
from airflow_provider_geminibatch.emulator import Emulator, Server, running
from airflow_provider_geminibatch.hooks.common_ai import GeminiBatchAdapter
from tests.airflow.conftest import KEY
from tests.airflow.faces import context

pytestmark = [
    pytest.mark.airflow,
    # Airflow 3.1's own paths, which that provider writes results through.
    pytest.mark.filterwarnings("ignore:in a future version of UPath:PendingDeprecationWarning"),
]

ROOT = Path(__file__).parents[2]
MODEL = "gemini:gemini-3.8-flash"
WHERE = {"dag_id": "questions", "task_id": "ask"}


class Verdict(BaseModel):
    name: str
    score: int


@pytest.fixture
def service(service: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The emulator behind a connection of common.ai's own type; what is not listed is absent at once."""
    made = {"conn_type": "pydanticai", "password": KEY, "host": service.url}
    monkeypatch.setenv("AIRFLOW_CONN_LLM", json.dumps(made))
    monkeypatch.setenv("AIRFLOW__GEMINIBATCH__SETTLE_TIME", "0")
    return service


def task(tmp_path: Path, requests: Any = ("one", "two", "three"), **settings: Any) -> LLMBatchOperator:
    made: dict[str, Any] = {
        "task_id": "ask", "requests": list(requests), "result_path": f"file://{tmp_path}/out", "llm_conn_id": "llm",
        "model_id": MODEL, "deferrable": True, "max_tokens": 4000,
    }  # fmt: skip
    return LLMBatchOperator(**made | settings)


def run(operator: LLMBatchOperator, service: Server, *, hours: float = 6) -> dict[str, Any]:
    """A task from its start to its end: deferred, the trigger's event, resumed."""
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context(**WHERE))
    service.emulator.clock.advance(hours=hours)
    return resume(operator, deferred.value)


def resume(operator: LLMBatchOperator, deferred: TaskDeferred) -> dict[str, Any]:
    async def event() -> dict[str, Any]:
        return (await anext(deferred.trigger.run())).payload

    return operator.execute_complete(context(**WHERE), asyncio.run(event()))


def rows(manifest: dict[str, Any]) -> dict[int, dict[str, Any]]:
    text = Path(manifest["result_uri"].removeprefix("file://")).read_text(encoding="utf-8")
    return {row["index"]: row for row in map(json.loads, text.splitlines())}


def creates(service: Server) -> int:
    return service.emulator.log.count("batches.create")


def test_common_ai_finds_the_adapter_by_its_prefix() -> None:
    for conn_type in ("pydanticai", "geminibatch"):
        assert dispatch.get_adapter_class(conn_type, MODEL) is GeminiBatchAdapter
    with pytest.raises(BatchProviderNotYetSupportedError):
        dispatch.get_adapter_class("pydanticai_vertex", MODEL)


def test_a_decorated_task_asks_waits_deferred_and_lands(
    service: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with DAG("questions", schedule=None):

        @llm_batch_task(
            llm_conn_id="llm", model_id=MODEL, result_path=f"file://{tmp_path}/out", deferrable=True, max_tokens=4000
        )
        def ask() -> list[str]:
            return [f"secret question {number}" for number in range(5)]

        operator = ask().operator
    with caplog.at_level(logging.DEBUG), pytest.raises(TaskDeferred) as deferred:
        operator.execute(context(**WHERE))
    serialized = json.dumps(deferred.value.trigger.serialize())
    service.emulator.clock.advance(hours=6)
    with caplog.at_level(logging.DEBUG):
        manifest = resume(operator, deferred.value)
    assert manifest["counts"]["succeeded"] == manifest["request_count"] == 5
    assert manifest["terminal_reason"] == "succeeded"
    landed = rows(manifest)
    assert all(f"secret question {index}" in landed[index]["output"] for index in range(5))
    assert landed[0]["custom_id"] == f"{manifest['custom_id_prefix']}-0"
    assert landed[0]["model"] == "gemini-3.8-flash"
    assert landed[0]["usage"]["output_tokens"] > 0
    assert creates(service) == 1
    for leak in (KEY, "secret question"):
        assert leak not in caplog.text
        assert leak not in serialized


def test_a_connection_of_our_own_type_serves_as_well(service: Server, tmp_path: Path) -> None:
    assert run(task(tmp_path, llm_conn_id="geminibatch_default"), service)["counts"]["succeeded"] == 3


@pytest.mark.parametrize("output_type", [Verdict, list[Verdict], int])
def test_answers_of_a_type_come_back_as_values(service: Server, tmp_path: Path, output_type: type) -> None:
    manifest = run(task(tmp_path, output_type=output_type), service)
    assert manifest["counts"]["succeeded"] == 3
    value = rows(manifest)[1]["output"]
    if output_type is int:
        assert isinstance(value, int)
    else:
        assert set(value if output_type is Verdict else value[0]) == {"name", "score"}


def test_a_type_that_the_service_cannot_take_is_named_before_anything_is_sent(service: Server, tmp_path: Path) -> None:
    with pytest.raises(LLMBatchOutputTypeError, match=r"^output_type.*responseJsonSchema"):
        task(tmp_path, output_type=dict[str, int]).execute(context(**WHERE))
    assert not service.emulator.log.counts()


def test_what_a_type_cannot_say_can_be_asked_for_as_a_schema(service: Server, tmp_path: Path) -> None:
    schema = {"type": "object", "additionalProperties": {"type": "integer"}}
    params = {"responseMimeType": "application/json", "response_json_schema": schema}
    manifest = run(task(tmp_path, request_params=params), service)
    assert isinstance(json.loads(rows(manifest)[0]["output"]), dict)


def test_bad_requests_are_all_named_before_anything_is_sent(service: Server, tmp_path: Path) -> None:
    bad = ["fine", {"prompt": "x", "params": {"temperature": 9}}, {"prompt": "y", "params": {"temprature": 1}}]
    with pytest.raises(LLMBatchInputError) as refused:
        task(tmp_path, bad).execute(context(**WHERE))
    assert "2 problems; nothing was uploaded, sent or paid" in str(refused.value)
    assert "requests[1].generationConfig.temperature" in str(refused.value)
    assert "requests[2].generationConfig.temprature: unknown field (did you mean temperature?)" in str(refused.value)
    assert not service.emulator.log.counts()


def test_only_the_first_of_many_problems_are_shown(service: Server, tmp_path: Path) -> None:
    bad = [{"prompt": "x", "params": {"temperature": 9}}] * 50
    with pytest.raises(LLMBatchInputError, match="and 30 more"):
        task(tmp_path, bad).execute(context(**WHERE))


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"request_params": {"temperature": 9}}, LLMBatchInputError, "every request.generationConfig.temperature"),
        ({"model_id": "gemini:gemini-2.0-flash"}, LLMBatchInputError, "shut down"),
        ({"requests": ["a", {"prompt": "b", "model": "gemini:gemini-3-flash"}]}, LLMBatchModelMismatchError, "one model"),
        ({"requests": [{"prompt": "b", "model": "openai:gpt-5"}]}, LLMBatchModelMismatchError, "openai:gpt-5"),
        ({"requests": ["a"] * 100_001}, LLMBatchLimitExceededError, "100000"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused_before_anything_is_sent(
    service: Server, tmp_path: Path, settings: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        task(tmp_path, **settings).execute(context(**WHERE))
    assert not service.emulator.log.counts()


def test_a_batch_that_is_too_large_for_a_file_is_refused(
    service: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GeminiBatchAdapter, "max_payload_bytes", 200)
    with pytest.raises(LLMBatchLimitExceededError, match=r"at request 2 of 3.*expand"):
        task(tmp_path).execute(context(**WHERE))


def test_requests_may_agree_on_another_model(service: Server, tmp_path: Path) -> None:
    asked = [{"prompt": "a", "model": "gemini:gemini-3.6-flash"}]
    run(task(tmp_path, asked), service)
    assert service.emulator.jobs[0].model.endswith("gemini-3.6-flash")


@pytest.mark.parametrize("password", ["", "  ", "sécret-key", "two words"])
def test_a_key_that_cannot_be_one_is_refused_unseen(
    service: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LLM", json.dumps({"conn_type": "pydanticai", "password": password}))
    with pytest.raises(LLMBatchInputError, match="password field") as refused:
        task(tmp_path).execute(context(**WHERE))
    assert not password.strip() or password not in str(refused.value)


def test_an_endpoint_without_a_scheme_is_a_secure_one() -> None:
    adapter = GeminiBatchAdapter(api_key="key", base_url="gateway.example/")
    assert adapter._client.identity.endpoint == "https://gateway.example"
    adapter.close()


def test_only_answers_succeed_and_everything_else_says_what_it_is(service: Server, tmp_path: Path) -> None:
    for place, name in enumerate(("empty", "blocked", "prompt_blocked", "truncated", "thoughts_only", "missing")):
        service.emulator.scenario(name, rows=(place,))
    service.emulator.scenario("failed_rows", rows=(6,), codes=(13,))
    manifest = run(task(tmp_path, [f"question {number}" for number in range(8)]), service)
    assert manifest["counts"] == {
        "succeeded": 1, "errored": 6, "invalid_output": 0, "expired": 0, "cancelled": 0, "missing": 1,
    }  # fmt: skip
    landed = rows(manifest)
    kinds = {index: row["error"]["type"] for index, row in landed.items() if row["error"]}
    assert kinds == {
        0: "empty", 1: "blocked", 2: "blocked", 3: "truncated", 4: "truncated", 6: "provider_error",
    }  # fmt: skip
    assert landed[3]["error"]["partial_text"]
    assert (landed[6]["error"]["provider_code"], landed[6]["error"]["transient"]) == ("13", True)


def test_an_answer_that_is_not_of_the_type_is_invalid_and_kept(service: Server, tmp_path: Path) -> None:
    service.emulator.scenario("broken_json", rows=(1,))
    manifest = run(task(tmp_path, output_type=Verdict), service)
    assert manifest["counts"]["invalid_output"] == 1
    assert rows(manifest)[1]["raw_output"]


def test_lines_of_no_request_and_repeated_ones_are_counted_apart(service: Server, tmp_path: Path) -> None:
    service.emulator.scenario("duplicate", rows=(1,))
    service.emulator.scenario("unknown_key", rows=(2,))
    manifest = run(task(tmp_path), service)
    assert (manifest["duplicate_result_count"], manifest["out_of_range_result_count"]) == (1, 1)
    assert (manifest["counts"]["succeeded"], manifest["counts"]["missing"]) == (2, 1)


def test_a_retry_re_attaches(service: Server, tmp_path: Path) -> None:
    with pytest.raises(TaskDeferred):
        task(tmp_path).execute(context(**WHERE))
    assert run(task(tmp_path), service)["counts"]["succeeded"] == 3
    assert task(tmp_path).execute(context(**WHERE))["counts"]["succeeded"] == 3
    assert creates(service) == 1


def test_a_crash_between_create_and_record_is_found_by_the_retry(
    service: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*given: object, **more: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch, pytest.raises(MemoryError):  # noqa: PT012 - the patch is part of it
        patch.setattr(state, "write_submitted", crash)
        task(tmp_path).execute(context(**WHERE))
    assert run(task(tmp_path), service)["counts"]["succeeded"] == 3
    assert creates(service) == 1


def test_an_answer_that_their_parser_cannot_bear_costs_its_row_and_not_the_batch() -> None:
    deep = "[" * 3000 + "]" * 3000
    answer = RawResultItem(
        custom_id="k-0", index=0, provider_status="success", model="m", usage=None, finish_reason="STOP", error=None,
        raw=Outcome(kind=Outcomes.ANSWER, text=deep),
    )  # fmt: skip
    row = build_result_row(answer, GeminiBatchAdapter(client=object()), build_output_spec(list[Any]))  # type: ignore[arg-type]
    assert (row["status"], row["raw_output"]) == ("invalid_output", deep)


@pytest.mark.parametrize("scenario", ["create_reply_lost", "create_500_but_created"])
def test_a_lost_reply_is_never_submitted_twice(service: Server, tmp_path: Path, scenario: str) -> None:
    service.emulator.scenario(scenario)
    assert run(task(tmp_path), service)["counts"]["succeeded"] == 3
    assert creates(service) == 1


def test_a_create_that_never_arrived_is_sent_by_the_retry(service: Server, tmp_path: Path) -> None:
    service.emulator.scenario("create_not_accepted_connection_dropped")
    with pytest.raises(ServiceBusy):
        task(tmp_path).execute(context(**WHERE))
    assert run(task(tmp_path), service)["counts"]["succeeded"] == 3
    assert len(service.emulator.jobs) == 1


def test_a_refused_create_is_sent_by_the_retry(service: Server, tmp_path: Path) -> None:
    service.emulator.scenario("burst_429")
    with pytest.raises(SubmissionRefused):
        task(tmp_path).execute(context(**WHERE))
    assert run(task(tmp_path), service)["counts"]["succeeded"] == 3
    assert len(service.emulator.jobs) == 1


def test_what_cannot_be_looked_up_is_not_sent(service: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service.emulator.scenario("create_reply_lost")
    service.emulator.scenario("burst_503", endpoint="batches.list", after=2, times=5)
    with pytest.raises(ServiceBusy):
        task(tmp_path).execute(context(**WHERE))
    with pytest.raises(LLMBatchOrphanLookupError):
        task(tmp_path).execute(context(**WHERE))
    assert creates(service) == 1


def test_a_job_that_is_not_shown_is_unreachable_and_not_asked_again(service: Server, tmp_path: Path) -> None:
    with pytest.raises(TaskDeferred):
        task(tmp_path).execute(context(**WHERE))
    service.emulator.scenario(
        "refused_calls", endpoint="batches.get", code=404, status="NOT_FOUND", message="Not found."
    )
    with pytest.raises(LLMBatchJobError, match="nothing was resubmitted") as told:
        task(tmp_path).execute(context(**WHERE))
    # common.ai takes a status_code of 404 for leave to submit again.
    assert not hasattr(told.value, "status_code")
    assert creates(service) == 1


def test_changed_requests_cancel_the_job_of_the_old_ones(service: Server, tmp_path: Path) -> None:
    with pytest.raises(TaskDeferred):
        task(tmp_path).execute(context(**WHERE))
    assert run(task(tmp_path, ["other"]), service)["counts"]["succeeded"] == 1
    first, second = service.emulator.jobs
    assert service.emulator.state(first.name).endswith("CANCELLED")
    assert first.display_name != second.display_name


def test_an_expired_job_lands_as_expired(service: Server, tmp_path: Path) -> None:
    service.emulator.scenario("never_finishes")
    manifest = run(task(tmp_path, timeout=3600 * 60), service, hours=49)
    assert (manifest["terminal_reason"], manifest["counts"]["expired"]) == ("expired", 3)


def test_a_cancelled_job_fails_the_task_and_the_next_try_asks_anew(service: Server, tmp_path: Path) -> None:
    with pytest.raises(TaskDeferred) as deferred:
        task(tmp_path).execute(context(**WHERE))
    asyncio.run(deferred.value.trigger.on_kill())
    assert service.emulator.state(service.emulator.jobs[0].name).endswith("CANCELLED")
    with pytest.raises(LLMBatchCancelledError, match="3 of 3"):
        resume(task(tmp_path), deferred.value)
    assert run(task(tmp_path), service)["counts"]["succeeded"] == 3
    assert creates(service) == 2


def test_a_failed_job_fails_the_task_in_the_services_words(service: Server, tmp_path: Path) -> None:
    service.emulator.scenario("job_failed")
    with pytest.raises(LLMBatchJobError, match="Internal error encountered"):
        run(task(tmp_path), service)


def test_results_that_come_late_are_landed_by_the_retry(
    service: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_provider_geminibatch.jobs.common_ai.OUTPUT_LOOKS", ())
    service.emulator.scenario("output_later_than_succeeded", minutes=120)
    with pytest.raises(LLMBatchJobError, match="the answers stay at the service"):
        run(task(tmp_path), service)
    service.emulator.clock.advance(hours=2)
    assert task(tmp_path).execute(context(**WHERE))["counts"]["succeeded"] == 3
    assert creates(service) == 1


@pytest.mark.versions
def test_the_example_of_the_docs_runs(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "common-ai.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    place = f"file://{tmp_path}/reviews"
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "reviews.py").write_text(example.replace("s3://aws_default@bucket/reviews", place))
    emulator = Emulator(seed=7, start=datetime.now(UTC), speed=3600, turnaround=(0, 0))
    with running(emulator) as server:
        environment = {
            "AIRFLOW_HOME": str(tmp_path / "airflow"),
            "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags"),
            "AIRFLOW_CONN_GEMINI_LLM": json.dumps({"conn_type": "pydanticai", "password": KEY, "host": server.url}),
            "PYTHONPATH": str(ROOT),
        }
        python("-m", "airflow", "db", "migrate", **environment)
        runner = ROOT / "tests" / "examples" / "run_dags.py"
        told = python(str(runner), str(tmp_path / "dags"), "reviews=2018-01-31T00:00:00+00:00", **environment)
    [run] = [json.loads(line) for line in told if line.startswith('{"dag": ')]
    assert run["tasks"] == {"judge": "success"}
    assert emulator.log.count("batches.create") == 1
    [landed] = (tmp_path / "reviews" / "2018-01-31").glob("*.jsonl")
    outputs = [json.loads(line)["output"] for line in landed.read_text().splitlines()]
    assert [set(output) for output in outputs] == [{"sentiment", "score"}] * 2


def python(*arguments: str, **environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, *arguments], env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
