"""The report of a commit: counted while its rows land, written after the commit stands, into the ledger and beside the data."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from itertools import repeat
from typing import Any

import msgspec

from airflow_provider_geminibatch.core.errors import StoreUnreadable
from airflow_provider_geminibatch.core.landing import CommitManifest
from airflow_provider_geminibatch.core.model import Outcomes
from airflow_provider_geminibatch.core.prices import NOTHING_SPENT, Spent
from airflow_provider_geminibatch.core.report import (
    COLUMNS,
    METRICS,
    WORST,
    BatchCost,
    Cost,
    Report,
    Seen,
    Tally,
    plain,
    report_of,
    table,
    together,
)
from airflow_provider_geminibatch.jobs.kept import CANARY, REUSED, KeptLayer
from airflow_provider_geminibatch.jobs.layers import BuiltLayer, Layer, SegmentLayer
from airflow_provider_geminibatch.jobs.rows import AnsweredBatch
from airflow_provider_geminibatch.storage.landing_store import LandingStore, Rows
from airflow_provider_geminibatch.storage.store import Store

_KEPT_ROUTES = {CANARY: "row by row", REUSED: "none"}
_COUNTED = {"candidates": "tokens_candidates", "thoughts": "tokens_thoughts", "cost_usd": "cost_usd"}


def counted(rows: Rows, tally: Tally) -> Rows:
    """The same rows, counted as they pass, one by one or as columns."""
    return _ByColumns(rows, tally) if hasattr(rows, "batches") else _Counted(rows, tally)


class _Counted:
    """Rows that are counted as they pass."""

    def __init__(self, rows: Rows, tally: Tally) -> None:
        self._rows, self._tally = rows, tally

    @property
    def columns(self) -> Sequence[Any]:
        return self._rows.columns

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        # A commit that begins again passes all rows again.
        self._tally.clear()
        names = [column.name for column in self.columns]
        # By a map, which holds no row: one may have a hundred megabytes.
        return map(self._count, self._rows, repeat([names.index(name) for name in COLUMNS]))

    def _count(self, row: tuple[Any, ...], at: Sequence[int]) -> tuple[Any, ...]:
        self._tally.add(Seen(*(row[place] for place in at)))
        return row


class _ByColumns(_Counted):
    """Rows that also come as record batches of Arrow."""

    def batches(self) -> Iterator[Any]:
        self._tally.clear()
        return map(self._count_batch, self._rows.batches())  # type: ignore[attr-defined]

    def _count_batch(self, batch: Any) -> Any:
        count_batch(self._tally, batch)
        return batch


def count_batch(tally: Tally, batch: Any) -> None:
    """Count a record batch as ``Tally.add`` counts its rows."""
    import pyarrow as pa
    import pyarrow.compute as pc

    before, table_ = tally.rows, pa.Table.from_batches([batch])
    for metric in METRICS:
        _offer(tally, batch, metric, before)
    unknown = pc.is_null(batch.column("cost_usd"))
    grouped = table_.append_column("unknown", unknown).group_by("outcome", use_threads=False)
    found = grouped.aggregate([("cost_usd", "sum"), ("unknown", "any"), ("outcome", "count")]).to_pylist()
    for one in found:
        cost = None if one["unknown_any"] else one["cost_usd_sum"]
        tally.count(one["outcome"], one["outcome_count"], cost)
    for one in table_.group_by(["round", "shard"], use_threads=False).aggregate([([], "count_all")]).to_pylist():
        tally.count_round(one["round"], one["shard"], one["count_all"])
    odd = pc.not_equal(batch.column("outcome"), Outcomes.ANSWER.value)
    if pc.any(odd).as_py():
        columns = [column.to_pylist() for column in (batch.filter(odd).column(name) for name in COLUMNS)]
        for row in zip(*columns, strict=True):
            tally.blame(Seen(*row))


def _offer(tally: Tally, batch: Any, metric: str, before: int) -> None:
    import pyarrow.compute as pc

    column = batch.column(_COUNTED[metric])
    least = tally.least(metric)
    rows = pc.indices_nonzero(pc.greater(column, 0 if least is None else least))
    if len(rows) > WORST:
        ranks = pc.sort_indices(column.take(rows), sort_keys=[("", "descending")])
        rows = rows.take(ranks.slice(0, WORST))
    keys, values = batch.column("key").take(rows).to_pylist(), column.take(rows).to_pylist()
    for row, key, value in zip(rows.to_pylist(), keys, values, strict=True):
        tally.offer(metric, value, before + row, key)


def report_path(generation: str, commit: str) -> str:
    """Where the ledger of a batch keeps the report of a commit that it is part of."""
    return f"{generation}/commits/{commit}.report.json"


def note_report(
    batches: Sequence[AnsweredBatch],
    manifest: CommitManifest,
    landing: LandingStore,
    rows: Callable[[], Rows],
    tally: Tally,
    log: logging.Logger,
) -> Report:
    """Write the report of a commit that stands, unless it is there; log it as a few lines. Safe to repeat.

    ``rows`` are counted now if the commit needed no rows, since an earlier try had written them.
    """
    kept = (read_report(batch.store, batch.origin.path, manifest.commit) for batch in batches)
    report = next((one for one in kept if one), None)
    if report is None:
        if tally.rows != manifest.rows:
            again = rows()
            for _ in again.batches() if hasattr(again, "batches") and manifest.format == "parquet" else again:
                pass
        report = report_of(manifest, tally, [costs_of(batch) for batch in batches], _estimated_part(batches))
    data = encoded(report)
    for batch in batches:
        path = report_path(batch.origin.path, manifest.commit)
        if batch.store.read(path) != data:
            batch.store.write(path, data)
    landing.attach(manifest, data)
    log.info("%s", table(report))
    return report


def encoded(report: Report) -> bytes:
    """A report as its file."""
    return msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n"


def decoded(data: bytes, uri: str) -> Report:
    """A report from its file. Raises StoreUnreadable."""
    try:
        return msgspec.json.decode(data, type=Report)
    except msgspec.MsgspecError as error:
        raise StoreUnreadable(uri, f"it is not a report ({error})") from None


def read_report(store: Store, generation: str, commit: str) -> Report | None:
    """The report in the ledger, if it is there."""
    path = report_path(generation, commit)
    data = store.read(path)
    return None if data is None else decoded(data, f"{store.uri}/{path}")


def costs_of(batch: AnsweredBatch) -> BatchCost:
    """What each way of asking took of a batch."""
    costs = (
        Cost(
            source=source, route=route, model=model, asked=asked, tokens=spent.tokens,
            cost_usd=None if spent.cost_usd is None else plain(spent.cost_usd),
        )
        for (source, route, model), asked, spent in _spendings(batch)
    )  # fmt: skip
    return BatchCost(batch=batch.origin.path, rows=batch.rows, costs=together(costs))


def _spendings(batch: AnsweredBatch) -> Iterator[tuple[tuple[str, str, str], int | None, Spent]]:
    first = NOTHING_SPENT
    for shard in batch.shards:
        first = first.plus(shard.spent)
    asked = sum(shard.job.rows if shard.job else 0 for shard in batch.shards)
    yield ("first", "batch", batch.build.model), asked, first
    for layer in batch.layers:
        yield _named(layer), _asked(layer), layer.spent


def _named(layer: Layer) -> tuple[str, str, str]:
    if isinstance(layer, BuiltLayer):
        source = f"rung {layer.rung}" if layer.rung is not None else f"round {layer.round}"
        return source, "batch", layer.build.model
    if isinstance(layer, SegmentLayer):
        return f"rung {layer.rung.number}", layer.rung.kind, layer.model
    return layer.source, _KEPT_ROUTES.get(layer.source, "batch"), layer.model


def _asked(layer: Layer) -> int | None:
    if isinstance(layer, BuiltLayer):
        return sum(shard.shard.rows for shard in layer.shards)
    return layer.reused_rows or None if isinstance(layer, KeptLayer) else None


def _estimated_part(batches: Sequence[AnsweredBatch]) -> Decimal | None:
    """What the first submissions and their canaries cost: that is what an estimate is of."""
    total = NOTHING_SPENT
    for batch in batches:
        for name, _, spent in _spendings(batch):
            if name[0] in ("first", CANARY):
                total = total.plus(spent)
    return total.cost_usd


__all__ = ["costs_of", "count_batch", "counted", "decoded", "encoded", "note_report", "read_report", "report_path"]
