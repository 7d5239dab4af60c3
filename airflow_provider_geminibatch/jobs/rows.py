"""The rows of a commit: of every shard in its order, each with its outcome, its cost and the user's own columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from itertools import chain, islice
from typing import Any

from airflow_provider_geminibatch.core.fast_outcomes import landing_cells
from airflow_provider_geminibatch.core.kinds import KINDS
from airflow_provider_geminibatch.core.landing import Origin, Place
from airflow_provider_geminibatch.core.layers import At, Said, chosen, landing, overlaid, paid
from airflow_provider_geminibatch.core.model import Build, Outcomes
from airflow_provider_geminibatch.core.outcomes import Outcome, SchemaCheck
from airflow_provider_geminibatch.core.prices import spent_on
from airflow_provider_geminibatch.core.vectors import together
from airflow_provider_geminibatch.jobs.extras import Extras
from airflow_provider_geminibatch.jobs.layers import Layer, sealed_keys
from airflow_provider_geminibatch.jobs.results import Answered, OutcomeReader
from airflow_provider_geminibatch.jobs.spooled import Whole, merged, tuples, without
from airflow_provider_geminibatch.storage.arrow_parts import sized
from airflow_provider_geminibatch.storage.sinks import (
    BATCH_BYTES,
    COLUMNS,
    Column,
    Row,
    arrow_schema,
    as_text,
    landing_names,
    own_columns,
    record_batches,
    user_columns,
)
from airflow_provider_geminibatch.storage.spool import GROUP_ROWS
from airflow_provider_geminibatch.storage.store import Store

_VALUE = next(at for at, column in enumerate(COLUMNS) if column.name == "value")


_TEXTS = frozenset({str, type(None)})

# Money is written with as many digits by rows as by columns.
_EXACT, _NOTHING = Decimal(1).scaleb(-12), Decimal(0)


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
    Where a batch passes all columns of its source through, its key files are read once more, before, for their names.
    """

    def __init__(self, batches: Sequence[AnsweredBatch], place: Place | None = None) -> None:
        self._batches = batches
        self._extras = Extras(place, [batch.check for batch in batches])
        self.raw = place is not None and "raw" in place.keep
        self._users = user_columns(self._user_rows(), self._declared())
        kinds = [column[1] for batch in batches if (column := KINDS[batch.build.kind].column(batch.build))]
        self._vectors = bool(kinds)
        own = own_columns(together(kinds) if kinds else None, self._extras.columns)
        self.columns = (*own, *(Column(name, "string") for name in landing_names(self._users, own)))

    def _declared(self) -> list[str]:
        # "*" stands for all columns of the source, which the key files name.
        return list(dict.fromkeys(name for batch in self._batches for name in batch.build.columns if name != "*"))

    def _user_rows(self) -> Iterator[dict[str, Any]]:
        for batch in self._batches:
            if batch.build.columns and "*" not in batch.build.columns:
                continue  # all are named
            for answered in batch.shards:
                keys = sealed_keys(batch.store, answered.shard)
                if batch.build.columns or any(passed for _, passed in islice(keys, 1)):
                    yield from (passed for _, passed in sealed_keys(batch.store, answered.shard))

    def __iter__(self) -> Iterator[Row]:
        for batch in self._batches:
            if self._waits(batch):
                yield from chain.from_iterable(map(tuples, self._columns(batch)))
                continue
            if batch.layers:
                yield from self._merged_rows(batch)
                continue
            for answered in batch.shards:
                yield from self._shard_rows(batch, answered)

    def _shard_rows(self, batch: AnsweredBatch, answered: Answered) -> Iterator[Row]:
        job, shard = answered.job.name if answered.job else None, answered.result.shard
        keys = sealed_keys(batch.store, answered.shard)
        outcomes = answered.outcomes(batch.store, batch.check, raw=self.raw)
        for (key, passed), outcome in zip(keys, outcomes, strict=True):
            cost = spent_on(outcome.usage, answered.price).cost_usd
            model = outcome.model_version or batch.build.model
            own = (*_own(key, outcome, cost), model, job, shard, 0, outcome.repaired or None)
            yield self.row(batch, own, outcome, passed)

    def batches(self) -> Iterator[Any]:
        """The same rows as record batches of Arrow. What was kept when the lines were judged is not read again."""
        for batch in self._batches:
            yield from self._columns(batch)

    def _waits(self, batch: AnsweredBatch) -> bool:
        """Whether a batch waits by columns, and its columns say all of its rows: vectors and typed values are others there."""
        return not (self._vectors or self._extras.typed) and any(answered.spool for answered in batch.shards)

    def _columns(self, batch: AnsweredBatch) -> Iterator[Any]:
        above = _Above(batch)
        for place, answered in sorted(batch.places.items()):
            yield from self._shard_batches(batch, place, answered, above)

    def _shard_batches(self, batch: AnsweredBatch, place: int, answered: Answered, above: _Above) -> Iterator[Any]:
        keys, rows = sealed_keys(batch.store, answered.shard), answered.shard.rows
        same = {"job": answered.job.name if answered.job else None, "shard": answered.result.shard, "round": 0}
        whole, schema = Whole(self.columns, len(self._users), batch.build.model, same), arrow_schema(self.columns)
        # Where batches disagree about a property it is JSON text here, which a column of its own type cannot give back.
        spool = answered.spool if answered.spool and {*answered.spool.extras.columns} <= {*self.columns} else None
        with OutcomeReader(answered, batch.store, batch.check, raw=self.raw) as read:
            for start in range(0, rows, GROUP_ROWS):
                named = list(islice(keys, GROUP_ROWS))
                group = _Group(self, batch, answered, read, start, named, above.rows(place, start + len(named)))
                kept = spool.group(start // GROUP_ROWS) if spool else []
                ready = group.spooled(kept, whole, schema)
                yield from ready or record_batches(schema, self.columns, group.rows(range(start, start + len(named))))
        # The keys say at their end whether they are what was sealed.
        for _ in keys:
            raise AssertionError("a shard has as many keys as rows")

    def users(self, passed: Mapping[str, Any]) -> Iterator[str | None]:
        """The user's columns of one row."""
        return (as_text(passed.get(name)) for name in self._users)

    def user_columns(self, passed: Sequence[Mapping[str, Any]]) -> list[list[str | None]]:
        """The user's columns of some rows, column by column."""
        columns: list[list[Any]] = [[one.get(name) for one in passed] for name in self._users]
        return [
            column if set(map(type, column)) <= _TEXTS else [as_text(value) for value in column] for column in columns
        ]

    def _merged_rows(self, batch: AnsweredBatch) -> Iterator[Row]:
        """As ``_shard_rows``, with the best outcome of each row and the cost of all."""
        layers = [_of_root(batch, self.raw), *(layer.said() for layer in batch.layers)]
        groups = (group for group in overlaid(layers) if group[0].layer == 0)
        for (key, passed), group in zip(_all_keys(batch), groups, strict=True):
            yield self.row(batch, _merged(key, group), landing(group).outcome, passed)

    def row(self, batch: AnsweredBatch, own: tuple[Any, ...], outcome: Outcome, passed: Mapping[str, Any]) -> Row:
        """A row from its own columns: a vector moves from ``value`` to the column for it, which other batches leave empty."""
        rest = (*self._extras.cells(outcome), *self.users(passed))
        if not self._vectors:
            return (*own, *rest)
        if KINDS[batch.build.kind].column(batch.build) is None:
            return (*own, None, *rest)
        return (*own[:_VALUE], None, *own[_VALUE + 1 :], own[_VALUE], *rest)


class _Above:
    """What the layers say, taken up to a row at a time."""

    def __init__(self, batch: AnsweredBatch) -> None:
        self._groups = batch.above() if batch.layers else iter(())
        self._next = next(self._groups, None)

    def rows(self, place: int, end: int) -> dict[int, list[Said]]:
        """What is said of the rows of a shard before ``end`` that were not asked for before."""
        found: dict[int, list[Said]] = {}
        while self._next is not None and self._next[0].at < (place, end):
            found[self._next[0].at[1]] = self._next
            self._next = next(self._groups, None)
        return found


@dataclass(frozen=True)
class _Group:
    """Some neighbouring rows of a shard."""

    landed: LandedRows
    batch: AnsweredBatch
    answered: Answered
    read: OutcomeReader
    start: int
    named: Sequence[tuple[str, dict[str, Any]]]
    above: Mapping[int, list[Said]]

    def spooled(self, kept: Sequence[Any], whole: Whole, schema: Any) -> list[Any]:
        """The rows as record batches, from what was kept of them; none when too much of it was not."""
        odd = self.above.keys() | self.read.again
        kept, have = without(kept, odd)
        others = sorted({*range(self.start, self.start + len(self.named))}.difference(*have))
        if len(others) > len(self.named) // 2:
            return []
        usual = [self._usual(batch, rows, whole) for batch, rows in zip(kept, have, strict=True)]
        if not others:
            return usual
        unusual, weight = list[Any](), 0
        for batch in record_batches(schema, self.landed.columns, self.rows(others)):
            unusual.append(batch)
            weight += sized(batch).size_bytes
            if weight > BATCH_BYTES:  # images, say: they are held one at a time
                return []
        return [merged([*usual, *unusual], [*chain(*have), *others])]

    def _usual(self, kept: Any, rows: Sequence[int], whole: Whole) -> Any:
        if rows[-1] - rows[0] == len(rows) - 1:
            named = self.named[rows[0] - self.start : rows[-1] + 1 - self.start]
        else:
            named = [self.named[row - self.start] for row in rows]
        return whole.batch(kept, [key for key, _ in named], self.landed.user_columns([passed for _, passed in named]))

    def rows(self, rows: Iterable[int]) -> Iterator[Row]:
        """Some of the rows, one by one, from the results."""
        return map(self._row, rows)

    def _row(self, row: int) -> Row:
        key, passed = self.named[row - self.start]
        group = [self._root(row), *self.above.get(row, ())]
        return self.landed.row(self.batch, _merged(key, group), landing(group).outcome, passed)

    def _root(self, row: int) -> Said:
        answered, outcome = self.answered, self.read(row)
        told = answered.told and outcome.kind is not Outcomes.MISSING
        cost = spent_on(outcome.usage, answered.price).cost_usd
        job = answered.job.name if answered.job else None
        return Said((0, row), 0, outcome, told, cost, self.batch.build.model, job, answered.result.shard, 0)


def _merged(key: str, group: Sequence[Said]) -> tuple[Any, ...]:
    """The first columns of a row of which several layers may say something: the best outcome, and the cost of all."""
    best = landing(group)
    model = best.outcome.model_version or best.model
    own = _own(key, best.outcome, paid(group))
    return (*own, model, best.job, best.shard, best.round, best.outcome.repaired or None)


def _all_keys(batch: AnsweredBatch) -> Iterator[tuple[str, dict[str, Any]]]:
    for _, answered in sorted(batch.places.items()):
        yield from sealed_keys(batch.store, answered.shard)


def _of_root(batch: AnsweredBatch, raw: bool) -> Iterator[Said]:
    for place, answered in sorted(batch.places.items()):
        job, shard = answered.job.name if answered.job else None, answered.result.shard
        for row, outcome in enumerate(answered.outcomes(batch.store, batch.check, raw=raw)):
            told = answered.told and outcome.kind is not Outcomes.MISSING
            cost = spent_on(outcome.usage, answered.price).cost_usd
            yield Said((place, row), 0, outcome, told, cost, batch.build.model, job, shard, 0)


def _own(key: str, outcome: Outcome, cost: Decimal | None) -> tuple[Any, ...]:
    """The first columns of a row, in the order of ``sinks.COLUMNS``, up to the cost."""
    usage = outcome.usage
    return (
        key, outcome.kind.value, *landing_cells(outcome), usage.prompt, usage.candidates, usage.thoughts, usage.cached,
        usage.total, None if cost is None else cost.quantize(_EXACT) if cost else _NOTHING,
    )  # fmt: skip


def money(amount: Decimal | None) -> str | None:
    """An amount of USD as plain decimal text; None stays None."""
    return None if amount is None else format(amount.normalize() if amount else Decimal(0), "f")


__all__ = ["AnsweredBatch", "LandedRows", "money", "sealed_keys"]
