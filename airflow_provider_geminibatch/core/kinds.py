"""The kinds of batches as rows of one table: what differs between asking for text and asking for vectors, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from airflow_provider_geminibatch.core.model import Build
from airflow_provider_geminibatch.core.outcomes import SchemaCheck, VectorCheck
from airflow_provider_geminibatch.core.vectors import vector_kind

VECTOR_COLUMN: Final = "embedding"
"""The column that vectors land in."""


class Kind(NamedTuple):
    """A kind of batch. ``message`` is what a request is, ``method`` what makes a batch and what a model that runs them lists."""

    message: str
    method: str
    check: Callable[[Build], SchemaCheck | None]
    """What answers are held against."""
    column: Callable[[Build], tuple[str, str] | None]
    """The column of its own that the value of an answer lands in, by name and kind."""
    by_row: bool
    """Whether rows can also be asked one by one, at once: a canary, and the rungs flex and standard."""
    counted: bool
    """Whether ``countTokens`` takes its requests."""
    not_on: Mapping[str, str]
    """Routes that have no such batches, and why."""


# Guide of batch embeddings on Vertex AI (2026): ``embed_content_config`` beside the content, JSONL on Cloud Storage only. The lines
# of its results are in no source that could be read.
_OTHER_FORM = "its batches take embeddings in another form, and what their result lines look like is documented nowhere"


def _schema_of(build: Build) -> SchemaCheck | None:
    from airflow_provider_geminibatch.core.schema_check import schema_check  # jsonschema is slow to import

    return schema_check(build.response_schema, repair=build.repair) if build.response_schema else None


def _vector_of(build: Build) -> SchemaCheck | None:
    return VectorCheck(build.dimensions)


def _no_column(build: Build) -> None:
    return None


def _vector_column(build: Build) -> tuple[str, str]:
    return VECTOR_COLUMN, vector_kind(build.dimensions)


KINDS: Final = {
    "generate": Kind("GenerateContentRequest", "batchGenerateContent", _schema_of, _no_column, True, True, {}),
    # Whether embedContent has a flex tier, and what a vector asked alone costs, is documented nowhere: not by row.
    "embed": Kind(
        "EmbedContentRequest",
        "asyncBatchEmbedContent",
        _vector_of,
        _vector_column,
        False,
        False,
        {"vertex": _OTHER_FORM},
    ),
}


def check_of(build: Build) -> SchemaCheck | None:
    """What the answers of a build are held against; None where anything goes."""
    return KINDS[build.kind].check(build)


__all__ = ["KINDS", "VECTOR_COLUMN", "Kind", "check_of"]
