"""What airflow.cfg says about requests reaches Prepare: fields that are allowed, and the service's own list of models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_geminibatch import GeminiBatchPrepareOperator
from airflow_provider_geminibatch.cli.main import main
from tests.airflow.conftest import KEY
from tests.airflow.faces import context

pytestmark = pytest.mark.airflow

SECTION = "AIRFLOW__GEMINIBATCH__"
TURN = [{"role": "user", "parts": [{"text": "hello"}]}]


def prepare(model: str = "gemini-3.8-flash", **request: Any) -> Any:
    requests = [{"key": "a", "request": {"contents": TURN, **request}}]
    return GeminiBatchPrepareOperator(task_id="prepare", requests=requests, model=model).execute(context("prepare"))


def test_a_field_of_the_future_is_a_mistake_until_it_is_allowed(service, workspace, monkeypatch):
    with pytest.raises(AirflowException, match=r"request.generationConfig.newField: unknown field"):
        prepare(generationConfig={"newField": 1})
    monkeypatch.setenv(f"{SECTION}ALLOW_FIELDS", '{"GenerationConfig": ["newField"]}')
    assert prepare(generationConfig={"newField": 1})["rows"] == 1


@pytest.mark.parametrize("setting", ["newField", '["GenerationConfig"]', '{"GenerationConfig": "newField"}'])
def test_a_setting_of_another_form_says_what_to_write(setting, workspace, monkeypatch):
    monkeypatch.setenv(f"{SECTION}ALLOW_FIELDS", setting)
    with pytest.raises(AirflowException, match=r"\[geminibatch\] allow_fields.*Write for example"):
        prepare()


def test_a_message_that_is_none_is_named_with_what_was_meant(service, workspace, monkeypatch):
    monkeypatch.setenv(f"{SECTION}ALLOW_FIELDS", '{"generationConfig": ["newField"]}')
    with pytest.raises(AirflowException, match=r"Did you mean GenerationConfig\?"):
        prepare()


def test_the_services_list_of_models_decides(service, workspace, monkeypatch, tmp_path: Path):
    file = tmp_path / "models.json"
    monkeypatch.setenv("GEMINI_API_KEY", KEY)
    assert main(["models", "--endpoint", service.url, "--write", str(file)]) == 0
    monkeypatch.setenv(f"{SECTION}MODELS", str(file))
    assert prepare()["rows"] == 1
    with pytest.raises(AirflowException, match="runs no generate batches, says the service's list of"):
        prepare("gemini-2.5-flash-preview-tts")


def test_a_list_of_models_that_is_not_there_is_an_error_and_not_ignored(
    service, workspace, monkeypatch, tmp_path: Path
):
    monkeypatch.setenv(f"{SECTION}MODELS", str(tmp_path / "none.json"))
    with pytest.raises(AirflowException, match=r"none\.json"):
        prepare()


def test_what_may_be_wrong_is_in_the_tasks_log(service, workspace, caplog):
    prepare("gemini-99-nano", generationConfig={"logprobs": 3, "responseLogprobs": True})
    assert any("model 'gemini-99-nano': is in no source" in message for message in caplog.messages)
