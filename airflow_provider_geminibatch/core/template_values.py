"""What the templates of all kinds have in common: values of plain data, whose texts Airflow renders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any, ClassVar, Self

from airflow_provider_geminibatch.core.errors import Unusable
from airflow_provider_geminibatch.core.rows import encode_json


class Template:
    """A template as a value: equal arguments give equal values, equal text and equal JSON, in any process.

    Below it stand frozen dataclasses. ``texts`` names their fields in which columns may stand.
    """

    kind: ClassVar[str]
    texts: ClassVar[tuple[str, ...]]

    def _values(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]

    def serialize(self) -> dict[str, Any]:
        """The arguments that were given, as plain data. Airflow shows this and builds the Dag's version from it."""
        every = self._values()
        given = {
            field.name: every[field.name]
            for field in fields(self)  # type: ignore[arg-type]
            if every[field.name] != field.default
        }
        return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}

    def declaration(self) -> str:
        """Canonical JSON of everything that decides the meaning of an answer."""
        return encode_json(self.serialize()).decode()

    def rendered(self, render: Callable[[str], str]) -> Self:
        """The template with ``render`` applied to its texts."""
        values = self._values()
        changed = {name: render(values[name]) for name in self.texts if values[name] is not None}
        return type(self)(**{**values, **changed})

    def resolve(self, context: Mapping[str, Any]) -> Self:
        """What Airflow's templating calls: the texts rendered with the task's own Jinja environment."""
        render = context["task"].render_template
        return self.rendered(lambda text: str(render(text, context)))

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.declaration() == other.declaration()

    def __hash__(self) -> int:
        return hash(self.declaration())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.serialize().items())})"


def plain(value: Any, what: str) -> Any:
    """Plain data, deeply: what Dag files hold has to be the same text in every process. ``what`` names the argument."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(word): plain(each, what) for word, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each, what) for each in value]
    if callable(getattr(value, "model_dump", None)):  # the SDK's own types, which are pydantic models
        return value.model_dump(mode="json", by_alias=True, exclude_none=True)
    raise Unusable(what, f"it holds a {type(value).__name__}", "Use text, numbers, lists and dicts.")


def names_of(columns: Any, what: str) -> tuple[str, ...]:
    """Columns as they are named: one, or several. Raises Unusable, naming the argument, for what is no list of names."""
    if isinstance(columns, str):
        return (columns,)
    # Not a set: its order is another in each process, and so would be the Dag's version and every key file.
    ordered = isinstance(columns, Iterable) and not isinstance(columns, set | frozenset)
    names = tuple(columns) if ordered else (None,)
    if not all(isinstance(name, str) for name in names):
        raise Unusable(what, "it is no list of names", 'Write a list of names, ["region", "price"], or "*" for all.')
    return names


__all__ = ["Template", "names_of", "plain"]
