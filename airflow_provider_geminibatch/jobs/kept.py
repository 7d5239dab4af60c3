"""Answers that a shard has without its job, kept beside it: left out of the shard's jobs, and part of its results.

    s/<build>/<shard>/canary.json              how many lines, and which rows have a usable answer
    s/<build>/<shard>/canary-<digest>.jsonl    {"key":…,"response":{…}|"error":{…},"model":…,"tier":…,"lost":0,"usd":"…"}
    s/<build>/<shard>/reused.json, …           the same for what was answered before, in another batch
    s/<build>/<shard>/ended-01.json, …         and for what an earlier job of the shard came to before it ended badly

They lie with the shard's facts, so that they come along when a later generation refers to the shard.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec

from airflow_provider_geminibatch.core.errors import LedgerUnreadable, StoreUnreadable
from airflow_provider_geminibatch.core.landing import ShardResult
from airflow_provider_geminibatch.core.layers import At, Said
from airflow_provider_geminibatch.core.ledger import Kept, Reusing, RungFact
from airflow_provider_geminibatch.core.model import Build, Shard
from airflow_provider_geminibatch.core.names import generation_path, parse_wire_key, short, wire_key
from airflow_provider_geminibatch.core.outcomes import Outcome, SchemaCheck, classify, with_raw
from airflow_provider_geminibatch.core.prices import NOTHING_SPENT, Price, Spent, spent_on
from airflow_provider_geminibatch.jobs.segments import SegmentLine, rung_bill, rung_path
from airflow_provider_geminibatch.storage import facts as fact_store
from airflow_provider_geminibatch.storage.store import Store, must_read

CANARY_RUNG = 0
"""A canary asks as a rung does, under a number that the ladder does not use: ``rungs/00.*``."""


CANARY, REUSED, ENDED = "canary", "reused", "ended"
"""Where kept answers come from, which names their files and the ``shard`` of their rows; of ended jobs there may be several."""

SOURCES = (REUSED, CANARY)


class KeptLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One kept answer, as a result line with its money; see ``SegmentLine``. ``at`` and ``path``: when and where it came, if reused."""

    key: str
    response: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    model: str = ""
    tier: str = ""
    lost: int = 0
    usd: str | None = None
    at: datetime | None = None
    path: str = ""

    @property
    def cost_usd(self) -> Decimal | None:
        return None if self.usd is None else Decimal(self.usd)


_decode = msgspec.json.Decoder(KeptLine).decode


class KeptRow(NamedTuple):
    """A line that was kept for a shard: its row, what became of it, and the line itself."""

    row: int
    outcome: Outcome
    line: KeptLine


def kept_of(store: Store, shard: Shard, source: str = CANARY) -> Kept | None:
    """What was kept for a shard from a source, if anything was."""
    return fact_store.get(store, f"{shard.ledger}/{source}.json", Kept)


def left_out(store: Store, shard: Shard) -> frozenset[int]:
    """The rows of a shard that are answered already, so that no job has to."""
    found = (kept_of(store, shard, source) for source in SOURCES)
    rows = frozenset(row for kept in found if kept for row in kept.rows)
    return rows.union(*(kept.rows for kept in ended_of(store, shard)))


def ended_of(store: Store, shard: Shard) -> list[Kept]:
    """What was kept of jobs of a shard that ended badly, in the order of their attempts."""
    found: list[Kept] = []
    while (kept := kept_of(store, shard, _ended_name(len(found) + 1))) is not None:
        found.append(kept)
    return found


def _ended_name(number: int) -> str:
    return f"{ENDED}-{number:02d}"


def keep_ended(
    store: Store,
    shard: Shard,
    results: str,
    *,
    attempt: int,
    model: str,
    price: Price | None,
    check: SchemaCheck | None,
    me: str,
    at: datetime,
) -> Kept:
    """Put what a job came to before it ended badly beside its shard, from its results in the workspace; or obey who was first.

    Lines of other shards are none of it, and a row that two lines answer is asked again. One row is always left to ask: a shard
    that is sent once more has a job.
    """
    before = ended_of(store, shard)
    if (known := next((kept for kept in before if kept.attempt == attempt), None)) is not None:
        return known
    name, path = _ended_name(len(before) + 1), f"{shard.ledger}/{ENDED}-{attempt:02d}-{short(me, at.isoformat())}.jsonl"
    hashed, seen, usable, lines = hashlib.sha256(), set[int](), set[int](), 0
    with store.writer(path) as target, store.open(results) as source:
        for raw in source:
            line = classify(raw, check)
            key = parse_wire_key(line.key) if line.key else None
            if key is None or (key.tag, key.shard) != (shard.tag, shard.index):
                continue
            (usable.discard if key.row in seen or not line.outcome.usable else usable.add)(key.row)
            seen.add(key.row)
            data = (
                msgspec.json.encode(_as_kept(raw, line.key or "", model, spent_on(line.outcome.usage, price))) + b"\n"
            )
            hashed.update(data)
            target.write(data)
            lines += 1
    answered = usable | left_out(store, shard)
    if len(answered) >= shard.rows and usable:
        usable.remove(max(usable))
    mine = Kept(
        owner=me, at=at, path=path, sha256=hashed.hexdigest(), lines=lines, rows=tuple(sorted(usable)), attempt=attempt
    )  # fmt: skip
    return fact_store.put(store, f"{shard.ledger}/{name}.json", mine)


def _as_kept(raw: bytes, key: str, model: str, spent: Spent) -> KeptLine:
    """A line of results without the request that it echoes."""
    given = msgspec.json.decode(raw)
    response, error = given.get("response"), given.get("error")
    told = error if isinstance(error, dict) else {"message": str(given.get("status") or "")}
    whole = isinstance(response, dict) and bool(response)
    cost = None if spent.cost_usd is None else f"{spent.cost_usd:f}"
    return KeptLine(key=key, response=response if whole else None, error=None if whole else told, model=model, usd=cost)


def keep(
    store: Store,
    shard: Shard,
    lines: Sequence[tuple[int, SegmentLine]],
    usable: frozenset[int],
    *,
    me: str,
    at: datetime,
) -> Kept:
    """Put the lines that a canary brought for a shard beside it, in this order; or obey who was first."""
    if (standing := kept_of(store, shard)) is not None:
        return standing
    data = b"".join(
        msgspec.json.encode(_as_result(wire_key(shard.tag, shard.index, row), line)) + b"\n" for row, line in lines
    )
    sha256 = hashlib.sha256(data).hexdigest()
    path = f"{shard.ledger}/canary-{sha256[:16]}.jsonl"
    if not store.create(path, data) and store.read(path) != data:
        raise LedgerUnreadable(f"{store.uri}/{path}", "it is not what its name says")
    mine = Kept(owner=me, at=at, path=path, sha256=sha256, lines=len(lines), rows=tuple(sorted(usable)))
    return fact_store.put(store, f"{shard.ledger}/canary.json", mine)


def _as_result(key: str, line: SegmentLine) -> KeptLine:
    return KeptLine(
        key=key,
        response=line.response,
        error=line.error,
        model=line.model,
        tier=line.tier,
        lost=line.lost,
        usd=line.usd,
    )


def kept_rows(
    store: Store, shard: Shard, kept: Kept, check: SchemaCheck | None, source: str = CANARY
) -> Iterator[KeptRow]:
    """The lines that were kept for a shard, in the order of rows. Raises StoreUnreadable when they are not what was kept.

    They stream; what is wrong with them as a whole is told at the end.
    """
    uri, hashed = f"{store.uri}/{kept.path}", hashlib.sha256()
    with store.open(kept.path) as lines:
        for raw in lines:
            hashed.update(raw)
            try:
                line = _decode(raw)
            except msgspec.MsgspecError as error:
                raise _not_kept(uri, source, str(error)) from None
            key = parse_wire_key(line.key)
            if key is None or (key.tag, key.shard) != (shard.tag, shard.index):
                raise _not_kept(uri, source, f"{line.key!r} is no row of {shard}")
            yield KeptRow(key.row, with_raw(classify(raw, check).outcome, raw), line)
    if hashed.hexdigest() != kept.sha256:
        raise _not_kept(uri, source, "its checksum differs")


def _not_kept(uri: str, source: str, why: str) -> StoreUnreadable:
    what = (
        "the canary kept"
        if source == CANARY
        else "was kept to be used again"
        if source == REUSED
        else "an ended job brought"
    )
    return StoreUnreadable(uri, f"it is not what {what} ({why})")


@dataclass(frozen=True)
class KeptLayer:
    """What was kept for the shards of a root build, from one source."""

    number: int
    root: Build
    store: Store
    check: SchemaCheck | None
    kept: tuple[tuple[int, Kept], ...]
    spent: Spent
    source: str = CANARY
    shards: tuple[Any, ...] = ()
    """It has no jobs."""

    @property
    def model(self) -> str:
        return self.root.model

    @property
    def results(self) -> tuple[ShardResult, ...]:
        """What a seal of results says of it."""
        return tuple(
            ShardResult(
                shard=f"{shard.tag}-{shard.index:04d}.{self.source}", attempt=1, path=kept.path, sha256=kept.sha256
            )
            for shard, kept in ((self.root.shards[place], kept) for place, kept in self.kept)
        )

    def said(self) -> Iterator[Said]:
        """Its word on each of its rows, in the root's order. An unusable answer gives way to whatever a job says later."""
        for place, kept in self.kept:
            for row, outcome, line in kept_rows(self.store, self.root.shards[place], kept, self.check, self.source):
                at: At = (place, row)
                told, model = outcome.usable, line.model or self.root.model
                yield Said(at, self.number, outcome, told, line.cost_usd, model, None, self.source, None)

    @property
    def reused_rows(self) -> int:
        """How many rows were answered before."""
        return sum(len(kept.rows) for _, kept in self.kept) if self.source == REUSED else 0

    @property
    def saved(self) -> Spent:
        """What those rows would have cost by batch."""
        if self.source != REUSED:
            return NOTHING_SPENT
        found = [kept.saved_usd for _, kept in self.kept]
        return Spent(cost_usd=None if None in found else sum((Decimal(usd or 0) for usd in found), Decimal(0)))


def kept_layers(first: int, root: Build, store: Store, check: SchemaCheck | None) -> Iterator[KeptLayer]:
    """What was used again and what a canary brought, where there was any; numbered from ``first``."""
    number = first
    for layer in (reused_layer, canary_layer):
        if (found := layer(number, root, store, check)) is not None:
            yield found
            number += 1
    yield from _ended_layers(number, root, store, check)


def _ended_layers(first: int, root: Build, store: Store, check: SchemaCheck | None) -> Iterator[KeptLayer]:
    """What jobs of the build's shards came to before they ended badly, and what that cost: the first of each shard, the second …"""
    by_shard = [ended_of(store, shard) for shard in root.shards]
    for nth in range(max(map(len, by_shard), default=0)):
        kept = tuple((place, found[nth]) for place, found in enumerate(by_shard) if nth < len(found))
        source, spent = _ended_name(nth + 1), NOTHING_SPENT
        for place, one in kept:
            for _, outcome, line in kept_rows(store, root.shards[place], one, None, source):
                spent = spent.plus(Spent(outcome.usage, line.cost_usd))
        yield KeptLayer(first + nth, root, store, check, kept, spent, source)


def reused_layer(number: int, root: Build, store: Store, check: SchemaCheck | None) -> KeptLayer | None:
    """What was answered before, if this or an earlier generation looked for it. It costs nothing.

    As a canary, a look-up keeps beside any shard of its build, also one that an earlier generation had sealed and not sent.
    """
    looked = [number for number in _generations(root) if reusing(store, generation_path(root.batch, number))]
    found = [
        (place, kept)
        for place, shard in enumerate(root.shards)
        if shard.generation <= max(looked, default=0) and (kept := kept_of(store, shard, REUSED))
    ]
    return KeptLayer(number, root, store, check, tuple(found), NOTHING_SPENT, REUSED) if found else None


def reusing(store: Store, generation: str) -> Reusing | None:
    """The decision of a generation to use answers again, if it was made."""
    return fact_store.get(store, f"{generation}/reuse.json", Reusing)


def _generations(root: Build) -> range:
    """From the oldest that sealed a shard of the build up to its own."""
    return range(min((shard.generation for shard in root.shards), default=root.generation), root.generation + 1)


def canary_layer(number: int, root: Build, store: Store, check: SchemaCheck | None) -> KeptLayer | None:
    """What canaries brought, if there was one. One read tells for all shards of a generation that there was none.

    The canary of this generation is counted with all it cost or may have; of earlier ones, what they kept for shards that
    are referred to. A canary keeps beside any shard of its build, also one that an earlier generation had sealed and not sent.
    """
    asked = {number: fact for number in _generations(root) if (fact := _canary_of(store, root, number))}
    found = [
        (place, kept)
        for place, shard in enumerate(root.shards)
        if shard.generation <= max(asked, default=0) and (kept := kept_of(store, shard))
    ]
    own = asked.get(root.generation)
    spent, billed = (_bill(store, root), _places(store, own)) if own else (NOTHING_SPENT, frozenset[int]())
    for place, kept in found:
        if place not in billed:
            for _, outcome, line in kept_rows(store, root.shards[place], kept, None):
                spent = spent.plus(Spent(outcome.usage, line.cost_usd))
    return KeptLayer(number, root, store, check, tuple(found), spent) if asked else None


def _canary_of(store: Store, root: Build, generation: int) -> RungFact | None:
    path = f"{rung_path(generation_path(root.batch, generation), CANARY_RUNG)}.json"
    return fact_store.get(store, path, RungFact)


def _places(store: Store, fact: RungFact) -> frozenset[int]:
    """The shards of a canary's sample, by their place in its build."""
    lines = must_read(store, fact.rows).splitlines()
    return frozenset(msgspec.json.decode(line, type=tuple[int, int])[0] for line in lines)


def _bill(store: Store, root: Build) -> Spent:
    bill = rung_bill(store, generation_path(root.batch, root.generation), CANARY_RUNG)
    return bill.spent.plus(Spent(cost_usd=bill.unanswered_usd))


__all__ = [
    "CANARY",
    "CANARY_RUNG",
    "ENDED",
    "REUSED",
    "SOURCES",
    "KeptLayer",
    "KeptLine",
    "KeptRow",
    "canary_layer",
    "ended_of",
    "keep",
    "keep_ended",
    "kept_layers",
    "kept_of",
    "kept_rows",
    "left_out",
    "reused_layer",
    "reusing",
]
