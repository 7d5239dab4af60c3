from __future__ import annotations

import asyncio
import contextlib
import json
import re

import pytest

from airflow_provider_geminibatch.core.errors import BadConnection, KeyRefused
from airflow_provider_geminibatch.core.model import ServiceIdentity
from airflow_provider_geminibatch.hooks.gemini_batch import GeminiBatchHook
from airflow_provider_geminibatch.provider_info import get_provider_info
from tests.airflow.conftest import KEY
from tests.airflow.faces import connection
from tests.routes import LOCATION, PROJECT, VERTEX

DEFAULT = "AIRFLOW_CONN_GEMINIBATCH_DEFAULT"


def given(monkeypatch, **fields):
    monkeypatch.setenv(DEFAULT, json.dumps({"conn_type": "geminibatch", "password": "secret-key", **fields}))


def test_an_empty_connection_but_for_the_key_means_google(monkeypatch):
    given(monkeypatch)
    settings = GeminiBatchHook().settings()
    assert settings.base == "https://generativelanguage.googleapis.com/v1beta"
    assert settings.timeout_seconds == 60
    assert GeminiBatchHook().identity() == ServiceIdentity("developer", "https://generativelanguage.googleapis.com")


def test_endpoint_version_and_timeout_come_from_the_connection(monkeypatch):
    given(monkeypatch, host="https://proxy.example/gemini/", extra={"api_version": "v1", "timeout_seconds": "7.5"})
    settings = GeminiBatchHook().settings()
    assert (settings.base, settings.timeout_seconds) == ("https://proxy.example/gemini/v1", 7.5)


@pytest.mark.parametrize(
    ("uri", "endpoint"),
    [
        ("geminibatch://:secret-key@127.0.0.1:8099/http", "http://127.0.0.1:8099"),
        ("geminibatch://:secret-key@proxy.example", "https://proxy.example"),
        ("geminibatch://:secret-key@", "https://generativelanguage.googleapis.com"),
    ],
)
def test_a_connection_may_be_a_uri(monkeypatch, uri, endpoint):
    monkeypatch.setenv(DEFAULT, uri)
    assert GeminiBatchHook().settings().endpoint == endpoint


def test_the_key_does_not_show(monkeypatch):
    given(monkeypatch)
    hook = GeminiBatchHook()
    assert "secret-key" not in repr(hook.settings())
    assert "secret-key" not in str(hook.identity())


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"password": ""}, "it has no API key. Nothing was sent or paid. Put the key"),
        ({"password": "  "}, "it has no API key"),
        ({"password": "secret-key\nsecret-key"}, "its API key holds a character"),
        ({"password": "secret-key…"}, "its API key holds a character"),
        ({"conn_type": "http"}, "it is of type 'http'"),
        ({"extra": {"timeout_seconds": "soon"}}, "its timeout_seconds is 'soon'"),
        ({"extra": {"timeout_seconds": -1}}, "its timeout_seconds is -1"),
    ],
)
def test_a_connection_that_cannot_work_says_why_and_what_to_do(monkeypatch, fields, sentence):
    given(monkeypatch, **fields)
    with pytest.raises(BadConnection, match=sentence) as caught:
        GeminiBatchHook().gateway()
    assert "secret-key" not in str(caught.value)


def test_a_connection_that_does_not_exist_is_named():
    with pytest.raises(BadConnection, match="'nowhere': it does not exist"):
        GeminiBatchHook("nowhere").settings()
    with pytest.raises(BadConnection, match="'nowhere': it does not exist"):
        asyncio.run(GeminiBatchHook.aconnect("nowhere"))


def test_a_gateway_and_a_watcher_reach_the_same_service(service):
    with contextlib.closing(GeminiBatchHook().gateway()) as gateway:
        assert gateway.jobs().jobs == ()
        assert gateway.identity == ServiceIdentity("developer", service.url)

    async def look():
        watcher = await GeminiBatchHook.aconnect("geminibatch_default")
        try:
            return await watcher.jobs()
        finally:
            await watcher.close()

    assert asyncio.run(look()).jobs == ()


def test_the_test_button_lists_once_and_asks_for_one_model(service):
    good, said = GeminiBatchHook().test_connection()
    assert good, said
    assert service.url in said
    assert service.emulator.log.counts() == {"batches.list": 1, "models.get": 1}


def test_the_test_button_works_with_a_model_that_the_service_does_not_know(service, monkeypatch):
    monkeypatch.setenv(DEFAULT, connection(service.url, KEY, test_model="gemini-none"))
    good, said = GeminiBatchHook().test_connection()
    assert good
    assert "does not know gemini-none" in said


def test_the_test_button_says_what_is_wrong(service, monkeypatch):
    service.emulator.revoke(KEY)
    good, said = GeminiBatchHook().test_connection()
    assert not good
    assert "refused the key" in said
    assert KEY not in said
    monkeypatch.setenv(DEFAULT, connection(service.url, ""))
    assert GeminiBatchHook().test_connection()[1].startswith("Connection 'geminibatch_default': it has no API key")


def test_a_revoked_key_is_told_from_a_busy_service(service):
    service.emulator.revoke(KEY)
    with contextlib.closing(GeminiBatchHook().gateway()) as gateway, pytest.raises(KeyRefused):
        gateway.jobs()


def test_the_form_of_airflow_31_has_the_same_fields_as_the_metadata():
    [declared] = get_provider_info()["connection-types"]
    behaviour = GeminiBatchHook.get_ui_field_behaviour()
    assert declared["ui-field-behaviour"] == {name.replace("_", "-"): value for name, value in behaviour.items()}
    assert GeminiBatchHook.conn_type == declared["connection-type"]
    assert set(GeminiBatchHook.get_connection_form_widgets()) <= set(declared["conn-fields"])


VERTEX_EXTRA = {"project": "a-project", "locations": "europe-west4, global", "staging": "gs://bucket/folder"}
SERVICE_ACCOUNT = {"type": "service_account", "private_key": "-----BEGIN secret-key\nline two", "client_email": "a@b"}


def vertex(monkeypatch, **extra):
    given(monkeypatch, password=None, extra={**VERTEX_EXTRA, **extra})


def test_a_project_makes_it_a_connection_of_vertex_ai(monkeypatch):
    vertex(monkeypatch)
    settings = GeminiBatchHook().settings()
    assert (settings.base, settings.storage) == (
        "https://europe-west4-aiplatform.googleapis.com/v1beta1",
        "https://storage.googleapis.com",
    )
    assert GeminiBatchHook().locations() == ("europe-west4", "global")
    assert GeminiBatchHook("geminibatch_default@global").identity() == ServiceIdentity(
        "vertex", "https://aiplatform.googleapis.com", "a-project", "global"
    )


def test_the_version_that_the_form_writes_into_every_connection_is_not_taken_for_vertex_ai(monkeypatch):
    vertex(monkeypatch, api_version="v1beta")
    assert GeminiBatchHook().settings().api_version == "v1beta1"
    vertex(monkeypatch, api_version="v1")
    assert GeminiBatchHook().settings().api_version == "v1"


@pytest.mark.parametrize("keyfile", [SERVICE_ACCOUNT, json.dumps(SERVICE_ACCOUNT)])
def test_nothing_of_a_key_shows(monkeypatch, keyfile):
    masked = []
    monkeypatch.setattr("airflow_provider_geminibatch.hooks.gemini_batch.mask_secret", masked.append)
    vertex(monkeypatch, keyfile_dict=keyfile, impersonation_chain=["one@x", "two@x"])
    settings = GeminiBatchHook().settings()
    assert settings.credentials.impersonation_chain == ("one@x", "two@x")
    assert "secret-key" not in repr(settings)
    assert SERVICE_ACCOUNT["private_key"] in masked
    # As it stands in JSON, whoever writes that.
    assert r"-----BEGIN secret-key\nline two" in masked


@pytest.mark.parametrize(
    ("extra", "sentence"),
    [
        (
            {"project": "", "route": "vertex"},
            'it names no project. Nothing was sent or paid. Write it into its extra: {"project"',
        ),
        ({"project": "My Project"}, "its project is 'My Project', which is no project id"),
        ({"locations": ""}, "it names no location"),
        ({"locations": "Europe!"}, "'Europe!' is no location"),
        ({"staging": "bucket/folder"}, "its staging is 'bucket/folder', which is not gs://bucket/folder"),
        ({"staging": "gs://bucket/fol*der"}, "in which '*' stands for other names"),
        ({"staging": "gs://bucket/a#1"}, "in which '#' stands for other names"),
        ({"staging": "gs://bucket/a\nb"}, "its staging is 'gs://bucket/a\\nb'"),
        ({"key_path": "/k.json", "keyfile_dict": SERVICE_ACCOUNT}, "it has a key_path and a keyfile_dict"),
        ({"keyfile_dict": "secret-key"}, "its keyfile_dict is not the JSON of a key"),
        ({"project": ["p"]}, "its project is not a text"),
        ({"route": "express"}, "its route is 'express'"),
        ({"timeout_seconds": "soon"}, "its timeout_seconds is 'soon'"),
    ],
)
def test_a_connection_of_vertex_ai_that_cannot_work_says_what_to_write(monkeypatch, extra, sentence):
    vertex(monkeypatch, **extra)
    with pytest.raises(BadConnection, match=re.escape(sentence)) as caught:
        GeminiBatchHook().gateway()
    assert "secret-key" not in str(caught.value)


def test_the_route_that_a_connection_names_is_the_one_it_is_of(monkeypatch):
    given(monkeypatch, extra={**VERTEX_EXTRA, "route": "developer"})
    assert GeminiBatchHook().identity().route == "developer"
    assert GeminiBatchHook().locations() == ()


def test_a_key_and_a_project_together_mean_nothing(monkeypatch):
    given(monkeypatch, extra=VERTEX_EXTRA)
    with pytest.raises(BadConnection, match="it has an API key and a project"):
        GeminiBatchHook().settings()


def test_the_developer_api_has_no_locations(monkeypatch):
    given(monkeypatch)
    assert GeminiBatchHook().locations() == ()
    with pytest.raises(BadConnection, match="which has no locations"):
        GeminiBatchHook("geminibatch_default@global").settings()
    with pytest.raises(BadConnection, match="which has no Cloud Storage"):
        GeminiBatchHook().storage_access()


def test_a_key_file_that_is_not_there_is_named_and_nothing_is_sent(monkeypatch):
    vertex(monkeypatch, key_path="/nowhere/key.json")
    good, said = GeminiBatchHook().test_connection()
    assert not good
    assert "the key file /nowhere/key.json cannot be read" in said


def test_a_gateway_and_a_watcher_of_vertex_ai_reach_the_same_service(service, monkeypatch):
    monkeypatch.setenv(DEFAULT, VERTEX.connection(service.url))
    with contextlib.closing(GeminiBatchHook().gateway()) as gateway:
        assert gateway.jobs().jobs == ()
        assert gateway.identity == ServiceIdentity("vertex", service.url, PROJECT, LOCATION)
    credentials, endpoint = GeminiBatchHook().storage_access()
    assert (credentials.valid, endpoint) == (True, service.url)

    async def look():
        watcher = await GeminiBatchHook.aconnect(f"geminibatch_default@{LOCATION}")
        try:
            return await watcher.jobs()
        finally:
            await watcher.close()

    assert asyncio.run(look()).jobs == ()


def test_the_test_button_also_lists_the_staging_folder(service, monkeypatch):
    monkeypatch.setenv(DEFAULT, VERTEX.connection(service.url))
    good, said = GeminiBatchHook().test_connection()
    assert good, said
    assert "gs://staging/batches can be listed" in said
    assert service.emulator.log.counts() == {"vertex.list": 1, "vertex.model": 1, "storage.list": 1}
    monkeypatch.setenv(DEFAULT, VERTEX.connection(service.url, staging=""))
    good, said = GeminiBatchHook().test_connection()
    assert good
    assert 'add "staging": "gs://your-bucket/geminibatch"' in said
