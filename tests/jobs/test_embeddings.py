"""Batches of embeddings: the same walk as any other, and vectors in a column of their own."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from pyarrow import parquet

from airflow_provider_geminibatch.core.embed_template import EmbedTemplate
from airflow_provider_geminibatch.core.errors import BadRows, DeclarationChanged, ModelUnknown, Rejected, Unusable
from airflow_provider_geminibatch.core.landing import Place, RunRef
from airflow_provider_geminibatch.core.manifest import Manifest
from airflow_provider_geminibatch.core.model import BatchId, Build, Owner
from airflow_provider_geminibatch.core.template import RequestTemplate
from airflow_provider_geminibatch.core.verdict import Thresholds
from airflow_provider_geminibatch.jobs.collect import Landed, collect
from airflow_provider_geminibatch.jobs.declaration import Declaration
from airflow_provider_geminibatch.jobs.parts import as_data, from_data
from airflow_provider_geminibatch.jobs.prepare import prepare
from airflow_provider_geminibatch.jobs.submit import Submitted, read_build, submit
from airflow_provider_geminibatch.storage.landings import FileLanding, read_manifest, read_rows
from airflow_provider_geminibatch.storage.stores import MemoryStore
from airflow_provider_geminibatch.testing import InMemoryGateway, ManualClock, echo

LOG = logging.getLogger("test")
MODEL = "gemini-embedding-2"
ROWS = [{"id": name, "body": f"on {name}", "place": "shelf"} for name in ("ash", "elm", "oak")]
FOUR = EmbedTemplate("$body", output_dimensionality=4)


class World:
    """A workspace, a service that embeds, and a landing."""

    def __init__(self, **service: Any) -> None:
        self.clock = ManualClock()
        self.store, self.landing = MemoryStore("memory://w"), MemoryStore("memory://landing")
        self.service = InMemoryGateway(self.clock, turnaround=timedelta(hours=3), **service)

    def prepare(self, rows: Any = ROWS, *, model: str = MODEL, task: str = "prepare", **declared: Any) -> Manifest:
        declared = declared or {"template": FOUR}
        return prepare(
            Declaration(model=model, **declared), lambda: rows, store=self.store, workspace_id="w1",
            batch=BatchId("dag", "run", task), service=self.service.identity, me="p", now=self.clock, log=LOG,
        ).manifest  # fmt: skip

    def build(self, manifest: Manifest) -> Build:
        return read_build(self.store, manifest.path)

    def submit(self, manifest: Manifest) -> None:
        done = submit(manifest, store=self.store, gateway=self.service, me="s", now=self.clock, log=LOG)
        assert isinstance(done, Submitted)
        self.clock.advance(timedelta(hours=4))

    def load(self, *manifests: Manifest, as_: str = "jsonl", max_unresolved: float = 0.0) -> Landed:
        return collect(
            manifests, open_store=lambda uri: self.store, gateway=self.service, window="w",
            landing=Place("vectors", "memory://landing", as_), landing_store=FileLanding(self.landing),
            owner=Owner("dag", "load"), run=RunRef("dag", "run", "load"), thresholds=Thresholds(max_unresolved),
            me="l", now=self.clock, log=LOG,
            sleep=lambda seconds: self.clock.advance(timedelta(seconds=seconds)),
        )  # fmt: skip

    def landed(self, *manifests: Manifest, **how: Any) -> list[dict[str, Any]]:
        for manifest in manifests:
            self.submit(manifest)
        self.load(*manifests, **how)
        return list(read_rows(self.landing, "w"))

    def schema(self) -> Any:
        """The Arrow schema of the window's only part."""
        manifest = read_manifest(self.landing, "w")
        assert manifest is not None
        data = self.landing.read(f"{manifest.folder}/{manifest.parts[0].path}")
        return parquet.read_schema(pa.BufferReader(data))


def vector(text: str, length: int) -> list[float]:
    return echo({"content": {"parts": [{"text": text}]}, "outputDimensionality": length})["embedding"]["values"]


@pytest.mark.parametrize("as_", ["jsonl", "parquet"])
def test_every_row_lands_with_its_own_vector(as_: str) -> None:
    world = World()
    template = EmbedTemplate("$body", output_dimensionality=4, columns=("place",))

    rows = world.landed(world.prepare(template=template), as_=as_)

    assert [(row["key"], row["embedding"], row["place"]) for row in rows] == [
        (name, vector(f"on {name}", 4), "shelf") for name in ("ash", "elm", "oak")
    ]
    assert {(row["outcome"], row["text"], row["value"]) for row in rows} == {("answer", None, None)}


def test_the_job_is_made_at_the_endpoint_for_embeddings() -> None:
    world = World()
    world.submit(world.prepare())
    assert [job.model for job in world.service.created] == [MODEL]


def test_vectors_of_a_declared_length_land_in_a_column_of_just_that_length() -> None:
    world = World()
    world.landed(world.prepare(), as_="parquet")
    assert world.schema().field("embedding").type == pa.list_(pa.float32(), 4)


def test_ready_made_requests_that_agree_on_a_length_declare_it() -> None:
    world = World()
    lines = [
        {"key": name, "request": {"content": {"parts": [{"text": name}]}, "output_dimensionality": 3}} for name in "ab"
    ]

    manifest = world.prepare(lines, kind="embed")
    rows = world.landed(manifest, as_="parquet")

    assert world.build(manifest).dimensions == 3
    assert world.schema().field("embedding").type == pa.list_(pa.float32(), 3)
    assert [row["embedding"] for row in rows] == [vector("a", 3), vector("b", 3)]


def test_requests_that_differ_in_length_land_as_lists() -> None:
    world = World()
    lines = [
        {"key": str(length), "request": {"content": {"parts": [{"text": "x"}]}, "outputDimensionality": length}}
        for length in (2, 5)
    ]

    manifest = world.prepare(lines, kind="embed")
    rows = world.landed(manifest, as_="parquet")

    assert world.build(manifest).dimensions is None
    assert world.schema().field("embedding").type == pa.list_(pa.float32())
    assert [len(row["embedding"]) for row in rows] == [2, 5]


def short_for_oak(request: Mapping[str, Any]) -> dict[str, Any]:
    answer = echo(request)
    if "oak" in str(request):
        answer["embedding"]["values"].pop()
    return answer


@pytest.mark.parametrize("as_", ["jsonl", "parquet"])
def test_a_vector_of_another_length_is_no_answer(as_: str) -> None:
    world = World(answer=short_for_oak)

    rows = world.landed(world.prepare(), as_=as_, max_unresolved=0.5)

    assert [(row["outcome"], row["embedding"] is None) for row in rows] == [
        ("answer", False), ("answer", False), ("invalid", True),
    ]  # fmt: skip
    assert rows[2]["error"] == "the vector has 3 dimensions, where 4 were asked for"


def test_a_text_is_no_vector() -> None:
    world = World(answer=lambda request: echo({"contents": [request["content"]]}))
    manifest = world.prepare()
    world.submit(manifest)
    with pytest.raises(Rejected):
        world.load(manifest)
    (first, *_) = read_rows(world.landing, "w", any_verdict=True)
    assert (first["outcome"], first["embedding"]) == ("invalid", None)


def test_an_embedding_without_numbers_is_empty() -> None:
    world = World(answer=lambda request: echo(request) if "ash" in str(request) else {"embedding": {}})
    rows = world.landed(world.prepare(), as_="parquet", max_unresolved=0.9)
    assert [row["outcome"] for row in rows] == ["answer", "empty", "empty"]
    assert [row["embedding"] for row in rows] == [vector("on ash", 4), None, None]


def test_batches_of_both_kinds_land_in_one_window() -> None:
    world = World()
    texts = world.prepare(model="gemini-3.8-flash", task="ask", template=RequestTemplate("$body"))
    vectors = world.prepare()

    rows = world.landed(texts, vectors, as_="parquet")

    assert [row["text"] for row in rows] == ["on ash", "on elm", "on oak", None, None, None]
    assert [row["embedding"] for row in rows] == [None] * 3 + [
        vector(f"on {name}", 4) for name in ("ash", "elm", "oak")
    ]


def test_vectors_of_two_lengths_in_one_window_land_as_lists() -> None:
    world = World()
    longer = world.prepare(task="longer", template=EmbedTemplate("$body", output_dimensionality=6))

    rows = world.landed(world.prepare(), longer, as_="parquet")

    assert sorted(len(row["embedding"]) for row in rows) == [4, 4, 4, 6, 6, 6]
    assert world.schema().field("embedding").type == pa.list_(pa.float32())


def test_a_column_of_the_users_that_is_called_embedding_keeps_beside_ours() -> None:
    world = World()
    rows = [{"id": "a", "body": "x", "embedding": "old"}]
    template = EmbedTemplate("$body", output_dimensionality=2, columns=("embedding",))
    (row,) = world.landed(world.prepare(rows, template=template), as_="parquet")
    assert (row["embedding"], row["row_embedding"]) == (vector("x", 2), "old")


def test_a_batch_of_texts_has_no_column_for_vectors() -> None:
    world = World()
    template = RequestTemplate("$body", columns=("embedding",))
    rows = [{"id": "a", "body": "x", "embedding": "mine"}]
    (row,) = world.landed(world.prepare(rows, model="gemini-3.8-flash", template=template), as_="parquet")
    assert row["embedding"] == "mine"


def test_vectors_that_were_kept_by_columns_land_with_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(answer=short_for_oak)
    manifest = world.prepare()
    world.submit(manifest)

    def parts() -> list[Any]:
        world.landing = MemoryStore("memory://landing")
        world.load(manifest, as_="parquet", max_unresolved=0.5)
        found = read_manifest(world.landing, "w")
        assert found is not None
        return [(part.rows, part.sha256) for part in found.parts]

    kept = parts()
    monkeypatch.setattr("airflow_provider_geminibatch.jobs.collect.disk_for", lambda landing: None)
    world.store.delete(next(path for path in world.store.list("") if "/commits/" in path))
    assert parts() == kept


@pytest.mark.parametrize(
    ("model", "declared", "said"),
    [
        ("gemini-3.8-flash", {"template": FOUR}, "runs no embed batches.*RequestTemplate"),
        (MODEL, {"template": RequestTemplate("$body")}, "runs no generate batches.*EmbedTemplate.*kind='embed'"),
        (MODEL, {"template": FOUR, "kind": "generate"}, "is for kind 'embed'"),
        (MODEL, {"kind": "embedding"}, "Use generate or embed"),
        (MODEL, {"template": EmbedTemplate("$body", task_type="SEARCH")}, r"EmbedTemplate\(task_type=\)"),
        (MODEL, {"template": EmbedTemplate(" ")}, r"EmbedTemplate\(text=\): it is empty"),
    ],
)
def test_what_cannot_be_embedded_is_named_before_anything_is_sealed(
    model: str, declared: dict[str, Any], said: str
) -> None:
    world = World()
    with pytest.raises(Unusable, match=said):
        world.prepare(model=model, **declared)
    assert list(world.store.list("")) == []


def test_a_row_without_words_is_named() -> None:
    with pytest.raises(BadRows, match="text: is empty"):
        World().prepare([{"id": "a", "body": " "}])


def test_a_request_that_generates_is_refused_in_a_batch_of_embeddings() -> None:
    lines = [{"key": "a", "request": {"contents": [{"parts": [{"text": "x"}]}]}}]
    with pytest.raises(BadRows, match="contents"):
        World().prepare(lines, kind="embed")


def test_a_model_that_does_not_embed_is_named_before_it_is_paid() -> None:
    world = World(models=(MODEL,))
    manifest = world.prepare()
    world.service._models = ("gemini-3.8-flash",)
    with pytest.raises(ModelUnknown):
        world.submit(manifest)
    assert world.service.created == []


def test_another_length_is_another_declaration() -> None:
    world = World()
    world.submit(world.prepare())
    with pytest.raises(DeclarationChanged, match="dimensions"):
        world.prepare(template=EmbedTemplate("$body", output_dimensionality=8))


def test_a_declaration_travels_to_other_processes() -> None:
    declared = Declaration(model=MODEL, template=EmbedTemplate("$body", title="$place", output_dimensionality=4))
    assert from_data(msgspec.json.decode(msgspec.json.encode(as_data(declared)))) == declared
