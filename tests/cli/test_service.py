"""How commands find the service."""

from __future__ import annotations

import argparse
from contextlib import closing

import pytest

from airflow_provider_geminibatch.cli.service import KEYS, add_connection_options, open_gateway, settings_of
from airflow_provider_geminibatch.core.errors import BadConnection, Unusable
from airflow_provider_geminibatch.core.model import ServiceIdentity
from airflow_provider_geminibatch.gemini.developer import ENDPOINT, Settings
from airflow_provider_geminibatch.gemini.vertex import VertexSettings


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*KEYS, "AIRFLOW_CONN_G"):
        monkeypatch.delenv(name, raising=False)


def parsed(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_connection_options(parser)
    return parser.parse_args(argv)


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings_of(parsed()) is None
    monkeypatch.setenv("GOOGLE_API_KEY", " k2 ")
    found = settings_of(parsed())
    assert isinstance(found, Settings)
    assert (found.api_key, found.endpoint) == ("k2", ENDPOINT)
    monkeypatch.setenv("GEMINI_API_KEY", "k1")
    found = settings_of(parsed("--endpoint", "http://here"))
    assert isinstance(found, Settings)
    assert (found.api_key, found.endpoint) == ("k1", "http://here")


@pytest.mark.parametrize(
    ("connection", "endpoint"),
    [
        ('{"conn_type": "geminibatch", "password": "k"}', ENDPOINT),
        ('{"conn_type": "geminibatch", "password": "k", "host": "http://h:1/"}', "http://h:1"),
        ('{"conn_type": "geminibatch", "password": "k", "host": "h", "port": 8, "schema": "http"}', "http://h:8"),
        ("geminibatch://:k@h:8/http", "http://h:8"),
        ("geminibatch://:k@http%3A%2F%2Fh%3A8", "http://h:8"),
        ("geminibatch://:k@", ENDPOINT),
    ],
)
def test_a_connection_in_the_environment_is_read_as_airflow_reads_it(
    connection: str, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_G", connection)
    found = settings_of(parsed("--conn-id", "g"))
    assert isinstance(found, Settings)
    assert (found.api_key, found.endpoint, found.api_version) == ("k", endpoint, "v1beta")


@pytest.mark.parametrize("extra", ['"{\\"api_version\\": \\"v1\\"}"', '{"api_version": "v1"}'])
def test_the_extra_says_the_version(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_G", f'{{"conn_type": "geminibatch", "password": "k", "extra": {extra}}}')
    found = settings_of(parsed("--conn-id", "g"))
    assert isinstance(found, Settings)
    assert found.api_version == "v1"


@pytest.mark.parametrize(
    ("connection", "said"),
    [
        ("", "AIRFLOW_CONN_G is not set"),
        ("{no", "no JSON object"),
        ("[]", "is of type"),
        ('{"conn_type": "http", "password": "sec"}', "is of type"),
        ('{"conn_type": "geminibatch"}', "no API key"),
    ],
)
def test_what_is_wrong_with_a_connection_is_said_without_showing_it(
    connection: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_G", connection)
    with pytest.raises(BadConnection, match=said) as error:
        settings_of(parsed("--conn-id", "g"))
    assert "sec" not in str(error.value)


VERTEX = (
    '{"conn_type": "geminibatch", "host": "http://127.0.0.1:8", "extra": {"project": "p", "locations": ["us-east1", "global"], '
    '"staging": "gs://bucket/f"}}'
)


@pytest.mark.parametrize(
    ("connection", "conn_id", "location"),
    [
        (VERTEX, "g", "us-east1"),
        (VERTEX, "g@global", "global"),
        (VERTEX, "g@europe-west4", "europe-west4"),
        (
            "geminibatch://127.0.0.1:8/http?project=p&locations=us-east1%2Cglobal&staging=gs%3A%2F%2Fbucket%2Ff",
            "g",
            "us-east1",
        ),
    ],
)
def test_a_connection_with_a_project_is_one_of_vertex_ai(
    connection: str, conn_id: str, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_G", connection)
    found = settings_of(parsed("--conn-id", conn_id))
    assert isinstance(found, VertexSettings)
    assert (found.project, found.location, found.staging, found.storage) == (
        "p",
        location,
        "gs://bucket/f",
        "http://127.0.0.1:8",
    )
    assert found.identity == ServiceIdentity("vertex", "http://127.0.0.1:8", "p", location)
    with closing(open_gateway(parsed("--conn-id", conn_id))) as gateway:
        assert gateway.identity == found.identity


def test_without_a_key_it_says_which_variable_to_set() -> None:
    with pytest.raises(Unusable, match="GEMINI_API_KEY"):
        open_gateway(parsed())
