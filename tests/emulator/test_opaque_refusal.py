"""The scenario of a service that refuses a file and does not say why."""

from __future__ import annotations

from typing import Any


def test_a_file_with_the_line_is_refused_and_one_without_is_taken(api: Any, emulator: Any, make_line: Any) -> None:
    emulator.scenario("opaque_refusal", marker="poison")

    reply = api.create(make_line("a", "fine"), make_line("b", "poison"))

    assert reply.status == 400
    assert reply.body["error"]["message"] == "Request contains an invalid argument."
    assert api.create(make_line("a", "fine")).status == 200
    assert len(emulator.jobs) == 1
