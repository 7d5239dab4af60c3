"""The template of an embed request: a text of each row, and what its vector is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.core.template_values import Template, names_of

_DOCUMENT = "RETRIEVAL_DOCUMENT"


@dataclass(frozen=True, eq=False, repr=False)
class EmbedTemplate(Template):
    """What is embedded of every row: one vector per row. Equal arguments give equal values, in any process.

    :param text: The text.
    :param key: The row's own key; unique within a batch.
    :param task_type: What the vectors are for: ``RETRIEVAL_DOCUMENT``, ``RETRIEVAL_QUERY``, ``SEMANTIC_SIMILARITY``,
        ``CLASSIFICATION``, ``CLUSTERING``, ``QUESTION_ANSWERING``, ``FACT_VERIFICATION``, ``CODE_RETRIEVAL_QUERY``.
    :param title: The title of a document that will be searched for.
    :param output_dimensionality: How long the vectors are. They are checked for it, and land in a column of just that length;
        without it they have the model's own length, and each row may have another.
    :param columns: Columns of the source that come back beside each vector; ``"*"`` for all.
    """

    text: str
    key: str = "$id"
    task_type: str | None = None
    title: str | None = None
    output_dimensionality: int | None = None
    columns: tuple[str, ...] | str = ()

    kind: ClassVar[str] = "embed"
    texts: ClassVar[tuple[str, ...]] = ("text", "key", "title")
    said: ClassVar[str] = "text"
    """The argument that every row has to fill with words."""
    arguments: ClassVar[dict[str, str]] = {
        "request.taskType": "task_type",
        "request.title": "title",
        "request.outputDimensionality": "output_dimensionality",
    }
    """Which argument a path of the request comes from; ``said`` otherwise."""
    media: ClassVar[tuple[Any, ...]] = ()
    response_schema: ClassVar[None] = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", names_of(self.columns, "EmbedTemplate(columns=)"))
        length = self.output_dimensionality
        if length is not None and (type(length) is not int or length < 1):
            raise Unusable("EmbedTemplate(output_dimensionality=)", f"{length!r} is no length", "Pass 1 or more.")
        # API reference of embedContent: a title is "only applicable when TaskType is RETRIEVAL_DOCUMENT".
        if self.title is not None and self.task_type not in (None, _DOCUMENT):
            do = f"Leave title= out, or write task_type={_DOCUMENT!r}."
            raise Unusable("EmbedTemplate(title=)", f"{self.task_type} takes no title", do)

    def request(self, put: Callable[[str, str], str], route: str) -> dict[str, Any]:
        """The request of every row; ``put(text, argument)`` gives a text with marks for its columns."""
        request: dict[str, Any] = {"content": {"parts": [{"text": put(self.text, "text")}]}}
        if self.task_type is not None:
            request["taskType"] = self.task_type
        if self.title is not None:
            request["title"] = put(self.title, "title")
        if self.output_dimensionality is not None:
            request["outputDimensionality"] = self.output_dimensionality
        return request


__all__ = ["EmbedTemplate"]
