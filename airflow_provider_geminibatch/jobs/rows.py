"""The rows of a commit: of every shard in its order, each with its outcome, its cost and the user's own columns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec

from airflow_provider_geminibatch.core.errors import StoreUnreadable
from airflow_provider_geminibatch.core.landing import Origin
from airflow_provider_geminibatch.core.model import Build, Shard
from airflow_provider_geminibatch.core.outcomes import Outcome, SchemaCheck
from airflow_provider_geminibatch.core.prices import spent_on
from airflow_provider_geminibatch.jobs.results import Answered
from airflow_provider_geminibatch.storage.sinks import COLUMNS, Column, Row, as_text, landing_names, user_columns
from airflow_provider_geminibatch.storage.store import Store

_decode_key = msgspec.json.Decoder(tuple[str, dict[str, Any]]).decode


@dataclass(frozen=True)
class AnsweredBatch:
    """A batch whose jobs have all ended, shard by shard."""

    store: Store
    build: Build
    origin: Origin
    check: SchemaCheck | None
    shards: tuple[Answered, ...]


class LandedRows:
    """All rows, as tuples in the order of ``columns``.

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


def _own(key: str, outcome: Outcome, cost: Decimal | None) -> tuple[Any, ...]:
    """The first columns of a row, in the order of ``sinks.COLUMNS``, up to the cost."""
    usage = outcome.usage
    return (
        key, outcome.kind.value, outcome.text, outcome.value, outcome.extra, outcome.reason or None, outcome.code,
        outcome.finish_reason or None, usage.prompt, usage.candidates, usage.thoughts, usage.cached, usage.total, cost,
    )  # fmt: skip


def sealed_keys(store: Store, shard: Shard) -> Iterator[tuple[str, dict[str, Any]]]:
    """Key and passed-through columns of every row. Raises StoreUnreadable at the end when the file is not the sealed one."""
    digest, rows = hashlib.sha256(), 0
    with store.open(shard.keys_path) as lines:
        for line in lines:
            digest.update(line)
            try:
                yield _decode_key(line)
            except msgspec.MsgspecError as error:
                raise _not_sealed(store, shard, f"line {rows + 1}: {error}") from None
            rows += 1
    if (rows, digest.hexdigest()) != (shard.rows, shard.keys_sha256):
        raise _not_sealed(store, shard, "rows or checksum differ")


def _not_sealed(store: Store, shard: Shard, why: str) -> StoreUnreadable:
    return StoreUnreadable(f"{store.uri}/{shard.keys_path}", f"it is not what was sealed ({why})")


def money(amount: Decimal | None) -> str | None:
    """An amount of USD as plain decimal text; None stays None."""
    return None if amount is None else format(amount.normalize() if amount else Decimal(0), "f")
