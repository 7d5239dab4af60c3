"""Warnings of many rows become a few lines of the log."""

from __future__ import annotations

import logging

import pytest

from airflow_provider_geminibatch.core.errors import Problem
from airflow_provider_geminibatch.jobs.warned import SHOWN, Warned


def test_a_place_is_said_once_with_how_often(caplog: pytest.LogCaptureFixture) -> None:
    warned = Warned()
    warned.add([Problem("request.x", "rare", "")])
    for at in range(3):
        warned.add([Problem(f"request.contents[{at}].parts[0].fileData.fileUri", "is a web address", "write files/…")])
    warned.say(logging.getLogger("t"))
    assert caplog.messages == [
        "request.contents[].parts[].fileData.fileUri: is a web address (write files/…), 3 times",
        "request.x: rare",
    ]


def test_more_kinds_than_fit_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    warned = Warned()
    warned.add(Problem(f"request.f{at}", "w") for at in range(SHOWN + 2))
    warned.say(logging.getLogger("t"))
    assert len(caplog.messages) == SHOWN + 1
    assert caplog.messages[-1] == "and 2 more kinds of warnings"
