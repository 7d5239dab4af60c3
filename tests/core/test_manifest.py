"""Manifests: every form a stage may be handed."""

from __future__ import annotations

import json

import pytest

from airflow_provider_geminibatch.core.errors import BadManifest
from airflow_provider_geminibatch.core.manifest import Manifest, parse_manifests

URI = "s3://conn@bucket/ws/batches/d/r/t/map=-1/g0001/builds/abc.json"
ONE = Manifest(URI, 10, 1)
OTHER = Manifest(URI.replace("abc", "def"), 5, 1)


@pytest.mark.parametrize(
    "given",
    [
        ONE.as_dict(),
        json.dumps(ONE.as_dict()),
        [ONE.as_dict()],
        (ONE.as_dict(), None),
        json.dumps([ONE.as_dict()]),
        [[ONE.as_dict()]],
    ],
)
def test_every_form_of_a_manifest_is_taken(given: object) -> None:
    assert parse_manifests(given) == (ONE,)


def test_a_bare_uri_is_a_manifest_without_counts() -> None:
    assert parse_manifests(URI) == (Manifest(URI),)
    assert parse_manifests(f" {URI}\n") == (Manifest(URI),)


def test_mapped_upstreams_keep_their_order_and_repeats_count_once() -> None:
    assert parse_manifests(iter([OTHER.as_dict(), ONE.as_dict(), OTHER.as_dict(more=1)])) == (OTHER, ONE)


def test_a_seal_that_is_named_with_its_counts_and_without_counts_once() -> None:
    assert parse_manifests([URI, ONE.as_dict(), OTHER.as_dict()]) == (ONE, OTHER)
    assert parse_manifests([ONE.as_dict(), URI, {"v": 1, "uri": URI}]) == (ONE,)


def test_a_manifest_knows_its_workspace_and_its_seal() -> None:
    assert ONE.workspace == "s3://conn@bucket/ws"
    assert ONE.path == "batches/d/r/t/map=-1/g0001/builds/abc.json"
    assert Manifest(URI).as_dict(jobs=2) == {"v": 1, "uri": URI, "jobs": 2}


@pytest.mark.parametrize("workspace", ["s3://bucket/batches", "/data/batches/ws", "gs://batches/batches/batches"])
def test_a_workspace_may_lie_under_batches(workspace: str) -> None:
    manifest = Manifest(f"{workspace}/batches/batches/r/t/map=-1/g0001/builds/abc.json")

    assert manifest.workspace == workspace
    assert manifest.path == "batches/batches/r/t/map=-1/g0001/builds/abc.json"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (None, "a NoneType cannot be one"),
        (7, "a int cannot be one"),
        (b"{}", "a bytes cannot be one"),
        ("{broken", "not valid JSON"),
        ("s3://bucket/elsewhere.json", "not that of a seal"),
        ("s3://bucket/batches/../../builds/x.json", "not that of a seal"),
        ({"v": 2, "uri": URI}, "version 2 where this release reads 1"),
        ({"uri": URI}, "version None"),
        ([], "it holds none"),
        ([None], "it holds none"),
    ],
)
def test_what_is_not_a_manifest_is_named_with_what_to_pass(given: object, why: str) -> None:
    with pytest.raises(BadManifest, match=why) as caught:
        parse_manifests(given)
    assert "Pass the output of the stage before" in str(caught.value)
