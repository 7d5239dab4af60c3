"""The demo by either route: the connection that it gives its Airflow is one that goes that way."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from airflow_provider_geminibatch.cli import demo
from airflow_provider_geminibatch.hooks.gemini_batch import GeminiBatchHook


def asked(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    demo.add_parser(parser.add_subparsers())
    return parser.parse_args(["demo", *words])


@pytest.mark.parametrize(
    ("words", "route"), [((), "developer"), (("--route", "developer"), "developer"), (("--route", "vertex"), "vertex")]
)
def test_the_connection_of_the_demo_goes_by_the_route_that_was_asked_for(
    words: tuple[str, ...], route: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = demo.options(tmp_path, "http://127.0.0.1:1", 4, asked(*words).route)
    monkeypatch.setenv("AIRFLOW_CONN_GEMINIBATCH_DEFAULT", given["AIRFLOW_CONN_GEMINIBATCH_DEFAULT"])
    identity = GeminiBatchHook().settings().identity
    assert (identity.route, identity.endpoint.startswith("http://127.0.0.1:1")) == (route, True)


def test_another_route_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        asked("--route", "bedrock")
    assert "invalid choice" in capsys.readouterr().err
