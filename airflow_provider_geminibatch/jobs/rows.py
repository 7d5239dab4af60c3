"""The rows of a commit: of every shard in its order, each with its outcome, its cost and the user's own columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

from airflow_provider_geminibatch.core.landing import Origin
from airflow_provider_geminibatch.core.layers import At, Said, chosen, landing, overlaid, paid
from airflow_provider_geminibatch.core.model import Build, Outcomes
from airflow_provider_geminibatch.core.outcomes import Outcome, SchemaCheck
from airflow_provider_geminibatch.core.prices import spent_on
from airflow_provider_geminibatch.jobs.layers import Layer, sealed_keys
from airflow_provider_geminibatch.jobs.results import Answered
from airflow_provider_geminibatch.storage.sinks import COLUMNS, Column, Row, as_text, landing_names, user_columns
from airflow_provider_geminibatch.storage.store import Store


@dataclass(frozen=True)
class AnsweredBatch:
    """A batch as far as it was answered: shard by shard, and the layers above, which answer what was unresolved."""

    store: Store
    build: Build
    origin: Origin
    check: SchemaCheck | None
    shards: tuple[Answered, ...]
    layers: tuple[Layer, ...] = ()

    @cached_property
    def places(self) -> dict[int, Answered]:
        """The shards by their place in the build, which is what rows of other layers refer to."""
        # A build may refer to shards of earlier ones, so that an index may stand twice.
        place = {(shard.home, shard.index): at for at, shard in enumerate(self.build.shards)}
        return {place[answered.shard.home, answered.shard.index]: answered for answered in self.shards}

    @property
    def rows(self) -> int:
        return sum(answered.shard.rows for answered in self.shards)

    def above(self) -> Iterator[list[Said]]:
        """What the layers say of the rows that are here, row after row."""
        said = overlaid(layer.said() for layer in self.layers)
        return (group for group in said if group[0].at[0] in self.places)

    @cached_property
    def counts(self) -> dict[str, int]:
        """Rows per outcome, by the outcome that lands."""
        counts = {kind.value: sum(answered.counts[kind] for answered in self.shards) for kind in Outcomes}
        for group in self.above():
            below = self._below(group[0].at)
            known = [below, *((said.outcome.kind, said.told) for said in group)]
            counts[below[0]] -= 1
            counts[known[chosen(known)][0]] += 1
        return counts

    def _below(self, at: At) -> tuple[Outcomes, bool]:
        return self.places[at[0]].kind_of(at[1])

    def unresolved(self) -> Iterator[tuple[At, Outcome]]:
        """The rows without an answer, in order, each with the outcome that would land now."""
        if not self.layers:
            yield from ((said.at, said.outcome) for said in self._unanswered())
            return
        for group in overlaid([self._unanswered(), *(layer.said() for layer in self.layers)]):
            best = landing(group)
            # A group without the root's word is of a row that the root answered, or that is not here.
            if group[0].layer == 0 and not best.outcome.usable:
                yield best.at, best.outcome

    def _unanswered(self) -> Iterator[Said]:
        for place, answered in sorted(self.places.items()):
            shard = answered.result.shard
            for row, outcome in answered.unresolved(self.store, self.check):
                told = answered.told and outcome.kind is not Outcomes.MISSING
                yield Said((place, row), 0, outcome, told, None, "", None, shard, 0)


class LandedRows:
    """All rows, as tuples in the order of ``columns``.

    ``round`` is 0 for the first submission, and None for a rung of the ladder, which then stands as ``shard``.
    Reading the key files first names the user's columns and shows that the files are what was sealed.
    """

    def __init__(self, batches: Sequence[AnsweredBatch]) -> None:
        self._batches = batches
        self._users = user_columns(self._user_rows(), self._declared())
        self.columns = (*COLUMNS, *(Column(name, "string") for name in landing_names(self._users)))

    def _declared(self) -> list[str]:
        # "*" stands for all columns of the source, which the key files name.
        return list(dict.fromkeys(name for batch in self._batches for name in batch.build.columns if name != "*"))

    def _user_rows(self) -> Iterator[dict[str, Any]]:
        for batch in self._batches:
            for answered in batch.shards:
                yield from (passed for _, passed in sealed_keys(batch.store, answered.shard))

    def __iter__(self) -> Iterator[Row]:
        for batch in self._batches:
            if batch.layers:
                yield from self._merged_rows(batch)
                continue
            for answered in batch.shards:
                yield from self._shard_rows(batch, answered)

    def _shard_rows(self, batch: AnsweredBatch, answered: Answered) -> Iterator[Row]:
        job, shard = answered.job.name if answered.job else None, answered.result.shard
        keys = sealed_keys(batch.store, answered.shard)
        outcomes = answered.outcomes(batch.store, batch.check)
        for (key, passed), outcome in zip(keys, outcomes, strict=True):
            cost = spent_on(outcome.usage, answered.price).cost_usd
            users = (as_text(passed.get(name)) for name in self._users)
            yield (*_own(key, outcome, cost), outcome.model_version or batch.build.model, job, shard, 0, *users)

    def _merged_rows(self, batch: AnsweredBatch) -> Iterator[Row]:
        """As ``_shard_rows``, with the best outcome of each row and the cost of all."""
        layers = [_of_root(batch), *(layer.said() for layer in batch.layers)]
        groups = (group for group in overlaid(layers) if group[0].layer == 0)
        for (key, passed), group in zip(_all_keys(batch), groups, strict=True):
            best = landing(group)
            users = (as_text(passed.get(name)) for name in self._users)
            own = _own(key, best.outcome, paid(group))
            yield (*own, best.outcome.model_version or best.model, best.job, best.shard, best.round, *users)


def _all_keys(batch: AnsweredBatch) -> Iterator[tuple[str, dict[str, Any]]]:
    for _, answered in sorted(batch.places.items()):
        yield from sealed_keys(batch.store, answered.shard)


def _of_root(batch: AnsweredBatch) -> Iterator[Said]:
    for place, answered in sorted(batch.places.items()):
        job, shard = answered.job.name if answered.job else None, answered.result.shard
        for row, outcome in enumerate(answered.outcomes(batch.store, batch.check)):
            told = answered.told and outcome.kind is not Outcomes.MISSING
            cost = spent_on(outcome.usage, answered.price).cost_usd
            yield Said((place, row), 0, outcome, told, cost, batch.build.model, job, shard, 0)


def _own(key: str, outcome: Outcome, cost: Decimal | None) -> tuple[Any, ...]:
    """The first columns of a row, in the order of ``sinks.COLUMNS``, up to the cost."""
    usage = outcome.usage
    return (
        key, outcome.kind.value, outcome.text, outcome.value, outcome.extra, outcome.reason or None, outcome.code,
        outcome.finish_reason or None, usage.prompt, usage.candidates, usage.thoughts, usage.cached, usage.total, cost,
    )  # fmt: skip


def money(amount: Decimal | None) -> str | None:
    """An amount of USD as plain decimal text; None stays None."""
    return None if amount is None else format(amount.normalize() if amount else Decimal(0), "f")


__all__ = ["AnsweredBatch", "LandedRows", "money", "sealed_keys"]
