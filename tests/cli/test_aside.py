"""`geminibatch aside`: every line that a report counts as kept aside is found in the results, and no other."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from airflow_provider_geminibatch.cli.main import main
from tests.cli.test_collect import W, service  # noqa: F401 - the fixture

SINGULAR = {
    "duplicates": "duplicate", "unknown": "unknown", "keyless": "keyless", "unreadable": "unreadable",
}  # fmt: skip


def listed(capsys: pytest.CaptureFixture[str], uri: str) -> list[dict[str, Any]]:
    capsys.readouterr()
    assert main(["aside", uri, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_what_a_manifest_counts_is_listed_with_its_line(service, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    for at, scenario in enumerate(("duplicate", "duplicate_differing", "unknown_key", "keyless")):
        service.emulator.scenario(scenario, rows=(3 * at,))
    made = service.batch(rows=400)
    assert service.collect(made.manifest.uri, "--task", "load", "--max-unresolved", "0.5") == 0
    found = listed(capsys, made.manifest.uri)
    counted = service.files.manifest(W).lines
    by_why = Counter(one["why"] for one in found)
    assert by_why.pop("conflict") == 2 * counted.conflicts > 0  # none of the lines of such a row has landed
    assert by_why == Counter({why: getattr(counted, name) for name, why in SINGULAR.items()})
    for one in found:
        data = service.store.read(one["path"])
        assert data[one["place"] :].partition(b"\n")[0].decode() == one["line"]
        assert (one["row"] is None) == (one["why"] in ("unknown", "keyless", "unreadable"))
        assert one["job"].startswith("batches/")
    assert {one["row"] for one in found if one["why"] == "duplicate"} == {0}
    assert {one["row"] for one in found if one["why"] == "conflict"} == {3}


def test_it_is_shown_with_its_counts_and_nothing_reaches_the_terminal_raw(
    service,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    service.emulator.scenario("duplicate", rows=(2,))
    made = service.batch()
    service.collect(made.manifest.uri, "--task", "load")
    path = listed(capsys, made.manifest.uri)[0]["path"]
    service.store.write(path, b"\x1b[2J\xff {not JSON\n" + (service.store.read(path) or b""))
    assert main(["aside", made.manifest.uri]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == "1 duplicate, 1 unreadable"
    assert "\x1b" not in said and "\\u001b[2J\\ufffd {not JSON" in said
    assert "byte 0, no key" in said


def test_nothing_is_said_to_be_nothing(service, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    made = service.batch(ended=False)
    assert main(["aside", made.manifest.uri]) == 0
    assert capsys.readouterr().out == "nothing was kept aside\n"
