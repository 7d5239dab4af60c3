"""Columns that land on request, between ours and the user's: thoughts, raw lines, and typed columns of the answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from airflow_provider_geminibatch.core.fast_outcomes import NUMBER, Block
from airflow_provider_geminibatch.core.landing import KEEPABLE, Place
from airflow_provider_geminibatch.core.model import Outcomes
from airflow_provider_geminibatch.core.outcomes import Outcome, SchemaCheck, raw_text
from airflow_provider_geminibatch.core.value_columns import ValueColumn, common_columns, reader
from airflow_provider_geminibatch.storage.sinks import Column

_ANSWER = NUMBER[Outcomes.ANSWER]


class Extras:
    """The columns on request of a landing, for what is held against ``checks``."""

    def __init__(self, place: Place | None, checks: Iterable[SchemaCheck | None]) -> None:
        # In one order and each once, however they were named: a commit id stands for one content.
        self._kept = tuple(name for name in KEEPABLE if place and name in place.keep)
        typed: Sequence[ValueColumn] = ()
        if place and place.typed:
            typed = common_columns([getattr(check, "columns", ()) for check in checks])
        self._typed: list[tuple[str, Callable[[Any], Any]]] = [(one.property, reader(one.kind)) for one in typed]
        self.typed = bool(typed)
        self.columns = (
            *(Column(name, "string") for name in self._kept),
            *(Column(one.name, one.kind) for one in typed),
        )

    def cells(self, outcome: Outcome) -> Iterator[Any]:
        """The cells of one row."""
        for name in self._kept:
            yield getattr(outcome, name)
        value = outcome.value if outcome.usable and isinstance(outcome.value, dict) else {}
        for name, read in self._typed:
            yield read(value.get(name))

    def of_block(self, block: Block, raws: Sequence[bytes]) -> Iterator[Sequence[Any]]:
        """The cells of many lines, column by column."""
        for name in self._kept:
            yield block.told if name == "thoughts" else list(map(raw_text, raws))
        if self._typed:
            values = [
                value if kind == _ANSWER and isinstance(value, dict) else {}
                for kind, value in zip(block.kinds, block.value, strict=True)
            ]
            for name, read in self._typed:
                yield [read(value.get(name)) for value in values]


__all__ = ["Extras"]
